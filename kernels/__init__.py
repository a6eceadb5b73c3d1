"""Compiled arithmetic: NumPy arrays in, NumPy arrays out; no I/O, no clock, no Python objects."""

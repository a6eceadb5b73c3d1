"""Histories that the project carries: a generated day of a city, and sites for public data sets."""

from pathlib import Path

DAY = Path(__file__).parent / "day"
"""Catalog folder, readings, truth and rules of the generated day."""

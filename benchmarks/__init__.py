"""Seeded workloads and the suites that time the line on them."""

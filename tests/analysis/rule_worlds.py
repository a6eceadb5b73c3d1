"""Small files of tests for the tests of them: one gas well, its neighbour, short rules."""

from __future__ import annotations

from pathlib import Path

from engine.analysis.rule_tests.results import Outcome, Results, run_tests

RULES = """
version = 1

[time]
tick_s = 10

[levels]
hold_s = 60

[profiles.methane]
unit = "%LEL"
range = [0, 100]
limits.high = { blue = 10, yellow = 25, red = 50 }
limits.deadband = 2
limits.on_delay_s = { yellow = 60 }
liveness = { absent_after = 3, absent_level = "yellow" }

[profiles.pressure]
unit = "kPa"
limits.low = { red = 150 }
rate = { fall = { blue = 2 }, per = "min", window_s = 240 }

[fusion]
half_life_s = 120
detectors = { absence = 0.5 }

[coupling]
influence = { default = 0.2 }

[[rules]]
name = "burst"
all = ["methane.high >= blue", "pressure.fall >= blue"]
level = "red"
"""
WELLS = """
version = 1
rules = "rules.toml"

[sources.well]
category = "gas_well"
sensors.ch4 = { quantity = "methane", unit = "%LEL", period_s = 60 }
sensors.p = { quantity = "pressure", unit = "kPa", period_s = 60 }

[sources.next]
category = "gas_well"
sensors.ch4-next = { quantity = "methane", unit = "%LEL", period_s = 60 }

[[couplings]]
from = "well"
to = "next"
kind = "pipe"
weight = 1.0
"""


def write(folder: Path, tests: str, *, rules: str = RULES, wells: str = WELLS) -> Path:
    """Write a rules file and a file of tests, and return the latter."""
    (folder / "rules.toml").write_text(rules, encoding="utf-8")
    path = folder / "rules_test.toml"
    path.write_text(wells + tests, encoding="utf-8")
    return path


def one(body: str) -> str:
    """Return one test of some lines."""
    return f'\n[[test]]\nname = "it"\n{body}\n'


def results(folder: Path, tests: str, **files: str) -> Results:
    """Run a file of tests."""
    return run_tests(write(folder, tests, **files))


def tested(folder: Path, body: str, **files: str) -> Outcome:
    """Run one test."""
    return results(folder, one(body), **files).tests[0]

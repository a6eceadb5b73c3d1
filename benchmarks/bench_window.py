"""Time detection with a sliding window of six panes on top of every other detector."""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks.bench_detect import Race, measure_detect, time_turns
from benchmarks.measure import Measured

# as in the table: what others take from the core does not count
pytestmark = pytest.mark.benchmark(timer=time.process_time)


def measure_window() -> Measured:
    """Return our time over that of touching one random cache line per reading."""
    return measure_detect(windowed=True)


def bench_window__mean_of_a_minute_1m(benchmark: Any) -> None:
    """Detect with a window of 60 s in six panes, a million sensors in random order."""
    run = Race.of_city(windowed=True)
    run.warm()
    time_turns(benchmark, run.ours.run, run.feed)

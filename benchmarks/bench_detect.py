"""Time detection at a million sensors in random order: ours, the limit, the naive loop.

All three read the same log. What ours and the naive loop find is compared before anything is timed,
and over all that is timed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.limits import Lines
from benchmarks.measure import Measured, Spread, best_over_best, by_turns, ratios
from benchmarks.naive import NaiveLine
from benchmarks.workloads import BATCH, Feed, plan_of
from engine.pipeline import Pipeline
from engine.plan import Plan
from engine.readings import Readings

Array = np.ndarray[Any, Any]

# as in the table: what others take from the core does not count
pytestmark = pytest.mark.benchmark(timer=time.process_time)

N_SENSORS = 1_000_000
OUTLIERS = 0.001
N_WARM = 64
"""Batches in random order before anything is timed, and in which parity is checked first."""
N_TURNS = 15
N_EACH = 8
"""Batches of a turn."""
MOST_DIFFERING = 1e-3
"""Share of the changes that may differ: we keep float32, the naive loop float64."""


class Detector:
    """Detection alone, as the pipeline runs it, over batches."""

    def __init__(self, plan: Plan) -> None:
        self.line = Pipeline(plan)
        (self.shard,) = self.line.shards

    def run(self, batches: list[Readings]) -> list[Array]:
        """Return the changes that were found."""
        found = []
        for readings in batches:
            start = 0
            while start < len(readings):
                consumed, n = self.shard.detect(readings, start)
                start += consumed
                found.append(self.shard.changes[:n].copy())
        return found


class Race:
    """Ours, the naive loop and the limit on one seeded log."""

    def __init__(self, plan: Plan, feed: Feed) -> None:
        self.feed = feed
        self.ours = Detector(plan)
        self.naive = NaiveLine(plan)
        self.lines = Lines(feed.n_sensors)
        self.found: dict[str, list[Array]] = {"ours": [], "naive": []}
        self.n_changes = self.n_differing = 0

    @classmethod
    def of_city(cls, windowed: bool = False) -> Race:
        """Return the race of the bars: a million sensors, every detector on."""
        return cls(plan_of(N_SENSORS, windowed), Feed(N_SENSORS, outliers=OUTLIERS))

    def run_ours(self, batches: list[Readings]) -> None:
        """Detect as the pipeline does."""
        self.found["ours"] += self.ours.run(batches)

    def run_naive(self, batches: list[Readings]) -> None:
        """Detect naively."""
        self.found["naive"] += [self.naive.detect(readings).copy() for readings in batches]

    def warm(self, n_batches: int = N_WARM) -> None:
        """Fill the sensors' memory, then settle into random order; check that both agree."""
        for readings in self.feed.sweeps():
            self.run_ours([readings])
            self.run_naive([readings])
        for _ in range(n_batches):
            batches = self.feed.batches(1)
            self.run_ours(batches)
            self.run_naive(batches)
            self.lines.touch(batches)
        self.check()
        self.n_changes = self.n_differing = 0

    def check(self) -> None:
        """Compare what was found since the last time, and forget it."""
        ours, naive = (np.concatenate(self.found[name]) for name in ("ours", "naive"))
        for parts in self.found.values():
            parts.clear()
        theirs = set(map(tuple, naive.tolist()))
        columns = (ours[name].tolist() for name in ("position", "sensor", "levels"))
        mine = set(zip(*columns, strict=True))
        self.n_changes += len(mine | theirs)
        self.n_differing += len(mine ^ theirs)
        if self.n_differing > MOST_DIFFERING * self.n_changes:
            first = sorted(mine ^ theirs)[:3]
            raise AssertionError(
                f"ours and the naive loop differ in {self.n_differing} of {self.n_changes} changes;"
                f" the first (position, sensor, levels): {first}"
            )

    def inputs(self, n_turns: int, n_each: int) -> Iterator[list[Readings]]:
        """Yield the input of each turn, made outside of it."""
        for _ in range(n_turns):
            yield self.feed.batches(n_each)
            self.check()


@cache
def race(windowed: bool) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run the race; return the turns of each contestant in ns per reading, and what was found."""
    run = Race.of_city(windowed)
    run.warm()
    contestants = {"ours": run.run_ours, "limit": run.lines.touch, "naive": run.run_naive}
    turns = by_turns(contestants, run.inputs(N_TURNS, N_EACH), N_EACH * BATCH)
    n_readings = N_TURNS * N_EACH * BATCH
    return turns, {
        "readings": n_readings,
        "changes_per_reading": run.n_changes / n_readings,
        "changes_that_differ": run.n_differing,
        **{f"{name}_ns": Spread.of(figures).median for name, figures in turns.items()},
        "naive_over_ours": ratios(turns["naive"], turns["ours"]).median,
    }


def measure_detect(windowed: bool = False) -> Measured:
    """Return our time over that of touching one random cache line per reading."""
    turns, details = race(windowed)
    return Measured(
        figure=ratios(turns["ours"], turns["limit"]),
        limit=f"{details['limit_ns']:.1f} ns a line, ours {details['ours_ns']:.1f} ns;"
        f" best turn of each {best_over_best(turns['ours'], turns['limit']):.2f} ×",
        details={**details, "best_over_best": best_over_best(turns["ours"], turns["limit"])},
    )


def measure_naive() -> Measured:
    """Return the naive loop's time over ours, both without windows."""
    turns, details = race(windowed=False)
    with_window, _ = race(windowed=True)
    windowed = ratios(with_window["naive"], with_window["ours"])
    return Measured(
        figure=ratios(turns["naive"], turns["ours"]),
        limit=f"naive {details['naive_ns']:.0f} ns, ours {details['ours_ns']:.1f} ns;"
        f" with the window {windowed.median:.1f} ×",
        details={**details, "with_window": windowed.median},
    )


@pytest.fixture(scope="module")
def racing() -> Race:
    """A race whose contestants are warm and agree."""
    run = Race.of_city()
    run.warm()
    return run


def time_turns(benchmark: Any, run: Any, feed: Feed) -> None:
    """Time turns of a contestant, each on readings of its own."""

    def fed() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (feed.batches(N_EACH),), {}

    benchmark.pedantic(run, setup=fed, rounds=N_TURNS, warmup_rounds=1)
    benchmark.extra_info["ns_per_reading"] = benchmark.stats.stats.median * 1e9 / (N_EACH * BATCH)


def bench_limit__touch_1m(benchmark: Any, racing: Race) -> None:
    """Touch one cache line per reading, a million sensors in random order."""
    time_turns(benchmark, racing.lines.touch, racing.feed)


def bench_detect__random_1m(benchmark: Any, racing: Race) -> None:
    """Detect with every detector but windows, a million sensors in random order."""
    time_turns(benchmark, racing.ours.run, racing.feed)


def bench_detect__naive_1m(benchmark: Any, racing: Race) -> None:
    """The same, naively."""
    time_turns(benchmark, lambda batches: [racing.naive.detect(b) for b in batches], racing.feed)

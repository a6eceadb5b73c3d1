"""Time alert records alone: transitions of sources that nobody asked about lately."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest

from benchmarks.measure import Measured, Spread, by_turns
from benchmarks.workloads import Feed, plan_of, with_ticks
from engine.alerts import AlertRecords
from engine.pipeline import Pipeline

Array = np.ndarray[Any, Any]

# as in the table: what others take from the core does not count
pytestmark = pytest.mark.benchmark(timer=time.process_time)

N_SENSORS = 1_000_000
N_FEED = 20_000
"""Sensors of the small city whose transitions are spread over the large one."""
SENSORS_PER_SOURCE = 4
N_BATCH = 65
"""Transitions of a batch of 64k readings, of which 0.1 % cause one."""
N_EACH = 100
N_TURNS = 15


@cache
def transitions(n_batches: int = 24) -> Array:
    """Return real transitions, of all kinds, of a small city with many incidents."""
    line, feed = Pipeline(plan_of(N_FEED)), Feed(N_FEED, incidents=0.002)
    for readings in feed.sweeps():
        line.judge(readings)
    found, before_ms = [], int(readings.event_ms[-1])
    for readings in feed.batches(n_batches):
        found.append(line.judge(with_ticks(readings, line.plan.tick_ms, before_ms)))
        before_ms = int(readings.event_ms[-1])
    return np.concatenate(found)


class Bench:
    """Batches of transitions of sources drawn at random: few are known from before."""

    def __init__(self, n_sensors: int = N_SENSORS, seed: int = 1) -> None:
        self.n_sources = n_sensors // SENSORS_PER_SOURCE
        self.records = AlertRecords(plan_of(n_sensors))
        self.rng = np.random.default_rng(seed)

    def batch(self, n: int) -> Array:
        """Return the next transitions, each moved to another source and its sensors."""
        drawn = self.rng.choice(transitions(), n)
        to = self.rng.integers(0, self.n_sources, n, np.int32)
        moved = SENSORS_PER_SOURCE * (to - drawn["source"])
        sensor = drawn["contributor"]["sensor"]
        drawn["contributor"]["sensor"] = np.where(sensor < 0, -1, sensor + moved[:, None])
        drawn["source"] = to
        return drawn

    def inputs(self, n_turns: int, n_each: int, n: int = N_BATCH) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of each turn, and the same records as objects."""
        writer = AlertRecords(self.records.plan)
        for _ in range(n_turns):
            batches = [self.batch(n) for _ in range(n_each)]
            yield batches, [orjson.loads(r) for batch in batches for r in writer.encode(batch)]

    def encode(self, given: tuple[Any, Any]) -> None:
        """Write the records."""
        for batch in given[0]:
            self.records.encode(batch)

    def dump(self, given: tuple[Any, Any]) -> None:
        """Write the same records, of which every text and number is at hand as an object."""
        for record in given[1]:
            orjson.dumps(record)


def measure_records(n: int = N_BATCH) -> Measured:
    """Return the µs of CPU time of a record; ``n`` transitions to a batch."""
    bench = Bench()
    n_each = N_EACH * N_BATCH // n
    inputs = bench.inputs(N_TURNS, n_each, n)
    turns = by_turns({"ours": bench.encode, "limit": bench.dump}, inputs, n_each * n)
    limit = Spread.of(ns / 1e3 for ns in turns["limit"])
    return Measured(
        figure=Spread.of(ns / 1e3 for ns in turns["ours"]),
        limit=f"dumping the finished object {limit.median:.2f} µs",
        details={"limit_us": limit.median, "batch": n},
    )


def bench_records__random_sources(benchmark: Any) -> None:
    """Write the records of 65 transitions at a time, 250,000 sources in random order."""
    bench = Bench()
    supply = bench.inputs(N_TURNS + 1, N_EACH)
    benchmark.pedantic(
        bench.encode, setup=lambda: ((next(supply),), {}), rounds=N_TURNS, warmup_rounds=1
    )
    benchmark.extra_info["records_per_s"] = N_EACH * N_BATCH / benchmark.stats.stats.median

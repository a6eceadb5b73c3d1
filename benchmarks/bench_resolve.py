"""Time the look-up of string ids at a million sensors, as they come from the wire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.limits import LINE, touch_lines
from benchmarks.measure import Measured, Spread, by_turns
from benchmarks.workloads import BATCH, city
from engine.resolver import Resolver
from engine.state import aligned

Array = np.ndarray[Any, Any]

# as in the table: what others take from the core does not count
pytestmark = pytest.mark.benchmark(timer=time.process_time)

N_SENSORS = 1_000_000
N_TURNS = 9
N_EACH = 8


class Asked:
    """Batches of ids in random order, and what they must resolve to."""

    def __init__(self, n_sensors: int = N_SENSORS, seed: int = 1) -> None:
        self.ids = city(n_sensors).sensor_id
        self.resolver = Resolver.of(self.ids)
        self.lines = aligned(n_sensors, LINE)
        self.lines["count"] = 1
        self.rng = np.random.default_rng(seed)

    def batch(self) -> tuple[Any, Array]:
        """Return ids, as an Arrow string array of its own, and their indices."""
        wanted = self.rng.integers(0, len(self.ids), BATCH, np.int32)
        return self.ids.take(pa.array(wanted)).cast(pa.string()), wanted

    def inputs(self, n_turns: int, n_each: int) -> Iterator[list[tuple[Any, Array]]]:
        """Yield the batches of each turn, parity of the first being checked."""
        for _ in range(n_turns):
            batches = [self.batch() for _ in range(n_each)]
            ids, wanted = self.batch()
            if not np.array_equal(self.resolver.resolve(ids), wanted):
                raise AssertionError("the resolver returned other sensors than were asked for")
            yield batches

    def resolve(self, batches: list[tuple[Any, Array]]) -> None:
        """Look every id up."""
        for ids, _ in batches:
            self.resolver.resolve(ids)

    def touch(self, batches: list[tuple[Any, Array]]) -> None:
        """Touch one cache line per id."""
        for _, wanted in batches:
            touch_lines(wanted, self.lines)


def measure_resolve() -> Measured:
    """Return ids per second of CPU time, in millions."""
    asked = Asked()
    contestants = {"ours": asked.resolve, "limit": asked.touch}
    turns = by_turns(contestants, asked.inputs(N_TURNS, N_EACH), N_EACH * BATCH)
    limit = Spread.of(1e3 / ns for ns in turns["limit"])
    return Measured(
        figure=Spread.of(1e3 / ns for ns in turns["ours"]),
        limit=f"touching a line per id {limit.median:.0f} M/s",
        details={f"{name}_ns": Spread.of(figures).median for name, figures in turns.items()},
    )


def bench_resolve__strings_1m(benchmark: Any) -> None:
    """Resolve 65,536 ids in random order at a million sensors."""
    asked = Asked()
    supply = asked.inputs(N_TURNS + 1, 1)
    benchmark.pedantic(
        asked.resolve, setup=lambda: ((next(supply),), {}), rounds=N_TURNS, warmup_rounds=1
    )
    benchmark.extra_info["ids_per_s"] = BATCH / benchmark.stats.stats.median

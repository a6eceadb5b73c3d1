"""All state of a partition: a few arrays of records sized from the plan, cut into shards."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from engine.plan import Plan
from kernels.agenda import schedule
from kernels.detect import ROOM
from kernels.layout import (
    BIN,
    BLOCK_SHIFT,
    CHANGE,
    CLOCK,
    COLD,
    FAR_FUTURE_MS,
    HOT,
    NEVER,
    PANES,
    READING,
    SIGNAL,
    SOURCE,
    TRANSITION,
)

Array = np.ndarray[Any, Any]

N_CHANGES = 8192
N_TRANSITIONS = 4096
CACHE_LINE = 128
"""Two lines of 64 bytes, which is what a ring of panes fills."""


def aligned(n: int, dtype: np.dtype[Any]) -> Array:
    """Return ``n`` zeroed records of which none straddles a cache line that it need not."""
    raw = np.zeros(n * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n * dtype.itemsize].view(dtype)


@dataclass(frozen=True, eq=False)
class State:
    """Records by sensor, window, season bin and source, named as in ``kernels.layout``."""

    hot: Array
    cold: Array
    signal: Array
    panes: Array
    bins: Array
    source: Array

    @classmethod
    def allocate(cls, plan: Plan) -> State:
        """Return the state before the first record of the log."""
        n_sensors, n_sources = plan.catalog.n_sensors, plan.catalog.n_sources
        state = cls(
            hot=aligned(n_sensors, HOT),
            cold=np.zeros(n_sensors, COLD),
            signal=np.zeros(n_sensors, SIGNAL),
            panes=aligned(int(plan.window_start[-1]), PANES),
            bins=np.zeros(max(1, int(plan.season_start[-1])), BIN),
            source=np.zeros(n_sources, SOURCE),
        )
        state.hot["last_ms"] = NEVER
        state.hot["row"] = plan.row
        for field in ("last_ms", "below_ms", "episode_ms", "place"):
            state.source[field] = NEVER
        return state

    @property
    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, as a snapshot holds them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all records."""
        return sum(array.nbytes for array in self.arrays.values())


class Shard:
    """A contiguous range of sources, cut between partitions, with its own clock and buffers.

    Every shard sees the whole log and keeps the whole clock; it runs the detectors of its own
    sensors only. Couplings never cross partitions, so shards share no state.
    """

    def __init__(self, plan: Plan, first_source: int, last_source: int) -> None:
        starts = plan.catalog.sensor_start
        self.sources = (first_source, last_source)
        self.sensors = (int(starts[first_source]), int(starts[last_source]))
        n_sensors = self.sensors[1] - self.sensors[0]
        self.counts_all = int(first_source == 0)
        self.clock = np.zeros(1, CLOCK)
        self.clock["watermark_ms"] = self.clock["tick_ms"] = NEVER
        turns = np.concatenate([plan.contexts["from_ms"], plan.contexts["to_ms"]])
        self.clock["context_ms"] = turns.min() if len(turns) else FAR_FUTURE_MS
        n_blocks = max(1, -(-n_sensors >> BLOCK_SHIFT))
        self.block_due_ms = np.full(n_blocks, FAR_FUTURE_MS, np.int64)
        self.agenda = np.zeros(max(1, last_source - first_source), np.int32)
        self.reading = np.zeros(1, READING)
        largest = int(np.diff(starts).max()) if plan.catalog.n_sources else 0
        self.changes = np.zeros(N_CHANGES + 2 * ROOM + largest, CHANGE)
        self.transitions = np.zeros(N_TRANSITIONS, TRANSITION)

    def rejoin(self, clock: Array, source: Array) -> None:
        """Take up a restored state: its clock, and the agenda of the shard's sources.

        A block's bound of zero is a lower bound of any deadline: the next tick looks through them
        all.
        """
        self.clock[:] = clock
        if not self.counts_all:
            self.clock["counts"] = 0
        self.clock["n_agenda"] = 0
        self.block_due_ms[:] = 0
        first, last = self.sources
        for index in first + np.flatnonzero(source["place"][first:last] >= 0):
            due_ms = int(source["due_ms"][index])
            source["place"][index] = NEVER
            schedule(int(index), due_ms, self.clock[0], self.agenda, source)


def cut_shards(plan: Plan, n: int) -> list[Shard]:
    """Return up to ``n`` shards of about the same number of sensors, cut where partitions meet."""
    catalog = plan.catalog
    bounds = np.asarray(catalog.partition_start)
    loads = catalog.sensor_start[bounds]
    aims = loads[-1] * np.arange(1, n) / n
    cuts = {int(bounds[np.abs(loads - aim).argmin()]) for aim in aims}
    edges = sorted({0, catalog.n_sources} | cuts)
    if len(edges) < 2:
        edges = [0, 0]
    return [Shard(plan, first, last) for first, last in pairwise(edges)]

"""Shards: contiguous ranges of sources, each on a thread of its own, that give the log of one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from engine.plan import Plan
from engine.readings import Readings, read_only
from engine.state import State
from kernels.agenda import schedule
from kernels.control import ROOM
from kernels.detect import detect
from kernels.fuse import fuse
from kernels.layout import (
    BLOCK_SHIFT,
    CHANGE,
    CLOCK,
    COUNT_NAMES,
    FAR_FUTURE_MS,
    NEVER,
    READING,
    TRANSITION,
)

Array = np.ndarray[Any, Any]

N_CHANGES = 8192
N_TRANSITIONS = 4096


class Shard:
    """A contiguous range of sources, cut between partitions, with its own clock and buffers.

    Every shard sees the whole log and keeps the whole clock; it runs the detectors of its own
    sensors only. Couplings never cross partitions, so shards share no state. One shard of a log
    counts what belongs to no sensor.
    """

    def __init__(
        self,
        plan: Plan,
        state: State,
        first_source: int,
        last_source: int,
        *,
        counts_all: bool = True,
    ) -> None:
        self.state = state
        starts = plan.catalog.sensor_start
        self.sources = (first_source, last_source)
        self.sensors = (int(starts[first_source]), int(starts[last_source]))
        n_sensors = self.sensors[1] - self.sensors[0]
        self.counts_all = int(counts_all)
        self.clock = np.zeros(1, CLOCK)
        self.clock["watermark_ms"] = self.clock["tick_ms"] = NEVER
        turns = np.concatenate([plan.contexts["from_ms"], plan.contexts["to_ms"]])
        self.clock["context_ms"] = turns.min() if len(turns) else FAR_FUTURE_MS
        n_blocks = max(1, -(-n_sensors >> BLOCK_SHIFT))
        self.block_due_ms = np.full(n_blocks, FAR_FUTURE_MS, np.int64)
        self.agenda = np.zeros(max(1, last_source - first_source), np.int32)
        self.reading = np.zeros(1, READING)
        largest = int(np.diff(starts[first_source : last_source + 1]).max(initial=0))
        self.changes = np.zeros(N_CHANGES + 2 * ROOM + largest, CHANGE)
        self.transitions = np.zeros(N_TRANSITIONS, TRANSITION)
        self._bind(plan, state)

    def _bind(self, plan: Plan, state: State) -> None:
        """Line up what the kernels take, in the order in which they take it."""
        city = plan.catalog
        watched = (plan.params, plan.absent_ms, plan.window_params, plan.more_start,
                   plan.season_start, city.sensor_start)  # fmt: skip
        graph = (city.sensor_start, city.coupled_start, city.coupled_origin, plan.coupled_weight,
                 city.coupling_start, city.coupling_target, city.category, city.static_class,
                 city.district, city.sensor_source)  # fmt: skip
        judged = (plan.category, plan.terms, plan.signal_rules, plan.contexts)
        self._detect_given = (
            (*self.sensors, self.counts_all, state.stride),
            (plan.late_after_ms, plan.max_ahead_ms, plan.max_late_ms),
            tuple(map(read_only, watched)),
        )
        self._detect_state = (
            (self.clock, state.lines, state.cold, state.rings, state.more, state.seconds,
             state.bins, self.block_due_ms, self.reading),
        )  # fmt: skip
        self._fuse_given = (
            self.sources,
            (read_only(plan.params), read_only(plan.row), tuple(map(read_only, graph)),
             *map(read_only, judged)),
        )  # fmt: skip
        self._fuse_state = (self.clock, state.signal, state.source, self.agenda)

    def detect(self, readings: Readings, start: int) -> tuple[int, int]:
        """Run the detectors from ``start`` on; return (records consumed, changes written)."""
        log = (readings.sensor, readings.event_ms, readings.value, readings.quality)
        return detect(
            *(read_only(column) for column in log),
            start,
            *self._detect_given,
            *self._detect_state,
            self.changes,
        )

    def fuse(self, n_changes: int, start: int) -> tuple[int, Array]:
        """Fuse the changes from ``start`` on; return (changes consumed, transitions)."""
        consumed, n = fuse(
            self.changes, n_changes, start, *self._fuse_given, self._fuse_state, self.transitions
        )
        return consumed, self.transitions[:n].copy()

    def rejoin(self, clock: Array) -> None:
        """Take up a restored state: its clock, and the agenda of the shard's sources.

        A block's bound of zero is a lower bound of any deadline: the next tick looks through them
        all.
        """
        source = self.state.source
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


class Sharded:
    """What the shards of one log say together."""

    plan: Plan
    shards: list[Shard]
    n_foreign: int
    """Readings of other partitions' sensors that came, and were passed over."""

    @property
    def sources(self) -> tuple[int, int]:
        """Return the line's sources: (first, one past the last)."""
        return self.shards[0].sources[0], self.shards[-1].sources[1]

    @property
    def sensors(self) -> tuple[int, int]:
        """Return the line's sensors: (first, one past the last)."""
        return self.shards[0].sensors[0], self.shards[-1].sensors[1]

    @property
    def watermark_ms(self) -> int:
        """Return the newest event time taken."""
        return int(self.shards[0].clock["watermark_ms"][0])

    def count_foreign(self, sensor: Array) -> int:
        """Count the readings of sensors that the catalog has, but these shards do not."""
        first, last = self.shards[0].sensors
        # one unsigned comparison for both ends
        strange = (sensor - np.int32(first)).view(np.uint32) >= np.uint32(last - first)
        if not strange.any():
            return 0
        others = sensor[strange]
        return int(np.count_nonzero((others >= 0) & (others < self.plan.catalog.n_sensors)))

    @property
    def position(self) -> int:
        """Return how many records of the log were taken, ticks included."""
        return int(self.shards[0].clock["position"][0])

    @property
    def counts(self) -> dict[str, int]:
        """Return what became of the readings, by ``kernels.layout.COUNT_NAMES``."""
        return dict(zip(COUNT_NAMES, self.count_array.tolist(), strict=True))

    @property
    def count_array(self) -> Array:
        """Return `counts` as (12,) int64, in the order of their names."""
        return np.sum([shard.clock["counts"][0] for shard in self.shards], axis=0)


def cut_shards(plan: Plan, state: State, n: int) -> list[Shard]:
    """Return up to ``n`` shards of about the same number of sensors, cut where partitions meet."""
    catalog = plan.catalog
    bounds = np.asarray(catalog.partition_start)
    loads = catalog.sensor_start[bounds]
    aims = loads[-1] * np.arange(1, n) / n
    cuts = {int(bounds[np.abs(loads - aim).argmin()]) for aim in aims}
    edges = sorted({0, catalog.n_sources} | cuts)
    if len(edges) < 2:
        edges = [0, 0]
    return [
        Shard(plan, state, first, last, counts_all=first == 0) for first, last in pairwise(edges)
    ]


def shard_of(plan: Plan, state: State, partition: int) -> Shard:
    """Return the shard of one partition, which has a log of its own."""
    first, last = plan.catalog.partition_start[partition : partition + 2].tolist()
    return Shard(plan, state, first, last)


def in_log_order(parts: Sequence[Array]) -> Array:
    """Put the transitions of shards, in their order, into the order of one shard alone.

    A record's changes go by sensor, as shards do; what is due goes by (due time, source).
    """
    transitions = np.concatenate(parts)
    if len(parts) == 1:
        return transitions
    timed = transitions["phase"] > 0
    order = np.lexsort(
        (
            np.where(timed, transitions["trigger"], 0),
            np.where(timed, transitions["trigger_ms"], 0),
            transitions["phase"],
            transitions["position"],
        )
    )
    return transitions[order]

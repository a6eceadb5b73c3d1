"""The line: records of the log in, alert records out, in the order in which they flow.

    readings → detect → changes → fuse → transitions → alert records

It is synchronous and deterministic: it reads no clock, does no I/O and never asks whether it runs
live or on history. The same log gives the same alert records however it is cut into batches, and on
however many threads the shards of its catalog run.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from engine.alerts import AlertRecords
from engine.plan import Plan
from engine.readings import Readings
from engine.state import Shard, State, cut_shards
from kernels.detect import detect
from kernels.fuse import fuse
from kernels.layout import COUNT_NAMES, TRANSITION

Array = np.ndarray[Any, Any]


class Pipeline:
    """One partition's line, from readings to alert records."""

    def __init__(self, plan: Plan, threads: int = 1) -> None:
        self.plan = plan
        self.state = State.allocate(plan)
        self.shards = cut_shards(plan, threads)
        self.records = AlertRecords(plan)
        self._pool = ThreadPoolExecutor(len(self.shards)) if len(self.shards) > 1 else None

    def push(self, readings: Readings) -> list[bytes]:
        """Take the next records of the log; return the alert records that they cause, as JSON."""
        return self.records.encode(self.judge(readings))

    def judge(self, readings: Readings) -> Array:
        """Take the next records of the log; return (T,) TRANSITION, in the log's order."""
        if self._pool is None:
            return self._run(self.shards[0], readings)
        parts = self._pool.map(lambda shard: self._run(shard, readings), self.shards)
        return in_log_order(np.concatenate(list(parts)))

    def _run(self, shard: Shard, readings: Readings) -> Array:
        """Detect, then fuse, as far as the buffers reach at a time."""
        found = []
        start = 0
        while start < len(readings):
            consumed, n_changes = self._detect(shard, readings, start)
            start += consumed
            fused = 0
            while fused < n_changes:
                consumed, n_transitions = self._fuse(shard, n_changes, fused)
                fused += consumed
                found.append(shard.transitions[:n_transitions].copy())
        return np.concatenate(found) if found else np.zeros(0, TRANSITION)

    def _detect(self, shard: Shard, readings: Readings, start: int) -> tuple[int, int]:
        plan, state = self.plan, self.state
        return detect(
            readings.sensor, readings.event_ms, readings.value, readings.quality, start,
            (*shard.sensors, shard.counts_all),
            (plan.late_after_ms, plan.max_ahead_ms, plan.max_late_ms),
            (plan.params, plan.absent_ms, plan.window_params, plan.window_start, plan.season_start,
             plan.catalog.sensor_start),
            (shard.clock, state.hot, state.cold, state.panes, state.bins, shard.block_due_ms,
             shard.reading),
            shard.changes,
        )  # fmt: skip

    def _fuse(self, shard: Shard, n_changes: int, start: int) -> tuple[int, int]:
        plan, state, city = self.plan, self.state, self.plan.catalog
        graph = (
            city.sensor_start, city.coupled_start, city.coupled_origin, plan.coupled_weight,
            city.coupling_start, city.coupling_target, city.category, city.static_class,
            city.district, city.sensor_source,
        )  # fmt: skip
        return fuse(
            shard.changes, n_changes, start, shard.sources,
            (plan.params, plan.row, graph, plan.category, plan.terms, plan.signal_rules,
             plan.contexts),
            (shard.clock, state.signal, state.source, shard.agenda),
            shard.transitions,
        )  # fmt: skip

    @property
    def position(self) -> int:
        """Return how many records of the log were taken, ticks included."""
        return int(self.shards[0].clock["position"][0])

    @property
    def counts(self) -> dict[str, int]:
        """Return what became of the readings, by ``kernels.layout.COUNT_NAMES``."""
        total = sum(shard.clock["counts"][0] for shard in self.shards)
        return dict(zip(COUNT_NAMES, np.asarray(total).tolist(), strict=True))


def in_log_order(transitions: Array) -> Array:
    """Put the transitions of several shards, one after the other, into the order of one alone.

    A record's changes go by sensor, as shards do; what is due goes by (due time, source).
    """
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


def warm_up(plan: Plan) -> float:
    """Compile the kernels, or load them from their cache; return the seconds that it took."""
    start = time.perf_counter()
    Pipeline(plan).judge(Readings.tick(0))
    return time.perf_counter() - start

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
from engine.shards import Shard, cut_shards, in_log_order
from engine.state import State
from kernels.layout import COUNT_NAMES, TRANSITION

Array = np.ndarray[Any, Any]


class Pipeline:
    """The line of one catalog under one set of rules."""

    def __init__(self, plan: Plan, threads: int = 1) -> None:
        self.plan = plan
        self.state = State.allocate(plan)
        self.shards = cut_shards(plan, self.state, threads)
        self.records = AlertRecords(plan)
        self._pool = ThreadPoolExecutor(len(self.shards)) if len(self.shards) > 1 else None

    def push(self, readings: Readings) -> list[bytes]:
        """Take the next records of the log; return the alert records that they cause, as JSON."""
        return self.records.encode(self.judge(readings))

    def judge(self, readings: Readings) -> Array:
        """Take the next records of the log; return (T,) TRANSITION, in the log's order."""
        run = map if self._pool is None else self._pool.map
        return in_log_order(list(run(lambda shard: _flow(shard, readings), self.shards)))

    @property
    def position(self) -> int:
        """Return how many records of the log were taken, ticks included."""
        return int(self.shards[0].clock["position"][0])

    @property
    def counts(self) -> dict[str, int]:
        """Return what became of the readings, by ``kernels.layout.COUNT_NAMES``."""
        total = np.sum([shard.clock["counts"][0] for shard in self.shards], axis=0)
        return dict(zip(COUNT_NAMES, total.tolist(), strict=True))


def _flow(shard: Shard, readings: Readings) -> Array:
    """Detect, then fuse, as far as the shard's buffers reach at a time."""
    transitions = [np.zeros(0, TRANSITION)]
    start = 0
    while start < len(readings):
        consumed, n_changes = shard.detect(readings, start)
        start += consumed
        fused = 0
        while fused < n_changes:
            consumed, found = shard.fuse(n_changes, fused)
            fused += consumed
            transitions.append(found)
    return np.concatenate(transitions)


def warm_up(plan: Plan) -> float:
    """Compile the kernels, or load them from their cache; return the seconds that it took."""
    start = time.perf_counter()
    Pipeline(plan).judge(Readings.tick(0))
    return time.perf_counter() - start

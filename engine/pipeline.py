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
from engine.carry_out import carry_out
from engine.commands import Command, key_of
from engine.plan import Plan
from engine.readings import Readings
from engine.shards import Shard, Sharded, cut_shards, in_log_order, shard_of
from engine.state import State
from engine.traces import Answer, encode_trace
from kernels.layout import TRANSITION

Array = np.ndarray[Any, Any]


class Pipeline(Sharded):
    """The line of one catalog under one set of rules, or of one partition of it.

    A partition has a log of its own, with its own positions. Several of one process share a
    `state`; each touches its own sources and their sensors alone, and begins by resetting them.
    """

    def __init__(
        self,
        plan: Plan,
        threads: int = 1,
        *,
        state: State | None = None,
        partition: int | None = None,
    ) -> None:
        self.plan, self.partition = plan, partition
        self.state = State.allocate(plan) if state is None else state
        if partition is None:
            self.shards = cut_shards(plan, self.state, threads)
        else:
            self.shards = [shard_of(plan, self.state, partition)]
        self.state.reset(*self.sources, zeroed=state is None)
        self.n_foreign = 0
        self.records = AlertRecords(plan)
        self._pool = ThreadPoolExecutor(len(self.shards)) if len(self.shards) > 1 else None

    def push(self, readings: Readings) -> list[bytes]:
        """Take the next records of the log; return the alert records that they cause, as JSON."""
        return self.records.encode(self.judge(readings))

    def judge(self, readings: Readings) -> Array:
        """Take the next records of the log; return (T,) TRANSITION, in the log's order."""
        if self.partition is not None:
            self.n_foreign += self.count_foreign(readings.sensor)
        run = map if self._pool is None else self._pool.map
        return in_log_order(list(run(lambda shard: _flow(shard, readings), self.shards)))

    def command(self, command: Command) -> Answer:
        """Take a command as the next record of the log: its trace, then the alerts it moves."""
        refusal, trace, transitions = carry_out(self, command)
        told = [] if trace is None else [encode_trace(self.records, command, trace)]
        keys, records = self.records.write(transitions)
        keys, records = [key_of(command)] * len(told) + keys, told + records
        kinds = zip(transitions["level"].tolist(), transitions["kind"].tolist(), strict=True)
        return Answer(list(zip(keys, records, strict=True)), list(kinds), refusal)


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

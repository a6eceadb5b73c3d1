"""Run one test of rules: its log through the live line, with looks at what is expected.

The log holds a tick at every whole `tick_s`, as that of a city in which some sensor is always
heard, and one at its end. A tick stands before the readings of its time, as `kernels.weave` has it;
a command after the readings of its time. What is expected at a time is held against what the line
says after all records up to it and a tick at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from engine.analysis.rule_tests.coverage import Watch
from engine.analysis.rule_tests.items import Items
from engine.analysis.rule_tests.ready import Ready
from engine.analysis.rule_tests.state import Look, look
from engine.history import joined
from engine.pipeline import Pipeline
from engine.readings import Readings
from kernels.layout import ABSENCE, TICK

Array = np.ndarray[Any, Any]

TICKS_AT_ONCE = 1 << 16
NOTHING = Readings.of([], [], [])
_NO_TICKS = np.zeros(0, np.int64)


@dataclass(kw_only=True)
class Ran:
    """What the line made of a test."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    """The alert log, traces of commands included."""
    looks: dict[int, Look] = field(default_factory=dict)
    """By epoch milliseconds."""
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    """When, which command and why."""


def run(test: Ready, items: Items) -> Ran:
    """Run a test; what it reaches is noted in the items."""
    return _Run(test, items).run()


class _Run:
    def __init__(self, test: Ready, items: Items) -> None:
        self.test, self.plan = test, test.world.plan
        self.line = Pipeline(self.plan)
        # what records say of sources and sensors is kept from test to test
        self.line.records = test.world.records
        name = (str(test.loaded.path), test.name)
        self.watch = Watch(items, test.world, self.line, name)
        self.ran = Ran()
        self._held = NOTHING
        """Readings that the line takes together with the ticks after them: half as many calls."""
        # a rule might hold for no longer than until the next tick
        self._absence_counts = bool((self.plan.terms["kind"] == ABSENCE).any())
        self._pending: list[Array] = []
        self._due_ms = test.start_ms - test.start_ms % self.plan.tick_ms

    def run(self) -> Ran:
        test = self.test
        stops = {int(ms) for ms in test.arrival_ms} | {ms for ms, _ in test.commands}
        asked: dict[int, set[int]] = {}
        for check in test.checks:
            for at_ms in check.at_ms:
                asked.setdefault(at_ms, set()).update(
                    () if check.source is None else {check.source}
                )
        for now_ms in sorted(stops | asked.keys()):
            self._tick(now_ms)
            for batch in self._readings(now_ms):
                self._judge()
                self._held = batch
                if self._absence_counts:
                    self._judge()
            self._command(now_ms)
            if now_ms in asked:
                self._judge()
                self.ran.looks[now_ms] = look(self.line, now_ms, sorted(asked[now_ms]))
        self._tick(test.end_ms)
        self._judge(np.array([test.end_ms], np.int64))
        self._encode()
        self.watch.take_alerts(self.ran.alerts)
        return self.ran

    def _tick(self, now_ms: int) -> None:
        """Put in the ticks up to a time, that at it included."""
        tick_ms = self.plan.tick_ms
        while self._due_ms <= now_ms:
            last_ms = min(now_ms, self._due_ms + (TICKS_AT_ONCE - 1) * tick_ms)
            times = np.arange(self._due_ms, last_ms + 1, tick_ms, dtype=np.int64)
            self._judge(times)
            self._due_ms = int(times[-1]) + tick_ms

    def _judge(self, ticks_ms: Array = _NO_TICKS) -> None:
        """Let the line take the readings that are held, and ticks after them."""
        n = len(ticks_ms)
        ticks = Readings.of(np.full(n, TICK), ticks_ms, np.zeros(n))
        held, self._held = self._held, NOTHING
        log = joined([held, ticks]) if len(held) and n else held if len(held) else ticks
        if len(log):
            self._pending.append(self.watch.push(held, log))

    def _readings(self, now_ms: int) -> Iterator[Readings]:
        """Yield the readings that arrive at a time, in batches that name no sensor twice."""
        test = self.test
        first, last = np.searchsorted(test.arrival_ms, [now_ms, now_ms + 1]).tolist()
        begun, heard = first, set[int]()
        for at in range(first, last):
            sensor = int(test.sensor[at])
            if sensor in heard:
                yield self._cut(begun, at)
                begun, heard = at, set()
            heard.add(sensor)
        if last > begun:
            yield self._cut(begun, last)

    def _cut(self, first: int, last: int) -> Readings:
        columns = (self.test.sensor, self.test.event_ms, self.test.value, self.test.quality)
        return Readings(*(column[first:last] for column in columns))

    def _command(self, now_ms: int) -> None:
        for at_ms, command in self.test.commands:
            if at_ms != now_ms:
                continue
            self._judge()
            self._encode()
            answer = self.line.command(command)
            self.ran.alerts += [orjson.loads(record) for _, record in answer.alerts]
            if answer.refusal is not None:
                refused = (now_ms, command.name, answer.refusal.detail)
                self.ran.refused.append(refused)
            self.watch.settle(now_ms)

    def _encode(self) -> None:
        found = [piece for piece in self._pending if len(piece)]
        self._pending = []
        if found:
            records = self.line.records.encode(np.concatenate(found))
            self.ran.alerts += map(orjson.loads, records)

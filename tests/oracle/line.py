"""The whole line: one log, record by record, to transitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from engine.commands import Acknowledge, Command
from kernels.layout import (
    ACKNOWLEDGE,
    COUNT_NAMES,
    LATE,
    MAX_EVENT_MS,
    TICK,
    TICKS,
    TIME_AHEAD,
    TIME_OUT_OF_BOUNDS,
    TIME_TOO_LATE,
    UNKNOWN_SENSOR,
)
from tests.oracle import hiding
from tests.oracle.fusion import Fusion
from tests.oracle.numbers import plain_list, plain_rows
from tests.oracle.sensor import Change, Sensor


class Record(NamedTuple):
    """One record of the log: a reading, a tick, or an acknowledge (value: a source)."""

    sensor: int
    event_ms: int
    value: float = 0.0
    quality: int = 0


class Answer(NamedTuple):
    """What became of a command: why it is refused, or what people are told; and transitions."""

    refused: str | None
    told: hiding.Told | None
    transitions: list[dict[str, Any]]


class Oracle:
    """The line over a plan: push a record, get its transitions as dicts of TRANSITION's fields.

    ``changes`` keeps all that detection handed to fusion, ``counts`` what became of readings.
    """

    def __init__(self, plan: Any) -> None:
        rows = plain_rows(plan.params)
        windows = plain_rows(plan.window_params)
        self.sensors = []
        for index, (r, absent_ms) in enumerate(
            zip(plain_list(plan.row), plain_list(plan.absent_ms), strict=True)
        ):
            row = rows[r]
            own_windows = windows[row.first_window : row.first_window + row.n_windows]
            self.sensors.append(Sensor(index, row, own_windows, absent_ms))
        self.sensor_start = plain_list(plan.catalog.sensor_start)
        self.catalog = plan.catalog
        self.late_after_ms = int(plan.late_after_ms)
        self.max_ahead_ms = int(plan.max_ahead_ms)
        self.max_late_ms = int(plan.max_late_ms)
        self.fusion = Fusion(plan)
        self.watermark_ms: int | None = None
        self.position = 0
        self.counts = dict.fromkeys(COUNT_NAMES, 0)
        self.changes: list[Change] = []

    def push_all(self, records: Iterable[Record]) -> list[dict[str, Any]]:
        """Push records in order and return all their transitions."""
        return [transition for record in records for transition in self.push(record)]

    def push(self, record: Record) -> list[dict[str, Any]]:
        """Take one record of the log."""
        transitions: list[dict[str, Any]] = []
        if record.sensor == TICK:
            self._tick(record.event_ms, transitions)
        elif record.sensor == ACKNOWLEDGE:
            self._acknowledge(record, transitions)
        else:
            self._reading(record, transitions)
        self.position += 1
        return transitions

    def command(self, command: Command) -> Answer:
        """Take one command, a record of the log like any other."""
        scope, name = command.scope
        index = hiding.index_of(self.catalog, scope, name)
        answer = self._command(command, scope, index)
        self.position += 1
        return answer

    def _command(self, command: Command, scope: str, index: int) -> Answer:
        w = self.watermark_ms
        if index < 0:
            return Answer(f"unknown_{scope}", None, [])
        if not hiding.concerned(self.fusion, scope, index):
            return Answer("other_partition", None, [])
        if w is not None and command.event_ms - w > self.max_ahead_ms:
            return Answer("time_ahead", None, [])
        refused = hiding.refusal(self.fusion, command, index)
        told = None if refused else hiding.carry_out(self.fusion, command, index)
        transitions: list[dict[str, Any]] = []
        if isinstance(command, Acknowledge):
            record = Record(ACKNOWLEDGE, command.event_ms, float(index))
            self._acknowledge(record, transitions)
        elif told:
            about = hiding.concerned(self.fusion, scope, index)
            transitions = self.fusion.command(about, command.event_ms, self.position)
        return Answer(refused, told, transitions)

    def _reading(self, record: Record, transitions: list[dict[str, Any]]) -> None:
        if not 0 <= record.sensor < len(self.sensors):
            self._count(UNKNOWN_SENSOR)
            return
        t = record.event_ms
        watermark_ms = self._take_time(t)
        if watermark_ms is None:
            return
        late = watermark_ms - t > self.late_after_ms
        if late:
            self._count(LATE)
        sensor = self.sensors[record.sensor]
        before = tuple(sensor.level)
        self._count(sensor.take(t, record.value, record.quality))
        self._emit_if_changed(sensor, before, t, late, transitions)

    def _take_time(self, t: int) -> int | None:
        """Return the watermark with this reading; None if the reading's time is refused."""
        w = self.watermark_ms
        if t < 0 or t >= MAX_EVENT_MS:
            self._count(TIME_OUT_OF_BOUNDS)
            return None
        if w is not None and t - w > self.max_ahead_ms:
            self._count(TIME_AHEAD)
            return None
        if w is not None and w - t > self.max_late_ms:
            self._count(TIME_TOO_LATE)
            return None
        self.watermark_ms = t if w is None else max(w, t)
        return self.watermark_ms

    def _acknowledge(self, record: Record, transitions: list[dict[str, Any]]) -> None:
        """Let a source's latching limits go; a command says nothing of how late it is."""
        if not 0 <= record.event_ms < MAX_EVENT_MS:
            self._count(TIME_OUT_OF_BOUNDS)
            return
        source = record.value
        if not 0 <= source < len(self.sensor_start) - 1:
            return
        for sensor in self.sensors[
            self.sensor_start[int(source)] : self.sensor_start[int(source) + 1]
        ]:
            before = tuple(sensor.level)
            sensor.acknowledge()
            self._emit_if_changed(sensor, before, record.event_ms, False, transitions)

    def _tick(self, t: int, transitions: list[dict[str, Any]]) -> None:
        """Move time: first who is absent, sensor by sensor, then what is due, then contexts."""
        if t < 0 or t >= MAX_EVENT_MS:
            self._count(TIME_OUT_OF_BOUNDS)
            return
        self._count(TICKS)
        self.watermark_ms = t if self.watermark_ms is None else max(self.watermark_ms, t)
        for sensor in self.sensors:
            deadline_ms = sensor.deadline_ms()
            if deadline_ms is not None and deadline_ms <= t:
                before = tuple(sensor.level)
                sensor.go_absent()
                self._emit_if_changed(sensor, before, deadline_ms, False, transitions)
        transitions += self.fusion.tick(t, self.position)

    def _emit_if_changed(
        self,
        sensor: Sensor,
        before: tuple[int, ...],
        event_ms: int,
        late: bool,
        transitions: list[dict[str, Any]],
    ) -> None:
        if tuple(sensor.level) == before:
            return
        change = sensor.change(self.position, event_ms, late)
        self.changes.append(change)
        transitions += self.fusion.change(change)

    def _count(self, reason: int) -> None:
        self.counts[COUNT_NAMES[reason]] += 1

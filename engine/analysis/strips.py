"""What the line did with single sources, reading by reading: for strip charts and explanations.

`trace` runs a history through the line's own kernels and stops it where something may happen to a
chosen source, to look at the state. Nothing is computed a second time: latches, signals and scores
are those of the engine. Of the catalog only the partitions that hold chosen sources are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.past import Log, Past
from engine.plan import Plan, compile_plan
from engine.readings import Readings
from engine.rules import Rules
from engine.shards import Shard
from engine.state import State
from kernels.layout import (
    ACCEPTED,
    CHANGE,
    FAR_FUTURE_MS,
    LATE,
    MAX_EVENT_MS,
    N_LEVELS,
    NEVER,
    TICK,
    TRANSITION,
)

Array = np.ndarray[Any, Any]

TRACED = np.dtype(
    [
        ("position", "<i8"),  # of the record in the log
        ("event_ms", "<i8"),
        ("value", "<f8"),  # in the profile's unit
        ("levels", "<i8"),  # packed signals after it, see `kernels.pack`
        ("latched", "u1"),  # bit k: high limit k + 1; bit 4 + k: low limit k + 1
        ("fate", "u1"),  # what it counted as, see `kernels.layout.COUNT_NAMES`
    ]
)
"""One reading, and what stood after it."""
MOMENT = np.dtype(
    [
        ("position", "<i8"),
        ("event_ms", "<i8"),  # at which the source was judged
        ("score", "<f8"),
        ("level", "u1"),
        ("shown", "u1"),
    ]
)
"""One judgement of a source; score and level hold until the next."""
_JUDGED = ["last_ms", "score", "level", "shown"]
"""Of SOURCE, in the order of MOMENT."""


class Stretch(NamedTuple):
    """A time of one source, both ends included."""

    source: int
    since_ms: int
    until_ms: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SensorTrace:
    """One sensor over a stretch."""

    sensor: int
    readings: Array
    """(N,) TRACED, in the log's order"""
    changes: Array
    """(C,) CHANGE, in the log's order: also those that silence made"""
    before: int
    """Packed signals when the stretch began."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceTrace:
    """One source over a stretch."""

    source: int
    since_ms: int
    until_ms: int
    sensors: tuple[SensorTrace, ...]
    moments: Array
    """(M,) MOMENT in the log's order; the first is what stood when the stretch began"""
    transitions: Array
    """(T,) TRANSITION in the log's order"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What was noted of the chosen sources."""

    plan: Plan
    readings: dict[int, Array]
    """By sensor: (N,) TRACED"""
    changes: dict[int, Array]
    """By sensor: (C,) CHANGE of the whole history"""
    moments: dict[int, Array]
    """By source: (M,) MOMENT"""
    transitions: dict[int, Array]
    """By source: (T,) TRANSITION of the whole history"""

    def of(self, source: int, since_ms: int, until_ms: int) -> SourceTrace:
        """Return a traced stretch of one source, or a part of it."""
        first, last = self.plan.catalog.sensor_start[source : source + 2].tolist()
        moments = self.moments[source]
        at = moments["event_ms"]
        within = (at >= since_ms) & (at <= until_ms)
        earlier = np.flatnonzero(at < since_ms)
        within[earlier[-1:]] = True
        found = self.transitions[source]
        when = found["event_ms"]
        return SourceTrace(
            source=source,
            since_ms=since_ms,
            until_ms=until_ms,
            sensors=tuple(
                self._sensor(sensor, since_ms, until_ms) for sensor in range(first, last)
            ),
            moments=moments[within],
            transitions=found[(when >= since_ms) & (when <= until_ms)],
        )

    def _sensor(self, sensor: int, since_ms: int, until_ms: int) -> SensorTrace:
        readings, changes = self.readings[sensor], self.changes[sensor]
        at, when = readings["event_ms"], changes["event_ms"]
        earlier = changes[when < since_ms]
        return SensorTrace(
            sensor=sensor,
            readings=readings[(at >= since_ms) & (at <= until_ms)],
            changes=changes[(when >= since_ms) & (when <= until_ms)],
            before=int(earlier["levels"][-1]) if len(earlier) else 0,
        )


def trace(
    past: Past,
    rules: Rules,
    sources: Iterable[int],
    since_ms: int,
    until_ms: int,
    *,
    plan: Plan | None = None,
) -> Trace:
    """Trace some sources, by index, over one time. Raises what is wrong with readings and rules."""
    stretches = [Stretch(source, since_ms, until_ms) for source in sources]
    return trace_stretches(past, rules, stretches, plan=plan)


def trace_stretches(
    past: Past,
    rules: Rules,
    stretches: Sequence[Stretch],
    *,
    plan: Plan | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Trace:
    """Trace stretches of some sources; `plan` saves compiling one.

    Cost: one pass over the history, and some 20 µs for each reading of a chosen sensor, within its
    stretches, with which something might happen. Raises what is wrong with readings and rules.
    """
    plan = compile_plan(past.catalog, rules) if plan is None else plan
    for stretch in stretches:
        if not 0 <= stretch.source < plan.catalog.n_sources:
            raise ValueError(f"source: must be an index of the catalog, got {stretch.source}")
    probe = Probe(plan, stretches)
    if not stretches:
        return probe.trace()
    log = Log(past, plan)
    for batch in log:
        probe.take(batch)
        if on_progress is not None:
            on_progress(log.history.share)
    return probe.trace()


class Probe:
    """A line that is stopped where something may happen to a chosen source."""

    def __init__(self, plan: Plan, stretches: Sequence[Stretch]) -> None:
        self.plan, self.stretches = plan, stretches
        catalog = plan.catalog
        self.sources = sorted({stretch.source for stretch in stretches})
        self.sensors = [
            sensor
            for source in self.sources
            for sensor in range(*catalog.sensor_start[source : source + 2].tolist())
        ]
        self._is_chosen = np.zeros(catalog.n_sensors, bool)
        self._is_chosen[self.sensors] = True
        self._is_source = np.zeros(catalog.n_sources, bool)
        self._is_source[self.sources] = True
        self._concerns = _concerned(plan, self.sources)[catalog.sensor_source]
        partitions = [catalog.partition_of(source) for source in self.sources]
        ends = [min(partitions, default=0), max(partitions, default=-1) + 1]
        first, last = np.asarray(catalog.partition_start)[ends].tolist()
        self.state = State.allocate(plan)
        self.shard = Shard(plan, self.state, first, last)
        self.state.reset(first, last, zeroed=True)
        self._bands = {sensor: self._band(sensor) for sensor in self.sensors}
        self._last_ms = dict.fromkeys(self.sensors, NEVER)
        self._seen = self.state.source[self.sources][_JUDGED]
        self._stopping = False
        self._readings: list[Array] = []
        self._sensor_of: list[Array] = []
        self._changes: list[Array] = [np.zeros(0, CHANGE)]
        self._transitions: list[Array] = [np.zeros(0, TRANSITION)]
        # before the first record nothing was judged
        first = (0, NEVER, 0.0, 0, 0)
        self._moments: dict[int, list[tuple[Any, ...]]] = {s: [first] for s in self.sources}

    def take(self, batch: Readings) -> None:
        """Take the next records of the log."""
        self._stopping = self._is_near(batch)
        if not self._stopping:
            self._run(batch, 0, len(batch))
            return
        self._note_moments(int(self.shard.clock["position"][0]))
        places = self._places(batch)
        begin = int(self.shard.clock["position"][0])
        traced = np.zeros(len(places), TRACED)
        sensors = batch.sensor[places]
        rows = self.plan.params[self.plan.row[sensors]]
        traced["position"] = begin + places
        traced["event_ms"] = batch.event_ms[places]
        traced["value"] = batch.value[places] * rows["scale"] + rows["offset"]
        self._readings.append(traced)
        self._sensor_of.append(sensors)
        self._step(batch, places, sensors, rows, traced)

    def _is_near(self, batch: Readings) -> bool:
        """Return whether a batch holds anything of the time of a stretch."""
        if not len(batch):
            return False
        lowest, highest = int(batch.event_ms.min()), int(batch.event_ms.max())
        return any(each.since_ms <= highest and each.until_ms >= lowest for each in self.stretches)

    def _places(self, batch: Readings) -> Array:
        """Return where in a batch the readings of the chosen sensors within a stretch are."""
        sensor = batch.sensor
        known = np.flatnonzero((sensor >= 0) & (sensor < len(self._is_chosen)))
        places = known[self._is_chosen[sensor[known]]]
        source = self.plan.catalog.sensor_source[sensor[places]]
        event_ms = batch.event_ms[places]
        keep = np.zeros(len(places), bool)
        for of, since_ms, until_ms in self.stretches:
            keep |= (source == of) & (event_ms >= since_ms) & (event_ms <= until_ms)
        return places[keep]

    def _step(
        self, batch: Readings, places: Array, sensors: Array, rows: Array, traced: Array
    ) -> None:
        """Run a batch, stopping around every reading with which something might happen."""
        newest = np.maximum.accumulate(batch.event_ms)[places]
        value = traced["value"]
        good = (batch.quality[places] == 0) & np.isfinite(value)
        good &= (rows["range_low"] <= value) & (value <= rows["range_high"])
        good &= (traced["event_ms"] >= 0) & (traced["event_ms"] < MAX_EVENT_MS)
        done = 0
        fates, latches = traced["fate"], traced["latched"]
        latched = self.state.hot["latched"]
        columns = (places, sensors, traced["event_ms"], value, good, newest)
        for i, (place, sensor, event_ms, v, fine, newest_ms) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            low, high = self._bands[sensor]
            if fine and low < v < high and self._is_timely(sensor, event_ms, newest_ms):
                self._last_ms[sensor] = event_ms
                fates[i], latches[i] = ACCEPTED, latched[sensor]
                continue
            self._run(batch, done, place)
            before = self.shard.clock["counts"][0].copy()
            self._run(batch, place, place + 1)
            rose = self.shard.clock["counts"][0] - before
            rose[LATE] = 0
            fates[i], latches[i] = int(rose.argmax()), latched[sensor]
            self._last_ms[sensor] = int(self.state.hot["last_ms"][sensor])
            self._bands[sensor] = self._band(sensor)
            done = place + 1
        self._run(batch, done, len(batch))

    def _is_timely(self, sensor: int, event_ms: int, newest_ms: int) -> bool:
        """Return whether a reading is surely in order, and neither too early nor too late.

        The watermark lies between what it was at the last stop and the newest time of any record.
        """
        watermark_ms = int(self.shard.clock["watermark_ms"][0])
        return (
            event_ms > self._last_ms[sensor]
            and watermark_ms != NEVER
            and event_ms - watermark_ms <= self.plan.max_ahead_ms
            and newest_ms - event_ms <= self.plan.max_late_ms
        )

    def _band(self, sensor: int) -> tuple[float, float]:
        """Return between which values, both excluded, no latch of the sensor and no timer moves."""
        hot = self.state.hot[sensor]
        row = self.plan.params[self.plan.row[sensor]]
        if hot["pending"]:
            return np.inf, -np.inf
        lows, highs = [-np.inf], [np.inf]
        latched, deadband = int(hot["latched"]), float(row["deadband"])
        for k in range(N_LEVELS):
            raise_at, fall_at = float(row["high"][k]), float(row["low"][k])
            if latched >> k & 1:
                lows.append(raise_at - deadband)
            else:
                highs.append(raise_at)
            if latched >> (N_LEVELS + k) & 1:
                highs.append(fall_at + deadband)
            else:
                lows.append(fall_at)
        return max(lows), min(highs)

    def _run(self, batch: Readings, start: int, stop: int) -> None:
        """Detect and fuse some records of a batch, as `Pipeline` does."""
        if start == stop:
            return
        cut = batch.cut(start, stop)
        at = 0
        while at < len(cut):
            consumed, n_changes = self.shard.detect(cut, at)
            at += consumed
            self._fuse(n_changes)

    def _fuse(self, n_changes: int) -> None:
        changes = self.shard.changes[:n_changes]
        sensor = changes["sensor"]
        of_sensor = sensor >= 0
        known = np.maximum(sensor, 0)
        mine = of_sensor & self._is_chosen[known]
        if mine.any():
            self._changes.append(changes[mine])
        done = 0
        if self._stopping:
            stops = np.flatnonzero(~of_sensor | self._concerns[known])
            due_ms = self._due_ms()
            for stop in stops.tolist():
                change = changes[stop]
                if change["sensor"] == TICK and change["event_ms"] < due_ms:
                    continue
                self._fuse_until(stop + 1, done)
                done = stop + 1
                self._note_moments(int(change["position"]))
                due_ms = self._due_ms()
        self._fuse_until(n_changes, done)

    def _fuse_until(self, stop: int, start: int) -> None:
        while start < stop:
            consumed, found = self.shard.fuse(stop, start)
            start += consumed
            if len(found):
                kept = found[self._is_source[found["source"]]]
                self._transitions.append(kept)
                if self._stopping:
                    self._note_transitions(kept)

    def _due_ms(self) -> int:
        """Return the earliest time at which a tick may judge a chosen source."""
        of = self.state.source[self.sources]
        due_ms = of["due_ms"][of["place"] >= 0].min(initial=FAR_FUTURE_MS)
        return min(int(due_ms), int(self.shard.clock["context_ms"][0]))

    def _note_transitions(self, found: Array) -> None:
        """Note judgements between two stops: one tick may judge a source more than once."""
        for each in found:
            moment = (
                int(each["position"]),
                int(each["event_ms"]),
                float(each["score"]),
                int(each["standing"]),
                int(each["level"]),
            )
            self._note(int(each["source"]), moment)

    def _note_moments(self, position: int) -> None:
        """Note the chosen sources that were judged since they were last looked at."""
        now = self.state.source[self.sources][_JUDGED]
        moved = now != self._seen
        if moved.any():
            self._seen = now
            for at in np.flatnonzero(moved).tolist():
                self._note(self.sources[at], (position, *now[at].tolist()))

    def _note(self, source: int, moment: tuple[Any, ...]) -> None:
        noted = self._moments[source]
        if noted[-1][1:] != moment[1:]:
            noted.append(moment)

    def trace(self) -> Trace:
        """Return what was noted."""
        readings = np.concatenate([np.zeros(0, TRACED), *self._readings])
        sensor_of = np.concatenate([np.zeros(0, np.int32), *self._sensor_of])
        changes = np.concatenate(self._changes)
        transitions = np.concatenate(self._transitions)
        traced: dict[int, Array] = {}
        changed: dict[int, Array] = {}
        for sensor in self.sensors:
            own = readings[sensor_of == sensor]
            moved = changes[changes["sensor"] == sensor]
            newest = np.searchsorted(moved["position"], own["position"], side="right")
            own["levels"] = np.concatenate([[0], moved["levels"]])[newest]
            traced[sensor], changed[sensor] = own, moved
        return Trace(
            plan=self.plan,
            readings=traced,
            changes=changed,
            moments={source: np.array(m, MOMENT) for source, m in self._moments.items()},
            transitions={s: transitions[transitions["source"] == s] for s in self.sources},
        )


def _concerned(plan: Plan, sources: Sequence[int]) -> Array:
    """Return which sources' changes judge a chosen one: itself, and those coupled into it."""
    catalog = plan.catalog
    concerned = np.zeros(catalog.n_sources, bool)
    for source in sources:
        first, last = catalog.coupled_start[source : source + 2].tolist()
        concerned[catalog.coupled_origin[first:last]] = True
        concerned[source] = True
    return concerned

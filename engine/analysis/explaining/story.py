"""What the sensors did before a transition, in order and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.explaining.moment import Moment, levels_of
from engine.analysis.explaining.words import lasting
from engine.analysis.extract import Extract
from engine.plan import Plan
from engine.sentences import amount, describe
from kernels.layout import (
    ABSENCE,
    BAD,
    DEVIATION,
    DRIFT,
    FALL,
    FLATLINE,
    HIGH,
    KIND_NAMES,
    LEVEL_NAMES,
    LOW,
    RISE,
    SPIKE,
    WINDOW,
)

Array = np.ndarray[Any, Any]


class Told(NamedTuple):
    """One thing that happened; `sensor` is the part's."""

    event_ms: int
    sensor: int
    text: str
    level: int
    """The signal's level from then on."""
    kind: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """Readings in a row that met the condition of a latch, up to one of them."""

    begun_ms: int
    first: float
    last: float
    n: int


@dataclass(frozen=True, eq=False)
class Story:
    """The changes of the sensors that a moment went by."""

    extract: Extract
    moment: Moment

    @property
    def _plan(self) -> Plan:
        return self.moment.plan

    def told(self, sensors: set[int], since_ms: int) -> list[Told]:
        """Return what some sensors did since a time, in order."""
        found = []
        before: dict[int, int] = {}
        for change in self.moment.changes:
            sensor = int(change["sensor"])
            if sensor not in sensors:
                continue
            was, now = before.get(sensor, 0), int(change["levels"])
            before[sensor] = now
            if int(change["event_ms"]) >= since_ms:
                found += list(self._changed(change, sensor, was, now))
        return sorted(found, key=lambda each: each.event_ms)

    def begun_ms(self, sensors: set[int]) -> int:
        """Return since when any signal that is up, or fades, at the moment has been up."""
        times = [int(self.moment.transition["event_ms"])]
        for sensor in sensors:
            mine = self.moment.changes[self.moment.changes["sensor"] == sensor]
            calm = np.flatnonzero(mine["levels"] == 0)
            if len(mine) and (not len(calm) or calm[-1] + 1 < len(mine)):
                times.append(int(mine[calm[-1] + 1 if len(calm) else 0]["event_ms"]))
            elif len(calm) > 1:  # fading: the last time that anything was up
                times.append(int(mine[calm[-2] + 1]["event_ms"]))
            elif len(mine):
                times.append(int(mine[0]["event_ms"]))
        return min(times)

    def _changed(self, change: Any, sensor: int, was: int, now: int) -> Iterator[Told]:
        levels_was, levels_now = dict(levels_of(was)), dict(levels_of(now))
        event_ms = int(change["event_ms"])
        for kind in sorted(levels_was | levels_now):
            before, level = levels_was.get(kind, 0), levels_now.get(kind, 0)
            if level == before:
                continue
            if level > before:
                yield from self._risen(change, sensor, kind, level)
            else:
                text = self._fallen(change, sensor, kind, before, level)
                yield Told(event_ms, sensor, text, level, kind)

    def _risen(self, change: Any, sensor: int, kind: int, level: int) -> Iterator[Told]:
        event_ms, record = int(change["event_ms"]), int(change["position"])
        text = self.sentence(sensor, kind, level, self._value(change, sensor, kind), change)
        if kind in (HIGH, LOW):
            row = self._plan.row[sensor]
            delay_ms = int(self._plan.params["on_ms"][row, level - 1])
            run = self.run(sensor, record, kind, level, beyond=True)
            if delay_ms and run is not None:
                unit = self._plan.unit(int(row))
                first = amount(run.first, unit)
                yield Told(
                    run.begun_ms,
                    sensor,
                    f"{self.what(sensor)} {first}: on-delay of {lasting(delay_ms)} for "
                    f"{LEVEL_NAMES[level]} begins",
                    0,
                    kind,
                )
                stood = lasting(event_ms - run.begun_ms)
                text += f", for {stood} now, {run.n} readings in a row"
        if kind == ABSENCE:
            yield from self._last_heard(event_ms, sensor, record)
        yield Told(event_ms, sensor, text, level, kind)

    def _last_heard(self, event_ms: int, sensor: int, record: int) -> Iterator[Told]:
        good = self.good(sensor, record)
        if len(good):
            unit = self._plan.unit(int(self._plan.row[sensor]))
            value = amount(float(self.values(sensor, good[-1:])[0]), unit)
            heard_ms = event_ms - int(self._plan.absent_ms[sensor])
            text = f"{self.what(sensor)} heard for the last time, newest good value {value}"
            yield Told(heard_ms, sensor, text, 0, ABSENCE)

    def _fallen(self, change: Any, sensor: int, kind: int, before: int, level: int) -> str:
        what, name = self.what(sensor), KIND_NAMES[kind]
        to = f"{name} signal {LEVEL_NAMES[before]} → {LEVEL_NAMES[level]}"
        record = int(change["position"])
        if kind in (HIGH, LOW):
            row = int(self._plan.row[sensor])
            unit = self._plan.unit(row)
            limit = self._plan.limit(row, kind, before)
            deadband = float(self._plan.params["deadband"][row])
            back = limit - deadband if kind == HIGH else limit + deadband
            run = self.run(sensor, record, kind, before, beyond=False)
            side = "below" if kind == HIGH else "above"
            text = f"{what} back {side} {amount(back, unit)}"
            if run is not None and int(change["event_ms"]) > run.begun_ms:
                text += f" for {lasting(int(change['event_ms']) - run.begun_ms)}"
            return f"{text}: {to}"
        ended = {
            ABSENCE: f"{what} is heard again",
            FLATLINE: f"{what} moves again",
            BAD: f"{what} has a good reading again",
            SPIKE: f"{what}: the jump is over",
        }
        return f"{ended.get(kind, what)}: {to}"

    def what(self, sensor: int) -> str:
        """Return what a sensor measures, and which sensor it is."""
        catalog = self._plan.catalog
        quantity = catalog.quantities[int(catalog.quantity[sensor])].replace("_", " ")
        return f"{quantity} ({catalog.sensor_id[sensor].as_py()})"

    def sentence(self, sensor: int, kind: int, level: int, value: float, change: Any) -> str:
        """Return a signal in the words of the alert records, with its level."""
        row = int(self._plan.row[sensor])
        window = int(change["which"]) & 0x0F if kind == WINDOW else 0
        shown, unit = self._plan.statistic(row, kind, value, window)
        limit = self._plan.limit(row, kind, level, window, value=value, sensor=sensor)
        part = {
            "detector": KIND_NAMES[kind],
            "value": None if math.isnan(shown) else shown,
            "limit": None if math.isnan(limit) else limit,
            "unit": unit,
            "fading": False,
        }
        if kind == WINDOW:
            part["window"] = self._plan.window_names[
                int(self._plan.params["first_window"][row]) + window
            ]
        if part["value"] is None:
            return f"{self.what(sensor)}: {KIND_NAMES[kind]} signal {LEVEL_NAMES[level]}"
        if kind in (HIGH, LOW) and part["limit"] is None:
            part["limit"] = part["value"]
        return f"{describe(self.what(sensor), part)} → {LEVEL_NAMES[level]}"

    def _value(self, change: Any, sensor: int, kind: int) -> float:
        """Return what a kind compared with its limit; NaN where the line did not note it."""
        if kind in (HIGH, LOW):
            record = int(change["position"])
            if int(self.extract.log.sensor[record]) == sensor:
                return float(self.values(sensor, np.array([record]))[0])
        if kind == ABSENCE:
            return float(self._plan.absent_ms[sensor]) / 1000
        return float(change["value"]) if int(change["which"]) >> 4 == kind else math.nan

    def values(self, sensor: int, records: Array) -> Array:
        """Return values of records of the extract's log, in the profile's unit."""
        row = self._plan.params[int(self._plan.row[sensor])]
        found: Array = self.extract.log.value[records] * row["scale"] + row["offset"]
        return found

    def good(self, sensor: int, until: int) -> Array:
        """Return the records of a sensor's good readings, in order of time, up to a record."""
        log = self.extract.log
        records = np.flatnonzero(log.sensor[: until + 1] == sensor)
        t = log.event_ms[records]
        newest = np.maximum.accumulate(np.concatenate([[-1], t]))[:-1]
        row = self._plan.params[int(self._plan.row[sensor])]
        v = self.values(sensor, records)
        with np.errstate(invalid="ignore"):
            sound = (v >= row["range_low"]) & (v <= row["range_high"])
        good: Array = records[(t >= newest) & (log.quality[records] == 0) & sound]
        return good

    def run(self, sensor: int, record: int, kind: int, level: int, *, beyond: bool) -> Run | None:
        """Return the readings in a row, up to one, that were beyond a limit, or back inside it."""
        row = self._plan.params[int(self._plan.row[sensor])]
        limit = float(row["high" if kind == HIGH else "low"][level - 1])
        sign = 1.0 if kind == HIGH else -1.0
        records = self.good(sensor, record)
        v = self.values(sensor, records) * sign
        edge = limit * sign
        met = v >= edge if beyond else v < edge - float(row["deadband"])
        if not len(met) or not met[-1]:
            return None
        others = np.flatnonzero(~met)
        first = int(others[-1]) + 1 if len(others) else 0
        return Run(
            begun_ms=int(self.extract.log.event_ms[records[first]]),
            first=float(v[first] * sign),
            last=float(v[-1] * sign),
            n=len(met) - first,
        )


def key_of(plan: Plan, sensor: int, kind: int, level: int, window: int = 0) -> str | None:
    """Return the rule key that a signal's limit stands under; None for a limit of the sensor's own.

    The key of a kind without a ladder is that of its number.
    """
    name = plan.profile_of_row[int(plan.row[sensor])]
    if name is None:
        return "absence.after" if kind == ABSENCE else None
    profile = plan.rules.profiles[name]
    base, at = f"profiles.{name}", LEVEL_NAMES[level]
    if kind in (HIGH, LOW):
        side = "high" if kind == HIGH else "low"
        ruled = getattr(getattr(profile.limits, side), at)
        row = plan.params[side][int(plan.row[sensor]), level - 1]
        return f"{base}.limits.{side}.{at}" if ruled == float(row) else None
    if kind == ABSENCE and profile.liveness.absent_after is None:
        return "absence.after"
    names = {
        RISE: f"rate.rise.{at}",
        FALL: f"rate.fall.{at}",
        DEVIATION: f"deviation.raise_at.{at}",
        DRIFT: f"drift.raise_at.{at}",
        ABSENCE: "liveness.absent_after",
        FLATLINE: "liveness.flat_after_n",
        BAD: "liveness.bad_after_n",
        SPIKE: "liveness.spike_at",
    }
    if kind == WINDOW:
        return f"{base}.windows.{profile.windows[window].name}"
    return f"{base}.{names[kind]}"

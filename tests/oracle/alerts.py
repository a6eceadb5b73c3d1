"""Alert records, one dict at a time: every byte that leaves the engine, the slow way."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from engine.plan import Plan
from kernels.layout import (
    ABSENCE,
    BY_RULE,
    CAUSE_NAMES,
    CLEAR,
    DE_ESCALATE,
    ESCALATE,
    HIGH,
    KIND_NAMES,
    LEVEL_NAMES,
    N_KINDS,
    RAISE,
    TRANSITION_NAMES,
    WINDOW,
)

Array = np.ndarray[Any, Any]

STATIC_CLASSES = ("none", "blue", "yellow", "red")
_FIELDS = (
    "event_ms", "episode_ms", "score", "factor", "coupled_percent", "contributor", "source",
    "coupled_from", "rule", "seq", "kind", "level_from", "level", "standing", "cause", "late",
    "reached",
)  # fmt: skip
LEAST_SHARE = 10
LEAST_PERCENT = 1.0
"""A neighbour whose influence has faded below it is not named."""

_SIZED = ("fall", "deviation", "drift")


def number(value: float | None) -> str:
    """Return a number with as many digits as a person reads."""
    if value is None:
        return "an unknown value"
    return f"{value:.6g}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that it fills."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "days" else 1):
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} s"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return number(value)
    return duration(value) if unit == "s" else f"{number(value)} {unit}".rstrip()


def describe(what: str, part: dict[str, Any]) -> str:
    """Return why one contributor contributes; ``what`` names its quantity."""
    value, limit, unit = part["value"], part["limit"], part["unit"]
    size = None if value is None else abs(value)
    shown = _amount(size if part["detector"] in _SIZED else value, unit)
    beyond = "" if limit is None else f" (limit {_amount(limit, unit)})"
    if part["fading"]:
        return f"earlier {what} signal ({part['detector']}) fading"
    side = "above" if value is None or value >= 0 else "below"
    match part["detector"]:
        case "high":
            back = value is not None and limit is not None and value < limit
            how = "not yet cleared from" if back else "at or above"
            return f"{what} {shown}, {how} {_amount(limit, unit)}"
        case "low":
            back = value is not None and limit is not None and value > limit
            how = "not yet cleared from" if back else "at or below"
            return f"{what} {shown}, {how} {_amount(limit, unit)}"
        case "rise":
            return f"{what} rising by {shown}{beyond}"
        case "fall":
            return f"{what} falling by {shown}{beyond}"
        case "window":
            return f"{what} {part['window']} {shown}{beyond}"
        case "deviation":
            return f"{what} {shown} {side} its usual level{beyond}"
        case "drift":
            return f"{what} drifting {'up' if side == 'above' else 'down'}, {shown}{beyond}"
        case "absence":
            return f"{what} silent for {shown}"
        case "flatline":
            return f"{what} stuck for {shown}"
        case "bad":
            return f"{what} unusable for {shown} in a row"
        case _:
            return f"{what} jumped by {shown}{beyond}"


_HIDING = {
    "shelved": "{level} alert shelved",
    "suppressed": "{level} alert suppressed, maintenance",
    "out_of_service": "{level} alert not shown, out of service",
    "returned": "{level} alert shown again",
}


def sentence(
    who: str,
    transition: int,
    level: str,
    time: str,
    score: float,
    reasons: list[str],
    cause: str = "score",
) -> str:
    """Return the whole sentence; ``transition`` as in ``kernels.layout``, ``time`` ISO-8601.

    ``level`` is the one that stands, shown or hidden.
    """
    if cause in _HIDING:
        start = f"{who}: {_HIDING[cause].format(level=level)}"
    elif transition == RAISE:
        start = f"{who}: {level} alert"
    elif transition == ESCALATE:
        start = f"{who}: raised to {level}"
    elif transition == DE_ESCALATE:
        start = f"{who}: lowered to {level}"
    else:
        start = f"{who}: cleared"
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f"{start} at {time[:10]} {time[11:19]}, score {score:.0f}{why}."


def routes_of(plan: Plan, source: int, reached: int) -> list[str]:
    """Return who is told: walk the levels reached and ask each route; nobody asked, the rest."""
    catalog = plan.catalog
    place = {
        "categories": catalog.categories[int(catalog.category[source])],
        "districts": _word(catalog.districts, catalog.district[source]),
        "departments": _word(catalog.departments, catalog.department[source]),
    }
    told: set[str] = set()
    for level in range(1, len(LEVEL_NAMES)):
        if not reached & 2**level:
            continue
        asked = set()
        for route in plan.rules.routes:
            fits = not route.default
            if route.levels is not None and LEVEL_NAMES[level] not in route.levels:
                fits = False
            for key, word in place.items():
                wanted = getattr(route, key)
                if wanted is not None and word not in wanted:
                    fits = False
            if fits:
                asked.add(route.name)
        if not asked:
            asked = {route.name for route in plan.rules.routes if route.default} or {"default"}
        told |= asked
    if not told:
        told = {route.name for route in plan.rules.routes if route.default} or {"default"}
    names = [route.name for route in plan.rules.routes]
    if "default" not in names:
        names.append("default")
    return [name for name in names if name in told]


def _word(words: list[str], code: int) -> str | None:
    return words[code] if code >= 0 else None


def alert_id(source_id: str, episode_ms: int) -> str:
    """Return the identity of an episode: the same wherever and whenever it is found."""
    return f"{source_id}@{episode_ms}"


def plain(value: float) -> Any:
    """Return a number as records show it: float32, as readings are; nothing where not finite."""
    if not math.isfinite(value):
        return None
    with np.errstate(over="ignore"):
        return np.float32(value)


class LocalClock:
    """Writes event times as local ISO-8601, remembering the day, which changes seldom."""

    def __init__(self, zone: timezone) -> None:
        self._zone = zone
        midnight = datetime.fromtimestamp(0, zone)
        self._offset_ms = int(zone.utcoffset(midnight).total_seconds()) * 1000
        self._suffix = midnight.isoformat()[19:]
        self._day = -1
        self._date = ""

    def local(self, event_ms: int) -> str:
        """Return ``2026-01-31T23:59:59.999+08:00``."""
        day, ms = divmod(event_ms + self._offset_ms, 86_400_000)
        if day != self._day:
            self._day = day
            self._date = datetime.fromtimestamp(event_ms / 1000, self._zone).date().isoformat()
        s, ms = divmod(ms, 1000)
        minutes, s = divmod(s, 60)
        h, minutes = divmod(minutes, 60)
        return f"{self._date}T{h:02}:{minutes:02}:{s:02}.{ms:03}{self._suffix}"


class Measure(NamedTuple):
    """How the value and the limit of one kind of signal are shown."""

    scale: float
    unit: str
    low: float
    high: float
    shown_low: Any
    shown_high: Any
    window: str | None


class Sensor(NamedTuple):
    """What an alert record says of a sensor."""

    id: str
    quantity: str
    what: str
    row: int
    silent_s: float


class Source(NamedTuple):
    """What an alert record says of a source."""

    id: str
    who: str
    category: str
    static_class: str
    place: orjson.Fragment
    responsible: orjson.Fragment


class SlowRecords:
    """Turns transitions into alert records, with the catalog's names and the rules' limits."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.digest = plan.rules.digest
        self._clock = LocalClock(plan.rules.time.zone())
        self._known: dict[int, Source] = {}
        self._sensors: dict[int, Sensor] = {}
        self._measures: dict[tuple[int, int, int, int], Measure] = {}

    def encode(self, transitions: Array) -> list[bytes]:
        """Return one JSON object for each of (T,) TRANSITION."""
        if not len(transitions):
            return []
        self._learn(transitions)
        columns = [transitions[name].tolist() for name in _FIELDS]
        return [
            orjson.dumps(self._record(*fields), option=orjson.OPT_SERIALIZE_NUMPY)
            for fields in zip(*columns, strict=True)
        ]

    def _record(
        self,
        event_ms: int,
        episode_ms: int,
        score: float,
        factor: float,
        coupled_percent: float,
        contributor: list[tuple[Any, ...]],
        source: int,
        coupled_from: int,
        rule: int,
        seq: int,
        kind: int,
        level_from: int,
        level: int,
        standing: int,
        cause: int,
        late: int,
        reached: int,
    ) -> dict[str, Any]:
        """Return one alert record; the arguments are fields of TRANSITION."""
        known = self._known[source]
        named = [self._contributor(part) for part in contributor if part[1] >= 0]
        rule_name = self.plan.rules.rules[rule].name if rule >= 0 else None
        coupled = None
        if coupled_from >= 0 and coupled_percent >= LEAST_PERCENT:
            influence = round(coupled_percent, 1)
            coupled = {"source": self._known[coupled_from].id, "influence": influence}
        reasons = [] if kind == CLEAR else self._reasons(contributor, named)
        if cause == BY_RULE:
            reasons.insert(0, f"rule “{rule_name}”")
        if coupled is not None and kind != CLEAR:
            reasons.append(f"influenced by {coupled['source']}")
        time = self._clock.local(event_ms)
        hidden = {"standing": LEVEL_NAMES[standing]} if standing > level else {}
        return {
            "alert_id": alert_id(known.id, episode_ms),
            "seq": seq,
            "transition": TRANSITION_NAMES[kind],
            "level": LEVEL_NAMES[level],
            "level_from": LEVEL_NAMES[level_from],
            **hidden,
            "score": round(score, 1),
            "event_ms": event_ms,
            "time": time,
            "late": late == 1,
            "episode_ms": episode_ms,
            "source": known.id,
            "category": known.category,
            "static_class": known.static_class,
            "cause": CAUSE_NAMES[cause],
            "rule": rule_name,
            "factor": round(factor, 4),
            "contributors": named,
            "coupled_from": coupled,
            "place": known.place,
            "responsible": known.responsible,
            "routes": routes_of(self.plan, source, reached),
            "rules": self.digest,
            "text": sentence(
                known.who, kind, LEVEL_NAMES[standing], time, score, reasons, CAUSE_NAMES[cause]
            ),
        }

    def _reasons(self, parts: list[tuple[Any, ...]], named: list[dict[str, Any]]) -> list[str]:
        """Describe the contributors that count at least a tenth of what the strongest does."""
        return [
            describe(self._sensors[part[1]].what, words)
            for part, words in zip(parts, named, strict=False)
            if part[2] * LEAST_SHARE >= parts[0][2]
        ]

    def _contributor(self, part: tuple[Any, ...]) -> dict[str, Any]:
        value, sensor, percent, kind, level, window = part[:6]
        known = self._sensors[sensor]
        key = (known.row, kind, level, window)
        measure = self._measures.get(key) or self._measure(*key)
        # What fades was measured before; the value noted since may be another signal's.
        value = value * measure.scale if level else math.nan
        upper = abs(value - measure.high) <= abs(value - measure.low) or measure.low != measure.low
        limit = measure.shown_high if upper else measure.shown_low
        if kind == ABSENCE and level:
            limit = known.silent_s
        contributor = {
            "sensor": known.id,
            "quantity": known.quantity,
            "detector": KIND_NAMES[kind if kind < N_KINDS else HIGH],
            "value": plain(value),
            "limit": limit,
            "unit": measure.unit,
            "level": LEVEL_NAMES[level],
            "signal": round(percent / 100.0, 3),
            "fading": level == 0,
        }
        if measure.window is not None:
            contributor["window"] = measure.window
        return contributor

    def _measure(self, row: int, kind: int, level: int, window: int) -> Measure:
        """Return how a signal's value and limit are shown; the same for a row, kind and level."""
        plan = self.plan
        shown_kind = kind if kind < N_KINDS else HIGH
        scale, unit = plan.statistic(row, shown_kind, 1.0, window)
        low, high = (
            plan.limit(row, shown_kind, level, window, value=side) if level else math.nan
            for side in (-math.inf, math.inf)
        )
        name = None
        if kind == WINDOW:
            name = plan.window_names[int(plan.params["first_window"][row]) + window]
        measure = Measure(scale, unit, low, high, plain(low), plain(high), name)
        self._measures[row, kind, level, window] = measure
        return measure

    def _learn(self, transitions: Array) -> None:
        """Read what the catalog says of new sources and sensors, a column at a time."""
        catalog = self.plan.catalog
        origins = transitions["coupled_from"]
        sources = np.union1d(transitions["source"], origins[origins >= 0])
        sensors = np.unique(transitions["contributor"]["sensor"])
        sources = np.array([i for i in sources.tolist() if i not in self._known], np.int64)
        sensors = np.array(
            [i for i in sensors.tolist() if i >= 0 and i not in self._sensors], np.int64
        )
        text = [
            getattr(catalog, key).take(pa.array(sources)).to_pylist()
            for key in ("source_id", "name", "grid", "owner", "contact")
        ]
        numbers = [
            getattr(catalog, key)[sources].tolist()
            for key in ("lon", "lat", "district", "category", "static_class")
        ]
        for source, *fields in zip(sources.tolist(), *text, *numbers, strict=True):
            self._known[source] = self._describe_source(*fields)
        quantities = catalog.quantity[sensors]
        homes = catalog.sensor_source[sensors]
        spans = zip(
            catalog.sensor_start[homes].tolist(),
            catalog.sensor_start[homes + 1].tolist(),
            strict=True,
        )
        alone = [
            np.count_nonzero(catalog.quantity[first:last] == quantity) == 1
            for (first, last), quantity in zip(spans, quantities, strict=True)
        ]
        for sensor, name, quantity, one, row in zip(
            sensors.tolist(),
            catalog.sensor_id.take(pa.array(sensors)).to_pylist(),
            quantities.tolist(),
            alone,
            self.plan.row[sensors].tolist(),
            strict=True,
        ):
            what = catalog.quantities[quantity].replace("_", " ")
            self._sensors[sensor] = Sensor(
                id=name,
                quantity=catalog.quantities[quantity],
                what=what if one else f"{what} ({name})",
                row=row,
                silent_s=float(self.plan.absent_ms[sensor]) / 1000,
            )

    def _describe_source(
        self,
        source_id: str,
        name: str | None,
        grid: str | None,
        owner: str | None,
        contact: str | None,
        lon: float,
        lat: float,
        district: int,
        category: int,
        static_class: int,
    ) -> Source:
        catalog = self.plan.catalog
        in_district = catalog.districts[district] if district >= 0 else None
        who = f"{name} ({source_id})" if name and name != source_id else source_id
        place = {"name": name, "lon": lon, "lat": lat, "grid": grid, "district": in_district}
        return Source(
            id=source_id,
            who=f"{who}, {in_district}" if in_district else who,
            category=catalog.categories[category],
            static_class=STATIC_CLASSES[static_class],
            place=orjson.Fragment(orjson.dumps(place)),
            responsible=orjson.Fragment(orjson.dumps({"owner": owner, "contact": contact})),
        )

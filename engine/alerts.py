"""Alert records: what leaves the engine, as JSON, with the sentence for people."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timezone
from typing import Any

import numpy as np
import orjson

from engine.plan import Plan
from engine.sentences import describe, sentence
from kernels.layout import (
    BY_RULE,
    CAUSE_NAMES,
    CLEAR,
    KIND_NAMES,
    LEVEL_NAMES,
    N_KINDS,
    TRANSITION_NAMES,
)

STATIC_CLASSES = ("none", "blue", "yellow", "red")
_FIELDS = (
    "event_ms", "episode_ms", "score", "factor", "coupled_percent", "contributor", "source",
    "coupled_from", "rule", "seq", "kind", "level_from", "level", "cause", "late",
)  # fmt: skip
LEAST_SHARE = 10
MOST_KNOWN = 100_000
"""Sources whose unchanging parts are kept encoded."""


def alert_id(source_id: str, episode_ms: int) -> str:
    """Return the identity of an episode: the same wherever and whenever it is found."""
    return hashlib.blake2b(f"{source_id}\n{episode_ms}".encode(), digest_size=8).hexdigest()


def plain(value: float) -> float | None:
    """Return a number as people would write it: float32 readings without their binary tail."""
    if not math.isfinite(value):
        return None
    short = np.float32(value)
    return float(str(short)) if short == value else value


class AlertRecords:
    """Turns transitions into alert records, with the catalog's names and the rules' limits."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.digest = plan.rules.digest
        self.zone: timezone = plan.rules.time.zone()
        self._known: dict[int, dict[str, Any]] = {}
        self._sensors: dict[int, tuple[str, str, bool, int]] = {}

    def encode(self, transitions: np.ndarray[Any, Any]) -> list[bytes]:
        """Return one JSON object for each of (T,) TRANSITION."""
        if not len(transitions):
            return []
        columns = [transitions[name].tolist() for name in _FIELDS]
        return [orjson.dumps(self.record(*fields)) for fields in zip(*columns, strict=True)]

    def record(
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
        cause: int,
        late: int,
    ) -> dict[str, Any]:
        """Return one alert record; the arguments are fields of TRANSITION."""
        known = self._source(source)
        named = [self._contributor(part) for part in contributor if part[1] >= 0]
        rule_name = self.plan.rules.rules[rule].name if rule >= 0 else None
        coupled = None
        if coupled_from >= 0:
            origin = self._source(coupled_from)
            coupled = {"source": origin["source"], "influence": round(coupled_percent, 1)}
        time = datetime.fromtimestamp(event_ms / 1000, self.zone)
        return {
            "alert_id": alert_id(known["source"], episode_ms),
            "seq": seq,
            "transition": TRANSITION_NAMES[kind],
            "level": LEVEL_NAMES[level],
            "level_from": LEVEL_NAMES[level_from],
            "score": round(score, 1),
            "event_ms": event_ms,
            "time": time.isoformat(timespec="milliseconds"),
            "late": bool(late),
            "episode_ms": episode_ms,
            "source": known["source"],
            "category": known["category"],
            "static_class": known["static_class"],
            "cause": CAUSE_NAMES[cause],
            "rule": rule_name,
            "factor": round(factor, 4),
            "contributors": named,
            "coupled_from": coupled,
            "place": known["place"],
            "responsible": known["responsible"],
            "rules": self.digest,
            "text": sentence(
                who=known["who"],
                transition=TRANSITION_NAMES[kind],
                level=LEVEL_NAMES[level],
                time=time,
                score=score,
                rule=rule_name if cause == BY_RULE else None,
                reasons=[] if kind == CLEAR else self._reasons(contributor, named),
                coupled=coupled,
            ),
        }

    def _reasons(self, parts: list[tuple[Any, ...]], named: list[dict[str, Any]]) -> list[str]:
        """Describe the contributors that count at least a tenth of what the strongest does."""
        reasons = []
        for part, words in zip(parts, named, strict=False):
            if part[2] * LEAST_SHARE >= parts[0][2]:
                _, quantity, alone, _ = self._sensor(part[1])
                what = quantity.replace("_", " ")
                reasons.append(describe(what if alone else f"{what} ({words['sensor']})", words))
        return reasons

    def _contributor(self, part: tuple[Any, ...]) -> dict[str, Any]:
        value, sensor, percent, kind, level, window = part[:6]
        sensor_id, quantity, _, row = self._sensor(sensor)
        if kind >= N_KINDS:
            kind = 0
        shown, unit = self.plan.statistic(row, kind, value, window)
        limit = self.plan.limit(row, kind, level, window, value=value, sensor=sensor)
        if level == 0:
            # What fades was measured before; the value noted since may be another signal's.
            shown = math.nan
        contributor = {
            "sensor": sensor_id,
            "quantity": quantity,
            "detector": KIND_NAMES[kind],
            "value": plain(shown),
            "limit": plain(limit),
            "unit": unit,
            "level": LEVEL_NAMES[level],
            "signal": round(percent / 100.0, 3),
            "fading": level == 0,
        }
        if KIND_NAMES[kind] == "window":
            first = int(self.plan.params["first_window"][row])
            contributor["window"] = self.plan.window_names[first + window]
        return contributor

    def _sensor(self, sensor: int) -> tuple[str, str, bool, int]:
        """Return a sensor's id, quantity, whether it alone measures it there, and its row."""
        found = self._sensors.get(sensor)
        if found is None:
            if len(self._sensors) >= MOST_KNOWN:
                self._sensors.clear()
            catalog = self.plan.catalog
            source = int(catalog.sensor_source[sensor])
            peers = slice(*catalog.sensor_start[source : source + 2].tolist())
            quantity = catalog.quantity[sensor]
            found = (
                catalog.sensor_id[sensor].as_py(),
                catalog.quantities[int(quantity)],
                int((catalog.quantity[peers] == quantity).sum()) == 1,
                int(self.plan.row[sensor]),
            )
            self._sensors[sensor] = found
        return found

    def _source(self, source: int) -> dict[str, Any]:
        found = self._known.get(source)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[source] = self._read_source(source)
        return found

    def _read_source(self, source: int) -> dict[str, Any]:
        catalog = self.plan.catalog
        text = {
            key: getattr(catalog, key)[source].as_py()
            for key in ("source_id", "name", "grid", "owner", "contact")
        }
        district = int(catalog.district[source])
        district_name = catalog.districts[district] if district >= 0 else None
        place = {
            "name": text["name"],
            "lon": float(catalog.lon[source]),
            "lat": float(catalog.lat[source]),
            "grid": text["grid"],
            "district": district_name,
        }
        responsible = {"owner": text["owner"], "contact": text["contact"]}
        named = text["name"] and text["name"] != text["source_id"]
        who = f"{text['name']} ({text['source_id']})" if named else text["source_id"]
        return {
            "source": text["source_id"],
            "who": f"{who}, {district_name}" if district_name else who,
            "category": catalog.categories[int(catalog.category[source])],
            "static_class": STATIC_CLASSES[int(catalog.static_class[source])],
            "place": orjson.Fragment(orjson.dumps(place)),
            "responsible": orjson.Fragment(orjson.dumps(responsible)),
        }

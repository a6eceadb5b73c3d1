"""What a replay gave: counted from the alert records and the line's counters, as text or JSON."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from kernels.layout import COUNT_NAMES, LEVEL_NAMES, TRANSITION_NAMES

TOP_SOURCES = 10
SAMPLE_IDS = 3
REJECTS = tuple(
    name for name in COUNT_NAMES if name not in ("accepted", "backward", "late", "ticks")
)
"""Counts of readings that reached no detector, or a bad one's only."""
_MANY_BACKWARD = 0.01


class AlertTally:
    """Counts alert records as they come."""

    def __init__(self) -> None:
        self.n = 0
        self.by_both: Counter[tuple[str, str]] = Counter()
        self.by_detector: Counter[str] = Counter()
        self.by_source: Counter[str] = Counter()
        self.late = 0
        self.n_episodes = 0
        self._begun: dict[str, int] = {}
        self._lasted_ms = array("q")

    def add(self, records: list[bytes]) -> None:
        """Count some records."""
        for record in records:
            self._add(orjson.loads(record))

    def _add(self, record: Mapping[str, Any]) -> None:
        transition, level, alert = record["transition"], record["level"], record["alert_id"]
        self.n += 1
        self.by_both[transition, level] += 1
        self.by_source[record["source"]] += 1
        self.late += bool(record["late"])
        if transition == "raise":
            self.n_episodes += 1
            self._begun[alert] = record["event_ms"]
        elif transition == "clear":
            begun = self._begun.pop(alert, None)
            if begun is not None:
                self._lasted_ms.append(max(0, record["event_ms"] - begun))
        if transition in ("raise", "escalate"):
            leading = record["contributors"][:1]
            self.by_detector[leading[0]["detector"] if leading else "none"] += 1

    @property
    def n_open(self) -> int:
        """Episodes that have not ended."""
        return len(self._begun)

    def median_ms(self) -> float | None:
        """Return the median duration of the episodes that ended."""
        if not self._lasted_ms:
            return None
        lasted = sorted(self._lasted_ms)
        middle = len(lasted) // 2
        return lasted[middle] if len(lasted) % 2 else (lasted[middle - 1] + lasted[middle]) / 2


@dataclass(kw_only=True)
class Summary:
    """The closing report of a replay."""

    readings: int = 0
    ticks: int = 0
    wall_s: float = 0.0
    first_ms: int | None = None
    last_ms: int | None = None
    alerts: AlertTally = field(default_factory=AlertTally)
    counts: Mapping[str, int] = field(default_factory=dict)
    no_time: int = 0
    unknown_ids: Mapping[str, int] = field(default_factory=dict)
    unknown_overflow: bool = False
    state_bytes: int = 0
    n_sensors: int = 0
    active: int | None = None
    output: str | None = None
    snapshot: str | None = None
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def readings_per_s(self) -> float:
        """Readings a second of wall time."""
        return self.readings / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def rejects(self) -> dict[str, int]:
        """Readings by why they reached no detector; reasons that did not occur are left out."""
        found = {name: self.counts.get(name, 0) for name in REJECTS} | {"no_time": self.no_time}
        return {name: n for name, n in found.items() if n}

    def advice(self) -> list[str]:
        """Return what the user should know about the input, a sentence each."""
        found = list(self.notes)
        refused = self.counts.get("time_too_late", 0)
        backward = self.counts.get("backward", 0) + refused
        if self.readings and backward > _MANY_BACKWARD * self.readings:
            found.append(
                f"{backward:,} readings went backward in time ({refused:,} too late to count): "
                "if the history is not in the order in which it arrived, --sort orders it"
            )
        unknown = self.counts.get("unknown_sensor", 0)
        if unknown:
            names = list(self.unknown_ids)
            count = f"over {len(names):,}" if self.unknown_overflow else f"{len(names):,}"
            sample = ", ".join(names[:SAMPLE_IDS])
            every = " (all of them: is it the right catalog, the right adapter?)"
            found.append(
                f"{unknown:,} readings of {count} unknown sensors, e.g. {sample}"
                + (every if unknown == self.readings else "")
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        alerts = self.alerts
        median_ms = alerts.median_ms()
        by_level = {
            transition: {
                level: n for level in LEVEL_NAMES if (n := alerts.by_both[transition, level])
            }
            for transition in TRANSITION_NAMES
        }
        return {
            "readings": self.readings,
            "ticks": self.ticks,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "wall_s": round(self.wall_s, 3),
            "readings_per_s": round(self.readings_per_s),
            "alerts": alerts.n,
            "alerts_by_transition": {name: sum(n.values()) for name, n in by_level.items()},
            "alerts_by_transition_and_level": by_level,
            "alerts_by_detector": dict(alerts.by_detector.most_common()),
            "alerts_late": alerts.late,
            "top_sources": [
                {"source": source, "alerts": n}
                for source, n in alerts.by_source.most_common(TOP_SOURCES)
            ],
            "episodes": {
                "begun": alerts.n_episodes,
                "open": alerts.n_open,
                "median_s": None if median_ms is None else median_ms / 1000,
            },
            "counts": dict(self.counts),
            "rejects": self.rejects,
            "unknown_sensors": {
                "readings": self.counts.get("unknown_sensor", 0),
                "sensors": len(self.unknown_ids),
                "more": self.unknown_overflow,
                "sample": list(self.unknown_ids)[:SAMPLE_IDS],
            },
            "state_bytes": self.state_bytes,
            "state_bytes_per_sensor": self._per_sensor(),
            "active_sources": self.active,
            "output": self.output,
            "snapshot": self.snapshot,
            "interrupted": self.interrupted,
            "notes": self.advice(),
        }

    def _per_sensor(self) -> float | None:
        return round(self.state_bytes / self.n_sensors, 1) if self.n_sensors else None

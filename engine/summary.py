"""What a replay gave: counted from the transitions and the line's counters, as text or JSON."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.layout import (
    CLEAR,
    COUNT_NAMES,
    ESCALATE,
    KIND_NAMES,
    LEVEL_NAMES,
    N_KINDS,
    RAISE,
    TRANSITION_NAMES,
)

TOP_SOURCES = 10
SAMPLE_IDS = 3
REJECTS = tuple(
    name for name in COUNT_NAMES if name not in ("accepted", "backward", "late", "ticks")
)
"""Counts of readings that reached no detector, or a bad one's only."""
_MANY_BACKWARD = 0.01


class AlertTally:
    """Counts transitions as they come, a batch at a time."""

    def __init__(self, n_sources: int) -> None:
        self.n = 0
        self.n_late = 0
        self._by_both = np.zeros((len(TRANSITION_NAMES), len(LEVEL_NAMES)), np.int64)
        self._by_detector = np.zeros(N_KINDS + 1, np.int64)
        self._by_source = np.zeros(n_sources, np.int64)
        self._lasted_ms = array("q")

    def add(self, transitions: NDArray[Any]) -> None:
        """Count (T,) TRANSITION."""
        kind, level = transitions["kind"], transitions["level"]
        self.n += len(transitions)
        self.n_late += int(np.count_nonzero(transitions["late"]))
        np.add.at(self._by_both, (kind, level), 1)
        np.add.at(self._by_source, transitions["source"], 1)
        upward = transitions["contributor"][(kind == RAISE) | (kind == ESCALATE), 0]
        known = (upward["sensor"] >= 0) & (upward["kind"] < N_KINDS)
        np.add.at(self._by_detector, np.where(known, upward["kind"], N_KINDS), 1)
        ended = transitions[kind == CLEAR]
        self._lasted_ms.extend(np.maximum(0, ended["event_ms"] - ended["episode_ms"]).tolist())

    def by_level(self, transition: str) -> dict[str, int]:
        """Return the alerts of a transition by the level they led to."""
        row = self._by_both[TRANSITION_NAMES.index(transition)].tolist()
        return {level: n for level, n in zip(LEVEL_NAMES, row, strict=True) if n}

    def by_detector(self) -> dict[str, int]:
        """Return raises and escalations by the detector that contributed most, most first."""
        names = (*KIND_NAMES, "coupling or rule")
        found = {name: n for name, n in zip(names, self._by_detector.tolist(), strict=True) if n}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def top_sources(self) -> list[tuple[int, int]]:
        """Return the sources with the most alerts, and how many."""
        busy = np.argsort(-self._by_source, kind="stable")[:TOP_SOURCES]
        return [(int(s), int(self._by_source[s])) for s in busy if self._by_source[s]]

    @property
    def n_episodes(self) -> int:
        """Episodes that began."""
        return int(self._by_both[RAISE].sum())

    @property
    def n_ended(self) -> int:
        """Episodes that ended."""
        return len(self._lasted_ms)

    def median_ms(self) -> float | None:
        """Return the median duration of the episodes that ended."""
        return float(np.median(self._lasted_ms)) if self._lasted_ms else None


@dataclass(kw_only=True)
class Summary:
    """The closing report of a replay."""

    readings: int = 0
    ticks: int = 0
    wall_s: float = 0.0
    first_ms: int | None = None
    last_ms: int | None = None
    alerts: AlertTally = field(default_factory=lambda: AlertTally(0))
    top_sources: list[tuple[str, int]] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    no_time: int = 0
    unknown_ids: Mapping[str, int] = field(default_factory=dict)
    unknown_overflow: bool = False
    state_bytes: int = 0
    source_bytes: int = 0
    """Of the state, those of sources; the rest is of sensors."""
    n_sensors: int = 0
    n_unprofiled: int = 0
    n_active: int = 0
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
            kind = "sensor" if count == "1" else "sensors"
            sample = ", ".join(names[:SAMPLE_IDS])
            every = " (all of them: is it the right catalog, the right adapter?)"
            found.append(
                f"{unknown:,} readings of {count} unknown {kind}, e.g. {sample}"
                + (every if unknown == self.readings else "")
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        alerts = self.alerts
        median_ms = alerts.median_ms()
        by_both = {name: alerts.by_level(name) for name in TRANSITION_NAMES}
        return {
            "readings": self.readings,
            "ticks": self.ticks,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "wall_s": round(self.wall_s, 3),
            "readings_per_s": round(self.readings_per_s),
            "alerts": alerts.n,
            "alerts_by_transition": {name: sum(n.values()) for name, n in by_both.items()},
            "alerts_by_transition_and_level": by_both,
            "alerts_by_detector": alerts.by_detector(),
            "alerts_late": alerts.n_late,
            "top_sources": [{"source": source, "alerts": n} for source, n in self.top_sources],
            "episodes": {
                "begun": alerts.n_episodes,
                "ended": alerts.n_ended,
                "running": self.n_active,
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
            "state_bytes_per_sensor": self.per_sensor(),
            "sensors": self.n_sensors,
            "sensors_without_profile": self.n_unprofiled,
            "output": self.output,
            "snapshot": self.snapshot,
            "interrupted": self.interrupted,
            "notes": self.advice(),
        }

    def per_sensor(self) -> float | None:
        """Return the bytes of state a sensor."""
        of_sensors = self.state_bytes - self.source_bytes
        return round(of_sensors / self.n_sensors, 1) if self.n_sensors else None

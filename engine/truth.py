"""The truth of a history: what really happened, and how an alert log stands against it.

A source is *at level* while its level is at or above the one that is asked for. An incident is
found when its source comes to level during it; an episode at level that no incident explains is a
false alarm. Nothing here moves a detection to make it fit: an alarm that was up long before an
incident began finds nothing and is false.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from engine import zones
from engine.errors import Fault, InputError
from kernels.layout import LEVEL_NAMES

DAY_MS = 86_400_000
COLUMNS = ("source", "start", "end", "kind")
"""Columns that a truth file must have; `level` and `about` may be there too, others are ignored."""
LEVELS = LEVEL_NAMES[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that really happened at one source, from `start_ms` to `end_ms`, both included.

    `level` is the level that it deserves; `about` is for people.
    """

    source: str
    start_ms: int
    end_ms: int
    kind: str
    level: str = "yellow"
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Raise to clear of one source, `peak` the highest level in it.

    `spans` are the times at level, first and last moment of each; an episode that the log leaves
    open lasts until the end of what is scored.
    """

    source: str
    start_ms: int
    end_ms: int
    peak: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What became of one incident.

    `delay_ms` is None if it was missed; `peak` is the highest level of its source during it.
    """

    incident: Incident
    delay_ms: int | None
    peak: str

    @property
    def found(self) -> bool:
        """Whether the source was at level during the incident."""
        return self.delay_ms is not None

    @property
    def enough(self) -> bool:
        """Whether it was found and the source reached the level that the incident deserves."""
        return self.found and LEVEL_NAMES.index(self.peak) >= LEVEL_NAMES.index(self.incident.level)


@dataclass(frozen=True, kw_only=True)
class Score:
    """An alert log against the truth; incidents in the order given, episodes by time."""

    level: str
    days: float
    n_sources: int | None
    detections: tuple[Detection, ...]
    episodes: tuple[Episode, ...]
    """Episodes that came to level, false ones included."""
    false: tuple[Episode, ...] = field(default=())

    @property
    def found(self) -> tuple[Detection, ...]:
        """The incidents that were found."""
        return tuple(each for each in self.detections if each.found)

    @property
    def missed(self) -> tuple[Incident, ...]:
        """The incidents that were not."""
        return tuple(each.incident for each in self.detections if not each.found)

    @property
    def median_delay_s(self) -> float | None:
        """Median delay of what was found."""
        delays = [each.delay_ms for each in self.detections if each.delay_ms is not None]
        return median(delays) / 1000 if delays else None

    @property
    def false_per_day(self) -> float:
        """False alarms a day of event time, over all sources."""
        return len(self.false) / self.days

    @property
    def false_per_source_day(self) -> float | None:
        """False alarms a source and day; None if the number of sources was not given."""
        return None if self.n_sources is None else self.false_per_day / self.n_sources

    def as_dict(self) -> dict[str, Any]:
        """Return the score as plain JSON values."""
        return {
            "level": self.level,
            "days": round(self.days, 6),
            "incidents": len(self.detections),
            "found": len(self.found),
            "missed": len(self.missed),
            "enough": sum(each.enough for each in self.detections),
            "median_delay_s": self.median_delay_s,
            "episodes": len(self.episodes),
            "false_alarms": len(self.false),
            "false_alarms_per_day": round(self.false_per_day, 4),
            "false_alarms_per_source_day": self.false_per_source_day,
            "detections": [
                {
                    "source": each.incident.source,
                    "kind": each.incident.kind,
                    "start_ms": each.incident.start_ms,
                    "end_ms": each.incident.end_ms,
                    "deserved": each.incident.level,
                    "peak": each.peak,
                    "delay_s": None if each.delay_ms is None else each.delay_ms / 1000,
                }
                for each in self.detections
            ],
            "false": [
                {"source": e.source, "start_ms": e.start_ms, "end_ms": e.end_ms, "peak": e.peak}
                for e in self.false
            ],
        }


def score(
    alerts: Iterable[Mapping[str, Any] | bytes],
    incidents: Sequence[Incident],
    *,
    since_ms: int,
    until_ms: int,
    level: str = "blue",
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    n_sources: int | None = None,
) -> Score:
    """Hold an alert log, in its own order, against what happened in `[since_ms, until_ms)`.

    An incident is found in the first moment of `[start, end + grace_s]` in which its source is at
    level. It then has the delay of that moment; one at level already when it starts has delay 0, if
    that began no more than `lead_s` before, and else does not count. An episode is a false alarm
    unless it comes to level in `[start - lead_s, end + grace_s]` of some incident of its source.
    Incidents that start outside the time scored, and episodes that come to level outside it, are
    left out. Raises ValueError for a level or times that make no sense, InputError for what is no
    alert record.
    """
    if level not in LEVELS:
        raise ValueError(f"level: must be one of {', '.join(LEVELS)}, got {level!r}")
    if until_ms <= since_ms:
        raise ValueError(f"until_ms: must be after since_ms = {since_ms}, got {until_ms}")
    if lead_s < 0 or grace_s < 0:
        raise ValueError(f"lead_s, grace_s: must be at least 0, got {lead_s}, {grace_s}")
    lead_ms, grace_ms = round(lead_s * 1000), round(grace_s * 1000)
    histories = _histories(alerts)
    windows: dict[str, list[tuple[int, int]]] = {}
    for each in incidents:
        window = (each.start_ms - lead_ms, each.end_ms + grace_ms)
        windows.setdefault(each.source, []).append(window)
    asked = LEVEL_NAMES.index(level)
    episodes = {
        source: list(_episodes(source, history, asked, until_ms))
        for source, history in histories.items()
    }
    judged = [
        each
        for of_source in episodes.values()
        for each in of_source
        if each.spans and _within(each, since_ms, until_ms)
    ]
    judged.sort(key=lambda each: (each.start_ms, each.source))
    return Score(
        level=level,
        days=(until_ms - since_ms) / DAY_MS,
        n_sources=n_sources,
        detections=tuple(
            _detection(
                each,
                histories.get(each.source, []),
                episodes.get(each.source, []),
                lead_ms,
                grace_ms,
            )
            for each in incidents
            if since_ms <= each.start_ms < until_ms
        ),
        episodes=tuple(judged),
        false=tuple(each for each in judged if not _explained(each, windows.get(each.source, []))),
    )


_Steps = list[tuple[int, int]]
"""Moments at which a source's level changed, and the level from then on."""


def _histories(alerts: Iterable[Mapping[str, Any] | bytes]) -> dict[str, _Steps]:
    histories: dict[str, _Steps] = {}
    for alert in alerts:
        fields = orjson.loads(alert) if isinstance(alert, bytes) else alert
        try:
            source, event_ms = fields["source"], int(fields["event_ms"])
            level = LEVEL_NAMES.index(fields["level"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not an alert record: {str(alert)[:120]}") from error
        steps = histories.setdefault(source, [])
        if steps and event_ms < steps[-1][0]:
            raise InputError(f"alerts of {source!r} go backward at event_ms = {event_ms}")
        steps.append((event_ms, level))
    return histories


def _episodes(source: str, steps: _Steps, asked: int, until_ms: int) -> Iterable[Episode]:
    start_ms: int | None = None
    since_ms: int | None = None  # since when it is at level
    peak, spans = 0, list[tuple[int, int]]()
    for event_ms, level in [*steps, (max(until_ms, steps[-1][0]), 0)]:
        if level and start_ms is None:
            start_ms, peak, spans = event_ms, 0, []
        if start_ms is None:
            continue
        peak = max(peak, level)
        if level >= asked and since_ms is None:
            since_ms = event_ms
        elif level < asked and since_ms is not None:
            spans.append((since_ms, event_ms))
            since_ms = None
        if not level:
            yield Episode(
                source=source,
                start_ms=start_ms,
                end_ms=event_ms,
                peak=LEVEL_NAMES[peak],
                spans=tuple(spans),
            )
            start_ms = None


def _within(episode: Episode, since_ms: int, until_ms: int) -> bool:
    return any(since_ms <= begun_ms < until_ms for begun_ms, _ in episode.spans)


def _explained(episode: Episode, windows: list[tuple[int, int]]) -> bool:
    return any(
        first <= begun_ms <= last for begun_ms, _ in episode.spans for first, last in windows
    )


def _detection(
    incident: Incident, steps: _Steps, episodes: list[Episode], lead_ms: int, grace_ms: int
) -> Detection:
    start_ms, last_ms = incident.start_ms, incident.end_ms + grace_ms
    moments = [
        max(begun_ms, start_ms)
        for episode in episodes
        for begun_ms, ended_ms in episode.spans
        if start_ms - lead_ms <= begun_ms <= last_ms and ended_ms >= start_ms
    ]
    reached, before = 0, 0
    for event_ms, level in steps:
        if event_ms <= start_ms:
            before = level
        elif event_ms <= last_ms:
            reached = max(reached, level)
    return Detection(
        incident=incident,
        delay_ms=min(moments) - start_ms if moments else None,
        peak=LEVEL_NAMES[max(reached, before)],
    )


def read_truth(path: Path, zone: str = "UTC") -> list[Incident]:
    """Return the incidents of a CSV file with the columns `source, start, end, kind`.

    `level` (yellow unless given) and `about` may be there too. Times are ISO 8601, in `zone` where
    they name none, or epoch milliseconds. Raises InputError with every fault of the file.
    """
    of = zones.zone(zone)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            names = reader.fieldnames or []
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from error
    absent = [name for name in COLUMNS if name not in names]
    if absent:
        raise InputError(f"{path}: no column {', '.join(absent)}; there are {', '.join(names)}")
    faults: list[Fault] = []
    incidents = [
        incident
        for number, row in enumerate(rows, 1)
        if (incident := _incident(path.name, number, row, of, faults)) is not None
    ]
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError(f"{path}: {count} in the truth", faults=faults)
    return incidents


def _incident(
    file: str, number: int, row: dict[str, Any], of: zones.Zone, faults: list[Fault]
) -> Incident | None:
    known = len(faults)

    def fault(key: str, problem: str) -> None:
        value = row.get(key)
        faults.append(Fault(file=file, row=number, key=key, problem=problem, value=value))

    times = [math.nan, math.nan]
    for at, key in enumerate(("start", "end")):
        try:
            times[at] = zones.instant_ms(row[key] or "", of)
        except (ValueError, OverflowError) as error:
            fault(key, str(error))
    if times[1] < times[0]:
        fault("end", f"must not be before start = {row['start']}")
    for key in ("source", "kind"):
        if not (row[key] or "").strip():
            fault(key, "must not be empty")
    level = row.get("level") or "yellow"
    if level not in LEVELS:
        fault("level", f"must be one of {', '.join(LEVELS)}")
    if len(faults) > known:
        return None
    return Incident(
        source=row["source"],
        start_ms=int(times[0]),
        end_ms=int(times[1]),
        kind=row["kind"],
        level=level,
        about=row.get("about") or "",
    )

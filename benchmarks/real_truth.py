"""What counts as an event in each of the real data sets, and which part of it was tuned on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.truth import Incident

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
CLOCK_START_MS = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1000)
"""Where the adapters start the clocks of recordings without a time of their own."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The events of a data set and how a log is held against them; see `engine.truth.score`."""

    events: Sequence[Incident]
    parts: Mapping[str, tuple[int, int]]
    """Spans that are scored on their own, by name; one is `all`."""
    level: str = "yellow"
    standing_s: float = 0.0
    """How long before an event an alarm may have been up to count as finding it."""
    early_s: float = 0.0
    """How long before an event an alarm may rise and not be false."""
    late_s: float = 0.0
    """How long after an event an alarm may rise and not be false; it finds nothing any more."""
    ahead_of_ms: int | None = None
    """Where an event is what leads up to something: how long after its last moment that comes."""
    excused: Sequence[Incident] = ()
    """Where alarms are not false, if that is more than the events."""
    together: str | None = None
    """Where labels don't say which source: all sources count as one, of this name."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set: its files, in order of time, the site that watches it, and its truth."""

    name: str
    site: str
    folder: str
    files: Sequence[str]
    truth: Callable[[Path], Truth]

    def paths(self, folder: Path) -> list[Path]:
        """Return the files in a folder of data sets."""
        return [folder / self.folder / file for file in self.files]

    def missing(self, folder: Path) -> Path | None:
        """Return the first file that is not there."""
        return next((path for path in self.paths(folder) if not path.is_file()), None)


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last row of every run of true."""
    edges = np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1, strict=True))


def column(path: Path, name: str) -> NDArray[Any]:
    """Return a column of a Parquet file."""
    return np.asarray(pq.read_table(path, columns=[name]).column(name).to_numpy())


def times_ms(path: Path) -> NDArray[np.int64]:
    """Return the column `t` in epoch milliseconds, as if its zone were UTC."""
    return column(path, "t").astype("datetime64[ms]").astype(np.int64)


METHANE_STEP_MS = 30_000
METHANE_AHEAD_ROWS = 6


def methane_truth(folder: Path) -> Truth:
    """Return the crossings of 1.2 %: the three minutes before each are the label's runs.

    A warning is to stand before the crossing: an alarm that comes with it finds nothing, but is not
    false. A *fresh* crossing has the whole three minutes below; the others follow a dip.
    """
    path = folder / "methane_mine" / "methane_train.parquet"
    label, methane = column(path, "label") == 1, column(path, "MM116").astype(float)
    above = np.round(methane, 2) >= 1.2
    at = [CLOCK_START_MS + row * METHANE_STEP_MS for row in range(len(label) + 1)]
    events = [
        Incident(
            source="longwall",
            start_ms=at[first],
            end_ms=at[last],
            kind="fresh crossing"
            if last - first + 1 == METHANE_AHEAD_ROWS
            else "crossing after a dip",
        )
        for first, last in runs(label)
    ]
    over = [
        Incident(source="longwall", start_ms=at[first], end_ms=at[last], kind="1.2 % and above")
        for first, last in runs(above)
    ]
    half = at[len(label) // 2]
    return Truth(
        events=events,
        excused=[*events, *over],
        standing_s=DAY_MS / 1000,
        early_s=1800,
        ahead_of_ms=METHANE_STEP_MS,
        parts={"tuned on": (at[0], half), "not tuned on": (half, at[-1]), "all": (at[0], at[-1])},
    )


SKAB_FILES = tuple(f"valve1_{number}.parquet" for number in range(16))
SKAB_TUNED = 5


def skab_truth(folder: Path) -> Truth:
    """Return the closings of the valve, one in each recording, as labelled; no allowance."""
    events, begins_ms = [], []
    for name in SKAB_FILES:
        path = folder / "SKAB" / name
        at = times_ms(path)
        begins_ms.append(int(at[0]))
        events += [
            Incident(
                source="loop", start_ms=int(at[first]), end_ms=int(at[last]), kind="valve closed"
            )
            for first, last in runs(column(path, "label") == 1)
        ]
        end_ms = int(at[-1]) + 1000
    tuned = (begins_ms[0], begins_ms[SKAB_TUNED])
    return Truth(
        events=events,
        parts={"tuned on": tuned, "not tuned on": (tuned[1], end_ms), "all": (tuned[0], end_ms)},
    )


def quiet_truth(folder: Path) -> Truth:
    """Return no events at all: the loop without faults, a month before at four times the flow."""
    at = times_ms(folder / "SKAB" / "anomaly_free.parquet")
    return Truth(events=[], parts={"all": (int(at[0]), int(at[-1]) + 1000)})


SMOKE_FOUND_WITHIN_MS = 5 * MINUTE_MS


def smoke_truth(folder: Path) -> Truth:
    """Return the rising edges of the fire alarm's state; later than five minutes is missed.

    There is one edge only: the settings were made on it. While the alarm is on no alarm is false.
    """
    label = column(folder / "smoke_iot" / "smoke_part1.parquet", "label") == 1
    at = [CLOCK_START_MS + row * 1000 for row in range(len(label) + 1)]
    alight = [
        Incident(source="room", start_ms=at[first], end_ms=at[last], kind="fire alarm")
        for first, last in runs(label)
    ]
    return Truth(
        events=[
            replace(each, end_ms=min(each.end_ms, each.start_ms + SMOKE_FOUND_WITHIN_MS))
            for each in alight
        ],
        excused=alight,
        early_s=60,
        parts={"all": (at[0], at[-1])},
    )


def batadal_truth(folder: Path) -> Truth:
    """Return the attacks, which are labelled for the network as a whole, in the second file only.

    Tanks need days to come back from an attack; alarms within a day of its end are not false.
    """
    quiet, attacked = (folder / "BATADAL" / f"dataset0{number}.parquet" for number in (3, 4))
    before, at = times_ms(quiet), times_ms(attacked)
    events = [
        Incident(source="network", start_ms=int(at[first]), end_ms=int(at[last]), kind="attack")
        for first, last in runs(column(attacked, "label") == 1)
    ]
    return Truth(
        events=events,
        together="network",
        late_s=DAY_MS / 1000,
        parts={
            "tuned on: no attacks": (int(before[0]), int(before[-1]) + HOUR_MS),
            "not tuned on: attacks": (int(at[0]), int(at[-1]) + HOUR_MS),
        },
    )


AUCKLAND_OFFSET_MS = 12 * HOUR_MS
LOCKDOWN_FOUND_WITHIN_MS = 7 * DAY_MS
LOCKDOWNS = (
    ("2020-03-26", "2020-05-13"),
    ("2020-08-12", "2020-08-30"),
    ("2021-02-15", "2021-02-17"),
    ("2021-02-28", "2021-03-06"),
    ("2021-08-18", "2021-12-02"),
)
"""First and last day of Auckland's lockdowns, levels 3 and 4."""


def auckland_ms(wall: str) -> int:
    """Return epoch milliseconds of a wall time, as the site's adapter takes it."""
    return int(np.datetime64(wall, "ms").astype(np.int64)) - AUCKLAND_OFFSET_MS


def pedestrian_truth(folder: Path) -> Truth:
    """Return lockdowns and the crowds of New Year's Eve, for each counter that counted then.

    A lockdown is found in its first week or missed: in two months a chance alarm would find it.
    This truth is weak: other holidays, parades and building sites are not in it, so many of the
    alarms that count as false are not.
    """
    path = folder / "akl_pedestrians" / "akl_odd_sensors.parquet"
    wall_ms = times_ms(path)
    at = wall_ms - AUCKLAND_OFFSET_MS
    spans = [(auckland_ms(a), auckland_ms(b) + DAY_MS - 1, "lockdown") for a, b in LOCKDOWNS]
    # the file dates the small hours to the day before: midnight's crowd is at 31 December 00:00
    spans += [
        (auckland_ms(f"{year}-12-31"), auckland_ms(f"{year}-12-31") + DAY_MS - 1, "New Year's Eve")
        for year in range(2019, 2026)
    ]
    events: list[Incident] = []
    excused: list[Incident] = []
    for name in pq.read_schema(path).names[1:]:
        counted = at[np.isfinite(column(path, name))]
        for start_ms, end_ms, kind in spans:
            n = np.count_nonzero((counted >= start_ms) & (counted <= end_ms))
            learnt = np.count_nonzero(counted < start_ms) * HOUR_MS >= 8 * 7 * DAY_MS
            if n and learnt:
                whole = Incident(source=street(name), start_ms=start_ms, end_ms=end_ms, kind=kind)
                excused.append(whole)
                events.append(
                    replace(whole, end_ms=min(end_ms, start_ms + LOCKDOWN_FOUND_WITHIN_MS))
                )
    turn, end_ms = auckland_ms("2020-01-01"), int(at[-1]) + HOUR_MS
    return Truth(
        events=events,
        excused=excused,
        late_s=7 * DAY_MS / 1000,
        parts={
            "tuned on": (int(at[0]), turn),
            "not tuned on": (turn, end_ms),
            "all": (int(at[0]), end_ms),
        },
    )


def street(name: str) -> str:
    """Return the source of a counter."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="methane_mine",
        site="methane_mine",
        folder="methane_mine",
        files=("methane_train.parquet",),
        truth=methane_truth,
    ),
    DataSet(name="skab", site="skab", folder="SKAB", files=SKAB_FILES, truth=skab_truth),
    DataSet(
        name="skab_anomaly_free",
        site="skab",
        folder="SKAB",
        files=("anomaly_free.parquet",),
        truth=quiet_truth,
    ),
    DataSet(
        name="smoke_iot",
        site="smoke_iot",
        folder="smoke_iot",
        files=("smoke_part1.parquet",),
        truth=smoke_truth,
    ),
    DataSet(
        name="batadal",
        site="batadal",
        folder="BATADAL",
        files=("dataset03.parquet", "dataset04.parquet"),
        truth=batadal_truth,
    ),
    DataSet(
        name="akl_pedestrians",
        site="akl_pedestrians",
        folder="akl_pedestrians",
        files=("akl_odd_sensors.parquet",),
        truth=pedestrian_truth,
    ),
)

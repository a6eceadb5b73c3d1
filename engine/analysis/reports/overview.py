"""Alarms counted for the charts: over time, by day and hour, by source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from kernels.layout import ESCALATE, N_LEVELS, RAISE

Array = np.ndarray[Any, Any]

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
STEPS_MS = (
    *(n * MINUTE_MS for n in (1, 5, 10, 30)),
    *(n * HOUR_MS for n in (1, 2, 6, 12)),
    *(n * DAY_MS for n in (1, 7, 28)),
)
WEEK_MS = 7 * DAY_MS
MONDAY_MS = 4 * DAY_MS
"""1970-01-05, the first Monday of the epoch."""
MOST_STEPS = 200
SHORT_MS = 3 * DAY_MS
"""Up to it a calendar has half hours."""
LONG_MS = 62 * DAY_MS
"""Beyond it a calendar has a row a month instead of a row a day."""


def alarms_of(steps: Array, since_ms: int, until_ms: int) -> Array:
    """Return the steps that ask a person anew, in ``[since_ms, until_ms)``."""
    rising = (steps["kind"] == RAISE) | (steps["kind"] == ESCALATE)
    at = steps["event_ms"]
    return steps[rising & (at >= since_ms) & (at < until_ms)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Alarms by level in steps of time."""

    start_ms: int
    step_ms: int
    counts: Array
    """(N_LEVELS, n) int64"""


def series_of(alarms: Array, since_ms: int, until_ms: int, offset_ms: int) -> Series:
    """Count alarms in at most `MOST_STEPS` steps that begin at round times of the place."""
    span_ms = max(1, until_ms - since_ms)
    step_ms = next((s for s in STEPS_MS if span_ms <= s * MOST_STEPS), STEPS_MS[-1])
    # weeks begin on Mondays
    origin_ms = offset_ms - (MONDAY_MS if step_ms >= WEEK_MS else 0)
    start_ms = (since_ms + origin_ms) // step_ms * step_ms - origin_ms
    n = -(-(until_ms - start_ms) // step_ms)
    counts = np.zeros((N_LEVELS, max(1, n)), np.int64)
    at = (alarms["event_ms"] - start_ms) // step_ms
    np.add.at(counts, (alarms["level"].astype(np.int64) - 1, at), 1)
    return Series(start_ms=start_ms, step_ms=step_ms, counts=counts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Calendar:
    """Alarms in a grid: a row a day or a month, a column an hour, half an hour or a day."""

    rows: list[str]
    columns: list[str]
    unit: str
    """What a cell is."""
    cells: list[tuple[int, int, int]]
    """Column, row, alarms; cells of the history without any alarm have 0."""


def calendar_of(alarms: Array, since_ms: int, until_ms: int, offset_ms: int) -> Calendar:
    """Count alarms by the place's own days."""
    begin, end = since_ms + offset_ms, max(until_ms + offset_ms, since_ms + offset_ms + 1)
    local = alarms["event_ms"] + offset_ms
    if end - begin > LONG_MS:
        return _by_months(local, begin, end)
    slot_ms = HOUR_MS // 2 if end - begin <= SHORT_MS else HOUR_MS
    per_day = DAY_MS // slot_ms
    first_day, last_day = begin // DAY_MS, (end - 1) // DAY_MS
    slots = local // slot_ms - first_day * per_day
    counts = np.bincount(slots, minlength=(last_day - first_day + 1) * per_day)
    first, last = begin // slot_ms - first_day * per_day, (end - 1) // slot_ms - first_day * per_day
    return Calendar(
        rows=[_day(day * DAY_MS, "%a %d %b %Y") for day in range(first_day, last_day + 1)],
        columns=[f"{s * slot_ms // HOUR_MS:02}:{s * slot_ms // MINUTE_MS % 60:02}"
                 for s in range(per_day)],
        unit="half hour" if slot_ms < HOUR_MS else "hour",
        cells=[
            (slot % per_day, slot // per_day, n)
            for slot, n in enumerate(counts.tolist())
            if first <= slot <= last
        ],
    )  # fmt: skip


def _by_months(local: Array, begin: int, end: int) -> Calendar:
    first_day, last_day = begin // DAY_MS, (end - 1) // DAY_MS
    counts = np.bincount(local // DAY_MS - first_day, minlength=last_day - first_day + 1).tolist()
    rows: list[str] = []
    cells = []
    for day, n in enumerate(counts):
        date = datetime.fromtimestamp((first_day + day) * DAY_MS / 1000, UTC)
        month = f"{date:%b %Y}"
        if not rows or rows[-1] != month:
            rows.append(month)
        cells.append((date.day - 1, len(rows) - 1, n))
    return Calendar(rows=rows, columns=[str(n) for n in range(1, 32)], unit="day", cells=cells)


def _day(local_ms: int, form: str) -> str:
    return datetime.fromtimestamp(local_ms / 1000, UTC).strftime(form)


@dataclass(frozen=True, kw_only=True, eq=False)
class Load:
    """Alarms by source."""

    sources: Array
    """(K,) int64, those with an alarm, the busiest first"""
    counts: Array
    """(K, N_LEVELS) int64, alarms by level"""

    @property
    def totals(self) -> Array:
        """(K,) int64, alarms of each."""
        return self.counts.sum(axis=1)


def load_of(alarms: Array) -> Load:
    """Count alarms by source and level; equally busy sources go by index."""
    sources, place = np.unique(alarms["source"].astype(np.int64), return_inverse=True)
    counts = np.zeros((len(sources), N_LEVELS), np.int64)
    np.add.at(counts, (place, alarms["level"].astype(np.int64) - 1), 1)
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    return Load(sources=sources[order], counts=counts[order])


def pareto_of(load: Load, most: int = 160) -> list[tuple[int, float]]:
    """Return some numbers of busiest sources, and the share of all alarms that they make."""
    totals = load.totals
    if not len(totals):
        return []
    shares = np.cumsum(totals) / totals.sum()
    n = len(totals)
    # every one of the first, then ever fewer
    few = np.unique(np.concatenate([np.arange(1, min(n, 40) + 1),
                                    np.geomspace(1, n, most).round().astype(int)]))  # fmt: skip
    return [(int(k), float(shares[k - 1])) for k in few]

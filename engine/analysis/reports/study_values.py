"""The settings of a study as the page's scripts take them: columns, packed small."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np

from engine.analysis.reports.shell import inert
from engine.analysis.reports.study_read import Told
from engine.analysis.reports.study_words import better, kind_of, shown_first, words_of
from kernels.layout import LEVEL_NAMES

Array = np.ndarray[Any, Any]
MOST_BYTES = 4_000_000
"""Of all columns; more settings than fit are left to the study's own table."""
DIGITS = 6
"""Of a figure; float32 keeps as many."""


def values(told: Told, rows: list[int]) -> dict[str, Any]:
    """Return what the scripts draw from, of some settings."""
    at = np.array(rows, np.int64)
    reasons = sorted({told.refused[row] or "" for row in rows})
    place = {reason: number for number, reason in enumerate(reasons)}
    origins = sorted({told.origin[row] for row in rows})
    units = {change.key: change.unit for change in told.changes}
    return {
        "offset": 0,
        "zone": "UTC",
        "levels": LEVEL_NAMES,
        "study": {
            "n": len(rows),
            "of": told.n,
            "setting": _packed(at.astype(np.float64)),
            "parameters": [
                {"name": name, "unit": units.get(name, ""), **_packed(column[at], exact=True)}
                for name, column in zip(told.parameters, told.values, strict=True)
            ],
            "figures": [
                {
                    "name": name,
                    "words": words_of(name),
                    "better": better(told, name),
                    "kind": kind_of(name),
                    **_packed(column[at]),
                }
                for name, column in told.figures.items()
            ],
            "objectives": [
                [objective.metric, objective.largest] for objective in told.aim.objectives
            ],
            "requirements": [
                [each.metric, each.sense, each.bound] for each in told.aim.requirements
            ],
            "first": shown_first(told),
            "level": told.level,
            "truth": told.has_truth,
            "able": _flags(told.able[at]),
            "front": _flags(told.front[at]),
            "accepted": _flags(told.accepted[at]),
            "origins": origins,
            "origin": _index(np.array([origins.index(told.origin[row]) for row in rows])),
            "reasons": reasons,
            "reason": _index(np.array([place[told.refused[row] or ""] for row in rows])),
            "best": rows.index(told.best),
            "given": rows.index(0),
            "mark": told.mark,
        },
    }


def fitting(told: Told, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Return the values of all settings; of more than fit, of the best, and of an even sample.

    The given rules, the chosen ones and the front come before others.
    """
    rows = list(range(told.n))
    while True:
        made = values(told, rows)
        size = len(inert(made))
        if size <= most_bytes:
            return made
        # a little less than seems to fit, for what does not shrink with the rows
        rows = _some(told, max(1, int(0.9 * len(rows) * most_bytes / size)))


def _some(told: Told, n: int) -> list[int]:
    first = dict.fromkeys([0, told.best])
    first |= dict.fromkeys(row for row in told.order if told.front[row])
    kept = list(first)[: max(n, 2)]
    rest = [row for row in told.order if row not in first]
    room = max(0, n - len(kept))
    half = rest[: room // 2]
    others = rest[room // 2 :]
    sample = np.linspace(0, len(others) - 1, min(room - len(half), len(others))).astype(int)
    return sorted({*kept, *half, *(others[i] for i in sample.tolist())})


def _packed(column: Array, *, exact: bool = False) -> dict[str, Any]:
    """Return a column as its distinct values, ascending, and which of them each row has.

    Where that is shorter, and nothing is lost, as float32, to be read to so many digits. Figures
    are rounded to those; parameters are `exact`.
    """
    distinct, index = np.unique(column, return_inverse=True)
    whole = bool((distinct == np.floor(distinct))[~np.isnan(distinct)].all())
    rounded = np.array([float(f"{value:.{DIGITS}g}") for value in distinct.tolist()])
    if not whole and not exact:
        distinct, again = np.unique(rounded, return_inverse=True)
        rounded, index = distinct, again[index]
    numbers = [None if value != value else int(value) if whole else value
               for value in distinct.tolist()]  # fmt: skip
    packed = {"values": numbers, "at": _index(index)}
    narrow = distinct.astype("<f4")
    if np.array_equal(rounded, distinct, equal_nan=True) and _survives(narrow, distinct):
        plain = {"float32": b64encode(narrow[index].tobytes()).decode()}
        if len(plain["float32"]) < len(inert(packed)):
            return plain
    return packed


def _survives(narrow: Array, distinct: Array) -> bool:
    """Tell whether numbers of so many digits are read again from float32: not tiny or huge ones."""
    return all(
        value != value or float(f"{kept:.{DIGITS}g}") == value
        for kept, value in zip(narrow.astype(np.float64).tolist(), distinct.tolist(), strict=True)
    )


def _index(index: Array) -> dict[str, Any]:
    """Return small whole numbers as base64 of so many bytes each, the lowest first."""
    most = int(index.max(initial=0))
    if not most:
        return {"bytes": 0, "text": ""}
    width = 1 if most < 1 << 8 else 2 if most < 1 << 16 else 4
    return {"bytes": width, "text": b64encode(index.astype(f"<u{width}").tobytes()).decode()}


def _flags(flags: Array) -> dict[str, Any]:
    return _index(flags.astype(np.int64))

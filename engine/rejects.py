"""What decoding one message leaves: its rows, and what was refused.

Refused rows are counted exactly by reason, and listed as far as there is room.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.readings import Readings

MAX_LISTED = 100
"""Rows of one message that are listed; the others are counted."""
_MAX_DETAIL = 300


class Reject(NamedTuple):
    """What could not be decoded: a reason, a line for people, and the row where it is one."""

    reason: str
    detail: str
    row: int | None = None


class Rows(NamedTuple):
    """The rows of one message that are readings; `kept` are their numbers unless all were kept."""

    readings: Readings
    kept: NDArray[np.int64] | None = None


def no_rows() -> Rows:
    """Return nothing, of a message that was refused."""
    return Rows(Readings.of([], [], []))


class Refusal(Exception):
    """A message that is refused whole; `n` readings of it if that can be said, or itself."""

    def __init__(self, reason: str, detail: object, n: int = 1) -> None:
        super().__init__(detail)
        self.reason = reason
        self.n = max(1, n)


class Refused(NamedTuple):
    """All that one message had refused for one reason."""

    reason: str
    detail: str
    n: int
    rows: list[int]


class Rejects:
    """Collects what one message has refused, in the order of its rows."""

    def __init__(self) -> None:
        self.listed: list[Reject] = []
        self.whole = False
        self._n: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._n)

    @property
    def n(self) -> int:
        """Count what was refused."""
        return sum(self._n.values())

    @property
    def more(self) -> int:
        """Count the rows that were refused and not listed; none of a message refused whole."""
        return 0 if self.whole else self.n - len(self.listed)

    def add(self, reason: str, detail: object, row: int | None = None) -> None:
        """Refuse one row, or the message where no row is given."""
        n = self._n.get(reason, 0)
        self._n[reason] = n + 1
        room = len(self.listed) < MAX_LISTED
        if not n or room:
            text = _line(detail)
            self._first.setdefault(reason, text)
            if room:
                self.listed.append(Reject(reason, text, row))

    def add_rows(self, reason: str, detail: str, rows: Iterable[int], n: int) -> None:
        """Refuse `n` rows, of which `rows` are the first or all."""
        if n:
            self._n[reason] = self._n.get(reason, 0) + n
            self._first.setdefault(reason, detail)
            room = max(0, MAX_LISTED - len(self.listed))
            self.listed += [Reject(reason, detail, row) for row in islice(rows, room)]

    def add_message(self, refusal: Refusal) -> None:
        """Refuse the message whole, and nothing of it beside."""
        text = _line(refusal)
        self.whole = True
        self.listed = [Reject(refusal.reason, text)]
        self._n, self._first = {refusal.reason: refusal.n}, {refusal.reason: text}

    def by_reason(self) -> list[Refused]:
        """Return one entry a reason, in the order in which they first occurred."""
        rows: dict[str, list[int]] = {reason: [] for reason in self._n}
        for each in self.listed:
            if each.row is not None:
                rows[each.reason].append(each.row)
        return [
            Refused(reason, self._first[reason], n, sorted(rows[reason]))
            for reason, n in self._n.items()
        ]


def _line(detail: object) -> str:
    # names in a message may hold anything, lone surrogates too
    text = " ".join(str(detail)[: 4 * _MAX_DETAIL].split())[:_MAX_DETAIL]
    return text.encode("utf-8", "replace").decode()

"""Readings that are refused in bulk for their times: of an old history, say, beside ticks of now.

One clock that is wrong is a sensor's business, and counted; most readings of a partition are the
operator's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.readings import OUTCOMES

EVERY_S = 5.0
"""What is refused is held against what came in so many seconds."""
_LATE, _TICKS = OUTCOMES.index("late"), OUTCOMES.index("ticks")
_WHY = {
    "time_too_late": "more than max_late_s behind the newest time of the log",
    "time_ahead": "more than max_ahead_s ahead of the newest time of the log",
    "backward": "behind what their sensors sent before",
}


@dataclass(slots=True)
class _Seen:
    since: float
    counts: Any


class Refused:
    """Says when most readings of a partition are refused for their times."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[int, _Seen] = {}

    def note(self, partition: int, counts: Any) -> str | None:
        """Note what became of a fetch's readings, by `OUTCOMES`; return what is worth a warning."""
        now = self._clock()
        seen = self._seen.setdefault(partition, _Seen(now, np.zeros(len(OUTCOMES), np.int64)))
        seen.counts += counts
        if now - seen.since < EVERY_S:
            return None
        del self._seen[partition]
        n = int(seen.counts.sum() - seen.counts[_LATE] - seen.counts[_TICKS])
        for reason, why in _WHY.items():
            refused = int(seen.counts[OUTCOMES.index(reason)])
            if 2 * refused > n:
                return (
                    f"{refused:,} of {n:,} readings of partition {partition} came to nothing "
                    f"({reason}): they are {why}"
                )
        return None

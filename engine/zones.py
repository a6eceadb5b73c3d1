"""Wall times of a place to epoch milliseconds, a column at a time.

Arrow and pandas want a time-zone database of the system, which slim machines lack; `zoneinfo` falls
back on the `tzdata` package. A zone becomes a short table of the moments at which its offset
changes, looked up for a whole column at once.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from kernels.layout import MAX_EVENT_MS

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_DAY_S = 86_400
_FAR_MS = 1 << 62


class Zone(NamedTuple):
    """A time zone as a table: `offset_ms[i]` holds for wall times from `from_ms[i]` on.

    A wall time that occurs twice, when clocks go back, is taken as the first of the two; one that
    is skipped, when they go forward, as if they had not.
    """

    name: str
    tz: tzinfo
    from_ms: NDArray[np.int64]
    offset_ms: NDArray[np.int64]

    @property
    def fixed(self) -> bool:
        """Whether the offset never changes."""
        return len(self.offset_ms) == 1

    def epoch_ms(self, wall_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return epoch milliseconds of wall times given as if they were UTC; extremes saturate."""
        wall_ms = np.clip(wall_ms, -_FAR_MS, _FAR_MS)
        if self.fixed:
            offset = int(self.offset_ms[0])
            return wall_ms - offset if offset else wall_ms
        which = np.searchsorted(self.from_ms, wall_ms, side="right") - 1
        return wall_ms - self.offset_ms[np.maximum(which, 0)]


@lru_cache(maxsize=64)
def zone(name: str) -> Zone:
    """Return the zone of an offset such as `+08:00`, of `UTC`, or of an IANA name.

    Raises ValueError with what is wrong.
    """
    if name in ("UTC", "Z"):
        return _fixed("UTC", UTC)
    match = _OFFSET.fullmatch(name)
    if match:
        minutes = int(match[2]) * 60 + int(match[3])
        if minutes > 18 * 60 or int(match[3]) > 59:
            raise ValueError("an offset must lie between -18:00 and +18:00")
        offset = timedelta(minutes=-minutes if match[1] == "-" else minutes)
        return _fixed(name, timezone(offset))
    try:
        tz = ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be UTC, an offset such as +08:00, or an IANA time zone") from error
    return _table(name, tz)


def _fixed(name: str, tz: tzinfo) -> Zone:
    offset = tz.utcoffset(None)
    assert offset is not None
    offset_ms = offset // timedelta(milliseconds=1)
    return Zone(name, tz, np.array([-_FAR_MS]), np.array([offset_ms]))


def _offset_s(tz: tzinfo, epoch_s: int) -> int:
    offset = datetime.fromtimestamp(epoch_s, tz).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


def _table(name: str, tz: tzinfo) -> Zone:
    """Find every change of offset by looking at each day, then halving the days that differ."""
    from_ms, offsets = [-_FAR_MS], [_offset_s(tz, -_DAY_S)]
    for day in range(0, MAX_EVENT_MS // 1000 + _DAY_S, _DAY_S):
        after = _offset_s(tz, day)
        if after == offsets[-1]:
            continue
        low, high = day - _DAY_S, day
        while high - low > 1:
            middle = (low + high) // 2
            if _offset_s(tz, middle) == offsets[-1]:
                low = middle
            else:
                high = middle
        # the wall clock is past both readings of the change
        from_ms.append((high + max(after, offsets[-1])) * 1000)
        offsets.append(after)
    return Zone(name, tz, np.array(from_ms), np.array(offsets) * 1000)


def instant_ms(text: str, of: Zone) -> int:
    """Return epoch milliseconds of an ISO 8601 time (in zone `of` if it names none) or of a number.

    Raises ValueError with what is wrong.
    """
    text = text.strip()
    if re.fullmatch(r"[+-]?\d{1,18}", text) and not re.fullmatch(r"\d{8}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("must be ISO 8601 or epoch milliseconds") from error
    return moment_ms(moment, of)


def moment_ms(moment: datetime, of: Zone) -> int:
    """Return epoch milliseconds of a time, taken in zone `of` if it has none of its own."""
    if moment.tzinfo is not None:
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    wall = (moment - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
    return int(of.epoch_ms(np.array([wall]))[0])

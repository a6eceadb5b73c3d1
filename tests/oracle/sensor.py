"""One sensor: what it remembers, and what one record does to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from kernels.layout import (
    ABSENCE,
    ACCEPTED,
    BACKWARD,
    BAD,
    BAD_QUALITY,
    DUPLICATE,
    HIGH,
    LOW,
    N_KINDS,
    N_LEVELS,
    NO_KIND,
    NOT_FINITE,
    OUT_OF_RANGE,
    WINDOW,
)
from tests.oracle.detectors import (
    acknowledge_limits,
    detect_bad,
    detect_deviation,
    detect_flatline,
    detect_limits,
    detect_rate,
    detect_spike,
    detect_windows,
    move_anchor,
)
from tests.oracle.memory import Bin, Latch, Window
from tests.oracle.numbers import f32, older_by


@dataclass(frozen=True)
class Change:
    """New signals of one sensor: what detection hands to fusion."""

    position: int
    event_ms: int
    value: float
    levels: tuple[int, ...]
    sensor: int
    kind: int
    window: int
    late: bool


def pack(levels: Sequence[int]) -> int:
    """Pack a level a kind, three bits each."""
    return sum(level << 3 * kind for kind, level in enumerate(levels))


def strongest(levels: Sequence[int], percent: Sequence[Sequence[int]]) -> int:
    """Return the kind of the greatest percent, the first among equals, or NO_KIND."""
    up = [kind for kind in range(N_KINDS) if levels[kind] > 0]
    return max(up, key=lambda kind: (percent[kind][levels[kind]], -kind), default=NO_KIND)


class Sensor:
    """What one sensor remembers, from its first reading on."""

    def __init__(
        self, index: int, row: SimpleNamespace, windows: list[SimpleNamespace], absent_ms: int
    ) -> None:
        self.index, self.row, self.window_params, self.absent_ms = index, row, windows, absent_ms
        self.newest_ms: int | None = None  # of any reading, bad ones included
        self.anchor = 0.0
        # Relative to the anchor; ``last`` is None before the first good reading.
        self.last: float | None = None
        self.mean = self.deviation = self.above = self.below = self.older = 0.0
        self.anchor_age_ms = self.older_age_ms = 0
        self.n = self.n_flat = self.n_bad = self.n_rate = self.n_deviation = 0
        self.refractory_until_s = 0
        self.calm = False  # whether the refractory time ran when the present reading came
        self.high = [Latch() for _ in range(N_LEVELS)]
        self.low = [Latch() for _ in range(N_LEVELS)]
        self.acknowledged = False
        self.absent = False
        self.windows = [Window() for _ in windows]
        self.window = 0  # the one whose level the WINDOW signal shows
        self.bins = [Bin() for _ in range(row.season_bins)]
        self.level = [0] * N_KINDS
        # What each kind compared with its limit now; NaN where the present record doesn't say.
        self.statistic = [math.nan] * N_KINDS

    def newest_good(self) -> float:
        """Return the newest good value, as exactly as it is remembered."""
        return self.anchor + (self.last or 0.0)

    def _forget_statistics(self) -> None:
        """Begin a record that is no good reading: it knows what limits remember, no more."""
        self.statistic = [math.nan] * N_KINDS
        self.statistic[HIGH] = self.statistic[LOW] = self.newest_good()

    def take(self, t: int, value: float, quality: int) -> int:
        """Take a reading whose time the log has accepted; return what it is counted as."""
        v = value * self.row.scale + self.row.offset
        fault = self._fault(v, quality)
        if self.newest_ms is not None and t < self.newest_ms:
            if fault is None:
                detect_windows(self, self.window_params, v, t, judge=False)
            return BACKWARD
        dt_ms = 0 if self.newest_ms is None else t - self.newest_ms
        if fault is not None:
            self._take_bad(t, dt_ms)
            return fault
        if dt_ms == 0 and self.last is not None and f32(v - self.anchor) == self.last:
            return DUPLICATE
        self._take_good(t, dt_ms, v)
        return ACCEPTED

    def _fault(self, v: float, quality: int) -> int | None:
        if quality != 0:
            return BAD_QUALITY
        if not math.isfinite(v):
            return NOT_FINITE
        if v < self.row.range_low or v > self.row.range_high:
            return OUT_OF_RANGE
        return None

    def _take_bad(self, t: int, dt_ms: int) -> None:
        self._forget_statistics()
        self._lives(t, dt_ms)
        for latch in self.high + self.low:
            if latch.age_ms is not None:
                latch.age_ms = older_by(latch.age_ms, dt_ms)
        detect_bad(self, self.row)

    def _take_good(self, t: int, dt_ms: int, v: float) -> None:
        self._lives(t, dt_ms)
        self.n_bad = self.level[BAD] = 0
        self.calm = t // 1000 < self.refractory_until_s
        if self.last is None:
            self.anchor = v
            self.anchor_age_ms = self.older_age_ms = 0
        detect_windows(self, self.window_params, v, t, judge=True)
        detect_rate(self, self.row, v)
        detect_deviation(self, self.row, v, t)
        detect_flatline(self, self.row, v)
        detect_spike(self, self.row, v, t)
        detect_limits(self, self.row, v, dt_ms)
        self.last = f32(v - self.anchor)
        move_anchor(self, self.row, v)

    def _lives(self, t: int, dt_ms: int) -> None:
        self.newest_ms = t
        self.anchor_age_ms = older_by(self.anchor_age_ms, dt_ms)
        self.older_age_ms = older_by(self.older_age_ms, dt_ms)
        self.absent = False
        self.level[ABSENCE] = 0

    def deadline_ms(self) -> int | None:
        """Return when the sensor will be absent, or None while it is so, unarmed or unwatched."""
        if self.newest_ms is None or self.absent or self.absent_ms == 0:
            return None
        return self.newest_ms + self.absent_ms

    def go_absent(self) -> None:
        """Raise the absence signal."""
        self._forget_statistics()
        self.absent = True
        self.level[ABSENCE] = self.row.absence_level
        self.statistic[ABSENCE] = self.absent_ms / 1000

    def acknowledge(self) -> None:
        """Let latching limits go."""
        self._forget_statistics()
        acknowledge_limits(self, self.row)

    def change(self, position: int, event_ms: int, late: bool) -> Change:
        """Describe the present signals."""
        kind = strongest(self.level, self.row.percent)
        return Change(
            position=position,
            event_ms=event_ms,
            value=0.0 if kind == NO_KIND else self.statistic[kind],
            levels=tuple(self.level),
            sensor=self.index,
            kind=kind,
            window=self.window if kind == WINDOW and not math.isnan(self.statistic[kind]) else 0,
            late=late,
        )

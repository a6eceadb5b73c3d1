"""Carry-over of sensors whose parameters changed: what remains meaningful of each field.

CARRY.md is the definition. A push of rules confirms nothing: no latch closes and no signal rises
before a reading says so. What no longer exists goes at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.carry_rows import Pairs
from engine.carry_windows import clamp, same_season, window_level
from engine.pipeline import Pipeline
from kernels.layout import (
    ABSENCE,
    BAD,
    DEVIATION,
    DRIFT,
    FALL,
    FLAG_ABSENT,
    FLAG_ACKNOWLEDGED,
    FLAG_ACTIVE,
    FLATLINE,
    HIGH,
    LOW,
    N_KINDS,
    N_LEVELS,
    RISE,
    SPIKE,
    WINDOW,
)

if TYPE_CHECKING:
    from engine.carry import Held

Array = np.ndarray[Any, Any]

AT_ONCE = 16_384
"""Sensors adapted together: their parameters are gathered, a kilobyte each."""
_LADDERS = {RISE: "rise", FALL: "fall", DEVIATION: "z", DRIFT: "drift"}


def adapt(held: Held, line: Pipeline, pairs: Pairs, changed: Array, origin: Array) -> None:
    """Bring the copied records of the changed sensors (by place in the pipeline) in line."""
    parts = line.state.of_sources(*line.sources)
    rows = parts["lines"][:: line.state.stride]
    for start in range(0, len(changed), AT_ONCE):
        at = changed[start : start + AT_ONCE]
        change = _Change(held, line, pairs, at, origin[at])
        hot, cold, signal = rows[at], parts["cold"][at], parts["signal"][at]
        before = unpacked(cold["levels"])
        change.convert(hot)
        change.learn_anew(hot)
        change.keep_latches(hot, cold)
        levels = change.keep_levels(hot, cold, before)
        change.explain(hot, signal, before, levels)
        cold["levels"] = signal["levels"] = packed(levels)
        busy = (cold["levels"] != 0) | (hot["latched"] != 0) | (hot["pending"] != 0)
        busy |= (cold["n_rate"] != 0) | (cold["n_deviation"] != 0)
        flags = hot["flags"] & ~np.uint8(FLAG_ACTIVE)
        hot["flags"] = np.where(busy, flags | np.uint8(FLAG_ACTIVE), flags)
        rows[at], parts["cold"][at], parts["signal"][at] = hot, cold, signal


class _Rows:
    """Some rows of parameters, gathered a field at a time: a row has a kilobyte, all told."""

    def __init__(self, params: Array, row: Array) -> None:
        self._params, self._row = params, row

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, name: str) -> Array:
        return self._params[name][self._row]


class _Change:
    """Some sensors, with their old parameters `a` and their new ones `b`."""

    def __init__(self, held: Held, line: Pipeline, pairs: Pairs, at: Array, origin: Array) -> None:
        pair = pairs.of_sensor[at]
        self.a = _Rows(held.plan.params, pairs.old[pair])
        self.b = _Rows(line.plan.params, pairs.new[pair])
        self.gain, self.shift = pairs.gain[pair], pairs.shift[pair]
        self.same_unit = pairs.same_unit[pair]
        self.same_season = same_season(held, line, pairs)[pair]
        self.windows = pairs.windows[pair]
        sensor = at + line.sensors[0]
        self.absent_ms = line.plan.absent_ms[sensor]
        self.tick_ms = int(held.clock["tick_ms"][0])
        self.window_level, self.loudest = window_level(line, sensor, self.b["n_windows"])

    def convert(self, hot: Array) -> None:
        """Turn what is remembered in the old profile's unit into the new one's."""
        seen = ~self.same_unit & (hot["n"] > 0)
        anchor = hot["anchor"] * self.gain + self.shift
        hot["anchor"] = np.where(seen, anchor, hot["anchor"])
        for name in ("last", "mean", "deviation", "above", "below", "older"):
            hot[name] = np.where(seen, (hot[name] * self.gain).astype(np.float32), hot[name])

    def learn_anew(self, hot: Array) -> None:
        """Begin the baseline with the newest value where it is another one: plain or seasonal."""
        anew = ~self.same_season
        hot["n"] = np.where(anew, np.minimum(hot["n"], 1), hot["n"])
        hot["mean"] = np.where(anew, hot["last"], hot["mean"])
        for name in ("deviation", "above", "below"):
            hot[name] = np.where(anew, np.float32(0), hot[name])

    def keep_latches(self, hot: Array, cold: Array) -> None:
        """Open latches of levels that are gone; stop timers that ran against another limit."""
        a, b = self.a, self.b
        latched, pending = hot["latched"].astype(np.int64), hot["pending"].astype(np.int64)
        limits = {side: (a[side], b[side]) for side in ("high", "low")}
        other_deadband = a["deadband"] != b["deadband"]
        for place in range(2 * N_LEVELS):
            side, k = ("high", place) if place < N_LEVELS else ("low", place - N_LEVELS)
            bit = 1 << place
            was, now = (limit[:, k] for limit in limits[side])
            gone = ~np.isfinite(now)
            other = (was != now) | ~self.same_unit
            other |= ((latched & bit) != 0) & other_deadband
            latched = np.where(gone, latched & ~bit, latched)
            pending = np.where(gone | other, pending & ~bit, pending)
            stopped = np.where(gone | other, 0, cold["age_ms"][:, place])
            cold["age_ms"][:, place] = stopped
        hot["latched"], hot["pending"] = latched, pending
        flags = hot["flags"]
        hot["flags"] = np.where(latched == 0, flags & ~np.uint8(FLAG_ACKNOWLEDGED), flags)
        rated = self._alike("rise", "fall", "half_ms") & self.same_unit
        cold["n_rate"] = np.where(rated, cold["n_rate"], 0)
        judged = self._alike("z", "min_deviation") & self.same_unit & self.same_season
        cold["n_deviation"] = np.where(judged, cold["n_deviation"], 0)

    def _alike(self, *names: str) -> Array:
        alike = [self.a[name] == self.b[name] for name in names]
        return np.all([each.all(tuple(range(1, each.ndim))) for each in alike], axis=0)

    def keep_levels(self, hot: Array, cold: Array, before: Array) -> Array:
        """Return (n, kinds) the levels that the new parameters leave of those before."""
        b, levels = self.b, before.copy()
        levels[:, HIGH] = _highest(hot["latched"] & 0xF)
        levels[:, LOW] = _highest(hot["latched"] >> N_LEVELS)
        levels[:, WINDOW] = self.window_level
        for kind, ladder in _LADDERS.items():
            levels[:, kind] = clamp(before[:, kind], b[ladder])
        for kind in (DEVIATION, DRIFT):
            levels[:, kind] = np.where(self.same_season, levels[:, kind], 0)
        flat = (b["flat_after_n"] > 0) & (hot["n_flat"] >= b["flat_after_n"])
        bad = (b["bad_after_n"] > 0) & (hot["n_bad"] >= b["bad_after_n"])
        spike = np.isfinite(b["spike_at"])
        absent = (hot["flags"] & FLAG_ABSENT) != 0
        silent = (self.absent_ms > 0) & (hot["last_ms"] + self.absent_ms <= self.tick_ms)
        hot["flags"] = np.where(
            absent & ~silent, hot["flags"] & ~np.uint8(FLAG_ABSENT), hot["flags"]
        )
        for kind, holds, level in (
            (FLATLINE, flat, "flat_level"),
            (BAD, bad, "bad_level"),
            (SPIKE, spike, "spike_level"),
            (ABSENCE, silent, "absence_level"),
        ):
            levels[:, kind] = np.where((before[:, kind] > 0) & holds, b[level], 0)
        return levels

    def explain(self, hot: Array, signal: Array, before: Array, levels: Array) -> None:
        """Keep what explains the strongest signal if it is the same, else note what is known.

        Severity that fades goes with its detector, if that is gone.
        """
        old_kind, kind = strongest(before, self.a["percent"]), strongest(levels, self.b["percent"])
        rows = np.arange(len(kind))
        number = (signal["which"] & 0x0F).astype(np.int64)
        moved = np.where(self.windows == number[:, None], 1, 0)
        still = moved.any(1)
        number = np.where(still, moved.argmax(1), 0)
        held_kind = (signal["which"] >> 4).astype(np.int64)
        watched = self._watched()[rows, np.minimum(held_kind, N_KINDS - 1)]
        signal["held"] = np.where(watched, signal["held"], 0)
        signal["held_s"] = np.where(watched, signal["held_s"], 0)
        held_kind = np.where(watched, held_kind, 0)
        units = np.isin(kind, (ABSENCE, BAD, FLATLINE, DEVIATION, DRIFT))
        same = (kind == old_kind) & (before.any(1)) & (self.same_unit | units)
        same &= (kind != WINDOW) | still
        value = np.where(same, signal["value"], np.nan)
        known = hot["anchor"] + hot["last"]
        value = np.where(~same & np.isin(kind, (HIGH, LOW)), known, value)
        value = np.where(~same & (kind == FLATLINE), hot["n_flat"], value)
        value = np.where(~same & (kind == BAD), hot["n_bad"], value)
        value = np.where(kind == ABSENCE, self.absent_ms / 1000.0, value)
        number = np.where(~same & (kind == WINDOW), self.loudest, number)
        told = levels.any(1)
        signal["value"] = np.where(told, value, signal["value"])
        signal["which"] = held_kind << 4 | number

    def _watched(self) -> Array:
        """Return (n, kinds): whether the new parameters have a detector of the kind at all."""
        b = self.b
        watched = np.zeros((len(b), N_KINDS), bool)
        for kind, ladder in (*_LADDERS.items(), (HIGH, "high"), (LOW, "low")):
            watched[:, kind] = np.isfinite(b[ladder]).any(1)
        watched[:, WINDOW] = b["n_windows"] > 0
        watched[:, ABSENCE] = self.absent_ms > 0
        watched[:, FLATLINE], watched[:, BAD] = b["flat_after_n"] > 0, b["bad_after_n"] > 0
        watched[:, SPIKE] = np.isfinite(b["spike_at"])
        return watched


def _highest(bits: Array) -> Array:
    level = np.zeros(len(bits), np.int64)
    for k in range(N_LEVELS):
        level = np.where(bits >> k & 1, k + 1, level)
    return level


def unpacked(levels: Array) -> Array:
    """Return (n, kinds) the level of each kind in packed signals."""
    return levels[:, None] >> 3 * np.arange(N_KINDS) & 7


def packed(levels: Array) -> Array:
    """Return the words of (n, kinds) levels."""
    return (levels << 3 * np.arange(N_KINDS)).sum(1)


def strongest(levels: Array, percent: Array) -> Array:
    """Return the kind of the strongest signal of each sensor; as `kernels.pack.strongest`."""
    best = np.full(len(levels), -1, np.int64)
    found = np.zeros(len(levels), np.int64)
    for kind in range(N_KINDS):
        up = np.flatnonzero(levels[:, kind])
        counts = percent[up, kind, levels[up, kind]].astype(np.int64)
        better = counts > best[up]
        best[up[better]], found[up[better]] = counts[better], kind
    return found

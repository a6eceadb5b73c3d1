"""Carry-over of what lies beside a sensor's record: rings of panes, and bins of the season."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.carry_rows import Pairs
from engine.pipeline import Pipeline
from kernels.layout import N_LEVELS, PANES

if TYPE_CHECKING:
    from engine.carry import Held

Array = np.ndarray[Any, Any]

SEASON = ("season_bins", "season_ms", "utc_offset_ms")


def same_season(held: Held, line: Pipeline, pairs: Pairs) -> Array:
    """Return for each pair whether both learn the same bins, or both none."""
    old, new = held.plan.params, line.plan.params
    a, b = old["season_bins"][pairs.old], new["season_bins"][pairs.new]
    alike = [old[name][pairs.old] == new[name][pairs.new] for name in SEASON]
    return ((a == 0) & (b == 0)) | np.all(alike, axis=0)


def move_windows(held: Held, line: Pipeline, pairs: Pairs, known: Array, came: Array) -> None:
    """Move the rings that hold the same panes; those whose limits changed are looked through."""
    maps = pairs.windows[pairs.of_sensor[known]]
    source, target = _Rings.held(held), _Rings.of(line)
    for number in range(maps.shape[1]):
        for old_number in range(int(maps[:, number].max(initial=-1)) + 1):
            mine = maps[:, number] == old_number
            if not mine.any():
                continue
            ring, second = source.take(came[mine], old_number)
            _heed(held, line, pairs, known[mine], old_number, number, ring)
            target.put(known[mine] + line.sensors[0], number, ring, second)


def _heed(
    held: Held, line: Pipeline, pairs: Pairs, sensor: Array, old: int, new: int, ring: Array
) -> None:
    """Take from rings the levels that no longer exist; what is in them may matter now."""
    firsts = (
        held.plan.params["first_window"][pairs.old],
        line.plan.params["first_window"][pairs.new],
    )
    both = (pairs.windows[:, new] == old).nonzero()[0]
    before = held.plan.window_params[firsts[0][both] + old]
    after = line.plan.window_params[firsts[1][both] + new]
    changed = np.zeros(len(pairs.old), bool)
    changed[both] = before != after
    at = np.flatnonzero(changed[pairs.of_sensor[sensor]])
    if not len(at):
        return
    rules = line.plan.window_params[firsts[1][pairs.of_sensor[sensor[at]]] + new]
    high = clamp(ring["level"][at] & 0xF, rules["high"])
    low = clamp(ring["level"][at] >> 4, rules["low"])
    ring["level"][at] = low << 4 | high
    loud = np.where(ring["filled"][at] != 0, rules["n_panes"], ring["loud"][at])
    ring["loud"][at] = loud


def run_of(places: Array) -> Any:
    """Return ascending places as a slice if they are without a gap: it copies ten times faster."""
    n = len(places)
    if n and places[-1] - places[0] == n - 1 and bool((places[1:] > places[:-1]).all()):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def clamp(level: Array, ladder: Array) -> Array:
    """Return the highest level, at or below each, that a ladder (n, 4) still has; 0 for none."""
    found = np.zeros(len(level), np.int64)
    for k in range(N_LEVELS):
        found = np.where(np.isfinite(ladder[:, k]) & (k < level), k + 1, found)
    return found


def window_level(line: Pipeline, sensor: Array, n_windows: Array) -> tuple[Array, Array]:
    """Return (the highest level among a sensor's windows, the first window that has it)."""
    level, which = np.zeros(len(sensor), np.int64), np.zeros(len(sensor), np.int64)
    rings = _Rings.of(line)
    for number in range(int(n_windows.max(initial=0))):
        mine = np.flatnonzero(n_windows > number)
        ring, _ = rings.take(sensor[mine], number)
        here = np.maximum(ring["level"] & 0xF, ring["level"] >> 4).astype(np.int64)
        more = here > level[mine]
        level[mine[more]], which[mine[more]] = here[more], number
    return level, which


class _Rings:
    """Where the windows of a range of sensors lie: the first beside HOT, the others by number."""

    def __init__(self, plan: Any, parts: dict[str, Array], stride: int, first: int) -> None:
        self._starts = plan.more_start
        self._first, self._parts = first, parts
        self._beside = parts["lines"].view(PANES)[1::2] if stride == 2 else None

    @classmethod
    def held(cls, held: Held) -> _Rings:
        return cls(held.plan, held.parts, held.stride, held.sensors[0])

    @classmethod
    def of(cls, line: Pipeline) -> _Rings:
        parts = line.state.of_sources(*line.sources)
        return cls(line.plan, parts, line.state.stride, line.sensors[0])

    def _place(self, sensor: Array, number: int) -> tuple[Array, Array, Array]:
        if number == 0:
            assert self._beside is not None
            return self._beside, self._parts["seconds"], sensor - self._first
        at = self._starts[sensor] - self._starts[self._first] + number - 1
        return self._parts["more"], self._parts["more_seconds"], at

    def take(self, sensor: Array, number: int) -> tuple[Array, Array]:
        rings, seconds, at = self._place(sensor, number)
        run = run_of(at)
        return rings[run].copy(), seconds[run].copy()

    def put(self, sensor: Array, number: int, ring: Array, second: Array) -> None:
        rings, seconds, at = self._place(sensor, number)
        run = run_of(at)
        rings[run], seconds[run] = ring, second


def move_bins(held: Held, line: Pipeline, pairs: Pairs, known: Array, came: Array) -> None:
    """Move the bins of sensors that learn the same season as before."""
    pair = pairs.of_sensor[known]
    n_bins = line.plan.params["season_bins"][pairs.new[pair]].astype(np.int64)
    moved = same_season(held, line, pairs)[pair] & (n_bins > 0)
    if not moved.any():
        return
    n, sensor, old = n_bins[moved], known[moved] + line.sensors[0], came[moved]
    within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    target = line.plan.season_start
    source = held.plan.season_start
    to = np.repeat(target[sensor] - target[line.sensors[0]], n) + within
    at = np.repeat(source[old] - source[held.sensors[0]], n) + within
    bins = held.parts["bins"][at]
    gain, shift = np.repeat(pairs.gain[pair[moved]], n), np.repeat(pairs.shift[pair[moved]], n)
    other = ~np.repeat(pairs.same_unit[pair[moved]], n) & (bins["n"] > 0)
    bins["mean"] = np.where(other, bins["mean"] * gain + shift, bins["mean"])
    bins["deviation"] = np.where(other, bins["deviation"] * gain, bins["deviation"])
    line.state.of_sources(*line.sources)["bins"][to] = bins

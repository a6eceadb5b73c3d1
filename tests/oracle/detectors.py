"""The detectors of one sensor, each one function of its state, its parameters and one good reading.

``sensor`` is a :class:`tests.oracle.sensor.Sensor`, ``row`` a row of PARAMS as plain numbers, ``v``
the value in the profile's unit. Every function sets ``sensor.level[kind]`` and, for what is above
its limit, ``sensor.statistic[kind]``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

from kernels.layout import (
    BAD,
    COUNT,
    DEVIATION,
    DRIFT,
    FALL,
    FLATLINE,
    HIGH,
    LOW,
    MAXIMUM,
    MEAN,
    MINIMUM,
    N_LEVELS,
    N_PANES,
    RANGE,
    RISE,
    SPIKE,
    STD,
    SUM,
    WINDOW,
)
from tests.oracle.memory import Bin, Latch, Pane, Window
from tests.oracle.numbers import added_up, f32, f32_down, f32_up, older_by

if TYPE_CHECKING:
    from tests.oracle.sensor import Sensor

MAX_COUNT = 65_535
"""A count of repeats in 16 bits."""
MAX_PANE_N = 65_535
"""A pane that holds so many readings is full."""
MAX_RUN = 255
"""A count of consecutive readings in 8 bits."""


def ladder(
    statistic: float, raise_at: Sequence[float], keep_at: Sequence[float], before: int
) -> int:
    """Climb to the highest limit reached; step down only where the deadband is left as well."""
    reached = [k + 1 for k in range(N_LEVELS) if statistic >= raise_at[k]]
    level = max(reached, default=0)
    if level < before:
        kept = [k + 1 for k in range(before) if statistic >= keep_at[k]]
        level = max(kept, default=0)
    return level


def _below(limits: Sequence[float], deadband: float) -> list[float]:
    return [limit - deadband for limit in limits]


# Limits


def detect_limits(sensor: Sensor, row: SimpleNamespace, v: float, dt_ms: int) -> None:
    """Run the eight latches; a reading confirms what its timers say."""
    for k in range(N_LEVELS):
        _run_latch(
            sensor,
            sensor.high[k],
            row,
            k,
            dt_ms,
            beyond=v >= row.high[k],
            inside=v < row.high[k] - row.deadband,
        )
        _run_latch(
            sensor,
            sensor.low[k],
            row,
            k,
            dt_ms,
            beyond=v <= row.low[k],
            inside=v > row.low[k] + row.deadband,
        )
    set_limit_levels(sensor, v)


def _run_latch(
    sensor: Sensor,
    latch: Latch,
    row: SimpleNamespace,
    k: int,
    dt_ms: int,
    *,
    beyond: bool,
    inside: bool,
) -> None:
    wants_to_change = inside if latch.closed else beyond
    if not wants_to_change:
        latch.age_ms = None
        return
    latch.age_ms = 0 if latch.age_ms is None else older_by(latch.age_ms, dt_ms)
    if latch.closed:
        may_open = sensor.acknowledged or not row.latching
        if latch.age_ms >= row.off_ms[k] and may_open:
            latch.closed, latch.age_ms = False, None
    elif latch.age_ms >= row.on_ms[k]:
        latch.closed, latch.age_ms = True, None


def set_limit_levels(sensor: Sensor, v: float) -> None:
    """Read the two signals off the latches; a permission to let go ends with the last of them."""
    for kind, side in ((HIGH, sensor.high), (LOW, sensor.low)):
        sensor.level[kind] = max((k + 1 for k in range(N_LEVELS) if side[k].closed), default=0)
        sensor.statistic[kind] = v
    if not any(latch.closed for latch in sensor.high + sensor.low):
        sensor.acknowledged = False


def acknowledge_limits(sensor: Sensor, row: SimpleNamespace) -> None:
    """Open what was only waiting for the acknowledge, and let the rest go when its time is up."""
    if not row.latching:
        return
    sensor.acknowledged = True
    for k in range(N_LEVELS):
        for latch in (sensor.high[k], sensor.low[k]):
            if latch.closed and latch.age_ms is not None and latch.age_ms >= row.off_ms[k]:
                latch.closed, latch.age_ms = False, None
    set_limit_levels(sensor, sensor.newest_good())


# Rate


def detect_rate(sensor: Sensor, row: SimpleNamespace, v: float) -> None:
    """Judge the change since the older anchor; its age has this reading's dt in it already.

    The anchors move after every other detector has seen the reading: see ``move_anchor``.
    """
    before = max(sensor.level[RISE], sensor.level[FALL])
    if sensor.older_age_ms < row.half_ms:
        sensor.level[RISE] = sensor.level[FALL] = sensor.n_rate = 0
        return
    rate = ((v - sensor.anchor) - sensor.older) / sensor.older_age_ms
    beyond = rate >= min(row.rise) or -rate >= min(row.fall)
    sensor.n_rate = min(sensor.n_rate + 1, MAX_RUN) if beyond else 0
    if before == 0 and sensor.n_rate < row.rate_confirm_n:
        return
    for kind, statistic, limits in ((RISE, rate, row.rise), (FALL, -rate, row.fall)):
        sensor.level[kind] = ladder(
            statistic, limits, _below(limits, row.rate_deadband), sensor.level[kind]
        )
        sensor.statistic[kind] = rate


def move_anchor(sensor: Sensor, row: SimpleNamespace, v: float) -> None:
    """Once the newer anchor is half a window old it becomes the older one, and v the newer."""
    if sensor.anchor_age_ms < row.half_ms:
        return
    shift = sensor.anchor - v
    sensor.older = f32(shift)
    sensor.mean = f32(sensor.mean + shift)
    sensor.last = 0.0
    sensor.anchor = v
    sensor.older_age_ms, sensor.anchor_age_ms = sensor.anchor_age_ms, 0


# Deviation and drift


def detect_deviation(sensor: Sensor, row: SimpleNamespace, v: float, t: int) -> None:
    """Compare the residual with its usual size, let drift sum it up, then learn from it."""
    if row.season_bins:
        bin_ = sensor.bins[
            (t + row.utc_offset_ms) % row.season_ms * row.season_bins // row.season_ms
        ]
        n, deviation = bin_.n, bin_.deviation
        # the first reading of a bin sets its mean, as the first reading of a sensor does
        r = v - bin_.mean if n else 0.0
    else:
        bin_ = None
        n, deviation = sensor.n, sensor.deviation
        r = (v - sensor.anchor) - sensor.mean
    s = max(deviation, row.min_deviation)
    warm = n >= row.warmup_n
    if warm:
        _judge_deviation(sensor, row, r, s, t)
        c = min(max(r, -row.clip * s), row.clip * s)
        detect_drift(sensor, row, c, s, t)
    else:
        sensor.level[DEVIATION] = sensor.level[DRIFT] = sensor.n_deviation = 0
        c = r
    alpha = row.alpha if n >= row.memory_n else 1.0 / (n + 1)
    _learn(sensor, bin_, row, v, c, alpha)


def _judge_deviation(sensor: Sensor, row: SimpleNamespace, r: float, s: float, t: int) -> None:
    raise_at = [z * s for z in row.z]
    keep_at = [(z - row.z_deadband) * s for z in row.z]
    beyond = abs(r) >= min(raise_at)
    sensor.n_deviation = min(sensor.n_deviation + 1, MAX_RUN) if beyond else 0
    before = sensor.level[DEVIATION]
    if before == 0 and sensor.n_deviation < row.deviation_confirm_n:
        return
    rise_outside_refractory(sensor, row, DEVIATION, ladder(abs(r), raise_at, keep_at, before), t)
    sensor.statistic[DEVIATION] = r / s


def detect_drift(sensor: Sensor, row: SimpleNamespace, c: float, s: float, t: int) -> None:
    """Sum the clipped residual to both sides, less an allowance, between 0 and a cap."""
    cap = row.drift_cap * s
    sensor.above = f32(min(cap, max(0.0, sensor.above + c - row.allowance * s)))
    sensor.below = f32(min(cap, max(0.0, sensor.below - c - row.allowance * s)))
    upward = sensor.above >= sensor.below
    larger = sensor.above if upward else sensor.below
    level = ladder(
        larger,
        [limit * s for limit in row.drift],
        [(limit - row.drift_deadband) * s for limit in row.drift],
        sensor.level[DRIFT],
    )
    rise_outside_refractory(sensor, row, DRIFT, level, t)
    sensor.statistic[DRIFT] = (larger if upward else -larger) / s


def _learn(
    sensor: Sensor, bin_: Bin | None, row: SimpleNamespace, v: float, c: float, alpha: float
) -> None:
    if bin_ is None:
        sensor.mean = f32(sensor.mean + alpha * c)
        sensor.deviation = f32(sensor.deviation + alpha * (abs(c) - sensor.deviation))
    else:
        bin_.mean = bin_.mean + alpha * c if bin_.n else v
        bin_.deviation = f32(bin_.deviation + alpha * (abs(c) - bin_.deviation))
        bin_.n = min(bin_.n + 1, row.memory_n)
    sensor.n = min(sensor.n + 1, row.memory_n)


def rise_outside_refractory(
    sensor: Sensor, row: SimpleNamespace, kind: int, level: int, t: int
) -> None:
    """Let an anomaly rise from 0 only when no refractory time runs; a rise starts one."""
    if level > 0 and sensor.level[kind] == 0:
        if sensor.calm:
            return
        sensor.refractory_until_s = (t + row.refractory_ms) // 1000
    sensor.level[kind] = level


# Windows


def detect_windows(
    sensor: Sensor, windows: Sequence[SimpleNamespace], v: float, t: int, *, judge: bool
) -> None:
    """Put a reading into the pane of its time; a reading that is not backward judges as well."""
    for window, params in zip(sensor.windows, windows, strict=True):
        _enter_pane(window, params, v, t)
        if judge:
            _judge_window(window, params)
    if judge and windows:
        levels = [max(window.level_high, window.level_low) for window in sensor.windows]
        sensor.level[WINDOW] = max(levels)
        sensor.window = levels.index(max(levels))
        sensor.statistic[WINDOW] = sensor.windows[sensor.window].aggregate


def _enter_pane(window: Window, params: SimpleNamespace, v: float, t: int) -> None:
    """Panes go by their number since the epoch; each holds what any aggregate could ask."""
    number = t // params.pane_ms
    if number > window.newest:
        window.place = (window.place + min(number - window.newest, N_PANES)) % N_PANES
        window.newest = number
    oldest = window.newest - params.n_panes + 1
    window.panes = {p: pane for p, pane in window.panes.items() if p >= oldest}
    if number < oldest or (number in window.panes and window.panes[number].count == MAX_PANE_N):
        return
    if abs(v - window.reference) > 1 + N_PANES * abs(window.reference):
        _refer(window, v)
    _enter(window.panes.setdefault(number, Pane()), v - window.reference)


def _refer(window: Window, v: float) -> None:
    """Move the reference to where the signal is; what the panes hold moves along."""
    moved = window.reference - f32(v)
    window.reference = f32(v)
    for pane in window.panes.values():
        pane.total = f32(pane.total + pane.count * moved)
        pane.mean = f32(pane.mean + moved)
        pane.low = f32(pane.low + moved)
        pane.high = f32(pane.high + moved)


def _enter(pane: Pane, x: float) -> None:
    """Take one value, relative to the reference."""
    before = pane.mean if pane.count else x
    pane.count += 1
    pane.total = f32(pane.total + x)
    pane.mean = f32(before + (x - before) / pane.count)
    pane.m2 = f32(pane.m2 + (x - before) * (x - pane.mean))  # Welford 1962
    pane.low = min(pane.low, f32_down(x))
    pane.high = max(pane.high, f32_up(x))


def _judge_window(window: Window, params: SimpleNamespace) -> None:
    places = {(window.place - window.newest + p) % N_PANES: p for p in window.panes}
    panes = [window.panes[places[place]] for place in sorted(places)]
    n = sum(pane.count for pane in panes)
    total = added_up(pane.total for pane in panes)
    mean = added_up(pane.count * pane.mean for pane in panes) / n
    # Chan, Golub & LeVeque 1982, for all panes at once
    m2 = added_up(
        pane.m2 + pane.count * ((pane.mean - mean) * (pane.mean - mean)) for pane in panes
    )
    low, high = min(pane.low for pane in panes), max(pane.high for pane in panes)
    window.aggregate = {
        MEAN: window.reference + total / n,
        MINIMUM: window.reference + low,
        MAXIMUM: window.reference + high,
        STD: math.sqrt(m2 / n),
        RANGE: high - low,
        SUM: window.reference * n + total,
        COUNT: float(n),
    }[params.aggregate]
    if n < params.min_n:
        window.level_high = window.level_low = 0
        return
    window.level_high = ladder(
        window.aggregate, params.high, _below(params.high, params.deadband), window.level_high
    )
    window.level_low = ladder(  # low limits come negated
        -window.aggregate, params.low, _below(params.low, params.deadband), window.level_low
    )


# Liveness (absence is the tick's: see Sensor.go_absent)


def detect_flatline(sensor: Sensor, row: SimpleNamespace, v: float) -> None:
    """Count consecutive readings that repeat the value before them."""
    repeats = sensor.last is not None and f32(v - sensor.anchor) == sensor.last
    sensor.n_flat = min(sensor.n_flat + 1, MAX_COUNT) if repeats else 0
    flat = row.flat_after_n > 0 and sensor.n_flat >= row.flat_after_n
    sensor.level[FLATLINE] = row.flat_level if flat else 0
    sensor.statistic[FLATLINE] = float(sensor.n_flat)


def detect_spike(sensor: Sensor, row: SimpleNamespace, v: float, t: int) -> None:
    """Flag one reading that jumps from the good one before it."""
    jump = 0.0 if sensor.last is None else abs((v - sensor.anchor) - sensor.last)
    spikes = sensor.last is not None and jump >= row.spike_at
    rise_outside_refractory(sensor, row, SPIKE, row.spike_level if spikes else 0, t)
    sensor.statistic[SPIKE] = jump


def detect_bad(sensor: Sensor, row: SimpleNamespace) -> None:
    """Count a bad reading; a run of them is a signal."""
    sensor.n_bad = min(sensor.n_bad + 1, MAX_RUN)
    if row.bad_after_n > 0 and sensor.n_bad >= row.bad_after_n:
        sensor.level[BAD] = row.bad_level
    sensor.statistic[BAD] = float(sensor.n_bad)

"""Judging one sensor: a reading's statistics against every latch and ladder, and the change.

Visited only while a limit is reached or a signal is up.

Oracle   tests.oracle
"""

import numpy as np

from kernels.jit import step
from kernels.ladder import climb
from kernels.layout import (
    ABSENCE,
    BAD,
    DEVIATION,
    DRIFT,
    FALL,
    FLAG_ABSENT,
    FLAG_ACTIVE,
    FLATLINE,
    HIGH,
    LOW,
    RISE,
    SPIKE,
    WINDOW,
)
from kernels.limits import acknowledge_limits, age_limits, step_limits
from kernels.pack import level_of, strongest, with_level
from kernels.rate import rate_level


@step
def emit(levels, value, sensor, kind, window, position, t_ms, late, c, changes, n):
    """Hand the sensor's new signals to fusion."""
    c.levels = levels
    change = changes[n]
    change.position = position
    change.event_ms = t_ms
    change.value = value
    change.levels = levels
    change.sensor = sensor
    change.which = kind << 4 | (window if kind == WINDOW else 0)
    change.late = late
    return n + 1


@step
def settle(h, c):
    """Keep the sensor active exactly while anything of COLD is in use."""
    busy = c.levels != 0 or h.latched or h.pending or c.n_rate or c.n_deviation
    h.flags = h.flags | FLAG_ACTIVE if busy else h.flags & ~FLAG_ACTIVE & 0xFF


@step
def judge(reading, h, c, p, changes, n):
    """Hold one good reading's statistics against every latch and ladder of its sensor."""
    before = c.levels
    high, low = step_limits(reading.v, reading.dt_ms, h, c, p)
    levels = with_level(with_level(before, ABSENCE, 0), BAD, 0)
    levels = with_level(with_level(levels, HIGH, high), LOW, low)
    levels = with_level(levels, WINDOW, reading.window_level)
    levels = judge_rate(reading.rate, levels, c, p)
    levels = judge_anomaly(reading, levels, h, c, p)
    flat = p.flat_level if p.flat_after_n and h.n_flat >= p.flat_after_n else 0
    levels = with_level(levels, FLATLINE, flat)
    if levels != before:
        kind, _ = strongest(levels, p.percent)
        value = explaining_value(kind, reading, h)
        n = emit(
            levels, value, np.int64(reading.sensor), kind, np.int64(reading.window),
            reading.position, reading.event_ms, np.int64(reading.late), c, changes, n,
        )  # fmt: skip
    settle(h, c)
    return n


@step
def judge_bad(sensor, position, t_ms, dt_ms, late, h, c, p, changes, n):
    """Judge a bad reading that ``h.n_bad`` counts: the sensor lives, its timers run on."""
    if h.pending:
        age_limits(dt_ms, h, c)
    levels = with_level(c.levels, ABSENCE, 0)
    if p.bad_after_n and h.n_bad >= p.bad_after_n:
        levels = with_level(levels, BAD, p.bad_level)
    if levels != c.levels:
        kind, _ = strongest(levels, p.percent)
        value = np.float64(h.n_bad) if kind == BAD else remembered_value(kind, h)
        n = emit(levels, value, sensor, kind, np.int64(0), position, t_ms, late, c, changes, n)
    settle(h, c)
    return n


@step
def judge_silence(sensor, position, deadline_ms, absent_ms, h, c, p, changes, n):
    """Raise the absence of a sensor of which nothing came until its deadline."""
    h.flags |= FLAG_ABSENT | FLAG_ACTIVE
    levels = with_level(c.levels, ABSENCE, p.absence_level)
    kind, _ = strongest(levels, p.percent)
    value = absent_ms / 1000.0 if kind == ABSENCE else remembered_value(kind, h)
    zero = np.int64(0)
    return emit(levels, value, sensor, kind, zero, position, deadline_ms, zero, c, changes, n)


@step
def judge_acknowledge(sensor, position, t_ms, h, c, p, changes, n):
    """Let the latching limits of one sensor go."""
    if not p.latching or not h.latched:
        return n
    high, low = acknowledge_limits(h, c, p)
    levels = with_level(with_level(c.levels, HIGH, high), LOW, low)
    if levels != c.levels:
        kind, _ = strongest(levels, p.percent)
        value = remembered_value(kind, h)
        zero = np.int64(0)
        n = emit(levels, value, sensor, kind, zero, position, t_ms, zero, c, changes, n)
    settle(h, c)
    return n


@step
def remembered_value(kind, hot):
    """Return what a signal that no new reading measured compares with its limit, or NaN."""
    return hot.anchor + hot.last if kind == HIGH or kind == LOW else np.nan


@step
def judge_rate(rate, levels, c, p):
    """Return the packed levels with those of rise and fall."""
    calm = np.int64(0)
    reached = climb(rate, p.rise, 1.0, 0.0, calm) + climb(-rate, p.fall, 1.0, 0.0, calm) > 0
    c.n_rate = min(np.int64(c.n_rate) + 1, 255) if reached else 0
    rise = level_of(levels, RISE)
    fall = level_of(levels, FALL)
    confirmed = rise + fall > 0 or c.n_rate >= p.rate_confirm_n
    levels = with_level(levels, RISE, rate_level(rate, p.rise, p.rate_deadband, rise, confirmed))
    return with_level(levels, FALL, rate_level(-rate, p.fall, p.rate_deadband, fall, confirmed))


@step
def judge_anomaly(reading, levels, h, c, p):
    """Return the packed levels with deviation, drift and spike, under one refractory time."""
    calm = reading.event_ms // 1000 < h.detected_s
    r = abs(reading.residual)
    reached = reading.warm and r >= p.quiet_deviation * reading.scale
    c.n_deviation = min(np.int64(c.n_deviation) + 1, 255) if reached else 0
    old = level_of(levels, DEVIATION)
    deviation = 0
    if reading.warm and (old or (c.n_deviation >= p.deviation_confirm_n and not calm)):
        deviation = climb(r, p.z, reading.scale, p.z_deadband, old)
    rises = deviation > 0 and old == 0
    old = level_of(levels, DRIFT)
    drift = 0
    if reading.warm and (old or not calm):
        total = np.float64(max(h.above, h.below))
        drift = climb(total, p.drift, reading.scale, p.drift_deadband, old)
    rises = rises or (drift > 0 and old == 0)
    old = level_of(levels, SPIKE)
    spike = 0
    if reading.jump >= p.spike_at and (old or not calm):
        spike = np.int64(p.spike_level)
    rises = rises or (spike > 0 and old == 0)
    if rises:
        h.detected_s = (reading.event_ms + p.refractory_ms) // 1000
    levels = with_level(with_level(levels, DEVIATION, deviation), DRIFT, drift)
    return with_level(levels, SPIKE, spike)


@step
def explaining_value(kind, reading, h):
    """Return what a signal of that kind compared with its limit."""
    if kind == RISE or kind == FALL:
        return reading.rate
    if kind == WINDOW:
        return reading.window_value
    if kind == DEVIATION:
        return reading.residual / reading.scale
    if kind == DRIFT:
        total = h.above if h.above >= h.below else -h.below
        return total / reading.scale
    if kind == FLATLINE:
        return float(h.n_flat)
    if kind == SPIKE:
        return reading.jump
    return reading.v

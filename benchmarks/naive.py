"""What an expert would write first: one Numba loop, one array a field, every detector in turn.

The same detectors with the same meaning as `kernels/README.md`, written plainly: float64
throughout, each latch and ladder looked at for each reading, no packed records, no prefetching, no
quiet path. It is here to be compared with, in results first and then in speed. It takes readings
only: ticks, and so absence, acknowledgements and seasons are left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from engine.plan import Plan
from engine.readings import Readings
from kernels.layout import (
    ACCEPTED,
    BACKWARD,
    BAD,
    BAD_QUALITY,
    DEVIATION,
    DRIFT,
    DUPLICATE,
    FALL,
    FLATLINE,
    HIGH,
    LATE,
    LOW,
    MAX_EVENT_MS,
    MEAN,
    N_COUNTS,
    N_LEVELS,
    NEVER,
    NOT_FINITE,
    OUT_OF_RANGE,
    RISE,
    SPIKE,
    TIME_AHEAD,
    TIME_OUT_OF_BOUNDS,
    TIME_TOO_LATE,
    UNKNOWN_SENSOR,
    WINDOW,
)

Array = np.ndarray[Any, Any]

# Without _nrt, Numba counts references of every array that it takes out of a tuple: 1,700 ns a
# reading instead of 320, which would make us look better than we are.
_POLICY: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
compiled = numba.njit(**_POLICY)
inlined = numba.njit(**_POLICY, forceinline=True)


class Sensors(NamedTuple):
    """State, one array a field: (S,), (S, 4) a level, or (S, panes)."""

    profile: Array
    last_ms: Array
    last: Array
    n: Array
    n_flat: Array
    n_bad: Array
    high_closed: Array
    high_since_ms: Array
    low_closed: Array
    low_since_ms: Array
    older: Array
    older_ms: Array
    anchor: Array
    anchor_ms: Array
    n_rate: Array
    mean: Array
    deviation: Array
    n_deviation: Array
    above: Array
    below: Array
    quiet_until_s: Array
    pane: Array
    pane_n: Array
    pane_sum: Array
    window_high: Array
    window_low: Array
    levels: Array


def allocate(plan: Plan) -> Sensors:
    """Return the state of every sensor before its first reading."""
    n = plan.catalog.n_sensors
    n_panes = int(plan.window_params["n_panes"][0]) if len(plan.window_params) else 0

    def column(dtype: type, fill: float = 0, width: int | None = None) -> Array:
        return np.full(n if width is None else (n, width), fill, dtype)

    fields: dict[str, Array] = {name: column(np.float64) for name in Sensors._fields}
    for name in ("n", "n_flat", "n_bad", "n_rate", "n_deviation", "window_high", "window_low"):
        fields[name] = column(np.int32)
    for name in ("last_ms", "older_ms", "anchor_ms", "quiet_until_s", "pane", "levels"):
        fields[name] = column(np.int64, NEVER if name == "last_ms" else 0)
    for side in ("high", "low"):
        fields[f"{side}_closed"] = column(np.bool_, False, N_LEVELS)
        fields[f"{side}_since_ms"] = column(np.int64, NEVER, N_LEVELS)
    fields["pane_n"] = column(np.int64, 0, n_panes)
    fields["pane_sum"] = column(np.float64, 0, n_panes)
    fields["profile"] = plan.row.astype(np.int32)
    return Sensors(**fields)


_SCALARS = (
    "scale", "offset", "range_low", "range_high", "deadband", "half_ms", "rate_deadband",
    "rate_confirm_n", "memory_n", "warmup_n", "min_deviation", "clip", "z_deadband",
    "deviation_confirm_n", "allowance", "drift_cap", "drift_deadband", "refractory_ms",
    "flat_after_n", "flat_level", "bad_after_n", "bad_level", "spike_at", "spike_level", "latching",
)  # fmt: skip
_LADDERS = ("high", "low", "on_ms", "off_ms", "rise", "fall", "z", "drift")

Profiles = NamedTuple("Profiles", [(name, Array) for name in (*_SCALARS, *_LADDERS)])  # type: ignore[misc]
Profiles.__doc__ = "Parameters, one array a field: (P,) and (P, 4)."


class Window(NamedTuple):
    """The one window, a mean, that the loop can keep; `n_panes` of 0: none."""

    pane_ms: int
    n_panes: int
    min_n: int
    high: Array
    low: Array
    deadband: float


def profiles_of(plan: Plan) -> Profiles:
    """Return the plan's parameters as arrays of their own."""
    rows = plan.params
    if rows["latching"].any() or rows["season_bins"].any():
        raise ValueError("the naive loop has neither latching limits nor seasons")
    return Profiles(*(rows[name].copy() for name in (*_SCALARS, *_LADDERS)))


def window_of(plan: Plan) -> Window:
    """Return the plan's only window, or one without panes."""
    if not len(plan.window_params):
        none = np.full((1, N_LEVELS), np.inf)
        return Window(1, 0, 1, none, none, 0.0)
    (window,) = plan.window_params
    if window["aggregate"] != MEAN:
        raise ValueError("the naive loop has windows of means only")
    return Window(
        int(window["pane_ms"]), int(window["n_panes"]), int(window["min_n"]),
        window["high"].reshape(1, -1), window["low"].reshape(1, -1), float(window["deadband"]),
    )  # fmt: skip


@inlined
def climb(statistic, limits, p, scale, deadband, previous):
    """Return the level of a statistic on one row of limits, the previous one held by deadband."""
    level = 0
    for k in range(N_LEVELS):
        limit = limits[p, k] - deadband if k < previous else limits[p, k]
        if statistic >= limit * scale:
            level = k + 1
    return level


@inlined
def turn_latch(s, k, turning, delay_ms, t_ms, closed, since_ms):
    """Turn one latch where its condition has held for its delay; return whether it is closed."""
    if not turning:
        since_ms[s, k] = NEVER
    else:
        if since_ms[s, k] == NEVER:
            since_ms[s, k] = t_ms
        if t_ms - since_ms[s, k] >= delay_ms:
            closed[s, k] = not closed[s, k]
            since_ms[s, k] = NEVER
    return closed[s, k]


@inlined
def enter_window(s, t_ms, v, window, sensors):
    """Take one value into the pane of its event time."""
    pane = t_ms // window.pane_ms
    newest = sensors.pane[s]
    if pane <= newest - window.n_panes:
        return
    if pane > newest:
        for fresh in range(max(newest + 1, pane - window.n_panes + 1), pane + 1):
            sensors.pane_n[s, fresh % window.n_panes] = 0
            sensors.pane_sum[s, fresh % window.n_panes] = 0.0
        sensors.pane[s] = pane
    sensors.pane_n[s, pane % window.n_panes] += 1
    sensors.pane_sum[s, pane % window.n_panes] += v


@inlined
def judge_window(s, window, sensors):
    """Return the level of the window's mean."""
    n = 0
    total = 0.0
    for k in range(window.n_panes):
        n += sensors.pane_n[s, k]
        total += sensors.pane_sum[s, k]
    if n < window.min_n:
        sensors.window_high[s] = 0
        sensors.window_low[s] = 0
        return 0
    mean = total / n
    high = climb(mean, window.high, 0, 1.0, window.deadband, sensors.window_high[s])
    low = climb(-mean, window.low, 0, 1.0, window.deadband, sensors.window_low[s])
    sensors.window_high[s] = high
    sensors.window_low[s] = low
    return max(high, low)


@inlined
def level_of(levels, kind):
    """Return the level of one kind from the packed levels."""
    return levels >> (3 * kind) & 7


@inlined
def judge_limits(s, v, t_ms, p, sensors, profiles):
    """Return the packed levels of the high and the low limits."""
    high = 0
    low = 0
    deadband = profiles.deadband[p]
    for k in range(N_LEVELS):
        limit = profiles.high[p, k]
        closed = sensors.high_closed[s, k]
        turning = v < limit - deadband if closed else v >= limit
        delay_ms = profiles.off_ms[p, k] if closed else profiles.on_ms[p, k]
        if turn_latch(s, k, turning, delay_ms, t_ms, sensors.high_closed, sensors.high_since_ms):
            high = k + 1
    for k in range(N_LEVELS):
        limit = profiles.low[p, k]
        closed = sensors.low_closed[s, k]
        turning = v > limit + deadband if closed else v <= limit
        delay_ms = profiles.off_ms[p, k] if closed else profiles.on_ms[p, k]
        if turn_latch(s, k, turning, delay_ms, t_ms, sensors.low_closed, sensors.low_since_ms):
            low = k + 1
    return high << 3 * HIGH | low << 3 * LOW


@inlined
def judge_rate(s, v, t_ms, p, before, sensors, profiles):
    """Return the packed levels of rise and fall, and move the anchors along."""
    if sensors.n[s] == 0:
        sensors.older[s] = v
        sensors.older_ms[s] = t_ms
        sensors.anchor[s] = v
        sensors.anchor_ms[s] = t_ms
    rate = 0.0
    age_ms = t_ms - sensors.older_ms[s]
    if age_ms >= profiles.half_ms[p]:
        rate = (v - sensors.older[s]) / age_ms
    if t_ms - sensors.anchor_ms[s] >= profiles.half_ms[p]:
        sensors.older[s] = sensors.anchor[s]
        sensors.older_ms[s] = sensors.anchor_ms[s]
        sensors.anchor[s] = v
        sensors.anchor_ms[s] = t_ms
    old_rise = level_of(before, RISE)
    old_fall = level_of(before, FALL)
    deadband = profiles.rate_deadband[p]
    reached = climb(rate, profiles.rise, p, 1.0, 0.0, 0) > 0
    reached = reached or climb(-rate, profiles.fall, p, 1.0, 0.0, 0) > 0
    sensors.n_rate[s] = min(sensors.n_rate[s] + 1, 255) if reached else 0
    confirmed = old_rise + old_fall > 0 or sensors.n_rate[s] >= profiles.rate_confirm_n[p]
    rise = 0
    fall = 0
    if old_rise > 0 or confirmed:
        rise = climb(rate, profiles.rise, p, 1.0, deadband, old_rise)
    if old_fall > 0 or confirmed:
        fall = climb(-rate, profiles.fall, p, 1.0, deadband, old_fall)
    return rise << 3 * RISE | fall << 3 * FALL


@inlined
def judge_anomaly(s, v, t_ms, p, jump, before, sensors, profiles):
    """Return the packed levels of deviation, drift and spike, and learn the value."""
    n = sensors.n[s]
    if n == 0:
        sensors.mean[s] = v
    r = v - sensors.mean[s]
    scale = max(sensors.deviation[s], profiles.min_deviation[p])
    warm = n >= profiles.warmup_n[p]
    clip = profiles.clip[p] * scale
    c = min(max(r, -clip), clip) if warm else r
    n = min(n + 1, profiles.memory_n[p])
    sensors.n[s] = n
    sensors.mean[s] += c / n
    sensors.deviation[s] += (abs(c) - sensors.deviation[s]) / n
    calm = t_ms // 1000 < sensors.quiet_until_s[s]
    old_deviation = level_of(before, DEVIATION)
    old_drift = level_of(before, DRIFT)
    deviation = 0
    drift = 0
    reached = warm and climb(abs(r), profiles.z, p, scale, 0.0, 0) > 0
    sensors.n_deviation[s] = min(sensors.n_deviation[s] + 1, 255) if reached else 0
    if warm:
        cap = profiles.drift_cap[p] * scale
        allowance = profiles.allowance[p] * scale
        sensors.above[s] = min(cap, max(0.0, sensors.above[s] + c - allowance))
        sensors.below[s] = min(cap, max(0.0, sensors.below[s] - c - allowance))
        confirmed = sensors.n_deviation[s] >= profiles.deviation_confirm_n[p]
        if old_deviation or (confirmed and not calm):
            deviation = climb(abs(r), profiles.z, p, scale, profiles.z_deadband[p], old_deviation)
        if old_drift or not calm:
            total = max(sensors.above[s], sensors.below[s])
            drift = climb(total, profiles.drift, p, scale, profiles.drift_deadband[p], old_drift)
    old_spike = level_of(before, SPIKE)
    beyond = jump >= profiles.spike_at[p] and (old_spike or not calm)
    spike = np.int64(profiles.spike_level[p]) if beyond else 0
    if (
        (deviation and not old_deviation)
        or (drift and not old_drift)
        or (spike and not old_spike)
    ):  # fmt: skip
        sensors.quiet_until_s[s] = (t_ms + profiles.refractory_ms[p]) // 1000
    return deviation << 3 * DEVIATION | drift << 3 * DRIFT | spike << 3 * SPIKE


@inlined
def judge(s, v, t_ms, p, before, profiles, window, sensors):
    """Run every detector over one good reading; return the packed levels."""
    seen = sensors.n[s] > 0
    jump = abs(v - sensors.last[s]) if seen else 0.0
    same = seen and v == sensors.last[s]
    sensors.n_flat[s] = min(sensors.n_flat[s] + 1, 65_535) if same else 0
    sensors.last[s] = v
    sensors.last_ms[s] = t_ms
    sensors.n_bad[s] = 0
    levels = judge_limits(s, v, t_ms, p, sensors, profiles)
    levels |= judge_rate(s, v, t_ms, p, before, sensors, profiles)
    levels |= judge_anomaly(s, v, t_ms, p, jump, before, sensors, profiles)
    if profiles.flat_after_n[p] and sensors.n_flat[s] >= profiles.flat_after_n[p]:
        levels |= np.int64(profiles.flat_level[p]) << 3 * FLATLINE
    if window.n_panes:
        enter_window(s, t_ms, v, window, sensors)
        levels |= judge_window(s, window, sensors) << 3 * WINDOW
    return levels


@inlined
def judge_bad(s, t_ms, p, before, profiles, sensors):
    """Count one bad reading in a row; return the packed levels."""
    sensors.last_ms[s] = t_ms
    sensors.n_bad[s] = min(sensors.n_bad[s] + 1, 255)
    if profiles.bad_after_n[p] and sensors.n_bad[s] >= profiles.bad_after_n[p]:
        return before & ~(7 << 3 * BAD) | np.int64(profiles.bad_level[p]) << 3 * BAD
    return before


@inlined
def refused(t_ms, watermark_ms, max_ahead_ms, max_late_ms):
    """Return why an event time is refused, ACCEPTED if it is not."""
    if t_ms < 0 or t_ms >= MAX_EVENT_MS:
        return TIME_OUT_OF_BOUNDS
    if watermark_ms == NEVER:
        return ACCEPTED
    if t_ms - watermark_ms > max_ahead_ms:
        return TIME_AHEAD
    return TIME_TOO_LATE if watermark_ms - t_ms > max_late_ms else ACCEPTED


@inlined
def badness(quality, v, p, profiles):
    """Return why a value is bad, ACCEPTED if it is not."""
    if quality != 0:
        return BAD_QUALITY
    if not np.isfinite(v):
        return NOT_FINITE
    in_range = profiles.range_low[p] <= v <= profiles.range_high[p]
    return ACCEPTED if in_range else OUT_OF_RANGE


@compiled
def detect(
    sensor, event_ms, value, quality, times_ms, profiles, window, sensors, clock, counts, changes
):
    """Run every detector over a batch; return how many of `changes` were written.

    times_ms (late_after, max_ahead, max_late); clock (2,) int64 position and watermark;
    changes (R, 3) int64: position, sensor, packed levels.
    """
    late_after_ms, max_ahead_ms, max_late_ms = times_ms
    n_changes = 0
    for i in range(len(sensor)):
        position = clock[0]
        clock[0] += 1
        s = sensor[i]
        t_ms = event_ms[i]
        if s < 0 or s >= len(sensors.last_ms):
            counts[UNKNOWN_SENSOR] += 1
            continue
        why = refused(t_ms, clock[1], max_ahead_ms, max_late_ms)
        if why != ACCEPTED:
            counts[why] += 1
            continue
        clock[1] = max(clock[1], t_ms)
        if clock[1] - t_ms > late_after_ms:
            counts[LATE] += 1
        p = sensors.profile[s]
        v = value[i] * profiles.scale[p] + profiles.offset[p]
        why = badness(quality[i], v, p, profiles)
        before = sensors.levels[s]
        if sensors.last_ms[s] != NEVER and t_ms < sensors.last_ms[s]:
            counts[BACKWARD] += 1
            if why == ACCEPTED and window.n_panes:
                enter_window(s, t_ms, v, window, sensors)
            continue
        if why != ACCEPTED:
            counts[why] += 1
            levels = judge_bad(s, t_ms, p, before, profiles, sensors)
        else:
            if sensors.n[s] > 0 and t_ms == sensors.last_ms[s] and v == sensors.last[s]:
                counts[DUPLICATE] += 1
                continue
            counts[ACCEPTED] += 1
            levels = judge(s, v, t_ms, p, before, profiles, window, sensors)
        if levels != before:
            sensors.levels[s] = levels
            changes[n_changes, 0] = position
            changes[n_changes, 1] = s
            changes[n_changes, 2] = levels
            n_changes += 1
    return n_changes


class NaiveLine:
    """The naive loop over a plan, fed batch by batch."""

    def __init__(self, plan: Plan) -> None:
        self.profiles, self.window = profiles_of(plan), window_of(plan)
        self.sensors = allocate(plan)
        self.times_ms = (plan.late_after_ms, plan.max_ahead_ms, plan.max_late_ms)
        self.clock = np.array([0, NEVER], np.int64)
        self.counts = np.zeros(N_COUNTS, np.int64)
        self._changes = np.zeros((0, 3), np.int64)

    def detect(self, readings: Readings) -> Array:
        """Return (n, 3) position, sensor, packed levels, valid until the next call."""
        if len(self._changes) < len(readings):
            self._changes = np.zeros((len(readings), 3), np.int64)
        n = detect(
            readings.sensor, readings.event_ms, readings.value, readings.quality, self.times_ms,
            self.profiles, self.window, self.sensors, self.clock, self.counts, self._changes,
        )  # fmt: skip
        return self._changes[:n]

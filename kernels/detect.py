"""The detection loop: every record of the log in order, every detector of its sensor in one visit.

The loop touches one prefetched cache line a reading. As long as nothing is going on it compares
with the lowest limit of each detector and moves on; the rest (latches, ladders, deadbands, the
packed signals) is ``judge``, visited only while a limit is reached or a signal is up.

Kernel   detect(log columns, where to begin, shard, limits of time, plan, state, changes)
Cost     O(1) a reading, allocates nothing
Source   kernels/README.md is the definition
Oracle   tests.oracle
"""

import numpy as np

from kernels.control import ROOM, take_control
from kernels.deviation import clipped, learning_rate, season_bin
from kernels.drift import accumulate_drift
from kernels.jit import inlined, kernel, prefetch, step
from kernels.judge import emit, judge, settle
from kernels.layout import (
    ABSENCE,
    ACCEPTED,
    BACKWARD,
    BAD,
    BAD_QUALITY,
    DUPLICATE,
    FLAG_ABSENT,
    FLAG_ACTIVE,
    LATE,
    MAX_AGE_MS,
    MAX_EVENT_MS,
    NEVER,
    NOT_FINITE,
    OUT_OF_RANGE,
    TIME_AHEAD,
    TIME_OUT_OF_BOUNDS,
    TIME_TOO_LATE,
)
from kernels.limits import age_limits
from kernels.liveness import expect_reading, remembered_value
from kernels.pack import strongest, with_level
from kernels.rate import age_anchors, turn_anchors
from kernels.window import enter_window, judge_window

NEARLY = 1.0 - 1e-9
"""Quiet tests that avoid a division let a little more through to the exact test."""
PREFETCH = 16
"""Readings ahead at which a sensor's record is asked for: 8 to 24 measure alike at 1M sensors."""


@inlined
def refused(t_ms, watermark_ms, max_ahead_ms, max_late_ms):
    """Return why a reading's event time is refused, ACCEPTED if it is not."""
    if t_ms < 0 or t_ms >= MAX_EVENT_MS:
        return TIME_OUT_OF_BOUNDS
    if watermark_ms != NEVER:
        if t_ms - watermark_ms > max_ahead_ms:
            return TIME_AHEAD
        if watermark_ms - t_ms > max_late_ms:
            return TIME_TOO_LATE
    return ACCEPTED


@inlined
def badness(quality, v, p):
    """Return why a reading's value is bad, ACCEPTED if it is not."""
    if quality != 0:
        return BAD_QUALITY
    if not np.isfinite(v):
        return NOT_FINITE
    if not p.range_low <= v <= p.range_high:
        return OUT_OF_RANGE
    return ACCEPTED


@step
def take_bad(sensor, position, t_ms, dt_ms, late, h, c, p, changes, n):
    """Take a bad reading: the sensor lives, its timers run on, and nothing is confirmed."""
    h.last_ms = t_ms
    h.n_bad = min(np.int64(h.n_bad) + 1, 255)
    age_anchors(dt_ms, h)
    if h.pending:
        age_limits(dt_ms, h, c)
    levels = with_level(c.levels, ABSENCE, 0)
    if p.bad_after_n and h.n_bad >= p.bad_after_n:
        levels = with_level(levels, BAD, p.bad_level)
    if levels != c.levels:
        kind, _ = strongest(levels, p.percent)
        value = np.float64(h.n_bad) if kind == BAD else remembered_value(kind, h)
        n = emit(
            levels, value, np.int64(sensor), kind, np.int64(0), position, t_ms, late, c, changes, n
        )
    settle(h, c)
    return n


@inlined
def learn(x, v, h, b, p):
    """Learn one value; return (residual, scale, clipped residual, whether the baseline is warm).

    The baseline is the season's bin ``b`` where the profile is seasonal, else the running level.
    """
    if p.season_bins:
        if b.n == 0:
            b.mean = v
        r = v - b.mean
        s = max(np.float64(b.deviation), p.min_deviation)
        warm = b.n >= p.warmup_n
        c = clipped(r, p.clip * s) if warm else r
        n = min(np.int64(b.n) + 1, np.int64(p.memory_n))
        a = learning_rate(n, p.memory_n, p.alpha)
        b.n = n
        b.mean += a * c
        b.deviation += a * (abs(c) - b.deviation)
        h.n = 1
    else:
        r = x - h.mean
        s = max(np.float64(h.deviation), p.min_deviation)
        warm = h.n >= p.warmup_n
        c = clipped(r, p.clip * s) if warm else r
        n = min(np.int64(h.n) + 1, np.int64(p.memory_n))
        a = learning_rate(n, p.memory_n, p.alpha)
        h.n = n
        h.mean += a * c
        h.deviation += a * (abs(c) - h.deviation)
    return r, s, c, warm


@inlined
def observe(x, v, dt_ms, loud, h, b, p, reading):
    """Take one good reading into the sensor's state; return whether its ladders must be looked at.

    ``loud`` says that they must anyway, for a window.
    """
    last = np.float32(x)
    seen = h.n != 0
    jump = abs(x - h.last) if seen else 0.0
    n_flat = min(np.int64(h.n_flat) + 1, 65_535) if seen and last == h.last else 0
    h.n_flat = n_flat
    h.last = last
    # Bits, not branches: all but never true, and one test at the end.
    loud |= (
        (h.flags & FLAG_ACTIVE != 0)
        | (h.n_bad != 0)
        | (v >= p.quiet_high)
        | (v <= p.quiet_low)
        | (jump >= p.spike_at)
        | ((p.flat_after_n != 0) & (n_flat >= p.flat_after_n))
    )
    h.n_bad = 0

    since_ms = dt_ms if seen else 0
    anchor_age_ms = min(np.int64(h.anchor_age_ms) + since_ms, MAX_AGE_MS)
    older_age_ms = min(np.int64(h.older_age_ms) + since_ms, MAX_AGE_MS)
    h.anchor_age_ms = anchor_age_ms
    h.older_age_ms = older_age_ms
    moved = x - h.older
    rated = older_age_ms >= p.half_ms
    if rated:
        near = older_age_ms * NEARLY
        loud |= (moved >= p.quiet_rise * near) | (-moved >= p.quiet_fall * near)

    r, s, c, warm = learn(x, v, h, b, p)
    if warm:
        h.above = accumulate_drift(h.above, c, p.allowance * s, p.drift_cap * s)
        h.below = accumulate_drift(h.below, -c, p.allowance * s, p.drift_cap * s)
        loud |= (abs(r) >= p.quiet_deviation * s) | (max(h.above, h.below) >= p.quiet_drift * s)
    if anchor_age_ms >= p.half_ms:
        turn_anchors(v, x, h)
    if loud:
        reading.v = v
        reading.dt_ms = dt_ms
        reading.rate = moved / older_age_ms if rated else 0.0
        reading.residual = r
        reading.scale = s
        reading.warm = warm
        reading.jump = jump
    return loud


@inlined
def window_places(at, w, stride, more_start, n_sensors):
    """Return where a sensor's window ``w`` is: (in the rings, in the seconds, whether beside HOT).

    The first window of a sensor lies beside its HOT record, the others in arrays of their own.
    """
    if w == 0:
        return np.uint64(at * stride + 1), np.uint64(at), True
    more = more_start[np.uint64(at)] + w - 1
    return np.uint64(more), np.uint64(n_sensors + more), False


@inlined
def take_windows(t_ms, v, at, p, stride, rings, more, seconds, window_params, more_start, reading):
    """Take one value into the sensor's windows; return the highest level among them."""
    highest = 0
    reading.window = 0
    n_sensors = len(more_start) - 1
    for w in range(p.n_windows):
        place, second, beside = window_places(at, w, stride, more_start, n_sensors)
        ring = rings[place] if beside else more[place]
        rules = window_params[np.uint64(p.first_window + w)]
        enter_window(t_ms, v, ring, seconds[second], rules)
        if ring.loud | ring.level:
            level, statistic = judge_window(ring, seconds[second], rules)
            if level > highest:
                highest = level
                reading.window = w
                reading.window_value = statistic
    return highest


@inlined
def take_good(
    at, position, t_ms, dt_ms, v, late, first, h, c, p, shard_low, stride, absent_ms,
    window_params, more_start, season_start, rings, more, seconds, bins, block_due_ms, reading,
    changes, n,
):  # fmt: skip
    """Run every detector over one good reading; return (changes, what it counts as)."""
    if h.n == 0:
        # Nothing before it to compare with.
        h.anchor = v
        h.anchor_age_ms = 0
        h.older_age_ms = 0
    x = v - h.anchor
    if dt_ms == 0 and h.n != 0 and np.float32(x) == h.last:
        return n, DUPLICATE
    if first or h.flags & FLAG_ABSENT:
        h.flags &= ~FLAG_ABSENT & 0xFF
        expect_reading(at, shard_low, t_ms, absent_ms, block_due_ms)
    h.last_ms = t_ms
    window_level = 0
    if p.n_windows:
        window_level = take_windows(
            t_ms, v, np.int64(at), p, stride, rings, more, seconds, window_params, more_start,
            reading,
        )  # fmt: skip
    place = np.uint64(0)
    if p.season_bins:
        place = np.uint64(
            season_start[at] + season_bin(t_ms, p.utc_offset_ms, p.season_ms, p.season_bins)
        )
    if observe(x, v, dt_ms, window_level > 0, h, bins[place], p, reading):
        reading.window_level = window_level
        reading.event_ms = t_ms
        reading.position = position
        reading.sensor = at
        reading.late = late
        n = judge(reading, h, c, p, changes, n)
    return n, ACCEPTED


@step
def take_backward(t_ms, v, at, p, stride, rings, more, seconds, window_params, more_start):
    """Take a value older than the sensor's newest into its windows that still hold its pane."""
    n_sensors = len(more_start) - 1
    for w in range(p.n_windows):
        place, second, beside = window_places(at, w, stride, more_start, n_sensors)
        ring = rings[place] if beside else more[place]
        rules = window_params[np.uint64(p.first_window + w)]
        enter_window(t_ms, v, ring, seconds[second], rules)


@inlined
def ask_ahead(at, stride, sensor, hot):
    """Prefetch what a reading to come will touch: its sensor's record, and the window beside it."""
    ahead = sensor[at + np.uint64(PREFETCH)] * stride
    prefetch(hot, ahead, 0)
    if stride == 2:
        prefetch(hot, ahead, 64)


@kernel
def detect(sensor, event_ms, value, quality, start, shard, limits_ms, plan, state, changes):
    """Run every detector over the records from ``start`` on, until they or ``changes`` are used up.

    Shapes   R records, S sensors, W windows after a sensor's first, B season bins, N changes
    In       sensor (R,) int32, event_ms (R,) int64, value (R,) float64 in the sensor's unit,
             quality (R,) uint8
             shard      (first sensor, one past the last, 1 if it counts ticks and unknown
             sensors, lines of 64 bytes a sensor: 1, or 2 where a window lies beside HOT)
             limits_ms  (late_after, max_ahead, max_late)
             plan       (params, absent_ms (S,), window_params, where a sensor's windows after the
             first begin (S+1,), where its season bins begin (S+1,), sensor_start)
    In/out   state      (clock (1,), lines as HOT, cold (S,), lines as PANES, panes of the windows
             after the first, seconds (S+W,), bins (B,), block_due_ms, scratch reading (1,));
             bins has at least one record
    Out      changes (N,) CHANGE in the log's order; a tick ends as a change of no sensor
    Returns  (records consumed, changes written); fewer than asked for when changes are full
    Cost     O(1) a reading, allocates nothing
    """
    # Arrays are unpacked once, and indexed unsigned: no tuples, no negative indices in the loop.
    params, absent_ms, window_params, more_start, season_start, sensor_start = plan
    clocks, hot, cold, rings, more, seconds, bins, block_due_ms, readings = state
    shard_low, shard_high, _, stride = shard
    late_after_ms, max_ahead_ms, max_late_ms = limits_ms
    clock = clocks[0]
    counts = clock.counts
    reading = readings[0]
    watermark_ms = np.int64(clock.watermark_ms)
    before = np.int64(clock.position) - start
    n_accepted = 0
    n = np.int64(0)
    i = start
    while i < len(sensor) and n + ROOM < len(changes):
        at = np.uint64(i)
        if i + PREFETCH < len(sensor):
            ask_ahead(at, stride, sensor, hot)
        s = sensor[at]
        t_ms = event_ms[at]
        why = refused(t_ms, watermark_ms, max_ahead_ms, max_late_ms)
        if s < 0 or s >= len(cold):
            n, done = take_control(
                s, t_ms, value[at], why, before + i, shard, clock, hot, cold, params, absent_ms,
                sensor_start, block_due_ms, changes, n,
            )  # fmt: skip
            if not done:
                break
            watermark_ms = max(watermark_ms, clock.tick_ms)
            i += 1
            continue
        i += 1
        if why == ACCEPTED:
            watermark_ms = max(watermark_ms, t_ms)
        if s < shard_low or s >= shard_high:
            continue
        if why == ACCEPTED:
            s = np.uint64(s)
            h = hot[s * np.uint64(stride)]
            c = cold[s]
            p = params[np.uint64(h.row)]
            v = value[at] * p.scale + p.offset
            why = badness(quality[at], v, p)
            late = np.int64(watermark_ms - t_ms > late_after_ms)
            if late:
                counts[LATE] += 1
            first = h.last_ms == NEVER
            dt_ms = 0 if first else t_ms - h.last_ms
            position = before + np.int64(at)
            if dt_ms < 0:
                if why == ACCEPTED:
                    take_backward(
                        t_ms, v, np.int64(s), p, stride, rings, more, seconds, window_params,
                        more_start,
                    )  # fmt: skip
                why = BACKWARD
            elif why == ACCEPTED:
                n, why = take_good(
                    s, position, t_ms, dt_ms, v, late, first, h, c, p, shard_low, stride,
                    absent_ms, window_params, more_start, season_start, rings, more, seconds, bins,
                    block_due_ms, reading, changes, n,
                )  # fmt: skip
            else:
                if first or h.flags & FLAG_ABSENT:
                    h.flags &= ~FLAG_ABSENT & 0xFF
                    expect_reading(s, shard_low, t_ms, absent_ms, block_due_ms)
                n = take_bad(s, position, t_ms, dt_ms, late, h, c, p, changes, n)
        if why == ACCEPTED:
            n_accepted += 1
        else:
            counts[why] += 1
    counts[ACCEPTED] += n_accepted
    clock.watermark_ms = watermark_ms
    clock.position = before + i
    return i - start, n

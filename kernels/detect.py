"""The detection loop: every record of the log in order, every detector of its sensor in one visit.

Readings of sensors with nothing going on are taken by ``run_quiet``; the loop sees what it leaves:
first readings, bad, late and refused ones, ticks, and sensors with a latch, a timer or a signal up,
which ``judge`` holds against every latch and ladder.

Kernel   detect(log columns, where to begin, shard, limits of time, plan, state, changes)
Cost     O(1) a reading, allocates nothing
Source   kernels/README.md is the definition
Oracle   tests.oracle
"""

import numpy as np

from kernels.control import ROOM, take_control
from kernels.deviation import season_bin
from kernels.jit import inlined, kernel, step
from kernels.judge import judge, judge_bad
from kernels.layout import (
    ACCEPTED,
    BACKWARD,
    BAD_QUALITY,
    DUPLICATE,
    FLAG_ABSENT,
    LATE,
    MAX_EVENT_MS,
    NEVER,
    NOT_FINITE,
    OUT_OF_RANGE,
    TIME_AHEAD,
    TIME_OUT_OF_BOUNDS,
    TIME_TOO_LATE,
)
from kernels.liveness import expect_reading
from kernels.quiet import observe, run_quiet
from kernels.rate import age_anchors
from kernels.window import enter_window, judge_window


@inlined
def refused(t_ms, watermark_ms, limits_ms):
    """Return why a reading's event time is refused, ACCEPTED if it is not."""
    _, max_ahead_ms, max_late_ms = limits_ms
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
    return judge_bad(np.int64(sensor), position, t_ms, dt_ms, late, h, c, p, changes, n)


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
def note_window(w, ring, second, rules, reading):
    """Judge a window where it may matter; note it if its level is the sensor's highest so far."""
    if ring.loud | ring.level:
        level, statistic = judge_window(ring, second, rules)
        if level > reading.window_level:
            reading.window_level = level
            reading.window = w
            reading.window_value = statistic


@inlined
def take_windows(t_ms, v, at, p, stride, rings, more, seconds, window_params, more_start, reading):
    """Take one value into the sensor's windows, and note the highest level among them."""
    reading.window_level = 0
    n_sensors = len(more_start) - 1
    for w in range(p.n_windows):
        place, second, beside = window_places(at, w, stride, more_start, n_sensors)
        ring = rings[place] if beside else more[place]
        rules = window_params[np.uint64(p.first_window + w)]
        enter_window(t_ms, v, ring, seconds[second], rules)
        note_window(w, ring, seconds[second], rules, reading)


@inlined
def judge_reading(s, position, t_ms, late, h, c, p, reading, changes, n):
    """Judge a reading whose statistics are noted; return the changes written so far."""
    reading.event_ms = t_ms
    reading.position = position
    reading.sensor = s
    reading.late = late
    return judge(reading, h, c, p, changes, n)


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
    take_windows(
        t_ms, v, np.int64(at), p, stride, rings, more, seconds, window_params, more_start, reading
    )
    place = np.uint64(0)
    if p.season_bins:
        place = np.uint64(
            season_start[at] + season_bin(t_ms, p.utc_offset_ms, p.season_ms, p.season_bins)
        )
    loud = reading.window_level > 0 or v >= p.quiet_high or v <= p.quiet_low
    if observe(x, v, dt_ms, loud, h, bins[place], p, reading):
        n = judge_reading(at, position, t_ms, late, h, c, p, reading, changes, n)
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
    clock = clocks[0]
    counts = clock.counts
    reading = readings[0]
    before = np.int64(clock.position) - start
    n = np.int64(0)
    i = start
    while i < len(sensor) and n + ROOM < len(changes):
        i, loud = run_quiet(
            sensor, event_ms, value, quality, i, shard, limits_ms, clock, hot, rings, seconds,
            bins, params, window_params, reading,
        )  # fmt: skip
        if loud:
            at = np.uint64(i - 1)
            s = np.uint64(sensor[at])
            h = hot[s * np.uint64(stride)]
            p = params[np.uint64(h.row)]
            reading.window_level = 0
            if p.n_windows:
                place = np.uint64(s * np.uint64(stride) + np.uint64(1))
                rules = window_params[np.uint64(p.first_window)]
                note_window(0, rings[place], seconds[s], rules, reading)
            n = judge_reading(
                s, before + i - 1, event_ms[at], 0, h, cold[s], p, reading, changes, n
            )
            continue
        at = np.uint64(i)
        s = sensor[at]
        t_ms = event_ms[at]
        why = refused(t_ms, clock.watermark_ms, limits_ms)
        if s < 0 or s >= len(cold):
            n, done = take_control(
                s, t_ms, value[at], why, before + i, shard, clock, hot, cold, params, absent_ms,
                sensor_start, block_due_ms, changes, n,
            )  # fmt: skip
            if not done:
                break
            clock.watermark_ms = max(clock.watermark_ms, clock.tick_ms)
            i += 1
            continue
        i += 1
        if why == ACCEPTED:
            clock.watermark_ms = max(clock.watermark_ms, t_ms)
        if s < shard_low or s >= shard_high:
            continue
        if why == ACCEPTED:
            s = np.uint64(s)
            h = hot[s * np.uint64(stride)]
            c = cold[s]
            p = params[np.uint64(h.row)]
            v = value[at] * p.scale + p.offset
            why = badness(quality[at], v, p)
            late = np.int64(clock.watermark_ms - t_ms > limits_ms[0])
            counts[LATE] += late
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
        counts[why] += 1
    clock.position = before + i
    return i - start, n

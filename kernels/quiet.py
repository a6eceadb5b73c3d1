"""The quiet run: readings of sensors with nothing going on, which are nearly all.

One prefetched cache line a reading, two with a window. As long as no limit is reached the run
compares with the lowest limit of each detector and moves on. It is a function of its own, with
little to keep in registers: inside the detection loop the same body took a third longer.

Oracle   tests.oracle
"""

import numpy as np

from kernels.deviation import clipped, learning_rate
from kernels.drift import accumulate_drift
from kernels.jit import inlined, prefetch, step
from kernels.layout import ACCEPTED, FLAG_ACTIVE, MAX_AGE_MS, MAX_EVENT_MS, NEVER
from kernels.rate import turn_anchors
from kernels.window import enter_newest, far_off

NEARLY = 1.0 - 1e-9
"""Quiet tests that avoid a division let a little more through to the exact test."""
PREFETCH = 24
"""Readings ahead at which a sensor's record is asked for: 16 to 32 measure alike at 1M sensors."""


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

    ``loud`` says that they must anyway: for a limit or a window.
    """
    last = np.float32(x)
    seen = h.n != 0
    jump = abs(x - h.last) if seen else 0.0
    n_flat = min(np.int64(h.n_flat) + 1, 65_535) if seen and last == h.last else 0
    h.n_flat = n_flat
    h.last = last
    loud = (
        loud
        or h.flags & FLAG_ACTIVE != 0
        or h.n_bad != 0
        or jump >= p.spike_at
        or (p.flat_after_n != 0 and n_flat >= p.flat_after_n)
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
        loud = loud or abs(r) >= p.quiet_deviation * s or max(h.above, h.below) >= p.quiet_drift * s
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
def ask_ahead(at, stride, sensor, hot):
    """Prefetch what a reading to come will touch: its sensor's record, and the window beside it."""
    ahead = sensor[at + np.uint64(PREFETCH)] * stride
    prefetch(hot, ahead, 0)
    if stride == 2:
        prefetch(hot, ahead, 64)


@step
def run_quiet(
    sensor, event_ms, value, quality, i, shard, limits_ms, clock, hot, rings, seconds, bins,
    params, window_params, reading,
):  # fmt: skip
    """Take readings from ``i`` on until one needs more than a quiet sensor's state.

    Returns (where it stopped, loud). Loud: the reading before that place was taken, reached a limit
    and must be judged. Else the record at that place is untouched: something is going on with its
    sensor, or it is its first, late, out of order, at a limit, bad, refused, seasonal, of more than
    one window, or no reading. Readings of other shards only move the watermark.
    """
    shard_low, shard_high, _, stride = shard
    late_after_ms, max_ahead_ms, max_late_ms = limits_ms
    most_late_ms = min(late_after_ms, max_late_ms)
    watermark_ms = np.int64(clock.watermark_ms)
    no_bin = bins[np.uint64(0)]
    n_sensors = len(hot) // stride
    n_accepted = 0
    loud = False
    stop = len(sensor) - PREFETCH if watermark_ms != NEVER else i
    while i < stop and not loud:
        at = np.uint64(i)
        ask_ahead(at, stride, sensor, hot)
        s = np.int64(sensor[at])
        t_ms = event_ms[at]
        if (t_ms < 0) | (t_ms >= MAX_EVENT_MS):
            break
        ahead_ms = t_ms - watermark_ms
        if (ahead_ms > max_ahead_ms) | (-ahead_ms > most_late_ms):
            break
        if (s < shard_low) | (s >= shard_high):
            if (s < 0) | (s >= n_sensors):
                break
            watermark_ms = max(watermark_ms, t_ms)
            i += 1
            continue
        line = np.uint64(s * stride)
        h = hot[line]
        p = params[np.uint64(h.row)]
        v = value[at] * p.scale + p.offset
        dt_ms = t_ms - h.last_ms
        usual = (
            (quality[at] == 0)
            & (dt_ms > 0)
            & (h.n != 0)
            & (h.flags == 0)
            & (p.season_bins == 0)
            & (p.n_windows <= 1)
            & (v >= p.calm_low)
            & (v <= p.calm_high)
        )
        if not usual:
            break
        if p.n_windows:
            ring = rings[line + np.uint64(1)]
            rules = window_params[np.uint64(p.first_window)]
            if far_off(v, ring):
                break  # the reference has to move
            enter_newest(t_ms, v, ring, seconds[np.uint64(s)], rules)
            loud = (ring.loud | ring.level) != 0
        watermark_ms = max(watermark_ms, t_ms)
        h.last_ms = t_ms
        loud = observe(v - h.anchor, v, dt_ms, loud, h, no_bin, p, reading)
        n_accepted += 1
        i += 1
    clock.watermark_ms = watermark_ms
    clock.counts[ACCEPTED] += n_accepted
    return i, loud

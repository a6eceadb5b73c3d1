"""One setting's latches and ladders over the moments of one sensor.

A setting at rest looks only at moments that reach the envelope of all settings, and of those only
at what reaches its own limits; one that is up follows every moment until it is at rest again. What
it does then is what the live kernels do: they are the same steps.
"""

import numpy as np

from kernels.jit import step
from kernels.judge import judge, judge_acknowledge, judge_bad, judge_silence
from kernels.ladder import climb
from kernels.layout import FLAG_ACTIVE, GOOD, NOT_GOOD, SILENT
from kernels.survey import matters

FULL = -1
"""The changes are full: the sensor must be gone through again with more room."""


@step
def climb_windows(k, p, window_params, window_n, window_value, held, place, m):
    """Judge every window of one setting; note the one with the highest level in the moment."""
    m.window_level = 0
    for w in range(p.n_windows):
        high = 0
        low = 0
        rules = window_params[np.uint64(p.first_window + w)]
        n = window_n[k, w]
        if n >= 0 and n >= rules.min_n:
            statistic = window_value[k, w]
            was = np.int64(held[place, w])
            high = climb(statistic, rules.high, 1.0, rules.deadband, was & 0xF)
            low = climb(-statistic, rules.low, 1.0, rules.deadband, was >> 4)
            level = max(high, low)
            if level > m.window_level:
                m.window_level = level
                m.window = w
                m.window_value = statistic
        held[place, w] = low << 4 | high


@step
def recall(h, m):
    """Give a setting's record of the sensor what judging reads of its state at a moment."""
    h.anchor = m.anchor
    h.last = m.last
    h.above = m.above
    h.below = m.below
    h.n_flat = m.n_flat
    h.n_bad = m.n_bad


@step
def attempt(
    place, n_moments, n_loud, moments, loud, window_params, window_n, window_value, p, absent_ms,
    hot, cold, held, changes, n,
):  # fmt: skip
    """Follow the moments of one stretch under one setting; return the changes so far, or FULL."""
    h = hot[place]
    c = cold[place]
    k = np.int64(0)
    at = np.int64(0)
    while True:
        active = h.flags & FLAG_ACTIVE != 0
        if not active:
            while at < n_loud and loud[at] < k:
                at += 1
            if at == n_loud:
                break
            k = np.int64(loud[at])
        if k >= n_moments:
            break
        if n >= len(changes):
            return np.int64(FULL)
        m = moments[k]
        if m.what == GOOD:
            if p.n_windows:
                climb_windows(k, p, window_params, window_n, window_value, held, place, m)
            else:
                m.window_level = 0
            if active or m.window_level or matters(m, p):
                recall(h, m)
                n = judge(m, h, c, p, changes, n)
        else:
            recall(h, m)
            sensor = np.int64(m.sensor)
            if m.what == NOT_GOOD:
                n = judge_bad(
                    sensor, m.position, m.event_ms, m.dt_ms, np.int64(m.late), h, c, p, changes, n
                )
            elif m.what == SILENT:
                n = judge_silence(sensor, m.position, m.event_ms, absent_ms, h, c, p, changes, n)
            else:
                n = judge_acknowledge(sensor, m.position, m.event_ms, h, c, p, changes, n)
        k += 1
    return n

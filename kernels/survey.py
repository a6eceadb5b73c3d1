"""One sensor's statistics over a stretch of its history: what any latch or ladder may look at.

Statistics (rates, residuals, sums, windows) do not depend on limits, deadbands and delays. So one
survey serves all settings that differ in those alone. It runs the steps of the live kernels under
the *envelope* of the settings: the lowest of their limits, less the largest of their deadbands.
Where not even the envelope is reached, a sensor at rest stays at rest under every one of them.

Oracle   the whole line, setting by setting: tests/kernels/test_sweep.py
"""

import numpy as np

from kernels.detect import badness
from kernels.deviation import season_bin
from kernels.jit import inlined, step
from kernels.layout import (
    ACCEPTED,
    FLAG_ABSENT,
    GOOD,
    IS_ACKNOWLEDGED,
    IS_LATE,
    LET_GO,
    NEVER,
    NOT_GOOD,
    SILENT,
)
from kernels.quiet import observe
from kernels.rate import age_anchors
from kernels.window import aggregate_window, enter_window

NOT_NEAR = -1
"""Instead of a number of readings: the window holds nothing that could reach a limit."""


@step
def first_tick(ticks, first, last, due_ms, ascending):
    """Return the first of ticks ``first`` to ``last`` at or after ``due_ms``; ``last`` if none.

    ``ascending`` says that the ticks' times are: then the search halves.
    """
    if not ascending:
        for tick in range(first, last):
            if ticks[tick, 0] >= due_ms:
                return tick
        return last
    if first >= last or ticks[last - 1, 0] < due_ms:
        return last
    low, high = first, last - 1
    while low < high:
        middle = (low + high) // 2
        if ticks[middle, 0] >= due_ms:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def matters(m, p):
    """Tell whether a good reading reaches a limit other than a window's."""
    total = max(m.above, m.below)
    return (
        (m.v >= p.quiet_high)
        | (m.v <= p.quiet_low)
        | (m.jump >= p.spike_at)
        | ((p.flat_after_n != 0) & (m.n_flat >= p.flat_after_n))
        | (m.rate >= p.quiet_rise)
        | (-m.rate >= p.quiet_fall)
        | (
            (m.warm != 0)
            & (
                (abs(m.residual) >= p.quiet_deviation * m.scale)
                | (total >= p.quiet_drift * m.scale)
            )
        )
    )


@inlined
def remember(m, h, record):
    """Note what judging reads of a sensor's state, and when it was so."""
    m.position = np.int64(record.position_high) << 32 | np.int64(record.position)
    m.event_ms = record.event_ms
    m.sensor = record.sensor
    m.late = record.flags & IS_LATE
    m.anchor = h.anchor
    m.last = h.last
    m.above = h.above
    m.below = h.below
    m.n_flat = h.n_flat
    m.n_bad = h.n_bad


@step
def note_silence(h, record, n_ticks, ticks, ascending, absent_ms, armed, n, moments):
    """Note that the sensor's deadline passes before the record; return the moments so far.

    ``armed`` is how many ticks stood before the reading that armed it.
    """
    deadline_ms = h.last_ms + absent_ms
    tick = first_tick(ticks, armed, n_ticks, deadline_ms, ascending)
    if tick == n_ticks:
        return n
    h.flags |= FLAG_ABSENT
    m = moments[n]
    remember(m, h, record)
    m.position = ticks[tick, 1]
    m.event_ms = deadline_ms
    m.late = 0
    m.what = SILENT
    return n + 1


@step
def enter_windows(t_ms, v, p, rings, seconds, window_params):
    """Take a value into every window; return whether one of them holds what may matter."""
    near = False
    for w in range(p.n_windows):
        rules = window_params[np.uint64(p.first_window + w)]
        enter_window(t_ms, v, rings[w], seconds[w], rules)
        near |= rings[w].loud != 0
    return near


@step
def note_windows(k, p, rings, seconds, window_params, window_n, window_value):
    """Note the aggregate of every window that may matter."""
    for w in range(p.n_windows):
        window_n[k, w] = NOT_NEAR
        if rings[w].loud:
            rules = window_params[np.uint64(p.first_window + w)]
            window_n[k, w], window_value[k, w] = aggregate_window(rings[w], seconds[w], rules)


@step
def survey(
    records, first, last, plan, p, absent_ms, hot, rings, seconds, bins, armed, noting,
    moments, window_n, window_value, loud,
):  # fmt: skip
    """Run the statistics of one sensor over its records ``first`` to ``last``.

    In       records ADMITTED of one sensor
             plan  (window_params, ticks (T, 2), whether they ascend)
             p     PARAMS of the envelope
             noting  0: only look whether anything matters, 1: note every moment
    In/out   hot (1,) HOT, rings, seconds, bins of the sensor; armed (1,) int64
    Out      moments, window_n, window_value: two of them a record, one more must fit
             loud int32: which moments reach the envelope
    Returns  (moments, how many reach the envelope)
    """
    window_params, ticks, ascending = plan
    h = hot[0]
    n = np.int64(0)
    n_loud = np.int64(0)
    for i in range(first, last):
        record = records[i]
        t_ms = record.event_ms
        is_first = h.last_ms == NEVER
        if absent_ms and not is_first and not h.flags & FLAG_ABSENT:
            at = np.int64(record.n_ticks)
            if at > armed[0]:
                noted = note_silence(
                    h, record, at, ticks, ascending, absent_ms, armed[0], n, moments
                )
                if noted > n:
                    loud[n_loud] = n
                    n_loud += 1
                    n = noted if noting else n
        m = moments[n]
        if record.flags & IS_ACKNOWLEDGED:
            remember(m, h, record)
            m.what = LET_GO
            n += noting
            continue
        v = record.value * p.scale + p.offset
        why = badness(record.quality, v, p)
        dt_ms = 0 if is_first else t_ms - h.last_ms
        if dt_ms < 0:
            if why == ACCEPTED:
                enter_windows(t_ms, v, p, rings, seconds, window_params)
            continue
        if why != ACCEPTED:
            h.flags = 0
            h.last_ms = t_ms
            armed[0] = record.n_ticks
            h.n_bad = min(np.int64(h.n_bad) + 1, 255)
            age_anchors(dt_ms, h)
            if p.bad_after_n and h.n_bad >= p.bad_after_n:
                loud[n_loud] = n
                n_loud += 1
            remember(m, h, record)
            m.dt_ms = dt_ms
            m.what = NOT_GOOD
            n += noting
            continue
        if h.n == 0:
            h.anchor = v
            h.anchor_age_ms = 0
            h.older_age_ms = 0
        x = v - h.anchor
        if dt_ms == 0 and h.n != 0 and np.float32(x) == h.last:
            continue
        h.flags = 0
        h.last_ms = t_ms
        armed[0] = record.n_ticks
        near = enter_windows(t_ms, v, p, rings, seconds, window_params)
        place = np.uint64(0)
        if p.season_bins:
            place = np.uint64(season_bin(t_ms, p.utc_offset_ms, p.season_ms, p.season_bins))
        h.n_bad = 0
        near = near or v >= p.quiet_high or v <= p.quiet_low
        reached = observe(x, v, dt_ms, near or noting != 0, h, bins[place], p, m)
        if not noting:
            n_loud += reached
            continue
        note_windows(n, p, rings, seconds, window_params, window_n, window_value)
        remember(m, h, record)
        m.what = GOOD
        if near or matters(m, p):
            loud[n_loud] = n
            n_loud += 1
        n += 1
    return n, n_loud

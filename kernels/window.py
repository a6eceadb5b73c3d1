"""Sliding-window aggregates on panes of event time; readings out of order enter inside the ring.

A pane keeps what its aggregate needs relative to the window's reference, so 101325 ± 0.01 keeps
its digits in float32; deviations are combined with Chan's formula, never as sum² − sum²/n.

A reading touches its own pane only. The ring is looked through only while it holds a value that
could carry the aggregate to a limit, or while a level is up: a mean, minimum or maximum lies among
its values; a standard deviation is at most the greatest distance from the reference, a range twice
that.

Source   Li et al., No pane, no gain, SIGMOD Record 34 (2005); Welford, Technometrics 4 (1962);
         Chan, Golub & LeVeque, COMPSTAT (1982)
State    PANES, SECONDS
Oracle   tests.oracle
"""

import numpy as np

from kernels.jit import inlined, step
from kernels.ladder import climb
from kernels.layout import COUNT, MAXIMUM, MEAN, MINIMUM, N_PANES, RANGE, STD, SUM

MAX_PANE_N = 65_535
"""A pane that holds as many readings takes no more."""
LAST_PLACE = N_PANES - 1
ALL_PLACES = (1 << N_PANES) - 1
ULP = np.float32(2.0**-23)
NEARLY = 0.99
"""Share of the way to a limit at which a value may matter: far more than rounding can do."""


@inlined
def rounded_down(x):
    """Return a float32 at or just below ``x``: an extreme is never understated.

    Where rounding to nearest went up, two units in the last place come off; nextafter is a call.
    """
    near = np.float32(x)
    return np.float32(near - abs(near) * ULP) if near > x else near


@step
def enter_spread(place, n, x, panes, seconds, aggregate):
    """Take one value into a pane that keeps mean and M2, or extremes."""
    if aggregate == STD:
        mean = np.float64(panes.first[place]) if n else x
        m2 = np.float64(seconds.second[place]) if n else 0.0
        delta = x - mean
        mean = np.float32(mean + delta / (n + 1))
        panes.first[place] = mean
        seconds.second[place] = m2 + delta * (x - mean)
        return
    low = rounded_down(x)
    high = np.float32(-rounded_down(-x))
    if aggregate == MAXIMUM:
        panes.first[place] = max(panes.first[place], high) if n else high
        return
    panes.first[place] = min(panes.first[place], low) if n else low
    if aggregate == RANGE:
        seconds.second[place] = max(seconds.second[place], high) if n else high


@step
def refer(v, panes, seconds, aggregate):
    """Make ``v`` the reference; what the panes hold moves along."""
    reference = np.float32(v)
    moved = np.float64(panes.reference) - reference
    panes.reference = reference
    if panes.filled:
        # What the panes hold was found not to matter relative to the old reference.
        panes.loud = N_PANES
    for place in range(N_PANES):
        weight = np.int64(panes.count[place]) if aggregate <= MEAN else 1
        panes.first[place] += weight * moved
        if aggregate == RANGE:
            seconds.second[place] += moved


@inlined
def turn_ring(ahead_ms, panes, params):
    """Turn the ring until a reading ``ahead_ms`` past the newest pane's end falls into the newest.

    The quotient is exact: half a millisecond keeps it off the whole numbers by more than the
    product's rounding.
    """
    turn = np.int64(1)
    if ahead_ms >= params.pane_ms:
        turn = np.int64((ahead_ms + 0.5) * params.per_pane + 1.0)
    panes.newest_end_ms += turn * params.pane_ms
    turn = min(turn, N_PANES)
    newest = np.int64(panes.newest)
    gone = ((1 << turn) - 1) << (newest + 1)
    panes.filled = np.int64(panes.filled) & ~(gone | gone >> N_PANES) & ALL_PLACES
    panes.newest = (newest + turn) & LAST_PLACE
    panes.loud = max(np.int64(panes.loud) - turn, 0)


@inlined
def far_off(v, panes):
    """Tell whether float32 has too few digits left for a value so far off the reference."""
    reference = np.float64(panes.reference)
    return abs(v - reference) > 1.0 + N_PANES * abs(reference)


@inlined
def enter_place(place, v, panes, seconds, params):
    """Take one value, not far off the reference, into a pane that is not full."""
    bit = 1 << place
    n = np.int64(panes.count[np.uint64(place)]) if np.int64(panes.filled) & bit else 0
    if n == MAX_PANE_N:
        return
    reference = np.float64(panes.reference)
    x = v - reference
    panes.filled |= bit
    panes.count[np.uint64(place)] = n + 1
    moved = params.follows * reference
    if abs(x) >= NEARLY * min(params.near_high - moved, params.near_low + moved):
        panes.loud = params.n_panes
    if params.aggregate <= MEAN:
        total = np.float64(panes.first[np.uint64(place)]) if n else 0.0
        panes.first[np.uint64(place)] = total + x
    else:
        enter_spread(place, n, x, panes, seconds, params.aggregate)


@inlined
def enter_newest(event_ms, v, panes, seconds, params):
    """Take one value, neither late nor far off the reference, into the pane of its event time."""
    ahead_ms = event_ms - panes.newest_end_ms
    if ahead_ms >= 0:
        turn_ring(ahead_ms, panes, params)
    enter_place(np.int64(panes.newest), v, panes, seconds, params)


@step
def enter_window(event_ms, v, panes, seconds, params):
    """Take one value into the pane of its event time; none behind the ring or into a full pane."""
    ahead_ms = event_ms - panes.newest_end_ms
    back = np.int64(0)
    if ahead_ms >= 0:
        turn_ring(ahead_ms, panes, params)
    elif ahead_ms < -params.pane_ms:
        back = (-1 - ahead_ms) // params.pane_ms
        if back >= params.n_panes:
            return
    if far_off(v, panes):
        refer(v, panes, seconds, params.aggregate)
    enter_place((np.int64(panes.newest) - back) & LAST_PLACE, v, panes, seconds, params)


@step
def holds(place, panes, params):
    """Tell whether a place holds a pane of the window."""
    age = (np.int64(panes.newest) - place) & LAST_PLACE
    return age < params.n_panes and np.int64(panes.filled) >> place & 1 == 1


@step
def aggregate_window(panes, seconds, params):
    """Return (readings in the ring, the aggregate that the rule asks for, in profile units)."""
    aggregate = params.aggregate
    n = 0
    total = 0.0
    low = np.inf
    high = -np.inf
    for place in range(N_PANES):
        if holds(place, panes, params):
            count = np.int64(panes.count[place])
            first = np.float64(panes.first[place])
            n += count
            total += count * first if aggregate == STD else first
            low = min(low, first)
            high = max(high, np.float64(seconds.second[place]) if aggregate == RANGE else first)
    if aggregate == COUNT or n == 0:
        return n, np.float64(n)
    if aggregate == SUM:
        return n, panes.reference * np.float64(n) + total
    if aggregate == MINIMUM:
        return n, panes.reference + low
    if aggregate == MAXIMUM:
        return n, panes.reference + high
    if aggregate == RANGE:
        return n, high - low
    mean = total / n
    if aggregate == MEAN:
        return n, panes.reference + mean
    m2 = 0.0
    for place in range(N_PANES):
        if holds(place, panes, params):
            apart = np.float64(panes.first[place]) - mean
            count = np.int64(panes.count[place])
            m2 += np.float64(seconds.second[place]) + count * (apart * apart)
    return n, np.sqrt(m2 / n)


@step
def judge_window(panes, seconds, params):
    """Return (level, aggregate) of a window."""
    n, statistic = aggregate_window(panes, seconds, params)
    high = 0
    low = 0
    if n >= params.min_n:
        held = np.int64(panes.level)
        high = climb(statistic, params.high, 1.0, params.deadband, held & 0xF)
        low = climb(-statistic, params.low, 1.0, params.deadband, held >> 4)
    panes.level = low << 4 | high
    return max(high, low), statistic

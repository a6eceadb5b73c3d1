"""Sliding-window aggregates on panes of event time; readings out of order enter inside the ring.

A pane keeps a count and either mean and M2 or minimum and maximum, relative to the window's
reference, so 101325 ± 0.01 keeps its digits in float32. Panes are combined with Chan's formula,
never with sum² − sum²/n.

The ring has eight places; a pane's place is its number modulo 8, so the eight lanes of each field
are handled at once and nothing branches on how far the ring turns, which cannot be predicted.

Source   Li et al., No pane, no gain, SIGMOD Record 34 (2005); Welford, Technometrics 4 (1962);
         Chan, Golub & LeVeque, COMPSTAT (1982)
State    PANES
Oracle   tests.oracle
"""

import numpy as np

from kernels.jit import inlined, step
from kernels.ladder import climb
from kernels.layout import COUNT, MAXIMUM, MEAN, MINIMUM, N_PANES, STD, SUM
from kernels.ring import MAX_PANE_N, turn_ring

LAST_PANE = N_PANES - 1
ULP = np.float32(2.0**-23)


@inlined
def rounded_down(x):
    """Return a float32 at or just below ``x``: an extreme is never understated.

    Where rounding to nearest went up, two units in the last place come off; nextafter is a call.
    """
    near = np.float32(x)
    return np.float32(near - abs(near) * ULP) if near > x else near


@inlined
def enter_moments(place, n, x, panes):
    """Take one value, ``x`` above the reference, into a pane of ``n``; return its new mean."""
    mean = np.float64(panes.first[place]) if n else x
    m2 = np.float64(panes.second[place]) if n else 0.0
    delta = x - mean
    mean = np.float32(mean + delta / (n + 1))
    panes.first[place] = mean
    panes.second[place] = m2 + delta * (x - mean)
    return np.float64(mean)


@step
def enter_extremes(place, n, x, panes):
    """Take one value, ``x`` above the reference, into a pane that keeps minimum and maximum."""
    low = rounded_down(x)
    high = np.float32(-rounded_down(-x))
    panes.first[place] = min(panes.first[place], low) if n else low
    panes.second[place] = max(panes.second[place], high) if n else high


@step
def enter_late(ahead_ms, v, panes, params):
    """Take one value into an older pane; behind the ring, or into a full pane, ignore it."""
    back = (-1 - ahead_ms) // params.pane_ms
    place = (np.int64(panes.newest) - back) & LAST_PANE
    n = np.int64(panes.count[place])
    if back < params.n_panes and n < MAX_PANE_N:
        panes.count[place] = n + 1
        if params.aggregate < MINIMUM:
            enter_moments(place, n, v - panes.reference, panes)
        else:
            enter_extremes(place, n, v - panes.reference, panes)


@inlined
def enter_newest(ahead_ms, v, panes, params):
    """Take one value into the newest pane, turning the ring as far as its event time asks for.

    Returns (readings in the ring, their sum relative to the reference, for moments). The quotient
    is exact: half a millisecond keeps it off the whole numbers by more than the product's rounding.
    """
    if ahead_ms < params.pane_ms:
        # The usual case, predicted well for a regular sensor, spares the product's latency.
        turn = np.int64(ahead_ms >= 0)
    else:
        turn = np.int64((ahead_ms + 0.5) * params.per_pane + 1.0)
    place = (np.int64(panes.newest) + turn) & LAST_PANE
    panes.newest_end_ms += turn * params.pane_ms
    panes.newest = place
    n_others, n_own, total = turn_ring(panes, place, min(turn, N_PANES), params.n_panes)
    if n_others + n_own == 0:
        # The reference moves along with the signal, so old levels cost no precision.
        panes.reference = v
    if n_own == MAX_PANE_N:
        return n_others + n_own, total + n_own * np.float64(panes.first[place])
    x = v - panes.reference
    if params.aggregate < MINIMUM:
        total += (n_own + 1) * enter_moments(place, n_own, x, panes)
    else:
        enter_extremes(place, n_own, x, panes)
    return n_others + n_own + 1, total


@inlined
def enter_window(event_ms, v, panes, params):
    """Take one value into its event time's pane; return (readings in the ring, relative sum)."""
    ahead_ms = event_ms - panes.newest_end_ms
    if ahead_ms >= -params.pane_ms:
        return enter_newest(ahead_ms, v, panes, params)
    enter_late(ahead_ms, v, panes, params)
    n = 0
    total = 0.0
    for lane in range(N_PANES):
        count = np.int64(panes.count[lane])
        n += count
        total += count * np.float64(panes.first[lane])
    return n, total


@step
def extremes(panes):
    """Return (lowest, highest) of the ring, relative to its reference."""
    low = np.inf
    high = -np.inf
    for lane in range(N_PANES):
        used = panes.count[lane] > 0
        low = min(low, np.float64(panes.first[lane]) if used else np.inf)
        high = max(high, np.float64(panes.second[lane]) if used else -np.inf)
    return low, high


@step
def spread(mean, panes):
    """Return the sum of squared residuals of the ring about ``mean``, relative to its reference."""
    m2 = 0.0
    for lane in range(N_PANES):
        count = np.int64(panes.count[lane])
        apart = np.float64(panes.first[lane]) - mean
        m2 += (np.float64(panes.second[lane]) if count else 0.0) + count * (apart * apart)
    return m2


@inlined
def aggregate_window(n, total, panes, params):
    """Return the aggregate that the rule asks for, in the profile's unit; 0 of an empty ring."""
    aggregate = params.aggregate
    if aggregate == COUNT or n == 0:
        return np.float64(n)
    if aggregate == MEAN:
        return panes.reference + total / n
    if aggregate == SUM:
        return panes.reference * n + total
    if aggregate == STD:
        return np.sqrt(spread(total / n, panes) / n)
    low, high = extremes(panes)
    if aggregate == MINIMUM:
        return panes.reference + low
    if aggregate == MAXIMUM:
        return panes.reference + high
    return high - low


@inlined
def window_level_of(n, statistic, panes, params):
    """Return the level of the window's aggregate over ``n`` readings."""
    held = panes.level_high | panes.level_low
    if not held and (
        n < params.min_n or ((statistic < params.quiet_high) & (-statistic < params.quiet_low))
    ):
        return 0
    high = 0
    low = 0
    if n >= params.min_n:
        high = climb(statistic, params.high, 1.0, params.deadband, np.int64(panes.level_high))
        low = climb(-statistic, params.low, 1.0, params.deadband, np.int64(panes.level_low))
    panes.level_high = high
    panes.level_low = low
    return max(high, low)

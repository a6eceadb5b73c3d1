"""Limits: eight independent latches a sensor, with deadband, on-delay and off-delay.

Source   ISA-18.2 §16 (deadband, delays), OPC UA Part 9 §5.8 (limit alarms, latching)
State    HOT.latched, HOT.pending, COLD.age_ms
Oracle   tests.oracle
"""

import numpy as np

from kernels.jit import step
from kernels.layout import FLAG_ACKNOWLEDGED, MAX_AGE_MS, N_LEVELS


@step
def step_limits(v, dt_ms, hot, cold, params):
    """Move the latches of one sensor by one good reading; return (high level, low level).

    ``v`` is in the profile's unit, ``dt_ms`` the event time since the newest reading. A latch turns
    when its condition has held for its delay, from the first reading that met it to this one.
    """
    latched = np.int64(hot.latched)
    pending = np.int64(hot.pending)
    may_open = params.latching == 0 or hot.flags & FLAG_ACKNOWLEDGED != 0
    for side in range(2):
        for k in range(N_LEVELS):
            place = side * N_LEVELS + k
            bit = 1 << place
            if side == 0:
                beyond = v >= params.high[k]
                inside = v < params.high[k] - params.deadband
            else:
                beyond = v <= params.low[k]
                inside = v > params.low[k] + params.deadband
            closed = latched & bit != 0
            if not (inside if closed else beyond):
                pending &= ~bit
                continue
            age_ms = 0
            if pending & bit:
                age_ms = min(np.int64(cold.age_ms[place]) + dt_ms, MAX_AGE_MS)
            delay_ms = params.off_ms[k] if closed else params.on_ms[k]
            if age_ms >= delay_ms and (may_open or not closed):
                latched ^= bit
                pending &= ~bit
            else:
                pending |= bit
                cold.age_ms[place] = age_ms
    hot.latched = latched
    hot.pending = pending
    if latched == 0:
        hot.flags &= ~FLAG_ACKNOWLEDGED & 0xFF
    return highest(latched & 0xF), highest(latched >> N_LEVELS)


@step
def highest(bits):
    """Return the number of the highest set bit of four, counted from 1; 0 for none."""
    level = 0
    while bits:
        level += 1
        bits >>= 1
    return level


@step
def age_limits(dt_ms, hot, cold):
    """Let the running timers of one sensor go on over a bad reading."""
    for place in range(2 * N_LEVELS):
        if hot.pending >> place & 1:
            cold.age_ms[place] = min(np.int64(cold.age_ms[place]) + dt_ms, MAX_AGE_MS)


@step
def acknowledge_limits(hot, cold, params):
    """Open every latching limit whose off-timer is up, and let the others go when theirs is."""
    for k in range(N_LEVELS):
        for side in range(2):
            place = side * N_LEVELS + k
            bit = 1 << place
            if hot.latched & bit and hot.pending & bit and cold.age_ms[place] >= params.off_ms[k]:
                hot.latched &= ~bit & 0xFF
                hot.pending &= ~bit & 0xFF
    if hot.latched:
        hot.flags |= FLAG_ACKNOWLEDGED
    return highest(np.int64(hot.latched) & 0xF), highest(np.int64(hot.latched) >> N_LEVELS)

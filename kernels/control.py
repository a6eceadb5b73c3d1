"""Records of the log that are no readings: ticks, acknowledgements, what commands are about."""

import numpy as np

from kernels.jit import step
from kernels.judge import judge_acknowledge
from kernels.layout import (
    ACKNOWLEDGE,
    BLOCK_SHIFT,
    JUDGE_CATEGORY,
    JUDGE_SOURCE,
    TICK,
    TICKS,
    TIME_OUT_OF_BOUNDS,
    UNKNOWN_SENSOR,
)
from kernels.liveness import find_absent

ROOM = 1 << BLOCK_SHIFT
"""Changes that one step may need: a block of absent sensors."""


@step
def take_tick(t_ms, position, shard, clock, hot, cold, params, absent_ms, block_due_ms, changes, n):
    """Raise what is absent at ``t_ms`` and hand the tick to fusion; return (changes, done).

    Where there is no room for another block, the clock remembers the block, and the same tick must
    be given again.
    """
    block = np.int64(clock.block)
    while block < len(block_due_ms) and n + ROOM < len(changes):
        if block_due_ms[block] <= t_ms:
            n = find_absent(
                t_ms, position, block, shard, hot, cold, params, absent_ms, block_due_ms, changes, n
            )
        block += 1
    if block < len(block_due_ms) or n + ROOM >= len(changes):
        clock.block = block
        return n, False
    clock.block = 0
    clock.tick_ms = max(clock.tick_ms, t_ms)
    return pass_on(TICK, t_ms, 0.0, position, changes, n), True


@step
def take_acknowledge(source, position, t_ms, shard, hot, cold, params, sensor_start, changes, n):
    """Let the latching limits of one source go; return (changes, done)."""
    if not 0 <= source < len(sensor_start) - 1:
        return n, True
    first = max(sensor_start[np.int64(source)], shard[0])
    last = min(sensor_start[np.int64(source) + 1], shard[1])
    if n + (last - first) >= len(changes):
        return n, False
    for sensor in range(first, last):
        h = hot[sensor * shard[3]]
        n = judge_acknowledge(sensor, position, t_ms, h, cold[sensor], params[h.row], changes, n)
    return n, True


@step
def pass_on(s, t_ms, value, position, changes, n):
    """Hand a record to fusion as it is; return the number of changes."""
    change = changes[n]
    change.position = position
    change.event_ms = t_ms
    change.value = value
    change.sensor = s
    return n + 1


@step
def take_control(
    s, t_ms, value, why, position, shard, clock, hot, cold, params, absent_ms, sensor_start,
    block_due_ms, changes, n,
):  # fmt: skip
    """Take a record that is no reading of a known sensor; return (changes, done)."""
    counts_all = shard[2]
    if JUDGE_CATEGORY <= s <= JUDGE_SOURCE:
        return pass_on(s, t_ms, value, position, changes, n), True
    if s != TICK and s != ACKNOWLEDGE:
        clock.counts[UNKNOWN_SENSOR] += counts_all
    elif why == TIME_OUT_OF_BOUNDS:
        clock.counts[TIME_OUT_OF_BOUNDS] += counts_all
    elif s == ACKNOWLEDGE:
        return take_acknowledge(
            value, position, t_ms, shard, hot, cold, params, sensor_start, changes, n
        )
    else:
        n, done = take_tick(
            t_ms, position, shard, clock, hot, cold, params, absent_ms, block_due_ms, changes, n
        )
        if not done:
            return n, False
        clock.counts[TICKS] += counts_all
    return n, True

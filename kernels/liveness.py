"""Liveness: silence, a stuck value, a run of bad readings, a jump.

Absence is found by ticks. Every block of 256 sensors keeps a lower bound of its earliest deadline;
a reading can only move a deadline back, so a block is looked through only when its bound has
passed, about once in two periods of its sensors.

Source   OPC UA Part 8 (quality), IEC 62682 §7 (stale and bad measurement alarms)
State    HOT.last_ms, n_flat, n_bad, flags; the array of block bounds
Oracle   tests.oracle
"""

import numpy as np

from kernels.jit import step
from kernels.judge import judge_silence
from kernels.layout import (
    BLOCK_SHIFT,
    FAR_FUTURE_MS,
    FLAG_ABSENT,
    NEVER,
)


@step
def expect_reading(sensor, shard_low, event_ms, absent_ms, block_due_ms):
    """Bound the block's earliest deadline by that of a sensor which has just been armed."""
    if absent_ms[sensor]:
        block = (np.int64(sensor) - shard_low) >> BLOCK_SHIFT
        block_due_ms[block] = min(block_due_ms[block], event_ms + absent_ms[sensor])


@step
def find_absent(
    now_ms, position, block, shard, hot, cold, params, absent_ms, block_due_ms, changes, n
):
    """Raise absence for every armed sensor of a block whose deadline is at or before ``now_ms``.

    ``changes`` must have room for a block. Returns the number of changes, and leaves the block's
    new bound in ``block_due_ms``.
    """
    first = shard[0] + (block << BLOCK_SHIFT)
    last = min(first + (1 << BLOCK_SHIFT), shard[1])
    bound_ms = FAR_FUTURE_MS
    for sensor in range(first, last):
        h = hot[sensor * shard[3]]
        if h.last_ms == NEVER or absent_ms[sensor] == 0 or h.flags & FLAG_ABSENT:
            continue
        deadline_ms = h.last_ms + absent_ms[sensor]
        if deadline_ms > now_ms:
            bound_ms = min(bound_ms, deadline_ms)
            continue
        n = judge_silence(
            np.int64(sensor), position, deadline_ms, absent_ms[sensor], h, cold[sensor],
            params[h.row], changes, n,
        )  # fmt: skip
    block_due_ms[block] = bound_ms
    return n

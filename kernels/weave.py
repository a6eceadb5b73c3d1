"""Weave ticks into a log of readings, so that history says how late it is as the live log does.

When the largest event time so far enters a new whole `tick_ms`, a tick at that multiple goes in
before the reading. One wrong clock must not carry time years ahead, where every later reading would
be too late: a reading that leads by more than `jump_ms` moves time only if the reading after it
comes no earlier than `jump_ms` before it. So does the very first reading; if it fails, time begins
with the second.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.jit import kernel, step
from kernels.layout import MAX_EVENT_MS, NEVER, TICK

NEWEST, DUE = range(2)
"""Places in what a weave remembers: the largest event time, and when the next tick is due."""


def begin() -> NDArray[np.int64]:
    """Return the state before the first reading."""
    return np.array([NEVER, 0], np.int64)


@step
def leap(event_ms, after_ms, jump_ms, newest_ms):
    """Return the time to which a reading far ahead moves `newest_ms`, or NEVER if it does not.

    `after_ms` is the event time of the reading after it, NEVER if there is none.
    """
    told = 0 <= after_ms < MAX_EVENT_MS
    if told and after_ms >= event_ms - jump_ms:
        return event_ms
    if newest_ms != NEVER:
        return NEVER
    # a history must begin: at the second reading, or, if that tells no time, at this one
    return after_ms if told else event_ms


@step
def copy(column, begin, end, out, at):
    """Copy a run; over slices, which vectorise: four columns in one loop took 4.7 ns, not 1.2."""
    source = column[begin:end]
    target = out[at : at + end - begin]
    for i in range(len(source)):
        target[i] = source[i]


@kernel
def weave(
    sensor,
    event_ms,
    value,
    quality,
    rule,
    final,
    state,
    out_sensor,
    out_event_ms,
    out_value,
    out_quality,
):
    """Copy readings and put ticks between them; return (readings taken, records written).

    The last reading is left for the next call if the one after it decides whether time moves.

    Shapes   R readings; the outputs hold at least 2 R records
    In       sensor … quality (R,)  as in engine.readings; no ticks among them
             rule     (2,) int64    tick_ms ≥ 1, jump_ms ≥ 0
             final    bool          no reading follows: nothing is left
    In/out   state    (2,) int64    NEWEST, DUE; survives batches
    Out      out_sensor … out_quality
    Cost     O(R), about 1.1 ns a reading, 2.2 with a tick every 20; allocates nothing
    Oracle   tests.kernels.test_weave.woven
    """
    tick_ms = rule[0]
    jump_ms = rule[1]
    newest_ms = state[NEWEST]
    due_ms = state[DUE]
    n = len(sensor)
    begun = 0  # first reading that is still to be copied
    written = 0
    for i in range(n):
        t = event_ms[i]
        if t <= newest_ms or t >= MAX_EVENT_MS:
            continue
        if newest_ms == NEVER or t - newest_ms > jump_ms:
            if i + 1 == n and not final:
                n = i
                break
            t = leap(t, event_ms[i + 1] if i + 1 < n else NEVER, jump_ms, newest_ms)
            if t == NEVER:
                continue
        newest_ms = t
        if t < due_ms:
            continue
        copy(sensor, begun, i, out_sensor, written)
        copy(event_ms, begun, i, out_event_ms, written)
        copy(value, begun, i, out_value, written)
        copy(quality, begun, i, out_quality, written)
        written += i - begun
        begun = i
        whole_ms = t - t % tick_ms
        out_sensor[written] = TICK
        out_event_ms[written] = whole_ms
        out_value[written] = 0.0
        out_quality[written] = 0
        written += 1
        due_ms = whole_ms + tick_ms
    copy(sensor, begun, n, out_sensor, written)
    copy(event_ms, begun, n, out_event_ms, written)
    copy(value, begun, n, out_value, written)
    copy(quality, begun, n, out_quality, written)
    state[NEWEST] = newest_ms
    state[DUE] = due_ms
    return n, written + n - begun


@kernel
def running_newest(event_ms, jump_ms, final, newest_ms, out):
    """Fill `out` with the largest event time up to each reading; return (readings taken, newest).

    Time moves by the rule of `weave`, and the last reading is left likewise.

    Shapes   R readings
    In       event_ms (R,) int64, jump_ms ≥ 0, newest_ms before the first
    Out      out      (R,) int64    NEVER before any valid time
    Cost     O(R), about 1 ns a reading; allocates nothing
    Oracle   tests.kernels.test_weave.newest
    """
    n = len(event_ms)
    for i in range(n):
        t = event_ms[i]
        if newest_ms < t < MAX_EVENT_MS:
            if newest_ms == NEVER or t - newest_ms > jump_ms:
                if i + 1 == n and not final:
                    n = i
                    break
                t = leap(t, event_ms[i + 1] if i + 1 < n else NEVER, jump_ms, newest_ms)
            if t != NEVER:
                newest_ms = t
        out[i] = newest_ms
    return n, newest_ms

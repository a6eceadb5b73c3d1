"""From a log to the history of each sensor: what the watermark lets through, sorted by sensor.

Whether a reading is refused, and whether it is late, depends on the whole log before it and on the
rules' times alone; so it is found once, however many settings are tried.

Kernels  admit(log columns, limits of time, where it goes, clock, scratch, blocks, arena, ticks)
         sort_by_sensor(arena, blocks of a bucket, first sensor, starts, out)
Source   kernels/README.md, "The log"
Oracle   tests/kernels/test_admit.py
"""

import numpy as np

from kernels.detect import refused
from kernels.jit import kernel, step
from kernels.layout import (
    ACCEPTED,
    ACKNOWLEDGE,
    IS_ACKNOWLEDGED,
    IS_LATE,
    TICK,
    TIME_OUT_OF_BOUNDS,
    UNKNOWN_SENSOR,
)

BLOCK = 512
"""Records of a bucket that lie together."""


@step
def next_place(b, cursors, block_of, used):
    """Return where a bucket's next record goes, in a block of its own."""
    at = cursors[b, 0]
    if at == cursors[b, 1]:
        block = np.int64(used[0])
        used[0] += 1
        block_of[block] = b
        at = block * BLOCK
        cursors[b, 1] = at + BLOCK
    cursors[b, 0] = at + 1
    return at


@kernel
def admit(
    sensor, event_ms, value, quality, limits_ms, bucket_of, sensor_start, clocks, place, cursors,
    block_of, used, arena, ticks, counts,
):  # fmt: skip
    """Write what one batch holds for each sensor into the buckets' blocks, in the log's order.

    Shapes   R records, S sensors, B buckets, N blocks
    In       sensor, event_ms, value, quality (R,) as ``kernels.detect.detect``
             limits_ms  (late_after, max_ahead, max_late)
             bucket_of  (S,) uint16 < B, ascending
             sensor_start (sources + 1,) int64
    In/out   clocks (1,) CLOCK: watermark_ms, position, tick_ms; n_agenda counts the ticks
             place (R,) int32 scratch
             cursors (B, 2) int64: where a bucket goes on, and where its block ends
             block_of (N,) int32, the bucket of each block; used (1,) int64, blocks taken
    Out      arena (N · BLOCK,) ADMITTED
             ticks (R, 2) int64: event time, position
             counts (N_COUNTS,) int64 of refused readings
    Returns  (admitted, ticks); admitted is -1 where there may be too few blocks: nothing was taken
    Cost     O(R), allocates nothing
    """
    clock = clocks[0]
    before = np.int64(clock.position)
    n_before = np.int64(clock.n_agenda)
    n_sensors = len(bucket_of)
    n_ticks = np.int64(0)
    n = np.int64(0)
    watermark_ms = np.int64(clock.watermark_ms)
    tick_ms = np.int64(clock.tick_ms)
    # What becomes of each record.
    for i in range(len(sensor)):
        s = np.int64(sensor[i])
        t_ms = event_ms[i]
        why = refused(t_ms, watermark_ms, limits_ms)
        place[i] = -1
        if s < 0 or s >= n_sensors:
            if s == ACKNOWLEDGE and why != TIME_OUT_OF_BOUNDS:
                if 0 <= value[i] < len(sensor_start) - 1:
                    place[i] = 0
                    n += sensor_start[int(value[i]) + 1] - sensor_start[int(value[i])]
            elif s == TICK and why != TIME_OUT_OF_BOUNDS:
                ticks[n_ticks, 0] = t_ms
                ticks[n_ticks, 1] = before + i
                n_ticks += 1
                tick_ms = max(tick_ms, t_ms)
            elif s == TICK or s == ACKNOWLEDGE:
                counts[TIME_OUT_OF_BOUNDS] += 1
            else:
                counts[UNKNOWN_SENSOR] += 1
            watermark_ms = max(watermark_ms, tick_ms)
            continue
        if why != ACCEPTED:
            counts[why] += 1
            continue
        watermark_ms = max(watermark_ms, t_ms)
        # late: how far behind does not matter, so one bit remembers it
        place[i] = IS_LATE if watermark_ms - t_ms > limits_ms[0] else 0
        n += 1
    if used[0] + n // BLOCK + len(cursors) > len(block_of):
        return np.int64(-1), n
    clock.watermark_ms = watermark_ms
    clock.tick_ms = tick_ms
    clock.position = before + len(sensor)
    clock.n_agenda = n_before + n_ticks
    n_seen = np.int64(0)
    for i in range(len(sensor)):
        s = np.int64(sensor[i])
        if n_seen < n_ticks and ticks[n_seen, 1] == before + i:
            n_seen += 1
        if place[i] < 0:
            continue
        first, last = s, s + 1
        flags = np.int64(place[i])
        if s == ACKNOWLEDGE:
            first, last = sensor_start[int(value[i])], sensor_start[int(value[i]) + 1]
            flags = IS_ACKNOWLEDGED
        for at in range(first, last):
            record = arena[next_place(np.int64(bucket_of[at]), cursors, block_of, used)]
            record.event_ms = event_ms[i]
            record.value = value[i]
            record.position = (before + i) & 0xFFFF_FFFF
            record.position_high = (before + i) >> 32
            record.sensor = at
            record.n_ticks = n_before + n_seen
            record.quality = quality[i]
            record.flags = flags
    return n, n_ticks


@kernel
def sort_by_sensor(arena, first_of, n_of, first_sensor, starts, out):
    """Sort a bucket's records by sensor, each sensor's staying in order.

    Shapes   M stretches of the arena, S sensors of the bucket
    In       arena ADMITTED; first_of, n_of (M,) int64, the bucket's stretches in their order
    Out      starts (S + 1,) int64, where each sensor's records begin; out ADMITTED, all must fit
    """
    for s in range(len(starts)):
        starts[s] = 0
    for m in range(len(first_of)):
        for i in range(first_of[m], first_of[m] + n_of[m]):
            starts[np.int64(arena[i].sensor) - first_sensor + 1] += 1
    for s in range(len(starts) - 1):
        starts[s + 1] += starts[s]
    for m in range(len(first_of)):
        for i in range(first_of[m], first_of[m] + n_of[m]):
            s = np.int64(arena[i].sensor) - first_sensor
            out[starts[s]] = arena[i]
            starts[s] += 1
    # Each sensor's beginning has moved to its end: move them back.
    for s in range(len(starts) - 1, 0, -1):
        starts[s] = starts[s - 1]
    starts[0] = 0

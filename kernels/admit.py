"""From a log to the history of each sensor: what the watermark lets through, sorted by sensor.

Whether a reading is refused, and whether it is late, depends on the whole log before it and on the
rules' times alone; so it is found once, however many settings are tried.

Kernels  admit(log columns, limits of time, where it goes, clock, scratch, admitted, ticks)
         sort_by_sensor(admitted, first sensor, starts, out)
Source   kernels/README.md, "The log"
Oracle   tests/kernels/test_admit.py
"""

import numpy as np

from kernels.detect import refused
from kernels.jit import kernel
from kernels.layout import (
    ACCEPTED,
    ACKNOWLEDGE,
    IS_ACKNOWLEDGED,
    IS_READING,
    TICK,
    TIME_OUT_OF_BOUNDS,
    UNKNOWN_SENSOR,
)


@kernel
def admit(
    sensor, event_ms, value, quality, limits_ms, bucket_of, sensor_start, clocks, place, ends,
    admitted, ticks, counts,
):  # fmt: skip
    """Write what one batch holds for each sensor, bucket after bucket, in the order of the log.

    Shapes   R records, S sensors, B buckets
    In       sensor, event_ms, value, quality (R,) as ``kernels.detect.detect``
             limits_ms  (late_after, max_ahead, max_late)
             bucket_of  (S,) uint16 < B, ascending
             sensor_start (sources + 1,) int64
    In/out   clocks (1,) CLOCK: watermark_ms, position, tick_ms; place (R,) int32 scratch
    Out      ends (B + 1,) int64: ends[b] is where bucket b begins in ``admitted``
             admitted (N,) ADMITTED; what an acknowledge needs must fit, too
             ticks (R, 2) int64: event time, position
             counts (N_COUNTS,) int64 of refused readings
    Returns  (admitted, ticks); admitted is -1 where N is too small: nothing was taken then
    Cost     O(R), allocates nothing
    """
    clock = clocks[0]
    before = np.int64(clock.position)
    began_ms = np.int64(clock.watermark_ms)
    n_before = np.int64(clock.n_agenda)
    n_sensors = len(bucket_of)
    n_buckets = len(ends) - 1
    for b in range(len(ends)):
        ends[b] = 0
    n_ticks = np.int64(0)
    n = np.int64(0)
    watermark_ms = began_ms
    tick_ms = np.int64(clock.tick_ms)
    # What becomes of each record, and how many go into each bucket.
    for i in range(len(sensor)):
        s = np.int64(sensor[i])
        t_ms = event_ms[i]
        why = refused(t_ms, watermark_ms, limits_ms)
        place[i] = -1
        if s < 0 or s >= n_sensors:
            if s == ACKNOWLEDGE and why != TIME_OUT_OF_BOUNDS:
                source = value[i]
                if 0 <= source < len(sensor_start) - 1:
                    place[i] = 0
                    for at in range(sensor_start[int(source)], sensor_start[int(source) + 1]):
                        ends[np.int64(bucket_of[at]) + 1] += 1
                        n += 1
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
        place[i] = 1 if watermark_ms - t_ms > limits_ms[0] else 0
        ends[np.int64(bucket_of[s]) + 1] += 1
        n += 1
    if n > len(admitted):
        return np.int64(-1), np.int64(0)
    clock.watermark_ms = watermark_ms
    clock.tick_ms = tick_ms
    clock.position = before + len(sensor)
    clock.n_agenda = n_before + n_ticks
    for b in range(n_buckets):
        ends[b + 1] += ends[b]
    n_seen = n_before
    for i in range(len(sensor)):
        s = np.int64(sensor[i])
        if n_seen - n_before < n_ticks and ticks[n_seen - n_before, 1] == before + i:
            n_seen += 1
        if place[i] < 0:
            continue
        first, last = s, s + 1
        what = IS_READING
        if s == ACKNOWLEDGE:
            first, last = sensor_start[int(value[i])], sensor_start[int(value[i]) + 1]
            what = IS_ACKNOWLEDGED
        for at in range(first, last):
            b = np.int64(bucket_of[at])
            record = admitted[ends[b]]
            ends[b] += 1
            record.event_ms = event_ms[i]
            record.value = value[i]
            record.position = before + i
            record.sensor = at
            record.n_ticks = n_seen
            record.quality = quality[i]
            record.late = place[i]
            record.what = what
    # Each bucket's beginning has moved to its end: move them back.
    for b in range(n_buckets, 0, -1):
        ends[b] = ends[b - 1]
    ends[0] = 0
    return n, n_ticks


@kernel
def sort_by_sensor(records, first_sensor, starts, out):
    """Sort the records of a bucket by sensor, each sensor's staying in order.

    Shapes   N records, S sensors of the bucket
    In       records (N,) ADMITTED, first_sensor int64
    Out      starts (S + 1,) int64, where each sensor's records begin; out (N,) ADMITTED
    """
    for s in range(len(starts)):
        starts[s] = 0
    for i in range(len(records)):
        starts[np.int64(records[i].sensor) - first_sensor + 1] += 1
    for s in range(len(starts) - 1):
        starts[s + 1] += starts[s]
    for i in range(len(records)):
        s = np.int64(records[i].sensor) - first_sensor
        out[starts[s]] = records[i]
        starts[s] += 1
    for s in range(len(starts) - 1, 0, -1):
        starts[s] = starts[s - 1]
    starts[0] = 0

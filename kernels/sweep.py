"""One history under many settings: every sensor from its first record to its last.

A sensor's readings are surveyed once for all settings that share its statistics, a stretch at a
time; what reaches no setting's limits is not looked at again. Then each distinct row of parameters
goes through the moments that matter. What comes out is fused by ``kernels.gather``.

Kernel   sweep_sensors(which clusters, bucket, tries, survey plan, scratch, what they say)
Oracle   the whole line, setting by setting: tests/kernels/test_sweep.py
"""

import numpy as np

from kernels.attempt import FULL
from kernels.jit import kernel, step
from kernels.trial import NO_RUN, try_alone, try_pack


@step
def add_heads(sensor, rows, ends, heads, n_heads):
    """Note where the runs of each row begin; return the heads so far, or FULL."""
    for row in range(rows[0], rows[1]):
        if ends[row - rows[0], 0] != NO_RUN:
            if n_heads == len(heads):
                return np.int64(FULL)
            head = heads[n_heads]
            head.run = ends[row - rows[0], 0]
            head.sensor = sensor
            head.row = row
            n_heads += 1
    return n_heads


@kernel
def sweep_sensors(
    first, last, cluster_start, bucket, tries, survey_plan, scratch, beside, said,
):  # fmt: skip
    """Detect in every sensor of some clusters, under every row that is tried, each from rest.

    Shapes   D tried rows of parameters, V envelopes, K packs, P rows of the plan
    In       cluster_start (clusters + 1,) int64: the sources of each
             bucket  (records sorted by sensor, where each sensor's begin, the bucket's first
             sensor, sensor_start)
             tries   (row of each sensor (S,), where the packs of a row begin (P + 1,), packs
             (K,) PACK, their LANE_PARAMS (K,), where the tried rows of an envelope begin (V + 1,),
             params (D,), window_params, period_ms (S,), periods of silence (V,))
             survey_plan  (envelopes (V,) PARAMS, (their window_params, ticks, ascending),
             (WINDOW_PARAMS of the packs' slots, the slot of an envelope's window (V, 16) int32))
    Scratch  scratch, beside: see engine.analysis.sweep
    Out      said    (changes, runs, heads, heads_of (N + 1,) int64 where each cluster's heads
             begin, differs (N,) uint8 whether settings differ in what they find)
    Returns  clusters done; fewer than asked for where changes, runs or heads are full: none that
             is not whole counts
    """
    row_of, packs_of, packs, lanes, rows_of, params, window_params, period_ms, after = tries
    records, starts, first_sensor, sensor_start = bucket
    envelopes, plan, _ = survey_plan
    changes, runs, heads, heads_of, differs = said
    of_pack = (params, window_params)
    room = (changes, runs)
    ends = scratch[3][3]
    n_changes = np.int64(0)
    n_runs = np.int64(0)
    n_heads = np.int64(0)
    for number in range(first, last):
        heads_of[number - first] = n_heads
        differs[number - first] = 0
        sources = (cluster_start[number], cluster_start[number + 1])
        for sensor in range(sensor_start[sources[0]], sensor_start[sources[1]]):
            a = starts[sensor - first_sensor]
            b = starts[sensor - first_sensor + 1]
            if a == b:
                continue
            row = np.int64(row_of[sensor])
            began = n_heads
            for at in range(packs_of[row], packs_of[row + 1]):
                pack = packs[at]
                # 1.1 × 1000 is a hair more than 1100: a millionth of a ms doesn't round up
                absent_ms = np.int64(np.ceil(after[pack.first] * period_ms[sensor] - 1e-6))
                rows = (rows_of[pack.first], rows_of[pack.first + pack.n])
                if pack.n == 1:
                    n_changes, n_runs, begun = try_alone(
                        records, a, b, plan, envelopes[pack.first], absent_ms, rows, of_pack,
                        scratch, room, n_changes, n_runs,
                    )  # fmt: skip
                else:
                    n_changes, n_runs, begun = try_pack(
                        records, a, b, survey_plan, pack, lanes[at], absent_ms, rows_of, of_pack,
                        scratch, beside, room, n_changes, n_runs,
                    )  # fmt: skip
                if n_changes != FULL and begun:
                    n_heads = add_heads(sensor, rows, ends, heads, n_heads)
                if n_changes == FULL or n_heads == FULL:
                    return number
            for i in range(began, n_heads):
                heads[i].n = n_heads - i
            if n_heads > began:
                pack = packs[packs_of[row + 1] - 1]
                n_rows = rows_of[pack.first + pack.n] - rows_of[packs[packs_of[row]].first]
                differs[number - first] |= n_rows > 1
        heads_of[number - first + 1] = n_heads
    return last

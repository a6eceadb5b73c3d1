"""One history under many settings: every cluster of sources from its first record to its last.

A sensor's readings are surveyed once for all settings that share its statistics, a few hundred at
a time so that they stay in the nearest cache; a stretch in which nothing reaches the envelope of
the settings is not looked at again. Then each distinct row of parameters goes through the moments
that matter, and each setting's changes are fused.

Kernel   sweep(which clusters, bucket, tries, survey plan, fusion plan, scratch, steps)
Oracle   the whole line, setting by setting: tests/kernels/test_sweep.py
"""

import numpy as np

from kernels.attempt import FULL
from kernels.follow import follow
from kernels.jit import kernel, step
from kernels.trial import NO_RUN, try_alone, try_pack

COMMON = -1
"""The setting of steps that are every setting's."""

ALL_DONE, MORE_CHANGES, MORE_STEPS = range(3)


@step
def add_heads(sensor, first_row, last_row, ends, heads, n_heads):
    """Note where the runs of each row begin; return the heads so far, or FULL."""
    for row in range(first_row, last_row):
        if ends[row - first_row, 0] != NO_RUN:
            if n_heads == len(heads):
                return np.int64(FULL)
            head = heads[n_heads]
            head.run = ends[row - first_row, 0]
            head.sensor = sensor
            head.row = row
            n_heads += 1
    return n_heads


@step
def comes_before(a, b):
    """Tell whether change ``a`` stands before ``b`` in the log; no two are of one place."""
    if a.position != b.position:
        return a.position < b.position
    return a.sensor < b.sensor


@step
def sift(order, start, n, changes):
    """Let one element of a heap sink to where it belongs; the last of the log is at the top."""
    moved = order[start]
    at = start
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and comes_before(changes[order[child]], changes[order[child + 1]]):
            child += 1
        if not comes_before(changes[moved], changes[order[child]]):
            break
        order[at] = order[child]
        at = child
    order[at] = moved


@step
def put_in_order(order, n, changes):
    """Sort places of changes by (position, sensor)."""
    sorted_already = True
    for i in range(1, n):
        if comes_before(changes[order[i]], changes[order[i - 1]]):
            sorted_already = False
            break
    if sorted_already:
        return
    for start in range(n // 2 - 1, -1, -1):
        sift(order, start, n, changes)
    for end in range(n - 1, 0, -1):
        last = order[end]
        order[end] = order[0]
        order[0] = last
        sift(order, 0, end, changes)


@step
def gather(setting, choice, row_of, n_heads, heads, runs, order):
    """Collect the places of a setting's changes; return how many."""
    n = np.int64(0)
    i = np.int64(0)
    while i < n_heads:
        sensor = heads[i].sensor
        last = i + heads[i].n
        row = choice[setting, row_of[sensor]]
        low, high = i, last
        while low < high:
            middle = (low + high) // 2
            if heads[middle].row < row:
                low = middle + 1
            else:
                high = middle
        if low < last and heads[low].row == row:
            run = heads[low].run
            while run != NO_RUN:
                for at in range(runs[run].first, runs[run].first + runs[run].n):
                    order[n] = at
                    n += 1
                run = runs[run].next
        i = last
    return n


@step
def try_sensor(
    sensor, first, last, pack, records, tries, survey_plan, scratch, beside, room, n_changes,
    n_runs, n_heads,
):  # fmt: skip
    """Detect in one sensor under every row of a pack; return (changes or FULL, runs, heads)."""
    _, _, lane_params, rows_of, params, window_params, period_ms, after = tries
    envelopes, plan, _ = survey_plan
    changes, runs, heads, _ = room
    of_pack = (params, window_params)
    last_variant = np.int64(pack.first + pack.n)
    # 1.1 × 1000 is a hair more than 1100: a millionth of a millisecond doesn't round up
    absent_ms = np.int64(np.ceil(after[pack.first] * period_ms[sensor] - 1e-6))
    if pack.n > 1:
        tried, n_tried, begun, gave_up = try_pack(
            records, first, last, survey_plan, pack, lane_params, absent_ms, rows_of, of_pack,
            scratch, beside, (changes, runs), n_changes, n_runs,
        )  # fmt: skip
        if not gave_up:
            if tried != FULL and begun:
                rows = rows_of[pack.first], rows_of[last_variant]
                n_heads = add_heads(sensor, rows[0], rows[1], scratch[3][3], heads, n_heads)
            return tried, n_tried, n_heads
    for variant in range(pack.first, last_variant):
        rows = (rows_of[variant], rows_of[variant + 1])
        n_changes, n_runs, begun = try_alone(
            records, first, last, plan, envelopes[variant], absent_ms, rows, of_pack, scratch,
            (changes, runs), n_changes, n_runs,
        )  # fmt: skip
        if n_changes == FULL:
            break
        if begun:
            n_heads = add_heads(sensor, rows[0], rows[1], scratch[3][3], heads, n_heads)
            if n_heads == FULL:
                break
    return n_changes, n_runs, n_heads


@step
def try_cluster(cluster, bucket, tries, survey_plan, scratch, beside, room):
    """Detect in every sensor of a cluster, under every distinct row of parameters.

    Returns (heads, or FULL; whether settings differ in what they find).
    """
    records, starts, first_sensor, sensor_start = bucket
    row_of, packing, lane_params, rows_of = tries[0], tries[1], tries[2], tries[3]
    packs_of, packs = packing
    heads = room[2]
    n_changes = np.int64(0)
    n_runs = np.int64(0)
    n_heads = np.int64(0)
    differ = False
    for sensor in range(sensor_start[cluster[0]], sensor_start[cluster[1]]):
        first = starts[sensor - first_sensor]
        last = starts[sensor - first_sensor + 1]
        if first == last:
            continue
        row = np.int64(row_of[sensor])
        began = n_heads
        for number in range(packs_of[row], packs_of[row + 1]):
            pack = packs[number]
            n_changes, n_runs, n_heads = try_sensor(
                sensor, first, last, pack, records,
                (row_of, packs_of, lane_params[number], rows_of, tries[4], tries[5], tries[6],
                 tries[7]),
                survey_plan, scratch, beside, room, n_changes, n_runs, n_heads,
            )  # fmt: skip
            if n_changes == FULL or n_heads == FULL:
                return np.int64(FULL), differ
        for i in range(began, n_heads):
            heads[i].n = n_heads - i
        if n_heads > began:
            last_pack = packs[packs_of[row + 1] - 1]
            n_rows = rows_of[last_pack.first + last_pack.n] - rows_of[packs[packs_of[row]].first]
            differ |= n_rows > 1
    return n_heads, differ


@kernel
def sweep(
    first, last, cluster_start, bucket, tries, survey_plan, choice, fusion, log, scratch, beside,
    room, state, transitions, steps, n_steps,
):  # fmt: skip
    """Run every setting over clusters ``first`` to ``last``, each from rest.

    Shapes   J settings, D tried rows of parameters, V envelopes, P rows of the plan, F fusions
    In       cluster_start (clusters + 1,) int64: the sources of each
             bucket  (records sorted by sensor, where each sensor's begin, the bucket's first
             sensor, sensor_start)
             tries   (row of each sensor (S,), (where the packs of a row begin (P + 1,), packs
             (K,) PACK), their LANE_PARAMS (K,), where the tried rows of an envelope begin (V + 1,),
             params (D,), window_params, period_ms (S,), periods of silence (V,))
             survey_plan  (envelopes (V,) PARAMS, (their window_params, ticks, ascending),
             (WINDOW_PARAMS of the packs' slots, the slot of an envelope's window (V, 16) int32))
             choice  (J, P) int32, the tried row that a setting has of each row
             fusion  (which of each setting (J,), params (J, P), graph, weights (F, E), categories
             (F, C), terms (F, T), signal rules (F, R), contexts (F, K))
             log     (ticks, whether their times ascend)
    Scratch  see engine.analysis.sweep; state (clock, signals, sources, agenda)
    Out      steps (N,) STEP from n_steps on: of each cluster, setting after setting
    Returns  (clusters done, steps, ALL_DONE or of what there must be more room)
    """
    row_of = tries[0]
    which, params, graph, weights, categories, terms, rules, contexts = fusion
    changes, runs, heads, order = room
    n_settings = len(which)
    for number in range(first, last):
        cluster = (cluster_start[number], cluster_start[number + 1])
        n_heads, differ = try_cluster(cluster, bucket, tries, survey_plan, scratch, beside, room)
        if n_heads == FULL:
            return number, n_steps, MORE_CHANGES
        if n_heads == 0:
            continue
        differ = differ or len(weights) > 1
        at = np.int64(n_steps)
        for setting in range(n_settings if differ else 1):
            n = gather(setting, choice, row_of, n_heads, heads, runs, order)
            if n == 0:
                continue
            put_in_order(order, n, changes)
            f = which[setting]
            plan = (
                params[setting], row_of,
                (graph[0], graph[1], graph[2], weights[f], graph[3], graph[4], graph[5], graph[6],
                 graph[7], graph[8]),
                categories[f], terms[f], rules[f], contexts[f],
            )  # fmt: skip
            at = follow(
                setting if differ else COMMON, changes, order, n, cluster, plan, log, state,
                transitions, steps, at,
            )  # fmt: skip
            if at == FULL:
                return number, n_steps, MORE_STEPS
        n_steps = at
    return last, n_steps, ALL_DONE

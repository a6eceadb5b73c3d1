"""One history under many settings: every cluster of sources from its first record to its last.

A sensor's readings are surveyed once for all settings that share its statistics, a few hundred at
a time so that they stay in the nearest cache; a stretch in which nothing reaches the envelope of
the settings is not looked at again. Then each distinct row of parameters goes through the moments
that matter, and each setting's changes are fused.

Kernel   sweep(which clusters, bucket, tries, survey plan, fusion plan, scratch, steps)
Oracle   the whole line, setting by setting: tests/kernels/test_sweep.py
"""

import numpy as np

from kernels.attempt import attempt
from kernels.follow import FULL, follow
from kernels.jit import kernel, step
from kernels.layout import FLAG_ABSENT, FLAG_ACTIVE, NEVER
from kernels.survey import note_silence, survey

STRETCH = 128
"""Records that are surveyed at a time; their moments fit the nearest cache."""
NO_RUN = -1
COMMON = -1
"""The setting of steps that are every setting's."""

ALL_DONE, MORE_CHANGES, MORE_STEPS = range(3)


@step
def forget_sensor(p, hot, rings, seconds, bins, armed):
    """Put a sensor's statistics into the state before its first reading."""
    h = hot[0]
    h.last_ms = NEVER
    h.anchor = 0.0
    h.last = 0.0
    h.mean = 0.0
    h.deviation = 0.0
    h.above = 0.0
    h.below = 0.0
    h.older = 0.0
    h.anchor_age_ms = 0
    h.older_age_ms = 0
    h.row = 0
    h.detected_s = 0
    h.n = 0
    h.n_flat = 0
    h.latched = 0
    h.pending = 0
    h.n_bad = 0
    h.flags = 0
    armed[0] = 0
    for w in range(p.n_windows):
        ring = rings[w]
        ring.newest_end_ms = 0
        ring.reference = 0.0
        ring.newest = 0
        ring.filled = 0
        ring.level = 0
        ring.loud = 0
        for place in range(len(ring.count)):
            ring.count[place] = 0
            ring.first[place] = 0.0
            seconds[w].second[place] = 0.0
    for b in range(max(np.int64(p.season_bins), 1)):
        bins[b].mean = 0.0
        bins[b].deviation = 0.0
        bins[b].n = 0


@step
def forget_rows(n, hot, cold, held, ends):
    """Put the latches of ``n`` rows of parameters to rest."""
    for row in range(n):
        h = hot[row]
        h.n_flat = 0
        h.n_bad = 0
        h.detected_s = 0
        h.latched = 0
        h.pending = 0
        h.flags = 0
        c = cold[row]
        c.levels = 0
        c.n_rate = 0
        c.n_deviation = 0
        for place in range(len(c.age_ms)):
            c.age_ms[place] = 0
        for w in range(held.shape[1]):
            held[row, w] = 0
        ends[row, 0] = NO_RUN
        ends[row, 1] = NO_RUN


@step
def keep_stats(p, stats, kept):
    """Copy a sensor's statistics, all but those of seasons."""
    hot, rings, seconds, _, armed = stats
    kept_hot, kept_rings, kept_seconds, _, kept_armed = kept
    kept_hot[0] = hot[0]
    kept_armed[0] = armed[0]
    for w in range(p.n_windows):
        kept_rings[w] = rings[w]
        kept_seconds[w] = seconds[w]


@step
def survey_stretch(
    records, first, last, end, plan, p, absent_ms, stats, noting, moments, window_n, window_value,
    loud,
):  # fmt: skip
    """Survey a stretch of a sensor's records, and the silence after the last of them."""
    hot, rings, seconds, bins, armed = stats
    n, n_loud = survey(
        records, first, last, plan, p, absent_ms, hot, rings, seconds, bins, armed, noting,
        moments, window_n, window_value, loud,
    )  # fmt: skip
    h = hot[0]
    if last == end and absent_ms and h.last_ms != NEVER and not h.flags & FLAG_ABSENT:
        _, ticks, ascending = plan
        noted = note_silence(
            h, records[last - 1], len(ticks), ticks, ascending, absent_ms, armed[0], n, moments
        )
        if noted > n:
            loud[n_loud] = n
            n_loud += 1
            n = noted if noting else n
    return n, n_loud


@step
def add_run(place, first, n, ends, runs, n_runs):
    """Chain a run of changes to those of its row of parameters."""
    run = runs[n_runs]
    run.first = first
    run.n = n
    run.next = NO_RUN
    if ends[place, 0] == NO_RUN:
        ends[place, 0] = n_runs
    else:
        runs[ends[place, 1]].next = n_runs
    ends[place, 1] = n_runs


@step
def try_rows(
    records, first, last, plan, p, absent_ms, rows, tries, scratch, room, n_changes, n_runs
):
    """Go through one sensor's history under the rows of one envelope.

    Returns (changes, runs, whether any row changed), changes FULL where there is too little room.
    """
    first_row, last_row = rows
    params, window_params = tries
    stats, kept, noted, latches = scratch
    moments, window_n, window_value, loud = noted
    hot, cold, held, ends = latches
    changes, runs = room
    forget_sensor(p, stats[0], stats[1], stats[2], stats[3], stats[4])
    begun = False
    n_active = 0
    for a in range(first, last, STRETCH):
        b = min(a + STRETCH, last)
        noting = 1 if n_active or p.season_bins else 0
        if not noting:
            keep_stats(p, stats, kept)
        n, n_loud = survey_stretch(
            records, a, b, last, plan, p, absent_ms, stats, noting, moments, window_n,
            window_value, loud,
        )  # fmt: skip
        if n_loud == 0 and n_active == 0:
            continue
        if not noting:
            keep_stats(p, kept, stats)
            n, n_loud = survey_stretch(
                records, a, b, last, plan, p, absent_ms, stats, 1, moments, window_n,
                window_value, loud,
            )  # fmt: skip
        if not begun:
            forget_rows(last_row - first_row, hot, cold, held, ends)
            begun = True
        n_active = 0
        for place in range(last_row - first_row):
            before = n_changes
            n_changes = attempt(
                place, n, n_loud, moments, loud, window_params, window_n, window_value,
                params[first_row + place], absent_ms, hot, cold, held, changes, n_changes,
            )  # fmt: skip
            if n_changes == FULL or n_runs == len(runs):
                return np.int64(FULL), n_runs, begun
            n_active += hot[place].flags & FLAG_ACTIVE != 0
            if n_changes > before:
                add_run(place, before, n_changes - before, ends, runs, n_runs)
                n_runs += 1
    return n_changes, n_runs, begun


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
def try_cluster(cluster, bucket, tries, survey_plan, scratch, room):
    """Detect in every sensor of a cluster, under every distinct row of parameters.

    Returns (heads, or FULL; whether settings differ in what they find).
    """
    records, starts, first_sensor, sensor_start = bucket
    row_of, variants_of, rows_of, params, window_params, period_ms, after = tries
    envelopes, plan = survey_plan
    latches, changes, runs, heads = scratch[3], room[0], room[1], room[2]
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
        for variant in range(variants_of[row], variants_of[row + 1]):
            rows = (rows_of[variant], rows_of[variant + 1])
            # 1.1 × 1000 is a hair more than 1100: a millionth of a millisecond doesn't round up
            absent_ms = np.int64(np.ceil(after[variant] * period_ms[sensor] - 1e-6))
            n_changes, n_runs, begun = try_rows(
                records, first, last, plan, envelopes[variant], absent_ms, rows,
                (params, window_params), scratch, (changes, runs), n_changes, n_runs,
            )  # fmt: skip
            if n_changes == FULL:
                return np.int64(FULL), differ
            if begun:
                n_heads = add_heads(sensor, rows[0], rows[1], latches[3], heads, n_heads)
                if n_heads == FULL:
                    return n_heads, differ
        for i in range(began, n_heads):
            heads[i].n = n_heads - i
        if n_heads > began:
            differ |= rows_of[variants_of[row + 1]] - rows_of[variants_of[row]] > 1
    return n_heads, differ


@kernel
def sweep(
    first, last, cluster_start, bucket, tries, survey_plan, choice, fusion, log, scratch, room,
    state, transitions, steps, n_steps,
):  # fmt: skip
    """Run every setting over clusters ``first`` to ``last``, each from rest.

    Shapes   J settings, D tried rows of parameters, V envelopes, P rows of the plan, F fusions
    In       cluster_start (clusters + 1,) int64: the sources of each
             bucket  (records sorted by sensor, where each sensor's begin, the bucket's first
             sensor, sensor_start)
             tries   (row of each sensor (S,), where the envelopes of a row begin (P + 1,), where
             the tried rows of an envelope begin (V + 1,), params (D,), window_params, period_ms
             (S,), periods of silence (V,))
             survey_plan  (envelopes (V,) PARAMS, (their window_params, ticks, ascending))
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
        n_heads, differ = try_cluster(cluster, bucket, tries, survey_plan, scratch, room)
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

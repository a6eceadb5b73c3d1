"""One sensor's history under every row of parameters that is tried in place of its own.

It is surveyed a stretch at a time, so that the moments stay in the nearest cache; a stretch in
which nothing reaches the envelope, while no row is up, is done with.
"""

import numpy as np

from kernels.attempt import FULL, attempt
from kernels.jit import step
from kernels.lanes import forget_lanes, hush, out_of_lane, survey_lanes
from kernels.layout import FLAG_ABSENT, FLAG_ACTIVE, NEVER
from kernels.survey import note_silence, survey

STRETCH = 128
"""Records that are surveyed at a time."""
NO_RUN = -1


@step
def forget_rings(n, rings, seconds):
    """Empty ``n`` windows."""
    for w in range(n):
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
    forget_rings(np.int64(p.n_windows), rings, seconds)
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
def attempt_rows(
    first_row, last_row, base, n, n_loud, tries, absent_ms, noted, latches, room, n_changes, n_runs
):
    """Go through the moments of a stretch under every row of one envelope.

    Returns (changes, runs, rows that are up), changes FULL where there is too little room.
    """
    params, window_params = tries
    moments, window_n, window_value, loud = noted
    hot, cold, held, ends = latches
    changes, runs = room
    n_active = 0
    for row in range(first_row, last_row):
        before = n_changes
        place = row - base
        n_changes = attempt(
            place, n, n_loud, moments, loud, window_params, window_n, window_value, params[row],
            absent_ms, hot, cold, held, changes, n_changes,
        )  # fmt: skip
        if n_changes == FULL or n_runs == len(runs):
            return np.int64(FULL), n_runs, n_active
        n_active += hot[place].flags & FLAG_ACTIVE != 0
        if n_changes > before:
            add_run(place, before, n_changes - before, ends, runs, n_runs)
            n_runs += 1
    return n_changes, n_runs, n_active


@step
def try_alone(
    records, first, last, plan, p, absent_ms, rows, tries, scratch, room, n_changes, n_runs
):
    """Go through one sensor's history under the rows of one envelope.

    Returns (changes, runs, whether any row was tried), changes FULL where there is too little room.
    """
    first_row, last_row = rows
    stats, kept, noted, latches = scratch
    moments, window_n, window_value, loud = noted
    hot, cold, held, ends = latches
    forget_sensor(p, stats[0], stats[1], stats[2], stats[3], stats[4])
    begun = False
    n_active = 0
    for a in range(first, last, STRETCH):
        b = min(a + STRETCH, last)
        noting = np.int64(1 if n_active or p.season_bins else 0)
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
                records, a, b, last, plan, p, absent_ms, stats, np.int64(1), moments, window_n,
                window_value, loud,
            )  # fmt: skip
        if not begun:
            forget_rows(last_row - first_row, hot, cold, held, ends)
            begun = True
        n_changes, n_runs, n_active = attempt_rows(
            first_row, last_row, first_row, n, n_loud, tries, absent_ms, noted, latches, room,
            n_changes, n_runs,
        )  # fmt: skip
        if n_changes == FULL:
            break
    return n_changes, n_runs, begun


@step
def keep_lanes(n_slots, now, kept):
    """Copy what is known of a sensor under a pack's envelopes."""
    hot, lanes, rings, seconds, armed = now
    kept_hot, kept_lanes, kept_rings, kept_seconds, kept_armed = kept
    kept_hot[0] = hot[0]
    kept_lanes[0] = lanes[0]
    kept_armed[0] = armed[0]
    for u in range(n_slots):
        kept_rings[u] = rings[u]
        kept_seconds[u] = seconds[u]


@step
def recall_lane(k, variant, p, lane_params, slot_of, kept, stats):
    """Give one lane's statistics to a survey by itself."""
    kept_hot, kept_lanes, kept_rings, kept_seconds, kept_armed = kept
    hot, rings, seconds, _, armed = stats
    out_of_lane(k, kept_hot[0], kept_lanes[0], lane_params, hot)
    armed[0] = kept_armed[0]
    for w in range(p.n_windows):
        rings[w] = kept_rings[slot_of[variant, w]]
        seconds[w] = kept_seconds[slot_of[variant, w]]


@step
def try_pack(
    records, first, last, survey_plan, pack, lane_params, absent_ms, rows_of, tries, scratch,
    beside, room, n_changes, n_runs,
):  # fmt: skip
    """Go through one sensor's history under a pack's envelopes side by side.

    Returns (changes, runs, whether any row was tried), changes FULL where there is too little room.
    """
    envelopes, plan, slots = survey_plan
    slot_params, slot_of = slots
    stats, _, noted, latches = scratch
    moments, window_n, window_value, loud = noted
    now, kept, near, active = beside
    lanes = now[1]
    n_lanes, n_slots = np.int64(pack.n), np.int64(pack.n_slots)
    base = rows_of[pack.first]
    forget_sensor(envelopes[pack.first], now[0], stats[1], stats[2], stats[3], now[4])
    forget_lanes(n_lanes, lanes[0])
    forget_rings(n_slots, now[2], now[3])
    for k in range(n_lanes):
        active[k] = 0
    begun = False
    for a in range(first, last, STRETCH):
        b = min(a + STRETCH, last)
        keep_lanes(n_slots, now, kept)
        for u in range(n_slots):
            near[u] = 0
        hush(n_lanes, lanes[0], 0.0)
        survey_lanes(
            records, a, b, last, plan, envelopes, pack, lane_params, absent_ms, now, slot_params,
            near,
        )  # fmt: skip
        for k in range(n_lanes):
            variant = np.int64(pack.first + k)
            p = envelopes[variant]
            reached = active[k] != 0 or lanes[0].loud[k] != 0.0
            for w in range(p.n_windows):
                reached |= near[slot_of[variant, w]] != 0
            if not reached:
                continue
            recall_lane(k, variant, p, lane_params, slot_of, kept, stats)
            n, n_loud = survey_stretch(
                records, a, b, last, plan, p, absent_ms, stats, np.int64(1), moments, window_n,
                window_value, loud,
            )  # fmt: skip
            if n_loud == 0 and active[k] == 0:
                continue
            if not begun:
                hot_rows, cold, held, ends = latches
                n_rows = rows_of[pack.first + n_lanes] - base
                forget_rows(n_rows, hot_rows, cold, held, ends)
                begun = True
            n_changes, n_runs, active[k] = attempt_rows(
                rows_of[variant], rows_of[variant + 1], base, n, n_loud, tries, absent_ms, noted,
                latches, room, n_changes, n_runs,
            )  # fmt: skip
            if n_changes == FULL:
                return n_changes, n_runs, begun
    return n_changes, n_runs, begun

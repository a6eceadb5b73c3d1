"""One sensor's statistics under up to sixteen envelopes at a time, as far as nothing is reached.

What of them depends on the readings alone is found once; where the envelopes differ (the running
level, its scale, the sums of drift) the arithmetic is that of ``kernels.quiet.observe``, without
branches so that one register holds several lanes, and rounded where HOT keeps float32: every lane
is, bit for bit, the scalar survey's. Windows are entered once for all lanes that have the same. In
a stretch in which a lane may reach its envelope it is surveyed again by itself.

Cost     a reading of 16 lanes takes about as long as two surveyed one by one
Oracle   tests/kernels/test_sweep.py
"""

import numpy as np

from kernels.detect import badness
from kernels.jit import inlined, step
from kernels.layout import (
    ACCEPTED,
    FLAG_ABSENT,
    IS_ACKNOWLEDGED,
    MAX_AGE_MS,
    NEVER,
)
from kernels.quiet import NEARLY
from kernels.rate import age_anchors
from kernels.survey import first_tick
from kernels.window import enter_newest, enter_window, far_off


@inlined
def rounded(x):
    """Return ``x`` as HOT keeps it."""
    return np.float64(np.float32(x))


@step
def learn_lanes(x, n_lanes, s, p):
    """Learn one value in every lane; note the lanes whose deviation it reaches."""
    # One name for each field: so the compiler sees that they lie apart, and takes several at once.
    mean, deviation, loud = s.mean, s.deviation, s.loud
    z, alpha, clip, least = p.quiet_deviation, p.alpha, p.clip, p.min_deviation
    memory, warmup = p.memory_n, p.warmup_n
    seen = s.count
    n = seen + 1.0
    share = 1.0 / n
    for k in range(n_lanes):
        r = x - mean[k]
        d = deviation[k]
        scale = d if d > least[k] else least[k]
        warm = seen >= warmup[k]
        most = clip[k] * scale
        c = r if r > -most else -most
        c = c if c < most else most
        c = c if warm else r
        a = share if n < memory[k] else alpha[k]
        mean[k] = rounded(mean[k] + a * c)
        deviation[k] = rounded(d + a * (abs(c) - d))
        loud[k] = 1.0 if warm & (abs(r) >= z[k] * scale) else loud[k]
    s.count = n


@step
def drift_lanes(x, n_lanes, s, p):
    """Add up the drift of one value in every lane, before it is learnt; note those it reaches."""
    mean, deviation, above, below, loud = s.mean, s.deviation, s.above, s.below, s.loud
    clip, least, allowance, cap = p.clip, p.min_deviation, p.allowance, p.drift_cap
    drift, warmup = p.quiet_drift, p.warmup_n
    seen = s.count
    for k in range(n_lanes):
        r = x - mean[k]
        d = deviation[k]
        scale = d if d > least[k] else least[k]
        warm = seen >= warmup[k]
        most = clip[k] * scale
        c = r if r > -most else -most
        c = c if c < most else most
        allowed = allowance[k] * scale
        top = cap[k] * scale
        up = above[k] + c - allowed
        up = up if up > 0.0 else 0.0
        up = rounded(up if up < top else top)
        up = up if warm else above[k]
        down = below[k] + -c - allowed
        down = down if down > 0.0 else 0.0
        down = rounded(down if down < top else top)
        down = down if warm else below[k]
        total = up if up > down else down
        loud[k] = 1.0 if warm & (total >= drift[k] * scale) else loud[k]
        above[k] = up
        below[k] = down


@step
def move_lanes(x, n_lanes, s):
    """Let the running levels move along with the anchor, by ``x``."""
    mean = s.mean
    for k in range(n_lanes):
        mean[k] = rounded(mean[k] - x)


@step
def hush(n_lanes, s, loud):
    """Set whether the lanes were loud."""
    for k in range(n_lanes):
        s.loud[k] = loud


@inlined
def observe_lanes(v, x, dt_ms, n_lanes, h, s, p):
    """Take one good reading, ``x`` above the anchor, into the sensor's state in every lane."""
    now = np.float32(x)
    seen = h.n != 0
    jump = abs(x - h.last) if seen else 0.0
    n_flat = min(np.int64(h.n_flat) + 1, 65_535) if seen and now == h.last else 0
    since_ms = dt_ms if seen else 0
    anchor_age_ms = min(np.int64(h.anchor_age_ms) + since_ms, MAX_AGE_MS)
    older_age_ms = min(np.int64(h.older_age_ms) + since_ms, MAX_AGE_MS)
    reached = (
        (v >= p.quiet_high)
        | (v <= p.quiet_low)
        | (jump >= p.spike_at)
        | ((p.flat_after_n != 0) & (n_flat >= p.flat_after_n))
    )
    if older_age_ms >= p.half_ms:
        near = older_age_ms * NEARLY
        moved = x - h.older
        reached |= (moved >= p.quiet_rise * near) | (-moved >= p.quiet_fall * near)
    if reached:
        hush(n_lanes, s, 1.0)
    if p.drifts:
        drift_lanes(x, n_lanes, s, p)
    learn_lanes(x, n_lanes, s, p)
    h.n = 1
    h.n_flat = n_flat
    h.older_age_ms = older_age_ms
    h.last = now
    h.anchor_age_ms = anchor_age_ms
    if anchor_age_ms >= p.half_ms:
        h.older = -x
        h.older_age_ms = anchor_age_ms
        h.last = 0.0
        h.anchor = v
        h.anchor_age_ms = 0
        move_lanes(x, n_lanes, s)


@inlined
def enter_slots(t_ms, v, n_slots, first_slot, rings, seconds, slot_params, near):
    """Take a value into every distinct window; note those that hold what may matter."""
    for u in range(n_slots):
        rules = slot_params[np.uint64(first_slot + u)]
        ring = rings[np.uint64(u)]
        second = seconds[np.uint64(u)]
        if far_off(v, ring) or t_ms - ring.newest_end_ms < -rules.pane_ms:
            enter_window(t_ms, v, ring, second, rules)
        else:
            enter_newest(t_ms, v, ring, second, rules)
        if ring.loud:
            near[np.uint64(u)] = 1


@step
def survey_lanes(
    records, first, last, end, plan, envelopes, pack, p, absent_ms, stats, slot_params, near
):
    """Run the statistics of one sensor under a pack's envelopes over some of its records.

    In       p      LANE_PARAMS of the pack
    In/out   stats  (hot (1,) HOT: what is the same in every lane, n as 0 or 1; lanes (1,) LANES;
             rings, seconds: of each distinct window; armed (1,) int64)
    Out      lanes.loud, and near (slots,) int32: what may have been reached in this stretch
    """
    _, ticks, ascending = plan
    hot, lanes, rings, seconds, armed = stats
    h = hot[0]
    s = lanes[0]
    gate = envelopes[pack.first]
    n_lanes = np.int64(pack.n)
    n_slots = np.int64(pack.n_slots)
    first_slot = np.int64(pack.first_slot)
    for i in range(first, last):
        record = records[i]
        t_ms = record.event_ms
        is_first = h.last_ms == NEVER
        if absent_ms and not is_first and not h.flags & FLAG_ABSENT:
            at = np.int64(record.n_ticks)
            due_ms = h.last_ms + absent_ms
            if at > armed[0] and first_tick(ticks, armed[0], at, due_ms, ascending) < at:
                h.flags |= FLAG_ABSENT
                hush(n_lanes, s, 1.0)
        if record.what == IS_ACKNOWLEDGED:
            continue
        v = record.value * gate.scale + gate.offset
        why = badness(record.quality, v, gate)
        dt_ms = 0 if is_first else t_ms - h.last_ms
        if dt_ms < 0:
            if why == ACCEPTED:
                for u in range(n_slots):
                    rules = slot_params[np.uint64(first_slot + u)]
                    enter_window(t_ms, v, rings[u], seconds[u], rules)
                    near[u] |= rings[u].loud != 0
            continue
        if why != ACCEPTED:
            h.flags = 0
            h.last_ms = t_ms
            armed[0] = record.n_ticks
            h.n_bad = min(np.int64(h.n_bad) + 1, 255)
            age_anchors(dt_ms, h)
            if p.bad_after_n and h.n_bad >= p.bad_after_n:
                hush(n_lanes, s, 1.0)
            continue
        if h.n == 0:
            h.anchor = v
            h.anchor_age_ms = 0
            h.older_age_ms = 0
        x = v - h.anchor
        if dt_ms == 0 and h.n != 0 and np.float32(x) == h.last:
            continue
        h.flags = 0
        h.n_bad = 0
        h.last_ms = t_ms
        armed[0] = record.n_ticks
        enter_slots(t_ms, v, n_slots, first_slot, rings, seconds, slot_params, near)
        observe_lanes(v, x, dt_ms, n_lanes, h, s, p)
    if last == end and absent_ms and h.last_ms != NEVER and not h.flags & FLAG_ABSENT:
        due_ms = h.last_ms + absent_ms
        if first_tick(ticks, armed[0], len(ticks), due_ms, ascending) < len(ticks):
            hush(n_lanes, s, 1.0)


@step
def out_of_lane(k, kept_hot, s, p, hot):
    """Give one lane's statistics as the scalar survey has them."""
    hot[0] = kept_hot
    h = hot[0]
    h.mean = s.mean[k]
    h.deviation = s.deviation[k]
    h.above = s.above[k]
    h.below = s.below[k]
    h.n = int(min(s.count, p.memory_n[k]))


@step
def forget_lanes(n_lanes, s):
    """Put the lanes into the state before the first reading."""
    s.count = 0.0
    for k in range(n_lanes):
        s.mean[k] = 0.0
        s.deviation[k] = 0.0
        s.above[k] = 0.0
        s.below[k] = 0.0

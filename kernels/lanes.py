"""One sensor's statistics under up to sixteen envelopes at a time, as far as nothing is reached.

The lanes' arithmetic is that of ``kernels.quiet.observe``, without branches so that one register
holds several lanes; what HOT keeps as float32 is rounded likewise, so every lane is, bit for bit,
the scalar survey's. Windows are entered once for all lanes that have the same. A lane that reaches
its envelope within a stretch is surveyed again by itself.

Cost     a reading of 16 lanes takes about as long as two or three surveyed one by one
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
from kernels.survey import first_tick
from kernels.window import enter_window

FARTHEST_MS = float(MAX_AGE_MS)

QUIET, GAVE_UP = range(2)


@inlined
def rounded(x):
    """Return ``x`` as HOT keeps it."""
    return np.float64(np.float32(x))


@step
def observe_lanes(v, dt_ms, n_lanes, s, p):
    """Take one good reading into every lane; note the lanes whose envelopes it reaches."""
    # One name for each field: so the compiler sees that they lie apart, and takes several at once.
    anchor, last, mean, deviation = s.anchor, s.last, s.mean, s.deviation
    above, below, older = s.above, s.below, s.older
    anchor_age_ms, older_age_ms = s.anchor_age_ms, s.older_age_ms
    count, flat, loud = s.n, s.n_flat, s.loud
    high, low, rise, fall = p.quiet_high, p.quiet_low, p.quiet_rise, p.quiet_fall
    z, drift, alpha, clip = p.quiet_deviation, p.quiet_drift, p.alpha, p.clip
    least, allowance, cap, spike = p.min_deviation, p.allowance, p.drift_cap, p.spike_at
    half_ms, memory, warmup, flat_after = p.half_ms, p.memory_n, p.warmup_n, p.flat_after_n
    for k in range(n_lanes):
        seen = count[k] != 0.0
        x = v - anchor[k]
        now = rounded(x)
        jump = abs(x - last[k]) if seen else 0.0
        repeats = flat[k] + 1.0
        repeats = repeats if repeats < 65_535.0 else 65_535.0
        repeats = repeats if seen and now == last[k] else 0.0
        since_ms = dt_ms if seen else 0.0
        age_ms = anchor_age_ms[k] + since_ms
        age_ms = age_ms if age_ms < FARTHEST_MS else FARTHEST_MS
        old_ms = older_age_ms[k] + since_ms
        old_ms = old_ms if old_ms < FARTHEST_MS else FARTHEST_MS
        moved = x - older[k]
        near = old_ms * NEARLY
        rated = old_ms >= half_ms[k]
        runs = rated & ((moved >= rise[k] * near) | (-moved >= fall[k] * near))

        r = x - mean[k]
        d = deviation[k]
        scale = d if d > least[k] else least[k]
        warm = count[k] >= warmup[k]
        most = clip[k] * scale
        c = r if r > -most else -most
        c = c if c < most else most
        c = c if warm else r
        n = count[k] + 1.0
        n = n if n < memory[k] else memory[k]
        share = 1.0 / n
        a = share if n < memory[k] else alpha[k]
        mean_now = rounded(mean[k] + a * c)
        d_now = rounded(d + a * (abs(c) - d))
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
        odd = warm & ((abs(r) >= z[k] * scale) | (total >= drift[k] * scale))

        reached = runs | odd | (v >= high[k]) | (v <= low[k])
        reached = reached | (jump >= spike[k]) | (repeats >= flat_after[k])
        loud[k] = 1.0 if reached else loud[k]
        turns = age_ms >= half_ms[k]
        older[k] = rounded(-x) if turns else older[k]
        older_age_ms[k] = age_ms if turns else old_ms
        mean[k] = rounded(mean_now - x) if turns else mean_now
        last[k] = 0.0 if turns else now
        anchor[k] = v if turns else anchor[k]
        anchor_age_ms[k] = 0.0 if turns else age_ms
        deviation[k] = d_now
        above[k] = up
        below[k] = down
        count[k] = n
        flat[k] = repeats


@step
def repeat_of(v, n_lanes, s):
    """Return in how many lanes a value is, to float32, the newest one."""
    anchor, last = s.anchor, s.last
    same = 0
    for k in range(n_lanes):
        if rounded(v - anchor[k]) == last[k]:
            same += 1
    return same


@step
def begin_lanes(v, n_lanes, s):
    """Begin with the first good value: there is nothing before it to compare with."""
    for k in range(n_lanes):
        s.anchor[k] = v
        s.anchor_age_ms[k] = 0.0
        s.older_age_ms[k] = 0.0


@step
def age_lanes(dt_ms, n_lanes, s):
    """Let the anchors of every lane grow older, saturating."""
    for k in range(n_lanes):
        s.anchor_age_ms[k] = min(s.anchor_age_ms[k] + dt_ms, FARTHEST_MS)
        s.older_age_ms[k] = min(s.older_age_ms[k] + dt_ms, FARTHEST_MS)


@step
def hush(n_lanes, s, loud):
    """Set whether the lanes were loud."""
    for k in range(n_lanes):
        s.loud[k] = loud


@step
def enter_slots(t_ms, v, n_slots, first_slot, rings, seconds, slot_params, near):
    """Take a value into every distinct window; note those that hold what may matter."""
    for u in range(n_slots):
        rules = slot_params[np.uint64(first_slot + u)]
        enter_window(t_ms, v, rings[u], seconds[u], rules)
        if rings[u].loud:
            near[u] = 1


@step
def survey_lanes(
    records, first, last, end, plan, envelopes, pack, absent_ms, hot, lanes, lane_params, rings,
    seconds, slot_params, near, armed,
):  # fmt: skip
    """Run the statistics of one sensor under a pack's envelopes over some of its records.

    In/out   hot (1,) HOT: of the sensor under all of them, last_ms, n_bad, flags, and n as 0 or 1
             lanes (1,) LANES; rings, seconds: of each distinct window; armed (1,) int64
    Out      lanes.loud, and near (slots,) int32: what was reached in this stretch
    Returns  QUIET, or GAVE_UP where lanes would have to part: a value that is a repeat in one only
    """
    _, ticks, ascending = plan
    g = hot[0]
    s = lanes[0]
    p = envelopes[pack.first]
    n_lanes = np.int64(pack.n)
    n_slots = np.int64(pack.n_slots)
    first_slot = np.int64(pack.first_slot)
    for i in range(first, last):
        record = records[i]
        t_ms = record.event_ms
        is_first = g.last_ms == NEVER
        if absent_ms and not is_first and not g.flags & FLAG_ABSENT:
            at = np.int64(record.n_ticks)
            due_ms = g.last_ms + absent_ms
            if at > armed[0] and first_tick(ticks, armed[0], at, due_ms, ascending) < at:
                g.flags |= FLAG_ABSENT
                hush(n_lanes, s, 1.0)
        if record.what == IS_ACKNOWLEDGED:
            continue
        v = record.value * p.scale + p.offset
        why = badness(record.quality, v, p)
        dt_ms = 0 if is_first else t_ms - g.last_ms
        if dt_ms < 0:
            if why == ACCEPTED:
                enter_slots(t_ms, v, n_slots, first_slot, rings, seconds, slot_params, near)
            continue
        if why != ACCEPTED:
            g.flags = 0
            g.last_ms = t_ms
            armed[0] = record.n_ticks
            g.n_bad = min(np.int64(g.n_bad) + 1, 255)
            age_lanes(float(dt_ms), n_lanes, s)
            for k in range(n_lanes):
                after = envelopes[pack.first + k].bad_after_n
                if after and g.n_bad >= after:
                    s.loud[k] = 1.0
            continue
        if g.n == 0:
            begin_lanes(v, n_lanes, s)
        elif dt_ms == 0:
            same = repeat_of(v, n_lanes, s)
            if same == n_lanes:
                continue
            if same:
                return GAVE_UP
        g.n = 1
        g.n_bad = 0
        g.flags = 0
        g.last_ms = t_ms
        armed[0] = record.n_ticks
        enter_slots(t_ms, v, n_slots, first_slot, rings, seconds, slot_params, near)
        observe_lanes(v, float(dt_ms), n_lanes, s, lane_params)
    if last == end and absent_ms and g.last_ms != NEVER and not g.flags & FLAG_ABSENT:
        due_ms = g.last_ms + absent_ms
        if first_tick(ticks, armed[0], len(ticks), due_ms, ascending) < len(ticks):
            hush(n_lanes, s, 1.0)
    return QUIET


@step
def out_of_lane(k, g, s, hot):
    """Give one lane's statistics as the scalar survey has them."""
    h = hot[0]
    h.last_ms = g.last_ms
    h.anchor = s.anchor[k]
    h.last = s.last[k]
    h.mean = s.mean[k]
    h.deviation = s.deviation[k]
    h.above = s.above[k]
    h.below = s.below[k]
    h.older = s.older[k]
    h.anchor_age_ms = int(s.anchor_age_ms[k])
    h.older_age_ms = int(s.older_age_ms[k])
    h.n = int(s.n[k])
    h.n_flat = int(s.n_flat[k])
    h.n_bad = g.n_bad
    h.flags = g.flags


@step
def forget_lanes(n_lanes, s):
    """Put the lanes into the state before the first reading."""
    for k in range(n_lanes):
        s.anchor[k] = 0.0
        s.last[k] = 0.0
        s.mean[k] = 0.0
        s.deviation[k] = 0.0
        s.above[k] = 0.0
        s.below[k] = 0.0
        s.older[k] = 0.0
        s.anchor_age_ms[k] = 0.0
        s.older_age_ms[k] = 0.0
        s.n[k] = 0.0
        s.n_flat[k] = 0.0

"""Count one setting's steps: by source for the alarm figures, and against labelled incidents.

A setting is one call: its scratch stays in the nearest cache, and a thousand calls cost nothing
beside their steps.
"""

import numpy as np

from kernels.jit import kernel, step
from kernels.layout import CLEAR, ESCALATE, N_LEVELS, RAISE

DAY_MS = 86_400_000
TOP_N = 10
MISSED = -1
"""The delay of an incident that was not found."""

MEASURE = np.dtype(
    [
        ("since_ms", "<i8"),
        ("until_ms", "<i8"),  # exclusive, after since_ms
        ("period_ms", "<i8"),  # of rates and floods
        ("flood_above", "<i8"),
        ("flood_below", "<i8"),  # at least 1
        ("chatter_n", "<i8"),
        ("chatter_ms", "<i8"),
        ("stale_ms", "<i8"),
    ]
)
"""One record: what is counted."""

SEEN = np.dtype(
    [
        ("begun_ms", "<i8"),  # of the episode that stands
        ("alarms", "<i4"),
        ("cycles", "<i4"),  # whole ones within chatter_ms of the newest's end
        ("oldest", "<i4"),  # of them
        ("newest", "<i4"),
        ("bouts", "<i4"),
        ("most", "<i4"),  # cycles
        ("turn", "<i4"),  # the count that it is of
        ("standing", "u1"),
        ("counted", "u1"),  # the episode began in the time
        ("chatters", "u1"),
        ("spare", "u1"),
    ]
)
"""One row a source; what is not of the running turn is as good as zeros."""

TALLY = np.dtype(
    [
        ("alarms", "<i8"),
        ("by_level", "<i8", (N_LEVELS,)),  # alarms by the level that they led to
        ("episodes", "<i8"),  # that began in the time
        ("standing_before", "<i8"),
        ("standing_after", "<i8"),
        ("chattering", "<i8"),  # sources
        ("bouts", "<i8"),
        ("most", "<i8"),  # cycles of a source that chatters
        ("stale", "<i8"),
        ("top_n", "<i8", (TOP_N,)),  # alarms of the busiest sources, descending
        ("top_source", "<i8", (TOP_N,)),
    ]
)
"""What a setting's steps give; zeros at first."""


@step
def note_cycle(s, end_ms, cycle, how, raised_ms, following):
    """Count an episode that ended; cycles of a source are a chain in order of time."""
    raised_ms[cycle] = s.begun_ms
    if s.cycles > 0:
        following[s.newest] = cycle
    else:
        s.oldest = cycle
    s.newest = cycle
    s.cycles += 1
    while s.cycles > 0 and raised_ms[s.oldest] < end_ms - how.chatter_ms:
        s.cycles -= 1
        if s.cycles > 0:
            s.oldest = following[s.oldest]
    s.most = max(s.most, s.cycles)
    if s.cycles < how.chatter_n:
        s.chatters = 0
    elif not s.chatters:
        s.chatters = 1
        s.bouts += 1


@step
def note_stale(begun_ms, end_ms, how, out, stale_by_day):
    """Count an episode that stood for too long, on each day on which it did."""
    first_ms = max(begun_ms + how.stale_ms, how.since_ms) - how.since_ms
    last_ms = min(end_ms, how.until_ms) - how.since_ms
    if first_ms < last_ms:
        out.stale += 1
        for day in range(first_ms // DAY_MS, (last_ms - 1) // DAY_MS + 1):
            stale_by_day[day] += 1


@step
def note_top(source, alarms, out):
    """Put a source among the busiest, where it belongs: more alarms first, then the lower index."""
    place = TOP_N
    while place > 0 and (
        out.top_n[place - 1] < alarms
        or (out.top_n[place - 1] == alarms and out.top_source[place - 1] > source)
    ):
        place -= 1
        if place + 1 < TOP_N:
            out.top_n[place + 1] = out.top_n[place]
            out.top_source[place + 1] = out.top_source[place]
    if place < TOP_N:
        out.top_n[place] = alarms
        out.top_source[place] = source


@step
def first_seen(s, turn, one, how):
    """Begin with a source, in the episode in which the steps have it."""
    s.turn = turn
    s.alarms = 0
    s.cycles = 0
    s.bouts = 0
    s.most = 0
    s.counted = 0
    s.chatters = 0
    s.standing = one.kind != RAISE
    s.begun_ms = min(one.event_ms, how.since_ms)


@kernel
def tally_alerts(steps, operator, measure, turn, scratch, keys, lasted_ms, stale_by_day, tally):
    """Count the alarms, episodes, chattering and stale episodes of one setting.

    An episode of which the steps do not have the raise began when the time did, or with its first
    step if that is earlier.

    Shapes   N steps, S sources, D days begun from since_ms to until_ms
    In       steps     (N,) STEP     those of a source in order of time
             operator  (S,) int64    of each source
             measure   (1,) MEASURE
             turn      int            another one for each call, never 0
    Scratch  (seen (S,) SEEN, raised_ms (N,) int64, following (N,) int32, touched (S,) int32)
    Out      keys      (N,) int64    operator · (until - since) + (event time - since) of each alarm
             lasted_ms (N,) int64    of each episode that began in the time, cut at until_ms
             stale_by_day (D,) int32, tally (1,) TALLY: added to, zeros at first
    Returns  (sources touched, durations); keys are as many as alarms
    Cost     O(N), allocates nothing
    Oracle   tests/kernels/test_tally.py
    """
    seen, raised_ms, following, touched = scratch
    how = measure[0]
    out = tally[0]
    span_ms = how.until_ms - how.since_ms
    n_touched = 0
    n_lasted = 0
    n_cycles = 0
    for i in range(len(steps)):
        one = steps[i]
        t_ms = one.event_ms
        s = seen[one.source]
        if s.turn != turn:
            first_seen(s, turn, one, how)
            touched[n_touched] = one.source
            n_touched += 1
        if t_ms >= how.until_ms:
            continue
        inside = t_ms >= how.since_ms
        if one.kind == RAISE:
            s.begun_ms = t_ms
            s.standing = 1
            s.counted = inside
            out.episodes += inside
        if one.kind <= ESCALATE and inside:
            keys[out.alarms] = operator[one.source] * span_ms + (t_ms - how.since_ms)
            out.alarms += 1
            out.by_level[one.level - 1] += 1
            s.alarms += 1
        if one.kind == CLEAR:
            s.standing = 0
            note_stale(s.begun_ms, t_ms, how, out, stale_by_day)
            if s.counted:
                lasted_ms[n_lasted] = t_ms - s.begun_ms
                n_lasted += 1
                note_cycle(s, t_ms, n_cycles, how, raised_ms, following)
                n_cycles += 1
            elif t_ms > how.since_ms:
                out.standing_before += 1
    for k in range(n_touched):
        source = np.int64(touched[k])
        s = seen[source]
        if s.standing:
            out.standing_after += 1
            note_stale(s.begun_ms, how.until_ms, how, out, stale_by_day)
            if s.counted:
                lasted_ms[n_lasted] = how.until_ms - s.begun_ms
                n_lasted += 1
            else:
                out.standing_before += 1
        if s.bouts > 0:
            out.chattering += 1
            out.bouts += s.bouts
            out.most = max(out.most, s.most)
        if s.alarms > 0:
            note_top(source, s.alarms, out)
    return n_touched, n_lasted


WATCH = np.dtype(
    [
        ("begun_ms", "<i8", (N_LEVELS,)),  # since when the source is at level
        ("first", "<i4"),  # the source's incidents: from here
        ("last", "<i4"),  # to before here
        ("over", "<i4"),  # before here they can't be met any more
        ("begun", "<i4"),  # before here they have begun
        ("level", "u1"),
        ("judged", "u1"),  # bit k: the episode came to level k + 1 in the time
        ("explained", "u1"),  # bit k: there, while an incident explained it
        ("touched", "u1"),
        ("spare", "u1", (4,)),
    ]
)
"""One row a source; zeros at first but for its incidents."""


@step
def pass_incident(j, s, incidents, delay_ms, peak):
    """Take an incident that has begun since the source's last step, at the level held there."""
    start_ms, lead_ms = incidents[0], incidents[3]
    peak[j] = s.level
    for k in range(np.int64(s.level)):
        if start_ms[j] - s.begun_ms[k] <= lead_ms:
            delay_ms[j, k] = 0


@step
def rise(t_ms, level, s, incidents, delay_ms):
    """Take a source to a higher level: it may find incidents, and be explained by them."""
    start_ms, last_ms, lead_ms = incidents[0], incidents[1], incidents[3]
    inside = incidents[4] <= t_ms < incidents[5]
    explained = False
    j = np.int64(s.over)
    while j < s.last and start_ms[j] - lead_ms <= t_ms:
        if last_ms[j] >= t_ms:
            explained = True
            if start_ms[j] <= t_ms:
                for k in range(np.int64(s.level), level):
                    if delay_ms[j, k] == MISSED:
                        delay_ms[j, k] = t_ms - start_ms[j]
        j += 1
    for k in range(np.int64(s.level), level):
        s.begun_ms[k] = t_ms
        s.judged |= inside << k
        s.explained |= explained << k


@step
def fall(t_ms, level, s, incidents, delay_ms):
    """Take a source to a lower level: what begins at this moment has still found it there."""
    start_ms, lead_ms = incidents[0], incidents[3]
    j = np.int64(s.begun)
    while j < s.last and start_ms[j] == t_ms:
        for k in range(level, np.int64(s.level)):
            if t_ms - s.begun_ms[k] <= lead_ms and delay_ms[j, k] == MISSED:
                delay_ms[j, k] = 0
        j += 1


@step
def end_episode(s, counts):
    """Count an episode at each level that it came to, and where nothing explained it."""
    for k in range(N_LEVELS):
        if s.judged >> k & 1:
            counts[k, 0] += 1
            if not s.explained >> k & 1:
                counts[k, 1] += 1
    s.judged = 0
    s.explained = 0


@kernel
def tally_truth(steps, incidents, watch, touched, delay_ms, peak, counts):
    """Hold one setting's steps against the incidents, at every level.

    Shapes   N steps, S sources, I incidents by source and start
    In       steps     (N,) STEP   those of a source in order of time
             incidents (start_ms (I,), last_ms (I,): the end and the grace, over_ms (I,): the
                       greatest last_ms of the source so far, lead_ms, since_ms, until_ms), int64
    Scratch  watch (S,) WATCH, as before at the end; touched (S,) int32
    Out      delay_ms (I, 4) int64   MISSED at first
             peak     (I,) uint8     the highest level during each; zeros at first
             counts   (4, 2) int64   episodes at level, false ones of them; zeros at first
    Cost     O(N + I) where few incidents of a source overlap, allocates nothing
    Oracle   engine.truth.score
    """
    start_ms, last_ms, over_ms = incidents[0], incidents[1], incidents[2]
    n_touched = 0
    for i in range(len(steps)):
        one = steps[i]
        t_ms = one.event_ms
        level = np.int64(one.level)
        s = watch[one.source]
        if not s.touched:
            s.touched = 1
            touched[n_touched] = one.source
            n_touched += 1
        if s.first < s.last:
            while s.begun < s.last and start_ms[s.begun] < t_ms:
                pass_incident(s.begun, s, incidents, delay_ms, peak)
                s.begun += 1
            while s.over < s.begun and over_ms[s.over] < t_ms:
                s.over += 1
            for j in range(s.over, s.begun):
                if last_ms[j] >= t_ms:
                    peak[j] = max(np.int64(peak[j]), level)
        if level > s.level:
            rise(t_ms, level, s, incidents, delay_ms)
        elif level < s.level:
            fall(t_ms, level, s, incidents, delay_ms)
        s.level = level
        if level == 0:
            end_episode(s, counts)
    for i in range(n_touched):
        s = watch[touched[i]]
        for j in range(s.begun, s.last):
            pass_incident(j, s, incidents, delay_ms, peak)
        end_episode(s, counts)
        s.over = s.first
        s.begun = s.first
        s.level = 0
        s.touched = 0

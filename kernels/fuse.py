"""Fusion: from the changed signals of sensors to the transitions of their sources.

Kernel   fuse(changes, where to begin, plan, state, transitions)
Cost     O(sensors + origins of the source) a change; nothing for a source that does not change
Source   weighted noisy-OR: Pearl, Probabilistic Reasoning in Intelligent Systems (1988), §4.3.2;
         levels with deadband and hold: ISA-18.2. kernels/README.md is the definition
State    SIGNAL, SOURCE, the agenda, CLOCK
Oracle   tests.oracle
"""

import numpy as np

from kernels.agenda import schedule, unschedule
from kernels.fade import fade_due_ms, faded
from kernels.jit import kernel, step
from kernels.ladder import climb
from kernels.layout import (
    BY_LIMIT,
    BY_RULE,
    BY_SCORE,
    FAR_FUTURE_MS,
    IS_BACK,
    JUDGE_SOURCE,
    N_CONTRIBUTORS,
    NEVER,
    NO_KIND,
    RAISE,
    TICK,
)
from kernels.pack import level_of, limit_level, strongest
from kernels.show import concerns, hidden_level, next_showing_ms, show

CHANGED, DUE, CONTEXT_TURNED = range(3)
"""Phases within one record of the log, in their order."""
GRAINS = 1e6
"""Parts of a score's unit that are told apart."""
ROOM = 1
"""Transitions that judging one source may need."""


@step
def current_percent(signal, row):
    """Return the percent of a sensor's strongest signal."""
    if signal.levels == 0:
        return 0
    _, percent = strongest(signal.levels, row.percent)
    return percent


@step
def held_percent(signal, now_s, half_life_ms):
    """Return what remains of the severity that a sensor once had."""
    return faded(signal.held, signal.held_s, now_s, half_life_ms) if signal.held else 0.0


@step
def take_change(change, signal, row, now_s, half_life_ms):
    """Take a sensor's new signals; what it contributed beyond them is held and fades from now."""
    kind_before, current = strongest(signal.levels, row.percent)
    held = held_percent(signal, now_s, half_life_ms)
    contributed = np.int64(max(np.float64(current), held))
    window = np.int64(signal.which) & 0x0F
    held_kind = np.int64(signal.which) >> 4
    if change.levels:
        kind, _ = strongest(change.levels, row.percent)
        if not (np.isnan(change.value) and signal.levels and kind == kind_before):
            signal.value = change.value
            window = np.int64(change.which) & 0x0F
    signal.levels = change.levels
    if current_percent(signal, row) < contributed and contributed > held:
        signal.held = contributed
        signal.held_s = now_s
        held_kind = kind_before
    signal.which = held_kind << 4 | window


@step
def own_score(source, now_s, graph, signals, rows, params, half_life_ms):
    """Return (noisy-OR of the source's sensors, 0 to 1; whether any of them fades)."""
    sensor_start = graph[0]
    keep = 1.0
    fades = False
    for sensor in range(sensor_start[source], sensor_start[source + 1]):
        signal = signals[sensor]
        if signal.levels == 0 and signal.held == 0:
            continue
        current = np.float64(current_percent(signal, params[rows[sensor]]))
        held = held_percent(signal, now_s, half_life_ms)
        keep *= 1.0 - max(current, held) / 100.0
        if held > current:
            fades = True
    return 1.0 - keep, fades


@step
def term_bits(source, near, graph, signals, rows, params, terms):
    """Return one bit for each term (of this source, or of one coupled into others) that holds."""
    sensor_start = graph[0]
    bits = np.int64(0)
    for sensor in range(sensor_start[source], sensor_start[source + 1]):
        levels = signals[sensor].levels
        if levels == 0:
            continue
        quantity = params[rows[sensor]].quantity
        for t in range(len(terms)):
            term = terms[t]
            if (
                term.quantity == quantity
                and term.near == near
                and level_of(levels, np.int64(term.kind)) >= term.level
            ):
                bits |= np.int64(1) << np.int64(t)
    return bits


@step
def rule_floor(source, graph, signals, rows, params, terms, rules):
    """Return (highest level that a signal rule asks for, the first rule that asks for it or -1)."""
    coupled_start, coupled_origin, category_of = graph[1], graph[2], graph[6]
    level = 0
    found = -1
    if len(rules) == 0:
        return level, found
    bits = term_bits(source, np.int64(0), graph, signals, rows, params, terms)
    for edge in range(coupled_start[source], coupled_start[source + 1]):
        origin = np.int64(coupled_origin[edge])
        bits |= term_bits(origin, np.int64(1), graph, signals, rows, params, terms)
    for r in range(len(rules)):
        rule = rules[r]
        if (
            rule.level > level
            and rule.categories >> category_of[source] & 1
            and bits & rule.all == rule.all
            and (rule.any == 0 or bits & rule.any)
            and bits & rule.none == 0
        ):
            level = np.int64(rule.level)
            found = r
    return level, found


@step
def limit_floor(source, graph, signals, rows, params):
    """Return the highest closed limit of sensors whose profile makes it a floor of the level."""
    sensor_start = graph[0]
    level = 0
    for sensor in range(sensor_start[source], sensor_start[source + 1]):
        levels = signals[sensor].levels
        if levels and params[rows[sensor]].floor:
            level = max(level, limit_level(levels))
    return level


@step
def factor_of(source, now_ms, graph, categories, contexts):
    """Return the product of the source's static class factor and every context in force."""
    category_of, class_of, district_of = graph[6], graph[7], graph[8]
    factor = categories[category_of[source]].class_factor[class_of[source]]
    for i in range(len(contexts)):
        context = contexts[i]
        if (
            context.from_ms <= now_ms < context.to_ms
            and context.categories >> category_of[source] & 1
            and (context.district < 0 or context.district == district_of[source])
        ):
            factor *= context.factor
    return factor


@step
def note_contributors(transition, source, now_s, graph, signals, rows, params, half_life_ms):
    """Write the sensors that contribute most, the strongest first, the lower index among equals."""
    sensor_start = graph[0]
    for i in range(N_CONTRIBUTORS):
        transition.contributor[i].sensor = -1
        transition.contributor[i].percent = 0.0
        transition.contributor[i].value = 0.0
        transition.contributor[i].kind = NO_KIND
        transition.contributor[i].level = 0
        transition.contributor[i].window = 0
    for sensor in range(sensor_start[source], sensor_start[source + 1]):
        signal = signals[sensor]
        if signal.levels == 0 and signal.held == 0:
            continue
        row = params[rows[sensor]]
        current = np.float64(current_percent(signal, row))
        percent = max(current, held_percent(signal, now_s, half_life_ms))
        if percent <= 0.0:
            continue
        kind = np.int64(signal.which) >> 4
        level = 0
        if current >= percent:
            kind, _ = strongest(signal.levels, row.percent)
            level = level_of(signal.levels, kind)
        place = N_CONTRIBUTORS
        while place > 0 and (
            transition.contributor[place - 1].sensor < 0
            or transition.contributor[place - 1].percent < np.float32(percent)
        ):
            place -= 1
        for i in range(N_CONTRIBUTORS - 1, place, -1):
            transition.contributor[i].sensor = transition.contributor[i - 1].sensor
            transition.contributor[i].percent = transition.contributor[i - 1].percent
            transition.contributor[i].value = transition.contributor[i - 1].value
            transition.contributor[i].kind = transition.contributor[i - 1].kind
            transition.contributor[i].level = transition.contributor[i - 1].level
            transition.contributor[i].window = transition.contributor[i - 1].window
        if place < N_CONTRIBUTORS:
            transition.contributor[place].sensor = sensor
            transition.contributor[place].percent = percent
            transition.contributor[place].value = signal.value
            transition.contributor[place].kind = kind
            transition.contributor[place].level = level
            transition.contributor[place].window = np.int64(signal.which) & 0x0F


@step
def fused_score(source, now_s, graph, signals, rows, params, categories):
    """Return (noisy-OR with what is coupled in, strongest origin or -1, its share, half-life).

    The half-life is the shortest among what fades, and 0 where nothing does.
    """
    coupled_start, coupled_origin, coupled_weight = graph[1], graph[2], graph[3]
    category_of = graph[6]
    half_life_ms = categories[category_of[source]].half_life_ms
    own, fades = own_score(source, now_s, graph, signals, rows, params, half_life_ms)
    keep = 1.0 - own
    coupled_from = -1
    coupled = 0.0
    for edge in range(coupled_start[source], coupled_start[source + 1]):
        origin = np.int64(coupled_origin[edge])
        origin_half_life_ms = categories[category_of[origin]].half_life_ms
        share, origin_fades = own_score(
            origin, now_s, graph, signals, rows, params, origin_half_life_ms
        )
        share *= coupled_weight[edge]
        keep *= 1.0 - share
        if share > coupled:
            coupled = share
            coupled_from = origin
        if origin_fades:
            fades = True
            half_life_ms = min(half_life_ms, origin_half_life_ms)
    return 1.0 - keep, coupled_from, coupled, half_life_ms if fades else 0


@step
def on_grain(score):
    """Return a score in whole millionths: 1 − (1 − 0.2) is a hair less than 0.2."""
    return np.floor(score * GRAINS + 0.5) / GRAINS


@step
def move_level(called, now_ms, s, category):
    """Move a source to the level called for: up at once, down once called for long enough."""
    if called < s.level:
        if s.below_ms == NEVER:
            s.below_ms = now_ms
        if now_ms - s.below_ms < category.hold_ms:
            return
    s.below_ms = NEVER
    s.level = called


@step
def next_due_ms(now_ms, score, half_life_ms, s, category):
    """Return when the source must be judged again though nothing changes."""
    due_ms = FAR_FUTURE_MS
    if s.below_ms != NEVER:
        due_ms = s.below_ms + category.hold_ms
    if half_life_ms and s.level > 0:
        target = category.raise_at[np.int64(s.level) - 1] - category.deadband
        if target > 0.0 and score >= target:
            # a grain early: what fades is the score as it was before it was rounded
            early = fade_due_ms(score, target + 1.0 / GRAINS, half_life_ms)
            due_ms = min(due_ms, now_ms + early)
    return due_ms


@step
def judge_source(source, t_ms, why, plan, state, transitions, n):
    """Judge one source at event time ``t_ms``; return the number of transitions written so far.

    ``why`` is (phase, the source that triggered it, late, position in the log), all int64.
    """
    params, rows, graph, categories, terms, rules, contexts = plan
    clocks, signals, sources, agenda = state
    s = sources[source]
    category = categories[graph[6][source]]
    now_ms = max(t_ms, s.last_ms)
    s.last_ms = now_ms
    now_s = now_ms // 1000
    fused, coupled_from, coupled, half_life_ms = fused_score(
        source, now_s, graph, signals, rows, params, categories
    )
    factor = factor_of(source, now_ms, graph, categories, contexts)
    score = min(100.0, on_grain(100.0 * fused * factor))
    s.score = score

    level_from = np.int64(s.level)
    by_score = climb(score, category.raise_at, 1.0, category.deadband, level_from)
    by_limit = limit_floor(source, graph, signals, rows, params)
    by_rule, rule = rule_floor(source, graph, signals, rows, params, terms, rules)
    called = max(by_score, by_limit, by_rule)
    move_level(called, now_ms, s, category)
    level = np.int64(s.level)
    shown_from = np.int64(s.shown)
    hidden, hidden_by = hidden_level(source, s, graph, clocks[0])
    shown = level if level > hidden else 0
    kind = show(shown, now_ms, s)
    if kind >= 0:
        cause = BY_SCORE
        if by_rule == called and by_rule > max(by_limit, by_score):
            cause = BY_RULE
        elif by_limit > by_score and by_limit >= by_rule:
            cause = BY_LIMIT
        if shown < level:
            cause = hidden_by
        elif kind == RAISE and level <= level_from:
            cause = IS_BACK
        transition = transitions[n]
        n += 1
        transition.position = why[3]
        transition.event_ms = now_ms
        transition.episode_ms = s.episode_ms
        transition.trigger_ms = t_ms
        transition.score = score
        transition.factor = factor
        transition.coupled_percent = 100.0 * coupled
        transition.source = source
        transition.trigger = why[1]
        transition.coupled_from = coupled_from
        transition.rule = rule
        transition.seq = s.seq
        transition.phase = why[0]
        transition.kind = kind
        transition.level_from = shown_from
        transition.level = shown
        transition.standing = level
        transition.cause = cause
        transition.late = why[2]
        transition.reached = s.reached
        note_contributors(
            transition, source, now_s, graph, signals, rows, params, category.half_life_ms
        )
        s.seq += 1

    due_ms = next_due_ms(now_ms, score, half_life_ms, s, category)
    if level > 0:
        due_ms = min(due_ms, next_showing_ms(source, s, graph, clocks[0]))
    if due_ms < FAR_FUTURE_MS:
        schedule(source, due_ms, clocks[0], agenda, sources)
    else:
        unschedule(source, clocks[0], agenda, sources)
    return n


@step
def next_turn_ms(after_ms, contexts):
    """Return the next time after ``after_ms`` at which a context begins or ends."""
    turn_ms = FAR_FUTURE_MS
    for i in range(len(contexts)):
        if contexts[i].from_ms > after_ms:
            turn_ms = min(turn_ms, contexts[i].from_ms)
        if contexts[i].to_ms > after_ms:
            turn_ms = min(turn_ms, contexts[i].to_ms)
    return turn_ms


@step
def take_time(now_ms, position, shard, plan, state, transitions, n):
    """Judge all that is due at ``now_ms``; return (transitions, done).

    Not done means that the transitions are full, and that the same tick must be given again.
    """
    clocks, _, sources, agenda = state
    contexts = plan[6]
    clock = clocks[0]
    while clock.turning == 0 and clock.n_agenda:
        source = np.int64(agenda[0])
        due_ms = sources[source].due_ms
        if due_ms > now_ms:
            break
        if n + ROOM > len(transitions):
            return n, False
        unschedule(source, clock, agenda, sources)
        clock.told_ms = max(clock.told_ms, due_ms)
        why = (np.int64(DUE), source, np.int64(0), position)
        n = judge_source(source, due_ms, why, plan, state, transitions, n)
    # What a turn makes due waits for the next tick, also when this one has to be given again.
    clock.turning = 1
    clock.told_ms = max(clock.told_ms, now_ms)
    while clock.context_ms <= now_ms:
        turn_ms = clock.context_ms
        source = max(np.int64(clock.context_source), shard[0])
        while source < shard[1]:
            if n + ROOM > len(transitions):
                clock.context_source = source
                return n, False
            if sources[source].level > 0 or sources[source].score > 0.0:
                why = (np.int64(CONTEXT_TURNED), source, np.int64(0), position)
                n = judge_source(source, turn_ms, why, plan, state, transitions, n)
            source += 1
        clock.context_source = 0
        clock.context_ms = next_turn_ms(turn_ms, contexts)
    clock.turning = 0
    return n, True


@step
def take_command(change, shard, plan, state, transitions, n):
    """Judge the sources that a command is about, as far as they are not normal, in order.

    Returns (transitions, done). Not done means that the transitions are full, and that the same
    change must be given again.
    """
    clocks, _, sources, _ = state
    graph = plan[2]
    clock = clocks[0]
    scope = np.int64(change.sensor)
    index = np.int64(change.value)
    source = max(np.int64(clock.context_source), shard[0])
    last = shard[1]
    if scope == JUDGE_SOURCE:
        source = max(index, shard[0])
        last = min(index + 1, shard[1])
    while source < last:
        if sources[source].level > 0 and concerns(scope, index, source, graph):
            if n + ROOM > len(transitions):
                clock.context_source = source
                return n, False
            why = (np.int64(CHANGED), source, np.int64(0), change.position)
            n = judge_source(source, change.event_ms, why, plan, state, transitions, n)
        source += 1
    clock.context_source = 0
    return n, True


@kernel
def fuse(changes, n_changes, start, shard, plan, state, transitions):
    """Judge the source of every change from ``start`` on, what it is coupled into, what is due.

    In       changes (N,) CHANGE from detect; n_changes of them count
             shard  (first source, one past the last)
             plan   (params, row of each sensor, graph, categories, terms, signal rules, contexts)
             graph  (sensor_start, coupled_start, coupled_origin, coupled_weight, coupling_start,
             coupling_target, category, static class, district, source of each sensor)
    In/out   state  (clock (1,), signals (S,), sources, agenda)
    Out      transitions (T,) TRANSITION in the log's order
    Returns  (changes consumed, transitions written); fewer than asked for when transitions are full
    """
    params, rows, graph, categories = plan[0], plan[1], plan[2], plan[3]
    clocks, signals = state[0], state[1]
    coupling_start, coupling_target, category_of, source_of = graph[4], graph[5], graph[6], graph[9]
    clock = clocks[0]
    n = np.int64(0)
    i = start
    while i < n_changes:
        change = changes[i]
        sensor = change.sensor
        if sensor == TICK:
            n, done = take_time(
                change.event_ms, change.position, shard, plan, state, transitions, n
            )
            if not done:
                break
            i += 1
            continue
        if sensor < 0:
            n, done = take_command(change, shard, plan, state, transitions, n)
            if not done:
                break
            i += 1
            continue
        source = np.int64(source_of[sensor])
        why = (np.int64(CHANGED), source, np.int64(change.late), change.position)
        first = coupling_start[source]
        last = coupling_start[source + 1]
        if clock.edge == 0:
            if n + ROOM > len(transitions):
                break
            now_s = max(change.event_ms, state[2][source].last_ms) // 1000
            half_life_ms = categories[category_of[source]].half_life_ms
            take_change(change, signals[sensor], params[rows[sensor]], now_s, half_life_ms)
            n = judge_source(source, change.event_ms, why, plan, state, transitions, n)
            clock.edge = 1
        while first + clock.edge <= last and n + ROOM <= len(transitions):
            target = np.int64(coupling_target[first + clock.edge - 1])
            n = judge_source(target, change.event_ms, why, plan, state, transitions, n)
            clock.edge += 1
        if first + clock.edge <= last:
            break
        clock.edge = 0
        i += 1
    return i - start, n

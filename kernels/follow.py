"""Fusion of one cluster under one setting: its sensors' changes in, the steps of its levels out.

A cluster is a range of sources that no coupling leaves, so it can be followed alone. Of the log's
ticks only those are taken at which something of it is due: any other would move nothing.

Source   kernels/README.md, "Fusion of one source"
Oracle   the whole line: tests/kernels/test_sweep.py
"""

import numpy as np

from kernels.attempt import FULL
from kernels.fuse import CHANGED, judge_source, next_turn_ms, take_change, take_time
from kernels.jit import step
from kernels.layout import FAR_FUTURE_MS, NEVER
from kernels.survey import first_tick


@step
def put_to_rest(cluster, graph, state):
    """Put a cluster into the state before the first record of the log."""
    sensor_start = graph[0]
    clocks, signals, sources, _ = state
    for at in range(sensor_start[cluster[0]], sensor_start[cluster[1]]):
        signal = signals[at]
        signal.value = 0.0
        signal.levels = 0
        signal.held_s = 0
        signal.held = 0
        signal.which = 0
    for at in range(cluster[0], cluster[1]):
        s = sources[at]
        s.last_ms = NEVER
        s.below_ms = NEVER
        s.episode_ms = NEVER
        s.due_ms = 0
        s.score = 0.0
        s.place = NEVER
        s.seq = 0
        s.level = 0
        s.reached = 0
        s.shown = 0
    clock = clocks[0]
    clock.n_agenda = 0
    clock.turning = 0
    clock.context_source = 0
    clock.told_ms = 0


@step
def keep_steps(setting, transitions, n, steps, at):
    """Keep transitions in their short form; return the steps so far, or FULL."""
    if at + n > len(steps):
        return np.int64(FULL)
    for i in range(n):
        t = transitions[i]
        s = steps[at]
        s.position = t.position
        s.event_ms = t.event_ms
        s.score = t.score
        s.source = t.source
        s.setting = setting
        s.kind = t.kind
        s.level_from = t.level_from
        s.level = t.level
        s.cause = t.cause
        at += 1
    return np.int64(at)


@step
def pass_ticks(tick, position, setting, cluster, plan, log, state, transitions, steps, at):
    """Take the ticks before a position of the log at which anything is due.

    Returns (the next tick that may be taken, the steps so far or FULL).
    """
    ticks, ascending = log
    clocks, _, sources, agenda = state
    clock = clocks[0]
    while at != FULL:
        due_ms = np.int64(clock.context_ms)
        if clock.n_agenda:
            due_ms = min(due_ms, np.int64(sources[agenda[0]].due_ms))
        if due_ms == FAR_FUTURE_MS:
            break
        found = first_tick(ticks, tick, len(ticks), due_ms, ascending)
        if found == len(ticks) or ticks[found, 1] >= position:
            break
        done = False
        while not done and at != FULL:
            n, done = take_time(
                ticks[found, 0], ticks[found, 1], cluster, plan, state, transitions, np.int64(0)
            )
            at = keep_steps(setting, transitions, n, steps, at)
        tick = found + 1
    return tick, at


@step
def ticks_before(position, ticks, low):
    """Return how many ticks stand before a position of the log, at least ``low``."""
    high = len(ticks)
    while low < high:
        middle = (low + high) // 2
        if ticks[middle, 1] < position:
            low = middle + 1
        else:
            high = middle
    return low


@step
def follow(setting, changes, order, n_changes, cluster, plan, log, state, transitions, steps, at):
    """Fuse a cluster's changes, in their order, from rest to the end of the log.

    Returns the steps so far, or FULL.
    """
    ticks, _ = log
    params, rows, graph, categories = plan[0], plan[1], plan[2], plan[3]
    coupling_start, coupling_target, category_of, source_of = graph[4], graph[5], graph[6], graph[9]
    clocks, signals, sources, _ = state
    put_to_rest(cluster, graph, state)
    clocks[0].context_ms = next_turn_ms(NEVER, plan[6])
    tick = np.int64(0)
    for i in range(n_changes):
        change = changes[order[i]]
        tick, at = pass_ticks(
            tick, change.position, setting, cluster, plan, log, state, transitions, steps, at
        )
        if at == FULL:
            return at
        sensor = change.sensor
        source = np.int64(source_of[sensor])
        why = (np.int64(CHANGED), source, np.int64(change.late), np.int64(change.position))
        now_s = max(change.event_ms, sources[source].last_ms) // 1000
        half_life_ms = categories[category_of[source]].half_life_ms
        take_change(change, signals[sensor], params[rows[sensor]], now_s, half_life_ms)
        n = judge_source(source, change.event_ms, why, plan, state, transitions, np.int64(0))
        at = keep_steps(setting, transitions, n, steps, at)
        for edge in range(coupling_start[source], coupling_start[source + 1]):
            if at == FULL:
                return at
            target = np.int64(coupling_target[edge])
            n = judge_source(target, change.event_ms, why, plan, state, transitions, np.int64(0))
            at = keep_steps(setting, transitions, n, steps, at)
        if at == FULL:
            return at
        tick = ticks_before(change.position, ticks, tick)
    _, at = pass_ticks(
        tick, np.int64(FAR_FUTURE_MS), setting, cluster, plan, log, state, transitions, steps, at
    )
    return at

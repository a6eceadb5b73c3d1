"""The sources of a sweep: each setting's changes gathered, put in the log's order, and fused.

Kernel   sweep_sources(which clusters, what the sensors said, fusion plan, scratch, steps)
Oracle   the whole line, setting by setting: tests/kernels/test_sweep.py
"""

import numpy as np

from kernels.attempt import FULL
from kernels.follow import follow
from kernels.jit import kernel, step
from kernels.trial import NO_RUN

COMMON = -1
"""The setting of steps that are every setting's."""


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
        sift(order, np.int64(0), end, changes)


@step
def gather(setting, choice, row_of, first, last_head, heads, runs, order):
    """Collect the places of a setting's changes; return how many."""
    n = np.int64(0)
    i = first
    while i < last_head:
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


@kernel
def sweep_sources(
    first, last, cluster_start, said, row_of, choice, fusion, log, state, order, transitions,
    steps, n_steps,
):  # fmt: skip
    """Fuse what the sensors of clusters ``first`` to ``last`` said, setting by setting.

    Shapes   J settings, P rows of the plan, F fusions
    In       cluster_start (clusters + 1,) int64: the sources of each
             said    (changes, runs, heads, heads_of, differs) of `kernels.sweep.sweep_sensors`
             row_of  (S,) uint32, row of each sensor
             choice  (J, P) int32, the tried row that a setting has of each row
             fusion  (which of the parts that follow the graph each setting has (J, 5) int32,
             params (J, P), graph, weights (F, E), categories (F, C), terms (F, T), signal rules
             (F, R), contexts (F, K); each part has an F of its own)
             log     (ticks, whether their times ascend)
    Scratch  state (clock, signals, sources, agenda); order int64 as long as changes; transitions
    Out      steps (N,) STEP from n_steps on: of each cluster, setting after setting
    Returns  (clusters done, steps); fewer than asked for where there must be more room for steps
    """
    which, params, graph, weights, categories, terms, rules, contexts = fusion
    changes, runs, heads, heads_of, differs = said
    n_settings = len(which)
    n_fusions = max(len(weights), len(categories), len(terms), len(rules), len(contexts))
    for number in range(first, last):
        began, ended = heads_of[number - first], heads_of[number - first + 1]
        if began == ended:
            continue
        cluster = (cluster_start[number], cluster_start[number + 1])
        differ = differs[number - first] != 0 or n_fusions > 1
        at = np.int64(n_steps)
        for setting in range(n_settings if differ else 1):
            n = gather(setting, choice, row_of, began, ended, heads, runs, order)
            if n == 0:
                continue
            put_in_order(order, n, changes)
            plan = (
                params[setting], row_of,
                (graph[0], graph[1], graph[2], weights[which[setting, 0]], graph[3], graph[4],
                 graph[5], graph[6], graph[7], graph[8]),
                categories[which[setting, 1]], terms[which[setting, 2]], rules[which[setting, 3]],
                contexts[which[setting, 4]],
            )  # fmt: skip
            at = follow(
                setting if differ else COMMON, changes, order, n, cluster, plan, log, state,
                transitions, steps, at,
            )  # fmt: skip
            if at == FULL:
                return number, n_steps
        n_steps = at
    return last, n_steps

"""The load of operators: peaks and floods of alarms in a window that slides over event time.

Alarms are sorted keys, ``operator · span + event time − since``: those of an operator are one run.
What every setting has in common is counted once; a setting adds its own alarms to the operators
that have any, and as more alarms never make a peak lower nor a flood shorter, the greatest of all
operators is the greater of what is common and of those.
"""

import numpy as np

from kernels.jit import kernel, step

LOAD = np.dtype(
    [
        ("alarms", "<i8"),
        ("peak_n", "<i8"),
        ("peak_ms", "<i8"),  # the first alarm of the first period with so many
        ("floods", "<i8"),
        ("flood_ms", "<i8"),
    ]
)
"""One row an operator."""

MOST = np.dtype(
    [
        ("operator", "<i8"),  # the first with the most alarms; -1: there are none
        ("alarms", "<i8"),  # of that one
        ("peak_n", "<i8"),  # of any
        ("floods", "<i8"),  # of all
        ("flood_ms", "<i8"),  # of the worst
    ]
)
"""The load of all operators of a setting."""


@step
def oldest_of(own, i, i_end, base, j, j_end):
    """Return the lesser of two sorted runs' first keys, and whether it is one's own."""
    if j >= j_end or (i < i_end and own[i] <= base[j]):
        return own[i], True
    return base[j], False


@step
def end_flood(began, ended, shift, load, floods, n_floods):
    """Note a flood, as keys; its times are kept where there is room."""
    place = n_floods + load.floods
    if place < len(floods):
        floods[place, 0] = began - shift
        floods[place, 1] = ended - shift
    load.floods += 1
    load.flood_ms += ended - began


@step
def slide(own, i, i_end, base, j, j_end, shift, measure, load, floods, n_floods):
    """Slide the window over one operator's alarms: two sorted runs of keys, merged on the way."""
    how = measure[0]
    period_ms = how.period_ms
    load.alarms = i_end - i + j_end - j
    load.peak_n = 0
    load.peak_ms = 0
    load.floods = 0
    load.flood_ms = 0
    a = i
    b = j
    count = 0
    flooding = False
    began = np.int64(0)
    while i < i_end or j < j_end:
        key, _ = oldest_of(own, i, i_end, base, j, j_end)
        while count > 0:
            old, is_own = oldest_of(own, a, i, base, b, j)
            if old + period_ms > key:
                break
            a += is_own
            b += not is_own
            count -= 1
            # what leaves at this very moment makes room for what comes
            if flooding and count < how.flood_below and old + period_ms < key:
                end_flood(began, old + period_ms, shift, load, floods, n_floods)
                flooding = False
        while i < i_end and own[i] == key:
            i += 1
            count += 1
        while j < j_end and base[j] == key:
            j += 1
            count += 1
        if count > load.peak_n:
            old, is_own = oldest_of(own, a, i, base, b, j)
            load.peak_n = count
            load.peak_ms = old - shift
        if not flooding and count > how.flood_above:
            flooding = True
            began = key
        elif flooding and count < how.flood_below:
            end_flood(began, key, shift, load, floods, n_floods)
            flooding = False
    while flooding:
        old, is_own = oldest_of(own, a, i, base, b, j)
        a += is_own
        b += not is_own
        count -= 1
        if count < how.flood_below:
            ended = min(old + period_ms, how.until_ms + shift)
            end_flood(began, ended, shift, load, floods, n_floods)
            flooding = False


@kernel
def load_operators(keys, starts, measure, loads, floods):
    """Return the number of floods, and the load of every operator.

    Shapes   K alarms, O operators
    In       keys    (K,) int64    ascending
             starts  (O + 1,) int64  where each operator's begin
             measure (1,) MEASURE
    Out      loads   (O,) LOAD
             floods  (F, 2) int64  begin and end in ms, operator after operator; as many as fit
    Cost     O(K + O), allocates nothing
    Oracle   tests/kernels/test_load.py
    """
    how = measure[0]
    span_ms = how.until_ms - how.since_ms
    n = np.int64(0)
    for o in range(len(loads)):
        shift = o * span_ms - how.since_ms
        slide(keys, starts[o], starts[o + 1], keys, 0, 0, shift, measure, loads[o], floods, n)
        n += loads[o].floods
    return n


@kernel
def load_setting(own, base, starts, loads, measure, scratch, most):
    """Add a setting's own alarms to what all settings have in common.

    Shapes   K own alarms, B common ones, O operators
    In       own, base (K,), (B,) int64  keys, ascending
             starts    (O + 1,) int64    where each operator's begin in base
             loads     (O,) LOAD         of base alone
             measure   (1,) MEASURE
    Scratch  (load (1,) LOAD, floods (0, 2) int64)
    In/out   most      (1,) MOST         of base alone at first
    Cost     O(K + base of the operators in own), allocates nothing
    Oracle   load_operators of both together
    """
    merged, floods = scratch[0], scratch[1]
    how = measure[0]
    span_ms = how.until_ms - how.since_ms
    load = merged[0]
    out = most[0]
    i = 0
    while i < len(own):
        o = own[i] // span_ms
        i_end = i
        while i_end < len(own) and own[i_end] < (o + 1) * span_ms:
            i_end += 1
        shift = o * span_ms - how.since_ms
        slide(own, i, i_end, base, starts[o], starts[o + 1], shift, measure, load, floods, 0)
        if load.alarms > out.alarms or (load.alarms == out.alarms and o < out.operator):
            out.operator = o
            out.alarms = load.alarms
        out.peak_n = max(out.peak_n, load.peak_n)
        out.floods += load.floods - loads[o].floods
        out.flood_ms = max(out.flood_ms, load.flood_ms)
        i = i_end

"""What is shown of a source, unless it is shelved, suppressed, or out of service.

Hiding goes by how far ticks have moved time (``clock.told_ms``), never by a reading's clock.

State    SOURCE.shelved_ms, SOURCE.out_of_service; CLOCK.suppressed, CLOCK.told_ms
Source   ISA-18.2 §11 and IEC 62682 §11: shelved, suppressed by design, out of service
Oracle   tests.oracle.fusion
"""

import numpy as np

from kernels.jit import step
from kernels.layout import (
    CLEAR,
    DE_ESCALATE,
    ESCALATE,
    FAR_FUTURE_MS,
    IS_OUT_OF_SERVICE,
    IS_SHELVED,
    IS_SUPPRESSED,
    JUDGE_DISTRICT,
    JUDGE_SOURCE,
    NEVER,
    ORANGE,
    RAISE,
    RED,
)


@step
def concerns(scope, index, source, graph):
    """Tell whether a source is the one meant, or in the district or category meant."""
    if scope == JUDGE_SOURCE:
        return index == source
    if scope == JUDGE_DISTRICT:
        return index == graph[8][source]
    return index == graph[6][source]


@step
def hidden_level(source, s, graph, clock):
    """Return (the highest level that is not shown, what hides it)."""
    if s.level == 0:
        return 0, IS_SHELVED
    if s.out_of_service:
        return RED, IS_OUT_OF_SERVICE
    if clock.told_ms < s.shelved_ms:
        return ORANGE, IS_SHELVED
    for i in range(clock.n_suppressed):
        window = clock.suppressed[i]
        if window.from_ms <= clock.told_ms < window.until_ms and concerns(
            np.int64(window.scope), np.int64(window.index), source, graph
        ):
            return ORANGE, IS_SUPPRESSED
    return 0, IS_SHELVED


@step
def next_showing_ms(source, s, graph, clock):
    """Return the next time at which another level may be hidden of the source."""
    due_ms = s.shelved_ms if clock.told_ms < s.shelved_ms else FAR_FUTURE_MS
    for i in range(clock.n_suppressed):
        window = clock.suppressed[i]
        if window.until_ms > clock.told_ms and concerns(
            np.int64(window.scope), np.int64(window.index), source, graph
        ):
            begun = window.from_ms <= clock.told_ms
            due_ms = min(due_ms, window.until_ms if begun else window.from_ms)
    return due_ms


@step
def show(level, now_ms, s):
    """Show another level of a source; return the kind of transition, -1 for none.

    A rise from normal begins an episode.
    """
    shown = np.int64(s.shown)
    if level == shown:
        return -1
    s.shown = level
    if shown == 0:
        s.reached = 0
    if level > 0:
        s.reached |= 1 << level
    if level < shown:
        return CLEAR if level == 0 else DE_ESCALATE
    if shown > 0:
        return ESCALATE
    s.seq = 0
    s.episode_ms = now_ms if s.episode_ms == NEVER else max(now_ms, s.episode_ms + 1)
    return RAISE

"""Episodes of two rule sets over one history, and which of them are about the same thing.

An episode lasts from its raise to its clear, the moment of the clear excluded, and at least a
millisecond; one that is not cleared lasts to the end of the history. Two episodes *meet* if they
are of one source and share a moment. A *group* holds the episodes of both rule sets that are joined
by meeting, directly or through others: one against one as a rule, one against several where one
rule set splits what the other has as one episode, one alone where the other has none at that time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.layout import N_LEVELS, STEP

Array = np.ndarray[Any, Any]

NEVER = -1
EPISODE = np.dtype(
    [
        ("source", "<i4"),
        ("start_ms", "<i8"),
        ("end_ms", "<i8"),  # of the clear, or the end of the history
        ("id_ms", "<i8"),  # the episode's start as its alert id has it
        ("first_ms", "<i8", (N_LEVELS,)),  # when it first was at or above each level; NEVER
        ("at_ms", "<i8", (N_LEVELS,)),  # how long it was at each level
        ("first_step", "<i8"),  # in the steps, which are ordered by source
        ("n_steps", "<i4"),
        ("peak", "u1"),
        ("running", "u1"),  # not cleared within the history
    ]
)
GROUP = np.dtype(
    [
        ("source", "<i4"),
        ("old", "<i8"),  # first episode of the old rules, in their order
        ("n_old", "<i4"),
        ("new", "<i8"),
        ("n_new", "<i4"),
        ("same", "u1"),  # the same levels at the same times
        ("same_scores", "u1"),
    ]
)


def by_source(steps: Array) -> Array:
    """Return steps ordered by source, those of a source in their order."""
    ordered: Array = steps[np.argsort(steps["source"], kind="stable")]
    return ordered


def episodes_of(steps: Array, last_ms: int) -> Array:
    """Return (E,) EPISODE of (T,) STEP ordered by source; the history ends at `last_ms`."""
    starts = np.flatnonzero(steps["level_from"] == 0)
    episodes = np.zeros(len(starts), EPISODE)
    if not len(starts):
        return episodes
    ends = np.append(starts[1:], len(steps))
    when, level = steps["event_ms"], steps["level"]
    last = steps[ends - 1]
    episodes["source"] = steps["source"][starts]
    episodes["start_ms"] = when[starts]
    episodes["running"] = last["level"] > 0
    # a time of judgement may be ahead of the newest reading by a due time
    until_ms = np.maximum(last["event_ms"], last_ms)
    episodes["end_ms"] = np.where(episodes["running"], until_ms, last["event_ms"])
    episodes["first_step"], episodes["n_steps"] = starts, ends - starts
    episodes["peak"] = np.maximum.reduceat(level, starts)
    episodes["id_ms"] = _ids(episodes["source"], episodes["start_ms"])
    after_ms = np.append(when[1:], 0)
    after_ms[ends - 1] = episodes["end_ms"]
    held_ms = after_ms - when
    far = np.iinfo(np.int64).max
    for k in range(N_LEVELS):
        first_ms = np.minimum.reduceat(np.where(level > k, when, far), starts)
        episodes["first_ms"][:, k] = np.where(first_ms == far, NEVER, first_ms)
        episodes["at_ms"][:, k] = np.add.reduceat(np.where(level == k + 1, held_ms, 0), starts)
    return episodes


def _ids(source: Array, start_ms: Array) -> Array:
    """Return each episode's start, or a millisecond after that of the one before it."""
    ids = start_ms.copy()
    same = source[1:] == source[:-1]
    while (clash := np.flatnonzero(same & (ids[1:] <= ids[:-1]))).size:
        ids[clash + 1] = ids[clash] + 1
    return ids


def groups_of(old: Array, new: Array, old_steps: Array, new_steps: Array) -> Array:
    """Return (G,) GROUP of two rule sets' episodes, by source and time."""
    both = np.concatenate([old, new])
    is_new = np.repeat([False, True], [len(old), len(new)])
    begin_ms = both["start_ms"]
    end_ms = np.maximum(both["end_ms"], begin_ms + 1)
    order = np.lexsort((is_new, begin_ms, both["source"]))
    if not len(order):
        return np.zeros(0, GROUP)
    source, is_new = both["source"][order], is_new[order]
    # times as ranks, apart by source: no later source's begin lies before an earlier one's end
    _, rank = np.unique(np.concatenate([begin_ms, end_ms]), return_inverse=True)
    begin, end = rank[: len(both)][order], rank[len(both) :][order]
    _, number = np.unique(source, return_inverse=True)
    offset = number.astype(np.int64) * (int(rank.max()) + 1)
    reach = np.maximum.accumulate(end + offset)
    breaks = np.append(True, (begin + offset)[1:] >= reach[:-1])
    breaks[1:] |= source[1:] != source[:-1]
    starts = np.flatnonzero(breaks)
    groups = np.zeros(len(starts), GROUP)
    groups["source"] = source[starts]
    groups["n_new"] = np.add.reduceat(is_new.astype(np.int32), starts)
    groups["n_old"] = np.diff(np.append(starts, len(order))) - groups["n_new"]
    groups["old"] = np.cumsum(groups["n_old"]) - groups["n_old"]
    groups["new"] = np.cumsum(groups["n_new"]) - groups["n_new"]
    for group in groups:
        _compare(group, old, new, old_steps, new_steps)
    return groups


def _compare(group: Any, old: Array, new: Array, old_steps: Array, new_steps: Array) -> None:
    if group["n_old"] != group["n_new"]:
        return
    a = _steps(old[group["old"] : group["old"] + group["n_old"]], old_steps)
    b = _steps(new[group["new"] : group["new"] + group["n_new"]], new_steps)
    if len(a) == len(b):
        group["same"] = all((a[name] == b[name]).all() for name in ("event_ms", "level"))
        group["same_scores"] = bool((a["score"] == b["score"]).all())


def _steps(episodes: Array, steps: Array) -> Array:
    if not len(episodes):
        return np.zeros(0, STEP)
    last = episodes[-1]
    return steps[episodes[0]["first_step"] : last["first_step"] + last["n_steps"]]

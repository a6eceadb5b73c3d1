"""The episodes of a judged history, one record each."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.plan import Plan
from kernels.layout import (
    BY_RULE,
    CLEAR,
    ESCALATE,
    KIND_NAMES,
    N_KINDS,
    NEVER,
    RAISE,
)

Array = np.ndarray[Any, Any]

EPISODE = np.dtype(
    [
        ("source", "<i4"),
        ("start_ms", "<i8"),
        ("end_ms", "<i8"),  # NEVER while it runs
        ("episode_ms", "<i8"),  # names it, with the source
        ("peak", "u1"),
        ("peak_ms", "<i8"),  # when it first came to its peak
        ("score", "<f8"),  # highest at a transition
        ("n", "<i4"),  # transitions
        ("alarms", "<i4"),  # raises and escalations
        ("raised", "<i8"),  # place of the raise among the transitions
        ("highest", "<i8"),  # place of the transition to the peak
    ]
)


def episodes_of(transitions: Array) -> Array:
    """Return (E,) EPISODE of (T,) TRANSITION, in the order in which they began."""
    if not len(transitions):
        return np.zeros(0, EPISODE)
    order = np.lexsort((np.arange(len(transitions)), transitions["source"]))
    source = transitions["source"][order]
    kind = transitions["kind"][order]
    level = transitions["level"][order]
    event_ms = transitions["event_ms"][order]
    begins = kind == RAISE
    begins[0] = True
    begins[1:] |= source[1:] != source[:-1]
    starts = np.flatnonzero(begins)
    number = np.cumsum(begins) - 1
    found = np.zeros(len(starts), EPISODE)
    found["source"], found["start_ms"] = source[starts], event_ms[starts]
    found["episode_ms"] = transitions["episode_ms"][order][starts]
    found["peak"] = np.maximum.reduceat(level, starts)
    found["score"] = np.maximum.reduceat(transitions["score"][order], starts)
    found["n"] = np.diff(np.append(starts, len(order)))
    found["alarms"] = np.add.reduceat((kind == RAISE) | (kind == ESCALATE), starts)
    found["raised"] = order[starts]
    at_peak = np.flatnonzero(level == found["peak"][number])
    first = at_peak[np.unique(number[at_peak], return_index=True)[1]]
    found["highest"], found["peak_ms"] = order[first], event_ms[first]
    found["end_ms"] = NEVER
    ends = np.flatnonzero(kind == CLEAR)
    found["end_ms"][number[ends]] = event_ms[ends]
    return found[np.argsort(found["raised"], kind="stable")]


def lasted_ms(episodes: Array, until_ms: int) -> Array:
    """Return how long episodes lasted; one that runs, until the end of the history."""
    end_ms = np.where(episodes["end_ms"] == NEVER, until_ms, episodes["end_ms"])
    return np.maximum(end_ms - episodes["start_ms"], 0)


def reasons(plan: Plan, transitions: Array) -> list[str]:
    """Return, in two or three words, what made each of some transitions."""
    lead = transitions["contributor"][:, 0]
    catalog = plan.catalog
    names = [name.replace("_", " ") for name in catalog.quantities]
    rules = [rule.name for rule in plan.rules.rules]
    words: list[str] = []
    columns = (lead["sensor"], lead["kind"], lead["level"], transitions["cause"],
               transitions["rule"], transitions["coupled_from"])  # fmt: skip
    for sensor, kind, level, cause, rule, origin in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        if cause == BY_RULE and rule >= 0:
            words.append(f"rule: {rules[rule]}")
        elif sensor < 0 or kind >= N_KINDS:
            words.append("coupling" if origin >= 0 else "context")
        else:
            fading = "" if level else ", fading"
            words.append(f"{names[catalog.quantity[sensor]]} {KIND_NAMES[kind]}{fading}")
    return words

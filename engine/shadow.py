"""A candidate rule set beside the live one, on the same log: only where they differ is told.

The candidate begins with the live line's state, carried over, so that it need not settle anew. What
both rule sets say at the same record of the log, of the same source, to the same level, is no
difference, though the score or the sentence may be another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.carry import carry
from engine.pipeline import Pipeline
from engine.plan import Plan
from engine.readings import Readings
from engine.state import State

Array = np.ndarray[Any, Any]

CANDIDATE, LIVE = "candidate", "live"


class Difference(NamedTuple):
    """An alert record that only one of the two rule sets gives."""

    only: str
    """`candidate` or `live`."""
    position: int
    """Of the record of the log, as the line counts them."""
    key: bytes
    record: bytes


class Shadow:
    """The line of one partition under the candidate rules."""

    def __init__(self, live: Pipeline, plan: Plan, state: State) -> None:
        self.pipeline = carry(live, plan, state)

    def compare(self, live: Pipeline, readings: Readings, transitions: Array) -> list[Difference]:
        """Take what the live line took; return what only one of them gave, in the log's order."""
        offset = live.position - len(readings) - self.pipeline.position
        other = self.pipeline.judge(readings)
        if not len(other) and not len(transitions):
            return []
        other["position"] += offset
        mine, theirs = _marks(transitions), _marks(other)
        found = [
            *_differences(LIVE, live, transitions[~np.isin(mine, theirs)]),
            *_differences(CANDIDATE, self.pipeline, other[~np.isin(theirs, mine)]),
        ]
        return sorted(found, key=lambda each: each.position)


_MARK = ("position", "source", "kind", "level")


def _marks(transitions: Array) -> Array:
    """Return what must be the same for two transitions to be no difference."""
    marks = np.zeros(len(transitions), [(name, "<i8") for name in _MARK])
    for name in _MARK:
        marks[name] = transitions[name]
    return marks


def _differences(only: str, line: Pipeline, transitions: Array) -> list[Difference]:
    if not len(transitions):
        return []
    keys, records = line.records.write(transitions)
    positions = transitions["position"].tolist()
    return [Difference(only, *each) for each in zip(positions, keys, records, strict=True)]

"""A judged history against what really happened, as a report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.plan import Plan
from engine.truth import Incident, Score, score
from kernels.layout import LEVEL_NAMES

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """Scores of a history by level, the least level first."""

    incidents: tuple[Incident, ...]
    """In the time that was judged."""
    scores: tuple[Score, ...]
    """Of blue, yellow, orange, red."""
    lead_s: float
    grace_s: float
    strangers: tuple[str, ...]
    """Sources of the truth that the catalog does not have."""

    @property
    def least(self) -> Score:
        """The score at blue: any alarm."""
        return self.scores[0]

    def false(self) -> set[tuple[str, int]]:
        """Return source and start of the false episodes."""
        return {(each.source, each.start_ms) for each in self.least.false}

    def judged(self) -> set[tuple[str, int]]:
        """Return source and start of the episodes that were held against the truth."""
        return {(each.source, each.start_ms) for each in self.least.episodes}

    def of(self, source: str) -> list[Incident]:
        """Return the incidents of a source."""
        return [each for each in self.incidents if each.source == source]


def hold(
    plan: Plan,
    transitions: Array,
    incidents: Sequence[Incident],
    *,
    since_ms: int,
    until_ms: int,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
) -> Held:
    """Hold transitions, in the log's order, against what happened in `[since_ms, until_ms)`."""
    sources = np.unique(transitions["source"])
    names = dict(
        zip(sources.tolist(), plan.catalog.source_id.take(sources).to_pylist(), strict=True)
    )
    columns = (transitions[key].tolist() for key in ("source", "event_ms", "level"))
    alerts = [
        {"source": names[source], "event_ms": event_ms, "level": LEVEL_NAMES[level]}
        for source, event_ms, level in zip(*columns, strict=True)
    ]
    known = {each.source for each in incidents}
    strangers = sorted(name for name in known if plan.catalog.source_index(name) < 0)
    return Held(
        incidents=tuple(each for each in incidents if since_ms <= each.start_ms < until_ms),
        scores=tuple(
            score(
                alerts,
                incidents,
                since_ms=since_ms,
                until_ms=until_ms,
                level=level,
                lead_s=lead_s,
                grace_s=grace_s,
                n_sources=plan.catalog.n_sources,
            )
            for level in LEVEL_NAMES[1:]
        ),
        lead_s=lead_s,
        grace_s=grace_s,
        strangers=tuple(strangers),
    )

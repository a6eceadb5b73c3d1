"""Which episodes get a strip chart, and over what time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.analysis.reports.episodes import lasted_ms
from engine.analysis.reports.held import Held
from engine.analysis.strips import Stretch
from engine.plan import Plan
from engine.truth import Incident
from kernels.layout import LEVEL_NAMES

Array = np.ndarray[Any, Any]

LEAST_PAD_MS, MOST_PAD_MS = 5 * 60_000, 3 * 3_600_000
MOST_MS = 3 * 86_400_000
"""A strip shows no more of an episode: its beginning."""
NO_EPISODE = -1


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One strip to draw."""

    stretch: Stretch
    episode: int
    """Place among the episodes; NO_EPISODE for an incident that nothing was raised for."""
    incidents: tuple[Incident, ...]
    """Of the source, within the stretch."""
    verdict: str
    """`missed`, `false`, `found`, or nothing where no truth is known."""
    cut: bool
    """The episode goes on beyond the stretch."""


def choose(
    plan: Plan,
    episodes: Array,
    verdicts: list[str],
    held: Held | None,
    n: int,
    span: tuple[int, int],
) -> list[Chosen]:
    """Choose up to ``n``: missed incidents, false alarms, then the highest and longest episodes.

    Missed and false ones take a third of the places each, and more where others leave room. Of
    equals, sources that have no strip yet come first.
    """
    lasted = lasted_ms(episodes, span[1])
    order = _by_weight(episodes, lasted)
    false = [e for e in order if verdicts[e] == "false"]
    others = [e for e in order if verdicts[e] != "false"]
    missed = [] if held is None else _missed(plan, held)
    third = -(-n // 3)
    n_missed, n_false = min(len(missed), third), min(len(false), third)
    n_others = min(len(others), max(0, n - n_missed - n_false))
    n_missed = min(len(missed), max(n_missed, n - n_false - n_others))
    n_false = min(len(false), max(n_false, n - n_missed - n_others))
    chosen = [_of_incident(plan, each, span) for each in missed[:n_missed]]
    for episode in [*false[:n_false], *others[:n_others]]:
        of = [] if held is None else held.of(_name(plan, int(episodes["source"][episode])))
        length = int(lasted[episode])
        chosen.append(_of_episode(episodes, episode, length, verdicts[episode], of, span))
    return chosen[:n]


def _by_weight(episodes: Array, lasted: Array) -> list[int]:
    """Return episodes by peak, then by how many of the source are before it, then by length."""
    order = np.lexsort((-lasted, -episodes["peak"].astype(np.int64)))
    seen: Counter[tuple[int, int]] = Counter()
    keys = []
    for episode in order.tolist():
        peak, source = int(episodes["peak"][episode]), int(episodes["source"][episode])
        keys.append((-peak, seen[peak, source], -int(lasted[episode]), episode))
        seen[peak, source] += 1
    return [key[-1] for key in sorted(keys)]


def _missed(plan: Plan, held: Held) -> list[Incident]:
    known = [each for each in held.least.missed if plan.catalog.source_index(each.source) >= 0]
    return sorted(known, key=lambda each: (-LEVEL_NAMES.index(each.level), each.start_ms))


def _name(plan: Plan, source: int) -> str:
    return str(plan.catalog.source_id[source].as_py())


def _padded(source: int, since_ms: int, until_ms: int, span: tuple[int, int]) -> Stretch:
    """Return a stretch with some time before and after, as far as the history reaches."""
    pad_ms = min(max((until_ms - since_ms) // 4, LEAST_PAD_MS), MOST_PAD_MS)
    begin_ms = max(since_ms - pad_ms, min(span[0], since_ms))
    end_ms = min(until_ms + pad_ms, max(span[1], until_ms))
    return Stretch(source, begin_ms, max(end_ms, begin_ms + 1000))


def _of_incident(plan: Plan, incident: Incident, span: tuple[int, int]) -> Chosen:
    end_ms = min(incident.end_ms, incident.start_ms + MOST_MS)
    stretch = _padded(plan.catalog.source_index(incident.source), incident.start_ms, end_ms, span)
    return Chosen(
        stretch=stretch,
        episode=NO_EPISODE,
        incidents=(incident,),
        verdict="missed",
        cut=end_ms < incident.end_ms,
    )


def _of_episode(
    episodes: Array,
    episode: int,
    lasted: int,
    verdict: str,
    incidents: list[Incident],
    span: tuple[int, int],
) -> Chosen:
    start_ms = int(episodes["start_ms"][episode])
    shown_ms = min(lasted, MOST_MS)
    since_ms, until_ms = start_ms, start_ms + shown_ms
    near = [
        each
        for each in incidents
        if each.start_ms <= start_ms + lasted and each.end_ms >= start_ms - MOST_PAD_MS
    ]
    # what an alarm was about begins before it
    for each in near:
        if each.start_ms >= since_ms - MOST_MS // 4:
            since_ms = min(since_ms, each.start_ms)
    stretch = _padded(int(episodes["source"][episode]), since_ms, until_ms, span)
    return Chosen(
        stretch=stretch,
        episode=episode,
        incidents=tuple(
            each
            for each in incidents
            if each.start_ms <= stretch.until_ms and each.end_ms >= stretch.since_ms
        ),
        verdict=verdict,
        cut=shown_ms < lasted,
    )

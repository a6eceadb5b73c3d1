"""Everything that a report says, gathered once from the judged history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.analysis.figures import Figures
from engine.analysis.past import Judged, Past
from engine.analysis.reports.chosen import Chosen
from engine.analysis.reports.episodes import episodes_of, lasted_ms, reasons
from engine.analysis.reports.held import Held, hold
from engine.analysis.reports.html import Clock
from engine.analysis.reports.overview import (
    Calendar,
    Load,
    Series,
    alarms_of,
    calendar_of,
    load_of,
    series_of,
)
from engine.plan import Plan
from engine.truth import Incident

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """What the sections and the charts are made of."""

    title: str
    judged: Judged
    past: Past
    figures: Figures
    held: Held | None
    clock: Clock
    alarms: Array
    """(A,) STEP"""
    episodes: Array
    """(E,) EPISODE"""
    lasted: Array
    """(E,) int64 ms"""
    verdicts: list[str]
    """Of each episode: `found`, `false` or nothing"""
    why: list[str]
    """Of each episode: what made it what it came to."""
    series: Series
    calendar: Calendar
    load: Load
    names: dict[int, tuple[str, str]]
    """Of each source that is shown: its id and its name."""
    chosen: list[Chosen]

    @property
    def plan(self) -> Plan:
        """The plan that judged."""
        return self.judged.plan

    @property
    def span(self) -> tuple[int, int]:
        """The time that is reported, its end not included."""
        return self.figures.since_ms, self.figures.until_ms


def gather(
    judged: Judged,
    past: Past,
    figures: Figures,
    *,
    truth: Sequence[Incident] | None,
    lead_s: float,
    grace_s: float,
    title: str | None,
) -> Facts:
    """Gather the facts of a judged history; strips are chosen later."""
    plan = judged.plan
    since_ms, until_ms = figures.since_ms, figures.until_ms
    held = None
    if truth is not None:
        held = hold(
            plan,
            judged.transitions,
            truth,
            since_ms=since_ms,
            until_ms=until_ms,
            lead_s=lead_s,
            grace_s=grace_s,
        )
    clock = Clock(plan.rules.time.zone())
    alarms = alarms_of(judged.steps, since_ms, until_ms)
    episodes = episodes_of(judged.transitions)
    load = load_of(alarms)
    names = _names(plan, episodes["source"])
    return Facts(
        title=title or plan.rules.name or "Unnamed rules",
        judged=judged,
        past=past,
        figures=figures,
        held=held,
        clock=clock,
        alarms=alarms,
        episodes=episodes,
        lasted=lasted_ms(episodes, until_ms),
        verdicts=_verdicts(episodes, names, held),
        why=reasons(plan, judged.transitions[episodes["highest"]]),
        series=series_of(alarms, since_ms, until_ms, clock.offset_ms),
        calendar=calendar_of(alarms, since_ms, until_ms, clock.offset_ms),
        load=load,
        names=names,
        chosen=[],
    )


def _names(plan: Plan, sources: Array) -> dict[int, tuple[str, str]]:
    shown = np.unique(sources).astype(np.int64)
    ids = plan.catalog.source_id.take(shown).to_pylist()
    names = plan.catalog.name.take(shown).to_pylist()
    return {
        index: (str(source_id), str(name or ""))
        for index, source_id, name in zip(shown.tolist(), ids, names, strict=True)
    }


def _verdicts(episodes: Array, names: dict[int, tuple[str, str]], held: Held | None) -> list[str]:
    if held is None:
        return [""] * len(episodes)
    false, judged = held.false(), held.judged()
    found = []
    columns = (episodes["source"].tolist(), episodes["start_ms"].tolist())
    for source, start_ms in zip(*columns, strict=True):
        key = (names[source][0], start_ms)
        found.append("false" if key in false else "found" if key in judged else "")
    return found

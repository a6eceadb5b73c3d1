"""The page of a replay: its sections, and the values of its charts."""

from __future__ import annotations

from typing import Any

from engine.analysis.reports import drawn, sections
from engine.analysis.reports.facts import Facts
from engine.analysis.reports.html import esc
from engine.analysis.reports.overview import pareto_of
from engine.analysis.reports.shell import asset, document
from engine.analysis.reports.truthful import truth
from kernels.layout import LEVEL_NAMES, NEVER

_SCRIPTS = ("echarts/echarts.min.js", "page.js", "charts.js", "strips.js", "episodes.js")
_SECTIONS = (
    ("overview", "Overview"),
    ("alarms", "Alarms"),
    ("load", "Load"),
    ("truth", "Truth"),
    ("strips", "Strips"),
    ("episodes", "Episodes"),
)


def page(facts: Facts, strips: list[dict[str, Any]]) -> bytes:
    """Return the whole page."""
    parts = {
        "overview": sections.head(facts) + sections.tiles(facts),
        "alarms": _grid(sections.alarms(facts)),
        "load": _grid(sections.load(facts) + sections.operators(facts)),
        "truth": _grid(truth(facts)),
        "strips": _strips(facts, strips),
        "episodes": asset("episodes.html").decode(),
    }
    if not len(facts.alarms):
        del parts["load"]
    return document(
        title=facts.title,
        brand="Tocsin report",
        sections=[(name, words, parts[name]) for name, words in _SECTIONS if name in parts],
        values=values(facts, strips),
        scripts=_SCRIPTS,
        end=f"times are {esc(facts.clock.name)}.",
    )


def _grid(cards: str) -> str:
    return f'<div class="grid">{cards}</div>'


def _strips(facts: Facts, strips: list[dict[str, Any]]) -> str:
    key = asset("legend.html").decode() if strips else ""
    few = ""
    if len(facts.chosen) < len(facts.episodes) + (
        0 if facts.held is None else len(facts.held.least.missed)
    ):
        order = "missed incidents and false alarms first, then " if facts.held else ""
        few = (
            f'<p class="note">The {len(facts.chosen)} that matter most: {order}the highest and '
            "longest. All others are in the table below.</p>"
        )
    return f'{few}{key}<div class="grid strips">{drawn.strips(facts, strips)}</div>'


def values(facts: Facts, strips: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the scripts draw from."""
    since_ms, until_ms = facts.span
    calendar, series = facts.calendar, facts.series
    floods = sections.flood_rows(facts)
    return {
        "offset": facts.clock.offset_ms,
        "zone": facts.clock.name,
        "span": [since_ms, until_ms],
        "levels": LEVEL_NAMES,
        "series": {
            "start": series.start_ms,
            "step": series.step_ms,
            "counts": series.counts.tolist(),
        },
        "floods": floods,
        "calendar": {
            "rows": calendar.rows,
            "columns": calendar.columns,
            "unit": calendar.unit,
            "cells": calendar.cells,
        },
        "pareto": {
            "points": [[k, round(part, 6)] for k, part in pareto_of(facts.load)],
            "totals": facts.load.totals[:40].tolist(),
            "names": [facts.names[s][0] for s in facts.load.sources[:40].tolist()],
            "target": facts.figures.bounds.top_ten_below,
        },
        "episodes": _episodes(facts),
        "strips": strips,
    }


def _episodes(facts: Facts) -> dict[str, Any]:
    """Return the episodes by column; sources and reasons by number."""
    episodes = facts.episodes
    sources = sorted(facts.names)
    place = {source: number for number, source in enumerate(sources)}
    words = sorted(set(facts.why))
    number_of = {each: number for number, each in enumerate(words)}
    since_ms = facts.span[0]
    strip = {each.episode: number for number, each in enumerate(facts.chosen)}
    catalog = facts.plan.catalog
    return {
        "ids": [facts.names[source][0] for source in sources],
        "names": [facts.names[source][1] for source in sources],
        "category": [int(catalog.category[source]) for source in sources],
        "categories": catalog.categories,
        "words": words,
        "verdicts": facts.held is not None,
        "source": [place[source] for source in episodes["source"].tolist()],
        "start": (episodes["start_ms"] - since_ms).tolist(),
        "lasted": facts.lasted.tolist(),
        "running": (episodes["end_ms"] == NEVER).astype(int).tolist(),
        "peak": episodes["peak"].tolist(),
        "score": episodes["score"].round(1).tolist(),
        "alarms": episodes["alarms"].tolist(),
        "why": [number_of[each] for each in facts.why],
        "verdict": ["found false".find(each) // 6 + 1 if each else 0 for each in facts.verdicts],
        "strip": [strip.get(number, -1) for number in range(len(episodes))],
    }

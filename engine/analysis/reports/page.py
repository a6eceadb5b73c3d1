"""The page: sections, the values of its charts, style and scripts, all in one file."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import orjson

from engine import __version__
from engine.analysis.reports import drawn, sections
from engine.analysis.reports.facts import Facts
from engine.analysis.reports.html import esc
from engine.analysis.reports.overview import pareto_of
from engine.analysis.reports.truthful import truth
from kernels.layout import LEVEL_NAMES, NEVER

_ASSETS = files("engine.analysis") / "assets"
_SCRIPTS = ("echarts/echarts.min.js", "page.js", "charts.js", "strips.js", "episodes.js")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
)
"""Even if something got through, the page could not tell anyone."""
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
        "episodes": _asset("episodes.html").decode(),
    }
    if not len(facts.alarms):
        del parts["load"]
    shown = [(name, words) for name, words in _SECTIONS if name in parts]
    links = "".join(f'<a href="#{name}">{words}</a>' for name, words in shown)
    body = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{words}</h2>'
        f"{parts[name]}</section>"
        for name, words in shown
    )
    scripts = b"".join(b"<script>" + _asset(name) + b"</script>" for name in _SCRIPTS)
    top = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(_POLICY)}">'
        '<link rel="icon" href="data:,">'
        f'<meta name="generator" content="Tocsin {esc(__version__)}">'
        f"<title>{esc(facts.title)} – Tocsin report</title><style>"
    )
    head = (
        '<a class="skip" href="#main">To the content</a><header class="top"><div>'
        f'<p class="brand">Tocsin report</p><h1>{esc(facts.title)}</h1></div>'
        '<p class="tools"><button type="button" id="theme">Dark</button>'
        '<button type="button" id="print">Print</button></p></header>'
        f'<nav aria-label="Sections">{links}</nav>'
    )
    end = (
        f"<footer>Made by Tocsin {esc(__version__)} from the engine’s own judgement; "
        f"times are {esc(facts.clock.name)}. Charts: Apache ECharts, Apache-2.0.</footer>"
    )
    return b"".join(
        [
            top.encode(),
            _asset("report.css"),
            b"</style><script>",
            _asset("theme.js"),
            b"</script></head><body>",
            head.encode(),
            f'<main id="main">{body}</main>{end}'.encode(),
            b'<script type="application/json" id="values">',
            inert(values(facts, strips)),
            b"</script>",
            scripts,
            b"</body></html>\n",
        ]
    )


def inert(objects: Any) -> bytes:
    """Return JSON in which nothing can end or begin an element."""
    text = orjson.dumps(objects, option=orjson.OPT_SERIALIZE_NUMPY)
    for byte, escape in ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026")):
        text = text.replace(byte, escape)
    return text


def _asset(name: str) -> bytes:
    found = _ASSETS
    for part in name.split("/"):
        found = found / part
    return found.read_bytes()


def _grid(cards: str) -> str:
    return f'<div class="grid">{cards}</div>'


def _strips(facts: Facts, strips: list[dict[str, Any]]) -> str:
    key = _asset("legend.html").decode() if strips else ""
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

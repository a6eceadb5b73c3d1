"""The strips' panels: who, when, how bad, in words; the drawing is the page's."""

from __future__ import annotations

from typing import Any

from engine.analysis.reports.chosen import NO_EPISODE, Chosen
from engine.analysis.reports.facts import Facts
from engine.analysis.reports.html import (
    esc,
    lasting,
    level_chip,
    nothing,
    table,
    verdict_chip,
)
from kernels.layout import LEVEL_NAMES, NEVER

_PLOT_PX, _LANE_PX, _SCORE_PX, _ENDS_PX = 118, 13, 96, 16


def strips(facts: Facts, drawn: list[dict[str, Any]]) -> str:
    """Return the panels of the strips, in their order."""
    if not facts.chosen:
        words = "Nothing was raised, and nothing was missed: there is no episode to draw."
        if len(facts.episodes):
            words = "No strip was asked for."
        return f'<section class="card wide">{nothing(words)}</section>'
    return "".join(
        _panel(facts, number, chosen, values)
        for number, (chosen, values) in enumerate(zip(facts.chosen, drawn, strict=True))
    )


def height(values: dict[str, Any]) -> int:
    """Return how high a strip is; the script lays it out likewise."""
    lanes = sum(len(each["lanes"]) for each in values["sensors"]) + bool(values["level"])
    return _PLOT_PX * len(values["sensors"]) + _LANE_PX * lanes + _SCORE_PX + _ENDS_PX


def _panel(facts: Facts, number: int, chosen: Chosen, values: dict[str, Any]) -> str:
    source = chosen.stretch.source
    of, name = name_of(facts, source)
    chips, when, words = (
        _missed(facts, chosen) if chosen.episode == NO_EPISODE else _raised(facts, chosen)
    )
    first = _raise_text(facts, chosen, values)
    if chosen.cut:
        when += "; the strip ends before it does"
    said = f"{of}: {words}"
    hidden = values["hidden"]
    note = f"{hidden} more sensor{'s' * (hidden != 1)} of the source, not drawn. " if hidden else ""
    return (
        f'<article class="card strip" id="strip-{number}">'
        f"<header><h3>{esc(of)}<span>{esc(name)}</span></h3><p class=chips>{chips}</p></header>"
        f'<p class="when">{esc(when)}</p>'
        f'<p class="text">{esc(first)}</p>'
        f'<div class="plot" data-strip="{number}" role="img" aria-label="{esc(said)}"'
        f' style="height:{height(values)}px"></div>'
        f"{f'<p class=note>{esc(note)}</p>' if note else ''}"
        f"{_transitions(facts, values)}</article>"
    )


def _raise_text(facts: Facts, chosen: Chosen, values: dict[str, Any]) -> str:
    """Return the sentence of the episode's raise; what is before it belongs to another."""
    if chosen.episode == NO_EPISODE:
        return ""
    begun = int(facts.episodes["start_ms"][chosen.episode]) - values["since"]
    own = (each["text"] for each in values["transitions"]
           if each["at"] >= begun and each["kind"] == "raise")  # fmt: skip
    return next(own, "")


def name_of(facts: Facts, source: int) -> tuple[str, str]:
    """Return id and name of a source, alarming or not."""
    if source in facts.names:
        return facts.names[source]
    catalog = facts.plan.catalog
    return str(catalog.source_id[source].as_py()), str(catalog.name[source].as_py() or "")


def _missed(facts: Facts, chosen: Chosen) -> tuple[str, str, str]:
    incident = chosen.incidents[0]
    deserved = LEVEL_NAMES.index(incident.level)
    when = (
        f"{incident.kind}, {facts.clock.span(incident.start_ms, incident.end_ms)} "
        f"({lasting(incident.end_ms - incident.start_ms)}); deserves {incident.level}"
    )
    words = f"missed incident, {when}"
    return f"{verdict_chip('unfound')} {level_chip(deserved)}", when, words


def _raised(facts: Facts, chosen: Chosen) -> tuple[str, str, str]:
    episode = facts.episodes[chosen.episode]
    peak, lasted_ms = int(episode["peak"]), int(facts.lasted[chosen.episode])
    running = int(episode["end_ms"]) == NEVER
    start_ms = int(episode["start_ms"])
    end_ms = start_ms + lasted_ms
    when = f"{facts.clock.span(start_ms, end_ms)} ({lasting(lasted_ms)}"
    when += ", still running)" if running else ")"
    when += f"; {facts.why[chosen.episode]}"
    chips = f"{level_chip(peak)} {verdict_chip(chosen.verdict)}"
    return chips, when, f"{LEVEL_NAMES[peak]} alarm, {when}"


def _transitions(facts: Facts, values: dict[str, Any]) -> str:
    told = values["transitions"]
    if not told:
        return ""
    rows = [
        (
            esc(facts.clock(values["since"] + each["at"])),
            f"{each['kind']} to" if each["level"] else "clear",
            level_chip(each["level"]) if each["level"] else "",
            esc(each["text"]),
        )
        for each in told
    ]
    heads = [("Time", "t"), ("", ""), ("Level", ""), ("Why", "text")]
    more = values["more"]
    rest = f'<p class="note">{more:,} later ones are not listed.</p>' if more else ""
    n = f"{len(told)} transition{'s' * (len(told) != 1)}"
    listed = table(heads, rows, caption="Transitions")
    return f"<details><summary>{n} in words</summary>{listed}{rest}</details>"

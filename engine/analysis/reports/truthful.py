"""The section that holds alerts against what really happened."""

from __future__ import annotations

from engine.analysis.reports.facts import Facts
from engine.analysis.reports.held import Held
from engine.analysis.reports.html import (
    DASH,
    card,
    esc,
    lasting,
    level_chip,
    nothing,
    share,
    table,
    verdict_chip,
)
from engine.truth import Detection
from kernels.layout import LEVEL_NAMES

MOST_INCIDENTS = 200


def truth(facts: Facts) -> str:
    """Return incidents found and missed, with delays, and false alarms, by level."""
    held = facts.held
    if held is None:
        words = (
            "No truth was given. With --truth, incidents that really happened are held against "
            "the alarms: what was found, how late, and which alarms were false."
        )
        return card("Against the truth", nothing(words), kind="wide")
    return card("By level", _by_level(held), note=esc(_meaning(held)), kind="wide") + card(
        "Incidents", _incidents(facts, held), kind="wide"
    )


def _meaning(held: Held) -> str:
    words = "An incident is found when its source comes to the level during it"
    words += f" or up to {lasting(held.grace_s * 1000)} after" if held.grace_s else ""
    words += f", or did up to {lasting(held.lead_s * 1000)} before" if held.lead_s else ""
    words += "; an episode at the level that no incident explains is a false alarm."
    if held.strangers:
        named = ", ".join(held.strangers[:3]) + ", …" * (len(held.strangers) > 3)
        n = len(held.strangers)
        what = "1 source of the truth is" if n == 1 else f"{n:,} sources of the truth are"
        words += f" {what} not in the catalog: {named}."
    return words


def _by_level(held: Held) -> str:
    rows = []
    for level, score in enumerate(held.scores, 1):
        n = len(score.detections)
        per = score.false_per_source_day
        rows.append(
            (
                level_chip(level) + '<span class="sub">or higher</span>' * (level < 4),
                f"{len(score.found)} of {n}",
                f"{len(score.missed):,}",
                share(len(score.found) / n if n else None),
                DASH if score.median_delay_s is None else lasting(score.median_delay_s * 1000),
                f"{len(score.episodes):,}",
                f"{len(score.false):,}",
                f"{score.false_per_day:.3g}",
                DASH if per is None else f"{per:.3g}",
            )
        )
    heads = [("At level", ""), ("Found", "n"), ("Missed", "n"), ("Found share", "n wide-only"),
             ("Median delay", "n"), ("Episodes", "n wide-only"), ("False alarms", "n"),
             ("a day", "n wide-only"), ("a source and day", "n wide-only")]  # fmt: skip
    return table(heads, rows, caption="Incidents found and false alarms, by level")


def _incidents(facts: Facts, held: Held) -> str:
    if not held.incidents:
        return nothing("The truth has no incident in this time.")
    by_level = [{_key(each): each for each in score.detections} for score in held.scores]
    detections = sorted(
        held.least.detections, key=lambda each: (each.found, each.incident.start_ms)
    )
    rows = []
    for each in detections[:MOST_INCIDENTS]:
        incident = each.incident
        deserved = LEVEL_NAMES.index(incident.level)
        enough = by_level[deserved - 1][_key(each)]
        about = (
            f'<span class="sub wide-only">{esc(incident.about)}</span>' if incident.about else ""
        )
        rows.append(
            (
                esc(incident.source),
                esc(incident.kind) + about,
                verdict_chip("unfound") if not each.found else _verdict(each),
                esc(facts.clock.span(incident.start_ms, incident.end_ms)),
                level_chip(deserved),
                level_chip(LEVEL_NAMES.index(each.peak)) if each.found else DASH,
                _delay(each),
                _delay(enough) if enough.found else DASH,
            )
        )
    heads = [("Source", "id"), ("What", "what"), ("", ""), ("From, to", "t wide-only"),
             ("Deserves", "wide-only"), ("Came to", "wide-only"), ("First alarm after", "n"),
             ("Deserved level after", "n wide-only")]  # fmt: skip
    more = len(detections) - MOST_INCIDENTS
    note = (
        f'<p class="note">{more:,} more are not listed; missed ones come first.</p>'
        if more > 0
        else ""
    )
    return table(heads, rows, caption="Incidents") + note


def _key(each: Detection) -> tuple[str, int, int, str]:
    incident = each.incident
    return incident.source, incident.start_ms, incident.end_ms, incident.kind


def _delay(each: Detection) -> str:
    if each.delay_ms is None:
        return DASH
    return "at once" if each.delay_ms == 0 else lasting(each.delay_ms)


def _verdict(each: Detection) -> str:
    if each.enough:
        return '<span class="chip verdict good"><b aria-hidden="true">✓</b>found</span>'
    return '<span class="chip verdict acceptable"><b aria-hidden="true">~</b>too low</span>'

"""The sections of the page above the strips: head, tiles, alarms over time, load, floods."""

from __future__ import annotations

from collections import Counter

import numpy as np

from engine.analysis.bounds import PERIOD_MS, Target
from engine.analysis.operators import NOBODY, Operators
from engine.analysis.reports.facts import Facts
from engine.analysis.reports.html import (
    DASH,
    bars,
    card,
    chart,
    column,
    esc,
    lasting,
    nothing,
    share,
    table,
    verdict_chip,
)
from engine.analysis.reports.overview import WEEK_MS
from engine.summary import REJECTS
from kernels.layout import LEVEL_NAMES

TOP_SOURCES = 15
TEN = 10
MOST_NUISANCES = 12
MOST_ROWS = 40
"""Rows of a table that may grow; what is left out is said."""
_OPERATORS = {"all": "the whole city as one operator"}
_REFUSED = {
    "unknown_sensor": "of unknown sensors",
    "time_out_of_bounds": "without a possible time",
    "time_ahead": "too far ahead",
    "bad_quality": "of bad quality",
    "not_finite": "not a number",
    "duplicate": "told twice",
}


def head(facts: Facts) -> str:
    """Return what was judged."""
    plan, judged, clock = facts.plan, facts.judged, facts.clock
    catalog, rules = plan.catalog, plan.rules
    if judged.first_ms is None:
        history = "no reading"
    else:
        since_ms, until_ms = facts.span
        history = f"{clock.span(since_ms, until_ms)} ({lasting(until_ms - since_ms)})"
    files = ", ".join(path.name for path in facts.past.readings[:3])
    n_more = len(facts.past.readings) - 3
    files += f" and {n_more} more" if n_more > 0 else ""
    refused = [
        f"{judged.counts[name]:,} {_REFUSED.get(name, name.replace('_', ' '))}"
        for name in REJECTS
        if judged.counts.get(name)
    ]
    by = _OPERATORS.get(facts.figures.by, f"each {facts.figures.by}")
    cells = [
        ("History", esc(history)),
        ("Times", f"{esc(clock.name)}, the site’s zone"),
        ("Readings", f"{judged.n_readings:,} of {esc(files)}"),
        ("Not judged", esc(", ".join(refused) or "none")),
        ("Sources", f"{catalog.n_sources:,} with {catalog.n_sensors:,} sensors"),
        ("Operator", esc(by)),
        ("Rules", f"{esc(rules.name)} <code>{esc(rules.digest[:12])}</code>"),
        ("Catalog", f"<code>{esc(catalog.digest[:12])}</code>"),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)
    return f'<dl class="facts">{listed}</dl>'


def tiles(facts: Facts) -> str:
    """Return the figures: those that say how much, then those that have a target."""
    figures = facts.figures
    plain = [
        ("Alarms", f"{figures.alarms:,}", "raises and escalations"),
        ("Episodes", f"{figures.episodes:,}", f"{figures.standing_after:,} still running"),
        ("Alarming sources", f"{len(facts.load.sources):,}", _of_sources(facts)),
        ("Median episode", lasting(_ms(figures.median_s)), "raise to clear"),
    ]
    if facts.held is not None:
        least = facts.held.least
        n = len(least.detections)
        plain.append(("Incidents found", f"{len(least.found)} of {n}", "at any level"))
        plain.append(("False alarms", f"{len(least.false):,}", f"{least.false_per_day:.3g} a day"))
    first = "".join(
        f'<div class="tile"><h3>{name}</h3><p class="big">{esc(value)}</p><p>{esc(more)}</p></div>'
        for name, value, more in plain
    )
    second = "".join(_target(each) for each in figures.targets)
    missed = sum(each.verdict == "missed" for each in figures.targets)
    verdict = (
        f"{missed} of {len(figures.targets)} figures are beyond their target"
        if missed
        else "all figures are within their targets"
    )
    if not figures.alarms:
        verdict = "no alarm, so nothing is beyond a target"
    if not facts.judged.n_readings:
        words = "No reading was judged: there is nothing to hold against the targets."
        return f'<div class="tiles plain">{first}</div>{nothing(words)}'
    return (
        f'<div class="tiles plain">{first}</div>'
        f'<h2 class="minor">Against ISA-18.2 and EEMUA 191: {esc(verdict)}</h2>'
        f'<div class="tiles targets">{second}</div>'
    )


def _of_sources(facts: Facts) -> str:
    n = facts.plan.catalog.n_sources
    return f"of {n:,}, {share(len(facts.load.sources) / n)}" if n else "of none"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _target(target: Target) -> str:
    what = target.what[0].upper() + target.what[1:]
    unit = "" if target.unit == "share" else f" {target.unit}"
    return (
        f'<div class="tile {target.verdict}"><h3>{esc(what)}</h3>'
        f'<p class="big">{esc(target.value_text)}'
        f"<small>{esc(unit if target.value is not None else '')}</small></p>"
        f"<p>target {esc(_bound(target))}</p>"
        f"{verdict_chip('none' if target.value is None else target.verdict)}</div>"
    )


def _bound(target: Target) -> str:
    if target.acceptable == target.bound:
        return target.bound_text
    return f"{target.sense} {target.bound:g}, at most {target.acceptable:g}"


def alarms(facts: Facts) -> str:
    """Return alarms over time and the calendar."""
    if not len(facts.alarms):
        words = "No alarm in this time." if facts.judged.n_readings else "No reading in this time."
        return card("Alarms over time", nothing(words), kind="wide")
    counts = facts.series.counts.sum(axis=0)
    clock = facts.clock
    step = "week" if facts.series.step_ms == WEEK_MS else lasting(facts.series.step_ms)
    most = int(counts.argmax())
    begun = facts.series.start_ms + most * facts.series.step_ms
    words = (
        f"Alarms by {step}: {len(facts.alarms)} in all, most from "
        f"{clock(begun, '%Y-%m-%d %H:%M')}: {int(counts[most])}."
    )
    n_floods = sum(len(each.floods) for each in facts.figures.operators)
    note = f"By {step}, stacked by the level that they led to"
    note += f"; {n_floods} flood{'s' * (n_floods != 1)} shaded." if n_floods else "; no flood."
    calendar = facts.calendar
    rows = len(calendar.rows)
    busiest = max(calendar.cells, key=lambda cell: cell[2])
    said = (
        f"Alarms by {calendar.unit}: most, {busiest[2]}, on {calendar.rows[busiest[1]]} "
        f"at {calendar.columns[busiest[0]]}."
    )
    return card(
        "Alarms over time", chart("over-time", words, height=260), note=esc(note), kind="wide"
    ) + card(
        f"Alarms by {calendar.unit}",
        chart("calendar", said, height=max(84, 44 + 22 * rows)),
        note=f"Numbers are alarms; times are {esc(clock.name)}.",
        kind="wide",
    )


def load(facts: Facts) -> str:
    """Return the busiest sources, the Pareto chart, the mix of priorities, what raised."""
    if not len(facts.alarms):
        return ""
    words = _pareto_words(facts)
    top = card(f"Top {min(TOP_SOURCES, len(facts.load.sources))} sources", _top(facts))
    pareto = card(
        "Load share of sources (Pareto)", chart("pareto", words, height=300), note=esc(words)
    )
    mix = card("Priority mix", _mix(facts), note=_MIX_NOTE)
    return column(top) + column(pareto + mix)


def _pareto_words(facts: Facts) -> str:
    totals = facts.load.totals
    if len(totals) <= TEN:
        return f"Only {len(totals)} source{'s' * (len(totals) != 1)} alarmed."
    part = share(float(totals[:TEN].sum() / totals.sum()))
    n = int(np.searchsorted(np.cumsum(totals) / totals.sum(), 0.8 - 1e-12)) + 1
    most = f"{n:,} source{'s' * (n != 1)} make{'s' * (n == 1)} 80 % of the alarms"
    return f"The ten busiest sources make {part}; {most}."


def _top(facts: Facts) -> str:
    held_ms = np.zeros(facts.plan.catalog.n_sources, np.int64)
    np.add.at(held_ms, facts.episodes["source"], facts.lasted)
    n_episodes = np.bincount(facts.episodes["source"], minlength=len(held_ms))
    totals = facts.load.totals
    rows = []
    for source, counts, n in zip(
        facts.load.sources[:TOP_SOURCES].tolist(),
        facts.load.counts[:TOP_SOURCES].tolist(),
        totals[:TOP_SOURCES].tolist(),
        strict=True,
    ):
        of, name = facts.names[source]
        rows.append(
            (
                f'<button type="button" class="link" data-find="{esc(of)}"'
                f' title="Show its episodes">{esc(of)}</button>'
                f'<span class="sub">{esc(name)}</span>',
                bars(counts, int(totals[0])),
                f"{n:,}",
                share(n / len(facts.alarms)),
                f"{int(n_episodes[source]):,}",
                lasting(int(held_ms[source])),
            )
        )
    heads = [("Source", "id"), ("By level", "bar"), ("Alarms", "n"), ("Share", "n wide-only"),
             ("Episodes", "n wide-only"), ("In alarm", "n")]  # fmt: skip
    return table(heads, rows, caption="Sources with the most alarms")


_MIX_NOTE = "Blue and yellow stand for low priority, orange for medium, red for high."


def _mix(facts: Facts) -> str:
    by_level = facts.figures.alarms_by_level
    bounds = facts.figures.bounds
    n = max(1, facts.figures.alarms)
    strips = ""
    for name, parts in (
        ("Here", [(level, by_level[level] / n) for level in LEVEL_NAMES[1:]]),
        ("Target", [("low", bounds.low), ("orange", bounds.medium), ("red", bounds.high)]),
    ):
        cells = "".join(
            f'<i class="{level}" style="width:{100 * part:.4g}%"></i>' for level, part in parts
        )
        strips += f'<div class="mix"><span>{name}</span><span class="bars">{cells}</span></div>'
    targets = {each.key: each for each in facts.figures.targets}
    rows = []
    for key, words, levels in (
        ("low_share", "low", ("blue", "yellow")),
        ("medium_share", "medium", ("orange",)),
        ("high_share", "high", ("red",)),
    ):
        target = targets[key]
        rows.append(
            (
                f'{words}<span class="sub">{" and ".join(levels)}</span>',
                f"{sum(by_level[level] for level in levels):,}",
                esc(target.value_text),
                esc(target.bound_text),
                verdict_chip(target.verdict),
            )
        )
    heads = [("Priority", ""), ("Alarms", "n"), ("Share", "n"), ("Target", "n"), ("", "")]
    return strips + table(heads, rows, caption="Alarms by priority")


def _why(facts: Facts) -> str:
    found = Counter(facts.why).most_common()
    most = found[0][1] if found else 1
    shown = found[:12]
    rows = [
        (
            esc(words),
            f'<span class="bars"><i class="plain" style="width:{100 * n / most:.3g}%"></i></span>',
            f"{n:,}",
            share(n / len(facts.episodes)),
        )
        for words, n in shown
    ]
    rest = sum(n for _, n in found[12:])
    if rest:
        rows.append((f"{len(found) - 12} others", "", f"{rest:,}", share(rest / len(facts.why))))
    heads = [("Signal", ""), ("", "bar"), ("Episodes", "n"), ("Share", "n")]
    return table(heads, rows, caption="Episodes by the signal behind their highest level")


def operators(facts: Facts) -> str:
    """Return the load of the operators, their floods, and what chatters or stands too long."""
    figures, clock = facts.figures, facts.clock
    if not len(facts.alarms):
        return ""
    rows = [
        (
            esc(each.operator),
            f"{each.n_sources:,}",
            f"{each.alarms:,}",
            f"{each.per_10min:.3g}",
            f"{each.peak:,}",
            DASH if each.peak_ms is None else esc(clock(each.peak_ms, "%Y-%m-%d %H:%M")),
            f"{len(each.floods):,}",
            share(each.flood_share),
        )
        for each in figures.operators[:MOST_ROWS]
    ]
    heads = [("Operator", "id"), ("Sources", "n wide-only"), ("Alarms", "n"),
             ("Average in 10 min", "n"), ("Most in 10 min", "n"), ("at", "t wide-only"),
             ("Floods", "n wide-only"), ("Time in flood", "n")]  # fmt: skip
    quiet = figures.n_operators - len(figures.operators)
    note = f"{quiet} without any alarm." if quiet else ""
    if [each.operator for each in figures.operators] == [NOBODY]:
        note = f"No source that alarmed names its {figures.by}: they count as one operator."
    note += _left_out(len(figures.operators))
    return (
        card(
            "Load by operator",
            table(heads, rows, caption="Load by operator"),
            note=esc(note),
            kind="wide",
        )
        + column(card("What brought episodes to their peak", _why(facts)))
        + column(
            card("Floods", _floods(facts), note=esc(_flood_note(facts)))
            + card("Chattering and stale", _nuisance(facts))
        )
    )


def _flood_note(facts: Facts) -> str:
    bounds = facts.figures.bounds
    return (
        f"More than {bounds.flood_starts_above} alarms of one operator in 10 min, until fewer "
        f"than {bounds.flood_ends_below} are left. Alarms are the operator’s, those of the "
        "10 min that made it a flood included."
    )


def flood_rows(facts: Facts) -> list[tuple[int, int, str]]:
    """Return every flood: from, to, of whom; in order of time."""
    found = [
        (start, end, each.operator)
        for each in facts.figures.operators
        for start, end in each.floods
    ]
    return sorted(found)


def _floods(facts: Facts) -> str:
    found = flood_rows(facts)
    if not found:
        return nothing("No operator was flooded.")
    rows = [
        (
            esc(operator),
            esc(facts.clock.span(start_ms, end_ms)),
            lasting(end_ms - start_ms),
            f"{n:,}",
        )
        for (start_ms, end_ms, operator), n in zip(
            found[:MOST_ROWS], _flooding(facts, found[:MOST_ROWS]), strict=True
        )
    ]
    heads = [("Operator", "id"), ("From, to", "t"), ("Lasted", "n"), ("Alarms", "n")]
    return table(heads, rows, caption="Floods") + _more(len(found))


def _flooding(facts: Facts, floods: list[tuple[int, int, str]]) -> list[int]:
    """Return the operator's alarms in each flood and in the 10 min that made it one."""
    operators = Operators.of(facts.plan.catalog, facts.figures.by)
    whose = operators.of_source[facts.alarms["source"]]
    at = facts.alarms["event_ms"]
    times = {name: np.sort(at[whose == operators.names.index(name)]) for _, _, name in set(floods)}
    return [
        int(
            np.searchsorted(times[name], end_ms, "right")
            - np.searchsorted(times[name], start_ms - PERIOD_MS, "right")
        )
        for start_ms, end_ms, name in floods
    ]


def _nuisance(facts: Facts) -> str:
    figures = facts.figures
    parts = []
    if figures.chattering:
        rows = [
            (esc(each.source), f"{each.bouts:,}", f"{each.most_cycles:,}")
            for each in figures.chattering[:MOST_NUISANCES]
        ]
        heads = [
            ("Chattering source", "id"),
            ("Bouts", "n"),
            (f"Most cycles in {figures.bounds.chatter_s:g} s", "n"),
        ]
        parts.append(table(heads, rows, caption="Chattering sources"))
        parts.append(_more(len(figures.chattering), MOST_NUISANCES))
    else:
        parts.append(nothing("No source chattered."))
    stale_ms = figures.bounds.stale_h * 3_600_000
    stale = np.flatnonzero(facts.lasted > stale_ms)
    stale = stale[np.argsort(-facts.lasted[stale], kind="stable")]
    if len(stale):
        rows = [
            (
                esc(facts.names[int(facts.episodes["source"][e])][0]),
                esc(facts.clock(int(facts.episodes["start_ms"][e]), "%Y-%m-%d %H:%M")),
                lasting(int(facts.lasted[e])),
            )
            for e in stale[:MOST_NUISANCES].tolist()
        ]
        heads = [("Stale episode of", "id"), ("Since", "t"), ("Lasted", "n")]
        parts.append(table(heads, rows, caption="Stale episodes"))
        parts.append(_more(len(stale), MOST_NUISANCES))
    else:
        words = f"No episode stood longer than {figures.bounds.stale_h:g} h."
        parts.append(nothing(words))
    return "".join(parts)


def _left_out(n: int) -> str:
    return f" The busiest {MOST_ROWS} of {n:,} are shown." if n > MOST_ROWS else ""


def _more(n: int, shown: int = MOST_ROWS) -> str:
    return f'<p class="note">{n - shown:,} more are not listed.</p>' if n > shown else ""

"""The sections of a study's page: what was asked, what it came to, the rules that came out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from engine.analysis.reports.html import DASH, card, chart, esc, level_chip, nothing, table
from engine.analysis.reports.study_read import Change, Told
from engine.analysis.reports.study_words import (
    LESS,
    NEITHER,
    better,
    exact,
    figure_text,
    kind_of,
    number,
    shown_first,
    words_of,
)
from kernels.layout import LEVEL_NAMES

MOST_MULTIPLES = 24
MOST_REASONS = 12
MOST_CHANGES = 400
_CHOICES = {
    "order": "the best by the first objective, then by the next",
    "balance": "the nearest to the best of every objective",
}
_SENSES = {"found": "Found", "missed": "Missed", "delay_median_s": "Median delay",
           "delay_worst_s": "Worst delay", "false": "False alarms"}  # fmt: skip


def head(told: Told) -> str:
    """Return what was asked."""
    asked = told.asked
    refused = told.n - int(told.accepted.sum())
    cells = [
        ("Rules", f"{esc(told.rules_name)} {_digest(asked.rules)}"),
        ("Catalog", _digest(asked.catalog)),
        ("Space", f"{_digest(asked.space)} of {len(told.parameters):,} parameters"),
        ("Readings", esc(_files(asked.readings))),
        ("Time", esc(_span(asked.span))),
        ("Truth", esc(_truth(told))),
        ("Operator", esc(f"each {asked.measured.by}")),
        ("Search", esc(_search(told))),
        ("Settings", f"{told.n - refused:,} tried{f', {refused:,} refused' if refused else ''}"),
        ("Objectives", esc(", then ".join(map(str, told.aim.objectives)))),
        ("Required", esc(_required(told))),
        ("Chosen by", esc(_CHOICES.get(told.said.choose, told.said.choose))),
        ("Made with", esc(f"Tocsin {asked.tocsin}")),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)
    return f'<dl class="facts">{listed}</dl>'


def _digest(digest: str) -> str:
    return f"<code>{esc(digest[:12])}</code>"


def _files(readings: dict[str, int]) -> str:
    named = ", ".join(list(readings)[:3])
    more = f" and {len(readings) - 3:,} more" if len(readings) > 3 else ""
    return f"{named}{more}, {sum(readings.values()) / 1e6:,.3g} MB"


def _span(span: tuple[int | None, int | None]) -> str:
    if span == (None, None):
        return "all of the readings"
    since, until = (DASH if ms is None else f"{ms / 1000:.15g} s" for ms in span)
    return f"epoch {since} to {until}"


def _truth(told: Told) -> str:
    if not told.has_truth:
        return "none: nobody knows what these settings would miss"
    n = told.figures["incidents"][0]
    measured = told.asked.measured
    slack = [
        f"{name} {seconds:g} s"
        for name, seconds in (("lead", measured.lead_s), ("grace", measured.grace_s))
        if seconds
    ]
    return ", ".join([f"{number(float(n))} incidents", *slack])


def _search(told: Told) -> str:
    search = told.asked.search
    seed = "" if search.seed is None else f", seed {search.seed}"
    n = told.origin.count("reverted")
    beside = f"; {n:,} around the best: without a change, or rounder" if n else ""
    return f"{search.method}{seed}{beside}"


def _required(told: Told) -> str:
    if not told.aim.requirements:
        return "nothing"
    n = int(told.able.sum())
    return f"{', '.join(map(str, told.aim.requirements))}: {n:,} settings keep to it"


def outcome(told: Told) -> str:
    """Return in a sentence which setting is best, and the tiles that compare it with the rules."""
    best = told.best
    chosen = told.said.chosen
    if chosen is not None:
        words = f"Setting {best} was chosen: {chosen.reason}."
        if not told.changes:
            words = f"Nothing is to be changed: {chosen.reason}."
        kind = ""
    elif told.interrupted:
        words = (
            f"The study was interrupted: this is how it stands, and setting {best} is the best so "
            "far. The same command goes on with it."
        )
        kind = " warn"
    else:
        unmet = ", ".join(told.unmet(best))
        words = f"No setting keeps to what is required. Setting {best} comes nearest; it misses "
        words += f"{unmet}."
        kind = " warn"
    notes = "".join(f'<p class="note">{esc(each)}</p>' for each in told.said.notes)
    return f'<p class="outcome{kind}">{esc(words)}</p>{notes}{_tiles(told)}'


def _tiles(told: Told) -> str:
    asked = list(told.aim.metrics())
    beside = [name for name in shown_first(told) if name not in asked]
    parts = f'<h2 class="minor">What was asked for: given rules → {esc(told.mark)}</h2>'
    parts += f'<div class="tiles compared">{"".join(_tile(told, name) for name in asked)}</div>'
    if beside:
        tiles = "".join(_tile(told, name) for name in beside)
        parts += f'<h2 class="minor">Beside it</h2><div class="tiles compared">{tiles}</div>'
    return parts


def _tile(told: Told, name: str) -> str:
    figures = told.figures[name]
    old, new = float(figures[0]), float(figures[told.best])
    verdict, chip = _verdict(told, name, old, new)
    words = words_of(name)
    bounds = ", ".join(
        f"{each.sense} {each.bound:g}" for each in told.aim.requirements if each.metric == name
    )
    asked = f"; required {bounds}" if bounds else ""
    return (
        f'<div class="tile {verdict}"><h3>{esc(words[0].upper() + words[1:])} '
        f"<code>{esc(name)}</code></h3>"
        f'<p class="big">{esc(figure_text(name, new))}</p>'
        f"<p>given {esc(figure_text(name, old) + asked)}</p>{chip}</div>"
    )


def _verdict(told: Told, name: str, old: float, new: float) -> tuple[str, str]:
    """Return the class and the chip of a change: its sign tells more than its colour."""
    if math.isnan(old) or math.isnan(new):
        return "", ""
    change = new - old
    if change == 0:
        return "", '<span class="chip same"><b aria-hidden="true">=</b>as given</span>'
    text = figure_text(name, abs(change))
    if kind_of(name) == "share":
        text = f"{100 * abs(change):.3g} points"
    elif old:
        text += f" ({100 * abs(change) / abs(old):.3g}\u00a0%)"
    signed = f"{'+' if change > 0 else '−'}{text}"
    way = better(told, name)
    if way == NEITHER:
        return "", f'<span class="chip same"><b aria-hidden="true">~</b>{esc(signed)}</span>'
    good = (change < 0) == (way == LESS)
    verdict, sign = ("good", "✓") if good else ("missed", "✗")
    words = f"{'better' if good else 'worse'}: {signed}"
    chip = f'<span class="chip {verdict}"><b aria-hidden="true">{sign}</b>{esc(words)}</span>'
    return verdict, chip


def refused(told: Told) -> str:
    """Return why settings were refused."""
    found = told.said.refused
    if not found:
        return ""
    rows = [(f"{each.settings:,}", esc(each.reason)) for each in found[:MOST_REASONS]]
    more = len(found) - MOST_REASONS
    rest = f'<p class="note">{more:,} more keys are not listed.</p>' if more > 0 else ""
    note = "The rules, or a sensor’s own limits, refuse them: they were not tried."
    listed = table([("Settings", "n"), ("The first reason at a key", "")], rows,
                   caption="Settings that were refused")  # fmt: skip
    return card("Refused settings", listed + rest, note=note, kind="wide refusals")


def by_level(told: Told) -> str:
    """Return what is found and missed at each level, given and chosen."""
    if not told.has_truth:
        return ""
    best = told.best
    rows = []
    for level in told.levels:
        cells = [level_chip(LEVEL_NAMES.index(level))]
        for base in _SENSES:
            name = f"{base}_{level}"
            if name in told.figures:
                cells.append(_step(told, name, best))
            else:
                cells.append(DASH)
        rows.append(cells)
    heads = [("At level", ""), *((words, "n") for words in _SENSES.values())]
    note = f"Given rules → {told.mark}; an incident is found when its source comes to the level."
    return card("Against the truth, by level", table(heads, rows, caption="Figures by level"),
                note=esc(note), kind="wide")  # fmt: skip


def _step(told: Told, name: str, best: int) -> str:
    old, new = (float(told.figures[name][row]) for row in (0, best))
    before, after = figure_text(name, old), figure_text(name, new)
    if before == after:
        return esc(after)
    return f"{esc(before)} → <b>{esc(after)}</b>"


def tradeoff(told: Told) -> str:
    """Return the chart of the settings by two figures, and what is told of the picked one."""
    words = f"{told.n:,} settings by two of their figures: {told.front_words}."
    note = (
        "A point is a setting; a greater one stands for several. The front has the settings that "
        "no other betters in every objective: by two of the figures alone it may look otherwise. "
        "A click, or the arrow keys, picks a setting."
    )
    pickers = (
        '<form class="filters pickers" onsubmit="return false" aria-label="Axes">'
        '<label>Across <select id="axis-x"></select></label>'
        '<label>Up <select id="axis-y"></select></label>'
        '<label><input type="checkbox" id="front-only"> the front alone</label></form>'
    )
    box = (
        f'<div class="around" id="tradeoff-around" tabindex="0" role="group" '
        f'aria-label="Settings: arrow keys pick one">{chart("tradeoff", words, height=420)}</div>'
    )
    picked = (
        '<section class="card picked" aria-live="polite"><h3 id="picked-title">Settings</h3>'
        '<div id="picked"></div></section>'
    )
    return card("Settings against each other", pickers + box, note=esc(note), kind="trade") + picked


def parameters(told: Told) -> str:
    """Return small charts of one figure against each parameter, and the values that did best."""
    shown = min(len(told.parameters), MOST_MULTIPLES)
    multiples = "".join(
        f'<figure class="multiple"><figcaption id="multiple-{i}-title"></figcaption>'
        f'<div class="around"><div class="chart" id="multiple-{i}" data-paper="325" role="img" '
        f'aria-labelledby="multiple-{i}-title" style="height:190px"></div></div></figure>'
        for i in range(shown)
    )
    note = (
        "The line is the median of all settings with such a value, the band holds half of them. "
        "What goes with a parameter is the share of the figure’s spread that lies between its "
        "values, whatever the others are; those with most come first."
    )
    more = len(told.parameters) - shown
    if more > 0:
        note += f" {more:,} more parameters go with less."
    pickers = (
        '<form class="filters pickers" onsubmit="return false" aria-label="Figure">'
        '<label>Figure <select id="figure"></select></label></form>'
    )
    charts = card("What each parameter did", pickers + f'<div class="multiples">{multiples}</div>',
                  note=esc(note), kind="wide")  # fmt: skip
    return charts + card(
        "Values", _values(told), note=esc(f"Of the settings, {told.front_words}."), kind="wide"
    )


def _values(told: Told) -> str:
    units = {change.key: change.unit for change in told.changes}
    rows = []
    for name, column in zip(told.parameters, told.values, strict=True):
        old, new = float(column[0]), float(column[told.best])
        best = exact(new) if old == new or old != old == new != new else f"<b>{exact(new)}</b>"
        unit = f'<span class="sub">{esc(units[name])}</span>' if units.get(name) else ""
        rows.append(
            (
                f"{_breaking(name)}{unit}",
                _range(column[told.accepted]),
                exact(old),
                best,
                _range(column[told.front]),
            )
        )
    heads = [("Parameter", "id"), ("Tried", "n wide-only"), ("Given", "n"),
             (told.mark.capitalize(), "n"), ("On the front", "n")]  # fmt: skip
    return table(heads, rows, caption="Values of the parameters")


def _range(column: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    found = np.unique(column[~np.isnan(column)])
    if not len(found):
        return DASH
    if len(found) <= 5:
        return ", ".join(exact(value) for value in found.tolist())
    return f"{exact(float(found[0]))} to {exact(float(found[-1]))}"


def rules(told: Told) -> str:
    """Return what the chosen rules change, why, and their file."""
    chosen = told.said.chosen
    if chosen is None:
        words = "No rules were chosen, so there are none to show."
        return card("The chosen rules", nothing(words), kind="wide")
    if not told.changes:
        body = nothing("The rules stay as they are: no setting does better.")
    else:
        body = _changes(told)
    text = told.rules_text
    if text is not None:
        body += (
            '<p class="after"><button type="button" id="save-rules">Save rules.toml</button></p>'
            '<details class="file"><summary>The file</summary>'
            f'<pre tabindex="0" id="rules-text">{esc(text)}</pre></details>'
        )
    note = esc(f"Digest {chosen.digest}; its alerts carry it.")
    return card("The chosen rules", body, note=note, kind="wide")


def _changes(told: Told) -> str:
    shown = told.changes[:MOST_CHANGES]
    rows = [
        (
            f"<code>{_breaking(each.key)}</code>",
            f"{DASH if each.old is None else exact(each.old)}",
            f"<b>{exact(each.new)}</b>{f' {esc(each.unit)}' if each.unit else ''}",
            esc(why),
        )
        for each, why in _told_once(shown)
    ]
    heads = [("Key", "id"), ("Given", "n"), ("Chosen", "n"), ("Why", "text")]
    more = len(told.changes) - len(shown)
    rest = f'<p class="note">{more:,} more are in the file.</p>' if more > 0 else ""
    return table(heads, rows, caption="Keys that change", kind="changes") + rest


def _breaking(name: str) -> str:
    """Return a name that may break after its dots and underscores."""
    return esc(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _told_once(changes: list[Change]) -> Iterator[tuple[Change, str]]:
    """Yield changes with their reasons; what the one above has is not said again."""
    before = None
    for each in changes:
        yield each, "for the same" if each.why == before and each.why else each.why
        before = each.why

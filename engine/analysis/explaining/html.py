"""An explanation as one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.analysis.diffs.page import level_mark, page, table, when
from engine.analysis.explaining.counterfactual import Finding, Search
from engine.analysis.explaining.draw import curves_of, drawing
from engine.analysis.explaining.explain import Contribution, Explanation
from engine.analysis.explaining.said import (
    asked,
    at,
    besides,
    counted,
    head,
    in_vain,
    key_now,
    levels,
    outcome,
    put_off,
    sums,
)
from engine.analysis.explaining.words import esc, moment, zone_name
from kernels.layout import LEVEL_NAMES


def html_of(of: Explanation) -> str:
    """Return the page."""
    zone = of.rules.time.zone()
    when = moment(int(of.alert["event_ms"]), zone, year=True)
    body = [
        f"<h1>{esc(head(of))}</h1>",
        f"<p>{esc(str(of.alert['text']))}</p>",
        f'<p class="dim">{esc(when)} {esc(zone_name(zone))}; category '
        f"{esc(of.alert['category'])}, static class {esc(of.alert['static_class'])}</p>",
        *(f'<p class="note">{esc(note)}</p>' for note in of.notes),
        "<h2>The episode</h2>",
        _episode(of),
        "<h2>What happened</h2>",
        _story(of),
        *_curves(of),
        "<h2>How it added up</h2>",
        _contributions(of, of.contributions),
    ]
    if of.coupled:
        body += [
            "<h2>Neighbours</h2>",
            _neighbours(of),
            _contributions(of, of.coupled_contributions),
        ]
    body += [f"<p><code>{esc(line)}</code></p>" for line in sums(of)]
    body += ["<h2>What level that is</h2>", *(f"<p>{esc(line)}</p>" for line in levels(of))]
    if of.searches:
        body.append("<h2>What would have prevented it</h2>")
        for search in of.searches:
            body += _prevented(search)
    return page(f"{of.alert_id}#{of.seq}", "".join(body))


def _episode(of: Explanation) -> str:
    zone = of.rules.time.zone()
    rows = (
        [
            f"<b>#{each['seq']}</b>" if each["seq"] == of.seq else f"#{each['seq']}",
            esc(each["transition"]),
            level_mark(LEVEL_NAMES.index(each["level"])),
            when(int(each["event_ms"]), zone),
            f"{each['score']:.4g}",
        ]
        for each in of.episode
    )
    return table(("", "transition", "level", "time", "score"), rows, numbers="    n")


def _story(of: Explanation) -> str:
    zone = of.rules.time.zone()
    rows = [
        [when(told.event_ms, zone), level_mark(told.level), esc(told.text)] for told in of.story
    ]
    alert = of.alert
    last = f"<b>{esc(alert['transition'])} to {esc(alert['level'])}</b>"
    level = level_mark(LEVEL_NAMES.index(alert["level"]))
    rows.append([when(int(alert["event_ms"]), zone), level, last])
    return table(("time", "signal", "what"), rows)


def _curves(of: Explanation) -> Iterator[str]:
    zone = of.rules.time.zone()
    for curve in curves_of(of):
        unit = f", {curve.unit}" if curve.unit else ""
        yield f"<h2>{esc(curve.quantity.replace('_', ' '))} ({esc(curve.sensor)}){esc(unit)}</h2>"
        yield drawing(curve, zone)


def _contributions(of: Explanation, rows: Sequence[Contribution]) -> str:
    heads = ("sensor", "signal", "severity × weight × detector’s", "limit’s key", "counts")
    cells = (
        [
            esc(each.sensor),
            f"{esc(each.detector)} {esc(each.level)}",
            esc(counted(of, each)),
            f"<code>{esc(each.key)}</code>" if each.key else "",
            f"{each.counts:.3g} %",
        ]
        for each in rows
    )
    return table(heads, cells, numbers="    n") if rows else "<p>No sensor of its own counts.</p>"


def _neighbours(of: Explanation) -> str:
    cells = (
        [
            f"{esc(each.source)} ({esc(each.kind)})",
            f"{each.own:.3g} × {each.weight:.3g} × {each.influence:.3g}",
            f"{each.counts:.3g} %",
        ]
        for each in of.coupled
    )
    return table(("neighbour", "own score × weight × influence", "counts"), cells, numbers="  n")


def _prevented(search: Search) -> Iterator[str]:
    if search.findings or not search.question.answerable:
        yield f"<p>{esc(asked(search.question))}</p>"
    if search.findings:
        yield _findings(search, search.findings)
    if search.put_off:
        yield f"<p>{esc(put_off(search.question))}</p>{_findings(search, search.put_off)}"
    if search.findings or search.put_off:
        yield (
            '<p class="dim">Each was judged again on both sides: so from the value on, '
            "not yet one step before.</p>"
        )
    if search.in_vain:
        names = ", ".join(f"<code>{esc(key.name)}</code>" for key in search.in_vain)
        yield f'<p class="dim">{esc(in_vain(search.question))}: {names}</p>'


def _findings(search: Search, findings: Sequence[Finding]) -> str:
    rows = (
        [
            f"<code>{esc(key_now(each))}</code>",
            esc(at(each)),
            esc(outcome(each, search.question)),
            esc(besides(each.effect)),
        ]
        for each in findings
    )
    return table(("rule key", "with", "then", "in the whole history"), rows)

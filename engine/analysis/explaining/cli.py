"""What `tocsin explain` shows: why an alert was sent, and what would have prevented it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.analysis.explaining.words import moment, number, zone_name
from engine.replay_cli import LEVEL_STYLES
from engine.truth import LEVELS
from kernels.layout import LEVEL_NAMES

if TYPE_CHECKING:
    from engine.analysis.explaining.counterfactual import Finding, Search
    from engine.analysis.explaining.explain import Contribution, Explanation

MOST_TOLD = 14
"""Lines of what happened that a terminal shows, the last ones."""
MOST_PUT_OFF = 4
_BLOCKS = 40


def run(
    alert_id: str,
    readings: Sequence[Path],
    catalog: Path,
    rules: Path,
    adapter: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    sort: bool = False,
    threads: int = 1,
    truth: Path | None = None,
    level: str = "blue",
    prevent: bool = True,
    effects: bool = True,
    html: Path | None = None,
    as_json: bool = False,
) -> int:
    """Explain one alert and print it; return the exit code. Raises what is wrong with the input."""
    if level not in LEVELS:
        raise typer.BadParameter(f"--level: must be one of {', '.join(LEVELS)}, got {level!r}")
    from engine.analysis.diffs.page import ready
    from engine.analysis.explaining.explain import explain, parse_id
    from engine.analysis.past import Past
    from engine.pipeline import warm_up
    from engine.plan import compile_plan
    from engine.replay_cli import warmed
    from engine.rules_check import load
    from engine.truth import read_truth

    parse_id(alert_id)
    if html is not None:
        ready(html)
    ruled = load(rules)
    past = Past.open(catalog, readings, adapter=adapter, since=since, until=until, sort=sort)
    incidents = None if truth is None else read_truth(truth, ruled.time.utc_offset)
    stderr = Console(stderr=True, highlight=False)
    warmed(lambda: warm_up(compile_plan(past.catalog, ruled)), stderr)
    with progress(stderr) as show:
        found = explain(
            past,
            ruled,
            alert_id,
            truth=incidents,
            level=level,
            prevent=prevent,
            effects=effects,
            threads=threads,
            on_progress=show,
        )
    if html is not None:
        from engine.analysis.diffs.page import write_page
        from engine.analysis.explaining.html import html_of

        write_page(html, html_of(found))
    if as_json:
        values = orjson.dumps(found.as_dict(), option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(values + b"\n")
    else:
        Console(highlight=False).print(report(found))
    for note in found.notes:
        stderr.print(f"[bold]note[/bold]: {escape(note)}", soft_wrap=True)
    return 0


@contextmanager
def progress(stderr: Console) -> Iterator[Callable[[str, float], None]]:
    """Yield what shows on a terminal which step is how far; does nothing where there is none."""
    if not stderr.is_terminal:
        yield lambda what, share: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("reading", total=1.0)

        def show(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        yield show


# --- the terminal --------------------------------------------------------------------------------


def report(of: Explanation) -> RenderableType:
    """Return what a terminal shows."""
    from engine.analysis.explaining.said import levels, sums

    parts: list[RenderableType] = [_head(of), "", _titled("What happened"), _story(of)]
    curves = _curves(of)
    if curves is not None:
        parts += ["", curves]
    parts += ["", _titled("How it added up")]
    if of.contributions:
        parts.append(_contributions(of, of.contributions))
    if of.coupled:
        parts.append(_neighbours(of))
    if of.coupled_contributions:
        parts.append(_contributions(of, of.coupled_contributions))
    parts += [_text(line) for line in sums(of)]
    parts += ["", _titled("What level that is"), *(_text(line) for line in levels(of))]
    if of.searches:
        parts += ["", _titled("What would have prevented it")]
        for search in of.searches:
            parts += _prevented(search)
    return Group(*parts)


def _titled(words: str) -> Text:
    return Text(words, style="bold")


def _text(line: str) -> RenderableType:
    return Padding(Text(line), (0, 0, 0, 2))


def _styled(level: str) -> str:
    style = LEVEL_STYLES.get(level)
    return f"[{style}]{level}[/]" if style else level


def _head(of: Explanation) -> RenderableType:
    from engine.analysis.explaining.said import head

    alert = of.alert
    zone = of.rules.time.zone()
    when = moment(int(alert["event_ms"]), zone, year=True)
    steps = [
        f"{'▸' if each['seq'] == of.seq else ''}#{each['seq']} {_styled(each['level'])} "
        f"{moment(int(each['event_ms']), zone, date=False)}"
        for each in of.episode
    ]
    return Group(
        f"[bold]{escape(head(of))}[/bold]",
        escape(str(alert["text"])),
        f"{when} {zone_name(zone)}; category {escape(alert['category'])}, "
        f"static class {alert['static_class']}",
        f"episode: {', '.join(steps)}",
    )


def _story(of: Explanation) -> Table:
    zone = of.rules.time.zone()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    left = of.story[-MOST_TOLD:]
    if len(left) < len(of.story):
        table.add_row("  …", f"{len(of.story) - len(left)} earlier (--json has all)")
    for told in left:
        style = LEVEL_STYLES.get(LEVEL_NAMES[told.level], "")
        table.add_row(f"  {moment(told.event_ms, zone)}", Text(told.text, style=style))
    alert = of.alert
    table.add_row(
        f"  {moment(int(alert['event_ms']), zone)}",
        Text(f"{alert['transition']} to {alert['level']}", style="bold"),
    )
    return table


def _curves(of: Explanation) -> RenderableType | None:
    from engine.analysis.explaining.draw import blocks, curves_of

    curves = curves_of(of)
    if not curves:
        return None
    zone = of.rules.time.zone()
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", max_width=24)
    table.add_column(no_wrap=True, max_width=_BLOCKS)
    table.add_column(overflow="fold")
    for curve in curves:
        before, after = blocks(curve, _BLOCKS)
        low, high = (number(float(end(curve.value))) for end in (min, max))
        table.add_row(
            Text("  " + curve.sensor),
            Text.assemble(before, (after, "dim")),
            Text(f"{curve.quantity.replace('_', ' ')} {low} to {high} {curve.unit}"),
        )
    ends = [moment(ms, zone, date=False) for ms in (curves[0].since_ms, curves[0].until_ms)]
    gap = " " * max(1, _BLOCKS - sum(map(len, ends)))
    table.add_row("", Text(f"{ends[0]}{gap}{ends[1]}", style="dim"), "")
    return table


def _contributions(of: Explanation, rows: Sequence[Contribution]) -> Table:
    from engine.analysis.explaining.said import counted

    table = Table(box=None, padding=(0, 2))
    for name in ("sensor", "signal", "severity × weight × detector's", "counts"):
        table.add_column(name, overflow="fold", justify="right" if name == "counts" else "left")
    for each in rows:
        table.add_row(
            escape(each.sensor),
            f"{each.detector} {_styled(each.level)}",
            escape(counted(of, each)),
            f"{each.counts:.3g} %",
        )
    return table


def _neighbours(of: Explanation) -> Table:
    table = Table(box=None, padding=(0, 2))
    for name in ("neighbour", "own score × weight × influence", "counts"):
        table.add_column(name, overflow="fold", justify="right" if name == "counts" else "left")
    for each in of.coupled:
        table.add_row(
            escape(f"{each.source} ({each.kind})"),
            f"{each.own:.3g} × {each.weight:.3g} × {each.influence:.3g}",
            f"{each.counts:.3g} %",
        )
    return table


def _prevented(search: Search) -> Iterator[RenderableType]:
    from engine.analysis.explaining.said import asked, in_vain, put_off

    if search.findings or not search.question.answerable:
        yield _text(asked(search.question))
        yield from _findings(search, search.findings)
    if search.put_off:
        yield _text(put_off(search.question))
        yield from _findings(search, search.put_off[:MOST_PUT_OFF])
        left = len(search.put_off) - MOST_PUT_OFF
        if left > 0:
            yield Padding(Text(f"… and {left} more, by less (--json has them)"), (0, 0, 0, 4))
    if search.in_vain:
        names = ", ".join(key.name for key in search.in_vain)
        text = Text(f"{in_vain(search.question)}: {names}", style="dim")
        yield Padding(text, (0, 0, 0, 2))


def _findings(search: Search, findings: Sequence[Finding]) -> Iterator[RenderableType]:
    from engine.analysis.explaining.said import at, besides, key_now, outcome

    for each in findings:
        more = besides(each.effect)
        yield Padding(Text(key_now(each), style="bold"), (0, 0, 0, 4))
        text = f"{at(each)}: {outcome(each, search.question)}"
        text += f"; in the whole history {more}" if more else ""
        yield Padding(Text(text), (0, 0, 0, 8))

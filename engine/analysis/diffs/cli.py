"""What `tocsin diff` shows: tables, JSON or a page, and what CI may ask of a change of rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.analysis.diffs.gate import Gate, parse_gates
from engine.analysis.explaining.words import moment, zone_name
from engine.replay_cli import LEVEL_STYLES
from engine.truth import LEVELS
from kernels.layout import LEVEL_NAMES

if TYPE_CHECKING:
    from engine.analysis.diffs.diff import Diff
    from engine.analysis.diffs.diff import Group as Episodes

MOST_SHOWN = 20
DIFFERS = 1
"""Exit code where a condition of `--fail-on` is met."""


def run(
    old: Path,
    new: Path,
    readings: Sequence[Path],
    catalog: Path,
    adapter: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    sort: bool = False,
    threads: int = 1,
    truth: Path | None = None,
    level: str = "blue",
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    fail_on: Sequence[str] = (),
    html: Path | None = None,
    as_json: bool = False,
    most: int = MOST_SHOWN,
) -> int:
    """Judge a history under two rule sets and print what differs; return the exit code.

    0, or 1 if a condition of `fail_on` is met (see `engine.analysis.diffs.gate`). Raises what is
    wrong with the input.
    """
    gates = gates_of(fail_on, truth is not None)
    if level not in LEVELS:
        raise typer.BadParameter(f"--level: must be one of {', '.join(LEVELS)}, got {level!r}")
    from engine.analysis.diffs.diff import diff
    from engine.analysis.diffs.page import ready
    from engine.analysis.past import Past
    from engine.analysis.sweep import Sweep
    from engine.replay_cli import warmed
    from engine.rules_check import load
    from engine.truth import read_truth

    if html is not None:
        ready(html)
    rules = load(old), load(new)
    past = Past.open(catalog, readings, adapter=adapter, since=since, until=until, sort=sort)
    incidents = None if truth is None else read_truth(truth, rules[1].time.utc_offset)
    stderr = Console(stderr=True, highlight=False)
    warmed(lambda: Sweep.warm_up(past, rules[0]), stderr)
    with progress(stderr, "judging under both") as show:
        found = diff(
            past,
            *rules,
            truth=incidents,
            level=level,
            lead_s=lead_s,
            grace_s=grace_s,
            threads=threads,
            on_progress=show,
        )
    failed = [met for gate in gates if (met := gate.met(found)) is not None]
    if html is not None:
        from engine.analysis.diffs.html import html_of
        from engine.analysis.diffs.page import write_page

        write_page(html, html_of(found, old=str(old), new=str(new), failed=failed))
    if as_json:
        values = found.as_dict() | {"failed": failed}
        sys.stdout.buffer.write(orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        Console(highlight=False).print(report(found, most))
    for note in _notes(found, incidents):
        stderr.print(f"[bold]note[/bold]: {escape(note)}", soft_wrap=True)
    for met in failed:
        stderr.print(f"[bold red]failed[/bold red]: {escape(met)}", soft_wrap=True)
    return DIFFERS if failed else 0


def gates_of(texts: Sequence[str], has_truth: bool) -> list[Gate]:
    """Return the conditions of `--fail-on`; raises typer.BadParameter."""
    try:
        gates = [gate for text in texts for gate in parse_gates(text)]
    except ValueError as error:
        raise typer.BadParameter(f"--fail-on: {error}") from error
    if not has_truth and any(gate.needs_truth for gate in gates):
        needy = ", ".join(gate.text for gate in gates if gate.needs_truth)
        raise typer.BadParameter(f"--fail-on: {needy}: needs --truth")
    return gates


@contextmanager
def progress(stderr: Console, words: str) -> Iterator[Callable[[float], None] | None]:
    """Yield what shows a share that is done on a terminal, None where there is none."""
    if not stderr.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(words, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _notes(diff: Diff, incidents: Any) -> Iterator[str]:
    if diff.keys and not diff.differing:
        yield "the rules differ, but not one episode of this history does"
    if not diff.n_readings:
        yield "this history has no readings"
    if diff.against is not None and incidents is not None:
        strange = sorted(
            {each.source for each in incidents if diff.catalog.source_index(each.source) < 0}
        )
        if strange:
            n, some = len(strange), ", ".join(strange[:3]) + ", …" * (len(strange) > 3)
            are = "source of the truth is" if n == 1 else "sources of the truth are"
            yield f"{n} {are} not in the catalog: {some}"
        if not diff.against.verdicts:
            yield "no incident of the truth lies within this history"


# --- the terminal --------------------------------------------------------------------------------


def report(diff: Diff, most: int = MOST_SHOWN) -> RenderableType:
    """Return what a terminal shows."""
    zone = diff.new_rules.time.zone()
    parts: list[RenderableType] = [_keys(diff), "", _counts(diff)]
    if diff.differing:
        parts += ["", _differing(diff, zone, most)]
    if diff.against is not None:
        parts += ["", _truth(diff, zone)]
    return Group(*parts, "", _verdict(diff))


def _keys(diff: Diff) -> RenderableType:
    from engine.analysis.diffs.rules import shown

    if not diff.keys:
        return "rules: both mean the same"
    lines: list[RenderableType] = [Text("rules", style="bold")]
    for each in diff.keys:
        line = Text.assemble((each.key, ""), f"  {shown(each.old)} → {shown(each.new)}")
        line.stylize("bold", len(each.key))
        lines.append(Padding(line, (0, 0, 0, 2)))
    return Group(*lines)


def _counts(diff: Diff) -> Table:
    from engine.analysis.diffs.said import amount, differs, name_of

    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("counts")
    for name in ("old", "new", "change"):
        table.add_column(name, justify="right")
    for count in diff.counts(sources=False):
        if count.name != "all" and not differs(count):
            continue
        table.add_row(escape(name_of(count)), *amount(count))
    return table


def _differing(diff: Diff, zone: timezone, most: int) -> Table:
    from engine.analysis.diffs.said import change_words, lasted

    groups = diff.differing
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    if len(groups) > most:
        table.caption = f"{len(groups) - most:,} more: --most N, --json or --html FILE shows them"
        table.caption_justify = "left"
    table.add_column("source", overflow="fold", max_width=24)
    table.add_column("what differs", overflow="fold")
    table.add_column(zone_name(zone), overflow="fold")
    table.add_column("peak", overflow="fold")
    table.add_column("lasted", overflow="fold")
    for group in groups[:most]:
        side = group.old or group.new
        assert side is not None
        table.add_row(
            escape(group.source),
            change_words(group),
            moment(side.start_ms, zone),
            _peaks(group),
            lasted(side),
        )
    return table


def _peaks(group: Episodes) -> str:
    names = [LEVEL_NAMES[level] if level else "–" for level in group.peaks]
    styled = [f"[{LEVEL_STYLES.get(name, 'default')}]{name}[/]" for name in names]
    return styled[0] if names[0] == names[1] else " → ".join(styled)


def _truth(diff: Diff, zone: timezone) -> RenderableType:
    from engine.analysis.diffs.said import verdict_words

    against = diff.against
    assert against is not None
    sides = against.old, against.new
    found = " → ".join(f"{len(side.found)} of {len(side.detections)}" for side in sides)
    false = " → ".join(f"{len(side.false):,}" for side in sides)
    head = f"truth at {against.old.level}: incidents found {found}, false alarms {false}"
    moved = [each for each in against.verdicts if each.change not in ("same", "missed")]
    if not moved:
        return f"{head}; each incident is found when it was"
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for name in ("incident", "source", "start", "old", "new", "change"):
        table.add_column(name, overflow="fold")
    for each in moved:
        of = each.incident
        when = moment(of.start_ms, zone)
        table.add_row(*map(escape, (of.kind, of.source, when, *verdict_words(each))))
    return Group(head, table)


def _verdict(diff: Diff) -> str:
    """Return what CI reads last, in one line."""
    from engine.analysis.diffs.diff import SAME

    n_same = diff.by_change[SAME]
    if not diff.differing:
        others = f" ({diff.n_other_scores:,} with other scores)" if diff.n_other_scores else ""
        return f"the same {n_same:,} episodes under both{others}"
    changes = [f"{n:,} {change}" for change, n in diff.by_change.items() if n and change != SAME]
    alert = next(side.alert_id for side in (diff.differing[0].old, diff.differing[0].new) if side)
    return (
        f"{', '.join(changes)}, {n_same:,} the same "
        f"(why: tocsin explain {escape(str(alert))} with either rules)"
    )

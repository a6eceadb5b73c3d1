"""What `tocsin report` does: judge a history, or read a study; write the page, say what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.analysis.bounds import Target
from engine.analysis.operators import WAYS, By
from engine.analysis.past import Past, judge
from engine.analysis.reports.report import N_STRIPS, Report, report_of, write_report
from engine.analysis.reports.study_read import is_study
from engine.errors import InputError
from engine.pipeline import warm_up
from engine.plan import compile_plan
from engine.replay_cli import warmed
from engine.rules_check import load
from engine.truth import read_truth

VERDICT_STYLES = {"good": "green", "acceptable": "yellow", "missed": "red"}
MOST_STRIPS = 200


def run(
    readings: Sequence[Path],
    catalog: Path | None = None,
    rules: Path | None = None,
    adapter: Path | None = None,
    truth: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    output: Path = Path("report.html"),
    operators: str = "department",
    episodes: int = N_STRIPS,
    title: str | None = None,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    threads: int = 1,
    sort: bool = False,
    as_json: bool = False,
) -> int:
    """Write the report of a history, or of a study; return the exit code. Raises what is wrong.

    `readings` that are one folder with a study in it need neither `catalog` nor `rules`.
    `operators` is what makes an operator, `episodes` how many get a strip chart; the truth's times
    are the site's where they name no zone, and `lead_s`, `grace_s` are those of `engine.truth`.
    """
    _check(output, operators, episodes, lead_s, grace_s)
    if len(readings) == 1 and is_study(readings[0]):
        from engine.analysis.reports import study_cli

        given = {"--catalog": catalog, "--rules": rules, "--adapter": adapter, "--truth": truth,
                 "--from": since, "--to": until, "--sort": sort or None}  # fmt: skip
        _refuse_beside(readings[0], given)
        return study_cli.run(readings[0], output=output, title=title, as_json=as_json)
    catalog, rules = _needed(readings, catalog, rules)
    loaded = load(rules)
    incidents = None if truth is None else read_truth(truth, loaded.time.utc_offset)
    past = Past.open(catalog, list(readings), adapter=adapter, since=since, until=until, sort=sort)
    by: By = operators  # type: ignore[assignment]
    stderr = Console(stderr=True, highlight=False)
    warmed(lambda: warm_up(compile_plan(past.catalog, loaded)), stderr)
    with _progress(stderr) as part:
        judged = judge(past, loaded, threads=threads, on_progress=part("judging", 0.5))
        report = report_of(
            judged,
            past,
            truth=incidents,
            by=by,
            n_strips=episodes,
            lead_s=lead_s,
            grace_s=grace_s,
            title=title,
            on_progress=part("drawing", 1.0),
        )
    write_report(output, report)
    if as_json:
        text = orjson.dumps(summary(report, output), option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(text + b"\n")
    else:
        _show(report, output)
    return 0


def _check(output: Path, operators: str, episodes: int, lead_s: float, grace_s: float) -> None:
    """Refuse what can't end well before anything is read."""
    if operators not in WAYS:
        raise typer.BadParameter(f"--operators: must be one of {', '.join(WAYS)}")
    if not 0 <= episodes <= MOST_STRIPS:
        raise typer.BadParameter(f"--episodes: must be 0 to {MOST_STRIPS}, got {episodes}")
    for option, value in (("--lead", lead_s), ("--grace", grace_s)):
        if not 0 <= value < float("inf"):
            raise typer.BadParameter(f"{option}: must be at least 0, got {value:g}")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name the file to write, such as report.html")
    if not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}")


def _refuse_beside(study: Path, given: Mapping[str, object]) -> None:
    """Refuse what would be without effect on the report of a study."""
    needless = [option for option, value in given.items() if value is not None]
    if needless:
        raise typer.BadParameter(
            f"{', '.join(needless)}: {study} holds a study, whose report takes only -o, "
            "--title and --json; for that of a history give --catalog, --rules and its readings"
        )


def _needed(
    readings: Sequence[Path], catalog: Path | None, rules: Path | None
) -> tuple[Path, Path]:
    """Return the catalog and the rules, which only the report of a study goes without."""
    if catalog is not None and rules is not None:
        return catalog, rules
    missing = [
        option for option, value in (("--catalog", catalog), ("--rules", rules)) if not value
    ]
    named = ", ".join(map(str, readings[:2])) + ", …" * (len(readings) > 2)
    why = f"{named} holds no study"
    if any(map(is_study, readings)):
        why = "the report of a study is of that one folder, nothing beside it"
    raise typer.BadParameter(f"{' and '.join(missing)}: needed for the report of a history; {why}")


def summary(report: Report, output: Path) -> dict[str, Any]:
    """Return what a report says as plain JSON values."""
    facts = report.facts
    held = facts.held
    return {
        "output": str(output),
        "bytes": len(report.html),
        "strips": len(facts.chosen),
        "readings": facts.judged.n_readings,
        "rules": facts.plan.rules.digest,
        "catalog": facts.plan.catalog.digest,
        "figures": facts.figures.as_dict(),
        "truth": None if held is None else {each.level: each.as_dict() for each in held.scores},
    }


def _show(report: Report, output: Path) -> None:
    facts = report.facts
    figures, held = facts.figures, facts.held
    console = Console(highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("readings", f"{facts.judged.n_readings:,}")
    standing = f", {figures.standing_after:,} running at the end"
    grid.add_row("alarms", f"{figures.alarms:,} in {figures.episodes:,} episodes{standing}")
    if held is not None:
        least = held.least
        grid.add_row(
            "truth",
            f"{len(least.found)} of {len(least.detections)} incidents found, "
            f"{len(least.false):,} false alarms",
        )
    console.print(grid)
    console.print(_targets(figures.targets))
    size = f"{len(report.html) / 1e6:.1f} MB, {len(facts.chosen)} strips"
    console.print(f"report: {escape(str(output))} ({size})", soft_wrap=True)


def _targets(targets: Sequence[Target]) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("target", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in targets:
        style = VERDICT_STYLES[each.verdict]
        said = f"[{style}]{each.verdict}[/{style}]"
        table.add_row(each.what, each.value_text, each.bound_text, said)
    return table


Part = Callable[[str, float], Callable[[float], None] | None]


@contextmanager
def _progress(stderr: Console) -> Iterator[Part]:
    """Yield what makes a part's progress move one bar up to a share, on a terminal only."""
    if not stderr.is_terminal:
        yield lambda name, until: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("report", total=1.0)
        begun = 0.0

        def part(name: str, until: float) -> Callable[[float], None]:
            nonlocal begun
            start, begun = begun, until

            def show(share: float) -> None:
                bar.update(task, description=name, completed=start + share * (until - start))

            return show

        yield part

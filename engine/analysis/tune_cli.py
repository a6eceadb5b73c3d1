"""What `tocsin tune` shows: progress while it runs, a table or JSON at the end, an exit code."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console

from engine.analysis.bounds import Bounds
from engine.analysis.measure import Yardstick
from engine.analysis.operators import WAYS
from engine.analysis.past import Past
from engine.analysis.trying import Progress
from engine.replay_cli import INTERRUPTED, stopping
from engine.rules import Rules
from engine.truth import LEVELS, read_truth

NOT_MET = 4
"""Exit code where no setting keeps to what is required."""
_REFRESH_S = 0.1


def run(
    readings: Sequence[Path],
    catalog: Path,
    rules: Path,
    space: Path | None = None,
    truth: Path | None = None,
    objectives: Sequence[str] = (),
    requirements: Sequence[str] = (),
    choose: str = "order",
    search: str | None = None,
    settings: int | None = None,
    seed: int | None = None,
    level: str | None = None,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    by: str = "department",
    output: Path = Path("study"),
    adapter: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    sort: bool = False,
    threads: int = 2,
    as_json: bool = False,
    solve: bool = False,
    per: str = "profile",
    max_delay_s: float | None = None,
    max_rate: float = 1.0,
) -> int:
    """Tune and print what came out; return the exit code. Raises what is wrong with the input."""
    _check_usage(space, truth, objectives, requirements, choose, search, level, by, solve, per)
    past = Past.open(catalog, readings, adapter=adapter, since=since, until=until, sort=sort)
    given = Rules.load(rules)
    incidents = None if truth is None else read_truth(truth, given.time.utc_offset)
    measure = Yardstick(
        catalog=past.catalog,
        incidents=incidents,
        level=level,
        lead_s=lead_s,
        grace_s=grace_s,
        by=by,  # type: ignore[arg-type]
        bounds=Bounds(),
    )
    if solve:
        from engine.analysis import solve_cli

        return solve_cli.run(
            past, given, measure, output, per, max_rate, max_delay_s, threads, as_json
        )
    assert space is not None
    from engine.analysis import tune_report
    from engine.analysis.space import load
    from engine.analysis.study import tune

    stderr = Console(stderr=True, highlight=False)
    stop = threading.Event()
    began_s = time.monotonic()
    with stopping(stop), shown(stderr, "settings") as show:
        study = tune(
            past,
            given,
            load(space),
            measure=measure,
            objectives=objectives,
            requirements=requirements,
            balance=choose == "balance",
            method=search,
            n=settings,
            seed=seed,
            folder=output,
            threads=threads,
            on_progress=show,
            stopped=stop.is_set,
        )
    if as_json:
        write_json(study.as_dict() | {"folder": str(output)})
    else:
        console = Console(highlight=False)
        console.print(tune_report.report(study, output, time.monotonic() - began_s))
    for note in tune_report.notes(study):
        stderr.print(f"[bold]note[/bold]: {note}", soft_wrap=True)
    if study.interrupted:
        return INTERRUPTED
    return 0 if study.chosen is not None else NOT_MET


def _check_usage(
    space: Path | None,
    truth: Path | None,
    objectives: Sequence[str],
    requirements: Sequence[str],
    choose: str,
    search: str | None,
    level: str | None,
    by: str,
    solve: bool,
    per: str,
) -> None:
    """Refuse options that say nothing together."""
    if solve and (space is not None or objectives or requirements or search is not None):
        raise typer.BadParameter(
            "--solve goes without --space, --objective, --require and --search: it has its own"
        )
    if not solve and space is None:
        raise typer.BadParameter("--space: needed, unless --solve")
    for option, value, known in (
        ("--choose", choose, ("order", "balance")),
        ("--search", search, ("grid", "random", "adaptive")),
        ("--level", level, LEVELS),
        ("--by", by, WAYS),
        ("--per", per, ("profile", "sensor")),
    ):
        if value is not None and value not in known:
            raise typer.BadParameter(f"{option}: must be one of {', '.join(known)}, got {value!r}")
    if level is not None and truth is None:
        raise typer.BadParameter("--level: needs --truth")


def write_json(value: dict[str, Any]) -> None:
    """Write an object to standard output."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.buffer.write(orjson.dumps(value, option=option) + b"\n")


@contextmanager
def shown(stderr: Console, what: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield what shows progress on a terminal, None where there is none."""
    if not stderr.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
    ) as bar:
        task = bar.add_task("tune", total=1.0, count="reading the history")
        last_s = 0.0

        def show(progress: Progress) -> None:
            nonlocal last_s
            now_s = time.monotonic()
            if now_s - last_s < _REFRESH_S:
                return
            last_s = now_s
            refused = f", {progress.refused:,} refused" if progress.refused else ""
            count = f"{progress.done:,} of {progress.total:,} {what}{refused}"
            bar.update(task, description=progress.phase, completed=progress.share, count=count)

        yield show

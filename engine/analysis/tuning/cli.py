"""What `tocsin tune` shows: progress while it runs, a table or JSON at the end, an exit code."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from engine.analysis.bounds import Bounds
from engine.analysis.operators import WAYS
from engine.analysis.past import Past
from engine.analysis.sweep import Sweep
from engine.analysis.tuning.knobs import KINDS
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.terminal import NOT_MET, shown, write_json
from engine.replay_cli import INTERRUPTED, stopping, warmed
from engine.rules import Rules
from engine.truth import LEVELS, read_truth


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
    turn: Sequence[str] = (),
) -> int:
    """Tune and print what came out; return the exit code. Raises what is wrong with the input."""
    _check_usage(solve, space, (*objectives, *requirements), search)
    _check_words(choose, search, level, by, per, turn)
    if level is not None and truth is None:
        raise typer.BadParameter("--level: needs --truth")
    _check_numbers(
        lead_s=lead_s, grace_s=grace_s, max_delay_s=max_delay_s, max_rate=max_rate, seed=seed
    )
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
        from engine.analysis.tuning import solve_cli
        from engine.analysis.tuning.solve import Goal

        goal = Goal(max_rate=max_rate, max_delay_s=max_delay_s)
        return solve_cli.run(
            past, given, measure, output, goal=goal, per=per, turn=turn, threads=threads,
            as_json=as_json,
        )  # fmt: skip
    assert space is not None
    options = {
        "objectives": objectives,
        "requirements": requirements,
        "balance": choose == "balance",
        "method": search,
        "n": settings,
        "seed": seed,
        "threads": threads,
    }
    return _tuned(past, given, space, measure, output, options, as_json)


def _tuned(
    past: Past,
    rules: Rules,
    space: Path,
    measure: Yardstick,
    output: Path,
    options: dict[str, Any],
    as_json: bool,
) -> int:
    """Try the settings of a space, print what came out, and return the exit code."""
    from engine.analysis.tuning import told as tune_report
    from engine.analysis.tuning.space import load
    from engine.analysis.tuning.study import tune

    stderr = Console(stderr=True, highlight=False)
    stop = threading.Event()
    warmed(lambda: Sweep.warm_up(past, rules), stderr)
    began_s = time.monotonic()
    with stopping(stop), shown(stderr, "settings") as show:
        study = tune(
            past,
            rules,
            load(space),
            measure=measure,
            folder=output,
            on_progress=show,
            stopped=stop.is_set,
            **options,
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


def _check_usage(solve: bool, space: Path | None, aims: Sequence[str], search: str | None) -> None:
    """Refuse options that say nothing together."""
    if solve and (space is not None or aims or search is not None):
        raise typer.BadParameter(
            "--solve goes without --space, --objective, --require and --search: it has its own"
        )
    if not solve and space is None:
        raise typer.BadParameter("--space: needed, unless --solve")


def _check_numbers(**numbers: float | None) -> None:
    """Refuse numbers below 0 and NaN."""
    for name, number in numbers.items():
        if number is not None and not number >= 0:
            option = name.removesuffix("_s").replace("_", "-")
            raise typer.BadParameter(f"--{option}: must be at least 0, got {number}")


def _check_words(
    choose: str, search: str | None, level: str | None, by: str, per: str, turn: Sequence[str]
) -> None:
    """Refuse words that an option does not know."""
    for option, value, known in (
        ("--choose", choose, ("order", "balance")),
        ("--search", search, ("grid", "random", "adaptive")),
        ("--level", level, LEVELS),
        ("--by", by, WAYS),
        ("--per", per, ("profile", "sensor")),
        *(("--turn", kind, KINDS) for kind in turn),
    ):
        if value is not None and value not in known:
            raise typer.BadParameter(f"{option}: must be one of {', '.join(known)}, got {value!r}")

"""What `tocsin tune --solve` shows: what was asked for, whether it can be had, and what binds."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from engine.analysis.past import Past
from engine.analysis.sweep import Sweep
from engine.analysis.tuning.choice import figure_text
from engine.analysis.tuning.chosen import number_text
from engine.analysis.tuning.folder import RULES
from engine.analysis.tuning.knobs import KINDS
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.solve import NEAREST, RATE, Goal, Solution, solve
from engine.analysis.tuning.solve_sensors import OWN_LIMITS, SensorSolution, solve_sensors
from engine.analysis.tuning.terminal import NOT_MET, shown, write_json
from engine.analysis.tuning.told import NO_TRUTH
from engine.replay_cli import INTERRUPTED, duration, moment, stopping, warmed
from engine.rules import Rules

_MOST_LISTED = 8


def run(
    past: Past,
    rules: Rules,
    measure: Yardstick,
    output: Path,
    *,
    goal: Goal,
    per: str,
    turn: Sequence[str],
    threads: int,
    as_json: bool,
) -> int:
    """Solve and print what came out; return the exit code. Raises what is wrong with the input."""
    stderr = Console(stderr=True, highlight=False)
    stop = threading.Event()
    warmed(lambda: Sweep.warm_up(past, rules), stderr)
    began_s = time.monotonic()
    with stopping(stop), shown(stderr, "settings") as show:
        options: dict[str, Any] = {
            "folder": output,
            "threads": threads,
            "on_progress": show,
            "stopped": stop.is_set,
        }
        if per == "sensor":
            of_sensors = solve_sensors(past, rules, measure, goal, **options)
            solution, found = of_sensors.solution, of_sensors.as_dict()
        else:
            of_sensors = None
            solution = solve(past, rules, measure, goal, kinds=turn or KINDS, **options)
            found = solution.as_dict()
    if as_json:
        write_json(found | {"folder": str(output)})
    else:
        console = Console(highlight=False)
        console.print(report(solution, output, time.monotonic() - began_s, of_sensors))
    if solution.interrupted:
        return INTERRUPTED
    if measure.incidents is None:
        stderr.print(f"[bold]note[/bold]: {NO_TRUTH}", soft_wrap=True)
    return 0 if solution.met else NOT_MET


def report(
    solution: Solution, output: Path, took_s: float, of_sensors: SensorSolution | None = None
) -> RenderableType:
    """Return what came out as tables that fit 100 columns."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    told = list(_facts(solution, output, took_s))
    if of_sensors is not None and not solution.interrupted:
        told[2:2] = _of_sensors(of_sensors, output)
    for name, text in told:
        facts.add_row(name, escape(text))
    if solution.proof is None:
        return facts
    return Group(facts, "", _figures(solution))


def _facts(solution: Solution, output: Path, took_s: float) -> Iterator[tuple[str, str]]:
    yield "asked for", str(solution.goal)
    if solution.interrupted:
        yield "interrupted", f"run it again with the same command to go on; kept in {output}"
        return
    assert solution.choice is not None and solution.proof is not None
    tried = f"{len(solution.trials):,} settings in {duration(took_s)}"
    if solution.met:
        yield "met", f"yes, by {_named(solution)}; {tried}"
    else:
        yield "met", f"NO; nearest are {_named(solution)}; {tried}"
        yield from _binding(solution)
    for move in solution.choice.moves:
        yield "", f"{move.title} {move.moved}: {move.why}"
    yield "proved", "the figures below are those of a replay under these rules"
    yield "written", str(output / (RULES if solution.met else NEAREST))


def _of_sensors(found: SensorSolution, output: Path) -> Iterator[tuple[str, str]]:
    """Yield which sensors got limits or delays of their own."""
    n = len(found.own)
    before, after = sum(o.false_before for o in found.own), sum(o.false_after for o in found.own)
    yield (
        "sensors",
        (
            f"{n:,} of {found.offenders_n:,} that alarmed for nothing, or again, got own limits "
            f"or delays: {before:,} → {after:,} such alarms; {output / OWN_LIMITS}"
        ),
    )
    for each in found.own[:_MOST_LISTED]:
        sides = [("high", each.high), ("low", each.low)]
        limits = [
            f"{side} {', '.join(number_text(v) for v in values if not math.isnan(v))}"
            for side, values in sides
            if any(not math.isnan(v) for v in values)
        ]
        rest = [
            ("deadband", each.deadband, each.unit),
            ("on-delay", each.on_delay_s, "s"),
            ("off-delay", each.off_delay_s, "s"),
        ]
        bounds = [f"{name} {number_text(v)} {unit}" for name, v, unit in rest if not math.isnan(v)]
        told = "; ".join([*limits, *bounds])
        yield "", f"{each.sensor}: {each.false_before} → {each.false_after}; {told}"
    if found.own[_MOST_LISTED:]:
        yield "", f"and {n - _MOST_LISTED:,} more"
    if found.unhelped:
        named = ", ".join(f"{name} ({n})" for name, n in found.unhelped[:_MOST_LISTED])
        more = ", …" if found.unhelped[_MOST_LISTED:] else ""
        yield "", f"not helped without an incident found too late: {named}{more}"


def _named(solution: Solution) -> str:
    n = len(solution.choice.moves) if solution.choice is not None else 0
    return "the rules as they are" if not n else f"{n} change{'s' if n > 1 else ''}"


def _binding(solution: Solution) -> Iterator[tuple[str, str]]:
    """Yield what keeps the goal from being reached."""
    assert solution.proof is not None
    rate = solution.proof.figures[RATE]
    if rate > solution.goal.max_rate:
        operator = solution.proof.figures.get("busiest_operator")
        yield (
            "binds",
            (f"the busiest operator, {operator}, still has {figure_text(rate)} in 10 min"),
        )
        n_all = sum(n for _, n in solution.proof.causes)
        led = [f"{cause} {n / n_all:.0%}" for cause, n in solution.proof.causes[:4]]
        yield "", f"its alarms and others' are led by {', '.join(led)}"
    late = solution.late()
    for incident, delay, best in late[:_MOST_LISTED]:
        found = f"found after {duration(delay)}" if math.isfinite(delay) else "not found"
        rest = "no setting that was tried finds it"
        if math.isfinite(best):
            rest = f"the soonest of any setting is {duration(best)}"
        yield (
            "binds",
            (f"{incident.kind} at {incident.source}, {moment(incident.start_ms)}: {found}; {rest}"),
        )
    if late[_MOST_LISTED:]:
        yield "", f"and {len(late) - _MOST_LISTED} more incidents"


def _figures(solution: Solution) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("", style="bold")
    table.add_column("given", justify="right")
    table.add_column("solved" if solution.met else "nearest", justify="right")
    assert solution.proof is not None
    late = [int((d > solution.goal.within_s).sum()) for d in solution.given_and_now()]
    if solution.incidents:
        word = "missed" if solution.goal.max_delay_s is None else "too late"
        table.add_row(f"incidents {word}", *map(str, late))
    level = solution.level
    names = [RATE, "peak_per_10min", "alarms", "episodes", "floods", "chattering", "targets_missed"]
    names += [f"{each}_{level}" for each in ("missed", "found", "false", "delay_worst_s")]
    for name in names:
        if name in solution.given:
            given, now = solution.given[name], solution.proof.figures[name]
            table.add_row(name, figure_text(given), figure_text(now))
    return table

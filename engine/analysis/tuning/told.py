"""The closing table of a study: the given rules, the chosen ones, and the rest of the front."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from engine.analysis.tuning.choice import figure_text
from engine.analysis.tuning.chosen import number_text
from engine.analysis.tuning.folder import FRONT, RULES, SETTINGS
from engine.analysis.tuning.study import Study
from engine.replay_cli import duration, moment, short

_MOST_COLUMNS = 6
NO_TRUTH = "without --truth nobody knows what these rules would miss"
_MOST_CHANGES = 12
_ALSO = (
    "missed_{level}",
    "found_{level}",
    "enough_{level}",
    "false_{level}",
    "delay_median_s_{level}",
    "delay_worst_s_{level}",
    "alarms",
    "busiest_per_10min",
    "peak_per_10min",
    "floods",
    "chattering",
    "targets_missed",
)
"""Figures that are shown beside those that were asked for."""


def report(study: Study, output: Path, took_s: float) -> RenderableType:
    """Return what came out as tables that fit 100 columns."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(study, output, took_s):
        facts.add_row(name, escape(text))
    if not len(study.trials):
        return facts
    return Group(facts, "", _side_by_side(study))


def _facts(study: Study, output: Path, took_s: float) -> Iterator[tuple[str, str]]:
    trials = study.trials
    refused = sum(n for _, n, _ in trials.reasons())
    tried = len(trials) - refused
    speed = ", none of them anew"
    if study.n_new:
        anew = "" if study.n_new == tried else f", {study.n_new:,} of them now"
        speed = f"{anew} in {duration(took_s)}"
    yield "settings", f"{tried:,} tried by {study.search.method} search{speed}"
    if study.n_readings:
        span = ""
        if study.first_ms is not None and study.last_ms is not None:
            span = f", {moment(study.first_ms)} to {moment(study.last_ms)}"
        yield "history", f"{short(study.n_readings)} readings{span}"
    if refused:
        reasons = trials.reasons()
        yield "refused", f"{refused:,} by the rules"
        for _, n, reason in reasons[:3]:
            yield "", f"{n:,}: {reason}"
        if reasons[3:]:
            yield "", f"{sum(n for _, n, _ in reasons[3:]):,} for other reasons: see {SETTINGS}"
    if not len(trials):
        return
    yield "objectives", ", then ".join(map(str, study.aim.objectives))
    if study.aim.requirements:
        met = f"{int(study.standing.feasible.sum()):,} settings keep to it"
        yield "required", f"{', '.join(map(str, study.aim.requirements))}: {met}"
    if study.interrupted:
        yield "interrupted", f"run it again with the same command to go on; kept in {output}"
        return
    chosen = study.chosen
    if chosen is None:
        yield "chosen", f"none: the nearest is setting {study.standing.nearest}; {_binding(study)}"
        return
    yield "chosen", f"setting {chosen.setting}, {chosen.reason}"
    for move in chosen.moves[:_MOST_CHANGES]:
        yield "", f"{move.title} {move.moved}: {move.why}"
    if chosen.moves[_MOST_CHANGES:]:
        yield "", f"and {len(chosen.moves) - _MOST_CHANGES} more changes, in {RULES}"
    yield "written", f"{output / RULES}, {SETTINGS} and {FRONT} beside it"


def _binding(study: Study) -> str:
    """Say by what the nearest setting misses what is required."""
    row = study.standing.nearest
    figures = study.trials.numeric()
    missed = [
        f"{each} is not met, it has {figure_text(float(figures[each.metric][row]))}"
        for each in study.aim.requirements
        if not each.met(figures[each.metric])[row]
    ]
    return "; ".join(missed)


def _side_by_side(study: Study) -> Table:
    """Return parameters and figures, a column for each setting that is worth a look."""
    best = study.standing.nearest
    columns = _columns(study)[:_MOST_COLUMNS]
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", style="bold", overflow="fold", max_width=46)
    mark = "chosen" if study.chosen is not None else "nearest"
    mark = "so far" if study.interrupted else mark
    for row in columns:
        words = [word for word, at in (("given", 0), (mark, best)) if row == at]
        table.add_column("\n".join([f"#{row}", ", ".join(words) or "front"]), justify="right")
    settings = study.settings
    hidden = 0
    for number, parameter in enumerate(settings.parameters):
        values = [study.trials.values[row][number] for row in columns]
        if all(parameter.same(value, values[0]) for value in values) and len(columns) > 1:
            hidden += 1
            continue
        cells = ["–" if math.isnan(value) else number_text(value) for value in values]
        unit = f" [dim]{escape(parameter.unit)}[/dim]" if parameter.unit else ""
        table.add_row(f"{escape(parameter.title)}{unit}", *cells)
    if hidden:
        table.add_row(f"[dim]{hidden} more, alike in all[/dim]")
    table.add_section()
    figures = study.trials.numeric()
    hidden = len(_columns(study)) - len(columns)
    for metric in _metrics(study, list(figures)):
        table.add_row(metric, *(figure_text(float(figures[metric][row])) for row in columns))
    if hidden:
        table.add_row(f"[dim]{hidden} more on the front: {FRONT}[/dim]")
    return table


def _columns(study: Study) -> list[int]:
    return list(dict.fromkeys([0, study.standing.nearest, *study.standing.front_rows()]))


def _metrics(study: Study, known: list[str]) -> list[str]:
    level = next(
        (m.rsplit("_", 1)[1] for m in study.aim.metrics() if m.startswith(("missed_", "false_"))),
        "yellow",
    )
    also = (name.format(level=level) for name in _ALSO)
    return list(dict.fromkeys([*study.aim.metrics(), *(name for name in also if name in known)]))


def notes(study: Study) -> Iterator[str]:
    """Yield what is worth knowing and no fault."""
    yield from map(escape, study.notes)
    trials = study.trials
    if len(trials) and not any(name.startswith("missed_") for name in trials.numeric()):
        yield NO_TRUTH
    if not len(trials) or study.interrupted:
        return
    figures = trials.numeric()
    accepted = trials.accepted()
    for metric in study.aim.metrics():
        column = figures[metric][accepted]
        if all(math.isnan(value) for value in column.tolist()):
            yield f"no setting has a {metric}: there was nothing to take it from"
        elif len(column) > 1 and (column == column[0]).all():
            yield f"{metric} is {figure_text(float(column[0]))} in every setting"

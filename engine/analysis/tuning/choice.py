"""The chosen setting: what it changes, what each change buys, and why it was chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.analysis.tuning.chosen import Change, number_text, rewritten
from engine.analysis.tuning.objective import Aim
from engine.analysis.tuning.settings import Parameter, Settings, Values, unit_of
from engine.analysis.tuning.trials import Standing, Trials
from engine.rules import Rules
from engine.rules_base import LEVELS, Path
from engine.rules_check import dotted


@dataclass(frozen=True, kw_only=True)
class Move:
    """A parameter that the chosen setting moves."""

    title: str
    moved: str
    why: str
    """What the figures are without it and with it, everything else as chosen."""
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The setting that a study chooses."""

    setting: int
    values: Values
    rules: Rules
    """The rules of the file, so that their digest is that of its alerts."""
    moves: tuple[Move, ...]
    figures: dict[str, Any]
    reason: str

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every number of the rules that it changes."""
        return tuple(change for move in self.moves for change in move.changes)

    @property
    def text(self) -> str:
        """The rules file."""
        return self.rules.text

    def as_dict(self, settings: Settings) -> dict[str, Any]:
        """Return the choice as plain JSON values."""
        return {
            "setting": self.setting,
            "parameters": {
                title: None if math.isnan(value) else value
                for title, value in zip(settings.titles, self.values, strict=True)
            },
            "digest": self.rules.digest,
            "reason": self.reason,
            "changes": [
                {
                    "key": dotted(change.path),
                    "old": None if math.isnan(change.old) else change.old,
                    "new": change.new,
                    "unit": change.unit,
                    "why": change.why,
                }
                for change in self.changes
            ],
            "figures": self.figures,
        }


def choose(
    settings: Settings,
    trials: Trials,
    standing: Standing,
    row: int,
    *,
    reason: str | None = None,
    head: Sequence[str] | None = None,
) -> Choice:
    """Return a setting as the choice of its study, with the file of its rules.

    `reason` and `head`, what the file says at its top, are made of the standing unless given.
    """
    values = trials.values[row]
    made = settings.rules_of(values)
    moves = tuple(_moves(settings, trials, standing.aim, values))
    changes = [change for move in moves for change in move.changes]
    if reason is None:
        reason = _reason(trials, standing, row)
    if head is None:
        head = list(_head(settings, trials, standing, row, reason))
    text = rewritten(settings.rules, made, changes, head)
    return Choice(
        setting=row,
        values=values,
        rules=Rules.parse(text),
        moves=moves,
        figures=trials.figures().slice(row, 1).to_pylist()[0],
        reason=reason,
    )


def _moves(settings: Settings, trials: Trials, aim: Aim, values: Values) -> Iterator[Move]:
    for number in settings.changed(values):
        parameter, value = settings.parameters[number], values[number]
        why = _worth(trials, aim, values, number, parameter)
        moved = Move(title=parameter.title, moved=_moved(parameter, value), why=why)
        if parameter.kind != "key":
            why = f"{parameter.title} {moved.moved}; {why}"
        bases = dict(zip(parameter.paths, parameter.bases, strict=True))
        changes = [
            Change(path=path, old=bases[path], new=new, unit=unit_of(settings.rules, path), why=why)
            for path, new in parameter.numbers(value)
            if new != bases[path]
        ]
        yield replace(moved, changes=tuple(together(changes)))


def together(changes: Sequence[Change]) -> Iterator[Change]:
    """Yield changes; delays of all levels that are and stay alike are one number."""
    by_table: dict[Path, list[Change]] = {}
    for change in changes:
        levelled = change.path[-1] in LEVELS and str(change.path[-2]).endswith("_delay_s")
        by_table.setdefault(change.path[:-1] if levelled else change.path, []).append(change)
    for path, alike in by_table.items():
        one = {(change.old, change.new) for change in alike}
        if len(alike) == len(LEVELS) and len(one) == 1:
            yield replace(alike[0], path=path)
        else:
            yield from alike


def _moved(parameter: Parameter, value: float) -> str:
    if parameter.kind == "scale":
        return f"× {number_text(value)}"
    unit = f" {parameter.unit}" if parameter.unit else ""
    if parameter.kind == "shift":
        return f"{value:+.15g}{unit}"
    base = parameter.baseline
    return f"{'none' if math.isnan(base) else number_text(base)} → {number_text(value)}{unit}"


def _worth(trials: Trials, aim: Aim, values: Values, number: int, parameter: Parameter) -> str:
    """Say what the figures are without one of the changes, and with it."""
    without = tuple(parameter.baseline if n == number else value for n, value in enumerate(values))
    here, there = trials.row_of(values), trials.row_of(without)
    if here is None or there is None:
        return "not tried without it"
    if trials.refused[there] is not None:
        return f"needed by the other changes: {trials.refused[there]}"
    pairs = list(compared(trials, aim, there, here))
    differing = [text for text, same in pairs if not same]
    told = differing or [text for text, _ in pairs]
    return f"{'buys' if differing else 'changes nothing here:'} {', '.join(told)}"


def compared(trials: Trials, aim: Aim, before: int, after: int) -> Iterator[tuple[str, bool]]:
    """Yield each figure of the aim at two settings, and whether it is the same at both."""
    figures = trials.numeric()
    for metric in aim.metrics():
        old, new = figures[metric][before], figures[metric][after]
        same = old == new or (math.isnan(old) and math.isnan(new))
        text = figure_text(new) if same else f"{figure_text(old)} → {figure_text(new)}"
        yield f"{metric} {text}", same


def figure_text(value: float | None) -> str:
    """Return a figure in a few characters."""
    if value is None or math.isnan(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.4g}"


def _reason(trials: Trials, standing: Standing, row: int) -> str:
    aim = standing.aim
    figures = trials.numeric()
    n_able = int(standing.feasible.sum())
    scope = f"of {n_able:,} settings that meet what is required" if aim.requirements else (
        f"of {n_able:,} settings"
    )  # fmt: skip
    if row == 0:
        return f"the rules as they are: {scope}, none does better"
    shown = [
        f"{each.metric} {figure_text(float(figures[each.metric][row]))}" for each in aim.objectives
    ]
    n_front = len(list(standing.front_rows()))
    if n_front == 1:
        return f"{scope}, the best in every objective: {', '.join(shown)}"
    if standing.balance:
        return (
            f"{scope}, {n_front:,} on the front; of these the nearest to the best of every "
            f"objective: {', '.join(shown)}"
        )
    pairs = zip(aim.objectives, shown, strict=True)
    senses = [f"{'largest' if each.largest else 'least'} {text}" for each, text in pairs]
    return f"{scope}, {n_front:,} on the front: {', then '.join(senses)}"


def _head(
    settings: Settings, trials: Trials, standing: Standing, row: int, reason: str
) -> Iterator[str]:
    space = settings.space.file.rsplit("/", 1)[-1]
    yield f"Chosen by tocsin tune, setting {row} of {space}: {reason}."
    if row:
        figures = ", ".join(text for text, _ in compared(trials, standing.aim, 0, row))
        yield f"Before and after: {figures}."
    if standing.aim.requirements:
        yield f"Required: {', '.join(map(str, standing.aim.requirements))}."

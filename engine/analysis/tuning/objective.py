"""Objectives: what makes one setting better than another, what it must keep to, and the front."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import SettingsError
from engine.rules_base import one_of

Array = np.ndarray[Any, Any]
WORST = 1e18
"""The cost of what has no figure, and of settings that the rules refuse."""
_ABOVE_ALL = 1e12
"""Costs of settings that miss a requirement begin here: beyond any figure."""
_OBJECTIVE = re.compile(r"\s*(min|max)\s+(\w+)\s*", re.ASCII)
_REQUIREMENT = re.compile(
    r"\s*(\w+)\s*(<=|>=|<|>|==?|≤|≥)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*", re.ASCII
)
_TESTS: dict[str, Callable[[Array, float], Array]] = {
    "≤": np.less_equal,
    "≥": np.greater_equal,
    "<": np.less,
    ">": np.greater,
    "=": np.equal,
}
_SPELT = {"<=": "≤", ">=": "≥", "==": "="}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A figure that should be small, or large."""

    metric: str
    largest: bool = False

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Return the objective of `min FIGURE` or `max FIGURE`."""
        match = _OBJECTIVE.fullmatch(text)
        if not match:
            raise SettingsError(
                f'--objective: must read "min FIGURE" or "max FIGURE", got {text!r}'
            )
        return cls(metric=match[2], largest=match[1] == "max")

    def __str__(self) -> str:
        return f"{'max' if self.largest else 'min'} {self.metric}"

    def costs(self, figures: Array) -> Array:
        """Return figures so that less is better; those that are not known are worst."""
        costs = -figures if self.largest else figures
        return np.where(np.isnan(costs), WORST, costs)


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A bound that a figure must keep to; one that is not known does not."""

    metric: str
    sense: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Return the requirement of `FIGURE <= NUMBER`."""
        match = _REQUIREMENT.fullmatch(text)
        try:
            bound = float(match[3]) if match else math.nan
        except ValueError:
            bound = math.nan
        if not match or math.isnan(bound):
            raise SettingsError(
                f'--require: must read "FIGURE <= NUMBER" (or <, >=, >, =), got {text!r}'
            )
        return cls(metric=match[1], sense=_SPELT.get(match[2], match[2]), bound=bound)

    def __str__(self) -> str:
        return f"{self.metric} {self.sense} {self.bound:.15g}"

    def met(self, figures: Array) -> Array:
        """Return which figures keep to the bound."""
        return _TESTS[self.sense](figures, self.bound) & ~np.isnan(figures)

    def excess(self, figures: Array) -> Array:
        """Return by how much figures miss the bound, in bounds (or 1 where that is less)."""
        over = np.abs(figures - self.bound) / max(abs(self.bound), 1.0)
        over = np.where(np.isnan(figures), WORST / _ABOVE_ALL, np.maximum(over, 1e-9))
        return np.where(self.met(figures), 0.0, over)


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Everything that settings are judged by; the first objective counts most."""

    objectives: tuple[Objective, ...]
    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, objectives: Iterable[str], requirements: Iterable[str]) -> Aim:
        """Return the aim of what was written; SettingsError says what can't be read."""
        aims = tuple(map(Objective.parse, objectives))
        for index, aim in enumerate(aims):
            if aim.metric in (other.metric for other in aims[:index]):
                raise SettingsError(f"--objective: {aim.metric} stands twice")
        return cls(objectives=aims, requirements=tuple(map(Requirement.parse, requirements)))

    def metrics(self) -> tuple[str, ...]:
        """Return the figures that it looks at, each once."""
        named = [each.metric for each in self.objectives]
        return tuple(dict.fromkeys([*named, *(each.metric for each in self.requirements)]))

    def check(self, known: Sequence[str], *, truth: bool) -> None:
        """Raise SettingsError for figures that are not known."""
        named = [("objective", each.metric) for each in self.objectives]
        named += [("require", each.metric) for each in self.requirements]
        for option, name in named:
            if name not in known:
                hint = one_of(name, known, all_if_none=False)
                rest = "" if truth else "; figures of what was found and missed need --truth"
                raise SettingsError(
                    f"--{option}: there is no figure {name!r}{hint}; there are "
                    f"{', '.join(known)}{rest}"
                )

    def feasible(self, figures: Mapping[str, Array]) -> Array:
        """Return which settings keep to every requirement."""
        n = len(next(iter(figures.values())))
        met = np.ones(n, bool)
        for each in self.requirements:
            met &= each.met(figures[each.metric])
        return met

    def excess(self, figures: Mapping[str, Array]) -> Array:
        """Return by how much settings miss their requirements, all together."""
        total = np.zeros(len(next(iter(figures.values()))))
        for each in self.requirements:
            total += each.excess(figures[each.metric])
        return total

    def costs(self, figures: Mapping[str, Array]) -> Array:
        """Return (n, objectives), less is better; what misses a requirement is worse than all."""
        plain = np.column_stack([each.costs(figures[each.metric]) for each in self.objectives])
        excess = self.excess(figures)[:, None]
        return np.where(excess > 0, _ABOVE_ALL * (1 + np.minimum(excess, 1e6)), plain)


def front(costs: Array) -> Array:
    """Return which of (n, objectives) costs no other setting betters: the Pareto front.

    A setting is bettered by one that is at most as costly in all and less in one; settings of the
    same costs stand or fall together.
    """
    if not len(costs):
        return np.zeros(0, bool)
    distinct, group = np.unique(costs, axis=0, return_inverse=True)
    kept = np.ones(len(distinct), bool)
    # in this order no setting is bettered by a later one
    for number in range(1, len(distinct)):
        above = distinct[:number][kept[:number]]
        kept[number] = not np.any(np.all(above <= distinct[number], axis=1))
    return kept[group.reshape(-1)]


def best_first(costs: Array, *ties: Array) -> Array:
    """Return the settings' numbers in order: by the first objective, then the next, then ties."""
    keys = [*costs.T, *ties, np.arange(len(costs))]
    return np.lexsort(keys[::-1])


def balanced(costs: Array, on_front: Array) -> Array:
    """Return each setting's distance from the best of every objective, in the front's spans."""
    of_front = costs[on_front]
    low, span = of_front.min(0), np.ptp(of_front, axis=0)
    scaled = (costs - low) / np.where(span > 0, span, 1.0)
    return np.sqrt(np.sum(scaled**2, axis=1))

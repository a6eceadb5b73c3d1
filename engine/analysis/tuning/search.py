"""Search: which settings of a space to try next. Grid, random draws, or what optuna proposes.

A batch depends on the space, the seed and what the batches before it gave, on nothing else: a
study that was interrupted goes on with the very settings that it would have come to.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engine.analysis.tuning.settings import Parameter, Settings, Values
from engine.analysis.tuning.space import MAX_SETTINGS
from engine.errors import SettingsError

DEFAULT_N = {"random": 200, "adaptive": 200}
_DRAWS = 50
"""Draws for each setting that is wanted: in a small space most of them come again."""
_BATCH_N = 16


@dataclass(frozen=True, kw_only=True)
class Told:
    """A setting that was tried, and how it did: one number for each objective, less is better."""

    values: Values
    costs: tuple[float, ...]


class Search(Protocol):
    """Proposes settings in batches."""

    method: str
    n: int
    """How many settings it proposes at most."""

    def batch(self, number: int, told: Sequence[Told], left: int) -> list[Values]:
        """Return the batch of a number, from 0, at most `left` settings; empty at the end."""
        ...


def search_for(settings: Settings, method: str, n: int | None, seed: int) -> Search:
    """Return the search of a method; SettingsError if the space does not allow of it."""
    if method == "grid":
        return Grid(settings, n)
    if method == "random":
        return Random(settings, DEFAULT_N["random"] if n is None else n, seed)
    return Adaptive(settings, DEFAULT_N["adaptive"] if n is None else n, seed)


class Grid:
    """Every combination of all choices, the last parameter first."""

    method = "grid"
    batch_n = 1024

    def __init__(self, settings: Settings, n: int | None = None) -> None:
        endless = [p.title for p in settings.parameters if p.choices is None]
        if endless:
            raise SettingsError(
                f"{settings.space.file}: a grid needs a step, n or values for {endless[0]!r}"
                + (f" and {len(endless) - 1} more" if endless[1:] else "")
                + ", or search at random or adaptively"
            )
        size = settings.size() or 0
        most = MAX_SETTINGS if n is None else n
        if size > most:
            raise SettingsError(
                f"{settings.space.file}: the grid has {size:,} settings, and at most {most:,} may "
                "be tried: take fewer values, or search at random or adaptively"
            )
        self.settings, self.n = settings, size

    def batch(self, number: int, told: Sequence[Told], left: int) -> list[Values]:
        """Return the next combinations."""
        choices = [parameter.choices or () for parameter in self.settings.parameters]
        start = number * self.batch_n
        return list(itertools.islice(itertools.product(*choices), start, start + self.batch_n))


class Random:
    """Independent draws, none of them twice."""

    method = "random"
    batch_n = 1024

    def __init__(self, settings: Settings, n: int, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.n = min(n, settings.size() or n)
        self._draws = self._distinct()
        self._drawn: list[Values] = []

    def _distinct(self) -> Iterator[Values]:
        rng = np.random.default_rng(self.seed)
        seen: set[Values] = set()
        misses = 0
        while misses < _DRAWS * max(len(seen), 20):
            values = drawn(self.settings, rng)
            if values in seen:
                misses += 1
                continue
            misses = 0
            seen.add(values)
            yield values

    def batch(self, number: int, told: Sequence[Told], left: int) -> list[Values]:
        """Return the next draws; the first so many are the same however many are asked for."""
        end = min((number + 1) * self.batch_n, self.n)
        self._drawn += itertools.islice(self._draws, max(0, end - len(self._drawn)))
        return self._drawn[number * self.batch_n : end]


class Adaptive:
    """What a tree-structured Parzen estimator expects to do well (optuna), several at a time.

    It takes several objectives together. Each batch has a sampler of its own that is seeded by the
    batch's number and told all that came before.
    """

    method = "adaptive"

    def __init__(self, settings: Settings, n: int, seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise SettingsError(
                "the adaptive search needs optuna: pip install 'tocsin[tune]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.settings, self.seed = settings, seed
        self.n = min(n, settings.size() or n)
        self.version = optuna.__version__

    def batch(self, number: int, told: Sequence[Told], left: int) -> list[Values]:
        """Return the settings that look best after what was told; at random at the beginning."""
        # the more is known, the more may be asked at a time
        wanted = max(0, min(max(_BATCH_N, len(told) // 8), left))
        seen = {each.values for each in told}
        found: list[Values] = []
        rng = np.random.default_rng([self.seed, number])
        ask = self._asking(number, told) if number else None
        for turn in range(_DRAWS * wanted):
            if len(found) == wanted:
                break
            # a proposal that is known already makes way for a draw
            propose = ask is not None and turn < 2 * wanted
            values = ask() if propose and ask is not None else drawn(self.settings, rng)
            if values not in seen:
                seen.add(values)
                found.append(values)
        return found

    def _asking(self, number: int, told: Sequence[Told]) -> Any:
        import optuna

        spread = {str(n): _distribution(p) for n, p in enumerate(self.settings.parameters)}
        known = [each for each in told if not any(map(math.isnan, each.values))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]),
                multivariate=True,
                constant_liar=True,
                n_startup_trials=0,
            )
        n_objectives = len(known[0].costs) if known else 1
        study = optuna.create_study(directions=["minimize"] * n_objectives, sampler=sampler)
        for each in known:
            points = {
                str(n): _point(p, value)
                for n, (p, value) in enumerate(
                    zip(self.settings.parameters, each.values, strict=True)
                )
            }
            # the given rules may lie outside of what the space asks for
            if all(point is not None and _within(spread[n], point) for n, point in points.items()):
                study.add_trial(
                    optuna.trial.create_trial(
                        params=points, distributions=spread, values=list(each.costs)
                    )
                )

        def ask() -> Values:
            params = study.ask(spread).params
            values = [
                p.choices[params[str(n)]] if p.choices is not None else params[str(n)]
                for n, p in enumerate(self.settings.parameters)
            ]
            return self.settings.canonical(values)

        return ask


def _distribution(parameter: Parameter) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    if parameter.choices is not None:
        # steps and lists are places in an order: neighbours do alike
        return IntDistribution(0, len(parameter.choices) - 1)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _point(parameter: Parameter, value: float) -> float | int | None:
    if parameter.choices is None:
        return value
    return parameter.choices.index(value) if value in parameter.choices else None


def _within(spread: Any, point: float) -> bool:
    return bool(spread.low <= point <= spread.high)


def drawn(settings: Settings, rng: np.random.Generator) -> Values:
    """Return a setting drawn evenly from the space; by ratio where the space says so."""
    values = []
    for parameter in settings.parameters:
        if parameter.choices is not None:
            values.append(parameter.choices[int(rng.integers(len(parameter.choices)))])
        elif parameter.log:
            low, high = math.log(parameter.low), math.log(parameter.high)
            values.append(math.exp(rng.uniform(low, high)))
        else:
            values.append(float(rng.uniform(parameter.low, parameter.high)))
    return settings.canonical(values)

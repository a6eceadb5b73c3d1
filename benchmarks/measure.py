"""How things are timed here: on one core, by turns with what they are held against.

A machine that others use is slow for a while and then fast again. So the contestants take turns on
the same input, each turn gives a ratio, and the median of the ratios is the figure. Times are CPU
time of the process: what a neighbour takes from the core does not count, what it does to the shared
caches does, to both sides alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

Input = TypeVar("Input")


@dataclass(frozen=True)
class Spread:
    """The median of several turns, and the range in which they all lay."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, turns: Iterable[float]) -> Spread:
        """Return the spread of at least one figure."""
        figures = sorted(turns)
        return cls(median(figures), figures[0], figures[-1])

    def scaled(self, factor: float) -> Spread:
        """Return the same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one bar's measuring function found: the figure that the bar is about, and the rest."""

    figure: Spread
    limit: str
    """What the machine did at best in the same run, for people."""
    details: Mapping[str, Any] = field(default_factory=dict)


def pin_to_one_core() -> int:
    """Keep this process, and what it starts, on one core; return which, −1 if that can't be."""
    if not hasattr(os, "sched_setaffinity"):
        return -1
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def cpu_ns(run: Callable[[Input], object], given: Input) -> int:
    """Return the nanoseconds of CPU time that one call took, all threads of it."""
    begin = time.process_time_ns()
    run(given)
    return time.process_time_ns() - begin


def by_turns(
    contestants: Mapping[str, Callable[[Input], object]],
    inputs: Iterable[Input],
    n_each: int,
) -> dict[str, list[float]]:
    """Give every contestant each input in turn; return the ns per reading of each turn."""
    turns: dict[str, list[float]] = {name: [] for name in contestants}
    for given in inputs:
        for name, run in contestants.items():
            turns[name].append(cpu_ns(run, given) / n_each)
    return turns


def best_over_best(ours: list[float], other: list[float]) -> float:
    """Return our best turn over the other's: what is left when nobody else computes.

    A neighbour on the same physical core slows code that is bound by instructions far more than
    code that waits for memory, so the median of the ratios depends on who else is there.
    """
    return min(ours) / min(other)


def ratios(ours: list[float], other: list[float]) -> Spread:
    """Return how many times the other's time ours took, turn by turn."""
    return Spread.of(a / b for a, b in zip(ours, other, strict=True))

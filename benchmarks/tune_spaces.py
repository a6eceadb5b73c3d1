"""Spaces of settings for the benchmarks of tuning: what an analyst would try in one go.

Every space holds the rules as they are, so that one setting's alerts can be held against a replay.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from engine.rules import Rules

FACTORS = (0.3, 0.32, 0.36, 0.42, 0.5, 0.65, 0.8, 1.0, 1.2, 1.4)
"""Of all limits. Three tenths lie in the noise of the noisiest sensors, a third just above it."""
DEADBANDS = (0.25, 0.5, 1.0, 1.5, 2.0)
ON_DELAYS_S = (0.0, 5.0, 15.0, 30.0, 60.0)
OFF_DELAYS_S = (0.0, 5.0, 30.0, 60.0)
LENGTHS_S = (60.0, 120.0, 300.0, 600.0)
MEMORIES_N = (48, 64, 96, 128)
NEAR = (0.9, 1.0, 1.1, 1.2)
"""Factors of the limits of window and deviation."""

Change = Callable[[dict[str, Any]], None]


def changed(text: str, changes: Iterable[Change]) -> list[Rules]:
    """Return the rules of a text with each of the changes to its only profile."""
    document = tomllib.loads(text)
    found = []
    for change in changes:
        other = copy.deepcopy(document)
        (profile,) = other["profiles"].values()
        change(profile)
        found.append(Rules.model_validate(other))
    return found


def scaled(ladder: dict[str, float], factor: float) -> dict[str, float]:
    """Return a ladder with every limit times a factor."""
    return {level: round(limit * factor, 6) for level, limit in ladder.items()}


def of_limits(text: str) -> list[Rules]:
    """Return a thousand settings: limits × deadband × on-delay × off-delay."""

    def change(factor: float, deadband: float, on_s: float, off_s: float) -> Change:
        def apply(profile: dict[str, Any]) -> None:
            limits = profile["limits"]
            limits["high"] = scaled(limits["high"], factor)
            limits |= {"deadband": deadband, "on_delay_s": on_s, "off_delay_s": off_s}

        return apply

    space = product(FACTORS, DEADBANDS, ON_DELAYS_S, OFF_DELAYS_S)
    return changed(text, (change(*point) for point in space))


def of_statistics(text: str) -> list[Rules]:
    """Return sixteen settings: length of the window × memory of the deviation, none's another's."""

    def change(length_s: float, memory_n: int) -> Change:
        def apply(profile: dict[str, Any]) -> None:
            profile["windows"][0]["length_s"] = length_s
            profile["deviation"]["memory_n"] = memory_n

        return apply

    return changed(text, (change(*point) for point in product(LENGTHS_S, MEMORIES_N)))


def of_ladders(text: str) -> list[Rules]:
    """Return sixteen settings: limits of the window × limits of the deviation."""

    def change(of_window: float, of_deviation: float) -> Change:
        def apply(profile: dict[str, Any]) -> None:
            window, deviation = profile["windows"][0], profile["deviation"]
            window["high"] = scaled(window["high"], of_window)
            deviation["raise_at"] = scaled(deviation["raise_at"], of_deviation)

        return apply

    return changed(text, (change(*point) for point in product(NEAR, NEAR)))


SPACES = {"limits": of_limits, "statistics": of_statistics, "ladders": of_ladders}

"""What of a rules file tests can exercise: every limit, signal rule, context and route of it.

Only what the file says counts, not the defaults that it leaves alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine.rules import Rules
from engine.rules_base import Ladder, level_number
from engine.rules_fusion import Levels
from engine.rules_profile import Profile
from engine.units import display_unit
from kernels.layout import ABSENCE, BAD, DEVIATION, DRIFT, FALL, FLATLINE, HIGH, LOW, RISE, SPIKE

WIDE_SHARE = 0.2
"""A limit is weakly tested if the nearest readings below and beyond are further apart, of it."""

STATES = ("permit", "status")
"""Quantities that are 0 or 1."""

Ladders = dict[int, "Item"]
"""Items by level, 1 for blue."""


@dataclass(kw_only=True)
class Item:
    """One limit, rule, context or route, and what the tests did to it."""

    key: str
    kind: str
    table: str = ""
    """The table of the rules file that the key begins with."""
    level: str | None = None
    limit: float | None = None
    unit: str = ""
    falls: bool = False
    """Values at or below the limit are beyond it."""
    clears: bool = True
    """Whether it is something that can clear."""
    state: bool = False
    """Of a quantity that is 0 or 1: nothing can be just short of it."""
    reached: bool = False
    cleared: bool = False
    below: float | None = None
    """The nearest statistic short of the limit that any test had."""
    beyond: float | None = None
    """The nearest one at or beyond it."""
    tests: set[tuple[str, str]] = field(default_factory=set)
    """File and name of the tests that reached it."""

    def __post_init__(self) -> None:
        self.table = self.table or self.key.partition(".")[0]

    def note(self, statistic: float) -> None:
        """Note how near to the limit a test came."""
        limit = self.limit
        if limit is None or not math.isfinite(statistic):
            return
        beyond = statistic <= limit if self.falls else statistic >= limit
        name = "beyond" if beyond else "below"
        before = getattr(self, name)
        if before is None or abs(statistic - limit) < abs(before - limit):
            setattr(self, name, statistic)

    def turn(self, on: bool, test: tuple[str, str]) -> None:
        """Note that it came on, or went off after it had been on."""
        if on:
            self.reached = True
            self.tests.add(test)
        else:
            self.cleared = True

    @property
    def weak(self) -> bool:
        """Whether it was reached, but the limit could be quite another one unnoticed."""
        if not self.reached or self.limit is None or self.state:
            return False
        if self.below is None or self.beyond is None:
            return True
        return abs(self.beyond - self.below) > WIDE_SHARE * max(abs(self.limit), 1e-12)


@dataclass(kw_only=True)
class Watched:
    """The items of one profile, by where the line keeps what they are about."""

    latches: dict[int, Ladders] = field(default_factory=dict)
    """HIGH and LOW."""
    ladders: dict[int, Ladders] = field(default_factory=dict)
    """Rates, deviation, drift; of what has one limit only, its level alone."""
    windows: list[tuple[Ladders, Ladders]] = field(default_factory=list)
    """High and low limits of each window."""

    def all(self) -> Iterator[Item]:
        """Yield the items in the order of a rules file."""
        for kind in (HIGH, LOW):
            yield from self.latches.get(kind, {}).values()
        for kind in (RISE, FALL):
            yield from self.ladders.get(kind, {}).values()
        for high, low in self.windows:
            yield from high.values()
            yield from low.values()
        for kind in (DEVIATION, DRIFT, ABSENCE, FLATLINE, BAD, SPIKE):
            yield from self.ladders.get(kind, {}).values()


class Items:
    """Everything of some rules that tests can exercise."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.profiles = {
            name: _watched(rules, name, profile) for name, profile in rules.profiles.items()
        }
        self.absence = self._absence()
        self.levels: Ladders = {}
        if "raise_at" in rules.levels.model_fields_set:
            self.levels = _ladder("levels.raise_at", "score", rules.levels.raise_at)
        self.category_levels = self._category_levels()
        self.signal_rules = [
            Item(key=f"rules.{_quoted(rule.name)}", kind="rule", level=rule.level)
            for rule in rules.rules
        ]
        self.contexts = {
            context.name: Item(key=f"context.{_quoted(context.name)}", kind="context")
            for context in rules.context
        }
        self.routes = {
            route.name: Item(key=f"routes.{_quoted(route.name)}", kind="route")
            for route in rules.routes
        }

    def all(self) -> list[Item]:
        """Return the items in the order of a rules file."""
        found = list(self.levels.values())
        for watched in self.profiles.values():
            found += watched.all()
        if self.absence is not None:
            found.append(self.absence)
        for ladders in self.category_levels.values():
            found += ladders.values()
        # an inherited limit of the score is the item of [levels]
        listed = {id(item): item for item in found}
        return [
            *listed.values(),
            *self.signal_rules,
            *self.contexts.values(),
            *self.routes.values(),
        ]

    def levels_of(self, category: str) -> Ladders:
        """Return the limits of the score for the sources of a category."""
        return self.category_levels.get(category, self.levels)

    def _absence(self) -> Item | None:
        absence = self.rules.absence
        if "absence" not in self.rules.model_fields_set or not absence.after:
            return None
        return Item(
            key="absence.after", kind="absence", level=absence.level, limit=absence.after,
            unit="periods",
        )  # fmt: skip

    def _category_levels(self) -> dict[str, Ladders]:
        found = {}
        for name, change in self.rules.fusion.categories.items():
            own: Levels | None = change.levels
            if own is not None and own.raise_at is not None:
                key = f"fusion.categories.{_quoted(name)}.levels.raise_at"
                found[name] = _ladder(key, "score", own.raise_at)
        return found


def _watched(rules: Rules, name: str, profile: Profile) -> Watched:
    """Return the items of a profile."""
    key = f"profiles.{_quoted(name)}"
    unit = display_unit(profile.unit)
    found = Watched()
    limits = profile.limits
    found.latches[HIGH] = _ladder(f"{key}.limits.high", "limit", limits.high, unit)
    found.latches[LOW] = _ladder(f"{key}.limits.low", "limit", limits.low, unit, falls=True)
    if profile.rate is not None:
        per = f"{unit}/{profile.rate.per}"
        for kind, side in ((RISE, "rise"), (FALL, "fall")):
            ladder = getattr(profile.rate, side)
            found.ladders[kind] = _ladder(f"{key}.rate.{side}", "rate", ladder, per)
    for window in profile.windows:
        of = "" if window.aggregate == "count" else unit
        at = f"{key}.windows.{_quoted(window.name)}"
        high = _ladder(f"{at}.high", "window", window.high, of)
        low = _ladder(f"{at}.low", "window", window.low, of, falls=True)
        found.windows.append((high, low))
    for kind, section in ((DEVIATION, "deviation"), (DRIFT, "drift")):
        given = getattr(profile, section)
        if given is not None:
            ladder = given.raise_at
            found.ladders[kind] = _ladder(f"{key}.{section}.raise_at", section, ladder, "σ")
    for item in found.all():
        item.state = profile.quantity in STATES
    _add_liveness(found, rules, key, profile, unit)
    for item in found.all():
        item.table = key
    return found


def _add_liveness(found: Watched, rules: Rules, key: str, profile: Profile, unit: str) -> None:
    live = profile.liveness
    given = live.model_fields_set
    after, level = profile.absent(rules.absence)
    switched = (
        (ABSENCE, "absence", "absent_after", after, level, "periods"),
        (FLATLINE, "flatline", "flat_after_n", live.flat_after_n, live.flat_level, "repeats"),
        (BAD, "bad", "bad_after_n", live.bad_after_n, live.bad_level, "readings"),
        (SPIKE, "spike", "spike_at", live.spike_at, live.spike_level, unit),
    )
    for kind, name, field_name, limit, level, of in switched:
        if field_name in given and limit:
            item = Item(
                key=f"{key}.liveness.{field_name}", kind=name, level=level, limit=float(limit),
                unit=of,
            )  # fmt: skip
            found.ladders[kind] = {level_number(level): item}


def _ladder(key: str, kind: str, ladder: Ladder, unit: str = "", *, falls: bool = False) -> Ladders:
    return {
        level_number(level): Item(
            key=f"{key}.{level}", kind=kind, level=level, limit=limit, unit=unit, falls=falls
        )
        for level, limit in ladder.named()
    }


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'


def share(items: Iterable[Item], done: str) -> float:
    """Return how many of the items were `reached` or `cleared`, 0 to 100; 100 of none."""
    chosen = [item for item in items if item.clears or done == "reached"]
    n_done = sum(getattr(item, done) for item in chosen)
    return 100.0 * n_done / len(chosen) if chosen else 100.0

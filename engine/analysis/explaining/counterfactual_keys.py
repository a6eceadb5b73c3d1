"""Rule keys that bear on one transition, and rules with one of them changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from pydantic import ValidationError

from engine.analysis.explaining.moment import Moment, Sensor
from engine.plan import Plan
from engine.rules import Rules
from engine.rules_base import LEVELS, MAX_DELAY_S, Path
from engine.units import display_unit
from kernels.layout import (
    ABSENCE,
    BAD,
    DEVIATION,
    DRIFT,
    FALL,
    FLATLINE,
    HIGH,
    KIND_NAMES,
    LOW,
    RISE,
    SPIKE,
    WINDOW,
)

DROP = object()
"""Instead of a value: the key, or the entry of a list, is left out."""


def changed(rules: Rules, path: Path, value: Any) -> Rules | None:
    """Return rules with one key set, added or dropped; None where they are then no sound rules."""
    tree = rules.model_dump(by_alias=True)
    at: Any = tree
    for step in path[:-1]:
        below = at[step]
        if isinstance(below, tuple):
            below = at[step] = list(below)
        at = below
    if value is DROP:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    try:
        return Rules.model_validate(tree)
    except ValidationError:
        return None


def value_at(rules: Rules, path: Path) -> Any:
    """Return what stands under a path, None where nothing does."""
    at: Any = rules.model_dump(by_alias=True)
    for step in path:
        if at is None or (isinstance(at, dict) and step not in at):
            return None
        at = at[step]
    return at


def shown_path(rules: Rules, path: Path) -> str:
    """Return a path as people read it: entries of lists by their name."""
    parts: list[str] = []
    at: Any = rules.model_dump(by_alias=True)
    for step in path:
        at = None if at is None else at[step] if isinstance(step, int) else at.get(step)
        name = at["name"] if isinstance(step, int) and isinstance(at, dict) else step
        parts.append(str(name))
    return ".".join(parts)


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key that may be moved, in steps, towards where the transition does not happen."""

    path: Path
    name: str
    now: Any
    """The value that stands; None if the key is not given."""
    step: Decimal = Decimal(0)
    """0 for a switch, which has one step: to `other`."""
    up: bool = True
    bound: float = math.inf
    unit: str = ""
    other: Any = None
    whole: bool = False
    """A number of readings."""
    start: float | None = None
    """From where steps count, if not from `now`."""
    build: Callable[[Rules, Any], Rules | None] | None = field(default=None, repr=False)

    @property
    def is_switch(self) -> bool:
        """Whether there is only one other value."""
        return not self.step

    @property
    def most(self) -> int:
        """How many steps there are up to the bound, sound or not."""
        if self.is_switch:
            return 1
        far = self.bound if math.isfinite(self.bound) else self._from * 1000 + 1000
        return max(0, int((Decimal(repr(float(far))) - self._begin) / self._signed))

    @property
    def _from(self) -> float:
        return float(self.now if self.start is None else self.start)

    @property
    def _begin(self) -> Decimal:
        return Decimal(repr(self._from))

    @property
    def _signed(self) -> Decimal:
        return self.step if self.up else -self.step

    def value(self, n: int) -> Any:
        """Return the value after n steps: on the step's own grid, beyond where it stands."""
        if self.is_switch:
            return self.other if n else self.now
        if n == 0 and self.start is None:
            return self.now
        at = self._begin + n * self._signed
        # from 10.25 in steps of 0.1 to 10.3, 10.4, …
        at = (at / self.step).to_integral_value("ROUND_FLOOR" if self.up else "ROUND_CEILING")
        found = at * self.step
        return int(found) if self.whole else float(found)

    def rules(self, rules: Rules, n: int) -> Rules | None:
        """Return the rules after n steps; None where they are no sound rules."""
        if n == 0:
            return rules
        if self.build is not None:
            return self.build(rules, self.value(n))
        return changed(rules, self.path, self.value(n))


def step_for(value: float) -> Decimal:
    """Return the step in which a number is moved: a tenth to a hundredth of its size, or finer."""
    if not value or not math.isfinite(value):
        return Decimal("0.01")
    return Decimal(1).scaleb(math.floor(math.log10(abs(value))) - 2)


ONE = Decimal(1)
HUNDREDTH = Decimal("0.01")


@dataclass(frozen=True, kw_only=True)
class Bearing:
    """The keys that bear on the transition of a moment."""

    moment: Moment
    level: int
    """That the source must not come to."""
    span_s: float
    """How long the transition's level lasted: longer delays need not be tried."""
    gap_s: float | None
    """How long before it the source was at the level last; None if never."""
    falls: bool
    kinds: frozenset[tuple[int, int]]
    """(sensor, kind) of the part that were up in the episode: for a fall, what let go."""

    def keys(self) -> list[Key]:
        """Return them, each once: those of detectors, of fusion, of rules and contexts."""
        found: dict[str, Key] = {}
        every = self._of_falls() if self.falls else self._of_rises()
        for key in every:
            found.setdefault(key.name, key)
        return list(found.values())

    @property
    def _plan(self) -> Plan:
        return self.moment.plan

    @property
    def _rules(self) -> Rules:
        return self._plan.rules

    @property
    def _category(self) -> str:
        catalog = self._plan.catalog
        return catalog.categories[int(catalog.category[self.moment.source])]

    def _key(self, path: Path, step: Decimal, **given: Any) -> Iterator[Key]:
        now = value_at(self._rules, path)
        name = shown_path(self._rules, path)
        if now is not None or given.get("start") is not None:
            yield Key(path=path, name=name, now=now, step=step, **given)

    def _sensors(self) -> Iterator[tuple[Sensor, int]]:
        """Yield the sensors that count, or hold a rule, with the source of each."""
        moment = self.moment
        for sensor in moment.sensors:
            yield sensor, moment.source
        for neighbour in moment.neighbours:
            for sensor in neighbour.sensors:
                yield sensor, neighbour.source

    def _of_rises(self) -> Iterator[Key]:
        for sensor, _ in self._sensors():
            for signal in sensor.signals:
                yield from self._of_signal(sensor.sensor, signal.kind, signal.level, sensor.window)
        if self.gap_s is not None:
            yield from self._longer(self.gap_s)
        yield from self._of_fusion()
        yield from self._of_levels()
        yield from self._switches()

    def _of_falls(self) -> Iterator[Key]:
        if self.gap_s is not None:
            yield from self._longer(self.gap_s)

    # --- detectors ------------------------------------------------------------------------------

    def _of_signal(self, sensor: int, kind: int, level: int, window: int) -> Iterator[Key]:
        name = self._plan.profile_of_row[int(self._plan.row[sensor])]
        if kind == ABSENCE:
            yield from self._of_silence(name)
        if name is None:
            return
        base: Path = ("profiles", name)
        profile = self._rules.profiles[name]
        unit = display_unit(profile.unit)
        if kind in (HIGH, LOW):
            # a limit or delay of the sensor's own stands in no key
            side, bound = ("high", profile.range[1]) if kind == HIGH else ("low", profile.range[0])
            yield from self._ladder((*base, "limits", side), level, unit, kind == HIGH, bound)
            for at in () if self._has_own(sensor, "on_delay_s") else LEVELS[:level]:
                if value_at(self._rules, (*base, "limits", side, at)) is None:
                    continue
                path = (*base, "limits", "on_delay_s", at)
                yield from self._seconds(path, self.span_s * 1.5 + 60)
        elif kind in (RISE, FALL):
            per = f"{unit}/{profile.rate.per}" if profile.rate else unit
            yield from self._ladder((*base, "rate", KIND_NAMES[kind]), level, per)
            yield from self._number((*base, "rate", "confirm_n"), 255)
        elif kind == WINDOW:
            counts = profile.windows[window].aggregate == "count"
            for side, up in (("high", True), ("low", False)):
                path = (*base, "windows", window, side)
                yield from self._ladder(path, level, "readings" if counts else unit, up)
        elif kind in (DEVIATION, DRIFT):
            yield from self._ladder((*base, KIND_NAMES[kind], "raise_at"), level, "σ")
            if kind == DEVIATION:
                yield from self._number((*base, "deviation", "confirm_n"), 255)
            yield from self._amount((*base, "deviation", "min_sigma"), unit)
        elif kind in (FLATLINE, BAD):
            key = "flat_after_n" if kind == FLATLINE else "bad_after_n"
            yield from self._number((*base, "liveness", key), 65_535 if kind == FLATLINE else 255)
        elif kind == SPIKE:
            yield from self._amount((*base, "liveness", "spike_at"), unit)

    def _ladder(
        self, path: Path, level: int, unit: str, up: bool = True, bound: float = math.inf
    ) -> Iterator[Key]:
        """Yield the limits of a ladder up to a signal's level, and the ladder as a whole."""
        limits = value_at(self._rules, path)
        given = [each for each in LEVELS[:level] if limits[each] is not None]
        for at in given[::-1]:
            if LEVELS.index(at) + 1 < min(self.level, level):
                continue
            now = limits[at]
            far = bound if math.isfinite(bound) else now + (1 if up else -1) * (abs(now) * 99 + 100)
            yield from self._key((*path, at), step_for(now), up=up, bound=far, unit=unit)
        if given and sum(limit is not None for limit in limits.values()) > 1:
            now = limits[given[0]]
            far = bound if math.isfinite(bound) else now + (1 if up else -1) * (abs(now) * 99 + 100)
            yield Key(
                path=path,
                name=f"{shown_path(self._rules, path)} (all)",
                now=now,
                step=step_for(now),
                up=up,
                bound=far,
                unit=unit,
                build=_beyond(path, up),
            )

    def _of_silence(self, name: str | None) -> Iterator[Key]:
        path: Path = ("absence", "after")
        if name is not None and self._rules.profiles[name].liveness.absent_after is not None:
            path = ("profiles", name, "liveness", "absent_after")
        now = value_at(self._rules, path)
        step = ONE if now >= 10 else Decimal("0.1")
        yield from self._key(path, step, bound=max(1000.0, now * 100), unit="periods")

    def _amount(self, path: Path, unit: str) -> Iterator[Key]:
        now = value_at(self._rules, path)
        if now:
            yield from self._key(path, step_for(now), bound=now * 20, unit=unit)

    def _number(self, path: Path, bound: int) -> Iterator[Key]:
        yield from self._key(path, ONE, bound=bound, whole=True, unit="readings")

    def _seconds(self, path: Path, bound: float) -> Iterator[Key]:
        yield from self._key(path, ONE, bound=min(bound, MAX_DELAY_S), unit="s")

    def _has_own(self, sensor: int, key: str) -> bool:
        """Return whether the catalog gives a sensor its own value, so that no profile's holds."""
        catalog = self._plan.catalog
        at = int(np.searchsorted(catalog.override_sensor, sensor))
        if at == len(catalog.override_sensor) or int(catalog.override_sensor[at]) != sensor:
            return False
        return not math.isnan(float(getattr(catalog, f"override_{key}")[at]))

    # --- what would have held the level before ---------------------------------------------------

    def _longer(self, gap_s: float) -> Iterator[Key]:
        """Yield the keys that let a level last until the next rise, so that there is none."""
        bound = min(gap_s * 1.2 + 60, MAX_DELAY_S)
        yield from self._seconds(self._levels_path("hold_s"), bound)
        for sensor, kind in sorted(self.kinds):
            name = self._plan.profile_of_row[int(self._plan.row[sensor])]
            if name is None or kind not in (HIGH, LOW):
                continue
            base: Path = ("profiles", name, "limits")
            side = "high" if kind == HIGH else "low"
            given = [level for level in LEVELS if value_at(self._rules, (*base, side, level))]
            for level in () if self._has_own(sensor, "off_delay_s") else given:
                yield from self._seconds((*base, "off_delay_s", level), bound)
            limit = abs(value_at(self._rules, (*base, side, given[0]))) if given else 1.0
            unit = display_unit(self._rules.profiles[name].unit)
            yield from self._key((*base, "deadband"), step_for(limit), bound=limit * 2, unit=unit)
        half_life_s = value_at(self._rules, self._fusion_path("half_life_s")) or 0
        far = min(half_life_s * 100 + gap_s, 31_622_400.0)
        yield from self._key(self._fusion_path("half_life_s"), ONE, bound=far, unit="s")

    # --- fusion ----------------------------------------------------------------------------------

    def _fusion_path(self, *keys: str) -> Path:
        """Return where a key of fusion stands for the source's category."""
        own: Path = ("fusion", "categories", self._category, *keys)
        given = self._category in self._rules.fusion.categories
        return own if given and value_at(self._rules, own) is not None else ("fusion", *keys)

    def _levels_path(self, *keys: str) -> Path:
        own: Path = ("fusion", "categories", self._category, "levels", *keys)
        given = self._category in self._rules.fusion.categories
        return own if given and value_at(self._rules, own) is not None else ("levels", *keys)

    def _of_fusion(self) -> Iterator[Key]:
        catalog = self._plan.catalog
        less: dict[str, Any] = {"up": False, "bound": 0.0}
        for sensor, _ in self._sensors():
            if sensor.counts <= 0:
                continue
            quantity = catalog.quantities[int(catalog.quantity[sensor.sensor])]
            path = self._fusion_path("weights", quantity)
            weight = self._rules.fusion.of(self._category).weight(quantity)
            yield from self._key(path, HUNDREDTH, start=weight, **less)
            kind = sensor.held_kind
            if not sensor.fades and sensor.strongest is not None:
                kind = sensor.strongest.kind
                at = LEVELS[sensor.strongest.level - 1]
                yield from self._key(self._fusion_path("severity", at), HUNDREDTH, **less)
            yield from self._key(
                self._fusion_path("detectors", KIND_NAMES[kind]), HUNDREDTH, **less
            )
            if sensor.fades:
                half_life = self._fusion_path("half_life_s")
                yield from self._key(half_life, ONE, up=False, bound=1.0, unit="s")
        for neighbour in self.moment.neighbours:
            if neighbour.share > 0:
                name = catalog.coupling_kinds[int(catalog.coupled_kind[neighbour.edge])]
                influence = self._rules.coupling.of(name)
                path = ("coupling", "influence", name)
                yield from self._key(path, HUNDREDTH, start=influence, **less)
        name = ("none", "blue", "yellow", "red")[int(catalog.static_class[self.moment.source])]
        if self.moment.class_factor != 1.0:
            yield from self._key(self._fusion_path("class_factor", name), HUNDREDTH, **less)
        for number in self.moment.contexts:
            yield from self._of_context(self._plan.context_names[number])

    def _of_context(self, name: str) -> Iterator[Key]:
        for index, context in enumerate(self._rules.context):
            if context.name == name:
                path = ("context", index, "factor")
                yield from self._key(path, HUNDREDTH, up=False, bound=0.01)

    def _of_levels(self) -> Iterator[Key]:
        path = self._levels_path("raise_at", LEVELS[self.level - 1])
        yield from self._key(path, Decimal("0.1"), bound=100.0)

    # --- switches --------------------------------------------------------------------------------

    def _switches(self) -> Iterator[Key]:
        for sensor in self.moment.sensors:
            name = self._plan.profile_of_row[int(self._plan.row[sensor.sensor])]
            if name is not None and any(s.kind in (HIGH, LOW) for s in sensor.signals):
                path = ("profiles", name, "limits", "floor")
                if value_at(self._rules, path):
                    yield Key(path=path, name=".".join(path), now=True, other=False)
        for held in self.moment.rules:
            rule = self._rules.rules[held.rule]
            yield Key(
                path=("rules", held.rule),
                name=f"rules.{rule.name}",
                now="given",
                other=DROP,
            )


def _beyond(path: Path, up: bool) -> Callable[[Rules, Any], Rules | None]:
    """Return what gives rules a ladder with no limit short of a value."""

    def build(rules: Rules, value: float) -> Rules | None:
        limits = {k: v for k, v in value_at(rules, path).items() if v is not None}
        deadband = value_at(rules, (*path[:-1], "deadband"))
        short = [
            k for k, v in limits.items() if (v <= value + deadband if up else v >= value - deadband)
        ]
        if not short:
            return None
        kept: dict[str, float] = {k: v for k, v in limits.items() if k not in short}
        return changed(rules, path, {short[-1]: value, **kept})

    return build

"""Settings: a space tied to rules, and the rules that each choice of values makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args, get_origin

import numpy as np
from pydantic import BaseModel, ValidationError

from engine.analysis.tuning.space import Space, Vary, key_parts, refuse, rounded
from engine.catalog import Catalog
from engine.errors import Fault, RulesError
from engine.plan_rows import compile_rows
from engine.rules import Rules
from engine.rules_base import LEVELS, Flaw, Ladder, Path, Section, needed, one_of
from engine.rules_check import dotted
from engine.rules_profile import Delays
from engine.rules_schema import bare, inside, keys_of, section_of
from engine.units import display_unit

_MOST_SECTIONS = 10_000
Values = tuple[float, ...]
"""A value for each parameter; NaN leaves its keys as the rules have them."""


class Refused(Exception):
    """Values that the rules, or the catalog's own limits, refuse; its text says why."""


class Spot(NamedTuple):
    """A key of the rules: its path, its type, and what stands there; None where nothing does."""

    path: Path
    kind: Any
    value: Any


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One thing that varies."""

    title: str
    kind: str
    paths: tuple[Path, ...]
    """The keys that it moves."""
    bases: tuple[float, ...]
    """Their values in the given rules; NaN where they have none of their own."""
    whole: tuple[bool, ...]
    """Which of them are whole numbers."""
    choices: tuple[float, ...] | None
    low: float
    high: float
    log: bool
    unit: str

    @property
    def baseline(self) -> float:
        """The value that leaves everything as it is; NaN where no number says so."""
        if self.kind in ("scale", "shift"):
            return 1.0 if self.kind == "scale" else 0.0
        return self.bases[0] if len(set(self.bases)) == 1 else math.nan

    @property
    def takes_whole(self) -> bool:
        """Whether its value itself must be a whole number."""
        return self.kind in ("key", "same") and any(self.whole)

    def numbers(self, value: float) -> Iterator[tuple[Path, float]]:
        """Yield each key and what it becomes; nothing where all stays as it is."""
        if math.isnan(value) or value == self.baseline:
            return
        for path, base, whole in zip(self.paths, self.bases, self.whole, strict=True):
            number = value
            if self.kind == "scale":
                number = rounded(base * value, 6)
            elif self.kind == "shift":
                number = rounded(base + value, 9)
            yield path, round(number) if whole or number == int(number) else number

    def near(self, value: float) -> float:
        """Return a drawn value as people would write it."""
        return float(round(value)) if self.takes_whole else rounded(value)

    def same(self, a: float, b: float) -> bool:
        """Tell whether two of its values are one and the same."""
        return a == b or (math.isnan(a) and math.isnan(b))


class Settings:
    """Every setting that a space allows of some rules; raises SettingsError if they don't fit."""

    def __init__(self, space: Space, rules: Rules, catalog: Catalog | None = None) -> None:
        self.space, self.rules = space, rules
        self._sections: dict[tuple[Path, str], Section | str] = {}
        faults: list[Fault] = []
        found = [_parameter(space, rules, n, vary, faults) for n, vary in enumerate(space.vary)]
        self.parameters = tuple(each for each in found if each is not None)
        if not faults:
            faults += self._overlaps()
        refuse(space.file, faults)
        self._own = None if catalog is None else _with_own_limits(catalog)

    def _overlaps(self) -> Iterator[Fault]:
        taken: dict[Path, str] = {}
        for number, parameter in enumerate(self.parameters):
            key = ("vary", number, self.space.vary[number].kind)
            for path in parameter.paths:
                for other, title in taken.items():
                    if path[: len(other)] == other or other[: len(path)] == path:
                        moves = "moves it already" if other == path else f"moves {dotted(other)}"
                        yield self.space.fault(key, f"{title!r} {moves}", dotted(path))
                        break
                else:
                    taken[path] = parameter.title

    @property
    def titles(self) -> list[str]:
        """The parameters' names."""
        return [parameter.title for parameter in self.parameters]

    @property
    def baseline(self) -> Values:
        """The values of the given rules."""
        return tuple(parameter.baseline for parameter in self.parameters)

    def size(self) -> int | None:
        """Return how many settings there are; None if a parameter has no steps."""
        sizes = [None if p.choices is None else len(p.choices) for p in self.parameters]
        return None if None in sizes else math.prod(size or 0 for size in sizes)

    def canonical(self, values: Sequence[float]) -> Values:
        """Return values as they are kept: rounded where they were drawn from a range."""
        return tuple(
            float(value) if p.choices is not None or math.isnan(value) else p.near(value)
            for p, value in zip(self.parameters, values, strict=True)
        )

    def changed(self, values: Values) -> list[int]:
        """Return the numbers of the parameters that are not as the given rules have them."""
        return [
            number
            for number, (p, value) in enumerate(zip(self.parameters, values, strict=True))
            if not (math.isnan(value) or p.same(value, p.baseline))
        ]

    def numbers(self, values: Values) -> dict[Path, float]:
        """Return every key that the values change, and what it becomes."""
        pairs = zip(self.parameters, values, strict=True)
        return {path: number for p, value in pairs for path, number in p.numbers(value)}

    def rules_of(self, values: Values) -> Rules:
        """Return the rules of some values. Raises Refused where they, or the catalog, won't do."""
        changes: dict[Any, Any] = {}
        for path, number in self.numbers(values).items():
            node = changes
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = number
        if not changes:
            return self.rules
        fields = {name: getattr(self.rules, name) for name in Rules.model_fields}
        fields.update({top: self._section(str(top), inner) for top, inner in changes.items()})
        # every section is valid by itself: what is left to judge is how they go together
        made = Rules.model_construct(**fields)
        flaws = tuple(made.flaws())
        if flaws:
            raise Refused(_texts((), flaws))
        if self._own is not None:
            try:
                compile_rows(self._own, made)
            except RulesError as error:
                raise Refused("; ".join(map(str, error.faults[:1])) or error.problem) from error
        return made

    def _section(self, top: str, changes: Any) -> Any:
        """Return a top-level field of the rules with changes in it."""
        node = getattr(self.rules, top)
        if top == "profiles":
            new = {
                name: self._valid((top, name), node[name], each) for name, each in changes.items()
            }
            return {**node, **new}
        if top == "context":
            return tuple(
                self._valid((top, n), each, changes[n]) if n in changes else each
                for n, each in enumerate(node)
            )
        return self._valid((top,), node, changes)

    def _valid(self, path: Path, section: Section, changes: Any) -> Section:
        """Return a section with changes in it; most settings share most of their sections."""
        known = (path, repr(changes))
        if known not in self._sections:
            if len(self._sections) >= _MOST_SECTIONS:
                self._sections.clear()
            try:
                changed = self._changed(section, changes, path)
                self._sections[known] = type(section).model_validate(changed)
            except ValidationError as error:
                self._sections[known] = _why(path, error)
        found = self._sections[known]
        if isinstance(found, str):
            raise Refused(found)
        return found

    def _changed(self, node: Any, changes: Any, path: Path) -> Any:
        """Return a node with changes in it; what nothing changes stays the object that it is."""
        if not isinstance(changes, dict):
            return changes
        if node is None and path[:2] == ("fusion", "categories") and path[3:] == (
            "levels", "raise_at",
        ):  # fmt: skip
            # a ladder is taken as a whole: the levels that nobody moves stay as they are
            node = self.rules.levels_of(str(path[2])).raise_at
        if isinstance(node, tuple):
            return [
                self._changed(each, changes[index], (*path, index)) if index in changes else each
                for index, each in enumerate(node)
            ]
        known = _table(node)
        for part, inner in changes.items():
            known[part] = self._changed(known.get(part), inner, (*path, part))
        return known


def _table(node: Any) -> dict[Any, Any]:
    if isinstance(node, BaseModel):
        fields = type(node).model_fields.items()
        return {field.alias or name: getattr(node, name) for name, field in fields}
    return dict(node or {})


def _why(path: Path, error: ValidationError) -> str:
    """Return what a section refuses, shortly."""
    texts = []
    for each in error.errors(include_url=False):
        loc: Path = (*path, *each["loc"])
        if each["type"] == "flaws":
            texts.append(_texts(loc, each["ctx"]["flaws"]))
        else:
            texts.append(str(Fault(key=dotted(loc), problem=needed(each), value=each["input"])))
    return "; ".join(dict.fromkeys(texts))


def _texts(path: Path, flaws: Iterable[Flaw]) -> str:
    texts = (
        str(
            Fault(
                key=dotted((*path, *flaw.key)),
                problem=flaw.problem,
                value=None if isinstance(flaw.value, list) else flaw.value,
            )
        )
        for flaw in flaws
    )
    return "; ".join(dict.fromkeys(texts))


def _with_own_limits(catalog: Catalog) -> Catalog | None:
    """Return a catalog of no more than the sensors with limits of their own, if there are any."""
    sensors = np.asarray(catalog.override_sensor, np.int64)
    if not len(sensors):
        return None
    return replace(
        catalog,
        n_sensors=len(sensors),
        sensor_id=catalog.sensor_id.take(sensors),
        sensor_source=catalog.sensor_source[sensors],
        quantity=catalog.quantity[sensors],
        unit=catalog.unit[sensors],
        override_sensor=np.arange(len(sensors), dtype=np.int32),
    )


# --- keys ----------------------------------------------------------------------------------------


def _parameter(
    space: Space, rules: Rules, number: int, vary: Vary, faults: list[Fault]
) -> Parameter | None:
    spots: list[Spot] = []
    before = len(faults)
    for index, text in enumerate(vary.keys):
        key: Path = ("vary", number, vary.kind, *(() if vary.kind == "key" else (index,)))
        try:
            spots += _numbers_at(rules, text, vary.kind)
        except ValueError as error:
            faults.append(space.fault(key, str(error), text))
    spots = list({spot.path: spot for spot in spots}.values())
    bases = tuple(_number(spot) for spot in spots)
    if vary.kind in ("scale", "shift"):
        bases = tuple(
            in_force(rules, spot.path) if math.isnan(base) else base
            for spot, base in zip(spots, bases, strict=True)
        )
        for spot, base in zip(spots, bases, strict=True):
            if math.isnan(base):
                problem = f"the rules give {dotted(spot.path)} no number to {vary.kind}"
                faults.append(space.fault(("vary", number, vary.kind), problem))
    if len(faults) > before or not spots:
        return None
    found = Parameter(
        title=vary.title,
        kind=vary.kind,
        paths=tuple(spot.path for spot in spots),
        bases=bases,
        whole=tuple(bare(spot.kind) is int for spot in spots),
        choices=vary.choices,
        low=min(vary.values) if vary.values else vary.low or 0.0,
        high=max(vary.values) if vary.values else vary.high or 0.0,
        log=vary.log,
        unit=unit_of(rules, spots[0].path) if vary.kind != "scale" else "×",
    )
    if found.takes_whole:
        named = found.choices or (found.low, found.high)
        for value in named:
            if value != int(value):
                problem = f"{dotted(found.paths[0])} takes whole numbers"
                where = "values" if vary.values else "step" if vary.step else "low"
                faults.append(space.fault(("vary", number, where), problem, value))
                break
    return found


def _numbers_at(rules: Rules, text: str, kind: str) -> list[Spot]:
    """Return the numbers that a key names; ValueError if it names none."""
    spots: list[Spot] = []
    for spot in _walk(Spot((), Rules, rules), key_parts(text)):
        section = section_of(spot.kind)
        if section is not None and issubclass(section, Delays) and kind in ("key", "same"):
            spots.append(spot)
        elif section is not None and issubclass(section, Ladder | Delays):
            if kind in ("key", "same"):
                raise ValueError(f"names a table: name one of it, such as {text}.yellow")
            levels = [
                Spot((*spot.path, name), float, getattr(spot.value, name, None)) for name in LEVELS
            ]
            spots += [level for level in levels if level.value is not None]
        elif bare(spot.kind) in (int, float):
            spots.append(spot)
        elif spot.value is not None or section is None:
            what = "a table" if section is not None else "not a number"
            raise ValueError(f"is {what}: only numbers can vary")
    if not spots:
        raise ValueError("the rules have no such number")
    return spots


def _walk(spot: Spot, parts: Sequence[str | int]) -> Iterator[Spot]:
    """Yield what a key names, step by step; ValueError where it names nothing that can be."""
    if not parts:
        yield spot
        return
    for inner in _inner(spot, parts[0]):
        yield from _walk(inner, parts[1:])


def _inner(spot: Spot, part: str | int) -> Iterator[Spot]:
    path, kind, node = spot.path, bare(spot.kind), spot.value
    section = section_of(kind)
    if section is not None:
        fields = keys_of(section)
        if part not in fields:
            raise ValueError(f"{_place(path)} has no key {part!r}{one_of(str(part), fields)}")
        if node is None and any(field.is_required() for field in fields.values()):
            raise ValueError(f"the rules have no {dotted(path)}: add it there first")
        name = next(n for n, f in section.model_fields.items() if part in (n, f.alias))
        yield Spot((*path, part), fields[str(part)].annotation, getattr(node, name, None))
    elif get_origin(kind) is dict:
        yield from _of_names(path, kind, node or {}, str(part))
    elif get_origin(kind) is tuple and section_of(get_args(kind)[0]) is not None:
        names = [each.name for each in node or ()]
        if part == "*":
            wanted = list(range(len(names)))
        else:
            wanted = (
                [part] if isinstance(part, int) else [n for n, x in enumerate(names) if x == part]
            )
        if not wanted or max(wanted) >= len(names):
            known = f"{one_of(str(part), names)}" if names else ": there are none"
            raise ValueError(f"{dotted(path)} has none called {part!r}{known}")
        for index in wanted:
            yield Spot((*path, index), inside(kind, index), node[index])
    elif get_origin(kind) is tuple and isinstance(part, int) and part < len(get_args(kind)):
        yield Spot((*path, part), get_args(kind)[part], node[part])
    else:
        raise ValueError(f"{_place(path)} is no table: it has no {part!r}")


def _of_names(path: Path, kind: Any, node: Any, part: str) -> Iterator[Spot]:
    inner = get_args(kind)[1]
    section = section_of(inner)
    if part == "*":
        if not node:
            raise ValueError(f"the rules name nothing in {dotted(path)}")
        for name, each in node.items():
            yield Spot((*path, name), inner, each)
        return
    required = section is not None and any(f.is_required() for f in keys_of(section).values())
    if part not in node and required:
        known = one_of(part, node) if node else ": there are none"
        raise ValueError(f"{dotted(path)} has none called {part!r}{known}")
    yield Spot((*path, part), inner, node.get(part))


def _place(path: Path) -> str:
    return dotted(path) or "the rules file"


def _number(spot: Spot) -> float:
    if isinstance(spot.value, Delays):
        delays = {getattr(spot.value, level) for level in LEVELS}
        return delays.pop() if len(delays) == 1 else math.nan
    return math.nan if spot.value is None else float(spot.value)


def in_force(rules: Rules, path: Path) -> float:
    """Return the number that holds at a key, from where it is inherited if it is not given."""
    if path[:2] == ("fusion", "weights"):
        return rules.fusion.weight(str(path[2]))
    if path[:2] == ("coupling", "influence"):
        return rules.coupling.of(str(path[2]))
    if path[:2] == ("fusion", "categories"):
        of = rules.fusion.of(str(path[2]))
        if path[3] == "weights":
            return of.weight(str(path[4]))
        node: Any = of
        rest = path[3:]
        if path[3] == "levels":
            node, rest = rules.levels_of(str(path[2])), path[4:]
    elif path[0] == "profiles" and path[2:] == ("liveness", "absent_after"):
        return rules.profiles[str(path[1])].absent(rules.absence)[0]
    else:
        node, rest = rules, path
    for part in rest:
        node = _table(node).get(part) if not isinstance(node, tuple) else node[int(part)]
        if node is None:
            return math.nan
    return _number(Spot(path, None, node))


def unit_of(rules: Rules, path: Path) -> str:
    """Return the unit of a key's number for people; empty where it has none."""
    name = next(
        (part for part in reversed(path) if isinstance(part, str) and part not in LEVELS), ""
    )
    if name.endswith("_s"):
        return "s"
    if path[0] != "profiles":
        return ""
    profile = rules.profiles[str(path[1])]
    unit = display_unit(profile.unit)
    section = str(path[2])
    if section in ("limits", "range") or name in ("min_sigma", "spike_at"):
        return unit
    if section == "rate" and name in ("rise", "fall", "deadband"):
        return f"{unit}/{profile.rate.per}" if profile.rate else unit
    if section == "windows" and name in ("high", "low", "deadband"):
        return "" if profile.windows[int(path[3])].aggregate == "count" else unit
    if section in ("deviation", "drift") and name in ("raise_at", "deadband", "clip", "allowance"):
        return "σ"
    return ""

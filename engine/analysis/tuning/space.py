"""Spaces: a TOML file that says which numbers of the rules may vary, and how far.

`engine/TUNING.md` documents every key. `load(path)` reads a space, `Space.over(rules)` ties it to
rules (`engine/analysis/tuning/settings.py`).
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.errors import Fault, SettingsError
from engine.rules_base import Flaw, Name, Path, Section, needed, one_of
from engine.rules_check import dotted
from engine.toml_lines import key_lines, line_of
from engine.toml_text import document_of, read_text, validated

MAX_BYTES = 1 << 20
MAX_SETTINGS = 100_000
"""Settings of one study: its table is held in memory and written again after each batch."""
MAX_CHOICES = 10_000
METHODS = ("grid", "random", "adaptive")
LINKS = ("scale", "shift", "same")
KINDS = ("key", *LINKS)
_PART = re.compile(r'\.?(?:"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)|\[(\d{1,5})\])')

Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Keys = Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=1000)]


class Search(Section):
    """How settings are taken from the space."""

    method: Literal["grid", "random", "adaptive"] = "grid"
    settings: int | None = Field(default=None, ge=1, le=MAX_SETTINGS)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class Vary(Section):
    """One parameter of the space: a number of the rules, or several that move together."""

    name: Name | None = None
    key: Name | None = None
    scale: Keys | None = None
    shift: Keys | None = None
    same: Keys | None = None
    low: Number | None = None
    high: Number | None = None
    step: Annotated[float, Field(gt=0, le=1e15)] | None = None
    n: Annotated[int, Field(ge=2, le=MAX_CHOICES)] | None = None
    log: bool = False
    values: (
        Annotated[tuple[Number, ...], Field(strict=False, min_length=1, max_length=MAX_CHOICES)]
        | None
    ) = None

    @property
    def kind(self) -> str:
        """Whether one key takes the parameter's value, or several are scaled, shifted, the same."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the rules that it moves, as they are written."""
        return (self.key,) if self.key is not None else getattr(self, self.kind)

    @property
    def title(self) -> str:
        """How tables and columns call it."""
        return self.name or str(self.key)

    @property
    def choices(self) -> tuple[float, ...] | None:
        """Its values in order; None of a range without steps."""
        if self.values is not None:
            return self.values
        if self.low is None or self.high is None:
            return None
        if self.step is not None:
            low, step = Decimal(repr(self.low)), Decimal(repr(self.step))
            return tuple(float(low + step * i) for i in range(self._n_steps + 1))
        if self.n is None:
            return None
        shares = [i / (self.n - 1) for i in range(self.n)]
        if self.log:
            spread = (self.low * (self.high / self.low) ** share for share in shares)
        else:
            spread = (self.low + (self.high - self.low) * share for share in shares)
        # both ends as they are written
        return tuple(dict.fromkeys((self.low, *map(rounded, [*spread][1:-1]), self.high)))

    @property
    def _n_steps(self) -> int:
        assert self.low is not None and self.high is not None and self.step is not None
        distance = Decimal(repr(self.high)) - Decimal(repr(self.low))
        return int(distance // Decimal(repr(self.step)))

    def flaws(self) -> Iterator[Flaw]:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            bound = f"needs one of {', '.join(KINDS)}"
            yield Flaw((given[1],) if given else (), bound if not given else f"{bound}, not two")
            return
        if self.name is None and self.key is None:
            yield Flaw((self.kind,), "moves several keys: give it a name")
        for kind in given:
            for number, text in enumerate(self.keys):
                key: Path = (kind,) if kind == "key" else (kind, number)
                try:
                    parts = key_parts(text)
                except ValueError as error:
                    yield Flaw(key, str(error), text)
                    continue
                if "*" in parts and kind == "key":
                    yield Flaw(key, "* names several keys: use scale, shift or same", text)
        yield from self._range_flaws()
        if self.kind == "scale":
            for where, factor in self._numbers():
                if factor <= 0:
                    yield Flaw(where, "must be > 0: a scale is a factor", factor)

    def _numbers(self) -> Iterator[tuple[Path, float]]:
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                yield (name,), getattr(self, name)
        for index, value in enumerate(self.values or ()):
            yield ("values", index), value

    def _range_flaws(self) -> Iterator[Flaw]:
        ranged = [key for key in ("low", "high", "step", "n") if getattr(self, key) is not None]
        if self.values is not None:
            if ranged or self.log:
                yield Flaw(((ranged or ["log"])[0],), "goes without values, which are all there is")
            if len(set(self.values)) < len(self.values):
                yield Flaw(("values",), "must name each value once", list(self.values))
            return
        if self.low is None or self.high is None:
            yield Flaw((), "needs low and high, or values", None, (("low",), ("high",)))
            return
        if self.low >= self.high:
            yield Flaw(("high",), f"must be above low = {self.low:.15g}", self.high, (("low",),))
            return
        if self.step is not None and (self.n is not None or self.log):
            yield Flaw(("step",), "goes without n and log", self.step)
        elif self.step is not None and not 1 <= self._n_steps < MAX_CHOICES:
            bound = f"must give 2 to {MAX_CHOICES:,} values from low to high"
            yield Flaw(("step",), bound, self.step)
        if self.log and self.low <= 0:
            yield Flaw(("low",), "must be > 0 with log", self.low)


class _File(Section):
    version: Literal[1]
    name: Annotated[str, Field(max_length=200)] = ""
    search: Search = Search()
    vary: Annotated[tuple[Vary, ...], Field(strict=False, min_length=1, max_length=200)]

    def flaws(self) -> Iterator[Flaw]:
        titles = [vary.title for vary in self.vary]
        for index, title in enumerate(titles):
            if title in titles[:index]:
                key = "name" if self.vary[index].name else "key"
                yield Flaw(("vary", index, key), "must differ from the others'", title)


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may vary, as a file says it."""

    name: str = ""
    search: Search = field(default_factory=Search)
    vary: tuple[Vary, ...]
    file: str = "space"
    text: str = ""
    lines: Mapping[Path, int] = field(default_factory=dict, repr=False, compare=False)

    def meaning(self) -> list[dict[str, Any]]:
        """Return what varies as plain JSON values: layout, comments and the search don't count."""
        return [vary.model_dump(exclude_none=True, exclude_defaults=True) for vary in self.vary]

    def fault(self, key: Path, problem: str, value: Any = None) -> Fault:
        """Return what is wrong at a key of the file, with its line."""
        line = line_of(self.lines, key)
        return Fault(file=self.file, line=line, key=dotted(key), problem=problem, value=value)


def load(path: FilePath | str) -> Space:
    """Return the space of a TOML file; SettingsError with every fault that was found."""
    path = FilePath(path)
    text = read_text(path, SettingsError, what="a space", most_bytes=MAX_BYTES)
    return parse(text, file=str(path))


def parse(text: str, *, file: str = "space") -> Space:
    """Return the space of a TOML text; SettingsError with every fault that was found."""
    document = document_of(text, SettingsError, file=file)
    lines = key_lines(text)
    read, found = validated(_File, document, _problems, _drop)
    if read is not None:
        return Space(
            name=read.name,
            search=read.search,
            vary=read.vary,
            file=file,
            text=text,
            lines=lines,
        )
    faults = [
        Fault(file=file, line=line_of(lines, key), key=dotted(key), problem=problem, value=value)
        for (key, problem), value in found.items()
    ]
    refuse(file, faults)
    raise AssertionError("a space without a fault is returned")


def refuse(file: str, faults: Iterable[Fault]) -> None:
    """Raise SettingsError with the faults, if there are any."""
    listed = sorted(faults, key=lambda fault: fault.line or 0)
    if listed:
        count = "1 fault" if len(listed) == 1 else f"{len(listed)} faults"
        raise SettingsError(f"{file}: {count} in the space", faults=listed)


def _drop(document: dict[str, Any], key: Path) -> bool:
    """Empty the `[[vary]]` at a key so that the rest can be judged, or take the key out."""
    if key[:1] == ("vary",) and len(key) > 1 and isinstance(key[1], int):
        harmless = {"name": f"faulty {key[1]}", "key": "time.tick_s", "values": [1.0]}
        there = document["vary"][key[1]] != harmless
        document["vary"][key[1]] = harmless
        return there
    if key == ("version",):
        known = document.get("version") == 1
        document["version"] = 1
        return not known
    if key and key[0] in document and key != ("vary",):
        del document[str(key[0])]
        return True
    return False


def _problems(error: Any) -> Iterator[tuple[Path, str, Any]]:
    """Yield key, problem and value of what pydantic found."""
    key: Path = tuple(error["loc"])
    kind = error["type"]
    if kind == "too_short" and error["input"]:
        return  # tables that are faulty themselves were not counted
    if kind == "flaws":
        for flaw in error["ctx"]["flaws"]:
            yield (*key, *flaw.key), flaw.problem, flaw.value
    elif kind == "extra_forbidden":
        sections: dict[str, type[Section]] = {"search": Search, "vary": Vary}
        section = sections[str(key[0])] if len(key) > 1 else _File
        yield key, f"unknown key{one_of(str(key[-1]), section.model_fields)}", None
    elif kind == "missing":
        yield key, "is required, and missing", None
    else:
        value = error["input"] if isinstance(error["input"], str | int | float) else None
        yield key, needed(error), value


def key_parts(text: str) -> tuple[str | int, ...]:
    """Return the parts of a dotted key such as `profiles.rain.windows."3 h".length_s` or `a[0].b`.

    ValueError says what is wrong with it.
    """
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if not match or (match[0].startswith(".") is (at == 0) and match[3] is None):
            raise ValueError('must be a key such as profiles.methane.limits.deadband or a."b c"[0]')
        quoted, bare, index = match.groups()
        if index is not None:
            parts.append(int(index))
        else:
            word = bare if quoted is None else tomllib.loads(f'x = "{quoted}"')["x"]
            parts.append(word.strip() if quoted is None else word)
        at = match.end()
    return tuple(parts)


def rounded(value: float, digits: int = 4) -> float:
    """Return a value to so many significant digits: rules are for people."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value

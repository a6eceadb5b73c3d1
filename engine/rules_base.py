"""What every section of a rules file is built from: frozen tables, bounded numbers, ladders."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from kernels.layout import LEVEL_NAMES

LEVELS = LEVEL_NAMES[1:]
MAX_DELAY_S = 49 * 86_400.0
"""Kernels keep ages in 32 bits of milliseconds, which last 49 days."""

Path = tuple[str | int, ...]
ANY = "*"
"""Stands for every key in what a flaw is about."""


class Flaw(NamedTuple):
    """One thing wrong inside a section; paths are relative to it."""

    key: Path
    problem: str
    value: Any = None
    about: tuple[Path, ...] = ()
    """Other keys that the judgement rests on."""


class Section(BaseModel):
    """A table of the rules file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def flaws(self) -> Iterator[Flaw]:
        """Yield what is wrong with the keys taken together; each alone is right already."""
        yield from ()

    @model_validator(mode="after")
    def _sound(self) -> Section:
        found = tuple(self.flaws())
        if found:
            text = "; ".join(f"{'.'.join(map(str, flaw.key))}: {flaw.problem}" for flaw in found)
            raise PydanticCustomError("flaws", "{text}", {"text": text, "flaws": found})
        return self


def change_of(section: type[Section]) -> Any:
    """Return the model of a table that overrides some keys of a section: nothing is required."""
    fields: dict[str, Any] = {}
    for key, field in section.model_fields.items():
        kind: Any = field.annotation
        if field.metadata:
            kind = Annotated[(kind, *field.metadata)]
        fields[key] = (kind | None, None)
    name = f"{section.__name__}Change"
    return create_model(name, __base__=Section, __doc__=section.__doc__, **fields)


def overridden(section: Any, change: Section | None) -> Any:
    """Return the section with the keys that the change gives; ValidationError if they don't fit."""
    if change is None:
        return section
    keys = section.model_dump(exclude_none=True) | change.model_dump(exclude_none=True)
    return type(section).model_validate(keys)


def one_of(word: str, known: Iterable[str], *, all_if_none: bool = True) -> str:
    """Return in brackets the nearest of the known words as a question, or all of them."""
    known = list(known)
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {near[0]}?)"
    return f" (must be one of {', '.join(known)})" if all_if_none and known else ""


_NEEDS = {
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "datetime_type": "must be a date or a time, without quotes",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "finite_number": "must be a finite number",
    "greater_than": "must be > {gt:.15g}",
    "greater_than_equal": "must be ≥ {ge:.15g}",
    "less_than": "must be < {lt:.15g}",
    "less_than_equal": "must be ≤ {le:.15g}",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


def needed(error: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors asks for, in the words of all our messages."""
    text = _NEEDS.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        text += one_of(error["input"], words, all_if_none=False)
    return text


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be printable text, not empty")
    return text


def once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names; ValueError if one of them stands twice."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"must name each only once, {name!r} stands twice")
    return names


Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Amount = Annotated[float, Field(ge=0, le=1e15)]
Weight = Annotated[float, Field(ge=0, le=10)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=MAX_DELAY_S)]
HalfLife = Annotated[float, Field(ge=1, le=366 * 86_400)]
Confirm = Annotated[int, Field(ge=1, le=255)]
Level = Literal["blue", "yellow", "orange", "red"]
Name = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Names = Annotated[
    tuple[Name, ...], Field(strict=False, min_length=1, max_length=10_000), AfterValidator(once)
]


def level_number(name: str) -> int:
    """Return 1 for blue to 4 for red."""
    return LEVEL_NAMES.index(name)


def to_ms(seconds: float) -> int:
    """Return whole milliseconds."""
    return round(seconds * 1000)


# --- ladders: up to four limits, one per level ---------------------------------------------------


class Ladder(Section):
    """Up to four limits; a level without one is not reached this way."""

    blue: Number | None = None
    yellow: Number | None = None
    orange: Number | None = None
    red: Number | None = None

    def named(self) -> list[tuple[str, float]]:
        """Return the limits that are given, blue first."""
        pairs = ((name, getattr(self, name)) for name in LEVELS)
        return [(name, limit) for name, limit in pairs if limit is not None]

    def limits(self, missing: float = math.inf) -> tuple[float, ...]:
        """Return one limit per level, `missing` where none is given."""
        given = (getattr(self, name) for name in LEVELS)
        return tuple(missing if limit is None else limit for limit in given)

    def step(self) -> tuple[float, str, str]:
        """Return the smallest distance of neighbouring limits and the two levels."""
        steps = [(abs(b - a), x, y) for (x, a), (y, b) in pairwise(self.named())]
        return min(steps, default=(math.inf, "", ""))


class Rising(Ladder):
    """Limits that ascend from blue to red."""

    def flaws(self) -> Iterator[Flaw]:
        for (lower, a), (upper, b) in pairwise(self.named()):
            if b <= a:
                yield Flaw((upper,), f"must ascend, above {lower} = {a:.15g}", b, ((lower,),))


class Falling(Ladder):
    """Limits that descend from blue to red."""

    def flaws(self) -> Iterator[Flaw]:
        for (lower, a), (upper, b) in pairwise(self.named()):
            if b >= a:
                yield Flaw((upper,), f"must descend, below {lower} = {a:.15g}", b, ((lower,),))


def deadband_flaws(deadband: float, ladders: dict[str, Ladder]) -> Iterator[Flaw]:
    for name, ladder in ladders.items():
        step, lower, upper = ladder.step()
        if deadband >= step:
            bound = f"must be smaller than the step from {lower} to {upper} of {name}, {step:.15g}"
            yield Flaw(("deadband",), bound, deadband, ((name, lower), (name, upper)))


def at_rest_flaws(deadband: float, ladders: dict[str, Ladder]) -> Iterator[Flaw]:
    """Refuse limits of a statistic that rests at 0 which it could never leave again."""
    for name, ladder in ladders.items():
        for level, limit in ladder.named()[:1]:
            if limit <= 0:
                yield Flaw((name, level), "must be > 0, where the statistic rests", limit)
            elif deadband >= limit:
                bound = f"must be smaller than {name}.{level}, {limit:.15g}, or it never clears"
                yield Flaw(("deadband",), bound, deadband, ((name, level),))


def gives_no_limit(*ladders: Ladder) -> bool:
    return not any(ladder.named() for ladder in ladders)

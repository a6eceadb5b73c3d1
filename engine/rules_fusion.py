"""Time, levels of the score, fusion, coupling, signal rules and contexts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from engine.rules_base import (
    LEVELS,
    Flaw,
    Ladder,
    Level,
    Name,
    Names,
    Path,
    Rising,
    Seconds,
    Section,
    Share,
    Weight,
    at_rest_flaws,
    change_of,
    deadband_flaws,
    level_number,
    one_of,
    overridden,
)
from kernels.layout import KIND_NAMES, LEVEL_NAMES

MAX_TERMS = 64
"""A signal rule keeps its terms as bits of one word."""
HalfLife = Annotated[float, Field(ge=1, le=366 * 86_400)]


_OFFSET = re.compile(r"([+-])(\d\d):([0-5]\d)")


def parse_offset(text: str) -> timezone:
    """Return the time zone of `+08:00` or `Z`; ValueError for anything else or beyond 14 hours."""
    if text == "Z":
        return UTC
    match = _OFFSET.fullmatch(text)
    if not match:
        raise ValueError('must be "Z" or a sign, hours and minutes such as "+08:00"')
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if offset > timedelta(hours=14):
        raise ValueError("must lie within -14:00 and +14:00")
    return timezone(-offset if match[1] == "-" else offset)


def _offset(text: str) -> str:
    parse_offset(text)
    return text


class Time(Section):
    """How event time runs, and which readings are too early or too late."""

    tick_s: float = Field(default=1.0, ge=0.001, le=86_400)
    late_after_s: float = Field(default=60.0, ge=0, le=3.2e9)
    max_ahead_s: float = Field(default=600.0, gt=0, le=3.2e9)
    max_late_s: float = Field(default=604_800.0, ge=0, le=3.2e9)
    utc_offset: Annotated[str, AfterValidator(_offset)] = "+00:00"

    def zone(self) -> timezone:
        """Return the site's time zone."""
        return parse_offset(self.utc_offset)

    def flaws(self) -> Iterator[Flaw]:
        if self.tick_s > self.max_ahead_s:
            bound = f"must be at most max_ahead_s, {self.max_ahead_s:.15g}"
            yield Flaw(("tick_s",), bound, self.tick_s, (("max_ahead_s",),))
        if self.late_after_s > self.max_late_s:
            bound = f"must be at most max_late_s, {self.max_late_s:.15g}"
            yield Flaw(("late_after_s",), bound, self.late_after_s, (("max_late_s",),))


class Scores(Rising):
    """Limits of the fused score."""

    def flaws(self) -> Iterator[Flaw]:
        yield from super().flaws()
        for name, limit in self.named():
            if not 0 < limit <= 100:
                yield Flaw((name,), "must be > 0 and at most 100", limit)


class Levels(Section):
    """When the fused score raises and clears a source's level."""

    raise_at: Scores = Scores(blue=20, yellow=40, orange=60, red=80)
    deadband: float = Field(default=5.0, ge=0, lt=100)
    hold_s: Seconds = 60.0

    def flaws(self) -> Iterator[Flaw]:
        ladders: dict[str, Ladder] = {"raise_at": self.raise_at}
        yield from deadband_flaws(self.deadband, ladders)
        yield from at_rest_flaws(self.deadband, ladders)


class Severity(Section):
    """How much a signal of each level counts."""

    blue: Share = 0.25
    yellow: Share = 0.5
    orange: Share = 0.75
    red: Share = 1.0

    def flaws(self) -> Iterator[Flaw]:
        for lower, upper in pairwise(LEVELS):
            a, b = getattr(self, lower), getattr(self, upper)
            if b < a:
                yield Flaw((upper,), f"must not descend, {lower} = {a:.15g}", b, ((lower,),))


class Detectors(Section):
    """How much each kind of signal counts."""

    high: Weight = 1.0
    low: Weight = 1.0
    rise: Weight = 0.8
    fall: Weight = 0.8
    window: Weight = 0.9
    deviation: Weight = 0.5
    drift: Weight = 0.5
    absence: Weight = 0.4
    flatline: Weight = 0.3
    bad: Weight = 0.3
    spike: Weight = 0.4


class ClassFactor(Section):
    """What the score is multiplied by for a source's static class."""

    red: Weight = 1.2
    yellow: Weight = 1.1
    blue: Weight = 1.0
    none: Weight = 1.0


class CategoryFusion(Section):
    """What is different for the sources of one category."""

    severity: change_of(Severity) | None = None  # type: ignore[valid-type]
    half_life_s: HalfLife | None = None
    weights: dict[Name, Weight] = Field(default={})
    detectors: change_of(Detectors) | None = None  # type: ignore[valid-type]
    class_factor: change_of(ClassFactor) | None = None  # type: ignore[valid-type]
    levels: change_of(Levels) | None = None  # type: ignore[valid-type]


class Fusion(Section):
    """How the signals of a source become its score."""

    severity: Severity = Severity()
    half_life_s: HalfLife = 600.0
    weights: dict[Name, Weight] = Field(default={"default": 1.0})
    detectors: Detectors = Detectors()
    class_factor: ClassFactor = ClassFactor()
    categories: dict[Name, CategoryFusion] = Field(default={})

    def weight(self, quantity: str) -> float:
        """Return the weight of a quantity."""
        return self.weights.get(quantity, self.weights.get("default", 1.0))

    def of(self, category: str) -> Fusion:
        """Return the fusion of one category's sources, with its overrides merged."""
        change = self.categories.get(category)
        if change is None:
            return self
        return Fusion(
            severity=overridden(self.severity, change.severity),
            half_life_s=change.half_life_s or self.half_life_s,
            weights=self.weights | change.weights,
            detectors=overridden(self.detectors, change.detectors),
            class_factor=overridden(self.class_factor, change.class_factor),
        )


class Coupling(Section):
    """How much a neighbour's score counts, by the kind of coupling."""

    influence: dict[Name, Share] = Field(default={"default": 0.3})

    def of(self, kind: str) -> float:
        """Return the influence of one kind of coupling."""
        return self.influence.get(kind, self.influence.get("default", 0.3))


class Term(NamedTuple):
    """A condition of a signal rule; `level` is 1 for blue to 4 for red."""

    quantity: str
    kind: str
    level: int
    near: bool

    def __str__(self) -> str:
        near = "near " if self.near else ""
        return f"{near}{self.quantity}.{self.kind} >= {LEVEL_NAMES[self.level]}"


_TERM = re.compile(r"(near\s+)?(\S.*)\.(\w+)\s*>=\s*(\w+)")


def parse_term(text: str) -> Term:
    """Return the term of `[near ]quantity.kind >= level`; ValueError says what is wrong with it."""
    match = _TERM.fullmatch(text.strip())
    if not match:
        raise ValueError('must read "quantity.kind >= level", with "near " before it or not')
    near, quantity, kind, level = match.groups()
    if kind not in KIND_NAMES:
        raise ValueError(f"has no kind {kind!r}{one_of(kind, KIND_NAMES)}")
    if level not in LEVELS:
        raise ValueError(f"has no level {level!r}{one_of(level, LEVELS)}")
    return Term(quantity, kind, level_number(level), near is not None)


def _term(text: str) -> str:
    return str(parse_term(text))


Terms = Annotated[
    tuple[Annotated[str, Field(max_length=300), AfterValidator(_term)], ...],
    Field(strict=False, max_length=MAX_TERMS),
]


class SignalRule(Section):
    """A floor of the level while a combination of signals holds."""

    name: Name = Field(examples=["rule"])
    categories: Names | None = None
    all: Terms = ()
    any: Terms = ()
    none: Terms = ()
    level: Level = Field(examples=["blue"])

    def terms(self) -> Iterator[tuple[Path, Term]]:
        """Yield each term with its key."""
        for key in ("all", "any", "none"):
            for index, text in enumerate(getattr(self, key)):
                yield (key, index), parse_term(text)

    def flaws(self) -> Iterator[Flaw]:
        if not (self.all or self.any):
            yield Flaw((), "must have a term in all or any", None, (("all",), ("any",)))


def _moment(value: Any) -> Any:
    # a date without a time is its midnight
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time())
    return value


Moment = Annotated[datetime, BeforeValidator(_moment)]


class Context(Section):
    """A time in which the scores of some sources count more, or less."""

    name: Name = Field(examples=["context"])
    start: Moment = Field(alias="from", examples=[date(2000, 1, 1)])
    end: Moment = Field(alias="to", examples=[date(2000, 1, 2)])
    districts: Names | None = None
    categories: Names | None = None
    factor: float = Field(gt=0, le=10, examples=[1.0])

    def span_ms(self, zone: timezone) -> tuple[int, int]:
        """Return start and end; a time without an offset is the site's."""
        return _epoch_ms(self.start, zone), _epoch_ms(self.end, zone)


def _epoch_ms(moment: datetime, zone: timezone) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    # whole milliseconds without a float in between
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

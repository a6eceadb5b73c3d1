"""Files of tests of rules: TOML, strictly validated; engine/RULE_TESTS.md documents every key.

`load(path)` reads one file; it raises `InputError` with every fault found, each with its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from datetime import time as clock_time
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from engine.analysis.rule_tests import series
from engine.errors import Fault, InputError
from engine.rules_base import (
    Amount,
    Falling,
    Flaw,
    Level,
    Name,
    Path,
    Rising,
    Seconds,
    Section,
    Share,
    needed,
    one_of,
)
from engine.rules_check import dotted
from engine.rules_schema import inside, section_of
from engine.toml_lines import key_lines, line_of
from engine.toml_text import document_of, read_text
from kernels.layout import CAUSE_NAMES, KIND_NAMES, LEVEL_NAMES, TRANSITION_NAMES

MAX_BYTES = 8 << 20
COMMANDS = (
    "acknowledge", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service",
)  # fmt: skip
LASTING = ("shelve", "suppress")
ANY_ALERT, NO_ALERT = "any", "none"
KINDS = (*TRANSITION_NAMES, *COMMANDS)
"""Kinds of records that an alert log holds."""


def _length(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('must be a time in quotes, such as "90s", "5m30s" or "1h"')
    return series.length_ms(value)


def _moment(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, clock_time())
    if not isinstance(value, str):
        raise ValueError('must be a time since the start, such as "5m30s", or a date and a time')
    return series.length_ms(value)


def _moments(value: Any) -> Any:
    return tuple(map(_moment, value)) if isinstance(value, list) else (_moment(value),)


def _between(value: Any) -> Any:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError('must be two times, such as ["5m", "10m"]')
    return tuple(map(_moment, value))


def _path(text: str) -> str:
    if not text.isprintable() or not text:
        raise ValueError("must be the path of a file")
    return text


def _list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Length = Annotated[int, BeforeValidator(_length)]
"""Milliseconds."""
Interval = Annotated[int, BeforeValidator(_length), Field(ge=1)]
Moment = Annotated[int | datetime, BeforeValidator(_moment)]
"""Milliseconds since the start of the test, or a date and a time."""
Moments = Annotated[
    tuple[int | datetime, ...], BeforeValidator(_moments), Field(min_length=1, strict=False)
]
Between = Annotated[tuple[int | datetime, int | datetime], BeforeValidator(_between)]
Texts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_list),
    Field(strict=False, min_length=1),
]
Text = Annotated[str, Field(max_length=1000)]
Place = Annotated[str, Field(max_length=4000), AfterValidator(_path)]
AnyLevel = Literal["normal", "blue", "yellow", "orange", "red"]
Kind = Literal[KIND_NAMES]  # type: ignore[valid-type]
Score = Annotated[float, Field(ge=0, le=100)]


class Sensor(Section):
    """A sensor of a source of the test's own."""

    quantity: Name
    unit: Name
    period_s: Annotated[float, Field(ge=0.001, le=4_294_967)]
    high: Rising = Rising()
    low: Falling = Falling()
    deadband: Amount | None = None
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None


class Source(Section):
    """A source of the test's own."""

    category: Name
    name: Text = ""
    static_class: Literal["none", "blue", "yellow", "red"] = "none"
    lon: Annotated[float, Field(ge=-180, le=180)] = 0.0
    lat: Annotated[float, Field(ge=-90, le=90)] = 0.0
    grid: Text = ""
    district: Text = ""
    department: Text = ""
    owner: Text = ""
    contact: Text = ""
    sensors: Annotated[dict[Name, Sensor], Field(min_length=1)]


class Couple(Section):
    """One source that is coupled into another."""

    from_: Name = Field(alias="from")
    to: Name
    kind: Name
    weight: Share


class Pair(NamedTuple):
    """A reading with its time."""

    at: int | datetime
    value: float
    quality: int


def _values(value: Any) -> Any:
    if isinstance(value, str):
        return series.parse(value)
    if not isinstance(value, list) or not value:
        raise ValueError('must be a series such as "5 5+0.5x10", or pairs such as [["1m", 5]]')
    return tuple(_pair(number, pair) for number, pair in enumerate(value, 1))


def _pair(number: int, pair: Any) -> Pair:
    if not isinstance(pair, list) or len(pair) not in (2, 3):
        raise ValueError(f'pair {number}: must be a time and a value, such as ["1m", 5]')
    at, value, *rest = pair
    try:
        moment = _moment(at)
        if isinstance(value, str):
            reading = series.single(value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError('the value must be a number, "nan" or "bad:7"')
        else:
            reading = (float(value), 0)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"pair {number}: {error}") from error
    if not rest:
        return Pair(moment, *reading)
    quality = rest[0]
    if isinstance(quality, bool) or not isinstance(quality, int) or not 0 <= quality <= 255:
        raise ValueError(f"pair {number}: the quality must be a whole number from 0 to 255")
    return Pair(moment, reading[0], quality)


class Readings(Section):
    """The readings of a sensor."""

    values: Annotated[Any, BeforeValidator(_values)]
    every: Interval | None = None
    start: Moment = Field(default=0, alias="from")
    delay: Length = 0

    def flaws(self) -> Iterator[Flaw]:
        if isinstance(self.values[0], Pair):
            for key, given in (("every", "every"), ("from", "start")):
                if given in self.model_fields_set:
                    yield Flaw((key,), "is for a series: pairs have times of their own")


def _readings(value: Any) -> Any:
    return {"values": value} if isinstance(value, str | list) else value


class Command(Section):
    """What an operator does."""

    at: Moment
    do: Literal[COMMANDS]  # type: ignore[valid-type]
    source: Name | None = None
    district: Name | None = None
    category: Name | None = None
    lasting: Interval | None = Field(default=None, alias="for")

    def flaws(self) -> Iterator[Flaw]:
        scopes = [key for key in ("source", "district", "category") if getattr(self, key)]
        wide = self.do in ("suppress", "unsuppress")
        if len(scopes) > 1 or (scopes and scopes[0] != "source" and not wide):
            allowed = "one of source, district and category" if wide else "a source"
            yield Flaw((scopes[-1],), f"{self.do} is about {allowed}", getattr(self, scopes[-1]))
        if (self.lasting is None) == (self.do in LASTING):
            needs = "needs for, how long it lasts" if self.lasting is None else "takes no for"
            yield Flaw(("do",), f"{self.do} {needs}", self.do)


class Expect(Section):
    """What must be so at a time."""

    at: Moments
    source: Name | None = None
    level: AnyLevel | None = None
    at_least: Level | None = None
    at_most: AnyLevel | None = None
    standing: AnyLevel | None = None
    score: Score | None = None
    score_at_least: Score | None = None
    score_at_most: Score | None = None
    sensor: Name | None = None
    signals: dict[Kind, AnyLevel] | None = None
    holds: Texts = ()
    holds_not: Texts = ()

    def flaws(self) -> Iterator[Flaw]:
        about = self.model_fields_set - {"at", "source", "sensor"}
        if not about:
            yield Flaw((), f"must say what to expect: {', '.join(_CLAIMS)}, or alert")
        if self.level is not None and (self.at_least or self.at_most):
            yield Flaw(("level",), "goes without at_least and at_most", self.level)
        if self.score is not None and about & {"score_at_least", "score_at_most"}:
            yield Flaw(("score",), "goes without score_at_least and score_at_most", self.score)
        if (self.signals is None) != (self.sensor is None):
            yield Flaw(("sensor",), "sensor and signals go together", self.sensor)
        yield from _bounds(self)


class ExpectAlert(Section):
    """A record of the alert log that must come, or must not."""

    alert: Literal[(*KINDS, ANY_ALERT, NO_ALERT)]  # type: ignore[valid-type]
    at: Moment | None = None
    between: Between | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    source: Name | None = None
    level: AnyLevel | None = None
    level_from: AnyLevel | None = None
    at_least: Level | None = None
    at_most: AnyLevel | None = None
    score_at_least: Score | None = None
    score_at_most: Score | None = None
    cause: Literal[(*CAUSE_NAMES, "command")] | None = None  # type: ignore[valid-type]
    rule: Name | None = None
    detector: Kind | None = None
    sensors: Texts = ()
    coupled_from: Name | None = None
    routes: Texts = ()
    late: bool | None = None
    text: Texts = ()

    def flaws(self) -> Iterator[Flaw]:
        if self.at is not None and self.between is not None:
            yield Flaw(("at",), "goes without between")
        if self.alert == NO_ALERT and self.count is not None:
            yield Flaw(("count",), 'goes without alert = "none"', self.count)
        yield from _bounds(self)


_CLAIMS = [key for key in Expect.model_fields if key not in ("at", "source", "sensor")]


def _bounds(expect: Expect | ExpectAlert) -> Iterator[Flaw]:
    low, high = expect.score_at_least, expect.score_at_most
    if low is not None and high is not None and low > high:
        yield Flaw(("score_at_least",), f"must be at most score_at_most, {high:.15g}", low)
    least, most = expect.at_least, expect.at_most
    if least and most and LEVEL_NAMES.index(least) > LEVEL_NAMES.index(most):
        yield Flaw(("at_least",), f"must not be above at_most, {most}", least)


class Case(Section):
    """One test but for its commands and expectations, which are sections of their own."""

    name: Name
    about: Text = ""
    start: Moment | None = None
    until: Moment | None = None
    every: Interval | None = None
    sources: dict[Name, Source] = Field(default={})
    couplings: Annotated[tuple[Couple, ...], Field(strict=False)] = ()
    readings: dict[Name, Annotated[Readings, BeforeValidator(_readings)]] = Field(default={})


class Suite(Section):
    """What the tests of a file share."""

    version: Literal[1]
    rules: Place | None = None
    catalog: Place | None = None
    quantities: Place | None = None
    start: Moment | None = None
    every: Interval | None = None
    sources: dict[Name, Source] = Field(default={})
    couplings: Annotated[tuple[Couple, ...], Field(strict=False)] = ()

    def flaws(self) -> Iterator[Flaw]:
        if isinstance(self.start, int):
            yield Flaw(("start",), "must be a date and a time, such as 2025-07-16T08:00:00")


class Written(NamedTuple):
    """A test as its file has it."""

    key: Path
    case: Case
    commands: tuple[Command, ...]
    expects: tuple[Expect | ExpectAlert, ...]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A file of tests."""

    path: FilePath
    suite: Suite
    tests: tuple[Written, ...]
    lines: Mapping[Path, int]

    def fault(self, key: Path, problem: str, value: Any = None) -> Fault:
        """Return a fault at a key of the file."""
        line = line_of(self.lines, key, 1)
        return Fault(file=str(self.path), line=line, key=dotted(key), problem=problem, value=value)

    def beside(self, name: str) -> FilePath:
        """Return a path that the file names: relative ones begin in its folder."""
        return self.path.parent / FilePath(name).expanduser()


def refuse(path: FilePath, faults: list[Fault]) -> None:
    """Raise InputError if there are faults."""
    if faults:
        faults.sort(key=lambda fault: fault.line or 0)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError(f"{path}: {count} in the tests", faults=faults)


def load(path: FilePath) -> Loaded:
    """Return the tests of a file; InputError with every fault that was found."""
    text = read_text(path, InputError, what="tests", most_bytes=MAX_BYTES)
    document = document_of(text, InputError, file=str(path))
    reader = _Reader(path, key_lines(text))
    tables = document.pop("test", [])
    suite = reader.read(Suite, document, ())
    written = []
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        reader.note(("test",), "must be tables, [[test]]")
    elif not tables:
        reader.note((), "has no test: write [[test]]")
    else:
        written = [reader.test(table, ("test", n)) for n, table in enumerate(tables)]
    names: dict[str, int] = {}
    for number, test in enumerate(written):
        if test is not None and names.setdefault(test.case.name, number) != number:
            reader.note((*test.key, "name"), "must differ from other tests'", test.case.name)
    refuse(path, reader.faults)
    assert suite is not None
    tests = tuple(test for test in written if test is not None)
    return Loaded(path=path, suite=suite, tests=tests, lines=reader.lines)


class _Reader:
    """Validates table by table, so that one run finds the faults of all of them."""

    def __init__(self, path: FilePath, lines: Mapping[Path, int]) -> None:
        self.path, self.lines = path, lines
        self.faults: list[Fault] = []

    def note(self, key: Path, problem: str, value: Any = None) -> None:
        line = line_of(self.lines, key, 1)
        self.faults.append(
            Fault(file=str(self.path), line=line, key=dotted(key), problem=problem, value=value)
        )

    def test(self, table: dict[str, Any], key: Path) -> Written | None:
        """Return one test; None, with faults noted, if anything of it is wrong."""
        before = len(self.faults)
        table = dict(table)
        commands = [
            self.read(Command, each, where)
            for each, where in self._tables(table.pop("commands", []), (*key, "commands"))
        ]
        expects = [
            self.read(ExpectAlert if "alert" in each else Expect, each, where)
            for each, where in self._tables(table.pop("expect", []), (*key, "expect"))
        ]
        case = self.read(Case, table, key)
        if not expects and len(self.faults) == before:
            self.note(key, "expects nothing: write [[test.expect]]")
        if case is None or len(self.faults) > before:
            return None
        kept = tuple(command for command in commands if command is not None)
        return Written(key, case, kept, tuple(each for each in expects if each is not None))

    def _tables(self, given: Any, key: Path) -> Iterator[tuple[dict[str, Any], Path]]:
        if not isinstance(given, list):
            self.note(key, f"must be tables, [[test.{key[-1]}]]")
            return
        for number, table in enumerate(given):
            if isinstance(table, dict):
                yield table, (*key, number)
            else:
                self.note((*key, number), "must be a table", table)

    def read(self, section: type[Section], table: Any, key: Path) -> Any:
        """Return a table as a section; None, with faults noted, if anything of it is wrong."""
        try:
            return section.model_validate(table)
        except ValidationError as error:
            for each in error.errors(include_url=False):
                self._take(section, each, key)
        return None

    def _take(self, section: type[Section], error: Any, key: Path) -> None:
        loc = tuple(part for part in error["loc"] if part not in ("[key]", "int", "datetime"))
        where = (*key, *loc)
        if error["type"] == "flaws":
            for flaw in error["ctx"]["flaws"]:
                self.note((*where, *flaw.key), flaw.problem, flaw.value)
        elif error["type"] == "extra_forbidden":
            self.note(where, f"unknown key{_known_keys(section, loc)}")
        elif error["type"] == "missing":
            self.note(where, "is required, and missing")
        else:
            self.note(where, needed(error), error["input"])


def _known_keys(section: type[Section], loc: Path) -> str:
    """Return which key was meant by an unknown one, or which there are."""
    annotation: Any = section
    for part in loc[:-1]:
        annotation = inside(annotation, part)
    inner = section_of(annotation)
    if inner is None:
        return ""
    known = [field.alias or name for name, field in inner.model_fields.items()]
    if inner is Case:
        known += ["commands", "expect"]
    if inner is Suite:
        known.append("test")
    near = one_of(str(loc[-1]), known, all_if_none=False)
    other = ExpectAlert if inner is Expect else None
    if not near and other is not None and loc[-1] in other.model_fields:
        return ' here: it needs alert = "raise", "any" or the like beside it'
    return near or f", known are {', '.join(known)}"

"""Adapters: a TOML file that says how readings lie in somebody's files, so that no code has to.

`engine/ADAPTERS.md` documents every key. Without an adapter the built-in one applies: long tables
with the columns `sensor`, `event_ms` (or `ts`, or `time`), `value` and, if there is one, `quality`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from datetime import date, datetime
from datetime import time as clock_time
from pathlib import Path as FilePath
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field

from engine import zones
from engine.errors import AdapterError, Fault
from engine.rules_base import Flaw, Path, Section, one_of
from engine.rules_check import dotted
from engine.toml_lines import key_lines, line_of
from engine.toml_text import document_of, read_text, validated

MAX_BYTES = 8 << 20
TIME_COLUMNS = ("event_ms", "ts", "time")
"""Where the time is sought when the adapter does not say."""
UNITS_MS = {"s": 1000, "ms": 1, "us": -1000, "ns": -1_000_000}
"""Milliseconds of one unit; negative: units of one millisecond."""

Name = Annotated[str, Field(min_length=1, max_length=1000)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]


class SensorKeys(Section):
    """Where the id of a reading's sensor comes from."""

    column: Name = "sensor"
    template: Name | None = None
    columns: dict[Name, Name] | None = None
    except_: Annotated[tuple[Name, ...] | None, Field(strict=False, alias="except")] = None
    missing: Literal["skip", "bad"] = "skip"

    def flaws(self) -> Iterator[Flaw]:
        if self.columns is not None and self.except_ is not None:
            yield Flaw(("except",), "goes without columns, which names all there are")
        if self.columns is not None and not self.columns:
            yield Flaw(("columns",), "must name at least one column")
        if self.template is not None:
            yield from _template_flaws(self.template)


def _template_flaws(template: str) -> Iterator[Flaw]:
    known = ("file", "folder", "sensor", "column")
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        yield Flaw(("template",), f"not a template: {error}", template)
        return
    for _, field, spec, conversion in parts:
        if field is None:
            continue
        if field not in known or spec or conversion:
            problem = f"may use {', '.join(f'{{{name}}}' for name in known)}"
            yield Flaw(("template",), problem, template)
            return


class TimeKeys(Section):
    """Where event time comes from: a column, seconds since a start, or a clock that counts rows."""

    column: Name | None = None
    format: Name = "auto"
    zone: Name = "UTC"
    start: Any = None
    step_s: Annotated[float, Field(gt=0, le=366 * 86_400)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        if self.format not in ("auto", "iso", *UNITS_MS) and "%" not in self.format:
            known = one_of(self.format, ("auto", "iso", *UNITS_MS))
            yield Flaw(("format",), f"unknown{known}, or a pattern such as %d/%m/%Y %H:%M")
        if "%" in self.format and not re.search("%[YyGcx]", self.format):
            yield Flaw(("format",), "has no year: %Y, or %y for its last two digits", self.format)
        try:
            zones.zone(self.zone)
        except ValueError as error:
            yield Flaw(("zone",), str(error), self.zone)
            return
        if self.start is not None:
            try:
                self.start_ms()
            except (ValueError, OverflowError) as error:
                yield Flaw(("start",), str(error), str(self.start))
            if self.format not in ("auto", *UNITS_MS):
                problem = "with a start the column counts s, ms, us or ns since it"
                yield Flaw(("format",), problem, self.format)
        if self.step_s is not None and self.column is not None:
            yield Flaw(("step_s",), "goes without column: a row clock counts rows", self.step_s)
        elif self.step_s is not None and self.start is None:
            yield Flaw(("step_s",), "a row clock needs a start", self.step_s)
        if self.start is not None and self.step_s is None and self.column is None:
            problem = "needs step_s, for a row clock, or column, of seconds since it"
            yield Flaw(("start",), problem, str(self.start))

    def start_ms(self) -> int | None:
        """Return the start in epoch milliseconds, in the zone if it names none of its own."""
        if self.start is None:
            return None
        of = zones.zone(self.zone)
        if isinstance(self.start, datetime):
            return zones.moment_ms(self.start, of)
        if isinstance(self.start, date):
            return zones.moment_ms(datetime.combine(self.start, clock_time()), of)
        if isinstance(self.start, str):
            return zones.instant_ms(self.start, of)
        raise ValueError("must be a time such as 2024-05-01T00:00:00+08:00")


class ValueKeys(Section):
    """Where the value of a long table's reading comes from."""

    column: Name = "value"


class QualityKeys(Section):
    """Where the quality of a long table's reading comes from, and what counts as good."""

    column: Name = "quality"
    good: Annotated[tuple[int | str, ...], Field(strict=False, min_length=1)] = (0,)


class Conversion(Section):
    """What a column's values go through before the catalog's unit applies: × factor + offset."""

    factor: Number = 1.0
    offset: Number = 0.0

    def flaws(self) -> Iterator[Flaw]:
        if self.factor == 0:
            yield Flaw(("factor",), "must not be 0", self.factor)


class CsvKeys(Section):
    """How a CSV file is written."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal: Literal[".", ","] = "."
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    null_values: Annotated[tuple[str, ...], Field(strict=False)] = (
        "", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-",
    )  # fmt: skip
    encoding: Name = "utf-8"
    skip_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    names: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        if self.decimal == self.delimiter:
            problem = f"must differ from the delimiter {self.delimiter!r}"
            yield Flaw(("decimal",), problem, self.decimal)
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            yield Flaw(("encoding",), "unknown encoding", self.encoding)


class Adapter(Section):
    """How readings lie in a set of files."""

    version: Literal[1]
    name: Annotated[str, Field(max_length=200)] = ""
    shape: Literal["long", "wide"]
    sensor: SensorKeys = SensorKeys()
    time: TimeKeys = TimeKeys()
    value: ValueKeys = ValueKeys()
    quality: QualityKeys | None = None
    units: dict[Name, Conversion] = Field(default_factory=dict)
    csv: CsvKeys = CsvKeys()

    def flaws(self) -> Iterator[Flaw]:
        given = self.sensor.model_fields_set
        if self.shape == "long":
            for field, key in (("columns", "columns"), ("except_", "except"), ("missing",) * 2):
                if field in given:
                    yield Flaw(("sensor", key), "is for wide tables")
            for column in self.units:
                if column != self.value.column:
                    problem = f"a long table has its values in {self.value.column!r}"
                    yield Flaw(("units", column), problem)
        else:
            if "column" in given:
                yield Flaw(("sensor", "column"), "is for long tables")
            for key in ("value", "quality"):
                if key in self.model_fields_set:
                    yield Flaw((key,), "is for long tables")
        fields = template_fields(self.template)
        foreign = "column" if self.shape == "long" else "sensor"
        if foreign in fields:
            yield Flaw(("sensor", "template"), f"{{{foreign}}} is for the other shape")
        if self.shape == "wide" and "column" not in fields:
            yield Flaw(("sensor", "template"), "a wide table needs {column} in it", self.template)
        if self.shape == "long" and "sensor" not in fields and "column" in given:
            yield Flaw(("sensor", "template"), "must use {sensor}, the column", self.template)

    @property
    def template(self) -> str:
        """The template of an id."""
        return self.sensor.template or ("{sensor}" if self.shape == "long" else "{column}")


def template_fields(template: str) -> set[str]:
    """Return the names that a template uses."""
    return {field for _, field, _, _ in Formatter().parse(template) if field is not None}


BUILT_IN = Adapter(version=1, shape="long")


def load(path: FilePath | None) -> Adapter:
    """Return the adapter of a TOML file, the built-in one for None.

    Raises AdapterError with every fault that was found.
    """
    if path is None:
        return BUILT_IN
    text = read_text(path, AdapterError, what="an adapter", most_bytes=MAX_BYTES)
    return parse(text, file=str(path))


def parse(text: str, *, file: str = "adapter") -> Adapter:
    """Return the adapter of a TOML text; AdapterError with every fault that was found."""
    document = document_of(text, AdapterError, file=file)
    adapter, found = validated(Adapter, document, _problems, _drop)
    if adapter is not None:
        return adapter
    lines = key_lines(text)
    faults = [
        Fault(file=file, line=line_of(lines, key), key=dotted(key), problem=problem, value=value)
        for (key, problem), value in found.items()
    ]
    faults.sort(key=lambda fault: fault.line or 0)
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise AdapterError(f"{file}: {count} in the adapter", faults=faults)


def _drop(document: dict[str, Any], key: Path) -> bool:
    """Take a key out of a document, or the nearest table around it; tell whether it was there."""
    tables: list[Any] = [document]
    for part in key:
        inside = tables[-1].get(part) if isinstance(tables[-1], dict) else None
        if inside is None:
            break
        tables.append(inside)
    depth = len(tables) - 2
    if depth < 0:
        return False
    del tables[depth][key[depth]]
    return True


def _problems(error: Any) -> Iterator[tuple[Path, str, Any]]:
    """Yield key, problem and value of what pydantic found."""
    key: Path = tuple(part for part in error["loc"] if part not in ("str", "int", "datetime"))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "flaws":
        for flaw in context["flaws"]:
            yield (*key, *flaw.key), flaw.problem, flaw.value
    elif kind == "extra_forbidden":
        yield key, f"unknown key{one_of(str(key[-1]), _keys_at(key[:-1]))}", None
    elif kind == "missing":
        yield key, "is required", None
    else:
        message = error["msg"]
        yield key, message[:1].lower() + message[1:], error["input"]


def _keys_at(key: Path) -> list[str]:
    """Return the keys that the table at a path may have; none where any will do."""
    if key == ("units",):
        return []
    section: type[Section] = Adapter
    if key:
        section = Conversion if key[0] == "units" else _sections()[str(key[0])]
    return [field.alias or name for name, field in section.model_fields.items()]


def _sections() -> dict[str, type[Section]]:
    return {
        "sensor": SensorKeys,
        "time": TimeKeys,
        "value": ValueKeys,
        "quality": QualityKeys,
        "csv": CsvKeys,
    }


def documented_keys() -> list[str]:
    """Return every key that an adapter may have, dotted, for the test of the documentation."""
    keys: list[str] = []
    for name in Adapter.model_fields:
        table = f"{name}.COLUMN" if name == "units" else name
        inner = _keys_at((name, "a column")) if name in (*_sections(), "units") else []
        keys.extend(f"{table}.{key}" for key in inner) if inner else keys.append(name)
    return keys

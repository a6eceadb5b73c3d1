"""Check the tables of a catalog folder and bring them to clean columns, in the order of the files.

Every check looks at all rows and notes all faults; what one fault makes meaningless is left out of
the checks that follow, so that it is not reported twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.catalog import MAX_NAME, STATIC_CLASSES
from engine.catalog_input import Column, Table
from engine.errors import Fault
from engine.fault_log import FaultLog
from engine.resolver import Resolver, enter_ids
from engine.units import Quantity, UnitError, did_you_mean, normalise_unit, to_canonical

LEVELS = ("blue", "yellow", "orange", "red")
HIGH = tuple(f"high_{level}" for level in LEVELS)
LOW = tuple(f"low_{level}" for level in LEVELS)
DELAYS = ("on_delay_s", "off_delay_s")
MAX_PERIOD_S = 4_294_967.0  # what uint32 milliseconds hold: 49 days

SOURCE_COLUMNS = [
    Column(name="source_id"),
    Column(name="category"),
    Column(name="name"),
    Column(name="static_class"),
    Column(name="lon", is_number=True),
    Column(name="lat", is_number=True),
    *(
        Column(name=name, required=False)
        for name in ("grid", "district", "department", "owner", "contact")
    ),
]
SENSOR_COLUMNS = [
    Column(name="sensor_id"),
    Column(name="source_id"),
    Column(name="quantity"),
    Column(name="unit"),
    Column(name="period_s", is_number=True),
    *(
        Column(name=name, is_number=True, required=False)
        for name in (*HIGH, *LOW, "deadband", *DELAYS)
    ),
]
COUPLING_COLUMNS = [
    Column(name="from_source"),
    Column(name="to_source"),
    Column(name="kind"),
    Column(name="weight", is_number=True),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Codes into sorted words; −1 where there is none."""

    codes: np.ndarray
    words: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Clean sources, in the order of the file."""

    texts: dict[str, Any]
    lon: np.ndarray
    lat: np.ndarray
    category: Vocabulary
    district: Vocabulary
    department: Vocabulary
    static_class: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensors:
    """Clean sensors, in the order of the file; `source` is a row of the sources."""

    sensor_id: Any
    source: np.ndarray
    quantity: Vocabulary
    unit: Vocabulary
    scale: np.ndarray
    offset: np.ndarray
    period_ms: np.ndarray
    high: np.ndarray
    low: np.ndarray
    deadband: np.ndarray
    on_delay_s: np.ndarray
    off_delay_s: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Couplings:
    """Clean couplings; `origin` and `target` are rows of the sources."""

    origin: np.ndarray
    target: np.ndarray
    kind: Vocabulary
    weight: np.ndarray


class TableChecks:
    """The checks that tables share; each notes its faults in the log."""

    def __init__(self, table: Table, log: FaultLog) -> None:
        self.table = table
        self.log = log

    def note(
        self,
        kind: str,
        key: str,
        wrong: np.ndarray,
        values: Any,
        problem: str | Callable[[int, Any], str],
    ) -> None:
        """Note a fault in each row where `wrong`, except where the cell is a fault already."""
        if key in self.table.unread:
            wrong = wrong & ~self.table.unread[key]
        self.log.add_rows(
            kind=kind,
            file=self.table.file,
            key=key,
            rows=np.flatnonzero(wrong),
            numbers=self.table.row_numbers,
            values=values,
            problem=problem,
        )

    def text(self, key: str) -> Any:
        """Return a column with empty texts for nulls; empty texts all over when it is missing."""
        texts = self.table.texts.get(key)
        if texts is None:
            return pa.repeat(pa.scalar("", pa.large_string()), self.table.n_rows)
        return texts.fill_null("")

    def filled(self, key: str) -> tuple[Any, np.ndarray]:
        """Return a column that must not be empty, and where it isn't."""
        texts = self.text(key)
        has_text = np.asarray(pc.binary_length(texts)) > 0
        if key in self.table.texts:
            self.note(f"empty {key}", key, ~has_text, texts, "must not be empty")
        return texts, has_text

    def ids(self, key: str) -> Any:
        """Return a column of ids, each present once."""
        texts, has_text = self.filled(key)
        self.short(key, texts)
        if key in self.table.texts:
            _, _, _, first = enter_ids(texts)
            repeated = (first != np.arange(len(first))) & has_text
            numbers = self.table.row_numbers
            self.note(
                f"duplicate {key}",
                key,
                repeated,
                texts,
                lambda row, _: f"duplicate of row {numbers[first[row]]}",
            )
        return texts

    def short(self, key: str, texts: Any) -> Any:
        """Return a column whose texts become parts of keys, and so may not be long."""
        n_characters = np.asarray(pc.utf8_length(texts))
        self.note(
            f"long {key}",
            key,
            n_characters > MAX_NAME,
            texts,
            lambda row, _: f"must be at most {MAX_NAME} characters, has {n_characters[row]:,}",
        )
        return texts

    def references(self, key: str, known: Resolver | None, where: str) -> np.ndarray:
        """Return the row of `where` that each id names, −1 where it names none."""
        texts, has_text = self.filled(key)
        if known is None or key not in self.table.texts:
            return np.full(self.table.n_rows, -1, np.int32)
        index = known.resolve(texts)
        self.note(f"unknown {key}", key, has_text & (index < 0), texts, f"is not in {where}")
        return index

    def number(self, key: str) -> np.ndarray:
        """Return a column of numbers, NaN all over when it is missing."""
        numbers = self.table.numbers.get(key)
        return np.full(self.table.n_rows, np.nan) if numbers is None else numbers

    def bounded(self, key: str, low: float, high: float) -> np.ndarray:
        """Return a column whose numbers lie in low … high."""
        numbers = self.number(key)
        if key in self.table.numbers:
            wrong = ~((numbers >= low) & (numbers <= high))  # NaN too
            problem = f"must be a number from {low:g} to {high:g}"
            self.note(f"{key} out of range", key, wrong, numbers, problem)
        return numbers

    def vocabulary(self, texts: Any, key: str, limit: int) -> Vocabulary:
        """Return codes of the sorted distinct texts; the empty text is −1."""
        encoded = texts.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        kept = sorted(word for word in words if word)
        if len(kept) > limit:
            problem = f"has {len(kept):,} different values, at most {limit:,} are possible"
            self.log.add(Fault(kind="many values", file=self.table.file, key=key, problem=problem))
        code = {word: position for position, word in enumerate(kept)}
        recode = np.array([code.get(word, -1) for word in words], np.int32)
        return Vocabulary(codes=recode[np.asarray(encoded.indices)], words=kept)


def check_sources(table: Table, log: FaultLog) -> Sources:
    """Check and clean the sources."""
    checks = TableChecks(table, log)
    source_id = checks.ids("source_id")
    name = checks.text("name")
    category, _ = checks.filled("category")
    return Sources(
        texts={
            "source_id": source_id,
            # a source without a name is called by its id
            "name": pc.if_else(pc.equal(name, ""), source_id, name),
            "grid": checks.text("grid"),
            "owner": checks.text("owner"),
            "contact": checks.text("contact"),
        },
        lon=checks.bounded("lon", -180.0, 180.0),
        lat=checks.bounded("lat", -90.0, 90.0),
        category=_named(checks, "category", category),
        district=_named(checks, "district", checks.text("district")),
        department=_named(checks, "department", checks.text("department")),
        static_class=_static_class(checks),
    )


def _named(checks: TableChecks, key: str, texts: Any) -> Vocabulary:
    return checks.vocabulary(checks.short(key, texts), key, 32_767)


def _static_class(checks: TableChecks) -> np.ndarray:
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(checks.text("static_class")))
    found = checks.vocabulary(texts, "static_class", 2**31)
    code_of = {word: code for code, word in enumerate(STATIC_CLASSES)}
    # the last is that of the empty text
    codes = np.array([*(code_of.get(word, -1) for word in found.words), 0], np.int16)[found.codes]
    checks.note(
        "static_class",
        "static_class",
        codes < 0,
        checks.text("static_class"),
        f"must be one of {', '.join(STATIC_CLASSES)}",
    )
    return codes.astype(np.uint8)


def check_sensors(
    table: Table, quantities: Mapping[str, Quantity], known: Resolver | None, log: FaultLog
) -> Sensors:
    """Check and clean the sensors; `known` finds sources, None when there are none to find."""
    checks = TableChecks(table, log)
    sensor_id = checks.ids("sensor_id")
    source = checks.references("source_id", known, "sources")
    quantity, unit, scale, offset = _measured(checks, quantities)
    high, low, deadband = _overrides(checks)
    on_delay_s, off_delay_s = (_own_delay(checks, key) for key in DELAYS)
    return Sensors(
        sensor_id=sensor_id,
        source=source,
        quantity=quantity,
        unit=unit,
        scale=scale,
        offset=offset,
        period_ms=_period_ms(checks),
        high=high,
        low=low,
        deadband=deadband,
        on_delay_s=on_delay_s,
        off_delay_s=off_delay_s,
    )


def _period_ms(checks: TableChecks) -> np.ndarray:
    period_s = checks.number("period_s")
    if "period_s" in checks.table.numbers:
        wrong = ~((period_s >= 0.001) & (period_s <= MAX_PERIOD_S))
        problem = f"must be above 0, from 0.001 to {MAX_PERIOD_S:,.0f} s"
        checks.note("period_s out of range", "period_s", wrong, period_s, problem)
        period_s = np.where(wrong, 1.0, period_s)
    return np.rint(np.nan_to_num(period_s, nan=1.0) * 1000).astype(np.uint32)


def _measured(
    checks: TableChecks, quantities: Mapping[str, Quantity]
) -> tuple[Vocabulary, Vocabulary, np.ndarray, np.ndarray]:
    texts, _ = checks.filled("quantity")
    quantity = checks.vocabulary(texts, "quantity", 32_767)
    names = list(quantities)
    unknown = np.array([word not in quantities for word in quantity.words] + [False], bool)
    checks.note(
        "unknown quantity",
        "quantity",
        unknown[quantity.codes],
        texts,
        lambda _, value: f"unknown quantity{did_you_mean(names, value)}",
    )
    unit_texts = checks.text("unit")
    given = checks.vocabulary(unit_texts, "unit", 2**31)
    # units are few: bring each spelling to the one that Tocsin uses, then code anew
    spelled = [*(normalise_unit(word) for word in given.words), normalise_unit("")]
    units = sorted(set(spelled))
    position = {word: code for code, word in enumerate(units)}
    unit_codes = np.array([position[word] for word in spelled], np.int32)[given.codes]
    unit = Vocabulary(codes=unit_codes, words=units)
    scale, offset = np.ones(checks.table.n_rows), np.zeros(checks.table.n_rows)
    if "quantity" not in checks.table.texts or "unit" not in checks.table.texts:
        return quantity, unit, scale, offset
    # one conversion for each pair that occurs
    pair = (quantity.codes.astype(np.int64) + 1) * len(units) + unit_codes
    occurring, pair_of_row = np.unique(pair, return_inverse=True)
    pair_scale, pair_offset = np.ones(len(occurring)), np.zeros(len(occurring))
    problems: dict[int, str] = {}
    for at, number in enumerate(occurring.tolist()):
        code, unit_code = divmod(number, len(units))
        known = quantities.get(quantity.words[code - 1]) if code else None
        if known is None:
            continue
        try:
            pair_scale[at], pair_offset[at] = to_canonical(known, units[unit_code])
        except UnitError as error:
            problems[at] = error.problem
    impossible = np.isin(pair_of_row, list(problems))
    checks.note(
        "impossible unit",
        "unit",
        impossible,
        unit_texts,
        lambda row, _: problems[int(pair_of_row[row])],
    )
    return quantity, unit, pair_scale[pair_of_row], pair_offset[pair_of_row]


def _overrides(checks: TableChecks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    for key in (*HIGH, *LOW, "deadband"):
        numbers = checks.number(key)
        checks.note(f"{key} infinite", key, np.isinf(numbers), numbers, "must be finite")
    deadband = checks.number("deadband")
    checks.note("negative deadband", "deadband", deadband < 0, deadband, "must not be negative")
    high = np.stack([checks.number(key) for key in HIGH], axis=1)
    low = np.stack([checks.number(key) for key in LOW], axis=1)
    _note_order(checks, HIGH, high, ascending=True)
    _note_order(checks, LOW, low, ascending=False)
    if np.isfinite(high).any() and np.isfinite(low).any():
        lowest_high = np.fmin.reduce(high, axis=1)
        highest_low = np.fmax.reduce(low, axis=1)
        checks.note(
            "limits cross",
            "low_*",
            highest_low >= lowest_high,
            highest_low,
            lambda row, _: f"low limits must lie below the high limit {lowest_high[row]:g}",
        )
    return high, low, deadband


def _own_delay(checks: TableChecks, key: str) -> np.ndarray:
    from engine.rules_base import MAX_DELAY_S

    delay_s = checks.number(key)
    wrong = (delay_s < 0) | (delay_s > MAX_DELAY_S)
    problem = f"must be at least 0 and at most {MAX_DELAY_S:.15g} s"
    checks.note(f"{key} out of range", key, wrong, delay_s, problem)
    return delay_s


def _note_order(
    checks: TableChecks, keys: tuple[str, ...], limits: np.ndarray, *, ascending: bool
) -> None:
    """Note every limit that is not beyond the one before it that is given."""
    sign = 1.0 if ascending else -1.0
    before = np.full(len(limits), np.nan)
    word = "above" if ascending else "below"
    for position, key in enumerate(keys):
        limit = limits[:, position]
        previous = before
        checks.note(
            "limits out of order",
            key,
            sign * limit <= sign * previous,
            limit,
            lambda row, _, previous=previous: (  # type: ignore[misc]
                f"must be {word} the level before it, {previous[row]:g}"
            ),
        )
        before = np.where(np.isnan(limit), before, limit)


def check_couplings(table: Table, known: Resolver | None, log: FaultLog) -> Couplings:
    """Check and clean the couplings."""
    checks = TableChecks(table, log)
    origin = checks.references("from_source", known, "sources")
    target = checks.references("to_source", known, "sources")
    weight = checks.bounded("weight", 0.0, 1.0)
    kind_texts, _ = checks.filled("kind")
    kind = checks.vocabulary(kind_texts, "kind", 255)
    both = (origin >= 0) & (target >= 0)
    to_source = checks.text("to_source")
    itself = both & (origin == target)
    checks.note("self-coupling", "to_source", itself, to_source, "couples a source with itself")
    order = np.lexsort((kind.codes, target, origin))
    same = np.ones(max(len(order) - 1, 0), bool)
    for codes in (origin, target, kind.codes):
        same &= codes[order][1:] == codes[order][:-1]
    repeated = np.zeros(len(order), bool)
    repeated[order[1:][same]] = True
    text = "the same coupling, with the same kind, is there already"
    checks.note("duplicate coupling", "to_source", repeated & both & ~itself, to_source, text)
    return Couplings(origin=origin, target=target, kind=kind, weight=weight)


def no_couplings() -> Couplings:
    """Return the couplings of a folder that has none."""
    nothing = np.empty(0, np.int32)
    kind = Vocabulary(codes=nothing, words=[])
    return Couplings(origin=nothing, target=nothing, kind=kind, weight=np.empty(0))

"""Arrow columns to the NumPy columns of `engine.readings`: times, values, qualities.

Each function takes one Arrow array (dictionaries are decoded by the caller), copies nothing where
the type already fits, and raises ValueError with what is wrong.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine import zones
from engine.adapters import UNITS_MS, TimeKeys
from engine.arrow_views import bits, column_of, nulls, texts, view

_FAR_MS = 1 << 62
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class UnreadableRow(ValueError):
    """A value that can't be read, and the row of its batch, from 0."""

    def __init__(self, problem: str, row: int) -> None:
        super().__init__(problem)
        self.row = row


class Times(NamedTuple):
    """Event times of a batch in epoch milliseconds; where ``missing`` is true there is none."""

    event_ms: NDArray[np.int64]
    missing: NDArray[np.bool_] | None


def numbers(array: pa.Array, dtype: Any) -> NDArray[Any]:
    """Return a primitive column; nulls become NaN, or 0 where the type has no NaN."""
    column = view(array).astype(dtype, copy=False)
    if array.null_count:
        column = column.copy()
        column[nulls(array)] = np.nan if np.issubdtype(dtype, np.floating) else 0
    return column


def values(array: pa.Array) -> NDArray[np.float64]:
    """Return values as float64; null is NaN."""
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    elif is_text(kind):
        return _spelt_numbers(array)
    elif not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise ValueError(f"must hold numbers, not {kind}")
    return numbers(array, np.float64)


def _spelt_numbers(array: pa.Array) -> NDArray[np.float64]:
    try:
        return numbers(array.cast(pa.float64()), np.float64)
    except pa.ArrowInvalid:
        for row, text in enumerate(array.to_pylist()):
            try:
                float(text or "nan")
            except ValueError:
                raise UnreadableRow(f"must be a number, got {text[:80]!r}", row) from None
        raise


def qualities(array: pa.Array, good: tuple[int | str, ...] = (0,)) -> NDArray[np.uint8]:
    """Return 0 where the quality is one of the good ones or absent, what it says elsewhere.

    A quality that is no number from 1 to 255 becomes 1.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.uint8)
    if pa.types.is_boolean(kind):
        array, kind = array.cast(pa.uint8()), pa.uint8()
    if good == (0,) and pa.types.is_uint8(kind):
        return numbers(array, np.uint8)
    if pa.types.is_integer(kind):
        code = numbers(array, np.int64)
        codes = [each for each in good if isinstance(each, int)]
        fine = np.isin(code, codes)
        fits = (code > 0) & (code < 256)
        column = np.where(fine, 0, np.where(fits, code, 1)).astype(np.uint8)
    elif pa.types.is_floating(kind):
        grade = values(array)
        absent = np.isnan(grade)
        whole = np.clip(np.where(absent, 0, grade), -1, 1 << 40).astype(np.int64)
        return qualities(column_of(whole, pa.int64(), absent), good)
    elif is_text(kind):
        import pyarrow.compute as pc

        spelt = texts([str(each) for each in good]).cast(kind)
        column = (~bits(pc.is_in(array, value_set=spelt))).astype(np.uint8)
    else:
        raise ValueError(f"must hold numbers or text, not {kind}")
    if array.null_count:
        column[nulls(array)] = 0
    return column


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


class Clock:
    """How the times of a column are read: unit or pattern, zone, and the start it counts from."""

    def __init__(self, keys: TimeKeys) -> None:
        self.format = keys.format
        self.zone = zones.zone(keys.zone)
        self.start_ms = keys.start_ms()
        self._zoned = False  # whether the text of the batch before this one named its zones

    def times(self, array: pa.Array) -> Times:
        """Return the event times of a column; what can't be read raises, null is missing."""
        kind = array.type
        missing = None
        if array.null_count:
            missing = nulls(array)
        if pa.types.is_timestamp(kind) and self.start_ms is None:
            return Times(self._stamps(array), missing)
        if pa.types.is_date(kind) and self.start_ms is None:
            unit_ms = 86_400_000 if kind == pa.date32() else 1
            count = numbers(array.view(pa.int32() if unit_ms > 1 else pa.int64()), np.int64)
            return Times(self.zone.epoch_ms(count * unit_ms), missing)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return self._counted(array, missing)
        if is_text(kind):
            return self._spelt(array, missing)
        if pa.types.is_null(kind):
            return Times(np.zeros(len(array), np.int64), np.ones(len(array), np.bool_))
        what = "seconds since the start" if self.start_ms is not None else "times"
        raise ValueError(f"must hold {what}, not {kind}")

    def _stamps(self, array: pa.Array) -> NDArray[np.int64]:
        count = numbers(array.view(pa.int64()), np.int64)
        event_ms = scaled(count, array.type.unit)
        return event_ms if array.type.tz is not None else self.zone.epoch_ms(event_ms)

    def _counted(self, array: pa.Array, missing: NDArray[np.bool_] | None) -> Times:
        unit = self.format
        if unit == "auto":
            unit = "ms" if self.start_ms is None else "s"
        if unit not in UNITS_MS:
            raise ValueError(f"must hold text for the format {self.format!r}, not {array.type}")
        if pa.types.is_integer(array.type):
            if pa.types.is_uint64(array.type):
                count = np.minimum(numbers(array, np.uint64), (1 << 63) - 1).astype(np.int64)
            else:
                count = numbers(array, np.int64)
            event_ms = scaled(count, unit)
        else:
            amount = values(array)
            gone = np.isnan(amount)
            if gone.any():
                missing = gone if missing is None else missing | gone
                amount = np.where(gone, 0.0, amount)
            exact = amount * 1000.0 / _PER_SECOND[unit]
            event_ms = np.rint(np.clip(exact, -float(_FAR_MS), float(_FAR_MS))).astype(np.int64)
        if self.start_ms is not None:
            event_ms = np.clip(event_ms, -_FAR_MS, _FAR_MS) + self.start_ms
        return Times(event_ms, missing)

    def _spelt(self, array: pa.Array, missing: NDArray[np.bool_] | None) -> Times:
        if self.start_ms is not None or self.format in UNITS_MS:
            column = column_of(_spelt_numbers(array), pa.float64())
            return self._counted(column, missing)
        if "%" in self.format:
            return Times(self._patterned(array), missing)
        # most columns either name a zone everywhere or nowhere
        for zoned in (self._zoned, not self._zoned):
            try:
                stamps = array.cast(pa.timestamp("us", "UTC" if zoned else None))
            except pa.ArrowInvalid:
                continue
            self._zoned = zoned
            return Times(self._stamps(stamps), missing)
        return Times(self._one_by_one(array), missing)

    def _patterned(self, array: pa.Array) -> NDArray[np.int64]:
        if "%z" not in self.format and "%f" not in self.format:
            import pyarrow.compute as pc

            try:
                return self._stamps(pc.strptime(array, self.format, "us"))
            except pa.ArrowInvalid:
                pass
        return self._one_by_one(array)

    def _one_by_one(self, array: pa.Array) -> NDArray[np.int64]:
        """Read what Arrow can't: nine digits of a second, mixed zones, numbers as text."""
        encoded = array.dictionary_encode()
        known = np.zeros(len(encoded.dictionary) + 1, np.int64)
        indices = np.where(nulls(array), len(encoded.dictionary), view(encoded.indices))
        for place, text in enumerate(encoded.dictionary.to_pylist()):
            try:
                known[place] = self._read(text)
            except (ValueError, OverflowError):
                row = int(np.flatnonzero(indices == place)[0])
                wanted = "ISO 8601" if "%" not in self.format else f"like {self.format}"
                raise UnreadableRow(f"must be {wanted}, got {text[:80]!r}", row) from None
        return known[indices]

    def _read(self, text: str) -> int:
        if "%" in self.format:
            return zones.moment_ms(datetime.strptime(text.strip(), self.format), self.zone)
        # more digits than a microsecond has
        text = re.sub(r"([.,]\d{6})\d+", r"\1", text)
        return zones.instant_ms(text, self.zone)


def scaled(count: NDArray[np.int64], unit: str) -> NDArray[np.int64]:
    """Return whole milliseconds (the floor) of counts of a unit; extremes saturate."""
    factor = UNITS_MS[unit]
    if factor == 1:
        return count
    if factor < 0:
        return count // -factor
    return np.clip(count, -_FAR_MS // factor, _FAR_MS // factor) * factor

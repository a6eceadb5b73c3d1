"""Messages of somebody else's topic to readings, by the adapters that a replay uses.

A message is JSON (an object, an array, or one a line) or an Arrow stream. A row that can't be read
is a reject with its reason; nothing raises once the adapter is accepted. What a message becomes
depends on it alone, not on the fetch it came in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.adapters import TIME_COLUMNS, Adapter
from engine.arrow_checks import check_batch
from engine.arrow_frames import ARROW_MARK, frames_of
from engine.arrow_views import column_of, mask, texts
from engine.decode_json import Broken, json_values, shown
from engine.errors import AdapterError, ReadingsError
from engine.messages import Rejected
from engine.readings import Readings
from engine.rejects import MAX_LISTED, Refusal, Rejects
from engine.sensor_ids import SensorIds, Tally
from engine.shapes import Shape

MAX_FORMS = 64
"""Sets of keys that the objects of one message may have."""
MAX_TRIES = 200
"""Pieces of a message that may turn out unreadable before what is left of them is refused whole."""
_FAR = 1 << 62
_ERRORS = (
    pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError,
)  # fmt: skip


class _Part(NamedTuple):
    """Readings, and which row of the fetch each is of."""

    readings: Readings
    row: NDArray[np.int64]


class _Form(NamedTuple):
    """What rows read together have in common: their keys, and the kinds of time and quality."""

    keys: tuple[str, ...]
    time: type
    quality: type


class _Wrong(ValueError):
    """A cell that can't be what it stands for."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


def refuse_for_files(adapter: Adapter) -> None:
    """Raise AdapterError if an adapter is for files alone: they count rows, a topic has none."""
    if adapter.time.step_s is not None:
        raise AdapterError("time.step_s: a row clock is for files; a feed must say its times")


class Feed:
    """One topic under an adapter. Raises AdapterError if the adapter is for files alone."""

    def __init__(self, adapter: Adapter, catalog: Any, *, topic: str = "feed") -> None:
        refuse_for_files(adapter)
        # a value that is missing stays in its place until it is known whose it is
        keys = adapter.sensor.model_copy(update={"missing": "bad"})
        self.adapter = adapter.model_copy(update={"sensor": keys})
        self.skips = adapter.shape == "wide" and adapter.sensor.missing == "skip"
        self.catalog = catalog
        self.ids = SensorIds(catalog, Tally())
        self.quality = adapter.quality.column if adapter.quality else "quality"
        self.named = self._named()
        self._path = Path("/", topic)  # {file} of a template

    def _named(self) -> tuple[str, ...] | None:
        """Return the keys that the adapter names, None if any key may name a sensor."""
        adapter = self.adapter
        time = [adapter.time.column] if adapter.time.column else []
        if adapter.shape == "wide":
            columns = adapter.sensor.columns
            return None if columns is None else (*time, *columns)
        quality = [self.quality] if adapter.quality else []
        return (*time, adapter.sensor.column, adapter.value.column, *quality)

    def adapt(self, payloads: Sequence[bytes | None]) -> tuple[Readings, list[Rejected]]:
        """Return the readings of the messages of a fetch in order, and what was rejected."""
        fetch = _Messages(self)
        with np.errstate(invalid="ignore"):
            for payload in payloads:
                fetch.take(payload or b"")
            return fetch.finish()

    def shape(self, schema: pa.Schema) -> Shape:
        """Return how a table of this schema is read; ReadingsError if it can't be."""
        return Shape(self.adapter, schema, self._path, {}, self.catalog, self.ids, Tally())

    def problem(self, error: Exception) -> str:
        """Return what is wrong without the name of a file and the number of a row."""
        return re.sub(r"^(row [\d,]+: )", "", str(error).removeprefix(f"{self._path}: "))


def adapt(
    payloads: Sequence[bytes | None], adapter: Adapter, catalog: Any, *, topic: str = "feed"
) -> tuple[Readings, list[Rejected]]:
    """Return the readings of messages of a foreign topic, and what of them was rejected."""
    return Feed(adapter, catalog, topic=topic).adapt(payloads)


class _Messages:
    """The messages of one fetch: rows are collected by their form, then read a form at a time."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._rejects: list[Rejects] = []
        self._starts = [0]  # of each message, in rows of the fetch
        self._forms: dict[_Form, tuple[list[int], list[dict[str, Any]]]] = {}
        self._parts: list[_Part] = []

    def take(self, payload: bytes) -> None:
        """Take the next message."""
        first, n = self._starts[-1], 0
        self._rejects.append(Rejects())
        try:
            if payload[:4] == ARROW_MARK:
                shape, batches = self._open(payload)
                n = sum(map(len, batches))
                self._starts.append(first + n)
                for batch in batches:
                    self._read(shape, batch, first + np.arange(len(batch)))
                    first += len(batch)
                return
            n = self._collect(json_values(payload))
        except Refusal as refusal:
            self._rejects[-1].add_message(refusal)
        except _ERRORS as error:
            self._rejects[-1].add_message(Refusal("not_arrow", error or type(error).__name__))
        self._starts.append(first + n)

    def _open(self, payload: bytes) -> tuple[Shape, list[pa.RecordBatch]]:
        n_rows = frames_of(payload).n_rows
        schema = pa.ipc.open_stream(pa.py_buffer(payload)).schema
        try:
            shape = self.feed.shape(schema)
        except ReadingsError as error:
            raise Refusal("wrong_schema", self.feed.problem(error), n_rows) from None
        places = [schema.get_field_index(name) for name in shape.wants]
        options = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
        batches = list(pa.ipc.open_stream(pa.py_buffer(payload), options=options))
        for batch in batches:
            check_batch(batch)
        return shape, batches

    def _collect(self, values: list[Any]) -> int:
        """Put the objects of a message among those of their form."""
        first, rejects = self._starts[-1], self._rejects[-1]
        forms: set[_Form] = set()
        for row, value in enumerate(values):
            if isinstance(value, Broken):
                rejects.add("not_json", value.problem, row)
            elif not isinstance(value, dict):
                rejects.add("not_an_object", f"got {shown(value)}", row)
            else:
                form = self._form_of(value)
                if form not in forms and len(forms) == MAX_FORMS:
                    rejects.add("wrong_schema", f"more than {MAX_FORMS} sets of keys", row)
                    continue
                forms.add(form)
                rows, objects = self._forms.setdefault(form, ([], []))
                rows.append(first + row)
                objects.append(value)
        return len(values)

    def _form_of(self, value: dict[str, Any]) -> _Form:
        feed = self.feed
        time = feed.adapter.time.column
        time = time or next((name for name in TIME_COLUMNS if name in value), "")
        if feed.named is None:
            keys = tuple(value)
        else:
            # what the adapter names and the object leaves out is null, as in a file
            optional = (time, feed.quality) if feed.adapter.shape == "long" else (time,)
            keys = (*feed.named, *(key for key in optional if key in value))
            keys = tuple(dict.fromkeys(keys))
        return _Form(keys, type(value.get(time)), type(value.get(self.feed.quality)))

    def finish(self) -> tuple[Readings, list[Rejected]]:
        """Read what was collected."""
        # in an order that is the forms' own, or a message's rejects would depend on the others
        for form, (rows, objects) in sorted(self._forms.items(), key=lambda item: _rank(item[0])):
            self._read_form(form, np.array(rows, np.int64), objects)
        rejected = [
            Rejected(index, *each)
            for index, rejects in enumerate(self._rejects)
            for each in rejects.by_reason()
        ]
        if not self._parts:
            return Readings.of([], [], []), rejected
        order = np.argsort(np.concatenate([part.row for part in self._parts]), kind="stable")
        columns = (
            np.concatenate([getattr(part.readings, name) for part in self._parts])
            for name in ("sensor", "event_ms", "value", "quality")
        )
        return Readings(*columns).where(order), rejected

    def _read_form(
        self, form: _Form, rows: NDArray[np.int64], objects: list[dict[str, Any]]
    ) -> None:
        # all text until it is known what is wanted of it
        try:
            wants = self.feed.shape(pa.schema([(key, pa.string()) for key in form.keys])).wants
        except ReadingsError as error:
            self._refuse(rows, "wrong_schema", self.feed.problem(error))
            return
        kinds = [_KINDS[role](form) for role in wants.values()]
        cells: list[list[Any]] = []
        keep = np.ones(len(rows), np.bool_)
        for place, value in enumerate(objects):
            try:
                cells.append([_cell(value.get(key), role) for key, role in wants.items()])
            except _Wrong as wrong:
                keep[place] = False
                self._refuse(rows[place : place + 1], wrong.reason, str(wrong))
        if not cells:
            return
        columns = zip(*cells, strict=True)
        arrays = [_column(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        batch = pa.record_batch(arrays, names=list(wants))
        self._read(self.feed.shape(batch.schema), batch, rows[keep])

    def _read(self, shape: Shape, batch: pa.RecordBatch, rows: NDArray[np.int64]) -> None:
        """Read a batch; if something in it is wrong, its messages apart, and those piece by piece.

        How a message is taken apart must not depend on the others, or its rejects would.
        """
        if self._try(shape, batch, rows) is None:
            return
        edges = np.unique(np.searchsorted(rows, self._starts)).tolist()
        for begin, end in zip([0, *edges], [*edges, len(rows)], strict=True):
            pieces, n_tries = [(begin, end)] if end > begin else [], 0
            while pieces:
                low, high = pieces.pop()
                problem = self._try(shape, batch.slice(low, high - low), rows[low:high])
                if problem is None:
                    continue
                n_tries += 1
                if high - low == 1 or n_tries >= MAX_TRIES:
                    self._refuse(rows[low:high], "bad_row", problem, shape.width)
                else:
                    middle = (low + high) // 2
                    pieces += [(middle, high), (low, middle)]

    def _try(self, shape: Shape, batch: pa.RecordBatch, rows: NDArray[np.int64]) -> str | None:
        """Read a batch and keep its readings; or keep nothing, and return what is wrong."""
        try:
            missing = shape.times(batch, 0).missing
            if missing is not None and missing.any():
                batch = batch.filter(mask(~missing))
            readings = shape.readings(batch, 0)
        except ReadingsError as error:
            return self.feed.problem(error)
        except _ERRORS as error:
            return self.feed.problem(error) or type(error).__name__
        if missing is not None and missing.any():
            self._refuse(rows[missing], "no_time", "there is no time", shape.width)
            rows = rows[~missing]
        row = np.repeat(rows, shape.width)
        if self.feed.skips:
            given = ~np.isnan(readings.value)
            readings, row = readings.where(given), row[given]
        known = (readings.sensor >= 0) & (readings.sensor < self.feed.catalog.n_sensors)
        if not known.all():
            nameless = ~known & shape.nameless(batch) if shape.sensor else ~known & False
            detail = f"there is no {shape.sensor!r}, the column of the sensor"
            self._refuse(row[nameless], "no_sensor", detail)
            detail = "the catalog does not have the sensor"
            self._refuse(row[~known & ~nameless], "unknown_sensor", detail)
            readings, row = readings.where(known), row[known]
        self._parts.append(_Part(readings, row))
        return None

    def _refuse(self, rows: NDArray[np.int64], reason: str, detail: str, width: int = 1) -> None:
        """Enter rows into the rejects of their messages, `width` readings each."""
        message = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(message).tolist():
            own = rows[message == index] - self._starts[index]
            listed = own[:MAX_LISTED].tolist()
            self._rejects[index].add_rows(reason, detail, listed, len(own) * width)


def _rank(form: _Form) -> tuple[tuple[str, ...], str, str]:
    return form.keys, form.time.__name__, form.quality.__name__


_BY_TYPE = {int: pa.int64(), float: pa.float64()}
_KINDS = {
    "time": lambda form: _BY_TYPE.get(form.time, pa.string()),
    "id": lambda _: pa.string(),
    "value": lambda _: pa.float64(),
    "quality": lambda form: pa.string() if form.quality is str else pa.int64(),
}


def _column(cells: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return cells, None where there is nothing, as a column."""
    if pa.types.is_string(kind):
        return texts(cells)
    missing = np.array([cell is None for cell in cells])
    dtype = np.int64 if pa.types.is_integer(kind) else np.float64
    content = np.array([0 if cell is None else cell for cell in cells], dtype)
    return column_of(content, kind, missing)


def _cell(value: Any, role: str) -> Any:
    """Return a JSON value as a column of its role takes it."""
    if value is None:
        return None
    kind = type(value)
    if kind is int:
        value = max(-_FAR, min(_FAR, value)) if role == "time" else value
    elif kind is not float and (kind is not str or role == "value") and kind is not bool:
        problem = "a number" if role == "value" else "text or a number"
        raise _Wrong(f"bad_{_CALLED.get(role, role)}", f"must be {problem}, got {shown(value)}")
    if role == "value":
        return float(value)
    if kind is bool and role != "quality":
        raise _Wrong(f"bad_{_CALLED.get(role, role)}", f"must not be {value}")
    if role == "id":
        return value if kind is str else str(round(value))
    if role == "quality" and kind is not str:
        return max(-_FAR, min(_FAR, round(value)))  # a column holds no more
    return value


_CALLED = {"id": "sensor"}

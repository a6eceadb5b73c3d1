"""One Arrow message to readings. The metadata of messages that come again is read once.

A producer sends the same columns, and often the same number of rows, again and again: such messages
differ in their bodies alone. Where the columns lie in the body follows from all that is before and
after it, so a message with the same bytes there is read by that, with nothing left for Arrow to do.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.arrow_checks import check_batch
from engine.arrow_frames import ARROW_MARK, MAX_ROWS, Frames, frames_of
from engine.arrow_views import mask, nulls
from engine.columns import is_text, numbers, qualities, scaled, values
from engine.readings import Readings
from engine.rejects import MAX_LISTED, Refusal, Rejects, Rows, no_rows
from engine.sensor_ids import CATALOG_KEY
from kernels.layout import UNKNOWN

MAX_ARROW_BYTES = 64 << 20
MAX_HEAD_BYTES = 16 << 10
"""A head that is longer is not remembered."""
_REMEMBERED = 256
_COLUMNS = ("sensor", "event_ms", "value", "quality")
_ERRORS = (
    pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError,
)  # fmt: skip


def arrow_rows(source: bytes | pa.RecordBatch, catalog: Any, rejects: Rejects) -> Rows:
    """Return the readings of a message, and enter into `rejects` what it has besides.

    Dense indices are as the message has them, for the caller to hold against its bounds; null, and
    an id that the catalog does not have, is UNKNOWN.
    """
    try:
        if isinstance(source, pa.RecordBatch):
            _check(source)
            return _decoded([source], _facts_of(source.schema), catalog, rejects)
        known = _known_layout(source, catalog)
        return known or _decode_stream(source, catalog, rejects)
    except Refusal as refusal:
        rejects.add_message(refusal)
    except _ERRORS as error:
        rejects.add_message(Refusal("not_arrow", error or type(error).__name__))
    return no_rows()


def _decode_stream(payload: bytes, catalog: Any, rejects: Rejects) -> Rows:
    if len(payload) > MAX_ARROW_BYTES:
        raise Refusal("too_large", f"{len(payload):,} bytes, at most {MAX_ARROW_BYTES:,}")
    frames = frames_of(payload)
    buffer = pa.py_buffer(payload)
    facts = _FACTS.get(payload[: frames.schema_end])
    reader = pa.ipc.open_stream(buffer)
    try:
        if facts is None:
            facts = _facts_of(reader.schema)
            _FACTS.put(payload[: frames.schema_end], facts)
        _check_catalog(facts, catalog)
    except Refusal as refusal:
        raise Refusal(refusal.reason, refusal, frames.n_rows) from None
    if not facts.all_wanted:
        # what is not wanted is not read either
        options = pa.ipc.IpcReadOptions(included_fields=facts.places, use_threads=False)
        reader = pa.ipc.open_stream(buffer, options=options)
    batches = list(reader)
    for batch in batches:
        _check(batch)
    if len(batches) == 1 and facts.simple:
        _remember(payload, buffer.address, frames, batches[0], facts, facts.simple)
    return _decoded(batches, facts, catalog, rejects)


def _check(batch: pa.RecordBatch) -> None:
    if len(batch) > MAX_ROWS:
        raise Refusal("too_large", f"more than {MAX_ROWS:,} rows")
    check_batch(batch)


# --- what a schema says --------------------------------------------------------------------------


class _Facts(NamedTuple):
    """What a schema says of the readings below it."""

    places: list[int]
    graded: bool
    dense: bool
    digest: bytes | None
    all_wanted: bool
    simple: list[np.dtype[Any]] | None
    """The types of columns that are used as they lie, None if one is not."""


def _facts_of(schema: pa.Schema) -> _Facts:
    places = {name: schema.get_all_field_indices(name) for name in _COLUMNS}
    for name, found in places.items():
        if len(found) > 1:
            raise Refusal("wrong_schema", f"{len(found)} columns are called {name!r}")
        if not found and name != "quality":
            names = [field.name for field in list(schema)[:20]]
            raise Refusal("wrong_schema", f"no column {name!r}; there are {names}")
    sensor, time, value = (schema.field(name).type for name in _COLUMNS[:3])
    graded = bool(places["quality"])
    names = sensor.value_type if pa.types.is_dictionary(sensor) else sensor
    dense = not is_text(names)
    if dense and sensor != pa.int32():
        raise Refusal("wrong_schema", f"sensor: must be int32, text or a dictionary, not {sensor}")
    if time != pa.int64() and not pa.types.is_timestamp(time):
        raise Refusal("wrong_schema", f"event_ms: must be int64 or a timestamp, not {time}")
    if not (pa.types.is_floating(value) or pa.types.is_integer(value)):
        raise Refusal("wrong_schema", f"value: must be numbers, not {value}")
    if graded and not pa.types.is_integer(schema.field("quality").type):
        kind = schema.field("quality").type
        raise Refusal("wrong_schema", f"quality: must be uint8, not {kind}")
    wanted = [found[0] for found in places.values() if found]
    digest = (schema.metadata or {}).get(CATALOG_KEY)
    kinds = [_SIMPLE[name].get(schema.field(name).type) for name in _COLUMNS[: 3 + graded]]
    simple = [kind for kind in kinds if kind is not None]
    return _Facts(
        wanted, graded, dense, digest, len(wanted) == len(schema),
        simple if len(simple) == len(kinds) else None,
    )  # fmt: skip


def _check_catalog(facts: _Facts, catalog: Any) -> None:
    if not facts.dense:
        return
    if facts.digest is None:
        raise Refusal("wrong_catalog", f"dense indices without {CATALOG_KEY.decode()!r}")
    if facts.digest != catalog.digest.encode():
        theirs = facts.digest[:40].decode("ascii", "replace")
        raise Refusal("wrong_catalog", f"indices of catalog {theirs!r}, not {catalog.digest!r}")


# --- batches to readings -------------------------------------------------------------------------


def _decoded(batches: list[pa.RecordBatch], facts: _Facts, catalog: Any, rejects: Rejects) -> Rows:
    try:
        _check_catalog(facts, catalog)
    except Refusal as refusal:
        raise Refusal(refusal.reason, refusal, sum(map(len, batches))) from None
    pieces, kept = [], []
    first_row = 0
    for batch in batches:
        piece, rows = _decode_batch(batch, first_row, facts, catalog, rejects)
        pieces.append(piece)
        kept.append(rows)
        first_row += len(batch)
    if not pieces:
        return no_rows()
    numbered = np.concatenate(kept) if rejects else None
    if len(pieces) == 1:
        return Rows(pieces[0], numbered)
    columns = ([getattr(piece, name) for piece in pieces] for name in _COLUMNS)
    return Rows(Readings(*map(np.concatenate, columns)), numbered)


def _decode_batch(
    batch: pa.RecordBatch, first_row: int, facts: _Facts, catalog: Any, rejects: Rejects
) -> tuple[Readings, NDArray[np.int64]]:
    time = batch.column("event_ms")
    kept = np.arange(first_row, first_row + len(batch))
    if time.null_count:
        missing = nulls(time)
        rows = kept[missing]
        rejects.add_rows("no_time", "event_ms is null", rows[:MAX_LISTED].tolist(), len(rows))
        batch, kept = batch.filter(mask(~missing)), kept[~missing]
        time = batch.column("event_ms")
    sensor = batch.column("sensor")
    if facts.dense:
        index = numbers(sensor, np.int32)
        if sensor.null_count:
            index = np.where(nulls(sensor), np.int32(UNKNOWN), index)
    else:
        index = catalog.resolver().resolve(sensor)
        index[index < 0] = UNKNOWN  # −1 is a tick in the log
    graded = qualities(batch.column("quality")) if facts.graded else np.zeros(len(index), np.uint8)
    return Readings(index, _event_ms(time), values(batch.column("value")), graded), kept


def _event_ms(time: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_timestamp(time.type):
        return scaled(numbers(time.view(pa.int64()), np.int64), time.type.unit)
    return numbers(time, np.int64)


# --- messages that come again --------------------------------------------------------------------

Value = TypeVar("Value")


class _Memory(Generic[Value]):
    """The last few things that were learned: they decide how fast, never what a message means."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[bytes, Value] = {}

    def get(self, key: bytes) -> Value | None:
        return self._known.get(key)

    def put(self, key: bytes, value: Value) -> None:
        if len(key) <= MAX_HEAD_BYTES:
            if len(self._known) >= self._most:
                self._known = {}
            self._known[key] = value


class _Layout(NamedTuple):
    """Where the columns of a message with a certain head lie: (type, place), and what follows."""

    n_rows: int
    n_bytes: int
    body_end: int
    tail: bytes
    digest: bytes
    columns: list[tuple[np.dtype[Any], int]]


_FACTS: _Memory[_Facts] = _Memory(_REMEMBERED)
_LAYOUTS: _Memory[_Layout] = _Memory(_REMEMBERED)
_SIMPLE: dict[str, dict[pa.DataType, np.dtype[Any]]] = {
    "sensor": {pa.int32(): np.dtype(np.int32)},
    "event_ms": {pa.int64(): np.dtype(np.int64), pa.timestamp("ms"): np.dtype(np.int64)},
    "value": {pa.float32(): np.dtype(np.float32), pa.float64(): np.dtype(np.float64)},
    "quality": {pa.uint8(): np.dtype(np.uint8)},
}
_HEAD_BYTES = 8  # of a frame: mark and size


def _body_of(payload: bytes) -> int:
    """Return where the body of the first batch begins, 0 if that isn't plain."""
    at = 0
    for _ in range(2):
        if payload[at : at + 4] != ARROW_MARK:
            return 0
        size = int.from_bytes(payload[at + 4 : at + _HEAD_BYTES], "little")
        at += _HEAD_BYTES + size
        if not 0 < size <= MAX_HEAD_BYTES or at > len(payload):
            return 0
    return at


def _known_layout(payload: bytes, catalog: Any) -> Rows | None:
    """Return the rows of a message whose head came before, None for any other."""
    body = _body_of(payload)
    layout = _LAYOUTS.get(payload[:body]) if body else None
    if (
        layout is None
        or layout.n_bytes != len(payload)
        or payload[layout.body_end :] != layout.tail
        or layout.digest != catalog.digest.encode()
    ):
        return None
    n = layout.n_rows
    sensor, event_ms, value, *graded = (
        np.frombuffer(payload, dtype, n, place) for dtype, place in layout.columns
    )
    quality = graded[0] if graded else np.zeros(n, np.uint8)
    return Rows(Readings(sensor, event_ms, value.astype(np.float64, copy=False), quality))


def _remember(
    payload: bytes,
    address: int,
    frames: Frames,
    batch: pa.RecordBatch,
    facts: _Facts,
    dtypes: list[np.dtype[Any]],
) -> None:
    """Learn where the columns of a message lie, if they lie there as they are."""
    columns = []
    body_end = frames.body
    for name, dtype in zip(_COLUMNS, dtypes, strict=False):
        column = batch.column(name)
        validity, content = column.buffers()
        if validity is not None or content is None or column.offset:
            return
        place = content.address - address
        end = place + len(column) * dtype.itemsize
        # a buffer that had to be unpacked or moved lies elsewhere
        if not frames.body <= place <= end <= len(payload):
            return
        body_end = max(body_end, end)
        columns.append((dtype, place))
    # all that is not a column decides what the columns are, so all of it must come again
    if _body_of(payload) != frames.body or len(payload) - body_end > MAX_HEAD_BYTES:
        return
    layout = _Layout(
        len(batch), len(payload), body_end, payload[body_end:], facts.digest or b"", columns
    )
    _LAYOUTS.put(payload[: frames.body], layout)

"""One message of the wire to readings: Arrow IPC streams and JSON, neither of which is trusted.

Whatever the bytes, the answer is readings and rejects, never an exception. A reading of a sensor
that the catalog does not have stays in the log as UNKNOWN, where the line counts it, and so does
one whose time is out of bounds; a row is rejected only where it can't be said what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from engine.arrow_checks import check_batch
from engine.arrow_views import mask, nulls, texts
from engine.columns import is_text, numbers, qualities, scaled, values
from engine.readings import Readings
from engine.rejects import MAX_LISTED, Refusal, Reject, Rejects
from engine.sensor_ids import CATALOG_KEY, outside
from kernels.layout import UNKNOWN

MAX_ARROW_BYTES = 64 << 20
MAX_JSON_BYTES = 8 << 20
MAX_ROWS = 1 << 22
MAX_JSON_ROWS = 1 << 18
MAX_JSON_VALUES = 8 * MAX_JSON_ROWS
MAX_REJECTS = MAX_LISTED
"""Rejects that one message lists; the last one then says how many more there are."""
ARROW_MARK = b"\xff\xff\xff\xff"
REASONS = (
    "too_large",
    "not_arrow",
    "not_json",
    "not_an_object",
    "wrong_schema",
    "wrong_catalog",
    "no_sensor",
    "bad_sensor",
    "no_time",
    "bad_time",
    "no_value",
    "bad_value",
    "bad_quality",
    "more",
)
_FAR_MS = 1 << 62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = frozenset({int, float, bool, type(None)})


class Decoded(NamedTuple):
    """What one message held."""

    readings: Readings
    rejects: list[Reject]


def decode(payload: bytes, catalog: Any) -> Decoded:
    """Decode a message of either kind: an Arrow stream begins with a continuation mark."""
    if payload[:4] == ARROW_MARK:
        return decode_arrow(payload, catalog)
    return decode_json(payload, catalog)


def _decoded(rows: Rows, rejects: Rejects) -> Decoded:
    listed = list(rejects.listed)
    if rejects.more:
        listed.append(Reject("more", f"{rejects.more:,} more rows were rejected"))
    return Decoded(rows.readings, listed)


class Rows(NamedTuple):
    """The rows of one message that are readings; `kept` are their numbers unless all were kept."""

    readings: Readings
    kept: NDArray[np.int64] | None = None


def _none() -> Rows:
    return Rows(Readings.of([], [], []))


# --- Arrow ---------------------------------------------------------------------------------------


def decode_arrow(source: bytes | pa.Buffer | pa.RecordBatch, catalog: Any) -> Decoded:
    """Decode an Arrow IPC stream, or a batch that was read from one; nothing is copied that fits.

    Columns: `sensor` (int32 dense index with the catalog's digest in the schema metadata under
    `tocsin.catalog`, or ids as text or dictionary), `event_ms` (int64 or a timestamp), `value`
    (numbers), and perhaps `quality` (uint8). Others are ignored.
    """
    rejects = Rejects()
    return _decoded(arrow_rows(source, catalog, rejects), rejects)


def arrow_rows(source: bytes | pa.Buffer | pa.RecordBatch, catalog: Any, rejects: Rejects) -> Rows:
    """Return the readings of an Arrow message, and enter into `rejects` what it has besides."""
    try:
        if isinstance(source, pa.RecordBatch):
            return _decode_batches([_checked(source)], source.schema, catalog, rejects)
        if len(source) > MAX_ARROW_BYTES:
            raise Refusal("too_large", f"{len(source):,} bytes, at most {MAX_ARROW_BYTES:,}")
        schema, batches = _read_stream(source)
        return _decode_batches(batches, schema, catalog, rejects)
    except Refusal as refusal:
        rejects.add_message(refusal)
    except _ARROW_ERRORS as error:
        rejects.add_message(Refusal("not_arrow", error or type(error).__name__))
    return _none()


_ARROW_ERRORS = (
    pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError,
)  # fmt: skip


def _read_stream(source: bytes | pa.Buffer) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    buffer = pa.py_buffer(source)
    reader = pa.ipc.open_stream(buffer)
    schema = reader.schema
    places = [place for name in _COLUMNS if (place := _place(schema, name)) is not None]
    if len(places) < len(schema):
        # what is not wanted is not read either
        options = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
        reader = pa.ipc.open_stream(buffer, options=options)
    batches, n_rows = [], 0
    for batch in reader:
        n_rows += len(batch)
        if n_rows > MAX_ROWS:
            raise Refusal("too_large", f"more than {MAX_ROWS:,} rows")
        batches.append(_checked(batch))
    return schema, batches


_COLUMNS = ("sensor", "event_ms", "value", "quality")


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    if len(batch) > MAX_ROWS:
        raise Refusal("too_large", f"more than {MAX_ROWS:,} rows")
    check_batch(batch)
    return batch


def _place(schema: pa.Schema, name: str) -> int | None:
    places = schema.get_all_field_indices(name)
    if len(places) > 1:
        raise Refusal("wrong_schema", f"{len(places)} columns are called {name!r}")
    return places[0] if places else None


def _decode_batches(
    batches: Sequence[pa.RecordBatch], schema: pa.Schema, catalog: Any, rejects: Rejects
) -> Rows:
    try:
        for name in _COLUMNS[:3]:
            if _place(schema, name) is None:
                raise Refusal("wrong_schema", f"no column {name!r}; there are {schema.names[:20]}")
        dense = _is_dense(schema, catalog)
        pieces, kept = [], []
        first_row = 0
        for batch in batches:
            piece, rows = _decode_batch(batch, first_row, catalog, rejects, dense=dense)
            pieces.append(piece)
            kept.append(rows)
            first_row += len(batch)
    except Refusal as refusal:
        raise Refusal(refusal.reason, refusal, sum(map(len, batches))) from None
    if not pieces:
        return _none()
    numbered = np.concatenate(kept) if rejects else None
    if len(pieces) == 1:
        return Rows(pieces[0], numbered)
    columns = ([getattr(piece, name) for piece in pieces] for name in _COLUMNS)
    return Rows(Readings(*map(np.concatenate, columns)), numbered)


def _is_dense(schema: pa.Schema, catalog: Any) -> bool:
    kind = schema.field("sensor").type
    names = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_text(names):
        return False
    if kind != pa.int32():
        raise Refusal("wrong_schema", f"sensor: must be int32, text or a dictionary, not {kind}")
    digest = (schema.metadata or {}).get(CATALOG_KEY)
    if digest is None:
        raise Refusal("wrong_catalog", f"dense indices without {CATALOG_KEY.decode()!r}")
    if digest != catalog.digest.encode():
        theirs = digest[:40].decode("ascii", "replace")
        raise Refusal("wrong_catalog", f"indices of catalog {theirs!r}, not {catalog.digest!r}")
    return True


def _decode_batch(
    batch: pa.RecordBatch, first_row: int, catalog: Any, rejects: Rejects, *, dense: bool
) -> tuple[Readings, NDArray[np.int64]]:
    time = batch.column("event_ms")
    kept = np.arange(first_row, first_row + len(batch))
    if time.null_count:
        missing = nulls(time)
        rows = kept[missing]
        rejects.add_rows("no_time", "event_ms is null", rows[:MAX_LISTED].tolist(), len(rows))
        batch, kept = batch.filter(mask(~missing)), kept[~missing]
        time = batch.column("event_ms")
    event_ms = _event_ms(time)
    with_value = batch.column("value")
    if not (pa.types.is_floating(with_value.type) or pa.types.is_integer(with_value.type)):
        raise Refusal("wrong_schema", f"value: must be numbers, not {with_value.type}")
    value = values(with_value)
    sensor = batch.column("sensor")
    if dense:
        index = numbers(sensor, np.int32)
        if sensor.null_count:
            index = np.where(nulls(sensor), np.int32(UNKNOWN), index)
        wrong = outside(index, value, catalog.n_sensors, catalog.n_sources)
        if wrong is not None:
            index = np.where(wrong, np.int32(UNKNOWN), index)
    else:
        index = _resolved(sensor, catalog)
    quality = np.zeros(len(index), np.uint8)
    if _place(batch.schema, "quality") is not None:
        graded = batch.column("quality")
        if not pa.types.is_integer(graded.type):
            raise Refusal("wrong_schema", f"quality: must be uint8, not {graded.type}")
        quality = qualities(graded)
    return Readings(index, event_ms, value, quality), kept


def _event_ms(time: pa.Array) -> NDArray[np.int64]:
    if time.type == pa.int64():
        return numbers(time, np.int64)
    if pa.types.is_timestamp(time.type):
        return scaled(numbers(time.view(pa.int64()), np.int64), time.type.unit)
    raise Refusal("wrong_schema", f"event_ms: must be int64 or a timestamp, not {time.type}")


def _resolved(ids: pa.Array, catalog: Any) -> NDArray[np.int32]:
    found = catalog.resolver().resolve(ids)
    return np.where(found < 0, np.int32(UNKNOWN), found)


# --- JSON ----------------------------------------------------------------------------------------


def decode_json(payload: bytes, catalog: Any) -> Decoded:
    """Decode one object, an array of them, or one object a line.

    `{"sensor": id, "ts": ISO 8601 or epoch ms, "value": number or null, "quality": 0 to 255}`;
    `event_ms` or `time` will do for `ts`, and a time without a zone is UTC. Other keys are ignored.
    """
    rejects = Rejects()
    return _decoded(json_rows(payload, catalog, rejects), rejects)


def json_rows(payload: bytes, catalog: Any, rejects: Rejects) -> Rows:
    """Return the readings of a JSON message, and enter into `rejects` what it has besides."""
    try:
        rows = _parsed(payload)
    except Refusal as refusal:
        rejects.add_message(refusal)
        return _none()
    try:
        return Rows(_regular(rows, catalog))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, pa.ArrowException):
        return _row_by_row(rows, catalog, rejects)


def _parsed(payload: bytes) -> list[Any]:
    if len(payload) > MAX_JSON_BYTES:
        raise Refusal("too_large", f"{len(payload):,} bytes, at most {MAX_JSON_BYTES:,}")
    # what this many values would become is bounded before it is made
    n_values = payload.count(b",") + payload.count(b"[") + payload.count(b"{")
    if n_values > MAX_JSON_VALUES:
        raise Refusal("too_large", f"{n_values:,} values, at most {MAX_JSON_VALUES:,}")
    try:
        parsed = orjson.loads(payload)
        rows = parsed if isinstance(parsed, list) else [parsed]
    except orjson.JSONDecodeError as error:
        if b"\n" not in payload.strip():
            raise Refusal("not_json", error) from None
        n_lines = payload.count(b"\n") + payload.count(b"\r") + 1
        if n_lines > 2 * MAX_JSON_ROWS:
            raise Refusal("too_large", f"{n_lines:,} lines") from None
        rows = _lines(payload)
    if len(rows) > MAX_JSON_ROWS:
        raise Refusal("too_large", f"{len(rows):,} rows, at most {MAX_JSON_ROWS:,}", len(rows))
    return rows


class _Broken(NamedTuple):
    """A line that is no JSON, in its place among the rows."""

    problem: str


def _lines(payload: bytes) -> list[Any]:
    rows: list[Any] = []
    for line in payload.splitlines():
        if line.strip():
            try:
                rows.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                rows.append(_Broken(str(error)))
    return rows


def _regular(rows: list[Any], catalog: Any) -> Readings:
    """Decode rows that are all right; raises at the first that is not."""
    ids = [row["sensor"] for row in rows]
    found = [row["value"] for row in rows]
    if not set(map(type, ids)) <= {str} or not set(map(type, found)) <= _NUMBERS:
        raise ValueError("not all of one kind")
    event_ms = [_time_of(row) for row in rows]
    quality = [_quality_of(row) for row in rows]
    value = np.array(found, np.float64)
    return Readings(
        _resolved(texts(ids), catalog),
        np.array(event_ms, np.int64),
        value,
        np.array(quality, np.uint8),
    )


def _row_by_row(rows: list[Any], catalog: Any, rejects: Rejects) -> Rows:
    taken: list[tuple[str, int, float, int]] = []
    kept: list[int] = []
    for place, row in enumerate(rows):
        try:
            taken.append(_one(row))
            kept.append(place)
        except Refusal as refusal:
            rejects.add(refusal.reason, refusal, place)
    if not taken:
        return _none()
    ids, event_ms, value, quality = zip(*taken, strict=True)
    readings = Readings(
        _resolved(texts(ids), catalog),
        np.array(event_ms, np.int64),
        np.array(value, np.float64),
        np.array(quality, np.uint8),
    )
    return Rows(readings, np.array(kept, np.int64))


def _one(row: Any) -> tuple[str, int, float, int]:
    if isinstance(row, _Broken):
        raise Refusal("not_json", row.problem)
    if not isinstance(row, dict):
        raise Refusal("not_an_object", f"got {_shown(row)}")
    sensor = row.get("sensor")
    if sensor is None:
        raise Refusal("no_sensor", f"keys are {list(row)[:20]}")
    if isinstance(sensor, int) and not isinstance(sensor, bool):
        sensor = str(sensor)
    if not isinstance(sensor, str):
        raise Refusal("bad_sensor", f"must be text, got {_shown(sensor)}")
    try:
        event_ms = _time_of(row)
    except KeyError:
        raise Refusal("no_time", f"keys are {list(row)[:20]}") from None
    except (ValueError, OverflowError, TypeError):
        given = next((row[key] for key in _TIME_KEYS if key in row), None)
        problem = f"must be ISO 8601 or epoch ms, got {_shown(given)}"
        raise Refusal("bad_time", problem) from None
    if "value" not in row:
        raise Refusal("no_value", f"keys are {list(row)[:20]}")
    value = row["value"]
    if type(value) not in _NUMBERS:
        raise Refusal("bad_value", f"must be a number, got {_shown(value)}")
    try:
        quality = _quality_of(row)
    except ValueError as error:
        raise Refusal("bad_quality", str(error)) from None
    return sensor, event_ms, float("nan") if value is None else float(value), quality


def _shown(value: Any) -> str:
    # what is nested deeply can't be printed without recursion
    if isinstance(value, (dict, list)):
        return "an array" if isinstance(value, list) else "an object"
    return repr(value)[:80]


_TIME_KEYS = ("ts", "event_ms", "time")


def _time_of(row: dict[str, Any]) -> int:
    """Return epoch milliseconds; KeyError if there is no time, ValueError if it is none."""
    for key in _TIME_KEYS:
        given = row.get(key)
        if given is None:
            continue
        if type(given) is int:
            return max(-_FAR_MS, min(_FAR_MS, given))
        if type(given) is float:
            return max(-_FAR_MS, min(_FAR_MS, round(given)))  # raises for NaN and infinities
        if type(given) is str:
            moment = datetime.fromisoformat(given)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            since = moment - _EPOCH
            return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
        raise ValueError(key)
    raise KeyError("ts")


def _quality_of(row: dict[str, Any]) -> int:
    given = row.get("quality")
    if given is None:
        return 0
    if type(given) is not int:
        raise ValueError(f"must be 0 to 255, got {_shown(given)}")
    return given if 0 <= given < 256 else 1

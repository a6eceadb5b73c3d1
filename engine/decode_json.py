"""One JSON message to readings: whatever is valid is read, and what is wrong is said of each row.

`engine.json_scan` reads the regular messages of a fetch, which are nearly all, to the same result.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from engine.arrow_views import texts
from engine.readings import Readings
from engine.rejects import Refusal, Rejects, Rows, no_rows
from kernels.layout import UNKNOWN

MAX_JSON_BYTES = 8 << 20
MAX_JSON_ROWS = 1 << 18
MAX_JSON_VALUES = 8 * MAX_JSON_ROWS
_FAR_MS = 1 << 62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROW_ERRORS = (
    KeyError, TypeError, ValueError, OverflowError, AttributeError, pa.ArrowException,
)  # fmt: skip
_NUMBERS = frozenset({int, float, bool, type(None)})


def json_rows(payload: bytes, catalog: Any, rejects: Rejects) -> Rows:
    """Return the readings of a JSON message, and enter into `rejects` what it has besides."""
    try:
        rows = json_values(payload)
    except Refusal as refusal:
        rejects.add_message(refusal)
        return no_rows()
    try:
        return Rows(_regular(rows, catalog))
    except _ROW_ERRORS:
        return _row_by_row(rows, catalog, rejects)


def json_run(payloads: list[bytes], catalog: Any) -> tuple[Readings, NDArray[np.int64]] | None:
    """Return the readings of several messages, and how many each has; None if anything is wrong."""
    if sum(map(len, payloads)) > MAX_JSON_BYTES:
        return None
    try:
        values = [json_values(payload) for payload in payloads]
        readings = _regular([row for rows in values for row in rows], catalog)
    except (Refusal, *_ROW_ERRORS):
        return None
    return readings, np.fromiter(map(len, values), np.int64, len(values))


def check_size(payload: bytes) -> None:
    """Raise Refusal for a message too large to be parsed."""
    if len(payload) > MAX_JSON_BYTES:
        raise Refusal("too_large", f"{len(payload):,} bytes, at most {MAX_JSON_BYTES:,}")
    if len(payload) <= MAX_JSON_VALUES:
        return
    # what all these values would become is bounded before it is made
    n_values = payload.count(b",") + payload.count(b"[") + payload.count(b"{")
    if n_values > MAX_JSON_VALUES:
        raise Refusal("too_large", f"{n_values:,} values, at most {MAX_JSON_VALUES:,}")


def json_values(payload: bytes) -> list[Any]:
    """Return the rows of a message as they are, a line that is no JSON as Broken; or Refusal."""
    check_size(payload)
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


class Broken(NamedTuple):
    """A line that is no JSON, in its place among the rows."""

    problem: str


def _lines(payload: bytes) -> list[Any]:
    rows: list[Any] = []
    for line in payload.splitlines():
        if line.strip():
            try:
                rows.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                rows.append(Broken(str(error)))
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
        return no_rows()
    ids, event_ms, value, quality = zip(*taken, strict=True)
    readings = Readings(
        _resolved(texts(ids), catalog),
        np.array(event_ms, np.int64),
        np.array(value, np.float64),
        np.array(quality, np.uint8),
    )
    return Rows(readings, np.array(kept, np.int64))


def _one(row: Any) -> tuple[str, int, float, int]:
    if isinstance(row, Broken):
        raise Refusal("not_json", row.problem)
    if not isinstance(row, dict):
        raise Refusal("not_an_object", f"got {shown(row)}")
    sensor = row.get("sensor")
    if sensor is None:
        raise Refusal("no_sensor", f"keys are {list(row)[:20]}")
    if isinstance(sensor, int) and not isinstance(sensor, bool):
        sensor = str(sensor)
    if not isinstance(sensor, str):
        raise Refusal("bad_sensor", f"must be text, got {shown(sensor)}")
    try:
        event_ms = _time_of(row)
    except KeyError:
        raise Refusal("no_time", f"keys are {list(row)[:20]}") from None
    except (ValueError, OverflowError, TypeError):
        given = next((row[key] for key in _TIME_KEYS if key in row), None)
        problem = f"must be ISO 8601 or epoch ms, got {shown(given)}"
        raise Refusal("bad_time", problem) from None
    if "value" not in row:
        raise Refusal("no_value", f"keys are {list(row)[:20]}")
    value = row["value"]
    if type(value) not in _NUMBERS:
        raise Refusal("bad_value", f"must be a number, got {shown(value)}")
    try:
        quality = _quality_of(row)
    except ValueError as error:
        raise Refusal("bad_quality", str(error)) from None
    return sensor, event_ms, float("nan") if value is None else float(value), quality


def shown(value: Any) -> str:
    """Return a value for people, short."""
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
        raise ValueError(f"must be 0 to 255, got {shown(given)}")
    return given if 0 <= given < 256 else 1


def _resolved(ids: pa.Array, catalog: Any) -> NDArray[np.int32]:
    found = catalog.resolver().resolve(ids)
    return np.where(found < 0, np.int32(UNKNOWN), found)

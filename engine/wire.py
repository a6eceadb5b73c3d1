"""Readings to messages of the wire: one partition's each, Arrow or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from engine.arrow_views import column_of
from engine.readings import Readings
from engine.split import by_partition, message

__all__ = ["FORMATS", "ROWS", "by_partition", "json_rows", "messages"]

FORMATS = ("arrow", "json", "ndjson")
ROWS = 32_768
"""Rows of an Arrow message: half a megabyte."""
JSON_ROWS = 500


def messages(
    readings: Readings, catalog: Any, form: str = "arrow", rows: int = ROWS
) -> Iterator[bytes]:
    """Yield a partition's readings as messages: Arrow, one JSON object each, or NDJSON."""
    if form == "arrow":
        for start in range(0, len(readings), rows):
            yield message(readings.cut(start, start + rows), catalog)
        return
    lines = json_rows(readings, catalog)
    n = 1 if form == "json" else min(rows, JSON_ROWS)
    for start in range(0, len(lines), n):
        yield b"\n".join(lines[start : start + n])


def json_rows(readings: Readings, catalog: Any) -> list[bytes]:
    """Return one JSON object a reading."""
    ids = catalog.sensor_id.take(column_of(readings.sensor, pa.int32())).to_pylist()
    rows = zip(
        ids,
        readings.event_ms.tolist(),
        readings.value.tolist(),
        readings.quality.tolist(),
        strict=True,
    )
    return [
        orjson.dumps({"sensor": name, "ts": ts, "value": value, **({"quality": q} if q else {})})
        for name, ts, value, q in rows
    ]

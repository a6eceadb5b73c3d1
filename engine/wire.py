"""Readings to messages of the wire: one partition's each, Arrow or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from engine.readings import Readings
from engine.sensor_ids import CATALOG_KEY

FORMATS = ("arrow", "json", "ndjson")
ROWS = 32_768
"""Rows of an Arrow message: half a megabyte."""
JSON_ROWS = 500


def by_partition(readings: Readings, catalog: Any) -> Iterator[tuple[int, Readings]]:
    """Yield each partition's readings, in their order; sensors that are none are left out."""
    bounds = catalog.partition_sensors()
    home = np.searchsorted(bounds, readings.sensor, side="right") - 1
    for partition in np.unique(home).tolist():
        if 0 <= partition < catalog.n_partitions:
            mine = home == partition
            yield (
                partition,
                Readings(
                    readings.sensor[mine],
                    readings.event_ms[mine],
                    readings.value[mine],
                    readings.quality[mine],
                ),
            )


def messages(readings: Readings, catalog: Any, form: str = "arrow") -> Iterator[bytes]:
    """Yield a partition's readings as messages: Arrow, one JSON object each, or NDJSON."""
    if form == "arrow":
        for start in range(0, len(readings), ROWS):
            yield arrow_message(readings.cut(start, start + ROWS), catalog.digest)
        return
    rows = json_rows(readings, catalog)
    n = 1 if form == "json" else JSON_ROWS
    for start in range(0, len(rows), n):
        yield b"\n".join(rows[start : start + n])


def arrow_message(readings: Readings, digest: str) -> bytes:
    """Return readings as one Arrow stream of dense indices; quality only where some is not good."""
    fields = [("sensor", pa.int32()), ("event_ms", pa.int64()), ("value", pa.float32())]
    columns = [readings.sensor, readings.event_ms, readings.value.astype(np.float32)]
    if readings.quality.any():
        fields.append(("quality", pa.uint8()))
        columns.append(readings.quality)
    schema = pa.schema(fields, metadata={CATALOG_KEY: digest})
    batch = pa.record_batch([pa.array(column) for column in columns], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def json_rows(readings: Readings, catalog: Any) -> list[bytes]:
    """Return one JSON object a reading."""
    ids = catalog.sensor_id.take(pa.array(readings.sensor)).to_pylist()
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

"""Readings to messages of the readings topic, one or more for each partition that they are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from engine.arrow_views import column_of
from engine.readings import Readings
from engine.sensor_ids import CATALOG_KEY

MAX_MESSAGE_BYTES = 512_000
_HEAD_BYTES = 2048
"""Room for a message's metadata and the padding of its columns."""


def split(
    readings: Readings, catalog: Any, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> dict[int, list[bytes]]:
    """Return Arrow messages of readings by partition, in order, none larger than `max_bytes`.

    Every sensor is a dense index below `catalog.n_sensors`. Values go as float32 where that holds
    all of a message exactly, qualities only where one isn't good.
    """
    if not len(readings):
        return {}
    first_sensor = catalog.sensor_start[catalog.partition_start]
    partition = np.searchsorted(first_sensor, readings.sensor, side="right") - 1
    order = np.argsort(partition, kind="stable")
    ordered = readings.where(order)
    numbers, starts = np.unique(partition[order], return_index=True)
    n_most = max(1, (max_bytes - _HEAD_BYTES) // (4 + 8 + 8 + 1))
    ends = [*starts[1:].tolist(), len(order)]
    return {
        number: [
            message(ordered.cut(at, min(at + n_most, end)), catalog)
            for at in range(start, end, n_most)
        ]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True)
    }


def message(readings: Readings, catalog: Any) -> bytes:
    """Return readings as one Arrow stream with dense indices."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = readings.value.astype(np.float32)
    exact = np.array_equal(single.astype(np.float64), readings.value, equal_nan=True)
    columns = {
        "sensor": column_of(readings.sensor, pa.int32()),
        "event_ms": column_of(readings.event_ms, pa.int64()),
        "value": column_of(single, pa.float32())
        if exact
        else column_of(readings.value, pa.float64()),
    }
    if readings.quality.any():
        columns["quality"] = column_of(readings.quality, pa.uint8())
    batch = pa.record_batch(columns).replace_schema_metadata({CATALOG_KEY: catalog.digest})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())

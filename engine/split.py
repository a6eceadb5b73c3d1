"""Readings to messages of the readings topic, one or more for each partition that they are for."""

from __future__ import annotations

from collections.abc import Iterator
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
    n_most = max(1, (max_bytes - _HEAD_BYTES) // (4 + 8 + 8 + 1))
    return {
        partition: [
            message(mine.cut(at, min(at + n_most, len(mine))), catalog)
            for at in range(0, len(mine), n_most)
        ]
        for partition, mine in by_partition(readings, catalog)
    }


def by_partition(readings: Readings, catalog: Any) -> Iterator[tuple[int, Readings]]:
    """Yield each partition's readings, in their order; what is of no sensor is left out."""
    known = (readings.sensor >= 0) & (readings.sensor < catalog.n_sensors)
    if not known.all():
        readings = readings.where(known)
    if not len(readings):
        return
    first_sensor = catalog.sensor_start[catalog.partition_start]
    home = np.searchsorted(first_sensor, readings.sensor, side="right") - 1
    order = np.argsort(home, kind="stable")
    ordered = readings.where(order)
    partitions, starts = np.unique(home[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    for partition, start, end in zip(partitions.tolist(), starts.tolist(), ends, strict=True):
        yield partition, ordered.cut(start, end)


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

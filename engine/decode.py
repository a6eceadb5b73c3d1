"""One message of the wire to readings: Arrow IPC streams and JSON, neither of which is trusted.

Whatever the bytes, the answer is readings and rejects, never an exception. A reading of a sensor
that the catalog does not have stays in the log as UNKNOWN, where the line counts it, and so does
one whose time is out of bounds; a row is rejected only where it can't be said what it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from engine.arrow_frames import ARROW_MARK
from engine.decode_arrow import arrow_rows
from engine.decode_json import json_rows
from engine.readings import Readings
from engine.rejects import MAX_LISTED, Reject, Rejects, Rows
from engine.sensor_ids import outside
from kernels.layout import UNKNOWN

MAX_REJECTS = MAX_LISTED
"""Rejects that one message lists; the last one then says how many more there are."""
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


class Decoded(NamedTuple):
    """What one message held."""

    readings: Readings
    rejects: list[Reject]


def decode(payload: bytes, catalog: Any) -> Decoded:
    """Decode a message of either kind: an Arrow stream begins with a continuation mark."""
    if payload[:4] == ARROW_MARK:
        return decode_arrow(payload, catalog)
    return decode_json(payload, catalog)


def decode_arrow(source: bytes | pa.RecordBatch, catalog: Any) -> Decoded:
    """Decode an Arrow IPC stream, or a batch that was read from one; nothing is copied that fits.

    Columns: `sensor` (int32 dense index with the catalog's digest in the schema metadata under
    `tocsin.catalog`, or ids as text or dictionary), `event_ms` (int64 or a timestamp), `value`
    (numbers), and perhaps `quality` (uint8). Others are ignored.
    """
    rejects = Rejects()
    rows = arrow_rows(source, catalog, rejects)
    readings = rows.readings
    wrong = outside(readings.sensor, readings.value, catalog.n_sensors, catalog.n_sources)
    if wrong is not None:
        index = np.where(wrong, np.int32(UNKNOWN), readings.sensor)
        rows = Rows(replace(readings, sensor=index))
    return _decoded(rows, rejects)


def decode_json(payload: bytes, catalog: Any) -> Decoded:
    """Decode one object, an array of them, or one object a line.

    `{"sensor": id, "ts": ISO 8601 or epoch ms, "value": number or null, "quality": 0 to 255}`;
    `event_ms` or `time` will do for `ts`, and a time without a zone is UTC. Other keys are ignored.
    """
    rejects = Rejects()
    return _decoded(json_rows(payload, catalog, rejects), rejects)


def _decoded(rows: Rows, rejects: Rejects) -> Decoded:
    listed = list(rejects.listed)
    if rejects.more:
        listed.append(Reject("more", f"{rejects.more:,} more rows were rejected"))
    return Decoded(rows.readings, listed)

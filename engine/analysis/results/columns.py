"""Columns of tables: times are `timestamp[ms, UTC]`, names strings or dictionary-encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]

MOMENT = pa.timestamp("ms", "UTC")
TEXT = pa.dictionary(pa.int32(), pa.string())


def named(codes: Array, names: Any) -> pa.Array:
    """Return the names of codes, dictionary-encoded; null below 0. Only names in use are kept."""
    codes = np.asarray(codes, np.int64)
    present = np.zeros(len(names), bool)
    known = codes >= 0
    present[codes[known]] = True
    used = np.flatnonzero(present)
    place = (np.cumsum(present) - 1).astype(np.int32)
    places = place[np.where(known, codes, 0)] if len(names) else np.zeros(len(codes), np.int32)
    all_names = names if isinstance(names, pa.Array) else pa.array(list(names), pa.string())
    return pa.DictionaryArray.from_arrays(
        pa.array(places, pa.int32(), mask=~known), all_names.take(pa.array(used)).cast(pa.string())
    )


def texts(codes: Array, names: Any) -> pa.Array:
    """Return the names of codes as strings; null below 0."""
    return named(codes, names).dictionary_decode()


def moments(event_ms: Array, absent: Array | None = None) -> pa.Array:
    """Return epoch milliseconds as times, null where they are absent."""
    return pa.array(np.asarray(event_ms, np.int64), pa.int64(), mask=absent).cast(MOMENT)

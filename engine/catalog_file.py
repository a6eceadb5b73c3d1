"""The compiled catalog on disk: one Arrow IPC file, mapped, never copied.

The file holds a single record batch of one row. Each column is one large list: the whole column of
the catalog, so that it comes back as one contiguous view. Vocabularies, counts and the digest are
JSON in the schema's metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.arrow_views import column_of, view
from engine.errors import CatalogError, OutputError

FORMAT_VERSION = 3
_READ_VERSIONS = (2, FORMAT_VERSION)
_META_KEY = b"tocsin.catalog"
_PAD_KEY = b"tocsin.pad"
_LINE = 64  # bytes of a cache line

TEXT = "text"
COLUMNS: dict[str, tuple[str, str]] = {
    # first, so that the writer can place it on a cache line: a slot never straddles two
    "slots": ("uint64", "slot"),
    "source_id": (TEXT, "source"),
    "name": (TEXT, "source"),
    "grid": (TEXT, "source"),
    "owner": (TEXT, "source"),
    "contact": (TEXT, "source"),
    "lon": ("float64", "source"),
    "lat": ("float64", "source"),
    "category": ("int16", "source"),
    "district": ("int16", "source"),
    "department": ("int16", "source"),
    "static_class": ("uint8", "source"),
    "sensor_start": ("int64", "source bound"),
    "sensor_id": (TEXT, "sensor"),
    "sensor_source": ("int32", "sensor"),
    "quantity": ("int16", "sensor"),
    "unit": ("int16", "sensor"),
    "sensor_scale": ("float64", "sensor"),
    "sensor_offset": ("float64", "sensor"),
    "period_ms": ("uint32", "sensor"),
    "override_sensor": ("int32", "override"),
    "override_high": ("float64", "override level"),
    "override_low": ("float64", "override level"),
    "override_deadband": ("float64", "override"),
    "override_on_delay_s": ("float64", "override"),
    "override_off_delay_s": ("float64", "override"),
    "coupling_start": ("int64", "source bound"),
    "coupling_target": ("int32", "coupling"),
    "coupling_weight": ("float32", "coupling"),
    "coupling_kind": ("uint8", "coupling"),
    "coupled_start": ("int64", "source bound"),
    "coupled_origin": ("int32", "coupling"),
    "coupled_weight": ("float32", "coupling"),
    "coupled_kind": ("uint8", "coupling"),
    "partition_start": ("int64", "partition bound"),
    "cut_origin": ("int32", "cut"),
    "cut_target": ("int32", "cut"),
    "cut_weight": ("float32", "cut"),
    "cut_kind": ("uint8", "cut"),
}
"""Every column of the file in the order in which it lies there: its type, and what a row is of.

Columns of the same kind of row have the same length; a `bound` stands before and after each.
"""
_NEW_IN_3 = ("override_on_delay_s", "override_off_delay_s")
"""Not in a file of format 2, which is read on: snapshots speak of catalogs of before an upgrade."""

Columns = Mapping[str, Any]


def _columns_of(version: Any) -> dict[str, tuple[str, str]]:
    """Return the columns of a format's files."""
    if version != 2:
        return COLUMNS
    return {name: column for name, column in COLUMNS.items() if name not in _NEW_IN_3}


def text_buffers(array: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return an array of texts as `(offset, octets)`.

    `offset` is int64, one more than there are rows, and counts bytes of `octets` (uint8). Takes a
    `string`, `large_string`, `binary` or `large_binary` array, sliced or not.
    """
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, offsets, content = array.buffers()
    octets = np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8)
    if offsets is None or offsets.size == 0:
        return np.zeros(1, np.int64), octets
    offset = np.frombuffer(offsets, np.int64 if wide else np.int32)
    offset = offset[array.offset : array.offset + len(array) + 1]
    return offset.astype(np.int64, copy=False), octets


def digest_of(columns: Columns, meta: Mapping[str, Any]) -> str:
    """Return the BLAKE2b digest, in hex, of everything that a catalog holds."""
    digest = hashlib.blake2b(digest_size=16)
    facts = {key: value for key, value in meta.items() if key != "digest"}
    digest.update(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
    for name, (dtype, _) in _columns_of(meta.get("version")).items():
        column = columns[name]
        digest.update(f"\n{name} {dtype} {len(column)}\n".encode())
        if dtype == TEXT:
            offset, octets = text_buffers(column)
            digest.update((offset - offset[0]).data)
            digest.update(octets[offset[0] : offset[-1]].data)
        else:
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def write_columns(path: Path, columns: Columns, meta: Mapping[str, Any]) -> None:
    """Write a catalog file whole or not at all, in the format of `meta`. Raises `OutputError`."""
    written = _columns_of(meta.get("version"))
    lists = [_as_list(columns[name], dtype) for name, (dtype, _) in written.items()]
    schema = _placed_schema(lists, meta)
    batch = pa.RecordBatch.from_arrays(lists, schema=schema)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as sink:
            with pa.ipc.new_file(sink, schema) as writer:
                writer.write_batch(batch)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _as_list(column: Any, dtype: str) -> Any:
    if dtype != TEXT:
        column = column_of(np.ascontiguousarray(column, dtype), _arrow_type(dtype))
    return _one_list(column)


def _one_list(values: Any) -> Any:
    """Return a column of one row, which is the list of all values."""
    ends = column_of(np.array([0, len(values)], np.int64), pa.int64())
    return pa.LargeListArray.from_arrays(ends, values)


def _arrow_type(dtype: str) -> Any:
    return pa.large_string() if dtype == TEXT else pa.from_numpy_dtype(np.dtype(dtype))


def _schema(meta: Mapping[str, Any], pad: int) -> Any:
    kept = _columns_of(meta.get("version"))
    fields = [(name, pa.large_list(_arrow_type(dtype))) for name, (dtype, _) in kept.items()]
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()
    return pa.schema(fields, metadata={_META_KEY: text, _PAD_KEY: b" " * pad})


def _placed_schema(lists: list[Any], meta: Mapping[str, Any]) -> Any:
    """Return the schema, padded so that the first column begins on a cache line of the file.

    Arrow aligns buffers to 8 bytes only. What precedes the first column has the same size whatever
    the lengths of the columns, so one element each shows where it will lie.
    """
    schema = _schema(meta, 0)
    stub = [_one_list(pa.nulls(1, a.type.value_type)) for a in lists[1:]]
    first = _one_list(column_of(np.zeros(1, np.uint64), pa.uint64()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([first, *stub], schema=schema))
    written = sink.getvalue()
    column = pa.ipc.open_file(written).get_batch(0).column(0)
    begin = column.values.buffers()[1].address - written.address
    return _schema(meta, -begin % _LINE)


def read_columns(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Map a catalog file and return its columns, as views of the file, and its metadata.

    Texts come as `pa.LargeStringArray`, all else as read-only NumPy arrays. Raises `CatalogError`
    for a file that is missing, truncated, of another kind or of another version. In one of format 2
    no sensor has delays of its own.
    """
    if not path.is_file():
        raise CatalogError(f"{path}: {'is a folder' if path.is_dir() else 'no such catalog'}")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        if _META_KEY not in metadata:
            raise CatalogError(f"{path}: an Arrow file, but not a Tocsin catalog")
        meta = json.loads(metadata[_META_KEY])
        version = meta.get("version")
        if version not in _READ_VERSIONS:
            raise CatalogError(
                f"{path}: catalog format {version}, this Tocsin reads format "
                f"{' and '.join(map(str, _READ_VERSIONS))}; build the catalog again"
            )
        expected = _schema(meta, 0)
        if reader.num_record_batches != 1 or not reader.schema.equals(expected):
            raise CatalogError(f"{path}: not a whole Tocsin catalog: columns differ")
        batch = reader.get_batch(0)
        batch.validate()
    except (pa.ArrowException, OSError, ValueError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CatalogError(f"{path}: not a Tocsin catalog, or truncated: {detail}") from error
    if batch.num_rows != 1:
        raise CatalogError(f"{path}: not a whole Tocsin catalog: {batch.num_rows} rows")
    columns = {
        name: _view(batch.column(position), dtype)
        for position, (name, (dtype, _)) in enumerate(_columns_of(version).items())
    }
    for name in COLUMNS.keys() - columns.keys():
        columns[name] = np.full(len(columns["override_sensor"]), np.nan)
        columns[name].setflags(write=False)
    return columns, meta


def _view(column: Any, dtype: str) -> Any:
    return column.values if dtype == TEXT else view(column.values)

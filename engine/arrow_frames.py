"""The frames of an Arrow IPC stream, looked at before Arrow reads them: what a message declares.

A compressed buffer says how large it will be, and Arrow allocates that; a column of nulls has as
many rows as it claims; a megabyte holds thousands of empty batches. So sizes, rows and frames are
bounded here first. Only fixed places of the metadata are read, each checked by `struct`; what is
not as it must be is refused, and what passes is still for Arrow to verify.

The format: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
and format/Message.fbs there.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from engine.rejects import Refusal

ARROW_MARK = b"\xff\xff\xff\xff"
"""What every frame begins with."""
MAX_METADATA_BYTES = 1 << 20
MAX_FRAMES = 4096
MAX_UNPACKED_BYTES = 64 << 20
"""Bytes that the buffers of one message may have together once they are unpacked."""
MAX_ROWS = 1 << 22

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_HEAD = struct.Struct("<Ii")
_i64 = struct.Struct("<q")
_u32 = struct.Struct("<I")
_i32 = struct.Struct("<i")
_u16 = struct.Struct("<H")


class Frames(NamedTuple):
    """What a stream declares."""

    schema_end: int
    n_rows: int
    n_batches: int
    body: int
    """Where the body of the last batch begins."""


def frames_of(payload: bytes) -> Frames:
    """Return what a stream declares; Refusal if that is too much, or not as it must be."""
    try:
        return _walk(payload)
    except (struct.error, ValueError, OverflowError) as error:
        raise Refusal("not_arrow", f"damaged frame: {error}") from None


def _walk(payload: bytes) -> Frames:
    at = schema_end = n_rows = n_batches = body = unpacked = 0
    for number in range(MAX_FRAMES + 1):
        if len(payload) - at < _HEAD.size:
            break
        mark, size = _HEAD.unpack_from(payload, at)
        if mark != 0xFFFF_FFFF:
            raise Refusal("not_arrow", "a frame does not begin with a continuation mark")
        if size == 0:
            break
        if number == MAX_FRAMES:
            raise Refusal("too_large", f"more than {MAX_FRAMES:,} frames")
        if not 0 < size <= MAX_METADATA_BYTES:
            raise Refusal("too_large", f"metadata of {size:,} bytes")
        begin = at + _HEAD.size
        meta = payload[begin : begin + size]
        if len(meta) < size:
            raise Refusal("not_arrow", "metadata is cut off")
        kind, header, body_size = _message(meta)
        at = begin + size + body_size
        if not 0 <= body_size <= len(payload) - begin - size:
            raise Refusal("not_arrow", f"a body of {body_size:,} bytes is not there")
        if number == 0:
            if kind != _SCHEMA or body_size:
                raise Refusal("not_arrow", "does not begin with a schema")
            schema_end = at
            continue
        if kind == _DICTIONARY:
            header = _table(meta, header, 1)
        elif kind != _BATCH:
            raise Refusal("not_arrow", f"a frame of kind {kind}")
        body = begin + size
        rows, size = _declared(payload, meta, header, body, body_size)
        unpacked += size
        if unpacked > MAX_UNPACKED_BYTES:
            raise Refusal("too_large", f"{unpacked:,} bytes unpacked")
        if kind == _BATCH:
            n_batches += 1
            n_rows += rows
        if not 0 <= rows <= MAX_ROWS or n_rows > MAX_ROWS:
            raise Refusal("too_large", f"more than {MAX_ROWS:,} rows")
    if not schema_end:
        raise Refusal("not_arrow", "does not begin with a schema")
    return Frames(schema_end, n_rows, n_batches, body)


def _field(meta: bytes, table: int, number: int) -> int:
    """Return where a field of a flatbuffer table lies, 0 if the table leaves it out."""
    vtable = table - _i32.unpack_from(meta, _inside(table))[0]
    size = _u16.unpack_from(meta, _inside(vtable))[0]
    slot = 4 + 2 * number
    if slot + 2 > size:
        return 0
    offset: int = _u16.unpack_from(meta, vtable + slot)[0]
    return table + offset if offset else 0


def _inside(place: int) -> int:
    # struct counts a negative place from the end
    if place < 0:
        raise ValueError("an offset before the beginning")
    return place


def _table(meta: bytes, table: int, number: int) -> int:
    """Return where the table or vector lies that a field points to."""
    place = _field(meta, table, number)
    if not place:
        raise ValueError("a part is missing")
    return place + int(_u32.unpack_from(meta, place)[0])


def _message(meta: bytes) -> tuple[int, int, int]:
    """Return kind, place of the header and size of the body of a message."""
    root = _u32.unpack_from(meta, 0)[0]
    kind, size = _field(meta, root, 1), _field(meta, root, 3)
    return (
        meta[kind] if 0 < kind < len(meta) else 0,
        _table(meta, root, 2),
        _i64.unpack_from(meta, size)[0] if size else 0,
    )


def _declared(payload: bytes, meta: bytes, batch: int, body: int, size: int) -> tuple[int, int]:
    """Return the rows of a batch, and the bytes that its compressed buffers unpack to."""
    length = _field(meta, batch, 0)
    rows = _i64.unpack_from(meta, length)[0] if length else 0
    if not _field(meta, batch, 3):
        return rows, 0
    vector = _table(meta, batch, 2)
    n = _u32.unpack_from(meta, vector)[0]
    buffers = np.frombuffer(meta, "<i8", 2 * n, vector + 4).reshape(-1, 2).tolist()
    unpacked = 0
    for offset, length in buffers:
        if not (offset >= 0 and length >= 0 and offset + length <= size):
            raise ValueError("a buffer outside the body")
        if length >= _i64.size:
            declared = _i64.unpack_from(payload, body + offset)[0]
            if declared < -1:
                raise ValueError(f"a buffer of {declared} bytes")
            unpacked += max(declared, 0)
    return rows, unpacked

"""Between Arrow and NumPy without pyarrow's own conversions: those import pandas if they can.

That would cost every short run half a second, and hold a worker up in its first alert. It is done
by `pa.array`, `pa.scalar`, `pa.repeat`, `to_numpy` and `fill_null`, and where Python or NumPy
values are taken for Arrow's. Here are views of buffers instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def view(array: pa.Array) -> NDArray[Any]:
    """Return a primitive column (numbers, times) as it lies in memory; nulls hold anything."""
    dtype = _dtype(array.type)
    content = array.buffers()[1]
    if content is None or not len(array):
        nothing = np.zeros(len(array), dtype)
        nothing.flags.writeable = False
        return nothing
    return np.frombuffer(content, dtype, len(array), array.offset * dtype.itemsize)


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    letter = "f" if pa.types.is_floating(kind) else "u" if str(kind).startswith("uint") else "i"
    return np.dtype(f"{letter}{kind.bit_width // 8}")


def bits(array: pa.Array) -> NDArray[np.bool_]:
    """Return a boolean column; nulls hold anything."""
    content = array.buffers()[1]
    if content is None or not len(array):
        return np.zeros(len(array), np.bool_)
    return _unpacked(content, array.offset, len(array))


def nulls(array: pa.Array) -> NDArray[np.bool_]:
    """Return where a column is null."""
    content = array.buffers()[0]
    if content is None or not array.null_count:
        return np.full(len(array), pa.types.is_null(array.type))
    return ~_unpacked(content, array.offset, len(array))


def _unpacked(content: pa.Buffer, offset: int, n: int) -> NDArray[np.bool_]:
    octets = np.frombuffer(content, np.uint8)[offset // 8 : (offset + n + 7) // 8]
    return np.unpackbits(octets, bitorder="little")[offset % 8 : offset % 8 + n].view(np.bool_)


def mask(keep: NDArray[np.bool_]) -> pa.BooleanArray:
    """Return a boolean column of the same truth."""
    return pa.BooleanArray.from_buffers(pa.bool_(), len(keep), [None, _packed(keep)])


def _packed(keep: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(keep, bitorder="little"))


def column_of(
    content: NDArray[Any], kind: pa.DataType, missing: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return numbers as a column of a type of the same width, null where they are missing."""
    valid = None if missing is None else _packed(~missing)
    return pa.Array.from_buffers(kind, len(content), [valid, pa.py_buffer(content)])


def texts(names: Sequence[str | None]) -> pa.StringArray:
    """Return a column of text."""
    encoded = [b"" if name is None else name.encode() for name in names]
    ends = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(each) for each in encoded], out=ends[1:])
    content = pa.py_buffer(b"".join(encoded))
    valid = _packed(np.array([name is not None for name in names])) if None in names else None
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), content, valid)


def repeated(name: str, n: int) -> pa.StringArray:
    """Return a column of the same text in each row."""
    return texts([name]).take(column_of(np.zeros(n, np.int64), pa.int64()))

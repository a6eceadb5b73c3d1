"""What every part of the oracle shares: rounding, saturation, parameters as plain Python."""

import ctypes
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from kernels.layout import MAX_AGE_MS


def f32(number: float) -> float:
    """Round as a store into a float32 field does; too large becomes an infinity."""
    return ctypes.c_float(number).value


def f32_down(number: float) -> float:
    """Round to a float32 that is not above the number: an extreme is never understated."""
    near = f32(number)
    return near if near <= number else f32(near - f32(abs(near) * 2.0**-23))


def f32_up(number: float) -> float:
    """Round to a float32 that is not below the number."""
    return -f32_down(-number)


def added_up(numbers: Iterable[float]) -> float:
    """Add one after the other; the builtin sum compensates its rounding from Python 3.12 on."""
    total = 0.0
    for number in numbers:
        total += number
    return total


def older_by(age_ms: int, dt_ms: int) -> int:
    """Add to an age, which saturates."""
    return min(age_ms + dt_ms, MAX_AGE_MS)


def plain(record: np.void) -> SimpleNamespace:
    """Turn one NumPy record into an object of Python numbers and lists."""
    return SimpleNamespace(**{name: record[name].tolist() for name in record.dtype.names or ()})


def plain_rows(records: np.ndarray) -> list[SimpleNamespace]:
    """Turn an array of records into such objects."""
    return [plain(record) for record in records]


def plain_list(column: Any) -> list[Any]:
    """Turn any one-dimensional column into a list of Python numbers."""
    return np.asarray(column).tolist()

"""The JSON messages of a fetch in one go: joined, scanned by a kernel, their ids looked up at once.

Regular messages come out as `engine.decode_json` would decode them, to the bit; the others are
marked for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.decode_json import MAX_JSON_ROWS, MAX_JSON_VALUES, check_size
from engine.readings import Readings, read_only
from engine.rejects import Refusal
from kernels.layout import UNKNOWN
from kernels.scan import MIN_ROW_BYTES, PADDING, scan_messages


class Scanned(NamedTuple):
    """The rows of regular messages in order, and how many each has; −1 of one that is not."""

    readings: Readings
    n_rows: NDArray[np.int64]


def scan(payloads: list[bytes], catalog: Any) -> Scanned:
    """Read the regular ones of some JSON messages."""
    payloads = [each if len(each) <= MAX_JSON_VALUES or _fits(each) else b"" for each in payloads]
    joined = b"\n".join([*payloads, bytes(PADDING)])
    octets = read_only(np.frombuffer(joined, np.uint8))
    n = len(payloads)
    start = np.zeros(n + 1, np.int64)
    np.cumsum(np.fromiter(map(len, payloads), np.int64, n) + 1, out=start[1:])
    room = len(joined) // MIN_ROW_BYTES + 1
    n_rows = np.empty(n, np.int64)
    id_begin, id_end, event_ms = (np.empty(room, np.int64) for _ in range(3))
    value, quality = np.empty(room, np.float64), np.empty(room, np.uint8)
    total = scan_messages(
        octets, start, _wide(payloads, joined), MAX_JSON_ROWS, n_rows,
        id_begin, id_end, event_ms, value, quality,
    )  # fmt: skip
    sensor = catalog.resolver().resolve_spans(octets, id_begin[:total], id_end[:total])
    sensor[sensor < 0] = UNKNOWN  # −1 is a tick in the log
    return Scanned(Readings(sensor, event_ms[:total], value[:total], quality[:total]), n_rows)


def _fits(payload: bytes) -> bool:
    try:
        check_size(payload)
    except Refusal:
        return False
    return True


def _wide(payloads: list[bytes], joined: bytes) -> NDArray[np.bool_]:
    """Tell which messages hold more than ASCII, and are UTF-8."""
    if joined.isascii():
        return np.zeros(len(payloads), np.bool_)
    return np.array([not each.isascii() and _is_utf8(each) for each in payloads], np.bool_)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True

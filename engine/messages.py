"""The messages of one fetch to what the line takes: batches of readings, and control records.

A message is an Arrow stream, a control record of Tocsin's own workers, or JSON readings; whatever
its bytes, it ends as readings, a control record or rejects, never as an exception. Every reading
sent is counted once: it is a record of a batch, or it is among the rejects. Readings of sensors
that the catalog does not have, or that belong to another partition, are rejects. What a message
becomes depends on it alone, so the same log gives the same records however it is cut into fetches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.arrow_frames import ARROW_MARK
from engine.commands import Command
from engine.controls import CONTROL_MARK, NewRules, Tick, own_sources, parse_control
from engine.decode_arrow import arrow_rows
from engine.decode_json import json_rows, json_run
from engine.json_scan import scan
from engine.readings import Readings
from engine.rejects import MAX_LISTED, Refusal, Rejects, Rows
from kernels.layout import ACKNOWLEDGE, TICK


class Batch(NamedTuple):
    """Readings and ticks of consecutive messages, `first` being the first one's place in the fetch.

    Message `first + i` owns records `starts[i]` to `starts[i + 1]`.
    """

    readings: Readings
    starts: NDArray[np.int64]
    first: int


class Control(NamedTuple):
    """A control record, and its message's place in the fetch."""

    index: int  # type: ignore[assignment]  # not the method of tuples
    record: Command | NewRules


class Rejected(NamedTuple):
    """What one message had refused for one reason: how many readings, and the first rows of them.

    Of a message that can't be read it isn't known how many there were: `n` is 1.
    """

    index: int  # type: ignore[assignment]  # not the method of tuples
    reason: str
    detail: str
    n: int
    rows: list[int]


def decode_messages(
    payloads: Sequence[bytes | None],
    catalog: Any,
    *,
    sensors: tuple[int, int],
    kinds: Sequence[str | None] | None = None,
) -> tuple[list[Batch | Control], list[Rejected]]:
    """Decode the messages of a fetch, in their order; `sensors` are those of the partition.

    `kinds` are the content types that the messages came with, where there were any.
    """
    # a NaN of the signalling kind is as good as any
    with np.errstate(invalid="ignore"):
        return _decode(_Fetch(catalog, sensors), payloads, kinds)


def _decode(
    fetch: _Fetch, payloads: Sequence[bytes | None], kinds: Sequence[str | None] | None
) -> tuple[list[Batch | Control], list[Rejected]]:
    text: list[bytes] = []
    for index, payload in enumerate(payloads):
        if payload is None:  # a message without a value
            payload = b""
        arrow = is_arrow(payload, kinds[index] if kinds is not None else None)
        if not arrow and not payload.startswith(CONTROL_MARK):
            text.append(payload)
            continue
        fetch.take_json(index, text)
        text = []
        if arrow:
            fetch.take_rows(index, arrow_rows, payload)
        else:
            fetch.take_control(index, payload)
    fetch.take_json(len(payloads), text)
    fetch.close()
    fetch.rejected.sort(key=lambda each: each.index)
    return fetch.steps, fetch.rejected


class _Piece(NamedTuple):
    """Rows of one message, or of several in a run."""

    first: int
    counts: NDArray[np.int64]
    rows: Rows


class _Fetch:
    """One fetch on its way: what was decoded, and what waits to be joined to a batch."""

    def __init__(self, catalog: Any, sensors: tuple[int, int]) -> None:
        self.catalog = catalog
        self.own = sensors
        self.steps: list[Batch | Control] = []
        self.rejected: list[Rejected] = []
        self._pieces: list[_Piece] = []
        self._n_ticks = 0

    def take_json(self, stop: int, payloads: list[bytes]) -> None:
        """Take a run of JSON messages that ends before message `stop`."""
        if not payloads:
            return
        first = stop - len(payloads)
        readings, n_rows = scan(payloads, self.catalog)
        row = 0
        # runs of messages that were scanned, and of those that were not
        turns = np.flatnonzero(np.diff(n_rows < 0)) + 1
        for begin, end in pairwise([0, *turns.tolist(), len(payloads)]):
            if n_rows[begin] < 0:
                self._take_irregular(first + begin, payloads[begin:end])
                continue
            counts = n_rows[begin:end]
            after = row + int(counts.sum())
            self._add(first + begin, counts, Rows(readings.cut(row, after)))
            row = after

    def _take_irregular(self, first: int, payloads: list[bytes]) -> None:
        """Take JSON messages that need the general path: all at once, or else by halves."""
        if len(payloads) == 1:
            self.take_rows(first, json_rows, payloads[0])
            return
        # one by one, a message of one reading takes 29 µs; together, 2
        found = json_run(payloads, self.catalog)
        if found is not None:
            readings, counts = found
            self._add(first, counts, Rows(readings))
            return
        middle = len(payloads) // 2
        self._take_irregular(first, payloads[:middle])
        self._take_irregular(first + middle, payloads[middle:])

    def take_rows(self, index: int, decode: Any, payload: bytes) -> None:
        """Take one message of readings."""
        rejects = Rejects()
        rows = decode(payload, self.catalog, rejects)
        if rejects:
            self._reject(index, rejects)
        self._add(index, np.array([len(rows.readings)]), rows)

    def _add(self, first: int, counts: NDArray[np.int64], rows: Rows) -> None:
        if len(rows.readings):
            self._pieces.append(_Piece(first, counts, rows))

    def take_control(self, index: int, payload: bytes) -> None:
        """Take a control record; a tick becomes a row among the readings."""
        try:
            record = parse_control(payload, self.catalog, self.own)
        except Refusal as refusal:
            rejects = Rejects()
            rejects.add_message(refusal)
            self._reject(index, rejects)
            return
        if isinstance(record, Tick):
            self._add(index, np.array([1]), Rows(Readings.tick(record.event_ms)))
            self._n_ticks += 1
        else:
            self.close()
            self.steps.append(Control(index, record))

    def _reject(self, index: int, rejects: Rejects) -> None:
        self.rejected += [Rejected(index, *each) for each in rejects.by_reason()]

    def close(self) -> None:
        """End the batch that is under way."""
        pieces, self._pieces = self._pieces, []
        n_ticks, self._n_ticks = self._n_ticks, 0
        if not pieces:
            return
        first = pieces[0].first
        counts = np.zeros(pieces[-1].first + len(pieces[-1].counts) - first, np.int64)
        for piece in pieces:
            counts[piece.first - first :][: len(piece.counts)] = piece.counts
        starts = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=starts[1:])
        readings = _joined([piece.rows.readings for piece in pieces])
        low, high = self.own
        own = (readings.sensor >= low) & (readings.sensor < high)
        if np.count_nonzero(own) + n_ticks < len(own):
            own |= self._control_rows(readings)
            kept = {piece.first: piece.rows.kept for piece in pieces}
            self._reject_strangers(readings, ~own, starts, first, kept)
            starts = np.concatenate([[0], np.cumsum(own)])[starts]
            readings = readings.where(own)
        if len(readings):
            self.steps.append(Batch(readings, starts, first))

    def _control_rows(self, readings: Readings) -> NDArray[np.bool_]:
        """Tell which rows are ticks, and acknowledges of sources of this partition."""
        rows = readings.sensor == TICK
        acknowledge = readings.sensor == ACKNOWLEDGE
        if acknowledge.any():
            low, high = own_sources(self.catalog, self.own)
            rows |= acknowledge & _names_source(readings.value, low, high)
        return rows

    def _reject_strangers(
        self,
        readings: Readings,
        strange: NDArray[np.bool_],
        starts: NDArray[np.int64],
        first: int,
        kept: dict[int, NDArray[np.int64] | None],
    ) -> None:
        sensor = readings.sensor
        elsewhere = (sensor >= 0) & (sensor < self.catalog.n_sensors)
        elsewhere |= (sensor == ACKNOWLEDGE) & _names_source(
            readings.value, 0, self.catalog.n_sources
        )
        per_message = np.add.reduceat(strange, starts[:-1][np.diff(starts) > 0], dtype=np.int64)
        messages = np.flatnonzero(np.diff(starts))[per_message > 0]
        for message in messages.tolist():
            part = slice(starts[message], starts[message + 1])
            rejects = Rejects()
            for reason, where in (
                ("unknown_sensor", strange[part] & ~elsewhere[part]),
                ("other_partition", strange[part] & elsewhere[part]),
            ):
                rows = np.flatnonzero(where)
                n = len(rows)
                numbers = kept.get(first + message)
                listed = rows[:MAX_LISTED] if numbers is None else numbers[rows[:MAX_LISTED]]
                rejects.add_rows(reason, _STRANGE[reason], listed.tolist(), n)
            self._reject(first + message, rejects)


_STRANGE = {
    "unknown_sensor": "the catalog does not have the sensor",
    "other_partition": "the sensor belongs to another partition",
}


def _names_source(value: NDArray[np.float64], low: int, high: int) -> NDArray[np.bool_]:
    return (value >= low) & (value < high) & (value == np.floor(value))


def _joined(readings: list[Readings]) -> Readings:
    if len(readings) == 1:
        return readings[0]
    return Readings(
        np.concatenate([each.sensor for each in readings]),
        np.concatenate([each.event_ms for each in readings]),
        np.concatenate([each.value for each in readings]),
        np.concatenate([each.quality for each in readings]),
    )


def is_arrow(payload: bytes, kind: str | None) -> bool:
    """Tell whether a message is Arrow, by its content type if it has one, else by its bytes."""
    if kind is not None and "arrow" in kind:
        return True
    if kind is not None and "json" in kind:
        return False
    return payload[:4] == ARROW_MARK

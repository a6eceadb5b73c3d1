"""Merge ordered streams of readings into one log, without ever holding more than a little of each.

The order is total: by key, then by the number of the file, then by row. A lane that can tell the
least key it will ever have is opened only when its turn comes; where more lanes overlap than may
be open at once, some are merged into a temporary file first. Neither the size of batches nor how
many lanes are open changes the order.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.arrow_views import view
from engine.errors import OutputError
from engine.readings import Readings

MAX_OPEN = 256
"""Lanes that are read at the same time."""
BUDGET_ROWS = 1 << 19
"""Readings in flight, shared by the lanes that are open."""
MAX_CHUNK_ROWS = 1 << 18
_MIN_CHUNK_ROWS = 1 << 10
_SPILL_ROWS = 1 << 13


def columns_of(readings: Readings) -> tuple[NDArray[Any], ...]:
    """Return the columns of a batch in order."""
    return readings.sensor, readings.event_ms, readings.value, readings.quality


class Chunk(NamedTuple):
    """Consecutive readings of a lane with their keys, and the numbers of their files if several."""

    key: NDArray[np.int64]
    readings: Readings
    number: NDArray[np.int32] | None = None

    def cut(self, start: int, stop: int) -> Chunk:
        """Return some of the readings as views."""
        number = None if self.number is None else self.number[start:stop]
        return Chunk(self.key[start:stop], self.readings.cut(start, stop), number)

    def take(self, order: NDArray[np.intp]) -> Chunk:
        """Return the readings in another order."""
        number = None if self.number is None else self.number[order]
        return Chunk(
            self.key[order], Readings(*(c[order] for c in columns_of(self.readings))), number
        )


class Lane(NamedTuple):
    """An ordered stream: the number of its file, a bound below all its keys, and how to read it."""

    number: int
    bound: int
    chunks: Callable[[int], Iterator[Chunk]]
    """Called with the rows that a chunk may have."""


class _Open:
    """A lane that is being read, with what it has buffered."""

    def __init__(
        self, number: int, chunks: Iterator[Chunk], n_rows: int, *, spilt: bool = False
    ) -> None:
        self.number, self.n_rows, self.spilt = number, n_rows, spilt
        self._chunks = chunks
        self._buffer: Chunk | None = None
        self._exhausted = False

    def __len__(self) -> int:
        return 0 if self._buffer is None else len(self._buffer.key)

    def refill(self) -> None:
        """Read on if little is left."""
        while not self._exhausted and len(self) < max(1, self.n_rows // 2):
            chunk = next(self._chunks, None)
            if chunk is None:
                self._exhausted = True
            elif len(chunk.key):
                self._buffer = chunk if not len(self) else _joined([self.buffer, chunk])

    @property
    def buffer(self) -> Chunk:
        assert self._buffer is not None
        return self._buffer

    def last(self) -> tuple[int, int]:
        """Return key and file number of the last reading buffered: what follows is not less."""
        chunk = self.buffer
        number = self.number if chunk.number is None else int(chunk.number[-1])
        return int(chunk.key[-1]), number

    def take(self, until: tuple[int, int]) -> Chunk | None:
        """Take what comes before a key and file number, or is of that file up to that key."""
        if not len(self):
            return None
        chunk = self.buffer
        key, number = until
        low = int(np.searchsorted(chunk.key, key, side="left"))
        high = int(np.searchsorted(chunk.key, key, side="right"))
        if chunk.number is None:
            n = high if self.number <= number else low
        else:
            n = low + int(np.searchsorted(chunk.number[low:high], number, side="right"))
        taken, self._buffer = chunk.cut(0, n), chunk.cut(n, len(chunk.key))
        return taken if n else None


class Merge:
    """The merged log of some lanes; iterate over it once."""

    def __init__(
        self,
        lanes: Iterable[Lane],
        *,
        max_open: int = MAX_OPEN,
        budget_rows: int = BUDGET_ROWS,
    ) -> None:
        self._waiting = [(lane.bound, lane.number, lane) for lane in lanes]
        heapq.heapify(self._waiting)
        self._max_open, self._budget_rows = max_open, budget_rows
        self._spills: Spills | None = None

    def __iter__(self) -> Iterator[Readings]:
        try:
            for chunk in self._merge([], self._waiting, numbered=False):
                yield chunk.readings
        finally:
            if self._spills is not None:
                self._spills.close()

    def _merge(
        self, open_lanes: list[_Open], waiting: list[tuple[int, int, Lane]], *, numbered: bool
    ) -> Iterator[Chunk]:
        while True:
            for lane in open_lanes:
                lane.refill()
            open_lanes = [lane for lane in open_lanes if len(lane)]
            # all that is not yet buffered comes after the least of the last readings
            until = min((lane.last() for lane in open_lanes), default=None)
            if waiting and (until is None or waiting[0][:2] <= until):
                if len(open_lanes) >= self._max_open:
                    open_lanes = self._with_fewer(open_lanes)
                open_lanes.append(self._opened(heapq.heappop(waiting)[2], len(open_lanes)))
                continue
            if until is None:
                return
            yield self._in_order(open_lanes, until, numbered=numbered)

    def _opened(self, lane: Lane, n_open: int) -> _Open:
        n_rows = self._budget_rows // (n_open + 1)
        n_rows = min(MAX_CHUNK_ROWS, max(_MIN_CHUNK_ROWS, n_rows))
        return _Open(lane.number, lane.chunks(n_rows), n_rows)

    def _in_order(
        self, open_lanes: list[_Open], until: tuple[int, int], *, numbered: bool
    ) -> Chunk:
        pieces = []
        numbered = numbered or any(lane.spilt for lane in open_lanes)
        for lane in sorted(open_lanes, key=lambda lane: lane.number):
            piece = lane.take(until)
            if piece is None:
                continue
            if numbered and piece.number is None:
                number = np.full(len(piece.key), lane.number, np.int32)
                piece = piece._replace(number=number)
            pieces.append(piece)
        if len(pieces) == 1:
            return pieces[0]
        chunk = _joined(pieces)
        if chunk.number is None:
            order = np.argsort(chunk.key, kind="stable")
        else:
            order = np.lexsort((chunk.number, chunk.key))
        return chunk.take(order)

    def _with_fewer(self, open_lanes: list[_Open]) -> list[_Open]:
        """Merge the lanes that read files, or else all, into a temporary file in their stead."""
        if self._spills is None:
            self._spills = Spills()
        files = [lane for lane in open_lanes if not lane.spilt] or open_lanes
        rest = [lane for lane in open_lanes if lane not in files]
        merged = self._spills.spill(self._merge(files, [], numbered=True))
        return [*rest, _Open(files[0].number, merged(_SPILL_ROWS), _SPILL_ROWS, spilt=True)]


def _joined(chunks: list[Chunk]) -> Chunk:
    columns = zip(*(columns_of(chunk.readings) for chunk in chunks), strict=True)
    readings = Readings(*(np.concatenate(column) for column in columns))
    key = np.concatenate([chunk.key for chunk in chunks])
    numbers = [chunk.number for chunk in chunks if chunk.number is not None]
    return Chunk(key, readings, np.concatenate(numbers) if numbers else None)


class Spills:
    """Temporary files of ordered chunks, gone when closed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tocsin-")
        self._n = 0

    def spill(self, chunks: Iterable[Chunk]) -> Callable[[int], Iterator[Chunk]]:
        """Write chunks to a file; return what reads them again."""
        self._n += 1
        path = Path(self._folder.name) / f"{self._n}.arrow"
        with spilling(), pa.ipc.new_file(str(path), _SCHEMA) as writer:
            for chunk in chunks:
                for start in range(0, len(chunk.key), _SPILL_ROWS):
                    writer.write_batch(_as_batch(chunk.cut(start, start + _SPILL_ROWS)))
        return lambda n_rows: _spilt(path)

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()


@contextmanager
def spilling() -> Iterator[None]:
    """Turn a full disk into one line that says what to do."""
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        problem = f"{folder}: can't write temporary files ({error}); TMPDIR chooses another folder"
        raise OutputError(problem) from error


_SCHEMA = pa.schema(
    [
        ("key", pa.int64()),
        ("number", pa.int32()),
        ("sensor", pa.int32()),
        ("event_ms", pa.int64()),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
)


def _as_batch(chunk: Chunk) -> pa.RecordBatch:
    number = np.zeros(len(chunk.key), np.int32) if chunk.number is None else chunk.number
    return pa.record_batch([chunk.key, number, *columns_of(chunk.readings)], schema=_SCHEMA)


def _spilt(path: Path) -> Iterator[Chunk]:
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for place in range(reader.num_record_batches):
            columns = [view(column) for column in reader.get_batch(place)]
            yield Chunk(columns[0], Readings(*columns[2:]), columns[1])

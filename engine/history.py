"""A history: files of readings in one order, as the log that a replay runs through the line.

Within a file the order of the rows is the log's, late readings included. Files are merged by the
largest event time that each has reached. `Weaver` then puts the ticks in.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine import zones
from engine.adapters import Adapter
from engine.columns import numbers
from engine.errors import InputError
from engine.files import HistoryFile, discover
from engine.merge import MAX_CHUNK_ROWS, Chunk, Lane, Merge, Spills, columns_of
from engine.readings import Readings, read_only
from engine.sensor_ids import SensorIds, Tally
from engine.shapes import Shape
from engine.tables import Group, Table, open_table
from kernels.layout import MAX_EVENT_MS, NEVER, TICK
from kernels.weave import NEWEST, begin, running_newest, weave

TICKS_KEY = b"tocsin.ticks"
"""Key of the schema metadata by which a dump of a log says whether it has ticks: `yes` or `no`."""
SORT_ROWS = 1 << 20
"""Readings sorted at once; longer histories are sorted piece by piece and merged."""
_PEEK_ROWS = 1 << 10


class Span(NamedTuple):
    """The event times that are replayed, from the first on and before the second."""

    since_ms: int | None = None
    until_ms: int | None = None

    @classmethod
    def between(cls, since: str | None, until: str | None, zone_name: str) -> Span:
        """Return the span of two times as people give them; raises InputError.

        Times are ISO 8601, in the zone where they name none, or epoch milliseconds.
        """
        zone = zones.zone(zone_name)
        ends: list[int | None] = []
        for option, text in (("--from", since), ("--to", until)):
            try:
                ends.append(None if text is None else zones.instant_ms(text, zone))
            except (ValueError, OverflowError) as error:
                raise InputError(f"{option}: {error}, got {text!r}") from error
        span = cls(*ends)
        if span.is_empty:
            raise InputError(f"--from: must be before --to, got {since!r} and {until!r}")
        return span

    @property
    def is_empty(self) -> bool:
        """Whether it ends where it begins, or before."""
        if self.since_ms is None or self.until_ms is None:
            return False
        return self.since_ms >= self.until_ms

    def excludes(self, lowest: int, highest: int) -> bool:
        """Whether nothing between two event times is in the span."""
        early = self.since_ms is not None and highest < self.since_ms
        late = self.until_ms is not None and lowest >= self.until_ms
        return early or late

    def cut(self, readings: Readings) -> Readings:
        """Return the readings inside the span."""
        if self == EVERYTHING or not len(readings):
            return readings
        keep = np.ones(len(readings), np.bool_)
        if self.since_ms is not None:
            keep &= readings.event_ms >= self.since_ms
        if self.until_ms is not None:
            keep &= readings.event_ms < self.until_ms
        if keep.all():
            return readings
        return Readings(*(column[keep] for column in columns_of(readings)))


EVERYTHING = Span()


class BelievedTime:
    """How late it is, reading by reading: a clock that leads by more than ``jump_ms`` is doubted.

    The rule is that of the ticks; see `kernels.weave`.
    """

    def __init__(self, jump_ms: int) -> None:
        self._jump_ms = jump_ms
        self._newest_ms = NEVER

    def of(self, readings: Readings) -> np.ndarray[Any, Any]:
        """Return the newest event time that is believed, at each of the next readings."""
        newest = np.empty(len(readings), np.int64)
        event_ms = read_only(readings.event_ms)
        _, self._newest_ms = running_newest(event_ms, self._jump_ms, True, self._newest_ms, newest)
        return newest


class History:
    """The readings of some files in the order of the log; `tally` counts what it leaves out.

    `jump_ms` is how far a reading may lead before its clock is doubted (see `kernels.weave`).
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        adapter: Adapter,
        catalog: Any,
        *,
        span: Span = EVERYTHING,
        sort: bool = False,
        jump_ms: int = MAX_EVENT_MS,
    ) -> None:
        self.files = discover(paths)
        self.tally = Tally()
        self.adapter, self.catalog = adapter, catalog
        self.span, self.jump_ms = span, jump_ms
        self._sort = sort
        self._readers = [_Reader(file, self) for file in self.files]
        self.n_bytes = sum(file.n_bytes for file in self.files)

    def check(self) -> None:
        """Open the first file, to raise what is wrong with it before anything takes time."""
        for reader in self._readers[:1]:
            reader.check()

    def has_ticks(self) -> bool:
        """Whether the files are dumps of a log with ticks of its own, so that none go in."""
        return any([reader.has_ticks() for reader in self._readers])

    @property
    def share(self) -> float:
        """How much has been read, 0 to 1, by bytes."""
        if not self.n_bytes:
            return 1.0
        return sum(reader.share * reader.file.n_bytes for reader in self._readers) / self.n_bytes

    def chunks(self) -> Iterator[Readings]:
        """Yield the readings in order, a chunk at a time."""
        if self._sort:
            yield from self._sorted()
        elif len(self._readers) == 1:
            yield from self._readers[0].readings(MAX_CHUNK_ROWS)
        else:
            lanes = [reader.lane(number) for number, reader in enumerate(self._readers)]
            yield from Merge(lane for lane in lanes if lane is not None)

    def _sorted(self) -> Iterator[Readings]:
        """Sort by event time, equal ones staying in order of file and row."""
        spills = Spills()
        lanes: list[Lane] = []
        with closing(spills):
            for run in self._sorted_runs():
                number = len(lanes)
                lanes.append(Lane(number, int(run.key[0]), spills.spill([run])))
            yield from Merge(lanes)

    def _sorted_runs(self) -> Iterator[Chunk]:
        pending: list[Readings] = []
        for reader in self._readers:
            for readings in reader.readings(MAX_CHUNK_ROWS):
                pending.append(owned(readings))
                if sum(map(len, pending)) >= SORT_ROWS:
                    yield _sorted_run(pending)
                    pending = []
        if pending:
            yield _sorted_run(pending)


def owned(readings: Readings) -> Readings:
    """Return a copy, so that a slice keeps no decoded batch alive."""
    return Readings(*(column.copy() for column in columns_of(readings)))


def joined(pieces: list[Readings]) -> Readings:
    """Return batches one after the other as one."""
    columns = zip(*(columns_of(piece) for piece in pieces), strict=True)
    return Readings(*(np.concatenate(column) for column in columns))


def _sorted_run(pieces: list[Readings]) -> Chunk:
    readings = joined(pieces)
    pieces.clear()
    return Chunk(readings.event_ms, readings).take(np.argsort(readings.event_ms, kind="stable"))


class _Reader:
    """One file of a history; opened when its turn comes, so that many files cost little."""

    def __init__(self, file: HistoryFile, history: History) -> None:
        self.file, self._history = file, history
        self.share = 0.0

    def _opened(self, tally: Tally) -> tuple[Table, Shape | None]:
        """Open the file; no shape if it has no columns, being empty."""
        history = self._history
        table = open_table(self.file, history.adapter)
        if not len(table.schema):
            return table, None
        ids = SensorIds(history.catalog, tally)
        path, keys = self.file.path, self.file.keys
        return table, Shape(history.adapter, table.schema, path, keys, history.catalog, ids, tally)

    def check(self) -> None:
        """Raise what is wrong with the file's schema under the adapter."""
        self._opened(Tally())

    def _groups(self, table: Table, shape: Shape) -> tuple[list[int] | None, int | None]:
        """Return the groups of rows that the span does not exclude, and a bound below their times.

        None where the file does not tell.
        """
        groups = table.groups(shape.time) if shape.time is not None else None
        if groups is None:
            return None, None
        chosen, bound = [], MAX_EVENT_MS
        known = True
        for number, group in enumerate(groups):
            ends = _ends(group, shape)
            if ends is None:
                known = False
            elif self._history.span.excludes(*ends):
                continue
            else:
                bound = min(bound, ends[0] if ends[0] >= 0 and ends[1] < MAX_EVENT_MS else NEVER)
            chosen.append(number)
        return chosen, bound if known else None

    def readings(self, n_rows: int, tally: Tally | None = None) -> Iterator[Readings]:
        """Yield the readings of the file that are in the span, in order."""
        table, shape = self._opened(tally or self._history.tally)
        if shape is not None:
            groups, _ = self._groups(table, shape)
            batches = table.batches(shape.wants, max(1, n_rows // shape.width), groups)
            for first_row, batch in batches:
                readings = self._history.span.cut(shape.readings(batch, first_row))
                if tally is None:
                    self.share = table.share
                if len(readings):
                    yield readings
        if tally is None:
            self.share = 1.0

    def chunks(self, n_rows: int, tally: Tally | None = None) -> Generator[Chunk, None, None]:
        """Yield the readings with the largest event time so far as their key."""
        newest_ms, jump_ms = NEVER, self._history.jump_ms
        held: Readings | None = None
        for readings in self.readings(n_rows, tally):
            if held is not None:
                readings = joined([held, readings])
            key = np.empty(len(readings), np.int64)
            event_ms = read_only(readings.event_ms)
            taken, newest_ms = running_newest(event_ms, jump_ms, False, newest_ms, key)
            # the reading after it decides whether the last one moves time
            held = owned(readings.cut(taken, len(readings))) if taken < len(readings) else None
            if taken:
                yield Chunk(key[:taken], readings.cut(0, taken))
        if held is not None:
            key = np.empty(len(held), np.int64)
            running_newest(read_only(held.event_ms), jump_ms, True, newest_ms, key)
            yield Chunk(key, held)

    def lane(self, number: int) -> Lane | None:
        """Return the file as a lane of a merge, None if it has no reading in the span."""
        table, shape = self._opened(Tally())
        if shape is None:
            return None
        _, bound = self._groups(table, shape)
        if bound is None and shape.time is None:
            bound = shape.clock.start_ms
        if bound is None:
            with closing(self.chunks(_PEEK_ROWS, Tally())) as chunks:
                first = next(chunks, None)
            if first is None:
                # its rows without a time are still to be counted
                return Lane(number, NEVER, self.chunks)
            bound = int(first.key[0])
        return Lane(number, bound, self.chunks)

    def has_ticks(self) -> bool:
        """Whether the file is a dump of a log that has ticks."""
        table, shape = self._opened(Tally())
        if shape is None or not shape.dense or shape.sensor is None:
            return False
        said = (table.schema.metadata or {}).get(TICKS_KEY)
        if said is not None:
            return said == b"yes"
        groups = table.groups(shape.sensor)
        if groups is not None and all(
            (g.lowest if g.lowest is not None else -1) >= 0 for g in groups
        ):
            return False
        for _, batch in table.batches({shape.sensor: "index"}, MAX_CHUNK_ROWS):
            if (numbers(batch.column(0), np.int32) == TICK).any():
                return True
        return False


def _ends(group: Group, shape: Shape) -> tuple[int, int] | None:
    if group.lowest is None or group.highest is None:
        return None
    return shape.bound_ms(group.lowest, group.highest)


class Weaver:
    """Puts ticks into readings and cuts the log into batches of at least `n` records but the last.

    A batch lasts until `n_slots - 1` more have been taken: its columns are used again.
    """

    def __init__(
        self,
        chunks: Iterator[Readings],
        *,
        tick_ms: int,
        jump_ms: int,
        n: int,
        n_slots: int = 2,
        ticked: bool = False,
    ) -> None:
        self._chunks, self._n = chunks, n
        self._rule = np.array([tick_ms, jump_ms], np.int64)
        self._ticked = ticked
        self._state = begin()
        self._slots = [_slot(2 * n + 2) for _ in range(n_slots)]
        self._turn = 0
        self._written = 0
        self._held: Readings | None = None

    def batches(self) -> Generator[Readings, None, None]:
        """Yield the log but for what only its end decides: call `ending` for that."""
        for chunk in self._chunks:
            if self._held is not None:
                chunk, self._held = joined([self._held, chunk]), None
            at = 0
            while at < len(chunk):
                # even a tick before each reading must find room
                room = (len(self._slot.sensor) - self._written) // 2
                piece = chunk.cut(at, min(len(chunk), at + room))
                taken = self._weave(piece, final=False)
                at += taken
                if self._written >= self._n:
                    yield self._emitted()
                if taken < len(piece):
                    if at + 1 < len(chunk):
                        continue
                    self._held = owned(chunk.cut(at, len(chunk)))
                    break
        if self._written:
            yield self._emitted()

    def ending(self) -> Readings:
        """Return the end of the log: a reading that was held back, and the last tick."""
        if self._held is not None:
            self._weave(self._held, final=True)
            self._held = None
        newest_ms = self.newest_ms
        if newest_ms is not None and not self._ticked:
            slot, at = self._slot, self._written
            slot.sensor[at], slot.event_ms[at] = TICK, newest_ms
            slot.value[at], slot.quality[at] = 0.0, 0
            self._written += 1
        return self._emitted()

    @property
    def newest_ms(self) -> int | None:
        """The largest event time so far."""
        newest_ms = int(self._state[NEWEST])
        return None if newest_ms == NEVER else newest_ms

    @property
    def _slot(self) -> Readings:
        return self._slots[self._turn]

    def _weave(self, piece: Readings, *, final: bool) -> int:
        out = [column[self._written :] for column in columns_of(self._slot)]
        if self._ticked:
            for target, source in zip(out, columns_of(piece), strict=True):
                target[: len(piece)] = source
            self._written += len(piece)
            return len(piece)
        # Arrow's columns can't be written to and others can: one kind, or the kernel compiles twice
        columns = [read_only(column) for column in columns_of(piece)]
        taken, written = weave(*columns, self._rule, final, self._state, *out)
        self._written += written
        return int(taken)

    def _emitted(self) -> Readings:
        batch = self._slot.cut(0, self._written)
        self._turn = (self._turn + 1) % len(self._slots)
        self._written = 0
        return batch


def _slot(n: int) -> Readings:
    return Readings(
        np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n), np.zeros(n, np.uint8)
    )

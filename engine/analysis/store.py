"""A history turned on its side: not by time but by sensor, kept in memory or in files beside it.

Couplings bind sources into clusters; a bucket is a range of whole clusters, small enough to be held
at once. What is kept is what the watermark lets through (`kernels.admit`), 32 bytes a reading.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.analysis.past import Log, Past
from engine.errors import OutputError
from engine.plan import Plan
from engine.readings import Readings, read_only
from kernels.admit import BLOCK, admit, sort_by_sensor
from kernels.layout import ADMITTED, CLOCK, N_COUNTS, NEVER, TICK

Array = np.ndarray[Any, Any]

N_BUCKETS = 256
BATCH = 1 << 18
IN_MEMORY_BYTES = 4 << 30
"""Beyond it the history is kept in temporary files."""


def cluster_starts(catalog: Any) -> Array:
    """Return (clusters + 1,) int64: ranges of sources that no coupling leaves, as small as can."""
    n = catalog.n_sources
    origin = np.repeat(np.arange(n), np.diff(catalog.coupling_start))
    target = np.asarray(catalog.coupling_target, np.int64)
    # between the two ends of a coupling nothing may be cut
    depth = np.zeros(n + 1, np.int64)
    np.add.at(depth, np.minimum(origin, target) + 1, 1)
    np.add.at(depth, np.maximum(origin, target) + 1, -1)
    free = np.flatnonzero(np.cumsum(depth)[:-1] == 0)
    return np.append(free, n).astype(np.int64)


class Store:
    """The history of every sensor under the times of some rules, bucket by bucket."""

    def __init__(
        self,
        past: Past,
        plan: Plan,
        *,
        n_buckets: int = N_BUCKETS,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        catalog = past.catalog
        self.catalog = catalog
        self.cluster_start = cluster_starts(catalog)
        self.edges = self._bucket_edges(n_buckets)
        self.first_sensor = catalog.sensor_start[self.cluster_start[self.edges]]
        self._bucket_of = np.repeat(
            np.arange(len(self.edges) - 1, dtype=np.uint16), np.diff(self.first_sensor)
        )
        n = len(self.edges) - 1
        self._cursors, self._used = np.zeros((n, 2), np.int64), np.zeros(1, np.int64)
        # memory only where it is written to: the arena may be larger than what comes
        self._make_arena(in_memory_bytes // (BLOCK * ADMITTED.itemsize))
        self._place, self._tick_place = np.zeros(0, np.int32), np.zeros((0, 2), np.int64)
        self._files: list[Path] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._limits_ms = (plan.late_after_ms, plan.max_ahead_ms, plan.max_late_ms)
        self._clock = np.zeros(1, CLOCK)
        self._clock["watermark_ms"] = self._clock["tick_ms"] = NEVER
        self._ticks: list[Array] = []
        self.counts = np.zeros(N_COUNTS, np.int64)
        """Readings refused, by reason, in the order of `kernels.layout.COUNT_NAMES`."""
        self.n_readings = 0
        self.first_ms: int | None = None

    def _bucket_edges(self, n_buckets: int) -> Array:
        """Return where the buckets begin, in clusters: about as many sensors in each."""
        loads = self.catalog.sensor_start[self.cluster_start]
        n = min(n_buckets, max(1, len(self.cluster_start) - 1))
        aims = loads[-1] * np.arange(1, n) / n
        cuts = np.searchsorted(loads, aims)
        return np.unique(np.concatenate([[0], cuts, [len(self.cluster_start) - 1]]))

    @classmethod
    def read(
        cls,
        past: Past,
        plan: Plan,
        *,
        on_progress: Callable[[float], None] | None = None,
        **options: Any,
    ) -> Store:
        """Read a history whole; raises what is wrong with it."""
        store = cls(past, plan, **options)
        log = Log(past, plan, BATCH)
        try:
            for batch in log:
                store.add(batch)
                if on_progress is not None:
                    on_progress(log.history.share)
        except BaseException:
            store.close()
            raise
        store.finish()
        return store

    def _make_arena(self, n_blocks: int) -> None:
        self._arena = np.empty(n_blocks * BLOCK, ADMITTED)
        self._block_of = np.zeros(n_blocks, np.int32)

    def add(self, batch: Readings) -> None:
        """Take the next records of the log."""
        n = len(batch)
        if n > len(self._place):
            self._place, self._tick_place = np.empty(n, np.int32), np.empty((n, 2), np.int64)
        given = (batch.sensor, batch.event_ms, batch.value, batch.quality)
        columns = [read_only(column) for column in given]
        cut = (read_only(self._bucket_of), read_only(self.catalog.sensor_start))
        while True:
            counts = np.zeros_like(self.counts)
            taken, found = admit(
                *columns, self._limits_ms, *cut, self._clock, self._place, self._cursors,
                self._block_of, self._used, self._arena, self._tick_place, counts,
            )  # fmt: skip
            if taken >= 0:
                break
            if self._used[0]:
                self._spill()
            else:
                self._make_arena(int(found) // BLOCK + self.n_buckets)
        self.counts += counts
        of_readings = batch.event_ms[batch.sensor != TICK]
        if self.first_ms is None and len(of_readings):
            self.first_ms = int(of_readings.min())
        self.n_readings += len(of_readings)
        if found:
            self._ticks.append(self._tick_place[:found].copy())

    def _stretches(self, bucket: int) -> tuple[Array, Array]:
        """Return where a bucket's records lie in the arena: first of each stretch, and how many."""
        first = np.flatnonzero(self._block_of[: self._used[0]] == bucket) * BLOCK
        n = np.full(len(first), BLOCK)
        if len(n):
            n[-1] -= self._cursors[bucket, 1] - self._cursors[bucket, 0]
        return first, n

    def _spill(self) -> None:
        """Append what is in memory to the buckets' files."""
        if self._files is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tocsin-history-")
            self._files = [Path(self._folder.name) / f"{n:05}" for n in range(self.n_buckets)]
        try:
            for bucket, path in enumerate(self._files):
                with path.open("ab") as file:
                    for first, n in zip(
                        *map(np.ndarray.tolist, self._stretches(bucket)), strict=True
                    ):
                        self._arena[first : first + n].tofile(file)
        except OSError as error:
            raise OutputError(
                f"{self._files[0].parent}: the history does not fit there: "
                f"{error.strerror or error} (TMPDIR names another folder)"
            ) from error
        self._cursors[:] = 0
        self._used[0] = 0

    def finish(self) -> None:
        """Note that the log is over."""
        if self._files is not None:
            self._spill()
            self._make_arena(0)
        self.ticks = np.concatenate([np.zeros((0, 2), np.int64), *self._ticks])
        self._ticks.clear()
        self.ascending = bool((np.diff(self.ticks[:, 0]) >= 0).all())

    @property
    def last_ms(self) -> int | None:
        """Newest event time; None of a history without any reading."""
        return None if self.first_ms is None else int(self._clock["watermark_ms"][0])

    @property
    def n_buckets(self) -> int:
        """How many buckets there are."""
        return len(self.edges) - 1

    def bucket(self, number: int, scratch: Array) -> tuple[Array, Array]:
        """Return a bucket's records sorted by sensor, and where each sensor's begin.

        They are written into the scratch where they fit, else into a new array.
        """
        arena = self._arena
        if self._files is not None:
            arena = np.fromfile(self._files[number], ADMITTED)
            first_of, n_of = np.zeros(1, np.int64), np.array([len(arena)])
        else:
            first_of, n_of = self._stretches(number)
        n = int(n_of.sum())
        first, last = self.first_sensor[number : number + 2].tolist()
        starts = np.zeros(last - first + 1, np.int64)
        out = scratch if n <= len(scratch) else np.empty(n + n // 4, ADMITTED)
        sort_by_sensor(arena, first_of, n_of, first, starts, out)
        return out, starts

    def close(self) -> None:
        """Delete the files, if there are any."""
        if self._folder is not None:
            self._folder.cleanup()

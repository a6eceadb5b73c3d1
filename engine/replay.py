"""Replay: a history through the line, from files of readings to an alert log; no terminal here.

The clock on the wall says how fast it goes and when to save a snapshot. What comes out depends on
the readings alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine import adapters
from engine.arrow_views import texts
from engine.errors import InputError, SnapshotError
from engine.history import History, Span, Weaver
from engine.readings import Readings
from engine.sinks import STDOUT, Sink, open_sink
from engine.summary import AlertTally, Summary
from kernels.layout import TICK

BATCH = 65_536
SNAPSHOT_EVERY_S = 60.0
ENCODE_TOGETHER = 256
"""Alerts that are written at once."""
_MASK = (1 << 64) - 1


class Line(Protocol):
    """What a replay drives: `engine.pipeline.Pipeline`, or a stand-in in tests."""

    records: Any
    """`encode(transitions)` gives alert records."""
    state: Any

    @property
    def counts(self) -> dict[str, int]:
        """What became of the readings."""

    def judge(self, readings: Readings) -> NDArray[Any]:
        """Run records of the log through the line; return the transitions that came out."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to replay, and how; everything but the first three has a default."""

    readings: tuple[Path, ...]
    catalog: Path
    rules: Path
    adapter: Path | None = None
    output: Path | None = None
    since: str | None = None
    until: str | None = None
    sort: bool = False
    threads: int = 1
    batch: int = BATCH
    snapshot: str | None = None
    resume: str | None = None
    snapshot_every_s: float = SNAPSHOT_EVERY_S


class Progress(NamedTuple):
    """How far a replay has come."""

    readings: int
    alerts: int
    share: float
    elapsed_s: float


class Snapshots(NamedTuple):
    """How state is saved and loaded: `engine.snapshot`, or a stand-in in tests."""

    save: Callable[[str, Any, dict[str, Any]], None]
    load: Callable[[str, Any], dict[str, Any]]


def prepare(job: Job) -> Replay:
    """Open catalog, rules, adapter and readings; raises what is wrong with them."""
    from engine import snapshot
    from engine.catalog import Catalog
    from engine.pipeline import Pipeline
    from engine.plan import compile_plan
    from engine.rules_check import load

    catalog = Catalog.open(job.catalog)
    plan = compile_plan(catalog, load(job.rules))
    pipeline = Pipeline(plan, threads=job.threads)
    return Replay(job, catalog, plan, pipeline, Snapshots(snapshot.save, snapshot.load))


class Replay:
    """One replay; `run` it once."""

    def __init__(
        self,
        job: Job,
        catalog: Any,
        plan: Any,
        line: Line,
        snapshots: Snapshots,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.job, self.plan, self.line = job, plan, line
        self._catalog, self._snapshots, self._clock = catalog, snapshots, clock
        adapter = adapters.load(job.adapter)
        self.history = History(
            job.readings,
            adapter,
            catalog,
            span=Span.between(job.since, job.until, adapter.time.zone),
            sort=job.sort,
            jump_ms=int(plan.max_late_ms),
        )
        self.history.check()
        self._digest = _LogDigest()
        self._position = 0  # records of the log that the line has taken
        self._resumed: dict[str, Any] | None = None
        if job.resume is not None:
            self._resumed = snapshots.load(job.resume, line)
        self.sink = self._opened_sink()
        self.summary = Summary(
            alerts=AlertTally(int(catalog.n_sources)),
            n_sensors=int(catalog.n_sensors),
            n_unprofiled=int(plan.n_unprofiled),
            notes=[str(note) for note in plan.notes],
        )
        self._going = False  # past what a snapshot covers
        self._pending: list[NDArray[Any]] = []  # transitions that are not yet written
        self._n_pending = 0

    def _opened_sink(self) -> Sink:
        mark = None
        if self._resumed is not None and self.job.output not in (None, STDOUT):
            mark = self._resumed.get("output")
        return open_sink(self.job.output, mark or None)

    def warm_up(self) -> float:
        """Compile the kernels, or load them from their cache; return the seconds that it took."""
        from engine.pipeline import warm_up

        begun = self._clock()
        warm_up(self.plan)
        one = Readings.of([0], [0], [0.0])
        weaver = Weaver(iter([one]), tick_ms=1, jump_ms=0, n=1)
        list(weaver.batches())
        weaver.ending()
        self._catalog.resolver().resolve(texts(["a sensor of no catalog"]))
        return self._clock() - begun

    def run(
        self,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_alerts: Callable[[list[bytes]], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Replay everything, or up to the batch during which `stopped` turns true."""
        begun = self._clock()
        saved = begun
        summary = self.summary
        try:
            weaver = self._weaver()
            with closing(self._batches(weaver, stopped)) as batches:
                for batch in batches:
                    self._push(batch, on_alerts)
                    now = self._clock()
                    if on_progress is not None:
                        on_progress(self._progress(now - begun))
                    if stopped():
                        summary.interrupted = True
                        break
                    if self.job.snapshot is not None and now - saved >= self.job.snapshot_every_s:
                        self._save()
                        saved = self._clock()
            self._finish(weaver, on_alerts)
        except InputError:
            self._encode()  # what was found before the fault stays
            raise
        finally:
            # after finish: nothing left to close
            self.sink.leave()
        summary.wall_s = self._clock() - begun
        return summary

    def _progress(self, elapsed_s: float) -> Progress:
        n, alerts = self.summary.readings, self.summary.alerts.n
        return Progress(n, alerts, self.history.share, elapsed_s)

    def _weaver(self) -> Weaver:
        return Weaver(
            self.history.chunks(),
            tick_ms=int(self.plan.tick_ms),
            jump_ms=self.history.jump_ms,
            n=self.job.batch,
            n_slots=4 if self.job.threads > 1 else 2,
            ticked=self.history.has_ticks(),
        )

    def _batches(
        self, weaver: Weaver, stopped: Callable[[], bool]
    ) -> Generator[Readings, None, None]:
        """Yield what the line has not had yet."""
        source: Generator[Readings, None, None] = weaver.batches()
        if self.job.threads > 1:
            source = ahead(source)
        with closing(source) as batches:
            if self._resumed is None:
                self._begin()
                yield from batches
            else:
                yield from self._unseen(batches, self._resumed, stopped)

    def _begin(self) -> None:
        self.sink.begin()
        self._going = True

    def _unseen(
        self, batches: Iterator[Readings], resumed: dict[str, Any], stopped: Callable[[], bool]
    ) -> Iterator[Readings]:
        """Skip the records that the snapshot covers, making sure that they are the same."""
        left = covered = int(resumed["position"])
        if not left:
            self._same(resumed)
        for batch in batches:
            n = min(left, len(batch))
            if n:
                self._note(batch.cut(0, n))
                left -= n
                if not left:
                    self._same(resumed)
            if n < len(batch):
                yield batch.cut(n, len(batch))
            elif stopped():
                self.summary.interrupted = True
                return
        if left:
            raise SnapshotError(
                f"{self.job.resume}: covers {covered:,} records, but these readings give only "
                f"{covered - left:,}"
            )

    def _same(self, resumed: dict[str, Any]) -> None:
        if self._digest.value != resumed["log_digest"]:
            raise SnapshotError(
                f"{self.job.resume}: other readings than these: their first {self._position:,} "
                "records differ (files, their order, adapter, --from, --to and --sort must be the "
                "same; more may follow at the end)"
            )
        self._begin()

    def _note(self, batch: Readings) -> None:
        """Move on in the log."""
        if self.job.snapshot is not None or self._resumed is not None:
            self._digest.add(batch, self._position)
        self._position += len(batch)

    def _push(self, batch: Readings, on_alerts: Callable[[list[bytes]], None] | None) -> None:
        transitions = self.line.judge(batch)
        self._note(batch)
        summary = self.summary
        n_ticks = int(np.count_nonzero(batch.sensor == TICK))
        if summary.first_ms is None and n_ticks < len(batch):
            summary.first_ms = int(batch.event_ms[batch.sensor != TICK].min())
        summary.readings += len(batch) - n_ticks
        summary.ticks += n_ticks
        if not len(transitions):
            return
        summary.alerts.add(transitions)
        if self.job.output is None and on_alerts is None:
            return
        self._pending.append(transitions)
        self._n_pending += len(transitions)
        # many at once are written in less time each; who watches waits for none
        if on_alerts is not None or self._n_pending >= ENCODE_TOGETHER:
            self._encode(on_alerts)

    def _encode(self, on_alerts: Callable[[list[bytes]], None] | None = None) -> None:
        if not self._pending:
            return
        records = self.line.records.encode(np.concatenate(self._pending))
        self._pending, self._n_pending = [], 0
        self.sink.write(records)
        if on_alerts is not None:
            on_alerts(records)

    def _save(self) -> None:
        assert self.job.snapshot is not None
        # the alert log first: a snapshot must never be ahead of what it goes with
        self._encode()
        mark = self.sink.mark()
        extra = {"position": self._position, "log_digest": self._digest.value, "output": mark}
        self._snapshots.save(self.job.snapshot, self.line, extra)
        self.summary.snapshot = self.job.snapshot

    def _finish(self, weaver: Weaver, on_alerts: Callable[[list[bytes]], None] | None) -> None:
        """Save, then end the log: a longer history can go on from there as if it had not ended."""
        summary = self.summary
        if self.job.snapshot is not None and self._going:
            self._save()
        if summary.interrupted and not self._going:
            summary.notes.append("interrupted before the first new reading: nothing was changed")
        elif summary.interrupted:
            self._encode()
            self.sink.leave()
            if self.sink.name is not None:
                summary.output = self.sink.name
                summary.notes.append(f"the alert log so far is in {self.sink.name}")
        else:
            ending = weaver.ending()
            if len(ending):
                self._push(ending, on_alerts)
            self._encode()
            self.sink.finish()
            summary.output = None if self.job.output is None else str(self.job.output)
        self._report(weaver)

    def _report(self, weaver: Weaver) -> None:
        summary, tally = self.summary, self.history.tally
        summary.last_ms = weaver.newest_ms
        summary.counts = dict(self.line.counts)
        summary.no_time = tally.no_time
        summary.unknown_ids = tally.unknown_ids
        summary.unknown_overflow = tally.unknown_overflow
        summary.state_bytes = int(self.line.state.n_bytes)
        summary.source_bytes = self.line.state.n_source_bytes
        summary.n_active = int(np.count_nonzero(self.line.state.source["level"]))
        ids = self._catalog.source_id
        summary.top_sources = [(ids[s].as_py(), n) for s, n in summary.alerts.top_sources()]


class _LogDigest:
    """A 64-bit digest of the records of a log in order; how it is cut into batches is all the same.

    A sum of mixed records, each times an odd number of its position. It tells another history from
    the same one; it is no signature.
    """

    def __init__(self) -> None:
        self._sum = 0

    @property
    def value(self) -> str:
        return f"{self._sum:016x}"

    def add(self, batch: Readings, position: int) -> None:
        """Take records that stand at a position of the log."""
        mixed = batch.event_ms.astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
        mixed ^= batch.sensor.astype(np.uint32).astype(np.uint64) << np.uint64(8)
        mixed ^= batch.quality
        mixed *= np.uint64(0xD6E8_FEB8_6659_FD93)
        mixed ^= batch.value.view(np.uint64)
        mixed ^= mixed >> np.uint64(32)
        places = np.arange(position, position + len(batch), dtype=np.uint64)
        mixed *= places * np.uint64(2) + np.uint64(1)
        mixed ^= mixed >> np.uint64(29)
        self._sum = (self._sum + int(mixed.sum(dtype=np.uint64))) & _MASK


_END = object()


def ahead(
    batches: Generator[Readings, None, None], depth: int = 1
) -> Generator[Readings, None, None]:
    """Yield batches that a thread decodes while the one before is in the line."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    over = threading.Event()

    def put(item: object) -> bool:
        while not over.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def decode() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(_END)
        except BaseException as error:  # raised again where it is waited for
            put(error)

    worker = threading.Thread(target=decode, name="decode", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
        worker.join()
        batches.close()


def replay(job: Job, **watch: Any) -> Summary:
    """Prepare a job and run it; see `Replay.run` for what may watch."""
    return prepare(job).run(**watch)

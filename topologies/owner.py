"""The owner of partitions: takes fetches, keeps their state, and hands it over.

    assign → load the newest whole snapshot → replay the tail
    revoke → publish what is pending → snapshot → commit → release

Offsets are committed only behind a durable snapshot. What an owner may do with a fetch depends on
its place in the log alone: one that was taken already is passed over, one that leaves a gap is
read again from where the line stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from engine.errors import ForeignSnapshotError, SnapshotError, TocsinError
from engine.partition import Outcome, PartitionLine, Plans
from engine.resume import Resumer
from engine.snapshot import Room
from topologies import same_log
from topologies.backoff import Backoff
from topologies.kafka import is_passing
from topologies.publisher import Publisher
from topologies.same_log import Fingerprint, Mark
from topologies.transport import Fetch


class Log(same_log.Log, Protocol):
    """What an owner asks of the consumer of the readings."""

    async def reread(self, partition: int, offset: int) -> int:
        """Seek; return the epoch from which on fetches come of it."""

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit where the next owner may begin."""


class Watcher(Protocol):
    """Who is told what goes on, for logs, metrics and health."""

    def taken(self, partition: int, fetch: Fetch, outcome: Outcome, seconds: float) -> None:
        """A fetch went through the line."""

    def gap(self, partition: int, expected: int, found: int) -> None:
        """Messages were deleted before they were taken."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Exactly these are this worker's; the state of those that are new is yet to be had."""

    def released(self) -> None:
        """No partition is this worker's any more; a rebalance may bring them back."""

    def restored(self, partition: int, offset: int | None, seconds: float, notes: Any) -> None:
        """A partition's state was loaded; no offset: there was no snapshot."""

    def kept(self, partition: int) -> None:
        """A rebalance brought a partition back; its state was never away."""

    def saved(self, partition: int, pause_s: float, seconds: float, size: int) -> None:
        """A snapshot is durable."""

    def waits(self, error: Exception) -> None:
        """Partitions can't be taken over for now: the broker fails; it is tried again."""

    def unchanged(self, partition: int) -> None:
        """A snapshot was due, but the last one still covers all that was taken."""

    def committed(self, partition: int, offset: int) -> None:
        """The group knows where the next owner may begin."""

    def not_saved(self, partition: int, error: Exception) -> None:
        """A snapshot could not be written; nothing is committed."""


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns."""

    line: PartitionLine
    epoch: int = 0
    """Fetches of earlier calls than this that leave a gap are from before a seek.

    One that leaves none may be of a call that was under way when it was sought.
    """
    saved_offset: int = -1
    saved_at: float = 0.0
    last: Any = None
    """The last message that was taken."""
    generation: int = -1
    """The group's generation in which it was released, while it is kept for the next."""


class Owner:
    """The partitions of one worker and their state."""

    def __init__(
        self,
        plans: Plans,
        rules: str,
        resumer: Resumer,
        publisher: Publisher,
        log: Log,
        topic: str,
        watcher: Watcher,
        *,
        on_rejects: Callable[[int, Fetch, Outcome], Awaitable[None]],
        shadow: str | None = None,
    ) -> None:
        self.plans, self.rules = plans, rules
        self.resumer, self.publisher = resumer, publisher
        self.log, self.topic, self.watcher = log, topic, watcher
        self._on_rejects, self._shadow = on_rejects, shadow
        self.owned: dict[int, Owned] = {}
        self._kept: dict[int, Owned] = {}
        self._room = Room()
        self._saving = asyncio.Lock()
        self._handing_over = asyncio.Lock()
        self._backoff = Backoff()

    def positions(self) -> dict[int, int]:
        """Return the offset at which reading goes on, by partition."""
        return {
            partition: owned.line.next_offset
            for partition, owned in self.owned.items()
            if owned.line.next_offset is not None
        }

    @property
    def n_bytes(self) -> int:
        """Return the bytes of state of the partitions that are owned."""
        return sum(owned.line.n_bytes for owned in self.owned.values())

    async def take(self, fetch: Fetch) -> None:
        """Take a fetch of the readings, if it is what the line waits for."""
        partition = fetch.tp.partition
        owned = self.owned.get(partition)
        if owned is None:
            return  # its new owner reads it again
        expected = owned.line.next_offset
        assert expected is not None
        if fetch.next <= expected:
            return
        fetch = fetch.since(expected)
        if fetch.begin > expected:
            # perhaps what was in flight at a rebalance: ask for exactly what is expected
            if fetch.epoch >= owned.epoch:
                owned.epoch = 1 << 62
                owned.epoch = await self.log.reread(partition, expected)
            return
        begun = time.perf_counter()
        decoded = owned.line.decode(fetch.payloads, fetch.header("content-type"))
        if decoded.rules and not await self._compiled(decoded.rules, partition, owned, expected):
            return
        try:
            outcome = owned.line.take(fetch.offsets, decoded)
        except BaseException:
            del self.owned[partition]  # its state may be half changed: nobody may save it
            raise
        owned.last = fetch.messages[-1]
        self.publisher.put(partition, outcome.found)
        self.watcher.taken(partition, fetch, outcome, time.perf_counter() - begun)
        if outcome.new_rules is not None and not self._handing_over.locked():
            # else what a partition under way begins with would be forgotten, too
            in_force = {each.line.rules for each in self.owned.values()}
            self.plans.keep(in_force | {self.rules, self._shadow or self.rules})
        # only now wait: the state and what came of it belong together
        if outcome.rejects:
            await self._on_rejects(partition, fetch, outcome)
        await self.publisher.room(partition)
        if fetch.first > expected:
            await self._tell_lost(partition, expected, fetch.first)

    async def _tell_lost(self, partition: int, expected: int, first: int) -> None:
        """Tell of a gap if the log begins in it or behind it; else nothing is lost.

        What was aborted, and the marks of transactions, leave gaps as well.
        """
        try:
            earliest, _ = (await self.log.bounds([partition]))[partition]
        except (KafkaError, TimeoutError):
            return  # no more to be known
        if earliest > expected:
            self.watcher.gap(partition, expected, first)

    async def _compiled(
        self, texts: Sequence[str], partition: int, owned: Owned, expected: int
    ) -> bool:
        """Compile rules off the loop; return whether the fetch is still what the line waits for."""
        for text in texts:
            with contextlib.suppress(TocsinError):
                await asyncio.to_thread(self.plans.compile, text)
        return self.owned.get(partition) is owned and owned.line.next_offset == expected

    async def adopt(self, partitions: Sequence[int], generation: int) -> None:
        """Own exactly these: from memory where nobody can have had them, else from snapshots."""
        async with self._handing_over:
            self.owned = {p: owned for p, owned in self.owned.items() if p in partitions}
            self.watcher.assigned(partitions)
            fresh, marks = [], {}
            for partition in sorted(set(partitions) - self.owned.keys()):
                kept = self._kept.pop(partition, None)
                if kept is not None and kept.generation == generation - 1:
                    kept.epoch = 0  # the rebalance has sought by itself
                    self.owned[partition] = kept
                    self.watcher.kept(partition)
                    marks[partition] = [Mark("this worker has read it", kept.line.next_offset or 0)]
                else:
                    fresh.append(partition)
            self._kept.clear()
            bounds = await self._looked_at(fresh, marks)
            for partition in fresh:
                await self._restored(partition, bounds[partition][0])

    async def _looked_at(
        self, fresh: Sequence[int], marks: dict[int, list[Mark]]
    ) -> Mapping[int, tuple[int, int | None]]:
        """Learn what of the logs was read, and that they are the same; return their bounds.

        A broker that fails is asked again: it often does when partitions change hands.
        """
        tries = 0
        while marks or fresh:
            try:
                if fresh:
                    await self.publisher.adopt(fresh)
                    marks |= {partition: await self._marks(partition) for partition in fresh}
                return await same_log.check(self.log, self.topic, marks)
            except (KafkaError, OSError) as error:
                if not is_passing(error):
                    raise
                tries += 1
                self.watcher.waits(error)
                await asyncio.sleep(self._backoff.pause_s(tries, permanent=False))
        return {}

    async def _marks(self, partition: int) -> list[Mark]:
        """Return how far a partition's log was read, as snapshots and the alerts topic say."""
        marks = await asyncio.to_thread(same_log.of_snapshots, self.resumer.store, partition)
        offset, _ = self.publisher.last(partition)
        return [*marks, Mark(f"{self.publisher.topic} has alerts of it", offset + 1)]

    async def _restored(self, partition: int, earliest: int) -> None:
        begun = time.perf_counter()
        line = PartitionLine(self.plans, self.rules, partition)
        try:
            notes = await asyncio.to_thread(line.restore, self.resumer)
        except ForeignSnapshotError:
            raise
        except SnapshotError as error:
            if earliest > 0:
                raise
            notes = [f"{error}: the whole log is there, it is taken from its beginning"]
        offset = line.next_offset
        if offset is None:
            line.next_offset = earliest
        elif offset < earliest:
            self.watcher.gap(partition, offset, earliest)
            line.next_offset = earliest
        await asyncio.to_thread(self._room.prepare, line.pipeline)
        if self._shadow is not None:
            await asyncio.to_thread(line.compare_with, self._shadow)
        assert line.next_offset is not None
        self.owned[partition] = Owned(
            line, saved_offset=line.next_offset, saved_at=time.monotonic()
        )
        self.watcher.restored(partition, offset, time.perf_counter() - begun, notes)

    async def release(self, generation: int) -> None:
        """Hand everything over: what comes after the snapshots is the next owners' to take."""
        async with self._handing_over:
            leaving, self.owned = self.owned, {}
            self.watcher.released()
            for partition, owned in sorted(leaving.items()):
                await self._save(partition, owned)
                owned.generation = generation
            self._kept = leaving

    async def save_oldest(self, older_than_s: float) -> None:
        """Save the partition whose snapshot is the oldest, if it is older than that."""
        now = time.monotonic()
        due = [
            (owned.saved_at, partition)
            for partition, owned in self.owned.items()
            if now - owned.saved_at >= older_than_s
        ]
        if due:
            partition = min(due)[1]
            await self._save(partition, self.owned[partition])

    async def _save(self, partition: int, owned: Owned) -> None:
        """Write a snapshot, then commit; a failure leaves the one before in force."""
        async with self._saving:
            offset = owned.line.next_offset
            owned.saved_at = time.monotonic()
            if offset is None or offset == owned.saved_offset:
                self.watcher.unchanged(partition)
                return
            begun = time.perf_counter()
            frozen = owned.line.freeze(self._room)
            frozen.meta["extra"][same_log.KEY] = list(Fingerprint.of(owned.last))
            pause_s = time.perf_counter() - begun
            try:
                # never a snapshot of what is not in the alerts topic yet
                await self.publisher.flush([partition])
                written = await asyncio.to_thread(self.resumer.store.write, frozen, offset)
            except (SnapshotError, OSError) as error:
                self.watcher.not_saved(partition, error)
                return
            finally:
                frozen.release()
            owned.saved_offset = offset
            seconds = time.perf_counter() - begun
            self.watcher.saved(partition, pause_s, seconds, written.n_bytes)
        try:
            if await self.log.commit({partition: offset}):
                self.watcher.committed(partition, offset)
        except asyncio.CancelledError:
            # the consumer's thread, when it ends, cancels what it was asked; that is not our end
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise

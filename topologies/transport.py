"""Faust's transport, carrying whole fetches of a partition and resuming where the state stands.

Faust hands on one message at a time; at millions of readings a second that alone would take the
core. Its `ConsumerScheduler` setting decides what a fetch becomes: here one record for all messages
of a partition. What was consumed is known by the state of the partition, not by acks or committed
offsets, so a consumer that (re)starts seeks to where the owner of the state says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class Fetch:
    """All messages of one fetch of one partition, in the log's order.

    Each has an offset, a timestamp, a key, a value and headers.
    """

    __slots__ = ("begin", "epoch", "messages", "tp")

    def __init__(
        self, tp: TP, messages: list[Any], epoch: int, *, begin: int | None = None
    ) -> None:
        self.tp = tp
        self.messages = messages
        self.epoch = epoch
        """Which call for records it came of; later calls have higher numbers."""
        first = int(messages[0].offset)
        self.begin = first if begin is None else min(begin, first)
        """The log has no messages from this offset up to the first: they were aborted or deleted,
        or were marks that end a transaction."""

    def __len__(self) -> int:
        """Count the messages."""
        return len(self.messages)

    @property
    def first(self) -> int:
        """Return the offset of the first message."""
        return int(self.messages[0].offset)

    @property
    def next(self) -> int:
        """Return the offset after the last message."""
        return int(self.messages[-1].offset) + 1

    @property
    def payloads(self) -> list[bytes]:
        """Return what each message carries; a tombstone carries nothing."""
        return [message.value or b"" for message in self.messages]

    @property
    def offsets(self) -> Sequence[int]:
        """Return the offset of each message."""
        if self.next - self.first == len(self.messages):
            return range(self.first, self.next)
        return [message.offset for message in self.messages]

    def header(self, name: str) -> list[str | None] | None:
        """Return one header of each message, None if no message has headers at all."""
        if not any(message.headers for message in self.messages):
            return None
        return [header_of(message.headers, name) for message in self.messages]

    def since(self, offset: int) -> Fetch:
        """Return the messages at or after an offset."""
        if self.first >= offset:
            return self
        messages = [m for m in self.messages if m.offset >= offset]
        return Fetch(self.tp, messages, self.epoch, begin=offset)


def header_of(headers: Sequence[tuple[str, bytes]], name: str) -> str | None:
    """Return a message's header of a name, None if it has none."""
    for key, value in headers:
        if key == name:
            return (value or b"").decode("ascii", "replace")
    return None


@dataclass(slots=True)
class _Coalesced:
    """What Faust takes for one record: the fetch, at the offset of its last message."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    timestamp_type: int | None
    value: Fetch
    key: None = None
    headers: tuple[Any, ...] = ()
    checksum: None = None
    serialized_key_size: int = -1
    serialized_value_size: int = -1


FETCH_WAIT_MS = 50
"""How long a broker holds a request for which there is nothing yet."""
SHORT_WAIT_MS = 5
"""The same while messages of other partitions are at hand: theirs are asked for after it."""


class CoalescingScheduler:
    """One record for each partition of a fetch: Faust's `ConsumerScheduler`."""

    epoch = 0

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Yield (topic and partition, its messages as one record)."""
        for tp, messages in records.items():
            if not messages:
                continue
            last = messages[-1]
            begin = getattr(messages, "begin", None)
            fetch = Fetch(TP(tp.topic, tp.partition), messages, self.epoch, begin=begin)
            yield (
                tp,
                _Coalesced(
                    tp.topic, tp.partition, last.offset, last.timestamp, last.timestamp_type, fetch
                ),
            )


class FetchSchema(faust.Schema):
    """Hands a fetch on as it is: there is nothing to decode yet."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:
        """Return no key: a fetch has as many as messages."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        """Return the fetch."""
        return message.value


Positions = Callable[[set[TP]], Mapping[TP, int]]
"""Given what is assigned, the offsets at which reading goes on, for partitions with a state."""


class _Arrivals(OrderedDict[Any, Any]):
    """What aiokafka has fetched and nobody has taken; its messages stay as they lie in the log.

    To make a ConsumerRecord of each takes 1.2 µs, most of what fetching costs.

    What is at hand is not asked for again until it is taken, and a request for the rest, of which
    there may be nothing, stands in the way of that: so it must be short.
    """

    def __init__(self, fetcher: Any) -> None:
        super().__init__()
        self._fetcher = fetcher

    def __setitem__(self, tp: Any, found: Any) -> None:
        records = getattr(found, "_partition_records", None)  # a failure has none
        if records is not None:
            records._consumer_record = _as_it_lies
        super().__setitem__(tp, found)
        self._fetcher._fetch_max_wait_ms = SHORT_WAIT_MS

    def __delitem__(self, tp: Any) -> None:
        super().__delitem__(tp)
        self._fetcher._fetch_max_wait_ms = SHORT_WAIT_MS if self else FETCH_WAIT_MS


def _as_it_lies(tp: Any, record: Any) -> Any:
    return record


class _Run(list[Any]):
    """Messages of a partition that were read on from `begin`, so that there are none before."""

    begin: int | None = None


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Reads what is committed, and knows from where on each fetch was read.

    Survives commits that fail: a broker that restarts is no reason to end a worker.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read: dict[TP, int] = {}
        """Before this offset everything since the last seek was handed on."""

    async def on_start(self) -> None:
        """Connect."""
        await super().on_start()
        fetcher = self._ensure_consumer()._fetcher
        fetcher._records = _Arrivals(fetcher)
        seek_to = fetcher.seek_to

        def seek(tp: Any, offset: int) -> None:
            self._read[tp] = offset
            seek_to(tp, offset)

        fetcher.seek_to = seek

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust asks brokers to wait 1.5 s for a message; the embedded one then looks every 0.75 s
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        # as the dump and every other reader: live and replay must see the same messages
        consumer._isolation_level = "read_committed"
        return consumer

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> Any:
        records: Mapping[TP, list[Any]] = await super()._fetch_records(*args, **kwargs)
        runs = {tp: _Run(messages) for tp, messages in records.items()}
        for tp, run in runs.items():
            # seeks are this thread's, too, so there was none since the client gave these
            run.begin = self._read.get(tp)
            self._read[tp] = run[-1].offset + 1
        return runs

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was read: others may read on."""
        self._read.clear()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin anew: the client did."""
        self._read.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    def n_waiting(self, tp: TP, offset: int) -> int | None:
        """Return how many offsets wait from an offset on, None if not known.

        What an open transaction holds back does not wait yet.
        """
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or tp not in assignment.tps:
            return None
        state = assignment.state_value(tp)
        end = state.highwater if state.lso in (None, -1) else state.lso
        if end is None:
            return None
        if self._read.get(tp) == offset and state.has_valid_position:
            # all messages were taken: up to where the client stands there are only marks
            offset = max(offset, state.position)
        return max(0, end - offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        mine = self.assignment()
        wanted = {
            driver.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in mine
        }
        if not wanted:
            return False
        try:
            await consumer.commit(wanted)
        except KafkaError as error:
            self.log.warning("offsets were not committed, the next commit covers them: %r", error)
            return False
        return True


class Consumer(driver.Consumer):
    """Seeks to where the owner of the state says, and numbers its calls for records."""

    transport: Any
    scheduler: Any
    _thread: ConsumerThread
    epoch = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: set[str] = set()

    def hold(self, topic: str, holding: bool) -> None:
        """Take no more of a topic for now, or go on with it.

        Faust's `pause_partitions` would lose what was fetched already but not handed on yet.
        """
        (self._held.add if holding else self._held.discard)(topic)

    def on_buffer_full(self, tp: TP) -> None:
        """Let the fetcher wait for a full agent, rather than leave its partitions out.

        Once it has left out all of them, Faust sleeps for a whole second.
        """

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if active_partitions and self._held:
            active_partitions = {tp for tp in active_partitions if tp.topic not in self._held}
            if not active_partitions:  # which would stand for all of them
                await self.sleep(FETCH_WAIT_MS / 1000)
                return {}
        self.epoch += 1
        epoch = self.epoch
        records = await super()._getmany(active_partitions, timeout)
        self.scheduler.epoch = epoch
        return records

    async def perform_seek(self) -> None:
        """Seek to committed offsets, and where there is a state, to its position.

        Where nothing is committed yet, Faust would go on behind what it fetched during the
        rebalance and threw away: seek to the beginning.
        """
        await super().perform_seek()
        assigned = self.assignment()
        committed = {tp: self._read_offset[tp] for tp in assigned}
        fresh = [tp for tp, offset in committed.items() if offset is None]
        positions = dict(await self.earliest_offsets(*fresh)) if fresh else {}
        positions |= self.transport.positions(assigned)
        if positions:
            await self._seek_to(positions)
        self.transport.on_seek(committed, self.epoch + 1)

    def n_waiting(self, tp: TP, offset: int) -> int | None:
        """Return how many offsets wait from an offset on, None if not known."""
        return self._thread.n_waiting(tp, offset)

    async def reread(self, tp: TP, offset: int) -> int:
        """Seek one partition; return the epoch from which on fetches come of it."""
        await self._seek_to({tp: offset})
        return self.epoch + 1

    async def _seek_to(self, positions: Mapping[TP, int]) -> None:
        await self.seek_wait(positions)
        # what lies before this Faust takes for read, and drops without a word
        self._read_offset.update(dict.fromkeys(positions))

    async def commit_positions(self, offsets: Mapping[TP, int]) -> bool:
        """Commit the offsets at which the next owner may begin; False if they were not taken."""
        if self.app.crashed:
            return False  # the thread that commits is gone: to ask it would hide what failed
        return await self._commit(offsets)


class Transport(driver.Transport):
    """The transport of a worker.

    `positions` belongs to the owner of the state; `on_seek` is told what is committed for each
    partition assigned, and as of which epoch fetches come of it, before any of their messages is
    handed on.
    """

    Consumer = Consumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.positions: Positions = lambda assigned: {}
        self.on_seek: Callable[[Mapping[TP, int | None], int], None] = lambda committed, epoch: None

"""Alerts to Kafka, each exactly once, whoever published the one before.

A partition's alerts are numbered by (offset of the message that caused them, number within it), and
the same log always gives the same numbers. So the last alert in the topic says what was published,
and a new owner that replays the tail publishes only what comes after it. While one owner writes,
an idempotent producer keeps a retry from doubling (brokers that lack it say so at the start).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from engine.placed import Alert, Place, Told, Untold, written
from topologies.backoff import Backoff

Message = tuple[bytes | None, bytes, list[tuple[str, bytes]]]
NOTHING: Place = (-1, -1)
AT_HEADER = "at"
MOST_PENDING = 20_000
"""Alerts of a partition that wait; beyond it the partition takes no more readings."""
_LOOK_BACK = 64


def at_header(partition: int, place: Place) -> bytes:
    """Return where an alert stands, as its message says it."""
    return b"%d/%d/%d" % (partition, *place)


def parse_at(headers: Sequence[tuple[str, bytes]]) -> tuple[int, int, int] | None:
    """Return (partition, offset, index) of an alert message, None if it says nothing of it."""
    for key, value in headers:
        if key == AT_HEADER:
            try:
                partition, offset, index = value.split(b"/")
                return int(partition), int(offset), int(index)
            except (ValueError, AttributeError):  # a header may have no value at all
                return None
    return None


class Publisher:
    """Publishes the alerts of the partitions that this worker owns.

    `new_producer` and `new_consumer` make connected clients' objects, not yet started.
    """

    def __init__(
        self,
        topic: str,
        rejects_topic: str,
        new_producer: Callable[[], AIOKafkaProducer],
        new_consumer: Callable[[], AIOKafkaConsumer],
        *,
        linger_s: float,
        on_trouble: Callable[[str], None],
    ) -> None:
        self.topic, self.rejects_topic = topic, rejects_topic
        self._new_producer, self._new_consumer = new_producer, new_consumer
        self._linger_s, self._on_trouble = linger_s, on_trouble
        self.producer: AIOKafkaProducer | None = None
        self._unwritten: list[tuple[int, Told | Untold]] = []
        self._pending: dict[int, list[Alert]] = defaultdict(list)
        self._last: dict[int, Place] = {}  # the last that was put in
        self._letters: list[tuple[str, bytes]] = []
        self._n_letters = [0, 0]  # put in, durable
        self._changed = asyncio.Condition()
        self._woken = asyncio.Event()
        self._busy: set[int] = set()
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._backoff = Backoff()

    async def start(self) -> None:
        """Connect, and begin to publish."""
        self.producer = self._new_producer()
        await self.producer.start()
        self._task = asyncio.create_task(self._run(), name="publisher")

    async def stop(self) -> None:
        """Stop publishing; what is pending is dropped: its readings were not committed."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.producer is not None:
            await self.producer.stop()

    async def adopt(self, partitions: Sequence[int]) -> None:
        """Learn from the topic what was published for partitions."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._idle(partitions))
        self._unwritten = [each for each in self._unwritten if each[0] not in partitions]
        for partition in partitions:
            self._pending.pop(partition, None)
        found = await self._tails(partitions)
        for partition in partitions:
            self._last[partition] = found.get(partition, NOTHING)

    def last(self, partition: int) -> Place:
        """Return the place of the last alert of a partition, put in or already in the topic."""
        return self._last.get(partition, NOTHING)

    def put(self, partition: int, parts: Sequence[Told | Untold]) -> None:
        """Take alerts to publish; those that were published before are passed over."""
        for part in parts:
            last = self._last[partition]
            new = part.after(last) if part.first <= last else part
            if len(new):
                self._last[partition] = new.last
                self._unwritten.append((partition, new))
                self._woken.set()

    def reject(self, records: Sequence[bytes]) -> None:
        """Take records of what was rejected; they may come twice after a crash."""
        self.tell(self.rejects_topic, records)

    def tell(self, topic: str, records: Sequence[bytes]) -> None:
        """Take records for a topic of one partition; they may come twice after a crash."""
        self._letters.extend((topic, record) for record in records)
        self._n_letters[0] += len(records)
        self._woken.set()

    async def room(self, partition: int) -> None:
        """Wait until a partition may give more alerts and rejects; raises what ended publishing."""

        def full() -> bool:
            self._check()
            unwritten = sum(len(part) for of, part in self._unwritten if of == partition)
            pending = len(self._pending.get(partition, ()))
            return max(unwritten + pending, len(self._letters)) > MOST_PENDING

        if full():
            async with self._changed:
                await self._changed.wait_for(lambda: not full())

    async def flush(self, partitions: Sequence[int]) -> None:
        """Wait until everything put in for partitions so far is durable in the topic."""
        self._write()
        targets = {p: self._last[p] for p in partitions if self._pending.get(p)}
        n_letters = self._n_letters[0]

        def done() -> bool:
            self._check()
            return self._n_letters[1] >= n_letters and all(
                not (pending := self._pending.get(p)) or pending[0].place > target
                for p, target in targets.items()
            )

        async with self._changed:
            await self._changed.wait_for(done)

    async def failure(self) -> Exception:
        """Wait for what ends publishing for good, and return it."""
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._failed.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _idle(self, partitions: Sequence[int]) -> bool:
        self._check()
        return not self._busy.intersection(partitions)

    def _write(self) -> None:
        """Write the records of what waits, all in one go."""
        unwritten, self._unwritten = self._unwritten, []
        try:
            parts = written([part for _, part in unwritten])
        except Exception as error:
            self._fail(error)  # they are lost to this worker: it must end
            raise
        for (partition, _), alerts in zip(unwritten, parts, strict=True):
            self._pending[partition] += alerts

    async def _run(self) -> None:
        try:
            await self._publish()
        except Exception as error:
            self._fail(error)
            async with self._changed:
                self._changed.notify_all()

    async def _publish(self) -> None:
        tries = 0
        while True:
            await self._woken.wait()
            if self._linger_s:
                await asyncio.sleep(self._linger_s)
            self._woken.clear()
            self._write()
            sent = {p: list(alerts) for p, alerts in self._pending.items() if alerts}
            letters = list(self._letters)
            if not sent and not letters:
                continue
            self._busy.update(sent)
            try:
                await self._send(sent, letters)
                tries = 0
            except (KafkaError, OSError) as error:
                self._on_trouble(f"alerts wait, the broker does not take them: {error!r}")
                tries += 1
                await asyncio.sleep(self._backoff.pause_s(tries, permanent=False))
                await self._recover(sent)
            else:
                for partition, alerts in sent.items():
                    del self._pending.get(partition, [])[: len(alerts)]
                del self._letters[: len(letters)]
                self._n_letters[1] += len(letters)
            self._busy.clear()
            if self._letters or any(self._pending.values()):
                self._woken.set()
            async with self._changed:
                self._changed.notify_all()

    async def _send(
        self, sent: Mapping[int, Sequence[Alert]], letters: Sequence[tuple[str, bytes]]
    ) -> None:
        waiting = []
        for partition, alerts in sent.items():
            messages = (
                (alert.key, alert.record, [(AT_HEADER, at_header(partition, alert.place))])
                for alert in alerts
            )
            waiting += await self._submit(self.topic, partition, messages)
        by_topic: dict[str, list[Message]] = {}
        for topic, record in letters:
            by_topic.setdefault(topic, []).append((None, record, []))
        for topic, given in by_topic.items():
            waiting += await self._submit(topic, 0, given)
        await asyncio.gather(*waiting)

    async def _submit(self, topic: str, partition: int, messages: Iterable[Message]) -> list[Any]:
        """Hand messages over in as few batches as they fit in; return what says they arrived."""
        assert self.producer is not None
        now_ms = int(time.time() * 1000)
        waiting = []
        batch = self.producer.create_batch()
        for key, value, headers in messages:
            parts = {"timestamp": now_ms, "key": key, "value": value, "headers": headers}
            if batch.append(**parts) is None:
                waiting.append(await self.producer.send_batch(batch, topic, partition=partition))
                batch = self.producer.create_batch()
                batch.append(**parts)
        waiting.append(await self.producer.send_batch(batch, topic, partition=partition))
        return waiting

    async def _recover(self, sent: Mapping[int, Sequence[Alert]]) -> None:
        """Find out what of a failed send is in the topic after all; the rest stays pending."""
        tries = 0
        while True:
            try:
                if self.producer is not None:
                    with contextlib.suppress(KafkaError, OSError):
                        await self.producer.stop()
                    self.producer = None
                producer = self._new_producer()
                await producer.start()
                self.producer = producer
                tails = await self._tails(list(sent))
                break
            except (KafkaError, OSError) as error:
                self._on_trouble(f"alerts wait, the broker can't be reached: {error!r}")
                tries += 1
                await asyncio.sleep(self._backoff.pause_s(tries, permanent=False))
        for partition in sent:
            tail = tails.get(partition, NOTHING)
            pending = self._pending.get(partition)
            if pending:
                pending[:] = [alert for alert in pending if alert.place > tail]

    async def _tails(self, partitions: Sequence[int]) -> dict[int, Place]:
        """Return where the last alert of each partition in the topic stands."""
        if not partitions:
            return {}
        consumer = self._new_consumer()
        await consumer.start()
        try:
            tps = [TopicPartition(self.topic, partition) for partition in partitions]
            consumer.assign(tps)
            first = await consumer.beginning_offsets(tps)
            end = await consumer.end_offsets(tps)
            found: dict[int, Place] = {}
            for tp in tps:
                at = await _tail(consumer, tp, first[tp], end[tp])
                if at is not None:
                    found[tp.partition] = at
            return found
        finally:
            await consumer.stop()


async def _tail(consumer: AIOKafkaConsumer, tp: Any, first: int, end: int) -> Place | None:
    """Return the place of the last alert of a partition, looking further back until one says it."""
    look_back = _LOOK_BACK
    while end > first:
        start = max(first, end - look_back)
        consumer.seek(tp, start)
        last: Place | None = None
        while await consumer.position(tp) < end:
            records = (await consumer.getmany(tp, timeout_ms=1000)).get(tp, [])
            for record in records:
                found = parse_at(record.headers)
                if found is not None and found[0] == tp.partition:
                    at = found[1:]
                    last = at if last is None else max(last, at)
            if not records:
                break
        if last is not None or start == first:
            return last
        look_back *= 16
    return None

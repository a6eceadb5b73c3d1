"""Kafka clients and topics, as the settings say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    UnknownError,
    UnsupportedVersionError,
)

from engine.errors import TocsinError
from topologies.kafka_client import kafka_arguments
from topologies.settings import Settings

MAX_BATCH_BYTES = 1 << 19
MAX_REQUEST_BYTES = 1 << 20
CREATED_S = 15.0
"""Within which a created topic must be seen."""
LOOK_UP_S = 10.0
"""Within which single messages are looked up; what is not there by then counts as not known."""


class BrokerError(TocsinError):
    """Kafka can't be reached, or its topics are not as they must be."""


def is_passing(error: Exception) -> bool:
    """Return whether what a broker refused may be asked again, and then succeed."""
    return isinstance(error, OSError | KafkaTimeoutError) or bool(
        getattr(error, "retriable", False)
    )


def new_producer(settings: Settings, *, idempotent: bool = True, **more: Any) -> AIOKafkaProducer:
    """Return a producer, not started, whose messages are acknowledged by all replicas."""
    return AIOKafkaProducer(
        **kafka_arguments(settings),
        acks="all",
        enable_idempotence=idempotent,
        max_batch_size=MAX_BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
        **more,
    )


def new_consumer(settings: Settings, *topics: str, **more: Any) -> AIOKafkaConsumer:
    """Return a consumer of committed messages, not started, in no group unless given one."""
    return AIOKafkaConsumer(
        *topics,
        **kafka_arguments(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **more,
    )


async def is_idempotent(settings: Settings) -> bool:
    """Return whether the broker tells a retry from a new message."""
    producer = new_producer(settings)
    try:
        with _refusal_unsaid():
            await producer.start()
        return True
    except (KafkaError, UnsupportedVersionError):
        return False
    finally:
        await producer.stop()


@contextmanager
def _refusal_unsaid() -> Iterator[None]:
    """Keep an error out of the log that is an answer: what the embedded broker says when asked.

    Any other error of the question is logged as ever, and so are other producers' meanwhile.
    """
    asking = asyncio.current_task()
    sender = logging.getLogger("aiokafka.producer.sender")

    def is_news(record: logging.LogRecord) -> bool:
        answered = "InitProducerIdRequest" in str(record.msg) and record.args == (UnknownError,)
        return not (answered and asyncio.current_task() is asking)

    sender.addFilter(is_news)
    try:
        yield
    finally:
        sender.removeFilter(is_news)


async def ensure_topics(
    settings: Settings, wanted: Mapping[str, int], compacted: Sequence[str] = ()
) -> list[str]:
    """Create topics that are not there with their partitions; return those created.

    Raises ``BrokerError`` where one is there with another number of partitions.
    """
    async with _admin(settings) as admin:
        there = await _partitions(admin, list(wanted))
        missing = [name for name in wanted if name not in there]
        if missing:
            await _create(admin, settings, {n: wanted[n] for n in missing}, compacted)
            deadline = time.monotonic() + CREATED_S
            while len(there := await _partitions(admin, list(wanted))) < len(wanted):
                # another broker, or this one a moment later, may not have heard of it yet
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.05)
        _refuse_misfits(settings, there, wanted)
        return missing


async def expect_topic(settings: Settings, name: str, n: int) -> None:
    """Raise ``BrokerError`` unless a topic is there, with ``n`` partitions; create nothing."""
    async with _admin(settings) as admin:
        there = await _partitions(admin, [name])
    if name not in there:
        raise BrokerError(f"topic {name}: is not there (topic_prefix = {settings.topic_prefix!r})")
    _refuse_misfits(settings, there, {name: n})


async def topics_missing(settings: Settings, topics: Iterable[str]) -> set[str]:
    """Return those of some topics that are not there, or that we may not see."""
    async with _admin(settings) as admin:
        return set(topics) - set(await admin.list_topics())


def no_answer(settings: Settings, error: Exception) -> BrokerError:
    """Return what is said where no broker answers."""
    brokers = ", ".join(settings.kafka_brokers)
    return BrokerError(f"kafka_brokers: none of {brokers} answers: {error}")


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield a client that looks at topics; raises ``BrokerError`` if no broker answers."""
    admin = AIOKafkaAdminClient(**kafka_arguments(settings))
    try:
        await admin.start()
    except KafkaError as error:
        raise no_answer(settings, error) from error
    try:
        yield admin
    finally:
        await admin.close()


def _refuse_misfits(
    settings: Settings, there: Mapping[str, int], wanted: Mapping[str, int]
) -> None:
    alone = [settings.topic(each) for each in ("rejects", "commands", "rules", "shadow")]
    for name, n in wanted.items():
        if there.get(name) != n:
            raise _wrong_partitions(name, there.get(name, 0), n, name not in alone)


def _wrong_partitions(topic: str, found: int, wanted: int, per_catalog: bool) -> BrokerError:
    has = f"topic {topic}: has {found} partition{'' if found == 1 else 's'}, must have {wanted}"
    if per_catalog:
        return BrokerError(
            f"{has}: as many as the catalog; build the catalog for what is there (tocsin catalog "
            "build --partitions) or give topics of another name (topic_prefix)"
        )
    return BrokerError(
        f"{has}: one order for all of it; delete the topic, a worker makes it anew, or give topics "
        "of another name (topic_prefix)"
    )


@contextmanager
def failing() -> Iterator[None]:
    """Turn what a client raises while Kafka fails it into a ``BrokerError``."""
    try:
        yield
    except KafkaError as error:
        raise BrokerError(f"Kafka fails: {error}") from error


async def _partitions(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    known = set(await admin.list_topics())
    names = [name for name in names if name in known]
    if not names:
        return {}
    found = await admin.describe_topics(names)
    return {each["topic"]: len(each["partitions"]) for each in found if not each["error_code"]}


async def _create(
    admin: AIOKafkaAdminClient,
    settings: Settings,
    wanted: Mapping[str, int],
    compacted: Sequence[str],
) -> None:
    topics = [
        NewTopic(
            name,
            n,
            settings.topic_replication,
            topic_configs={"cleanup.policy": "compact"} if name in compacted else {},
        )
        for name, n in wanted.items()
    ]
    try:
        answer = await admin.create_topics(topics)
    except TopicAlreadyExistsError:
        return  # another worker was faster; what it made is looked at next
    except KafkaError as error:
        raise BrokerError(f"topics {', '.join(wanted)}: can't be created: {error}") from error
    for name, code, *message in getattr(answer, "topic_errors", ()):
        if code not in (0, TopicAlreadyExistsError.errno):
            raise BrokerError(f"topic {name}: can't be created: {message or code}")


async def messages_at(
    settings: Settings, topic: str, places: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], Any]:
    """Return messages by (partition, offset), without those that are not there."""
    waiting: dict[int, list[int]] = {}
    for partition, offset in places:
        waiting.setdefault(partition, []).append(offset)
    found: dict[tuple[int, int], Any] = {}
    if not waiting:
        return found
    consumer = new_consumer(settings)
    await consumer.start()
    deadline = time.monotonic() + LOOK_UP_S
    try:
        while waiting and time.monotonic() < deadline:
            # one offset of each partition at a time
            now = {TopicPartition(topic, p): offsets.pop() for p, offsets in waiting.items()}
            waiting = {p: offsets for p, offsets in waiting.items() if offsets}
            consumer.assign(list(now))
            for tp, offset in now.items():
                consumer.seek(tp, offset)
            while now and time.monotonic() < deadline:
                for tp, records in (await consumer.getmany(*now, timeout_ms=500)).items():
                    offset = now.pop(tp, -1)
                    if records[0].offset == offset:
                        found[tp.partition, offset] = records[0]
        return found
    finally:
        await consumer.stop()


async def end_offsets(consumer: AIOKafkaConsumer, topic: str, n: int) -> dict[int, int]:
    """Return the offset after the last message of each partition."""
    tps = [TopicPartition(topic, partition) for partition in range(n)]
    return {tp.partition: offset for tp, offset in (await consumer.end_offsets(tps)).items()}

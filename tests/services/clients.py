"""The few steps with a broker that several tests need."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


async def create_topic(name: str, partitions: int = 1, **client: Any) -> None:
    """Create a topic; `client` are the keyword arguments of aiokafka's clients."""
    admin = AIOKafkaAdminClient(**client)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()
    [(_, code, message)] = answer.topic_errors
    assert code == 0, message


async def send(topic: str, values: list[bytes], *, partition: int = 0, **client: Any) -> None:
    """Send messages in order, and return when the broker has them all."""
    producer = AIOKafkaProducer(**client)
    await producer.start()
    try:
        for value in values:
            await producer.send(topic, value, partition=partition)
        await producer.flush()
    finally:
        await producer.stop()


async def read(
    topic: str, n: int, *, partition: int = 0, **client: Any
) -> list[ConsumerRecord[bytes, bytes]]:
    """Read the first n messages of a partition, waiting for them."""
    consumer = AIOKafkaConsumer(**client)
    await consumer.start()
    try:
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, 0)
        messages: list[ConsumerRecord[bytes, bytes]] = []
        while len(messages) < n:
            for fetched in (await consumer.getmany(timeout_ms=1000)).values():
                messages += fetched
        return messages[:n]
    finally:
        await consumer.stop()

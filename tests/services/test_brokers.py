"""What Tocsin counts on from a broker, and where the embedded one differs from Apache Kafka."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from tests.services.clients import create_topic, read, send
from tests.services.kafka import Kafka
from tests.services.redis import await_that
from tests.services.test_embedded import ROOT, gone
from topologies.embedded import EmbeddedBroker

_numbers = count()


@pytest.fixture
def topic() -> str:
    return f"topic-{next(_numbers)}"


@pytest.fixture
def at(any_broker: EmbeddedBroker | Kafka) -> dict[str, Any]:
    """The keyword arguments of clients of either broker."""
    return {"bootstrap_servers": any_broker.bootstrap}


def test_a_topic_has_the_partitions_that_were_asked_for(at: dict[str, Any], topic: str) -> None:
    async def describe() -> tuple[int, int]:
        await create_topic(topic, 7, **at)
        admin = AIOKafkaAdminClient(**at)
        await admin.start()
        try:
            [told] = await admin.describe_topics([topic])
            return told["error_code"], len(told["partitions"])
        finally:
            await admin.close()

    assert asyncio.run(describe()) == (0, 7)


def test_a_topic_that_exists_is_told_by_its_code(at: dict[str, Any], topic: str) -> None:
    async def twice() -> None:
        await create_topic(topic, 2, **at)
        with pytest.raises(AssertionError, match="already exists"):
            await create_topic(topic, 3, **at)

    asyncio.run(twice())


def test_a_message_keeps_key_headers_time_and_a_null_value(at: dict[str, Any], topic: str) -> None:
    headers = [("at", b"1/2/3"), ("empty", b"")]

    async def round_trip() -> list[tuple[Any, ...]]:
        await create_topic(topic, **at)
        async with AIOKafkaProducer(**at) as producer:
            for value in (b"value", None):
                await producer.send_and_wait(
                    topic, value, key=b"key", timestamp_ms=1_700_000_000_000, headers=headers
                )
        return [
            (m.offset, m.key, m.value, m.timestamp, list(m.headers))
            for m in await read(topic, 2, **at)
        ]

    assert asyncio.run(round_trip()) == [
        (0, b"key", b"value", 1_700_000_000_000, headers),
        (1, b"key", None, 1_700_000_000_000, headers),
    ]


def test_a_message_of_half_a_megabyte_passes(at: dict[str, Any], topic: str) -> None:
    payload = os.urandom(512 << 10)

    async def round_trip() -> bytes | None:
        await create_topic(topic, **at)
        await send(topic, [payload], **at)
        return (await read(topic, 1, **at))[0].value

    assert asyncio.run(round_trip()) == payload


def test_the_high_watermark_of_a_fetch_is_exact(at: dict[str, Any], topic: str) -> None:
    async def watermark() -> int | None:
        await create_topic(topic, **at)
        await send(topic, [b"%d" % i for i in range(1000)], **at)  # one batch
        async with AIOKafkaConsumer(**at) as consumer:
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            consumer.seek(place, 500)
            message = await consumer.getone()
            assert message.value == b"500"
            return consumer.highwater(place)

    assert asyncio.run(watermark()) == 1000


async def _pump(consumer: AIOKafkaConsumer) -> None:
    while True:
        await consumer.getmany(timeout_ms=100)


@pytest.mark.slow
def test_a_group_shares_the_partitions_and_takes_over(at: dict[str, Any], topic: str) -> None:
    """Two members have half each; the one that is left has all, and the committed offsets."""
    group = {
        "group_id": topic,
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 500,
        "enable_auto_commit": False,
    }

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.05)

    async def rebalance() -> int | None:
        await create_topic(topic, 4, **at)
        async with AIOKafkaConsumer(topic, **at, **group) as stays, asyncio.TaskGroup() as tasks:
            await stays.commit({TopicPartition(topic, 0): OffsetAndMetadata(3, "")})
            pumping = tasks.create_task(_pump(stays))
            async with AIOKafkaConsumer(topic, **at, **group) as leaves:
                leaving = tasks.create_task(_pump(leaves))
                await until(lambda: len(stays.assignment()) == len(leaves.assignment()) == 2)
                assert not stays.assignment() & leaves.assignment()
                leaving.cancel()
            await until(lambda: len(stays.assignment()) == 4)
            pumping.cancel()
            committed: int | None = await stays.committed(TopicPartition(topic, 0))
            return committed

    assert asyncio.run(rebalance()) == 3


async def _end_offset(topic: str, at: dict[str, Any]) -> int:
    await create_topic(topic, **at)
    await send(topic, [b"%d" % i for i in range(1000)], **at)
    async with AIOKafkaConsumer(**at) as consumer:
        place = TopicPartition(topic, 0)
        end: int = (await consumer.end_offsets([place]))[place]
        return end


def test_kafka_tells_the_end_of_a_partition(kafka: Kafka, topic: str) -> None:
    assert asyncio.run(_end_offset(topic, kafka.client())) == 1000


def test_the_embedded_broker_tells_a_wrong_end(embedded_broker: EmbeddedBroker, topic: str) -> None:
    """When this fails the broker was mended, and the docstring of topologies.embedded is stale."""
    at = {"bootstrap_servers": embedded_broker.bootstrap}
    assert asyncio.run(_end_offset(topic, at)) < 1000


async def _unknown_topic_code(topic: str, at: dict[str, Any]) -> int:
    admin = AIOKafkaAdminClient(**at)
    await admin.start()
    try:
        [told] = await admin.describe_topics([topic])
        code: int = told["error_code"]
        return code
    finally:
        await admin.close()


def test_kafka_does_not_know_a_topic_that_nobody_created(kafka: Kafka, topic: str) -> None:
    assert asyncio.run(_unknown_topic_code(f"no-{topic}", kafka.client())) == 3


def test_the_embedded_broker_creates_a_topic_that_is_asked_about(
    embedded_broker: EmbeddedBroker, topic: str
) -> None:
    """When this fails the broker was mended, and the docstring of topologies.embedded is stale."""
    at = {"bootstrap_servers": embedded_broker.bootstrap}
    assert asyncio.run(_unknown_topic_code(f"no-{topic}", at)) == 0


async def _send_idempotently(topic: str, at: dict[str, Any]) -> list[int]:
    await create_topic(topic, **at)
    producer = AIOKafkaProducer(enable_idempotence=True, **at)
    try:
        await producer.start()
        return [(await producer.send_and_wait(topic, b"value")).offset for _ in range(3)]
    finally:
        await producer.stop()


def test_kafka_takes_an_idempotent_producer(kafka: Kafka, topic: str) -> None:
    assert asyncio.run(_send_idempotently(topic, kafka.client())) == [0, 1, 2]


def test_the_embedded_broker_refuses_an_idempotent_producer(
    embedded_broker: EmbeddedBroker, topic: str
) -> None:
    """When this fails the broker was mended, and the docstring of topologies.embedded is stale."""
    with pytest.raises(KafkaError):
        asyncio.run(_send_idempotently(topic, {"bootstrap_servers": embedded_broker.bootstrap}))


def test_kafka_shows_a_transaction_when_it_commits_and_none_that_aborts(
    kafka: Kafka, topic: str
) -> None:
    at = kafka.client()

    async def transactions() -> list[bytes | None]:
        await create_topic(topic, **at)
        async with AIOKafkaProducer(transactional_id=topic, **at) as producer:
            async with producer.transaction():
                await producer.send_and_wait(topic, b"committed")
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"aborted")
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send_and_wait(topic, b"last")
        committed = await read(topic, 2, isolation_level="read_committed", **at)
        return [message.value for message in committed]

    assert asyncio.run(transactions()) == [b"committed", b"last"]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_kafka_keeps_its_topics_over_a_restart(
    end: str, serve: Callable[[Callable[[], Kafka]], Kafka]
) -> None:
    kafka = serve(Kafka)
    at = kafka.client()
    values = [b"%d" % i for i in range(100)]

    async def fill() -> None:
        await create_topic("kept", 2, **at)
        await send("kept", values, partition=1, **at)

    async def again() -> list[bytes | None]:
        return [message.value for message in await read("kept", 100, partition=1, **at)]

    asyncio.run(fill())
    bootstrap = kafka.bootstrap
    kafka.kill() if end == "kill" else kafka.stop()
    kafka.start()
    assert kafka.bootstrap == bootstrap
    assert asyncio.run(again()) == values


async def _round_trip(topic: str, **client: Any) -> list[bytes | None]:
    await create_topic(topic, **client)
    await send(topic, [b"sealed"], **client)
    return [message.value for message in await read(topic, 1, **client)]


async def _refused(**client: Any) -> None:
    """Try to connect, and expect that no client is let in."""
    producer = AIOKafkaProducer(request_timeout_ms=3000, **client)
    with pytest.raises((KafkaError, OSError)):
        await producer.start()
    await producer.stop()


@pytest.mark.slow
def test_kafka_lets_in_users_who_prove_themselves_over_tls(kafka_sasl: Kafka) -> None:
    for mechanism in ("SCRAM-SHA-512", "PLAIN"):
        client = kafka_sasl.client(mechanism=mechanism)
        assert asyncio.run(_round_trip(f"by-{mechanism}", **client)) == [b"sealed"]


@pytest.mark.slow
def test_kafka_refuses_wrong_passwords_other_authorities_and_clear_text(kafka_sasl: Kafka) -> None:
    assert kafka_sasl.certificates is not None
    for mechanism in ("SCRAM-SHA-512", "PLAIN"):
        asyncio.run(_refused(**kafka_sasl.client(mechanism=mechanism, password="guessed")))
    other = kafka_sasl.certificates.context(ca=kafka_sasl.certificates.other_ca)
    asyncio.run(_refused(**kafka_sasl.client() | {"ssl_context": other}))
    asyncio.run(_refused(bootstrap_servers=kafka_sasl.bootstrap))


@pytest.mark.slow
def test_kafka_lets_in_clients_with_a_certificate_and_no_others(kafka_tls: Kafka) -> None:
    certificates = kafka_tls.certificates
    assert certificates is not None
    assert asyncio.run(_round_trip("by-certificate", **kafka_tls.client())) == [b"sealed"]
    asyncio.run(_refused(**kafka_tls.client(certificate=certificates.stranger)))
    asyncio.run(_refused(**kafka_tls.client() | {"ssl_context": certificates.context()}))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_kafka_is_gone_after_its_parent_was_killed(
    serve: Callable[[Callable[[], Kafka]], Kafka], tmp_path: Path
) -> None:
    serve(lambda: Kafka(tmp_path / "first")).stop()  # skips where Kafka can't be had
    program = (
        "import pathlib, sys\n"
        "from tests.services.kafka import Kafka\n"
        "with Kafka(pathlib.Path(sys.argv[1])) as kafka:\n"
        "    print(kafka.pid, flush=True)\n"
        "    input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "second")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.send_signal(signal.SIGKILL)
    await_that(lambda: gone(pid), "Kafka to go", timeout_s=5)

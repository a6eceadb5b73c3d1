"""Feeds that write in transactions: live and replay see the same, and nothing is called lost."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from engine.catalog import Catalog
from engine.readings import tick_message
from tests.topologies.live import NO_REDIS, Live, live_on, send, wait_for
from topologies.embedded import free_port
from topologies.kafka_client import kafka_arguments

WELL = "well-101"
LOST = "messages are missing in the topic"


@pytest.fixture
def on_kafka(kafka: Any, tmp_path: Path) -> Iterator[Live]:
    live = live_on(tmp_path, kafka, NO_REDIS, router="false", http_port=free_port())
    yield live
    live.stop()


def lag(live: Live, partition: int) -> float | None:
    """Return how many messages wait, as a worker tells Prometheus."""
    address = f"http://127.0.0.1:{live.given['http_port']}/metrics"
    with urllib.request.urlopen(address, timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f'tocsin_lag_messages{{partition="{partition}"'):
                return float(line.rpartition(" ")[2])
    return None


@pytest.mark.slow
def test_what_a_transaction_took_back_is_seen_neither_live_nor_in_a_replay(on_kafka: Live) -> None:
    worker = on_kafka.start("a")
    wait_for(lambda: worker.log.read_text().count("without a snapshot") == 4, "the partitions")
    n_said = len(worker.log.read_text())
    catalog = Catalog.open(on_kafka.catalog)
    home = catalog.partition_of(catalog.source_index(WELL))
    start_ms = int(time.time() * 1000) - 3_600_000
    steps = iter(range(10_000))

    def reading(value: float) -> bytes:
        ts = start_ms + 10_000 * next(steps)
        return json.dumps({"sensor": f"{WELL}-ch4", "ts": ts, "value": value}).encode()

    async def feed() -> None:
        arguments = kafka_arguments(on_kafka.settings)
        producer = AIOKafkaProducer(**arguments, transactional_id=on_kafka.settings.group)
        await producer.start()

        async def write(n: int, value: float) -> None:
            topic = on_kafka.settings.topic("readings")
            for _ in range(n):
                await producer.send(topic, reading(value), partition=home)
            await producer.flush()

        for _ in range(5):  # each of its own fetch, with a mark behind it
            async with producer.transaction():
                await write(1, 1.0)
            await asyncio.sleep(0.2)
        await producer.begin_transaction()
        await write(20, 70.0)
        await asyncio.sleep(0.5)  # time enough to read them
        assert lag(on_kafka, home) == 0, "what is not committed does not wait for the worker"
        await producer.abort_transaction()
        for n in (30, 1, 1):
            async with producer.transaction():
                await write(n, 30.0)
            await asyncio.sleep(0.2)
        await producer.stop()

    asyncio.run(feed())
    expected = on_kafka.replayed()
    (raised,) = expected[home]
    wait_for(lambda: on_kafka.published() == expected, f"the alert {raised!r}")
    wait_for(lambda: lag(on_kafka, home) == 0, "nothing to wait behind the last mark", 10)
    time.sleep(1.5)
    assert lag(on_kafka, home) == 0
    assert on_kafka.published() == expected
    assert "error" not in worker.log.read_text()[n_said:]


@pytest.mark.slow
def test_messages_that_were_deleted_before_they_were_read_are_called_lost(on_kafka: Live) -> None:
    worker = on_kafka.start("a", snapshot_every_s=60)
    send(on_kafka, [(0, tick_message(1_752_681_600_000))] * 10)
    wait_for(lambda: "without a snapshot" in worker.log.read_text(), "the partitions")
    wait_for(lambda: lag(on_kafka, 0) == 0, "the worker to come to the end")
    worker.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(0.3)  # no question of the worker is open at the broker any more
        send(on_kafka, [(0, tick_message(1_752_681_600_000))] * 10)
        asyncio.run(delete(on_kafka, before=15))
    finally:
        worker.process.send_signal(signal.SIGCONT)
    wait_for(lambda: LOST in worker.log.read_text(), "the loss to be told", 20)
    wait_for(lambda: lag(on_kafka, 0) == 0, "the worker to go on behind it")
    (line,) = (line for line in worker.log.read_text().splitlines() if LOST in line)
    assert "expected_offset=10" in line and "next_offset=15" in line


async def delete(live: Live, *, before: int) -> None:
    """Let retention take the messages of partition 0 before an offset."""
    admin = AIOKafkaAdminClient(**kafka_arguments(live.settings))
    await admin.start()
    try:
        tp = TopicPartition(live.settings.topic("readings"), 0)
        await admin.delete_records({tp: RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()

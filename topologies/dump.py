"""`tocsin dump`: the readings topic as it stands, to files that a replay takes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from engine.catalog import Catalog
from engine.dump import DumpWriter, make_folder
from topologies import kafka
from topologies.settings import Settings
from topologies.transport import header_of

QUIET_S = 30.0
"""A broker that gives nothing for so long, of what it said it has, fails."""


async def run(settings: Settings, folder: Path) -> dict[int, int]:
    """Write every message that the topic holds now; return how many, by partition.

    Raises ``BrokerError`` where the topic is missing or not the catalog's, or Kafka fails; what was
    written by then is no dump that a replay takes.
    """
    settings.required("catalog")
    assert settings.catalog is not None
    catalog = Catalog.open(settings.catalog)
    topic = settings.topic("readings")
    await kafka.expect_topic(settings, topic, catalog.n_partitions)
    make_folder(folder)
    consumer = kafka.new_consumer(settings)
    with kafka.failing():
        try:
            await consumer.start()
            tps = [TopicPartition(topic, partition) for partition in range(catalog.n_partitions)]
            consumer.assign(tps)
            end = await consumer.end_offsets(tps)
            writers = [await _one(consumer, tp, end[tp], folder, catalog) for tp in tps]
        finally:
            await consumer.stop()
    for writer in writers:
        writer.keep()
    return {tp.partition: writer.n for tp, writer in zip(tps, writers, strict=True)}


async def _one(
    consumer: AIOKafkaConsumer, tp: TopicPartition, end: int, folder: Path, catalog: Catalog
) -> DumpWriter:
    await consumer.seek_to_beginning(tp)
    writer = DumpWriter(folder, tp.partition, catalog.digest)
    try:
        before = -1
        while (position := await consumer.position(tp)) < end:
            if position > before:  # it moves over what was aborted, too
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_S:
                raise kafka.BrokerError(
                    f"topic {tp.topic}: partition {tp.partition} gave nothing for {QUIET_S:g} s at "
                    f"offset {position:,} of {end:,}: this is no whole dump"
                )
            before = position
            records = (await consumer.getmany(tp, timeout_ms=1000)).get(tp, [])
            for record in records:
                writer.add(
                    record.offset, header_of(record.headers, "content-type"), record.value or b""
                )
    finally:
        writer.close()
    return writer


def run_cli(settings: Settings, folder: Path) -> int:
    """Dump, and say how much; return the exit code."""
    counts = asyncio.run(run(settings, folder))
    print(f"{sum(counts.values()):,} messages of {len(counts)} partitions in {folder}")
    return 0

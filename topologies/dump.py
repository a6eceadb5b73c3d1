"""`tocsin dump`: the readings topic as it stands, to files that a replay takes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from engine.catalog import Catalog
from engine.dump import DumpWriter
from topologies import kafka
from topologies.settings import Settings
from topologies.transport import header_of

_QUIET_MS = 3000


async def run(settings: Settings, folder: Path) -> dict[int, int]:
    """Write every message that the topic holds now; return how many, by partition."""
    settings.required("catalog")
    assert settings.catalog is not None
    catalog = Catalog.open(settings.catalog)
    topic = settings.topic("readings")
    consumer = kafka.new_consumer(settings)
    await consumer.start()
    try:
        tps = [TopicPartition(topic, partition) for partition in range(catalog.n_partitions)]
        consumer.assign(tps)
        end = await consumer.end_offsets(tps)
        return {tp.partition: await _one(consumer, tp, end[tp], folder, catalog) for tp in tps}
    finally:
        await consumer.stop()


async def _one(
    consumer: AIOKafkaConsumer, tp: TopicPartition, end: int, folder: Path, catalog: Catalog
) -> int:
    await consumer.seek_to_beginning(tp)
    writer = DumpWriter(folder, tp.partition, catalog.digest)
    try:
        position, before = await consumer.position(tp), -1
        while before < position < end:
            # where all was aborted there are none, but the position moves
            records = (await consumer.getmany(tp, timeout_ms=_QUIET_MS)).get(tp, [])
            for record in records:
                writer.add(
                    record.offset, header_of(record.headers, "content-type"), record.value or b""
                )
            before, position = position, await consumer.position(tp)
    finally:
        writer.close()
    return writer.n


def run_cli(settings: Settings, folder: Path) -> int:
    """Dump, and say how much; return the exit code."""
    counts = asyncio.run(run(settings, folder))
    print(f"{sum(counts.values()):,} messages of {len(counts)} partitions in {folder}")
    return 0

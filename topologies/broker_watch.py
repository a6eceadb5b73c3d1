"""Whether the broker answers: asked now and then, so that it is seen even if nothing is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiokafka.errors import KafkaError

from topologies.logs import logger
from topologies.metrics import Metrics
from topologies.publisher import Publisher

log = logger()

EVERY_S = 5.0
"""Pause between the looks, and how long an answer may take."""


async def watch(
    publisher: Publisher, brokers: str, metrics: Metrics, warn: Callable[[str, str], None]
) -> None:
    """Ask for ever, and tell in metrics and log; `brokers` is where they are, for people."""
    gone_at: float | None = None
    while True:
        if await _answers(publisher):
            metrics.kafka_up = True
            if gone_at is not None:
                log.warning("Kafka answers again", seconds=round(time.monotonic() - gone_at, 1))
                gone_at = None
        else:
            metrics.kafka_down()
            gone_at = time.monotonic() if gone_at is None else gone_at
            seconds = time.monotonic() - gone_at
            warn("kafka", f"Kafka ({brokers}) does not answer, for {seconds:.0f} s now")
        await asyncio.sleep(EVERY_S)


async def _answers(publisher: Publisher) -> bool:
    producer = publisher.producer
    if producer is None:  # the publisher connects anew
        return False
    try:
        async with asyncio.timeout(EVERY_S):
            return bool(await producer.client.force_metadata_update())
    except (KafkaError, OSError):  # a timeout is an OSError
        return False

"""A worker that also prints how far it is, as JSON lines: what the live benchmarks measure.

`python -m benchmarks.live_worker worker|raw|stock` with the settings in the environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from topologies import kafka, logs
from topologies.settings import Settings, load

EVERY_S = 0.05


def say(n: int, **more: Any) -> None:
    """Print (wall time, CPU time, readings so far)."""
    moment = {"wall": time.time(), "cpu": time.process_time(), "n": n, **more}
    print(json.dumps(moment), flush=True)


def worker(settings: Settings) -> int:
    """Run the worker itself."""
    from topologies.app import create_app
    from topologies.serve import serve

    logs.configure(log_level="warning")
    app = create_app(settings)

    @app.task
    async def report() -> None:
        metrics = app.worker.metrics
        while True:
            await asyncio.sleep(EVERY_S)
            say(metrics.n_accepted, alerts=metrics.n_alerts, in_redis=metrics.n_in_redis)

    return asyncio.run(serve(app))


def raw(settings: Settings) -> int:
    """Fetch the same topic with aiokafka alone."""

    async def fetch() -> int:
        topic = settings.topic("readings")
        consumer = kafka.new_consumer(
            settings, topic, max_partition_fetch_bytes=settings.fetch_max_bytes
        )
        await consumer.start()
        n = 0
        said = 0.0
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                n += sum(len(record.value) for record in records)
            if time.time() - said >= EVERY_S:
                said = time.time()
                say(n)

    return asyncio.run(fetch())


def stock(settings: Settings) -> int:
    """Take JSON with a stock Faust agent that does nothing with it."""
    import faust

    from topologies.kafka_client import faust_arguments

    logs.configure(log_level="warning")
    app = faust.App(
        "stock",
        **faust_arguments(settings),
        value_serializer="json",
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    topic = app.topic(settings.topic("readings"))
    n = 0

    @app.agent(topic)
    async def take(stream: Any) -> None:
        nonlocal n
        async for _ in stream:
            n += 1

    @app.task
    async def report() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            say(n)

    async def run() -> None:
        await app.start()
        await asyncio.Event().wait()

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit({"worker": worker, "raw": raw, "stock": stock}[sys.argv[1]](load()))

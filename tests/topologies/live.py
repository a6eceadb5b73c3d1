"""A live system for tests: a real broker and a real Redis, workers as processes, what came out."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import redis
from aiokafka import TopicPartition

from engine import dump as dumps
from engine.catalog import Catalog
from engine.controls import CONTROL_MARK
from engine.partition import Plans
from engine.rules_check import load
from topologies import dump, feed, kafka
from topologies.publisher import AT_HEADER
from topologies.settings import Settings

ROOT = Path(__file__).parents[2]
DAY = ROOT / "replay_data" / "day"
STARTED_S = 60.0
NO_REDIS = "redis://127.0.0.1:1/0"


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Wait until a condition gives something; fail saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.1)


def send(live: Live, messages: list[tuple[int, bytes]], topic: str = "readings") -> None:
    """Send (partition, message), and return when the broker has them all."""

    async def put() -> None:
        n = Catalog.open(live.catalog).n_partitions if topic == "readings" else 1
        await kafka.ensure_topics(live.settings, {live.settings.topic(topic): n})
        producer = kafka.new_producer(live.settings, idempotent=False)
        await producer.start()
        try:
            sent = [
                await producer.send(live.settings.topic(topic), message, partition=partition)
                for partition, message in messages
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    asyncio.run(put())


class WorkerProcess:
    """One `tocsin worker` as a process of its own; its log goes to a file."""

    def __init__(self, system: Live, name: str, **more: Any) -> None:
        self.log = system.folder / f"{name}.log"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")},
            **system.environment(**more),
        }
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "topologies.cli", "worker"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        """End it as an operator would; return its exit code."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


class Live:
    """Settings, workers and what came out, for one broker, one Redis and one catalog."""

    def __init__(
        self, folder: Path, broker: Any, redis_url: str, *, partitions: int = 4, **more: Any
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.catalog = folder / "city.catalog"
        if not self.catalog.exists():
            Catalog.build(DAY, self.catalog, partitions=partitions)
        self.rules = DAY / "rules.toml"
        self.redis_url = redis_url
        self.given: dict[str, Any] = {
            "kafka_brokers": broker.bootstrap,
            "redis_url": redis_url,
            "catalog": str(self.catalog),
            "rules": str(self.rules),
            "snapshots": str(folder / "snapshots"),
            "session_timeout_s": 6,
            "heartbeat_s": 1,
            "snapshot_every_s": 2,
            "http_port": 0,
            "tick_s": 0,
            **more,
        }
        self.workers: dict[str, WorkerProcess] = {}

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.given)

    def environment(self, **more: Any) -> dict[str, str]:
        """Return the settings as a worker's environment says them."""
        return {
            f"TOCSIN_{name.upper()}": str(value) for name, value in {**self.given, **more}.items()
        }

    def start(self, name: str, **more: Any) -> WorkerProcess:
        """Start a worker."""
        self.workers[name] = WorkerProcess(self, name, **more)
        return self.workers[name]

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers.values():
            if worker.running:
                worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers.values():
            try:
                worker.process.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()

    def published(self) -> dict[int, list[tuple[bytes, bytes]]]:
        """Return (place, record) of every alert in the alerts topic, by partition."""
        found = self.messages("alerts", Catalog.open(self.catalog).n_partitions)
        return {
            partition: [(dict(record.headers)[AT_HEADER], record.value) for record in records]
            for partition, records in found.items()
        }

    def messages(self, topic: str, partitions: int = 1) -> dict[int, list[Any]]:
        """Return every message of a topic, by partition."""
        return asyncio.run(self._messages(self.settings.topic(topic), partitions))

    async def _messages(self, topic: str, partitions: int) -> dict[int, list[Any]]:
        await kafka.ensure_topics(self.settings, {topic: partitions})
        consumer = kafka.new_consumer(self.settings, topic)
        await consumer.start()
        found: dict[int, list[Any]] = {}
        try:
            quiet = 0
            while quiet < 2:
                fetched = await consumer.getmany(timeout_ms=400)
                quiet = 0 if fetched else quiet + 1
                for tp, records in fetched.items():
                    found.setdefault(tp.partition, []).extend(records)
            return found
        finally:
            await consumer.stop()

    def relayed(self) -> bool:
        """Tell whether all commands and rules that were sent are in the log."""
        return asyncio.run(self._relayed())

    async def _relayed(self) -> bool:
        topics = [self.settings.topic(name) for name in ("commands", "rules")]
        consumer = kafka.new_consumer(self.settings, group_id=self.settings.group)
        await consumer.start()
        try:
            tps = [TopicPartition(topic, 0) for topic in topics]
            ends = await consumer.end_offsets(tps)
            return all([(await consumer.committed(tp) or 0) >= ends[tp] for tp in tps])
        finally:
            await consumer.stop()

    def controls(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (partition, record) of every control record that was replayed."""
        for each in self.last_dump:
            for _, messages, _ in each.fetches():
                for message in messages:
                    if message.startswith(CONTROL_MARK):
                        yield each.partition, orjson.loads(message)

    def dumped(self) -> list[dumps.Dump]:
        """Dump the readings topic."""
        folder = self.folder / f"dump-{time.monotonic_ns()}"
        asyncio.run(dump.run(self.settings, folder))
        self.last_dump = dumps.find([folder])
        return self.last_dump

    def replayed(self, n: int = dumps.FETCH) -> dict[int, list[tuple[bytes, bytes]]]:
        """Return the same as a replay of the dumped topic gives it."""
        plans = Plans(Catalog.open(self.catalog))
        digest = plans.add(load(self.rules))
        found: dict[int, list[tuple[bytes, bytes]]] = {}
        self.total = dumps.Replayed()
        for partition, outcome in dumps.replay(self.dumped(), plans, digest, n=n, total=self.total):
            if outcome.alerts:
                alerts = [(b"%d/%d/%d" % (partition, *a.place), a.record) for a in outcome.alerts]
                found.setdefault(partition, []).extend(alerts)
        return found

    def keys(self) -> dict[str, Any]:
        """Return everything in Redis under the prefix, each key by its type."""
        client = redis.Redis.from_url(self.redis_url)
        found: dict[str, Any] = {}
        for key in sorted(client.scan_iter("tocsin:*", count=1000)):
            kind = client.type(key)
            name = key.decode()
            if kind == b"hash":
                found[name] = dict(sorted(client.hgetall(key).items()))
            elif kind == b"zset":
                found[name] = client.zrange(key, 0, -1, withscores=True)
            elif kind == b"stream":
                found[name] = client.xrange(key)
            else:
                found[name] = client.get(key)
        client.close()
        return found


def live_on(folder: Path, broker: Any, redis_url: str, **more: Any) -> Live:
    """Return a system with topics and a group of its own."""
    # brokers are shared by tests: topics and groups are a test's own
    name = f"t{os.getpid()}-{time.monotonic_ns()}"
    return Live(folder, broker, redis_url, topic_prefix=f"{name}.", group=name, **more)


def publish(live: Live, *, limit: int = 250_000, batch: int = 512, **more: Any) -> None:
    what: dict[str, Any] = {"readings": [DAY / "readings.parquet"], "catalog": live.catalog}
    asyncio.run(
        feed.publish(
            live.settings,
            feed.Feed(**what, speed=None, ticks=True, limit=limit, batch=batch, **more),
        )
    )


def settle(live: Live, timeout_s: float = 90.0) -> dict[int, Any]:
    """Wait until everything that a replay gives is published; return it."""
    expected = live.replayed()
    n = sum(map(len, expected.values()))
    wait_for(lambda: sum(map(len, live.published().values())) >= n, f"{n} alerts", timeout_s)
    return expected


def command(live: Live, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `tocsin` with the settings of a system."""
    return subprocess.run(
        [sys.executable, "-m", "topologies.cli", *words],
        cwd=ROOT,
        env={**os.environ, **live.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

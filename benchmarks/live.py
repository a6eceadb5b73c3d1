"""The live table: from Kafka to Redis, one worker on one core, everything else on the other.

`python -m benchmarks.live [--readings N]` starts a real broker and a real Redis on loopback, fills
topics beforehand, and prints what was measured beside each bar.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import redis
from rich.console import Console
from rich.table import Table

from benchmarks import live_world
from benchmarks.workloads import SWEEPS, Feed
from engine import wire
from engine.catalog import Catalog
from engine.resume import Resumer
from engine.snapshots import SnapshotStore
from engine.split import message as arrow_message
from tests.services.kafka import FAST, Kafka
from tests.services.redis import Redis
from topologies import kafka
from topologies.commands import push_rules
from topologies.settings import Settings

PARTITIONS = 8
WORKER_CORE, OTHER_CORE = 0, 1
QUIET_S = 2.0
"""Without progress, a run is over."""
WARM_SHARE = 0.05
"""Of the readings, before which nothing is timed."""


class Row(NamedTuple):
    """One line of the table."""

    what: str
    bar: str
    stretch: str
    measured: str


class Run(NamedTuple):
    """What one process did with a topic."""

    n: int
    wall_s: float
    cpu_s: float
    last: dict[str, Any]
    started_s: float
    """From the start of the process to its first reading."""

    @property
    def per_s(self) -> float:
        return self.n / self.wall_s

    @property
    def cpu_ns(self) -> float:
        return 1e9 * self.cpu_s / self.n


class Bench:
    """Broker, Redis and city of one run."""

    def __init__(self, folder: Path, n_sensors: int) -> None:
        os.sched_setaffinity(0, {OTHER_CORE})
        self.folder = folder
        self.catalog = live_world.make_city(folder / "city", n_sensors, PARTITIONS)
        self.rules = folder / "city" / "rules.toml"
        self.broker = Kafka(folder / "kafka", java=FAST)
        # without a log of its own, as Redis comes: here its disk is everybody's, and holds it up
        self.redis = Redis(folder / "redis", settings=("--appendonly", "no"))
        self.broker.start()
        self.redis.start()
        self.feed = self.new_feed()
        self.warm = folder / "warm"
        live_world.warm_up(self.catalog, self.rules, SnapshotStore(str(self.warm)), self.feed)

    def close(self) -> None:
        self.broker.close()
        self.redis.close()

    def new_feed(self, *, warm: bool = False) -> Feed:
        """Return what the sensors send, from the beginning or after they have warmed up."""
        feed = Feed(self.catalog.n_sensors, incidents=live_world.INCIDENTS)
        feed.sent = warm * SWEEPS * self.catalog.n_sensors
        return feed

    def settings(self, prefix: str, **more: Any) -> dict[str, Any]:
        """Return the settings of a run of its own: topics, group, snapshots, keys."""
        return {
            "kafka_brokers": self.broker.bootstrap,
            "redis_url": self.redis.url,
            "redis_prefix": f"{prefix}:",
            "catalog": str(self.folder / "city" / "city.catalog"),
            "rules": str(self.rules),
            "topic_prefix": f"{prefix}.",
            "group": prefix,
            "snapshots": str(self.folder / f"snapshots-{prefix}"),
            "http_port": 0,
            "tick_s": 0,
            "session_timeout_s": 6,
            "heartbeat_s": 1,
            "alerts_flush_ms": 20,
            **more,
        }

    def fill(self, settings: dict[str, Any], messages: Iterable[tuple[int, bytes]]) -> None:
        """Put messages into the readings topic."""
        asyncio.run(self._fill(Settings.model_validate(settings), messages))

    async def _fill(self, settings: Settings, messages: Iterable[tuple[int, bytes]]) -> None:
        topic = settings.topic("readings")
        await kafka.ensure_topics(settings, {topic: PARTITIONS})
        producer = kafka.new_producer(settings, idempotent=False, linger_ms=5)
        await producer.start()
        waiting = []
        for partition, message in messages:
            waiting.append(await producer.send(topic, message, partition=partition))
            if len(waiting) >= 2000:
                await asyncio.gather(*waiting)
                waiting = []
        await producer.flush()
        await producer.stop()

    def run(self, mode: str, settings: dict[str, Any], until: int, *, scale: float = 1.0) -> Run:
        """Let a process of its own take the topic on its core; return what that took."""
        with spawned(mode, settings) as process:
            return measured(process, until, scale)

    def arrow(self, n: int) -> Iterator[tuple[int, bytes]]:
        """Yield the messages of a log."""
        for partition, part in live_world.log_of(self.catalog, self.feed, n):
            if isinstance(part, bytes):
                yield partition, part
            else:
                yield partition, arrow_message(part, self.catalog)

    def json(self, n: int, rows: int) -> Iterator[tuple[int, bytes]]:
        """Yield the messages of a log as JSON, so many readings each."""
        for partition, part in live_world.log_of(self.catalog, self.feed, n, rows=2000):
            if not isinstance(part, bytes):
                lines = wire.json_rows(part, self.catalog)
                for start in range(0, len(lines), rows):
                    yield partition, b"\n".join(lines[start : start + rows])


@contextmanager
def spawned(mode: str, settings: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process on the worker's core; end it afterwards."""
    environment = {**os.environ, **{f"TOCSIN_{k.upper()}": str(v) for k, v in settings.items()}}
    process = subprocess.Popen(
        ["taskset", "-c", str(WORKER_CORE), sys.executable, "-m", "benchmarks.live_worker", mode],
        env=environment,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM if mode == "worker" else signal.SIGKILL)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def measured(process: subprocess.Popen[bytes], until: int, scale: float) -> Run:
    """Read what a process prints until all is taken and in Redis, or nothing more comes."""
    assert process.stdout is not None
    begun = time.time()
    first: dict[str, Any] | None = None
    started = 0.0
    last: dict[str, Any] = {"n": 0}
    for line in process.stdout:
        try:
            now = json.loads(line)
        except ValueError:
            print(line.decode(errors="replace"), end="", file=sys.stderr)
            continue
        now["n"] = now["n"] / scale
        if now["n"] and not started:
            started = now["wall"] - begun
        if first is None and now["n"] >= until * WARM_SHARE:
            first = now
        if now["n"] > last["n"] or now.get("in_redis", 0) > last.get("in_redis", 0):
            last = now
        elif first and now["wall"] - last["wall"] > QUIET_S:
            break
    if first is None:
        raise SystemExit("nothing was taken; see above")
    wall, cpu = last["wall"] - first["wall"], last["cpu"] - first["cpu"]
    return Run(int(last["n"] - first["n"]), wall, cpu, last, started)


def throughput(bench: Bench, n: int) -> list[Row]:
    """Arrow batches to Redis, and the same topic fetched by aiokafka alone."""
    settings = bench.settings("arrow")
    copy_snapshots(bench.warm, Path(settings["snapshots"]))
    bench.fill(settings, bench.arrow(n))
    raws = [bench.run("raw", settings, n, scale=16.2) for _ in range(2)]
    raw = min(raws, key=lambda run: run.cpu_ns)
    runs = []
    for turn in range(3):
        again = bench.settings("arrow", group=f"arrow{turn}", redis_prefix=f"arrow{turn}:")
        again["snapshots"] = str(bench.folder / f"snapshots-arrow{turn}")
        # what an earlier turn published would not be published again
        drop(settings, "alerts")
        copy_snapshots(bench.warm, Path(again["snapshots"]))
        runs.append(bench.run("worker", again, n))
    runs.sort(key=lambda run: run.per_s)
    run = runs[1]
    share = 100 * run.last["alerts"] / run.last["n"]
    speed = f"{run.per_s / 1e6:.1f} M/s ({runs[0].per_s / 1e6:.1f} to {runs[-1].per_s / 1e6:.1f})"
    return [
        Row("Kafka to Redis, Arrow, 1M sensors random", "≥ 8 M/s", "≥ 12.5 M/s", speed),
        Row(
            f"… CPU a reading, {share:.2f} % alerts", "≤ 100 ns", "≤ 80 ns", f"{run.cpu_ns:.0f} ns"
        ),
        Row(
            "… CPU over raw aiokafka",
            "≤ 3 ×",
            "≤ 2 ×",
            f"{run.cpu_ns / raw.cpu_ns:.2f} × (raw: {raw.cpu_ns:.0f} ns, "
            f"{raw.per_s / 1e6:.1f} M/s)",
        ),
        Row("restart to first reading, 1M sensors", "≤ 10 s", "≤ 4 s", f"{run.started_s:.1f} s"),
    ]


def copy_snapshots(source: Path, target: Path) -> None:
    """Begin a run with the warm state."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def drop(settings: dict[str, Any], name: str) -> None:
    """Delete a topic."""

    async def delete() -> None:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=settings["kafka_brokers"])
        await admin.start()
        try:
            await admin.delete_topics([f"{settings['topic_prefix']}{name}"])
            await asyncio.sleep(1.0)
        finally:
            await admin.close()

    asyncio.run(delete())


def json_rows(bench: Bench, n_single: int, n_many: int) -> list[Row]:
    """JSON, one reading a message and 500, and a stock agent on the former."""
    single = bench.settings("single", router=False)
    bench.fill(single, bench.json(n_single, 1))
    ours = bench.run("worker", single, n_single)
    stock = bench.run("stock", single, n_single // 20)
    many = bench.settings("many", router=False)
    bench.fill(many, bench.json(n_many, 500))
    joined = bench.run("worker", many, n_many)
    return [
        Row("JSON, one reading a message", "≥ 200 k/s", "≥ 350 k/s", f"{ours.per_s / 1e3:.0f} k/s"),
        Row("JSON, 500 a message", "≥ 700 k/s", "≥ 1.5 M/s", f"{joined.per_s / 1e3:.0f} k/s"),
        Row(
            "over a stock Faust agent on the same topic",
            "≥ 25 ×",
            "",
            f"{ours.per_s / stock.per_s:.1f} × (stock: {stock.per_s / 1e3:.1f} k/s)",
        ),
    ]


class Latency:
    """Times from producing a message to its alerts in Redis."""

    def __init__(self, bench: Bench, prefix: str) -> None:
        self.bench = bench
        self.prefix = prefix
        self.feed = bench.new_feed(warm=True)
        self.settings = bench.settings(prefix, alerts_flush_ms=2)
        self.live = Settings.model_validate(self.settings)
        self.sent: dict[tuple[int, int], float] = {}
        self.seen: list[tuple[tuple[int, int], float]] = []
        self.over = threading.Event()
        self.worker: list[dict[str, Any]] = []

    @contextmanager
    def watched(self, rate: float) -> Iterator[None]:
        """Have a worker, with warm state, that has taken what waited; watch its alerts."""
        copy_snapshots(self.bench.warm, Path(self.settings["snapshots"]))
        with spawned("worker", self.settings) as process:
            threading.Thread(target=self.follow, args=(process.stdout,), daemon=True).start()
            asyncio.run(self.produce(0.5, rate))
            while not self.worker or not self.worker[-1]["n"]:
                time.sleep(0.1)
            time.sleep(2.0)
            self.sent.clear()
            watcher = threading.Thread(target=self.watch, daemon=True)
            watcher.start()
            yield
            time.sleep(3.0)
            self.over.set()
            watcher.join()

    def delays(self) -> list[tuple[float, float]]:
        """Return when the message of each alert was produced, and the seconds from then on."""
        return [(self.sent[at], now - self.sent[at]) for at, now in self.seen if at in self.sent]

    def watch(self) -> None:
        """Note when each alert is seen in Redis."""
        client = redis.Redis.from_url(self.bench.redis.url)
        last: Any = "0"
        while not self.over.is_set():
            found: Any = client.xread({f"{self.prefix}:alerts": last}, block=200, count=1000)
            now = time.time()
            for _, entries in found or []:
                for place, fields in entries:
                    last = place
                    partition, offset, _ = map(int, fields[b"at"].split(b"/"))
                    self.seen.append(((partition, offset), now))

    def follow(self, lines: Any) -> None:
        """Note how far the worker says it is."""
        for line in lines:
            with contextlib.suppress(ValueError):
                self.worker.append(json.loads(line))

    async def produce(self, seconds: float, rate: float) -> None:
        """Produce so many readings a second, fifty messages a second and partition."""
        topic = self.live.topic("readings")
        await kafka.ensure_topics(self.live, {topic: PARTITIONS})
        producer = kafka.new_producer(self.live, idempotent=False)
        await producer.start()
        rows = int(rate / PARTITIONS / 50)
        log = live_world.log_of(self.bench.catalog, self.feed, int(seconds * rate), rows=rows)
        messages = [
            (p, part, 0)
            if isinstance(part, bytes)
            else (p, arrow_message(part, self.bench.catalog), len(part))
            for p, part in log
        ]
        begun, n = time.time(), 0
        tasks = []

        async def one(partition: int, message: bytes) -> None:
            now = time.time()
            told = await (await producer.send(topic, message, partition=partition))
            self.sent[partition, told.offset] = now

        for partition, payload, count in messages:
            due = begun + n / rate
            if due > time.time():
                await asyncio.sleep(due - time.time())
            tasks.append(asyncio.create_task(one(partition, payload)))
            n += count
        await asyncio.gather(*tasks)
        await producer.stop()


def latency(bench: Bench, seconds: float, rate: float) -> list[Row]:
    """From producing a message to its alerts in Redis, at a million readings a second."""
    run = Latency(bench, "latency")
    with run.watched(rate):
        asyncio.run(run.produce(seconds, rate))
    delays = [delay for _, delay in run.delays()]
    what = f"produce to visible in Redis at {rate / 1e6:g} M/s"
    if not delays:
        return [Row(what, "p99 ≤ 100 ms", "≤ 25 ms", "no alert seen")]
    p50, p99 = np.percentile(delays[len(delays) // 10 :], [50, 99]) * 1e3
    said = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms of {len(delays):,} alerts"
    return [Row(what, "p99 ≤ 100 ms", "≤ 25 ms", said)]


def push(bench: Bench, seconds: float, rate: float) -> list[Row]:
    """How late alerts are when rules are pushed that change every sensor, and how long for."""
    run = Latency(bench, "push")
    text = bench.rules.read_text(encoding="utf-8")
    changed = bench.folder / "changed.toml"
    changed.write_text(text.replace("red = 50", "red = 49"), encoding="utf-8")
    pushed: list[float] = []

    def later() -> None:
        time.sleep(seconds / 4)
        pushed.append(time.time())
        push_rules(run.live, changed, by=None, note=None, as_json=False)

    with run.watched(rate):
        pushing = threading.Thread(target=later)
        pushing.start()
        asyncio.run(run.produce(seconds, rate))
        pushing.join()
    told = np.diff([line["wall"] for line in run.worker if line["wall"] >= pushed[0]])
    late = [(at, delay) for at, delay in run.delays() if at + delay >= pushed[0]]
    most = max(delay for _, delay in late)
    over = max(at + delay for at, delay in late if delay > 0.1) - pushed[0]
    said = f"{most:.1f} s late at most, on time after {over:.1f} s, loop held ≤ {max(told):.2f} s"
    return [Row(f"rules that change 1M sensors, pushed at {rate / 1e6:g} M/s", "", "", said)]


def pause(bench: Bench) -> list[Row]:
    """The pause of the line for a snapshot of all sensors."""
    from engine.partition import PartitionLine, Plans
    from engine.rules_check import load
    from engine.snapshot import Room

    plans = Plans(Catalog.open(bench.folder / "city" / "city.catalog"))
    digest = plans.add(load(bench.rules))
    store = SnapshotStore(str(bench.warm))
    room = Room()
    pauses = []
    for partition in range(PARTITIONS):
        line = PartitionLine(plans, digest, partition)
        line.restore(Resumer(store))
        turns = []
        for _ in range(3):
            begun = time.perf_counter()
            frozen = line.freeze(room)
            turns.append(time.perf_counter() - begun)
            frozen.release()
        pauses.append(min(turns))
    said = f"{1e3 * sum(pauses):.0f} ms in {PARTITIONS} pauses of ≤ {1e3 * max(pauses):.1f} ms"
    return [Row("snapshot of 1M sensors: pause of the line", "≤ 100 ms", "≤ 20 ms", said)]


def main() -> None:
    """Measure what was asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument(
        "only", nargs="*", help="throughput, json, latency, push, pause; all of them"
    )
    parser.add_argument("--sensors", type=int, default=1_000_000)
    parser.add_argument("--readings", type=int, default=32_000_000)
    given = parser.parse_args()
    measures: dict[str, Callable[[Bench], list[Row]]] = {
        "throughput": lambda bench: throughput(bench, given.readings),
        "json": lambda bench: json_rows(bench, given.readings // 20, given.readings // 8),
        "latency": lambda bench: latency(bench, 15.0, 1e6),
        "push": lambda bench: push(bench, 24.0, 3e5),
        "pause": pause,
    }
    table = Table("what", "bar", "stretch", "measured", title="live")
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as folder:
        bench = Bench(Path(folder), given.sensors)
        try:
            for name, measure in measures.items():
                if not given.only or name in given.only:
                    for row in measure(bench):
                        table.add_row(*row)
                        print(" | ".join(row), flush=True)
        finally:
            bench.close()
    Console().print(table)


if __name__ == "__main__":
    main()

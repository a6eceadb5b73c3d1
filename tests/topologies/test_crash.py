"""A worker that fails, or that can't leave in peace, ends: whoever supervises it starts another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from engine.catalog import Catalog
from tests.services.redis import Redis
from tests.topologies.live import NO_REDIS, ROOT, Live, command, live_on, send, wait_for
from topologies.embedded import EmbeddedBroker, free_port

FAILING_ROUTER = """
import asyncio
from topologies.courier import Courier

async def fail(self):
    while not self._unchecked:  # until it has partitions, which it would hand over
        await asyncio.sleep(0.1)
    await asyncio.sleep(3.0)
    raise RuntimeError("as the router might")

Courier.carry_forever = fail
"""
FAILING_PUBLISHER = """
from topologies.publisher import Publisher

async def fail(self, sent, letters):
    raise RuntimeError("as a client might")

Publisher._send = fail
"""
BROKER_FAILS_ONCE = """
from aiokafka.errors import KafkaConnectionError
from topologies.publisher import Publisher

tails, tries = Publisher._tails, []

async def fail_once(self, partitions):
    tries.append(partitions)
    if len(tries) == 1:
        raise KafkaConnectionError("the broker restarts just now")
    return await tails(self, partitions)

Publisher._tails = fail_once
"""
RUN = """
from topologies.cli import main
main(["worker"])
"""


class Patched:
    """A worker with something in it replaced; its output goes to a file."""

    def __init__(self, live: Live, patch: str) -> None:
        self._log = live.folder / "patched.log"
        with self._log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", patch + RUN],
                cwd=ROOT,
                env=live.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")


@contextmanager
def patched(live: Live, patch: str) -> Iterator[Patched]:
    worker = Patched(live, patch)
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def send_alarms(live: Live) -> None:
    """Send readings that make alerts."""
    catalog = Catalog.open(live.catalog)
    home = catalog.partition_of(catalog.source_index("well-101"))
    begin = int(time.time() * 1000) - 600_000
    rows = [{"sensor": "well-101-ch4", "ts": begin + 10_000 * i, "value": 70.0} for i in range(30)]
    send(live, [(home, json.dumps(row).encode()) for row in rows])


@pytest.mark.slow
def test_a_worker_whose_router_fails_ends(
    embedded_broker: Any, redis_server: Redis, tmp_path: Path
) -> None:
    live = Live(tmp_path, embedded_broker, redis_server.url, tick_s=0.5)
    with patched(live, FAILING_ROUTER) as worker:
        assert worker.process.wait(60) == 1, worker.log
    assert "as the router might" in worker.log


@pytest.mark.slow
def test_a_worker_whose_publisher_fails_ends(embedded_broker: Any, tmp_path: Path) -> None:
    live = live_on(tmp_path, embedded_broker, NO_REDIS, router=False)
    with patched(live, FAILING_PUBLISHER) as worker:
        send_alarms(live)
        assert worker.process.wait(60) == 1, worker.log
    assert "as a client might" in worker.log


@pytest.mark.slow
def test_a_broker_that_fails_while_partitions_are_taken_over_is_asked_again(
    embedded_broker: Any, tmp_path: Path
) -> None:
    live = live_on(tmp_path, embedded_broker, NO_REDIS, router=False)
    with patched(live, BROKER_FAILS_ONCE) as worker:
        wait_for(lambda: worker.log.count("begins without") == 4, "all partitions to be owned")
        assert "the broker restarts just now" in worker.log
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(30) == 0, worker.log


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_a_worker_without_a_broker_says_so_and_can_be_stopped(tmp_path: Path, twice: bool) -> None:
    port = free_port()
    bound_s = 3_600 if twice else 2
    with EmbeddedBroker() as broker:
        live = live_on(tmp_path, broker, NO_REDIS, router=False, http_port=port, shutdown_s=bound_s)
        with patched(live, "") as worker:
            wait_for(lambda: worker.log.count("begins without") == 4, "all partitions to be owned")
            broker.stop()
            if twice:
                wait_for(lambda: "does not answer" in worker.log, "the outage to be told")
                wait_for(lambda: "kafka_down" in _readyz(port), "the outage to be seen")
            worker.process.send_signal(signal.SIGTERM)
            if twice:
                time.sleep(1.0)
                assert worker.process.poll() is None
                worker.process.send_signal(signal.SIGINT)
            assert worker.process.wait(20) == 1, worker.log
    assert "without leaving its group" in worker.log
    assert len(worker.log) < 40_000  # a client without a broker says a lot


@pytest.mark.slow
def test_a_place_where_no_snapshot_can_be_kept_is_refused_at_start(
    embedded_broker: Any, tmp_path: Path
) -> None:
    live = Live(tmp_path, embedded_broker, NO_REDIS, router="false", snapshots="/proc/nope")
    done = command(live, "worker")
    assert done.returncode == 3
    assert done.stderr.startswith("tocsin: error: /proc/nope: ") and done.stderr.count("\n") == 1


def _readyz(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            found: bytes = answer.read()
    except HTTPError as error:
        found = error.read()
    return found.decode()

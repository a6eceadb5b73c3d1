"""A worker that fails ends, with a code that says so: whoever supervises it starts another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services.redis import Redis
from tests.topologies.live import NO_REDIS, ROOT, Live, command

PROGRAM = """
import asyncio
from topologies.courier import Courier
from topologies.cli import main

async def fail(self):
    while not self._unchecked:  # until it has partitions, which it would hand over
        await asyncio.sleep(0.1)
    await asyncio.sleep(3.0)
    raise RuntimeError("as the router might")

Courier.carry_forever = fail
main(["worker"])
"""


@pytest.mark.slow
def test_a_worker_whose_router_fails_ends(
    embedded_broker: Any, redis_server: Redis, tmp_path: Path
) -> None:
    live = Live(tmp_path, embedded_broker, redis_server.url, tick_s=0.5)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=live.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "as the router might" in done.stderr


@pytest.mark.slow
def test_a_place_where_no_snapshot_can_be_kept_is_refused_at_start(
    embedded_broker: Any, tmp_path: Path
) -> None:
    live = Live(tmp_path, embedded_broker, NO_REDIS, router="false", snapshots="/proc/nope")
    done = command(live, "worker")
    assert done.returncode == 3
    assert done.stderr.startswith("tocsin: error: /proc/nope: ") and done.stderr.count("\n") == 1

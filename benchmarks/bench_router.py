"""What the router costs the worker: CPU an alert, over a pipeline of XADD of the same records.

The server runs on the other core where there is one. Parity first: the server must have counted
every alert once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis

from benchmarks.measure import Measured, cpu_ns, pin_to_one_core, ratios
from topologies.embedded import EmbeddedRedis
from topologies.redis_client import RedisLink, connect
from topologies.router import Router
from topologies.router_encode import Alert

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "day.jsonl"
N_ALERTS = 256
N_TURNS = 40
MAX_STREAM = 10_000


def records() -> list[bytes]:
    """Return alert records of a generated day, about 1 kB each."""
    lines = GOLDEN.read_bytes().splitlines()
    return (lines * (N_ALERTS // len(lines) + 1))[:N_ALERTS]


def measure_router() -> Measured:
    """Flush 256 alerts at a time; the figure is µs of CPU an alert in the worker."""
    with EmbeddedRedis() as server:
        if server.pid is not None and len(os.sched_getaffinity(0)) > 1:
            os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})
        pin_to_one_core()
        turns = asyncio.run(_by_turns(server.url))
    ours, xadd, parse = turns["router"], turns["xadd"], turns["parse"]
    microseconds = ratios(ours, [N_ALERTS * 1000.0] * len(ours))
    return Measured(
        figure=microseconds,
        limit=f"XADD by the client's pipeline {min(xadd) / N_ALERTS / 1000:.1f} µs,"
        f" orjson alone {min(parse) / N_ALERTS / 1000:.1f} µs a record",
        details={
            "over_xadd": ratios(ours, xadd).median,
            "over_parsing": ratios(ours, parse).median,
            "best_us": min(ours) / N_ALERTS / 1000,
        },
    )


async def _by_turns(url: str) -> dict[str, list[float]]:
    given = records()
    client: Any = connect(RedisLink(url=url))
    router = Router(client, max_stream=MAX_STREAM)
    turns: dict[str, list[float]] = {"router": [], "xadd": [], "parse": []}
    for turn in range(-2, N_TURNS):  # the first two warm up
        log = [((turn + 2) * N_ALERTS + i, 0, record) for i, record in enumerate(given)]
        times = {
            "router": await _cpu_ns(router, log),
            "xadd": await _xadd_ns(client, given),
            "parse": cpu_ns(lambda lines: [orjson.loads(line) for line in lines], given),
        }
        if turn >= 0:
            for name, spent in times.items():
                turns[name].append(spent)
    counted = int(await client.hget("tocsin:counters", "alerts"))
    if counted != (N_TURNS + 2) * N_ALERTS:
        raise AssertionError(f"Redis counted {counted} alerts")
    await router.close()
    return turns


async def _cpu_ns(router: Router, log: Sequence[Alert]) -> int:
    begin = time.process_time_ns()
    await router.flush(0, log)
    return time.process_time_ns() - begin


async def _xadd_ns(client: Redis, given: Sequence[bytes]) -> int:
    begin = time.process_time_ns()
    pipeline = client.pipeline(transaction=False)
    for record in given:
        pipeline.execute_command("XADD", "xadd", "MAXLEN", "~", MAX_STREAM, "*", "record", record)
    await pipeline.execute()
    return time.process_time_ns() - begin


if __name__ == "__main__":
    print(measure_router())

"""The router with a Redis that loses what it confirmed: nothing stays lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.services.redis import Redis
from tests.topologies.alert_log import alerts
from tests.topologies.redis_keys import keys_of
from tests.topologies.routers import Told, client_of, routed, run, undisturbed
from topologies.router import FenceBehind, Flushed


def test_what_redis_lost_is_sent_again_from_memory(serve: Any) -> None:
    server: Redis = serve(lambda: Redis(settings=("--appendonly", "no")))
    logs = {partition: alerts(90, partition=partition) for partition in range(2)}
    wanted = undisturbed(server, logs)
    told = Told()

    async def scenario() -> None:
        async with routed(server, told) as router:
            for first in range(0, 60, 20):
                await router.flush_all({p: log[first : first + 20] for p, log in logs.items()})
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            found = await router.flush_all({p: log[60:] for p, log in logs.items()})
            assert found == {0: Flushed(applied=30), 1: Flushed(applied=30)}
            assert told.resent == [60, 60]

    run(scenario)
    assert keys_of(server.url) == wanted


def test_what_the_router_no_longer_remembers_is_asked_for(serve: Any) -> None:
    server: Redis = serve(lambda: Redis(settings=("--appendonly", "no")))
    log = alerts(90)
    wanted = undisturbed(server, {0: log}, ids=True)

    async def scenario() -> None:
        async with routed(server, remember_bytes=50_000) as router:
            for first in range(0, 60, 20):
                await router.flush(0, log[first : first + 20])
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            with pytest.raises(FenceBehind, match="lost alerts of partition 0") as lost:
                await router.flush(0, log[60:])
            assert (lost.value.fence, lost.value.known) == (None, log[59][:2])
            router.forget(0)
            assert (await router.flush(0, log)).applied == 90

    run(scenario)
    assert keys_of(server.url, ids=True) == wanted


def test_what_redis_lost_is_sent_again_though_no_alert_comes(redis_server: Redis) -> None:
    logs = {partition: alerts(60, partition=partition) for partition in range(3)}
    wanted = undisturbed(redis_server, logs)

    async def scenario() -> None:
        async with routed(redis_server) as router:
            await router.flush(2, logs[2][:40])
        # this router remembers all of partitions 0 and 1, and of 2 but the end
        async with routed(redis_server) as router:
            await router.flush_all(logs)
            await router.restore_lost()
            with client_of(redis_server) as client:
                assert keys_of(redis_server.url) == wanted
                client.flushall()
            with pytest.raises(FenceBehind) as behind:
                await router.restore_lost()
            assert behind.value.partition == 2
            assert set(await router.fences()) == {0, 1}
            router.forget(2)
            await router.flush(2, logs[2])

    run(scenario)
    assert keys_of(redis_server.url) == wanted


def test_a_partition_to_be_read_again_keeps_no_other_from_being_sent(redis_server: Redis) -> None:
    logs = {partition: alerts(60, partition=partition) for partition in range(3)}
    wanted = undisturbed(redis_server, logs)

    async def scenario() -> None:
        async with routed(redis_server) as router:
            await router.flush(2, logs[2][:20])
        async with routed(redis_server) as router:
            await router.flush_all({partition: log[:40] for partition, log in logs.items()})
            with client_of(redis_server) as client:
                client.flushall()
            rest = {partition: log[40:] for partition, log in logs.items()}
            with pytest.raises(FenceBehind):
                await router.flush_all(rest)
            router.forget(2)
            await router.flush_all(rest | {2: logs[2]})

    run(scenario)
    assert keys_of(redis_server.url) == wanted

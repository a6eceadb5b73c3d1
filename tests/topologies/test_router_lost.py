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
            at = f"it is at no position, and was at {log[59][0]}:{log[59][1]}"
            with pytest.raises(FenceBehind, match=f"lost alerts of partition 0: {at}"):
                await router.flush(0, log[60:])
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


def test_what_another_worker_applied_is_sent_again_from_memory_too(redis_server: Redis) -> None:
    log = alerts(90)
    wanted = undisturbed(redis_server, {0: log}, ids=True)
    told = Told()

    async def scenario() -> None:
        async with routed(redis_server, told) as router, routed(redis_server) as before:
            await router.flush(0, log[:20])
            await before.flush(0, log[20:60])  # was under way when the partition came to us
            for first in range(20, 60, 20):
                assert await router.flush(0, log[first : first + 20]) == Flushed(skipped=20)
            with client_of(redis_server) as client:
                client.flushall()
            await router.restore_lost()
            assert told.resent == [60]
            await router.flush(0, log[60:])

    run(scenario)
    assert keys_of(redis_server.url, ids=True) == wanted


def test_what_is_lost_between_a_look_at_the_fence_and_the_first_flush_is_asked_for(
    redis_server: Redis,
) -> None:
    log = alerts(90)

    async def scenario() -> None:
        async with routed(redis_server) as before, routed(redis_server) as router:
            await before.flush(0, log[:40])
            router.expect(0, (await router.fences())[0])
            with client_of(redis_server) as client:
                client.flushall()
            with pytest.raises(FenceBehind):
                await router.flush(0, log[40:])

    run(scenario)


@pytest.mark.parametrize("n_confirmed", [1, 3])
def test_a_flush_that_is_cancelled_while_it_sends_again_leaves_nothing_lost(
    redis_server: Redis, n_confirmed: int
) -> None:
    log = alerts(90)
    wanted = undisturbed(redis_server, {0: log}, ids=True)
    told = Told()
    confirmed: list[int] = []

    def cut(n_applied: int, seconds: float) -> None:
        confirmed.append(n_applied)
        if len(confirmed) == n_confirmed:
            raise asyncio.CancelledError

    async def scenario() -> None:
        async with routed(redis_server, told) as router:
            for first in range(0, 80, 20):
                await router.flush(0, log[first : first + 20])
            with client_of(redis_server) as client:
                client.flushall()
            told.on_flush = cut
            with pytest.raises(asyncio.CancelledError):
                await router.flush(0, log[80:])
            await router.flush(0, log[80:])

    run(scenario)
    assert keys_of(redis_server.url, ids=True) == wanted


def test_a_flush_of_a_partition_that_is_forgotten_meanwhile_ends(serve: Any) -> None:
    server: Redis = serve(Redis)
    told = Told()

    async def scenario() -> None:
        async with routed(server, told) as router:
            await asyncio.to_thread(server.stop)
            flush = asyncio.create_task(router.flush(0, alerts(9)))
            await told.trouble("onnect")
            router.forget(0)
            assert await flush == Flushed()
            await asyncio.to_thread(server.start)
            assert await router.fences() == {}

    run(scenario)

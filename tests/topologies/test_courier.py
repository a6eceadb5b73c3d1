"""The courier with a real Redis and a topic that does what a broker may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaTimeoutError
from faust.types import TP

from tests.services.redis import Redis
from tests.topologies.alert_log import alerts
from tests.topologies.redis_keys import keys_of
from tests.topologies.routers import AWAIT_S, client_of, routed, run, undisturbed
from topologies import courier as courier_module
from topologies.courier import Courier
from topologies.metrics import Metrics
from topologies.publisher import at_header
from topologies.router import connect
from topologies.router_encode import Alert
from topologies.settings import Settings
from topologies.transport import Fetch

TOPIC = "tocsin.alerts"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "LOST_EVERY_S", 0.05)
    monkeypatch.setattr(courier_module, "COMMIT_EVERY_S", 0.0)


class Readings:
    """A log that is as long as anybody wants."""

    async def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int | None]]:
        return dict.fromkeys(partitions, (0, 1 << 40))

    async def fingerprints(self, ids: Any) -> dict[Any, Any]:
        return {}


class Topic:
    """The alerts topic of one worker; what is reread is handed on again."""

    def __init__(self) -> None:
        self.committed: dict[int, int] = {}
        self.found: dict[int, Any] = {}
        self.errors: list[Exception] = []
        self.asked = 0
        self.on_reread: Callable[[int], Any] | None = None

    def _fail(self) -> None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)

    async def commit(self, offsets: Any) -> None:
        self.committed |= {tp.partition: offset for tp, offset in offsets.items()}

    async def places(self, offsets: Any) -> Any:
        self._fail()
        return {partition: self.found[partition] for partition in offsets}

    async def reread(self, tp: TP) -> tuple[int, int]:
        if self.on_reread is not None:
            await self.on_reread(tp.partition)
        self._fail()
        return 0, 1

    def hold(self, holding: bool) -> None:
        """Do nothing: there is no fetcher."""


class Carried:
    """A courier that carries, and all that it told."""

    def __init__(self, server: Redis) -> None:
        self.server = server
        self.topic, self.metrics = Topic(), Metrics()
        self.rejected: list[tuple[int, str]] = []
        self.warned: list[str] = []
        self.courier = Courier(
            TOPIC, self.topic, Readings(), "tocsin.readings", self.metrics,
            reject=lambda tp, offset, _, reason, __: self.rejected.append((offset, reason)),
            warn=lambda _, text: self.warned.append(text), retry_max_s=0.05,
        )  # fmt: skip

    async def take(self, partition: int, log: Sequence[Alert], first: int, **other: Any) -> None:
        """Hand on alerts whose messages begin at an offset."""
        await self.courier.take(fetch_of(partition, log, first, **other))

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(AWAIT_S):
            while not done():
                assert not self.task.done(), self.task.exception()
                await asyncio.sleep(0.01)

    def outages(self) -> int:
        return self.metrics._count["redis_outages"]


def fetch_of(
    partition: int, log: Sequence[Alert], first: int, *, epoch: int = 1, named: int | None = None
) -> Fetch:
    named = partition if named is None else named
    messages = [
        SimpleNamespace(
            offset=first + i, value=record, headers=[("at", at_header(named, (offset, index)))]
        )
        for i, (offset, index, record) in enumerate(log)
    ]
    return Fetch(TP(TOPIC, partition), messages, epoch)


@asynccontextmanager
async def carried(server: Redis, *partitions: int) -> AsyncIterator[Carried]:
    found = Carried(server)
    settings = Settings(redis_url=server.url, redis_timeout_s=1.0, redis_retry_max_s=0.1)
    router = await connect(settings, found.metrics, lambda _, text: found.warned.append(text))
    found.courier.router = router
    found.courier.assigned(dict.fromkeys(partitions, 0))
    found.task = asyncio.create_task(found.courier.carry_forever())
    try:
        yield found
        assert not found.task.done(), found.task.exception()
    finally:
        found.task.cancel()
        await asyncio.gather(found.task, return_exceptions=True)
        await router.close()


def n_in(server: Redis) -> int:
    with client_of(server) as client:
        return client.xlen("tocsin:alerts")


def test_redis_away_is_told_though_no_alert_comes(serve: Any) -> None:
    server: Redis = serve(Redis)

    async def scenario() -> None:
        async with carried(server, 0) as found:
            await found.until(lambda: found.metrics.redis_up is True)
            await asyncio.to_thread(server.stop)
            await found.until(lambda: found.metrics.redis_up is False)
            await asyncio.to_thread(server.start)
            await found.until(lambda: found.metrics.redis_up is True)
            assert found.outages() == 1
            assert any("takes alerts again" in each for each in found.warned)

    run(scenario)


@pytest.mark.parametrize("error", [KafkaTimeoutError(), TimeoutError(), KafkaConnectionError()])
def test_a_broker_that_fails_while_fences_are_checked_is_no_outage_of_redis(
    redis_server: Redis, error: Exception
) -> None:
    async def scenario() -> None:
        async with carried(redis_server) as found:
            found.topic.errors = [error, error]
            found.courier.assigned({0: 0})
            await found.take(0, alerts(9), 0)
            await found.until(lambda: n_in(redis_server) == 9)
            assert found.topic.asked >= 3
            assert found.outages() == 0 and found.metrics.redis_up

    run(scenario)


def test_alerts_that_wait_are_counted_before_they_are_carried_too(serve: Any) -> None:
    server: Redis = serve(Redis)

    async def scenario() -> None:
        await asyncio.to_thread(server.stop)
        async with carried(server, 0) as found:
            log = alerts(30)
            await found.take(0, log[:10], 0)  # its fence can't be looked at
            assert found.metrics.redis_pending == 10
            await asyncio.to_thread(server.start)
            await found.until(lambda: found.metrics.redis_pending == 0)
            await asyncio.to_thread(server.stop)
            await found.take(0, log[10:20], 10)
            await asyncio.sleep(0.1)  # these are under way
            await found.take(0, log[20:], 20)
            assert found.metrics.redis_pending == 20
            await found.courier.release()
            assert found.metrics.redis_pending == 0

    run(scenario)


def test_an_alert_that_names_another_place_is_rejected_and_moves_no_fence(
    redis_server: Redis,
) -> None:
    async def scenario() -> None:
        log = alerts(9)
        async with carried(redis_server, 0, 1) as found:
            await found.take(0, log[:3], 0, named=1)
            await found.take(0, [(1 << 60, 0, log[3][2])], 3)
            await found.take(0, [(-1, 0, log[3][2])], 4)
            await found.take(0, log, 5)
            await found.until(lambda: found.topic.committed.get(0) == 14)
            assert found.rejected == [(offset, "no_place") for offset in range(5)]
        with client_of(redis_server) as client:
            assert client.hkeys("tocsin:fence") == [b"0"]
        assert n_in(redis_server) == 9

    run(scenario)


def test_what_a_frozen_worker_publishes_again_is_carried_once(redis_server: Redis) -> None:
    log = alerts(60)
    wanted = undisturbed(redis_server, {0: log}, ids=True)

    async def scenario() -> None:
        async with carried(redis_server, 0) as found:
            await found.take(0, log[:40] + log[20:35] + log[40:], 0)
            await found.until(lambda: found.topic.committed.get(0) == 75)

    run(scenario)
    assert keys_of(redis_server.url, ids=True) == wanted


# --- a Redis that loses what it confirmed, while partitions change hands


async def unremembered(found: Carried, log: Sequence[Alert]) -> None:
    """Let Redis lose what another worker carried, and a courier find that out."""
    async with routed(found.server) as other:
        await other.flush(0, log[:40])
    found.topic.found[0] = log[39][:2]
    found.courier.assigned({0: 40, 1: 0})
    await found.take(0, log[40:60], 40)
    await found.until(lambda: n_in(found.server) == 60)
    with client_of(found.server) as client:
        client.flushall()


@pytest.mark.parametrize("alerts_come", [False, True])
def test_a_loss_that_is_found_during_a_hand_over_ends_no_worker(
    redis_server: Redis, alerts_come: bool
) -> None:
    log = alerts(90)
    wanted = undisturbed(redis_server, {0: log}, ids=True)
    handed_over = asyncio.Event()

    async def scenario() -> None:
        async with carried(redis_server) as found:

            async def on_reread(partition: int) -> None:
                await found.courier.release()
                handed_over.set()
                raise IllegalStateError("No current assignment for partition")

            found.topic.on_reread = on_reread
            await unremembered(found, log)
            if alerts_come:
                await found.take(0, log[60:], 60)
            async with asyncio.timeout(AWAIT_S):
                await handed_over.wait()
            await asyncio.sleep(0.2)
            assert found.topic.committed[0] == 60

            # it comes back, and what is lost with it
            found.topic.on_reread = None
            found.topic.found[0] = log[59][:2]
            found.courier.assigned({0: 60})
            await found.until(lambda: not found.courier._unchecked)
            await found.take(0, log[60:], 60, epoch=0)  # from before the seek
            await found.take(0, log, 0)
            await found.until(lambda: found.topic.committed[0] == 90)

    run(scenario)
    assert keys_of(redis_server.url, ids=True) == wanted


def test_a_broker_that_fails_while_alerts_are_read_again_is_waited_for(
    redis_server: Redis,
) -> None:
    log = alerts(60)
    wanted = undisturbed(redis_server, {0: log}, ids=True)

    async def scenario() -> None:
        async with carried(redis_server) as found:
            again = asyncio.Event()

            async def on_reread(partition: int) -> None:
                if not found.topic.errors:
                    again.set()

            found.topic.on_reread = on_reread
            await unremembered(found, log)
            found.topic.errors = [KafkaTimeoutError(), TimeoutError(), IllegalStateError()]
            async with asyncio.timeout(AWAIT_S):
                await again.wait()
            await found.take(0, log, 0)
            await found.until(lambda: n_in(redis_server) == 60)

    run(scenario)
    assert keys_of(redis_server.url, ids=True) == wanted


def test_what_is_under_way_at_a_hand_over_is_not_committed_and_not_sent(serve: Any) -> None:
    server: Redis = serve(Redis)

    async def scenario() -> None:
        log = alerts(60)
        async with carried(server, 0) as found:
            await found.take(0, log[:20], 0)
            await found.until(lambda: found.topic.committed.get(0) == 20)
            await asyncio.to_thread(server.stop)
            await found.take(0, log[20:40], 20)
            await found.until(lambda: found.metrics.redis_up is False)
            await found.courier.release()
            await asyncio.to_thread(server.start)
            found.courier.assigned({1: 0})
            await found.take(0, log[40:], 40)  # was on its way to us
            await found.take(1, alerts(9, partition=1), 0)
            await found.until(lambda: found.topic.committed.get(1) == 9)
            assert found.topic.committed[0] == 20

    run(scenario)


def test_a_fetch_from_before_the_seek_of_a_rebalance_leaves_no_hole(redis_server: Redis) -> None:
    async def scenario() -> None:
        log = alerts(30)
        async with carried(redis_server, 0) as found:
            await found.take(0, log[:10], 0)
            await found.until(lambda: found.topic.committed.get(0) == 10)
            await found.courier.release()
            found.topic.found = {0: log[9][:2]}
            found.courier.assigned({0: 10}, epoch=7)
            await found.take(0, log[20:], 20, epoch=6)  # it waited in a queue all the while
            await found.until(lambda: found.metrics.redis_pending == 0)
            await found.take(0, log[10:20], 10, epoch=6)  # of the call under way as it was sought
            await found.take(0, log[20:], 20, epoch=7)
            await found.until(lambda: found.topic.committed.get(0) == 30)
        assert n_in(redis_server) == 30

    run(scenario)

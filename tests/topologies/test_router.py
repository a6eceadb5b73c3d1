"""The router: every alert once and in order, whatever happens to the worker or to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.commands import KINDS
from tests.services.redis import Redis
from tests.topologies.alert_log import alerts, altered
from tests.topologies.day_line import DayLine
from tests.topologies.redis_keys import Keys, keys_of
from tests.topologies.routers import Told, client_of, routed, run, undisturbed
from topologies.router import FenceBehind, Flushed
from topologies.router_encode import MOST_ALERTS, Alert

# --- what is written


def test_each_key_holds_what_its_page_says(redis_server: Redis) -> None:
    log = alerts(135)

    async def scenario() -> None:
        async with routed(redis_server) as router:
            assert await router.flush(0, log) == Flushed(applied=135)
            assert await router.fences() == {0: (7 * 44, 2)}

    run(scenario)
    with client_of(redis_server) as client:
        assert client.xlen("tocsin:alerts") == 135
        assert [e[b"record"] for _, e in client.xrange("tocsin:alerts")] == [r for *_, r in log]
        assert client.xlen("tocsin:route:fire") == 68
        assert client.xlen("tocsin:route:水务局") == 33
        counters = client.hgetall("tocsin:counters")
        assert int(counters[b"alerts"]) == 135
        levels = sum(int(n) for key, n in counters.items() if key.startswith(b"level:"))
        assert levels == 135
        active = client.zrange("tocsin:active", 0, -1)
        assert sorted(active) == sorted(client.zrange("tocsin:geo", 0, -1)) != []
        for source in active:
            state = client.hgetall(b"tocsin:alert:" + source)
            assert state[b"level"] != b"normal"
            assert float(state[b"score"]) == client.zscore("tocsin:active", source)


def test_a_source_without_a_place_on_the_map_is_in_all_keys_but_geo(redis_server: Redis) -> None:
    first = alerts(1)[0]
    places: list[Any] = [
        {"lon": None, "lat": None, "district": None},
        {"lon": 12.0, "lat": 89.0, "district": "Pole"},
        {"lon": 200.0, "lat": 3.0, "district": "Nowhere"},
        {"lon": 12, "lat": 45, "district": "Whole degrees"},
    ]
    log = [(i, 0, altered(first, source=f"s{i}", place=place)[2]) for i, place in enumerate(places)]

    async def scenario() -> None:
        async with routed(redis_server) as router:
            assert (await router.flush(0, log)).applied == 4

    run(scenario)
    with client_of(redis_server) as client:
        assert client.zcard("tocsin:active") == 4
        assert client.zrange("tocsin:geo", 0, -1) == [b"s3"]


def test_a_record_without_routes_goes_to_the_default_route(redis_server: Redis) -> None:
    log = [altered(each, routes=None) for each in alerts(3)]

    async def scenario() -> None:
        async with routed(redis_server) as router:
            await router.flush(0, log)

    run(scenario)
    with client_of(redis_server) as client:
        assert client.xlen("tocsin:route:default") == 3


def test_streams_keep_about_as_many_entries_as_they_are_told(redis_server: Redis) -> None:
    async def scenario() -> None:
        async with routed(redis_server, max_stream=100) as router:
            await router.flush(0, alerts(1000))

    run(scenario)
    with client_of(redis_server) as client:
        assert 100 <= client.xlen("tocsin:alerts") <= 200
        assert 100 <= client.xlen("tocsin:route:fire") <= 200


def test_an_entry_id_is_its_event_time_and_never_goes_back(redis_server: Redis) -> None:
    first = alerts(1)[0]
    log = [
        (i, 0, altered(first, event_ms=ms)[2]) for i, ms in enumerate((0, 1000, 500, 1000, 1001))
    ]

    async def scenario() -> None:
        async with routed(redis_server) as router:
            await router.flush(0, log)

    run(scenario)
    with client_of(redis_server) as client:
        ids = [entry_id for entry_id, _ in client.xrange("tocsin:alerts")]
    assert ids == [b"0-1", b"1000-0", b"1000-1", b"1000-2", b"1001-0"]


def test_what_people_did_stands_at_the_source_until_it_no_longer_holds(
    redis_server: Redis, tmp_path: Path
) -> None:
    day = DayLine(tmp_path)
    well, ch4 = "well-101", "well-101-ch4"
    key = f"tocsin:alert:{well}"

    def held(client: redis.Redis) -> dict[str, str]:
        state = {k.decode(): v.decode() for k, v in client.hgetall(key).items()}
        ends = ("_by", "_until_ms", "acknowledged_ms", "out_of_service_ms")
        return {name: value for name, value in state.items() if name.endswith(ends)}

    def until(what: str, minutes: int) -> dict[str, str]:
        return {f"{what}_by": "li.wei", f"{what}_until_ms": str(day.now_ms + minutes * 60_000)}

    def at(what: str) -> dict[str, str]:
        return {f"{what}_by": "li.wei", f"{what}_ms": str(day.now_ms)}

    async def scenario(client: redis.Redis) -> None:
        async with routed(redis_server) as router:

            async def then(records: list[Alert], *marks: dict[str, str]) -> None:
                told = [orjson.loads(record)["transition"] for *_, record in records]
                assert await router.flush(0, records) == Flushed(applied=len(records))
                assert held(client) == {k: v for each in marks for k, v in each.items()}, told

            # before the source has ever alerted its hash holds marks alone
            shelved = until("shelved", 30)
            await then(day.told("shelve", source=well, until=30), shelved)
            assert len(client.hgetall(key)) == 2 and not client.exists("tocsin:active")
            assert day.measured(ch4, 30.0) == []
            await then(day.passed(30))
            await then(day.told("acknowledge", source=well), at("acknowledged"))
            acknowledged, shelved = at("acknowledged"), until("shelved", 60)
            shelf = day.told("shelve", source=well, until=60)
            await then(shelf, acknowledged, shelved)
            await then(day.measured(ch4, 70.0), shelved)
            off = at("out_of_service")
            await then(day.told("out_of_service", source=well), shelved, off)
            # red is shown again, and the shelf still holds
            await then(day.told("in_service", source=well), shelved)
            await then(day.told("unshelve", source=well))
            await then(day.measured(ch4, 30.0, 200))
            # a window still to come outlives what ends before it
            planned = until("suppressed", 120)
            await then(day.told("suppress", source=well, **{"from": 60, "until": 120}), planned)
            shelved = until("shelved", 10)
            await then(day.told("shelve", source=well, until=10), planned, shelved)
            await then(day.passed(10), planned)
            await then(day.told("unsuppress", source=well))
            # of a place or a kind only the streams tell
            for scope in ({"district": "Riverside"}, {"category": "gas_well"}):
                await then(day.told("suppress", **scope, **{"from": 0, "until": 60}))
                await then(day.told("unsuppress", **scope))
            await then(day.told("out_of_service", source="kitchen-01"))
            assert len(client.hgetall("tocsin:alert:kitchen-01")) == 2
            await then(day.told("in_service", source="kitchen-01"))
            assert not client.exists("tocsin:alert:kitchen-01")

    with client_of(redis_server) as client:
        run(lambda: scenario(client))
        assert day.refused == []
        # a command changes no level
        assert client.zrange("tocsin:active", 0, -1) == [well.encode()]
        assert client.hget(key, "level") == b"yellow"
        n_told = {name: client.hget("tocsin:counters", f"transition:{name}") for name in KINDS}
        wanted = {"acknowledge": 1, "shelve": 3, "unshelve": 1, "suppress": 3, "unsuppress": 3}
        wanted |= {"out_of_service": 2, "in_service": 2}
        assert {name: int(n) for name, n in n_told.items()} == wanted


# --- exactly once


Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("flush"), st.integers(0, 1), st.integers(0, 30), st.integers(1, 40)),
        st.tuples(st.just("zombie"), st.integers(0, 1), st.integers(0, 30), st.integers(1, 60)),
        st.tuples(st.just("takeover"), st.integers(0, 1)),
        st.tuples(st.just("kill"), st.booleans(), st.integers(0, 8)),
        st.tuples(st.just("keep")),
        st.tuples(st.just("lose"), st.booleans()),
    ),
    max_size=14,
)


@pytest.fixture(params=["embedded", "debian"])
def durable(request: pytest.FixtureRequest, serve: Any) -> Redis:
    always = ("--appendfsync", "always")
    server: Redis = serve(lambda: Redis(flavour=request.param, settings=always))
    return server


@pytest.mark.parametrize("n_partitions", [1, 2])
def test_any_cuts_repeats_zombies_kills_and_losses_give_the_same_keys(
    durable: Redis, n_partitions: int
) -> None:
    logs = {partition: alerts(90, partition=partition) for partition in range(n_partitions)}
    alone = n_partitions == 1
    wanted = undisturbed(durable, logs, ids=alone)

    @settings(
        max_examples=20, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True
    )
    @given(STEPS)
    @example([("flush", 0, 0, 20), ("zombie", 0, 0, 60), *[("flush", 0, 0, 9)] * 3, ("lose", True)])
    @example([("flush", 0, 0, 20), ("takeover", 0), ("lose", False), ("flush", 0, 0, 20)])
    def hold(steps: list[Step]) -> None:
        with client_of(durable) as client:
            client.flushall()
        run(lambda: disturbed(durable, logs, steps))
        assert keys_of(durable.url, ids=alone) == wanted

    hold()


async def disturbed(server: Redis, logs: dict[int, Any], steps: list[Step]) -> None:
    """Deliver the logs at least once and in order, through everything that the steps say."""
    done, far = dict.fromkeys(logs, 0), dict.fromkeys(logs, 0)
    kept: dict[bytes, Any] = {}
    async with routed(server) as router, routed(server) as zombie:
        for step in steps:
            match step:
                case ("flush", partition, back, n):
                    partition %= len(logs)
                    first = max(0, done[partition] - back)
                    last = max(done[partition], min(first + n, 90))
                    await delivered(router, logs, {partition: (first, last)})
                    done[partition] = last
                case ("zombie", partition, back, n):  # it may be ahead, too
                    partition %= len(logs)
                    first = max(0, far[partition] - back)
                    far[partition] = max(far[partition], min(first + n, 90))
                    await delivered(zombie, logs, {partition: (first, far[partition])})
                case ("takeover", partition):
                    partition %= len(logs)
                    router.forget(partition)
                    fence = (await router.fences()).get(partition)
                    if fence is not None:
                        router.expect(partition, fence)
                    if done[partition] and (
                        fence is None or fence < logs[partition][done[partition] - 1][:2]
                    ):
                        router.forget(partition)
                        done[partition] = 0
                case ("kill", whole, wait_ms):
                    ends = {each: min(done[each] + 20, 90) for each in logs}
                    parts = {each: (done[each], ends[each]) for each in logs}
                    flush = asyncio.create_task(delivered(router, logs, parts))
                    await asyncio.sleep(0 if whole else wait_ms / 4000)
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                    await flush
                    done = ends
                case ("keep",):
                    with client_of(server) as client:
                        kept = {key: client.dump(key) for key in client.scan_iter()}
                case ("lose", looked_for):
                    with client_of(server) as client:
                        client.flushall()
                        for key, value in kept.items():
                            client.restore(key, 0, value)
                    if looked_for:
                        await looked(router, logs, done)
        await delivered(router, logs, {each: (done[each], 90) for each in logs})
        await looked(router, logs, dict.fromkeys(logs, 90))


async def delivered(router: Any, logs: dict[int, Any], parts: dict[int, tuple[int, int]]) -> None:
    """Flush parts of logs, (first, end) of each; from the beginning where that is asked for."""
    while True:
        try:
            await router.flush_all({each: logs[each][slice(*at)] for each, at in parts.items()})
            return
        except FenceBehind as behind:
            router.forget(behind.partition)
            parts = parts | {behind.partition: (0, parts[behind.partition][1])}


async def looked(router: Any, logs: dict[int, Any], done: dict[int, int]) -> None:
    """Let a router look for what was lost; deliver what it no longer remembers."""
    while True:
        try:
            await router.restore_lost()
            return
        except FenceBehind as behind:
            router.forget(behind.partition)
            await delivered(router, logs, {behind.partition: (0, done[behind.partition])})


def test_a_cancelled_flush_is_taken_up_where_it_stands(redis_server: Redis) -> None:
    log = alerts(600)
    wanted = undisturbed(redis_server, {0: log}, ids=True)
    pauses = random.Random(5)

    async def scenario() -> None:
        async with routed(redis_server) as router:
            for _ in range(20):
                flush = asyncio.create_task(router.flush(0, log))
                await asyncio.sleep(pauses.uniform(0, 0.02))
                flush.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await flush
            await router.flush(0, log)

    run(scenario)
    assert keys_of(redis_server.url, ids=True) == wanted


def test_many_flushes_at_once_of_many_partitions_are_each_applied_once(
    redis_server: Redis,
) -> None:
    logs = {partition: alerts(700, partition=partition) for partition in range(5)}
    wanted = undisturbed(redis_server, logs)
    assert MOST_ALERTS < 700

    async def scenario() -> None:
        async with routed(redis_server) as router, routed(redis_server) as other:
            found = await asyncio.gather(router.flush_all(logs), other.flush_all(logs))
            for partition in logs:
                applied = [each[partition].applied for each in found]
                assert sum(applied) == 700

    run(scenario)
    assert keys_of(redis_server.url) == wanted


def test_a_record_that_is_none_is_told_and_holds_nothing_up(redis_server: Redis) -> None:
    log = alerts(10)
    broken: list[bytes] = [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"source":1}',
        altered(log[0], level="purple")[2], altered(log[0], routes="fire")[2],
        altered(log[0], score="high")[2], altered(log[0], event_ms=-5)[2],
        altered(log[0], source="")[2], altered(log[0], source="x" * 600)[2],
        altered(log[0], text=7)[2], altered(log[0], place=[])[2].replace(b"[]", b'"\\ud800"'),
        altered(log[0], routes=[""])[2], altered(log[0], event_ms=1 << 60)[2],
    ]  # fmt: skip
    mixed = [(0, i, record) for i, record in enumerate(broken)] + [(1 + o, i, r) for o, i, r in log]
    told = Told()

    async def scenario() -> None:
        async with routed(redis_server, told) as router:
            done = await router.flush(0, mixed)
            assert done == Flushed(applied=10, rejected=len(broken))
            assert (await router.flush(0, mixed)).skipped == 10

    run(scenario)
    assert [alert[1] for alert, _ in told.rejected[: len(broken)]] == list(range(len(broken)))
    assert all(reason and "\n" not in reason for _, reason in told.rejected)
    assert not told.down


# --- Redis away


@pytest.fixture
def own(serve: Any) -> Redis:
    server: Redis = serve(lambda: Redis(settings=("--appendfsync", "always")))
    return server


def test_redis_away_is_told_waited_for_and_taken_up(own: Redis) -> None:
    log = alerts(90)
    wanted = undisturbed(own, {0: log}, ids=True)
    told = Told()

    async def scenario() -> None:
        async with routed(own, told) as router:
            await router.flush(0, log[:30])
            await asyncio.to_thread(own.stop)
            flush = asyncio.create_task(router.flush(0, log[20:]))
            await told.trouble("onnect")
            assert not told.up and not flush.done()
            await asyncio.to_thread(own.start)
            assert await flush == Flushed(applied=60, skipped=10)
            assert len(told.up) == 1

    run(scenario)
    assert keys_of(own.url, ids=True) == wanted


def test_a_redis_that_hangs_and_then_goes_on_applies_nothing_twice(own: Redis) -> None:
    log = alerts(90)
    wanted = undisturbed(own, {0: log}, ids=True)
    told = Told()

    async def scenario() -> None:
        async with routed(own, told, timeout_s=0.1) as router:
            await router.flush(0, log[:30])
            assert own.pid is not None
            os.kill(own.pid, signal.SIGSTOP)
            try:
                flush = asyncio.create_task(router.flush(0, log[30:]))
                await told.trouble("imeout")
            finally:
                os.kill(own.pid, signal.SIGCONT)
            await flush

    run(scenario)
    assert keys_of(own.url, ids=True) == wanted


@contextlib.contextmanager
def wrong_type(client: redis.Redis) -> Iterator[None]:
    client.set("tocsin:route:fire", "a text")
    yield
    client.delete("tocsin:route:fire")


@contextlib.contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", "1mb")
    yield
    client.config_set("maxmemory", "0")


@contextlib.contextmanager
def read_only(client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


@contextlib.contextmanager
def no_xadd(client: redis.Redis) -> Iterator[None]:
    client.execute_command("ACL", "SETUSER", "default", "-xadd")
    yield
    client.execute_command("ACL", "SETUSER", "default", "+xadd")


@contextlib.contextmanager
def no_hset(client: redis.Redis) -> Iterator[None]:
    client.execute_command("ACL", "SETUSER", "default", "-hset")
    yield
    client.execute_command("ACL", "SETUSER", "default", "+hset")


@contextlib.contextmanager
def no_xinfo(client: redis.Redis) -> Iterator[None]:
    client.execute_command("ACL", "SETUSER", "default", "-xinfo")
    yield
    client.execute_command("ACL", "SETUSER", "default", "+xinfo")


@contextlib.contextmanager
def no_replicas(client: redis.Redis) -> Iterator[None]:
    client.config_set("min-replicas-to-write", "1")
    yield
    client.config_set("min-replicas-to-write", "0")


REFUSALS = {
    "WRONGTYPE": wrong_type,
    "OOM": full,
    "READONLY": read_only,
    "NOREPLICAS": no_replicas,
    "NOPERM xadd": no_xadd,
    "NOPERM hset": no_hset,
    "NOPERM xinfo": no_xinfo,
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("begun", [0, 30])
def test_a_refusal_changes_no_stream_counter_or_fence_and_is_got_over(
    own: Redis, refusal: str, begun: int
) -> None:
    log = alerts(90)
    # without the route on which the wrong type stands, nothing of it would be left to delete
    log = [
        altered(each, routes=["default", "fire"] if i >= 30 else None) for i, each in enumerate(log)
    ]
    wanted = undisturbed(own, {0: log}, ids=True)
    told = Told()

    async def scenario() -> None:
        async with routed(own, told) as router:
            await router.flush(0, log[:begun])
            before = steady(keys_of(own.url, ids=True))
            with client_of(own) as client, REFUSALS[refusal](client):
                flush = asyncio.create_task(router.flush(0, log[begun:]))
                await told.trouble(WORDS[refusal.split(maxsplit=1)[0]])
                after = steady(keys_of(own.url, ids=True))
                assert {name: after.get(name) for name in before} == before
            await flush

    run(scenario)
    assert keys_of(own.url, ids=True) == wanted


WORDS = {
    "WRONGTYPE": "WRONGTYPE tocsin:route:fire is a string, not a stream",
    "OOM": "OutOfMemoryError",
    "READONLY": "ReadOnlyError",
    "NOREPLICAS": "NOREPLICAS",
    "NOPERM": "an ACL forbids",
}


def steady(keys: Keys) -> Keys:
    """Return what a refused script may not have touched."""
    names = ("fence", "counters", "alerts", "route:default")
    return {name: keys.get(f"tocsin:{name}") for name in names}


def test_a_server_that_forgot_the_script_is_taught_it_again(redis_server: Redis) -> None:
    logs = {partition: alerts(40, partition=partition) for partition in range(3)}
    wanted = undisturbed(redis_server, logs)

    async def scenario() -> None:
        async with routed(redis_server) as router:
            for first in range(0, 40, 10):
                with client_of(redis_server) as client:
                    client.script_flush()
                await router.flush_all({p: log[first : first + 10] for p, log in logs.items()})

    run(scenario)
    assert keys_of(redis_server.url) == wanted

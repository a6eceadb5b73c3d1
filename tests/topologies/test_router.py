"""The router: every alert once and in order, whatever happens to the worker or to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.services.redis import Redis
from tests.topologies.alert_log import alerts, altered
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


def trace(of: Alert, transition: str, *, source: str | None, **command: Any) -> Alert:
    """Return the record that tells of a command."""
    outside = {"place": None, "category": None, "alert_id": None} if source is None else {}
    record = orjson.loads(of[2]) | outside | {"transition": transition, "source": source}
    record |= {"cause": "command", "command": {"by": "Lin"} | command}
    return of[0], of[1], orjson.dumps(record | {"seq": None, "episode_ms": None, "score": 0.0})


def test_what_people_did_stands_at_the_source_until_it_no_longer_holds(redis_server: Redis) -> None:
    raised = alerts(1)[0]
    source = "well-207-0"
    key = f"tocsin:alert:{source}"
    acknowledged, shelved = {b"acknowledged_by": b"Lin"}, {b"shelved_by": b"Lin"}
    shelved |= {b"shelved_until_ms": b"99"}
    suppressed = {b"suppressed_by": b"Lin", b"suppressed_until_ms": b"9"}

    def told(transition: str, about: str | None = source, **command: Any) -> Alert:
        return trace(raised, transition, source=about, **command)

    steps: list[tuple[Alert, dict[bytes, bytes]]] = [
        (raised, {}),
        (told("acknowledge"), acknowledged),
        (told("shelve", until_ms=99), acknowledged | shelved),
        (altered(raised, transition="escalate", level="red"), shelved),
        (told("unshelve"), {}),
        (told("suppress", from_ms=0, until_ms=9), suppressed),
        (altered(raised, cause="returned", level="red"), {}),
        (told("out_of_service"), {b"out_of_service_by": b"Lin"}),
        (told("in_service"), {}),
        (told("suppress", None, district="Old Town"), {}),
    ]

    async def scenario() -> None:
        async with routed(redis_server) as router:
            for i, (alert, held) in enumerate(steps):
                assert await router.flush(0, [(i, 0, alert[2])]) == Flushed(applied=1)
                with client_of(redis_server) as client:
                    state = client.hgetall(key)
                found = {k: v for k, v in state.items() if k.endswith((b"_by", b"_until_ms"))}
                assert found == held, i

    run(scenario)
    with client_of(redis_server) as client:
        # a command changes no level
        assert client.zrange("tocsin:active", 0, -1) == [source.encode()]
        assert client.hget(key, "level") == b"red"
        assert client.hget("tocsin:counters", "transition:acknowledge") == b"1"
        assert client.xlen("tocsin:alerts") == len(steps)


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

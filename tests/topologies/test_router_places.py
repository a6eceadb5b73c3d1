"""The router by Sentinel, in a cluster, over TLS as a limited user."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.cluster import RedisCluster

from tests.services.certificates import Certificates
from tests.services.redis import PASSWORD, USER, Cluster, Redis, Sentinels
from tests.topologies.alert_log import alerts
from tests.topologies.redis_keys import keys_of, read
from tests.topologies.routers import QUICK, Told, client_of, run, undisturbed
from topologies.redis_client import RedisLink, connect
from topologies.router import Flushed, Router

PAGE = (Path(__file__).parents[2] / "topologies" / "REDIS.md").read_text(encoding="utf-8")


def router_of(link: RedisLink, told: Told | None = None) -> Router:
    return Router(connect(link), prefix=link.key_prefix, backoff=QUICK, watch=told or Told())


@pytest.mark.slow
@pytest.mark.parametrize("lossy", [False, True])
def test_a_failover_ends_with_the_same_keys(redis_sentinels: Sentinels, lossy: bool) -> None:
    log = alerts(120)
    servers = redis_sentinels
    wanted = undisturbed(servers.primary, {0: log}, ids=True)
    link = RedisLink(
        mode="sentinel",
        sentinels=tuple(f"{host}:{port}" for host, port in servers.addresses),
        sentinel_name=Sentinels.SERVICE,
        timeout_s=1.0,
    )
    told = Told()

    async def scenario() -> None:
        router = router_of(link, told)
        assert (await router.flush(0, log[:60])).applied == 60
        with client_of(servers.primary) as primary:
            assert primary.wait(1, 10_000) == 1
        if lossy:
            # the primary confirms what its replica never gets
            assert servers.replica.pid is not None
            with client_of(servers.replica) as replica:
                replica.config_set("masterauth", "wrong")
                replica.replicaof("127.0.0.1", "1")
                assert (await router.flush(0, log[60:90])).applied == 30
                await asyncio.to_thread(servers.primary.kill)
                replica.replicaof("127.0.0.1", str(servers.primary.port))
        else:
            await asyncio.to_thread(servers.primary.kill)
        await router.flush(0, log[90:] if lossy else log[60:])
        assert told.down and told.resent == ([30] if lossy else [])
        await router.close()

    run(scenario)
    assert servers.primary_port() == servers.replica.port
    assert keys_of(servers.replica.url, ids=True) == wanted


def test_in_a_cluster_all_keys_lie_in_one_slot(redis_cluster: Cluster) -> None:
    logs = {partition: alerts(90, partition=partition) for partition in range(3)}
    link = RedisLink(mode="cluster", url=redis_cluster.url)
    assert link.key_prefix == "{tocsin}:"

    async def scenario() -> None:
        router = router_of(link)
        for _ in range(2):
            await router.flush_all(logs)
        assert set(await router.fences()) == {0, 1, 2}
        await router.close()

    run(scenario)
    with RedisCluster.from_url(redis_cluster.url) as client:
        found = read(client, "{tocsin}:")
        assert {client.keyslot(name) for name in found} == {client.keyslot("{tocsin}:alerts")}
        assert found["{tocsin}:counters"][b"alerts"] == b"270"
        assert [len(each) for each in found["{tocsin}:alerts"].values()] == [90, 90, 90]


def test_a_cluster_whose_node_restarts_gets_every_alert_once(redis_cluster: Cluster) -> None:
    with RedisCluster.from_url(redis_cluster.url) as client:
        client.delete(*client.keys("{tocsin}:*") or ["{tocsin}:x"])
        port = client.get_node_from_key("{tocsin}:alerts").port
    node = next(each for each in redis_cluster.servers if each.port == port)
    link = RedisLink(mode="cluster", url=redis_cluster.url, timeout_s=1.0)
    told, log = Told(), alerts(120)

    async def scenario() -> None:
        router = router_of(link, told)
        await router.flush(0, log[:40])
        await asyncio.to_thread(node.kill)
        flush = asyncio.create_task(router.flush(0, log[40:]))
        await told.trouble("")
        await asyncio.to_thread(node.start)
        assert (await flush).applied == 80
        await router.close()

    run(scenario)
    with RedisCluster.from_url(redis_cluster.url) as client:
        assert [e[b"record"] for _, e in client.xrange("{tocsin}:alerts")] == [r for *_, r in log]
        assert client.hget("{tocsin}:counters", "alerts") == b"120"


def secure(server: Redis, certificates: Certificates, **changed: Any) -> RedisLink:
    given: dict[str, Any] = {
        "url": f"rediss://{server.address}/0",
        "user": USER,
        "password": PASSWORD,
        "ca_file": str(certificates.ca),
    }
    return RedisLink(**given | changed)


def test_over_tls_a_user_of_the_prefix_writes_all_keys(
    redis_tls: Redis, certificates: Certificates
) -> None:
    async def scenario() -> None:
        router = router_of(secure(redis_tls, certificates))
        assert await router.flush(0, alerts(90)) == Flushed(applied=90)
        await router.close()

    run(scenario)
    assert keys_of(redis_tls.admin_url)["tocsin:fence"] == {b"0": b"203:2"}


REFUSED = {
    "another authority": ({"ca": "other_ca"}, "certificate is not trusted"),
    "another name": ({"host": "127.0.0.2"}, "certificate is not trusted"),
    "a wrong password": ({"password": "wrong"}, "AuthenticationError"),
    "no user": ({"user": None, "password": None}, "it wants a user and a password"),
    "another prefix": ({"prefix": "other:"}, "NoPermissionError"),
    "no TLS": ({"scheme": "redis"}, "onnection"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_connection_is_told_without_the_password(
    redis_tls: Redis, certificates: Certificates, case: str
) -> None:
    changed, words = REFUSED[case]
    changed = dict(changed)
    host, scheme = changed.pop("host", "127.0.0.1"), changed.pop("scheme", "rediss")
    if "ca" in changed:
        changed["ca_file"] = str(getattr(certificates, changed.pop("ca")))
    link = secure(redis_tls, certificates, **changed)
    link = RedisLink(**{**vars(link), "url": f"{scheme}://{host}:{redis_tls.port}/0"})
    if host != "127.0.0.1":
        with redis.Redis.from_url(redis_tls.admin_url) as admin:
            admin.config_set("bind", "127.0.0.1 127.0.0.2")
    told = Told()

    async def scenario() -> None:
        router = router_of(link, told)
        flush = asyncio.create_task(router.flush(0, alerts(3)))
        await told.trouble(words)
        flush.cancel()
        await router.close()

    run(scenario)
    assert not any(PASSWORD in line for line in told.down)
    assert PASSWORD not in str(link) + repr(link)
    with redis.Redis.from_url(redis_tls.admin_url) as admin:
        assert admin.keys("*") == []


def test_the_user_on_the_page_suffices(redis_server: Redis) -> None:
    line = re.search(r"^ACL SETUSER tocsin .*$", PAGE, re.MULTILINE)
    assert line is not None
    log = alerts(90)
    wanted = undisturbed(redis_server, {0: log}, ids=True)
    told = Told()
    with client_of(redis_server) as client:
        client.execute_command(*line[0].replace("PASSWORD", "secret").split())
    link = RedisLink(url=redis_server.url, user="tocsin", password="secret")

    async def scenario() -> None:
        router = router_of(link, told)
        await router.flush(0, log)
        await router.fences()
        await router.close()

    run(scenario)
    assert not told.down
    assert keys_of(redis_server.url, ids=True) == wanted


def test_every_key_that_is_written_is_on_the_page(redis_server: Redis) -> None:
    log = alerts(30)
    names = undisturbed(redis_server, {0: log})
    known = set(re.findall(r"^\| `([a-z]+)", PAGE, re.MULTILINE))
    assert {name.split(":")[1] for name in names} <= known
    fields = {field.decode() for name, held in names.items() if ":alert:" in name for field in held}
    assert all(f"`{field}`" in PAGE for field in fields)

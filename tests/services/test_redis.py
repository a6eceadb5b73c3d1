"""What Tocsin counts on from Redis: data kept over a kill, refusals, failover, a cluster."""

from __future__ import annotations

import pytest
import redis

from tests.services.redis import PASSWORD, Cluster, Redis, Sentinels, await_that


def test_acknowledged_writes_survive_a_kill_and_a_stop(redis_server: Redis) -> None:
    for n, end in enumerate((redis_server.kill, redis_server.stop), start=1):
        with redis.Redis.from_url(redis_server.url) as client:
            for i in range(1000):
                client.xadd("tocsin:alerts", {"n": n, "i": i})
        end()
        with pytest.raises(redis.ConnectionError), redis.Redis.from_url(redis_server.url) as client:
            client.ping()
        redis_server.start()
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.xlen("tocsin:alerts") == 1000 * n


def test_a_script_is_atomic_and_known_by_its_digest(redis_server: Redis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        add = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        assert add(keys=["tocsin:n"], args=[2]) == 2
        assert add(keys=["tocsin:n"], args=[3]) == 5


def test_the_acl_user_reaches_keys_of_tocsin_and_no_others(redis_tls: Redis) -> None:
    with redis.Redis.from_url(redis_tls.url) as client:
        client.set("tocsin:a", "1")
        assert client.get("tocsin:a") == b"1"
        script = client.register_script("return redis.call('SET', KEYS[1], '1')")
        assert script(keys=["tocsin:b"]) == b"OK"
        for refused in (
            lambda: client.set("other:a", "1"),
            lambda: script(keys=["other:b"]),
            client.flushall,
            lambda: client.config_get("*"),
            lambda: client.acl_setuser("another", enabled=True),
            client.shutdown,
        ):
            with pytest.raises(redis.ResponseError, match="permission"):
                refused()


def test_redis_refuses_clear_text_wrong_passwords_and_other_authorities(redis_tls: Redis) -> None:
    certificates = redis_tls.certificates
    assert certificates is not None
    for url in (
        f"redis://{redis_tls.address}/0",
        redis_tls.url.replace(PASSWORD, "guessed"),
        redis_tls.url.replace(str(certificates.ca), str(certificates.other_ca)),
        f"rediss://{redis_tls.address}/0?ssl_ca_certs={certificates.ca}",
    ):
        with pytest.raises((redis.ConnectionError, redis.AuthenticationError)):
            redis.Redis.from_url(url).ping()


@pytest.mark.slow
def test_the_replica_takes_over_when_the_primary_is_killed(redis_sentinels: Sentinels) -> None:
    servers = redis_sentinels
    with redis.Redis(port=servers.primary.port) as client:
        client.set("tocsin:a", "1")
        assert client.wait(1, 5000) == 1
    assert servers.primary_port() == servers.primary.port
    servers.primary.kill()
    await_that(lambda: servers.primary_port() == servers.replica.port, "the failover")
    with redis.Redis(port=servers.replica.port) as client:
        await_that(lambda: client.role()[0] == b"master", "the replica to lead")
        assert client.get("tocsin:a") == b"1"
    servers.primary.start()
    with redis.Redis(port=servers.primary.port) as client:
        await_that(lambda: client.role()[0] == b"slave", "the old primary to follow")


@pytest.mark.slow
def test_a_cluster_spreads_keys_over_its_nodes_and_keeps_them(redis_cluster: Cluster) -> None:
    def held() -> list[int]:
        return [redis.Redis(port=node.port).dbsize() for node in redis_cluster.servers]

    with redis.RedisCluster.from_url(redis_cluster.url) as client:
        for i in range(300):
            client.set(f"tocsin:{i}", i)
    assert sum(held()) == 300 and min(held()) > 50
    redis_cluster.stop()
    redis_cluster.start()
    with redis.RedisCluster.from_url(redis_cluster.url) as client:
        assert client.get("tocsin:7") == b"7"
    assert sum(held()) == 300

"""Whole workers whose Redis is by Sentinel or a cluster, and whose snapshots are in a bucket."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import redis

from tests.services.kafka import Kafka
from tests.services.redis import Cluster, Redis, Sentinels
from tests.services.s3 import BUCKET, KEYS, ObjectStore
from tests.topologies.live import NO_REDIS, Live, command, live_on, publish, settle, wait_for
from tests.topologies.redis_keys import Keys, read
from tests.topologies.routers import undisturbed


def wanted(live: Live, expected: dict[int, list[tuple[bytes, bytes]]]) -> Keys:
    """Return the keys that an undisturbed router writes of these alerts."""
    logs = {
        partition: [(*map(int, at.split(b"/")[1:]), record) for at, record in alerts]
        for partition, alerts in expected.items()
    }
    with Redis() as calm:
        return undisturbed(calm, logs)


@pytest.mark.slow
def test_a_failover_while_alerts_flow_leaves_exactly_the_alerts(
    kafka: Kafka, redis_sentinels: Sentinels, tmp_path: Path
) -> None:
    servers = redis_sentinels
    by_sentinel = {
        "redis_mode": "sentinel",
        "redis_sentinels": ",".join(f"{host}:{port}" for host, port in servers.addresses),
        "redis_sentinel_name": Sentinels.SERVICE,
        "redis_timeout_s": 1,
        "redis_retry_max_s": 0.5,
    }
    live = live_on(tmp_path, kafka, NO_REDIS, **by_sentinel)

    def held(server: Redis) -> Keys:
        with redis.Redis(port=server.port) as client:
            return read(client, "tocsin:")

    def routed() -> int:
        return int(held(servers.primary).get("tocsin:counters", {}).get(b"alerts", 0))

    try:
        log = live.start("a").log
        # else all readings may wait for it, and all alerts come at once
        wait_for(lambda: log.read_text().count("begins without") == 4, "all partitions to be owned")
        feeder = threading.Thread(target=publish, args=(live,), kwargs={"rate": 40_000})
        feeder.start()
        wait_for(lambda: routed() > 2, "the first alerts in Redis")
        before = routed()
        servers.primary.kill()
        feeder.join()
        expected = settle(live)
        assert sum(map(len, expected.values())) > before
        undisturbed_keys = wanted(live, expected)
        wait_for(lambda: servers.primary_port() == servers.replica.port, "the failover")
        wait_for(lambda: held(servers.replica) == undisturbed_keys, "Redis to hold the alerts")
        assert live.published() == expected
        listed = command(live, "alerts", "--json")
        assert listed.returncode == 0, listed.stderr
        assert '"alert_id"' in listed.stdout

        # a failover that loses everything, in an hour without alerts
        with redis.Redis(port=servers.replica.port) as client:
            client.flushall()
        wait_for(lambda: held(servers.replica) == undisturbed_keys, "what was lost to be restored")
    finally:
        live.stop()


@pytest.mark.slow
def test_a_worker_brings_its_alerts_to_a_cluster(
    kafka: Kafka, redis_cluster: Cluster, tmp_path: Path
) -> None:
    live = live_on(tmp_path, kafka, redis_cluster.url, redis_mode="cluster")

    def held() -> Keys:
        with redis.RedisCluster.from_url(redis_cluster.url) as client:
            found = read(client, "{tocsin}:")
        return {name.replace("{tocsin}:", "tocsin:"): content for name, content in found.items()}

    try:
        live.start("a")
        publish(live)
        expected = settle(live)
        undisturbed_keys = wanted(live, expected)
        wait_for(lambda: held() == undisturbed_keys, "the cluster to hold the alerts")
        listed = command(live, "alerts", "--json")
        assert listed.returncode == 0, listed.stderr
        assert '"alert_id"' in listed.stdout
    finally:
        live.stop()


@pytest.mark.slow
def test_snapshots_in_a_bucket_are_saved_gone_on_from_passed_over_and_pruned(
    kafka: Kafka, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    live = live_on(
        tmp_path, kafka, NO_REDIS, router="false", snapshots=object_store.uri, snapshot_every_s=0.5
    )

    def snapshots() -> dict[str, list[str]]:
        """Return the snapshots of each partition, the newest last."""
        found: dict[str, list[str]] = {}
        for path in object_store.names("city"):
            if path.endswith(".snapshot"):
                found.setdefault(path.rpartition("/")[0], []).append(path)
        return found

    try:
        first = live.start("a")
        publish(live, limit=100_000)
        wait_for(lambda: sorted(map(len, snapshots().values())) == [1] * 4, "a snapshot each")
        publish(live)
        assert settle(live) == live.published()
        wait_for(lambda: sorted(map(len, snapshots().values())) == [2] * 4, "two snapshots each")
        first.kill()
        assert {name.rpartition(".")[2] for name in object_store.names("city")} == {
            "snapshot",
            "catalog",
        }
        before = snapshots()
        torn = before[f"{BUCKET}/city/partition-0002"][-1]
        with object_store.files.open_input_file(torn) as stream:
            whole = stream.read()
        with object_store.files.open_output_stream(torn) as stream:
            stream.write(whole[: len(whole) // 2])
        found = command(live, "snapshot", "verify")
        assert found.returncode == 3
        assert [
            line for line in found.stdout.splitlines() if torn in line and "not a whole" in line
        ]
        assert found.stdout.count(": whole") == 7

        again = live.start("b")
        wait_for(lambda: again.log.read_text().count("state restored") == 4, "four partitions")
        publish(live)
        assert settle(live) == live.published()
        assert f"s3://{torn} was passed over" in again.log.read_text()
        assert again.stop() == 0
        for folder, names in snapshots().items():
            assert len(names) == 2, names
            assert names[-1] > before[folder][-1], "the newest is of the second worker"
        assert torn not in object_store.names("city")
        verified = command(live, "snapshot", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        for place in (names[-1], names[-1].rpartition("/")[0]):
            shown = command(live, "snapshot", "show", f"s3://{place}")
            assert shown.returncode == 0, shown.stderr
            assert "covers the log before offset" in shown.stdout
    finally:
        live.stop()

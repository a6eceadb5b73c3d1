"""The live line against real brokers and a real Redis: what comes out is what a replay gives."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.catalog import Catalog
from engine.commands import InService, encode
from engine.readings import tick_message
from engine.rules_check import load
from tests.fuzz_messages import City, cases
from tests.services import redis as redis_service
from tests.services.fixtures import served
from tests.services.kafka import PASSWORD, USER
from tests.topologies.alert_log import alerts
from tests.topologies.chaos import Chaos
from tests.topologies.live import DAY, Live, command, live_on, publish, send, settle, wait_for
from topologies import kafka
from topologies.embedded import free_port
from topologies.publisher import AT_HEADER, at_header

FUZZED = int(os.environ.get("TOCSIN_TEST_FUZZ", "20000"))


@pytest.fixture
def system(any_broker: Any, redis_server: Any, tmp_path: Path) -> Iterator[Live]:
    live = live_on(tmp_path, any_broker, redis_server.url)
    yield live
    live.stop()


@pytest.fixture
def on_kafka(kafka: Any, redis_server: Any, tmp_path: Path) -> Iterator[Live]:
    live = live_on(tmp_path, kafka, redis_server.url)
    yield live
    live.stop()


def active(live: Live) -> set[str]:
    return {name.decode() for name, _ in live.keys().get("tocsin:active", [])}


@pytest.mark.slow
def test_one_worker_publishes_what_a_replay_of_the_dumped_topic_gives(system: Live) -> None:
    worker = system.start("a")
    publish(system, batch=random.Random(1).randint(1, 3000))
    expected = settle(system)
    assert sum(map(len, expected.values())) > 5
    assert system.published() == expected
    assert system.replayed(n=1) == expected
    n = sum(map(len, expected.values()))

    def in_redis() -> bool:
        return len(system.keys().get("tocsin:alerts", [])) == n

    wait_for(in_redis, "alerts in Redis")
    assert worker.stop() == 0
    # whatever Redis loses while no worker runs comes back
    with redis.Redis.from_url(system.redis_url) as client:
        client.flushall()
    system.start("b")
    wait_for(in_redis, "the same alerts in Redis again")


@pytest.mark.slow
@pytest.mark.parametrize("n_owners", [2, 4])
def test_owners_that_share_the_partitions_publish_the_same(on_kafka: Live, n_owners: int) -> None:
    for number in range(n_owners):
        on_kafka.start(f"w{number}")
    publish(on_kafka, batch=random.Random(n_owners).randint(1, 500))
    expected = settle(on_kafka)
    assert sum(map(len, expected.values())) > 5
    assert on_kafka.published() == expected


@pytest.mark.slow
def test_chaos_leaves_exactly_the_alerts_of_an_undisturbed_run(tmp_path: Path) -> None:
    with served(lambda: Opened(tmp_path)) as opened:
        opened.chaos.run(
            {
                "kill_worker": 5,
                "rebalance": 1,
                "restart_broker": 1,
                "stop_redis": 1,
                "kill_redis": 2,
                "tear_snapshot": 1,
                "fill_disk": 1,
                "freeze_worker": 1,
            },
            4000.0,
        )


class Opened:
    """Chaos as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.chaos = Chaos(folder, seed=int(time.time()), redis_stop_s=3.0)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exc: object) -> None:
        self.chaos.close()


@pytest.mark.slow
def test_every_fuzzed_message_is_accounted_for_and_none_kills_the_worker(on_kafka: Live) -> None:
    port = free_port()
    catalog = Catalog.open(on_kafka.catalog)
    city = City(catalog.digest, catalog.sensor_id.to_pylist())
    fuzzed = list(cases(7, FUZZED, city))
    send(on_kafka, [(number % 4, case.payload) for number, case in enumerate(fuzzed)])
    worker = on_kafka.start("a", http_port=port, router="false")

    def numbers() -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines)
            if not line_is_comment(name)
        }

    def total(prefix: str) -> float:
        return sum(value for name, value in numbers().items() if name.startswith(prefix))

    wait_for(lambda: total("tocsin_messages_total") >= FUZZED, "every message", 120)
    on_kafka.replayed()
    counted = total("tocsin_readings_total{") + total("tocsin_ticks_total")
    assert counted == on_kafka.total.readings
    rejected = total("tocsin_rejected_total{")
    assert rejected == sum(on_kafka.total.rejected.values()) > 0
    known = sum(case.n for case in fuzzed if case.n is not None)
    assert counted + rejected >= known > 0
    send(on_kafka, [(0, tick_message(1_752_681_600_000))])
    wait_for(lambda: total("tocsin_messages_total") > FUZZED, "the message after")
    assert worker.running


def line_is_comment(name: str) -> bool:
    return name.startswith("#") or not name


@pytest.mark.slow
def test_commands_and_pushed_rules_are_in_the_log_where_a_replay_sees_them(on_kafka: Live) -> None:
    on_kafka.start("a")
    catalog = Catalog.open(on_kafka.catalog)
    start_ms = int(time.time() * 1000) - 600_000
    name = "well-101"
    home = catalog.partition_of(catalog.source_index(name))

    def reading(step: int, value: float) -> bytes:
        moment = {"sensor": f"{name}-ch4", "ts": start_ms + 10_000 * step, "value": value}
        return json.dumps(moment).encode()

    send(on_kafka, [(home, reading(step, 30.0)) for step in range(20)])
    wait_for(lambda: name in active(on_kafka), "the alert")
    seen = command(on_kafka, "ack", name, "--by", "Wu")
    rejects = on_kafka.settings.topic("rejects")
    assert f"sent: acknowledge {name}; if it is refused, {rejects}" in seen.stdout
    with redis.Redis.from_url(on_kafka.redis_url, decode_responses=True) as client:
        by = partial(client.hget, f"tocsin:alert:{name}", "acknowledged_by")
        wait_for(lambda: by() == "Wu", "who has seen it")
    pointless = InService(event_ms=start_ms + 200_000, id="p", by="Wu", source=name)
    send(on_kafka, [(0, encode(pointless))], "commands")
    log = on_kafka.workers["a"].log
    wait_for(lambda: "not_out_of_service" in log.read_text(), "the refusal in the worker's log")
    shelved = command(on_kafka, "shelve", name, "--for", "1h", "--by", "Li", "--note", "works")
    assert shelved.returncode == 0, shelved.stderr
    wait_for(lambda: name not in active(on_kafka), "the shelved alert to go")
    send(on_kafka, [(home, reading(step, 70.0)) for step in range(20, 40)])
    wait_for(lambda: name in active(on_kafka), "red, which no shelving hides")

    before = on_kafka.published()
    renamed = on_kafka.folder / "renamed.toml"
    renamed.write_text((DAY / "rules.toml").read_text().replace('name = "', 'name = "Renamed: ', 1))
    assert load(renamed).digest != load(DAY / "rules.toml").digest
    assert command(on_kafka, "rules", "push", str(renamed)).returncode == 0
    switched = f"rules={load(renamed).digest}"
    log = on_kafka.workers["a"].log
    wait_for(lambda: log.read_text().count(switched) == catalog.n_partitions, "all to switch")
    send(on_kafka, [(p, tick_message(start_ms + 600_000)) for p in range(catalog.n_partitions)])
    assert settle(on_kafka) == before  # nobody is told anything twice
    assert on_kafka.published() == before

    refused = command(on_kafka, "shelve", "nobody", "--for", "1h")
    assert refused.returncode == 3
    assert "nobody" in refused.stderr
    assert on_kafka.published() == settle(on_kafka)


@pytest.mark.slow
def test_other_rules_switch_every_partition_and_keep_the_episodes(on_kafka: Live) -> None:
    on_kafka.start("a")
    publish(on_kafka, limit=300_000)
    settle(on_kafka)
    assert on_kafka.published()
    text = (DAY / "rules.toml").read_text()
    pushed = on_kafka.folder / "pushed.toml"
    pushed.write_text(
        text.replace('name = "', 'name = "Pushed: ', 1).replace("hold_s = ", "hold_s = 1", 1)
    )
    assert load(pushed).digest != load(DAY / "rules.toml").digest
    who = ("--by", "Li", "--note", "fewer")
    answer = command(on_kafka, "rules", "push", str(pushed), *who)
    assert answer.returncode == 0, answer.stderr
    log = on_kafka.workers["a"].log
    wait_for(lambda: log.read_text().count("rules switched") == 4, "four partitions to switch")
    switched = [line for line in log.read_text().splitlines() if "rules switched" in line]
    assert all("by=Li" in line and "note=fewer" in line for line in switched), switched
    publish(on_kafka, limit=600_000)
    assert on_kafka.published() == settle(on_kafka)
    digests = {
        json.loads(record)["rules"] for each in on_kafka.published().values() for _, record in each
    }
    assert digests == {load(pushed).digest, load(DAY / "rules.toml").digest}


@pytest.mark.slow
def test_absence_alarms_fire_when_nothing_arrives_at_all(on_kafka: Live) -> None:
    on_kafka.given["tick_s"] = 1
    on_kafka.start("a")
    catalog = Catalog.open(on_kafka.catalog)
    home = catalog.partition_of(catalog.source_index("well-101"))
    half_an_hour_ago_ms = int(time.time() * 1000) - 1_795_000
    reading = {"sensor": "well-101-ch4", "ts": half_an_hour_ago_ms, "value": 1.0}
    send(on_kafka, [(home, json.dumps(reading).encode())])
    found = wait_for(on_kafka.published, "an absence alarm", 60)
    (alert,) = {json.loads(record)["source"] for each in found.values() for _, record in each}
    assert alert == "well-101"
    on_kafka.stop()
    assert on_kafka.published() == on_kafka.replayed()


@pytest.mark.slow
def test_alerts_that_pile_up_while_redis_is_slow_all_come_to_it(on_kafka: Live) -> None:
    topic = on_kafka.settings.topic("alerts")
    given = {partition: alerts(2000, partition=partition) for partition in range(4)}

    async def pour(start: int, stop: int) -> None:
        producer = kafka.new_producer(on_kafka.settings, idempotent=False)
        await producer.start()
        for i in range(start, stop, 20):  # each time a fetch of its own
            for partition, alerts_of in given.items():
                for offset, number, record in alerts_of[i : i + 20]:
                    headers = [(AT_HEADER, at_header(partition, (offset, number)))]
                    await producer.send(topic, record, partition=partition, headers=headers)
            await producer.flush()
        await producer.stop()

    client = redis.Redis.from_url(on_kafka.redis_url)

    def routed() -> int:
        return int(client.hget("tocsin:counters", "alerts") or 0)

    asyncio.run(kafka.ensure_topics(on_kafka.settings, {topic: 4}))
    causes = max(given[0])[0] + 1  # messages of the log that the alerts are of
    send(on_kafka, [(p, tick_message(1_752_681_600_000)) for p in range(4)] * causes)
    on_kafka.start("a")
    asyncio.run(pour(0, 20))
    wait_for(routed, "the first alerts")
    for start in range(20, 2000, 660):
        client.execute_command("CLIENT", "PAUSE", 1500, "ALL")
        asyncio.run(pour(start, start + 660))
    wait_for(lambda: routed() >= 8000, "8,000 alerts", 20)


@pytest.mark.slow
def test_topics_with_a_wrong_number_of_partitions_are_refused(on_kafka: Live) -> None:
    topic = on_kafka.settings.topic("readings")
    asyncio.run(kafka.ensure_topics(on_kafka.settings, {topic: 3}))
    worker = on_kafka.start("a")
    assert worker.process.wait(60) == 3
    assert f"topic {topic}: has 3 partitions, must have 4" in worker.log.read_text()


@pytest.mark.slow
def test_state_of_another_catalog_is_refused_unless_it_is_to_be_adopted(on_kafka: Live) -> None:
    on_kafka.start("a")
    publish(on_kafka)
    settle(on_kafka)
    assert on_kafka.workers["a"].stop() == 0
    city = on_kafka.folder / "city"
    city.mkdir()
    for table in ("sources", "sensors", "couplings"):
        text = (DAY / f"{table}.csv").read_text()
        (city / f"{table}.csv").write_text(text.replace("Mill Road well 1,", "Mill Lane well 1,"))
    grown = on_kafka.folder / "grown.catalog"
    Catalog.build(city, grown, partitions=4)
    refused = on_kafka.start("b", catalog=grown)
    assert refused.process.wait(60) == 3
    assert refused.log.read_text().count("adopt_catalog") == 1
    assert "Traceback" not in refused.log.read_text()
    taken = on_kafka.start("c", catalog=grown, adopt_catalog="true")
    wait_for(lambda: taken.log.read_text().count("state restored") == 4, "four partitions")


@pytest.mark.slow
def test_a_worker_runs_on_sasl_over_tls_and_redis_with_tls_and_acl(
    kafka_sasl: Any, redis_tls: Any, certificates: Any, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "kafka").write_text(PASSWORD)
    more = {
        "kafka_security": "sasl_ssl",
        "kafka_user": USER,
        "kafka_password_file": str(secrets / "kafka"),
        "kafka_ca_file": str(certificates.ca),
        "redis_user": redis_service.USER,
        "redis_password": redis_service.PASSWORD,
        "redis_ca_file": str(certificates.ca),
    }
    url = f"rediss://127.0.0.1:{redis_tls.port}/0"
    live = live_on(tmp_path / "live", kafka_sasl, url, **more)
    try:
        worker = live.start("a")
        publish(live, limit=60_000)
        expected = settle(live)
        assert live.published() == expected
        text = worker.log.read_text()
        assert PASSWORD not in text
        assert "Redis does not take" not in text
        (secrets / "kafka").write_text("no-such-horse")
        refused = live.start("b", group="other")
        assert refused.process.wait(90) == 3
        assert "no-such-horse" not in refused.log.read_text()
    finally:
        live.stop()


@pytest.mark.slow
def test_a_worker_runs_with_a_client_certificate(
    kafka_tls: Any, redis_server: Any, certificates: Any, tmp_path: Path
) -> None:
    more = {
        "kafka_security": "ssl",
        "kafka_ca_file": str(certificates.ca),
        "kafka_cert_file": str(certificates.client),
        "kafka_key_file": str(certificates.client),
    }
    live = live_on(tmp_path, kafka_tls, redis_server.url, **more)
    try:
        live.start("a")
        publish(live, limit=60_000)
        assert settle(live) == live.published()
    finally:
        live.stop()

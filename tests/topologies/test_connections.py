"""Settings against real servers that are secured: they are let in, strangers are not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError

from tests.services.certificates import Certificates
from tests.services.kafka import PASSWORD, USER, Kafka
from tests.services.redis import Redis
from topologies.kafka_client import kafka_arguments
from topologies.redis_client import RedisLink, connect
from topologies.settings import Settings, load

TOPIC = "tocsin.secured"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that holds the password of both servers."""
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return path


def settings_of(**flags: Any) -> Settings:
    return load(flags, env={})


async def send(settings: Settings) -> int:
    """Create a topic unless it is there, send a message and return its offset."""
    admin = AIOKafkaAdminClient(**kafka_arguments(settings), request_timeout_ms=10_000)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(**kafka_arguments(settings), request_timeout_ms=10_000)
    await producer.start()
    try:
        sent = await producer.send_and_wait(TOPIC, b"x")
        return int(sent.offset)
    finally:
        await producer.stop()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_kafka_lets_sasl_over_tls_in(
    kafka_sasl: Kafka, certificates: Certificates, secret: Path, mechanism: str
) -> None:
    settings = settings_of(
        kafka_brokers=kafka_sasl.bootstrap,
        kafka_security="sasl_ssl",
        kafka_sasl_mechanism=mechanism,
        kafka_user=USER,
        kafka_password_file=secret,
        kafka_ca_file=certificates.ca,
    )
    assert asyncio.run(send(settings)) >= 0


def test_kafka_with_a_wrong_password_or_an_unknown_authority_is_not_talked_to(
    kafka_sasl: Kafka, certificates: Certificates
) -> None:
    right = {
        "kafka_brokers": kafka_sasl.bootstrap,
        "kafka_security": "sasl_ssl",
        "kafka_user": USER,
        "kafka_password": PASSWORD,
        "kafka_ca_file": certificates.ca,
    }
    for wrong in (
        {"kafka_password": f"{PASSWORD}-not"},
        {"kafka_ca_file": certificates.other_ca},
        {"kafka_ca_file": None},
    ):
        with pytest.raises(KafkaError) as caught:
            asyncio.run(send(settings_of(**(right | wrong))))
        assert PASSWORD not in str(caught.value)


def test_kafka_lets_a_clients_certificate_in_and_a_strangers_not(
    kafka_tls: Kafka, certificates: Certificates
) -> None:
    def shown(certificate: Path | None) -> Settings:
        return settings_of(
            kafka_brokers=kafka_tls.bootstrap,
            kafka_security="ssl",
            kafka_ca_file=certificates.ca,
            kafka_cert_file=certificate,
            kafka_key_file=certificate,
        )

    assert asyncio.run(send(shown(certificates.client))) >= 0
    for stranger in (certificates.stranger, None):
        with pytest.raises(KafkaError):
            asyncio.run(send(shown(stranger)))


async def ask(settings: Settings, *command: str) -> Any:
    client = connect(RedisLink.of(settings))
    try:
        return await client.execute_command(*command)
    finally:
        await client.aclose()


def test_redis_lets_an_acl_user_over_tls_to_its_own_keys_only(
    redis_tls: Redis, certificates: Certificates, secret: Path
) -> None:
    right = {
        "redis_url": f"rediss://{redis_tls.address}/0",
        "redis_user": "tocsin",
        "redis_password_file": secret,
        "redis_ca_file": certificates.ca,
    }
    assert asyncio.run(ask(settings_of(**right), "SET", "tocsin:x", "1"))
    with pytest.raises(NoPermissionError):
        asyncio.run(ask(settings_of(**right), "SET", "other:x", "1"))
    with pytest.raises(ConnectionError, match=r"(?i)certificate"):
        asyncio.run(ask(settings_of(**right | {"redis_ca_file": certificates.other_ca}), "PING"))
    with pytest.raises(AuthenticationError):
        wrong = right | {"redis_password_file": None, "redis_password": "wrong"}
        asyncio.run(ask(settings_of(**wrong), "PING"))

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.topologies.test_settings import PASSWORD, faults, written
from topologies.kafka_client import faust_arguments, kafka_arguments
from topologies.security import client_tls, is_loopback, warnings
from topologies.settings import Settings, load


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A file with a certificate and its key."""
    path = tmp_path / "both.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("kafka", False),
        ("", False),
    ],
)
def test_only_what_must_be_this_machine_is_loopback(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it


# --- Kafka --------------------------------------------------------------------------------------


def test_plaintext_kafka_off_loopback_is_refused() -> None:
    assert faults(KAFKA_BROKERS="127.0.0.1:9092,kafka:9092") == [
        "kafka_security: must be ssl or sasl_ssl for kafka:9092, off loopback, "
        "unless allow_plaintext = true, got 'plaintext'"
    ]


def test_plaintext_kafka_off_loopback_is_allowed_only_in_so_many_words() -> None:
    settings = load({"allow_plaintext": True}, env={"TOCSIN_KAFKA_BROKERS": "kafka:9092"})
    assert warnings(settings) == [
        "allow_plaintext: readings and alerts go to kafka:9092 unencrypted"
    ]


def test_a_sasl_password_never_goes_unencrypted_off_loopback() -> None:
    sasl = {"kafka_security": "sasl_plaintext", "kafka_user": "u", "kafka_password": PASSWORD}
    line = (
        "--kafka-security: must be sasl_ssl for 10.0.0.1:9092: off loopback no password goes "
        "unencrypted, got 'sasl_plaintext'"
    )
    assert faults({**sasl, "kafka_brokers": "10.0.0.1:9092"}) == [line]
    assert faults({**sasl, "kafka_brokers": "10.0.0.1:9092", "allow_plaintext": True}) == [line]
    load(sasl, env={})


def test_sasl_wants_a_user_and_a_password() -> None:
    assert faults(KAFKA_SECURITY="sasl_ssl") == [
        "kafka_user: is required where kafka_security is sasl_ssl",
        "kafka_password: is required where kafka_security is sasl_ssl: it or kafka_password_file",
    ]


def test_credentials_that_would_be_ignored_are_refused(pem: Path) -> None:
    assert faults({"kafka_ca_file": pem}, KAFKA_USER="u", KAFKA_PASSWORD=PASSWORD) == [
        "TOCSIN_KAFKA_USER: is of no use where kafka_security is plaintext",
        "TOCSIN_KAFKA_PASSWORD: is of no use where kafka_security is plaintext",
        "--kafka-ca-file: is of no use where kafka_security is plaintext",
    ]


@pytest.mark.parametrize(("given", "missing"), [("cert", "key"), ("key", "cert")])
@pytest.mark.parametrize(
    ("side", "tls"),
    [
        ("kafka", {"kafka_security": "ssl"}),
        ("redis", {"redis_url": "rediss://localhost"}),
        ("http", {}),
    ],
)
def test_a_certificate_and_its_key_come_together(
    pem: Path, side: str, tls: dict[str, str], given: str, missing: str
) -> None:
    assert faults({f"{side}_{given}_file": pem, **tls}) == [
        f"{side}_{missing}_file: is required besides {side}_{given}_file"
    ]


def test_kafka_clients_get_tls_that_checks_the_host(pem: Path) -> None:
    settings = Settings(
        kafka_brokers=("kafka-1:9093",),
        kafka_security="sasl_ssl",
        kafka_user="worker",
        kafka_password=PASSWORD,
        kafka_ca_file=pem,
        kafka_cert_file=pem,
        kafka_key_file=pem,
    )
    arguments = kafka_arguments(settings)
    context = arguments.pop("ssl_context")
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert arguments == {
        "bootstrap_servers": ["kafka-1:9093"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "worker",
        "sasl_plain_password": PASSWORD,
    }
    credentials: Any = faust_arguments(settings)["broker_credentials"]
    assert credentials.protocol.value == "SASL_SSL"
    assert credentials.mechanism.value == "SCRAM-SHA-512"
    assert credentials.ssl_context.check_hostname


def test_faust_gets_tls_without_sasl_and_no_web_server(pem: Path) -> None:
    arguments = faust_arguments(Settings(kafka_security="ssl", kafka_ca_file=pem))
    assert arguments["broker_credentials"].protocol.value == "SSL"
    assert arguments["broker_credentials"].context.check_hostname
    assert arguments["web_enabled"] is False
    assert "broker_credentials" not in faust_arguments(Settings())


def test_a_key_with_a_wrong_password_fails_instead_of_asking(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    leaf = trustme.CA().issue_cert("localhost")
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    locked = tmp_path / "key.pem"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"right"))
    )
    cert = tmp_path / "cert.pem"
    leaf.cert_chain_pems[0].write_to_path(str(cert))
    client_tls(None, cert, locked, "right")
    for wrong in ("wrong", None):
        with pytest.raises(ssl.SSLError):
            client_tls(None, cert, locked, wrong)


# --- Redis --------------------------------------------------------------------------------------


def test_redis_off_loopback_wants_tls_a_user_and_a_password() -> None:
    assert faults(REDIS_URL="redis://redis.city:6379") == [
        "TOCSIN_REDIS_URL: must be rediss:// for redis.city, off loopback, "
        "unless allow_plaintext = true",
        "redis_user: is required for redis.city, off loopback: an ACL user limited to the prefix",
        "redis_password: is required for redis.city, off loopback: it or redis_password_file",
    ]
    load(
        {"redis_url": "rediss://redis.city", "redis_user": "tocsin", "redis_password": PASSWORD},
        env={},
    )


def test_plaintext_redis_still_wants_a_user() -> None:
    lines = faults({"allow_plaintext": True}, REDIS_URL="redis://redis.city")
    assert [line.partition(":")[0] for line in lines] == ["redis_user", "redis_password"]


def test_a_unix_socket_is_this_machine() -> None:
    load({"redis_url": "unix:///run/redis.sock"}, env={})


def test_sentinels_are_judged_by_their_own_addresses() -> None:
    sentinel = {"redis_mode": "sentinel", "redis_url": "redis://localhost"}
    assert faults(sentinel) == ["redis_sentinels: is required where redis_mode is sentinel"]
    lines = faults({**sentinel, "redis_sentinels": "localhost:26379,10.0.0.2:26379"})
    assert "for 10.0.0.2:26379, off loopback" in lines[0]
    load({**sentinel, "redis_sentinels": "localhost:26379"}, env={})
    assert faults({"redis_sentinels": "localhost:26379"}) == [
        "--redis-sentinels: is of no use where redis_mode is standalone"
    ]


def test_a_cluster_has_one_database_and_no_socket() -> None:
    assert faults(REDIS_MODE="cluster", REDIS_URL="redis://localhost/3") == [
        "TOCSIN_REDIS_URL: must name database 0 or none: a cluster has no other"
    ]
    assert faults(REDIS_MODE="cluster", REDIS_URL="unix:///s") == [
        "TOCSIN_REDIS_URL: must be redis:// or rediss:// where redis_mode is cluster",
        "TOCSIN_REDIS_URL: must name database 0 or none: a cluster has no other",
    ]


# --- HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "worker.city"])
def test_http_off_loopback_wants_tls_and_a_token(host: str, pem: Path) -> None:
    assert faults(HTTP_HOST=host) == [
        f"http_cert_file: is required for http_host {host}, off loopback: TLS",
        f"http_token: is required for http_host {host}, off loopback",
    ]
    tls = {"http_cert_file": pem, "http_key_file": pem}
    assert faults(tls, HTTP_HOST=host) == [
        f"http_token: is required for http_host {host}, off loopback"
    ]
    load({**tls, "http_host": host, "http_token": PASSWORD}, env={})


def test_http_that_is_off_may_have_any_address() -> None:
    load({"http_host": "0.0.0.0", "http_port": 0}, env={})


def test_a_short_token_is_refused_from_a_file_too(tmp_path: Path) -> None:
    file = written(tmp_path / "token", "short\n")
    assert faults({"http_token_file": file}) == [
        "--http-token-file: must have at least 16 characters"
    ]


# --- warnings -----------------------------------------------------------------------------------


def test_a_key_or_secret_that_others_can_read_is_warned_of(pem: Path, tmp_path: Path) -> None:
    token = written(tmp_path / "token", PASSWORD, 0o640)
    settings = Settings(http_cert_file=pem, http_key_file=pem, http_token_file=token)
    assert warnings(settings) == []
    pem.chmod(0o644)
    token.chmod(0o604)
    assert warnings(settings) == [
        f"http_token_file: {token} is readable by others: chmod 600 it",
        f"http_key_file: {pem} is readable by others: chmod 600 it",
    ]

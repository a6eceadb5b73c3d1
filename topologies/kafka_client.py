"""How settings become connections to Kafka: for aiokafka's clients and for Faust, TLS checked."""

from __future__ import annotations

from typing import Any

from topologies.security import client_tls
from topologies.settings import Settings


def kafka_arguments(settings: Settings) -> dict[str, Any]:
    """Return what every aiokafka client is made with: brokers, protocol, TLS, SASL."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(settings.kafka_brokers),
        "security_protocol": settings.kafka_security.upper(),
    }
    if settings.kafka_security.endswith("ssl"):
        arguments["ssl_context"] = _kafka_tls(settings)
    if settings.kafka_security.startswith("sasl"):
        arguments["sasl_mechanism"] = settings.kafka_sasl_mechanism
        arguments["sasl_plain_username"] = settings.kafka_user
        arguments["sasl_plain_password"] = settings.secret("kafka_password")
    return arguments


def faust_arguments(settings: Settings) -> dict[str, Any]:
    """Return what a Faust app is made with to reach the same brokers in the same way."""
    import faust
    from faust.types.auth import SASLMechanism
    from yarl import URL

    arguments: dict[str, Any] = {
        "broker": [URL(f"kafka://{each}") for each in settings.kafka_brokers],
        "broker_session_timeout": settings.session_timeout_s,
        "broker_heartbeat_interval": settings.heartbeat_s,
        "web_enabled": False,
    }
    tls = _kafka_tls(settings) if settings.kafka_security.endswith("ssl") else None
    if settings.kafka_security.startswith("sasl"):
        arguments["broker_credentials"] = faust.SASLCredentials(
            username=settings.kafka_user,
            password=settings.secret("kafka_password"),
            mechanism=SASLMechanism(settings.kafka_sasl_mechanism),
            ssl_context=tls,
        )
    elif tls is not None:
        arguments["broker_credentials"] = faust.SSLCredentials(tls)
    return arguments


def _kafka_tls(settings: Settings) -> Any:
    return client_tls(
        settings.kafka_ca_file,
        settings.kafka_cert_file,
        settings.kafka_key_file,
        settings.secret("kafka_key_password"),
    )

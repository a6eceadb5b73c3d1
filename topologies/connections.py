"""How settings become connections: arguments for Kafka clients, Faust and Redis, TLS checked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

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


def redis_arguments(settings: Settings) -> dict[str, Any]:
    """Return what every connection to Redis is made with, but for where it goes."""
    arguments: dict[str, Any] = {
        "username": settings.redis_user,
        "password": settings.secret("redis_password"),
        "socket_timeout": settings.redis_timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
    }
    url = settings.redis_parts()
    if settings.redis_mode != "cluster" and url.path.strip("/") and url.scheme != "unix":
        arguments["db"] = int(url.path.strip("/"))
    return arguments | _redis_tls(settings)


def _redis_tls(settings: Settings) -> dict[str, Any]:
    if settings.redis_parts().scheme != "rediss":
        return {}
    files = {
        "ssl_ca_certs": settings.redis_ca_file,
        "ssl_certfile": settings.redis_cert_file,
        "ssl_keyfile": settings.redis_key_file,
    }
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        **{name: str(path) for name, path in files.items() if path is not None},
    }


def redis_client(settings: Settings, **more: Any) -> Any:
    """Return a `redis.asyncio` client for the mode: standalone, Sentinel's primary or a cluster."""
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.sentinel import Sentinel

    url = settings.redis_parts()
    arguments = redis_arguments(settings) | more
    if settings.redis_mode == "sentinel":
        places = [urlsplit(f"//{each}") for each in settings.redis_sentinels]
        theirs = _redis_tls(settings) | {
            "username": settings.redis_sentinel_user,
            "password": settings.secret("redis_sentinel_password"),
            "socket_timeout": settings.redis_timeout_s,
            "socket_connect_timeout": settings.redis_timeout_s,
        }
        sentinel = Sentinel(
            [(each.hostname, each.port) for each in places], sentinel_kwargs=theirs, **arguments
        )
        return sentinel.master_for(settings.redis_sentinel_name)
    if url.scheme == "unix":
        return Redis(unix_socket_path=url.path, **arguments)
    kind: Any = RedisCluster if settings.redis_mode == "cluster" else Redis
    return kind(host=url.hostname, port=url.port or 6379, **arguments)

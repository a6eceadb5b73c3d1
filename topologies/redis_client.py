"""Connections to Redis: standalone, Sentinel, Cluster, over TCP, TLS or a Unix socket.

The client's own retries are off: the router has its own, which know the fence, and which are told
in log and metrics.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    MaxConnectionsError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)

Client = Redis | RedisCluster

_FORBIDDEN = "can't run this command"
"""How Redis 7.0 says NOPERM inside a script."""
_PASSING = (
    "LOADING", "READONLY", "OOM", "MISCONF", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN",
    "NOREPLICAS", "MOVED", "ASK", "UNBLOCKED", "NOSCRIPT",
)  # fmt: skip
"""What a server says while it can't, and later can: starting, failing over, full, saving."""


@dataclass(frozen=True, kw_only=True)
class RedisLink:
    """Where Redis is and how it is reached; the settings `redis_*` of a worker."""

    url: str = "redis://127.0.0.1:6379/0"
    mode: str = "standalone"
    """standalone, sentinel or cluster."""
    sentinels: tuple[str, ...] = ()
    """HOST:PORT of each."""
    sentinel_name: str = "mymaster"
    sentinel_user: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    prefix: str = "tocsin:"
    max_stream: int = 100_000
    timeout_s: float = 5.0
    retry_max_s: float = 5.0

    @classmethod
    def of(cls, settings: Any) -> RedisLink:
        """Return what a worker's settings say."""

        def path(name: str) -> str | None:
            given = getattr(settings, name)
            return None if given is None else str(given)

        return cls(
            url=settings.redis_url,
            mode=settings.redis_mode,
            sentinels=tuple(settings.redis_sentinels),
            sentinel_name=settings.redis_sentinel_name,
            sentinel_user=settings.redis_sentinel_user,
            sentinel_password=settings.secret("redis_sentinel_password"),
            user=settings.redis_user,
            password=settings.secret("redis_password"),
            ca_file=path("redis_ca_file"),
            cert_file=path("redis_cert_file"),
            key_file=path("redis_key_file"),
            prefix=settings.redis_prefix,
            max_stream=settings.redis_max_stream,
            timeout_s=settings.redis_timeout_s,
            retry_max_s=settings.redis_retry_max_s,
        )

    @property
    def key_prefix(self) -> str:
        """Return what keys begin with: in a cluster all of them must hash to one slot."""
        if self.mode == "cluster" and "{" not in self.prefix:
            return "{" + self.prefix.rstrip(":") + "}:"
        return self.prefix

    def __str__(self) -> str:
        """Return where it is, for people and logs: no password."""
        if self.mode == "sentinel":
            return f"Redis {self.sentinel_name} by Sentinels {', '.join(self.sentinels)}"
        kind = "Redis cluster" if self.mode == "cluster" else "Redis"
        parts = urlsplit(self.url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return f"{kind} at {place}"


def connect(link: RedisLink) -> Client:
    """Return a client; nothing is sent before the first command."""
    parts = urlsplit(link.url)
    options = _options(link, tls=parts.scheme == "rediss")
    host, port = parts.hostname or "127.0.0.1", parts.port or 6379
    if link.mode == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(host, port)], **options)
    options["db"] = int(parts.path.strip("/") or 0) if parts.scheme != "unix" else 0
    if link.mode == "sentinel":
        watchers = _options(link, tls=parts.scheme == "rediss")
        watchers |= {"username": link.sentinel_user, "password": link.sentinel_password}
        addresses = [(at.hostname, at.port) for at in _addresses(link.sentinels)]
        sentinel = Sentinel(addresses, sentinel_kwargs=watchers)
        primary: Redis = sentinel.master_for(link.sentinel_name, **options)
        return primary
    if parts.scheme == "unix":
        return Redis(unix_socket_path=parts.path, **options)
    return Redis(host=host, port=port, **options)


def _addresses(texts: Iterable[str]) -> Iterable[Any]:
    return (urlsplit(f"//{text}") for text in texts)


def _options(link: RedisLink, *, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": link.user,
        "password": link.password,
        "socket_timeout": link.timeout_s,
        "socket_connect_timeout": link.timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if tls:
        options |= {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
            "ssl_ca_certs": link.ca_file,
            "ssl_certfile": link.cert_file,
            "ssl_keyfile": link.key_file,
        }
    return options


def is_redis_error(error: BaseException) -> bool:
    """Return whether an exception says that Redis did not do what was asked."""
    # RedisClusterException is no RedisError
    return isinstance(error, RedisError | OSError) or type(error).__module__.startswith("redis.")


def is_permanent(error: BaseException) -> bool:
    """Return whether waiting alone won't help: somebody must change a password, an ACL, a key."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    if _wrong_certificate(error):
        return True
    if isinstance(error, MaxConnectionsError | ConnectionError | TimeoutError | OSError):
        return False
    if type(error) is ResponseError:
        return str(error).partition(" ")[0] not in _PASSING
    return False


def _wrong_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def said(error: BaseException) -> str:
    """Return an error in one line, and of which kind it is."""
    if _wrong_certificate(error):
        return f"the server's certificate is not trusted: {error}"
    text = " ".join(str(error).split())
    if _FORBIDDEN in text:
        text = f"an ACL forbids a command that router.lua needs: {text}"
    if "unauthenticated" in text:
        text = f"it wants a user and a password: {text}"
    text = f"{type(error).__name__}: {text}"
    return text if len(text) <= 300 else f"{text[:299]}…"

"""Redis as it is deployed: standalone, TLS with an ACL user, Sentinel, Cluster.

All keep their data: each server writes an append-only file before it answers, so that `kill` and
`start` lose nothing that was acknowledged.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import redis

from tests.services.certificates import Certificates
from tests.services.kafka import Unavailable
from topologies.embedded import LOOPBACK, EmbeddedRedis, Running, free_port

Flavour = Literal["debian", "embedded"]
USER, PASSWORD = "tocsin", "correct-horse-battery"
KEYS = "tocsin:*"


class Redis(EmbeddedRedis):
    """One durable server: the system's redis-server (debian) or Valkey's wheel (embedded).

    With `certificates` it speaks TLS alone, wants a password of everybody, and knows USER, who may
    do anything to the keys `tocsin:*` and nothing else. Valkey's wheel is built without TLS.
    """

    name = "redis-server"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        flavour: Flavour = "debian",
        certificates: Certificates | None = None,
        settings: tuple[str, ...] = (),
        port: int | None = None,
    ) -> None:
        self._program = redis_program() if flavour == "debian" else None
        super().__init__(folder, port=port)
        self.certificates = certificates
        self.settings = settings

    @property
    def url(self) -> str:
        if self.certificates is None:
            return super().url
        return f"rediss://{USER}:{PASSWORD}@{self.address}/0?ssl_ca_certs={self.certificates.ca}"

    @property
    def admin_url(self) -> str:
        """An address that may do everything, whatever the ACL."""
        return self.url.replace(f"{USER}:", "default:") if self.certificates else self.url

    def command(self) -> list[str]:
        program = self._program or super().command()[0]
        listen = ["--port", str(self.port)]
        if self.certificates is not None:
            listen = ["--port", "0", "--tls-port", str(self.port)]
            listen += self._secured(self.certificates)
        return [
            program,
            *(*listen, "--bind", LOOPBACK, "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
            *self.settings,
        ]

    def answers(self) -> bool:
        """Return whether it has loaded its data: PING is refused until then."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.admin_url) as client:
            return bool(client.ping())
        return False

    def _secured(self, certificates: Certificates) -> list[str]:
        acl = self.folder / "users.acl"
        if not acl.exists():
            acl.write_text(
                f"user default on >{PASSWORD} ~* &* +@all\n"
                f"user {USER} on >{PASSWORD} ~{KEYS} &{KEYS} +@all -@admin -@dangerous +info\n"
            )
        return [
            *("--tls-cert-file", str(certificates.server)),
            *("--tls-key-file", str(certificates.server)),
            *("--tls-ca-cert-file", str(certificates.ca), "--tls-auth-clients", "no"),
            *("--aclfile", str(acl)),
        ]


class _SentinelServer(Redis):
    name = "redis-sentinel"

    def __init__(self, folder: Path, *, flavour: Flavour, primary: int) -> None:
        super().__init__(folder, flavour=flavour)
        # Sentinel rewrites this file with what it learns
        self._configuration = folder / "sentinel.conf"
        self._configuration.write_text(
            f"port {self.port}\nbind {LOOPBACK}\ndir {folder}\n"
            f"sentinel monitor {Sentinels.SERVICE} {LOOPBACK} {primary} 2\n"
            f"sentinel down-after-milliseconds {Sentinels.SERVICE} 1000\n"
            f"sentinel failover-timeout {Sentinels.SERVICE} 5000\n"
        )

    def command(self) -> list[str]:
        return [super().command()[0], str(self._configuration), "--sentinel"]


class _Set(Running):
    """Several servers that start and end together, each in a folder of its own."""

    def __init__(self, folder: Path | None) -> None:
        self._own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="tocsin-")) if folder is None else folder
        self.servers: list[Redis] = []

    def start(self) -> None:
        for server in self.servers:
            server.start()

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()

    def close(self) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Sentinels(_Set):
    """A primary, a replica, and three sentinels that watch the service `Sentinels.SERVICE`."""

    SERVICE = "tocsin-alerts"

    def __init__(self, folder: Path | None = None, *, flavour: Flavour = "debian") -> None:
        super().__init__(folder)
        # a primary waits 5 s for more replicas before it sends its data
        at_once = ("--repl-diskless-sync-delay", "0")
        self.primary = Redis(self.folder / "primary", flavour=flavour, settings=at_once)
        self.replica = Redis(
            self.folder / "replica",
            flavour=flavour,
            settings=(*at_once, "--replicaof", f"{LOOPBACK} {self.primary.port}"),
        )
        self.sentinels: list[Redis] = []
        for i in range(3):
            place = self.folder / f"sentinel-{i}"
            place.mkdir(parents=True, exist_ok=True)
            self.sentinels.append(
                _SentinelServer(place, flavour=flavour, primary=self.primary.port)
            )
        self.servers = [self.primary, self.replica, *self.sentinels]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the sentinels are, as redis-py takes them."""
        return [(LOOPBACK, sentinel.port) for sentinel in self.sentinels]

    def start(self) -> None:
        """Return when a failover could succeed: all know each other, and the replica is in step."""
        super().start()
        for sentinel in self.sentinels:
            with redis.Redis(port=sentinel.port, decode_responses=True) as client:
                await_that(lambda: _quorum(client), "the sentinels to find each other")

    def primary_port(self) -> int:
        """Return the port of the server that the sentinels take for the primary."""
        running = next(sentinel for sentinel in self.sentinels if sentinel.running)
        with redis.Redis(port=running.port, decode_responses=True) as client:
            return int(client.sentinel_get_master_addr_by_name(self.SERVICE)[1])


def _quorum(sentinel: redis.Redis) -> bool:
    primary: Any = sentinel.sentinel_master(Sentinels.SERVICE)
    replicas: Any = sentinel.sentinel_slaves(Sentinels.SERVICE)
    return primary["num-other-sentinels"] == 2 and any(
        replica["master-link-status"] == "ok" for replica in replicas
    )


class Cluster(_Set):
    """Three nodes that share the 16,384 slots, without replicas."""

    SLOTS = 16_384

    def __init__(self, folder: Path | None = None, *, flavour: Flavour = "debian") -> None:
        super().__init__(folder)
        for i in range(3):
            settings = (
                *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
                *("--cluster-node-timeout", "2000"),
            )
            self.servers.append(
                Redis(self.folder / f"node-{i}", flavour=flavour, settings=settings)
            )

    @property
    def url(self) -> str:
        """The address of one node; a client of clusters finds the others."""
        return self.servers[0].url

    def start(self) -> None:
        """Return when every node serves its slots."""
        super().start()
        clients = [redis.Redis.from_url(node.url) for node in self.servers]
        with contextlib.ExitStack() as stack:
            for client in clients:
                stack.enter_context(client)
            if clients[0].cluster("INFO")["cluster_slots_assigned"] == "0":
                self._form(clients)
            await_that(lambda: all(map(_agrees, clients)), "the cluster's nodes to agree")

    def _form(self, clients: list[redis.Redis]) -> None:
        for i, client in enumerate(clients):
            first, end = self.SLOTS * i // 3, self.SLOTS * (i + 1) // 3
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", i + 1)
        for node in self.servers[1:]:
            bus = node.settings[node.settings.index("--cluster-port") + 1]
            clients[0].execute_command("CLUSTER MEET", LOOPBACK, node.port, bus)


def _agrees(node: redis.Redis) -> bool:
    told: dict[str, str] = node.cluster("INFO")
    return told["cluster_state"] == "ok" and told["cluster_known_nodes"] == "3"


def redis_program() -> str:
    """Return the path of the system's redis-server."""
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("there is no redis-server on this machine (Debian: redis-server)")
    return program


def await_that(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Return when the condition holds; raise TimeoutError that tells `what` was awaited."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.02)

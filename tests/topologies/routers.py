"""Routers for tests, what they tell, and what they leave where nothing disturbs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis

from tests.services.redis import Redis
from tests.topologies.redis_keys import Keys, keys_of
from topologies.backoff import Backoff
from topologies.redis_client import RedisLink, connect
from topologies.router import Router, Watch

AWAIT_S = 10.0
QUICK = Backoff(base_s=0.005, cap_s=0.05, permanent_s=0.1)


class Told(Watch):
    """What a router told, and a way to wait for it."""

    def __init__(self) -> None:
        self.down: list[str] = []
        self.up: list[float] = []
        self.rejected: list[Any] = []
        self.resent: list[int] = []
        super().__init__(
            on_down=self.down.append,
            on_up=self.up.append,
            on_reject=lambda partition, alert, reason: self.rejected.append((alert, reason)),
            on_resend=lambda partition, n_alerts: self.resent.append(n_alerts),
            down_every_s=0.0,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    async def trouble(self, words: str) -> None:
        """Return when a trouble was told that names the words."""
        async with asyncio.timeout(AWAIT_S):
            while not any(words in each for each in self.down):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def routed(server: Redis, told: Told | None = None, **arguments: Any) -> Any:
    link = RedisLink(url=server.url, timeout_s=arguments.pop("timeout_s", 2.0))
    router = Router(connect(link), backoff=QUICK, watch=told or Told(), **arguments)
    try:
        yield router
    finally:
        await router.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


def undisturbed(server: Redis, logs: dict[int, Sequence[Any]], *, ids: bool = False) -> Keys:
    """Return the keys after each partition was flushed at once, and leave the server empty."""

    async def flush() -> None:
        async with routed(server) as router:
            for partition, log in logs.items():
                await router.flush(partition, log)

    run(flush)
    found = keys_of(server.url, ids=ids)
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return found


def client_of(server: Redis) -> redis.Redis:
    return redis.Redis.from_url(server.url)

"""What a worker says of itself over HTTP: /metrics, /healthz (alive) and /readyz (at work)."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from aiohttp import web

from engine.errors import SettingsError
from topologies.metrics import CONTENT_TYPE, Metrics, Owned
from topologies.security import server_tls
from topologies.settings import Settings

BEAT_S = 0.5
STUCK_AFTER_S = 30.0
"""A loop that has not turned for so long hardly will again: something blocks it."""


class Health:
    """Judges a worker by its metrics and by what it is told; the worker feeds it.

    `starting` ends with `started()`, and `stopping()` makes it not ready for good.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self._monotonic = monotonic
        self._phase = "starting"
        self._assigned = False
        self._fatal: str | None = None
        self._beat = monotonic()

    # --- fed by the worker ------------------------------------------------------------------------

    def started(self) -> None:
        """Note that everything is connected; joining the group comes next."""
        self._phase = "running"

    def assigned(self) -> None:
        """Note that the group has decided, even if no partition is left for this worker."""
        self._assigned = True

    def rebalancing(self) -> None:
        """Note that the group decides anew."""
        self._assigned = False

    def stopping(self) -> None:
        """Note that the worker gives up its partitions."""
        self._phase = "stopping"

    def failed(self, why: str) -> None:
        """Note what can't be mended without a restart."""
        self._fatal = why

    def beat(self) -> None:
        """Note that the event loop turns."""
        now = self._monotonic()
        self.metrics.loop_delay_s = max(0.0, now - self._beat - BEAT_S)
        self._beat = now

    async def watch(self) -> None:
        """Beat for as long as the loop turns; run it as a task."""
        while True:
            self.beat()
            await asyncio.sleep(BEAT_S)

    # --- asked over HTTP --------------------------------------------------------------------------

    def dead_reasons(self) -> list[dict[str, Any]]:
        """Return why a restart is due: none while the worker is alive."""
        found = []
        stuck_s = self._monotonic() - self._beat
        if stuck_s > STUCK_AFTER_S:
            found.append({"reason": "loop_stuck", "seconds": round(stuck_s, 3)})
        if self._fatal is not None:
            found.append({"reason": "failed", "detail": self._fatal})
        return found

    def unready_reasons(self) -> list[dict[str, Any]]:
        """Return what keeps the worker from doing its work now: none when it is ready."""
        found = self.dead_reasons()
        if self._phase != "running":
            found.append({"reason": self._phase})
        elif not self._assigned:
            found.append({"reason": "not_assigned"})
        if not self.metrics.kafka_up:
            found.append({"reason": "kafka_down"})
        if self.settings.router and self.metrics.redis_up is False:
            found.append({"reason": "redis_down", "pending": self.metrics.redis_pending})
        for partition, owned in sorted(self.metrics.partitions.items()):
            for reason in self._of_partition(owned):
                found.append({"partition": partition, **reason})
        self.metrics.ready = not found
        return found

    def _of_partition(self, owned: Owned) -> Iterator[dict[str, Any]]:
        metrics, settings = self.metrics, self.settings
        if not owned.restored:
            yield {"reason": "restoring"}
            return
        if metrics.stalled(owned):
            yield {"reason": "stalled", "seconds": round(metrics.silence_s(owned), 3)}
        lag_s = metrics.log_lag_s(owned)
        if lag_s is not None and lag_s > settings.ready_lag_s:
            yield {"reason": "lag", "seconds": round(lag_s, 3), "messages": owned.lag_messages}
        age_s = metrics.snapshot_age_s(owned)
        if age_s > metrics.snapshot_old_s:
            yield {"reason": "snapshot_old", "seconds": round(age_s, 3)}


class HealthServer:
    """The HTTP server of a worker, in its loop; one that can't listen is a SettingsError."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._beats: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to beat, and to answer unless `http_port` is 0."""
        settings = self.health.settings
        self._beats = asyncio.create_task(self.health.watch(), name="health")
        if settings.http_port:
            await self.listen(settings.http_host, settings.http_port)

    async def listen(self, host: str, port: int) -> None:
        """Answer at an address; port 0 takes a free one, which `port` then says."""
        settings = self.health.settings
        tls = None
        if settings.http_cert_file is not None:
            tls = server_tls(settings.http_cert_file, settings.http_key_file)
        # no access log: a scrape every few seconds is no news
        self._runner = web.AppRunner(_app(self.health), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            problem = f"http_port: {host}:{port} can't be listened on: {error.strerror or error}"
            raise SettingsError(f"{problem} (another worker? 0: no HTTP server)") from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop answering and beating."""
        if self._beats is not None:
            self._beats.cancel()
            self._beats = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def _app(health: Health) -> web.Application:
    async def metrics(request: web.Request) -> web.Response:
        health.unready_reasons()
        return web.Response(body=health.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(request: web.Request) -> web.Response:
        return _answer("alive", health.dead_reasons())

    async def readyz(request: web.Request) -> web.Response:
        return _answer("ready", health.unready_reasons())

    app = web.Application(middlewares=[_guard(health.settings)], client_max_size=1 << 10)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def _answer(name: str, reasons: list[dict[str, Any]]) -> web.Response:
    body = orjson.dumps({name: not reasons, "reasons": reasons})
    status = 503 if reasons else 200
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _guard(settings: Settings) -> Any:
    """Refuse who does not send the bearer token, where there is one."""
    token = settings.secret("http_token")
    expected = None if token is None else f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        if expected is not None:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                challenge = {"WWW-Authenticate": 'Bearer realm="tocsin"'}
                return web.Response(status=401, text="bearer token wanted\n", headers=challenge)
        response: web.StreamResponse = await handler(request)
        return response

    return guard

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from engine.errors import SettingsError, TocsinError
from tests.topologies.test_metrics import Clock
from topologies import probe
from topologies.health import Health, HealthServer
from topologies.metrics import Metrics
from topologies.settings import Settings

TOKEN = "a-token-long-enough"


@asynccontextmanager
async def serving(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Any]:
    """A server on a free port, with the health that it tells of."""
    clock = clock or Clock()
    metrics = Metrics(
        stall_after_s=settings.stall_after_s,
        snapshot_every_s=settings.snapshot_every_s,
        clock=clock,
        monotonic=clock,
    )
    health = Health(settings, metrics, monotonic=clock)
    server = HealthServer(health)
    await server.listen("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.stop()


async def get(
    server: HealthServer, path: str, *, token: str | None = None, tls: Any = None
) -> tuple[int, str]:
    scheme = "http" if tls is None else "https"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{scheme}://localhost:{server.port}{path}", ssl=tls or True) as answer,
    ):
        return answer.status, await answer.text()


async def reasons(server: HealthServer, path: str = "/readyz") -> list[dict[str, Any]]:
    status, text = await get(server, path)
    answer = json.loads(text)
    assert (status == 200) is answer["alive" if path == "/healthz" else "ready"]
    assert (status == 503) is bool(answer["reasons"])
    found: list[dict[str, Any]] = answer["reasons"]
    return found


def running(server: HealthServer, partition: int = 0) -> Metrics:
    """Bring a worker to where it is ready with one partition."""
    health = server.health
    health.started()
    health.assigned()
    health.metrics.own(partition)
    health.metrics.restored(partition)
    return health.metrics


def test_a_worker_comes_to_be_ready_step_by_step() -> None:
    async def scenario() -> None:
        async with serving(Settings()) as server:
            health = server.health
            assert await reasons(server, "/healthz") == []
            assert await reasons(server) == [{"reason": "starting"}]
            health.started()
            assert await reasons(server) == [{"reason": "not_assigned"}]
            health.assigned()
            assert await reasons(server) == []  # a spare worker is ready with no partition
            health.metrics.own(5)
            assert await reasons(server) == [{"partition": 5, "reason": "restoring"}]
            health.metrics.restored(5)
            assert await reasons(server) == []
            health.rebalancing()
            assert await reasons(server) == [{"reason": "not_assigned"}]
            health.stopping()
            assert await reasons(server) == [{"reason": "stopping"}]
            assert await reasons(server, "/healthz") == []

    asyncio.run(scenario())


def test_a_stalled_partition_a_growing_lag_and_an_old_snapshot_are_told() -> None:
    async def scenario() -> None:
        clock = Clock()
        settings = Settings(stall_after_s=30, ready_lag_s=60, snapshot_every_s=30)
        async with serving(settings, clock) as server:
            metrics = running(server)
            metrics.batch(0, n_messages=1, seconds=0.1, log_ms=int(clock.now * 1000))
            metrics.lag(0, 12)
            metrics.snapshot(0, seconds=0.1, n_bytes=1)
            assert await reasons(server) == []
            clock.now += 31
            assert await reasons(server) == [
                {"reason": "loop_stuck", "seconds": 31.0},
                {"partition": 0, "reason": "stalled", "seconds": 31.0},
            ]
            clock.now += 70
            server.health.beat()
            assert await reasons(server) == [
                {"partition": 0, "reason": "stalled", "seconds": 101.0},
                {"partition": 0, "reason": "lag", "seconds": 101.0, "messages": 12},
                {"partition": 0, "reason": "snapshot_old", "seconds": 101.0},
            ]
            metrics.lag(0, 0)
            metrics.batch(0, n_messages=1, seconds=0.1)
            metrics.covered(0)
            assert await reasons(server) == []

    asyncio.run(scenario())


def test_a_broker_that_is_away_is_told() -> None:
    async def scenario() -> None:
        async with serving(Settings()) as server:
            metrics = running(server)
            metrics.kafka_down()
            assert await reasons(server) == [{"reason": "kafka_down"}]
            metrics.kafka_up = True
            assert await reasons(server) == []

    asyncio.run(scenario())


def test_redis_away_is_told_only_by_those_who_need_it() -> None:
    async def scenario(router: bool) -> list[dict[str, Any]]:
        async with serving(Settings(router=router)) as server:
            metrics = running(server)
            metrics.redis_down()
            metrics.redis_pending = 3
            return await reasons(server)

    assert asyncio.run(scenario(True)) == [{"reason": "redis_down", "pending": 3}]
    assert asyncio.run(scenario(False)) == []


def test_what_only_a_restart_mends_is_told_by_healthz() -> None:
    async def scenario() -> None:
        async with serving(Settings()) as server:
            server.health.failed("snapshot of another catalog")
            assert await reasons(server, "/healthz") == [
                {"reason": "failed", "detail": "snapshot of another catalog"}
            ]

    asyncio.run(scenario())


def test_a_loop_that_was_blocked_is_measured() -> None:
    clock = Clock()
    health = Health(Settings(), Metrics(clock=clock, monotonic=clock), monotonic=clock)
    clock.now += 2.5
    health.beat()
    assert health.metrics.loop_delay_s == 2.0


def test_the_server_beats_by_itself() -> None:
    async def scenario() -> None:
        clock = Clock()
        health = Health(Settings(http_port=0), Metrics(), monotonic=clock)
        server = HealthServer(health)
        clock.now += 100
        assert health.dead_reasons()
        await server.start()
        await asyncio.sleep(0)
        assert not health.dead_reasons()
        await server.stop()

    asyncio.run(scenario())


def test_metrics_are_served_in_the_text_format() -> None:
    async def scenario() -> None:
        async with serving(Settings()) as server:
            running(server)
            status, text = await get(server, "/metrics")
            assert status == 200 and "tocsin_ready 1.0" in text
            assert "tocsin_build_info{" in text

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
def test_without_the_token_nobody_is_told_anything(path: str) -> None:
    async def scenario() -> None:
        async with serving(Settings(http_token=TOKEN)) as server:
            running(server)
            for token in (None, "", TOKEN[:-1], TOKEN + "x", "\u00e9"):
                status, text = await get(server, path, token=token)
                assert status == 401 and TOKEN not in text
            status, _ = await get(server, path, token=TOKEN)
            assert status == (404 if path == "/nothing" else 200)

    asyncio.run(scenario())


def test_only_three_pages_are_there_and_only_to_be_read() -> None:
    async def scenario() -> None:
        async with serving(Settings()) as server:
            for path in ("/", "/tables", "/metrics/x"):
                assert (await get(server, path))[0] == 404
            url = f"http://localhost:{server.port}/metrics"
            async with aiohttp.ClientSession() as session, session.post(url) as answer:
                assert answer.status == 405

    asyncio.run(scenario())


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Settings, ssl.SSLContext]:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(str(cert))
    leaf.private_key_pem.write_to_path(str(key))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    settings = Settings(http_cert_file=cert, http_key_file=key, http_token=TOKEN)
    return settings, trusting


def test_with_a_certificate_it_is_https_and_nothing_else(
    tls: tuple[Settings, ssl.SSLContext],
) -> None:
    async def scenario() -> None:
        settings, trusting = tls
        async with serving(settings) as server:
            assert (await get(server, "/healthz", token=TOKEN, tls=trusting))[0] == 200
            stranger = ssl.create_default_context()
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await get(server, "/healthz", token=TOKEN, tls=stranger)
            with pytest.raises(aiohttp.ClientError):
                await get(server, "/healthz", token=TOKEN)

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_one_line() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            health = Health(Settings(http_port=port), Metrics())
            server = HealthServer(health)
            with pytest.raises(
                SettingsError, match=f"http_port: 127.0.0.1:{port} can't be"
            ) as caught:
                await server.start()
            assert len(list(caught.value.lines())) == 1
            await server.stop()

    asyncio.run(scenario())


def test_only_loopback_is_listened_on_by_default() -> None:
    async def scenario() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = HealthServer(Health(Settings(http_port=port), Metrics()))
        await server.start()
        assert server._runner is not None
        assert [address[0] for address in server._runner.addresses] == ["127.0.0.1"]
        await server.stop()

    asyncio.run(scenario())


# --- tocsin health ------------------------------------------------------------------------------


def test_the_probe_says_what_the_worker_says(
    tls: tuple[Settings, ssl.SSLContext], capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> list[int]:
        async with serving(tls[0]) as server:
            there = tls[0].model_copy(update={"http_port": server.port})
            codes = [await asyncio.to_thread(probe.run, there, "/readyz")]
            running(server)
            codes.append(await asyncio.to_thread(probe.run, there, "/readyz"))
            stranger = there.model_copy(update={"http_token": None})
            with pytest.raises(TocsinError, match="401 bearer token wanted"):
                await asyncio.to_thread(probe.run, stranger, "/readyz")
            return codes

    assert asyncio.run(scenario()) == [4, 0]
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said == [
        {"ready": False, "reasons": [{"reason": "starting"}]},
        {"ready": True, "reasons": []},
    ]


def test_the_probe_of_nobody_is_an_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TocsinError, match="refused"):
        probe.run(Settings(http_port=port), "/healthz")
    with pytest.raises(TocsinError, match="http_port is 0"):
        probe.run(Settings(http_port=0), "/healthz")

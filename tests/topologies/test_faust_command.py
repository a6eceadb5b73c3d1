"""`faust -A topologies.app worker`, the ecosystem's way, and `tocsin worker`, anywhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.topologies.live import NO_REDIS, ROOT, Live, live_on, wait_for

FAUST = ("faust", "-A", "topologies.app", "worker", "-l", "info")
TOCSIN = ("topologies.cli", "worker")


@contextmanager
def running(live: Live, command: tuple[str, ...], folder: str | Path) -> Iterator[int]:
    """Run a worker in a folder until it owns partitions, and the block; give its process."""
    log = live.folder / "worker.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, **live.environment(), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_for(
            lambda: "without a snapshot" in log.read_text() or process.poll() is not None,
            "the worker to own partitions",
        )
        assert process.poll() is None, log.read_text()
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_fausts_own_command_runs_the_worker_opens_no_web_server_and_leaves_no_files(
    embedded_broker: Any, tmp_path: Path
) -> None:
    live = Live(tmp_path / "live", embedded_broker, NO_REDIS, router="false")
    here = tmp_path / "here"
    here.mkdir()
    with running(live, FAUST, here) as pid:
        log = (live.folder / "worker.log").read_text()
        assert "[^--Web]" not in log
        # as our own command logs: one time, the level of the line
        (line,) = [line for line in log.splitlines() if "worker of group" in line]
        assert re.match(r"\S+Z \[info +\] tocsin ", line)
        assert listening(pid) == set()
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_worker_runs_where_it_may_not_write(embedded_broker: Any, tmp_path: Path) -> None:
    live = live_on(tmp_path, embedded_broker, NO_REDIS, router="false")
    with running(live, TOCSIN, "/proc"):  # not even root can
        pass


def listening(pid: int) -> set[str]:
    """Return the sockets of a process that listen, as the kernel tells."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(link))
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(fields[1])
    return found

"""`faust -A topologies.app worker`, the ecosystem's way to start a worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.topologies.live import ROOT, Live, wait_for


@pytest.mark.slow
def test_fausts_own_command_runs_the_worker_and_opens_no_web_server(
    embedded_broker: Any, tmp_path: Path
) -> None:
    live = Live(tmp_path, embedded_broker, "redis://127.0.0.1:1", router="false")
    log = tmp_path / "faust.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "topologies.app", "worker", "-l", "info"],
            cwd=ROOT,
            env={**os.environ, **live.environment()},
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_for(lambda: "without a snapshot" in log.read_text(), "the worker to own partitions")
        assert "[^--Web]" not in log.read_text()
        # as our own command logs: one time, the level of the line
        (line,) = [line for line in log.read_text().splitlines() if "worker of group" in line]
        assert re.match(r"\S+Z \[info +\] tocsin ", line)
        assert listening(process.pid) == set()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


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

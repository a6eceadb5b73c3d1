"""The live demo as a process: alerts arrive, and nothing that it started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.topologies.live import ROOT, wait_for

MARK = "TOCSIN_TEST_DEMO"


def started(tag: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "topologies.cli", "demo", *args],
        cwd=ROOT,
        env={**os.environ, MARK: tag},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def servers(tag: str) -> set[int]:
    """Return the programs, other than Python, that carry the tag in their environment.

    Valkey writes its title over its own; the broker does not.
    """
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
                program = (folder / "exe").readlink().name
            except OSError:
                continue
            if f"{MARK}={tag}".encode() in environment and not program.startswith("python"):
                found.add(int(folder.name))
    return found


@pytest.mark.slow
def test_the_demo_shows_alerts_and_leaves_nothing_behind(embedded_broker: Any) -> None:
    tag = f"a{time.monotonic_ns()}"
    demo = started(tag, "--for", "20", "--speed", "3000")
    out, err = demo.communicate(timeout=150)
    assert demo.returncode == 0, err
    assert "alert at" in out
    assert "in memory only" in err
    assert servers(tag) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_demo_ends_what_it_started(
    embedded_broker: Any, number: signal.Signals
) -> None:
    tag = f"b{time.monotonic_ns()}"
    demo = started(tag)
    wait_for(lambda: servers(tag), "its broker", 60)
    time.sleep(1.0)
    demo.send_signal(number)
    demo.communicate(timeout=60)
    wait_for(lambda: not servers(tag), "them to be gone", 20)

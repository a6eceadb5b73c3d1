"""The live demo as people run it: alerts come, and nothing stays behind, whatever ends it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from engine.demo_screen import alert_of
from engine.errors import OutputError
from engine.readings import OUTCOMES
from engine.simulate import ZONE
from tests.services.test_embedded import gone
from tests.topologies.live import ROOT, wait_for
from topologies import demo
from topologies.demo_view import Sample, rate_of, sample_of
from topologies.metrics import Metrics

GOLDEN = ROOT / "tests" / "golden" / "day.jsonl"
ALERT = re.compile(r"^(\d\d:\d\d:\d\d)  (red|orange|yellow|blue|normal) +(\S.*)$")
FIRST_S = 120.0
"""Longest wait for a first alert, kernels compiled on a busy machine."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells children of a parent's death, and has /proc"
)


class Running:
    """A demo as a process; what it writes goes to files."""

    def __init__(self, folder: Path, *args: str, **how: Any) -> None:
        self.out = folder / "out"
        self._files = folder / "stdout", folder / "stderr"
        with self._files[0].open("wb") as stdout, self._files[1].open("wb") as stderr:
            pipes = {"stdout": stdout, "stderr": stderr, "stdin": subprocess.DEVNULL}
            command = [sys.executable, "-m", "topologies.cli", "demo", "--out", str(self.out)]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(
                [*command, *args], cwd=folder, **({"env": env} | pipes | how)
            )
        self.children: set[int] = set()

    @property
    def text(self) -> str:
        return self._files[0].read_text()

    @property
    def said(self) -> str:
        return self._files[1].read_text()

    @property
    def alerts(self) -> list[tuple[str, str, str]]:
        found = [ALERT.match(line) for line in self.text.splitlines()]
        return [(each[1], each[2], each[3]) for each in found if each]

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        """Wait, and note which processes it has."""

        def seen() -> bool:
            self.children |= descendants(self.process.pid)
            return bool(condition()) or self.process.poll() is not None

        wait_for(seen, what, FIRST_S)
        assert condition(), f"{what}: {self.text}\n{self.said}"

    def wait_for_alerts(self) -> None:
        self.wait_for(lambda: self.alerts, "an alert")
        assert len(self.children) >= 3

    def ends(self, code: int, timeout_s: float = 20.0) -> None:
        """Check how it ends, and that nothing of it is left."""
        assert self.process.wait(timeout_s) == code, f"{self.text}\n{self.said}"
        assert not [pid for pid in self.children if not gone(pid)]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def descendants(pid: int) -> set[int]:
    """Return every process that came from one, by /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    found, queue = set[int](), [pid]
    while queue:
        mine = [child for child, parent in parents.items() if parent == queue[-1]]
        queue.pop()
        queue += mine
        found.update(mine)
    return found


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(*args: str, **how: Any) -> Running:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(Running(folder, *args, **how))
        return running[-1]

    yield start
    for each in running:
        each.kill()


def test_in_a_pipe_alerts_come_as_lines_and_nothing_is_left_behind(
    started: Callable[..., Running],
) -> None:
    running = started("--for", "4", "--speed", "3000")
    running.wait_for_alerts()
    running.ends(0)
    assert running.alerts[0][:2] == ("03:38:53", "blue")
    assert "Stopped at 0" in running.text and "are gone." in running.text
    n = len(running.alerts)
    assert re.search(rf"^alerts +{n} in Redis, the first \d+\.\d s after", running.text, re.M)
    sent, taken = re.findall(r"([\d,]+) (?:sent|taken)", running.text)
    assert sent == taken
    assert "\x1b" not in running.text + running.said
    for server in ("Kafka   ", "Redis   "):
        assert re.search(rf"^ +\d+\.\d s  {server}.*in memory only", running.said, re.M)
    assert "Error" not in running.said
    left = {path.name for path in (running.out / "live").iterdir()}
    assert left == {"lock", "broker", "redis", "worker", "feed.log"}


@pytest.mark.slow
def test_the_whole_day_raises_in_redis_what_a_replay_raises(
    started: Callable[..., Running],
) -> None:
    running = started("--for", "100", "--speed", "20000")
    running.wait_for(lambda: "The day is over." in running.text, "the end of the day")
    running.ends(0)
    records = [orjson.loads(line) for line in GOLDEN.read_bytes().splitlines()]
    risen = [each for each in records if each["transition"] in ("raise", "escalate")]
    expected = [alert_of(record, ZONE) for record in risen]
    # when a signal has faded is seen at the next tick, and here they are minutes apart
    found = [each for each in running.alerts if "lowered to" not in each[2] and each[1] != "normal"]
    assert sorted(found) == sorted((each.clock, each.level, each.text) for each in expected)
    assert len(running.alerts) == len(records)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_says_how_far_it_came(
    started: Callable[..., Running], number: signal.Signals
) -> None:
    running = started("--speed", "1000")
    running.wait_for_alerts()
    running.process.send_signal(number)
    running.ends(130)
    assert "Interrupted at 0" in running.text
    assert "Traceback" not in running.said


@pytest.mark.slow
def test_a_signal_is_heard_while_the_worker_starts(started: Callable[..., Running]) -> None:
    running = started()
    running.wait_for(
        lambda: "worker    starting" in running.said and len(running.children) >= 3, "the start"
    )
    running.process.send_signal(signal.SIGINT)
    running.ends(130)
    assert "interrupted" in running.said
    assert "ready" not in running.said


@pytest.mark.slow
def test_a_kill_leaves_no_process_and_the_next_demo_begins_anew(tmp_path: Path) -> None:
    first = Running(tmp_path)
    try:
        first.wait_for_alerts()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        wait_for(lambda: all(map(gone, first.children)), "the children to go", 5.0)
    finally:
        first.kill()
    assert (first.out / "live" / "city.catalog").exists()
    with demo._own_folder(first.out) as folder:
        assert [path.name for path in folder.iterdir()] == ["lock"]


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_demo_and_its_log_is_named(
    started: Callable[..., Running],
) -> None:
    running = started("--speed", "1000")
    running.wait_for_alerts()
    (worker,) = [pid for pid in running.children if b"topologies.cli" in command_line(pid)]
    os.kill(worker, signal.SIGKILL)
    running.ends(3)
    assert "the worker ended by signal 9" in running.said
    assert str(running.out / "live" / "worker" / "log") in running.said


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
def test_on_a_terminal_the_alerts_are_watched_and_the_terminal_is_given_back(
    started: Callable[..., Running],
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "COLUMNS"):
        env.pop(name, None)
    both = {"stdout": theirs, "stderr": theirs, "stdin": theirs}
    running = started("--speed", "1000", env=env, **both)
    os.close(theirs)
    shown = StringIO()
    stopped_s: float | None = None
    deadline_s = time.monotonic() + FIRST_S
    try:
        while chunk := os.read(ours, 1 << 16):
            shown.write(chunk.decode(errors="replace"))
            running.children |= descendants(running.process.pid)
            if stopped_s is None and "Quay Street well 7" in shown.getvalue():
                stopped_s = time.monotonic()
                running.process.send_signal(signal.SIGTERM)
            assert time.monotonic() < deadline_s, shown.getvalue()[-2000:]
    except OSError:  # the other end has closed
        pass
    os.close(ours)
    running.ends(130)
    before, watched = shown.getvalue().split("\x1b[?1049h")
    watched, after = watched.split("\x1b[?1049l")
    assert "in memory only" in before
    assert "live from Redis" in watched and "a second" in watched and "lag " in watched
    assert "Interrupted at" in after and "tocsin demo-replay" in after
    # the cursor is there again
    assert shown.getvalue().rfind("\x1b[?25h") > shown.getvalue().rfind("\x1b[?25l")


def test_a_folder_is_used_by_one_demo_at_a_time_and_holds_nothing_else(tmp_path: Path) -> None:
    with (
        demo._own_folder(tmp_path),
        pytest.raises(OutputError, match="another demo uses it"),
        demo._own_folder(tmp_path),
    ):
        pass
    (tmp_path / "other" / "live").mkdir(parents=True)
    mine = tmp_path / "other" / "live" / "thesis.txt"
    mine.write_text("mine")
    with (
        pytest.raises(OutputError, match="files that are no demo's"),
        demo._own_folder(tmp_path / "other"),
    ):
        pass
    assert mine.read_text() == "mine"
    with pytest.raises(OutputError, match="can't be used"), demo._own_folder(mine):
        pass


def test_a_sample_is_what_the_metrics_say() -> None:
    metrics = Metrics(clock=lambda: 1_000.0)
    counts = np.zeros(len(OUTCOMES), np.int64)
    counts[OUTCOMES.index("accepted")] = 40
    counts[OUTCOMES.index("ticks")] = 3
    for partition, event_ms in ((0, 900_000), (1, 800_000)):
        metrics.own(partition)
        metrics.batch(partition, n_messages=4, seconds=0.1, counts=counts, event_ms=event_ms)
        metrics.lag(partition, 5)
    metrics.rejected("unknown_sensor", 2)
    metrics.alert("red", "raise")
    found = sample_of(metrics.text().decode(), 7.0, 1_000_000.0)
    assert found == Sample(at_s=7.0, readings=82, messages=8, lag=10, alerts=1, event_ms=800_000)


def test_a_rate_needs_two_samples() -> None:
    assert rate_of([Sample()]) == 0.0
    assert rate_of([Sample(), Sample(at_s=5.0, readings=100)]) == 0.0
    assert rate_of([Sample(), Sample(5.0, 100), Sample(7.0, 500)]) == 200.0

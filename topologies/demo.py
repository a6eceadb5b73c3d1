"""`tocsin demo`: broker, Redis, a worker and a feed on this machine, and the alerts as they arrive.

What is shown comes out of Redis, where the worker's router put it, and from the worker's metrics.
Everything that was started ends with this process, whatever ends it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import redis
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.catalog import Catalog
from engine.demo_report import shown_path
from engine.demo_screen import MOST_ROWS, Frame, Screen, alert_of
from engine.errors import InputError, OutputError
from engine.replay_cli import INTERRUPTED, short, stopping
from engine.simulate import MIDNIGHT, ZONE
from topologies import feed
from topologies.demo_view import Board, Watched, fetched
from topologies.embedded import EmbeddedBroker, EmbeddedRedis, Server, ServiceError
from topologies.settings import Settings, variable

SPEED = 300.0
QUIET_UNTIL = MIDNIGHT + timedelta(hours=3, minutes=30)
"""Nothing happens earlier in the generated day, so that is sent as fast as it goes."""
PIPE_S = 60.0
"""How long the demo goes on where nobody watches a terminal."""
START_TIMEOUT_S = 300.0
_LONG_START_S = 12.0
_STOP_S = 5.0
_WAIT_MS = 50
"""Longest wait for an alert before the screen is drawn again."""
_SETTLE_S = 10.0
"""How long the last alerts are waited for at the end of the day."""
_DAY_MS = 86_400_000
_NAMES = 3

Say = Callable[[str], None]


class WorkerProcess(Server):
    """A worker with settings of its own; it answers when it is ready."""

    name = "the worker"

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(folder)
        self._given = {**settings, "http_port": self.port}

    def command(self) -> list[str]:
        """Return the worker's command line."""
        return [sys.executable, "-m", "topologies.cli", "worker"]

    def environment(self) -> dict[str, str]:
        """Return our own without its settings, and the worker's."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")}
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, ours.get("PYTHONPATH"))))
        given = {variable(name): str(value) for name, value in self._given.items()}
        return {**ours, "PYTHONPATH": path, **given}

    def answers(self) -> bool:
        """Return whether it says that it is ready; one that is not answers with an error."""
        return bool(fetched(f"http://{self.address}/readyz"))

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """End it; its log ends with the broker, so its last snapshot is of no use."""
        super().stop(timeout_s)


class Feeder:
    """The generated day on its way to Kafka, in a thread."""

    def __init__(self, settings: Settings, readings: Path, speed: float) -> None:
        assert settings.catalog is not None
        self._settings = settings
        self._feed = feed.Feed(
            readings=[readings],
            catalog=settings.catalog,
            speed=speed,
            paced_from_ms=_ms(QUIET_UNTIL),
            ticks=True,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.sent = feed.Sent()
        self.fault: BaseException | None = None

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._thread.join(_STOP_S)

    def stop(self) -> None:
        """Let it end after what it is sending."""
        self._stop.set()

    @property
    def over(self) -> bool:
        """Whether nothing more is sent."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            work = feed.publish(
                self._settings, self._feed, on_progress=self._note, stopped=self._stop.is_set
            )
            self.sent = asyncio.run(work)
        except BaseException as error:  # raised by the thread that waits for us
            self.fault = error

    def _note(self, sent: feed.Sent) -> None:
        self.sent = sent


class Demo:
    """A demo that runs: what was sent, and what has come out."""

    def __init__(
        self,
        servers: list[Server],
        board: Board,
        worker: Watched,
        feeder: Feeder,
        n_sources: int,
        speed: float,
    ) -> None:
        self.servers, self.board, self.worker, self.feeder = servers, board, worker, feeder
        self.n_sources, self.speed = n_sources, speed
        self.levels: dict[str, int] = {}
        self.standing: tuple[list[str], int] = ([], 0)
        self.first_s: float | None = None
        self.ended = "interrupted"
        self.screen: Screen | None = None

    @property
    def n_alerts(self) -> int:
        """Count the alerts that came to Redis."""
        return sum(self.levels.values())

    @property
    def event_ms(self) -> int:
        """The event time that the worker has reached."""
        return max(self.worker.now.event_ms or 0, _ms(MIDNIGHT))

    def show(self, stop: threading.Event, limit_s: float | None, begun_s: float) -> None:
        """Show what comes to Redis until the day is over, the time is up or somebody says stop."""
        from_s = time.monotonic()
        over_s: float | None = None
        up = False
        while not stop.is_set():
            records = self._new_records()
            now_s = time.monotonic()
            if records and self.first_s is None:
                self.first_s = now_s - begun_s
            self._note(records)
            if self.feeder.fault is not None:
                raise self.feeder.fault
            if self.feeder.over:
                over_s = now_s if over_s is None else over_s
                if self._settled() or now_s - over_s > _SETTLE_S:
                    self.ended = "time is up" if up else "over"
                    break
            if limit_s is not None and now_s - from_s > limit_s:
                up = True
                self.feeder.stop()
        rows, n_active = self.board.active(_NAMES, {})
        self.standing = ([f"{row.level} {row.name}" for row in rows], n_active)

    def _new_records(self) -> list[bytes]:
        for server in self.servers:
            server.check()
        try:
            return self.board.new_records(_WAIT_MS)
        except redis.RedisError as error:
            time.sleep(_WAIT_MS / 1000)
            for server in self.servers:
                server.check()
            raise ServiceError(f"Redis can't be read: {error}") from error

    def _note(self, records: list[bytes]) -> None:
        for record in map(orjson.loads, records):
            self.levels[record["level"]] = self.levels.get(record["level"], 0) + 1
            if self.screen is None:
                alert = alert_of(record, ZONE)
                print(f"{alert.clock}  {alert.level:6}  {alert.text}", flush=True)
        if self.screen is not None:
            self.screen.note(records)
            self.screen.draw(self._frame)

    def _settled(self) -> bool:
        """Tell whether the worker has taken all that was sent, and Redis has all it gave."""
        taken = self.worker.now
        return taken.messages >= self.feeder.sent.messages and self.n_alerts >= taken.alerts

    def _frame(self) -> Frame:
        assert self.screen is not None
        moment = datetime.fromtimestamp(self.event_ms / 1000, ZONE)
        worker = self.worker.now
        rows, n_active = self.board.active(MOST_ROWS, self.screen.reasons)
        figures = (
            f"{worker.readings:>7,} readings   {short(self.worker.readings_per_s):>7} a second   "
            f"lag {worker.lag:>5,}   ×{self.speed:,.0f}"
        )
        return Frame(
            title="a generated city day, live from Redis",
            day=f"{moment:%A} {moment.day} {moment:%B %Y}",
            clock=f"{moment:%H:%M}",
            share=(self.event_ms - _ms(MIDNIGHT)) / _DAY_MS,
            figures=figures,
            n_alerts=self.n_alerts,
            sources=rows,
            n_raised=n_active,
            n_sources=self.n_sources,
            alerts=tuple(self.screen.alerts),
        )

    def summary(self) -> Iterator[tuple[str, str]]:
        """Yield what there is to say at the end, by name."""
        sent, taken = self.feeder.sent, self.worker.now
        yield "readings", f"{sent.readings:,} sent to Kafka, {taken.readings:,} taken by the worker"
        names = ("red", "orange", "yellow", "blue", "normal")
        levels = [f"{self.levels[name]} {name}" for name in names if name in self.levels]
        if "normal" in self.levels:
            levels[-1] = f"{self.levels['normal']} cleared"
        alerts = f"{self.n_alerts:,} in Redis"
        if self.first_s is not None:
            alerts += f", the first {self.first_s:.1f} s after the start: {', '.join(levels)}"
        yield "alerts", alerts
        shown, n_active = self.standing
        more = f" and {n_active - len(shown)} more" if n_active > len(shown) else ""
        yield "active", ", ".join(shown) + more if shown else "nothing above normal"


def run(speed: float | None, for_s: float | None, out: Path) -> int:
    """Start everything, show the alerts, end everything; return the exit code."""
    from replay_data import DAY

    begun_s = time.monotonic()
    stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
    watched = stdout.is_terminal and not stdout.is_dumb_terminal
    limit_s = for_s if for_s is not None or watched else PIPE_S
    readings = DAY / "readings.parquet"
    if not readings.exists():
        raise InputError(f"{DAY}: the generated day is not there; python -m replay_data writes it")

    def say(what: str) -> None:
        stderr.print(f"{time.monotonic() - begun_s:5.1f} s  {what}", soft_wrap=True, markup=False)

    stop = threading.Event()
    with stopping(stop), ExitStack() as stack:
        folder = stack.enter_context(_own_folder(out))
        stack.enter_context(_logged(folder / "feed.log"))
        settings, servers = _started(DAY, folder, stack, say, stop)
        if stop.is_set():
            say("interrupted")
            return INTERRUPTED
        feeder = Feeder(settings, readings, speed or SPEED)
        seen = stack.enter_context(Watched(servers[-1].address))
        board = Board(settings)
        stack.callback(board.close)
        stack.enter_context(feeder)
        pace = f"×{speed or SPEED:,.0f}"
        say(
            f"feed      a generated day, {pace} from {QUIET_UNTIL:%H:%M} on; Ctrl-C ends everything"
        )
        assert settings.catalog is not None
        n_sources = Catalog.open(settings.catalog).n_sources
        demo = Demo(servers, board, seen, feeder, n_sources, speed or SPEED)
        with ExitStack() as screens:
            if watched:
                demo.screen = screens.enter_context(Screen(stdout, ZONE))
            demo.show(stop, limit_s, begun_s)
        say("ending feed, worker, Redis and broker")
    _print_summary(demo, stdout, folder)
    return INTERRUPTED if demo.ended == "interrupted" else 0


def _print_summary(demo: Demo, stdout: Console, folder: Path) -> None:
    moment = datetime.fromtimestamp(demo.event_ms / 1000, ZONE)
    words = {"over": "The day is over.", "time is up": "Stopped", "interrupted": "Interrupted"}
    at = "" if demo.ended == "over" else f" at {moment:%H:%M} of the day."
    print(f"\n{words[demo.ended]}{at} Feed, worker, Redis and broker are gone.\n")
    facts = [
        *demo.summary(),
        ("logs", shown_path(folder)),
        ("next", "tocsin demo-replay: the same day, held against what really happened"),
    ]
    if not stdout.is_terminal:
        for name, text in facts:
            print(f"{name:10}{text}")
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(name, Text(text))
    stdout.print(table)


def _started(
    day: Path, folder: Path, stack: ExitStack, say: Say, stop: threading.Event
) -> tuple[Settings, list[Server]]:
    """Start broker, Redis and worker; return the settings that lead to them, the worker last."""
    catalog = folder / "city.catalog"
    Catalog.build(day, catalog, partitions=4)
    broker = stack.enter_context(EmbeddedBroker(folder / "broker"))
    say(f"Kafka     Tansu on {broker.address}, in memory only, not durable")
    server = stack.enter_context(EmbeddedRedis(folder / "redis"))
    say(f"Redis     Valkey on {server.address}, in memory only, not durable")
    given = {
        "kafka_brokers": broker.bootstrap,
        "redis_url": server.url,
        "catalog": catalog,
        "rules": day / "rules.toml",
        "snapshots": str(folder / "snapshots"),
        "session_timeout_s": 6,
        "heartbeat_s": 1,
        "tick_s": 0,  # the feed writes the ticks of its own time
        "stall_after_s": 3600,
        "ready_lag_s": 1e9,
    }
    worker = WorkerProcess(folder / "worker", given)
    stack.callback(worker.close)
    say(f"worker    starting; its log is {shown_path(worker.folder / 'log')}")
    note = "worker    still starting: it compiles its kernels once, for half a minute"
    timer = threading.Timer(_LONG_START_S, say, [note])
    timer.daemon = True
    timer.start()
    try:
        worker.start(START_TIMEOUT_S, stop.is_set)
    finally:
        timer.cancel()
    if not stop.is_set():
        say("worker    ready: it has joined its group and owns every partition")
    return Settings.model_validate(given), [broker, server, worker]


@contextmanager
def _own_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder `live` that no other demo uses; only the logs stay in it."""
    folder = out.resolve() / "live"
    lock_path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not lock_path.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder}: holds files that are no demo's")
        lock = lock_path.open("w")
    except OSError as error:
        raise OutputError(f"{folder}: can't be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{folder}: another demo uses it; give --out") from error
        # what a demo left that was killed: a snapshot of a log that is gone would mislead
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != lock_path:
                path.unlink()
        yield folder
        shutil.rmtree(folder / "snapshots", ignore_errors=True)
        (folder / "city.catalog").unlink(missing_ok=True)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Let what libraries log go to a file: on stderr it would stand amid the screen."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

"""`tocsin demo`: broker, Redis, a worker and a feed on this machine, and the alerts as they arrive.

What is shown comes out of Redis, where the worker's router put it. Everything that was started ends
with this process, whatever ends it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import redis
from rich.console import Console

from engine.catalog import Catalog
from engine.demo_screen import Frame, Row, Screen
from engine.replay_cli import INTERRUPTED, stopping
from engine.simulate import MIDNIGHT, ZONE
from topologies import feed
from topologies.embedded import EmbeddedBroker, EmbeddedRedis, Server
from topologies.settings import Settings, variable

SPEED = 720.0
"""A day in two minutes."""
PIPE_S = 60.0
"""How long the demo goes on where nobody watches a terminal."""
_AFTER_S = 3.0
_NAP_S = 0.05
_ROWS = 12
_DAY_MS = 86_400_000


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
        """Return whether it says that it is ready."""
        url = f"http://{self.address}/readyz"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)


class Demo:
    """A demo that runs: what was sent, and what has come out."""

    def __init__(self, settings: Settings, stop: threading.Event, speed: float) -> None:
        self.settings, self.stop, self.speed = settings, stop, speed
        assert settings.catalog is not None
        self.catalog = Catalog.open(settings.catalog)
        self.redis = redis.Redis.from_url(settings.redis_url)
        self.sent = feed.Sent()
        self.n_alerts = 0
        self.fed = threading.Event()
        self.fault: BaseException | None = None
        self._last: Any = "0"
        self._begun = time.monotonic()

    def feed(self) -> None:
        """Publish the generated day until it is over, or the demo."""
        from replay_data import DAY

        assert self.settings.catalog is not None
        what = feed.Feed(
            readings=[DAY / "readings.parquet"],
            catalog=self.settings.catalog,
            speed=self.speed,
            ticks=True,
        )

        def note(sent: feed.Sent) -> None:
            self.sent = sent

        self._begun = time.monotonic()
        try:
            work = feed.publish(self.settings, what, on_progress=note, stopped=self.stop.is_set)
            asyncio.run(work)
        except BaseException as error:  # told by the thread that waits
            self.fault = error
        self.fed.set()

    def new_alerts(self) -> list[bytes]:
        """Return the records that came to Redis since the last time."""
        found: Any = self.redis.xread({"tocsin:alerts": self._last}, count=500)
        records = []
        for _, entries in found or []:
            for self._last, fields in entries:
                records.append(fields[b"record"])
        self.n_alerts += len(records)
        return records

    def frame(self, screen: Screen) -> Frame:
        """Return what the terminal shows now."""
        ms = self.sent.event_ms or int(MIDNIGHT.timestamp() * 1000)
        moment = datetime.fromtimestamp(ms / 1000, ZONE)
        active: Any = self.redis.zrevrange("tocsin:active", 0, _ROWS - 1, withscores=True)
        n_active: Any = self.redis.zcard("tocsin:active")
        rows = [self._row(name.decode(), score, screen) for name, score in active]
        hidden = [Row("normal", 0.0, "", "", "")] * (n_active - len(rows))
        return Frame(
            day=f"{moment:%A %d %B}",
            clock=f"{moment:%H:%M}",
            share=(ms - MIDNIGHT.timestamp() * 1000) / _DAY_MS,
            times=self.speed,
            readings=self.sent.readings,
            readings_per_s=self.sent.readings / max(1e-9, time.monotonic() - self._begun),
            n_alerts=self.n_alerts,
            sources=[*rows, *hidden],
            n_sources=self.catalog.n_sources,
            alerts=list(screen.alerts),
        )

    def _row(self, source: str, score: float, screen: Screen) -> Row:
        level: Any = self.redis.hget(f"tocsin:alert:{source}", "level")
        record: Any = self.redis.hget(f"tocsin:alert:{source}", "record")
        name = source
        if record:
            name = orjson.loads(record)["place"].get("name") or source
        since, why = screen.reasons.get(source, ("", ""))
        return Row((level or b"blue").decode(), score, name, since, why)


def run(speed: float | None = None, for_s: float | None = None) -> int:
    """Start everything, show the alerts, end everything; return the exit code."""
    stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
    watched = stdout.is_terminal and not stdout.is_dumb_terminal
    limit_s = for_s if for_s is not None else None if watched else PIPE_S
    stop = threading.Event()
    begun = time.monotonic()

    def say(what: str) -> None:
        stderr.print(f"{time.monotonic() - begun:5.1f} s  {what}", soft_wrap=True, markup=False)

    with stopping(stop), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tocsin-demo-")))
        settings = _started(folder, stack, say)
        if stop.is_set():
            return INTERRUPTED
        demo = Demo(settings, stop, speed or SPEED)
        feeder = threading.Thread(target=demo.feed, name="feed", daemon=True)
        feeder.start()
        say(f"feed: the generated day, shown ×{demo.speed:,.0f}; Ctrl-C ends everything")
        screen = Screen(stdout, ZONE)
        if watched:
            stack.enter_context(screen)
        interrupted = _show(demo, screen, limit_s, watched)
        stop.set()
        feeder.join(10)
    stdout.print(
        f"{demo.sent.readings:,} readings from Kafka, {demo.n_alerts:,} alerts in Redis; "
        "broker, Redis and worker are gone",
        soft_wrap=True,
    )
    if demo.fault is not None:
        raise demo.fault
    return INTERRUPTED if interrupted else 0


def _started(folder: Path, stack: ExitStack, say: Any) -> Settings:
    """Start broker, Redis and worker; return the settings that lead to them."""
    from replay_data import DAY

    compiled = folder / "city.catalog"
    Catalog.build(DAY, compiled, partitions=4)
    broker = stack.enter_context(EmbeddedBroker())
    say(broker.says)
    server = stack.enter_context(EmbeddedRedis())
    say(server.says)
    given = {
        "kafka_brokers": broker.bootstrap,
        "redis_url": server.url,
        "catalog": compiled,
        "rules": DAY / "rules.toml",
        "snapshots": str(folder / "snapshots"),
        "session_timeout_s": 6,
        "heartbeat_s": 1,
        "tick_s": 0,  # the feed writes the ticks of its own time
        "stall_after_s": 3600,
        "ready_lag_s": 1e9,
    }
    say("worker: starting (the first time it compiles its kernels, which takes half a minute)")
    worker = WorkerProcess(folder / "worker", given)
    stack.callback(worker.close)
    worker.start(timeout_s=180.0)
    say("worker: ready, it owns all partitions")
    return Settings.model_validate(given)


def _show(demo: Demo, screen: Screen, limit_s: float | None, watched: bool) -> bool:
    """Show what comes to Redis until the day is over; return whether somebody broke it off."""
    begun = time.monotonic()
    over: float | None = None
    while not demo.stop.is_set():
        now = time.monotonic()
        records = demo.new_alerts()
        if watched:
            screen.note(records)
            screen.draw(lambda: demo.frame(screen))
        else:
            for record in records:
                print(orjson.loads(record)["text"], flush=True)
        if demo.fed.is_set():
            over = now if over is None or records else over
            if now - over > _AFTER_S:
                return False
        if limit_s is not None and now - begun > limit_s:
            return False
        time.sleep(_NAP_S)
    return True

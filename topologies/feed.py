"""A feed: a history, or the generated day, published to Kafka at a given speed.

For demos, load tests and shadow runs. Every message goes to its partition of the catalog.
"""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from engine import adapters, wire
from engine.arrow_views import texts
from engine.catalog import Catalog
from engine.errors import CatalogError
from engine.history import BelievedTime, History
from engine.readings import Readings, tick_message
from topologies import kafka
from topologies.settings import Settings

SLICE_S = 0.05
"""Of readings that are sent together."""
TICK_MS = 1000
JUMP_MS = 600_000
"""A clock that leads by more is doubted, and paces nothing."""
_MOST_IN_FLIGHT = 64


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What to publish, and how fast."""

    readings: Sequence[Path]
    catalog: Path
    adapter: Path | None = None
    speed: float | None = 1.0
    """Times real time; None: as fast as it goes, or at `rate`."""
    paced_from_ms: int | None = None
    """Event time before which `speed` does not hold: that goes as fast as it can."""
    rate: float | None = None
    """Readings a second, whatever their event times."""
    form: str = "arrow"
    shift_to_now: bool = False
    """Add a constant to every event time, so that the first is now."""
    ticks: bool = False
    """Write a tick to every partition for each second of event time."""
    limit: int | None = None
    loop: bool = False
    topic: str | None = None
    """None: the readings' own, whose partitions are the catalog's."""
    batch: int = wire.ROWS


@dataclass(slots=True)
class Sent:
    """How far a feed has come."""

    readings: int = 0
    messages: int = 0
    event_ms: int = 0


async def publish(
    settings: Settings,
    feed: Feed,
    *,
    on_progress: Callable[[Sent], None] = lambda sent: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Sent:
    """Publish the feed, or as much of it as goes before ``stopped``; return what was sent."""
    catalog = Catalog.open(feed.catalog)
    topic = feed.topic or settings.topic("readings")
    await kafka.ensure_topics(settings, {topic: catalog.n_partitions})
    idempotent = await kafka.is_idempotent(settings)
    producer = kafka.new_producer(settings, idempotent=idempotent, linger_ms=5)
    await producer.start()
    try:
        sender = _Sender(producer, topic, catalog, feed)
        pace = _Pace(feed)
        for part in _slices(feed, catalog):
            await pace.until(part)
            await sender.send(part)
            on_progress(sender.sent)
            over = feed.limit is not None and sender.sent.readings >= feed.limit
            if over or stopped():
                break
        await producer.flush()
        return sender.sent
    finally:
        await producer.stop()


def _slices(feed: Feed, catalog: Catalog) -> Iterator[Slice]:
    """Yield the readings, as many at a time as are due within a slice of the pace."""
    adapter = adapters.load(feed.adapter)
    begin_ms = int(time.time() * 1000) if feed.shift_to_now else None
    while True:
        offset_ms: int | None = None
        clock = BelievedTime(JUMP_MS)
        last_ms = 0
        for chunk in History(feed.readings, adapter, catalog).chunks():
            if not len(chunk):
                continue
            if offset_ms is None:
                offset_ms = 0 if begin_ms is None else begin_ms - int(chunk.event_ms[0])
            event_ms = chunk.event_ms + offset_ms
            moved = Readings(chunk.sensor, event_ms, chunk.value, chunk.quality)
            now_ms = clock.of(moved)
            last_ms = int(now_ms[-1])
            yield from _cut(moved, now_ms, feed)
        if not feed.loop or offset_ms is None:
            return
        begin_ms = last_ms + 1


def _cut(readings: Readings, now_ms: Any, feed: Feed) -> Iterator[Slice]:
    """Cut readings where the time that is believed passes a slice of the pace."""
    if feed.rate is not None:
        n = max(1, int(feed.rate * SLICE_S))
        ends = list(range(n, len(readings), n))
    elif feed.speed is not None:
        slices = now_ms // max(1, int(feed.speed * SLICE_S * 1000))
        ends = ((slices[1:] != slices[:-1]).nonzero()[0] + 1).tolist()
    else:
        ends = []
    for start, end in pairwise([0, *ends, len(readings)]):
        yield Slice(readings.cut(start, end), int(now_ms[end - 1]))


class Slice(NamedTuple):
    """Readings that are sent together, and how late it is at the last of them."""

    readings: Readings
    now_ms: int


class _Pace:
    """Waits until a slice is due."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._begun: float | None = None
        self._first_ms = 0
        self._n = 0

    async def until(self, part: Slice) -> None:
        if self._feed.paced_from_ms is not None and part.now_ms < self._feed.paced_from_ms:
            await asyncio.sleep(0)
            return
        now = time.monotonic()
        if self._begun is None:
            self._begun, self._first_ms = now, part.now_ms
        due = self._begun
        if self._feed.rate is not None:
            due += self._n / self._feed.rate
        elif self._feed.speed is not None:
            due += (part.now_ms - self._first_ms) / 1000 / self._feed.speed
        self._n += len(part.readings)
        await asyncio.sleep(max(0.0, due - now))


class _Sender:
    """Sends slices to their partitions, keeping no more than a few messages in flight."""

    def __init__(self, producer: Any, topic: str, catalog: Catalog, feed: Feed) -> None:
        self._producer, self._topic, self._catalog, self._feed = producer, topic, catalog, feed
        self._in_flight: list[Any] = []
        self._tick_ms: int | None = None
        self.sent = Sent()

    async def send(self, part: Slice) -> None:
        for partition, mine in wire.by_partition(part.readings, self._catalog):
            for message in wire.messages(mine, self._catalog, self._feed.form, self._feed.batch):
                await self._put(partition, message)
            self.sent.readings += len(mine)  # those of no sensor have no partition
        self.sent.event_ms = max(self.sent.event_ms, part.now_ms)
        if self._feed.ticks:
            await self._tick()

    async def _tick(self) -> None:
        second = self.sent.event_ms // TICK_MS * TICK_MS
        if self._tick_ms is not None and second <= self._tick_ms:
            return
        self._tick_ms = second
        for partition in range(self._catalog.n_partitions):
            await self._put(partition, tick_message(second))

    async def _put(self, partition: int, message: bytes) -> None:
        self._in_flight.append(await self._producer.send(self._topic, message, partition=partition))
        self.sent.messages += 1
        if len(self._in_flight) >= _MOST_IN_FLIGHT:
            waiting, self._in_flight = self._in_flight, []
            await asyncio.gather(*waiting)


def _generated_day(catalog: Path) -> Path:
    """Return the readings of the generated day, if a catalog has all of its city's sensors."""
    day = Path(str(files("replay_data") / "day"))
    with (day / "sensors.csv").open(encoding="utf-8", newline="") as file:
        ids = [row["sensor_id"] for row in csv.DictReader(file)]
    n_missing = int((Catalog.open(catalog).resolver().resolve(texts(ids)) < 0).sum())
    if n_missing:
        raise CatalogError(
            f"{catalog}: not the city of the generated day, {n_missing} of whose {len(ids)} "
            f"sensors it lacks; build that (tocsin catalog build {day} -o FILE), or give readings "
            "of this one instead of --city"
        )
    return day / "readings.parquet"


def run(
    settings: Settings, *, readings: Sequence[Path], city: bool, layout: str, **given: Any
) -> int:
    """Publish, showing how far it has come; return the exit code."""
    console = Console(stderr=True, highlight=False)
    assert settings.catalog is not None
    if city:
        readings = [_generated_day(settings.catalog)]
    if given["speed"] is None and given["rate"] is None:
        given["speed"] = 1.0
    feed = Feed(readings=readings, catalog=settings.catalog, form=layout, **given)
    with console.status("connecting…") as status:

        def show(sent: Sent) -> None:
            status.update(f"{sent.readings:,} readings in {sent.messages:,} messages")

        sent = asyncio.run(publish(settings, feed, on_progress=show))
    console.print(f"sent {sent.readings:,} readings in {sent.messages:,} messages")
    return 0

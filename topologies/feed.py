"""A feed: a history, or the generated day, published to Kafka at a given speed.

For demos, load tests and shadow runs. Every message goes to its partition of the catalog.
"""

from __future__ import annotations

import asyncio
import csv
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from engine import adapters, wire
from engine.arrow_views import texts
from engine.catalog import Catalog
from engine.errors import CatalogError, ReadingsError
from engine.history import BelievedTime, History
from engine.readings import Readings, tick_message
from engine.replay_cli import INTERRUPTED, duration, moment, stopping
from engine.sensor_ids import Tally
from engine.summary import SAMPLE_IDS
from topologies import kafka
from topologies.settings import Settings

SLICE_S = 0.05
"""Of readings that are sent together."""
TICK_MS = 1000
JUMP_MS = 600_000
"""A clock that leads by more is doubted, and paces nothing."""
OLD_MS, EARLY_MS = 604_800_000, 600_000
"""What is further behind, or ahead of, the clock is refused by workers that tick, unless the rules
say otherwise (`max_late_s`, `max_ahead_s`)."""
LOOK_S = 0.1
"""Between looks at whether to stop, while nothing is due."""
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
    left_out: Tally = field(default_factory=Tally)
    """What is of no sensor of the catalog, or has no time, in what was read so far."""


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
        for part in _slices(feed, catalog, sender.sent.left_out):
            await pace.until(part, stopped)
            if stopped():
                break
            await sender.send(part)
            on_progress(sender.sent)
        await sender.all_taken()
        return sender.sent
    finally:
        await producer.stop()


def _chunks(feed: Feed, catalog: Catalog, left_out: Tally) -> Iterator[Readings]:
    """Yield the readings of the catalog's sensors; count others."""
    history = History(feed.readings, adapters.load(feed.adapter), catalog)
    history.tally = left_out
    for chunk in history.chunks():
        known = chunk.sensor >= 0
        if not known.all():
            chunk = chunk.where(known)
        if len(chunk):
            yield chunk


def _slices(feed: Feed, catalog: Catalog, left_out: Tally) -> Iterator[Slice]:
    """Yield the readings, as many at a time as are due within a slice of the pace."""
    begin_ms = int(time.time() * 1000) if feed.shift_to_now else None
    left = feed.limit
    while True:
        offset_ms: int | None = None
        clock = BelievedTime(JUMP_MS)
        last_ms = 0
        for chunk in _chunks(feed, catalog, left_out):
            if left is not None:
                chunk = chunk.cut(0, left)
                left -= len(chunk)
            if offset_ms is None:
                offset_ms = 0 if begin_ms is None else begin_ms - int(chunk.event_ms[0])
            event_ms = chunk.event_ms + offset_ms
            moved = Readings(chunk.sensor, event_ms, chunk.value, chunk.quality)
            now_ms = clock.of(moved)
            last_ms = int(now_ms[-1])
            yield from _cut(moved, now_ms, feed)
            if left == 0:
                return
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

    async def until(self, part: Slice, stopped: Callable[[], bool]) -> None:
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
        await asyncio.sleep(0)
        while (left := due - time.monotonic()) > 0 and not stopped():
            await asyncio.sleep(min(left, LOOK_S))


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
            self.sent.readings += len(mine)
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
            await self.all_taken()

    async def all_taken(self) -> None:
        """Wait until the broker has everything; raises ``KafkaError`` where it refuses."""
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


def _refuse_unfit(feed: Feed, catalog: Catalog) -> None:
    """Raise ReadingsError where nothing of a feed could be sent, or nothing of it would be taken.

    The first reading decides about the times: a feed says how late it is by its order.
    """
    left_out = Tally()
    first = next(_chunks(feed, catalog, left_out), None)
    named = ", ".join(map(str, feed.readings))
    if first is None:
        why = "; ".join(_left_out(left_out)) or "it holds none"
        raise ReadingsError(f"{named}: nothing to send: {why}")
    if feed.shift_to_now or feed.ticks:
        return
    first_ms, now_ms = int(first.event_ms[0]), int(time.time() * 1000)
    if -OLD_MS <= first_ms - now_ms <= EARLY_MS:
        return
    apart = duration(abs(first_ms - now_ms) / 1000)
    raise ReadingsError(
        f"{named}: the first reading is of {moment(first_ms)}, {apart} "
        f"{'before' if first_ms < now_ms else 'after'} now: workers that tick by the clock refuse "
        "all such readings; move the times with --shift-to-now, or write the log's own ticks with "
        "--ticks for workers that write none (--tick-s 0)"
    )


def _left_out(tally: Tally) -> Iterator[str]:
    """Say what is not sent, and why."""
    if tally.unknown_readings:
        ids = list(tally.unknown_ids)
        more = ", …" * (len(ids) > SAMPLE_IDS)
        over = "over " * tally.unknown_overflow
        yield (
            f"{tally.unknown_readings:,} readings of sensors that the catalog does not have: "
            f"{over}{len(ids):,}, {', '.join(ids[:SAMPLE_IDS])}{more}"
        )
    if tally.no_time:
        yield f"{tally.no_time:,} readings without a time"


def _count(sent: Sent) -> str:
    return f"{sent.readings:,} readings in {sent.messages:,} messages"


def run(
    settings: Settings, *, readings: Sequence[Path], city: bool, layout: str, **given: Any
) -> int:
    """Publish, showing how far it has come; return the exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    assert settings.catalog is not None
    if city:
        readings = [_generated_day(settings.catalog)]
        # its times mean nothing: they are now's unless the log is to have ticks of its own
        given["shift_to_now"] |= not given["ticks"]
    if given["speed"] is None and given["rate"] is None:
        given["speed"] = 1.0
    feed = Feed(readings=readings, catalog=settings.catalog, form=layout, **given)
    _refuse_unfit(feed, Catalog.open(settings.catalog))
    stop = threading.Event()
    sent = Sent()
    with stopping(stop):
        try:
            with console.status("connecting…") as status:

                def show(now: Sent) -> None:
                    nonlocal sent
                    sent = now
                    status.update(_count(sent))

                with kafka.failing():
                    work = publish(settings, feed, on_progress=show, stopped=stop.is_set)
                    sent = asyncio.run(work)
        except BaseException:
            if sent.messages:
                console.print(f"sent {_count(sent)}, the last of them perhaps in vain")
            raise
    console.print(f"sent {_count(sent)}")
    for text in _left_out(sent.left_out):
        console.print(f"left out: {text}", markup=False)
    ahead_ms = sent.event_ms - int(time.time() * 1000)
    if ahead_ms > EARLY_MS and not feed.ticks:
        console.print(
            f"the log is {duration(ahead_ms / 1000)} ahead of the clock now: earlier readings of "
            "the same sensors, also those of another feed, count as backward until then"
        )
    return INTERRUPTED if stop.is_set() else 0

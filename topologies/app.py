"""The worker as a Faust app: which agent takes which topic, and when state changes hands.

    tocsin.readings → owner (decode, detect, fuse) → tocsin.alerts → router → Redis
    tocsin.commands, tocsin.rules → control records in tocsin.readings, in the place they take there
    feeds of others → adapter → tocsin.readings, on the partition of the catalog

Faust carries messages and membership. State, event time and offsets are the owner's.
`faust -A topologies.app worker` runs it with the settings of the environment.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TextIO

import faust
from faust.app.base import BootStrategy
from faust.types import TP

from engine.placed import Place
from topologies import kafka
from topologies.kafka_client import faust_arguments
from topologies.logs import configure
from topologies.publisher import parse_at
from topologies.same_log import Fingerprint, MessageId
from topologies.settings import Settings, load
from topologies.settings_text import secrets_of
from topologies.transport import CoalescingScheduler, FetchSchema, Transport
from topologies.worker import Worker

RELEASE_SHARE = 0.6
"""Of the time for a shutdown, for snapshots; the rest is for leaving the group."""
NEWS_OF_TOPICS_S = 10.0
"""Pause between the looks at whether a topic has come, or has more partitions."""
BUFFERED_FETCHES = 2
"""Fetches that wait for an agent, beside those that the client has prefetched."""


def look_less_for_garbage() -> None:
    """Let the collector of cycles look rarely, and not at what is there for good.

    A fetch brings 100,000 short-lived objects and hardly a cycle; as Python begins, looking through
    them took half of the core where a message is one reading.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


class NoWeb(BootStrategy):
    """Without Faust's own web server, which would listen on every address, also for its command."""

    enable_web = False


class App(faust.App):
    """A Faust app that brings its worker up before the first message and down after the last."""

    BootStrategy = NoWeb
    worker: Worker
    consumer: Any

    def _create_directories(self) -> None:
        """Make none of Faust's folders for tables in the working directory: there are no tables."""

    async def on_start(self) -> None:
        """Connect what the agents need; raises what is wrong before anything is taken."""
        if self.in_worker:
            # Faust's own command has set up logs of its own, and made a log of stderr itself
            configure_logs(self.worker.settings, sys.__stderr__)
        await self.worker.start()
        await super().on_start()
        look_less_for_garbage()

    async def crash(self, reason: BaseException) -> None:
        """End the worker; what ends it is said once."""
        self.worker.failed(reason)
        await super().crash(reason)

    async def on_shutdown(self) -> None:
        """Leave nothing open."""
        await super().on_shutdown()
        await self.worker.stop()


def configure_logs(settings: Settings, stream: TextIO | None = None) -> None:
    """Send all logs to stderr, or a stream, as the settings say, without their secrets."""
    configure(
        log_format=settings.log_format,
        log_level=settings.log_level,
        secrets=secrets_of(settings),
        stream=stream,
    )


class ReadingsLog:
    """The readings topic as the owner of its partitions sees it."""

    def __init__(self, app: App, topic: str) -> None:
        self._app, self._topic = app, topic

    async def bounds(self, partitions: Sequence[int]) -> Mapping[int, tuple[int, int | None]]:
        """Return the first offset of each partition, and the one after its last if known."""
        tps = [TP(self._topic, partition) for partition in partitions]
        first = await self._app.consumer.earliest_offsets(*tps)
        ends: dict[Any, int] = {}
        if self._app.worker.idempotent:  # the embedded broker gives a wrong end
            ends = dict(await self._app.consumer.highwaters(*tps))
        return {tp.partition: (first[tp], ends.get(tp)) for tp in tps}

    async def fingerprints(self, ids: Sequence[MessageId]) -> Mapping[MessageId, Fingerprint]:
        """Return those of messages, without those that are not there."""
        found = await kafka.messages_at(self._app.worker.settings, self._topic, ids)
        return {each: Fingerprint.of(message) for each, message in found.items()}

    async def reread(self, partition: int, offset: int) -> int:
        """Seek; return the epoch from which on fetches come of it."""
        return await self._app.consumer.reread(TP(self._topic, partition), offset)

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit where the next owner may begin."""
        tps = {TP(self._topic, partition): offset for partition, offset in offsets.items()}
        return await self._app.consumer.commit_positions(tps)


class AlertsTopic:
    """The alerts topic as the courier of its partitions sees it."""

    def __init__(self, app: App, topic: str) -> None:
        self._app, self._topic = app, topic

    async def commit(self, offsets: Mapping[TP, int]) -> None:
        """Commit where the next owner may begin."""
        await self._app.consumer.commit_positions(offsets)

    async def places(self, offsets: Mapping[int, int]) -> Mapping[int, Place]:
        """Return the places of the alerts at offsets, by partition; without those not there."""
        settings = self._app.worker.settings
        found = await kafka.messages_at(settings, self._topic, offsets.items())
        places = ((partition, parse_at(each.headers)) for (partition, _), each in found.items())
        return {p: at[1:] for p, at in places if at is not None and at[0] == p}

    async def reread(self, tp: TP) -> tuple[int, int]:
        """Seek to the beginning; return its offset and the epoch as of which fetches come of it."""
        first = (await self._app.consumer.earliest_offsets(tp))[tp]
        return first, await self._app.consumer.reread(tp, first)

    def hold(self, holding: bool) -> None:
        """Fetch no more for now, or go on."""
        self._app.consumer.hold(self._topic, holding)


def create_app(settings: Settings) -> App:
    """Return the app of a worker; nothing is opened or connected yet."""
    app = App(
        settings.group,
        **faust_arguments(settings),
        ConsumerScheduler=CoalescingScheduler,
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_buffer_maxsize=BUFFERED_FETCHES,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=settings.fetch_max_bytes,
        consumer_metadata_max_age_ms=round(NEWS_OF_TOPICS_S * 1000),
        consumer_group_instance_id=settings.instance,
        broker_request_timeout=max(90.0, 2 * settings.session_timeout_s),
    )
    app.transport = Transport(app.conf.broker_consumer, app)
    readings = settings.topic("readings")

    async def commit(offsets: Mapping[TP, int]) -> None:
        await app.consumer.commit_positions(offsets)

    worker = app.worker = Worker(
        settings,
        ReadingsLog(app, readings),
        AlertsTopic(app, settings.topic("alerts")),
        commit,
    )

    def positions(assigned: set[TP]) -> Mapping[TP, int]:
        at = {TP(readings, p): offset for p, offset in worker.positions().items()}
        return {tp: offset for tp, offset in at.items() if tp in assigned}

    def on_seek(committed: Mapping[TP, int | None], epoch: int) -> None:
        alerts = settings.topic("alerts")
        worker.courier.assigned(
            {tp.partition: offset or 0 for tp, offset in committed.items() if tp.topic == alerts},
            epoch,
        )

    app.transport.positions, app.transport.on_seek = positions, on_seek

    # Faust sends this before it seeks and lets messages flow; its on_partitions_assigned comes
    # while they flow already.
    signals: Any = app

    @signals.on_rebalance_complete.connect
    async def on_assigned(_: Any, **__: Any) -> None:
        assigned = [tp.partition for tp in app.consumer.assignment() if tp.topic == readings]
        try:
            await worker.adopt(assigned, app.consumer_generation_id)
        except Exception as error:
            worker.failed(error)  # before Faust tells what follows from it
            raise

    async def release() -> None:
        # After a crash the state may be half changed, and the consumer's thread, which commits, is
        # gone: to ask it raises, and a shutdown that raises never ends. The next owner starts from
        # the snapshot before.
        if not app.crashed:
            await worker.release(app.consumer_generation_id)

    @signals.on_partitions_revoked.connect
    async def on_revoked(_: Any, revoked: set[TP], **__: Any) -> None:
        await release()

    @signals.on_before_shutdown.connect
    async def on_shutdown(_: Any, **__: Any) -> None:
        try:
            async with asyncio.timeout(RELEASE_SHARE * settings.shutdown_s):
                await release()
        except Exception as error:
            # a shutdown that raises never ends; the next owner starts from the snapshots before
            worker.not_released(error)

    for topic, take in worker.agents().items():
        _agent(app, topic, take)

    @app.timer(min(1.0, settings.snapshot_every_s / 4))
    async def save() -> None:
        worker.note_lag(app.consumer.n_waiting)
        worker.note_feeds(app.consumer.topic_partitions)
        await worker.save_oldest()

    _task(app, "ticks", worker.tick_forever)
    _task(app, "the watch over the broker", worker.watch_broker)
    _task(app, "the publisher", worker.publish)
    if settings.router:
        _task(app, "the router", worker.courier.carry_forever)
    return app


def __getattr__(name: str) -> Any:
    """Make `app` for `faust -A topologies.app worker`, from the settings of the environment."""
    if name != "app":
        raise AttributeError(name)
    return globals().setdefault("app", create_app(load()))


def _agent(app: App, topic: str, take: Any) -> None:
    """Let a coroutine take each fetch of a topic; an error in it ends the worker, said clearly."""
    channel = app.topic(topic, schema=FetchSchema(), acks=False)

    async def agent(stream: Any) -> None:
        async for fetch in stream:
            try:
                await take(fetch)
            except Exception as error:
                # the state may be half changed: the next owner starts from the snapshot
                where = f"{topic}, partition {fetch.tp.partition}, offset {fetch.first}"
                app.worker.failed(error, where)
                await app.crash(error)
                raise

    app.agent(channel, name=f"take {topic}")(agent)


def _task(app: App, what: str, run: Callable[[], Awaitable[None]]) -> None:
    """Let a coroutine run beside the agents; an error in it ends the worker, said clearly."""

    async def task() -> None:
        try:
            await run()
        except Exception as error:
            app.worker.failed(error, what)
            await app.crash(error)
            raise

    app.task(task)

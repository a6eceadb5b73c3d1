"""One worker: catalog, rules, state, clients, and what is done with each message that comes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.types import TP

from engine.catalog import Catalog
from engine.messages import Rejected
from engine.partition import Outcome, Plans
from engine.readings import LEVELS, TRANSITIONS, tick_message
from engine.resume import Resumer
from engine.rules_check import load
from engine.snapshots import SnapshotStore
from topologies import kafka, rejects, same_log
from topologies.commands import ControlRecords
from topologies.health import Health, HealthServer
from topologies.ingest import Ingest, load_feeds
from topologies.logs import configure, logger
from topologies.metrics import Metrics
from topologies.owner import Log, Owner
from topologies.publisher import Publisher, parse_at
from topologies.redis_client import is_permanent, is_redis_error
from topologies.router import Backoff, FenceBehind, Router, connect
from topologies.same_log import Mark
from topologies.security import warnings
from topologies.settings import Settings
from topologies.settings_text import secrets_of, startup_line
from topologies.transport import Fetch

log = logger()

Take = Callable[[Fetch], Awaitable[None]]
COMMIT_EVERY_S = 1.0
MOST_WAITING = 32
"""Fetches of alerts that wait for Redis; beyond it no more are fetched."""
MOST_ROUTED = 2_000
"""Alerts that are carried to Redis together, unless one fetch has more."""
LOST_EVERY_S = 5.0
"""Pause between the looks at whether Redis has lost what it had confirmed."""
WARN_EVERY_S = 5.0
RETRY_S = (0.1, 5.0)


class Worker:
    """Everything of a worker but the consumer, which is Faust's."""

    def __init__(
        self, settings: Settings, readings: Log, commit: Any, seek_first: Any, hold: Any
    ) -> None:
        settings.required("catalog", "rules")
        self.settings, self._readings = settings, readings
        self._commit, self._seek_first, self._hold = commit, seek_first, hold
        self.metrics = Metrics(stall_after_s=settings.stall_after_s, ticks=settings.tick_s > 0)
        self.feeds = load_feeds(settings.feeds)
        self.ingests: dict[str, Ingest] = {}
        self.health = Health(settings, self.metrics)
        self.server = HealthServer(self.health)
        self.owner: Owner | None = None
        self.checked = False
        self.shadow: str | None = None
        self.router: Router | None = None
        self._committed_at: dict[TP, float] = {}
        self._alerts_next: dict[TP, int] = {}
        self._alerts_epoch: dict[TP, int] = {}
        self._waiting: deque[Fetch] = deque()
        self._routable = asyncio.Event()
        self._asked_redis_at = 0.0
        self._holding = False
        self._fences_due: set[int] = set()
        self._warned_at: dict[str, float] = {}

    # --- life -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Open the catalog, compile rules and kernels; raises what is wrong with them."""
        settings = self.settings
        assert settings.catalog is not None and settings.rules is not None
        self.catalog = Catalog.open(settings.catalog)
        self.plans = Plans(self.catalog)
        self.rules = self.plans.add(load(settings.rules))
        if settings.shadow is not None:
            self.shadow = self.plans.add(load(settings.shadow))
        self.plans.warm_up(self.rules)

    async def check(self) -> None:
        """Create topics that are not there; raises ``BrokerError`` where Kafka does not fit."""
        settings = self.settings
        n = self.catalog.n_partitions
        wanted = {"readings": n, "alerts": n, "rejects": 1, "commands": 1, "rules": 1}
        if settings.shadow is not None:
            wanted["shadow"] = 1
        names = {settings.topic(name): count for name, count in wanted.items()}
        for created in await kafka.ensure_topics(settings, names, [settings.topic("rules")]):
            log.info("topic created", topic=created, partitions=names[created])
        self.idempotent = await kafka.is_idempotent(settings)
        if not self.idempotent:
            log.warning(
                "this broker can't tell a retry from a new message: if it fails, an alert may "
                "stand twice in the alerts topic; Redis stays exact"
            )
        self.checked = True

    async def start(self) -> None:
        """Connect what the agents need."""
        settings = self.settings
        if not self.checked:
            await asyncio.to_thread(self.prepare)
            await self.check()
        self.publisher = Publisher(
            settings.topic("alerts"),
            settings.topic("rejects"),
            lambda: kafka.new_producer(settings, idempotent=self.idempotent),
            lambda: kafka.new_consumer(settings),
            linger_s=settings.alerts_flush_ms / 1000,
            on_trouble=lambda text: self._warn("publisher", text),
        )
        await self.publisher.start()
        store = SnapshotStore(settings.snapshots, keep=settings.snapshot_keep)
        self.owner = Owner(
            self.plans,
            self.rules,
            Resumer(store, adopt_catalog=settings.adopt_catalog),
            self.publisher,
            self._readings,
            settings.topic("readings"),
            self,
            on_rejects=self._reject,
            shadow=self.shadow,
        )
        self.controls = ControlRecords(self.catalog, self.plans)
        self.ingests = {
            topic: Ingest(topic, adapter, self.catalog) for topic, adapter in self.feeds.items()
        }
        if settings.router:
            self.router = await connect(settings, self.metrics, self._warn, self._unroutable)
        self.metrics.n_partitions = self.catalog.n_partitions
        plan = self.plans.plan(self.rules)[0]
        self.metrics.running_rules(self.rules, plan.rules.name)
        await self.server.start()
        self.health.started()
        for warning in warnings(settings):
            log.warning(warning)
        log.info(startup_line(settings, self.catalog, plan))

    async def stop(self) -> None:
        """Close what `start` opened."""
        self.health.stopping()
        await self.server.stop()
        if self.router is not None:
            await self.router.close()
        if self.owner is not None:
            await self.publisher.stop()

    # --- readings -------------------------------------------------------------------------------

    def agents(self) -> dict[str, Take]:
        """Return what takes the fetches of each topic."""
        settings = self.settings
        agents: dict[str, Take] = {
            settings.topic("readings"): self._take_readings,
            settings.topic("commands"): self._take_commands,
            settings.topic("rules"): self._take_rules,
        }
        if settings.router:
            agents[settings.topic("alerts")] = self._take_alerts
        agents |= dict.fromkeys(self.feeds, self._take_feed)
        return agents

    async def _take_readings(self, fetch: Fetch) -> None:
        assert self.owner is not None
        await self.owner.take(fetch)

    def positions(self) -> dict[int, int]:
        """Return the offset at which the reading of each owned partition goes on."""
        return {} if self.owner is None else self.owner.positions()

    async def adopt(self, partitions: Sequence[int], generation: int) -> None:
        """Take over partitions of the readings."""
        assert self.owner is not None
        await self.owner.adopt(partitions, generation)
        self.metrics.state_bytes = self.owner.n_bytes
        self.health.assigned()

    async def release(self, generation: int) -> None:
        """Hand over every partition of the readings; a rebalance may bring them back."""
        if self.owner is None:
            return
        self.health.rebalancing()
        for partition in list(self.owner.owned):
            self.metrics.disown(partition)
        await self.owner.release(generation)
        self._waiting.clear()  # not committed: whoever has them next reads them again
        self._hold_alerts(False)
        for tp, offset in self._alerts_next.items():
            await self._commit(tp, offset)
            if self.router is not None:
                self.router.forget(tp.partition)
        self._alerts_next.clear()

    def note_lag(self, highwater: Callable[[TP], int | None]) -> None:
        """Note how many messages of each owned partition wait."""
        for partition, offset in self.positions().items():
            end = highwater(TP(self.settings.topic("readings"), partition))
            if end is not None:
                self.metrics.lag(partition, end - offset)

    async def save_oldest(self) -> None:
        """Save the state that is due."""
        if self.owner is not None:
            await self.owner.save_oldest(self.settings.snapshot_every_s)

    async def tick_forever(self) -> None:
        """Write how late it is into the log of each owned partition, once every `tick_s`."""
        every_s = self.settings.tick_s
        if not every_s:
            return
        while True:
            await asyncio.sleep(every_s - time.time() % every_s)
            message = tick_message(int(time.time() * 1000))
            for partition in self.positions():
                await self._write(partition, message)

    async def _write(self, partition: int, message: bytes) -> None:
        """Put a record into a partition's log without waiting for it."""
        if self.publisher.producer is None:
            return
        topic = self.settings.topic("readings")
        try:
            sent = await self.publisher.producer.send(topic, message, partition=partition)
        except (KafkaError, OSError) as error:
            self._warn("ticks", f"a tick was not written: {error!r}")
            return
        sent.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def _insist(self, send: Callable[[Any], Awaitable[Any]]) -> Any:
        """Send something by the producer of the moment until it is taken; it may come twice."""
        pause_s = RETRY_S[0]
        while True:
            producer = self.publisher.producer  # none while the publisher connects anew
            try:
                if producer is not None:
                    return await send(producer)
            except (KafkaError, OSError) as error:
                passing = isinstance(error, OSError | KafkaTimeoutError) or error.retriable
                if not passing and producer is self.publisher.producer:
                    raise
                self._warn("relay", f"what was sent to us waits, the broker fails: {error!r}")
            await asyncio.sleep(pause_s)
            pause_s = min(RETRY_S[1], 2 * pause_s)

    async def _take_feed(self, fetch: Fetch) -> None:
        """Put what another department sent into the logs of its sensors, then commit it."""
        topic = self.settings.topic("readings")
        ingest = self.ingests[fetch.tp.topic]
        rejected = await self._insist(lambda producer: ingest.take(fetch.payloads, producer, topic))
        for each in rejected:
            self.metrics.rejected(each.reason, each.n)
        self.publisher.reject(_letters(fetch, rejected))
        await self.publisher.flush([])
        await self._commit(fetch.tp, fetch.next)

    # --- commands and rules ---------------------------------------------------------------------

    async def _take_commands(self, fetch: Fetch) -> None:
        await self._relay(fetch, self.controls.of_command)

    async def _take_rules(self, fetch: Fetch) -> None:
        await self._relay(fetch, self.controls.of_rules)

    async def _relay(self, fetch: Fetch, convert: Any) -> None:
        """Put what commands say into the logs that they are about, then commit them."""
        topic = self.settings.topic("readings")
        for message in fetch.messages:
            found = await asyncio.to_thread(convert, message.value or b"")
            if isinstance(found, str):
                self.metrics.rejected("bad_control")
                detail = (fetch.tp, message.offset, message.value, "bad_control", found)
                self.publisher.reject([rejects.record(*detail)])
                log.warning("refused", topic=fetch.tp.topic, offset=message.offset, reason=found)
                continue
            for partition, record in found:
                await self._insist(partial(_put, topic, partition, record))
        await self.publisher.flush([])
        await self._commit(fetch.tp, fetch.next)

    # --- alerts ---------------------------------------------------------------------------------

    async def _take_alerts(self, fetch: Fetch) -> None:
        """Put alerts behind those that wait for Redis; the readings do not wait with them."""
        self._waiting.append(fetch)
        self._routable.set()
        if len(self._waiting) >= MOST_WAITING:
            self._hold_alerts(True)

    def _hold_alerts(self, holding: bool) -> None:
        if holding is not self._holding:
            self._holding = holding
            self._hold(self.settings.topic("alerts"), holding)

    async def route_forever(self) -> None:
        """Carry to Redis what waits for it."""
        while self.router is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._routable.wait(), LOST_EVERY_S)
            await self._check_fences()
            while self._waiting:
                await self._check_fences()
                fetches, n = [], 0
                while self._waiting and n < MOST_ROUTED:
                    fetches.append(self._waiting.popleft())
                    n += len(fetches[-1])
                await self._route(fetches)
                if len(self._waiting) <= MOST_WAITING // 4:
                    self._hold_alerts(False)
                await self._restore_lost()
            self._routable.clear()
            await self._restore_lost()

    async def _restore_lost(self) -> None:
        """Ask now and then whether Redis has what it confirmed: no alert may come for days."""
        assert self.router is not None
        now = time.monotonic()
        if now - self._asked_redis_at < LOST_EVERY_S:
            return
        self._asked_redis_at = now
        try:
            await self.router.restore_lost()
        except FenceBehind as error:
            log.error(str(error))
            tp = TP(self.settings.topic("alerts"), error.partition)
            # one that is no longer ours is its new owner's to read
            await self._route_again(error.partition, {tp: 0} if tp in self._alerts_next else {})

    def check_fences(self, partitions: Iterable[int]) -> None:
        """Let the router look, before it takes alerts of these, what Redis remembers of them."""
        self._fences_due = set(partitions)
        self._routable.set()

    async def _check_fences(self) -> None:
        """Raise OtherLogError where Redis has applied alerts of another log; wait while it is away.

        It would pass over the alerts of this log without a word.
        """
        tries = 0
        while self._fences_due and self.router is not None:
            due = set(self._fences_due)
            try:
                fences = await self.router.fences()
                marks = {
                    p: [Mark("Redis has applied its alerts", fences[p].offset + 1)]
                    for p in due & fences.keys()
                }
                if marks:
                    await same_log.check(self._readings, self.settings.topic("readings"), marks)
            except Exception as error:
                if not (is_redis_error(error) or isinstance(error, KafkaError)):
                    raise
                tries += 1
                if is_redis_error(error):
                    self.metrics.redis_down()
                self._warn("fences", f"alerts wait, their fences can't be read: {error!r}")
                backoff = Backoff(cap_s=self.settings.redis_retry_max_s)
                await asyncio.sleep(backoff.pause_s(tries, permanent=is_permanent(error)))
            else:
                self.metrics.redis_up = True
                self._fences_due -= due

    async def _route(self, fetches: Sequence[Fetch]) -> None:
        """Carry alerts to Redis; commit now and then, for a redelivery changes nothing there."""
        assert self.router is not None
        alerts: dict[int, list[tuple[int, int, bytes]]] = {}
        ends: dict[TP, int] = {}
        for fetch in fetches:
            if fetch.epoch < self._alerts_epoch.get(fetch.tp, 0):
                continue  # from before a seek
            ends[fetch.tp] = fetch.next
            for message in fetch.messages:
                at = parse_at(message.headers)
                if at is None:
                    detail = "the header 'at' must be partition/offset/index"
                    self._reject_alert(fetch.tp, message.offset, message.value, "no_place", detail)
                else:
                    alerts.setdefault(at[0], []).append((at[1], at[2], message.value))
        self.metrics.redis_pending = sum(map(len, fetches)) + sum(map(len, self._waiting))
        while True:
            try:
                await self.router.flush_all(alerts)
                break
            except FenceBehind as error:
                log.error(str(error))
                await self._route_again(error.partition, ends)
                # the others' again: what of them was applied already is behind their fences
                del alerts[error.partition]
        self.metrics.redis_pending = sum(map(len, self._waiting))
        self._alerts_next |= ends
        now = time.monotonic()
        for tp, offset in ends.items():
            if now - self._committed_at.get(tp, 0.0) >= COMMIT_EVERY_S:
                self._committed_at[tp] = now
                await self._commit(tp, offset)

    async def _route_again(self, partition: int, ends: dict[TP, int]) -> None:
        """Read a partition's alerts from their beginning."""
        assert self.router is not None
        self.router.forget(partition)
        for tp in [tp for tp in ends if tp.partition == partition]:
            del ends[tp]
            self._alerts_epoch[tp] = 1 << 62
            self._alerts_epoch[tp] = await self._seek_first(tp)

    def _reject_alert(self, tp: Any, offset: int, payload: bytes, reason: str, detail: str) -> None:
        self.metrics.rejected(reason)
        self.publisher.reject([rejects.record(tp, offset, payload, reason, detail)])

    def _unroutable(self, partition: int, alert: Any, reason: str) -> None:
        """Keep a record that the router can't read."""
        tp = TP(self.settings.topic("alerts"), partition)
        self._reject_alert(tp, alert[0], alert[2], "bad_alert", reason)

    # --- what the owner tells -------------------------------------------------------------------

    async def _reject(self, partition: int, fetch: Fetch, outcome: Outcome) -> None:
        for each in outcome.rejects:
            self.metrics.rejected(each.reason, each.n)
        self.publisher.reject(_letters(fetch, outcome.rejects))
        await self.publisher.room(partition)

    def taken(self, partition: int, fetch: Fetch, outcome: Outcome, seconds: float) -> None:
        """Count what a fetch gave."""
        assert self.owner is not None
        line = self.owner.owned[partition].line
        self.metrics.batch(
            partition,
            n_messages=len(fetch),
            seconds=seconds,
            counts=line.pipeline.count_array,
            event_ms=line.pipeline.watermark_ms,
            log_ms=fetch.messages[-1].timestamp,
        )
        for (level, transition), n in outcome.kinds.items():
            self.metrics.alert(LEVELS[level], TRANSITIONS[transition], n)
        if outcome.differences:
            for difference in outcome.differences:
                self.metrics.shadow_difference(difference.only)
            told = [
                b'{"only":"%b","record":%b}' % (each.only.encode(), each.record)
                for each in outcome.differences
            ]
            self.publisher.tell(self.settings.topic("shadow"), told)
        if outcome.new_rules is not None:
            self.metrics.running_rules(outcome.new_rules, line.pipeline.plan.rules.name)
            log.info("rules switched", partition=partition, rules=outcome.new_rules)

    def gap(self, partition: int, expected: int, found: int) -> None:
        """Say that the topic itself lacks messages."""
        log.error(
            "messages are missing in the topic: retention or compaction took them",
            partition=partition, expected_offset=expected, next_offset=found,
        )  # fmt: skip

    def restored(self, partition: int, offset: int | None, seconds: float, notes: Any) -> None:
        """Say whose state was loaded."""
        assert self.owner is not None
        self.metrics.own(partition, self.owner.owned[partition].line.pipeline.count_array)
        self.metrics.restored(partition)
        for note in notes:
            log.warning(note, partition=partition)
        if offset is None:
            log.info("partition begins without a snapshot", partition=partition)
        else:
            log.info(
                "state restored", partition=partition, offset=offset, seconds=round(seconds, 3)
            )

    def kept(self, partition: int) -> None:
        """Go on counting."""
        assert self.owner is not None
        line = self.owner.owned[partition].line
        self.metrics.own(partition, line.pipeline.count_array)
        self.metrics.restored(partition)

    def saved(self, partition: int, offset: int, pause_s: float, seconds: float, size: int) -> None:
        """Count a snapshot that is durable."""
        self.metrics.snapshot(partition, seconds=seconds, n_bytes=size)
        self.metrics.committed(partition, offset)

    def not_saved(self, partition: int, error: Exception) -> None:
        """Say that a snapshot failed."""
        self.metrics.snapshot_failed()
        log.error("snapshot failed, nothing is committed", partition=partition, error=str(error))

    def failed(self, what: str, error: Exception) -> None:
        """Say what ends the worker."""
        self.health.failed(repr(error))
        log.error("the worker ends", what=what, error=repr(error), exc_info=error)

    def _warn(self, what: str, text: str) -> None:
        """Log a warning that may come many times a second."""
        now = time.monotonic()
        if now - self._warned_at.get(what, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned_at[what] = now
            log.warning(text)


async def _put(topic: str, partition: int, record: bytes, producer: Any) -> None:
    await producer.send_and_wait(topic, record, partition=partition)


def _letters(fetch: Fetch, rejected: Sequence[Rejected]) -> list[bytes]:
    """Return what is kept of the messages of a fetch that were rejected, or had rows that were."""
    offsets, payloads = fetch.offsets, fetch.payloads
    return [
        rejects.record(
            fetch.tp,
            offsets[each.index],
            payloads[each.index],
            each.reason,
            each.detail,
            each.n,
            each.rows,
        )
        for each in rejected
    ]


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; return the exit code. Raises what is wrong at start."""
    from topologies.app import create_app

    configure(
        log_format=settings.log_format,
        log_level=settings.log_level,
        secrets=secrets_of(settings),
    )
    return asyncio.run(serve(create_app(settings)))


async def serve(app: Any) -> int:
    """Run an app until SIGTERM or SIGINT; return the exit code."""
    worker: Worker = app.worker
    worker.prepare()
    await worker.check()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await app.start()
        await app.wait(stop.wait())
    finally:
        await app.stop()
    if app.crash_reason is not None:
        log.error("the worker failed", error=repr(app.crash_reason))
        return 1
    return 0

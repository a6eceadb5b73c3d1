"""One worker: catalog, rules, state, clients, and what is done with each message that comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from engine.catalog import Catalog
from engine.controls import CONTROL_MARK
from engine.errors import TocsinError
from engine.messages import Rejected
from engine.partition import Outcome, Plans
from engine.readings import LEVELS, TRANSITIONS, tick_message
from engine.resume import Resumer
from engine.rules_check import load
from engine.snapshots import SnapshotStore
from topologies import broker_watch, kafka, rejects
from topologies.backoff import Backoff
from topologies.commands import ControlRecords
from topologies.courier import AlertsLog, Courier
from topologies.health import Health, HealthServer
from topologies.ingest import Ingest, load_feeds
from topologies.logs import logger
from topologies.metrics import Metrics
from topologies.owner import Log, Owner
from topologies.publisher import Publisher
from topologies.refused import Refused
from topologies.router import connect
from topologies.security import warnings
from topologies.settings import TOPICS, Settings
from topologies.settings_text import startup_line
from topologies.transport import Fetch

log = logger()

Take = Callable[[Fetch], Awaitable[None]]
Commit = Callable[[Mapping[TP, int]], Awaitable[object]]
WARN_EVERY_S = 5.0


class Worker:
    """Everything of a worker but the consumer, which is Faust's."""

    def __init__(
        self, settings: Settings, readings: Log, alerts: AlertsLog, commit: Commit
    ) -> None:
        settings.required("catalog", "rules")
        self.settings, self._readings, self._commit = settings, readings, commit
        self.metrics = Metrics(
            stall_after_s=settings.stall_after_s,
            ticks=settings.tick_s > 0,
            snapshot_every_s=settings.snapshot_every_s,
        )
        self.feeds = load_feeds(settings.feeds, own=[settings.topic(each) for each in TOPICS])
        self.ingests: dict[str, Ingest] = {}
        self.refused = Refused()
        self.health = Health(settings, self.metrics)
        self.server = HealthServer(self.health)
        self.owner: Owner | None = None
        self.checked = False
        self.shadow: str | None = None
        self._feeds_missing: set[str] = set()
        self.ended = self.leaving = False
        self._warned_at: dict[str, float] = {}
        self._backoff = Backoff()
        self.courier = Courier(
            settings.topic("alerts"),
            alerts,
            readings,
            settings.topic("readings"),
            self.metrics,
            reject=self._reject_alert,
            warn=self._warn,
            retry_max_s=settings.redis_retry_max_s,
        )

    # --- life -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Open catalog and snapshots, compile rules and kernels; raises what is wrong with them."""
        settings = self.settings
        assert settings.catalog is not None and settings.rules is not None
        self.catalog = Catalog.open(settings.catalog)
        self._store().check_writable()
        self.plans = Plans(self.catalog)
        self.rules = self.plans.add(load(settings.rules))
        if settings.shadow is not None:
            self.shadow = self.plans.add(load(settings.shadow))
        self.plans.warm_up(self.rules)

    def _store(self) -> SnapshotStore:
        return SnapshotStore(self.settings.snapshots, keep=self.settings.snapshot_keep)

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
        if self.feeds:
            self._feeds_missing = await kafka.topics_missing(settings, self.feeds)
        for topic in sorted(self._feeds_missing):
            log.warning("a feed's topic is not there yet: it is read once it is", topic=topic)
        self.metrics.feeds_missing = len(self._feeds_missing)
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
        self.owner = Owner(
            self.plans,
            self.rules,
            Resumer(self._store(), adopt_catalog=settings.adopt_catalog),
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
            self.courier.router = await connect(
                settings, self.metrics, self._warn, self.courier.unroutable
            )
        self.metrics.n_partitions = self.catalog.n_partitions
        plan = self.plans.plan(self.rules)[0]
        await self.server.start()
        self.health.started()
        for warning in warnings(settings):
            log.warning(warning)
        log.info(startup_line(settings, self.catalog, plan))

    def stopping(self) -> None:
        """Say that the worker was told to stop, and what it owns."""
        self.leaving = True
        log.info("stopping", partitions=sorted(self.positions()))

    async def stop(self) -> None:
        """Close what `start` opened."""
        self.health.stopping()
        await self.server.stop()
        if self.courier.router is not None:
            await self.courier.router.close()
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
            agents[settings.topic("alerts")] = self.courier.take
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
        await self.owner.release(generation)
        await self.courier.release()

    def note_lag(self, n_waiting: Callable[[TP, int], int | None]) -> None:
        """Note how many messages of each owned partition wait."""
        for partition, offset in self.positions().items():
            n_messages = n_waiting(TP(self.settings.topic("readings"), partition), offset)
            if n_messages is not None:
                self.metrics.lag(partition, n_messages)

    def note_feeds(self, partitions: Callable[[str], int | None]) -> None:
        """Note which topics of feeds have come; `partitions` says how many one has."""
        for topic in [each for each in self._feeds_missing if partitions(each)]:
            self._feeds_missing.remove(topic)
            log.info("a feed's topic is there now", topic=topic)
        self.metrics.feeds_missing = len(self._feeds_missing)

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
        tries = 0
        while True:
            producer = self.publisher.producer  # none while the publisher connects anew
            try:
                if producer is not None:
                    return await send(producer)
            except (KafkaError, OSError) as error:
                if not kafka.is_passing(error) and producer is self.publisher.producer:
                    raise
                self._warn("relay", f"what was sent to us waits, the broker fails: {error!r}")
            tries += 1
            await asyncio.sleep(self._backoff.pause_s(tries, permanent=False))

    async def _take_feed(self, fetch: Fetch) -> None:
        """Put what another department sent into the logs of its sensors, then commit it."""
        topic = self.settings.topic("readings")
        ingest = self.ingests[fetch.tp.topic]
        rejected = await self._insist(lambda producer: ingest.take(fetch.payloads, producer, topic))
        for each in rejected:
            self.metrics.rejected(each.reason, each.n)
        self.publisher.reject(_letters(fetch, rejected))
        await self.publisher.flush([])
        await self._commit({fetch.tp: fetch.next})

    async def publish(self) -> None:
        """Raise what ends the publisher, which else runs beside everything."""
        raise await self.publisher.failure()

    async def watch_broker(self) -> None:
        """Tell whether the broker answers, for as long as the worker runs."""
        brokers = ", ".join(self.settings.kafka_brokers)
        await broker_watch.watch(self.publisher, brokers, self.metrics, self._warn)

    # --- commands and rules ---------------------------------------------------------------------

    async def _take_commands(self, fetch: Fetch) -> None:
        await self._relay(fetch, lambda each: self.controls.of_command(each.value or b""))

    async def _take_rules(self, fetch: Fetch) -> None:
        await self._relay(
            fetch, lambda each: self.controls.of_rules(each.value or b"", each.headers)
        )

    async def _relay(self, fetch: Fetch, convert: Any) -> None:
        """Put what commands say into the logs that they are about, then commit them."""
        topic = self.settings.topic("readings")
        for message in fetch.messages:
            found = await asyncio.to_thread(convert, message)
            if isinstance(found, str):
                self.metrics.rejected("bad_control")
                detail = (fetch.tp, message.offset, message.value, "bad_control", found)
                self.publisher.reject([rejects.record(*detail)])
                log.warning("refused", topic=fetch.tp.topic, offset=message.offset, reason=found)
                continue
            for partition, record in found:
                await self._insist(partial(_put, topic, partition, record))
        await self.publisher.flush([])
        await self._commit({fetch.tp: fetch.next})

    def _reject_alert(self, tp: TP, offset: int, payload: bytes, reason: str, detail: str) -> None:
        self.metrics.rejected(reason)
        self.publisher.reject([rejects.record(tp, offset, payload, reason, detail)])

    # --- what the owner tells -------------------------------------------------------------------

    async def _reject(self, partition: int, fetch: Fetch, outcome: Outcome) -> None:
        payloads, offsets = fetch.payloads, fetch.offsets
        for each in outcome.rejects:
            self.metrics.rejected(each.reason, each.n)
            if payloads[each.index].startswith(CONTROL_MARK):
                log.warning(
                    "refused", topic=fetch.tp.topic, partition=partition,
                    offset=offsets[each.index], reason=f"{each.reason}: {each.detail}",
                )  # fmt: skip
        self.publisher.reject(_letters(fetch, outcome.rejects))
        await self.publisher.room(partition)

    def taken(self, partition: int, fetch: Fetch, outcome: Outcome, seconds: float) -> None:
        """Count what a fetch gave."""
        assert self.owner is not None
        line = self.owner.owned[partition].line
        counts = line.pipeline.count_array
        refused = self.refused.note(partition, counts - self.metrics.partitions[partition].counts)
        if refused is not None:
            self._warn("refused", refused)
        self.metrics.batch(
            partition,
            n_messages=len(fetch),
            seconds=seconds,
            counts=counts,
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
            self._note_rules(partition)
            new = outcome.new_rules
            said = {"by": new.by, "note": new.note}
            given = {key: value for key, value in said.items() if value is not None}
            log.info("rules switched", partition=partition, rules=new.digest, **given)

    def gap(self, partition: int, expected: int, found: int) -> None:
        """Say that messages were deleted before they were taken."""
        log.error(
            "messages are missing in the topic: they were deleted before this worker read them",
            partition=partition, expected_offset=expected, next_offset=found,
        )  # fmt: skip

    def assigned(self, partitions: Sequence[int]) -> None:
        """Begin with what is new, forget what is another's."""
        known = self.metrics.partitions.keys()
        for partition in sorted(known - set(partitions)):
            self.metrics.disown(partition)
        for partition in sorted(set(partitions) - known):
            self.metrics.own(partition)

    def released(self) -> None:
        """Forget every partition until the group has decided."""
        self.health.rebalancing()
        self.assigned(())

    def restored(self, partition: int, offset: int | None, seconds: float, notes: Any) -> None:
        """Say whose state was loaded."""
        self.kept(partition)
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
        self.metrics.restored(partition, line.pipeline.count_array)
        self._note_rules(partition)

    def _note_rules(self, partition: int) -> None:
        assert self.owner is not None
        rules = self.owner.owned[partition].line.pipeline.plan.rules
        self.metrics.running_rules(partition, rules.digest, rules.name)

    def saved(self, partition: int, pause_s: float, seconds: float, size: int) -> None:
        """Count a snapshot that is durable."""
        self.metrics.snapshot(partition, seconds=seconds, n_bytes=size)

    def unchanged(self, partition: int) -> None:
        """Note that the last snapshot is as good as a new one."""
        self.metrics.covered(partition)

    def committed(self, partition: int, offset: int) -> None:
        """Count a commit."""
        self.metrics.committed(partition, offset)
        if self.leaving:
            log.info("snapshot written", partition=partition, offset=offset)

    def waits(self, error: Exception) -> None:
        """Say that partitions can't be taken over for now."""
        self._warn("hand-over", f"partitions wait to be taken over, the broker fails: {error!r}")

    def not_released(self, error: Exception) -> None:
        """Say that a worker that stops has not handed everything over."""
        reason = "it took too long" if isinstance(error, TimeoutError) else repr(error)
        log.error(
            "not all was handed over: the next owner begins with the snapshots before",
            reason=reason,
        )

    def not_saved(self, partition: int, error: Exception) -> None:
        """Say that a snapshot failed."""
        self.metrics.snapshot_failed()
        log.error("snapshot failed, nothing is committed", partition=partition, error=str(error))

    def failed(self, error: BaseException, what: str | None = None) -> None:
        """Say what ends the worker, once: what follows from it is no news."""
        if self.ended:
            return
        self.ended = True
        where = {} if what is None else {"what": what}
        if isinstance(error, TocsinError):
            told = "; ".join(error.lines())
            log.error(f"the worker ends: {told}", **where)
        else:
            told = repr(error)
            log.error("the worker ends", **where, error=told, exc_info=error)
        self.health.failed(told)

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

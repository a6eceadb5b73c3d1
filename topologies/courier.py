"""Carries the alerts topic to Redis, beside the readings, and minds what Redis forgets.

tocsin.alerts ─ take → those that wait ─ carry_forever → Router → Redis
                 └ beyond MOST_WAITING the topic is held, the readings go on
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aiokafka.errors import KafkaError
from faust.types import TP

from engine.placed import Place
from topologies import same_log
from topologies.logs import logger
from topologies.metrics import Metrics
from topologies.publisher import parse_at
from topologies.redis_client import is_permanent, is_redis_error, said
from topologies.router import Backoff, FenceBehind, Router
from topologies.same_log import Mark
from topologies.transport import Fetch

log = logger()

COMMIT_EVERY_S = 1.0
MOST_WAITING = 32
"""Fetches of alerts that wait for Redis; beyond it no more are fetched."""
MOST_TOGETHER = 2_000
"""Alerts that are carried to Redis together, unless one fetch has more."""
LOST_EVERY_S = 5.0
"""Pause between the looks at whether Redis has lost what it had confirmed."""


class AlertsLog(Protocol):
    """What a courier asks of the consumer of the alerts topic."""

    async def commit(self, offsets: Mapping[TP, int]) -> None:
        """Commit where the next owner may begin."""

    async def places(self, offsets: Mapping[int, int]) -> Mapping[int, Place]:
        """Return the places of the alerts at offsets, by partition; without those not there."""

    async def reread(self, tp: TP) -> tuple[int, int]:
        """Seek to the beginning; return its offset and the epoch as of which fetches come of it."""

    def hold(self, holding: bool) -> None:
        """Fetch no more for now, or go on."""


Reject = Callable[[TP, int, bytes, str, str], None]
"""Takes what can't be carried: partition, offset, payload, reason, detail."""


class Courier:
    """The alerts of the partitions of one worker on their way to Redis."""

    def __init__(
        self,
        topic: str,
        alerts: AlertsLog,
        readings: same_log.Log,
        readings_topic: str,
        metrics: Metrics,
        *,
        reject: Reject,
        warn: Callable[[str, str], None],
        retry_max_s: float,
    ) -> None:
        self.topic, self._alerts = topic, alerts
        self._readings, self._readings_topic = readings, readings_topic
        self._metrics, self._reject, self._warn = metrics, reject, warn
        self._backoff = Backoff(cap_s=retry_max_s)
        self.router: Router | None = None
        self._waiting: deque[Fetch] = deque()
        self._woken = asyncio.Event()
        self._holding = False
        self._next: dict[TP, int] = {}
        self._sought: dict[TP, tuple[int, int]] = {}
        self._committed_at = self._asked_at = 0.0
        self._unchecked: dict[int, int] = {}

    async def take(self, fetch: Fetch) -> None:
        """Put alerts behind those that wait for Redis; the readings do not wait with them."""
        self._waiting.append(fetch)
        self._woken.set()
        if len(self._waiting) >= MOST_WAITING:
            self._hold(True)

    def assigned(self, committed: Mapping[int, int]) -> None:
        """Look, before alerts of these are carried, what Redis remembers of them.

        The alerts topic was carried up to what is committed, by partition.
        """
        self._unchecked = dict(committed)
        self._woken.set()

    async def release(self) -> None:
        """Hand every partition over."""
        if self.router is None:
            return
        self._waiting.clear()  # not committed: whoever has them next reads them again
        self._hold(False)
        if self._next:
            await self._alerts.commit(self._next)
        for tp in self._next:
            self.router.forget(tp.partition)
        self._next.clear()

    def unroutable(self, partition: int, alert: Any, reason: str) -> None:
        """Keep a record that the router can't read."""
        offset, _, record = alert
        self._reject(TP(self.topic, partition), offset, record, "bad_alert", reason)

    async def carry_forever(self) -> None:
        """Carry to Redis what waits for it."""
        while self.router is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOST_EVERY_S)
            await self._check_fences()
            while self._waiting:
                await self._check_fences()
                fetches, n = [], 0
                while self._waiting and n < MOST_TOGETHER:
                    fetches.append(self._waiting.popleft())
                    n += len(fetches[-1])
                await self._carry(fetches)
                if len(self._waiting) <= MOST_WAITING // 4:
                    self._hold(False)
                await self._restore_lost()
            self._woken.clear()
            await self._restore_lost()

    async def _carry(self, fetches: Sequence[Fetch]) -> None:
        """Carry alerts to Redis; commit now and then, for a redelivery changes nothing there."""
        assert self.router is not None
        alerts: dict[int, list[tuple[int, int, bytes]]] = {}
        ends: dict[TP, int] = {}
        for fetch in fetches:
            first, epoch = self._sought.get(fetch.tp, (0, 0))
            if fetch.first > first and fetch.epoch < epoch:
                continue  # from before a seek; the call under way may have brought what is sought
            ends[fetch.tp] = fetch.next
            for message in fetch.messages:
                at = parse_at(message.headers)
                if at is None:
                    detail = "the header 'at' must be partition/offset/index"
                    self._reject(fetch.tp, message.offset, message.value, "no_place", detail)
                else:
                    alerts.setdefault(at[0], []).append((at[1], at[2], message.value))
        self._metrics.redis_pending = sum(map(len, fetches)) + sum(map(len, self._waiting))
        while True:
            try:
                await self.router.flush_all(alerts)
                break
            except FenceBehind as error:
                log.error(str(error))
                await self._carry_again(error.partition, ends)
                # the others' again: what of them was applied already is behind their fences
                del alerts[error.partition]
        self._metrics.redis_pending = sum(map(len, self._waiting))
        self._next |= ends
        if time.monotonic() - self._committed_at >= COMMIT_EVERY_S:
            self._committed_at = time.monotonic()
            await self._alerts.commit(self._next)

    async def _carry_again(self, partition: int, ends: dict[TP, int]) -> None:
        """Read a partition's alerts from their beginning."""
        assert self.router is not None
        self.router.forget(partition)
        for tp in [tp for tp in ends if tp.partition == partition]:
            del ends[tp]
            self._next.pop(tp, None)
            self._sought[tp] = 0, 1 << 62
            self._sought[tp] = await self._alerts.reread(tp)

    def _hold(self, holding: bool) -> None:
        if holding is not self._holding:
            self._holding = holding
            self._alerts.hold(holding)

    # --- what Redis remembers -------------------------------------------------------------------

    async def _restore_lost(self) -> None:
        """Ask now and then whether Redis has what it confirmed: no alert may come for days."""
        assert self.router is not None
        now = time.monotonic()
        if now - self._asked_at < LOST_EVERY_S:
            return
        self._asked_at = now
        try:
            await self.router.restore_lost()
        except FenceBehind as error:
            log.error(str(error))
            tp = TP(self.topic, error.partition)
            # one that is no longer ours is its new owner's to read
            await self._carry_again(error.partition, {tp: 0} if tp in self._next else {})

    async def _check_fences(self) -> None:
        """Raise OtherLogError where Redis has applied alerts of another log; wait while it is away.

        It would pass over the alerts of this log without a word.
        """
        tries = 0
        while self._unchecked:
            due = self._unchecked
            try:
                await self._check(due)
            except Exception as error:
                if not (is_redis_error(error) or isinstance(error, KafkaError)):
                    raise
                tries += 1
                if is_redis_error(error):
                    self._metrics.redis_down()
                where = self.router.name if self.router and is_redis_error(error) else "Kafka"
                self._warn(
                    "fences", f"alerts wait, their fences can't be read: {where}: {said(error)}"
                )
                await asyncio.sleep(self._backoff.pause_s(tries, permanent=is_permanent(error)))
            else:
                self._metrics.redis_up = True
                if self._unchecked is due:
                    self._unchecked = {}

    async def _check(self, committed: Mapping[int, int]) -> None:
        assert self.router is not None
        fences = await self.router.fences()
        marks = {
            p: [Mark("Redis has applied its alerts", fences[p].offset + 1)]
            for p in committed.keys() & fences.keys()
        }
        if marks:
            await same_log.check(self._readings, self._readings_topic, marks)
        carried = {p: offset - 1 for p, offset in committed.items() if offset}
        for partition, place in (await self._alerts.places(carried)).items():
            fence = fences.get(partition)
            if fence is None or fence < place:
                log.error(
                    "Redis has lost alerts that it had confirmed: the partition's are read again",
                    partition=partition,
                )
                await self._carry_again(partition, {TP(self.topic, partition): 0})

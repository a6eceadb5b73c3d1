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
from topologies.backoff import Backoff
from topologies.logs import logger
from topologies.metrics import Metrics
from topologies.publisher import parse_at
from topologies.redis_client import is_permanent, is_redis_error
from topologies.router import FenceBehind, Router
from topologies.router_encode import MOST_MS, Alert
from topologies.same_log import Mark
from topologies.transport import Fetch

log = logger()

COMMIT_EVERY_S = 1.0
MOST_WAITING = 32
"""Fetches of alerts that wait for Redis; beyond it no more are fetched."""
MOST_TOGETHER = 2_000
"""Alerts that are carried to Redis together, unless one fetch has more."""
_NOWHERE = -1, -1, -1
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
        self._ours: set[TP] = set()
        self._next: dict[TP, int] = {}
        """Up to where alerts are in Redis, of partitions that are ours."""
        self._ends: dict[TP, int] = {}
        """The same once those under way are, of partitions that were ours all the while."""
        self._n_carried = 0
        self._sought: dict[TP, tuple[int, int]] = {}
        self._committed_at = self._asked_at = 0.0
        self._unchecked: dict[int, int] = {}

    async def take(self, fetch: Fetch) -> None:
        """Put alerts behind those that wait for Redis; the readings do not wait with them."""
        self._waiting.append(fetch)
        self._count_pending()
        self._woken.set()
        if len(self._waiting) >= MOST_WAITING:
            self._hold(True)

    def assigned(self, committed: Mapping[int, int], epoch: int = 0) -> None:
        """Look, before alerts of these are carried, what Redis remembers of them.

        The alerts topic was carried up to what is committed, by partition, and is read from there
        as of an epoch: an earlier fetch that begins later would leave a hole behind the fence.
        """
        self._sought = {TP(self.topic, p): (offset, epoch) for p, offset in committed.items()}
        self._ours = set(self._sought)
        self._unchecked = dict(committed)
        self._woken.set()

    async def release(self) -> None:
        """Hand every partition over."""
        if self.router is None:
            return
        ours, self._ours = self._ours, set()
        for tp in ours:
            self.router.forget(tp.partition)
        # what is not committed whoever has them next reads again
        self._waiting.clear()
        self._ends.clear()
        self._sought.clear()
        self._unchecked = {}
        self._n_carried = 0
        self._count_pending()
        self._hold(False)
        reached, self._next = self._next, {}
        if reached:
            await self._alerts.commit(reached)

    def unroutable(self, partition: int, alert: Any, reason: str) -> None:
        """Keep a record that the router can't read."""
        offset, _, record = alert
        self._reject(TP(self.topic, partition), offset, record, "bad_alert", reason)

    async def carry_forever(self) -> None:
        """Carry to Redis what waits for it."""
        task = asyncio.current_task()
        assert task is not None
        # in Python 3.11 wait_for, which the Redis client calls, may swallow a cancellation
        while self.router is not None and not task.cancelling():
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
        records: dict[int, dict[Place, bytes]] = {}
        self._ends.clear()
        self._n_carried = sum(map(len, fetches))
        for fetch in fetches:
            first, epoch = self._sought.get(fetch.tp, (0, 0))
            if fetch.tp not in self._ours:
                continue
            if fetch.first > first and fetch.epoch < epoch:
                continue  # from before a seek; the call under way may have brought what is sought
            self._ends[fetch.tp] = fetch.next
            self._add(fetch, records.setdefault(fetch.tp.partition, {}))
        self._count_pending()
        alerts: dict[int, list[Alert]] = {
            partition: [(*place, record) for place, record in sorted(found.items())]
            for partition, found in records.items()
        }
        while True:
            # what of them was applied already is behind their fences
            ours = {tp.partition: alerts[tp.partition] for tp in self._ends}
            try:
                await self.router.flush_all(ours)
                break
            except FenceBehind as error:
                log.error(str(error))
                await self._carry_again(error.partition)
        self._n_carried = 0
        self._count_pending()
        self._next |= self._ends
        if time.monotonic() - self._committed_at >= COMMIT_EVERY_S:
            self._committed_at = time.monotonic()
            await self._alerts.commit(self._next)

    def _add(self, fetch: Fetch, records: dict[Place, bytes]) -> None:
        """Add a fetch to its partition's records; reject what says no place in it.

        A worker that was frozen may have published some twice, and behind later ones.
        """
        own = fetch.tp.partition
        for message in fetch.messages:
            partition, offset, number = parse_at(message.headers) or _NOWHERE
            if partition == own and 0 <= offset < MOST_MS and 0 <= number < MOST_MS:
                records[offset, number] = message.value
            else:
                detail = f"the header 'at' must be {own}/offset/index"
                self._reject(fetch.tp, message.offset, message.value, "no_place", detail)

    async def _carry_again(self, partition: int) -> None:
        """Read a partition's alerts from their beginning, unless it is another worker's now."""
        assert self.router is not None
        self.router.forget(partition)
        tp = TP(self.topic, partition)
        self._ends.pop(tp, None)
        self._next.pop(tp, None)
        tries = 0
        while tp in self._ours:
            self._sought[tp] = 0, 1 << 62
            try:
                self._sought[tp] = await self._alerts.reread(tp)
                break
            except (KafkaError, OSError) as error:  # also where it is being revoked
                tries += 1
                self._warn("reread", f"alerts can't be read again yet: {error!r}")
                await asyncio.sleep(self._backoff.pause_s(tries, permanent=False))

    def _count_pending(self) -> None:
        self._metrics.redis_pending = self._n_carried + sum(map(len, self._waiting))

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
            await self._carry_again(error.partition)

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
                if isinstance(error, KafkaError):  # of Redis the router tells
                    self._warn("fences", f"alerts wait, Kafka can't be asked of them: {error!r}")
                await asyncio.sleep(self._backoff.pause_s(tries, permanent=is_permanent(error)))
            else:
                if self._unchecked is due:
                    self._unchecked = {}

    async def _check(self, committed: Mapping[int, int]) -> None:
        assert self.router is not None
        fences = await self.router.fences()
        self._metrics.redis_up = True
        marks = {
            p: [Mark("Redis has applied its alerts", fences[p].offset + 1)]
            for p in committed.keys() & fences.keys()
        }
        if marks:
            await same_log.check(self._readings, self._readings_topic, marks)
        carried = {p: offset - 1 for p, offset in committed.items() if offset}
        places = await self._alerts.places(carried)
        if self._unchecked is not committed:
            return  # they are others' now, or must be looked at again
        for partition, fence in fences.items():
            if partition in committed:
                self.router.expect(partition, fence)
        for partition, place in places.items():
            if partition not in fences or fences[partition] < place:
                log.error(
                    "Redis has lost alerts that it had confirmed: the partition's are read again",
                    partition=partition,
                )
                await self._carry_again(partition)

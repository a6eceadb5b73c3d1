"""What a worker counts and measures, for Prometheus.

The hot path only adds to plain numbers; ages and lags are worked out when somebody asks. Everything
is fed from the event loop's thread, which also answers the scrapes, so nothing is locked.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engine import __version__
from engine.readings import OUTCOMES

CONTENT_TYPE = CONTENT_TYPE_LATEST
BESIDES = ("late", "ticks")
"""Counted besides the one outcome that each reading has."""
LONG_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OLD_SNAPSHOTS = 3.0
"""A snapshot is old when so many should have been made since."""
SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Owned:
    """What is known of a partition that this worker owns; times are of the monotonic clock."""

    since: float
    """When it was assigned to us, and then when its state was there."""
    counts: Array
    messages: int = 0
    last_message: float | None = None
    event_ms: int | None = None
    log_ms: int | None = None
    lag_messages: int | None = None
    restored: bool = False
    rules: tuple[str, str] | None = None
    """Digest and name of the rules in force."""
    snapshot: float | None = None
    """When the newest snapshot covered all that had been taken."""
    snapshot_bytes: int = 0
    committed: int | None = None
    labels: list[str] = field(default_factory=list)


class Metrics(Collector):
    """The numbers of one worker, and the registry that exports them."""

    def __init__(
        self,
        *,
        stall_after_s: float = 30.0,
        ticks: bool = True,
        snapshot_every_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stall_after_s = stall_after_s
        self.ticks = ticks
        self.snapshot_old_s = OLD_SNAPSHOTS * snapshot_every_s + 10.0
        self.clock = clock
        self.monotonic = monotonic
        self.partitions: dict[int, Owned] = {}
        self.n_partitions = 0
        self.state_bytes = 0
        self.loop_delay_s = 0.0
        self.ready = False
        self.kafka_up = True
        self.feeds_missing = 0
        self.redis_up: bool | None = None
        self.redis_pending = 0
        self._counts = np.zeros(len(OUTCOMES), np.int64)
        self._count: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._alerts: Counter[tuple[str, str]] = Counter()
        self._differences: Counter[str] = Counter()
        self.registry = CollectorRegistry(auto_describe=False)
        self.batch_seconds = self._histogram("batch", "Time of a batch in the pipeline", True)
        self.snapshot_seconds = self._histogram("snapshot", "From copy to durable", False)
        self.redis_flush_seconds = self._histogram("redis_flush", "Time of a flush to Redis", True)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def _histogram(self, name: str, text: str, short: bool) -> Histogram:
        buckets = SHORT_SECONDS if short else LONG_SECONDS
        return Histogram(f"tocsin_{name}_seconds", text, registry=self.registry, buckets=buckets)

    # --- partitions ---------------------------------------------------------------------------

    def own(self, partition: int) -> None:
        """Begin with a partition whose state is still to be loaded."""
        start = np.zeros(len(OUTCOMES), np.int64)
        label = [str(partition)]
        self.partitions[partition] = Owned(self.monotonic(), start, labels=label)

    def restored(self, partition: int, counts: Array | None = None) -> None:
        """Note that a partition's state is there; `counts` (by `OUTCOMES`) is what it had counted.

        From here on its readings are taken.
        """
        owned = self.partitions[partition]
        owned.restored = True
        owned.since = self.monotonic()
        if counts is not None:
            owned.counts = np.array(counts)

    def disown(self, partition: int) -> None:
        """Forget a partition that another worker has now."""
        self.partitions.pop(partition, None)

    def batch(
        self,
        partition: int,
        *,
        n_messages: int,
        seconds: float,
        counts: Array | None = None,
        event_ms: int | None = None,
        log_ms: int | None = None,
    ) -> None:
        """Note a batch: `counts` is the partition's total by `OUTCOMES`, as its state has it.

        `event_ms` is the partition's newest event time, `log_ms` Kafka's time of the last message.
        """
        owned = self.partitions[partition]
        owned.messages += n_messages
        owned.last_message = self.monotonic()
        owned.event_ms = event_ms
        owned.log_ms = log_ms
        self._messages[owned.labels[0]] += n_messages
        self.batch_seconds.observe(seconds)
        if counts is not None:
            self._counts += counts
            self._counts -= owned.counts
            owned.counts[:] = counts

    def lag(self, partition: int, n_messages: int) -> None:
        """Note how many messages of a partition wait in Kafka."""
        owned = self.partitions.get(partition)
        if owned is not None:
            owned.lag_messages = max(0, n_messages)

    def snapshot(self, partition: int, *, seconds: float, n_bytes: int) -> None:
        """Note a snapshot that is durable."""
        self.snapshot_seconds.observe(seconds)
        self._count["snapshots"] += 1
        owned = self.partitions.get(partition)
        if owned is not None:
            owned.snapshot = self.monotonic()
            owned.snapshot_bytes = n_bytes

    def covered(self, partition: int) -> None:
        """Note that nothing was taken since the newest snapshot."""
        owned = self.partitions.get(partition)
        if owned is not None:
            owned.snapshot = self.monotonic()

    def snapshot_failed(self) -> None:
        """Note a snapshot that could not be written."""
        self._count["snapshot_failures"] += 1

    def committed(self, partition: int, offset: int) -> None:
        """Note a commit that Kafka took: the next offset to read."""
        self._count["commits"] += 1
        owned = self.partitions.get(partition)
        if owned is not None:
            owned.committed = offset

    # --- what came out ------------------------------------------------------------------------

    def rejected(self, reason: str, n: int = 1) -> None:
        """Note readings, or messages, that never reached the detectors."""
        self._rejected[reason] += n

    def alert(self, level: str, transition: str, n: int = 1) -> None:
        """Note alert records by the level they come to."""
        self._alerts[level, transition] += n

    @property
    def n_accepted(self) -> int:
        """Count the readings that reached the detectors."""
        return int(self._counts[OUTCOMES.index("accepted")])

    @property
    def n_alerts(self) -> int:
        """Count the alert records so far."""
        return sum(self._alerts.values())

    @property
    def n_in_redis(self) -> int:
        """Count the alert records that were new to Redis."""
        return self._count["redis_alerts"]

    def kafka_down(self) -> None:
        """Note that no broker answers; said again while it lasts, it counts once."""
        self._count["kafka_outages"] += self.kafka_up
        self.kafka_up = False

    def redis_flush(self, seconds: float, n_alerts: int) -> None:
        """Note a flush that Redis answered."""
        self.redis_up = True
        self.redis_flush_seconds.observe(seconds)
        self._count["redis_alerts"] += n_alerts

    def redis_down(self) -> None:
        """Note that Redis refuses or is away; said again while it lasts, it counts once."""
        self._count["redis_outages"] += self.redis_up is not False
        self.redis_up = False

    def redis_resent(self, n_alerts: int) -> None:
        """Note alerts that Redis had, lost, and got again."""
        self._count["redis_resent_alerts"] += n_alerts

    def shadow_difference(self, difference: str, n: int = 1) -> None:
        """Note alerts that only the "live" rules or only the "candidate" raised."""
        self._differences[difference] += n

    def running_rules(self, partition: int, digest: str, name: str) -> None:
        """Note which rules a partition runs now; where all follow one push, one change counts."""
        owned = self.partitions[partition]
        known = {each.rules for each in self.partitions.values()}
        self._count["rules_changes"] += owned.rules is not None and (digest, name) not in known
        owned.rules = digest, name

    # --- what is asked ------------------------------------------------------------------------

    def silence_s(self, owned: Owned) -> float:
        """Return the seconds since a partition's last message, or since its state was there."""
        began = owned.since if owned.last_message is None else owned.last_message
        return self.monotonic() - began

    def stalled(self, owned: Owned) -> bool:
        """Return whether a partition gives nothing although something must be there."""
        expected = owned.restored and (self.ticks or bool(owned.lag_messages))
        return expected and self.silence_s(owned) > self.stall_after_s

    def log_lag_s(self, owned: Owned) -> float | None:
        """Return how old the last message taken is by Kafka's time; 0 if none waits behind it."""
        if owned.log_ms is None:
            return None
        return 0.0 if owned.lag_messages == 0 else max(0.0, self.clock() - owned.log_ms / 1000)

    def snapshot_age_s(self, owned: Owned) -> float:
        """Return for how long a crash would have had something to replay, at most."""
        return self.monotonic() - (owned.since if owned.snapshot is None else owned.snapshot)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every family; a value not known yet has no sample."""
        yield from self._counters()
        yield from self._gauges()
        yield from self._by_partition()
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("tocsin_build", "What runs", build)
        # usually one; its partitions switch one after the other
        rules = InfoMetricFamily("tocsin_rules", "The rules that partitions of this worker run")
        for each in {owned.rules: None for owned in self.partitions.values() if owned.rules}:
            rules.add_metric([], dict(zip(("digest", "name"), each, strict=True)))
        yield rules

    def _counters(self) -> Iterator[Metric]:
        totals = dict(zip(OUTCOMES, self._counts.tolist(), strict=True))
        outcomes = [((name,), n) for name, n in totals.items() if name not in BESIDES]
        yield _counter("readings", "Readings by what became of them", ["outcome"], outcomes)
        yield _counter("late_readings", "Readings behind the watermark", [], [((), totals["late"])])
        yield _counter("ticks", "Ticks taken from the log", [], [((), totals["ticks"])])
        messages = [((label,), n) for label, n in self._messages.items()]
        yield _counter("messages", "Messages taken from the log", ["partition"], messages)
        rejected = [((reason,), n) for reason, n in self._rejected.items()]
        yield _counter("rejected", "Readings refused before the detectors", ["reason"], rejected)
        alerts = list(self._alerts.items())
        yield _counter("alerts", "Alert records", ["level", "transition"], alerts)
        differences = [((what,), n) for what, n in self._differences.items()]
        text = "Alerts of one rule set only"
        yield _counter("shadow_differences", text, ["difference"], differences)
        for name, text in _PLAIN_COUNTERS.items():
            yield _counter(name, text, [], [((), self._count[name])])

    def _gauges(self) -> Iterator[Metric]:
        yield _gauge("partitions", "Partitions of the readings topic", self.n_partitions)
        n_owned = sum(owned.restored for owned in self.partitions.values())
        yield _gauge("partitions_owned", "Partitions whose state this worker has", n_owned)
        text = "Age at which a snapshot is old"
        yield _gauge("snapshot_old_after_seconds", text, self.snapshot_old_s)
        yield _gauge("state_bytes", "Bytes of detector and fusion state", self.state_bytes)
        yield _gauge("loop_delay_seconds", "How late the event loop woke up", self.loop_delay_s)
        missing = self.feeds_missing
        yield _gauge("feed_topics_missing", "Topics of feeds that are not there yet", missing)
        yield _gauge("ready", "1 where /readyz says so", int(self.ready))
        yield _gauge("kafka_up", "1 where a broker answers when asked", int(self.kafka_up))
        yield _gauge("redis_pending_alerts", "Alerts that wait for Redis", self.redis_pending)
        up = None if self.redis_up is None else int(self.redis_up)
        yield _gauge("redis_up", "1 where the last flush or ping was answered", up)

    def _by_partition(self) -> Iterator[Metric]:
        now_ms = self.clock() * 1000
        for name, text, value in (
            (
                "event_lag_seconds",
                "Newest event time behind the clock",
                lambda each: None if each.event_ms is None else (now_ms - each.event_ms) / 1000,
            ),
            ("log_lag_seconds", "Age of the last message taken, if more wait", self.log_lag_s),
            ("lag_messages", "Messages that wait in Kafka", lambda each: each.lag_messages),
            ("silence_seconds", "Since the last message", self.silence_s),
            ("stalled", "1 where a partition gives nothing", lambda each: int(self.stalled(each))),
            ("restored", "1 where the state is there", lambda each: int(each.restored)),
            ("snapshot_age_seconds", "Since a snapshot covered everything", self.snapshot_age_s),
            ("snapshot_bytes", "Size of the newest snapshot", lambda each: each.snapshot_bytes),
            ("committed_offset", "Next offset after a crash", lambda each: each.committed),
        ):
            family = GaugeMetricFamily(f"tocsin_{name}", text, labels=["partition"])
            for owned in self.partitions.values():
                number = value(owned)
                if number is not None:
                    family.add_metric(owned.labels, number)
            yield family


_PLAIN_COUNTERS = {
    "snapshots": "Snapshots that are durable",
    "snapshot_failures": "Snapshots that could not be written",
    "commits": "Commits of an offset to Kafka",
    "kafka_outages": "Times that no broker answered",
    "redis_alerts": "Alert records that were new to Redis",
    "redis_outages": "Times that Redis went away or refused",
    "redis_resent_alerts": "Alert records that Redis had lost and got again",
    "rules_changes": "Times that other rules were taken up",
}


def _counter(
    name: str,
    text: str,
    labels: Sequence[str],
    samples: Iterable[tuple[Sequence[str], float]],
) -> Metric:
    family = CounterMetricFamily(f"tocsin_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(f"tocsin_{name}", text)
    if value is not None:
        family.add_metric([], value)
    return family

"""What remembers another log is refused; what remembers this one never is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient
from redis.exceptions import ConnectionError

from engine import snapshot
from engine.catalog import Catalog
from engine.pipeline import Pipeline
from engine.snapshots import SnapshotStore
from tests.engine.test_adopt import city, plan_of
from tests.topologies.live import Live, wait_for
from tests.topologies.test_live import publish, settle
from topologies import kafka, same_log
from topologies.courier import Courier
from topologies.kafka_client import kafka_arguments
from topologies.metrics import Metrics
from topologies.router_encode import Position
from topologies.same_log import Fingerprint, Mark, MessageId, OtherLogError


def message(offset: int, timestamp: int = 1000, value: bytes | None = b"reading") -> Any:
    return SimpleNamespace(offset=offset, timestamp=timestamp, value=value)


class Log:
    """One partition's log of a few messages; no end where that is not known."""

    def __init__(self, messages: Sequence[Any], *, end: int | None = -1) -> None:
        self.messages = {each.offset: each for each in messages}
        self.end = len(messages) if end == -1 else end

    async def bounds(self, partitions: Sequence[int]) -> Mapping[int, tuple[int, int | None]]:
        return dict.fromkeys(partitions, (min(self.messages, default=0), self.end))

    async def fingerprints(self, ids: Sequence[MessageId]) -> Mapping[MessageId, Fingerprint]:
        return {
            (partition, offset): Fingerprint.of(self.messages[offset])
            for partition, offset in ids
            if offset in self.messages
        }


TEN = [message(offset) for offset in range(10)]


def check(log: Log, *marks: Mark) -> None:
    asyncio.run(same_log.check(log, "t.readings", {3: marks}))


def test_what_ends_at_the_last_message_or_before_is_of_this_log() -> None:
    check(Log(TEN), Mark("x", 0), Mark("x", 9), Mark("x", 10, Fingerprint.of(TEN[9])))
    check(Log([]), Mark("x", 0))


def test_what_lies_beyond_the_end_is_refused_with_what_to_do() -> None:
    with pytest.raises(OtherLogError) as caught:
        check(Log(TEN), Mark("Redis has applied its alerts", 11))
    said = str(caught.value)
    for part in (
        "t.readings, partition 3, is not the log",
        "Redis has applied its alerts up to offset 11, but it ends at 10",
        *("move the snapshots away", "delete the alerts topic", "<redis_prefix>fence"),
        "other names (snapshots, topic_prefix, redis_prefix)",
    ):
        assert part in said
    with pytest.raises(OtherLogError):
        check(Log([]), Mark("x", 1))


@pytest.mark.parametrize(
    "other", [message(4, 1001), message(4, 1000, b"other"), message(4, 1, None)]
)
def test_another_message_at_the_same_offset_is_refused_however_long_the_log_is(other: Any) -> None:
    with pytest.raises(OtherLogError, match="is now another one"):
        check(Log(TEN), Mark("x", 5, Fingerprint.of(other)))


def test_message_that_is_gone_tells_nothing() -> None:
    mark = Mark("x", 5, Fingerprint(4, 1, 1))
    check(Log(TEN[5:], end=10), mark)  # retention
    check(Log(TEN[:4] + TEN[6:], end=10), mark)  # compaction


def test_nothing_is_refused_where_the_end_is_not_known() -> None:
    check(Log(TEN, end=None), Mark("x", 11), Mark("x", 5, Fingerprint(4, 1, 1)))


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    """A store with a snapshot that covers four messages, and one that covers ten."""
    store = SnapshotStore(str(tmp_path / "store"))
    plan = plan_of(city(tmp_path, 6))
    for last in (TEN[3], TEN[9]):
        frozen = snapshot.freeze(Pipeline(plan, partition=2))
        frozen.meta["extra"][same_log.KEY] = list(Fingerprint.of(last))
        store.write(frozen, last.offset + 1)
    return store


def test_snapshots_tell_how_far_they_go_and_of_what(store: SnapshotStore) -> None:
    marks = same_log.of_snapshots(store, 2)
    assert [(mark.end, mark.last) for mark in marks] == [
        (10, Fingerprint.of(TEN[9])),
        (4, Fingerprint.of(TEN[3])),
    ]
    assert store.latest(2)[0].uri in marks[0].who
    check(Log(TEN), *marks)
    with pytest.raises(OtherLogError, match="up to offset 4, but the last message"):
        check(Log([*TEN[:3], message(3, 7), *TEN[4:]]), *marks)


def test_a_torn_snapshot_tells_by_its_name_alone(store: SnapshotStore) -> None:
    path = Path(store.latest(2)[0].place.path)
    path.write_bytes(path.read_bytes()[:100])
    marks = same_log.of_snapshots(store, 2)
    assert (marks[0].end, marks[0].last) == (10, None)
    check(Log(TEN), *marks)
    with pytest.raises(OtherLogError):
        check(Log(TEN[:9]), *marks)


def test_a_damaged_snapshot_is_no_proof(store: SnapshotStore) -> None:
    """What it says of its last message may be what was damaged; it will be passed over."""
    path = Path(store.latest(2)[0].place.path)
    content = path.read_bytes()
    right = b'"last_message":[9,1000,'
    assert right in content
    path.write_bytes(content.replace(right, b'"last_message":[9,1001,'))
    marks = same_log.of_snapshots(store, 2)
    assert marks[0].last != Fingerprint.of(TEN[9])
    check(Log(TEN), *marks)


# --- the router's side ---------------------------------------------------------------------------


class Router:
    """Says what Redis would say."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def fences(self) -> dict[int, Position]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def expect(self, partition: int, fence: Position) -> None:
        self.expected = partition, fence


class Alerts:
    """Nothing was carried yet."""

    async def places(self, offsets: Any) -> dict[int, Any]:
        assert not offsets
        return {}


def nothing(*_: Any) -> None:
    """Take what a courier tells."""


def courier_of(router: Any) -> Courier:
    alerts: Any = Alerts()
    courier = Courier(
        *("alerts", alerts, Log(TEN), "readings", Metrics()),
        reject=nothing, warn=nothing, retry_max_s=0.05,
    )  # fmt: skip
    courier.router = router
    return courier


def test_a_fence_at_the_last_message_is_fine_and_one_beyond_it_is_not() -> None:
    fences = {1: Position(9, 5), 2: Position(10, 0)}
    courier = courier_of(Router(fences))
    courier.assigned({0: 0, 1: 0})  # those of others are no business of this worker
    asyncio.run(courier._check_fences())
    assert not courier._unchecked
    courier = courier_of(Router(fences))
    courier.assigned({1: 0, 2: 0})
    with pytest.raises(OtherLogError, match=r"partition 2.*Redis has applied its alerts"):
        asyncio.run(courier._check_fences())


def test_fences_are_waited_for_while_redis_is_away() -> None:
    courier = courier_of(Router(ConnectionError("away"), ConnectionError("away"), {}))
    courier.assigned({0: 0})
    asyncio.run(courier._check_fences())
    assert not courier._unchecked


# --- all of it, on Apache Kafka ------------------------------------------------------------------


@pytest.fixture
def live(kafka: Any, redis_server: Any, tmp_path: Path) -> Iterator[Live]:
    name = f"t{os.getpid()}-{time.monotonic_ns()}"
    found = Live(tmp_path, kafka, redis_server.url, topic_prefix=f"{name}.", group=name)
    yield found
    found.stop()


def remake(live: Live, topic: str) -> None:
    async def go() -> None:
        name = live.settings.topic(topic)
        n = Catalog.open(live.catalog).n_partitions
        admin = AIOKafkaAdminClient(**kafka_arguments(live.settings))
        await admin.start()
        await admin.delete_topics([name])
        while name in await admin.list_topics():
            await asyncio.sleep(0.1)
        await admin.close()
        await kafka.ensure_topics(live.settings, {name: n})

    asyncio.run(go())


def refused(live: Live, name: str) -> str:
    worker = live.start(name)
    assert worker.process.wait(60) == 3
    said = worker.log.read_text()
    assert said.count("is not the log that was read before") == 1
    assert "Traceback" not in said
    return said


@pytest.mark.slow
def test_a_topic_made_anew_is_refused_until_nothing_remembers_the_old_one(live: Live) -> None:
    live.start("a")
    publish(live, limit=250_000)
    n = sum(map(len, settle(live).values()))
    client = redis.Redis.from_url(live.redis_url)
    wait_for(lambda: client.xlen("tocsin:alerts") == n, "alerts in Redis")
    assert live.workers["a"].stop() == 0
    said = live.workers["a"].log.read_text()
    end = said[said.index("stopping") :]
    assert "partitions=[0, 1, 2, 3]" in end and "snapshot written" in end and "stopped" in end
    again = live.start("b")  # and the same log is not
    wait_for(lambda: again.log.read_text().count("state restored") == 4, "four partitions")
    assert again.stop() == 0

    remake(live, "readings")
    publish(live, limit=20_000)
    assert "covers it up to offset" in refused(live, "shorter")
    publish(live, limit=260_000)
    assert "the last message of those is now another one" in refused(live, "longer")

    remake(live, "readings")
    publish(live, limit=20_000)
    (live.folder / "snapshots").rename(live.folder / "of the old log")
    assert "has alerts of it up to offset" in refused(live, "alerts")
    remake(live, "alerts")
    assert "Redis has applied its alerts up to offset" in refused(live, "fence")

    client.delete("tocsin:fence", "tocsin:alerts")
    last = live.start("last")
    publish(live, limit=250_000)
    n = sum(map(len, settle(live).values()))
    wait_for(lambda: client.xlen("tocsin:alerts") == n, "the new alerts in Redis")
    assert last.stop() == 0
    client.close()

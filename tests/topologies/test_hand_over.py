"""What a worker's metrics and readiness say of partitions that come, stay and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from engine.catalog import Catalog
from engine.partition import PartitionLine, Plans
from engine.readings import tick_message
from engine.resume import Resumer
from engine.rules_check import load
from engine.snapshots import SnapshotStore
from tests.topologies.live import DAY
from tests.topologies.test_metrics import Clock, exported
from topologies.commands import ControlRecords
from topologies.owner import Owner
from topologies.settings import Settings
from topologies.transport import Fetch
from topologies.worker import Worker


class Log:
    """A log that begins at 0, is whole, and takes commits unless it is told not to."""

    takes_commits = True

    async def bounds(self, partitions: Sequence[int]) -> Mapping[int, tuple[int, int | None]]:
        return dict.fromkeys(partitions, (0, None))

    async def fingerprints(self, ids: Any) -> Mapping[Any, Any]:
        return {}

    async def reread(self, partition: int, offset: int) -> int:
        raise AssertionError("nothing is missing")

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        return self.takes_commits


class Silent:
    """A publisher of a line without alerts."""

    topic = "alerts"

    async def adopt(self, partitions: Sequence[int]) -> None: ...

    def last(self, partition: int) -> tuple[int, int]:
        return -1, -1

    def put(self, partition: int, found: Any) -> None: ...

    async def room(self, partition: int) -> None: ...

    async def flush(self, partitions: Sequence[int]) -> None: ...


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("city") / "city.catalog"
    Catalog.build(DAY, file, partitions=3)
    return file


class Running:
    """A worker with its owner and a store of snapshots, and neither Kafka nor Redis."""

    def __init__(self, catalog: Path, folder: Path) -> None:
        self.log, self.clock, self.generation = Log(), Clock(), 1
        given = {"catalog": catalog, "rules": DAY / "rules.toml", "snapshots": str(folder)}
        none: Any = None
        self.worker = Worker(Settings.model_validate(given), self.log, none, none)
        self.worker.catalog = Catalog.open(catalog)
        self.worker.plans = Plans(self.worker.catalog)
        rules = self.worker.plans.add(load(DAY / "rules.toml"))
        self.metrics = self.worker.metrics
        self.metrics.monotonic = self.metrics.clock = self.clock
        publisher: Any = Silent()
        self.owner = self.worker.owner = Owner(
            self.worker.plans,
            rules,
            Resumer(SnapshotStore(str(folder))),
            publisher,
            self.log,
            "readings",
            self.worker,
            on_rejects=none,
        )
        courier: Any = SimpleNamespace(release=self._no_alerts)
        self.worker.courier = courier
        self.worker.health.started()

    async def _no_alerts(self) -> None: ...

    async def adopt(self, *partitions: int) -> None:
        self.generation += 1
        await self.worker.adopt(partitions, self.generation)

    async def release(self) -> None:
        await self.worker.release(self.generation)

    async def take(self, partition: int, *payloads: bytes) -> None:
        first = self.owner.positions()[partition]
        messages = [
            SimpleNamespace(offset=first + i, timestamp=0, key=None, value=payload, headers=())
            for i, payload in enumerate(payloads)
        ]
        await self.owner.take(Fetch(TP("readings", partition), messages, 1))

    def reasons(self) -> list[tuple[int | None, str]]:
        self.worker.health.beat()  # no server does, and kernels may have been compiled meanwhile
        found = self.worker.health.unready_reasons()
        return [(each.get("partition"), each["reason"]) for each in found]

    def gauges(self) -> set[str]:
        """Return the partitions that any gauge tells of."""
        seen = exported(self.metrics)
        names = ("tocsin_silence_seconds", "tocsin_stalled", "tocsin_snapshot_age_seconds")
        return {labels[1] for labels in seen if labels[0] in names}

    def rules(self) -> set[str]:
        return {each[1] for each in exported(self.metrics) if each[0] == "tocsin_rules_info"}


TICK = tick_message(1_752_681_600_000)


@pytest.fixture
def run(catalog: Path, tmp_path: Path) -> Callable[[Callable[[Running], Awaitable[None]]], None]:
    def scenario(of: Callable[[Running], Awaitable[None]]) -> None:
        async def inside() -> None:
            await of(Running(catalog, tmp_path / "snapshots"))

        asyncio.run(inside())

    return scenario


def test_a_rebalance_during_a_restore_leaves_nothing_behind(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(running: Running) -> None:
        real, under_way = running.owner._restored, asyncio.Event()
        go_on = asyncio.Event()

        async def slow(partition: int, earliest: int) -> None:
            if partition == 1:
                under_way.set()
                await go_on.wait()
            await real(partition, earliest)

        monkeypatch.setattr(running.owner, "_restored", slow)
        adopting = asyncio.create_task(running.adopt(0, 1, 2))
        await under_way.wait()
        assert running.reasons() == [(None, "not_assigned"), (1, "restoring"), (2, "restoring")]
        restored = {
            labels[1]: value
            for labels, value in exported(running.metrics).items()
            if labels[0] == "tocsin_restored"
        }
        assert restored == {"0": 1, "1": 0, "2": 0}
        releasing = asyncio.create_task(running.release())
        await asyncio.sleep(0)
        await running.take(0, TICK)  # what is owned until the hand-over can still be counted
        go_on.set()
        await asyncio.gather(adopting, releasing)
        assert not running.owner.owned and not running.gauges()
        assert running.reasons() == [(None, "not_assigned")]
        await running.adopt(2)
        assert running.gauges() == {"2"} and running.reasons() == []

    run(scenario)


def test_a_partition_that_failed_to_be_restored_is_not_ours_after_a_release(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(running: Running) -> None:
        monkeypatch.setattr(PartitionLine, "restore", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await running.adopt(0)
        assert running.reasons() == [(None, "not_assigned"), (0, "restoring")]
        await running.release()
        assert not running.gauges()

    run(scenario)


def test_after_a_restart_the_rules_of_the_snapshot_are_told_not_those_of_the_file(
    run: Any, tmp_path: Path
) -> None:
    text = (DAY / "rules.toml").read_text().replace('name = "', 'name = "Pushed: ', 1)
    pushed = tmp_path / "pushed.toml"
    pushed.write_text(text)
    ours, theirs = load(DAY / "rules.toml").digest, load(pushed).digest
    assert ours != theirs

    async def before(running: Running) -> None:
        assert running.rules() == set()  # a spare worker has no say in it
        await running.adopt(0, 1)
        assert running.rules() == {ours}
        records = dict(ControlRecords(running.worker.catalog, running.worker.plans).of_rules(
            text.encode()
        ))  # fmt: skip
        await running.take(0, records[0])
        assert running.rules() == {ours, theirs}
        await running.take(1, records[1])
        assert running.rules() == {theirs}
        assert exported(running.metrics)["tocsin_rules_changes_total",] == 1
        await running.release()
        await running.adopt(0)  # from memory
        assert running.rules() == {theirs}
        await running.release()

    async def after(running: Running) -> None:
        await running.adopt(0, 1)
        assert running.rules() == {theirs}
        assert exported(running.metrics)["tocsin_rules_changes_total",] == 0

    run(before)
    run(after)


def test_the_snapshot_of_an_idle_partition_does_not_grow_old(run: Any) -> None:
    async def scenario(running: Running) -> None:
        running.metrics.ticks = False
        await running.adopt(0, 1)
        await running.take(0, TICK)
        running.metrics.lag(0, 0)
        for _ in range(5):
            running.clock.now += 50
            running.worker.health.beat()
            for _ in range(2):  # saves the oldest each time
                await running.owner.save_oldest(0.0)
            assert running.reasons() == []
        assert exported(running.metrics)["tocsin_snapshots_total",] == 1

    run(scenario)


def test_a_snapshot_that_cannot_be_written_grows_old(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    async def scenario(running: Running) -> None:
        monkeypatch.setattr(SnapshotStore, "write", full)
        await running.adopt(0)
        await running.take(0, TICK)
        running.clock.now += 101
        await running.owner.save_oldest(0.0)
        assert (0, "snapshot_old") in running.reasons()
        assert exported(running.metrics)["tocsin_snapshot_failures_total",] == 1

    run(scenario)


def test_a_commit_counts_once_it_is_taken(run: Any) -> None:
    async def scenario(running: Running) -> None:
        await running.adopt(0)
        running.log.takes_commits = False
        await running.take(0, TICK, TICK)
        await running.owner.save_oldest(0.0)
        seen = exported(running.metrics)
        assert seen["tocsin_snapshots_total",] == 1 and seen["tocsin_commits_total",] == 0
        assert ("tocsin_committed_offset", "0") not in seen
        running.log.takes_commits = True
        await running.take(0, TICK)
        await running.owner.save_oldest(0.0)
        seen = exported(running.metrics)
        assert seen["tocsin_commits_total",] == 1 and seen["tocsin_committed_offset", "0"] == 3

    run(scenario)

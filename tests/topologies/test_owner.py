"""What an owner does with a fetch that does not begin where its line stands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from engine.catalog import Catalog
from engine.partition import Plans
from engine.readings import tick_message
from engine.resume import Resumer
from engine.rules_check import load
from engine.snapshots import SnapshotStore
from tests.topologies.live import DAY
from topologies.owner import Owner
from topologies.transport import Fetch

READINGS = TP("readings", 0)
TICK = tick_message(1_752_681_600_000)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "city.catalog"
    Catalog.build(DAY, path, partitions=4)
    return path


def fetch(*offsets: int, begin: int | None = None, epoch: int = 1) -> Fetch:
    """Return ticks at offsets; there is nothing between `begin` and the first."""
    ticks = [SimpleNamespace(offset=o, value=TICK, timestamp=1, headers=()) for o in offsets]
    return Fetch(READINGS, ticks, epoch, begin=begin)


class Log:
    """A log that begins somewhere by now, and is sought."""

    def __init__(self) -> None:
        self.earliest: int | Exception = 0
        self.sought: list[int] = []
        self.epoch = 1

    async def bounds(self, partitions: Sequence[int]) -> Mapping[int, tuple[int, int | None]]:
        if isinstance(self.earliest, Exception):
            raise self.earliest
        return dict.fromkeys(partitions, (self.earliest, None))

    async def fingerprints(self, ids: Any) -> Any:
        return {}

    async def reread(self, partition: int, offset: int) -> int:
        self.sought.append(offset)
        self.epoch += 1
        return self.epoch

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        return True


class Taken:
    """What the watcher was told."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.gaps: list[tuple[int, int]] = []

    def assigned(self, partitions: Sequence[int]) -> None: ...

    def taken(self, partition: int, fetch: Fetch, outcome: Any, seconds: float) -> None:
        self.offsets += fetch.offsets

    def gap(self, partition: int, expected: int, found: int) -> None:
        self.gaps.append((expected, found))

    def restored(self, partition: int, offset: int | None, seconds: float, notes: Any) -> None:
        pass


def given(
    catalog: Path, folder: Path, *fetches: Fetch, earliest: int | Exception = 0
) -> tuple[Taken, list[int]]:
    """Return what an owner took and told of fetches, and where it sought."""
    log, watcher = Log(), Taken()

    async def scenario() -> None:
        async def nothing(*_: Any) -> None:
            pass

        publisher: Any = SimpleNamespace(
            adopt=nothing, put=lambda *_: None, room=nothing, last=lambda _: (-1, 0), topic="alerts"
        )
        plans = Plans(Catalog.open(catalog))
        resumer = Resumer(SnapshotStore(str(folder / "snapshots")))
        watching: Any = watcher
        digest = plans.add(load(DAY / "rules.toml"))
        owner = Owner(
            plans, digest, resumer, publisher, log, "readings", watching, on_rejects=nothing
        )
        await owner.adopt([0], 1)
        log.earliest = earliest
        for each in fetches:
            await owner.take(each)

    asyncio.run(scenario())
    return watcher, log.sought


def test_marks_of_transactions_and_what_was_aborted_are_no_gap(
    catalog: Path, tmp_path: Path
) -> None:
    found, sought = given(catalog, tmp_path, fetch(0, 1), fetch(3, 9, begin=2), fetch(12, begin=10))
    assert (found.offsets, found.gaps, sought) == ([0, 1, 3, 9, 12], [], [])


def test_a_fetch_that_was_read_on_from_elsewhere_is_asked_for_again(
    catalog: Path, tmp_path: Path
) -> None:
    fetches = (
        fetch(0, 1),
        fetch(4, 5, begin=3),  # 2 was lost on its way
        fetch(6, 7, begin=6),  # the next, read before the seek
        fetch(3, 4, begin=2),  # of the call that was under way
        fetch(5, begin=5, epoch=2),
    )
    found, sought = given(catalog, tmp_path, *fetches)
    assert (found.offsets, found.gaps, sought) == ([0, 1, 3, 4, 5], [], [2])


def test_what_was_deleted_before_it_was_taken_is_told(catalog: Path, tmp_path: Path) -> None:
    found, sought = given(catalog, tmp_path, fetch(0), fetch(7, begin=1), earliest=7)
    assert (found.offsets, found.gaps, sought) == ([0, 7], [(1, 7)], [])
    # the log begins within what was taken already
    found, _ = given(catalog, tmp_path, fetch(0, 1), fetch(3, begin=2), earliest=2)
    assert found.gaps == []


def test_a_broker_that_does_not_say_where_the_log_begins_ends_no_worker(
    catalog: Path, tmp_path: Path
) -> None:
    found, _ = given(
        catalog, tmp_path, fetch(0), fetch(7, begin=1), earliest=KafkaConnectionError()
    )
    assert found.offsets == [0, 7]

"""The copies of catalogs in a store: as long as a snapshot speaks of one it stays, no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import snapshot
from engine.catalog import Catalog
from engine.errors import SnapshotError
from engine.pipeline import Pipeline
from engine.plan import Plan
from engine.resume import Resumer
from engine.snapshots import SnapshotStore
from tests.engine.test_adopt import city, plan_of


class Store:
    """One worker's view of a store, with what it would write."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder / "store", plan
        self.store = SnapshotStore(str(self.folder))

    @property
    def digest(self) -> str:
        return self.plan.catalog.digest

    def freeze(self, partition: int = 0) -> snapshot.Frozen:
        return snapshot.freeze(Pipeline(self.plan, partition=partition))

    def write(self, *offsets: int, partition: int = 0) -> None:
        for offset in offsets:
            self.store.write(self.freeze(partition), offset)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Plan]:
    folder = tmp_path_factory.mktemp("cities")
    return plan_of(city(folder, 6, name="old")), plan_of(city(folder, 9, name="new"))


@pytest.fixture
def old(tmp_path: Path, plans: tuple[Plan, Plan]) -> Store:
    return Store(tmp_path, plans[0])


@pytest.fixture
def new(tmp_path: Path, plans: tuple[Plan, Plan]) -> Store:
    return Store(tmp_path, plans[1])


def copies(store: Store) -> set[str]:
    """Return the catalogs of which the store has copies, each whole; nothing else lies beside."""
    names = {path.name for path in store.folder.iterdir() if path.is_file()}
    digests = {name.removeprefix("catalog-").removesuffix(".catalog") for name in names}
    for digest in digests:
        assert store.store.open_catalog(digest).digest == digest
    return digests


def test_copy_goes_with_the_last_snapshot_that_speaks_of_it(old: Store, new: Store) -> None:
    old.write(1, partition=0)
    old.write(1, partition=1)
    new.write(2, 3, 4, partition=0)
    assert copies(new) == {old.digest, new.digest}
    new.write(2, partition=1)
    assert copies(new) == {old.digest, new.digest}
    new.write(3, partition=1)
    assert copies(new) == {new.digest}


def test_copy_that_is_still_spoken_of_can_be_used(old: Store, new: Store) -> None:
    old.write(1, partition=1)
    new.write(2, 3, 4, partition=0)
    found = new.store.find(1)
    assert found is not None
    line = Pipeline(new.plan, partition=1)
    assert Resumer(new.store, adopt_catalog=True).resume(found, line).offset == 1


def test_copy_is_there_after_a_first_snapshot_whatever_another_worker_prunes_meanwhile(
    old: Store, new: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new.write(1, 2, partition=1)
    ours = snapshot.Frozen.write
    seen = []

    def write(self: snapshot.Frozen, *args: Any, **options: Any) -> None:
        monkeypatch.setattr(snapshot.Frozen, "write", ours)
        assert old.digest in copies(new)
        new.write(3, partition=1)
        seen.append(copies(new))
        ours(self, *args, **options)

    monkeypatch.setattr(snapshot.Frozen, "write", write)
    old.write(1, partition=0)
    assert seen == [{new.digest}]
    assert copies(old) == {old.digest, new.digest}


def test_copy_is_put_back_for_a_first_snapshot_that_is_seen_at_the_last_look(
    old: Store, new: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new.write(1, 2)
    old.store.keep_catalog(old.plan.catalog)
    looked: list[set[str]] = []
    ours = SnapshotStore._catalogs_in_use

    def look(self: SnapshotStore) -> set[str]:
        if len(looked) == 1:
            # the other worker is held up right after this
            frozen = old.freeze(1)
            (old.folder / "partition-0001").mkdir()
            frozen.write(str(old.folder / "partition-0001" / f"{7:020}.snapshot"), offset=7)
        looked.append(ours(self))
        return looked[-1]

    monkeypatch.setattr(SnapshotStore, "_catalogs_in_use", look)
    new.write(3)
    assert [old.digest in each for each in looked] == [False, True]
    assert copies(new) == {old.digest, new.digest}


def test_nothing_goes_while_a_snapshot_does_not_tell_of_its_catalog(old: Store, new: Store) -> None:
    old.write(1, partition=1)
    torn = old.folder / "partition-0001" / f"{1:020}.snapshot"
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    new.write(2, 3, 4)
    assert copies(new) == {old.digest, new.digest}
    torn.unlink()
    new.write(5)
    assert copies(new) == {new.digest}


@pytest.mark.parametrize("first", [True, False])
def test_copy_comes_back_if_a_snapshot_does_not_tell_at_the_last_look(
    old: Store, new: Store, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    new.write(1, 2)
    old.store.keep_catalog(old.plan.catalog)
    answers = iter([set()] if not first else [])

    def look(self: SnapshotStore) -> set[str]:
        for answer in answers:
            return answer
        raise SnapshotError("away")

    monkeypatch.setattr(SnapshotStore, "_catalogs_in_use", look)
    new.write(3)
    assert copies(new) == {old.digest, new.digest}


@pytest.mark.parametrize("spoken", [True, False])
def test_copy_that_a_killed_worker_put_aside_comes_back_or_goes(
    old: Store, new: Store, spoken: bool
) -> None:
    if spoken:
        old.write(1, partition=1)
    else:
        old.store.keep_catalog(old.plan.catalog)
    path = old.folder / f"catalog-{old.digest}.catalog"
    path.rename(f"{path}.aside")
    new.write(2, 3, 4)
    assert copies(new) == ({old.digest, new.digest} if spoken else {new.digest})


def test_store_of_one_catalog_looks_no_further(new: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(SnapshotStore, "_catalogs_in_use")
    new.write(1, 2, 3)
    assert copies(new) == {new.digest}
    assert isinstance(new.plan.catalog, Catalog)

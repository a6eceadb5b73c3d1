"""The store of snapshots: what is kept, what is passed over, and what a failed write leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import orjson
import pytest

from engine import snapshot, snapshot_cli
from engine.catalog import Catalog
from engine.errors import ForeignSnapshotError, SnapshotError
from engine.pipeline import Pipeline
from engine.plan import compile_plan
from engine.resume import Resumer
from engine.rules_check import load
from engine.snapshots import Skipped, SnapshotStore
from tests.engine.replays import city
from tests.engine.test_partitions import log_of, n_partitions
from tests.engine.test_snapshot import parts_of
from tests.kernel_line import columns
from tests.worlds import World, world


@pytest.fixture(scope="module")
def case() -> World:
    return next(w for w in (world(Random(s), 200) for s in range(50)) if n_partitions(w) > 1)


def line_at(case: World, n: int, partition: int = 0) -> Pipeline:
    """Return a partition's line that took the first records of its log."""
    line = Pipeline(case.plan, partition=partition)
    line.judge(columns(log_of(case, partition)[:n]))
    return line


def filled(folder: Path, case: World, offsets: list[int], keep: int = 2) -> SnapshotStore:
    """Return a store with snapshots of partition 0 after so many records each."""
    store = SnapshotStore(str(folder / "store"), keep)
    for offset in offsets:
        frozen = snapshot.freeze(line_at(case, offset), {"offset": offset})
        store.write(frozen, offset)
    return store


def resumed(store: SnapshotStore, line: Pipeline) -> tuple[int, list[Skipped]]:
    """Give a line the state of its newest whole snapshot; return what it covers and the skipped."""
    found = store.find(line.partition)
    return Resumer(store).resume(found, line).offset, found.skipped


def offsets(store: SnapshotStore, partition: int = 0) -> list[int]:
    """Return the offsets of a partition's snapshots, the newest first."""
    return [candidate.offset for candidate in store.latest(partition)]


def files(folder: Path) -> list[str]:
    """Return the names of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def tear(store: SnapshotStore, offset: int) -> None:
    """Leave half of a snapshot."""
    path = Path(store.uri) / "partition-0000" / f"{offset:020}.snapshot"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_partition_is_restored_from_its_newest_snapshot(tmp_path, case):
    store = filled(tmp_path, case, [10, 20])
    line = Pipeline(case.plan, partition=0)
    found = store.find(0)
    assert Resumer(store).resume(found, line) == (20, {"offset": 20}, None)
    assert found.skipped == []
    assert parts_of(line) == parts_of(line_at(case, 20))


def test_partition_without_a_snapshot_begins_anew(tmp_path, case):
    store = filled(tmp_path, case, [10])
    assert store.find(1) is None
    assert SnapshotStore(str(tmp_path / "nowhere")).find(0) is None


def test_name_of_a_snapshot_tells_partition_and_offset(tmp_path, case):
    filled(tmp_path, case, [12])
    assert files(tmp_path / "store") == ["partition-0000/00000000000000000012.snapshot"]


def test_so_many_snapshots_stay_as_asked(tmp_path, case):
    assert offsets(filled(tmp_path / "two", case, [10, 20, 30, 40])) == [40, 30]
    assert offsets(filled(tmp_path / "one", case, [10, 20], keep=1)) == [20]
    with pytest.raises(SnapshotError, match="at least 1"):
        SnapshotStore("x", 0)


def test_torn_snapshot_is_passed_over_for_the_one_before(tmp_path, case):
    store = filled(tmp_path, case, [10, 20])
    tear(store, 20)
    line = Pipeline(case.plan, partition=0)
    offset, (skipped,) = resumed(store, line)
    assert (offset, skipped.candidate.offset) == (10, 20)
    assert "not a whole snapshot" in skipped.why
    assert parts_of(line) == parts_of(line_at(case, 10))


def test_what_was_passed_over_goes_before_what_is_whole(tmp_path, case):
    store = filled(tmp_path, case, [10, 20])
    tear(store, 20)
    store.find(0)
    store.write(snapshot.freeze(line_at(case, 15)), 15)
    assert offsets(store) == [15, 10]


def test_store_without_one_good_snapshot_says_so(tmp_path, case):
    store = filled(tmp_path, case, [10, 20])
    tear(store, 10)
    tear(store, 20)
    with pytest.raises(SnapshotError, match="no snapshot of partition 0 is any good") as caught:
        store.find(0)
    assert "00010.snapshot" in str(caught.value)
    assert "00020.snapshot" in str(caught.value)


def test_snapshot_of_another_catalog_is_refused_and_says_what_to_do(tmp_path, case):
    store = filled(tmp_path, case, [10])
    other = world(Random(99), 10).plan
    other.catalog.digest = "7" * 32
    with pytest.raises(ForeignSnapshotError, match=r"0{32}.*7{32}.*adopt_catalog"):
        resumed(store, Pipeline(other, partition=0))


def test_leftovers_of_a_killed_writer_are_swept_away(tmp_path, case):
    store = filled(tmp_path, case, [10])
    part = tmp_path / "store" / "partition-0000" / "00000000000000000015.snapshot.part"
    part.write_bytes(b"half")
    assert offsets(store) == [10]
    store.write(snapshot.freeze(line_at(case, 20)), 20)
    assert not part.exists()


def test_store_takes_no_snapshot_of_a_whole_catalog(tmp_path, case):
    with pytest.raises(SnapshotError, match="not of whole catalogs"):
        SnapshotStore(str(tmp_path)).write(snapshot.freeze(Pipeline(case.plan)), 1)


def test_uri_of_a_local_folder_works_like_its_path(tmp_path, case):
    store = SnapshotStore((tmp_path / "store").as_uri())
    store.write(snapshot.freeze(line_at(case, 10)), 10)
    line = Pipeline(case.plan, partition=0)
    assert resumed(store, line) == (10, [])
    assert offsets(SnapshotStore(str(tmp_path / "store"))) == [10]


FULL = """
import resource, sys
from pathlib import Path
from random import Random
from engine import snapshot
from engine.errors import SnapshotError
from tests.engine.test_snapshots import filled, line_at, offsets
from tests.engine.test_partitions import n_partitions
from tests.worlds import world
case = next(w for w in (world(Random(s), 200) for s in range(50)) if n_partitions(w) > 1)
store = filled(Path(sys.argv[1]), case, [10, 20])
frozen = snapshot.freeze(line_at(case, 30))
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
try:
    store.write(frozen, 30)
except SnapshotError as error:
    print(error)
assert offsets(store) == [20, 10]
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
store.write(frozen, 30)
assert offsets(store) == [30, 20]
"""


def test_full_disk_leaves_the_old_snapshots_until_there_is_room(tmp_path):
    arguments = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "can't be written" in done.stdout
    assert not [name for name in files(tmp_path) if name.endswith(".part")]


def test_folder_that_cannot_be_made_is_named(tmp_path, case):
    (tmp_path / "file").write_text("in the way")
    store = SnapshotStore(str(tmp_path / "file" / "store"))
    with pytest.raises(SnapshotError, match="file/store"):
        store.write(snapshot.freeze(line_at(case, 10)), 10)


def test_store_keeps_a_copy_of_the_catalog(tmp_path):
    of = city(tmp_path)
    catalog = Catalog.open(of.catalog)
    line = Pipeline(compile_plan(catalog, load(of.rules)), partition=0)
    store = SnapshotStore(str(tmp_path / "store"))
    store.write(snapshot.freeze(line), 0)
    assert (tmp_path / "store" / f"catalog-{catalog.digest}.catalog").is_file()
    copy = store.open_catalog(catalog.digest)
    assert copy.digest == catalog.digest
    assert copy.sensor_id.to_pylist() == catalog.sensor_id.to_pylist()
    with pytest.raises(SnapshotError, match="no whole copy"):
        store.open_catalog("f" * 32)


def test_damaged_copy_of_a_catalog_is_refused(tmp_path):
    of = city(tmp_path)
    store = SnapshotStore(str(tmp_path / "store"))
    catalog = Catalog.open(of.catalog)
    store.keep_catalog(catalog)
    path = tmp_path / "store" / f"catalog-{catalog.digest}.catalog"
    path.write_bytes(path.read_bytes().replace(b"well-1/ch4", b"well-1/CH4"))
    with pytest.raises(SnapshotError, match=r"no whole copy.*digest"):
        store.open_catalog(catalog.digest)


# what the command line prints


def test_list_shows_every_snapshot_with_what_is_wrong(tmp_path, case, capsys):
    store = filled(tmp_path, case, [10, 20])
    tear(store, 20)
    rows = snapshot_cli.rows(store.uri)
    assert [(row["partition"], row["offset"]) for row in rows] == [(0, 20), (0, 10)]
    assert "not a whole snapshot" in rows[0]["problem"]
    assert rows[1]["problem"] is None
    assert rows[1]["position"] == 10
    assert snapshot_cli.ls(store.uri, as_json=True) == 0
    assert orjson.loads(capsys.readouterr().out) == rows
    assert snapshot_cli.ls(store.uri, as_json=False) == 0
    assert "not a whole snapshot" in capsys.readouterr().out


def test_a_list_is_whole_in_a_pipe_and_fits_a_terminal(tmp_path, case, capsys):
    store = filled(tmp_path, case, [10])
    assert snapshot_cli.ls(store.uri, as_json=False) == 0
    piped = capsys.readouterr().out
    (row,) = snapshot_cli.rows(store.uri)
    assert "…" not in piped
    for whole in ("10", row["written"][:10], row["written"][11:19], row["rules"], row["catalog"]):
        assert f" {whole}" in piped
    large = row | {"offset": 999_999_999, "position": 999_999_999, "bytes": 123_400_000}
    lines = list(snapshot_cli._lines([large], snapshot_cli.DIGITS))
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split()[1:4] == ["999,999,999", "123.4", "MB"]
    assert [snapshot_cli._size(n) for n in (999, 48_500)] == ["999 B", "48.5 kB"]


def test_show_takes_a_store_a_folder_or_a_file(tmp_path, case, capsys):
    store = filled(tmp_path, case, [10, 20])
    for uri in (store.uri, f"{store.uri}/partition-0000", store.latest(0)[0].uri):
        assert snapshot_cli.facts(uri)["offset"] == 20
    assert snapshot_cli.show(store.uri, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "partition 0" in printed
    assert "before offset 20" in printed
    saved = str(tmp_path / "replay.state")
    snapshot.save(saved, Pipeline(case.plan))
    assert snapshot_cli.facts(saved)["partition"] is None
    with pytest.raises(SnapshotError, match="no snapshots here"):
        snapshot_cli.facts(str(tmp_path / "nothing"))


def test_verify_reads_every_snapshot(tmp_path, case, capsys):
    store = filled(tmp_path, case, [10, 20])
    assert snapshot_cli.verify(store.uri, as_json=False) == 0
    assert capsys.readouterr().out.count(": whole") == 2
    tear(store, 10)
    assert snapshot_cli.verify(store.uri, as_json=False) == snapshot_cli.FAULTY
    assert "not a whole snapshot" in capsys.readouterr().out
    assert snapshot_cli.verify(store.latest(0)[0].uri, as_json=True) == 0
    with pytest.raises(SnapshotError, match="no snapshots here"):
        snapshot_cli.verify(str(tmp_path / "nothing"), as_json=False)


def test_place_is_tried_out_and_left_as_it_was(tmp_path):
    SnapshotStore(str(tmp_path / "a" / "b")).check_writable()
    assert files(tmp_path) == []
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(SnapshotError, match=str(place)):
            SnapshotStore(str(place)).check_writable()


def test_what_is_altered_in_the_first_copy_of_the_schema_is_found(tmp_path, case):
    store = filled(tmp_path, case, [1])
    path = Path(store.latest(0)[0].place.path)
    content = path.read_bytes()
    for at in (300, content.index(b"tocsin.snapshot"), content.index(b'"rules_text"')):
        path.write_bytes(content[:at] + b"XXXX" + content[at + 4 :])
        with pytest.raises(SnapshotError):
            snapshot.read(store.latest(0)[0].place)
    path.write_bytes(content)
    assert snapshot.read(store.latest(0)[0].place)

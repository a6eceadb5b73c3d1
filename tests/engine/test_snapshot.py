"""Snapshots: of a partition or a whole catalog, and every way in which one can be no good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import snapshot
from engine.errors import DamagedSnapshotError, ForeignSnapshotError, SnapshotError
from engine.pipeline import Pipeline
from engine.rules import Rules
from engine.state import State
from tests.engine.test_partitions import judged, log_of, n_partitions
from tests.kernel_line import columns
from tests.worlds import steered, world


def parts_of(line: Pipeline) -> dict[str, bytes]:
    """Return the bytes of the line's state, but for the places of sources in the agenda."""
    parts = {name: part.copy() for name, part in line.state.of_sources(*line.sources).items()}
    parts["source"]["place"] = 0
    return {name: part.tobytes() for name, part in parts.items()}


def saved(folder: Path, seed: int = 3) -> tuple[Pipeline, str]:
    """Return a line that took a log, and its snapshot."""
    case = world(Random(seed), 120)
    line = Pipeline(case.plan)
    line.judge(columns(case.records))
    uri = str(folder / "line.snapshot")
    snapshot.save(uri, line, {"offset": 120})
    return line, uri


@given(steered(lambda rng: world(rng, 80)), st.integers(0, 80))
def test_partition_goes_on_elsewhere_from_its_snapshot(tmp_path_factory, case, cut):
    uri = str(tmp_path_factory.mktemp("snapshots", numbered=True) / "one.snapshot")
    here, there = State.allocate(case.plan), State.allocate(case.plan)
    for partition in range(n_partitions(case)):
        log = log_of(case, partition)
        line = Pipeline(case.plan, state=here, partition=partition)
        judged(line, log[:cut])
        snapshot.save(uri, line, {"partition": partition})
        again = Pipeline(case.plan, state=there, partition=partition)
        assert snapshot.load(uri, again) == {"partition": partition}
        assert judged(again, log[cut:]) == judged(line, log[cut:])
        assert parts_of(again) == parts_of(line)
        assert again.counts == line.counts
        assert again.position == line.position


@given(steered(lambda rng: world(rng, 60)), st.integers(0, 60))
def test_frozen_state_does_not_move_with_the_line(tmp_path_factory, case, cut):
    uri = str(tmp_path_factory.mktemp("snapshots", numbered=True) / "one.snapshot")
    room = snapshot.Room()
    line, twin = Pipeline(case.plan), Pipeline(case.plan)
    room.prepare(line)
    line.judge(columns(case.records[:cut]))
    frozen = snapshot.freeze(line, {}, room)
    line.judge(columns(case.records[cut:]))
    frozen.write(uri)
    frozen.release()
    snapshot.freeze(line, {}, room)  # into the same memory
    snapshot.load(uri, twin)
    assert twin.judge(columns(case.records[cut:])).tobytes() == _expected(case, cut)
    assert parts_of(twin) == parts_of(line)


def _expected(case, cut):
    line = Pipeline(case.plan)
    line.judge(columns(case.records[:cut]))
    return line.judge(columns(case.records[cut:])).tobytes()


def test_room_is_used_again():
    line = Pipeline(world(Random(1), 10).plan)
    room = snapshot.Room()
    first = snapshot.freeze(line, {}, room)
    at = first._buffer.ctypes.data
    second = snapshot.freeze(line, {}, room)
    assert second._buffer.ctypes.data != at  # the first is not written yet
    first.release()
    assert snapshot.freeze(line, {}, room)._buffer.ctypes.data == at


def test_snapshot_tells_under_which_rules_it_was_made(tmp_path):
    line, uri = saved(tmp_path)
    text = '# a comment\nversion = 1\nname = "night"\n'
    line.plan.rules.text = Rules.parse(text).text
    snapshot.save(uri, line)
    meta = snapshot.read_meta(uri)
    assert meta["rules_text"] == text
    assert meta["rules"] == line.plan.rules.digest
    assert meta["catalog"] == line.plan.catalog.digest
    assert meta["position"] == 120
    assert meta["partition"] is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_torn_snapshot_is_refused(tmp_path, share):
    line, uri = saved(tmp_path)
    before = parts_of(line)
    content = Path(uri).read_bytes()
    Path(uri).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DamagedSnapshotError, match="not a whole snapshot"):
        snapshot.load(uri, line)
    assert parts_of(line) == before


def test_altered_snapshot_is_refused_whichever_byte_it_is(tmp_path):
    """Every part of the file is hit; what Arrow never reads (padding) may be anything."""
    line, uri = saved(tmp_path)
    content = Path(uri).read_bytes()
    before = parts_of(line)
    rng = Random(11)
    n_refused = 0
    for _ in range(600):
        altered = bytearray(content)
        for _ in range(rng.choice([1, 1, 8])):
            altered[rng.randrange(len(altered))] ^= 1 << rng.randrange(8)
        Path(uri).write_bytes(altered)
        fresh = Pipeline(line.plan)
        try:
            snapshot.load(uri, fresh)
        except SnapshotError:
            n_refused += 1
        else:
            assert parts_of(fresh) == before
    assert n_refused > 300


def test_missing_snapshot_is_refused(tmp_path):
    line, _ = saved(tmp_path)
    with pytest.raises(SnapshotError, match="no such snapshot"):
        snapshot.load(str(tmp_path / "other.snapshot"), line)


def test_noise_is_no_snapshot(tmp_path):
    path = tmp_path / "noise"
    path.write_bytes(Random(0).randbytes(5000))
    with pytest.raises(DamagedSnapshotError, match="not a whole snapshot"):
        snapshot.read(str(path))


@pytest.mark.parametrize("what", ["catalog", "rules"])
def test_snapshot_of_another_plan_is_refused_with_both_digests(tmp_path, what):
    line, uri = saved(tmp_path)
    getattr(line.plan, what).digest = "1" * 32
    with pytest.raises(ForeignSnapshotError, match=f"made with {what} 0{{32}}.*these are 1{{32}}"):
        snapshot.load(uri, line)


def test_snapshot_of_another_partition_is_refused(tmp_path):
    case = next(w for w in map(world, map(Random, range(50))) if n_partitions(w) > 1)
    uri = str(tmp_path / "one.snapshot")
    snapshot.save(uri, Pipeline(case.plan, partition=0))
    with pytest.raises(ForeignSnapshotError, match="of partition 0, but this is partition 1"):
        snapshot.load(uri, Pipeline(case.plan, partition=1))
    with pytest.raises(ForeignSnapshotError, match="of partition 0, but this is the whole"):
        snapshot.load(uri, Pipeline(case.plan))


def test_place_that_cannot_be_written_is_named(tmp_path):
    line, uri = saved(tmp_path)
    with pytest.raises(SnapshotError, match="can't be written"):
        snapshot.save(f"{uri}/below-a-file", line)
    with pytest.raises(SnapshotError, match="not a place"):
        snapshot.save("nowhere://at/all", line)


FULL = """
import resource, sys
from pathlib import Path
from engine import snapshot
from engine.errors import SnapshotError
from tests.engine.test_snapshot import saved
folder = Path(sys.argv[1])
line, uri = saved(folder)
whole = Path(uri).read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, resource.RLIM_INFINITY))
try:
    snapshot.save(uri, line)
except SnapshotError as error:
    print(error)
assert Path(uri).read_bytes() == whole
assert [path.name for path in folder.iterdir()] == ["line.snapshot"]
"""


def test_full_disk_leaves_the_old_snapshot_and_no_litter(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "can't be written" in done.stdout

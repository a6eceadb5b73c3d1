"""The whole line: as the oracle says, whatever the batches, snapshots, shards, or interleaving."""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine import snapshot
from kernels.layout import FAR_FUTURE_MS
from tests.kernel_line import Line, assert_judges_as_oracle, columns, of_kernel, split
from tests.oracle import Oracle, Record
from tests.worlds import World, steered, world, worlds

N_SEEDS = 6 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 60
N = 80
"""Records of a log that hypothesis draws."""


def judged_bytes(line: Line, batches: Sequence[Sequence[Record]]) -> bytes:
    """Return the bytes of all transitions."""
    return b"".join(line.judge(columns(batch)).tobytes() for batch in batches)


def assert_same_state(one: Line, other: Line) -> None:
    """Compare everything that is remembered, but for where the agenda keeps a source."""
    assert one.counts == other.counts
    assert one.position == other.position
    for name, array in one.state.arrays.items():
        twin = other.state.arrays[name]
        for field in array.dtype.names:
            if (name, field) != ("source", "place"):
                assert array[field].tobytes() == twin[field].tobytes(), f"{name}.{field}"


@given(worlds(N), st.lists(st.integers(0, N), max_size=4), st.integers(1, 4))
def test_line_is_as_the_oracle_says(case, cuts, threads):
    assert_judges_as_oracle(case.plan, case.records, cuts, threads=threads)


@given(worlds(N), st.lists(st.integers(0, N), max_size=10))
def test_any_cut_into_batches_gives_the_same_bytes_and_state(case, cuts):
    whole, pieces = Line(case.plan), Line(case.plan)
    assert judged_bytes(pieces, split(case.records, cuts)) == judged_bytes(whole, [case.records])
    assert_same_state(pieces, whole)


def test_one_record_at_a_time_gives_the_bytes_of_one_batch():
    for seed in range(N_SEEDS):
        case = world(Random(seed), 150)
        whole, single = Line(case.plan), Line(case.plan)
        one_by_one = judged_bytes(single, [[record] for record in case.records])
        assert one_by_one == judged_bytes(whole, [case.records])


@given(worlds(N), st.lists(st.integers(0, N), min_size=1, max_size=3), st.integers(1, 3))
def test_snapshot_at_any_point_changes_nothing_that_follows(tmp_path_factory, case, cuts, threads):
    place = str(tmp_path_factory.mktemp("snapshots", numbered=True) / "line.snapshot")
    whole = Line(case.plan)
    expected = judged_bytes(whole, [case.records])
    line = Line(case.plan)
    found = b""
    for number, batch in enumerate(split(case.records, cuts)):
        if number:  # killed, and taken up by another worker with another number of threads
            snapshot.save(place, line, {"batch": number})
            line = Line(case.plan, threads=threads)
            assert snapshot.load(place, line) == {"batch": number}
        found += judged_bytes(line, [batch])
    assert found == expected
    assert_same_state(line, whole)


@given(worlds(N), st.integers(2, 6))
def test_number_of_shards_changes_nothing(case, threads):
    one, several = Line(case.plan), Line(case.plan, threads=threads)
    assert judged_bytes(several, [case.records]) == judged_bytes(one, [case.records])
    assert_same_state(several, one)


def interleaved(rng: Random) -> tuple[World, list[Record]]:
    """Draw a world of readings alone, never too late, and its log in another order of sensors."""
    case = world(rng, N, wide_open=True)
    case.plan.late_after_ms = FAR_FUTURE_MS
    case.records = [record for record in case.records if record.sensor >= 0]
    queues: dict[int, list[Record]] = {}
    for record in case.records:
        queues.setdefault(record.sensor, []).append(record)
    shuffled = []
    while queues:
        sensor = rng.choice(sorted(queues))
        shuffled.append(queues[sensor].pop(0))
        if not queues[sensor]:
            del queues[sensor]
    return case, shuffled


@given(steered(interleaved))
def test_order_between_sensors_does_not_change_what_any_sensor_says(drawn):
    case, shuffled = drawn
    said: list[Any] = []
    for records in (case.records, shuffled):
        line = Line(case.plan)
        changes = of_kernel(line.detect_all(records))
        said.append(
            [
                [{**c, "position": None} for c in changes if c["sensor"] == sensor]
                for sensor in range(case.plan.catalog.n_sensors)
            ]
        )
        said.append(line.counts)
    assert said[:2] == said[2:]


def test_corpus_of_permutations_has_something_to_say():
    changes = 0
    for seed in range(N_SEEDS):
        case, shuffled = interleaved(Random(seed))
        assert sorted(shuffled, key=str) == sorted(case.records, key=str)
        oracle = Oracle(case.plan)
        oracle.push_all(shuffled)
        changes += len(oracle.changes)
    assert changes > 3 * N_SEEDS


def test_seeded_corpus_is_the_same_from_snapshot_to_snapshot(tmp_path):
    place = str(tmp_path / "line.snapshot")
    for seed in range(N_SEEDS):
        case = world(Random(seed), 150)
        expected = judged_bytes(Line(case.plan), [case.records])
        line, found = Line(case.plan), b""
        for batch in split(case.records, range(0, 150, 13)):
            found += judged_bytes(line, [batch])
            snapshot.save(place, line)
            line = Line(case.plan)
            snapshot.load(place, line)
        assert found == expected


def test_empty_batch_is_nothing():
    case = world(Random(0), 10)
    line = Line(case.plan)
    assert len(line.judge(columns([]))) == 0
    assert line.position == 0
    assert np.all(line.state.source["level"] == 0)

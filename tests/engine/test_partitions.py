"""Lines of one partition each, on one state, against the line of the whole catalog."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given

from engine.pipeline import Pipeline
from engine.state import State
from kernels.layout import ACKNOWLEDGE
from tests.kernel_line import columns
from tests.oracle import Record
from tests.worlds import World, steered, world

MIXED_SOURCES = ("source", "trigger", "coupled_from")


def log_of(case: World, partition: int) -> list[Record]:
    """Return what stands in a partition's log: its own sensors' readings, and all else."""
    catalog = case.plan.catalog
    first, last = catalog.partition_start[partition : partition + 2]
    sensors = range(int(catalog.sensor_start[first]), int(catalog.sensor_start[last]))

    def belongs(record: Record) -> bool:
        if record.sensor == ACKNOWLEDGE:
            return first <= record.value < last
        return not 0 <= record.sensor < catalog.n_sensors or record.sensor in sensors

    return [record for record in case.records if belongs(record)]


def n_partitions(case: World) -> int:
    """Return how many partitions the world's catalog has."""
    return len(case.plan.catalog.partition_start) - 1


def judged(line: Pipeline, log: Sequence[Record], n: int = 7) -> bytes:
    """Run a log through a line in small batches; return the bytes of its transitions."""
    batches = [log[start : start + n] for start in range(0, len(log), n)]
    return b"".join(line.judge(columns(batch)).tobytes() for batch in batches)


@given(steered(lambda rng: world(rng, 80)))
def test_partition_of_its_own_says_of_its_log_what_the_whole_line_says(case):
    for partition in range(n_partitions(case)):
        log = log_of(case, partition)
        whole, alone = Pipeline(case.plan), Pipeline(case.plan, partition=partition)
        first, last = alone.sources
        expected = whole.judge(columns(log))
        mine = (expected["source"] >= first) & (expected["source"] < last)
        assert mine.all()  # nothing happens elsewhere
        assert judged(alone, log) == expected.tobytes()
        assert alone.counts == whole.counts
        assert alone.position == len(log)
        assert alone.n_foreign == 0


@given(steered(lambda rng: (world(rng, 80), rng)))
def test_partitions_on_one_state_do_not_disturb_each_other(drawn):
    case, rng = drawn
    state = State.allocate(case.plan)
    numbers = range(n_partitions(case))
    lines = [Pipeline(case.plan, state=state, partition=number) for number in numbers]
    logs = [log_of(case, number) for number in numbers]
    found = [b""] * len(lines)
    places = [0] * len(lines)
    while any(place < len(log) for place, log in zip(places, logs, strict=True)):
        number = rng.randrange(len(lines))
        batch = logs[number][places[number] : places[number] + rng.randint(1, 20)]
        places[number] += len(batch)
        found[number] += lines[number].judge(columns(batch)).tobytes()
    for number, log in enumerate(logs):
        assert found[number] == judged(Pipeline(case.plan, partition=number), log)


def test_partition_that_is_assigned_again_begins_anew():
    case = world(Random(3), 200)
    state = State.allocate(case.plan)
    for partition in range(n_partitions(case)):
        log = log_of(case, partition)
        first = judged(Pipeline(case.plan, state=state, partition=partition), log)
        again = Pipeline(case.plan, state=state, partition=partition)
        untouched = Pipeline(case.plan).state.of_sources(*again.sources)
        for name, part in state.of_sources(*again.sources).items():
            assert part.tobytes() == untouched[name].tobytes(), name
        assert judged(again, log) == first


def test_readings_of_another_partition_are_passed_over_and_counted():
    case = next(w for w in map(world, map(Random, range(50))) if n_partitions(w) > 2)
    line = Pipeline(case.plan, partition=1)
    first, last = line.sources
    foreign = [r for r in case.records if 0 <= r.sensor < case.plan.catalog.n_sensors]
    home = case.plan.catalog.sensor_source
    foreign = [r for r in foreign if not first <= home[r.sensor] < last]
    line.judge(columns(foreign))
    assert line.n_foreign == len(foreign) > 0
    assert sum(line.counts.values()) == 0
    assert not line.state.hot["n"].any()


def test_parts_of_all_partitions_are_the_whole_state():
    for seed in range(30):
        case = world(Random(seed), 60)
        line = Pipeline(case.plan)
        line.judge(columns(case.records))
        bounds = case.plan.catalog.partition_start
        cut = [line.state.of_sources(*bounds[p : p + 2]) for p in range(n_partitions(case))]
        whole = line.state.of_sources(*line.sources)
        for name, part in whole.items():
            assert b"".join(of[name].tobytes() for of in cut) == part.tobytes(), name
        n_parts = sum(part.nbytes for part in whole.values())
        assert n_parts == line.state.n_bytes - (line.state.bins.nbytes - whole["bins"].nbytes)


GROWTH = """
import resource
from engine.state import State
from tests.plans import make_plan, params_row, window_row
n = 200_000
zeros, ones = [0] * n, [1] * n
row = params_row(n_windows=1)
plan = make_plan(row, [window_row()], rows=zeros, absent_ms=zeros, counts=ones)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
state = State.allocate(plan)
allocated = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
state.reset(0, n // 10)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(state.n_bytes, (allocated - before) * 1024, (after - before) * 1024)
"""


@pytest.mark.skipif(resource.getpagesize() > 65_536, reason="pages too large to tell")
def test_state_takes_memory_only_for_what_was_reset():
    done = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True
    )
    n_bytes, allocated, after = map(int, done.stdout.split())
    assert n_bytes > 40e6
    assert allocated < n_bytes / 20
    assert after < n_bytes / 3


def test_what_belongs_to_no_sensor_is_not_taken_for_another_partitions():
    case = next(w for w in map(world, map(Random, range(50))) if n_partitions(w) > 1)
    line = Pipeline(case.plan, partition=0)
    mean = np.array([-1, -3, 2**31 - 1, -(2**31)], np.int32)
    assert line.count_foreign(mean) == 0

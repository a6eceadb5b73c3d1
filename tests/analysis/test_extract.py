"""A part of a log gives the transitions that the whole log gives."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.extract import Admission, Extract, Part, extract
from engine.analysis.past import Past, judge
from engine.readings import Readings
from engine.rules import Rules
from kernels.layout import NEVER
from tests.engine.replays import RULES, city, one_file
from tests.kernel_line import Line, columns
from tests.worlds import World, world, worlds


def sub_plan(plan: Any, part: Part) -> SimpleNamespace:
    """Return the plan of a part, cut out of a whole test plan entry by entry."""
    whole = plan.catalog
    place = {int(source): at for at, source in enumerate(part.sources)}
    counts = [int(whole.sensor_start[s + 1] - whole.sensor_start[s]) for s in part.sources]
    targets = np.repeat(np.arange(whole.n_sources), np.diff(whole.coupled_start))
    origins = np.repeat(np.arange(whole.n_sources), np.diff(whole.coupling_start))

    def starts(numbers: list[int]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64)

    catalog = SimpleNamespace(
        **vars(whole)
        | {
            "n_sources": len(place),
            "n_sensors": sum(counts),
            "partition_start": np.array([0, len(place)]),
            "sensor_start": starts(counts),
            "sensor_source": np.repeat(np.arange(len(place), dtype=np.int32), counts),
            "category": whole.category[part.sources],
            "static_class": whole.static_class[part.sources],
            "district": whole.district[part.sources],
            "coupling_start": starts([int((origins[part.coupling] == s).sum()) for s in place]),
            "coupling_target": np.array(
                [place[int(s)] for s in whole.coupling_target[part.coupling]], np.int32
            ),
            "coupled_start": starts([int((targets[part.coupled] == s).sum()) for s in place]),
            "coupled_origin": np.array(
                [place[int(s)] for s in whole.coupled_origin[part.coupled]], np.int32
            ),
        }
    )
    row = plan.row[part.sensors]
    return SimpleNamespace(
        **vars(plan)
        | {
            "catalog": catalog,
            "row": row,
            "absent_ms": plan.absent_ms[part.sensors],
            "more_start": starts(np.maximum(plan.params["n_windows"][row].astype(int) - 1, 0)),
            "season_start": starts(plan.params["season_bins"][row]),
            "coupled_weight": plan.coupled_weight[part.coupled],
        }
    )


def cut(of: World, source: int, n: int, hops: int | None = None) -> tuple[Extract, np.ndarray]:
    """Return the extract of one source of a world, and its transitions in the whole log."""
    plan, log = of.plan, columns(of.records)
    part = Part.of(plan.catalog, [source], hops)
    batches = [log.cut(at, min(at + n, len(log))) for at in range(0, len(log), n)]
    bounds = (plan.tick_ms, plan.max_ahead_ms, plan.max_late_ms)
    taken = Extract.of(batches, part, plan.catalog, n_sensors=plan.catalog.n_sensors, bounds=bounds)
    whole = Line(plan).judge(log)
    return taken, whole[whole["source"] == source]


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    names = [name for name in expected.dtype.names or () if name not in ("spare", "contributor")]
    for name in names:
        assert found[name].tolist() == expected[name].tolist(), name
    for name in ("sensor", "percent", "kind", "level", "window"):
        assert found["contributor"][name].tolist() == expected["contributor"][name].tolist(), name
    np.testing.assert_array_equal(found["contributor"]["value"], expected["contributor"]["value"])


@settings(max_examples=150, deadline=None)
@given(worlds(120), st.integers(0, 5), st.sampled_from([1, 7, 1000]))
def test_a_source_does_in_its_part_of_the_log_what_it_does_in_the_whole(
    of: World, source: int, n: int
) -> None:
    source %= of.plan.catalog.n_sources
    taken, expected = cut(of, source, n)
    assert_same(taken.run(sub_plan(of.plan, taken.part)), expected)


@pytest.mark.parametrize("seed", range(20))
def test_so_it_is_in_long_logs(seed: int) -> None:
    of = world(Random(seed), 1500)
    for source in range(of.plan.catalog.n_sources):
        taken, expected = cut(of, source, 400)
        assert_same(taken.run(sub_plan(of.plan, taken.part)), expected)


@settings(max_examples=100, deadline=None)
@given(worlds(100))
def test_admission_counts_refusals_as_the_line_does(of: World) -> None:
    plan, log = of.plan, columns(of.records)
    line = Line(plan)
    admission = Admission(plan.catalog.n_sensors, plan.max_ahead_ms, plan.max_late_ms)
    n_refused = 0
    for at in range(len(log)):
        one = log.cut(at, at + 1)
        line.judge(one)
        admitted, lag = admission.take(one)
        assert admission.watermark_ms == line.watermark_ms
        n_refused += int(not admitted[0])
        if admitted[0] and 0 <= one.sensor[0] < plan.catalog.n_sensors:
            assert lag[0] == line.watermark_ms - one.event_ms[0]
    counts = line.counts
    times = counts["time_ahead"] + counts["time_too_late"] + counts["time_out_of_bounds"]
    # an acknowledge with a time out of bounds and a stranger's reading are not counted as such
    strangers = sum(
        (r.sensor == -2 or r.sensor < -2 or r.sensor >= plan.catalog.n_sensors)
        and not 0 <= r.event_ms < 4_102_444_800_000
        for r in of.records
    )
    acknowledged = sum(
        r.sensor == -2 and not 0 <= r.event_ms < 4_102_444_800_000 for r in of.records
    )
    assert n_refused == times + strangers - acknowledged


def test_a_run_with_wrong_clocks_is_walked_to_the_same_end() -> None:
    event_ms = [1000, 90_000, 2000, 95_000, 3000, 500, 13_000, 24_000]
    whole = Admission(1, 10_000, 2_000)
    admitted, lag = whole.take(Readings.of([0] * 8, event_ms, [0.0] * 8))
    assert admitted.tolist() == [True, False, True, False, True, False, True, False]
    assert lag.tolist()[0] == 0 and whole.watermark_ms == 13_000
    assert Admission(1, 1, 1).watermark_ms == NEVER


VARIATIONS = {
    "as it is": RULES,
    "another delay": RULES.replace("off_delay_s = 10", "off_delay_s = 10\non_delay_s = 3"),
    "slower fading": RULES.replace("half_life_s = 5", "half_life_s = 40"),
    "stronger pipes": RULES.replace("pipe = 0.5", "pipe = 1.0"),
    "higher limits": RULES.replace("blue = 10, yellow = 20", "blue = 14, yellow = 26"),
}


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("source", ["well-1", "well-2", "plant"])
def test_an_extract_taken_under_some_rules_judges_others(
    tmp_path: Path, variation: str, source: str
) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=4000))
    number = past.catalog.source_index(source)
    taken = extract(past, Rules.parse(RULES), [number])
    rules = Rules.parse(VARIATIONS[variation])
    whole = judge(past, rules).transitions
    expected = whole[whole["source"] == number]
    assert len(expected)
    assert_same(taken.judge(rules), expected)


def test_an_extract_holds_the_source_what_couples_into_it_and_the_ticks(tmp_path: Path) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=2000))
    catalog = past.catalog
    taken = extract(past, Rules.parse(RULES), [catalog.source_index("well-2")])
    names = [taken.catalog.source_id[at].as_py() for at in range(taken.catalog.n_sources)]
    assert sorted(names) == ["well-1", "well-2"]
    assert sorted(taken.catalog.sensor_id.to_pylist()) == ["well-1/ch4", "well-1/t", "well-2/ch4"]
    assert set(taken.log.sensor.tolist()) == {-1, 0, 1, 2}
    alone = extract(past, Rules.parse(RULES), [catalog.source_index("well-1")])
    assert alone.catalog.n_sources == 1
    assert taken.n_refused == 0


def test_other_times_are_refused_for_an_extract(tmp_path: Path) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=200))
    taken = extract(past, Rules.parse(RULES), [0])
    with pytest.raises(ValueError, match="tick_s, max_ahead_s and max_late_s must be those"):
        taken.judge(Rules.parse(RULES.replace("tick_s = 10", "tick_s = 5")))


def test_direct_neighbours_alone_are_not_always_enough() -> None:
    # a neighbour's neighbour has the neighbour judged, and from then on a late signal of it fades
    of = world(Random(82), 1500)
    near, expected = cut(of, 5, 1500, hops=1)
    assert len(near.part.sources) < len(cut(of, 5, 1500)[0].part.sources)
    with pytest.raises(AssertionError):
        assert_same(near.run(sub_plan(of.plan, near.part)), expected)

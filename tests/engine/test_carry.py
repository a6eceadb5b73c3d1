"""Carry-over under other rules: what did not change goes on as if nothing had happened."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import snapshot
from engine.carry import Held, carry, take_over
from engine.pipeline import Pipeline
from engine.state import State
from kernels.layout import (
    ABSENCE,
    FLAG_ACTIVE,
    HIGH,
    LOW,
    N_LEVELS,
    RISE,
    TICK,
    WINDOW,
)
from tests.engine.test_partitions import log_of, n_partitions
from tests.engine.test_snapshot import parts_of
from tests.kernel_line import columns
from tests.oracle import Record
from tests.plans import START_MS, make_plan, one_sensor_plan, params_row, window_row
from tests.worlds import World, random_plan, steered, world

N = 80
RULES = ("params", "row", "window_params", "absent_ms", "more_start", "season_start")


def other_plan(plan: Any, **changes: Any) -> SimpleNamespace:
    """Return a plan of the same catalog in which only some things differ."""
    new = SimpleNamespace(**{**vars(plan), **changes})
    rows = new.params[new.row] if len(new.row) else new.params[:0]
    new.more_start = starts(np.maximum(rows["n_windows"] - 1, 0))
    new.season_start = starts(rows["season_bins"])
    rules = vars(plan.rules)
    new.rules = SimpleNamespace(**{**rules, "digest": "e" * 32})
    return new


def starts(counts: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def cosmetic(rng: Random, plan: Any) -> SimpleNamespace:
    """Return the same rules in another order: rows, windows of rows, terms and their bits."""
    order = rng.sample(range(len(plan.params)), len(plan.params))
    params, windows = plan.params[order].copy(), [plan.window_params[:0]]
    for row in params:
        first, n = int(row["first_window"]), int(row["n_windows"])
        row["first_window"] = sum(map(len, windows))
        windows.append(plan.window_params[first : first + n])
    row = np.argsort(order)[plan.row].astype(np.uint32)
    bits = rng.sample(range(len(plan.terms)), len(plan.terms))
    rules = plan.signal_rules.copy()
    for rule in rules:
        for key in ("all", "any", "none"):
            word = sum(1 << new for new, old in enumerate(bits) if int(rule[key]) >> old & 1)
            rule[key] = word - (1 << 64) if word >> 63 else word
    return other_plan(
        plan,
        params=params,
        row=row,
        window_params=np.concatenate(windows),
        terms=plan.terms[bits],
        signal_rules=rules,
    )


def edited(rng: Random, plan: Any, sensors: Any) -> SimpleNamespace:
    """Return rules under which some sensors have parameters drawn anew, or a little changed."""
    drawn, _ = random_plan(rng)
    params = drawn.params.copy()
    params["first_window"] += len(plan.window_params)
    params = np.concatenate([plan.params, params])
    row, absent_ms = plan.row.copy(), plan.absent_ms.copy()
    for sensor in sensors:
        if rng.random() < 0.5:
            row[sensor] = rng.randrange(len(plan.params), len(params))
        else:  # some fields of another row: limits, delays, weights
            mixed = params[[row[sensor]]].copy()
            for name in rng.sample(["high", "low", "deadband", "on_ms", "percent", "rise", "z"], 3):
                mixed[name] = params[rng.randrange(len(params))][name]
            row[sensor] = len(params)
            params = np.concatenate([params, mixed])
        absent_ms[sensor] = rng.choice([absent_ms[sensor], 0, 2000, 20_000])
    quiet(params)
    window_params = np.concatenate([plan.window_params, drawn.window_params])
    changes = {"params": params, "row": row, "window_params": window_params}
    if rng.random() < 0.3:
        changes["contexts"] = drawn.contexts
    return other_plan(plan, absent_ms=absent_ms, **changes)


def quiet(params: Any) -> None:
    from engine.plan_params import set_quiet

    set_quiet(params)


def switched(case: World, new: Any, cut: int, partition: int | None = None) -> tuple[Any, Pipeline]:
    """Judge a log under the world's plan up to a cut, then under another; return what came out."""
    records = case.records if partition is None else log_of(case, partition)
    line = Pipeline(case.plan, partition=partition)
    before = line.judge(columns(records[:cut]))
    line = carry(line, new, State.allocate(new))
    return np.concatenate([before, line.judge(columns(records[cut:]))]), line


def assert_same_line(one: Pipeline, other: Pipeline) -> None:
    """Compare everything that is remembered, but for the numbers of rows."""
    assert one.counts == other.counts
    assert one.position == other.position
    mine, twin = parts_of(one), parts_of(other)
    for line, parts in ((one, mine), (other, twin)):
        lines = np.frombuffer(bytearray(parts["lines"]), line.state.lines.dtype)
        lines[:: line.state.stride]["row"] = 0
        parts["lines"] = lines.tobytes()
    assert mine == twin


@given(steered(lambda rng: (world(rng, N), rng)), st.integers(0, N))
def test_cosmetic_edit_is_no_edit_to_the_byte(drawn, cut):
    case, rng = drawn
    plain = Pipeline(case.plan)
    expected = plain.judge(columns(case.records))
    found, line = switched(case, cosmetic(rng, case.plan), cut)
    assert found.tobytes() == expected.tobytes()
    assert_same_line(line, plain)


def test_seeded_corpus_of_cosmetic_edits_has_something_to_say():
    n = 0
    for seed in range(40):
        rng = Random(seed)
        case = world(rng, 150)
        expected = Pipeline(case.plan).judge(columns(case.records))
        cut = rng.randint(0, 150)
        found, _ = switched(case, cosmetic(rng, case.plan), cut)
        assert found.tobytes() == expected.tobytes()
        n += len(found)
    assert n > 300


@given(steered(lambda rng: (world(rng, N), rng)), st.integers(0, N))
def test_edit_elsewhere_does_not_change_what_others_say(drawn, cut):
    case, rng = drawn
    city = case.plan.catalog
    partition = rng.randrange(n_partitions(case))
    first, last = city.partition_start[partition : partition + 2]
    sensors = range(city.sensor_start[first], city.sensor_start[last])
    new = edited(rng, case.plan, sensors)
    new.contexts = case.plan.contexts
    plain = Pipeline(case.plan)
    expected = plain.judge(columns(case.records))
    found, _ = switched(case, new, cut)
    elsewhere = [(t["source"] < first) | (t["source"] >= last) for t in (found, expected)]
    assert found[elsewhere[0]].tobytes() == expected[elsewhere[1]].tobytes()


@given(steered(lambda rng: (world(rng, N), rng)), st.integers(0, N))
def test_any_edit_leaves_a_sound_state(drawn, cut):
    case, rng = drawn
    sensors = [s for s in range(case.plan.catalog.n_sensors) if rng.random() < 0.7]
    new = edited(rng, case.plan, sensors)
    line = Pipeline(case.plan)
    line.judge(columns(case.records[:cut]))
    before = line.state.source.copy()
    line = carry(line, new, State.allocate(new))
    assert_sound(line)
    for name in ("level", "episode_ms", "seq", "last_ms", "score"):
        assert (line.state.source[name] == before[name]).all()
    line.judge(columns(case.records[cut:]))
    assert_sound(line)


def assert_sound(line: Pipeline) -> None:
    """Check that what is remembered is what the line's own parameters could have led to."""
    hot, cold, signal = line.state.hot, line.state.cold, line.state.signal
    rows = line.plan.params[line.plan.row]
    assert (hot["row"] == line.plan.row).all()
    assert (cold["levels"] == signal["levels"]).all()
    for k in range(N_LEVELS):
        assert np.isfinite(rows["high"][:, k])[hot["latched"] >> k & 1 == 1].all()
        assert np.isfinite(rows["low"][:, k])[hot["latched"] >> (4 + k) & 1 == 1].all()
    for kind, shift in ((HIGH, 0), (LOW, 4)):
        bits = hot["latched"] >> shift & 15
        level = np.array([int(b).bit_length() for b in bits])
        assert (cold["levels"] >> 3 * kind & 7 == level).all()
    busy = (cold["levels"] != 0) | (hot["latched"] != 0) | (hot["pending"] != 0)
    busy |= (cold["n_rate"] != 0) | (cold["n_deviation"] != 0)
    assert ((hot["flags"] & FLAG_ACTIVE != 0) == busy).all()
    windowed = cold["levels"] >> 3 * WINDOW & 7 > 0
    assert (rows["n_windows"][windowed] > (signal["which"] & 15)[windowed]).all()
    fading = (signal["which"] >> 4 == WINDOW) & (signal["held"] > 0)
    assert (rows["n_windows"][fading] > (signal["which"] & 15)[fading]).all()
    assert (line.plan.absent_ms[cold["levels"] >> 3 * ABSENCE & 7 > 0] > 0).all()


@given(steered(lambda rng: (world(rng, N), rng)), st.integers(0, N), st.integers(1, 3))
def test_carried_state_goes_on_from_its_snapshot(tmp_path_factory, drawn, cut, threads):
    case, rng = drawn
    uri = str(tmp_path_factory.mktemp("snapshots", numbered=True) / "one.snapshot")
    new = edited(rng, case.plan, range(case.plan.catalog.n_sensors))
    line = Pipeline(case.plan)
    line.judge(columns(case.records[:cut]))
    snapshot.save(uri, line)
    carried = carry(line, new, State.allocate(new))
    late = Pipeline(new, threads)
    report = take_over(Held.of(snapshot.read(uri), case.plan), late)
    assert report.n_kept + report.n_adapted == case.plan.catalog.n_sensors
    snapshot.save(uri, carried)
    again = Pipeline(new, threads)
    snapshot.load(uri, again)
    rest = columns(case.records[cut:])
    expected = carried.judge(rest).tobytes()
    assert again.judge(rest).tobytes() == expected
    assert late.judge(rest).tobytes() == expected
    assert parts_of(again) == parts_of(carried) == parts_of(late)


@given(steered(lambda rng: (world(rng, N), rng)), st.integers(0, N))
def test_partition_carries_its_state_as_the_whole_line_does(drawn, cut):
    case, rng = drawn
    new = edited(rng, case.plan, range(case.plan.catalog.n_sensors))
    for partition in range(n_partitions(case)):
        found, line = switched(case, new, cut, partition)
        log = log_of(case, partition)
        whole = Pipeline(case.plan)
        before = whole.judge(columns(log[:cut]))
        whole = carry(whole, new, State.allocate(new))
        after = whole.judge(columns(log[cut:]))
        assert found.tobytes() == np.concatenate([before, after]).tobytes()
        assert line.counts == whole.counts


# One sensor at a time

TIMES = [START_MS + 1000 * i for i in range(60)]


def held_line(plan: Any, values: list[float]) -> Pipeline:
    line = Pipeline(plan)
    line.judge(columns([Record(0, TIMES[i], v) for i, v in enumerate(values)]))
    return line


def carried_line(line: Pipeline, plan: Any) -> Pipeline:
    return carry(line, plan, State.allocate(plan))


def level(line: Pipeline, kind: int) -> int:
    return int(line.state.cold["levels"][0]) >> 3 * kind & 7


def tick(line: Pipeline, second: int) -> list[tuple[int, int]]:
    """Return the transitions of a tick as (level from, level)."""
    found = line.judge(columns([Record(TICK, TIMES[second])]))
    return [(int(t["level_from"]), int(t["level"])) for t in found]


def test_latch_of_a_level_that_is_gone_opens_and_the_next_tick_says_so():
    line = held_line(one_sensor_plan(params_row(high=[10, 20, 30, np.inf])), [25.0])
    assert level(line, HIGH) == 2
    line = carried_line(line, one_sensor_plan(params_row(high=[10, np.inf, 30, np.inf])))
    assert level(line, HIGH) == 1
    assert tick(line, 1) == [(2, 1)]
    assert int(line.state.source["seq"][0]) == 2  # the same episode


def test_latch_under_a_higher_limit_stays_until_a_reading_is_inside():
    line = held_line(one_sensor_plan(params_row(high=[10, 20, 30, 40])), [25.0])
    line = carried_line(line, one_sensor_plan(params_row(high=[30, 40, 50, 60])))
    assert level(line, HIGH) == 2
    assert tick(line, 1) == []
    line.judge(columns([Record(0, TIMES[2], 25.0)]))
    assert level(line, HIGH) == 0


def test_lower_limit_closes_no_latch_before_the_next_reading():
    line = held_line(one_sensor_plan(params_row(high=[30, 40, 50, 60])), [25.0])
    line = carried_line(line, one_sensor_plan(params_row(high=[10, 20, 50, 60])))
    assert tick(line, 1) == []
    line.judge(columns([Record(0, TIMES[2], 25.0)]))
    assert level(line, HIGH) == 2


def test_running_delay_goes_on_under_the_same_limit_and_begins_anew_under_another():
    def plan(**fields: Any) -> Any:
        return one_sensor_plan(params_row(high=[10, *[np.inf] * 3], **fields))

    for changed, latches in (({"quantity": 1, "spike_at": 99.0}, 1), ({}, 0)):
        line = held_line(plan(on_ms=[3000] * 4), [15.0, 15.0, 15.0])
        new = plan(on_ms=[3000] * 4, **changed)
        if not changed:
            new.params["high"][0, 0] = 11
            quiet(new.params)
        line = carried_line(line, new)
        line.judge(columns([Record(0, TIMES[3], 15.0)]))
        assert level(line, HIGH) == latches


def test_removed_detector_takes_its_signal_and_what_fades_of_it_along():
    row = {"half_ms": 500, "rate_confirm_n": 0}
    line = held_line(one_sensor_plan(params_row(rise=[0.001, *[np.inf] * 3], **row)), [0, 5, 10])
    assert level(line, RISE) == 1
    line = carried_line(line, one_sensor_plan(params_row()))
    assert level(line, RISE) == 0
    assert int(line.state.signal["held"][0]) == 0
    assert tick(line, 4) == [(1, 0)]


def test_window_whose_limits_changed_keeps_its_readings():
    old = one_sensor_plan(params_row(), [window_row(aggregate=2, high=[100, *[np.inf] * 3])])
    new = one_sensor_plan(
        params_row(), [window_row(aggregate=2, high=[20, *[np.inf] * 3], min_n=3)]
    )
    line = carried_line(held_line(old, [30.0, 30.0]), new)
    assert level(line, WINDOW) == 0
    line.judge(columns([Record(0, TIMES[2], 30.0)]))
    assert level(line, WINDOW) == 1


def test_window_of_other_panes_begins_anew():
    old = one_sensor_plan(params_row(), [window_row(aggregate=2, high=[20, *[np.inf] * 3])])
    other = window_row(aggregate=2, pane_ms=2000, high=[20, *[np.inf] * 3], min_n=2)
    line = carried_line(held_line(old, [30.0, 30.0]), one_sensor_plan(params_row(), [other]))
    assert level(line, WINDOW) == 0
    line.judge(columns([Record(0, TIMES[2], 30.0)]))
    assert level(line, WINDOW) == 0  # one reading in the ring
    line.judge(columns([Record(0, TIMES[3], 30.0)]))
    assert level(line, WINDOW) == 1


def test_baseline_is_kept_when_its_limits_change():
    fields = {"memory_n": 100, "warmup_n": 5, "min_deviation": 0.1}
    old = one_sensor_plan(params_row(z=[9, *[np.inf] * 3], **fields))
    new = one_sensor_plan(params_row(z=[4, *[np.inf] * 3], **fields))
    line = held_line(old, [10.0, 10.2] * 10)
    before = line.state.hot.copy()
    line = carried_line(line, new)
    for name in ("mean", "deviation", "n", "anchor", "last", "older"):
        assert line.state.hot[name] == before[name]


def test_values_follow_the_profiles_unit():
    fields = {"memory_n": 100, "warmup_n": 5}
    line = held_line(one_sensor_plan(params_row(**fields)), [10.0, 12.0, 11.0])
    mean = float(line.state.hot["anchor"][0]) + float(line.state.hot["mean"][0])
    new = one_sensor_plan(params_row(scale=1.8, offset=32.0, **fields))
    line = carried_line(line, new)
    hot = line.state.hot[0]
    assert float(hot["anchor"]) + float(hot["last"]) == pytest.approx(11.0 * 1.8 + 32)
    assert float(hot["anchor"]) + float(hot["mean"]) == pytest.approx(mean * 1.8 + 32)


def test_absence_ends_where_the_rules_allow_a_longer_silence():
    line = held_line(one_sensor_plan(params_row(), absent_ms=3000), [1.0])
    assert tick(line, 5) == [(0, 1)]
    longer = carried_line(line, one_sensor_plan(params_row(), absent_ms=10_000))
    assert level(longer, ABSENCE) == 0
    assert tick(longer, 6) == [(1, 0)]
    assert tick(longer, 12) == [(0, 1)]
    louder = carried_line(line, one_sensor_plan(params_row(absence_level=3), absent_ms=3000))
    assert tick(louder, 6) == [(1, 3)]


def test_source_is_judged_by_new_levels_at_the_next_tick():
    plan = one_sensor_plan(params_row(high=[10, 20, 30, 40], floor=0))
    line = held_line(plan, [25.0])
    new = other_plan(plan, category=plan.category.copy())
    new.category["raise_at"] = [10, 20, 45, 90]
    line = carried_line(line, new)
    assert tick(line, 1) == [(2, 3)]


def test_context_in_force_at_the_switch_counts_at_the_next_tick():
    from kernels.layout import CONTEXT

    plan = one_sensor_plan(params_row(high=[10, 20, 30, 40], floor=0))
    line = held_line(plan, [25.0])
    context = np.zeros(1, CONTEXT)
    context["from_ms"], context["to_ms"] = START_MS - 1000, TIMES[30]
    context["categories"], context["district"], context["factor"] = -1, -1, 1.5
    line = carried_line(line, other_plan(plan, contexts=context))
    assert tick(line, 1) == [(2, 3)]
    assert tick(line, 31) == [(3, 2)]  # and its end is not missed


def test_removed_rule_lets_go_of_its_floor():
    from kernels.layout import SIGNAL_RULE, TERM

    terms, rules = np.zeros(1, TERM), np.zeros(1, SIGNAL_RULE)
    terms["level"] = rules["all"] = 1
    rules["level"], rules["categories"] = 4, -1
    row = params_row(high=[10, 20, 30, 40])
    plan = make_plan(row, [], rows=[0], absent_ms=[0], counts=[1], terms=terms, signal_rules=rules)
    line = held_line(plan, [15.0])
    assert int(line.state.source["level"][0]) == 4
    line = carried_line(line, other_plan(plan, signal_rules=rules[:0], terms=terms[:0]))
    assert tick(line, 1) == [(4, 1)]

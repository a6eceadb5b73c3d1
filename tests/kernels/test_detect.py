"""The line loop: what it refuses and counts, all detectors at once, batches, extremes."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import (
    ACKNOWLEDGE,
    COUNT_NAMES,
    DEVIATION,
    KIND_NAMES,
    MAX_EVENT_MS,
    MEAN,
    TICK,
    UNKNOWN,
    WINDOW,
)
from tests.kernel_line import Line, assert_detects_as_oracle, of_kernel, split
from tests.oracle import Oracle, Record
from tests.plans import NONE, START_MS, one_sensor_plan, params_row, window_row
from tests.worlds import random_plan, random_value, steered, world, worlds

N_SEEDS = 40 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 150


@given(worlds(), st.lists(st.integers(0, 80), max_size=4))
def test_all_detectors_at_once_are_as_the_oracle_says(case, cuts):
    assert_detects_as_oracle(case.plan, case.records, cuts)


def test_seeded_corpus_is_as_the_oracle_says():
    for seed in range(N_SEEDS):
        case = world(Random(seed), 150)
        # long batches take the quiet path, short ones never do
        assert_detects_as_oracle(case.plan, case.records, range(0, 150, 7) if seed % 2 else ())


def test_seeded_corpus_reaches_every_kind_and_every_reason():
    # worlds that never raise a drift would prove nothing about drift
    kinds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for seed in range(N_SEEDS):
        case = world(Random(seed), 150)
        oracle = Oracle(case.plan)
        oracle.push_all(case.records)
        counts.update(oracle.counts)
        for change in oracle.changes:
            kinds.update(
                name for name, level in zip(KIND_NAMES, change.levels, strict=True) if level
            )
    assert [name for name in KIND_NAMES if kinds[name] < 5] == []
    assert [name for name in COUNT_NAMES if counts[name] < 5] == []


@given(worlds(), st.lists(st.integers(0, 80), max_size=8))
def test_changes_do_not_depend_on_batches(case, cuts):
    whole = Line(case.plan)
    at_once = of_kernel(whole.detect_all(case.records))
    pieces = Line(case.plan)
    in_pieces = [
        c for batch in split(case.records, cuts) for c in of_kernel(pieces.detect_all(batch))
    ]
    assert in_pieces == at_once
    assert pieces.counts == whole.counts


def test_one_reading_at_a_time_gives_what_one_batch_gives():
    for seed in range(10):
        case = world(Random(seed), 150)
        at_once = of_kernel(Line(case.plan).detect_all(case.records))
        single = Line(case.plan)
        assert [c for r in case.records for c in of_kernel(single.detect_all([r]))] == at_once


def plain_counts(records: list[Record], **limits_ms: Any) -> dict[str, int]:
    """Return the counts that are not zero, of a sensor without any detector."""
    plan = one_sensor_plan(params_row(range_low=-50, range_high=50), **limits_ms)
    line = assert_detects_as_oracle(plan, records)
    return {name: n for name, n in line.counts.items() if n}


def test_times_out_of_bounds_are_counted_and_move_nothing():
    odd = [-1, -(2**63), 2**63 - 1, MAX_EVENT_MS, 2**62]
    records = [Record(0, t, 1.0) for t in odd] + [Record(TICK, t) for t in odd]
    records += [Record(ACKNOWLEDGE, t, 0.0) for t in odd]
    records += [Record(0, 0, 1.0), Record(0, MAX_EVENT_MS - 1, 1.0)]
    assert plain_counts(records) == {"time_out_of_bounds": 15, "accepted": 2}


def test_reading_far_ahead_of_the_watermark_is_refused_and_does_not_move_it():
    records = [Record(0, START_MS, 1.0), Record(0, START_MS + 1001, 1.0)]
    records += [Record(0, START_MS + 1000, 1.0)]
    assert plain_counts(records, max_ahead_ms=1000) == {"accepted": 2, "time_ahead": 1}


def test_tick_may_jump_any_distance():
    records = [Record(0, START_MS, 1.0), Record(TICK, START_MS + 10**9), Record(0, START_MS, 2.0)]
    counts = plain_counts(records, max_ahead_ms=1000, max_late_ms=10**6)
    assert counts == {"accepted": 1, "ticks": 1, "time_too_late": 1}


def test_reading_behind_the_watermark_is_late_and_still_taken():
    # the other sensor's clock, or the tick, is ahead
    records = [Record(TICK, START_MS + 60_001), Record(0, START_MS, 1.0)]
    assert plain_counts(records) == {"accepted": 1, "late": 1, "ticks": 1}
    records = [Record(TICK, START_MS + 60_000), Record(0, START_MS, 1.0)]
    assert plain_counts(records) == {"accepted": 1, "ticks": 1}


def test_backward_reading_is_counted_once_whatever_else_is_wrong_with_it():
    records = [Record(0, START_MS, 1.0)]
    records += [
        Record(0, START_MS - 1, v, q) for v, q in ((1.0, 0), (np.nan, 0), (99.0, 0), (1.0, 7))
    ]
    assert plain_counts(records) == {"accepted": 1, "backward": 4}


def test_bad_readings_are_counted_by_their_first_reason():
    records = [
        Record(0, START_MS, np.nan, 1),
        Record(0, START_MS, np.nan),
        Record(0, START_MS, -np.inf),
        Record(0, START_MS, 50.01),
        Record(0, START_MS, 50.0),
        Record(0, START_MS, 50.0),
    ]
    counts = {"bad_quality": 1, "not_finite": 2, "out_of_range": 1, "accepted": 1, "duplicate": 1}
    assert plain_counts(records) == counts


def test_unknown_sensors_are_counted_before_anything_else_is_looked_at():
    records = [Record(s, -5, np.nan, 9) for s in (UNKNOWN, -7, -(2**31), 1, 2**31 - 1)]
    assert plain_counts(records) == {"unknown_sensor": 5}


def test_same_time_and_another_value_is_a_reading_like_any_other():
    records = [Record(0, START_MS, 1.0), Record(0, START_MS, 2.0), Record(0, START_MS, 1.0)]
    assert plain_counts(records) == {"accepted": 3}


def test_values_are_converted_before_anything_is_compared():
    # 68 degF is 20 degC: the limit is in the profile's unit, and so is the value that is shown
    row = params_row(scale=5 / 9, offset=-160 / 9, high=[19.9, np.inf, np.inf, np.inf])
    plan = one_sensor_plan(row)
    (change,) = of_kernel(Line(plan).detect_all([Record(0, START_MS, 68.0)]))
    assert abs(change["value"] - 20.0) < 1e-12


def extremes(rng: Random) -> tuple[SimpleNamespace, list[Record]]:
    """Draw a plan with the widest range, and a log of what should never come."""
    plan, _ = random_plan(rng)
    plan.params["range_low"], plan.params["range_high"] = -1e30, 1e30
    plan.params["scale"] = rng.choice([1.0, 10.0, 1e-300])
    times = [0, 1, -1, 2**63 - 1, -(2**63), MAX_EVENT_MS - 1, MAX_EVENT_MS, START_MS]
    values = [1.7e308, -1.7e308, 5e-324, 1e39, -1e39, 1e29, 0.0, -0.0, np.nan, np.inf]
    records = [
        Record(
            rng.randrange(plan.catalog.n_sensors),
            rng.choice(times),
            rng.choice([*values, random_value(rng, 0.0)]),
        )
        for _ in range(40)
    ]
    return plan, records


@given(steered(extremes))
def test_extreme_values_and_times_are_bounded_and_counted(drawn):
    plan, records = drawn
    line = assert_detects_as_oracle(plan, records)
    assert sum(line.counts[name] for name in COUNT_NAMES[:10]) == len(records)
    floats = [line.state.hot[name] for name in ("anchor", "last", "mean", "deviation", "older")]
    assert all(np.isfinite(column).all() for column in floats)


@pytest.mark.parametrize("absurd", [1e39, -1.7e308, 1e31])
def test_absurd_value_does_not_blind_a_sensor_for_ever(absurd):
    fields = {"memory_n": 16, "warmup_n": 4, "min_deviation": 0.5, "z": [4, *NONE[1:]]}
    window = window_row(aggregate=MEAN, high=[20, *NONE[1:]])
    plan = one_sensor_plan(params_row(**fields), [window])
    values = [7.0] * 3 + [absurd] + [7.0] * 20 + [99.0]
    records = [Record(0, START_MS + 1000 * i, v) for i, v in enumerate(values)]
    assert_detects_as_oracle(plan, records)
    changes = of_kernel(Line(plan).detect_all(records))
    assert changes[-1]["position"] == 24
    assert changes[-1]["levels"][DEVIATION] == changes[-1]["levels"][WINDOW] == 1

"""Rate: two anchors half a window apart; kernel against oracle and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from kernels.layout import FALL, RISE
from tests.kernel_line import Line, assert_detects_as_oracle, levels_of
from tests.oracle import Record
from tests.plans import NONE, START_MS, one_sensor_plan, params_row
from tests.worlds import BASES, random_series, rate_fields, steered

ONE_PER_S = {"rise": [0.001, *NONE[1:]], "fall": [0.001, *NONE[1:]]}


def drawn(rng: Random) -> tuple[Any, list[Record], list[int]]:
    """Draw a plan with rates alone, a log, and cuts of it."""
    base = rng.choice(BASES)
    row = params_row(range_low=-1e8, range_high=1e8, **rate_fields(rng))
    return one_sensor_plan(row), random_series(rng, base, 60), [rng.randrange(60) for _ in range(3)]


@given(steered(drawn))
def test_kernel_rates_as_the_oracle_does(case):
    plan, records, cuts = case
    assert_detects_as_oracle(plan, records, cuts)


def rise_levels(
    points: Sequence[tuple[float, float]], kind: int = RISE, **fields: Any
) -> list[int]:
    """Return the level after each (second, value)."""
    records = [Record(0, START_MS + round(s * 1000), v) for s, v in points]
    plan = one_sensor_plan(params_row(**{"half_ms": 2000, **ONE_PER_S, **fields}))
    return levels_of(Line(plan), records, kind)


def test_no_rate_before_the_base_is_half_a_window_old():
    # t     0    1    2      half a window = 2 s
    # v     0    9    9      4.5 a second only once the base is 2 s old
    assert rise_levels([(0, 0), (1, 9), (2, 9)]) == [0, 0, 1]


def test_base_of_a_rate_is_half_a_window_to_a_window_old():
    # t        0   1   2   3   4   5   6
    # v        0   0   0   0   3   3   3
    # anchor   0 ----- 2 ----- 4 ----- 6
    # base     .   .   0   0   0   2   2   4 s old at t = 4: 3/4; 3 s old at t = 5: 3/3
    points = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 3), (5, 3), (6, 3)]
    assert rise_levels(points) == [0, 0, 0, 0, 0, 1, 0]


def test_sparse_readings_are_compared_with_the_one_before_the_last():
    # t     0    100  200  300    every reading is half a window after the one before
    # v     0    50   151  251
    # base       0    0    50     0.5 a second, 0.755, 1.005
    assert rise_levels([(0, 0), (100, 50), (200, 151), (300, 251)]) == [0, 0, 0, 1]


def test_fall_mirrors_rise():
    assert rise_levels([(0, 0), (2, -2), (4, -4)], kind=FALL) == [0, 1, 1]
    assert rise_levels([(0, 0), (2, -2), (4, -4)], kind=RISE) == [0, 0, 0]


def test_confirmation_counts_consecutive_readings_beyond():
    # t     0   2   4   6   8   10
    # v     0   4   4   4   8   12
    # rate  .   2   1   0   1   2       two in a row are not enough, nor do they count later
    points = [(0, 0), (2, 4), (4, 4), (6, 4), (8, 8), (10, 12), (12, 16)]
    assert rise_levels(points, rate_confirm_n=3) == [0, 0, 0, 0, 0, 0, 1]


def test_confirmed_level_changes_freely():
    # 1 a second confirmed twice, then 9 a second: red at once, and down at once
    limits: dict[str, Any] = {"rise": [0.001, np.inf, np.inf, 0.004], "rate_confirm_n": 2}
    points = [(0, 0), (2, 2), (4, 4), (6, 40), (8, 42)]
    assert rise_levels(points, **limits) == [0, 0, 1, 4, 4]


def test_bad_reading_keeps_the_count_of_confirmations():
    points = [(0, 0), (2, 4), (3, np.nan), (4, 8)]
    assert rise_levels(points, rate_confirm_n=2) == [0, 0, 0, 1]


def test_rate_deadband_holds_the_level():
    # 1.0, 0.9 (inside the deadband of 0.2), 0.7
    limits: dict[str, Any] = {"rate_deadband": 0.0002, "half_ms": 1000}
    points = [(0, 0), (100, 100), (200, 190), (300, 260)]
    assert rise_levels(points, **limits) == [0, 1, 1, 1]
    points = [(0, 0), (100, 100), (200, 190), (300, 260), (400, 330)]
    assert rise_levels(points, **limits)[-1] == 0


def test_first_good_reading_sets_both_anchors_though_bad_ones_came_before():
    # t  0    9   10
    # v  NaN  0   1       one a second; the nine seconds before the first good reading don't count
    points = [(0, np.nan), (9, 0), (10, 1)]
    assert rise_levels(points, half_ms=1000) == [0, 0, 1]


@pytest.mark.parametrize("offset", [0.0, 101_325.0, -4e6])
def test_small_changes_on_a_large_offset_keep_their_rate(offset):
    # 0.01 a second is the limit; 0.011 rises, 0.009 doesn't
    limits: dict[str, Any] = {"rise": [0.00001, *NONE[1:]], "half_ms": 1000}
    quick = [(i, offset + 0.011 * i) for i in range(20)]
    slow = [(i, offset + 0.009 * i) for i in range(20)]
    assert rise_levels(quick, **limits)[1:] == [1] * 19
    assert rise_levels(slow, **limits) == [0] * 20


def test_ages_saturate_over_a_gap_of_months():
    # 90 days are taken for 49.7: the rate is a little too high, never negative or wrapped
    days = 86_400
    limits: dict[str, Any] = {"rise": [2.0 / (2**32 - 1), *NONE[1:]]}
    assert rise_levels([(0, 0), (90 * days, 1.9)], **limits) == [0, 0]
    assert rise_levels([(0, 0), (90 * days, 2.1)], **limits) == [0, 1]

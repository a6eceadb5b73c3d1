"""Deviation: robust z-score against the sensor's own past or its season; kernel against oracle."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from kernels.layout import DEVIATION
from tests.kernel_line import Line, assert_detects_as_oracle, levels_of
from tests.oracle import Record
from tests.plans import DAY_MS, NONE, START_MS, one_sensor_plan, params_row
from tests.worlds import BASES, deviation_fields, liveness_fields, random_series, steered

QUIET = {"memory_n": 100, "warmup_n": 4, "z": [4, 8, *NONE[2:]], "min_deviation": 0.5}


def drawn(rng: Random) -> tuple[Any, list[Record], list[int]]:
    """Draw a plan with deviation (and spikes, which share its refractory time), a log, and cuts."""
    base = rng.choice(BASES)
    fields = liveness_fields(rng) | deviation_fields(rng)
    fields |= {"bad_after_n": 0, "flat_after_n": 0, "half_ms": rng.choice([1, 3000])}
    row = params_row(range_low=-1e8, range_high=1e8, **fields)
    return one_sensor_plan(row), random_series(rng, base, 60), [rng.randrange(60) for _ in range(3)]


@given(steered(drawn))
def test_kernel_deviates_as_the_oracle_does(case):
    plan, records, cuts = case
    assert_detects_as_oracle(plan, records, cuts)


def deviation_levels(values: list[float], step_ms: int = 1000, **fields: Any) -> list[int]:
    """Return the level after each reading."""
    plan = one_sensor_plan(params_row(**{**QUIET, **fields}))
    records = [Record(0, START_MS + i * step_ms, v) for i, v in enumerate(values)]
    return levels_of(Line(plan), records, DEVIATION)


def test_nothing_is_unusual_during_warm_up():
    # n        0   1   2   3   4      warm-up: 4 readings
    # v        0   90  0   90  0
    assert deviation_levels([0.0, 90.0, 0.0, 90.0, 0.0]) == [0] * 5


def test_residual_is_compared_with_the_baseline_before_the_reading():
    # four readings at 7, then 7 + 4 × 0.5 (blue), + 8 × 0.5 (yellow)
    assert deviation_levels([7.0] * 4 + [9.0]) == [0] * 4 + [1]
    assert deviation_levels([7.0] * 4 + [11.0]) == [0] * 4 + [2]
    assert deviation_levels([7.0] * 4 + [8.99]) == [0] * 5


def test_noise_below_the_least_deviation_is_never_unusual():
    wiggle = [20 + 1e-6 * (-1) ** i for i in range(50)]
    assert deviation_levels([*wiggle, 20.4]) == [0] * 51


def test_outlier_hardly_moves_a_clipped_baseline():
    # 1e6 is clipped to 3 × 0.5: the mean goes up by 1.5 / 5, so 7 stays usual and 9.4 is still blue
    values = [7.0] * 4 + [1e6, 7.0, 9.8]
    assert deviation_levels(values) == [0] * 4 + [2, 0, 1]


def test_confirmation_wants_consecutive_readings_beyond():
    values = [7.0] * 8 + [12.0, 7.0, 12.0, 12.5]
    assert deviation_levels(values, deviation_confirm_n=2) == [0] * 11 + [2]


def test_deadband_is_in_mean_absolute_residuals():
    # limit 4, deadband 1: stays while |r| ≥ 3 s
    fields: dict[str, Any] = {
        "z": [4, *NONE[1:]],
        "z_deadband": 1.0,
        "memory_n": 60_000,
        "warmup_n": 300,
    }
    values = [7.0] * 300 + [9.01, 8.6, 8.4]
    assert deviation_levels(values, **fields)[-3:] == [1, 1, 0]


def test_refractory_time_keeps_a_second_anomaly_down_until_its_second():
    # refractory 5 s from t = 8
    # t  8   9  10  11  12  13
    # v  19  7  19  7   19  19
    #    #   .  .   .   .   #
    values = [7.0] * 8 + [19.0, 7.0, 19.0, 7.0, 19.0, 19.0]
    levels = deviation_levels(values, refractory_ms=5000)
    assert [level > 0 for level in levels[8:]] == [True, False, False, False, False, True]


def test_season_has_a_baseline_for_each_bin():
    # two bins a day: 10 before noon, 50 after it; a 50 before noon is unusual
    days = [10.0, 50.0] * 5
    fields: dict[str, Any] = {"season_bins": 2, "season_ms": DAY_MS}
    midnight = START_MS // DAY_MS * DAY_MS
    plan = one_sensor_plan(params_row(**QUIET, **fields))
    records = [Record(0, midnight + i * DAY_MS // 2, v) for i, v in enumerate([*days, 50.0, 50.0])]
    assert levels_of(Line(plan), records, DEVIATION) == [0] * 10 + [2, 0]


def test_season_turns_at_the_sites_midnight():
    # at UTC+8 the afternoon begins at 04:00 UTC
    fields: dict[str, Any] = {"season_bins": 2, "season_ms": DAY_MS, "utc_offset_ms": 8 * 3_600_000}
    midnight = START_MS // DAY_MS * DAY_MS
    hour_ms = 3_600_000
    records = [
        Record(0, midnight + day * DAY_MS + hour * hour_ms, v)
        for day in range(5)
        for hour, v in ((0, 10.0), (3, 10.0), (4, 50.0), (15, 50.0))
    ]
    plan = one_sensor_plan(params_row(**{**QUIET, "warmup_n": 2}, **fields))
    assert levels_of(Line(plan), records, DEVIATION) == [0] * 20
    plan = one_sensor_plan(params_row(**{**QUIET, "warmup_n": 2}, **fields | {"utc_offset_ms": 0}))
    assert max(levels_of(Line(plan), records, DEVIATION)) > 0


@pytest.mark.parametrize("offset", [0.0, 101_325.0, -4e6])
def test_hundredths_on_a_large_offset_keep_their_deviation(offset):
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.01, 400)
    fields: dict[str, Any] = {
        "min_deviation": 0.001,
        "memory_n": 200,
        "warmup_n": 100,
        "half_ms": 30_000,
    }
    values = [*(offset + noise), offset + 0.2]
    levels = deviation_levels(values, z=[8, *NONE[1:]], **fields)
    assert levels == [0] * 400 + [1]

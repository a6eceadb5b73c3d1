"""Drift: a two-sided CUSUM of the clipped residual; kernel against oracle and by hand."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given

from kernels.layout import DRIFT
from tests.kernel_line import Line, assert_detects_as_oracle, levels_of
from tests.oracle import Record
from tests.plans import NONE, START_MS, one_sensor_plan, params_row
from tests.worlds import BASES, deviation_fields, drift_fields, random_series, steered

# An old, stiff baseline: a mean that hardly moves, a scale of 1.
STIFF = {"memory_n": 60_000, "warmup_n": 100, "min_deviation": 1.0, "clip": 3.0, "allowance": 0.5}
WARM = [5.0] * 100


def drawn(rng: Random) -> tuple[Any, list[Record], list[int]]:
    """Draw a plan with drift on a baseline, a log, and cuts of it."""
    base = rng.choice(BASES)
    fields = deviation_fields(rng) | drift_fields(rng)
    fields |= {"refractory_ms": rng.choice([0, 2000]), "half_ms": rng.choice([1, 3000])}
    if rng.random() < 0.5:
        fields["z"] = NONE
    row = params_row(range_low=-1e8, range_high=1e8, **fields)
    return one_sensor_plan(row), random_series(rng, base, 60), [rng.randrange(60) for _ in range(3)]


@given(steered(drawn))
def test_kernel_drifts_as_the_oracle_does(case):
    plan, records, cuts = case
    assert_detects_as_oracle(plan, records, cuts)


def drift_levels(values: list[float], **fields: Any) -> list[int]:
    """Return the level after each reading that follows the warm-up."""
    plan = one_sensor_plan(params_row(**{**STIFF, **fields}))
    records = [Record(0, START_MS + i * 1000, v) for i, v in enumerate(WARM + values)]
    return levels_of(Line(plan), records, DRIFT)[len(WARM) :]


def test_small_steady_shift_adds_up():
    # each reading adds about 1 − 0.5: 0.5, 1.0, 1.5 … the baseline follows slowly, so a bit less
    # sum   0.5  1.0  1.5  1.9
    #                      ####  limit 1.8
    assert drift_levels([6.0] * 4, drift=[1.8, *NONE[1:]]) == [0, 0, 0, 1]


def test_downward_drift_is_seen_as_well():
    assert drift_levels([4.0] * 4, drift=[1.8, *NONE[1:]]) == [0, 0, 0, 1]


def test_shift_within_the_allowance_never_adds_up():
    assert drift_levels([5.4] * 300, drift=[1.8, *NONE[1:]]) == [0] * 300


def test_outlier_counts_as_no_more_than_the_clip():
    # clipped to 3, less the allowance: 2.5
    assert drift_levels([1e6], drift=[2.6, *NONE[1:]]) == [0]
    assert drift_levels([1e6], drift=[2.4, *NONE[1:]]) == [1]


def test_cap_lets_a_long_drift_recover():
    # capped at twice the limit, 4: at most 8 readings at −0.5 each until it is at 0 again
    levels = drift_levels([8.0] * 50 + [5.5] * 20, drift=[2, *NONE[1:]], allowance=1.0)
    assert levels[2:50] == [1] * 48
    assert levels[-1] == 0


def test_sums_wait_while_the_baseline_warms_up():
    values = [0.0, 100.0] * 3
    plan = one_sensor_plan(params_row(**{**STIFF, "warmup_n": 6}, drift=[0.1, *NONE[1:]]))
    records = [Record(0, START_MS + i * 1000, v) for i, v in enumerate(values)]
    assert levels_of(Line(plan), records, DRIFT) == [0] * 6

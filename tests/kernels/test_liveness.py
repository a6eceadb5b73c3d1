"""Liveness: silence, a stuck value, bad readings, a jump; kernel against oracle and by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from kernels.layout import ABSENCE, BAD, FLATLINE, SPIKE, TICK
from tests.kernel_line import Line, assert_detects_as_oracle, levels_of
from tests.oracle import Record
from tests.plans import START_MS, make_plan, one_sensor_plan, params_row
from tests.worlds import (
    BASES,
    limits_fields,
    liveness_fields,
    random_percent,
    random_series,
    steered,
)


def drawn(rng: Random) -> tuple[Any, list[Record], list[int]]:
    """Draw a plan with liveness and a few limits besides, a log with many ticks, and cuts."""
    base = rng.choice(BASES)
    fields = liveness_fields(rng) | limits_fields(rng, base) | {"percent": random_percent(rng)}
    row = params_row(range_low=-1e8, range_high=1e8, **fields)
    plan = one_sensor_plan(row, absent_ms=rng.choice([1, 1000, 3000]))
    records = random_series(rng, base, 60, ticks=0.25)
    return plan, records, [rng.randrange(60) for _ in range(3)]


@given(steered(drawn))
def test_kernel_watches_life_as_the_oracle_does(case):
    plan, records, cuts = case
    assert_detects_as_oracle(plan, records, cuts)


def tick(s: float) -> Record:
    """Make a tick at a second."""
    return Record(TICK, START_MS + round(s * 1000))


def reading(s: float, v: float = 1.0, quality: int = 0) -> Record:
    """Make a reading of sensor 0 at a second."""
    return Record(0, START_MS + round(s * 1000), v, quality)


def absence_levels(records: list[Record]) -> list[int]:
    """Return the absence level after each record, absent after 3 s."""
    plan = one_sensor_plan(params_row(absence_level=2), absent_ms=3000)
    return levels_of(Line(plan), records, ABSENCE)


def test_sensor_is_absent_at_the_first_tick_at_its_deadline():
    # reading  0                 deadline 3
    # ticks        1    2   2.999  3
    assert absence_levels([reading(0), tick(1), tick(2), tick(2.999), tick(3)]) == [0] * 4 + [2]


def test_absence_carries_its_deadline_however_late_the_tick():
    plan = one_sensor_plan(params_row(), absent_ms=3000)
    changes = Line(plan).detect_all([reading(0), tick(500)])
    assert changes["event_ms"][0] == START_MS + 3000
    assert changes["position"][0] == 1
    assert changes["value"][0] == 3.0


def test_reading_at_the_same_moment_as_the_tick_keeps_or_ends_absence_by_order():
    assert absence_levels([reading(0), reading(3), tick(3)]) == [0, 0, 0]
    assert absence_levels([reading(0), tick(3), reading(3)]) == [0, 2, 0]


def test_silence_between_two_readings_is_no_absence_without_a_tick():
    assert absence_levels([reading(0), reading(100, 2.0), tick(100)]) == [0, 0, 0]


def test_any_reading_ends_absence_but_for_a_backward_one():
    for ends in (reading(9, 1.0), reading(9, np.nan), reading(9, 1.0, quality=3)):
        assert absence_levels([reading(0), tick(5), ends]) == [0, 2, 0]
    assert absence_levels([reading(0), tick(5), reading(-1)]) == [0, 2, 2]


def test_sensor_without_any_reading_is_never_absent():
    assert absence_levels([tick(0), tick(5000)]) == [0, 0]


def test_bad_reading_arms_the_sensor():
    assert absence_levels([reading(0, np.nan), tick(3)]) == [0, 2]


def test_refused_reading_does_not_arm_the_sensor():
    row = params_row(absence_level=2)
    plan = one_sensor_plan(row, absent_ms=3000, max_ahead_ms=1000)
    records = [tick(0), reading(2), tick(1000)]
    assert levels_of(Line(plan), records, ABSENCE) == [0, 0, 0]


def test_absent_sensors_come_in_index_order_though_batches_have_little_room():
    # 600 sensors are three blocks; the changes hold 260 at a time, so the tick is given again
    n = 600
    plan = make_plan(params_row(), [], rows=[0] * n, absent_ms=[1000] * n, counts=[n])
    log = [Record(sensor, START_MS, 1.0) for sensor in range(n)] + [tick(2)]
    line = assert_detects_as_oracle(plan, log, room=260)
    assert line.counts["ticks"] == 1


def test_sensor_is_absent_again_after_it_came_back():
    records = [reading(0), tick(5), reading(6), tick(8), tick(9)]
    assert absence_levels(records) == [0, 2, 0, 0, 2]


def flat_levels(values: list[float], step_s: float = 1.0) -> list[int]:
    """Return the FLATLINE level after each reading; flat after two repeats."""
    plan = one_sensor_plan(params_row(flat_after_n=2, flat_level=3, half_ms=2000))
    records = [reading(i * step_s, v) for i, v in enumerate(values)]
    return levels_of(Line(plan), records, FLATLINE)


@pytest.mark.parametrize("value", [0.0, 101_325.01, -3e-7])
def test_repeats_of_a_value_are_a_flatline_across_moving_anchors(value):
    # v  a a a a a b a        anchors move every two seconds
    values = [value] * 5 + [value + 1, value]
    assert flat_levels(values) == [0, 0, 3, 3, 3, 0, 0]


def test_bad_reading_does_not_interrupt_a_flatline():
    assert flat_levels([1.0, 1.0, np.nan, 1.0]) == [0, 0, 0, 3]


def test_duplicates_are_no_flatline():
    assert flat_levels([1.0] * 9, step_s=0.0) == [0] * 9


def test_run_of_bad_readings_is_a_signal_until_a_good_one():
    plan = one_sensor_plan(params_row(bad_after_n=3, bad_level=2))
    bad = [reading(0, np.nan), reading(0, 1.0, quality=1), reading(0, -np.inf)]
    assert levels_of(Line(plan), [*bad, *bad, reading(0)], BAD) == [0, 0, 2, 2, 2, 2, 0]


def test_count_of_bad_readings_saturates():
    plan = one_sensor_plan(params_row(bad_after_n=255))
    records = [reading(i, np.nan) for i in range(600)]
    levels = levels_of(Line(plan), records, BAD)
    assert levels == [0] * 254 + [1] * 346


def test_spike_lasts_for_its_reading_alone():
    # v  1   1   9   9   1
    #            #       #     the jump up, and the jump down
    plan = one_sensor_plan(params_row(spike_at=5.0, spike_level=2))
    records = [reading(i, v) for i, v in enumerate([1.0, 1.0, 9.0, 9.0, 1.0])]
    assert levels_of(Line(plan), records, SPIKE) == [0, 0, 2, 0, 2]


def test_spike_is_measured_from_the_newest_good_reading():
    plan = one_sensor_plan(params_row(spike_at=5.0))
    records = [reading(0, 1.0), reading(1, np.nan), reading(2, 9.0)]
    assert levels_of(Line(plan), records, SPIKE) == [0, 0, 1]


def test_first_reading_is_no_spike_whatever_it_is():
    plan = one_sensor_plan(params_row(spike_at=5.0))
    assert levels_of(Line(plan), [reading(0, 1e6)], SPIKE) == [0]


def test_value_of_a_change_explains_its_strongest_signal_not_what_caused_it():
    # a high limit is up when the sensor falls silent, then sends nonsense
    plan = one_sensor_plan(params_row(high=[10, 20, 30, 40], bad_after_n=1), absent_ms=3000)
    changes = Line(plan).detect_all([reading(0, 50.0), tick(9), reading(10, np.nan)])
    of_sensor = changes[changes["sensor"] == 0]
    assert of_sensor["value"].tolist() == [50.0, 50.0, 50.0]

"""Limits: eight latches with deadband, delays, and latching; kernel against oracle and by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from hypothesis import given

from kernels.layout import ACKNOWLEDGE, HIGH, LOW, TICK
from tests.kernel_line import Line, assert_detects_as_oracle, levels_of
from tests.oracle import Record
from tests.plans import NO_LOW, NONE, START_MS, make_plan, one_sensor_plan, params_row
from tests.worlds import BASES, limits_fields, random_series, steered


def series(values: list[float], step_ms: int = 1000) -> list[Record]:
    """Make readings a fixed time apart."""
    return [Record(0, START_MS + i * step_ms, v) for i, v in enumerate(values)]


def high_levels(values: list[float], step_ms: int = 1000, **fields: Any) -> list[int]:
    """Return the HIGH level after each reading."""
    plan = one_sensor_plan(params_row(**fields))
    return levels_of(Line(plan), series(values, step_ms), HIGH)


def drawn(rng: Random) -> tuple[Any, list[Record], list[int]]:
    """Draw a plan with limits alone, a log, and cuts of it."""
    base = rng.choice(BASES)
    row = params_row(range_low=-1e8, range_high=1e8, **limits_fields(rng, base))
    return one_sensor_plan(row), random_series(rng, base, 60), [rng.randrange(60) for _ in range(3)]


@given(steered(drawn))
def test_kernel_latches_as_the_oracle_does(case):
    plan, records, cuts = case
    assert_detects_as_oracle(plan, records, cuts)


def test_latch_closes_at_its_limit_and_holds_inside_deadband():
    # limit 10, deadband 2          9   10    9    8    7.9
    #                               .   ###################\____
    values = [9.0, 10.0, 9.0, 8.0, 7.9]
    assert high_levels(values, high=[10, *NONE[1:]], deadband=2.0) == [0, 1, 1, 1, 0]


def test_reading_at_the_edge_of_the_deadband_is_not_inside_yet():
    assert high_levels([10.0, 8.0, 8.0], high=[10, *NONE[1:]], deadband=2.0) == [1, 1, 1]


def test_on_delay_runs_from_the_first_reading_beyond():
    # on-delay 3 s      t  0   1   2   3   4
    #                   v  11  11  11  11  11
    #                      |--- 3 s ----|###
    on_ms = [3000] * 4
    assert high_levels([11.0] * 5, high=[10, *NONE[1:]], on_ms=on_ms) == [0, 0, 0, 1, 1]


def test_reading_that_is_not_beyond_restarts_the_on_delay():
    # t  0   1   2   3   4   5   6
    # v  11  11  9   11  11  11  11
    #    |--- x      |--- 3 s ---|#
    values = [11.0, 11.0, 9.0, 11.0, 11.0, 11.0, 11.0]
    assert high_levels(values, high=[10, *NONE[1:]], on_ms=[3000] * 4) == [0] * 6 + [1]


def test_off_delay_runs_from_the_first_reading_inside():
    # t  0   1   2   3   4
    # v  11  5   5   5   5
    #    ####|-- 2 s --\____
    values = [11.0, 5.0, 5.0, 5.0, 5.0]
    assert high_levels(values, high=[10, *NONE[1:]], off_ms=[2000] * 4) == [1, 1, 1, 0, 0]


def test_delay_is_confirmed_by_a_reading_never_by_silence():
    # t  0                    60        one gap, and the latch closes at the reading that ends it
    # v  11                   11
    records = [
        Record(0, START_MS, 11.0),
        Record(TICK, START_MS + 59_000),
        Record(0, START_MS + 60_000, 11.0),
    ]
    plan = one_sensor_plan(params_row(high=[10, *NONE[1:]], on_ms=[3000] * 4))
    assert levels_of(Line(plan), records, HIGH) == [0, 0, 1]


def test_bad_readings_let_timers_run_on_but_confirm_nothing():
    # t  0   2    4    5
    # v  11  NaN  NaN  11
    #    |-- 3 s --|    #    four seconds old at the second NaN, closed by the good one
    records = [
        Record(0, START_MS, 11.0),
        Record(0, START_MS + 2000, np.nan),
        Record(0, START_MS + 4000, np.nan),
        Record(0, START_MS + 5000, 11.0),
    ]
    plan = one_sensor_plan(params_row(high=[10, *NONE[1:]], on_ms=[3000] * 4))
    assert levels_of(Line(plan), records, HIGH) == [0, 0, 0, 1]


def test_levels_are_independent_latches_and_the_highest_closed_one_is_the_signal():
    # red at once, blue only after 2 s: the level is red while the timer of blue runs, and blue
    # stays when red has gone.
    fields: dict[str, Any] = {"high": [10, np.inf, np.inf, 40], "on_ms": [2000, 0, 0, 0]}
    assert high_levels([50.0, 50.0, 50.0, 20.0], **fields) == [4, 4, 4, 1]


def test_missing_levels_never_latch():
    assert high_levels([1e300], high=NONE, low=NO_LOW) == [0]


def test_low_limits_mirror_high_ones():
    plan = one_sensor_plan(params_row(low=[5, 3, *NO_LOW[2:]], deadband=1.0))
    values = [6.0, 5.0, 3.0, 3.9, 4.1, 6.0, 6.1]
    assert levels_of(Line(plan), series(values), LOW) == [0, 1, 2, 2, 1, 1, 0]


def test_latching_limit_stays_until_acknowledged():
    # v  11   5    5    ack
    #    ############### \___
    records = series([11.0, 5.0, 5.0])
    records.append(Record(ACKNOWLEDGE, START_MS + 3000, 0.0))
    plan = one_sensor_plan(params_row(high=[10, *NONE[1:]], latching=1))
    assert levels_of(Line(plan), records, HIGH) == [1, 1, 1, 0]


def test_acknowledge_before_the_value_is_back_lets_the_limit_go_later():
    # v  11   ack  11   5
    #    ###############\___
    records = [
        Record(0, START_MS, 11.0),
        Record(ACKNOWLEDGE, START_MS + 500, 0.0),
        Record(0, START_MS + 1000, 11.0),
        Record(0, START_MS + 2000, 5.0),
    ]
    plan = one_sensor_plan(params_row(high=[10, *NONE[1:]], latching=1))
    assert levels_of(Line(plan), records, HIGH) == [1, 1, 1, 0]


def test_permission_to_let_go_ends_with_the_last_latch():
    records = [
        Record(0, START_MS, 11.0),
        Record(ACKNOWLEDGE, START_MS + 500, 0.0),
        Record(0, START_MS + 1000, 5.0),  # lets go, and the permission is used up
        Record(0, START_MS + 2000, 11.0),
        Record(0, START_MS + 3000, 5.0),  # stays
    ]
    plan = one_sensor_plan(params_row(high=[10, *NONE[1:]], latching=1))
    assert levels_of(Line(plan), records, HIGH) == [1, 1, 0, 1, 1]


def test_acknowledge_of_another_source_changes_nothing():
    records = [*series([11.0, 5.0]), Record(ACKNOWLEDGE, START_MS + 2000, 1.0)]
    records += [Record(ACKNOWLEDGE, START_MS + 2000, odd) for odd in (-1.0, np.nan, np.inf, 1e300)]
    plan = one_sensor_plan(params_row(high=[10, *NONE[1:]], latching=1))
    assert levels_of(Line(plan), records, HIGH) == [1] * 7


def test_acknowledge_waits_for_room_for_all_sensors_of_its_source():
    # twelve changes of another source are written; 290 more don't fit beside them into 300
    row = params_row(high=[10, *NONE[1:]], latching=1)
    plan = make_plan(row, [], rows=[0] * 302, absent_ms=[0] * 302, counts=[290, 12])
    latched = [Record(s, START_MS, 11.0) for s in range(290)]
    latched += [Record(s, START_MS + 1000, 5.0) for s in range(290)]
    others = [Record(s, START_MS + 2000, 11.0) for s in range(290, 302)]
    records = [*latched, *others, Record(ACKNOWLEDGE, START_MS + 3000, 0.0)]
    line = assert_detects_as_oracle(plan, records, [len(latched)], room=300)
    assert np.flatnonzero(line.state.hot["latched"]).tolist() == list(range(290, 302))


def test_timer_saturates_over_a_gap_of_months():
    fields: dict[str, Any] = {"high": [10, *NONE[1:]], "on_ms": [2**32 - 1] * 4}
    month_ms = 30 * 86_400_000
    assert high_levels([11.0] * 3, month_ms, **fields) == [0, 0, 1]


def test_large_offset_does_not_move_a_limit():
    fields: dict[str, Any] = {"high": [101_325.01, *NONE[1:]], "deadband": 0.005}
    values = [101_325.0, 101_325.01, 101_325.006, 101_325.004]
    assert high_levels(values, **fields) == [0, 1, 1, 0]

"""Windows on paned event time; kernel against oracle and by hand."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from kernels.layout import COUNT, MAXIMUM, MEAN, MINIMUM, RANGE, STD, SUM, WINDOW
from kernels.window import MAX_PANE_N
from tests.kernel_line import Line, assert_detects_as_oracle, levels_of
from tests.oracle import Record
from tests.plans import NO_LOW, NONE, START_MS, make_plan, one_sensor_plan, params_row, window_row
from tests.worlds import BASES, random_series, random_window, steered

N_SEEDS = 8 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 120
NOON_MS = START_MS // 60_000 * 60_000
"""A time that is a whole pane of every length used here."""


def drawn(rng: Random) -> tuple[Any, list[Record], list[int]]:
    """Draw a plan with one to three windows, a log, and cuts of it."""
    base = rng.choice(BASES)
    windows = [random_window(rng, base) for _ in range(rng.randint(1, 3))]
    plan = one_sensor_plan(params_row(range_low=-1e8, range_high=1e8), windows)
    return plan, random_series(rng, base, 60), [rng.randrange(60) for _ in range(3)]


@given(steered(drawn))
def test_kernel_windows_as_the_oracle_does(case):
    plan, records, cuts = case
    assert_detects_as_oracle(plan, records, cuts)


def wandering(rng: Random) -> tuple[SimpleNamespace, list[Record]]:
    """Draw a window whose aggregate wanders about its limits, hundredths of them away, for long."""
    base = rng.choice([0.0, 1e-3, 101_325.0, -4e6, 1e9])
    spread = rng.choice([1.0, 0.01, 5 * abs(base) + 1])
    aggregate = rng.choice([MEAN, MINIMUM, MAXIMUM, STD, RANGE, SUM])
    centre = 0.0 if aggregate in (STD, RANGE) else base * (10 if aggregate == SUM else 1)
    gap = spread * rng.uniform(0.2, 1.2)
    window = window_row(
        pane_ms=rng.choice([500, 1000, 7000]),
        n_panes=rng.randint(2, 8),
        aggregate=aggregate,
        min_n=rng.choice([1, 3, 10]),
        high=[centre + gap * k for k in (1, 2, 3, 4)],
        low=[centre - gap * k for k in (1, 2, 3, 4)] if rng.random() < 0.4 else NO_LOW,
        deadband=rng.choice([0.0, 0.1 * gap]),
    )
    records, t, walk = [], START_MS, 0.0
    for _ in range(300):
        t += rng.choice([1, 100, 100, 1000]) if rng.random() < 0.99 else 50_000
        walk = 0.95 * walk + rng.gauss(0, 0.3)
        jump = rng.choice([-30, 30, 1e4]) if rng.random() < 0.01 else 0.0
        back_ms = rng.choice([200, 3000]) if rng.random() < 0.05 else 0
        records.append(Record(0, t - back_ms, base + spread * (walk + jump)))
    return one_sensor_plan(params_row(half_ms=rng.choice([1000, 60_000])), [window]), records


def test_window_is_looked_through_whenever_it_may_reach_a_limit():
    # the kernel skips rings that hold nothing near a limit; the oracle looks through every one
    changes = 0
    for seed in range(N_SEEDS):
        plan, records = wandering(Random(seed))
        line = assert_detects_as_oracle(plan, records)
        assert line.counts["backward"] > 0
        changes += len(Line(plan).detect_all(records))
    assert changes > 3 * N_SEEDS


def window_levels(points: Sequence[tuple[float, float]], **window: Any) -> list[int]:
    """Return the level after each (second, value) of a window of two panes of a second."""
    plan = one_sensor_plan(params_row(), [window_row(**{"n_panes": 2, **window})])
    records = [Record(0, NOON_MS + round(s * 1000), v) for s, v in points]
    return levels_of(Line(plan), records, WINDOW)


def test_pane_falls_out_when_a_new_one_begins():
    # panes  |0 .. 1|1 .. 2|2 .. 3|      two in the window
    # v       9      1      1
    # max     9      9      1
    points = [(0.5, 9.0), (1.5, 1.0), (2.5, 1.0)]
    assert window_levels(points, aggregate=MAXIMUM, high=[9, *NONE[1:]]) == [1, 1, 0]


def test_window_ends_with_its_pane_not_with_the_reading():
    # the reading at 1.9 s is in the pane of 1.0 s: what came at 0.0 s still counts
    points = [(0.0, 9.0), (1.999, 1.0), (2.0, 1.0)]
    assert window_levels(points, aggregate=MAXIMUM, high=[9, *NONE[1:]]) == [1, 1, 0]


def test_late_reading_enters_its_pane_and_judges_nothing():
    # t   0.5  1.5  0.6   1.6        count over two panes: 1, 2, (3), 4
    #                late
    points = [(0.5, 1.0), (1.5, 1.0), (0.6, 1.0), (1.6, 1.0)]
    assert window_levels(points, aggregate=COUNT, high=[3, *NONE[1:]]) == [0, 0, 0, 1]


def test_reading_behind_the_ring_is_ignored():
    points = [(5.5, 1.0), (3.9, 99.0), (5.6, 1.0)]
    assert window_levels(points, aggregate=MAXIMUM, high=[99, *NONE[1:]]) == [0, 0, 0]
    points = [(5.5, 1.0), (4.0, 99.0), (5.6, 1.0)]
    assert window_levels(points, aggregate=MAXIMUM, high=[99, *NONE[1:]]) == [0, 0, 1]


def test_bad_and_duplicate_readings_do_not_count():
    points = [(0.1, 1.0), (0.1, 1.0), (0.2, np.nan), (0.3, np.inf), (0.4, 1.0)]
    assert window_levels(points, aggregate=COUNT, high=[3, *NONE[1:]]) == [0] * 5
    assert window_levels(points, aggregate=COUNT, high=[2, *NONE[1:]])[-1] == 1


def test_too_few_readings_give_no_level():
    points = [(0.1, 50.0), (0.2, 50.0), (0.3, 50.0), (5.0, 50.0)]
    assert window_levels(points, min_n=3, aggregate=MEAN, high=[9, *NONE[1:]]) == [0, 0, 1, 0]


def test_low_limits_judge_the_same_aggregate():
    points = [(0.1, 5.0), (0.2, 3.0), (0.3, 1.0)]
    levels = window_levels(points, aggregate=MEAN, low=[4, 3, *NO_LOW[2:]])
    assert levels == [0, 1, 2]


def test_window_deadband_holds_the_level():
    # mean of the two panes       5    4.5   4     limit 5, deadband 0.5: until below 4.5
    points = [(0.0, 5.0), (1.0, 4.0), (2.0, 4.0)]
    levels = window_levels(points, aggregate=MEAN, high=[5, *NONE[1:]], deadband=0.5)
    assert levels == [1, 1, 0]


def test_signal_is_the_highest_level_of_all_windows():
    windows = [
        window_row(aggregate=MAXIMUM, high=[10, np.inf, np.inf, np.inf]),
        window_row(aggregate=COUNT, high=[np.inf, np.inf, 2, np.inf]),
    ]
    plan = one_sensor_plan(params_row(), windows)
    records = [Record(0, NOON_MS, 11.0), Record(0, NOON_MS + 10, 1.0)]
    assert levels_of(Line(plan), records, WINDOW) == [1, 3]


def test_rising_window_judges_its_own_reading_not_the_last_loud_one():
    # a window can rise on a reading that is quiet for every other detector
    rows = np.concatenate(
        [params_row(high=[10, 20, 30, 40]), params_row(high=[50, 60, 70, 80], n_windows=1)]
    )
    window = window_row(aggregate=MEAN, high=[1, 2, 3, 4])
    plan = make_plan(rows, [window], rows=[0, 1], absent_ms=[0, 0], counts=[2])
    assert_detects_as_oracle(plan, [Record(0, NOON_MS, 100.0), Record(1, NOON_MS, 1.5)])


def test_gap_of_months_empties_the_window():
    points = [(0.1, 9.0), (0.2, 9.0), (90 * 86_400, 1.0)]
    assert window_levels(points, aggregate=COUNT, high=[2, *NONE[1:]]) == [0, 1, 0]


def test_full_pane_takes_no_more_and_never_wraps():
    window = window_row(aggregate=COUNT, high=[MAX_PANE_N, np.inf, np.inf, MAX_PANE_N + 1])
    line = Line(one_sensor_plan(params_row(), [window]))
    records = [Record(0, NOON_MS + i, float(i)) for i in range(4)]
    line.detect_all(records[:1])
    counts = line.state.rings["count"]
    (filled,) = np.argwhere(counts == 1)
    counts[tuple(filled)] = MAX_PANE_N - 1
    assert levels_of(line, records[1:], WINDOW) == [1, 1, 1]
    assert counts[tuple(filled)] == MAX_PANE_N


AGGREGATES: dict[int, Any] = {
    MEAN: statistics.fmean,
    MINIMUM: min,
    MAXIMUM: max,
    STD: statistics.pstdev,
    RANGE: lambda values: max(values) - min(values),
    SUM: math.fsum,
    COUNT: len,
}


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("offset", [0.0, 101_325.0, -4e6])
def test_hundredths_on_a_large_offset_keep_their_aggregate(aggregate, offset):
    # sixty readings over six panes, all in the window; the level tells on which side of a bound
    # close by the aggregate came out
    rng = np.random.default_rng(11)
    values = (offset + rng.normal(0, 0.01, 60)).tolist()
    truth = AGGREGATES[aggregate](values)
    room = 0 if aggregate == COUNT else 1e-6 * (60 if aggregate == SUM else 1)
    for bound, level in ((truth - room, 1), (truth + room + 1e-9, 0)):
        window = window_row(aggregate=aggregate, min_n=60, high=[bound, *NONE[1:]])
        plan = one_sensor_plan(params_row(), [window])
        records = [Record(0, NOON_MS + 100 * i, v) for i, v in enumerate(values)]
        assert levels_of(Line(plan), records, WINDOW)[-1] == level

"""Arrow columns to event times, values and qualities."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from engine.adapters import TimeKeys
from engine.columns import Clock, UnreadableRow, qualities, values

NOON = 1_714_564_800_000  # 2024-05-01T12:00Z
FAR = 1 << 62


def times(array: pa.Array, **keys: object) -> list[int | None]:
    event_ms, missing = Clock(TimeKeys(column="t", **keys)).times(array)
    gone = np.zeros(len(event_ms), bool) if missing is None else missing
    return [None if lost else ms for ms, lost in zip(event_ms.tolist(), gone, strict=True)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(("tz", "shift_ms"), [(None, -8 * 3_600_000), ("Asia/Tokyo", 0)])
def test_timestamps_of_any_unit_are_instants_or_wall_times_of_the_zone(unit, tz, shift_ms):
    stamps = pa.array([NOON, None], pa.timestamp("ms", tz)).cast(pa.timestamp(unit, tz))
    assert times(stamps, zone="+08:00") == [NOON + shift_ms, None]


def test_times_between_milliseconds_are_those_of_the_millisecond_begun():
    assert times(pa.array([NOON * 1000 + 999, -1], pa.timestamp("us", "UTC"))) == [NOON, -1]


@pytest.mark.parametrize(
    ("text", "shift_ms"),
    [
        ("2024-05-01 12:00:00", -8 * 3_600_000),
        ("2024-05-01T12:00:00Z", 0),
        ("2024-05-01T14:00:00+02:00", 0),
        ("2024-05-01T12:00:00.123456789Z", 123),
        ("2024-05-01T12:00:00,5Z", 500),
        (str(NOON), 0),
    ],
)
def test_text_is_iso_8601_or_epoch_milliseconds(text, shift_ms):
    assert times(pa.array([text]), zone="+08:00") == [NOON + shift_ms]
    # beside others of another sort, in one column
    both = pa.array([text, "2024-05-01T12:00:00Z", None, "2024-05-01T20:00:00"])
    assert times(both, zone="+08:00") == [NOON + shift_ms, NOON, None, NOON]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("01/05/2024 12.00", "%d/%m/%Y %H.%M"),
        ("05/01/24 12", "%m/%d/%y %H"),
        ("20240501120000.000", "%Y%m%d%H%M%S.%f"),
        ("01.05.2024 14:00 +0200", "%d.%m.%Y %H:%M %z"),
    ],
)
def test_a_pattern_reads_text_as_it_is_written(text, pattern):
    assert times(pa.array([text, None]), format=pattern) == [NOON, None]


@pytest.mark.parametrize(
    ("unit", "count"),
    [("s", NOON // 1000), ("ms", NOON), ("us", NOON * 1000), ("ns", NOON * 1_000_000)],
)
def test_numbers_count_a_unit_since_1970(unit, count):
    assert times(pa.array([count, None]), format=unit) == [NOON, None]
    assert times(pa.array([str(count)]), format=unit) == [NOON]


def test_fractions_of_a_second_round_to_the_nearest_millisecond():
    assert times(pa.array([0.0015, 1.0004, float("nan")]), format="s") == [2, 1000, None]


@pytest.mark.parametrize("count", [pa.array([30, None]), pa.array([30.0, float("nan")])])
def test_a_column_may_count_seconds_since_a_start(count):
    start = dt.datetime(2024, 5, 1, 14)
    assert times(count, start=start, zone="Europe/Warsaw") == [NOON + 30_000, None]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([-(1 << 63), (1 << 63) - 1]),
        pa.array([-(1 << 63), (1 << 63) - 1], pa.timestamp("s")),
        pa.array([-1e300, float("inf")]),
        pa.array([0, (1 << 64) - 1], pa.uint64()),
    ],
)
@pytest.mark.parametrize("zone", ["+08:00", "Europe/Warsaw"])
def test_extremes_stay_extreme_and_never_wrap(array, zone):
    low, high = times(array, zone=zone)
    assert high >= FAR - 86_400_000
    assert low is not None
    assert low <= 86_400_000


def test_dates_are_midnight_of_the_zone():
    days = pa.array([dt.date(2024, 5, 1), None])
    assert times(days, zone="+08:00") == [NOON - 20 * 3_600_000, None]
    assert times(days.cast(pa.date64())) == [NOON - 12 * 3_600_000, None]


def test_a_text_that_is_no_time_says_its_row():
    with pytest.raises(UnreadableRow, match="must be ISO 8601, got 'soon'") as caught:
        times(pa.array(["2024-05-01", "2024-05-02", "soon"]))
    assert caught.value.row == 2
    with pytest.raises(UnreadableRow, match=r"must be like %d/%m/%Y, got '1.5'"):
        times(pa.array(["1.5"]), format="%d/%m/%Y")


@pytest.mark.parametrize("array", [pa.array([[1]]), pa.array([True])])
def test_a_column_that_can_hold_no_times_is_refused(array):
    with pytest.raises(ValueError, match="must hold times, not"):
        times(array)


def test_values_are_numbers_or_absent():
    nan = float("nan")
    for array, expected in (
        (pa.array([1, None]), [1.0, nan]),
        (pa.array([1.5, None], pa.float32()), [1.5, nan]),
        (pa.array([True, None]), [1.0, nan]),
        (pa.array(["1.5", None]), [1.5, nan]),
        (pa.array([None, None]), [nan, nan]),
        (pa.array([1, None]).cast(pa.decimal128(21, 2)), [1.0, nan]),
    ):
        np.testing.assert_array_equal(values(array), expected)
    with pytest.raises(UnreadableRow, match="must be a number, got 'high'") as caught:
        values(pa.array(["1", None, "high"]))
    assert caught.value.row == 2
    with pytest.raises(ValueError, match="must hold numbers, not list"):
        values(pa.array([[1]]))


def test_a_float64_column_is_not_copied():
    array = pa.array([1.0, 2.0])
    assert values(array).ctypes.data == array.buffers()[1].address


@pytest.mark.parametrize(
    ("array", "good", "expected"),
    [
        (pa.array([0, 1, None, 255], pa.uint8()), (0,), [0, 1, 0, 255]),
        (pa.array([0, 256, -1, None]), (0,), [0, 1, 1, 0]),
        (pa.array([192, 0, 216, None]), (192, 216), [0, 1, 0, 0]),
        (pa.array([192.0, 0.5, None]), (192,), [0, 1, 0]),
        (pa.array(["GOOD", "BAD", None]), ("GOOD",), [0, 1, 0]),
        (pa.array([True, False]), (1,), [0, 1]),
        (pa.array([None]), (0,), [0]),
    ],
)
def test_qualities_are_zero_where_good_or_absent(array, good, expected):
    assert qualities(array, good).tolist() == expected

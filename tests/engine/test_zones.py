"""Wall times to epoch milliseconds: the table of a zone says what `zoneinfo` says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.zones import instant_ms, zone

NAMES = [
    "Asia/Shanghai",
    "Europe/Warsaw",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Pacific/Apia",
    "+08:00",
    "-03:30",
    "UTC",
]
HOUR_MS = 3_600_000


def expected(wall_ms: int, name: str) -> int:
    wall = datetime(1970, 1, 1) + timedelta(milliseconds=wall_ms)
    since = wall.replace(tzinfo=zone(name).tz).astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(milliseconds=1)


@given(st.sampled_from(NAMES), st.lists(st.integers(0, 4_100_000_000_000), min_size=1, max_size=9))
def test_any_wall_time_is_the_instant_that_zoneinfo_gives(name, wall_ms):
    found = zone(name).epoch_ms(np.array(wall_ms))
    assert found.tolist() == [expected(each, name) for each in wall_ms]


@pytest.mark.parametrize("name", NAMES[:6])
def test_the_hours_around_every_change_of_an_offset_are_right(name):
    of = zone(name)
    around = np.arange(-3 * HOUR_MS, 3 * HOUR_MS, HOUR_MS // 4)
    for change in of.from_ms[1:40].tolist():
        wall_ms = change + around
        assert of.epoch_ms(wall_ms).tolist() == [expected(each, name) for each in wall_ms.tolist()]


@pytest.mark.parametrize("name", ["Europe/Warsaw", "+08:00"])
def test_the_ends_of_int64_saturate_instead_of_wrapping(name):
    low, high = zone(name).epoch_ms(np.array([-(1 << 63), (1 << 63) - 1])).tolist()
    assert low < -(1 << 61)
    assert high > 1 << 61


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "+8", "+19:00", "+08:60", "../etc/passwd"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match=r"^(must be UTC|an offset must)"):
        zone(name)


@pytest.mark.parametrize(
    ("text", "epoch_ms"),
    [
        ("1714521600000", 1_714_521_600_000),
        ("-5", -5),
        ("2024-05-01", 1_714_492_800_000),
        ("2024-05-01T08:00:00.5", 1_714_521_600_500),
        ("2024-05-01T00:00:00Z", 1_714_521_600_000),
        ("20240501", 1_714_492_800_000),
    ],
)
def test_an_instant_is_iso_in_the_zone_or_epoch_milliseconds(text, epoch_ms):
    assert instant_ms(text, zone("+08:00")) == epoch_ms


def test_what_is_no_instant_is_refused():
    with pytest.raises(ValueError, match="must be ISO 8601 or epoch milliseconds"):
        instant_ms("yesterday", zone("UTC"))

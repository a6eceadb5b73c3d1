"""The notation of series, against lists written out by hand and by a plain loop."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.rule_tests.series import expand, length_ms, parse, shown, single

MINUTE_MS = 60_000


def values(text: str, every_ms: int = MINUTE_MS) -> list[float | None]:
    """Return what stands at each interval, None where nothing does."""
    items = expand(parse(text), every_ms)
    found: list[float | None] = [None] * (items[-1].place + 1 if items else 0)
    for item in items:
        found[item.place] = item.value
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", [5]),
        ("5 6", [5, 6]),
        ("5x3", [5, 5, 5, 5]),
        ("5*3", [5, 5, 5]),
        ("5x0", [5]),
        ("5+0.5x3", [5, 5.5, 6, 6.5]),
        ("5-2x2", [5, 3, 1]),
        ("-5-2x2", [-5, -7, -9]),
        ("-2+4x3", [-2, 2, 6, 10]),  # promtool's own examples
        ("1x4", [1, 1, 1, 1, 1]),
        ("1 _x3 2", [1, None, None, None, 2]),
        ("_ 2", [None, 2]),
        ("5>8x6", [5, 5.5, 6, 6.5, 7, 7.5, 8]),
        ("8>5x2", [8, 6.5, 5]),
        ("(5 6)*2 7", [5, 6, 5, 6, 7]),
        ("((1 2)*2 3)*2", [1, 2, 1, 2, 3, 1, 2, 1, 2, 3]),
        ("(5 _)*2 7", [5, None, 5, None, 7]),
        ("5x3m", [5, 5, 5, 5]),
        ("5*3m", [5, 5, 5]),
        ("1 _*2m 2", [1, None, None, 2]),
        ("5+0.1x3", [5, 5.1, 5.2, 5.3]),  # not 5.300000000000001
        ("1e1 .5", [10, 0.5]),
    ],
)
def test_a_series_is_what_it_says(text: str, expected: list[float | None]) -> None:
    assert values(text) == expected


def test_bad_readings_and_numbers_that_are_none() -> None:
    items = expand(parse("nan -inf bad:7x1"), MINUTE_MS)
    assert math.isnan(items[0].value) and items[1].value == -math.inf
    assert [(item.value, item.quality) for item in items[2:]] == [(7, 1), (7, 1)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "at least one reading"),
        ("5xx", "whole number or a time"),
        ("5x-1", "no reading"),
        ("five", "'five' is no reading"),
        ("5+1", "needs its length"),
        ("5+1*3", "needs its length"),
        ("5>6", "needs its length"),
        ("5>6x0", "at least one step"),
        ("_+1x3", "only a number can rise"),
        ("nan>3x3", "only a number can rise"),
        ("bad:_", "a gap has no quality"),
        ("5*0", "at least once"),
        ("(5", "( without its )"),
        ("5)", ") without its ("),
        ("(5)", 'a bracket reads "(5 6)*3"'),
        ("(5)x3", 'a bracket reads "(5 6)*3"'),
        ("()*3", 'a bracket reads "(5 6)*3"'),
        ("5x9999999", "at most 1,000,000"),
        ("(5x999999)*2", "at most 1,000,000"),
        ("5x90s", "whole number of intervals"),
        ("5x0s", "longer than 0s"),
        ("1e999", "a number that a sensor can send"),
    ],
)
def test_a_wrong_series_is_refused_and_the_piece_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        expand(parse(text), MINUTE_MS)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 5)), min_size=1))
def test_ramps_follow_each_other(ramps: list[tuple[int, int, int]]) -> None:
    text = " ".join(f"{first}{step:+d}x{n}" for first, step, n in ramps)
    plain = [first + step * k for first, step, n in ramps for k in range(n + 1)]
    assert values(text) == plain


@given(st.integers(0, 366 * 86_400_000))
def test_a_time_is_read_as_it_is_shown(ms: int) -> None:
    assert length_ms(shown(ms)) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [("0", 0), ("90s", 90_000), ("5m30s", 330_000), ("5min", 300_000), ("1.5h", 5_400_000),
     ("1d", 86_400_000), ("250ms", 250), ("1h 5m", 3_900_000)],
)  # fmt: skip
def test_times_have_units(text: str, ms: int) -> None:
    assert length_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5", "-5m", "5x", "0.5ms", "400d", "m5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        length_ms(text)


def test_one_reading_of_a_pair() -> None:
    assert single("7") == (7.0, 0) and single("bad:7") == (7.0, 1)
    for text in ("7x3", "_", "7+1x2"):
        with pytest.raises(ValueError, match="must be one reading"):
            single(text)

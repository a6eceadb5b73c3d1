"""Ticks in a log: what goes in where, whatever the batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import MAX_EVENT_MS, NEVER, TICK
from kernels.weave import begin, running_newest, weave

Reading = tuple[int, int, float, int]
FOREVER = 1 << 60


def in_bounds(event_ms: int) -> bool:
    return 0 <= event_ms < MAX_EVENT_MS


def newest(times: list[int], jump_ms: int) -> list[int]:
    """Return the largest credible event time up to each reading: the slow truth."""
    found, now = [], NEVER
    for place, event_ms in enumerate(times):
        after = times[place + 1] if place + 1 < len(times) else None
        told = after is not None and in_bounds(after)
        if in_bounds(event_ms) and event_ms > now:
            near = now != NEVER and event_ms <= now + jump_ms
            confirmed = told and after >= event_ms - jump_ms
            if near or confirmed:
                now = event_ms
            elif now == NEVER:
                now = after if told else event_ms
        found.append(now)
    return found


def woven(readings: list[Reading], tick_ms: int, jump_ms: int) -> list[Reading]:
    """Return the readings with their ticks: the slow truth."""
    log: list[Reading] = []
    ticked = None
    times = newest([reading[1] for reading in readings], jump_ms)
    for reading, now in zip(readings, times, strict=True):
        whole = now // tick_ms * tick_ms
        if now != NEVER and (ticked is None or whole > ticked):
            log.append((TICK, whole, 0.0, 0))
            ticked = whole
        log.append(reading)
    return log


def columns(readings: list[Reading]) -> tuple[np.ndarray, ...]:
    rows = list(zip(*readings, strict=True)) or [()] * 4
    kinds = (np.int32, np.int64, np.float64, np.uint8)
    return tuple(np.array(row, kind) for row, kind in zip(rows, kinds, strict=True))


def run(readings: list[Reading], cuts: list[int], tick_ms: int, jump_ms: int) -> list[Reading]:
    """Weave readings cut into batches; what is left of one goes before the next."""
    state, rule = begin(), np.array([tick_ms, jump_ms], np.int64)
    log: list[Reading] = []
    left: list[Reading] = []
    edges = [0, *sorted(cuts), len(readings)]
    for start, stop in pairwise(edges):
        batch = left + readings[start:stop]
        out = tuple(np.zeros(2 * len(batch) + 2, c.dtype) for c in columns(batch))
        final = stop == len(readings)
        taken, written = weave(*columns(batch), rule, final, state, *out)
        log.extend(zip(*(column[:written].tolist() for column in out), strict=True))
        left = batch[taken:]
        assert len(left) <= 1
        if final:
            assert not left
            break
    return log


def at(*times: int) -> list[Reading]:
    return [(place, event_ms, float(place), place % 3) for place, event_ms in enumerate(times)]


def ticks(log: list[Reading]) -> list[int]:
    return [reading[1] for reading in log if reading[0] == TICK]


TIMES = st.one_of(
    st.integers(0, 60),
    st.integers(0, 5_000),
    st.sampled_from(
        [-1, NEVER, 0, 1, 999, 1000, MAX_EVENT_MS - 1, MAX_EVENT_MS, -(1 << 63), (1 << 63) - 1]
    ),
)


@given(
    st.lists(TIMES, max_size=40),
    st.lists(st.integers(0, 40), max_size=6),
    st.sampled_from([1, 7, 1000, 86_400_000]),
    st.sampled_from([0, 10, 1000, FOREVER]),
)
def test_any_cut_into_batches_gives_the_log_of_the_oracle(times, cuts, tick_ms, jump_ms):
    readings = at(*times)
    cuts = [cut for cut in cuts if cut < len(times)]
    assert run(readings, cuts, tick_ms, jump_ms) == woven(readings, tick_ms, jump_ms)


@given(
    st.lists(TIMES, min_size=1, max_size=30),
    st.integers(0, 30),
    st.sampled_from([0, 10, 1000, FOREVER]),
)
def test_the_running_time_is_that_of_the_oracle_whatever_the_cut(times, cut, jump_ms):
    out = np.empty(len(times), np.int64)
    event_ms = np.array(times, np.int64)
    cut = min(cut, len(times))
    taken, now = running_newest(event_ms[:cut], jump_ms, cut == len(times), NEVER, out[:cut])
    assert cut - 1 <= taken <= cut
    rest = event_ms[taken:]
    n, now = running_newest(rest, jump_ms, True, now, out[taken:])
    assert n == len(rest)
    assert out.tolist() == newest(times, jump_ms)
    assert now == out[-1]


def test_a_tick_goes_in_before_the_first_reading_of_each_new_second():
    # reading    t=0.4 s   0.9   1.0   1.5   4.2
    # tick     0         .     1     .     4
    log = woven(at(400, 900, 1000, 1500, 4200), 1000, FOREVER)
    assert run(at(400, 900, 1000, 1500, 4200), [], 1000, FOREVER) == log
    assert ticks(log) == [0, 1000, 4000]
    assert [reading[1] for reading in log[:4]] == [0, 400, 900, 1000]


def test_late_readings_and_impossible_times_make_no_tick():
    log = run(at(5000, 3000, -5, MAX_EVENT_MS, (1 << 63) - 1, 5999), [], 1000, FOREVER)
    assert ticks(log) == [5000]


def test_one_clock_years_ahead_does_not_move_time():
    wrong = 60_000_000
    log = run(at(1000, 2000, wrong, 3000, 4000), [3], 1000, 10_000)
    assert ticks(log) == [1000, 2000, 3000, 4000]


def test_a_gap_that_the_next_reading_confirms_moves_time():
    log = run(at(1000, 60_000_000, 60_001_000), [2], 1000, 10_000)
    assert ticks(log) == [1000, 60_000_000, 60_001_000]


def test_a_history_that_begins_with_a_wrong_clock_begins_at_its_second_reading():
    log = run(at(60_000_000, 1000, 2000), [1], 1000, 10_000)
    assert log[0] == (TICK, 1000, 0.0, 0)
    assert ticks(log) == [1000, 2000]


def test_an_empty_history_has_no_tick():
    assert run([], [], 1000, FOREVER) == []

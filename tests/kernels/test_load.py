"""Peaks and floods against slow ones, and a setting's own alarms on top of common ones."""

from __future__ import annotations

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.bounds import Bounds
from kernels import load as compiled
from kernels.load import LOAD, MOST
from kernels.tally import MEASURE
from tests.analysis.slow_figures import slow_floods, slow_peak
from tests.kernel_line import uncompiled

load_operators, load_setting = compiled.load_operators, compiled.load_setting
if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    load_operators, load_setting = uncompiled(load_operators), uncompiled(load_setting)

PERIOD_MS = 600_000
SINCE_MS, SPAN_MS = 1_714_521_600_000, 6_000_000
UNTIL_MS = SINCE_MS + SPAN_MS
N_OPERATORS = 4

ALARM = st.tuples(
    st.sampled_from([0, 0, 0, 1, 3]),
    st.integers(0, 59).map(lambda k: 100_000 * k) | st.integers(0, SPAN_MS - 1),
)
ALARMS = st.lists(ALARM, max_size=60)
FLOODS = st.sampled_from([(10, 5), (2, 1), (2, 3), (3, 2)])


def measure(above: int, below: int) -> np.ndarray:
    return np.array([(SINCE_MS, UNTIL_MS, PERIOD_MS, above, below, 3, 60_000, 1)], MEASURE)


def keys_of(alarms: list[tuple[int, int]]) -> np.ndarray:
    return np.sort(np.array([o * SPAN_MS + t for o, t in alarms], np.int64))


def loaded(keys: np.ndarray, how: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the load of each operator, where its keys begin, and the floods."""
    loads = np.zeros(N_OPERATORS, LOAD)
    starts = np.searchsorted(keys, np.arange(N_OPERATORS + 1) * SPAN_MS)
    floods = np.zeros((len(keys), 2), np.int64)
    n = load_operators(keys, starts, how, loads, floods)
    return loads, starts, floods[:n]


def most_of(loads: np.ndarray) -> np.ndarray:
    most = np.zeros(1, MOST)
    n = loads["alarms"]
    most["operator"] = np.argmax(n) if n.any() else -1
    most["alarms"], most["floods"] = n.max(), loads["floods"].sum()
    most["peak_n"], most["flood_ms"] = loads["peak_n"].max(), loads["flood_ms"].max()
    return most


@given(ALARMS, FLOODS)
def test_peaks_and_floods_are_those_of_the_slow_way(
    alarms: list[tuple[int, int]], flood: tuple[int, int]
) -> None:
    loads, _, floods = loaded(keys_of(alarms), measure(*flood))
    bounds = Bounds(flood_starts_above=flood[0], flood_ends_below=flood[1])
    expected = []
    for o in range(N_OPERATORS):
        times = sorted(SINCE_MS + t for of, t in alarms if of == o)
        own = slow_floods(times, UNTIL_MS, bounds)
        expected += own
        assert loads[o]["alarms"] == len(times)
        assert loads[o]["floods"] == len(own)
        assert loads[o]["flood_ms"] == sum(ended - began for began, ended in own)
        if times:
            assert (loads[o]["peak_n"], loads[o]["peak_ms"]) == slow_peak(times)
    assert floods.tolist() == [list(each) for each in expected]


@given(ALARMS, ALARMS, FLOODS)
def test_own_alarms_on_top_of_common_ones_are_the_load_of_both(
    own: list[tuple[int, int]], common: list[tuple[int, int]], flood: tuple[int, int]
) -> None:
    how = measure(*flood)
    base = keys_of(common)
    loads, starts, _ = loaded(base, how)
    most = most_of(loads)
    scratch = (np.zeros(1, LOAD), np.zeros((0, 2), np.int64))
    load_setting(keys_of(own), base, starts, loads, how, scratch, most)
    both, _, _ = loaded(keys_of(own + common), how)
    assert most == most_of(both)


def test_floods_beyond_the_room_are_counted_but_not_kept() -> None:
    keys = keys_of([(0, 700_000 * k + j) for k in range(3) for j in range(3)])
    loads = np.zeros(N_OPERATORS, LOAD)
    starts = np.searchsorted(keys, np.arange(N_OPERATORS + 1) * SPAN_MS)
    floods = np.zeros((1, 2), np.int64)
    assert load_operators(keys, starts, measure(2, 1), loads, floods) == 3
    assert floods[0].tolist() == [SINCE_MS + 2, SINCE_MS + PERIOD_MS + 2]


def test_a_flood_ends_when_more_leave_than_come_at_the_same_moment() -> None:
    keys = keys_of([(0, 0), (0, 1), (0, 1), (0, PERIOD_MS + 1)])
    loads, _, floods = loaded(keys, measure(2, 2))
    assert floods.tolist() == [[SINCE_MS + 1, SINCE_MS + PERIOD_MS + 1]]
    assert loads[0]["peak_n"] == 3
    # with one more that comes just then there are enough
    _, _, floods = loaded(keys_of([*[(0, 1)] * 3, *[(0, PERIOD_MS + 1)] * 2]), measure(2, 2))
    assert floods.tolist() == [[SINCE_MS + 1, SINCE_MS + 2 * PERIOD_MS + 1]]

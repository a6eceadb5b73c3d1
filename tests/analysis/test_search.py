"""Searches, objectives and the front."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.tuning.objective import Aim, Objective, Requirement, best_first, front
from engine.analysis.tuning.search import Adaptive, Grid, Random, Told, search_for
from engine.analysis.tuning.settings import Settings, Values
from engine.analysis.tuning.space import parse
from engine.errors import SettingsError
from engine.rules import Rules
from tests.analysis.studies import ROOMY, SPACE
from tests.engine.replays import RULES

ROOT = Path(__file__).parents[2]


def bound(text: str) -> Settings:
    return Settings(parse(text), Rules.parse(RULES))


# --- searches -------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_once() -> None:
    grid = Grid(bound(SPACE))
    found = grid.batch(0, [], grid.n)
    assert found == list(itertools.product([8, 10, 14, 22], [10, 60, 200], [5, 60]))
    assert grid.n == 24 and grid.batch(1, [], grid.n) == []


def test_a_grid_too_large_or_without_steps_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match="a grid needs a step, n or values for 'profiles"):
        Grid(bound(ROOMY))
    with pytest.raises(SettingsError, match="24 settings, and at most 10 may be tried"):
        Grid(bound(SPACE), 10)
    many = "version = 1\n" + "".join(
        f"[[vary]]\nkey = 'fusion.detectors.{kind}'\nlow = 0\nhigh = 1\nn = 100\n"
        for kind in ("high", "low", "rise")
    )
    with pytest.raises(SettingsError, match="1,000,000 settings, and at most 100,000"):
        Grid(bound(many))


def test_draws_are_distinct_and_the_same_for_a_seed_however_many_are_wanted() -> None:
    few, many, other = (Random(bound(ROOMY), n, seed) for n, seed in ((10, 3), (50, 3), (50, 4)))
    ten, fifty = few.batch(0, [], 10), many.batch(0, [], 50)
    assert ten == fifty[:10] and len(set(fifty)) == 50
    assert other.batch(0, [], 50) != fifty
    assert few.batch(1, [], 0) == []


def test_draws_lie_within_their_ranges_and_on_their_steps() -> None:
    for blue, hold_s, deadband in Random(bound(ROOMY), 200, 0).batch(0, [], 200):
        assert 5 <= blue <= 22 and 5 <= hold_s <= 200
        assert deadband * 2 == int(deadband * 2) and 0 <= deadband <= 9


def test_draws_by_ratio_are_spread_by_ratio() -> None:
    holds = [values[1] for values in Random(bound(ROOMY), 400, 0).batch(0, [], 400)]
    assert 0.4 < np.mean(np.array(holds) < math.sqrt(5 * 200)) < 0.6


def test_a_small_space_is_drawn_whole_and_no_more() -> None:
    random = Random(bound(SPACE), 1000, 1)
    assert random.n == 24
    assert sorted(random.batch(0, [], 24)) == sorted(Grid(bound(SPACE)).batch(0, [], 24))


def bowl(values: Values) -> tuple[float, ...]:
    blue, hold_s, deadband = values
    return ((blue - 9) ** 2 + (math.log(hold_s / 40)) ** 2 * 10 + (deadband - 3) ** 2,)


def told_of(search: Adaptive, n: int) -> list[Told]:
    told: list[Told] = []
    number = 0
    while len(told) < n:
        batch = search.batch(number, told, n - len(told))
        assert batch
        told += [Told(values=values, costs=bowl(values)) for values in batch]
        number += 1
    return told


def test_an_adaptive_search_finds_better_than_draws_do() -> None:
    adaptive, random = [], []
    for seed in range(3):
        adaptive.append(min(t.costs[0] for t in told_of(Adaptive(bound(ROOMY), 80, seed), 80)))
        drawn = Random(bound(ROOMY), 80, seed).batch(0, [], 80)
        random.append(min(bowl(values)[0] for values in drawn))
    assert np.mean(adaptive) < 0.5 * np.mean(random)


def test_an_adaptive_batch_depends_on_what_was_told_alone() -> None:
    told = told_of(Adaptive(bound(ROOMY), 64, 5), 48)
    fresh = Adaptive(bound(ROOMY), 500, 5)
    assert fresh.batch(3, told, 16) == Adaptive(bound(ROOMY), 64, 5).batch(3, told, 16)
    assert fresh.batch(3, told, 8) == fresh.batch(3, told, 16)[:8]
    assert len({each.values for each in told}) == 48


def test_an_adaptive_search_of_several_objectives_looks_at_all_of_them() -> None:
    search = Adaptive(bound(ROOMY), 200, 0)
    told: list[Told] = []
    for number in range(8):
        batch = search.batch(number, told, 16)
        told += [Told(values=v, costs=(abs(v[0] - 6), abs(v[0] - 12))) for v in batch]
    late = [each.values[0] for each in told[-48:]]
    assert np.mean([(5.5 <= blue <= 12.5) for blue in late]) > 0.7
    assert min(late) < 7.5 and max(late) > 10.5


def test_an_adaptive_search_ends_where_the_space_does() -> None:
    search = Adaptive(bound(SPACE), 1000, 0)
    told: list[Told] = []
    for number in range(4):
        batch = search.batch(number, told, 24 - len(told))
        told += [Told(values=values, costs=(values[0],)) for values in batch]
    assert len(told) == search.n == 24


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_proposals_are_the_same_in_every_process(hash_seed: str) -> None:
    code = (
        "from tests.analysis.test_search import *\n"
        "print(told_of(Adaptive(bound(ROOMY), 64, 7), 48)[-1].values)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env={"PYTHONHASHSEED": hash_seed, "PATH": "", "PYTHONPATH": str(ROOT)},
    )
    here = told_of(Adaptive(bound(ROOMY), 64, 7), 48)[-1].values
    assert done.stdout.strip() == str(here)


def test_each_method_has_its_search() -> None:
    for method, kind in (("grid", Grid), ("random", Random), ("adaptive", Adaptive)):
        assert isinstance(search_for(bound(SPACE), method, None, 0), kind)


# --- objectives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["missed", "min", "least missed", "min missed yellow", "min a-b"])
def test_an_objective_that_can_t_be_read_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="must read"):
        Objective.parse(text)


@pytest.mark.parametrize("text", ["missed", "missed < ", "missed <= few", "<= 3", "a <= 1.2.3"])
def test_a_requirement_that_can_t_be_read_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="must read"):
        Requirement.parse(text)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("a <= 2", [True, True, False, False]),
        ("a<2", [True, False, False, False]),
        ("a >= 2", [False, True, True, False]),
        ("a > 2", [False, False, True, False]),
        ("a = 2", [False, True, False, False]),
        ("a == 2e0", [False, True, False, False]),
        ("a ≤ 2", [True, True, False, False]),
    ],
)
def test_a_requirement_is_met_by_what_it_says_and_never_by_nothing(
    text: str, met: list[bool]
) -> None:
    requirement = Requirement.parse(text)
    figures = np.array([1, 2, 3, np.nan])
    assert requirement.met(figures).tolist() == met
    assert ((requirement.excess(figures) == 0) == met).all()


def test_a_figure_that_does_not_exist_is_refused_with_the_nearest() -> None:
    aim = Aim.parse(["min missed_yelow"], [])
    with pytest.raises(SettingsError, match=r"did you mean missed_yellow\?"):
        aim.check(["missed_yellow", "alarms"], truth=True)
    with pytest.raises(SettingsError, match="need --truth"):
        Aim.parse(["min alarms"], ["missed_red <= 0"]).check(["alarms"], truth=False)
    with pytest.raises(SettingsError, match="stands twice"):
        Aim.parse(["min a", "max a"], [])


def test_what_misses_a_requirement_is_worse_than_all_that_does_not() -> None:
    aim = Aim.parse(["min a", "max b"], ["c <= 10"])
    figures = {
        "a": np.array([1e6, 0, 0.0, 5]),
        "b": np.array([0, 1e6, 1e6, np.nan]),
        "c": np.array([10, 11, 20.0, 1]),
    }
    assert aim.feasible(figures).tolist() == [True, False, False, True]
    costs = aim.costs(figures)
    assert best_first(costs).tolist() == [3, 0, 1, 2]


@given(costs=st.lists(st.tuples(*[st.integers(0, 4) for _ in range(3)]), min_size=0, max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_front_is_what_no_other_setting_betters(costs: list[tuple[int, ...]]) -> None:
    table = np.array(costs, float).reshape(-1, 3)

    def bettered(mine: tuple[int, ...]) -> bool:
        return any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in costs
        )

    assert front(table).tolist() == [not bettered(mine) for mine in costs]

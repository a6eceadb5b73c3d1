"""Fusion, levels, episodes and time; kernels against oracle and by hand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import (
    BY_LIMIT,
    BY_RULE,
    BY_SCORE,
    CAUSE_NAMES,
    CONTEXT,
    FALL,
    HIGH,
    N_KINDS,
    RANGE,
    SIGNAL_RULE,
    TERM,
    TICK,
    TRANSITION_NAMES,
    WINDOW,
)
from tests.kernel_line import Line, assert_judges_as_oracle
from tests.oracle import Oracle, Record
from tests.plans import NONE, PERCENT, START_MS, category_row, make_plan, params_row, window_row
from tests.worlds import world, worlds

N_SEEDS = 40 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 200
PHASES = ("a change", "due", "a context")


@given(worlds(), st.lists(st.integers(0, 80), max_size=4))
def test_transitions_are_as_the_oracle_says(case, cuts):
    assert_judges_as_oracle(case.plan, case.records, cuts)


@given(worlds(), st.integers(1, 3))
def test_transitions_do_not_depend_on_the_room_for_them(case, most):
    assert_judges_as_oracle(case.plan, case.records, room=300, most=most)


def test_room_for_one_transition_is_enough_for_the_seeded_corpus():
    for seed in range(N_SEEDS):
        case = world(Random(seed), 120)
        assert_judges_as_oracle(case.plan, case.records, room=300, most=1)


def test_seeded_corpus_is_fused_as_the_oracle_says():
    for seed in range(N_SEEDS):
        case = world(Random(seed), 150)
        # long batches take the quiet path, short ones never do
        cuts = range(0, 150, 11) if seed % 2 else ()
        assert_judges_as_oracle(case.plan, case.records, cuts, threads=1 + seed % 3)


def test_seeded_corpus_reaches_every_transition_cause_and_phase():
    seen: Counter[Any] = Counter()
    for seed in range(N_SEEDS):
        case = world(Random(seed), 150)
        for t in Oracle(case.plan).push_all(case.records):
            seen[TRANSITION_NAMES[t["kind"]]] += 1
            seen[CAUSE_NAMES[t["cause"]]] += 1
            seen[PHASES[t["phase"]]] += 1
            seen["late"] += t["late"]
            seen["coupled"] += t["coupled_from"] >= 0
            seen["fading contributor"] += any(c["level"] == 0 for c in t["contributor"])
            seen["three contributors"] += len(t["contributor"]) == 3
            seen["later episode"] += t["seq"] == 0 and t["episode_ms"] > START_MS + 20_000
    wanted = [*TRANSITION_NAMES, *CAUSE_NAMES[:3], *PHASES, "late", "coupled", "fading contributor"]
    wanted += ["three contributors", "later episode"]
    assert [what for what in wanted if not seen[what]] == []


# By hand. One quantity, limits 10, 20, 30, 40: a reading of 10k + 5 is level k. A limit is no
# floor unless said so, and the percents are 25, 50, 75, 100.


def plan_of(
    counts: list[int] = [1],  # noqa: B006
    *,
    category: Mapping[str, Any] | None = None,
    edges: list[tuple[int, int, float]] = [],  # noqa: B006
    absent_ms: int = 0,
    row: Mapping[str, Any] | None = None,
    **more: Any,
) -> SimpleNamespace:
    """Make a plan of sources with so many sensors each."""
    params = params_row(**{"high": [10, 20, 30, 40], "floor": 0, **(row or {})})
    n = sum(counts)
    return make_plan(
        params,
        [],
        rows=[0] * n,
        absent_ms=[absent_ms] * n,
        counts=counts,
        edges=edges,
        category=category_row(**(category or {})),
        **more,
    )


def at(s: float, v: float, sensor: int = 0) -> Record:
    """Make a reading at a second."""
    return Record(sensor, START_MS + round(s * 1000), v)


def tick(s: float) -> Record:
    """Make a tick at a second."""
    return Record(TICK, START_MS + round(s * 1000))


def judged(plan: SimpleNamespace, records: list[Record]) -> list[dict[str, Any]]:
    """Return the transitions of the kernels, which are the oracle's as well."""
    return assert_judges_as_oracle(plan, records)


def steps(plan: SimpleNamespace, records: list[Record]) -> list[tuple[float, int, int]]:
    """Return (second, from, to) of each transition."""
    return [
        ((t["event_ms"] - START_MS) / 1000, t["level_from"], t["level"])
        for t in judged(plan, records)
    ]


def test_one_signal_gives_its_own_percent():
    (raised,) = judged(plan_of(), [at(0, 25.0)])
    assert raised["score"] == 50.0
    assert (raised["level_from"], raised["level"], raised["seq"]) == (0, 2, 0)
    assert raised["contributor"] == [
        {"value": 25.0, "sensor": 0, "percent": 50.0, "kind": HIGH, "level": 2, "window": 0}
    ]


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_lone_signal_reaches_a_limit_of_just_its_percent(percent):
    # 100 · (1 − (1 − 0.2)) is 19.999999999999996
    row = params_row(high=[10.0, 20.0, 30.0, 40.0], percent=[[0, percent, 100, 100, 100]] * N_KINDS)
    category = category_row(raise_at=[percent, np.inf, np.inf, np.inf])
    row["floor"] = 0
    plan = make_plan(row, [], rows=[0], absent_ms=[0], counts=[1], category=category)
    (raised,) = judged(plan, [at(0, 15.0)])
    assert (raised["score"], raised["level"]) == (percent, 1)


def test_signals_of_one_source_combine_as_noisy_or():
    # 1 − (1 − 0.5)(1 − 0.5) = 0.75
    transitions = judged(plan_of([2]), [at(0, 25.0), at(1, 25.0, sensor=1)])
    assert [t["score"] for t in transitions] == [50.0, 75.0]


def test_three_strongest_contributors_explain_a_transition():
    plan = plan_of([5])
    values = [15.0, 25.0, 15.0, 35.0, 5.0]
    last = judged(plan, [at(0, v, sensor=i) for i, v in enumerate(values)])[-1]
    assert [c["sensor"] for c in last["contributor"]] == [3, 1, 0]


def test_level_rises_at_once_and_falls_after_its_hold():
    # t        0    10      15        20
    # v        25   5
    # score    50   held, fading   …
    # half-life 1 s: the score is nothing after a few seconds; hold 5 s
    category = {"half_life_ms": 1000, "hold_ms": 5000}
    records = [at(0, 25.0), at(10, 5.0), *[tick(10 + s / 2) for s in range(60)]]
    transitions = steps(plan_of(category=category), records)
    assert transitions[0] == (0.0, 0, 2)
    assert [(a, b) for _, a, b in transitions[1:]] == [(2, 0)]
    # below 40 at the first whole second after 10 (25 %): held until 5 s later
    assert transitions[1][0] == 16.0


def test_hold_starts_anew_when_the_level_is_called_for_again():
    # limits as floors, no memory: 25 (yellow) at 0, 5 at 10, 25 at 13, 5 at 14
    category = {"half_life_ms": 1000, "hold_ms": 5000, "raise_at": NONE}
    plan = plan_of(category=category, row={"floor": 1})
    records = [at(0, 25.0), at(10, 5.0), at(13, 25.0), at(14, 5.0)]
    assert steps(plan, [*records, tick(18.9), tick(30)]) == [(0.0, 0, 2), (19.0, 2, 0)]


def test_fall_goes_to_what_is_called_for_when_the_hold_ends():
    category = {"hold_ms": 5000, "raise_at": NONE}
    plan = plan_of(category=category, row={"floor": 1})
    records = [at(0, 45.0), at(10, 25.0), at(12, 15.0), tick(30)]
    assert steps(plan, records) == [(0.0, 0, 4), (15.0, 4, 1)]


def test_severity_that_has_gone_fades_with_its_half_life():
    # red at 0, gone at 1: 50 % are left after a half-life of 64 s, 25 % after two
    category = {"half_life_ms": 64_000}
    records = [at(0, 45.0), at(1, 5.0), *[tick(s) for s in range(2, 400)]]
    falls = steps(plan_of(category=category), records)
    assert falls[0] == (0.0, 0, 4)
    # 80, 60, 40, 20 are crossed at 64·log2(100/limit) s after 1, on the first whole step below
    expected = [1 + np.floor(64 * np.log2(100 / limit)) + 1 for limit in (80, 60, 40, 20)]
    assert [s for s, _, _ in falls[1:]] == expected
    assert [(a, b) for _, a, b in falls[1:]] == [(4, 3), (3, 2), (2, 1), (1, 0)]


def test_fading_is_found_by_one_late_tick_as_by_many():
    category = {"half_life_ms": 64_000, "hold_ms": 3000}
    start = [at(0, 45.0), at(1, 5.0)]
    often = steps(plan_of(category=category), [*start, *[tick(s) for s in range(2, 400)]])
    once = steps(plan_of(category=category), [*start, tick(399)])
    assert often == once


def test_fading_contributor_keeps_the_value_that_explains_it():
    category = {"half_life_ms": 64_000}
    transitions = judged(plan_of(category=category), [at(0, 45.0), at(1, 5.0), tick(50)])
    (contributor,) = transitions[1]["contributor"]
    assert (contributor["value"], contributor["kind"], contributor["level"]) == (45.0, HIGH, 0)
    assert 75 < contributor["percent"] < 80


def test_score_deadband_keeps_a_level():
    # yellow at 40, deadband 15: one of two signals of 25 % may go (44 → 25 + fading), until 25
    category = {"half_life_ms": 1000, "deadband": 15.0}
    records = [at(0, 15.0), at(0, 15.0, sensor=1), at(5, 5.0), *[tick(s) for s in range(5, 20)]]
    assert steps(plan_of([2], category=category), records) == [(0.0, 0, 1), (0.0, 1, 2)]


def test_closed_limit_is_a_floor_that_fusion_never_hides():
    # the profile weighs nothing, the limit is red: the level is red, by the limit
    plan = plan_of(row={"percent": [[0] * 5] * N_KINDS, "floor": 1})
    (raised,) = judged(plan, [at(0, 45.0)])
    assert (raised["level"], raised["cause"], raised["score"]) == (4, BY_LIMIT, 0.0)
    assert raised["contributor"] == []


def rule_plan(rule: dict[str, Any], terms: list[tuple[int, int, int, int]]) -> SimpleNamespace:
    """Make two sources, the first coupled into the second, with a rule; scores say nothing."""
    rules = np.zeros(1, SIGNAL_RULE)
    rules["categories"], rules["level"] = -1, 3
    for name, value in rule.items():
        rules[name] = value
    return plan_of(
        [2, 1],
        edges=[(0, 1, 0.0)],
        category={"raise_at": NONE},
        row={"percent": PERCENT, "fall": [0.001, *NONE[1:]], "half_ms": 1000},
        terms=np.array(terms, TERM),
        signal_rules=rules,
    )


TWO_TERMS = [(0, HIGH, 2, 0), (0, FALL, 1, 0)]


def test_rule_of_all_terms_holds_only_with_every_term():
    plan = rule_plan({"all": 0b11}, TWO_TERMS)
    high, falling = at(0, 25.0), [at(0, 9.0, sensor=1), at(1, 7.0, sensor=1)]
    assert steps(plan, [high]) == []
    (raised,) = judged(plan, [*falling, high, at(1, 26.0)])
    assert (raised["level"], raised["cause"], raised["rule"]) == (3, BY_RULE, 0)


def test_rule_of_any_term_and_rule_of_none():
    assert steps(rule_plan({"any": 0b11}, TWO_TERMS), [at(0, 25.0)]) == [(0.0, 0, 3)]
    plan = rule_plan({"all": 0b01, "none": 0b10}, TWO_TERMS)
    falling = [at(0, 9.0, sensor=1), at(1, 7.0, sensor=1)]
    assert steps(plan, [at(0, 25.0), *falling]) == [(0.0, 0, 3), (1.0, 3, 0)]


def test_near_term_sees_only_sources_that_are_coupled_in():
    plan = rule_plan({"all": 0b1}, [(0, HIGH, 2, 1)])
    (raised,) = judged(plan, [at(0, 25.0)])  # a sensor of source 0, which is near source 1
    assert (raised["source"], raised["trigger"], raised["level"]) == (1, 0, 3)
    assert judged(plan, [at(0, 25.0, sensor=2)]) == []


def test_first_rule_of_the_highest_level_is_named():
    rules = np.zeros(3, SIGNAL_RULE)
    rules["categories"], rules["any"], rules["level"] = -1, 1, [2, 4, 4]
    plan = plan_of(
        category={"raise_at": NONE}, terms=np.array([(0, HIGH, 1, 0)], TERM), signal_rules=rules
    )
    (raised,) = judged(plan, [at(0, 15.0)])
    assert (raised["level"], raised["rule"]) == (4, 1)


def test_score_that_calls_for_as_much_as_a_rule_is_the_cause():
    rules = np.zeros(1, SIGNAL_RULE)
    rules["categories"], rules["any"], rules["level"] = -1, 1, 1
    plan = plan_of(terms=np.array([(0, HIGH, 1, 0)], TERM), signal_rules=rules)
    (raised,) = judged(plan, [at(0, 15.0)])
    assert (raised["level"], raised["cause"], raised["rule"]) == (1, BY_SCORE, 0)


def test_neighbour_rises_by_the_weighted_score_of_its_origin():
    # source 0 at 100 %, weight 0.5: source 1 scores 50 without a signal of its own
    plan = plan_of([1, 1], edges=[(0, 1, 0.5)])
    origin, neighbour = judged(plan, [at(0, 45.0)])
    assert (origin["source"], origin["score"], origin["coupled_from"]) == (0, 100.0, -1)
    assert (neighbour["source"], neighbour["score"], neighbour["level"]) == (1, 50.0, 2)
    assert (neighbour["coupled_from"], neighbour["coupled_percent"]) == (0, 50.0)
    assert neighbour["trigger"] == 0


def test_influence_goes_one_hop_and_not_back():
    # 0 → 1 → 2 and 1 → 0: a signal of 0 reaches 1 only
    plan = plan_of([1, 1, 1], edges=[(0, 1, 0.9), (1, 2, 0.9), (1, 0, 0.9)])
    assert [t["source"] for t in judged(plan, [at(0, 45.0)])] == [0, 1]


def test_neighbour_falls_as_its_origin_fades():
    category = {"half_life_ms": 4000}
    plan = plan_of([1, 1], edges=[(0, 1, 1.0)], category=category)
    records = [at(0, 45.0), at(1, 5.0), *[tick(s) for s in range(2, 40)]]
    transitions = judged(plan, records)
    by_source = [[t["level"] for t in transitions if t["source"] == s] for s in (0, 1)]
    assert by_source[0] == by_source[1] == [4, 3, 2, 1, 0]


def test_class_and_context_multiply_the_score():
    contexts = np.zeros(1, CONTEXT)
    contexts["from_ms"], contexts["to_ms"] = START_MS + 10_000, START_MS + 20_000
    contexts["categories"], contexts["district"], contexts["factor"] = -1, -1, 2.0
    category = {"class_factor": [1.0, 1.0, 1.0, 1.5]}
    plan = plan_of(category=category, contexts=contexts, static_class=[3])
    # 25 % × 1.5, then × 2 while the context is in force; the first tick after a turn judges at it
    transitions = judged(plan, [at(0, 15.0), tick(9.9), tick(10.5), tick(19.9), tick(30)])
    assert [t["score"] for t in transitions] == [37.5, 75.0, 37.5]
    assert [(t["event_ms"] - START_MS) // 1000 for t in transitions] == [0, 10, 20]
    assert [t["factor"] for t in transitions] == [1.5, 3.0, 1.5]
    assert [t["phase"] for t in transitions] == [0, 2, 2]


def test_context_of_another_district_or_category_has_no_say():
    contexts = np.zeros(2, CONTEXT)
    contexts["from_ms"], contexts["to_ms"], contexts["factor"] = 0, 2**42, 3.0
    contexts["district"], contexts["categories"] = [5, -1], [-1, 0b10]
    (raised,) = judged(plan_of(contexts=contexts, district=[4]), [at(0, 15.0)])
    assert raised["factor"] == 1.0


def test_score_never_exceeds_a_hundred():
    category = {"class_factor": [9.0] * 4}
    (raised,) = judged(plan_of(category=category), [at(0, 25.0)])
    assert raised["score"] == 100.0


def test_episodes_are_numbered_from_zero_and_never_start_at_the_same_time():
    # up and down twice within one millisecond of event time
    category = {"raise_at": NONE}
    plan = plan_of(category=category, row={"floor": 1})
    transitions = judged(plan, [at(0, 25.0), at(0, 5.0), at(0, 25.0), at(0, 45.0), at(1, 5.0)])
    assert [(t["episode_ms"] - START_MS, t["seq"]) for t in transitions] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip
    assert [TRANSITION_NAMES[t["kind"]] for t in transitions] == [
        "raise", "clear", "raise", "escalate", "clear",
    ]  # fmt: skip


def test_source_is_never_judged_before_it_was_judged_last():
    # the second sensor's clock is ten seconds behind
    plan = plan_of([2], late_after_ms=5000)
    transitions = judged(plan, [at(10, 15.0), at(0, 45.0, sensor=1)])
    assert [t["event_ms"] - START_MS for t in transitions] == [10_000, 10_000]
    assert [t["trigger_ms"] - START_MS for t in transitions] == [10_000, 0]
    assert [t["late"] for t in transitions] == [0, 1]


def test_tick_judges_what_is_due_in_order_of_due_time_and_source():
    # limits as floors, hold 5 s; source 2 falls at 1 s, 0 and 1 at 2 s
    category = {"raise_at": NONE, "hold_ms": 5000}
    plan = plan_of([1, 1, 1], category=category, row={"floor": 1})
    up = [at(0, 25.0, sensor=s) for s in (1, 2, 0)]
    down = [at(1, 5.0, sensor=2), at(2, 5.0, sensor=1), at(2, 5.0, sensor=0)]
    transitions = judged(plan, [*up, *down, tick(60)])[3:]
    assert [(t["source"], t["event_ms"] - START_MS) for t in transitions] == [
        (2, 6000), (0, 7000), (1, 7000),
    ]  # fmt: skip


def test_window_that_is_not_measured_anew_keeps_value_and_number():
    # the second window's range is 3 (orange); the sensor falls silent, which measures nothing anew;
    # then another sensor makes the source's level rise
    windows = [window_row(), window_row(aggregate=RANGE, high=[1, 2, 3, 4])]
    rows = np.concatenate([params_row(n_windows=2), params_row(high=[10, 20, 30, 40])])
    plan = make_plan(rows, windows, rows=[0, 1], absent_ms=[5000, 0], counts=[2])
    records = [at(0, 0.0), at(1, 3.0), tick(60), at(61, 45.0, sensor=1)]
    explained = judged(plan, records)[-1]["contributor"]
    assert explained[1] == {
        "value": 3.0, "sensor": 0, "percent": 75.0, "kind": WINDOW, "level": 3, "window": 1,
    }  # fmt: skip


@pytest.mark.parametrize("gap_s", [86_400 * 90, 86_400 * 365 * 20])
def test_gap_of_months_and_years_is_judged_to_its_end(gap_s):
    category = {"half_life_ms": 600_000, "hold_ms": 60_000, "deadband": 5.0}
    plan = plan_of([2], category=category)
    records = [at(0, 45.0), at(0, 15.0, sensor=1), at(1, 5.0), tick(gap_s)]
    line = Line(plan)
    line.judge_all(records)
    assert line.state.source["level"].tolist() == [1]


def test_a_fading_score_that_stands_at_its_limit_for_a_moment_still_falls():
    # a judgement in the very second in which 40 has faded to 20, where blue is held from 20 on
    row = params_row(high=[10.0, 20.0, 30.0, 40.0], percent=[[0, 40, 50, 75, 100]] * N_KINDS)
    row["floor"] = 0
    category = category_row(raise_at=[25, np.inf, np.inf, np.inf], deadband=5.0)
    plan = make_plan(row, [], rows=[0, 0], absent_ms=[0, 0], counts=[2], category=category)
    records = [at(0, 15.0), at(60, 0.0), at(120, 0.0, sensor=1)]
    records += [Record(TICK, START_MS + 1000 * s) for s in range(120, 200)]
    transitions = judged(plan, records)
    assert [t["level"] for t in transitions] == [1, 0]

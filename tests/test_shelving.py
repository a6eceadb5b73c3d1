"""Each command by hand, above its timeline; readings of 15, 25, 35, 45 are blue to red."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.carry_out import carry_out
from engine.commands import (
    Acknowledge,
    Command,
    InService,
    OutOfService,
    Shelve,
    Suppress,
    Unshelve,
    Unsuppress,
)
from kernels.layout import CAUSE_NAMES, LEVEL_NAMES, MAX_SUPPRESSED, TRANSITION_NAMES
from tests.command_worlds import Step, assert_obeys_as_oracle, batches
from tests.kernel_line import Line
from tests.kernels.test_fuse import at, plan_of, tick
from tests.plans import NONE, START_MS

FLOORS = {"category": {"raise_at": NONE}, "row": {"floor": 1}}
"""Limits alone set the level: it is that of the newest reading."""


def order(kind: type[Command], s: float, **more: Any) -> Command:
    """Make a command at a second; ends are given in seconds, too."""
    ends = {f"{key[:-2]}_ms": START_MS + round(v * 1000) for key, v in more.items() if "_s" in key}
    rest = {key: value for key, value in more.items() if "_s" not in key}
    if not rest:
        rest = {"source": "source-0"}
    return kind(event_ms=START_MS + round(s * 1000), id="1", by="li", **ends, **rest)


def shelve(s: float, until: float, source: str = "source-0") -> Command:
    """Shelve from a second until a second."""
    return order(Shelve, s, until_s=until, source=source)


def told(steps: list[Step], plan: Any = None, **more: Any) -> list[str]:
    """Return what people see, as "second what level cause", of a log that the oracle agrees on."""
    seen = []
    plan = plan_of(**{**FLOORS, **more}) if plan is None else plan
    for step, answer in zip(batches(steps), assert_obeys_as_oracle(plan, steps), strict=True):
        transitions = answer
        if isinstance(step, Command):
            refused, trace, transitions = answer
            second = (step.event_ms - START_MS) / 1000
            seen.append(f"{second:g} {step.name} {refused or LEVEL_NAMES[trace[1]]}")
        seen += [
            f"{(t['event_ms'] - START_MS) / 1000:g} {TRANSITION_NAMES[t['kind']]} "
            f"{LEVEL_NAMES[t['level']]} {CAUSE_NAMES[t['cause']]}"
            for t in transitions
        ]
    return seen


def test_shelving_hides_an_alert_until_its_end_and_brings_back_what_stands():
    # t      0   5            20
    # level  ▃▃▃▃▃▃▃▃▁▁▁▁▁▁▁▁▁▁▁▁   orange, blue from 10
    # shown  ▃▃▃_______________▁▁   shelved 5 to 20
    steps = [at(0, 35.0), tick(0), shelve(5, 20), at(10, 15.0), tick(19), tick(25)]
    assert told(steps) == [
        "0 raise orange limit",
        "5 shelve orange",
        "5 clear normal shelved",
        "20 raise blue returned",
    ]


def test_shelving_that_ends_after_the_alert_is_gone_says_nothing():
    # level  ▃▃▃▃▃______
    # shown  ▃▃_________   shelved 5 to 20
    steps = [at(0, 35.0), tick(0), shelve(5, 20), at(10, 5.0), tick(30)]
    assert told(steps) == ["0 raise orange limit", "5 shelve orange", "5 clear normal shelved"]


def test_red_passes_through_shelving_at_once_and_hides_again_when_it_is_over():
    # t      5      10     15     20
    # level  ▃▃▃▃▃▃▃█▇▇▇▇▇▇▃▃▃▃▃▃▃▃▃
    # shown  _______█▇▇▇▇▇▇_______▃▃▃
    steps = [shelve(0, 20), at(5, 35.0), tick(6), at(10, 45.0), at(15, 35.0), tick(40)]
    assert told(steps) == [
        "0 shelve normal",
        "10 raise red limit",
        "15 clear normal shelved",
        "20 raise orange returned",
    ]


def test_red_alert_stays_shown_when_its_source_is_shelved():
    steps = [at(0, 45.0), shelve(5, 20), at(10, 35.0), at(12, 45.0), tick(30)]
    assert told(steps) == [
        "0 raise red limit",
        "5 shelve red",
        "10 clear normal shelved",
        "12 raise red limit",
    ]


def test_alert_that_rises_while_shelved_is_shown_at_the_end_only():
    steps = [shelve(0, 20), at(5, 15.0), at(8, 25.0), tick(19.9), tick(20)]
    assert told(steps) == ["0 shelve normal", "20 raise yellow returned"]


def test_unshelving_shows_at_once_and_is_refused_where_nothing_is_shelved():
    steps = [at(0, 25.0), shelve(1, 60), order(Unshelve, 5), order(Unshelve, 6), tick(90)]
    assert told(steps) == [
        "0 raise yellow limit",
        "1 shelve yellow",
        "1 clear normal shelved",
        "5 unshelve normal",
        "5 raise yellow returned",
        "6 unshelve not_shelved",
    ]


def test_shelving_again_moves_the_end_and_the_same_end_again_is_refused():
    # shelved until 20, then until 40 and then, after all, until 30
    steps = [at(0, 25.0), shelve(1, 20), shelve(2, 40), shelve(2, 40), tick(25), shelve(26, 30)]
    assert told([*steps, tick(35)])[3:] == [
        "2 shelve normal",
        "2 shelve already_shelved",
        "26 shelve normal",
        "30 raise yellow returned",
    ]


def test_shelving_whose_end_is_past_is_refused():
    assert told([tick(60), shelve(30, 60)]) == ["30 shelve over"]


def test_a_reading_that_leads_does_not_end_shelving_a_tick_does():
    steps = [at(0, 25.0), shelve(1, 20), at(21, 15.0), tick(19), tick(20)]
    assert told(steps)[3:] == ["21 raise blue returned"]


def test_one_late_tick_finds_the_end_as_many_do():
    start = [at(0, 25.0), shelve(1, 20), order(Suppress, 1, from_s=25, until_s=30)]
    many = told([*start, *[tick(s) for s in range(2, 60)]])
    assert told([*start, tick(3600)]) == many
    assert many[4:] == [
        "20 raise yellow returned",
        "25 clear normal suppressed",
        "30 raise yellow returned",
    ]


def test_maintenance_window_hides_from_its_beginning_to_its_end():
    # t      0      10        20
    # level  ▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂
    # shown  ▂▂▂▂▂▂▂__________▂▂▂   planned at 1
    steps = [at(0, 25.0), order(Suppress, 1, from_s=10, until_s=20), tick(9), tick(15), tick(25)]
    assert told(steps) == [
        "0 raise yellow limit",
        "1 suppress yellow",
        "10 clear normal suppressed",
        "20 raise yellow returned",
    ]


def test_maintenance_window_lets_red_pass():
    steps = [order(Suppress, 0, from_s=0, until_s=60), tick(1), at(5, 35.0), at(6, 45.0)]
    assert told(steps) == ["0 suppress normal", "6 raise red limit"]


def test_window_of_a_district_or_category_hides_its_sources_alone():
    for scope in ({"district": "west"}, {"category": "kind-1"}):
        plan = plan_of([1, 1, 1], source_category=[0, 1, 1], district=[0, 1, 1], row={"floor": 1})
        plan.category = np.concatenate([plan.category] * 2)
        plan.category["raise_at"] = NONE
        up = [at(0, 25.0, sensor=s) for s in range(3)]
        steps = [*up, tick(0), order(Suppress, 1, from_s=0, until_s=20, **scope), tick(30)]
        line = Line(plan)
        for batch in batches(steps[:-1]):
            if isinstance(batch, Command):
                found = carry_out(line, batch).transitions
            else:
                line.judge_all(batch)
        assert found["source"].tolist() == [1, 2]
        ended = [s for s in told(steps, plan) if "returned" in s]
        assert ended == ["20 raise yellow returned"] * 2


def test_windows_and_shelving_that_overlap_hide_until_the_last_is_over():
    # shelved   ├──────────┤        5 to 15
    # window A        ├────────┤    10 to 20
    # window B                ├──┤  19 to 25
    # shown     ▂▂___________________▂▂
    windows = [order(Suppress, 1, from_s=a, until_s=b) for a, b in ((10, 20), (19, 25))]
    steps = [at(0, 25.0), *windows, tick(4), shelve(5, 15), *[tick(s) for s in range(5, 40)]]
    assert told(steps)[3:] == [
        "5 shelve yellow",
        "5 clear normal shelved",
        "25 raise yellow returned",
    ]


def test_unsuppress_ends_windows_begun_and_planned_of_the_same_scope():
    windows = [order(Suppress, 1, from_s=a, until_s=b) for a, b in ((0, 20), (30, 40))]
    other = order(Suppress, 1, from_s=50, until_s=60, category="kind-0")
    steps = [at(0, 25.0), tick(0), *windows, other, order(Unsuppress, 5), order(Unsuppress, 6)]
    assert told([*steps, *[tick(s) for s in range(7, 90)]])[5:] == [
        "5 unsuppress normal",
        "5 raise yellow returned",
        "6 unsuppress not_suppressed",
        "50 clear normal suppressed",
        "60 raise yellow returned",
    ]


def test_a_partition_keeps_a_bounded_number_of_windows_and_forgets_those_that_are_over():
    plan = plan_of()
    line = Line(plan)

    def refused(from_s: float, until_s: float, s: float = 0) -> str | None:
        refusal = carry_out(line, order(Suppress, s, from_s=from_s, until_s=until_s)).refusal
        return refusal and refusal.reason

    assert {refused(1 + i, 1000 + i) for i in range(MAX_SUPPRESSED)} == {None}
    assert refused(1, 1000) == "already_suppressed"
    assert refused(5000, 6000) == "too_many_windows"
    line.judge_all([tick(1001)])
    assert [refused(5000 + i, 6000, 1001) for i in range(3)] == [None, None, "too_many_windows"]


def test_out_of_service_hides_red_and_silence_until_it_is_back():
    # t      0    5      10     65
    # level  ███████_____▃▃▃▃▃▃     red, good again, silent (orange)
    # shown  █████____________▃▃   out of service 5 to 90
    absent = {"absent_ms": 60_000, "row": {"floor": 1, "absence_level": 3}, "category": {}}
    steps = [at(0, 45.0), order(OutOfService, 5), order(OutOfService, 6), at(10, 5.0), tick(80)]
    steps += [order(InService, 90), order(InService, 91)]
    assert told(steps, **absent) == [
        "0 raise red score",
        "5 out_of_service red",
        "5 clear normal out_of_service",
        "6 out_of_service already_out_of_service",
        "90 in_service normal",
        "90 raise orange returned",
        "91 in_service not_out_of_service",
    ]


def test_acknowledge_is_seen_and_releases_what_latches():
    # limits hold until they are acknowledged: 45 at 0, good from 5 on
    row = {"floor": 1, "latching": 1}
    steps = [at(0, 45.0), at(5, 5.0), order(Acknowledge, 8), order(Acknowledge, 9)]
    assert told(steps, row=row) == [
        "0 raise red limit",
        "8 acknowledge red",
        "8 clear normal score",
        "9 acknowledge nothing_to_acknowledge",
    ]


def test_traces_are_numbered_among_the_transitions_of_their_episode():
    plan = plan_of(**FLOORS)
    steps = [at(0, 25.0), order(Acknowledge, 1), order(Acknowledge, 2), at(3, 35.0), shelve(4, 9)]
    answers = assert_obeys_as_oracle(plan, [*steps, tick(9)])
    numbers = []
    for answer in answers:
        trace, transitions = (answer[1], answer[2]) if isinstance(answer, tuple) else (None, answer)
        numbers += [(trace[3] - START_MS, trace[2])] if trace else []
        numbers += [(t["episode_ms"] - START_MS, t["seq"]) for t in transitions]
    # raise, acknowledge twice, escalate, shelve, clear; then raise of a new episode
    assert numbers == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (9000, 0)]


def test_hiding_a_source_does_not_hide_it_from_its_neighbours():
    plan = plan_of([1, 1], edges=[(0, 1, 0.5)])
    steps = [order(OutOfService, 0), at(1, 45.0), tick(2)]
    assert told(steps, plan) == ["0 out_of_service normal", "1 raise yellow score"]


def test_unknown_sources_and_times_far_ahead_are_refused():
    plan = plan_of(max_ahead_ms=10_000, **FLOORS)
    steps = [tick(0), shelve(1, 5, "nobody"), shelve(11, 20), shelve(10, 20)]
    steps += [order(Suppress, 1, from_s=2, until_s=3, district="nowhere")]
    steps += [order(Suppress, 1, from_s=2, until_s=3, category="nothing")]
    assert told(steps, plan) == [
        "1 shelve unknown_source",
        "11 shelve time_ahead",
        "10 shelve normal",
        "1 suppress unknown_district",
        "1 suppress unknown_category",
    ]

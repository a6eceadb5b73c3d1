"""What would have prevented an alert: boundaries that hold on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.analysis.explaining.counterfactual import (
    FAR_MS,
    FIRES,
    LATER,
    MERGED,
    SILENT,
    Finding,
    Question,
)
from engine.analysis.explaining.counterfactual_keys import (
    DROP,
    Key,
    changed,
    shown_path,
    step_for,
    value_at,
)
from engine.analysis.explaining.explain import Explanation, explain
from engine.analysis.past import Past, judge
from engine.analysis.steps import steps_of
from engine.rules import Rules
from engine.truth import Incident
from tests.analysis.test_diff import steps_of as some_steps
from tests.engine.histories import write
from tests.engine.replays import BEGIN_MS, city

RULES = """
version = 1
[time]
tick_s = 5
[levels]
hold_s = 0
[profiles.methane]
unit = "%LEL"
range = [0, 100]
[profiles.methane.limits]
high = { blue = 10, yellow = 20, red = 50 }
deadband = 1
on_delay_s = { blue = 10 }
[profiles.temperature]
unit = "degC"
limits.high = { yellow = 40 }
[absence]
after = 0
[fusion]
half_life_s = 1
[coupling]
influence = { pipe = 0.8 }
"""


def past_of(folder: Path, *series: tuple[str, list[float]]) -> Past:
    """Return a history of one reading a second."""
    rows = [
        (sensor, BEGIN_MS + 1000 * second, value)
        for sensor, values in series
        for second, value in enumerate(values)
    ]
    rows.sort(key=lambda row: row[1])
    columns = zip(*rows, strict=True)
    table = pa.table(dict(zip(("sensor", "event_ms", "value"), columns, strict=True)))
    return Past.open(city(folder).catalog, write(folder / "past.parquet", table))


def first(past: Past, rules: Rules, source: str, transition: str = "raise", n: int = 0) -> str:
    """Return the id of one of a source's alerts."""
    alerts = [a for a in judge(past, rules).alerts if a["source"] == source]
    alert = [a for a in alerts if a["transition"] == transition][n]
    return f"{alert['alert_id']}#{alert['seq']}"


def by_key(found: Explanation) -> dict[str, Finding]:
    """Return what would have prevented the level of the alert."""
    return {each.key.name: each for each in found.searches[-1].findings}


#                 %LEL
#   15 s of 14.25 ────────┐
#   5 ────────────┘       └────────
HUMP = [5.0] * 20 + [14.25] * 15 + [5.0] * 20


def test_a_limit_and_a_delay_prevent_from_just_beyond_what_was_seen(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", HUMP))
    rules = Rules.parse(RULES)
    found = by_key(explain(past, rules, first(past, rules, "well-1")))
    limit = found["profiles.methane.limits.high.blue"]
    assert (limit.value, limit.fires_at, limit.answer) == (14.3, 14.2, SILENT)
    delay = found["profiles.methane.limits.on_delay_s.blue"]
    assert (delay.value, delay.fires_at) == (15.0, 14.0)
    assert limit.words == "≥ 14.3 %LEL" and delay.words == "≥ 15 s"
    # the limit is a floor, so no weight alone would do
    assert "fusion.weights.methane" not in found


def test_every_boundary_holds_on_both_sides_in_the_whole_history(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", HUMP), ("well-2/ch4", [30.0] * 40))
    rules = Rules.parse(RULES.replace("deadband = 1\n", "deadband = 1\nfloor = false\n", 1))
    (searched,) = explain(past, rules, first(past, rules, "well-1")).searches
    assert len(searched.findings) > 4
    for finding in searched.findings:
        key, question = finding.key, searched.question
        gone = key.rules(rules, finding.steps)
        there = key.rules(rules, finding.steps - 1)
        assert gone is not None and there is not None
        assert question.answer(judge(past, gone).steps) == finding.answer != FIRES
        assert question.answer(judge(past, there).steps) == FIRES
        assert finding.effect is not None and finding.effect.answer == finding.answer
        assert finding.effect.alerts == len(judge(past, gone).steps) - len(judge(past, rules).steps)


def test_where_a_higher_limit_follows_the_whole_ladder_is_tried(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", [5.0] * 10 + [15.0] * 12 + [30.0] * 20 + [5.0] * 10))
    rules = Rules.parse(RULES)
    found = explain(past, rules, first(past, rules, "well-1"))
    names = by_key(found)
    assert "profiles.methane.limits.high.blue" not in names
    ladder = names["profiles.methane.limits.high (all)"]
    assert (ladder.value, ladder.fires_at) == (30.1, 30.0)
    assert value_at(ladder.rules, ("profiles", "methane", "limits", "high")) == {
        "blue": None, "yellow": 30.1, "orange": None, "red": 50.0,
    }  # fmt: skip
    # the limit of blue alone could only put it off until yellow is reached
    late = {each.key.name: each for each in found.searches[0].put_off}
    blue = late["profiles.methane.limits.high.blue"]
    assert blue.answer == LATER and blue.later_ms == 2000
    assert blue.value == 15.1


def test_a_second_alert_is_merged_with_the_first_by_what_holds_that(tmp_path: Path) -> None:
    waves = [5.0] * 10 + [14.0] * 20 + [8.5] * 30 + [14.0] * 20 + [5.0] * 30
    past = past_of(tmp_path, ("well-1/ch4", waves))
    rules = Rules.parse(RULES)
    found = by_key(explain(past, rules, first(past, rules, "well-1", n=1)))
    deadband = found["profiles.methane.limits.deadband"]
    assert (deadband.answer, deadband.value, deadband.fires_at) == (MERGED, 1.5, 1.4)
    off = found["profiles.methane.limits.off_delay_s.blue"]
    assert (off.answer, off.value) == (MERGED, 30.0)
    assert found["levels.hold_s"].answer == MERGED
    assert found["levels.hold_s"].effect is not None
    assert found["levels.hold_s"].effect.episodes == -1


def test_a_clear_is_bridged_by_what_would_have_held_the_level(tmp_path: Path) -> None:
    waves = [5.0] * 10 + [14.0] * 20 + [8.5] * 30 + [14.0] * 20 + [5.0] * 30
    past = past_of(tmp_path, ("well-1/ch4", waves))
    rules = Rules.parse(RULES)
    found = explain(past, rules, first(past, rules, "well-1", "clear"))
    names = by_key(found)
    assert names["profiles.methane.limits.deadband"].value == 1.5
    assert names["profiles.methane.limits.deadband"].answer == "bridged"
    last = explain(past, rules, first(past, rules, "well-1", "clear", n=1))
    (nothing,) = last.searches
    assert not nothing.question.answerable and nothing.findings == ()


def test_a_neighbour_is_silenced_by_its_influence(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", [5.0] * 5 + [60.0] * 30), ("well-2/ch4", [1.0] * 35))
    rules = Rules.parse(RULES)
    found = explain(past, rules, first(past, rules, "well-2"))
    assert [each.question.level for each in found.searches] == [1, 2]
    for searched, value in zip(found.searches, (0.39, 0.79), strict=True):
        findings = {each.key.name: each for each in searched.findings}
        influence = findings["coupling.influence.pipe"]
        # 100 × 0.5 × influence stays below 20, or 40
        assert influence.value == value and influence.words == f"≤ {value}"


def test_a_signal_rule_is_a_switch(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", HUMP))
    rules = Rules.parse(
        RULES + '[[rules]]\nname = "any gas"\nall = ["methane.high >= blue"]\nlevel = "orange"\n'
    )
    found = by_key(explain(past, rules, first(past, rules, "well-1")))
    dropped = found["rules.any gas"]
    assert dropped.value is None and dropped.words == "not given"
    assert dropped.rules.rules == ()
    # the rule asks for orange on a signal of blue: that limit is what bears on it
    assert found["profiles.methane.limits.high.blue"].value == 14.3


def test_a_truth_tells_what_a_change_loses(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", HUMP), ("plant/t", [50.0] * 40))
    rules = Rules.parse(RULES)
    leak = Incident(
        source="well-1", start_ms=BEGIN_MS + 15_000, end_ms=BEGIN_MS + 50_000, kind="leak"
    )
    found = by_key(explain(past, rules, first(past, rules, "well-1"), truth=[leak]))
    effect = found["profiles.methane.limits.high.blue"].effect
    assert effect is not None and [each.kind for each in effect.lost] == ["leak"]
    assert effect.false_alarms == 0
    bare = explain(past, rules, first(past, rules, "well-1"), effects=False)
    assert all(each.effect is None for each in by_key(bare).values())


def test_a_sensors_own_limit_is_not_sought_in_the_rules(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", HUMP))
    rules = Rules.parse(RULES)
    assert "profiles.methane.limits.high.red" not in by_key(
        explain(past, rules, first(past, rules, "well-1"))
    )


def test_a_sensors_own_delay_is_not_sought_in_the_rules(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", HUMP))
    sensor = past.catalog.sensor_id.to_pylist().index("well-1/ch4")
    nothing = np.full((1, 4), np.nan)
    catalog = replace(
        past.catalog,
        override_sensor=np.array([sensor], np.int32),
        override_high=nothing,
        override_low=nothing,
        override_deadband=np.array([np.nan]),
        override_on_delay_s=np.array([3.0]),
        override_off_delay_s=np.array([np.nan]),
    )
    past, rules = replace(past, catalog=catalog), Rules.parse(RULES)
    found = explain(past, rules, first(past, rules, "well-1"))
    assert "profiles.methane.limits.high.blue" in by_key(found)
    tried = [*by_key(found), *(key.name for key in found.searches[-1].in_vain)]
    assert not [key for key in tried if "on_delay" in key]


# --- questions -----------------------------------------------------------------------------------


def test_a_question_spans_from_the_fall_before_to_the_fall_after() -> None:
    steps = some_steps((0, 10, 2), (0, 20, 1), (0, 50, 2), (0, 80, 1), (0, 90, 0))
    assert Question.about(steps, steps[0], 1).level == 1
    transition = next(step for step in steps if step["event_ms"] == 50)
    asked = Question.about(steps, transition)
    assert (asked.after_ms, asked.until_ms, asked.level, asked.falls) == (20, 80, 2, False)
    assert asked.answer(steps) == FIRES and asked.rise_ms(steps) == 50
    assert asked.answer(some_steps((0, 10, 2), (0, 20, 1), (0, 90, 0))) == SILENT
    assert asked.answer(some_steps((0, 10, 2), (0, 85, 0))) == MERGED
    late = some_steps((0, 10, 2), (0, 20, 1), (0, 79, 3), (0, 90, 0))
    assert asked.answer(late) == FIRES and asked.rise_ms(late) == 79
    assert asked.rise_ms(steps[:0]) == FAR_MS


def test_a_rise_at_the_moment_of_the_fall_before_is_still_one() -> None:
    steps = some_steps((0, 10, 1), (0, 20, 0), (0, 20, 1), (0, 30, 0))
    assert Question.about(steps, steps[2]).answer(steps) == FIRES


# --- keys ----------------------------------------------------------------------------------------


def test_keys_are_set_added_and_dropped() -> None:
    rules = Rules.parse(RULES)
    path = ("profiles", "methane", "limits", "high", "blue")
    assert value_at(rules, path) == 10
    moved = changed(rules, path, 12.5)
    assert moved is not None and value_at(moved, path) == 12.5 and value_at(rules, path) == 10
    assert changed(rules, path, 20.0) is None  # would cross yellow
    added = changed(rules, ("fusion", "weights", "methane"), 0.5)
    assert added is not None and added.fusion.weight("methane") == 0.5
    assert value_at(rules, ("fusion", "categories", "none", "x")) is None
    with_rule = Rules.parse(
        RULES + '[[rules]]\nname = "a"\nall = ["methane.high >= blue"]\nlevel = "red"\n'
    )
    assert shown_path(with_rule, ("rules", 0, "level")) == "rules.a.level"
    dropped = changed(with_rule, ("rules", 0), DROP)
    assert dropped is not None and dropped.digest == rules.digest


@pytest.mark.parametrize(
    ("value", "step"),
    [(10, "0.1"), (25, "0.1"), (99, "0.1"), (250, "1"), (2.5, "0.01"), (0.3, "0.001"), (0, "0.01")],
)
def test_a_number_is_moved_in_steps_of_its_size(value: float, step: str) -> None:
    assert f"{step_for(value):f}" == step


def test_values_lie_on_the_grid_of_the_step_beyond_where_the_key_stands() -> None:
    up = Key(path=("x",), name="x", now=10.25, step=step_for(10), bound=11.0)
    assert [up.value(n) for n in range(4)] == [10.25, 10.3, 10.4, 10.5]
    assert up.most == 7
    down = Key(path=("x",), name="x", now=1.0, step=step_for(0.99), up=False, bound=0.0)
    assert down.value(1) == 0.999 and down.value(1000) == 0.0 and down.most == 1000
    whole = Key(path=("x",), name="x", now=3, step=step_for(100), whole=True, bound=5)
    assert [whole.value(n) for n in (1, 2)] == [4, 5] and isinstance(whole.value(1), int)


def test_steps_of_rules_are_the_lines(tmp_path: Path) -> None:
    past = past_of(tmp_path, ("well-1/ch4", HUMP))
    judged = judge(past, Rules.parse(RULES))
    assert np.array_equal(steps_of(judged.transitions), judged.steps)

"""The chosen rules file: the given text, other numbers, and a comment at each."""

from __future__ import annotations

import difflib
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.tuning.chosen import Change, rewritten
from engine.analysis.tuning.settings import Refused, Settings
from engine.analysis.tuning.space import key_parts, parse
from engine.errors import RulesError
from engine.rules import Rules
from tests.analysis.test_space import DAY, PLACES, RULES

PAGE = (Path(__file__).parents[2] / "engine/RULES.md").read_text(encoding="utf-8")
COMPLETE = Rules.parse(PAGE.split("```toml\n")[1].split("```")[0])
"""A file with every key that there is."""


def change(key: str, new: float, why: str = "", old: float = math.nan) -> Change:
    return Change(path=key_parts(key), old=old, new=new, why=why)


def write(rules: Rules, *changes: Change, head: tuple[str, ...] = ()) -> str:
    document = "version = 1\n" + "".join(
        f"[[vary]]\nkey = {''.join(_written(each))}\nvalues = [{each.new}]\n" for each in changes
    )
    bound = Settings(parse(document), rules)
    made = bound.rules_of(tuple(float(each.new) for each in changes))
    return rewritten(rules, made, changes, head)


def _written(each: Change) -> list[str]:
    from engine.rules_check import dotted

    return ["'", dotted(each.path), "'"]


@given(seed=st.integers(0, 2**31 - 1), n=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_all_but_the_lines_that_change_stays_as_it_is(seed: int, n: int) -> None:
    drawn = random.Random(seed).sample(PLACES, n)
    changes = [Change(path=path, old=1, new=value, why="why " * 40) for _, path, value in drawn]
    try:
        text = write(RULES, *changes)
    except Refused:
        return
    difference = list(difflib.ndiff(DAY.splitlines(), text.splitlines()))
    removed = [line for line in difference if line.startswith("- ")]
    added = [line[2:] for line in difference if line.startswith("+ ")]
    notes = [line for line in added if line.lstrip().startswith("#")]
    # a changed line a key at most: two keys may share theirs; a new table has a heading and a gap
    assert len(removed) <= n
    assert len(added) - len(notes) <= 3 * n
    assert all(len(line) <= 100 for line in notes)


def test_the_comment_stands_above_its_line_and_says_old_new_and_why() -> None:
    text = write(
        RULES,
        Change(
            path=("profiles", "methane", "limits", "high", "yellow"),
            old=25,
            new=30,
            unit="%LEL",
            why="buys false_yellow 7 → 3",
        ),
        head=("Chosen for a test.",),
    )
    lines = text.splitlines()
    at = lines.index("limits.high = { blue = 10, yellow = 30, red = 50 }")
    assert lines[at - 2 : at] == [
        "# tuned: profiles.methane.limits.high.yellow 25 → 30 %LEL",
        "#   buys false_yellow 7 → 3",
    ]
    assert lines[0] == "# Chosen for a test."


def test_changes_of_one_line_and_one_reason_share_a_comment() -> None:
    text = write(
        RULES,
        change("profiles.methane.limits.high.blue", 12, "gas × 1.2", 10),
        change("profiles.methane.limits.high.yellow", 30, "gas × 1.2", 25),
    )
    assert "# tuned: profiles.methane.limits.high: blue 10 → 12, yellow 25 → 30\n" in text


def test_a_delay_of_one_level_is_taken_out_of_a_plain_number() -> None:
    text = write(RULES, change("profiles.methane.limits.off_delay_s.red", 60, old=300))
    assert "limits.off_delay_s = { blue = 300, yellow = 300, orange = 300, red = 60 }" in text


def test_keys_that_were_not_there_are_written_where_they_belong() -> None:
    text = write(
        RULES,
        change("fusion.categories.mall.levels.raise_at.blue", 15),
        change("profiles.crowd_count.limits.deadband", 3),
        change("fusion.severity.blue", 0.2),
    )
    made = Rules.parse(text)
    assert made.levels_of("mall").raise_at.limits() == (15, 40, 60, 80)
    assert made.profiles["crowd_count"].limits.deadband == 3
    assert "none → 15" in text


def test_windows_and_contexts_are_found_by_their_place() -> None:
    text = write(
        RULES,
        change("profiles.rain.windows[1].high.yellow", 45, old=50),
        change("context[0].factor", 1.5, old=1.2),
    )
    made = Rules.parse(text)
    assert [w.high.yellow for w in made.profiles["rain"].windows] == [None, 45, None]
    assert "# tuned: context[0].factor 1.2 → 1.5\nfactor = 1.5" in text


def test_every_layout_that_a_rules_file_may_have_is_kept() -> None:
    rules = Rules.parse(
        """version = 1
profiles = { methane = { unit = "%LEL", limits = { high = { blue = 10 } } } } # all in one
[fusion]
  half_life_s = 600 # ten minutes
"""
    )
    text = write(
        rules,
        change("profiles.methane.limits.high.blue", 12, old=10),
        change("profiles.methane.limits.deadband", 1, old=0),
        change("fusion.half_life_s", 60, old=600),
    )
    assert "{ blue = 12 }" in text and "# all in one" in text
    assert "  # tuned: fusion.half_life_s 600 → 60\n  half_life_s = 60 # ten minutes" in text


def test_line_ends_of_windows_and_a_mark_at_the_start_do_no_harm() -> None:
    text = DAY.replace("\n", "\r\n")
    rules = Rules.parse(text)
    assert "blue = 12" in write(rules, change("profiles.methane.limits.high.blue", 12, old=10))


def test_rules_without_a_text_are_written_as_what_they_mean() -> None:
    for given_rules in (RULES, COMPLETE):
        bare = Rules.model_construct(
            **{name: getattr(given_rules, name) for name in Rules.model_fields}
        )
        assert bare.text == ""
        text = write(bare, change("levels.hold_s", 77, old=60))
        assert Rules.parse(text).levels.hold_s == 77


def test_a_text_that_would_mean_something_else_is_never_written() -> None:
    with pytest.raises(RulesError, match="could not be written"):
        rewritten(RULES, RULES, [change("levels.hold_s", 77)], ())


def test_a_file_that_was_tuned_before_says_only_what_was_tuned_last() -> None:
    key = "profiles.methane.limits.high.blue"
    once = write(
        RULES, change(key, 12, "buys this", 10), head=("Chosen by tocsin tune, setting 1.",)
    )
    again = Rules.parse(once)
    twice = write(
        again, change(key, 13, "buys that", 12), head=("Chosen by tocsin tune, setting 2.",)
    )
    assert "setting 1" not in twice and "buys this" not in twice
    assert twice.count("# tuned: ") == 1 and "12 → 13" in twice
    other = write(again, change("levels.hold_s", 13, "buys that", 12))
    assert "buys this" in other and "setting 1" not in other
    assert other.splitlines()[0] == DAY.splitlines()[0]

"""Which keys of two rule sets differ."""

from __future__ import annotations

from engine.analysis.diffs.rules import rule_changes, shown
from engine.rules import Rules

BASE = """
version = 1
[profiles.methane]
unit = "%LEL"
limits.high = { blue = 10, yellow = 25 }
limits.on_delay_s = 30
[[profiles.methane.windows]]
name = "mean of 1 h"
length_s = 3600
aggregate = "mean"
high = { blue = 8 }
[[rules]]
name = "gas"
all = ["methane.high >= blue"]
level = "yellow"
[[context]]
name = "feast"
from = 2025-01-01
to = 2025-01-03
factor = 1.5
"""


def changes(old: str, new: str) -> list[str]:
    return [str(each) for each in rule_changes(Rules.parse(old), Rules.parse(new))]


def test_a_key_is_named_by_its_path_with_old_and_new() -> None:
    new = BASE.replace("yellow = 25", "yellow = 27.5")
    assert changes(BASE, new) == ["profiles.methane.limits.high.yellow  25 → 27.5"]


def test_layout_and_written_out_defaults_are_no_difference() -> None:
    assert changes(BASE, BASE + "\n# note\n[levels]\nhold_s = 60\n") == []


def test_a_delay_for_all_levels_equals_one_for_each() -> None:
    each = "{ blue = 30, yellow = 30, orange = 30, red = 30 }"
    assert changes(BASE, BASE.replace("on_delay_s = 30", f"on_delay_s = {each}")) == []
    some = BASE.replace("on_delay_s = 30", "on_delay_s = { blue = 40, yellow = 30 }")
    assert changes(BASE, some) == [
        "profiles.methane.limits.on_delay_s.blue  30 → 40",
        "profiles.methane.limits.on_delay_s.orange  30 → 0",
        "profiles.methane.limits.on_delay_s.red  30 → 0",
    ]


def test_tables_in_lists_are_found_by_their_name() -> None:
    new = BASE.replace("high = { blue = 8 }", "high = { blue = 9 }").replace(
        'level = "yellow"', 'level = "orange"'
    )
    new = new.replace("factor = 1.5", "factor = 1.2")
    assert changes(BASE, new) == [
        "profiles.methane.windows.mean of 1 h.high.blue  8 → 9",
        'rules.gas.level  "yellow" → "orange"',
        "context.feast.factor  1.5 → 1.2",
    ]


def test_a_whole_table_that_comes_or_goes_is_one_change() -> None:
    new = BASE + '[profiles.pressure]\nunit = "kPa"\nlimits.low = { red = 150 }\n'
    added = (
        'profiles.pressure  – → { quantity = "pressure", unit = "kPa", '
        "limits = { low = { red = 150 } } }"
    )
    assert changes(BASE, new) == [added]
    (gone,) = rule_changes(Rules.parse(new), Rules.parse(BASE))
    assert str(gone.mirrored()) == added


def test_another_order_of_signal_rules_is_told() -> None:
    more = '[[rules]]\nname = "air"\nall = ["methane.bad >= blue"]\nlevel = "blue"\n'
    head, rest = BASE.split("[[rules]]", 1)
    assert changes(BASE + more, head + more + "[[rules]]" + rest) == [
        'rules (their order)  ["gas", "air"] → ["air", "gas"]'
    ]


def test_values_are_shown_as_a_file_has_them() -> None:
    assert shown(True) == "true" and shown(None) == "–" and shown("a") == '"a"'
    assert shown([1.0, "x"]) == '[1, "x"]' and shown({"blue": 0.1}) == "{ blue = 0.1 }"

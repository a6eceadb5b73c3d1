"""Every fault of a rules file is reported in one run, with line, key, value and bound."""

from __future__ import annotations

import random
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RulesError
from engine.rules import Rules
from engine.rules_check import dotted
from tests.engine.test_rules_docs import EXAMPLE


def faults(text: str) -> list[str]:
    """Return the faults of a text as `line: key: problem, got value`; none if there are none."""
    try:
        Rules.parse(text, file="f")
    except RulesError as error:
        return [str(fault).removeprefix("f: line ") for fault in error.faults]
    return []


def only_fault(text: str) -> str:
    """Return the one fault of a text."""
    found = faults(text)
    assert len(found) == 1, found
    return found[0]


HEAD = 'version = 1\n[profiles.methane]\nunit = "%LEL"\nrange = [0, 100]\n'
"""A profile that more keys of the profile can follow, from line 5."""


def in_profile(text: str) -> str:
    """Return the one fault of a text that stands in the profile, from line 5."""
    return only_fault(HEAD + text)


# --- one key at a time ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("version = 1\nnam = 'x'", "2: nam: unknown key (did you mean name?)"),
        ("version = 2", "1: version: must be 1, got 2"),
        ("name = 'x'", "1: version: is required, and missing"),
        ("version = 1\n[levels]\nhold_s = -1", "3: levels.hold_s: must be ≥ 0, got -1"),
        ("version = 1\n[levels]\nhold_s = '1'", "3: levels.hold_s: must be a number, got '1'"),
        ("version = 1\n[levels]\nhold_s = true", "3: levels.hold_s: must be a number, got True"),
        (
            "version = 1\n[levels]\nhold_s = nan",
            "3: levels.hold_s: must be a finite number, got nan",
        ),
        (
            "version = 1\n\nlevels.hold_s = 5e6",
            "3: levels.hold_s: must be ≤ 4233600, got 5000000.0",
        ),
        ("version = 1\nlevels = 3", "2: levels: must be a table, got 3"),
        (
            "version = 1\n[absence]\nafter = 1",
            "3: absence.after: must be 0 (off) or > 1 and at most 1000000, got 1",
        ),
        (
            "version = 1\n[absence]\nlevel = 'normal'",
            "3: absence.level: must be 'blue', 'yellow', 'orange' or 'red', got 'normal'",
        ),
        (
            "version = 1\n[time]\nutc_offset = '8'",
            '3: time.utc_offset: must be "Z" or a sign, hours and minutes such as "+08:00", '
            "got '8'",
        ),
        (
            "version = 1\n[fusion]\nhalf_life_s = 0.5",
            "3: fusion.half_life_s: must be ≥ 1, got 0.5",
        ),
        (
            "version = 1\n[fusion.detectors]\nhihg = 1",
            "3: fusion.detectors.hihg: unknown key (did you mean high?)",
        ),
        (
            "version = 1\n[fusion]\nweights = { methan = 1 }",
            "3: fusion.weights.methan: no profile watches this quantity (did you mean methane?)",
        ),
        (
            "version = 1\n[coupling]\ninfluence = { spatial = 1.5 }",
            "3: coupling.influence.spatial: must be ≤ 1, got 1.5",
        ),
        (
            "version = 1\n[profiles.a]\nunit = 'kPa'\nquantity = ''",
            "4: profiles.a.quantity: must be printable text, not empty, got ''",
        ),
        ("version = 1\nrefractory_s = 5", "2: refractory_s: unknown key here, it belongs to "
         "[profiles.NAME]"),
        ("version = 1\nrules = {}", "2: rules: must be a list, got {}"),
        ("version = 1\n[routes]\nname = 'a'", "2: routes: must be a list, got {'name': 'a'}"),
        ("version = 1\n[dispatch]\nurl = 'a'", "2: dispatch: unknown key, known are version, "
         "name, time, levels, profiles, absence, fusion, coupling, rules, context, routes"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_reported(text: str, fault: str) -> None:
    assert only_fault(text) == fault


NAMED = "must be 1 to 64 of the letters A to Z and a to z, digits, '.', '_' and '-', beginning with"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name = 'a'", "2: routes[0]: must have levels, categories, districts or departments, "
         "or default = true"),
        ("name = 'a'\nlevels = []", "4: routes[0].levels: must have at least 1 entries, got []"),
        ("name = 'a'\nlevels = ['rde']",
         "4: routes[0].levels[0]: must be 'blue', 'yellow', 'orange' or 'red' (did you mean red?), "
         "got 'rde'"),
        ("name = 'a'\nlevels = ['red', 'red']",
         "4: routes[0].levels: must name each only once, 'red' stands twice, got ['red', 'red']"),
        ("name = 'a'\nlevel = ['red']", "4: routes[0].level: unknown key (did you mean levels?)"),
        ("levels = ['red']", "2: routes[0].name: is required, and missing"),
        ("name = 'fire:brigade'\nlevels = ['red']",
         f"3: routes[0].name: {NAMED} a letter or digit, got 'fire:brigade'"),
        ("name = '.a'\nlevels = ['red']",
         f"3: routes[0].name: {NAMED} a letter or digit, got '.a'"),
        ("name = 'default'\nlevels = ['red']",
         "3: routes[0].name: is the name of what takes the rest: such a route needs default = true,"
         " got 'default'"),
        ("name = 'a'\ndefault = true\nlevels = ['red']",
         "4: routes[0].default: takes what no other route takes, and so can't have levels, "
         "got True"),
        ("name = 'a'\nlevels = ['red']\n[[routes]]\nname = 'a'\ncategories = ['well']",
         "6: routes[1].name: must differ from other routes', got 'a'"),
        ("name = 'a'\ndefault = true\n[[routes]]\nname = 'b'\ndefault = true",
         "7: routes[1].default: only one route can take the rest, and routes[0] does, got True"),
    ],
)  # fmt: skip
def test_a_wrong_route_is_reported(text: str, fault: str) -> None:
    assert only_fault(f"version = 1\n[[routes]]\n{text}") == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("on_delay_s = 5", "5: profiles.methane.on_delay_s: unknown key here, it belongs to "
         "[profiles.NAME.limits]"),
        ("limits.high = { blue = 5, yellow = 5 }",
         "5: profiles.methane.limits.high.yellow: must ascend, above blue = 5, got 5"),
        ("limits.high = { blue = 5, red = 4 }",
         "5: profiles.methane.limits.high.red: must ascend, above blue = 5, got 4"),
        ("limits.low = { blue = 5, yellow = 6 }",
         "5: profiles.methane.limits.low.yellow: must descend, below blue = 5, got 6"),
        ("limits.low = { yellow = 5 }\nlimits.high = { orange = 5 }",
         "5: profiles.methane.limits.low.yellow: must be below high.orange, 5, got 5"),
        ("limits.low = { yellow = 5 }\nlimits.high = { orange = 9 }\nlimits.deadband = 2",
         "7: profiles.methane.limits.deadband: must be smaller than half the distance of "
         "low.yellow and high.orange, 2, or no value clears both, got 2"),
        ("limits.high = { blue = 5, red = 8 }\nlimits.deadband = 3",
         "6: profiles.methane.limits.deadband: must be smaller than the step from blue to red of "
         "high, 3, got 3"),
        ("limits.high = { blue = 5 }\nlimits.deadband = 5",
         "6: profiles.methane.limits.deadband: must leave values in range below high.blue - "
         "deadband, or it never clears, got 5"),
        ("limits.low = { blue = 95 }\nlimits.deadband = 5",
         "6: profiles.methane.limits.deadband: must leave values in range above low.blue + "
         "deadband, or it never clears, got 5"),
        ("limits.high = { blue = 101 }",
         "5: profiles.methane.limits.high.blue: must lie within range, 0 to 100, got 101"),
        ("limits.on_delay_s = { red = 5000000 }",
         "5: profiles.methane.limits.on_delay_s.red: must be ≤ 4233600, got 5000000"),
        ("limits.on_delay_s = -0.1",
         "5: profiles.methane.limits.on_delay_s: must be at least 0 and at most 4233600, got -0.1"),
        ("limits.on_delay_s = '30 s'",
         "5: profiles.methane.limits.on_delay_s: must be a table, got '30 s'"),
        ("[profiles.methane.rate]\nwindow_s = 60",
         "5: profiles.methane.rate: must give a limit in rise or fall"),
        ("rate = { fall = { blue = -1 }, window_s = 60 }",
         "5: profiles.methane.rate.fall.blue: must be > 0, where the statistic rests, got -1"),
        ("rate = { fall = { blue = 1 }, window_s = 60, deadband = 1 }",
         "5: profiles.methane.rate.deadband: must be smaller than fall.blue, 1, or it never "
         "clears, got 1"),
        ("rate = { rise = { blue = 1 } }",
         "5: profiles.methane.rate.window_s: is required, and missing"),
        ("[[profiles.methane.windows]]\nname = 'w'\naggregate = 'mean'\nhigh.blue = 5\n"
         "length_s = 1\npanes = 6",
         "9: profiles.methane.windows[0].length_s: must be 6 panes of whole milliseconds, got 1"),
        ("windows = [ { name = 'w', aggregate = 'max', length_s = 60 } ]",
         "5: profiles.methane.windows[0]: must give a limit in high or low"),
        ("windows = [\n{ name = 'w', aggregate = 'max', length_s = 60, high.red = 200 } ]",
         "6: profiles.methane.windows[0].high.red: must lie within range, 0 to 100, got 200"),
        ("windows = [ { name = 'w', aggregate = 'count', length_s = 60, low.red = 2, min_n = 3 } ]",
         "5: profiles.methane.windows[0].low.red: must be at least min_n, 3: fewer readings are "
         "not judged, got 2"),
        ("windows = [ { name = 'w', aggregate = 'std', length_s = 60, low.red = -2 } ]",
         "5: profiles.methane.windows[0].low.red: must be ≥ 0: a std is never below, got -2"),
        ("deviation = { min_sigma = 1, memory_n = 50 }",
         "5: profiles.methane.deviation.warmup_n: must be at most memory_n, 50, got 64"),
        ("deviation = { min_sigma = 0 }",
         "5: profiles.methane.deviation.min_sigma: must be > 1e-15, got 0"),
        ("deviation = { min_sigma = 1, memory_n = 65536 }",
         "5: profiles.methane.deviation.memory_n: must be ≤ 65535, got 65536"),
        ("deviation = { min_sigma = 1, memory_n = 100.0 }",
         "5: profiles.methane.deviation.memory_n: must be a whole number, got 100.0"),
        ("deviation = { min_sigma = 1, bins = 24 }",
         '5: profiles.methane.deviation.bins: needs season = "day" or "week", got 24'),
        ("deviation = { min_sigma = 1, season = 'day', bins = 7 }",
         "5: profiles.methane.deviation.bins: must divide the day into whole seconds, got 7"),
        ("drift = { raise_at = { blue = 8 } }",
         "5: profiles.methane.drift: needs [deviation] beside it, for the running level and sigma"),
        ("deviation.min_sigma = 1\ndrift = { raise_at = { blue = 8 }, allowance = 3 }",
         "6: profiles.methane.drift.allowance: must be smaller than deviation.clip, 3, or it never "
         "adds up, got 3"),
        ("deviation.min_sigma = 1\ndrift = { raise_at = {} }",
         "6: profiles.methane.drift.raise_at: must give a limit"),
        ("liveness.bad_after_n = 256",
         "5: profiles.methane.liveness.bad_after_n: must be ≤ 255, got 256"),
        ("categories = []", "5: profiles.methane.categories: must have at least 1 entries, got []"),
        ("categories = ['a', 'b', 'a']",
         "5: profiles.methane.categories: must name each only once, 'a' stands twice, "
         "got ['a', 'b', 'a']"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_profile_is_reported(text: str, fault: str) -> None:
    assert in_profile(text) == fault


def test_a_unit_that_does_not_fit_the_quantity_is_refused() -> None:
    text = "version = 1\n[profiles.methane]\nunit = 'kPa'"
    fault = "3: profiles.methane.unit: must be a unit of methane, such as '%LEL', got 'kPa'"
    assert only_fault(text) == fault


@pytest.mark.parametrize("unit", ["%LEL", "% vol", "ppm"])
def test_a_unit_that_converts_to_the_quantitys_own_is_taken(unit: str) -> None:
    assert faults(f"version = 1\n[profiles.methane]\nunit = '{unit}'") == []


def test_a_range_may_be_open_but_must_ascend() -> None:
    assert faults("version = 1\n[profiles.level]\nunit = 'm'\nrange = [-inf, 3]") == []
    text = "version = 1\n[profiles.level]\nunit = 'm'\nrange = {}"
    assert only_fault(text.format("[3, 3]")) == (
        "4: profiles.level.range: must ascend, got [3.0, 3.0]"
    )
    assert only_fault(text.format("[0, nan]")) == (
        "4: profiles.level.range[1]: must be a number, got nan"
    )


def test_two_profiles_that_fit_a_sensor_equally_are_refused() -> None:
    other = "[profiles.b]\nquantity = 'methane'\nunit = '%LEL'\n"
    assert only_fault(HEAD + other) == (
        "6: profiles.b.quantity: profile 'methane' watches methane without categories already"
    )
    named = other + "categories = ['x', 'y']\n" + other.replace("b]", "c]") + "categories = ['y']"
    assert only_fault(HEAD + named) == (
        "12: profiles.c.categories: profile 'b' watches methane for category 'y' already, got 'y'"
    )


# --- fusion, rules, contexts ---------------------------------------------------------------------


def test_a_category_is_judged_with_what_it_does_not_override() -> None:
    text = "version = 1\n[fusion.categories.well]\nlevels.deadband = 20\nseverity = { red = 0.6 }"
    assert faults(text) == [
        "3: fusion.categories.well.levels.deadband: must be smaller than the step from blue to "
        "yellow of raise_at, 20 (with what levels gives), got 20",
        "3: fusion.categories.well.levels.deadband: must be smaller than raise_at.blue, 20, or it "
        "never clears (with what levels gives), got 20",
        "4: fusion.categories.well.severity.red: must not descend, orange = 0.75 "
        "(with what fusion.severity gives), got 0.6",
    ]


RULE = HEAD + "[[rules]]\nname = 'r'\nlevel = 'red'\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("all = ['methane high']", "8: rules[0].all[0]: must read \"quantity.kind >= level\", "
         "with \"near \" before it or not, got 'methane high'"),
        ("all = ['methane.hi >= red']",
         "8: rules[0].all[0]: has no kind 'hi' (did you mean high?), got 'methane.hi >= red'"),
        ("all = ['methane.high >= orage']",
         "8: rules[0].all[0]: has no level 'orage' (did you mean orange?), "
         "got 'methane.high >= orage'"),
        ("any = [\n'methane.high >= red',\n'methan.high >= red']",
         "10: rules[0].any[1]: no profile watches 'methan' (did you mean methane?), "
         "got 'methan.high >= red'"),
        ("any = ['near methane.rise >= red']",
         "8: rules[0].any[0]: no profile of methane has a rise signal of red or above, "
         "got 'near methane.rise >= red'"),
        ("any = ['methane.bad >= yellow']",
         "8: rules[0].any[0]: no profile of methane has a bad signal of yellow or above, "
         "got 'methane.bad >= yellow'"),
        ("none = ['methane.high >= red']", "5: rules[0]: must have a term in all or any"),
        ("all = ['methane.high >= red']\n[[rules]]\nname = 'r'\nlevel = 'red'\n"
         "all = ['methane.high >= red']", "10: rules[1].name: must differ from other rules', "
         "got 'r'"),
    ],
)  # fmt: skip
def test_a_signal_rule_that_could_never_hold_is_refused(text: str, fault: str) -> None:
    assert only_fault(RULE + text) == fault


def test_absence_of_a_quantity_without_a_profile_may_stand_in_a_rule() -> None:
    assert faults(RULE + "all = ['smoke.absence >= blue']") == []
    assert "no profile watches 'smoke'" in only_fault(RULE + "all = ['smoke.absence >= red']")


def test_more_than_64_distinct_terms_are_refused() -> None:
    def rules(n: int) -> str:
        names = [f"q{index}" for index in range(n)]
        profiles = "".join(f"[profiles.{name}]\nunit = 'x'\n" for name in names)
        return (
            "version = 1\n"
            + profiles
            + "".join(
                f"[[rules]]\nname = '{name}'\nlevel = 'red'\nall = ['{name}.high >= red']\n"
                for name in names
            )
        )

    assert faults(rules(64)) == []
    assert only_fault(rules(65)).endswith("rules: must have at most 64 different terms, got 65")


@pytest.mark.parametrize(
    ("start", "end", "fault"),
    [
        ("2025-08-01", "2025-08-01",
         "5: context[0].to: must be after from, 2025-08-01 00:00:00, got '2025-08-01 00:00:00'"),
        ("'2025-08-01'", "2025-08-02",
         "4: context[0].from: must be a date or a time, without quotes, got '2025-08-01'"),
        ("1969-12-31", "2025-08-02",
         "4: context[0].from: must lie between 1970 and 2100, got '1969-12-31 00:00:00'"),
        ("2025-08-01", "2100-01-02",
         "5: context[0].to: must lie between 1970 and 2100, got '2100-01-02 00:00:00'"),
    ],
)  # fmt: skip
def test_a_context_ends_after_it_begins(start: str, end: str, fault: str) -> None:
    text = f"version = 1\n[[context]]\nname = 'c'\nfrom = {start}\nto = {end}\nfactor = 2"
    assert only_fault(text) == fault


# --- all at once ---------------------------------------------------------------------------------

MANY = """version = 1
nme = "many faults"
[time]
tick_s = "1"
late_after_s = 60
max_late_s = 5
[profiles.methane]
unit = "kPa"
range = [0, 100]
[profiles.methane.limits]
high = { blue = 5, yelow = 10, orange = 25, red = 20 }
deadband = 30
[profiles.methane.rate]
rise = { yellow = 2 }
per = "minute"
[[profiles.methane.windows]]
name = "a"
length_s = 60
panes = 7
aggregate = "median"
high = { yellow = 20 }
[[profiles.methane.windows]]
name = "a"
length_s = 60.0001
aggregate = "mean"
[[profiles.methane.windows]]
name = "a"
length_s = 60
aggregate = "mean"
high.blue = 120
[profiles.pressure]
[profiles.again]
quantity = "methane"
unit = "%vol"
[fusion]
weights = { methan = 2.0, pressure = 20 }
[[rules]]
name = "third-party damage"
all = ["methane.hi >= yellow", "pressure.fall >= blue", "near permit.high >= blue"]
level = "orage"
[[rules]]
name = "only none"
none = ["methane.high >= red"]
level = "red"
[[context]]
name = "typhoon"
from = 2025-07-30
to = 2025-07-29
factor = nan
"""
MANY_FAULTS = [
    (2, "nme"),
    (4, "time.tick_s"),
    (5, "time.late_after_s"),
    (8, "profiles.methane.unit"),
    (11, "profiles.methane.limits.high.yelow"),
    (11, "profiles.methane.limits.high.red"),
    (12, "profiles.methane.limits.deadband"),
    (13, "profiles.methane.rate.window_s"),
    (15, "profiles.methane.rate.per"),
    (19, "profiles.methane.windows[0].panes"),
    (20, "profiles.methane.windows[0].aggregate"),
    (22, "profiles.methane.windows[1]"),
    (24, "profiles.methane.windows[1].length_s"),
    (27, "profiles.methane.windows[2].name"),
    (30, "profiles.methane.windows[2].high.blue"),
    (31, "profiles.pressure.unit"),
    (33, "profiles.again.quantity"),
    (36, "fusion.weights.methan"),
    (36, "fusion.weights.pressure"),
    (39, "rules[0].all[0]"),
    (39, "rules[0].all[1]"),
    (39, "rules[0].all[2]"),
    (40, "rules[0].level"),
    (41, "rules[1]"),
    (48, "context[0].to"),
    (49, "context[0].factor"),
]


def test_all_faults_of_a_file_are_found_in_one_run() -> None:
    with pytest.raises(RulesError) as caught:
        Rules.parse(MANY, file="many.toml")
    found = {(fault.line, fault.key) for fault in caught.value.faults}
    assert found == set(MANY_FAULTS)
    assert [fault.line for fault in caught.value.faults] == sorted(line for line, _ in MANY_FAULTS)
    assert caught.value.problem == f"many.toml: {len(MANY_FAULTS)} faults in the rules"


def test_a_fault_of_one_key_is_no_fault_of_those_that_rest_on_it() -> None:
    # whether the limit lies within the range can't be said, and the rule's profile is not gone
    text = "version = 1\n[profiles.methane]\nunit = '%LEL'\nrange = 'x'\nlimits.high.blue = 1e6\n"
    text += "[[rules]]\nname = 'r'\nlevel = 'red'\nall = ['methane.high >= red']\n"
    assert only_fault(text) == "4: profiles.methane.range: must be a list, got 'x'"


def test_a_profile_that_is_no_table_leaves_its_rules_alone() -> None:
    text = "version = 1\nprofiles.methane = 3\n"
    text += "[[rules]]\nname = 'r'\nlevel = 'red'\nall = ['methane.high >= red']\n"
    assert only_fault(text) == "2: profiles.methane: must be a table, got 3"


def test_elements_after_a_faulty_one_keep_their_numbers() -> None:
    rule = "[[rules]]\nname = '{}'\nlevel = '{}'\nall = ['{}']\n"
    ok = "methane.high >= red"
    text = HEAD + "unused = 3\n"
    text += rule.format("a", "rd", ok) + rule.format("b", "red", f"x.y >= z', '{ok}")
    text += rule.format("b", "red", ok) + rule.format("d", "red", "nothing.high >= red")
    keys = [fault.split(": ")[1] for fault in faults(text)]
    assert keys == [
        "profiles.methane.unused",
        "rules[0].level",
        "rules[1].all[0]",
        "rules[2].name",
        "rules[3].all[0]",
    ]


def mutated(document: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a document with some values replaced by what does not belong there."""
    rng = random.Random(seed)
    junk: list[Any] = [-1, 0, 1e300, float("nan"), "x", True, [], {}, [1], {"a": 1}, 2**70, None]

    def walk(node: Any) -> Any:
        if rng.random() < 0.05:
            return rng.choice(junk)
        if isinstance(node, dict):
            kept = {key: walk(value) for key, value in node.items() if rng.random() > 0.03}
            return {key: value for key, value in kept.items() if value is not None}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return node

    return {key: walk(value) for key, value in document.items()}


@given(st.integers(0, 2**32))
def test_whatever_stands_in_a_file_it_loads_or_has_faults(seed: int) -> None:
    from engine import rules_check

    search = rules_check._Search(mutated(tomllib.loads(EXAMPLE[0]), seed))
    rules = search.rules()
    assert (rules is not None) or search.problems
    if rules is not None and not search.problems:
        assert len(rules.digest) == 32
    for key, problem, _, _ in search.problems:
        assert problem and isinstance(dotted(key), str)


@given(st.text(alphabet='[]{}="\\#.,\n ab1', max_size=40))
def test_no_text_raises_anything_but_rules_errors(text: str) -> None:
    try:
        Rules.parse(text)
    except RulesError as error:
        assert error.faults
    else:
        raise AssertionError("a text without a version is no rules file")

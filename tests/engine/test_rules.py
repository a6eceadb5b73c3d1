"""Rules load, mean what they say, and keep a digest of their meaning."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.errors import Fault, RulesError
from engine.rules import Rules
from engine.rules_fusion import parse_offset, parse_term

METHANE = """
version = 1
[profiles.methane]
unit = "%LEL"
[profiles.methane.limits]
high = { blue = 5, red = 50 }
"""


def test_a_file_that_says_only_its_version_is_whole() -> None:
    rules = Rules.parse("version = 1")
    assert rules.levels.raise_at.limits() == (20, 40, 60, 80)
    assert rules.profiles == {}
    assert rules.absence.after == 3
    assert rules.time.late_after_s == 60


def test_rules_are_read_from_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xef\xbb\xbf" + METHANE.encode())
    assert Rules.load(path) == Rules.parse(METHANE)


def test_rules_are_frozen() -> None:
    rules = Rules.parse(METHANE)
    with pytest.raises(ValidationError, match="frozen"):
        rules.name = "other"


def test_a_profile_watches_the_quantity_of_its_name_unless_it_says_otherwise() -> None:
    assert Rules.parse(METHANE).profiles["methane"].quantity == "methane"
    text = METHANE.replace('unit = "%LEL"', 'unit = "kPa"\nquantity = "pressure"')
    assert Rules.parse(text).profiles["methane"].quantity == "pressure"


def test_the_profile_that_names_the_category_wins() -> None:
    rules = Rules.parse(
        METHANE + '[profiles.wells]\nquantity = "methane"\nunit = "%vol"\ncategories = ["well"]\n'
    )
    assert rules.profile_name("methane", "well") == "wells"
    assert rules.profile_name("methane", "factory") == "methane"
    assert rules.profile_name("smoke", "well") is None


def test_a_missing_level_of_a_ladder_is_infinite() -> None:
    limits = Rules.parse(METHANE).profiles["methane"].limits
    assert limits.high.limits() == (5, math.inf, math.inf, 50)
    assert limits.low.limits(-math.inf) == (-math.inf,) * 4


def test_a_delay_is_of_every_level_or_of_those_named() -> None:
    text = METHANE + "on_delay_s = 1.5\noff_delay_s = { red = 2 }\n"
    limits = Rules.parse(text).profiles["methane"].limits
    assert limits.on_delay_s.ms() == (1500, 1500, 1500, 1500)
    assert limits.off_delay_s.ms() == (0, 0, 0, 2000)


CATEGORY = """
version = 1
[levels]
raise_at = { blue = 20, red = 80 }
[fusion]
half_life_s = 600
weights = { default = 0.5, methane = 0.9, smoke = 0.8 }
severity = { red = 0.95 }
[fusion.categories.well]
weights = { methane = 1.0 }
severity = { blue = 0.3 }
detectors = { absence = 0 }
class_factor = { red = 2 }
[fusion.categories.well.levels]
raise_at = { yellow = 30 }
"""


def test_a_category_overrides_single_keys_and_whole_ladders() -> None:
    rules = Rules.parse(CATEGORY)
    fusion = rules.fusion.of("well")
    assert fusion.half_life_s == 600
    assert [fusion.weight(q) for q in ("methane", "smoke", "rain")] == [1.0, 0.8, 0.5]
    assert (fusion.severity.blue, fusion.severity.yellow, fusion.severity.red) == (0.3, 0.5, 0.95)
    assert (fusion.detectors.absence, fusion.detectors.high) == (0.0, 1.0)
    assert (fusion.class_factor.red, fusion.class_factor.yellow) == (2.0, 1.1)
    assert rules.levels_of("well").raise_at.named() == [("yellow", 30.0)]
    assert rules.levels_of("well").deadband == 5


def test_other_categories_have_the_defaults() -> None:
    rules = Rules.parse(CATEGORY)
    assert rules.fusion.of("factory") == rules.fusion
    assert rules.levels_of("factory") == rules.levels


def test_quantities_without_a_weight_count_in_full_if_no_default_is_given() -> None:
    fusion = Rules.parse("version = 1\n[fusion]\nweights = { methane = 0.5 }").fusion
    assert (fusion.weight("methane"), fusion.weight("smoke")) == (0.5, 1.0)


def test_couplings_have_the_influence_of_their_kind() -> None:
    coupling = Rules.parse("version = 1\n[coupling]\ninfluence = { pipe = 0.9 }").coupling
    assert (coupling.of("pipe"), coupling.of("spatial")) == (0.9, 0.3)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("methane.high >= yellow", ("methane", "high", 2, False)),
        ("near  permit.high>=blue", ("permit", "high", 1, True)),
        (" pm2.5.window >=  red ", ("pm2.5", "window", 4, False)),
    ],
)
def test_terms_are_read(text: str, parsed: tuple[str, str, int, bool]) -> None:
    assert parse_term(text) == parsed
    assert parse_term(str(parse_term(text))) == parse_term(text)


def test_distinct_terms_come_once_those_of_the_source_first() -> None:
    rules = Rules.parse(
        METHANE
        + """
[[rules]]
name = "a"
all = ["near methane.high >= blue", "methane.high >= blue"]
level = "red"
[[rules]]
name = "b"
any = ["methane.high>=blue", "methane.high >= red"]
none = ["methane.bad >= blue"]
level = "red"
"""
    )
    assert list(map(str, rules.terms())) == [
        "methane.high >= blue",
        "methane.high >= red",
        "methane.bad >= blue",
        "near methane.high >= blue",
    ]


CONTEXT = """
version = 1
[time]
utc_offset = "{zone}"
[[context]]
name = "typhoon"
from = {start}
to = 2025-08-01
factor = 1.3
"""


@pytest.mark.parametrize(
    ("zone", "start", "epoch_ms"),
    [
        ("+08:00", "2025-07-30T00:00:00+08:00", 1_753_804_800_000),
        ("-01:00", "2025-07-30T00:00:00+08:00", 1_753_804_800_000),
        ("+08:00", "2025-07-30T00:00:00", 1_753_804_800_000),
        ("+08:00", "2025-07-30", 1_753_804_800_000),
        ("Z", "2025-07-30", 1_753_833_600_000),
        ("-03:30", "2025-07-30 00:00:00.123", 1_753_833_600_000 + 12_600_000 + 123),
    ],
)
def test_a_context_without_an_offset_is_at_the_sites_time(
    zone: str, start: str, epoch_ms: int
) -> None:
    rules = Rules.parse(CONTEXT.format(zone=zone, start=start))
    assert rules.context[0].span_ms(rules.time.zone())[0] == epoch_ms


def test_offsets_beyond_fourteen_hours_are_refused() -> None:
    with pytest.raises(ValueError, match="14:00"):
        parse_offset("+14:01")


# --- the digest ----------------------------------------------------------------------------------

SAME = [
    METHANE,
    METHANE + "\n# a comment\n",
    METHANE.replace("blue = 5, red = 50", "red=50.0,blue=5"),
    METHANE.replace('unit = "%LEL"', 'quantity = "methane"\nunit = "%LEL"\nrefractory_s = 600'),
    METHANE + "on_delay_s = 0\n[levels]\nhold_s = 60\n[fusion]\n",
    '[profiles]\nmethane = { unit="%LEL", limits.high = {blue=5,red=5e1} }\n[fusion]\n'.replace(
        "[profiles]", "version = 1\n[profiles]"
    ),
]


@pytest.mark.parametrize("text", SAME)
def test_comments_layout_and_written_out_defaults_keep_the_digest(text: str) -> None:
    assert Rules.parse(text).digest == Rules.parse(METHANE).digest
    assert len(Rules.parse(text).digest) == 32


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("red = 50", "red = 50.001"),
        ("red = 50", "orange = 50"),
        ("%LEL", "% LEL"),
        ("version = 1", 'version = 1\nname = "x"'),
        ("version = 1", "version = 1\nlevels.hold_s = 61"),
    ],
)
def test_a_change_of_meaning_changes_the_digest(old: str, new: str) -> None:
    assert old in METHANE
    assert Rules.parse(METHANE.replace(old, new)).digest != Rules.parse(METHANE).digest


def test_the_same_moment_written_another_way_keeps_the_digest() -> None:
    texts = [
        CONTEXT.format(zone="+08:00", start=start)
        for start in ("2025-07-30", "2025-07-29T16:00:00Z", "2025-07-30T00:00:00")
    ]
    assert len({Rules.parse(text).digest for text in texts}) == 1
    other = Rules.parse(CONTEXT.format(zone="+08:00", start="2025-07-30T00:00:01"))
    assert other.digest != Rules.parse(texts[0]).digest


def test_the_digest_is_the_same_in_every_process() -> None:
    # a change here re-keys every alert log: it must be meant
    assert Rules.parse("version = 1").digest == "350362f95b93302822b971174f28b85a"


def test_a_file_that_is_missing_gets_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RulesError) as caught:
        Rules.load(tmp_path / "no.toml")
    assert str(caught.value) == f"{tmp_path / 'no.toml'}: can't be read: No such file or directory"


# --- files that are no TOML ----------------------------------------------------------------------


def only(text: str) -> Fault:
    with pytest.raises(RulesError) as caught:
        Rules.parse(text, file="f")
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[a]\n\n[a]\n", 3), ('a = "x\n', 1), ("a", 1)],
)
def test_a_syntax_error_is_one_line_with_its_place(text: str, line: int) -> None:
    fault = only(text)
    assert fault.line == line
    assert fault.problem.startswith("not TOML: ")
    assert "\n" not in str(fault)


def test_nesting_and_digits_without_end_are_refused() -> None:
    assert only("a = " + "[" * 100_000).problem.startswith("not TOML")
    assert only("a = 1" + "0" * 10_000).problem.startswith("not TOML")


def test_a_number_too_large_for_any_key_is_refused() -> None:
    fault = only("version = 1\nlevels.hold_s = 1" + "0" * 400)
    assert (fault.line, fault.key) == (2, "levels.hold_s")


def test_a_file_that_is_not_text_says_on_which_line(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"version = 1\nname = '\xff'\n")
    with pytest.raises(RulesError) as caught:
        Rules.load(path)
    assert [str(fault) for fault in caught.value.faults] == [f"{path}: line 2: must be UTF-8 text"]


def test_a_file_beyond_the_bound_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    with path.open("wb") as stream:
        stream.truncate(9 << 20)
    with pytest.raises(RulesError, match="8 MiB"):
        Rules.load(path)


# --- routes --------------------------------------------------------------------------------------

ROUTES = """
[[routes]]
name = "wells"
categories = ["well"]
[[routes]]
name = "command"
levels = ["orange", "red"]
"""


def test_routes_are_named_in_their_order_and_what_takes_the_rest_comes_last() -> None:
    assert Rules.parse("version = 1").route_names == ["default"]
    assert Rules.parse(METHANE + ROUTES).route_names == ["wells", "command", "default"]


def test_a_route_that_is_declared_to_take_the_rest_stands_where_it_is_declared() -> None:
    rest = '[[routes]]\nname = "desk"\ndefault = true\n'
    assert Rules.parse(METHANE + rest + ROUTES).route_names == ["desk", "wells", "command"]


def test_routes_belong_to_the_digest_and_rules_without_any_keep_theirs() -> None:
    plain, routed = Rules.parse(METHANE), Rules.parse(METHANE + ROUTES)
    assert plain.digest == "9c04abff137fad417a8933efaafb5d16"
    assert routed.digest != plain.digest
    assert Rules.parse(METHANE + ROUTES.replace('"red"', '"blue"')).digest != routed.digest
    swapped = "[[routes]]".join(["", *reversed(ROUTES.split("[[routes]]")[1:])])
    assert Rules.parse(METHANE + swapped).digest != routed.digest

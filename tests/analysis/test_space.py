"""Spaces: what may vary, every fault with its line, and the rules that values make."""

from __future__ import annotations

import math
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.tuning import space as spaces
from engine.analysis.tuning.settings import Refused, Settings
from engine.analysis.tuning.space import Space, key_parts, parse
from engine.catalog import Catalog
from engine.catalog_build import build_catalog
from engine.errors import SettingsError
from engine.rules import Rules
from tests.cities import sensor, source, write_folder

ROOT = Path(__file__).parents[2]
DAY = (ROOT / "replay_data/day/rules.toml").read_text(encoding="utf-8")
RULES = Rules.parse(DAY)


def space(text: str) -> Space:
    return parse(f"version = 1\n{text}")


def one(text: str, rules: Rules = RULES) -> Settings:
    return Settings(space(f"[[vary]]\n{text}"), rules)


def faults(text: str, rules: Rules = RULES) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings(parse(text, file="s.toml"), rules)
    return list(map(str, caught.value.faults))


def put(document: Any, path: tuple[Any, ...], value: float) -> None:
    for part in path[:-1]:
        document = document[part]
    document[path[-1]] = value


# --- the file -------------------------------------------------------------------------------------


def test_every_fault_of_a_space_is_told_with_its_line() -> None:
    text = """version = 1
[search]
method = "grit"
[[vary]]
key = "profiles.methane.limits.deadband"
low = 5
high = 2
[[vary]]
key = "profiles.methane.limits.high.blue"
scale = ["levels.deadband"]
values = [1]
[[vary]]
keey = "levels.deadband"
values = [1]
[[vary]]
scale = ["profiles.methane.limits.high"]
values = [0, 1]
"""
    assert faults(text) == [
        "s.toml: line 3: search.method: must be 'grid', 'random' or 'adaptive' (did you mean "
        "grid?), got 'grit'",
        "s.toml: line 7: vary[0].high: must be above low = 5, got 2.0",
        "s.toml: line 10: vary[1].scale: needs one of key, scale, shift, same, not two",
        "s.toml: line 13: vary[2].keey: unknown key (did you mean key?)",
        "s.toml: line 16: vary[3].scale: moves several keys: give it a name",
        "s.toml: line 17: vary[3].values[0]: must be > 0: a scale is a factor, got 0.0",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("low = 1", "needs low and high, or values"),
        ("low = 1\nhigh = 2\nvalues = [1]", "goes without values, which are all there is"),
        ("low = 1\nhigh = 2\nstep = 3", "must give 2 to 10,000 values from low to high"),
        ("low = 0\nhigh = 2\nlog = true", "must be > 0 with log"),
        ("low = 1\nhigh = 2\nstep = 0.5\nlog = true", "goes without n and log"),
        ("values = [1, 1]", "must name each value once"),
        ("values = []", "must have at least 1 entries"),
    ],
)
def test_a_range_that_says_too_little_or_too_much_is_refused(line: str, problem: str) -> None:
    (text,) = faults(f'version = 1\n[[vary]]\nkey = "levels.deadband"\n{line}\n')
    assert problem in text


def test_no_space_at_all_is_refused() -> None:
    assert faults("version = 1") == ["s.toml: vary: is required, and missing"]
    assert (
        "line 2"
        in faults('version = 1\nversions = 2\n[[vary]]\nkey="levels.deadband"\nvalues=[1]')[0]
    )


def test_what_is_no_toml_or_no_file_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not TOML"):
        parse("version = ")
    with pytest.raises(SettingsError, match="can't be read"):
        spaces.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("low = 1\nhigh = 2\nstep = 0.1", [1 + i / 10 for i in range(11)]),
        ("low = 1\nhigh = 2\nstep = 0.3", [1, 1.3, 1.6, 1.9]),
        ("low = 1\nhigh = 100\nn = 3\nlog = true", [1, 10, 100]),
        ("low = 0\nhigh = 1\nn = 5", [0, 0.25, 0.5, 0.75, 1]),
        ("values = [3, 1]", [3, 1]),
    ],
)
def test_choices_are_the_numbers_that_people_would_write(line: str, values: list[float]) -> None:
    (found,) = one(f'key = "levels.deadband"\n{line}').parameters
    assert found.choices == tuple(round(value, 9) for value in values)


# --- keys -----------------------------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.integers(0, 99), st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(min_size=1)
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_path_is_read_back_from_how_it_is_written(parts: list[str | int]) -> None:
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[a-z_]+", part):
            text += ("." if text else "") + part
        else:
            escaped = "".join(f"\\U{ord(c):08X}" for c in part)
            if any(0xD800 <= ord(c) < 0xE000 for c in part):
                return
            text += ("." if text else "") + f'"{escaped}"'
    assert list(key_parts(text)) == parts


@pytest.mark.parametrize("text", ["", ".a", "a..b", "a.", "a[", "a[x]", 'a."b', "a]b"])
def test_what_is_no_key_is_refused(text: str) -> None:
    if text == "":
        assert key_parts(text) == ()
        return
    with pytest.raises(ValueError):
        key_parts(text)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (
            "profiles.methan.limits.deadband",
            "profiles has none called 'methan' (did you mean methane?)",
        ),
        ("profiles.methane.limits.deadbend", "has no key 'deadbend' (did you mean deadband?)"),
        ("profiles.methane.limits.high", "names a table: name one of it"),
        ("profiles.methane.limits", "is a table: only numbers can vary"),
        ("profiles.methane.limits.latch", "is not a number: only numbers can vary"),
        ("profiles.methane.liveness.flat_level", "is not a number: only numbers can vary"),
        ("profiles.methane.deviation.memory_n", "the rules have no profiles.methane.deviation"),
        ("profiles.methane.windows.x.length_s", "profiles.methane.windows has none called 'x'"),
        ("profiles.rain.windows[3].length_s", "profiles.rain.windows has none called 3"),
        ("context.storm.factor", "context has none called 'storm'"),
        ("version", "is not a number"),
        ("profiles.methane.limits.deadband.more", "is no table"),
        ("fusion.weights", "only numbers can vary"),
    ],
)
def test_a_key_that_names_no_number_is_refused_and_told_why(key: str, problem: str) -> None:
    (text,) = faults(f"version = 1\n[[vary]]\nkey = '{key}'\nvalues = [1, 2]\n")
    assert "line 3" in text and problem in text


def test_no_two_parameters_may_move_the_same_key() -> None:
    text = """version = 1
[[vary]]
key = "profiles.methane.limits.on_delay_s"
values = [60]
[[vary]]
key = "profiles.methane.limits.on_delay_s.blue"
values = [60]
"""
    assert "moves profiles.methane.limits.on_delay_s" in faults(text)[0]


def test_whole_numbers_are_asked_for_where_the_rules_take_no_others() -> None:
    text = 'version = 1\n[[vary]]\nkey = "profiles.methane.rate.confirm_n"\nvalues = [1, 1.5]\n'
    assert "takes whole numbers, got 1.5" in faults(text)[0]


# --- rules of values ------------------------------------------------------------------------------

PLACES: list[tuple[str, tuple[Any, ...], float]] = [
    (key, key_parts(path or key), value)
    for key, path, value in (
        ("profiles.methane.limits.high.blue", "", 12),
        ("profiles.methane.limits.on_delay_s.red", "", 30),
        ("profiles.methane.limits.off_delay_s", "", 60),
        ("profiles.methane.rate.window_s", "", 900),
        (
            'profiles.rain.windows."sum of 6 h".high.yellow',
            "profiles.rain.windows[1].high.yellow",
            40,
        ),
        ("profiles.rain.windows[2].length_s", "", 7200),
        ("profiles.solvent.drift.allowance", "", 0.7),
        ("profiles.solvent.deviation.memory_n", "", 300),
        ("fusion.half_life_s", "", 900),
        ("fusion.weights.methane", "", 0.7),
        ("fusion.categories.rain_gauge.half_life_s", "", 60),
        ("levels.raise_at.blue", "", 25),
        ("levels.hold_s", "", 300),
        ("coupling.influence.pipe", "", 0.4),
        ('context."rainstorm warning".factor', "context[0].factor", 1.5),
        ("absence.after", "", 20),
        ("time.late_after_s", "", 120),
    )
]


@pytest.mark.parametrize(("key", "path", "value"), PLACES, ids=[place[0] for place in PLACES])
def test_a_value_gives_the_rules_that_a_file_with_it_would_give(
    key: str, path: tuple[Any, ...], value: float
) -> None:
    made = one(f"key = '{key}'\nvalues = [{value}]").rules_of((value,))
    document = tomllib.loads(DAY)
    put(document, path, value)
    assert made.digest == Rules.model_validate(document).digest != RULES.digest
    assert made.text == ""


def test_the_rest_of_a_ladder_that_stands_elsewhere_is_taken_along() -> None:
    made = one('key = "fusion.categories.mall.levels.raise_at.blue"\nvalues = [15]').rules_of(
        (15.0,)
    )
    assert made.levels_of("mall").raise_at.limits() == (15, 40, 60, 80)
    assert made.levels_of("gas_well") == RULES.levels


@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_many_changes_at_once_are_what_the_changed_file_says_or_are_refused_as_it_is(
    seed: int,
) -> None:
    import random

    drawn = random.Random(seed)
    places = drawn.sample(PLACES, 5)
    values = [round(place[2] * drawn.choice([0.3, 0.9, 1.0, 1.1, 3.0])) for place in places]
    text = "".join(
        f"[[vary]]\nkey = '{place[0]}'\nvalues = [{value}]\n"
        for place, value in zip(places, values, strict=True)
    )
    bound = Settings(space(text), RULES)
    document = tomllib.loads(DAY)
    for place, value in zip(places, values, strict=True):
        put(document, place[1], value)
    try:
        expected = Rules.model_validate(document)
    except ValueError:
        with pytest.raises(Refused):
            bound.rules_of(tuple(map(float, values)))
    else:
        assert bound.rules_of(tuple(map(float, values))).digest == expected.digest


def test_links_scale_shift_and_level_several_keys_by_one_value() -> None:
    scaled = one('name = "x"\nscale = ["profiles.methane.limits.high"]\nvalues = [1, 1.5]')
    assert scaled.baseline == (1.0,)
    assert scaled.rules_of((1.5,)).profiles["methane"].limits.high.limits(0) == (15, 37.5, 0, 75)
    shifted = one('name = "x"\nshift = ["profiles.methane.limits.on_delay_s"]\nvalues = [30]')
    assert shifted.baseline == (0.0,)
    assert shifted.rules_of((30.0,)).profiles["methane"].limits.on_delay_s.ms() == (
        150_000, 90_000, 30_000, 90_000,
    )  # fmt: skip
    same = one('name = "x"\nsame = ["profiles.*.limits.off_delay_s"]\nvalues = [240]')
    assert math.isnan(same.baseline[0])
    off = {p.limits.off_delay_s.red for p in same.rules_of((240.0,)).profiles.values()}
    assert off == {240.0}


def test_the_values_of_the_given_rules_give_the_very_rules() -> None:
    text = "".join(f"[[vary]]\nkey = '{key}'\nvalues = [1]\n" for key, _, _ in PLACES)
    bound = Settings(space(text), RULES)
    assert bound.rules_of(bound.baseline) is RULES
    assert bound.changed(bound.baseline) == []


def test_limits_that_cross_are_refused_with_both() -> None:
    bound = one('key = "profiles.methane.limits.high.yellow"\nvalues = [60]')
    with pytest.raises(Refused, match=r"high\.red: must ascend, above yellow = 60, got 50"):
        bound.rules_of((60.0,))


def test_limits_that_cross_a_sensor_s_own_are_refused_like_any_others(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "city",
        [source("a"), source("b")],
        [sensor("a/1", "a", unit="%LEL", high_red=40.0), sensor("b/1", "b", unit="%LEL")],
    )
    build_catalog(folder, tmp_path / "c", 1, None)
    text = "[[vary]]\nkey = 'profiles.methane.limits.high.yellow'\nvalues = [30, 45]\n"
    bound = Settings(space(text), RULES, Catalog.open(tmp_path / "c"))
    assert bound.rules_of((30.0,)).profiles["methane"].limits.high.yellow == 30
    with pytest.raises(Refused, match="sensor a/1"):
        bound.rules_of((45.0,))


def test_a_thousand_rules_are_made_in_a_second() -> None:
    text = "".join(
        f"[[vary]]\nkey = 'profiles.{name}.limits.deadband'\nlow = 0.1\nhigh = 0.4\nn = 100\n"
        for name in ("methane", "smoke", "crowd_density")
    )
    bound = Settings(space(text), RULES)
    lists = [parameter.choices or () for parameter in bound.parameters]
    began = time.process_time()
    for number in range(1000):
        bound.rules_of(tuple(each[number * 7 % 100] for each in lists))
    assert time.process_time() - began < 2.0  # 0.25 s on an idle core

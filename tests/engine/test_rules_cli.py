"""`tocsin rules check` prints what rules will do, in words and as JSON, or every fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import rules_cli
from engine.errors import RulesError
from engine.rules import Rules
from engine.rules_summary import duration, summary
from tests.engine.test_rules_docs import EXAMPLE


def lines_of(text: str, profile: str, kind: str) -> list[tuple[str, str, str]]:
    """Return level, raising and clearing condition of each signal of a kind."""
    found = summary(Rules.parse(text))["profiles"]
    signals = next(each for each in found if each["name"] == profile)["signals"]
    return [
        (each["level"], each["raises"], each["clears"]) for each in signals if each["kind"] == kind
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.5, "0.5 s"), (60, "1 min"), (90, "90 s"), (5400, "90 min"), (172_800, "2 d")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_limits_say_how_long_and_where_they_clear() -> None:
    assert lines_of(EXAMPLE[0], "methane", "high") == [
        ("blue", "≥ 5 %LEL for 1 min", "< 4 %LEL for 1 min"),
        ("yellow", "≥ 10 %LEL for 30 s", "< 9 %LEL for 1 min"),
        ("orange", "≥ 25 %LEL for 10 s", "< 24 %LEL for 1 min"),
        ("red", "≥ 50 %LEL", "< 49 %LEL for 1 min"),
    ]
    assert lines_of(EXAMPLE[0], "pressure", "low")[0] == ("yellow", "≤ 200 kPa", "> 200 kPa")


def test_rates_windows_and_sigmas_say_their_unit() -> None:
    assert lines_of(EXAMPLE[0], "methane", "rise")[0] == (
        "yellow",
        "rises ≥ 2 %LEL/min over 5 min, 2 readings in a row",
        "< 1.8 %LEL/min",
    )
    assert lines_of(EXAMPLE[0], "methane", "window") == [
        ("yellow", "mean ≥ 8 %LEL over 1 min, of at least 3 readings", "< 7 %LEL")
    ]
    assert lines_of(EXAMPLE[0], "methane", "drift")[0][2] == "< 7 σ"


def test_a_detector_that_is_off_is_not_mentioned() -> None:
    kinds = {
        line["kind"]
        for profile in summary(Rules.parse(EXAMPLE[0]))["profiles"]
        for line in profile["signals"]
        if profile["name"] == "permit"
    }
    assert kinds == {"high", "absence", "bad"}


def test_what_a_signal_counts_is_that_of_the_categories_it_is_for() -> None:
    profiles = {each["name"]: each for each in summary(Rules.parse(EXAMPLE[0]))["profiles"]}

    def percent(profile: str, kind: str) -> list[int]:
        signals: list[dict[str, Any]] = profiles[profile]["signals"]
        return next(line["percent"] for line in signals if line["kind"] == kind)

    # blue of gas wells counts 0.3, of others 0.25; absence 0.2 and 0.4
    assert percent("methane", "high") == [30]
    assert percent("methane_elsewhere", "absence") == [10]
    assert percent("pressure", "absence") == [3, 10]


def test_check_prints_a_summary_and_is_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(EXAMPLE[0], encoding="utf-8")
    assert rules_cli.check(path, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "third-party damage" in printed
    assert "≥ 25 %LEL for 10 s" in printed
    assert "command-centre  levels orange, red; categories gas_well, factory; dis" in printed
    assert "duty-desk       what no other route takes" in printed
    assert "\x1b" not in printed, "no colours in a pipe"


def test_names_that_look_like_markup_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("version = 1\nname = '[bold]x[/nothing]'\n", encoding="utf-8")
    assert rules_cli.check(path, as_json=False) == 0
    assert "[bold]x[/nothing]" in capsys.readouterr().out


def test_check_prints_json_of_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(EXAMPLE[0], encoding="utf-8")
    assert rules_cli.check(path, as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is True
    assert printed["digest"] == Rules.load(path).digest
    assert printed["profiles"][0]["name"] == "methane"


def test_check_prints_faults_as_json_and_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("version = 1\n[levels]\nhold_s = -1\n", encoding="utf-8")
    assert rules_cli.check(path, as_json=True) == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    fault = printed["faults"][0]
    assert (fault["line"], fault["key"], fault["problem"]) == (3, "levels.hold_s", "must be ≥ 0")


def test_check_raises_faults_for_people(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("version = 1\n[levels]\nhold_s = -1\n", encoding="utf-8")
    with pytest.raises(RulesError):
        rules_cli.check(path, as_json=False)

"""What `tocsin test` prints and returns, the day's own tests, and the page that documents them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from engine.analysis.rule_tests import exits, file
from engine.analysis.rule_tests.cli import run
from engine.analysis.rule_tests.results import run_tests
from engine.errors import InputError, OutputError
from engine.rules_schema import keys_of
from tests.analysis.rule_worlds import RULES, one, write

ROOT = Path(__file__).parents[2]
DAY = ROOT / "replay_data" / "day"
PAGE = (ROOT / "engine" / "RULE_TESTS.md").read_text(encoding="utf-8")
GOOD = one('readings = { ch4 = "9.5 12*3" }\n[[test.expect]]\nat = "1m"\nlevel = "blue"')
BAD = GOOD.replace('"it"', '"that"').replace('"blue"', '"red"')


def test_passing_tests_exit_with_0_and_say_what_is_not_covered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([write(tmp_path, GOOD)]) == 0
    out = capsys.readouterr().out
    assert "1 test, all passed; 1 expectations" in out
    assert re.search(r"profiles\.methane *\n  limits\.high\.blue +10 %LEL +clear it", out)
    assert re.search(r"  limits\.high\.yellow +25 %LEL +reach it; nearest 12", out)
    assert re.search(r"  burst +reach it", out)


def test_a_failing_test_exits_with_1_and_is_told_within_100_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([write(tmp_path, GOOD + BAD)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"FAIL  that .*:\d+", out.replace("\n", " "))
    assert "expected well at 1m: red" in out and "last raise at 1m: well: blue alert" in out
    assert "9.5 at 0s, 12 at 1m | then 12 at 2m, 12 at 3m" in out
    assert "2 tests, 1 failed" in out
    assert max(map(len, out.splitlines())) <= 100


def test_too_little_coverage_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, GOOD)
    percent = run_tests(path).coverage_percent
    assert run([path], min_coverage=percent) == 0
    assert run([path], min_coverage=percent + 0.01) == 1
    assert "is below" in capsys.readouterr().out


def test_json_holds_what_was_expected_what_came_and_the_coverage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([write(tmp_path, GOOD + BAD)], as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["passed"], found["failed"]) == (False, 1, 1)
    failed = found["tests"][1]["expectations"][0]
    assert failed["expected"] == "well at 1m: red" and failed["at_s"] == 60
    items = {item["key"]: item for item in found["coverage"][0]["items"]}
    assert items["profiles.methane.limits.high.blue"]["below"] == 9.5


def test_faults_exit_with_3_in_json_and_are_raised_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, GOOD.replace("level", "levl"))
    assert run([path], as_json=True) == exits.BAD_INPUT
    found = json.loads(capsys.readouterr().out)
    assert found["faults"][0]["key"] == "test[0].expect[0].levl"
    with pytest.raises(InputError, match="1 fault in the tests"):
        run([path])


def test_junit_names_every_test_and_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "junit.xml"
    assert run([write(tmp_path, GOOD + BAD)], junit=out) == 1
    root = ET.parse(out).getroot()
    assert root.attrib["tests"] == "2" and root.attrib["failures"] == "1"
    cases = root.findall("testsuite/testcase")
    assert [case.attrib["name"] for case in cases] == ["it", "that"]
    failure = cases[1].find("failure")
    assert failure is not None and "expected well at 1m: red" in failure.attrib["message"]
    assert cases[0].find("failure") is None
    with pytest.raises(OutputError):
        run([tmp_path / "rules_test.toml"], junit=tmp_path)


def test_folders_and_names_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, GOOD + BAD)
    assert run([tmp_path]) == 1
    assert run([tmp_path], match="IT") == 0
    assert run([tmp_path, tmp_path / "rules_test.toml"], match="that", verbose=True) == 1
    assert "1 test, 1 failed" in capsys.readouterr().out
    with pytest.raises(InputError, match="no test has 'other'"):
        run([tmp_path], match="other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file of tests"):
        run([tmp_path / "empty"])


def test_passed_tests_are_told_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run([write(tmp_path, GOOD)], verbose=True)
    assert re.search(r"^ok    it \(\d+ ms\)$", capsys.readouterr().out, re.M)


# The day


def test_the_day_s_rules_pass_their_tests_which_reach_all_of_them() -> None:
    found = run_tests(DAY / "rules_test.toml")
    assert found.passed, [(test.name, test.failures) for test in found.failed]
    assert found.coverage_percent == 100
    assert [item.key for item in found.coverage[0].items if item.weak] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("blue = 10, yellow = 25, red = 50 }", "blue = 10, yellow = 25, red = 51 }"),
        ("on_delay_s = { blue = 300, yellow = 60", "on_delay_s = { blue = 270, yellow = 60"),
        ("low = { blue = 250, yellow = 200", "low = { blue = 250, yellow = 199"),
        ('["smoke.high >= yellow", "temp', '["smoke.high >= orange", "temp'),
        ("high = { orange = 50, red = 100 }", "high = { orange = 53, red = 100 }"),
        ("factor = 1.2", "factor = 1.1"),
    ],
)
def test_a_change_of_the_day_s_rules_is_noticed(tmp_path: Path, before: str, after: str) -> None:
    text = (DAY / "rules.toml").read_text(encoding="utf-8")
    assert text.count(before) == 1
    other = tmp_path / "rules.toml"
    other.write_text(text.replace(before, after), encoding="utf-8")
    assert not run_tests(DAY / "rules_test.toml", rules=other).passed


# The page


def test_the_page_s_example_passes_as_it_stands(tmp_path: Path) -> None:
    tests, rules = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "rules_test.toml").write_text(tests, encoding="utf-8")
    (tmp_path / "rules.toml").write_text(rules, encoding="utf-8")
    found = run_tests(tmp_path / "rules_test.toml")
    assert found.passed and len(found.tests) == 2, found.failed
    (tmp_path / "rules.toml").write_text(rules.replace("yellow = 25", "yellow = 24"))
    assert not run_tests(tmp_path / "rules_test.toml").passed


@pytest.mark.parametrize(
    "section",
    [
        file.Suite, file.Case, file.Readings,
        file.Command, file.Expect, file.ExpectAlert,
        file.Source, file.Sensor, file.Couple,
    ],
)  # fmt: skip
def test_every_key_is_documented(section: Any) -> None:
    missing = [key for key in keys_of(section) if f"`{key}`" not in PAGE]
    assert missing == []


def test_every_series_of_the_page_is_one() -> None:
    from engine.analysis.rule_tests.series import expand, parse

    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|$", PAGE.partition("## Top")[0], re.M)
    assert len(rows) > 8
    for written, means in rows:
        for text in re.findall(r"`([^`]*)`", written):
            items = expand(parse(text), 60_000) if text not in ("values", "every") else []
            plain = re.search(r": `([\d. ]+)`", means)
            if plain:
                assert [item.value for item in items] == [float(x) for x in plain[1].split()]


def test_no_module_is_taken_for_tests_by_pytest() -> None:
    names = [path.name for path in (ROOT / "engine" / "analysis").glob("*.py")]
    assert not [name for name in names if re.match(r"test_.*\.py|.*_test\.py", name)]
    assert RULES

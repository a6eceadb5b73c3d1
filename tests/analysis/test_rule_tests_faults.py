"""What is refused of a file of tests: every fault at once, each with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.analysis.rule_tests.results import run_tests
from engine.errors import InputError
from tests.analysis.rule_worlds import WELLS, one, write

FINE = 'readings = { ch4 = "5" }\n[[test.expect]]\nat = "0s"\nlevel = "normal"\n'


def faults(folder: Path, body: str, **files: str) -> list[tuple[int | None, str | None, str]]:
    """Return line, key and problem of each fault."""
    with pytest.raises(InputError) as caught:
        run_tests(write(folder, body, **files))
    found = caught.value.faults
    assert all(fault.file == str(folder / "rules_test.toml") for fault in found)
    return [(fault.line, fault.key, fault.problem) for fault in found]


def test_a_file_without_faults_is_taken(tmp_path: Path) -> None:
    assert run_tests(write(tmp_path, one(FINE))).passed


def test_all_faults_of_all_tests_are_found_in_one_run(tmp_path: Path) -> None:
    body = one('readings = { ch4 = "5 5y" }\n[[test.expect]]\nat = "0x"\nlevel = "blu"')
    body += one('redings = {}\n[[test.expect]]\nalert = "rais"\n').replace('"it"', '"that"')
    found = faults(tmp_path, body)
    assert [key for _, key, _ in found] == [
        "test[0].readings.ch4.values",
        "test[0].expect[0].at",
        "test[0].expect[0].level",
        "test[1].redings",
        "test[1].expect[0].alert",
    ]
    lines = (tmp_path / "rules_test.toml").read_text().splitlines()
    for line, key, _ in found:
        assert line is not None and key is not None
        assert key.removesuffix(".values").rpartition(".")[2] in lines[line - 1]
    assert "did you mean readings?" in found[3][2] and "did you mean raise?" in found[4][2]


@pytest.mark.parametrize(
    ("body", "key", "problem"),
    [
        # names
        ('readings = { ch5 = "5" }', "readings.ch5", "no sensor 'ch5' (did you mean ch4?)"),
        ('[[test.expect]]\nat = "0s"\nsource = "wel"\nlevel = "red"', "expect[1].source",
         "no source 'wel' (did you mean well?)"),
        ('[[test.expect]]\nat = "0s"\nlevel = "red"', "expect[1]", "must name its source"),
        ('[[test.expect]]\nat = "0s"\nsource = "well"\nholds = "bust"', "expect[1].holds",
         "the rules have no rule 'bust' (did you mean burst?)"),
        ('[[test.expect]]\nalert = "any"\nrule = "x"', "expect[1].rule", "no rule 'x'"),
        ('[[test.expect]]\nalert = "any"\nroutes = "x"', "expect[1].routes", "no route 'x'"),
        ('[[test.expect]]\nalert = "any"\nsensors = ["ch"]', "expect[1].sensors", "no sensor 'ch'"),
        ('[[test.expect]]\nalert = "any"\ncoupled_from = "x"', "expect[1].coupled_from",
         "no source 'x'"),
        ('[[test.expect]]\nat = "0s"\nsource = "next"\nsensor = "ch4"\nsignals = {}',
         "expect[1].source", "ch4 is a sensor of well"),
        # times
        ("readings = { ch4 = [] }", "readings.ch4.values", "must be a series"),
        ('readings = { ch4 = [["1m", 5], ["30s", 5]] }', "readings.ch4", "must not descend"),
        ('readings = { ch4 = { values = [["1m", 5]], every = "1s" } }', "readings.ch4.every",
         "pairs have times of their own"),
        ('readings = { ch4 = { values = "5x90s" } }', "readings.ch4", "whole number of intervals"),
        ('[[test.expect]]\nalert = "any"\nbetween = ["2m", "1m"]', "expect[1].between", "ascend"),
        ('[[test.expect]]\nalert = "any"\nat = "2m"\nbetween = ["1m", "2m"]', "expect[1].at",
         "goes without between"),
        ('[[test.expect]]\nat = 2020-01-01T00:00:00\nsource = "well"\nlevel = "red"',
         "expect[1].at", "before the start"),
        ("start = 2200-01-01", "start", "between 1970 and 2100"),
        ('every = "0s"', "every", "≥ 1"),
        # expectations that say nothing, or too much
        ('[[test.expect]]\nat = "0s"\nsource = "well"', "expect[1]", "must say what to expect"),
        ('[[test.expect]]\nat = "0s"\nlevel = "red"\nat_most = "red"', "expect[1].level",
         "goes without"),
        ('[[test.expect]]\nat = "0s"\nsignals = {}', "expect[1].sensor", "go together"),
        ('[[test.expect]]\nat = "0s"\nsensor = "ch4"\nsignals = { hihg = "red" }',
         "expect[1].signals.hihg", "did you mean high?"),
        ('[[test.expect]]\nat = "0s"\nscore_at_least = 9\nscore_at_most = 8',
         "expect[1].score_at_least", "at most score_at_most"),
        ('[[test.expect]]\nalert = "none"\ncount = 2', "expect[1].count", "goes without"),
        ('[[test.expect]]\nat = "0s"\ndetector = "high"', "expect[1].detector", "it needs alert ="),
        # commands
        ('[[test.commands]]\nat = "0s"\ndo = "shelve"\nsource = "well"', "commands[0].do",
         "needs for"),
        ('[[test.commands]]\nat = "0s"\ndo = "shelve"\nsource = "well"\nfor = "25h"',
         "commands[0]", "must be 1 to 86400000"),
        ('[[test.commands]]\nat = "0s"\ndo = "acknowledge"\ndistrict = "x"',
         "commands[0].district", "is about a source"),
        ('[[test.commands]]\nat = "0s"\ndo = "unsuppress"\ncategory = "gas_wel"',
         "commands[0].category", "did you mean gas_well?"),
        # sources
        ('sources.a = { category = "x", sensors = {} }', "sources.a.sensors", "at least 1"),
        ('sources.a = { category = "x", sensors = { b = { quantity = "methane", unit = "kPa", '
         "period_s = 1 } } }", "sources.a.sensors.b.unit", "not in 'kPa'"),
        ('sources.a = { category = "x", sensors = { b = { quantity = "methan", unit = "%LEL", '
         "period_s = 1 } } }", "sources.a.sensors.b.quantity", "did you mean methane?"),
        ('sources.a = { category = "x", sensors = { ch4 = { quantity = "methane", unit = "%LEL", '
         "period_s = 1 } } }", "sources.a.sensors.ch4", "duplicate"),
        ('sources.a = { category = "x", sensors = { b = { quantity = "methane", unit = "%LEL", '
         "period_s = 1, high = { red = 20 } } } }", "sources.a.sensors.b", "must ascend"),
        ('sources.a = { category = "x", sensors = { b = { quantity = "methane", unit = "%LEL", '
         "period_s = 1, high = { blue = 20, red = 10 } } } }", "sources.a.sensors.b.high.red",
         "must ascend"),
        ('couplings = [{ from = "well", to = "nxt", kind = "pipe", weight = 1 }]',
         "couplings[0].to", "is not in sources"),
    ],
)  # fmt: skip
def test_one_fault_is_named_with_its_key_and_line(
    tmp_path: Path, body: str, key: str, problem: str
) -> None:
    head, separator, tables = body.partition("[[test")
    plain = 'readings = { ch4 = "5", ch4-next = "5" }\n' if "readings" not in head else ""
    fine = '[[test.expect]]\nalert = "none"\n'
    found = faults(tmp_path, one(f"{plain}{head}\n{fine}{separator}{tables}"))
    assert len(found) == 1, found
    line, where, what = found[0]
    assert where == f"test[0].{key}" and problem in what
    n_lines = WELLS.count("\n") + 2
    assert line is not None and line >= n_lines


@pytest.mark.parametrize(
    ("head", "key", "problem"),
    [
        ("version = 2", "version", "must be 1"),
        ('version = 1\nstart = "5m"', "start", "must be a date and a time"),
        ("version = 1\nrule = 1", "rule", "did you mean rules?"),
        ('version = 1\nrules = "\\u0000"', "rules", "must be the path of a file"),
        ("", "version", "is required"),
    ],
)
def test_the_top_of_the_file_is_checked(tmp_path: Path, head: str, key: str, problem: str) -> None:
    found = faults(tmp_path, one(FINE), wells=head + "\n")
    assert [(where, problem in what) for _, where, what in found] == [(key, True)]


def test_two_tests_of_one_name_and_a_file_without_tests(tmp_path: Path) -> None:
    assert "must differ" in faults(tmp_path, one(FINE) + one(FINE))[0][2]
    assert "has no test" in faults(tmp_path, "")[0][2]
    assert "expects nothing" in faults(tmp_path, one('readings = { ch4 = "5" }'))[0][2]
    assert (
        "must be tables"
        in faults(tmp_path, "", wells=WELLS.replace("\n[sou", "\ntest = 1\n[sou", 1))[0][2]
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"wells": "version = ="}, "not TOML"),
        ({"wells": "version = 1\n"}, "names no rules"),
        ({"rules": "version = 1\nnothing = 1"}, "rules.toml: 1 fault in the rules"),
        ({"wells": WELLS.replace('rules.toml"', 'rules.toml"\ncatalog = "no.catalog"')}, "no such"),
        ({"wells": WELLS.replace('rules.toml"', 'no.toml"')}, "can't be read"),
        ({"wells": WELLS.replace('rules.toml"', 'rules.toml"\nquantities = "q.toml"')}, "q.toml"),
    ],
)
def test_files_that_can_t_be_used_are_named(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        run_tests(write(tmp_path, one(FINE), **change))


def test_the_faults_of_several_files_are_raised_together(tmp_path: Path) -> None:
    one_file = write(tmp_path, one(FINE.replace("normal", "norml")))
    other = tmp_path / "other_test.toml"
    other.write_text(WELLS + one(FINE.replace("ch4", "ch5")))
    third = tmp_path / "third_test.toml"
    third.write_text(WELLS + one(FINE.replace('"0s"', '"0"').replace("level", "levl")))
    with pytest.raises(InputError) as caught:
        run_tests([one_file, third])
    assert {fault.file for fault in caught.value.faults} == {str(one_file), str(third)}
    with pytest.raises(InputError, match="other_test"):
        run_tests([other])

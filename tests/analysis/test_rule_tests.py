"""Tests of rules: what passes, what fails, and exactly when it is judged."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.rule_tests.file import load
from engine.analysis.rule_tests.items import Items
from engine.analysis.rule_tests.ready import Ready, prepare
from engine.analysis.rule_tests.results import run_tests
from engine.analysis.rule_tests.run import run
from engine.catalog_build import build_catalog
from engine.history import Weaver
from engine.pipeline import Pipeline
from engine.readings import Readings
from engine.rules import Rules
from kernels.layout import JUDGE_SOURCE, TICK
from tests.analysis.rule_worlds import RULES, WELLS, one, results, tested, write
from tests.cities import coupling, sensor, source, write_folder


def expect(**keys: Any) -> str:
    """Return a table of an expectation."""
    return "[[test.expect]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


LEAK = 'readings = { ch4 = "5*5 24.9*3 25*2 5*20" }\n'
"""24.9 from 5m on, 25 at 8m and 9m."""


def came(folder: Path, body: str, **files: str) -> str:
    """Return what came of the only failure of one test."""
    test = tested(folder, body, **files)
    assert len(test.failures) == 1, test.verdicts
    return test.failures[0].came


# When it is judged


@pytest.mark.parametrize(
    ("at", "level"),
    [("4m59s", "normal"), ("5m", "blue"), ("8m59.999s", "blue"), ("9m", "yellow")],
)
def test_a_reading_at_the_very_time_counts(tmp_path: Path, at: str, level: str) -> None:
    assert tested(tmp_path, LEAK + expect(at=f'"{at}"', level=f'"{level}"')).passed
    other = "orange" if level != "orange" else "blue"
    assert not tested(tmp_path, LEAK + expect(at=f'"{at}"', level=f'"{other}"')).passed


def test_silence_is_noticed_at_its_very_end_and_between_ticks(tmp_path: Path) -> None:
    body = 'readings = { ch4 = [["0s", 5], ["61s", 5]] }\nuntil = "10m"\n'
    silent = 'signals = { absence = "yellow" }'
    body += expect(at='"4m0.999s"', sensor='"ch4"\nsignals = {}')
    body += expect(at='"4m1s"', sensor=f'"ch4"\n{silent}')
    body += expect(alert='"raise"', at='"4m1s"', detector='"absence"')
    assert tested(tmp_path, body).passed


def test_a_look_between_ticks_changes_nothing_of_the_course(tmp_path: Path) -> None:
    # absent at 3m; the reading at 3m5s comes before the next tick, so the log has no absence
    body = 'readings = { ch4 = [["5s", 5], ["3m6s", 5]] }\n'
    quiet = expect(alert='"none"')
    assert tested(tmp_path, body + quiet).passed
    looked = expect(at='"3m5s"', sensor='"ch4"\nsignals = { absence = "yellow" }')
    assert tested(tmp_path, body + looked + quiet).passed


def test_a_score_fades_while_nothing_changes(tmp_path: Path) -> None:
    body = 'readings = { ch4 = "30*3 5*18" }\n'
    body += expect(at='"3m"', source='"well"', score=50)
    body += expect(at='"5m"', source='"well"', score=25)  # one half-life
    assert tested(tmp_path, body + expect(at='"20m"', source='"well"', score_at_most=1)).passed


# What is told


def test_a_failure_tells_what_was_expected_what_came_when_and_the_readings_around(
    tmp_path: Path,
) -> None:
    test = tested(tmp_path, LEAK + expect(at='"9m30s"', level='"red"', score=90))
    (failure,) = test.failures
    assert failure.expected == "well at 9m30s: red, score 90"
    assert failure.came.startswith("level yellow; score 50.00 (yellow, score 50.0); ")
    assert "last escalate at 9m: well: raised to yellow" in failure.came
    assert failure.readings == (
        "ch4 [%LEL]: … 24.9 at 6m, 24.9 at 7m, 25 at 8m, 25 at 9m | then 5 at 10m, 5 at 11m",
    )
    lines = (tmp_path / "rules_test.toml").read_text().splitlines()
    assert lines[failure.line - 1] == "[[test.expect]]"


def test_an_alert_that_nearly_fits_is_told_with_what_is_otherwise(tmp_path: Path) -> None:
    body = expect(alert='"escalate"', between='["8m", "10m"]', level='"red"', detector='"rise"')
    told = came(tmp_path, LEAK + body)
    assert "none that fits" in told and "[level yellow, detectors high, not rise]" in told


def test_an_alert_at_another_time_is_told(tmp_path: Path) -> None:
    told = came(tmp_path, LEAK + expect(alert='"escalate"', at='"8m"'))
    assert told.startswith("no alert in that time; one that fits came else: escalate at 9m:")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"level_from": '"normal"'}, "level_from blue, not normal"),
        ({"score_at_least": 51}, "score 50.00"),
        ({"cause": '"limit"'}, "cause score, not limit"),
        ({"rule": '"burst"'}, "rule none, not burst"),
        ({"sensors": '["ch4", "p"]'}, "sensors ch4, not p"),
        ({"routes": '"default"', "coupled_from": '"next"'}, "coupled_from none, not next"),
        ({"late": "true"}, "late false, not true"),
        ({"text": '["methane", "smoke"]'}, "text without 'smoke'"),
        ({"source": '"next"'}, "source well, not next"),
        ({"at_most": '"blue"'}, "level yellow"),
    ],
)
def test_everything_that_is_asked_of_an_alert_is_held_against_it(
    tmp_path: Path, wanted: dict[str, Any], told: str
) -> None:
    assert told in came(tmp_path, LEAK + expect(alert='"escalate"', at='"9m"', **wanted))


def test_an_alert_may_be_asked_for_in_every_way_at_once(tmp_path: Path) -> None:
    body = expect(
        alert='"escalate"', at='"9m"', count=1, source='"well"', level='"yellow"',
        level_from='"blue"', at_least='"yellow"'.replace("yellow", "blue"), at_most='"red"',
        score_at_least=50, score_at_most=50, cause='"score"', detector='"high"', sensors='"ch4"',
        routes='"default"', late="false", text='"methane 25 %LEL"',
    )  # fmt: skip
    assert tested(tmp_path, LEAK + body).passed


def test_counts_and_none_are_exact(tmp_path: Path) -> None:
    assert tested(tmp_path, LEAK + expect(alert='"any"', count=4)).passed
    assert came(tmp_path, LEAK + expect(alert='"any"', count=3)).startswith("4 came: raise at 5m")
    assert came(tmp_path, LEAK + expect(alert='"none"', level='"yellow"')).startswith("1 came:")
    assert tested(tmp_path, LEAK + expect(alert='"none"', level='"red"')).passed


def test_signals_rules_and_coupling_are_told(tmp_path: Path) -> None:
    body = 'readings = { ch4 = "5x5 12x10", p = "300x5 300-4x10", ch4-next = "5x15" }\n'
    body += expect(at='"12m"', source='"well"', holds='"burst"', level='"red"')
    body += expect(at='"12m"', source='"next"', holds_not='["burst"]', score_at_least=5)
    assert tested(tmp_path, body).passed
    body += expect(at='"5m"', source='"well"', holds='"burst"', sensor='"p"', signals="{}")
    assert came(tmp_path, body).startswith("rule “burst” does not hold")


def test_commands_are_carried_out_and_a_refused_one_fails(tmp_path: Path) -> None:
    shelve = '[[test.commands]]\nat = "10m"\ndo = "shelve"\nfor = "1h"\nsource = "well"\n'
    body = 'readings = { ch4 = "5*5 30*20" }\n' + shelve
    body += expect(at='"9m59s"', level='"yellow"', standing='"yellow"')
    body += expect(at='"10m"', level='"normal"', standing='"yellow"')
    body += expect(alert='"clear"', cause='"shelved"', at='"10m"')
    body += expect(alert='"shelve"', cause='"command"')
    assert tested(tmp_path, body).passed
    refused = shelve.replace("shelve", "unshelve").replace('for = "1h"\n', "")
    body = 'readings = { ch4 = "5*20" }\n' + refused + expect(alert='"none"')
    assert came(tmp_path, body) == "well is not shelved"


def test_late_and_bad_readings(tmp_path: Path) -> None:
    body = """
[test.readings]
ch4 = { values = "5 30 bad:30 nan 31", delay = "90s" }
p = [["0s", 300], ["2m", 300], ["4m", 300], ["6m", 300, 192], ["6m", "nan"]]
"""
    body += expect(at='"5m"', sensor='"ch4"\nsignals = { high = "blue" }')
    body += expect(alert='"raise"', late="true", at='"1m"')
    body += expect(at='"6m"', sensor='"ch4"\nsignals = { high = "yellow" }')
    test = tested(tmp_path, body)
    assert test.passed, test.failures


# Worlds


def test_own_limits_units_and_a_test_s_own_source(tmp_path: Path) -> None:
    body = """readings = { ch4 = "0.3*3 2.6*3" }
[test.sources.well]
category = "gas_well"
sensors.ch4 = { quantity = "methane", unit = "%vol", period_s = 60, high = { red = 2.6 } }
"""
    body += expect(at='"2m"', source='"well"', level='"normal"')  # 6 %LEL
    body += expect(at='"3m"', source='"well"', level='"red"')
    assert tested(tmp_path, body).passed


def test_a_sensor_s_own_delays_hold_its_level_back_and_up(tmp_path: Path) -> None:
    body = """readings = { ch4 = "0*3 60*6 0*6" }
[test.sources.well]
category = "gas_well"
[test.sources.well.sensors.ch4]
quantity = "methane"
unit = "%LEL"
period_s = 60
on_delay_s = 120
off_delay_s = 60
"""
    body += expect(at='"4m"', sensor='"ch4"\nsignals = { high = "normal" }')
    body += expect(at='"5m"', sensor='"ch4"\nsignals = { high = "red" }')
    body += expect(at='"9m"', sensor='"ch4"\nsignals = { high = "red" }')
    body += expect(at='"10m"', sensor='"ch4"\nsignals = { high = "normal" }')
    test = tested(tmp_path, body)
    assert test.passed, test.failures


@pytest.mark.parametrize("compiled", [False, True])
def test_sources_of_a_catalog_come_with_their_couplings(tmp_path: Path, compiled: bool) -> None:
    city = tmp_path / "city"
    sources = [source("w1", district="Gulou"), source("w2"), source("far")]
    sensors = [
        sensor("w1/ch4", "w1", unit="%LEL", high_blue=20),
        sensor("w2/ch4", "w2", unit="%LEL"),
        sensor("far/ch4", "far", unit="%LEL"),
    ]
    write_folder(city, sources, sensors, [coupling("w1", "w2", weight=1.0), coupling("w2", "far")])
    build_catalog(city, tmp_path / "city.catalog", 2)
    name = "city.catalog" if compiled else "city"
    head = f'version = 1\nrules = "rules.toml"\ncatalog = "{name}"\n'
    body = 'readings = { "w1/ch4" = "19*5 30*5", "w2/ch4" = "5*10" }\n'
    body += expect(at='"4m"', source='"w1"', level='"normal"')  # its own limit is 20
    body += expect(at='"7m"', source='"w2"', score=10)
    body += expect(alert='"raise"', source='"w1"', text='"Gulou"', at='"5m"')
    test = tested(tmp_path, body, wells=head)
    assert test.passed, test.failures


def test_other_rules_and_another_catalog_may_stand_for_the_file_s(tmp_path: Path) -> None:
    path = write(tmp_path, one(LEAK + expect(at='"9m"', level='"yellow"')))
    other = tmp_path / "other.toml"
    other.write_text(RULES.replace("yellow = 25", "yellow = 26"))
    assert run_tests(path).passed
    found = run_tests(str(path), rules=other)
    assert not found.passed and found.coverage[0].rules == str(other)


def test_start_says_which_contexts_and_the_site_s_time(tmp_path: Path) -> None:
    rules = (
        RULES.replace("tick_s = 10", 'tick_s = 10\nutc_offset = "+08:00"')
        + """
[[context]]
name = "storm"
from = 2025-07-16T08:30:00
to = 2025-07-16T09:00:00
factor = 1.4
"""
    )
    body = 'start = 2025-07-16T08:00:00\nreadings = { ch4 = "12x70" }\n'
    body += expect(at='"29m59s"', score=25) + expect(at='"30m"', score=35)
    body += expect(at="2025-07-16T09:00:00", score=25)
    body += expect(at="2025-07-16T08:59:00+08:00", score=35)
    found = results(tmp_path, one(body), rules=rules)
    assert found.passed, found.failed
    items = {item.key: item for item in found.coverage[0].items}
    assert items["context.storm"].reached and items["context.storm"].cleared


# Held against the line, run in another way


def random_test(seed: int) -> str:
    """Draw readings of three sensors, at odd times, and a sensor that is heard at every tick."""
    rng = random.Random(seed)
    lines = ["[test.readings]", 'beat = { values = "0x240", every = "10s" }']
    choices = {"ch4": (5, 9, 11, 26, 51), "p": (300, 280, 140), "ch4-next": (5, 12)}
    for name, values in choices.items():
        at_s, pairs = 0.0, []
        while at_s < 2300:
            value = rng.choice(['"nan"', '"bad:30"', *map(str, values)])
            pairs.append(f'["{at_s:g}s", {value}]')
            at_s += rng.choice([0.5, 10, 20, 33, 60, 60, 60, 200])
        lines.append(f"{name} = [{', '.join(pairs)}]")
    return one("\n".join(lines) + "\n" + expect(alert='"any"'))


def ready_of(path: Path) -> Ready:
    loaded = load(path)
    return prepare(loaded, Rules.load(path.with_name("rules.toml")))[0]


BEAT = """
[sources.beat]
category = "clock"
sensors.beat = { quantity = "raw", unit = "1", period_s = 10 }
"""


@settings(max_examples=25)
@given(st.integers(0, 1 << 32).map(random_test))
def test_the_log_is_that_of_a_replay(tmp_path_factory: Any, text: str) -> None:
    folder = tmp_path_factory.mktemp("log")
    test = ready_of(write(folder, BEAT + text))
    mine = run(test, Items(test.world.plan.rules)).alerts
    columns = (test.sensor, test.event_ms, test.value, test.quality)
    weaver = Weaver(iter([Readings(*columns)]), tick_ms=10_000, jump_ms=1 << 40, n=100)
    line = Pipeline(test.world.plan)
    found = [record for batch in weaver.batches() for record in line.push(batch)]
    found += line.push(weaver.ending())
    assert mine == [orjson.loads(record) for record in found]


@settings(max_examples=15)
@given(st.integers(0, 1 << 32).map(random_test))
def test_a_look_says_what_the_line_would_say_if_it_judged_then(
    tmp_path_factory: Any, text: str
) -> None:
    folder = tmp_path_factory.mktemp("look")
    times = [f'"{at_s}s"' for at_s in range(7, 2300, 97)]
    looks = expect(at=f"[{', '.join(times)}]", source='"well"', score_at_least=0)
    looks += looks.replace('"well"', '"next"')
    test = ready_of(write(folder, BEAT + text + looks))
    alerts = run(ready_of(write(folder, BEAT + text)), Items(test.world.plan.rules)).alerts
    ran = run(test, Items(test.world.plan.rules))
    assert ran.alerts == alerts
    n_judged = 0
    for at_ms, look in ran.looks.items():
        line = up_to(test, at_ms)
        state = line.state.source
        assert look.shown.tolist() == state["shown"].tolist()
        assert look.levels == line.state.signal["levels"].tolist()
        for name in ("well", "next"):
            at = test.world.sources[name]
            line.judge(Readings.of([JUDGE_SOURCE], [at_ms], [at]))
            if state["level"][at]:  # a source that is normal is not judged anew
                n_judged += 1
                assert look.scores[at] == pytest.approx(float(state["score"][at]), abs=1e-9)
    assert n_judged


def up_to(test: Ready, at_ms: int) -> Pipeline:
    """Return the line after all readings up to a time with the ticks among them, and one at it."""
    line = Pipeline(test.world.plan)
    keep = test.event_ms <= at_ms
    columns = (test.sensor, test.event_ms, test.value, test.quality)
    weaver = Weaver(
        iter([Readings(*(column[keep] for column in columns))]),
        tick_ms=10_000,
        jump_ms=1 << 40,
        n=100,
    )
    for batch in weaver.batches():
        line.judge(batch)
    line.judge(weaver.ending().where(weaver.ending().sensor != TICK))
    line.judge(Readings.tick(at_ms))
    return line


def test_the_result_is_a_table_with_a_row_for_each_expectation(tmp_path: Path) -> None:
    found = results(tmp_path, one(LEAK + expect(at='["5m", "9m"]', level='"blue"')))
    table = found.table()
    assert table.column_names == [
        "file", "test", "line", "at_s", "passed", "expected", "came", "readings",
    ]  # fmt: skip
    assert table["at_s"].to_pylist() == [300, 540]
    assert table["passed"].to_pylist() == [True, False]
    assert np.array(table["readings"].to_pylist()[1]).size and "yellow" in table["came"][1].as_py()
    assert WELLS in (tmp_path / "rules_test.toml").read_text()

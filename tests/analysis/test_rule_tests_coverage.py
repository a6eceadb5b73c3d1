"""Coverage: which limits, rules, contexts and routes tests reached and saw clear, and how near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.analysis.rule_tests.items import Item
from tests.analysis.rule_worlds import RULES, WELLS, one, results

ANY = (
    '\nuntil = "1h"\n[[test.expect]]\nalert = "none"\nlevel_from = "red"\nbetween = ["0s", "0s"]\n'
)


def items(folder: Path, readings: str, **files: str) -> dict[str, Item]:
    """Return the items after one test that gives some readings."""
    found = results(folder, one(f"{readings}{ANY}"), **files)
    assert found.passed, found.failed
    return {item.key: item for item in found.coverage[0].items}


def facts(item: Item) -> tuple[Any, ...]:
    return item.reached, item.cleared, item.below, item.beyond


def test_a_latch_counts_once_it_has_closed_and_once_it_has_opened(tmp_path: Path) -> None:
    found = items(tmp_path, 'readings = { ch4 = "9.5 12 26 12*2" }')
    assert facts(found["profiles.methane.limits.high.blue"]) == (True, False, 9.5, 12)
    # 26 for one reading is not on for a minute
    assert facts(found["profiles.methane.limits.high.yellow"]) == (False, False, 12, 26)
    assert facts(found["profiles.methane.limits.high.red"]) == (False, False, 26, None)
    assert facts(found["profiles.pressure.limits.low.red"]) == (False, False, None, None)
    found = items(tmp_path, 'readings = { ch4 = "9.5 12 30 25 7*2" }')
    assert facts(found["profiles.methane.limits.high.blue"]) == (True, True, 9.5, 12)
    assert facts(found["profiles.methane.limits.high.yellow"]) == (True, True, 12, 25)


def test_a_low_limit_is_met_from_above(tmp_path: Path) -> None:
    item = items(tmp_path, 'readings = { p = "300 151 150 140 200" }')[
        "profiles.pressure.limits.low.red"
    ]
    assert facts(item) == (True, True, 151, 150) and not item.weak


def test_bad_and_backward_readings_come_close_to_nothing(tmp_path: Path) -> None:
    body = 'readings = { ch4 = [["0s", 5], ["1m", "bad:9.9"], ["2m", "nan"], ["3m", 101]] }'
    assert items(tmp_path, body)["profiles.methane.limits.high.blue"].below == 5


def test_a_sensor_s_own_limit_is_not_the_profile_s(tmp_path: Path) -> None:
    wells = WELLS.replace("period_s = 60 }", "period_s = 60, high = { blue = 11 } }", 1)
    found = items(tmp_path, 'readings = { ch4 = "5 12 30 30 5" }', wells=wells)
    assert facts(found["profiles.methane.limits.high.blue"]) == (False, False, None, None)
    assert found["profiles.methane.limits.high.yellow"].reached


def test_silence_counts_where_it_is_noticed(tmp_path: Path) -> None:
    found = items(tmp_path, 'readings = { ch4 = "5 _ 5 _*4 5" }')
    key = "profiles.methane.liveness.absent_after"
    assert facts(found[key]) == (True, True, 2, 3)
    # silent from the first reading on, back, and silent again
    found = items(tmp_path, 'readings = { ch4 = "5 _*10 5" }')
    assert facts(found[key]) == (True, True, None, 3)


def test_rates_come_as_near_as_their_alerts_say(tmp_path: Path) -> None:
    found = items(tmp_path, 'readings = { p = "300*5 300-1.5x5 292.5-3x5 277.5*9" }')
    item = found["profiles.pressure.rate.fall.blue"]
    assert item.reached and item.cleared
    assert item.beyond == pytest.approx(2, abs=0.6) and item.below == pytest.approx(2, abs=0.6)


MANY = """
version = 1
[time]
utc_offset = "+00:00"
[levels]
raise_at = { blue = 20, yellow = 40 }
hold_s = 0

[profiles.raw]
unit = "1"
deviation = { raise_at = { blue = 5 }, memory_n = 16, warmup_n = 8, min_sigma = 1 }
drift = { raise_at = { yellow = 8 } }
refractory_s = 0
liveness = { flat_after_n = 4, bad_after_n = 3, spike_at = 50, absent_after = 0 }

[[profiles.raw.windows]]
name = "mean"
length_s = 240
panes = 4
aggregate = "mean"
high = { blue = 30 }
low = { red = -30 }

[[profiles.raw.windows]]
name = "many"
length_s = 240
panes = 4
aggregate = "count"
high = { blue = 4 }

[absence]
after = 5

[[routes]]
name = "all"
categories = ["x"]

[[routes]]
name = "red"
levels = ["red"]

[[context]]
name = "near"
from = 2025-01-01T00:10:00
to = 2025-01-01T00:20:00
factor = 2.0

[[context]]
name = "elsewhere"
from = 2025-01-01T00:10:00
to = 2025-01-01T00:20:00
districts = ["Gulou"]
factor = 2.0
"""
RAW = """
version = 1
rules = "rules.toml"
[sources.s]
category = "x"
sensors.r = { quantity = "raw", unit = "1", period_s = 60 }
sensors.q = { quantity = "flow", unit = "m³/h", period_s = 60 }
"""


RISEN = '{ r = "31*3 _*6 31 _*3 (1 _)*20" }'
"""A window's mean is above its limit until 13m, in and out of the context."""


def raw(folder: Path, series: str) -> dict[str, Item]:
    return items(folder, f"readings = {series}", rules=MANY, wells=RAW)


def test_the_near_of_deviation_and_drift_is_in_sigmas(tmp_path: Path) -> None:
    # residuals of no spread: sigma is min_sigma, 1
    found = raw(tmp_path, '{ r = "(0 0)*8 4 0*6 6 0" }')
    item = found["profiles.raw.deviation.raise_at.blue"]
    assert item.reached and item.cleared
    assert item.below == pytest.approx(4, abs=0.8) and item.beyond == pytest.approx(6, abs=0.8)
    found = raw(tmp_path, '{ r = "0*16 2.5*5 (0 1)*20" }')
    item = found["profiles.raw.drift.raise_at.yellow"]
    assert item.reached and item.beyond is not None and item.beyond < 10.5
    assert item.below is not None and 6 < item.below < 8


def test_flat_bad_and_jumping_sensors(tmp_path: Path) -> None:
    found = raw(tmp_path, '{ r = "5*4 6 bad:6*2 7 8" }')
    liveness = "profiles.raw.liveness."
    assert facts(found[liveness + "flat_after_n"]) == (False, False, 3, None)
    assert facts(found[liveness + "bad_after_n"]) == (False, False, 2, None)
    assert facts(found[liveness + "spike_at"]) == (False, False, 1, None)
    found = raw(tmp_path, '{ r = "5*5 6 nan*3 7 57 58" }')
    assert facts(found[liveness + "flat_after_n"]) == (True, True, 3, 4)
    assert facts(found[liveness + "bad_after_n"]) == (True, True, 2, 3)
    assert facts(found[liveness + "spike_at"]) == (True, True, 1, 50)
    assert liveness + "absent_after" not in found  # it is off


def test_each_window_counts_by_itself(tmp_path: Path) -> None:
    found = raw(tmp_path, '{ r = "0 29*3 _*9 31 32" }')
    assert facts(found["profiles.raw.windows.mean.high.blue"]) == (True, False, 21.75, 31)
    assert not found["profiles.raw.windows.mean.low.red"].reached
    assert facts(found["profiles.raw.windows.many.high.blue"]) == (True, True, 3, 4)
    found = raw(tmp_path, '{ r = "-29 -31*4 0*9" }')
    item = found["profiles.raw.windows.mean.low.red"]
    assert item.reached and item.cleared
    assert (item.below, item.beyond) == (-30, -30.5) or item.beyond == -30


def test_silence_without_a_profile_is_that_of_absence(tmp_path: Path) -> None:
    item = raw(tmp_path, '{ q = "1 _*3 1 _*9 1" }')["absence.after"]
    assert facts(item) == (True, True, 4, 5) and item.unit == "periods"


def test_contexts_count_over_a_source_with_a_score(tmp_path: Path) -> None:
    found = raw(tmp_path, RISEN)
    assert found["context.near"].reached and found["context.near"].cleared
    assert not found["context.elsewhere"].reached
    assert not raw(tmp_path, '{ r = "(1 _ 2 _)*8" }')["context.near"].reached


def test_routes_count_when_an_alert_goes_there_and_when_its_episode_ends(tmp_path: Path) -> None:
    found = raw(tmp_path, RISEN)
    assert found["routes.all"].reached and found["routes.all"].cleared
    assert not found["routes.red"].reached


def test_limits_of_the_score_count_where_the_file_gives_them(tmp_path: Path) -> None:
    found = raw(tmp_path, RISEN)
    assert found["levels.raise_at.blue"].reached and found["levels.raise_at.blue"].cleared
    assert found["levels.raise_at.yellow"].reached  # under the context
    assert not any(key.startswith("levels") for key in items(tmp_path, 'readings = { ch4 = "5" }'))


def test_signal_rules_count_while_they_hold_whatever_the_level(tmp_path: Path) -> None:
    found = items(tmp_path, 'readings = { ch4 = "60x30", p = "300x4 300-4x6 276x19" }')
    assert facts(found["rules.burst"])[:2] == (True, True)
    assert not items(tmp_path, 'readings = { ch4 = "60x30" }')["rules.burst"].reached


def test_a_rule_on_silence_counts_though_ticks_end_it_at_once(tmp_path: Path) -> None:
    rules = RULES + '\n[[rules]]\nname = "heard"\nall = ["methane.high >= blue"]\n'
    rules += 'none = ["pressure.absence >= blue"]\nlevel = "red"\n'
    # methane is high for the ten seconds before pressure is missed
    body = 'readings = { p = "300", ch4 = [["0s", 5], ["1m", 5], ["2m55s", 12]] }'
    item = items(tmp_path, body, rules=rules)["rules.heard"]
    assert item.reached and item.cleared


def test_weak_is_a_limit_that_could_be_another_one(tmp_path: Path) -> None:
    def weak(series: str) -> bool:
        found = items(tmp_path, f'readings = {{ ch4 = "{series}" }}')
        return found["profiles.methane.limits.high.blue"].weak

    assert weak("5 12") and weak("12")
    assert not weak("9 10.5") and not weak("8.5 10.5")
    assert not weak("5 9")  # not reached at all


def test_items_add_up_over_tests_and_files_of_the_same_rules(tmp_path: Path) -> None:
    body = one(f'readings = {{ ch4 = "5 12" }}{ANY}')
    body += one(f'readings = {{ ch4 = "9 60*2" }}{ANY}').replace('"it"', '"that"')
    found = results(tmp_path, body)
    table = found.coverage_table()
    rows = {row["key"]: row for row in table.to_pylist()}
    row = rows["profiles.methane.limits.high.blue"]
    assert (row["below"], row["beyond"], row["tests"]) == (9, 12, ["it", "that"])
    assert row["rules"] == str(tmp_path / "rules.toml") and row["limit"] == 10
    assert rows["profiles.methane.limits.high.red"]["tests"] == ["that"]
    n_reached = sum(row["reached"] for row in rows.values())
    assert found.coverage_percent == pytest.approx(100 * n_reached / len(rows))
    assert 0 < n_reached < len(rows)

"""An alert explained: found by its id, taken apart to the last bit, told in words."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings

from engine.analysis.explaining.draw import blocks, curves_of
from engine.analysis.explaining.explain import Explanation, explain, parse_id
from engine.analysis.explaining.html import html_of
from engine.analysis.explaining.moment import moment_of
from engine.analysis.explaining.said import levels, sums
from engine.analysis.past import Past, judge
from engine.catalog_build import build_catalog
from engine.errors import InputError
from engine.rules import Rules
from engine.rules_check import load
from kernels.layout import LEVEL_NAMES
from tests.analysis.test_extract import cut, sub_plan
from tests.cities import coupling, sensor, source, write_folder
from tests.engine.histories import write
from tests.engine.replays import RULES, city, one_file
from tests.worlds import World, world, worlds

DAY = Path(__file__).parents[2] / "replay_data" / "day"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Past, Rules]:
    """Return the generated day."""
    catalog = tmp_path_factory.mktemp("day") / "day.catalog"
    build_catalog(DAY, catalog, None, None)
    return Past.open(catalog, DAY / "readings.parquet"), load(DAY / "rules.toml")


def explained(day: tuple[Past, Rules], alert: str) -> Explanation:
    return explain(*day, alert, prevent=False)


def told(found: Explanation) -> str:
    return "\n".join(each.text for each in found.story)


# --- the moment ----------------------------------------------------------------------------------


def assert_taken_apart(of: World, n: int) -> None:
    """Hold each transition of a world against its moment."""
    for number in range(of.plan.catalog.n_sources):
        taken, expected = cut(of, number, n)
        plan = sub_plan(of.plan, taken.part)
        local = int(taken.part.place_of(np.array([number]))[0])
        for transition in expected:
            given_ = int(transition["episode_ms"]), int(transition["seq"])
            moment = moment_of(taken, plan, local, *given_)
            assert moment.score == transition["score"]
            assert moment.factor == transition["factor"]
            shares = [100.0 * each.share for each in moment.neighbours]
            assert max(shares, default=0.0) == transition["coupled_percent"]
            counts = sorted((np.float32(each.counts) for each in moment.sensors), reverse=True)
            noted = [c["percent"] for c in transition["contributor"] if c["sensor"] >= 0]
            assert [c for c in counts if c > 0][: len(noted)] == noted
            assert (max((held.rule for held in moment.rules), default=-1) >= 0) == (
                int(transition["rule"]) >= 0
            )
            if int(transition["level"]) > int(transition["level_from"]):
                called = max(moment.by_score, moment.by_limit, moment.by_rule)
                assert called == transition["level"]


@settings(max_examples=15, deadline=None)
@given(worlds(100))
def test_the_arithmetic_gives_the_score_of_the_line_to_the_last_bit(of: World) -> None:
    assert_taken_apart(of, 1000)


@pytest.mark.parametrize("seed", range(2))
def test_so_it_does_in_long_logs(seed: int) -> None:
    assert_taken_apart(world(Random(seed), 300), 100)


def test_a_transition_that_is_not_there_is_not_found() -> None:
    of = world(Random(1), 50)
    taken, _ = cut(of, 0, 50)
    with pytest.raises(LookupError):
        moment_of(taken, sub_plan(of.plan, taken.part), 0, 12345, 0)


# --- the story -----------------------------------------------------------------------------------


def test_a_limit_is_told_with_its_delay_and_when_that_began(day: tuple[Past, Rules]) -> None:
    found = explained(day, "well-207@1752608333000")
    assert [each.text for each in found.story] == [
        "methane (well-207-ch4) 10.4 %LEL: on-delay of 2 min for blue begins",
        "methane (well-207-ch4) 10.2 %LEL, at or above 10 %LEL → blue, for 2 min now, "
        "3 readings in a row",
    ]
    assert found.story[-1].event_ms - found.story[0].event_ms == 120_000
    assert found.contributions[0].key == "profiles.methane.limits.high.blue"
    assert found.contributions[0].counts == 25.0


@pytest.mark.parametrize(
    ("alert", "words"),
    [
        ("hall-3@1752659385000", "rising by"),
        ("well-504@1752626957000", "heard for the last time"),
        ("well-504@1752626957000", "silent for 30 min → yellow"),
        ("shop-41@1752632607000", "drifting up"),
        ("shop-81@1752633294000", "unusable for"),
        ("shop-24@1752641718000", "stuck for"),
        ("gauge-03@1752650796000", "sum of 3 h 55.2 mm (limit 50 mm) → orange"),
        ("well-207@1752608333000#3", "back below 8 %LEL for 5 min: high signal blue → normal"),
    ],
)
def test_every_kind_of_signal_is_told(day: tuple[Past, Rules], alert: str, words: str) -> None:
    assert words in told(explained(day, alert))


def test_a_source_without_a_signal_of_its_own_is_explained_by_its_neighbour(
    day: tuple[Past, Rules],
) -> None:
    found = explained(day, "shop-31@1752650631000")
    assert found.contributions == []
    assert [(each.source, each.kind) for each in found.coupled] == [("shop-32", "building")]
    assert {each.sensor for each in found.coupled_contributions} == {
        "shop-32-smoke",
        "shop-32-temp",
    }
    assert next(iter(sums(found))) == "own score  0: no sensor of its own counts"
    assert list(sums(found))[-1] == "score      22.05 × 1.2 (static class red) = 26.46"


def test_a_signal_rule_is_named_with_the_sensors_that_make_it_hold(
    day: tuple[Past, Rules],
) -> None:
    said = list(levels(explained(day, "well-105@1752630173000#2")))
    (rule,) = [line for line in said if "third-party damage" in line]
    assert "calls for orange" in rule
    for name in ("well-105-ch4", "well-105-p", "works-1-permit"):
        assert name in rule
    assert said[-1] == "→ orange, set by a signal rule"


def test_a_fall_is_told_with_what_it_waited_for(day: tuple[Past, Rules]) -> None:
    found = explained(day, "well-207@1752608333000#2")
    said = list(levels(found))
    assert "a lower level was called for since 06:44:03, for the hold of 2 min" in said
    (row,) = found.contributions
    assert row.level == "fading" and row.held_from == 50 and 30 < row.counts < 31


# --- ids -----------------------------------------------------------------------------------------


def test_an_id_may_name_one_alert_of_an_episode() -> None:
    assert parse_id("well-1@17") == ("well-1", 17, None)
    assert parse_id("a@b#c@17#2") == ("a@b#c", 17, 2)


@pytest.mark.parametrize("text", ["well-1", "@17", "well-1@", "well-1@x", "well-1@5#", "w@5#x"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must read SOURCE@EPOCH_MS"):
        parse_id(text)


@pytest.mark.parametrize(
    ("alert", "words"),
    [
        ("well-2077@5", r"well-2077: no such source in the catalog \(nearest: well-207,"),
        ("well-207@5", r"no such alert .* well-207@1752608333000 \(07-16 03:38:53, blue\)"),
        ("well-201@5", "well-201 has no alert under these rules in this history"),
        ("well-207@1752608333000#9", "has no alert #9; it has #0 raise to blue, #1 escalate"),
    ],
)
def test_an_unknown_alert_is_answered_with_those_that_are_near(
    day: tuple[Past, Rules], alert: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        explained(day, alert)


# --- what comes out ------------------------------------------------------------------------------


def test_every_alert_of_a_history_can_be_explained(tmp_path: Path) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=1500))
    rules = Rules.parse(RULES)
    alerts = judge(past, rules).alerts
    kinds = set()
    for alert in alerts[:25]:
        found = explain(past, rules, f"{alert['alert_id']}#{alert['seq']}", prevent=False)
        assert found.alert == alert
        assert found.moment.score == pytest.approx(alert["score"], abs=0.051)
        assert {each["seq"] for each in found.episode} >= {alert["seq"]}
        kinds.add(alert["transition"])
        orjson.dumps(found.as_dict())
        assert isinstance(found.table(), pa.Table) and isinstance(found.story_table(), pa.Table)
    assert len(kinds) > 1


def test_a_page_holds_no_markup_of_the_data(tmp_path: Path) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=1500))
    evil = "<img src=x onerror=alert(1)>"
    rules = Rules.parse(RULES + f'\n[[rules]]\nname = "{evil}"\nlevel = "red"\n'
                        'all = ["methane.high >= blue"]\n')  # fmt: skip
    alert = judge(past, rules).alerts[0]
    page = html_of(explain(past, rules, alert["alert_id"], prevent=False))
    assert "<img" not in page and "&lt;img" in page
    assert "http" not in page.replace("http-equiv", "")


def test_curves_show_the_readings_around_the_alert(day: tuple[Past, Rules]) -> None:
    found = explained(day, "well-207@1752608333000#1")
    (curve,) = curves_of(found)
    assert curve.unit == "%LEL" and dict(curve.limits) == {"blue": 10, "yellow": 25, "red": 50}
    assert curve.since_ms < curve.event_ms[0] <= curve.at_ms < curve.until_ms
    before, after = blocks(curve, 40)
    assert len(before) + len(after) == 40 and before[0] < before[-1]


def test_a_sensor_without_readings_has_no_curve(tmp_path: Path) -> None:
    of = city(tmp_path)
    start = 1_714_521_600_000
    silent = pa.table(
        {
            "sensor": ["well-1/ch4", "plant/t", "plant/t"],
            "event_ms": [start, start, start + 60_000],
            "value": [float("nan"), 1.0, 1.0],
        }
    )
    past = Past.open(of.catalog, write(tmp_path / "silent.parquet", silent))
    rules = Rules.parse(RULES + "\n[absence]\nafter = 3\nlevel = 'red'\n")
    alerts = [a for a in judge(past, rules).alerts if a["source"] == "well-1"]
    found = explain(past, rules, alerts[0]["alert_id"], prevent=False)
    assert curves_of(found) == []
    assert found.story[-1].text == "methane (well-1/ch4) silent for 3 s → red"
    assert LEVEL_NAMES[found.story[-1].level] == "red"


def test_a_limit_of_the_sensors_own_is_noted(tmp_path: Path) -> None:
    sensors = [sensor("w/ch4", "w", unit="%LEL", period_s=1.0, high_blue=7.0)]
    write_folder(tmp_path / "own", [source("w")], sensors)
    build_catalog(tmp_path / "own", tmp_path / "own.catalog", 1, None)
    values = [1.0, 8.0, 8.5, 1.0]
    table = pa.table({"sensor": ["w/ch4"] * 4, "event_ms": [0, 1000, 2000, 3000], "value": values})
    past = Past.open(tmp_path / "own.catalog", write(tmp_path / "own.parquet", table))
    found = explain(past, Rules.parse(RULES), "w@1000")
    (note,) = found.notes
    assert "the blue limit of w/ch4 is the sensor's own, from the catalog" in note
    assert found.contributions[0].key is None


def test_a_source_of_a_huge_cluster_is_explained_by_its_direct_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "b", "c"]
    sensors = [sensor(f"{name}/ch4", name, unit="%LEL", period_s=1.0) for name in names]
    edges = [coupling("a", "b", weight=1.0), coupling("b", "c", weight=1.0)]
    write_folder(tmp_path / "three", [source(name) for name in names], sensors, edges)
    build_catalog(tmp_path / "three", tmp_path / "three.catalog", 1, None)
    rows = [(f"{name}/ch4", 1000 * at, 60.0) for at in range(20) for name in "ab"]
    columns = dict(zip(("sensor", "event_ms", "value"), zip(*rows, strict=True), strict=True))
    past = Past.open(
        tmp_path / "three.catalog", write(tmp_path / "three.parquet", pa.table(columns))
    )
    rules = Rules.parse(RULES)
    whole = explain(past, rules, "c@0")
    assert whole.extract.catalog.n_sources == 3 and whole.notes == ()
    monkeypatch.setattr("engine.analysis.explaining.explain.MOST_SENSORS", 2)
    near = explain(past, rules, "c@0")
    assert near.extract.catalog.n_sources == 2
    assert "neighbours of neighbours" in near.notes[0]
    assert near.moment.score == whole.moment.score
    for one, other in zip(near.searches, whole.searches, strict=True):
        assert [f.words for f in one.findings] == [f.words for f in other.findings]

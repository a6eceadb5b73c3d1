"""Solving for a rate of alarms, per profile and per sensor."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.analysis.past import Past, judge
from engine.analysis.tuning.knobs import Knobs
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.settings import Refused
from engine.analysis.tuning.solve import RATE, Goal, Solution, delays_of, prove, solve, tried_of
from engine.analysis.tuning.solve_sensors import solve_sensors
from engine.arrow_views import texts
from engine.catalog import Catalog
from engine.catalog_build import build_catalog
from engine.errors import SettingsError
from engine.rules import Rules
from engine.truth import Incident
from tests.analysis.studies import Given, given
from tests.cities import coupling, sensor, source, write_folder
from tests.engine.histories import write
from tests.engine.replays import BEGIN_MS, city


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return given(tmp_path_factory.mktemp("city"))


def solved(made: Given, goal: Goal, **options: object) -> Solution:
    return solve(made.past, made.rules, made.measure, goal, **options)  # type: ignore[arg-type]


def test_rules_that_meet_the_goal_already_are_left_as_they_are(made: Given) -> None:
    solution = solved(made, Goal(max_rate=20, max_delay_s=40))
    assert solution.met and len(solution.trials) == 1
    assert solution.choice is not None and solution.choice.moves == ()


def test_a_goal_is_met_and_a_replay_under_the_written_rules_proves_it(
    made: Given, tmp_path: Path
) -> None:
    solution = solved(made, Goal(max_rate=15, max_delay_s=40), folder=tmp_path / "s")
    assert solution.met and not solution.late()
    rules = Rules.load(tmp_path / "s/rules.toml")
    tried = tried_of(judge(made.past, rules))
    figures = made.measure(tried).to_pylist()[0]
    assert figures[RATE] <= 15 < solution.given[RATE]
    assert (made.measure.delays_s(tried) <= 40).all()
    assert solution.proof is not None and solution.proof.figures == figures
    assert "Solved by tocsin tune --solve: meets" in (tmp_path / "s/rules.toml").read_text()


def test_the_figures_of_every_setting_tried_are_those_of_a_replay(made: Given) -> None:
    solution = solved(made, Goal(max_rate=15))
    delays = delays_of(solution.trials)
    for row in range(0, len(solution.trials), 7):
        try:
            rules = solution.trials.settings.rules_of(solution.trials.values[row])
        except Refused:
            assert solution.trials.refused[row] is not None
            continue
        proof = prove(made.past, rules, made.measure)
        assert proof.figures[RATE] == solution.trials.figures()[RATE][row].as_py()
        assert np.array_equal(proof.delays_s, delays[row])


def test_limits_are_lowered_where_an_incident_would_be_missed_else(made: Given) -> None:
    high = {"blue": 62.0, "yellow": 72.0, "orange": 82.0, "red": 92.0}
    told = made.rules.model_dump(mode="python", by_alias=True)
    told["profiles"]["methane"]["limits"]["high"] = high
    deaf = Rules.model_validate(told)
    assert np.isinf(prove(made.past, deaf, made.measure).delays_s).any()
    solution = solve(made.past, deaf, made.measure, Goal(max_rate=1000, max_delay_s=1000))
    assert solution.met and solution.choice is not None
    found = solution.choice.rules.profiles["methane"].limits.high
    assert found.blue is not None and found.blue < 62
    assert np.isfinite(prove(made.past, solution.choice.rules, made.measure).delays_s).all()


def test_nothing_is_turned_that_could_be_turned_back(made: Given) -> None:
    goal = Goal(max_rate=15)
    solution = solved(made, goal)
    assert solution.choice is not None and solution.choice.moves
    knobs = Knobs(made.rules, made.past.catalog)
    for values in knobs.back(solution.choice.values):
        row = solution.trials.row_of(values)
        assert row is not None
        if solution.trials.refused[row] is None:
            figures = solution.trials.figures().slice(row, 1).to_pylist()[0]
            assert not solution.meets(figures, delays_of(solution.trials)[row])


def test_no_incident_that_was_found_is_given_up_for_fewer_alarms(made: Given) -> None:
    solution = solved(made, Goal(max_rate=3))
    assert not solution.met and solution.proof is not None
    assert np.isfinite(solution.proof.delays_s).all()
    assert solution.proof.figures[RATE] < solution.given[RATE]


def test_what_cannot_be_found_in_time_is_named_with_the_best_there_is(made: Given) -> None:
    solution = solved(made, Goal(max_rate=100, max_delay_s=0.5))
    assert not solution.met
    late = {(incident.source, incident.start_ms): best for incident, _, best in solution.late()}
    assert late and all(best > 0.5 for best in late.values())
    lists = delays_of(solution.trials)
    assert min(late.values()) >= lists.min()


def test_solving_is_the_same_from_run_to_run_and_goes_on_in_its_folder(
    made: Given, tmp_path: Path
) -> None:
    goal = Goal(max_rate=10)
    free = solved(made, goal)
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    first = solved(made, goal, folder=tmp_path / "s", stopped=stopped)
    assert first.interrupted and first.proof is None and len(first.trials) < len(free.trials)
    assert json.loads((tmp_path / "s/study.json").read_text())["state"] == "interrupted"
    again = solved(made, goal, folder=tmp_path / "s")
    assert again.trials.table().equals(free.trials.table())
    assert again.choice is not None and free.choice is not None
    assert again.choice.text == free.choice.text


def test_rules_that_don_t_meet_the_goal_are_written_under_another_name(
    made: Given, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    solved(made, Goal(max_rate=15), folder=folder)
    assert (folder / "rules.toml").exists() and not (folder / "nearest.toml").exists()
    solved(made, Goal(max_rate=1), folder=folder)
    assert not (folder / "rules.toml").exists()
    assert "DOES NOT MEET what was asked for" in (folder / "nearest.toml").read_text()


def test_only_the_knobs_that_may_be_turned_are(made: Given) -> None:
    solution = solved(made, Goal(max_rate=5), kinds=("off-delay",))
    assert solution.choice is not None
    assert all(move.title.endswith("off-delay") for move in solution.choice.moves)
    with pytest.raises(SettingsError, match="no profile of the rules has limits"):
        solved(made, Goal(), kinds=())


def test_rules_without_limits_have_nothing_to_turn(made: Given) -> None:
    with pytest.raises(SettingsError, match="no profile of the rules has limits"):
        solve(made.past, Rules.parse("version = 1"), made.measure, Goal())


def test_without_a_truth_only_the_rate_is_asked_for(made: Given) -> None:
    measure = Yardstick(catalog=made.past.catalog)
    solution = solve(made.past, made.rules, measure, Goal(max_rate=6))
    assert solution.met and solution.incidents == []


# --- per sensor -----------------------------------------------------------------------------------


def test_limits_of_sensors_own_are_those_of_a_catalog_built_with_them(
    made: Given, tmp_path: Path
) -> None:
    found = solve_sensors(
        made.past, made.rules, made.measure, Goal(max_rate=12), folder=tmp_path / "s"
    )
    assert found.own and found.offenders_n >= len(found.own)
    with (tmp_path / "s/own_limits.csv").open() as stream:
        own = {row.pop("sensor_id"): row for row in csv.DictReader(stream)}
    assert set(own) == {each.sensor for each in found.own}
    columns = {name: [float(v) if v else None for v in (row[name] for row in own.values())]
               for name in next(iter(own.values()))}  # fmt: skip
    sensors = [
        sensor("well-1/ch4", "well-1", unit="%LEL", period_s=1.0),
        sensor("well-1/t", "well-1", quantity="temperature", unit="degC", period_s=1.0),
        sensor("well-2/ch4", "well-2", unit="%LEL", period_s=1.0),
        sensor("plant/t", "plant", quantity="temperature", unit="degC", period_s=1.0),
    ]
    for row in sensors:
        place = list(own).index(row["sensor_id"]) if row["sensor_id"] in own else None
        for name, values in columns.items():
            row[name] = None if place is None else values[place]
    sources = [source("well-1"), source("well-2"), source("plant", category="factory")]
    for name in columns:
        if all(row[name] is None for row in sensors):
            for row in sensors:
                del row[name]
    folder = write_folder(
        tmp_path / "city", sources, sensors, [coupling("well-1", "well-2")], suffix=".csv"
    )
    build_catalog(folder, tmp_path / "own.catalog", 2, None)
    past = Past.open(tmp_path / "own.catalog", made.readings)
    name = "rules.toml" if found.solution.met else "nearest.toml"
    rules = Rules.load(tmp_path / "s" / name)
    proof = prove(
        past, rules, replace(made.measure, catalog=Catalog.open(tmp_path / "own.catalog"))
    )
    assert found.solution.proof is not None
    assert proof.figures == found.solution.proof.figures
    assert np.array_equal(proof.delays_s, found.solution.proof.delays_s)


def test_own_limits_lessen_alarms_for_nothing_and_lose_no_incident(made: Given) -> None:
    found = solve_sensors(made.past, made.rules, made.measure, Goal(max_rate=100))
    before, after = (
        sum(getattr(o, name) for o in found.own) for name in ("false_before", "false_after")
    )
    assert after < before
    given_proof = prove(made.past, made.rules, made.measure)
    proof = found.solution.proof
    assert proof is not None
    assert (np.isfinite(proof.delays_s) >= np.isfinite(given_proof.delays_s)).all()
    unhelped = {name for name, _ in found.unhelped}
    assert unhelped.isdisjoint(each.sensor for each in found.own)
    assert found.offenders_n == len(unhelped) + len(found.own)


def test_without_a_truth_sensors_that_alarm_again_and_again_are_calmed(made: Given) -> None:
    measure = Yardstick(catalog=made.past.catalog)
    found = solve_sensors(made.past, made.rules, measure, Goal(max_rate=100))
    assert found.own and all(each.false_before >= 3 for each in found.own)
    assert sum(e.false_after for e in found.own) < sum(e.false_before for e in found.own)


def jumping(folder: Path, *, leak_s: int) -> Given:
    """Return the history of a well whose sensor jumps for 3 s now and then, and leaks once."""
    files = city(folder)
    gas = np.where(np.arange(2400) % 120 >= 117, 60.0, 5.0)
    gas[1260 : 1260 + leak_s] = 60.0
    event_ms = BEGIN_MS + 1000 * np.arange(2400)
    table = pa.table({"sensor": ["well-1/ch4"] * 2400, "event_ms": event_ms, "value": gas})
    readings = write(folder / "past.parquet", table)
    past = Past.open(files.catalog, readings)
    start_ms, end_ms = (BEGIN_MS + 1000 * second for second in (1260, 1260 + leak_s))
    leak = Incident(source="well-1", start_ms=start_ms, end_ms=end_ms, kind="leak")
    measure = Yardstick(catalog=past.catalog, incidents=(leak,), lead_s=0, grace_s=0)
    return Given(files, readings, past, Rules.load(files.rules), measure)


#   60   ╷  ╷  ╷  ╷  ┌────────┐ ╷  ╷   %LEL
#   5  ──┘──┘──┘──┘──┘  leak  └─┘──┘──
def test_a_sensor_that_jumps_waits_longer_where_the_incident_is_found_all_the_same(
    tmp_path: Path,
) -> None:
    made = jumping(tmp_path, leak_s=30)
    found = solve_sensors(made.past, made.rules, made.measure, Goal(), folder=tmp_path / "s")
    (own,) = found.own
    assert own.sensor == "well-1/ch4" and own.false_before > 10 and own.false_after == 0
    assert (own.on_delay_s, math.isnan(own.off_delay_s)) == (15, True)
    assert all(map(math.isnan, (*own.high, *own.low, own.deadband)))
    header, line = (tmp_path / "s/own_limits.csv").read_text().splitlines()
    assert header.endswith(",deadband,on_delay_s,off_delay_s")
    assert line == "well-1/ch4" + "," * 10 + "15,"
    assert found.solution.proof is not None and found.solution.proof.delays_s.tolist() == [15]


def test_no_sensor_waits_so_long_that_an_incident_is_missed_or_late(tmp_path: Path) -> None:
    made = jumping(tmp_path / "short", leak_s=12)
    found = solve_sensors(made.past, made.rules, made.measure, Goal())
    # 15 s would calm it, and hide the leak; 60 s more would hold a jump until the leak begins
    (own,) = found.own
    assert math.isnan(own.on_delay_s) and own.off_delay_s == 20
    assert found.solution.proof is not None and found.solution.proof.delays_s.tolist() == [0]
    made = jumping(tmp_path / "late", leak_s=30)
    found = solve_sensors(made.past, made.rules, made.measure, Goal(max_delay_s=6))
    (own,) = found.own
    assert own.on_delay_s == 6 and own.false_after == 0
    assert found.solution.proof is not None and found.solution.proof.delays_s.tolist() == [6]


def test_what_a_sensor_had_of_its_own_stays_beside_its_new_delay(tmp_path: Path) -> None:
    made = jumping(tmp_path, leak_s=30)
    high = [8, math.nan, 28, 48]
    catalog = replace(
        made.past.catalog,
        override_sensor=np.array([made.past.catalog.resolver().resolve(texts(["well-1/ch4"]))[0]]),
        override_high=np.array([high]),
        override_low=np.full((1, 4), math.nan),
        override_deadband=np.array([2.0]),
        override_on_delay_s=np.array([1.0]),
        override_off_delay_s=np.array([4.0]),
    )
    past, measure = replace(made.past, catalog=catalog), replace(made.measure, catalog=catalog)
    (own,) = solve_sensors(past, made.rules, measure, Goal()).own
    assert (own.on_delay_s, own.off_delay_s, own.deadband) == (15, 4, 2)
    np.testing.assert_array_equal(own.high, high)


def test_a_red_does_not_wait_for_what_a_blue_waits_for(tmp_path: Path) -> None:
    made = jumping(tmp_path, leak_s=80)
    told = made.rules.model_dump(mode="python", by_alias=True)
    told["profiles"]["methane"]["limits"]["on_delay_s"] = {"blue": 30, "yellow": 2, "red": 2}
    found = solve_sensors(made.past, Rules.model_validate(told), made.measure, Goal(max_rate=100))
    # 15 and 22.5 s would do for red, but would be less than blue has
    assert all(math.isnan(own.on_delay_s) for own in found.own) and found.offenders_n

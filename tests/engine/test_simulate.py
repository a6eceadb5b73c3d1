from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.catalog import Catalog
from engine.catalog_build import build_catalog
from engine.plan import compile_plan
from engine.rules_check import load
from engine.simulate import MIDNIGHT, Day, generate, write_day
from engine.simulate_city import City, build_city
from engine.simulate_feed import OUTAGE, STRANGER
from engine.simulate_script import HARMLESS, INCIDENTS, Added, changes_of
from engine.simulate_signals import DAY_S, NORMAL, as_read, noise, random_of, seconds, through
from engine.truth import read_truth
from replay_data import DAY
from replay_data.__main__ import main

TABLES = ("sources.csv", "sensors.csv", "couplings.csv", "truth.csv")
MAX_BYTES = 4_000_000


@pytest.fixture(scope="module")
def day() -> Day:
    return generate()


@pytest.fixture(scope="module")
def city() -> City:
    return build_city()


def of_sensor(day: Day, sensor: str) -> pa.Table:
    return day.readings.filter(pc.equal(day.readings["sensor"].cast(pa.string()), sensor))


def seconds_of(table: pa.Table) -> np.ndarray:
    """Return the second of the day of each reading."""
    ms = table["ts"].cast(pa.int64()).to_numpy() - round(MIDNIGHT.timestamp() * 1000)
    return ms // 1000


def test_the_committed_day_is_what_the_generator_writes(day: Day, tmp_path: Path) -> None:
    write_day(tmp_path, day)
    for name in TABLES:
        assert (tmp_path / name).read_bytes() == (DAY / name).read_bytes(), name
    columns = day.readings.column_names
    kept = pq.read_table(DAY / "readings.parquet").select(columns)
    again = pq.read_table(tmp_path / "readings.parquet").select(columns)
    assert kept.schema == again.schema
    assert kept.num_rows == again.num_rows
    for name in columns:
        ours, theirs = kept[name].combine_chunks(), again[name].combine_chunks()
        if name == "value":
            same = np.array_equal(ours.to_numpy(), theirs.to_numpy(), equal_nan=True)
        else:
            same = ours.cast(ours.type).equals(theirs)
        assert same, f"{name} differs: python -m replay_data writes the day anew"


def test_the_command_writes_a_day_and_leaves_rules_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules.toml").write_text("mine")
    monkeypatch.setattr("sys.argv", ["replay_data", "--seed", "7", str(tmp_path)])
    main()
    assert "319 sensors, 153 sources, 32 rows of truth" in capsys.readouterr().out
    assert (tmp_path / "rules.toml").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {
        *TABLES, "readings.parquet", "rules.toml",
    }  # fmt: skip


def test_the_committed_day_is_small() -> None:
    assert sum(path.stat().st_size for path in DAY.iterdir()) <= MAX_BYTES


def test_another_seed_is_another_day_of_the_same_city(day: Day) -> None:
    other = generate(seed=7)
    assert other.city == day.city
    assert other.truth == day.truth
    assert not other.readings.equals(day.readings)


def test_a_new_sensor_leaves_the_readings_of_the_others_alone(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    def larger() -> City:
        city = City()
        city.add("well-000", "gas_well", "New well", "Riverside", ("ch4", "methane", "%LEL", 60))
        old = build_city()
        city.sources += old.sources
        city.sensors += old.sensors
        city.couplings += old.couplings
        return city

    monkeypatch.setattr("engine.simulate.build_city", larger)
    changed = generate()
    assert changed.readings.num_rows > day.readings.num_rows
    for sensor in ("well-207-ch4", "gate-4-density"):
        before, after = of_sensor(day, sensor)["value"], of_sensor(changed, sensor)["value"]
        assert np.array_equal(before.to_numpy(), after.to_numpy(), equal_nan=True)


def test_the_catalog_builds_and_the_rules_watch_every_sensor(tmp_path: Path) -> None:
    build_catalog(DAY, tmp_path / "city.catalog")
    catalog = Catalog.open(tmp_path / "city.catalog")
    plan = compile_plan(catalog, load(DAY / "rules.toml"))
    assert 300 <= catalog.n_sensors <= 400
    assert plan.n_unprofiled == 0
    assert plan.notes == ()


def test_scenes_name_sensors_and_sources_that_are_there(city: City) -> None:
    sensors = {sensor.sensor_id for sensor in city.sensors}
    sources = {source.source_id for source in city.sources}
    assert STRANGER not in sensors
    for scene in (*INCIDENTS, *HARMLESS):
        assert {change.sensor for change in scene.changes} <= sensors, scene.kind
        assert {struck.source for struck in scene.strikes} <= sources, scene.kind
        assert scene.about
    assert all(scene.strikes for scene in INCIDENTS)
    assert not any(scene.strikes for scene in HARMLESS)


def test_scenes_have_kinds_of_their_own_and_end_after_they_start() -> None:
    kinds = [scene.kind for scene in (*INCIDENTS, *HARMLESS)]
    assert len(set(kinds)) == len(kinds)
    for scene in INCIDENTS:
        for struck in scene.strikes:
            assert seconds(struck.start) < seconds(struck.end), scene.kind


def test_points_of_the_day_ascend() -> None:
    for scene in (*INCIDENTS, *HARMLESS):
        for change in scene.changes:
            if isinstance(change, Added):
                at = [seconds(clock) for clock, _ in change.points]
                assert at == sorted(set(at)), (scene.kind, change.sensor)


def test_the_truth_file_reads_back_as_what_happened(day: Day) -> None:
    read = read_truth(DAY / "truth.csv")
    assert [each.source for each in read] == [row["source"] for row in day.truth]
    assert [each.start_ms for each in read] == [row["start_ms"] for row in day.truth]
    assert {each.kind for each in read} == {scene.kind for scene in INCIDENTS}
    midnight_ms = round(MIDNIGHT.timestamp() * 1000)
    assert all(midnight_ms <= each.start_ms < each.end_ms for each in read)
    assert all(each.end_ms <= midnight_ms + DAY_S * 1000 for each in read)


def test_every_category_and_quantity_has_a_normal_signal(city: City) -> None:
    category = {source.source_id: source.category for source in city.sources}
    used = {(category[sensor.source_id], sensor.quantity) for sensor in city.sensors}
    assert used == set(NORMAL)


def test_readings_arrive_in_order_but_for_what_is_late(day: Day) -> None:
    t = seconds_of(day.readings)[:300_000]
    t = t[t < seconds("20:00")]  # but for the clock that is ahead
    behind = np.maximum.accumulate(t) - t
    assert (np.diff(t) < 0).any()
    assert 0.01 < (behind > 60).mean() < 0.1
    assert (behind <= 3).mean() > 0.9


def test_feed_has_every_fault_but_not_much_of_it(day: Day) -> None:
    n = day.readings.num_rows
    value = day.readings["value"].to_numpy()
    quality = day.readings["quality"].to_numpy()
    names = day.readings["sensor"].cast(pa.string())
    assert 0 < np.isnan(value).sum() < 0.001 * n
    assert 0 < (quality > 0).sum() < 0.002 * n
    assert 0 < pc.sum(pc.equal(names, STRANGER)).as_py() < 0.001 * n
    assert (value > 9000).sum() == 2
    rows = (
        day.readings.select(["sensor", "ts"])
        .group_by(["sensor", "ts"])
        .aggregate([([], "count_all")])
    )
    repeated = n - rows.num_rows
    assert 0.0005 * n < repeated < 0.003 * n


def test_the_dead_sensor_is_silent_and_its_neighbour_is_not(day: Day) -> None:
    dead = seconds("08:20")
    assert seconds_of(of_sensor(day, "well-504-ch4")).max() < dead
    assert seconds_of(of_sensor(day, "well-504-p")).max() > dead


def test_the_stuck_sensor_repeats_one_value(day: Day) -> None:
    stuck = of_sensor(day, "shop-24-temp")
    late = stuck["value"].to_numpy()[seconds_of(stuck) >= seconds("12:10")]
    assert len(set(late[~np.isnan(late)])) == 1


def test_what_the_gateway_kept_arrives_after_the_outage(day: Day) -> None:
    names = day.readings["sensor"].cast(pa.string())
    t = seconds_of(day.readings)
    kept = np.asarray(pc.starts_with(names, "well-40")) & (t >= OUTAGE[0]) & (t < OUTAGE[1])
    others = np.asarray(pc.starts_with(names, "shop-1")) & (t < OUTAGE[1])
    first = np.flatnonzero(kept)[0]
    last = np.flatnonzero(others & (np.arange(len(t)) < first))[-1]
    assert kept.sum() > 200
    assert t[last] >= OUTAGE[1] - 60


def test_incidents_change_what_their_sensors_read(day: Day) -> None:
    leak = of_sensor(day, "well-602-ch4")
    t, value = seconds_of(leak), leak["value"].to_numpy()
    inside = (t > seconds("13:14")) & (t < seconds("13:40"))
    assert np.nanmin(value[inside]) > 50
    assert np.nanmax(value[t < seconds("13:10")]) < 10


@pytest.mark.parametrize("sensor", ["shop-24-temp", "works-1-permit"])
def test_changes_are_found_by_sensor(sensor: str) -> None:
    assert [change.sensor for change in changes_of(sensor)] == [sensor]


# Signals


def test_a_line_through_points_meets_them_and_stays_within() -> None:
    t = np.arange(0, DAY_S, 60)
    line = through(t, (("06:00", 2.0), ("07:00", 5.0), ("08:00", 1.0)))
    assert line[t == seconds("05:00")] == 2.0
    assert line[t == seconds("06:00")] == 2.0
    assert line[t == seconds("06:30")] == 3.5
    assert line[t == seconds("07:00")] == 5.0
    assert line[t == seconds("23:00")] == 1.0
    assert line.min() == 1.0
    assert line.max() == 5.0


def test_noise_has_mean_0_and_deviation_1() -> None:
    values = noise(random_of(1, "noise", 0), 100_000)
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


def test_random_numbers_differ_by_name_purpose_and_seed() -> None:
    first = random_of(1, "a", 0).random(4)
    assert np.array_equal(first, random_of(1, "a", 0).random(4))
    for other in (random_of(2, "a", 0), random_of(1, "b", 0), random_of(1, "a", 1)):
        assert not np.array_equal(first, other.random(4))


def test_instruments_show_whole_steps_and_nothing_below_zero() -> None:
    shown = as_read("rain", np.array([-1.0, 0.09, 0.11, 3.33]))
    assert shown.tolist() == [0.0, 0.0, 0.2, 3.4]
    assert as_read("smoke", np.array([0.124, 0.126])).tolist() == [0.1, 0.15]


@pytest.mark.parametrize(
    ("clock", "second"), [("00:00", 0), ("09:30:15", 34_215), ("24:00", DAY_S)]
)
def test_clock_times_are_seconds_of_the_day(clock: str, second: int) -> None:
    assert seconds(clock) == second

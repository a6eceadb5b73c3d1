"""A grown city, and other rules over an old snapshot, with real catalogs and rules."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from engine import snapshot
from engine.carry import Held, take_over
from engine.catalog import Catalog
from engine.catalog_build import build_catalog
from engine.commands import Shelve, Suppress
from engine.errors import CatalogError, ForeignSnapshotError
from engine.pipeline import Pipeline
from engine.plan import Plan, compile_plan
from engine.readings import Readings
from engine.resume import Resumed, Resumer
from engine.rules import Rules
from engine.snapshots import SnapshotStore
from kernels.layout import TICK
from tests.cities import coupling, sensor, source, write_folder

RULES = """
version = 1
[time]
max_ahead_s = 3600
[levels]
hold_s = 5
[profiles.methane]
unit = "%LEL"
range = [0, 100]
[profiles.methane.limits]
high = { blue = 10, yellow = 20, orange = 30, red = 50 }
deadband = 1
on_delay_s = 2
off_delay_s = 3
[profiles.methane.deviation]
raise_at = { blue = 3, yellow = 6 }
min_sigma = 0.5
memory_n = 30
warmup_n = 10
[[profiles.methane.windows]]
name = "minute"
aggregate = "mean"
length_s = 60
panes = 6
high = { yellow = 15 }
[profiles.methane.liveness]
absent_after = 8
[fusion]
half_life_s = 20
[coupling]
influence = { pipe = 0.5 }
"""
BEGIN_MS = 1_714_521_600_000
PARTITIONS = 3


def city(folder: Path, n: int, like: Path | None = None, **changes: Any) -> Catalog:
    """Build the catalog of ``n`` sources, every third coupled to the next, two sensors each."""
    gone = changes.get("gone", ())
    ids = [*changes.get("before", ()), *(f"S{i:03}" for i in range(n) if i not in gone)]
    sources = [source(name, district="Anew" if name < "S" else "Gulou") for name in ids]
    unit = changes.get("unit", "%LEL")
    sensors = [
        sensor(f"{name}/{part}", name, unit=unit, period_s=1.0) for name in ids for part in "ab"
    ]
    couplings = [
        coupling(f"S{i:03}", f"S{i + 1:03}")
        for i in range(0, n - 1, 3)
        if i not in gone and i + 1 not in gone
    ]
    couplings += [coupling(*pair) for pair in changes.get("joined", ())]
    name = changes.get("name", "city")
    write_folder(folder / name, sources, sensors, couplings)
    build_catalog(folder / name, folder / f"{name}.catalog", PARTITIONS, None, like)
    return Catalog.open(folder / f"{name}.catalog")


def log(n: int = 3000, n_sources: int = 12, seed: int = 5) -> list[tuple[str, int, float]]:
    """Return (sensor id, or none for a tick; event time; value), in order."""
    rng = np.random.default_rng(seed)
    records: list[tuple[str, int, float]] = []
    for i in range(n):
        t_ms = BEGIN_MS + 100 * i
        if i % 10 == 0:
            records.append(("", t_ms, 0.0))
        s = int(rng.integers(n_sources))
        value = float(np.clip(12 + 16 * np.sin(i / 150 + s) + rng.normal(0, 1), 0, 90))
        records.append((f"S{s:03}/{'ab'[int(rng.integers(2))]}", t_ms, value))
    return records


def readings(catalog: Catalog, partition: int, records: list[Any]) -> Readings:
    """Return a partition's part of a log."""
    index = {name: i for i, name in enumerate(catalog.sensor_id.to_pylist())}
    low, high = catalog.partition_sensors()[partition : partition + 2]
    rows = [
        (index[name] if name else TICK, t, v) for name, t, v in records if not name or name in index
    ]
    rows = [row for row in rows if row[0] == TICK or low <= row[0] < high]
    return Readings.of(*([row[k] for row in rows] for k in range(3)))


def said(line: Pipeline, records: list[Any]) -> list[bytes]:
    """Return the alert records of a partition's part of a log."""
    assert line.partition is not None
    return line.push(readings(line.plan.catalog, line.partition, records))


def plan_of(catalog: Catalog, rules: str = RULES) -> Plan:
    return compile_plan(catalog, Rules.parse(rules))


def stored(folder: Path, plan: Plan, records: list[Any]) -> SnapshotStore:
    """Return a store with the state of every partition after a log."""
    store = SnapshotStore(str(folder / "store"))
    for partition in range(PARTITIONS):
        line = Pipeline(plan, partition=partition)
        said(line, records)
        store.write(snapshot.freeze(line, {"n": len(records)}), len(records))
    return store


def resumed(store: SnapshotStore, line: Pipeline, **options: Any) -> Resumed:
    found = store.find(line.partition or 0)
    assert found is not None
    return Resumer(store, **options).resume(found, line)


@pytest.mark.parametrize("seed", range(4))
def test_grown_city_goes_on_as_the_old_one_for_the_old_sources(tmp_path, seed):
    records = log(seed=seed)
    cut = Random(seed).randrange(500, 2500)
    small = city(tmp_path, 12)
    grown = city(tmp_path, 30, tmp_path / "city.catalog", name="grown")
    assert grown.digest != small.digest
    store = stored(tmp_path, plan_of(small), records[:cut])
    n = 0
    for partition in range(PARTITIONS):
        plain = Pipeline(plan_of(small), partition=partition)
        said(plain, records[:cut])
        expected = said(plain, records[cut:])
        line = Pipeline(plan_of(grown), partition=partition)
        resume = resumed(store, line, adopt_catalog=True)
        carried = resume.carried
        assert resume.offset == cut
        assert carried is not None
        assert carried.n_judged_again == carried.n_vanished == carried.n_moved_out == 0
        assert carried.n_kept == np.diff(small.partition_sensors())[partition]
        assert carried.n_new + carried.n_kept == np.diff(grown.partition_sensors())[partition]
        assert said(line, records[cut:]) == expected
        n += len(expected)
    assert n > 10


def test_source_that_is_gone_is_counted_and_named_if_its_alert_was_up(tmp_path):
    records = [("", BEGIN_MS, 0.0)]
    records += [(f"S{s:03}/a", BEGIN_MS + 1000 * i, 60.0) for i in range(6) for s in range(12)]
    small = city(tmp_path, 12)
    store = stored(tmp_path, plan_of(small), records)
    fewer = city(tmp_path, 12, tmp_path / "city.catalog", name="fewer", gone=(2,))
    reports = []
    for partition in range(PARTITIONS):
        carried = resumed(store, Pipeline(plan_of(fewer), partition=partition), adopt_catalog=True)
        reports.append(carried.carried)
    assert sum(report.n_sources_vanished for report in reports) == 1
    assert sum(report.n_vanished for report in reports) == 2
    assert [name for report in reports for name in report.left_open] == ["S002"]
    assert "are gone" in next(r for r in reports if r.n_vanished).line()


def test_source_that_moves_to_another_partition_begins_anew_there(tmp_path):
    records = [(f"S{s:03}/a", BEGIN_MS + 1000 * i, 60.0) for i in range(6) for s in range(12)]
    small = city(tmp_path, 12)
    home = dict(zip(small.source_id.to_pylist(), _partitions(small), strict=True))
    other = next(name for name in home if home[name] != home["S002"] and name > "S002")
    store = stored(tmp_path, plan_of(small), records)
    joined = city(tmp_path, 12, tmp_path / "city.catalog", name="joined", joined=[("S002", other)])
    now = dict(zip(joined.source_id.to_pylist(), _partitions(joined), strict=True))
    moved = {name for name in home if home[name] != now[name]}
    assert moved
    reports = []
    for partition in range(PARTITIONS):
        line = Pipeline(plan_of(joined), partition=partition)
        reports.append(resumed(store, line, adopt_catalog=True).carried)
        span = slice(*line.sources)
        names = joined.source_id.to_pylist()[span]
        for name, level in zip(names, line.state.source["level"][span].tolist(), strict=True):
            assert (level == 0) == (name in moved)
    assert sum(report.n_sources_moved for report in reports) == len(moved)
    assert sum(report.n_moved_in for report in reports) == 2 * len(moved)
    assert {name for report in reports for name in report.left_open} == moved


def _partitions(catalog: Catalog) -> list[int]:
    return np.repeat(np.arange(PARTITIONS), np.diff(catalog.partition_start)).tolist()


def test_sensor_that_sends_another_unit_keeps_its_state(tmp_path):
    records = log(1500)
    small = city(tmp_path, 12)
    store = stored(tmp_path, plan_of(small), records)
    volume = city(tmp_path, 12, tmp_path / "city.catalog", name="volume", unit="%vol")
    for partition in range(PARTITIONS):
        plain = Pipeline(plan_of(small), partition=partition)
        said(plain, records)
        line = Pipeline(plan_of(volume), partition=partition)
        carried = resumed(store, line, adopt_catalog=True).carried
        assert carried.n_judged_again == 0
        for name in ("anchor", "last", "mean", "latched", "n"):
            span = slice(*line.sensors)
            assert (line.state.hot[name][span] == plain.state.hot[name][span]).all(), name


def test_snapshot_of_another_catalog_is_refused_unless_it_is_adopted(tmp_path):
    small = city(tmp_path, 12)
    grown = city(tmp_path, 13, tmp_path / "city.catalog", name="grown")
    store = stored(tmp_path, plan_of(small), log(100))
    line = Pipeline(plan_of(grown), partition=0)
    with pytest.raises(ForeignSnapshotError, match=f"{small.digest}.*{grown.digest}.*adopt"):
        resumed(store, line)


def test_old_snapshot_goes_on_under_rules_of_other_names(tmp_path):
    records = log()
    small = city(tmp_path, 12)
    store = stored(tmp_path, plan_of(small), records[:1500])
    renamed = plan_of(small, RULES.replace('"minute"', '"the last minute"'))
    for partition in range(PARTITIONS):
        plain = Pipeline(plan_of(small), partition=partition)
        said(plain, records[:1500])
        expected = plain.judge(readings(small, partition, records[1500:]))
        line = Pipeline(renamed, partition=partition)
        resume = resumed(store, line)
        assert resume.carried.n_adapted == resume.carried.n_judged_again == 0
        found = line.judge(readings(small, partition, records[1500:]))
        assert found.tobytes() == expected.tobytes()


def test_old_snapshot_under_its_own_rules_is_just_restored(tmp_path):
    small = city(tmp_path, 12)
    store = stored(tmp_path, plan_of(small), log()[:200])
    found = store.find(1)
    same = plan_of(small, found.snapshot.meta["rules_text"])
    resume = Resumer(store).resume(found, Pipeline(same, partition=1))
    assert resume == Resumed(200, {"n": 200}, None)


def test_what_was_hidden_by_command_stays_hidden_in_a_grown_city(tmp_path):
    records = log()
    small = city(tmp_path, 12)
    # one more before all others: every index is another one now
    grown = city(tmp_path, 12, tmp_path / "city.catalog", name="grown", before=("A000", "A001"))
    said_by = {"event_ms": BEGIN_MS, "by": "anna"}
    window = {"from_ms": BEGIN_MS, "until_ms": BEGIN_MS + 250_000}
    shorter = {**window, "until_ms": BEGIN_MS + 180_000}
    n = 0
    for partition in range(PARTITIONS):
        first = small.source_id[int(small.partition_start[partition])].as_py()
        second = small.source_id[int(small.partition_start[partition]) + 1].as_py()
        commands = [
            Suppress(id="1", source=first, **said_by, **window),
            Suppress(id="2", district="Gulou", **said_by, **shorter),
            Shelve(id="3", source=second, until_ms=BEGIN_MS + 200_000, **said_by),
        ]
        lines = [Pipeline(plan_of(small), partition=partition) for _ in range(2)]
        for line in lines:
            for command in commands:
                assert line.command(command).refusal is None
            said(line, records[:1500])
        carried = Pipeline(plan_of(grown), partition=partition)
        report = take_over(Held.by(lines[0]), carried)
        assert report.n_windows_dropped == report.n_judged_again == 0
        expected = said(lines[1], records[1500:])
        assert said(carried, records[1500:]) == expected
        n += len(expected)
    assert n > 10


def test_maintenance_window_of_what_is_gone_goes_along(tmp_path):
    small = city(tmp_path, 12)
    partition = _partitions(small)[small.source_id.to_pylist().index("S004")]
    line = Pipeline(plan_of(small), partition=partition)
    line.command(
        Suppress(
            id="1", event_ms=BEGIN_MS, by="anna", source="S004",
            from_ms=BEGIN_MS, until_ms=BEGIN_MS + 9_000,
        )
    )  # fmt: skip
    fewer = city(tmp_path, 12, tmp_path / "city.catalog", name="fewer", gone=(4,))
    carried = Pipeline(plan_of(fewer), partition=partition)
    assert take_over(Held.by(line), carried).n_windows_dropped == 1
    assert int(carried.shards[0].clock["n_suppressed"][0]) == 0


# Building a catalog like another


def test_city_built_like_another_keeps_known_sources_in_their_partitions(tmp_path):
    small = city(tmp_path, 12)
    home = dict(zip(small.source_id.to_pylist(), _partitions(small), strict=True))
    grown = city(tmp_path, 40, tmp_path / "city.catalog", name="grown", gone=(4,))
    now = dict(zip(grown.source_id.to_pylist(), _partitions(grown), strict=True))
    assert all(now[name] == home[name] for name in home if name != "S004")
    loads = np.diff(grown.partition_sensors())
    assert loads.max() - loads.min() <= 6


def test_report_tells_what_stayed_moved_and_went(tmp_path):
    small = city(tmp_path, 12)
    home = dict(zip(small.source_id.to_pylist(), _partitions(small), strict=True))
    other = next(name for name in home if home[name] != home["S002"] and name > "S002")
    city(tmp_path, 14, name="grown", gone=(5,), joined=[("S002", other)])
    report = build_catalog(
        tmp_path / "grown", tmp_path / "out.catalog", like=tmp_path / "city.catalog"
    )
    like = report.like
    assert (like.digest, like.new, like.gone) == (small.digest, 2, 1)
    assert like.kept + len(like.moved) == 11
    assert {(name, before) for name, before, _ in like.moved} <= set(home.items())
    assert len(like.moved) > 0
    assert report.as_dict()["like"]["digest"] == small.digest


def test_city_built_like_another_has_as_many_partitions(tmp_path):
    city(tmp_path, 12)
    with pytest.raises(CatalogError, match=r"partitions must be 3, as .* has them, got 4"):
        build_catalog(
            tmp_path / "city", tmp_path / "out.catalog", 4, like=tmp_path / "city.catalog"
        )


def test_city_built_like_itself_is_itself(tmp_path):
    small = city(tmp_path, 12)
    again = city(tmp_path, 12, tmp_path / "city.catalog", name="again")
    assert again.digest == small.digest

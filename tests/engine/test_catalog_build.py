from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import Catalog
from engine.errors import CatalogError
from tests.cities import Row, coupling, sensor, source, write_folder


def build(
    folder: Path,
    sources: list[Row],
    sensors: list[Row],
    couplings: list[Row] | None = None,
    *,
    suffix: str = ".parquet",
    **options: Any,
) -> Catalog:
    write_folder(folder, sources, sensors, couplings, suffix)
    Catalog.build(folder, folder / "city.catalog", **options)
    return Catalog.open(folder / "city.catalog")


def city(n_sources: int, seed: int = 0) -> tuple[list[Row], list[Row], list[Row]]:
    rng = random.Random(seed)
    sources = [
        source(
            f"S{i:03}",
            category=rng.choice(["mall", "gate", "factory"]),
            district=rng.choice(["Gulou", "Xuanwu", None]),
            static_class=rng.choice(["none", "blue", "yellow", "red"]),
            lon=118 + rng.random(),
            lat=31 + rng.random(),
        )
        for i in range(n_sources)
    ]
    measured = [("methane", "%vol"), ("temperature", "degF"), ("pressure", "bar"), ("flow", "l/s")]
    sensors = []
    for i in range(n_sources):
        for j in range(rng.randrange(4)):
            quantity, unit = rng.choice(measured)
            limit = {"high_red": 5.0 + j} if rng.random() < 0.3 else {}
            sensors.append(
                sensor(f"{quantity}-{i}-{j}", f"S{i:03}", quantity=quantity, unit=unit, **limit)
            )
    pairs = {(rng.randrange(n_sources), rng.randrange(n_sources)) for _ in range(n_sources)}
    couplings = [
        coupling(f"S{a:03}", f"S{b:03}", weight=round(rng.random(), 3), kind=rng.choice(["p", "q"]))
        for a, b in sorted(pairs)
        if a != b
    ]
    sensors.append(sensor("last", "S000"))
    return sources, sensors, couplings


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_delays_alone_are_a_sensors_own(tmp_path: Path, suffix: str) -> None:
    sensors = [
        sensor("a", "S", on_delay_s=90.0),
        sensor("b", "S"),
        sensor("c", "S", off_delay_s=0.0),
        sensor("d", "S", on_delay_s=0.5, off_delay_s=49 * 86_400.0, high_red=9.0),
    ]
    catalog = build(tmp_path, [source("S")], sensors[::-1], suffix=suffix)
    assert catalog.override_sensor.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(catalog.override_on_delay_s, [90, np.nan, 0.5])
    np.testing.assert_array_equal(catalog.override_off_delay_s, [np.nan, 0, 4_233_600])
    np.testing.assert_array_equal(catalog.override_high[:, 3], [np.nan, np.nan, 9])
    assert catalog.summary()["overrides"] == 3


def test_every_row_is_found_again_under_its_dense_index(tmp_path: Path) -> None:
    sources, sensors, couplings = city(60)
    catalog = build(tmp_path, sources, sensors, couplings, partitions=4)
    by_id = {row["source_id"]: row for row in sources}
    for i, source_id in enumerate(catalog.source_id.to_pylist()):
        row = by_id.pop(source_id)
        district = catalog.district[i]
        assert catalog.categories[catalog.category[i]] == row["category"]
        assert (catalog.districts[district] if district >= 0 else None) == row["district"]
        department = catalog.department[i]
        assert (catalog.departments[department] if department >= 0 else None) == row["department"]
        assert ["none", "blue", "yellow", "red"][catalog.static_class[i]] == row["static_class"]
        assert (catalog.lon[i], catalog.lat[i]) == (row["lon"], row["lat"])
        assert catalog.name[i].as_py() == row["name"]
        assert catalog.owner[i].as_py() == row["owner"]
        assert catalog.contact[i].as_py() == row["contact"]
        assert catalog.grid[i].as_py() == row["grid"]
    assert not by_id
    known = {row["sensor_id"]: row for row in sensors}
    own = dict(zip(catalog.override_sensor.tolist(), catalog.override_high, strict=True))
    for n, sensor_id in enumerate(catalog.sensor_id.to_pylist()):
        row = known.pop(sensor_id)
        s = int(catalog.sensor_source[n])
        assert catalog.source_id[s].as_py() == row["source_id"]
        assert catalog.sensor_start[s] <= n < catalog.sensor_start[s + 1]
        assert catalog.quantities[catalog.quantity[n]] == row["quantity"]
        assert catalog.units[catalog.unit[n]] == row["unit"]
        assert catalog.period_ms[n] == 60_000
        if "high_red" in row:
            np.testing.assert_array_equal(own.pop(n), [np.nan, np.nan, np.nan, row["high_red"]])
    assert not known and not own


def test_couplings_are_the_same_from_both_ends(tmp_path: Path) -> None:
    sources, sensors, couplings = city(60, seed=1)
    catalog = build(tmp_path, sources, sensors, couplings, partitions=3)
    ids = catalog.source_id.to_pylist()

    def rows(start: Any, other: Any, weight: Any, kind: Any, *, forward: bool) -> set[Any]:
        found = set()
        for i in range(catalog.n_sources):
            for at in range(start[i], start[i + 1]):
                ends = (ids[i], ids[other[at]]) if forward else (ids[other[at]], ids[i])
                word = catalog.coupling_kinds[kind[at]]
                found.add((*ends, word, round(float(weight[at]), 3)))
        return found

    expected = {(r["from_source"], r["to_source"], r["kind"], r["weight"]) for r in couplings}
    assert expected == rows(
        catalog.coupling_start,
        catalog.coupling_target,
        catalog.coupling_weight,
        catalog.coupling_kind,
        forward=True,
    )
    assert expected == rows(
        catalog.coupled_start,
        catalog.coupled_origin,
        catalog.coupled_weight,
        catalog.coupled_kind,
        forward=False,
    )


def test_partitions_are_ranges_and_no_coupling_leaves_one(tmp_path: Path) -> None:
    sources, sensors, couplings = city(80, seed=2)
    catalog = build(tmp_path, sources, sensors, couplings[::3], partitions=5)
    start = catalog.partition_start
    assert start[0] == 0 and start[-1] == catalog.n_sources and (np.diff(start) >= 0).all()
    partition = np.searchsorted(start, np.arange(catalog.n_sources), side="right") - 1
    origin = np.repeat(np.arange(catalog.n_sources), np.diff(catalog.coupling_start))
    assert len(origin) == len(couplings[::3])
    assert (partition[origin] == partition[catalog.coupling_target]).all()
    assert catalog.cut_couplings == []


def test_the_digest_does_not_depend_on_the_order_of_rows_or_the_file_format(tmp_path: Path) -> None:
    sources, sensors, couplings = city(40, seed=3)
    first = build(tmp_path / "a", sources, sensors, couplings)
    rng = random.Random(9)
    for rows in (sources, sensors, couplings):
        rng.shuffle(rows)
    second = build(tmp_path / "b", sources, sensors, couplings, suffix=".csv")
    assert first.digest == second.digest
    one, other = (tmp_path / name / "city.catalog" for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_the_digest_changes_with_any_cell(tmp_path: Path) -> None:
    sources, sensors, couplings = city(10, seed=4)
    digests = {build(tmp_path / "a", sources, sensors, couplings).digest}
    for number, (rows, key, value) in enumerate(
        [
            (sources, "name", "other"),
            (sources, "lon", 1.0),
            (sources, "contact", "other"),
            (sensors, "period_s", 61.0),
            (sensors, "deadband", 0.5),
            (couplings, "weight", 0.123),
        ]
    ):
        changed = [dict(row) for row in rows]
        changed[0][key] = value
        tables = [changed if table is rows else table for table in (sources, sensors, couplings)]
        digests.add(build(tmp_path / str(number), *tables).digest)
    assert len(digests) == 7


def test_units_become_a_scale_and_an_offset(tmp_path: Path) -> None:
    sensors = [
        sensor("1", "a", quantity="temperature", unit="°F"),
        sensor("2", "a", quantity="methane", unit="% vol"),
        sensor("3", "a", quantity="flow", unit="l/s"),
        sensor("4", "a", quantity="flow", unit="m3/h"),
    ]
    catalog = build(tmp_path, [source("a")], sensors)
    np.testing.assert_allclose(catalog.sensor_scale, [5 / 9, 20, 3.6, 1], rtol=1e-15)
    np.testing.assert_allclose(catalog.sensor_offset, [-160 / 9, 0, 0, 0], rtol=1e-15)
    assert catalog.sensor_scale[3] == 1.0 and catalog.sensor_offset[3] == 0.0
    assert [catalog.units[code] for code in catalog.unit] == ["degF", "%vol", "l/s", "m³/h"]
    assert catalog.canonical_units == {"flow": "m³/h", "methane": "%LEL", "temperature": "degC"}


def test_a_site_adds_its_own_quantities(tmp_path: Path) -> None:
    (tmp_path / "quantities.toml").write_text(
        '[quantity.propane]\nunit = "%LEL"\ndescription = "propane"\nlel_percent_vol = 2.0\n'
        '[quantity.turbidity]\nunit = "mg/l"\n',
        encoding="utf-8",
    )
    sensors = [
        sensor("1", "a", quantity="propane", unit="%vol"),
        sensor("2", "a", quantity="turbidity", unit="g/m³"),
    ]
    sensors[1]["unit"] = "mg/l"
    catalog = build(tmp_path, [source("a")], sensors)
    assert catalog.sensor_scale.tolist() == [50.0, 1.0]


def test_integer_ids_optional_columns_and_nulls_are_taken(tmp_path: Path) -> None:
    bare = {"source_id": 7, "category": "x", "name": None, "static_class": None}
    catalog = build(tmp_path, [bare | {"lon": 0, "lat": -90}], [sensor(12, 7)])
    assert catalog.source_id.to_pylist() == ["7"] and catalog.sensor_id.to_pylist() == ["12"]
    assert catalog.name.to_pylist() == ["7"]
    assert catalog.owner.to_pylist() == [""]
    assert catalog.district.tolist() == [-1] and catalog.static_class.tolist() == [0]


def test_a_cluster_above_the_bound_is_cut_at_its_weakest_couplings(tmp_path: Path) -> None:
    # a —0.9→ b —0.2→ c —0.8→ d, two sensors each; four fit
    sources = [source(name) for name in "abcd"]
    sensors = [sensor(f"{name}{i}", name) for name in "abcd" for i in range(2)]
    couplings = [
        coupling("a", "b", weight=0.9),
        coupling("b", "c", weight=0.2),
        coupling("c", "b", weight=0.1, kind="road"),
        coupling("c", "d", weight=0.8),
    ]
    write_folder(tmp_path, sources, sensors, couplings)
    out = tmp_path / "city.catalog"
    report = Catalog.build(tmp_path, out, partitions=2, max_cluster=4)
    assert report.cut_couplings == [("b", "c", "pipe", 0.2), ("c", "b", "road", 0.1)]
    assert report.partition_sensors == [4, 4] and report.skew == 1.0
    assert (report.clusters, report.largest_cluster, report.couplings) == (2, 4, 2)
    catalog = Catalog.open(out)
    ids = catalog.source_id.to_pylist()
    assert [(ids[a], ids[b], kind) for a, b, kind, _ in catalog.cut_couplings] == [
        ("b", "c", "pipe"),
        ("c", "b", "road"),
    ]
    assert len(catalog.coupling_target) == len(catalog.coupled_origin) == 2


def test_a_cluster_at_the_bound_is_not_cut(tmp_path: Path) -> None:
    sources = [source(name) for name in "abc"]
    sensors = [sensor(f"s{name}", name) for name in "abc"]
    couplings = [coupling("a", "b"), coupling("b", "c"), coupling("c", "a")]
    write_folder(tmp_path, sources, sensors, couplings)
    report = Catalog.build(tmp_path, tmp_path / "c", partitions=2, max_cluster=3)
    assert report.cut_couplings == []
    assert sorted(report.partition_sensors) == [0, 3]
    assert report.skew == 2.0


def test_the_largest_clusters_are_packed_first(tmp_path: Path) -> None:
    # in the order of ids the loads would be 2 and 4
    loads = {"a": 1, "b": 1, "c": 1, "d": 3}
    sensors = [sensor(f"{name}{i}", name) for name, n in loads.items() for i in range(n)]
    write_folder(tmp_path, [source(name) for name in loads], sensors)
    report = Catalog.build(tmp_path, tmp_path / "c", partitions=2)
    assert report.partition_sensors == [3, 3]
    assert Catalog.build(tmp_path, tmp_path / "c", partitions=4).partition_sensors == [3, 1, 1, 1]


def test_more_partitions_than_sources_leaves_empty_ones(tmp_path: Path) -> None:
    catalog = build(tmp_path, [source("a")], [sensor("1", "a")], partitions=4)
    assert catalog.partition_start.tolist() == [0, 1, 1, 1, 1]
    assert catalog.partition_sensors().tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(("option", "value"), [("partitions", 0), ("max_cluster", 0)])
def test_an_impossible_option_is_refused(tmp_path: Path, option: str, value: int) -> None:
    with pytest.raises(CatalogError, match=f"{option} must be at least 1, got 0"):
        build(tmp_path, [source("a")], [sensor("1", "a")], **{option: value})


@settings(max_examples=30)
@given(st.data())
def test_dense_order_is_by_source_then_sensor_id(tmp_path_factory: Any, data: Any) -> None:
    names = st.text("ab/é中0", min_size=1, max_size=4)
    source_ids = data.draw(st.lists(names, min_size=1, max_size=6, unique=True))
    sensor_ids = data.draw(st.lists(names, min_size=1, max_size=12, unique=True))
    owners = [data.draw(st.sampled_from(source_ids)) for _ in sensor_ids]
    folder = tmp_path_factory.mktemp("city")
    catalog = build(
        folder,
        [source(name) for name in source_ids],
        [sensor(name, owner) for name, owner in zip(sensor_ids, owners, strict=True)],
        partitions=2,
    )
    assert (np.diff(catalog.sensor_source) >= 0).all()
    ids = [name.encode() for name in catalog.sensor_id.to_pylist()]
    for i in range(catalog.n_sources):
        own = ids[catalog.sensor_start[i] : catalog.sensor_start[i + 1]]
        assert own == sorted(own)
    for p in range(2):
        begin, end = catalog.partition_start[p : p + 2]
        inside = [name.encode() for name in catalog.source_id.to_pylist()[begin:end]]
        assert inside == sorted(inside)
    order = data.draw(st.permutations(sensor_ids))
    expected = [catalog.sensor_id.to_pylist().index(name) for name in order]
    assert catalog.resolver().resolve(pa.array(order)).tolist() == expected
    by_source = catalog.source_resolver().resolve(pa.array(source_ids)).tolist()
    assert [catalog.source_id[i].as_py() for i in by_source] == source_ids

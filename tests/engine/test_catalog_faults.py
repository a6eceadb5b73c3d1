from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.catalog import Catalog
from engine.errors import CatalogError
from tests.cities import Row, coupling, sensor, source, write_folder

NAN = float("nan")


def faults_of(folder: Path) -> list[str]:
    out = folder / "city.catalog"
    with pytest.raises(CatalogError) as caught:
        Catalog.build(folder, out)
    assert not out.exists()
    return [str(fault) for fault in caught.value.faults]


def faults_in(
    folder: Path,
    sources: list[Row],
    sensors: list[Row],
    couplings: list[Row] | None = None,
    suffix: str = ".parquet",
) -> list[str]:
    return faults_of(write_folder(folder, sources, sensors, couplings, suffix))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_every_fault_is_reported_in_one_run_with_file_row_column_and_value(
    tmp_path: Path, suffix: str
) -> None:
    sources = [
        source("a"),
        source("b", lon=181.0),
        source("a", lat=-91.0),
        source("d", static_class="purple"),
        source("e", category=None),
        source("f", lon=NAN),
    ]
    sensors = [
        sensor("1", "a"),
        sensor("2", "nowhere"),
        sensor("1", "b"),
        sensor("4", "b", quantity="methan"),
        sensor("5", "b", unit="degC"),
        sensor("6", "b", period_s=0.0),
        sensor("7", "b", period_s=NAN),
        sensor("8", "b", high_yellow=2.0, high_red=1.0),
        sensor("9", "b", deadband=-1.0),
        sensor("10", "b", unit="furlongs per %"),
    ]
    couplings = [
        coupling("a", "b"),
        coupling("a", "gone"),
        coupling("b", "b"),
        coupling("a", "b"),
        coupling("b", "a", weight=1.5),
        coupling("b", "a", kind=None),
    ]
    found = faults_in(tmp_path, sources, sensors, couplings, suffix)
    one, two, three = (f"{stem}{suffix}" for stem in ("sources", "sensors", "couplings"))
    assert set(found) == {
        f"{one}: row 3: source_id: duplicate of row 1, got 'a'",
        f"{one}: row 2: lon: must be a number from -180 to 180, got 181.0",
        f"{one}: row 6: lon: must be a number from -180 to 180, got nan",
        f"{one}: row 3: lat: must be a number from -90 to 90, got -91.0",
        f"{one}: row 4: static_class: must be one of none, blue, yellow, red, got 'purple'",
        f"{one}: row 5: category: must not be empty, got ''",
        f"{two}: row 2: source_id: is not in sources, got 'nowhere'",
        f"{two}: row 3: sensor_id: duplicate of row 1, got '1'",
        f"{two}: row 4: quantity: unknown quantity (did you mean methane?), got 'methan'",
        f"{two}: row 5: unit: methane is in '%LEL' or a unit that converts to it, not in 'degC'"
        ", got 'degC'",
        f"{two}: row 10: unit: unknown unit 'furlongsper%', got 'furlongs per %'",
        f"{two}: row 6: period_s: must be above 0, from 0.001 to 4,294,967 s, got 0.0",
        f"{two}: row 7: period_s: must be above 0, from 0.001 to 4,294,967 s, got nan",
        f"{two}: row 8: high_red: must be above the level before it, 2, got 1.0",
        f"{two}: row 9: deadband: must not be negative, got -1.0",
        f"{three}: row 2: to_source: is not in sources, got 'gone'",
        f"{three}: row 3: to_source: couples a source with itself, got 'b'",
        f"{three}: row 4: to_source: the same coupling, with the same kind, is there already"
        ", got 'b'",
        f"{three}: row 5: weight: must be a number from 0 to 1, got 1.5",
        f"{three}: row 6: kind: must not be empty, got ''",
    }
    assert len(found) == 20


def test_ids_and_names_that_become_keys_have_a_bound(tmp_path: Path) -> None:
    longest, longer = "ä" * 512, "ä" * 513
    named = {key: longest for key in ("category", "district", "department")}
    city = write_folder(tmp_path / "fits", [source(longest, **named)], [sensor(longest, longest)])
    Catalog.build(city, tmp_path / "city.catalog")
    named = dict.fromkeys(named, longer)
    found = faults_in(tmp_path / "not", [source(longer, **named)], [sensor(longer, longer)])
    shown = f"must be at most 512 characters, has 513, got '{'ä' * 118}…"
    assert set(found) == {
        *(f"sources.parquet: row 1: {key}: {shown}" for key in ("source_id", *named)),
        f"sensors.parquet: row 1: sensor_id: {shown}",
    }


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"period_s": -1.0}, "period_s"),
        ({"period_s": float("inf")}, "period_s"),
        ({"period_s": 0.0001}, "period_s"),
        ({"period_s": 5e6}, "period_s"),
        ({"high_blue": 1.0, "high_yellow": 1.0}, "high_yellow"),
        ({"high_blue": 3.0, "high_red": 2.0}, "high_red"),
        ({"low_blue": 1.0, "low_yellow": 2.0}, "low_yellow"),
        ({"high_orange": float("inf")}, "high_orange"),
        ({"deadband": float("-inf")}, "deadband"),
        ({"low_blue": 5.0, "high_blue": 4.0}, "low_*"),
        ({"on_delay_s": -0.001}, "on_delay_s"),
        ({"on_delay_s": float("inf")}, "on_delay_s"),
        ({"off_delay_s": 4_233_600.001}, "off_delay_s"),
        ({"sensor_id": ""}, "sensor_id"),
        ({"quantity": None}, "quantity"),
    ],
)
def test_a_sensor_that_can_not_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    found = faults_in(tmp_path, [source("a")], [sensor("0", "a"), sensor("1", "a") | changes])
    assert found and all(f"row 2: {key}: " in line for line in found)


def test_a_delay_that_can_not_be_is_named_with_its_bound(tmp_path: Path) -> None:
    sensors = [sensor("1", "a", off_delay_s="5"), sensor("2", "a", off_delay_s="-2")]
    sensors += [sensor("3", "a", off_delay_s="5 s")]
    assert faults_in(tmp_path, [source("a")], sensors, suffix=".csv") == [
        "sensors.csv: row 3: off_delay_s: must be a number, got '5 s'",
        "sensors.csv: row 2: off_delay_s: must be at least 0 and at most 4233600 s, got -2.0",
    ]
    (line,) = faults_in(tmp_path / "b", [source("a")], [sensor("1", "a", on_delay=5.0)])
    assert line == "sensors.parquet: on_delay: unknown column (did you mean on_delay_s?)"


def test_limits_that_ascend_with_gaps_are_fine(tmp_path: Path) -> None:
    own = {"high_blue": 1.0, "high_red": 4.0, "low_blue": 0.5, "low_red": -3.0, "deadband": 0.0}
    write_folder(tmp_path, [source("a")], [sensor("1", "a") | own])
    Catalog.build(tmp_path, tmp_path / "c")
    catalog = Catalog.open(tmp_path / "c")
    assert catalog.override_low[0, [0, 3]].tolist() == [0.5, -3.0]
    assert catalog.override_deadband.tolist() == [0.0]


def test_faults_of_one_kind_are_counted_beyond_the_first_hundred(tmp_path: Path) -> None:
    sensors = [sensor(f"{i:03}", "gone") for i in range(250)] + [sensor("a", "a", period_s=0.0)]
    found = faults_in(tmp_path, [source("a")], sensors)
    orphans = [line for line in found if "is not in sources" in line]
    assert len(orphans) == 100 and "row 100:" in orphans[-1]
    assert "sensors.parquet: 150 more: unknown source_id" in found
    assert any("period_s" in line for line in found)
    with pytest.raises(CatalogError, match="251 faults"):
        Catalog.build(tmp_path, tmp_path / "c")


def test_a_missing_column_is_reported_beside_the_faults_of_the_others(tmp_path: Path) -> None:
    sources = [source("a", lat=100.0)]
    sensors = [sensor("1", "a", quantity="nonsense")]
    del sources[0]["lon"], sensors[0]["unit"]
    assert set(faults_in(tmp_path, sources, sensors)) == {
        "sources.parquet: lon: is missing",
        "sources.parquet: row 1: lat: must be a number from -90 to 90, got 100.0",
        "sensors.parquet: unit: is missing",
        "sensors.parquet: row 1: quantity: unknown quantity, got 'nonsense'",
    }


def test_a_misspelt_column_is_reported_and_a_foreign_one_is_ignored(tmp_path: Path) -> None:
    sensors = [sensor("1", "a", high_rde=1.0, made_by="ACME")]
    found = faults_in(tmp_path, [source("a")], sensors)
    assert found == ["sensors.parquet: high_rde: unknown column (did you mean high_red?)"]
    del sensors[0]["high_rde"]
    write_folder(tmp_path, [source("a")], sensors)
    report = Catalog.build(tmp_path, tmp_path / "c")
    assert report.ignored_columns == {"sensors.parquet": ["made_by"]}


def test_a_column_of_the_wrong_type_is_reported_once(tmp_path: Path) -> None:
    sources = [source("a", lon="118.8"), source("b", lon="119")]
    sensors = [sensor(1.5, "a"), sensor(2.5, "a", period_s=60.0)]
    assert set(faults_in(tmp_path, sources, sensors)) == {
        "sources.parquet: lon: must be a number, is string",
        "sensors.parquet: sensor_id: must be text, is double",
    }


def test_a_csv_cell_that_is_no_number_is_reported_once_with_its_row(tmp_path: Path) -> None:
    write_folder(tmp_path, [source("a")], [sensor("1", "a")], suffix=".csv")
    (tmp_path / "sensors.csv").write_text(
        "sensor_id,source_id,quantity,unit,period_s,high_red\n"
        "1,a,methane,%vol,60,\n"
        "2,a,methane,%vol,soon,1e3\n"
        "3,a,methane\n"
        "4,a,methane,%vol, +6.5e1 ,NA\n"
        "5,a,methane,%vol,60,1.2.3\n",
        encoding="utf-8-sig",
    )
    assert set(faults_of(tmp_path)) == {
        "sensors.csv: row 2: period_s: must be a number, got 'soon'",
        "sensors.csv: row 3: has 3 columns, not 6",
        "sensors.csv: row 5: high_red: must be a number, got '1.2.3'",
    }


def test_text_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    write_folder(tmp_path, [source("a")], [sensor("1", "a")], suffix=".csv")
    text = (tmp_path / "sources.csv").read_text(encoding="utf-8").replace("Gulou", "鼓楼")
    (tmp_path / "sources.csv").write_bytes(text.encode("gbk"))
    assert "sources.csv: must be UTF-8" in faults_of(tmp_path)[0]

    parquet = tmp_path / "parquet"
    write_folder(parquet, [source("a"), source("b")], [sensor("1", "a")])
    table = pq.read_table(parquet / "sources.parquet")
    owner = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    pq.write_table(
        table.set_column(table.column_names.index("owner"), "owner", owner),
        parquet / "sources.parquet",
    )
    found = faults_of(parquet)
    assert found == ["sources.parquet: row 2: owner: must be UTF-8, got b'\\xff\\xfe'"]


def test_files_that_are_missing_doubled_empty_or_damaged_are_reported(tmp_path: Path) -> None:
    assert len(faults_of(tmp_path)) == 2
    write_folder(tmp_path, [source("a")], [sensor("1", "a")])
    (tmp_path / "sources.csv").write_text("source_id\n", encoding="utf-8")
    content = (tmp_path / "sensors.parquet").read_bytes()
    (tmp_path / "sensors.parquet").write_bytes(content[:-9])
    (tmp_path / "couplings.csv").write_text("", encoding="utf-8")
    found = faults_of(tmp_path)
    assert found[0] == "sources: both sources.parquet and sources.csv: keep one"
    assert found[1].startswith("sensors.parquet: can't be read: ")
    assert found[2].startswith("couplings.csv: can't be read: ")


def test_a_table_without_rows_is_reported(tmp_path: Path) -> None:
    write_folder(tmp_path, [source("a")], [sensor("1", "a")])
    table = pq.read_table(tmp_path / "sensors.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "sensors.parquet")
    assert faults_of(tmp_path) == ["sensors.parquet: has no rows"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such folder"):
        Catalog.build(tmp_path / "none", tmp_path / "c")
    (tmp_path / "file").touch()
    with pytest.raises(CatalogError, match="not a folder"):
        Catalog.build(tmp_path / "file", tmp_path / "c")


def test_faults_of_site_quantities_join_the_others(tmp_path: Path) -> None:
    write_folder(tmp_path, [source("a", lat=99.0)], [sensor("1", "a")])
    (tmp_path / "quantities.toml").write_text(
        '[quantity.methane]\nunit = "%vol"\n'
        '[quantity.Bad]\nunit = "m"\n'
        '[quantity.x]\nunti = "m"\n'
        '[quantity.y]\nunit = "blorb"\nlel_percent_vol = 0\n'
        "[quantities.z]\n",
        encoding="utf-8",
    )
    assert set(faults_of(tmp_path)) == {
        "quantities.toml: quantities: unknown; tables are [quantity.NAME]",
        "quantities.toml: quantity.methane: is built in and can't be changed",
        "quantities.toml: quantity.Bad: a name is lower-case letters, digits and _, got 'Bad'",
        "quantities.toml: quantity.x.unti: unknown; keys are unit, description, lel_percent_vol",
        "quantities.toml: quantity.x.unit: must be a text",
        "quantities.toml: quantity.y.unit: unknown unit 'blorb'",
        "quantities.toml: quantity.y.lel_percent_vol: must be above 0 and at most 100, got 0",
        "sources.parquet: row 1: lat: must be a number from -90 to 90, got 99.0",
    }


def test_a_site_file_that_is_not_toml_is_reported(tmp_path: Path) -> None:
    write_folder(tmp_path, [source("a")], [sensor("1", "a")])
    (tmp_path / "quantities.toml").write_text("[quantity.x\n", encoding="utf-8")
    assert "quantities.toml" in faults_of(tmp_path)[0]

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine import catalog_file
from engine.catalog import Catalog
from engine.errors import CatalogError, OutputError
from tests.cities import coupling, sensor, source, write_folder


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    sources = [source(f"S{i}", name=f"井 {i}") for i in range(20)]
    sensors = [sensor(f"CH4-{i:04}", f"S{i % 20}") for i in range(100)]
    couplings = [coupling(f"S{i}", f"S{i + 1}") for i in range(19)]
    write_folder(tmp_path, sources, sensors, couplings)
    Catalog.build(tmp_path, tmp_path / "city.catalog", partitions=3)
    return tmp_path / "city.catalog"


def test_a_catalog_opens_as_views_of_the_file(compiled: Path) -> None:
    before = pa.total_allocated_bytes()
    catalog = Catalog.open(compiled)
    assert pa.total_allocated_bytes() - before < 4096
    for name, (dtype, _) in catalog_file.COLUMNS.items():
        column = catalog.columns[name]
        if dtype == "text":
            assert column.type == pa.large_string()
        else:
            assert column.dtype == dtype and not column.flags.writeable


@pytest.mark.parametrize("n_categories", range(1, 9))
def test_slots_begin_on_a_cache_line_whatever_the_metadata(
    tmp_path: Path, n_categories: int
) -> None:
    sources = [source(f"S{i}", category="c" * (i + 1)) for i in range(n_categories)]
    write_folder(tmp_path, sources, [sensor("1", "S0")])
    Catalog.build(tmp_path, tmp_path / "c")
    assert Catalog.open(tmp_path / "c").columns["slots"].ctypes.data % 64 == 0


def test_verify_finds_any_flipped_byte(compiled: Path) -> None:
    Catalog.open(compiled).verify()
    whole = compiled.read_bytes()
    names = ["lon", "sensor_scale", "period_ms", "coupling_weight", "slots", "sensor_start"]
    for name in names:
        content = bytearray(whole)
        catalog = Catalog.open(compiled)
        raw = catalog.columns[name].tobytes()
        at = whole.index(raw)
        content[at] ^= 1
        damaged = compiled.with_name(name)
        damaged.write_bytes(content)
        with pytest.raises(CatalogError, match="digest"):
            Catalog.open(damaged).verify()
    at = whole.index("井 13".encode())
    damaged.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
    with pytest.raises(CatalogError, match="digest"):
        Catalog.open(damaged).verify()


def test_a_truncated_catalog_is_refused_at_every_length(compiled: Path) -> None:
    whole = compiled.read_bytes()
    short = compiled.with_name("short")
    for size in [0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1]:
        short.write_bytes(whole[:size])
        with pytest.raises(CatalogError, match="not a Tocsin catalog, or truncated"):
            Catalog.open(short)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"none\.catalog: no such catalog"):
        Catalog.open(tmp_path / "none.catalog")
    with pytest.raises(CatalogError, match="is a folder"):
        Catalog.open(tmp_path)
    (tmp_path / "text").write_text("sources\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="not a Tocsin catalog"):
        Catalog.open(tmp_path / "text")
    table = pa.table({"a": [1]})
    with pa.OSFile(str(tmp_path / "arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as w:
        w.write_table(table)
    with pytest.raises(CatalogError, match="an Arrow file, but not a Tocsin catalog"):
        Catalog.open(tmp_path / "arrow")


def rewritten(path: Path, **changes: object) -> Path:
    columns, meta = catalog_file.read_columns(path)
    other = path.with_name("other")
    catalog_file.write_columns(other, columns, meta | changes)
    return other


def test_another_format_version_is_refused(compiled: Path) -> None:
    with pytest.raises(CatalogError, match="catalog format 99, this Tocsin reads format 2 and 3"):
        Catalog.open(rewritten(compiled, version=99))


def test_a_catalog_from_before_sensors_had_delays_is_read_and_kept_as_it_is(tmp_path: Path) -> None:
    write_folder(tmp_path, [source("a")], [sensor("1", "a", deadband=0.25), sensor("2", "a")])
    Catalog.build(tmp_path, tmp_path / "now")
    columns, meta = catalog_file.read_columns(tmp_path / "now")
    # what a build of this folder was called before: snapshots speak of it by that name
    meta |= {"version": 2, "digest": "4332e92b487380ac034bb8943112cab3"}
    catalog_file.write_columns(tmp_path / "then", columns, meta)
    with pa.OSFile(str(tmp_path / "then")) as file:
        assert not [name for name in pa.ipc.open_file(file).schema.names if "delay" in name]
    then = Catalog.open(tmp_path / "then")
    then.verify()
    assert then.override_deadband.tolist() == [0.25]
    for delay_s in (then.override_on_delay_s, then.override_off_delay_s):
        np.testing.assert_array_equal(delay_s, [np.nan])
    catalog_file.write_columns(tmp_path / "copy", then.columns, then.meta)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "then").read_bytes()
    Catalog.build(tmp_path, tmp_path / "like", like=tmp_path / "then")
    assert Catalog.open(tmp_path / "like").meta["version"] == 3


def test_counts_that_do_not_fit_the_columns_are_refused(compiled: Path) -> None:
    for key in ("n_sources", "n_sensors", "n_partitions"):
        with pytest.raises(CatalogError, match="damaged catalog"):
            Catalog.open(rewritten(compiled, **{key: 7}))


def test_missing_metadata_is_refused(compiled: Path) -> None:
    columns, meta = catalog_file.read_columns(compiled)
    meta.pop("coupling_kinds")
    catalog_file.write_columns(compiled, columns, meta)
    with pytest.raises(CatalogError, match="damaged catalog"):
        Catalog.open(compiled)


def test_a_build_replaces_a_catalog_that_is_open_and_leaves_no_rest(compiled: Path) -> None:
    catalog = Catalog.open(compiled)
    names = catalog.source_id.to_pylist()
    folder = compiled.parent
    write_folder(folder, [source("Z")], [sensor("z", "Z")])
    (folder / "couplings.parquet").unlink()
    Catalog.build(folder, compiled)
    assert Catalog.open(compiled).source_id.to_pylist() == ["Z"]
    assert catalog.source_id.to_pylist() == names
    catalog.verify()
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_a_catalog_that_can_not_be_written_is_one_clear_error(tmp_path: Path) -> None:
    write_folder(tmp_path, [source("Z")], [sensor("z", "Z")])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written"):
        Catalog.build(tmp_path, tmp_path / "file" / "c")
    with pytest.raises(OutputError, match="can't be written"):
        Catalog.build(tmp_path, tmp_path)


def test_the_summary_counts_everything(compiled: Path) -> None:
    summary = Catalog.open(compiled).summary()
    json.dumps(summary)
    assert summary["sources"] == 20 and summary["sensors"] == 100 and summary["couplings"] == 19
    assert summary["partition_sensors"] == [100, 0, 0] and summary["skew"] == 3.0
    assert summary["quantities"] == {"methane": {"unit": "%LEL", "sensors": 100}}
    assert summary["categories"] == {"gas_valve": 20}
    assert summary["static_classes"] == {"none": 20, "blue": 0, "yellow": 0, "red": 0}


def test_text_buffers_honour_the_offset_of_a_slice() -> None:
    for kind in (pa.string(), pa.large_string(), pa.binary()):
        array = pa.array(["a", "", "ccc", None, "e"], kind).slice(1, 3)
        offset, octets = catalog_file.text_buffers(array)
        assert offset.dtype == np.int64
        rows = [octets[a:b].tobytes() for a, b in pairwise(offset)]
        assert rows == [b"", b"ccc", b""]
    offset, octets = catalog_file.text_buffers(pa.array([], pa.string()))
    assert offset.tolist() == [0] and octets.size == 0

"""Adapters at work: wide tables, templates, clocks, units, dialects of CSV."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest

from engine.adapters import parse
from engine.errors import ReadingsError
from kernels.layout import UNKNOWN
from tests.engine.histories import history, knowing, rows, write

WIDE = 'version = 1\nshape = "wide"\n'
LONG = 'version = 1\nshape = "long"\n'
TABLE = pa.table({"t": [0, 1, 2], "p": [1.0, None, 3.0], "q": [4.0, 5.0, float("nan")]})


@pytest.mark.parametrize(("missing", "n"), [("skip", 4), ("bad", 6)])
def test_an_empty_cell_is_no_reading_or_a_bad_one(tmp_path, missing, n):
    adapter = parse(WIDE + f"[sensor]\nmissing = '{missing}'\n[time]\ncolumn = 't'\n")
    of = history(write(tmp_path / "pump.parquet", TABLE), knowing("p", "q"), adapter)
    found = rows(of)
    assert len(found) == n
    assert sum(row[2] is None for row in found) == n - 4


def test_named_columns_are_the_only_sensors_in_the_order_of_their_naming(tmp_path):
    adapter = parse(WIDE + "[sensor]\ncolumns = { q = 'flow' }\n[time]\ncolumn = 't'\n")
    of = history(write(tmp_path / "pump.parquet", TABLE), knowing("flow"), adapter)
    assert [row[:3] for row in rows(of)] == [(0, 0, 4.0), (0, 1, 5.0)]


def test_unknown_columns_are_counted_by_id_without_their_empty_cells(tmp_path):
    template = "[sensor]\ntemplate = '{folder}/{file}.{column}'\n"
    adapter = parse(WIDE + template + "[time]\ncolumn = 't'\n")
    folder = tmp_path / "north"
    folder.mkdir()
    path = write(folder / "pump.csv.gz", TABLE)
    of = history(path, knowing("north/pump.p"), adapter)
    assert [row[0] for row in rows(of)] == [0, UNKNOWN, UNKNOWN, 0]
    assert of.tally.unknown_ids == {"north/pump.q": 2}


def test_a_row_clock_counts_the_rows_of_each_file(tmp_path):
    adapter = parse(
        WIDE + "[sensor]\nexcept = ['t']\n[time]\nstart = 1970-01-01T00:00:10\nstep_s = 2.5\n"
    )
    path = write(tmp_path / "pump.parquet", TABLE, row_group_size=2)
    found = rows(history([path, path], knowing("p", "q"), adapter))
    assert [row[1] for row in found] == [10_000] * 4 + [12_500] * 2 + [15_000] * 2


def test_a_step_between_milliseconds_does_not_drift(tmp_path):
    adapter = parse(WIDE + "[sensor]\nexcept = ['t']\n[time]\nstart = 0001-01-01\nstep_s = 1\n")
    assert adapter.time.start_ms() < 0
    clock = "[time]\nstart = 1970-01-01\nstep_s = 0.0333333333\n"
    adapter = parse(WIDE + "[sensor]\ncolumns = { v = 'v' }\n" + clock)
    table = pa.table({"v": [1.0] * 3001})
    found = rows(history(write(tmp_path / "v.parquet", table), knowing("v"), adapter))
    assert found[3][1] == 100
    assert found[3000][1] == 100_000


def test_values_are_converted_by_column(tmp_path):
    adapter = parse(WIDE + "[time]\ncolumn = 't'\n[units.p]\nfactor = 2\noffset = -1\n")
    of = history(write(tmp_path / "pump.parquet", TABLE), knowing("p", "q"), adapter)
    assert [row[2] for row in rows(of) if row[0] == 0] == [1.0, 5.0]


def test_a_file_may_be_one_sensor(tmp_path):
    adapter = parse(LONG + "[sensor]\ntemplate = 'cpu/{file}'\n[time]\ncolumn = 'timestamp'\n")
    path = tmp_path / "load.csv"
    path.write_text("timestamp,value\n2024-05-01 00:00:00,1\n2024-05-01 00:05:00,2\n")
    of = history(path, knowing("cpu/load"), adapter)
    assert [row[0] for row in rows(of)] == [0, 0]
    assert rows(history(path, knowing("cpu/other"), adapter))[0][0] == UNKNOWN


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_template_makes_ids_of_a_column(tmp_path, dictionary):
    adapter = parse(LONG + "[sensor]\ncolumn = 'no'\ntemplate = 'gas/{sensor}/ch4'\n")
    names = pa.array(["7", "8", None, "9"])
    table = pa.table(
        {
            "no": names.dictionary_encode() if dictionary else names,
            "time": [1, 2, 3, 4],
            "value": [0.5] * 4,
        }
    )
    of = history(write(tmp_path / "day.parquet", table), knowing("gas/8/ch4", "gas/7/ch4"), adapter)
    assert [row[0] for row in rows(of)] == [1, 0, UNKNOWN, UNKNOWN]
    assert of.tally.unknown_ids == {"None": 1, "gas/9/ch4": 1}


def test_a_dialect_of_csv_is_read_as_declared(tmp_path):
    adapter = parse(
        LONG
        + "[sensor]\ncolumn = 'Gerät'\n[time]\ncolumn = 'Zeit'\nformat = '%d.%m.%Y %H:%M'\n"
        + "zone = 'Europe/Berlin'\n[value]\ncolumn = 'Wert'\n[quality]\ncolumn = 'Status'\n"
        + "good = ['OK']\n[csv]\ndelimiter = ';'\ndecimal = ','\nencoding = 'latin-1'\n"
        + "skip_rows = 1\nnull_values = ['---']\nquote = \"'\"\n"
    )
    path = tmp_path / "day.csv"
    path.write_bytes(
        "Export\nGerät;Zeit;Wert;Status\n'süd;1';01.05.2024 14:00;1,5;OK\n"
        "b;01.05.2024 14:01;---;FEHLER\n".encode("latin-1")
    )
    noon = 1_714_564_800_000
    found = rows(history(path, knowing("b", "süd;1"), adapter))
    assert found == [(1, noon, 1.5, 0), (0, noon + 60_000, None, 1)]


def test_a_csv_without_a_header_has_the_names_that_are_declared(tmp_path):
    adapter = parse(LONG + "[csv]\nnames = ['sensor', 'ts', 'value']\n")
    path = tmp_path / "day.csv"
    path.write_text("a,5,1\nb,6,2\n")
    assert [row[:2] for row in rows(history(path, knowing("a", "b"), adapter))] == [(0, 5), (1, 6)]


def test_a_tsv_is_separated_by_tabs(tmp_path):
    path = tmp_path / "day.tsv.gz"
    path.write_bytes(gzip.compress(b"sensor\tts\tvalue\na\t5\t1\n"))
    assert rows(history(path, knowing("a"))) == [(0, 5, 1.0, 0)]


def test_a_row_wider_than_a_block_is_read(tmp_path):
    names = [f"sensor-{k:0100d}" for k in range(11_000)]
    path = tmp_path / "day.csv"
    path.write_text(f"t,{','.join(names)}\n" + "0" + f",{'1.25':0<100}" * len(names) + "\n")
    adapter = parse(WIDE + "[time]\ncolumn = 't'\n")
    found = rows(history(path, knowing(*names), adapter))
    assert len(found) == len(names)
    assert found[-1] == (len(names) - 1, 0, 1.25, 0)


def test_a_key_that_appears_late_in_a_wide_ndjson_is_not_lost_in_silence(tmp_path):
    path = tmp_path / "day.ndjson"
    lines = ['{"t":1,"p":1}'] * 1001 + ['{"t":2,"p":1,"q":5}']
    path.write_text("\n".join(lines))
    adapter = parse(WIDE + "[time]\ncolumn = 't'\n")
    with pytest.raises(ReadingsError, match=r"day.ndjson: row 1002: q: a key that the first 1000"):
        rows(history(path, knowing("p", "q"), adapter))
    named = parse(WIDE + "[sensor]\ncolumns = { p = 'p' }\n[time]\ncolumn = 't'\n")
    assert len(rows(history(path, knowing("p", "q"), named))) == 1002


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "day.csv"
    path.write_text("sensor,ts,value,value\na,1,2,3\n")
    with pytest.raises(ReadingsError, match="two columns are called 'value'"):
        rows(history(path, knowing("a")))

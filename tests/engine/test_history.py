"""Reading histories: every kind of file gives the same log, in one order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import history as histories
from engine import tables
from engine.adapters import parse
from engine.errors import ReadingsError
from engine.files import discover
from engine.history import Span
from engine.sensor_ids import CATALOG_KEY
from kernels.layout import ACKNOWLEDGE, TICK, UNKNOWN
from tests.engine.histories import DIGEST, KINDS, history, knowing, log, long, rows, write

AB = knowing("a", "b")
ROWS = [("a", 1000, 1.5), ("b", 1000, -2.0), ("x", 1500, 3.0), ("a", 1400, 0.25)]
EXPECTED = [(0, 1000, 1.5, 0), (1, 1000, -2.0, 0), (UNKNOWN, 1500, 3.0, 0), (0, 1400, 0.25, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_readings_in_the_order_of_the_file(tmp_path, kind):
    of = history(write(tmp_path / f"day.{kind}", long(ROWS)), AB)
    assert rows(of) == EXPECTED
    assert of.share == 1.0
    assert of.tally.unknown_ids == {"x": 1}


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "ndjson"])
@pytest.mark.parametrize("column", ["ts", "time", "event_ms"])
def test_times_as_iso_text_or_timestamps_are_found_under_their_usual_names(tmp_path, kind, column):
    stamps = pa.array([1_700_000_000_123, None, 1_700_000_060_000], pa.timestamp("ms", "UTC"))
    table = pa.table({"sensor": ["a", "b", "b"], column: stamps, "value": [1.0, 2.0, None]})
    of = history(write(tmp_path / f"day.{kind}", table), AB)
    assert rows(of) == [(0, 1_700_000_000_123, 1.0, 0), (1, 1_700_000_060_000, None, 0)]
    assert of.tally.no_time == 1


def test_qualities_are_read_where_there_are_any(tmp_path):
    table = long(ROWS).append_column("quality", pa.array([0, 3, None, 255], pa.uint8()))
    of = history(write(tmp_path / "day.parquet", table), AB)
    assert [row[3] for row in rows(of)] == [0, 3, 0, 255]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_ids_may_be_whole_numbers(tmp_path, kind):
    table = pa.table({"sensor": [7, 8], "event_ms": [1, 2], "value": [0.5, 0.5]})
    of = history(write(tmp_path / f"day.{kind}", table), knowing("8", "7"))
    assert [row[0] for row in rows(of)] == [1, 0]


# --- dense indices -------------------------------------------------------------------------------


def dense(sensor, event_ms, value, digest=DIGEST, **metadata):
    names = {CATALOG_KEY: digest.encode(), **{k.encode(): v for k, v in metadata.items()}}
    table = pa.table(
        {
            "sensor": pa.array(sensor, pa.int32()),
            "event_ms": pa.array(event_ms, pa.int64()),
            "value": pa.array(value, pa.float32()),
        }
    )
    return table.replace_schema_metadata(names)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrows"])
def test_dense_indices_with_the_digest_are_taken_as_they_are(tmp_path, kind):
    table = dense([1, 0, 2, -3, None], [1, 2, 3, 4, 5], [0.0] * 5)
    of = history(write(tmp_path / f"day.{kind}", table), AB)
    assert [row[0] for row in rows(of)] == [1, 0, UNKNOWN, UNKNOWN, UNKNOWN]
    assert of.tally.unknown_readings == 3


def test_dense_indices_of_another_catalog_are_refused(tmp_path):
    path = write(tmp_path / "day.parquet", dense([1], [1], [0.0], digest="other"))
    with pytest.raises(ReadingsError, match=r"day.parquet: sensor: .*another catalog, 'other'"):
        rows(history(path, AB))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_dump_with_ticks_of_its_own_gets_no_others(tmp_path, kind):
    table = dense([0, TICK, 1, TICK], [900, 1000, 1500, 1700], [1.0, 0.0, 2.0, 0.0])
    of = history(write(tmp_path / f"log.{kind}", table), AB)
    assert of.has_ticks()
    assert log(of, ticked=True) == [
        (0, 900, 1.0, 0),
        (TICK, 1000, 0.0, 0),
        (1, 1500, 2.0, 0),
        (TICK, 1700, 0.0, 0),
    ]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_dump_of_readings_alone_gets_ticks(tmp_path, kind):
    of = history(write(tmp_path / f"log.{kind}", dense([0, -3], [900, 1000], [1.0, 0.0])), AB)
    assert not of.has_ticks()


@pytest.mark.parametrize(("said", "has"), [(b"yes", True), (b"no", False)])
def test_what_a_dump_says_about_its_ticks_is_believed(tmp_path, said, has):
    table = dense([0, 1], [900, 1000], [1.0, 0.0], **{"tocsin.ticks": said})
    assert history(write(tmp_path / "log.arrow", table), AB).has_ticks() is has


def test_an_acknowledge_of_no_source_is_unknown(tmp_path):
    table = dense([ACKNOWLEDGE] * 4, [1, 2, 3, 4], [1.0, 2.0, 0.5, float("nan")])
    of = history(write(tmp_path / "log.parquet", table), AB)
    assert [row[0] for row in rows(of)] == [ACKNOWLEDGE, UNKNOWN, UNKNOWN, UNKNOWN]


# --- several files -------------------------------------------------------------------------------


def test_files_are_merged_by_time_and_late_readings_stay_where_they_were(tmp_path):
    first = write(tmp_path / "a.parquet", long([("a", 10, 1), ("a", 40, 2), ("a", 20, 3)]))
    second = write(tmp_path / "b.csv", long([("b", 10, 4), ("b", 30, 5), ("b", 50, 6)]))
    assert [row[1:3] for row in rows(history([first, second], AB))] == [
        (10, 1.0),
        (10, 4.0),
        (30, 5.0),
        (40, 2.0),
        (20, 3.0),
        (50, 6.0),
    ]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abx"), st.integers(-2, 40)), min_size=1, max_size=20),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["parquet", "arrow", "csv"]),
    st.integers(1, 9),
    st.sampled_from([3, 1 << 40]),
)
def test_the_log_does_not_depend_on_batches_or_how_files_are_read(
    tmp_path_factory, files, kind, n, jump_ms
):
    folder = tmp_path_factory.mktemp("files")
    paths = [
        write(
            folder / f"{number}.{kind}",
            long([(name, ms, place) for place, (name, ms) in enumerate(file)]),
            **({"row_group_size": 4} if kind == "parquet" else {}),
        )
        for number, file in enumerate(files)
    ]
    whole = log(history(paths, AB, jump_ms=jump_ms), tick_ms=5)
    assert log(history(paths, AB, jump_ms=jump_ms), tick_ms=5, n=n) == whole
    few = pytest.MonkeyPatch()
    with few.context() as patch:
        patch.setattr("engine.merge._MIN_CHUNK_ROWS", 1)
        patch.setattr("engine.merge.BUDGET_ROWS", 6)
        patch.setattr("engine.merge.MAX_CHUNK_ROWS", 5)
        patch.setattr("engine.history.MAX_CHUNK_ROWS", 2)
        assert log(history(paths, AB, jump_ms=jump_ms), tick_ms=5, n=n) == whole


def test_one_wrong_clock_in_a_file_does_not_hold_back_the_rest_of_it(tmp_path):
    wrong = 60_000_000
    first = write(tmp_path / "a.csv", long([("a", 10, 1), ("a", wrong, 2), ("a", 30, 3)]))
    second = write(tmp_path / "b.csv", long([("b", 20, 4), ("b", 40, 5)]))
    found = rows(history([first, second], AB, jump_ms=1000))
    assert [row[2] for row in found] == [1.0, 2.0, 4.0, 3.0, 5.0]


def test_a_folder_is_read_in_order_of_name_with_its_hive_keys_as_columns(tmp_path):
    for district, day in (("x", "2"), ("x", "1"), ("y", "1")):
        folder = tmp_path / f"day={day}" / f"sensor={district}"
        folder.mkdir(parents=True, exist_ok=True)
        table = long([("ignored", int(day) * 1000, 1.0)]).drop_columns(["sensor"])
        write(folder / "part.parquet", table)
    (tmp_path / "README.md").write_text("no readings")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.csv").write_text("a,b\n")
    assert [str(f.path.relative_to(tmp_path)) for f in discover([tmp_path])] == [
        "day=1/sensor=x/part.parquet",
        "day=1/sensor=y/part.parquet",
        "day=2/sensor=x/part.parquet",
    ]
    of = history(tmp_path, knowing("y", "x"))
    assert [row[:2] for row in rows(of)] == [(1, 1000), (0, 1000), (1, 2000)]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_span_begins_with_its_first_time_and_ends_before_its_last(tmp_path, kind):
    table = long([("a", ms, ms) for ms in range(0, 100, 10)])
    options = {"row_group_size": 3} if kind == "parquet" else {}
    path = write(tmp_path / f"day.{kind}", table, **options)
    of = history(path, AB, span=Span(30, 60))
    assert [row[1] for row in rows(of)] == [30, 40, 50]
    assert [row[1] for row in rows(history([path, path], AB, span=Span(80)))] == [80, 80, 90, 90]


def test_row_groups_outside_the_span_are_not_read(tmp_path, monkeypatch):
    read = []
    batches = tables.ParquetTable.batches

    def watched(self, wants, n_rows, groups=None):
        read.append(groups)
        return batches(self, wants, n_rows, groups)

    monkeypatch.setattr(tables.ParquetTable, "batches", watched)
    table = long([("a", ms, ms) for ms in range(0, 100, 10)])
    path = write(tmp_path / "day.parquet", table, row_group_size=3)
    rows(history(path, AB, span=Span(30, 60)))
    assert read == [[1]]


def test_a_day_after_another_is_opened_when_the_first_is_read(tmp_path, monkeypatch):
    read = []
    batches = tables.ParquetTable.batches

    def watched(self, wants, n_rows, groups=None):
        read.append(self._file.path.name)
        yield from batches(self, wants, n_rows, groups)

    monkeypatch.setattr(tables.ParquetTable, "batches", watched)
    days = [
        write(tmp_path / f"{day}.parquet", long([("a", 1000 * day + k, k) for k in range(100)]))
        for day in (2, 1)
    ]
    chunks = history(days, AB).chunks()
    assert next(chunks).event_ms[0] == 1000
    assert read == ["1.parquet"]
    assert [chunk.event_ms[0] for chunk in chunks] == [2000]
    assert read == ["1.parquet", "2.parquet"]


# --- sorting -------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 50), max_size=30), min_size=1, max_size=3))
def test_sorting_is_stable_by_time_whatever_fits_into_memory(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("files")
    paths = [
        write(folder / f"{number}.ndjson", long([("a", ms, number * 100 + place)]))
        if len(times) == 1
        else write(
            folder / f"{number}.csv",
            long([("a", ms, number * 100 + k) for k, ms in enumerate(times)] or [("a", 0, -1)]),
        )
        for number, times in enumerate(files)
        for place, ms in [(0, times[0] if times else 0)]
    ]
    unsorted = [row for path in paths for row in rows(history(path, AB))]
    expected = sorted(unsorted, key=lambda row: row[1])
    assert rows(history(paths, AB, sort=True)) == expected
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(histories, "SORT_ROWS", 4)
        patch.setattr(histories, "MAX_CHUNK_ROWS", 3)
        assert rows(history(paths, AB, sort=True)) == expected


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_missing_file_is_named():
    with pytest.raises(ReadingsError, match=r"^nowhere/day.parquet: no such file or folder$"):
        discover(["nowhere/day.parquet"])


def test_a_folder_without_readings_is_named(tmp_path):
    with pytest.raises(ReadingsError, match=r"no readings in this folder \(known are .parquet"):
        discover([tmp_path])


@pytest.mark.parametrize("name", ["day.xlsx", "day", "day.parquet.gz"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(ReadingsError, match=name):
        discover([tmp_path / name])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("csv", "ndjson")])
@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_a_truncated_file_is_one_line_that_names_it(tmp_path, kind, kept):
    path = write(tmp_path / f"day.{kind}", long([("a", ms, ms) for ms in range(500)]))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ReadingsError) as caught:
        rows(history(path, AB))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{path}: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_a_byte_or_a_row_is_fine(tmp_path, kind):
    empty = tmp_path / f"empty.{kind}"
    empty.write_bytes(b"")
    no_rows = long([("a", 1, 1.0)]).slice(0, 0)
    header = write(tmp_path / f"header.{kind}", no_rows)
    other = write(tmp_path / f"other.{kind}", long([("a", 5, 1.0)]))
    assert rows(history(empty, AB)) == []
    assert rows(history(header, AB)) == []
    assert rows(history([empty, other, header], AB)) == [(0, 5, 1.0, 0)]
    assert log(history(empty, AB)) == []


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "ndjson"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path, kind):
    table = long(ROWS).rename_columns(["sensor", "event_ms", "valu"])
    path = write(tmp_path / f"day.{kind}", table)
    expected = r"no column 'value' \(?,? ?did you mean '?value?u?'?\?|no column 'value'"
    with pytest.raises(ReadingsError, match=expected) as caught:
        rows(history(path, AB))
    assert "'sensor', 'event_ms', 'valu'" in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_an_unreadable_time_is_named_with_its_row(tmp_path, kind):
    table = pa.table(
        {"sensor": ["a"] * 3, "ts": ["2024-05-01", "2024-05-02", "soon"], "value": [1.0] * 3}
    )
    path = write(tmp_path / f"day.{kind}", table)
    with pytest.raises(ReadingsError, match=rf"day.{kind}: row 3: ts: .*ISO 8601, got 'soon'"):
        rows(history(path, AB))


def test_a_value_that_is_no_number_is_named_with_its_line(tmp_path):
    path = tmp_path / "day.csv"
    path.write_text("sensor,ts,value\na,1,2.5\na,2,high\n")
    with pytest.raises(ReadingsError, match=r"day.csv: .*line 3: .*'high'"):
        rows(history(path, AB))
    path = tmp_path / "day.ndjson"
    path.write_text('{"sensor":"a","ts":1,"value":2}\n\n{"sensor":"a","ts":2,"value":"high"}\n')
    with pytest.raises(ReadingsError, match=r"day.ndjson: row 2: value: must be a number"):
        rows(history(path, AB))


def test_a_csv_row_of_another_length_is_named_with_its_line(tmp_path):
    path = tmp_path / "day.csv"
    path.write_text("sensor,ts,value\na,1,2.5\na,2\n")
    with pytest.raises(ReadingsError, match=r"day.csv: .*line 3: .*Expected 3 columns, got 2"):
        rows(history(path, AB))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "row 2: not JSON"),
        ("[1, 2]", "row 2: must be one JSON object a line, not an array"),
        ('{"sensor":"a","ts":[1],"value":1}', "row 2: ts: must be one value, got an array"),
    ],
)
def test_an_ndjson_line_that_is_no_reading_is_named_with_its_row(tmp_path, line, problem):
    path = tmp_path / "day.ndjson"
    path.write_text('{"sensor":"a","ts":1,"value":2}\n' + line + "\n")
    with pytest.raises(ReadingsError, match=problem):
        rows(history(path, AB))


def test_ndjson_times_may_be_of_both_kinds(tmp_path):
    path = tmp_path / "day.ndjson"
    lines = [
        '{"sensor":"a","ts":1714521600000,"value":1}',
        '{"sensor":"a","ts":"2024-05-01T08:00:00+08:00","value":2}',
    ]
    path.write_text("\n".join(lines))
    assert [row[1] for row in rows(history(path, AB))] == [1714521600000] * 2


def test_a_folder_of_mixed_files_with_one_of_another_schema_names_it_before_it_starts(tmp_path):
    write(tmp_path / "a.parquet", long(ROWS))
    write(tmp_path / "b.parquet", pa.table({"t": [1], "y": [2.0]}))
    with pytest.raises(ReadingsError, match=r"b.parquet: no column of the time"):
        next(history(tmp_path, AB).chunks())


def test_a_log_of_mutated_arrow_files_never_ends_the_process(tmp_path):
    table = long([("a", ms, ms) for ms in range(200)])
    path = write(tmp_path / "day.arrow", table)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(1000):
        broken = bytearray(content)
        for place in rng.integers(8, len(broken), rng.integers(1, 6)):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            found = rows(history(path, AB))
        except ReadingsError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert all(-3 <= row[0] < 2 for row in found)


ADAPTER = """
version = 1
shape = "wide"
[sensor]
template = "{file}.{column}"
except = ["label"]
[time]
column = "t"
zone = "+08:00"
"""


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_wide_tables_are_read_row_by_row_their_columns_in_the_order_of_the_file(tmp_path, kind):
    table = pa.table(
        {
            "p": [1.0, None],
            "t": ["2024-05-01 08:00:00", "2024-05-01 08:00:01"],
            "q": [2, 3],
            "label": [0, 1],
        }
    )
    catalog = knowing("pump.q", "pump.p")
    of = history(write(tmp_path / f"pump.{kind}", table), catalog, parse(ADAPTER))
    at = 1_714_521_600_000
    assert rows(of) == [(1, at, 1.0, 0), (0, at, 2.0, 0), (0, at + 1000, 3.0, 0)]

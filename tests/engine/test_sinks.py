"""Alert logs as files: whole under their name, or not there at all."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import OutputError, SnapshotError
from engine.sinks import STDOUT, NoSink, open_sink

RECORD = (
    b'{"alert_id":"a1","seq":0,"transition":"raise","level":"red","score":90.5,'
    b'"event_ms":1714521600000,"late":false,"source":"well-1","coupled_from":'
    b'{"source":"well-2","influence":12.5},"contributors":[{"sensor":"s","detector":"high",'
    b'"value":51.0,"limit":50.0,"signal":0.9}],"routes":["fire","desk"],"text":"red"}'
)
BARE = (
    b'{"alert_id":"a2","seq":1,"transition":"clear","level":"normal","score":0,"event_ms":5,'
    b'"late":true,"source":"well-1","coupled_from":null,"contributors":[],"text":"clear"}'
)
LINES = RECORD + b"\n" + BARE + b"\n"


def written(path: Path) -> Path:
    sink = open_sink(path)
    sink.begin()
    assert sink.name == f"{path}.partial"
    sink.write([RECORD])
    sink.write([])
    sink.write([BARE])
    assert not path.exists()
    sink.finish()
    sink.leave()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path


def test_lines_are_written_one_a_record(tmp_path):
    assert written(tmp_path / "alerts.jsonl").read_bytes() == LINES


def test_packed_lines_unpack_to_the_same_and_are_the_same_every_time(tmp_path):
    one = written(tmp_path / "alerts.jsonl.gz").read_bytes()
    assert gzip.decompress(one) == LINES
    (tmp_path / "again").mkdir()
    assert written(tmp_path / "again" / "alerts.jsonl.gz").read_bytes() == one


def test_zst_unpacks_to_the_same(tmp_path):
    path = written(tmp_path / "alerts.jsonl.zst")
    assert pa.input_stream(str(path), compression="zstd").read() == LINES


def test_a_table_has_the_plain_fields_the_leading_contributor_and_the_record(tmp_path):
    first, second = pq.read_table(written(tmp_path / "alerts.parquet")).to_pylist()
    assert first["record"].encode() == RECORD
    assert first["event_ms"].isoformat() == "2024-05-01T00:00:00+00:00"
    assert (first["sensor"], first["value"], first["coupled_from"]) == ("s", 51.0, "well-2")
    assert (first["routes"], second["routes"]) == (["fire", "desk"], None)
    assert (second["sensor"], second["coupled_from"], second["late"]) == (None, None, True)


def test_a_sink_that_is_left_keeps_what_was_written_under_its_other_name(tmp_path):
    for name in ("alerts.jsonl", "alerts.jsonl.gz", "alerts.parquet"):
        sink = open_sink(tmp_path / name)
        sink.begin()
        sink.write([RECORD])
        sink.leave()
    assert (tmp_path / "alerts.jsonl.partial").read_bytes() == RECORD + b"\n"
    assert gzip.decompress((tmp_path / "alerts.jsonl.gz.partial").read_bytes()) == RECORD + b"\n"
    assert pq.read_table(tmp_path / "alerts.parquet.partial").num_rows == 1


def test_a_log_is_continued_at_its_mark_whether_it_was_finished_or_not(tmp_path):
    path = tmp_path / "alerts.jsonl"
    for finished in (True, False):
        sink = open_sink(path)
        sink.begin()
        sink.write([RECORD])
        mark = sink.mark()
        sink.write([b"what came after the snapshot"])
        sink.finish() if finished else sink.leave()
        sink = open_sink(path, mark)
        sink.begin()
        sink.write([BARE])
        sink.finish()
        assert path.read_bytes() == LINES
        path.unlink()


def test_a_log_that_is_not_the_marked_one_is_refused_untouched(tmp_path):
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(LINES)
    with pytest.raises(SnapshotError, match="does not begin with the alert log"):
        open_sink(path, {"length": 10, "crc32": 1})
    assert path.read_bytes() == LINES


@pytest.mark.parametrize(
    "name", ["alerts", "alerts.csv", "alerts.parquet.gz", "alerts.gz", "alerts.jsonl.bz2"]
)
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"must end in .jsonl, .jsonl.gz, .jsonl.zst or .parq"):
        open_sink(tmp_path / name)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"alerts.jsonl: no such folder '.*nowhere'"):
        open_sink(tmp_path / "nowhere" / "alerts.jsonl")


def test_what_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "alerts.jsonl.partial").mkdir()
    sink = open_sink(tmp_path / "alerts.jsonl")
    with pytest.raises(OutputError, match=r"alerts.jsonl.partial: can't be written: Is a dir"):
        sink.begin()


def test_standard_output_gets_one_record_a_line(capfdbinary):
    sink = open_sink(STDOUT)
    sink.begin()
    sink.write([RECORD, BARE])
    sink.finish()
    assert capfdbinary.readouterr().out == LINES


def test_no_output_takes_everything():
    sink = open_sink(None)
    assert isinstance(sink, NoSink)
    sink.write([RECORD])
    assert sink.mark() == {}

"""What `tocsin report` writes, prints and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import typer

from engine.analysis.reports import cli as report_cli
from engine.errors import InputError, TocsinError
from tests.engine.replays import City, city, one_file


@pytest.fixture
def made(tmp_path: Path) -> City:
    """Return the files of the small city."""
    return city(tmp_path)


def run(of: City, folder: Path, **options: Any) -> int:
    """Report on the small city's history."""
    readings = [one_file(folder)]
    return report_cli.run(
        readings, of.catalog, of.rules, **{"output": folder / "out.html"} | options
    )


def test_a_report_is_written_and_said(
    made: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made, tmp_path) == 0
    said = capsys.readouterr()
    assert said.err == "" and str(tmp_path / "out.html") in said.out.replace("\n", "")
    assert "average of the busiest operator" in said.out and "missed" in said.out
    assert all(len(line) <= 100 for line in said.out.splitlines() if "out.html" not in line)
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")


def test_json_has_the_figures_and_the_truth(
    made: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("source,start,end,kind\nwell-1,2024-05-01T00:00:00,2024-05-01T00:02:00,leak\n")
    assert run(made, tmp_path, truth=truth, as_json=True, operators="all", episodes=3) == 0
    said = orjson.loads(capsys.readouterr().out)
    assert said["strips"] == 3 and said["bytes"] == (tmp_path / "out.html").stat().st_size
    assert said["figures"]["by"] == "all" and said["figures"]["alarms"] > 10
    assert list(said["truth"]) == ["blue", "yellow", "orange", "red"]
    assert said["truth"]["blue"]["incidents"] == 1


def test_no_strip_is_drawn_where_none_is_asked_for(made: City, tmp_path: Path) -> None:
    assert run(made, tmp_path, episodes=0) == 0
    page = (tmp_path / "out.html").read_text()
    assert "No strip was asked for." in page and "data-strip=" not in page.split("<script>")[2]


def test_a_time_is_reported_alone(
    made: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"since": "2024-05-01T00:01:00", "until": "2024-05-01T00:02:00", "as_json": True}
    assert run(made, tmp_path, **options) == 0
    said = orjson.loads(capsys.readouterr().out)
    assert said["figures"]["until_ms"] - said["figures"]["since_ms"] == 60_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operators": "shift"}, "must be one of department, owner"),
        ({"episodes": 1000}, "0 to 200"),
        ({"lead_s": -1.0}, "at least 0"),
        ({"grace_s": float("nan")}, "at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    made: City, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(typer.BadParameter, match=words):
        run(made, tmp_path, **options)
    assert not (tmp_path / "out.html").exists()


def test_a_place_that_can_not_be_written_is_refused_before_anything_is_read(
    made: City, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        run(made, tmp_path, output=tmp_path / "nowhere" / "out.html")
    with pytest.raises(InputError, match="is a folder"):
        run(made, tmp_path, output=tmp_path)


def test_a_faulty_truth_is_refused_row_by_row(made: City, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("source,start,end,kind\nwell-1,yesterday,today,leak\n")
    with pytest.raises(TocsinError) as refused:
        run(made, tmp_path, truth=truth)
    assert "row 1" in "\n".join(refused.value.lines())

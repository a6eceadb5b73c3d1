"""Reports of studies without a browser: what they read, pack, say and refuse."""

from __future__ import annotations

import math
import re
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.reports import cli as report_cli
from engine.analysis.reports import study_report_of
from engine.analysis.reports.study_read import read_study
from engine.analysis.reports.study_values import DIGITS, _packed, fitting
from engine.analysis.tuning.study import Study
from engine.cli import main
from engine.errors import InputError
from tests.analysis.reported import HOSTILE
from tests.analysis.studied import hostile, many, studied


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the small city's study."""
    return studied(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def folder(study: Study) -> Path:
    """Return its folder."""
    assert study.folder is not None
    return study.folder


def values_of(html: bytes) -> dict[str, Any]:
    """Return what the page's scripts draw from."""
    found = re.search(rb'id="values">(.*?)</script>', html, re.S)
    assert found
    values: dict[str, Any] = orjson.loads(found[1])["study"]
    return values


def index_of(packed: dict[str, Any], n: int) -> list[int]:
    """Unpack small numbers, a byte at a time."""
    width, raw = packed["bytes"], b64decode(packed["text"])
    assert len(raw) == width * n
    return [sum(raw[row * width + byte] << (8 * byte) for byte in range(width)) for row in range(n)]


def column_of(packed: dict[str, Any], n: int) -> list[float | None]:
    """Unpack a column."""
    if "float32" in packed:
        plain = np.frombuffer(b64decode(packed["float32"]), "<f4").tolist()
        return [None if value != value else float(f"{value:.{DIGITS}g}") for value in plain]
    return [packed["values"][at] for at in index_of(packed["at"], n)]


numbers = st.floats(-1e9, 1e9) | st.just(math.nan) | st.integers(-5, 5).map(float)


@settings(max_examples=200, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=400), st.booleans())
def test_a_packed_column_is_read_again_to_six_digits(column: list[float], exact: bool) -> None:
    packed = _packed(np.array(column), exact=exact)
    for value, again in zip(column, column_of(packed, len(column)), strict=True):
        if math.isnan(value):
            assert again is None
        elif exact:
            assert again == value
        else:
            assert again is not None and again == pytest.approx(value, rel=5.01e-6, abs=1e-300)


def test_a_column_of_many_values_takes_as_many_bytes_as_it_needs() -> None:
    assert _packed(np.zeros(9))["at"] == {"bytes": 0, "text": ""}
    for n, width in ((2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)):
        packed = _packed(np.arange(n) * 1e7 // 3, exact=True)
        assert packed["at"]["bytes"] == width
        assert column_of(packed, n)[-1] == (n - 1) * 1e7 // 3


def test_the_page_holds_every_setting_of_the_study(study: Study, folder: Path) -> None:
    of = values_of(study_report_of(folder).html)
    table = study.table()
    n = len(study.trials)
    assert of["n"] == of["of"] == n and of["given"] == 0
    assert [each["name"] for each in of["parameters"]] == study.settings.titles
    for each in of["parameters"]:
        assert column_of(each, n) == table[each["name"]].to_pylist()
    for each in of["figures"]:
        for had, read in zip(table[each["name"]].to_pylist(), column_of(each, n), strict=True):
            assert had is None if read is None else had == pytest.approx(read, rel=1e-5)
    assert len(of["figures"]) == len(study.trials.numeric())


def test_marks_are_those_of_the_study(study: Study, folder: Path) -> None:
    told = read_study(folder)
    marks = study.standing.marks()
    assert told.front.tolist() == marks["front"].tolist()
    assert told.able.tolist() == marks["feasible"].tolist()
    assert told.n_front == len(list(study.standing.front_rows()))
    assert study.chosen is not None and told.best == told.chosen == study.chosen.setting
    assert [row for row in told.order if told.refused[row]] == told.order[-6:]
    of = values_of(study_report_of(folder).html)
    assert index_of(of["front"], of["n"]) == [int(each) for each in marks["front"]]
    assert of["best"] == told.best and of["mark"] == "chosen"


def test_the_page_says_what_was_asked_and_what_came_out(study: Study, folder: Path) -> None:
    html = study_report_of(folder).html.decode()
    body = html[html.index("<main") : html.index("</main>")]
    assert study.chosen is not None and study.chosen.changes
    asked = read_study(folder).asked
    for words in (
        "Two wells and a factory", asked.catalog[:12], asked.rules[:12], asked.space[:12],
        "4 incidents", "min alarms, then min missed_blue", "false_blue ≤ 20: ", "6 refused",
        "must ascend", study.chosen.rules.digest,
    ):  # fmt: skip
        assert words in body, words
    for change in study.chosen.changes:
        assert f"{change.new:.15g}</b>" in body and change.why.split(";")[-1].strip()[:20] in body
    old, new = study.figures(0)["alarms"], study.figures(study.chosen.setting)["alarms"]
    sign = "+" if new > old else "−"
    assert f"given {old}" in body and f"{sign}{abs(new - old)} (" in body


def test_the_same_folder_gives_the_same_bytes(folder: Path) -> None:
    assert study_report_of(folder).html == study_report_of(folder).html


def test_without_a_truth_nothing_is_told_of_incidents(tmp_path: Path) -> None:
    studied(tmp_path, truth=False)
    report = study_report_of(tmp_path / "study")
    html = report.html.decode()
    assert 'id="truth"' not in html and "nobody knows what these settings would miss" in html
    assert not values_of(report.html)["truth"]


def test_where_no_setting_keeps_to_what_is_required_the_nearest_is_told(tmp_path: Path) -> None:
    made = studied(tmp_path, requirements=["alarms <= 0"])
    report = study_report_of(tmp_path / "study")
    assert made.chosen is None and report.told.chosen is None
    assert report.told.best == made.standing.nearest
    text = report.html.decode()
    assert "No setting keeps to what is required." in text and "misses alarms ≤ 0" in text
    assert "No rules were chosen" in text and 'id="save-rules"' not in text


def test_an_interrupted_study_says_so(tmp_path: Path) -> None:
    tries = iter(range(1000))
    made = studied(tmp_path, stopped=lambda: next(tries) > 3)
    if not len(made.trials):
        with pytest.raises(InputError, match="at work, or was killed"):
            study_report_of(tmp_path / "study")
        return
    assert made.interrupted
    assert "was interrupted" in study_report_of(tmp_path / "study").html.decode()


@pytest.mark.parametrize("n", [1_000, 10_000])
def test_a_report_of_many_settings_is_small_and_soon_made(
    study: Study, tmp_path: Path, n: int
) -> None:
    path = many(study, tmp_path / "many", n)
    began = time.monotonic()
    report = study_report_of(path)
    took = time.monotonic() - began
    assert report.n_shown == n
    assert len(report.html) <= 5_000_000
    assert took <= 5, f"{took:.1f} s"


def test_of_more_settings_than_fit_the_front_the_best_and_a_sample_are_shown(
    study: Study, tmp_path: Path
) -> None:
    told = read_study(many(study, tmp_path / "many", 2_000))
    made = fitting(told, 300_000)["study"]
    n = made["n"]
    assert 100 < n < 2_000 and made["of"] == 2_000
    shown = column_of(made["setting"], n)
    assert {0, told.best, *np.flatnonzero(told.front).tolist()} <= set(shown)
    assert shown[made["best"]] == told.best and shown[made["given"]] == 0
    others = [row for row in told.order if row not in set(shown)]
    assert set(told.order[: n // 4]) <= set(shown), "the best are there"
    assert max(map(told.order.index, map(int, filter(None, shown)))) > told.order.index(others[0])


def test_hostile_names_are_text(tmp_path: Path) -> None:
    hostile(tmp_path)
    html = study_report_of(tmp_path / "study", title=HOSTILE).html.decode()
    assert "<img" not in html and html.count("</script>") == html.count("<script")
    assert "&lt;/script&gt;&lt;img" in html


def test_folders_that_hold_no_study_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no study"):
        study_report_of(tmp_path)
    said = orjson.loads((folder / "study.json").read_bytes())
    table = pq.read_table(folder / "settings.parquet")

    def written(name: str, change: dict[str, Any], of: Any = table) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "study.json").write_bytes(orjson.dumps(said | change))
        pq.write_table(of, path / "settings.parquet")
        return path

    for name, change, words in (
        ("figure", {"objectives": ["min nothing"]}, "not those of one study"),
        ("type", {"refused": 5}, "not those of one study"),
        ("row", {"chosen": said["chosen"] | {"setting": 999}}, "not those of one study"),
        ("solved", {"solve": {}}, "was solved for a goal"),
        ("version", {"format": 99}, "no study of this version"),
    ):
        with pytest.raises(InputError, match=words):
            study_report_of(written(name, change))
    with pytest.raises(InputError, match="not those of one study"):
        study_report_of(written("columns", {}, table.drop_columns(["digest"])))
    running = tmp_path / "running"
    running.mkdir()
    (running / "study.json").write_bytes(
        orjson.dumps({"format": 1, "asked": said["asked"], "state": "running"})
    )
    with pytest.raises(InputError, match="at work, or was killed"):
        study_report_of(running)


def test_the_command_takes_a_study_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.html"
    assert report_cli.run([folder], output=output) == 0
    said = capsys.readouterr()
    assert said.err == "" and "missed_blue" in said.out and "chosen" in said.out
    assert all(len(line) <= 80 for line in said.out.splitlines() if "out.html" not in line)
    assert output.read_text().startswith("<!doctype html>")
    assert report_cli.run([folder], output=output, as_json=True, title="July") == 0
    told = orjson.loads(capsys.readouterr().out)
    assert told["bytes"] == output.stat().st_size and told["settings"] >= 24
    assert told["figures"]["alarms"].keys() == {"given", "chosen"}
    assert "<h1>July</h1>" in output.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rules": Path("rules.toml")}, "--rules: .* holds a study"),
        ({"truth": Path("t.csv"), "since": "2024-05-01"}, "--truth, --from: .* holds a study"),
    ],
)
def test_options_that_a_study_does_not_take_are_refused(
    folder: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(typer.BadParameter, match=words):
        report_cli.run([folder], output=tmp_path / "out.html", **options)


def test_a_history_needs_a_catalog_and_rules(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.BadParameter, match=r"--rules: needed .* holds no study"):
        report_cli.run([tmp_path], catalog=tmp_path / "c", output=tmp_path / "out.html")
    with pytest.raises(typer.BadParameter, match="is of that one folder"):
        report_cli.run([folder, tmp_path], output=tmp_path / "out.html")
    with pytest.raises(SystemExit) as left:
        main(["report", str(tmp_path), "-o", str(tmp_path / "out.html")])
    assert left.value.code == 2
    assert "--catalog and --rules" in " ".join(capsys.readouterr().err.split())

"""`tocsin diff` on a terminal, as JSON, as a page, and in CI."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import typer

from engine.analysis.diffs import cli as diff_cli
from engine.errors import InputError, OutputError, RulesError
from tests.engine.replays import BEGIN_MS, RULES, city, one_file


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    of = city(tmp_path)
    other = tmp_path / "new.toml"
    other.write_text(RULES.replace("red = 50", "red = 70").replace("red = 60", "red = 90"))
    return {
        "catalog": of.catalog,
        "old": of.rules,
        "new": other,
        "readings": one_file(tmp_path, n=2000),
        "truth": truth(tmp_path, BEGIN_MS),
    }


def truth(folder: Path, start_ms: int) -> Path:
    path = folder / "truth.csv"
    path.write_text(f"source,start,end,kind\nwell-1,{start_ms},{start_ms + 60_000},leak\n")
    return path


def run(files: dict[str, Path], **given: object) -> int:
    same = bool(given.pop("same", False))
    new = files["old"] if same else files["new"]
    return diff_cli.run(files["old"], new, [files["readings"]], files["catalog"], **given)  # type: ignore[arg-type]


def test_without_a_condition_the_exit_code_is_fine(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files) == 0
    out = capsys.readouterr().out
    assert "profiles.methane.limits.high.red" in out and "peak lower" in out
    assert "tocsin explain" in out


def test_a_condition_that_is_met_fails_and_says_why(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files, fail_on=["missed", "lower,any"]) == 1
    err = capsys.readouterr().err
    assert "failed: lower: " in err and "failed: any: " in err and "failed: missed" not in err
    assert run(files, same=True, fail_on=["any"]) == 0
    assert "the same" in capsys.readouterr().out


def test_json_has_everything_and_what_failed(
    files: dict[str, Path], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(files, as_json=True, fail_on=["higher"]) == 0
    values = orjson.loads(capsysbinary.readouterr().out)
    assert values["failed"] == [] and values["differing"] and values["truth"] is None
    assert values["rules"][0] == {
        "key": "profiles.methane.limits.high.red", "old": "50", "new": "70",
    }  # fmt: skip


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal(
    files: dict[str, Path],
    width: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run(files, truth=files["truth"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width


def test_the_page_stands_alone_and_escapes_names(files: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "out" / "diff.html"
    rules = files["new"].read_text().replace("Two wells", "<b>Two</b> wells")
    files["new"].write_text(rules)
    run(files, html=page, truth=files["truth"], fail_on=["any"])
    text = page.read_text()
    assert "<svg" in text and "prefers-color-scheme:dark" in text and "@media print" in text
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert "any: " in text and "&lt;b&gt;Two&lt;/b&gt;" in text and "<b>Two" not in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fail_on": ["lost"]}, "lost: needs --truth"),
        ({"fail_on": ["nonsense"]}, "no such condition"),
        ({"level": "purple"}, "--level: must be one of blue, yellow, orange, red"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_judged(
    files: dict[str, Path], given: dict[str, object], words: str
) -> None:
    with pytest.raises(typer.BadParameter, match=words):
        run(files, **given)


def test_bad_input_is_an_error_that_names_it(files: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("version = 2\n")
    with pytest.raises(RulesError, match="version"):
        run(files | {"new": broken})
    with pytest.raises(InputError, match="nowhere"):
        run(files | {"readings": tmp_path / "nowhere.parquet"})
    with pytest.raises(OutputError, match="can't be written"):
        run(files, html=files["catalog"] / "x.html")


def test_a_truth_of_strangers_is_noted(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = truth(tmp_path, BEGIN_MS)
    path.write_text(path.read_text().replace("well-1", "well-77"))
    run(files, truth=path)
    assert "1 source of the truth is not in the catalog: well-77" in capsys.readouterr().err
    run(files, truth=truth(tmp_path, 5))
    assert "no incident of the truth lies within this history" in capsys.readouterr().err

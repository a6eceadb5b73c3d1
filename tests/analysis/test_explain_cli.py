"""`tocsin explain` on a terminal, as JSON and as a page."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import typer

from engine.analysis.explaining import cli as explain_cli
from engine.analysis.past import Past, judge
from engine.errors import InputError
from engine.rules import Rules
from tests.engine.replays import RULES, city, one_file


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    of = city(tmp_path)
    return {"catalog": of.catalog, "rules": of.rules, "readings": one_file(tmp_path, n=1500)}


def alerts(files: dict[str, Path]) -> list[str]:
    past = Past.open(files["catalog"], files["readings"])
    found = judge(past, Rules.parse(RULES)).alerts
    return [f"{each['alert_id']}#{each['seq']}" for each in found]


def run(files: dict[str, Path], alert: str, **given: object) -> int:
    return explain_cli.run(alert, [files["readings"]], files["catalog"], files["rules"], **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 100])
def test_a_terminal_shows_every_part_within_its_width(
    files: dict[str, Path],
    width: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for alert in alerts(files)[:6]:
        assert run(files, alert) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= width
        parts = ("What happened", "How it added up", "What level", "What would have prevented it")
        for part in parts:
            assert part in out


def test_json_has_the_story_the_sums_and_the_changes(
    files: dict[str, Path], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    alert = alerts(files)[0]
    assert run(files, alert, as_json=True) == 0
    values = orjson.loads(capsysbinary.readouterr().out)
    assert f"{values['alert']['alert_id']}#{values['alert']['seq']}" == alert
    assert values["story"] and values["levels"]["set_by"] in ("score", "limit", "rule")
    assert values["prevented_by"][0]["judged"] > 0


def test_nothing_is_tried_where_that_is_not_wanted(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run(files, alerts(files)[0], prevent=False)
    assert "prevented" not in capsys.readouterr().out


def test_the_page_stands_alone(files: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "explain.html"
    run(files, alerts(files)[0], html=page)
    text = page.read_text()
    assert "<svg" in text and "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "What would have prevented it" in text


def test_wrong_ids_and_levels_are_told_before_anything_is_read(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="not an alert id"):
        explain_cli.run("well", [nowhere], nowhere, nowhere)
    with pytest.raises(typer.BadParameter, match="--level"):
        explain_cli.run("well@1", [nowhere], nowhere, nowhere, level="purple")

"""`tocsin tune` from the terminal: what it prints, its exit codes, its JSON."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.analysis.tuning import cli as tune_cli
from engine.analysis.tuning.trying import Trying
from engine.errors import InputError, SettingsError
from tests.analysis.studies import SPACE, Given, given, write_truth


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return given(tmp_path_factory.mktemp("city"))


class Tuned:
    """What a run printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def tune(
    made: Given, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "space.toml").write_text(SPACE)
    write_truth(tmp_path / "truth.csv")

    def run(**options: Any) -> Tuned:
        options.setdefault("output", tmp_path / "study")
        options.setdefault("truth", tmp_path / "truth.csv")
        if not options.get("solve"):
            options.setdefault("space", tmp_path / "space.toml")
        capfd.readouterr()
        code = tune_cli.run([made.readings], made.files.catalog, made.files.rules, **options)
        return Tuned(code, *capfd.readouterr())

    return run


@pytest.mark.parametrize("columns", ["80", "100"])
def test_the_table_shows_given_chosen_and_front_and_fits(
    tune: Any, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = tune(objectives=["min alarms", "min missed_yellow"])
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= int(columns)
    text = " ".join(done.out.split())
    assert "19 tried by grid search" in text or "tried by grid search" in text
    assert "6 by the rules" in text and "must ascend" in text
    assert "given" in text and "chosen" in text and "front" in text
    assert "objectives min alarms, then min missed_yellow" in text


def test_a_second_run_says_that_nothing_was_tried_anew(tune: Any) -> None:
    tune()
    assert "none of them anew" in tune().out


def test_json_says_all_that_the_table_does(tune: Any, tmp_path: Path) -> None:
    done = tune(objectives=["min alarms"], requirements=["missed_yellow <= 0"], as_json=True)
    found = json.loads(done.out)
    kept = json.loads((tmp_path / "study/study.json").read_text())
    assert done.code == 0 and found["chosen"] == kept["chosen"]
    assert found["objectives"] == ["min alarms"] and found["refused"][0]["settings"] == 6
    assert found["chosen"]["figures"]["missed_yellow"] == 0


def test_what_is_required_and_can_t_be_had_has_an_exit_code_of_its_own(tune: Any) -> None:
    done = tune(requirements=["alarms <= 1"])
    assert done.code == tune_cli.NOT_MET
    text = " ".join(done.out.split())
    assert "none: the nearest is setting" in text and "alarms ≤ 1 is not met, it has" in text


@pytest.mark.parametrize(
    "options",
    [
        {"space": None},
        {"solve": True, "space": Path("space.toml")},
        {"solve": True, "objectives": ["min alarms"]},
        {"choose": "best"},
        {"search": "gird"},
        {"level": "violet"},
        {"level": "red", "truth": None},
        {"by": "street"},
        {"solve": True, "per": "city"},
        {"solve": True, "turn": ["bolts"]},
        {"solve": True, "max_rate": -1.0},
        {"lead_s": -1.0},
        {"seed": -1},
    ],
)
def test_options_that_say_nothing_together_are_wrong_usage(
    tune: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(typer.BadParameter):
        tune(**options)


def test_wrong_input_is_told_before_anything_is_tried(tune: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="must read"):
        tune(objectives=["alarms"])
    with pytest.raises(SettingsError, match=r"did you mean missed_yellow\?"):
        tune(objectives=["min missed_yelow"])
    with pytest.raises(InputError, match="can't be read"):
        tune(truth=tmp_path / "none.csv")


def test_an_interrupted_run_ends_with_130_and_goes_on(
    tune: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("engine.analysis.tuning.trying._FIRST_N", 4)
    chunk = Trying._chunk

    def and_interrupt(self: Trying, *arguments: Any) -> None:
        chunk(self, *arguments)
        if len(self.trials) > 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trying, "_chunk", and_interrupt)
    done = tune()
    assert done.code == 130 and "run it again with the same command to go on" in done.out
    monkeypatch.setattr(Trying, "_chunk", chunk)
    assert tune().code == 0
    assert json.loads((tmp_path / "study/study.json").read_text())["state"] == "complete"


def test_solving_prints_what_was_asked_and_whether_it_is_met(tune: Any, tmp_path: Path) -> None:
    done = tune(solve=True, max_rate=15.0, max_delay_s=40.0)
    text = " ".join(done.out.split())
    assert done.code == 0 and "met yes, by" in text
    assert "at most 15 alarms an operator in 10 min, no incident found later than 40 s" in text
    assert max(map(len, done.out.splitlines())) <= 100
    failed = tune(solve=True, max_rate=1.0, max_delay_s=0.5, output=tmp_path / "other")
    text = " ".join(failed.out.split())
    assert failed.code == tune_cli.NOT_MET and "met NO; nearest are" in text
    assert "still has" in text and "the soonest of any setting is" in text


def test_solving_per_sensor_names_the_sensors(tune: Any, tmp_path: Path) -> None:
    done = tune(solve=True, per="sensor", max_rate=15.0, as_json=True)
    found = json.loads(done.out)
    assert found["own_limits"] and found["offenders"] >= len(found["own_limits"])
    again = tune(solve=True, per="sensor", max_rate=15.0)
    assert "that alarmed for nothing, or again, got own limits or delays" in " ".join(
        again.out.split()
    )
    assert (tmp_path / "study/own_limits.csv").exists()
    kept = json.loads((tmp_path / "study/study.json").read_text())
    assert kept["own_limits"] == found["own_limits"] and kept["state"] == "complete"
    assert max(map(len, again.out.splitlines())) <= 100


def test_without_a_truth_it_is_said_that_nobody_knows_what_is_missed(tune: Any) -> None:
    assert "nobody knows what these rules would miss" in tune(truth=None).err

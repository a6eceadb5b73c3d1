"""Studies: figures of the engine itself, resumed to the same end, rules with reasons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.analysis.past import judge
from engine.analysis.sweep import Sweep
from engine.analysis.tuning.folder import Folder
from engine.analysis.tuning.solve import tried_of
from engine.analysis.tuning.study import Study, tune
from engine.analysis.tuning.trying import Progress
from engine.errors import InputError, OutputError, SettingsError
from engine.rules import Rules
from tests.analysis.studies import ROOMY, Given, given

KEPT = ("settings.parquet", "front.parquet", "rules.toml", "study.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return given(tmp_path_factory.mktemp("city"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the digests of all rules that a sweep was asked to try, in order."""
    digests: list[str] = []
    tried = Sweep.try_all

    def counting(self: Sweep, settings: Sequence[Rules], **options: Any) -> Any:
        done = tried(self, settings, **options)
        digests.extend(rules.digest for rules in settings)
        return done

    monkeypatch.setattr(Sweep, "try_all", counting)
    monkeypatch.setattr("engine.analysis.tuning.trying._FIRST_N", 5)
    monkeypatch.setattr("engine.analysis.tuning.trying._MOST_N", 5)
    yield digests


def run(made: Given, folder: Path | None = None, text: str | None = None, **options: Any) -> Study:
    space = made.space() if text is None else made.space(text)
    options.setdefault("measure", made.measure)
    return tune(made.past, options.pop("rules", made.rules), space, folder=folder, **options)


def end(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in KEPT}


# --- figures --------------------------------------------------------------------------------------


def test_every_setting_has_the_figures_of_a_replay_under_its_rules(made: Given) -> None:
    study = run(made)
    rows = study.table().to_pylist()
    assert [row["setting"] for row in rows] == list(range(len(rows)))
    seen = 0
    for row, values in zip(rows, study.trials.values, strict=True):
        if row["refused"] is not None:
            continue
        rules = study.settings.rules_of(values)
        assert rules.digest == row["digest"]
        alone = made.measure(tried_of(judge(made.past, rules))).to_pylist()[0]
        assert {name: row[name] for name in alone} == alone
        seen += 1
    assert seen >= 19


def test_the_given_rules_are_setting_0_whatever_the_space(made: Given) -> None:
    row = run(made).table().to_pylist()[0]
    assert row["origin"] == "baseline" and row["digest"] == made.rules.digest
    assert row["profiles.methane.limits.high.blue"] == 10
    assert row["fusion.half_life_s"] == 5
    assert row["off"] is None  # two profiles have different ones


def test_settings_that_the_rules_refuse_are_kept_with_the_reason(made: Given) -> None:
    study = run(made)
    refused = [row for row in study.table().to_pylist() if row["refused"]]
    assert len(refused) == 6
    assert all(row["profiles.methane.limits.high.blue"] == 22 for row in refused)
    assert all(row["alarms"] is None and not row["feasible"] for row in refused)
    ((key, n, reason),) = study.trials.reasons()
    assert (key, n) == ("profiles.methane.limits.high.yellow", 6)
    assert reason.endswith("must ascend, above blue = 22, got 20.0")


def test_a_space_of_which_the_rules_refuse_all_is_refused(made: Given) -> None:
    text = 'version = 1\n[[vary]]\nkey = "profiles.methane.limits.high.blue"\nvalues = [25, 60]'
    with pytest.raises(SettingsError, match=r"refuse every setting of the space: profiles\.meth"):
        run(made, text=text)


def test_a_parameter_may_not_be_called_like_a_figure(made: Given) -> None:
    text = 'version = 1\n[[vary]]\nname = "alarms"\nkey = "levels.hold_s"\nvalues = [25, 60]'
    with pytest.raises(SettingsError, match="'alarms' is the name of a column already"):
        run(made, text=text)


def test_keys_that_the_catalog_does_not_feel_are_noted(made: Given) -> None:
    text = 'version = 1\n[[vary]]\nkey = "coupling.influence.piep"\nvalues = [0.1, 0.2]'
    assert run(made, text=text).notes == [
        "coupling.influence.piep moves nothing: the catalog has no kind of coupling 'piep'"
    ]


# --- the choice -----------------------------------------------------------------------------------


def test_the_chosen_setting_is_the_first_by_the_objectives_in_their_order(made: Given) -> None:
    study = run(made, objectives=["min missed_yellow", "min alarms", "min false_blue"])
    rows = [row for row in study.table().to_pylist() if row["refused"] is None]
    best = min(rows, key=lambda r: (r["missed_yellow"], r["alarms"], r["false_blue"]))
    chosen = study.chosen
    assert chosen is not None
    for name in ("missed_yellow", "alarms", "false_blue"):
        assert chosen.figures[name] == best[name]
    assert [row["setting"] for row in rows if row["chosen"]] == [chosen.setting]
    assert rows[[row["setting"] for row in rows].index(chosen.setting)]["front"]


def test_a_requirement_outweighs_every_objective(made: Given) -> None:
    free = run(made, objectives=["min alarms"])
    assert free.chosen is not None
    fewest = free.chosen.figures["alarms"]
    bound = run(made, objectives=["min alarms"], requirements=[f"alarms > {fewest}"])
    assert bound.chosen is not None
    feasible = [r["alarms"] for r in bound.table().to_pylist() if r["feasible"]]
    assert bound.chosen.figures["alarms"] == min(feasible) > fewest


def test_where_no_setting_keeps_to_a_requirement_none_is_chosen(
    made: Given, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    assert run(made, folder).chosen is not None and (folder / "rules.toml").exists()
    study = run(made, folder, requirements=["alarms <= 1"])
    assert study.chosen is None and study.standing.best is None
    # rules that were chosen before by another aim are not left to be taken for these
    assert not (folder / "rules.toml").exists()
    fewest = min(r["alarms"] for r in study.table().to_pylist() if r["refused"] is None)
    assert study.figures(study.standing.nearest)["alarms"] == fewest


def test_no_change_is_kept_that_buys_nothing(made: Given) -> None:
    text = """version = 1
[[vary]]
key = "profiles.temperature.liveness.bad_after_n"
values = [7, 8]
[[vary]]
key = "levels.hold_s"
values = [120, 200]
"""
    study = run(made, text=text, objectives=["min alarms"])
    chosen = study.chosen
    assert chosen is not None
    assert [move.title for move in chosen.moves] == ["levels.hold_s"]
    assert "reverted" in study.table()["origin"].to_pylist()


def test_of_settings_that_do_alike_the_rounder_numbers_are_chosen(made: Given) -> None:
    text = 'version = 1\n[[vary]]\nkey = "levels.hold_s"\nlow = 100\nhigh = 300'
    study = run(made, text=text, method="random", n=8, objectives=["min alarms"])
    chosen = study.chosen
    assert chosen is not None and chosen.setting
    (hold_s,) = chosen.values
    rounder = {float(f"{hold_s:.{n}g}") for n in (1, 2, 3)} - {hold_s}
    for value in rounder:
        row = study.trials.row_of((value,))
        if row is not None:
            assert study.figures(row)["alarms"] > chosen.figures["alarms"]
    drawn = [
        v[0] for v, o in zip(study.trials.values, study.trials.origin, strict=True) if o == "random"
    ]
    assert len(f"{hold_s:g}".strip("0.")) <= min(len(f"{v:g}".strip("0.")) for v in drawn)


def test_what_a_change_buys_is_what_the_setting_without_it_gives(made: Given) -> None:
    study = run(made, objectives=["min alarms", "min episodes"])
    chosen = study.chosen
    assert chosen is not None and chosen.moves
    for number, move in zip(study.settings.changed(chosen.values), chosen.moves, strict=True):
        without = list(chosen.values)
        without[number] = study.settings.parameters[number].baseline
        row = study.trials.row_of(tuple(without))
        assert row is not None
        there, here = study.figures(row)["alarms"], chosen.figures["alarms"]
        assert f"alarms {there} → {here}" in move.why or there == here


def test_the_chosen_file_says_what_changed_and_means_what_was_tried(
    made: Given, tmp_path: Path
) -> None:
    study = run(made, tmp_path / "s", objectives=["min alarms"])
    text = (tmp_path / "s/rules.toml").read_text()
    chosen = study.chosen
    assert chosen is not None
    assert Rules.parse(text).digest == study.table().to_pylist()[chosen.setting]["digest"]
    assert text.startswith("# Chosen by tocsin tune, setting")
    assert "# tuned: " in text and "buys alarms" in text


def test_without_a_truth_the_targets_of_alarm_management_decide(made: Given) -> None:
    from engine.analysis.tuning.measure import Yardstick

    study = run(made, measure=Yardstick(catalog=made.past.catalog))
    rows = [r for r in study.table().to_pylist() if r["refused"] is None]
    assert [str(each) for each in study.aim.objectives] == ["min targets_missed"]
    assert "missed_yellow" not in rows[0]
    chosen = study.chosen
    assert chosen is not None
    fewest = min(row["targets_missed"] for row in rows)
    assert chosen.figures["targets_missed"] == fewest
    if rows[0]["targets_missed"] == fewest:
        assert chosen.setting == 0


def test_the_balanced_choice_lies_between_the_ends(made: Given) -> None:
    study = run(made, objectives=["min alarms", "min false_blue"], balance=True)
    assert study.chosen is not None
    assert study.table().to_pylist()[study.chosen.setting]["front"]


# --- going on -------------------------------------------------------------------------------------

SEARCHES: list[dict[str, Any]] = [
    {},
    {"text": ROOMY, "method": "random", "n": 21, "seed": 2},
    {"text": ROOMY, "method": "adaptive", "n": 37, "seed": 2},
]


def killer(after: int, how: type[BaseException]) -> Callable[[Progress], None]:
    asked = 0

    def kill(progress: Progress) -> None:
        nonlocal asked
        asked += 1
        if asked > after:
            raise how

    return kill


@pytest.mark.parametrize("options", SEARCHES, ids=["grid", "random", "adaptive"])
def test_a_study_that_was_killed_anywhere_goes_on_to_the_same_end(
    made: Given, tmp_path: Path, counted: list[str], options: dict[str, Any]
) -> None:
    whole = run(made, tmp_path / "whole", **options)
    expected = end(tmp_path / "whole")
    once = sorted(counted)
    assert len(once) == len(set(once)) >= 12
    counted.clear()
    folder = tmp_path / "killed"
    runs = 0
    for after in (0, 3, 40, 77, 11, 150):
        try:
            run(made, folder, on_progress=killer(after, SystemExit), **options)
        except SystemExit:
            runs += 1
            # a write that was cut off leaves this behind
            (folder / ".settings.parquet.partial").write_bytes(b"PAR1")
    study = run(made, folder, **options)
    assert runs >= 2
    assert end(folder) == expected
    assert sorted(counted) == once
    assert study.table().equals(whole.table())


def test_a_study_that_was_stopped_writes_what_it_has_and_chooses_nothing(
    made: Given, tmp_path: Path, counted: list[str]
) -> None:
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 12

    study = run(made, tmp_path / "s", stopped=stopped)
    assert study.interrupted and study.chosen is None
    kept = pq.read_table(tmp_path / "s/settings.parquet")
    assert 1 <= kept.num_rows == len(study.trials) < 25
    assert json.loads((tmp_path / "s/study.json").read_text())["state"] == "interrupted"
    assert not (tmp_path / "s/rules.toml").exists()
    again = run(made, tmp_path / "s")
    assert not again.interrupted
    assert again.n_new == int(again.trials.accepted()[kept.num_rows :].sum()) > 0


def test_a_finished_study_is_read_and_not_tried_anew(
    made: Given, tmp_path: Path, counted: list[str]
) -> None:
    first = run(made, tmp_path / "s")
    before = end(tmp_path / "s")
    counted.clear()
    again = run(made, tmp_path / "s")
    assert counted == [] and again.n_new == 0
    assert end(tmp_path / "s") == before and again.front().equals(first.front())


def test_other_objectives_need_nothing_to_be_tried_anew(
    made: Given, tmp_path: Path, counted: list[str]
) -> None:
    run(made, tmp_path / "s", objectives=["min false_blue"])
    counted.clear()
    study = run(made, tmp_path / "s", objectives=["min alarms"])
    assert len(counted) <= 3  # no more than the best without each of its changes
    assert (
        study.table()
        .select(["chosen"])
        .equals(pq.read_table(tmp_path / "s/settings.parquet").select(["chosen"]))
    )


@pytest.mark.parametrize("method", ["random", "adaptive"])
def test_a_study_may_go_on_to_more_settings(
    made: Given, tmp_path: Path, counted: list[str], method: str
) -> None:
    run(made, tmp_path / "s", ROOMY, method=method, n=20)
    few = set(counted)
    run(made, tmp_path / "s", ROOMY, method=method, n=36)
    assert len(counted) == len(set(counted)) > len(few)
    assert pq.read_table(tmp_path / "s/settings.parquet")["origin"].to_pylist().count(method) >= 34


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rules": "levels.hold_s"}, "rules: "),
        ({"text": ROOMY, "method": "random"}, "space: "),
        ({"seed": 9, "method": "random", "n": 5}, "search.method: grid there, random now"),
        ({"measure": "lead"}, "measured.lead_s: 0.0 there, 5.0 now"),
    ],
)
def test_another_study_in_the_same_folder_is_refused_with_what_differs(
    made: Given, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    from dataclasses import replace

    run(made, tmp_path / "s")
    before = end(tmp_path / "s")
    if "rules" in options:
        options = {"rules": Rules.parse(made.rules.text.replace("hold_s = 20", "hold_s = 21"))}
    if "measure" in options:
        options = {"measure": replace(made.measure, lead_s=5.0)}
    with pytest.raises(InputError, match="holds another study") as caught:
        run(made, tmp_path / "s", **options)
    assert problem in str(caught.value)
    assert end(tmp_path / "s") == before


def test_another_history_in_the_same_folder_is_refused(made: Given, tmp_path: Path) -> None:
    other = given(tmp_path / "other", n=900)
    run(made, tmp_path / "s")
    with pytest.raises(InputError, match=r"readings\.day\.parquet: \d+ there, \d+ now"):
        run(other, tmp_path / "s")


def test_two_runs_in_one_folder_don_t_mix(made: Given, tmp_path: Path) -> None:
    with (
        Folder(tmp_path / "s").held(),
        pytest.raises(OutputError, match="another run is at work in this folder"),
    ):
        run(made, tmp_path / "s")


def test_a_folder_that_can_t_be_one_is_told_plainly(made: Given, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        run(made, tmp_path / "file")
    (tmp_path / "s").mkdir()
    (tmp_path / "s/study.json").write_text("{")
    with pytest.raises(InputError, match="can't be read as a study"):
        run(made, tmp_path / "s")


def test_progress_only_goes_forward_and_ends_at_all(made: Given) -> None:
    seen: list[Progress] = []
    run(made, on_progress=seen.append)
    of_grid = [each for each in seen if each.phase == "grid"]
    assert [p.done for p in of_grid] == sorted(p.done for p in of_grid)
    assert all(0 <= p.share <= 1 and p.done <= p.total for p in seen)
    assert of_grid[-1].refused == 6

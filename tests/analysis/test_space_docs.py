"""TUNING.md documents every key of a space; its examples, and the day's space, run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.analysis import scoring
from engine.analysis.figures import schema
from engine.analysis.past import Past
from engine.analysis.tuning.knobs import KINDS
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.settings import Settings
from engine.analysis.tuning.space import Search, Vary, _File, load, parse
from engine.analysis.tuning.study import tune
from engine.catalog_build import build_catalog
from engine.rules import Rules
from engine.truth import read_truth
from tests.analysis.studies import Given, given

ROOT = Path(__file__).parents[2]
DAY = ROOT / "replay_data/day"
PAGE = (ROOT / "engine/TUNING.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(PYTHON,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def section(title: str) -> dict[str, list[str]]:
    text = PAGE.split(f"### {title}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", text, re.MULTILINE)
    return {key: [cell.strip() for cell in cells.split("|")] for key, cells in rows}


@pytest.mark.parametrize(
    ("title", "model"),
    [("Top of the file", _File), ("`[search]`", Search), ("`[[vary]]`", Vary)],
)
def test_every_key_of_a_space_is_documented_and_no_other(title: str, model: type) -> None:
    assert set(section(title)) == set(model.model_fields)  # type: ignore[attr-defined]


def test_the_example_shows_every_way_to_vary() -> None:
    used = {key for vary in parse(EXAMPLE).vary for key in vary.model_fields_set}
    assert used == set(Vary.model_fields)


def test_every_figure_and_knob_that_is_named_exists(tmp_path: Path) -> None:
    made = given(tmp_path, n=200)
    from engine.analysis.sweep import Sweep

    with Sweep(made.past) as sweep:
        names = set(made.measure(sweep.try_all([made.rules])).column_names)
    table = PAGE.split("| figure | meaning |")[1].split("\n\n")[0]
    for name in re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]+", table, re.MULTILINE))):
        assert name.replace("LEVEL", "yellow") in names, name
    assert set(schema().names) <= names | {"setting"} and scoring
    for kind in KINDS:
        assert f"`{kind}`" in PAGE


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Return two hours of the generated day."""
    catalog = tmp_path_factory.mktemp("day") / "day.catalog"
    build_catalog(DAY, catalog, None, None)
    return Past.open(
        catalog,
        DAY / "readings.parquet",
        since="2025-07-16T02:00:00+08:00",
        until="2025-07-16T04:00:00+08:00",
    )


def test_the_example_runs_on_the_generated_day(day: Past) -> None:
    study = tune(day, Rules.load(DAY / "rules.toml"), parse(EXAMPLE), n=12)
    assert study.search.method == "random"
    assert sum(origin == "random" for origin in study.trials.origin) == 12
    assert study.chosen is not None


def test_the_day_s_own_space_runs_and_is_a_grid_of_a_dozen(day: Past) -> None:
    rules = Rules.load(DAY / "rules.toml")
    space = load(DAY / "space.toml")
    assert Settings(space, rules).size() == 15
    truth = read_truth(DAY / "truth.csv", "+08:00")
    study = tune(day, rules, space, measure=Yardstick(catalog=day.catalog, incidents=truth))
    assert study.search.method == "grid" and study.chosen is not None


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.analysis.studies import SPACE, write_truth

    made: Given = given(tmp_path)
    (tmp_path / "readings").mkdir()
    made.readings.rename(tmp_path / "readings/day.parquet")
    (tmp_path / "space.toml").write_text(SPACE)
    write_truth(tmp_path / "truth.csv")
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(PYTHON, found)
    assert found["study"].chosen is not None  # type: ignore[attr-defined]

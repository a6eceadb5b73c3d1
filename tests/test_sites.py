"""The sites of the real histories: what the repository keeps of them is sound by itself."""

from __future__ import annotations

import tomllib

import pytest

from benchmarks.real_data import SITES
from benchmarks.real_truth import DATA_SETS
from engine import adapters
from engine.catalog import Catalog
from engine.catalog_build import build_catalog
from engine.plan import compile_plan
from engine.rules_check import load

NAMES = sorted(path.name for path in SITES.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Catalog]:
    folder = tmp_path_factory.mktemp("sites")
    for name in NAMES:
        build_catalog(SITES / name, folder / name)
    return {name: Catalog.open(folder / name) for name in NAMES}


def test_every_data_set_has_a_site_and_every_site_a_data_set() -> None:
    assert {each.site for each in DATA_SETS} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_rules_fit_the_catalog_without_a_note(name: str, catalogs: dict[str, Catalog]) -> None:
    plan = compile_plan(catalogs[name], load(SITES / name / "rules.toml"))
    assert [str(note) for note in plan.notes] == []


@pytest.mark.parametrize("name", NAMES)
def test_adapter_names_only_sensors_of_the_catalog(name: str, catalogs: dict[str, Catalog]) -> None:
    adapter = adapters.load(SITES / name / "adapter.toml")
    sensors = set(catalogs[name].sensor_id.to_pylist())
    if adapter.sensor.columns is None:
        assert adapter.sensor.except_ == ("label",)
    else:
        assert set(adapter.sensor.columns.values()) == sensors


@pytest.mark.parametrize("name", NAMES)
def test_no_adapter_reads_a_label_or_what_looks_ahead(name: str) -> None:
    document = tomllib.loads((SITES / name / "adapter.toml").read_text())
    columns = document["sensor"].get("columns", {})
    assert not {"label", "changepoint", "MM116_pred", "DMM116"} & set(columns)


@pytest.mark.parametrize("name", NAMES)
def test_readme_gives_the_commands_that_replay_the_site(name: str) -> None:
    text = (SITES / name / "README.md").read_text()
    assert f"tocsin catalog build replay_data/sites/{name} " in text
    assert f"--rules replay_data/sites/{name}/rules.toml" in text
    assert f"--adapter replay_data/sites/{name}/adapter.toml" in text


@pytest.mark.parametrize("name", NAMES)
def test_no_readings_are_kept_with_a_site(name: str) -> None:
    kept = {path.name for path in (SITES / name).iterdir()}
    allowed = {"sources.csv", "sensors.csv", "couplings.csv", "quantities.toml"}
    assert kept <= allowed | {"rules.toml", "adapter.toml", "README.md"}

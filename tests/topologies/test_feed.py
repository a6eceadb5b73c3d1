"""What a feed plays, and what it refuses to play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.catalog import Catalog
from engine.errors import CatalogError
from replay_data import DAY
from tests.engine.replays import city
from tests.topologies.test_live_cli import tocsin
from topologies import feed


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[feed.Feed]:
    """The feeds that were published, in the place of a broker."""
    found: list[feed.Feed] = []

    async def publish(settings: Any, what: feed.Feed, **_: Any) -> feed.Sent:
        found.append(what)
        return feed.Sent()

    monkeypatch.setattr(feed, "publish", publish)
    return found


@pytest.mark.parametrize("partitions", [1, 5])
def test_the_generated_day_is_played_to_its_own_city_however_it_was_built(
    tmp_path: Path, played: list[feed.Feed], partitions: int
) -> None:
    catalog = tmp_path / "day.catalog"
    Catalog.build(DAY, catalog, partitions=partitions)
    assert tocsin("feed", "--city", "--catalog", catalog) == 0
    assert played[0].readings == [DAY / "readings.parquet"]


def test_the_generated_day_is_not_played_to_another_city(
    tmp_path: Path, played: list[feed.Feed], capsys: pytest.CaptureFixture[str]
) -> None:
    other = city(tmp_path).catalog
    assert tocsin("feed", "--city", "--catalog", other) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert f"{other}: not the city of the generated day, 319 of whose 319 sensors it lacks" in said
    assert "give readings of this one instead of --city" in said
    assert not played


def test_one_sensor_that_is_missing_is_enough_to_refuse(tmp_path: Path) -> None:
    folder = tmp_path / "less"
    folder.mkdir()
    for name in ("sources.csv", "sensors.csv", "couplings.csv"):
        lines = (DAY / name).read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.startswith("well-101-p,")]
        (folder / name).write_text("\n".join(kept), encoding="utf-8")
    Catalog.build(folder, tmp_path / "less.catalog")
    with pytest.raises(CatalogError, match="1 of whose 319 sensors"):
        feed._generated_day(tmp_path / "less.catalog")

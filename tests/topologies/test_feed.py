"""What a feed plays, and what it refuses to play."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.catalog import Catalog
from engine.errors import CatalogError
from engine.readings import OUTCOMES
from engine.sensor_ids import Tally
from replay_data import DAY
from tests.engine.replays import city
from tests.topologies.live import live_on
from tests.topologies.test_live_cli import tocsin
from topologies import feed
from topologies.refused import EVERY_S, Refused


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
    assert played[0].shift_to_now
    assert tocsin("feed", "--city", "--ticks", "--catalog", catalog) == 0
    assert not played[1].shift_to_now


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


@pytest.fixture(scope="module")
def day_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("catalog") / "city.catalog"
    Catalog.build(DAY, file, partitions=4)
    return file


def written(folder: Path, *rows: tuple[str, int]) -> Path:
    """Write readings of (sensor, event time)."""
    file = folder / "readings.csv"
    lines = [f"{sensor},{event_ms},{number}" for number, (sensor, event_ms) in enumerate(rows)]
    file.write_text("\n".join(["sensor,ts,value", *lines]))
    return file


@pytest.mark.parametrize(("days", "said"), [(-8, "8 d before now"), (1, "1 d after now")])
def test_readings_that_workers_of_now_would_refuse_are_not_sent(
    tmp_path: Path,
    played: list[feed.Feed],
    day_catalog: Path,
    capsys: pytest.CaptureFixture[str],
    days: int,
    said: str,
) -> None:
    then_ms = int(time.time() * 1000) + days * 86_400_000
    file = written(tmp_path, ("well-101-p", then_ms), ("well-101-p", then_ms + 1))
    assert tocsin("feed", file, "--catalog", day_catalog) == 3
    err = capsys.readouterr().err
    assert "the first reading is of 20" in err and said in err
    assert "--shift-to-now" in err and "--ticks" in err
    assert not played
    for option in ("--shift-to-now", "--ticks"):
        assert tocsin("feed", file, "--catalog", day_catalog, option) == 0
    fresh = written(tmp_path, ("well-101-p", int(time.time() * 1000) - 3_600_000))
    assert tocsin("feed", fresh, "--catalog", day_catalog) == 0
    assert len(played) == 3


def test_readings_of_unknown_sensors_alone_are_an_error(
    tmp_path: Path,
    played: list[feed.Feed],
    day_catalog: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = written(tmp_path, *((f"nobody-{number % 5}", number) for number in range(8)))
    assert tocsin("feed", file, "--catalog", day_catalog) == 3
    assert (
        "nothing to send: 8 readings of sensors that the catalog does not have: "
        "5, nobody-0, nobody-1, nobody-2, …" in capsys.readouterr().err
    )
    assert not played


@pytest.mark.parametrize("limit", [1, 5, 1234])
def test_a_limit_is_exact_and_what_is_left_out_is_named(
    tmp_path: Path,
    embedded_broker: Any,
    day_catalog: Path,
    capsys: pytest.CaptureFixture[str],
    limit: int,
) -> None:
    live = live_on(tmp_path, embedded_broker, "redis://127.0.0.1:1/0")
    file = written(
        tmp_path, *(("nobody" if n % 7 == 0 else "well-101-p", n * 1000) for n in range(2000))
    )
    where = ["--kafka-brokers", embedded_broker.bootstrap]
    prefix = live.settings.topic_prefix
    code = tocsin(
        *("feed", file, "--catalog", live.catalog, *where, "--topic-prefix", prefix),
        *("--rate", 1e9, "--shift-to-now", "--format", "json", "--limit", limit),
    )
    assert code == 0
    err = capsys.readouterr().err
    assert f"sent {limit:,} readings in {limit:,} messages" in err
    assert "left out: 286 readings of sensors that the catalog does not have: 1, nobody" in err
    found = live.messages("readings", 4)
    assert sum(map(len, found.values())) == limit


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_feed_that_is_ended_says_how_much_it_sent(
    tmp_path: Path,
    embedded_broker: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    live = live_on(tmp_path, embedded_broker, "redis://127.0.0.1:1/0")
    # the second is due in minutes
    file = written(tmp_path, ("well-101-p", 0), ("well-101-p", 500_000))
    publish = feed.publish

    def ending(*given: Any, on_progress: Any, **more: Any) -> Any:
        def note(sent: feed.Sent) -> None:
            on_progress(sent)
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

        return publish(*given, on_progress=note, **more)

    monkeypatch.setattr(feed, "publish", ending)
    code = tocsin(
        *("feed", file, "--catalog", live.catalog, "--shift-to-now"),
        *("--kafka-brokers", embedded_broker.bootstrap),
        *("--topic-prefix", live.settings.topic_prefix),
    )
    assert code == 130
    assert "sent 1 readings in 1 messages" in capsys.readouterr().err


def test_a_slice_that_is_due_later_is_not_sent_once_stopped(day_catalog: Path) -> None:
    one = feed.Feed(readings=[DAY / "readings.parquet"], catalog=day_catalog, limit=50)
    parts = list(feed._slices(one, Catalog.open(day_catalog), Tally()))
    assert sum(len(part.readings) for part in parts) == 50
    pace = feed._Pace(one)
    asyncio.run(asyncio.wait_for(pace.until(parts[0], lambda: True), 5))
    late = parts[-1]._replace(now_ms=parts[0].now_ms + 3_600_000)
    asyncio.run(asyncio.wait_for(pace.until(late, lambda: True), 5))


@pytest.mark.parametrize("reason", ["time_too_late", "time_ahead", "backward"])
def test_readings_that_are_refused_in_bulk_are_told_once_the_time_is_up(reason: str) -> None:
    now = 0.0
    refused = Refused(clock=lambda: now)

    def counts(**named: int) -> Any:
        return np.array([named.get(name, 0) for name in OUTCOMES], np.int64)

    assert refused.note(2, counts(**{reason: 60}, ticks=100)) is None
    now = EVERY_S
    told = refused.note(2, counts(accepted=50, late=40))
    assert told is not None
    assert told.startswith(f"60 of 110 readings of partition 2 came to nothing ({reason})")
    # half of them, and none, are no news
    refused.note(2, counts(**{reason: 60}))
    refused.note(3, counts(ticks=5))
    now *= 2
    assert refused.note(2, counts(accepted=60)) is None
    assert refused.note(3, counts(ticks=5)) is None

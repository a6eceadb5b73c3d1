"""Real histories through the whole line; skipped where the data is not there.

The data is not part of the repository: it is looked for in the folder that TOCSIN_TEST_DATA names,
or in `../shared/data` beside the repository.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.real_data import (
    SITES,
    Row,
    alarms,
    as_one,
    duration,
    judge,
    markdown,
    measure,
    replay_site,
)
from benchmarks.real_truth import DATA_SETS, DataSet, Truth, runs
from engine.replay import Job, replay
from engine.truth import Incident

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TOCSIN_TEST_DATA") or ROOT.parent / "shared" / "data")
BY_NAME = {each.name: each for each in DATA_SETS}
HOUR_MS = 3_600_000


def there(name: str) -> DataSet:
    """Return a data set, or skip the test where it is not there."""
    data_set = BY_NAME[name]
    missing = data_set.missing(DATA)
    if missing is not None:
        pytest.skip(f"{missing} is not there (TOCSIN_TEST_DATA names the folder of the data sets)")
    return data_set


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Replay each data set once; give its rows by part."""
    known: dict[str, dict[str, Row]] = {}

    def rows_of(name: str) -> dict[str, Row]:
        if name not in known:
            rows = measure(there(name), DATA, tmp_path_factory.mktemp(name))
            known[name] = {row.part: row for row in rows}
        return known[name]

    return rows_of


# What is found must not get lost again. Bounds leave a little room to retune a site.


def test_methane_stands_at_yellow_before_most_crossings(measured: Any) -> None:
    rest = measured("methane_mine")["not tuned on"]
    assert rest.events == 24
    assert rest.found >= 22
    assert rest.false_alarms <= 7
    assert rest.alarmed_share < 0.15  # an alarm that always stands would find all of them
    assert measured("methane_mine")["all"].kinds["fresh crossing"].found >= 47


def test_closings_of_the_valve_are_found_within_two_minutes(measured: Any) -> None:
    rest = measured("skab")["not tuned on"]
    assert rest.events == 11
    assert rest.found >= 9
    assert rest.median_delay_s < 120
    assert rest.false_alarms <= 3


def test_the_fire_alarm_is_found_at_once_and_nothing_else_is(measured: Any) -> None:
    row = measured("smoke_iot")["all"]
    assert (row.found, row.events, row.false_alarms) == (1, 1, 0)
    assert row.median_delay_s <= 30


def test_attacks_on_the_network_are_found_after_a_quiet_year(measured: Any) -> None:
    rows = measured("batadal")
    assert rows["tuned on: no attacks"].false_alarms == 0
    attacked = rows["not tuned on: attacks"]
    assert attacked.events == 7
    assert attacked.found >= 5
    assert attacked.false_alarms <= 4


def test_lockdowns_empty_the_streets(measured: Any) -> None:
    rest = measured("akl_pedestrians")["not tuned on"]
    assert rest.kinds["lockdown"].events == 50
    assert rest.kinds["lockdown"].found >= 30
    assert rest.kinds["New Year's Eve"].found >= 35
    assert rest.false_per_day < 0.25


@pytest.mark.parametrize("name", ["skab", "batadal"])
def test_many_files_merge_into_one_history_whatever_order_they_are_named_in(
    name: str, tmp_path: Path
) -> None:
    data_set = there(name)
    log, other = tmp_path / "log.jsonl", tmp_path / "other.jsonl"
    replay_site(data_set, DATA, log)
    site = SITES / data_set.site
    job = Job(
        readings=tuple(reversed(data_set.paths(DATA))),
        catalog=log.with_suffix(".catalog"),
        rules=site / "rules.toml",
        adapter=site / "adapter.toml",
        output=other,
    )
    replay(job)
    assert log.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("name", "share", "margin_ms", "at_least"),
    [
        ("methane_mine", 0.5, HOUR_MS // 2, 100),
        ("smoke_iot", 0.5, HOUR_MS // 2, 10),
        ("akl_pedestrians", 0.3, 6 * HOUR_MS, 500),
    ],
)
def test_alerts_do_not_depend_on_what_comes_later(
    name: str, share: float, margin_ms: int, at_least: int, tmp_path: Path
) -> None:
    data_set = there(name)
    log, half = tmp_path / "log.jsonl", tmp_path / "half.jsonl"
    replay_site(data_set, DATA, log)
    since_ms, until_ms = data_set.truth(DATA).parts["all"]
    cut_ms = since_ms + round(share * (until_ms - since_ms))
    site = SITES / data_set.site
    job = Job(
        readings=tuple(data_set.paths(DATA)),
        catalog=log.with_suffix(".catalog"),
        rules=site / "rules.toml",
        adapter=site / "adapter.toml",
        output=half,
        until=str(cut_ms),
    )
    replay(job)
    # what is due just before the cut is judged by a tick after it
    whole, part = (
        [line for line in path.read_bytes().splitlines() if when(line) < cut_ms - margin_ms]
        for path in (log, half)
    )
    assert part == whole
    assert len(part) >= at_least


def when(line: bytes) -> int:
    """Return the event time of an alert record."""
    return int(orjson.loads(line)["event_ms"])


# The way in which logs are held against labels, on small logs.


def alert(source: str, event_ms: int, level: str) -> dict[str, Any]:
    """Return what scoring reads of an alert record."""
    return {"source": source, "event_ms": event_ms, "level": level, "transition": "raise"}


def test_sources_together_have_the_highest_level_of_them() -> None:
    # a  yellow ─────────── normal        b       red ──── blue
    log = [
        alert("a", 1, "yellow"),
        alert("b", 2, "red"),
        alert("a", 3, "normal"),
        alert("b", 4, "blue"),
    ]
    joined = [(each["event_ms"], each["level"]) for each in as_one(log, "all")]
    assert joined == [(1, "yellow"), (2, "red"), (4, "blue")]


def test_a_level_below_the_one_asked_for_is_no_alarm() -> None:
    log = [alert("a", 1, "blue"), alert("a", 2, "yellow"), alert("a", 3, "blue")]
    assert [each["level"] for each in alarms(log, "yellow")] == ["normal", "yellow", "normal"]


def judged(log: list[dict[str, Any]], truth: Truth) -> Row:
    """Score a log on the whole of a truth's time."""
    return judge(BY_NAME["smoke_iot"], truth, log, "all", None)


def test_each_rise_to_the_level_counts_although_the_episode_stays_blue() -> None:
    # event        ████
    # level  blue─yellow─blue──────yellow─blue
    log = [
        alert("a", 0, "blue"),
        alert("a", 12_000, "yellow"),
        alert("a", 30_000, "blue"),
        alert("a", 60_000, "yellow"),
        alert("a", 80_000, "blue"),
    ]
    event = Incident(source="a", start_ms=10_000, end_ms=20_000, kind="fire")
    row = judged(log, Truth(events=[event], parts={"all": (0, 100_000)}))
    assert (row.found, row.median_delay_s, row.false_alarms) == (1, 2.0, 1)
    assert row.alarmed_share == pytest.approx(0.38)


def test_a_standing_alarm_finds_an_event_only_where_the_truth_lets_it() -> None:
    log = [alert("a", 5_000, "yellow"), alert("a", 90_000, "normal")]
    event = Incident(source="a", start_ms=50_000, end_ms=60_000, kind="crossing")
    mark = {"events": [event], "parts": {"all": (0, 100_000)}}
    assert judged(log, Truth(**mark)).found == 0
    warned = judged(log, Truth(standing_s=60, ahead_of_ms=1000, **mark))
    assert warned.found == 1
    assert warned.kinds["crossing"].median_lead_s == 56.0
    assert warned.false_alarms == 1  # nothing was about to happen when it rose
    assert judged(log, Truth(standing_s=60, early_s=45, **mark)).false_alarms == 0


def test_runs_are_first_and_last_rows() -> None:
    flags = [True, False, True, True, False]
    assert runs(flags) == [(0, 0), (2, 3)]


def test_lengths_of_time_read_as_people_say_them() -> None:
    said = [duration(each) for each in (None, 0, 90, 180, 16_200)]
    assert said == ["–", "0 s", "90 s", "3 min", "4.5 h"]


def test_table_has_a_row_for_each_part_and_notes_for_each_kind() -> None:
    events = [
        Incident(source="a", start_ms=1000, end_ms=2000, kind="fire"),
        Incident(source="a", start_ms=5000, end_ms=6000, kind="flood"),
    ]
    log = [alert("a", 1500, "yellow"), alert("a", 3000, "normal")]
    text = markdown([judged(log, Truth(events=events, parts={"all": (0, 10_000)}))])
    lines = text.splitlines()
    assert len({line.count("|") for line in lines[:3]}) == 1
    assert "| 1 / 2 |" in lines[2]
    assert lines[4:] == [
        "- smoke_iot, all, fire: 1 / 1 found, median delay 0.5 s",
        "- smoke_iot, all, flood: 0 / 1 found",
    ]

"""Replays of the real line: one alert log, however it is read, cut, interrupted or resumed."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median

import orjson
import pyarrow as pa
import pytest

from engine.catalog_build import build_catalog
from engine.errors import InputError, ReadingsError, SnapshotError
from engine.replay import Job, Progress, ahead
from engine.summary import Summary
from tests.cities import sensor, source, write_folder
from tests.engine.histories import write
from tests.engine.replays import (
    BEGIN_MS,
    RULES,
    City,
    city,
    job,
    one_file,
    prepared,
    readings,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> City:
    return city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Path:
    return one_file(tmp_path_factory.mktemp("day"))


@pytest.fixture(scope="module")
def whole(small, day, tmp_path_factory) -> bytes:
    """Return the alert log of the day."""
    out = tmp_path_factory.mktemp("whole") / "alerts.jsonl"
    prepared(job(small, day, output=out)).run()
    return out.read_bytes()


def alerts(content: bytes) -> list[dict]:
    return [orjson.loads(line) for line in content.splitlines()]


def stopping_after(n: int):
    calls = itertools.count(1)
    return lambda: next(calls) >= n


def test_the_day_raises_escalates_and_clears(whole):
    assert {alert["transition"] for alert in alerts(whole)} == {
        "raise",
        "escalate",
        "de-escalate",
        "clear",
    }


@pytest.mark.parametrize("batch", [1, 7, 100, 5000])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_alert_log_is_the_same_for_every_batch_and_any_threads(
    small, day, whole, tmp_path, batch, threads
):
    out = tmp_path / "alerts.jsonl"
    prepared(job(small, day, output=out, batch=batch, threads=threads)).run()
    assert out.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("kind", ["csv.gz", "arrows", "ndjson"])
def test_the_alert_log_is_the_same_for_every_kind_of_file(small, whole, tmp_path, kind):
    path = write(tmp_path / f"day.{kind}", readings())
    out = tmp_path / "alerts.jsonl"
    prepared(job(small, path, output=out)).run()
    assert out.read_bytes() == whole


def test_a_day_cut_into_files_is_replayed_as_one(small, whole, tmp_path):
    table = readings().sort_by("event_ms")
    one = write(tmp_path / "one.parquet", table)
    paths = [
        write(tmp_path / f"{number}.parquet", table.filter(keep))
        for number, keep in enumerate(
            [pa.array([k % 3 == r for k in range(1200)]) for r in (2, 0, 1)]
        )
    ]
    logs = []
    for number, files in enumerate([(one,), tuple(paths), tuple(reversed(paths))]):
        out = tmp_path / f"{number}.jsonl"
        prepared(job(small, *files, output=out)).run()
        logs.append(out.read_bytes())
    # equal times are rare enough here that the order of files does not show
    assert logs[0] == logs[1] == logs[2]
    assert logs[0] != whole


def test_the_summary_agrees_with_the_alert_log(small, day, whole, tmp_path):
    summary = prepared(job(small, day, output=tmp_path / "alerts.jsonl")).run()
    told = summary.as_dict()
    records = alerts(whole)
    assert told["readings"] == 1200
    assert told["alerts"] == len(records)
    by = Counter((record["transition"], record["level"]) for record in records)
    found = told["alerts_by_transition_and_level"]
    assert {(t, level): n for t, row in found.items() for level, n in row.items()} == by
    assert (
        sum(told["counts"][name] for name in told["counts"] if name not in ("late", "ticks"))
        == 1200
    )
    assert told["rejects"]["unknown_sensor"] == told["unknown_sensors"]["readings"] > 0
    assert told["unknown_sensors"]["sample"] == ["stranger"]
    sources = Counter(record["source"] for record in records)
    assert {row["source"]: row["alerts"] for row in told["top_sources"]} == sources
    upward = [record for record in records if record["transition"] in ("raise", "escalate")]
    leading = Counter(record["contributors"][0]["detector"] for record in upward)
    assert told["alerts_by_detector"] == leading
    lasted = [
        record["event_ms"] - record["episode_ms"]
        for record in records
        if record["transition"] == "clear"
    ]
    assert told["episodes"]["median_s"] == median(lasted) / 1000
    assert told["episodes"]["begun"] == sum(record["seq"] == 0 for record in records)
    assert told["episodes"]["running"] == told["episodes"]["begun"] - told["episodes"]["ended"]
    assert told["state_bytes"] > 0
    assert told["first_ms"] < told["last_ms"]


def test_without_an_alert_log_the_summary_is_the_same(small, day):
    with_log: list[bytes] = []
    one = prepared(job(small, day)).run().as_dict()
    two = prepared(job(small, day)).run(on_alerts=with_log.extend).as_dict()
    assert len(with_log) == one["alerts"]
    changing = ("wall_s", "readings_per_s")
    assert {k: v for k, v in one.items() if k not in changing} == {
        k: v for k, v in two.items() if k not in changing
    }


def test_progress_ends_with_everything_read(small, day):
    seen: list[Progress] = []
    prepared(job(small, day, batch=100)).run(on_progress=seen.append)
    assert [progress.readings for progress in seen] == sorted(p.readings for p in seen)
    assert seen[-1].readings == 1200
    assert seen[-1].share == pytest.approx(1.0, abs=0.1)


# --- interrupted, saved, resumed -----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 11])
@pytest.mark.parametrize("batches", [(100, 100), (100, 33), (57, 1000)])
def test_a_replay_resumed_where_it_was_interrupted_gives_the_log_to_the_byte(
    small, day, whole, tmp_path, n, batches
):
    out, saved = tmp_path / "alerts.jsonl", str(tmp_path / "state")
    first = prepared(job(small, day, output=out, snapshot=saved, batch=batches[0]))
    summary = first.run(stopped=stopping_after(n))
    assert summary.interrupted
    assert not out.exists()
    assert summary.output == f"{out}.partial"
    assert whole.startswith(Path(f"{out}.partial").read_bytes())
    again = job(small, day, output=out, resume=saved, snapshot=saved, batch=batches[1])
    rest = prepared(again).run()
    assert out.read_bytes() == whole
    assert summary.readings + rest.readings == 1200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alerts.jsonl", "state"]


def test_a_history_that_grew_goes_on_from_the_end_of_the_shorter_one(small, tmp_path):
    table = readings()
    whole = write(tmp_path / "whole.parquet", table)
    shorter = write(tmp_path / "shorter.parquet", table.slice(0, 700))
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    prepared(job(small, whole, output=one)).run()
    saved = str(tmp_path / "state")
    prepared(job(small, shorter, output=two, snapshot=saved)).run()
    assert two.exists()
    prepared(job(small, whole, output=two, resume=saved)).run()
    assert two.read_bytes() == one.read_bytes()


def test_when_snapshots_are_saved_does_not_show_in_the_alert_log(small, day, whole, tmp_path):
    out, saved = tmp_path / "alerts.jsonl", str(tmp_path / "state")
    clock = itertools.count(0, 1000)
    of = job(small, day, output=out, snapshot=saved, batch=50)
    prepared(of, clock=lambda: float(next(clock))).run()
    assert out.read_bytes() == whole


def test_a_crash_between_snapshots_costs_only_what_came_after_the_last(small, day, whole, tmp_path):
    out, saved = tmp_path / "alerts.jsonl", str(tmp_path / "state")
    clock = itertools.count(0, 25)  # every third batch or so
    crashing = prepared(
        job(small, day, output=out, snapshot=saved, batch=50), clock=lambda: float(next(clock))
    )
    calls = itertools.count()

    def crash(progress: Progress) -> None:
        if next(calls) == 17:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        crashing.run(on_progress=crash)
    prepared(job(small, day, output=out, resume=saved)).run()
    assert out.read_bytes() == whole


def interrupted(small: City, day: Path, tmp_path: Path, **options: object) -> Job:
    """Interrupt a replay after a few batches and return the job that would resume it."""
    out, saved = tmp_path / "alerts.jsonl", str(tmp_path / "state")
    first = job(small, day, output=out, snapshot=saved, batch=100, **options)
    prepared(first).run(stopped=stopping_after(5))
    return replace(first, snapshot=None, resume=saved)


def test_other_readings_are_refused_and_nothing_is_touched(small, day, tmp_path):
    again = interrupted(small, day, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = write(tmp_path / "other.parquet", readings(seed=8))
    with pytest.raises(SnapshotError, match=r"state: other readings than these: their first \d+"):
        prepared(replace(again, readings=(other,))).run()
    short = write(tmp_path / "short.parquet", readings().slice(0, 300))
    with pytest.raises(SnapshotError, match=r"covers \d+ records, but these readings give only"):
        prepared(replace(again, readings=(short,))).run()
    with pytest.raises(SnapshotError, match="other readings than these"):
        prepared(replace(again, since="2024-05-01T00:00:10")).run()
    with pytest.raises(SnapshotError, match="rules"):
        prepared(again, rules=RULES.replace("tick_s = 10", "tick_s = 5"))
    assert {path: path.read_bytes() for path in before} == before


def test_an_alert_log_that_was_changed_is_refused(small, day, tmp_path):
    again = interrupted(small, day, tmp_path)
    partial = tmp_path / "alerts.jsonl.partial"
    content = partial.read_bytes()
    partial.write_bytes(content.replace(b"raise", b"RAISE", 1))
    with pytest.raises(SnapshotError, match="does not begin with the alert log"):
        prepared(again)
    partial.write_bytes(content[:-9])
    with pytest.raises(SnapshotError, match="does not begin with the alert log"):
        prepared(again)
    partial.unlink()
    with pytest.raises(SnapshotError, match="is gone"):
        prepared(again)
    with pytest.raises(SnapshotError, match=r"goes on with a plain .jsonl only"):
        prepared(replace(again, output=tmp_path / "alerts.parquet"))


def test_a_replay_stopped_before_it_is_past_the_snapshot_leaves_it_alone(small, day, tmp_path):
    again = interrupted(small, day, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    both = replace(again, snapshot=again.resume, batch=10)
    summary = prepared(both).run(stopped=lambda: True)
    assert summary.interrupted
    assert summary.readings == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- spans, faults, threads ----------------------------------------------------------------------


def test_a_span_of_the_day_is_replayed(small, day):
    summary = prepared(
        job(small, day, since="2024-05-01T00:01:00", until="2024-05-01T00:02:00Z")
    ).run()
    assert 0 < summary.readings < 1200
    assert summary.first_ms >= 1_714_521_660_000
    assert summary.last_ms < 1_714_521_720_000


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"since": "soon"}, "--from: must be ISO 8601 or epoch milliseconds, got 'soon'"),
        ({"until": "2024-13-01"}, "--to: must be ISO"),
        ({"since": "2024-05-02", "until": "2024-05-01"}, "--from: must be before --to"),
    ],
)
def test_a_span_that_is_none_is_refused(small, day, options, problem):
    with pytest.raises(InputError, match=problem):
        prepared(job(small, day, **options))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fault_in_the_middle_of_a_file_keeps_what_was_done(small, tmp_path, threads):
    path = tmp_path / "day.ndjson"
    write(path, readings())
    path.write_bytes(path.read_bytes() * 30 + b"broken\n")
    out = tmp_path / "alerts.jsonl"
    replay = prepared(job(small, path, output=out, batch=1000, threads=threads))
    with pytest.raises(ReadingsError, match=r"day.ndjson: row 36001: not JSON"):
        replay.run()
    assert not out.exists()
    assert alerts(Path(replay.sink.name or "").read_bytes())
    assert threading.active_count() < 20
    assert "decode" not in {thread.name for thread in threading.enumerate()}


def test_a_history_out_of_order_is_told_of_sort_which_helps(small, tmp_path):
    table = readings()
    shuffled = table.take(pa.array([(k * 601) % 1200 for k in range(1200)]))
    path = write(tmp_path / "day.parquet", shuffled)
    advice = prepared(job(small, path)).run().advice()
    assert any("--sort orders it" in note for note in advice)
    summary = prepared(job(small, path, sort=True)).run()
    assert summary.counts["backward"] == 0
    assert not any("--sort" in note for note in summary.advice())


def test_a_replay_in_which_no_sensor_is_known_says_so(small, tmp_path):
    table = readings().set_column(0, "sensor", pa.array(["a", "b", "c", "d"] * 300))
    summary = prepared(job(small, write(tmp_path / "day.parquet", table))).run()
    notes = " ".join(summary.advice())
    assert "1,200 readings of 4 unknown sensors, e.g. a, b, c (all of them" in notes


def test_an_empty_history_is_an_empty_alert_log(small, tmp_path):
    path = write(tmp_path / "day.parquet", readings().slice(0, 0))
    out = tmp_path / "alerts.jsonl"
    summary = prepared(job(small, path, output=out)).run()
    assert summary.as_dict()["readings"] == 0
    assert out.read_bytes() == b""


def test_decoding_ahead_passes_on_what_it_raises_and_stops_when_it_is_closed():
    def failing():
        yield 1
        raise ValueError("broken")

    batches = ahead(failing())
    assert next(batches) == 1
    with pytest.raises(ValueError, match="broken"):
        next(batches)

    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield number

    batches = ahead(endless())
    assert [next(batches), next(batches)] == [0, 1]
    batches.close()
    assert len(taken) <= 5
    assert "decode" not in {thread.name for thread in threading.enumerate()}


#              %LEL
#   both wells  60 ───┐     ┌──┐
#               5 ┘   └─────┘  └──
#              10 s  80   200 215
def test_a_sensors_own_delays_hold_its_alarm_back_and_up(tmp_path):
    sensors = [
        sensor("patient", "well-1", unit="%LEL", period_s=1.0, on_delay_s=30.0, off_delay_s=60.0),
        sensor("hasty", "well-2", unit="%LEL", period_s=1.0),
    ]
    write_folder(tmp_path / "city", [source("well-1"), source("well-2")], sensors)
    build_catalog(tmp_path / "city", tmp_path / "city.catalog", 1, None)
    (tmp_path / "rules.toml").write_text(RULES.replace("hold_s = 20", "hold_s = 0"))
    beyond = [10 <= second < 80 or 200 <= second < 215 for second in range(400)]
    rows = [
        (name, BEGIN_MS + 1000 * second, 60.0 if gas else 5.0)
        for second, gas in enumerate(beyond)
        for name in ("hasty", "patient")
    ]
    columns = zip(*rows, strict=True)
    table = pa.table(dict(zip(("sensor", "event_ms", "value"), columns, strict=True)))
    path, out = write(tmp_path / "day.parquet", table), tmp_path / "alerts.jsonl"
    prepared(job(City(tmp_path / "city.catalog", tmp_path / "rules.toml"), path, output=out)).run()
    seconds = {"well-1": [], "well-2": []}
    falls = {"well-1": [], "well-2": []}
    for alert in alerts(out.read_bytes()):
        second = (alert["event_ms"] - BEGIN_MS) / 1000
        if alert["transition"] == "raise":
            seconds[alert["source"]].append(second)
        elif alert["transition"] == "de-escalate" and alert["level_from"] == "red":
            falls[alert["source"]].append(second)
    assert seconds == {"well-1": [40], "well-2": [10, 200]}
    assert falls["well-1"][0] >= 80 + 60 > 80 + 20 >= falls["well-2"][0] >= 80 + 10


def test_a_summary_of_nothing_has_no_rates():
    assert Summary().as_dict()["readings_per_s"] == 0

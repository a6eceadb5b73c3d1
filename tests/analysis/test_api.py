"""The Python API: what comes is what the engine's own parts give."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import engine.api as tocsin
from engine.analysis.past import judge
from engine.analysis.tuning.measure import Yardstick
from engine.errors import InputError, RulesError, SettingsError
from engine.replay import replay
from engine.truth import LEVELS, score
from kernels.layout import LEVEL_NAMES
from tests.analysis.studies import INCIDENTS, SPACE, Given, given, write_truth
from tests.engine.replays import BEGIN_MS, RULES, SENSORS, job

PAGE = Path(tocsin.__file__).with_name("API.md").read_text(encoding="utf-8")
ID = "well-1@"
LATER_MS = BEGIN_MS + 200_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return given(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def replayed(made: Given) -> tocsin.Replayed:
    return tocsin.replay(made.past, made.rules)


@pytest.fixture(scope="module")
def milder(made: Given) -> tocsin.Rules:
    return tocsin.changed(made.rules, {"profiles.methane.limits.high.blue": 14, "levels.hold_s": 5})


# --- what there is -------------------------------------------------------------------------------


def test_readings_are_those_of_the_file_in_its_order(made: Given) -> None:
    written = pl.read_parquet(made.readings).filter(pl.col("sensor").is_in(SENSORS))
    found = pl.from_arrow(tocsin.readings(made.past))
    assert isinstance(found, pl.DataFrame)
    assert found["sensor"].cast(pl.String).to_list() == written["sensor"].to_list()
    assert found["event_ms"].dt.timestamp("ms").to_list() == written["event_ms"].to_list()
    assert found["value"].equals(written["value"].cast(pl.Float64))
    assert found["quality"].to_list() == written["quality"].to_list()
    catalog = made.past.catalog
    sources = dict(
        zip(tocsin.sensors(made.past)["sensor"].to_pylist(),
            tocsin.sensors(made.past)["source"].to_pylist(), strict=True)
    )  # fmt: skip
    assert [sources[s] for s in found["sensor"]] == found["source"].cast(pl.String).to_list()
    assert tocsin.sources(made.past)["sensors"].to_pylist() == [
        sum(each == source for each in sources.values()) for source in catalog.source_id.to_pylist()
    ]


def test_readings_of_some_sensors_and_a_time_are_a_part_of_all(made: Given) -> None:
    everything = pl.from_arrow(tocsin.readings(made.past))
    assert isinstance(everything, pl.DataFrame)
    since, until = BEGIN_MS + 30_000, BEGIN_MS + 90_000
    some = tocsin.readings(made.past, ["plant/t", "well-1/t"], since, until)
    at = pl.col("event_ms").dt.timestamp("ms")
    expected = everything.filter(
        pl.col("sensor").cast(pl.String).is_in(["plant/t", "well-1/t"]),
        at >= since,
        at < until,
    )
    assert pl.from_arrow(some).equals(expected)  # type: ignore[union-attr]
    assert set(some["sensor"].chunk(0).dictionary.to_pylist()) == {"plant/t", "well-1/t"}
    one = tocsin.readings(made.past, "plant/t")
    assert one.num_rows == everything.filter(pl.col("sensor") == "plant/t").height
    narrow = tocsin.past(made.files.catalog, made.readings, since=since, until=until)
    assert tocsin.readings(narrow).num_rows == everything.filter(at >= since, at < until).height
    assert tocsin.readings(narrow, since=0).num_rows == tocsin.readings(narrow).num_rows


def test_a_time_may_be_text_a_number_or_a_datetime(made: Given) -> None:
    at = datetime(2024, 5, 1, 0, 1, tzinfo=UTC)
    ways: list[Any] = [
        at,
        int(at.timestamp() * 1000),
        str(int(at.timestamp() * 1000)),
        "2024-05-01T00:01:00Z",
        "2024-05-01T08:01:00+08:00",
        "2024-05-01 00:01",
        datetime(2024, 5, 1, 0, 1),
        at.astimezone(timezone(timedelta(hours=8))),
    ]
    spans = {tocsin.past(made.files.catalog, made.readings, since=way).span for way in ways}
    assert len(spans) == 1
    row = tocsin.readings(made.past, until=ways[0])["event_ms"][0].as_py()
    assert tocsin.readings(made.past, since=row, until=ways[0]).num_rows


def test_a_time_without_a_zone_is_in_the_adapter_s(made: Given, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.toml"
    adapter.write_text(
        'version = 1\nshape = "long"\nsensor = {column = "sensor"}\n'
        'time = {column = "event_ms", format = "ms", zone = "+08:00"}\nvalue = {column = "value"}\n'
    )
    past = tocsin.past(made.files.catalog, made.readings, adapter=adapter, since="2024-05-01 08:01")
    assert past.span.since_ms == BEGIN_MS + 60_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"since": "yesterday"}, "since: must be ISO 8601 or epoch milliseconds, got 'yesterday'"),
        ({"until": 1.5}, "until: must be ISO 8601"),
        ({"since": 2000, "until": 1000}, "since: must be before until, got 2000 and 1000"),
    ],
)
def test_what_is_no_time_is_refused_by_its_name(
    made: Given, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        tocsin.readings(made.past, **options)


def test_an_unknown_id_is_named_with_one_that_is_near(made: Given) -> None:
    with pytest.raises(InputError, match=r"well-1/ch5: no such sensor .*did you mean well-1/ch4"):
        tocsin.readings(made.past, ["plant/t", "well-1/ch5"])
    with pytest.raises(InputError, match=r"planet: no such source .*did you mean plant"):
        tocsin.trace(made.past, made.rules, "planet", BEGIN_MS, LATER_MS)


# --- rules ---------------------------------------------------------------------------------------


def test_rules_are_read_from_a_path_or_a_text_or_taken_as_they_are(made: Given) -> None:
    path = made.files.rules
    ways = [path, str(path), path.read_text(), tocsin.rules(path)]
    assert {tocsin.rules(way).digest for way in ways} == {made.rules.digest}
    with pytest.raises(RulesError, match=r"nowhere\.toml"):
        tocsin.rules("nowhere.toml")


def test_changed_rules_are_those_of_a_file_with_the_changes(made: Given) -> None:
    changes = {"profiles.methane.limits.high.blue": 12, "profiles.*.limits.off_delay_s": 60}
    made_so = tocsin.changed(made.rules, changes)
    written = RULES.replace("blue = 10", "blue = 12").replace(
        "off_delay_s = 10", "off_delay_s = 60"
    )
    written = written.replace(
        "yellow = 40, red = 60 }", "yellow = 40, red = 60 }\noff_delay_s = 60"
    )
    assert made_so.digest == tocsin.rules(written).digest
    assert tocsin.rules(made_so.text).digest == made_so.digest
    assert "10 → 12 %LEL" in made_so.text
    assert tocsin.changed(made.rules, {}) is made.rules
    same = tocsin.changed(made.rules, {"profiles.methane.limits.high.blue": 10})
    assert same.digest == made.rules.digest


def test_changes_that_the_rules_don_t_take_are_refused(made: Given) -> None:
    with pytest.raises(SettingsError, match=r"no key 'dead_band' .*deadband"):
        tocsin.changed(made.rules, {"profiles.methane.limits.dead_band": 1})
    with pytest.raises(RulesError, match=r"the rules refuse the changes: .*blue"):
        tocsin.changed(made.rules, {"profiles.methane.limits.high.blue": 25})


def test_a_truth_may_be_a_path_and_its_times_are_the_site_s(made: Given, tmp_path: Path) -> None:
    path = write_truth(tmp_path / "truth.csv")
    assert tuple(tocsin.incidents(path)) == INCIDENTS == tuple(tocsin.incidents(str(path)))
    assert tuple(tocsin.incidents(INCIDENTS)) == INCIDENTS
    path.write_text("source,start,end,kind\nplant,2024-05-01T08:00,2024-05-01T09:00,fire\n")
    eastern = RULES.replace("[time]\n", '[time]\nutc_offset = "+08:00"\n')
    assert tocsin.incidents(path, eastern)[0].start_ms == BEGIN_MS
    assert tocsin.incidents(path)[0].start_ms == BEGIN_MS + 8 * 3_600_000
    found = tocsin.replay(made.past, eastern).score(path).incidents()
    assert found["start"][0].as_py() == datetime(2024, 5, 1, tzinfo=UTC)


# --- what rules make of it -----------------------------------------------------------------------


def test_alerts_are_the_parquet_log_of_the_command(
    made: Given, replayed: tocsin.Replayed, tmp_path: Path
) -> None:
    output = tmp_path / "alerts.parquet"
    replay(job(made.files, made.readings, output=output))
    alerts = replayed.alerts()
    assert alerts.num_rows > 20 and pq.read_table(output).equals(alerts)
    counts = replayed.counts
    assert counts["accepted"] + counts["unknown_sensor"] < replayed.judged.n_readings == 1200


def test_episodes_are_those_that_the_alert_records_tell(
    replayed: tocsin.Replayed,
) -> None:
    episodes = replayed.episodes().to_pylist()
    records: dict[str, list[dict[str, Any]]] = {}
    for record in replayed.judged.records:
        alert = orjson.loads(record)
        records.setdefault(alert["alert_id"], []).append(alert)
    assert [each["alert_id"] for each in episodes] == list(records)
    assert any(each["end"] is None for each in episodes)
    for each in episodes:
        alerts = records[each["alert_id"]]
        levels = [LEVEL_NAMES.index(alert["level"]) for alert in alerts]
        times = [alert["event_ms"] for alert in alerts]
        ended = alerts[-1]["transition"] == "clear"
        assert each["source"] == alerts[0]["source"]
        assert each["category"] == alerts[0]["category"]
        assert each["start"].timestamp() * 1000 == times[0]
        assert (each["end"] is not None) == ended
        until = times[-1] if ended else replayed.judged.last_ms
        assert each["lasted_s"] == (until - times[0]) / 1000
        assert LEVEL_NAMES.index(each["peak"]) == max(levels)
        assert each["peak_at"].timestamp() * 1000 == times[levels.index(max(levels))]
        assert each["alerts"] == len(alerts)
        asks = sum(alert["transition"] in ("raise", "escalate") for alert in alerts)
        assert each["alarms"] == asks
        first = alerts[0]["contributors"][0]
        assert first["detector"] in each["raised_by"]


def test_scores_are_those_of_the_truth_at_every_level(replayed: tocsin.Replayed) -> None:
    judged = replayed.judged
    assert judged.first_ms is not None and judged.last_ms is not None
    for row in replayed.score(INCIDENTS).table().to_pylist():
        expected = score(
            judged.records,
            INCIDENTS,
            since_ms=judged.first_ms,
            until_ms=judged.last_ms + 1,
            level=row["level"],
        )
        assert row["incidents"] == len(expected.detections)
        assert row["found"] == len(expected.found) == row["incidents"] - row["missed"]
        assert row["delay_median_s"] == expected.median_delay_s
        assert row["episodes"] == len(expected.episodes)
        assert row["false_alarms"] == len(expected.false)
    table = replayed.score(INCIDENTS).table()
    assert table["level"].to_pylist() == list(LEVELS)


def test_incidents_and_false_alarms_are_of_the_level_that_is_asked_for(
    replayed: tocsin.Replayed,
) -> None:
    for level in LEVELS:
        scored = replayed.score(INCIDENTS[:1], level)
        (row,) = (each for each in scored.table().to_pylist() if each["level"] == level)
        incidents, false = scored.incidents(), scored.false_alarms()
        assert incidents["found"].to_pylist().count(True) == row["found"]
        assert false.num_rows == row["false_alarms"]
        assert (
            f"at {level}: {row['found']} of 1 incidents found, {row['false_alarms']} false"
            in repr(scored)
        )
        peaks = {LEVEL_NAMES.index(peak) for peak in false["peak"].to_pylist()}
        assert min(peaks, default=4) >= LEVEL_NAMES.index(level)
    known = set(replayed.episodes()["alert_id"].to_pylist())
    assert set(replayed.score(INCIDENTS[:1]).false_alarms()["alert_id"].to_pylist()) <= known


def test_figures_are_those_that_a_study_has_of_the_same_rules(
    made: Given, replayed: tocsin.Replayed
) -> None:
    measured = Yardstick(catalog=made.past.catalog, by="category")(replayed.tried)
    figures = replayed.figures("category")
    assert figures.equals(measured)
    study = tocsin.tune(made.past, made.rules, SPACE, settings=24, by="category")
    assert study.table().select(figures.column_names).slice(0, 1).equals(figures)
    operators = replayed.operators("category")
    assert sum(operators["alarms"].to_pylist()) == figures["alarms"][0].as_py()
    missed = replayed.targets("category")["verdict"].to_pylist().count("missed")
    assert missed == figures["targets_missed"][0].as_py()


def test_a_sweep_is_a_replay_under_each(
    made: Given, replayed: tocsin.Replayed, milder: tocsin.Rules
) -> None:
    settings = {"given": made.rules, "milder": milder, "again": made.rules}
    swept = tocsin.sweep(made.past, settings)
    assert swept.table()["name"].to_pylist() == list(settings)
    for number, rules in enumerate(settings.values()):
        alone = tocsin.replay(made.past, rules)
        alerts = alone.alerts()
        steps = swept.steps(number)
        assert steps.num_rows == alerts.num_rows == swept.table()["alerts"][number].as_py()
        for name in ("source", "transition", "level"):
            assert steps[name].cast(pa.string()).to_pylist() == alerts[name].to_pylist()
        assert steps["event_ms"].equals(alerts["event_ms"])
        episodes = alone.episodes().sort_by([("source", "ascending"), ("start", "ascending")])
        swept_episodes = swept.episodes(number).sort_by(
            [("source", "ascending"), ("start", "ascending")]
        )
        for name in ("alert_id", "start", "end", "peak"):
            assert swept_episodes[name].to_pylist() == episodes[name].to_pylist(), name
        figures = swept.figures().slice(number, 1).drop_columns(["setting"])
        assert figures.equals(alone.figures())
        scores = pl.from_arrow(swept.score(INCIDENTS))
        assert isinstance(scores, pl.DataFrame)
        of = scores.filter(pl.col("setting") == number).drop("setting")
        assert of.equals(pl.from_arrow(alone.score(INCIDENTS).table()))  # type: ignore[arg-type]
    assert swept.steps().num_rows == sum(swept.table()["alerts"].to_pylist())
    assert tocsin.sweep(made.past, [made.rules]).table()["name"][0].as_py() == made.rules.name
    with pytest.raises(ValueError, match="must be a number from 0 to 2, got 3"):
        swept.steps(3)
    with pytest.raises(ValueError, match="settings: must be one at least"):
        tocsin.sweep(made.past, [])


def test_a_trace_has_the_readings_the_limits_and_the_alerts_of_the_source(
    made: Given, replayed: tocsin.Replayed
) -> None:
    traced = tocsin.trace(made.past, made.rules, "well-1", BEGIN_MS, LATER_MS)
    found = pl.from_arrow(traced.readings())
    assert isinstance(found, pl.DataFrame)
    for sensor in ("well-1/ch4", "well-1/t"):
        sent = pl.from_arrow(tocsin.readings(made.past, sensor, BEGIN_MS, LATER_MS + 1))
        mine = found.filter(pl.col("sensor") == sensor)
        assert isinstance(sent, pl.DataFrame)
        assert mine["event_ms"].equals(sent["event_ms"])
        good = mine.filter(pl.col("fate") == "accepted")
        assert good["value"].to_list() == sent.filter(mine["fate"] == "accepted")["value"].to_list()
    # without an on-delay what reaches a limit latches it at once
    limits = pl.from_arrow(traced.limits())
    assert isinstance(limits, pl.DataFrame)
    methane = limits.filter(pl.col("sensor") == "well-1/ch4")
    assert methane["limit"].to_list() == [10, 20, 30, 50] and set(methane["unit"]) == {"%LEL"}
    gas = found.filter(pl.col("sensor") == "well-1/ch4", pl.col("fate") == "accepted")
    for value, high in gas.select("value", pl.col("high").cast(pl.String)).iter_rows():
        least = sum(value >= limit for limit in (10, 20, 30, 50))
        assert LEVEL_NAMES.index(high) >= least
    alerts = pl.from_arrow(replayed.alerts())
    assert isinstance(alerts, pl.DataFrame)
    at = pl.col("event_ms").dt.timestamp("ms")
    own = alerts.filter(pl.col("source") == "well-1", at >= BEGIN_MS, at <= LATER_MS)
    assert own.height > 3 and pl.from_arrow(traced.alerts()).equals(own)  # type: ignore[union-attr]
    scores = pl.from_arrow(traced.scores())
    assert isinstance(scores, pl.DataFrame)
    told = set(scores.select("event_ms", "level").iter_rows())
    assert set(own.select("event_ms", "level").iter_rows()) <= told
    assert "well-1, 2 sensors" in repr(traced)


def test_signals_begin_with_what_stood_and_follow_each_change(made: Given) -> None:
    whole = tocsin.trace(made.past, made.rules, "well-1", BEGIN_MS, LATER_MS).signals().to_pylist()
    middle_ms = BEGIN_MS + 100_000
    middle = datetime.fromtimestamp(middle_ms / 1000, UTC)
    part = tocsin.trace(made.past, made.rules, "well-1", middle_ms, LATER_MS).signals().to_pylist()
    stood: dict[tuple[str, str], str] = {}
    for row in whole:
        if row["event_ms"] < middle:
            stood[row["sensor"], row["detector"]] = row["level"]
    first = {
        (row["sensor"], row["detector"]): row["level"] for row in part if row["event_ms"] == middle
    }
    assert first == {key: level for key, level in stood.items() if level != "normal"} and first
    rest = [row for row in part if row["event_ms"] > middle]
    assert rest == [row for row in whole if row["event_ms"] > middle]


# --- the rest ------------------------------------------------------------------------------------


def test_words_and_numbers_that_make_no_sense_are_refused_by_their_names(made: Given) -> None:
    past, rules = made.past, made.rules
    replayed = tocsin.replay(past, rules)
    for call, said in (
        (lambda: replayed.figures("nobody"), "by: must be one of department"),  # type: ignore[arg-type]
        (lambda: replayed.score(INCIDENTS, "purple"), "level: must be one of blue"),
        (lambda: replayed.score(INCIDENTS, lead_s=-1), "lead_s, grace_s: must be at least 0"),
        (lambda: tocsin.diff(past, rules, rules, level="x"), "level: must be one of blue"),
        (lambda: tocsin.explain(past, rules, ID + "1", level="x"), "level: must be one of"),
        (lambda: tocsin.tune(past, rules, SPACE, search="best"), "search: must be one of grid"),
        (lambda: tocsin.tune(past, rules, SPACE, choose="best"), "choose: must be one of order"),
        (lambda: tocsin.tune(past, rules, SPACE, level="red"), "level: needs a truth"),
        (lambda: tocsin.tune(past, rules, SPACE, grace_s=-1), "grace_s: must be at least 0"),
        (lambda: tocsin.solve(past, rules, per="city"), "per: must be one of profile, sensor"),
        (lambda: tocsin.solve(past, rules, turn=["knob"]), "turn: must be one of deadband"),
        (lambda: tocsin.solve(past, rules, max_rate=float("nan")), "max_rate: must be at least 0"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_progress_is_told_as_a_share_that_grows(made: Given, milder: tocsin.Rules) -> None:
    calls: list[Any] = [
        lambda told: tocsin.replay(made.past, made.rules, on_progress=told),
        lambda told: tocsin.sweep(made.past, [made.rules, milder], on_progress=told),
        lambda told: tocsin.diff(made.past, made.rules, milder, on_progress=told),
        lambda told: tocsin.tune(made.past, made.rules, SPACE, on_progress=told),
    ]
    for call in calls:
        shares: list[float] = []
        call(shares.append)
        assert shares and shares[-1] == 1.0
        assert all(0 <= share <= 1 for share in shares)


def test_results_are_shown_as_the_commands_show_them_and_written_as_pages(
    made: Given, replayed: tocsin.Replayed, milder: tocsin.Rules, tmp_path: Path
) -> None:
    diff = tocsin.diff(made.past, made.rules, milder)
    alert_id = replayed.alerts()["alert_id"][0].as_py()
    explained = tocsin.explain(made.past, made.rules, alert_id)
    for shown, words in ((diff, "levels.hold_s"), (explained, "What happened")):
        text = tocsin.text(shown)
        assert words in text and "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 100
        assert not re.search(r" $", text, re.MULTILINE)
    report = tocsin.report(replayed, truth=INCIDENTS, strips=2, title="Two wells")
    for result, words in ((diff, "(new)"), (explained, alert_id), (report, "Two wells")):
        path = tocsin.write(result, tmp_path / "page.html")
        assert words in path.read_text() and "</html>" in path.read_text()
    with pytest.raises(tocsin.TocsinError, match="can't be written"):
        tocsin.write(report, tmp_path / "nowhere/page.html")


def test_a_study_is_kept_in_its_folder_and_gone_on_with(made: Given, tmp_path: Path) -> None:
    first = tocsin.tune(made.past, made.rules, SPACE, truth=INCIDENTS, folder=tmp_path / "study")
    again = tocsin.tune(made.past, made.rules, SPACE, truth=INCIDENTS, folder=tmp_path / "study")
    assert first.n_new > 0 == again.n_new
    assert first.table().equals(again.table())


def test_solving_tells_whether_and_how_the_goal_is_met(made: Given) -> None:
    solved = tocsin.solve(made.past, made.rules, max_rate=1e9)
    assert solved.met and solved.rules is not None and solved.changes().num_rows == 0
    assert "met, 1 settings" in repr(solved)
    hard = tocsin.solve(made.past, made.rules, truth=INCIDENTS, max_delay_s=1, turn=["on-delay"])
    assert not hard.met and "NOT met" in repr(hard)
    late = {row["source"]: row for row in hard.late().to_pylist()}
    assert late and all(row["delay_s"] is None or row["delay_s"] > 1 for row in late.values())
    figures = {row["figure"]: row for row in hard.figures().to_pylist()}
    assert hard.rules is not None
    final = tocsin.replay(made.past, hard.rules).figures()
    assert figures["alarms"]["final"] == final["alarms"][0].as_py()
    per_sensor = tocsin.solve(made.past, made.rules, truth=INCIDENTS[:1], per="sensor")
    assert per_sensor.own_limits().num_rows == len(per_sensor.of_sensors.own)  # type: ignore[union-attr]


def test_a_catalog_is_built_from_its_folder(made: Given, tmp_path: Path) -> None:
    built = tocsin.build_catalog(
        made.files.catalog.parent / "city", tmp_path / "again", partitions=2
    )
    assert built.digest == made.past.catalog.digest and built.sensors == len(SENSORS)


def test_the_example_of_the_page_runs(
    made: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"^```python\n(import .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "readings").mkdir()
    (tmp_path / "readings/day.parquet").write_bytes(made.readings.read_bytes())
    (tmp_path / "city.catalog").write_bytes(made.files.catalog.read_bytes())
    (tmp_path / "rules.toml").write_text(RULES)
    write_truth(tmp_path / "truth.csv")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(example, found)
    assert found["alerts"].num_rows == len(judge(made.past, made.rules).transitions)
    assert found["score"].num_rows == len(LEVELS)


def test_a_study_is_written_as_a_page(tmp_path: Path, made: Given) -> None:
    space = 'version = 1\n[[vary]]\nkey = "profiles.methane.limits.high.blue"\nvalues = [8, 10]\n'
    tocsin.tune(made.past, made.rules, space, folder=tmp_path / "study")
    page = tocsin.write(tocsin.study_report(tmp_path / "study"), tmp_path / "page.html")
    assert b"profiles.methane.limits.high.blue" in page.read_bytes()

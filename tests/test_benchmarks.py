"""The benchmarks themselves: honest workloads, a naive loop that agrees, a table without gaps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from benchmarks import bars, bench_records, bench_tune, report_once, tune_once
from benchmarks.__main__ import markdown
from benchmarks.bars import BARS, TUNE_BARS, Bar, Result
from benchmarks.bench_detect import Race
from benchmarks.bench_pipeline import SHARE, Bench
from benchmarks.bench_replay import Site, site
from benchmarks.limits import Lines
from benchmarks.measure import Measured, Spread, by_turns, ratios
from benchmarks.naive import NaiveLine
from benchmarks.tune_peers import contest as tune_contest
from benchmarks.tune_peers import frames, ours, sql
from benchmarks.tune_peers import naive as naive_loop
from benchmarks.tune_peers import race as tune_race
from benchmarks.tune_peers.contest import RULES as CONTEST_RULES
from benchmarks.tune_peers.contest import Contest, differing
from benchmarks.tune_spaces import SPACES
from benchmarks.workloads import BATCH, SWEEPS, Feed, city, plan_of, rules_text, with_ticks
from engine.analysis.past import Past, judge
from engine.plan import Plan, compile_plan
from engine.readings import Readings
from engine.rules import Rules
from kernels.layout import ABSENCE, COUNT_NAMES, KIND_NAMES, TICK

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="millions of readings need compiled kernels"
)

# what was promised, word for word but for units: bar and stretch
PROMISED = {
    "detect": (2.5, 1.8),
    "window": (4, 2.8),
    "pipeline": (20, 35),
    "naive": (4, 7),
    "replay": (12, 25),
    "memory": (400, None),
    "warm": (2, 1),
    "first": (60, 25),
    "resolve": (20, None),
}
PROMISED_OF_TUNING = {
    "limits": (30, 5),
    "windows": (6, 3),
    "naive": (2, 4),
    "polars": (8, None),
    "report": (5, None),
    "size": (5, None),
}


class Messy(Feed):
    """A feed with all that real ones have: bad, stuck, repeated, late and impossible readings."""

    def _send(self, sensor: np.ndarray, *, calm: bool = False) -> Readings:
        sent = super()._send(sensor, calm=calm)
        if calm:
            return sent
        rng, n = self.rng, len(sent)
        sensor, event_ms, value = sent.sensor.copy(), sent.event_ms.copy(), sent.value.copy()
        quality = (rng.random(n) < 0.01).astype(np.uint8)
        value[rng.random(n) < 0.01] = np.nan
        value[rng.random(n) < 0.01] = 1e9
        value[sensor % 10 == 0] = 5.0
        value[sensor % 10 == 1] = np.inf
        value += np.where(sensor % 10 == 2, self.sent / 4e5, 0.0)
        event_ms -= np.where(rng.random(n) < 0.1, rng.integers(0, 90_000, n), 0)
        event_ms[rng.random(n) < 0.001] += 1 << 40
        event_ms[rng.random(n) < 0.001] = 0
        event_ms[rng.random(n) < 0.001] = -5
        sensor[rng.random(n) < 0.001] = self.n_sensors + 7
        again = np.flatnonzero(rng.random(n - 1) < 0.01)
        for column in (sensor, event_ms, value, quality):
            column[again + 1] = column[again]
        return Readings(sensor, event_ms, value, quality)


def messy_plan(windowed: bool) -> Plan:
    rules = rules_text(windowed)
    for old, new in (
        ("flat_after_n = 600", "flat_after_n = 5"),
        ("high = { blue = 20,", "low = { blue = 4.6, yellow = 3.0 }\nhigh = { blue = 20,"),
        ("rise = { yellow = 60,", "rise = { blue = 2, yellow = 60,"),
        ("fall = { yellow = 60 }", "fall = { blue = 2, yellow = 60 }"),
        ("deadband = 5\nconfirm_n", "deadband = 1\nconfirm_n"),
        ("raise_at = { blue = 16 }", "raise_at = { blue = 6, yellow = 9 }"),
    ):
        rules = rules.replace(old, new)
    return compile_plan(city(500), Rules.parse(rules))


def levels_seen(race: Race, changes: list[np.ndarray]) -> set[str]:
    levels = np.concatenate([part["levels"] for part in changes])
    return {name for kind, name in enumerate(KIND_NAMES) if (levels >> 3 * kind & 7).any()}


@pytest.mark.parametrize("windowed", [False, True], ids=["plain", "windowed"])
def test_naive_loop_finds_what_the_kernels_find_in_a_messy_feed(windowed: bool) -> None:
    race = Race(messy_plan(windowed), Messy(500, outliers=0.02, incidents=0.001))
    for readings in race.feed.sweeps(SWEEPS):
        race.run_ours([readings])
        race.run_naive([readings])
    batches = race.feed.batches(6)
    race.run_ours(batches)
    race.run_naive(batches)
    # absence needs ticks, of which the naive loop knows nothing
    unseen = {KIND_NAMES[ABSENCE]} | (set() if windowed else {"window"})
    assert levels_seen(race, race.found["ours"]) == set(KIND_NAMES) - unseen
    race.check()
    assert race.n_changes > 10_000
    naive = dict(zip(COUNT_NAMES, race.naive.counts.tolist(), strict=True))
    assert naive == race.ours.line.counts
    assert all(count for name, count in naive.items() if name != "ticks")


def test_parity_check_notices_one_change_in_a_hundred_that_differs() -> None:
    race = Race(plan_of(500), Feed(500, outliers=0.01))
    batches = race.feed.batches(1)
    race.run_ours(batches)
    race.run_naive(batches)
    race.found["naive"][0][::100, 2] ^= 1
    with pytest.raises(AssertionError, match=r"differ in \d+ of \d+ changes"):
        race.check()


def test_naive_loop_refuses_rules_that_it_does_not_know() -> None:
    seasonal = rules_text().replace("memory_n = 64", 'memory_n = 64\nseason = "day"')
    with pytest.raises(ValueError, match="seasons"):
        NaiveLine(compile_plan(city(4), Rules.parse(seasonal)))
    highest = rules_text(windowed=True).replace('"mean"', '"max"')
    with pytest.raises(ValueError, match="means only"):
        NaiveLine(compile_plan(city(4), Rules.parse(highest)))


def test_feed_is_the_same_for_a_seed_and_its_time_never_turns_back() -> None:
    one, other = (Feed(1000, outliers=0.01, incidents=0.001).batches(3) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.sensor, b.sensor)
        assert np.array_equal(a.value, b.value)
    times = np.concatenate([readings.event_ms for readings in one])
    assert (np.diff(times) >= 0).all()
    shares = np.bincount(np.concatenate([readings.sensor for readings in one]), minlength=1000)
    assert 100 < shares.min() <= shares.max() < 300


def test_ticks_stand_before_the_first_reading_at_or_after_their_time() -> None:
    readings = Readings.of([5, 6, 7, 8], [1500, 2000, 2001, 4100], [0.0] * 4)
    log = with_ticks(readings, 1000, before_ms=900)
    assert list(zip(log.sensor.tolist(), log.event_ms.tolist(), strict=True)) == [
        (TICK, 1000), (5, 1500), (TICK, 2000), (6, 2000), (7, 2001), (TICK, 4000), (8, 4100),
    ]  # fmt: skip


def test_every_line_is_touched_once_a_reading() -> None:
    lines = Lines(100)
    batches = Feed(100).batches(2)
    lines.touch(batches)
    sensor = np.concatenate([readings.sensor for readings in batches])
    assert np.array_equal(lines.lines["count"], 1 + np.bincount(sensor, minlength=100))
    assert lines.lines.ctypes.data % 64 == 0


def test_a_thousandth_of_the_pipelines_readings_change_a_level() -> None:
    # as many readings to a sensor as at full size
    bench = Bench(10_000, n_settle=24)
    for messages in bench.inputs(2, 16):
        bench.run(messages)
    assert 0.8 * SHARE < bench.n_records / (32 * BATCH) < 1.25 * SHARE
    counts = bench.line.counts
    assert {name for name, count in counts.items() if count} == {"accepted", "ticks"}


def test_records_are_written_for_the_sources_and_sensors_that_were_drawn() -> None:
    bench = bench_records.Bench(100_000)
    batch = bench.batch(500)
    kinds, levels = (set(batch[name].tolist()) for name in ("kind", "level"))
    assert (kinds, levels) == ({0, 1, 2, 3}, {0, 1, 2, 3, 4})
    assert len(set(batch["source"].tolist())) > 480
    there = batch["contributor"]["sensor"] >= 0
    sources = np.broadcast_to(batch["source"][:, None], there.shape)
    assert (batch["contributor"]["sensor"][there] // 4 == sources[there]).all()
    keys, records = bench.records.write(batch)
    for record, key in zip(records, keys, strict=True):
        assert json.loads(record)["source"].encode() == key


def test_table_has_every_bar_that_was_promised_with_its_bounds() -> None:
    assert {bar.key: (bar.bar, bar.stretch) for bar in BARS} == PROMISED
    assert {bar.key: (bar.bar, bar.stretch) for bar in TUNE_BARS} == PROMISED_OF_TUNING


@pytest.mark.parametrize("bar", BARS + TUNE_BARS, ids=lambda bar: bar.key)
def test_every_bar_has_a_measuring_function(bar: Bar) -> None:
    assert callable(bar.function())


@pytest.mark.parametrize(
    ("key", "figure", "verdict"),
    [
        ("detect", 1.8, "stretch"),
        ("detect", 2.5, "bar"),
        ("detect", 2.51, "missed"),
        ("pipeline", 35, "stretch"),
        ("pipeline", 34.9, "bar"),
        ("pipeline", 19.9, "missed"),
        ("memory", 400, "bar"),
        ("memory", 401, "missed"),
    ],
)
def test_verdict_names_the_best_bound_that_is_reached(
    key: str, figure: float, verdict: str
) -> None:
    (bar,) = (bar for bar in BARS if bar.key == key)
    assert bar.verdict(figure) == verdict


def test_contestants_take_turns_on_the_same_input() -> None:
    seen: list[tuple[str, int]] = []
    contestants = {name: lambda given, n=name: seen.append((n, given)) for name in ("a", "b")}
    turns = by_turns(contestants, range(3), 10)
    assert seen == [(name, turn) for turn in range(3) for name in ("a", "b")]
    assert {name: len(figures) for name, figures in turns.items()} == {"a": 3, "b": 3}
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == Spread(3.0, 2.0, 4.0)


def test_what_goes_wrong_is_told_in_the_table_and_stops_no_other_bar() -> None:
    broken = Bar(key="x", what="x", bar=1, unit="s", measure="bars:measure")
    result = bars.measure(broken)
    assert result.verdict == "not measured"
    assert "TypeError" in result.cells()[4]
    assert result.as_dict()["problem"] == result.problem


def test_line_of_the_table_shows_bounds_figure_range_and_limit() -> None:
    (bar,) = (bar for bar in BARS if bar.key == "pipeline")
    found = Measured(figure=Spread(24.96, 20.04, 26.1), limit="touching 159 M/s")
    assert Result(bar=bar, measured=found).cells()[1:] == [
        "≥ 20 M readings/s", "≥ 35 M readings/s", "25 M readings/s (20 to 26.1)",
        "touching 159 M/s", "bar",
    ]  # fmt: skip


def run_benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_bar_that_is_not_there_is_refused_with_those_that_are() -> None:
    done = run_benchmarks("detekt")
    assert done.returncode == 2
    assert "no bar is called detekt" in done.stderr
    assert "pipeline" in done.stderr


def test_table_in_a_pipe_is_markdown_whose_cells_hold_no_bars_of_their_own() -> None:
    broken = Bar(key="x", what="a | b", bar=1, unit="s", measure="bars:measure")
    head, rule, line = markdown([bars.measure(broken)]).splitlines()
    assert head == "| what | bar | stretch | measured | limit in this run | verdict |"
    assert rule.count("---") == 6
    assert line.startswith("| a \\| b | ≤ 1 s |  | – | TypeError")
    assert line.endswith("| not measured |")


@pytest.mark.slow
def test_resolving_ids_is_measured_and_written_as_json() -> None:
    done = run_benchmarks("resolve", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)["bars"]
    assert line["key"] == "resolve"
    assert 0 < line["low"] <= line["measured"] <= line["high"]
    assert line["verdict"] in ("bar", "missed")


@pytest.mark.parametrize(("space", "n"), [("limits", 1000), ("statistics", 16), ("ladders", 16)])
def test_settings_of_a_space_all_differ_and_hold_the_rules_as_they_are(space: str, n: int) -> None:
    text = rules_text(windowed=True)
    settings = SPACES[space](text)
    assert len(settings) == len({rules.digest for rules in settings}) == n
    assert Rules.parse(text).digest in {rules.digest for rules in settings}


def lively(space: str, n_readings: int = 40_000, n_sensors: int = 200) -> Contest:
    """Return a contest with many incidents and outliers, a few of them at once."""
    readings = Feed(n_sensors, incidents=0.004, outliers=0.001).batch(n_readings)
    return Contest(readings, n_sensors, tuple(SPACES[space](CONTEST_RULES)))


@pytest.mark.parametrize("space", ["statistics", "ladders"])
def test_naive_loop_over_settings_finds_every_episode_that_the_sweep_finds(space: str) -> None:
    contest = lively(space)
    mine, theirs = ours.run(contest), naive_loop.run(contest)
    assert len(mine) > 1000
    assert set(mine["setting"].tolist()) == set(range(16))
    assert set(mine["peak"].tolist()) == {1, 2, 3, 4}
    assert differing(mine, theirs, "setting", "sensor", "start_ms", "peak") == 0
    # settings differ in what they find, or there would be nothing to compare
    assert len({mine[mine["setting"] == j]["start_ms"].tobytes() for j in range(16)}) > 3


def test_naive_loop_makes_room_for_all_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    contest = lively("ladders", 10_000, 50)
    whole = naive_loop.run(contest)
    monkeypatch.setattr(naive_loop, "ROOM", 3)
    assert np.array_equal(naive_loop.run(contest), whole)


@pytest.mark.parametrize(
    ("run", "off"), [(frames.run, 0.05), (sql.run, 0.1)], ids=["polars", "duckdb"]
)
def test_queries_find_nearly_the_episodes_that_the_sweep_finds(run: Any, off: float) -> None:
    contest = tune_race.contest_of("ladders", 60_000, 300)
    mine, theirs = ours.run(contest), run(contest)
    assert len(mine) > 10
    assert differing(mine, theirs, "setting", "sensor", "start_ms") <= off


def test_race_is_called_off_where_an_episode_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    contest = lively("ladders", 10_000, 50)
    mine = ours.run(contest)
    tune_race.compare(mine, mine.copy())
    later = mine.copy()
    later["start_ms"][0] += 1
    lower = mine.copy()
    lower["peak"][-1] -= 1
    for theirs in (later, lower, mine[1:]):
        with pytest.raises(AssertionError, match="ours and the naive loop differ"):
            tune_race.compare(mine, theirs)
    with pytest.raises(AssertionError, match="no episodes"):
        tune_race.compare(mine[:0], mine[:0])
    monkeypatch.setitem(tune_race.QUERIES, "polars", lambda contest: mine[: len(mine) // 2])
    with pytest.raises(AssertionError, match="polars finds"):
        tune_race.check(contest)


def test_race_gives_every_contestant_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_contest, "INCIDENTS", 0.001)
    found = tune_race.race("ladders", 40_000, 200, 2, 20_000)
    assert [len(found[f"{name}_ns"]) for name in ("ours", "naive", "polars", "duckdb")] == [
        2,
        2,
        2,
        1,
    ]
    assert sum(found["episodes_of"]) > found["episodes"] > 0
    measured = bench_tune._over_ours("naive", {"statistics": found, "ladders": found})
    assert measured.figure.low == min(
        theirs / mine for theirs, mine in zip(found["naive_ns"], found["ours_ns"], strict=True)
    )


@pytest.fixture(scope="module")
def hamlet() -> Iterator[Site]:
    """A site of three hundred sensors."""
    with site(300) as made:
        yield made


def test_settings_are_tried_over_a_file_as_they_are_replayed(hamlet: Site) -> None:
    history = hamlet.history(60_000)
    settings = SPACES["limits"](rules_text())[::97]
    found = tune_once.tried(hamlet.folder, history, settings, 2)
    assert found["readings"] == 60_000
    past = Past.open(hamlet.folder / "city.catalog", history)
    assert found["alerts"] == [len(judge(past, rules).steps) for rules in settings]
    assert len(set(found["alerts"])) > 3
    assert 0 < found["read_s"] < found["wall_s"] == found["read_s"] + found["try_s"]


def test_trying_is_told_in_replays_with_the_alerts_of_each_setting() -> None:
    found = {
        "replay_s": [1.0, 2.0, 1.0], "wall_s": [4.0, 6.0, 5.0], "read_s": [1.0, 1.0, 1.0],
        "try_s": [3.0, 5.0, 4.0], "cpu_s": [6.0, 9.0, 8.0], "alerts": [10, 4000, 7],
        "peak_bytes": 10**9,
    }  # fmt: skip
    measured = bench_tune.against_replay(found)
    assert measured.figure == Spread(4.0, 3.0, 5.0)
    assert "7 to 4,000 alerts a setting" in measured.limit
    assert measured.details["settings"] == 3


def test_sweep_whose_plain_setting_alerts_otherwise_than_a_replay_is_refused(
    hamlet: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = {"wall_s": 1, "read_s": 1, "try_s": 1, "cpu_s": 1, "alerts": [5] * 1000}
    monkeypatch.setattr(bench_tune, "started", lambda *given: tried)
    monkeypatch.setattr(hamlet, "replay", lambda n: {"wall_s": [1.0], "alerts": 6})
    with pytest.raises(AssertionError, match="a replay gives 6 alerts, the sweep 5"):
        bench_tune.by_turns(hamlet, "limits", 60_000, windowed=False, turns=1)


def test_report_of_many_episodes_is_written_and_weighed(hamlet: Site) -> None:
    history = bench_tune.many_episodes(hamlet, 20_000, 0.01)
    found = report_once.reported(hamlet.folder, history, 2)
    assert found["episodes"] > 50
    assert len(found["report_s"]) == 2
    assert found["bytes"] == len((hamlet.folder / "report.html").read_bytes()) > 100_000


def test_report_of_too_few_episodes_is_refused() -> None:
    with pytest.raises(AssertionError, match="9,999 episodes only"):
        bench_tune._of_many({"episodes": 9_999})
    assert bench_tune._of_many({"episodes": 10_000})


@pytest.mark.slow
def test_tuning_is_measured_against_a_replay_and_the_others_in_processes_of_their_own() -> None:
    small = {"n_readings": 60_000, "n_sensors": 300, "turns": 1}
    limits, windows = bench_tune.measure_limits(**small), bench_tune.measure_windows(**small)
    assert limits.details["settings"] == 1000
    assert windows.details["settings"] == windows.details["ladders"]["settings"] == 16
    for measured in (
        bench_tune.measure_naive(**small, n_checked=60_000),
        bench_tune.measure_polars(**small, n_checked=60_000),
    ):
        assert measured.figure.median > 0
        assert measured.details["readings"] == 60_000


def test_tuning_has_a_table_of_its_own() -> None:
    command = [sys.executable, "-m", "benchmarks.tune", "detect"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there are limits, windows, naive, polars, report, size" in done.stderr

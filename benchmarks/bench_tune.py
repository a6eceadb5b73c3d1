"""Time trying many settings over one history: against one replay of it, and against what is else.

Each measurement is a process of its own. A replay has one core, as in `bench_replay`; trying has
two, reads the same file, and its seconds, like the replay's, are those of a clock on the wall. In
the race everyone has one core and readings in memory, and is held to CPU time. A report has one
core; its seconds are the wall's, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.bench_replay import N_READINGS, N_SENSORS, ROOT, Site, site
from benchmarks.measure import Measured, Spread, best_over_best, ratios
from benchmarks.tune_spaces import SPACES
from benchmarks.workloads import Feed, rules_text
from engine.rules import Rules

N_TURNS = 3
N_SHORT = 100_000
"""Readings to warm the kernels up with."""
N_CHECKED = 2_000_000
"""Readings over which all of the race are compared."""
THREADS = 2
REPORT_EPISODES, REPORT_SENSORS, REPORT_READINGS = 10_000, 20_000, 4_000_000
REPORT_INCIDENTS = 0.0035
"""Share of readings with which an incident begins."""
ONE_THREAD = {"POLARS_MAX_THREADS": "1"}
"""Polars takes it when it is imported."""


def started(module: str, *given: Any) -> dict[str, Any]:
    """Run a module in a process of its own; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, given)],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def by_turns(
    made: Site, space: str, n_readings: int, *, windowed: bool, turns: int = N_TURNS,
    threads: int = THREADS,
) -> dict[str, Any]:  # fmt: skip
    """Replay a history and try a space of settings over it, by turns.

    Returns the seconds of each turn; AssertionError where the setting that is the rules as they
    are gives another number of alerts than the replay.
    """
    text = rules_text(windowed)
    (made.folder / "rules.toml").write_text(text, encoding="utf-8")
    history, short = made.history(n_readings), made.history(min(N_SHORT, n_readings))
    plain = SPACES[space](text).index(Rules.parse(text))
    found: dict[str, Any] = {"replay_s": [], "wall_s": [], "read_s": [], "try_s": [], "cpu_s": []}
    for _ in range(turns):
        replayed = made.replay(n_readings)
        found["replay_s"] += replayed["wall_s"]
        tried = started("tune_once", made.folder, history, short, space, threads)
        for name in ("wall_s", "read_s", "try_s", "cpu_s"):
            found[name].append(tried[name])
        if not replayed["alerts"] or tried["alerts"][plain] != replayed["alerts"]:
            raise AssertionError(
                f"a replay gives {replayed['alerts']} alerts, the sweep {tried['alerts'][plain]}"
            )
    return found | {"alerts": tried["alerts"], "peak_bytes": tried["peak_bytes"]}


def against_replay(found: dict[str, Any]) -> Measured:
    """Return the seconds of trying all settings over those of one replay."""
    seconds = {
        name: Spread.of(found[name]).median
        for name in ("replay_s", "wall_s", "read_s", "try_s", "cpu_s")
    }
    least, most = min(found["alerts"]), max(found["alerts"])
    return Measured(
        figure=ratios(found["wall_s"], found["replay_s"]),
        limit=f"one replay {seconds['replay_s']:.2f} s; reading {seconds['read_s']:.2f} s, trying"
        f" {seconds['try_s']:.2f} s; {least:,} to {most:,} alerts a setting",
        details={
            **seconds,
            "settings": len(found["alerts"]),
            "alerts_least": least,
            "alerts_most": most,
            "alerts": sum(found["alerts"]),
            "best_over_best": best_over_best(found["wall_s"], found["replay_s"]),
            "peak_mb": found["peak_bytes"] / 1e6,
        },
    )


def measure_limits(
    n_readings: int = N_READINGS, n_sensors: int = N_SENSORS, turns: int = N_TURNS
) -> Measured:
    """Return what a thousand settings of limits, deadband and delays take, in replays."""
    with site(n_sensors) as made:
        return against_replay(by_turns(made, "limits", n_readings, windowed=False, turns=turns))


def measure_windows(
    n_readings: int = N_READINGS, n_sensors: int = N_SENSORS, turns: int = N_TURNS
) -> Measured:
    """Return what sixteen settings take, in replays, whose windows and deviations all differ."""
    with site(n_sensors) as made:
        found = {
            space: against_replay(by_turns(made, space, n_readings, windowed=True, turns=turns))
            for space in ("statistics", "ladders")
        }
    figure, other = found["statistics"], found["ladders"].figure
    return Measured(
        figure=figure.figure,
        limit=f"{figure.limit}; where only their limits differ {other.median:.2f} ×",
        details={**figure.details, "ladders": dict(found["ladders"].details)},
    )


def measure_race(
    n_readings: int = N_READINGS,
    n_sensors: int = N_SENSORS,
    turns: int = N_TURNS,
    n_checked: int = N_CHECKED,
) -> dict[str, dict[str, Any]]:
    """Return, by space of settings, the turns of each contestant in ns a reading."""
    return {
        space: started("tune_peers.race", space, n_readings, n_sensors, turns, n_checked)
        for space in ("statistics", "ladders")
    }


raced = cache(measure_race)


def many_episodes(made: Site, n_readings: int, incidents: float = REPORT_INCIDENTS) -> Path:
    """Write a history with an incident for every few hundred readings; return the file."""
    path = made.folder / f"many-{n_readings}.parquet"
    readings = Feed(made.n_sensors, incidents=incidents).batch(n_readings)
    sensor = pa.array(made.names).take(pa.array(readings.sensor))
    columns = {"sensor": sensor, "event_ms": readings.event_ms, "value": readings.value}
    pq.write_table(pa.table(columns), path)
    return path


@cache
def measure_reports(
    n_readings: int = REPORT_READINGS, n_sensors: int = REPORT_SENSORS, turns: int = N_TURNS
) -> dict[str, Any]:
    """Return what reports of a history of many episodes take: seconds of each turn, and bytes."""
    with site(n_sensors) as made:
        short, history = (many_episodes(made, n) for n in (n_readings // 40, n_readings))
        return started("report_once", made.folder, history, short, turns)


def measure_report(**sizes: int) -> Measured:
    """Return the seconds of a report of 10,000 episodes, those of judging the history excluded."""
    found = _of_many(measure_reports(**sizes))
    return Measured(
        figure=Spread.of(found["report_s"]),
        limit=f"{found['episodes']:,} episodes, judged in {found['judge_s']:.2f} s before",
        details=found,
    )


def measure_size(**sizes: int) -> Measured:
    """Return the megabytes of that report."""
    found = _of_many(measure_reports(**sizes))
    return Measured(
        figure=Spread.of([found["bytes"] / 1e6]),
        limit=f"{found['episodes']:,} episodes",
        details=found,
    )


def _of_many(found: dict[str, Any], least: int = REPORT_EPISODES) -> dict[str, Any]:
    if found["episodes"] < least:
        raise AssertionError(f"the workload is wrong: {found['episodes']:,} episodes only")
    return found


def measure_naive(**sizes: int) -> Measured:
    """Return the naive loop's time over ours, sixteen settings of different statistics."""
    return _over_ours("naive", raced(**sizes))


def measure_polars(**sizes: int) -> Measured:
    """Return polars' time over ours, sixteen settings of different statistics."""
    return _over_ours("polars", raced(**sizes))


def _over_ours(name: str, found: dict[str, dict[str, Any]]) -> Measured:
    """Return a contestant's time over ours."""
    of, other = found["statistics"], found["ladders"]
    ns = {key: Spread.of(figures).median for key, figures in of.items() if key.endswith("_ns")}
    ladders = ratios(other[f"{name}_ns"], other["ours_ns"]).median
    duckdb = ns["duckdb_ns"] / ns["ours_ns"]
    return Measured(
        figure=ratios(of[f"{name}_ns"], of["ours_ns"]),
        limit=f"ours {ns['ours_ns']:.0f} ns a reading, {name} {ns[f'{name}_ns']:.0f} ns, duckdb"
        f" {duckdb:.0f} × ours; where only limits differ {ladders:.1f} ×",
        details={
            **ns,
            "readings": of["readings"],
            "episodes": sum(of["episodes_of"]),
            "best_over_best": best_over_best(of[f"{name}_ns"], of["ours_ns"]),
            "where_only_limits_differ": ladders,
            "ladders": {
                key: Spread.of(figures).median
                for key, figures in other.items()
                if key.endswith("_ns")
            },
        },
    )


@pytest.fixture(scope="module")
def small_site() -> Iterator[Site]:
    """A city whose histories are short."""
    with site(5_000) as made:
        yield made


@pytest.mark.parametrize("space", SPACES)
def bench_tune__parquet(benchmark: Any, small_site: Site, space: str) -> None:
    """Try a space of settings over a million readings, the whole process."""
    text = rules_text(windowed=space != "limits")
    (small_site.folder / "rules.toml").write_text(text, encoding="utf-8")
    given = (small_site.folder, small_site.history(1_000_000), small_site.history(N_SHORT))
    benchmark.pedantic(started, ("tune_once", *given, space, THREADS), rounds=3)


@pytest.mark.parametrize("name", ["ours", "naive", "frames", "sql"])
def bench_tune__race(benchmark: Any, name: str) -> None:
    """Try sixteen settings over 300,000 readings in memory."""
    from importlib import import_module

    from benchmarks.tune_peers.race import N_WARM, contest_of

    run = import_module(f"benchmarks.tune_peers.{name}").run
    run(contest_of("statistics", N_WARM, 100))
    benchmark.pedantic(run, (contest_of("statistics", 300_000, 1500),), rounds=3)

"""Ours, the naive loop, polars and duckdb over one history in memory: what `bench_tune` starts.

All on one core, by turns, each turn from readings in the log's order to episodes. What they find is
compared first.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import by_turns, cpu_ns, pin_to_one_core
from benchmarks.tune_peers import frames, naive, ours, sql
from benchmarks.tune_peers.contest import RULES, Contest, differing
from benchmarks.tune_spaces import SPACES

Array = np.ndarray[Any, Any]

MOST_DIFFERING = 1e-3
"""Share of the naive loop's episodes that may differ: we keep float32, it keeps float64."""
MOST_OFF = 0.15
"""Share by which the number of episodes of queries may be off: they are near to the rules only."""
N_WARM = 20_000
QUERIES: dict[str, Callable[[Contest], Array]] = {"polars": frames.run, "duckdb": sql.run}


def contest_of(space: str, n_readings: int, n_sensors: int) -> Contest:
    """Return the history and the settings of a space."""
    return Contest.of(n_readings, n_sensors, SPACES[space](RULES))


def compare(mine: Array, theirs: Array) -> None:
    """Raise AssertionError unless there are episodes, of the same starts and peaks."""
    if not len(mine):
        raise AssertionError("the workload is wrong: there are no episodes")
    share = differing(mine, theirs, "setting", "sensor", "start_ms", "peak")
    if share > MOST_DIFFERING:
        raise AssertionError(
            f"ours and the naive loop differ in {share:.2%} of {len(theirs):,} episodes"
        )


def check(contest: Contest) -> dict[str, Any]:
    """Return how many episodes each contestant finds; AssertionError where they are not the same.

    Starts and peaks for the naive loop, the number for the queries.
    """
    mine = ours.run(contest)
    compare(mine, naive.run(contest))
    found: dict[str, Any] = {"episodes": len(mine)}
    for name, run in QUERIES.items():
        n = len(run(contest))
        if abs(n - len(mine)) > MOST_OFF * len(mine):
            raise AssertionError(f"{name} finds {n:,} episodes where ours finds {len(mine):,}")
        found[f"{name}_episodes"] = n
    return found


def race(
    space: str, n_readings: int, n_sensors: int, n_turns: int, n_checked: int
) -> dict[str, Any]:
    """Return the ns a reading of each contestant, the system's part of them, and what they found.

    duckdb, many times slower, has one turn on the history that the check is made on: as many
    readings to a sensor, fewer sensors.
    """
    small = contest_of(space, n_checked, max(1, n_sensors * n_checked // n_readings))
    found = check(small)  # which compiles, too
    found["duckdb_ns"] = [cpu_ns(sql.run, small) / n_checked]
    contest = contest_of(space, n_readings, n_sensors)
    contest.catalog  # noqa: B018 - is made before anything is timed
    last: dict[str, Array] = {}
    system_ns: dict[str, list[float]] = {}

    def keeping(name: str, run: Callable[[Contest], Array]) -> Callable[[Contest], object]:
        def turn(given: Contest) -> None:
            before_s = os.times().system
            last[name] = run(given)
            took_ns = (os.times().system - before_s) * 1e9 / n_readings
            system_ns.setdefault(f"{name}_system_ns", []).append(took_ns)

        return turn

    runs = {"ours": ours.run, "naive": naive.run, "polars": frames.run}
    contestants = {name: keeping(name, run) for name, run in runs.items()}
    turns = by_turns(contestants, [contest] * n_turns, n_readings)
    compare(last["ours"], last["naive"])
    counts = np.bincount(last["ours"]["setting"], minlength=len(contest.settings))
    found |= {f"{name}_ns": figures for name, figures in turns.items()}
    found["store_ns"] = [cpu_ns(ours.store_of, contest) / n_readings]
    return {**found, **system_ns, "readings": n_readings, "episodes_of": counts.tolist()}


def main() -> None:
    """Run the race in this process and print what it took as JSON."""
    pin_to_one_core()
    import polars

    if polars.thread_pool_size() != 1:
        raise RuntimeError("POLARS_MAX_THREADS must be 1")
    space, *numbers = sys.argv[1:]
    json.dump(race(space, *map(int, numbers)), sys.stdout)


if __name__ == "__main__":
    main()

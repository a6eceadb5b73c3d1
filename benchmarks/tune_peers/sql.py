"""The same as SQL on duckdb: window functions by sensor.

As in `frames`, what settings have in common is computed once, a window ends at the reading, and
only starts are found. No recursion over rows is fast enough for a running level: a deviation is
held against the mean, and the mean absolute residual, of the last readings instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.tune_peers.contest import Asked, Contest, episodes_of

Array = np.ndarray[Any, Any]

WINDOWS = """
WINDOW by_sensor AS (PARTITION BY sensor ORDER BY event_ms),
so_far AS (PARTITION BY sensor ORDER BY event_ms ROWS UNBOUNDED PRECEDING)
"""


def run(contest: Contest) -> Array:
    """Return the (E,) EPISODE of every setting, without peaks."""
    import duckdb

    readings, n = contest.readings, len(contest.settings)
    columns = {name: getattr(readings, name) for name in ("sensor", "event_ms", "value")}
    found = []
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("log", pa.table(columns))
        *before, last = steps(contest.asked())
        named = ", ".join(f"step_{number} AS ({step})" for number, step in enumerate(before))
        connection.execute(f"CREATE TEMP TABLE found AS WITH {named} {last}")
        for setting in range(n):
            connection.execute(f"SELECT sensor, event_ms FROM found WHERE begins_{setting}")
            starts = connection.fetchnumpy()
            found.append(episodes_of(setting, starts["sensor"], starts["event_ms"]))
    return np.concatenate(found)


def steps(asked: list[Asked]) -> list[str]:
    """Return the queries, each over the table of the one before."""
    names = _names(asked)
    distinct = {name: one for one, mine in zip(asked, names, strict=True) for name in mine}
    limits, windows, deviations = (
        {name: one for name, one in distinct.items() if name.startswith(kind)} for kind in "lwd"
    )
    turned = [
        *(f"CASE WHEN beyond_{name} AND event_ms - beyond_{name}_ms >= {one.on_ms} THEN true"
          f" WHEN inside_{name} AND event_ms - inside_{name}_ms >= {one.off_ms} THEN false END"
          f" AS turns_{name}" for name, one in limits.items()),
        *(f"CASE WHEN NOT coalesce(event_ms - back_{one.min_n}_ms < {one.length_ms}, false) OR"
          f" mean_{one.length_ms} < {one.window[1]} THEN false WHEN mean_{one.length_ms} >="
          f" {one.window[0]} THEN true END AS turns_{name}" for name, one in windows.items()),
        *(f"CASE WHEN {_confirmed(name, one)} THEN true WHEN residual_{one.memory_n} <"
          f" {one.z[1]} * greatest(scale_{one.memory_n}, {one.least}) THEN false END"
          f" AS turns_{name}" for name, one in deviations.items()),
    ]  # fmt: skip
    ups = [f"({' OR '.join(mine)}) AS up_{j}" for j, mine in enumerate(names)]
    latches = [
        f"coalesce(last_value(turns_{name} IGNORE NULLS) OVER so_far, false) AS {name}"
        for name in distinct
    ]
    begins = [
        f"(up_{j} AND NOT lag(up_{j}, 1, false) OVER by_sensor) AS begins_{j}"
        for j in range(len(asked))
    ]
    return [
        "SELECT * FROM log ORDER BY sensor, event_ms",
        *_statistics(asked, limits, deviations),
        f"SELECT sensor, event_ms, {', '.join(turned)} FROM step_4",
        f"SELECT sensor, event_ms, {', '.join(latches)} FROM step_5 {WINDOWS}",
        f"SELECT sensor, event_ms, {', '.join(begins)}"
        f" FROM (SELECT *, {', '.join(ups)} FROM step_6) {WINDOWS}",
    ]


def _statistics(
    asked: list[Asked], limits: dict[str, Asked], deviations: dict[str, Asked]
) -> list[str]:
    """Return the queries from readings to statistics, conditions, and when these began."""
    lengths_ms = sorted({one.length_ms for one in asked})
    memories_n = sorted({one.memory_n for one in asked})
    lasting = {
        ms: f"(PARTITION BY sensor ORDER BY event_ms RANGE BETWEEN {ms - 1} PRECEDING"
        " AND CURRENT ROW)" for ms in lengths_ms
    }  # fmt: skip
    last = {
        n: f"(PARTITION BY sensor ORDER BY event_ms ROWS BETWEEN {n} PRECEDING AND 1 PRECEDING)"
        for n in memories_n
    }
    statistics = [
        "row_number() OVER by_sensor AS n",
        *(f"avg(value) OVER {of} AS mean_{ms}" for ms, of in lasting.items()),
        *(f"lag(event_ms, {n - 1}) OVER by_sensor AS back_{n}_ms"
          for n in sorted({one.min_n for one in asked})),
        *(f"avg(value) OVER {of} AS level_{n}" for n, of in last.items()),
    ]  # fmt: skip
    residuals = [f"abs(value - level_{n}) AS residual_{n}" for n in memories_n]
    scales = [f"avg(residual_{n}) OVER {of} AS scale_{n}" for n, of in last.items()]
    conditions = {
        **{f"beyond_{name}": f"value >= {one.limit[0]}" for name, one in limits.items()},
        **{f"inside_{name}": f"value < {one.limit[1]}" for name, one in limits.items()},
        **{
            f"beyond_{name}": f"n > {one.warmup_n} AND residual_{one.memory_n} >="
            f" {one.z[0]} * greatest(scale_{one.memory_n}, {one.least})"
            for name, one in deviations.items()
        },
    }
    held = [f"({condition}) AS {name}" for name, condition in conditions.items()]
    # where the condition did not hold one reading ago it begins, and began last where it does now
    sinces = [
        f"max(CASE WHEN {name} AND NOT was_{name} THEN event_ms END) OVER so_far AS {name}_ms"
        for name in conditions
        if "_d" not in name
    ]
    was = [f"lag({name}, 1, false) OVER by_sensor AS was_{name}" for name in conditions]
    return [
        f"SELECT *, {', '.join(statistics)} FROM step_0 {WINDOWS}",
        f"SELECT *, {', '.join(scales)} FROM (SELECT *, {', '.join(residuals)} FROM step_1)",
        f"SELECT *, {', '.join(was)} FROM (SELECT *, {', '.join(held)} FROM step_2) {WINDOWS}",
        f"SELECT *, {', '.join(sinces)} FROM step_3 {WINDOWS}",
    ]


def _confirmed(name: str, asked: Asked) -> str:
    if asked.confirm_n > 2:
        raise ValueError("the query confirms by one reading before, or none")
    return f"beyond_{name}" + (f" AND was_beyond_{name}" if asked.confirm_n == 2 else "")


def _names(asked: list[Asked]) -> list[list[str]]:
    """Return what limits, window and deviation of each are called: alike where they are."""
    numbers: dict[tuple[Any, ...], str] = {}
    found = []
    for one in asked:
        keys = (
            ("l", one.limit, one.on_ms, one.off_ms),
            ("w", one.length_ms, one.min_n, one.window),
            ("d", one.memory_n, one.warmup_n, one.least, one.z, one.confirm_n),
        )
        found.append([numbers.setdefault(key, f"{key[0]}{len(numbers)}") for key in keys])
    return found

"""Histories for tests of reports: the small city's, a hostile one, one of many episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.analysis.past import Judged, Past, judge
from engine.analysis.reports import Report, report_of
from engine.catalog_build import build_catalog
from engine.rules_check import load
from engine.truth import Incident
from tests.cities import coupling, sensor, source, write_folder
from tests.engine.histories import write
from tests.engine.replays import BEGIN_MS, RULES, city, readings

MINUTE_MS = 60_000
HOSTILE = '</script><img src=x onerror="window.pwned=1">\'{b|x}&amp;${1}'
INCIDENTS = (
    Incident(
        source="well-1",
        start_ms=BEGIN_MS,
        end_ms=BEGIN_MS + 2 * MINUTE_MS,
        kind="leak",
        level="red",
    ),
    Incident(
        source="plant",
        start_ms=BEGIN_MS + 6 * MINUTE_MS + 50_000,
        end_ms=BEGIN_MS + 6 * MINUTE_MS + 55_000,
        kind="fire",
        about="nobody noticed",
    ),
    Incident(source="elsewhere", start_ms=BEGIN_MS, end_ms=BEGIN_MS + 1, kind="leak"),
)


def small(folder: Path, n: int = 1200, rules: str = RULES) -> tuple[Past, Judged]:
    """Return the small city's history and what its rules made of it."""
    made = city(folder)
    made.rules.write_text(rules)
    table = readings(n) if n else readings(1).slice(0, 0)
    past = Past.open(made.catalog, write(folder / "day.parquet", table, row_group_size=100))
    return past, judge(past, load(made.rules))


def small_report(folder: Path, **options: Any) -> Report:
    """Return a report of the small city."""
    past, judged = small(folder)
    return report_of(judged, past, **options)


def hostile(folder: Path) -> tuple[Past, Judged]:
    """Return a history in which every name that a site gives would like to be code."""
    sources = [
        source(
            HOSTILE + str(i), name=HOSTILE, department=HOSTILE, district=HOSTILE, owner=HOSTILE,
            category="gas_valve",
        )
        for i in range(2)
    ]  # fmt: skip
    sensors = [sensor(f"{HOSTILE}/s{i}", HOSTILE + str(i), unit="%LEL", period_s=1.0)
               for i in range(2)]  # fmt: skip
    write_folder(
        folder / "city", sources, sensors, [coupling(HOSTILE + "0", HOSTILE + "1")],
    )  # fmt: skip
    build_catalog(folder / "city", folder / "city.catalog", 1, None)
    rules = folder / "rules.toml"
    rules.write_text(RULES.replace('"Two wells and a factory"', f"'''{HOSTILE}'''"))
    n = 600
    table = pa.table(
        {
            "sensor": [f"{HOSTILE}/s{i % 2}" for i in range(n)],
            "event_ms": BEGIN_MS + 1000 * np.arange(n),
            "value": 30 + 30 * np.sin(np.arange(n) / 20),
        }
    )
    past = Past.open(folder / "city.catalog", write(folder / "day.parquet", table))
    return past, judge(past, load(rules))


def busy(folder: Path, n_sources: int = 500, n_each: int = 20) -> tuple[Past, Judged]:
    """Return a history of a month with `n_sources * n_each` episodes."""
    names = [f"well-{i:05}" for i in range(n_sources)]
    sources = [source(name, department=f"Office {i % 7}") for i, name in enumerate(names)]
    sensors = [sensor(f"{name}/ch4", name, unit="%LEL", period_s=600.0) for name in names]
    write_folder(folder / "city", sources, sensors)
    build_catalog(folder / "city", folder / "city.catalog", 4, None)
    rules = folder / "rules.toml"
    rules.write_text(RULES.replace("absent_after = 3", "absent_after = 1000"))
    rng = np.random.default_rng(5)
    per_day = 144
    n_times = 30 * per_day
    value = 3 + rng.normal(0, 1, (n_times, n_sources))
    for column in range(n_sources):
        begins = 4 + np.sort(rng.choice(n_times // 20 - 1, n_each, replace=False)) * 20
        for begin in begins:
            value[begin : begin + rng.integers(1, 8), column] = rng.choice([12, 25, 35, 60])
    at = BEGIN_MS + 600_000 * np.arange(n_times)[:, None] + 1000 * np.arange(n_sources)
    table = pa.table(
        {
            "sensor": pa.DictionaryArray.from_arrays(
                np.tile(np.arange(n_sources, dtype=np.int32), n_times),
                [sensor["sensor_id"] for sensor in sensors],
            ).cast(pa.string()),
            "event_ms": at.ravel(),
            "value": value.ravel(),
        }
    )
    past = Past.open(folder / "city.catalog", write(folder / "month.parquet", table))
    return past, judge(past, load(rules))

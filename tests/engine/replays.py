"""A small city for tests of replays: two gas wells and a factory, a history that alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from engine import snapshot
from engine.catalog import Catalog
from engine.catalog_build import build_catalog
from engine.pipeline import Pipeline
from engine.plan import compile_plan
from engine.replay import Job, Replay, Snapshots
from engine.rules_check import load
from tests.cities import coupling, sensor, source, write_folder
from tests.engine.histories import write

RULES = """
version = 1
name = "Two wells and a factory"

[time]
tick_s = 10
late_after_s = 30
max_ahead_s = 600
max_late_s = 3600

[levels]
hold_s = 20

[profiles.methane]
unit = "%LEL"
range = [0, 100]
[profiles.methane.limits]
high = { blue = 10, yellow = 20, orange = 30, red = 50 }
deadband = 1
off_delay_s = 10
[profiles.methane.liveness]
absent_after = 3

[profiles.temperature]
unit = "degC"
[profiles.temperature.limits]
high = { yellow = 40, red = 60 }
deadband = 2

[fusion]
half_life_s = 5

[coupling]
influence = { pipe = 0.5 }
"""
WELLS = ("well-1", "well-2")
SENSORS = ("well-1/ch4", "well-1/t", "well-2/ch4", "plant/t")
BEGIN_MS = 1_714_521_600_000


class City(NamedTuple):
    """Files of a small city."""

    catalog: Path
    rules: Path


def city(folder: Path) -> City:
    """Write the city's catalog and rules."""
    sources = [source("well-1"), source("well-2"), source("plant", category="factory")]
    sensors = [
        sensor("well-1/ch4", "well-1", unit="%LEL", period_s=1.0),
        sensor("well-1/t", "well-1", quantity="temperature", unit="degC", period_s=1.0),
        sensor("well-2/ch4", "well-2", unit="%LEL", period_s=1.0),
        sensor("plant/t", "plant", quantity="temperature", unit="degC", period_s=1.0),
    ]
    write_folder(folder / "city", sources, sensors, [coupling("well-1", "well-2")])
    build_catalog(folder / "city", folder / "city.catalog", 2, None)
    (folder / "rules.toml").write_text(RULES)
    return City(folder / "city.catalog", folder / "rules.toml")


def readings(n: int = 1200, seed: int = 7, *, start_s: int = 0) -> pa.Table:
    """Return a history with gas rising and falling, gaps, bad and late readings, a stranger."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(SENSORS), n)
    event_ms = BEGIN_MS + 1000 * start_s + 250 * np.arange(n)
    swing = 25 + 35 * np.sin(np.arange(n) / 60 + which)
    value = np.where(rng.random(n) < 0.02, np.nan, swing + rng.normal(0, 1, n))
    late = rng.random(n) < 0.03
    event_ms = event_ms - late * rng.integers(0, 60_000, n)
    event_ms[n // 2 :] += 120_000  # nobody says a word for two minutes
    names = np.array([*SENSORS, "stranger"])[np.where(rng.random(n) < 0.01, len(SENSORS), which)]
    quality = np.where(rng.random(n) < 0.01, 4, 0).astype(np.uint8)
    return pa.table(
        {"sensor": names, "event_ms": event_ms, "value": value, "quality": pa.array(quality)}
    )


def job(of: City, *paths: Path, **options: Any) -> Job:
    """Return a job over some files of the city."""
    return Job(readings=paths, catalog=of.catalog, rules=of.rules, **options)


def prepared(
    of: Job, *, clock: Callable[[], float] | None = None, rules: str | None = None
) -> Replay:
    """Return a replay of the real line, its clock perhaps a test's."""
    if rules is not None:
        path = of.rules.with_name("other.toml")
        path.write_text(rules)
        of = replace(of, rules=path)
    catalog = Catalog.open(of.catalog)
    plan = compile_plan(catalog, load(of.rules))
    line = Pipeline(plan, threads=of.threads)
    options = {} if clock is None else {"clock": clock}
    return Replay(of, catalog, plan, line, Snapshots(snapshot.save, snapshot.load), **options)


def one_file(folder: Path, **options: Any) -> Path:
    """Write a history into one file."""
    return write(folder / "day.parquet", readings(**options), row_group_size=100)

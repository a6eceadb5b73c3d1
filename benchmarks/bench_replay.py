"""Time `tocsin replay` from a Parquet file to an alert log, and what memory it takes.

Each measurement is a process of its own on one core: decoding, the line and writing alerts share
it. Plain decoding of the same columns of the same file, by turns in the same process, is the limit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.measure import Measured, Spread
from benchmarks.workloads import Feed, rules_text

ROOT = Path(__file__).parents[1]
N_READINGS = 20_000_000
N_SENSORS = 100_000
SENSORS_PER_SOURCE = 4
INCIDENTS = 0.00002
"""Share of readings with which an incident begins: a few thousand alerts in all."""
ROWS_PER_GROUP = 1 << 20
FORMS = ("dictionary", "plain", "dense")
"""How ids lie in the file: dictionary pages, plain pages (what a writer falls back to when its
dictionary outgrows the default of 1 MB), or dense indices with the catalog's digest."""
N_TURNS = 5
CHILD = ("-m", "benchmarks.replay_once")


class Site:
    """A city on disk with its rules; histories are written when they are asked for."""

    def __init__(self, folder: Path, n_sensors: int = N_SENSORS) -> None:
        from engine.catalog import Catalog
        from engine.catalog_build import build_catalog

        self.folder, self.n_sensors = folder, n_sensors
        sources = [f"NJ-GL-{k:07d}" for k in range(-(-n_sensors // SENSORS_PER_SOURCE))]
        self.names = [f"{sources[k // SENSORS_PER_SOURCE]}/CH4-{k % 4}" for k in range(n_sensors)]
        self._write("sources", source_id=sources, category="gas_well", name=sources,
                    static_class="none", lon=118.8, lat=32.0, grid="G1", district="Gulou",
                    owner="Gas company", contact="+86-25-1")  # fmt: skip
        of = [sources[k // SENSORS_PER_SOURCE] for k in range(n_sensors)]
        self._write("sensors", sensor_id=self.names, source_id=of, quantity="methane",
                    unit="%LEL", period_s=10.0)  # fmt: skip
        build_catalog(folder / "city", folder / "city.catalog", 8, None)
        self.digest = Catalog.open(folder / "city.catalog").digest
        (folder / "rules.toml").write_text(rules_text(), encoding="utf-8")

    def _write(self, table: str, **columns: Any) -> None:
        n = max(len(column) for column in columns.values() if isinstance(column, list))
        filled = {k: v if isinstance(v, list) else [v] * n for k, v in columns.items()}
        (self.folder / "city").mkdir(exist_ok=True)
        pq.write_table(pa.table(filled), self.folder / "city" / f"{table}.parquet")

    def history(self, n_readings: int, form: str = "dictionary") -> Path:
        """Return the file of a seeded history; the shorter is the beginning of the longer."""
        path = self.folder / f"{form}-{n_readings}.parquet"
        if path.exists():
            return path
        kind = pa.int32() if form == "dense" else pa.string()
        schema = pa.schema([("sensor", kind), ("event_ms", pa.int64()), ("value", pa.float32())])
        if form == "dense":
            schema = schema.with_metadata({"tocsin.catalog": self.digest})
        feed = Feed(self.n_sensors, incidents=INCIDENTS)
        names = pa.array(self.names)
        options = {"dictionary_pagesize_limit": 64 << 20} if form == "dictionary" else {}
        if form == "plain":
            options = {"use_dictionary": False}
        with pq.ParquetWriter(path, schema, **options) as writer:
            for start in range(0, n_readings, ROWS_PER_GROUP):
                readings = feed.batch(min(ROWS_PER_GROUP, n_readings - start))
                sensor = pa.array(readings.sensor)
                if form != "dense":
                    sensor = names.take(sensor)
                columns = [sensor, readings.event_ms, readings.value.astype(np.float32)]
                writer.write_table(pa.table(columns, schema=schema))
        return path

    def replay(self, n_readings: int, form: str = "dictionary", turns: int = 1) -> dict[str, Any]:
        """Replay a history in a process of its own, with plain decoding of it before each turn."""
        given = [self.folder, self.history(n_readings, form), turns]
        done = subprocess.run(
            [sys.executable, *CHILD, *map(str, given)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@contextmanager
def site(n_sensors: int = N_SENSORS) -> Iterator[Site]:
    """Make a city on disk for a while."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        yield Site(Path(folder), n_sensors)


def measure_replay(
    n_readings: int = N_READINGS,
    n_sensors: int = N_SENSORS,
    *,
    form: str = "dictionary",
    turns: int = 1,
) -> dict[str, Any]:
    """Return what a replay took: ns a reading of each turn, alerts, bytes of state and at the peak.

    Turns after the first measure speed; the peak is that of the process, so ask for one turn.
    """
    with site(n_sensors) as made:
        return made.replay(n_readings, form, turns)


@cache
def _measured() -> dict[str, dict[str, Any]]:
    """Return every measurement of the bars, made over one set of files."""
    found = {}
    with site() as made:
        for form in FORMS:
            found[form] = made.replay(N_READINGS, form, N_TURNS)
        found["short"] = made.replay(N_READINGS // 4)
        found["long"] = made.replay(N_READINGS)
    for one in found.values():
        if not one["alerts"] or one["counts"]["accepted"] != one["readings"]:
            raise AssertionError(f"the workload is wrong: {one['alerts']} alerts, {one['counts']}")
    return found


def measure_speed() -> Measured:
    """Return readings per second of CPU time, in millions, from Parquet to the alert log."""
    found = _measured()
    speeds = {form: Spread.of(1e3 / ns for ns in found[form]["replay_ns"]) for form in FORMS}
    limits = {form: Spread.of(1e3 / ns for ns in found[form]["decode_ns"]) for form in FORMS}
    others = ", ".join(f"{form} ids {speeds[form].median:.1f} M/s" for form in FORMS[1:])
    return Measured(
        figure=speeds["dictionary"],
        limit=f"decoding the columns alone {limits['dictionary'].median:.0f} M/s; {others}",
        details={
            "alerts": found["dictionary"]["alerts"],
            **{f"{form}_m_per_s": speeds[form].median for form in FORMS},
            **{f"{form}_decode_m_per_s": limits[form].median for form in FORMS},
        },
    )


def measure_memory() -> Measured:
    """Return the peak memory of a replay beyond its state in MB, imports and compiler included."""
    found = _measured()
    beyond = {
        name: (found[name]["peak_bytes"] - found[name]["state_bytes"]) / 1e6
        for name in ("short", "long")
    }
    return Measured(
        figure=Spread.of([beyond["long"]]),
        limit=f"a quarter of the history {beyond['short']:.0f} MB",
        details={"short_mb": beyond["short"], "state_mb": found["long"]["state_bytes"] / 1e6},
    )


@pytest.fixture(scope="module")
def small_site() -> Iterator[Site]:
    """A city whose histories are short."""
    with site(10_000) as made:
        yield made


@pytest.mark.parametrize("form", FORMS)
def bench_replay__parquet(benchmark: Any, small_site: Site, form: str) -> None:
    """Replay a million readings, the whole process."""
    small_site.history(1_000_000, form)
    benchmark.pedantic(small_site.replay, (1_000_000, form), rounds=3)

"""The world of the live benchmarks: a city of a million sensors on disk, and its log in Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workloads import MIDNIGHT_MS, PERIOD_MS, Feed, rules_text
from engine import wire
from engine.catalog import Catalog
from engine.partition import PartitionLine, Plans
from engine.readings import Readings, tick_message
from engine.rules_check import load
from engine.snapshots import SnapshotStore

SENSORS_PER_SOURCE = 4
INCIDENTS = 0.00023
"""Share of readings with which an incident begins; each makes about eight alerts."""


def make_city(folder: Path, n_sensors: int, n_partitions: int) -> Catalog:
    """Write and compile a city of methane sensors, and its rules; return the catalog."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.toml").write_text(rules_text(), encoding="utf-8")
    compiled = folder / "city.catalog"
    if not compiled.exists():
        n_sources = n_sensors // SENSORS_PER_SOURCE
        number = np.char.zfill(np.arange(n_sources).astype("U7"), 7)
        sources = {
            "source_id": np.char.add("NJ-GL-", number),
            "category": np.full(n_sources, "gas_well"),
            "name": np.char.add("Valve well ", number),
            "static_class": np.full(n_sources, "none"),
            "lon": 118.3 + np.arange(n_sources) / n_sources,
            "lat": 31.2 + np.arange(n_sources) / n_sources,
            "grid": np.char.add("G", (np.arange(n_sources) // 50).astype("U7")),
            "district": np.char.add("district-", (np.arange(n_sources) % 11).astype("U2")),
            "owner": np.char.add("Owner ", (np.arange(n_sources) % 5000).astype("U7")),
            "contact": np.char.add("+86-25-", (np.arange(n_sources) % 5000).astype("U7")),
        }
        of_source = np.repeat(sources["source_id"], SENSORS_PER_SOURCE)
        sensors = {
            "sensor_id": np.char.add(
                "NJ-GL-CH4-", np.char.zfill(np.arange(len(of_source)).astype("U7"), 7)
            ),
            "source_id": of_source,
            "quantity": np.full(len(of_source), "methane"),
            "unit": np.full(len(of_source), "%LEL"),
            "period_s": np.full(len(of_source), PERIOD_MS / 1000),
        }
        pq.write_table(pa.table(sources), folder / "sources.parquet")
        pq.write_table(pa.table(sensors), folder / "sensors.parquet")
        Catalog.build(folder, compiled, partitions=n_partitions)
    return Catalog.open(compiled)


def warm_up(catalog: Catalog, rules: Path, store: SnapshotStore, feed: Feed) -> None:
    """Let every baseline settle, as after some days, and save that as the state at offset 0."""
    plans = Plans(catalog)
    digest = plans.add(load(rules))
    lines = [PartitionLine(plans, digest, p) for p in range(catalog.n_partitions)]
    for sweep in feed.sweeps():
        for partition, mine in wire.by_partition(sweep, catalog):
            lines[partition].pipeline.judge(mine)
    for line in lines:
        store.write(line.freeze(), 0)


def log_of(
    catalog: Catalog, feed: Feed, n_readings: int, *, rows: int = wire.ROWS
) -> Iterator[tuple[int, Any]]:
    """Yield (partition, readings or tick message): full messages, ticks each second of event time.

    Sensors come in random order; about one reading in a thousand makes an alert.
    """
    n = catalog.n_partitions
    waiting: list[list[Readings]] = [[] for _ in range(n)]
    second = MIDNIGHT_MS // 1000
    sent = 0
    while sent < n_readings:
        batch = feed.batch(rows * n)
        sent += len(batch)
        for partition, mine in wire.by_partition(batch, catalog):
            waiting[partition].append(mine)
        now = int(batch.event_ms[-1]) // 1000
        for partition in range(n):
            have = _joined(waiting[partition])
            whole = len(have) // rows * rows
            for start in range(0, whole, rows):
                yield partition, have.cut(start, start + rows)
            waiting[partition] = [have.cut(whole, len(have))]
            if now > second:
                yield partition, tick_message(now * 1000)
        second = now


def _joined(parts: list[Readings]) -> Readings:
    return Readings(
        np.concatenate([part.sensor for part in parts]),
        np.concatenate([part.event_ms for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.quality for part in parts]),
    )

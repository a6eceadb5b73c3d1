"""Small catalog folders for tests: rows as dictionaries, with what a row leaves out filled in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

Row = dict[str, Any]


def source(source_id: Any, **changes: Any) -> Row:
    """Return a row of the sources."""
    row: Row = {
        "source_id": source_id,
        "category": "gas_valve",
        "name": f"Well {source_id}",
        "static_class": "none",
        "lon": 118.8,
        "lat": 32.06,
        "grid": "G1",
        "district": "Gulou",
        "department": "Gas Office",
        "owner": "Gas Co",
        "contact": "025-1",
    }
    return row | changes


def sensor(sensor_id: Any, source_id: Any, **changes: Any) -> Row:
    """Return a row of the sensors."""
    row: Row = {
        "sensor_id": sensor_id,
        "source_id": source_id,
        "quantity": "methane",
        "unit": "%vol",
        "period_s": 60.0,
    }
    return row | changes


def coupling(from_source: Any, to_source: Any, **changes: Any) -> Row:
    """Return a row of the couplings."""
    row: Row = {"from_source": from_source, "to_source": to_source, "kind": "pipe", "weight": 0.5}
    return row | changes


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV or Parquet, by the suffix; a key that a row lacks is null there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)


def write_folder(
    folder: Path,
    sources: Iterable[Row],
    sensors: Iterable[Row],
    couplings: Iterable[Row] | None = None,
    suffix: str = ".parquet",
) -> Path:
    """Write a catalog folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / f"sources{suffix}", list(sources))
    write_table(folder / f"sensors{suffix}", list(sensors))
    if couplings is not None:
        write_table(folder / f"couplings{suffix}", list(couplings))
    return folder

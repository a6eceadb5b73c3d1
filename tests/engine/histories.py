"""Small histories for tests: a catalog that knows some ids, readings in files of every kind."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from engine.adapters import BUILT_IN, Adapter
from engine.history import History, Weaver
from engine.resolver import Resolver

DIGEST = "0123456789abcdef"
FOREVER = 1 << 60
KINDS = (
    "parquet",
    "arrow",
    "arrows",
    "arrow.gz",
    "arrows.zst",
    "csv",
    "csv.gz",
    "csv.zst",
    "ndjson",
    "jsonl.gz",
)


def knowing(*ids: str, n_sources: int = 2) -> SimpleNamespace:
    """Return a catalog of sensors that has no more than reading a history needs."""
    resolver = Resolver.of(pa.array(ids, pa.string()))
    return SimpleNamespace(
        digest=DIGEST, n_sensors=len(ids), n_sources=n_sources, resolver=lambda: resolver
    )


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    """Write a table as the kind of file that its name says."""
    kind = path.name.split(".", 1)[1]
    inner = kind.removesuffix(".gz").removesuffix(".zst")
    if inner == "parquet":
        pq.write_table(table, path, **options)
        return path
    content = _content(inner, table)
    if kind.endswith(".gz"):
        content = gzip.compress(content)
    elif kind.endswith(".zst"):
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def _content(kind: str, table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    if kind == "csv":
        pyarrow.csv.write_csv(table, sink)
    elif kind in ("ndjson", "jsonl"):
        for row in table.to_pylist():
            row = {
                key: value.isoformat() if hasattr(value, "isoformat") else value
                for key, value in row.items()
            }
            sink.write(orjson.dumps(row) + b"\n")
    else:
        opened = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with opened(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    return sink.getvalue().to_pybytes()


def long(rows: Iterable[tuple[str, int, float]]) -> pa.Table:
    """Return a long table of (sensor, event_ms, value)."""
    sensor, event_ms, value = zip(*rows, strict=True)
    return pa.table({"sensor": list(sensor), "event_ms": list(event_ms), "value": list(value)})


def history(
    paths: Iterable[Path] | Path,
    catalog: Any,
    adapter: Adapter = BUILT_IN,
    **options: Any,
) -> History:
    """Return the history of some files; no clock is doubted unless `jump_ms` says so."""
    paths = [paths] if isinstance(paths, Path) else list(paths)
    return History(paths, adapter, catalog, **{"jump_ms": FOREVER, **options})


def rows(of: History) -> list[tuple[int, int, float, int]]:
    """Return the readings of a history as (sensor, event_ms, value, quality); NaN as None."""
    return [row for chunk in of.chunks() for row in _rows(chunk)]


def log(
    of: History, *, n: int = 1000, tick_ms: int = 1000, ticked: bool = False
) -> list[tuple[int, int, float, int]]:
    """Return the log of a history with its ticks."""
    weaver = Weaver(of.chunks(), tick_ms=tick_ms, jump_ms=of.jump_ms, n=n, n_slots=2, ticked=ticked)
    found = [row for batch in weaver.batches() for row in _rows(batch)]
    return found + _rows(weaver.ending())


def _rows(chunk: Any) -> list[tuple[int, int, float, int]]:
    value = [None if np.isnan(each) else each for each in chunk.value.tolist()]
    return list(
        zip(
            chunk.sensor.tolist(),
            chunk.event_ms.tolist(),
            value,
            chunk.quality.tolist(),
            strict=True,
        )
    )

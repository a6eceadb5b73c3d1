"""Time the catalog: compile a city from Parquet, open it, resolve ids.

`python -m benchmarks.bench_catalog` prints seconds and peak memory at the size of a large city.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.catalog import Catalog

_CATEGORIES = ["gas_valve", "factory", "gate", "mall", "kitchen", "tunnel"]
# quantity, unit, period
_MEASURED = [
    ("methane", "%vol", 30.0),
    ("methane", "%LEL", 60.0),
    ("pressure", "kPa", 60.0),
    ("temperature", "°C", 60.0),
    ("temperature", "K", 30.0),
    ("carbon_monoxide", "ppm", 60.0),
    ("flow", "l/s", 10.0),
    ("crowd_count", "person", 60.0),
]


def write_city(folder: Path, n_sources: int, n_sensors: int, seed: int = 1) -> None:
    """Write a seeded city: rows in random order, clusters of all sizes, a few own limits."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    number = rng.permutation(n_sources)
    source_id = np.char.add("NJ-GL-", np.char.zfill(number.astype("U7"), 7))
    sources = {
        "source_id": source_id,
        "category": np.array(_CATEGORIES)[rng.integers(0, len(_CATEGORIES), n_sources)],
        "name": np.char.add("Valve well ", number.astype("U7")),
        "static_class": np.array(["none", "blue", "yellow", "red"])[
            rng.choice(4, n_sources, p=[0.7, 0.2, 0.07, 0.03])
        ],
        "lon": 118.3 + rng.random(n_sources),
        "lat": 31.2 + 1.4 * rng.random(n_sources),
        "grid": np.char.add("G", (number // 50).astype("U7")),
        "district": np.char.add("district-", (number % 11).astype("U2")),
        "owner": np.char.add("Owner ", (number % 5000).astype("U7")),
        "contact": np.char.add("+86-25-", (number % 5000).astype("U7")),
    }
    pq.write_table(pa.table(sources), folder / "sources.parquet", compression="zstd")

    of_source = rng.integers(0, n_sources, n_sensors)
    measured = rng.integers(0, len(_MEASURED), n_sensors)
    sensor_number = np.char.zfill(rng.permutation(n_sensors).astype("U7"), 7)
    high_red = np.where(rng.random(n_sensors) < 0.01, 1e4, np.nan)
    sensors = {
        "sensor_id": np.char.add("NJ-GL-CH4-", sensor_number),
        "source_id": source_id[of_source],
        "quantity": np.array([quantity for quantity, _, _ in _MEASURED])[measured],
        "unit": np.array([unit for _, unit, _ in _MEASURED])[measured],
        "period_s": np.array([period_s for _, _, period_s in _MEASURED])[measured],
        "high_red": pa.array(high_red, from_pandas=True),
    }
    pq.write_table(pa.table(sensors), folder / "sensors.parquet", compression="zstd")

    n_couplings = n_sources // 3
    # pipes join neighbours by number: mostly short chains
    origin = rng.integers(0, n_sources - 1, n_couplings)
    place = np.argsort(number)
    couplings = {
        "from_source": source_id[place[origin]],
        "to_source": source_id[place[origin + 1]],
        "kind": np.full(n_couplings, "pipe"),
        "weight": rng.random(n_couplings),
    }
    table = pa.table(couplings)
    _, kept = np.unique(origin, return_index=True)
    pq.write_table(table.take(pa.array(kept)), folder / "couplings.parquet", compression="zstd")


def measure_build(folder: Path, out: Path) -> dict[str, Any]:
    """Build in a process of its own; return seconds, peak memory and the build's own report."""
    code = (
        "import json, sys, resource, time; from pathlib import Path\n"
        "begin = time.perf_counter()\n"
        "from engine.catalog_build import build_catalog\n"
        "report = build_catalog(Path(sys.argv[1]), Path(sys.argv[2])).as_dict()\n"
        "report['wall_s'] = time.perf_counter() - begin\n"
        "report['peak_gib'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20\n"
        "json.dump(report, sys.stdout)"
    )
    command = [sys.executable, "-c", code, str(folder), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_open(path: Path) -> float:
    """Return the seconds from a bare interpreter to an open catalog, imports included."""
    code = "import sys; from engine.catalog import Catalog; Catalog.open(sys.argv[1])"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return time.perf_counter() - begin


def resolve_ids_per_s(catalog: Catalog, n_ids: int = 4_000_000, batch: int = 65_536) -> float:
    """Return ids resolved per second, in random order, in batches as they come from the wire."""
    rng = np.random.default_rng(2)
    wanted = rng.integers(0, catalog.n_sensors, n_ids).astype(np.int32)
    ids = catalog.sensor_id.take(pa.array(wanted)).cast(pa.string())
    resolver = catalog.resolver()
    # parity first, and with it compilation and the pages of the file
    assert (resolver.resolve(ids) == wanted).all()
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        for start in range(0, n_ids, batch):
            resolver.resolve(ids.slice(start, batch))
        best = min(best, time.perf_counter() - begin)
    return n_ids / best


def bench_catalog__open(benchmark: Any, tmp_path: Path) -> None:
    """Open a catalog of 10,000 sources."""
    write_city(tmp_path, 10_000, 40_000)
    Catalog.build(tmp_path, tmp_path / "city.catalog")
    benchmark(Catalog.open, tmp_path / "city.catalog")


def bench_catalog__build(benchmark: Any, tmp_path: Path) -> None:
    """Build a catalog of 10,000 sources."""
    write_city(tmp_path, 10_000, 40_000)
    benchmark(Catalog.build, tmp_path, tmp_path / "city.catalog")


def bench_resolve__random(benchmark: Any, tmp_path: Path) -> None:
    """Resolve 65,536 ids in random order at a million sensors."""
    write_city(tmp_path, 250_000, 1_000_000)
    Catalog.build(tmp_path, tmp_path / "city.catalog")
    catalog = Catalog.open(tmp_path / "city.catalog")
    wanted = np.random.default_rng(2).integers(0, catalog.n_sensors, 65_536).astype(np.int32)
    ids = catalog.sensor_id.take(pa.array(wanted)).cast(pa.string())
    resolver = catalog.resolver()
    assert (resolver.resolve(ids) == wanted).all()
    benchmark(resolver.resolve, ids)
    benchmark.extra_info["ids_per_s"] = 65_536 / benchmark.stats.stats.median


def main() -> None:
    """Print what a city of the given size takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=800_000)
    parser.add_argument("--sensors", type=int, default=3_000_000)
    size = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_city(folder, size.sources, size.sensors)
        out = folder / "city.catalog"
        report = measure_build(folder, out)
        print(
            f"{size.sources:,} sources, {size.sensors:,} sensors, {report['couplings']:,} couplings"
        )
        print(f"build   {report['wall_s']:6.2f} s, peak {report['peak_gib']:.2f} GiB")
        print(f"        {report['seconds']}")
        print(f"file    {report['file_bytes'] / 1e6:6.0f} MB, skew {report['skew']}")
        print(f"open    {measure_open(out):6.2f} s from a bare interpreter")
        begin = time.perf_counter()
        catalog = Catalog.open(out)
        print(f"        {(time.perf_counter() - begin) * 1e3:6.1f} ms with modules loaded")
        begin = time.perf_counter()
        catalog.verify()
        print(f"verify  {time.perf_counter() - begin:6.2f} s")
        print(f"resolve {resolve_ids_per_s(catalog) / 1e6:6.1f} M ids/s, random order")
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak of this process {peak_gib:.2f} GiB")


if __name__ == "__main__":
    main()

"""Time whole processes: the first `tocsin replay` ever, which compiles, and every one after it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from benchmarks.measure import Measured, Spread
from benchmarks.workloads import PERIOD_MS, Feed, rules_text

ROOT = Path(__file__).parents[1]
N_READINGS = 1000
N_SENSORS = 100
N_WARM = 7
COMMAND = "import sys; from engine.cli import main; main(sys.argv[1:])"
BARE = "import numba, numpy, pyarrow"
"""What no replay can do without: the limit of a warm start."""


class Took(NamedTuple):
    """Seconds of a whole process; on a core that others use, the wall's clock runs ahead."""

    wall_s: float
    cpu_s: float


class Site:
    """A small site on disk, and a cache of kernels of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kernels")}
        city = folder / "city"
        city.mkdir()
        sensors = [f"sensor-{number:03d}" for number in range(N_SENSORS)]
        source = pa.table({"source_id": ["well"], "category": ["gas_well"], "name": ["Valve well"],
                           "static_class": ["none"], "lon": [118.8], "lat": [32.0]})  # fmt: skip
        csv.write_csv(source, city / "sources.csv")
        sensor: dict[str, list[Any]] = {"sensor_id": sensors, "source_id": ["well"] * N_SENSORS}
        sensor |= {"quantity": ["methane"] * N_SENSORS, "unit": ["%LEL"] * N_SENSORS}
        sensor["period_s"] = [PERIOD_MS / 1000] * N_SENSORS
        csv.write_csv(pa.table(sensor), city / "sensors.csv")
        (folder / "rules.toml").write_text(rules_text(windowed=True), encoding="utf-8")
        readings = Feed(N_SENSORS, outliers=0.01).batch(N_READINGS)
        ids = [sensors[index] for index in readings.sensor]
        columns = {"sensor": ids, "event_ms": readings.event_ms, "value": readings.value}
        pq.write_table(pa.table(columns), folder / "readings.parquet")
        self.run(COMMAND, "catalog", "build", city, "-o", folder / "site.catalog")

    def run(self, code: str, *arguments: object) -> tuple[Took, str]:
        """Run Python code in a process of its own; return what it took, and its stderr."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        begin, before = time.perf_counter(), os.times()
        done = subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        wall_s, after = time.perf_counter() - begin, os.times()
        used_s = (after.children_user + after.children_system) - (
            before.children_user + before.children_system
        )
        if done.returncode != 0:
            raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-500:]}")
        return Took(wall_s, used_s), done.stderr

    def replay(self) -> tuple[Took, str]:
        """Replay the readings; return what it took, and what it said on stderr."""
        return self.run(
            COMMAND, "replay", "--catalog", self.folder / "site.catalog",
            "--rules", self.folder / "rules.toml", self.folder / "readings.parquet",
            "-o", self.folder / "alerts.jsonl",
        )  # fmt: skip


@contextmanager
def site() -> Iterator[Site]:
    """Make a site for a while."""
    with tempfile.TemporaryDirectory() as folder:
        yield Site(Path(folder))


@cache
def starts() -> dict[str, Any]:
    """Return the first start, which compiles, and warm ones by turns with their limit."""
    with site() as made:
        # the libraries' own files are in the memory of the machine
        made.run(BARE)
        first, said = made.replay()
        warm, bare = [], []
        for _ in range(N_WARM):
            warm.append(made.replay()[0])
            bare.append(made.run(BARE)[0])
        alerts = (made.folder / "alerts.jsonl").read_bytes().count(b"\n")
    if not alerts:
        raise AssertionError("the replay found nothing to alert of: the workload is wrong")
    return {"first": first, "said": said.strip(), "warm": warm, "bare": bare, "alerts": alerts}


def measure_warm_start() -> Measured:
    """Return the seconds of a whole replay of 1,000 readings with its kernels compiled."""
    found = starts()
    cpu_s, bare_s = (Spread.of(took.cpu_s for took in found[name]).median for name in _TURNS)
    return Measured(
        figure=Spread.of(took.wall_s for took in found["warm"]),
        limit=f"CPU {cpu_s:.2f} s, of which importing NumPy, Numba and Arrow {bare_s:.2f} s",
        details={"cpu_s": cpu_s, "bare_cpu_s": bare_s, "alerts": found["alerts"]},
    )


_TURNS = ("warm", "bare")


def measure_first_start() -> Measured:
    """Return the seconds of the first replay ever, its kernels compiled on the way."""
    found = starts()
    first: Took = found["first"]
    said = "said" if "compiling" in found["said"] else "not said"
    return Measured(
        figure=Spread.of([first.wall_s]),
        limit=f"CPU {first.cpu_s:.1f} s; {said} on the terminal",
        details={"cpu_s": first.cpu_s, "said": found["said"]},
    )


@pytest.fixture(scope="module")
def warm_site() -> Iterator[Site]:
    """A site whose kernels are compiled."""
    with site() as made:
        made.replay()
        yield made


def bench_start__warm_replay(benchmark: Any, warm_site: Site) -> None:
    """Replay 1,000 readings, the whole process."""
    benchmark.pedantic(warm_site.replay, rounds=N_WARM)


def bench_start__bare_imports(benchmark: Any, warm_site: Site) -> None:
    """Import what no replay can do without."""
    benchmark.pedantic(lambda: warm_site.run(BARE), rounds=N_WARM)

"""Try many settings over a history once in this process: what `bench_tune` starts.

Given a folder with a city and its rules, a history, a shorter one to warm up with, the name of a
space of settings, and how many threads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.replay_once import peak_bytes
from benchmarks.tune_spaces import SPACES
from engine.analysis.past import Past
from engine.analysis.sweep import Sweep
from engine.rules import Rules

N_WARM = 20
"""Settings that the kernels are warmed up with."""


def pin_to_cores(n: int) -> None:
    """Keep this process on some cores, if that can be."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-n:])


def tried(folder: Path, history: Path, settings: list[Rules], threads: int) -> dict[str, Any]:
    """Try settings over a history; return the seconds and the alerts of each setting."""
    past = Past.open(folder / "city.catalog", history)
    read_s = 0.0
    begin, cpu = time.perf_counter(), time.process_time()

    def note(share: float) -> None:
        nonlocal read_s
        if share <= 0.5:
            read_s = time.perf_counter() - begin

    with Sweep(past, threads=threads) as sweep:
        found = sweep.try_all(settings, on_progress=note)
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    alerts = len(found.common) + np.diff(found.starts)
    return {
        "readings": found.n_readings,
        "wall_s": wall_s,
        "read_s": read_s,
        "try_s": wall_s - read_s,
        "cpu_s": cpu_s,
        "alerts": alerts.tolist(),
    }


def main() -> None:
    """Try the settings and print what it took as JSON."""
    folder, history, short = map(Path, sys.argv[1:4])
    space, threads = sys.argv[4], int(sys.argv[5])
    pin_to_cores(threads)
    pa.set_cpu_count(threads)
    settings = SPACES[space]((folder / "rules.toml").read_text(encoding="utf-8"))
    tried(folder, short, settings[:N_WARM], threads)
    found = tried(folder, history, settings, threads)
    json.dump({**found, "peak_bytes": peak_bytes()}, sys.stdout)


if __name__ == "__main__":
    main()

"""Report on a history a few times in this process: what `bench_tune` starts.

Given a folder with a city and its rules, a history, a shorter one to warm up with, and how often.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.measure import pin_to_one_core
from benchmarks.replay_once import peak_bytes
from engine.analysis.past import Past, judge
from engine.analysis.reports import report_of, write_report
from engine.rules_check import load


def reported(folder: Path, history: Path, turns: int) -> dict[str, Any]:
    """Judge a history, then write its report; return the seconds of each turn, and its size."""
    past = Past.open(folder / "city.catalog", history)
    begin = time.perf_counter()
    judged = judge(past, load(folder / "rules.toml"))
    found: dict[str, Any] = {"judge_s": time.perf_counter() - begin, "report_s": []}
    for _ in range(turns):
        begin = time.perf_counter()
        report = report_of(judged, past)
        write_report(folder / "report.html", report)
        found["report_s"].append(time.perf_counter() - begin)
    size = (folder / "report.html").stat().st_size
    return found | {"episodes": len(report.facts.episodes), "bytes": size}


def main() -> None:
    """Report and print what it took as JSON."""
    pin_to_one_core()
    pa.set_cpu_count(1)
    folder, history, short = map(Path, sys.argv[1:4])
    reported(folder, short, 1)
    found = reported(folder, history, int(sys.argv[4]))
    json.dump({**found, "peak_bytes": peak_bytes()}, sys.stdout)


if __name__ == "__main__":
    main()

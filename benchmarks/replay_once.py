"""Replay a history once or more in this process: what `bench_replay` starts, and no more than that.

Nothing is imported that a replay does not need, for its memory is measured too.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import pin_to_one_core
from engine.replay import Job, prepare


def decode(path: Path) -> int:
    """Decode a file's columns batch by batch and do nothing with them; return the rows."""
    table = pq.ParquetFile(
        path, read_dictionary=["sensor"] if "dictionary" in path.name else None, pre_buffer=False
    )
    return sum(len(batch) for batch in table.iter_batches(1 << 17, use_threads=False))


def main() -> None:
    """Replay in this process and print what it took as JSON."""
    pin_to_one_core()
    pa.set_cpu_count(1)
    folder, path, turns = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    job = Job(
        readings=(path,), catalog=folder / "city.catalog", rules=folder / "rules.toml",
        output=folder / f"{path.stem}.jsonl",
    )  # fmt: skip
    found: dict[str, Any] = {"replay_ns": [], "decode_ns": [], "wall_s": []}
    for turn in range(turns):
        replay = prepare(job)
        if turn == 0:
            replay.warm_up()
        if turns > 1:
            begin = time.process_time_ns()
            n = decode(path)
            found["decode_ns"].append((time.process_time_ns() - begin) / n)
        begin = time.process_time_ns()
        told = replay.run().as_dict()
        found["replay_ns"].append((time.process_time_ns() - begin) / told["readings"])
        found["wall_s"].append(told["wall_s"])
        found |= {key: told[key] for key in ("readings", "alerts", "state_bytes", "counts")}
    found["peak_bytes"] = peak_bytes()
    json.dump(found, sys.stdout)


def peak_bytes() -> int:
    """Return the most memory that this process has had.

    Not `ru_maxrss` where there is better: a process inherits the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if peak:
            return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()

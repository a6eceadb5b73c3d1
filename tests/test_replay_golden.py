"""Whole alert logs, compared byte for byte with those kept in `tests/golden`.

A change of an alert log that is meant is written by `python -m tests.test_replay_golden --write`
and looked through like any other change.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.catalog_build import build_catalog
from engine.replay import BATCH, Job, prepare
from engine.summary import Summary
from replay_data import DAY

GOLDEN = Path(__file__).parent / "golden"
SMALL = GOLDEN / "small"
LOGS = {
    "day": (DAY, DAY / "readings.parquet", GOLDEN / "day.jsonl"),
    "small": (SMALL, SMALL / "readings.csv", SMALL / "alerts.jsonl"),
}


def replayed(name: str, folder: Path, *, batch: int = BATCH, threads: int = 1) -> bytes:
    log, _ = replayed_with_summary(name, folder, batch=batch, threads=threads)
    return log


def replayed_with_summary(
    name: str, folder: Path, *, batch: int = BATCH, threads: int = 1
) -> tuple[bytes, Summary]:
    """Build the catalog, replay, and return the alert log as a user gets it."""
    source, readings, _ = LOGS[name]
    build_catalog(source, folder / "city.catalog")
    job = Job(
        readings=(readings,),
        catalog=folder / "city.catalog",
        rules=source / "rules.toml",
        output=folder / "alerts.jsonl",
        batch=batch,
        threads=threads,
    )
    summary = prepare(job).run()
    return (folder / "alerts.jsonl").read_bytes(), summary


def assert_same(found: bytes, golden: bytes) -> None:
    """Compare line by line first: the difference of one line can be read."""
    lines, kept = found.splitlines(), golden.splitlines()
    for number, (line, expected) in enumerate(zip(lines, kept, strict=False), 1):
        assert line == expected, f"line {number}"
    assert len(lines) == len(kept)
    assert found == golden


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("batch", [BATCH, 997])
def test_replay_gives_the_golden_alert_log(name: str, batch: int, tmp_path: Path) -> None:
    assert_same(replayed(name, tmp_path, batch=batch), LOGS[name][2].read_bytes())


def test_two_threads_give_the_golden_alert_log(tmp_path: Path) -> None:
    assert_same(replayed("day", tmp_path, threads=2), LOGS["day"][2].read_bytes())


def test_one_record_at_a_time_gives_the_golden_alert_log(tmp_path: Path) -> None:
    assert_same(replayed("small", tmp_path, batch=1), LOGS["small"][2].read_bytes())


def test_the_small_log_holds_what_it_is_for(tmp_path: Path) -> None:
    log, summary = replayed_with_summary("small", tmp_path)
    counts = summary.counts
    for name in (
        "unknown_sensor", "time_ahead", "time_too_late", "bad_quality", "not_finite",
        "out_of_range", "duplicate", "backward", "late", "ticks",
    ):  # fmt: skip
        assert counts[name], name
    for part in (
        b'"transition":"raise"', b'"transition":"escalate"', b'"transition":"de-escalate"',
        b'"transition":"clear"', b'"late":true', b'"cause":"rule"', b'"detector":"absence"',
        b'"coupled_from":{"source":"shop"',
    ):  # fmt: skip
        assert part in log, part


def write() -> None:
    """Write every golden log anew."""
    for name, (_, _, golden) in LOGS.items():
        with TemporaryDirectory() as folder:
            log = replayed(name, Path(folder))
        changed = not golden.exists() or golden.read_bytes() != log
        golden.write_bytes(log)
        state = "changed" if changed else "as it was"
        print(f"{golden}: {len(log.splitlines()):,} alerts, {state}")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.test_replay_golden --write")
    write()

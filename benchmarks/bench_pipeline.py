"""Time the whole line: Arrow batches of 64k readings in, alert records out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.limits import Lines
from benchmarks.measure import Measured, Spread, by_turns
from benchmarks.workloads import BATCH, MIDNIGHT_MS, Feed, plan_of, with_ticks
from engine.decode import decode_arrow
from engine.pipeline import Pipeline
from engine.readings import Readings
from engine.sensor_ids import CATALOG_KEY

# as in the table: what others take from the core does not count
pytestmark = pytest.mark.benchmark(timer=time.process_time)

N_SENSORS = 100_000
INCIDENTS = 0.00015
"""Share of readings with which an incident begins; calibrated, and checked in each run."""
SHARE = 0.001
"""Transitions per reading."""
N_SETTLE = 128
"""Batches until as many incidents end as begin."""
N_TURNS = 15
N_EACH = 8


class Wire:
    """A seeded log as Arrow IPC streams: int32 sensor, int64 event_ms, float32 value, and ticks."""

    def __init__(self, catalog: Any, feed: Feed, tick_ms: int) -> None:
        self.feed, self.tick_ms = feed, tick_ms
        self.event_ms = MIDNIGHT_MS
        fields = [("sensor", pa.int32()), ("event_ms", pa.int64()), ("value", pa.float32())]
        self.schema = pa.schema(fields, {CATALOG_KEY: catalog.digest.encode()})

    def message(self) -> tuple[bytes, Readings]:
        """Return the next batch as it comes off the wire, and its readings without the ticks."""
        readings = self.feed.batch()
        log = with_ticks(readings, self.tick_ms, self.event_ms)
        self.event_ms = int(readings.event_ms[-1])
        columns = [log.sensor, log.event_ms, log.value.astype(np.float32)]
        batch = pa.record_batch([pa.array(column) for column in columns], schema=self.schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue().to_pybytes(), readings


class Bench:
    """The line over a city's wire, warmed up to the steady state of its incidents."""

    def __init__(self, n_sensors: int = N_SENSORS, n_settle: int = N_SETTLE) -> None:
        self.plan = plan_of(n_sensors)
        self.line = Pipeline(self.plan)
        self.lines = Lines(n_sensors)
        feed = Feed(n_sensors, incidents=INCIDENTS)
        for readings in feed.sweeps():
            self.line.judge(readings)
        self.wire = Wire(self.plan.catalog, feed, self.plan.tick_ms)
        self.wire.event_ms = MIDNIGHT_MS + (feed.sent - 1) * 10_000 // n_sensors
        self.n_records = self.n_bytes = 0
        for _ in range(n_settle):
            self.run([self.wire.message()])
        self.n_records = self.n_bytes = 0

    def run(self, messages: list[tuple[bytes, Readings]]) -> None:
        """Decode, detect, fuse and write alert records."""
        for payload, _ in messages:
            records = self.line.push(decode_arrow(payload, self.plan.catalog).readings)
            self.n_records += len(records)
            self.n_bytes += sum(map(len, records))

    def touch(self, messages: list[tuple[bytes, Readings]]) -> None:
        """Touch the line of every reading, and nothing else."""
        self.lines.touch([readings for _, readings in messages])

    def inputs(self, n_turns: int, n_each: int) -> Iterator[list[tuple[bytes, Readings]]]:
        """Yield the messages of each turn."""
        for _ in range(n_turns):
            yield [self.wire.message() for _ in range(n_each)]

    def stages_ns(self, n_messages: int) -> dict[str, float]:
        """Return the ns per reading of each stage, one after the other over the same messages."""
        spent = dict.fromkeys(("decode", "detect and fuse", "records"), 0)
        for _ in range(n_messages):
            payload, _ = self.wire.message()
            moments = [time.process_time_ns()]
            readings = decode_arrow(payload, self.plan.catalog).readings
            moments.append(time.process_time_ns())
            transitions = self.line.judge(readings)
            moments.append(time.process_time_ns())
            self.line.records.encode(transitions)
            moments.append(time.process_time_ns())
            for stage, (begin, end) in zip(spent, pairwise(moments), strict=True):
                spent[stage] += end - begin
        return {stage: ns / (n_messages * BATCH) for stage, ns in spent.items()}


@cache
def measure_pipeline() -> Measured:
    """Return readings per second of CPU time, in millions."""
    bench = Bench()
    turns = by_turns(
        {"ours": bench.run, "limit": bench.touch}, bench.inputs(N_TURNS, N_EACH), N_EACH * BATCH
    )
    share = bench.n_records / (N_TURNS * N_EACH * BATCH)
    if not 0.8 * SHARE <= share <= 1.25 * SHARE:
        raise AssertionError(f"{share:.5f} transitions per reading, not about {SHARE}")
    stages = bench.stages_ns(N_EACH)
    limit = Spread.of(1e3 / ns for ns in turns["limit"])
    return Measured(
        figure=Spread.of(1e3 / ns for ns in turns["ours"]),
        limit=f"touching a line per reading {limit.median:.0f} M/s;"
        f" {100 * share:.3f} % transitions; "
        + ", ".join(f"{name} {ns:.1f} ns" for name, ns in stages.items()),
        details={
            "transitions_per_reading": share,
            "bytes_per_record": bench.n_bytes / bench.n_records,
            "ours_ns": Spread.of(turns["ours"]).median,
            "limit_ns": Spread.of(turns["limit"]).median,
            "stages_ns": stages,
        },
    )


def bench_pipeline__arrow_100k(benchmark: Any) -> None:
    """Run the line over Arrow batches, 100,000 sensors, 0.1 % transitions."""
    bench = Bench()
    supply = bench.inputs(N_TURNS + 1, N_EACH)
    benchmark.pedantic(
        bench.run, setup=lambda: ((next(supply),), {}), rounds=N_TURNS, warmup_rounds=1
    )
    benchmark.extra_info["readings_per_s"] = N_EACH * BATCH / benchmark.stats.stats.median

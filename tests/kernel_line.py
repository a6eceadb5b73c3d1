"""The compiled line for tests: a plan and records in, what the kernels wrote out, cut as asked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numba
import numpy as np

from engine import shards
from engine.analysis import store, sweep
from engine.pipeline import Pipeline
from engine.readings import Readings
from kernels.layout import CHANGE, N_KINDS, NEVER, TICK, TRANSITION
from tests.oracle import Change, Oracle, Record, Sensor, pack


def columns(records: Sequence[Record]) -> Readings:
    """Turn records into the log's columns."""
    return Readings.of(*([record[i] for record in records] for i in range(4)))


class Plain:
    """An array for kernels that run uncompiled: records have attributes, whole numbers are int64.

    np.recarray won't do: its records have attributes of their own (``flags``, ``mean``, ``any``).
    The compiler takes any whole number for int64; a store that would wrap raises here.
    """

    def __init__(self, records: np.ndarray) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        self._check(index)
        return for_kernel(self.records[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._check(index)
        self.records[index] = value.record if isinstance(value, PlainRecord) else value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.records.shape

    def _check(self, index: Any) -> None:
        # Compiled code does not look: a negative index or one past the end must never come.
        places = index if isinstance(index, tuple) else (index,)
        if not all(0 <= i < n for i, n in zip(places, self.records.shape, strict=False)):
            raise IndexError(f"element {index} of {self.records.shape}")


class PlainRecord:
    """One record; fields as attributes."""

    __slots__ = ("record",)

    def __init__(self, record: np.void) -> None:
        object.__setattr__(self, "record", record)

    def __getattr__(self, name: str) -> Any:
        return for_kernel(self.record[name])

    def __setattr__(self, name: str, value: Any) -> None:
        self.record[name] = int(value) if isinstance(value, np.integer) else value


class Line(Pipeline):
    """The pipeline over a test's plan, with as little room in its buffers as a test likes."""

    def __init__(
        self, plan: Any, threads: int = 1, room: int | None = None, most: int | None = None
    ) -> None:
        super().__init__(plan, threads)
        for shard in self.shards:
            if room is not None:
                shard.changes = np.zeros(room, CHANGE)
            if most is not None:
                shard.transitions = np.zeros(most, TRANSITION)

    def detect_all(self, records: Sequence[Record]) -> np.ndarray:
        """Run only the detectors over a batch (of a line with one shard); return its changes."""
        readings = columns(records)
        (shard,) = self.shards
        taken = [np.zeros(0, CHANGE)]
        start = 0
        while start < len(records):
            consumed, n = shard.detect(readings, start)
            assert consumed or n, "the kernel neither read nor wrote"
            taken.append(shard.changes[:n].copy())
            start += consumed
        return np.concatenate(taken)

    def judge_all(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """Run a batch through the whole line; return its transitions as the oracle has them."""
        return transitions_of(self.judge(columns(records)))


def for_kernel(records: Any) -> Any:
    """Wrap arrays of records or whole numbers (in tuples, too)."""
    if isinstance(records, tuple):
        return tuple(for_kernel(part) for part in records)
    if isinstance(records, np.void):
        return PlainRecord(records)
    if isinstance(records, np.integer):
        return np.int64(records)
    if not isinstance(records, np.ndarray) or records.dtype.kind in "fM":
        return records
    return Plain(records)


def uncompiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Let a kernel that is not compiled take arrays of records, and reckon with infinities."""

    def plain_kernel(*given: Any) -> Any:
        # inf − inf is NaN there as it is here, and a huge value's product infinite
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow encountered in scalar multiply")
            return kernel(*(for_kernel(part) for part in given))

    return plain_kernel


if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    for module, names in (
        (shards, ("detect", "fuse", "schedule")),
        (store, ("admit", "sort_by_sensor")),
        (sweep, ("sweep_sensors", "sweep_sources")),
    ):
        for name in names:
            setattr(module, name, uncompiled(getattr(module, name)))


def split(records: Sequence[Record], cuts: Iterable[int]) -> list[Sequence[Record]]:
    """Cut a log at the given places."""
    places = sorted({0, len(records), *(cut for cut in cuts if 0 < cut < len(records))})
    return [records[a:b] for a, b in pairwise(places)]


def of_kernel(changes: np.ndarray) -> list[dict[str, Any]]:
    """Describe the kernel's changes (of sensors) for a comparison with the oracle's."""
    return [
        _comparable(
            position=int(c["position"]),
            event_ms=int(c["event_ms"]),
            value=float(c["value"]),
            levels=int(c["levels"]),
            sensor=int(c["sensor"]),
            kind=int(c["which"]) >> 4,
            window=int(c["which"]) & 15,
            late=bool(c["late"]),
        )
        for c in changes
        if c["sensor"] != TICK
    ]


def of_oracle(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Describe the oracle's changes likewise."""
    return [_comparable(**{**vars(c), "levels": pack(c.levels)}) for c in changes]


def _comparable(**change: Any) -> dict[str, Any]:
    """Leave out what says nothing: kind, value and window of no signal."""
    if change["levels"] == 0:
        change |= {"kind": None, "value": None, "window": None}
    elif math.isnan(change["value"]):
        change["value"] = "not measured"  # a NaN equals nothing
    change["levels"] = [change["levels"] >> 3 * kind & 7 for kind in range(N_KINDS)]
    return change


def assert_detects_as_oracle(
    plan: Any, records: Sequence[Record], cuts: Iterable[int] = (), room: int = 1024
) -> Line:
    """Run a log through the kernel, in batches, and through the oracle; compare all they say."""
    oracle, line = Oracle(plan), Line(plan, room=room)
    oracle.push_all(records)
    changes = [line.detect_all(batch) for batch in split(records, cuts)]
    found = of_kernel(np.concatenate([*changes, np.zeros(0, CHANGE)]))
    expected = of_oracle(oracle.changes)
    for one, other in zip(found, expected, strict=False):
        assert one == other, f"\nkernel {one}\noracle {other}"
    assert len(found) == len(expected)
    assert line.counts == oracle.counts
    assert _memory(line) == [_remembered(sensor) for sensor in oracle.sensors]
    return line


def _memory(line: Line) -> list[tuple[Any, ...]]:
    """Return what the kernel remembers of every sensor that had a good reading."""
    fields = ["anchor", "last", "older", "anchor_age_ms", "older_age_ms", "latched"]
    fields += ["deviation", "above", "below", "n_flat"]
    return [
        (int(h["last_ms"]), int(h["n_bad"]), *(h[name].item() for name in fields))
        if h["n"]
        else (int(h["last_ms"]), int(h["n_bad"]))
        for h in line.state.hot
    ]


def _remembered(sensor: Sensor) -> tuple[Any, ...]:
    newest_ms = NEVER if sensor.newest_ms is None else sensor.newest_ms
    if sensor.last is None:
        return newest_ms, sensor.n_bad
    latched = sum(latch.closed << bit for bit, latch in enumerate(sensor.high + sensor.low))
    return (
        newest_ms,
        sensor.n_bad,
        sensor.anchor,
        sensor.last,
        sensor.older,
        sensor.anchor_age_ms,
        sensor.older_age_ms,
        latched,
        sensor.deviation,
        sensor.above,
        sensor.below,
        sensor.n_flat,
    )


def levels_of(line: Line, records: Sequence[Record], kind: int) -> list[int]:
    """Push records one by one; return the level of one kind (of sensor 0) after each."""
    levels = []
    for record in records:
        line.detect_all([record])
        levels.append(int(line.state.cold["levels"][0]) >> 3 * kind & 7)
    return levels


def transitions_of(transitions: np.ndarray) -> list[dict[str, Any]]:
    """Turn TRANSITION records into dicts; only contributors that are there."""
    found = []
    for record in transitions:
        names = [name for name in record.dtype.names if name not in ("contributor", "spare")]
        transition = {name: record[name].item() for name in names}
        transition["contributor"] = [
            {name: c[name].item() for name in c.dtype.names if name != "spare"}
            for c in record["contributor"]
            if c["sensor"] >= 0
        ]
        found.append(transition)
    return [_readable(transition) for transition in found]


def _readable(transition: dict[str, Any]) -> dict[str, Any]:
    # A NaN equals nothing, not even the NaN of the other side.
    contributors = transition["contributor"]
    for contributor in contributors:
        if math.isnan(contributor["value"]):
            contributor["value"] = "not measured"
    return transition


def assert_judges_as_oracle(
    plan: Any, records: Sequence[Record], cuts: Iterable[int] = (), **line: Any
) -> list[dict[str, Any]]:
    """Run a log through the whole line, in batches, and through the oracle; compare it all."""
    oracle, pipeline = Oracle(plan), Line(plan, **line)
    expected = [_readable(transition) for transition in oracle.push_all(records)]
    found = [t for batch in split(records, cuts) for t in pipeline.judge_all(batch)]
    for one, other in zip(found, expected, strict=False):
        assert one == other, f"\nkernel {one}\noracle {other}"
    assert len(found) == len(expected)
    assert pipeline.counts == oracle.counts
    assert pipeline.position == len(records)
    scores = [source.score for source in oracle.fusion.sources]
    assert pipeline.state.source["score"].tolist() == scores
    return found

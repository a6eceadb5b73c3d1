"""The compiled line for tests: a plan and records in, what the kernels wrote out, cut as asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numba
import numpy as np

from kernels.detect import detect
from kernels.layout import (
    BIN,
    BLOCK_SHIFT,
    CHANGE,
    CLOCK,
    COLD,
    COUNT_NAMES,
    FAR_FUTURE_MS,
    HOT,
    N_KINDS,
    NEVER,
    PANES,
    READING,
    TICK,
)
from tests.oracle import Change, Oracle, Record, Sensor, pack

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def columns(records: Sequence[Record]) -> Columns:
    """Turn records into the log's columns."""
    sensor = np.array([r.sensor for r in records], np.int32)
    event_ms = np.array([r.event_ms for r in records], np.int64)
    value = np.array([r.value for r in records], np.float64)
    return sensor, event_ms, value, np.array([r.quality for r in records], np.uint8)


class Plain:
    """Records with attributes for kernels that run uncompiled.

    np.recarray won't do: its records have attributes of their own (``flags``, ``mean``, ``any``).
    Whole numbers come as int64, as the compiler takes them; a store that would wrap raises.
    """

    def __init__(self, records: np.ndarray) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> PlainRecord:
        if not 0 <= index < len(self.records):
            raise IndexError(f"record {index} of {len(self.records)}")
        return PlainRecord(self.records[index])


class PlainRecord:
    """One record; fields as attributes."""

    __slots__ = ("record",)

    def __init__(self, record: np.void) -> None:
        object.__setattr__(self, "record", record)

    def __getattr__(self, name: str) -> Any:
        field = self.record[name]
        return np.int64(field) if isinstance(field, np.integer) else field

    def __setattr__(self, name: str, value: Any) -> None:
        self.record[name] = int(value) if isinstance(value, np.integer) else value


class Detection:
    """The detect kernel over a plan."""

    def __init__(self, plan: Any, room: int = 1024) -> None:
        n_sensors = plan.catalog.n_sensors
        self.plan, self.room = plan, room
        self.clock = np.zeros(1, CLOCK)
        for name in ("watermark_ms", "tick_ms"):
            self.clock[name] = NEVER
        self.hot = np.zeros(n_sensors, HOT)
        self.hot["last_ms"] = NEVER
        self.hot["row"] = plan.row
        self.cold = np.zeros(n_sensors, COLD)
        self.panes = np.zeros(plan.window_start[-1], PANES)
        self.bins = np.zeros(max(1, plan.season_start[-1]), BIN)
        self.block_due_ms = np.full(-(-n_sensors >> BLOCK_SHIFT) or 1, FAR_FUTURE_MS, np.int64)
        self.scratch = np.zeros(1, READING)

    def push(self, records: Sequence[Record]) -> np.ndarray:
        """Run a batch and return its changes."""
        log = columns(records)
        taken = []
        start = 0
        while start < len(records):
            changes = np.zeros(self.room, CHANGE)
            consumed, n = detect(
                *log,
                start,
                (0, self.plan.catalog.n_sensors, 1),
                (self.plan.late_after_ms, self.plan.max_ahead_ms, self.plan.max_late_ms),
                for_kernel(
                    (
                        self.plan.params,
                        self.plan.absent_ms,
                        self.plan.window_params,
                        self.plan.window_start,
                        self.plan.season_start,
                        self.plan.catalog.sensor_start,
                    )
                ),
                for_kernel(
                    (
                        self.clock,
                        self.hot,
                        self.cold,
                        self.panes,
                        self.bins,
                        self.block_due_ms,
                        self.scratch,
                    )
                ),
                for_kernel(changes),
            )
            taken.append(np.array(changes[:n]))
            start += consumed
            assert consumed or n, "the kernel neither read nor wrote"
        return np.concatenate([*taken, np.zeros(0, CHANGE)])

    @property
    def counts(self) -> dict[str, int]:
        """What became of the readings, by name."""
        return dict(zip(COUNT_NAMES, self.clock["counts"][0].tolist(), strict=True))


def for_kernel(records: Any) -> Any:
    """Return an array as a kernel takes it: records need attributes where nothing is compiled."""
    if isinstance(records, tuple):
        return tuple(for_kernel(part) for part in records)
    is_records = isinstance(records, np.ndarray) and records.dtype.names is not None
    return Plain(records) if is_records and numba.config.DISABLE_JIT else records


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
) -> Detection:
    """Run a log through the kernel, in batches, and through the oracle; compare all they say."""
    oracle, detection = Oracle(plan), Detection(plan, room)
    oracle.push_all(records)
    changes = [detection.push(batch) for batch in split(records, cuts)]
    found = of_kernel(np.concatenate([*changes, np.zeros(0, CHANGE)]))
    expected = of_oracle(oracle.changes)
    for one, other in zip(found, expected, strict=False):
        assert one == other, f"\nkernel {one}\noracle {other}"
    assert len(found) == len(expected)
    assert detection.counts == oracle.counts
    assert _memory(detection) == [_remembered(sensor) for sensor in oracle.sensors]
    return detection


def _memory(detection: Detection) -> list[tuple[Any, ...]]:
    """Return what the kernel remembers of every sensor that had a good reading."""
    fields = ["anchor", "last", "older", "anchor_age_ms", "older_age_ms", "latched"]
    fields += ["deviation", "above", "below", "n_flat"]
    return [
        (int(h["last_ms"]), int(h["n_bad"]), *(h[name].item() for name in fields))
        if h["n"]
        else (int(h["last_ms"]), int(h["n_bad"]))
        for h in detection.hot
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


def levels_of(detection: Detection, records: Sequence[Record], kind: int) -> list[int]:
    """Push records one by one; return the level of one kind (of sensor 0) after each."""
    levels = []
    for record in records:
        detection.push([record])
        levels.append(int(detection.cold["levels"][0]) >> 3 * kind & 7)
    return levels

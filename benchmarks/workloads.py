"""Seeded worlds for the benchmarks: a city in memory, its rules, and the readings that it sends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from engine.catalog import Catalog
from engine.plan import Plan, compile_plan
from engine.readings import Readings
from engine.rules import Rules
from kernels.layout import TICK

Array = np.ndarray[Any, Any]

BATCH = 65_536
"""Readings of one Arrow batch."""
PERIOD_MS = 10_000
"""Every sensor reports about this often, in random order."""
MIDNIGHT_MS = 1_767_225_600_000
"""2026-01-01T00:00Z, when every world begins."""

RULES = """
version = 1
name = "Every detector on"

[levels]
raise_at = { blue = 20, yellow = 40, orange = 60, red = 80 }
deadband = 5
hold_s = 10

[fusion]
half_life_s = 60

[profiles.methane]
unit = "%LEL"
range = [0, 100]
refractory_s = 60

[profiles.methane.limits]
high = { blue = 20, yellow = 30, orange = 40, red = 50 }
deadband = 1
on_delay_s = 5
off_delay_s = 5

[profiles.methane.rate]
rise = { yellow = 60, orange = 120 }
fall = { yellow = 60 }
per = "min"
window_s = 300
deadband = 5
confirm_n = 2
{windows}
[profiles.methane.deviation]
raise_at = { blue = 8, yellow = 16 }
deadband = 1
memory_n = 64
warmup_n = 32
min_sigma = 0.05
confirm_n = 2

[profiles.methane.drift]
raise_at = { blue = 16 }
deadband = 1
allowance = 0.5

[profiles.methane.liveness]
absent_after = 12
flat_after_n = 600
bad_after_n = 5
spike_at = 20
"""
WINDOW = """
[[profiles.methane.windows]]
name = "mean of a minute"
length_s = 60
panes = 6
aggregate = "mean"
high = { blue = 15, yellow = 25 }
deadband = 1
min_n = 3
"""


def rules_text(windowed: bool = False) -> str:
    """Return the rules of every world: each detector on, the window only where asked for."""
    return RULES.replace("{windows}", WINDOW if windowed else "")


@cache
def city(n_sensors: int, sensors_per_source: int = 4) -> Catalog:
    """Return a catalog in memory: methane sensors, some to a source, all of one partition."""
    n_sources = -(-n_sensors // sensors_per_source)
    sensor_source = (np.arange(n_sensors) // sensors_per_source).astype(np.int32)
    no_couplings: dict[str, Any] = {
        "coupling_start": np.zeros(n_sources + 1, np.int64),
        "coupling_target": np.zeros(0, np.int32),
        "coupling_weight": np.zeros(0, np.float32),
        "coupling_kind": np.zeros(0, np.uint8),
        "coupled_start": np.zeros(n_sources + 1, np.int64),
        "coupled_origin": np.zeros(0, np.int32),
        "coupled_weight": np.zeros(0, np.float32),
        "coupled_kind": np.zeros(0, np.uint8),
    }
    sources = np.arange(n_sources)
    return Catalog(
        digest=f"benchmark-{n_sensors}-{sensors_per_source}",
        n_sources=n_sources,
        n_sensors=n_sensors,
        n_partitions=1,
        source_id=_numbered("NJ-GL-", sources),
        name=_numbered("Valve well ", sources),
        grid=_numbered("G", sources // 50),
        owner=_numbered("Owner ", sources % 5000),
        contact=_numbered("+86-25-", sources % 5000),
        lon=118.3 + sources / n_sources,
        lat=31.2 + 1.4 * sources / n_sources,
        category=np.zeros(n_sources, np.int16),
        categories=["gas_well"],
        district=(sources % 11).astype(np.int16),
        districts=[f"district {number}" for number in range(11)],
        department=(sources % 3 - 1).astype(np.int16),
        departments=["gas office", "works office"],
        static_class=np.zeros(n_sources, np.uint8),
        sensor_start=np.searchsorted(sensor_source, np.arange(n_sources + 1)).astype(np.int64),
        sensor_id=_numbered("NJ-GL-CH4-", np.arange(n_sensors)),
        sensor_source=sensor_source,
        quantity=np.zeros(n_sensors, np.int16),
        quantities=["methane"],
        unit=np.zeros(n_sensors, np.int16),
        units=["%LEL"],
        canonical_units={"methane": "%vol"},
        sensor_scale=np.full(n_sensors, 0.05),
        sensor_offset=np.zeros(n_sensors),
        period_ms=np.full(n_sensors, PERIOD_MS, np.uint32),
        override_sensor=np.zeros(0, np.int32),
        override_high=np.zeros((0, 4)),
        override_low=np.zeros((0, 4)),
        override_deadband=np.zeros(0),
        override_on_delay_s=np.zeros(0),
        override_off_delay_s=np.zeros(0),
        coupling_kinds=[],
        partition_start=np.array([0, n_sources], np.int64),
        cut_couplings=[],
        columns={},
        meta={},
        **no_couplings,
    )


def _numbered(prefix: str, numbers: Array) -> Any:
    padded = np.char.zfill(numbers.astype("U7"), 7)
    return pa.array(np.char.add(prefix, padded), pa.large_string())


def plan_of(n_sensors: int, windowed: bool = False) -> Plan:
    """Return the plan of a city under the benchmark's rules."""
    return compile_plan(city(n_sensors), Rules.parse(rules_text(windowed)))


SWEEPS = 72
"""Readings of each sensor before anything is timed: more than the memory of its baseline."""
NOISE = 0.25
OUTLIER = (18.0, 60.0)
"""How far an outlier lies above its sensor's level: beyond the limits of one level to all."""
RAMP = np.array([0, 17, 27, 37, 47, 47, 37, 27, 17], np.float64)
"""An incident of one sensor, reading by reading: up through all four levels and down again."""


class Feed:
    """What a city's sensors send, as one endless seeded log; event time goes on from call to call.

    Each sensor has a level of its own and noise about it. `outliers` is the share of single
    readings far beyond the limits, `incidents` the share of readings with which an incident begins.
    """

    def __init__(
        self, n_sensors: int, *, outliers: float = 0.0, incidents: float = 0.0, seed: int = 1
    ) -> None:
        self.n_sensors, self.outliers, self.incidents = n_sensors, outliers, incidents
        self.rng = np.random.default_rng(seed)
        self.level = self.rng.uniform(4.5, 5.5, n_sensors)
        self.stage = np.zeros(n_sensors, np.uint8)
        self.sent = 0

    def sweeps(self, n: int = SWEEPS) -> Iterator[Readings]:
        """Yield `n` readings of every sensor, in index order and without incidents."""
        for _ in range(n):
            yield self._send(np.arange(self.n_sensors, dtype=np.int32), calm=True)

    def batch(self, n: int = BATCH) -> Readings:
        """Return the next `n` readings, of sensors drawn at random."""
        return self._send(self.rng.integers(0, self.n_sensors, n, np.int32))

    def batches(self, n: int) -> list[Readings]:
        """Return the next `n` batches."""
        return [self.batch() for _ in range(n)]

    def _send(self, sensor: Array, *, calm: bool = False) -> Readings:
        n = len(sensor)
        noise = self.rng.standard_normal(n, np.float32) * np.float32(NOISE)
        value = self.level[sensor] + noise
        if not calm and self.outliers:
            far = self.rng.random(n) < self.outliers
            value[far] += self.rng.uniform(*OUTLIER, int(far.sum()))
        if not calm and self.incidents:
            begins = self.rng.random(n) < self.incidents
            _ramp(sensor, begins, self.stage, RAMP, value)
        event_ms = MIDNIGHT_MS + (self.sent + np.arange(n)) * PERIOD_MS // self.n_sensors
        self.sent += n
        # the wire carries float32
        return Readings.of(sensor, event_ms, value.astype(np.float32))


@numba.njit(cache=True)
def _ramp(sensor: Array, begins: Array, stage: Array, ramp: Array, value: Array) -> None:
    for i in range(len(sensor)):
        at = stage[sensor[i]]
        if at or begins[i]:
            at = (at + 1) % len(ramp)
            value[i] += ramp[at]
            stage[sensor[i]] = at


def with_ticks(readings: Readings, tick_ms: int, before_ms: int) -> Readings:
    """Return the readings with a tick before the first at or after each whole `tick_ms`.

    `before_ms` is the event time of the record before them.
    """
    whole = np.maximum.accumulate(readings.event_ms) // tick_ms
    turns = np.flatnonzero(np.diff(whole, prepend=before_ms // tick_ms) > 0)
    return Readings(
        np.insert(readings.sensor, turns, TICK),
        np.insert(readings.event_ms, turns, whole[turns] * tick_ms),
        np.insert(readings.value, turns, 0.0),
        np.insert(readings.quality, turns, 0),
    )

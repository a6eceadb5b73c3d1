"""Time the decoding of a fetch: Arrow messages, and JSON of one or of many readings a message."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from benchmarks.measure import Measured, Spread, by_turns, ratios
from benchmarks.workloads import city
from engine.messages import Batch, decode_messages
from engine.readings import Readings
from engine.resolver import Resolver
from engine.split import message

# as in the table: what others take from the core does not count
pytestmark = pytest.mark.benchmark(timer=time.process_time)

N_SENSORS = 1_000_000
N_TURNS = 9
N_JSON = 20_000


class Wire:
    """Fetches of one partition that is the whole city, as each form of message."""

    def __init__(self, n_sensors: int = N_SENSORS, seed: int = 1) -> None:
        self.n_sensors = n_sensors
        self.ids = city(n_sensors).sensor_id
        resolver = Resolver.of(self.ids)
        self.catalog = SimpleNamespace(
            digest="0" * 32, n_sensors=n_sensors, n_sources=0, resolver=lambda: resolver
        )
        self.rng = np.random.default_rng(seed)

    def readings(self, n: int) -> Readings:
        """Return readings of random sensors with values that two decimals write."""
        sensor = self.rng.integers(0, self.n_sensors, n, np.int32)
        value = np.round(self.rng.normal(20, 5, n), 2).astype(np.float32)
        return Readings.of(sensor, 1_714_521_600_000 + np.arange(n), value)

    def arrow(self, n: int, n_messages: int) -> list[bytes]:
        """Return Arrow messages of `n` readings each."""
        return [message(self.readings(n), self.catalog) for _ in range(n_messages)]

    def json(self, n_each: int, n: int = N_JSON) -> list[bytes]:
        """Return JSON messages of `n_each` readings, `n` in all."""
        readings = self.readings(n)
        rows = [
            {"sensor": self.ids[sensor].as_py(), "ts": event_ms, "value": round(value, 2)}
            for sensor, event_ms, value in zip(
                readings.sensor.tolist(),
                readings.event_ms.tolist(),
                readings.value.tolist(),
                strict=True,
            )
        ]
        if n_each == 1:
            return [orjson.dumps(row) for row in rows]
        return [orjson.dumps(rows[at : at + n_each]) for at in range(0, n, n_each)]

    def decode(self, payloads: list[bytes]) -> None:
        """Decode a fetch; AssertionError unless all of it is readings."""
        steps, rejected = decode_messages(payloads, self.catalog, sensors=(0, self.n_sensors))
        assert not rejected and len(steps) == 1 and isinstance(steps[0], Batch)


def copy(payloads: list[bytes]) -> None:
    """Read every byte of a fetch and write it elsewhere."""
    for payload in payloads:
        np.frombuffer(payload, np.uint8).copy()


def parse(payloads: list[bytes]) -> None:
    """Parse the JSON of a fetch, one message after another, and do nothing with it."""
    for payload in payloads:
        orjson.loads(payload)


def _measured(payloads: list[bytes], n: int, limit: Any, what: str) -> Measured:
    wire = _wire()
    wire.decode(payloads)
    contestants = {"ours": wire.decode, "limit": limit}
    # a turn takes long enough for the clock of the process
    turns = by_turns(contestants, [payloads] * N_TURNS, n)
    best = min(turns["limit"])
    return Measured(
        figure=Spread.of(turns["ours"]),
        limit=f"{what} {best:.3g} ns",
        details={"ratio": ratios(turns["ours"], turns["limit"]).median},
    )


_made: list[Wire] = []


def _wire() -> Wire:
    if not _made:
        _made.append(Wire())
    return _made[0]


def measure_arrow() -> Measured:
    """Return the ns a reading of fetches of one Arrow message of 32,768 readings."""
    return _measured(_wire().arrow(32_768, 1), 32_768, copy, "copying the bytes")


def measure_small_arrow() -> Measured:
    """Return the ns a reading of a fetch of sixteen Arrow messages of 4,096 readings."""
    return _measured(_wire().arrow(4_096, 16), 16 * 4_096, copy, "copying the bytes")


def measure_json() -> Measured:
    """Return the ns a reading of JSON messages of 500 readings."""
    return _measured(_wire().json(500), N_JSON, parse, "orjson, parsing alone,")


def measure_single_json() -> Measured:
    """Return the ns a reading of JSON messages of one reading."""
    return _measured(_wire().json(1), N_JSON, parse, "orjson, parsing alone,")


FETCHES = {
    "arrow_32768": lambda wire: wire.arrow(32_768, 1),
    "arrow_4096": lambda wire: wire.arrow(4_096, 16),
    "json_500": lambda wire: wire.json(500),
    "json_1": lambda wire: wire.json(1),
}


@pytest.mark.parametrize("kind", FETCHES)
def bench_decode__fetch_1m(benchmark: Any, kind: str) -> None:
    """Decode a fetch of readings of a million sensors in random order."""
    wire = _wire()
    payloads = FETCHES[kind](wire)
    benchmark.pedantic(wire.decode, args=(payloads,), rounds=N_TURNS, warmup_rounds=1)


if __name__ == "__main__":
    for measure in (measure_arrow, measure_small_arrow, measure_json, measure_single_json):
        found = measure()
        print(measure.__name__, found.figure, found.limit, found.details)

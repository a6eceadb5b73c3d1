"""What the engine did with one source, reading by reading."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from engine.alerts import AlertRecords
from engine.analysis.results.columns import MOMENT, TEXT, moments, named, texts
from engine.analysis.strips import SensorTrace, SourceTrace
from engine.plan import Plan
from engine.sinks import alert_table
from engine.truth import LEVELS
from kernels.layout import COUNT_NAMES, KIND_NAMES, LEVEL_NAMES, N_KINDS, N_LEVELS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Traced:
    """What the engine did with one source, reading by reading; values are in the profiles' units.

    `of` holds it as the engine's own records.
    """

    plan: Plan
    of: SourceTrace

    def __repr__(self) -> str:
        n = sum(len(each.readings) for each in self.of.sensors)
        source = self.plan.catalog.source_id[self.of.source].as_py()
        return f"<Traced: {source}, {len(self.of.sensors)} sensors, {n:,} readings>"

    def readings(self) -> pa.Table:
        """Return every reading and what stood after it, sensor by sensor."""
        counts = [len(each.readings) for each in self.of.sensors]
        records = np.concatenate([each.readings for each in self.of.sensors])
        latched = records["latched"]
        levels = np.zeros(len(records), np.int64)
        for kind in range(N_KINDS):
            np.maximum(levels, records["levels"] >> (3 * kind) & 7, out=levels)
        return pa.table(
            {
                **self._sensors(counts),
                "event_ms": moments(records["event_ms"]),
                "value": records["value"],
                "fate": named(records["fate"], COUNT_NAMES),
                "level": named(levels, LEVEL_NAMES),
                "high": named(_highest(latched & 0xF), LEVEL_NAMES),
                "low": named(_highest(latched >> N_LEVELS), LEVEL_NAMES),
            }
        )

    def signals(self) -> pa.Table:
        """Return each change of a detector's signal; first those that stood at the beginning."""
        rows = [row for each in self.of.sensors for row in self._changes(each)]
        text = pa.string()
        schema = pa.schema(
            [("sensor", text), ("event_ms", MOMENT), ("detector", text), ("level", text)]
        )
        return pa.Table.from_pylist(rows, schema=schema)

    def scores(self) -> pa.Table:
        """Return score and level of the source; each row holds until the next."""
        found = self.of.moments
        return pa.table(
            {
                "event_ms": moments(np.maximum(found["event_ms"], self.of.since_ms)),
                "score": found["score"],
                "level": texts(found["level"], LEVEL_NAMES),
                "shown": texts(found["shown"], LEVEL_NAMES),
            }
        )

    def alerts(self) -> pa.Table:
        """Return the alerts of the source in the time, columns of the Parquet alert log."""
        return alert_table(AlertRecords(self.plan).encode(self.of.transitions))

    def limits(self) -> pa.Table:
        """Return the limits of each sensor, in its profile's unit, and those of the score."""
        text, number = pa.string(), pa.float64()
        schema = pa.schema(
            [
                ("sensor", text), ("side", text), ("level", text), ("limit", number),
                ("deadband", number), ("on_delay_s", number), ("off_delay_s", number),
                ("unit", text),
            ]
        )  # fmt: skip
        return pa.Table.from_pylist(list(self._limits()), schema=schema)

    def _sensors(self, counts: Sequence[int]) -> dict[str, pa.Array]:
        catalog = self.plan.catalog
        sensors = np.repeat(np.array([each.sensor for each in self.of.sensors], np.int64), counts)
        units = [self.plan.unit(int(self.plan.row[each.sensor])) for each in self.of.sensors]
        return {
            "sensor": named(sensors, catalog.sensor_id),
            "quantity": named(catalog.quantity[sensors], catalog.quantities),
            "unit": pa.array(np.repeat(np.array(units, object), counts), pa.string()).cast(TEXT),
        }

    def _changes(self, of: SensorTrace) -> Iterator[dict[str, Any]]:
        name = self.plan.catalog.sensor_id[of.sensor].as_py()
        before = 0
        times = [self.of.since_ms, *of.changes["event_ms"].tolist()]
        for event_ms, packed in zip(
            times, [of.before, *of.changes["levels"].tolist()], strict=True
        ):
            for kind in range(N_KINDS):
                level = packed >> (3 * kind) & 7
                if level != before >> (3 * kind) & 7:
                    yield {
                        "sensor": name,
                        "event_ms": event_ms,
                        "detector": KIND_NAMES[kind],
                        "level": LEVEL_NAMES[level],
                    }
            before = packed

    def _limits(self) -> Iterator[dict[str, Any]]:
        catalog, plan = self.plan.catalog, self.plan
        for each in self.of.sensors:
            row = int(plan.row[each.sensor])
            params = plan.params[row]
            for side in ("high", "low"):
                for k, level in enumerate(LEVELS):
                    if math.isfinite(params[side][k]):
                        yield {
                            "sensor": catalog.sensor_id[each.sensor].as_py(),
                            "side": side,
                            "level": level,
                            "limit": float(params[side][k]),
                            "deadband": float(params["deadband"]),
                            "on_delay_s": float(params["on_ms"][k]) / 1000,
                            "off_delay_s": float(params["off_ms"][k]) / 1000,
                            "unit": plan.unit(row),
                        }
        of = plan.category[catalog.category[self.of.source]]
        for k, level in enumerate(LEVELS):
            if math.isfinite(of["raise_at"][k]):
                yield {
                    "side": "score",
                    "level": level,
                    "limit": float(of["raise_at"][k]),
                    "deadband": float(of["deadband"]),
                    "off_delay_s": float(of["hold_ms"]) / 1000,
                    "unit": "",
                }


def _highest(bits: Array) -> Array:
    """Return the place of the highest bit of four, from 1; 0 where there is none."""
    highest = np.zeros(len(bits), np.int64)
    for k in range(N_LEVELS):
        highest[bits >> k & 1 == 1] = k + 1
    return highest

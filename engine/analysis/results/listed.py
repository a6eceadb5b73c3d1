"""What a history holds, as tables: its sources, its sensors, its readings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from engine.analysis.past import Past
from engine.analysis.results.columns import moments, named, texts
from engine.catalog import STATIC_CLASSES, Catalog
from engine.errors import InputError
from engine.history import Span, joined, owned
from engine.readings import Readings
from engine.rules_base import one_of

Array = np.ndarray[Any, Any]

_NOTHING = Readings.of([], [], [])
_MOST_KNOWN = 100_000
"""Ids that are looked through for one that is like a wrong one."""


def source_table(catalog: Catalog) -> pa.Table:
    """Return one row a source, in the catalog's order."""
    return pa.table(
        {
            "source": catalog.source_id.cast(pa.string()),
            "name": catalog.name.cast(pa.string()),
            "category": texts(catalog.category, catalog.categories),
            "static_class": texts(catalog.static_class, STATIC_CLASSES),
            "district": texts(catalog.district, catalog.districts),
            "department": texts(catalog.department, catalog.departments),
            "owner": catalog.owner.cast(pa.string()),
            "grid": catalog.grid.cast(pa.string()),
            "lon": np.asarray(catalog.lon),
            "lat": np.asarray(catalog.lat),
            "sensors": np.diff(catalog.sensor_start).astype(np.int64),
        }
    )


def sensor_table(catalog: Catalog) -> pa.Table:
    """Return one row a sensor, in the catalog's order."""
    return pa.table(
        {
            "sensor": catalog.sensor_id.cast(pa.string()),
            "source": texts(catalog.sensor_source, catalog.source_id),
            "quantity": texts(catalog.quantity, catalog.quantities),
            "unit": texts(catalog.unit, catalog.units),
            "period_s": np.asarray(catalog.period_ms, np.float64) / 1000,
        }
    )


def reading_table(past: Past, sensors: Array | None, span: Span) -> pa.Table:
    """Return the readings of some sensors, or of all, in a time, in the log's order."""
    catalog = past.catalog
    wanted = np.ones(catalog.n_sensors, bool)
    if sensors is not None:
        wanted[:] = False
        wanted[sensors] = True
    pieces = []
    for chunk in replace(past, span=within(past.span, span)).history().chunks():
        # negative: ticks of a dump, and sensors that the catalog does not have
        keep = np.flatnonzero((chunk.sensor >= 0) & wanted[np.maximum(chunk.sensor, 0)])
        if len(keep):
            pieces.append(owned(chunk.where(keep)))
    found = joined([_NOTHING, *pieces])
    sensor = found.sensor
    return pa.table(
        {
            "sensor": named(sensor, catalog.sensor_id),
            "source": named(catalog.sensor_source[sensor], catalog.source_id),
            "quantity": named(catalog.quantity[sensor], catalog.quantities),
            "event_ms": moments(found.event_ms),
            "value": found.value,
            "unit": named(catalog.unit[sensor], catalog.units),
            "quality": found.quality,
        }
    )


def within(one: Span, other: Span) -> Span:
    """Return the time that two spans share."""
    sinces = [ms for ms in (one.since_ms, other.since_ms) if ms is not None]
    untils = [ms for ms in (one.until_ms, other.until_ms) if ms is not None]
    return Span(max(sinces, default=None), min(untils, default=None))


def source_index(catalog: Catalog, name: str) -> int:
    """Return a source's dense index; InputError if the catalog does not have it."""
    index = catalog.source_index(name)
    if index < 0:
        raise _unknown("source", name, catalog.source_id)
    return index


def sensor_indices(catalog: Catalog, names: Iterable[str]) -> Array:
    """Return dense indices of sensors; InputError for one that the catalog does not have."""
    given = list(names)
    found = catalog.resolver().resolve(pa.array(given, pa.string()))
    for name, index in zip(given, found.tolist(), strict=True):
        if index < 0:
            raise _unknown("sensor", name, catalog.sensor_id)
    return found


def _unknown(what: str, name: str, ids: Any) -> InputError:
    near = one_of(name, ids[:_MOST_KNOWN].to_pylist(), all_if_none=False)
    return InputError(f"{name}: no such {what} in the catalog{near}")

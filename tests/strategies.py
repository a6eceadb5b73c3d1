"""Small inputs for tests: a catalog in memory with the arrays of a compiled one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from engine.units import QUANTITIES, Quantity, normalise_unit, to_canonical

STATIC_CLASSES = ("none", "blue", "yellow", "red")
LEVELS = ("blue", "yellow", "orange", "red")

WELL = (("well", "gas_well"),)
METHANE = (("methane-1", "well", "methane", "%LEL"),)


def tiny_catalog(
    sources: Sequence[Sequence[Any]] = WELL,
    sensors: Sequence[Sequence[Any]] = METHANE,
    couplings: Sequence[tuple[str, str, str, float]] = (),
    *,
    own: Mapping[str, Mapping[str, float]] | None = None,
    site_quantities: Mapping[str, str] | None = None,
    period_s: float = 60.0,
) -> Any:
    """Return an object with the arrays of `engine.catalog.Catalog`, one partition.

    sources    (id, category[, static class[, district[, department]]]), in dense order
    sensors    (id, source, quantity, unit[, period_s]); dense order: by source, then as given
    couplings  (from source, to source, kind, weight)
    own        sensor → limits of its own: {"high_red": 50, "deadband": 2, "on_delay_s": 60}
    site_quantities  quantity → canonical unit, beside the built-in ones
    """
    rows = [(*source, *("none", None, None)[len(source) - 2 :]) for source in sources]
    source_ids = [row[0] for row in rows]
    place = {name: index for index, name in enumerate(source_ids)}
    measured = sorted(
        ((*sensor, period_s)[:5] for sensor in sensors), key=lambda sensor: place[sensor[1]]
    )
    sensor_source = np.array([place[sensor[1]] for sensor in measured], np.int32)
    categories = sorted({row[1] for row in rows})
    districts = sorted({row[3] for row in rows if row[3] is not None})
    departments = sorted({row[4] for row in rows if row[4] is not None})
    quantities = sorted({sensor[2] for sensor in measured})
    units = sorted({normalise_unit(sensor[3]) for sensor in measured})
    known = QUANTITIES | {
        name: Quantity(name=name, unit=unit, description="")
        for name, unit in (site_quantities or {}).items()
    }
    scaled = [to_canonical(known[sensor[2]], sensor[3]) for sensor in measured]
    n_sources, n_sensors = len(rows), len(measured)
    texts = {
        key: pa.array([f"{key} of {name}" for name in source_ids], pa.large_string())
        for key in ("name", "grid", "owner", "contact")
    }
    content = repr((rows, measured, couplings, own, site_quantities)).encode()
    return SimpleNamespace(
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        n_sources=n_sources,
        n_sensors=n_sensors,
        n_partitions=1,
        partition_start=np.array([0, n_sources], np.int64),
        source_id=pa.array(source_ids, pa.large_string()),
        sensor_id=pa.array([sensor[0] for sensor in measured], pa.large_string()),
        **texts,
        lon=118.8 + 0.001 * np.arange(n_sources),
        lat=32.0 + 0.001 * np.arange(n_sources),
        categories=categories,
        category=np.array([categories.index(row[1]) for row in rows], np.int16),
        districts=districts,
        district=np.array(
            [-1 if row[3] is None else districts.index(row[3]) for row in rows], np.int16
        ),
        departments=departments,
        department=np.array(
            [-1 if row[4] is None else departments.index(row[4]) for row in rows], np.int16
        ),
        static_class=np.array([STATIC_CLASSES.index(row[2]) for row in rows], np.uint8),
        sensor_start=np.searchsorted(sensor_source, np.arange(n_sources + 1)).astype(np.int64),
        sensor_source=sensor_source,
        quantities=quantities,
        quantity=np.array([quantities.index(sensor[2]) for sensor in measured], np.int16),
        units=units,
        unit=np.array([units.index(normalise_unit(sensor[3])) for sensor in measured], np.int16),
        canonical_units={name: known[name].unit for name in quantities},
        sensor_scale=np.array([scale for scale, _ in scaled], np.float64),
        sensor_offset=np.array([offset for _, offset in scaled], np.float64),
        period_ms=np.array([round(sensor[4] * 1000) for sensor in measured], np.uint32),
        **_own_limits([sensor[0] for sensor in measured], own or {}),
        **_couplings(n_sources, [(place[a], place[b], kind, w) for a, b, kind, w in couplings]),
    )


def _own_limits(
    sensor_ids: list[str], own: Mapping[str, Mapping[str, float]]
) -> dict[str, np.ndarray[Any, Any]]:
    sensors = [index for index, name in enumerate(sensor_ids) if name in own]
    tables = [own[sensor_ids[index]] for index in sensors]

    def column(key: str) -> list[float]:
        return [table.get(key, np.nan) for table in tables]

    high = np.array([column(f"high_{level}") for level in LEVELS], np.float64)
    low = np.array([column(f"low_{level}") for level in LEVELS], np.float64)
    return {
        "override_sensor": np.array(sensors, np.int32),
        "override_high": high.T.copy(),
        "override_low": low.T.copy(),
        **{
            f"override_{key}": np.array(column(key), np.float64)
            for key in ("deadband", "on_delay_s", "off_delay_s")
        },
    }


def _couplings(n_sources: int, edges: list[tuple[int, int, str, float]]) -> dict[str, Any]:
    kinds = sorted({kind for _, _, kind, _ in edges})

    def rows(prefix: str, by: int, other: int, named: str) -> dict[str, Any]:
        ordered = sorted(edges, key=lambda edge: (edge[by], edge[other]))
        at = np.array([edge[by] for edge in ordered], np.int64)
        return {
            f"{prefix}_start": np.searchsorted(at, np.arange(n_sources + 1)).astype(np.int64),
            f"{prefix}_{named}": np.array([edge[other] for edge in ordered], np.int32),
            f"{prefix}_weight": np.array([edge[3] for edge in ordered], np.float32),
            f"{prefix}_kind": np.array([kinds.index(edge[2]) for edge in ordered], np.uint8),
        }

    return {
        "coupling_kinds": kinds,
        **rows("coupling", 0, 1, "target"),
        **rows("coupled", 1, 0, "origin"),
        "cut_couplings": [],
    }

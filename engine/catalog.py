"""The compiled catalog: sources, sensors and couplings by dense index, mapped from one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.catalog_file import COLUMNS, digest_of, read_columns
from engine.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.catalog_build import BuildReport
    from engine.resolver import Resolver

STATIC_CLASSES = ["none", "blue", "yellow", "red"]
"""Names of the codes in `Catalog.static_class`."""
MAX_NAME = 512
"""Most characters of an id, category, district or department: they become parts of keys."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Catalog:
    """Everything known about a city before its first reading.

    S sources, N sensors, C couplings, K sensors with overrides, P partitions. Sources are ordered
    by partition, cluster and id, sensors by source and id: a partition is a contiguous range of
    both. All arrays are read-only views of the file. Open one with `Catalog.open`.
    """

    digest: str
    n_sources: int
    n_sensors: int
    n_partitions: int

    source_id: pa.LargeStringArray
    name: pa.LargeStringArray
    grid: pa.LargeStringArray
    owner: pa.LargeStringArray
    contact: pa.LargeStringArray
    lon: np.ndarray  # (S,) float64, degrees, WGS84
    lat: np.ndarray  # (S,) float64, degrees, WGS84
    category: np.ndarray  # (S,) int16 into `categories`
    categories: list[str]
    district: np.ndarray  # (S,) int16 into `districts`; −1 none
    districts: list[str]
    department: np.ndarray  # (S,) int16 into `departments`: whom the source answers to; −1 none
    departments: list[str]
    static_class: np.ndarray  # (S,) uint8 into STATIC_CLASSES

    sensor_start: np.ndarray  # (S + 1,) int64: sensors of source i are [start[i], start[i + 1])
    sensor_id: pa.LargeStringArray
    sensor_source: np.ndarray  # (N,) int32
    quantity: np.ndarray  # (N,) int16 into `quantities`
    quantities: list[str]
    unit: np.ndarray  # (N,) int16 into `units`
    units: list[str]
    canonical_units: dict[str, str]  # of each quantity
    sensor_scale: np.ndarray  # (N,) float64: canonical = scale · value + offset
    sensor_offset: np.ndarray  # (N,) float64
    period_ms: np.ndarray  # (N,) uint32, between two readings

    override_sensor: np.ndarray  # (K,) int32, ascending
    override_high: np.ndarray  # (K, 4) float64: blue, yellow, orange, red; sensor's unit; NaN none
    override_low: np.ndarray  # (K, 4) float64, likewise
    override_deadband: np.ndarray  # (K,) float64, sensor's unit; NaN none
    override_on_delay_s: np.ndarray  # (K,) float64, of every level; NaN none
    override_off_delay_s: np.ndarray  # (K,) float64, likewise

    coupling_start: np.ndarray  # (S + 1,) int64: couplings from source i
    coupling_target: np.ndarray  # (C,) int32
    coupling_weight: np.ndarray  # (C,) float32, 0 to 1
    coupling_kind: np.ndarray  # (C,) uint8 into `coupling_kinds`
    coupling_kinds: list[str]
    coupled_start: np.ndarray  # (S + 1,) int64: the same couplings, by the source they reach
    coupled_origin: np.ndarray  # (C,) int32
    coupled_weight: np.ndarray  # (C,) float32
    coupled_kind: np.ndarray  # (C,) uint8

    partition_start: np.ndarray  # (P + 1,) int64, in sources
    cut_couplings: list[tuple[int, int, str, float]]  # from, to, kind, weight: not in the CSR

    columns: Mapping[str, Any]
    meta: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Catalog:
        """Map a compiled catalog. Raises `CatalogError` unless it is a whole one of this format."""
        path = Path(path)
        columns, meta = read_columns(path)
        try:
            catalog = cls._from(columns, meta)
            catalog._check_lengths()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CatalogError(f"{path}: damaged catalog: {error}") from error
        return catalog

    @classmethod
    def _from(cls, columns: Mapping[str, Any], meta: Mapping[str, Any]) -> Catalog:
        known = {field.name for field in fields(cls)}
        values = {name: column for name, column in columns.items() if name in known}
        values.update({key: value for key, value in meta.items() if key in known})
        values["override_high"] = columns["override_high"].reshape(-1, 4)
        values["override_low"] = columns["override_low"].reshape(-1, 4)
        kinds = meta["coupling_kinds"]
        values["cut_couplings"] = [
            (int(origin), int(target), kinds[kind], float(weight))
            for origin, target, kind, weight in zip(
                columns["cut_origin"],
                columns["cut_target"],
                columns["cut_kind"],
                columns["cut_weight"],
                strict=True,
            )
        ]
        return cls(columns=columns, meta=meta, **values)

    def _check_lengths(self) -> None:
        n_overrides = len(self.columns["override_sensor"])
        n_rows = {
            "source": self.n_sources,
            "source bound": self.n_sources + 1,
            "sensor": self.n_sensors,
            "partition bound": self.n_partitions + 1,
            "override": n_overrides,
            "override level": 4 * n_overrides,
            "coupling": len(self.columns["coupling_target"]),
            "cut": len(self.columns["cut_origin"]),
            "slot": len(self.columns["slots"]),
        }
        for name, (_, of) in COLUMNS.items():
            if len(self.columns[name]) != n_rows[of]:
                found = len(self.columns[name])
                raise ValueError(f"{name} has {found} rows, not one for each of {n_rows[of]} {of}s")

    @staticmethod
    def build(
        folder: str | Path,
        out: str | Path,
        partitions: int | None = None,
        max_cluster: int | None = None,
        like: str | Path | None = None,
    ) -> BuildReport:
        """Compile a folder; the same as `engine.catalog_build.build_catalog`."""
        from engine.catalog_build import build_catalog

        old = None if like is None else Path(like)
        return build_catalog(Path(folder), Path(out), partitions, max_cluster, old)

    def resolver(self) -> Resolver:
        """Return what turns sensor ids into dense indices."""
        return self._sensor_resolver

    def source_resolver(self) -> Resolver:
        """Return what turns source ids into dense indices; builds its table on first use."""
        return self._source_resolver

    @cached_property
    def _sensor_resolver(self) -> Resolver:
        from engine.resolver import Resolver

        slots = self.columns["slots"]
        return Resolver(self.sensor_id, slots, self.meta["seed"], self.meta["max_probe"])

    @cached_property
    def _source_resolver(self) -> Resolver:
        from engine.resolver import Resolver

        return Resolver.of(self.source_id)

    def source_index(self, name: str) -> int:
        """Return the dense index of a source's id, -1 if the catalog does not have it."""
        from engine.arrow_views import texts

        return int(self.source_resolver().resolve(texts([name]))[0])

    def partition_of(self, source: int) -> int:
        """Return the partition of a source's dense index."""
        return int(np.searchsorted(self.partition_start, source, side="right")) - 1

    def verify(self) -> None:
        """Read every byte and compare with the digest. Raises `CatalogError` when they differ."""
        found = digest_of(self.columns, self.meta)
        if found != self.digest:
            raise CatalogError(f"damaged catalog: its digest is {found}, not {self.digest}")

    def partition_sensors(self) -> np.ndarray:
        """Return where each partition begins, in sensors: (P + 1,) int64."""
        return self.sensor_start[self.partition_start]

    def summary(self) -> dict[str, Any]:
        """Return counts, vocabularies and the balance of partitions as plain JSON values."""
        loads = np.diff(self.partition_sensors())
        n_by_quantity = np.bincount(self.quantity, minlength=len(self.quantities))
        n_by_category = np.bincount(self.category, minlength=len(self.categories))
        n_by_class = np.bincount(self.static_class, minlength=len(STATIC_CLASSES))
        return {
            "digest": self.digest,
            "sources": self.n_sources,
            "sensors": self.n_sensors,
            "couplings": len(self.coupling_target),
            "cut_couplings": len(self.cut_couplings),
            "overrides": len(self.override_sensor),
            "partitions": self.n_partitions,
            "partition_sensors": loads.tolist(),
            "skew": skew(loads),
            "quantities": {
                name: {"unit": self.canonical_units[name], "sensors": int(count)}
                for name, count in zip(self.quantities, n_by_quantity, strict=True)
            },
            "categories": dict(zip(self.categories, n_by_category.tolist(), strict=True)),
            "static_classes": dict(zip(STATIC_CLASSES, n_by_class.tolist(), strict=True)),
            "districts": len(self.districts),
            "departments": len(self.departments),
        }


def skew(loads: np.ndarray) -> float:
    """Return the greatest load over the mean; 1 is perfect balance, and that of no load at all."""
    mean = float(loads.mean()) if loads.size else 0.0
    return round(float(loads.max()) / mean, 4) if mean else 1.0

"""Compile a folder of sources, sensors and couplings into one catalog file."""

from __future__ import annotations

import heapq
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.catalog import Catalog, skew
from engine.catalog_checks import (
    COUPLING_COLUMNS,
    SENSOR_COLUMNS,
    SOURCE_COLUMNS,
    Couplings,
    Sensors,
    Sources,
    check_couplings,
    check_sensors,
    check_sources,
    no_couplings,
)
from engine.catalog_file import FORMAT_VERSION, digest_of, write_columns
from engine.catalog_input import Table, read_table
from engine.errors import CatalogError
from engine.fault_log import FaultLog
from engine.resolver import Resolver, enter_ids
from engine.units import QUANTITIES, Quantity, load_site_quantities
from kernels.cluster import join_clusters

DEFAULT_MAX_CLUSTER = 50_000


DEFAULT_PARTITIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """What became of the sources of the catalog that another was built like."""

    digest: str
    kept: int
    new: int
    gone: int
    moved: list[tuple[str, int, int]]  # source, partition before, partition now


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build made of its input; loads and bounds are counted in sensors."""

    path: str
    digest: str
    sources: int
    sensors: int
    couplings: int
    clusters: int
    largest_cluster: int
    max_cluster: int
    partition_sensors: list[int]
    skew: float
    cut_couplings: list[tuple[str, str, str, float]]  # from, to, kind, weight
    like: Likeness | None  # to the catalog that it was built like
    ignored_columns: dict[str, list[str]]
    file_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where every source goes: `order[i]` is the row of the file that becomes dense index i."""

    order: np.ndarray
    partition_start: np.ndarray
    cut: np.ndarray  # of the couplings
    n_clusters: int
    largest_cluster: int


def build_catalog(
    folder: Path,
    out: Path,
    partitions: int | None = None,
    max_cluster: int | None = None,
    like: Path | None = None,
) -> BuildReport:
    """Read, check, arrange and write. Raises `CatalogError` with every fault of the folder.

    Sources that the catalog `like` knows stay in their partitions, as far as clusters allow; it has
    as many partitions, then.
    """
    old = None if like is None else Catalog.open(like)
    if partitions is None:
        partitions = DEFAULT_PARTITIONS if old is None else old.n_partitions
    if old is not None and partitions != old.n_partitions:
        bound = f"partitions must be {old.n_partitions}, as {like} has them, got {partitions}"
        raise CatalogError(bound)
    if partitions < 1:
        raise CatalogError(f"partitions must be at least 1, got {partitions}")
    if max_cluster is not None and max_cluster < 1:
        raise CatalogError(f"max_cluster must be at least 1, got {max_cluster}")
    clock = _Laps()
    sources, sensors, couplings, quantities, ignored = _read_checked(folder, clock)
    n_sensors = len(sensors.source)
    if max_cluster is None:
        max_cluster = max(n_sensors // (2 * partitions), DEFAULT_MAX_CLUSTER)
    n_of_source = np.bincount(sensors.source, minlength=len(sources.lon))
    ids = sources.texts["source_id"]
    home = None if old is None else _homes(old, ids)
    layout = arrange(ids, n_of_source, couplings, partitions, max_cluster, home)
    clock.lap("arrange")
    columns, meta = _compile(sources, sensors, couplings, quantities, layout)
    meta["digest"] = digest_of(columns, meta)
    clock.lap("compile")
    write_columns(out, columns, meta)
    clock.lap("write")
    loads = np.diff(columns["sensor_start"][layout.partition_start])
    return BuildReport(
        path=str(out),
        digest=meta["digest"],
        sources=meta["n_sources"],
        sensors=n_sensors,
        couplings=len(columns["coupling_target"]),
        clusters=layout.n_clusters,
        largest_cluster=layout.largest_cluster,
        max_cluster=max_cluster,
        partition_sensors=loads.tolist(),
        skew=skew(loads),
        cut_couplings=_named_cuts(columns, meta),
        like=None if old is None or home is None else _likeness(old, ids, home, layout),
        ignored_columns=ignored,
        file_bytes=out.stat().st_size,
        seconds=clock.seconds,
    )


def _homes(old: Catalog, ids: Any) -> np.ndarray:
    """Return the partition in which another catalog has each source, −1 for what it lacks."""
    index = old.source_resolver().resolve(ids)
    partition = np.searchsorted(old.partition_start, index, side="right") - 1
    return np.where(index < 0, -1, partition)


def _likeness(old: Catalog, ids: Any, home: np.ndarray, layout: Layout) -> Likeness:
    now = np.empty(len(home), np.int64)
    n_in_partition = np.diff(layout.partition_start)
    now[layout.order] = np.repeat(np.arange(len(n_in_partition)), n_in_partition)
    known = home >= 0
    moved = np.flatnonzero(known & (home != now))
    return Likeness(
        digest=old.digest,
        kept=int(known.sum()) - len(moved),
        new=int((~known).sum()),
        gone=old.n_sources - int(known.sum()),
        moved=[(ids[row].as_py(), int(home[row]), int(now[row])) for row in moved.tolist()],
    )


class _Laps:
    """Wall time of each stage, for the report of the build only."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


def _read_checked(
    folder: Path, clock: _Laps
) -> tuple[Sources, Sensors, Couplings, dict[str, Quantity], dict[str, list[str]]]:
    if not folder.is_dir():
        raise CatalogError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    log = FaultLog()
    quantities = _quantities(folder, log)
    source_table = read_table(folder, "sources", SOURCE_COLUMNS, log, required=True)
    sensor_table = read_table(folder, "sensors", SENSOR_COLUMNS, log, required=True)
    coupling_table = read_table(folder, "couplings", COUPLING_COLUMNS, log, required=False)
    clock.lap("read")
    sources = known = sensors = None
    if source_table is not None:
        sources = check_sources(source_table, log)
        if "source_id" in source_table.texts:
            known = Resolver.of(sources.texts["source_id"])
    if sensor_table is not None:
        sensors = check_sensors(sensor_table, quantities, known, log)
    couplings = no_couplings()
    if coupling_table is not None:
        couplings = check_couplings(coupling_table, known, log)
    clock.lap("check")
    log.raise_if_any(CatalogError, str(folder))
    assert sources is not None and sensors is not None
    tables = [t for t in (source_table, sensor_table, coupling_table) if isinstance(t, Table)]
    ignored = {table.file: table.ignored for table in tables if table.ignored}
    return sources, sensors, couplings, quantities, ignored


def _quantities(folder: Path, log: FaultLog) -> dict[str, Quantity]:
    path = folder / "quantities.toml"
    if not path.exists():
        return QUANTITIES
    try:
        return load_site_quantities(path)
    except CatalogError as error:
        for fault in error.faults:
            log.add(fault)
        return QUANTITIES


def arrange(
    source_id: Any,
    n_of_source: np.ndarray,
    couplings: Couplings,
    partitions: int,
    max_cluster: int,
    home: np.ndarray | None = None,
) -> Layout:
    """Join coupled sources into clusters and pack those into partitions.

    Clusters go, largest first, to the partition with the fewest sensors, and are never split; one
    above `max_cluster` sensors was cut at its weakest couplings before. Nothing depends on the
    order of the rows: ties are broken by id. A cluster with sources that have a `home` goes to the
    partition where most of it is at home, before the others are packed.
    """
    n_sources = len(source_id)
    by_id = np.asarray(pc.sort_indices(source_id))
    rank = np.empty(n_sources, np.int64)
    rank[by_id] = np.arange(n_sources)
    origin, target = rank[couplings.origin], rank[couplings.target]
    # strongest first; the kind decides nothing but makes the order whole
    strongest = np.lexsort((couplings.kind.codes, target, origin, -couplings.weight))
    parent = np.arange(n_sources, dtype=np.int32)
    load = n_of_source[by_id].astype(np.int64)
    cut_in_order = np.zeros(len(strongest), bool)
    join_clusters(
        origin[strongest].astype(np.int32),
        target[strongest].astype(np.int32),
        max_cluster,
        parent,
        load,
        cut_in_order,
    )
    cut = np.zeros(len(strongest), bool)
    cut[strongest] = cut_in_order

    roots, cluster = np.unique(parent, return_inverse=True)
    n_in_cluster = np.bincount(cluster, minlength=len(roots))
    cluster_load = load[roots]
    # a cluster is known by its first id
    first = np.full(len(roots), n_sources, np.int64)
    np.minimum.at(first, cluster, np.arange(n_sources))
    settled = np.full(len(roots), -1, np.int64)
    if home is not None:
        settled = _settle(cluster, home[by_id], n_of_source[by_id], len(roots), partitions)
    partition = _pack(cluster_load, n_in_cluster, first, partitions, settled)
    by_place = np.lexsort((np.arange(n_sources), first[cluster], partition[cluster]))
    n_in_partition = np.bincount(partition[cluster], minlength=partitions)
    return Layout(
        order=by_id[by_place],
        partition_start=np.concatenate(([0], np.cumsum(n_in_partition))).astype(np.int64),
        cut=cut,
        n_clusters=len(roots),
        largest_cluster=int(cluster_load.max(initial=0)),
    )


def _settle(
    cluster: np.ndarray, home: np.ndarray, n_sensors: np.ndarray, n_clusters: int, partitions: int
) -> np.ndarray:
    """Return where most of each cluster (its sensors and sources) is at home; −1 for nowhere."""
    known = np.flatnonzero(home >= 0)
    vote, which = np.unique(cluster[known] * partitions + home[known], return_inverse=True)
    votes = np.bincount(which, n_sensors[known] + 1, minlength=len(vote))
    settled = np.full(n_clusters, -1, np.int64)
    order = np.lexsort((-vote, votes))  # the last to be written has most, the first among equals
    settled[vote[order] // partitions] = vote[order] % partitions
    return settled


def _pack(
    cluster_load: np.ndarray,
    n_in_cluster: np.ndarray,
    first: np.ndarray,
    partitions: int,
    settled: np.ndarray,
) -> np.ndarray:
    """Return the partition of each cluster: largest first, each to the lightest so far."""
    at_home = settled >= 0
    loads = np.zeros((partitions, 2), np.int64)
    np.add.at(loads[:, 0], settled[at_home], cluster_load[at_home])
    np.add.at(loads[:, 1], settled[at_home], n_in_cluster[at_home])
    heap = [(*load, number) for number, load in enumerate(loads.tolist())]
    heapq.heapify(heap)
    chosen = settled.copy()
    for cluster in np.lexsort((first, -n_in_cluster, -cluster_load)).tolist():
        if settled[cluster] >= 0:
            continue
        sensors, sources, number = heap[0]
        chosen[cluster] = number
        grown = (sensors + int(cluster_load[cluster]), sources + int(n_in_cluster[cluster]), number)
        heapq.heapreplace(heap, grown)
    return chosen


def _compile(
    sources: Sources,
    sensors: Sensors,
    couplings: Couplings,
    quantities: dict[str, Quantity],
    layout: Layout,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of the file, in dense order, and its metadata."""
    order = layout.order
    n_sources = len(order)
    dense = np.empty(n_sources, np.int32)
    dense[order] = np.arange(n_sources, dtype=np.int32)
    taken = pa.array(order)
    columns: dict[str, Any] = {key: text.take(taken) for key, text in sources.texts.items()}
    columns.update(
        lon=sources.lon[order],
        lat=sources.lat[order],
        category=sources.category.codes[order].astype(np.int16),
        district=sources.district.codes[order].astype(np.int16),
        department=sources.department.codes[order].astype(np.int16),
        static_class=sources.static_class[order],
        partition_start=layout.partition_start,
    )
    columns.update(_sensor_columns(sensors, dense))
    columns.update(_coupling_columns(couplings, dense, layout.cut))
    slots, seed, max_probe, _ = enter_ids(columns["sensor_id"])
    columns["slots"] = slots
    meta = {
        "version": FORMAT_VERSION,
        "n_sources": n_sources,
        "n_sensors": len(sensors.source),
        "n_partitions": len(layout.partition_start) - 1,
        "categories": sources.category.words,
        "districts": sources.district.words,
        "departments": sources.department.words,
        "quantities": sensors.quantity.words,
        "units": sensors.unit.words,
        "canonical_units": {name: quantities[name].unit for name in sensors.quantity.words},
        "coupling_kinds": couplings.kind.words,
        "n_clusters": layout.n_clusters,
        "seed": seed,
        "max_probe": max_probe,
    }
    return columns, meta


def _sensor_columns(sensors: Sensors, dense: np.ndarray) -> dict[str, Any]:
    source = dense[sensors.source]
    keys = pa.table({"source": source, "sensor_id": sensors.sensor_id})
    ascending = [("source", "ascending"), ("sensor_id", "ascending")]
    order = np.asarray(pc.sort_indices(keys, sort_keys=ascending))
    high, low, deadband = sensors.high[order], sensors.low[order], sensors.deadband[order]
    on_delay_s, off_delay_s = sensors.on_delay_s[order], sensors.off_delay_s[order]
    own = np.column_stack([high, low, deadband, on_delay_s, off_delay_s])
    has_override = ~np.isnan(own).all(1)
    n_of_source = np.bincount(source, minlength=len(dense))
    return {
        "sensor_start": np.concatenate(([0], np.cumsum(n_of_source))).astype(np.int64),
        "sensor_id": sensors.sensor_id.take(pa.array(order)),
        "sensor_source": source[order].astype(np.int32),
        "quantity": sensors.quantity.codes[order].astype(np.int16),
        "unit": sensors.unit.codes[order].astype(np.int16),
        "sensor_scale": sensors.scale[order],
        "sensor_offset": sensors.offset[order],
        "period_ms": sensors.period_ms[order],
        "override_sensor": np.flatnonzero(has_override).astype(np.int32),
        "override_high": high[has_override].ravel(),
        "override_low": low[has_override].ravel(),
        "override_deadband": deadband[has_override],
        "override_on_delay_s": on_delay_s[has_override],
        "override_off_delay_s": off_delay_s[has_override],
    }


def _coupling_columns(couplings: Couplings, dense: np.ndarray, cut: np.ndarray) -> dict[str, Any]:
    origin, target = dense[couplings.origin], dense[couplings.target]
    weight = couplings.weight.astype(np.float32)
    kind = couplings.kind.codes.astype(np.uint8)
    kept = ~cut
    forward = np.lexsort((kind, target, origin))
    forward = forward[kept[forward]]
    backward = np.lexsort((kind, origin, target))
    backward = backward[kept[backward]]
    cuts = np.lexsort((kind, target, origin))
    cuts = cuts[cut[cuts]]

    def starts(ends: np.ndarray) -> np.ndarray:
        count = np.bincount(ends, minlength=len(dense))
        return np.concatenate(([0], np.cumsum(count))).astype(np.int64)

    return {
        "coupling_start": starts(origin[forward]),
        "coupling_target": target[forward],
        "coupling_weight": weight[forward],
        "coupling_kind": kind[forward],
        "coupled_start": starts(target[backward]),
        "coupled_origin": origin[backward],
        "coupled_weight": weight[backward],
        "coupled_kind": kind[backward],
        "cut_origin": origin[cuts],
        "cut_target": target[cuts],
        "cut_weight": weight[cuts],
        "cut_kind": kind[cuts],
    }


def _named_cuts(columns: dict[str, Any], meta: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    names = columns["source_id"]
    return [
        (
            names[int(origin)].as_py(),
            names[int(target)].as_py(),
            meta["coupling_kinds"][kind],
            round(float(weight), 6),
        )
        for origin, target, kind, weight in zip(
            columns["cut_origin"],
            columns["cut_target"],
            columns["cut_kind"],
            columns["cut_weight"],
            strict=True,
        )
    ]

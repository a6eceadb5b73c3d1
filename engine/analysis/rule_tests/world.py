"""The world of a test of rules: a few sources, compiled in memory, and the plan of the rules there.

A source is the file's or the test's own, or of a catalog: of that only those that tests name are
taken, with the couplings between them. So a test is small however large the city is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from engine import catalog_build
from engine.alerts import AlertRecords
from engine.analysis.rule_tests.file import Couple, Loaded, Source
from engine.arrow_views import texts
from engine.catalog import STATIC_CLASSES, Catalog
from engine.catalog_checks import (
    COUPLING_COLUMNS,
    DELAYS,
    SENSOR_COLUMNS,
    SOURCE_COLUMNS,
    Couplings,
    check_couplings,
    check_sensors,
    check_sources,
    no_couplings,
)
from engine.catalog_file import COLUMNS, TEXT, digest_of
from engine.catalog_input import Column, Table
from engine.errors import CatalogError, Fault, InputError, RulesError
from engine.fault_log import FaultLog
from engine.plan import Plan, compile_plan
from engine.resolver import Resolver
from engine.rules import Rules
from engine.rules_base import LEVELS, Path
from engine.units import QUANTITIES, Quantity, load_site_quantities

Row = dict[str, Any]


class City(NamedTuple):
    """A catalog that tests take sources from."""

    catalog: Catalog
    quantities: dict[str, Quantity]

    @classmethod
    def open(cls, path: FilePath) -> City:
        """Open a compiled catalog, or compile a catalog's folder in memory."""
        if path.is_dir():
            sources, sensors, couplings, quantities, _ = catalog_build._read_checked(
                path, catalog_build._Laps()
            )
            return cls(_compiled(sources, sensors, couplings, quantities), quantities)
        catalog = Catalog.open(path)
        own = {
            name: Quantity(name=name, unit=unit, description="")
            for name, unit in catalog.canonical_units.items()
            if name not in QUANTITIES
        }
        return cls(catalog, QUANTITIES | own)

    def source_of(self, sensor: str) -> str | None:
        """Return the source of a sensor, None if the catalog lacks it."""
        index = int(self.catalog.resolver().resolve(texts([sensor]))[0])
        if index < 0:
            return None
        return self.catalog.source_id[int(self.catalog.sensor_source[index])].as_py()

    def has(self, source: str) -> bool:
        """Tell whether the catalog has a source."""
        return self.catalog.source_index(source) >= 0

    def rows(self, names: Iterable[str]) -> tuple[list[Row], list[Row], list[Row]]:
        """Return rows of some sources, of their sensors, and of the couplings between them."""
        indices = [self.catalog.source_index(name) for name in names]
        chosen = set(indices)
        sources = [self._source_row(index) for index in indices]
        sensors = [row for index in indices for row in self._sensor_rows(index)]
        couplings = [
            row for index in indices for row in self._couplings(index) if row["at"] in chosen
        ]
        return sources, sensors, couplings

    def _source_row(self, index: int) -> Row:
        city = self.catalog
        named = ("source_id", "name", "grid", "owner", "contact")
        row: Row = {key: getattr(city, key)[index].as_py() for key in named}
        row["category"] = city.categories[city.category[index]]
        row["static_class"] = STATIC_CLASSES[city.static_class[index]]
        for key, words in (("district", city.districts), ("department", city.departments)):
            code = int(getattr(city, key)[index])
            row[key] = words[code] if code >= 0 else ""
        row["lon"], row["lat"] = float(city.lon[index]), float(city.lat[index])
        return row

    def _sensor_rows(self, source: int) -> list[Row]:
        city = self.catalog
        first, last = city.sensor_start[source : source + 2].tolist()
        rows = []
        for index in range(first, last):
            row: Row = {
                "sensor_id": city.sensor_id[index].as_py(),
                "source_id": city.source_id[source].as_py(),
                "quantity": city.quantities[city.quantity[index]],
                "unit": city.units[city.unit[index]],
                "period_s": float(city.period_ms[index]) / 1000,
            }
            own = int(np.searchsorted(city.override_sensor, index))
            if own < len(city.override_sensor) and city.override_sensor[own] == index:
                for side in ("high", "low"):
                    limits = getattr(city, f"override_{side}")[own].tolist()
                    row |= {f"{side}_{level}": x for level, x in zip(LEVELS, limits, strict=True)}
                for key in ("deadband", *DELAYS):
                    row[key] = float(getattr(city, f"override_{key}")[own])
            rows.append(row)
        return rows

    def _couplings(self, source: int) -> list[Row]:
        city = self.catalog
        first, last = city.coupling_start[source : source + 2].tolist()
        return [
            {
                "from_source": city.source_id[source].as_py(),
                "to_source": city.source_id[int(city.coupling_target[at])].as_py(),
                "kind": city.coupling_kinds[int(city.coupling_kind[at])],
                "weight": float(city.coupling_weight[at]),
                "at": int(city.coupling_target[at]),
            }
            for at in range(first, last)
        ]


class World:
    """The sources of one or more tests under some rules."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.catalog = plan, plan.catalog
        self.records = AlertRecords(plan)

    @cached_property
    def sources(self) -> dict[str, int]:
        """The index of each source."""
        return {name: i for i, name in enumerate(self.catalog.source_id.to_pylist())}

    @cached_property
    def sensors(self) -> dict[str, int]:
        """The index of each sensor."""
        return {name: i for i, name in enumerate(self.catalog.sensor_id.to_pylist())}

    @cached_property
    def source_ids(self) -> list[str]:
        """The sources in their order."""
        return list(self.sources)

    @cached_property
    def sensor_ids(self) -> list[str]:
        """The sensors in their order."""
        return list(self.sensors)

    def source_of(self, sensor: int) -> int:
        """Return the source of a sensor."""
        return int(self.catalog.sensor_source[sensor])


class Own(NamedTuple):
    """What a file or a test gives of its own, and where: sources and couplings."""

    key: Path
    sources: Mapping[str, Source]
    couplings: tuple[Couple, ...]


def quantities_of(loaded: Loaded) -> dict[str, Quantity]:
    """Return the quantities that the file's own sources may measure."""
    name = loaded.suite.quantities
    return QUANTITIES if name is None else load_site_quantities(loaded.beside(name))


class Builder:
    """Compiles the worlds of a file; tests that share their sources share a world."""

    def __init__(self, loaded: Loaded, rules: Rules, city: City | None, used: list[str]) -> None:
        self._loaded, self._rules, self._city, self._used = loaded, rules, city, used
        self._quantities = quantities_of(loaded)
        if city is not None:
            self._quantities = city.quantities | self._quantities
        self._shared: World | None = None

    def world(self, test: Own) -> World:
        """Return the world of a test; InputError with the faults of its sources."""
        suite = self._loaded.suite
        shared = Own((), suite.sources, suite.couplings)
        if test.sources or test.couplings:
            return self._compile([shared, test])
        if self._shared is None:
            self._shared = self._compile([shared])
        return self._shared

    def _compile(self, owns: list[Own]) -> World:
        rows = _Rows()
        taken = {name: own.key for own in owns for name in own.sources}
        if self._city is not None:
            rows.take(*self._city.rows(name for name in self._used if name not in taken))
        for own in owns:
            rows.add(own, {name for name, key in taken.items() if key == own.key})
        log = FaultLog()
        source_table = _table("sources", SOURCE_COLUMNS, rows.sources)
        sensor_table = _table("sensors", SENSOR_COLUMNS, rows.sensors)
        sources = check_sources(source_table, log)
        known = Resolver.of(source_table.texts["source_id"])
        sensors = check_sensors(sensor_table, self._quantities, known, log)
        couplings = no_couplings()
        if rows.couplings:
            table = _table("couplings", COUPLING_COLUMNS, rows.couplings)
            couplings = check_couplings(table, known, log)
        if len(log):
            faults = [self._placed(rows, fault) for fault in log.faults()]
            raise InputError(f"{self._loaded.path}: {len(faults)} faults", faults=faults)
        catalog = _compiled(sources, sensors, couplings, self._quantities)
        try:
            return World(compile_plan(catalog, self._rules))
        except RulesError as error:
            faults = [self._of_rules(rows, fault) for fault in error.faults]
            raise InputError(f"{self._loaded.path}: {error.problem}", faults=faults) from error

    def _placed(self, rows: _Rows, fault: Fault) -> Fault:
        """Return a fault of a table as one of the key that the row came from."""
        places = {"sources": rows.source_keys, "sensors": rows.sensor_keys}
        keys = places.get(fault.file or "", rows.coupling_keys)
        key: Path = keys[(fault.row or 1) - 1]
        column = fault.key or ""
        if fault.file == "sensors" and column.partition("_")[0] in ("high", "low"):
            key = (*key, *column.split("_", 1))
        elif column not in ("source_id", "sensor_id"):
            key = (*key, column.removesuffix("_source"))
        return self._loaded.fault(key, fault.problem, fault.value)

    def _of_rules(self, rows: _Rows, fault: Fault) -> Fault:
        """Return why rules don't fit the sources, at the sensor that it is about."""
        sensor = (fault.key or "").removeprefix("sensor ")
        for row, key in zip(rows.sensors, rows.sensor_keys, strict=True):
            if row["sensor_id"] == sensor:
                return self._loaded.fault(key, fault.problem, fault.value)
        return fault


class _Rows:
    """Rows of the three tables of a catalog, and the key that each came from."""

    def __init__(self) -> None:
        self.sources: list[Row] = []
        self.sensors: list[Row] = []
        self.couplings: list[Row] = []
        self.source_keys: list[Path] = []
        self.sensor_keys: list[Path] = []
        self.coupling_keys: list[Path] = []

    def take(self, sources: list[Row], sensors: list[Row], couplings: list[Row]) -> None:
        """Add rows of a catalog."""
        self.sources += sources
        self.sensors += sensors
        self.couplings += couplings
        self.source_keys += [("catalog",)] * len(sources)
        self.sensor_keys += [("catalog",)] * len(sensors)
        self.coupling_keys += [("catalog",)] * len(couplings)

    def add(self, own: Own, names: set[str]) -> None:
        """Add what a file or a test gives, as far as a source is not given anew elsewhere."""
        for name, source in own.sources.items():
            if name not in names:
                continue
            key = (*own.key, "sources", name)
            self.sources.append(source.model_dump(exclude={"sensors"}) | {"source_id": name})
            self.source_keys.append(key)
            for sensor_id, sensor in source.sensors.items():
                row: Row = {"sensor_id": sensor_id, "source_id": name}
                named = ("quantity", "unit", "period_s", "deadband", *DELAYS)
                row |= {key: getattr(sensor, key) for key in named}
                for side in ("high", "low"):
                    limits = getattr(sensor, side).named()
                    row |= {f"{side}_{level}": limit for level, limit in limits}
                self.sensors.append(row)
                self.sensor_keys.append((*key, "sensors", sensor_id))
        for number, couple in enumerate(own.couplings):
            self.couplings.append(
                {
                    "from_source": couple.from_,
                    "to_source": couple.to,
                    "kind": couple.kind,
                    "weight": couple.weight,
                }
            )
            self.coupling_keys.append((*own.key, "couplings", number))


def _table(file: str, columns: list[Column], rows: list[Row]) -> Table:
    table = Table(file=file, n_rows=len(rows), row_numbers=np.arange(1, len(rows) + 1))
    for column in columns:
        values = [row.get(column.name) for row in rows]
        if column.is_number:
            numbers = [np.nan if value is None else float(value) for value in values]
            table.numbers[column.name] = np.array(numbers, np.float64)
        else:
            plain = texts([value or "" for value in values])
            table.texts[column.name] = plain.cast(pa.large_string())
    return table


def _compiled(
    sources: Any, sensors: Any, couplings: Couplings, quantities: dict[str, Quantity]
) -> Catalog:
    """Return a catalog of one partition that is in no file."""
    n_sensors = len(sensors.source)
    counts = np.bincount(sensors.source, minlength=len(sources.lon))
    ids = sources.texts["source_id"]
    layout = catalog_build.arrange(ids, counts, couplings, 1, n_sensors + 1)
    columns, meta = catalog_build._compile(sources, sensors, couplings, quantities, layout)
    for name, (dtype, _) in COLUMNS.items():
        if dtype != TEXT:
            # the types of the file, for which the kernels are compiled already
            columns[name] = np.ascontiguousarray(columns[name], dtype)
    meta["digest"] = digest_of(columns, meta)
    try:
        return Catalog._from(columns, meta)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CatalogError(f"a catalog that can't be compiled: {error}") from error

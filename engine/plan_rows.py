"""Which row of parameters each sensor has, its own limits included; millions of sensors at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine.arrow_views import column_of, view
from engine.errors import Fault, RulesError
from engine.plan_params import inert_row, percent_table, profile_row, set_quiet, window_row
from engine.rules import Rules
from engine.rules_profile import Profile
from engine.units import QUANTITIES, Quantity, UnitError, conversion
from kernels.layout import PARAMS, WINDOW_PARAMS

if TYPE_CHECKING:
    from engine.catalog import Catalog

MOST_KEPT = 1 << 16
"""Rows and tables that are kept from rules to rules."""
MAX_LISTED = 100
"""Faults of one kind that are listed; the rest are counted."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Parameters of the sensors, and which row each has."""

    params: Array
    row: Array
    absent_after: Array
    """Expected periods of silence, per row."""
    profile_of_row: list[str | None]
    window_params: Array
    window_names: list[str]
    notes: list[Fault]


def compile_rows(catalog: Catalog, rules: Rules) -> Rows:
    """Return the rows of all sensors; RulesError if a unit or a sensor's own limits don't fit."""
    return RowCompiler(catalog).rows(rules)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which row each sensor has: the same under all rules that watch the same sensors."""

    row: Array
    """(S,) uint32"""
    profiled: tuple[bool, ...]
    """Whether a profile watches a row; rows before those of sensors with limits of their own."""
    base: Array
    """The row before its own limits, of each row after those."""
    own: Array
    """Those rows' own: four high, four low, deadband, on- and off-delay; NaN: the profile's."""
    sensors: Array
    """Sensors with limits or delays of their own, and which of those rows each has."""
    own_row: Array
    notes: list[Fault]


class RowCompiler:
    """Compiles rules for one catalog; what is the same from rules to rules is made once."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._keys, self._group = _groups(catalog)
        self._templates: dict[tuple[str, str, int], Array] = {}
        self._percents: dict[tuple[str, int, int], Array] = {}
        self._tables: dict[tuple[float, str, str], Array] = {}
        self._assignments: dict[tuple[bool, ...], Assignment] = {}
        self._conversions: dict[tuple[str, str, int], tuple[float, float]] = {}

    def rows(self, rules: Rules) -> Rows:
        """Return the rows of all sensors; RulesError if a unit or own limits don't fit."""
        for kept in (self._templates, self._percents, self._tables):
            if len(kept) > MOST_KEPT:
                kept.clear()
        first_window: dict[str, int] = {}
        windows: list[Array] = []
        names: list[str] = []
        for name, profile in rules.profiles.items():
            first_window[name] = len(windows)
            windows += [window_row(window) for window in profile.windows]
            names += [window.name for window in profile.windows]
        base, profile_of_row, row_of_group = self._base_rows(rules, first_window)
        profiled = tuple(name is not None for name in profile_of_row)
        assigned = self._assignments.get(profiled)
        if assigned is None:
            assigned = _assignment(self.catalog, profiled, row_of_group[self._group])
            self._assignments[profiled] = assigned
        params = base
        if len(assigned.base):
            own = base[assigned.base]
            _replace_limits(own, assigned.own)
            crossed = _crossed(own)
            if crossed.any():
                _refuse(self.catalog, rules, assigned, own, crossed, profile_of_row)
            params = np.concatenate([base, own])
            profile_of_row += [profile_of_row[number] for number in assigned.base.tolist()]
        absent = {name: each.absent(rules.absence)[0] for name, each in rules.profiles.items()}
        absent_after = [rules.absence.after if n is None else absent[n] for n in profile_of_row]
        return Rows(
            params=params,
            row=assigned.row,
            absent_after=np.array(absent_after, np.float64),
            profile_of_row=profile_of_row,
            window_params=np.array(windows, WINDOW_PARAMS),
            window_names=names,
            notes=assigned.notes,
        )

    def _template(self, rules: Rules, about: str, name: str | None, first_window: int) -> Array:
        """Return a profile's row; ``about`` is what it rests on besides the profile."""
        profile = None if name is None else rules.profiles[name]
        key = (about, "" if profile is None else profile.model_dump_json(), first_window)
        if key not in self._templates:
            if profile is None:
                self._templates[key] = inert_row(rules)
            else:
                self._templates[key] = profile_row(rules, profile, first_window)
        return self._templates[key]

    def _percent(self, rules: Rules, about: str, category: int, quantity: int) -> Array:
        """Return what signals of a quantity count in a category; ``about`` is how they fuse."""
        key = (about, category, quantity)
        if key not in self._percents:
            fusion = rules.fusion.of(self.catalog.categories[category])
            name = self.catalog.quantities[quantity]
            # most quantities of most categories have the same weights
            same = (
                fusion.weight(name),
                fusion.severity.model_dump_json(),
                fusion.detectors.model_dump_json(),
            )
            if same not in self._tables:
                self._tables[same] = percent_table(fusion, name)
            self._percents[key] = self._tables[same]
        return self._percents[key]

    def _conversion(self, profile: Profile, unit: int) -> tuple[float, float]:
        """Return scale and offset from a sensor's unit to its profile's."""
        key = (profile.quantity, profile.unit, unit)
        if key not in self._conversions:
            catalog = self.catalog
            quantity = QUANTITIES.get(profile.quantity) or Quantity(
                name=profile.quantity,
                unit=catalog.canonical_units[profile.quantity],
                description="",
            )
            self._conversions[key] = conversion(quantity, catalog.units[unit], profile.unit)
        return self._conversions[key]

    def _base_rows(
        self, rules: Rules, first_window: dict[str, int]
    ) -> tuple[Array, list[str | None], Array]:
        """Return the rows before sensors' own limits, each one's profile, and each group's row."""
        catalog = self.catalog
        about = f"{rules.absence.model_dump_json()} {rules.time.utc_offset}"
        fusion = rules.fusion.model_dump_json()
        rows = [self._template(rules, about, None, 0).copy()]
        profile_of_row: list[str | None] = [None]
        row_of: dict[tuple[int, int, int], int] = {}
        row_of_group = np.zeros(len(self._keys), np.uint32)
        templates: dict[str | None, Array] = {}
        faults: dict[str, Fault] = {}
        for group, (category, quantity, unit) in enumerate(self._keys):
            name = rules.profile_name(catalog.quantities[quantity], catalog.categories[category])
            known = (category, quantity, -1 if name is None else unit)
            if known not in row_of:
                if name not in templates:
                    first = 0 if name is None else first_window[name]
                    templates[name] = self._template(rules, about, name, first)
                row = templates[name].copy()
                if name is not None:
                    try:
                        scaled = self._conversion(rules.profiles[name], unit)
                    except UnitError as error:
                        faults[name] = Fault(
                            kind="unit",
                            key=f"profiles.{name}.unit",
                            value=rules.profiles[name].unit,
                            problem=f"does not fit the catalog's sensors: {error.problem}",
                        )
                        continue
                    row["scale"], row["offset"] = scaled
                row["percent"] = self._percent(rules, fusion, category, quantity)
                row["quantity"] = quantity
                row_of[known] = len(rows)
                rows.append(row)
                profile_of_row.append(name)
            row_of_group[group] = row_of[known]
        if faults:
            raise RulesError("the rules do not fit the catalog", faults=faults.values())
        return np.array(rows, PARAMS), profile_of_row, row_of_group


def _groups(catalog: Catalog) -> tuple[list[tuple[int, int, int]], Array]:
    """Return the distinct (category, quantity, unit), ascending, and each sensor's group."""
    n_quantities, n_units = len(catalog.quantities), len(catalog.units)
    key = catalog.category.astype(np.int64)[catalog.sensor_source]
    key = (key * n_quantities + catalog.quantity) * n_units + catalog.unit
    # hashing 3 million keys takes a tenth of what np.unique takes to sort them
    encoded = column_of(key, pa.int64()).dictionary_encode()
    distinct = view(encoded.dictionary)
    order = np.argsort(distinct)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    keys = []
    for code in distinct[order].tolist():
        rest, unit = divmod(code, n_units)
        keys.append((*divmod(rest, n_quantities), unit))
    return keys, rank[view(encoded.indices)]


def _assignment(catalog: Catalog, profiled: tuple[bool, ...], row: Array) -> Assignment:
    """Return the assignment with a row of its own for each distinct set of own limits."""
    sensors = np.asarray(catalog.override_sensor, np.int64)
    own = np.column_stack(
        [
            catalog.override_high,
            catalog.override_low,
            catalog.override_deadband,
            catalog.override_on_delay_s,
            catalog.override_off_delay_s,
        ]
    ).astype(np.float64)
    watched = np.array(profiled)[row[sensors]]
    notes = []
    if not watched.all():
        notes.append(
            Fault(
                kind="note",
                key="profiles",
                problem=(
                    "no profile watches these sensors, so their own limits and delays do nothing; "
                    "sensors"
                ),
                value=int((~watched).sum()),
            )
        )
    kept = watched & ~np.isnan(own).all(1)
    sensors, own = sensors[kept], own[kept]
    lines, group = np.zeros((0, 1 + own.shape[1])), np.zeros(0, np.int64)
    if len(sensors):
        lines, group = _distinct(np.column_stack([row[sensors], own]))
        row = row.copy()
        row[sensors] = len(profiled) + group
    return Assignment(
        row=row,
        profiled=profiled,
        base=lines[:, 0].astype(np.int64),
        own=lines[:, 1:],
        sensors=sensors,
        own_row=group,
        notes=notes,
    )


def _distinct(table: Array) -> tuple[Array, Array]:
    """Return the distinct lines of a float64 table, and the number of each line's."""
    table = np.ascontiguousarray(np.where(np.isnan(table), np.nan, table) + 0.0)
    width = table.shape[1] * 8
    buffers = [None, pa.py_buffer(table)]
    packed = pa.Array.from_buffers(pa.binary(width), len(table), buffers)
    encoded = packed.dictionary_encode()
    lines = np.frombuffer(encoded.dictionary.buffers()[1], np.float64)
    lines = lines.reshape(-1, table.shape[1])[: len(encoded.dictionary)]
    return lines, view(encoded.indices).astype(np.int64)


def _replace_limits(rows: Array, own: Array) -> None:
    scale, offset = rows["scale"][:, None], rows["offset"][:, None]
    high, low, deadband = own[:, :4], own[:, 4:8], own[:, 8]
    rows["high"] = np.where(np.isnan(high), rows["high"], high * scale + offset)
    rows["low"] = np.where(np.isnan(low), rows["low"], low * scale + offset)
    rows["deadband"] = np.where(np.isnan(deadband), rows["deadband"], deadband * rows["scale"])
    for key, delay_s in (("on_ms", own[:, 9:10]), ("off_ms", own[:, 10:11])):
        # rounded as to_ms does, which takes one number; a delay is that of every level
        delay_ms = np.rint(np.nan_to_num(delay_s) * 1000).astype(np.int64)
        rows[key] = np.where(np.isnan(delay_s), rows[key], delay_ms)
    set_quiet(rows)


def _crossed(rows: Array) -> Array:
    """Return which rows have limits out of order, out of range, or high ones below low ones."""
    wrong = rows["quiet_low"] >= rows["quiet_high"]
    wrong |= ~(rows["deadband"] >= 0)
    for side, sign in (("high", 1.0), ("low", -1.0)):
        limits = rows[side] * sign
        seen = np.full(len(rows), -np.inf)
        for level in range(limits.shape[1]):
            given = np.isfinite(limits[:, level])
            wrong |= given & (limits[:, level] <= seen)
            seen = np.where(given, limits[:, level], seen)
            value = rows[side][:, level]
            wrong |= given & ((value < rows["range_low"]) | (value > rows["range_high"]))
    return wrong


def _refuse(
    catalog: Catalog,
    rules: Rules,
    assigned: Assignment,
    rows: Array,
    crossed: Array,
    profile_of_row: list[str | None],
) -> None:
    bad = np.flatnonzero(crossed[assigned.own_row])
    faults = []
    for index in bad[:MAX_LISTED].tolist():
        number = int(assigned.own_row[index])
        row, name = rows[number], profile_of_row[int(assigned.base[number])]
        assert name is not None
        shown = {
            side: [x for x in row[side].tolist() if np.isfinite(x)] for side in ("high", "low")
        }
        faults.append(
            Fault(
                kind="own limits",
                key=f"sensor {catalog.sensor_id[int(assigned.sensors[index])].as_py()}",
                problem=(
                    f"its own limits and those of profiles.{name} must ascend (low: descend), "
                    f"low below high, within {row['range_low']:.15g} to {row['range_high']:.15g} "
                    f"{rules.profiles[name].unit}"
                ),
                value={**shown, "deadband": float(row["deadband"])},
            )
        )
    rest = f" ({len(bad) - MAX_LISTED} more are not listed)" if len(bad) > MAX_LISTED else ""
    raise RulesError(f"{len(bad)} sensors' own limits cross the rules'{rest}", faults=faults)

"""Which row of parameters each sensor has, its own limits included; millions of sensors at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
    first_window: dict[str, int] = {}
    windows: list[Array] = []
    names: list[str] = []
    for name, profile in rules.profiles.items():
        first_window[name] = len(windows)
        windows += [window_row(window) for window in profile.windows]
        names += [window.name for window in profile.windows]
    keys, group = _groups(catalog)
    base, profile_of_row, row_of_group = _base_rows(catalog, rules, keys, first_window)
    row = row_of_group[group]
    params, row, profile_of_row, notes = _with_own_limits(catalog, rules, base, row, profile_of_row)
    absent = {name: profile.absent(rules.absence)[0] for name, profile in rules.profiles.items()}
    absent_after = [rules.absence.after if n is None else absent[n] for n in profile_of_row]
    return Rows(
        params=params,
        row=row,
        absent_after=np.array(absent_after, np.float64),
        profile_of_row=profile_of_row,
        window_params=np.array(windows, WINDOW_PARAMS),
        window_names=names,
        notes=notes,
    )


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


def _base_rows(
    catalog: Catalog, rules: Rules, keys: list[tuple[int, int, int]], first_window: dict[str, int]
) -> tuple[Array, list[str | None], Array]:
    """Return the rows before sensors' own limits, each one's profile, and each group's row."""

    @cache
    def template(name: str | None) -> Array:
        if name is None:
            return inert_row(rules)
        return profile_row(rules, rules.profiles[name], first_window[name])

    @cache
    def percent(category: str, quantity: str) -> Array:
        return percent_table(rules.fusion.of(category), quantity)

    rows = [inert_row(rules)]
    profile_of_row: list[str | None] = [None]
    rows[0]["percent"] = percent_table(rules.fusion, "")
    row_of: dict[tuple[int, int, int], int] = {}
    row_of_group = np.zeros(len(keys), np.uint32)
    faults: dict[str, Fault] = {}
    for group, (category, quantity, unit) in enumerate(keys):
        category_name, quantity_name = catalog.categories[category], catalog.quantities[quantity]
        name = rules.profile_name(quantity_name, category_name)
        known = (category, quantity, -1 if name is None else unit)
        if known not in row_of:
            row = template(name).copy()
            if name is not None:
                try:
                    scaled = _conversion(catalog, rules.profiles[name], catalog.units[unit])
                except UnitError as error:
                    faults[name] = Fault(
                        kind="unit",
                        key=f"profiles.{name}.unit",
                        value=rules.profiles[name].unit,
                        problem=f"does not fit the catalog's sensors: {error.problem}",
                    )
                    continue
                row["scale"], row["offset"] = scaled
            row["percent"], row["quantity"] = percent(category_name, quantity_name), quantity
            row_of[known] = len(rows)
            rows.append(row)
            profile_of_row.append(name)
        row_of_group[group] = row_of[known]
    if faults:
        raise RulesError("the rules do not fit the catalog", faults=faults.values())
    return np.array(rows, PARAMS), profile_of_row, row_of_group


def _conversion(catalog: Catalog, profile: Profile, unit: str) -> tuple[float, float]:
    """Return scale and offset from a sensor's unit to its profile's."""
    quantity = QUANTITIES.get(profile.quantity) or Quantity(
        name=profile.quantity, unit=catalog.canonical_units[profile.quantity], description=""
    )
    return conversion(quantity, unit, profile.unit)


def _with_own_limits(
    catalog: Catalog, rules: Rules, base: Array, row: Array, profile_of_row: list[str | None]
) -> tuple[Array, Array, list[str | None], list[Fault]]:
    """Return rows and assignment with the limits that sensors have of their own."""
    sensors = np.asarray(catalog.override_sensor, np.int64)
    own = np.column_stack(
        [catalog.override_high, catalog.override_low, catalog.override_deadband]
    ).astype(np.float64)
    watched = np.array([name is not None for name in profile_of_row])[row[sensors]]
    notes = []
    if not watched.all():
        notes.append(
            Fault(
                kind="note",
                key="profiles",
                problem="no profile watches these sensors, so their own limits do nothing; sensors",
                value=int((~watched).sum()),
            )
        )
    kept = watched & ~np.isnan(own).all(1)
    sensors, own = sensors[kept], own[kept]
    if not len(sensors):
        return base, row, profile_of_row, notes
    distinct, group = _distinct(np.column_stack([row[sensors], own]))
    rows = base[distinct[:, 0].astype(np.int64)]
    _replace_limits(rows, distinct[:, 1:])
    crossed = _crossed(rows)
    if crossed.any():
        _refuse(catalog, rules, sensors, group, rows, crossed, distinct[:, 0], profile_of_row)
    row = row.copy()
    row[sensors] = len(base) + group
    names = [profile_of_row[number] for number in distinct[:, 0].astype(np.int64)]
    return np.concatenate([base, rows]), row, profile_of_row + names, notes


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
    sensors: Array,
    group: Array,
    rows: Array,
    crossed: Array,
    base: Array,
    profile_of_row: list[str | None],
) -> None:
    bad = np.flatnonzero(crossed[group])
    faults = []
    for index in bad[:MAX_LISTED].tolist():
        row = rows[group[index]]
        name = profile_of_row[int(base[group[index]])]
        assert name is not None
        shown = {
            side: [x for x in row[side].tolist() if np.isfinite(x)] for side in ("high", "low")
        }
        faults.append(
            Fault(
                kind="own limits",
                key=f"sensor {catalog.sensor_id[int(sensors[index])].as_py()}",
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

"""Which parameters changed for which sensors: pairs of an old row and a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from engine.arrow_views import column_of, view
from engine.plan import Plan
from kernels.layout import PARAMS

Array = np.ndarray[Any, Any]

LAYOUT = ("pane_ms", "n_panes", "aggregate")
"""Fields of WINDOW_PARAMS that decide what a ring holds; the others decide what it says."""
_NUMBERED = ("first_window", "quantity")
"""Fields of PARAMS that are places in tables, not parameters."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pairs:
    """The distinct pairs of rows; N pairs, W windows at most."""

    of_sensor: Array
    """(sensors of the pipeline,) int64; of those that come from nowhere it means nothing."""
    old: Array
    """(N,) row of the old parameters"""
    new: Array
    """(N,) row of the new parameters"""
    same: Array
    """(N,) bool: nothing that the detectors or fusion look at differs"""
    same_weights: Array
    """(N,) bool: nothing that fusion looks at differs"""
    other_quantity: Array
    """(N,) bool: the sensor measures something else now"""
    gain: Array
    """(N,) float64: value in the new profile's unit = gain · in the old one's + shift"""
    shift: Array
    same_unit: Array
    """(N,) bool"""
    windows: Array
    """(N, W) int64: the old number of each new window, −1 for one that begins anew"""


def compare_rows(old: Plan, new: Plan, origin: Array, span: tuple[int, int]) -> Pairs:
    """Return the pairs of the sensors in ``span``; ``origin`` is each one's old index, or −1."""
    came = np.maximum(origin, 0)
    old_row = old.row[came].astype(np.int64) if len(old.row) else came
    unit_pair = _unit_pairs(old, new, came, span)
    key = (old_row * len(new.params) + new.row[span[0] : span[1]]) * 2 + unit_pair
    # hashing takes a tenth of what np.unique takes to sort millions of keys
    encoded = column_of(key, pa.int64()).dictionary_encode()
    distinct, of_sensor = view(encoded.dictionary), view(encoded.indices).astype(np.int64)
    first = np.empty(len(distinct), np.int64)
    first[of_sensor[::-1]] = np.arange(len(key))[::-1]
    rows, converted = np.divmod(distinct, 2)
    a, b = np.divmod(rows, len(new.params))
    gain, shift = _conversion(old, new, a, b, came[first], first + span[0], converted)
    same_unit = np.isclose(gain, 1.0, rtol=1e-9, atol=0.0) & (np.abs(shift) < 1e-9)
    windows, same_windows = _windows(old, new, a, b, same_unit)
    weights = _equal(old, new, a, b, ("percent", "floor"))
    known = [name for name in PARAMS.names or () if name not in _NUMBERED]
    scales = ("scale", "offset")  # where the sensor itself sends another unit the value is the same
    detectors = _equal(old, new, a, b, [name for name in known if name not in scales])
    return Pairs(
        of_sensor=of_sensor,
        old=a,
        new=b,
        same=detectors & same_unit & same_windows,
        same_weights=weights,
        other_quantity=_other_quantity(old, new, a, b, came[first], first + span[0]),
        gain=np.where(same_unit, 1.0, gain),
        shift=np.where(same_unit, 0.0, shift),
        same_unit=same_unit,
        windows=windows,
    )


def _equal(old: Plan, new: Plan, a: Array, b: Array, names: Any) -> Array:
    equal = np.ones(len(a), bool)
    for name in names:
        alike = old.params[name][a] == new.params[name][b]
        equal &= alike.all(tuple(range(1, alike.ndim)))
    return equal


def _unit_pairs(old: Plan, new: Plan, came: Array, span: tuple[int, int]) -> Array:
    """Return 1 for each sensor that sends another unit than before, 0 for the others."""
    if old.catalog is new.catalog or old.catalog.digest == new.catalog.digest:
        return np.zeros(len(came), np.int64)
    names = {name: number for number, name in enumerate(new.catalog.units)}
    old_unit = np.array([names.get(name, -1) for name in old.catalog.units])[old.catalog.unit[came]]
    return (old_unit != new.catalog.unit[span[0] : span[1]]).astype(np.int64)


def _conversion(
    old: Plan, new: Plan, a: Array, b: Array, was: Array, now: Array, converted: Array
) -> tuple[Array, Array]:
    """Return (gain, shift) from the old profile's unit to the new one's, by way of the sensor's.

    ``was`` and ``now`` are a sensor of each pair; one that sends another unit goes by way of the
    quantity's own.
    """
    scale, offset = old.params["scale"][a], old.params["offset"][a]
    gain = new.params["scale"][b] / scale
    shift = np.where(
        (gain == 1.0) & (new.params["offset"][b] == offset),
        0.0,
        new.params["offset"][b] - offset * gain,
    )
    for pair in np.flatnonzero(converted).tolist():
        i, j = int(was[pair]), int(now[pair])
        by = old.catalog.sensor_scale[i] / new.catalog.sensor_scale[j]
        plus = (old.catalog.sensor_offset[i] - new.catalog.sensor_offset[j]) / (
            new.catalog.sensor_scale[j]
        )
        gain[pair] = new.params["scale"][b[pair]] * by / scale[pair]
        shift[pair] = (
            new.params["scale"][b[pair]] * (plus - by * offset[pair] / scale[pair])
            + new.params["offset"][b[pair]]
        )
    return gain, shift


def _other_quantity(old: Plan, new: Plan, a: Array, b: Array, was: Array, now: Array) -> Array:
    if old.catalog is new.catalog or old.catalog.digest == new.catalog.digest:
        return np.zeros(len(a), bool)
    names = {name: number for number, name in enumerate(new.catalog.quantities)}
    same = np.array(
        [
            names.get(name, -1)
            if old.catalog.canonical_units[name] == new.catalog.canonical_units.get(name)
            else -1
            for name in old.catalog.quantities
        ]
    )
    return same[old.catalog.quantity[was]] != new.catalog.quantity[now]


def _windows(old: Plan, new: Plan, a: Array, b: Array, same_unit: Array) -> tuple[Array, Array]:
    """Return each pair's map of windows, and whether all of them are as they were."""
    n_old, n_new = old.params["n_windows"][a], new.params["n_windows"][b]
    maps = np.full((len(a), int(max(n_new.max(initial=0), 1))), -1, np.int64)
    same = n_old == n_new
    key = np.stack([old.params["first_window"][a], n_old, new.params["first_window"][b], n_new])
    distinct, group = np.unique(key, axis=1, return_inverse=True)
    for number, (old_first, n, new_first, m) in enumerate(distinct.T.tolist()):
        if not m:
            continue
        before = old.window_params[old_first : old_first + n]
        after = new.window_params[new_first : new_first + m]
        mine = group.reshape(-1) == number
        maps[mine, :m] = _match(before, after)
        same[mine] &= n == m and bool((before == after).all())
    maps[~same_unit] = -1
    return maps, same


def _match(before: Array, after: Array) -> list[int]:
    """Return which old window each new one goes on from: the same one, or one with its panes."""
    found = [-1] * len(after)
    free = list(range(len(before)))
    for fields in (before.dtype.names or (), LAYOUT):
        for number, window in enumerate(after):
            for candidate in free if found[number] < 0 else ():
                if all(np.array_equal(window[name], before[candidate][name]) for name in fields):
                    found[number] = candidate
                    free.remove(candidate)
                    break
    return found

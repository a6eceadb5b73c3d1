"""Rows of detector parameters: a profile's numbers in the units that the kernels work in."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

from engine.rules import Rules
from engine.rules_base import LEVELS, level_number, to_ms
from engine.rules_fusion import Fusion
from engine.rules_profile import PER_MS, SEASON_MS, Deviation, Profile, Window
from kernels.layout import (
    AGGREGATE_NAMES,
    KIND_NAMES,
    MAXIMUM,
    MEAN,
    MINIMUM,
    N_KINDS,
    N_LEVELS,
    PARAMS,
    RANGE,
    STD,
    WINDOW_PARAMS,
)

WIDEST = 1e30
"""Bound of every range: beyond it float32 would overflow and blind a sensor for good."""
SIGMA = 1.2533141373155001
"""A normal signal's sigma in mean absolute residuals, √(π/2)."""
INERT_HALF_MS = 150_000
NEVER_WARM = 2**31 - 1

Array = np.ndarray[Any, Any]


def percent_table(fusion: Fusion, quantity: str) -> Array:
    """Return what a signal counts in percent, (kind, level), for one quantity of a category."""
    percent = np.zeros((N_KINDS, N_LEVELS + 1), np.uint8)
    weight = _exact(fusion.weight(quantity))
    for kind, name in enumerate(KIND_NAMES):
        by_kind = weight * _exact(getattr(fusion.detectors, name))
        for level, level_name in enumerate(LEVELS, 1):
            product = 100 * _exact(getattr(fusion.severity, level_name)) * by_kind
            percent[kind, level] = min(100, int(product.quantize(Decimal(1), ROUND_HALF_UP)))
    return percent


def _exact(number: float) -> Decimal:
    # the number as it is written: 0.35 x 0.9 x 100 is 31.5 and rounds to 32 on every machine
    return Decimal(repr(float(number)))


def inert_row(rules: Rules) -> Array:
    """Return the parameters of a sensor without a profile: only its absence is noticed."""
    row = np.zeros((), PARAMS)
    row["scale"] = 1.0
    row["range_low"], row["range_high"] = -WIDEST, WIDEST
    row["high"], row["low"] = math.inf, -math.inf
    for key in ("rise", "fall", "z", "drift", "spike_at"):
        row[key] = math.inf
    row["half_ms"] = INERT_HALF_MS
    row["alpha"], row["memory_n"], row["warmup_n"] = 1.0, 1, NEVER_WARM
    row["clip"], row["min_deviation"], row["allowance"] = 3.0 * SIGMA, 1.0, 0.5 * SIGMA
    row["rate_confirm_n"] = row["deviation_confirm_n"] = 1
    row["absence_level"] = level_number(rules.absence.level)
    row["utc_offset_ms"] = utc_offset_ms(rules)
    row["quantity"] = -1
    set_quiet(row)
    return row


def utc_offset_ms(rules: Rules) -> int:
    """Return the site's offset from UTC."""
    offset = rules.time.zone().utcoffset(None)
    return 0 if offset is None else round(offset.total_seconds() * 1000)


def profile_row(rules: Rules, profile: Profile, first_window: int) -> Array:
    """Return a profile's parameters, all but unit, quantity and percent."""
    row = inert_row(rules)
    limits, live = profile.limits, profile.liveness
    row["range_low"], row["range_high"] = np.clip(profile.range, -WIDEST, WIDEST)
    row["high"], row["low"] = limits.high.limits(), limits.low.limits(-math.inf)
    row["deadband"] = limits.deadband
    row["on_ms"], row["off_ms"] = limits.on_delay_s.ms(), limits.off_delay_s.ms()
    row["latching"], row["floor"] = limits.latch, limits.floor
    row["refractory_ms"] = to_ms(profile.refractory_s)
    if profile.rate is not None:
        per_ms = PER_MS[profile.rate.per]
        row["rise"] = np.array(profile.rate.rise.limits()) / per_ms
        row["fall"] = np.array(profile.rate.fall.limits()) / per_ms
        row["rate_deadband"] = profile.rate.deadband / per_ms
        row["half_ms"] = to_ms(profile.rate.window_s) // 2
        row["rate_confirm_n"] = profile.rate.confirm_n
    if profile.deviation is not None:
        _set_deviation(row, profile.deviation)
    if profile.drift is not None:
        drift = np.array(profile.drift.raise_at.limits()) * SIGMA
        row["drift"], row["drift_deadband"] = drift, profile.drift.deadband * SIGMA
        row["allowance"] = profile.drift.allowance * SIGMA
        row["drift_cap"] = 2 * max(drift[np.isfinite(drift)], default=0.0)
    row["n_windows"], row["first_window"] = len(profile.windows), first_window
    row["absence_level"] = level_number(profile.absent(rules.absence)[1])
    row["flat_after_n"], row["flat_level"] = live.flat_after_n, level_number(live.flat_level)
    row["bad_after_n"], row["bad_level"] = live.bad_after_n, level_number(live.bad_level)
    row["spike_at"] = math.inf if live.spike_at is None else live.spike_at
    row["spike_level"] = level_number(live.spike_level)
    set_quiet(row)
    return row


def _set_deviation(row: Array, deviation: Deviation) -> None:
    row["z"] = np.array(deviation.raise_at.limits()) * SIGMA
    row["z_deadband"] = deviation.deadband * SIGMA
    row["memory_n"], row["warmup_n"] = deviation.memory_n, deviation.warmup_n
    row["alpha"] = 1.0 / deviation.memory_n
    row["clip"] = deviation.clip * SIGMA
    row["min_deviation"] = deviation.min_sigma / SIGMA
    row["deviation_confirm_n"] = deviation.confirm_n
    row["season_bins"], row["season_ms"] = deviation.season_bins, SEASON_MS[deviation.season]


def set_quiet(rows: Array) -> None:
    """Set the lowest limit of every ladder, within which nothing is going on."""
    rows["quiet_high"], rows["quiet_low"] = rows["high"].min(-1), rows["low"].max(-1)
    rows["calm_high"] = np.minimum(rows["range_high"], np.nextafter(rows["quiet_high"], -math.inf))
    rows["calm_low"] = np.maximum(rows["range_low"], np.nextafter(rows["quiet_low"], math.inf))
    rows["quiet_rise"], rows["quiet_fall"] = rows["rise"].min(-1), rows["fall"].min(-1)
    rows["quiet_deviation"], rows["quiet_drift"] = rows["z"].min(-1), rows["drift"].min(-1)


def window_row(window: Window) -> Array:
    """Return a window's parameters."""
    row = np.zeros((), WINDOW_PARAMS)
    row["pane_ms"], row["n_panes"] = window.pane_ms, window.panes
    row["aggregate"] = AGGREGATE_NAMES.index(window.aggregate)
    row["min_n"] = window.min_n
    row["per_pane"] = 1.0 / window.pane_ms
    row["high"] = window.high.limits()
    row["low"] = -np.array(window.low.limits(-math.inf))
    row["deadband"] = window.deadband
    set_near(row)
    return row


def set_near(row: Array) -> None:
    """Set how far from the reference a value may matter to the window's limits.

    A mean or an extreme lies among the values; a range is at most twice, a standard deviation at
    most once their greatest distance from any point, and a low limit of these is reached by values
    that do not move; a sum or a count may always matter.
    """
    high, low = row["high"].min(), row["low"].min()
    aggregate = int(row["aggregate"].item())
    if aggregate in (MEAN, MINIMUM, MAXIMUM):
        row["near_high"], row["near_low"], row["follows"] = high, low, 1.0
    elif aggregate in (STD, RANGE):
        row["near_high"] = high if aggregate == STD else high / 2
        row["near_low"] = math.inf if low == math.inf else 0.0

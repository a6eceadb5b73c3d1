"""Plans for tests, built by hand: rows of parameters in which only what is given is switched on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from engine.plan_params import set_near, set_quiet
from engine.resolver import Resolver
from kernels.layout import (
    CATEGORY,
    CONTEXT,
    FAR_FUTURE_MS,
    N_KINDS,
    N_LEVELS,
    PARAMS,
    SIGNAL_RULE,
    TERM,
    WINDOW_PARAMS,
)

NONE = [np.inf] * N_LEVELS
NO_LOW = [-np.inf] * N_LEVELS
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
PERCENT = [[0, 25, 50, 75, 100]] * N_KINDS


def params_row(**given: Any) -> np.ndarray:
    """Make one row of PARAMS in which only what is given is switched on."""
    row = np.zeros(1, PARAMS)
    inert: dict[str, Any] = {
        "scale": 1.0,
        "range_low": -1e30,
        "range_high": 1e30,
        "clip": 3.0,
        "min_deviation": 1.0,
        "allowance": 0.5,
        "spike_at": np.inf,
        "half_ms": 150_000,
        "memory_n": 1,
        "warmup_n": 2**31 - 1,
        "season_ms": DAY_MS,
        "high": NONE,
        "low": NO_LOW,
        "rise": NONE,
        "fall": NONE,
        "z": NONE,
        "drift": NONE,
        "rate_confirm_n": 1,
        "deviation_confirm_n": 1,
        "absence_level": 1,
        "flat_level": 1,
        "bad_level": 1,
        "spike_level": 1,
        "floor": 1,
        "percent": PERCENT,
    }
    for name, value in {**inert, **given}.items():
        row[name] = value
    set_quiet(row)
    row["alpha"] = 1.0 / row["memory_n"]
    finite = row["drift"][np.isfinite(row["drift"])]
    row["drift_cap"] = 2 * finite.max() if len(finite) else 0.0
    return row


def window_row(**given: Any) -> np.ndarray:
    """Make one row of WINDOW_PARAMS; low limits are given as they are and stored negated."""
    row = np.zeros(1, WINDOW_PARAMS)
    inert: dict[str, Any] = {"pane_ms": 1000, "n_panes": 6, "min_n": 1, "high": NONE, "low": NO_LOW}
    for name, value in {**inert, **given}.items():
        row[name] = value
    row["low"] *= -1
    row["per_pane"] = 1 / row["pane_ms"]
    set_near(row)
    return row


def one_sensor_plan(
    row: np.ndarray, windows: Sequence[np.ndarray] = (), absent_ms: int = 0, **limits_ms: Any
) -> SimpleNamespace:
    """Make the plan of one source with one sensor, for one detector at a time."""
    row["n_windows"] = len(windows)
    return make_plan(row, list(windows), rows=[0], absent_ms=[absent_ms], counts=[1], **limits_ms)


def make_plan(
    params: np.ndarray,
    windows: Sequence[np.ndarray],
    *,
    rows: Sequence[int],
    absent_ms: Sequence[int],
    counts: Sequence[int],
    edges: Sequence[tuple[int, int, float]] = (),
    category: np.ndarray | None = None,
    source_category: Sequence[int] | None = None,
    static_class: Sequence[int] | None = None,
    district: Sequence[int] | None = None,
    terms: np.ndarray | None = None,
    signal_rules: np.ndarray | None = None,
    contexts: np.ndarray | None = None,
    late_after_ms: int = 60_000,
    max_ahead_ms: int = FAR_FUTURE_MS,
    max_late_ms: int = FAR_FUTURE_MS,
) -> SimpleNamespace:
    """Make a plan: ``counts`` sensors for each source; ``edges`` are (origin, target, weight)."""
    n_sources = len(counts)
    row = np.array(rows, np.uint32)
    per_sensor = params[row] if len(row) else params[:0]
    by_origin = sorted(edges, key=lambda edge: edge[0])
    by_target = sorted(edges, key=lambda edge: edge[1])
    source_id = pa.array([f"source-{i}" for i in range(n_sources)], pa.large_string())
    catalog = SimpleNamespace(
        digest="0" * 32,
        partition_start=_partitions(n_sources, edges),
        n_sources=n_sources,
        source_id=source_id,
        source_resolver=lambda: Resolver.of(source_id),
        districts=["east", "west", "north", "south", "inner", "outer"],
        categories=[f"kind-{c}" for c in range(1 + max(source_category or [0], default=0))],
        n_sensors=len(row),
        sensor_start=_starts(counts),
        sensor_source=np.repeat(np.arange(n_sources, dtype=np.int32), counts),
        category=np.array(source_category or [0] * n_sources, np.int16),
        static_class=np.array(static_class or [0] * n_sources, np.uint8),
        district=np.array(district or [-1] * n_sources, np.int16),
        coupling_start=_starts([sum(e[0] == s for e in edges) for s in range(n_sources)]),
        coupling_target=np.array([e[1] for e in by_origin], np.int32),
        coupled_start=_starts([sum(e[1] == s for e in edges) for s in range(n_sources)]),
        coupled_origin=np.array([e[0] for e in by_target], np.int32),
    )
    return SimpleNamespace(
        catalog=catalog,
        digest="0" * 32,
        rules=SimpleNamespace(digest="0" * 32, text="", time=SimpleNamespace(zone=lambda: UTC)),
        params=params,
        row=row,
        window_params=np.concatenate([*windows, np.zeros(0, WINDOW_PARAMS)]),
        more_start=_starts(np.maximum(per_sensor["n_windows"] - 1, 0)),
        season_start=_starts(per_sensor["season_bins"]),
        absent_ms=np.array(absent_ms, np.int64),
        category=category_row() if category is None else category,
        terms=np.zeros(0, TERM) if terms is None else terms,
        signal_rules=np.zeros(0, SIGNAL_RULE) if signal_rules is None else signal_rules,
        contexts=np.zeros(0, CONTEXT) if contexts is None else contexts,
        coupled_weight=np.array([e[2] for e in by_target], np.float64),
        late_after_ms=late_after_ms,
        max_ahead_ms=max_ahead_ms,
        max_late_ms=max_late_ms,
        tick_ms=1000,
    )


def _partitions(n_sources: int, edges: Sequence[tuple[int, int, float]]) -> np.ndarray:
    """Begin a partition wherever no coupling reaches across."""
    across = [any(min(e[:2]) < s <= max(e[:2]) for e in edges) for s in range(n_sources)]
    starts = [s for s in range(n_sources) if not across[s]]
    return np.array([*starts, n_sources], np.int64)


def _starts(counts: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)


def category_row(**given: Any) -> np.ndarray:
    """Make one category: score limits 20, 40, 60, 80, no deadband, no hold."""
    row = np.zeros(1, CATEGORY)
    plain = {"half_life_ms": 60_000, "raise_at": [20, 40, 60, 80], "class_factor": [1, 1, 1, 1]}
    for name, value in {**plain, **given}.items():
        row[name] = value
    return row

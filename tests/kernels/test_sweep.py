"""Many settings over one history: each as the whole line gives it, alone and from the first record.

The line is held against the oracle elsewhere (tests/test_line.py); here it is the slow truth.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import engine.analysis.sweep as sweeps
from engine.analysis.steps import steps_of
from engine.analysis.store import Store
from engine.analysis.sweep import sweep_store
from engine.analysis.tries import Numbers, side_by_side
from engine.plan import Fusing
from engine.plan_params import set_near, set_quiet
from kernels.gather import COMMON
from kernels.layout import FAR_FUTURE_MS, N_LEVELS
from tests import worlds
from tests.kernel_line import Line, columns, split
from tests.oracle import Record

COMPILED = os.environ.get("NUMBA_DISABLE_JIT") != "1"
N_SEEDS = 100 if COMPILED else 4
N_RECORDS = 300 if COMPILED else 80
N_SETTINGS = 5


def varied(rng: Random, plan: Any, base: float) -> Any:
    """Return a plan whose numbers are others, here and there, for the same sensors."""
    plan = copy.copy(plan)
    plan.params, plan.window_params = plan.params.copy(), plan.window_params.copy()
    for row in plan.params:
        for of in (worlds.limits_fields, worlds.rate_fields, worlds.deviation_fields):
            if rng.random() < 0.25:
                _set(row, of(rng, base) if of is worlds.limits_fields else of(rng))
        if rng.random() < 0.25:
            _set(row, worlds.liveness_fields(rng))
        if rng.random() < 0.2:
            _set(row, worlds.drift_fields(rng))
        if rng.random() < 0.2:
            _set(row, {"percent": worlds.random_percent(rng), "floor": rng.randint(0, 1)})
        if rng.random() < 0.1:
            row["deadband"] = rng.choice([0.0, 0.25, 1.0])
    set_quiet(plan.params)
    plan.params["alpha"] = 1.0 / plan.params["memory_n"]
    plan.season_start = np.append(0, np.cumsum(plan.params["season_bins"][plan.row]))
    finite = np.where(np.isfinite(plan.params["drift"]), plan.params["drift"], 0.0)
    plan.params["drift_cap"] = 2 * finite.max(-1)
    for number in range(len(plan.window_params)):
        if rng.random() < 0.3:
            plan.window_params[number] = worlds.random_window(rng, base)[0]
        elif rng.random() < 0.5:
            row = plan.window_params[number]
            row["high"] = worlds.some_limits(rng, base, 1.0)
            row["deadband"] = rng.choice([0.0, 0.5, 2.0])
            set_near(row)
    if rng.random() < 0.3:
        plan.category = plan.category.copy()
        plan.category["hold_ms"] = rng.choice([0, 500, 2000])
        plan.category["half_life_ms"] = rng.choice([1000, 4000, 30_000])
    if rng.random() < 0.3:
        plan.coupled_weight = plan.coupled_weight * rng.choice([0.0, 0.5])
    if rng.random() < 0.3:
        plan.contexts = plan.contexts.copy()
        plan.contexts["factor"] = rng.choice([0.5, 2.0])
    return plan


def _set(row: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        row[name] = value


def numbers(plan: Any, row: np.ndarray) -> Numbers:
    """Return what of a plan differs from setting to setting."""
    fusing = Fusing(
        plan.category, plan.terms, plan.signal_rules, plan.contexts, plan.coupled_weight, []
    )
    return Numbers(row, plan.params, plan.window_params, np.ones(len(plan.params)), fusing)


def stored(plan: Any, batches: Sequence[Sequence[Record]], **options: Any) -> Store:
    """Return a log turned on its side."""
    catalog = copy.copy(plan.catalog)
    # one period of silence makes absent, so that a plan's own times hold
    catalog.period_ms = plan.absent_ms
    store = Store(SimpleNamespace(catalog=catalog), plan, **options)  # type: ignore[arg-type]
    for batch in batches:
        if batch:
            store.add(columns(batch))
    store.finish()
    return store


def swept(plans: Sequence[Any], store: Store, threads: int = 1) -> list[np.ndarray]:
    """Return the steps of each plan."""
    tries = side_by_side([numbers(plan, plans[0].row) for plan in plans])
    steps = sweep_store(store, tries, threads)
    return [
        steps[(steps["setting"] == j) | (steps["setting"] == COMMON)] for j in range(len(plans))
    ]


def by_source(steps: np.ndarray) -> dict[int, list[Any]]:
    """Return what is said of each source, in order."""
    names = [name for name in steps.dtype.names or () if name != "setting"]
    return {
        source: steps[steps["source"] == source][names].tolist()
        for source in sorted(set(steps["source"].tolist()))
    }


def assert_each_is_as_the_line_gives_it(
    plans: Sequence[Any], records: Sequence[Record], store: Store, threads: int = 1
) -> int:
    n = 0
    for plan, found in zip(plans, swept(plans, store, threads), strict=True):
        expected = steps_of(Line(plan).judge(columns(records)))
        assert by_source(found) == by_source(expected)
        n += len(expected)
    return n


def drawn(rng: Random, n: int = 80) -> tuple[list[Any], list[Record]]:
    """Draw plans for the same sensors, and a log for them."""
    plan, base = worlds.random_plan(rng)
    draw_log = worlds.calm_log if rng.random() < 0.25 else worlds.random_log
    plans = [plan] + [varied(rng, plan, base) for _ in range(N_SETTINGS - 1)]
    return plans, draw_log(rng, plan, base, n)


@settings(suppress_health_check=[HealthCheck.large_base_example, HealthCheck.too_slow])
@given(worlds.steered(lambda rng: drawn(rng, 60)))
def test_each_setting_is_as_the_line_gives_it(case):
    plans, records = case
    assert_each_is_as_the_line_gives_it(plans, records, stored(plans[0], [records]))


def test_seeded_corpus_is_as_the_line_gives_it_and_has_something_to_say():
    said = 0
    for seed in range(N_SEEDS):
        rng = Random(seed)
        plans, records = drawn(rng, N_RECORDS)
        cuts = [rng.randrange(N_RECORDS) for _ in range(rng.randrange(4))]
        store = stored(plans[0], split(records, cuts), n_buckets=rng.randint(1, 4))
        said += assert_each_is_as_the_line_gives_it(plans, records, store, rng.randint(1, 3))
    assert said > (10 if COMPILED else 2) * N_SEEDS


def test_settings_tried_alone_are_as_those_tried_together():
    for seed in range(N_SEEDS // 4):
        plans, records = drawn(Random(seed), 200)
        store = stored(plans[0], [records])
        together = swept(plans, store)
        for plan, found in zip(plans, together, strict=True):
            (alone,) = swept([plan], store)
            assert by_source(alone) == by_source(found)


def test_a_history_in_files_is_the_one_in_memory():
    for seed in range(N_SEEDS // 4):
        plans, records = drawn(Random(seed), 200)
        batches = split(records, range(0, 200, 37))
        store = stored(plans[0], batches, n_buckets=3, in_memory_bytes=2000)
        for _ in range(2):  # sorted at the first use
            assert_each_is_as_the_line_gives_it(plans, records, store)
        store.close()


def test_too_little_room_is_found_and_mended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweeps, "ROOM", 1)
    for seed in range(N_SEEDS // 4):
        plans, records = drawn(Random(seed), 150)
        assert_each_is_as_the_line_gives_it(plans, records, stored(plans[0], [records]))


def test_what_the_watermark_refuses_is_counted_as_the_line_counts_it():
    for seed in range(N_SEEDS // 4):
        plans, records = drawn(Random(seed), 200)
        store = stored(plans[0], split(records, [50, 51, 120]))
        line = Line(plans[0])
        line.judge(columns(records))
        names = ("unknown_sensor", "time_out_of_bounds", "time_ahead", "time_too_late")
        counts = dict(zip(line.counts, store.counts.tolist(), strict=True))
        assert {n: counts[n] for n in names} == {n: line.counts[n] for n in names}
        assert len(store.ticks) == line.counts["ticks"]


def test_a_setting_that_nothing_reaches_says_nothing():
    plan, _ = worlds.random_plan(Random(1))
    plan.params["high"], plan.params["low"] = [np.inf] * N_LEVELS, [-np.inf] * N_LEVELS
    for name in ("rise", "fall", "z", "drift"):
        plan.params[name] = np.inf
    plan.params["spike_at"], plan.params["flat_after_n"], plan.params["bad_after_n"] = np.inf, 0, 0
    plan.params["n_windows"] = 0
    plan.absent_ms = np.zeros_like(plan.absent_ms)
    plan.max_ahead_ms = FAR_FUTURE_MS
    set_quiet(plan.params)
    records = worlds.random_log(Random(2), plan, 0.0, 300)
    (found,) = swept([plan], stored(plan, [records]))
    assert not len(found)

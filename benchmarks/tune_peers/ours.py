"""Ours over the same readings: turned on their side and gone through once for all settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.tune_peers.contest import Contest, episodes_of
from engine.analysis.store import BATCH, Store
from engine.analysis.sweep import sweep_store
from engine.analysis.tries import Compiler, side_by_side
from engine.plan import compile_plan
from engine.readings import Readings
from kernels.gather import COMMON

Array = np.ndarray[Any, Any]


def store_of(contest: Contest) -> Store:
    """Return the history turned on its side."""
    plan = compile_plan(contest.catalog, contest.settings[0])
    store = Store(SimpleNamespace(catalog=contest.catalog), plan)  # type: ignore[arg-type]
    log = contest.readings
    for start in range(0, len(log), BATCH):
        to = slice(start, start + BATCH)
        store.add(Readings(log.sensor[to], log.event_ms[to], log.value[to], log.quality[to]))
    store.finish()
    return store


def run(contest: Contest) -> Array:
    """Return the (E,) EPISODE of every setting, by setting, sensor and start."""
    store = store_of(contest)
    compiler = Compiler(contest.catalog)
    tries = side_by_side([compiler.numbers(rules) for rules in contest.settings])
    return episodes(sweep_store(store, tries), len(contest.settings))


def episodes(steps: Array, n_settings: int) -> Array:
    """Return the episodes that steps tell of, each with the highest level that it reached."""
    shared = steps["setting"] == COMMON
    if shared.any():
        copies = np.tile(steps[shared], n_settings)
        copies["setting"] = np.repeat(np.arange(n_settings), shared.sum())
        steps = np.concatenate([steps[~shared], copies])
    steps = steps[np.lexsort((steps["position"], steps["source"], steps["setting"]))]
    begins = np.flatnonzero(steps["level_from"] == 0)
    peaks = np.maximum.reduceat(steps["level"], begins) if len(begins) else steps["level"]
    first = steps[begins]
    return episodes_of(first["setting"], first["source"], first["event_ms"], peaks)

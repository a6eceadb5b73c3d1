"""Random alert histories of small cities, of one setting or many."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.catalog_build import build_catalog
from kernels.layout import STEP
from tests.analysis.slow_figures import Change, steps_of
from tests.cities import coupling, sensor, source, write_folder

N_SOURCES = 14
BEGIN_MS = 1_714_521_600_000
UNITS_MS = (1000, 20_000, 150_000, 3_600_000, 20_000_000)
"""Histories of seconds and of months: what chatters and what goes stale."""


def catalog_of(folder: Path, *, departments: bool = True) -> Catalog:
    """Build a catalog whose sources answer to three departments, or to none."""
    folder.mkdir(exist_ok=True)
    changes: list[dict[str, Any]] = [
        {
            "department": ("Gas", "Water", None)[i % 3] if departments else None,
            "district": ("Gulou", "Jianye")[i % 2],
            "owner": f"Owner {i % 5}" if i % 5 else None,
            "category": "gas_valve" if i < 8 else "factory",
        }
        for i in range(N_SOURCES)
    ]
    sources = [source(f"s{i:02}", **change) for i, change in enumerate(changes)]
    sensors = [sensor(f"s{i:02}/{k}", f"s{i:02}") for i in range(N_SOURCES) for k in range(2)]
    write_folder(folder / "city", sources, sensors, [coupling("s00", "s01")])
    build_catalog(folder / "city", folder / "city.catalog", 1, None)
    return Catalog.open(folder / "city.catalog")


@st.composite
def changes(
    draw: st.DrawFn, unit_ms: int, sources: range = range(N_SOURCES), most: int = 60
) -> list[Change]:
    """Draw level changes: equal times often, and sources that lag behind others."""
    n = draw(st.integers(0, most))
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 5, 40]), min_size=n, max_size=n))
    lags = [draw(st.sampled_from([0, 0, 3])) for _ in range(N_SOURCES)]
    few = draw(st.sampled_from([sources[:1], sources[:3], sources]))
    found = []
    for now in accumulate(gaps):
        of = draw(st.sampled_from(few))
        level = draw(st.sampled_from([0, 0, 0, 1, 2, 3, 4]))
        found.append((BEGIN_MS + (now - lags[of]) * unit_ms, of, level))
    return found


@st.composite
def times(draw: st.DrawFn, of: list[Change], unit_ms: int) -> tuple[int, int]:
    """Draw the time that is looked at: all of a history, or a part of it."""
    first = min((t for t, _, _ in of), default=BEGIN_MS)
    last = max((t for t, _, _ in of), default=BEGIN_MS)
    since_ms = first + unit_ms * draw(st.sampled_from([0, 0, -2, 1, 7]))
    until_ms = last + draw(st.sampled_from([1, 1, 0, unit_ms, -unit_ms, 700_000]))
    return since_ms, max(until_ms, since_ms + 1)


@st.composite
def many(draw: st.DrawFn, unit_ms: int, n: int = 3) -> tuple[Tried, list[Change]]:
    """Draw several settings: some sources are the same in all of them. Returns all changes, too."""
    n_common = draw(st.integers(0, N_SOURCES - 1))
    common = steps_of(draw(changes(unit_ms, range(n_common)))) if n_common else np.zeros(0, STEP)
    rest = range(n_common, N_SOURCES)
    own = [draw(changes(unit_ms, rest)) for _ in range(n)]
    parts = [steps_of(of) for of in own]
    # positions of one log: common and own steps take turns
    for steps in [common, *parts]:
        steps["position"] = np.sort(2 * steps["position"] + (steps is common))
    all_steps = np.concatenate([np.zeros(0, STEP), *parts])
    tried = Tried(
        n=n,
        common=common,
        own=all_steps,
        starts=np.cumsum([0, *map(len, parts)]),
        first_ms=BEGIN_MS,
        last_ms=max([BEGIN_MS, *common["event_ms"].tolist(), *all_steps["event_ms"].tolist()]),
        n_readings=1,
    )
    both = [(int(s["event_ms"]), 0, 0) for s in [*common, *all_steps]]
    return tried, both

"""What several rule sets made of one history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from engine.alerts import alert_id
from engine.analysis import kpi, scoring
from engine.analysis.bounds import Bounds
from engine.analysis.diffs.episodes import by_source, episodes_of
from engine.analysis.operators import By
from engine.analysis.results.columns import moments, named, texts
from engine.analysis.results.given import TruthLike, incidents_of
from engine.analysis.results.replayed import score_table
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.rules import Rules
from kernels.layout import CAUSE_NAMES, LEVEL_NAMES, STEP, TRANSITION_NAMES

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Swept:
    """What several rule sets made of one history; settings are numbered from 0."""

    catalog: Catalog
    names: tuple[str, ...]
    rules: tuple[Rules, ...]
    tried: Tried

    def __repr__(self) -> str:
        return f"<Swept: {self.tried.n:,} settings, {self.tried.n_readings:,} readings>"

    def table(self) -> pa.Table:
        """Return one row a setting: its name, the digest of its rules, how many alerts it gave."""
        n_own = np.diff(self.tried.starts)
        return pa.table(
            {
                "setting": np.arange(self.tried.n),
                "name": pa.array(self.names, pa.string()),
                "digest": pa.array([each.digest for each in self.rules], pa.string()),
                "alerts": n_own + len(self.tried.common),
            }
        )

    def steps(self, *settings: int) -> pa.Table:
        """Return the alerts of some settings, or of all, in their short form."""
        steps = self._steps(settings)
        return pa.table(
            {
                "setting": steps["setting"].astype(np.int64),
                "event_ms": moments(steps["event_ms"]),
                "source": named(steps["source"], self.catalog.source_id),
                "transition": named(steps["kind"], TRANSITION_NAMES),
                "level_from": named(steps["level_from"], LEVEL_NAMES),
                "level": named(steps["level"], LEVEL_NAMES),
                "score": steps["score"],
                "cause": named(steps["cause"], CAUSE_NAMES),
            }
        )

    def episodes(self, *settings: int) -> pa.Table:
        """Return the episodes of some settings, or of all, by setting, source and time."""
        last_ms = self.tried.last_ms if self.tried.last_ms is not None else 0
        chosen = self._chosen(settings)
        each = [episodes_of(by_source(self.tried.of(k)), last_ms) for k in chosen]
        found = np.concatenate(each) if each else episodes_of(np.zeros(0, STEP), last_ms)
        sources = texts(found["source"], self.catalog.source_id)
        pairs = zip(sources.to_pylist(), found["id_ms"].tolist(), strict=True)
        return pa.table(
            {
                "setting": np.repeat(np.array(chosen, np.int64), [len(of) for of in each]),
                "alert_id": pa.array([alert_id(name, ms) for name, ms in pairs], pa.string()),
                "source": sources,
                "start": moments(found["start_ms"]),
                "end": moments(found["end_ms"], found["running"] > 0),
                "lasted_s": found["at_ms"].sum(axis=1) / 1000,
                "peak": texts(found["peak"], LEVEL_NAMES),
            }
        )

    def figures(self, by: By = "department", *, bounds: Bounds = kpi.STANDARD) -> pa.Table:
        """Return the alarm-management figures, one row a setting."""
        return kpi.of_many(self.tried, self.catalog, by=by, bounds=bounds)

    def score(self, truth: TruthLike, *, lead_s: float = 0.0, grace_s: float = 0.0) -> pa.Table:
        """Return how each setting stands against what really happened: a row a setting and level.

        Raises what `Replayed.score` raises.
        """
        happened = incidents_of(truth, self.rules[0])
        scores = scoring.score(self.tried, happened, self.catalog, lead_s=lead_s, grace_s=grace_s)
        return score_table(scores)

    def _steps(self, settings: Sequence[int]) -> Array:
        found = [self.tried.of(setting) for setting in self._chosen(settings)]
        return np.concatenate([np.zeros(0, STEP), *found])

    def _chosen(self, settings: Sequence[int]) -> Sequence[int]:
        for setting in settings:
            if not 0 <= setting < self.tried.n:
                last = self.tried.n - 1
                raise ValueError(f"setting: must be a number from 0 to {last}, got {setting}")
        return settings or range(self.tried.n)

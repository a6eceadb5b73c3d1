"""What one rule set made of a history, and how that stands against what really happened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from engine.alerts import alert_id
from engine.analysis import kpi, scoring
from engine.analysis.bounds import Bounds
from engine.analysis.diffs.diff import alerts_of
from engine.analysis.figures import Figures
from engine.analysis.operators import By
from engine.analysis.past import Judged, Past
from engine.analysis.reports.episodes import episodes_of, lasted_ms, reasons
from engine.analysis.results.columns import MOMENT, moments, texts
from engine.analysis.results.given import TruthLike, check_word, incidents_of
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.replay_cli import moment
from engine.rules import Rules
from engine.sinks import alert_table
from engine.truth import LEVELS
from engine.truth import Score as Held
from engine.truth import score as hold
from kernels.layout import LEVEL_NAMES, N_LEVELS, NEVER, STEP

Array = np.ndarray[Any, Any]

_FIGURES = (
    "found", "missed", "enough", "delay_median_s", "delay_p90_s", "delay_worst_s", "episodes",
    "false", "false_per_source_day", "false_per_sensor_day",
)  # fmt: skip
"""Of each level, as `scoring.Scores.table` calls them before the level's name."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Replayed:
    """What rules made of a history; `judged` holds it as the engine's own records."""

    past: Past
    rules: Rules
    judged: Judged

    def __repr__(self) -> str:
        judged = self.judged
        span = ""
        if judged.first_ms is not None and judged.last_ms is not None:
            span = f", {moment(judged.first_ms)} to {moment(judged.last_ms)}"
        alerts = f"{len(judged.transitions):,} alerts"
        return f"<Replayed: {judged.n_readings:,} readings{span}, {alerts}>"

    @property
    def counts(self) -> dict[str, int]:
        """What became of the readings: accepted, late, refused by reason."""
        return dict(self.judged.counts)

    @cached_property
    def tried(self) -> Tried:
        """The history as the only setting of several."""
        steps = self.judged.steps
        return Tried(
            n=1,
            common=np.zeros(0, STEP),
            own=steps,
            starts=np.array([0, len(steps)], np.int64),
            first_ms=self.judged.first_ms,
            last_ms=self.judged.last_ms,
            n_readings=self.judged.n_readings,
        )

    def alerts(self) -> pa.Table:
        """Return the alert records in the log's order, columns of the Parquet alert log."""
        return alert_table(self.judged.records)

    def episodes(self) -> pa.Table:
        """Return one row an episode, in the order in which they began."""
        judged, catalog = self.judged, self.past.catalog
        found = episodes_of(judged.transitions)
        ids = texts(found["source"], catalog.source_id)
        started_ms = found["episode_ms"].tolist()
        pairs = zip(ids.to_pylist(), started_ms, strict=True)
        last_ms = judged.last_ms if judged.last_ms is not None else 0
        raised, highest = (judged.transitions[found[name]] for name in ("raised", "highest"))
        return pa.table(
            {
                "alert_id": pa.array([alert_id(name, ms) for name, ms in pairs], pa.string()),
                "source": ids,
                **_operator_names(catalog, found["source"]),
                "start": moments(found["start_ms"]),
                "end": moments(found["end_ms"], found["end_ms"] == NEVER),
                "lasted_s": lasted_ms(found, last_ms) / 1000,
                "peak": texts(found["peak"], LEVEL_NAMES),
                "peak_at": moments(found["peak_ms"]),
                "score": found["score"],
                "alerts": found["n"].astype(np.int64),
                "alarms": found["alarms"].astype(np.int64),
                "raised_by": pa.array(reasons(judged.plan, raised), pa.string()),
                "peak_by": pa.array(reasons(judged.plan, highest), pa.string()),
            }
        )

    def figures(self, by: By = "department", *, bounds: Bounds = kpi.STANDARD) -> pa.Table:
        """Return the alarm-management figures as one row; `by` says what an operator is."""
        table = kpi.of_many(self.tried, self.past.catalog, by=by, bounds=bounds)
        return table.drop_columns(["setting"])

    def operators(self, by: By = "department", *, bounds: Bounds = kpi.STANDARD) -> pa.Table:
        """Return the load of each operator with an alarm, the busiest first."""
        return self._figures(by, bounds).operator_table()

    def targets(self, by: By = "department", *, bounds: Bounds = kpi.STANDARD) -> pa.Table:
        """Return each figure that alarm management has a target for, and how it stands."""
        rows = [each.as_dict() for each in self._figures(by, bounds).targets]
        text, number = pa.string(), pa.float64()
        schema = pa.schema(
            [
                ("key", text), ("what", text), ("value", number), ("sense", text),
                ("bound", number), ("acceptable", number), ("unit", text), ("verdict", text),
            ]
        )  # fmt: skip
        return pa.Table.from_pylist(rows, schema=schema)

    def _figures(self, by: By, bounds: Bounds) -> Figures:
        since_ms, until_ms = kpi.time_of(self.tried, None, None)
        return kpi.of(
            self.judged.steps,
            self.past.catalog,
            since_ms=since_ms,
            until_ms=until_ms,
            by=by,
            bounds=bounds,
        )

    def score(
        self,
        truth: TruthLike,
        level: str = "blue",
        *,
        lead_s: float = 0.0,
        grace_s: float = 0.0,
    ) -> Scored:
        """Hold the alerts against what really happened; words and bounds are `engine.truth`'s.

        Raises ValueError for a level or times that make no sense, InputError for incidents at
        sources that the catalog does not have, and for a history without readings.
        """
        check_word("level", level, LEVELS)
        catalog, judged = self.past.catalog, self.judged
        happened = incidents_of(truth, self.rules)
        scores = scoring.score(self.tried, happened, catalog, lead_s=lead_s, grace_s=grace_s)
        held = hold(
            alerts_of(judged.steps, catalog.source_id),
            happened,
            since_ms=scores.since_ms,
            until_ms=scores.until_ms,
            level=level,
            lead_s=lead_s,
            grace_s=grace_s,
            n_sources=catalog.n_sources,
        )
        return Scored(scores=scores, held=held, episodes=self.episodes())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scored:
    """Alerts against what really happened: at every level, and incident by incident at one."""

    scores: scoring.Scores
    held: Held
    episodes: pa.Table

    def __repr__(self) -> str:
        held = self.held
        found = f"{len(held.found)} of {len(held.detections)} incidents found"
        return f"<Scored at {held.level}: {found}, {len(held.false)} false alarms>"

    def table(self) -> pa.Table:
        """Return one row a level: what was found, how late, and what was false."""
        return score_table(self.scores).drop_columns(["setting"])

    def incidents(self) -> pa.Table:
        """Return one row an incident that starts within the history, at the level asked for."""
        rows = [
            {
                "source": each.incident.source,
                "kind": each.incident.kind,
                "start": each.incident.start_ms,
                "end": each.incident.end_ms,
                "deserved": each.incident.level,
                "found": each.found,
                "delay_s": None if each.delay_ms is None else each.delay_ms / 1000,
                "peak": each.peak,
                "enough": each.enough,
                "about": each.incident.about,
            }
            for each in self.held.detections
        ]
        text = pa.string()
        schema = pa.schema(
            [
                ("source", text), ("kind", text), ("start", MOMENT), ("end", MOMENT),
                ("deserved", text), ("found", pa.bool_()), ("delay_s", pa.float64()),
                ("peak", text), ("enough", pa.bool_()), ("about", text),
            ]
        )  # fmt: skip
        return pa.Table.from_pylist(rows, schema=schema)

    def false_alarms(self) -> pa.Table:
        """Return the episodes that came to the level and that no incident explains, by time."""
        sources, starts = self.episodes["source"], self.episodes["start"].cast(pa.int64())
        keys = zip(sources.to_pylist(), starts.to_pylist(), strict=True)
        place = {key: row for row, key in enumerate(keys)}
        rows = [place[each.source, each.start_ms] for each in self.held.false]
        return self.episodes.take(pa.array(rows, pa.int64()))


def score_table(scores: scoring.Scores) -> pa.Table:
    """Return one row a setting and level, the least level first."""
    wide = scores.table()
    columns: dict[str, Any] = {
        "setting": np.repeat(np.arange(scores.n), N_LEVELS),
        "level": pa.array([*LEVELS] * scores.n, pa.string()),
        "incidents": np.full(scores.n * N_LEVELS, len(scores.incidents)),
    }
    order = pa.array(np.arange(scores.n * N_LEVELS).reshape(N_LEVELS, -1).T.reshape(-1))
    for name in _FIGURES:
        of_levels = [wide[f"{name}_{level}"].combine_chunks() for level in LEVELS]
        # SQL takes a column called false for the truth value
        column = "false_alarms" if name == "false" else name
        columns[column] = pa.concat_arrays(of_levels).take(order)
    return pa.table(columns)


def _operator_names(catalog: Catalog, source: Array) -> dict[str, pa.Array]:
    """Return columns that say whose sources these are."""
    return {
        "category": texts(catalog.category[source], catalog.categories),
        "district": texts(catalog.district[source], catalog.districts),
        "department": texts(catalog.department[source], catalog.departments),
    }

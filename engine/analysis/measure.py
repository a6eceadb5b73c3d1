"""What settings are measured by: figures of alarm management, and of what really happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis import kpi
from engine.analysis.asked import digest_of
from engine.analysis.bounds import Bounds
from engine.analysis.operators import By
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.truth import LEVELS, Incident, Score, score
from kernels.layout import LEVEL_NAMES

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """How the settings of a study are measured."""

    catalog: Catalog
    incidents: Sequence[Incident] | None = None
    """What really happened; None where nobody knows."""
    level: str | None = None
    """The level at which default objectives ask for incidents; None: the least they deserve."""
    lead_s: float = 0.0
    grace_s: float = 0.0
    by: By = "department"
    bounds: Bounds = field(default_factory=Bounds)

    def __call__(self, tried: Tried) -> pa.Table:
        """Return one row of figures for each setting."""
        table = kpi.of_many(tried, self.catalog, by=self.by, bounds=self.bounds)
        table = table.drop_columns(["setting"])
        if self.incidents is not None:
            found = self._found(tried)
            for name in found.column_names:
                table = table.append_column(name, found[name])
        return table

    def _found(self, tried: Tried) -> pa.Table:
        import pyarrow as pa

        days = ((tried.last_ms or 0) + 1 - (tried.first_ms or 0)) / 86_400_000
        rows = []
        for number in range(tried.n):
            row: dict[str, Any] = {}
            for level in LEVELS:
                found = self._score(tried, number, level, None)
                delays = [d.delay_ms for d in found.detections if d.delay_ms is not None]
                row[f"found_{level}"] = len(found.found)
                row[f"missed_{level}"] = len(found.missed)
                row[f"delay_median_s_{level}"] = found.median_delay_s
                row[f"delay_worst_s_{level}"] = max(delays) / 1000 if delays else None
                row[f"false_{level}"] = len(found.false)
                per_day = len(found.false) / days / self.catalog.n_sensors
                row[f"false_per_sensor_day_{level}"] = per_day
            rows.append(row)
        return pa.Table.from_pylist(rows)

    def _score(self, tried: Tried, number: int, level: str, sources: Array | None) -> Score:
        steps = tried.of(number)
        if sources is not None:
            steps = steps[np.isin(steps["source"], sources)]
        names = self.catalog.source_id
        columns = (steps[name].tolist() for name in ("source", "event_ms", "level"))
        log = [
            {"source": names[source].as_py(), "event_ms": at, "level": LEVEL_NAMES[reached]}
            for source, at, reached in zip(*columns, strict=True)
        ]
        return score(
            log,
            self.incidents or (),
            since_ms=tried.first_ms or 0,
            until_ms=(tried.last_ms or 0) + 1,
            level=level,
            lead_s=self.lead_s,
            grace_s=self.grace_s,
        )

    @property
    def asked_level(self) -> str:
        """The level at which incidents should be found."""
        deserved = {each.level for each in self.incidents or ()} or {"yellow"}
        return self.level or next(level for level in LEVELS if level in deserved)

    def delays_s(self, tried: Tried) -> Array:
        """Return (settings, incidents) the delay of each at the asked level; inf if missed.

        Incidents that start outside the history are left out: see `judged`.
        """
        judged = self.judged(tried)
        sources = np.array([self.catalog.source_index(each.source) for each in judged], np.int64)
        delays = np.full((tried.n, len(judged)), np.inf)
        for number in range(tried.n if judged else 0):
            found = self._score(tried, number, self.asked_level, sources)
            for place, each in enumerate(found.detections):
                if each.delay_ms is not None:
                    delays[number, place] = each.delay_ms / 1000
        return delays

    def judged(self, tried: Tried) -> list[Incident]:
        """Return the incidents that start within the history."""
        since_ms, until_ms = tried.first_ms or 0, (tried.last_ms or 0) + 1
        return [each for each in self.incidents or () if since_ms <= each.start_ms < until_ms]

    def asked(self) -> dict[str, Any]:
        """Return what decides the figures, as plain JSON values."""
        truth = None
        if self.incidents is not None:
            truth = digest_of([asdict(each) for each in self.incidents])
        return {
            "truth": truth,
            "lead_s": self.lead_s,
            "grace_s": self.grace_s,
            "operators by": self.by,
            "bounds": digest_of(asdict(self.bounds)),
        }

    def default_objectives(self) -> tuple[str, ...]:
        """Return what is asked for where nobody says: found first, then few false, then fast.

        Without a truth nobody knows what silence would cost: of settings that miss as few targets
        the one that changes least is as good as any.
        """
        if self.incidents:
            level = self.asked_level
            return (
                f"min missed_{level}",
                f"min false_per_sensor_day_{level}",
                f"min delay_worst_s_{level}",
            )
        return ("min targets_missed",)

    def unknown_sources(self) -> Iterator[str]:
        """Yield the sources of incidents that the catalog does not have."""
        for name in dict.fromkeys(each.source for each in self.incidents or ()):
            if self.catalog.source_index(name) < 0:
                yield name

"""What settings are measured by: figures of alarm management, and of what really happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from engine.analysis.asked import digest_of
from engine.analysis.bounds import Bounds
from engine.analysis.operators import By
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.truth import LEVELS, Incident, score
from kernels.layout import LEVEL_NAMES

if TYPE_CHECKING:
    import pyarrow as pa


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
        import pyarrow as pa

        rows = []
        for number in range(tried.n):
            steps = tried.of(number)
            row: dict[str, Any] = {
                "alarms": int(((steps["kind"] == 0) | (steps["kind"] == 1)).sum())
            }
            until = (tried.last_ms or 0) + 1
            row["busiest_per_10min"] = row["alarms"] / max(
                (until - (tried.first_ms or 0)) / 600_000, 1
            )
            row["targets_missed"] = int(row["busiest_per_10min"] > 2)
            if self.incidents is not None:
                ids = self.catalog.source_id
                log = [
                    {
                        "source": ids[s].as_py(),
                        "event_ms": int(t),
                        "level": LEVEL_NAMES[level],
                    }
                    for s, t, level in zip(
                        steps["source"].tolist(),
                        steps["event_ms"].tolist(),
                        steps["level"].tolist(),
                        strict=True,
                    )
                ]
                for level in LEVELS:
                    found = score(
                        log,
                        self.incidents,
                        since_ms=tried.first_ms or 0,
                        until_ms=until,
                        level=level,
                        lead_s=self.lead_s,
                        grace_s=self.grace_s,
                    )
                    delays = [d.delay_ms for d in found.detections if d.delay_ms is not None]
                    row[f"found_{level}"] = len(found.found)
                    row[f"missed_{level}"] = len(found.missed)
                    row[f"delay_median_s_{level}"] = found.median_delay_s
                    row[f"delay_worst_s_{level}"] = max(delays) / 1000 if delays else None
                    row[f"false_{level}"] = len(found.false)
                    row[f"false_per_sensor_day_{level}"] = (
                        found.false_per_day / self.catalog.n_sensors
                    )
            rows.append(row)
        return pa.Table.from_pylist(rows)

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
        """Return what is asked for where nobody says: found first, then few false, then fast."""
        if self.incidents:
            deserved = {each.level for each in self.incidents}
            level = self.level or next(level for level in LEVELS if level in deserved)
            return (
                f"min missed_{level}",
                f"min false_per_sensor_day_{level}",
                f"min delay_worst_s_{level}",
            )
        return ("min targets_missed", "min busiest_per_10min")

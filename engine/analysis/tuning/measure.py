"""What settings are measured by: figures of alarm management, and of what really happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis import kpi, scoring
from engine.analysis.bounds import Bounds
from engine.analysis.operators import By
from engine.analysis.steps import Tried
from engine.analysis.tuning.asked import digest_of
from engine.catalog import Catalog
from engine.truth import LEVELS, Incident
from kernels.tally import MISSED

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
    """The level to which a source must come for an incident to be found; None: as deserved."""
    lead_s: float = 0.0
    grace_s: float = 0.0
    by: By = "department"
    bounds: Bounds = field(default_factory=Bounds)

    def __call__(self, tried: Tried) -> pa.Table:
        """Return one row of figures for each setting."""
        table = kpi.of_many(tried, self.catalog, by=self.by, bounds=self.bounds)
        if self.incidents is not None:
            table = scoring.with_scores(table, self._scores(tried))
        return table.drop_columns(["setting"])

    def _scores(self, tried: Tried) -> scoring.Scores:
        return scoring.score(
            tried,
            self.incidents or (),
            self.catalog,
            lead_s=self.lead_s,
            grace_s=self.grace_s,
        )

    @property
    def asked_level(self) -> str:
        """The level of default objectives: what is asked for, or the least that any deserves."""
        deserved = {each.level for each in self.incidents or ()} or {"yellow"}
        return self.level or next(level for level in LEVELS if level in deserved)

    def delays_s(self, tried: Tried) -> Array:
        """Return (settings, incidents) how late each incident was found; inf where it was missed.

        An incident must come to the level that is asked for, or else to the one that it deserves.
        Those that start outside the history are left out: see `judged`.
        """
        scores = self._scores(tried)
        levels = [LEVELS.index(self.level or each.level) for each in scores.incidents]
        delay_ms = scores.delay_ms[:, np.arange(len(levels)), np.array(levels, np.int64)]
        return np.where(delay_ms == MISSED, np.inf, delay_ms / 1000)

    def judged(self, tried: Tried) -> list[Incident]:
        """Return the incidents that start within the history."""
        return list(self._scores(tried).incidents)

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
        """Return what is asked for where nobody says: found, high enough, few false, fast.

        Without a truth nobody knows what silence would cost: of settings that miss as few targets
        the one that changes least is as good as any.
        """
        if self.incidents:
            level = self.asked_level
            return (
                f"min missed_{level}",
                f"max enough_{level}",
                f"min false_per_sensor_day_{level}",
                f"min delay_worst_s_{level}",
            )
        return ("min targets_missed",)

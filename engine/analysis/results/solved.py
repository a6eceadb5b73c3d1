"""Rules that solving came to, and what they give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.analysis.results.columns import MOMENT
from engine.analysis.tuning.solve import DELAYS, Solution
from engine.analysis.tuning.solve_sensors import SensorSolution
from engine.rules import Rules
from engine.truth import LEVELS


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Solved:
    """What solving came to; `solution` and `of_sensors` hold it as the search's own records."""

    solution: Solution
    of_sensors: SensorSolution | None = None
    """Of solving per sensor."""

    def __repr__(self) -> str:
        met = "met" if self.met else "NOT met"
        return f"<Solved: {self.solution.goal}: {met}, {len(self.solution.trials):,} settings>"

    @property
    def met(self) -> bool:
        """Whether a replay under the rules gives all that was asked for."""
        return self.solution.met

    @property
    def rules(self) -> Rules | None:
        """The rules, or the nearest if the goal is not met; None if it was interrupted."""
        choice = self.solution.choice
        return None if choice is None else choice.rules

    def table(self) -> pa.Table:
        """Return one row for each setting that was tried, the given rules first."""
        return self.solution.trials.table()

    def changes(self) -> pa.Table:
        """Return one row for each number of the rules that changes, and why."""
        choice = self.solution.choice
        if choice is None:
            raise ValueError("solving was interrupted: it came to no rules")
        return choice.table()

    def figures(self) -> pa.Table:
        """Return each figure under the given rules, and in a replay under the final ones."""
        given, proof = self.solution.given, self.solution.proof
        final = {} if proof is None else proof.figures
        rows = [
            {"figure": name, "given": value, "final": final.get(name)}
            for name, value in given.items()
            if name != DELAYS and not isinstance(value, str)
        ]
        number = pa.float64()
        schema = pa.schema([("figure", pa.string()), ("given", number), ("final", number)])
        return pa.Table.from_pylist(rows, schema=schema)

    def late(self) -> pa.Table:
        """Return the incidents that are found too late or not at all, with the least delay of any
        setting that was tried."""
        rows = [
            {
                "source": incident.source,
                "kind": incident.kind,
                "start": incident.start_ms,
                "delay_s": _finite(delay_s),
                "least_delay_s": _finite(least_s),
            }
            for incident, delay_s, least_s in self.solution.late()
        ]
        text, number = pa.string(), pa.float64()
        schema = pa.schema(
            [
                ("source", text), ("kind", text), ("start", MOMENT),
                ("delay_s", number), ("least_delay_s", number),
            ]
        )  # fmt: skip
        return pa.Table.from_pylist(rows, schema=schema)

    def own_limits(self) -> pa.Table:
        """Return the sensors that got limits of their own, in their units; null: the profile's."""
        own = () if self.of_sensors is None else self.of_sensors.own
        sides = [f"{side}_{level}" for side in ("high", "low") for level in LEVELS]
        rows: list[dict[str, Any]] = [
            {
                "sensor": each.sensor,
                "source": each.source,
                **dict(zip(sides, map(_finite, (*each.high, *each.low)), strict=True)),
                "deadband": each.deadband,
                "unit": each.unit,
                "false_before": each.false_before,
                "false_after": each.false_after,
            }
            for each in own
        ]
        text, number, count = pa.string(), pa.float64(), pa.int64()
        schema = pa.schema(
            [
                ("sensor", text), ("source", text), *((name, number) for name in sides),
                ("deadband", number), ("unit", text), ("false_before", count),
                ("false_after", count),
            ]
        )  # fmt: skip
        return pa.Table.from_pylist(rows, schema=schema)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

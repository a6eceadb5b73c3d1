"""Alarm-management figures of one alert history, after ISA-18.2 and EEMUA 191.

An *alarm* is what asks a person anew: a raise or an escalation in `[since_ms, until_ms)`. Rates and
floods are of an operator, and in event time. Levels stand for the priorities of the standards: blue
and yellow for low, orange for medium, red for high.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from engine.analysis.bounds import PERIOD_MS, Bounds, Target, targets_of
from engine.analysis.operators import By
from kernels.layout import LEVEL_NAMES, N_LEVELS

if TYPE_CHECKING:
    import pyarrow as pa

TOP_N = 10
PARETO_POINTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFigures:
    """The load of one operator."""

    operator: str
    n_sources: int
    alarms: int
    per_10min: float
    """Average alarms in 10 min; in a history that is shorter, those that came."""
    peak: int
    """Most alarms within any 10 min, the first included, an alarm 10 min later not."""
    peak_ms: int | None
    """When the first such 10 min began: with an alarm."""
    floods: tuple[tuple[int, int], ...]
    """Each from the alarm that was one too many to the moment at which few enough were left."""
    flood_share: float
    """Share of the time in flood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chattering:
    """A source that chatters.

    A cycle is an episode, raised and cleared. A *bout* lasts while each cycle ends within
    `Bounds.chatter_s` of the start of the one `Bounds.chatter_n` − 1 before it.
    """

    source: str
    bouts: int
    most_cycles: int
    """Most whole cycles within `Bounds.chatter_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopSource:
    """One of the busiest sources, with its share of all alarms."""

    source: str
    alarms: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of one alert history."""

    since_ms: int
    until_ms: int
    by: By
    """What makes an operator."""
    bounds: Bounds
    alarms: int
    episodes: int
    """Episodes that began in the time."""
    standing_before: int
    """Episodes that began before and stood when the time began."""
    standing_after: int
    """Episodes that stand when the time ends."""
    n_operators: int
    """Operators with a source, quiet ones included."""
    operators: tuple[OperatorFigures, ...]
    """Those with an alarm, the busiest first."""
    chattering: tuple[Chattering, ...]
    """The worst first."""
    stale: int
    """Episodes that stood longer than `Bounds.stale_h` at some moment of the time."""
    stale_by_day: tuple[int, ...]
    """Episodes stale at some moment of each day of 24 h, from `since_ms` on."""
    top: tuple[TopSource, ...]
    """The ten sources with the most alarms."""
    pareto: tuple[tuple[int, float], ...]
    """Of some numbers of busiest sources, the number and their share of all alarms."""
    alarms_by_level: Mapping[str, int]
    """Alarms by the level that they led to."""
    median_s: float | None
    """Median duration of the episodes that began in the time; one that stands when it ends has
    lasted until then, so that what never clears does not drop out."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """Each figure against its bound."""
        return targets_of(self.row(), self.bounds)

    def row(self) -> dict[str, Any]:
        """Return the figures as one flat row, with the columns of `kpi.of_many`."""
        periods = max(self.until_ms - self.since_ms, PERIOD_MS) / PERIOD_MS
        load = [self.alarms_by_level[name] for name in LEVEL_NAMES[1:]]
        shares = priority_shares(load)
        busiest = self.operators[0] if self.operators else None
        row = {
            "alarms": self.alarms,
            **{f"alarms_{name}": n for name, n in zip(LEVEL_NAMES[1:], load, strict=True)},
            "episodes": self.episodes,
            "standing_before": self.standing_before,
            "standing_after": self.standing_after,
            "median_duration_s": self.median_s,
            "operators": self.n_operators,
            "per_10min": self.alarms / max(self.n_operators, 1) / periods,
            "busiest_operator": busiest.operator if busiest else None,
            "busiest_per_10min": busiest.per_10min if busiest else 0.0,
            "peak_per_10min": max((each.peak for each in self.operators), default=0),
            "floods": sum(len(each.floods) for each in self.operators),
            "flood_share": max((each.flood_share for each in self.operators), default=0.0),
            "chattering": len(self.chattering),
            "chatter_bouts": sum(each.bouts for each in self.chattering),
            "chatter_most": max((each.most_cycles for each in self.chattering), default=0),
            "stale": self.stale,
            "stale_per_day": fmean(self.stale_by_day),
            "stale_worst_day": max(self.stale_by_day),
            "top_ten_share": (
                sum(each.alarms for each in self.top) / self.alarms if self.alarms else None
            ),
            **shares,
        }
        row["targets_missed"] = targets_missed(row, self.bounds)
        return row

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "since_ms": self.since_ms,
            "until_ms": self.until_ms,
            "by": self.by,
            **self.row(),
            "bounds": asdict(self.bounds),
            "targets": [each.as_dict() for each in self.targets],
            "load": [asdict(each) for each in self.operators],
            "chattering_sources": [asdict(each) for each in self.chattering],
            "stale_by_day": list(self.stale_by_day),
            "top_sources": [asdict(each) for each in self.top],
            "pareto": [list(point) for point in self.pareto],
        }

    def table(self) -> pa.Table:
        """Return the row as a table, such as `kpi.of_many` gives for several settings."""
        import pyarrow as pa

        return pa.Table.from_pylist([{"setting": 0, **self.row()}], schema=schema())

    def operator_table(self) -> pa.Table:
        """Return the operators with an alarm, the busiest first."""
        import pyarrow as pa

        return pa.Table.from_pylist(
            [asdict(each) | {"floods": len(each.floods)} for each in self.operators],
            schema=pa.schema(
                [
                    ("operator", pa.string()),
                    ("n_sources", pa.int64()),
                    ("alarms", pa.int64()),
                    ("per_10min", pa.float64()),
                    ("peak", pa.int64()),
                    ("peak_ms", pa.timestamp("ms", "UTC")),
                    ("floods", pa.int64()),
                    ("flood_share", pa.float64()),
                ]
            ),
        )


def schema() -> pa.Schema:
    """Return the columns of a table of figures, one row a setting."""
    import pyarrow as pa

    number, share = pa.int64(), pa.float64()
    return pa.schema(
        [
            ("setting", pa.int64()),
            ("alarms", number),
            *((f"alarms_{name}", number) for name in LEVEL_NAMES[1:]),
            ("episodes", number),
            ("standing_before", number),
            ("standing_after", number),
            ("median_duration_s", pa.float64()),
            ("operators", number),
            ("per_10min", pa.float64()),
            ("busiest_operator", pa.string()),
            ("busiest_per_10min", pa.float64()),
            ("peak_per_10min", number),
            ("floods", number),
            ("flood_share", share),
            ("chattering", number),
            ("chatter_bouts", number),
            ("chatter_most", number),
            ("stale", number),
            ("stale_per_day", pa.float64()),
            ("stale_worst_day", number),
            ("top_ten_share", share),
            ("low_share", share),
            ("medium_share", share),
            ("high_share", share),
            ("targets_missed", number),
        ]
    )


def targets_missed(row: Mapping[str, Any], bounds: Bounds) -> int:
    """Return how many targets a row of figures misses."""
    return sum(each.verdict == "missed" for each in targets_of(row, bounds))


def priority_shares(by_level: list[int]) -> dict[str, float | None]:
    """Return the shares of low, medium and high of the alarms that led to blue, … red."""
    assert len(by_level) == N_LEVELS
    blue, yellow, orange, red = by_level
    n = sum(by_level)
    parts = {"low_share": blue + yellow, "medium_share": orange, "high_share": red}
    return {name: part / n if n else None for name, part in parts.items()}

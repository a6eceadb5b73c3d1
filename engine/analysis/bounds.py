"""What alarm management asks of alerts, and how a history's figures stand against it.

Sources: ANSI/ISA-18.2-2016 clause 16 (monitoring and assessment) and EEMUA 191, third edition. They
speak of one operator at a console; here an operator is a department, an owner, a district.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

PERIOD_MS = 600_000
"""Rates and floods are counted by ten minutes."""

Verdict = Literal["good", "acceptable", "missed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds that figures are held against; shares are of 1.

    The defaults are those of ISA-18.2 and EEMUA 191; a site overrides what it has agreed otherwise.
    """

    rate_good: float = 1.0
    """Alarms an operator and 10 min, on average: ISA-18.2, "very likely to be acceptable"."""
    rate_most: float = 2.0
    """The same: ISA-18.2, "maximum manageable"."""
    peak_most: int = 10
    """Alarms an operator in any 10 min: EEMUA 191; ISA-18.2 calls what is above a flood."""
    flood_starts_above: int = 10
    """A flood starts when more alarms than this came within 10 min: ISA-18.2."""
    flood_ends_below: int = 5
    """It ends when fewer than this did: ISA-18.2."""
    flood_share_below: float = 0.01
    """Share of the time in flood, of any operator: ISA-18.2, "~<1 %"."""
    chatter_n: int = 3
    """A source chatters when it is raised and cleared this often within `chatter_s`: EEMUA 191."""
    chatter_s: float = 60.0
    chattering_most: int = 0
    """Sources that chatter: ISA-18.2, "zero"."""
    stale_h: float = 24.0
    """An episode that stands for longer is stale: ISA-18.2."""
    stale_below: int = 5
    """Stale episodes on any one day: ISA-18.2, "less than 5 present on any day"."""
    top_ten_below: float = 0.05
    """Share of the ten busiest sources in all alarms: ISA-18.2, "~<1 % to 5 % maximum"."""
    low: float = 0.80
    """Least share of alarms of low priority: ISA-18.2 and EEMUA 191, about 80/15/5."""
    medium: float = 0.15
    """Greatest share of medium priority."""
    high: float = 0.05
    """Greatest share of high priority."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise ValueError(f"{name}: must be at least 0, got {value}")
        for name in ("flood_share_below", "top_ten_below", "low", "medium", "high"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}: is a share, at most 1, got {getattr(self, name)}")
        if self.rate_most < self.rate_good:
            raise ValueError(
                f"rate_most: must be at least rate_good = {self.rate_good}, got {self.rate_most}"
            )
        if not 1 <= self.flood_ends_below <= self.flood_starts_above + 1:
            raise ValueError(
                "flood_ends_below: must be 1 to flood_starts_above + 1 = "
                f"{self.flood_starts_above + 1}, got {self.flood_ends_below}"
            )
        if self.chatter_n < 1:
            raise ValueError(f"chatter_n: must be at least 1, got {self.chatter_n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure against its bound.

    It is good if `value sense bound` holds, acceptable if `value sense acceptable` does, else
    missed. `value` is None where there was no alarm that it could be a figure of; that is good.
    With the unit "share" it is a number from 0 to 1; `value_text` and `bound_text` show percent.
    """

    key: str
    what: str
    value: float | None
    sense: Literal["≤", "<", "≥"]
    bound: float
    acceptable: float
    unit: str

    @property
    def verdict(self) -> Verdict:
        """How the figure stands."""
        if self.value is None or self.holds(self.value, self.bound):
            return "good"
        return "acceptable" if self.holds(self.value, self.acceptable) else "missed"

    def holds(self, value: Any, bound: float) -> Any:
        """Whether a value, or each of an array of them, keeps a bound in this target's sense."""
        if self.sense == "≤":
            return value <= bound
        return value < bound if self.sense == "<" else value >= bound

    @property
    def value_text(self) -> str:
        """The value for people: `1.2`, `46.8 %`; what else is counted says `unit`."""
        return "–" if self.value is None else self._shown(self.value)

    @property
    def bound_text(self) -> str:
        """The bound for people: `< 5 %`; `≤ 1, 2` where 1 is good and 2 acceptable."""
        text = f"{self.sense} {self._shown(self.bound)}"
        return text if self.acceptable == self.bound else f"{text}, {self._shown(self.acceptable)}"

    def _shown(self, value: float) -> str:
        return f"{100 * value:.3g} %" if self.unit == "share" else f"{value:,.4g}"

    def as_dict(self) -> dict[str, Any]:
        """Return the target as plain JSON values, the verdict included."""
        return {**asdict(self), "verdict": self.verdict}


def targets_of(row: Mapping[str, Any], bounds: Bounds) -> tuple[Target, ...]:
    """Hold the figures of a history, by their column names, against the bounds."""
    found: list[Target] = []

    def hold(
        key: str,
        what: str,
        sense: Literal["≤", "<", "≥"],
        bound: float,
        unit: str,
        acceptable: float | None = None,
    ) -> None:
        most = bound if acceptable is None else acceptable
        value = row[key]
        found.append(
            Target(
                key=key,
                what=what,
                value=value,
                sense=sense,
                bound=bound,
                acceptable=most,
                unit=unit,
            )
        )

    rate, peak = "alarms in 10 min", "alarms"
    hold(
        "busiest_per_10min",
        "average of the busiest operator",
        "≤",
        bounds.rate_good,
        rate,
        bounds.rate_most,
    )
    hold("peak_per_10min", "most in any 10 min, any operator", "≤", bounds.peak_most, peak)
    hold("flood_share", "time in flood, worst operator", "<", bounds.flood_share_below, "share")
    hold("chattering", "sources that chatter", "≤", bounds.chattering_most, "sources")
    hold("stale_worst_day", "stale episodes, worst day", "<", bounds.stale_below, "episodes")
    hold("top_ten_share", "load of the ten busiest sources", "<", bounds.top_ten_below, "share")
    hold("low_share", "blue and yellow alarms", "≥", bounds.low, "share")
    hold("medium_share", "orange alarms", "≤", bounds.medium, "share")
    hold("high_share", "red alarms", "≤", bounds.high, "share")
    return tuple(found)

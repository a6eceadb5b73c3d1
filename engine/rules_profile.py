"""A profile: which sensors it watches, and the parameters of every detector on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from engine.rules_base import (
    LEVELS,
    MAX_DELAY_S,
    Amount,
    Falling,
    Flaw,
    Ladder,
    Level,
    Name,
    Names,
    Path,
    Rising,
    Seconds,
    Section,
    at_rest_flaws,
    deadband_flaws,
    gives_no_limit,
    level_number,
    to_ms,
)
from engine.units import QUANTITIES, UnitError, conversion

MAX_WINDOWS = 16
"""A change names the window in four bits."""
PER_MS = {"s": 1_000, "min": 60_000, "h": 3_600_000}
SECTION_OF_KIND = {
    "high": "limits",
    "low": "limits",
    "rise": "rate",
    "fall": "rate",
    "window": "windows",
    "deviation": "deviation",
    "drift": "drift",
    "absence": "liveness",
    "flatline": "liveness",
    "bad": "liveness",
    "spike": "liveness",
}
SEASON_MS = {"none": 0, "day": 86_400_000, "week": 604_800_000}
DEFAULT_BINS = {"none": 0, "day": 24, "week": 168}


def not_nan(value: float) -> float:
    """Return the value, which may be infinite; ValueError for NaN."""
    if math.isnan(value):
        raise ValueError("must be a number")
    return value


Bound = Annotated[float, Field(allow_inf_nan=True), AfterValidator(not_nan)]
Confirm = Annotated[int, Field(ge=1, le=255)]


class Delays(Section):
    """A delay for each level."""

    blue: Seconds = 0.0
    yellow: Seconds = 0.0
    orange: Seconds = 0.0
    red: Seconds = 0.0

    def ms(self) -> tuple[int, ...]:
        """Return the delay of each level in milliseconds, blue first."""
        return tuple(to_ms(getattr(self, name)) for name in LEVELS)


def _per_level(value: Any) -> Any:
    # a plain number is the delay of every level; anything that is no number is left to the model
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not 0 <= value <= MAX_DELAY_S:
        raise ValueError(f"must be at least 0 and at most {MAX_DELAY_S:.15g}")
    return dict.fromkeys(LEVELS, float(value))


DelayTable = Annotated[Delays, BeforeValidator(_per_level)]


class Limits(Section):
    """Latching limits on the value itself."""

    high: Rising = Rising()
    low: Falling = Falling()
    deadband: Amount = 0.0
    on_delay_s: DelayTable = Delays()
    off_delay_s: DelayTable = Delays()
    latch: bool = False
    floor: bool = True

    def flaws(self) -> Iterator[Flaw]:
        yield from deadband_flaws(self.deadband, {"high": self.high, "low": self.low})
        if not (self.high.named() and self.low.named()):
            return
        upper, high = self.high.named()[0]
        lower, low = self.low.named()[0]
        if low >= high:
            yield Flaw(
                ("low", lower), f"must be below high.{upper}, {high:.15g}", low, (("high", upper),)
            )
        elif 2 * self.deadband >= high - low:
            bound = (
                f"must be smaller than half the distance of low.{lower} and high.{upper}, "
                f"{(high - low) / 2:.15g}, or no value clears both"
            )
            yield Flaw(("deadband",), bound, self.deadband, (("high", upper), ("low", lower)))


class Rate(Section):
    """Limits on the rate of change over a window."""

    rise: Rising = Rising()
    fall: Rising = Rising()
    per: Literal["s", "min", "h"] = "min"
    window_s: float = Field(ge=0.002, le=MAX_DELAY_S, examples=[300.0])
    deadband: Amount = 0.0
    confirm_n: Confirm = 1

    def flaws(self) -> Iterator[Flaw]:
        ladders: dict[str, Ladder] = {"rise": self.rise, "fall": self.fall}
        if gives_no_limit(self.rise, self.fall):
            yield Flaw((), "must give a limit in rise or fall", None, (("rise",), ("fall",)))
        yield from deadband_flaws(self.deadband, ladders)
        yield from at_rest_flaws(self.deadband, ladders)


class Window(Section):
    """Limits on an aggregate of the newest readings."""

    name: Name = Field(examples=["window"])
    length_s: float = Field(gt=0, le=10 * 366 * 86_400, examples=[60.0])
    panes: int = Field(default=6, ge=2, le=6)
    aggregate: Literal["mean", "min", "max", "std", "range", "sum", "count"] = Field(
        examples=["mean"]
    )
    high: Rising = Rising()
    low: Falling = Falling()
    deadband: Amount = 0.0
    min_n: int = Field(default=1, ge=1, le=6 * 65_535)

    @property
    def pane_ms(self) -> int:
        """Length of a pane."""
        return to_ms(self.length_s) // self.panes

    def flaws(self) -> Iterator[Flaw]:
        length_ms = self.length_s * 1000
        if abs(length_ms - round(length_ms)) > 1e-6 or round(length_ms) % self.panes:
            bound = f"must be {self.panes} panes of whole milliseconds"
            yield Flaw(("length_s",), bound, self.length_s, (("panes",),))
        if gives_no_limit(self.high, self.low):
            yield Flaw((), "must give a limit in high or low", None, (("high",), ("low",)))
        yield from deadband_flaws(self.deadband, {"high": self.high, "low": self.low})
        if self.aggregate in ("std", "range", "count"):
            yield from at_rest_flaws(self.deadband, {"high": self.high})
            for level, limit in self.low.named():
                if limit < 0:
                    bound = f"must be ≥ 0: a {self.aggregate} is never below"
                    yield Flaw(("low", level), bound, limit, (("aggregate",),))
        if self.aggregate == "count":
            for level, limit in self.low.named():
                if 0 <= limit < self.min_n:
                    bound = f"must be at least min_n, {self.min_n}: fewer readings are not judged"
                    yield Flaw(("low", level), bound, limit, (("min_n",), ("aggregate",)))


class Deviation(Section):
    """Limits on the distance from the sensor's own running level, in sigmas."""

    raise_at: Rising = Rising()
    deadband: Amount = 0.0
    memory_n: int = Field(default=256, ge=2, le=65_535)
    warmup_n: int = Field(default=64, ge=2, le=65_535)
    clip: float = Field(default=3.0, gt=0, le=1e6)
    min_sigma: float = Field(gt=1e-15, le=1e15, examples=[1.0])
    confirm_n: Confirm = 1
    season: Literal["none", "day", "week"] = "none"
    bins: int | None = Field(default=None, ge=1, le=1008)

    @property
    def season_bins(self) -> int:
        """Number of bins of the season; 0 where there is none."""
        return DEFAULT_BINS[self.season] if self.bins is None else self.bins

    def flaws(self) -> Iterator[Flaw]:
        ladders: dict[str, Ladder] = {"raise_at": self.raise_at}
        yield from deadband_flaws(self.deadband, ladders)
        yield from at_rest_flaws(self.deadband, ladders)
        if self.warmup_n > self.memory_n:
            bound = f"must be at most memory_n, {self.memory_n}"
            yield Flaw(("warmup_n",), bound, self.warmup_n, (("memory_n",),))
        if self.bins is not None:
            if self.season == "none":
                bound = 'needs season = "day" or "week"'
                yield Flaw(("bins",), bound, self.bins, (("season",),))
            elif SEASON_MS[self.season] % (1000 * self.bins):
                bound = f"must divide the {self.season} into whole seconds"
                yield Flaw(("bins",), bound, self.bins, (("season",),))


class Drift(Section):
    """Limits on the two-sided cumulative sum of small deviations, in sigmas."""

    raise_at: Rising = Field(examples=[{"blue": 8.0}])
    deadband: Amount = 0.0
    allowance: float = Field(default=0.5, ge=0, le=1e6)

    def flaws(self) -> Iterator[Flaw]:
        if gives_no_limit(self.raise_at):
            yield Flaw(("raise_at",), "must give a limit", None)
        ladders: dict[str, Ladder] = {"raise_at": self.raise_at}
        yield from deadband_flaws(self.deadband, ladders)
        yield from at_rest_flaws(self.deadband, ladders)


def _periods(periods: float) -> float:
    if periods and not 1 < periods <= 1e6:
        raise ValueError("must be 0 (off) or > 1 and at most 1000000")
    return periods


Periods = Annotated[float, AfterValidator(_periods)]


class Liveness(Section):
    """Signals of a sensor that is silent, stuck, broken or jumps."""

    absent_after: Periods | None = None
    absent_level: Level | None = None
    flat_after_n: int = Field(default=0, ge=0, le=65_535)
    flat_level: Level = "blue"
    bad_after_n: int = Field(default=5, ge=0, le=255)
    bad_level: Level = "blue"
    spike_at: float | None = Field(default=None, gt=0, le=1e15)
    spike_level: Level = "blue"


class Absence(Section):
    """When a silent sensor is absent, unless its profile says otherwise."""

    after: Periods = 3.0
    level: Level = "blue"


_BOUNDED = ("mean", "min", "max")
"""Aggregates that lie within the range of the readings."""


class Profile(Section):
    """How the sensors of a quantity are watched."""

    quantity: Name
    categories: Names | None = None
    unit: Name = Field(examples=["1"])
    range: Annotated[tuple[Bound, Bound], Field(strict=False)] = (-math.inf, math.inf)
    refractory_s: Seconds = 600.0
    limits: Limits = Limits()
    rate: Rate | None = None
    windows: Annotated[tuple[Window, ...], Field(strict=False, max_length=MAX_WINDOWS)] = ()
    deviation: Deviation | None = None
    drift: Drift | None = None
    liveness: Liveness = Liveness()

    def flaws(self) -> Iterator[Flaw]:
        problem = unit_problem(self.quantity, self.unit)
        if problem:
            yield Flaw(("unit",), problem, self.unit, (("quantity",),))
        low, high = self.range
        if low >= high:
            yield Flaw(("range",), "must ascend", list(self.range))
        else:
            yield from self._range_flaws(("limits",), self.limits)
            for index, window in enumerate(self.windows):
                if window.aggregate in _BOUNDED:
                    yield from self._range_flaws(("windows", index), window)
        names = [window.name for window in self.windows]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Flaw(("windows", index, "name"), "must differ from the other windows'", name)
        yield from self._drift_flaws()

    def _range_flaws(self, key: Path, ladders: Limits | Window) -> Iterator[Flaw]:
        """Refuse limits that no reading within the range can reach, or leave again."""
        low, high = self.range
        about: tuple[Path, ...] = (("range",),)
        for side in ("high", "low"):
            for level, limit in getattr(ladders, side).named():
                if not low <= limit <= high:
                    bound = f"must lie within range, {low:.15g} to {high:.15g}"
                    yield Flaw((*key, side, level), bound, limit, about)
        for level, limit in ladders.high.named()[:1]:
            if low <= limit <= high and limit - ladders.deadband <= low:
                bound = (
                    f"must leave values in range below high.{level} - deadband, or it never clears"
                )
                yield Flaw(
                    (*key, "deadband"), bound, ladders.deadband, (*about, (*key, "high", level))
                )
        for level, limit in ladders.low.named()[:1]:
            if low <= limit <= high and limit + ladders.deadband >= high:
                bound = (
                    f"must leave values in range above low.{level} + deadband, or it never clears"
                )
                yield Flaw(
                    (*key, "deadband"), bound, ladders.deadband, (*about, (*key, "low", level))
                )

    def _drift_flaws(self) -> Iterator[Flaw]:
        if self.drift is None:
            return
        about: tuple[Path, ...] = (("deviation",),)
        if self.deviation is None:
            bound = "needs [deviation] beside it, for the running level and sigma"
            yield Flaw(("drift",), bound, None, about)
        elif self.drift.allowance >= self.deviation.clip:
            clip = self.deviation.clip
            bound = f"must be smaller than deviation.clip, {clip:.15g}, or it never adds up"
            yield Flaw(("drift", "allowance"), bound, self.drift.allowance, about)

    def reachable(self, kind: str, absence: Absence) -> int:
        """Return the highest level that a kind of signal can have; limits may be a sensor's own."""
        if kind in ("high", "low"):
            return len(LEVELS)
        ladders: dict[str, list[Ladder]] = {
            "rise": [self.rate.rise] if self.rate else [],
            "fall": [self.rate.fall] if self.rate else [],
            "window": [ladder for window in self.windows for ladder in (window.high, window.low)],
            "deviation": [self.deviation.raise_at] if self.deviation else [],
            "drift": [self.drift.raise_at] if self.drift else [],
        }
        if kind in ladders:
            names = [name for ladder in ladders[kind] for name, _ in ladder.named()]
            return max((level_number(name) for name in names), default=0)
        after, level = self.absent(absence)
        live = self.liveness
        switched = {
            "absence": (after, level),
            "flatline": (live.flat_after_n, live.flat_level),
            "bad": (live.bad_after_n, live.bad_level),
            "spike": (live.spike_at, live.spike_level),
        }
        on, name = switched[kind]
        return level_number(name) if on else 0

    def absent(self, absence: Absence) -> tuple[float, Level]:
        """Return after how many periods a silent sensor is absent (0: never), and the level."""
        live = self.liveness
        after = absence.after if live.absent_after is None else live.absent_after
        return after, live.absent_level or absence.level


def unit_problem(quantity: str, unit: str) -> str | None:
    """Return what is wrong with a unit for a quantity.

    Quantities of a site's own are judged when the rules meet the catalog that declares them.
    """
    known = QUANTITIES.get(quantity)
    if known is None:
        return None
    try:
        conversion(known, unit, known.unit)
    except UnitError:
        return f"must be a unit of {quantity}, such as {known.unit!r}"
    return None

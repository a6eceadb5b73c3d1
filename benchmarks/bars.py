"""The bars: what must be how fast, what would be better still, and what measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks.measure import Measured, Spread

MOST_TOLD = 200
"""Characters that the table shows of what went wrong."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of the table."""

    key: str
    what: str
    bar: float
    stretch: float | None = None
    unit: str
    """Written after a figure."""
    more_is_better: bool = False
    measure: str
    """`module:function` in benchmarks; called without arguments, it returns Measured."""

    def function(self) -> Callable[[], Measured]:
        """Return the measuring function; ImportError or AttributeError if there is none."""
        module, name = self.measure.split(":")
        found: Callable[[], Measured] = getattr(import_module(f"benchmarks.{module}"), name)
        return found

    def bound(self, figure: float | None) -> str:
        """Write a bound of the figure."""
        if figure is None:
            return ""
        return f"{'≥' if self.more_is_better else '≤'} {self.written(figure)}"

    def written(self, figure: float) -> str:
        """Write a figure with its unit."""
        digits = f"{figure:.3g}" if figure < 100 else f"{figure:.0f}"
        return f"{digits} {self.unit}"

    def spread(self, found: Spread) -> str:
        """Write a figure and the range of its turns."""
        if found.low == found.high:
            return self.written(found.median)
        return f"{self.written(found.median)} ({found.low:.3g} to {found.high:.3g})"

    def verdict(self, figure: float) -> str:
        """Say which of the two a figure reaches: stretch, bar or missed."""
        for name, bound in (("stretch", self.stretch), ("bar", self.bar)):
            if bound is None:
                continue
            if figure >= bound if self.more_is_better else figure <= bound:
                return name
        return "missed"


BARS = (
    Bar(
        key="detect",
        what="detect with limits, rate, deviation, drift, liveness; 1M sensors, random order,"
        " over touching one random cache line per reading",
        bar=2.5,
        stretch=1.8,
        unit="×",
        measure="bench_detect:measure_detect",
    ),
    Bar(
        key="window",
        what="the same with a 60 s sliding window of six panes",
        bar=4.0,
        stretch=2.8,
        unit="×",
        measure="bench_window:measure_window",
    ),
    Bar(
        key="pipeline",
        what="whole pipeline, Arrow batches of 64k readings to alert records, 100k sensors,"
        " 0.1 % of readings change a level",
        bar=20,
        stretch=35,
        unit="M readings/s",
        more_is_better=True,
        measure="bench_pipeline:measure_pipeline",
    ),
    Bar(
        key="naive",
        what="a naive Numba loop of the same detectors over ours, 1M sensors",
        bar=4,
        stretch=7,
        unit="×",
        more_is_better=True,
        measure="bench_detect:measure_naive",
    ),
    Bar(
        key="replay",
        what="tocsin replay, Parquet to alert log, 20 M readings, 100k sensors",
        bar=12,
        stretch=25,
        unit="M readings/s",
        more_is_better=True,
        measure="bench_replay:measure_speed",
    ),
    Bar(
        key="memory",
        what="peak memory of that replay beyond the state, flat in the length of history",
        bar=400,
        unit="MB",
        measure="bench_replay:measure_memory",
    ),
    Bar(
        key="warm",
        what="a warm tocsin replay of 1,000 readings, whole process",
        bar=2,
        stretch=1,
        unit="s",
        measure="bench_start:measure_warm_start",
    ),
    Bar(
        key="first",
        what="the first ever run, kernels compiled",
        bar=60,
        stretch=25,
        unit="s",
        measure="bench_start:measure_first_start",
    ),
    Bar(
        key="resolve",
        what="string ids to dense indices, 1M sensors, random order",
        bar=20,
        unit="M ids/s",
        more_is_better=True,
        measure="bench_resolve:measure_resolve",
    ),
)


TUNE_BARS = (
    Bar(
        key="limits",
        what="1,000 settings of limits × deadband × delays over 20 M readings, 100k sensors,"
        " 2 cores, Parquet to steps, over one plain replay of it",
        bar=30,
        stretch=5,
        unit="×",
        measure="bench_tune:measure_limits",
    ),
    Bar(
        key="windows",
        what="16 settings of windows × deviation, no statistic another's, likewise",
        bar=6,
        stretch=3,
        unit="×",
        measure="bench_tune:measure_windows",
    ),
    Bar(
        key="naive",
        what="a naive Numba loop over ours, 16 settings of windows × deviation, readings in memory"
        " to episodes, one core each",
        bar=2,
        stretch=4,
        unit="×",
        more_is_better=True,
        measure="bench_tune:measure_naive",
    ),
    Bar(
        key="polars",
        what="polars over ours, likewise",
        bar=8,
        unit="×",
        more_is_better=True,
        measure="bench_tune:measure_polars",
    ),
    Bar(
        key="report",
        what="report of a history with 10,000 episodes, once it is judged",
        bar=5,
        unit="s",
        measure="bench_tune:measure_report",
    ),
    Bar(
        key="size",
        what="its size",
        bar=5,
        unit="MB",
        measure="bench_tune:measure_size",
    ),
)
"""Of `make bench-tune`."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One bar with what was measured, or why it could not be."""

    bar: Bar
    measured: Measured | None = None
    problem: str = ""

    @property
    def verdict(self) -> str:
        """Say stretch, bar, missed or not measured."""
        if self.measured is None:
            return "not measured"
        return self.bar.verdict(self.measured.figure.median)

    def cells(self) -> list[str]:
        """Return the line of the table."""
        bar, found = self.bar, self.measured
        shown = (bar.spread(found.figure), found.limit) if found else ("–", self.problem)
        return [bar.what, bar.bound(bar.bar), bar.bound(bar.stretch), *shown, self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain JSON values."""
        bar, found = self.bar, self.measured
        line: dict[str, Any] = {
            "key": bar.key,
            "what": bar.what,
            "bar": bar.bar,
            "stretch": bar.stretch,
            "unit": bar.unit,
            "more_is_better": bar.more_is_better,
            "verdict": self.verdict,
        }
        if found is None:
            return {**line, "problem": self.problem}
        spread = {"low": found.figure.low, "high": found.figure.high}
        details = dict(found.details)
        return {
            **line, "measured": found.figure.median, **spread, "limit": found.limit,
            "details": details,
        }  # fmt: skip


def measure(bar: Bar) -> Result:
    """Measure one bar; what goes wrong becomes its problem, so that the others are measured."""
    try:
        return Result(bar=bar, measured=bar.function()())
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        told = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1].strip()}"
        return Result(bar=bar, problem=f"{type(error).__name__}: {told}"[:MOST_TOLD])

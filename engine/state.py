"""All state of a catalog: a few arrays of records sized from the plan, shared by its partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.plan import Plan
from kernels.layout import (
    BIN,
    COLD,
    HOT,
    NEVER,
    PANES,
    SECONDS,
    SIGNAL,
    SOURCE,
)

Array = np.ndarray[Any, Any]

CACHE_LINE = 64


def aligned(n: int, dtype: np.dtype[Any]) -> Array:
    """Return ``n`` zeroed records of which none straddles a cache line that it need not."""
    raw = np.zeros(n * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n * dtype.itemsize].view(dtype)


@dataclass(frozen=True, eq=False)
class State:
    """Records by sensor, window, season bin and source, named as in ``kernels.layout``.

    ``lines`` holds HOT of each sensor, and beside it, where the plan has windows, PANES of the
    sensor's first one: two neighbouring lines of one page, and no table to find the second.
    The arrays have room for the whole catalog, but memory only for the sources that were `reset`
    (or loaded): a process may hold a few partitions of a large catalog.
    """

    plan: Plan
    stride: int
    """Lines of 64 bytes a sensor: 1, or 2 with windows."""
    lines: Array
    cold: Array
    signal: Array
    more: Array
    """PANES of the windows after a sensor's first."""
    seconds: Array
    bins: Array
    source: Array

    @classmethod
    def allocate(cls, plan: Plan) -> State:
        """Return room for the state, all zero; no page of it is touched before its first use."""
        n_sensors, n_sources = plan.catalog.n_sensors, plan.catalog.n_sources
        stride = 2 if plan.params["n_windows"].any() else 1
        n_more = int(plan.more_start[-1])
        return cls(
            plan=plan,
            stride=stride,
            lines=aligned(n_sensors * stride, HOT),
            cold=np.zeros(n_sensors, COLD),
            signal=np.zeros(n_sensors, SIGNAL),
            more=aligned(n_more, PANES),
            seconds=np.zeros(n_sensors * (stride - 1) + n_more, SECONDS),
            bins=np.zeros(max(1, int(plan.season_start[-1])), BIN),
            source=np.zeros(n_sources, SOURCE),
        )

    def reset(self, first_source: int, last_source: int, *, zeroed: bool = False) -> None:
        """Put sources and their sensors into the state before the first record of the log.

        `zeroed` says that nothing was written there yet, so that fewer pages are touched.
        """
        parts = self.of_sources(first_source, last_source)
        for part in () if zeroed else parts.values():
            part.view(np.uint8)[:] = 0
        hot = parts["lines"][:: self.stride]
        hot["last_ms"] = NEVER
        for field in ("last_ms", "below_ms", "episode_ms", "place"):
            parts["source"][field] = NEVER
        self.set_rows(first_source, last_source)

    def set_rows(self, first_source: int, last_source: int) -> None:
        """Give the sensors of a range of sources their rows of the plan's parameters."""
        first, last = self.plan.catalog.sensor_start[[first_source, last_source]].tolist()
        self.hot["row"][first:last] = self.plan.row[first:last]

    def of_sources(self, first_source: int, last_source: int) -> dict[str, Array]:
        """Return views of all records of a range of sources, by name, as a snapshot holds them."""
        n = self.plan.catalog.n_sensors if self.stride == 2 else 0
        ends = [first_source, last_source]
        first, last = self.plan.catalog.sensor_start[ends].tolist()
        more, more_end = self.plan.more_start[[first, last]].tolist()
        season, season_end = self.plan.season_start[[first, last]].tolist()
        return {
            "lines": self.lines[first * self.stride : last * self.stride],
            "cold": self.cold[first:last],
            "signal": self.signal[first:last],
            "more": self.more[more:more_end],
            "seconds": self.seconds[first : last if n else first],
            "more_seconds": self.seconds[n + more : n + more_end],
            "bins": self.bins[season:season_end],
            "source": self.source[first_source:last_source],
        }

    @property
    def hot(self) -> Array:
        """Return HOT of each sensor."""
        return self.lines[:: self.stride]

    @property
    def rings(self) -> Array:
        """Return the lines as PANES."""
        return self.lines.view(PANES)

    @property
    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        names = ("lines", "cold", "signal", "more", "seconds", "bins", "source")
        return {name: getattr(self, name) for name in names}

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all records."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def n_source_bytes(self) -> int:
        """Return the bytes of the records of sources; all others are of sensors."""
        return int(self.source.nbytes)

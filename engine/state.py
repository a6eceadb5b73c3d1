"""All state of a partition: a few arrays of records sized from the plan."""

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
    """

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
        """Return the state before the first record of the log."""
        n_sensors, n_sources = plan.catalog.n_sensors, plan.catalog.n_sources
        stride = 2 if plan.params["n_windows"].any() else 1
        n_more = int(plan.more_start[-1])
        state = cls(
            stride=stride,
            lines=aligned(n_sensors * stride, HOT),
            cold=np.zeros(n_sensors, COLD),
            signal=np.zeros(n_sensors, SIGNAL),
            more=aligned(n_more, PANES),
            seconds=np.zeros(n_sensors * (stride - 1) + n_more, SECONDS),
            bins=np.zeros(max(1, int(plan.season_start[-1])), BIN),
            source=np.zeros(n_sources, SOURCE),
        )
        state.hot["last_ms"] = NEVER
        state.hot["row"] = plan.row
        for field in ("last_ms", "below_ms", "episode_ms", "place"):
            state.source[field] = NEVER
        return state

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
        """Return the arrays by name, as a snapshot holds them."""
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

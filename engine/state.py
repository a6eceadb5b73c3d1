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
    SIGNAL,
    SOURCE,
)

Array = np.ndarray[Any, Any]

CACHE_LINE = 128
"""Two lines of 64 bytes, which is what a ring of panes fills."""


def aligned(n: int, dtype: np.dtype[Any]) -> Array:
    """Return ``n`` zeroed records of which none straddles a cache line that it need not."""
    raw = np.zeros(n * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n * dtype.itemsize].view(dtype)


@dataclass(frozen=True, eq=False)
class State:
    """Records by sensor, window, season bin and source, named as in ``kernels.layout``."""

    hot: Array
    cold: Array
    signal: Array
    panes: Array
    bins: Array
    source: Array

    @classmethod
    def allocate(cls, plan: Plan) -> State:
        """Return the state before the first record of the log."""
        n_sensors, n_sources = plan.catalog.n_sensors, plan.catalog.n_sources
        state = cls(
            hot=aligned(n_sensors, HOT),
            cold=np.zeros(n_sensors, COLD),
            signal=np.zeros(n_sensors, SIGNAL),
            panes=aligned(int(plan.window_start[-1]), PANES),
            bins=np.zeros(max(1, int(plan.season_start[-1])), BIN),
            source=np.zeros(n_sources, SOURCE),
        )
        state.hot["last_ms"] = NEVER
        state.hot["row"] = plan.row
        for field in ("last_ms", "below_ms", "episode_ms", "place"):
            state.source[field] = NEVER
        return state

    @property
    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, as a snapshot holds them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all records."""
        return sum(array.nbytes for array in self.arrays.values())

"""Steps: transitions in their short form, of which millions fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.layout import STEP

Array = np.ndarray[Any, Any]


def steps_of(transitions: Array, setting: int = 0) -> Array:
    """Return (T,) STEP of (T,) TRANSITION, in the same order."""
    steps = np.zeros(len(transitions), STEP)
    for name in STEP.names or ():
        steps[name] = setting if name == "setting" else transitions[name]
    return steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """What many settings made of one history."""

    n: int
    """How many settings."""
    common: Array
    """STEP of sources that no setting moves: they are every setting's. Ordered by position."""
    own: Array
    """STEP of all other sources, setting after setting, each ordered by position."""
    starts: Array
    """(n + 1,) int64, where a setting's own steps begin"""
    first_ms: int | None
    """Event time of the first reading; None of a history without any."""
    last_ms: int | None
    """Newest event time."""
    n_readings: int

    def of(self, setting: int) -> Array:
        """Return all steps of a setting, ordered by position; those of a source as they came."""
        own = self.own[self.starts[setting] : self.starts[setting + 1]]
        steps = np.concatenate([self.common, own])
        steps["setting"] = setting
        return steps[np.argsort(steps["position"], kind="stable")]

"""Steps: transitions in their short form, of which millions fit into memory."""

from __future__ import annotations

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

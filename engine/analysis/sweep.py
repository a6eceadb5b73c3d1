"""Many settings over one history."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from engine.analysis.past import Past, judge
from engine.analysis.steps import Tried, steps_of
from engine.rules import Rules
from kernels.layout import STEP


class Sweep:
    """A history that is read once, under which any number of settings may be tried."""

    def __init__(self, past: Past, *, threads: int = 1) -> None:
        self.past, self.threads = past, threads

    def try_all(
        self, settings: Sequence[Rules], *, on_progress: Callable[[float], None] | None = None
    ) -> Tried:
        """Return what each of the settings makes of the history, exactly as a replay would."""
        found = []
        first_ms = last_ms = None
        n_readings = 0
        for number, rules in enumerate(settings):
            judged = judge(self.past, rules, threads=self.threads)
            found.append(steps_of(judged.transitions, number))
            first_ms, last_ms, n_readings = judged.first_ms, judged.last_ms, judged.n_readings
            if on_progress is not None:
                on_progress((number + 1) / len(settings))
        starts = np.zeros(len(settings) + 1, np.int64)
        np.cumsum([len(steps) for steps in found], out=starts[1:])
        return Tried(
            n=len(settings),
            common=np.zeros(0, STEP),
            own=np.concatenate([np.zeros(0, STEP), *found]),
            starts=starts,
            first_ms=first_ms,
            last_ms=last_ms,
            n_readings=n_readings,
        )

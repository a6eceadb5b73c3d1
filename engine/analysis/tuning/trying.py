"""Settings are tried some at a time, and each time what came out is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine.analysis.steps import Tried
from engine.analysis.sweep import Sweep
from engine.analysis.tuning.settings import Refused, Settings, Values
from engine.analysis.tuning.trials import BASELINE, Trials
from engine.rules import Rules

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST_N, _MOST_N = 16, 1024
_CHUNK_S = 20.0
"""About how long what was done may stay unwritten."""
_MOST_STEPS = 32 << 20
"""Alerts of the settings of a chunk, 32 bytes each."""


class Interrupted(Exception):
    """Somebody asked to stop; what was done is kept."""


class Measure(Protocol):
    """Turns what settings made of a history into one row of figures each."""

    def __call__(self, tried: Tried) -> pa.Table:
        """Return a table of as many rows as there are settings."""
        ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is."""

    done: int
    """Settings that were tried or refused."""
    total: int
    share: float
    refused: int
    phase: str


class Trying:
    """Evaluates settings over one history and adds them to the trials."""

    def __init__(
        self,
        sweep: Sweep,
        settings: Settings,
        measure: Measure,
        trials: Trials,
        *,
        flush: Callable[[], None] = lambda: None,
        on_progress: Callable[[Progress], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.sweep, self.settings, self.measure, self.trials = sweep, settings, measure, trials
        self.total = 0
        self.newest: Tried | None = None
        """What the newest settings gave."""
        self._flush, self._on_progress, self._stopped = flush, on_progress, stopped
        self._chunk_n = _FIRST_N
        self._refused = sum(refusal is not None for refusal in trials.refused)

    def take(self, values: Sequence[Values], origin: str, batch: int) -> None:
        """Try what was not tried yet; Interrupted between two chunks, or within one."""
        pending = [each for each in dict.fromkeys(values) if each not in self.trials]
        while pending:
            chunk, pending = pending[: self._chunk_n], pending[self._chunk_n :]
            began = time.monotonic()
            self._chunk(chunk, origin, batch)
            took_s = max(time.monotonic() - began, 1e-3)
            wanted = int(len(chunk) * _CHUNK_S / took_s)
            self._chunk_n = max(1, min(wanted, 4 * self._chunk_n, _MOST_N, self._fitting()))
        self._ask(0, 1, origin)

    def _fitting(self) -> int:
        """Return how many settings' alerts fit into memory, going by the newest."""
        if self.newest is None:
            return _MOST_N
        return _MOST_STEPS // max(1, len(self.newest.own) // max(1, self.newest.n))

    def _chunk(self, chunk: Sequence[Values], origin: str, batch: int) -> None:
        made: list[Rules] = []
        outcomes: list[tuple[str | None, str | None]] = []
        for values in chunk:
            try:
                made.append(self.settings.rules_of(values))
                outcomes.append((made[-1].digest, None))
            except Refused as refusal:
                outcomes.append((None, str(refusal)))
        self._refused += len(chunk) - len(made)
        self._ask(0, len(chunk), origin)
        if made:
            tried = self.sweep.try_all(
                made, on_progress=lambda share: self._ask(share, len(chunk), origin)
            )
            self.newest = tried
            figures = self.measure(tried)
        else:
            figures = self.trials.figures().slice(0, 0)
        self.trials.add(chunk, origin, batch, outcomes, figures)
        self._flush()

    def _ask(self, share: float, n: int, origin: str) -> None:
        if self._stopped():
            raise Interrupted
        if self._on_progress is not None:
            done = len(self.trials)
            part = (done + share * n) / max(self.total, done, 1)
            self._on_progress(
                Progress(
                    done=done,
                    total=max(self.total, done),
                    # the first of all settings is there once the history is read
                    share=share if origin == BASELINE else min(1.0, part),
                    refused=self._refused,
                    phase=origin,
                )
            )

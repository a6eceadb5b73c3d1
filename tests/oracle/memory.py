"""What detectors remember of one sensor: latches, season bins, panes of windows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Latch:
    """One limit of one side; the timer of its pending change, or None if none is pending."""

    closed: bool = False
    age_ms: int | None = None


@dataclass
class Bin:
    """One time of day (or of week) of a seasonal profile."""

    mean: float = 0.0
    deviation: float = 0.0
    n: int = 0


@dataclass
class Pane:
    """A slice of event time; everything but the count is float32 and relative to a reference."""

    count: int = 0
    total: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf


@dataclass
class Window:
    """Panes by their number since the epoch; where the newest stands in the ring; two ladders."""

    panes: dict[int, Pane] = field(default_factory=dict)
    newest: int = -1
    place: int = 0
    reference: float = 0.0
    level_high: int = 0
    level_low: int = 0
    aggregate: float = 0.0

"""Pauses between tries of what others refuse or can't do for now."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses between tries: full jitter below a bound that doubles up to a cap."""

    base_s: float = 0.05
    cap_s: float = 5.0
    permanent_s: float = 15.0
    """Where somebody must change something first; jitter takes up to half of it."""

    def pause_s(self, tries: int, *, permanent: bool) -> float:
        """Return how long to wait after so many tries in vain, at least one."""
        if permanent:
            return self.permanent_s * random.uniform(0.5, 1.0)
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(tries, 30)))

"""Rate of rise or fall over a window, from two anchors half a window apart.

An anchor is a good reading that is remembered; the older one is half a window to a window old (or
one reading old, where readings are sparser), so a rate costs O(1) and no ring.

State    HOT.anchor, older, anchor_age_ms, older_age_ms; COLD.n_rate
Oracle   tests.oracle
"""

import numpy as np

from kernels.jit import inlined, step
from kernels.ladder import climb
from kernels.layout import MAX_AGE_MS


@step
def age_anchors(dt_ms, hot):
    """Let both anchors grow older by ``dt_ms``, saturating."""
    hot.anchor_age_ms = min(np.int64(hot.anchor_age_ms) + dt_ms, MAX_AGE_MS)
    hot.older_age_ms = min(np.int64(hot.older_age_ms) + dt_ms, MAX_AGE_MS)


@step
def rate_level(rate, limits, deadband, previous, confirmed):
    """Return the level of one direction; a level appears only once it is confirmed."""
    if previous == 0 and not confirmed:
        return 0
    return climb(rate, limits, 1.0, deadband, previous)


@inlined
def turn_anchors(v, x, hot):
    """Make the reading ``v``, ``x`` above the anchor, the anchor; what is relative moves along."""
    hot.older = -x
    hot.older_age_ms = hot.anchor_age_ms
    hot.mean = hot.mean - x
    hot.last = 0.0
    hot.anchor = v
    hot.anchor_age_ms = 0

"""Ladders: the level of a statistic against up to four ascending limits with a deadband."""

from kernels.jit import step
from kernels.layout import N_LEVELS


@step
def climb(statistic, limits, scale, deadband, previous):
    """Return the level of ``statistic`` on ``limits × scale``, with ``previous`` held by deadband.

    ``limits`` (4,) ascend, +inf for a missing level; ``scale`` > 0 lets limits be in sigmas while
    the statistic is in units; ``deadband`` is scaled likewise.
    """
    level = 0
    for k in range(N_LEVELS):
        if statistic >= limits[k] * scale:
            level = k + 1
    for k in range(previous - 1, level - 1, -1):
        if statistic >= (limits[k] - deadband) * scale:
            return k + 1
    return level

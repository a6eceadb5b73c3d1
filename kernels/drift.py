"""Drift: a two-sided CUSUM of the clipped residual, capped so that it recovers.

Source   Page, Continuous inspection schemes, Biometrika 41 (1954)
State    HOT.above, HOT.below
Oracle   tests.oracle
"""

from kernels.jit import inlined


@inlined
def accumulate_drift(total, c, allowance, cap):
    """Return one side's CUSUM after a residual ``c`` on that side; all in the reading's unit."""
    return min(cap, max(0.0, total + c - allowance))

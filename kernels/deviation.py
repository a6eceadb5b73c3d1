"""Deviation from a running level: a robust z-score, against the sensor's own past or its season.

Residuals are clipped before they are learnt, so that an outlier neither moves the level nor widens
the scale by much (a Huber-type estimate); the scale is the mean absolute residual.

Source   Huber, Robust Statistics (1981), ch. 4; EWMA control charts, NIST/SEMATECH handbook 6.3.2.4
State    HOT.mean, deviation, n (or one BIN); COLD.n_deviation
Oracle   tests.oracle
"""

from kernels.jit import inlined, step


@inlined
def clipped(r, limit):
    """Return ``r`` held within ``± limit``."""
    return min(max(r, -limit), limit)


@inlined
def learning_rate(n, memory_n, alpha):
    """Return 1/n while the memory fills, its inverse length after."""
    return 1.0 / n if n < memory_n else alpha


@step
def season_bin(event_ms, utc_offset_ms, season_ms, season_bins):
    """Return the bin of the day or week that an event time falls into, at the site's UTC offset."""
    return (event_ms + utc_offset_ms) % season_ms * season_bins // season_ms

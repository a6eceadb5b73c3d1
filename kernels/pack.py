"""Signals of one sensor packed into one word, three bits a kind."""

import numpy as np

from kernels.jit import step, typed_step
from kernels.layout import HIGH, LOW, N_KINDS


@typed_step("int64(int64, int64)")
def level_of(levels, kind):
    """Return the level of one kind."""
    return np.int64(levels) >> (3 * kind) & 7


@typed_step("int64(int64, int64, int64)")
def with_level(levels, kind, level):
    """Return the word with the level of one kind replaced."""
    return np.int64(levels) & ~(7 << (3 * kind)) | np.int64(level) << (3 * kind)


@step
def strongest(levels, percent):
    """Return (kind, percent) of the strongest signal, the lower kind among equals; HIGH if none.

    ``percent`` (N_KINDS, 5) uint8 severity × weights of each kind and level. HIGH and LOW are the
    lowest kinds, so a limit explains an alert before anything subtler of the same weight does.
    """
    best_kind = HIGH
    best = -1
    for kind in range(N_KINDS):
        level = level_of(levels, kind)
        if level and np.int64(percent[kind, level]) > best:
            best = np.int64(percent[kind, level])
            best_kind = kind
    return best_kind, max(best, 0)


@step
def limit_level(levels):
    """Return the highest closed limit of the sensor, either side."""
    return max(level_of(levels, HIGH), level_of(levels, LOW))

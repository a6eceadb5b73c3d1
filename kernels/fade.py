"""Fading of remembered severity: a half-life in 64 steps, from a table.

So no libm decides an alert, and every machine finds the same.
"""

import numpy as np

from kernels.jit import step
from kernels.layout import FADE, FADE_STEPS

LEAST_DUE_MS = 1000
MOST_HALVINGS = 60
"""After as many half-lives nothing is left of a severity."""


@step
def faded(held, held_s, now_s, half_life_ms):
    """Return what remains at ``now_s`` of a severity that began to fade at ``held_s``."""
    steps = max(now_s - np.int64(held_s), 0) * 1000 * FADE_STEPS // half_life_ms
    halvings = steps // FADE_STEPS
    if halvings > MOST_HALVINGS:
        return 0.0
    return np.float64(held) * FADE[steps % FADE_STEPS] / np.float64(np.int64(1) << halvings)


@step
def fade_due_ms(score, target, half_life_ms):
    """Return after how long at least a fading ``score`` can first reach ``target``, both positive.

    1 − Π(1 − a·f) is concave in the fade factor f and 0 at 0, so the score at f is at least f times
    the score now; and no contribution fades faster than ``half_life_ms``.
    """
    halvings = 0
    rest = score
    while halvings < MOST_HALVINGS and rest * 0.5 >= target:
        rest *= 0.5
        halvings += 1
    k = 0
    while k + 1 < FADE_STEPS and rest * FADE[k + 1] >= target:
        k += 1
    steps = halvings * FADE_STEPS + k
    return max(LEAST_DUE_MS, steps * half_life_ms // FADE_STEPS)

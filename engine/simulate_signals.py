"""How the sensors of the generated day read when nothing happens: level, day, wander and noise.

Only sums and products of uniform random numbers: no function of a maths library, whose last digit
differs from machine to machine, decides a value that is rounded and written.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.int64]
"""Seconds of the day, ascending."""
Values = NDArray[np.float64]
Random = np.random.Generator
Points = tuple[tuple[str, float], ...]
"""Values at times of the day, such as `(("09:30", 0), ("10:00", 22))`."""

DAY_S = 86_400


def random_of(seed: int, name: str, purpose: int) -> Random:
    """Return the random numbers of one thing, which don't depend on those of any other."""
    words = [seed, zlib.crc32(name.encode()), purpose]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def noise(random: Random, n: int) -> Values:
    """Return nearly normal numbers, mean 0 and deviation 1: twelve uniform ones added up."""
    total = random.random(n)
    for _ in range(11):
        total += random.random(n)
    return total - 6.0


def seconds(clock: str) -> int:
    """Return the second of the day of `09:30` or `09:30:15`; `24:00` is its end."""
    parts = [int(part) for part in clock.split(":")]
    hours, minutes, rest = (*parts, 0)[:3]
    return hours * 3600 + minutes * 60 + rest


def _smooth(t: Seconds, at: NDArray[Any], value: Values) -> Values:
    """Go through values at ascending times without corners; constant before and after."""
    place = np.clip(np.searchsorted(at, t, side="right") - 1, 0, len(at) - 2)
    share = np.clip((t - at[place]) / (at[place + 1] - at[place]), 0.0, 1.0)
    share = share * share * (3.0 - 2.0 * share)
    return value[place] + (value[place + 1] - value[place]) * share


def through(t: Seconds, points: Points) -> Values:
    """Go through points of the day without corners; constant before the first, after the last."""
    at = np.array([seconds(clock) for clock, _ in points])
    return _smooth(t, at, np.array([value for _, value in points], np.float64))


def wander(random: Random, t: Seconds, every_s: int) -> Values:
    """Wander about 0 with deviation 1, a new direction every so many seconds."""
    at = np.arange(0, DAY_S + 2 * every_s, every_s)
    return _smooth(t, at, noise(random, len(at)))


def _between(random: Random, low: float, high: float) -> float:
    return low + (high - low) * random.random()


def _methane(random: Random, t: Seconds) -> Values:
    level = _between(random, 0.8, 2.6)
    return level + 0.35 * wander(random, t, 2400) + 0.15 * noise(random, len(t))


_DEMAND: Points = (
    ("00:00", 0), ("05:00", 0), ("07:20", 14), ("09:30", 6), ("11:40", 16), ("14:00", 7),
    ("18:20", 20), ("21:30", 6), ("24:00", 0),
)  # fmt: skip


def _pressure(random: Random, t: Seconds) -> Values:
    level, demand = _between(random, 292, 308), _between(random, 0.8, 1.2)
    quiet = level - demand * through(t, _DEMAND)
    return quiet + 1.2 * wander(random, t, 1800) + 0.4 * noise(random, len(t))


_WORK: Points = (
    ("06:30", 0), ("08:00", 1), ("11:40", 1), ("12:20", 0.4), ("13:20", 1), ("17:30", 1),
    ("19:00", 0),
)  # fmt: skip


def _smoke(random: Random, t: Seconds) -> Values:
    dust = _between(random, 0.1, 0.7) * through(t, _WORK)
    return 0.15 + dust + 0.1 * wander(random, t, 900) + 0.04 * noise(random, len(t))


_SUN: Points = (("00:00", 1.5), ("05:30", 0), ("15:00", 8), ("20:00", 4), ("24:00", 1.5))


def _temperature(random: Random, t: Seconds) -> Values:
    machines = _between(random, 0.0, 3.0) * through(t, _WORK)
    quiet = _between(random, 24.5, 27) + through(t, _SUN) + machines
    return quiet + 0.4 * wander(random, t, 1500) + 0.08 * noise(random, len(t))


def _gas(random: Random, t: Seconds) -> Values:
    level = _between(random, 0.6, 1.6)
    return level + 0.25 * wander(random, t, 2400) + 0.12 * noise(random, len(t))


_COOKING: Points = (
    ("06:00", 0), ("07:00", 0.3), ("08:30", 0.1), ("10:30", 0.2), ("11:50", 1), ("13:00", 0.8),
    ("14:15", 0.1), ("16:45", 0.2), ("18:30", 1), ("20:00", 0.8), ("21:45", 0.05), ("23:00", 0),
)  # fmt: skip


def _kitchen_monoxide(random: Random, t: Seconds) -> Values:
    stove = _between(random, 8, 20) * through(t, _COOKING) * (1.0 + 0.35 * wander(random, t, 400))
    return 2.0 + stove + 0.8 * noise(random, len(t))


def _kitchen_gas(random: Random, t: Seconds) -> Values:
    burner = _between(random, 0.8, 2.2) * through(t, _COOKING)
    quiet = 0.5 + burner * (1.0 + 0.4 * wander(random, t, 300))
    return quiet + 0.12 * noise(random, len(t))


_VISITORS: Points = (
    ("06:30", 0), ("09:00", 0.45), ("10:45", 1), ("13:00", 0.6), ("16:10", 0.95), ("18:30", 0.45),
    ("21:00", 0.2), ("22:00", 0),
)  # fmt: skip
_SHOPPERS: Points = (
    ("09:30", 0), ("10:30", 0.3), ("12:20", 0.75), ("14:30", 0.5), ("18:45", 1), ("20:30", 0.8),
    ("22:15", 0),
)  # fmt: skip
GATE_M2, HALL_M2 = 240.0, 600.0


def _crowd(day: Points, most: float, area_m2: float) -> Callable[[Random, Seconds], Values]:
    """Return people per square metre; times its area, the people there."""

    def density(random: Random, t: Seconds) -> Values:
        busy = _between(random, 0.6 * most, most) * through(t, day)
        rough = 1.0 + 0.08 * wander(random, t, 240) + 0.04 * noise(random, len(t))
        return busy * rough * area_m2

    return density


def _occupancy(random: Random, t: Seconds) -> Values:
    inside: Points = (
        ("06:30", 0), ("11:00", 52), ("13:00", 60), ("16:30", 68), ("19:00", 34), ("22:00", 0),
    )  # fmt: skip
    return through(t, inside) + 0.15 * noise(random, len(t))


def _rain(random: Random, t: Seconds) -> Values:
    # the tipping bucket counts now and then without rain: wind, dew
    return np.where(random.random(len(t)) < 0.004, 0.2, 0.0)


def _level(random: Random, t: Seconds) -> Values:
    return 1.0 + 0.3 * wander(random, t, 1800) + 0.2 * noise(random, len(t))


def _permit(random: Random, t: Seconds) -> Values:
    return np.zeros(len(t))


NORMAL: dict[tuple[str, str], Callable[[Random, Seconds], Values]] = {
    ("gas_well", "methane"): _methane,
    ("gas_well", "pressure"): _pressure,
    ("works", "permit"): _permit,
    ("workshop", "smoke"): _smoke,
    ("workshop", "temperature"): _temperature,
    ("workshop", "combustible_gas"): _gas,
    ("kitchen", "carbon_monoxide"): _kitchen_monoxide,
    ("kitchen", "combustible_gas"): _kitchen_gas,
    ("scenic_gate", "crowd_count"): _crowd(_VISITORS, 2.1, GATE_M2),
    ("scenic_gate", "crowd_density"): _crowd(_VISITORS, 2.1, 1.0),
    ("mall", "crowd_count"): _crowd(_SHOPPERS, 1.6, HALL_M2),
    ("mall", "crowd_density"): _crowd(_SHOPPERS, 1.6, 1.0),
    ("scenic_area", "occupancy"): _occupancy,
    ("rain_gauge", "rain"): _rain,
    ("underpass", "level"): _level,
}
"""By the category of the source and the quantity."""

RESOLUTION = {
    "methane": 0.1, "pressure": 0.1, "permit": 1.0, "smoke": 0.05, "temperature": 0.1,
    "combustible_gas": 0.1, "carbon_monoxide": 1.0, "crowd_count": 1.0, "crowd_density": 0.05,
    "occupancy": 0.1, "rain": 0.2, "level": 0.5,
}  # fmt: skip
"""The least step of an instrument, in the sensor's unit."""
_STEPS_A_UNIT = {quantity: round(1 / step, 6) for quantity, step in RESOLUTION.items()}


def as_read(quantity: str, values: Values) -> Values:
    """Return what the instrument shows: whole steps, nothing below zero."""
    steps = _STEPS_A_UNIT[quantity]
    return np.maximum(np.rint(values * steps), 0.0) / steps

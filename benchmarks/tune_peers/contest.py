"""What all contestants are given and give: readings in memory, sixteen settings, episodes.

The rules are few, so that each contestant can keep them: high limits with deadband and delays, the
mean of a window, the deviation from a running level. One sensor a source, and neither weights nor
holds: a source's level is the highest of what its sensor's three detectors say, reading by reading.
An episode begins where it rises from normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.workloads import Feed, city
from engine.plan import compile_plan
from engine.readings import Readings
from engine.rules import Rules

Array = np.ndarray[Any, Any]

RULES = """
version = 1

[levels]
hold_s = 0

[fusion]
weights = { default = 0 }

[absence]
after = 0

[profiles.methane]
unit = "%LEL"
range = [0, 100]
refractory_s = 0

[profiles.methane.limits]
high = { blue = 20, yellow = 30, orange = 40, red = 50 }
deadband = 1
on_delay_s = 5
off_delay_s = 5

[[profiles.methane.windows]]
name = "mean"
length_s = 60
panes = 6
aggregate = "mean"
high = { blue = 15, yellow = 25 }
deadband = 1
min_n = 3

[profiles.methane.deviation]
raise_at = { blue = 8, yellow = 16 }
deadband = 1
memory_n = 64
warmup_n = 32
min_sigma = 0.05
confirm_n = 2

[profiles.methane.liveness]
bad_after_n = 0

[[rules]]
name = "blue"
any = ["methane.window >= blue", "methane.deviation >= blue"]
level = "blue"

[[rules]]
name = "yellow"
any = ["methane.window >= yellow", "methane.deviation >= yellow"]
level = "yellow"
"""
INCIDENTS = 0.00002
"""Share of readings with which an incident begins: as in `bench_replay`."""

EPISODE = np.dtype(
    [("setting", "<i4"), ("sensor", "<i4"), ("start_ms", "<i8"), ("peak", "<i4")], align=True
)


@dataclass(frozen=True)
class Asked:
    """What a setting asks of readings, for queries: all they need to find where episodes begin.

    Delays are the same for all levels of limits, so only the lowest level of each detector counts.
    """

    length_ms: int
    min_n: int
    window: tuple[float, float]
    """The lowest limit of the window's mean, and where it clears."""
    memory_n: int
    warmup_n: int
    least: float
    """The least scale of a deviation: a mean absolute residual."""
    z: tuple[float, float]
    """In mean absolute residuals."""
    confirm_n: int
    limit: tuple[float, float]
    on_ms: int
    off_ms: int


@dataclass(frozen=True)
class Contest:
    """A history in memory, in the log's order, and the settings that it is tried under."""

    readings: Readings
    n_sensors: int
    settings: tuple[Rules, ...]

    @classmethod
    def of(cls, n_readings: int, n_sensors: int, settings: Sequence[Rules]) -> Contest:
        """Return the history of a seeded feed."""
        readings = Feed(n_sensors, incidents=INCIDENTS).batch(n_readings)
        return cls(readings, n_sensors, tuple(settings))

    @cached_property
    def catalog(self) -> Any:
        """The city, one sensor to a source."""
        return city(self.n_sensors, 1)

    def asked(self) -> list[Asked]:
        """Return what each setting asks."""
        found = []
        for rules in self.settings:
            plan = compile_plan(self.catalog, rules)
            row, (window,) = plan.params[plan.row[0]], plan.window_params
            asked = Asked(
                length_ms=int(window["pane_ms"] * window["n_panes"]),
                min_n=int(window["min_n"]),
                window=_turns(window["high"], window["deadband"]),
                memory_n=int(row["memory_n"]),
                warmup_n=int(row["warmup_n"]),
                least=float(row["min_deviation"]),
                z=_turns(row["z"], row["z_deadband"]),
                confirm_n=int(row["deviation_confirm_n"]),
                limit=_turns(row["high"], row["deadband"]),
                on_ms=int(row["on_ms"][0]),
                off_ms=int(row["off_ms"][0]),
            )
            found.append(asked)
        return found


def _turns(limits: Array, deadband: float) -> tuple[float, float]:
    return float(limits[0]), float(limits[0] - deadband)


def episodes_of(setting: Any, sensor: Any, start_ms: Any, peak: Any = 0) -> Array:
    """Return (E,) EPISODE of columns, by setting, sensor and start."""
    found = np.zeros(len(start_ms), EPISODE)
    found["setting"], found["sensor"] = setting, sensor
    found["start_ms"], found["peak"] = start_ms, peak
    return found[np.lexsort((found["start_ms"], found["sensor"], found["setting"]))]


def differing(one: Array, other: Array, *names: str) -> float:
    """Return the share of the episodes of either that the other does not have, by some fields."""
    mine, theirs = (set(found[list(names)].tolist()) for found in (one, other))
    return len(mine ^ theirs) / max(1, len(mine | theirs))

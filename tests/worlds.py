"""Random plans and logs, small and mean: limits near the values, short delays, many equal times.

Everything is drawn from a ``random.Random``: one that hypothesis steers and shrinks (``worlds()``),
or a seeded one for the corpus (``world(Random(seed))``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kernels.layout import (
    ACKNOWLEDGE,
    CONTEXT,
    COUNT,
    FAR_FUTURE_MS,
    MAX_EVENT_MS,
    N_KINDS,
    N_LEVELS,
    RANGE,
    SIGNAL_RULE,
    STD,
    SUM,
    TERM,
    TICK,
    UNKNOWN,
)
from tests.oracle import Record
from tests.plans import (
    DAY_MS,
    NO_LOW,
    NONE,
    START_MS,
    category_row,
    make_plan,
    params_row,
    window_row,
)

WEEK_MS = 7 * DAY_MS


@dataclass
class World:
    """A plan, and a log for it."""

    plan: SimpleNamespace
    records: list[Record]


# Random rows


def some_limits(rng: Random, base: float, step: float, missing: float = np.inf) -> list[float]:
    """Draw up to four limits that leave ``base`` in whole steps; a negative step descends."""
    limits, at = [], base
    for _ in range(N_LEVELS):
        at += step * rng.randint(1, 2)
        limits.append(at if rng.random() < 0.75 else missing)
    return limits


def limits_fields(rng: Random, base: float) -> dict[str, Any]:
    """Draw limits around a base, with delays of a few readings."""
    return {
        "high": some_limits(rng, base, 1.0) if rng.random() < 0.8 else NONE,
        "low": some_limits(rng, base, -1.0, -np.inf) if rng.random() < 0.5 else NO_LOW,
        "deadband": rng.choice([0.0, 0.5, 1.0]),
        "on_ms": [rng.choice([0, 0, 1000, 3000]) for _ in range(N_LEVELS)],
        "off_ms": [rng.choice([0, 1000, 3000]) for _ in range(N_LEVELS)],
        "latching": int(rng.random() < 0.4),
    }


def rate_fields(rng: Random) -> dict[str, Any]:
    """Draw rate limits of about a unit a second."""
    return {
        "half_ms": rng.choice([1, 500, 1000, 4000]),
        "rise": some_limits(rng, 0.0, rng.choice([0.0005, 0.001])),
        "fall": some_limits(rng, 0.0, 0.001) if rng.random() < 0.7 else NONE,
        "rate_deadband": rng.choice([0.0, 0.0002]),
        "rate_confirm_n": rng.randint(0, 3),
    }


def deviation_fields(rng: Random) -> dict[str, Any]:
    """Draw a baseline that warms up within a few readings, seasonal or not."""
    memory_n = rng.choice([1, 4, 16, 100])
    return {
        "memory_n": memory_n,
        "warmup_n": min(memory_n, rng.choice([0, 1, 3, 6])),
        "z": some_limits(rng, 0.0, rng.choice([0.5, 1.5])),
        "z_deadband": rng.choice([0.0, 0.4]),
        "clip": rng.choice([1.0, 3.0, 10.0]),
        "min_deviation": rng.choice([0.01, 0.3, 1.0]),
        "deviation_confirm_n": rng.randint(0, 2),
        "season_bins": rng.choice([0, 0, 24]),
        "season_ms": rng.choice([DAY_MS, WEEK_MS, 4000]),
        "utc_offset_ms": rng.choice([0, 8, -5]) * 3_600_000,
    }


def drift_fields(rng: Random) -> dict[str, Any]:
    """Draw CUSUM limits that a few readings reach; needs a baseline besides."""
    return {
        "drift": some_limits(rng, 0.0, rng.choice([1.0, 3.0])),
        "drift_deadband": rng.choice([0.0, 0.5]),
        "allowance": rng.choice([0.0, 0.5]),
    }


def liveness_fields(rng: Random) -> dict[str, Any]:
    """Draw short runs and small jumps."""
    return {
        "absence_level": rng.randint(1, 4),
        "flat_after_n": rng.choice([0, 1, 3]),
        "flat_level": rng.randint(1, 4),
        "bad_after_n": rng.choice([0, 1, 3]),
        "bad_level": rng.randint(1, 4),
        "spike_at": rng.choice([np.inf, 1.0, 3.0]),
        "spike_level": rng.randint(1, 4),
        "refractory_ms": rng.choice([0, 500, 1000, 5000]),
    }


def random_window(rng: Random, base: float) -> np.ndarray:
    """Draw a window whose limits are near what its aggregate gives."""
    aggregate = rng.randrange(7)
    centre, step = base, 1.0
    if aggregate in (STD, RANGE):
        centre, step = 0.0, 0.5
    elif aggregate == COUNT:
        centre, step = 0.0, 2.0
    elif aggregate == SUM:
        centre = base * rng.randint(1, 3)
    return window_row(
        pane_ms=rng.choice([1, 500, 1000, 7000]),
        n_panes=rng.randint(2, 8),
        aggregate=aggregate,
        min_n=rng.choice([0, 1, 2, 4]),
        high=some_limits(rng, centre, step),
        low=some_limits(rng, centre, -step, -np.inf) if rng.random() < 0.4 else NO_LOW,
        deadband=rng.choice([0.0, 0.5]),
    )


def random_percent(rng: Random) -> list[list[int]]:
    """Draw a row of percents: ascending by level, some kinds without weight."""
    weights = [rng.choice([1.0, 1.0, 0.8, 0.5, 0.0]) for _ in range(N_KINDS)]
    return [[round(25 * level * weight) for level in range(N_LEVELS + 1)] for weight in weights]


# Values and times

BASES = (0.0, 20.0, 101_325.0)


def random_value(rng: Random, base: float) -> float:
    """Draw a value near the base: on a coarse grid (so that limits are met exactly), or noisy."""
    kind = rng.random()
    if kind < 0.45:
        return base + rng.randint(-8, 10) * 0.5
    if kind < 0.7:
        return base
    if kind < 0.95:
        return base + rng.randint(-200, 200) * 0.01
    return base + rng.choice([-1e4, 1e6, 0.001, -0.001])


def bad_value(rng: Random) -> float:
    """Draw a value that no detector takes (the ranges of random rows end before 1e9)."""
    return rng.choice([np.nan, np.inf, -np.inf, 1e9, -1e300])


def bad_record(rng: Random, sensor: int, now_ms: int, base: float) -> Record:
    """Draw a reading that is bad by its value, by its quality alone, or by both."""
    if rng.random() < 0.4:
        return Record(sensor, now_ms, random_value(rng, base), rng.choice([1, 255]))
    return Record(sensor, now_ms, bad_value(rng), rng.choice([0, 0, 0, 3]))


def random_step_ms(rng: Random) -> int:
    """Draw how far event time moves from one record to the next: often not at all."""
    if rng.random() < 0.985:
        return rng.choice([0, 0, 1, 250, 500, 1000, 1000, 3000])
    return rng.choice([60_000, 3_600_000, DAY_MS, 90 * DAY_MS])


MEAN_TIMES = (-1, 0, -(2**63), 2**63 - 1, MAX_EVENT_MS, MAX_EVENT_MS - 1, 2**62)
"""Times that must be refused, or bounded by what is far ahead and far behind."""


def random_series(rng: Random, base: float, n: int, ticks: float = 0.05) -> list[Record]:
    """Draw the log of one sensor."""
    now_ms = START_MS + rng.randint(0, 2000)
    records = []
    value = base
    for _ in range(n):
        now_ms += random_step_ms(rng)
        kind = rng.random()
        if kind < ticks:
            records.append(Record(TICK, now_ms))
        elif kind < ticks + 0.03:
            records.append(Record(ACKNOWLEDGE, now_ms, 0.0))
        elif kind < ticks + 0.12:
            records.append(bad_record(rng, 0, now_ms, base))
        elif kind < ticks + 0.18:
            records.append(Record(0, now_ms - rng.choice([1, 900, 2500, 60_000]), value))
        else:
            if rng.random() < 0.7:
                value = random_value(rng, base)
            records.append(Record(0, now_ms, value))
    return records


# Whole worlds


def random_plan(rng: Random, *, wide_open: bool = False) -> tuple[SimpleNamespace, float]:
    """Draw a plan with every detector, couplings, rules and contexts; return it and the base."""
    base = rng.choice(BASES)
    windows: list[np.ndarray] = []
    rows = []
    for _ in range(rng.randint(1, 4)):
        fields: dict[str, Any] = {
            "range_low": -1e8,
            "range_high": 1e8,
            "quantity": rng.randint(0, 2),
        }
        fields |= {"floor": rng.randint(0, 1), "percent": random_percent(rng)}
        fields |= limits_fields(rng, base) if rng.random() < 0.7 else {}
        fields |= rate_fields(rng) if rng.random() < 0.5 else {}
        if rng.random() < 0.5:
            fields |= deviation_fields(rng)
            fields |= drift_fields(rng) if rng.random() < 0.6 else {}
        fields |= liveness_fields(rng) if rng.random() < 0.7 else {}
        fields |= {"first_window": len(windows), "n_windows": rng.choice([0, 0, 1, 2])}
        windows += [random_window(rng, base) for _ in range(fields["n_windows"])]
        if rng.random() < 0.2:  # the same physics in another unit
            fields |= {"scale": 0.5, "offset": base / 2}
        rows.append(params_row(**fields))
    params = np.concatenate(rows)
    counts = [rng.choice([0, 1, 1, 2, 4]) for _ in range(rng.randint(1, 6))]
    if not any(counts):
        counts[0] = 1
    n_sources, n_sensors = len(counts), sum(counts)
    n_categories = rng.randint(1, 3)
    n_terms = rng.choice([0, 3, 64])
    plan = make_plan(
        params,
        windows,
        rows=[rng.randrange(len(params)) for _ in range(n_sensors)],
        absent_ms=[rng.choice([0, 1000, 3000, 10_000]) for _ in range(n_sensors)],
        counts=counts,
        edges=_random_edges(rng, n_sources),
        category=np.concatenate([_random_category(rng) for _ in range(n_categories)]),
        source_category=[rng.randrange(n_categories) for _ in range(n_sources)],
        static_class=[rng.randrange(4) for _ in range(n_sources)],
        district=[rng.randint(-1, 1) for _ in range(n_sources)],
        terms=_random_terms(rng, n_terms),
        signal_rules=_random_rules(rng, n_terms, n_categories),
        contexts=_random_contexts(rng, n_categories),
        late_after_ms=rng.choice([0, 1000, 60_000]),
        max_ahead_ms=FAR_FUTURE_MS if wide_open else rng.choice([5000, 100 * DAY_MS]),
        max_late_ms=FAR_FUTURE_MS if wide_open else rng.choice([2000, 100 * DAY_MS]),
    )
    return plan, base


def _random_edges(rng: Random, n_sources: int) -> list[tuple[int, int, float]]:
    if n_sources < 2:
        return []
    edges = []
    for _ in range(rng.choice([0, 2, 5])):
        origin, target = rng.sample(range(n_sources), 2)
        edges.append((origin, target, rng.choice([0.0, 0.3, 0.5, 1.0])))
    return edges


def _random_category(rng: Random) -> np.ndarray:
    return category_row(
        half_life_ms=rng.choice([1000, 4000, 30_000, 64_000]),
        raise_at=some_limits(rng, rng.choice([0.0, 10.0]), 12.5),
        deadband=rng.choice([0.0, 5.0]),
        hold_ms=rng.choice([0, 500, 2000, 10_000]),
        class_factor=[rng.choice([1.0, 0.5, 1.2]) for _ in range(4)],
    )


def _random_terms(rng: Random, n_terms: int) -> np.ndarray:
    terms = np.zeros(n_terms, TERM)
    for term in terms:
        term["quantity"] = rng.randint(0, 2)
        term["kind"] = rng.randrange(N_KINDS)
        term["level"] = rng.choice([1, 1, 2, 4])
        term["near"] = rng.randint(0, 1)
    return terms


def _random_rules(rng: Random, n_terms: int, n_categories: int) -> np.ndarray:
    rules = np.zeros(rng.choice([0, 1, 3]) if n_terms else 0, SIGNAL_RULE)

    def mask(n: int) -> int:
        bits = sum(1 << bit for bit in set(rng.choices(range(n_terms), k=n)))
        return bits - (1 << 64) if bits >> 63 else bits

    for rule in rules:
        rule["all"] = mask(rng.choice([0, 1, 2]))
        rule["any"] = mask(rng.choice([0, 0, 2]))
        rule["none"] = mask(rng.choice([0, 0, 1]))
        if rule["all"] == rule["any"] == 0:
            rule["any"] = mask(1)
        rule["categories"] = rng.choice([-1, rng.randrange(1, 1 << n_categories)])
        rule["level"] = rng.randint(1, 4)
    return rules


def _random_contexts(rng: Random, n_categories: int) -> np.ndarray:
    contexts = np.zeros(rng.choice([0, 1, 2]), CONTEXT)
    for context in contexts:
        context["from_ms"] = START_MS + rng.choice([-5000, 3000, 15_000])
        context["to_ms"] = context["from_ms"] + rng.choice([1, 4000, 20_000])
        context["categories"] = rng.choice([-1, rng.randrange(1, 1 << n_categories)])
        context["district"] = rng.choice([-1, -1, 0, 1])
        context["factor"] = rng.choice([1.5, 0.5, 2.0])
    return np.sort(contexts, order="from_ms")


def random_log(rng: Random, plan: SimpleNamespace, base: float, n: int) -> list[Record]:
    """Draw a log of a plan: readings of any sensor, ticks, acknowledges, and what feeds send."""
    n_sensors, n_sources = plan.catalog.n_sensors, plan.catalog.n_sources
    now_ms = START_MS
    records: list[Record] = []
    stuck = 0
    for _ in range(n):
        now_ms += random_step_ms(rng)
        kind = rng.random()
        # the same sensor several times in a row, so that its runs come about
        sensor = stuck if rng.random() < 0.5 else rng.randrange(n_sensors)
        stuck = sensor
        if kind < 0.1:
            records.append(Record(TICK, now_ms + rng.choice([0, 0, 0, 1000, -500])))
        elif kind < 0.13:
            records.append(Record(ACKNOWLEDGE, now_ms, float(rng.randrange(n_sources))))
        elif kind < 0.14:
            records.append(Record(rng.choice([UNKNOWN, n_sensors, 2**31 - 1]), now_ms, base))
        elif kind < 0.16:
            unlucky = rng.choice([TICK, sensor, sensor])
            records.append(Record(unlucky, _refused_time(rng, plan, now_ms), base))
        elif kind < 0.24:
            records.append(bad_record(rng, sensor, now_ms, base))
        elif kind < 0.3:
            back_ms = rng.choice([1, 600, 2500, 70_000])
            records.append(Record(sensor, now_ms - back_ms, random_value(rng, base)))
        elif kind < 0.34 and records and records[-1].sensor >= 0:
            records.append(records[-1])
        else:
            records.append(Record(sensor, now_ms, random_value(rng, base)))
    return records


def _refused_time(rng: Random, plan: SimpleNamespace, now_ms: int) -> int:
    """Draw a time that is out of bounds, far ahead or far behind (a far tick would end the day)."""
    times = [t for t in MEAN_TIMES if not 0 <= t < MAX_EVENT_MS]
    if plan.max_ahead_ms < FAR_FUTURE_MS:
        times += [now_ms + plan.max_ahead_ms + 5001, now_ms - plan.max_late_ms - 5001, 0]
    return rng.choice(times)


def calm_log(rng: Random, plan: SimpleNamespace, base: float, n: int) -> list[Record]:
    """Draw a log in which little happens: sensors in turn, noise near the base, a rare outlier."""
    n_sensors = plan.catalog.n_sensors
    records = []
    for i in range(n):
        now_ms = START_MS + i * 1000 // n_sensors
        value = base + rng.randint(-20, 20) * 0.001
        odd = rng.random()
        if odd < 0.03:
            value = random_value(rng, base)
        elif odd < 0.05:
            records.append(bad_record(rng, i % n_sensors, now_ms, base))
            continue
        elif odd < 0.07:
            records.append(Record(TICK, now_ms))
        elif odd < 0.08:
            now_ms = rng.choice(MEAN_TIMES)
        records.append(Record(i % n_sensors, now_ms, value))
    return records


def world(rng: Random, n: int = 80, *, wide_open: bool = False) -> World:
    """Draw a plan and a log for it; ``wide_open`` lets any reading through, however late."""
    plan, base = random_plan(rng, wide_open=wide_open)
    draw_log = calm_log if rng.random() < 0.25 else random_log
    return World(plan, draw_log(rng, plan, base, n))


def steered(draw_from: Callable[[Random], Any]) -> st.SearchStrategy[Any]:
    """Turn a function of a random generator into a strategy that hypothesis steers and shrinks."""
    return st.randoms(use_true_random=False).map(draw_from)


def worlds(n: int = 80, *, wide_open: bool = False) -> st.SearchStrategy[World]:
    """Draw whole worlds."""
    return steered(lambda rng: world(rng, n, wide_open=wide_open))

"""What a line says of its sources at a time: levels, scores, the rules that hold.

A look disturbs nothing: the tick that it needs is taken back, so no test depends on where it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.pipeline import Pipeline
from engine.plan import Plan
from engine.readings import Readings
from kernels.fuse import on_grain
from kernels.layout import FADE, FADE_STEPS, N_KINDS

Array = np.ndarray[Any, Any]

_MOST_HALVINGS = 60


class Look(NamedTuple):
    """What a line says after all records up to a time, and a tick at it."""

    at_ms: int
    shown: Array
    """Level of each source, normal where it is hidden."""
    standing: Array
    """Level of each source."""
    levels: list[int]
    """Packed signals of each sensor."""
    scores: dict[int, float]
    holding: dict[int, tuple[int, ...]]
    """Numbers of the signal rules that hold, for some sources."""


def look(line: Pipeline, at_ms: int, sources: Sequence[int]) -> Look:
    """Return what the line says at a time; scores and rules of some sources."""
    arrays = _changing(line)
    kept = [array.copy() for array in arrays]
    line.judge(Readings.tick(at_ms))
    state = line.state
    levels = state.signal["levels"].tolist()
    found = Look(
        at_ms=at_ms,
        shown=state.source["shown"].copy(),
        standing=state.source["level"].copy(),
        levels=levels,
        scores={source: score_at(line, source, at_ms) for source in sources},
        holding={source: holding(line.plan, source, levels) for source in sources},
    )
    for array, before in zip(arrays, kept, strict=True):
        array[:] = before
    return found


def _changing(line: Pipeline) -> list[Array]:
    """Return every array that a record may change."""
    arrays = [array for array in line.state.arrays.values() if len(array)]
    for shard in line.shards:
        arrays += [shard.clock, shard.block_due_ms, shard.agenda]
    return arrays


def level_of(levels: int, kind: int) -> int:
    """Return the level of one kind of a sensor's packed signals."""
    return levels >> (3 * kind) & 7


def score_at(line: Pipeline, source: int, now_ms: int) -> float:
    """Return the score that the line would give a source if it were judged now.

    The state holds the score of the last judgement, and what fades has faded further since.
    kernels/README.md is the definition.
    """
    plan, city = line.plan, line.plan.catalog
    now_ms = max(now_ms, int(line.state.source["last_ms"][source]))
    keep = 1.0 - _own_score(line, source, now_ms // 1000)
    first, last = city.coupled_start[source : source + 2].tolist()
    for edge in range(first, last):
        share = _own_score(line, int(city.coupled_origin[edge]), now_ms // 1000)
        keep *= 1.0 - share * float(plan.coupled_weight[edge])
    return min(100.0, float(on_grain(100.0 * (1.0 - keep) * _factor(plan, source, now_ms))))


def _own_score(line: Pipeline, source: int, now_s: int) -> float:
    plan, city, signals = line.plan, line.plan.catalog, line.state.signal
    half_life_ms = int(plan.category["half_life_ms"][city.category[source]])
    keep = 1.0
    first, last = city.sensor_start[source : source + 2].tolist()
    for sensor in range(first, last):
        signal = signals[sensor]
        levels = int(signal["levels"])
        percent = plan.params["percent"][plan.row[sensor]]
        current = max(float(percent[kind, level_of(levels, kind)]) for kind in range(N_KINDS))
        held = _faded(int(signal["held"]), now_s - int(signal["held_s"]), half_life_ms)
        keep *= 1.0 - max(current, held) / 100.0
    return 1.0 - keep


def _faded(held: int, age_s: int, half_life_ms: int) -> float:
    steps = max(age_s, 0) * 1000 * FADE_STEPS // half_life_ms
    halvings = steps // FADE_STEPS
    if not held or halvings > _MOST_HALVINGS:
        return 0.0
    return float(held * FADE[steps % FADE_STEPS] / (1 << halvings))


def _factor(plan: Plan, source: int, now_ms: int) -> float:
    city = plan.catalog
    category = int(city.category[source])
    factor = float(plan.category["class_factor"][category][city.static_class[source]])
    for context in plan.contexts:
        if context["from_ms"] <= now_ms < context["to_ms"] and concerns(plan, context, source):
            factor *= float(context["factor"])
    return factor


def concerns(plan: Plan, context: Any, source: int) -> bool:
    """Tell whether a context is about a source."""
    city = plan.catalog
    of_category = int(context["categories"]) >> int(city.category[source]) & 1
    district = int(context["district"])
    return bool(of_category) and district in (-1, int(city.district[source]))


def holding(plan: Plan, source: int, levels: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of the signal rules that hold for a source."""
    if not len(plan.signal_rules):
        return ()
    city = plan.catalog
    bits = _term_bits(plan, source, False, levels)
    first, last = city.coupled_start[source : source + 2].tolist()
    for edge in range(first, last):
        bits |= _term_bits(plan, int(city.coupled_origin[edge]), True, levels)
    category = int(city.category[source])
    return tuple(
        number
        for number, rule in enumerate(plan.signal_rules.tolist())
        if _holds(rule[:4], bits, category)
    )


def _holds(rule: tuple[int, int, int, int], bits: int, category: int) -> bool:
    # words are signed: the bits of a negative one are those of its two's complement
    every, some, none, categories = (word & (1 << 64) - 1 for word in rule)
    return bool(
        categories >> category & 1
        and bits & every == every
        and (not some or bits & some)
        and not bits & none
    )


def _term_bits(plan: Plan, source: int, near: bool, levels: Sequence[int]) -> int:
    first, last = plan.catalog.sensor_start[source : source + 2].tolist()
    bits = 0
    for sensor in range(first, last):
        if not levels[sensor]:
            continue
        quantity = int(plan.params["quantity"][plan.row[sensor]])
        for number, (of, kind, level, term_near) in enumerate(plan.terms.tolist()):
            if of == quantity and term_near == near and level_of(levels[sensor], kind) >= level:
                bits |= 1 << number
    return bits

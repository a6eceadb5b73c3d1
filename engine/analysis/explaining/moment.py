"""The state of the line at the very moment of one transition, and the arithmetic taken apart.

The line itself runs up to the record that made the transition and is stopped behind it, so signals,
held severities and the level before are the engine's own. What `kernels.fuse` makes of them is done
again here, operation by operation in its order, so that every part of the sum can be shown; the
score that comes out is the transition's to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.extract import Extract
from engine.plan import Plan
from kernels.fade import faded
from kernels.fuse import on_grain
from kernels.ladder import climb
from kernels.layout import CHANGE, HIGH, LOW, N_KINDS, TRANSITION

Array = np.ndarray[Any, Any]


class Active(NamedTuple):
    """One signal of a sensor that is up."""

    kind: int
    level: int
    percent: int
    """What it counts: severity × weights."""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What one sensor counts at the moment; indices are the part's."""

    sensor: int
    signals: tuple[Active, ...]
    strongest: Active | None
    """The signal that counts; the lower kind among equals."""
    value: float
    """What the strongest signal compared with its limit; NaN where it was not measured."""
    window: int
    held: float
    """Per cent that is left of what once was up."""
    held_from: int
    """Per cent that it began to fade from."""
    held_kind: int
    held_ms: int
    """When it began to fade."""
    newest_ms: int
    """Time of the newest reading; NEVER before any."""
    newest: float
    """The newest good value, in the profile's unit; NaN before any."""

    @property
    def counts(self) -> float:
        """Return the per cent that go into the score."""
        current = 0.0 if self.strongest is None else float(self.strongest.percent)
        return max(current, self.held)

    @property
    def fades(self) -> bool:
        """Return whether it counts for what once was up."""
        return self.held > (0.0 if self.strongest is None else self.strongest.percent)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A source that is coupled into the one explained."""

    source: int
    edge: int
    """Of `catalog.coupled_origin`."""
    own: float
    """Its own score, 0 to 1."""
    weight: float
    """Weight of the coupling × influence of its kind."""
    share: float
    """What of its score counts."""
    sensors: tuple[Sensor, ...]


class Held(NamedTuple):
    """A signal rule that holds, with the sensors that make each of its terms hold."""

    rule: int
    level: int
    terms: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Everything that one judgement went by; sources and sensors are the part's."""

    plan: Plan
    """Of the part."""
    source: int
    transition: Any
    """TRANSITION, its indices the part's."""
    record: int
    """Of the extract's log: what made it."""
    changes: Array
    """CHANGE of the part's sensors, up to the moment"""
    sensors: tuple[Sensor, ...]
    """Those of the source that count, or have a signal up."""
    neighbours: tuple[Neighbour, ...]
    own: float
    fused: float
    class_factor: float
    contexts: tuple[int, ...]
    """Records of `plan.contexts` in force."""
    factor: float
    score: float
    by_score: int
    by_limit: int
    by_rule: int
    rules: tuple[Held, ...]
    below_ms: int
    """Since when a lower level was called for; NEVER if it was not."""


def moment_of(extract: Extract, plan: Plan, source: int, episode_ms: int, seq: int) -> Moment:
    """Run the line up to a transition of a source of the part, and look at what it went by.

    Raises LookupError if there is none.
    """
    line = extract.line(plan)
    found = line.judge(extract.log)
    mine = found[(found["source"] == source) & (found["episode_ms"] == episode_ms)]
    mine = mine[mine["seq"] == seq]
    if not len(mine):
        raise LookupError(f"no transition {seq} in the episode at {episode_ms}")
    record = int(mine[0]["position"])
    line = extract.line(plan)
    (shard,) = line.shards
    changes: list[Array] = []
    _flow(shard, extract.log.cut(0, record), changes)
    # with room for one transition fusion stops right behind it
    shard.transitions = np.zeros(1, TRANSITION)
    one, state = extract.log.cut(record, record + 1), line.state
    start = 0
    while start < 1:
        consumed, n = shard.detect(one, start)
        start += consumed
        noted = shard.changes[:n].copy()
        fused = 0
        while fused < n:
            before = state.source[source].copy()
            consumed, told = shard.fuse(n, fused)
            fused += consumed
            if len(told) and _is(told[0], source, episode_ms, seq):
                changes.append(noted[noted["sensor"] >= 0])
                every = np.concatenate([np.zeros(0, CHANGE), *changes])
                return _taken_apart(plan, state, source, told[0], record, before, every)
        changes.append(noted[noted["sensor"] >= 0])
    raise LookupError("the transition did not come again")


def _is(transition: Any, source: int, episode_ms: int, seq: int) -> bool:
    found = (transition["source"], transition["episode_ms"], transition["seq"])
    return tuple(map(int, found)) == (source, episode_ms, seq)


def _flow(shard: Any, log: Any, changes: list[Array]) -> None:
    """Run records through the line as `engine.pipeline` does, and keep the changes of sensors."""
    start = 0
    while start < len(log):
        consumed, n = shard.detect(log, start)
        start += consumed
        noted = shard.changes[:n]
        changes.append(noted[noted["sensor"] >= 0].copy())
        fused = 0
        while fused < n:
            consumed, _ = shard.fuse(n, fused)
            fused += consumed


def _taken_apart(
    plan: Plan, state: Any, source: int, transition: Any, record: int, before: Any, changes: Array
) -> Moment:
    catalog = plan.catalog
    now_ms = int(transition["event_ms"])
    own_sensors, own = _own(plan, state, source, now_ms)
    keep = 1.0 - own
    neighbours = []
    for edge in range(*catalog.coupled_start[source : source + 2].tolist()):
        origin = int(catalog.coupled_origin[edge])
        sensors, score = _own(plan, state, origin, now_ms)
        weight = float(plan.coupled_weight[edge])
        share = score * weight
        keep *= 1.0 - share
        neighbours.append(
            Neighbour(
                source=origin, edge=edge, own=score, weight=weight, share=share, sensors=sensors
            )
        )
    fused = 1.0 - keep
    category = plan.category[int(catalog.category[source])]
    class_factor = float(category["class_factor"][int(catalog.static_class[source])])
    factor, contexts = class_factor, []
    for number, context in enumerate(plan.contexts):
        if _in_force(context, now_ms, catalog, source):
            factor *= float(context["factor"])
            contexts.append(number)
    score = min(100.0, float(on_grain(100.0 * fused * factor)))
    level_from = int(before["level"])
    limits, deadband = category["raise_at"], float(category["deadband"])
    floors = [
        max(a.level for a in each.signals if a.kind in (HIGH, LOW))
        for each in own_sensors
        if plan.params["floor"][plan.row[each.sensor]]
        and any(a.kind in (HIGH, LOW) for a in each.signals)
    ]
    held = tuple(_rules(plan, state, source))
    below_ms = int(before["below_ms"])
    return Moment(
        plan=plan,
        source=source,
        transition=transition.copy(),
        record=record,
        changes=changes,
        sensors=own_sensors,
        neighbours=tuple(neighbours),
        own=own,
        fused=fused,
        class_factor=class_factor,
        contexts=tuple(contexts),
        factor=factor,
        score=score,
        by_score=int(climb(score, limits, 1.0, deadband, level_from)),
        by_limit=max(floors, default=0),
        by_rule=max((each.level for each in held), default=0),
        rules=held,
        below_ms=below_ms,
    )


def _own(plan: Plan, state: Any, source: int, now_ms: int) -> tuple[tuple[Sensor, ...], float]:
    """Return what counts of a source's sensors, and its own score, as `kernels.fuse` has it."""
    catalog = plan.catalog
    half_life_ms = int(plan.category[int(catalog.category[source])]["half_life_ms"])
    keep, found = 1.0, []
    for sensor in range(*catalog.sensor_start[source : source + 2].tolist()):
        signal = state.signal[sensor]
        if not signal["levels"] and not signal["held"]:
            continue
        each = _sensor(plan, state, sensor, now_ms // 1000, half_life_ms)
        keep *= 1.0 - each.counts / 100.0
        found.append(each)
    return tuple(found), 1.0 - keep


def levels_of(packed: int) -> Iterator[tuple[int, int]]:
    """Yield kind and level of each signal that is up in a packed word."""
    for kind in range(N_KINDS):
        level = packed >> (3 * kind) & 7
        if level:
            yield kind, level


def _sensor(plan: Plan, state: Any, sensor: int, now_s: int, half_life_ms: int) -> Sensor:
    signal, hot = state.signal[sensor], state.hot[sensor]
    percent = plan.params["percent"][plan.row[sensor]]
    signals = tuple(
        Active(kind, level, int(percent[kind, level]))
        for kind, level in levels_of(int(signal["levels"]))
    )
    held = 0.0
    if signal["held"]:
        held = float(faded(int(signal["held"]), int(signal["held_s"]), now_s, half_life_ms))
    seen = bool(hot["n"])
    return Sensor(
        sensor=sensor,
        signals=signals,
        strongest=max(signals, key=lambda a: (a.percent, -a.kind), default=None),
        value=float(signal["value"]),
        window=int(signal["which"]) & 0x0F,
        held=held,
        held_from=int(signal["held"]),
        held_kind=int(signal["which"]) >> 4,
        held_ms=int(signal["held_s"]) * 1000,
        newest_ms=int(hot["last_ms"]),
        newest=float(hot["anchor"] + np.float64(hot["last"])) if seen else np.nan,
    )


def _in_force(context: Any, now_ms: int, catalog: Any, source: int) -> bool:
    within = bool(context["from_ms"] <= now_ms < context["to_ms"])
    of_category = int(context["categories"]) >> int(catalog.category[source]) & 1
    district = int(context["district"])
    return within and bool(of_category) and district in (-1, int(catalog.district[source]))


def _rules(plan: Plan, state: Any, source: int) -> Iterator[Held]:
    """Yield the signal rules that hold, in their order."""
    catalog = plan.catalog
    near = range(*catalog.coupled_start[source : source + 2].tolist())
    origins = [int(catalog.coupled_origin[edge]) for edge in near]
    holders = [
        tuple(
            sensor
            for of in (origins if term["near"] else [source])
            for sensor in range(*catalog.sensor_start[of : of + 2].tolist())
            if plan.params["quantity"][plan.row[sensor]] == term["quantity"]
            and int(state.signal["levels"][sensor]) >> (3 * int(term["kind"])) & 7 >= term["level"]
            and state.signal["levels"][sensor]
        )
        for term in plan.terms
    ]
    bits = sum(1 << number for number, sensors in enumerate(holders) if sensors)
    for number, rule in enumerate(plan.signal_rules):
        words = (int(rule[key]) & (1 << 64) - 1 for key in ("all", "any", "none"))
        every, some, none = words
        if (
            int(rule["categories"]) >> int(catalog.category[source]) & 1
            and bits & every == every
            and (not some or bits & some)
            and not bits & none
        ):
            terms = tuple((t, holders[t]) for t in range(len(holders)) if (every | some) >> t & 1)
            held = tuple((t, sensors) for t, sensors in terms if sensors)
            yield Held(number, int(rule["level"]), held)

"""Fusion: the signals of a source's sensors to its score, its level, and the transitions of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from kernels.layout import (
    BY_LIMIT,
    BY_RULE,
    BY_SCORE,
    CLEAR,
    DE_ESCALATE,
    ESCALATE,
    FADE,
    FADE_STEPS,
    HIGH,
    IS_BACK,
    IS_OUT_OF_SERVICE,
    IS_SHELVED,
    IS_SUPPRESSED,
    LOW,
    N_CONTRIBUTORS,
    N_KINDS,
    NO_KIND,
    ORANGE,
    RAISE,
    RED,
)
from tests.oracle.detectors import ladder
from tests.oracle.hiding import Window
from tests.oracle.numbers import f32, plain_list, plain_rows
from tests.oracle.sensor import Change, strongest

CHANGED, DUE, CONTEXT_TURNED = range(3)
"""Phases of one position of the log."""


def fade(steps: int) -> float:
    """Return 2^(−steps/64); after sixty half-lives nothing is left."""
    halvings, rest = divmod(steps, FADE_STEPS)
    if halvings > 60:
        return 0.0
    return float(FADE[rest]) * 2.0**-halvings


@dataclass
class Signal:
    """What fusion remembers of one sensor."""

    percent: list[list[int]]  # by kind and level
    floor: bool
    quantity: int
    level: tuple[int, ...] = (0,) * N_KINDS
    value: float = 0.0
    window: int = 0
    held: int = 0
    held_s: int = 0
    held_kind: int = NO_KIND

    def current(self) -> int:
        """Return the percent of the strongest signal that is up."""
        return max(self.percent[kind][self.level[kind]] for kind in range(N_KINDS))

    def faded(self, te: int, half_life_ms: int) -> float:
        """Return what is left of the held percent at ``te``."""
        age_s = max(0, te // 1000 - self.held_s)
        return self.held * fade(age_s * 1000 * FADE_STEPS // half_life_ms)


@dataclass
class Source:
    """One source: what it is, and its level and episode."""

    category: int
    static_class: int
    district: int
    sensors: range
    origins: list[tuple[int, float]]  # (source, weight): who is coupled into it
    targets: list[int]
    last_ms: int = -1
    below_ms: int | None = None
    episode_ms: int | None = None
    due_ms: int | None = None
    seq: int = 0
    reached: frozenset[int] = frozenset()
    level: int = 0
    shown: int = 0
    shelved_until_ms: int = 0
    out_of_service: bool = False
    score: float = 0.0


@dataclass
class Verdict:
    """Everything that one judgement found, before the level moves."""

    score: float
    factor: float
    coupled_from: int
    coupled_percent: float
    ladder_level: int
    limit_floor: int
    rule_floor: int
    rule: int
    contributors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def called(self) -> int:
        """Return the level that score and floors call for."""
        return max(self.ladder_level, self.limit_floor, self.rule_floor)

    @property
    def cause(self) -> int:
        """Return what set the called level."""
        others = max(self.limit_floor, self.ladder_level)
        if self.rule_floor >= self.called and self.rule_floor > others:
            return BY_RULE
        if self.limit_floor > self.ladder_level and self.limit_floor >= self.rule_floor:
            return BY_LIMIT
        return BY_SCORE


class Fusion:
    """All sources of a plan."""

    def __init__(self, plan: Any) -> None:
        catalog = plan.catalog
        rows = plain_rows(plan.params)
        self.signals = []
        for r in plain_list(plan.row):
            row = rows[r]
            self.signals.append(Signal(row.percent, bool(row.floor), row.quantity))
        self.categories = plain_rows(plan.category)
        self.terms = plain_rows(plan.terms)
        self.rules = plain_rows(plan.signal_rules)
        self.contexts = plain_rows(plan.contexts)
        turns = {c.from_ms for c in self.contexts} | {c.to_ms for c in self.contexts}
        self.turns = sorted(turns)  # when a context begins or ends; those passed are taken off
        self.sources = _sources(catalog, plan.coupled_weight)
        self.told_ms = 0  # how far ticks have moved time
        self.windows: list[Window] = []

    # What moves a source

    def change(self, change: Change) -> list[dict[str, Any]]:
        """Take a sensor's new signals; judge its source, then those it is coupled into."""
        index = next(i for i, s in enumerate(self.sources) if change.sensor in s.sensors)
        source = self.sources[index]
        te = max(change.event_ms, source.last_ms)
        self._remember(self.signals[change.sensor], change, te, self._half_life_ms(source))
        transitions: list[dict[str, Any]] = []
        for judged in [index, *source.targets]:
            self._judge(
                judged,
                change.event_ms,
                transitions,
                position=change.position,
                trigger=index,
                phase=CHANGED,
                late=int(change.late),
            )
        return transitions

    def tick(self, t: int, position: int) -> list[dict[str, Any]]:
        """Judge what is due at or before ``t``, then everything at each turn of a context."""
        transitions: list[dict[str, Any]] = []
        while True:
            due = [(s.due_ms, i) for i, s in enumerate(self.sources) if s.due_ms is not None]
            if not due or min(due)[0] > t:
                break
            due_ms, index = min(due)
            self.told_ms = max(self.told_ms, due_ms)
            self._judge(
                index, due_ms, transitions, position=position, trigger=index, phase=DUE, late=0
            )
        self.told_ms = max(self.told_ms, t)
        while self.turns and self.turns[0] <= t:
            turn_ms = self.turns.pop(0)
            for index, source in enumerate(self.sources):
                if source.level > 0 or source.score > 0:
                    self._judge(
                        index,
                        turn_ms,
                        transitions,
                        position=position,
                        trigger=index,
                        phase=CONTEXT_TURNED,
                        late=0,
                    )
        return transitions

    def command(self, sources: list[int], t: int, position: int) -> list[dict[str, Any]]:
        """Judge what a command was about, but for sources at normal: they show nothing anyway."""
        transitions: list[dict[str, Any]] = []
        for index in sources:
            if self.sources[index].level > 0:
                self._judge(
                    index, t, transitions, position=position, trigger=index, phase=CHANGED, late=0
                )
        return transitions

    # Signals

    def _remember(self, signal: Signal, change: Change, te: int, half_life_ms: int) -> None:
        """Take the new signals over; severity that falls is held, and fades from now on."""
        before = signal.current()
        kind_before = strongest(signal.level, signal.percent)
        faded = signal.faded(te, half_life_ms)
        signal.level = change.levels
        contributed = max(before, faded)
        if signal.current() < contributed and math.floor(contributed) > faded:
            signal.held, signal.held_s = math.floor(contributed), te // 1000
            signal.held_kind = kind_before
        if not any(change.levels):
            return  # the old value stays: it explains the contribution that fades
        if math.isnan(change.value) and change.kind == kind_before:
            return  # not measured anew: what was noted of this kind stands
        signal.value, signal.window = change.value, change.window

    def _half_life_ms(self, source: Source) -> int:
        return self.categories[source.category].half_life_ms

    def _contribution(self, index: int, te: int, half_life_ms: int) -> float:
        signal = self.signals[index]
        return max(float(signal.current()), signal.faded(te, half_life_ms))

    def _fades(self, source: Source, te: int) -> bool:
        """Say whether any contribution of the source's own sensors is a fading one."""
        half_life_ms = self._half_life_ms(source)
        return any(
            self.signals[i].faded(te, half_life_ms) > self.signals[i].current()
            for i in source.sensors
        )

    # Judgement

    def _judge(self, index: int, t: int, transitions: list[dict[str, Any]], **why: int) -> None:
        source = self.sources[index]
        te = max(t, source.last_ms)
        source.last_ms = te
        verdict = self._verdict(source, te)
        source.score = verdict.score
        level_from, shown_from = source.level, source.shown
        self._move_level(source, verdict.called, te)
        hidden, hider = self._hidden(index)
        source.shown = source.level if source.level > hidden else 0
        if source.shown != shown_from:
            cause = verdict.cause
            if source.shown < source.level:
                cause = hider
            elif shown_from == 0 and source.level <= level_from:
                cause = IS_BACK
            if shown_from == 0:
                after = -1 if source.episode_ms is None else source.episode_ms + 1
                source.episode_ms, source.seq = max(te, after), 0
                source.reached = frozenset()
            source.reached |= {source.shown} - {0}
            transitions.append(
                self._transition(index, te, shown_from, verdict, trigger_ms=t, cause=cause, **why)
            )
        source.due_ms = self._due_ms(index, te)

    def _verdict(self, source: Source, te: int) -> Verdict:
        category = self.categories[source.category]
        own = self._own_score(source, te)
        untouched, coupled_from, coupled = 1.0 - own, -1, 0.0
        for origin, weight in source.origins:
            influence = weight * self._own_score(self.sources[origin], te)
            untouched *= 1.0 - influence
            if influence > coupled:
                coupled_from, coupled = origin, influence
        fused = 1.0 - untouched
        factor = category.class_factor[source.static_class] * 1.0
        for context in self.contexts:
            if self._in_force(context, source, te):
                factor *= context.factor
        # to whole millionths: 1 - (1 - 0.2) is a hair less than 0.2, and must reach a limit of 20
        score = min(100.0, math.floor(100.0 * fused * factor * 1e6 + 0.5) / 1e6)
        keep_at = [limit - category.deadband for limit in category.raise_at]
        rule_floor, rule = self._rule_floor(source)
        return Verdict(
            score=score,
            factor=factor,
            coupled_from=coupled_from,
            coupled_percent=100.0 * coupled,
            ladder_level=ladder(score, category.raise_at, keep_at, source.level),
            limit_floor=self._limit_floor(source),
            rule_floor=rule_floor,
            rule=rule,
            contributors=self._contributors(source, te),
        )

    def _own_score(self, source: Source, te: int) -> float:
        untouched = 1.0
        for i in source.sensors:
            untouched *= 1.0 - self._contribution(i, te, self._half_life_ms(source)) / 100.0
        return 1.0 - untouched

    @staticmethod
    def _in_force(context: Any, source: Source, te: int) -> bool:
        return (
            context.from_ms <= te < context.to_ms
            and bool(context.categories >> source.category & 1)
            and context.district in (-1, source.district)
        )

    def _limit_floor(self, source: Source) -> int:
        levels = [
            max(self.signals[i].level[HIGH], self.signals[i].level[LOW])
            for i in source.sensors
            if self.signals[i].floor
        ]
        return max(levels, default=0)

    def _rule_floor(self, source: Source) -> tuple[int, int]:
        true = 0
        for bit, term in enumerate(self.terms):
            where = [self.sources[o] for o, _ in source.origins] if term.near else [source]
            signals = [self.signals[i] for place in where for i in place.sensors]
            if any(
                s.quantity == term.quantity and s.level[term.kind] >= term.level for s in signals
            ):
                true |= 1 << bit
        floor, first = 0, -1
        for number, rule in enumerate(self.rules):
            holds = (
                rule.categories >> source.category & 1
                and true & rule.all == rule.all % 2**64  # bit 63 is the sign
                and (rule.any == 0 or true & rule.any)
                and not true & rule.none
            )
            if holds and rule.level > floor:
                floor, first = rule.level, number
        return floor, first

    def _contributors(self, source: Source, te: int) -> list[dict[str, Any]]:
        half_life_ms = self._half_life_ms(source)
        found = [(self._contribution(i, te, half_life_ms), i) for i in source.sensors]
        found = [(f32(percent), i) for percent, i in found]  # as it is shown
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        contributors = []
        for percent, i in found[:N_CONTRIBUTORS]:
            if percent <= 0:
                break
            signal = self.signals[i]
            if signal.current() >= signal.faded(te, half_life_ms):
                kind = strongest(signal.level, signal.percent)
                level = signal.level[kind]
            else:
                kind, level = signal.held_kind, 0
            contributors.append(
                {
                    "value": signal.value,
                    "sensor": i,
                    "percent": percent,
                    "kind": kind,
                    "level": level,
                    "window": signal.window,
                }
            )
        return contributors

    # Level, episode, due time

    def _move_level(self, source: Source, called: int, te: int) -> None:
        """Rise at once; fall once something lower has been called for long enough."""
        hold_ms = self.categories[source.category].hold_ms
        if called >= source.level:
            source.level, source.below_ms = called, None
            return
        if source.below_ms is None:
            source.below_ms = te
        if te - source.below_ms >= hold_ms:
            source.level, source.below_ms = called, None

    def _hidden(self, index: int) -> tuple[int, int]:
        """Return the highest level that is not shown now, and the cause of that."""
        source = self.sources[index]
        if source.out_of_service:
            return RED, IS_OUT_OF_SERVICE
        if self.told_ms < source.shelved_until_ms:
            return ORANGE, IS_SHELVED
        if any(w.begun(self.told_ms) and w.concerns(index, source) for w in self.windows):
            return ORANGE, IS_SUPPRESSED
        return 0, IS_BACK

    def _transition(
        self, index: int, te: int, shown_from: int, verdict: Verdict, **why: int
    ) -> dict[str, Any]:
        source = self.sources[index]
        if source.shown > shown_from:
            kind = RAISE if shown_from == 0 else ESCALATE
        else:
            kind = CLEAR if source.shown == 0 else DE_ESCALATE
        transition = {
            **why,
            "event_ms": te,
            "episode_ms": source.episode_ms,
            "score": verdict.score,
            "factor": verdict.factor,
            "coupled_percent": verdict.coupled_percent,
            "contributor": verdict.contributors,
            "source": index,
            "coupled_from": verdict.coupled_from,
            "rule": verdict.rule,
            "seq": source.seq,
            "kind": kind,
            "level_from": shown_from,
            "level": source.shown,
            "standing": source.level,
            "reached": sum(2**level for level in source.reached),
        }
        source.seq += 1
        return transition

    def _due_ms(self, index: int, te: int) -> int | None:
        """Return when the source must be judged again though nothing changes."""
        source = self.sources[index]
        due = []
        if source.level > 0:
            ends = [source.shelved_until_ms]
            for window in self.windows:
                if window.concerns(index, source):
                    ends += [window.from_ms, window.until_ms]
            due += [end_ms for end_ms in ends if end_ms > self.told_ms]
        if source.below_ms is not None:
            due.append(source.below_ms + self.categories[source.category].hold_ms)
        fade_due_ms = self._fade_due_ms(source, te)
        if fade_due_ms is not None:
            due.append(fade_due_ms)
        return min(due, default=None)

    def _fade_due_ms(self, source: Source, te: int) -> int | None:
        """Return the soonest time at which fading alone could let the level fall.

        When every contribution is multiplied by one factor, the score is concave in the factor and
        0 at 0; so where all that fades has faded to the factor, at least factor × score is left. No
        limit is crossed while the factor is at or above target / score. Ages count in whole
        seconds, so a judgement a second is as fine as it gets. The score was rounded:
        a millionth of margin.
        """
        fading = [self.sources[o] for o, _ in source.origins]
        fading = [s for s in [source, *fading] if self._fades(s, te)]
        if source.level == 0 or not fading:
            return None
        category = self.categories[source.category]
        target = category.raise_at[source.level - 1] - category.deadband
        if target <= 0 or source.score < target:
            return None
        half_life_ms = min(self._half_life_ms(s) for s in [source, *fading])
        k = 0
        while fade(k + 1) * source.score >= target + 1 / 1e6:
            k += 1
        return te + max(1000, k * half_life_ms // FADE_STEPS)


def _sources(catalog: Any, coupled_weight: Any) -> list[Source]:
    start = plain_list(catalog.sensor_start)
    coupled_start = plain_list(catalog.coupled_start)
    origins = plain_list(catalog.coupled_origin)
    weights = plain_list(coupled_weight)
    coupling_start = plain_list(catalog.coupling_start)
    targets = plain_list(catalog.coupling_target)
    category = plain_list(catalog.category)
    static_class = plain_list(catalog.static_class)
    district = plain_list(catalog.district)
    return [
        Source(
            category=category[i],
            static_class=static_class[i],
            district=district[i],
            sensors=range(start[i], start[i + 1]),
            origins=[
                (origins[e], weights[e]) for e in range(coupled_start[i], coupled_start[i + 1])
            ],
            targets=targets[coupling_start[i] : coupling_start[i + 1]],
        )
        for i in range(len(start) - 1)
    ]

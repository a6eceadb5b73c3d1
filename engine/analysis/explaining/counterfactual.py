"""What would have prevented a transition: one rule key at a time, found by judging again.

*Prevented* means, for a rise to a level: under the changed rules the source does not rise to that
level from where it last fell below it to where it next falls below it. Either it stays below
(`silent`), or it never fell below since an episode before and goes on from that (`merged`). For a
fall from a level: the source stays at the level until it came back to it (`bridged`).

Where no value of a key prevents a rise, since something else asks for the level soon after, the key
may still put it off (`later`): reported is the first value at which it comes as late as the key can
make it.

A key is moved in steps of its own, away from where it stands: 1, 2, 4, 8 … steps until the
transition is gone, then by halves between the last value with it and the first without. Both ends
of the step that is reported have been judged: at `value` it is gone, at `fires_at`, one step less,
it is there. Keys act in one direction as a rule, but nothing here relies on it: where one does not,
what is reported is a boundary, if perhaps not the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.explaining.counterfactual_keys import DROP, Key
from engine.analysis.extract import Extract
from engine.analysis.past import Past
from engine.analysis.steps import steps_of
from engine.errors import RulesError
from engine.rules import Rules
from engine.truth import Incident, score
from kernels.layout import RAISE

Array = np.ndarray[Any, Any]

FIRES, SILENT, MERGED, BRIDGED, LATER = "fires", "silent", "merged", "bridged", "later"
FAR_MS = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Question:
    """Whether a source still does what it did."""

    source: int
    level: int
    """That it rose to, or fell from."""
    falls: bool
    event_ms: int
    after_ms: int
    """When it last fell below the level before a rise, or rose to it before a fall; -1 if never."""
    until_ms: int
    """When it next fell below the level after a rise, or came back to it after a fall."""

    @classmethod
    def about(cls, steps: Array, transition: Any, level: int | None = None) -> Question:
        """Ask about a transition among the STEPs of its source: its own level, or a lower one."""
        falls = bool(transition["level"] < transition["level_from"])
        level = level or int(transition["level_from"] if falls else transition["level"])
        event_ms, position = int(transition["event_ms"]), int(transition["position"])
        # a source may rise and fall within one record of the log
        at = np.flatnonzero(
            (steps["position"] == position)
            & (steps["event_ms"] == event_ms)
            & (steps["level"] == transition["level"])
            & (steps["level_from"] == transition["level_from"])
        )[0]
        rises = (steps["level_from"] < level) & (steps["level"] >= level)
        drops = (steps["level_from"] >= level) & (steps["level"] < level)
        back, forth = (rises, rises) if falls else (drops, drops)
        before = np.flatnonzero(back[:at])
        after = np.flatnonzero(forth[at + 1 :])
        return cls(
            source=int(transition["source"]),
            level=level,
            falls=falls,
            event_ms=event_ms,
            after_ms=int(steps["event_ms"][before[-1]]) if len(before) else -1,
            until_ms=int(steps["event_ms"][at + 1 + after[0]]) if len(after) else FAR_MS,
        )

    @property
    def answerable(self) -> bool:
        """Whether anything would be another answer: a fall with no way back has none."""
        return not self.falls or self.until_ms < FAR_MS

    def rise_ms(self, steps: Array) -> int:
        """Return when the source rises to the level under other rules; FAR_MS if it does not."""
        mine = steps[steps["source"] == self.source]
        when, was, now = mine["event_ms"], mine["level_from"], mine["level"]
        within = ((when > self.after_ms) | (when == self.event_ms)) & (when <= self.until_ms)
        rises = np.flatnonzero(within & (was < self.level) & (now >= self.level))
        return int(when[rises[0]]) if len(rises) else FAR_MS

    def answer(self, steps: Array) -> str:
        """Return what STEPs of other rules say."""
        mine = steps[steps["source"] == self.source]
        when, was, now = mine["event_ms"], mine["level_from"], mine["level"]
        if self.falls:
            within = (when > self.after_ms) & (when <= self.until_ms)
            drops = (was >= self.level) & (now < self.level) & within
            stands = now[when <= self.event_ms]
            held = len(stands) > 0 and stands[-1] >= self.level
            return BRIDGED if held and not drops.any() else FIRES
        if self.rise_ms(mine) < FAR_MS:
            return FIRES
        before = now[when <= self.after_ms]
        return MERGED if len(before) and before[-1] >= self.level else SILENT


class Effect(NamedTuple):
    """What a change does to the whole history, beside preventing the transition."""

    alerts: int
    """How many alerts more there are (negative: fewer)."""
    episodes: int
    lost: tuple[Incident, ...]
    """Incidents of the truth that would no longer be found."""
    later: tuple[Incident, ...]
    false_alarms: int | None
    """How many false alarms more; None without a truth."""
    answer: str
    """What the whole log says to the question."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A change of one key with which the transition does not happen."""

    key: Key
    steps: int
    answer: str
    """`silent`, `merged`, `bridged`, or `later`."""
    rules: Rules
    later_ms: int | None = None
    """How much later the rise is, where it is only put off."""
    effect: Effect | None = None

    @property
    def value(self) -> Any:
        """Return the first value at which it is gone, or put off; None for a dropped key."""
        found = self.key.value(self.steps)
        return None if found is DROP else found

    @property
    def fires_at(self) -> Any:
        """Return the value one step less, at which it is still there, or less late."""
        return self.key.value(self.steps - 1)

    @property
    def words(self) -> str:
        """Return the change in words: `≥ 27.3 %LEL`."""
        if self.key.is_switch:
            return "not given" if self.value is None else str(self.value).lower()
        side = "≥" if self.key.up else "≤"
        return f"{side} {self.said(self.value)}"

    def said(self, value: Any) -> str:
        """Return a value of the key with its unit."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return str(value).lower()
        return f"{value:.10g} {self.key.unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Search:
    """What came of trying keys."""

    question: Question
    findings: tuple[Finding, ...]
    put_off: tuple[Finding, ...]
    """Keys that can only put the rise off."""
    in_vain: tuple[Key, ...]
    """Keys of which no sound value does either."""
    n_judged: int
    """How often the part was judged."""


def search(
    extract: Extract,
    rules: Rules,
    question: Question,
    keys: Sequence[Key],
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Search:
    """Move each key until the transition is gone; ValueError if it is not there at first."""
    asked = _Asked(extract, question)
    if asked.answer(rules) != FIRES:
        raise ValueError("the transition is not there under the rules as they are")
    found: list[Finding] = []
    put_off: list[Finding] = []
    in_vain: list[Key] = []
    for number_of, key in enumerate(keys):
        move = _Move(rules, key, asked)
        finding = move.until_gone() or (None if question.falls else move.as_late_as_can_be())
        if finding is None:
            in_vain.append(key)
        else:
            (put_off if finding.answer == LATER else found).append(finding)
        if on_progress is not None:
            on_progress((number_of + 1) / len(keys))
    return Search(
        question=question,
        findings=tuple(_without_ladders(found)),
        put_off=tuple(_without_ladders(put_off)),
        in_vain=tuple(in_vain),
        n_judged=asked.n_judged,
    )


def _without_ladders(findings: list[Finding]) -> list[Finding]:
    """Leave out a whole ladder where its one limit alone is enough."""
    single = {finding.key.path[:-1] for finding in findings}
    return [each for each in findings if each.key.build is None or each.key.path not in single]


class _Asked:
    """Answers to a question under many rules, each judged once."""

    def __init__(self, extract: Extract, question: Question) -> None:
        self._extract, self._question = extract, question
        self._known: dict[str, tuple[str, int]] = {}
        self.n_judged = 0

    @property
    def event_ms(self) -> int:
        return self._question.event_ms

    def answer(self, rules: Rules) -> str:
        """Return the answer, or nothing where the rules don't fit the sensors' own limits."""
        return self._judged(rules)[0]

    def rise_ms(self, rules: Rules) -> int:
        """Return when the source rises to the level."""
        return self._judged(rules)[1]

    def _judged(self, rules: Rules) -> tuple[str, int]:
        if rules.digest not in self._known:
            self.n_judged += 1
            try:
                steps = steps_of(self._extract.judge(rules))
            except RulesError:
                found = "", FAR_MS
            else:
                question = self._question
                rise_ms = FAR_MS if question.falls else question.rise_ms(steps)
                found = question.answer(steps), rise_ms
            self._known[rules.digest] = found
        return self._known[rules.digest]


class _Move:
    """One key, moved step by step; what was tried is remembered."""

    def __init__(self, rules: Rules, key: Key, asked: _Asked) -> None:
        self._key, self._asked = key, asked
        self._tried: dict[int, Rules | None] = {0: rules}
        self._most = key.most

    def _rules(self, n: int) -> Rules | None:
        """Return the rules after n steps, None where they are not sound."""
        if n not in self._tried:
            changed = self._key.rules(self._asked_rules, n)
            if changed is not None and not self._asked.answer(changed):
                changed = None
            self._tried[n] = changed
        return self._tried[n]

    @property
    def _asked_rules(self) -> Rules:
        rules = self._tried[0]
        assert rules is not None
        return rules

    def until_gone(self) -> Finding | None:
        """Return the first step found at which the transition is gone."""
        low, n = 0, 1
        while n <= self._most:
            changed = self._rules(n)
            if changed is None:
                # beyond what is sound: go on from the last sound step before it
                self._most = n = self._last_sound(low, n)
                if n <= low:
                    return None
                continue
            if self._asked.answer(changed) != FIRES:
                return self._between(low, n, lambda rules: self._asked.answer(rules) != FIRES)
            low = n
            if n == self._most:
                return None
            n = min(2 * n, self._most)
        return None

    def as_late_as_can_be(self) -> Finding | None:
        """Return the first step at which the rise is as late as at the last step."""
        last = self._rules(self._most) if self._most else None
        if last is None:
            return None
        latest_ms = self._asked.rise_ms(last)
        later_ms = latest_ms - self._asked.event_ms
        if later_ms <= 0 or latest_ms == FAR_MS:
            return None
        found = self._between(0, self._most, lambda r: self._asked.rise_ms(r) >= latest_ms)
        return None if found is None else replace(found, answer=LATER, later_ms=later_ms)

    def _between(self, low: int, high: int, over: Callable[[Rules], bool]) -> Finding | None:
        """Halve the steps between one where it is not over and one where it is."""
        while high - low > 1:
            middle = (low + high) // 2
            changed = self._rules(middle)
            if changed is not None and over(changed):
                high = middle
            else:
                low = middle
        changed = self._rules(high)
        if changed is None or self._rules(low) is None:
            return None
        answer = self._asked.answer(changed)
        return Finding(key=self._key, steps=high, answer=answer, rules=changed)

    def _last_sound(self, low: int, high: int) -> int:
        while high - low > 1:
            middle = (low + high) // 2
            if self._rules(middle) is None:
                high = middle
            else:
                low = middle
        return low


def with_effects(
    past: Past,
    rules: Rules,
    found: Search,
    *,
    truth: Sequence[Incident] | None = None,
    level: str = "blue",
    threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> Search:
    """Judge the whole history under each change, and note what else it does."""
    from engine.analysis.diffs.diff import alerts_of
    from engine.analysis.sweep import Sweep

    wanted = (*found.findings, *found.put_off)
    if not wanted:
        return found
    settings = [rules, *(finding.rules for finding in wanted)]
    tried = Sweep(past, threads=threads).try_all(settings, on_progress=on_progress)
    every = [tried.of(setting) for setting in range(len(settings))]
    scores: list[Any] = [None] * len(every)
    if truth is not None and tried.first_ms is not None and tried.last_ms is not None:
        ends = {"since_ms": min(tried.first_ms, tried.last_ms), "until_ms": tried.last_ms + 1}
        ids = past.catalog.source_id
        scores = [score(alerts_of(steps, ids), truth, level=level, **ends) for steps in every]
    with_effect = [
        replace(finding, effect=_effect(found.question, every[0], steps, scores[0], of))
        for finding, steps, of in zip(wanted, every[1:], scores[1:], strict=True)
    ]
    n = len(found.findings)
    return replace(
        found,
        findings=tuple(sorted(with_effect[:n], key=_harm)),
        put_off=tuple(sorted(with_effect[n:], key=_harm)),
    )


def _harm(finding: Finding) -> tuple[int, int, int, int]:
    """Return what orders changes: by how much they put it off, then the least harmful first."""
    effect = finding.effect
    assert effect is not None
    harm = len(effect.lost), len(effect.later), abs(effect.alerts)
    return -(finding.later_ms or 0), *harm


def _effect(question: Question, before: Array, after: Array, old: Any, new: Any) -> Effect:
    lost: list[Incident] = []
    later: list[Incident] = []
    if old is not None:
        for a, b in zip(old.detections, new.detections, strict=True):
            if a.found and not b.found:
                lost.append(a.incident)
            elif a.found and b.found and b.delay_ms > a.delay_ms:
                later.append(a.incident)
    raises = [int(np.count_nonzero(steps["kind"] == RAISE)) for steps in (before, after)]
    return Effect(
        alerts=len(after) - len(before),
        episodes=raises[1] - raises[0],
        lost=tuple(lost),
        later=tuple(later),
        false_alarms=None if old is None else len(new.false) - len(old.false),
        answer=question.answer(after),
    )

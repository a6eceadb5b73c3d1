"""What would have prevented a transition: one rule key at a time, found by judging again.

*Prevented* means, for a rise to a level: under the changed rules the source does not rise to that
level from where it last fell below it to where it next falls below it. Either it stays below
(`silent`), or it never fell below since an episode before and goes on from that (`merged`). For a
fall from a level: the source stays at the level until it came back to it (`bridged`).

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

from engine.analysis.counterfactual_keys import DROP, Key
from engine.analysis.extract import Extract
from engine.analysis.past import Past
from engine.analysis.steps import steps_of
from engine.errors import RulesError
from engine.rules import Rules
from engine.truth import Incident, score
from kernels.layout import RAISE

Array = np.ndarray[Any, Any]

FIRES, SILENT, MERGED, BRIDGED = "fires", "silent", "merged", "bridged"
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
    def about(cls, steps: Array, transition: Any) -> Question:
        """Ask about a transition among the STEPs of its source."""
        falls = bool(transition["level"] < transition["level_from"])
        level = int(transition["level_from"] if falls else transition["level"])
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
        within = ((when > self.after_ms) | (when == self.event_ms)) & (when <= self.until_ms)
        if (within & (was < self.level) & (now >= self.level)).any():
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
    """`silent`, `merged` or `bridged`."""
    rules: Rules
    effect: Effect | None = None

    @property
    def value(self) -> Any:
        """Return the first value at which the transition is gone; None for a dropped key."""
        found = self.key.value(self.steps)
        return None if found is DROP else found

    @property
    def fires_at(self) -> Any:
        """Return the value one step less, at which it is still there."""
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
    in_vain: tuple[Key, ...]
    """Keys of which no sound value prevents the transition."""
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
    n_judged = 0
    known: dict[str, str] = {}

    def ask(changed: Rules) -> str:
        nonlocal n_judged
        if changed.digest not in known:
            n_judged += 1
            try:
                transitions = extract.judge(changed)
            except RulesError:  # they don't fit the sensors' own limits
                return ""
            known[changed.digest] = question.answer(steps_of(transitions))
        return known[changed.digest]

    if ask(rules) != FIRES:
        raise ValueError("the transition is not there under the rules as they are")
    found, in_vain = [], []
    for number_of, key in enumerate(keys):
        finding = _moved(rules, key, ask)
        if finding is None:
            in_vain.append(key)
        else:
            found.append(finding)
        if on_progress is not None:
            on_progress((number_of + 1) / len(keys))
    return Search(
        question=question,
        findings=tuple(_without_ladders(found)),
        in_vain=tuple(in_vain),
        n_judged=n_judged,
    )


def _without_ladders(findings: list[Finding]) -> list[Finding]:
    """Leave out a whole ladder where its one limit alone is enough."""
    single = {finding.key.path[:-1] for finding in findings}
    return [each for each in findings if each.key.build is None or each.key.path not in single]


def _moved(rules: Rules, key: Key, ask: Callable[[Rules], str]) -> Finding | None:
    tried: dict[int, tuple[str, Rules]] = {0: (FIRES, rules)}

    def gone(n: int) -> bool | None:
        """Tell whether the transition is gone after n steps; None where rules are not sound."""
        if n not in tried:
            changed = key.rules(rules, n)
            answer = "" if changed is None else ask(changed)
            tried[n] = (answer, rules if changed is None else changed)
        answer = tried[n][0]
        return None if not answer else answer != FIRES

    low, n, most = 0, 1, key.most
    while n <= most:
        there = gone(n)
        if there is None:
            # beyond what is sound: look for the last sound step between
            most = _last_sound(gone, low, n)
            n = most
            if n <= low:
                return None
            continue
        if there:
            break
        low = n
        if n == most:
            return None
        n = min(2 * n, most)
    else:
        return None
    high = n
    while high - low > 1:
        middle = (low + high) // 2
        if gone(middle):
            high = middle
        else:
            low = middle
    if gone(low) is None:
        return None
    answer, changed = tried[high]
    return Finding(key=key, steps=high, answer=answer, rules=changed)


def _last_sound(gone: Callable[[int], bool | None], low: int, high: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        if gone(middle) is None:
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
    from engine.analysis.diff import alerts_of
    from engine.analysis.sweep import Sweep

    if not found.findings:
        return found
    settings = [rules, *(finding.rules for finding in found.findings)]
    tried = Sweep(past, threads=threads).try_all(settings, on_progress=on_progress)
    every = [tried.of(setting) for setting in range(len(settings))]
    scores: list[Any] = [None] * len(every)
    if truth is not None and tried.first_ms is not None and tried.last_ms is not None:
        ends = {"since_ms": min(tried.first_ms, tried.last_ms), "until_ms": tried.last_ms + 1}
        ids = past.catalog.source_id
        scores = [score(alerts_of(steps, ids), truth, level=level, **ends) for steps in every]
    findings = []
    for finding, steps, of in zip(found.findings, every[1:], scores[1:], strict=True):
        effect = _effect(found.question, every[0], steps, scores[0], of)
        findings.append(replace(finding, effect=effect))
    return replace(found, findings=tuple(findings))


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

"""An explanation in words: the sums with their numbers, what set the level, what it would take."""

from __future__ import annotations

from collections.abc import Iterator

from engine.analysis.explaining.counterfactual import (
    BRIDGED,
    FIRES,
    MERGED,
    Effect,
    Finding,
    Question,
)
from engine.analysis.explaining.explain import Contribution, Explanation
from engine.analysis.explaining.words import lasting, moment, number, per_cent
from engine.rules_base import LEVELS
from kernels.layout import CAUSE_NAMES, LEVEL_NAMES, NEVER


def head(of: Explanation) -> str:
    """Return what happened in one line."""
    alert = of.alert
    change = alert["transition"]
    levels = f"{alert['level_from']} → {alert['level']}"
    return f"{of.alert_id}#{of.seq}: {change}, {levels}"


def counted(of: Explanation, each: Contribution) -> str:
    """Return how a sensor's per cent come about."""
    if each.held_ms is not None:
        until = moment(each.held_ms, of.rules.time.zone(), date=False)
        category = of.alert["category"]
        if each.source != of.alert["source"]:
            catalog = of.catalog
            category = catalog.categories[catalog.category[catalog.source_index(each.source)]]
        half_life = lasting(of.rules.fusion.of(category).half_life_s * 1000)
        return f"{number(each.held_from or 0)} % until {until}, half-life {half_life}"
    product = each.severity * each.weight * each.detector_weight
    factors = (each.severity, each.weight, each.detector_weight)
    text = f"{' × '.join(f'{factor:.4g}' for factor in factors)} = {per_cent(product)}"
    return text if product <= 1 else f"{text}, at most 100 %"


def sums(of: Explanation) -> Iterator[str]:
    """Yield the arithmetic of the score, a line each."""
    m = of.moment
    parts = [each.counts / 100 for each in of.contributions if each.counts > 0]
    if not parts:
        yield "own score  0: no sensor of its own counts"
    elif len(parts) == 1:
        yield f"own score  {per_cent(m.own)}: one sensor counts"
    else:
        product = " × ".join(f"(1 − {part:.4g})" for part in parts)
        yield f"own score  1 − {product} = {per_cent(m.own)}"
    shares = [each.counts / 100 for each in of.coupled if each.counts > 0]
    if shares:
        product = " × ".join(f"(1 − {share:.4g})" for share in shares)
        yield f"coupled    1 − (1 − {m.own:.4g}) × {product} = {per_cent(m.fused)}"
    factors = []
    if m.class_factor != 1:
        factors.append(f"{m.class_factor:.4g} (static class {of.alert['static_class']})")
    factors += [
        f"{float(m.plan.contexts['factor'][number]):.4g} ({m.plan.context_names[number]})"
        for number in m.contexts
    ]
    text = " × ".join([number(100 * m.fused), *factors])
    raw = 100 * m.fused * m.factor
    capped = f" = {number(raw)}, at most 100" if raw > 100 else ""
    yield (
        f"score      {text}{capped} = {number(m.score)}"
        if factors
        else (f"score      {number(m.score)}")
    )


def levels(of: Explanation) -> Iterator[str]:
    """Yield what the score, the limits and the signal rules call for, and what came of it."""
    m = of.moment
    category = of.alert["category"]
    ladder = of.rules.levels_of(category)
    limits = dict(ladder.raise_at.named())
    shown = ", ".join(f"{name} {limit:.4g}" for name, limit in limits.items())
    by_score = LEVEL_NAMES[m.by_score]
    called = f"score {number(m.score)} calls for {by_score}  (raise_at: {shown}"
    reached = limits.get(by_score)
    held = reached is not None and m.score < reached
    yield called + (f"; held by the deadband of {ladder.deadband:.4g})" if held else ")")
    if m.by_limit:
        names = ", ".join(_floors(of))
        yield f"closed limits call for {LEVEL_NAMES[m.by_limit]}  ({names})"
    for rule in m.rules:
        name = of.rules.rules[rule.rule].name
        yield f"signal rule {name!r} calls for {LEVEL_NAMES[rule.level]}  ({_terms(of, rule)})"
    if of.alert["transition"] in ("de-escalate", "clear"):
        hold_ms = round(ladder.hold_s * 1000)
        if m.below_ms != NEVER and hold_ms:
            since = moment(m.below_ms, of.rules.time.zone(), date=False)
            yield f"a lower level was called for since {since}, for the hold of {lasting(hold_ms)}"
    cause = CAUSE_NAMES[int(m.transition["cause"])]
    by = {"score": "the score", "limit": "a limit, as a floor", "rule": "a signal rule"}
    if of.alert["level"] != "normal":
        yield f"→ {of.alert['level']}, set by {by.get(cause, cause)}"
    else:
        yield "→ normal"


def _floors(of: Explanation) -> Iterator[str]:
    m = of.moment
    for sensor in m.sensors:
        floor = bool(m.plan.params["floor"][m.plan.row[sensor.sensor]])
        highest = max((s.level for s in sensor.signals if s.kind < 2), default=0)
        if floor and highest == m.by_limit:
            yield m.plan.catalog.sensor_id[sensor.sensor].as_py()


def _terms(of: Explanation, held: object) -> str:
    terms = of.rules.terms()
    catalog = of.moment.plan.catalog
    return "; ".join(
        f"{terms[number]}: {', '.join(catalog.sensor_id[s].as_py() for s in sensors)}"
        for number, sensors in held.terms  # type: ignore[attr-defined]
    )


def asked(question: Question) -> str:
    """Return what it means here that the alert is prevented."""
    name = LEVELS[question.level - 1]
    if not question.answerable:
        return f"It did not come back to {name} later: nothing was to be bridged."
    if question.falls:
        gap = lasting(question.until_ms - question.event_ms)
        return f"{gap} later it was {name} again. It would have stayed {name} in between with:"
    above = " or above" if question.level < len(LEVELS) else ""
    said = "no alert at all" if question.level == 1 else f"no alert of {name}{above}"
    return f"There would have been {said} with one of these, all else as it is:"


def put_off(question: Question) -> str:
    """Return what it means that a change only puts an alert off."""
    name = "an alert" if question.level == 1 else f"an alert of {LEVELS[question.level - 1]}"
    return f"There would have been {name} all the same, but later, at best, with one of these:"


def in_vain(question: Question) -> str:
    """Return what is said of keys that change nothing about it."""
    if question.falls:
        return "No value of these alone would have bridged it"
    said = "it" if question.level == 1 else LEVELS[question.level - 1]
    return f"No value of these alone would have prevented {said}"


def at(finding: Finding) -> str:
    """Return from which value on, and at what value it is not so yet."""
    if finding.key.is_switch:
        return "without it" if finding.value is None else f"with {finding.words}"
    side = "≥" if finding.key.up else "≤"
    return f"{side} {_timed(finding, finding.value)} (not yet at {finding.fires_at:.10g})"


def key_now(finding: Finding) -> str:
    """Return a key with what stands."""
    if finding.key.is_switch and finding.value is None:
        return finding.key.name
    return f"{finding.key.name} = {_timed(finding, finding.key.value(0))}"


def _timed(finding: Finding, value: float) -> str:
    said = finding.said(value)
    if finding.key.unit == "s" and value >= 120:
        return f"{said}, {lasting(value * 1000)}"
    return said


def outcome(finding: Finding, question: Question) -> str:
    """Return in what way it is gone."""
    if finding.later_ms is not None:
        return f"{lasting(finding.later_ms)} later"
    if finding.effect is not None and finding.effect.answer == FIRES:
        return "NOT gone in the whole history, where more neighbours count"
    if finding.answer == MERGED:
        return "one with the alert before"
    if finding.answer == BRIDGED:
        return f"stays {LEVELS[question.level - 1]}"
    return "no alert" if question.level == 1 else f"not {LEVELS[question.level - 1]}"


def besides(effect: Effect | None) -> str:
    """Return what else a change does to the history."""
    if effect is None:
        return ""
    parts = [_more(effect.alerts, "alert") or "as many alerts"]
    parts += [_more(effect.episodes, "episode"), _more(effect.false_alarms or 0, "false alarm")]
    if effect.lost:
        parts.append("LOSES " + ", ".join(f"{each.kind} at {each.source}" for each in effect.lost))
    if effect.later:
        n = len(effect.later)
        parts.append(f"{n} incident{'s' * (n > 1)} found later")
    return ", ".join(part for part in parts if part)


def _more(n: int, what: str) -> str:
    if not n:
        return ""
    return f"{abs(n):,} {what}{'s' * (abs(n) > 1)} {'more' if n > 0 else 'fewer'}"

"""Hold what a line made of a test against what is expected, and say for people what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.rule_tests.file import ANY_ALERT, NO_ALERT, Expect, ExpectAlert
from engine.analysis.rule_tests.ready import Check, Ready
from engine.analysis.rule_tests.run import Ran
from engine.analysis.rule_tests.series import shown
from engine.analysis.rule_tests.state import Look, level_of
from engine.sentences import number
from engine.units import display_unit
from kernels.layout import KIND_NAMES, LEVEL_NAMES

BEFORE_N, AFTER_N = 4, 2
"""Readings of a sensor that are shown around a failure."""
MOST_SENSORS = 4
MOST_ALERTS = 3
SCORE_WITHIN = 0.05
"""Records have one decimal of a score."""


class Verdict(NamedTuple):
    """One expectation and what came of it."""

    line: int
    at_ms: int
    """Since the start of the test."""
    expected: str
    came: str
    passed: bool
    readings: tuple[str, ...] = ()
    """The readings around it, a sensor each, where it failed."""


def verdicts(test: Ready, ran: Ran) -> Iterator[Verdict]:
    """Yield one verdict for each expectation at each of its times, refused commands first."""
    for at_ms, name, why in ran.refused:
        yield Verdict(test.line, at_ms - test.start_ms, f"the command {name}", why, False)
    for check in test.checks:
        if isinstance(check.expect, Expect):
            for at_ms in check.at_ms:
                yield _at(test, ran, check, check.expect, ran.looks[at_ms])
        else:
            yield _alert(test, ran, check, check.expect)


# What is so at a time


def _at(test: Ready, ran: Ran, check: Check, expect: Expect, look: Look) -> Verdict:
    source = check.source
    assert source is not None
    wrong = list(_differences(test, expect, look, source))
    since_ms = look.at_ms - test.start_ms
    name = test.world.source_ids[source]
    expected = f"{name} at {shown(since_ms)}: {', '.join(_claims(expect))}"
    level, score = LEVEL_NAMES[look.shown[source]], look.scores[source]
    came = f"{level}, score {score:.1f}"
    if look.standing[source] != look.shown[source]:
        came += f", {LEVEL_NAMES[look.standing[source]]} hidden"
    if not wrong:
        return Verdict(check.line, since_ms, expected, came, True)
    came = f"{'; '.join(wrong)} ({came}); {_last_alert(test, ran, name, look.at_ms)}"
    return Verdict(check.line, since_ms, expected, came, False, _around(test, source, look.at_ms))


def _claims(expect: Expect) -> Iterator[str]:
    """Yield what an expectation says, in words."""
    if expect.level is not None:
        yield expect.level
    for key, word in (("at_least", "at least"), ("at_most", "at most"), ("standing", "standing")):
        if getattr(expect, key) is not None:
            yield f"{word} {getattr(expect, key)}"
    for key, word in (("score", ""), ("score_at_least", "≥ "), ("score_at_most", "≤ ")):
        if getattr(expect, key) is not None:
            yield f"score {word}{getattr(expect, key):.15g}"
    if expect.signals is not None:
        yield f"{expect.sensor} {_told_signals(expect.signals)}"
    for key, word in (("holds", "holds"), ("holds_not", "does not hold")):
        for rule in getattr(expect, key):
            yield f"rule “{rule}” {word}"


def _told_signals(signals: Mapping[str, str]) -> str:
    return ", ".join(f"{kind} {level}" for kind, level in signals.items()) or "no signal"


def _differences(test: Ready, expect: Expect, look: Look, source: int) -> Iterator[str]:
    """Yield what is otherwise than expected."""
    level, standing = int(look.shown[source]), int(look.standing[source])
    yield from _level_differences(expect, LEVEL_NAMES[level])
    if expect.standing is not None and LEVEL_NAMES[standing] != expect.standing:
        yield f"{LEVEL_NAMES[standing]} stands"
    score = look.scores[source]
    yield from _score_differences(expect, score)
    if expect.score is not None and abs(score - expect.score) > SCORE_WITHIN + 1e-9:
        yield f"score {score:.2f}"
    if expect.signals is not None and expect.sensor is not None:
        levels = look.levels[test.world.sensors[expect.sensor]]
        found = {
            kind: LEVEL_NAMES[level_of(levels, number)] for number, kind in enumerate(KIND_NAMES)
        }
        if expect.signals:
            wrong = any(found[kind] != level for kind, level in expect.signals.items())
        else:
            wrong = levels != 0
        if wrong:
            up = {kind: level for kind, level in found.items() if level != "normal"}
            yield f"{expect.sensor} has {_told_signals(up)}"
    names = [rule.name for rule in test.world.plan.rules.rules]
    holding = {names[number] for number in look.holding[source]}
    yield from (f"rule “{rule}” does not hold" for rule in expect.holds if rule not in holding)
    yield from (f"rule “{rule}” holds" for rule in expect.holds_not if rule in holding)


def _level_differences(expect: Expect | ExpectAlert, level: str) -> Iterator[str]:
    at = LEVEL_NAMES.index(level)
    least = LEVEL_NAMES.index(expect.at_least or "normal")
    most = LEVEL_NAMES.index(expect.at_most or "red")
    if not least <= at <= most or expect.level not in (None, level):
        yield f"level {level}"


def _score_differences(expect: Expect | ExpectAlert, score: float) -> Iterator[str]:
    low, high = expect.score_at_least, expect.score_at_most
    if (low is not None and score < low - 1e-9) or (high is not None and score > high + 1e-9):
        yield f"score {score:.2f}"


def _last_alert(test: Ready, ran: Ran, source: str, at_ms: int) -> str:
    own = [a for a in ran.alerts if a["source"] == source and a["event_ms"] <= at_ms]
    return _told(test, own[-1], "last ") if own else "no alert of it so far"


def _told(test: Ready, alert: dict[str, Any], before: str = "") -> str:
    at = shown(alert["event_ms"] - test.start_ms)
    return f"{before}{alert['transition']} at {at}: {alert['text']}"


# Alerts


def _alert(test: Ready, ran: Ran, check: Check, expect: ExpectAlert) -> Verdict:
    first_ms, last_ms = check.span_ms
    inside = [a for a in ran.alerts if first_ms <= a["event_ms"] <= last_ms]
    judged = [(alert, list(_misfits(expect, alert))) for alert in inside]
    fitting = [alert for alert, misfits in judged if not misfits]
    expected = _expected_alert(test, check, expect)
    since_ms = last_ms - test.start_ms
    n, wanted = len(fitting), 0 if expect.alert == NO_ALERT else expect.count
    passed = n > 0 if wanted is None else n == wanted
    if passed:
        told = "; ".join(_told(test, alert) for alert in fitting[:1]) or "none"
        return Verdict(check.line, since_ms, expected, told, True)
    source = check.source
    if n or wanted == 0:
        lines = [_told(test, alert) for alert in fitting]
        came = f"{n} came: {_some(lines)}" if lines else "none came"
        if fitting and source is None:
            source = test.world.sources.get(fitting[0]["source"] or "")
    else:
        close = sorted(judged, key=lambda pair: len(pair[1]))
        lines = [f"{_told(test, alert)} [{', '.join(misfits)}]" for alert, misfits in close]
        came = f"none that fits; in that time came {_some(lines)}"
        if not lines:
            came = f"no alert in that time; {_elsewhere(test, ran, expect)}"
    around = _around(test, source, last_ms if not fitting else int(fitting[0]["event_ms"]))
    return Verdict(check.line, since_ms, expected, came, False, around)


def _elsewhere(test: Ready, ran: Ran, expect: ExpectAlert) -> str:
    """Tell which alerts came at another time."""
    others = [alert for alert in ran.alerts if not list(_misfits(expect, alert))]
    if others:
        return f"one that fits came else: {_told(test, others[0])}"
    if not ran.alerts:
        return "none in the whole test"
    return f"else came {_some([_told(test, alert) for alert in ran.alerts])}"


def _some(lines: list[str]) -> str:
    more = len(lines) - MOST_ALERTS
    return " | ".join(lines[:MOST_ALERTS]) + (f" | and {more} more" if more > 0 else "")


def _misfits(expect: ExpectAlert, alert: dict[str, Any]) -> Iterator[str]:
    """Yield what of an alert record is otherwise than expected."""
    if expect.alert not in (ANY_ALERT, NO_ALERT, alert["transition"]):
        yield f"{alert['transition']}, not {expect.alert}"
    for key in ("source", "level_from", "cause", "rule", "late"):
        wanted = getattr(expect, key)
        if wanted is not None and alert[key] != wanted:
            yield f"{key} {_plain(alert[key])}, not {_plain(wanted)}"
    yield from _level_differences(expect, alert["level"])
    yield from _score_differences(expect, alert["score"])
    parts = alert["contributors"]
    detectors = [part["detector"] for part in parts if not part["fading"]]
    if expect.detector is not None and expect.detector not in detectors:
        yield f"detectors {_joined(detectors)}, not {expect.detector}"
    sensors = [part["sensor"] for part in parts]
    yield from _missing("sensors", expect.sensors, sensors)
    origin = (alert["coupled_from"] or {}).get("source")
    if expect.coupled_from is not None and origin != expect.coupled_from:
        yield f"coupled_from {_plain(origin)}, not {expect.coupled_from}"
    yield from _missing("routes", expect.routes, alert["routes"])
    for text in expect.text:
        if text not in alert["text"]:
            yield f"text without {text!r}"


def _missing(what: str, wanted: Iterable[str], there: list[str]) -> Iterator[str]:
    lacking = [name for name in wanted if name not in there]
    if lacking:
        yield f"{what} {_joined(there)}, not {_joined(lacking)}"


def _joined(names: Iterable[str]) -> str:
    return " and ".join(names) or "none"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)


def _expected_alert(test: Ready, check: Check, expect: ExpectAlert) -> str:
    kind = "alert" if expect.alert in (ANY_ALERT, NO_ALERT) else expect.alert
    if expect.alert == NO_ALERT:
        text = "no alert"
    elif expect.count is not None:
        text = f"exactly {expect.count} × {kind}"
    else:
        text = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    if expect.source is not None:
        text += f" of {expect.source}"
    first, last = (shown(ms - test.start_ms) for ms in check.span_ms)
    text += f" at {first}" if first == last else f" from {first} to {last}"
    told = [
        f"{key.replace('_', ' ')} {_plain(getattr(expect, key))}"
        for key in _FILTERS
        if getattr(expect, key) is not None
    ]
    told += [
        f"{key} {_joined(map(repr, names) if key == 'text' else names)}"
        for key in ("sensors", "routes", "text")
        if (names := getattr(expect, key))
    ]
    return f"{text} with {', '.join(told)}" if told else text


_FILTERS = (
    "level", "level_from", "at_least", "at_most", "score_at_least", "score_at_most", "cause",
    "rule", "detector", "coupled_from", "late",
)  # fmt: skip


# The readings around


def _around(test: Ready, source: int | None, at_ms: int) -> tuple[str, ...]:
    """Return the readings of a source's sensors around a time, a line each."""
    city = test.world.catalog
    heard = list(dict.fromkeys(test.sensor.tolist()))
    if source is not None:
        own = [sensor for sensor in heard if test.world.source_of(sensor) == source]
        heard = own or heard
    lines = []
    for sensor in heard[:MOST_SENSORS]:
        mine = np.flatnonzero(test.sensor == sensor)
        split = int(np.searchsorted(test.arrival_ms[mine], at_ms, side="right"))
        before, after = mine[max(0, split - BEFORE_N) : split], mine[split : split + AFTER_N]
        unit = display_unit(city.units[city.unit[sensor]])
        told = [_reading(test, at) for at in before.tolist()] or ["none yet"]
        later = [_reading(test, at) for at in after.tolist()]
        text = ", ".join(told) + (f" | then {', '.join(later)}" if later else "")
        first = "… " if split > BEFORE_N else ""
        label = f"{test.world.sensor_ids[sensor]}{f' [{unit}]' if unit else ''}"
        lines.append(f"{label}: {first}{text}")
    if len(heard) > MOST_SENSORS:
        lines.append(f"and {len(heard) - MOST_SENSORS} more sensors")
    return tuple(lines)


def _reading(test: Ready, at: int) -> str:
    value, bad = float(test.value[at]), bool(test.quality[at])
    event, arrived = (
        shown(int(column[at]) - test.start_ms) for column in (test.event_ms, test.arrival_ms)
    )
    text = f"{'bad:' if bad else ''}{number(value)} at {event}"
    return text if event == arrived else f"{text} (came {arrived})"

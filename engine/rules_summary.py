"""What rules will do, in words: when each signal rises and clears, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from engine.plan_params import percent_table
from engine.rules import Rules
from engine.rules_base import LEVELS, Ladder, level_number
from engine.rules_fusion import Context, SignalRule
from engine.rules_profile import Limits, Profile, Rate, Window
from engine.units import display_unit
from kernels.layout import KIND_NAMES

Line = dict[str, Any]
_UNITS_OF_TIME = ((86_400, "d"), (3_600, "h"), (60, "min"))


def duration(seconds: float) -> str:
    """Return seconds as people say them: `90 s`, `5 min`, `7 d`."""
    for length, name in _UNITS_OF_TIME:
        if seconds and seconds % length == 0:
            return f"{seconds / length:.12g} {name}"
    return f"{seconds:.12g} s"


def summary(rules: Rules) -> dict[str, Any]:
    """Return what the rules will do as plain JSON values."""
    return {
        "name": rules.name,
        "digest": rules.digest,
        "time": _time(rules),
        "profiles": [_profile(rules, name) for name in rules.profiles],
        "unwatched": _unwatched(rules),
        "fusion": [_category(rules, name) for name in _categories(rules)],
        "influence": dict(rules.coupling.influence),
        "rules": [_signal_rule(rule) for rule in rules.rules],
        "contexts": [_context(rules, context) for context in rules.context],
        "routes": [_route(rules, name) for name in rules.route_names],
    }


def _time(rules: Rules) -> str:
    time = rules.time
    return (
        f"late when more than {duration(time.late_after_s)} behind; refused when more than "
        f"{duration(time.max_late_s)} behind or {duration(time.max_ahead_s)} ahead; a replay ticks "
        f"every {duration(time.tick_s)}; site time is UTC"
        f"{time.utc_offset}"
    )


def _unwatched(rules: Rules) -> str:
    after, level = rules.absence.after, rules.absence.level
    if not after:
        return "nothing is noticed"
    return f"only silence is noticed: {level} after {after:.12g} expected periods"


# --- profiles ------------------------------------------------------------------------------------


def _profile(rules: Rules, name: str) -> dict[str, Any]:
    profile = rules.profiles[name]
    low, high = (f"{bound:.12g}" for bound in profile.range)
    return {
        "name": name,
        "quantity": profile.quantity,
        "unit": profile.unit,
        "categories": list(profile.categories) if profile.categories else None,
        "range": [low, high],
        "refractory": duration(profile.refractory_s) if profile.refractory_s else None,
        "signals": [
            {**line, "percent": _percents(rules, profile, line["kind"], line["level"])}
            for line in _signals(rules, profile)
        ],
    }


def _percents(rules: Rules, profile: Profile, kind: str, level: str) -> list[int]:
    """Return what a signal counts at the profile's sources: one number, or least and most."""
    others = [p for p in rules.profiles.values() if p.quantity == profile.quantity]
    taken = {category for other in others for category in other.categories or ()}
    named = [category for category in rules.fusion.categories if category not in taken]
    categories = profile.categories or ("", *named)
    found = {
        int(
            percent_table(rules.fusion.of(category), profile.quantity)[
                KIND_NAMES.index(kind), level_number(level)
            ]
        )
        for category in categories
    }
    return sorted({min(found), max(found)})


def _signals(rules: Rules, profile: Profile) -> Iterator[Line]:
    unit = _spaced(display_unit(profile.unit))
    yield from _limit_signals(profile.limits, unit)
    if profile.rate:
        yield from _rate_signals(profile.rate, unit)
    for window in profile.windows:
        yield from _window_signals(window, unit)
    deviation, drift = profile.deviation, profile.drift
    if deviation:
        season = {"none": "", "day": " at this time of day", "week": " at this time of the week"}
        about = f" from its level over {deviation.memory_n} readings{season[deviation.season]}"
        shown = about + _in_a_row(deviation.confirm_n)
        ladder, deadband = deviation.raise_at, deviation.deadband
        yield from _ladder("deviation", ladder, deadband, "≥", lambda x: f"{x:.12g} σ", shown)
    if drift:
        about = f" of deviations beyond {drift.allowance:.12g} σ, added up"
        ladder, deadband = drift.raise_at, drift.deadband
        yield from _ladder("drift", ladder, deadband, "≥", lambda x: f"{x:.12g} σ", about)
    yield from _live_signals(rules, profile, unit)


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""


def _in_a_row(n: int) -> str:
    return f", {n} readings in a row" if n > 1 else ""


def _limit_signals(limits: Limits, unit: str) -> Iterator[Line]:
    sides = (("high", limits.high, "≥", "<", -1), ("low", limits.low, "≤", ">", 1))
    for kind, ladder, beyond, inside, sign in sides:
        for level, limit in ladder.named():
            on_s, off_s = getattr(limits.on_delay_s, level), getattr(limits.off_delay_s, level)
            back = limit + sign * limits.deadband
            raises = f"{beyond} {limit:.12g}{unit}" + (f" for {duration(on_s)}" if on_s else "")
            clears = f"{inside} {back:.12g}{unit}" + (f" for {duration(off_s)}" if off_s else "")
            clears += ", once acknowledged" if limits.latch else ""
            note = "the source is at least at this level" if limits.floor else ""
            yield _line(kind, level, raises, clears, note)


def _rate_signals(rate: Rate, unit: str) -> Iterator[Line]:
    about = f" over {duration(rate.window_s)}" + _in_a_row(rate.confirm_n)

    def shown(x: float) -> str:
        return f"{x:.12g}{unit}/{rate.per}"

    yield from _ladder("rise", rate.rise, rate.deadband, "rises ≥", shown, about)
    yield from _ladder("fall", rate.fall, rate.deadband, "falls ≥", shown, about)


def _window_signals(window: Window, unit: str) -> Iterator[Line]:
    of_readings = " readings" if window.aggregate == "count" else unit
    least = f", of at least {window.min_n} readings" if window.min_n > 1 else ""
    about = f" over {duration(window.length_s)}{least}"
    name = window.aggregate

    def shown(x: float) -> str:
        return f"{x:.12g}{of_readings}"

    note = f"window {window.name!r}"
    high, low, deadband = window.high, window.low, window.deadband
    yield from _ladder("window", high, deadband, f"{name} ≥", shown, about, note=note)
    yield from _ladder("window", low, -deadband, f"{name} ≤", shown, about, back=">", note=note)


def _ladder(
    kind: str,
    ladder: Ladder,
    deadband: float,
    beyond: str,
    shown: Callable[[float], str],
    about: str = "",
    *,
    back: str = "<",
    note: str = "",
) -> Iterator[Line]:
    for level, limit in ladder.named():
        raises = f"{beyond} {shown(limit)}{about}"
        yield _line(kind, level, raises, f"{back} {shown(limit - deadband)}", note)


def _live_signals(rules: Rules, profile: Profile, unit: str) -> Iterator[Line]:
    after, level = profile.absent(rules.absence)
    live = profile.liveness
    if after:
        yield _line(
            "absence", level, f"silent for {after:.12g} expected periods", "the next reading"
        )
    if live.flat_after_n:
        raises = f"the same value {live.flat_after_n} times again"
        yield _line("flatline", live.flat_level, raises, "another value")
    if live.bad_after_n:
        raises = f"{live.bad_after_n} bad readings in a row"
        yield _line("bad", live.bad_level, raises, "a good reading")
    if live.spike_at is not None:
        raises = f"jumps by ≥ {live.spike_at:.12g}{unit}"
        yield _line("spike", live.spike_level, raises, "the next reading")


def _line(kind: str, level: str, raises: str, clears: str, note: str = "") -> Line:
    return {"kind": kind, "level": level, "raises": raises, "clears": clears, "note": note}


# --- fusion, rules, contexts ---------------------------------------------------------------------


def _categories(rules: Rules) -> list[str]:
    return ["", *rules.fusion.categories]


def _category(rules: Rules, name: str) -> dict[str, Any]:
    fusion, levels = rules.fusion.of(name), rules.levels_of(name)
    return {
        "category": name or None,
        "raise_at": dict(levels.raise_at.named()),
        "deadband": levels.deadband,
        "hold": duration(levels.hold_s),
        "half_life": duration(fusion.half_life_s),
        "weights": dict(fusion.weights),
        "severity": {level: getattr(fusion.severity, level) for level in LEVELS},
        "class_factor": fusion.class_factor.model_dump(),
    }


def _signal_rule(rule: SignalRule) -> dict[str, Any]:
    parts = [*rule.all]
    if rule.any:
        either = " or ".join(rule.any)
        parts.append(f"({either})" if len(rule.any) > 1 else either)
    parts += [f"not {text}" for text in rule.none]
    return {
        "name": rule.name,
        "level": rule.level,
        "categories": list(rule.categories) if rule.categories else None,
        "while": " and ".join(parts),
    }


def _route(rules: Rules, name: str) -> dict[str, Any]:
    route = next((route for route in rules.routes if route.name == name), None)
    given = route.conditions() if route else {}
    takes = {key: list(names) for key, names in given.items()}
    return {"name": name, "default": not takes, "takes": takes}


def _context(rules: Rules, context: Context) -> dict[str, Any]:
    zone = rules.time.zone()

    def shown(moment: datetime) -> str:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return aware.astimezone(zone).isoformat(sep=" ", timespec="minutes")

    return {
        "name": context.name,
        "from": shown(context.start),
        "to": shown(context.end),
        "districts": list(context.districts) if context.districts else None,
        "categories": list(context.categories) if context.categories else None,
        "factor": context.factor,
    }

"""The plain sentence of an alert record: what happened, where, and why, for people."""

from __future__ import annotations

from typing import Any

from kernels.layout import DE_ESCALATE, ESCALATE, RAISE

_SIZED = ("fall", "deviation", "drift")


def number(value: float | None) -> str:
    """Return a number with as many digits as a person reads."""
    if value is None:
        return "an unknown value"
    return f"{value:.6g}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that it fills."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "days" else 1):
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} s"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return number(value)
    return duration(value) if unit == "s" else f"{number(value)} {unit}".rstrip()


def describe(what: str, part: dict[str, Any]) -> str:
    """Return why one contributor contributes; ``what`` names its quantity."""
    value, limit, unit = part["value"], part["limit"], part["unit"]
    size = None if value is None else abs(value)
    shown = _amount(size if part["detector"] in _SIZED else value, unit)
    beyond = "" if limit is None else f" (limit {_amount(limit, unit)})"
    if part["fading"]:
        return f"earlier {what} signal ({part['detector']}) fading"
    side = "above" if value is None or value >= 0 else "below"
    match part["detector"]:
        case "high":
            back = value is not None and limit is not None and value < limit
            how = "not yet cleared from" if back else "at or above"
            return f"{what} {shown}, {how} {_amount(limit, unit)}"
        case "low":
            back = value is not None and limit is not None and value > limit
            how = "not yet cleared from" if back else "at or below"
            return f"{what} {shown}, {how} {_amount(limit, unit)}"
        case "rise":
            return f"{what} rising by {shown}{beyond}"
        case "fall":
            return f"{what} falling by {shown}{beyond}"
        case "window":
            return f"{what} {part['window']} {shown}{beyond}"
        case "deviation":
            return f"{what} {shown} {side} its usual level{beyond}"
        case "drift":
            return f"{what} drifting {'up' if side == 'above' else 'down'}, {shown}{beyond}"
        case "absence":
            return f"{what} silent for {shown}"
        case "flatline":
            return f"{what} stuck for {shown}"
        case "bad":
            return f"{what} unusable for {shown} in a row"
        case _:
            return f"{what} jumped by {shown}{beyond}"


_HIDING = {
    "shelved": "{level} alert shelved",
    "suppressed": "{level} alert suppressed, maintenance",
    "out_of_service": "{level} alert not shown, out of service",
    "returned": "{level} alert shown again",
}


def sentence(
    who: str,
    transition: int,
    level: str,
    time: str,
    score: float,
    reasons: list[str],
    cause: str = "score",
) -> str:
    """Return the whole sentence; ``transition`` as in ``kernels.layout``, ``time`` ISO-8601.

    ``level`` is the one that stands, shown or hidden.
    """
    if cause in _HIDING:
        start = f"{who}: {_HIDING[cause].format(level=level)}"
    elif transition == RAISE:
        start = f"{who}: {level} alert"
    elif transition == ESCALATE:
        start = f"{who}: raised to {level}"
    elif transition == DE_ESCALATE:
        start = f"{who}: lowered to {level}"
    else:
        start = f"{who}: cleared"
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f"{start} at {time[:10]} {time[11:19]}, score {score:.0f}{why}."

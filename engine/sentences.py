"""The plain sentence of an alert record: what happened, where, and why, for people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

_BEGINNINGS = {
    "raise": "{who}: {level} alert",
    "escalate": "{who}: raised to {level}",
    "de-escalate": "{who}: lowered to {level}",
    "clear": "{who}: cleared",
}


def number(value: float | None) -> str:
    """Return a number with as many digits as a person reads."""
    if value is None:
        return "an unknown value"
    return f"{value:.6g}" if abs(value) >= 1000 else f"{value:.4g}"


def _amount(value: float | None, unit: str) -> str:
    return f"{number(value)} {unit}".rstrip()


def describe(part: dict[str, Any]) -> str:
    """Return why one contributor contributes."""
    what = part["quantity"].replace("_", " ")
    value = _amount(part["value"], part["unit"])
    limit = None if part["limit"] is None else _amount(part["limit"], part["unit"])
    beyond = "" if limit is None else f" (limit {limit})"
    if part["fading"]:
        return f"{what} {part['detector']} signal fading"
    match part["detector"]:
        case "high":
            return f"{what} {value}, at or above {limit}"
        case "low":
            return f"{what} {value}, at or below {limit}"
        case "rise":
            return f"{what} rising by {value}{beyond}"
        case "fall":
            falling = None if part["value"] is None else abs(part["value"])
            return f"{what} falling by {_amount(falling, part['unit'])}{beyond}"
        case "window":
            return f"{what} {part['window']} {value}{beyond}"
        case "deviation":
            return f"{what} {value} off its usual level{beyond}"
        case "drift":
            return f"{what} drifting, {value} accumulated{beyond}"
        case "absence":
            return f"{what} silent for {value}"
        case "flatline":
            return f"{what} stuck for {value}"
        case "bad":
            return f"{what} unusable for {value} in a row"
        case _:
            return f"{what} jumped by {value}{beyond}"


def sentence(
    *,
    who: str,
    transition: str,
    level: str,
    time: datetime,
    score: float,
    rule: str | None,
    reasons: list[str],
    coupled: dict[str, Any] | None,
) -> str:
    """Return the whole sentence."""
    start = _BEGINNINGS[transition].format(who=who, level=level)
    parts = [*reasons]
    if rule is not None:
        parts.insert(0, f"rule “{rule}”")
    if coupled is not None and transition != "clear":
        parts.append(f"influenced by {coupled['source']}")
    why = f": {'; '.join(parts)}" if parts else ""
    return f"{start} at {time:%Y-%m-%d %H:%M:%S}, score {score:.0f}{why}."

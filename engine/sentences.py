"""The plain sentence of an alert record: what happened, where, and why, for people."""

from __future__ import annotations

from typing import Any, NamedTuple

from kernels.layout import LEVEL_NAMES

UNKNOWN = "an unknown value"
_BEGINNINGS = ("{} alert", "raised to {}", "lowered to {}", "cleared")
"""By transition."""
_HIDING = {
    "shelved": "{} alert shelved",
    "suppressed": "{} alert suppressed, maintenance",
    "out_of_service": "{} alert not shown, out of service",
    "returned": "{} alert shown again",
}


def number(value: float | None) -> str:
    """Return a number with as many digits as a person reads."""
    if value is None:
        return UNKNOWN
    return f"{value:.4g}" if -1000 < value < 1000 else f"{value:.6g}"


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that it fills."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "days" else 1):
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} s"


def amount(value: float | None, unit: str) -> str:
    """Return a value with its unit."""
    if value is None:
        return UNKNOWN
    return duration(value) if unit == "s" else f"{number(value)} {unit}".rstrip()


class Phrase(NamedTuple):
    """How one kind of signal is told: quantity, before, value, unit, after."""

    before: str
    after: str
    unit: str
    """`s`, or with the space before it; may be empty."""
    sized: bool = False
    """The value is told without its sign."""
    fading: bool = False
    """No value is told, and `before` comes before the quantity."""

    def tell(self, what: str, value: float | None) -> str:
        """Return why a sensor of ``what`` contributes."""
        before, after, unit, sized, fading = self
        if fading:
            return f"{before}{what}{after}"
        if value is None:
            return f"{what}{before}{UNKNOWN}{after}"
        if sized:
            value = abs(value)
        if unit == "s":
            return f"{what}{before}{duration(value)}{after}"
        if -1000 < value < 1000:
            return f"{what}{before}{value:.4g}{unit}{after}"
        return f"{what}{before}{number(value)}{unit}{after}"


def phrases(
    detector: str, unit: str, limit: str | None, window: str | None, fading: bool
) -> tuple[Phrase, Phrase]:
    """Return how a signal is told, and how once its value is on the `other_side`.

    ``limit`` is the amount.
    """
    if fading:
        phrase = Phrase("earlier ", f" signal ({detector}) fading", unit, fading=True)
        return phrase, phrase
    beyond = "" if limit is None else f" (limit {limit})"
    back = f", not yet cleared from {limit or UNKNOWN}"
    words: tuple[str, ...] = {
        "high": (" ", f", at or above {limit or UNKNOWN}", " ", back),
        "low": (" ", f", at or below {limit or UNKNOWN}", " ", back),
        "rise": (" rising by ", beyond),
        "fall": (" falling by ", beyond),
        "window": (f" {window} ", beyond),
        "deviation": (
            *(" ", f" above its usual level{beyond}"),
            *(" ", f" below its usual level{beyond}"),
        ),
        "drift": (" drifting up, ", beyond, " drifting down, ", beyond),
        "absence": (" silent for ", ""),
        "flatline": (" stuck for ", ""),
        "bad": (" unusable for ", " in a row"),
        "spike": (" jumped by ", beyond),
    }[detector]
    spaced = unit if unit == "s" else f" {unit}".rstrip()
    sized = detector in ("fall", "deviation", "drift")
    return (
        Phrase(words[0], words[1], spaced, sized),
        Phrase(words[-2], words[-1], spaced, sized),
    )


OTHER_SIDE = {"high": -1, "low": 1, "deviation": -1, "drift": -1}
"""The side of its limit (of 0 for the last two) on which a value is told by the other phrase."""
OF_ZERO = ("deviation", "drift")


def describe(what: str, part: dict[str, Any]) -> str:
    """Return why one contributor of an alert record contributes; ``what`` names its quantity."""
    detector, value, limit, unit = (part[key] for key in ("detector", "value", "limit", "unit"))
    shown = None if limit is None else amount(limit, unit)
    usual, other = phrases(detector, unit, shown, part.get("window"), part["fading"])
    against = 0 if detector in OF_ZERO else limit
    side = 0 if value is None or against is None else (value > against) - (value < against)
    return (other if side and side == OTHER_SIDE.get(detector) else usual).tell(what, value)


def beginning(transition: int, level: int, cause: str) -> str:
    """Return what happened, between who it happened to and when.

    ``level`` is the one that stands, shown or hidden.
    """
    words = _HIDING.get(cause, _BEGINNINGS[transition])
    return f": {words.format(LEVEL_NAMES[level])} at "

"""Knobs: the deadbands, delays and limits of every profile, as a space that `--solve` turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.analysis.tuning.settings import Settings, Values
from engine.analysis.tuning.space import Space, Vary
from engine.catalog import Catalog
from engine.errors import SettingsError
from engine.rules import Rules
from engine.rules_base import LEVELS, Ladder
from engine.rules_check import dotted
from engine.rules_profile import Limits, Profile

COSTS = {"deadband": 1.0, "off-delay": 1.0, "on-delay": 2.0, "high": 4.0, "low": 4.0}
"""What a notch away from the given rules costs: moving a limit changes what an alarm means."""
KINDS = tuple(COSTS)
_WIDER = (1.5, 2.0, 3.0, 4.0, 6.0)
_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7)
_LONGER = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
_SECONDS = (0.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SHIFTS = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One parameter of the space, with what turning it costs."""

    profile: str
    kind: str
    choices: tuple[float, ...]
    home: int
    """The place of the given rules' value among the choices."""

    def cost(self, value: float) -> float:
        """Return what a value costs against the given one."""
        return COSTS[self.kind] * abs(self.choices.index(value) - self.home)


class Knobs:
    """Every knob of some rules that the sensors of a catalog feel."""

    def __init__(self, rules: Rules, catalog: Catalog, kinds: Sequence[str] = KINDS) -> None:
        known = set(catalog.quantities)
        found = [
            pair
            for name, profile in rules.profiles.items()
            if profile.quantity in known
            for pair in _of_profile(name, profile)
            if pair[0].kind in kinds
        ]
        if not found:
            raise SettingsError(
                "--solve: no profile of the rules has limits that this catalog's sensors feel"
            )
        self.knobs = tuple(knob for knob, _ in found)
        space = Space(vary=tuple(vary for _, vary in found), file="--solve")
        self.settings = Settings(space, rules, catalog)

    def cost(self, values: Values) -> float:
        """Return what values cost against the given rules."""
        return sum(knob.cost(value) for knob, value in zip(self.knobs, values, strict=True))

    def moves(self, values: Values) -> Iterator[tuple[int, Values]]:
        """Yield the number of each knob, and the values with that one turned otherwise."""
        for number, knob in enumerate(self.knobs):
            for choice in knob.choices:
                if choice != values[number]:
                    yield number, _turned(values, number, choice)

    def back(self, values: Values) -> Iterator[Values]:
        """Yield the values with one knob nearer to the given rules."""
        for number, knob in enumerate(self.knobs):
            at = knob.choices.index(values[number])
            step = 1 if knob.home > at else -1
            for place in range(at + step, knob.home + step, step) if at != knob.home else ():
                yield _turned(values, number, knob.choices[place])

    def keenest(self, values: Values) -> Iterator[Values]:
        """Yield the values with one profile's limits and delays as keen as can be; then with all.

        Half as keen, too: the rules refuse limits that come too near to others.
        """
        profiles = dict.fromkeys(knob.profile for knob in self.knobs)
        for share in (0.0, 0.5):
            for among in (*((name,) for name in profiles), tuple(profiles)):
                keen = list(values)
                for number, knob in enumerate(self.knobs):
                    if knob.profile not in among or knob.kind not in ("high", "low", "on-delay"):
                        continue
                    places = sorted(range(len(knob.choices)), key=lambda at: knob.choices[at])
                    if knob.kind == "low":
                        places.reverse()
                    keen[number] = knob.choices[places[int(places.index(knob.home) * share)]]
                yield tuple(keen)

    def joined(self, values: Values, others: Sequence[Values]) -> Values:
        """Return values with all that others turn otherwise."""
        made = values
        for other in others:
            for number, (given, theirs) in enumerate(zip(values, other, strict=True)):
                if theirs != given:
                    made = _turned(made, number, theirs)
        return made


def _turned(values: Values, number: int, choice: float) -> Values:
    return (*values[:number], choice, *values[number + 1 :])


def _of_profile(name: str, profile: Profile) -> Iterator[tuple[Knob, Vary]]:
    limits = profile.limits
    ladders = {"high": limits.high, "low": limits.low}
    if not any(ladder.named() for ladder in ladders.values()):
        return
    key = dotted(("profiles", name, "limits"))
    yield _knob(name, "deadband", _deadbands(limits), limits.deadband, key=f"{key}.deadband")
    for kind in ("off-delay", "on-delay"):
        delays = getattr(limits, f"{kind.replace('-', '_')}_s")
        path = f"{key}.{kind.replace('-', '_')}_s"
        if any(getattr(delays, level) for level in LEVELS):
            yield _knob(name, kind, _LONGER, 1.0, scale=(path,))
        else:
            yield _knob(name, kind, _SECONDS, 0.0, same=(path,))
    for side, ladder in ladders.items():
        if ladder.named():
            unit = _unit_step(ladder)
            sign = 1 if side == "high" else -1
            shifts = [round(sign * unit * share, 9) + 0.0 for share in _SHIFTS]
            yield _knob(name, side, shifts, 0.0, shift=(f"{key}.{side}",))


def _knob(
    profile: str,
    kind: str,
    choices: Sequence[float],
    home: float,
    *,
    key: str | None = None,
    scale: tuple[str, ...] | None = None,
    shift: tuple[str, ...] | None = None,
    same: tuple[str, ...] | None = None,
) -> tuple[Knob, Vary]:
    kept = tuple(dict.fromkeys(float(choice) for choice in choices))
    knob = Knob(profile=profile, kind=kind, choices=kept, home=kept.index(home))
    title = f"{profile} {kind}"
    return knob, Vary(name=title, key=key, scale=scale, shift=shift, same=same, values=kept)


def _deadbands(limits: Limits) -> list[float]:
    """Return wider deadbands, the given one first; those that are too wide the rules refuse."""
    base = limits.deadband
    steps = [_unit_step(ladder) for ladder in (limits.high, limits.low) if ladder.named()]
    if base > 0:
        return [base, *(float(f"{base * factor:.6g}") for factor in _WIDER)]
    return [0.0, *(float(f"{min(steps) * share:.6g}") for share in _FRACTIONS)]


def _unit_step(ladder: Ladder) -> float:
    """Return the smallest step between two levels, or a fifth of the only limit."""
    named = ladder.named()
    step = ladder.step()[0]
    return step if len(named) > 1 else abs(named[0][1]) / 5 or 1.0

"""What a review of a change of rules may refuse: conditions that end `tocsin diff` with code 1.

A condition reads `NAME[:AMOUNT][:LEVEL]`; several are separated by commas:

| condition | met if |
|---|---|
| `any` | any episode differs in its levels or their times |
| `missed[:LEVEL]` | an episode comes to the level (blue) under the old rules alone |
| `new[:LEVEL]` | … under the new rules alone |
| `later:TIME[:LEVEL]` | an episode of both comes to the level later by more than the time (0 s) |
| `earlier:TIME[:LEVEL]` | … earlier … |
| `lower`, `higher` | an episode of both has a lower, or higher, peak |
| `shorter:TIME`, `longer:TIME` | … is above normal for less, more, by over the time |
| `more:N`, `more:N%` | the new rules send more alerts, by over N or N % of the old ones' |
| `fewer:N`, `fewer:N%` | … fewer … |
| `lost` | with a truth: an incident that the old rules find is missed |
| `found-later:TIME` | with a truth: an incident of both is found later by more than the time |
| `false:N` | with a truth: there are more false alarms, by over N (0) |

For most changes, `missed,found-later:30s,more:10%` says what a reviewer cares about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.rules_base import one_of
from kernels.layout import LEVEL_NAMES

if TYPE_CHECKING:
    from engine.analysis.diffs.diff import Diff, Group

TIMED = ("later", "earlier", "shorter", "longer", "found-later")
COUNTED = ("more", "fewer", "false")
LEVELLED = ("missed", "new", "later", "earlier")
OF_TRUTH = ("lost", "found-later", "false")
NAMES = (
    "any", "missed", "new", "later", "earlier", "lower", "higher", "shorter", "longer", "more",
    "fewer", "lost", "found-later", "false",
)  # fmt: skip
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition."""

    text: str
    name: str
    amount: float = 0.0
    """Milliseconds, a number, or per cent."""
    level: int = 1
    per_cent: bool = False

    @property
    def needs_truth(self) -> bool:
        """Whether it can only be told with a truth."""
        return self.name in OF_TRUTH

    def met(self, diff: Diff) -> str | None:
        """Return what meets the condition, None if nothing does."""
        found = list(self._found(diff))
        if not found:
            return None
        if self.name in COUNTED:
            return f"{self.text}: {found[0]}"
        some = ", ".join(found[:_NAMED]) + ", …" * (len(found) > _NAMED)
        what = "incident" if self.needs_truth else "episode"
        return f"{self.text}: {len(found):,} {what}{'s' * (len(found) > 1)}: {some}"

    def _found(self, diff: Diff) -> Iterator[str]:
        if self.name in ("more", "fewer"):
            old, new = len(diff.old_steps), len(diff.new_steps)
            grown = new - old if self.name == "more" else old - new
            if grown > (self.amount * old / 100 if self.per_cent else self.amount):
                yield f"{old:,} → {new:,} alerts"
        elif self.needs_truth:
            yield from self._found_of_truth(diff)
        else:
            for group in diff.differing:
                if self._is_met_by(group):
                    yield _called(group)

    def _found_of_truth(self, diff: Diff) -> Iterator[str]:
        if diff.against is None:
            return
        if self.name == "false":
            old, new = len(diff.against.old.false), len(diff.against.new.false)
            if new - old > self.amount:
                yield f"{old:,} → {new:,} false alarms"
            return
        for verdict in diff.against.verdicts:
            called = f"{verdict.incident.kind} at {verdict.incident.source}"
            if self.name == "lost":
                if verdict.change == "lost":
                    yield called
            elif verdict.change == "later":
                assert verdict.old_ms is not None and verdict.new_ms is not None
                if verdict.new_ms - verdict.old_ms > self.amount:
                    yield called

    def _is_met_by(self, group: Group) -> bool:
        old, new = group.peaks
        if self.name == "any":
            return True
        if self.name in ("missed", "new"):
            had, has = (old, new) if self.name == "missed" else (new, old)
            return had >= self.level > has
        if group.old is None or group.new is None:
            return False
        if self.name in ("lower", "higher"):
            return new < old if self.name == "lower" else new > old
        if self.name in ("shorter", "longer"):
            sign = 1 if self.name == "longer" else -1
            return sign * group.longer_ms > self.amount
        shift_ms = group.later_ms(self.level)
        sign = 1 if self.name == "later" else -1
        return shift_ms is not None and sign * shift_ms > self.amount


def _called(group: Group) -> str:
    side = group.old or group.new
    assert side is not None and side.alert_id is not None
    return side.alert_id


def parse_gates(text: str) -> list[Gate]:
    """Return the conditions of a text; ValueError says what is wrong with one of them."""
    return [_gate(each.strip()) for each in text.split(",") if each.strip()]


def _gate(text: str) -> Gate:
    name, *rest = text.split(":")
    if name not in NAMES:
        raise ValueError(f"{text!r}: no such condition{one_of(name, NAMES)}")
    amount, level, per_cent = 0.0, 1, False
    for part in rest:
        if name in LEVELLED and part in LEVEL_NAMES[1:]:
            level = LEVEL_NAMES.index(part)
            continue
        number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|[a-z]*)", part)
        unit = number[2] if number else ""
        if number and name in TIMED and (unit in _SECONDS or not unit):
            amount = float(number[1]) * _SECONDS[unit or "s"] * 1000
        elif number and name in COUNTED and (not unit or (unit == "%" and name != "false")):
            amount, per_cent = float(number[1]), unit == "%"
        else:
            raise ValueError(f"{text!r}: {part!r} {_takes(name)}")
    return Gate(text, name, amount, level, per_cent)


def _takes(name: str) -> str:
    takes = []
    if name in TIMED:
        takes.append("a time such as 30s, 5min or 2h")
    if name in COUNTED:
        takes.append("a number" + (" or a per cent" if name != "false" else ""))
    if name in LEVELLED:
        takes.append(f"a level ({', '.join(LEVEL_NAMES[1:])})")
    said = " or ".join(takes) or "nothing"
    return f"can't be: {name} takes {said} after the colon"

"""What is given to the functions of `engine.api`, in each of the ways in which it may be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from engine import zones
from engine.analysis.past import Past
from engine.errors import InputError, RulesError
from engine.history import Span
from engine.rules import Rules
from engine.truth import Incident, read_truth

RulesLike = Rules | Path | str
TruthLike = Sequence[Incident] | Path | str
When = datetime | int | str


def rules_of(given: RulesLike) -> Rules:
    """Return the rules of a file, or of TOML text, which has more than one line."""
    if isinstance(given, Rules):
        return given
    if isinstance(given, str) and "\n" in given:
        return Rules.parse(given)
    return Rules.load(given)


def changed_rules(given: RulesLike, changes: Mapping[str, float]) -> Rules:
    """Return rules with other numbers at some keys; see `engine.api.changed`."""
    from engine.analysis.tuning import space as spaces
    from engine.analysis.tuning.choice import together
    from engine.analysis.tuning.chosen import Change, rewritten
    from engine.analysis.tuning.settings import Refused, Settings, unit_of

    rules = rules_of(given)
    if not changes:
        return rules
    vary = [
        f"[[vary]]\nname = {name}\nsame = [{name}]\nvalues = [{float(value)!r}]\n"
        for name, value in ((json.dumps(key), value) for key, value in changes.items())
    ]
    settings = Settings(spaces.parse("version = 1\n" + "".join(vary), file="changes"), rules)
    values = tuple(float(value) for value in changes.values())
    try:
        made = settings.rules_of(values)
    except Refused as error:
        raise RulesError(f"the rules refuse the changes: {error}") from error
    found = [
        Change(path=path, old=old, new=new, unit=unit_of(rules, path))
        for parameter, value in zip(settings.parameters, values, strict=True)
        # no number at all where the value is what the rules have
        for (path, new), old in zip(parameter.numbers(value), parameter.bases, strict=False)
        if new != old
    ]
    return Rules.parse(rewritten(rules, made, list(together(found)), ())) if found else rules


def incidents_of(given: TruthLike, rules: Rules | None) -> list[Incident]:
    """Return the incidents of a truth file; times without a zone are those of the rules' site."""
    if not isinstance(given, Path | str):
        return list(given)
    return read_truth(Path(given), "UTC" if rules is None else rules.time.utc_offset)


def span(of: Past, since: When | None, until: When | None) -> Span:
    """Return a time; InputError for what is no time, or ends before it begins."""
    zone = zones.zone(of.adapter.time.zone)
    ends = [
        None if when is None else instant_ms(name, when, zone)
        for name, when in (("since", since), ("until", until))
    ]
    found = Span(*ends)
    if found.is_empty:
        raise InputError(f"since: must be before until, got {since} and {until}")
    return found


def instant_ms(name: str, when: When, zone: zones.Zone) -> int:
    """Return epoch milliseconds; InputError that names what was given."""
    try:
        if isinstance(when, datetime):
            return zones.moment_ms(when, zone)
        return zones.instant_ms(str(when), zone)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name}: {error}, got {when!r}") from error


def check_word(name: str, word: str | None, known: Sequence[str]) -> None:
    """Raise ValueError for a word that is not known."""
    if word is not None and word not in known:
        raise ValueError(f"{name}: must be one of {', '.join(known)}, got {word!r}")


def check_number(name: str, number: float | None) -> None:
    """Raise ValueError for a number below 0 or without bounds."""
    if number is not None and not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{name}: must be at least 0, got {number}")

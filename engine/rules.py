"""The rules: one TOML file, strictly validated, frozen; RULES.md documents every key.

`Rules.load(path)` reads a file; it raises `RulesError` with every fault found, each with its line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from engine.rules_base import ANY, Flaw, Name, Path, Section, one_of, overridden
from engine.rules_fusion import (
    MAX_TERMS,
    Context,
    Coupling,
    Fusion,
    Levels,
    SignalRule,
    Term,
    Time,
    parse_term,
)
from engine.rules_profile import SECTION_OF_KIND, Absence, Profile
from engine.rules_routes import DEFAULT, MAX_ROUTES, Route, route_flaws
from engine.units import QUANTITIES
from kernels.layout import LEVEL_NAMES, MAX_EVENT_MS

_SCOPE = ("quantity", "categories")
_ANY_QUANTITY: Path = ("profiles", ANY, "quantity")


class Rules(Section):
    """Everything that turns readings into alerts."""

    version: Literal[1] = Field(examples=[1])
    name: Name = "unnamed"
    time: Time = Time()
    levels: Levels = Levels()
    profiles: Annotated[dict[Name, Profile], Field(max_length=10_000)] = Field(default={})
    absence: Absence = Absence()
    fusion: Fusion = Fusion()
    coupling: Coupling = Coupling()
    rules: Annotated[tuple[SignalRule, ...], Field(strict=False, max_length=1_000)] = ()
    context: Annotated[tuple[Context, ...], Field(strict=False, max_length=10_000)] = ()
    routes: Annotated[tuple[Route, ...], Field(strict=False, max_length=MAX_ROUTES)] = ()

    @field_validator("profiles", mode="before")
    @classmethod
    def _named_quantity(cls, profiles: Any) -> Any:
        if not isinstance(profiles, dict):
            return profiles
        return {
            name: {"quantity": name, **table} if isinstance(table, dict) else table
            for name, table in profiles.items()
        }

    @classmethod
    def load(cls, path: FilePath | str) -> Rules:
        """Return the rules of a file; RulesError lists every fault with its line."""
        from engine.rules_check import load

        return load(FilePath(path))

    @classmethod
    def parse(cls, text: str, *, file: str = "rules") -> Rules:
        """Return the rules of a TOML text; RulesError lists every fault with its line."""
        from engine.rules_check import parse

        return parse(text, file=file)

    @cached_property
    def digest(self) -> str:
        """BLAKE2b-128, in hex, of what the rules mean: comments, order and layout don't count."""
        meaning = self.model_dump(mode="json")
        for table, context in zip(meaning["context"], self.context, strict=True):
            table["start"], table["end"] = context.span_ms(self.time.zone())
        if not self.routes:
            # rules that were written before there were routes are still the same rules
            del meaning["routes"]
        text = json.dumps(meaning, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def text(self) -> str:
        """The TOML text that the rules were read from; empty for rules that were made otherwise."""
        return ""

    def profile_name(self, quantity: str, category: str) -> str | None:
        """Return the profile that watches a quantity at the sources of a category."""
        named = self._watchers.get((quantity, category))
        return named or self._watchers.get((quantity, None))

    @cached_property
    def _watchers(self) -> dict[tuple[str, str | None], str]:
        return {
            (profile.quantity, category): name
            for name, profile in self.profiles.items()
            for category in profile.categories or (None,)
        }

    def levels_of(self, category: str) -> Levels:
        """Return the levels of the score for a category, with its overrides merged."""
        change = self.fusion.categories.get(category)
        return overridden(self.levels, change.levels if change else None)

    @property
    def route_names(self) -> list[str]:
        """Return the names of all routes in their order; one of them takes the rest."""
        names = [route.name for route in self.routes]
        return names if self.rest_route in names else [*names, DEFAULT]

    @property
    def rest_route(self) -> str:
        """Return the name of the route that takes what no other does."""
        return next((route.name for route in self.routes if route.default), DEFAULT)

    def terms(self) -> list[Term]:
        """Return the distinct terms of all signal rules: of the source itself, then near ones."""
        texts = dict.fromkeys(
            text for rule in self.rules for text in (*rule.all, *rule.any, *rule.none)
        )
        return sorted(map(parse_term, texts), key=lambda term: term.near)

    def flaws(self) -> Iterator[Flaw]:
        yield from self._profile_flaws()
        yield from self._fusion_flaws()
        yield from self._signal_rule_flaws()
        yield from route_flaws(self.routes)
        zone = self.time.zone()
        for index, context in enumerate(self.context):
            start, end = context.span_ms(zone)
            about: tuple[Path, ...] = (("context", index, "from"), ("context", index, "to"))
            if (context.start.tzinfo is None) != (context.end.tzinfo is None):
                about += (("time", "utc_offset"),)
            for key, moment in (("from", start), ("to", end)):
                if not 0 <= moment <= MAX_EVENT_MS:
                    bound = "must lie between 1970 and 2100"
                    shown = str(context.start if key == "from" else context.end)
                    yield Flaw(("context", index, key), bound, shown, about)
            if start >= end:
                bound = f"must be after from, {context.start}"
                yield Flaw(("context", index, "to"), bound, str(context.end), about)

    def _profile_flaws(self) -> Iterator[Flaw]:
        taken: dict[tuple[str, str | None], str] = {}
        for name, profile in self.profiles.items():
            for category in profile.categories or (None,):
                other = taken.setdefault((profile.quantity, category), name)
                if other == name:
                    continue
                key: Path = ("profiles", name, "quantity")
                where = "without categories" if category is None else f"for category {category!r}"
                if category is not None:
                    key = ("profiles", name, "categories")
                bound = f"profile {other!r} watches {profile.quantity} {where} already"
                about = [("profiles", n, k) for n in (name, other) for k in _SCOPE]
                yield Flaw(key, bound, category, tuple(about))

    def _fusion_flaws(self) -> Iterator[Flaw]:
        known = {profile.quantity for profile in self.profiles.values()} | QUANTITIES.keys()
        tables: list[tuple[Path, dict[str, float]]] = [(("fusion",), self.fusion.weights)]
        for name, change in self.fusion.categories.items():
            tables.append((("fusion", "categories", name), change.weights))
        for key, weights in tables:
            for quantity in weights.keys() - known - {"default"}:
                nearest = one_of(quantity, sorted(known), all_if_none=False)
                bound = f"no profile watches this quantity{nearest}"
                yield Flaw((*key, "weights", quantity), bound, None, (_ANY_QUANTITY,))
        for name, change in self.fusion.categories.items():
            key = ("fusion", "categories", name)
            yield from _merge_flaws((*key, "levels"), ("levels",), self.levels, change.levels)
            base = ("fusion", "severity")
            severity = self.fusion.severity
            yield from _merge_flaws((*key, "severity"), base, severity, change.severity)

    def _signal_rule_flaws(self) -> Iterator[Flaw]:
        names: set[str] = set()
        for index, rule in enumerate(self.rules):
            if rule.name in names:
                yield Flaw(("rules", index, "name"), "must differ from other rules'", rule.name)
            names.add(rule.name)
            for key, term in rule.terms():
                problem = self._never(term)
                if problem:
                    about = (_ANY_QUANTITY, *self._sources_of(term))
                    yield Flaw(("rules", index, *key), problem, str(term), about)
        n_terms = len(self.terms())
        if n_terms > MAX_TERMS:
            yield Flaw(("rules",), f"must have at most {MAX_TERMS} different terms", n_terms)

    def _sources_of(self, term: Term) -> tuple[Path, ...]:
        """Return the keys that decide which levels a term's kind of signal has."""
        section = SECTION_OF_KIND[term.kind]
        names = [name for name, p in self.profiles.items() if p.quantity == term.quantity]
        return ("absence",), *(("profiles", name, section) for name in names)

    def _never(self, term: Term) -> str | None:
        """Return why a term can never hold."""
        profiles = [p for p in self.profiles.values() if p.quantity == term.quantity]
        absence = LEVEL_NAMES.index(self.absence.level) if self.absence.after else 0
        if not profiles:
            if term.quantity in QUANTITIES and term.kind == "absence" and absence >= term.level:
                return None
            known = sorted({profile.quantity for profile in self.profiles.values()})
            return f"no profile watches {term.quantity!r}{one_of(term.quantity, known)}"
        if max(p.reachable(term.kind, self.absence) for p in profiles) >= term.level:
            return None
        level = LEVEL_NAMES[term.level]
        return f"no profile of {term.quantity} has a {term.kind} signal of {level} or above"


def _merge_flaws(key: Path, base: Path, section: Section, change: Section | None) -> Iterator[Flaw]:
    """Yield what is wrong with a category's overrides once they are merged."""
    try:
        overridden(section, change)
    except ValidationError as error:
        for each in error.errors():
            for flaw in each.get("ctx", {}).get("flaws", ()):
                where = (*key, *each["loc"], *flaw.key)
                yield Flaw(
                    where,
                    f"{flaw.problem} (with what {'.'.join(map(str, base))} gives)",
                    flaw.value,
                    (base,),
                )

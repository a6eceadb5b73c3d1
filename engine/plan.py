"""The plan: rules and catalog compiled into the arrays that the kernels read.

`compile_plan` gives every sensor a row of parameters, one row for each distinct category, profile,
unit and set of the sensor's own limits, and every coupling, rule and context its record.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.errors import Fault, RulesError
from engine.plan_params import SIGMA
from engine.plan_rows import Rows, compile_rows
from engine.rules import Rules
from engine.rules_base import Ladder, level_number, one_of, to_ms
from engine.rules_profile import PER_MS, Profile
from engine.units import display_unit
from kernels.layout import (
    ABSENCE,
    BAD,
    CATEGORY,
    CONTEXT,
    COUNT,
    DEVIATION,
    DRIFT,
    FALL,
    FLATLINE,
    HIGH,
    KIND_NAMES,
    LOW,
    RISE,
    SIGNAL_RULE,
    SPIKE,
    TERM,
    WINDOW,
)

if TYPE_CHECKING:
    from engine.catalog import Catalog

MAX_CATEGORIES = 64
"""Rules and contexts hold their categories as bits of one word."""
ALL = -1
_NO_SUCH_QUANTITY = -2

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the kernels need to know of rules and catalog.

    S sensors, C categories, P rows of parameters, W windows of profiles. Row 0 of `params` is inert
    and no sensor's; a sensor without a profile has a row of its category and quantity.
    """

    catalog: Catalog
    rules: Rules
    digest: str
    params: Array
    """(P,) PARAMS"""
    row: Array
    """(S,) uint32, the sensor's row of `params`"""
    window_params: Array
    """(W,) WINDOW_PARAMS, a profile's windows one after the other from `params.first_window`"""
    more_start: Array
    """(S + 1,) int64, where the panes of a sensor's windows after the first begin"""
    season_start: Array
    """(S + 1,) int64, where the season bins of a sensor begin"""
    absent_ms: Array
    """(S,) int64, silence that makes the sensor absent; 0: never"""
    category: Array
    """(C,) CATEGORY, by the catalog's number of the category"""
    terms: Array
    """TERM, in the order of the signal rules' bits"""
    signal_rules: Array
    """SIGNAL_RULE, in the order of `rules.rules`"""
    contexts: Array
    """CONTEXT, by start; one record for each district of a context"""
    coupled_weight: Array
    """float64, weight × influence of each coupling, in the order of `catalog.coupled_origin`"""
    tick_ms: int
    late_after_ms: int
    max_ahead_ms: int
    max_late_ms: int
    profile_of_row: list[str | None]
    n_unprofiled: int
    """Sensors that no profile watches."""
    window_names: list[str]
    context_names: list[str]
    """Name of each record of `contexts`."""
    notes: tuple[Fault, ...]
    """What the rules name and the catalog does not have: no fault, but worth a look."""

    @cached_property
    def _per(self) -> dict[str, str]:
        return {
            name: profile.rate.per for name, profile in self.rules.profiles.items() if profile.rate
        }

    def unit(self, row: int) -> str:
        """Return the unit of a row's values as people write it; empty for a plain number."""
        name = self.profile_of_row[row]
        return "" if name is None else display_unit(self.rules.profiles[name].unit)

    def limit(
        self,
        row: int,
        kind: int,
        level: int,
        window: int = 0,
        *,
        value: float = math.nan,
        sensor: int = -1,
    ) -> float:
        """Return the limit of a signal's level as the rules write it; NaN where there is none.

        Rates are per `per`, deviation and drift in sigmas, absence in seconds (of the `sensor`).
        A window may have a high and a low limit at a level: the `value` tells which was crossed.
        """
        name = self.profile_of_row[row]
        if kind == ABSENCE:
            return float(self.absent_ms[sensor]) / 1000 if sensor >= 0 else math.nan
        if name is None or level < 1:
            return math.nan
        profile = self.rules.profiles[name]
        if kind in (FLATLINE, BAD, SPIKE):
            live = profile.liveness
            single = {FLATLINE: live.flat_after_n, BAD: live.bad_after_n, SPIKE: live.spike_at}
            return float(single[kind] or math.nan)
        if kind in (HIGH, LOW):
            limit = float(self.params["high" if kind == HIGH else "low"][row, level - 1])
            return limit if math.isfinite(limit) else math.nan
        high, low = (_limit(ladder, level) for ladder in _ladders(profile, kind, window))
        # on the side of the value, or on the only side there is
        return low if math.isnan(high) or value - low < high - value else high

    def statistic(self, row: int, kind: int, value: float, window: int = 0) -> tuple[float, str]:
        """Return a change's value as the rules write it, and its unit for people."""
        unit = self.unit(row)
        if kind in (RISE, FALL):
            per = self._per.get(self.profile_of_row[row] or "", "min")
            return value * PER_MS[per], f"{unit}/{per}"
        if kind in (DEVIATION, DRIFT):
            return value / SIGMA, "σ"
        if kind == WINDOW:
            number = int(self.params["first_window"][row]) + window
            counts = int(self.window_params["aggregate"][number]) == COUNT
            return value, "readings" if counts else unit
        fixed = {ABSENCE: "s", FLATLINE: "repeats", BAD: "readings"}
        return value, fixed.get(kind, unit)


_NONE = Ladder()


def _ladders(profile: Profile, kind: int, window: int) -> tuple[Ladder, Ladder]:
    """Return the ladders that a kind of signal climbs, upwards and downwards."""
    if kind == WINDOW:
        return profile.windows[window].high, profile.windows[window].low
    if kind in (RISE, FALL):
        rate = profile.rate
        return (_NONE if rate is None else rate.rise if kind == RISE else rate.fall), _NONE
    section = profile.deviation if kind == DEVIATION else profile.drift
    return (_NONE if section is None else section.raise_at), _NONE


def _limit(ladder: Ladder, level: int) -> float:
    return ladder.limits(math.nan)[level - 1]


def compile_plan(catalog: Catalog, rules: Rules) -> Plan:
    """Return the plan; RulesError if the rules don't fit the catalog."""
    if len(catalog.categories) > MAX_CATEGORIES:
        bound = f"the catalog must have at most {MAX_CATEGORIES} categories"
        fault = Fault(kind="catalog", problem=bound, value=len(catalog.categories))
        raise RulesError("the rules do not fit the catalog", faults=[fault])
    rows = compile_rows(catalog, rules)
    fusing = compile_fusing(catalog, rules)
    watched = np.array([name is not None for name in rows.profile_of_row])
    time = rules.time
    digest = hashlib.blake2b(f"{catalog.digest}\n{rules.digest}".encode(), digest_size=16)
    return Plan(
        catalog=catalog,
        rules=rules,
        digest=digest.hexdigest(),
        params=rows.params,
        row=rows.row,
        window_params=rows.window_params,
        more_start=_starts(np.maximum(rows.params["n_windows"] - 1, 0)[rows.row]),
        season_start=_starts(rows.params["season_bins"][rows.row]),
        absent_ms=_absent_ms(rows, catalog.period_ms),
        category=fusing.category,
        terms=fusing.terms,
        signal_rules=fusing.signal_rules,
        contexts=fusing.contexts,
        coupled_weight=fusing.coupled_weight,
        tick_ms=to_ms(time.tick_s),
        late_after_ms=to_ms(time.late_after_s),
        max_ahead_ms=to_ms(time.max_ahead_s),
        max_late_ms=to_ms(time.max_late_s),
        profile_of_row=rows.profile_of_row,
        n_unprofiled=int((~watched)[rows.row].sum()),
        window_names=rows.window_names,
        context_names=fusing.context_names,
        notes=(*rows.notes, *_notes(catalog, rules)),
    )


class Fusing(NamedTuple):
    """What fusion needs to know of rules and catalog; the fields are those of `Plan`."""

    category: Array
    terms: Array
    signal_rules: Array
    contexts: Array
    coupled_weight: Array
    context_names: list[str]


def compile_fusing(catalog: Catalog, rules: Rules) -> Fusing:
    """Return what fusion needs to know."""
    contexts, context_names = _contexts(catalog, rules)
    influence = np.array([rules.coupling.of(kind) for kind in catalog.coupling_kinds], np.float64)
    return Fusing(
        _categories(catalog, rules),
        *_signal_rules(catalog, rules),
        contexts,
        catalog.coupled_weight * _taken(influence, catalog.coupled_kind),
        context_names,
    )


def _starts(counts: Array) -> Array:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _taken(values: Array, index: Array) -> Array:
    return values[index] if len(values) else np.zeros(len(index))


def _absent_ms(rows: Rows, period_ms: Array) -> Array:
    silence = rows.absent_after[rows.row] * period_ms
    # 1.1 × 1000 is a hair more than 1100: a millionth of a millisecond doesn't round up
    return np.ceil(silence - 1e-6).astype(np.int64)


def _categories(catalog: Catalog, rules: Rules) -> Array:
    records = np.zeros(len(catalog.categories), CATEGORY)
    for record, name in zip(records, catalog.categories, strict=True):
        fusion, levels = rules.fusion.of(name), rules.levels_of(name)
        record["half_life_ms"] = to_ms(fusion.half_life_s)
        record["raise_at"] = levels.raise_at.limits()
        record["deadband"], record["hold_ms"] = levels.deadband, to_ms(levels.hold_s)
        factor = fusion.class_factor
        record["class_factor"] = (factor.none, factor.blue, factor.yellow, factor.red)
    return records


def _mask(names: Iterable[str] | None, known: list[str]) -> int:
    if names is None:
        return ALL
    return _word(1 << known.index(name) for name in names if name in known)


def _word(bits: Iterable[int]) -> int:
    """Return 64 bits as the signed number of the same bits."""
    mask = sum(bits)
    return mask - (1 << 64) if mask >> 63 else mask


def _signal_rules(catalog: Catalog, rules: Rules) -> tuple[Array, Array]:
    terms = rules.terms()
    bit = {str(term): 1 << number for number, term in enumerate(terms)}
    number = {name: index for index, name in enumerate(catalog.quantities)}
    records = np.zeros(len(terms), TERM)
    for record, term in zip(records, terms, strict=True):
        record["quantity"] = number.get(term.quantity, _NO_SUCH_QUANTITY)
        record["kind"], record["level"] = KIND_NAMES.index(term.kind), term.level
        record["near"] = term.near
    signal_rules = np.zeros(len(rules.rules), SIGNAL_RULE)
    for record, rule in zip(signal_rules, rules.rules, strict=True):
        for key in ("all", "any", "none"):
            record[key] = _word(bit[text] for text in set(getattr(rule, key)))
        record["categories"] = _mask(rule.categories, catalog.categories)
        record["level"] = level_number(rule.level)
    return records, signal_rules


def _contexts(catalog: Catalog, rules: Rules) -> tuple[Array, list[str]]:
    zone = rules.time.zone()
    found = []
    for context in rules.context:
        start, end = context.span_ms(zone)
        mask = _mask(context.categories, catalog.categories)
        districts = [-1]
        if context.districts is not None:
            known = catalog.districts
            districts = [known.index(name) for name in context.districts if name in known]
        for district in districts if mask else ():
            found.append((start, end, mask, district, 0, context.factor, context.name))
    found.sort(key=lambda record: record[:2])
    return np.array([record[:6] for record in found], CONTEXT), [record[6] for record in found]


def _notes(catalog: Catalog, rules: Rules) -> Iterator[Fault]:
    """Yield the names in the rules that the catalog does not have."""

    def missing(key: str, names: Iterable[str] | None, known: list[str], what: str) -> Any:
        for name in names or ():
            if name not in known:
                nearest = one_of(name, known, all_if_none=False)
                problem = f"the catalog has no {what} of this name{nearest}"
                yield Fault(kind="note", key=key, value=name, problem=problem)

    for name, profile in rules.profiles.items():
        key = f"profiles.{name}"
        yield from missing(f"{key}.quantity", [profile.quantity], catalog.quantities, "quantity")
        yield from missing(f"{key}.categories", profile.categories, catalog.categories, "category")
    yield from missing("fusion.categories", rules.fusion.categories, catalog.categories, "category")
    kinds = [kind for kind in rules.coupling.influence if kind != "default"]
    yield from missing("coupling.influence", kinds, catalog.coupling_kinds, "kind of coupling")
    for index, rule in enumerate(rules.rules):
        key = f"rules[{index}].categories"
        yield from missing(key, rule.categories, catalog.categories, "category")
    for index, context in enumerate(rules.context):
        key = f"context[{index}]"
        yield from missing(f"{key}.categories", context.categories, catalog.categories, "category")
        yield from missing(f"{key}.districts", context.districts, catalog.districts, "district")
    for index, route in enumerate(rules.routes):
        key = f"routes[{index}]"
        yield from missing(f"{key}.categories", route.categories, catalog.categories, "category")
        yield from missing(f"{key}.districts", route.districts, catalog.districts, "district")
        departments = catalog.departments
        yield from missing(f"{key}.departments", route.departments, departments, "department")

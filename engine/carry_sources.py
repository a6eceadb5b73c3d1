"""Which sources the next tick judges again after a carry-over: those that may be judged otherwise.

A source that is judged when nothing changed would begin a hold too early: so only those are, and
only where there is anything to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.carry_rows import Pairs
from engine.pipeline import Pipeline
from engine.plan import Plan
from kernels.layout import KIND_NAMES, NEVER

if TYPE_CHECKING:
    from engine.carry import Held

Array = np.ndarray[Any, Any]
_ALL_64 = (1 << 64) - 1


def judge_again(
    held: Held,
    line: Pipeline,
    pairs: Pairs,
    sensor_origin: Array,
    source_origin: Array,
    before: Array,
    clock: Array,
) -> int:
    """Put on the agenda what the next tick must judge again; return how many sources.

    ``before`` are the signals as copied; the pipeline's are in line with the new parameters.
    """
    now_ms = int(clock["watermark_ms"][0])
    if now_ms == NEVER:
        return 0
    city = _City(held, line, sensor_origin, source_origin)
    signal = line.state.of_sources(*line.sources)["signal"]
    told = (signal["levels"] != 0) | (signal["held"] != 0)
    names = ("levels", "held", "which", "value")
    moved = np.any([_differ(signal[n], before[n]) for n in names], axis=0)
    known = sensor_origin >= 0
    weighed = known & ~pairs.same_weights[pairs.of_sensor] & told
    touched = city.by_source((known & moved) | weighed) | city.lost_signals()
    source = line.state.source[slice(*line.sources)]
    own = city.by_source(told)
    loud = own | (source["level"] > 0) | (source["score"] > 0) | (source["below_ms"] != NEVER)
    near = city.from_origins(own | touched)
    again = touched | city.from_origins(touched)
    again |= (loud | near) & (city.other_category() | city.other_factor(now_ms))
    again |= (loud | near) & city.other_rules()
    again |= near & (city.other_coupling() | city.from_origins(city.other_fading()))
    chosen = np.flatnonzero(again)
    waits = source["place"][chosen] >= 0
    due_ms = np.where(waits, np.minimum(source["due_ms"][chosen], now_ms), now_ms)
    source["due_ms"][chosen] = due_ms
    source["place"][chosen] = 0  # anywhere: `rejoin` finds its place
    return len(chosen)


def _differ(a: Array, b: Array) -> Array:
    different = a != b
    return different & ~((a != a) & (b != b)) if a.dtype.kind == "f" else different


class _City:
    """The sources of a pipeline, in both catalogs; results are (sources,) bool."""

    def __init__(
        self, held: Held, line: Pipeline, sensor_origin: Array, source_origin: Array
    ) -> None:
        self.held, self.line = held, line
        self.old, self.new = held.plan, line.plan
        self.first, self.last = line.sources
        self.sensor_origin, self.source_origin = sensor_origin, source_origin
        self.known = source_origin >= 0
        self.was = np.maximum(source_origin, 0)
        self.same_catalog = self.old.catalog.digest == self.new.catalog.digest

    def by_source(self, sensors: Array) -> Array:
        """Return which sources have one of some sensors (bool, by place in the pipeline)."""
        found = np.zeros(self.last - self.first, bool)
        at = np.flatnonzero(sensors) + self.line.sensors[0]
        found[self.new.catalog.sensor_source[at] - self.first] = True
        return found

    def from_origins(self, sources: Array) -> Array:
        """Return which sources one of some sources is coupled into."""
        city = self.new.catalog
        found = np.zeros(len(sources), bool)
        for source in np.flatnonzero(sources) + self.first:
            start, end = city.coupling_start[[source, source + 1]]
            found[city.coupling_target[start:end] - self.first] = True
        return found

    def lost_signals(self) -> Array:
        """Return which sources lost a sensor, or gave one away, that had something to say."""
        found = np.zeros(self.last - self.first, bool)
        if self.same_catalog:
            return found
        signal = self.held.parts["signal"]
        told = (signal["levels"] != 0) | (signal["held"] != 0)
        first = self.held.sensors[0]
        kept = np.flatnonzero(self.sensor_origin >= 0)
        home = self.new.catalog.sensor_source[kept + self.line.sensors[0]] - self.first
        then = self.old.catalog.sensor_source[self.sensor_origin[kept]]
        stayed = self.source_origin[home] == then
        told_moved = told[self.sensor_origin[kept] - first] & ~stayed
        found[home[told_moved]] = True
        told[self.sensor_origin[kept[stayed]] - first] = False
        lost = self.old.catalog.sensor_source[np.flatnonzero(told) + first]
        return found | (self.known & np.isin(self.source_origin, lost))

    def other_category(self) -> Array:
        """Return which sources fuse by other numbers than before."""
        old, new = self._categories()
        return self.known & (self.old.category[old] != self.new.category[new])

    def other_fading(self) -> Array:
        """Return which sources' severity fades at another pace than before."""
        old, new = self._categories()
        pace = self.old.category["half_life_ms"][old] != self.new.category["half_life_ms"][new]
        return self.known & pace

    def _categories(self) -> tuple[Array, Array]:
        new = self.new.catalog.category[self.first : self.last]
        return self.old.catalog.category[self.was], new

    def other_factor(self, now_ms: int) -> Array:
        """Return which sources have another factor now: class and contexts in force."""
        now = _factor(self.new, np.arange(self.first, self.last), now_ms)
        return self.known & (now != _factor(self.old, self.was, now_ms))

    def other_rules(self) -> Array:
        """Return which sources have other signal rules than before."""
        old, new = self._categories()
        before, now = _rules_by_category(self.old), _rules_by_category(self.new)
        differ = np.array([[a != b for b in now] for a in before], bool)
        return self.known & differ[old, new]

    def other_coupling(self) -> Array:
        """Return which sources are coupled to others, or by other weights, than before."""
        old, new = self.old, self.new
        other = np.zeros(self.last - self.first, bool)
        if self.same_catalog:
            span = new.catalog.coupled_start[[self.first, self.last]]
            weights = slice(int(span[0]), int(span[1]))
            moved = np.flatnonzero(old.coupled_weight[weights] != new.coupled_weight[weights])
            starts = new.catalog.coupled_start[self.first : self.last + 1]
            other[np.searchsorted(starts, moved + span[0], side="right") - 1] = True
            return other
        for place in np.flatnonzero(self.known).tolist():
            other[place] = self._coupled(place) != self._coupled_before(int(self.was[place]))
        return other

    def _coupled(self, place: int) -> list[tuple[int, float]]:
        city = self.new.catalog
        start, end = city.coupled_start[[place + self.first, place + self.first + 1]]
        origins = self.source_origin[city.coupled_origin[start:end] - self.first]
        return sorted(
            zip(origins.tolist(), self.new.coupled_weight[start:end].tolist(), strict=True)
        )

    def _coupled_before(self, source: int) -> list[tuple[int, float]]:
        city = self.old.catalog
        start, end = city.coupled_start[[source, source + 1]]
        origins = city.coupled_origin[start:end].tolist()
        return sorted(zip(origins, self.old.coupled_weight[start:end].tolist(), strict=True))


def _factor(plan: Plan, source: Array, now_ms: int) -> Array:
    """Return each source's factor; as `kernels.fuse.factor_of`."""
    city = plan.catalog
    category, district = city.category[source].astype(np.int64), city.district[source]
    factor = plan.category["class_factor"][category, city.static_class[source]].astype(np.float64)
    for context in plan.contexts:
        if context["from_ms"] <= now_ms < context["to_ms"]:
            inside = int(context["categories"]) >> category & 1 == 1
            if context["district"] >= 0:
                inside &= district == context["district"]
            factor = np.where(inside, factor * context["factor"], factor)
    return factor


def _rules_by_category(plan: Plan) -> list[list[Any]]:
    """Return the signal rules of each category, each as (level, all, any, none) of its terms."""
    names = getattr(plan.catalog, "quantities", None)
    terms = []
    for term in plan.terms:
        number = int(term["quantity"])
        quantity = names[number] if names is not None and number >= 0 else number
        kind, level, near = KIND_NAMES[term["kind"]], int(term["level"]), int(term["near"])
        terms.append((quantity, kind, level, near))

    def named(mask: int) -> frozenset[Any]:
        word = mask & _ALL_64
        return frozenset(term for bit, term in enumerate(terms) if word >> bit & 1)

    rules = [
        (int(rule["categories"]), (int(rule["level"]), *map(named, map(int, _masks(rule)))))
        for rule in plan.signal_rules
    ]
    return [
        [rule for categories, rule in rules if categories >> number & 1]
        for number in range(len(plan.category))
    ]


def _masks(rule: Any) -> tuple[Any, Any, Any]:
    return rule["all"], rule["any"], rule["none"]

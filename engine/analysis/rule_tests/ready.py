"""From a file's tests to what can be run: worlds, times in milliseconds, readings in their order.

Names that the world does not have, and times that don't fit, are faults; all of a file's are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np

from engine import commands
from engine.analysis.rule_tests import series
from engine.analysis.rule_tests.file import (
    Case,
    Command,
    Expect,
    ExpectAlert,
    Loaded,
    Pair,
    Readings,
    Written,
    refuse,
)
from engine.analysis.rule_tests.world import Builder, City, Own, World
from engine.errors import CommandError, Fault, InputError
from engine.rules import Rules
from engine.rules_base import Path, one_of
from kernels.layout import MAX_EVENT_MS

Array = np.ndarray[Any, Any]

DEFAULT_START = datetime(2025, 1, 1)
"""The site's midnight at which a test begins that names no other time."""
MAX_TICKS = 50_000_000
MAX_SHOWN = 6


class Check(NamedTuple):
    """One expectation: times in epoch milliseconds, both ends within."""

    expect: Expect | ExpectAlert
    line: int
    source: int | None
    at_ms: tuple[int, ...]
    span_ms: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A test that can be run."""

    loaded: Loaded
    written: Written
    world: World
    line: int
    start_ms: int
    end_ms: int
    arrival_ms: Array
    """(R,) int64, ascending: when each reading stands in the log"""
    event_ms: Array
    sensor: Array
    value: Array
    quality: Array
    commands: tuple[tuple[int, commands.Command], ...]
    checks: tuple[Check, ...]

    @property
    def name(self) -> str:
        """The name of the test."""
        return self.written.case.name


def prepare(loaded: Loaded, rules: Rules, catalog: FilePath | None = None) -> list[Ready]:
    """Return the tests of a file, ready to run under some rules; InputError with all faults.

    `catalog` stands for the one that the file names.
    """
    name = loaded.suite.catalog
    if catalog is None and name is not None:
        catalog = loaded.beside(name)
    city = None if catalog is None else City.open(catalog)
    faults: list[Fault] = []
    used = dict.fromkeys(
        source for test in loaded.tests for source in _from_catalog(loaded, test, city)
    )
    builder = Builder(loaded, rules, city, list(used))
    ready = []
    for test in loaded.tests:
        try:
            world = builder.world(Own(test.key, test.case.sources, test.case.couplings))
        except InputError as error:
            # one fault of the shared sources is not told once for every test
            faults += [fault for fault in error.faults if fault not in faults]
            if not error.faults:
                raise
            continue
        found = _Preparation(loaded, test, world, rules)
        one = found.ready()
        faults += found.faults
        if one is not None:
            ready.append(one)
    refuse(loaded.path, faults)
    return ready


def _from_catalog(loaded: Loaded, test: Written, city: City | None) -> Iterator[str]:
    """Yield the sources of the catalog that a test names, by themselves or by a sensor."""
    if city is None:
        return
    own = loaded.suite.sources | test.case.sources
    own_sensors = {name for source in own.values() for name in source.sensors}
    sources, sensors = _named(test)
    for name in sensors:
        source = None if name in own_sensors else city.source_of(name)
        if source is not None:
            yield source
    for name in sources:
        if name not in own and city.has(name):
            yield name


def _named(test: Written) -> tuple[list[str], list[str]]:
    """Return the sources and the sensors that a test names."""
    case = test.case
    sources = [command.source for command in test.commands if command.source]
    sources += [name for couple in case.couplings for name in (couple.from_, couple.to)]
    sensors = list(case.readings)
    for expect in test.expects:
        sources += [expect.source] if expect.source else []
        if isinstance(expect, Expect):
            sensors += [expect.sensor] if expect.sensor else []
        else:
            sources += [expect.coupled_from] if expect.coupled_from else []
            sensors += expect.sensors
    return sources, sensors


class _Preparation:
    """One test on its way to be run."""

    def __init__(self, loaded: Loaded, test: Written, world: World, rules: Rules) -> None:
        self.loaded, self.test, self.world, self.rules = loaded, test, world, rules
        self.zone = rules.time.zone()
        self.faults: list[Fault] = []
        self.start_ms = self._start_ms()

    def note(self, key: Path, problem: str, value: Any = None) -> None:
        self.faults.append(self.loaded.fault((*self.test.key, *key), problem, value))

    def ready(self) -> Ready | None:
        """Return the test; None, with faults noted, if anything of it does not fit."""
        case = self.test.case
        columns = self._columns()
        orders = tuple(self._commands())
        checks = tuple(self._checks())
        times = [self.start_ms, *(at_ms for at_ms, _ in orders)]
        times += [ms for check in checks for ms in (*check.at_ms, check.span_ms[1]) if ms > 0]
        if case.until is not None:
            times.append(self._ms(("until",), case.until))
        times.append(int(columns["arrival_ms"].max(initial=self.start_ms)))
        end_ms = max(times)
        n_ticks = (end_ms - self.start_ms) // self.world.plan.tick_ms
        if n_ticks > MAX_TICKS:
            bound = f"must take at most {MAX_TICKS:,} ticks of the rules' tick_s, takes"
            self.note((), bound, n_ticks)
        if end_ms >= MAX_EVENT_MS or self.start_ms < 0:
            self.note(("start",), "must lie between 1970 and 2100")
        if self.faults:
            return None
        return Ready(
            loaded=self.loaded,
            written=self.test,
            world=self.world,
            line=self.loaded.fault(self.test.key, "").line or 1,
            start_ms=self.start_ms,
            end_ms=end_ms,
            commands=orders,
            checks=tuple(self._until(check, end_ms) for check in checks),
            **columns,
        )

    @staticmethod
    def _until(check: Check, end_ms: int) -> Check:
        """Return an expectation about the whole test with the end of it."""
        first, last = check.span_ms
        return check._replace(span_ms=(first, end_ms if last < 0 else last))

    def _start_ms(self) -> int:
        given, shared = self.test.case.start, self.loaded.suite.start
        base = self._epoch_ms(shared if isinstance(shared, datetime) else DEFAULT_START)
        if isinstance(given, datetime):
            return self._epoch_ms(given)
        return base + (given or 0)

    def _epoch_ms(self, moment: datetime) -> int:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=self.zone)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

    def _ms(self, key: Path, moment: int | datetime) -> int:
        """Return a time in epoch milliseconds; one before the start is a fault."""
        ms = self._epoch_ms(moment) if isinstance(moment, datetime) else self.start_ms + moment
        if ms < self.start_ms:
            self.note(key, "must not be before the start of the test", str(moment))
        elif ms - self.start_ms > series.MAX_LENGTH_MS:
            self.note(key, "must be at most 366d after the start of the test", str(moment))
        return ms

    # Readings

    def _columns(self) -> dict[str, Array]:
        lists: dict[str, list[Any]] = {
            name: [] for name in ("arrival_ms", "event_ms", "sensor", "value", "quality")
        }
        for name, readings in self.test.case.readings.items():
            key: Path = ("readings", name)
            sensor = self.world.sensors.get(name)
            if sensor is None:
                self.note(key, self._unknown("sensor", name, self.world.sensors))
                continue
            for event_ms, value, quality in self._timed(key, sensor, readings):
                lists["arrival_ms"].append(event_ms + readings.delay)
                lists["event_ms"].append(event_ms)
                lists["sensor"].append(sensor)
                lists["value"].append(value)
                lists["quality"].append(quality)
        dtypes = (np.int64, np.int64, np.int32, np.float64, np.uint8)
        columns = {
            name: np.array(values, dtype)
            for (name, values), dtype in zip(lists.items(), dtypes, strict=True)
        }
        order = np.argsort(columns["arrival_ms"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

    def _timed(
        self, key: Path, sensor: int, readings: Readings
    ) -> Iterator[tuple[int, float, int]]:
        """Yield time, value and quality of a sensor's readings."""
        if isinstance(readings.values[0], Pair):
            before_ms = self.start_ms
            for number, pair in enumerate(readings.values, 1):
                at_ms = self._ms(key, pair.at)
                if number > 1 and at_ms < before_ms:
                    bound = f"pair {number}: times must not descend (delay makes readings late)"
                    self.note(key, bound, str(at_ms - self.start_ms))
                before_ms = at_ms
                yield at_ms, pair.value, pair.quality
            return
        case: Case = self.test.case
        period_ms = int(self.world.catalog.period_ms[sensor])
        every_ms = readings.every or case.every or self.loaded.suite.every or period_ms
        first_ms = self._ms((*key, "from"), readings.start)
        try:
            items = series.expand(readings.values, every_ms)
        except ValueError as error:
            self.note(key, str(error))
            return
        if items and items[-1].place * every_ms > series.MAX_LENGTH_MS:
            self.note(key, "must end at most 366d after the start of the test")
            return
        for item in items:
            yield first_ms + item.place * every_ms, item.value, item.quality

    # Commands

    def _commands(self) -> Iterator[tuple[int, commands.Command]]:
        for number, command in enumerate(self.test.commands):
            key: Path = ("commands", number)
            at_ms = self._ms((*key, "at"), command.at)
            try:
                parsed = commands.parse(self._order(key, command, at_ms, number))
            except CommandError as error:
                self.note(key, error.problem)
            else:
                yield at_ms, parsed

    def _order(self, key: Path, command: Command, at_ms: int, number: int) -> dict[str, Any]:
        scope, name = next(
            (
                (scope, getattr(command, scope))
                for scope in ("source", "district", "category")
                if getattr(command, scope)
            ),
            ("source", None),
        )
        catalog = self.world.catalog
        if scope == "source":
            index = self._source(key, name)
            name = self.world.source_ids[index] if index is not None else "-"
        else:
            known = catalog.districts if scope == "district" else catalog.categories
            if name not in known:
                self.note((*key, scope), self._unknown(scope, str(name), known))
        order = {
            commands.KEY: command.do,
            "event_ms": at_ms,
            "id": f"command-{number}",
            "by": "test",
            scope: name,
        }
        if command.do == "suppress":
            order["from_ms"] = at_ms
        if command.lasting is not None:
            order["until_ms"] = at_ms + command.lasting
        return order

    # Expectations

    def _checks(self) -> Iterator[Check]:
        for number, expect in enumerate(self.test.expects):
            key: Path = ("expect", number)
            line = self.loaded.fault((*self.test.key, *key), "").line or 1
            if isinstance(expect, Expect):
                at_ms = tuple(self._ms((*key, "at"), moment) for moment in expect.at)
                source = self._source_of(key, expect)
                self._names(key, "holds", expect.holds, self._rule_names)
                self._names(key, "holds_not", expect.holds_not, self._rule_names)
                yield Check(expect, line, source, at_ms, (0, 0))
            else:
                yield self._alert_check(key, line, expect)

    def _alert_check(self, key: Path, line: int, expect: ExpectAlert) -> Check:
        source = None
        if expect.source is not None:
            source = self._source(key, expect.source)
        if expect.coupled_from is not None:
            self._names(key, "coupled_from", [expect.coupled_from], self.world.sources)
        if expect.rule is not None:
            self._names(key, "rule", [expect.rule], self._rule_names)
        self._names(key, "sensors", expect.sensors, self.world.sensors)
        self._names(key, "routes", expect.routes, self.rules.route_names)
        span_ms = (self.start_ms, -1)
        if expect.at is not None:
            at_ms = self._ms((*key, "at"), expect.at)
            span_ms = (at_ms, at_ms)
        elif expect.between is not None:
            first, last = (self._ms((*key, "between"), moment) for moment in expect.between)
            if first > last:
                shown = [series.shown(ms - self.start_ms) for ms in (first, last)]
                self.note((*key, "between"), "must ascend", shown)
            span_ms = (first, last)
        return Check(expect, line, source, (), span_ms)

    @property
    def _rule_names(self) -> list[str]:
        return [rule.name for rule in self.rules.rules]

    def _source_of(self, key: Path, expect: Expect) -> int | None:
        """Return the source that an expectation is about: named, its sensor's, or the only one."""
        if expect.sensor is None:
            return self._source(key, expect.source)
        sensor = self.world.sensors.get(expect.sensor)
        if sensor is None:
            problem = self._unknown("sensor", expect.sensor, self.world.sensors)
            self.note((*key, "sensor"), problem)
            return None
        source = self.world.source_of(sensor)
        if expect.source not in (None, self.world.source_ids[source]):
            problem = f"{expect.sensor} is a sensor of {self.world.source_ids[source]}"
            self.note((*key, "source"), problem, expect.source)
        return source

    def _source(self, key: Path, name: str | None) -> int | None:
        """Return the index of a source; without a name, of the only one that has readings."""
        if name is not None:
            index = self.world.sources.get(name)
            if index is None:
                self.note((*key, "source"), self._unknown("source", name, self.world.sources))
            return index
        known = self.world.sensors
        heard = [known[sensor] for sensor in self.test.case.readings if sensor in known]
        sources = {self.world.source_of(sensor) for sensor in heard} or set(
            self.world.sources.values()
        )
        if len(sources) == 1:
            return sources.pop()
        names = [self.world.source_ids[index] for index in sorted(sources)]
        self.note(key, f"must name its source, one of {_some(names)}")
        return None

    def _names(self, key: Path, of: str, names: Iterable[str], known: Iterable[str]) -> None:
        for name in names:
            if name not in known:
                what = {"coupled_from": "source", "holds": "rule", "holds_not": "rule"}.get(of, of)
                self.note((*key, of), self._unknown(what.removesuffix("s"), name, known))

    def _unknown(self, what: str, name: str, known: Iterable[str]) -> str:
        """Say that a name is unknown, and which one was meant or which there are."""
        near = one_of(name, known, all_if_none=False)
        places = "the sources here"
        if what in ("rule", "route"):
            places = "the rules"
        elif self.loaded.suite.catalog is not None:
            places += " nor the catalog"
            return f"neither {places} have a {what} {name!r}{near}"
        return f"{places} have no {what} {name!r}{near or f'; there are {_some(list(known))}'}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return (", ".join(names[:MAX_SHOWN]) + more) or "none"

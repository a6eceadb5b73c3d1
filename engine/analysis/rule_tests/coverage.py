"""Coverage: watches the line while a test runs, and notes what of the rules it reached.

Between two records of the log the state tells which latches are closed, which signals are up and
which rules hold. How near a reading came to a limit is worked out from the state before it, by the
definitions of kernels/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.analysis.rule_tests.items import Items, Ladders, Watched
from engine.analysis.rule_tests.state import concerns, holding, level_of
from engine.analysis.rule_tests.world import World
from engine.pipeline import Pipeline
from engine.plan_params import SIGMA
from engine.readings import Readings
from engine.rules_profile import PER_MS
from kernels.deviation import season_bin
from kernels.layout import (
    ABSENCE,
    BAD,
    DEVIATION,
    DRIFT,
    FALL,
    FLATLINE,
    HIGH,
    LOW,
    N_LEVELS,
    NEVER,
    RISE,
    SPIKE,
)
from kernels.window import aggregate_window

Array = np.ndarray[Any, Any]

_KINDS = (RISE, FALL, DEVIATION, DRIFT, ABSENCE, FLATLINE, BAD, SPIKE)
_NOTHING = Watched()
_ABSENT = 7 << (3 * ABSENCE)


class Watch:
    """What one run of a test does to the items of its rules."""

    def __init__(self, items: Items, world: World, line: Pipeline, test: tuple[str, str]) -> None:
        self._items, self._world, self._line, self._test = items, world, line, test
        plan = world.plan
        self._of_row = [
            _NOTHING if name is None else items.profiles[name] for name in plan.profile_of_row
        ]
        self._row: list[int] = plan.row.tolist()
        self._latched = [0] * len(self._row)
        self._levels = [0] * len(self._row)
        self._scores = [0.0] * plan.catalog.n_sources
        self._beyond = [0] * plan.catalog.n_sources
        """Bit k: the score has been at the limit of level k, and not below its deadband since."""
        self._contexts = [
            (name, int(context["from_ms"]), int(context["to_ms"]), context)
            for name, context in zip(plan.context_names, plan.contexts, strict=True)
        ]
        self._rings: dict[tuple[int, int], int] = {}
        self._holding: dict[int, set[int]] = {}
        self._felt: set[int] = set()
        self._now_ms = NEVER

    def push(self, readings: Readings, log: Readings) -> Array:
        """Take a piece of the log, readings of different sensors and perhaps ticks after them.

        Returns the transitions. Ticks move no latch and no statistic of a reading before them.
        """
        hot = self._line.state.hot
        rows = list(
            zip(
                readings.sensor.tolist(), readings.event_ms.tolist(), readings.value.tolist(),
                readings.quality.tolist(), strict=True,
            )
        )  # fmt: skip
        before = [(hot[row[0]].copy(), self._bin(row[0], row[1])) for row in rows]
        found = self._line.judge(log)
        for row, (h, b) in zip(rows, before, strict=True):
            self._near(*row, h, b)
            self._turn_windows(row[0])
        self.settle(int(log.event_ms.max()))
        return found

    def settle(self, now_ms: int) -> None:
        """Note what has changed since the last record that was looked at."""
        state = self._line.state
        latched = state.hot["latched"].tolist()
        if latched != self._latched:
            for sensor, (before, now) in enumerate(zip(self._latched, latched, strict=True)):
                if before != now:
                    self._turn_latches(sensor, before, now)
            self._latched = latched
        levels = state.signal["levels"].tolist()
        if levels != self._levels:
            pairs = enumerate(zip(self._levels, levels, strict=True))
            changed = {sensor: pair for sensor, pair in pairs if pair[0] != pair[1]}
            for sensor, (before, now) in changed.items():
                self._turn_kinds(sensor, before, now)
            self._levels = levels
            self._turn_rules(list(changed))
        scores = state.source["score"].tolist()
        self._turn_contexts(now_ms, scores)
        if scores != self._scores:
            self._turn_scores(scores)
        self._now_ms = max(self._now_ms, now_ms)

    def take_alerts(self, alerts: list[dict[str, Any]]) -> None:
        """Note whom alerts went to."""
        for alert in alerts:
            for route in alert["routes"]:
                item = self._items.routes.get(route)
                if item is not None:
                    item.turn(True, self._test)
                    if alert["transition"] == "clear":
                        item.turn(False, self._test)

    # How near readings came

    def _bin(self, sensor: int, event_ms: int) -> Any:
        """Return the season's bin of a reading before it is taken; None without seasons."""
        plan = self._world.plan
        p = plan.params[self._row[sensor]]
        if not p["season_bins"]:
            return None
        season = (int(p[name]) for name in ("utc_offset_ms", "season_ms", "season_bins"))
        offset_ms, season_ms, n_bins = season
        place = season_bin(event_ms, offset_ms, season_ms, n_bins)
        return self._line.state.bins[int(plan.season_start[sensor]) + int(place)].copy()

    def _near(self, sensor: int, event_ms: int, value: float, quality: int, h: Any, b: Any) -> None:
        """Note the statistics of one reading; `h` is HOT before it, `b` the bin."""
        plan = self._world.plan
        row = self._row[sensor]
        watched, p = self._of_row[row], plan.params[row]
        v = value * float(p["scale"]) + float(p["offset"])
        last_ms = int(h["last_ms"])
        if last_ms not in (NEVER, event_ms) and event_ms < last_ms:
            return
        dt_ms = 0 if last_ms == NEVER else event_ms - last_ms
        if last_ms != NEVER and dt_ms < int(plan.absent_ms[sensor]):
            self._note_absence(sensor, dt_ms)
        if level_of(self._levels[sensor], ABSENCE):
            # it may be absent again before anybody looks
            self._turn_kinds(sensor, self._levels[sensor], self._levels[sensor] & ~_ABSENT)
            self._levels[sensor] &= ~_ABSENT
        good = quality == 0 and math.isfinite(v) and p["range_low"] <= v <= p["range_high"]
        if not good:
            self._note(watched, BAD, float(self._line.state.hot[sensor]["n_bad"]))
            return
        for kind, side in ((HIGH, "high"), (LOW, "low")):
            for level, item in watched.latches.get(kind, {}).items():
                if float(p[side][level - 1]) == item.limit:
                    item.note(v)
        if watched.ladders:
            self._note_ladders(watched, p, v, dt_ms, h, b, self._line.state.hot[sensor])

    def _note_ladders(
        self, watched: Watched, p: Any, v: float, dt_ms: int, h: Any, b: Any, after: Any
    ) -> None:
        self._note(watched, FLATLINE, float(after["n_flat"]))
        seen = int(h["n"]) != 0
        x = v - float(h["anchor"]) if seen else 0.0
        if seen:
            self._note(watched, SPIKE, abs(x - float(h["last"])))
            age_ms = int(h["older_age_ms"]) + dt_ms
            if age_ms >= int(p["half_ms"]):
                rate = (x - float(h["older"])) / age_ms
                for kind, sign in ((RISE, 1.0), (FALL, -1.0)):
                    for item in watched.ladders.get(kind, {}).values():
                        item.note(sign * rate * PER_MS[item.unit.rpartition("/")[2]])
        if DEVIATION not in watched.ladders:
            return
        n, spread = (h["n"], h["deviation"]) if b is None else (b["n"], b["deviation"])
        r = x - float(h["mean"]) if b is None else v - float(b["mean"])
        scale = max(float(spread), float(p["min_deviation"])) * SIGMA
        if int(n) >= int(p["warmup_n"]):
            self._note(watched, DEVIATION, abs(r) / scale)
            self._note(watched, DRIFT, max(float(after["above"]), float(after["below"])) / scale)

    @staticmethod
    def _note(watched: Watched, kind: int, statistic: float) -> None:
        for item in watched.ladders.get(kind, {}).values():
            item.note(statistic)

    def _note_absence(self, sensor: int, silent_ms: int) -> None:
        periods = silent_ms / float(self._world.catalog.period_ms[sensor])
        for item in self._absence(sensor):
            item.note(periods)

    def _absence(self, sensor: int) -> Iterator[Any]:
        """Yield the item of a sensor's silence: its profile's, or what all others inherit."""
        own = self._of_row[self._row[sensor]].ladders.get(ABSENCE, {})
        if own:
            yield from own.values()
            return
        name = self._world.plan.profile_of_row[self._row[sensor]]
        profile = None if name is None else self._world.plan.rules.profiles[name]
        inherits = profile is None or profile.liveness.absent_after is None
        if self._items.absence is not None and inherits:
            yield self._items.absence

    # What came on and went off

    def _turn_latches(self, sensor: int, before: int, now: int) -> None:
        row = self._row[sensor]
        p = self._world.plan.params[row]
        for kind, side, shift in ((HIGH, "high", 0), (LOW, "low", N_LEVELS)):
            for level, item in self._of_row[row].latches.get(kind, {}).items():
                bit = 1 << (shift + level - 1)
                # a sensor's own limit is another one
                if (before ^ now) & bit and float(p[side][level - 1]) == item.limit:
                    item.turn(bool(now & bit), self._test)

    def _turn_kinds(self, sensor: int, before: int, now: int) -> None:
        ladders = self._of_row[self._row[sensor]].ladders
        for kind in _KINDS:
            old, new = level_of(before, kind), level_of(now, kind)
            if old == new:
                continue
            if kind == ABSENCE:
                for item in self._absence(sensor):
                    item.turn(new > 0, self._test)
                    if new:
                        item.note(item.limit)
            else:
                self._turn_ladder(ladders.get(kind, {}), old, new)

    def _turn_ladder(self, ladder: Ladders, old: int, new: int) -> None:
        for level, item in ladder.items():
            if (old >= level) != (new >= level):
                item.turn(new >= level, self._test)

    def _turn_windows(self, sensor: int) -> None:
        plan, state = self._world.plan, self._line.state
        row = self._row[sensor]
        for number, (high, low) in enumerate(self._of_row[row].windows):
            ring, seconds = self._ring(sensor, number)
            rules = plan.window_params[int(plan.params["first_window"][row]) + number]
            n, statistic = _aggregate(ring, state.seconds[seconds], rules)
            if n >= int(rules["min_n"]):
                for item in (*high.values(), *low.values()):
                    item.note(float(statistic))
            before, now = self._rings.get((sensor, number), 0), int(ring["level"])
            self._turn_ladder(high, before & 0xF, now & 0xF)
            self._turn_ladder(low, before >> 4, now >> 4)
            self._rings[sensor, number] = now

    def _ring(self, sensor: int, number: int) -> tuple[Any, int]:
        """Return the panes of a sensor's window, and the place of what goes with them."""
        state = self._line.state
        if number == 0:
            return state.rings[sensor * state.stride + 1], sensor
        more = int(self._world.plan.more_start[sensor]) + number - 1
        return state.more[more], len(self._row) + more

    def _turn_rules(self, sensors: list[int]) -> None:
        if not self._items.signal_rules:
            return
        city = self._world.catalog
        sources = {self._world.source_of(sensor) for sensor in sensors}
        for source in list(sources):
            first, last = city.coupling_start[source : source + 2].tolist()
            sources.update(city.coupling_target[first:last].tolist())
        levels = self._levels
        for source in sources:
            now = set(holding(self._world.plan, source, levels))
            before = self._holding.get(source, set())
            for number in now ^ before:
                self._items.signal_rules[number].turn(number in now, self._test)
            self._holding[source] = now

    def _turn_contexts(self, now_ms: int, scores: list[float]) -> None:
        for number, (name, from_ms, to_ms, context) in enumerate(self._contexts):
            item = self._items.contexts[name]
            if from_ms <= now_ms and to_ms > self._now_ms and number not in self._felt:
                felt = [
                    at
                    for at, pair in enumerate(zip(scores, self._scores, strict=True))
                    if max(pair) > 0
                ]
                if any(concerns(self._world.plan, context, source) for source in felt):
                    item.turn(True, self._test)
                    self._felt.add(number)
            if number in self._felt and to_ms <= now_ms:
                item.turn(False, self._test)
                self._felt.discard(number)

    def _turn_scores(self, scores: list[float]) -> None:
        city, plan = self._world.catalog, self._world.plan
        for source, (before, score) in enumerate(zip(self._scores, scores, strict=True)):
            if before == score:
                continue
            category = int(city.category[source])
            deadband = float(plan.category["deadband"][category])
            held = self._beyond[source]
            for level, item in self._items.levels_of(city.categories[category]).items():
                assert item.limit is not None
                item.note(score)
                bit = 1 << level
                if score >= item.limit and not held & bit:
                    item.turn(True, self._test)
                    held |= bit
                elif score < item.limit - deadband and held & bit:
                    item.turn(False, self._test)
                    held &= ~bit
            self._beyond[source] = held
        self._scores = scores


def _aggregate(ring: Any, second: Any, rules: Any) -> tuple[int, float]:
    return aggregate_window(ring, second, rules)

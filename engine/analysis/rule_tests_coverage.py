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

from engine.analysis.rule_tests_items import Items, Ladders, Watched
from engine.analysis.rule_tests_state import concerns, holding, level_of
from engine.analysis.rule_tests_world import World
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


class Watch:
    """What one run of a test does to the items of its rules."""

    def __init__(self, items: Items, world: World, line: Pipeline, test: tuple[str, str]) -> None:
        self._items, self._world, self._line, self._test = items, world, line, test
        plan = world.plan
        self._of_row = [
            _NOTHING if name is None else items.profiles[name] for name in plan.profile_of_row
        ]
        self._row: list[int] = plan.row.tolist()
        self._latched = np.zeros(len(self._row), np.uint8)
        self._levels = np.zeros(len(self._row), np.int64)
        self._scores = np.zeros(plan.catalog.n_sources)
        self._beyond = np.zeros(plan.catalog.n_sources, np.int64)
        self._rings: dict[tuple[int, int], int] = {}
        self._holding: dict[int, set[int]] = {}
        self._felt: set[int] = set()
        self._now_ms = NEVER

    def push(self, batch: Readings) -> Array:
        """Take readings of different sensors; return the transitions."""
        hot = self._line.state.hot
        sensors = batch.sensor.tolist()
        before = [(hot[s].copy(), self._bin(s, t)) for s, t in _places(batch)]
        found = self._line.judge(batch)
        rows = zip(
            sensors, batch.event_ms.tolist(), batch.value.tolist(), batch.quality.tolist(),
            strict=True,
        )  # fmt: skip
        for (sensor, event_ms, value, quality), (h, b) in zip(rows, before, strict=True):
            self._near(sensor, event_ms, value, quality, h, b)
            self._turn_windows(sensor)
        self.settle(int(batch.event_ms.max()))
        return found

    def settle(self, now_ms: int) -> None:
        """Note what has changed since the last record that was looked at."""
        state = self._line.state
        latched = state.hot["latched"]
        if not np.array_equal(latched, self._latched):
            for sensor in np.flatnonzero(latched != self._latched).tolist():
                self._turn_latches(sensor, int(self._latched[sensor]), int(latched[sensor]))
            self._latched = latched.copy()
        levels = state.signal["levels"]
        if not np.array_equal(levels, self._levels):
            changed = np.flatnonzero(levels != self._levels).tolist()
            for sensor in changed:
                self._turn_kinds(sensor, int(self._levels[sensor]), int(levels[sensor]))
            self._levels = levels.copy()
            self._turn_rules(changed)
        self._turn_contexts(now_ms)
        self._turn_scores()
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
        if plan.absent_ms[sensor] and last_ms != NEVER:
            # ticks tell of silence that is longer; see _turn_kinds
            silent_ms = min(dt_ms, int(plan.absent_ms[sensor]) - 1)
            self._note_absence(sensor, silent_ms)
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
        levels = self._levels.tolist()
        for source in sources:
            now = set(holding(self._world.plan, source, levels))
            before = self._holding.get(source, set())
            for number in now ^ before:
                self._items.signal_rules[number].turn(number in now, self._test)
            self._holding[source] = now

    def _turn_contexts(self, now_ms: int) -> None:
        plan = self._world.plan
        if not len(plan.contexts):
            return
        scores = self._line.state.source["score"]
        felt = np.flatnonzero((scores > 0) | (self._scores > 0)).tolist()
        named = zip(plan.context_names, plan.contexts, strict=True)
        for number, (name, context) in enumerate(named):
            item = self._items.contexts[name]
            in_force = context["from_ms"] <= now_ms and context["to_ms"] > self._now_ms
            if in_force and any(concerns(plan, context, source) for source in felt):
                item.turn(True, self._test)
                self._felt.add(number)
            if number in self._felt and context["to_ms"] <= now_ms:
                item.turn(False, self._test)
                self._felt.discard(number)

    def _turn_scores(self) -> None:
        scores = self._line.state.source["score"]
        if np.array_equal(scores, self._scores):
            return
        city, plan = self._world.catalog, self._world.plan
        for source in np.flatnonzero(scores != self._scores).tolist():
            category = int(city.category[source])
            deadband = float(plan.category["deadband"][category])
            score, held = float(scores[source]), int(self._beyond[source])
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
        self._scores = scores.copy()


def _places(batch: Readings) -> Iterator[tuple[int, int]]:
    return zip(batch.sensor.tolist(), batch.event_ms.tolist(), strict=True)


def _aggregate(ring: Any, second: Any, rules: Any) -> tuple[int, float]:
    return aggregate_window(ring, second, rules)

"""Solve per sensor: those that alarm for nothing get a deadband, delays, limits of their own.

Every sensor that led a false alarm, or one that says again what was said, is tried with wider
bounds and longer delays, all of them at once: what a sensor does moves only its own source and
those that are coupled to it. For each the mildest that does most is kept, as long as every incident
around it is found as before. What is still too much is left to the delays of the profiles.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.past import Judged, Past, judge
from engine.analysis.store import cluster_starts
from engine.analysis.tuning.asked import digest_of
from engine.analysis.tuning.folder import STUDY, Folder
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.solve import Goal, Solution, prove, solve, tried_of
from engine.analysis.tuning.trying import Interrupted, Progress
from engine.catalog import Catalog
from engine.plan import compile_plan
from engine.rules import Rules
from engine.rules_base import LEVELS, MAX_DELAY_S
from engine.truth import Incident
from kernels.layout import ESCALATE, HIGH, LOW, RAISE

Array = np.ndarray[Any, Any]
OWN_LIMITS = "own_limits.csv"
MOST_SENSORS = 10_000


class _Step(NamedTuple):
    """What is tried of a sensor; 0 leaves a thing as it is."""

    wide: float = 0
    """The deadband, in steps between two levels."""
    off: float = 0
    """The off-delay, in the longest of the profile's levels."""
    on: float = 0
    """The on-delay, in the shortest of them: a red must not wait for what a blue waits for."""
    shift: float = 0
    """How far the limits move, in steps between two levels."""


_STEPS = (
    _Step(wide=0.3), _Step(wide=0.6), _Step(wide=0.9),
    _Step(off=2), _Step(wide=0.6, off=2), _Step(wide=0.6, off=6),
    _Step(on=2), _Step(wide=0.6, off=2, on=2), _Step(wide=0.6, off=6, on=3),
    _Step(wide=0.6, shift=0.25), _Step(wide=0.6, shift=0.5), _Step(wide=0.6, shift=1),
    _Step(wide=0.6, shift=2),
)  # fmt: skip
"""Mild ones first: an off-delay holds what has alarmed, an on-delay is felt by every alarm, and a
limit that moves changes what an alarm means."""
_LEAST_DELAY_S = 7.5
"""Half the shortest delay that the field starts with."""
_MOST_DELAY_S = 600.0
_MOST_TURNS = 8
_AGAIN_N = 3
"""Alarms of a sensor that are too many where nobody knows what really happened."""


class _Own(NamedTuple):
    """What a sensor has of its own, under the catalog's names, in its unit; NaN: the profile's."""

    high: Array
    low: Array
    deadband: float
    on_delay_s: float
    off_delay_s: float


@dataclass(frozen=True, kw_only=True)
class OwnLimits:
    """What one sensor gets, in its own unit, and why."""

    sensor: str
    source: str
    high: tuple[float, ...]
    """Blue to red; here and below NaN: the profile's."""
    low: tuple[float, ...]
    deadband: float
    on_delay_s: float
    """One for all levels."""
    off_delay_s: float
    false_before: int
    false_after: int
    unit: str


@dataclass(kw_only=True)
class SensorSolution:
    """Limits and delays of sensors' own, then what the profiles' delays had to add."""

    solution: Solution
    own: tuple[OwnLimits, ...]
    offenders_n: int
    """Sensors that led alarms for nothing, or the same again."""
    unhelped: tuple[tuple[str, int], ...]
    """Those that no bounds helped without an incident found later, and their alarms."""

    def as_dict(self) -> dict[str, Any]:
        """Return what came out as plain JSON values."""
        own = [
            {
                "sensor_id": each.sensor,
                "source": each.source,
                "false_before": each.false_before,
                "false_after": each.false_after,
            }
            for each in self.own
        ]
        return self.solution.as_dict() | {
            "offenders": self.offenders_n,
            "own_limits": own,
            "unhelped": [{"sensor_id": name, "alarms": n} for name, n in self.unhelped],
        }


def solve_sensors(
    past: Past,
    rules: Rules,
    measure: Yardstick,
    goal: Goal,
    *,
    folder: Path | None = None,
    threads: int = 2,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> SensorSolution:
    """Find limits and delays of sensors' own, and delays of profiles, that reach a goal.

    With a `folder`, `own_limits.csv` and the rules are written there. Raises what is wrong with the
    readings, the rules or the folder.
    """
    work = _Work(past, rules, measure, goal, threads, on_progress, stopped)
    try:
        kept = work.kept()
    except Interrupted:
        empty = Solution(goal=goal, trials=work.no_trials(), interrupted=True)
        return SensorSolution(solution=empty, own=(), offenders_n=0, unhelped=())
    catalog = work.catalog_of(kept)
    given = prove(past, rules, measure)
    own = csv_of(work.own(kept))
    solution = solve(
        replace(past, catalog=catalog),
        rules,
        replace(measure, catalog=catalog),
        goal,
        kinds=("on-delay", "off-delay"),
        about={"own limits": digest_of(own)},
        folder=folder,
        threads=threads,
        on_progress=on_progress,
        stopped=stopped,
    )
    solution.given, solution.given_delays_s = given.figures, given.delays_s
    found = SensorSolution(
        solution=solution,
        own=tuple(work.own(kept)),
        offenders_n=len(work.offenders),
        unhelped=tuple(work.unhelped(kept)),
    )
    if folder is not None:
        place = Folder(folder)
        place.write(OWN_LIMITS, own.encode())
        place.write_json(STUDY, (place.asked() or {}) | found.as_dict())
    return found


class _Work:
    """The search over sensors: `kept[i]` is the step of the i-th offender, -1 for none."""

    def __init__(
        self,
        past: Past,
        rules: Rules,
        measure: Yardstick,
        goal: Goal,
        threads: int,
        on_progress: Callable[[Progress], None] | None,
        stopped: Callable[[], bool],
    ) -> None:
        self.past, self.rules, self.measure, self.goal = past, rules, measure, goal
        self.threads, self._on_progress, self._stopped = threads, on_progress, stopped
        self.plan = compile_plan(past.catalog, rules)
        starts = cluster_starts(past.catalog)
        self.cluster = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self.offenders = np.zeros(0, np.int64)
        self.before = np.zeros(0, np.int64)
        self.after = np.zeros(0, np.int64)
        self.incidents: list[Incident] = []
        self._turn = 0

    def no_trials(self) -> Any:
        """Return trials of nothing."""
        from engine.analysis.tuning.knobs import Knobs
        from engine.analysis.tuning.trials import Trials

        return Trials(Knobs(self.rules, self.past.catalog).settings)

    def kept(self) -> Array:
        """Return the step that each offender keeps."""
        judged = self._judged(self.past.catalog)
        counts = self._for_nothing(judged)
        order = np.argsort(-counts, kind="stable")
        self.offenders = order[counts[order] > 0][:MOST_SENSORS]
        self.before = counts[self.offenders]
        kept = np.full(len(self.offenders), -1, np.int64)
        if not len(kept):
            self.after = self.before
            return kept
        self.incidents = self.measure.judged(tried_of(judged))
        in_time = self._in_time(judged)
        counted = [self.before]
        sound = [np.ones(len(kept), bool)]
        for step in range(len(_STEPS)):
            tried = self._judged(self.catalog_of(np.full(len(kept), step)))
            counted.append(self._for_nothing(tried)[self.offenders])
            sound.append(~self._near_a_loss(in_time & ~self._in_time(tried)))
        table = np.where(np.array(sound), np.array(counted), np.iinfo(np.int64).max)
        # of the best the mildest; none, where nothing is better than the profile's
        kept = table.argmin(0) - 1
        for _ in range(_MOST_TURNS):
            judged = self._judged(self.catalog_of(kept))
            lost = self._near_a_loss(in_time & ~self._in_time(judged)) & (kept >= 0)
            if not lost.any():
                break
            kept[lost] = -1
        else:
            kept[:] = -1
            judged = self._judged(self.catalog_of(kept))
        self.after = self._for_nothing(judged)[self.offenders]
        return kept

    def _judged(self, catalog: Catalog) -> Judged:
        def told(share: float) -> None:
            if self._stopped():
                raise Interrupted
            if self._on_progress is not None:
                total = len(_STEPS) + 2
                done = min(self._turn, total)
                self._on_progress(
                    Progress(
                        done=done,
                        total=total,
                        share=min(1.0, (done + share) / total),
                        refused=0,
                        phase="sensors",
                    )
                )

        judged = judge(
            replace(self.past, catalog=catalog), self.rules, threads=self.threads, on_progress=told
        )
        self._turn += 1
        return judged

    def _for_nothing(self, judged: Judged) -> Array:
        """Return for each sensor the alarms that its limits led and no incident explains, or that
        only say again what was said; without a truth all of a sensor that has several."""
        transitions = judged.transitions
        alarms = transitions[(transitions["kind"] == RAISE) | (transitions["kind"] == ESCALATE)]
        first = alarms["contributor"][:, 0]
        by_limit = (first["sensor"] >= 0) & np.isin(first["kind"], (HIGH, LOW))
        lead_ms, grace_ms = (round(1000 * s) for s in (self.measure.lead_s, self.measure.grace_s))
        if self.measure.incidents is None:
            counts = np.bincount(first["sensor"][by_limit], minlength=self.past.catalog.n_sensors)
            return np.where(counts >= _AGAIN_N, counts, 0)
        explained = np.zeros(len(alarms), bool)
        for each in self.measure.incidents:
            source = self.past.catalog.source_index(each.source)
            within = np.flatnonzero(
                (alarms["source"] == source)
                & (alarms["event_ms"] >= each.start_ms - lead_ms)
                & (alarms["event_ms"] <= each.end_ms + grace_ms)
            )
            # the first alarm of each level says all that there is to say of it
            _, firsts = np.unique(alarms["level"][within], return_index=True)
            explained[within[firsts]] = True
        sensors = first["sensor"][by_limit & ~explained]
        return np.bincount(sensors, minlength=self.past.catalog.n_sensors)

    def _in_time(self, judged: Judged) -> Array:
        return self.measure.delays_s(tried_of(judged))[0] <= self.goal.within_s

    def _near_a_loss(self, lost: Array) -> Array:
        """Return which offenders stand where an incident is no longer found in time."""
        catalog = self.past.catalog
        known = [catalog.source_index(each.source) for each in self.incidents]
        clusters = {int(self.cluster[s]) for s, gone in zip(known, lost, strict=True) if gone}
        mine = self.cluster[catalog.sensor_source[self.offenders]]
        return np.isin(mine, list(clusters))

    # --- limits and delays of sensors' own -----------------------------------------------------

    def catalog_of(self, kept: Array) -> Catalog:
        """Return the catalog with what the offenders keep as their own limits."""
        catalog = self.past.catalog
        changed = np.flatnonzero(kept >= 0)
        if not len(changed):
            return catalog
        sensors = self.offenders[changed]
        rows = [
            self._own(int(s), _STEPS[int(kept[n])]) for n, s in zip(changed, sensors, strict=True)
        ]
        others = ~np.isin(catalog.override_sensor, sensors)
        place = np.concatenate([np.asarray(catalog.override_sensor)[others], sensors])
        order = np.argsort(place, kind="stable")

        merged: dict[str, Any] = {
            f"override_{name}": np.concatenate(
                [
                    np.asarray(getattr(catalog, f"override_{name}"))[others],
                    np.array([getattr(row, name) for row in rows]),
                ]
            )[order]
            for name in _Own._fields
        }
        return replace(catalog, override_sensor=place[order].astype(np.int32), **merged)

    def _given(self, sensor: int) -> _Own:
        """Return what a sensor has of its own already."""
        catalog = self.past.catalog
        at = int(np.searchsorted(catalog.override_sensor, sensor))
        if at == len(catalog.override_sensor) or int(catalog.override_sensor[at]) != sensor:
            nothing = np.full(len(LEVELS), np.nan)
            return _Own(nothing, nothing, math.nan, math.nan, math.nan)
        return _Own(*(getattr(catalog, f"override_{name}")[at] for name in _Own._fields))

    def _own(self, sensor: int, step: _Step) -> _Own:
        """Return what a sensor has of its own at a step: what it had, where that stays."""
        given = self._given(sensor)
        high, low, deadband = self._limits(sensor, step)
        return _Own(
            high=high if step.shift else given.high,
            low=low if step.shift else given.low,
            deadband=deadband if step.wide else float(given.deadband),
            on_delay_s=self._delay_s(sensor, "on", step.on, float(given.on_delay_s)),
            off_delay_s=self._delay_s(sensor, "off", step.off, float(given.off_delay_s)),
        )

    def _delay_s(self, sensor: int, which: str, factor: float, given: float) -> float:
        """Return a delay of all levels, longer than that of each was, or else the given one."""
        row = self.plan.params[self.plan.row[sensor]]
        watched = np.isfinite(row["high"]) | np.isfinite(row["low"])
        if not factor or not watched.any():
            return given
        delays_s = row[f"{which}_ms"][watched] / 1000
        told_s = float(delays_s.min() if which == "on" else delays_s.max())
        # a shorter one than the sensor's period is as long as that
        period_s = float(self.past.catalog.period_ms[sensor]) / 1000
        base_s = max(told_s, period_s, _LEAST_DELAY_S)
        longer_s = min(factor * base_s, max(_MOST_DELAY_S, 2 * base_s), MAX_DELAY_S)
        if which == "on":
            longer_s = min(longer_s, self.goal.within_s)
        return longer_s if longer_s > delays_s.max() else given

    def _limits(self, sensor: int, step: _Step) -> tuple[Array, Array, float]:
        """Return a sensor's limits and deadband at a step, in its own unit."""
        row = self.plan.params[self.plan.row[sensor]]
        wide, shift = step.wide, step.shift
        scale, offset = float(row["scale"]), float(row["offset"])
        given = {side: row[side].astype(np.float64) for side in ("high", "low")}
        units = [unit for side in given.values() if (unit := _unit(side)) is not None]
        unit = min(units, default=0.0)
        deadband = max(float(row["deadband"]), wide * unit)
        if len(units) > 1:
            # between high and low limits there must be values that clear both
            apart = float(np.nanmin(given["high"]) - np.nanmax(given["low"])) + 2 * shift * unit
            deadband = min(deadband, max(float(row["deadband"]), 0.45 * apart))
        made = {}
        for side, sign in (("high", 1.0), ("low", -1.0)):
            limits = given[side] + sign * shift * unit
            limits = np.clip(limits, row["range_low"], row["range_high"])
            limits = np.where(np.isfinite(given[side]), limits, np.nan)
            # levels that the end of the range would press together stay as they are
            known = limits[~np.isnan(limits)] * sign
            made[side] = given[side] if np.any(np.diff(known) <= 0) else limits
            made[side] = np.where(np.isfinite(made[side]), (made[side] - offset) / scale, np.nan)
        return _round(made["high"]), _round(made["low"]), float(f"{deadband / scale:.6g}")

    def own(self, kept: Array) -> Iterator[OwnLimits]:
        """Yield what each offender gets of its own."""
        catalog = self.past.catalog
        for number in np.flatnonzero(kept >= 0).tolist():
            sensor = int(self.offenders[number])
            own = self._own(sensor, _STEPS[int(kept[number])])
            yield OwnLimits(
                sensor=catalog.sensor_id[sensor].as_py(),
                source=catalog.source_id[int(catalog.sensor_source[sensor])].as_py(),
                high=tuple(own.high.tolist()),
                low=tuple(own.low.tolist()),
                deadband=own.deadband,
                on_delay_s=own.on_delay_s,
                off_delay_s=own.off_delay_s,
                false_before=int(self.before[number]),
                false_after=int(self.after[number]),
                unit=catalog.units[int(catalog.unit[sensor])],
            )

    def unhelped(self, kept: Array) -> Iterator[tuple[str, int]]:
        """Yield the offenders that keep the profile's limits, and the alarms that they led."""
        for number in np.flatnonzero(kept < 0).tolist():
            name = self.past.catalog.sensor_id[int(self.offenders[number])].as_py()
            yield name, int(self.before[number])


def _unit(limits: Array) -> float | None:
    """Return the smallest step between two levels, or a fifth of the only limit."""
    known = limits[np.isfinite(limits)]
    if not len(known):
        return None
    if len(known) > 1:
        return float(np.abs(np.diff(known)).min())
    return abs(float(known[0])) / 5 or 1.0


def _round(values: Array) -> Array:
    return np.array([value if math.isnan(value) else float(f"{value:.6g}") for value in values])


def csv_of(own: Iterator[OwnLimits]) -> str:
    """Return the own limits as columns of the catalog's sensors; empty is the profile's."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    sides = [f"{side}_{level}" for side in ("high", "low") for level in LEVELS]
    writer.writerow(["sensor_id", *sides, "deadband", "on_delay_s", "off_delay_s"])
    for each in own:
        numbers = (*each.high, *each.low, each.deadband, each.on_delay_s, each.off_delay_s)
        writer.writerow([each.sensor, *("" if math.isnan(n) else f"{n:.15g}" for n in numbers)])
    return stream.getvalue()

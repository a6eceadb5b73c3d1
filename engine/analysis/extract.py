"""The part of a history that some sources depend on: small enough to be judged again and again.

What a source does follows from the readings of its own sensors, of the sensors of what couples into
it, and from the ticks. Which readings are refused, and which are late, follows from the whole log:
that is settled once, when the part is cut out. `Extract.judge(rules)` then gives, to the bit, the
transitions that a replay of the whole log gives for the sources that were asked for.

How far that reaches: a source's score takes in the signals of what couples into it, directly. But
the second at which a neighbour's signal begins to fade is the later of its reading's time and the
time at which the neighbour was last judged, and a neighbour of the neighbour has that judged, too.
So the exact part holds everything from which couplings lead to the sources. `hops=1` leaves out
all but direct neighbours; it then differs, by seconds of fading, where readings come out of order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from engine.analysis.past import Log, Past
from engine.catalog import Catalog
from engine.catalog_file import COLUMNS, TEXT
from engine.history import joined, owned
from engine.pipeline import Pipeline
from engine.plan import Plan, compile_plan
from engine.readings import Readings
from engine.rules import Rules
from kernels.layout import ACKNOWLEDGE, FAR_FUTURE_MS, MAX_EVENT_MS, NEVER, TICK

Array = np.ndarray[Any, Any]

_RUN = 4096
"""Records whose admission is settled at once; a wrong clock costs one walk through as many."""


# --- which part of the catalog ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Some sources and what couples into them: where each lies in the whole catalog."""

    asked: Array
    """The sources whose transitions are wanted, ascending."""
    sources: Array
    """All sources of the part, ascending."""
    sensors: Array
    """Their sensors, ascending."""
    coupled: Array
    """Couplings in the order of `catalog.coupled_origin`."""
    coupling: Array
    """The same couplings in the order of `catalog.coupling_target`."""

    @classmethod
    def of(cls, catalog: Any, sources: Sequence[int], hops: int | None = None) -> Part:
        """Return the part that sources depend on, couplings followed back `hops` times, or all."""
        asked = np.unique(np.asarray(sources, np.int64))
        found, edges = set(asked.tolist()), []
        reached, left = asked.tolist(), hops
        while reached and (left is None or left > 0):
            starts = catalog.coupled_start
            spans = [range(int(starts[s]), int(starts[s + 1])) for s in reached]
            edges += [edge for span in spans for edge in span]
            origins = {int(catalog.coupled_origin[edge]) for span in spans for edge in span}
            reached = sorted(origins - found)
            found |= origins
            left = None if left is None else left - 1
        kept = np.array(sorted(found), np.int64)
        sensors = [np.arange(*catalog.sensor_start[s : s + 2], dtype=np.int64) for s in kept]
        coupled = np.array(sorted(edges), np.int64)
        return cls(
            asked=asked,
            sources=kept,
            sensors=np.concatenate([np.zeros(0, np.int64), *sensors]),
            coupled=coupled,
            coupling=_from_origin(catalog, coupled),
        )

    def place_of(self, sources: Array) -> Array:
        """Return where sources of the whole catalog lie in the part."""
        return np.searchsorted(self.sources, sources)

    def starts(self, counts_of: Array) -> Array:
        """Return where each source's entries begin, given the source of every entry."""
        counts = np.bincount(counts_of, minlength=len(self.sources))
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def catalog_of(self, catalog: Catalog) -> Catalog:
        """Return the part as a catalog of its own, with one partition and the same vocabularies."""
        own = np.isin(catalog.override_sensor, self.sensors)
        rows = {
            "source": self.sources,
            "sensor": self.sensors,
            "override": np.flatnonzero(own),
            "coupling": self.coupling,
        }
        parts: dict[str, Any] = {}
        for name, (dtype, of) in COLUMNS.items():
            if of in rows and hasattr(catalog, name):
                at = self.coupled if name.startswith("coupled_") else rows[of]
                column = getattr(catalog, name)
                parts[name] = column.take(pa.array(at)) if dtype == TEXT else column[at]
        targets = self.place_of(_targets(catalog.coupled_start, self.coupled))
        parts["coupled_origin"] = self.place_of(parts["coupled_origin"]).astype(np.int32)
        parts["coupling_target"] = self.place_of(parts["coupling_target"]).astype(np.int32)
        origins = self.place_of(_targets(catalog.coupling_start, self.coupling))
        homes = self.place_of(parts["sensor_source"])
        moved = np.searchsorted(self.sensors, parts["override_sensor"])
        mark = hashlib.blake2b(self.sources.tobytes(), digest_size=16).hexdigest()
        return replace(
            catalog,
            **parts
            | {
                "digest": f"{mark}, a part of {catalog.digest}",
                "n_sources": len(self.sources),
                "n_sensors": len(self.sensors),
                "n_partitions": 1,
                "sensor_source": homes.astype(np.int32),
                "sensor_start": self.starts(homes),
                "override_sensor": moved.astype(np.int32),
                "coupling_start": self.starts(origins),
                "coupled_start": self.starts(targets),
                "partition_start": np.array([0, len(self.sources)], np.int64),
                "cut_couplings": [],
                # the file's tables of ids give places in the whole catalog
                "columns": {},
                "meta": {},
            },
        )


def _targets(starts: Array, entries: Array) -> Array:
    """Return whose span each entry lies in."""
    return np.searchsorted(starts, entries, side="right") - 1


def _from_origin(catalog: Any, coupled: Array) -> Array:
    """Return where couplings, given by the source they reach, stand by the source they leave."""
    if not len(coupled):
        return coupled
    targets = _targets(catalog.coupled_start, coupled)
    wanted = set(targets.tolist())
    found = []
    for origin in np.unique(catalog.coupled_origin[coupled]).tolist():
        span = range(*catalog.coupling_start[origin : origin + 2].tolist())
        found += [edge for edge in span if int(catalog.coupling_target[edge]) in wanted]
    return np.array(found, np.int64)


# --- which part of the log ----------------------------------------------------------------------


class Admission:
    """Which readings of a log are refused for their time, and how late each record is.

    The rule is that of `kernels.detect`: see kernels/README.md, The log.
    """

    def __init__(self, n_sensors: int, max_ahead_ms: int, max_late_ms: int) -> None:
        self._n_sensors = n_sensors
        self._max_ahead_ms, self._max_late_ms = max_ahead_ms, max_late_ms
        self.watermark_ms = NEVER

    def take(self, readings: Readings) -> tuple[Array, Array]:
        """Return of the next records (whether it is admitted, watermark after it less its time)."""
        runs = [
            self._run(readings.cut(at, min(at + _RUN, len(readings))))
            for at in range(0, len(readings), _RUN)
        ]
        if not runs:
            return np.zeros(0, np.bool_), np.zeros(0, np.int64)
        admitted, lags = zip(*runs, strict=True)
        return np.concatenate(admitted), np.concatenate(lags)

    def _run(self, readings: Readings) -> tuple[Array, Array]:
        sensor, t = readings.sensor, readings.event_ms
        sound = (t >= 0) & (t < MAX_EVENT_MS)
        reading = sound & (sensor >= 0) & (sensor < self._n_sensors)
        moves = reading | (sound & (sensor == TICK))
        told = np.where(moves, t, NEVER)
        newest = np.maximum.accumulate(np.concatenate([[self.watermark_ms], told]))
        before = newest[:-1]
        ahead = reading & (before != NEVER) & (t - before > self._max_ahead_ms)
        if ahead.any():
            before, newest = self._walk(t, reading, moves)
        t = np.where(sound, t, 0)
        late = (before != NEVER) & (before - t > self._max_late_ms)
        ahead = (before != NEVER) & (t - before > self._max_ahead_ms)
        refused = reading & (late | ahead)
        self.watermark_ms = int(newest[-1])
        return sound & ~refused, newest[1:] - t

    def _walk(self, t: Array, reading: Array, moves: Array) -> tuple[Array, Array]:
        """Return the watermark before each record, and at all places; record by record."""
        newest = [self.watermark_ms]
        for event_ms, is_reading, may in zip(
            t.tolist(), reading.tolist(), moves.tolist(), strict=True
        ):
            now = newest[-1]
            if may and now != NEVER and is_reading and event_ms - now > self._max_ahead_ms:
                may = False
            newest.append(max(now, event_ms) if may else now)
        marks = np.array(newest, np.int64)
        return marks[:-1], marks


@dataclass(frozen=True, kw_only=True, eq=False)
class Extract:
    """A part of a log, ready to be judged under any rules of the same `[time]`."""

    part: Part
    catalog: Any
    """The part's own catalog."""
    log: Readings
    """Readings that were not refused, ticks, acknowledges; sensors and sources of the part."""
    position: Array
    """(R,) int64, of each record in the whole log"""
    lag_ms: Array
    """(R,) int64, how far each record is behind the watermark"""
    bounds: tuple[int, int, int]
    """tick_ms, max_ahead_ms, max_late_ms, which decided what is in the log"""
    n_refused: int
    """Readings of the part's sensors that were refused for their time."""
    last_ms: int | None = None
    """The watermark at the end of the whole log."""

    @classmethod
    def of(
        cls,
        batches: Iterable[Readings],
        part: Part,
        catalog: Any,
        *,
        n_sensors: int,
        bounds: tuple[int, int, int],
        on_batch: Callable[[], None] = lambda: None,
    ) -> Extract:
        """Cut a part out of a log; `n_sensors` and the log's indices are the whole catalog's."""
        admission = Admission(n_sensors, *bounds[1:])
        place = np.full(n_sensors, -1, np.int32)
        place[part.sensors] = np.arange(len(part.sensors), dtype=np.int32)
        pieces, positions, lags = [_NOTHING], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        position = n_refused = 0
        for batch in batches:
            admitted, lag = admission.take(batch)
            known = (batch.sensor >= 0) & (batch.sensor < n_sensors)
            local = np.where(known, place[np.where(known, batch.sensor, 0)], -1)
            mine = local >= 0
            value, named = _acknowledges(batch, part)
            keep = np.flatnonzero(admitted & (mine | (batch.sensor == TICK) | named))
            n_refused += int(np.count_nonzero(mine & ~admitted))
            cut = Readings(
                np.where(mine, local, batch.sensor)[keep].astype(np.int32),
                batch.event_ms[keep],
                value[keep],
                batch.quality[keep],
            )
            pieces.append(owned(cut))
            positions.append(position + keep)
            lags.append(lag[keep])
            position += len(batch)
            on_batch()
        newest = admission.watermark_ms
        return cls(
            part=part,
            catalog=catalog,
            log=joined(pieces),
            position=np.concatenate(positions),
            lag_ms=np.concatenate(lags),
            bounds=bounds,
            n_refused=n_refused,
            last_ms=None if newest == NEVER else newest,
        )

    def plan(self, rules: Rules) -> Plan:
        """Compile rules for the part. Raises ValueError for another `[time]`: the log would differ.

        RulesError if the rules don't fit the part's sensors.
        """
        plan = compile_plan(self.catalog, rules)
        bounds = (plan.tick_ms, plan.max_ahead_ms, plan.max_late_ms)
        if bounds != self.bounds:
            raise ValueError(
                "time: tick_s, max_ahead_s and max_late_s must be those of the extract, "
                f"{[ms / 1000 for ms in self.bounds]}, got {[ms / 1000 for ms in bounds]}"
            )
        return plan

    def judge(self, rules: Rules) -> Array:
        """Return (T,) TRANSITION of the sources asked for, exactly as the whole log gives them.

        Sources, sensors and positions are those of the whole catalog and log.
        """
        return self.run(self.plan(rules))

    def line(self, plan: Any) -> Pipeline:
        """Return the line of the part, to be given records of `log`; it refuses none."""
        return Pipeline(_wide_open(plan))

    def run(self, plan: Any) -> Array:
        """Judge the part under a compiled plan of it; see `judge`."""
        return self.whole(self.line(plan).judge(self.log), int(plan.late_after_ms))

    def whole(self, transitions: Array, late_after_ms: int) -> Array:
        """Return transitions of the part as the whole log has them, of the sources asked for."""
        part = self.part
        sources = part.sources[transitions["source"]]
        found = transitions[np.isin(sources, part.asked)]
        record = found["position"].copy()
        found["position"] = self.position[record]
        found["source"] = part.sources[found["source"]]
        found["trigger"] = part.sources[found["trigger"]]
        origin = found["coupled_from"]
        found["coupled_from"] = np.where(origin >= 0, part.sources[origin], origin)
        sensor = found["contributor"]["sensor"]
        if len(part.sensors):
            sensor = np.where(sensor >= 0, part.sensors[sensor], sensor)
        found["contributor"]["sensor"] = sensor
        # the part's own watermark is behind the whole log's
        late = (self.lag_ms[record] > late_after_ms) & (self.log.sensor[record] >= 0)
        found["late"] = late & (found["phase"] == 0)
        return found


_NOTHING = Readings.of([], [], [])


def _acknowledges(batch: Readings, part: Part) -> tuple[Array, Array]:
    """Return the values with acknowledged sources of the part as its own, and where those are."""
    named = batch.sensor == ACKNOWLEDGE
    if not named.any():
        return batch.value, named
    value = batch.value.copy()
    whole = np.where(named & np.isfinite(value), value, -1.0)
    # the line cuts a source's number down to a whole one
    numbers = np.clip(np.where(whole >= 0, whole, -1), -1, 2.0**31).astype(np.int64)
    at = np.minimum(np.searchsorted(part.sources, numbers), len(part.sources) - 1)
    named &= part.sources[at] == numbers
    value[named] = at[named]
    return value, named


def _wide_open(plan: Any) -> Any:
    """Return the plan with times that refuse nothing and call nothing late."""
    opened = copy(plan)
    times = ("late_after_ms", "max_ahead_ms", "max_late_ms")
    vars(opened).update(dict.fromkeys(times, FAR_FUTURE_MS))
    return opened


def extract(
    past: Past,
    rules: Rules,
    sources: Sequence[int],
    *,
    hops: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Extract:
    """Read a history once and keep what some sources (dense indices) depend on.

    The rules say by their `[time]` where the ticks are and which readings are refused; everything
    else in them may differ in what is judged later. Memory: 37 bytes a reading of the part and a
    tick. `hops`: see the module.
    """
    part = Part.of(past.catalog, sources, hops)
    catalog = part.catalog_of(past.catalog)
    plan = compile_plan(catalog, rules)
    log = Log(past, plan)

    def told() -> None:
        if on_progress is not None:
            on_progress(log.history.share)

    return Extract.of(
        log,
        part,
        catalog,
        n_sensors=int(past.catalog.n_sensors),
        bounds=(plan.tick_ms, plan.max_ahead_ms, plan.max_late_ms),
        on_batch=told,
    )

"""Carry-over: the state of a partition under other rules, or in another catalog; see CARRY.md.

Sensors whose parameters did not change keep their state to the byte. The others keep what remains
meaningful, and their sources are judged again at the next tick, so that what the new rules say of
the state comes out as ordinary transitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from engine.arrow_views import column_of
from engine.carry_rows import compare_rows
from engine.carry_sensors import adapt
from engine.carry_sources import judge_again
from engine.carry_windows import move_bins, move_windows, run_of
from engine.errors import SnapshotError
from engine.pipeline import Pipeline
from engine.plan import Plan
from engine.snapshot import Snapshot, merged_clock
from engine.state import State
from kernels.layout import (
    CLOCK,
    FAR_FUTURE_MS,
    JUDGE_DISTRICT,
    JUDGE_SOURCE,
    NEVER,
    SUPPRESSED,
)

Array = np.ndarray[Any, Any]


class Carried(NamedTuple):
    """What became of the state of a partition."""

    n_kept: int
    """Sensors whose state is the same to the byte."""
    n_adapted: int
    """Sensors whose parameters changed."""
    n_new: int
    """Sensors that were in no partition before, or measured something else."""
    n_moved_in: int
    """Sensors that were in another partition before: they begin anew."""
    n_moved_out: int
    n_vanished: int
    n_sources_moved: int
    """Sources of this partition that are in another one now."""
    n_sources_vanished: int
    n_judged_again: int
    """Sources that the next tick judges again."""
    left_open: tuple[str, ...] = ()
    """Ids of the sources that are gone or moved while an alert of theirs was up: no record of this
    partition's log will clear it."""
    n_windows_dropped: int = 0
    """Maintenance windows of sources, districts and categories that are not there any more."""

    def line(self) -> str:
        """Return what happened for people, leaving out what did not."""
        words = {
            "n_kept": "sensors keep their state",
            "n_adapted": "keep what remains meaningful",
            "n_new": "are new",
            "n_moved_in": "came from another partition and begin anew",
            "n_moved_out": "went to another partition",
            "n_vanished": "are gone",
            "n_sources_moved": "sources went to another partition",
            "n_sources_vanished": "sources are gone",
            "n_judged_again": "sources are judged again",
            "n_left_open": "of those gone or moved had an alert up",
            "n_windows_dropped": "maintenance windows are gone with what they were of",
        }
        numbers = {**self._asdict(), "n_left_open": len(self.left_open)}
        parts = [f"{numbers[name]:,} {text}" for name, text in words.items() if numbers[name]]
        return ", ".join(parts) or "nothing to carry over"


@dataclass(frozen=True, eq=False, kw_only=True)
class Held:
    """A partition's state as it was: its plan, its range of sources, its records and its clock."""

    plan: Plan
    sources: tuple[int, int]
    parts: dict[str, Array]
    clock: Array
    stride: int

    @classmethod
    def by(cls, line: Pipeline) -> Held:
        """Return the state that a pipeline holds; not a copy."""
        parts = line.state.of_sources(*line.sources)
        clock, stride = merged_clock(line), line.state.stride
        return cls(plan=line.plan, sources=line.sources, parts=parts, clock=clock, stride=stride)

    @classmethod
    def of(cls, snapshot: Snapshot, plan: Plan) -> Held:
        """Return the state in a snapshot that was made under a plan."""
        bounds = plan.catalog.partition_start
        partition = snapshot.meta["partition"]
        first, last = (0, -1) if partition is None else (partition, partition + 1)
        sources = int(bounds[first]), int(bounds[last])
        # room without a page: only for the layout of the records
        state = State.allocate(plan)
        like = state.of_sources(*sources)
        parts = {name: snapshot.records(name, part.dtype) for name, part in like.items()}
        for name, part in like.items():
            if len(parts[name]) != len(part):
                found = f"{len(parts[name]):,} records of {name}, must be {len(part):,}"
                raise SnapshotError(f"{snapshot.uri}: has {found}")
        clock = snapshot.records("clock", CLOCK).copy()
        return cls(plan=plan, sources=sources, parts=parts, clock=clock, stride=state.stride)

    @property
    def sensors(self) -> tuple[int, int]:
        """Return the range of its sensors."""
        first, last = self.plan.catalog.sensor_start[list(self.sources)].tolist()
        return first, last


def carry(line: Pipeline, plan: Plan, state: State) -> Pipeline:
    """Return a pipeline that goes on where ``line`` stands, under another plan.

    ``state`` is of that plan, and not the line's. Call it between two records of the log: the
    result depends on the log up to there and on the plans alone.
    """
    threads = len(line.shards)
    carried = Pipeline(plan, threads, state=state, partition=line.partition)
    take_over(Held.by(line), carried)
    carried.n_foreign = line.n_foreign
    return carried


def take_over(held: Held, line: Pipeline) -> Carried:
    """Give a pipeline, which must be new, the state held by the partition of the same number."""
    old, new = held.plan, line.plan
    origin = _Origin.find(held, line)
    first, last = line.sensors
    parts = line.state.of_sources(*line.sources)
    pairs = compare_rows(old, new, origin.sensor, (first, last))
    fresh = pairs.other_quantity[pairs.of_sensor] & (origin.sensor >= 0)
    origin.sensor[fresh] = -1
    known = np.flatnonzero(origin.sensor >= 0)
    came = origin.sensor[known]
    held_first = held.sensors[0]
    to, at = run_of(known), run_of(came - held_first)
    parts["lines"][:: line.state.stride][to] = held.parts["lines"][:: held.stride][at]
    for name in ("cold", "signal"):
        parts[name][to] = held.parts[name][at]
    before = parts["signal"].copy()
    move_windows(held, line, pairs, known, came)
    move_bins(held, line, pairs, known, came)
    silent = old.absent_ms[came] != new.absent_ms[first + known]
    changed = known[silent | ~pairs.same[pairs.of_sensor[known]]]
    line.state.set_rows(*line.sources)
    adapt(held, line, pairs, changed, origin.sensor)
    settled = np.flatnonzero(origin.source >= 0)
    parts["source"][settled] = held.parts["source"][origin.source[settled] - held.sources[0]]
    clock = held.clock.copy()
    dropped = _move_suppressed(old, new, clock)
    clock["context_ms"] = _next_turn_ms(new, int(clock["tick_ms"][0]))
    again = judge_again(held, line, pairs, origin.sensor, origin.source, before, clock)
    for shard in line.shards:
        shard.rejoin(clock)
    return Carried(
        n_kept=len(known) - len(changed),
        n_adapted=len(changed),
        n_new=origin.n_new + int(fresh.sum()),
        n_moved_in=origin.n_moved_in,
        n_moved_out=origin.n_moved_out,
        n_vanished=origin.n_vanished,
        n_sources_moved=origin.n_sources_moved,
        n_sources_vanished=origin.n_sources_vanished,
        n_judged_again=again,
        left_open=origin.left_open,
        n_windows_dropped=dropped,
    )


def _move_suppressed(old: Plan, new: Plan, clock: Array) -> int:
    """Let maintenance windows mean the same things in the new catalog; return how many can't."""
    was, now = old.catalog, new.catalog
    n = int(clock["n_suppressed"][0])
    if not n or was.digest == now.digest:
        return 0
    kept = []
    for window in clock["suppressed"][0][:n].copy():
        index = int(window["index"])
        if window["scope"] == JUDGE_SOURCE:
            place = int(now.source_resolver().resolve(was.source_id.slice(index, 1))[0])
        else:
            district = window["scope"] == JUDGE_DISTRICT
            names = (was.districts, now.districts) if district else (was.categories, now.categories)
            place = names[1].index(names[0][index]) if names[0][index] in names[1] else -1
        if place >= 0:
            window["index"] = place
            kept.append(window)
    clock["suppressed"] = 0
    clock["suppressed"][0][: len(kept)] = np.array(kept, SUPPRESSED)
    clock["n_suppressed"] = len(kept)
    return n - len(kept)


def _next_turn_ms(plan: Plan, tick_ms: int) -> int:
    """Return the first turn of a context that ticks have not passed; see `fuse.take_time`."""
    turns = np.concatenate([plan.contexts["from_ms"], plan.contexts["to_ms"]])
    if tick_ms != NEVER:
        turns = turns[turns > tick_ms]
    return int(turns.min()) if len(turns) else FAR_FUTURE_MS


@dataclass(eq=False)
class _Origin:
    """Where each sensor and source of a pipeline was in the old catalog; −1: nowhere of use."""

    sensor: Array
    source: Array
    n_moved_in: int = 0
    n_new: int = 0
    n_moved_out: int = 0
    n_vanished: int = 0
    n_sources_moved: int = 0
    n_sources_vanished: int = 0
    left_open: tuple[str, ...] = ()

    @classmethod
    def find(cls, held: Held, line: Pipeline) -> _Origin:
        old, new = held.plan.catalog, line.plan.catalog
        if old is new or old.digest == new.digest:
            return cls(
                np.arange(*held.sensors, dtype=np.int64), np.arange(*held.sources, dtype=np.int64)
            )
        sensor = _within(_look_up(old.resolver(), new.sensor_id, line.sensors), held.sensors)
        source = _within(_look_up(old.source_resolver(), new.source_id, line.sources), held.sources)
        gone = _within(_look_up(new.resolver(), old.sensor_id, held.sensors), line.sensors)
        lost = _within(_look_up(new.source_resolver(), old.source_id, held.sources), line.sources)
        up = np.flatnonzero((lost < 0) & (held.parts["source"]["shown"] > 0)) + held.sources[0]
        return cls(
            np.where(sensor < 0, -1, sensor),
            np.where(source < 0, -1, source),
            n_moved_in=_count(sensor, _ELSEWHERE),
            n_new=_count(sensor, _NOWHERE),
            n_moved_out=_count(gone, _ELSEWHERE),
            n_vanished=_count(gone, _NOWHERE),
            n_sources_moved=_count(lost, _ELSEWHERE),
            n_sources_vanished=_count(lost, _NOWHERE),
            left_open=tuple(old.source_id.take(column_of(up, pa.int64())).to_pylist()),
        )


_NOWHERE, _ELSEWHERE = -1, -2


def _look_up(resolver: Any, ids: pa.LargeStringArray, span: tuple[int, int]) -> Array:
    return resolver.resolve(ids.slice(span[0], span[1] - span[0])).astype(np.int64)


def _within(index: Array, span: tuple[int, int]) -> Array:
    """Tell what is nowhere at all from what is outside of a range."""
    outside = (index >= 0) & ((index < span[0]) | (index >= span[1]))
    return np.where(outside, _ELSEWHERE, index)


def _count(index: Array, what: int) -> int:
    return int(np.count_nonzero(index == what))

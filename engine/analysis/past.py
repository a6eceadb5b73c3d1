"""A history that is judged again and again: its readings, and the catalog of their sensors.

`judge(past, rules)` runs it through the line and keeps what came out; nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine import adapters, dump
from engine.analysis.steps import steps_of
from engine.catalog import Catalog
from engine.errors import ReadingsError
from engine.history import EVERYTHING, History, Span, Weaver
from engine.pipeline import Pipeline
from engine.plan import Plan, compile_plan
from engine.readings import Readings
from engine.replay import BATCH, ahead
from engine.rules import Rules
from kernels.layout import TICK, TRANSITION

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Past:
    """Readings and their catalog; the rules are what varies."""

    catalog: Catalog
    readings: tuple[Path, ...]
    adapter: adapters.Adapter
    span: Span = EVERYTHING
    sort: bool = False

    @classmethod
    def open(
        cls,
        catalog: Path | str,
        readings: Path | str | Sequence[Path | str],
        *,
        adapter: Path | str | None = None,
        since: str | None = None,
        until: str | None = None,
        sort: bool = False,
    ) -> Past:
        """Open a catalog, and the first of the files; raises what is wrong with them."""
        given = [readings] if isinstance(readings, (str, Path)) else readings
        paths = tuple(map(Path, given))
        if dump.find(paths):
            raise ReadingsError(
                f"{paths[0]}: a dump of a topic, message by message: only `tocsin replay` reads it"
            )
        of = adapters.load(None if adapter is None else Path(adapter))
        past = cls(
            catalog=Catalog.open(Path(catalog)),
            readings=paths,
            adapter=of,
            span=Span.between(since, until, of.time.zone),
            sort=sort,
        )
        past.history().check()
        return past

    def history(self, jump_ms: int = 1 << 62) -> History:
        """Return the history anew; `jump_ms` is how far a reading may lead before it is doubted."""
        return History(
            self.readings,
            self.adapter,
            self.catalog,
            span=self.span,
            sort=self.sort,
            jump_ms=jump_ms,
        )


class Log:
    """The log of a history under the times of some rules, tick records included, batch by batch."""

    def __init__(self, past: Past, plan: Plan, batch: int = BATCH) -> None:
        self.history = past.history(int(plan.max_late_ms))
        self._weaver = Weaver(
            self.history.chunks(),
            tick_ms=int(plan.tick_ms),
            jump_ms=self.history.jump_ms,
            n=batch,
            n_slots=4,
            ticked=self.history.has_ticks(),
        )

    def __iter__(self) -> Iterator[Readings]:
        """Yield the batches, the end included; one lasts until two more were taken."""
        yield from ahead(self._weaver.batches())
        ending = self._weaver.ending()
        if len(ending):
            yield ending


@dataclass(kw_only=True)
class Judged:
    """What rules made of a history."""

    plan: Plan
    transitions: Array
    """(T,) TRANSITION, in the log's order"""
    first_ms: int | None = None
    """Event time of the first reading; None of a history without any."""
    last_ms: int | None = None
    n_readings: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @cached_property
    def steps(self) -> Array:
        """(T,) STEP, in the log's order."""
        return steps_of(self.transitions)

    @cached_property
    def records(self) -> list[bytes]:
        """The alert records as JSON, in the log's order."""
        return Pipeline(self.plan).records.encode(self.transitions)

    @cached_property
    def alerts(self) -> list[dict[str, Any]]:
        """The alert records as objects."""
        return [orjson.loads(record) for record in self.records]


def judge(
    past: Past,
    rules: Rules,
    *,
    threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> Judged:
    """Run a history through the line; `on_progress` is told the share that is done.

    Raises what is wrong with the readings, and RulesError where rules and catalog don't fit.
    """
    plan = compile_plan(past.catalog, rules)
    pipeline = Pipeline(plan, threads=threads)
    judged = Judged(plan=plan, transitions=np.zeros(0, TRANSITION))
    found = [judged.transitions]
    log = Log(past, plan)
    for batch in log:
        transitions = pipeline.judge(batch)
        if len(transitions):
            found.append(transitions)
        of_readings = batch.event_ms[batch.sensor != TICK]
        if judged.first_ms is None and len(of_readings):
            judged.first_ms = int(of_readings.min())
        judged.n_readings += len(of_readings)
        if on_progress is not None:
            on_progress(log.history.share)
    judged.transitions = np.concatenate(found)
    judged.last_ms = pipeline.watermark_ms if judged.first_ms is not None else None
    judged.counts = dict(pipeline.counts)
    return judged

"""`tocsin demo-replay`: the generated day through the line, watched, then held against its truth.

On a terminal the day is slowed down so that people can follow it; in a pipe it runs as fast as it
reads. The alert log is the same.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console

from engine.demo_report import Outcome, print_report
from engine.demo_screen import FRAMES_A_SECOND, Frame, Row, Screen
from engine.errors import InputError, OutputError
from engine.replay import BATCH, Job, Progress, Replay
from engine.replay_cli import INTERRUPTED, prepared, short, stopping
from engine.simulate import MIDNIGHT
from engine.summary import Summary
from engine.truth import DAY_MS, read_truth, score
from kernels.layout import LEVEL_NAMES

SHOW_S = 20.0
"""How long the day lasts on a terminal, unless a speed is asked for."""
LEVEL = "blue"
"""An incident counts as found when its source comes to this level."""
_READINGS_A_SECOND = 7.7
"""Of event time, in the generated day: sizes the batches so that each is a small step in time."""
_STEP_S = 1 / FRAMES_A_SECOND
_NAP_S = 0.05
_PIPE_WIDTH = 100


def run(speed: float | None, as_json: bool, out: Path) -> int:
    """Build the day's catalog in `out`, replay the day, print how it went; return the exit code.

    `speed` is event time per wall time. Raises what is wrong with the files.
    """
    from replay_data import DAY

    stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
    if not stdout.is_terminal:
        stdout = Console(highlight=False, width=_PIPE_WIDTH)
    live = stdout.is_terminal and not stdout.is_dumb_terminal and not as_json
    pace = speed if speed is not None else DAY_MS / 1000 / SHOW_S if live else None
    batch = BATCH if pace is None else round(pace * _READINGS_A_SECOND * _STEP_S)
    job = _job(DAY, out, min(BATCH, max(1, batch)))
    stop = threading.Event()
    with stopping(stop):
        replay = prepared(job, stderr)
        show = Show(replay, pace, stop)
        with ExitStack() as stack:
            if live:
                show.screen = stack.enter_context(Screen(stdout, show.zone))
            summary = show.run()
    outcome = _outcome(DAY, job, replay, summary, show)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(outcome.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        print_report(outcome, stdout)
    return INTERRUPTED if summary.interrupted else 0


def _job(day: Path, out: Path, batch: int) -> Job:
    from engine.catalog_build import build_catalog

    if not (day / "readings.parquet").exists():
        raise InputError(f"{day}: the generated day is not there; python -m replay_data writes it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: can't be made a folder: {error.strerror}") from error
    catalog = out / "city.catalog"
    build_catalog(day, catalog)
    return Job(
        readings=(day / "readings.parquet",),
        catalog=catalog,
        rules=day / "rules.toml",
        output=out / "alerts.jsonl",
        batch=batch,
    )


class Show:
    """One replay at a pace, None for as fast as it goes; drawn where there is a screen."""

    def __init__(self, replay: Replay, pace: float | None, stop: threading.Event) -> None:
        self.replay, self.pace = replay, pace
        self.screen: Screen | None = None
        self.records: list[bytes] = []
        self.waited_s = 0.0
        self._stop = stop
        self._begun_s: float | None = None
        self._begun_ms = 0
        city = replay.plan.catalog
        self.zone = replay.plan.rules.time.zone()
        self._ids: list[str] = city.source_id.to_pylist()
        self.names: dict[str, str] = dict(zip(self._ids, city.name.to_pylist(), strict=True))

    def run(self) -> Summary:
        """Replay the day."""
        return self.replay.run(
            on_progress=self._on_progress, on_alerts=self._on_alerts, stopped=self._stop.is_set
        )

    def _on_alerts(self, records: list[bytes]) -> None:
        begun_s = time.perf_counter()
        self.records += records
        if self.screen is not None:
            self.screen.note(records)
        self.waited_s += time.perf_counter() - begun_s

    @property
    def event_ms(self) -> int:
        """The event time that the line has reached."""
        line: Any = self.replay.line
        return int(line.shards[0].clock["watermark_ms"][0])

    def _on_progress(self, progress: Progress) -> None:
        begun_s = time.perf_counter()
        if self.screen is not None:
            self.screen.draw(lambda: self._frame(progress))
        if self.pace is not None:
            self._wait(self.pace)
        self.waited_s += time.perf_counter() - begun_s

    def _wait(self, pace: float) -> None:
        """Sleep until the wall has gone as far as the event time has."""
        if self._begun_s is None:
            self._begun_s, self._begun_ms = time.perf_counter(), self.event_ms
        due_s = self._begun_s + (self.event_ms - self._begun_ms) / 1000 / pace
        while not self._stop.is_set() and (left_s := due_s - time.perf_counter()) > 0:
            time.sleep(min(left_s, _NAP_S))

    def _frame(self, progress: Progress) -> Frame:
        assert self.screen is not None
        moment = datetime.fromtimestamp(max(0, self.event_ms) / 1000, self.zone)
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        line_s = progress.elapsed_s - self.waited_s
        line: Any = self.replay.line
        rate = short(progress.readings / max(line_s, 1e-9))
        figures = f"{progress.readings:>7,} readings   {rate:>7} a second in the line"
        rows = [self._row(int(source)) for source in by_score(line.state.source)]
        return Frame(
            title="a generated city day",
            day=f"{moment:%A} {moment.day} {moment:%B %Y}",
            clock=f"{moment:%H:%M:%S}",
            share=(moment - midnight).total_seconds() / (DAY_MS / 1000),
            figures=f"{figures}   shown ×{self.pace or 0.0:,.0f}",
            n_alerts=progress.alerts,
            sources=rows,
            n_raised=len(rows),
            n_sources=len(self._ids),
            alerts=tuple(self.screen.alerts),
        )

    def _row(self, source: int) -> Row:
        assert self.screen is not None
        line: Any = self.replay.line
        now = line.state.source[source]
        source_id = self._ids[source]
        since, why = self.screen.reasons.get(source_id, ("", ""))
        level = LEVEL_NAMES[int(now["level"])]
        return Row(level, float(now["score"]), self.names[source_id], since, why)


def by_score(sources: np.ndarray[Any, Any]) -> list[int]:
    """Return the sources above normal, the highest score first; (S,) SOURCE."""
    raised = np.flatnonzero(sources["level"])
    order = np.lexsort((raised, -sources["level"][raised].astype(int), -sources["score"][raised]))
    return [int(source) for source in raised[order]]


def _outcome(day: Path, job: Job, replay: Replay, summary: Summary, show: Show) -> Outcome:
    start_ms = round(MIDNIGHT.timestamp() * 1000)
    end_ms = start_ms + DAY_MS
    if summary.interrupted:
        end_ms = min(end_ms, max(start_ms + 1, show.event_ms))
    incidents = [
        incident
        for incident in read_truth(day / "truth.csv", "+08:00")
        if incident.start_ms < end_ms
    ]
    alerts = show.records
    return Outcome(
        summary=summary,
        score=score(
            alerts,
            incidents,
            since_ms=start_ms,
            until_ms=end_ms,
            level=LEVEL,
            n_sources=int(replay.plan.catalog.n_sources),
        ),
        names=show.names,
        line_s=max(1e-9, summary.wall_s - show.waited_s),
        shown_s=summary.wall_s if show.pace is not None else None,
        reached=datetime.fromtimestamp(max(0, show.event_ms) / 1000, show.zone),
        n_sources=int(replay.plan.catalog.n_sources),
        catalog=job.catalog,
        rules=job.rules,
        readings=job.readings[0],
    )

"""What `tocsin demo-replay` says at the end: incidents, alarms, speed, what to try next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine.replay_cli import LEVEL_STYLES, duration, short
from engine.summary import Summary
from engine.truth import Detection, Episode, Incident, Score
from kernels.layout import LEVEL_NAMES

_TWO_COLUMNS_FROM = 96


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the demo went; paths are as the user can type them."""

    summary: Summary
    score: Score
    names: dict[str, str]
    """Names of the sources by id."""
    line_s: float
    """Wall time of the replay without drawing and waiting."""
    shown_s: float | None
    """Wall time that the day was stretched to; None if it was not."""
    reached: datetime
    n_sources: int
    catalog: Path
    rules: Path
    readings: Path

    @property
    def readings_per_s(self) -> float:
        """Readings a second of the replay itself."""
        return self.summary.readings / self.line_s

    def incidents(self) -> dict[str, list[Detection]]:
        """Return what became of each incident, at all the sources that it struck."""
        found: dict[str, list[Detection]] = {}
        for each in self.score.detections:
            found.setdefault(each.incident.kind, []).append(each)
        return found

    def is_over(self, incident: Incident) -> bool:
        """Whether the replay got past an incident, so that it can be said to be missed."""
        return incident.end_ms <= self.reached.timestamp() * 1000 or not self.summary.interrupted

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values."""
        return {
            "replay": self.summary.as_dict(),
            "line_s": round(self.line_s, 3),
            "line_readings_per_s": round(self.readings_per_s),
            "incidents": len(self.incidents()),
            "incidents_found": sum(any(d.found for d in ds) for ds in self.incidents().values()),
            "truth": self.score.as_dict(),
            "catalog": str(self.catalog),
            "rules": str(self.rules),
            "readings": str(self.readings),
        }


def print_report(outcome: Outcome, console: Console) -> None:
    """Print the closing report."""
    console.print(report(outcome, console.width))
    console.print(Text("\nTry next", style="bold"))
    for command in commands(outcome):
        # commands are not wrapped: they are copied
        console.print(f"  {command}", markup=False, soft_wrap=True)


def report(outcome: Outcome, width: int) -> RenderableType:
    """Return the report for a width in cells."""
    summary = outcome.summary
    if summary.interrupted:
        head = f"Interrupted at {outcome.reached:%H:%M:%S} of the day."
        detail = "What follows is what happened up to then."
    else:
        head, detail = "The day is over.", "Here is how its incidents were found:"
    return Group(
        Text(head, style="bold").append(f" {detail}", style="not bold"),
        Text(),
        _incidents(outcome, width),
        Text(),
        _facts(outcome),
    )


def _incidents(outcome: Outcome, width: int) -> RenderableType:
    rows = [_incident_cells(outcome, kind, found) for kind, found in outcome.incidents().items()]
    if not rows:
        return Text("  none had begun", style="dim")
    half = (len(rows) + 1) // 2
    parts = [rows[:half], rows[half:]] if width >= _TWO_COLUMNS_FROM and half > 1 else [rows]
    grid = Table.grid(padding=(0, 3))
    tables = []
    for part in parts:
        table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="dim")
        table.add_column("incident", no_wrap=True, width=20)
        table.add_column("sources", no_wrap=True, width=8)
        table.add_column("level", no_wrap=True, width=6)
        table.add_column("after", justify="right", no_wrap=True, width=11)
        for cells in part:
            table.add_row(*cells)
        tables.append(table)
        grid.add_column()
    grid.add_row(*tables)
    return grid


def _incident_cells(outcome: Outcome, kind: str, found: list[Detection]) -> tuple[Text, ...]:
    delays = [each.delay_ms for each in found if each.delay_ms is not None]
    peak = max((each.peak for each in found if each.found), key=LEVEL_NAMES.index, default=None)
    over = all(outcome.is_over(each.incident) for each in found)
    return (
        Text(kind, style="" if delays else "bold"),
        Text(f"{len(delays)} of {len(found)}"),
        Text(peak or "none", style=LEVEL_STYLES[peak] if peak else "dim"),
        Text(duration(min(delays) / 1000))
        if delays
        else Text("missed" if over else "not yet", style="bold"),
    )


def _facts(outcome: Outcome) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(outcome):
        table.add_row(name, escape(text))
    return table


def _rows(outcome: Outcome) -> Iterator[tuple[str, str]]:
    result, summary = outcome.score, outcome.summary
    incidents = outcome.incidents()
    n_found = sum(any(each.found for each in found) for found in incidents.values())
    delay_s = result.median_delay_s
    median = "" if delay_s is None else f"; median delay {duration(delay_s)}"
    yield (
        "found",
        f"{n_found} of {_count(len(incidents), 'incident')}, at {len(result.found)} of "
        f"{_count(len(result.detections), 'source')} that they struck{median}",
    )
    for missed in filter(outcome.is_over, result.missed):
        name = outcome.names.get(missed.source, missed.source)
        yield "missed", f"{missed.kind} at {name}: {missed.about}"
    alarms = [
        f"{outcome.names.get(each.source, each.source)} ({each.peak}, {_clock(outcome, each)})"
        for each in result.false
    ]
    yield "false alarms", f"{len(alarms)}: {', '.join(alarms)}" if alarms else "none"
    yield "alerts", _alerts(summary)
    yield "rejects", ", ".join(_rejects(summary)) or "none"
    speed = f"{summary.readings:,} readings of {_count(summary.n_sensors, 'sensor')}"
    speed += f" in {outcome.line_s:.2f} s, {short(outcome.readings_per_s)} a second"
    if outcome.shown_s is not None:
        speed += f"; shown in {outcome.shown_s:.0f} s"
    yield "speed", speed
    if summary.output is not None:
        yield "alert log", shown_path(Path(summary.output))


def _clock(outcome: Outcome, episode: Episode) -> str:
    return f"{datetime.fromtimestamp(episode.start_ms / 1000, outcome.reached.tzinfo):%H:%M}"


def _alerts(summary: Summary) -> str:
    raised = summary.alerts.by_level("raise"), summary.alerts.by_level("escalate")
    levels = [
        f"{level} {n:,}"
        for level in LEVEL_NAMES[1:]
        if (n := sum(each.get(level, 0) for each in raised))
    ]
    lower = [
        f"{word} {n:,}"
        for word, name in (("lowered", "de-escalate"), ("cleared", "clear"))
        if (n := sum(summary.alerts.by_level(name).values()))
    ]
    parts = [f"raised to {', '.join(levels)}" if levels else "", ", ".join(lower)]
    shown = "; ".join(part for part in parts if part)
    return f"{summary.alerts.n:,}: {shown}" if shown else "none"


def _rejects(summary: Summary) -> Iterator[str]:
    for name, n in summary.rejects.items():
        yield f"{name.replace('_', ' ')} {n:,}"


def commands(outcome: Outcome) -> Iterator[str]:
    """Yield what to type next."""
    catalog, rules = shown_path(outcome.catalog), shown_path(outcome.rules)
    yield f"tocsin rules check {rules}"
    yield f"tocsin catalog show {catalog}"
    replay = f"tocsin replay --catalog {catalog} --rules {rules}"
    yield f"{replay} {shown_path(outcome.readings)}"


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def shown_path(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)

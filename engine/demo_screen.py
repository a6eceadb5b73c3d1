"""The screen of `tocsin demo` and `demo-replay`: clock, sources by score, alerts as they come.

A frame becomes exactly as many lines as the terminal has, each of them cut to its width, and every
column stands where it stood before: nothing jumps when a source comes or goes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

import orjson
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from engine.replay_cli import LEVEL_STYLES
from engine.sentences import describe, number

FRAMES_A_SECOND = 12
MOST_ALERTS = 40
"""Alerts that the screen remembers; it shows the newest."""
MOST_ROWS = 10
"""Sources that a picture shows at most."""
LEAST_WIDTH, LEAST_HEIGHT = 60, 16
_HEAD, _HEADINGS = 3, 4
_STYLES = {**LEVEL_STYLES, "blue": "bright_blue", "normal": "green"}
_LEVEL_WIDTH = 6
_BAR = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class Row:
    """A source with a level: what the table of sources says of it."""

    level: str
    score: float
    name: str
    since: str
    why: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert as the screen says it."""

    clock: str
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Everything that one picture shows; `share` of the day is 0 to 1."""

    title: str
    day: str
    clock: str
    share: float
    figures: str
    """How much goes on: stands beside the bar, and should keep its width."""
    n_alerts: int
    sources: Sequence[Row]
    """Those above normal by score, of which more than `MOST_ROWS` are never shown."""
    n_raised: int
    n_sources: int
    alerts: Sequence[Alert]


def lines_of(frame: Frame, width: int, height: int) -> list[Text]:
    """Return the picture, `height` lines of at most `width` cells; at least 60 × 16 are used."""
    width, height = max(width, LEAST_WIDTH), max(height, LEAST_HEIGHT)
    body = height - _HEAD - _HEADINGS
    n_rows = min(MOST_ROWS, max(4, body * 2 // 5))
    lines = [*_head(frame, width), Text()]
    n_raised = frame.n_raised
    rest = f", {n_raised - n_rows} more not shown" if n_raised > n_rows else ""
    lines.append(
        _heading(
            "Risk sources by score", f"{n_raised} of {frame.n_sources} above normal{rest}", width
        )
    )
    rows = [_source_line(row, width) for row in frame.sources[:n_rows]]
    if not rows:
        rows = [Text("  all quiet", style="dim")]
    lines += rows + [Text()] * (n_rows - len(rows))
    lines.append(Text())
    lines.append(_heading("Alerts", f"{frame.n_alerts:,} so far, newest last", width))
    lines += _newest(frame.alerts, width, height - len(lines))
    lines += [Text()] * (height - len(lines))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _head(frame: Frame, width: int) -> list[Text]:
    title = Text("Tocsin", style="bold")
    title.append(f"  {frame.title}", style="dim not bold")
    clock = Text(f"{frame.day}  ", style="dim").append(frame.clock, style="bold not dim")
    figures = Text(frame.figures, style="dim")
    bar = _bar(frame.share, max(10, width - cell_len(frame.figures) - 2))
    return [_apart(title, clock, width), _apart(Text(bar, style="cyan"), figures, width)]


def _apart(left: Text, right: Text, width: int) -> Text:
    gap = max(1, width - cell_len(left.plain) - cell_len(right.plain))
    return Text.assemble(left, " " * gap, right)


def _heading(title: str, detail: str, width: int) -> Text:
    line = Text(f"{title}  ", style="bold").append(detail, style="dim not bold")
    rule = max(0, width - cell_len(line.plain) - 1)
    return line.append(" " + "─" * rule, style="dim not bold")


def _bar(share: float, width: int) -> str:
    """Return a bar of `width` cells, filled to an eighth of a cell; what is left is dotted."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    bar = "█" * full + (_EIGHTHS[part] if part else "")
    return bar + "·" * (width - len(bar))


def _source_line(row: Row, width: int) -> Text:
    style = _STYLES[row.level]
    name_width = min(30, max(20, width - 70))
    line = Text("  ").append(f"{row.level:<{_LEVEL_WIDTH}}", style=f"bold {style}")
    line.append(f" {_bar(row.score / 100, _BAR)}", style=style)
    line.append(f" {row.score:>3.0f}  ", style="bold")
    line.append(_fitted(row.name, name_width))
    line.append(f"  {row.since}  ", style="dim")
    line.append(row.why)
    return line


def _fitted(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    return text[: width - 1] + "…"


def _newest(alerts: Sequence[Alert], width: int, height: int) -> list[Text]:
    """Return the newest alerts that fit whole, two lines each at most, oldest first."""
    found: list[Text] = []
    for alert in reversed(alerts):
        lines = _alert_lines(alert, width)
        if len(found) + len(lines) > height:
            break
        found = lines + found
    return found


def _alert_lines(alert: Alert, width: int) -> list[Text]:
    indent = 2 + len(alert.clock) + 2 + _LEVEL_WIDTH + 2
    first, rest = _broken(alert.text, width - indent)
    head = Text(f"  {alert.clock}  ", style="dim")
    head.append(f"{alert.level:<{_LEVEL_WIDTH}}", style=f"bold not dim {_STYLES[alert.level]}")
    head.append(f"  {first}", style="not dim")
    if not rest:
        return [head]
    return [head, Text(" " * indent + rest)]


def _broken(text: str, width: int) -> tuple[str, str]:
    """Break a text at a blank into two lines; what does not fit ends at a clause, or at a word."""
    if cell_len(text) <= width:
        return text, ""
    at = text.rfind(" ", 0, width + 1)
    at = at if at > 0 else width
    first, rest = text[:at].rstrip(), text[at:].lstrip()
    if cell_len(rest) > width:
        clause, word = rest.rfind("; ", 0, width), rest.rfind(" ", 0, width)
        cut = clause if clause > width // 3 else word if word > 0 else width - 1
        rest = rest[:cut].rstrip(" ;,:") + "…"
    return first, rest


def alert_of(record: dict[str, Any], zone: tzinfo) -> Alert:
    """Return what the screen says of an alert record: its sentence without the time it repeats."""
    moment = datetime.fromtimestamp(record["event_ms"] / 1000, zone)
    text = record["text"].replace(f" at {moment:%Y-%m-%d %H:%M:%S}", "", 1)
    return Alert(f"{moment:%H:%M:%S}", record["level"], text)


def why(record: dict[str, Any]) -> str | None:
    """Return in a few words what keeps a source up; None if a record says only what was."""
    if record["cause"] == "rule" and record["rule"] is not None:
        return f"rule “{record['rule']}”"
    leading = record["contributors"][0] if record["contributors"] else None
    if leading is None:
        coupled = record["coupled_from"]
        return None if coupled is None else f"influenced by {coupled['source']}"
    if leading["fading"]:
        return None
    what = leading["quantity"].replace("_", " ")
    sign = {"high": "≥", "low": "≤"}.get(leading["detector"])
    if sign is None or leading["value"] is None or leading["limit"] is None:
        return describe(what, {**leading, "limit": None})
    beyond = leading["value"] >= leading["limit"]
    held = beyond == (sign == "≥") or leading["value"] == leading["limit"]
    limit = f" {sign} {number(leading['limit'])}" if held else ""
    return f"{what} {number(leading['value'])} {leading['unit']}".rstrip() + limit


class Screen:
    """Draws frames of a running replay on a terminal; `frame` makes the next one when it is due."""

    def __init__(self, console: Console, zone: tzinfo) -> None:
        self.console, self._zone = console, zone
        self.alerts: deque[Alert] = deque(maxlen=MOST_ALERTS)
        self.reasons: dict[str, tuple[str, str]] = {}
        """By source: the clock time at which its episode began, and why it has its level."""
        self._live = Live(
            console=console, screen=True, auto_refresh=False, vertical_overflow="crop"
        )
        self._drawn_s = 0.0

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def note(self, records: list[bytes]) -> None:
        """Take alert records as they come out of the line."""
        for line in records:
            record = orjson.loads(line)
            alert = alert_of(record, self._zone)
            self.alerts.append(alert)
            begun = datetime.fromtimestamp(record["episode_ms"] / 1000, self._zone)
            reason = why(record) or self.reasons.get(record["source"], ("", ""))[1]
            self.reasons[record["source"]] = (f"{begun:%H:%M}", reason)

    def draw(self, frame: Callable[[], Frame], *, now: bool = False) -> None:
        """Show a frame, if the last one was not just now."""
        clock_s = time.perf_counter()
        if not now and clock_s - self._drawn_s < 1 / FRAMES_A_SECOND:
            return
        self._drawn_s = clock_s
        width, height = self.console.size
        picture = Text("\n").join(lines_of(frame(), width, height))
        picture.no_wrap, picture.overflow = True, "crop"
        self._live.update(picture, refresh=True)

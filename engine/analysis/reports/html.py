"""Small parts of the page: escaped text, times of the place, chips, tables."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone

from engine.replay_cli import duration
from kernels.layout import LEVEL_NAMES

DASH = "–"


def esc(text: object) -> str:
    """Return text that means nothing to a browser, in an element or in a quoted attribute."""
    return html.escape(str(text), quote=True)


class Clock:
    """Times as the place's clocks show them."""

    def __init__(self, zone: timezone) -> None:
        self.zone = zone
        offset = zone.utcoffset(None)
        self.offset_ms = offset // timedelta(milliseconds=1)
        minutes = abs(self.offset_ms) // 60_000
        sign = "-" if self.offset_ms < 0 else "+"
        self.name = f"UTC{sign}{minutes // 60:02}:{minutes % 60:02}" if minutes else "UTC"

    def __call__(self, event_ms: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
        """Return a time; what no calendar has, as its number."""
        try:
            return datetime.fromtimestamp(event_ms / 1000, UTC).astimezone(self.zone).strftime(form)
        except (ValueError, OverflowError, OSError):
            return f"{event_ms} ms"

    def span(self, start_ms: int, end_ms: int) -> str:
        """Return two times: the day once where it is one, seconds where there are any."""
        seconds = "" if start_ms % 60_000 == end_ms % 60_000 == 0 else ":%S"
        day, time = "%Y-%m-%d", f"%H:%M{seconds}"
        end = time if self(start_ms, day) == self(end_ms, day) else f"{day} {time}"
        return f"{self(start_ms, f'{day} {time}')} {DASH} {self(end_ms, end)}"


def lasting(ms: float | None) -> str:
    """Return a length of time."""
    if ms is None:
        return DASH
    return f"{ms / 1000:.3g} s" if 0 < ms < 1000 else duration(ms / 1000)


def share(part: float | None) -> str:
    """Return a share as percent."""
    return DASH if part is None else f"{100 * part:.3g} %"


def level_chip(level: int) -> str:
    """Return a level as a word with a mark of its own: colour alone tells nothing."""
    name = LEVEL_NAMES[level]
    bars = "".join(f"<i{' class=on' if k < level else ''}></i>" for k in range(4))
    return f'<span class="chip level {name}"><b aria-hidden="true">{bars}</b>{name}</span>'


def verdict_chip(verdict: str) -> str:
    """Return a verdict as a chip with a sign; nothing for none."""
    signs = {
        "good": ("✓", "within"),
        "acceptable": ("~", "acceptable"),
        "missed": ("✗", "beyond"),
        "none": ("–", "no alarm"),
        "found": ("✓", "explained"),
        "false": ("✗", "false alarm"),
        "unfound": ("✗", "missed"),
    }
    if verdict not in signs:
        return ""
    sign, words = signs[verdict]
    return (
        f'<span class="chip verdict {verdict}"><b aria-hidden="true">{sign}</b>{esc(words)}</span>'
    )


def table(
    heads: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    kind: str = "",
) -> str:
    """Return a table of HTML cells; a head is (words, class of the column)."""
    head = "".join(f'<th scope="col" class="{c}">{esc(words)}</th>' for words, c in heads)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{c}">{cell}</td>' for cell, (_, c) in zip(row, heads, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(caption)}">'
        f'<table class="{kind}"><caption class="unseen">{esc(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bars(counts: Sequence[int], most: int) -> str:
    """Return alarms by level as one bar, of the length of their number among `most`."""
    parts = "".join(
        f'<i class="{LEVEL_NAMES[k + 1]}" style="width:{100 * n / max(most, 1):.3g}%"></i>'
        for k, n in enumerate(counts)
        if n
    )
    words = ", ".join(f"{n} {LEVEL_NAMES[k + 1]}" for k, n in enumerate(counts) if n)
    label = esc(words)
    return f'<span class="bars" role="img" aria-label="{label}" title="{label}">{parts}</span>'


def card(title: str, body: str, *, note: str = "", kind: str = "", name: str = "") -> str:
    """Return a titled panel."""
    label = f' id="{name}"' if name else ""
    said = f'<p class="note">{note}</p>' if note else ""
    return f'<section class="card {kind}"{label}><h3>{esc(title)}</h3>{said}{body}</section>'


def column(cards: str) -> str:
    """Return panels under each other, beside another column where there is room."""
    return f'<div class="column">{cards}</div>'


def chart(name: str, words: str, *, height: int) -> str:
    """Return the place of a chart, with what it says in words and as a table on demand."""
    return (
        f'<div class="chart" id="{name}" role="img" aria-label="{esc(words)}"'
        f' style="height:{height}px"></div>'
        f'<details class="alt" data-of="{name}"><summary>As a table</summary></details>'
    )


def nothing(words: str) -> str:
    """Return what stands where there is nothing to show."""
    return f'<p class="nothing">{esc(words)}</p>'

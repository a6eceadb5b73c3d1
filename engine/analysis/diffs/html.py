"""A difference of two rule sets as one page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timezone

import numpy as np

from engine.analysis.diffs.diff import CHANGES, SAME, Diff, Group, Side
from engine.analysis.diffs.page import level_mark, page, table, tiles, when
from engine.analysis.diffs.rules import shown
from engine.analysis.diffs.said import amount, change_words, differs, lasted, name_of, verdict_words
from engine.analysis.explaining.words import esc, moment, zone_name
from kernels.layout import LEVEL_NAMES

MOST = 2000
"""Groups that are listed; the Arrow table and the JSON have all."""
_WIDTH, _BAR = 260, 9


def html_of(diff: Diff, *, old: str, new: str, failed: list[str] | None = None) -> str:
    """Return the page; `old` and `new` are what people call the rule sets."""
    zone = diff.new_rules.time.zone()
    body = [
        f"<h1>{esc(old)} → {esc(new)}</h1>",
        f'<p class="dim">{esc(_history(diff, zone))}</p>',
        tiles(_tiles(diff)),
        *(f'<p class="note bad">{esc(each)}</p>' for each in failed or ()),
        "<h2>What differs in the rules</h2>",
        _keys(diff),
        "<h2>Episodes that differ</h2>",
        _groups(diff, zone),
        "<h2>How many</h2>",
        _counts(diff),
    ]
    if diff.against is not None:
        body += ["<h2>Against what really happened</h2>", _truth(diff, zone)]
    return page(f"{old} → {new}", "".join(body))


def _history(diff: Diff, zone: timezone) -> str:
    text = f"{diff.n_readings:,} readings"
    if diff.first_ms is not None and diff.last_ms is not None:
        span = (moment(ms, zone, year=True) for ms in (diff.first_ms, diff.last_ms))
        text += f", {' to '.join(span)}, times in {zone_name(zone)}"
    return text


def _tiles(diff: Diff) -> Iterator[tuple[str, str]]:
    yield "alerts", f"{len(diff.old_steps):,} → {len(diff.new_steps):,}"
    yield "episodes", f"{len(diff.old):,} → {len(diff.new):,}"
    for change in CHANGES:
        n = diff.by_change[change]
        if n or change == SAME:
            yield change, f"{n:,}"


def _keys(diff: Diff) -> str:
    if not diff.keys:
        return "<p>Nothing: both mean the same.</p>"
    rows = (
        [f"<code>{esc(each.key)}</code>", *(_code(value) for value in (each.old, each.new))]
        for each in diff.keys
    )
    return table(("key", "old", "new"), rows)


def _code(value: object) -> str:
    return f"<code>{esc(shown(value))}</code>"


def _groups(diff: Diff, zone: timezone) -> str:
    groups = diff.differing
    if not groups:
        return "<p>None: the same levels at the same times.</p>"
    rows = (_row(diff, group, zone) for group in groups[:MOST])
    rest = f"<p>{len(groups) - MOST:,} more are not listed.</p>" if len(groups) > MOST else ""
    heads = ("source", "what differs", "start", "peak", "above normal", "old above, new below")
    return table(heads, rows) + rest


def _row(diff: Diff, group: Group, zone: timezone) -> list[str]:
    side = group.old or group.new
    assert side is not None
    lengths = lasted(group.old), lasted(group.new)
    old, new = group.peaks
    peak = level_mark(old) if old == new else f"{level_mark(old)} → {level_mark(new)}"
    return [
        f'{esc(group.source)}<br><span class="dim">{esc(group.category)}</span>',
        f"{esc(change_words(group))}<br><code>{esc(side.alert_id or '')}</code>",
        when(side.start_ms, zone),
        peak,
        esc(lengths[0] if lengths[0] == lengths[1] else " → ".join(lengths)),
        _bars(diff, group, zone),
    ]


def _bars(diff: Diff, group: Group, zone: timezone) -> str:
    """Draw the levels of both rule sets over the same time."""
    sides = [side for side in (group.old, group.new) if side is not None]
    begin_ms = min(side.start_ms for side in sides)
    end_ms = max(begin_ms + 1, *(side.end_ms for side in sides))
    scale = (_WIDTH - 1) / (end_ms - begin_ms)
    source = diff.catalog.source_index(group.source)
    drawn = []
    for row, (side, steps) in enumerate(((group.old, diff.old_steps), (group.new, diff.new_steps))):
        for since_ms, until_ms, level in _spans(side, steps, source):
            x, width = (since_ms - begin_ms) * scale, max(1.0, (until_ms - since_ms) * scale)
            drawn.append(
                f'<rect x="{x:.1f}" y="{row * (_BAR + 3)}" width="{width:.1f}" height="{_BAR}" '
                f'style="fill:var(--{LEVEL_NAMES[level]})"/>'
            )
    height = 2 * _BAR + 3
    ends = " to ".join(moment(ms, zone) for ms in (begin_ms, end_ms))
    return (
        f'<svg width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{esc(ends)}"><title>{esc(ends)}</title>{"".join(drawn)}</svg>'
    )


def _spans(side: Side | None, steps: np.ndarray, source: int) -> Iterator[tuple[int, int, int]]:
    if side is None:
        return
    low, high = (int(np.searchsorted(steps["source"], source, end)) for end in ("left", "right"))
    # times of a source never go backward
    times = steps["event_ms"][low:high]
    first = low + int(np.searchsorted(times, side.start_ms))
    last = low + int(np.searchsorted(times, side.end_ms, "right"))
    mine = steps[first:last]
    when = [*mine["event_ms"].tolist(), side.end_ms]
    for at, level in enumerate(mine["level"].tolist()):
        if level:
            yield when[at], when[at + 1], level


def _counts(diff: Diff) -> str:
    rows = []
    for count in diff.counts():
        if not (count.old or count.new) or (count.of == "alerts by source" and not differs(count)):
            continue
        rows.append([esc(name_of(count)), *(esc(text) for text in amount(count))])
    return table(("", "old", "new", "change"), rows, numbers=" nnn")


def _truth(diff: Diff, zone: timezone) -> str:
    against = diff.against
    assert against is not None
    rows = (
        [
            esc(verdict.incident.source),
            esc(verdict.incident.kind),
            when(verdict.incident.start_ms, zone),
            *(f'<span class="{_kind(verdict.change)}">{esc(each)}</span>'
              for each in verdict_words(verdict)),
        ]
        for verdict in against.verdicts
    )  # fmt: skip
    found = " → ".join(f"{len(s.found)} of {len(s.detections)}" for s in (against.old, against.new))
    false = " → ".join(f"{len(s.false):,}" for s in (against.old, against.new))
    text = f"At level {against.old.level}: incidents found {found}, false alarms {false}."
    heads = ("source", "incident", "start", "old", "new", "change")
    return f"<p>{esc(text)}</p>" + table(heads, rows)


def _kind(change: str) -> str:
    return {"lost": "bad", "later": "bad", "found": "good", "earlier": "good"}.get(change, "dim")

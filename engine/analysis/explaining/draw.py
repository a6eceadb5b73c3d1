"""The readings around a transition as a line of blocks on a terminal, or as a small drawing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timezone
from typing import Any

import numpy as np

from engine.analysis.explaining.explain import Explanation
from engine.analysis.explaining.story import Story
from engine.analysis.explaining.words import esc, moment, number
from kernels.layout import HIGH, LEVEL_NAMES, LOW, N_LEVELS

Array = np.ndarray[Any, Any]

_BLOCKS = "▁▂▃▄▅▆▇█"
_LEAST_MS = 600_000
_LEAST_N = 60
_WIDTH, _HEIGHT, _LEFT, _TOP, _LINE = 960, 150, 46, 8, 11


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Good readings of one sensor around the transition."""

    sensor: str
    quantity: str
    unit: str
    event_ms: Array
    value: Array
    limits: tuple[tuple[str, float], ...]
    """(level, limit) of the latches, in the profile's unit."""
    since_ms: int
    until_ms: int
    at_ms: int
    """When the transition was."""


def curves_of(of: Explanation) -> list[Curve]:
    """Return the readings of the sensors that count, from before it began to shortly after."""
    story = Story(of.extract, of.moment)
    at_ms = int(of.moment.transition["event_ms"])
    begun_ms = min([at_ms, *(told.event_ms for told in of.story)])
    sensors = {each.sensor for each in of.moment.sensors} | {told.sensor for told in of.story}
    periods = (int(of.moment.plan.catalog.period_ms[sensor]) for sensor in sensors)
    length_ms = max(at_ms - begun_ms, _LEAST_MS, _LEAST_N * max(periods, default=0))
    since_ms = min(begun_ms - length_ms // 3, at_ms - length_ms)
    until_ms = at_ms + length_ms // 6
    found = []
    for sensor in sorted(sensors):
        records = story.good(sensor, len(of.extract.log) - 1)
        when = of.extract.log.event_ms[records]
        within = (when >= since_ms) & (when <= until_ms)
        records, when = records[within], when[within]
        if len(records) < 2:
            continue
        plan = of.moment.plan
        row = int(plan.row[sensor])
        limits = (
            (LEVEL_NAMES[level], plan.limit(row, kind, level))
            for kind in (HIGH, LOW)
            for level in range(1, N_LEVELS + 1)
        )
        found.append(
            Curve(
                sensor=plan.catalog.sensor_id[sensor].as_py(),
                quantity=plan.catalog.quantities[int(plan.catalog.quantity[sensor])],
                unit=plan.unit(row),
                event_ms=when,
                value=story.values(sensor, records),
                limits=tuple((name, limit) for name, limit in limits if np.isfinite(limit)),
                since_ms=since_ms,
                until_ms=until_ms,
                at_ms=at_ms,
            )
        )
    return found


def blocks(curve: Curve, width: int) -> tuple[str, str]:
    """Return the curve up to the transition, and after it, as blocks; a space is no reading."""
    span_ms = max(1, curve.until_ms - curve.since_ms)
    column = np.minimum((curve.event_ms - curve.since_ms) * width // span_ms, width - 1)
    low, high = float(curve.value.min()), float(curve.value.max())
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    usual_ms = np.median(np.diff(curve.event_ms)) if len(curve.value) > 1 else 0
    most = int(3 * usual_ms * width // span_ms)
    drawn: list[str] = []
    empty = most
    for at in range(width):
        mine = curve.value[column == at]
        empty = 0 if len(mine) else empty + 1
        if len(mine):
            drawn.append(_BLOCKS[round((float(mine.mean()) - low) * scale)])
        else:  # between two readings that are no further apart than usual the line goes on
            drawn.append(drawn[-1] if drawn and empty <= most else " ")
    mark = int(min(width - 1, (curve.at_ms - curve.since_ms) * width // span_ms)) + 1
    text = "".join(drawn)
    return text[:mark], text[mark:]


def drawing(curve: Curve, zone: timezone) -> str:
    """Return the curve as an SVG, with the limits that lie near its values and the transition."""
    low, high = float(curve.value.min()), float(curve.value.max())
    near = high - low or abs(high) or 1.0
    limits = [(n, x) for n, x in curve.limits if low - 0.6 * near <= x <= high + 0.6 * near]
    low, high = (end(x for x in (low, high, *(x for _, x in limits))) for end in (min, max))
    room = (high - low or abs(high) or 1.0) * 0.06
    low, high = low - room, high + room
    wide, tall = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - 22

    def x_of(ms: Any) -> Any:
        return _LEFT + (ms - curve.since_ms) * wide / max(1, curve.until_ms - curve.since_ms)

    def y_of(value: Any) -> Any:
        return _TOP + (high - value) * tall / (high - low)

    parts = []
    for name, limit in limits:
        y = y_of(limit)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" '
            f'style="stroke:var(--{name});stroke-dasharray:4 3"/>'
            f'<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{number(limit)}</text>'
        )
    # the ends of the values, unless a limit's number stands there already
    for value in sorted({float(curve.value.min()), float(curve.value.max())}):
        if all(abs(y_of(value) - y_of(limit)) > _LINE for _, limit in limits):
            y = y_of(value) + 4
            parts.append(
                f'<text x="{_LEFT - 4}" y="{y:.1f}" text-anchor="end">{number(value)}</text>'
            )
    at = _thinned(len(curve.value))
    points = zip(x_of(curve.event_ms[at]), y_of(curve.value[at]), strict=True)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    mark = x_of(curve.at_ms)
    base = _HEIGHT - 6
    parts += [
        f'<line x1="{mark:.1f}" x2="{mark:.1f}" y1="{_TOP}" y2="{_TOP + tall}" '
        'style="stroke:var(--ink);stroke-width:1.5"/>',
        f'<polyline points="{line}" style="fill:none;stroke:var(--ink);stroke-width:1.2"/>',
        f'<text x="{_LEFT}" y="{base}">{esc(moment(curve.since_ms, zone))}</text>',
        f'<text x="{_WIDTH - 8}" y="{base}" text-anchor="end">'
        f"{esc(moment(curve.until_ms, zone))}</text>",
    ]
    name = f"{curve.quantity} of {curve.sensor}"
    return (
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{esc(name)}"><title>{esc(name)}</title>{"".join(parts)}</svg>'
    )


def _thinned(n: int, most: int = 1500) -> Array:
    found: Array = np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
    return found

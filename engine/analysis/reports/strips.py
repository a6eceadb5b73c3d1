"""One strip chart: a traced stretch as the plain values that the page draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from engine.alerts import AlertRecords
from engine.analysis.reports.chosen import Chosen
from engine.analysis.strips import SensorTrace, SourceTrace, Trace
from engine.plan import Plan
from kernels.layout import (
    ACCEPTED,
    BACKWARD,
    BAD_QUALITY,
    CAUSE_NAMES,
    DUPLICATE,
    HIGH,
    KIND_NAMES,
    LEVEL_NAMES,
    LOW,
    N_KINDS,
    N_LEVELS,
    NOT_FINITE,
    OUT_OF_RANGE,
    TRANSITION_NAMES,
)

Array = np.ndarray[Any, Any]

MOST_SENSORS = 5
MOST_POINTS = 480
"""Points of one curve: of more, the first, least, greatest and last of equal times are kept."""
MOST_MARKS = 60
MOST_TRANSITIONS = 60
BAD = (BAD_QUALITY, NOT_FINITE, OUT_OF_RANGE)
GAP_PERIODS = 6
"""After as many periods of silence a curve is broken."""
_DIGITS = 6


def strip_of(trace: Trace, records: AlertRecords, chosen: Chosen) -> dict[str, Any]:
    """Return what the page draws of one chosen stretch; times are ms after its `since`."""
    of = trace.of(*chosen.stretch)
    plan = trace.plan
    since_ms = of.since_ms
    shown, n_hidden = _worth_drawing(of)
    told = of.transitions[:MOST_TRANSITIONS]
    return {
        "since": since_ms,
        "length": of.until_ms - since_ms,
        "sensors": [_sensor(plan, each, of) for each in shown],
        "hidden": n_hidden,
        "score": _curve(
            np.append(of.moments["event_ms"], of.until_ms).clip(since_ms) - since_ms,
            np.append(of.moments["score"], of.moments["score"][-1]),
        ),
        "level": _segments(
            of.moments["event_ms"].clip(since_ms) - since_ms,
            of.moments["level"],
            of.until_ms - since_ms,
        ),
        **_thresholds(plan, of.source),
        "transitions": [
            {
                "at": int(each["event_ms"]) - since_ms,
                "kind": TRANSITION_NAMES[int(each["kind"])],
                "level": int(each["level"]),
                "cause": CAUSE_NAMES[int(each["cause"])].replace("_", " "),
                "text": orjson.loads(record)["text"],
            }
            for each, record in zip(told, records.encode(told), strict=True)
        ],
        "more": len(of.transitions) - len(told),
        "incidents": [
            [each.start_ms - since_ms, each.end_ms - since_ms, each.kind]
            for each in chosen.incidents
        ],
    }


def _worth_drawing(of: SourceTrace) -> tuple[list[SensorTrace], int]:
    """Return the sensors that said something, others as far as there is room, and how many not."""

    def weight(each: SensorTrace) -> tuple[bool, int, int]:
        said = bool(each.before) or bool(each.changes["levels"].any())
        return (not said, -int(bool(len(each.readings))), each.sensor)

    ranked = sorted(of.sensors, key=weight)
    n_said = sum(not weight(each)[0] for each in of.sensors)
    n = min(max(n_said, 2), MOST_SENSORS)
    return sorted(ranked[:n], key=lambda each: each.sensor), max(0, len(ranked) - n)


def _sensor(plan: Plan, of: SensorTrace, source: SourceTrace) -> dict[str, Any]:
    catalog, row = plan.catalog, int(plan.row[of.sensor])
    since_ms, length = source.since_ms, source.until_ms - source.since_ms
    readings = of.readings
    good = readings[np.isin(readings["fate"], (ACCEPTED, DUPLICATE))]
    bad = readings[np.isin(readings["fate"], BAD)]
    late = readings[(readings["fate"] == BACKWARD) & np.isfinite(readings["value"])]
    curve = _curve(good["event_ms"] - since_ms, good["value"])
    values = curve[1::2]
    limits = _limits(plan, row, values)
    unit = plan.unit(row)
    return {
        "id": catalog.sensor_id[of.sensor].as_py(),
        "quantity": catalog.quantities[catalog.quantity[of.sensor]].replace("_", " "),
        "unit": "" if unit == "1" else unit,
        "gap": _gap_ms(good, int(catalog.period_ms[of.sensor])),
        "watched": plan.profile_of_row[row] is not None,
        "curve": curve,
        "bad": _some(bad["event_ms"] - since_ms),
        "n_bad": len(bad),
        "late": [
            [int(at), _short(value)]
            for at, value in zip(
                late["event_ms"][:MOST_MARKS] - since_ms, late["value"][:MOST_MARKS], strict=True
            )
        ],
        "n": len(readings),
        "limits": limits,
        "deadband": _short(float(plan.params["deadband"][row])) if limits else 0,
        "lanes": [*_latch_lanes(of, since_ms, length), *_signal_lanes(of, since_ms, length)],
    }


def _gap_ms(good: Array, period_ms: int) -> int:
    """Return the silence that breaks a curve; one that was thinned has gaps of up to a column."""
    gap_ms = GAP_PERIODS * period_ms
    if len(good) > MOST_POINTS:
        gap_ms = max(gap_ms, int(np.ptp(good["event_ms"])) * 5 // MOST_POINTS)
    return gap_ms


def _limits(plan: Plan, row: int, values: list[float]) -> list[list[Any]]:
    """Return the limits that the values reach, and the next one beyond: [side, level, value]."""
    found = []
    most, least = max(values, default=-math.inf), min(values, default=math.inf)
    for side, name in ((1, "high"), (-1, "low")):
        limits = [(k + 1, float(v)) for k, v in enumerate(plan.params[name][row])]
        for level, limit in limits:
            if not math.isfinite(limit):
                continue
            found.append([side, level, _short(limit)])
            if (limit > most) if side > 0 else (limit < least):
                break
    return found


def _latch_lanes(of: SensorTrace, since_ms: int, length: int) -> list[dict[str, Any]]:
    """Return a lane for each limit that was latched, from the readings after which it was."""
    lanes = []
    at = of.readings["event_ms"] - since_ms
    # backward readings tell nothing new, and would make segments that end before they begin
    forward = np.maximum.accumulate(at) == at if len(at) else np.zeros(0, bool)
    for bit in range(2 * N_LEVELS):
        level, kind = bit % N_LEVELS + 1, HIGH if bit < N_LEVELS else LOW
        on = (of.readings["latched"] >> bit & 1) * level
        if not on.any():
            continue
        lanes.append(
            {
                "name": f"{KIND_NAMES[kind]} {LEVEL_NAMES[level]}",
                "latch": True,
                "segments": _segments(at[forward], on[forward], length),
            }
        )
    return lanes


def _signal_lanes(of: SensorTrace, since_ms: int, length: int) -> list[dict[str, Any]]:
    """Return a lane for each detector that signalled, limits aside: they have their latches."""
    lanes = []
    at = np.concatenate([[0], (of.changes["event_ms"] - since_ms).clip(0)])
    packed = np.concatenate([[of.before], of.changes["levels"]]).astype(np.int64)
    for kind in range(N_KINDS):
        if kind in (HIGH, LOW):
            continue
        levels = packed >> (3 * kind) & 7
        if levels.any():
            lane = {"name": KIND_NAMES[kind], "latch": False}
            lanes.append(lane | {"segments": _segments(at, levels, length)})
    return lanes


def _segments(at: Array, levels: Array, length: int) -> list[list[int]]:
    """Return where a stepwise level is above 0: [from, to, level], touching ones of it joined."""
    found: list[list[int]] = []
    ends = np.append(at[1:], length)
    for start, end, level in zip(at.tolist(), ends.tolist(), levels.tolist(), strict=True):
        if not level or end < start:
            continue
        if found and found[-1][2] == level and found[-1][1] == start:
            found[-1][1] = end
        else:
            found.append([start, end, level])
    return found


def _thresholds(plan: Plan, source: int) -> dict[str, Any]:
    of = plan.category[plan.catalog.category[source]]
    limits = [[k + 1, _short(float(v))] for k, v in enumerate(of["raise_at"]) if math.isfinite(v)]
    return {"thresholds": limits, "deadband": _short(float(of["deadband"]))}


def _curve(at: Array, values: Array) -> list[Any]:
    """Return times and values in turn, in order of time, thinned so that the shape stays."""
    order = np.argsort(at, kind="stable")
    at, values = at[order], values[order]
    keep = thinned(at, values)
    flat: list[Any] = [0] * (2 * len(keep))
    flat[0::2] = at[keep].tolist()
    flat[1::2] = [_short(value) for value in values[keep].tolist()]
    return flat


def thinned(at: Array, values: Array, most: int = MOST_POINTS) -> Array:
    """Return the places to keep of a curve: of each of equal times the ends and the extremes.

    What a screen of as many columns shows is the same (M4: Jugel et al., VLDB 2014).
    """
    if len(at) <= most:
        return np.arange(len(at))
    span = max(1, int(at[-1] - at[0]))
    column = np.minimum((at - at[0]) * (most // 4) // (span + 1), most // 4 - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(at))
    kept: set[int] = set()
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        part = values[start:end]
        kept |= {start, end - 1, start + int(part.argmin()), start + int(part.argmax())}
    return np.array(sorted(kept))


def _some(at: Array) -> list[int]:
    """Return some of many times, evenly."""
    if len(at) > MOST_MARKS:
        at = at[np.linspace(0, len(at) - 1, MOST_MARKS).astype(int)]
    return [int(each) for each in at]


def _short(value: float) -> float:
    """Return a number with no more digits than a chart shows."""
    return float(f"{value:.{_DIGITS}g}")

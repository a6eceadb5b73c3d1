"""Traces: the records that show people which commands were taken, who gave them, when and why.

A trace is an alert record whose transition is the command's name and which moves no level. In an
episode that is shown it has the next number and goes to those who were told of the episode; outside
of one it has no `alert_id` and no `seq`, and goes to the route that takes the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from engine.alerts import AlertRecords, alert_id
from engine.carry_out import Refusal, Trace
from engine.commands import Command, Shelve, Suppress
from kernels.layout import LEVEL_NAMES


class Answer(NamedTuple):
    """What became of a command: alerts as (key, record), in order; the (level, kind) of those that
    change a level; why it was refused, if it was.
    """

    alerts: list[tuple[bytes, bytes]]
    kinds: list[tuple[int, int]]
    refusal: Refusal | None


def encode_trace(records: AlertRecords, command: Command, trace: Trace) -> bytes:
    """Return the trace of a command as JSON."""
    scope, name = command.scope
    known = {} if trace.source is None else records.about(trace.source)
    who = known.get("who", f"{scope} {name}")
    level = LEVEL_NAMES[trace.level]
    time = records.local(trace.event_ms)
    episode = None
    routes = [records.plan.rules.rest_route]
    if trace.source is not None and trace.episode_ms is not None:
        episode = alert_id(known["source"], trace.episode_ms)
        routes = records.routes(trace.source, trace.reached)
    record: dict[str, Any] = {
        "alert_id": episode,
        "seq": trace.seq,
        "transition": command.name,
        "level": level,
        "level_from": level,
        "score": round(trace.score, 1),
        "event_ms": trace.event_ms,
        "time": time,
        "late": False,
        "episode_ms": trace.episode_ms,
        "source": known.get("source"),
        "category": known.get("category", name if scope == "category" else None),
        "static_class": known.get("static_class"),
        "cause": "command",
        "rule": None,
        "factor": None,
        "contributors": [],
        "coupled_from": None,
        "place": known.get("place", {"district": name} if scope == "district" else None),
        "responsible": known.get("responsible"),
        "routes": routes,
        "rules": records.plan.rules.digest,
        "command": command.id,
        "by": command.by,
        "note": command.note,
        **{key: getattr(command, key) for key in _ENDS if hasattr(command, key)},
        "text": _text(records, command, who, level, time),
    }
    return orjson.dumps(record)


def _text(records: AlertRecords, command: Command, who: str, level: str, time: str) -> str:
    """Return the plain sentence: who did what, until when, and why."""
    by = f"by {command.by} at {_moment(time)}"
    match command:
        case Shelve():
            until = _moment(records.local(command.until_ms))
            text = f"{who}: shelved until {until} {by}; a red alert is shown all the same"
        case Suppress():
            start, end = (_moment(records.local(ms)) for ms in (command.from_ms, command.until_ms))
            what = f"maintenance from {start} until {end}, set"
            text = f"{who}: {what} {by}; a red alert is shown all the same"
        case _:
            text = f"{who}: {_WHAT[command.name].format(level=level)} {by}"
    return f"{text}: {command.note}." if command.note else f"{text}."


_ENDS = ("from_ms", "until_ms")
_WHAT: dict[str, str] = {
    "acknowledge": "{level} alert acknowledged",
    "unshelve": "no longer shelved, set",
    "unsuppress": "every maintenance window ended",
    "out_of_service": "out of service, nothing is shown, set",
    "in_service": "back in service, set",
}


def _moment(time: str) -> str:
    return f"{time[:10]} {time[11:19]}"

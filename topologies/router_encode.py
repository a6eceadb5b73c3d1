"""From alert records to the arguments of the router's script.

Of a record of about 1 kB the script needs some ten short fields. They go as one JSON array per
flush (`cjson` in the server reads it in one call), the record itself as it is: two arguments an
alert rather than sixteen, which halved the CPU time of packing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

Alert = tuple[int, int, bytes]
"""Offset in the readings' partition, number among the alerts of that message, record."""

MOST_ALERTS = 256
MOST_BYTES = 512 << 10
"""Bounds of one script, which holds the server up for some milliseconds."""
MOST_ROUTES = 64
DEFAULT_ROUTES = ("default",)
LEVELS = ("normal", "blue", "yellow", "orange", "red")
MOST_LATITUDE = 85.05112878
"""Beyond it Redis keeps no place."""
FIXED_KEYS = ("fence", "alerts", "active", "geo", "counters")


class Position(NamedTuple):
    """Where an alert comes from; ascends within a partition."""

    offset: int
    index: int


class Chunk(NamedTuple):
    """What one script applies: consecutive alerts of one partition, ready to send."""

    first: Position
    last: Position
    n_alerts: int
    n_bytes: int
    keys: list[bytes]
    n_routes: int
    heads: bytes
    records: list[bytes]


class Unfit(ValueError):
    """A record that is not an alert record."""


Reject = Callable[[Alert, str], None]


def chunks_of(prefix: str, alerts: Sequence[Alert], reject: Reject) -> Iterator[Chunk]:
    """Yield the alerts in order, in chunks; what is no alert record goes to `reject`."""
    start = size = 0
    for i, alert in enumerate(alerts):
        size += len(alert[2])
        if i + 1 - start >= MOST_ALERTS or size >= MOST_BYTES or i + 1 == len(alerts):
            chunk = _chunk(prefix, alerts[start : i + 1], reject)
            if chunk is not None:
                yield chunk
            start, size = i + 1, 0


def _chunk(prefix: str, alerts: Sequence[Alert], reject: Reject) -> Chunk | None:
    heads: list[Any] = []
    hashes: list[bytes] = []
    records: list[bytes] = []
    routes: dict[str, int] = {}
    hash_prefix = f"{prefix}alert:"
    for alert in alerts:
        try:
            head = _head(alert, routes)
        except (Unfit, ValueError, KeyError, TypeError, AttributeError) as error:
            reject(alert, reason(error))
            continue
        heads.append(head)
        hashes.append((hash_prefix + head[2]).encode())
        records.append(alert[2])
    if not heads:
        return None
    keys = [f"{prefix}{name}".encode() for name in FIXED_KEYS]
    keys += [f"{prefix}route:{name}".encode() for name in routes]
    keys += hashes
    encoded = orjson.dumps(heads)
    size = len(encoded) + sum(map(len, records)) + sum(map(len, keys))
    first, last = Position(*heads[0][:2]), Position(*heads[-1][:2])
    return Chunk(first, last, len(heads), size, keys, len(routes), encoded, records)


def reason(error: Exception) -> str:
    """Return in one line why a record is none."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _head(alert: Alert, routes: dict[str, int]) -> tuple[Any, ...]:
    """Return what router.lua unpacks; number new routes from 1."""
    offset, index, record = alert
    found = orjson.loads(record)
    source, level, transition = found["source"], found["level"], found["transition"]
    event_ms, score = found["event_ms"], found["score"]
    place = found["place"]
    district = place["district"] or ""
    if not (type(source) is type(transition) is type(found["text"]) is str and source):
        raise Unfit("source, transition and text must be texts")
    if level not in LEVELS:
        raise Unfit("level must be one of " + ", ".join(LEVELS))
    if type(event_ms) is not int or not 0 <= event_ms < 1 << 53:
        raise Unfit("event_ms must be milliseconds since 1970")
    if type(score) not in (int, float) or not math.isfinite(score):
        raise Unfit("score must be a number")
    named = found.get("routes") or DEFAULT_ROUTES
    if len(named) == 1 and named[0] in routes:
        numbers = [routes[named[0]]]
    else:
        numbers = _numbers(named, routes)
    lon, lat = place["lon"], place["lat"]
    known = type(lon) is type(lat) is float and abs(lon) <= 180 and abs(lat) <= MOST_LATITUDE
    fields = (
        "alert_id", found["alert_id"],
        "seq", str(found["seq"]),
        "transition", transition,
        "level", level,
        "score", str(score),
        "since", str(found["episode_ms"]),
        "updated", str(event_ms),
        "category", found["category"],
        "district", district,
        "text", found["text"],
    )  # fmt: skip
    return (
        offset, index, source, event_ms, str(score), level, transition, numbers,
        (str(lon), str(lat)) if known else (),
        fields, (), district,
    )  # fmt: skip


def _numbers(named: Sequence[str], routes: dict[str, int]) -> list[int]:
    if not isinstance(named, list | tuple) or len(named) > MOST_ROUTES:
        raise Unfit(f"routes must be a list of at most {MOST_ROUTES} names")
    if not all(isinstance(name, str) and name for name in named):
        raise Unfit("routes must be names")
    return [routes.setdefault(name, len(routes) + 1) for name in dict.fromkeys(named)]

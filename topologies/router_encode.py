"""From alert records to the arguments of the router's script.

Of a record of about 1 kB the script needs some ten short fields. They go as one JSON array per
flush (the server reads it in one call), the record itself as it is: two arguments an alert rather
than sixteen, which took 2.7 µs to pack. Reading a record takes 2.3 µs of orjson; cutting the
contributors out first took as long, a regular expression for the fields twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from engine.catalog import MAX_NAME

Alert = tuple[int, int, bytes]
"""Offset in the readings' partition, number among the alerts of that message, record."""

MOST_ALERTS = 256
MOST_BYTES = 512 << 10
"""Bounds of one script, which holds the server up for some milliseconds."""
MOST_ROUTES = 64
DEFAULT_ROUTES = ["default"]
LEVELS = frozenset(("normal", "blue", "yellow", "orange", "red"))
TRANSITIONS = frozenset(("raise", "escalate", "de-escalate", "clear"))
"""Changes of a level; other records tell of a command, and leave the source's level alone."""
MOST_LATITUDE = 85.05112878
"""Beyond it Redis keeps no place."""
MOST_MS = 1 << 53
FIXED_KEYS = ("fence", "alerts", "active", "geo", "counters")

_FIELDS = itemgetter(
    "source", "event_ms", "score", "level", "transition",
    "alert_id", "seq", "episode_ms", "category", "text", "cause",
)  # fmt: skip
_KINDS = [
    frozenset(kinds)
    for kinds in (
        {str}, {int}, {int, float}, {str}, {str}, {str}, {int}, {int}, {str}, {str}, {str},
    )
]  # fmt: skip
_PLACE = itemgetter("lon", "lat", "district")
_NOTHING: list[str] = []

_ACKNOWLEDGED = ["acknowledged_by", "acknowledged_ms"]
_SHELVED = ["shelved_by", "shelved_until_ms"]
_SUPPRESSED = ["suppressed_by", "suppressed_until_ms"]
_OUT_OF_SERVICE = ["out_of_service_by", "out_of_service_ms"]
_GONE = {
    "raise": _ACKNOWLEDGED,
    "escalate": _ACKNOWLEDGED,
    "unshelve": _SHELVED,
    "unsuppress": _SUPPRESSED,
    "in_service": _OUT_OF_SERVICE,
}
"""What people did to an alert and no longer holds after a record: they must look again."""


class Position(NamedTuple):
    """Where an alert comes from; ascends within a partition."""

    offset: int
    number: int


class Chunk(NamedTuple):
    """What one script applies: consecutive alerts of one partition, ready to send."""

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
    routes: dict[str, int] = {}
    heads = _usual_heads(alerts, routes)
    records = [record for _, _, record in alerts]
    if heads is None:
        heads, records = [], []
        routes.clear()
        for alert in alerts:
            try:
                heads.append(_head(alert, routes))
                records.append(alert[2])
            except (Unfit, ValueError, KeyError, TypeError, AttributeError) as error:
                reject(alert, reason(error))
    if not heads:
        return None
    # a record about no source leaves all sources alone: some key that is there anyway
    some = f"{prefix}counters"
    before = f"{prefix}alert:"
    names = [prefix + name for name in FIXED_KEYS]
    names += [f"{prefix}route:{name}" for name in routes]
    names += [before + head[2][0] if head[2][0] else some for head in heads]
    keys = [name.encode() for name in names]
    encoded = orjson.dumps(heads)
    size = len(encoded) + sum(map(len, records)) + sum(map(len, keys))
    last = Position(*heads[-1][:2])
    return Chunk(last, len(heads), size, keys, len(routes), encoded, records)


def _usual_heads(alerts: Sequence[Alert], routes: dict[str, int]) -> list[Any] | None:
    """Return the heads of alerts that all are changes of level with all fields, None if not.

    The same as `_head` of each in a third of the time: checks go by columns.
    """
    fields: list[tuple[Any, ...]] = []
    places: list[tuple[Any, ...]] = []
    named: list[Any] = []
    loads = orjson.loads
    try:
        for _, _, record in alerts:
            found = loads(record)
            fields.append(_FIELDS(found))
            places.append(_PLACE(found["place"]))
            named.append(found.get("routes"))
        columns = list(zip(*fields, strict=True))
        lon, lat, district = zip(*places, strict=True)
        offset, index, _ = zip(*alerts, strict=True)
        usual = (
            all(map(frozenset.issuperset, _KINDS, [map(type, column) for column in columns]))
            and set(map(type, lon)) == set(map(type, lat)) == {float}
            and set(map(type, district)) == {str}
            and LEVELS.issuperset(columns[3])
            and TRANSITIONS.issuperset(columns[4])
            and 0 < len(min(columns[0], key=len)) <= len(max(columns[0], key=len)) <= MAX_NAME
            and 0 <= min(columns[1]) <= max(columns[1]) < MOST_MS
            and -MOST_MS < min(columns[2]) <= max(columns[2]) < MOST_MS
            and 0 <= min(offset) <= max(offset) < MOST_MS
            and max(map(abs, lon)) <= 180
            and max(map(abs, lat)) <= MOST_LATITUDE
        )
        numbers = _numbers_of(named, routes)
    except (Unfit, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not usual:
        return None
    done = [_NOTHING] * len(fields)
    gone = [_GONE.get(transition, _NOTHING) for transition in columns[4]]
    place = zip(lon, lat, strict=True)
    return list(zip(offset, index, fields, numbers, place, district, done, gone, strict=True))


def _numbers_of(named: Sequence[Any], routes: dict[str, int]) -> list[list[int]]:
    """Return the numbers of each alert's routes; few combinations occur."""
    known: dict[tuple[Any, ...], list[int]] = {}
    numbers = []
    for names in named:
        key = tuple(names or DEFAULT_ROUTES)
        if key not in known:
            known[key] = _numbers(names or DEFAULT_ROUTES, routes)
        numbers.append(known[key])
    return numbers


def reason(error: Exception) -> str:
    """Return in one line why a record is none."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _head(alert: Alert, routes: dict[str, int]) -> tuple[Any, ...]:
    """Return what router.lua unpacks, of any record; give new routes their numbers, from 1."""
    offset, index, record = alert
    found = orjson.loads(record)
    fields, (lon, lat, district) = _fields(found)
    _, event_ms, score, level, transition = fields[:5]
    if level not in LEVELS:
        raise Unfit("level must be one of " + ", ".join(sorted(LEVELS)))
    if not (0 <= event_ms < MOST_MS and -MOST_MS < score < MOST_MS and 0 <= offset < MOST_MS):
        raise Unfit("event_ms, score and offset must be below 2 to the 53rd")
    gone = _GONE.get(transition, _NOTHING)
    known = lon is not None and abs(lon) <= 180 and abs(lat) <= MOST_LATITUDE
    numbers = _numbers(found.get("routes") or DEFAULT_ROUTES, routes)
    place = (lon, lat) if known else _NOTHING
    return (offset, index, fields, numbers, place, district, _done(found, transition), gone)


def _numbers(named: Any, routes: dict[str, int]) -> list[int]:
    if not isinstance(named, list) or len(named) > MOST_ROUTES:
        raise Unfit(f"routes must be a list of at most {MOST_ROUTES} names")
    for name in named:
        _text("routes", name)
    return [routes.setdefault(name, len(routes) + 1) for name in dict.fromkeys(named)]


def _fields(found: Any) -> tuple[tuple[Any, ...], tuple[Any, Any, str]]:
    """Return the fields of a record that may lack some: no episode, no source, no place."""
    if not isinstance(found, dict):
        raise Unfit("must be an object")
    transition = _text("transition", found.get("transition"))
    told = transition not in TRANSITIONS
    event_ms, score = found["event_ms"], found.get("score") or 0
    if type(event_ms) is not int or type(score) not in (int, float):
        raise Unfit("event_ms and score must be numbers")
    source = found["source"]
    if source is None and told:
        source = ""
    else:
        _text("source", source)
    numbers = [found.get("seq"), found.get("episode_ms")]
    if not all(each is None or type(each) is int for each in numbers):
        raise Unfit("seq and episode_ms must be whole numbers")
    texts = [found.get(name) or "" for name in ("alert_id", "category", "text", "cause")]
    if not all(type(each) is str for each in texts):
        raise Unfit("alert_id, category, text and cause must be texts")
    seq, episode_ms = ("" if each is None else each for each in numbers)
    level = found.get("level") or "normal"
    fields = (
        source, event_ms, score, level, transition,
        texts[0], seq, episode_ms, *texts[1:],
    )  # fmt: skip
    return fields, _place(found.get("place"))


def _place(place: Any) -> tuple[Any, Any, str]:
    place = place if isinstance(place, dict) else {}
    lon, lat = place.get("lon"), place.get("lat")
    if type(lon) not in (int, float) or type(lat) not in (int, float):
        lon = lat = None
    return lon, lat, place["district"] if type(place.get("district")) is str else ""


def _text(key: str, value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= MAX_NAME:
        raise Unfit(f"{key} must be a text of 1 to {MAX_NAME} characters")
    return value


def _done(found: dict[str, Any], transition: str) -> list[str]:
    """Return the hash's fields and values that say what somebody did, [] for a change of level."""
    by, until_ms = str(found.get("by") or ""), str(found.get("until_ms") or "")
    match transition:
        case "acknowledge":
            return ["acknowledged_by", by, "acknowledged_ms", str(found["event_ms"])]
        case "shelve":
            return ["shelved_by", by, "shelved_until_ms", until_ms]
        case "suppress":
            return ["suppressed_by", by, "suppressed_until_ms", until_ms]
        case "out_of_service":
            return ["out_of_service_by", by, "out_of_service_ms", str(found["event_ms"])]
    return _NOTHING

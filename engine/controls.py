"""Control records of the readings topic: ticks, operator commands, new rules; strictly read.

Tocsin's own workers write them. A record that is not exactly as it must be, or that names what the
catalog or the partition does not have, is refused: it changes nothing.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import orjson

from engine import commands
from engine.arrow_views import texts
from engine.commands import Command
from engine.errors import CommandError
from engine.rejects import Refusal
from kernels.layout import MAX_EVENT_MS

CONTROL_MARK = commands.PREFIX
"""What a control record begins with, exactly."""
MAX_CONTROL_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{8,128}")


class Tick(NamedTuple):
    """Time is at least this far."""

    event_ms: int


class NewRules(NamedTuple):
    """From here on these rules judge; who pushed them and why, where that is told."""

    event_ms: int
    digest: str
    text: str
    by: str | None = None
    note: str | None = None


def parse_control(
    payload: bytes, catalog: Any, sensors: tuple[int, int]
) -> Tick | NewRules | Command:
    """Return the record that a message is, for the partition of these sensors; else Refusal."""
    if len(payload) > MAX_CONTROL_BYTES:
        problem = f"{len(payload):,} bytes, at most {MAX_CONTROL_BYTES:,}"
        raise Refusal("bad_control", problem)
    try:
        record = orjson.loads(payload)
        kind = record["tocsin"]
        if kind == "tick":
            return Tick(**_exactly(record, "event_ms"))
        if kind == "rules":
            return _rules(record)
        command = commands.parse(record)
        _check_scope(command, catalog, sensors)
    except (CommandError, ValueError, RecursionError) as error:
        # orjson's own errors are ValueErrors; what is nested deeply can't be shown
        raise Refusal("bad_control", error or type(error).__name__) from None
    return command


def _exactly(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return these keys of a record that has no others, its event time checked."""
    if record.keys() != {"tocsin", *keys}:
        raise ValueError(f"must have the keys {', '.join(keys)}, has {list(record)[:20]}")
    event_ms = record["event_ms"]
    if type(event_ms) is not int or not 0 <= event_ms < MAX_EVENT_MS:
        raise ValueError(f"event_ms: must be epoch milliseconds below {MAX_EVENT_MS}")
    return {key: record[key] for key in keys}


def _rules(record: dict[str, Any]) -> NewRules:
    said = commands.signature(record)
    kept = {key: value for key, value in record.items() if key not in said}
    exact = _exactly(kept, "event_ms", "digest", "text")
    rules = NewRules(**exact, by=said.get("by"), note=said.get("note"))
    if not isinstance(rules.digest, str) or not _DIGEST.fullmatch(rules.digest):
        raise ValueError("digest: must be hexadecimal digits")
    if not isinstance(rules.text, str):
        raise ValueError("text: must be the text of the rules")
    return rules


def _check_scope(command: Command, catalog: Any, sensors: tuple[int, int]) -> None:
    key, value = command.scope
    if key == "source":
        index = int(catalog.source_resolver().resolve(texts([value]))[0])
        low, high = own_sources(catalog, sensors)
        if index < 0:
            raise ValueError(f"source: the catalog has none that is called {value[:80]!r}")
        if not low <= index < high:
            raise ValueError(f"source: {value[:80]!r} is one of another partition")
    elif value not in (catalog.districts if key == "district" else catalog.categories):
        raise ValueError(f"{key}: the catalog has none that is called {value[:80]!r}")


def own_sources(catalog: Any, sensors: tuple[int, int]) -> tuple[int, int]:
    """Return the first source of a range of partitions, and the one after its last."""
    bounds = catalog.sensor_start[catalog.partition_start]
    first = int(np.searchsorted(bounds, sensors[0], side="right")) - 1
    last = int(np.searchsorted(bounds, sensors[1], side="left"))
    return int(catalog.partition_start[first]), int(catalog.partition_start[last])

"""Operator commands: records of a partition's log that people send; engine/COMMANDS.md is the page.

`parse` is strict: a command with a key too many, a text too long or an end too far is refused with
the key, the value and the bound. `carry_out.py` says what a command does.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import orjson

from engine.errors import CommandError
from kernels.layout import MAX_EVENT_MS

HOUR_MS = 3_600_000
MAX_SHELVE_MS = 24 * HOUR_MS
"""A source is shelved for at most so long at a time."""
MAX_SUPPRESS_MS = 31 * 24 * HOUR_MS
"""A maintenance window is at most so long."""
MAX_PLANNED_MS = 366 * 24 * HOUR_MS
"""A maintenance window begins at most so long after the command."""
MAX_ID = 256
"""Characters of an id, of a name, and of who sends."""
MAX_NOTE = 1000
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Controls, marks that turn the direction of a line, halves of characters, and line ends."""

KEY = "tocsin"
"""Control records are JSON objects that begin with it."""
PREFIX = b'{"tocsin":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What every command says: when, who, why, and under which identity."""

    name: ClassVar[str] = ""

    event_ms: int
    id: str
    by: str
    note: str | None = None

    @property
    def scope(self) -> tuple[str, str]:
        """Return what the command is about: ("source", its id), or a district or a category."""
        given = ((key, getattr(self, key, None)) for key in SCOPES)
        return next((key, value) for key, value in given if value is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge(Command):
    """Somebody has seen the alert; latching limits may let go."""

    name: ClassVar[str] = "acknowledge"

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelve(Command):
    """Show nothing below red of a source until an event time."""

    name: ClassVar[str] = "shelve"

    source: str
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unshelve(Command):
    """End the shelving of a source now."""

    name: ClassVar[str] = "unshelve"

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppress(Command):
    """A maintenance window: show nothing below red of one source, district or category."""

    name: ClassVar[str] = "suppress"

    from_ms: int
    until_ms: int
    source: str | None = None
    district: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsuppress(Command):
    """End every window, begun or planned, of exactly this source, district or category."""

    name: ClassVar[str] = "unsuppress"

    source: str | None = None
    district: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfService(Command):
    """Show nothing at all of a source, red and silence included, until it is back in service."""

    name: ClassVar[str] = "out_of_service"

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InService(Command):
    """Show a source again that was out of service."""

    name: ClassVar[str] = "in_service"

    source: str


SCOPES = ("source", "district", "category")
KINDS: dict[str, type[Command]] = {
    kind.name: kind
    for kind in (Acknowledge, Shelve, Unshelve, Suppress, Unsuppress, OutOfService, InService)
}
"""Commands by the value of their key `tocsin`."""


def parse(given: bytes | bytearray | memoryview | Mapping[str, Any]) -> Command:
    """Return the command that a JSON object says; CommandError if it says none, or a wrong one."""
    found = given if isinstance(given, Mapping) else _json(given)
    name = found.get(KEY)
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise CommandError(f"{KEY}: must be one of {', '.join(KINDS)}, got {_shown(name)}")
    known = [field.name for field in fields(kind)]
    for key in found:
        if key != KEY and key not in known:
            raise CommandError(f"{key}: {name} has no such key; it has {', '.join(known)}")
    values = {key: _CHECKS[key](key, found.get(key)) for key in known if _wanted(kind, key, found)}
    command = kind(**values)
    _check_span(command)
    return command


def encode(command: Command) -> bytes:
    """Return the command as the JSON object that stands in the log; `parse` gives it back."""
    values = {field.name: getattr(command, field.name) for field in fields(command)}
    kept = {key: value for key, value in values.items() if value is not None or key == "note"}
    return orjson.dumps({KEY: command.name, **kept})


def key_of(command: Command) -> bytes:
    """Return the key of a message about a command: the source's id, or `district:…`."""
    scope, name = command.scope
    return (name if scope == "source" else f"{scope}:{name}").encode()


def signature(found: Mapping[str, Any]) -> dict[str, str]:
    """Return who says something and why, `by` and `note`, where given; CommandError if wrong."""
    given = (key for key in ("by", "note") if found.get(key) is not None)
    return {key: _CHECKS[key](key, found[key]) for key in given}


def _json(payload: bytes | bytearray | memoryview) -> Mapping[str, Any]:
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise CommandError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f"must be a JSON object, got {type(found).__name__}")
    return found


def _wanted(kind: type[Command], key: str, found: Mapping[str, Any]) -> bool:
    """Tell whether a key is to be looked at; one that may be missing, only where it is there."""
    optional = key == "note" or (key in SCOPES and issubclass(kind, Suppress | Unsuppress))
    return not optional or found.get(key) is not None


def _text(key: str, value: Any, most: int = MAX_ID) -> str:
    if not isinstance(value, str):
        raise CommandError(f"{key}: must be a text, got {_shown(value)}")
    if not 0 < len(value) <= most:
        raise CommandError(f"{key}: must have 1 to {most} characters, got {len(value)}")
    if any(unicodedata.category(letter) in _UNSEEN for letter in value):
        raise CommandError(f"{key}: must be one line of visible characters, got {_shown(value)}")
    return value


def _moment(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CommandError(f"{key}: must be whole epoch milliseconds, got {_shown(value)}")
    if not 0 <= value < MAX_EVENT_MS:
        raise CommandError(f"{key}: must be from 0 to below {MAX_EVENT_MS}, got {value}")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("event_ms", "from_ms", "until_ms"), _moment),
    **dict.fromkeys(("id", "by", *SCOPES), _text),
    "note": lambda key, value: _text(key, value, MAX_NOTE),
}


def _check_span(command: Command) -> None:
    """Hold the ends of a command against each other and against their bounds."""
    at_ms = command.event_ms
    if isinstance(command, Shelve):
        _within("until_ms", command.until_ms, "event_ms", at_ms, 1, MAX_SHELVE_MS)
    elif isinstance(command, Suppress):
        _within("from_ms", command.from_ms, "event_ms", at_ms, -MAX_SUPPRESS_MS, MAX_PLANNED_MS)
        _within("until_ms", command.until_ms, "from_ms", command.from_ms, 1, MAX_SUPPRESS_MS)
        if command.until_ms <= at_ms:
            raise CommandError(f"until_ms: must be after event_ms {at_ms}, got {command.until_ms}")
    if isinstance(command, Suppress | Unsuppress):
        given = [key for key in SCOPES if getattr(command, key) is not None]
        if len(given) != 1:
            raise CommandError(
                f"{command.name} must name one of source, district and category, got "
                f"{' and '.join(given) or 'none'}"
            )


def _within(key: str, value: int, of: str, start: int, least: int, most: int) -> None:
    if not least <= value - start <= most:
        raise CommandError(
            f"{key}: must be {least} to {most} ms after {of} {start}, got {value}, "
            f"which is {value - start} ms after"
        )


def _shown(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"

"""Commands: what they hide and show again, and what people are told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.commands import (
    Acknowledge,
    Command,
    InService,
    OutOfService,
    Shelve,
    Suppress,
    Unshelve,
    Unsuppress,
)
from kernels.layout import MAX_SUPPRESSED

if TYPE_CHECKING:
    from tests.oracle.fusion import Fusion, Source


@dataclass(frozen=True)
class Window:
    """A maintenance window of one source, district or category, by its index."""

    from_ms: int
    until_ms: int
    scope: str
    index: int

    def begun(self, t: int) -> bool:
        """Tell whether the window is in force."""
        return self.from_ms <= t < self.until_ms

    def concerns(self, index: int, source: Source) -> bool:
        """Tell whether the window is of this source."""
        own = {"source": index, "district": source.district, "category": source.category}
        return own[self.scope] == self.index


class Told(NamedTuple):
    """What people see of a command that was taken: where it stands in which episode, if in any."""

    name: str
    event_ms: int
    level: int
    seq: int | None
    episode_ms: int | None


def concerned(fusion: Fusion, scope: str, index: int) -> list[int]:
    """Return the sources that a command is about."""
    meant = Window(0, 0, scope, index)
    return [i for i, source in enumerate(fusion.sources) if meant.concerns(i, source)]


def refusal(fusion: Fusion, command: Command, index: int) -> str | None:
    """Return why a command of a known scope changes nothing, None if it does."""
    scope, _ = command.scope
    now_ms = fusion.told_ms
    source = fusion.sources[concerned(fusion, scope, index)[0]]
    pending = [window for window in fusion.windows if window.until_ms > now_ms]
    match command:
        case Acknowledge():
            return None if source.shown else "nothing_to_acknowledge"
        case Shelve() if command.until_ms <= now_ms:
            return "over"
        case Shelve() if command.until_ms == source.shelved_until_ms:
            return "already_shelved"
        case Unshelve() if source.shelved_until_ms <= now_ms:
            return "not_shelved"
        case OutOfService() if source.out_of_service:
            return "already_out_of_service"
        case InService() if not source.out_of_service:
            return "not_out_of_service"
        case Suppress() if command.until_ms <= now_ms:
            return "over"
        case Suppress() if Window(command.from_ms, command.until_ms, scope, index) in pending:
            return "already_suppressed"
        case Suppress() if len(pending) == MAX_SUPPRESSED:
            return "too_many_windows"
        case Unsuppress() if not any((w.scope, w.index) == (scope, index) for w in pending):
            return "not_suppressed"
    return None


def carry_out(fusion: Fusion, command: Command, index: int) -> Told:
    """Change what is hidden; return what people are told of it."""
    scope, _ = command.scope
    source = fusion.sources[index] if scope == "source" else None
    told = Told(command.name, command.event_ms, 0, None, None)
    if source is not None:
        event_ms = max(command.event_ms, source.last_ms)
        told = told._replace(event_ms=event_ms, level=source.shown)
        if source.shown:
            told = told._replace(seq=source.seq, episode_ms=source.episode_ms)
            source.seq += 1
    match command:
        case Shelve():
            fusion.sources[index].shelved_until_ms = command.until_ms
        case Unshelve():
            fusion.sources[index].shelved_until_ms = 0
        case OutOfService():
            fusion.sources[index].out_of_service = True
        case InService():
            fusion.sources[index].out_of_service = False
        case Suppress():
            fusion.windows.append(Window(command.from_ms, command.until_ms, scope, index))
        case Unsuppress():
            fusion.windows = [w for w in fusion.windows if (w.scope, w.index) != (scope, index)]
    return told


def index_of(catalog: Any, scope: str, name: str) -> int:
    """Return the index of what a command names, -1 if the catalog does not have it."""
    names = {
        "source": catalog.source_id.to_pylist(),
        "district": list(catalog.districts),
        "category": list(catalog.categories),
    }[scope]
    return names.index(name) if name in names else -1

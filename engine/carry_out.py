"""Carry out one operator command on the line of a partition; engine/COMMANDS.md is the page.

A command is a batch of its own: all records before it are judged, it changes what is hidden, and
the kernels judge the sources that it is about. Whether it is taken depends on the log alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.arrow_views import texts
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
from engine.readings import Readings
from kernels.layout import (
    ACKNOWLEDGE,
    JUDGE_CATEGORY,
    JUDGE_DISTRICT,
    JUDGE_SOURCE,
    MAX_SUPPRESSED,
    NEVER,
    SUPPRESSED,
)

if TYPE_CHECKING:
    from engine.catalog import Catalog
    from engine.pipeline import Pipeline

Array = np.ndarray[Any, Any]

JUDGED = {"source": JUDGE_SOURCE, "district": JUDGE_DISTRICT, "category": JUDGE_CATEGORY}
_NOTHING = -1


class Refusal(NamedTuple):
    """Why a command is refused."""

    reason: str
    detail: str


class Trace(NamedTuple):
    """What people are told of a command that was taken; no source: it is about a place or a kind.

    `seq` and `episode_ms` number it among the transitions of the episode that is shown, if any is;
    bit k of `reached` says that this was at level k.
    """

    event_ms: int
    source: int | None = None
    level: int = 0
    score: float = 0.0
    seq: int | None = None
    episode_ms: int | None = None
    reached: int = 0


class Done(NamedTuple):
    """What became of a command: a refusal or a trace, and (T,) TRANSITION in the log's order."""

    refusal: Refusal | None
    trace: Trace | None
    transitions: Array


def carry_out(line: Pipeline, command: Command) -> Done:
    """Take a command, one record of the log, whether or not it is refused."""
    scope, name = command.scope
    index = _index(line.plan.catalog, scope, name)
    refusal = _misplaced(line, command, scope, index)
    about = (JUDGE_SOURCE, _NOTHING)
    if refusal is None:
        refusal = _pointless(line, command, scope, index)
        # whoever sees nothing to acknowledge may still let latching limits go
        if isinstance(command, Acknowledge):
            about = (ACKNOWLEDGE, index)
        elif refusal is None:
            about = (JUDGED[scope], index)
    trace = None
    if refusal is None:
        trace = _trace(line, command, index) if scope == "source" else Trace(command.event_ms)
        _change(line, command, scope, index)
    transitions = line.judge(Readings.of([about[0]], [command.event_ms], [about[1]]))
    return Done(refusal, trace, transitions)


def partitions_of(catalog: Catalog, command: Command) -> list[int]:
    """Return the partitions that a command is for, empty if the catalog knows none."""
    scope, name = command.scope
    index = _index(catalog, scope, name)
    if index < 0:
        return []
    bounds = np.asarray(catalog.partition_start)
    if scope == "source":
        about = np.array([index])
    else:
        about = np.flatnonzero(_of_scope(catalog, scope) == index)
    return np.unique(np.searchsorted(bounds, about, side="right") - 1).tolist()


def _of_scope(catalog: Catalog, scope: str) -> Array:
    return catalog.district if scope == "district" else catalog.category


def _index(catalog: Catalog, scope: str, name: str) -> int:
    """Return the index of what a command names, −1 if the catalog does not have it."""
    if scope == "source":
        return int(catalog.source_resolver().resolve(texts([name]))[0])
    names = catalog.districts if scope == "district" else catalog.categories
    return names.index(name) if name in names else _NOTHING


def _misplaced(line: Pipeline, command: Command, scope: str, index: int) -> Refusal | None:
    """Return why a command is none for this partition, or of no time that can be."""
    _, name = command.scope
    if index < 0:
        return Refusal(f"unknown_{scope}", f"the catalog has no {scope} {name}")
    catalog = line.plan.catalog
    first, last = line.sources
    if scope == "source":
        here = first <= index < last
    else:
        here = bool((_of_scope(catalog, scope)[first:last] == index).any())
    if not here:
        return Refusal("other_partition", f"{scope} {name} is not of this partition")
    watermark_ms = int(line.shards[0].clock["watermark_ms"][0])
    bound_ms = line.plan.max_ahead_ms
    if watermark_ms != NEVER and command.event_ms - watermark_ms > bound_ms:
        ahead_ms = command.event_ms - watermark_ms
        detail = f"event_ms {command.event_ms} is {ahead_ms} ms ahead, at most {bound_ms} may be"
        return Refusal("time_ahead", detail)
    return None


def _pointless(line: Pipeline, command: Command, scope: str, index: int) -> Refusal | None:
    """Return why a command would change nothing; None if it does."""
    clock, (_, name) = line.shards[0].clock[0], command.scope
    now_ms = int(clock["told_ms"])
    until_ms = getattr(command, "until_ms", now_ms + 1)
    if until_ms <= now_ms:
        return Refusal("over", f"until_ms {until_ms} is not after the log's time, {now_ms}")
    if isinstance(command, Suppress | Unsuppress):
        return _pointless_window(command, _pending(clock), scope, index)
    source = line.state.source[index]
    match command:
        case Acknowledge() if source["shown"] == 0:
            return Refusal("nothing_to_acknowledge", f"{name} shows no alert")
        case Shelve() if source["shelved_ms"] == until_ms:
            return Refusal("already_shelved", f"{name} is shelved until {until_ms}")
        case Unshelve() if source["shelved_ms"] <= now_ms:
            return Refusal("not_shelved", f"{name} is not shelved")
        case OutOfService() if source["out_of_service"]:
            return Refusal("already_out_of_service", f"{name} is out of service")
        case InService() if not source["out_of_service"]:
            return Refusal("not_out_of_service", f"{name} is in service")
    return None


def _pointless_window(
    command: Suppress | Unsuppress, windows: Array, scope: str, index: int
) -> Refusal | None:
    own = windows[_same(windows, scope, index)]
    _, name = command.scope
    if isinstance(command, Unsuppress):
        if len(own):
            return None
        return Refusal("not_suppressed", f"{scope} {name} has no maintenance window to come")
    span = (command.from_ms, command.until_ms)
    if span in own[["from_ms", "until_ms"]].tolist():
        return Refusal("already_suppressed", f"{scope} {name} has this window already")
    if len(windows) == MAX_SUPPRESSED:
        return Refusal("too_many_windows", f"a partition keeps at most {MAX_SUPPRESSED} windows")
    return None


def _trace(line: Pipeline, command: Command, index: int) -> Trace:
    """Tell of a command about one source, as a numbered part of the episode that is shown."""
    source = line.state.source[index]
    shown = int(source["shown"])
    trace = Trace(
        event_ms=max(command.event_ms, int(source["last_ms"])),
        source=index,
        level=shown,
        score=float(source["score"]) if shown else 0.0,
        seq=int(source["seq"]) if shown else None,
        episode_ms=int(source["episode_ms"]) if shown else None,
        reached=int(source["reached"]) if shown else 0,
    )
    if shown:
        line.state.source["seq"][index] += 1
    return trace


def _change(line: Pipeline, command: Command, scope: str, index: int) -> None:
    """Change what is hidden."""
    source = line.state.source
    match command:
        case Shelve():
            source["shelved_ms"][index] = command.until_ms
        case Unshelve():
            source["shelved_ms"][index] = 0
        case OutOfService():
            source["out_of_service"][index] = 1
        case InService():
            source["out_of_service"][index] = 0
        case Suppress() | Unsuppress():
            windows = _pending(line.shards[0].clock[0])
            if isinstance(command, Suppress):
                window = (command.from_ms, command.until_ms, JUDGED[scope], index)
                windows = np.append(windows, np.array([window], SUPPRESSED))
            else:
                windows = windows[~_same(windows, scope, index)]
            for shard in line.shards:
                _keep(shard.clock[0], windows)


def _keep(clock: np.void, windows: Array) -> None:
    clock["suppressed"][: len(windows)] = windows
    clock["suppressed"][len(windows) :] = 0
    clock["n_suppressed"] = len(windows)


def _pending(clock: np.void) -> Array:
    """Return the maintenance windows that are not over."""
    windows = clock["suppressed"][: int(clock["n_suppressed"])]
    return windows[windows["until_ms"] > clock["told_ms"]].copy()


def _same(windows: Array, scope: str, index: int) -> Array:
    return (windows["scope"] == JUDGED[scope]) & (windows["index"] == index)

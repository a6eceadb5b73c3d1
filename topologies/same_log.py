"""Whether what is remembered of a partition of the readings is of the log that is there now.

Snapshots, the alerts topic and the fence in Redis remember offsets. If the readings topic was
deleted and made anew, offsets begin at 0 again: readings and alerts at or below those would be
skipped without a word. So before anything is taken the memories are held against the log. One is of
another log for certain if it tells of more messages than there are, or if the message that it ends
with is another one; only then it is refused.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from engine.errors import SnapshotError, TocsinError
from engine.snapshot import read, read_meta
from engine.snapshots import Candidate, SnapshotStore

KEY = "last_message"
"""Under which a snapshot has the fingerprint of the last message that it covers."""
MOST_SNAPSHOTS = 4
"""Of a partition, the newest, that are looked at; more are hardly ever needed."""

MessageId = tuple[int, int]
"""(partition, offset)."""


class Fingerprint(NamedTuple):
    """What tells a message of the log from any other that could stand at its offset."""

    offset: int
    timestamp_ms: int
    checksum: int

    @classmethod
    def of(cls, message: Any) -> Fingerprint:
        """Return that of a message as consumers give it."""
        return cls(message.offset, message.timestamp, zlib.crc32(message.value or b""))


class Mark(NamedTuple):
    """How far a log was read, as something remembers it."""

    who: str
    """Who remembers what, in words that a number of messages follows."""
    end: int
    """The log has messages before this offset."""
    last: Fingerprint | None = None
    """Of the message before it, where that is known."""
    snapshot: Candidate | None = None
    """Where the fingerprint is from, unless from memory."""


class Log(Protocol):
    """What is asked of the readings topic."""

    async def bounds(self, partitions: Sequence[int]) -> Mapping[int, tuple[int, int | None]]:
        """Return the first offset of each partition, and the one after its last if known."""

    async def fingerprints(self, ids: Sequence[MessageId]) -> Mapping[MessageId, Fingerprint]:
        """Return those of messages, without those that are not there."""


class OtherLogError(TocsinError):
    """The readings topic was made anew, and something remembers the one before."""


def of_snapshots(store: SnapshotStore, partition: int) -> list[Mark]:
    """Return what the newest snapshots of a partition remember."""
    marks = []
    for candidate in store.latest(partition)[:MOST_SNAPSHOTS]:
        try:
            found = read_meta(candidate.place)["extra"].get(KEY)
        except SnapshotError:
            found = None  # its name tells, too
        last = None if found is None else Fingerprint(*found)
        marks.append(Mark(f"{candidate.uri} covers it", candidate.offset, last, candidate))
    return marks


async def check(
    log: Log, topic: str, marks: Mapping[int, Sequence[Mark]]
) -> Mapping[int, tuple[int, int | None]]:
    """Hold what is remembered of partitions against the log; return its bounds.

    Raises OtherLogError for what can't be of it. The marks must have been read before this is
    called: a log grows, and what is remembered of it grows with it.
    """
    bounds = await log.bounds(list(marks))
    looked_up = []
    for partition, found in marks.items():
        first, end = bounds[partition]
        if end is None:
            continue  # what the embedded broker says of an offset is not to be relied upon
        for mark in found:
            if mark.end > end:
                raise _error(topic, partition, mark, f"it ends at {end:,}")
        looked_up += [
            (partition, mark) for mark in found if mark.last is not None and mark.end > first
        ]
    there = await log.fingerprints([(p, mark.end - 1) for p, mark in looked_up])
    for partition, mark in looked_up:
        # a message that compaction or retention took tells nothing
        now = there.get((partition, mark.end - 1), mark.last)
        if now != mark.last and await asyncio.to_thread(_is_whole, mark.snapshot):
            raise _error(topic, partition, mark, "the last message of those is now another one")
    return bounds


def _is_whole(candidate: Candidate | None) -> bool:
    """Return whether a snapshot can be believed: one that is damaged will be passed over."""
    try:
        return candidate is None or bool(read(candidate.place))
    except SnapshotError:
        return False


def _error(topic: str, partition: int, mark: Mark, why: str) -> OtherLogError:
    return OtherLogError(
        f"{topic}, partition {partition}, is not the log that was read before: "
        f"{mark.who} up to offset {mark.end:,}, but {why}. Was the topic made anew? What is "
        "remembered of the old one would make alerts vanish. Stop all workers; move the snapshots "
        "away, delete the alerts topic and the key <redis_prefix>fence in Redis; or give other "
        "names (snapshots, topic_prefix, redis_prefix). See 'A new readings topic' in "
        "topologies/README.md"
    )

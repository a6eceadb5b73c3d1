"""Other departments' topics, as they are: adapted, and re-keyed to the catalog's partitions.

A TOML file names the topics and the adapter of each:

    [topics."gas.telemetry"]
    adapter = "gas.toml"          # beside this file

What was read is committed once its readings are in the log, so a crash may write some of them
twice; the detectors pass over a reading that they have seen.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import adapters
from engine.adapt import Feed
from engine.errors import Fault, SettingsError
from engine.messages import Rejected
from engine.split import split


def load_feeds(path: Path | None) -> dict[str, adapters.Adapter]:
    """Return the adapter of each topic. Raises ``SettingsError`` with every fault of the file."""
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: can't be read: {error}") from error
    faults = [
        Fault(file=str(path), key=key, problem="unknown key; it has topics")
        for key in found.keys() - {"topics"}
    ]
    feeds: dict[str, adapters.Adapter] = {}
    topics = found.get("topics")
    if not isinstance(topics, Mapping) or not topics:
        faults.append(Fault(file=str(path), key="topics", problem="must name at least one topic"))
        topics = {}
    for topic, given in topics.items():
        key = f'topics."{topic}"'
        if not isinstance(given, Mapping) or set(given) != {"adapter"}:
            problem = "must have the key adapter and no other"
            faults.append(Fault(file=str(path), key=key, problem=problem))
            continue
        feeds[topic] = adapters.load(path.parent / str(given["adapter"]))
    if faults:
        raise SettingsError(f"{len(faults)} faults in the feeds", faults=faults)
    return feeds


class Ingest:
    """One foreign topic on its way into the readings."""

    def __init__(self, topic: str, adapter: adapters.Adapter, catalog: Any) -> None:
        self._feed = Feed(adapter, catalog, topic=topic)
        self._catalog = catalog

    async def take(self, payloads: list[bytes], producer: Any, topic: str) -> list[Rejected]:
        """Write the readings of some messages to their partitions; return what was rejected."""
        readings, rejected = self._feed.adapt(payloads)
        waiting = [
            await producer.send(topic, message, partition=partition)
            for partition, messages in split(readings, self._catalog).items()
            for message in messages
        ]
        await asyncio.gather(*waiting)
        return rejected

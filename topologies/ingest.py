"""Other departments' topics, as they are: adapted, and re-keyed to the catalog's partitions.

A TOML file names the topics and the adapter of each:

    [topics."gas.telemetry"]
    adapter = "gas.toml"          # beside this file

Tocsin's own topics are refused: what it writes would come back to it, and grow.

What was read is committed once its readings are in the log, so a crash may write some of them
twice; the detectors pass over a reading that they have seen.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engine import adapters
from engine.adapt import Feed, refuse_for_files
from engine.errors import AdapterError, Fault, SettingsError
from engine.messages import Rejected
from engine.split import split
from engine.toml_lines import key_lines


def load_feeds(path: Path | None, own: Collection[str] = ()) -> dict[str, adapters.Adapter]:
    """Return the adapter of each topic; `own` are the topics that Tocsin itself writes and reads.

    Raises ``SettingsError`` with every fault of the file and of the adapters.
    """
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text)
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
    lines = key_lines(text)
    for topic, given in topics.items():
        place: Any = {
            "file": str(path),
            "line": lines.get(("topics", topic)),
            "key": f'topics."{topic}"',
        }
        if topic in own:
            problem = "is a topic of Tocsin itself: what it writes there would come back to it"
            faults.append(Fault(**place, problem=problem))
        if not isinstance(given, Mapping) or set(given) != {"adapter"}:
            faults.append(Fault(**place, problem="must have the key adapter and no other"))
            continue
        try:
            feeds[topic] = _adapter(path.parent / str(given["adapter"]))
        except AdapterError as error:
            faults += [Fault(**place, problem=error.problem), *error.faults]
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise SettingsError(f"{count} in the feeds", faults=faults)
    return feeds


def _adapter(path: Path) -> adapters.Adapter:
    adapter = adapters.load(path)
    try:
        refuse_for_files(adapter)
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from None
    return adapter


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

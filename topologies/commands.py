"""Commands and pushed rules on their way into the logs that they are about.

What people send to `tocsin.commands` and `tocsin.rules` is checked here and becomes a control record
in the readings of every partition concerned. There it has a place in the log, so that a replay sees
it where the live line did.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from engine import commands
from engine.errors import CommandError, TocsinError
from engine.partition import Plans

Records = list[tuple[int, bytes]]


class ControlRecords:
    """Turns commands into (partition, control record)."""

    def __init__(self, catalog: Any, plans: Plans) -> None:
        self.catalog, self.plans = catalog, plans

    def of_command(self, payload: bytes) -> Records | str:
        """Return the records of a command, or why it is refused."""
        try:
            command = commands.parse(payload)
            kind, name = command.scope
            if kind == "source":
                return [(self._partition_of(name), commands.encode(command))]
            known = self.catalog.districts if kind == "district" else self.catalog.categories
            if name not in known:
                return f"{kind}: the catalog has no {name!r}"
        except CommandError as error:
            return str(error)
        return [(p, commands.encode(command)) for p in range(self.catalog.n_partitions)]

    def of_rules(self, payload: bytes) -> Records | str:
        """Return one record for each partition that brings the rules into force there."""
        try:
            text = payload.decode()
            digest = self.plans.compile(text)
        except (TocsinError, UnicodeDecodeError) as error:
            return f"rules: {error}"
        record = {"tocsin": "rules", "event_ms": int(time.time() * 1000)}
        payload = orjson.dumps({**record, "digest": digest, "text": text})
        return [(partition, payload) for partition in range(self.catalog.n_partitions)]

    def _partition_of(self, source: str) -> int:
        index = self.catalog.source_index(source)
        if index < 0:
            raise CommandError(f"source: the catalog has no {source!r}")
        return int(self.catalog.partition_of(index))

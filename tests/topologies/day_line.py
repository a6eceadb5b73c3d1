"""A line of the day's city: readings and commands in, the engine's own alert records out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine import commands
from engine.catalog import Catalog
from engine.partition import PartitionLine, Plans
from engine.readings import tick_message
from engine.rules_check import load
from tests.topologies.live import DAY
from topologies.router_encode import Alert

START_MS = 1_752_681_600_000
STEP_MS = 10_000


class DayLine:
    """One partition that takes one thing at a time, and its clock."""

    def __init__(self, folder: Path, partitions: int = 1, partition: int = 0) -> None:
        if not (folder / "catalog").exists():
            Catalog.build(DAY, folder / "catalog", partitions=partitions)
        plans = Plans(Catalog.open(folder / "catalog"))
        self.line = PartitionLine(plans, plans.add(load(DAY / "rules.toml")), partition)
        self.offset = 0
        self.now_ms = START_MS
        self.refused: list[str] = []

    def take(self, *messages: bytes) -> list[Alert]:
        """Take messages of the log; return what they give, as the router takes it."""
        offsets = range(self.offset, self.offset + len(messages))
        self.offset += len(messages)
        outcome = self.line.take(offsets, self.line.decode(messages))
        self.refused += [each.reason for each in outcome.rejects]
        return [(each.offset, each.number, each.record) for each in outcome.alerts]

    def measured(self, sensor: str, value: float, n: int = 30) -> list[Alert]:
        """Take n readings of a sensor, 10 s apart, all of the same value."""
        messages = []
        for _ in range(n):
            self.now_ms += STEP_MS
            reading = {"sensor": sensor, "ts": self.now_ms, "value": value}
            messages.append(json.dumps(reading).encode())
        return self.take(*messages)

    def passed(self, minutes: int) -> list[Alert]:
        """Let time pass."""
        self.now_ms += minutes * 60_000
        return self.take(tick_message(self.now_ms))

    def told(self, name: str, *, by: str = "li.wei", **fields: Any) -> list[Alert]:
        """Take a command; ends are given in minutes from now."""
        for key in ("from", "until"):
            if key in fields:
                fields[f"{key}_ms"] = self.now_ms + fields.pop(key) * 60_000
        said = {"event_ms": self.now_ms, "id": f"c{self.offset}", "by": by}
        command = commands.KINDS[name](**said | fields)
        return self.take(commands.encode(command))

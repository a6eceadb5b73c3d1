"""People who command and push rules while everything else goes wrong: what and when by a seed."""

from __future__ import annotations

import csv
import itertools
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from engine import commands
from engine.rules_check import load
from tests.topologies.live import DAY, Live, send
from topologies.commands import push_rules
from topologies.kafka import BrokerError

PAUSE_S = (0.2, 2.5)
PUSH_EVERY = 5
MINUTE_MS = 60_000
ENDS = {"shelve": "unshelve", "suppress": "unsuppress", "out_of_service": "in_service"}
SCOPES = ({"district": "Riverside"}, {"district": "Old Town"}, {"category": "kitchen"})


def rule_sets(folder: Path) -> list[Path]:
    """Write sets of rules to take turns: two by which much is wrong, one with another name only."""
    text = (DAY / "rules.toml").read_text()
    sets = {
        "wells": text.replace("blue = 10, yellow = 25,", "blue = 3, yellow = 6,"),
        "day": text,
        "renamed": text.replace('name = "', 'name = "The same: ', 1),
        "heat": text.replace("yellow = 48, orange = 54,", "yellow = 30, orange = 34,"),
    }
    files = [folder / f"{name}.toml" for name in sets]
    for file, each in zip(files, sets.values(), strict=True):
        file.write_text(each)
    assert len({load(file).digest for file in files}) == len(files), "rules.toml is not as it was"
    return files


class Operators:
    """Send commands, and rules now and then, each until the broker has taken it."""

    def __init__(self, live: Live, seed: int, now_ms: Callable[[], int]) -> None:
        self.live, self.seed, self._now_ms = live, seed, now_ms
        self.random = random.Random(seed)
        self.sources = [row["source"] for row in csv.DictReader((DAY / "truth.csv").open())]
        self.rules = itertools.cycle(rule_sets(live.folder))
        self.sent: list[str] = []
        self.n_pushed = 0
        self._begun: list[tuple[str, dict[str, Any]]] = []

    def work(self, stopped: threading.Event) -> None:
        """Go on until stopped."""
        for number in itertools.count():
            if stopped.wait(self.random.uniform(*PAUSE_S)):
                return
            if number % PUSH_EVERY == 0:
                how: dict[str, Any] = {"by": None, "note": None, "as_json": False}
                _until_taken(partial(push_rules, self.live.settings, next(self.rules), **how))
                self.n_pushed += 1
            else:
                command = self._draw(f"{self.seed}-{number}")
                message = commands.encode(command)
                _until_taken(partial(send, self.live, [(0, message)], "commands"))
                self.sent.append(command.id)

    def stir(self) -> None:
        """Give every partition something to publish just now: the trace of a command."""
        now_ms, name = self._now_ms(), f"{self.seed}-stir-{len(self.sent)}"
        window = {"from_ms": now_ms, "until_ms": now_ms + 480 * MINUTE_MS, **SCOPES[1]}
        command = commands.Suppress(event_ms=now_ms, id=name, by="Wu", **window)
        send(self.live, [(0, commands.encode(command))], "commands")
        self.sent.append(command.id)

    def _draw(self, name: str) -> commands.Command:
        """Return a command that begins something, or ends what one before began."""
        draw, now_ms = self.random, self._now_ms()
        fields: dict[str, Any] = {"event_ms": now_ms, "id": name, "by": "Li"}
        if self._begun and draw.random() < 0.4:
            kind, scope = self._begun.pop(draw.randrange(len(self._begun)))
            return commands.KINDS[ENDS[kind]](**fields, **scope)
        kind = draw.choice(("acknowledge", *ENDS))
        scope = {"source": draw.choice(self.sources)}
        if kind == "suppress":
            scope = draw.choice((scope, *SCOPES))
            fields["from_ms"] = now_ms + draw.randint(-60, 60) * MINUTE_MS
        if kind in ("shelve", "suppress"):
            fields["until_ms"] = now_ms + draw.randint(90, 480) * MINUTE_MS
        if kind in ENDS:
            self._begun.append((kind, scope))
        return commands.KINDS[kind](**fields, **scope)


def _until_taken(send_it: Callable[[], Any]) -> None:
    while True:
        try:
            send_it()
            return
        except (KafkaError, BrokerError, OSError):
            time.sleep(0.5)

"""Commands and pushed rules on their way into the logs that they are about.

What people send to `tocsin.commands` and `tocsin.rules` is checked here and becomes a control
record in the readings of every partition concerned. There it has a place in the log, so that a
replay sees it where the live line did.
"""

from __future__ import annotations

import asyncio
import getpass
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from engine import commands
from engine.carry_out import partitions_of
from engine.catalog import Catalog
from engine.errors import CommandError, RulesError, TocsinError
from engine.partition import Plans
from engine.rules_check import load
from topologies import kafka
from topologies.settings import Settings

RULES_KEY = b"rules"
MOST_RULES_BYTES = kafka.MAX_REQUEST_BYTES - 1024
"""Beside them a message has its batch's header."""
Records = list[tuple[int, bytes]]
Headers = Sequence[tuple[str, bytes]]


class ControlRecords:
    """Turns commands into (partition, control record)."""

    def __init__(self, catalog: Any, plans: Plans | None) -> None:
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
        return [(p, commands.encode(command)) for p in partitions_of(self.catalog, command)]

    def of_rules(self, payload: bytes, headers: Headers = ()) -> Records | str:
        """Return one record for each partition that brings the rules into force there.

        Who pushed them and why are in the headers of the message.
        """
        try:
            text = payload.decode()
            given = dict(headers)
            said = {key: given[key].decode() for key in ("by", "note") if given.get(key)}
            assert self.plans is not None
            payload = _rules_record(text, self.plans.compile(text), said)
        except (TocsinError, UnicodeDecodeError) as error:
            return f"rules: {error}"
        return [(partition, payload) for partition in range(self.catalog.n_partitions)]

    def _partition_of(self, source: str) -> int:
        index = self.catalog.source_index(source)
        if index < 0:
            raise CommandError(f"source: the catalog has no {source!r}")
        return int(self.catalog.partition_of(index))


def _rules_record(text: str, digest: str, said: Mapping[str, str]) -> bytes:
    """Return what brings rules into force, by whom and why.

    Raises RulesError if no message holds it, CommandError if who and why can't be told.
    """
    record = {"tocsin": "rules", "event_ms": int(time.time() * 1000)}
    record |= {"digest": digest, "text": text, **commands.signature(said)}
    payload = orjson.dumps(record)
    if len(payload) > MOST_RULES_BYTES:
        raise RulesError(f"{len(payload):,} bytes in the log, at most {MOST_RULES_BYTES:,}")
    return payload


def send(settings: Settings, name: str, *, by: str | None, note: str | None, **fields: Any) -> int:
    """Send a command to the workers; return the exit code. Raises what is wrong with it."""
    kind = commands.KINDS[name]
    command = kind(
        event_ms=int(time.time() * 1000),
        id=str(uuid.uuid4()),
        by=by or getpass.getuser(),
        note=note,
        **fields,
    )
    message = commands.encode(command)
    commands.parse(message)
    if settings.catalog is not None:
        refused = ControlRecords(Catalog.open(settings.catalog), None).of_command(message)
        if isinstance(refused, str):
            raise CommandError(refused)
    asyncio.run(_send(settings, "commands", None, message))
    print(f"sent: {name.replace('_', ' ')} {command.scope[1]}; {_refusals(settings)}")
    return 0


def push_rules(
    settings: Settings, file: Path, *, by: str | None, note: str | None, as_json: bool
) -> int:
    """Check a rules file and send it to the workers; return the exit code."""
    rules = load(file)
    said = {"by": by or getpass.getuser()} | ({"note": note} if note else {})
    _rules_record(rules.text, rules.digest, said)
    if settings.catalog is not None:
        Plans(Catalog.open(settings.catalog)).add(rules)
    headers = [(key, value.encode()) for key, value in said.items()]
    asyncio.run(_send(settings, "rules", RULES_KEY, rules.text.encode(), headers))
    if as_json:
        print(orjson.dumps({"rules": rules.digest, "name": rules.name}).decode())
    else:
        print(f"pushed: {rules.name} ({rules.digest}); {_refusals(settings)}")
    return 0


def _refusals(settings: Settings) -> str:
    """Say where to look: whether it is carried out is known only where it stands in the log."""
    return f"if it is refused, {settings.topic('rejects')} and the worker's log say why"


async def _send(
    settings: Settings, name: str, key: bytes | None, message: bytes, headers: Headers = ()
) -> None:
    topic = settings.topic(name)
    await kafka.ensure_topics(settings, {topic: 1}, [settings.topic("rules")])
    producer = kafka.new_producer(settings, idempotent=False)
    with kafka.failing():
        await producer.start()
        try:
            await producer.send_and_wait(topic, message, key=key, headers=list(headers))
        finally:
            await producer.stop()

"""`tocsin alerts`: what stands now and the newest alerts, read back from Redis.

For people a table and lines; in a pipe or with --json the newest alerts alone, one record a line,
as the engine wrote it. It only reads: an ACL user with XREVRANGE, XREAD, ZREVRANGE and HMGET on the
prefix is enough.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.errors import OutputError
from engine.replay_cli import LEVEL_STYLES
from topologies.redis_client import (
    RedisLink,
    connect,
    is_permanent,
    is_redis_error,
    said,
)

LEVELS = ("normal", "blue", "yellow", "orange", "red")
BLOCK_MS = 2_000
"""Longest wait of one XREAD: below the client's timeout."""
PAGE = 500
MOST_READ = 100_000
"""Entries that are looked at for those that the filters let through."""
LOOKED_AT = 5_000
"""Entries from which is told what there is, where nothing matches."""
MOST_NAMED = 20
MOST_COMMANDS = 1_000
"""Commands that are remembered while following, so that each is shown once."""
SHOWN_FIELDS = (
    "level", "score", "since", "district", "text", "record", "acknowledged_by",
    "shelved_by", "shelved_until_ms", "suppressed_by", "suppressed_until_ms",
)  # fmt: skip
_UNSEEN = {code: "�" for code in (*range(32), *range(127, 160))}
_RETRY_MAX_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which alerts are shown; a level stands for itself and all above."""

    level: str | None = None
    district: str | None = None

    def takes(self, level: str, level_from: str, district: str | None) -> bool:
        """Tell whether an alert is shown: at the level, or coming down from it."""
        least = LEVELS.index(self.level) if self.level else 0
        highest = max(_rank(level), _rank(level_from))
        return highest >= least and self.district in (None, district)


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else 0


def run(
    settings: Any,
    *,
    follow: bool = False,
    level: str | None = None,
    district: str | None = None,
    route: str | None = None,
    limit: int = 20,
    as_json: bool = False,
) -> int:
    """Print the sources above normal and the newest alerts; with `follow`, go on until Ctrl-C."""
    link = settings if isinstance(settings, RedisLink) else RedisLink.of(settings)
    console = Console()
    screen = None if as_json or not console.is_terminal else console
    wanted = Wanted(level=level, district=district)
    reader = Reader(link, wanted, route, commands_once=screen is not None)
    try:
        return asyncio.run(_show(reader, screen, follow=follow, limit=limit))
    except KeyboardInterrupt:
        return 0 if follow else 130
    except BrokenPipeError:
        # whoever read has enough; nothing more may be written, not even at exit
        sys.stdout = None
        return 0
    except Exception as error:
        if not is_redis_error(error):
            raise
        raise OutputError(f"{link} can't be read: {said(error)}") from error


async def _show(reader: Reader, screen: Console | None, *, follow: bool, limit: int) -> int:
    try:
        entries, last = await reader.newest(limit)
        sources: list[dict[str, str]] = []
        if screen is not None and reader.route is None:
            sources, n_all = await reader.active(limit)
            screen.print(_table(sources, n_all))
        if not entries and not sources:
            print(await reader.what_there_is(), file=sys.stderr)
        for record in entries:
            _print(screen, record)
        if follow:
            async for record in reader.follow(last):
                _print(screen, record)
        return 0
    finally:
        await reader.close()


class Reader:
    """Reads the keys that the router writes.

    With `commands_once` a command about a district or a category, of which every partition tells,
    is read once.
    """

    def __init__(
        self,
        link: RedisLink,
        wanted: Wanted,
        route: str | None = None,
        *,
        commands_once: bool = False,
    ) -> None:
        self._client: Any = connect(link)  # its types mix replies of bytes and str
        self._link = link
        self._wanted = wanted
        self.route = route
        self._told: deque[str] | None = deque(maxlen=MOST_COMMANDS) if commands_once else None
        self._stream = f"{link.key_prefix}{f'route:{route}' if route else 'alerts'}"

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def active(self, limit: int) -> tuple[list[dict[str, str]], int]:
        """Return the sources above normal by score, as their hashes say, and how many there are."""
        prefix, found = self._link.key_prefix, []
        members = await self._client.zrevrange(f"{prefix}active", 0, -1)
        for source in members:
            key = f"{prefix}alert:".encode() + source
            values = await self._client.hmget(key, list(SHOWN_FIELDS))
            row = {
                name: "" if value is None else value.decode()
                for name, value in zip(SHOWN_FIELDS, values, strict=True)
            }
            if self._wanted.takes(row["level"], "normal", row["district"]):
                found.append(row | {"source": source.decode()})
                if len(found) == limit:
                    break
        return found, len(members)

    async def newest(self, limit: int) -> tuple[list[bytes], bytes]:
        """Return the newest records, oldest first, and the id after which to go on."""
        found: list[bytes] = []
        newest, before, n_read = b"0-0", b"+", 0
        while len(found) < limit and n_read < MOST_READ:
            page = await self._client.xrevrange(self._stream, before, "-", count=PAGE)
            if page and newest == b"0-0":
                newest = page[0][0]
            found += [entry[b"record"] for _, entry in page if self._shown(entry)]
            n_read += len(page)
            if len(page) < PAGE:
                break
            before = b"(" + page[-1][0]
        return found[:limit][::-1], newest

    async def what_there_is(self) -> str:
        """Say that nothing matches, and what the newest alerts have of what was asked for."""
        stream = f"{self._link.key_prefix}alerts"
        page = await self._client.xrevrange(stream, "+", "-", count=LOOKED_AT)
        if not page:
            return f"{self._link} has no alerts: {stream} is empty"
        there: dict[str, set[str]] = {"route": set(), "district": set(), "level": set()}
        for _, entry in page:
            record = orjson.loads(entry[b"record"])
            there["route"].update(record.get("routes") or ())
            there["district"].add((record.get("place") or {}).get("district") or "")
            there["level"].add(record.get("level") or "")
        given = {
            "route": self.route,
            "district": self._wanted.district,
            "level": self._wanted.level,
        }
        asked = {kind: name for kind, name in given.items() if name is not None}
        what = " ".join(f"--{kind} {plain(name)}" for kind, name in asked.items())
        names = "; ".join(f"{kind} {_listed(there[kind])}" for kind in asked)
        return f"no alert matches {what}; among the newest {len(page)} there are {names}"

    async def follow(self, last: bytes) -> AsyncIterator[bytes]:
        """Yield records as they come, over every outage of Redis, until cancelled."""
        tries = 0
        task = asyncio.current_task()
        assert task is not None
        # in Python 3.11 wait_for, which the Redis client calls, may swallow a cancellation
        while not task.cancelling():
            try:
                block_ms = min(BLOCK_MS, int(self._link.timeout_s * 500))
                found = await self._client.xread({self._stream: last}, count=PAGE, block=block_ms)
            except Exception as error:
                if not is_redis_error(error) or is_permanent(error):
                    raise
                tries += 1
                if tries == 1:
                    print(f"{self._link} is away: {said(error)}; waiting", file=sys.stderr)
                await asyncio.sleep(
                    random.uniform(0, min(_RETRY_MAX_S, 0.05 * 2.0 ** min(tries, 9)))
                )
                continue
            if tries:
                print(f"{self._link} is back", file=sys.stderr)
                tries = 0
            for _, entries in found or ():
                for entry_id, entry in entries:
                    last = entry_id
                    if self._shown(entry):
                        yield entry[b"record"]

    def _shown(self, entry: dict[bytes, bytes]) -> bool:
        wanted = self._wanted
        maybe_again = self._told is not None and not entry.get(b"source")
        if wanted.level is None and wanted.district is None and not maybe_again:
            return True
        record = orjson.loads(entry[b"record"])
        place = record.get("place") or {}
        taken = wanted.takes(
            record.get("level") or "", record.get("level_from") or "", place.get("district")
        )
        return taken and not (maybe_again and self._was_told(str(record.get("command"))))

    def _was_told(self, command: str) -> bool:
        """Tell whether another partition told of this command before."""
        assert self._told is not None
        if command in self._told:
            return True
        self._told.append(command)
        return False


def _print(screen: Console | None, record: bytes) -> None:
    if screen is None:
        sys.stdout.write(record.decode() + "\n")
        sys.stdout.flush()
        return
    screen.print(line_of(orjson.loads(record)), soft_wrap=True)


def line_of(record: dict[str, Any]) -> Text:
    """Return an alert as a line for people: clock, level, sentence."""
    level = str(record.get("level"))
    clock = str(record.get("time") or _moment(record.get("event_ms")))[:19].replace("T", " ")
    sentence = plain(record.get("text") or f"{record.get('transition')} {record.get('source')}")
    return Text.assemble(
        (clock, "dim"), "  ", (f"{level:6}", LEVEL_STYLES.get(level, "green")), "  ", sentence
    )


def plain(text: Any) -> str:
    """Return a text without the controls that a terminal would obey."""
    return str(text).translate(_UNSEEN)


def _listed(names: set[str]) -> str:
    """Return names for people, some of them if they are many."""
    found = [plain(name) for name in sorted(names - {""})]
    more = ["…"] if len(found) > MOST_NAMED else []
    return ", ".join([*found[:MOST_NAMED], *more]) or "none"


def _moment(event_ms: Any, zone: tzinfo = UTC) -> str:
    try:
        return datetime.fromtimestamp(int(event_ms) / 1000, zone).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _clock(event_ms: Any, zone: tzinfo) -> str:
    return _moment(event_ms, zone)[:19].replace("T", " ")


def _zone(record: str) -> tzinfo:
    """Return the offset of a record's time, which is the site's: its sentence is told in that."""
    try:
        return datetime.fromisoformat(orjson.loads(record)["time"]).tzinfo or UTC
    except (KeyError, TypeError, ValueError):
        return UTC


def _table(sources: Sequence[dict[str, str]], n_all: int) -> Table:
    shown = f"{len(sources)} of {n_all}" if len(sources) < n_all else f"{n_all}"
    table = Table(title=f"above normal: {shown}", title_justify="left", box=None, pad_edge=False)
    zones = [_zone(row["record"]) for row in sources]
    # where clocks were changed meanwhile, each row is in the time of its own sentence
    zone = str(zones[0]) if len(set(zones)) == 1 else "local"
    for name in ("level", "source", "district", f"since ({zone})", "what", "seen"):
        table.add_column(name, no_wrap=name not in ("what", "seen"))
    table.add_column("score", justify="right")
    for row, zone_of in zip(sources, zones, strict=True):
        seen = [f"by {row['acknowledged_by']}"] if row["acknowledged_by"] else []
        for what in ("shelved", "suppressed"):
            if row[f"{what}_by"]:
                end = _clock(row[f"{what}_until_ms"], zone_of)
                seen.append(f"{what} by {row[f'{what}_by']} until {end}")
        level = Text(row["level"], style=LEVEL_STYLES.get(row["level"], ""))
        cells = (row["source"], row["district"], _clock(row["since"], zone_of))
        texts = [Text(plain(cell)) for cell in (*cells, row["text"], ", ".join(seen), row["score"])]
        table.add_row(level, *texts)
    return table

"""`tocsin alerts`: what stands now and the newest alerts, read back from Redis.

For people a table and lines, in a pipe or with --json one alert record a line, as the engine wrote
it. It only reads: an ACL user with XREVRANGE, XREAD, ZREVRANGE and HMGET on the prefix is enough.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
SHOWN_FIELDS = ("level", "score", "since", "district", "text", "acknowledged_by", "shelved_by")
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
    reader = Reader(link, Wanted(level=level, district=district), route)
    screen = None if as_json or not console.is_terminal else console
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
        if screen is not None and reader.route is None:
            sources, n_all = await reader.active(limit)
            screen.print(_table(sources, n_all))
        for record in entries:
            _print(screen, record)
        if follow:
            async for record in reader.follow(last):
                _print(screen, record)
        return 0
    finally:
        await reader.close()


class Reader:
    """Reads the keys that the router writes."""

    def __init__(self, link: RedisLink, wanted: Wanted, route: str | None = None) -> None:
        self._client: Any = connect(link)  # its types mix replies of bytes and str
        self._link = link
        self._wanted = wanted
        self.route = route
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

    async def follow(self, last: bytes) -> AsyncIterator[bytes]:
        """Yield records as they come, over every outage of Redis."""
        tries = 0
        while True:
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
        if wanted.level is None and wanted.district is None:
            return True
        record = orjson.loads(entry[b"record"])
        place = record.get("place") or {}
        return wanted.takes(
            record.get("level") or "", record.get("level_from") or "", place.get("district")
        )


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


def _moment(event_ms: Any) -> str:
    try:
        return datetime.fromtimestamp(int(event_ms) / 1000, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _table(sources: Sequence[dict[str, str]], n_all: int) -> Table:
    shown = f"{len(sources)} of {n_all}" if len(sources) < n_all else f"{n_all}"
    table = Table(title=f"above normal: {shown}", title_justify="left", box=None, pad_edge=False)
    for name in ("level", "source", "district", "since (UTC)", "what", "seen"):
        table.add_column(name, no_wrap=name not in ("what", "seen"))
    table.add_column("score", justify="right")
    for row in sources:
        seen = [f"by {row['acknowledged_by']}"] if row["acknowledged_by"] else []
        seen += [f"shelved by {row['shelved_by']}"] if row["shelved_by"] else []
        level = Text(row["level"], style=LEVEL_STYLES.get(row["level"], ""))
        cells = (row["source"], row["district"], _moment(row["since"])[:19].replace("T", " "))
        texts = [Text(plain(cell)) for cell in (*cells, row["text"], ", ".join(seen), row["score"])]
        table.add_row(level, *texts)
    return table

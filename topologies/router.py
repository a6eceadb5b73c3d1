"""Alerts to Redis: every one once, in order, whatever happens to the worker or to Redis.

One atomic script (router.lua) applies some alerts of one partition and moves that partition's
fence: the (offset, index) of the last alert applied. What lies at or below the fence is skipped, so
a repeated, an overlapping or a stale flush changes nothing. Each script is told up to where the
caller knows alerts to be applied; if the fence lies before that, Redis has lost writes that it had
confirmed (a restart without fsync, a failover), and the router sends again what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError, ResponseError

from engine.errors import TocsinError
from topologies.redis_client import Client, RedisLink, is_permanent, is_redis_error, said
from topologies.redis_client import connect as connect_redis
from topologies.router_encode import Alert, Chunk, Position, chunks_of

SCRIPT = (Path(__file__).parent / "router.lua").read_bytes()
SCRIPT_SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
MOST_REMEMBERED_BYTES = 16 << 20
"""Applied alerts that are kept in memory, in case Redis loses them."""


class FenceBehind(TocsinError):
    """Redis has lost alerts that the router no longer remembers: read the partition again.

    Seek the alerts topic back to the first alert beyond `fence` (None: the beginning), and call
    `Router.forget(partition)`.
    """

    def __init__(self, partition: int, fence: Position | None, known: Position) -> None:
        super().__init__(
            f"Redis has lost alerts of partition {partition}: it is at {_shown(fence)},"
            f" and was at {_shown(known)}"
        )
        self.partition = partition
        self.fence = fence
        self.known = known


def _shown(position: Position | None) -> str:
    return "no position" if position is None else f"{position.offset}:{position.number}"


class Flushed(NamedTuple):
    """What became of the alerts of a flush; skipped are those at or below the fence."""

    applied: int = 0
    skipped: int = 0
    rejected: int = 0


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses between tries: full jitter below a bound that doubles up to a cap."""

    base_s: float = 0.05
    cap_s: float = 5.0
    permanent_s: float = 15.0
    """Where somebody must change something first; jitter takes up to half of it."""

    def pause_s(self, tries: int, *, permanent: bool) -> float:
        """Return how long to wait after so many tries in vain, at least one."""
        if permanent:
            return self.permanent_s * random.uniform(0.5, 1.0)
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(tries, 30)))


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What the router tells: for log and metrics. Calls are short and never raise."""

    on_down: Callable[[str], None] = lambda error: None
    """Redis refuses or is away, in one line; at once, and then every `down_every_s`."""
    on_up: Callable[[float], None] = lambda seconds_down: None
    on_flush: Callable[[int, float], None] = lambda n_applied, seconds: None
    """A script was confirmed: so many alerts are new, sent so long ago."""
    on_reject: Callable[[int, Alert, str], None] = lambda partition, alert, reason: None
    """A record can't be read: for the dead letters. Again, if it is flushed again."""
    on_resend: Callable[[int, int], None] = lambda partition, n_alerts: None
    """Redis had lost so many alerts that were applied; they are sent again."""
    down_every_s: float = 10.0


@dataclass
class _Line:
    """What is known of a partition: how far Redis is, and the chunks that brought it there."""

    known: Position | None = None
    base: Position | None = None
    """The fence before the first remembered chunk; None: there was none."""
    met: bool = False
    """Whether a fence of this partition has been seen."""
    remembered: deque[Chunk] = field(default_factory=deque)


@dataclass
class _Flush:
    """A flush under way."""

    partition: int
    line: _Line
    chunks: deque[Chunk]
    resent: int = 0
    """So many of the chunks, the first, were confirmed before, by earlier flushes or this one."""
    applied: int = 0
    skipped: int = 0
    rejected: int = 0


class Router:
    """Writes alerts of several partitions to one Redis; one flush of a partition at a time."""

    def __init__(
        self,
        client: Client,
        *,
        name: str = "Redis",
        prefix: str = "tocsin:",
        max_stream: int = 100_000,
        backoff: Backoff | None = None,
        watch: Watch | None = None,
        remember_bytes: int = MOST_REMEMBERED_BYTES,
    ) -> None:
        self._client = client
        self.name = name
        """Where it is, for people and logs: no password."""
        self._prefix = prefix
        self._max_stream = max_stream
        self._backoff = backoff or Backoff()
        self._watch = watch or Watch()
        self._lines: dict[int, _Line] = {}
        self._order: deque[int] = deque()
        self._remembered_bytes = 0
        self._most_remembered = remember_bytes
        self._tries = 0
        self._down_since: float | None = None
        self._told_at = 0.0

    # --- for callers

    async def flush(self, partition: int, alerts: Sequence[Alert]) -> Flushed:
        """Apply a partition's alerts, in ascending order; return when Redis has confirmed them.

        While Redis is away or refuses, it waits and tries again until it is cancelled; a cancelled
        flush may have been applied or not, which the next one finds out. Raise FenceBehind.
        """
        return (await self.flush_all({partition: alerts}))[partition]

    async def flush_all(self, alerts: Mapping[int, Sequence[Alert]]) -> dict[int, Flushed]:
        """Flush several partitions, their scripts pipelined; as `flush`."""
        flushes = [self._begin(partition, given) for partition, given in alerts.items()]
        await self._finish(flushes)
        return {
            flush.partition: Flushed(flush.applied, flush.skipped, flush.rejected)
            for flush in flushes
        }

    async def restore_lost(self) -> None:
        """Send again what Redis had confirmed and lost, without waiting for alerts to come.

        Raise FenceBehind. While Redis can't be asked nothing is done; the next flush finds out.
        """
        try:
            fences = await self.fences()
        except Exception as error:
            if not is_redis_error(error):
                raise
            return
        flushes = []
        behind: FenceBehind | None = None
        for partition, line in list(self._lines.items()):
            fence = fences.get(partition)
            if line.known is not None and (fence is None or fence < line.known):
                flush = _Flush(partition, line, deque())
                try:
                    self._resend(flush, fence)
                except FenceBehind as error:
                    behind = error
                else:
                    flushes.append(flush)
        await self._finish(flushes)
        if behind is not None:
            raise behind

    async def _finish(self, flushes: Sequence[_Flush]) -> None:
        """Send the scripts of flushes until Redis has confirmed them all. Raise FenceBehind."""
        behind: FenceBehind | None = None
        while waiting := [flush for flush in flushes if flush.chunks]:
            began = time.monotonic()
            failed = None
            for flush, reply in zip(waiting, await self._send(waiting), strict=True):
                if isinstance(reply, BaseException):
                    failed = reply if failed is None or is_permanent(reply) else failed
                    continue
                try:
                    self._confirm(flush, reply, time.monotonic() - began)
                except FenceBehind as error:
                    # only then told: what others have begun to send again must not be left behind
                    behind = error
                    flush.chunks.clear()
            if failed is None:
                self._is_up()
            else:
                await self._wait(failed)
        if behind is not None:
            raise behind

    async def fences(self) -> dict[int, Position]:
        """Return how far Redis is, by partition; raise what the client raises."""
        found = await self._client.hgetall(f"{self._prefix}fence")
        fences = {int(partition): _position(at) for partition, at in found.items()}
        return {partition: at for partition, at in fences.items() if at is not None}

    def forget(self, partition: int) -> None:
        """Drop what is known of a partition: it is no longer ours, or will be read again."""
        line = self._lines.pop(partition, None)
        if line is not None:
            self._remembered_bytes -= sum(chunk.n_bytes for chunk in line.remembered)
            self._order = deque(each for each in self._order if each != partition)

    @property
    def is_down(self) -> bool:
        """Return whether the last thing that Redis said was no."""
        return self._down_since is not None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # --- one flush

    def _begin(self, partition: int, alerts: Sequence[Alert]) -> _Flush:
        flush = _Flush(partition, self._lines.setdefault(partition, _Line()), deque())

        def reject(alert: Alert, reason: str) -> None:
            flush.rejected += 1
            self._watch.on_reject(partition, alert, reason)

        flush.chunks.extend(chunks_of(self._prefix, alerts, reject))
        return flush

    def _confirm(self, flush: _Flush, reply: list[Any], seconds: float) -> None:
        """Take in what the script says: applied, or the fence lies before what was known."""
        line, n_applied, fence = flush.line, int(reply[0]), _position(reply[1])
        if n_applied < 0:
            self._resend(flush, fence)
            return
        chunk = flush.chunks.popleft()
        if not line.met:
            line.met, line.base = True, fence
        line.known = _position(reply[2])
        if flush.resent:
            flush.resent -= 1
        else:
            flush.applied += n_applied
            flush.skipped += chunk.n_alerts - n_applied
        if n_applied and self._lines.get(flush.partition) is line:
            self._remember(flush.partition, chunk)
        self._watch.on_flush(n_applied, seconds)

    def _resend(self, flush: _Flush, fence: Position | None) -> None:
        line = flush.line
        assert line.known is not None, "the script was told no position"
        if line.base is not None and (fence is None or fence < line.base):
            raise FenceBehind(flush.partition, fence, line.known)
        again = [chunk for chunk in line.remembered if fence is None or chunk.last > fence]
        self._watch.on_resend(flush.partition, sum(chunk.n_alerts for chunk in again))
        self.forget(flush.partition)  # what is sent again is remembered again
        kept = _Line(known=fence, base=fence, met=True)
        flush.line = self._lines[flush.partition] = kept
        flush.resent += len(again)
        flush.chunks.extendleft(reversed(again))

    def _remember(self, partition: int, chunk: Chunk) -> None:
        self._lines[partition].remembered.append(chunk)
        self._order.append(partition)
        self._remembered_bytes += chunk.n_bytes
        while self._remembered_bytes > self._most_remembered:
            line = self._lines[self._order.popleft()]
            oldest = line.remembered.popleft()
            line.base = oldest.last
            self._remembered_bytes -= oldest.n_bytes

    # --- to the server

    async def _send(self, flushes: Iterable[_Flush]) -> list[Any]:
        """Send the next script of each flush; return what each gave, a reply or an exception."""
        commands = [self._command(flush) for flush in flushes]
        replies = await self._execute(b"EVALSHA", SCRIPT_SHA, commands)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            # one EVAL teaches the server the script, so a user needs no SCRIPT LOAD
            replies[unknown[0]] = (await self._execute(b"EVAL", SCRIPT, [commands[unknown[0]]]))[0]
            again = await self._execute(b"EVALSHA", SCRIPT_SHA, [commands[i] for i in unknown[1:]])
            for i, reply in zip(unknown[1:], again, strict=True):
                replies[i] = reply
        return replies

    def _command(self, flush: _Flush) -> list[bytes]:
        chunk, known = flush.chunks[0], flush.line.known
        offset, index = ("", "") if known is None else known
        numbers = (flush.partition, offset, index, self._max_stream, chunk.n_routes)
        return [
            b"%d" % len(chunk.keys),
            *chunk.keys,
            *(str(number).encode() for number in numbers),
            chunk.heads,
            *chunk.records,
        ]

    async def _execute(self, verb: bytes, script: bytes, commands: list[list[bytes]]) -> list[Any]:
        """Send commands together; return what each gave, a reply or an exception of Redis."""
        if not commands:
            return []
        try:
            if isinstance(self._client, RedisCluster):
                return await _to_cluster(self._client, verb, script, commands)
            return await _to_server(self._client, verb, script, commands)
        except Exception as error:
            if not is_redis_error(error):
                raise
            return [error] * len(commands)

    # --- Redis away

    def _is_up(self) -> None:
        self._tries = 0
        if self._down_since is not None:
            seconds, self._down_since = time.monotonic() - self._down_since, None
            self._watch.on_up(seconds)

    async def _wait(self, error: BaseException) -> None:
        self._tries += 1
        now = time.monotonic()
        permanent = is_permanent(error)
        if self._down_since is None:
            self._down_since = now
        if self._tries == 1 or now - self._told_at >= self._watch.down_every_s:
            self._told_at = now
            ending = "; it will stay so until somebody changes it" if permanent else ""
            self._watch.on_down(said(error) + ending)
        await asyncio.sleep(self._backoff.pause_s(self._tries, permanent=permanent))


async def connect(
    settings: Any,
    metrics: Any,
    warn: Callable[[str, str], None],
    on_reject: Callable[[int, Alert, str], None] | None = None,
) -> Router:
    """Return the router that a worker's settings ask for; nothing is sent yet.

    `warn` takes a topic, of which it lets one line through every some seconds, and the line.
    """
    link = RedisLink.of(settings)

    def reject(partition: int, alert: Alert, reason: str) -> None:
        offset, index, _ = alert
        warn("alert records", f"alert {partition}/{offset}/{index} can't be routed: {reason}")
        if on_reject is not None:
            on_reject(partition, alert, reason)

    def down(error: str) -> None:
        metrics.redis_down()
        warn("redis", f"{link} takes no alerts: {error}")

    def up(seconds: float) -> None:
        metrics.redis_up = True
        warn("redis back", f"{link} takes alerts again, after {seconds:.1f} s")

    watch = Watch(
        on_down=down,
        on_up=up,
        on_flush=lambda n_applied, seconds: metrics.redis_flush(seconds, n_applied),
        on_reject=reject,
        on_resend=lambda _, n_alerts: metrics.redis_resent(n_alerts),
    )
    return Router(
        connect_redis(link),
        name=str(link),
        prefix=link.key_prefix,
        max_stream=link.max_stream,
        backoff=Backoff(cap_s=link.retry_max_s),
        watch=watch,
    )


async def _to_cluster(
    client: RedisCluster, verb: bytes, script: bytes, commands: list[list[bytes]]
) -> list[Any]:
    # all keys are in one slot and so on one node; the client knows which, and when it moved
    sent = (client.execute_command(verb.decode(), script, *each) for each in commands)
    replies = await asyncio.gather(*sent, return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException) and not is_redis_error(reply):
            raise reply
    return list(replies)


async def _to_server(
    client: Redis, verb: bytes, script: bytes, commands: list[list[bytes]]
) -> list[Any]:
    """Send packed commands on one connection, which halves what the client's pipeline costs."""
    pool = client.connection_pool
    connection = await pool.get_connection()
    try:
        packed = [_packed([verb, script, *each]) for each in commands]
        await connection.send_packed_command(packed)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies
    except BaseException:
        # answers still to come would be taken for those of the next command
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


def _packed(arguments: list[bytes]) -> bytes:
    """Return a command as the server reads it (RESP)."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        parts += (b"$%d\r\n" % len(argument), argument, b"\r\n")
    return b"".join(parts)


def _position(text: bytes | str | None) -> Position | None:
    if not text:
        return None
    offset, index = (text.decode() if isinstance(text, bytes) else text).split(":")
    return Position(int(offset), int(index))

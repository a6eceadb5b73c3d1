"""What `tocsin demo` shows: the alerts that stand in Redis, the figures that the worker gives."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.request import ProxyHandler, build_opener

import orjson
import redis
from prometheus_client.parser import text_string_to_metric_families

from engine.demo_screen import Row, why
from topologies.settings import Settings

HTTP_TIMEOUT_S = 5.0
MOST_READ = 500
"""Entries of one XREAD."""
_SAMPLE_S = 0.25
_RATE_S = 2.0
"""Over how long a rate is taken."""


def fetched(url: str) -> bytes:
    """Return what a server on loopback answers; any failure of it is an OSError."""
    # no proxy: it would not know what is here
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(url, timeout=HTTP_TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body
    except HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error


class Board:
    """The alerts as anybody sees them who reads the keys in Redis."""

    def __init__(self, settings: Settings) -> None:
        self._client: Any = redis.Redis.from_url(
            settings.redis_url, socket_timeout=settings.redis_timeout_s
        )
        self._prefix = settings.redis_prefix
        self._last: bytes = b"0"

    def new_records(self, wait_ms: int) -> list[bytes]:
        """Return the alert records that came since the last time, waiting for one for so long."""
        stream = f"{self._prefix}alerts"
        found = self._client.xread({stream: self._last}, count=MOST_READ, block=wait_ms)
        records = []
        for _, entries in found or ():
            for self._last, entry in entries:
                records.append(entry[b"record"])
        return records

    def active(self, most: int, reasons: dict[str, tuple[str, str]]) -> tuple[list[Row], int]:
        """Return the sources with the highest scores, and how many are above normal.

        `reasons` has what earlier alerts said, for a source whose last one names no reason.
        """
        with self._client.pipeline(transaction=False) as asked:
            asked.zrevrange(f"{self._prefix}active", 0, most - 1, withscores=True)
            asked.zcard(f"{self._prefix}active")
            members, n_active = asked.execute()
        with self._client.pipeline(transaction=False) as asked:
            for source, _ in members:
                asked.hget(f"{self._prefix}alert:".encode() + source, "record")
            records = [orjson.loads(each) for each in asked.execute() if each is not None]
        rows = [_row(record, reasons) for record in records if record["level"] != "normal"]
        return rows, n_active

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _row(record: dict[str, Any], reasons: dict[str, tuple[str, str]]) -> Row:
    source = record["source"]
    name = (record.get("place") or {}).get("name") or source
    since, reason = reasons.get(source, ("", ""))
    return Row(record["level"], record["score"], name, since, why(record) or reason)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a worker said of itself at one moment of the monotonic clock."""

    at_s: float = 0.0
    readings: int = 0
    """Taken so far, whatever became of them."""
    messages: int = 0
    lag: int = 0
    """Messages that wait in Kafka."""
    alerts: int = 0
    event_ms: int | None = None
    """The event time that every partition has reached."""


def sample_of(text: str, at_s: float, now_ms: float) -> Sample:
    """Return what a worker's metrics say."""
    sums: dict[str, float] = {}
    lags_s: list[float] = []
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            sums[each.name] = sums.get(each.name, 0.0) + each.value
            if each.name == "tocsin_event_lag_seconds":
                lags_s.append(each.value)
    return Sample(
        at_s=at_s,
        readings=int(sums.get("tocsin_readings_total", 0) + sums.get("tocsin_rejected_total", 0)),
        messages=int(sums.get("tocsin_messages_total", 0)),
        lag=int(sums.get("tocsin_lag_messages", 0)),
        alerts=int(sums.get("tocsin_alerts_total", 0)),
        event_ms=round(now_ms - 1000 * max(lags_s)) if lags_s else None,
    )


class Watched:
    """A worker's figures, asked for again and again by a thread of its own.

    The screen never waits for a worker that is busy.
    """

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/metrics"
        self._samples: deque[Sample] = deque([Sample()], maxlen=round(_RATE_S / _SAMPLE_S) + 1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="metrics", daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(HTTP_TIMEOUT_S)

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            try:
                text = fetched(self._url).decode()
            except OSError:  # it may be busy; whether it still runs is seen elsewhere
                continue
            self._samples.append(sample_of(text, time.monotonic(), time.time() * 1000))

    @property
    def now(self) -> Sample:
        """Return the newest sample."""
        return self._samples[-1]

    @property
    def readings_per_s(self) -> float:
        """Return how many readings a second were taken of late."""
        return rate_of(list(self._samples))


def rate_of(samples: Sequence[Sample]) -> float:
    """Return the readings a second from the first sample that was taken to the last."""
    taken = [each for each in samples if each.at_s > 0]
    if len(taken) < 2:
        return 0.0
    first, last = taken[0], taken[-1]
    return (last.readings - first.readings) / max(1e-9, last.at_s - first.at_s)

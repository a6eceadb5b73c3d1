"""Structured logs: structlog and everything of the standard library in one form, no secrets."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import IO, Any

import orjson
import structlog

from engine.errors import TocsinError

SELDOM_S = (5.0, 300.0)
"""Pauses between lines of one kind: the first, and the longest."""
FORGET_AFTER_S = 60.0
"""What was not said for so long is news again."""
MASK = "********"
_SECRET_WORDS = ("password", "passwd", "secret", "token", "authorization", "credential")
_LIBRARIES = {
    # both narrate every rebalance and heartbeat at INFO
    "aiokafka": logging.WARNING,
    # and warns of each heartbeat that meets one
    "aiokafka.consumer.group_coordinator": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    # services of Faust tell of each start and stop under the name of their module
    "topologies.app": logging.WARNING,
    "topologies.transport": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp.access": logging.WARNING,
}


@dataclass(slots=True)
class _Line:
    """What a library says again and again: when it was said, when last tried, how often since."""

    said_at: float
    tried_at: float
    pause_s: float
    n_unsaid: int = 0


class Seldom:
    """A filter of handlers: of what a library says again and again, ever fewer lines.

    Without a broker a Kafka client says the same a hundred times a second. Lines of one kind are
    those of one logger with one text, whatever is filled in.
    """

    def __init__(self, library: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._library, self._clock = library, clock
        self._lines: dict[tuple[str, str], _Line] = {}

    def __call__(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be said; it then tells how many like it were not."""
        if record.name.partition(".")[0] != self._library:
            return True
        now, key = self._clock(), (record.name, str(record.msg))
        line = self._lines.get(key)
        if line is None or now - line.tried_at > FORGET_AFTER_S:
            self._lines[key] = _Line(now, now, SELDOM_S[0])
            return True
        line.tried_at = now
        if now - line.said_at < line.pause_s:
            line.n_unsaid += 1
            return False
        if line.n_unsaid:
            record.msg, record.args = f"{record.getMessage()} (and {line.n_unsaid} like it)", None
        line.said_at, line.n_unsaid = now, 0
        line.pause_s = min(2 * line.pause_s, SELDOM_S[1])
        return True


class Masker:
    """A structlog processor that hides the given secrets, and values under secret names."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        # the longest first: one secret may be part of another
        self._secrets = sorted({each for each in secrets if each}, key=len, reverse=True)

    def __call__(
        self, logger: Any, method: str, record: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Return the record with every secret replaced."""
        for key in record:
            record[key] = self._masked(key, record[key])
        return record

    def _masked(self, key: Any, value: Any) -> Any:
        if isinstance(key, str) and any(word in key.lower() for word in _SECRET_WORDS):
            is_path = key.lower().endswith("_file")
            return value if value is None or isinstance(value, bool) or is_path else MASK
        if isinstance(value, dict):
            return {inner: self._masked(inner, each) for inner, each in value.items()}
        if isinstance(value, list | tuple | set):
            return [self._masked(None, each) for each in value]
        if isinstance(value, bool | int | float) or value is None:
            return value
        return self.text(value if isinstance(value, str) else str(value))

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text


class News(logging.Filter):
    """Keeps back what libraries say again: errors that the worker tells itself, in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        if record.name.partition(".")[0] == "tocsin" or not record.exc_info:
            return True
        error = record.exc_info[1]
        # the thread of the consumer has ended already where that is what crashed
        over = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        return not (over or isinstance(error, TocsinError))


def configure(
    *,
    log_format: str = "console",
    log_level: str = "info",
    secrets: Iterable[str | None] = (),
    stream: IO[str] | None = None,
) -> None:
    """Send all logs to `stream` (stderr by default) as lines for people or as JSON.

    At `debug` the libraries speak as freely as we do; otherwise only what they warn of is kept.
    """
    stream = sys.stderr if stream is None else stream
    level = logging.getLevelName(log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # the traceback becomes text before the mask, so that no secret hides in it
    last: list[Any] = [structlog.processors.format_exc_info, Masker(secrets)]
    if log_format == "json":
        render: Any = structlog.processors.JSONRenderer(serializer=_json)
        last.insert(0, structlog.processors.EventRenamer("message"))
    else:
        render = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, render],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    if log_level != "debug":
        handler.addFilter(Seldom("aiokafka"))
    handler.addFilter(News())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name, quiet in _LIBRARIES.items():
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(level if log_level == "debug" else max(level, quiet))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logger(name: str = "tocsin") -> Any:
    """Return a logger: `logger().info("what happened", partition=3)`."""
    return structlog.stdlib.get_logger(name)


def _json(record: Any, **_: Any) -> str:
    return orjson.dumps(record, default=str, option=orjson.OPT_NON_STR_KEYS).decode()

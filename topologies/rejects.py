"""Dead letters: what was rejected, why, and where it stood."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson

MAX_PAYLOAD_BYTES = 64 << 10


def record(
    tp: Any,
    offset: int,
    payload: bytes | None,
    reason: str,
    detail: str,
    n: int = 1,
    rows: Sequence[int] = (),
) -> bytes:
    """Return the JSON of one message's rejects for one reason; a long payload is cut."""
    payload = payload or b""
    kept = payload[:MAX_PAYLOAD_BYTES]
    found: dict[str, Any] = {
        "reason": reason,
        "detail": detail,
        "n": n,
        "rows": list(rows),
        "topic": tp.topic,
        "partition": tp.partition,
        "offset": offset,
    }
    try:
        found["payload"] = kept.decode()
    except UnicodeDecodeError:
        found["payload_base64"] = base64.b64encode(kept).decode()
    if len(kept) < len(payload):
        found["truncated"] = True
    return orjson.dumps(found)

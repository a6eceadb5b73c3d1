"""Alerts to route: the golden day's records, as the workers number them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from topologies.router_encode import Alert

GOLDEN = Path(__file__).parents[1] / "golden" / "day.jsonl"
ROUTES = (["default"], ["fire", "control-room"], ["fire"], ["水务局"])


def alerts(n: int, *, partition: int = 0) -> list[Alert]:
    """Return n alerts of a partition, up to three of a message, each to one or two routes."""
    lines = GOLDEN.read_bytes().splitlines()
    found = []
    for i in range(n):
        record = orjson.loads(lines[(i + 17 * partition) % len(lines)])
        record["source"] = f"{record['source']}-{partition}"
        record["alert_id"] = f"{record['source']}@{record['episode_ms']}"
        record["routes"] = ROUTES[i % len(ROUTES)]
        found.append((7 * (i // 3), i % 3, orjson.dumps(record)))
    return found


def altered(alert: Alert, **fields: Any) -> Alert:
    """Return an alert with other fields; None takes a field away."""
    record = orjson.loads(alert[2]) | fields
    kept = {name: value for name, value in record.items() if value is not None}
    return alert[0], alert[1], orjson.dumps(kept)

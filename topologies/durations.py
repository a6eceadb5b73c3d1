"""Times as people write them on the command line: `2h`, an ISO-8601 moment, epoch milliseconds."""

from __future__ import annotations

import re
import time
from datetime import datetime

import typer

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_MS = 366 * _UNITS["d"]


def now_ms() -> int:
    """Return the wall clock."""
    return int(time.time() * 1000)


def duration_ms(text: str) -> int:
    """Return `90s`, `45m`, `2h`, `1h30m` or `1d` in milliseconds; BadParameter if it is none."""
    parts = re.findall(r"(\d{1,6})([smhd])", text)
    if not parts or "".join(f"{n}{unit}" for n, unit in parts) != text:
        raise typer.BadParameter(
            f"must be like 90s, 45m, 2h or 1d, got {text!r}", param_hint="--for"
        )
    total = sum(int(n) * _UNITS[unit] for n, unit in parts)
    if not 0 < total <= MAX_MS:
        raise typer.BadParameter(f"must be > 0 and at most 366d, got {text!r}", param_hint="--for")
    return total


def moment_ms(text: str, option: str) -> int:
    """Return ISO 8601 (without a zone: this machine's) or epoch ms as such; else BadParameter."""
    if re.fullmatch(r"\d{12,14}", text):
        return int(text)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        problem = f"must be ISO 8601 or epoch ms, got {text!r}"
        raise typer.BadParameter(problem, param_hint=option) from None

"""How times, lengths of time and numbers are said, in tables and on pages."""

from __future__ import annotations

from datetime import datetime, timezone
from html import escape as esc

__all__ = ["esc", "lasting", "moment", "number", "per_cent", "shift", "zone_name"]


def moment(event_ms: int, zone: timezone, *, date: bool = True, year: bool = False) -> str:
    """Return an event time at the site: `07-16 03:38:53`, with thousandths where there are any."""
    try:
        at = datetime.fromtimestamp(event_ms // 1000, zone)
    except (ValueError, OverflowError, OSError):
        return f"{event_ms} ms"
    form = ("%Y-%m-%d " if year else "%m-%d ") if date or year else ""
    rest = event_ms % 1000
    return at.strftime(f"{form}%H:%M:%S") + (f".{rest:03}" if rest else "")


def zone_name(zone: timezone) -> str:
    """Return the site's offset as people write it."""
    return str(zone) if zone.utcoffset(None) else "UTC"


def lasting(ms: float) -> str:
    """Return a length of time in its two largest units; below ten seconds with a fraction."""
    seconds = abs(ms) / 1000
    if seconds < 10:
        return f"{seconds:.3g} s"
    whole, parts = round(seconds), []
    for size, letter in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if whole >= size:
            parts.append(f"{whole // size} {letter}")
            whole %= size
        elif parts:
            break
    return " ".join(parts[:2])


def shift(ms: float, more: str, less: str) -> str:
    """Return a difference with its direction in words: `30 s later`."""
    return f"{lasting(ms)} {more if ms > 0 else less}"


def number(value: float) -> str:
    """Return a number with as many digits as a person reads."""
    return f"{value:.4g}" if -1000 < value < 1000 else f"{value:,.6g}"


def per_cent(share: float) -> str:
    """Return a share of one as whole or tenths of per cent."""
    return f"{100 * share:.3g} %"

"""Readings in a few characters, and lengths of time: the small notations of tests of rules.

`5 5+0.5x10 _x3 nan bad:7` is promtool's notation of a series with a few things more;
engine/RULE_TESTS.md is the page. Numbers are counted in decimal, so that `5+0.1x3` ends at 5.3.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

MAX_READINGS = 1_000_000
"""Readings of one series."""
MAX_LENGTH_MS = 366 * 86_400_000
BAD_QUALITY = 1
"""The quality of a reading that is written `bad:5`; any but 0 is bad."""

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "m": 60_000, "s": 1000, "ms": 1}
_LENGTH = re.compile(r"(?:\d+(?:\.\d+)?(?:d|h|min|ms|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|min|ms|m|s)")
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TOKEN = re.compile(
    rf"""(?P<bad>bad:)?
    (?P<value>_|nan|[+-]?inf|[+-]?{_NUMBER})
    (?:>(?P<target>[+-]?{_NUMBER})|(?P<step>[+-]{_NUMBER}))?
    (?:(?P<sign>[x*])(?P<count>[0-9a-z.]+))?""",
    re.VERBOSE,
)
_CLOSING = re.compile(r"\)(?:\*(?P<count>[^\s()]+))?")
_BREAK = re.compile(r"[\s()]|$")


class Item(NamedTuple):
    """A reading of a series: which interval it stands at, from 0, its value and its quality."""

    place: int
    value: float
    quality: int


class Count(NamedTuple):
    """A number of intervals: those of a length of time, and `n` more, perhaps -1."""

    n: int = 0
    length_ms: int = 0

    def steps(self, every_ms: int) -> int:
        """Return how many intervals; ValueError if the length is not a whole number of them."""
        if self.length_ms % every_ms:
            raise ValueError(
                f"{shown(self.length_ms)} must be a whole number of intervals of {shown(every_ms)}"
            )
        return self.length_ms // every_ms + self.n


class Run(NamedTuple):
    """One token: a value, perhaps with what follows it; no value is a gap."""

    value: str | None
    bad: bool
    step: Decimal | None
    target: Decimal | None
    more: Count
    """Intervals that follow the first; of a gap, all of them."""


class Group(NamedTuple):
    """A bracket that is repeated as it stands."""

    runs: tuple[Run | Group, ...]
    n: int


Series = tuple[Run | Group, ...]


def length_ms(text: str) -> int:
    """Return the milliseconds of a text such as `5m30s`; ValueError if it is none."""
    bare = text.replace(" ", "")
    if bare == "0":
        return 0
    if not _LENGTH.fullmatch(bare):
        raise ValueError('must be a time such as "90s", "5m30s" or "1h"')
    total = sum(Decimal(n) * _UNITS_MS[unit] for n, unit in _PART.findall(bare))
    if total != int(total):
        raise ValueError("must be whole milliseconds")
    if total > MAX_LENGTH_MS:
        raise ValueError("must be at most 366d")
    return int(total)


def shown(ms: int) -> str:
    """Return a time as tests write it: `1h5m`, `90s` as `1m30s`."""
    sign, ms = ("-" if ms < 0 else ""), abs(ms)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        n, ms = divmod(ms, _UNITS_MS[unit])
        if n:
            parts.append(f"{n}{unit}")
    return sign + ("".join(parts) or "0s")


def parse(text: str) -> Series:
    """Return a series as it is written; ValueError says which piece of it is wrong."""
    runs, at = _parsed(text, 0, 0)
    if at < len(text):
        raise ValueError("has a ) without its (")
    if not runs:
        raise ValueError("must have at least one reading or gap")
    return runs


def _parsed(text: str, at: int, depth: int) -> tuple[Series, int]:
    """Return what stands from a place on, up to the end or a closing bracket."""
    runs: list[Run | Group] = []
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == ")":
            break
        elif text[at] == "(":
            inner, at = _parsed(text, at + 1, depth + 1)
            closing = _CLOSING.match(text, at)
            if closing is None or depth > 3:
                raise ValueError("has a ( without its )" if depth <= 3 else "nests too deep")
            if not inner or closing["count"] is None or not closing["count"].isdecimal():
                raise ValueError('a bracket reads "(5 6)*3", with readings and a whole number')
            runs.append(Group(inner, _bounded(int(closing["count"]))))
            at = closing.end()
        else:
            found = _BREAK.search(text, at)
            end = found.start() if found else len(text)
            runs.append(_run(text[at:end]))
            at = end
    return tuple(runs), at


def _run(token: str) -> Run:
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ValueError(
            f"{token!r} is no reading: write 5, nan, bad:5, _ (none), 5x3, 5*3, 5+0.5x3 or 5>8x6"
        )
    value, step, target = match["value"], match["step"], match["target"]
    plain = value[-1].isdigit() or value[-1] == "."
    if (step or target) and not plain:
        raise ValueError(f"{token!r}: only a number can rise or fall")
    if (step or target) and match["sign"] != "x":
        raise ValueError(f"{token!r}: a ramp needs its length, such as {token.partition('*')[0]}x6")
    if value == "_" and match["bad"]:
        raise ValueError(f"{token!r}: a gap has no quality")
    if plain and abs(float(value)) > 1e300:
        raise ValueError(f"{token!r}: must be a number that a sensor can send")
    more = Count() if match["count"] is None else _count(token, match["count"])
    if value == "_":
        more = more if match["count"] else Count(1)
    elif match["sign"] == "*":
        more = _one_less(token, more)
    if target and more == Count():
        raise ValueError(f"{token!r}: must have at least one step")
    return Run(
        value=None if value == "_" else value,
        bad=match["bad"] is not None,
        step=None if step is None else Decimal(step),
        target=None if target is None else Decimal(target),
        more=more,
    )


def _count(token: str, text: str) -> Count:
    if text.isdecimal():
        return Count(_bounded(int(text)))
    try:
        length = length_ms(text)
    except ValueError as error:
        bound = f"{token!r}: {text!r} must be a whole number or a time such as 10m"
        raise ValueError(bound) from error
    if not length:
        raise ValueError(f"{token!r}: must last longer than 0s")
    return Count(length_ms=length)


def _bounded(n: int) -> int:
    if n > MAX_READINGS:
        raise ValueError(f"must have at most {MAX_READINGS:,} readings")
    return n


def _one_less(token: str, count: Count) -> Count:
    """Return what follows the first of `*n` readings."""
    if count == Count():
        raise ValueError(f"{token!r}: must be repeated at least once")
    return Count(count.n - 1, count.length_ms)


def expand(series: Series, every_ms: int) -> list[Item]:
    """Return the readings of a series, one interval after the other.

    ValueError if a length is no whole number of intervals, or if there are too many readings.
    """
    items: list[Item] = []
    _expand(series, every_ms, 0, items)
    return items


def _expand(series: Series, every_ms: int, place: int, items: list[Item]) -> int:
    """Append what a series holds from a place on; return the place after it."""
    for run in series:
        if isinstance(run, Group):
            for _ in range(run.n):
                place = _expand(run.runs, every_ms, place, items)
            continue
        steps = run.more.steps(every_ms)
        if place + steps > MAX_READINGS:
            raise ValueError(f"must have at most {MAX_READINGS:,} readings")
        if run.value is None:
            place += steps
            continue
        quality = BAD_QUALITY if run.bad else 0
        items.extend(Item(place + k, _value(run, k, steps), quality) for k in range(steps + 1))
        place += steps + 1
    return place


def _value(run: Run, k: int, steps: int) -> float:
    assert run.value is not None
    if run.step is not None:
        return float(Decimal(run.value) + k * run.step)
    if run.target is not None:
        first = Decimal(run.value)
        return float(first + (run.target - first) * k / steps)
    return float(run.value)


def single(token: str) -> tuple[float, int]:
    """Return the value and the quality of one reading, `7`, `nan` or `bad:7`; ValueError else."""
    run = _run(token.strip())
    if run.value is None or run.step is not None or run.target is not None or run.more != Count():
        raise ValueError(f"{token!r} must be one reading, such as 7, nan or bad:7")
    return float(run.value), BAD_QUALITY if run.bad else 0

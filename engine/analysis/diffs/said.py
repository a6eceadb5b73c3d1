"""A difference of two rule sets in words."""

from __future__ import annotations

from collections.abc import Iterator

from engine.analysis.diffs.diff import GONE, NEW, TIMES, Count, Group, Side, Verdict
from engine.analysis.explaining.words import lasting, shift
from kernels.layout import LEVEL_NAMES, N_LEVELS


def change_words(group: Group) -> str:
    """Return what becomes of a group: `split in 2: 30 s later, peak lower, 8 min longer`."""
    side = group.old or group.new
    assert side is not None
    if group.change in (GONE, NEW):
        return group.change if side.n == 1 else f"{side.n} {group.change}"
    if group.same:
        return "the same"
    how = ", ".join(_how(group))
    old, new = (0 if each is None else each.n for each in (group.old, group.new))
    if old == new == 1:
        return how
    kind = {1: f"split in {new}"}.get(old, f"{old} in one" if new == 1 else f"{old} become {new}")
    return f"{kind}: {how}"


def _how(group: Group) -> Iterator[str]:
    start_ms = group.later_ms() or 0
    if start_ms:
        yield shift(start_ms, "later", "earlier")
    old, new = group.peaks
    if old != new:
        yield f"peak {'higher' if new > old else 'lower'}"
    for level in range(2, N_LEVELS + 1):
        level_ms = group.later_ms(level)
        if level_ms is not None and level_ms != start_ms:
            name = LEVEL_NAMES[level]
            yield (
                f"{name} {shift(level_ms, 'later', 'earlier')}" if level_ms else f"{name} as before"
            )
    if group.longer_ms:
        yield shift(group.longer_ms, "longer", "shorter")
    elif not start_ms and old == new:
        yield from _levels(group)


def _levels(group: Group) -> Iterator[str]:
    assert group.old is not None and group.new is not None
    for level in range(N_LEVELS, 0, -1):
        longer_ms = group.new.at_ms[level - 1] - group.old.at_ms[level - 1]
        if longer_ms:
            yield f"{shift(longer_ms, 'more', 'less')} at {LEVEL_NAMES[level]}"
            return
    yield "other steps between"


def lasted(side: Side | None) -> str:
    """Return how long a source is above normal; with dots where it still is at the end."""
    if side is None:
        return "–"
    return lasting(side.lasted_ms) + " …" * side.running


def name_of(count: Count) -> str:
    """Return what is counted."""
    of = "time at level" if count.of == TIMES else count.of
    return of if count.name == "all" else f"{of}: {count.name}"


def differs(count: Count) -> bool:
    """Tell whether a count differs between the two."""
    return count.old != count.new


def amount(count: Count) -> tuple[str, str, str]:
    """Return (old, new, change) of a count."""
    if count.of == TIMES:
        change = count.new - count.old
        sign = "" if not change else "+" if change > 0 else "−"
        old, new = (lasting(each * 1000) if each else "–" for each in (count.old, count.new))
        return old, new, sign + lasting(change * 1000) if change else ""
    change = count.new - count.old
    share = f" ({100 * change / count.old:+.0f} %)" if change and count.old else ""
    said = f"{change:+,.0f}{share}".replace("-", "−") if change else ""
    return f"{count.old:,.0f}", f"{count.new:,.0f}", said


def verdict_words(verdict: Verdict) -> tuple[str, str, str]:
    """Return (when the old rules find an incident, when the new ones do, what that means)."""
    times = [
        "missed" if ms is None else f"after {lasting(ms)}"
        for ms in (verdict.old_ms, verdict.new_ms)
    ]
    change = verdict.change
    if verdict.old_ms is not None and verdict.new_ms is not None and change != "same":
        change = shift(verdict.new_ms - verdict.old_ms, "later", "earlier")
    return times[0], times[1], change

"""The alarm figures the slow, obvious way: straight from what the words mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.bounds import Bounds
from kernels.layout import CLEAR, DE_ESCALATE, ESCALATE, LEVEL_NAMES, RAISE, STEP

PERIOD_MS = 600_000
DAY_MS = 86_400_000

Change = tuple[int, int, int]
"""Event time, source, the level from then on."""


class Episode(NamedTuple):
    source: int
    begun_ms: int
    ended_ms: int | None
    whole: bool
    """Whether its raise is known."""


def steps_of(changes: list[Change], before: dict[int, int] | None = None) -> np.ndarray:
    """Return STEP of level changes, in their order; what changes nothing is left out."""
    levels = defaultdict(int, before or {})
    rows = []
    for position, (t_ms, source, level) in enumerate(changes):
        was = levels[source]
        if level == was:
            continue
        kind = CLEAR if not level else RAISE if not was else ESCALATE
        kind = DE_ESCALATE if 0 < level < was else kind
        rows.append((position, t_ms, 10.0 * level, source, 0, kind, was, level, 0))
        levels[source] = level
    return np.array(rows, STEP)


def slow_row(
    steps: np.ndarray,
    operator_of: list[str],
    *,
    since_ms: int,
    until_ms: int,
    bounds: Bounds,
) -> dict[str, Any]:
    """Return the figures, and some of what is behind them."""
    span_ms = until_ms - since_ms
    alarms = [
        (int(step["event_ms"]), int(step["source"]), int(step["level"]))
        for step in steps
        if step["kind"] in (RAISE, ESCALATE) and since_ms <= step["event_ms"] < until_ms
    ]
    by_operator: dict[str, list[int]] = defaultdict(list)
    for t_ms, source, _ in alarms:
        by_operator[operator_of[source]].append(t_ms)
    n_operators = len(set(operator_of))
    periods = max(span_ms, PERIOD_MS) / PERIOD_MS
    floods = {name: slow_floods(times, until_ms, bounds) for name, times in by_operator.items()}
    episodes = slow_episodes(steps, since_ms)
    new = [e for e in episodes if e.whole and since_ms <= e.begun_ms < until_ms]
    old = [e for e in episodes if e not in new and e.begun_ms < until_ms]
    lasted = [min(until_ms, _end(e, until_ms)) - e.begun_ms for e in new]
    cycles = defaultdict(list)
    for e in new:
        if e.ended_ms is not None and e.ended_ms < until_ms:
            cycles[e.source].append((e.begun_ms, e.ended_ms))
    chatter = {
        source: found for source, of in cycles.items() if (found := slow_chatter(of, bounds))[0]
    }
    stale = slow_stale([*new, *old], since_ms, until_ms, bounds)
    load = Counter(source for _, source, _ in alarms)
    n = len(alarms)
    levels = Counter(level for _, _, level in alarms)
    return {
        "alarms": n,
        **{f"alarms_{LEVEL_NAMES[k]}": levels[k] for k in range(1, 5)},
        "episodes": len(new),
        "standing_before": sum(_end(e, until_ms) > since_ms for e in old),
        "standing_after": sum(_end(e, until_ms) >= until_ms for e in [*new, *old]),
        "median_duration_s": median(lasted) / 1000 if lasted else None,
        "operators": n_operators,
        "per_10min": n / n_operators / periods,
        "busiest_per_10min": max(map(len, by_operator.values()), default=0) / periods,
        "peak_per_10min": max((slow_peak(ts)[0] for ts in by_operator.values()), default=0),
        "floods": sum(map(len, floods.values())),
        "flood_share": max((sum(b - a for a, b in of) for of in floods.values()), default=0)
        / span_ms,
        "chattering": len(chatter),
        "chatter_bouts": sum(bouts for bouts, _ in chatter.values()),
        "chatter_most": max((most for _, most in chatter.values()), default=0),
        "stale": len([e for e in stale if e]),
        "stale_per_day": sum(map(len, stale)) / -(-span_ms // DAY_MS),
        "stale_worst_day": max(
            sum(day in of for of in stale) for day in range(-(-span_ms // DAY_MS))
        ),
        "top_ten_share": sum(count for _, count in load.most_common(10)) / n if n else None,
        "low_share": (levels[1] + levels[2]) / n if n else None,
        "medium_share": levels[3] / n if n else None,
        "high_share": levels[4] / n if n else None,
    }


def _end(episode: Episode, until_ms: int) -> int:
    return until_ms if episode.ended_ms is None else episode.ended_ms


def slow_episodes(steps: np.ndarray, since_ms: int) -> list[Episode]:
    """Return the episodes of a log; one whose raise is not there began at `since_ms` or before."""
    found = []
    for source in set(steps["source"].tolist()):
        own = steps[steps["source"] == source]
        begun_ms, whole = None, True
        for step in own:
            t_ms = int(step["event_ms"])
            if begun_ms is None:
                whole = step["level_from"] == 0
                begun_ms = t_ms if whole else min(t_ms, since_ms)
            if step["level"] == 0:
                found.append(Episode(source, begun_ms, t_ms, whole))
                begun_ms = None
        if begun_ms is not None:
            found.append(Episode(source, begun_ms, None, whole))
    return found


def slow_peak(times: list[int]) -> tuple[int, int]:
    """Return the most alarms in ten minutes that begin with one, and the first such begin."""
    counts = {a: sum(a <= t < a + PERIOD_MS for t in times) for a in times}
    most = max(counts.values())
    return most, min(a for a, count in counts.items() if count == most)


def slow_floods(times: list[int], until_ms: int, bounds: Bounds) -> list[tuple[int, int]]:
    """Return the floods: look at every moment at which the last ten minutes' alarms change."""
    found = []
    begun_ms = None
    for now in sorted({*times, *(t + PERIOD_MS for t in times)}):
        count = sum(now - PERIOD_MS < t <= now for t in times)
        if begun_ms is None and count > bounds.flood_starts_above:
            begun_ms = now
        elif begun_ms is not None and count < bounds.flood_ends_below:
            found.append((begun_ms, min(now, until_ms)))
            begun_ms = None
    return found


def slow_chatter(cycles: list[tuple[int, int]], bounds: Bounds) -> tuple[int, int]:
    """Return the bouts of a source, and the most whole cycles in `chatter_s`."""
    width_ms = round(bounds.chatter_s * 1000)
    counts = [
        sum(begun >= ended - width_ms for begun, _ in cycles[: k + 1])
        for k, (_, ended) in enumerate(cycles)
    ]
    chatters = [count >= bounds.chatter_n for count in counts]
    bouts = sum(now and not was for was, now in zip([False, *chatters], chatters, strict=False))
    return bouts, max(counts, default=0)


def slow_stale(
    episodes: list[Episode], since_ms: int, until_ms: int, bounds: Bounds
) -> list[set[int]]:
    """Return the days on which each stale episode was stale."""
    found = []
    for episode in episodes:
        first = max(episode.begun_ms + round(bounds.stale_h * 3_600_000), since_ms)
        last = min(_end(episode, until_ms), until_ms)
        days = {
            day
            for day in range(-(-(until_ms - since_ms) // DAY_MS))
            if max(first, since_ms + day * DAY_MS) < min(last, since_ms + (day + 1) * DAY_MS)
        }
        if days:
            found.append(days)
    return found

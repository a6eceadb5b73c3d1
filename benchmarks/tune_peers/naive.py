"""What an expert would write first: readings sorted by sensor, then each setting's own loop.

A sensor's readings lie in the nearest cache while all settings go through them, and what a setting
remembers is in scalars. Float64 throughout, the meaning is that of `kernels/README.md`. Ladders and
latches are left out where the lowest limit is not reached and nothing is up, the first thing that
anyone would do: without it the loop takes half as long again. It gives each episode's start and
peak.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from benchmarks.tune_peers.contest import EPISODE, Contest
from engine.plan import compile_plan

Array = np.ndarray[Any, Any]

_POLICY: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
compiled = numba.njit(**_POLICY)
# as in `benchmarks.naive`: no counting of references to the arrays that are taken out of a tuple
_BARE: dict[str, Any] = _POLICY | {"_nrt": False}
bare = numba.njit(**_BARE)
inlined = numba.njit(**_BARE, forceinline=True)

MAX_PANES = 8
ROOM = 1 << 16
"""Episodes that there is room for at first."""
LADDERS = ("high", "on_ms", "off_ms", "z")
NUMBERS = ("deadband", "z_deadband", "min_deviation", "clip", "range_low", "range_high", "scale")
COUNTS = ("deviation_confirm_n", "memory_n", "warmup_n")
OF_WINDOW = ("pane_ms", "n_panes", "min_n")
TRIED = np.dtype(
    [
        *((name, "<f8", (4,)) for name in (*LADDERS, "window_high")),
        *((name, "<f8") for name in (*NUMBERS, "window_deadband")),
        *((name, "<i8") for name in (*COUNTS, *OF_WINDOW)),
    ]
)


def tried(contest: Contest) -> Array:
    """Return the numbers of every setting."""
    rows = np.zeros(len(contest.settings), TRIED)
    for row, rules in zip(rows, contest.settings, strict=True):
        plan = compile_plan(contest.catalog, rules)
        params, (window,) = plan.params[plan.row[0]], plan.window_params
        for name in LADDERS + NUMBERS + COUNTS:
            row[name] = params[name]
        for name in ("high", "deadband"):
            row[f"window_{name}"] = window[name]
        for name in OF_WINDOW:
            row[name] = window[name]
    return rows


@compiled
def sorted_by_sensor(sensor, event_ms, value, n_sensors):
    """Return where each sensor's readings begin, and their times and values in that order."""
    starts = np.zeros(n_sensors + 1, np.int64)
    for s in sensor:
        starts[s + 1] += 1
    for s in range(n_sensors):
        starts[s + 1] += starts[s]
    at = starts[:-1].copy()
    times_ms = np.empty_like(event_ms)
    values = np.empty_like(value)
    for i in range(len(sensor)):
        place = at[sensor[i]]
        at[sensor[i]] = place + 1
        times_ms[place] = event_ms[i]
        values[place] = value[i]
    return starts, times_ms, values


@inlined
def climb(statistic, limits, scale, deadband, previous):
    """Return the level of a statistic, the previous one held by the deadband."""
    level = 0
    for k in range(4):
        limit = limits[k] - deadband if k < previous else limits[k]
        if statistic >= limit * scale:
            level = k + 1
    return level


@inlined
def turn_panes(pane, newest, n_panes, panes, total):
    """Empty the panes that a new one pushes out; return the new one's place and what is left."""
    pane_n, pane_sum = panes
    window_n, window_sum = total
    for fresh in range(max(newest + 1, pane - n_panes + 1), pane + 1):
        place = fresh % n_panes
        window_n -= pane_n[place]
        window_sum -= pane_sum[place]
        pane_n[place] = 0
        pane_sum[place] = 0.0
    return pane % n_panes, (window_n, window_sum)


@inlined
def turn_latches(t_ms, v, p, closed, since_ms):
    """Turn the latches of four limits; return (level, whether any is closed or about to be)."""
    level = 0
    busy = False
    for k in range(4):
        if closed[k]:
            turning = v < p.high[k] - p.deadband
            delay_ms = p.off_ms[k]
        else:
            turning = v >= p.high[k]
            delay_ms = p.on_ms[k]
        if turning:
            if since_ms[k] < 0:
                since_ms[k] = t_ms
            if t_ms - since_ms[k] >= delay_ms:
                closed[k] = not closed[k]
                since_ms[k] = -1
        else:
            since_ms[k] = -1
        busy |= closed[k] or since_ms[k] >= 0
        if closed[k]:
            level = k + 1
    return level, busy


@inlined
def learn(c, n, memory_n, alpha, mean, deviation):
    """Return the readings that the running level has seen, that level, and the noise about it."""
    if n < memory_n:
        n += 1
        return n, mean + c / n, deviation + (abs(c) - deviation) / n
    return n, mean + alpha * c, deviation + alpha * (abs(c) - deviation)


@inlined
def note(n_episodes, episodes, setting, sensor, t_ms, before, level):
    """Note where an episode begins, and its peak; return how many there are."""
    if level > 0 and before == 0:
        if n_episodes < len(episodes):
            episode = episodes[n_episodes]
            episode.setting = setting
            episode.sensor = sensor
            episode.start_ms = t_ms
            episode.peak = level
        return n_episodes + 1
    if level > before and n_episodes <= len(episodes):
        episodes[n_episodes - 1].peak = max(episodes[n_episodes - 1].peak, level)
    return n_episodes


@inlined
def go_through(
    sensor, first, last, times_ms, values, setting, p, scratch, episodes, n_episodes
):  # fmt: skip
    """Go through one sensor's readings under one setting; return how many episodes there are."""
    closed, since_ms, pane_n, pane_sum = scratch
    closed[:] = False
    since_ms[:] = -1
    pane_n[:] = 0
    pane_sum[:] = 0.0
    high, window_high, z = p.high[0], p.window_high[0], p.z[0]
    clip, least, alpha = p.clip, p.min_deviation, 1.0 / p.memory_n
    memory_n, warmup_n, confirm_n = p.memory_n, p.warmup_n, p.deviation_confirm_n
    pane_ms, n_panes, min_n = p.pane_ms, p.n_panes, p.min_n
    scale_by, range_low, range_high = p.scale, p.range_low, p.range_high
    newest, pane_end_ms, place, total = np.int64(-1) << 40, np.int64(-1), np.int64(0), (0, 0.0)
    mean, deviation, newest_value, last_ms = 0.0, 0.0, 0.0, np.int64(-1)
    n = n_beyond = level = limit_level = window_level = z_level = 0
    busy = False
    for i in range(first, last):
        t_ms = times_ms[i]
        v = values[i] * scale_by
        if not range_low <= v <= range_high or (t_ms == last_ms and v == newest_value):
            continue
        last_ms, newest_value = t_ms, v
        if t_ms >= pane_end_ms:
            pane = t_ms // pane_ms
            place, total = turn_panes(pane, newest, n_panes, (pane_n, pane_sum), total)
            newest, pane_end_ms = pane, (pane + 1) * pane_ms
        pane_n[place] += 1
        pane_sum[place] += v
        total = (total[0] + 1, total[1] + v)
        if total[0] < min_n:
            window_level = 0
        elif window_level or total[1] >= window_high * total[0]:
            statistic = total[1] / total[0]
            window_level = climb(statistic, p.window_high, 1.0, p.window_deadband, window_level)
        if n == 0:
            mean = v
        r = v - mean
        scale = max(deviation, least)
        c = r
        if n >= warmup_n:
            c = min(max(r, -clip * scale), clip * scale)
            n_beyond = n_beyond + 1 if abs(r) >= z * scale else 0
            if z_level or n_beyond >= confirm_n:
                z_level = climb(abs(r), p.z, scale, p.z_deadband, z_level)
        n, mean, deviation = learn(c, n, memory_n, alpha, mean, deviation)
        if busy or v >= high:
            limit_level, busy = turn_latches(t_ms, v, p, closed, since_ms)
        now = max(limit_level, window_level, z_level)
        n_episodes = note(n_episodes, episodes, setting, sensor, t_ms, level, now)
        level = now
    return n_episodes


@bare
def find_episodes(starts, times_ms, values, settings, scratch, episodes):
    """Go through every sensor under every setting; return how many episodes there were.

    Those that `episodes` has no room for are counted, too.
    """
    n_episodes = 0
    for sensor in range(len(starts) - 1):
        first, last = starts[sensor], starts[sensor + 1]
        for setting in range(len(settings)):
            n_episodes = go_through(
                sensor, first, last, times_ms, values, setting, settings[setting], scratch,
                episodes, n_episodes,
            )  # fmt: skip
    return n_episodes


def run(contest: Contest) -> Array:
    """Return the (E,) EPISODE of every setting, in the loop's order."""
    readings, settings = contest.readings, tried(contest)
    starts, times_ms, values = sorted_by_sensor(
        readings.sensor, readings.event_ms, readings.value, contest.n_sensors
    )
    scratch = (
        np.zeros(4, np.bool_), np.zeros(4, np.int64), np.zeros(MAX_PANES, np.int64),
        np.zeros(MAX_PANES),
    )  # fmt: skip
    episodes = np.empty(ROOM, EPISODE)
    while True:
        n = find_episodes(starts, times_ms, values, settings, scratch, episodes)
        if n <= len(episodes):
            return episodes[:n]
        episodes = np.empty(n, EPISODE)

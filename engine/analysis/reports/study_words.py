"""Figures of settings in words: what each is, which way is better, how its numbers are written."""

from __future__ import annotations

import math

from engine.analysis.reports.html import DASH, lasting, share
from engine.analysis.reports.study_read import Told
from engine.truth import LEVELS

LESS, MORE, NEITHER = -1, 1, 0
_WORDS = {
    "alarms": ("alarms", LESS),
    "episodes": ("episodes", LESS),
    "standing_before": ("episodes running at the start", NEITHER),
    "standing_after": ("episodes running at the end", NEITHER),
    "median_duration_s": ("median episode", NEITHER),
    "operators": ("operators", NEITHER),
    "per_10min": ("alarms an operator and 10 min, average", LESS),
    "busiest_per_10min": ("alarms of the busiest operator in 10 min, average", LESS),
    "peak_per_10min": ("alarms of an operator in 10 min, most", LESS),
    "floods": ("floods", LESS),
    "flood_share": ("time in flood", LESS),
    "chattering": ("chattering sources", LESS),
    "chatter_bouts": ("bouts of chattering", LESS),
    "chatter_most": ("most cycles of a chattering source", LESS),
    "stale": ("stale episodes", LESS),
    "stale_per_day": ("stale episodes a day", LESS),
    "stale_worst_day": ("stale episodes on the worst day", LESS),
    "top_ten_share": ("load of the ten busiest sources", LESS),
    "low_share": ("alarms of low priority", MORE),
    "medium_share": ("alarms of medium priority", NEITHER),
    "high_share": ("alarms of high priority", NEITHER),
    "targets_missed": ("targets of alarm management missed", LESS),
    "incidents": ("incidents", NEITHER),
    "found": ("incidents found", MORE),
    "missed": ("incidents missed", LESS),
    "enough": ("incidents that came to the level they deserve", MORE),
    "delay_median_s": ("median delay", LESS),
    "delay_p90_s": ("delay of nine in ten", LESS),
    "delay_worst_s": ("worst delay", LESS),
    "false": ("false alarms", LESS),
    "false_per_source_day": ("false alarms a source and day", LESS),
    "false_per_sensor_day": ("false alarms a sensor and day", LESS),
}
_BESIDE = (
    "found_{level}",
    "missed_{level}",
    "false_{level}",
    "delay_median_s_{level}",
    "delay_worst_s_{level}",
    "alarms",
    "busiest_per_10min",
    "peak_per_10min",
    "floods",
    "chattering",
    "targets_missed",
)
"""Figures that are shown beside those that were asked for."""


def parts_of(figure: str) -> tuple[str, str]:
    """Return a figure's name and its level, which may be empty."""
    base, _, level = figure.rpartition("_")
    return (base, level) if level in LEVELS else (figure, "")


def words_of(figure: str) -> str:
    """Return what a figure is."""
    base, level = parts_of(figure)
    words = _WORDS[base][0] if base in _WORDS else base.replace("_", " ")
    return f"{words}, {level}" if level else words


def better(told: Told, figure: str) -> int:
    """Return which way a figure is better: as the objectives have it, or else by its meaning."""
    for objective in told.aim.objectives:
        if objective.metric == figure:
            return MORE if objective.largest else LESS
    base, _ = parts_of(figure)
    return _WORDS[base][1] if base in _WORDS else NEITHER


def kind_of(figure: str) -> str:
    """Return how a figure's numbers are written: as seconds, a share, or plain."""
    base, _ = parts_of(figure)
    return "s" if base.endswith("_s") else "share" if base.endswith("_share") else "plain"


def figure_text(figure: str, value: float) -> str:
    """Return a figure's value as people read it."""
    if math.isnan(value):
        return DASH
    kind = kind_of(figure)
    if kind == "s":
        return lasting(value * 1000)
    return share(value) if kind == "share" else number(value)


def number(value: float) -> str:
    """Return a number in a few characters."""
    if math.isnan(value):
        return DASH
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}"


def exact(value: float) -> str:
    """Return a number of the rules with all of its digits."""
    return DASH if math.isnan(value) else f"{value:.15g}"


def shown_first(told: Told) -> list[str]:
    """Return the figures that matter most: those of the aim, then what one asks for beside it."""
    beside = (name.format(level=told.level) for name in _BESIDE)
    return list(dict.fromkeys([*told.aim.metrics(), *(n for n in beside if n in told.figures)]))

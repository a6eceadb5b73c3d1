"""Hold many settings against labelled incidents, as `engine.truth.score` does one alert log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis import kpi
from engine.analysis.bounds import Bounds
from engine.analysis.operators import By
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.errors import Fault, InputError
from engine.truth import LEVELS, Incident
from kernels.layout import LEVEL_NAMES, N_LEVELS
from kernels.tally import DAY_MS, MISSED, WATCH, tally_truth

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Many settings against the truth: n settings, I incidents, and the levels blue, …, red.

    Words and numbers are those of `engine.truth.score` with each setting's alert log.
    """

    n: int
    since_ms: int
    until_ms: int
    n_sources: int
    n_sensors: int
    incidents: tuple[Incident, ...]
    """Those that start in the time, in the order given."""
    delay_ms: Array
    """(n, I, 4) int64, of the incident's detection at level; MISSED where there was none"""
    peak: Array
    """(n, I) uint8, the highest level of the source during the incident"""
    episodes: Array
    """(n, 4) int64, episodes that came to level"""
    false_alarms: Array
    """(n, 4) int64, those of them that no incident explains"""

    @property
    def days(self) -> float:
        """Days of event time."""
        return (self.until_ms - self.since_ms) / DAY_MS

    @cached_property
    def found(self) -> Array:
        """(n, 4) int64, incidents found."""
        return np.count_nonzero(self.delay_ms != MISSED, axis=1)

    @property
    def missed(self) -> Array:
        """(n, 4) int64, incidents not found."""
        return len(self.incidents) - self.found

    @cached_property
    def enough(self) -> Array:
        """(n, 4) int64, incidents found whose source reached the level that they deserve."""
        deserved = np.array([LEVEL_NAMES.index(each.level) for each in self.incidents], np.uint8)
        reached = self.peak >= deserved
        return np.count_nonzero((self.delay_ms != MISSED) & reached[:, :, None], axis=1)

    @cached_property
    def _ordered_ms(self) -> Array:
        # what was found first, in order of delay
        last = np.iinfo(np.int64).max
        return np.sort(np.where(self.delay_ms == MISSED, last, self.delay_ms), axis=1)

    def _nth_s(self, n: Array) -> Array:
        if not self.incidents:
            return np.full((self.n, N_LEVELS), np.nan)
        nth = np.clip(n, 0, len(self.incidents) - 1)[:, None]
        delay_ms = np.take_along_axis(self._ordered_ms, nth, axis=1)[:, 0]
        return np.where(self.found > 0, delay_ms, np.nan)

    @property
    def median_delay_s(self) -> Array:
        """(n, 4) float64, median delay of what was found; NaN where nothing was."""
        below, above = self._nth_s((self.found - 1) // 2), self._nth_s(self.found // 2)
        return (below + above) / 2 / 1000

    @property
    def p90_delay_s(self) -> Array:
        """(n, 4) float64, the least delay that nine of ten found incidents do not exceed."""
        return self._nth_s((9 * self.found + 9) // 10 - 1) / 1000

    @property
    def worst_delay_s(self) -> Array:
        """(n, 4) float64, the greatest delay of what was found; NaN where nothing was."""
        return self._nth_s(self.found - 1) / 1000

    @property
    def false_per_source_day(self) -> Array:
        """(n, 4) float64, false alarms a source and day, over all sources of the catalog."""
        return self.false_alarms / self.days / self.n_sources

    @property
    def false_per_sensor_day(self) -> Array:
        """(n, 4) float64, false alarms a sensor and day, over all sensors of the catalog."""
        return self.false_alarms / self.days / self.n_sensors

    def late(self, bound_s: float, level: str) -> Array:
        """Return (n,) int64, the incidents found later than `bound_s` at a level, or not at all.

        Raises ValueError for no level.
        """
        delay_ms = self.delay_ms[:, :, _index(level)]
        return np.count_nonzero((delay_ms == MISSED) | (delay_ms > bound_s * 1000), axis=1)

    def table(self) -> pa.Table:
        """Return one row a setting: `incidents`, and for each level `found_blue`, … ."""
        import pyarrow as pa

        columns = {
            "setting": np.arange(self.n),
            "incidents": np.full(self.n, len(self.incidents)),
        }
        figures = {
            "found": self.found,
            "missed": self.missed,
            "enough": self.enough,
            "delay_median_s": self.median_delay_s,
            "delay_p90_s": self.p90_delay_s,
            "delay_worst_s": self.worst_delay_s,
            "episodes": self.episodes,
            "false": self.false_alarms,
            "false_per_source_day": self.false_per_source_day,
            "false_per_sensor_day": self.false_per_sensor_day,
        }
        for k, level in enumerate(LEVELS):
            columns |= {f"{name}_{level}": figure[:, k] for name, figure in figures.items()}
        return pa.table(
            {
                # no delay where nothing was found
                name: pa.array(column, from_pandas=column.dtype.kind == "f")
                for name, column in columns.items()
            }
        )


def _index(level: str) -> int:
    if level not in LEVELS:
        raise ValueError(f"level: must be one of {', '.join(LEVELS)}, got {level!r}")
    return LEVELS.index(level)


def score(
    tried: Tried,
    incidents: Sequence[Incident],
    catalog: Catalog,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
) -> Scores:
    """Hold every setting against what happened in `[since_ms, until_ms)`, at every level.

    The time is that of the history unless given; leads and graces are those of
    `engine.truth.score`. Raises ValueError for times that make no sense, InputError where there
    are no readings and no times, or incidents at sources that the catalog does not have.
    """
    since_ms, until_ms = kpi.time_of(tried, since_ms, until_ms)
    if until_ms <= since_ms:
        raise ValueError(f"until_ms: must be after since_ms = {since_ms}, got {until_ms}")
    if lead_s < 0 or grace_s < 0:
        raise ValueError(f"lead_s, grace_s: must be at least 0, got {lead_s}, {grace_s}")
    lead_ms, grace_ms = round(lead_s * 1000), round(grace_s * 1000)
    source = _sources(incidents, catalog)
    start_ms = np.array([each.start_ms for each in incidents], np.int64)
    last_ms = np.array([each.end_ms + grace_ms for each in incidents], np.int64)
    order = np.lexsort((start_ms, source))
    watch, over_ms = _watch(source[order], last_ms[order], catalog.n_sources)
    given = (start_ms[order], last_ms[order], over_ms, lead_ms, since_ms, until_ms)
    inside = np.flatnonzero((since_ms <= start_ms) & (start_ms < until_ms))
    place = np.argsort(order)[inside]

    touched = np.zeros(catalog.n_sources, np.int32)
    common_ms = np.full((len(order), N_LEVELS), MISSED, np.int64)
    common_peak = np.zeros(len(order), np.uint8)
    common_n = np.zeros((N_LEVELS, 2), np.int64)
    tally_truth(tried.common, given, watch, touched, common_ms, common_peak, common_n)

    delay_ms = np.zeros((tried.n, len(place), N_LEVELS), np.int64)
    peak = np.zeros((tried.n, len(place)), np.uint8)
    counts = np.repeat(common_n[None], tried.n, axis=0)
    for setting in range(tried.n):
        own = tried.own[tried.starts[setting] : tried.starts[setting + 1]]
        # of other sources than what is common, so that each incident is met by one of the two
        own_ms, own_peak = common_ms.copy(), common_peak.copy()
        tally_truth(own, given, watch, touched, own_ms, own_peak, counts[setting])
        delay_ms[setting], peak[setting] = own_ms[place], own_peak[place]
    return Scores(
        n=tried.n,
        since_ms=since_ms,
        until_ms=until_ms,
        n_sources=catalog.n_sources,
        n_sensors=catalog.n_sensors,
        incidents=tuple(incidents[i] for i in inside.tolist()),
        delay_ms=delay_ms,
        peak=peak,
        episodes=counts[:, :, 0],
        false_alarms=counts[:, :, 1],
    )


def _sources(incidents: Sequence[Incident], catalog: Catalog) -> Array:
    """Return (I,) int64, the dense index of each incident's source; raises for those unknown."""
    from engine.arrow_views import texts

    names = [each.source for each in incidents]
    found = np.asarray(catalog.source_resolver().resolve(texts(names)), np.int64)
    unknown = dict.fromkeys(name for name, at in zip(names, found.tolist(), strict=True) if at < 0)
    if unknown:
        count = "1 source" if len(unknown) == 1 else f"{len(unknown):,} sources"
        raise InputError(
            f"the truth has incidents at {count} that the catalog does not have",
            faults=[
                Fault(problem="is not in the catalog", key="source", value=name) for name in unknown
            ],
        )
    return found


def _watch(source: Array, last_ms: Array, n_sources: int) -> tuple[Array, Array]:
    """Return (S,) WATCH that knows each source's incidents, and (I,) the latest end so far."""
    watch = np.zeros(n_sources, WATCH)
    starts = np.searchsorted(source, np.arange(n_sources + 1))
    watch["first"] = watch["over"] = watch["begun"] = starts[:-1]
    watch["last"] = starts[1:]
    over_ms = last_ms.copy()
    for part in np.split(over_ms, np.flatnonzero(np.diff(source)) + 1):
        np.maximum.accumulate(part, out=part)
    return watch, over_ms


def table(
    tried: Tried,
    catalog: Catalog,
    *,
    incidents: Sequence[Incident] | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    by: By = "department",
    bounds: Bounds = kpi.STANDARD,
) -> pa.Table:
    """Return one row a setting: the alarm figures and, with incidents, the scores at every level.

    Raises what `score` and `kpi.of_many` raise.
    """
    figures = kpi.of_many(
        tried, catalog, since_ms=since_ms, until_ms=until_ms, by=by, bounds=bounds
    )
    if incidents is None:
        return figures
    scores = score(
        tried,
        incidents,
        catalog,
        since_ms=since_ms,
        until_ms=until_ms,
        lead_s=lead_s,
        grace_s=grace_s,
    )
    return with_scores(figures, scores)


def with_scores(figures: pa.Table, scores: Scores) -> pa.Table:
    """Return a table of alarm figures with the scores of the same settings beside them."""
    for name, column in zip(scores.table().column_names, scores.table().columns, strict=True):
        if name != "setting":
            figures = figures.append_column(name, column)
    return figures

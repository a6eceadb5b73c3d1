"""Count the alarm-management figures of one setting, or of many settings over one history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.bounds import PERIOD_MS, Bounds, targets_of
from engine.analysis.figures import (
    PARETO_POINTS,
    TOP_N,
    Chattering,
    Figures,
    OperatorFigures,
    TopSource,
    schema,
)
from engine.analysis.operators import By, Operators
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.errors import InputError
from kernels.layout import LEVEL_NAMES
from kernels.load import LOAD, MOST, load_operators, load_setting
from kernels.tally import DAY_MS, MEASURE, SEEN, TALLY, tally_alerts

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]

STANDARD = Bounds()


def of(
    steps: Array,
    catalog: Catalog,
    *,
    since_ms: int,
    until_ms: int,
    by: By = "department",
    bounds: Bounds = STANDARD,
) -> Figures:
    """Return the figures of one alert history in `[since_ms, until_ms)`, (T,) STEP in log order.

    Steps before `since_ms` say what stood when the time began. An episode whose raise the steps do
    not have counts as begun at `since_ms`. Raises ValueError for times or operators that make no
    sense.
    """
    counter = _Counter(catalog, since_ms, until_ms, by, bounds)
    return counter.figures(steps)


def of_many(
    tried: Tried,
    catalog: Catalog,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    by: By = "department",
    bounds: Bounds = STANDARD,
) -> pa.Table:
    """Return one row of figures for each setting, equal to that of `of`; columns of `schema`.

    The time is that of the history unless given. Raises ValueError for times or operators that
    make no sense, InputError where there are no readings and no times.
    """
    import pyarrow as pa

    since_ms, until_ms = time_of(tried, since_ms, until_ms)
    counter = _Counter(catalog, since_ms, until_ms, by, bounds)
    columns = counter.columns(tried)
    arrays = {}
    for field in schema():
        values = columns[field.name]
        # NaN says that there is no such figure
        absent = np.isnan(values) if values.dtype.kind == "f" else None
        arrays[field.name] = pa.array(values, field.type, mask=absent)
    return pa.table(arrays, schema=schema())


def time_of(tried: Tried, since_ms: int | None, until_ms: int | None) -> tuple[int, int]:
    """Return the times given, or else those from the first to the last reading, both included."""
    if tried.first_ms is None or tried.last_ms is None:
        if since_ms is None or until_ms is None:
            raise InputError("the history has no readings: there is no time to count alarms in")
        return since_ms, until_ms
    return (
        tried.first_ms if since_ms is None else since_ms,
        tried.last_ms + 1 if until_ms is None else until_ms,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counted:
    """One setting's steps, counted by source."""

    tally: Array
    """() TALLY"""
    keys: Array
    """(alarms,) int64, ascending: see kernels.load"""
    lasted_ms: Array
    """(episodes,) int64, ascending"""
    stale_by_day: Array
    """(D,) int32"""
    touched: Array
    """Sources with a step."""


class _Counter:
    """Counts steps of one catalog within one time; its scratch serves one setting after another."""

    def __init__(
        self, catalog: Catalog, since_ms: int, until_ms: int, by: By, bounds: Bounds
    ) -> None:
        if until_ms <= since_ms:
            raise ValueError(f"until_ms: must be after since_ms = {since_ms}, got {until_ms}")
        self.catalog, self.bounds = catalog, bounds
        self.since_ms, self.until_ms = since_ms, until_ms
        self.span_ms = until_ms - since_ms
        self.n_days = -(-self.span_ms // DAY_MS)
        self.operators = Operators.of(catalog, by)
        if len(self.operators) * self.span_ms > np.iinfo(np.int64).max:
            raise ValueError(
                f"until_ms: {len(self.operators):,} operators over {self.n_days:,} days are too "
                "many: choose a shorter time or fewer operators"
            )
        self.measure = np.array(
            [
                (
                    since_ms,
                    until_ms,
                    PERIOD_MS,
                    bounds.flood_starts_above,
                    bounds.flood_ends_below,
                    bounds.chatter_n,
                    round(bounds.chatter_s * 1000),
                    round(bounds.stale_h * 3_600_000),
                )
            ],
            MEASURE,
        )
        self.seen = np.zeros(catalog.n_sources, SEEN)
        self._touched = np.zeros(catalog.n_sources, np.int32)
        self._turn = 0
        self._make_room(0)

    def _make_room(self, n_steps: int) -> None:
        self._raised_ms = np.zeros(n_steps, np.int64)
        self._following = np.zeros(n_steps, np.int32)
        self._keys = np.zeros(n_steps, np.int64)
        self._lasted_ms = np.zeros(n_steps, np.int64)

    def count(self, steps: Array) -> _Counted:
        """Count by source; `seen` and the arrays hold it until the next count."""
        if len(steps) > len(self._keys):
            self._make_room(len(steps))
        self._turn += 1
        tally = np.zeros(1, TALLY)
        stale_by_day = np.zeros(self.n_days, np.int32)
        scratch = (self.seen, self._raised_ms, self._following, self._touched)
        n_touched, n_lasted = tally_alerts(
            steps,
            self.operators.of_source,
            self.measure,
            self._turn,
            scratch,
            self._keys,
            self._lasted_ms,
            stale_by_day,
            tally,
        )
        keys = self._keys[: tally[0]["alarms"]]
        keys.sort()
        lasted_ms = self._lasted_ms[:n_lasted]
        lasted_ms.sort()
        return _Counted(
            tally=tally[0],
            keys=keys,
            lasted_ms=lasted_ms,
            stale_by_day=stale_by_day,
            touched=self._touched[:n_touched],
        )

    def load(self, keys: Array) -> tuple[Array, Array, Array]:
        """Return the load of each operator, where its keys begin, and all floods."""
        loads = np.zeros(len(self.operators), LOAD)
        bounds_of = np.arange(len(self.operators) + 1, dtype=np.int64) * self.span_ms
        starts = np.searchsorted(keys, bounds_of)
        # a flood ends and another starts only with as many new alarms
        apart = 1 + self.bounds.flood_starts_above - self.bounds.flood_ends_below + 1
        floods = np.zeros((len(keys) // apart, 2), np.int64)
        n_floods = load_operators(keys, starts, self.measure, loads, floods)
        return loads, starts, floods[:n_floods]

    def figures(self, steps: Array) -> Figures:
        """Return the figures of one setting."""
        counted = self.count(steps)
        tally = counted.tally
        alarms = int(tally["alarms"])
        alarms_of = self.seen["alarms"][counted.touched].astype(np.int64)
        busy = counted.touched[np.lexsort((counted.touched, -alarms_of))]
        load = self.seen["alarms"][busy].astype(np.int64)
        busy, load = busy[load > 0], load[load > 0]
        return Figures(
            since_ms=self.since_ms,
            until_ms=self.until_ms,
            by=self.operators.by,
            bounds=self.bounds,
            alarms=alarms,
            episodes=int(tally["episodes"]),
            standing_before=int(tally["standing_before"]),
            standing_after=int(tally["standing_after"]),
            n_operators=len(self.operators),
            operators=self._operator_figures(counted.keys),
            chattering=self._chattering(counted.touched),
            stale=int(tally["stale"]),
            stale_by_day=tuple(counted.stale_by_day.tolist()),
            top=tuple(
                TopSource(source=self._id(source), alarms=n, share=n / alarms)
                for source, n in zip(busy[:TOP_N].tolist(), load[:TOP_N].tolist(), strict=True)
            ),
            pareto=_pareto(load),
            alarms_by_level=dict(zip(LEVEL_NAMES[1:], tally["by_level"].tolist(), strict=True)),
            median_s=_median_s(counted.lasted_ms, counted.lasted_ms[:0]),
        )

    def _id(self, source: int) -> str:
        return str(self.catalog.source_id[source].as_py())

    def _operator_figures(self, keys: Array) -> tuple[OperatorFigures, ...]:
        loads, _, floods = self.load(keys)
        ends = np.cumsum(loads["floods"])
        periods = self.periods
        found = []
        for o in np.argsort(-loads["alarms"], kind="stable").tolist():
            load = loads[o]
            if not load["alarms"]:
                break
            own = floods[ends[o] - load["floods"] : ends[o]]
            found.append(
                OperatorFigures(
                    operator=self.operators.names[o],
                    n_sources=int(self.operators.n_sources[o]),
                    alarms=int(load["alarms"]),
                    per_10min=int(load["alarms"]) / periods,
                    peak=int(load["peak_n"]),
                    peak_ms=int(load["peak_ms"]),
                    floods=tuple((began, ended) for began, ended in own.tolist()),
                    flood_share=int(load["flood_ms"]) / self.span_ms,
                )
            )
        return tuple(found)

    def _chattering(self, touched: Array) -> tuple[Chattering, ...]:
        sources = touched[self.seen["bouts"][touched] > 0]
        of_source = self.seen[sources]
        order = np.lexsort((sources, -of_source["bouts"], -of_source["most"]))
        return tuple(
            Chattering(
                source=self._id(int(sources[i])),
                bouts=int(of_source["bouts"][i]),
                most_cycles=int(of_source["most"][i]),
            )
            for i in order.tolist()
        )

    @property
    def periods(self) -> float:
        """How many times ten minutes there are, at least 1."""
        return max(self.span_ms, PERIOD_MS) / PERIOD_MS

    def columns(self, tried: Tried) -> dict[str, Array]:
        """Return the figures of every setting, by column."""
        common = self.count(tried.common)
        tallies = np.repeat(common.tally, tried.n)
        stale = np.repeat(common.stale_by_day[None], tried.n, axis=0)
        loads, starts, _ = self.load(common.keys)
        mosts = np.repeat(_most(loads), tried.n)
        medians = np.zeros(tried.n)
        base, lasted_ms = common.keys.copy(), common.lasted_ms.copy()
        scratch = (np.zeros(1, LOAD), np.zeros((0, 2), np.int64))
        self._make_room(int(np.diff(tried.starts).max(initial=0)))
        for setting in range(tried.n):
            own = self.count(tried.own[tried.starts[setting] : tried.starts[setting + 1]])
            _add(tallies[setting], own.tally)
            stale[setting] += own.stale_by_day
            load_setting(
                own.keys, base, starts, loads, self.measure, scratch, mosts[setting : setting + 1]
            )
            median_s = _median_s(lasted_ms, own.lasted_ms)
            medians[setting] = np.nan if median_s is None else median_s
        return self._as_columns(tallies, mosts, stale, medians)

    def _as_columns(
        self, tallies: Array, mosts: Array, stale: Array, medians: Array
    ) -> dict[str, Array]:
        n = len(tallies)
        names = np.array([*self.operators.names, None], object)
        alarms, by_level = tallies["alarms"], tallies["by_level"]
        some = np.where(alarms > 0, alarms, np.nan)
        columns: dict[str, Array] = {
            "setting": np.arange(n),
            "alarms": alarms,
            **{f"alarms_{name}": by_level[:, k] for k, name in enumerate(LEVEL_NAMES[1:])},
            "episodes": tallies["episodes"],
            "standing_before": tallies["standing_before"],
            "standing_after": tallies["standing_after"],
            "median_duration_s": medians,
            "operators": np.full(n, len(self.operators)),
            "per_10min": alarms / max(len(self.operators), 1) / self.periods,
            "busiest_operator": names[mosts["operator"]],
            "busiest_per_10min": mosts["alarms"] / self.periods,
            "peak_per_10min": mosts["peak_n"],
            "floods": mosts["floods"],
            "flood_share": mosts["flood_ms"] / self.span_ms,
            "chattering": tallies["chattering"],
            "chatter_bouts": tallies["bouts"],
            "chatter_most": tallies["most"],
            "stale": tallies["stale"],
            "stale_per_day": stale.sum(axis=1) / self.n_days,
            "stale_worst_day": stale.max(axis=1),
            "top_ten_share": tallies["top_n"].sum(axis=1) / some,
            "low_share": (by_level[:, 0] + by_level[:, 1]) / some,
            "medium_share": by_level[:, 2] / some,
            "high_share": by_level[:, 3] / some,
        }
        missed = np.zeros(n, np.int64)
        for target in targets_of(dict.fromkeys(columns), self.bounds):
            value = columns[target.key]
            missed += ~target.holds(value, target.acceptable) & ~np.isnan(value)
        columns["targets_missed"] = missed
        return columns


_ADDED = (
    "alarms",
    "by_level",
    "episodes",
    "standing_before",
    "standing_after",
    "chattering",
    "bouts",
    "stale",
)


def _add(tally: Array, own: Array) -> None:
    """Add a setting's own tally to the common one: of other sources."""
    for name in _ADDED:
        tally[name] += own[name]
    tally["most"] = max(tally["most"], own["most"])
    both = np.concatenate([tally["top_n"], own["top_n"]])
    tally["top_n"] = np.sort(both)[: -TOP_N - 1 : -1]


def _most(loads: Array) -> Array:
    """Return (1,) MOST of the loads of all operators."""
    most = np.zeros(1, MOST)
    most["operator"] = -1
    if loads["alarms"].any():
        busiest = int(np.argmax(loads["alarms"]))
        most["operator"], most["alarms"] = busiest, loads["alarms"][busiest]
        most["peak_n"] = loads["peak_n"].max()
        most["floods"] = loads["floods"].sum()
        most["flood_ms"] = loads["flood_ms"].max()
    return most


def _median_s(ones: Array, others: Array) -> float | None:
    """Return the median of two ascending runs together, in seconds; None if both are empty."""
    n = len(ones) + len(others)
    if not n:
        return None
    # where each of the others comes in the whole
    places = np.arange(len(others)) + np.searchsorted(ones, others)
    middle = []
    for k in ((n - 1) // 2, n // 2):
        i = int(np.searchsorted(places, k))
        is_other = i < len(others) and places[i] == k
        middle.append(int(others[i] if is_other else ones[k - i]))
    return sum(middle) / 2 / 1000


def _pareto(load: Array) -> tuple[tuple[int, float], ...]:
    """Return points of the curve: how much of all alarms the n busiest sources have."""
    if not len(load):
        return ()
    total = np.cumsum(load)
    ranks = np.unique(np.geomspace(1, len(load), PARETO_POINTS).round().astype(np.int64))
    shares = total[ranks - 1] / total[-1]
    return tuple(zip(ranks.tolist(), shares.tolist(), strict=True))

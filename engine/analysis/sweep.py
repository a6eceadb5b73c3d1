"""Many settings over one history: read once, and gone through once for all of them.

What comes out is, setting by setting, exactly what a replay under it gives (`kernels.sweep`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from engine.analysis.past import Past
from engine.analysis.steps import Tried
from engine.analysis.store import Store
from engine.analysis.tries import Compiler, Numbers, Tries, alike, side_by_side
from engine.plan import compile_plan
from engine.readings import Readings, read_only
from engine.rules import Rules
from engine.rules_profile import MAX_WINDOWS
from engine.state import aligned
from kernels.gather import COMMON, sweep_sources
from kernels.layout import (
    ADMITTED,
    BIN,
    CHANGE,
    CLOCK,
    COLD,
    HEAD,
    HOT,
    LANES,
    MAX_SLOTS,
    MOMENT,
    N_LANES,
    PANES,
    PARAMS,
    RUN,
    SECONDS,
    SIGNAL,
    SOURCE,
    STEP,
    TRANSITION,
)
from kernels.sweep import sweep_sensors
from kernels.trial import STRETCH

Array = np.ndarray[Any, Any]

N_MOMENTS = 2 * STRETCH + 2
ROOM = 1 << 16
"""Changes, and steps, that there is room for at first."""
N_TRANSITIONS = 256
BLOCK_BYTES = 1 << 30
"""Of settings' parameters that are held side by side; more are tried in several turns."""


class Sweep:
    """A history that is read once, under which any number of settings may be tried."""

    def __init__(self, past: Past, *, threads: int | None = None, **options: Any) -> None:
        self.past = past
        self.threads = min(os.cpu_count() or 1, 8) if threads is None else threads
        self._options = options
        self._compiler = Compiler(past.catalog)
        self._stores: dict[tuple[int, ...], Store] = {}

    def try_all(
        self, settings: Sequence[Rules], *, on_progress: Callable[[float], None] | None = None
    ) -> Tried:
        """Return what each of the settings makes of the history, exactly as a replay would.

        Raises what is wrong with the readings, and RulesError where rules and catalog don't fit.
        """
        numbers = [self._compiler.numbers(rules) for rules in settings]
        groups: dict[Any, list[int]] = {}
        for place, (rules, each) in enumerate(zip(settings, numbers, strict=True)):
            groups.setdefault((_times(rules), alike(each)), []).append(place)
        told = _Told(on_progress, sum(len(places) for places in groups.values()))
        common: list[Array] = []
        own: list[Array] = []
        for (times, _), places in groups.items():
            store = self._store(settings[places[0]], times, told)
            for block in _blocks(places, numbers[places[0]]):
                tries = side_by_side([numbers[place] for place in block])
                steps = sweep_store(store, tries, self.threads, told.tried)
                shared = steps["setting"] == COMMON
                if len(block) == len(settings):
                    common.append(steps[shared])
                else:
                    own += _for_each(steps[shared], block)
                mine = steps[~shared]
                mine["setting"] = np.array(block, np.int32)[mine["setting"]]
                own.append(mine)
        return _tried(len(settings), common, own, list(self._stores.values()), self.threads)

    def _store(self, rules: Rules, times: tuple[int, ...], told: _Told) -> Store:
        """Return the history under the times of some rules, read at its first use."""
        if times not in self._stores:
            plan = compile_plan(self.past.catalog, rules)
            self._stores[times] = Store.read(
                self.past, plan, on_progress=told.read, **self._options
            )
        return self._stores[times]

    @classmethod
    def warm_up(cls, past: Past, rules: Rules) -> float:
        """Compile the kernels, or load them from their cache; return the seconds that it took."""
        start = time.perf_counter()
        store = Store(past, compile_plan(past.catalog, rules), in_memory_bytes=0)
        store.add(Readings.of([0], [0], [0.0]))
        store.finish()
        sweep_store(store, side_by_side([Compiler(past.catalog).numbers(rules)]))
        return time.perf_counter() - start

    def close(self) -> None:
        """Let go of the history, and delete the files that it is kept in."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep_store(
    store: Store,
    tries: Tries,
    threads: int = 1,
    on_progress: Callable[[int, float], None] | None = None,
) -> Array:
    """Return the steps of settings side by side, bucket after bucket; COMMON ones are of all.

    `on_progress` is told how many settings went through which share of the history.
    """
    free = [_Turn(store, tries) for _ in range(threads)]

    def take(bucket: int) -> Array:
        turn = free.pop()
        try:
            return turn.steps(bucket)
        finally:
            free.append(turn)

    found = []
    with ThreadPoolExecutor(threads) as pool:
        for steps in pool.map(take, range(store.n_buckets)):
            found.append(steps)
            if on_progress is not None:
                on_progress(len(tries.choice), 1 / store.n_buckets)
    return np.concatenate([np.zeros(0, STEP), *found])


class _Told:
    """Tells how much is done: reading counts as one part, trying all settings as another."""

    def __init__(self, on_progress: Callable[[float], None] | None, n: int) -> None:
        self._on_progress, self._n = on_progress, max(1, n)
        self._done, self._half = 0.0, 0.0

    def read(self, share: float) -> None:
        """Note the share of the history that is read."""
        self._half = 0.5
        if self._on_progress is not None:
            self._on_progress(share / 2)

    def tried(self, n_settings: int, share: float) -> None:
        """Note that a share of the history was gone through under some settings."""
        self._done += n_settings * share / self._n
        if self._on_progress is not None:
            self._on_progress(min(1.0, self._half + (1 - self._half) * self._done))


class _Turn:
    """What one thread needs to go through buckets."""

    def __init__(self, store: Store, tries: Tries) -> None:
        catalog = store.catalog
        self._store, self._tries = store, tries
        n_rows = tries.most_rows
        stats, kept = ((
            np.zeros(1, HOT), np.zeros(MAX_WINDOWS, PANES), np.zeros(MAX_WINDOWS, SECONDS),
            np.zeros(max(1, tries.most_bins), BIN), np.zeros(1, np.int64),
        ) for _ in range(2))  # fmt: skip
        noted = (np.zeros(N_MOMENTS, MOMENT), np.zeros((N_MOMENTS, MAX_WINDOWS), np.int64),
                 np.zeros((N_MOMENTS, MAX_WINDOWS)), np.zeros(2 * N_MOMENTS, np.int32))  # fmt: skip
        latches = (aligned(n_rows, HOT), np.zeros(n_rows, COLD),
                   np.zeros((n_rows, MAX_WINDOWS), np.uint8),
                   np.zeros((n_rows, 2), np.int64))  # fmt: skip
        self._scratch = (stats, kept, noted, latches)
        now, before = ((
            np.zeros(1, HOT), aligned(1, LANES), aligned(MAX_SLOTS, PANES),
            np.zeros(MAX_SLOTS, SECONDS), np.zeros(1, np.int64),
        ) for _ in range(2))  # fmt: skip
        near, active = np.zeros(MAX_SLOTS, np.int32), np.zeros(N_LANES, np.int64)
        self._beside = (now, before, near, active)
        self._make_room(ROOM)
        self._steps = np.zeros(ROOM, STEP)
        self._transitions = np.zeros(N_TRANSITIONS, TRANSITION)
        source = np.zeros(catalog.n_sources, SOURCE)
        self._state = (np.zeros(1, CLOCK), np.zeros(catalog.n_sensors, SIGNAL), source,
                       np.zeros(max(1, catalog.n_sources), np.int32))  # fmt: skip
        self._given = _given(store, tries)
        self._records = np.empty(0, ADMITTED)

    def _make_room(self, n: int) -> None:
        self._said = (np.zeros(n, CHANGE), np.zeros(n, RUN), np.zeros(n, HEAD))
        self._order = np.zeros(n, np.int64)

    def steps(self, bucket: int) -> Array:
        """Return the steps of a bucket's clusters under every setting."""
        store, given = self._store, self._given
        records, starts = store.bucket(bucket, self._records)
        self._records = records
        first, last = store.edges[bucket : bucket + 2].tolist()
        heads_of, differs = np.zeros(last - first + 1, np.int64), np.zeros(last - first, np.uint8)
        of_bucket = (records, starts, int(store.first_sensor[bucket]), given.graph[0])
        n_steps = 0
        while first < last:
            said = (*self._said, heads_of, differs)
            reached = sweep_sensors(
                first, last, store.cluster_start, of_bucket, given.tries, given.survey_plan,
                self._scratch, self._beside, said,
            )  # fmt: skip
            if reached == first:
                self._make_room(2 * len(self._order))
                continue
            fused, n_steps = sweep_sources(
                first, reached, store.cluster_start, said, given.tries[0], given.choice,
                given.fusion, given.log, self._state, self._order, self._transitions, self._steps,
                n_steps,
            )  # fmt: skip
            if fused < reached:
                self._steps = np.concatenate([self._steps, np.zeros_like(self._steps)])
            first = fused
        return self._steps[:n_steps].copy()


class _Given(NamedTuple):
    """What the kernels read, in the order in which they take it."""

    tries: tuple[Any, ...]
    survey_plan: tuple[Any, ...]
    choice: Array
    graph: tuple[Array, ...]
    fusion: tuple[Any, ...]
    log: tuple[Any, ...]


def _given(store: Store, tries: Tries) -> _Given:
    """Line up what the kernels read."""
    city = store.catalog
    period_ms = np.asarray(city.period_ms, np.float64)
    ticks = read_only(store.ticks)
    tried = (tries.row, tries.packs_of, tries.packs, tries.lanes, tries.rows_of, tries.params,
             tries.window_params, period_ms, tries.after)  # fmt: skip
    graph = tuple(map(read_only, (
        city.sensor_start, city.coupled_start, city.coupled_origin, city.coupling_start,
        city.coupling_target, city.category, city.static_class, city.district, city.sensor_source,
    )))  # fmt: skip
    return _Given(
        tries=tuple(map(read_only, tried)),
        survey_plan=(
            read_only(tries.envelopes),
            (read_only(tries.envelope_windows), ticks, store.ascending),
            (read_only(tries.slots), read_only(tries.slot_of)),
        ),
        choice=read_only(tries.choice),
        graph=graph,
        fusion=(
            read_only(tries.fusion),
            read_only(tries.all_params),
            graph,
            *map(read_only, tries.fusings),
        ),
        log=(ticks, store.ascending),
    )


def _times(rules: Rules) -> tuple[int, ...]:
    """Return what of the rules decides which readings are admitted, and when ticks come."""
    time = rules.time
    return tuple(
        round(1000 * s) for s in (time.tick_s, time.late_after_s, time.max_ahead_s, time.max_late_s)
    )


def _blocks(places: list[int], numbers: Numbers) -> Iterator[list[int]]:
    """Cut settings into blocks whose parameters fit into memory side by side."""
    n = max(1, BLOCK_BYTES // (max(1, len(numbers.params)) * PARAMS.itemsize))
    for first in range(0, len(places), n):
        yield places[first : first + n]


def _for_each(steps: Array, settings: list[int]) -> list[Array]:
    """Return copies of steps, one for each of some settings."""
    copies = []
    for setting in settings:
        copy = steps.copy()
        copy["setting"] = setting
        copies.append(copy)
    return copies


def _tried(
    n: int, common: list[Array], own: list[Array], stores: list[Store], threads: int
) -> Tried:
    none = np.zeros(0, STEP)
    shared = np.concatenate([none, *common])
    shared = shared[np.argsort(shared["position"], kind="stable")]
    steps = np.concatenate([none, *own])
    if n < 1 << 16:  # sorted by radix
        steps = steps[np.argsort(steps["setting"].astype(np.uint16), kind="stable")]
    else:
        steps = steps[np.argsort(steps["setting"], kind="stable")]
    starts = np.searchsorted(steps["setting"], np.arange(n + 1))

    def put_in_order(setting: int) -> None:
        mine = steps[starts[setting] : starts[setting + 1]]
        mine[:] = mine[np.argsort(mine["position"], kind="stable")]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(put_in_order, range(n)))
    store = stores[-1]
    return Tried(
        n=n,
        common=shared,
        own=steps,
        starts=starts.astype(np.int64),
        first_ms=store.first_ms,
        last_ms=store.last_ms,
        n_readings=store.n_readings,
    )

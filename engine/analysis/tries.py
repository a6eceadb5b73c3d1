"""Settings compiled side by side: which of them are alike, and the envelope of those that differ.

Settings share what their rules make equal: a row of parameters that several have is tried once, and
rows whose statistics are equal are surveyed once, under an envelope of their limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.plan import Fusing, compile_fusing
from engine.plan_params import set_near
from engine.plan_rows import RowCompiler
from engine.rules import Rules
from engine.rules_profile import MAX_WINDOWS
from kernels.layout import LANE_PARAMS, MAX_SLOTS, N_LANES, PACK, PARAMS, WINDOW_PARAMS

Array = np.ndarray[Any, Any]

STATISTICS = (
    "scale", "offset", "range_low", "range_high", "alpha", "clip", "min_deviation", "allowance",
    "drift_cap", "half_ms", "memory_n", "warmup_n", "n_windows", "season_bins", "season_ms",
    "utc_offset_ms",
)  # fmt: skip
"""Parameters that decide what a sensor's statistics are, whatever they are held against."""
GATE = ("scale", "offset", "range_low", "range_high", "half_ms", "season_bins")
"""Parameters by which a reading is read; where they are equal, envelopes go side by side."""
WINDOW_STATISTICS = ("pane_ms", "n_panes", "aggregate")
LOWEST = ("quiet_high", "quiet_rise", "quiet_fall", "quiet_deviation", "quiet_drift", "spike_at")
MOST_KEPT = 4096
"""Compiled fusions that are kept."""
RUN_LENGTHS = ("flat_after_n", "bad_after_n")


class Numbers(NamedTuple):
    """The numbers of one setting: what differs between rules that watch the same sensors."""

    row: Array
    """(S,) uint32: the same object for settings whose sensors have the same rows"""
    params: Array
    """(P,) PARAMS"""
    window_params: Array
    after: Array
    """(P,) periods of silence"""
    fusing: Fusing


class Compiler:
    """Compiles rules for one catalog into their numbers, a thousand of them in a second or two."""

    def __init__(self, catalog: Any) -> None:
        self.catalog = catalog
        self._rows = RowCompiler(catalog)
        self._fusing: dict[str, Fusing] = {}
        self._weights: dict[str, Array] = {}

    def numbers(self, rules: Rules) -> Numbers:
        """Return the numbers of rules; RulesError if they don't fit the catalog."""
        rows = self._rows.rows(rules)
        sections = {"time", "levels", "fusion", "coupling", "rules", "context"}
        about = rules.model_dump_json(include=sections)
        if about not in self._fusing:
            if len(self._fusing) > MOST_KEPT:
                self._fusing.clear()
            fusing = compile_fusing(self.catalog, rules)
            # a city has millions of couplings, and few settings change what they weigh
            weight = self._weights.setdefault(rules.coupling.model_dump_json(), fusing[4])
            self._fusing[about] = fusing._replace(coupled_weight=weight)
        return Numbers(
            rows.row, rows.params, rows.window_params, rows.absent_after, self._fusing[about]
        )


def alike(numbers: Numbers) -> tuple[Any, ...]:
    """Return what settings must have in common to be tried together."""
    fusing = numbers.fusing
    return (
        id(numbers.row),
        len(numbers.params),
        len(fusing.terms),
        len(fusing.signal_rules),
        len(fusing.contexts),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Tries:
    """Settings side by side, as `kernels.sweep.sweep` takes them."""

    row: Array
    packs_of: Array
    """(P + 1,) int64, where the packs of a row begin"""
    packs: Array
    """(K,) PACK, of envelopes that are surveyed side by side"""
    lanes: Array
    """(K,) LANE_PARAMS, their numbers"""
    slots: Array
    """WINDOW_PARAMS of the packs' distinct windows"""
    slot_of: Array
    """(V, 16) int32, which of its pack's windows those of an envelope are"""
    rows_of: Array
    """(V + 1,) int64, where the tried rows of an envelope begin"""
    params: Array
    """(D,) PARAMS, the tried rows"""
    window_params: Array
    envelopes: Array
    """(V,) PARAMS"""
    envelope_windows: Array
    after: Array
    """(V,) periods of silence"""
    choice: Array
    """(J, P) int32, the tried row that a setting has"""
    all_params: Array
    """(J, P) PARAMS"""
    fusion: Array
    """(J, 5) int32, which of the distinct `PARTS` a setting has"""
    fusings: list[Array]
    """The distinct ones of each part, one line each"""

    @property
    def most_rows(self) -> int:
        """The most rows that are tried under the envelopes of one pack."""
        first = self.packs["first"]
        return int((self.rows_of[first + self.packs["n"]] - self.rows_of[first]).max(initial=1))

    @property
    def most_bins(self) -> int:
        """The most season bins that a sensor has."""
        return int(self.envelopes["season_bins"].max(initial=0))


def side_by_side(settings: Sequence[Numbers]) -> Tries:
    """Return settings that are alike (`alike`) side by side."""
    all_params = np.stack([each.params for each in settings])
    n_settings, n_rows = all_params.shape
    choice = np.zeros((n_settings, n_rows), np.int32)
    found = _Found()
    for row in range(n_rows):
        params = all_params[:, row]
        windows = [_windows(each, row) for each in settings]
        after = np.array([each.after[row] for each in settings])
        statistics = _prints(params, STATISTICS, [after, *_columns(windows, WINDOW_STATISTICS)])
        everything = _prints(
            params,
            [name for name in PARAMS.names or () if name != "first_window"],
            [after, *_columns(windows, WINDOW_PARAMS.names or ())],
        )
        for gate in _distinct(_prints(params, GATE, [after])):
            for among in _distinct(statistics[gate]):
                variant = gate[among]
                tried = _distinct(everything[variant])
                distinct = variant[[members[0] for members in tried]]
                number_of = found.add_variant(
                    params[distinct], [windows[i] for i in distinct], float(after[variant[0]])
                )
                for number, members in zip(number_of, tried, strict=True):
                    choice[variant[members], row] = number
            found.end_gate()
        found.end_row()
    fusion, fusings = _fusings([each.fusing for each in settings])
    envelopes = np.concatenate(found.envelopes)
    return Tries(
        row=settings[0].row,
        packs_of=np.array(found.packs_of, np.int64),
        packs=np.array(found.packs, PACK),
        lanes=np.concatenate([_lanes(envelopes, *pack[:2]) for pack in found.packs]),
        slots=np.concatenate([*found.slots, np.zeros(1, WINDOW_PARAMS)]),
        slot_of=np.array(found.slot_of, np.int32),
        rows_of=np.array(found.rows_of, np.int64),
        params=np.concatenate(found.params),
        window_params=np.concatenate([*found.windows, np.zeros(1, WINDOW_PARAMS)]),
        envelopes=envelopes,
        envelope_windows=np.concatenate([*found.envelope_windows, np.zeros(1, WINDOW_PARAMS)]),
        after=np.array(found.after, np.float64),
        choice=choice,
        all_params=all_params,
        fusion=fusion,
        fusings=fusings,
    )


class _Found:
    """Tried rows, envelopes and packs, as they are found."""

    def __init__(self) -> None:
        self.packs_of, self.rows_of = [0], [0]
        self.packs: list[tuple[int, int, int, int]] = []
        self.slots: list[Array] = []
        self.slot_of: list[list[int]] = []
        self.params: list[Array] = []
        self.windows: list[Array] = []
        self.envelopes: list[Array] = []
        self.envelope_windows: list[Array] = []
        self.after: list[float] = []
        self._n_windows = self._n_envelope_windows = self._n_packed = self._n_slots = 0

    def add_variant(self, params: Array, windows: list[Array], after: float) -> range:
        """Take rows of equal statistics, with their windows; return their numbers."""
        params = params.copy()
        for row, own in zip(params, windows, strict=True):
            row["first_window"] = self._n_windows
            self.windows.append(own)
            self._n_windows += len(own)
        envelope, near = _envelope(params, windows)
        envelope["first_window"] = self._n_envelope_windows
        self._n_envelope_windows += len(near)
        self.params.append(params)
        self.envelopes.append(envelope)
        self.envelope_windows.append(near)
        self.after.append(after)
        first = self.rows_of[-1]
        self.rows_of.append(first + len(params))
        return range(first, first + len(params))

    def end_gate(self) -> None:
        """Pack the envelopes since the last such call: readings are read alike under them."""
        first, last = self._n_packed, len(self.envelopes)
        self._n_packed = last
        seasonal = bool(self.envelopes[first]["season_bins"][0])
        while first < last:
            slots = _Slots()
            n = 0
            while first + n < last and n < (1 if seasonal else N_LANES):
                taken = slots.take(self.envelope_windows[first + n])
                if taken is None:
                    break
                self.slot_of.append(taken)
                n += 1
            self.packs.append((first, n, self._n_slots, len(slots.rows)))
            self.slots += slots.params()
            self._n_slots += len(slots.rows)
            first += n

    def end_row(self) -> None:
        """Note that what comes is tried in place of another row of the plan."""
        self.packs_of.append(len(self.packs))


class _Slots:
    """The distinct windows of a pack, each with the limits that are nearest to any envelope."""

    def __init__(self) -> None:
        self.rows: dict[tuple[float, ...], Array] = {}

    def take(self, windows: Array) -> list[int] | None:
        """Return the slots of an envelope's windows; None if there is no room for them."""
        keys = [tuple(window[name].item() for name in WINDOW_STATISTICS) for window in windows]
        if len(self.rows.keys() | set(keys)) > MAX_SLOTS:
            return None
        for key, window in zip(keys, windows, strict=True):
            row = self.rows.setdefault(key, window.copy())
            for side in ("high", "low"):
                row[side][0] = min(row[side][0], window[side][0])
        numbers = {key: number for number, key in enumerate(self.rows)}
        taken = [numbers[key] for key in keys]
        return taken + [0] * (MAX_WINDOWS - len(taken))

    def params(self) -> list[Array]:
        """Return the windows' rows."""
        for row in self.rows.values():
            set_near(row)
        return [row.reshape(1) for row in self.rows.values()]


def _lanes(envelopes: Array, first: int, n: int) -> Array:
    """Return the numbers of a pack's envelopes: lane by lane, or the lowest of all lanes."""
    lanes, of_pack = np.zeros(1, LANE_PARAMS), envelopes[first : first + n]
    for name in LANE_PARAMS.names or ():
        if lanes[name].ndim == 2:
            lanes[name][0, :n] = of_pack[name]
        elif name in RUN_LENGTHS:
            lanes[name] = _shortest(of_pack[name])
        elif name == "quiet_low":
            lanes[name] = of_pack[name].max()
        elif name != "drifts":
            lanes[name] = of_pack[name].min()
    lanes["drifts"] = np.isfinite(of_pack["quiet_drift"]).any()
    return lanes


def _shortest(lengths: Array) -> int:
    """Return the shortest run that counts; 0 where none does."""
    given = lengths[lengths > 0]
    return int(given.min()) if len(given) else 0


def _envelope(params: Array, windows: list[Array]) -> tuple[Array, Array]:
    """Return the row, and its windows, that is reached wherever one of some rows is.

    A window's level may be held by its deadband, so what is near its limit is near to that.
    """
    envelope = params[:1].copy()
    for name in LOWEST:
        envelope[name] = params[name].min()
    envelope["quiet_low"] = params["quiet_low"].max()
    for name in RUN_LENGTHS:
        envelope[name] = _shortest(params[name])
    near = windows[0].copy()
    for number, row in enumerate(near):
        for side in ("high", "low"):
            held = [own[side][number].min() - own["deadband"][number] for own in windows]
            row[side] = np.inf
            row[side][0] = min(held)
        set_near(row)
    return envelope, near


def _windows(numbers: Numbers, row: int) -> Array:
    first, n = numbers.params["first_window"][row], numbers.params["n_windows"][row]
    return numbers.window_params[first : first + n]


def _columns(windows: list[Array], names: Sequence[str]) -> list[Array]:
    """Return columns of all settings' windows; missing ones are NaN."""
    most = max(map(len, windows))
    columns = []
    for number in range(most):
        for name in names:
            shape = WINDOW_PARAMS[name].shape
            none = np.full(shape, np.nan)
            given = [own[name][number] if number < len(own) else none for own in windows]
            columns.append(np.array(given, np.float64))
    return columns


def _prints(params: Array, names: Sequence[str], more: Sequence[Array]) -> Array:
    """Return (J,) void: equal where all the fields and columns are."""
    columns = [np.ascontiguousarray(params[name]) for name in names] + list(more)
    flat = [
        np.ascontiguousarray(column).view(np.uint8).reshape(len(params), -1) for column in columns
    ]
    joined = np.ascontiguousarray(np.hstack(flat))
    return joined.view(np.dtype((np.void, joined.shape[1]))).reshape(-1)


def _distinct(prints: Array) -> list[Array]:
    """Return the places of equal prints, by first occurrence."""
    groups: dict[bytes, list[int]] = {}
    for place, each in enumerate(prints.tolist()):
        groups.setdefault(each, []).append(place)
    return [np.array(places) for places in groups.values()]


PARTS = ("coupled_weight", "category", "terms", "signal_rules", "contexts")
"""What of the rules fusion reads, besides the rows of parameters."""


def _fusings(settings: Sequence[Fusing]) -> tuple[Array, list[Array]]:
    """Return which of the distinct parts each setting has, (J, 5), and those, stacked."""
    which = np.zeros((len(settings), len(PARTS)), np.int32)
    stacks = []
    for part, name in enumerate(PARTS):
        numbers: dict[bytes, int] = {}
        known: dict[int, int] = {}
        distinct: list[Array] = []
        for place, each in enumerate(settings):
            array = getattr(each, name)
            if id(array) not in known:
                key = array.tobytes()
                if key not in numbers:
                    numbers[key] = len(distinct)
                    distinct.append(array)
                known[id(array)] = numbers[key]
            which[place, part] = known[id(array)]
        stacks.append(np.stack(distinct))
    return which, stacks

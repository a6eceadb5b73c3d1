"""Trials: the settings that were tried, what each gave, and how they stand against each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.tuning.objective import Aim, balanced, best_first, front
from engine.analysis.tuning.settings import Settings, Values
from engine.analysis.tuning.space import rounded
from engine.errors import InputError, SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
BASELINE, REVERTED = "baseline", "reverted"
AHEAD = ("setting", "origin", "batch", "digest", "refused")
BEHIND = ("feasible", "front", "chosen")
NO_BATCH = -1


def key_of(values: Values) -> tuple[float | None, ...]:
    """Return values as they can be sought: NaN does not equal itself."""
    return tuple(None if math.isnan(value) else value for value in values)


class Trials:
    """Settings in the order in which they were tried, the given rules first."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.values: list[Values] = []
        self.origin: list[str] = []
        self.batch: list[int] = []
        self.refused: list[str | None] = []
        self.digest: list[str | None] = []
        self._figures: list[pa.Table] = []
        self._row: dict[tuple[float | None, ...], int] = {}

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, values: Values) -> bool:
        return key_of(values) in self._row

    def row_of(self, values: Values) -> int | None:
        """Return the number of a setting; None if it was not tried."""
        return self._row.get(key_of(values))

    def add(
        self,
        values: Sequence[Values],
        origin: str,
        batch: int,
        outcomes: Sequence[tuple[str | None, str | None]],
        figures: pa.Table,
    ) -> None:
        """Add settings: for each its digest or why it was refused, and a row of figures."""
        import pyarrow as pa

        if not self._figures:
            taken = {*AHEAD, *BEHIND, *figures.column_names}
            for title in self.settings.titles:
                if title in taken:
                    raise SettingsError(
                        f"{self.settings.space.file}: {title!r} is the name of a column already: "
                        "give the parameter another name"
                    )
        kept = [n for n, (_, refusal) in enumerate(outcomes) if refusal is None]
        at = np.full(len(values), -1, np.int64)
        at[kept] = np.arange(len(kept))
        # refused settings have a row without figures
        places = pa.array(at, pa.int64(), mask=at < 0)
        self._figures.append(figures.take(places))
        for each, (digest, refusal) in zip(values, outcomes, strict=True):
            self._row[key_of(each)] = len(self.values)
            self.values.append(each)
            self.origin.append(origin)
            self.batch.append(batch)
            self.digest.append(digest)
            self.refused.append(refusal)

    def figures(self) -> pa.Table:
        """Return the figures, one row a setting; null in those of refused ones."""
        import pyarrow as pa

        if len(self._figures) > 1:
            self._figures = [pa.concat_tables(self._figures).combine_chunks()]
        return self._figures[0]

    def numeric(self) -> dict[str, Array]:
        """Return every figure that is a number as float64, NaN where there is none."""
        import pyarrow as pa

        table = self.figures()
        return {
            field.name: table[field.name]
            .cast(pa.float64())
            .combine_chunks()
            .fill_null(math.nan)
            .to_numpy(zero_copy_only=False)
            for field in table.schema
            if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        }

    def accepted(self) -> Array:
        """Return which settings were not refused."""
        return np.array([refusal is None for refusal in self.refused], bool)

    def reasons(self) -> list[tuple[str, int, str]]:
        """Return the keys at which settings were refused, how often, and one whole reason each."""
        said = [refusal for refusal in self.refused if refusal is not None]
        first = {reason.partition(":")[0]: reason for reason in reversed(said)}
        counts = Counter(reason.partition(":")[0] for reason in said)
        return [(key, n, first[key]) for key, n in counts.most_common()]

    def table(self, marks: dict[str, Array] | None = None) -> pa.Table:
        """Return everything as one table: parameters by their titles, figures, and the marks."""
        import pyarrow as pa

        columns: dict[str, Any] = {
            "setting": pa.array(range(len(self)), pa.int64()),
            "origin": pa.array(self.origin, pa.string()),
            "batch": pa.array(self.batch, pa.int32()),
        }
        for number, title in enumerate(self.settings.titles):
            column = np.array([values[number] for values in self.values], np.float64)
            columns[title] = pa.array(column, pa.float64(), mask=np.isnan(column))
        columns["digest"] = pa.array(self.digest, pa.string())
        columns["refused"] = pa.array(self.refused, pa.string())
        figures = self.figures()
        columns.update({name: figures[name] for name in figures.column_names})
        for name in BEHIND:
            mark = np.zeros(len(self), bool) if marks is None else marks[name]
            columns[name] = pa.array(mark, pa.bool_())
        return pa.table(columns)

    @classmethod
    def of_table(cls, settings: Settings, table: pa.Table) -> Trials:
        """Return the trials of a table that `table` gave; InputError if it is another's."""
        trials = cls(settings)
        try:
            columns = [table[title].to_pylist() for title in settings.titles]
            known = {*AHEAD, *BEHIND, *settings.titles}
            trials.values = [
                tuple(math.nan if value is None else value for value in row)
                for row in zip(*columns, strict=True)
            ]
            trials.origin = table["origin"].to_pylist()
            trials.batch = table["batch"].to_pylist()
            trials.digest = table["digest"].to_pylist()
            trials.refused = table["refused"].to_pylist()
        except KeyError as error:
            raise InputError(f"the table of settings is of another study: {error}") from error
        trials._row = {key_of(values): row for row, values in enumerate(trials.values)}
        trials._figures = [table.select([n for n in table.column_names if n not in known])]
        return trials


class Standing:
    """How trials stand by an aim: costs, which are feasible, the front, and which is best."""

    def __init__(self, trials: Trials, aim: Aim, *, balance: bool = False) -> None:
        figures = trials.numeric()
        accepted = trials.accepted()
        self.trials, self.aim = trials, aim
        self.costs = aim.costs(figures)
        self.costs[~accepted] = np.inf
        self.excess = aim.excess(figures)
        self.feasible = aim.feasible(figures) & accepted
        self.front = np.zeros(len(trials), bool)
        able = np.flatnonzero(self.feasible)
        self.front[able[front(self.costs[able])]] = True
        self.n_changed = np.array([len(trials.settings.changed(v)) for v in trials.values])
        self.balance = balance
        order = best_first(self.costs, self.n_changed, _digits(trials), _distances(trials))
        if balance and len(able):
            far = np.where(self.front, balanced(self.costs, self.front), np.inf)
            order = order[np.argsort(far[order], kind="stable")]
        self.order = order

    @property
    def best(self) -> int | None:
        """The best setting that keeps to every requirement; None if there is none."""
        return int(self.order[0]) if self.feasible[self.order[0]] else None

    @property
    def nearest(self) -> int:
        """The best setting, or the one that misses the requirements by least."""
        return int(self.order[0])

    def marks(self) -> dict[str, Array]:
        """Return the columns that say how the settings stand."""
        chosen = np.zeros(len(self.trials), bool)
        if self.best is not None:
            chosen[self.best] = True
        return {"feasible": self.feasible, "front": self.front, "chosen": chosen}

    def front_rows(self) -> Iterator[int]:
        """Yield the settings on the front, the best first; of equal ones the first alone."""
        seen = set()
        for row in best_first(self.costs, self.n_changed).tolist():
            costs = self.costs[row].tobytes()
            if self.front[row] and costs not in seen:
                seen.add(costs)
                yield row


def _digits(trials: Trials) -> Array:
    """Return how many digits the values drawn from ranges have, where they change anything."""
    digits = np.zeros(len(trials), np.int64)
    for number, parameter in enumerate(trials.settings.parameters):
        if parameter.choices is not None:
            continue
        for row, values in enumerate(trials.values):
            value = values[number]
            if not (math.isnan(value) or value == parameter.baseline):
                digits[row] += next(n for n in (1, 2, 3, 17) if rounded(value, n) == value)
    return digits


def _distances(trials: Trials) -> Array:
    """Return how far settings lie from the given rules, in the spans of the parameters."""
    parameters = trials.settings.parameters
    values = np.array(trials.values, np.float64).reshape(len(trials), len(parameters))
    base = np.array([p.baseline for p in parameters])
    span = np.array([max(p.high - p.low, 1e-300) for p in parameters])
    return np.nansum(np.abs(values - base) / span, axis=1)

"""A study as its folder tells it: what was asked, what was tried, what came out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from engine.analysis.tuning.folder import RULES, SETTINGS, STUDY, Folder
from engine.analysis.tuning.objective import Aim, best_first, front
from engine.errors import InputError, SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
_AHEAD = ("setting", "origin", "batch")
_BETWEEN = ("digest", "refused")
_BEHIND = ("feasible", "front", "chosen")


class Change(BaseModel):
    """A number of the rules that the chosen setting makes another; None: it had none."""

    key: str
    old: float | None
    new: float
    unit: str
    why: str


class Chosen(BaseModel):
    """The chosen setting."""

    setting: int
    digest: str
    reason: str
    changes: list[Change]


class Measured(BaseModel):
    """What decided the figures."""

    lead_s: float
    grace_s: float
    by: str = Field(alias="operators by")


class Search(BaseModel):
    """How settings were proposed."""

    method: str
    seed: int | None = None


class Asked(BaseModel):
    """What was asked: digests and options."""

    tocsin: str
    catalog: str
    rules: str
    space: str
    readings: dict[str, int]
    span: tuple[int | None, int | None]
    search: Search
    measured: Measured


class Refusal(BaseModel):
    """Why settings were refused: the key, how many, and one whole reason."""

    key: str
    settings: int
    reason: str


class Said(BaseModel):
    """What study.json says, as far as a report tells it."""

    asked: Asked
    objectives: list[str] = Field(min_length=1)
    requirements: list[str]
    choose: str
    interrupted: bool
    refused: list[Refusal]
    chosen: Chosen | None
    nearest: int | None = None
    notes: list[str] = []


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """A study that was read from its folder; the given rules are setting 0."""

    folder: Path
    said: Said
    aim: Aim
    parameters: list[str]
    values: list[Array]
    """Of each parameter, (N,) float64; NaN: as the rules have it"""
    figures: dict[str, Array]
    """Of each figure that is a number, (N,) float64; NaN where there is none"""
    origin: list[str]
    refused: list[str | None]
    rules_text: str | None
    """The chosen rules as a file."""

    @property
    def n(self) -> int:
        """How many settings there are, refused ones too."""
        return len(self.origin)

    @property
    def asked(self) -> Asked:
        """What was asked."""
        return self.said.asked

    @property
    def interrupted(self) -> bool:
        """Whether it was not all tried."""
        return self.said.interrupted

    @property
    def chosen(self) -> int | None:
        """The chosen setting; None if there is none."""
        return None if self.said.chosen is None else self.said.chosen.setting

    @property
    def changes(self) -> list[Change]:
        """What the chosen setting changes."""
        return [] if self.said.chosen is None else self.said.chosen.changes

    @cached_property
    def accepted(self) -> Array:
        """(N,) bool, what the rules did not refuse."""
        return np.array([reason is None for reason in self.refused], bool)

    @cached_property
    def costs(self) -> Array:
        """(N, objectives) float64, less is better."""
        costs = self.aim.costs(self.figures)
        costs[~self.accepted] = np.inf
        return costs

    @cached_property
    def able(self) -> Array:
        """(N,) bool, what keeps to everything that is required."""
        return self.aim.feasible(self.figures) & self.accepted

    @cached_property
    def front(self) -> Array:
        """(N,) bool, what no other setting betters in every objective."""
        found = np.zeros(self.n, bool)
        able = np.flatnonzero(self.able)
        found[able[front(self.costs[able])]] = True
        return found

    @cached_property
    def n_front(self) -> int:
        """How many settings are on the front, those with the same figures once."""
        return len(np.unique(self.costs[self.front], axis=0))

    @property
    def front_words(self) -> str:
        """How many are on the front, in words."""
        alike = int(self.front.sum()) - self.n_front
        others = f", and {alike:,} with the same figures" if alike else ""
        return f"{self.n_front:,} on the front{others}"

    @cached_property
    def order(self) -> list[int]:
        """Settings, the best first: the chosen one, then by the objectives, refused ones last."""
        order: list[int] = best_first(self.costs, ~self.front, self._n_changed).tolist()
        told = self.said.nearest if self.chosen is None else self.chosen
        if told is not None:
            order.remove(told)
            order.insert(0, told)
        return order

    @property
    def _n_changed(self) -> Array:
        """(N,) int64, parameters that are not as given."""
        columns = np.array(self.values)
        alike = (columns == columns[:, :1]) | (np.isnan(columns) & np.isnan(columns[:, :1]))
        changed: Array = np.count_nonzero(~alike, axis=0)
        return changed

    @property
    def best(self) -> int:
        """The chosen setting; where none was, the one that comes nearest."""
        return self.order[0]

    @property
    def mark(self) -> str:
        """What the best setting is called."""
        if self.chosen is not None:
            return "chosen"
        return "best so far" if self.interrupted else "nearest"

    @property
    def levels(self) -> list[str]:
        """The levels at which incidents were sought; none without a truth."""
        return [name.removeprefix("missed_") for name in self.figures if name.startswith("missed_")]

    @property
    def has_truth(self) -> bool:
        """Whether it was known what really happened."""
        return bool(self.levels)

    @property
    def level(self) -> str:
        """The level that the aim speaks of; yellow where it names none."""
        named = (metric.rpartition("_")[2] for metric in self.aim.metrics())
        return next((each for each in named if each in self.levels), "yellow")

    def unmet(self, row: int) -> Iterator[str]:
        """Yield the requirements that a setting misses."""
        for each in self.aim.requirements:
            if not each.met(self.figures[each.metric])[row]:
                yield str(each)

    @cached_property
    def rules_name(self) -> str:
        """What the rules are called; empty where no rules were chosen, or they have no name."""
        try:
            name = tomllib.loads(self.rules_text or "").get("name", "")
        except tomllib.TOMLDecodeError:
            return ""
        return name if isinstance(name, str) else ""


def is_study(path: Path) -> bool:
    """Tell whether a path is a folder that holds a study."""
    return path.is_dir() and (path / STUDY).is_file()


def read_study(path: Path) -> Told:
    """Return the study of a folder; InputError says why it can't be reported."""
    folder = Folder(path)
    said = folder.asked()
    if said is None:
        raise InputError(f"{path}: holds no study: there is no {STUDY}")
    if "solve" in said:
        raise InputError(
            f"{path}: was solved for a goal, and has no front to show; report the history under "
            "the rules in that folder: tocsin report READINGS --catalog FILE --rules FILE"
        )
    table = folder.settings()
    if "objectives" not in said or table is None or not table.num_rows:
        raise InputError(
            f"{path}: its study is at work, or was killed before anything was settled: the same "
            "`tocsin tune` goes on with it"
        )
    try:
        return _told(path, Said.model_validate(said), table)
    except (SettingsError, KeyError, ValueError) as error:
        raise InputError(f"{path}: {STUDY} and {SETTINGS} are not those of one study") from error


def _told(path: Path, said: Said, table: pa.Table) -> Told:
    import pyarrow as pa

    names: list[str] = table.column_names
    middle = names.index("digest")
    if (
        tuple(names[: len(_AHEAD)]) != _AHEAD
        or tuple(names[middle : middle + len(_BETWEEN)]) != _BETWEEN
    ):
        raise ValueError(names)
    parameters = names[len(_AHEAD) : middle]
    figures = {
        field.name: _numbers(table[field.name])
        for field in list(table.schema)[middle + len(_BETWEEN) :]
        if field.name not in _BEHIND
        and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    }
    aim = Aim.parse(said.objectives, said.requirements)
    if not set(aim.metrics()) <= set(figures):
        raise ValueError(aim)
    for row in (said.nearest, None if said.chosen is None else said.chosen.setting):
        if row is not None and not 0 <= row < table.num_rows:
            raise ValueError(row)
    return Told(
        folder=path,
        said=said,
        aim=aim,
        parameters=parameters,
        values=[_numbers(table[name]) for name in parameters],
        figures=figures,
        origin=table["origin"].to_pylist(),
        refused=table["refused"].to_pylist(),
        rules_text=None if said.chosen is None else _text(path / RULES),
    )


def _numbers(column: pa.ChunkedArray) -> Array:
    import pyarrow as pa

    numbers = column.cast(pa.float64()).combine_chunks().fill_null(float("nan"))
    found: Array = numbers.to_numpy(zero_copy_only=False)
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error

"""A study as its folder tells it: what was asked, what was tried, what came out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.objective import Aim, best_first, front
from engine.analysis.study_folder import RULES, SETTINGS, STUDY, Folder
from engine.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
_AHEAD = ("setting", "origin", "batch")
_BETWEEN = ("digest", "refused")
_BEHIND = ("feasible", "front", "chosen")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A number of the rules that the chosen setting makes another; None: it had none."""

    key: str
    old: float | None
    new: float
    unit: str
    why: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """A study that was read from its folder; the given rules are setting 0."""

    folder: Path
    said: dict[str, Any]
    """What study.json says."""
    aim: Aim
    parameters: list[str]
    values: list[Array]
    """Of each parameter, (N,) float64; NaN: as the rules have it"""
    figures: dict[str, Array]
    """Of each figure that is a number, (N,) float64; NaN where there is none"""
    origin: list[str]
    refused: list[str | None]
    chosen: int | None
    changes: list[Change]
    rules_text: str | None
    """The chosen rules as a file."""

    @property
    def n(self) -> int:
        """How many settings there are, refused ones too."""
        return len(self.origin)

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked: digests and options."""
        asked: dict[str, Any] = self.said["asked"]
        return asked

    @property
    def interrupted(self) -> bool:
        """Whether it was not all tried."""
        return bool(self.said["interrupted"])

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
        order: list[int] = best_first(self.costs, ~self.front).tolist()
        if self.chosen is not None:
            order.remove(self.chosen)
            order.insert(0, self.chosen)
        return order

    @property
    def best(self) -> int:
        """The chosen setting; where none was, the one that comes nearest."""
        return self.order[0]

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

    def reasons(self) -> list[tuple[int, str]]:
        """Return why settings were refused: how many of a key, and one whole reason."""
        return [(int(each["settings"]), str(each["reason"])) for each in self.said["refused"]]

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
            f"its rules: tocsin report READINGS --catalog FILE --rules {path / RULES}"
        )
    table = folder.settings()
    if "objectives" not in said or table is None or not table.num_rows:
        raise InputError(
            f"{path}: its study is at work, or was killed before anything was settled: the same "
            "`tocsin tune` goes on with it"
        )
    try:
        return _told(path, said, table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {STUDY} and {SETTINGS} are not those of one study") from error


def _told(path: Path, said: dict[str, Any], table: pa.Table) -> Told:
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
    aim = Aim.parse(map(str, said["objectives"]), map(str, said["requirements"]))
    if not aim.objectives or not set(aim.metrics()) <= set(figures):
        raise ValueError(aim)
    for key in ("asked", "search", "refused", "interrupted", "choose", "settings"):
        said[key]
    chosen = said["chosen"]
    row = None if chosen is None else int(chosen["setting"])
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
        chosen=row,
        changes=[] if chosen is None else [_change(each) for each in chosen["changes"]],
        rules_text=_text(path / RULES) if chosen is not None else None,
    )


def _numbers(column: pa.ChunkedArray) -> Array:
    import pyarrow as pa

    numbers = column.cast(pa.float64()).combine_chunks().fill_null(float("nan"))
    found: Array = numbers.to_numpy(zero_copy_only=False)
    return found


def _change(each: dict[str, Any]) -> Change:
    old = each["old"]
    return Change(
        key=str(each["key"]),
        old=None if old is None else float(old),
        new=float(each["new"]),
        unit=str(each["unit"]),
        why=str(each["why"]),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error

"""The one tree of errors that Tocsin raises, and the fault that an error lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with an input: where it is, what stands there, and what is wrong with it.

    `row` counts data rows from 1, `line` lines of a text file from 1; a fault carries at most one.
    `key` is a column of a table or the dotted path of a key. `kind` groups faults of the same sort.
    """

    problem: str
    kind: str = "fault"
    file: str | None = None
    row: int | None = None
    line: int | None = None
    key: str | None = None
    value: Any = None

    def __str__(self) -> str:
        """Return `file: row 7: column: problem, got value`, leaving out what is not known."""
        places = [self.file] if self.file else []
        if self.row is not None:
            places.append(f"row {self.row}")
        if self.line is not None:
            places.append(f"line {self.line}")
        if self.key:
            places.append(self.key)
        text = ": ".join([*places, self.problem])
        return text if self.value is None else f"{text}, got {_shown(self.value)}"

    def as_dict(self) -> dict[str, Any]:
        """Return what is known as plain JSON values."""
        fields = {
            "kind": self.kind,
            "file": self.file,
            "row": self.row,
            "line": self.line,
            "key": self.key,
            "value": None if self.value is None else _shown(self.value),
            "problem": self.problem,
        }
        return {name: value for name, value in fields.items() if value is not None}


def _shown(value: Any, limit: int = 120) -> str:
    # repr keeps a message on one line whatever the input holds: control characters are escaped
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class TocsinError(Exception):
    """Base of every error that the user can act on; the command line prints it and exits with 3.

    `problem` says in one line what failed; `faults` lists every single thing found in one run.
    """

    def __init__(self, problem: str, *, faults: Iterable[Fault] = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.faults: tuple[Fault, ...] = tuple(faults)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the problem, then each fault, one line each."""
        yield self.problem
        for fault in self.faults:
            yield str(fault)


class InputError(TocsinError):
    """A file or a row that can't be used: missing, truncated, of another schema, out of range."""


class CatalogError(InputError):
    """A catalog folder with faults, or a compiled catalog that can't be opened."""


class RulesError(InputError):
    """A rules file with faults, or rules that don't fit the catalog."""


class SettingsError(InputError):
    """Settings that can't be used: unknown, out of bounds, unsafe, or not fitting each other."""


class AdapterError(InputError):
    """An adapter file with faults, or one that doesn't fit the readings."""


class ReadingsError(InputError):
    """Readings that can't be read: missing, truncated, of another schema."""


class CommandError(InputError):
    """An operator command that says nothing that can be done."""


class SnapshotError(InputError):
    """A snapshot that can't be restored: damaged, of another catalog, rules, or format."""


class DamagedSnapshotError(SnapshotError):
    """A snapshot that is torn or altered, or no snapshot at all."""


class ForeignSnapshotError(SnapshotError):
    """A whole snapshot of another catalog, other rules or another partition."""


class OutputError(TocsinError):
    """A result that can't be written."""

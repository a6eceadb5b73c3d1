"""Collect every fault of an input in one run; name the first of a kind, count the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.errors import Fault, TocsinError

MAX_SHOWN = 100


class FaultLog:
    """The faults of one run, in the order in which they are found."""

    def __init__(self, max_shown: int = MAX_SHOWN) -> None:
        self._max_shown = max_shown
        self._shown: dict[tuple[str | None, str], list[Fault]] = {}
        self._count: Counter[tuple[str | None, str]] = Counter()

    def __len__(self) -> int:
        return self._count.total()

    def add(self, fault: Fault) -> None:
        """Note one fault."""
        group = (fault.file, fault.kind)
        shown = self._shown.setdefault(group, [])
        self._count[group] += 1
        if len(shown) < self._max_shown:
            shown.append(fault)

    def add_rows(
        self,
        *,
        kind: str,
        file: str,
        key: str,
        rows: np.ndarray,
        numbers: np.ndarray,
        values: Sequence[Any] | Any,
        problem: str | Callable[[int, Any], str],
    ) -> None:
        """Note a fault for each of `rows` (0-based); `numbers` says how people count them.

        `problem` is the text, or makes it of the row and its value.
        """
        group = (file, kind)
        shown = self._shown.setdefault(group, [])
        self._count[group] += len(rows)
        for row in rows[: self._max_shown - len(shown)].tolist():
            value = values[row]
            value = value.as_py() if hasattr(value, "as_py") else value
            value = value.item() if isinstance(value, np.generic) else value
            text = problem if isinstance(problem, str) else problem(row, value)
            shown.append(
                Fault(
                    kind=kind, file=file, row=int(numbers[row]), key=key, value=value, problem=text
                )
            )

    def faults(self) -> list[Fault]:
        """Return the faults that are shown, and after each kind how many more there are."""
        listed: list[Fault] = []
        for group, shown in self._shown.items():
            listed += sorted(shown, key=lambda fault: fault.row or 0)
            more = self._count[group] - len(shown)
            if more:
                file, kind = group
                listed.append(Fault(kind=kind, file=file, problem=f"{more:,} more: {kind}"))
        return listed

    def raise_if_any(self, error: type[TocsinError], what: str) -> None:
        """Raise `error` with every fault when there is one."""
        if len(self):
            n_faults = len(self)
            count = f"{n_faults:,} fault{'' if n_faults == 1 else 's'}"
            raise error(f"{what}: {count}", faults=self.faults())

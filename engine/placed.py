"""Alerts in their places in the log of a partition, before and after their records are written.

A place is the offset of the message that caused an alert and the alert's number among those of that
message. To write a record costs a third when many are written at once, so what the line finds may
wait until somebody wants the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.alerts import AlertRecords

Array = np.ndarray[Any, Any]

Place = tuple[int, int]
"""(offset, number within the message): what orders the alerts of a partition."""


class Alert(NamedTuple):
    """An alert record in its place in the log."""

    offset: int
    number: int
    key: bytes
    """The source's id."""
    record: bytes

    @property
    def place(self) -> Place:
        """Return where it stands."""
        return self.offset, self.number


@dataclass(slots=True)
class Told:
    """Alerts whose records are written, in their order."""

    alerts: list[Alert]

    def __len__(self) -> int:
        """Count the alerts."""
        return len(self.alerts)

    @property
    def first(self) -> Place:
        """Return the place of the first one."""
        return self.alerts[0].place

    @property
    def last(self) -> Place:
        """Return the place of the last one."""
        return self.alerts[-1].place

    def after(self, place: Place) -> Told:
        """Return those that stand behind a place."""
        return Told([alert for alert in self.alerts if alert.place > place])


@dataclass(slots=True)
class Untold:
    """Transitions in their places, (T,) each; `writer` will write their records."""

    writer: AlertRecords
    transitions: Array
    offset: Array
    number: Array

    def __len__(self) -> int:
        """Count the alerts."""
        return len(self.transitions)

    @property
    def first(self) -> Place:
        """Return the place of the first one."""
        return int(self.offset[0]), int(self.number[0])

    @property
    def last(self) -> Place:
        """Return the place of the last one."""
        return int(self.offset[-1]), int(self.number[-1])

    def after(self, place: Place) -> Untold:
        """Return those that stand behind a place."""
        offset, number = place
        later = (self.offset > offset) | ((self.offset == offset) & (self.number > number))
        return Untold(self.writer, self.transitions[later], self.offset[later], self.number[later])


def written(parts: Sequence[Told | Untold]) -> list[list[Alert]]:
    """Return the alerts of each part; those of one writer are written together."""
    groups: dict[int, list[Untold]] = {}
    for part in parts:
        if isinstance(part, Untold):
            groups.setdefault(id(part.writer), []).append(part)
    records = {}
    for group in groups.values():
        transitions = np.concatenate([part.transitions for part in group])
        records[id(group[0].writer)] = zip(*group[0].writer.write(transitions), strict=True)
    return [
        part.alerts
        if isinstance(part, Told)
        else [
            Alert(offset, number, key, record)
            for offset, number, (key, record) in zip(
                part.offset.tolist(), part.number.tolist(), records[id(part.writer)], strict=False
            )
        ]
        for part in parts
    ]

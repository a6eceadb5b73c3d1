"""Alerts written together are those written one by one, and a place cuts them anywhere."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.alerts import AlertRecords
from engine.placed import Alert, Told, Untold, written
from tests.engine.test_alerts import PLANS, random_transitions

WRITERS = [AlertRecords(plan) for plan in PLANS]


def part_of(random: Random, n: int) -> Told | Untold:
    offset = np.sort([random.randrange(6) for _ in range(n)])
    number = np.arange(n) - np.searchsorted(offset, offset)
    which = random.randrange(len(PLANS))
    transitions = random_transitions(random, PLANS[which], n)
    untold = Untold(WRITERS[which], transitions, offset, number)
    return Told(alone(untold)) if random.random() < 0.3 else untold


def alone(part: Told | Untold) -> list[Alert]:
    """Return the alerts of a part, each record written by itself."""
    if isinstance(part, Told):
        return part.alerts
    alerts = []
    for i in range(len(part)):
        ((key,), (record,)) = part.writer.write(part.transitions[i : i + 1])
        alerts.append(Alert(int(part.offset[i]), int(part.number[i]), key, record))
    return alerts


@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), max_size=8))
def test_parts_written_together_are_what_each_alert_is_alone(seed: int, sizes: list[int]) -> None:
    random = Random(seed)
    parts = [part_of(random, n) for n in sizes]
    assert written(parts) == [alone(part) for part in parts]


@given(st.integers(0, 2**32), st.integers(1, 12), st.tuples(st.integers(-1, 7), st.integers(-1, 4)))
def test_after_a_place_is_what_stands_behind_it(seed: int, n: int, place: tuple[int, int]) -> None:
    part = part_of(Random(seed), n)
    assert part.first == alone(part)[0].place
    assert part.last == alone(part)[-1].place
    (after,) = written([part.after(place)])
    assert after == [alert for alert in alone(part) if alert.place > place]

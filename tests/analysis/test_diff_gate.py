"""Conditions on which a change of rules fails in CI."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analysis.diffs.diff import Against, Diff
from engine.analysis.diffs.gate import NAMES, Gate, parse_gates
from engine.catalog import Catalog
from engine.truth import Incident, score
from tests.analysis.test_diff import catalog, compared, steps_of

__all__ = ["catalog"]

OLD = steps_of((0, 100, 1), (0, 200, 3), (0, 400, 0), (1, 500, 1), (1, 600, 0))
NEW = steps_of((0, 130, 1), (0, 290, 2), (0, 400, 0), (2, 700, 2), (2, 710, 0))


def met(diff: Diff, text: str) -> list[bool]:
    return [gate.met(diff) is not None for gate in parse_gates(text)]


def test_each_condition_looks_at_its_own_kind_of_difference(catalog: Catalog) -> None:
    there, back = compared(catalog, OLD, NEW), compared(catalog, NEW, OLD)
    assert met(there, "any,missed,new,later,earlier,lower,higher,shorter,longer,more,fewer") == [
        True, True, True, True, False, True, False, True, False, False, False,
    ]  # fmt: skip
    assert met(back, "any,missed,new,later,earlier,lower,higher,shorter,longer,more,fewer") == [
        True, True, True, False, True, False, True, False, True, False, False,
    ]  # fmt: skip


def test_nothing_is_met_where_nothing_differs(catalog: Catalog) -> None:
    same = compared(catalog, OLD, OLD)
    texts = [name for name in NAMES if name not in ("lost", "found-later", "false")]
    assert not any(met(same, ",".join(texts)))


def test_a_time_is_what_an_episode_may_be_later_by(catalog: Catalog) -> None:
    there = compared(catalog, OLD, NEW)
    assert met(there, "later:29ms,later:30ms,later:0.029s,later:80ms:yellow,later:90ms:yellow") == [
        True, False, True, True, False,
    ]  # fmt: skip
    assert met(there, "shorter:29ms,shorter:30ms") == [True, False]


def test_a_level_counts_an_episode_that_no_longer_comes_to_it(catalog: Catalog) -> None:
    there = compared(catalog, OLD, NEW)
    assert met(there, "missed:orange,missed:red,new:yellow,new:orange") == [
        True, False, True, False,
    ]  # fmt: skip
    (gate,) = parse_gates("missed:orange")
    assert "source" not in (gate.met(there) or "") and "@100" in (gate.met(there) or "")


def test_more_alerts_are_refused_by_number_or_by_share(catalog: Catalog) -> None:
    fewer = compared(catalog, OLD, steps_of((0, 100, 1), (0, 200, 0)))
    assert met(fewer, "fewer:2,fewer:3,fewer:59%,fewer:60%,more") == [
        True, False, True, False, False,
    ]  # fmt: skip
    none = compared(catalog, OLD[:0], OLD)
    assert met(none, "more:1000%,more:4,more:5") == [True, True, False]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mised", "no such condition (did you mean missed?)"),
        ("later:soon", "later takes a time such as 30s, 5min or 2h or a level"),
        ("any:3", "any takes nothing after the colon"),
        ("more:5s", "more takes a number or a per cent after the colon"),
        ("false:5%", "false takes a number after the colon"),
        ("missed:purple", "missed takes a level (blue, yellow, orange, red)"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_would_be(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_gates(f"any, {text}")
    assert problem in str(raised.value) and text in str(raised.value)


def test_times_are_read_with_their_units() -> None:
    amounts = [gate.amount for gate in parse_gates("later:30, later:30s ,later:2min,later:1.5h")]
    assert amounts == [30_000, 30_000, 120_000, 5_400_000]
    assert parse_gates("more:10%") == [Gate("more:10%", "more", 10.0, 1, True)]
    assert parse_gates("later:5s:red")[0].level == 4 and parse_gates(" ,") == []


def with_truth(found: Diff, old: int | None, new: int | None) -> Diff:
    """Give a difference a truth of one incident at 0, found at the times given."""
    incident = Incident(source="a", start_ms=0, end_ms=90, kind="leak")
    sides = []
    for at in (old, new):
        alerts = [] if at is None else [{"source": "a", "event_ms": at, "level": "blue"}]
        sides.append(score(alerts, [incident], since_ms=0, until_ms=100))
    return Diff(**{**vars(found), "against": Against(old=sides[0], new=sides[1])})


def test_a_truth_has_conditions_of_its_own(catalog: Catalog) -> None:
    plain = compared(catalog, OLD, OLD)
    texts = "lost,found-later,found-later:10ms,false"
    assert met(plain, texts) == [False] * 4
    assert met(with_truth(plain, 10, None), texts) == [True, False, False, False]
    assert met(with_truth(plain, 10, 20), texts) == [False, True, False, False]
    assert met(with_truth(plain, 10, 21), texts) == [False, True, True, False]
    assert met(with_truth(plain, None, 21), texts) == [False] * 4
    assert met(with_truth(plain, 10, 95), texts) == [True, False, False, True]
    assert [gate.needs_truth for gate in parse_gates(texts + ",any")] == [True] * 4 + [False]
    assert np.all(OLD["setting"] == 0)

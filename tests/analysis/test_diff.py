"""Two rule sets over one history, held against a slow truth and against themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.diffs.diff import CHANGES, GONE, MERGED, NEW, SAME, SPLIT, Diff, compare, diff
from engine.analysis.diffs.episodes import by_source, episodes_of, groups_of
from engine.analysis.past import Past, judge
from engine.catalog import Catalog
from engine.rules import Rules
from engine.truth import Incident
from kernels.layout import CLEAR, DE_ESCALATE, ESCALATE, LEVEL_NAMES, RAISE, STEP
from tests.engine.replays import RULES, city, one_file

END_MS = 1000


def steps_of(*moves: tuple[int, int, int]) -> np.ndarray:
    """Return STEPs of (source, time, level) in the order given; a level that stays is no step."""
    steps, levels = [], dict[int, int]()
    for at, (source, event_ms, level) in enumerate(moves):
        before = levels.get(source, 0)
        if level == before:
            continue
        kind = RAISE if before == 0 else CLEAR if level == 0 else ESCALATE
        step = np.zeros(1, STEP)
        step["source"], step["event_ms"], step["position"] = source, event_ms, at
        step["level_from"], step["level"] = before, level
        step["kind"] = DE_ESCALATE if 0 < level < before else kind
        steps.append(step)
        levels[source] = level
    return np.concatenate([np.zeros(0, STEP), *steps])


@st.composite
def some_steps(draw: Any) -> np.ndarray:
    """Draw steps of three sources; their times never go backward, and some are equal."""
    moves, now_ms = [], [0, 0, 0]
    for source, ahead_ms, level in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 4)), max_size=24)
    ):
        now_ms[source] += ahead_ms
        moves.append((source, now_ms[source], level))
    return steps_of(*moves)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.open(city(tmp_path_factory.mktemp("city")).catalog)


def compared(catalog: Catalog, old: np.ndarray, new: np.ndarray) -> Diff:
    rules = Rules.parse(RULES)
    return compare(catalog, (rules, rules), (old, new), first_ms=0, last_ms=END_MS, n_readings=1)


# --- episodes ------------------------------------------------------------------------------------


def slow_episodes(steps: np.ndarray) -> list[dict[str, Any]]:
    """Walk every source moment by moment."""
    found = []
    for source in range(3):
        mine = steps[steps["source"] == source]
        at: dict[str, Any] | None = None
        newest_id = -1
        for number, step in enumerate(mine):
            when, level = int(step["event_ms"]), int(step["level"])
            if at is None:
                newest_id = max(when, newest_id + 1)
                at = {"source": source, "start": when, "id": newest_id, "times": [0] * 4}
                at |= {"peak": 0, "first": [-1] * 4}
                found.append(at)
            at["peak"] = max(at["peak"], level)
            for k in range(level):
                at["first"][k] = when if at["first"][k] < 0 else at["first"][k]
            until = int(mine[number + 1]["event_ms"]) if number + 1 < len(mine) else END_MS
            if level:
                at["times"][level - 1] += until - when
                at |= {"end": until, "running": number + 1 == len(mine)}
            else:
                at = None
    return found


@settings(max_examples=200, deadline=None)
@given(some_steps())
def test_episodes_are_what_a_walk_through_each_source_finds(steps: np.ndarray) -> None:
    found = episodes_of(by_source(steps), END_MS)
    assert [
        {
            "source": int(e["source"]),
            "start": int(e["start_ms"]),
            "id": int(e["id_ms"]),
            "times": e["at_ms"].tolist(),
            "peak": int(e["peak"]),
            "first": e["first_ms"].tolist(),
            "end": int(e["end_ms"]),
            "running": bool(e["running"]),
        }
        for e in found
    ] == slow_episodes(steps)


def test_ids_of_episodes_are_those_of_the_alerts(tmp_path: Path) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=3000))
    judged = judge(past, Rules.parse(RULES))
    found = episodes_of(by_source(judged.steps), judged.last_ms or 0)
    ids = past.catalog.source_id
    named = {f"{ids[int(e['source'])].as_py()}@{int(e['id_ms'])}" for e in found}
    assert named == {alert["alert_id"] for alert in judged.alerts}


# --- groups --------------------------------------------------------------------------------------


def slow_groups(old: np.ndarray, new: np.ndarray) -> set[frozenset[tuple[str, int]]]:
    """Join what meets, pair by pair."""
    every = [("old", n, e) for n, e in enumerate(old)] + [("new", n, e) for n, e in enumerate(new)]
    groups = [{(side, n)} for side, n, _ in every]
    for i, (_, _, a) in enumerate(every):
        for j, (_, _, b) in enumerate(every[:i]):
            ends = (max(int(e["end_ms"]), int(e["start_ms"]) + 1) for e in (a, b))
            a_end, b_end = ends
            if a["source"] == b["source"] and a["start_ms"] < b_end and b["start_ms"] < a_end:
                one, other = groups[i], groups[j]
                if one is not other:
                    one |= other
                    groups = [one if g is other else g for g in groups]
    return {frozenset(group) for group in groups}


@settings(max_examples=200, deadline=None)
@given(some_steps(), some_steps())
def test_groups_are_what_is_joined_by_sharing_a_moment(a: np.ndarray, b: np.ndarray) -> None:
    a, b = by_source(a), by_source(b)
    old, new = episodes_of(a, END_MS), episodes_of(b, END_MS)
    found = {
        frozenset(
            [("old", int(g["old"]) + n) for n in range(g["n_old"])]
            + [("new", int(g["new"]) + n) for n in range(g["n_new"])]
        )
        for g in groups_of(old, new, a, b)
    }
    assert found == slow_groups(old, new)


MIRROR = {GONE: NEW, NEW: GONE, SPLIT: MERGED, MERGED: SPLIT}
TURNED = {"later": "earlier", "higher": "lower", "longer": "shorter"}
TURNED |= {b: a for a, b in TURNED.items()}


def turned(how: str) -> str:
    return " ".join(TURNED.get(word, word) for word in how.split(" "))


@settings(max_examples=200, deadline=None)
@given(a=some_steps(), b=some_steps())
def test_the_other_way_round_is_the_mirror_image(
    catalog: Catalog, a: np.ndarray, b: np.ndarray
) -> None:
    there, back = compared(catalog, a, b), compared(catalog, b, a)
    assert len(there.groups) == len(back.groups)
    for one, other in zip(there.groups, back.groups, strict=True):
        assert other.change == MIRROR.get(one.change, one.change)
        assert (other.old, other.new) == (one.new, one.old)
        assert [turned(how) for how in one.how()] == list(other.how())
        assert one.longer_ms == -other.longer_ms
        for level in range(1, 5):
            shift = one.later_ms(level)
            assert other.later_ms(level) == (None if shift is None else -shift)
    mirrored = sorted((c.of, c.name, c.new, c.old) for c in there.counts())
    assert mirrored == sorted((c.of, c.name, c.old, c.new) for c in back.counts())


@settings(max_examples=100, deadline=None)
@given(a=some_steps())
def test_a_rule_set_against_itself_differs_in_nothing(catalog: Catalog, a: np.ndarray) -> None:
    found = compared(catalog, a, a)
    assert found.differing == [] and found.keys == [] and found.n_other_scores == 0
    assert sum(found.by_change.values()) == found.by_change[SAME] == len(found.groups)
    assert all(count.old == count.new for count in found.counts())


@settings(max_examples=200, deadline=None)
@given(a=some_steps(), b=some_steps())
def test_what_counts_as_the_same_is_the_same_level_at_every_moment(
    catalog: Catalog, a: np.ndarray, b: np.ndarray
) -> None:
    same = all(
        [(s["event_ms"], s["level"]) for s in a[a["source"] == source]]
        == [(s["event_ms"], s["level"]) for s in b[b["source"] == source]]
        for source in range(3)
    )
    assert same == (not compared(catalog, a, b).differing)


@settings(max_examples=100, deadline=None)
@given(a=some_steps(), b=some_steps())
def test_every_group_stands_in_the_table(catalog: Catalog, a: np.ndarray, b: np.ndarray) -> None:
    found = compared(catalog, a, b)
    table = found.table()
    assert table["change"].to_pylist() == [group.change for group in found.groups]
    assert set(table["change"].to_pylist()) <= set(CHANGES)
    assert sum(table["old_n"].to_pylist()) == len(found.old)
    assert sum(table["new_n"].to_pylist()) == len(found.new)
    above = sum(s or 0 for s in table["new_s"].to_pylist())
    assert above == pytest.approx(found.new["at_ms"].sum() / 1000)


# --- single cases --------------------------------------------------------------------------------

#            0    100   200   300   400   500
#   old      .    bbbbbbbbbbbbbbbbbbbbbbb.
#   new      .    .     bbbbb.     yyyyy.


def test_an_episode_that_becomes_two_is_split_and_later(catalog: Catalog) -> None:
    old = steps_of((0, 100, 1), (0, 500, 0))
    new = steps_of((0, 200, 1), (0, 300, 0), (0, 400, 2), (0, 500, 0))
    (group,) = compared(catalog, old, new).groups
    assert group.change == SPLIT and group.old is not None and group.new is not None
    assert (group.old.n, group.new.n) == (1, 2)
    assert (group.later_ms(), group.later_ms(2), group.longer_ms) == (100, None, -200)
    assert list(group.how()) == ["later", "higher", "shorter"]


def test_episodes_that_only_touch_are_not_about_the_same_thing(catalog: Catalog) -> None:
    old = steps_of((0, 100, 1), (0, 200, 0))
    new = steps_of((0, 200, 1), (0, 300, 0))
    assert [g.change for g in compared(catalog, old, new).groups] == [GONE, NEW]


def test_an_episode_that_runs_on_meets_what_comes_later(catalog: Catalog) -> None:
    old, new = steps_of((0, 100, 1)), steps_of((0, 900, 1), (0, 950, 0))
    (group,) = compared(catalog, old, new).groups
    assert group.change == "changed" and group.old is not None and group.old.running
    assert group.later_ms() == 800


def test_other_scores_alone_are_counted_but_are_no_difference(catalog: Catalog) -> None:
    old = steps_of((0, 100, 1), (0, 200, 0))
    new = old.copy()
    new["score"] += 1
    found = compared(catalog, old, new)
    assert found.differing == [] and found.n_other_scores == 1


# --- over real histories -------------------------------------------------------------------------


def test_a_history_is_judged_under_both(tmp_path: Path) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=3000))
    old = Rules.parse(RULES)
    new = Rules.parse(RULES.replace("red = 50", "red = 70"))
    found = diff(past, old, new)
    assert [str(each) for each in found.keys] == ["profiles.methane.limits.high.red  50 → 70"]
    for steps, rules in ((found.old_steps, old), (found.new_steps, new)):
        expected = by_source(judge(past, rules).steps)
        for name in ("event_ms", "source", "level", "position"):
            assert steps[name].tolist() == expected[name].tolist()
    assert found.differing
    assert found.n_readings == 3000 and found.first_ms is not None


def test_a_truth_tells_what_is_lost(tmp_path: Path) -> None:
    of = city(tmp_path)
    past = Past.open(of.catalog, one_file(tmp_path, n=3000))
    old = Rules.parse(RULES)
    alerts = judge(past, old).alerts
    first = next(a for a in alerts if a["source"] == "well-1" and a["transition"] == "raise")
    start_ms = first["event_ms"] - 5000
    incident = Incident(source="well-1", start_ms=start_ms, end_ms=start_ms + 20_000, kind="leak")
    deaf = RULES.replace("high = { blue = 10, yellow = 20, orange = 30, red = 50 }", "high = {}")
    deaf = deaf.replace("high = { yellow = 40, red = 60 }", "high = {}")
    found = diff(past, old, Rules.parse(deaf), truth=[incident])
    assert found.against is not None
    (verdict,) = found.against.verdicts
    assert (verdict.change, verdict.old_ms, verdict.new_ms) == ("lost", 5000, None)
    assert found.verdicts_table()["change"].to_pylist() == ["lost"]
    assert found.as_dict()["truth"]["incidents"][0]["new_delay_s"] is None


def test_a_history_without_readings_differs_in_nothing(tmp_path: Path) -> None:
    of = city(tmp_path)
    path = tmp_path / "nothing.csv"
    path.write_text("sensor,ts,value\n")
    found = diff(Past.open(of.catalog, path), Rules.parse(RULES), Rules.parse(RULES))
    assert found.differing == [] and found.n_readings == 0
    assert found.table().num_rows == 0 and found.counts_table().num_rows > 0
    assert LEVEL_NAMES[1] in found.counts_table()["name"].to_pylist()

"""A trace against the line itself, stopped after every single record of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.past import Log, Past, judge
from engine.analysis.strips import MOMENT, TRACED, Stretch, trace, trace_stretches
from engine.pipeline import Pipeline
from engine.plan import Plan, compile_plan
from engine.readings import Readings
from engine.rules import Rules
from engine.rules_check import load
from kernels.layout import COUNT_NAMES, LATE
from tests.engine.replays import BEGIN_MS, RULES, city, one_file

MINUTE_MS = 60_000
LATCHING = RULES.replace("off_delay_s = 10", "off_delay_s = 10\non_delay_s = 3\nlatch = true")
CONTEXT = """
[[context]]
name = "storm"
from = 2024-05-01T00:01:00Z
to = 2024-05-01T00:03:00Z
factor = 1.5
"""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Return a history of the small city."""
    folder = tmp_path_factory.mktemp("traced")
    made = city(folder)
    return Past.open(made.catalog, one_file(folder))


def rules_of(folder: Path, text: str) -> Rules:
    """Return rules from their text."""
    path = folder / "traced.toml"
    path.write_text(text)
    return load(path)


_STEPPED: dict[str, Any] = {}


def stepped(past: Past, plan: Plan) -> Any:
    """Return `step_by_step`, once for each plan."""
    return _STEPPED.get(plan.digest) or _STEPPED.setdefault(plan.digest, step_by_step(past, plan))


def step_by_step(past: Past, plan: Plan) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return (readings, judgements), from the whole line given one record after the other."""
    line = Pipeline(plan)
    readings, moments = [], []
    position = 0
    for batch in Log(past, plan):
        for at in range(len(batch)):
            record = batch.cut(at, at + 1)
            before = line.count_array
            line.judge(Readings(*(np.array(getattr(record, n)) for n in record.__slots__)))
            rose = line.count_array - before
            rose[LATE] = 0
            sensor = int(record.sensor[0])
            state = line.state
            if sensor >= 0:
                row = plan.params[plan.row[sensor]]
                readings.append(
                    (
                        sensor,
                        position,
                        int(record.event_ms[0]),
                        float(record.value[0]) * float(row["scale"]) + float(row["offset"]),
                        int(state.cold["levels"][sensor]),
                        int(state.hot["latched"][sensor]),
                        int(rose.argmax()),
                    )
                )
            for source, of in enumerate(state.source):
                now = (of["last_ms"], of["score"], of["level"], of["shown"])
                moments.append((source, position, *now))
            position += 1
    return readings, moments


@pytest.mark.parametrize("text", [RULES, LATCHING, RULES + CONTEXT])
@pytest.mark.parametrize("chosen", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_trace_is_what_the_line_shows_when_it_is_stopped_after_every_record(
    past: Past, tmp_path: Path, text: str, chosen: tuple[int, ...]
) -> None:
    rules = rules_of(tmp_path, text)
    plan = compile_plan(past.catalog, rules)
    readings, moments = stepped(past, plan)
    since_ms, until_ms = BEGIN_MS + MINUTE_MS, BEGIN_MS + 6 * MINUTE_MS
    traced = trace(past, rules, chosen, since_ms, until_ms)
    for source in chosen:
        of = traced.of(source, since_ms, until_ms)
        for each in of.sensors:
            expected = [
                row[1:]
                for row in readings
                if row[0] == each.sensor and since_ms <= row[2] <= until_ms
            ]
            same(each.readings, np.array(expected, TRACED))
            assert len(expected) > 20
        same_steps(of.moments, moments, source, since_ms, until_ms)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare records field by field, NaN like NaN."""
    for name in expected.dtype.names or ():
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def same_steps(
    found: np.ndarray, moments: list[tuple[Any, ...]], source: int, since_ms: int, until_ms: int
) -> None:
    """Every judgement that could be seen between two records was noted, and what is, was."""
    seen: list[tuple[Any, ...]] = []
    for of, position, *now in moments:
        if of == source and (not seen or list(seen[-1][1:]) != now):
            seen.append((position, *now))
    expected = np.array(seen, MOMENT)
    inside = expected[(expected["event_ms"] >= since_ms) & (expected["event_ms"] <= until_ms)]
    known = {tuple(m)[1:] for m in found.tolist()}
    assert {tuple(m)[1:] for m in inside.tolist()} <= known
    # at the start of the stretch, what stood then
    earlier = expected[expected["event_ms"] < since_ms]
    if len(earlier):
        assert tuple(found[0])[1:] == tuple(earlier[-1])[1:]


def test_a_trace_has_the_transitions_of_the_whole_line(past: Past, tmp_path: Path) -> None:
    rules = rules_of(tmp_path, RULES)
    judged = judge(past, rules)
    assert judged.first_ms is not None and judged.last_ms is not None
    traced = trace(past, rules, [0, 2], judged.first_ms, judged.last_ms)
    for source in (0, 2):
        expected = judged.transitions[judged.transitions["source"] == source]
        assert len(expected)
        same(traced.transitions[source], expected)


@settings(max_examples=15)
@given(
    ends=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(0, 200)),
        min_size=1,
        max_size=4,
    )
)
def test_stretches_traced_together_are_those_traced_alone(
    past: Past, tmp_path_factory: pytest.TempPathFactory, ends: list[tuple[int, int, int]]
) -> None:
    rules = rules_of(tmp_path_factory.getbasetemp(), RULES)
    stretches = [
        Stretch(source, BEGIN_MS + 1000 * start, BEGIN_MS + 1000 * (start + length))
        for source, start, length in ends
    ]
    together = trace_stretches(past, rules, stretches)
    for stretch in stretches:
        alone = trace_stretches(past, rules, [stretch]).of(*stretch)
        beside = together.of(*stretch)
        for a, b in zip(alone.sensors, beside.sensors, strict=True):
            same(b.readings, a.readings)
            same(b.changes, a.changes)
            assert a.before == b.before
        assert {tuple(m)[1:] for m in alone.moments.tolist()} <= {
            tuple(m)[1:] for m in together.moments[stretch.source].tolist()
        }


def test_a_trace_of_a_source_that_is_not_there_is_refused(past: Past, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="index of the catalog"):
        trace(past, rules_of(tmp_path, RULES), [99], 0, 1)


def test_a_trace_of_no_source_reads_nothing(past: Past, tmp_path: Path) -> None:
    traced = trace(past, rules_of(tmp_path, RULES), [], 0, 1)
    assert traced.readings == {} and traced.transitions == {}


def test_every_fate_of_a_reading_is_told(past: Past, tmp_path: Path) -> None:
    rules = rules_of(tmp_path, RULES)
    judged = judge(past, rules)
    assert judged.first_ms is not None and judged.last_ms is not None
    traced = trace(past, rules, [0, 1, 2], judged.first_ms, judged.last_ms + MINUTE_MS)
    fates = np.concatenate([each["fate"] for each in traced.readings.values()])
    found = {COUNT_NAMES[n]: int((fates == n).sum()) for n in set(fates.tolist())}
    known = {
        name: n
        for name, n in judged.counts.items()
        if n and name not in ("ticks", "late", "unknown_sensor")
    }
    assert found == known and len(known) > 3

"""Counts of one setting's steps against slow ones: alarms by source, and labelled incidents."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.bounds import Bounds
from engine.truth import LEVELS, Incident, score
from kernels import tally as compiled
from kernels.layout import LEVEL_NAMES, N_LEVELS
from kernels.tally import DAY_MS, MEASURE, MISSED, SEEN, TALLY, TOP_N, WATCH
from tests.analysis.alert_worlds import N_SOURCES, UNITS_MS, changes, times
from tests.analysis.slow_figures import Change, slow_episodes, slow_row, steps_of
from tests.kernel_line import uncompiled

tally_alerts, tally_truth = compiled.tally_alerts, compiled.tally_truth
if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    tally_alerts, tally_truth = uncompiled(tally_alerts), uncompiled(tally_truth)

BOUNDS = Bounds(chatter_n=2, stale_h=5.0)
OPERATOR = np.arange(N_SOURCES, dtype=np.int64) % 3


class Counted(NamedTuple):
    tally: np.ndarray
    keys: list[int]
    lasted_ms: list[int]
    stale_by_day: list[int]
    seen: np.ndarray
    touched: list[int]


class Scratch:
    """What calls share, as an engine would have them share it."""

    def __init__(self, n: int = 200) -> None:
        self.turn = 0
        self.arrays = (
            np.zeros(N_SOURCES, SEEN),
            np.full(n, -9),
            np.full(n, -9, np.int32),
            np.full(N_SOURCES, -9, np.int32),
        )

    def count(self, steps: np.ndarray, since_ms: int, until_ms: int) -> Counted:
        self.turn += 1
        how = (since_ms, until_ms, 600_000, 10, 5, 2, 60_000, round(BOUNDS.stale_h * 3_600_000))
        keys, lasted_ms = np.zeros(len(steps), np.int64), np.zeros(len(steps), np.int64)
        stale = np.zeros(-(-(until_ms - since_ms) // DAY_MS), np.int32)
        found = np.zeros(1, TALLY)
        n_touched, n_lasted = tally_alerts(
            steps, OPERATOR, np.array([how], MEASURE), self.turn, self.arrays,
            keys, lasted_ms, stale, found,
        )  # fmt: skip
        n_keys = int(found[0]["alarms"])
        return Counted(
            found[0].copy(),
            keys[:n_keys].tolist(),
            lasted_ms[:n_lasted].tolist(),
            stale.tolist(),
            self.arrays[0].copy(),
            self.arrays[3][:n_touched].tolist(),
        )


@given(st.data())
def test_counts_by_source_are_those_of_the_slow_way(data: st.DataObject) -> None:
    unit_ms = data.draw(st.sampled_from(UNITS_MS))
    scratch = Scratch()
    # a second setting starts afresh, whatever the first has left
    for _ in range(2):
        of: list[Change] = data.draw(changes(unit_ms))
        steps = steps_of(of, {source: 1 for source in data.draw(st.sets(st.integers(0, 4)))})
        since_ms, until_ms = data.draw(times(of, unit_ms))
        span_ms = until_ms - since_ms
        found = scratch.count(steps, since_ms, until_ms)
        names = [str(o) for o in OPERATOR]
        row = slow_row(steps, names, since_ms=since_ms, until_ms=until_ms, bounds=BOUNDS)
        t = found.tally
        assert (t["alarms"], t["episodes"]) == (row["alarms"], row["episodes"])
        assert t["by_level"].tolist() == [row[f"alarms_{level}"] for level in LEVELS]
        assert t["standing_before"] == row["standing_before"]
        assert t["standing_after"] == row["standing_after"]
        assert (t["chattering"], t["bouts"]) == (row["chattering"], row["chatter_bouts"])
        assert t["most"] == row["chatter_most"]
        assert t["stale"] == row["stale"]
        assert max(found.stale_by_day) == row["stale_worst_day"]
        assert sum(found.stale_by_day) / len(found.stale_by_day) == row["stale_per_day"]
        alarms = [
            step for step in steps if step["kind"] < 2 and since_ms <= step["event_ms"] < until_ms
        ]
        assert found.keys == [
            OPERATOR[step["source"]] * span_ms + step["event_ms"] - since_ms for step in alarms
        ]
        assert found.touched == list(dict.fromkeys(steps["source"].tolist()))
        load = [sum(step["source"] == s for step in alarms) for s in range(N_SOURCES)]
        assert [found.seen["alarms"][s] for s in found.touched] == [load[s] for s in found.touched]
        busiest = sorted((-n, s) for s, n in enumerate(load) if n)[:TOP_N]
        n_busiest = len(busiest)
        assert [-n for n, _ in busiest] == t["top_n"][:n_busiest].tolist()
        assert [s for _, s in busiest] == t["top_source"][:n_busiest].tolist()
        lasted = [
            min(until_ms if e.ended_ms is None else e.ended_ms, until_ms) - e.begun_ms
            for e in slow_episodes(steps, since_ms)
            if e.whole and since_ms <= e.begun_ms < until_ms
        ]
        assert sorted(found.lasted_ms) == sorted(lasted)


class Met(NamedTuple):
    delay_ms: np.ndarray
    peak: np.ndarray
    counts: np.ndarray


def met(
    steps: np.ndarray, incidents: list[Incident], lead_ms: int, grace_ms: int, *span: int
) -> Met:
    """Hold steps against incidents that are ordered by source and start."""
    source = np.array([int(each.source) for each in incidents], np.int64)
    start_ms = np.array([each.start_ms for each in incidents], np.int64)
    last_ms = np.array([each.end_ms + grace_ms for each in incidents], np.int64)
    over_ms = last_ms.copy()
    watch = np.zeros(N_SOURCES, WATCH)
    for s in range(N_SOURCES):
        first, last = np.searchsorted(source, [s, s + 1])
        watch[s]["first"] = watch[s]["over"] = watch[s]["begun"] = first
        watch[s]["last"] = last
        over_ms[first:last] = np.maximum.accumulate(last_ms[first:last])
    before = watch.copy()
    found = Met(
        np.full((len(incidents), N_LEVELS), MISSED, np.int64),
        np.zeros(len(incidents), np.uint8),
        np.zeros((N_LEVELS, 2), np.int64),
    )
    given_incidents = (start_ms, last_ms, over_ms, lead_ms, *span)
    tally_truth(steps, given_incidents, watch, np.zeros(N_SOURCES, np.int32), *found)
    before["begun_ms"] = watch["begun_ms"]
    assert (watch == before).all(), "the scratch is not as it was"
    return found


@given(st.data())
def test_incidents_fare_as_in_the_score_of_an_alert_log(data: st.DataObject) -> None:
    unit_ms = data.draw(st.sampled_from((1000, 150_000)))
    of: list[Change] = data.draw(changes(unit_ms))
    steps = steps_of(of)
    since_ms, until_ms = data.draw(times(of, unit_ms))
    first_ms = min((t for t, _, _ in of), default=since_ms)
    drawn = data.draw(
        st.lists(
            st.tuples(st.sampled_from([0, 0, 0, 2, 13]), st.integers(-3, 30), st.integers(0, 9)),
            max_size=6,
        )
    )
    incidents = [
        Incident(
            source=str(source),
            start_ms=first_ms + unit_ms * begin,
            end_ms=first_ms + unit_ms * (begin + length),
            kind="leak",
        )
        for source, begin, length in sorted(drawn)
    ]
    lead, grace = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    found = met(steps, incidents, lead * unit_ms, grace * unit_ms, since_ms, until_ms)
    log: list[dict[str, Any]] = [
        {
            "source": str(step["source"]),
            "event_ms": int(step["event_ms"]),
            "level": LEVEL_NAMES[step["level"]],
        }
        for step in steps
    ]
    inside = [i for i, each in enumerate(incidents) if since_ms <= each.start_ms < until_ms]
    for k, level in enumerate(LEVELS):
        one = score(
            log, incidents, since_ms=since_ms, until_ms=until_ms, level=level,
            lead_s=lead * unit_ms / 1000, grace_s=grace * unit_ms / 1000,
        )  # fmt: skip
        delays = [MISSED if d.delay_ms is None else d.delay_ms for d in one.detections]
        assert found.delay_ms[inside, k].tolist() == delays
        assert [LEVEL_NAMES[found.peak[i]] for i in inside] == [d.peak for d in one.detections]
        assert found.counts[k].tolist() == [len(one.episodes), len(one.false)]


def test_an_incident_that_begins_as_its_source_clears_has_found_it_there() -> None:
    steps = steps_of([(0, 0, 2), (10, 0, 0)])
    incident = Incident(source="0", start_ms=10, end_ms=20, kind="leak")
    assert met(steps, [incident], 10, 0, 0, 100).delay_ms.tolist() == [[0, 0, MISSED, MISSED]]
    assert (met(steps, [incident], 9, 0, 0, 100).delay_ms == MISSED).all()

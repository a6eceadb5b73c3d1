"""Alarm figures against a slow truth, and drawn by hand where the standards' words matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis import kpi
from engine.analysis.bounds import Bounds
from engine.analysis.figures import Figures
from engine.analysis.operators import WAYS, Operators
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.errors import InputError
from kernels.layout import STEP
from tests.analysis.alert_worlds import UNITS_MS, catalog_of, changes, many, times
from tests.analysis.slow_figures import Change, slow_floods, slow_peak, slow_row, steps_of

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
SMALL = Bounds(flood_starts_above=3, flood_ends_below=3, stale_h=5.0, chatter_n=2)
BOUNDS = st.sampled_from([Bounds(), SMALL, Bounds(flood_starts_above=4, flood_ends_below=5)])


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(tmp_path_factory.mktemp("kpi"))


def names_of(operators: Operators) -> list[str]:
    return [operators.names[o] for o in operators.of_source.tolist()]


def figures(catalog: Catalog, given: list[Change], until_ms: int, **how: Any) -> Figures:
    """Return the figures of changes whose times count from 0."""
    return kpi.of(steps_of(given), catalog, **({"since_ms": 0, "until_ms": until_ms} | how))


def pulses(*starts_s: float, source: int = 0, lasts_s: float = 1) -> list[Change]:
    """Return episodes of one source."""
    edges = [(s, 1) for s in starts_s] + [(s + lasts_s, 0) for s in starts_s]
    return [(round(1000 * t), source, level) for t, level in sorted(edges)]


@settings(max_examples=100)
@given(st.data())
def test_every_figure_is_that_of_the_slow_count(catalog: Catalog, data: st.DataObject) -> None:
    unit_ms = data.draw(st.sampled_from(UNITS_MS))
    given_changes = data.draw(changes(unit_ms))
    before = {source: 2 for source in data.draw(st.sets(st.integers(0, 5)))}
    steps = steps_of(given_changes, before)
    since_ms, until_ms = data.draw(times(given_changes, unit_ms))
    bounds, by = data.draw(BOUNDS), data.draw(st.sampled_from(WAYS))
    how: Any = {"since_ms": since_ms, "until_ms": until_ms, "bounds": bounds}
    found = kpi.of(steps, catalog, by=by, **how)
    operator_of = names_of(Operators.of(catalog, by))
    row = found.row()
    expected = slow_row(steps, operator_of, **how)
    assert {name: row[name] for name in expected} == expected
    assert sum(share.alarms for share in found.operators) == found.alarms
    for each in found.operators:
        own = [
            int(step["event_ms"])
            for step in steps
            if step["kind"] < 2
            and since_ms <= step["event_ms"] < until_ms
            and operator_of[step["source"]] == each.operator
        ]
        assert list(each.floods) == slow_floods(own, until_ms, bounds)
        assert (each.peak, each.peak_ms) == slow_peak(own)


@settings(max_examples=50)
@given(st.data())
def test_many_settings_have_the_figures_of_each(catalog: Catalog, data: st.DataObject) -> None:
    unit_ms = data.draw(st.sampled_from(UNITS_MS))
    tried, seen = data.draw(many(unit_ms))
    since_ms, until_ms = data.draw(times(seen, unit_ms))
    how: Any = {
        "since_ms": since_ms,
        "until_ms": until_ms,
        "by": data.draw(st.sampled_from(WAYS)),
        "bounds": data.draw(BOUNDS),
    }
    rows = kpi.of_many(tried, catalog, **how).to_pylist()
    for setting, row in enumerate(rows):
        single = kpi.of(tried.of(setting), catalog, **how)
        assert row == {"setting": setting, **single.row()}
        assert single.table().drop(["setting"]).to_pylist() == [single.row()]


def test_ten_alarms_in_ten_minutes_are_no_flood_and_eleven_are(catalog: Catalog) -> None:
    ten = pulses(*range(0, 600, 60))
    assert figures(catalog, ten, HOUR_MS).operators[0].floods == ()
    # the eleventh comes just within 10 min of the first
    eleven = pulses(*range(0, 600, 60), 599.999)
    (flood,) = figures(catalog, eleven, HOUR_MS).operators[0].floods
    # and it ends when only four are left: the seventh, of 6 min, leaves at 16 min
    assert flood == (599_999, 16 * MINUTE_MS)
    exactly = pulses(*range(0, 601, 60))
    assert figures(catalog, exactly, HOUR_MS).operators[0].floods == ()


def test_a_flood_that_goes_on_ends_with_the_time(catalog: Catalog) -> None:
    given = pulses(*range(0, 60, 5))
    operator = figures(catalog, given, 2 * MINUTE_MS).operators[0]
    assert operator.floods == ((50_000, 2 * MINUTE_MS),)
    assert operator.flood_share == 70 / 120


def test_a_flood_is_of_one_operator(catalog: Catalog) -> None:
    given = sorted(pulses(*range(0, 60, 10)) + pulses(*range(1, 61, 10), source=1))
    assert figures(catalog, given, HOUR_MS).row()["floods"] == 0
    assert figures(catalog, given, HOUR_MS, by="all").row()["floods"] == 1


def test_alarms_in_a_time_shorter_than_ten_minutes_are_not_extrapolated(catalog: Catalog) -> None:
    found = figures(catalog, pulses(0, 10), MINUTE_MS)
    assert found.operators[0].per_10min == 2
    assert found.operators[0].peak == 2


def test_three_whole_cycles_within_a_minute_chatter_and_two_and_a_half_do_not(
    catalog: Catalog,
) -> None:
    assert figures(catalog, pulses(0, 20, 40)[:-1], HOUR_MS).chattering == ()
    (found,) = figures(catalog, pulses(0, 20, 59), HOUR_MS).chattering
    assert (found.bouts, found.most_cycles) == (1, 3)
    assert figures(catalog, pulses(0, 20, 59.001), HOUR_MS).chattering == ()


def test_bouts_of_chattering_are_counted_and_the_worst_is_named_first(catalog: Catalog) -> None:
    twice = pulses(0, 5, 10, 15, 600, 605, 610)
    given = sorted(twice + pulses(*range(0, 50, 5), source=3))
    worst, other = figures(catalog, given, HOUR_MS).chattering
    ids = catalog.source_id.to_pylist()
    assert (worst.source, worst.bouts, worst.most_cycles) == (ids[3], 1, 10)
    assert (other.source, other.bouts, other.most_cycles) == (ids[0], 2, 4)


def test_an_episode_that_never_clears_is_stale_from_its_second_day_on(catalog: Catalog) -> None:
    found = figures(catalog, [(HOUR_MS, 0, 2)], 4 * DAY_MS)
    assert found.stale_by_day == (0, 1, 1, 1)
    assert (found.stale, found.standing_after) == (1, 1)
    assert found.median_s == (4 * DAY_MS - HOUR_MS) / 1000
    exactly = figures(catalog, [(HOUR_MS, 0, 2), (HOUR_MS + DAY_MS, 0, 0)], 4 * DAY_MS)
    assert exactly.stale == 0


def test_an_episode_from_before_stands_but_is_not_new(catalog: Catalog) -> None:
    given = [(-30 * HOUR_MS, 0, 2), (HOUR_MS, 0, 3), (2 * HOUR_MS, 0, 0)]
    found = figures(catalog, given, DAY_MS)
    assert (found.alarms, found.episodes, found.standing_before) == (1, 0, 1)
    assert found.stale_by_day == (1,)
    assert found.median_s is None
    # its raise is not in the log: it may have come at any time before
    unknown = kpi.of(steps_of(given[1:], {0: 2}), catalog, since_ms=0, until_ms=DAY_MS)
    assert (unknown.standing_before, unknown.stale) == (1, 0)


def test_no_alarms_miss_no_target(catalog: Catalog) -> None:
    found = figures(catalog, [], DAY_MS)
    assert found.operators == found.top == found.pareto == found.chattering == ()
    assert {target.verdict for target in found.targets} == {"good"}
    assert found.row()["busiest_operator"] is None
    empty = np.zeros(0, STEP)
    tried = Tried(
        n=2, common=empty, own=empty, starts=np.zeros(3, np.int64),
        first_ms=0, last_ms=DAY_MS - 1, n_readings=9,
    )  # fmt: skip
    expected = found.row()
    assert kpi.of_many(tried, catalog).drop(["setting"]).to_pylist() == [expected, expected]


def test_a_history_of_no_readings_has_no_time_to_count_in(catalog: Catalog) -> None:
    empty = np.zeros(0, STEP)
    tried = Tried(
        n=1, common=empty, own=empty, starts=np.zeros(2, np.int64),
        first_ms=None, last_ms=None, n_readings=0,
    )  # fmt: skip
    with pytest.raises(InputError, match="no readings"):
        kpi.of_many(tried, catalog)
    assert kpi.of_many(tried, catalog, since_ms=0, until_ms=1).num_rows == 1


def test_targets_give_good_acceptable_and_missed(catalog: Catalog) -> None:
    def verdict(n: int, key: str = "busiest_per_10min", **how: Any) -> str:
        found = figures(catalog, pulses(*range(0, 5 * n, 5)), HOUR_MS, **how)
        return {target.key: target.verdict for target in found.targets}[key]

    assert [verdict(n) for n in (6, 7, 12, 13)] == ["good", "acceptable", "acceptable", "missed"]
    assert verdict(13, bounds=Bounds(rate_most=3.0)) == "acceptable"
    assert (verdict(10, "peak_per_10min"), verdict(11, "peak_per_10min")) == ("good", "missed")
    assert verdict(3, "chattering") == "missed"
    assert verdict(3, "top_ten_share") == "missed"


def test_priorities_are_shares_of_alarms_by_the_level_they_led_to(catalog: Catalog) -> None:
    given = [(0, 0, 1), (1, 0, 3), (2, 0, 2), (3, 0, 4), (4, 0, 0), (5, 1, 2)]
    row = figures(catalog, given, HOUR_MS).row()
    assert (row["low_share"], row["medium_share"], row["high_share"]) == (2 / 4, 1 / 4, 1 / 4)
    texts = {t.key: (t.value_text, t.bound_text) for t in figures(catalog, given, HOUR_MS).targets}
    assert texts["high_share"] == ("25 %", "≤ 5 %")
    assert texts["busiest_per_10min"][1] == "≤ 1, 2"


def test_top_sources_and_the_curve_add_up(catalog: Catalog) -> None:
    given = [c for s in range(14) for c in pulses(*range(s, 40 * (s + 1), 40), source=s)]
    found = figures(catalog, given, DAY_MS)
    n = sum(range(1, 15))
    assert [each.alarms for each in found.top] == list(range(14, 4, -1))
    assert found.pareto[0] == (1, 14 / n)
    assert found.pareto[-1] == (14, 1.0)
    assert dict(found.pareto)[10] == found.row()["top_ten_share"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("department", {"Gas": 5, "Water": 5, "(none)": 4}),
        ("district", {"Gulou": 7, "Jianye": 7}),
        ("category", {"gas_valve": 8, "factory": 6}),
        ("owner", {"(none)": 3, "Owner 1": 3, "Owner 2": 3, "Owner 3": 3, "Owner 4": 2}),
        ("all", {"all": 14}),
    ],
)
def test_operators_are_as_the_catalog_has_them(
    catalog: Catalog, by: Any, expected: dict[str, int]
) -> None:
    operators = Operators.of(catalog, by)
    found = dict(zip(operators.names, operators.n_sources.tolist(), strict=True))
    assert found == expected
    sources = catalog.source_id.to_pylist()
    if by == "department":
        of = dict(zip(sources, names_of(operators), strict=True))
        assert (of["s00"], of["s01"], of["s02"]) == ("Gas", "Water", "(none)")


def test_a_catalog_without_departments_has_one_operator(tmp_path: Path) -> None:
    found = Operators.of(catalog_of(tmp_path, departments=False))
    assert found.names == ("(none)",)


def test_figures_are_plain_json(catalog: Catalog) -> None:
    given = sorted(pulses(*range(0, 60, 5)) + pulses(*range(0, 60, 5), source=3))
    found = figures(catalog, given, HOUR_MS)
    again = orjson.loads(orjson.dumps(found.as_dict()))
    assert again["load"][0]["floods"] == [list(flood) for flood in found.operators[0].floods]
    assert [t["verdict"] for t in again["targets"]] == [t.verdict for t in found.targets]
    assert found.operator_table().num_rows == 1 == len(again["load"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"until_ms": 0}, "until_ms: must be after since_ms = 0, got 0"),
        ({"by": "colour"}, "by: must be one of department, owner"),
        ({"since_ms": -(1 << 62), "until_ms": 1 << 62}, "choose a shorter time"),
    ],
)
def test_what_makes_no_sense_is_refused(catalog: Catalog, wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        figures(catalog, [], **({"until_ms": 1} | wrong))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate_good": -1}, "rate_good: must be at least 0"),
        ({"high": 5}, "high: is a share"),
        ({"rate_most": 0.5}, "rate_most: must be at least rate_good = 1.0, got 0.5"),
        ({"flood_ends_below": 12}, "flood_ends_below: must be 1 to"),
        ({"flood_ends_below": 0}, "flood_ends_below: must be 1 to"),
        ({"chatter_n": 0}, "chatter_n: must be at least 1"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Bounds(**wrong)

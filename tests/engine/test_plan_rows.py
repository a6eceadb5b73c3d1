"""Which row of parameters each sensor has: its profile's, in its unit, with limits of its own."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RulesError
from engine.plan import Plan, compile_plan
from engine.rules import Rules
from engine.rules_base import MAX_DELAY_S, to_ms
from kernels.layout import ABSENCE, HIGH, PARAMS, RED, STD, WINDOW_PARAMS
from tests.engine.test_rules_docs import EXAMPLE
from tests.strategies import tiny_catalog

INF = math.inf
EVERYTHING = Rules.parse(EXAMPLE[0])
METHANE = '[profiles.methane]\nunit = "%LEL"\n'


def plan_of(rules: str, catalog: Any = None) -> Plan:
    """Return the plan of a TOML text, `version` left out, by default for one methane sensor."""
    return compile_plan(catalog or tiny_catalog(), Rules.parse("version = 1\n" + rules))


def row_of(plan: Plan, sensor: int = 0) -> Any:
    """Return the parameters of a sensor."""
    return plan.params[plan.row[sensor]]


# --- rows, units, windows ------------------------------------------------------------------------


def test_equal_units_are_scaled_by_exactly_one() -> None:
    row = row_of(plan_of(METHANE))
    assert (row["scale"], row["offset"]) == (1.0, 0.0)


def test_readings_are_converted_to_the_profiles_unit() -> None:
    sensors = [
        ("a", "well", "methane", "%vol"),
        ("b", "well", "methane", "ppm"),
        ("c", "well", "methane", "%LEL"),
        ("d", "well", "temperature", "degF"),
    ]
    plan = plan_of(METHANE + "[profiles.temperature]\nunit = 'degC'", tiny_catalog(sensors=sensors))
    scales = [(row_of(plan, i)["scale"], row_of(plan, i)["offset"]) for i in range(4)]
    assert scales[0] == (20, 0)
    assert scales[1] == (pytest.approx(0.002), 0)
    assert scales[2] == (1, 0)
    assert 212 * scales[3][0] + scales[3][1] == pytest.approx(100)
    assert len(set(plan.row.tolist())) == 4


def test_sensors_alike_share_a_row() -> None:
    sensors = [(f"s{i}", "well", "methane", "%LEL") for i in range(5)]
    plan = plan_of(METHANE, tiny_catalog(sensors=sensors))
    assert len(set(plan.row.tolist())) == 1
    assert len(plan.params) == 2
    assert plan.params.dtype == PARAMS


def test_a_sensor_without_a_profile_only_knows_absence() -> None:
    sensors = [("a", "well", "methane", "%LEL"), ("b", "well", "smoke", "%/m")]
    plan = plan_of(METHANE + "[absence]\nlevel = 'red'", tiny_catalog(sensors=sensors))
    row = row_of(plan, 1)
    assert plan.n_unprofiled == 1
    assert plan.profile_of_row[plan.row[1]] is None
    assert row["quiet_high"] == INF and row["warmup_n"] == 2**31 - 1
    assert (row["bad_after_n"], row["range_high"]) == (0, 1e30)
    assert (row["quantity"], plan.catalog.quantities[row["quantity"]]) == (1, "smoke")
    assert plan.absent_ms.tolist() == [180_000, 180_000]
    assert row["percent"][ABSENCE][row["absence_level"]] == 40


def test_row_zero_is_inert_and_nobodys() -> None:
    plan = compile_plan(tiny_catalog(), EVERYTHING)
    assert plan.profile_of_row[0] is None
    assert plan.params[0]["quantity"] == -1
    assert (plan.row > 0).all()


def test_a_unit_that_does_not_fit_a_sites_own_quantity_is_refused() -> None:
    catalog = tiny_catalog(sensors=[("a", "well", "tilt", "mm")], site_quantities={"tilt": "mm"})
    rules = "[profiles.tilt]\nunit = '{}'\nlimits.high = {{ red = 5 }}"
    assert row_of(plan_of(rules.format("mm"), catalog))["scale"] == 1
    assert row_of(plan_of(rules.format("cm"), catalog))["scale"] == pytest.approx(0.1)
    with pytest.raises(RulesError, match=r"profiles.tilt.unit: does not fit .* got 'kPa'"):
        plan_of(rules.format("kPa"), catalog)


WINDOWS = (
    "[[profiles.methane.windows]]\nname = 'a'\nlength_s = 60\naggregate = 'mean'\nhigh.red = 5\n"
    "[[profiles.methane.windows]]\nname = 'b'\nlength_s = 1\npanes = 4\naggregate = 'std'\n"
    "high = { blue = 2, red = 9 }\nlow = { yellow = 1, red = 0.5 }\ndeadband = 0.25\nmin_n = 3\n"
)


def test_windows_stand_one_after_the_other_for_each_profile() -> None:
    sensors = [
        ("p", "well", "pressure", "kPa"),
        ("m", "well", "methane", "%LEL"),
        ("n", "well", "methane", "%LEL"),
        ("t", "well", "temperature", "degC"),
    ]
    other = (
        "[[profiles.pressure.windows]]\nname = 'c'\nlength_s = 6\naggregate = 'max'\nlow.red = 1\n"
    )
    plan = plan_of(
        "[profiles.pressure]\nunit = 'kPa'\n" + other + METHANE + WINDOWS,
        tiny_catalog(sensors=sensors),
    )
    assert plan.window_names == ["c", "a", "b"]
    assert plan.window_params.dtype == WINDOW_PARAMS
    assert plan.more_start.tolist() == [0, 0, 1, 2, 2]
    assert [row_of(plan, i)["n_windows"] for i in range(4)] == [1, 2, 2, 0]
    assert [row_of(plan, i)["first_window"] for i in range(3)] == [0, 1, 1]
    b = plan.window_params[2]
    assert (b["pane_ms"], b["n_panes"], b["aggregate"], b["min_n"]) == (250, 4, STD, 3)
    assert b["per_pane"] == 1 / 250
    assert b["high"].tolist() == [2, INF, INF, 9]
    assert b["low"].tolist() == [INF, -1, INF, -0.5], "a ladder on the negated statistic"
    assert (b["near_high"], b["near_low"], b["follows"], b["deadband"]) == (2, 0, 0, 0.25)


def test_seasons_take_their_bins_for_each_sensor() -> None:
    sensors = [("a", "well", "methane", "%LEL"), ("b", "well", "smoke", "%/m")]
    sensors += [("c", "well", "methane", "%LEL")]
    plan = compile_plan(tiny_catalog([("well", "gas_well")], sensors), EVERYTHING)
    assert plan.season_start.tolist() == [0, 24, 24, 48]


# --- a sensor's own limits -----------------------------------------------------------------------

OWN = METHANE + (
    "range = [0, 100]\n[profiles.methane.limits]\n"
    "high = { blue = 5, red = 50 }\nlow = { yellow = 1 }\ndeadband = 1\n"
)
TWO = [("a", "well", "methane", "%vol"), ("b", "well", "methane", "%LEL")]


def test_own_limits_replace_only_the_levels_given_in_the_profiles_unit() -> None:
    own = {"a": {"high_red": 3.0, "high_orange": 2.0, "deadband": 0.1}}
    plan = plan_of(OWN, tiny_catalog(sensors=TWO, own=own))
    row = row_of(plan, 0)
    assert row["high"].tolist() == [5, INF, 40, 60]
    assert row["low"].tolist() == [-INF, 1, -INF, -INF]
    assert row["deadband"] == 2
    assert row_of(plan, 1)["high"].tolist() == [5, INF, INF, 50]
    assert plan.profile_of_row[plan.row[0]] == "methane"
    assert plan.limit(plan.row[0], HIGH, RED) == 60


def test_own_limits_move_the_quiet_bounds() -> None:
    plan = plan_of(OWN, tiny_catalog(own={"methane-1": {"high_blue": 3, "low_blue": 2}}))
    assert (row_of(plan)["quiet_high"], row_of(plan)["quiet_low"]) == (3, 2)


def test_an_offset_moves_limits_but_not_the_deadband() -> None:
    catalog = tiny_catalog(
        sensors=[("t", "well", "temperature", "K")], own={"t": {"high_red": 373.15, "deadband": 2}}
    )
    row = row_of(plan_of("[profiles.temperature]\nunit = 'degC'", catalog))
    assert row["high"][3] == pytest.approx(100)
    assert row["deadband"] == 2


def test_equal_own_limits_share_a_row_and_others_do_not() -> None:
    sensors = [(f"s{i}", "well", "methane", "%LEL") for i in range(6)]
    own = {f"s{i}": {"high_red": 60.0 + i % 2} for i in range(4)} | {"s4": {}}
    plan = plan_of(OWN, tiny_catalog(sensors=sensors, own=own))
    rows = plan.row.tolist()
    assert rows[0] == rows[2] != rows[1] == rows[3]
    assert rows[4] == rows[5] not in rows[:4]
    assert len(plan.params) == len(plan.profile_of_row) == 4


@pytest.mark.parametrize(
    "own",
    [
        {"high_red": 4.0},
        {"high_blue": 50.0},
        {"low_red": 2.0},
        {"low_yellow": 6.0},
        {"high_red": 101.0},
        {"deadband": -1.0},
    ],
)
def test_own_limits_that_cross_the_profiles_name_the_sensor(own: dict[str, float]) -> None:
    catalog = tiny_catalog(sensors=TWO, own={"b": own, "a": {"high_red": 3.0}})
    with pytest.raises(RulesError, match=r"sensor b: .*profiles\.methane") as caught:
        plan_of(OWN, catalog)
    assert len(caught.value.faults) == 1


def test_own_delays_replace_the_profiles_of_every_level() -> None:
    delays = "on_delay_s = { red = 5, blue = 60 }\noff_delay_s = 30\n"
    own = {"a": {"on_delay_s": 12.5}, "b": {"off_delay_s": 0.0, "high_red": 60}}
    plan = plan_of(OWN + delays, tiny_catalog(sensors=TWO, own=own))
    a, b = row_of(plan, 0), row_of(plan, 1)
    assert a["on_ms"].tolist() == [12_500] * 4 and a["off_ms"].tolist() == [30_000] * 4
    assert b["on_ms"].tolist() == [60_000, 0, 0, 5000] and b["off_ms"].tolist() == [0] * 4
    assert a["high"].tolist() == [5, INF, INF, 50] and b["high"][3] == 60


@given(st.lists(st.floats(0, MAX_DELAY_S), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_own_delays_are_rounded_as_those_of_rules_are(delays_s: list[float]) -> None:
    sensors = [(f"s{i:02}", "well", "methane", "%LEL") for i in range(len(delays_s))]
    own = {f"s{i:02}": {"off_delay_s": delay_s} for i, delay_s in enumerate(delays_s)}
    plan = plan_of(OWN, tiny_catalog(sensors=sensors, own=own))
    off_ms = plan.params["off_ms"][plan.row, 0].tolist()
    assert off_ms == [to_ms(delay_s) for delay_s in delays_s]


def test_own_limits_of_sensors_without_a_profile_are_noted() -> None:
    plan = plan_of("", tiny_catalog(own={"methane-1": {"high_red": 60}}))
    assert [note.value for note in plan.notes] == [1]
    assert row_of(plan)["quiet_high"] == INF


# --- size ----------------------------------------------------------------------------------------


def large_catalog(n_sensors: int, n_own: int) -> Any:
    """Return a seeded catalog of many sensors, some with limits of their own."""
    rng = np.random.default_rng(5)
    n_sources = n_sensors // 4
    high = np.full((n_own, 4), np.nan)
    high[:, 3] = rng.integers(60, 90, n_own)
    kind = rng.integers(0, 4, n_sensors).astype(np.int16)
    return SimpleNamespace(
        digest="large",
        categories=["factory", "gas_well", "mall"],
        category=rng.integers(0, 3, n_sources).astype(np.int16),
        quantities=["methane", "permit", "pressure", "smoke"],
        quantity=kind,
        units=["%LEL", "1", "kPa", "%/m"],
        unit=kind,
        canonical_units={},
        districts=[],
        departments=[],
        sensor_source=np.sort(rng.integers(0, n_sources, n_sensors)).astype(np.int32),
        period_ms=np.full(n_sensors, 60_000, np.uint32),
        override_sensor=np.flatnonzero(kind == 0)[:n_own].astype(np.int32),
        override_high=high,
        override_low=np.full((n_own, 4), np.nan),
        override_deadband=np.full(n_own, np.nan),
        override_on_delay_s=np.full(n_own, np.nan),
        override_off_delay_s=np.full(n_own, np.nan),
        coupling_kinds=[],
        coupled_weight=np.zeros(0, np.float32),
        coupled_kind=np.zeros(0, np.uint8),
    )


def test_every_sensor_has_the_row_of_its_category_quantity_and_own_limit() -> None:
    catalog = large_catalog(20_000, 2_000)
    rules = Rules.parse(
        "version = 1\n[profiles.methane]\nunit = '%LEL'\nlimits.high.red = 50\n"
        "[profiles.wells]\nquantity = 'methane'\nunit = '%LEL'\ncategories = ['gas_well']\n"
        "limits.high.red = 40\n[profiles.pressure]\nunit = 'kPa'\nlimits.high.red = 900\n"
    )
    plan = compile_plan(catalog, rules)
    own = dict(zip(catalog.override_sensor.tolist(), catalog.override_high[:, 3], strict=True))
    for sensor in range(0, 20_000, 7):
        category = catalog.categories[catalog.category[catalog.sensor_source[sensor]]]
        quantity = catalog.quantities[catalog.quantity[sensor]]
        limit = {"methane": 40 if category == "gas_well" else 50, "pressure": 900}.get(
            quantity, INF
        )
        assert row_of(plan, sensor)["high"][3] == own.get(sensor, limit)
        assert plan.profile_of_row[plan.row[sensor]] == rules.profile_name(quantity, category)


def test_three_million_sensors_compile_in_seconds() -> None:
    catalog = large_catalog(3_000_000, 200_000)
    begin = time.perf_counter()
    plan = compile_plan(catalog, EVERYTHING)
    # 0.2 to 0.6 s here; the bound allows for a loaded machine
    assert time.perf_counter() - begin < 4
    assert len(plan.row) == 3_000_000

"""The plan: what the kernels are told is what the rules say, in the kernels' units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from engine.errors import RulesError
from engine.plan import Plan, compile_plan
from engine.plan_params import SIGMA, percent_table
from engine.rules import Rules
from engine.rules_fusion import Fusion
from kernels.layout import (
    ABSENCE,
    BAD,
    BLUE,
    DEVIATION,
    DRIFT,
    FALL,
    FLATLINE,
    HIGH,
    LOW,
    ORANGE,
    RED,
    RISE,
    SPIKE,
    WINDOW,
    YELLOW,
)
from tests.engine.test_rules_docs import EXAMPLE
from tests.strategies import tiny_catalog

INF = math.inf
EVERYTHING = Rules.parse(EXAMPLE[0])


def plan_of(rules: str, catalog: Any = None) -> Plan:
    """Return the plan of a TOML text, `version` left out, by default for one methane sensor."""
    return compile_plan(catalog or tiny_catalog(), Rules.parse("version = 1\n" + rules))


def row_of(plan: Plan, sensor: int = 0) -> Any:
    """Return the parameters of a sensor."""
    return plan.params[plan.row[sensor]]


METHANE = '[profiles.methane]\nunit = "%LEL"\n'


# --- one profile ---------------------------------------------------------------------------------


def test_limits_are_infinite_where_none_is_given() -> None:
    row = row_of(
        plan_of(
            METHANE
            + "range = [0, 100]\n[profiles.methane.limits]\nhigh = { yellow = 10, red = 50 }\n"
            "low = { blue = 2 }\ndeadband = 1\non_delay_s = { red = 1, yellow = 2.5 }\n"
            "off_delay_s = 60\nlatch = true\nfloor = false"
        )
    )
    assert row["high"].tolist() == [INF, 10, INF, 50]
    assert row["low"].tolist() == [2, -INF, -INF, -INF]
    assert (row["quiet_high"], row["quiet_low"]) == (10, 2)
    assert (row["range_low"], row["range_high"]) == (0, 100)
    assert row["on_ms"].tolist() == [0, 2500, 0, 1000]
    assert row["off_ms"].tolist() == [60_000] * 4
    assert (row["deadband"], row["latching"], row["floor"]) == (1, 1, 0)


def test_detectors_that_are_not_asked_for_are_inert() -> None:
    row = row_of(plan_of(METHANE))
    for key in ("high", "rise", "fall", "z", "drift"):
        assert row[key].tolist() == [INF] * 4, key
    assert row["low"].tolist() == [-INF] * 4
    for key in ("quiet_high", "quiet_rise", "quiet_fall", "quiet_deviation", "quiet_drift"):
        assert row[key] == INF, key
    assert (row["quiet_low"], row["spike_at"], row["drift_cap"]) == (-INF, INF, 0)
    assert (row["half_ms"], row["memory_n"], row["alpha"]) == (150_000, 1, 1.0)
    assert row["warmup_n"] == 2**31 - 1
    assert row["min_deviation"] == 1
    assert (row["flat_after_n"], row["n_windows"], row["season_bins"]) == (0, 0, 0)
    assert (row["range_low"], row["range_high"]) == (-1e30, 1e30)


@pytest.mark.parametrize(("per", "per_ms"), [("s", 1e3), ("min", 6e4), ("h", 3.6e6)])
def test_rates_are_per_millisecond(per: str, per_ms: float) -> None:
    plan = plan_of(
        METHANE
        + f"[profiles.methane.rate]\nrise = {{ blue = 2, red = 5 }}\nfall = {{ blue = 3 }}\n"
        f"per = '{per}'\nwindow_s = 90.001\ndeadband = 0.2\nconfirm_n = 2"
    )
    row = row_of(plan)
    assert row["rise"].tolist() == [2 / per_ms, INF, INF, 5 / per_ms]
    assert row["fall"].tolist() == [3 / per_ms, INF, INF, INF]
    assert (row["quiet_rise"], row["quiet_fall"]) == (2 / per_ms, 3 / per_ms)
    assert row["rate_deadband"] == 0.2 / per_ms
    assert (row["half_ms"], row["rate_confirm_n"]) == (45_000, 2)
    assert plan.limit(plan.row[0], RISE, RED) == 5
    assert plan.statistic(plan.row[0], FALL, 3 / per_ms) == (pytest.approx(3), f"%LEL/{per}")


def test_sigmas_are_turned_into_mean_absolute_residuals() -> None:
    plan = compile_plan(tiny_catalog(), EVERYTHING)
    row = row_of(plan)
    assert row["z"][:2].tolist() == [4 * SIGMA, 8 * SIGMA]
    assert row["z_deadband"] == SIGMA
    assert row["clip"] == 3 * SIGMA
    assert row["min_deviation"] == 0.5 / SIGMA
    assert row["drift"].tolist() == [8 * SIGMA, INF, INF, INF]
    assert row["drift_cap"] == 16 * SIGMA
    assert row["allowance"] == 0.5 * SIGMA
    assert (row["quiet_deviation"], row["quiet_drift"]) == (4 * SIGMA, 8 * SIGMA)
    assert (row["memory_n"], row["warmup_n"], row["alpha"]) == (256, 64, 1 / 256)
    assert row["deviation_confirm_n"] == 2


def test_sigma_is_that_of_a_normal_signal() -> None:
    noise = np.random.default_rng(7).normal(size=1_000_000)
    assert np.abs(noise).mean() * SIGMA == pytest.approx(noise.std(), rel=2e-3)
    assert pytest.approx(math.sqrt(math.pi / 2), rel=1e-15) == SIGMA


def test_seasons_have_bins_at_the_sites_time() -> None:
    plan = compile_plan(tiny_catalog(), EVERYTHING)
    row = row_of(plan)
    assert (row["season_bins"], row["season_ms"]) == (24, 86_400_000)
    assert row["utc_offset_ms"] == 8 * 3_600_000
    week = METHANE + "deviation = { min_sigma = 1, season = 'week' }"
    assert row_of(plan_of(week))["season_bins"] == 168
    west = row_of(plan_of("time.utc_offset = '-03:30'\n" + week))
    assert west["utc_offset_ms"] == -12_600_000


def test_liveness_is_the_profiles_or_the_defaults() -> None:
    plan = plan_of(
        METHANE + "liveness = { flat_after_n = 9, flat_level = 'red', spike_at = 20, "
        "spike_level = 'orange', bad_after_n = 0 }\n[absence]\nafter = 2\nlevel = 'yellow'"
    )
    row = row_of(plan)
    assert plan.absent_ms.tolist() == [120_000]
    assert row["absence_level"] == YELLOW
    assert (row["flat_after_n"], row["flat_level"]) == (9, RED)
    assert (row["spike_at"], row["spike_level"]) == (20, ORANGE)
    assert (row["bad_after_n"], row["bad_level"]) == (0, BLUE)
    own = METHANE + "liveness = { absent_after = 4, absent_level = 'red' }"
    plan = plan_of(own)
    assert (plan.absent_ms.tolist(), row_of(plan)["absence_level"]) == ([240_000], RED)
    assert plan_of(METHANE + "liveness.absent_after = 0").absent_ms.tolist() == [0]


@pytest.mark.parametrize(
    ("period_s", "after", "ms"),
    [(1, 1.1, 1100), (1, 1.0001, 1001), (0.001, 1.5, 2), (60, 3, 180_000), (4e6, 1e6, 4 * 10**15)],
)
def test_silence_is_rounded_up_to_milliseconds(period_s: float, after: float, ms: int) -> None:
    catalog = tiny_catalog(period_s=period_s)
    assert plan_of(f"absence.after = {after}", catalog).absent_ms.tolist() == [ms]


# --- percent -------------------------------------------------------------------------------------


def test_percent_is_severity_times_weights_rounded_half_up() -> None:
    rules = Rules.parse(
        "version = 1\n[profiles.methane]\nunit = '%LEL'\n[fusion]\nweights = { methane = 0.9 }\n"
        "severity = { blue = 0.25, yellow = 0.35, orange = 0.5, red = 1 }\n"
        "detectors = { high = 1.0, window = 0.5, bad = 0 }"
    )
    percent = percent_table(rules.fusion, "methane")
    # 22.5, 31.5 (in floats 31.499…), 45, 90
    assert percent[HIGH].tolist() == [0, 23, 32, 45, 90]
    assert percent[WINDOW].tolist() == [0, 11, 16, 23, 45]
    assert percent[BAD].tolist() == [0, 0, 0, 0, 0]


def test_percent_is_at_most_a_hundred() -> None:
    fusion = Fusion.model_validate({"weights": {"default": 10.0}})
    assert percent_table(fusion, "methane")[HIGH].tolist() == [0, 100, 100, 100, 100]


def test_each_category_has_its_own_percents() -> None:
    catalog = tiny_catalog(
        [("w", "gas_well"), ("f", "factory")],
        [("a", "w", "pressure", "kPa"), ("b", "f", "pressure", "kPa")],
    )
    plan = compile_plan(catalog, EVERYTHING)
    assert plan.row[0] != plan.row[1]
    assert row_of(plan, 0)["percent"][LOW].tolist() == [0, 15, 25, 38, 50]
    assert row_of(plan, 1)["percent"][LOW].tolist() == [0, 25, 50, 75, 100]


# --- categories, rules, contexts, couplings ------------------------------------------------------


def test_categories_have_their_fusion_and_levels() -> None:
    catalog = tiny_catalog([("f", "factory"), ("w", "gas_well")], [("a", "w", "smoke", "%/m")])
    factory, well = compile_plan(catalog, EVERYTHING).category
    assert (factory["half_life_ms"], well["half_life_ms"]) == (600_000, 900_000)
    assert (factory["deadband"], well["deadband"]) == (5, 8)
    assert (factory["hold_ms"], well["hold_ms"]) == (60_000, 120_000)
    assert factory["raise_at"].tolist() == well["raise_at"].tolist() == [20, 40, 60, 80]
    # none, blue, yellow, red: as the catalog numbers static classes
    assert factory["class_factor"].tolist() == [1.0, 1.0, 1.1, 1.2]
    assert well["class_factor"].tolist() == [1.0, 1.0, 1.1, 1.5]


def test_a_level_that_the_score_does_not_raise_is_infinite() -> None:
    plan = plan_of("levels.raise_at = { orange = 60 }")
    assert plan.category["raise_at"].tolist() == [[INF, INF, 60, INF]]


def test_signal_rules_are_bits_of_terms() -> None:
    catalog = tiny_catalog(
        [("f", "factory"), ("w", "gas_well")],
        [("a", "w", "methane", "%LEL"), ("b", "f", "permit", "1"), ("c", "f", "pressure", "kPa")],
    )
    plan = compile_plan(catalog, EVERYTHING)
    methane, permit, pressure = (
        catalog.quantities.index(q) for q in ("methane", "permit", "pressure")
    )
    assert plan.terms.tolist() == [
        (methane, HIGH, YELLOW, 0),
        (pressure, FALL, BLUE, 0),
        (permit, HIGH, BLUE, 0),
        (methane, BAD, BLUE, 0),
        (permit, HIGH, BLUE, 1),
    ]
    assert plan.signal_rules.tolist() == [(0b00011, 0b10100, 0b01000, 0b10, ORANGE, 0)]


def test_the_sixty_fourth_term_is_the_sign_bit() -> None:
    names = [f"q{index:02}" for index in range(64)]
    profiles = "".join(f"[profiles.{name}]\nunit = 'x'\n" for name in names)
    terms = ", ".join(f"'{name}.high >= red'" for name in names)
    plan = plan_of(profiles + f"[[rules]]\nname = 'r'\nlevel = 'red'\nany = [{terms}]\n")
    assert len(plan.terms) == 64
    assert plan.signal_rules["any"].tolist() == [-1]
    assert plan.signal_rules["any"].view(np.uint64).tolist() == [2**64 - 1]
    assert plan.signal_rules["categories"].tolist() == [-1], "of every category"


def test_a_term_of_a_quantity_that_no_sensor_has_never_holds() -> None:
    plan = plan_of(
        METHANE + "[profiles.smoke]\nunit = '%/m'\n"
        "[[rules]]\nname = 'r'\nlevel = 'red'\nall = ['smoke.high >= red']"
    )
    assert plan.terms["quantity"].tolist() == [-2]
    assert not np.isin(plan.terms["quantity"], plan.params["quantity"]).any()


CONTEXTS = """
time.utc_offset = "+08:00"
[[context]]
name = "second"
from = 2025-08-02
to = 2025-08-03
factor = 0.5
[[context]]
name = "first"
from = 2025-08-01T00:00:00Z
to = 2025-08-09
districts = ["south", "nowhere", "north"]
categories = ["well"]
factor = 2
[[context]]
name = "of nobody"
from = 2025-08-01
to = 2025-08-09
categories = ["nothing"]
factor = 2
"""


def test_contexts_are_sorted_by_start_and_have_a_record_for_each_district() -> None:
    catalog = tiny_catalog(
        [("f", "factory", "red", "south"), ("w", "well", "none", "north")],
        [("a", "w", "methane", "%LEL")],
    )
    plan = plan_of(CONTEXTS, catalog)
    assert plan.context_names == ["first", "first", "second"]
    first, again, second = plan.contexts.tolist()
    assert first == (1754006400000, 1754668800000, 0b10, 1, 0, 2.0)
    assert again == (*first[:3], 0, *first[4:])
    assert second == (1754064000000, 1754150400000, -1, -1, 0, 0.5)


def test_names_that_the_catalog_does_not_have_are_noted_not_refused() -> None:
    catalog = tiny_catalog([("f", "factory", "red", "south")], [("a", "f", "methane", "%LEL")])
    plan = plan_of(
        CONTEXTS + "[profiles.smoke]\nunit = '%/m'\ncategories = ['factori']\n"
        "[coupling]\ninfluence = { pipe = 1 }\n[fusion.categories.mall]\nhalf_life_s = 1\n"
        "[[routes]]\nname = 'r'\ncategories = ['mall']\ndistricts = ['south', 'north']\n"
        "departments = ['works']\n",
        catalog,
    )
    noted = {(note.key, note.value) for note in plan.notes}
    assert noted == {
        ("profiles.smoke.quantity", "smoke"),
        ("profiles.smoke.categories", "factori"),
        ("fusion.categories", "mall"),
        ("coupling.influence", "pipe"),
        ("context[1].categories", "well"),
        ("context[1].districts", "nowhere"),
        ("context[1].districts", "north"),
        ("context[2].categories", "nothing"),
        ("routes[0].categories", "mall"),
        ("routes[0].districts", "north"),
        ("routes[0].departments", "works"),
    }
    assert "did you mean factory?" in next(n.problem for n in plan.notes if n.value == "factori")


def test_couplings_weigh_weight_times_influence_of_their_kind() -> None:
    sources = [("a", "x"), ("b", "x"), ("c", "x")]
    edges = [("a", "c", "pipe", 0.5), ("b", "c", "spatial", 0.25), ("c", "a", "road", 1.0)]
    catalog = tiny_catalog(sources, [("s", "a", "methane", "%LEL")], edges)
    plan = plan_of("[coupling]\ninfluence = { default = 0.1, pipe = 0.8, spatial = 0.4 }", catalog)
    assert catalog.coupled_start.tolist() == [0, 1, 1, 3]
    assert catalog.coupled_origin.tolist() == [2, 0, 1]
    assert plan.coupled_weight.tolist() == [0.1, 0.4, 0.1]
    assert plan.coupled_weight.dtype == np.float64


def test_time_is_in_milliseconds() -> None:
    plan = plan_of("[time]\ntick_s = 0.5\nlate_after_s = 30\nmax_ahead_s = 60\nmax_late_s = 3600")
    assert (plan.tick_ms, plan.late_after_ms) == (500, 30_000)
    assert (plan.max_ahead_ms, plan.max_late_ms) == (60_000, 3_600_000)


def test_more_than_64_categories_are_refused() -> None:
    sources = [(f"s{i}", f"c{i}") for i in range(65)]
    with pytest.raises(RulesError, match="at most 64 categories, got 65"):
        plan_of("", tiny_catalog(sources, [("a", "s0", "methane", "%LEL")]))


def test_the_digest_is_of_catalog_and_rules() -> None:
    plans = [
        plan_of(METHANE),
        plan_of(METHANE),
        plan_of(""),
        plan_of(METHANE, tiny_catalog(period_s=1)),
    ]
    digests = [plan.digest for plan in plans]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


# --- what people see -----------------------------------------------------------------------------


def test_limits_and_statistics_come_back_as_the_rules_write_them() -> None:
    plan = compile_plan(tiny_catalog(), EVERYTHING)
    row, params = int(plan.row[0]), row_of(plan)
    assert plan.limit(row, HIGH, ORANGE) == 25
    assert math.isnan(plan.limit(row, LOW, BLUE))
    assert math.isnan(plan.limit(row, RISE, RED))
    assert plan.limit(row, RISE, ORANGE) == 5
    assert plan.limit(row, WINDOW, YELLOW) == 8
    assert plan.limit(row, DEVIATION, YELLOW) == 8
    assert plan.limit(row, DRIFT, BLUE) == 8
    assert plan.limit(row, FLATLINE, BLUE) == 600
    assert plan.limit(row, BAD, BLUE) == 5
    assert plan.limit(row, SPIKE, BLUE) == 20
    assert plan.limit(row, ABSENCE, BLUE, sensor=0) == 180
    assert math.isnan(plan.limit(row, HIGH, 0))
    assert plan.statistic(row, HIGH, 7.0) == (7.0, "%LEL")
    assert plan.statistic(row, SPIKE, 7.0) == (7.0, "%LEL")
    assert plan.statistic(row, WINDOW, 7.0) == (7.0, "%LEL")
    assert plan.statistic(row, DEVIATION, float(params["z"][1])) == (pytest.approx(8), "σ")
    assert plan.statistic(row, ABSENCE, 180.0) == (180.0, "s")
    assert plan.statistic(row, BAD, 5.0) == (5.0, "readings")


def test_a_window_with_limits_on_both_sides_tells_which_was_crossed() -> None:
    plan = plan_of(
        METHANE + "windows = [ { name = 'a', length_s = 60, aggregate = 'count', "
        "high.red = 100, low = { red = 2 } } ]"
    )
    row = int(plan.row[0])
    assert plan.limit(row, WINDOW, RED, 0, value=120.0) == 100
    assert plan.limit(row, WINDOW, RED, 0, value=1.0) == 2
    assert math.isnan(plan.limit(row, WINDOW, BLUE, 0, value=1.0))
    assert plan.statistic(row, WINDOW, 1.0, 0) == (1.0, "readings")


def test_sensors_without_a_profile_have_no_limits_to_show() -> None:
    plan = plan_of("")
    row = int(plan.row[0])
    assert plan.unit(row) == ""
    assert all(math.isnan(plan.limit(row, kind, RED)) for kind in (HIGH, RISE, WINDOW, SPIKE))
    assert plan.limit(row, ABSENCE, BLUE, sensor=0) == 180

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.units import (
    QUANTITIES,
    Quantity,
    UnitError,
    conversion,
    did_you_mean,
    display_unit,
    normalise_unit,
    to_canonical,
)


@pytest.mark.parametrize(
    ("quantity", "unit", "scale", "offset"),
    [
        ("methane", "%vol", 20.0, 0.0),
        ("methane", "% vol", 20.0, 0.0),
        ("methane", "ppm", 0.002, 0.0),
        ("methane", "%CH4", 20.0, 0.0),
        ("oxygen", "ppm", 1e-4, 0.0),
        ("temperature", "degF", 5 / 9, -160 / 9),
        ("temperature", "kelvin", 1.0, -273.15),
        ("flow", "l/s", 3.6, 0.0),
        ("flow", "L/min", 0.06, 0.0),
        ("pressure", "Pa", 0.001, 0.0),
        ("pressure", "hPa", 0.1, 0.0),
        ("pressure", "mbar", 0.1, 0.0),
        ("pressure", "bar", 100.0, 0.0),
        ("pressure", "MPa", 1000.0, 0.0),
        ("pressure", "m of water", 9.80665, 0.0),
        ("pressure", "mmH2O", 0.00980665, 0.0),
        ("vibration", "m/s2", 1 / 9.80665, 0.0),
        ("volatile_organics", "ppb", 0.001, 0.0),
        ("particulate", "mg/m3", 1000.0, 0.0),
        ("pedestrian_flow", "persons/min", 60.0, 0.0),
        ("crowd_density", "people/m^2", 1.0, 0.0),
        ("wind_speed", "km/h", 1 / 3.6, 0.0),
        ("current", "mA", 0.001, 0.0),
        ("valve_opening", "1", 100.0, 0.0),
    ],
)
def test_a_unit_converts_to_the_canonical_one(
    quantity: str, unit: str, scale: float, offset: float
) -> None:
    found = to_canonical(QUANTITIES[quantity], unit)
    assert found == pytest.approx((scale, offset), rel=1e-14)


@pytest.mark.parametrize(
    ("spellings", "unit"),
    [
        (["°C", "degC", "℃", "deg_C", " ° C ", "Celsius"], "degC"),
        (["% vol", "%vol", "%VOL", "vol%", "% v/v"], "%vol"),
        (["m3/h", "m³/h", "m^3/h", "m**3 / h", "m3/hr"], "m³/h"),
        (["l/s", "L/s", "litre/s"], "l/s"),
        (["persons", "person", "people", "人"], "person"),
        (["", " ", "1", "bool"], "1"),
        (["ug/m3", "µg/m³", "\u03bcg/m3"], "µg/m³"),
        (["kpa", "kPa", "KPA"], "kPa"),
    ],
)
def test_usual_spellings_are_one_unit(spellings: list[str], unit: str) -> None:
    assert {normalise_unit(spelling) for spelling in spellings} == {unit}


def test_prefixes_that_differ_by_case_stay_apart() -> None:
    assert normalise_unit("MW") != normalise_unit("mW")
    assert conversion("power", "MW", "kW")[0] == 1e3
    assert conversion("power", "mW", "kW")[0] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [
        ("methane", "degC"),
        ("methane", "%"),
        ("combustible_gas", "%vol"),
        ("humidity", "%vol"),
        ("pressure", "m"),
        ("vibration", "mm/s"),
        ("level", "m²"),
        ("status", "m"),
        ("temperature", "blorb"),
        ("flow", "m3/"),
        ("flow", "9**9**9"),
        ("flow", "__import__('os')"),
        ("flow", "m" * 500),
        ("flow", "m\x00/h"),
    ],
)
def test_an_impossible_unit_is_refused(quantity: str, unit: str) -> None:
    with pytest.raises(UnitError):
        to_canonical(QUANTITIES[quantity], unit)


@given(st.text(max_size=12))
def test_any_text_is_a_unit_or_refused(unit: str) -> None:
    try:
        scale, _ = conversion("flow", unit, "m³/h")
    except UnitError:
        return
    assert scale > 0


@given(st.sampled_from(sorted(QUANTITIES)))
def test_the_canonical_unit_is_exactly_itself(name: str) -> None:
    quantity = QUANTITIES[name]
    assert to_canonical(quantity, quantity.unit) == (1.0, 0.0)
    assert normalise_unit(quantity.unit) == quantity.unit
    assert quantity.name == name and quantity.description


def test_every_canonical_unit_is_known_to_the_converter() -> None:
    # from a unit of its own to another of the same: only a unit that is understood has one
    for quantity in QUANTITIES.values():
        with pytest.raises(UnitError, match="converts"):
            conversion(quantity, "candela", quantity.unit)


def test_a_gas_converts_by_its_own_explosive_limit() -> None:
    propane = Quantity(name="propane", unit="%LEL", description="", lel_percent_vol=2.1)
    assert to_canonical(propane, "%vol")[0] == pytest.approx(100 / 2.1, rel=1e-14)
    assert conversion(propane, "%LEL", "ppm")[0] == pytest.approx(210.0, rel=1e-14)


def test_equal_units_import_no_pint() -> None:
    code = (
        "import sys; from engine.units import conversion;"
        "assert conversion('temperature', '° C', 'degC') == (1.0, 0.0);"
        "assert 'pint' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_suggestions_name_what_is_close_only() -> None:
    assert did_you_mean(list(QUANTITIES), "temprature") == " (did you mean temperature?)"
    assert did_you_mean(list(QUANTITIES), "zzzz") == ""


def test_units_are_shown_as_people_write_them() -> None:
    assert display_unit("degC") == "°C" and display_unit("1") == "" and display_unit("ppm") == "ppm"

"""Quantities, the units each is given in, and the scale and offset to its canonical unit.

Units are converted when a catalog is built and never again: `canonical = scale · value + offset`.
Pint is imported only when two units differ.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.errors import CatalogError, Fault, TocsinError


class UnitError(TocsinError):
    """A unit that a quantity can't be given in, or that no one knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What a sensor measures, and the canonical unit in which rules speak of it.

    `lel_percent_vol` is the lower explosive limit of a combustible gas: with it, %LEL and
    concentrations convert into each other. `percent_means` is the unit meant by a bare `%`.
    """

    name: str
    unit: str
    description: str
    lel_percent_vol: float | None = None
    percent_means: str | None = None


def _quantities(*rows: tuple[str, str, str]) -> dict[str, Quantity]:
    return {n: Quantity(name=n, unit=unit, description=text) for n, unit, text in rows}


QUANTITIES: dict[str, Quantity] = {
    "methane": Quantity(
        name="methane",
        unit="%LEL",
        description="methane in air; its lower explosive limit is 5 %vol",
        lel_percent_vol=5.0,
    ),
    "oxygen": Quantity(
        name="oxygen", unit="%vol", description="oxygen in air", percent_means="%vol"
    ),
    "humidity": Quantity(
        name="humidity", unit="%RH", description="relative humidity", percent_means="%RH"
    ),
    **_quantities(
        ("combustible_gas", "%LEL", "any combustible gas, as its detector is calibrated"),
        ("carbon_monoxide", "ppm", "carbon monoxide in air"),
        ("carbon_dioxide", "ppm", "carbon dioxide in air"),
        ("hydrogen_sulfide", "ppm", "hydrogen sulfide in air"),
        ("ammonia", "ppm", "ammonia in air"),
        ("volatile_organics", "ppm", "volatile organic compounds in air"),
        ("particulate", "µg/m³", "suspended particles in air"),
        ("smoke", "%/m", "light that smoke takes away, per metre"),
        ("temperature", "degC", "temperature of air, medium or surface"),
        ("pressure", "kPa", "pressure, gauge or absolute as the sensor gives it"),
        ("flow", "m³/h", "volume flow in a pipe or duct"),
        ("air_velocity", "m/s", "speed of air in a duct, gallery or tunnel"),
        ("level", "m", "height of a liquid"),
        ("displacement", "mm", "settlement, tilt or crack width as a length"),
        ("vibration", "g", "acceleration, as RMS or peak of a window"),
        ("current", "A", "electric current"),
        ("voltage", "V", "electric voltage"),
        ("power", "kW", "electric power"),
        ("valve_opening", "%", "how far a valve stands open"),
        ("occupancy", "%", "people inside, of the capacity"),
        ("crowd_count", "person", "people in an area"),
        ("crowd_density", "person/m²", "people per area"),
        ("pedestrian_flow", "person/h", "people passing a line"),
        ("rain", "mm", "rain since the last reading or over the feed's own period"),
        ("wind_speed", "m/s", "wind speed"),
        ("status", "1", "a state: 0 off or closed, 1 on or open"),
        ("permit", "1", "a permit in force: 0 none, 1 granted"),
        ("raw", "1", "a number without a unit"),
    ),
}

# spelling without blanks and case → how Tocsin writes it; cases that matter (mW, MW) stay out
_SPELLINGS = {
    "bool": "1",
    "boolean": "1",
    "dimensionless": "1",
    "none": "1",
    "°c": "degC",
    "℃": "degC",
    "degc": "degC",
    "deg_c": "degC",
    "celsius": "degC",
    "°f": "degF",
    "℉": "degF",
    "degf": "degF",
    "deg_f": "degF",
    "fahrenheit": "degF",
    "k": "K",
    "kelvin": "K",
    "%vol": "%vol",
    "vol%": "%vol",
    "%v/v": "%vol",
    "%(v/v)": "%vol",
    "%ch4": "%vol",
    "%o2": "%vol",
    "%lel": "%LEL",
    "lel%": "%LEL",
    "lel": "%LEL",
    "ppmv": "ppm",
    "ppbv": "ppb",
    "%rh": "%RH",
    "rh%": "%RH",
    "rh": "%RH",
    "percent": "%",
    "%obs/m": "%/m",
    "%/m": "%/m",
    "person": "person",
    "persons": "person",
    "people": "person",
    "pers": "person",
    "人": "person",
    "g": "g",
    "gn": "g",
    "g0": "g",
    "mh2o": "mH2O",
    "mofwater": "mH2O",
    "mwc": "mH2O",
    "mws": "mH2O",
    "mmh2o": "mmH2O",
    "mmofwater": "mmH2O",
    "pa": "Pa",
    "hpa": "hPa",
    "kpa": "kPa",
    "kw": "kW",
    "metre": "m",
    "meter": "m",
    "amp": "A",
    "ampere": "A",
    "a": "A",
    "volt": "V",
    "v": "V",
}

# how Tocsin writes it → how Pint spells it, where that differs
_PINT = {
    "%": "percent",
    "%vol": "percent_volume",
    "ppm": "ppm_volume",
    "ppb": "ppb_volume",
    "%LEL": "percent_lel",
    "%RH": "percent_humidity",
    "%/m": "percent_obscuration",
    "g": "standard_gravity",
    "mH2O": "meter_water",
    "mmH2O": "millimeter_water",
    "1": "dimensionless",
}
_DEFINITIONS = """
volume_part = [volume_part]
percent_volume = 0.01 * volume_part
ppm_volume = 1e-6 * volume_part
ppb_volume = 1e-9 * volume_part
percent_lel = [explosive_part]
percent_humidity = [relative_humidity]
percent_obscuration = [obscuration]
person = [persons]
meter_water = 9.80665 * kilopascal
millimeter_water = 9.80665 * pascal
"""

# Pint would evaluate what it is given, 9**9**9 too: only names, powers of two and three, one level
_SYNTAX = re.compile(r"(1|[^\W\d]+[²³]?)([/·*][^\W\d]+[²³]?){0,3}|1")

# where fifteen digits of Pint's floats are not the nearest double
_EXACT = {("degF", "degC"): (5 / 9, -160 / 9)}

_SHOWN = {"1": "", "degC": "°C", "degF": "°F", "mH2O": "m H₂O", "mmH2O": "mm H₂O"}


def normalise_unit(unit: str) -> str:
    """Return the one spelling Tocsin uses: `° C` and `degC` are `degC`, `m3 / h` is `m³/h`."""
    # the micro sign and the Greek letter are two characters that look the same
    text = re.sub(r"\s+", "", unit).replace("μ", "µ")
    if not text:
        return "1"
    parts = text.split("/", 1) if text.casefold() not in _SPELLINGS else [text]
    return "/".join(_normalise_part(part) for part in parts)


def _normalise_part(text: str) -> str:
    known = _SPELLINGS.get(text.casefold())
    # `A` and `a`, `V` and `v` are one unit in every feed; `K` alone is kelvin
    if known is not None:
        return known
    text = re.sub(r"(?:\*\*|\^)?([23])$", lambda m: "²³"[int(m[1]) - 2], text)
    if text.casefold() in {"l", "litre", "liter", "litres", "liters"}:
        return "l"
    words = {"hr": "h", "hour": "h", "sec": "s", "second": "s", "minute": "min", "ug": "µg"}
    return words.get(text, text)


def display_unit(unit: str) -> str:
    """Return a canonical unit as people write it, empty for a plain number."""
    return _SHOWN.get(unit, unit)


def did_you_mean(names: list[str], word: str) -> str:
    """Return ` (did you mean a, b?)` for the names closest to `word`, or nothing."""
    close = difflib.get_close_matches(word.casefold(), names, n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def conversion(quantity: Quantity | str, unit_from: str, unit_to: str) -> tuple[float, float]:
    """Return `(scale, offset)` with `to = scale · from + offset`.

    Equal units give exactly `(1.0, 0.0)`. Raises `UnitError` for a unit that nobody knows or that
    does not measure the quantity.
    """
    known = QUANTITIES[quantity] if isinstance(quantity, str) else quantity
    source, target = _meant(known, unit_from), _meant(known, unit_to)
    if source == target:
        return 1.0, 0.0
    if (source, target) in _EXACT:
        return _EXACT[source, target]
    return _pint_conversion(source, target, known.lel_percent_vol, known.name)


def to_canonical(quantity: Quantity, unit: str) -> tuple[float, float]:
    """Return `(scale, offset)` from `unit` to the quantity's canonical unit."""
    return conversion(quantity, unit, quantity.unit)


def _meant(quantity: Quantity, unit: str) -> str:
    unit = normalise_unit(unit)
    return quantity.percent_means if unit == "%" and quantity.percent_means else unit


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(cache_folder=None, autoconvert_offset_to_baseunit=True)
    for line in _DEFINITIONS.strip().splitlines():
        registry.define(line)
    return registry


def _pint_unit(unit: str) -> Any:
    spelled = _PINT.get(unit) or "/".join(_PINT.get(part, part) for part in unit.split("/"))
    if len(unit) > 32 or not _SYNTAX.fullmatch(spelled):
        raise UnitError(f"unknown unit {unit!r}")
    spelled = spelled.replace("²", "**2").replace("³", "**3").replace("·", "*")
    try:
        return _registry().Unit(spelled)
    except Exception as error:  # pint raises errors of its own, of the tokenizer and of Python
        raise UnitError(f"unknown unit {unit!r}") from error


def _pint_conversion(
    source: str, target: str, lel_percent_vol: float | None, quantity: str
) -> tuple[float, float]:
    registry = _registry()
    context = registry.Context()
    if lel_percent_vol is not None:
        per_lel = lel_percent_vol / 100 * registry.percent_volume / registry.percent_lel
        context.add_transformation(
            "[volume_part]", "[explosive_part]", lambda _, value: value / per_lel
        )
        context.add_transformation(
            "[explosive_part]", "[volume_part]", lambda _, value: value * per_lel
        )
    source_unit, target_unit = _pint_unit(source), _pint_unit(target)
    try:
        with registry.context(context):
            zero, one, span = (
                registry.Quantity(at, source_unit).to(target_unit).magnitude
                for at in (0.0, 1.0, 1e6)
            )
    except Exception as error:
        problem = f"{quantity} is in {target!r} or a unit that converts to it, not in {source!r}"
        raise UnitError(problem) from error
    # fifteen digits: 1 l/s is 3.6 m³/h, not 3.5999999999999996
    scale = one if zero == 0.0 else (span - zero) / 1e6
    return float(f"{scale:.15g}"), float(f"{zero:.15g}")


def load_site_quantities(path: Path) -> dict[str, Quantity]:
    """Return the built-in quantities with a site's own.

    The file is TOML: a table `[quantity.NAME]` each, with `unit`, and optionally `description` and
    `lel_percent_vol`. Raises `CatalogError` listing every fault.
    """
    file = path.name
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = f"can't be read as TOML: {error}"
        fault = Fault(kind="unreadable file", file=file, problem=problem)
        raise CatalogError(f"{path}: 1 fault", faults=[fault]) from error
    faults = [
        Fault(kind="unknown key", file=file, key=key, problem="unknown; tables are [quantity.NAME]")
        for key in content
        if key != "quantity"
    ]
    tables = content.get("quantity", {})
    if not isinstance(tables, dict):
        faults.append(Fault(file=file, key="quantity", problem="must be a table"))
        tables = {}
    known = dict(QUANTITIES)
    for name, table in tables.items():
        quantity, found = _site_quantity(file, name, table)
        faults += found
        if quantity is not None:
            known[name] = quantity
    if faults:
        raise CatalogError(f"{path}: {len(faults)} fault(s)", faults=faults)
    return known


def _site_quantity(file: str, name: str, table: Any) -> tuple[Quantity | None, list[Fault]]:
    faults: list[Fault] = []

    def fault(key: str, problem: str, value: Any = None) -> None:
        path = f"quantity.{name}.{key}" if key else f"quantity.{name}"
        faults.append(Fault(kind="quantity", file=file, key=path, problem=problem, value=value))

    if not isinstance(table, dict):
        fault("", "must be a table", table)
        return None, faults
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        fault("", "a name is lower-case letters, digits and _", name)
    if name in QUANTITIES:
        fault("", "is built in and can't be changed")
    for key in table.keys() - {"unit", "description", "lel_percent_vol"}:
        fault(key, "unknown; keys are unit, description, lel_percent_vol")
    unit, description = table.get("unit"), table.get("description", "")
    lel = table.get("lel_percent_vol")
    if not isinstance(unit, str):
        fault("unit", "must be a text", unit)
    else:
        unit = normalise_unit(unit)
        try:
            _pint_unit(unit)
        except UnitError as error:
            fault("unit", error.problem)
    if not isinstance(description, str):
        fault("description", "must be a text", description)
    if lel is not None and not (isinstance(lel, (int, float)) and 0 < lel <= 100):
        fault("lel_percent_vol", "must be above 0 and at most 100", lel)
    if faults:
        return None, faults
    assert isinstance(unit, str)
    quantity = Quantity(name=name, unit=unit, description=description, lel_percent_vol=lel)
    return quantity, []

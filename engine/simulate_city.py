"""The city of the generated day: its risk sources, their sensors, and what influences what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

STREETS = (
    ("Mill Road", "Riverside"),
    ("Quay Street", "Riverside"),
    ("Temple Lane", "Old Town"),
    ("Market Street", "Old Town"),
    ("Forge Avenue", "East Works"),
    ("Orchard Road", "Hillview"),
)
WELLS_A_STREET = 10
BUILDINGS = (
    ("Kiln House", "East Works", ("red", "yellow", "yellow", "blue", "blue")),
    ("Loom House", "East Works", ("yellow", "blue", "blue", "blue")),
    ("Anvil Yard", "East Works", ("red", "red", "yellow", "blue", "blue")),
    ("Cooper Yard", "East Works", ("yellow", "yellow", "blue", "blue")),
    ("Dye Works", "Riverside", ("red", "yellow", "blue", "blue")),
    ("Paper Mill", "Riverside", ("yellow", "yellow", "blue", "blue", "blue")),
    ("Box Factory", "Hillview", ("yellow", "blue", "blue", "blue")),
    ("Print Court", "Old Town", ("blue", "blue", "blue", "blue", "blue")),
)
"""Factory buildings that tenants share: name, district, and the static class of each unit."""
KITCHENS = (
    "Jade Court", "Old Wharf", "Nine Dragons", "Red Lantern", "Bamboo Hall", "Silver Carp",
    "Tea Pavilion", "Moon Gate", "Salt Boat", "Golden Wok", "Plum Garden", "Stone Bridge",
    "North Noodle", "East Noodle", "Harbour Grill", "Willow Inn", "Crane House", "Lucky Steam",
    "Fish Market", "Lotus Root", "Clay Pot", "Two Rivers", "Pepper Tree", "Night Market",
)  # fmt: skip
GATES = ("North", "East", "Boat", "South", "West", "Pagoda")
HALLS = ("Atrium", "Food Hall", "Metro Link", "Cinema Floor")
GAUGES = (
    ("Mill Weir", "Riverside"), ("Quay", "Riverside"), ("Dye Works", "Riverside"),
    ("Temple", "Old Town"), ("Market", "Old Town"), ("Forge", "East Works"),
    ("Anvil", "East Works"), ("Orchard", "Hillview"), ("Summit", "Hillview"), ("Lake", "Lakeside"),
)  # fmt: skip
UNDERPASSES = (
    ("Mill Road", 1), ("Quay Street", 2), ("Dye Works", 3),
    ("Market Street", 5), ("Forge Avenue", 6), ("Orchard Road", 8),
)  # fmt: skip
"""Name, and the number of the gauge that measures its catchment."""
WORKS = ((1, 4, 6), (2, 2, 3), (3, 7, 8), (4, 5, 6), (5, 1, 3), (6, 8, 10))
"""Excavations: street, first and last well that they come near."""

_PLACES = {
    "Riverside": (118.742, 32.061),
    "Old Town": (118.786, 32.028),
    "East Works": (118.859, 32.043),
    "Hillview": (118.812, 32.092),
    "Lakeside": (118.797, 32.074),
}
_OWNERS = {
    "gas_well": ("Gas network", "gas-control-room"),
    "works": ("Street works office", "works-desk"),
    "workshop": ("Fire brigade, {district}", "fire-desk"),
    "kitchen": ("Market supervision", "kitchen-desk"),
    "scenic_gate": ("Lotus Lake Park", "park-duty"),
    "scenic_area": ("Lotus Lake Park", "park-duty"),
    "mall": ("Central Arcade", "mall-duty"),
    "rain_gauge": ("Flood control", "flood-desk"),
    "underpass": ("Flood control", "flood-desk"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A row of sources.csv."""

    source_id: str
    category: str
    name: str
    static_class: str
    lon: float
    lat: float
    grid: str
    district: str
    owner: str
    contact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """A row of sensors.csv."""

    sensor_id: str
    source_id: str
    quantity: str
    unit: str
    period_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """A row of couplings.csv."""

    from_source: str
    to_source: str
    kind: str
    weight: float


@dataclass
class City:
    """The tables of the catalog folder."""

    sources: list[Source] = field(default_factory=list)
    sensors: list[Sensor] = field(default_factory=list)
    couplings: list[Coupling] = field(default_factory=list)

    def add(
        self,
        source_id: str,
        category: str,
        name: str,
        district: str,
        *sensors: tuple[str, str, str, int],
        static_class: str = "none",
    ) -> None:
        """Add a source with its sensors, each (ending of its id, quantity, unit, period in s)."""
        at = len(self.sources)
        lon, lat = _PLACES[district]
        # spread over the district on a lattice of about 150 m
        lon, lat = round(lon + (at * 7 % 23) * 0.0016, 5), round(lat + (at * 5 % 19) * 0.0013, 5)
        owner, contact = _OWNERS[category]
        self.sources.append(
            Source(
                source_id=source_id,
                category=category,
                name=name,
                static_class=static_class,
                lon=lon,
                lat=lat,
                grid=f"{int(lon * 100)}-{int(lat * 100)}",
                district=district,
                owner=owner.format(district=district),
                contact=contact,
            )
        )
        for ending, quantity, unit, period_s in sensors:
            sensor_id = f"{source_id}-{ending}"
            self.sensors.append(
                Sensor(
                    sensor_id=sensor_id,
                    source_id=source_id,
                    quantity=quantity,
                    unit=unit,
                    period_s=period_s,
                )
            )

    def couple(self, origin: str, target: str, kind: str, weight: float) -> None:
        """Let one source influence another."""
        self.couplings.append(
            Coupling(from_source=origin, to_source=target, kind=kind, weight=weight)
        )


def build_city() -> City:
    """Return the city."""
    city = City()
    _wells(city)
    _workshops(city)
    _kitchens(city)
    _crowds(city)
    _water(city)
    return city


def well(street: int, number: int) -> str:
    """Return the id of a valve well."""
    return f"well-{street}{number:02}"


def _wells(city: City) -> None:
    for street, (name, district) in enumerate(STREETS, 1):
        for number in range(1, WELLS_A_STREET + 1):
            city.add(
                well(street, number),
                "gas_well",
                f"{name} well {number}",
                district,
                ("ch4", "methane", "%LEL", 60),
                ("p", "pressure", "kPa", 60),
            )
            if number > 1:
                _both(city, well(street, number - 1), well(street, number), "pipe", 0.5)
    for number, (street, first, last) in enumerate(WORKS, 1):
        name, district = STREETS[street - 1]
        city.add(
            f"works-{number}",
            "works",
            f"{name} excavation",
            district,
            ("permit", "permit", "1", 300),
        )
        for near in range(first, last + 1):
            city.couple(f"works-{number}", well(street, near), "works", 1.0)


def _both(city: City, one: str, other: str, kind: str, weight: float) -> None:
    city.couple(one, other, kind, weight)
    city.couple(other, one, kind, weight)


def _workshops(city: City) -> None:
    for number, (name, district, classes) in enumerate(BUILDINGS, 1):
        for unit, static_class in enumerate(classes, 1):
            city.add(
                f"shop-{number}{unit}",
                "workshop",
                f"{name} unit {unit}",
                district,
                ("smoke", "smoke", "%/m", 30),
                ("temp", "temperature", "°C", 30),
                ("gas", "combustible_gas", "%LEL", 60),
                static_class=static_class,
            )
        for one, other in _pairs(len(classes)):
            # a wall in common, or the same stairwell
            weight = 0.9 if other - one == 1 else 0.6
            _both(city, f"shop-{number}{one}", f"shop-{number}{other}", "building", weight)


def _pairs(n: int) -> Iterator[tuple[int, int]]:
    for one in range(1, n + 1):
        for other in range(one + 1, n + 1):
            yield one, other


def _kitchens(city: City) -> None:
    districts = ("Old Town", "Riverside", "Lakeside", "Old Town")
    for number, name in enumerate(KITCHENS, 1):
        city.add(
            f"kitchen-{number:02}",
            "kitchen",
            f"{name} kitchen",
            districts[number % len(districts)],
            ("co", "carbon_monoxide", "ppm", 30),
            ("gas", "combustible_gas", "%LEL", 30),
        )


def _crowds(city: City) -> None:
    city.add(
        "park",
        "scenic_area",
        "Lotus Lake Park",
        "Lakeside",
        ("inside", "occupancy", "%", 60),
        static_class="yellow",
    )
    for number, name in enumerate(GATES, 1):
        city.add(
            f"gate-{number}",
            "scenic_gate",
            f"{name} Gate",
            "Lakeside",
            ("count", "crowd_count", "person", 60),
            ("density", "crowd_density", "person/m²", 10),
        )
    for number in range(1, len(GATES) + 1):
        _both(city, f"gate-{number}", f"gate-{number % len(GATES) + 1}", "crowd", 0.5)
    for number, name in enumerate(HALLS, 1):
        city.add(
            f"hall-{number}",
            "mall",
            f"Central Arcade {name}",
            "Old Town",
            ("count", "crowd_count", "person", 60),
            ("density", "crowd_density", "person/m²", 30),
        )


def _water(city: City) -> None:
    for number, (name, district) in enumerate(GAUGES, 1):
        city.add(
            f"gauge-{number:02}",
            "rain_gauge",
            f"{name} rain gauge",
            district,
            ("rain", "rain", "mm", 300),
        )
    for number, (name, gauge) in enumerate(UNDERPASSES, 1):
        city.add(
            f"underpass-{number}",
            "underpass",
            f"{name} underpass",
            GAUGES[gauge - 1][1],
            ("level", "level", "cm", 60),
        )
        city.couple(f"gauge-{gauge:02}", f"underpass-{number}", "catchment", 1.0)

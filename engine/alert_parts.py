"""What alert records say of a moment, a source, a sensor, a signal: JSON made once, and kept.

Parts are UTF-8, and texts as they stand between the quotes of JSON: a record is only joined. Joined
as text it would have to be encoded whole, which takes a µs where one letter is not ASCII.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from engine.arrow_views import column_of
from engine.plan import Plan
from engine.routing import Routing
from engine.sentences import OF_ZERO, OTHER_SIDE, Phrase, amount, phrases
from kernels.layout import ABSENCE, HIGH, KIND_NAMES, LEVEL_NAMES, N_KINDS, WINDOW

Array = np.ndarray[Any, Any]

STATIC_CLASSES = (b"none", b"blue", b"yellow", b"red")
MOST_KNOWN = 32_768
"""Sources, and as many sensors, that are kept: about 50 MB. Beyond it all are forgotten at once."""


def escaped(texts: list[str]) -> list[bytes]:
    """Return texts as they stand between the quotes of JSON."""
    # a quote inside a text has a backslash before it: only between two texts does "," stand
    return orjson.dumps(texts)[2:-2].split(b'","') if texts else []


def numbers(values: Array) -> list[bytes]:
    """Return numbers as JSON; what is not finite is null."""
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return text[1:-1].split(b",") if len(values) else []


class LocalClock:
    """Writes seconds as the site's, remembering the last one and its day."""

    def __init__(self, zone: timezone) -> None:
        self._zone = zone
        midnight = datetime.fromtimestamp(0, zone)
        self._offset_s = int(zone.utcoffset(midnight).total_seconds())
        self.suffix = midnight.isoformat()[19:].encode()
        self._day = self._second = -1
        self._date = ""
        self._said = (b"", b"")

    def at(self, second: int) -> tuple[bytes, bytes]:
        """Return ``2026-01-31T23:59:59`` of an epoch second, and the same with a space."""
        if second != self._second:
            day, s = divmod(second + self._offset_s, 86_400)
            if day != self._day:
                self._day = day
                self._date = datetime.fromtimestamp(second, self._zone).date().isoformat()
            minutes, s = divmod(s, 60)
            h, minutes = divmod(minutes, 60)
            stamp = f"{self._date}T{h:02}:{minutes:02}:{s:02}".encode()
            self._second, self._said = second, (stamp, stamp.replace(b"T", b" "))
        return self._said


Source = tuple[bytes, bytes, bytes, bytes, bytes, tuple[bytes, ...]]
"""What records say of a source: its id; the same as JSON has it; who it is; the members from
``source`` to ``static_class``; those from ``place`` to the name of ``routes``; its routes by the
levels reached.

A plain tuple: the garbage collector soon looks no more at it, as it would at a named one.
"""


class Sources:
    """The sources that alerts were about lately."""

    def __init__(self, plan: Plan) -> None:
        catalog = self._catalog = plan.catalog
        self._routing = Routing(catalog, plan.rules)
        names = ("source_id", "name", "grid", "owner", "contact")
        columns = {name: getattr(catalog, name) for name in names}
        self._texts = pa.RecordBatch.from_pydict(columns)
        self._districts = [*catalog.districts, None]
        self._shown_districts = [*(b'"%b"' % name for name in escaped(catalog.districts)), b"null"]
        self._categories = escaped(catalog.categories)
        self._known: dict[int, Source] = {}

    def get(self, indices: list[int]) -> list[Source]:
        """Return some sources, given by index."""
        known = self._known
        new = {i for i in indices if i not in known}
        if new:
            if len(known) + len(new) > MOST_KNOWN:
                known.clear()
                new = set(indices)
            self._learn(np.array(sorted(new), np.int64))
        return [known[i] for i in indices]

    def _learn(self, new: Array) -> None:
        catalog = self._catalog
        texts = [
            column.to_pylist() for column in self._texts.take(column_of(new, pa.int64())).columns
        ]
        codes = (
            getattr(catalog, key)[new].tolist()
            for key in ("category", "district", "department", "static_class")
        )
        columns = zip(
            texts[0],
            *map(escaped, texts),
            numbers(catalog.lon[new]),
            numbers(catalog.lat[new]),
            *codes,
            strict=True,
        )
        for source, fields in zip(new.tolist(), columns, strict=True):
            self._known[source] = self._source(*fields)

    def _source(
        self,
        key: str,
        source_id: bytes,
        name: bytes,
        grid: bytes,
        owner: bytes,
        contact: bytes,
        lon: bytes,
        lat: bytes,
        category: int,
        district: int,
        department: int,
        static_class: int,
    ) -> Source:
        who = b"%b (%b)" % (name, source_id) if name and name != source_id else source_id
        within = self._shown_districts[district]
        return (
            key.encode(),
            source_id,
            b"%b, %b" % (who, within[1:-1]) if self._districts[district] else who,
            b',"source":"%b","category":"%b","static_class":"%b"'
            % (source_id, self._categories[category], STATIC_CLASSES[static_class]),
            b',"place":{"name":"%b","lon":%b,"lat":%b,"grid":"%b","district":%b},'
            b'"responsible":{"owner":"%b","contact":"%b"},"routes":'
            % (name, lon, lat, grid, within, owner, contact),
            self._routing.routes(category, district, department),
        )


Sensor = tuple[bytes, str, int, bytes]
"""What records say of a sensor: its object up to the name of the detector; what it measures; its
row of parameters; the silence in seconds that makes it absent. Plain like `Source`."""


class Sensors:
    """The sensors that alerts named lately."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        names = plan.catalog.quantities
        self._quantities = escaped(names)
        self._whats = [name.replace("_", " ") for name in map(bytes.decode, self._quantities)]
        self._known: dict[int, Sensor] = {}

    def get(self, indices: list[int]) -> list[Sensor]:
        """Return some sensors, given by index."""
        known = self._known
        new = {i for i in indices if i not in known}
        if new:
            if len(known) + len(new) > MOST_KNOWN:
                known.clear()
                new = set(indices)
            self._learn(np.array(sorted(new), np.int64))
        return [known[i] for i in indices]

    def _learn(self, new: Array) -> None:
        plan, catalog = self._plan, self._plan.catalog
        codes = catalog.quantity[new]
        for sensor, name, code, alone, row, silent in zip(
            new.tolist(),
            escaped(catalog.sensor_id.take(column_of(new, pa.int64())).to_pylist()),
            codes.tolist(),
            self._alone(new, codes).tolist(),
            plan.row[new].tolist(),
            numbers(plan.absent_ms[new] / 1000),
            strict=True,
        ):
            what = self._whats[code]
            self._known[sensor] = (
                b'{"sensor":"%b","quantity":"%b","detector":"' % (name, self._quantities[code]),
                what if alone else f"{what} ({name.decode()})",
                row,
                silent,
            )

    def _alone(self, sensors: Array, codes: Array) -> Array:
        """Return which sensors are the only ones of their quantity at their source."""
        catalog = self._plan.catalog
        homes = catalog.sensor_source[sensors]
        firsts = catalog.sensor_start[homes]
        counts = catalog.sensor_start[homes + 1] - firsts
        begins = np.cumsum(counts) - counts
        beside = np.arange(int(counts.sum())) + np.repeat(firsts - begins, counts)
        same = catalog.quantity[beside] == np.repeat(codes, counts)
        return np.add.reduceat(same, begins, dtype=np.int64) == 1


class Limit(NamedTuple):
    """One limit of a signal: as it stands in a record, and how the signal is told with it."""

    shown: bytes
    usual: Phrase
    other: Phrase


class Measure(NamedTuple):
    """How the signals of one row, kind, level and window are shown."""

    numbers: tuple[float, float, float, float, bool]
    """Scale of the value (NaN for what fades: what was noted since may be of another signal), the
    low limit, the high one, on which side the other phrase holds (NaN: none), and of what: 0 or
    the limit."""
    low: Limit
    high: Limit
    is_absence: bool
    detector: bytes
    """Members from the name of the detector to the value."""
    level: bytes
    """Members from ``unit`` to the signal."""
    tail: bytes


class Measures:
    """The measures that alerts named."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._known: dict[tuple[int, int, int, int], Measure] = {}

    def get(self, keys: Iterable[tuple[int, int, int, int]]) -> list[Measure]:
        """Return the measures of some (row, kind, level, window)."""
        known = self._known
        return [known.get(key) or self._learn(key) for key in keys]

    def _learn(self, key: tuple[int, int, int, int]) -> Measure:
        plan, (row, kind, level, window) = self._plan, key
        shown_kind = kind if kind < N_KINDS else HIGH
        detector = KIND_NAMES[shown_kind]
        scale, unit = plan.statistic(row, shown_kind, 1.0, window)
        shown_unit = escaped([unit])[0].decode()
        name = None
        if kind == WINDOW:
            name = plan.window_names[int(plan.params["first_window"][row]) + window]
            name = escaped([name])[0].decode()
        low, high = (
            plan.limit(row, shown_kind, level, window, value=side) if level else math.nan
            for side in (-math.inf, math.inf)
        )

        def limit(value: float) -> Limit:
            # float32 like the readings, so that neither has digits that it was not given
            short = np.array([value], np.float32)
            (shown,) = numbers(short)
            told = None if shown == b"null" else amount(float(short[0]), shown_unit)
            return Limit(shown, *phrases(detector, shown_unit, told, name, level == 0))

        tail = f',"fading":{"false" if level else "true"}'
        if name is not None:
            tail += f',"window":"{name}"'
        measure = self._known[key] = Measure(
            numbers=(
                scale if level else math.nan,
                low,
                high,
                OTHER_SIDE.get(detector, math.nan),
                detector in OF_ZERO,
            ),
            low=limit(low),
            high=limit(high),
            is_absence=kind == ABSENCE and level > 0,
            detector=f'{detector}","value":'.encode(),
            level=f',"unit":"{shown_unit}","level":"{LEVEL_NAMES[level]}","signal":'.encode(),
            tail=f"{tail}}}".encode(),
        )
        return measure

"""A generated day of a city: catalog folder, readings in order of arrival, and the truth.

`python -m replay_data` writes the day that the project carries. A seed gives the same rows on every
machine: random numbers are those of PCG64, and no maths library rounds between them and the file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.simulate_city import City, Sensor, build_city
from engine.simulate_feed import (
    STRANGER,
    Rows,
    arriving,
    clock_of,
    in_arrival_order,
    joined,
    strays,
)
from engine.simulate_script import Added, Burst, Held, Silent, changes_of, truth_rows
from engine.simulate_signals import (
    NORMAL,
    Seconds,
    Values,
    as_read,
    random_of,
    seconds,
)

SEED = 181
ZONE = timezone(timedelta(hours=8))
MIDNIGHT = datetime(2025, 7, 16, tzinfo=ZONE)
"""A Wednesday in summer."""
SCHEMA = pa.schema(
    [
        ("sensor", pa.dictionary(pa.int32(), pa.string())),
        ("ts", pa.timestamp("ms", "UTC")),
        ("value", pa.float32()),
        ("quality", pa.uint8()),
    ]
)
_GROUP_ROWS = 1 << 16
_CROWD = ("scenic_gate", "mall")


@dataclass(frozen=True)
class Day:
    """Everything about the day but its rules."""

    city: City
    readings: pa.Table
    truth: list[dict[str, Any]]


def generate(seed: int = SEED, start: datetime = MIDNIGHT) -> Day:
    """Return the day of a seed."""
    city = build_city()
    category = {source.source_id: source.category for source in city.sources}
    parts = [
        _sensor_rows(seed, number, sensor, category[sensor.source_id])
        for number, sensor in enumerate(city.sensors)
    ]
    log = in_arrival_order(joined([*parts, strays(seed, city)]))
    midnight_ms = round(start.timestamp()) * 1000
    return Day(city, _table(city, log, midnight_ms), truth_rows(midnight_ms))


def _sensor_rows(seed: int, number: int, sensor: Sensor, category: str) -> Rows:
    # how many stand there and how dense they stand is one crowd, measured twice
    name = sensor.source_id if category in _CROWD else sensor.sensor_id
    t = clock_of(random_of(seed, sensor.sensor_id, 0), sensor)
    random = random_of(seed, name, 1)
    values = NORMAL[category, sensor.quantity](random, t)
    t, values, quality = _changed(random, sensor, t, values)
    return arriving(seed, number, sensor, t, as_read(sensor.quantity, values), quality)


def _changed(
    random: np.random.Generator, sensor: Sensor, t: Seconds, values: Values
) -> tuple[Seconds, Values, NDArray[np.uint8]]:
    """Let the scenes of the day act on a sensor; instruments round before they stick."""
    quality = np.zeros(len(t), np.uint8)
    kept = np.ones(len(t), np.bool_)
    for change in changes_of(sensor.sensor_id):
        if isinstance(change, (Added, Burst, Held)):
            values = change.apply(random, t, values)
            continue
        inside = (t >= seconds(change.start)) & (t < seconds(change.end))
        if isinstance(change, Silent):
            kept &= ~inside
        else:
            quality[inside] = change.quality
    return t[kept], values[kept], quality[kept]


def _table(city: City, log: Rows, midnight_ms: int) -> pa.Table:
    names = [*(sensor.sensor_id for sensor in city.sensors), STRANGER]
    sensor = pa.DictionaryArray.from_arrays(pa.array(log.sensor), pa.array(names))
    ts = pa.array(log.event_ms + midnight_ms).cast(SCHEMA.field("ts").type)
    value = pa.array(log.value.astype(np.float32))
    return pa.table([sensor, ts, value, pa.array(log.quality)], schema=SCHEMA)


def write_day(folder: Path, day: Day) -> None:
    """Write the catalog tables, readings.parquet and truth.csv; rules.toml is written by people."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "sources.csv", [asdict(source) for source in day.city.sources])
    _write_csv(folder / "sensors.csv", [asdict(sensor) for sensor in day.city.sensors])
    _write_csv(folder / "couplings.csv", [asdict(each) for each in day.city.couplings])
    _write_csv(folder / "truth.csv", [_truth_row(row) for row in day.truth])
    pq.write_table(
        day.readings,
        folder / "readings.parquet",
        row_group_size=_GROUP_ROWS,
        compression="zstd",
        compression_level=15,
        use_dictionary=["sensor", "value"],
        column_encoding={"ts": "DELTA_BINARY_PACKED"},
        store_schema=False,
    )


def _truth_row(row: Mapping[str, Any]) -> dict[str, Any]:
    def shown(ms: int) -> str:
        return datetime.fromtimestamp(ms // 1000, ZONE).isoformat()

    return {
        "source": row["source"],
        "start": shown(row["start_ms"]),
        "end": shown(row["end_ms"]),
        **{key: row[key] for key in ("kind", "level", "about")},
    }


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

"""How the readings of the generated day arrive: late, twice, in packs, and sometimes wrong.

What is built is the log in the order of arrival. Within a sensor the order is that of the event
times, but for what a gateway sends again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from engine.simulate_city import City, Sensor
from engine.simulate_signals import DAY_S, Random, Seconds, Values, random_of, seconds

LOST = 0.003
"""Share of readings that never arrive."""
NOT_A_NUMBER, NOT_GOOD, SENT_AGAIN, SENT_LATE = 0.0002, 0.0003, 0.001, 0.0002
PACKED_STREET = 6
"""The loggers of this street's wells save their batteries: they send five readings at a time."""
PACK_S = 300
OUTAGE_STREET = 4
OUTAGE = (seconds("06:10"), seconds("06:25"))
"""This street's gateway is cut off, keeps what its wells read, and sends it afterwards."""
STRANGER = "well-611-ch4"
"""A sensor that was taken out of the catalog, but not out of the ground."""


@dataclass
class Rows:
    """Rows of the log: `sensor` counts the sensors of the city; times in ms of the day."""

    sensor: NDArray[np.int32]
    event_ms: NDArray[np.int64]
    arrival_ms: NDArray[np.int64]
    value: Values
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.sensor)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        return Rows(*(getattr(self, each.name)[which] for each in fields(self)))


def joined(parts: list[Rows]) -> Rows:
    """Return rows one after the other."""
    return Rows(*(np.concatenate([getattr(p, each.name) for p in parts]) for each in fields(Rows)))


def clock_of(random: Random, sensor: Sensor) -> Seconds:
    """Return the seconds of the day at which a sensor reads: its period, and a little jitter."""
    period_s = sensor.period_s
    phase_s = int(random.integers(0, period_s))
    t = np.arange(phase_s, DAY_S, period_s, dtype=np.int64)
    if period_s >= 30:
        t += (random.random(len(t)) < 0.03).astype(np.int64)
    return np.minimum(t, DAY_S - 1)


def arriving(
    seed: int, number: int, sensor: Sensor, t: Seconds, values: Values, quality: NDArray[np.uint8]
) -> Rows:
    """Return a sensor's readings as rows of the log, with the faults of its line."""
    random = random_of(seed, sensor.sensor_id, 2)
    n = len(t)
    values, quality = values.copy(), quality.copy()
    values[random.random(n) < NOT_A_NUMBER] = np.nan
    quality[random.random(n) < NOT_GOOD] = 1
    rows = Rows(
        np.full(n, number, np.int32),
        t * 1000,
        _arrival_ms(random, sensor, t),
        values,
        quality,
    )
    kept = random.random(n) >= LOST
    if random.random() < 0.1:
        # bad reception for a few minutes
        begins = int(random.integers(0, DAY_S))
        kept &= ~((t >= begins) & (t < begins + int(random.integers(180, 540))))
    rows = rows.take(kept)
    again = rows.take(random.random(len(rows)) < SENT_AGAIN)
    again.arrival_ms = again.arrival_ms + 700
    late = rows.take(random.random(len(rows)) < SENT_LATE)
    late.arrival_ms = late.arrival_ms + 1000 * random.integers(200, 900, len(late))
    return joined([rows, again, late])


def _arrival_ms(random: Random, sensor: Sensor, t: Seconds) -> NDArray[np.int64]:
    wait_ms = 300 + random.integers(0, 4, len(t)) * 500
    if sensor.source_id.startswith(f"well-{PACKED_STREET}"):
        wait_ms += 1000 * (PACK_S - 1 - t % PACK_S)
    if sensor.source_id.startswith(f"well-{OUTAGE_STREET}"):
        cut_off = (t >= OUTAGE[0]) & (t < OUTAGE[1])
        wait_ms += np.where(cut_off, 1000 * (OUTAGE[1] + 5 - t), 0)
    # a line keeps its order
    return np.asarray(np.maximum.accumulate(t * 1000 + wait_ms))


def strays(seed: int, city: City) -> Rows:
    """Return readings that no sensor of the city can have sent, or not then."""
    random = random_of(seed, "strays", 3)
    t = np.arange(40, DAY_S, 600, dtype=np.int64)
    stranger = Rows(
        np.full(len(t), len(city.sensors), np.int32),
        t * 1000,
        t * 1000 + 900,
        np.rint(12 + 4 * random.random(len(t))) / 10,
        np.zeros(len(t), np.uint8),
    )
    by_id = {sensor.sensor_id: number for number, sensor in enumerate(city.sensors)}
    # a gateway whose clock starts empty, one that is ahead, a transmitter off its scale
    odd = [
        ("kitchen-14-co", "00:00:05", "13:00:00", 3.0),
        ("kitchen-14-co", "00:00:35", "13:00:30", 3.0),
        ("gate-2-count", "23:59:00", "05:00:00", 0.0),
        ("well-209-p", "17:30:20", "17:30:21", 9999.0),
        ("well-209-p", "17:31:20", "17:31:21", 9999.0),
    ]
    event_ms = np.array([1000 * seconds(event) for _, event, _, _ in odd])
    arrival_ms = np.array([1000 * seconds(arrival) for _, _, arrival, _ in odd])
    return joined(
        [
            stranger,
            Rows(
                np.array([by_id[sensor] for sensor, _, _, _ in odd], np.int32),
                event_ms,
                arrival_ms,
                np.array([value for _, _, _, value in odd]),
                np.zeros(len(odd), np.uint8),
            ),
        ]
    )


def in_arrival_order(rows: Rows) -> Rows:
    """Return the log: by arrival, then sensor, then event time."""
    return rows.take(np.lexsort((rows.event_ms, rows.sensor, rows.arrival_ms)))

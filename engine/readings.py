"""A batch of the log as columns: what decoding yields and the pipeline takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.layout import COUNT_NAMES, LEVEL_NAMES, TICK, TRANSITION_NAMES

OUTCOMES = COUNT_NAMES
"""What may become of a reading; `late` and `ticks` are counted besides."""
LEVELS = LEVEL_NAMES
TRANSITIONS = TRANSITION_NAMES


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that can't be written: kernels are compiled once, for arrays of this kind."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Records of the log in order; columns of one length.

    ``sensor`` int32 dense index, or TICK, ACKNOWLEDGE, UNKNOWN (negative); ``event_ms`` int64 epoch
    milliseconds; ``value`` float64 in the sensor's unit; ``quality`` uint8, 0 good.
    """

    sensor: NDArray[np.int32]
    event_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        """Count the records, ticks included."""
        return len(self.sensor)

    def cut(self, start: int, stop: int) -> "Readings":
        """Return records ``start`` to ``stop`` as views."""
        return Readings(
            self.sensor[start:stop],
            self.event_ms[start:stop],
            self.value[start:stop],
            self.quality[start:stop],
        )

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> "Readings":
        """Return the records that a mask keeps, or those at some places, as copies."""
        return Readings(
            self.sensor[keep], self.event_ms[keep], self.value[keep], self.quality[keep]
        )

    @classmethod
    def of(
        cls,
        sensor: object,
        event_ms: object,
        value: object,
        quality: object | None = None,
    ) -> "Readings":
        """Build a batch from anything array-like; good quality unless given."""
        index = np.ascontiguousarray(sensor, np.int32)
        return cls(
            index,
            np.ascontiguousarray(event_ms, np.int64),
            np.ascontiguousarray(value, np.float64),
            np.zeros(len(index), np.uint8)
            if quality is None
            else np.ascontiguousarray(quality, np.uint8),
        )

    @classmethod
    def tick(cls, event_ms: int) -> "Readings":
        """Build the one-record batch that moves time to ``event_ms``."""
        return cls.of([TICK], [event_ms], [0.0])


def tick_message(event_ms: int) -> bytes:
    """Return the message by which a log says how late it is."""
    return b'{"tocsin":"tick","event_ms":%d}' % event_ms

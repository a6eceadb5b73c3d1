"""The slow, obvious truth of every kernel and of the whole line, from ``kernels/README.md``.

One record at a time, plain Python numbers, no cleverness. Where the definition stores a float32 the
oracle rounds at that store and nowhere else.
"""

from tests.oracle.detectors import (
    detect_bad,
    detect_deviation,
    detect_drift,
    detect_flatline,
    detect_limits,
    detect_rate,
    detect_spike,
    detect_windows,
    ladder,
)
from tests.oracle.fusion import Fusion
from tests.oracle.line import Oracle, Record
from tests.oracle.sensor import Change, Sensor, pack, strongest

__all__ = [
    "Change",
    "Fusion",
    "Oracle",
    "Record",
    "Sensor",
    "detect_bad",
    "detect_deviation",
    "detect_drift",
    "detect_flatline",
    "detect_limits",
    "detect_rate",
    "detect_spike",
    "detect_windows",
    "ladder",
    "pack",
    "strongest",
]

"""What happens on the generated day: the incidents, and what only looks like one.

Each scene changes the readings of some sensors. An incident also says which sources it strikes,
from when to when, and the level that each deserves: that is the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.simulate_signals import Points, Random, Seconds, Values, noise, seconds, through


@dataclass(frozen=True, slots=True)
class Added:
    """Something comes on top of what a sensor reads, uneven as real plumes and crowds are."""

    sensor: str
    points: Points
    rough: float = 0.05

    def apply(self, random: Random, t: Seconds, values: Values) -> Values:
        """Return the values with it."""
        return values + through(t, self.points) * (1.0 + self.rough * noise(random, len(t)))


@dataclass(frozen=True, slots=True)
class Burst:
    """Some readings in a row, from a time on, come out at a value: a spike."""

    sensor: str
    start: str
    value: float
    n: int = 1

    def apply(self, random: Random, t: Seconds, values: Values) -> Values:
        """Return the values with it."""
        first = int(np.searchsorted(t, seconds(self.start)))
        changed = values.copy()
        changed[first : first + self.n] = self.value
        return changed


@dataclass(frozen=True, slots=True)
class Held:
    """The sensor repeats what it read last."""

    sensor: str
    start: str
    end: str

    def apply(self, random: Random, t: Seconds, values: Values) -> Values:
        """Return the values with it."""
        first, last = np.searchsorted(t, [seconds(self.start), seconds(self.end)])
        changed = values.copy()
        changed[first:last] = changed[first]
        return changed


@dataclass(frozen=True, slots=True)
class Silent:
    """The sensor sends nothing."""

    sensor: str
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Faulty:
    """The sensor says itself that its readings are not good."""

    sensor: str
    start: str
    end: str
    quality: int = 2


Change = Added | Burst | Held | Silent | Faulty


@dataclass(frozen=True, slots=True)
class Struck:
    """A source that an incident strikes, and the level that it deserves."""

    source: str
    start: str
    end: str
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An incident, or without `strikes` something harmless."""

    kind: str
    about: str
    changes: tuple[Change, ...]
    strikes: tuple[Struck, ...] = ()


def _permits(number: int, start: str, end: str) -> Added:
    before, after = _shifted(start, -60), _shifted(end, 60)
    points = ((before, 0.0), (start, 1.0), (end, 1.0), (after, 0.0))
    return Added(f"works-{number}-permit", points, 0.0)


def _shifted(clock: str, by_s: int) -> str:
    at = seconds(clock) + by_s
    return f"{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}"


INCIDENTS = (
    Scene(
        kind="slow leak",
        about="a flange seeps into the well until the night crew tightens it",
        changes=(
            Added("well-207-ch4", (("02:40", 0), ("05:30", 32), ("06:20", 34), ("06:50", 0))),
        ),
        strikes=(Struck("well-207", "02:40", "06:50", "yellow"),),
    ),
    Scene(
        kind="gas hose off",
        about="a burner hose slips off in a closed kitchen; the owner airs the room",
        changes=(
            Added("kitchen-19-gas", (("04:15", 0), ("04:40", 38), ("05:00", 39), ("05:10", 0))),
        ),
        strikes=(Struck("kitchen-19", "04:15", "05:10", "yellow"),),
    ),
    Scene(
        kind="smouldering waste",
        about="paper smoulders in a bin: thin smoke for two hours, hardly any heat",
        changes=(
            Added("shop-63-smoke", (("05:30", 0), ("06:35", 5.2), ("07:15", 5.4), ("07:30", 0))),
            Added("shop-63-temp", (("05:40", 0), ("06:40", 3), ("07:15", 3), ("07:45", 0)), 0.01),
        ),
        strikes=(Struck("shop-63", "05:30", "07:30", "blue"),),
    ),
    Scene(
        kind="small leak",
        about="a gland weeps into a well for half the day, no more than sewers give elsewhere",
        changes=(
            Added("well-409-ch4", (("06:40", 0), ("09:30", 5.4), ("17:30", 5.8), ("18:30", 0))),
        ),
        strikes=(Struck("well-409", "06:40", "18:30", "blue"),),
    ),
    Scene(
        kind="sensor drifts",
        about="a gas detector's zero creeps upward all day",
        changes=(Added("shop-41-gas", (("07:00", 0), ("19:00", 8)), 0.0),),
        strikes=(Struck("shop-41", "07:00", "24:00", "blue"),),
    ),
    Scene(
        kind="sensor dead",
        about="a methane sensor's battery is empty",
        changes=(Silent("well-504-ch4", "08:20", "24:00"),),
        strikes=(Struck("well-504", "08:20", "24:00", "blue"),),
    ),
    Scene(
        kind="third-party damage",
        about="an excavator tears the pipe beside a well; its neighbours lose pressure",
        changes=(
            _permits(1, "08:00", "17:00"),
            Added("well-105-ch4", (("09:38", 0), ("09:50", 16), ("10:20", 19), ("10:40", 0))),
            Added("well-105-p", (("09:38", 0), ("09:45", -45), ("10:25", -46), ("10:38", 0)), 0.01),
            Added("well-104-p", (("09:38", 0), ("09:46", -26), ("10:25", -26), ("10:38", 0)), 0.01),
            Added("well-106-p", (("09:38", 0), ("09:46", -28), ("10:25", -28), ("10:38", 0)), 0.01),
        ),
        strikes=(
            Struck("well-105", "09:38", "10:40", "orange"),
            Struck("well-104", "09:38", "10:40", "blue"),
            Struck("well-106", "09:38", "10:40", "blue"),
        ),
    ),
    Scene(
        kind="sensor unusable",
        about="a smoke detector is soiled and says so",
        changes=(Faulty("shop-81-smoke", "10:30", "11:30"),),
        strikes=(Struck("shop-81", "10:30", "11:30", "blue"),),
    ),
    Scene(
        kind="solvent vapour",
        about="an open drum evaporates into the unit until someone closes it",
        changes=(Added("shop-53-gas", (("10:40", 0), ("11:30", 8.5), ("12:20", 9), ("12:50", 0))),),
        strikes=(Struck("shop-53", "10:40", "12:50", "blue"),),
    ),
    Scene(
        kind="kitchen CO",
        about="a blocked flue fills the kitchen with carbon monoxide over lunch",
        changes=(
            Added("kitchen-07-co", (("11:05", 0), ("11:45", 190), ("12:05", 260), ("12:25", 0))),
        ),
        strikes=(Struck("kitchen-07", "11:05", "12:25", "orange"),),
    ),
    Scene(
        kind="sensor stuck",
        about="a temperature transmitter freezes",
        changes=(Held("shop-24-temp", "12:10", "24:00"),),
        strikes=(Struck("shop-24", "12:10", "24:00", "blue"),),
    ),
    Scene(
        kind="sudden leak",
        about="a valve seal bursts: explosive within minutes",
        changes=(
            Added("well-602-ch4", (("13:10", 0), ("13:14", 70), ("13:40", 78), ("14:05", 0))),
            Added("well-602-p", (("13:10", 0), ("13:16", -9), ("13:45", -9), ("14:05", 0)), 0.01),
        ),
        strikes=(Struck("well-602", "13:10", "14:05", "red"),),
    ),
    Scene(
        kind="cloudburst",
        about="a thunderstorm stands over Riverside for two hours; two underpasses flood",
        changes=(
            Added("gauge-01-rain", (("14:20", 0), ("15:00", 4.2), ("15:50", 3.6), ("16:40", 0))),
            Added("gauge-02-rain", (("14:25", 0), ("15:05", 5.0), ("15:55", 4.0), ("16:45", 0))),
            Added("gauge-03-rain", (("14:25", 0), ("15:05", 6.4), ("16:00", 6.8), ("16:50", 0))),
            Added(
                "underpass-1-level",
                (("14:50", 0), ("16:20", 36), ("17:00", 30), ("18:40", 0)),
                0.02,
            ),
            Added("underpass-2-level", (("14:50", 0), ("16:10", 7), ("17:30", 0)), 0.02),
            Added(
                "underpass-3-level",
                (("14:45", 0), ("16:30", 62), ("17:15", 55), ("19:20", 0)),
                0.02,
            ),
        ),
        strikes=(
            Struck("gauge-01", "14:20", "16:40", "orange"),
            Struck("gauge-02", "14:25", "16:45", "orange"),
            Struck("gauge-03", "14:25", "16:50", "red"),
            Struck("underpass-1", "14:20", "18:40", "yellow"),
            Struck("underpass-2", "14:25", "17:30", "blue"),
            Struck("underpass-3", "14:25", "19:20", "red"),
        ),
    ),
    Scene(
        kind="workshop fire",
        about="a solvent fire in unit 2; smoke reaches both neighbours, the whole yard is warned",
        changes=(
            Added("shop-32-smoke", (("15:20", 0), ("15:26", 22), ("16:10", 30), ("16:50", 0))),
            Added("shop-32-temp", (("15:21", 0), ("15:30", 58), ("16:10", 70), ("17:00", 4)), 0.01),
            Added("shop-33-smoke", (("15:27", 0), ("15:40", 12), ("16:20", 8), ("16:55", 0))),
            Added("shop-33-temp", (("15:30", 0), ("15:50", 14), ("16:20", 10), ("17:00", 0)), 0.01),
            Added("shop-31-smoke", (("15:30", 0), ("15:46", 7.5), ("16:20", 5), ("16:50", 0))),
        ),
        strikes=(
            Struck("shop-32", "15:20", "17:00", "red"),
            Struck("shop-33", "15:20", "17:00", "orange"),
            Struck("shop-31", "15:20", "17:00", "yellow"),
            Struck("shop-34", "15:20", "17:00", "blue"),
            Struck("shop-35", "15:20", "17:00", "blue"),
        ),
    ),
    Scene(
        kind="full park",
        about="an evening show draws more people than the park may hold",
        changes=(
            Added("park-inside", (("17:10", 0), ("19:25", 74), ("20:10", 66), ("21:30", 0)), 0.0),
        ),
        strikes=(Struck("park", "17:10", "21:00", "red"),),
    ),
    Scene(
        kind="train stoppage",
        about="passengers back up from the metro into the arcade",
        changes=(
            Added("hall-3-density", (("17:40", 0), ("18:05", 3.4), ("18:35", 3.5), ("18:55", 0))),
            Added("hall-3-count", (("17:40", 0), ("18:05", 2040), ("18:35", 2100), ("18:55", 0))),
        ),
        strikes=(Struck("hall-3", "17:40", "18:55", "yellow"),),
    ),
    Scene(
        kind="crowd crush",
        about="the show's crowd jams at the South Gate until stewards open a second way",
        changes=(
            Added("gate-4-density", (("18:40", 0), ("19:25", 5.4), ("19:50", 5.6), ("20:12", 0))),
            Added("gate-4-count", (("18:40", 0), ("19:25", 1290), ("19:50", 1340), ("20:12", 0))),
        ),
        strikes=(Struck("gate-4", "18:40", "20:12", "orange"),),
    ),
    Scene(
        kind="supply pressure lost",
        about="a regulator closes: the far end of Temple Lane runs empty",
        changes=tuple(
            Added(
                f"well-30{number}-p",
                (("20:35", 0), ("20:55", drop), ("21:40", drop), ("21:55", 0)),
                0.01,
            )
            for number, drop in ((7, -108.0), (8, -122.0), (9, -131.0))
        ),
        strikes=tuple(
            Struck(f"well-30{number}", "20:35", "21:55", "yellow") for number in (7, 8, 9)
        ),
    ),
    Scene(
        kind="overheated cabinet",
        about="a switch cabinet glows with nobody in: heat, almost no smoke",
        changes=(
            Added("shop-15-temp", (("21:30", 0), ("21:52", 33), ("22:20", 34), ("22:45", 0)), 0.01),
            Added("shop-15-smoke", (("21:35", 0), ("21:55", 0.8), ("22:30", 0))),
        ),
        strikes=(Struck("shop-15", "21:30", "22:45", "orange"),),
    ),
)

HARMLESS = (
    Scene(
        kind="spikes",
        about="single readings far off: interference on the line",
        changes=(
            Burst("well-301-ch4", "03:33", 45.0),
            Burst("well-508-ch4", "16:02", 31.0),
            Burst("kitchen-03-gas", "09:20", 28.0),
            Burst("shop-52-smoke", "18:41", 9.0),
            Burst("hall-2-density", "15:15", 5.0),
        ),
    ),
    Scene(
        kind="lunch cooking",
        about="busy stoves, and a burnt wok",
        changes=(
            Added("kitchen-12-co", (("11:40", 0), ("11:50", 22), ("12:40", 18), ("13:10", 0))),
            Added("kitchen-17-co", (("12:22", 0), ("12:24", 70), ("12:29", 55), ("12:33", 0))),
            Added("kitchen-17-gas", (("12:20", 0), ("12:24", 5), ("12:33", 0))),
        ),
    ),
    Scene(
        kind="welding",
        about="fumes of a few minutes",
        changes=(
            Added("shop-12-smoke", (("10:10", 0), ("10:12", 3.6), ("10:15", 3.4), ("10:18", 0))),
            Added("shop-62-smoke", (("14:40", 0), ("14:42", 3.2), ("14:46", 3.0), ("14:49", 0))),
        ),
    ),
    Scene(
        kind="dye vats",
        about="a hot process that runs every afternoon",
        changes=(
            Added("shop-51-temp", (("12:30", 0), ("15:30", 6), ("17:30", 5), ("19:00", 0)), 0.01),
        ),
    ),
    Scene(
        kind="filling",
        about="solvent is decanted four times",
        changes=tuple(
            Added(
                "shop-11-gas",
                ((f"{hour}:05", 0), (f"{hour}:07", 6), (f"{hour}:09", 6), (f"{hour}:12", 0)),
            )
            for hour in ("09", "11", "14", "16")
        ),
    ),
    Scene(
        kind="sewer gas",
        about="biogas seeps into two wells in the heat of the day, as every day",
        changes=(
            Added("well-402-ch4", (("10:00", 0), ("14:30", 4.5), ("20:00", 0))),
            Added("well-403-ch4", (("10:30", 0), ("15:00", 5.5), ("20:30", 0))),
        ),
    ),
    Scene(
        kind="permits",
        about="excavations that hurt nothing",
        changes=(
            _permits(2, "08:30", "16:00"),
            _permits(3, "09:00", "12:00"),
            _permits(4, "13:00", "18:00"),
            _permits(5, "07:30", "11:30"),
            _permits(6, "14:00", "17:30"),
        ),
    ),
    Scene(
        kind="shower",
        about="a passing shower in the hills",
        changes=(Added("gauge-08-rain", (("11:10", 0), ("11:30", 2.4), ("11:55", 0))),),
    ),
    Scene(
        kind="school groups",
        about="three coaches unload at once",
        changes=(
            Added("gate-1-density", (("09:58", 0), ("09:59", 1.9), ("10:00", 1.8), ("10:01", 0))),
            Added("gate-1-count", (("09:58", 0), ("09:59", 430), ("10:00", 430), ("10:01", 0))),
        ),
    ),
    Scene(
        kind="metro rush",
        about="commuters cross the arcade",
        changes=(
            Added("hall-3-density", (("07:20", 0), ("08:10", 1.7), ("08:40", 1.6), ("09:15", 0))),
            Added("hall-3-count", (("07:20", 0), ("08:10", 1020), ("08:40", 960), ("09:15", 0))),
        ),
    ),
)


def changes_of(sensor: str) -> list[Change]:
    """Return what the scenes do to a sensor, in order."""
    scenes = (*INCIDENTS, *HARMLESS)
    return [change for scene in scenes for change in scene.changes if change.sensor == sensor]


def truth_rows(midnight_ms: int) -> list[dict[str, Any]]:
    """Return the rows of the truth file, by start."""
    rows = [
        {
            "source": struck.source,
            "start_ms": midnight_ms + 1000 * seconds(struck.start),
            "end_ms": midnight_ms + 1000 * seconds(struck.end),
            "kind": scene.kind,
            "level": struck.level,
            "about": scene.about,
        }
        for scene in INCIDENTS
        for struck in scene.strikes
    ]
    return sorted(rows, key=lambda row: (row["start_ms"], row["source"]))

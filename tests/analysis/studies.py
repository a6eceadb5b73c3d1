"""A small city's history with its truth, for tests of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from engine.analysis.past import Past
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.space import Space, parse
from engine.rules import Rules
from engine.truth import Incident
from tests.engine.replays import BEGIN_MS, City, city, one_file

SPACE = """
version = 1
[search]
method = "grid"
[[vary]]
key = "profiles.methane.limits.high.blue"
values = [8, 10, 14, 22]
[[vary]]
name = "off"
same = ["profiles.*.limits.off_delay_s"]
values = [10, 60, 200]
[[vary]]
key = "fusion.half_life_s"
values = [5, 60]
"""
"""24 settings, of which the 6 with blue = 22 cross yellow = 20."""
ROOMY = """
version = 1
[[vary]]
key = "profiles.methane.limits.high.blue"
low = 5
high = 22
[[vary]]
key = "levels.hold_s"
low = 5
high = 200
log = true
[[vary]]
key = "profiles.methane.limits.deadband"
low = 0
high = 9
step = 0.5
"""
"""Without end: two ranges have no steps."""
INCIDENTS = tuple(
    Incident(
        source=source,
        start_ms=BEGIN_MS + 1000 * start_s,
        end_ms=BEGIN_MS + 1000 * end_s,
        kind="leak",
        level=level,
    )
    for source, start_s, end_s, level in (
        ("well-1", 0, 80, "yellow"),
        ("plant", 40, 120, "red"),
        ("well-2", 275, 380, "yellow"),
        ("plant", 350, 450, "yellow"),
    )
)


class Given(NamedTuple):
    """What a study is made of."""

    files: City
    readings: Path
    past: Past
    rules: Rules
    measure: Yardstick

    def space(self, text: str = SPACE) -> Space:
        """Return a space."""
        return parse(text, file="space.toml")


def given(folder: Path, **options: Any) -> Given:
    """Return the city, its history and its truth."""
    files = city(folder)
    readings = one_file(folder, **options)
    past = Past.open(files.catalog, readings)
    measure = Yardstick(catalog=past.catalog, incidents=INCIDENTS)
    return Given(files, readings, past, Rules.load(files.rules), measure)


def write_truth(path: Path) -> Path:
    """Write the incidents as a file."""
    rows = ["source,start,end,kind,level"]
    rows += [f"{i.source},{i.start_ms},{i.end_ms},{i.kind},{i.level}" for i in INCIDENTS]
    path.write_text("\n".join(rows) + "\n")
    return path

"""Replay real histories through the whole line and hold the alert logs against what happened.

`python -m benchmarks.real_data DATA_DIR` prints a Markdown table, `--json` the same as JSON. The
histories are not part of the repository; `replay_data/sites/` says how each is watched, and
`benchmarks/real_truth.py` what counts as an event in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

from benchmarks.real_truth import DATA_SETS, DataSet, Truth
from engine import truth as scoring
from engine.catalog_build import build_catalog
from engine.pipeline import warm_up
from engine.replay import Job, prepare
from kernels.layout import LEVEL_NAMES

SITES = Path(__file__).resolve().parent.parent / "replay_data" / "sites"


class Kind(NamedTuple):
    """What became of the events of one kind."""

    found: int
    events: int
    median_delay_s: float | None
    median_lead_s: float | None
    """From the alarm to the end of the event, where events are what leads up to something."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a replay gave on one part of a data set; `readings` only with all of its log."""

    data_set: str
    part: str
    days: float
    readings: int | None
    alerts: int
    episodes: int
    found: int
    events: int
    median_delay_s: float | None
    false_alarms: int
    false_per_day: float
    alarmed_share: float
    """Share of the time in which some source is at the level that counts."""
    kinds: dict[str, Kind]
    readings_per_s: float | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 3 if there is nothing to replay."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_data", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DATA_DIR", help="folder of the data sets")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this data set")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="keep the alert logs here")
    given = parser.parse_args(arguments)
    chosen = [each for each in DATA_SETS if not given.only or each.name in given.only]
    there = [each for each in chosen if each.missing(given.folder) is None]
    for each in chosen:
        if each not in there:
            print(f"{each.name}: {each.missing(given.folder)} is not there", file=sys.stderr)
    if not there:
        return 3
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            row for each in there for row in measure(each, given.folder, given.output or scratch)
        ]
    if given.json:
        print(json.dumps([_plain(row) for row in rows], indent=2))
    else:
        print(markdown(rows))
    return 0


def _plain(row: Row) -> dict[str, Any]:
    return {**asdict(row), "kinds": {kind: each._asdict() for kind, each in row.kinds.items()}}


def measure(data_set: DataSet, folder: Path, output: Path | str) -> list[Row]:
    """Replay a data set and score each part of it; the alert log is left in `output`."""
    log = Path(output) / f"{data_set.name}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    summary = replay_site(data_set, folder, log)
    alerts = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    truth = data_set.truth(folder)
    last = list(truth.parts)[-1]
    return [
        judge(data_set, truth, alerts, part, summary if part == last else None)
        for part in truth.parts
    ]


def replay_site(data_set: DataSet, folder: Path, log: Path) -> Any:
    """Build the site's catalog and replay the files of a data set, as the command line does."""
    site = SITES / data_set.site
    catalog = log.with_suffix(".catalog")
    build_catalog(site, catalog)
    job = Job(
        readings=tuple(data_set.paths(folder)),
        catalog=catalog,
        rules=site / "rules.toml",
        adapter=site / "adapter.toml",
        output=log,
    )
    replay = prepare(job)
    warm_up(replay.plan)
    return replay.run()


def judge(
    data_set: DataSet, truth: Truth, alerts: list[dict[str, Any]], part: str, summary: Any
) -> Row:
    """Score one part of an alert log."""
    since_ms, until_ms = truth.parts[part]
    seen = list(alarms(as_one(alerts, truth.together) if truth.together else alerts, truth.level))
    score = partial(scoring.score, seen, since_ms=since_ms, until_ms=until_ms, level=truth.level)
    found = score(truth.events, lead_s=truth.standing_s)
    # an episode that goes with an event is not false, even if it is no detection of it
    excused = truth.excused or truth.events
    spurious = score(excused, lead_s=truth.early_s, grace_s=truth.late_s)
    inside = [a for a in alerts if since_ms <= a["event_ms"] < until_ms]
    return Row(
        data_set=data_set.name,
        part=part,
        days=found.days,
        readings=None if summary is None else summary.readings,
        alerts=len(inside),
        episodes=sum(a["transition"] == "raise" for a in inside),
        found=len(found.found),
        events=len(found.detections),
        median_delay_s=found.median_delay_s,
        false_alarms=len(spurious.false),
        false_per_day=spurious.false_per_day,
        alarmed_share=_alarmed_share(alerts, truth.level, since_ms, until_ms),
        kinds=_kinds(found, truth),
        readings_per_s=None if summary is None else summary.readings_per_s,
    )


def _kinds(score: scoring.Score, truth: Truth) -> dict[str, Kind]:
    found: dict[str, list[scoring.Detection]] = {}
    for each in score.detections:
        found.setdefault(each.incident.kind, []).append(each)
    return {
        kind: Kind(
            found=sum(each.found for each in of_kind),
            events=len(of_kind),
            median_delay_s=_median(e.delay_ms for e in of_kind if e.delay_ms is not None),
            median_lead_s=_median(_lead_ms(e, score, truth) for e in of_kind if e.found)
            if truth.ahead_of_ms is not None
            else None,
        )
        for kind, of_kind in found.items()
    }


def _lead_ms(detection: scoring.Detection, score: scoring.Score, truth: Truth) -> int:
    """Return how long the alarm that finds an event has stood when what it warns of comes."""
    event = detection.incident
    begun_ms = max(
        begun_ms
        for episode in score.episodes
        for begun_ms, ended_ms in episode.spans
        if episode.source == event.source
        and begun_ms <= event.end_ms
        and ended_ms >= event.start_ms
    )
    return event.end_ms + (truth.ahead_of_ms or 0) - begun_ms


def _median(times_ms: Iterable[int]) -> float | None:
    known = list(times_ms)
    return median(known) / 1000 if known else None


def as_one(alerts: Iterable[dict[str, Any]], name: str) -> Iterable[dict[str, Any]]:
    """Yield the changes of the highest level of all sources, as if they were one source."""
    levels: dict[str, int] = {}
    before = 0
    for alert in sorted(alerts, key=lambda alert: alert["event_ms"]):
        levels[alert["source"]] = LEVEL_NAMES.index(alert["level"])
        level = max(levels.values())
        if level != before:
            yield {"source": name, "event_ms": alert["event_ms"], "level": LEVEL_NAMES[level]}
            before = level


def alarms(alerts: Iterable[dict[str, Any]], level: str) -> Iterable[dict[str, Any]]:
    """Yield alerts with what is below a level as normal: each rise to it counts on its own.

    Otherwise a long blue episode in which an event falls would excuse every alarm in it.
    """
    asked = LEVEL_NAMES.index(level)
    for alert in alerts:
        yield alert if LEVEL_NAMES.index(alert["level"]) >= asked else {**alert, "level": "normal"}


def _alarmed_share(alerts: list[dict[str, Any]], level: str, since_ms: int, until_ms: int) -> float:
    asked = LEVEL_NAMES.index(level)
    total_ms, begun_ms = 0, None
    end = {"event_ms": until_ms, "level": "normal"}
    for alert in [*as_one(alerts, ""), end]:
        event_ms = min(max(alert["event_ms"], since_ms), until_ms)
        at_level = LEVEL_NAMES.index(alert["level"]) >= asked
        if at_level and begun_ms is None:
            begun_ms = event_ms
        elif not at_level and begun_ms is not None:
            total_ms += event_ms - begun_ms
            begun_ms = None
    return total_ms / (until_ms - since_ms)


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    head = [
        "data set",
        "part",
        "days",
        "readings",
        "alerts",
        "episodes",
        "events found / all",
        "median detection delay",
        "false alarms a day",
        "time alarmed",
        "readings/s",
    ]
    lines = [_line(head), _line(["---"] * 2 + ["--:"] * (len(head) - 2))]
    lines += [_line(_cells(row)) for row in rows]
    notes = [note for row in rows for note in _notes(row)]
    return "\n".join([*lines, "", *notes] if notes else lines)


def _notes(row: Row) -> Iterable[str]:
    """Say what became of each kind of event, where that says more than the table."""
    for kind, of_kind in row.kinds.items():
        if len(row.kinds) == 1 and of_kind.median_lead_s is None:
            return
        text = f"- {row.data_set}, {row.part}, {kind}: {of_kind.found} / {of_kind.events} found"
        if of_kind.median_lead_s is not None:
            text += f", median warning {duration(of_kind.median_lead_s)} ahead"
        elif of_kind.found:
            text += f", median delay {duration(of_kind.median_delay_s)}"
        yield text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    return [
        row.data_set,
        row.part,
        f"{row.days:.2g}" if row.days < 10 else f"{row.days:,.0f}",
        "" if row.readings is None else f"{row.readings:,}",
        f"{row.alerts:,}",
        f"{row.episodes:,}",
        f"{row.found} / {row.events}",
        duration(row.median_delay_s),
        f"{row.false_per_day:.2g} ({row.false_alarms})",
        f"{100 * row.alarmed_share:.1f} %",
        "" if row.readings_per_s is None else f"{row.readings_per_s:,.0f}",
    ]


def duration(seconds: float | None) -> str:
    """Return a length of time as people say it."""
    if seconds is None:
        return "–"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


if __name__ == "__main__":
    sys.exit(main())

"""Alert logs against the truth, drawn as timelines: one character a minute.

`.` normal, `b y o r` the source's level, and below it `[` … `]` the incident.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.errors import InputError
from engine.truth import Incident, Score, read_truth, score

MINUTE_MS = 60_000
LEVELS = {".": "normal", "b": "blue", "y": "yellow", "o": "orange", "r": "red"}


def alerts(timeline: str, source: str = "well") -> Iterator[dict[str, Any]]:
    """Yield what an alert log says of a timeline."""
    before = "."
    for minute, now in enumerate(timeline):
        if now != before:
            yield {"source": source, "event_ms": minute * MINUTE_MS, "level": LEVELS[now]}
        before = now


def incidents(timeline: str, source: str = "well", level: str = "yellow") -> list[Incident]:
    starts = [minute for minute, mark in enumerate(timeline) if mark == "["]
    ends = [minute for minute, mark in enumerate(timeline) if mark == "]"]
    return [
        Incident(
            source=source,
            start_ms=start * MINUTE_MS,
            end_ms=end * MINUTE_MS,
            kind="leak",
            level=level,
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def scored(levels: str, truth: str, **how: Any) -> Score:
    until_ms = max(len(levels), len(truth)) * MINUTE_MS
    return score(alerts(levels), incidents(truth), **({"since_ms": 0, "until_ms": until_ms} | how))


def delays_min(result: Score) -> list[float | None]:
    return [None if d.delay_ms is None else d.delay_ms / MINUTE_MS for d in result.detections]


def test_delay_runs_from_the_start_to_the_first_moment_at_level() -> None:
    result = scored(
        "......bbb...",
        "   [======] ",
    )
    assert delays_min(result) == [3]
    assert result.median_delay_s == 180
    assert not result.false


def test_a_lower_level_than_asked_finds_nothing_and_a_rise_to_it_does() -> None:
    levels, truth = (
        "....bbbyyb..",
        "   [======] ",
    )
    assert delays_min(scored(levels, truth, level="blue")) == [1]
    assert delays_min(scored(levels, truth, level="yellow")) == [4]
    assert delays_min(scored(levels, truth, level="orange")) == [None]


def test_an_alarm_after_the_end_counts_only_within_the_grace() -> None:
    levels, truth = (
        ".........bb.",
        "  [===]     ",
    )
    assert delays_min(scored(levels, truth, grace_s=180)) == [7]
    late = scored(levels, truth, grace_s=179)
    assert delays_min(late) == [None]
    assert len(late.false) == 1


def test_an_alarm_already_up_counts_at_once_only_if_it_began_within_the_lead() -> None:
    levels, truth = (
        "...bbbbbb...",
        "     [===]  ",
    )
    early = scored(levels, truth, lead_s=120)
    assert delays_min(early) == [0]
    assert not early.false
    stale = scored(levels, truth, lead_s=119)
    assert delays_min(stale) == [None]
    assert [each.start_ms for each in stale.false] == [3 * MINUTE_MS]


def test_an_alarm_over_before_the_start_does_not_find_but_is_no_false_one_within_the_lead() -> None:
    result = scored(
        "...bb.......",
        "      [===] ",
        lead_s=180,
    )
    assert delays_min(result) == [None]
    assert not result.false


def test_a_stale_alarm_that_clears_and_comes_back_finds() -> None:
    result = scored(
        "bbbbbb.bb...",
        "    [=====] ",
    )
    assert delays_min(result) == [3]
    assert [each.start_ms for each in result.false] == [0]


def test_an_episode_counts_once_however_often_it_comes_to_level() -> None:
    result = scored(
        ".byybyyb..y.",
        "            ",
        level="yellow",
    )
    assert len(result.episodes) == 2
    assert len(result.false) == 2
    first = result.episodes[0]
    assert (first.start_ms, first.end_ms) == (1 * MINUTE_MS, 8 * MINUTE_MS)
    assert first.spans == ((2 * MINUTE_MS, 4 * MINUTE_MS), (5 * MINUTE_MS, 7 * MINUTE_MS))


def test_an_episode_below_the_level_is_no_episode_at_level() -> None:
    result = scored(
        ".bbb..yy....",
        "            ",
        level="yellow",
    )
    assert [each.peak for each in result.episodes] == ["yellow"]


def test_one_span_of_an_episode_inside_an_incident_explains_the_whole() -> None:
    result = scored(
        ".ybbbbyybb..",
        "     [===]  ",
        level="yellow",
    )
    assert delays_min(result) == [1]
    assert not result.false


def test_an_alarm_of_another_source_neither_finds_nor_is_excused() -> None:
    log = [*alerts("...bbb......", "well"), *alerts("...bbb......", "gate")]
    result = score(log, incidents("  [====]    "), since_ms=0, until_ms=12 * MINUTE_MS)
    assert len(result.found) == 1
    assert [each.source for each in result.false] == ["gate"]


def test_an_open_episode_lasts_to_the_end_of_what_is_scored() -> None:
    result = scored(
        "......bbbbbb",
        "   [=======]",
    )
    assert delays_min(result) == [3]
    assert result.episodes[0].end_ms == 12 * MINUTE_MS


def test_what_starts_outside_the_time_scored_is_left_out() -> None:
    result = scored(
        ".bb..bb..bb.",
        "[==]        ",
        since_ms=4 * MINUTE_MS,
        until_ms=8 * MINUTE_MS,
    )
    assert not result.detections
    assert [each.start_ms for each in result.episodes] == [5 * MINUTE_MS]
    assert result.false_per_day == pytest.approx(24 * 60 / 4)


def test_peak_is_the_highest_level_during_the_incident_only() -> None:
    levels, truth = (
        ".rr.bbyyb.r.",
        "   [====]   ",
    )
    (detection,) = scored(levels, truth).detections
    assert detection.peak == "yellow"
    assert detection.enough
    (low,) = score(
        alerts(levels), incidents(truth, level="orange"), since_ms=0, until_ms=12 * MINUTE_MS
    ).detections
    assert low.found
    assert not low.enough


def test_a_missed_incident_is_never_enough_however_high_the_stale_alarm() -> None:
    (detection,) = scored(
        "rrrrrrrrrrrr",
        "     [===]  ",
    ).detections
    assert detection.peak == "red"
    assert not detection.enough


def test_rates_are_per_day_and_per_source_and_day() -> None:
    day = 24 * 60
    result = score(
        alerts("..bb..bb...."), [], since_ms=0, until_ms=2 * day * MINUTE_MS, n_sources=10
    )
    assert result.false_per_day == 1
    assert result.false_per_source_day == pytest.approx(0.1)


def test_alert_records_as_bytes_score_the_same() -> None:
    levels, truth = (
        "......bbb.b.",
        "   [====]   ",
    )
    lines = [orjson.dumps(each) for each in alerts(levels)]
    raw = score(lines, incidents(truth), since_ms=0, until_ms=12 * MINUTE_MS)
    assert raw == scored(levels, truth)


def test_two_incidents_of_a_source_are_found_each_by_its_own_alarm() -> None:
    result = scored(
        "...bb....bb.",
        " [===]  [=] ",
    )
    assert delays_min(result) == [2, 1]


def test_the_score_is_plain_json() -> None:
    result = scored(
        "......bbb.b.",
        "   [====]   ",
    )
    text = orjson.loads(orjson.dumps(result.as_dict()))
    assert text["found"] == 1
    assert text["median_delay_s"] == 180
    assert text["detections"][0]["kind"] == "leak"
    assert len(text["false"]) == 1


@pytest.mark.parametrize(
    "how",
    [{"level": "purple"}, {"level": "normal"}, {"until_ms": 0}, {"lead_s": -1}, {"grace_s": -1}],
    ids=lambda how: next(iter(how)),
)
def test_senseless_questions_are_refused(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(how))):
        scored("..bb", "", **how)


@pytest.mark.parametrize(
    "alert",
    [{"event_ms": 1, "level": "blue"}, {"source": "a", "event_ms": 1, "level": "loud"}, b"[1]"],
)
def test_what_is_no_alert_record_is_refused(alert: Any) -> None:
    with pytest.raises(InputError, match="not an alert record"):
        score([alert], [], since_ms=0, until_ms=1)


def test_a_log_out_of_order_is_refused() -> None:
    log = list(alerts("..bb.."))
    with pytest.raises(InputError, match="go backward"):
        score(log[::-1], [], since_ms=0, until_ms=MINUTE_MS)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "truth.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_truth_file_gives_times_in_its_zone_and_levels(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "source,start,end,kind,level,about\n"
        "well,2025-05-13T08:00:00,2025-05-13T09:00:00+08:00,leak,,\n"
        'gate,1747094400000,1747098000000,crowd,red,"a, b"\n',
    )
    first, second = read_truth(path, "+08:00")
    assert first.start_ms == 1747094400000
    assert first.end_ms == 1747098000000
    assert first.level == "yellow"
    assert second.start_ms == 1747094400000
    assert (second.level, second.about) == ("red", "a, b")


def test_every_fault_of_a_truth_file_is_reported_with_row_and_value(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "source,start,end,kind,level\n"
        "well,soon,2025-05-13T09:00:00Z,leak,blue\n"
        ",2025-05-13T09:00:00Z,2025-05-13T08:00:00Z,leak,loud\n",
    )
    with pytest.raises(InputError) as caught:
        read_truth(path)
    assert [(fault.row, fault.key) for fault in caught.value.faults] == [
        (1, "start"),
        (2, "end"),
        (2, "source"),
        (2, "level"),
    ]
    assert "'soon'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("source,start,end\n", "no column kind"), ("", "no column source, start, end, kind")],
)
def test_a_truth_file_without_its_columns_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_truth(written(tmp_path, text))


def test_a_truth_file_that_is_not_there_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: can't be read"):
        read_truth(tmp_path / "gone.csv")


def test_a_row_that_stops_short_is_a_fault_of_that_row(tmp_path: Path) -> None:
    path = written(tmp_path, "source,start,end,kind\nwell,2025-05-13T08:00:00Z\n")
    with pytest.raises(InputError) as caught:
        read_truth(path)
    assert {fault.key for fault in caught.value.faults} == {"end", "kind"}

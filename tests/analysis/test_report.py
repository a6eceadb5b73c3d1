"""Reports without a browser: what they count, choose, draw and say."""

from __future__ import annotations

import re
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.past import Judged, Past, judge
from engine.analysis.reports import Report, report_of, write_report
from engine.analysis.reports.chosen import NO_EPISODE
from engine.analysis.reports.episodes import episodes_of
from engine.analysis.reports.html import Clock, esc
from engine.analysis.reports.overview import calendar_of, load_of, pareto_of, series_of
from engine.analysis.reports.shell import inert
from engine.analysis.reports.strips import MOST_POINTS, thinned
from engine.analysis.steps import steps_of
from engine.errors import InputError
from kernels.layout import CLEAR, LEVEL_NAMES, NEVER, RAISE, STEP
from tests.analysis.reported import INCIDENTS, busy, hostile, small
from tests.engine.replays import RULES

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Past, Judged]:
    """Return the small city's history, judged."""
    return small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def report(judged: tuple[Past, Judged]) -> Report:
    """Return its report against a truth."""
    past, of = judged
    return report_of(of, past, truth=INCIDENTS)


def values_of(report: Report) -> dict[str, Any]:
    """Return what the page's scripts draw from."""
    found = re.search(rb'id="values">(.*?)</script>', report.html, re.S)
    assert found
    values: dict[str, Any] = orjson.loads(found[1])
    return values


def test_episodes_are_those_that_a_slow_look_finds(judged: tuple[Past, Judged]) -> None:
    transitions = judged[1].transitions
    running: dict[int, dict[str, Any]] = {}
    expected = []
    for number, each in enumerate(transitions):
        source = int(each["source"])
        if each["kind"] == RAISE:
            running[source] = {"raised": number, "end_ms": NEVER, "levels": [], "scores": []}
            expected.append(running[source])
        of = running[source]
        of["levels"].append(int(each["level"]))
        of["scores"].append(float(each["score"]))
        if each["kind"] == CLEAR:
            of["end_ms"] = int(each["event_ms"])
    found = episodes_of(transitions)
    assert len(found) == len(expected) > 5
    for episode, of in zip(found, expected, strict=True):
        assert episode["raised"] == of["raised"]
        assert episode["start_ms"] == transitions["event_ms"][of["raised"]]
        assert episode["end_ms"] == of["end_ms"]
        assert episode["peak"] == max(of["levels"])
        assert episode["n"] == len(of["levels"])
        assert episode["score"] == max(of["scores"])
        assert transitions["level"][episode["highest"]] == episode["peak"]


def some_alarms(times: list[int], levels: list[int] | None = None) -> np.ndarray:
    """Return alarms at some times."""
    alarms = np.zeros(len(times), STEP)
    alarms["event_ms"] = times
    alarms["level"] = levels or [1 + i % 4 for i in range(len(times))]
    alarms["source"] = [i % 3 for i in range(len(times))]
    return alarms


@given(
    since_ms=st.integers(0, 2 * 10**12),
    length_ms=st.sampled_from([1, 60_000, HOUR_MS, DAY_MS, 40 * DAY_MS, 800 * DAY_MS]),
    parts=st.lists(st.floats(0, 1, exclude_max=True), max_size=30),
    offset_h=st.sampled_from([-11, 0, 5.5, 8]),
)
def test_every_alarm_is_counted_once_at_the_time_of_the_place(
    since_ms: int, length_ms: int, parts: list[float], offset_h: float
) -> None:
    offset_ms = round(offset_h * HOUR_MS)
    until_ms = since_ms + length_ms
    times = [since_ms + int(part * length_ms) for part in parts]
    alarms = some_alarms(times)
    series = series_of(alarms, since_ms, until_ms, offset_ms)
    assert series.counts.sum() == len(times)
    clock = Clock(timezone(timedelta(hours=offset_h)))
    assert series.counts.shape[1] <= 202
    assert clock(series.start_ms, "%S") == "00" and series.start_ms <= since_ms
    if series.step_ms >= 7 * DAY_MS:
        assert clock(series.start_ms, "%a %H:%M") == "Mon 00:00"
    else:
        assert (series.start_ms + offset_ms) % series.step_ms == 0
    for at, level in zip(times, alarms["level"].tolist(), strict=True):
        assert series.counts[level - 1, (at - series.start_ms) // series.step_ms] > 0
    calendar = calendar_of(alarms, since_ms, until_ms, offset_ms)
    counted = {(calendar.rows[r], calendar.columns[c]): n for c, r, n in calendar.cells}
    assert sum(counted.values()) == len(times)
    for at in times:
        if calendar.unit == "day":
            key = clock(at, "%b %Y"), clock(at, "%d").lstrip("0")
        else:
            half = "30" if calendar.unit == "half hour" and clock(at, "%M") >= "30" else "00"
            key = clock(at, "%a %d %b %Y"), f"{clock(at, '%H')}:{half}"
        assert counted[key] > 0
    load = load_of(alarms)
    assert load.counts.sum() == len(times)
    points = pareto_of(load)
    assert [part for _, part in points] == sorted(part for _, part in points)
    assert not times or points[-1] == (len(set(alarms["source"].tolist())), pytest.approx(1))


@given(
    values=st.lists(st.floats(-1e6, 1e6), max_size=3000),
    gaps=st.integers(1, 5000),
)
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(values: list[float], gaps: int) -> None:
    at = np.cumsum(np.arange(len(values)) % gaps + 1)
    of = np.array(values)
    kept = thinned(at, of)
    assert len(kept) <= max(MOST_POINTS, 0) and sorted(set(kept)) == kept.tolist()
    if len(of):
        assert {0, len(of) - 1} <= set(kept.tolist())
        assert of[kept].max() == of.max() and of[kept].min() == of.min()


def test_a_report_is_the_same_bytes_each_time(judged: tuple[Past, Judged]) -> None:
    past, of = judged
    assert report_of(of, past, truth=INCIDENTS).html == report_of(of, past, truth=INCIDENTS).html


def test_a_report_refers_to_nothing_beside_itself(report: Report) -> None:
    page = re.sub(rb"<script>var echarts=.*?</script>", b"", report.html, flags=re.S)
    assert len(page) < len(report.html)
    assert set(re.findall(rb'(?:src|href)="(?!#)([^"]*)"', page)) == {b"data:,"}
    assert b"@import" not in page and b"url(" not in page and b"fetch(" not in page
    assert b"default-src &#x27;none&#x27;" in page


def test_missed_and_false_ones_are_drawn_first(report: Report) -> None:
    verdicts = [each.verdict for each in report.facts.chosen]
    assert verdicts[0] == "missed" and report.facts.chosen[0].episode == NO_EPISODE
    n_false = verdicts.count("false")
    assert n_false and verdicts[1 : 1 + n_false] == ["false"] * n_false
    assert "found" in verdicts[1 + n_false :]


def test_without_a_truth_the_highest_are_drawn_first(judged: tuple[Past, Judged]) -> None:
    past, of = judged
    report = report_of(of, past, n_strips=5)
    peaks = [int(report.facts.episodes["peak"][each.episode]) for each in report.facts.chosen]
    assert len(peaks) == 5 and peaks == sorted(peaks, reverse=True)
    assert max(report.facts.episodes["peak"]) == peaks[0]


def test_a_strip_draws_what_the_engine_said(report: Report, judged: tuple[Past, Judged]) -> None:
    transitions = judged[1].transitions
    alerts = judged[1].alerts
    for chosen, strip in zip(report.facts.chosen, values_of(report)["strips"], strict=True):
        source, since_ms, until_ms = chosen.stretch
        mine = [
            alert
            for alert, each in zip(alerts, transitions, strict=True)
            if each["source"] == source and since_ms <= each["event_ms"] <= until_ms
        ]
        assert [each["text"] for each in strip["transitions"]] == [a["text"] for a in mine][:60]
        # the lane of levels is what the transitions say, and no raise is without a latch or signal
        for alert in mine:
            at = alert["event_ms"] - since_ms
            level = LEVEL_NAMES.index(alert["level"])
            standing = [seg[2] for seg in strip["level"] if seg[0] <= at < seg[1]]
            later = [a for a in mine if a["event_ms"] == alert["event_ms"]]
            if later[-1] is alert and at < strip["length"]:
                assert standing == ([level] if level else [])
        lanes = [lane for sensor in strip["sensors"] for lane in sensor["lanes"]]
        if chosen.episode != NO_EPISODE and not any(a.get("coupled_from") for a in mine):
            assert lanes
        for lane in lanes:
            ends = [end for segment in lane["segments"] for end in segment[:2]]
            assert ends == sorted(ends) and ends[0] >= 0 and ends[-1] <= strip["length"]


def test_a_strip_is_headed_by_the_raise_of_its_own_episode(
    report: Report, judged: tuple[Past, Judged]
) -> None:
    alerts = judged[1].alerts
    panels = report.html.decode().split('<article class="card strip"')[1:]
    for chosen, panel in zip(report.facts.chosen, panels, strict=True):
        headed = re.search(r'<p class="text">(.*?)</p>', panel, re.S)
        assert headed
        if chosen.episode == NO_EPISODE:
            assert headed[1] == ""
        else:
            raised = alerts[int(report.facts.episodes["raised"][chosen.episode])]
            assert headed[1] == esc(raised["text"])


def test_limits_beyond_the_next_are_left_out(report: Report) -> None:
    for strip in values_of(report)["strips"]:
        for sensor in strip["sensors"]:
            most = max(sensor["curve"][1::2], default=-np.inf)
            beyond = [at for side, _, at in sensor["limits"] if side > 0 and at > most]
            assert len(beyond) <= 1


def test_the_table_has_every_episode_with_its_verdict(report: Report) -> None:
    listed = values_of(report)["episodes"]
    facts = report.facts
    assert facts.held is not None
    assert len(listed["source"]) == len(facts.episodes)
    assert listed["verdict"].count(2) == len(facts.held.least.false) > 0
    assert listed["verdict"].count(1) == len(facts.held.least.episodes) - listed["verdict"].count(2)
    strips = [number for number in listed["strip"] if number >= 0]
    assert sorted(strips) == [
        number for number, each in enumerate(facts.chosen) if each.episode != NO_EPISODE
    ]


def test_a_truth_about_strangers_is_said_and_not_drawn(report: Report) -> None:
    page = report.html.decode()
    assert "1 source of the truth is not in the catalog: elsewhere." in page
    assert all(each.stretch.source >= 0 for each in report.facts.chosen)


def test_a_history_without_readings_has_a_report(tmp_path: Path) -> None:
    past, of = small(tmp_path, 0)
    report = report_of(of, past)
    page = report.html.decode()
    assert "No reading was judged" in page and "No reading in this time." in page
    assert values_of(report)["episodes"]["source"] == []


def test_a_history_without_alarms_says_so(tmp_path: Path) -> None:
    calm = RULES.replace("blue = 10, yellow = 20, orange = 30, red = 50", "red = 99")
    calm = calm.replace("yellow = 40, red = 60", "red = 990").replace("absent_after = 3", "")
    past, of = small(tmp_path, rules=calm)
    assert not len(of.transitions)
    page = report_of(of, past, truth=INCIDENTS).html.decode()
    assert "No alarm in this time." in page and "no alarm, so nothing is beyond" in page
    assert "0 of 3" in page  # incidents found


def test_a_name_can_not_leave_its_place(tmp_path: Path) -> None:
    past, of = hostile(tmp_path)
    page = report_of(of, past).html
    assert page.count(b"<img") == 0
    # as many scripts as without it: theme, values, charts
    assert len(re.findall(rb"</script>", page)) == 7


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_values_in_the_page_end_no_element_and_stay_what_they_are(value: Any) -> None:
    text = inert(value)
    assert b"<" not in text and b">" not in text and b"&" not in text
    assert orjson.loads(text) == value


def test_a_month_of_ten_thousand_episodes_stays_small(tmp_path: Path) -> None:
    past, of = busy(tmp_path)
    report = report_of(of, past)
    assert len(report.facts.episodes) == 10_000
    assert len(report.html) < 5_000_000
    assert len(report.facts.chosen) == 24


def test_a_report_that_can_not_be_written_says_where(report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "report.html", report)
    write_report(tmp_path / "report.html", report)
    assert (tmp_path / "report.html").read_bytes() == report.html
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_figures_given_are_those_shown(judged: tuple[Past, Judged]) -> None:
    from engine.analysis import kpi

    past, of = judged
    assert of.first_ms is not None and of.last_ms is not None
    half = (of.first_ms + of.last_ms) // 2
    figures = kpi.of(
        steps_of(of.transitions), past.catalog, since_ms=of.first_ms, until_ms=half, by="all"
    )
    report = report_of(of, past, figures=figures)
    assert report.facts.span == (of.first_ms, half)
    assert len(report.facts.alarms) == figures.alarms
    assert values_of(report)["span"] == [of.first_ms, half]


def test_judging_again_in_other_threads_gives_the_same_report(
    judged: tuple[Past, Judged], report: Report
) -> None:
    past, of = judged
    again = judge(past, of.plan.rules, threads=2)
    assert report_of(again, past, truth=INCIDENTS).html == report.html


def _colours(theme: str) -> dict[str, str]:
    import engine.analysis

    text = (Path(engine.analysis.__path__[0]) / "assets" / "report.css").read_text()
    blocks = re.findall(r":root(\[data-theme=\"dark\"\])? \{(.*?)\}", text, re.S)
    found: dict[str, str] = {}
    for dark, block in blocks:
        if not dark or theme == "dark":
            found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    return found


def _brightness(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(theme: str) -> None:
    # WCAG 2.2, 1.4.3: 4.5 to 1
    of = _colours(theme)
    pairs = [(text, behind) for text in ("text", "soft", "accent") for behind in ("page", "panel")]
    pairs += [("text", f"{level}-tint") for level in ("blue", "yellow", "orange", "red")]
    pairs += [(name, f"{name}-tint") for name in ("good", "fair", "bad")]
    for text, behind in pairs:
        light, dark = sorted((_brightness(of[text]), _brightness(of[behind])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, behind)

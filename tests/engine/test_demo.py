from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from rich.cells import cell_len
from rich.console import Console

from engine import demo
from engine.demo_report import Outcome, report, shown_path
from engine.demo_screen import Alert, Frame, Row, Screen, alert_of, lines_of, why
from engine.errors import InputError, OutputError
from engine.summary import Summary
from engine.truth import Incident, score
from kernels.layout import SOURCE

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "day.jsonl"
RECORDS = [orjson.loads(line) for line in GOLDEN.read_bytes().splitlines()]
LOCAL = timezone(timedelta(hours=8))
SIZES = [(60, 16), (80, 24), (100, 30), (101, 31), (160, 50)]


def frame(n_sources: int = 3, alerts: tuple[Alert, ...] = (), **given: Any) -> Frame:
    levels = ("red", "orange", "yellow", "blue")
    rows = [
        Row(
            level=levels[number % 4],
            score=100.0 - 7 * number,
            name="Central Arcade Metro Link" if number % 2 else "Park",
            since="17:49",
            why="methane 64.8 %LEL ≥ 50" * (number % 3),
        )
        for number in range(n_sources)
    ]
    facts: dict[str, Any] = {
        "title": "a generated city day",
        "day": "Wednesday 16 July 2025",
        "clock": "13:09:50",
        "share": 0.55,
        "figures": "362,346 readings    3.4 M a second in the line   shown ×4,320",
        "n_alerts": len(alerts),
        "sources": rows,
        "n_raised": n_sources,
        "n_sources": 153,
        "alerts": alerts,
    }
    return Frame(**(facts | given))


def real_alerts() -> tuple[Alert, ...]:
    return tuple(alert_of(record, LOCAL) for record in RECORDS)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("n_sources", [0, 1, 5, 30])
def test_a_picture_fills_the_terminal_and_never_overflows(
    width: int, height: int, n_sources: int
) -> None:
    for n in (0, 1, 7, len(RECORDS)):
        lines = lines_of(frame(n_sources, real_alerts()[:n]), width, height)
        assert len(lines) == height
        assert max(cell_len(line.plain) for line in lines) <= width


def test_columns_of_the_sources_stand_still_whatever_stands_in_them() -> None:
    lines = [line.plain for line in lines_of(frame(8), 100, 30)]
    at = [line.index("17:49") for line in lines if "17:49" in line]
    assert len(at) == 8
    assert len(set(at)) == 1


@pytest.mark.parametrize("n_sources", [0, 4, 30])
def test_headings_stand_on_the_same_lines_however_much_goes_on(n_sources: int) -> None:
    lines = [line.plain for line in lines_of(frame(n_sources, real_alerts()), 100, 30)]
    empty = [line.plain for line in lines_of(frame(0), 100, 30)]
    for heading in ("Risk sources by score", "Alerts"):
        places = [
            next(at for at, line in enumerate(picture) if line.startswith(heading))
            for picture in (lines, empty)
        ]
        assert places[0] == places[1]


def test_levels_are_words_and_not_colours_alone() -> None:
    console = Console(file=StringIO(), width=100, no_color=True, color_system=None)
    for line in lines_of(frame(4, real_alerts()[:3]), 100, 30):
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for level in ("red", "orange", "yellow", "blue"):
        assert f"  {level} " in text
    assert "\x1b" not in text


def test_more_sources_than_fit_are_counted() -> None:
    text = "\n".join(line.plain for line in lines_of(frame(30), 80, 24))
    assert "30 of 153 above normal, 24 more not shown" in text


def test_quiet_hours_say_so() -> None:
    assert any(line.plain.strip() == "all quiet" for line in lines_of(frame(0), 80, 24))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_newest_alert_stands_last_and_whole_or_with_an_ellipsis(
    width: int, height: int
) -> None:
    for n in range(1, len(RECORDS) + 1):
        alerts = real_alerts()[:n]
        lines = [line.plain for line in lines_of(frame(3, alerts), width, height)]
        shown = [line for line in lines if line.strip()]
        start = max(at for at, line in enumerate(shown) if alerts[-1].clock in line)
        last = shown[start:]
        assert 1 <= len(last) <= 2
        text = " ".join(line.strip() for line in last)
        words = text.split(alerts[-1].level, 1)[1].split()
        whole = alerts[-1].text.split()
        if text.endswith("…"):
            words[-1] = words[-1].removesuffix("…")
            assert [word.rstrip(";,:") for word in words] == [
                word.rstrip(";,:") for word in whole[: len(words)]
            ]
        else:
            assert words == whole


def test_an_alert_on_the_screen_says_its_time_once() -> None:
    for record in RECORDS:
        alert = alert_of(record, LOCAL)
        assert alert.clock in record["text"]
        assert alert.clock not in alert.text
        assert "2025" not in alert.text


def record_of(**given: Any) -> dict[str, Any]:
    return {"cause": "score", "rule": None, "contributors": [], "coupled_from": None} | given


def part_of(detector: str, value: float | None, **given: Any) -> dict[str, Any]:
    return {
        "sensor": "w",
        "quantity": "carbon_monoxide",
        "detector": detector,
        "value": value,
        "limit": 150.0,
        "unit": "ppm",
        "level": "orange",
        "signal": 0.75,
        "fading": False,
    } | given


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (record_of(cause="rule", rule="fire"), "rule “fire”"),
        (record_of(contributors=[part_of("high", 199.0)]), "carbon monoxide 199 ppm ≥ 150"),
        (record_of(contributors=[part_of("high", 145.0)]), "carbon monoxide 145 ppm"),
        (record_of(contributors=[part_of("low", 90.0)]), "carbon monoxide 90 ppm ≤ 150"),
        (record_of(contributors=[part_of("low", 150.0)]), "carbon monoxide 150 ppm ≤ 150"),
        (record_of(contributors=[part_of("high", None, fading=True)]), None),
        (record_of(coupled_from={"source": "shop-32", "influence": 30}), "influenced by shop-32"),
        (record_of(), None),
    ],
)
def test_why_says_in_few_words_what_keeps_a_source_up(
    record: dict[str, Any], said: str | None
) -> None:
    assert why(record) == said


def test_why_has_words_for_every_detector() -> None:
    for detector in ("rise", "fall", "deviation", "drift", "absence", "flatline", "bad", "spike"):
        text = why(record_of(contributors=[part_of(detector, 12.0)]))
        assert text is not None
        assert "carbon monoxide" in text
        assert "limit" not in text


def test_a_fading_signal_leaves_the_reason_as_it_was() -> None:
    screen = Screen(Console(file=StringIO(), force_terminal=True, width=100, height=30), LOCAL)
    screen.note([orjson.dumps(record) for record in RECORDS if record["source"] == "well-207"])
    since, reason = screen.reasons["well-207"]
    assert since == "03:38"
    assert reason.startswith("methane")


def test_sources_are_ordered_by_score_and_those_at_normal_left_out() -> None:
    sources = np.zeros(5, SOURCE)
    sources["score"] = [30.0, 90.0, 30.0, 10.0, 90.0]
    sources["level"] = [1, 3, 2, 0, 4]
    assert demo.by_score(sources) == [4, 1, 2, 0]


def test_pictures_are_drawn_as_often_as_an_eye_follows_and_on_demand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticking_s = itertools.count(100.0, 0.001)
    monkeypatch.setattr("engine.demo_screen.time.perf_counter", lambda: next(ticking_s))
    screen = Screen(Console(file=StringIO(), force_terminal=True, width=80, height=24), UTC)
    drawn: list[int] = []

    def picture() -> Frame:
        drawn.append(1)
        return frame()

    with screen:
        for _ in range(50):
            screen.draw(picture)
        assert len(drawn) == 1
        screen.draw(picture, now=True)
    assert len(drawn) == 2


# The whole demo


def run_demo(capsys: pytest.CaptureFixture[str], *args: Any) -> tuple[int, str]:
    code = demo.run(*args)
    return code, capsys.readouterr().out


def test_in_a_pipe_the_day_runs_through_and_is_held_against_its_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run_demo(capsys, None, False, tmp_path)
    assert code == 0
    assert (tmp_path / "alerts.jsonl").read_bytes() == GOLDEN.read_bytes()
    assert "The day is over." in text
    assert "found         18 of 19 incidents, at 31 of 32 sources that they struck" in text
    assert "false alarms  2: " in text
    assert f"alert log     {shown_path(tmp_path / 'alerts.jsonl')}" in text
    assert "\x1b" not in text
    assert "…" not in text
    # what is to be copied stands on one line
    assert any("tocsin replay" in line and "readings.parquet" in line for line in text.split("\n"))


def test_as_json_the_outcome_is_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run_demo(capsys, 1e9, True, tmp_path)
    assert code == 0
    outcome = json.loads(text)
    assert outcome["truth"]["found"] == 31
    assert outcome["incidents"] == 19
    assert outcome["replay"]["readings"] == 660_391
    assert (tmp_path / "alerts.jsonl").read_bytes() == GOLDEN.read_bytes()


def test_the_pace_changes_the_wall_time_and_not_the_alerts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.perf_counter()
    code, text = run_demo(capsys, 86_400.0, False, tmp_path)
    assert code == 0
    assert time.perf_counter() - begun >= 0.95
    assert "; shown in 1 s" in text
    assert (tmp_path / "alerts.jsonl").read_bytes() == GOLDEN.read_bytes()


def test_a_folder_that_can_not_be_made_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be made a folder"):
        demo.run(None, False, tmp_path / "file" / "out")


def test_without_the_day_the_demo_says_what_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replay_data.DAY", tmp_path)
    with pytest.raises(InputError, match=r"python -m replay_data"):
        demo.run(None, False, tmp_path)


def started(out: Path, *args: str, **how: Any) -> subprocess.Popen[Any]:
    code = "from engine.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "demo-replay", "--out", str(out), *args], cwd=ROOT, **how
    )


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} did not appear")


@pytest.mark.slow
def test_an_interrupt_ends_the_day_cleanly_with_what_was_done(tmp_path: Path) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = started(tmp_path, "--speed", "20000", **pipes)
    partial = tmp_path / "alerts.jsonl.partial"
    wait_for(partial)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    text, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert "Interrupted at " in text
    assert "alerts.jsonl.partial" in "".join(text.split())  # a long path wraps
    assert GOLDEN.read_bytes().startswith(partial.read_bytes())


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Yield the two ends of a terminal of 100 × 30."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    yield ours, theirs
    os.close(ours)


def everything(descriptor: int) -> str:
    found = b""
    try:
        while chunk := os.read(descriptor, 1 << 16):
            found += chunk
    except OSError:  # the other end has closed
        pass
    return found.decode()


@pytest.mark.slow
def test_on_a_terminal_the_day_is_watched_and_the_report_stays(
    tmp_path: Path, terminal: tuple[int, int]
) -> None:
    ours, theirs = terminal
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    env.pop("COLUMNS", None)
    running = started(
        tmp_path, "--speed", "40000", stdout=theirs, stderr=theirs, stdin=theirs, env=env
    )
    os.close(theirs)
    text = everything(ours)
    assert running.wait(timeout=30) == 0
    before, watched = text.split("\x1b[?1049h")
    watched, after = watched.split("\x1b[?1049l")
    assert "Risk sources by score" in watched
    assert "Risk sources by score" not in before + after
    assert "The day is over." in after
    assert (tmp_path / "alerts.jsonl").read_bytes() == GOLDEN.read_bytes()


def test_paths_are_shown_as_short_as_they_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "out" / "a.jsonl") == "out/a.jsonl"
    assert shown_path(Path("/x")) == "/x"


def test_what_was_not_over_when_interrupted_is_not_called_missed() -> None:
    incidents = [
        Incident(source="a", start_ms=0, end_ms=100_000, kind="leak", about="it leaked"),
        Incident(source="b", start_ms=0, end_ms=100_001, kind="fire", about="it burnt"),
    ]
    outcome = Outcome(
        summary=Summary(interrupted=True),
        score=score([], incidents, since_ms=0, until_ms=100_000),
        names={"a": "Mill Road well"},
        line_s=1.0,
        shown_s=None,
        reached=datetime.fromtimestamp(100, UTC),
        n_sources=2,
        catalog=Path("c"),
        rules=Path("r"),
        readings=Path("p"),
    )
    console = Console(file=StringIO(), width=80)
    console.print(report(outcome, 80))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Interrupted at 00:01:40 of the day." in text
    assert "leak at Mill Road well: it leaked" in text
    assert "it burnt" not in text
    rows = {line.split()[0]: line for line in text.splitlines() if " of 1 " in line}
    assert rows["leak"].rstrip().endswith("missed")
    assert rows["fire"].rstrip().endswith("not yet")

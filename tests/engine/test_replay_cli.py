"""`tocsin replay` as people run it: what is printed where, and the exit code."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import orjson
import pytest
import typer
from rich.console import Console

from engine import replay_cli
from engine.cli import main
from engine.replay import Progress
from engine.replay_cli import duration, moment, report, short, shown, stopping
from engine.replay_cli import prepared as prepared_cli
from engine.summary import Summary
from tests.engine.histories import write
from tests.engine.replays import City, city, job, one_file, prepared, readings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> City:
    return city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Path:
    return one_file(tmp_path_factory.mktemp("day"))


def command(of: City, *rest: object) -> list[str]:
    given = ["replay", "--catalog", of.catalog, "--rules", of.rules, *rest]
    return [str(each) for each in given]


def run(of: City, *rest: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(command(of, *rest))
    return int(caught.value.code or 0)


def test_the_summary_is_a_table_on_standard_output(small, day, tmp_path, capfd):
    assert run(small, day, "-o", tmp_path / "alerts.jsonl") == 0
    out, err = capfd.readouterr()
    for word in ("readings", "1,200 in", "rejects", "episodes", "raised by", "top sources"):
        assert word in out
    assert "raise" in out
    assert "unknown sensor, e.g. stranger" in err


def test_json_is_one_object_and_nothing_else(small, day, capfd):
    assert run(small, day, "--json") == 0
    assert orjson.loads(capfd.readouterr().out)["readings"] == 1200


def test_alerts_on_standard_output_leave_the_table_to_standard_error(small, day, tmp_path, capfd):
    assert run(small, day, "-o", tmp_path / "alerts.jsonl") == 0
    capfd.readouterr()
    assert run(small, day, "-o", "-") == 0
    out, err = capfd.readouterr()
    assert out.encode() == (tmp_path / "alerts.jsonl").read_bytes()
    assert "1,200 in" in err


def test_json_and_alerts_can_not_both_go_to_standard_output(small, day, capfd):
    assert run(small, day, "-o", "-", "--json") == 2
    assert "--json prints the summary" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("nowhere.parquet", None, "nowhere.parquet: no such file or folder"),
        ("broken.parquet", b"PAR1", "broken.parquet: can't be read as Parquet"),
        ("day.csv", b"a,b\n1,2\n", "day.csv: no column of the time"),
        ("day.csv", b"sensor,ts,value\nx,1\n", "line 2: Expected 3 columns, got 2"),
    ],
)
def test_input_that_is_wrong_is_one_line_and_exit_code_3(
    small, tmp_path, capfd, name, content, problem
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert run(small, path) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert problem in err


def test_a_fault_on_the_way_says_where_the_alert_log_is(small, tmp_path, capfd):
    path = write(tmp_path / "day.ndjson", readings())
    path.write_bytes(path.read_bytes() * 30 + b"broken\n")
    assert run(small, path, "-o", tmp_path / "alerts.jsonl", "--batch", "1000") == 3
    err = capfd.readouterr().err.replace("\n", "")
    assert "row 36001: not JSON" in err
    assert "the alert log so far is in" in err


def test_snapshot_and_resume_go_through_the_command_line(small, day, tmp_path, capfd):
    out, state = tmp_path / "alerts.jsonl", tmp_path / "state"
    assert run(small, day, "-o", out, "--snapshot", state) == 0
    whole = out.read_bytes()
    capfd.readouterr()
    assert run(small, day, "-o", out, "--resume", state, "--json") == 0
    assert out.read_bytes() == whole
    told = orjson.loads(capfd.readouterr().out)
    assert (told["readings"], told["ticks"]) == (0, 1)


def test_an_interrupt_ends_with_what_was_done_and_exit_code_130(
    small, day, tmp_path, capfd, monkeypatch
):
    asked = []

    def interrupting(stderr):
        def show(progress: Progress) -> None:
            asked.append(progress)
            os.kill(os.getpid(), signal.SIGINT)

        return nullcontext(show)

    monkeypatch.setattr(replay_cli, "shown", interrupting)
    out = tmp_path / "alerts.jsonl"
    assert run(small, day, "-o", out, "--batch", "300") == 130
    printed, err = capfd.readouterr()
    assert len(asked) == 1
    assert "alerts.jsonl.partial" in printed.replace("\n", "").replace(" ", "")
    assert "the alert log so far is in" in err.replace("\n", " ")
    assert Path(f"{out}.partial").exists()
    assert not out.exists()


def test_sigterm_is_taken_like_ctrl_c_and_the_second_ends_at_once():
    stop = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    with stopping(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_progress_shows_speed_share_and_alerts_on_a_terminal():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    with shown(console) as show:
        show(Progress(2_500_000, 12, 0.25, 0.5))
        show(Progress(2_600_000, 13, 0.26, 0.51))  # too soon after the last to be worth it
    printed = screen.getvalue()
    assert "25%" in printed
    assert "2.5 M readings, 5.0 M/s" in printed
    assert "12 alerts" in printed


def test_nothing_is_shown_in_a_pipe():
    console = Console(file=io.StringIO(), width=100)
    with shown(console) as show:
        assert show is None


def test_the_report_fits_a_terminal_of_100_columns_and_30_lines(small, day):
    summary = prepared(job(small, day, output=None)).run()
    screen = io.StringIO()
    Console(file=screen, width=100).print(report(summary))
    lines = screen.getvalue().splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100


def test_a_report_of_nothing_has_no_table_of_alerts():
    screen = io.StringIO()
    Console(file=screen, width=100).print(report(Summary()))
    assert "escalate" not in screen.getvalue()


def test_numbers_times_and_durations_are_short():
    assert [short(n) for n in (0, 999, 15_000_000, 1.2e9)] == ["0", "999", "15.0 M", "1.2 G"]
    assert moment(1_714_521_600_000) == "2024-05-01 00:00:00 UTC"
    assert moment(1 << 62) == f"{1 << 62} ms"
    assert [duration(s) for s in (0, 59.6, 3_700, 90_000)] == [
        "0 s",
        "1 min",
        "1 h 1 min",
        "1 d 1 h",
    ]


def test_the_command_runs_as_a_process_and_is_quiet_in_a_pipe(small, day):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from engine.cli import main; main()",
            *command(small, day, "--json"),
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert orjson.loads(done.stdout)["readings"] == 1200
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_compiling_is_said_when_it_takes_a_while(small, day, monkeypatch, capfd, terminal, seconds):
    monkeypatch.setattr(replay_cli, "_WORTH_SAYING_S", 0.1)

    def warm_up(replay):
        time.sleep(seconds)
        return seconds

    monkeypatch.setattr("engine.replay.Replay.warm_up", warm_up)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100, color_system=None)
    prepared_cli(job(small, day), console)
    assert ("compiling kernels (once, cached)…" in screen.getvalue()) is (seconds > 0)
    assert ("compiled the kernels in 0.3 s" in screen.getvalue()) is (seconds > 0)


def test_bad_parameters_are_usage(small, day):
    with pytest.raises(typer.BadParameter):
        replay_cli.run([day], small.catalog, small.rules, output=Path("-"), as_json=True)

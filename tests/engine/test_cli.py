from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import cli
from engine.errors import Fault, RulesError
from tests.cities import coupling, sensor, source, write_folder

ROOT = Path(__file__).parents[2]


def tocsin(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(arg) for arg in args])
    code = caught.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


def run(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    code = "from engine.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | env,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(
        tmp_path / "in",
        [source("a"), source("b", category="mall")],
        [sensor("1", "a"), sensor("2", "b", quantity="temperature", unit="°F", high_red=90.0)],
        [coupling("a", "b")],
    )


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """Put a module in the place of `engine.NAME` for what the command line calls there."""
    module = ModuleType(f"engine.{name}")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, f"engine.{name}", module)
    monkeypatch.setattr(f"engine.{name}", module, raising=False)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert tocsin("--help") == 0
    text = capsys.readouterr().out
    names = ("demo-replay", "catalog", "rules", "replay", "report", "tune", "diff", "explain")
    for name in (*names, "test", "version"):
        assert f" {name} " in text
    assert "Exit codes" in text
    assert set(cli.commands()) == {
        "demo-replay",
        "catalog build",
        "catalog show",
        "catalog verify",
        "rules check",
        "replay",
        "report",
        "tune",
        "diff",
        "explain",
        "test",
        "version",
    }


def test_every_command_and_option_has_help() -> None:
    for name, command in cli.commands().items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert tocsin() == 2
    out, err = capsys.readouterr()
    assert "Usage" in out + err


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    code = (
        "import sys\n"
        "from engine.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'numba', 'pyarrow', 'pydantic', 'pint'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    best = float("inf")
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
        after = os.times()
        # what the machine's other work takes does not count
        took_s = after.children_user + after.children_system
        best = min(best, took_s - before.children_user - before.children_system)
    assert best < 0.5


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from engine import __version__

    assert tocsin("version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_catalog_is_built_shown_and_verified(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "city.catalog"
    assert tocsin("catalog", "build", folder, "-o", out, "--partitions", "2", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["sources"], report["sensors"], report["couplings"]) == (2, 2, 1)
    assert tocsin("catalog", "show", out, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["digest"] == report["digest"] and shown["partitions"] == 2
    assert tocsin("catalog", "verify", out) == 0
    assert report["digest"] in capsys.readouterr().out


def test_a_catalog_is_built_like_another(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "city.catalog"
    assert tocsin("catalog", "build", folder, "-o", out, "--partitions", "3") == 0
    capsys.readouterr()
    again = tmp_path / "again.catalog"
    assert tocsin("catalog", "build", folder, "-o", again, "--like", out) == 0
    assert "2 sources in their partitions, 0 new, 0 gone, 0 moved" in capsys.readouterr().out
    assert again.read_bytes() == out.read_bytes()


def test_the_readable_reports_name_counts_and_cuts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "city.catalog"
    assert tocsin("catalog", "build", folder, "-o", out, "--max-cluster", "1") == 0
    built = capsys.readouterr().out
    assert "2 sources, 2 sensors, 0 couplings" in built
    assert "1 coupling cut" in built and "a -> b  pipe  0.5" in built
    assert tocsin("catalog", "show", out) == 0
    shown = capsys.readouterr().out
    for text in ("temperature", "degC", "mall", "gas_valve", "a -> b"):
        assert text in shown


def test_faults_are_one_line_each_on_stderr_with_exit_code_3(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(folder, [source("a", lon=999.0), source("a")], [sensor("1", "a\nb")])
    assert tocsin("catalog", "build", folder, "-o", tmp_path / "c") == 3
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert all(line.startswith("tocsin: error: ") for line in lines)
    assert lines[0].endswith("4 faults") and len(lines) == 5
    assert "row 1: lon: must be a number from -180 to 180, got 999.0" in err


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_file_that_is_no_catalog_is_one_line(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tocsin("catalog", command, tmp_path / "none") == 3
    assert capsys.readouterr().err == f"tocsin: error: {tmp_path / 'none'}: no such catalog\n"


def test_a_damaged_catalog_does_not_verify(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "city.catalog"
    assert tocsin("catalog", "build", folder, "-o", out) == 0
    content = out.read_bytes()
    out.write_bytes(content.replace(b"Well a", b"Well z"))
    assert tocsin("catalog", "verify", out) == 3
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["catalog"],
        ["catalog", "build", "x"],
        ["catalog", "build", "x", "-o", "y", "--partitions", "0"],
        ["catalog", "show"],
        ["replay", "x"],
        ["replay", "x", "--catalog", "c", "--rules", "r", "--threads", "0"],
        ["demo-replay", "--speed", "fast"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    assert tocsin(*args) == 2


def test_replay_passes_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}
    replaced(monkeypatch, "replay_cli", run=lambda **options: called.update(options) or 0)
    code = tocsin(
        *("replay", "a.parquet", "b", "--catalog", "c", "--rules", "r", "--adapter", "t.toml"),
        *("-o", "x.jsonl", "--from", "2024-01-01", "--to", "1704153600000", "--threads", 2),
        *("--snapshot", "s", "--resume", "p", "--json", "--sort", "--batch", 7),
    )
    assert code == 0
    assert called == {
        "readings": [Path("a.parquet"), Path("b")],
        "catalog": Path("c"),
        "rules": Path("r"),
        "adapter": Path("t.toml"),
        "output": Path("x.jsonl"),
        "since": "2024-01-01",
        "until": "1704153600000",
        "threads": 2,
        "snapshot": "s",
        "resume": "p",
        "as_json": True,
        "sort": True,
        "batch": 7,
    }


def test_rules_check_and_demo_pass_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    replaced(monkeypatch, "rules_cli", check=lambda *args: called.append(args) or 3)
    replaced(monkeypatch, "demo", run=lambda *args: called.append(args) or 0)
    assert tocsin("rules", "check", "r.toml", "--json") == 3
    assert tocsin("demo-replay", "--speed", "60", "--out", "o") == 0
    assert called == [(Path("r.toml"), True), (60.0, False, Path("o"))]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (
            RulesError("r.toml: 1 fault", faults=[Fault(problem="no", key="levels.red")]),
            3,
            "tocsin: error: r.toml: 1 fault\ntocsin: error: levels.red: no\n",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "r.toml"),
            3,
            "tocsin: error: r.toml: No such file or directory\n",
        ),
        (KeyboardInterrupt(), 130, "tocsin: interrupted\n"),
        (
            ValueError("a\nb"),
            1,
            "tocsin: unexpected error: ValueError: a b (TOCSIN_DEBUG=1 shows where)\n",
        ),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    said: str,
) -> None:
    def check(*_: Any) -> int:
        raise raised

    replaced(monkeypatch, "rules_cli", check=check)
    monkeypatch.delenv("TOCSIN_DEBUG", raising=False)
    assert tocsin("rules", "check", "r.toml") == code
    assert capsys.readouterr().err == said


def test_tracebacks_are_shown_on_demand_only(tmp_path: Path) -> None:
    quiet = run("catalog", "show", tmp_path / "none")
    assert quiet.returncode == 3 and "Traceback" not in quiet.stderr
    loud = run("catalog", "show", tmp_path / "none", TOCSIN_DEBUG="1")
    assert loud.returncode == 1 and "Traceback" in loud.stderr


def test_a_pipe_that_closes_early_is_no_error(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "city.catalog"
    assert tocsin("catalog", "build", folder, "-o", out) == 0
    code = "from engine.cli import main; main()"
    command = [sys.executable, "-c", code, "catalog", "show", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == ""
    process.stderr.close()

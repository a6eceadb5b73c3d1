from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import cli as engine_cli
from tests.topologies.test_settings import PASSWORD
from topologies import cli
from topologies.settings import SECRETS, Settings, flag

ROOT = Path(__file__).parents[2]


def tocsin(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(arg) for arg in args])
    code = caught.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


class Calls(list[Any]):
    """What the command line called in the place of modules of `topologies`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._monkeypatch = monkeypatch

    def replace(self, name: str, **functions: Any) -> None:
        module = ModuleType(f"topologies.{name}")
        vars(module).update(functions)
        self._monkeypatch.setitem(sys.modules, f"topologies.{name}", module)

    def record(self, name: str, *functions: str) -> None:
        def noting(function: str) -> Any:
            def call(settings: Settings, *args: Any, **options: Any) -> int:
                self.append((function, settings, args, options))
                return 0

            return call

        self.replace(name, **{function: noting(function) for function in functions})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    for name in [name for name in os.environ if name.startswith("TOCSIN_")]:
        monkeypatch.delenv(name)
    return Calls(monkeypatch)


def test_help_lists_the_commands_of_replay_and_the_live_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tocsin("--help") == 0
    text = capsys.readouterr().out
    assert set(engine_cli.commands()) < set(cli.commands())
    for name in cli.commands():
        assert f" {name.partition(' ')[0]} " in text
    assert set(cli.commands()) - set(engine_cli.commands()) == {
        *("demo", "worker", "feed", "alerts", "dump", "health", "rules push"),
        *("ack", "shelve", "unshelve", "suppress", "unsuppress"),
        *("out-of-service", "in-service"),
        *("snapshot ls", "snapshot show", "snapshot verify"),
    }


def test_every_command_and_option_has_help() -> None:
    for name, command in cli.commands().items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_engines_own_command_line_is_left_as_it_was() -> None:
    assert "worker" not in engine_cli.commands() and "rules push" not in engine_cli.commands()


def timed(module: str, *args: str) -> float:
    """Return the seconds that a command line takes, after checking that it imports little."""
    code = (
        "import sys\n"
        f"from {module} import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'numba', 'pyarrow', 'pint', 'faust', 'aiokafka', 'redis', 'aiohttp',\n"
        "         'structlog', 'prometheus_client', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, *args]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return time.perf_counter() - begin


def test_help_imports_nothing_heavy() -> None:
    for args in (("--help",), ("snapshot", "--help"), ("rules", "--help"), ("version",)):
        timed("topologies.cli", *args)


def test_the_live_commands_make_the_help_hardly_slower() -> None:
    # in turns: what else the machine does hits both alike
    both = [(timed("topologies.cli", "--help"), timed("engine.cli", "--help")) for _ in range(5)]
    ours, engines = (min(times) for times in zip(*both, strict=True))
    assert ours < 1.5 * engines + 0.05


def test_a_command_with_settings_starts_without_the_broker_libraries() -> None:
    code = (
        "import sys\n"
        "from topologies.cli import main\n"
        "try: main(['worker', '--show-settings'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'pyarrow', 'faust', 'aiokafka', 'redis', 'aiohttp'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_the_worker_has_a_flag_for_every_setting_but_the_secrets() -> None:
    options = {name for each in cli.commands()["worker"].params for name in each.opts}
    for name in Settings.model_fields:
        assert (flag(name) in options) is (name not in SECRETS), name


def test_flags_reach_the_worker_as_settings(calls: Calls, tmp_path: Path) -> None:
    calls.record("serve", "run")
    file = tmp_path / "t.toml"
    file.write_text('rules = "r.toml"\ntick_s = 9\n')
    code = tocsin(
        *("worker", "--catalog", "c", "--config", file, "--tick-s", "0.5", "--no-router"),
        *("--kafka-brokers", "localhost:1,localhost:2", "--adopt-catalog"),
    )
    assert code == 0
    ((_, settings, args, options),) = calls
    assert (args, options) == ((), {})
    assert settings == Settings(
        catalog=Path("c"),
        rules=Path("r.toml"),
        tick_s=0.5,
        router=False,
        kafka_brokers=("localhost:1", "localhost:2"),
        adopt_catalog=True,
    )


def test_a_worker_wants_a_catalog_and_rules(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tocsin("worker") == 3
    assert capsys.readouterr().err == (
        "tocsin: error: 2 faults in the settings\n"
        "tocsin: error: catalog: is required: --catalog or TOCSIN_CATALOG\n"
        "tocsin: error: rules: is required: --rules or TOCSIN_RULES\n"
    )


def test_settings_in_fault_are_lines_on_stderr_with_exit_code_3(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOCSIN_TICKS_S", "1")
    assert tocsin("worker", "--http-port", "x") == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "tocsin: error: 2 faults in the settings\n"
        "tocsin: error: TOCSIN_TICKS_S: unknown setting (did you mean TOCSIN_TICK_S?)\n"
        "tocsin: error: --http-port: must be a whole number, got 'x'\n"
    )


def test_the_settings_are_shown_without_their_secrets(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOCSIN_REDIS_PASSWORD", PASSWORD)
    monkeypatch.setenv("TOCSIN_HTTP_TOKEN", PASSWORD)
    assert tocsin("worker", "--show-settings", "--tick-s", "2") == 0
    out, err = capsys.readouterr()
    assert PASSWORD not in out + err
    lines = out.splitlines()
    assert "redis_password = ********" in lines and "tick_s = 2" in lines
    assert len(lines) == len(Settings.model_fields)


def test_settings_are_not_shown_whose_files_can_not_be_read(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.toml").write_text("")
    given = ("--catalog", tmp_path / "nope", "--rules", tmp_path / "r.toml", "--feeds", tmp_path)
    assert tocsin("worker", "--show-settings", *given) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "tocsin: error: 2 faults in the settings\n"
        f"tocsin: error: catalog: can't be read: No such file or directory, "
        f"got '{tmp_path / 'nope'}'\n"
        f"tocsin: error: feeds: can't be read: Is a directory, got '{tmp_path}'\n"
    )


def test_the_help_tells_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (("--help",), ("health", "--help")):
        assert tocsin(*args) == 0
        assert "4 a worker that is not ready" in " ".join(capsys.readouterr().out.split())


def test_embedded_servers_end_with_the_worker_and_keep_no_snapshots(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    class Server:
        bootstrap, url, says = "127.0.0.1:12345", "redis://127.0.0.1:23456/0", "in memory"

        def __enter__(self) -> Server:
            calls.append("up")
            return self

        def __exit__(self, *_: object) -> None:
            calls.append("down")

    def run(settings: Settings) -> int:
        calls.append(settings)
        assert Path(settings.snapshots).is_dir()
        return 0

    calls.replace("embedded", EmbeddedBroker=Server, EmbeddedRedis=Server)
    calls.replace("serve", run=run)
    assert tocsin("worker", "--embedded", "--catalog", "c", "--rules", "r", "--tick-s", "2") == 0
    first, second, settings, *rest = calls
    assert [first, second, *rest] == ["up", "up", "down", "down"]
    assert settings.kafka_brokers == ("127.0.0.1:12345",)
    assert settings.redis_url == "redis://127.0.0.1:23456/0"
    assert settings.tick_s == 2.0
    assert not Path(settings.snapshots).exists()
    assert "in memory" in capsys.readouterr().err


def test_feed_passes_every_option(calls: Calls) -> None:
    calls.record("feed", "run")
    code = tocsin(
        *("feed", "a.parquet", "b", "--catalog", "c", "--adapter", "a.toml", "--rate", "5000"),
        *("--batch", 7, "--format", "ndjson", "--shift-to-now", "--ticks", "--loop"),
        *("--limit", 100, "--topic", "other", "--kafka-brokers", "localhost:1"),
    )
    assert code == 0
    ((_, settings, args, options),) = calls
    assert args == () and settings.catalog == Path("c")
    assert settings.kafka_brokers == ("localhost:1",)
    assert options == {
        "readings": [Path("a.parquet"), Path("b")],
        "adapter": Path("a.toml"),
        "city": False,
        "speed": None,
        "rate": 5000.0,
        "batch": 7,
        "layout": "ndjson",
        "shift_to_now": True,
        "ticks": True,
        "loop": True,
        "limit": 100,
        "topic": "other",
    }


def test_alerts_and_health_and_snapshots_pass_their_options(calls: Calls) -> None:
    calls.record("alerts_cli", "run")
    calls.record("probe", "run")
    calls.record("snapshot_cli", "ls", "show", "verify")
    assert tocsin("alerts", "--follow", "--level", "red", "--district", "d", "-n", 3) == 0
    assert tocsin("health", "--live", "--http-port", "9") == 0
    assert tocsin("snapshot", "ls", "--snapshots", "s3://b", "--json") == 0
    assert tocsin("snapshot", "show", "x") == 0
    assert tocsin("snapshot", "verify") == 0
    assert [(name, args, options) for name, _, args, options in calls] == [
        (
            "run",
            (),
            {
                "follow": True,
                "level": "red",
                "district": "d",
                "route": None,
                "limit": 3,
                "as_json": False,
            },
        ),
        ("run", ("/healthz",), {}),
        ("ls", (), {"as_json": True}),
        ("show", ("x",), {"as_json": False}),
        ("verify", (None,), {}),
    ]
    assert calls[1][1].http_port == 9 and calls[2][1].snapshots == "s3://b"


def test_commands_are_sent_as_the_records_of_the_log_name_them(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.record("commands", "send", "push_rules")
    monkeypatch.setattr("topologies.durations.now_ms", lambda: 1704067200000)
    for args in (
        ("ack", "well-1", "--by", "li", "--note", "seen"),
        ("shelve", "well-1", "--for", "1h30m"),
        ("shelve", "well-1", "--until", "1704153600000"),
        ("unshelve", "well-1"),
        ("suppress", "--district", "north", "--from", "1704067200000", "--for", "1d"),
        ("suppress", "--category", "mall", "--for", "90s"),
        ("unsuppress", "--district", "north", "--by", "li"),
        ("unsuppress", "--source", "well-1"),
        ("out-of-service", "well-1"),
        ("in-service", "well-1"),
        ("rules", "push", "r.toml", "--note", "why"),
    ):
        assert tocsin(*args) == 0
    nobody = {"by": None, "note": None}
    assert [(args, options) for _, _, args, options in calls] == [
        (("acknowledge",), {"by": "li", "note": "seen", "source": "well-1"}),
        (("shelve",), {**nobody, "source": "well-1", "until_ms": 1704072600000}),
        (("shelve",), {**nobody, "source": "well-1", "until_ms": 1704153600000}),
        (("unshelve",), {**nobody, "source": "well-1"}),
        (
            ("suppress",),
            {
                **nobody,
                "from_ms": 1704067200000,
                "until_ms": 1704153600000,
                "district": "north",
            },
        ),
        (
            ("suppress",),
            {
                **nobody,
                "from_ms": 1704067200000,
                "until_ms": 1704067290000,
                "category": "mall",
            },
        ),
        (("unsuppress",), {"by": "li", "note": None, "district": "north"}),
        (("unsuppress",), {**nobody, "source": "well-1"}),
        (("out_of_service",), {**nobody, "source": "well-1"}),
        (("in_service",), {**nobody, "source": "well-1"}),
        ((Path("r.toml"),), {"by": None, "note": "why", "as_json": False}),
    ]


@pytest.mark.parametrize(
    "args",
    [
        ["worker", "--kafka-password", PASSWORD],
        ["worker", "extra"],
        ["feed", "--catalog", "c"],
        ["feed", "a", "--city", "--catalog", "c"],
        ["feed", "a", "--speed", "1", "--rate", "1", "--catalog", "c"],
        ["feed", "a", "--format", "xml", "--catalog", "c"],
        ["alerts", "--level", "purple"],
        ["ack"],
        ["shelve", "s"],
        ["shelve", "s", "--for", "2h", "--until", "1704153600000"],
        ["shelve", "s", "--for", "2 hours"],
        ["shelve", "s", "--for", "400d"],
        ["shelve", "s", "--until", "yesterday"],
        ["shelve", "s", "--until", "2001-01-01"],
        ["shelve", "s", "--for", "3d"],
        ["shelve", "s", "--until", "2099-01-01"],
        ["suppress", "--for", "1h"],
        ["suppress", "--source", "a", "--for", "32d"],
        ["unsuppress"],
        ["unsuppress", "--source", "a", "--category", "b"],
        ["suppress", "--source", "a", "--district", "b", "--for", "1h"],
        ["snapshot"],
        ["snapshot", "show"],
        ["rules", "push"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str], calls: Calls) -> None:
    assert tocsin(*args) == 2
    assert calls == []


def test_a_span_too_long_is_refused_in_words(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, words in (
        (("shelve", "s", "--for", "3d"), "at most 24 h at a time: shelve again"),
        (("suppress", "--source", "a", "--for", "32d"), "at most 31 days"),
    ):
        assert tocsin(*args) == 2
        said = capsys.readouterr().err
        assert "--for" in said and words in said and "ms" not in said


def test_the_help_of_rules_and_alerts_says_all_that_they_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for args, words in (
        (("rules", "--help"), "push them to workers"),
        (("--help",), "push them to workers"),
        (("alerts", "--help"), "In a pipe or with --json, the newest alerts alone"),
    ):
        assert tocsin(*args) == 0
        assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_library_of_the_live_extra_that_is_missing_is_named(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "faust", None)

    def run(settings: Settings) -> int:
        import faust  # noqa: F401

        raise AssertionError

    calls.replace("serve", run=run)
    assert tocsin("worker", "--catalog", "c", "--rules", "r") == 3
    assert capsys.readouterr().err == (
        "tocsin: error: worker needs faust: pip install 'tocsin[live]'\n"
    )


def test_replay_works_from_the_same_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tocsin("rules", "check", tmp_path / "none.toml") == 3
    assert "none.toml" in capsys.readouterr().err
    assert tocsin("version") == 0

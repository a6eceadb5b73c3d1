from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from engine.errors import SettingsError
from topologies import settings_text
from topologies.settings import SECRETS, Settings, flag, load, variable
from topologies.settings_text import shown, startup_line, with_table

PASSWORD = "correct-horse-battery"


def faults(
    flags: dict[str, Any] | None = None, config: Path | None = None, **env: str
) -> list[str]:
    """Return the lines that refuse these settings."""
    with pytest.raises(SettingsError) as caught:
        load(flags, env={f"TOCSIN_{name}": value for name, value in env.items()}, config=config)
    problem, *lines = caught.value.lines()
    count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    assert problem == f"{count} in the settings"
    return lines


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_the_defaults_are_valid_and_stay_on_this_machine() -> None:
    settings = load(env={})
    assert settings.kafka_brokers == ("127.0.0.1:9092",)
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.http_host == "127.0.0.1"
    assert not settings.allow_plaintext


def test_flags_go_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    file = written(
        tmp_path / "t.toml", 'group = "file"\ntick_s = 3\nsnapshot_keep = 5\nlog_format = "json"\n'
    )
    env = {"TOCSIN_GROUP": "env", "TOCSIN_TICK_S": "2.5", "TOCSIN_ROUTER": "false"}
    settings = load({"group": "flag", "tick_s": None}, env=env, config=file)
    assert settings.group == "flag"
    assert settings.tick_s == 2.5
    assert settings.snapshot_keep == 5 and settings.log_format == "json"
    assert settings.router is False
    assert settings.heartbeat_s == Settings().heartbeat_s


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path / "t.toml", 'kafka_brokers = ["[::1]:9092", "127.0.0.1:9093"]')
    assert load(env={"TOCSIN_CONFIG": str(file)}).kafka_brokers == ("[::1]:9092", "127.0.0.1:9093")


def test_lists_are_written_with_commas_in_the_environment() -> None:
    settings = load(env={"TOCSIN_KAFKA_BROKERS": "localhost:1, localhost:2,"})
    assert settings.kafka_brokers == ("localhost:1", "localhost:2")


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert load(env={"TOCSIN_TICK_S": ""}).tick_s == Settings().tick_s


def test_settings_are_frozen_and_refuse_unknown_names() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().tick_s = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra inputs"):
        Settings(tick=3)  # type: ignore[call-arg]


def test_every_unknown_name_is_told_with_the_nearest_known(tmp_path: Path) -> None:
    file = written(tmp_path / "t.toml", 'group = "a"\n\nsnapshot_evry_s = 3\n')
    assert faults(config=file, KAFKA_BROKER="localhost:1") == [
        "TOCSIN_KAFKA_BROKER: unknown setting (did you mean TOCSIN_KAFKA_BROKERS?)",
        f"{file}: line 3: snapshot_evry_s: unknown setting (did you mean snapshot_every_s?)",
    ]


def test_variables_that_are_no_settings_are_let_be() -> None:
    load(env={"TOCSIN_DEBUG": "1", "TOCSIN_TEST_KAFKA": "x", "HOME": "/", "TOCSIN": "x"})


def test_every_fault_is_told_at_once_with_its_place_value_and_bound(tmp_path: Path) -> None:
    file = written(tmp_path / "t.toml", 'tick_s = -1\nlog_level = "inf"\n')
    assert faults({"http_port": "70000", "heartbeat_s": "9"}, file, REDIS_MAX_STREAM="many") == [
        f"{file}: line 1: tick_s: must be ≥ 0, got -1",
        "TOCSIN_REDIS_MAX_STREAM: must be a whole number, got 'many'",
        "--http-port: must be ≤ 65535, got '70000'",
        f"{file}: line 2: log_level: must be 'debug', 'info', 'warning' or 'error' "
        "(did you mean info?), got 'inf'",
        "--heartbeat-s: must be at most a third of session_timeout_s, 3.33, got 9.0",
    ]


def test_what_rests_on_a_wrong_setting_is_not_judged() -> None:
    assert faults(SESSION_TIMEOUT_S="no", HEARTBEAT_S="9") == [
        "TOCSIN_SESSION_TIMEOUT_S: must be a number, got 'no'"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a = ", "not TOML: "), (None, "can't be read: No such file or directory")],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "t.toml" if text is None else written(tmp_path / "t.toml", text)
    (line,) = faults(config=file)
    assert line.startswith(f"{file}: {problem}")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("kafka_brokers", "kafka", "must be HOST:PORT, got 'kafka'"),
        ("kafka_brokers", ",", "must have at least 1 entries"),
        ("topic_prefix", "tocsin/", "must be letters, digits, dots, dashes and underscores"),
        ("redis_prefix", "a b", "must be printable, without spaces"),
        ("kafka_ca_file", "/no/such", "can't be read: No such file or directory"),
        ("snapshot_every_s", "nan", "must be a finite number"),
        ("router", "perhaps", "must be true or false"),
    ],
)
def test_a_value_out_of_bounds_is_told(name: str, value: str, problem: str) -> None:
    (line,) = faults({name: value})
    assert line.startswith(f"{flag(name)}: {problem}")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@localhost",
        f"redis://localhost?ssl_cert_reqs=none&password={PASSWORD}",
        f"http://localhost/{PASSWORD}",
        f"redis://localhost/{PASSWORD}",
        f"redis://[{PASSWORD}",
        f"unix://{PASSWORD}",
    ],
)
def test_a_redis_url_carries_no_secret_no_option_and_is_not_repeated(url: str) -> None:
    (line,) = faults(REDIS_URL=url)
    assert line.startswith("TOCSIN_REDIS_URL: must ")
    assert PASSWORD not in line


def test_a_broker_carries_no_password_and_is_not_repeated() -> None:
    assert faults(KAFKA_BROKERS=f"u:{PASSWORD}@localhost:1") == [
        "TOCSIN_KAFKA_BROKERS: must be HOST:PORT"
    ]


def test_a_place_of_snapshots_carries_no_keys() -> None:
    (line,) = faults(SNAPSHOTS=f"s3://key:{PASSWORD}@bucket/x")
    assert line.startswith("TOCSIN_SNAPSHOTS: must not carry keys") and PASSWORD not in line


def test_what_a_command_needs_is_asked_for_by_name() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(rules=Path("r.toml")).required("catalog", "rules")
    assert list(caught.value.lines()) == [
        "1 fault in the settings",
        "catalog: is required: --catalog or TOCSIN_CATALOG",
    ]


# --- secrets ------------------------------------------------------------------------------------


def with_every_secret(tmp_path: Path) -> Settings:
    return Settings(
        kafka_security="sasl_ssl",
        kafka_user="worker",
        kafka_key_file=written(tmp_path / "k.pem", "-"),
        kafka_cert_file=written(tmp_path / "c.pem", "-"),
        **{name: f"{PASSWORD}-{name}" for name in SECRETS},
    )


def test_no_secret_is_seen_in_any_text_of_the_settings(tmp_path: Path) -> None:
    settings = with_every_secret(tmp_path)
    for name in SECRETS:
        assert settings.secret(name) == f"{PASSWORD}-{name}"
        assert isinstance(getattr(settings, name), SecretStr)
    catalog = SimpleNamespace(digest="c" * 32, n_sources=1, n_sensors=2, n_partitions=3)
    plan = SimpleNamespace(rules=SimpleNamespace(name="rules", digest="d" * 32))
    for text in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        str(shown(settings)),
        startup_line(settings, catalog, plan),
    ):
        assert PASSWORD not in text
    assert shown(settings)["http_token"] == "********"


def test_a_wrong_secret_is_not_repeated() -> None:
    for name in SECRETS:
        lines = faults({name: 5, "tick_s": "x"})
        assert not any("5" in line for line in lines)
    lines = faults(HTTP_TOKEN="tiny-secret")
    assert lines == ["TOCSIN_HTTP_TOKEN: must have at least 16 characters"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_stand_in_a_file_that_is_read_once(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / "secret", f"{PASSWORD}\n")
    cert = {"kafka_security": "ssl", "kafka_cert_file": file, "kafka_key_file": file}
    if name == "kafka_password":
        cert = {"kafka_security": "sasl_ssl", "kafka_user": "u"}
    settings = load({f"{name}_file": str(file), **cert}, env={})
    assert settings.has_secret(name) and settings.secret(name) == PASSWORD
    written(file, f"{PASSWORD}-2")
    assert settings.secret(name) == PASSWORD
    file.unlink()
    with pytest.raises(SettingsError, match="can't be read"):
        load({f"{name}_file": str(file), **cert}, env={}).secret(name)


def test_a_secret_and_its_file_together_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "secret", PASSWORD)
    assert faults({"redis_password_file": file}, REDIS_PASSWORD=PASSWORD) == [
        "--redis-password-file: must not be given besides redis_password"
    ]


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "must not be empty"), (b"\xff\xfe", "must be UTF-8 text")]
)
def test_a_secret_file_without_a_secret_is_refused(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    (line,) = faults({"redis_password_file": str(file)})
    assert line.startswith(f"--redis-password-file: {problem}")


# --- documentation ------------------------------------------------------------------------------


def test_the_readme_documents_every_setting_as_the_model_has_it() -> None:
    text = settings_text.README.read_text(encoding="utf-8")
    assert settings_text.BEGIN in text and settings_text.END in text
    assert with_table(text) == text, "run python -m topologies.settings_text"
    for name in Settings.model_fields:
        assert f"| `{name}` | `{variable(name)}` |" in text


def test_every_setting_says_what_it_is_and_numbers_have_bounds() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
        assert settings_text.section(field), name
        if field.annotation in (int, float):
            bounds = {
                bound for each in field.metadata for bound in ("ge", "le") if hasattr(each, bound)
            }
            assert bounds == {"ge", "le"}, name


def test_what_is_shown_can_be_read_back(tmp_path: Path) -> None:
    settings = Settings(kafka_brokers=("localhost:1", "localhost:2"), tick_s=0.25, router=False)
    env = {variable(name): value for name, value in shown(settings).items()}
    assert load(env=env) == settings


# --- the line at the start ----------------------------------------------------------------------


def test_the_start_line_says_what_a_worker_is_connected_to() -> None:
    catalog = SimpleNamespace(digest="c" * 32, n_sources=1_000, n_sensors=4_000, n_partitions=8)
    plan = SimpleNamespace(rules=SimpleNamespace(name="city", digest="d" * 32))
    settings = Settings(catalog=Path("city.catalog"), snapshots="s3://bucket/tocsin")
    assert startup_line(settings, catalog, plan, embedded=True) == (
        "tocsin 0.1.0 worker of group tocsin; "
        "catalog city.catalog (cccccccccccc: 1,000 sources, 4,000 sensors, 8 partitions); "
        "rules city (dddddddddddd); "
        "kafka 127.0.0.1:9092 (plaintext), topics tocsin.*; "
        "redis redis://127.0.0.1:6379/0; "
        "snapshots s3://bucket/tocsin every 30 s; "
        "http http://127.0.0.1:9817; "
        "broker and Redis embedded, in memory only: nothing outlives this run"
    )


def test_the_start_line_names_users_and_tls_but_no_secret(tmp_path: Path) -> None:
    catalog = SimpleNamespace(digest="c" * 32, n_sources=1, n_sensors=1, n_partitions=1)
    plan = SimpleNamespace(rules=SimpleNamespace(name="city", digest="d" * 32))
    pem = written(tmp_path / "pem", "-")
    settings = Settings(
        kafka_brokers=("kafka-1:9093", "kafka-2:9093"),
        kafka_security="sasl_ssl",
        kafka_user="worker",
        kafka_password=PASSWORD,
        redis_url="rediss://localhost:6380/0",
        redis_mode="sentinel",
        redis_sentinels=("s1:26379", "s2:26379"),
        redis_user="tocsin",
        redis_password=PASSWORD,
        http_host="::",
        http_cert_file=pem,
        http_key_file=pem,
        http_token=PASSWORD,
    )
    line = startup_line(settings, catalog, plan)
    assert "kafka kafka-1:9093,kafka-2:9093 (sasl_ssl) as worker (SCRAM-SHA-512)" in line
    assert "redis sentinel mymaster at s1:26379,s2:26379, TLS as tocsin" in line
    assert "http https://[::]:9817, token" in line
    assert PASSWORD not in line and "\n" not in line

"""Every setting of the live commands: one frozen model, from flags, environment, file, defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)

from engine.errors import Fault, SettingsError
from engine.rules_base import Flaw, Section, needed, one_of
from engine.toml_lines import key_lines
from topologies.security import security_flaws

PREFIX = "TOCSIN_"
CONFIG = "TOCSIN_CONFIG"
ELSEWHERE = (CONFIG, "TOCSIN_DEBUG")
"""Variables that are read before or beside the settings."""
TESTS_PREFIX = "TOCSIN_TEST_"
"""Variables of the test suite, none of which a worker reads."""
TOPICS = ("readings", "alerts", "rejects", "commands", "rules", "shadow")
"""Tocsin's own, as `Settings.topic` takes them."""
MAX_SECRET_BYTES = 64 << 10
SECRETS = (
    "kafka_password",
    "kafka_key_password",
    "redis_password",
    "redis_sentinel_password",
    "http_token",
)
"""Each has a twin `NAME_file`; none has a flag, which every user of the machine could read."""
MAY_CARRY_SECRETS = ("redis_url", "snapshots")
"""Refused if they do, so what stands there is not repeated."""


def _split(value: Any) -> Any:
    return (
        tuple(filter(None, (part.strip() for part in value.split(","))))
        if isinstance(value, str)
        else value
    )


def _host_port(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port and parts.netloc == text and "@" not in text:
            return text
    except ValueError:
        pass
    raise ValueError("must be HOST:PORT")


def _redis_url(text: str) -> str:
    # the text itself may carry a password, so no message repeats it
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port != 0
    except ValueError:
        port_is_fine = False
    if not port_is_fine or parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must be redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH")
    if "@" in text:
        raise ValueError("must not carry a user or password: redis_user, redis_password_file")
    if parts.query or parts.fragment:
        raise ValueError("must not carry options after ? or #: they could switch checks off")
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError("must be unix:///PATH")
    elif not parts.hostname or not re.fullmatch(r"(/\d{0,3})?", parts.path):
        raise ValueError("must be a host, a port and at most the number of a database")
    return text


def _readable(path: Path) -> Path:
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from error
    return path


def _kafka_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise ValueError("must be letters, digits, dots, dashes and underscores")
    return text


def _word(text: str) -> str:
    if not text.isprintable() or " " in text:
        raise ValueError("must be printable, without spaces")
    return text


def _place(text: str) -> str:
    if "@" in urlsplit(text).netloc:
        raise ValueError("must not carry keys: the environment of the cloud's own tools does")
    return text


HostPorts = Annotated[
    tuple[Annotated[str, AfterValidator(_host_port)], ...],
    BeforeValidator(_split),
    Field(max_length=100),
]
File = Annotated[Path, AfterValidator(_readable)]
KafkaName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_kafka_name)]
Word = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_word)]
RedisUrl = Annotated[str, Field(max_length=1_000), AfterValidator(_redis_url)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


def _in(section: str, default: Any, meaning: str, **bounds: Any) -> Any:
    return Field(default, description=meaning, json_schema_extra={"section": section}, **bounds)


class Settings(Section):
    """What the live commands are told; descriptions are the documentation."""

    model_config = ConfigDict(strict=False, hide_input_in_errors=True)
    _read: dict[str, str] = PrivateAttr(default_factory=dict)

    catalog: Path | None = _in("Line", None, "The compiled catalog.")
    rules: Path | None = _in("Line", None, "The rules (TOML) until others are pushed.")
    shadow: Path | None = _in(
        "Line", None, "Candidate rules that run beside; only the difference is published."
    )
    feeds: Path | None = _in(
        "Line", None, "TOML file that maps topics of other departments to adapters."
    )
    tick_s: float = _in(
        "Line",
        1.0,
        "Seconds between the ticks written to each owned partition; 0: none, only the log's own.",
        ge=0,
        le=3_600,
    )
    router: bool = _in("Line", True, "Whether this worker carries alerts to Redis too.")
    alerts_flush_ms: int = _in(
        "Line",
        5,
        "Milliseconds that an alert waits at most, to be sent together with others.",
        ge=0,
        le=60_000,
    )

    kafka_brokers: HostPorts = _in(
        "Kafka", ("127.0.0.1:9092",), "HOST:PORT of some brokers, with commas.", min_length=1
    )
    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = _in(
        "Kafka", "plaintext", "Protocol: plaintext, ssl, sasl_plaintext or sasl_ssl."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = _in(
        "Kafka", "SCRAM-SHA-512", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    kafka_user: Word | None = _in("Kafka", None, "User of SASL.")
    kafka_password: SecretStr | None = _in("Kafka", None, "Password of SASL.")
    kafka_password_file: File | None = _in("Kafka", None, "File that holds that password.")
    kafka_ca_file: File | None = _in(
        "Kafka", None, "Certificates (PEM) to trust; by default those of the system."
    )
    kafka_cert_file: File | None = _in("Kafka", None, "Our certificate (PEM), where asked for.")
    kafka_key_file: File | None = _in("Kafka", None, "Its private key (PEM).")
    kafka_key_password: SecretStr | None = _in("Kafka", None, "Password of that key.")
    kafka_key_password_file: File | None = _in("Kafka", None, "File that holds that password.")
    group: KafkaName = _in(
        "Kafka", "tocsin", "Consumer group: workers with the same name share the partitions."
    )
    topic_prefix: KafkaName = _in(
        "Kafka", "tocsin.", "What the names of all topics of Tocsin begin with."
    )
    topic_replication: int = _in(
        "Kafka", 1, "Replicas of a topic that a worker creates; 3 on a cluster.", ge=1, le=9
    )
    instance: KafkaName | None = _in(
        "Kafka",
        None,
        "Name of this worker in the group, kept over restarts: its partitions come back at once.",
    )
    session_timeout_s: float = _in(
        "Kafka",
        10.0,
        "Seconds of silence after which the group takes a worker for dead.",
        ge=1,
        le=1_800,
    )
    heartbeat_s: float = _in(
        "Kafka",
        2.0,
        "Seconds between signs of life, at most a third of session_timeout_s.",
        ge=0.1,
        le=600,
    )
    fetch_max_bytes: int = _in(
        "Kafka",
        2 << 20,
        "Most bytes of one fetch of a partition, which bounds what is taken at a time.",
        ge=1 << 16,
        le=1 << 30,
    )

    snapshots: Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(_place)] = _in(
        "State", "snapshots", "Where state is kept: a folder, or s3://, gs://, hdfs://."
    )
    snapshot_every_s: float = _in(
        "State", 30.0, "Seconds between snapshots, and so between commits.", ge=0.1, le=86_400
    )
    snapshot_keep: int = _in("State", 2, "Snapshots kept of each partition.", ge=1, le=1_000)
    adopt_catalog: bool = _in(
        "State", False, "Carry state over from snapshots of another catalog, sensor by sensor."
    )

    shutdown_s: float = _in(
        "State",
        45.0,
        "Seconds in which a worker that is told to stop hands over; then it ends as if killed.",
        ge=1,
        le=3_600,
    )

    redis_url: RedisUrl = _in(
        "Redis",
        "redis://127.0.0.1:6379/0",
        "redis://, rediss:// (TLS) or unix:///PATH; with Sentinel only scheme and database count.",
    )
    redis_mode: Literal["standalone", "sentinel", "cluster"] = _in(
        "Redis", "standalone", "standalone, sentinel or cluster."
    )
    redis_sentinels: HostPorts = _in("Redis", (), "HOST:PORT of the Sentinels, with commas.")
    redis_sentinel_name: Word = _in("Redis", "mymaster", "What the Sentinels call the primary.")
    redis_sentinel_user: Word | None = _in("Redis", None, "User at the Sentinels.")
    redis_sentinel_password: SecretStr | None = _in("Redis", None, "Password there.")
    redis_sentinel_password_file: File | None = _in("Redis", None, "File that holds that password.")
    redis_user: Word | None = _in("Redis", None, "ACL user, limited to the keys of redis_prefix.")
    redis_password: SecretStr | None = _in("Redis", None, "Its password.")
    redis_password_file: File | None = _in("Redis", None, "File that holds that password.")
    redis_ca_file: File | None = _in(
        "Redis", None, "Certificates (PEM) to trust; by default those of the system."
    )
    redis_cert_file: File | None = _in("Redis", None, "Our certificate (PEM), where asked for.")
    redis_key_file: File | None = _in("Redis", None, "Its private key (PEM).")
    redis_prefix: Word = _in("Redis", "tocsin:", "What all keys begin with.")
    redis_max_stream: int = _in(
        "Redis", 100_000, "Entries that each stream keeps, about.", ge=100, le=100_000_000
    )
    redis_timeout_s: float = _in(
        "Redis", 5.0, "Seconds to wait for an answer before a retry.", ge=0.1, le=600
    )
    redis_retry_max_s: float = _in(
        "Redis",
        5.0,
        "Longest pause between retries while Redis is away, in seconds.",
        ge=0.05,
        le=600,
    )

    allow_plaintext: bool = _in(
        "Security",
        False,
        "Let Kafka and Redis be reached off loopback without TLS; never with SASL passwords.",
    )
    http_host: Word = _in("Security", "127.0.0.1", "Address of /metrics, /healthz and /readyz.")
    http_port: int = _in("Security", 9817, "Its port; 0: no HTTP server.", ge=0, le=65_535)
    http_token: SecretStr | None = _in("Security", None, "Bearer token that callers must send.")
    http_token_file: File | None = _in("Security", None, "File that holds that token.")
    http_cert_file: File | None = _in("Security", None, "Certificate (PEM): makes it HTTPS.")
    http_key_file: File | None = _in("Security", None, "Its private key (PEM).")

    log_format: Literal["console", "json"] = _in("Seen", "console", "console or json.")
    log_level: Literal["debug", "info", "warning", "error"] = _in(
        "Seen", "info", "debug, info, warning or error."
    )
    stall_after_s: float = _in(
        "Seen",
        30.0,
        "Seconds without a message, or a tick, after which a partition is stalled.",
        ge=1,
        le=86_400,
    )
    ready_lag_s: float = _in(
        "Seen",
        60.0,
        "Seconds: a worker that is behind by older messages is not ready.",
        ge=1,
        le=1e9,
    )

    def flaws(self) -> Iterator[Flaw]:
        """Yield what is wrong with the settings taken together, security first."""
        yield from security_flaws(self)
        if self.heartbeat_s > self.session_timeout_s / 3:
            bound = (
                f"must be at most a third of session_timeout_s, {self.session_timeout_s / 3:.3g}"
            )
            yield Flaw(("heartbeat_s",), bound, self.heartbeat_s, (("session_timeout_s",),))
        for name in SECRETS:
            key = (f"{name}_file",)
            if getattr(self, name) is not None and getattr(self, key[0]) is not None:
                yield Flaw(key, f"must not be given besides {name}")
                continue
            try:
                if self.secret(name) == "":
                    yield Flaw((name,) if getattr(self, name) else key, "must not be empty")
            except SettingsError as error:
                yield Flaw(key, error.faults[0].problem, error.faults[0].value)

    def has_secret(self, name: str) -> bool:
        """Return whether a secret is given, itself or as a file."""
        return getattr(self, name) is not None or getattr(self, f"{name}_file") is not None

    def secret(self, name: str) -> str | None:
        """Return a secret; its file is read once, so that logs hide what connections use."""
        given: SecretStr | None = getattr(self, name)
        path: Path | None = getattr(self, f"{name}_file")
        if given is not None or path is None:
            return None if given is None else given.get_secret_value()
        if name in self._read:
            return self._read[name]
        try:
            with path.open(encoding="utf-8") as stream:
                return self._read.setdefault(name, stream.read(MAX_SECRET_BYTES).rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as error:
            problem = "can't be read" if isinstance(error, OSError) else "must be UTF-8 text"
            fault = Fault(key=f"{name}_file", problem=problem, value=str(path))
            raise SettingsError("1 fault in the settings", faults=[fault]) from error

    def required(self, *names: str) -> None:
        """Raise SettingsError unless each of the named settings has a value."""
        faults = [
            Fault(key=name, problem=f"is required: {flag(name)} or {variable(name)}")
            for name in names
            if getattr(self, name) is None
        ]
        if faults:
            raise _error(faults)

    def readable(self, *names: str) -> None:
        """Raise SettingsError unless each of the named files, where given, can be read."""
        faults = []
        for name in names:
            path: Path | None = getattr(self, name)
            try:
                if path is not None:
                    _readable(path)
            except ValueError as error:
                faults.append(Fault(key=name, problem=str(error), value=str(path)))
        if faults:
            raise _error(faults)

    def embedded(self, **there: Any) -> Settings:
        """Return the same for a broker and a Redis of this process, without secrets."""
        given = {
            name: value
            for name, value in self.model_dump(exclude_unset=True).items()
            if not name.startswith(("kafka_", "redis_"))
            or name in ("redis_prefix", "redis_max_stream")
        }
        # a join of the embedded broker waits half the session timeout
        given |= {"session_timeout_s": 6.0, "heartbeat_s": 1.0, "topic_replication": 1}
        return Settings.model_validate(given | there)

    def redis_parts(self) -> SplitResult:
        """Return the parts of `redis_url`."""
        return urlsplit(self.redis_url)

    def topic(self, name: str) -> str:
        """Return the whole name of one of Tocsin's topics, such as `readings`."""
        return f"{self.topic_prefix}{name}"


def flag(name: str) -> str:
    """Return a setting's flag: `--tick-s`."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return a setting's environment variable: `TOCSIN_TICK_S`."""
    return f"{PREFIX}{name.upper()}"


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Return the settings: flags before environment before file before defaults.

    Flags are setting names with their values, None where not given. `env` is the process's own by
    default, `config` the file that `TOCSIN_CONFIG` names. Raises SettingsError with every fault.
    """
    env = os.environ if env is None else env
    if config is None and env.get(CONFIG):
        config = Path(env[CONFIG])
    found = _Sources(flags or {}, env, config)
    settings = found.settings()
    if settings is None or found.faults:
        raise _error(found.faults)
    return settings


def _error(faults: list[Fault]) -> SettingsError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return SettingsError(f"{count} in the settings", faults=faults)


class _Sources:
    """Where each setting was given, and what is wrong with any of them."""

    def __init__(self, flags: Mapping[str, Any], env: Mapping[str, str], config: Path | None):
        self.faults: list[Fault] = []
        self.flags = {name: value for name, value in flags.items() if value is not None}
        self.env = self._environment(env)
        self.config = config
        self.file, self.lines = self._file(config) if config else ({}, {})

    def settings(self) -> Settings | None:
        given = self.file | self.env | self.flags
        settings, faulty = self._validated(given, set())
        if settings is None and faulty:
            # settings are judged together only once each is right: so again without the wrong ones
            left = {name: value for name, value in given.items() if name not in faulty}
            self._validated(left, faulty)
        return settings

    def _validated(self, given: dict[str, Any], gone: set[str]) -> tuple[Settings | None, set[str]]:
        faulty: set[str] = set()
        try:
            return Settings.model_validate(given), faulty
        except ValidationError as error:
            for each in error.errors(include_url=False):
                if each["type"] == "flaws":
                    for flaw in each["ctx"]["flaws"]:
                        about = {str(key[0]) for key in (flaw.key, *flaw.about)}
                        if not about & gone:
                            self._report(str(flaw.key[0]), flaw.problem, flaw.value)
                elif (name := str(each["loc"][0])) not in faulty:
                    # one is enough: a list of wrong entries is too short besides
                    faulty.add(name)
                    self._report_value(name, each)
        return None, faulty

    def _report_value(self, name: str, error: Mapping[str, Any]) -> None:
        if error["type"] == "extra_forbidden":
            near = one_of(name, Settings.model_fields, all_if_none=False)
            self._report(name, f"unknown setting{near}")
            return
        # user:password@host is a habit, whatever the setting is
        hidden = name in (*SECRETS, *MAY_CARRY_SECRETS) or "@" in str(error["input"])
        self._report(name, needed(error), None if hidden else error["input"])

    def _report(self, name: str, problem: str, value: Any = None) -> None:
        value = str(value) if isinstance(value, Path) else value
        if name in self.flags:
            fault = Fault(key=flag(name), problem=problem, value=value)
        elif name in self.env:
            fault = Fault(key=variable(name), problem=problem, value=value)
        elif name in self.file:
            line = self.lines.get((name,))
            fault = Fault(file=str(self.config), line=line, key=name, problem=problem, value=value)
        else:
            fault = Fault(key=name, problem=problem, value=value)
        self.faults.append(fault)

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        known = {variable(name): name for name in Settings.model_fields}
        found: dict[str, str] = {}
        for name, value in sorted(env.items()):
            if name in known:
                if value:  # an empty variable is one that is not set
                    found[known[name]] = value
            elif (
                name.startswith(PREFIX)
                and name not in ELSEWHERE
                and not name.startswith(TESTS_PREFIX)
            ):
                near = one_of(name, (*known, *ELSEWHERE), all_if_none=False)
                self.faults.append(Fault(key=name, problem=f"unknown setting{near}"))
        return found

    def _file(self, path: Path) -> tuple[dict[str, Any], Mapping[Any, int]]:
        try:
            text = path.read_bytes().decode("utf-8-sig")
            return tomllib.loads(text), key_lines(text)
        except OSError as error:
            problem = f"can't be read: {error.strerror}"
        except UnicodeDecodeError:
            problem = "must be UTF-8 text"
        except (ValueError, RecursionError) as error:
            message = str(error)
            problem = f"not TOML: {message[:1].lower()}{message[1:]}"
        self.faults.append(Fault(file=str(path), problem=problem))
        return {}, {}

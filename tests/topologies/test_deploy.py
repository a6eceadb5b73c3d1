"""The deploy files are checked as far as that goes without a container engine."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from engine.readings import OUTCOMES
from engine.shadow import CANDIDATE
from topologies import cli
from topologies.embedded import EmbeddedRedis
from topologies.metrics import Metrics
from topologies.settings import load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "topologies" / "deploy"
FROM_PROMETHEUS = {"up": {"job", "instance"}}
BY_THE_SCRAPE = {"job", "instance"}


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


# --- metrics: what the dashboard and the rules ask for is really exported ------------------------


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every metric of a worker that has done everything once, with its labels."""
    metrics = Metrics()
    metrics.own(0)
    metrics.restored(0)
    counts = np.ones(len(OUTCOMES), np.int64)
    metrics.batch(0, n_messages=1, seconds=0.1, counts=counts, event_ms=1, log_ms=1)
    metrics.lag(0, 1)
    metrics.snapshot(0, seconds=0.1, n_bytes=1)
    metrics.committed(0, 1)
    metrics.rejected("unknown_sensor")
    metrics.alert("red", "raise")
    metrics.redis_flush(0.1, 1)
    metrics.shadow_difference(CANDIDATE)
    metrics.running_rules(0, "digest", "name")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found | FROM_PROMETHEUS


def rules() -> list[dict[str, Any]]:
    return [rule for group in loaded("prometheus-alerts.yaml")["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")
    )
    return content


def panels() -> Iterator[dict[str, Any]]:
    for panel in dashboard()["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions() -> list[tuple[str, str]]:
    """Return each PromQL expression with what it is for, Grafana's own variables filled in."""
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    for panel in panels():
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", [])]
    found += [(each["name"], each["expr"]) for each in dashboard()["annotations"]["list"]]
    return [
        (name, text.replace("$__rate_interval", "1m").replace("$instance", ".*"))
        for name, text in found
    ]


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of an expression with the labels that are matched on it."""
    for name, matchers in re.findall(
        r"\b((?:tocsin|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?", expression
    ):
        yield name, set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_what_is_asked_for_is_exported(
    exported: dict[str, set[str]], name: str, expression: str
) -> None:
    labels: set[str] = set(BY_THE_SCRAPE)
    metrics = list(asked(expression))
    assert metrics
    for metric, matched in metrics:
        assert metric in exported, metric
        assert matched <= exported[metric] | BY_THE_SCRAPE, (metric, matched)
        labels |= exported[metric]
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= labels


def test_legends_and_annotations_use_labels_that_the_expression_leaves() -> None:
    texts = [(rule["expr"], text) for rule in rules() for text in rule["annotations"].values()] + [
        (target["expr"], target.get("legendFormat", ""))
        for panel in panels()
        for target in panel.get("targets", [])
    ]
    for expression, text in texts:
        used = set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}", text))
        grouped = re.search(
            r"^(?:sum|max|min|count|histogram_quantile).*?\bby \(([^)]*)\)", expression
        )
        if grouped:
            assert used <= {label.strip() for label in grouped[1].split(",")}, (expression, text)
        elif re.match(r"(sum|max|min|count)\(", expression):
            assert not used, (expression, text)


def test_every_metric_of_ours_is_on_the_dashboard(exported: dict[str, set[str]]) -> None:
    text = json.dumps(dashboard())
    ours = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exported}
    # an offset is for comparing by hand, and `restored` shows in `ready`
    by_hand = {"tocsin_committed_offset", "tocsin_restored"}
    missing = {name for name in ours if name.startswith("tocsin_") and name not in text} - by_hand
    assert not missing


def test_panels_have_a_description_a_source_and_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"] and panel["targets"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}


def promtool(*args: object) -> subprocess.CompletedProcess[str]:
    """Run promtool, of Debian's package `prometheus`, where it is installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    command = [program, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=DEPLOY, check=False)


def test_the_alert_rules_are_valid_and_fire_when_they_should() -> None:
    for args in (
        ("check", "rules", "prometheus-alerts.yaml"),
        ("test", "rules", "prometheus-alerts.test.yaml"),
    ):
        done = promtool(*args)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    found = [{"record": "a:b", "expr": text} for _, text in expressions()]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": found}]}))
    done = promtool("check", "rules", "--lint=none", file)
    assert done.returncode == 0, done.stdout + done.stderr
    file.write_text(
        yaml.safe_dump({"groups": [{"name": "x", "rules": [{"record": "a", "expr": "sum(("}]}]})
    )
    assert promtool("check", "rules", file).returncode != 0


def test_what_a_worker_really_exports_passes_promtool() -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    metrics = Metrics()
    metrics.own(0)
    done = subprocess.run(
        [program, "check", "metrics"], input=metrics.text(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- containers ---------------------------------------------------------------------------------


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = loaded("compose.yaml")["services"]
    return found


def test_compose_holds_kafka_redis_and_two_workers() -> None:
    assert set(services()) == {"kafka", "redis", "worker-1", "worker-2"}
    assert re.fullmatch(r"apache/kafka:4\.\d+\.\d+", services()["kafka"]["image"])


def test_compose_fits_the_compose_specification() -> None:
    spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    spec.PyCompose.from_json(json.dumps(loaded("compose.yaml"))).validate()


def test_nothing_of_compose_is_published_beyond_loopback() -> None:
    for name, service in services().items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)
        assert "network_mode" not in service and not service.get("privileged")


def test_every_container_is_hardened_and_bounded() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"] and service["pids_limit"]
        # Kafka's image writes its configuration when it starts
        assert service.get("read_only", False) is (name != "kafka")
    networks = loaded("compose.yaml")["networks"]
    assert networks["inside"]["internal"] is True
    for name in ("worker-1", "worker-2"):
        assert services()[name]["networks"] == ["inside"]


def test_workers_of_compose_share_snapshots_and_differ_in_name() -> None:
    one, two = services()["worker-1"], services()["worker-2"]
    assert one["volumes"] == two["volumes"]
    assert any(each.startswith("snapshots:") for each in one["volumes"])
    assert one["environment"].pop("TOCSIN_INSTANCE") != two["environment"].pop("TOCSIN_INSTANCE")
    assert one == two


def test_the_environment_of_compose_is_accepted_as_settings(tmp_path: Path) -> None:
    secret = tmp_path / "redis_password"
    secret.write_text("a-password")
    for name in ("worker-1", "worker-2"):
        env = dict(services()[name]["environment"])
        assert env["TOCSIN_REDIS_PASSWORD_FILE"] == "/run/secrets/redis_password"
        env["TOCSIN_REDIS_PASSWORD_FILE"] = str(secret)
        settings = load(env=env)
        settings.required("catalog", "rules")
        assert settings.http_host == "127.0.0.1"


def test_no_secret_stands_in_a_deploy_file() -> None:
    for path in DEPLOY.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"(?i)(password|token|secret)\s*[:=]\s*['\"]?[A-Za-z0-9]{6,}\b(?!/)", text
        )


def test_the_redis_user_of_compose_may_do_what_the_router_does_and_nothing_else() -> None:
    script = services()["redis"]["command"][2]
    words = re.search(r'"user tocsin (on .*?)" >>', script)
    assert words is not None
    password = "a-password-of-the-test"
    hashed = hashlib.sha256(password.encode()).hexdigest()
    rules = words[1].replace("$$hash", hashed).split()
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "tocsin", *rules)

        def refused(*command: str) -> bool:
            return admin.execute_command("ACL", "DRYRUN", "tocsin", *command) != b"OK"

        for allowed in (
            ("PING",),
            ("HELLO", "2"),
            ("SCRIPT", "LOAD", "return 1"),
            ("EVALSHA", "0" * 40, "1", "tocsin:fence"),
            ("HGETALL", "tocsin:fence"),
            ("XADD", "tocsin:alerts", "*", "a", "b"),
            ("XREAD", "STREAMS", "tocsin:alerts", "0"),
            ("GEOADD", "tocsin:geo", "1", "2", "a"),
        ):
            assert not refused(*allowed), allowed
        for forbidden in (
            ("GET", "other"),
            ("EVALSHA", "0" * 40, "1", "other"),
            ("FLUSHALL",),
            ("KEYS", "*"),
            ("CONFIG", "GET", "*"),
            ("ACL", "LIST"),
            ("PUBLISH", "channel", "x"),
        ):
            assert refused(*forbidden), forbidden
        user = redis.Redis.from_url(server.url, username="tocsin", password=password)
        assert user.ping()
        user.close()


def docker_instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in found]


def test_the_dockerfile_is_made_of_known_instructions_in_a_sound_order() -> None:
    known = set(
        [
            "FROM",
            "RUN",
            "WORKDIR",
            "COPY",
            "ENV",
            "USER",
            "VOLUME",
            "STOPSIGNAL",
            "HEALTHCHECK",
            "ENTRYPOINT",
            "CMD",
        ]
    )
    found = docker_instructions()
    assert {word for word, _ in found} <= known
    words = [word for word, _ in found]
    assert words[0] == "FROM" and words.count("FROM") == 2
    last = words[len(words) - words[::-1].index("FROM") :]
    assert "USER" in last and last.index("USER") < last.index("ENTRYPOINT")
    given = dict(found)
    assert given["USER"] == "10001:10001"  # a number: runAsNonRoot can be checked
    for word in ("ENTRYPOINT", "CMD"):
        assert isinstance(ast.literal_eval(given[word]), list)


def test_the_dockerfile_copies_what_is_there_and_runs_commands_that_are_there() -> None:
    given = docker_instructions()
    for word, rest in given:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = {
        source
        for word, rest in given
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(packages["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
    commands = cli.commands()
    health = next(rest for word, rest in given if word == "HEALTHCHECK")
    called = ast.literal_eval(health.partition("CMD ")[2])
    assert called == ["tocsin", "health", "--live"]
    options = {name for each in commands["health"].params for name in each.opts}
    assert "--live" in options and ast.literal_eval(dict(given)["CMD"])[0] in commands


def test_the_folders_of_the_image_belong_to_its_user() -> None:
    given = dict(docker_instructions())
    owned = set(given["RUN"].partition("install -d -o tocsin -g tocsin")[2].split())
    # `install` gives away the folders that it is told, not those on the way there
    assert {given["WORKDIR"], *ast.literal_eval(given["VOLUME"])} <= owned


def test_the_environment_of_the_image_is_accepted_as_settings() -> None:
    env = next(rest for word, rest in docker_instructions() if word == "ENV")
    pairs = dict(pair.split("=", 1) for pair in env.split())
    load(env={name: value for name, value in pairs.items() if name.startswith("TOCSIN_")})


# --- systemd ------------------------------------------------------------------------------------


def unit() -> str:
    return (DEPLOY / "tocsin-worker@.service").read_text(encoding="utf-8")


def test_the_unit_passes_systemds_own_checks(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    file = tmp_path / "tocsin-worker@0.service"
    file.write_text(unit().replace("/opt/tocsin/bin/tocsin", "/bin/true"), encoding="utf-8")
    for args in (
        ("verify", "--man=no", str(file)),
        ("security", "--offline=yes", "--threshold=20", "--no-pager", str(file)),
    ):
        done = subprocess.run([program, *args], capture_output=True, text=True, check=False)
        if "Unknown command" in done.stderr or "unrecognized option" in done.stderr:
            pytest.skip("this systemd-analyze is too old")
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr


def test_the_unit_is_hardened_and_gives_time_to_hand_over() -> None:
    options = re.findall(r"^([A-Za-z]+)=(.*)$", unit(), flags=re.MULTILINE)
    for option in (
        ("DynamicUser", "yes"),
        ("User", "tocsin"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
        ("KillSignal", "SIGTERM"),
        ("Restart", "always"),
    ):
        assert option in options, option
    assert "MemoryDenyWriteExecute" not in dict(options)  # Numba compiles


def test_the_environment_of_the_unit_is_accepted_as_settings() -> None:
    pairs = re.findall(r"\b(TOCSIN_[A-Z_]+)=(\S+)", unit())
    filled = {"%i": "3", "%H": "host", "%S": "/var/lib"}
    env = {}
    for name, value in pairs:
        for mark, text in filled.items():
            value = value.replace(mark, text)
        env[name] = value
    settings = load(env=env)
    assert settings.http_port == 9813 and settings.instance == "host-3"

"""`tocsin alerts`: what people and pipes are shown, over restarts of Redis."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.errors import OutputError
from tests.services.redis import Redis
from tests.topologies.alert_log import alerts, altered
from tests.topologies.day_line import DayLine
from tests.topologies.routers import routed, run
from topologies import alerts_cli
from topologies.redis_client import RedisLink

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
from topologies import alerts_cli
from topologies.redis_client import RedisLink
link = RedisLink(url=sys.argv[1], timeout_s=0.4)
sys.exit(alerts_cli.run(link, follow=sys.argv[2] == "follow", limit=900))
"""


def filled(server: Redis, log: Any) -> RedisLink:
    async def scenario() -> None:
        async with routed(server) as router:
            await router.flush(0, log)

    run(scenario)
    return RedisLink(url=server.url)


def printed(capsys: pytest.CaptureFixture[str], link: RedisLink, **options: Any) -> list[Any]:
    assert alerts_cli.run(link, **options) == 0
    return [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_pipe_gets_the_newest_records_as_they_are(
    redis_server: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    log = alerts(90)
    link = filled(redis_server, log)
    assert printed(capsys, link, limit=7) == [orjson.loads(record) for *_, record in log[-7:]]


def test_filters_find_what_lies_far_back(
    redis_server: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    log = alerts(1300)
    rare = altered(log[0], level="red", place={"lon": 1.0, "lat": 1.0, "district": "Rare"})
    log[0] = rare
    link = filled(redis_server, log)
    [found] = printed(capsys, link, district="Rare")
    assert found == orjson.loads(rare[2])
    shown = printed(capsys, link, level="orange", limit=10_000)
    records = [orjson.loads(record) for *_, record in log]
    high = ("orange", "red")
    assert shown == [r for r in records if r["level"] in high or r["level_from"] in high]
    fire = printed(capsys, link, route="fire", limit=10_000)
    assert fire == [r for r in records if "fire" in r["routes"]]


class Following:
    """The command as a process, and its lines as they come."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, "follow"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def read(self, stream: Any, n: int) -> list[bytes]:
        lines: list[bytes] = []
        reader = threading.Thread(
            target=lambda: lines.extend(stream.readline() for _ in range(n)), daemon=True
        )
        reader.start()
        reader.join(20)
        assert len(lines) == n and all(lines), lines
        return [line.rstrip(b"\n") for line in lines]


@pytest.fixture
def own(serve: Any) -> Redis:
    server: Redis = serve(lambda: Redis(settings=("--appendfsync", "always")))
    return server


@pytest.fixture
def following(own: Redis) -> Iterator[Following]:
    filled(own, alerts(3))
    shown = Following(own.url)
    yield shown
    shown.process.kill()
    shown.process.communicate()


def test_following_goes_on_over_a_restart_and_ends_with_ctrl_c(
    own: Redis, following: Following
) -> None:
    log = alerts(12)
    out, err = following.process.stdout, following.process.stderr
    assert following.read(out, 3) == [record for *_, record in log[:3]]
    filled(own, log[:6])
    assert following.read(out, 3) == [record for *_, record in log[3:6]]
    own.kill()
    assert b"is away" in following.read(err, 1)[0]
    own.start()
    filled(own, log)
    assert following.read(out, 6) == [record for *_, record in log[6:]]
    assert b"is back" in following.read(err, 1)[0]
    following.process.send_signal(signal.SIGINT)
    rest, errors = following.process.communicate(timeout=20)
    assert (following.process.returncode, rest, errors) == (0, b"", b"")


def on_terminal(server: Redis, columns: int = 160) -> str:
    """Return what a terminal of so many columns shows."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, "once"],
        cwd=ROOT,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": str(columns)},
    )
    os.close(theirs)
    text = io.BytesIO()
    while chunk := _read(ours):
        text.write(chunk)
    os.close(ours)
    assert done.wait() == 0
    return text.getvalue().decode()


def test_a_terminal_gets_a_table_and_lines_without_control_characters(redis_server: Redis) -> None:
    raised = altered(alerts(1)[0], text="bell\x07 and \x1b[31mcolour", level="orange")
    filled(redis_server, [raised])
    shown = on_terminal(redis_server)
    assert "above normal: 1" in shown and "well-207-0" in shown and "orange" in shown
    assert "\x07" not in shown and "\x1b[31mcolour" not in shown


def test_a_terminal_tells_who_has_seen_it_in_the_sites_time_and_each_command_once(
    redis_server: Redis, tmp_path: Path
) -> None:
    lines = [DayLine(tmp_path, 4, partition) for partition in range(4)]
    catalog = lines[0].line.plans.catalog
    home = lines[catalog.partition_of(catalog.source_index("well-101"))]
    of_home = [*home.measured("well-101-ch4", 70.0), *home.told("acknowledge", source="well-101")]
    window = {"from": 0, "until": 90, "district": "Riverside", "id": "w"}
    told = {p: line.told("suppress", **window) for p, line in enumerate(lines)}
    of_home += home.told("suppress", **{"from": 0, "until": 90}, source="well-101")
    told[lines.index(home)] = of_home
    assert sum(map(len, told.values())) == 3 + 3, "a district of several partitions"

    async def scenario() -> None:
        async with routed(redis_server) as router:
            await router.flush_all(told)

    run(scenario)
    shown = " ".join(on_terminal(redis_server, 250).split())
    raised = json.loads(of_home[0][2])
    assert raised["time"].endswith("+08:00")
    clock = raised["time"][:19].replace("T", " ")
    assert "since (UTC+08:00)" in shown
    assert f"well-101 Riverside {clock}" in shown and f"alert at {clock}" in shown
    assert "by li.wei, suppressed by li.wei until 2025-07-17 01:35:00" in shown
    assert shown.count("district Riverside: maintenance") == 1


def test_where_nothing_matches_what_there_is_is_said(
    redis_server: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    link = RedisLink(url=redis_server.url)

    def said(**options: Any) -> str:
        assert alerts_cli.run(link, **options) == 0
        out, err = capsys.readouterr()
        assert out == ""
        return str(err)

    assert said() == f"{link} has no alerts: tocsin:alerts is empty\n"
    filled(redis_server, [altered(each, level="blue", level_from="blue") for each in alerts(9)])
    assert said(route="nobody") == (
        "no alert matches --route nobody; "
        "among the newest 9 there are route control-room, default, fire, 水务局\n"
    )
    both = said(district="Nowhere", level="red")
    assert both.startswith("no alert matches --district Nowhere --level red; among the newest 9 ")
    assert (
        "there are district " in both
        and "Old Town, Riverside" in both
        and both.endswith("level blue\n")
    )


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def test_no_redis_is_an_error_of_one_line(own: Redis) -> None:
    own.stop()
    with pytest.raises(OutputError, match=r"Redis at redis://.* can't be read: ConnectionError"):
        alerts_cli.run(RedisLink(url=own.url))


def test_a_reader_that_has_enough_ends_it_quietly(redis_server: Redis) -> None:
    filled(redis_server, alerts(900))
    command = f"{sys.executable} -c '{PROGRAM}' {redis_server.url} once | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, check=False
    )
    assert (done.stdout.count(b"\n"), done.stderr) == (1, b"")

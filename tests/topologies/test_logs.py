from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from topologies import logs

SECRET = "correct-horse"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def lines(**options: Any) -> tuple[io.StringIO, Any]:
    stream = io.StringIO()
    logs.configure(stream=stream, secrets=[SECRET, None, ""], **options)
    return stream, logs.logger()


def test_a_json_line_holds_what_was_said() -> None:
    stream, log = lines(log_format="json")
    log.info("a partition came", partition=3, offset=10)
    record = json.loads(stream.getvalue())
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "message": "a partition came",
        "level": "info",
        "logger": "tocsin",
        "partition": 3,
        "offset": 10,
    }


def test_libraries_speak_in_the_same_form_and_only_when_it_matters() -> None:
    stream, log = lines(log_format="json")
    for name in ("aiokafka.client", "faust.app", "mode.worker"):
        logging.getLogger(name).info("heartbeat")
        logging.getLogger(name).warning("lost %s", "node 1")
    log.debug("not shown")
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [record["message"] for record in found] == ["lost node 1"] * 3
    assert found[0]["logger"] == "aiokafka.client"


def test_at_debug_all_are_heard() -> None:
    stream, log = lines(log_level="debug")
    logging.getLogger("aiokafka").debug("heartbeat")
    log.debug("tick")
    assert "heartbeat" in stream.getvalue() and "tick" in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_logged_whatever_carries_it(log_format: str) -> None:
    stream, log = lines(log_format=log_format)
    log.info(f"said {SECRET}", url=f"redis://u:{SECRET}@h", deep={"a": [f"x{SECRET}", 1]})
    log.info(
        "by name",
        kafka_password="other-1",
        Authorization="Bearer other-2",
        nested={"token": "other-3"},
    )
    logging.getLogger("aiokafka").error("sasl failed for %s %r", SECRET, {"p": SECRET})
    try:
        raise ValueError(f"bad {SECRET}")
    except ValueError:
        log.exception("failed")
        logging.getLogger("faust").exception("failed too")
    text = stream.getvalue()
    assert SECRET not in text and "other-" not in text
    assert text.count("ValueError: bad ********") == 2


def test_a_path_to_a_secret_is_no_secret() -> None:
    stream, log = lines(log_format="json")
    log.info("read", kafka_password_file="/run/secrets/kafka", kafka_password=None)
    record = json.loads(stream.getvalue())
    assert record["kafka_password_file"] == "/run/secrets/kafka"
    assert record["kafka_password"] is None


def test_what_json_does_not_know_is_written_as_text() -> None:
    stream, log = lines(log_format="json")
    log.info("odd", thing=object(), numbers={1, 2}, error=OSError(2, "gone"), raw=b"x")
    assert json.loads(stream.getvalue())["error"] == "[Errno 2] gone"


def test_configured_twice_each_line_is_written_once() -> None:
    lines()
    stream, log = lines()
    log.info("once")
    assert stream.getvalue().count("once") == 1


def test_what_a_library_says_again_and_again_is_said_seldom() -> None:
    now = 100.0
    seldom = logs.Seldom("aiokafka", clock=lambda: now)

    def said(name: str, text: str, *values: Any) -> str | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, text, values, None)
        return record.getMessage() if seldom(record) else None

    assert said("aiokafka.client", "no node %s", 1) == "no node 1"
    assert [said("aiokafka.client", "no node %s", 2) for _ in range(3)] == [None] * 3
    assert said("aiokafka.client", "another text") == "another text"
    assert said("aiokafka.conn", "no node %s", 1) == "no node 1"
    assert [said("tocsin", "ours") for _ in range(2)] == ["ours"] * 2
    now += 5.0
    assert said("aiokafka.client", "no node %s", 7) == "no node 7 (and 3 like it)"
    for second in range(1, 10):
        now += 1.0
        assert said("aiokafka.client", "no node %s", second) is None
    now += 1.0
    assert said("aiokafka.client", "no node %s", 8) == "no node 8 (and 9 like it)"
    now += 61.0
    assert said("aiokafka.client", "no node %s", 9) == "no node 9"
    now += 5.0
    assert said("aiokafka.client", "no node %s", 9) == "no node 9"

"""What a command may say, and the records that people see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.carry_out import partitions_of
from engine.catalog import Catalog
from engine.commands import (
    KINDS,
    MAX_PLANNED_MS,
    MAX_SHELVE_MS,
    MAX_SUPPRESS_MS,
    PREFIX,
    Command,
    Suppress,
    encode,
    key_of,
    parse,
)
from engine.errors import CommandError
from engine.pipeline import Pipeline
from engine.plan import compile_plan
from engine.readings import Readings
from engine.rules_check import load
from tests.engine.replays import BEGIN_MS, City, city

NOW = BEGIN_MS + 5000


def saying(kind: str, **more: Any) -> dict[str, Any]:
    """Return a whole command of a kind, but for what is given."""
    given: dict[str, Any] = {"tocsin": kind, "event_ms": NOW, "id": "c-1", "by": "li", "note": None}
    if kind == "suppress":
        given |= {"from_ms": NOW, "until_ms": NOW + 60_000}
    if kind == "shelve":
        given["until_ms"] = NOW + 60_000
    if not any(scope in more for scope in ("district", "category")):
        given["source"] = "well-1"
    return {key: value for key, value in {**given, **more}.items() if value != "left out"}


@pytest.mark.parametrize("kind", KINDS)
def test_command_comes_back_from_its_record(kind):
    command = parse(saying(kind, note="保养　阀门"))
    assert type(command) is KINDS[kind]
    assert parse(encode(command)) == command
    assert encode(command).startswith(PREFIX)
    assert parse(orjson.dumps(saying(kind, note="left out"))).note is None


def test_scope_is_a_source_a_district_or_a_category():
    assert parse(saying("suppress")).scope == ("source", "well-1")
    district = parse(saying("suppress", district="江宁"))
    assert district.scope == ("district", "江宁")
    assert key_of(district) == "district:江宁".encode()
    assert key_of(parse(saying("suppress"))) == b"well-1"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "tocsin: must be one of acknowledge, shelve, .*got None"),
        ({"tocsin": ["shelve"]}, "tocsin: must be one of"),
        (saying("shelf"), "tocsin: must be one of .* got 'shelf'"),
        (saying("shelve", until_ms="left out"), "until_ms: must be whole .* got None"),
        (saying("shelve", until_ms=1.5), "until_ms: must be whole epoch milliseconds, got 1.5"),
        (saying("shelve", until_ms=True), "until_ms: must be whole"),
        (saying("shelve", until_ms=NOW), f"until_ms: must be 1 to {MAX_SHELVE_MS} ms after"),
        (saying("shelve", until_ms=NOW + MAX_SHELVE_MS + 1), f"to {MAX_SHELVE_MS} ms after"),
        (saying("shelve", event_ms=-1), "event_ms: must be from 0"),
        (saying("shelve", event_ms=2**63), "event_ms: must be from 0"),
        (saying("shelve", source=""), "source: must have 1 to 256 characters, got 0"),
        (saying("shelve", source="left out"), "source: must be a text, got None"),
        (saying("shelve", district="x", source="y"), "district: shelve has no such key"),
        (saying("acknowledge", until_ms=NOW + 1), "until_ms: acknowledge has no such key"),
        (saying("acknowledge", by="li\nroot"), "by: must be one line of visible characters"),
        (saying("acknowledge", by="\u202eil"), "by: must be one line of visible characters"),
        (saying("acknowledge", id=7), "id: must be a text, got 7"),
        (saying("acknowledge", note="n" * 1001), "note: must have 1 to 1000 characters, got 1001"),
        (saying("suppress", source="left out"), "must name one of .* got none"),
        (saying("suppress", source="a", category="b"), "got source and category"),
        (saying("suppress", until_ms=NOW + MAX_SUPPRESS_MS + 1), f"to {MAX_SUPPRESS_MS} ms after"),
        (saying("suppress", from_ms=NOW + MAX_PLANNED_MS + 1), f"to {MAX_PLANNED_MS} ms after"),
        (saying("suppress", from_ms=NOW - 9, until_ms=NOW - 5), "must be after event_ms"),
        (saying("suppress", from_ms=NOW + 9, until_ms=NOW + 5), "until_ms: must be 1 to"),
    ],
)
def test_what_no_command_may_say_is_refused_with_key_value_and_bound(given, problem):
    with pytest.raises(CommandError, match=problem):
        parse(given)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'"shelve"', b"\xff", b"null"])
def test_payload_that_is_no_object_is_refused(payload):
    with pytest.raises(CommandError):
        parse(payload)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> City:
    return city(tmp_path_factory.mktemp("city"))


def line_of(small: City, partition: int | None = None) -> Pipeline:
    plan = compile_plan(Catalog.open(small.catalog), load(small.rules))
    return Pipeline(plan, partition=partition)


def alarmed(line: Pipeline) -> list[dict[str, Any]]:
    """Bring well-1 to orange."""
    catalog = line.plan.catalog
    sensor = catalog.sensor_id.to_pylist().index("well-1/ch4")
    return [orjson.loads(r) for r in line.push(Readings.of([sensor], [BEGIN_MS], [35.0]))]


def answered(line: Pipeline, command: Command) -> list[tuple[bytes, dict[str, Any]]]:
    alerts, _, refusal = line.command(command)
    assert refusal is None
    return [(key, orjson.loads(record)) for key, record in alerts]


def test_trace_says_who_when_why_and_then_what_became_of_the_alert(small):
    line = line_of(small)
    raised = alarmed(line)[-1]
    shelve = parse(saying("shelve", note="sensor is being cleaned"))
    (key, trace), (_, cleared) = answered(line, shelve)
    assert key == b"well-1"
    assert trace.keys() == cleared.keys() - {"standing"} | {"command", "by", "note", "until_ms"}
    assert (trace["transition"], trace["level"], trace["level_from"]) == ("shelve", *2 * ["orange"])
    assert trace["cause"] == "command"
    assert trace["alert_id"] == cleared["alert_id"] == raised["alert_id"]
    assert [r["seq"] for r in (raised, trace, cleared)] == [raised["seq"] + i for i in range(3)]
    assert (trace["command"], trace["by"], trace["note"], trace["until_ms"]) == (
        "c-1", "li", "sensor is being cleaned", NOW + 60_000,
    )  # fmt: skip
    assert trace["text"].endswith(
        ": shelved until 2024-05-01 00:01:05 by li at 2024-05-01 00:00:05; a red alert is shown "
        "all the same: sensor is being cleaned."
    )
    assert (cleared["transition"], cleared["level"], cleared["level_from"]) == (
        "clear", "normal", "orange",
    )  # fmt: skip
    assert (cleared["cause"], cleared["standing"]) == ("shelved", "orange")
    assert ": orange alert shelved at 2024-05-01 00:00:05" in cleared["text"]
    _, (_, back) = answered(line, parse(saying("unshelve", event_ms=NOW + 1000)))
    assert (back["transition"], back["cause"], back["seq"]) == ("raise", "returned", 0)
    assert back["alert_id"] != raised["alert_id"]
    assert ": orange alert shown again at 2024-05-01 00:00:06" in back["text"]


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"unshelve", "unsuppress", "in_service"}))
def test_every_command_leaves_a_sentence(small, kind):
    line = line_of(small)
    alarmed(line)
    _, trace = answered(line, parse(saying(kind, note="why not")))[0]
    assert trace["text"].endswith(": why not.")
    assert " by li at 2024-05-01 00:00:05" in trace["text"]


def test_trace_outside_of_an_episode_has_no_number(small):
    line = line_of(small)
    ((_, trace),) = answered(line, parse(saying("shelve")))
    assert (trace["alert_id"], trace["seq"], trace["level"]) == (None, None, "normal")


def test_trace_of_a_category_names_no_source(small):
    line = line_of(small)
    alarmed(line)
    name = line.plan.catalog.categories[0]
    command = parse(saying("suppress", category=name))
    (key, trace), *_ = answered(line, command)
    assert key == f"category:{name}".encode()
    assert (trace["source"], trace["category"], trace["place"]) == (None, name, None)
    assert trace["text"].startswith(f"category {name}: maintenance from 2024-05-01 00:00:05 until")


def test_refused_command_takes_its_place_in_the_log_and_leaves_no_record(small):
    line = line_of(small)
    alerts, _, refusal = line.command(parse(saying("unshelve")))
    assert alerts == []
    assert refusal is not None and refusal.reason == "not_shelved"
    assert line.position == 1
    assert line.command(parse(saying("shelve", source="nobody"))).refusal == (
        "unknown_source", "the catalog has no source nobody",
    )  # fmt: skip


def test_command_is_taken_by_the_partitions_that_it_is_for_alone(small):
    catalog = line_of(small).plan.catalog
    commands = [parse(saying("shelve", source=s)) for s in catalog.source_id.to_pylist()]
    commands += [parse(saying("suppress", category=c)) for c in catalog.categories]
    for command in commands:
        wanted = partitions_of(catalog, command)
        assert wanted
        for partition in range(catalog.n_partitions):
            refusal = line_of(small, partition).command(command).refusal
            assert (refusal is None) == (partition in wanted)
            assert refusal is None or refusal.reason == "other_partition"
    assert partitions_of(catalog, parse(saying("shelve", source="nobody"))) == []


def test_windows_do_not_outlive_their_line(small, tmp_path: Path):
    # a new line of a shared state begins without what the one before hid
    plan = compile_plan(Catalog.open(small.catalog), load(small.rules))
    state = Pipeline(plan).state
    for kind in ("out_of_service", "shelve", "suppress"):
        line = Pipeline(plan, state=state)
        assert line.command(parse(saying(kind))).refusal is None
        again = Pipeline(plan, state=state)
        assert [record["level"] for record in alarmed(again)][-1] == "orange"


def test_span_of_a_window_may_begin_before_the_command():
    command = parse(saying("suppress", from_ms=NOW - 60_000))
    assert isinstance(command, Suppress)
    assert command.from_ms < command.event_ms

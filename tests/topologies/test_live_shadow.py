"""A whole worker with candidate rules beside: what it tells is what two replays differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.catalog import Catalog
from engine.messages import Batch
from engine.partition import PartitionLine, Plans
from engine.rules_check import load
from tests.topologies.live import DAY, NO_REDIS, Live, live_on, publish, settle, wait_for


def told(live: Live) -> list[bytes]:
    """Return what the shadow topic holds; partitions of the readings interleave in it."""
    return sorted(message.value for message in live.messages("shadow").get(0, []))


def judged(live: Live, dumped: list[Any], rules: Path) -> dict[tuple[int, ...], bytes]:
    """Replay a log under one rule set alone; return its alert records by what makes them equal."""
    plans = Plans(Catalog.open(live.catalog))
    digest = plans.add(load(rules))
    found = {}
    for dump in dumped:
        line = PartitionLine(plans, digest, dump.partition)
        for _, messages, kinds in dump.fetches():
            for step in line.decode(messages, kinds if any(kinds) else None).steps:
                assert isinstance(step, Batch)
                transitions = line.pipeline.judge(step.readings)
                records = line.pipeline.records.encode(transitions)
                for row, record in zip(transitions, records, strict=True):
                    marks = (int(row[name]) for name in ("position", "source", "kind", "level"))
                    found[(dump.partition, *marks)] = record
    return found


@pytest.mark.slow
def test_the_shadow_topic_holds_what_replays_of_both_rule_sets_differ_in(
    kafka: Any, tmp_path: Path
) -> None:
    text = (DAY / "rules.toml").read_text(encoding="utf-8")
    candidate = tmp_path / "candidate.toml"
    high = "limits.high = { blue = 10, yellow = 25, red = 50 }"
    assert high in text
    candidate.write_text(text.replace(high, "limits.high = { blue = 3, yellow = 8, red = 50 }"))
    live = live_on(tmp_path, kafka, NO_REDIS, shadow=candidate, router="false")
    try:
        worker = live.start("a")
        publish(live, batch=2000)
        assert settle(live) == live.published()
        dumped = live.dumped()
        ours, theirs = judged(live, dumped, live.rules), judged(live, dumped, candidate)
        expected = sorted(
            b'{"only":"%b","record":%b}' % (only, mine[mark])
            for only, mine, other in ((b"live", ours, theirs), (b"candidate", theirs, ours))
            for mark in mine.keys() - other.keys()
        )
        assert {each[:15] for each in expected} == {b'{"only":"live",', b'{"only":"candid'}
        wait_for(lambda: len(told(live)) >= len(expected), f"{len(expected)} differences")
        assert told(live) == expected

        worker.kill()
        before = len(told(live))
        again = live.start("b")
        publish(live, limit=500_000, batch=2000)
        assert settle(live) == live.published()
        wait_for(lambda: len(told(live)) > before, "differences after the restart")
        assert again.stop() == 0
    finally:
        live.stop()

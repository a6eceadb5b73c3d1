"""A candidate rule set beside the live one: what is told is where they differ, and only that."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from engine import adapters, wire
from engine.catalog import Catalog
from engine.history import History
from engine.partition import Outcome, PartitionLine, Plans
from engine.readings import tick_message
from engine.shadow import CANDIDATE, LIVE
from replay_data import DAY

RULES = (DAY / "rules.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, list[bytes]]:
    compiled = tmp_path_factory.mktemp("city") / "city.catalog"
    Catalog.build(DAY, compiled, partitions=1)
    catalog = Catalog.open(compiled)
    messages = []
    for chunk in History([DAY / "readings.parquet"], adapters.load(None), catalog).chunks():
        for start in range(0, len(chunk), 4000):
            part = chunk.cut(start, start + 4000)
            for _, mine in wire.by_partition(part, catalog):
                messages += wire.messages(mine, catalog)
            messages.append(tick_message(int(part.event_ms[len(part) // 2])))
    return catalog, messages


def outcomes(day: tuple[Catalog, list[bytes]], candidate: str) -> Iterator[Outcome]:
    catalog, messages = day
    plans = Plans(catalog)
    line = PartitionLine(plans, plans.compile(RULES), 0)
    line.compare_with(plans.compile(candidate))
    for start in range(0, len(messages), 7):
        some = messages[start : start + 7]
        yield line.take(range(start, start + len(some)), line.decode(some))


def test_the_same_rules_differ_in_nothing(day: tuple[Catalog, list[bytes]]) -> None:
    found = list(outcomes(day, "# the same\n" + RULES))
    assert sum(len(each.alerts) for each in found) > 20
    assert not [each for outcome in found for each in outcome.differences]


def test_what_only_one_of_them_raises_is_told_with_its_side(
    day: tuple[Catalog, list[bytes]],
) -> None:
    earlier = RULES.replace(
        "limits.high = { blue = 10, yellow = 25, red = 50 }",
        "limits.high = { blue = 3, yellow = 8, red = 50 }",
    )
    assert earlier != RULES
    found = [each for outcome in outcomes(day, earlier) for each in outcome.differences]
    sides = {each.only for each in found}
    assert sides == {CANDIDATE, LIVE}
    told = {(each.only, orjson.loads(each.record)["rules"]) for each in found}
    assert len(told) == 2
    assert len({rules for _, rules in told}) == 2

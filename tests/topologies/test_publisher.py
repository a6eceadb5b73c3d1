"""What ends publishing ends the partitions that wait for it: nothing waits forever, or is lost."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import numpy as np
import pytest

from engine.alerts import AlertRecords
from engine.placed import Untold
from tests.engine.test_alerts import PLANS, random_transitions
from topologies.publisher import AT_HEADER, Publisher, parse_at


class BrokenWriter(AlertRecords):
    def write(self, transitions: Any) -> Any:
        raise ValueError("can't be written")


def test_a_record_that_cannot_be_written_is_an_error_where_alerts_are_put_in() -> None:
    async def scenario() -> None:
        nobody: Any = None
        publisher = Publisher("a", "r", nobody, nobody, linger_s=0, on_trouble=nobody)
        publisher._last[0] = (-1, -1)
        transitions = random_transitions(Random(1), PLANS[0], 2)
        zeros = np.zeros(2, np.int64)
        publisher.put(0, [Untold(BrokenWriter(PLANS[0]), transitions, zeros, np.arange(2))])
        await publisher.room(0)
        await publisher._run()
        for waiting in (publisher.room(0), publisher.flush([0])):
            with pytest.raises(ValueError, match="can't be written"):
                await waiting

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [None, b"", b"1/2", b"1/2/3/4", b"1/x/3"])
def test_a_header_that_says_no_place_is_none(value: Any) -> None:
    assert parse_at([("other", b"1/2/3"), (AT_HEADER, value)]) is None
    assert parse_at([(AT_HEADER, b"1/20/3")]) == (1, 20, 3)

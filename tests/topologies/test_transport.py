"""Where a consumer goes on after a rebalance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faust.types import TP

from topologies.app import create_app
from topologies.settings import Settings

KNOWN, FRESH, OWNED = TP("alerts", 0), TP("alerts", 1), TP("readings", 0)


class Thread:
    """A client whose position lies anywhere, as after fetches that were thrown away."""

    def __init__(self) -> None:
        self.position = dict.fromkeys((KNOWN, FRESH, OWNED), 99)

    def assignment(self) -> set[TP]:
        return set(self.position)

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        self.position[KNOWN] = 7  # like aiokafka, which leaves the others where they are
        return {KNOWN: 7, FRESH: None, OWNED: None}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 3)

    async def seek_wait(self, positions: Mapping[TP, int]) -> None:
        self.position |= positions


def test_what_was_fetched_and_thrown_away_is_read_again_even_before_the_first_commit(
    tmp_path: Path,
) -> None:
    async def scenario() -> tuple[dict[TP, int], dict[TP, int | None], Any]:
        app: Any = create_app(Settings(catalog=tmp_path / "catalog", rules=tmp_path / "rules"))
        app.transport.positions = lambda assigned: {OWNED: 42}
        thread = app.consumer._thread = Thread()
        told: list[Any] = []
        app.transport.on_seek = lambda *what: told.append(what)
        await app.consumer.perform_seek()
        return thread.position, app.consumer._read_offset, told

    position, read, told = asyncio.run(scenario())
    assert position == {KNOWN: 7, FRESH: 3, OWNED: 42}
    # Faust drops what lies before the offset that it takes for read
    assert {tp: read[tp] for tp in position} == {KNOWN: 7, FRESH: None, OWNED: None}
    assert told == [({KNOWN: 7, FRESH: None, OWNED: None}, 1)]


def test_after_a_crash_nobody_asks_the_thread_that_commits(tmp_path: Path) -> None:
    async def scenario() -> bool:
        app: Any = create_app(Settings(catalog=tmp_path / "catalog", rules=tmp_path / "rules"))
        app.consumer._thread = Thread()  # which can't commit
        app._crash(RuntimeError("as anything might"))
        committed: bool = await app.consumer.commit_positions({OWNED: 42})
        return committed

    assert asyncio.run(scenario()) is False

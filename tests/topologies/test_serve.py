"""The life of a worker's process where its brokers go away while it starts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from topologies.kafka import BrokerError
from topologies.serve import serve


async def _gone() -> None:
    raise KafkaConnectionError("Unable to bootstrap")


async def _fine() -> None:
    pass


@pytest.mark.parametrize("at", ["check", "start"])
def test_brokers_that_go_away_while_a_worker_starts_are_told_as_those_that_are_not_there(
    at: str,
) -> None:
    settings = SimpleNamespace(kafka_brokers=("k1:9092", "k2:9092"), shutdown_s=5.0)
    worker = SimpleNamespace(
        settings=settings, prepare=lambda: None, check=_gone if at == "check" else _fine
    )
    app: Any = SimpleNamespace(worker=worker, start=_gone, stop=_fine, crash_reason=None)
    with pytest.raises(BrokerError, match=r"none of k1:9092, k2:9092 answers: .*bootstrap"):
        asyncio.run(serve(app))

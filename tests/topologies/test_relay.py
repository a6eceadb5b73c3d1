"""What people and other departments send, on its way into the log while the broker fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerClosed,
)
from faust.types import TP

from topologies.settings import Settings
from topologies.transport import Fetch
from topologies.worker import Worker

COMMANDS, FEED = TP("tocsin.commands", 0), TP("feed", 0)


class Producer:
    """Fails with what it is given, one after the other, then takes everything."""

    def __init__(self, worker: Any, *errors: KafkaError | OSError) -> None:
        self.worker, self.errors = worker, list(errors)
        self.taken: list[bytes] = []

    async def send_and_wait(self, topic: str, record: bytes, *, partition: int) -> None:
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, ProducerClosed):  # as when the publisher connects anew
                self.worker.publisher.producer = None
                asyncio.get_running_loop().call_later(0.05, self._come_back)
            raise error
        self.taken.append(record)

    def _come_back(self) -> None:
        self.worker.publisher.producer = self


class Ingest:
    async def take(self, payloads: list[bytes], producer: Any, topic: str) -> list[Any]:
        for payload in payloads:
            await producer.send_and_wait(topic, payload, partition=0)
        return []


def relay(tmp_path: Path, tp: TP, *errors: KafkaError | OSError) -> tuple[list[bytes], list[Any]]:
    """Let a worker carry a message into the log; return what arrived and what was committed."""
    committed: list[Any] = []

    async def commit(offsets: Any) -> None:
        committed.extend(offsets.items())

    async def scenario() -> list[bytes]:
        settings = Settings(catalog=tmp_path / "catalog", rules=tmp_path / "rules")
        nobody: Any = None
        worker: Any = Worker(settings, nobody, nobody, commit)
        producer = Producer(worker, *errors)

        async def flush(partitions: Any) -> None:
            return None

        worker.publisher = SimpleNamespace(
            producer=producer, reject=lambda records: None, flush=flush
        )
        worker.controls = SimpleNamespace(of_command=lambda payload: [(3, payload)])
        worker.ingests = {FEED.topic: Ingest()}
        message = SimpleNamespace(offset=4, value=b"shelve", headers=())
        await worker.agents().get(tp.topic, worker._take_feed)(Fetch(tp, [message], 1))
        return producer.taken

    return asyncio.run(scenario()), committed


@pytest.mark.parametrize("tp", [COMMANDS, FEED])
@pytest.mark.parametrize(
    "error", [KafkaConnectionError(), KafkaTimeoutError(), ConnectionResetError(), ProducerClosed()]
)
def test_a_broker_that_fails_keeps_messages_waiting_and_ends_no_worker(
    tmp_path: Path, tp: TP, error: KafkaError | OSError
) -> None:
    assert relay(tmp_path, tp, error, error) == ([b"shelve"], [(tp, 5)])


def test_what_no_broker_will_ever_take_ends_the_worker(tmp_path: Path) -> None:
    with pytest.raises(MessageSizeTooLargeError):
        relay(tmp_path, COMMANDS, MessageSizeTooLargeError())

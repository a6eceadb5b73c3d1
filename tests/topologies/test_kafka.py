"""What is asked of a broker at the start, and what of it reaches the log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, UnknownError
from aiokafka.producer.sender import InitPIDHandler

from topologies import kafka
from topologies.embedded import EmbeddedBroker
from topologies.settings import Settings

LINE = "Unexpected error during InitProducerIdRequest"


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    """Faust, once imported, silences aiokafka for the whole process; a worker undoes that."""
    caplog.set_level(logging.INFO, logger="aiokafka")


def settings_of(broker: EmbeddedBroker) -> Settings:
    return Settings.model_validate({"kafka_brokers": broker.bootstrap})


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of a producer that could not be idempotent."""
    return [text for text in caplog.messages if LINE in text]


async def refused(settings: Settings) -> None:
    producer = kafka.new_producer(settings)
    with pytest.raises(KafkaError):
        await producer.start()
    await producer.stop()


def test_to_ask_a_broker_that_is_not_idempotent_leaves_nothing_in_the_log(
    embedded_broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert not asyncio.run(kafka.is_idempotent(settings_of(embedded_broker)))
    assert caplog.messages == []


def test_a_producer_that_is_refused_in_earnest_says_so_before_meanwhile_and_after(
    embedded_broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(embedded_broker)

    async def all_three() -> None:
        await refused(settings)
        assert len(lines(caplog)) == 1
        with kafka._refusal_unsaid():  # as while another task asks
            await asyncio.create_task(refused(settings))
        assert len(lines(caplog)) == 2
        await kafka.is_idempotent(settings)
        assert len(lines(caplog)) == 2
        await refused(settings)
        assert len(lines(caplog)) == 3

    asyncio.run(all_three())


@pytest.mark.parametrize(
    ("error", "n_lines"), [(UnknownError, 0), (ClusterAuthorizationFailedError, 1)]
)
def test_another_reason_than_the_embedded_brokers_is_logged(
    embedded_broker: EmbeddedBroker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    n_lines: int,
) -> None:
    ours = InitPIDHandler.handle_response

    def answer(self: Any, response: Any) -> Any:
        return ours(self, type("Response", (), {"error_code": error.errno})())

    monkeypatch.setattr(InitPIDHandler, "handle_response", answer)
    assert not asyncio.run(kafka.is_idempotent(settings_of(embedded_broker)))
    assert len(lines(caplog)) == n_lines


def test_a_wrong_number_of_partitions_is_told_with_what_helps(
    embedded_broker: EmbeddedBroker,
) -> None:
    settings = settings_of(embedded_broker)
    readings, rules = settings.topic("readings"), settings.topic("rules")
    asyncio.run(kafka.ensure_topics(settings, {readings: 1, rules: 3}))
    with pytest.raises(kafka.BrokerError, match="has 1 partition, must have 4: as many as the cat"):
        asyncio.run(kafka.ensure_topics(settings, {readings: 4}))
    with pytest.raises(kafka.BrokerError, match="has 3 partitions, must have 1") as caught:
        asyncio.run(kafka.ensure_topics(settings, {rules: 1}))
    assert "catalog" not in str(caught.value) and "delete the topic" in str(caught.value)

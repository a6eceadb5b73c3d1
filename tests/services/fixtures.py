"""Fixtures that start servers; a conftest imports them by `from tests.services.fixtures import *`.

A server that can't be had skips its tests and says what is missing; with
TOCSIN_TEST_REQUIRE_SERVICES=1, as .ci/run sets it, they fail instead. Each xdist worker has servers
of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import pytest
import redis

from tests.services.certificates import Certificates
from tests.services.kafka import Kafka, Unavailable
from tests.services.redis import Cluster, Redis, Sentinels
from tests.services.s3 import ObjectStore
from topologies.embedded import EmbeddedBroker, MissingWheel

__all__ = [
    "_redis",
    "any_broker",
    "certificates",
    "embedded_broker",
    "kafka",
    "kafka_sasl",
    "kafka_tls",
    "object_store",
    "redis_cluster",
    "redis_sentinels",
    "redis_server",
    "redis_tls",
    "serve",
]

Started = TypeVar("Started", bound=Any)


@contextmanager
def served(make: Callable[[], Started]) -> Iterator[Started]:
    """Make a server and run it in the block; skip or fail the test where it can't be had."""
    try:
        server = make()
        server.__enter__()
    except (Unavailable, MissingWheel) as missing:
        if os.environ.get("TOCSIN_TEST_REQUIRE_SERVICES") == "1":
            pytest.fail(f"TOCSIN_TEST_REQUIRE_SERVICES=1, but {missing}", pytrace=False)
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[], Started]], Started]]:
    """A function that starts a server of the test's own, to be killed and restarted at will."""
    with ExitStack() as stack:
        yield lambda make: stack.enter_context(served(make))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    with served(EmbeddedBroker) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """Apache Kafka in the clear; topics of earlier tests are still there."""
    with served(Kafka) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_sasl(certificates: Certificates) -> Iterator[Kafka]:
    with served(lambda: Kafka(security="SASL_SSL", certificates=certificates)) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_tls(certificates: Certificates) -> Iterator[Kafka]:
    with served(lambda: Kafka(security="SSL", certificates=certificates)) as broker:
        yield broker


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def any_broker(request: pytest.FixtureRequest) -> EmbeddedBroker | Kafka:
    """The embedded broker and Apache Kafka in turn; `bootstrap` is where it is."""
    name = "embedded_broker" if request.param == "embedded" else "kafka"
    broker: EmbeddedBroker | Kafka = request.getfixturevalue(name)
    return broker


@pytest.fixture(scope="session", params=["embedded", "debian"])
def _redis(request: pytest.FixtureRequest) -> Iterator[Redis]:
    with served(lambda: Redis(flavour=request.param)) as server:
        yield server


@pytest.fixture
def redis_server(_redis: Redis) -> Redis:
    """Valkey's wheel and Debian's redis-server in turn, running and empty."""
    _redis.start()
    with redis.Redis.from_url(_redis.url) as client:
        client.flushall()
    return _redis


@pytest.fixture
def redis_tls(certificates: Certificates) -> Iterator[Redis]:
    """Debian's redis-server with TLS and a user who is limited to `tocsin:*`."""
    with served(lambda: Redis(certificates=certificates)) as server:
        yield server


@pytest.fixture
def redis_sentinels() -> Iterator[Sentinels]:
    with served(Sentinels) as servers:
        yield servers


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[Cluster]:
    with served(Cluster) as servers:
        yield servers


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStore]:
    with served(ObjectStore) as server:
        yield server

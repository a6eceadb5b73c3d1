"""Test settings: seeded property tests, fewer examples where the kernels run as plain Python."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

# no deadline: the first example of a kernel pays for its compilation
settings.register_profile(
    "compiled", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "plain",
    parent=settings.get_profile("compiled"),
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],  # shrinking a failure uncompiled takes minutes
)
settings.load_profile("plain" if os.environ.get("NUMBA_DISABLE_JIT") == "1" else "compiled")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pair the embedded broker with the embedded Redis and Kafka with Debian's, not all four."""
    items[:] = [item for item in items if not _is_mixed(item)]


def _is_mixed(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    names = getattr(item, "fixturenames", ())
    server, broker = params.get("_redis"), params.get("any_broker")
    if broker is None and any(name.startswith("kafka") for name in names):
        broker = "kafka"
    elif broker is None and "embedded_broker" in names:
        broker = "embedded"
    return None not in (server, broker) and (server == "debian") != (broker == "kafka")

"""Test settings: seeded property tests, fewer examples where the kernels run as plain Python."""

from __future__ import annotations

import os

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

"""`tocsin snapshot`: the store that the settings name, or one snapshot of it."""

from __future__ import annotations

from engine import snapshot_cli
from topologies.settings import Settings


def ls(settings: Settings, *, as_json: bool) -> int:
    """List the snapshots of every partition."""
    return snapshot_cli.ls(settings.snapshots, as_json)


def show(settings: Settings, snapshot: str, *, as_json: bool) -> int:
    """Print what a snapshot holds."""
    return snapshot_cli.show(snapshot_cli.in_store(snapshot, settings.snapshots), as_json)


def verify(settings: Settings, snapshot: str | None) -> int:
    """Read one snapshot, or all, and compare with the checksums."""
    store = settings.snapshots
    return snapshot_cli.verify(snapshot_cli.in_store(snapshot or store, store), False)

"""Taking a partition up from its snapshot, under whatever rules and catalog there are now."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine import snapshot
from engine.carry import Carried, Held, take_over
from engine.errors import DamagedSnapshotError, ForeignSnapshotError, RulesError
from engine.pipeline import Pipeline
from engine.plan import Plan, compile_plan
from engine.rules import Rules
from engine.snapshots import Found, SnapshotStore, refuse_other_catalog


class Resumed(NamedTuple):
    """Where the log goes on, and what became of the state if it is not just as it was."""

    offset: int
    extra: dict[str, Any]
    carried: Carried | None


class Resumer:
    """Takes partitions up from the snapshots of a store.

    A snapshot tells under which rules it was made (``found.snapshot.meta["rules_text"]``): a
    pipeline under these goes on as if nothing had happened, one under others takes over what
    remains meaningful. A snapshot of another catalog is refused unless ``adopt_catalog``.
    """

    def __init__(self, store: SnapshotStore, *, adopt_catalog: bool = False) -> None:
        self.store, self._adopt_catalog = store, adopt_catalog
        self._plans: dict[tuple[str, str], Plan] = {}

    def resume(self, found: Found, pipeline: Pipeline) -> Resumed:
        """Give a new pipeline the state in a snapshot of its partition that the store found.

        Raises ForeignSnapshotError for another catalog, or another partition, and SnapshotError
        where the store has no copy of the old catalog.
        """
        meta = found.snapshot.meta
        plan = pipeline.plan
        if not self._adopt_catalog:
            refuse_other_catalog(found, plan.catalog.digest)
        extra = dict(meta["extra"])
        offset = found.candidate.offset
        if (meta["catalog"], meta["rules"]) == (plan.catalog.digest, plan.rules.digest):
            return Resumed(offset, snapshot.restore(found.snapshot, pipeline), None)
        if meta["partition"] != pipeline.partition:
            whose, here = snapshot.named(meta["partition"]), snapshot.named(pipeline.partition)
            problem = f"{found.candidate.uri}: the state of {whose}, but this is {here}"
            raise ForeignSnapshotError(problem)
        held = Held.of(found.snapshot, self._plan(found, pipeline))
        return Resumed(offset, extra, take_over(held, pipeline))

    def _plan(self, found: Found, pipeline: Pipeline) -> Plan:
        """Return the plan under which a snapshot was made."""
        meta, ours = found.snapshot.meta, pipeline.plan
        key = meta["catalog"], meta["rules"]
        if key not in self._plans:
            catalog = ours.catalog
            if meta["catalog"] != catalog.digest:
                catalog = self.store.open_catalog(meta["catalog"])
            rules = ours.rules
            if meta["rules"] != rules.digest:
                try:
                    rules = Rules.parse(meta["rules_text"], file=f"rules of {found.candidate.uri}")
                except RulesError as error:
                    raise DamagedSnapshotError(
                        f"{found.candidate.uri}: its rules are none: {error.problem}"
                    ) from error
            self._plans[key] = compile_plan(catalog, rules)
        return self._plans[key]

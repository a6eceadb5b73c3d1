"""One partition's log through the line: messages in, alert records and rejects out.

This is what a live worker does with a fetch and what a replay does with a dump of the topic; it
does no I/O. The same log gives the same alerts in the same places (`engine.placed`), however it is
cut into fetches, so a place says what was published already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from engine.alerts import AlertRecords
from engine.carry import carry
from engine.controls import NewRules
from engine.errors import RulesError
from engine.messages import Batch, Control, Rejected, decode_messages
from engine.pipeline import Pipeline, warm_up
from engine.placed import Alert, Told, Untold, written
from engine.plan import Plan, compile_plan
from engine.resume import Resumer
from engine.rules import Rules
from engine.shadow import Difference, Shadow
from engine.snapshot import Frozen, Room, freeze
from engine.state import State


class Decoded(NamedTuple):
    """A fetch decoded: what the line takes, what it can't, and rules that come into force in it."""

    steps: list[Batch | Control]
    rejected: list[Rejected]
    rules: list[str]


@dataclass(slots=True)
class Outcome:
    """What one fetch gave."""

    found: list[Told | Untold] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)
    n_records: int = 0
    """Readings and ticks that went into the line."""
    kinds: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many alerts there are of each (level, kind of transition)."""
    differences: list[Difference] = field(default_factory=list)
    """What only the live rules gave, or only the candidate's."""
    new_rules: NewRules | None = None
    """The rules that came into force, if any did."""

    @property
    def alerts(self) -> list[Alert]:
        """Return the alerts, their records written."""
        return [alert for part in written(self.found) for alert in part]


class Plans:
    """The rules compiled for one catalog, by digest, each with the state of its partitions."""

    def __init__(self, catalog: Any) -> None:
        self.catalog = catalog
        self._known: dict[str, tuple[Plan, State]] = {}
        self._writers: dict[str, AlertRecords] = {}
        self._beside: dict[str, State] = {}

    def compile(self, text: str) -> str:
        """Compile rules unless that was done already; return their digest."""
        return self.add(Rules.parse(text))

    def add(self, rules: Rules) -> str:
        """Compile parsed rules unless that was done already; return their digest."""
        if rules.digest not in self._known:
            plan = compile_plan(self.catalog, rules)
            self._known[rules.digest] = plan, State.allocate(plan)
        return rules.digest

    def pipeline(self, digest: str, partition: int) -> Pipeline:
        """Return a new line of a partition."""
        plan, state = self._known[digest]
        return Pipeline(plan, state=state, partition=partition)

    def keep(self, digests: set[str]) -> None:
        """Forget all other rules, and the memory of their state.

        Others may compile meanwhile, in threads of their own.
        """
        for known in (self._known, self._writers):
            for digest in [each for each in list(known) if each not in digests]:
                known.pop(digest)

    def writer(self, digest: str) -> AlertRecords:
        """Return what writes the alerts of all partitions, so that they may be written together."""
        if digest not in self._writers:
            self._writers[digest] = AlertRecords(self._known[digest][0])
        return self._writers[digest]

    def warm_up(self, digest: str) -> None:
        """Compile the kernels, or load them from their cache."""
        warm_up(self._known[digest][0])

    def beside(self, digest: str) -> tuple[Plan, State]:
        """Return a plan and a state for a line beside the live one, even of the same rules."""
        if digest not in self._beside:
            self._beside[digest] = State.allocate(self._known[digest][0])
        return self._known[digest][0], self._beside[digest]

    def plan(self, digest: str) -> tuple[Plan, State]:
        """Return the plan of a digest and its state."""
        return self._known[digest]


class PartitionLine:
    """The line of one partition; `next_offset` is that of the first message it has not taken."""

    def __init__(self, plans: Plans, digest: str, partition: int) -> None:
        self.plans, self.partition = plans, partition
        self.pipeline = plans.pipeline(digest, partition)
        self.next_offset: int | None = None
        self.shadow: Shadow | None = None

    def compare_with(self, digest: str) -> None:
        """Let candidate rules judge beside from here on."""
        self.shadow = Shadow(self.pipeline, *self.plans.beside(digest))

    @property
    def rules(self) -> str:
        """Return the digest of the rules in force."""
        return self.pipeline.plan.rules.digest

    @property
    def n_bytes(self) -> int:
        """Return the bytes of the partition's records."""
        pipeline = self.pipeline
        return sum(part.nbytes for part in pipeline.state.of_sources(*pipeline.sources).values())

    def decode(
        self, payloads: Sequence[bytes], kinds: Sequence[str | None] | None = None
    ) -> Decoded:
        """Decode the next messages; ``kinds`` are their content types where declared."""
        steps, rejected = decode_messages(
            payloads, self.plans.catalog, sensors=self.pipeline.sensors, kinds=kinds
        )
        texts = [
            step.record.text
            for step in steps
            if isinstance(step, Control) and isinstance(step.record, NewRules)
        ]
        return Decoded(steps, rejected, texts)

    def freeze(self, room: Room | None = None) -> Frozen:
        """Copy the state, to be written while the line goes on."""
        return freeze(self.pipeline, room=room)

    def restore(self, resumer: Resumer) -> list[str]:
        """Take up the newest whole snapshot, under the rules that it was made with.

        Without any, the line stays as it is and ``next_offset`` None. Return what people should
        know; raises ``SnapshotError`` where there are snapshots but none is any good.
        """
        found = resumer.store.find(self.partition)
        if found is None:
            return []
        digest = self.plans.compile(found.snapshot.meta["rules_text"])
        pipeline = self.plans.pipeline(digest, self.partition)
        resumed = resumer.resume(found, pipeline)
        self.pipeline, self.next_offset = pipeline, resumed.offset
        notes = [f"{skip.candidate.uri} was passed over: {skip.why}" for skip in found.skipped]
        return notes if resumed.carried is None else [*notes, resumed.carried.line()]

    def take(self, offsets: Sequence[int], decoded: Decoded) -> Outcome:
        """Take the next messages of the log, which stand at ``offsets``."""
        steps, rejected, _ = decoded
        out = Outcome(rejects=list(rejected))
        for step in steps:
            if isinstance(step, Batch):
                self._judge(step, offsets, out)
            elif isinstance(step.record, NewRules):
                self._switch(step.index, step.record, out)
            else:
                offset = offsets[step.index]
                alerts, kinds, refusal = self.pipeline.command(step.record)
                if self.shadow is not None:
                    self.shadow.pipeline.command(step.record)
                if alerts:
                    placed = [Alert(offset, number, *each) for number, each in enumerate(alerts)]
                    out.found.append(Told(placed))
                    out.kinds.update(kinds)
                if refusal is not None:
                    out.rejects.append(Rejected(step.index, *refusal, 1, []))
        self.next_offset = offsets[-1] + 1
        return out

    def _judge(self, batch: Batch, offsets: Sequence[int], out: Outcome) -> None:
        begun = self.pipeline.position
        transitions = self.pipeline.judge(batch.readings)
        if self.shadow is not None:
            out.differences += self.shadow.compare(self.pipeline, batch.readings, transitions)
        out.n_records += len(batch.readings)
        if not len(transitions):
            return
        out.kinds.update(
            zip(transitions["level"].tolist(), transitions["kind"].tolist(), strict=True)
        )
        place = transitions["position"] - begun
        message = np.searchsorted(batch.starts, place, side="right") - 1
        number = np.arange(len(message)) - np.searchsorted(message, message, side="left")
        offset = np.asarray(offsets)[batch.first + message]
        out.found.append(Untold(self.plans.writer(self.rules), transitions, offset, number))

    def _switch(self, index: int, new: NewRules, out: Outcome) -> None:
        """Let other rules judge from here on; what they do not change keeps its state."""
        try:
            digest = self.plans.compile(new.text)
        except RulesError as error:
            out.rejects.append(Rejected(index, "bad_rules", str(error)[:300], 1, []))
            return
        if digest != self.rules:
            plan, state = self.plans.plan(digest)
            self.pipeline = carry(self.pipeline, plan, state)
            out.new_rules = new._replace(digest=digest)

"""Random logs with commands in them, and how a line and the oracle take such a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

from engine.carry_out import Done, carry_out
from engine.commands import (
    Acknowledge,
    Command,
    InService,
    OutOfService,
    Shelve,
    Suppress,
    Unshelve,
    Unsuppress,
)
from tests.kernel_line import Line, columns, transitions_of
from tests.oracle import Oracle, Record
from tests.oracle.hiding import Told
from tests.plans import DAY_MS, START_MS
from tests.worlds import World, world

Step = Record | Command
KINDS = (Acknowledge, Shelve, Shelve, Unshelve, Suppress, Suppress, Unsuppress, OutOfService)
KINDS += (InService, InService)


def random_command(rng: Random, plan: SimpleNamespace, now_ms: int) -> Command:
    """Draw a command about a source that is there (mostly), with ends near the log's time."""
    catalog = plan.catalog
    source = f"source-{rng.randrange(catalog.n_sources + (rng.random() < 0.05))}"
    said: dict[str, Any] = {"event_ms": max(0, now_ms + rng.choice([0, 0, -300, -4000, 900]))}
    said |= {"id": f"c{rng.randrange(9)}", "by": "li", "note": rng.choice([None, "repairs"])}
    if rng.random() < 0.03:
        said["event_ms"] += plan.max_ahead_ms if plan.max_ahead_ms < 2**40 else 0
    kind = rng.choice(KINDS)
    if kind is Shelve:
        until_ms = said["event_ms"] + rng.choice([1, 500, 3000, 10_000, 3_600_000])
        return Shelve(**said, source=source, until_ms=until_ms)
    if kind in (Suppress, Unsuppress):
        scope = rng.choice(["source", "district", "category"])
        if scope != "source":
            names = catalog.districts[:2] if scope == "district" else catalog.categories
            said[scope] = rng.choice([*names, *names, *names, "nowhere"])
        else:
            said[scope] = source
        if kind is Unsuppress:
            return Unsuppress(**said)
        from_ms = said["event_ms"] + rng.choice([-2000, 0, 1000, 5000])
        return Suppress(
            **said, from_ms=from_ms, until_ms=from_ms + rng.choice([1, 2500, 9000, 100_000])
        )
    return kind(**said, source=source)


def commanded(rng: Random, n: int = 80, share: float = 0.15) -> tuple[SimpleNamespace, list[Step]]:
    """Draw a plan and a log for it in which some records are commands."""
    case: World = world(rng, n)
    steps: list[Step] = []
    now_ms = START_MS
    for record in case.records:
        # a clock gone wrong is no clock for people
        if 0 <= record.event_ms - now_ms < 100 * DAY_MS:
            now_ms = record.event_ms
        if rng.random() < share:
            steps.append(random_command(rng, case.plan, now_ms))
            if rng.random() < 0.05:
                steps.append(steps[-1])  # sent twice
        steps.append(record)
    return case.plan, steps


def batches(steps: Sequence[Step], cuts: Iterable[int] = ()) -> list[Command | list[Record]]:
    """Cut a log at the given places, and at every command."""
    places = set(cuts)
    found: list[Command | list[Record]] = []
    for number, step in enumerate(steps):
        if isinstance(step, Command):
            found.append(step)
        elif found and isinstance(found[-1], list) and number not in places:
            found[-1].append(step)
        else:
            found.append([step])
    return found


def take(line: Line, batch: Command | list[Record]) -> Any:
    """Let a line take a batch or a command; return all that it says, for a comparison."""
    if isinstance(batch, Command):
        return done(carry_out(line, batch))
    return transitions_of(line.judge(columns(batch)))


def done(found: Done) -> tuple[Any, ...]:
    """Describe what became of a command as the oracle does."""
    told = None
    if found.trace is not None:
        told = found.trace
        told = (told.event_ms, told.level, told.seq, told.episode_ms)
    refused = found.refusal.reason if found.refusal else None
    return refused, told, transitions_of(found.transitions)


def expected(oracle: Oracle, batch: Command | list[Record]) -> Any:
    """Let the oracle take the same."""
    if not isinstance(batch, Command):
        return [_readable(t) for t in oracle.push_all(batch)]
    refused, told, transitions = oracle.command(batch)
    return refused, _plain(told), [_readable(t) for t in transitions]


def _plain(told: Told | None) -> tuple[Any, ...] | None:
    return None if told is None else told[1:]


def _readable(transition: dict[str, Any]) -> dict[str, Any]:
    for contributor in transition["contributor"]:
        if contributor["value"] != contributor["value"]:
            contributor["value"] = "not measured"
    return transition


def assert_obeys_as_oracle(
    plan: SimpleNamespace, steps: Sequence[Step], cuts: Iterable[int] = (), **line: Any
) -> list[Any]:
    """Run a log with commands through the line and through the oracle; compare all they say."""
    oracle, pipeline = Oracle(plan), Line(plan, **line)
    answers = []
    for batch in batches(steps, cuts):
        found, wanted = take(pipeline, batch), expected(oracle, batch)
        assert found == wanted, f"\n{batch}\nkernel {found}\noracle {wanted}"
        answers.append(found)
    assert pipeline.counts == oracle.counts
    assert pipeline.position == oracle.position == len(steps)
    for name, of in (("level", "level"), ("shown", "shown"), ("seq", "seq")):
        wanted = [getattr(source, of) for source in oracle.fusion.sources]
        assert pipeline.state.source[name].tolist() == wanted
    return answers

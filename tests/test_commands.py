"""Commands in the log: as the oracle says, whatever batches, shards, snapshots; and by hand."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine import snapshot
from engine.carry_out import carry_out
from engine.commands import Command
from kernels.layout import CAUSE_NAMES, TRANSITION_NAMES
from tests.command_worlds import assert_obeys_as_oracle, batches, commanded
from tests.kernel_line import Line, columns
from tests.test_line import assert_same_state
from tests.worlds import steered

N_SEEDS = 20 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 150
N = 40
"""Records of a log that hypothesis draws, beside its commands."""
CUTS = st.lists(st.integers(0, N), max_size=5)


def said(line: Line, steps: list[Any]) -> list[Any]:
    """Return every byte that a line says of batches and commands."""
    found: list[Any] = []
    for batch in steps:
        if isinstance(batch, Command):
            refusal, trace, transitions = carry_out(line, batch)
            found += [refusal, trace, transitions.tobytes()]
        else:
            found.append(line.judge(columns(batch)).tobytes())
    return [part for part in found if part != b""]


def joined(found: list[Any]) -> list[Any]:
    """Put together the bytes between two commands."""
    parts: list[Any] = [b""]
    for part in found:
        if isinstance(part, bytes) and isinstance(parts[-1], bytes):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


@given(steered(lambda rng: commanded(rng, N)), CUTS, st.integers(1, 4))
def test_commands_are_carried_out_as_the_oracle_says(drawn, cuts, threads):
    assert_obeys_as_oracle(*drawn, cuts, threads=threads)


@given(steered(lambda rng: commanded(rng, N, 0.4)), st.integers(1, 3))
def test_commands_do_not_depend_on_the_room_for_transitions(drawn, most):
    assert_obeys_as_oracle(*drawn, room=300, most=most)


def test_seeded_corpus_is_commanded_as_the_oracle_says():
    for seed in range(N_SEEDS):
        plan, steps = commanded(Random(seed), 150, 0.1 + 0.1 * (seed % 4))
        assert_obeys_as_oracle(plan, steps, range(0, 150, 11), threads=1 + seed % 3)


@given(steered(lambda rng: commanded(rng, N)), CUTS, st.integers(1, 3))
def test_any_cut_into_batches_gives_the_same_bytes_and_state(drawn, cuts, threads):
    plan, steps = drawn
    whole, pieces = Line(plan), Line(plan, threads=threads)
    assert joined(said(pieces, batches(steps, cuts))) == joined(said(whole, batches(steps)))
    assert_same_state(pieces, whole)


@given(
    steered(lambda rng: commanded(rng, N)),
    st.lists(st.integers(0, N), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_snapshot_between_any_commands_changes_nothing_that_follows(
    tmp_path_factory, drawn, cuts, threads
):
    place = str(tmp_path_factory.mktemp("snapshots", numbered=True) / "line.snapshot")
    plan, steps = drawn
    whole, line = Line(plan), Line(plan)
    expected = said(whole, batches(steps, cuts))
    found: list[Any] = []
    for number, batch in enumerate(batches(steps, cuts)):
        if number in cuts or number % 5 == 0:
            snapshot.save(place, line)
            line = Line(plan, threads=threads)
            snapshot.load(place, line)
        found += said(line, [batch])
    assert found == expected
    assert_same_state(line, whole)


def test_seeded_corpus_reaches_every_cause_refusal_and_trace():
    seen: Counter[Any] = Counter()
    for seed in range(N_SEEDS):
        plan, steps = commanded(Random(seed), 150, 0.1 + 0.1 * (seed % 4))
        for step, answer in zip(batches(steps), assert_obeys_as_oracle(plan, steps), strict=True):
            transitions = answer
            if isinstance(step, Command):
                refused, told, transitions = answer
                seen[refused] += 1
                seen[step.name] += told is not None
                seen["trace in an episode"] += told is not None and told[2] is not None
            for t in transitions:
                seen[CAUSE_NAMES[t["cause"]], TRANSITION_NAMES[t["kind"]], t["phase"] > 0] += 1
    hiding = ("shelved", "suppressed", "out_of_service")
    wanted: list[Any] = ["acknowledge", "shelve", "unshelve", "suppress", "unsuppress"]
    wanted += ["out_of_service", "in_service", "trace in an episode", "unknown_source"]
    wanted += ["unknown_district", "over", "time_ahead", "already_shelved", "not_shelved"]
    wanted += ["already_out_of_service", "not_out_of_service", "not_suppressed"]
    wanted += ["already_suppressed", "nothing_to_acknowledge", "other_partition"]
    wanted += [(cause, "clear", False) for cause in hiding] + [("suppressed", "clear", True)]
    wanted += [("returned", "raise", False), ("returned", "raise", True)]
    assert [what for what in wanted if not seen[what]] == []

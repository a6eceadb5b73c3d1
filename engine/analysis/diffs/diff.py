"""One history under two rule sets: what one raises and the other does not, or at another time.

`diff(past, old, new)` judges the history under both; see `engine.analysis.diffs.episodes` for which
episodes are taken to be about the same thing, and `engine.analysis.diffs.gate` for what CI may ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.analysis.diffs.episodes import NEVER, by_source, episodes_of, groups_of
from engine.analysis.diffs.rules import KeyChange, rule_changes
from engine.analysis.past import Past
from engine.catalog import Catalog
from engine.rules import Rules
from engine.truth import Incident, Score, score
from kernels.layout import LEVEL_NAMES, N_LEVELS, TRANSITION_NAMES

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]

SAME, CHANGED, GONE, NEW, SPLIT, MERGED, REGROUPED = (
    "same", "changed", "gone", "new", "split", "merged", "regrouped",
)  # fmt: skip
CHANGES = (GONE, NEW, SPLIT, MERGED, REGROUPED, CHANGED, SAME)
"""What may become of a group of episodes, from old to new."""

TIMES = "seconds at level"
"""What a count of time is of; all others are numbers of something."""


class Side(NamedTuple):
    """The episodes of a group under one of the rule sets; a length is in milliseconds."""

    n: int
    alert_id: str | None
    """Of the first of them."""
    start_ms: int
    end_ms: int
    running: bool
    """Not cleared within the history."""
    peak: int
    at_ms: tuple[int, ...]
    """How long at each level, blue first."""
    first_ms: tuple[int | None, ...]
    """When first at or above each level."""

    @property
    def lasted_ms(self) -> int:
        """Return the time above normal."""
        return sum(self.at_ms)

    def reached_ms(self, level: int) -> int | None:
        """Return when a level (1 to 4) or a higher one was first reached."""
        return self.first_ms[level - 1]


class Group(NamedTuple):
    """What both rule sets say about one time of one source; one side may be missing."""

    source: str
    category: str
    old: Side | None
    new: Side | None
    same: bool
    same_scores: bool

    @property
    def change(self) -> str:
        """Return one of CHANGES."""
        if self.same:
            return SAME
        if self.old is None or self.new is None:
            return NEW if self.old is None else GONE
        if self.old.n == self.new.n:
            return CHANGED if self.old.n == 1 else REGROUPED
        if 1 in (self.old.n, self.new.n):
            return SPLIT if self.old.n == 1 else MERGED
        return REGROUPED

    def later_ms(self, level: int = 1) -> int | None:
        """Return how much later the new rules reach a level (negative: earlier); None unless both.

        Level 1 is reached when the episode starts.
        """
        if self.old is None or self.new is None:
            return None
        times = self.old.reached_ms(level), self.new.reached_ms(level)
        return None if None in times else times[1] - times[0]  # type: ignore[operator]

    @property
    def longer_ms(self) -> int:
        """Return how much longer the source is above normal under the new rules."""
        old, new = (0 if side is None else side.lasted_ms for side in (self.old, self.new))
        return new - old

    @property
    def peaks(self) -> tuple[int, int]:
        """Return the highest level under each of the rule sets, 0 for no episode."""
        old, new = (0 if side is None else side.peak for side in (self.old, self.new))
        return old, new

    def how(self) -> Iterator[str]:
        """Yield in words how an episode that both rule sets raise differs."""
        if self.same or self.old is None or self.new is None:
            return
        later_ms = self.later_ms() or 0
        if later_ms:
            yield "later" if later_ms > 0 else "earlier"
        before, now = self.peaks
        if before != now:
            yield "higher" if now > before else "lower"
        for level in range(2, N_LEVELS + 1):
            shift_ms = self.later_ms(level)
            if shift_ms and shift_ms != later_ms:
                yield f"{LEVEL_NAMES[level]} {'later' if shift_ms > 0 else 'earlier'}"
        if self.longer_ms:
            yield "longer" if self.longer_ms > 0 else "shorter"
        elif not later_ms and before == now:
            yield "other levels"


class Count(NamedTuple):
    """How often something occurs under each of the rule sets."""

    of: str
    name: str
    old: float
    new: float


class Verdict(NamedTuple):
    """What becomes of one incident: when each rule set finds it, None where it is missed."""

    incident: Incident
    old_ms: int | None
    new_ms: int | None

    @property
    def change(self) -> str:
        """Return `lost`, `found`, `later`, `earlier`, `same`, or `missed` by both."""
        if self.old_ms is None or self.new_ms is None:
            if self.old_ms == self.new_ms:
                return "missed"
            return "found" if self.old_ms is None else "lost"
        if self.old_ms == self.new_ms:
            return "same"
        return "later" if self.new_ms > self.old_ms else "earlier"


@dataclass(frozen=True, kw_only=True)
class Against:
    """Both rule sets against what really happened."""

    old: Score
    new: Score

    @property
    def verdicts(self) -> list[Verdict]:
        """Return what becomes of each incident."""
        pairs = zip(self.old.detections, self.new.detections, strict=True)
        return [Verdict(a.incident, a.delay_ms, b.delay_ms) for a, b in pairs]


@dataclass(frozen=True, kw_only=True, eq=False)
class Diff:
    """What two rule sets make of one history."""

    old_rules: Rules
    new_rules: Rules
    catalog: Catalog
    keys: list[KeyChange]
    """Keys of the rules that differ."""
    old_steps: Array
    """STEP of the old rules, by source."""
    new_steps: Array
    old: Array
    """EPISODE of the old rules, by source and time."""
    new: Array
    groups: list[Group] = field(repr=False)
    """All groups of episodes, by source and time."""
    n_readings: int
    first_ms: int | None
    last_ms: int | None
    against: Against | None = None

    @cached_property
    def differing(self) -> list[Group]:
        """Groups that are not the same, those at the highest levels first, then by time."""
        order = {change: place for place, change in enumerate(CHANGES)}

        def weight(group: Group) -> Any:
            side = group.old or group.new
            assert side is not None
            return (-max(group.peaks), order[group.change], side.start_ms, group.source)

        return sorted((group for group in self.groups if not group.same), key=weight)

    @cached_property
    def by_change(self) -> dict[str, int]:
        """How many groups there are of each change."""
        found = dict.fromkeys(CHANGES, 0)
        for group in self.groups:
            found[group.change] += 1
        return found

    @property
    def n_other_scores(self) -> int:
        """Groups with the same levels at the same times, but other scores."""
        return sum(group.same and not group.same_scores for group in self.groups)

    def counts(self, *, sources: bool = True) -> list[Count]:
        """Return alerts and episodes by level, transition, category and source, old and new."""
        return list(_counts(self, sources))

    def table(self) -> pa.Table:
        """Return a row for each group; times in UTC, lengths in seconds."""
        from engine.analysis.diffs.tables import groups_table

        return groups_table(self.groups)

    def counts_table(self) -> pa.Table:
        """Return `counts` as a table."""
        from engine.analysis.diffs.tables import rows_table

        return rows_table(Count, self.counts())

    def keys_table(self) -> pa.Table:
        """Return the keys of the rules that differ, values as a rules file has them."""
        from engine.analysis.diffs.tables import keys_table

        return keys_table(self.keys)

    def verdicts_table(self) -> pa.Table:
        """Return what becomes of each incident; no row without a truth."""
        from engine.analysis.diffs.tables import verdicts_table

        return verdicts_table(self.against)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values; groups that are the same are only counted."""
        from engine.analysis.diffs.tables import diff_dict

        return diff_dict(self)


def diff(
    past: Past,
    old: Rules,
    new: Rules,
    *,
    truth: Sequence[Incident] | None = None,
    level: str = "blue",
    grace_s: float = 0.0,
    lead_s: float = 0.0,
    threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> Diff:
    """Judge a history under two rule sets and set what came out side by side.

    With a truth, both are held against it at `level`; `lead_s` and `grace_s` as in `truth.score`.
    Raises what is wrong with the readings, and RulesError where rules and catalog don't fit.
    """
    from engine.analysis.sweep import Sweep

    tried = Sweep(past, threads=threads).try_all([old, new], on_progress=on_progress)
    last_ms = tried.last_ms if tried.last_ms is not None else 0
    found = [tried.of(setting) for setting in range(2)]
    against = None
    if truth is not None:
        ids = past.catalog.source_id
        until_ms = last_ms + 1
        since_ms = 0 if tried.first_ms is None else min(tried.first_ms, last_ms)
        scores = [
            score(
                alerts_of(steps, ids),
                truth,
                since_ms=since_ms,
                until_ms=until_ms,
                level=level,
                lead_s=lead_s,
                grace_s=grace_s,
                n_sources=past.catalog.n_sources,
            )
            for steps in found
        ]
        against = Against(old=scores[0], new=scores[1])
    return compare(
        past.catalog,
        (old, new),
        found,
        first_ms=tried.first_ms,
        last_ms=tried.last_ms,
        n_readings=tried.n_readings,
        against=against,
    )


def compare(
    catalog: Catalog,
    rules: tuple[Rules, Rules],
    steps: Sequence[Array],
    *,
    first_ms: int | None,
    last_ms: int | None,
    n_readings: int,
    against: Against | None = None,
) -> Diff:
    """Set the STEPs of two rule sets, in the log's order, side by side."""
    ordered = [by_source(each) for each in steps]
    old, new = (episodes_of(each, last_ms or 0) for each in ordered)
    return Diff(
        old_rules=rules[0],
        new_rules=rules[1],
        catalog=catalog,
        keys=rule_changes(*rules),
        old_steps=ordered[0],
        new_steps=ordered[1],
        old=old,
        new=new,
        groups=list(_groups(catalog, old, new, *ordered)),
        n_readings=n_readings,
        first_ms=first_ms,
        last_ms=last_ms,
        against=against,
    )


def alerts_of(steps: Array, source_id: Any) -> Iterator[dict[str, Any]]:
    """Yield of each step what `truth.score` reads of an alert record."""
    names = {int(s): source_id[int(s)].as_py() for s in np.unique(steps["source"])}
    columns = (steps[name].tolist() for name in ("source", "event_ms", "level"))
    for source, event_ms, level in zip(*columns, strict=True):
        yield {"source": names[source], "event_ms": event_ms, "level": LEVEL_NAMES[level]}


def _groups(
    catalog: Catalog, old: Array, new: Array, old_steps: Array, new_steps: Array
) -> Iterator[Group]:
    known = np.unique(np.concatenate([old["source"], new["source"]])).tolist()
    names = {source: catalog.source_id[source].as_py() for source in known}
    for group in groups_of(old, new, old_steps, new_steps):
        source = int(group["source"])
        before, now = (
            episodes[group[name] : group[name] + group[f"n_{name}"]]
            for name, episodes in (("old", old), ("new", new))
        )
        yield Group(
            names[source],
            catalog.categories[int(catalog.category[source])],
            _side(before, names[source]),
            _side(now, names[source]),
            bool(group["same"]),
            bool(group["same_scores"]),
        )


def _side(episodes: Array, source: str) -> Side | None:
    if not len(episodes):
        return None
    first_ms = episodes["first_ms"]
    far = np.iinfo(np.int64).max
    earliest = np.where(first_ms == NEVER, far, first_ms).min(axis=0)
    return Side(
        n=len(episodes),
        alert_id=f"{source}@{int(episodes['id_ms'][0])}",
        start_ms=int(episodes["start_ms"].min()),
        end_ms=int(episodes["end_ms"].max()),
        running=bool(episodes["running"].any()),
        peak=int(episodes["peak"].max()),
        at_ms=tuple(episodes["at_ms"].sum(axis=0).tolist()),
        first_ms=tuple(None if ms == far else ms for ms in earliest.tolist()),
    )


# --- counts -------------------------------------------------------------------------------------


def _counts(diff: Diff, sources: bool) -> Iterator[Count]:
    steps = diff.old_steps, diff.new_steps
    yield Count("alerts", "all", *map(len, steps))
    for kind, name in enumerate(TRANSITION_NAMES):
        yield Count("alerts by transition", name, *(_n(each["kind"] == kind) for each in steps))
    for level, name in enumerate(LEVEL_NAMES[1:], 1):
        counted = (_n((each["level"] == level) & (each["kind"] < 2)) for each in steps)
        yield Count("raises and escalations to", name, *counted)
    episodes = diff.old, diff.new
    yield Count("episodes", "all", *map(len, episodes))
    for level, name in enumerate(LEVEL_NAMES[1:], 1):
        yield Count("episodes by peak", name, *(_n(each["peak"] == level) for each in episodes))
    for level, name in enumerate(LEVEL_NAMES[1:], 1):
        times = (float(each["at_ms"][:, level - 1].sum()) / 1000 for each in episodes)
        yield Count(TIMES, name, *times)
    of = diff.catalog.category
    by_category = [np.bincount(of[each["source"]], minlength=256) for each in episodes]
    for number, name in enumerate(diff.catalog.categories):
        yield Count("episodes by category", name, *(int(each[number]) for each in by_category))
    if sources:
        yield from _source_counts(diff)


def _n(which: Array) -> int:
    return int(np.count_nonzero(which))


def _source_counts(diff: Diff) -> Iterator[Count]:
    """Yield alerts of each source that has any, those that change most first."""
    found = [
        np.unique(each["source"], return_counts=True) for each in (diff.old_steps, diff.new_steps)
    ]
    old, new = (dict(zip(each[0].tolist(), each[1].tolist(), strict=True)) for each in found)
    rows = [(source, old.get(source, 0), new.get(source, 0)) for source in sorted(old | new)]
    rows.sort(key=lambda row: (-abs(row[2] - row[1]), -row[1], row[0]))
    for source, before, now in rows:
        yield Count("alerts by source", diff.catalog.source_id[source].as_py(), before, now)

"""Why one alert was sent: what the sensors did, how it added up, and what would have prevented it.

`explain(past, rules, "well-207@1752608333000")` judges the part of the history that the source
depends on, stops the line at the transition, and takes apart what it went by. Nothing is guessed:
the arithmetic gives the transition's score to the last bit, and every change of a key that is said
to prevent the alert has been judged on both sides of its boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from engine.analysis.explaining.counterfactual import Question, Search, search, with_effects
from engine.analysis.explaining.counterfactual_keys import Bearing
from engine.analysis.explaining.moment import Moment, Sensor, levels_of, moment_of
from engine.analysis.explaining.story import Story, Told, key_of
from engine.analysis.explaining.words import moment as said_moment
from engine.analysis.extract import Extract, Part, extract
from engine.analysis.past import Past
from engine.analysis.steps import steps_of
from engine.catalog import Catalog
from engine.errors import InputError
from engine.pipeline import Pipeline
from engine.rules import Rules
from engine.rules_base import LEVELS
from engine.truth import Incident
from kernels.layout import HIGH, KIND_NAMES, LEVEL_NAMES, LOW, RAISE, TRANSITION_NAMES

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]

MOST_SENSORS = 2000
"""A part with more of them is cut down to direct neighbours; what is found is then held against the
whole history."""
MOST_GAP_S = 6 * 3600.0
"""Further apart, two alerts are hardly one that was cut in two."""
_NEAREST, _CLOSEST = 6, 5
_SOME_IDS = 50_000


class Contribution(NamedTuple):
    """What one sensor counts."""

    source: str
    sensor: str
    quantity: str
    detector: str
    level: str
    """`fading` where it counts for what once was up."""
    key: str | None
    """Where its limit stands in the rules; None for a limit of the sensor's own."""
    severity: float
    weight: float
    detector_weight: float
    counts: float
    """Per cent: severity × weight × detector's weight, rounded, at most 100; or what is left."""
    held_from: float | None
    """Per cent that it faded from."""
    held_ms: int | None
    """Since when."""


class Coupled(NamedTuple):
    """What one neighbour counts."""

    source: str
    kind: str
    weight: float
    """Of the coupling, in the catalog."""
    influence: float
    """Of its kind, in the rules."""
    own: float
    """The neighbour's own score, 0 to 100."""
    counts: float
    """Per cent."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One transition, explained."""

    alert: dict[str, Any]
    """The alert record."""
    episode: list[dict[str, Any]]
    """All alert records of its episode."""
    rules: Rules
    catalog: Catalog
    extract: Extract
    moment: Moment
    story: list[Told]
    contributions: list[Contribution]
    """Of the source's own sensors."""
    coupled: list[Coupled]
    coupled_contributions: list[Contribution]
    """Of the neighbours' sensors."""
    searches: tuple[Search, ...]
    """What would have prevented it; empty if that was not asked.

    Of a raise to a level above blue two: what would have prevented any alert, and that level."""
    notes: tuple[str, ...] = ()

    @property
    def alert_id(self) -> str:
        """Return the id of the episode's alerts."""
        return str(self.alert["alert_id"])

    @property
    def seq(self) -> int:
        """Return which of them it is."""
        return int(self.alert["seq"])

    def table(self) -> pa.Table:
        """Return what each sensor counts, neighbours' sensors too."""
        from engine.analysis.explaining.tables import contributions_table

        return contributions_table(self)

    def findings_table(self) -> pa.Table:
        """Return the changes of single keys that would have prevented it."""
        from engine.analysis.explaining.tables import findings_table

        return findings_table(self.searches)

    def story_table(self) -> pa.Table:
        """Return what the sensors did, in order."""
        from engine.analysis.explaining.tables import story_table

        return story_table(self)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        from engine.analysis.explaining.tables import explanation_dict

        return explanation_dict(self)


def parse_id(text: str) -> tuple[str, int, int | None]:
    """Return (source, start of the episode, number in it or None); InputError says what is wrong.

    An id reads `SOURCE@EPOCH_MS`, as alert records have it, with `#SEQ` for one of its alerts.
    """
    source, at, rest = text.rpartition("@")
    start, hash_, seq = rest.partition("#")
    if not (at and source and start.isdigit() and (seq.isdigit() if hash_ else True)):
        raise InputError(
            f"{text!r}: not an alert id: must read SOURCE@EPOCH_MS, or SOURCE@EPOCH_MS#SEQ for one "
            "alert of an episode (the alert_id and seq of an alert record)"
        )
    return source, int(start), int(seq) if hash_ else None


def explain(
    past: Past,
    rules: Rules,
    alert_id: str,
    *,
    truth: Sequence[Incident] | None = None,
    level: str = "blue",
    prevent: bool = True,
    effects: bool = True,
    threads: int = 1,
    on_progress: Callable[[str, float], None] = lambda what, share: None,
) -> Explanation:
    """Explain an alert; without `#SEQ` the first of its episode.

    `prevent` looks for what would have prevented it, `effects` for what else those changes do to
    the history, and to the incidents of a truth at `level`. Raises InputError for an alert that the
    history does not have, with those that are near.
    """
    name, episode_ms, seq = parse_id(alert_id)
    source = past.catalog.source_index(name)
    if source < 0:
        raise InputError(f"{name}: no such source in the catalog{_near_ids(past.catalog, name)}")
    hops = None
    if len(Part.of(past.catalog, [source]).sensors) > MOST_SENSORS:
        hops = 1
    taken = extract(
        past, rules, [source], hops=hops, on_progress=lambda s: on_progress("reading", s)
    )
    plan = taken.plan(rules)
    transitions = taken.run(plan)
    mine = transitions[transitions["episode_ms"] == episode_ms]
    wanted = mine[mine["seq"] == (seq or 0)]
    if not len(wanted):
        raise InputError(_not_found(name, episode_ms, seq, transitions, rules))
    local = int(taken.part.place_of(np.array([source]))[0])
    moment = moment_of(taken, plan, local, episode_ms, int(wanted[0]["seq"]))
    records = Pipeline(plan).records.encode(_in_part(taken, mine))
    episode = [orjson.loads(record) for record in records]
    story = Story(taken, moment)
    involved = _involved(moment)
    found = Explanation(
        alert=next(each for each in episode if each["seq"] == int(wanted[0]["seq"])),
        episode=episode,
        rules=rules,
        catalog=past.catalog,
        extract=taken,
        moment=moment,
        story=story.told(involved, story.begun_ms(involved)),
        contributions=[_contribution(moment, each) for each in moment.sensors],
        coupled=_coupled(moment),
        coupled_contributions=[
            _contribution(moment, each)
            for neighbour in moment.neighbours
            if neighbour.share > 0
            for each in neighbour.sensors
        ],
        searches=(),
        notes=tuple(_notes(taken, moment, hops)),
    )
    if not prevent:
        return found
    return _with_search(
        past, found, steps_of(transitions), wanted[0], truth, level, effects, threads, on_progress
    )


def _with_search(
    past: Past,
    found: Explanation,
    steps: Array,
    transition: Any,
    truth: Sequence[Incident] | None,
    level: str,
    effects: bool,
    threads: int,
    on_progress: Callable[[str, float], None],
) -> Explanation:
    searches = []
    is_raise = int(transition["kind"]) == RAISE
    asked = {1: None, int(transition["level"]): None} if is_raise else {None: None}
    for wanted in asked:
        question = Question.about(steps, transition, wanted)
        if not question.answerable:
            nothing = Search(question=question, findings=(), put_off=(), in_vain=(), n_judged=0)
            return replace(found, searches=(nothing,))
        searched = search(
            found.extract,
            found.rules,
            question,
            bearing_of(found.extract, found.moment, question).keys(),
            on_progress=lambda share: on_progress("trying changes", share),
        )
        if effects:
            searched = with_effects(
                past,
                found.rules,
                searched,
                truth=truth,
                level=level,
                threads=threads,
                on_progress=lambda share: on_progress("judging the whole history", share),
            )
        searches.append(searched)
    return replace(found, searches=tuple(searches))


def bearing_of(taken: Extract, moment: Moment, question: Question) -> Bearing:
    """Return what knows the keys that bear on a transition."""
    last_ms = question.event_ms if taken.last_ms is None else taken.last_ms
    begun_ms = int(taken.log.event_ms[0]) if len(taken.log) else question.event_ms
    end_ms = min(question.until_ms, last_ms)
    span_s = max(0, end_ms - max(begun_ms, question.after_ms)) / 1000
    gap_s: float | None = (question.event_ms - question.after_ms) / 1000
    if question.falls:
        gap_s = (question.until_ms - question.event_ms) / 1000
    elif question.after_ms < 0 or gap_s is None or gap_s > MOST_GAP_S:
        gap_s = None
    since_ms = question.after_ms - round(MOST_GAP_S * 1000)
    return Bearing(
        moment=moment,
        level=question.level,
        span_s=span_s,
        gap_s=gap_s,
        falls=question.falls,
        kinds=_kinds(moment, since_ms),
    )


def _kinds(moment: Moment, since_ms: int) -> frozenset[tuple[int, int]]:
    """Return (sensor, kind) of what was up since a time."""
    own = {moment.source, *(each.source for each in moment.neighbours)}
    homes = moment.plan.catalog.sensor_source
    found = set()
    for change in moment.changes[moment.changes["event_ms"] >= since_ms]:
        if int(homes[change["sensor"]]) in own:
            kinds = levels_of(int(change["levels"]))
            found |= {(int(change["sensor"]), kind) for kind, _ in kinds}
    return frozenset(found)


def _involved(moment: Moment) -> set[int]:
    """Return the sensors that count, and those that make signal rules hold."""
    found = {each.sensor for each in moment.sensors}
    for neighbour in moment.neighbours:
        if neighbour.share > 0:
            found |= {each.sensor for each in neighbour.sensors}
    for held in moment.rules:
        found |= {sensor for _, sensors in held.terms for sensor in sensors}
    return found


def _in_part(taken: Extract, transitions: Array) -> Array:
    """Return transitions of the whole catalog with the part's indices."""
    found = transitions.copy()
    part = taken.part
    for name in ("source", "trigger", "coupled_from"):
        known = found[name] >= 0
        found[name] = np.where(known, part.place_of(found[name]), found[name])
    sensor = found["contributor"]["sensor"]
    places = np.searchsorted(part.sensors, sensor)
    found["contributor"]["sensor"] = np.where(sensor >= 0, places, sensor)
    return found


def _contribution(moment: Moment, each: Sensor) -> Contribution:
    plan, catalog = moment.plan, moment.plan.catalog
    source = int(catalog.sensor_source[each.sensor])
    quantity = catalog.quantities[int(catalog.quantity[each.sensor])]
    fusion = plan.rules.fusion.of(catalog.categories[int(catalog.category[source])])
    kind, level = each.held_kind, 0
    if not each.fades and each.strongest is not None:
        kind, level = each.strongest.kind, each.strongest.level
    severity = getattr(fusion.severity, LEVELS[level - 1]) if level else 0.0
    return Contribution(
        source=catalog.source_id[source].as_py(),
        sensor=catalog.sensor_id[each.sensor].as_py(),
        quantity=quantity,
        detector=KIND_NAMES[kind],
        level=LEVEL_NAMES[level] if level else "fading",
        key=key_of(plan, each.sensor, kind, level, each.window) if level else None,
        severity=severity,
        weight=fusion.weight(quantity),
        detector_weight=getattr(fusion.detectors, KIND_NAMES[kind]),
        counts=each.counts,
        held_from=float(each.held_from) if each.fades else None,
        held_ms=each.held_ms if each.fades else None,
    )


def _coupled(moment: Moment) -> list[Coupled]:
    plan, catalog = moment.plan, moment.plan.catalog
    found = []
    for each in moment.neighbours:
        if each.own <= 0:
            continue
        kind = catalog.coupling_kinds[int(catalog.coupled_kind[each.edge])]
        found.append(
            Coupled(
                source=catalog.source_id[each.source].as_py(),
                kind=kind,
                weight=float(catalog.coupled_weight[each.edge]),
                influence=plan.rules.coupling.of(kind),
                own=100 * each.own,
                counts=100 * each.share,
            )
        )
    return found


def _notes(taken: Extract, moment: Moment, hops: int | None) -> Iterator[str]:
    if hops is not None:
        yield (
            f"the source depends on more than {MOST_SENSORS:,} sensors; neighbours of neighbours "
            "are left out, which may move what fades by seconds"
        )
    if taken.n_refused:
        yield (
            f"{taken.n_refused:,} readings of these sensors were refused for their time "
            "(time.max_ahead_s, time.max_late_s) and told nobody anything"
        )
    if int(moment.transition["late"]):
        yield "the reading that made it came late (time.late_after_s)"
    catalog = moment.plan.catalog
    for each in (*moment.sensors, *(s for n in moment.neighbours for s in n.sensors)):
        for signal in each.signals:
            watched = moment.plan.profile_of_row[int(moment.plan.row[each.sensor])] is not None
            limited = signal.kind in (HIGH, LOW)
            if watched and limited and key_of(moment.plan, each.sensor, *signal[:2]) is None:
                name = catalog.sensor_id[each.sensor].as_py()
                level = LEVEL_NAMES[signal.level]
                yield (
                    f"the {level} limit of {name} is the sensor's own, from the catalog: no key of "
                    "the rules moves it"
                )


# --- alerts that are not there -------------------------------------------------------------------


def _near_ids(catalog: Catalog, name: str) -> str:
    """Return in brackets the ids that are spelled most like a name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids: Any = catalog.source_id
    for n in range(len(name), 1, -1):
        if len(ids) <= _SOME_IDS:
            break
        found = catalog.source_id.filter(pc.starts_with(catalog.source_id, pattern=name[:n]))
        if len(found):
            ids = found
            break
    near = get_close_matches(name, ids.slice(0, _SOME_IDS).to_pylist(), n=_CLOSEST, cutoff=0.5)
    assert isinstance(ids, pa.LargeStringArray | pa.ChunkedArray)
    return f" (nearest: {', '.join(near)})" if near else ""


def _not_found(
    name: str, episode_ms: int, seq: int | None, transitions: Array, rules: Rules
) -> str:
    zone = rules.time.zone()
    mine = transitions[transitions["episode_ms"] == episode_ms]
    if len(mine):
        kinds = (
            f"#{t['seq']} {TRANSITION_NAMES[t['kind']]} to {LEVEL_NAMES[t['level']]}" for t in mine
        )
        return f"{name}@{episode_ms} has no alert #{seq}; it has {', '.join(kinds)}"
    starts = transitions[transitions["seq"] == 0]
    if not len(starts):
        return f"{name} has no alert under these rules in this history"
    order = np.argsort(np.abs(starts["episode_ms"] - episode_ms), kind="stable")[:_NEAREST]
    near = (
        f"{name}@{t['episode_ms']} ({said_moment(int(t['episode_ms']), zone)}, "
        f"{LEVEL_NAMES[t['level']]})"
        for t in starts[order]
    )
    n = len(starts)
    return (
        f"{name}@{episode_ms}: no such alert under these rules; of {n} "
        f"episode{'s' * (n > 1)} of {name} nearest in time: {', '.join(near)}"
    )

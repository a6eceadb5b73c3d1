"""Alert records: what leaves the engine, as JSON, with the sentence for people.

A record is joined from parts that are JSON already (`engine.alert_parts`): those of the catalog and
the rules are kept, and the numbers of many records are written at once.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import numpy as np
import orjson

from engine.alert_parts import (
    LocalClock,
    Measures,
    Sensors,
    Source,
    Sources,
    escaped,
    numbers,
)
from engine.plan import Plan
from engine.sentences import beginning
from kernels.layout import BY_RULE, CAUSE_NAMES, CLEAR, LEVEL_NAMES, TRANSITION_NAMES

Array = np.ndarray[Any, Any]

_FIELDS = (
    "score", "factor", "coupled_percent", "rule", "kind", "level_from", "level", "standing",
    "cause", "late", "reached",
)  # fmt: skip
LEAST_SHARE = 10
"""A contributor that counts less than this part of what the strongest does is no reason."""
LEAST_PERCENT = 1.0
"""A neighbour whose influence has faded below it is not named."""
MOST_CAUSES = 10_000
_MS = [f".{ms:03}".encode() for ms in range(1000)]
_LEVELS = [
    [
        [
            f',"transition":"{kind}","level":"{level}","level_from":"{level_from}"'.encode()
            for level in LEVEL_NAMES
        ]
        for level_from in LEVEL_NAMES
    ]
    for kind in TRANSITION_NAMES
]
_STANDING = [f',"standing":"{level}"'.encode() for level in LEVEL_NAMES]
_BEGINNINGS = [
    [
        [beginning(kind, level, cause).encode() for level in range(len(LEVEL_NAMES))]
        for kind in range(len(TRANSITION_NAMES))
    ]
    for cause in CAUSE_NAMES
]


@lru_cache(1 << 14)
def _signal(percent: float) -> bytes:
    return orjson.dumps(round(percent / 100.0, 3))


@lru_cache(1 << 14)
def _score(score: float) -> tuple[bytes, bytes]:
    """Return a score as a record shows it, and as its sentence does."""
    return b',"score":%.1f' % score, b", score %.0f" % score


Part = tuple[bytes, bytes, float]
"""One contributor: its JSON, the reason that it is, and its percent."""


def alert_id(source_id: str, episode_ms: int) -> str:
    """Return the identity of an episode: the same wherever and whenever it is found."""
    return f"{source_id}@{episode_ms}"


class AlertRecords:
    """Turns transitions into alert records, with the catalog's names and the rules' limits."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._clock = LocalClock(plan.rules.time.zone())
        self._causes: dict[tuple[int, int, float], bytes] = {}

    # What is kept is made on first use: nobody needs it where no alert is written.

    @cached_property
    def _sources(self) -> Sources:
        return Sources(self.plan)

    @cached_property
    def _sensors(self) -> Sensors:
        return Sensors(self.plan)

    @cached_property
    def _measures(self) -> Measures:
        return Measures(self.plan)

    @cached_property
    def _rules(self) -> list[bytes]:
        return escaped([rule.name for rule in self.plan.rules.rules])

    @cached_property
    def _late(self) -> tuple[bytes, bytes]:
        """Members from the end of ``time`` to the name of ``episode_ms``."""
        end = self._clock.suffix + b'","late":'
        return end + b'false,"episode_ms":', end + b'true,"episode_ms":'

    @cached_property
    def _digest(self) -> bytes:
        """Members from ``rules`` to the text."""
        return f',"rules":"{self.plan.rules.digest}","text":"'.encode()

    def about(self, source: int) -> dict[str, Any]:
        """Return `who` a source is, and what its records say of it, as objects."""
        _, _, who, about, answers, _ = self._sources.get([source])[0]
        members = orjson.loads(b'{"who":"%b"%b%b0}' % (who, about, answers))
        del members["routes"]
        return members

    def routes(self, source: int, reached: int) -> list[str]:
        """Return who is told of an episode; bit k of ``reached`` is set if it was at level k."""
        routes = self._sources.get([source])[0][-1]
        return orjson.loads(routes[reached])

    def local(self, event_ms: int) -> str:
        """Return an event time as alert records write it."""
        second, ms = divmod(event_ms, 1000)
        return (self._clock.at(second)[0] + _MS[ms] + self._clock.suffix).decode()

    def encode(self, transitions: Array) -> list[bytes]:
        """Return one JSON object for each of (T,) TRANSITION."""
        return self.write(transitions)[1]

    def write(self, transitions: Array) -> tuple[list[bytes], list[bytes]]:
        """Return the id of each transition's source, in UTF-8, and its record: a JSON object."""
        if not len(transitions):
            return [], []
        seconds, ms = np.divmod(transitions["event_ms"], 1000)
        sources, origins = self._sources_and_origins(transitions)
        columns = zip(
            sources,
            origins,
            self._parts(transitions["contributor"]),
            seconds.tolist(),
            ms.tolist(),
            *(numbers(transitions[name]) for name in ("event_ms", "episode_ms", "seq")),
            *(transitions[name].tolist() for name in _FIELDS),
            strict=True,
        )
        return [source[0] for source in sources], [self._record(*fields) for fields in columns]

    def _sources_and_origins(self, transitions: Array) -> tuple[list[Source], list[Source | None]]:
        """Return the source of each transition, and the one whose influence it names, if any."""
        origin = transitions["coupled_from"]
        coupled = (origin >= 0) & (transitions["coupled_percent"] >= LEAST_PERCENT)
        indices = transitions["source"].tolist()
        found = self._sources.get(indices + origin[coupled].tolist())
        origins: list[Source | None] = [None] * len(indices)
        for at, one in zip(np.flatnonzero(coupled).tolist(), found[len(indices) :], strict=True):
            origins[at] = one
        return found[: len(indices)], origins

    def _record(
        self,
        source: Source,
        origin: Source | None,
        parts: list[Part],
        second: int,
        ms: int,
        event_ms: bytes,
        episode_ms: bytes,
        seq: bytes,
        score: float,
        factor: float,
        influence: float,
        rule: int,
        kind: int,
        level_from: int,
        level: int,
        standing: int,
        cause: int,
        late: int,
        reached: int,
    ) -> bytes:
        """Return one alert record; the last arguments are fields of TRANSITION."""
        _, named, who, about, answers, routes = source
        stamp, moment = self._clock.at(second)
        points, rounded = _score(score)
        reasons = []
        if parts and kind != CLEAR:
            least = parts[0][2]
            reasons = [reason for _, reason, share in parts if share * LEAST_SHARE >= least]
        if cause == BY_RULE:
            reasons.insert(0, "rule “%s”".encode() % self._rules[rule])
        coupled = b"null"
        if origin is not None:
            coupled = b'{"source":"%b","influence":%.1f}' % (origin[1], influence)
            if kind != CLEAR:
                reasons.append(b"influenced by " + origin[1])
        # fmt: off
        return b"".join((
            b'{"alert_id":"', named, b"@", episode_ms, b'","seq":', seq,
            _LEVELS[kind][level_from][level], _STANDING[standing] if standing > level else b"",
            points, b',"event_ms":', event_ms,
            b',"time":"', stamp, _MS[ms], self._late[late], episode_ms, about,
            self._because(cause, rule, factor), b",".join([shown for shown, _, _ in parts]),
            b'],"coupled_from":', coupled, answers, routes[reached], self._digest,
            who, _BEGINNINGS[cause][kind][standing], moment, rounded,
            b": " if reasons else b"", b"; ".join(reasons), b'."}',
        ))
        # fmt: on

    def _because(self, cause: int, rule: int, factor: float) -> bytes:
        """Return the members from ``cause`` to ``contributors``; few are different."""
        key = (cause, rule, factor)
        found = self._causes.get(key)
        if found is None:
            if len(self._causes) > MOST_CAUSES:
                self._causes.clear()
            name = b'"%b"' % self._rules[rule] if rule >= 0 else b"null"
            shown = orjson.dumps(round(factor, 4))
            found = self._causes[key] = b',"cause":"%b","rule":%b,"factor":%b,"contributors":[' % (
                CAUSE_NAMES[cause].encode(),
                name,
                shown,
            )
        return found

    def _parts(self, contributors: Array) -> list[list[Part]]:
        """Return the contributors of each transition; (T, 3) CONTRIBUTOR."""
        there = contributors["sensor"] >= 0
        flat = contributors[there]
        sensors = self._sensors.get(flat["sensor"].tolist())
        rows = [row for _, _, row, _ in sensors]
        signal = (flat[name].tolist() for name in ("kind", "level", "window"))
        measures = self._measures.get(zip(rows, *signal, strict=True))
        value, is_known, upper, other = _judged(
            flat["value"], np.array([measure.numbers for measure in measures]).reshape(-1, 5)
        )
        parts = []
        for (head, what, _, silent), measure, percent, shown, number, known, above, turned in zip(
            sensors,
            measures,
            flat["percent"].tolist(),
            numbers(value),
            value.tolist(),
            is_known.tolist(),
            upper.tolist(),
            other.tolist(),
            strict=True,
        ):
            limit = measure.high if above else measure.low
            pieces = (head, measure.detector, shown, b',"limit":',
                      silent if measure.is_absence else limit.shown,
                      measure.level, _signal(percent), measure.tail)  # fmt: skip
            phrase = limit.other if turned else limit.usual
            told = phrase.tell(what, number if known else None)
            parts.append((b"".join(pieces), told.encode(), percent))
        ordered = iter(parts)
        return [list(islice(ordered, n)) for n in there.sum(axis=1).tolist()]


def _judged(value: Array, measured: Array) -> tuple[Array, Array, Array, Array]:
    """Return values as float32, which are known, the nearer limit, and which phrase tells them.

    ``measured`` is (N, 5), `Measure.numbers`. Sides are judged in float32, as numbers are shown.
    """
    scale, low, high, other_side, of_zero = measured.T
    value = value * scale
    with np.errstate(over="ignore", invalid="ignore"):
        upper = np.isnan(low) | (np.abs(value - high) <= np.abs(value - low))
        limit = np.where(of_zero, 0.0, np.where(upper, high, low)).astype(np.float32)
        shown = value.astype(np.float32)
    side = np.where(shown > limit, 1, 0) - (shown < limit)
    is_known = np.isfinite(value)
    return shown, is_known, upper, is_known & (side == other_side)

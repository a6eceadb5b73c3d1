"""Solve: deadbands, delays and limits that give operators few enough alarms, and find in time.

From the given rules the search turns one knob after the other, and several at once where that is
better, to whatever it gains most by; then it turns back all that need not have been turned. It is
the same from run to run.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.past import Judged, Past, judge
from engine.analysis.steps import Tried
from engine.analysis.sweep import Sweep
from engine.analysis.tuning.asked import what_is_asked
from engine.analysis.tuning.choice import Choice, choose, compared
from engine.analysis.tuning.chosen import need_tomlkit
from engine.analysis.tuning.folder import FORMAT, RULES, SETTINGS, STUDY, Folder
from engine.analysis.tuning.knobs import KINDS, Knobs
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.objective import Aim
from engine.analysis.tuning.settings import Values
from engine.analysis.tuning.study import begun
from engine.analysis.tuning.trials import BASELINE, NO_BATCH, Standing, Trials
from engine.analysis.tuning.trying import Interrupted, Progress, Trying
from engine.rules import Rules
from engine.truth import Incident
from kernels.layout import ESCALATE, KIND_NAMES, RAISE, STEP

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
RATE = "busiest_per_10min"
DELAYS = "delays_s"
NEAREST = "nearest.toml"
"""The rules that come nearest, where none meet the goal: not to be taken for a solution."""
_MOST_ROUNDS = 40
_PAIRED = 40
"""Moves that are tried in pairs where none helps by itself."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is asked for."""

    max_rate: float = 1.0
    """Alarms in 10 min of the busiest operator, on average."""
    max_delay_s: float | None = None
    """No incident may be found later; None: but found."""

    @property
    def within_s(self) -> float:
        """The greatest delay that will do; a missed incident has an endless one."""
        return 1e300 if self.max_delay_s is None else self.max_delay_s

    def __str__(self) -> str:
        late = "missed" if self.max_delay_s is None else f"found later than {self.max_delay_s:g} s"
        return f"at most {self.max_rate:g} alarms an operator in 10 min, no incident {late}"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The figures of a replay under the final rules, and what it was that alarmed."""

    figures: dict[str, Any]
    incidents: list[Incident]
    """Those that begin within the history."""
    delays_s: Array
    """(incidents,) inf where one was missed"""
    causes: list[tuple[str, int]]
    """Profile and detector of the strongest contributor, with the alarms that it led."""


@dataclass(kw_only=True)
class Solution:
    """What the search came to."""

    goal: Goal
    trials: Trials
    incidents: list[Incident] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    """The figures of the given rules."""
    given_delays_s: Array = field(default_factory=lambda: np.zeros(0))
    best_delays_s: Array = field(default_factory=lambda: np.zeros(0))
    """(incidents,) the least delay of any setting that was tried"""
    choice: Choice | None = None
    proof: Proof | None = None
    interrupted: bool = False
    level: str = "yellow"
    notes: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether the final rules give all that was asked for."""
        return self.proof is not None and self.meets(self.proof.figures, self.proof.delays_s)

    def given_and_now(self) -> tuple[Array, Array]:
        """Return the delays of the incidents under the given rules, and under the final ones."""
        assert self.proof is not None
        return self.given_delays_s, self.proof.delays_s

    def meets(self, figures: dict[str, Any], delays_s: Array) -> bool:
        """Tell whether figures give what was asked for."""
        late = bool((delays_s > self.goal.within_s).any())
        return figures[RATE] <= self.goal.max_rate and not late

    def as_dict(self) -> dict[str, Any]:
        """Return what came out as plain JSON values."""
        return {
            "solve": {"max_rate": self.goal.max_rate, "max_delay_s": self.goal.max_delay_s},
            "met": self.met,
            "interrupted": self.interrupted,
            "settings": len(self.trials),
            "given": self.given,
            "figures": None if self.proof is None else self.proof.figures,
            "changes": []
            if self.choice is None
            else self.choice.as_dict(self.trials.settings)["changes"],
            "late": [
                {
                    "source": incident.source,
                    "kind": incident.kind,
                    "start_ms": incident.start_ms,
                    "delay_s": delay if math.isfinite(delay) else None,
                    "best_delay_s": best if math.isfinite(best) else None,
                }
                for incident, delay, best in self.late()
            ],
            "causes": {} if self.proof is None else dict(self.proof.causes),
        }

    def late(self) -> list[tuple[Incident, float, float]]:
        """Return the incidents found too late or not at all, with their delay, and the least delay
        of anything that was tried."""
        delays_s = np.zeros(0) if self.proof is None else self.proof.delays_s
        return [
            (incident, float(delay), float(best))
            for incident, delay, best in zip(
                self.incidents, delays_s, self.best_delays_s, strict=self.proof is not None
            )
            if delay > self.goal.within_s
        ]


class _Measured:
    """Adds each incident's delay to the figures."""

    def __init__(self, measure: Yardstick) -> None:
        self._measure = measure

    def __call__(self, tried: Tried) -> pa.Table:
        import pyarrow as pa

        delays = self._measure.delays_s(tried)
        table = self._measure(tried)
        table = table.append_column(DELAYS, pa.array(delays.tolist(), pa.list_(pa.float64())))
        return table


def solve(
    past: Past,
    rules: Rules,
    measure: Yardstick,
    goal: Goal,
    *,
    kinds: Sequence[str] = KINDS,
    about: dict[str, Any] | None = None,
    folder: Path | None = None,
    threads: int = 2,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Solution:
    """Find rules that reach a goal by turning the knobs of the profiles' limits.

    `kinds` are the knobs that may be turned, `about` is what else the figures rest on. With a
    `folder` every setting that was tried is kept there, and the same call goes on. Raises what is
    wrong with the readings, the rules or the folder.
    """
    need_tomlkit()
    knobs = Knobs(rules, past.catalog, kinds)
    about = {"method": "solve", "level": measure.level} | (about or {})
    asked = what_is_asked(past, rules, knobs.settings.space, about, measure.asked())
    place = None if folder is None else Folder(folder)
    with nullcontext() if place is None else place.held(), Sweep(past, threads=threads) as sweep:
        trials = Trials(knobs.settings) if place is None else begun(place, knobs.settings, asked)
        trying = Trying(
            sweep,
            knobs.settings,
            _Measured(measure),
            trials,
            flush=lambda: None if place is None else place.write_table(SETTINGS, trials.table()),
            on_progress=on_progress,
            stopped=stopped,
        )
        search = _Descent(knobs, trying, goal)
        solution = Solution(goal=goal, trials=trials, level=measure.asked_level)
        try:
            trying.take([knobs.settings.baseline], BASELINE, NO_BATCH)
            search.run()
        except Interrupted:
            solution.interrupted = True
        if len(trials):
            solution.given = trials.figures().slice(0, 1).to_pylist()[0]
            solution.given_delays_s = delays_of(trials)[0]
            solution.best_delays_s = np.min(delays_of(trials), axis=0)
        if not solution.interrupted:
            solution.choice = _chosen(knobs, trials, search.at, solution)
            solution.proof = prove(past, solution.choice.rules, measure)
            solution.incidents = solution.proof.incidents
        if place is not None:
            write(solution, place, asked)
    return solution


class _Descent:
    """Turns knobs while that helps, then back what can be turned back."""

    def __init__(self, knobs: Knobs, trying: Trying, goal: Goal) -> None:
        self.knobs, self.trying, self.trials, self.goal = knobs, trying, trying.trials, goal
        self.at = knobs.settings.baseline

    def run(self) -> None:
        """Turn until the goal is reached or nothing helps."""
        if self._any_late():
            # which incidents can be found in time at all
            moves = [values for _, values in self.knobs.moves(self.at)]
            self._take([*moves, *self.knobs.keenest(self.at)], 0)
        for number in range(_MOST_ROUNDS):
            better = self._better(number)
            if better is None:
                break
            self.at = better
        for number in range(_MOST_ROUNDS):
            nearer = self._nearer(number)
            if nearer is None:
                break
            self.at = nearer
        self._take(self._reverted(), _MOST_ROUNDS)

    def _any_late(self) -> bool:
        return bool((self._all()[1][0] > self.goal.within_s).any())

    def _take(self, values: Sequence[Values], number: int) -> list[Values]:
        """Try settings; return those that the rules did not refuse."""
        pending = [each for each in dict.fromkeys(values) if each not in self.trials]
        self.trying.total = len(self.trials) + len(pending)
        self.trying.take(pending, "solve", number)
        rows = {each: self.trials.row_of(each) for each in dict.fromkeys(values)}
        return [
            each
            for each, row in rows.items()
            if row is not None and self.trials.refused[row] is None
        ]

    def _better(self, number: int) -> Values | None:
        """Return the settings to go on with; None if the goal is reached, or nothing is better."""
        here = self.lack(self.at)
        if not any(here):
            return None
        tried = self._take([values for _, values in self.knobs.moves(self.at)], number)
        moves = [each for each in tried if self.lack(each) < self.lack(self.at)]
        if not moves:
            return self._pair(tried, number)
        moves.sort(key=self._merit)
        # what helps in one profile helps beside what helps in another
        of_profile: dict[str, Values] = {}
        for each in moves:
            turned = next(n for n, v in enumerate(each) if v != self.at[n])
            of_profile.setdefault(self.knobs.knobs[turned].profile, each)
        firsts = list(of_profile.values())
        joined = [self.knobs.joined(self.at, firsts[: n + 2]) for n in range(len(firsts) - 1)]
        candidates = [*moves[:1], *self._take(joined, number)]
        candidates = [each for each in candidates if self.lack(each) < self.lack(self.at)]
        reached = [each for each in candidates if not any(self.lack(each))]
        if reached:
            return min(reached, key=self.knobs.cost)
        return min(candidates, key=lambda each: (self.lack(each), self.knobs.cost(each)))

    def _pair(self, tried: Sequence[Values], number: int) -> Values | None:
        """Return the best two knobs to turn together where none alone helps; None if none do."""
        firsts = sorted(tried, key=lambda each: (self.lack(each), self.knobs.cost(each)))[:_PAIRED]
        pairs = [self.knobs.joined(self.at, each) for each in itertools.combinations(firsts, 2)]
        better = [e for e in self._take(pairs, number) if self.lack(e) < self.lack(self.at)]
        return min(better, key=self._merit, default=None)

    def _merit(self, values: Values) -> tuple[Any, ...]:
        """Order moves: those that reach the goal, what they find in time, what a gain costs."""
        late_n, late_s, over = self.lack(values)
        spent = max(self.knobs.cost(values) - self.knobs.cost(self.at), 0.5)
        gain = (self.lack(self.at)[2] - over) / spent
        reached = not any((late_n, late_s, over))
        return (not reached, spent if reached else 0.0, late_n, late_s, -gain, spent)

    def _nearer(self, number: int) -> Values | None:
        """Return settings nearer to the given rules that are as good; None if there are none."""
        found = self._take(list(self.knobs.back(self.at)), _MOST_ROUNDS + number)
        kept = [each for each in found if self.lack(each) <= self.lack(self.at)]
        return min(kept, key=lambda each: (self.knobs.cost(each), self.lack(each)), default=None)

    def _reverted(self) -> list[Values]:
        """Return the final settings without each of their changes: what it is worth."""
        home = self.knobs.settings.baseline
        return [
            tuple(home[n] if n == changed else value for n, value in enumerate(self.at))
            for changed in self.knobs.settings.changed(self.at)
        ]

    def lack(self, values: Values) -> tuple[int, float, float]:
        """Return what settings lack: incidents too late, by how much, and alarms too many.

        Incidents that nothing tried so far finds in time do not count.
        """
        figures, delays, best = self._all()
        row = self.trials.row_of(values)
        within = self.goal.within_s
        over_s = np.minimum(np.maximum(delays[row] - within, 0.0), 1e9)[best <= within]
        late = over_s > 0
        over = max(0.0, float(figures[row]) - self.goal.max_rate)
        return int(late.sum()), float(over_s.sum()), over

    def _all(self) -> tuple[Array, Array, Array]:
        n = len(self.trials)
        if getattr(self, "_known_n", None) != n:
            self._known_n = n
            delays = delays_of(self.trials)
            best = np.min(delays, axis=0, initial=np.inf)
            self._known = self.trials.numeric()[RATE], delays, best
        return self._known


def delays_of(trials: Trials) -> Array:
    """Return (settings, incidents) delays; inf in rows of settings that were refused."""
    lists = trials.figures()[DELAYS].to_pylist()
    width = max((len(each) for each in lists if each is not None), default=0)
    return np.array(
        [[math.inf] * width if each is None else each for each in lists], np.float64
    ).reshape(len(lists), width)


def _chosen(knobs: Knobs, trials: Trials, values: Values, solution: Solution) -> Choice:
    goal, level = solution.goal, solution.level
    of_found = [f"min missed_{level}", f"min delay_worst_s_{level}"]
    of_found = [text for text in of_found if text.split()[1] in solution.given]
    aim = Aim.parse([f"min {RATE}", *of_found], [f"{RATE} <= {goal.max_rate}"])
    row = trials.row_of(values)
    assert row is not None
    figures = trials.figures().slice(row, 1).to_pylist()[0]
    met = solution.meets(figures, delays_of(trials)[row])
    standing = Standing(trials, aim)
    reason = f"{'meets' if met else 'DOES NOT MEET'} what was asked for: {goal}"
    told = ", ".join(text for text, _ in compared(trials, aim, 0, row))
    head = [f"Solved by tocsin tune --solve: {reason}.", f"Before and after: {told}."]
    return choose(knobs.settings, trials, standing, row, reason=reason, head=head)


def write(solution: Solution, place: Folder, asked: dict[str, Any]) -> None:
    """Write the rules, and how they stand; those that don't meet the goal under another name."""
    name, other = (RULES, NEAREST) if solution.met else (NEAREST, RULES)
    place.remove(other)
    if solution.choice is not None:
        place.write(name, solution.choice.text.encode())
    state = "interrupted" if solution.interrupted else "complete"
    place.write_json(
        STUDY, {"format": FORMAT, "asked": asked, "state": state, **solution.as_dict()}
    )


def prove(past: Past, rules: Rules, measure: Yardstick) -> Proof:
    """Replay a history under rules as the engine does, and measure what came out."""
    judged = judge(past, rules)
    tried = tried_of(judged)
    return Proof(
        figures=measure(tried).to_pylist()[0],
        incidents=measure.judged(tried),
        delays_s=measure.delays_s(tried)[0],
        causes=causes_of(judged),
    )


def causes_of(judged: Judged) -> list[tuple[str, int]]:
    """Return what led the alarms, and how many each: profile and detector, or couplings."""
    transitions = judged.transitions
    alarms = transitions[(transitions["kind"] == RAISE) | (transitions["kind"] == ESCALATE)]
    first = alarms["contributor"][:, 0]
    counts: Counter[str] = Counter()
    for sensor, kind in zip(first["sensor"].tolist(), first["kind"].tolist(), strict=True):
        if sensor < 0 or kind >= len(KIND_NAMES):
            counts["couplings or rules"] += 1
            continue
        profile = judged.plan.profile_of_row[int(judged.plan.row[sensor])]
        counts[f"{profile or 'no profile'}: {KIND_NAMES[kind]}"] += 1
    return counts.most_common()


def tried_of(judged: Judged) -> Tried:
    """Return one history as the only setting of several."""
    return Tried(
        n=1,
        common=np.zeros(0, STEP),
        own=judged.steps,
        starts=np.array([0, len(judged.steps)], np.int64),
        first_ms=judged.first_ms,
        last_ms=judged.last_ms,
        n_readings=judged.n_readings,
    )

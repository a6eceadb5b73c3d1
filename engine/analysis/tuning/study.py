"""A study: settings of a space tried over one history, judged, and the best of them chosen.

`tune(past, rules, space)` is what `tocsin tune` runs; engine/TUNING.md says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.past import Past
from engine.analysis.sweep import Sweep
from engine.analysis.tuning.asked import what_is_asked
from engine.analysis.tuning.choice import Choice, choose
from engine.analysis.tuning.chosen import need_tomlkit
from engine.analysis.tuning.folder import FORMAT, FRONT, RULES, SETTINGS, STUDY, Folder
from engine.analysis.tuning.measure import Yardstick
from engine.analysis.tuning.objective import WORST, Aim
from engine.analysis.tuning.search import Adaptive, Search, Told, search_for
from engine.analysis.tuning.settings import Settings, Values
from engine.analysis.tuning.space import Space, rounded
from engine.analysis.tuning.trials import BASELINE, NO_BATCH, REVERTED, Standing, Trials
from engine.analysis.tuning.trying import Interrupted, Progress, Trying
from engine.catalog import Catalog
from engine.errors import SettingsError
from engine.rules import Rules
from engine.rules_base import Path
from engine.rules_check import dotted

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_ROUNDS = 50


@dataclass(kw_only=True)
class Study:
    """What a study found."""

    settings: Settings
    aim: Aim
    trials: Trials
    search: Search
    balance: bool = False
    """Whether the best is what is nearest to the best of every objective, not by their order."""
    interrupted: bool = False
    folder: FilePath | None = None
    n_new: int = 0
    """Settings that were tried now; the others were kept from before."""
    n_readings: int = 0
    """Of the history; 0 where nothing was tried anew."""
    first_ms: int | None = None
    last_ms: int | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def standing(self) -> Standing:
        """How the settings stand."""
        return Standing(self.trials, self.aim, balance=self.balance)

    @cached_property
    def chosen(self) -> Choice | None:
        """The chosen setting; None if none keeps to the requirements, or there was no time."""
        best = self.standing.best
        if best is None or self.interrupted:
            return None
        return choose(self.settings, self.trials, self.standing, best)

    def table(self) -> pa.Table:
        """Return one row for each setting, the given rules first."""
        return self.trials.table(self.standing.marks())

    def front(self) -> pa.Table:
        """Return the settings that no other betters in every objective, the best first."""
        return self.table().take(np.array(list(self.standing.front_rows()), np.int64))

    def figures(self, setting: int) -> dict[str, Any]:
        """Return the figures of one setting."""
        return self.trials.figures().slice(setting, 1).to_pylist()[0]

    def as_dict(self) -> dict[str, Any]:
        """Return what came out as plain JSON values."""
        standing = self.standing
        chosen = self.chosen
        return {
            "search": self.search.method,
            "objectives": [str(each) for each in self.aim.objectives],
            "requirements": [str(each) for each in self.aim.requirements],
            "choose": "balance" if self.balance else "order",
            "interrupted": self.interrupted,
            "settings": len(self.trials),
            "refused": [
                {"key": key, "settings": n, "reason": reason}
                for key, n, reason in self.trials.reasons()
            ],
            "feasible": int(standing.feasible.sum()),
            "front": list(standing.front_rows()),
            "baseline": {"setting": 0, "figures": self.figures(0)},
            "chosen": None if chosen is None else chosen.as_dict(self.settings),
            "nearest": standing.nearest if standing.best is None else None,
            "notes": self.notes,
        }


def tune(
    past: Past,
    rules: Rules,
    space: Space,
    *,
    measure: Yardstick | None = None,
    objectives: Sequence[str] = (),
    requirements: Sequence[str] = (),
    balance: bool = False,
    method: str | None = None,
    n: int | None = None,
    seed: int | None = None,
    folder: FilePath | str | None = None,
    threads: int = 2,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Study:
    """Try the settings of a space over a history and choose the best.

    `method` (grid, random, adaptive), `n` settings and `seed` are the space's own unless given.
    With a `folder` everything is kept there, and the same call goes on where it was interrupted.
    Raises what is wrong with the readings, the rules, the space, or the folder.
    """
    need_tomlkit()
    settings = Settings(space, rules, past.catalog)
    seed = space.search.seed if seed is None else seed
    n = space.search.settings if n is None else n
    search = search_for(settings, method or space.search.method, n, seed)
    measure = Yardstick(catalog=past.catalog) if measure is None else measure
    aim = Aim.parse(objectives or measure.default_objectives(), requirements)
    asked = what_is_asked(past, rules, space, _about(search, aim, seed), measure.asked())
    place = None if folder is None else Folder(FilePath(folder))
    with nullcontext() if place is None else place.held():
        trials = Trials(settings)
        if place is not None:
            trials = begun(place, settings, asked)
        study = Study(
            settings=settings,
            aim=aim,
            trials=trials,
            search=search,
            balance=balance,
            folder=None if place is None else place.path,
            notes=_notes(past.catalog, settings),
        )
        n_kept = len(trials)
        try:
            with Sweep(past, threads=threads) as sweep:
                trying = Trying(
                    sweep,
                    settings,
                    measure,
                    trials,
                    flush=lambda: None if place is None else _keep(place, trials),
                    on_progress=on_progress,
                    stopped=stopped,
                )
                try:
                    _run(study, trying, truth=measure.incidents is not None)
                finally:
                    _note_history(study, trying)
        except Interrupted:
            study.interrupted = True
        finally:
            study.n_new = int(trials.accepted()[n_kept:].sum())
        if len(trials):
            study.aim.check(list(trials.numeric()), truth=measure.incidents is not None)
            _finish(study, place, asked)
    return study


def _about(search: Search, aim: Aim, seed: int) -> dict[str, Any]:
    """Return what the search itself rests on: another aim needs no new evaluation otherwise."""
    if isinstance(search, Adaptive):
        return {
            "method": search.method,
            "seed": seed,
            "objectives": [str(each) for each in aim.objectives],
            "requirements": [str(each) for each in aim.requirements],
            "optuna": search.version,
        }
    return {"method": search.method} | ({} if search.method == "grid" else {"seed": seed})


def begun(place: Folder, settings: Settings, asked: dict[str, Any]) -> Trials:
    """Return what was tried in a folder before; nothing if it is new."""
    kept = place.settings() if place.check(asked) else None
    if kept is not None:
        return Trials.of_table(settings, kept)
    place.write_json(STUDY, {"format": FORMAT, "asked": asked, "state": "running"})
    return Trials(settings)


def _note_history(study: Study, trying: Trying) -> None:
    tried = trying.newest
    if tried is not None:
        study.n_readings = tried.n_readings
        study.first_ms, study.last_ms = tried.first_ms, tried.last_ms


def _keep(place: Folder, trials: Trials) -> None:
    place.write_table(SETTINGS, trials.table())


def _run(study: Study, trying: Trying, *, truth: bool) -> None:
    """Try the given rules, what the search proposes, and what may be spared of the best."""
    trials, search = study.trials, study.search
    trying.total = search.n + 1
    trying.take([study.settings.baseline], BASELINE, NO_BATCH)
    study.aim.check(list(trials.numeric()), truth=truth)
    number = 0
    while True:
        told, n_before = _told(study, number)
        batch = search.batch(number, told, search.n - n_before)
        if not batch:
            break
        trying.take(batch, search.method, number)
        number += 1
    _spare(study, trying)


def _told(study: Study, number: int) -> tuple[list[Told], int]:
    """Return what the batches before one gave, and how many settings they had."""
    trials, method = study.trials, study.search.method
    before = [
        row
        for row in range(len(trials))
        if trials.origin[row] == BASELINE
        or (trials.origin[row] == method and trials.batch[row] < number)
    ]
    n_proposed = sum(trials.origin[row] == method for row in before)
    if method != "adaptive":
        return [], n_proposed
    costs = np.minimum(
        np.where(trials.accepted()[:, None], study.aim.costs(trials.numeric()), WORST), WORST
    )
    told = [Told(values=trials.values[row], costs=tuple(costs[row].tolist())) for row in before]
    return told, n_proposed


def _spare(study: Study, trying: Trying) -> None:
    """Try the best setting without each of its changes, and with rounder ones, until none helps.

    It shows what every change is worth, and drops those that are worth nothing.
    """
    settings, trials = study.settings, study.trials
    for _ in range(_MOST_ROUNDS):
        best = Standing(trials, study.aim, balance=study.balance).best
        if best is None:
            return
        plainer = list(_plainer(settings, trials.values[best]))
        pending = [each for each in plainer if each not in trials]
        if not pending:
            return
        trying.total = len(trials) + len(pending)
        trying.take(pending, REVERTED, NO_BATCH)


def _plainer(settings: Settings, values: Values) -> Iterator[Values]:
    """Yield a setting without each of its changes, then with fewer digits where it was drawn."""
    changed = settings.changed(values)
    for number in changed:
        yield _with(values, number, settings.parameters[number].baseline)
    for number in changed:
        parameter, value = settings.parameters[number], values[number]
        if parameter.choices is None:
            for digits in (1, 2, 3):
                rounder = rounded(value, digits)
                if parameter.low <= rounder <= parameter.high and rounder != value:
                    yield _with(values, number, rounder)


def _with(values: Values, number: int, value: float) -> Values:
    return (*values[:number], value, *values[number + 1 :])


def _finish(study: Study, place: Folder | None, asked: dict[str, Any]) -> None:
    if study.trials.accepted().sum() == 1 and len(study.trials) > 1 and not study.interrupted:
        reasons = "; ".join(reason for _, _, reason in study.trials.reasons()[:3])
        raise SettingsError(
            f"{study.settings.space.file}: the rules refuse every setting of the space: {reasons}"
        )
    if place is None:
        return
    place.write_table(SETTINGS, study.table())
    place.write_table(FRONT, study.front())
    if study.chosen is None:
        # rules of an older, other choice must not be taken for this one's
        place.remove(RULES)
    else:
        place.write(RULES, study.chosen.text.encode())
    state = "interrupted" if study.interrupted else "complete"
    place.write_json(STUDY, {"format": FORMAT, "asked": asked, "state": state, **study.as_dict()})


def _notes(catalog: Catalog, settings: Settings) -> list[str]:
    """Return what the space names and the catalog does not have, so that it moves nothing."""
    notes = []
    for parameter in settings.parameters:
        for path in parameter.paths:
            problem = _idle(catalog, settings.rules, path)
            if problem is not None:
                notes.append(f"{dotted(path)} moves nothing: {problem}")
    return list(dict.fromkeys(notes))


def _idle(catalog: Catalog, rules: Rules, path: Path) -> str | None:
    name = str(path[2]) if len(path) > 2 else ""
    if path[0] == "profiles":
        quantity = rules.profiles[str(path[1])].quantity
        if quantity not in catalog.quantities:
            return f"the catalog has no quantity {quantity!r}"
    elif name == "default":
        return None
    elif path[:2] == ("fusion", "weights") and name not in catalog.quantities:
        return f"the catalog has no quantity {name!r}"
    elif path[:2] == ("fusion", "categories") and name not in catalog.categories:
        return f"the catalog has no category {name!r}"
    elif path[:2] == ("coupling", "influence") and name not in catalog.coupling_kinds:
        return f"the catalog has no kind of coupling {name!r}"
    return None

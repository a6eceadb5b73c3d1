"""The analyst's functions, for notebooks: everything comes as Arrow tables; API.md is the page.

    import engine.api as tocsin

    past = tocsin.past("city.catalog", "readings/")
    replayed = tocsin.replay(past, "rules.toml")
    replayed.alerts()  # a pyarrow.Table: polars.from_arrow, duckdb.sql and to_pandas take it

Where rules are asked for, a file's path, TOML text or `Rules` will do; where a truth is, a file's
path or incidents. A time is ISO 8601, epoch milliseconds or a `datetime`; without a zone of its own
it is in the adapter's, UTC unless it says otherwise. What is wrong with an input is raised as
`TocsinError`, with all its faults; what is wrong with a call as ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalog_build
from engine.analysis import strips
from engine.analysis.bounds import Bounds
from engine.analysis.operators import By
from engine.analysis.past import Past, judge
from engine.analysis.results import given, listed
from engine.analysis.results.given import RulesLike, TruthLike, When
from engine.analysis.results.replayed import Replayed, Scored
from engine.analysis.results.shown import text, write
from engine.analysis.results.swept import Swept
from engine.analysis.results.traced import Traced
from engine.errors import TocsinError
from engine.rules import Rules
from engine.truth import LEVELS, Incident

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.analysis.diffs.diff import Diff
    from engine.analysis.explaining.explain import Explanation
    from engine.analysis.reports import Report, StudyReport
    from engine.analysis.results.solved import Solved
    from engine.analysis.rule_tests.results import Results
    from engine.analysis.tuning.measure import Yardstick
    from engine.analysis.tuning.space import Space
    from engine.analysis.tuning.study import Study

__all__ = [
    "Bounds",
    "Incident",
    "Past",
    "Replayed",
    "Rules",
    "Scored",
    "Swept",
    "TocsinError",
    "Traced",
    "build_catalog",
    "changed",
    "diff",
    "explain",
    "incidents",
    "past",
    "readings",
    "replay",
    "report",
    "rules",
    "run_tests",
    "sensors",
    "solve",
    "sources",
    "study_report",
    "sweep",
    "text",
    "trace",
    "tune",
    "write",
]

OnProgress = Callable[[float], None]
"""Is told the share that is done, 0 to 1."""


# --- what there is -------------------------------------------------------------------------------


def build_catalog(
    folder: Path | str, output: Path | str, *, partitions: int | None = None
) -> catalog_build.BuildReport:
    """Compile a folder of sources, sensors and couplings into one catalog file."""
    return catalog_build.build_catalog(Path(folder), Path(output), partitions)


def past(
    catalog: Path | str,
    readings: Path | str | Sequence[Path | str],
    *,
    adapter: Path | str | None = None,
    since: When | None = None,
    until: When | None = None,
    sort: bool = False,
) -> Past:
    """Open a history: a compiled catalog, and files or folders of readings in `[since, until)`."""
    opened = Past.open(catalog, readings, adapter=adapter, sort=sort)
    return replace(opened, span=given.span(opened, since, until))


def rules(toml: RulesLike) -> Rules:
    """Return the rules of a file, or of TOML text, which has more than one line."""
    return given.rules_of(toml)


def changed(rules: RulesLike, changes: Mapping[str, float]) -> Rules:
    """Return rules with other numbers at some keys: `{"profiles.methane.limits.deadband": 3}`.

    Keys are those of engine/TUNING.md, `*` included. The text of the rules changes with them, with
    a comment at each number. Raises SettingsError for keys that the rules do not have, RulesError
    for numbers that they refuse. Needs the extra `tune`.
    """
    return given.changed_rules(rules, changes)


def incidents(truth: TruthLike, rules: RulesLike | None = None) -> list[Incident]:
    """Return the incidents of a truth file; times without a zone are those of the rules' site."""
    return given.incidents_of(truth, None if rules is None else given.rules_of(rules))


def sources(past: Past) -> pa.Table:
    """Return the catalog's sources, one row each."""
    return listed.source_table(past.catalog)


def sensors(past: Past) -> pa.Table:
    """Return the catalog's sensors, one row each."""
    return listed.sensor_table(past.catalog)


def readings(
    past: Past,
    sensors: Iterable[str] | str | None = None,
    since: When | None = None,
    until: When | None = None,
) -> pa.Table:
    """Return readings of some sensors, or of all, as they are in the files and in their order.

    Values are in the sensor's own unit. Readings of sensors that the catalog does not have are left
    out. Raises InputError for a sensor that it does not have.
    """
    names = [sensors] if isinstance(sensors, str) else sensors
    chosen = None if names is None else listed.sensor_indices(past.catalog, names)
    return listed.reading_table(past, chosen, given.span(past, since, until))


# --- what rules make of it -----------------------------------------------------------------------


def replay(
    past: Past, rules: RulesLike, *, threads: int = 1, on_progress: OnProgress | None = None
) -> Replayed:
    """Run a history through the engine under some rules."""
    ruled = given.rules_of(rules)
    judged = judge(past, ruled, threads=threads, on_progress=on_progress)
    return Replayed(past=past, rules=ruled, judged=judged)


def trace(past: Past, rules: RulesLike, source: str, since: When, until: When) -> Traced:
    """Follow the engine through one source's readings from `since` to `until`, both included."""
    index = listed.source_index(past.catalog, source)
    since_ms, until_ms = given.span(past, since, until)
    assert since_ms is not None and until_ms is not None
    found = strips.trace(past, given.rules_of(rules), [index], since_ms, until_ms)
    return Traced(plan=found.plan, of=found.of(index, since_ms, until_ms))


def sweep(
    past: Past,
    settings: Mapping[str, RulesLike] | Sequence[RulesLike],
    *,
    threads: int = 2,
    on_progress: OnProgress | None = None,
) -> Swept:
    """Run a history under many rule sets at once; exactly what a replay under each would give.

    With a mapping its keys are the settings' names, else the rules' own.
    """
    from engine.analysis.sweep import Sweep

    if isinstance(settings, Mapping):
        names, ruled = list(settings), [given.rules_of(each) for each in settings.values()]
    else:
        ruled = [given.rules_of(each) for each in settings]
        names = [each.name for each in ruled]
    if not ruled:
        raise ValueError("settings: must be one at least, got none")
    with Sweep(past, threads=threads) as once:
        tried = once.try_all(ruled, on_progress=on_progress)
    return Swept(catalog=past.catalog, names=tuple(names), rules=tuple(ruled), tried=tried)


def diff(
    past: Past,
    old: RulesLike,
    new: RulesLike,
    *,
    truth: TruthLike | None = None,
    level: str = "blue",
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> Diff:
    """Set what two rule sets make of one history side by side."""
    from engine.analysis.diffs import diff as diffs

    given.check_word("level", level, LEVELS)
    before, after = given.rules_of(old), given.rules_of(new)
    return diffs.diff(
        past,
        before,
        after,
        truth=None if truth is None else given.incidents_of(truth, after),
        level=level,
        lead_s=lead_s,
        grace_s=grace_s,
        threads=threads,
        on_progress=on_progress,
    )


def explain(
    past: Past,
    rules: RulesLike,
    alert_id: str,
    *,
    truth: TruthLike | None = None,
    level: str = "blue",
    prevent: bool = True,
    effects: bool = True,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> Explanation:
    """Say why an alert was sent, and what would have prevented it; `ID#SEQ` is one of an episode.

    `prevent` looks for what would have, `effects` for what else those changes do.
    """
    from engine.analysis.explaining import explain as explaining

    given.check_word("level", level, LEVELS)
    ruled = given.rules_of(rules)

    def told(what: str, share: float) -> None:
        if on_progress is not None:
            on_progress(share)

    return explaining.explain(
        past,
        ruled,
        alert_id,
        truth=None if truth is None else given.incidents_of(truth, ruled),
        level=level,
        prevent=prevent,
        effects=effects,
        threads=threads,
        on_progress=told,
    )


def run_tests(
    files: Path | str | Sequence[Path | str],
    rules: Path | str | None = None,
    *,
    catalog: Path | str | None = None,
    match: str | None = None,
) -> Results:
    """Run tests of rules, of a folder those in `*_test.toml`; `match` is a part of their names."""
    from engine.analysis.rule_tests.cli import discover
    from engine.analysis.rule_tests.results import run_tests as run

    paths = [files] if isinstance(files, Path | str) else files
    return run(
        discover([Path(each) for each in paths]),
        rules,
        catalog=catalog,
        only=None if match is None else lambda name: match.casefold() in name.casefold(),
    )


# --- better rules --------------------------------------------------------------------------------


def tune(
    past: Past,
    rules: RulesLike,
    space: Space | Path | str,
    *,
    truth: TruthLike | None = None,
    objectives: Sequence[str] = (),
    require: Sequence[str] = (),
    choose: str = "order",
    search: str | None = None,
    settings: int | None = None,
    seed: int | None = None,
    level: str | None = None,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    by: By = "department",
    bounds: Bounds | None = None,
    folder: Path | str | None = None,
    threads: int = 2,
    on_progress: OnProgress | None = None,
) -> Study:
    """Try the settings of a space (a file, TOML text, or a `Space`) and choose the best.

    Words and defaults are those of `tocsin tune`; with a `folder` the study is kept there and the
    same call goes on with it. Needs the extra `tune`.
    """
    from engine.analysis.tuning import space as spaces
    from engine.analysis.tuning.study import tune as run

    given.check_word("choose", choose, ("order", "balance"))
    given.check_word("search", search, spaces.METHODS)
    ruled = given.rules_of(rules)
    if isinstance(space, Path | str):
        is_text = isinstance(space, str) and "\n" in space
        space = spaces.parse(str(space)) if is_text else spaces.load(space)
    return run(
        past,
        ruled,
        space,
        measure=_measure(past, ruled, truth, level, lead_s, grace_s, by, bounds),
        objectives=objectives,
        requirements=require,
        balance=choose == "balance",
        method=search,
        n=settings,
        seed=seed,
        folder=folder,
        threads=threads,
        on_progress=None if on_progress is None else lambda made: on_progress(made.share),
    )


def solve(
    past: Past,
    rules: RulesLike,
    *,
    truth: TruthLike | None = None,
    max_rate: float = 1.0,
    max_delay_s: float | None = None,
    per: str = "profile",
    turn: Sequence[str] = (),
    level: str | None = None,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    by: By = "department",
    bounds: Bounds | None = None,
    folder: Path | str | None = None,
    threads: int = 2,
    on_progress: OnProgress | None = None,
) -> Solved:
    """Find limits, deadbands and delays that keep operators' load, and delays, within bounds.

    Words and defaults are those of `tocsin tune --solve`. Needs the extra `tune`.
    """
    from engine.analysis.results.solved import Solved
    from engine.analysis.tuning import solve as solving
    from engine.analysis.tuning.knobs import KINDS
    from engine.analysis.tuning.solve_sensors import solve_sensors

    given.check_word("per", per, ("profile", "sensor"))
    for kind in turn:
        given.check_word("turn", kind, KINDS)
    given.check_number("max_rate", max_rate)
    given.check_number("max_delay_s", max_delay_s)
    ruled = given.rules_of(rules)
    measure = _measure(past, ruled, truth, level, lead_s, grace_s, by, bounds)
    goal = solving.Goal(max_rate=max_rate, max_delay_s=max_delay_s)
    options: dict[str, Any] = {
        "folder": None if folder is None else Path(folder),
        "threads": threads,
        "on_progress": None if on_progress is None else lambda made: on_progress(made.share),
    }
    if per == "sensor":
        of_sensors = solve_sensors(past, ruled, measure, goal, **options)
        return Solved(solution=of_sensors.solution, of_sensors=of_sensors)
    return Solved(
        solution=solving.solve(past, ruled, measure, goal, kinds=turn or KINDS, **options)
    )


# --- what people read ----------------------------------------------------------------------------


def report(
    replayed: Replayed,
    *,
    truth: TruthLike | None = None,
    by: By = "department",
    strips: int = 24,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    title: str | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Return the page that says what rules made of a history; `write` writes it.

    `strips` is how many episodes get a chart of their readings.
    """
    from engine.analysis.reports import report_of

    return report_of(
        replayed.judged,
        replayed.past,
        truth=None if truth is None else given.incidents_of(truth, replayed.rules),
        by=by,
        n_strips=strips,
        lead_s=lead_s,
        grace_s=grace_s,
        title=title,
        on_progress=on_progress,
    )


def study_report(folder: str | Path, *, title: str | None = None) -> StudyReport:
    """Return the page that says what a study found, from its folder; `write` writes it."""
    from engine.analysis.reports import study_report_of

    return study_report_of(folder, title=title)


def _measure(
    past: Past,
    rules: Rules,
    truth: TruthLike | None,
    level: str | None,
    lead_s: float,
    grace_s: float,
    by: By,
    bounds: Bounds | None,
) -> Yardstick:
    from engine.analysis.tuning.measure import Yardstick

    given.check_word("level", level, LEVELS)
    if level is not None and truth is None:
        raise ValueError("level: needs a truth")
    given.check_number("lead_s", lead_s)
    given.check_number("grace_s", grace_s)
    return Yardstick(
        catalog=past.catalog,
        incidents=None if truth is None else given.incidents_of(truth, rules),
        level=level,
        lead_s=lead_s,
        grace_s=grace_s,
        by=by,
        bounds=Bounds() if bounds is None else bounds,
    )

"""Tests of rules: given these readings, at this time expect this level; RULE_TESTS.md is the page.

    results = run_tests(["rules_test.toml"])
    results.passed, results.table(), results.coverage_table()

The tests run through the live line itself. What of the rules they exercised is noted besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.analysis.rule_tests.file import Loaded, load
from engine.analysis.rule_tests.items import Item, Items, share
from engine.analysis.rule_tests.judge import Verdict, verdicts
from engine.analysis.rule_tests.ready import Ready, prepare
from engine.analysis.rule_tests.run import run
from engine.errors import InputError, TocsinError
from engine.rules import Rules

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test and what came of it."""

    file: str
    name: str
    line: int
    about: str
    verdicts: tuple[Verdict, ...]
    wall_s: float

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def failures(self) -> tuple[Verdict, ...]:
        """What is not as expected."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)


@dataclass(frozen=True, kw_only=True)
class Covered:
    """What the tests of one rules file exercised of it."""

    rules: str
    items: tuple[Item, ...]

    @property
    def reached_percent(self) -> float:
        """How much of the rules some test reached."""
        return share(self.items, "reached")

    @property
    def cleared_percent(self) -> float:
        """How much of what can clear some test saw clear."""
        return share(self.items, "cleared")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What came of the tests of some files."""

    tests: tuple[Outcome, ...]
    coverage: tuple[Covered, ...]
    """By rules file, in the order in which the files named them."""
    wall_s: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return all(test.passed for test in self.tests)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The tests that failed."""
        return tuple(test for test in self.tests if not test.passed)

    @property
    def coverage_percent(self) -> float:
        """How much of all rules files together some test reached."""
        return share([item for covered in self.coverage for item in covered.items], "reached")

    def table(self) -> pa.Table:
        """Return a row for each expectation at each of its times."""
        import pyarrow as pa

        schema = pa.schema(
            [
                ("file", pa.string()), ("test", pa.string()), ("line", pa.int32()),
                ("at_s", pa.float64()), ("passed", pa.bool_()), ("expected", pa.string()),
                ("came", pa.string()), ("readings", pa.list_(pa.string())),
            ]
        )  # fmt: skip
        rows = [
            {
                "file": test.file,
                "test": test.name,
                "line": verdict.line,
                "at_s": verdict.at_ms / 1000,
                "passed": verdict.passed,
                "expected": verdict.expected,
                "came": verdict.came,
                "readings": list(verdict.readings),
            }
            for test in self.tests
            for verdict in test.verdicts
        ]
        return pa.Table.from_pylist(rows, schema=schema)

    def coverage_table(self) -> pa.Table:
        """Return a row for each limit, signal rule, context and route of the rules."""
        import pyarrow as pa

        schema = pa.schema(
            [
                ("rules", pa.string()), ("key", pa.string()), ("kind", pa.string()),
                ("level", pa.string()), ("limit", pa.float64()), ("unit", pa.string()),
                ("reached", pa.bool_()), ("cleared", pa.bool_()), ("below", pa.float64()),
                ("beyond", pa.float64()), ("weak", pa.bool_()), ("tests_n", pa.int32()),
                ("tests", pa.list_(pa.string())),
            ]
        )  # fmt: skip
        rows = [
            item_row(item) | {"rules": covered.rules}
            for covered in self.coverage
            for item in covered.items
        ]
        return pa.Table.from_pylist(rows, schema=schema)


def item_row(item: Item) -> dict[str, Any]:
    """Return what the tests did to an item as plain values."""
    names = ("key", "kind", "level", "limit", "unit", "reached", "below", "beyond", "weak")
    return {name: getattr(item, name) for name in names} | {
        "cleared": item.cleared if item.clears else None,
        "tests_n": len(item.tests),
        "tests": sorted(name for _, name in item.tests),
    }


@dataclass(kw_only=True)
class _Bench:
    """Rules files in use, each with what tests exercised of it."""

    items: dict[Path, Items] = field(default_factory=dict)

    def of(self, path: Path) -> Items:
        known = self.items.get(path.resolve())
        if known is None:
            known = self.items[path.resolve()] = Items(Rules.load(path))
        return known


def run_tests(
    paths: Path | str | Sequence[Path | str],
    rules: Path | str | None = None,
    *,
    catalog: Path | str | None = None,
    only: Callable[[str], bool] | None = None,
    on_test: Callable[[Outcome], None] | None = None,
) -> Results:
    """Run the tests of some files, under the rules that each names or under others.

    `only` chooses tests by name; `on_test` is told of each as it is done. Raises InputError with
    every fault of the files, RulesError with those of the rules.
    """
    begun = time.perf_counter()
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [Path(path) for path in given]
    loaded = _all(files, load)
    bench = _Bench()
    named = [_rules_of(one, rules) for one in loaded]
    chosen = [
        [test for test in tests if only is None or only(test.name)]
        for tests in _all(
            list(zip(loaded, named, strict=True)),
            lambda pair: prepare(pair[0], bench.of(pair[1]).rules, _path(catalog)),
        )
    ]
    tested = []
    for one, path, tests in zip(loaded, named, chosen, strict=True):
        for test in tests:
            done = _tested(one, test, bench.of(path))
            tested.append(done)
            if on_test is not None:
                on_test(done)
    shown = dict(zip((path.resolve() for path in named), map(str, named), strict=True))
    coverage = tuple(
        Covered(rules=shown[path], items=tuple(items.all())) for path, items in bench.items.items()
    )
    wall_s = time.perf_counter() - begun
    return Results(tests=tuple(tested), coverage=coverage, wall_s=wall_s)


def _tested(loaded: Loaded, test: Ready, items: Items) -> Outcome:
    begun = time.perf_counter()
    found = tuple(verdicts(test, run(test, items)))
    return Outcome(
        file=str(loaded.path),
        name=test.name,
        line=test.line,
        about=test.written.case.about,
        verdicts=found,
        wall_s=time.perf_counter() - begun,
    )


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _rules_of(loaded: Loaded, rules: Path | str | None) -> Path:
    """Return the path of the rules that a file is tested under."""
    if rules is not None:
        return Path(rules)
    name = loaded.suite.rules
    if name is None:
        raise InputError(f'{loaded.path}: names no rules: write rules = "…", or give --rules')
    return loaded.beside(name)


def _all(given: Iterable[Any], do: Callable[[Any], Any]) -> list[Any]:
    """Return what comes of each; the faults of all files are raised together."""
    done: list[Any] = []
    errors: list[TocsinError] = []
    for one in given:
        try:
            done.append(do(one))
        except TocsinError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        problem = "; ".join(dict.fromkeys(error.problem for error in errors))
        faults = dict.fromkeys(str(fault) for error in errors for fault in error.faults)
        every = {str(fault): fault for error in errors for fault in error.faults}
        raise InputError(problem, faults=[every[text] for text in faults])
    return done

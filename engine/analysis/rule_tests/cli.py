"""What `tocsin test` prints: what failed and why, what of the rules no test reaches."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from engine.analysis.rule_tests.exits import BAD_INPUT, FAILED, PASSED
from engine.analysis.rule_tests.items import Item
from engine.analysis.rule_tests.judge import Verdict
from engine.analysis.rule_tests.results import Covered, Outcome, Results, item_row, run_tests
from engine.analysis.rule_tests.series import shown
from engine.errors import InputError, OutputError, TocsinError
from engine.sentences import number

PATTERN = "*_test.toml"
"""Files of a folder that hold tests."""
_PIPE_WIDTH = 100
"""Columns where there is no terminal that would say."""
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def run(
    files: Sequence[Path],
    rules: Path | None = None,
    catalog: Path | None = None,
    match: str | None = None,
    min_coverage: float | None = None,
    junit: Path | None = None,
    as_json: bool = False,
    verbose: bool = False,
) -> int:
    """Run tests of rules and print what came; return the exit code. Raises what is wrong with them.

    With `as_json` faults are printed as JSON too, and the exit code says so.
    """
    try:
        results = _run(discover(files), rules, catalog, match)
    except TocsinError as error:
        if not as_json:
            raise
        faults = [fault.as_dict() for fault in error.faults]
        _print_json({"ok": False, "problem": error.problem, "faults": faults})
        return BAD_INPUT
    if match is not None and not results.tests:
        raise InputError(f"no test has {match!r} in its name")
    if junit is not None:
        write_junit(results, junit)
    covered = min_coverage is None or results.coverage_percent >= min_coverage
    if as_json:
        _print_json({"ok": results.passed and covered, **as_dict(results)})
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_PIPE_WIDTH)
        console.print(report(results, verbose=verbose))
        if not covered:
            console.print(
                f"[bold red]coverage {_percent(results.coverage_percent)} is below "
                f"{min_coverage:g} %[/bold red]"
            )
    return PASSED if results.passed and covered else FAILED


def discover(paths: Sequence[Path]) -> list[Path]:
    """Return the files of tests: those named, and those of folders by their ending."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob(PATTERN))
            if not found:
                raise InputError(f"{path}: holds no file of tests, {PATTERN}")
            files += found
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def _run(
    files: Sequence[Path], rules: Path | None, catalog: Path | None, match: str | None
) -> Results:
    stderr = Console(stderr=True, highlight=False)
    with stderr.status("loading kernels…") if stderr.is_terminal else nullcontext() as status:

        def show(test: Outcome) -> None:
            if status is not None:
                status.update(f"{escape(test.name)}…")

        return run_tests(
            files,
            rules,
            catalog=catalog,
            only=None if match is None else lambda name: match.casefold() in name.casefold(),
            on_test=show,
        )


def _print_json(content: dict[str, Any]) -> None:
    print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


# --- tables --------------------------------------------------------------------------------------


def report(results: Results, *, verbose: bool = False) -> RenderableType:
    """Return what failed, a summary, and what of the rules is not covered."""
    blocks: list[RenderableType] = []
    for test in results.tests:
        if not test.passed:
            blocks += [_failure(test), ""]
        elif verbose:
            name = escape(test.name)
            blocks.append(f"[green]ok[/green]    {name} ({test.wall_s * 1000:.0f} ms)")
    blocks.append(_summary(results))
    for covered in results.coverage:
        blocks += _coverage(covered, verbose)
    return Group(*blocks)


def _failure(test: Outcome) -> RenderableType:
    place = f"{test.file}:{test.line}"
    head = (
        f"[bold red]FAIL[/bold red]  [bold]{escape(test.name)}[/bold]  [dim]{escape(place)}[/dim]"
    )
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for verdict in test.failures:
        grid.add_row("expected", f"{escape(verdict.expected)}  [dim]line {verdict.line}[/dim]")
        grid.add_row("came", f"[red]{escape(verdict.came)}[/red]")
        for at, line in enumerate(verdict.readings):
            grid.add_row("" if at else "readings", escape(line))
    n_passed = len(test.verdicts) - len(test.failures)
    if n_passed:
        grid.add_row("", f"[dim]{n_passed} more as expected[/dim]")
    return Group(head, grid)


def _summary(results: Results) -> str:
    n, n_failed = len(results.tests), len(results.failed)
    n_expected = sum(len(test.verdicts) for test in results.tests)
    failed = f"[bold red]{n_failed} failed[/bold red]" if n_failed else "[green]all passed[/green]"
    tests = "1 test" if n == 1 else f"{n} tests"
    return f"{tests}, {failed}; {n_expected} expectations held against, {results.wall_s:.2f} s"


def _coverage(covered: Covered, verbose: bool) -> Iterator[RenderableType]:
    items = covered.items
    if not items:
        return
    n_reached = sum(item.reached for item in items)
    clearing = [item for item in items if item.clears]
    n_cleared = sum(item.cleared for item in clearing)
    n_weak = sum(item.weak for item in items)
    yield (
        f"coverage of {escape(covered.rules)}: [bold]{_percent(covered.reached_percent)}[/bold] "
        f"reached ({n_reached} of {len(items)}), {_percent(covered.cleared_percent)} cleared "
        f"({n_cleared} of {len(clearing)}), {n_weak} weakly tested"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("in the rules", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("what no test does", overflow="fold")
    for head, group in _groups(items).items():
        _add_gaps(table, head, group, verbose)
    if table.row_count:
        yield ""
        yield table


def _groups(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Return the items by the table of the rules file that they stand in."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.table, []).append(item)
    return groups


def _add_gaps(table: Table, head: str, group: Sequence[Item], verbose: bool) -> None:
    gaps = [(item, gap) for item in group if (gap := missing(item))]
    if not gaps:
        return
    of_limits = all(item.limit is not None for item in group)
    untouched = of_limits and len(group) > 1 and not any(item.reached for item in group)
    if untouched and not verbose:
        table.add_row(f"[bold]{escape(head)}[/bold]", "", f"reach any of its {len(group)}")
        return
    table.add_row(f"[bold]{escape(head)}[/bold]", "", "")
    for item, gap in gaps:
        key = item.key.removeprefix(f"{item.table}.")
        table.add_row(f"  {escape(key)}", _limit(item), escape(gap))


def missing(item: Item) -> str:
    """Return what no test does to an item; empty if nothing is missing."""
    if not item.reached:
        nearest = item.below if item.limit is not None else None
        return "reach it" if nearest is None else f"reach it; nearest {number(nearest + 0.0)}"
    parts = []
    if item.clears and not item.cleared:
        parts.append("clear it")
    if item.weak:
        if item.below is None:
            parts.append("stay just short of it")
        elif item.beyond is None:
            parts.append(f"come close; nearest {number(item.below)}")
        else:
            low, high = sorted((item.below, item.beyond))
            parts.append(f"come between {number(low)} and {number(high)}")
    return "; ".join(parts)


def _limit(item: Item) -> str:
    return "" if item.limit is None else f"{number(item.limit)} {item.unit}".rstrip()


def _percent(percent: float) -> str:
    # 99.9 is not all
    return f"{int(percent)} %"


# --- JSON and JUnit ------------------------------------------------------------------------------


def as_dict(results: Results) -> dict[str, Any]:
    """Return the results as plain JSON values."""
    return {
        "passed": len(results.tests) - len(results.failed),
        "failed": len(results.failed),
        "wall_s": round(results.wall_s, 3),
        "coverage_percent": round(results.coverage_percent, 2),
        "tests": [
            {
                "file": test.file,
                "name": test.name,
                "line": test.line,
                "passed": test.passed,
                "wall_s": round(test.wall_s, 4),
                "expectations": [_verdict(verdict) for verdict in test.verdicts],
            }
            for test in results.tests
        ],
        "coverage": [
            {
                "rules": covered.rules,
                "reached_percent": round(covered.reached_percent, 2),
                "cleared_percent": round(covered.cleared_percent, 2),
                "items": [item_row(item) for item in covered.items],
            }
            for covered in results.coverage
        ],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "line": verdict.line,
        "at_s": verdict.at_ms / 1000,
        "passed": verdict.passed,
        "expected": verdict.expected,
        "came": verdict.came,
        "readings": list(verdict.readings),
    }


def write_junit(results: Results, path: Path) -> None:
    """Write the results as JUnit XML; raises OutputError."""
    root = ET.Element("testsuites", _counts(results.tests))
    for file in dict.fromkeys(test.file for test in results.tests):
        own = [test for test in results.tests if test.file == file]
        suite = ET.SubElement(root, "testsuite", {"name": _xml(file), **_counts(own)})
        for test in own:
            facts = {"name": _xml(test.name), "classname": _xml(file), "file": _xml(file)}
            facts |= {"line": str(test.line), "time": f"{test.wall_s:.4f}"}
            case = ET.SubElement(suite, "testcase", facts)
            for verdict in test.failures:
                message = _xml(f"expected {verdict.expected}; came {verdict.came}")
                failure = ET.SubElement(
                    case, "failure", {"message": message, "type": "expectation"}
                )
                place = f"{file}, line {verdict.line}, at {shown(verdict.at_ms)}"
                failure.text = _xml("\n".join([place, *verdict.readings]))
    tree = ET.ElementTree(root)
    ET.indent(tree)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tree.write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error


def _counts(tests: Sequence[Outcome]) -> dict[str, str]:
    n_failed = sum(not test.passed for test in tests)
    wall_s = sum(test.wall_s for test in tests)
    return {"tests": str(len(tests)), "failures": str(n_failed), "time": f"{wall_s:.4f}"}


def _xml(text: str) -> str:
    return _NO_XML.sub("�", text)

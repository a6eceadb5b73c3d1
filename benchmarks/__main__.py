"""Print a table of bars with what was measured beside each: `make bench`.

A table on a terminal, Markdown in a pipe, or JSON with --json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.bars import BARS, Bar, Result, measure
from benchmarks.measure import pin_to_one_core

COLUMNS = ("what", "bar", "stretch", "measured", "limit in this run", "verdict")
STYLES = {"stretch": "green", "bar": "yellow", "missed": "bold red", "not measured": "red"}


def machine() -> str:
    """Return what this ran on, for people."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def markdown(results: list[Result]) -> str:
    """Return the table in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(result.cells() for result in results)]
    rows = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def rich_table(results: list[Result]) -> Table:
    """Return the table for a terminal."""
    table = Table(*COLUMNS, show_lines=True)
    for result in results:
        *cells, verdict = map(escape, result.cells())
        table.add_row(*cells, f"[{STYLES[verdict]}]{verdict}[/]")
    return table


def main(
    bars: Sequence[Bar] = BARS, prog: str = "python -m benchmarks", *, pin: bool = True
) -> int:
    """Measure the bars that were asked for; return 1 if one was not measured, or, strictly, met.

    Bars whose processes pin themselves are measured from one that is not pinned.
    """
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    keys = [bar.key for bar in bars]
    parser.add_argument("only", nargs="*", metavar="BAR", help=f"of {', '.join(keys)}; all of them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    asked = parser.parse_args()
    unknown = sorted(set(asked.only) - set(keys))
    if unknown:
        parser.error(f"no bar is called {', '.join(unknown)}; there are {', '.join(keys)}")
    pinned = "pinned one by one"
    if pin:
        core = pin_to_one_core()
        pinned = f"core {core}" if core >= 0 else "not pinned to a core"
        pa.set_cpu_count(1)
    console, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
    results = []
    for bar in bars:
        if not asked.only or bar.key in asked.only:
            if stderr.is_terminal:
                # no spinner: its thread would be measured along
                stderr.print(f"measuring {bar.key}: {bar.what}", style="dim")
            results.append(measure(bar))
    if asked.json:
        lines = [result.as_dict() for result in results]
        json.dump({"machine": machine(), "pinned": pinned, "bars": lines}, sys.stdout, indent=2)
        print()
    elif console.is_terminal:
        console.print(rich_table(results), f"{machine()}, {pinned}; medians, with their range")
    else:
        print(markdown(results), f"{machine()}, {pinned}; medians, with their range", sep="\n\n")
    verdicts = {result.verdict for result in results}
    return int("not measured" in verdicts or (asked.strict and "missed" in verdicts))


if __name__ == "__main__":
    sys.exit(main())

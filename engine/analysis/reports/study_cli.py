"""What `tocsin report` does with a study's folder: write the page, and say what is in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.analysis.reports.report import write_report
from engine.analysis.reports.study import StudyReport, study_report_of
from engine.analysis.reports.study_words import figure_text, shown_first


def run(folder: Path, *, output: Path, title: str | None, as_json: bool) -> int:
    """Write the report of a study; return the exit code. Raises what is wrong with the folder."""
    report = study_report_of(folder, title=title)
    write_report(output, report)
    if as_json:
        text = orjson.dumps(summary(report, output), option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(text + b"\n")
    else:
        _show(report, output)
    return 0


def summary(report: StudyReport, output: Path) -> dict[str, Any]:
    """Return what a report says as plain JSON values."""
    told = report.told
    return {
        "output": str(output),
        "bytes": len(report.html),
        "study": str(told.folder),
        "settings": told.n,
        "shown": report.n_shown,
        "refused": told.n - int(told.accepted.sum()),
        "feasible": int(told.able.sum()),
        "front": told.n_front,
        "chosen": told.chosen,
        "nearest": told.best if told.chosen is None else None,
        "interrupted": told.interrupted,
        "figures": {
            name: {"given": _plain(column[0]), told.mark: _plain(column[told.best])}
            for name, column in told.figures.items()
        },
    }


def _plain(value: float) -> float | None:
    return None if value != value else float(value)


def _show(report: StudyReport, output: Path) -> None:
    told = report.told
    console = Console(highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    n_refused = told.n - int(told.accepted.sum())
    refused = f", {n_refused:,} more refused" if n_refused else ""
    grid.add_row("settings", f"{told.n - n_refused:,}{refused}; {told.front_words}")
    grid.add_row(told.mark, f"setting {told.best}")
    console.print(grid)
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("given", justify="right", no_wrap=True)
    table.add_column(told.mark, justify="right", no_wrap=True)
    for name in shown_first(told):
        old, new = (figure_text(name, float(told.figures[name][row])) for row in (0, told.best))
        table.add_row(name, old, new)
    console.print(table)
    size = f"{len(report.html) / 1e6:.1f} MB, {report.n_shown:,} settings"
    console.print(f"report: {escape(str(output))} ({size})", soft_wrap=True)

"""What the commands for analysts share: progress on a terminal, JSON, exit codes of their own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console

from engine.analysis.tuning.trials import BASELINE, REVERTED
from engine.analysis.tuning.trying import Progress

NOT_MET = 4
"""Exit code where nothing keeps to what is required."""
_REFRESH_S = 0.1
_PHASES = {BASELINE: "history", REVERTED: "simpler"}


def write_json(value: dict[str, Any]) -> None:
    """Write an object to standard output."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.buffer.write(orjson.dumps(value, option=option) + b"\n")


@contextmanager
def shown(stderr: Console, what: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield what shows progress on a terminal, None where there is none."""
    if not stderr.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
    ) as bar:
        task = bar.add_task("tune", total=1.0, count="reading the history")
        last_s = 0.0

        def show(progress: Progress) -> None:
            nonlocal last_s
            now_s = time.monotonic()
            if now_s - last_s < _REFRESH_S:
                return
            last_s = now_s
            refused = f", {progress.refused:,} refused" if progress.refused else ""
            count = f"{progress.done:,} of {progress.total:,} {what}{refused}"
            if progress.phase == BASELINE:
                count = "reading the history"
            phase = _PHASES.get(progress.phase, progress.phase)
            bar.update(task, description=phase, completed=progress.share, count=count)

        yield show

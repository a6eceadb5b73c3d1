"""What `tocsin replay` shows: progress while it runs, a table or JSON at the end, an exit code."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from engine import dump
from engine.errors import TocsinError
from engine.replay import BATCH, Job, Progress, Replay, prepare
from engine.sinks import STDOUT, open_sink
from engine.summary import Summary
from kernels.layout import LEVEL_NAMES, TRANSITION_NAMES

INTERRUPTED = 130
_COMPILING = "compiling kernels (once, cached)…"
_WORTH_SAYING_S = 2.0
_REFRESH_S = 0.1
MOST_NAMED = 10
LEVEL_STYLES = {"blue": "blue", "yellow": "yellow", "orange": "dark_orange", "red": "red"}


def run(
    readings: Sequence[Path],
    catalog: Path,
    rules: Path,
    adapter: Path | None = None,
    output: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    threads: int = 1,
    snapshot: str | Path | None = None,
    resume: str | Path | None = None,
    as_json: bool = False,
    sort: bool = False,
    batch: int | None = None,
) -> int:
    """Replay and print the summary; return the exit code. Raises what is wrong with the input."""
    if as_json and output == STDOUT:
        raise typer.BadParameter(
            "--json prints the summary to standard output: write the alerts to a file"
        )
    dumps = dump.find(readings)
    if dumps:
        return _run_dumps(dumps, catalog, rules, output, as_json)
    job = Job(
        readings=tuple(readings),
        catalog=catalog,
        rules=rules,
        adapter=adapter,
        output=output,
        since=since,
        until=until,
        threads=threads,
        snapshot=None if snapshot is None else str(snapshot),
        resume=None if resume is None else str(resume),
        sort=sort,
        batch=batch or BATCH,
    )
    stderr = Console(stderr=True, highlight=False)
    stop = threading.Event()
    with stopping(stop):
        replay = prepared(job, stderr)
        try:
            with shown(stderr) as show:
                summary = replay.run(on_progress=show, stopped=stop.is_set)
        except TocsinError:
            if replay.sink.name is not None and Path(replay.sink.name).exists():
                stderr.print(f"the alert log so far is in {escape(replay.sink.name)}")
            raise
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        console = stderr if output == STDOUT else Console(highlight=False)
        console.print(report(summary))
    for note in summary.advice():
        stderr.print(f"[bold]note[/bold]: {escape(note)}", soft_wrap=True)
    return INTERRUPTED if summary.interrupted else 0


def _run_dumps(
    dumps: Sequence[dump.Dump], catalog: Path, rules: Path, output: Path | None, as_json: bool
) -> int:
    """Replay dumps of the readings topic, one partition after the other."""
    from engine.catalog import Catalog
    from engine.partition import Plans
    from engine.rules_check import load

    plans = Plans(Catalog.open(catalog))
    missing = dump.check(dumps, plans.catalog)
    digest = plans.add(load(rules))
    total = dump.Replayed()
    sink = open_sink(output)
    sink.begin()
    for _, outcome in dump.replay(dumps, plans, digest, total=total):
        sink.write([alert.record for alert in outcome.alerts])
    sink.finish()
    if as_json:
        print(orjson.dumps(total).decode())
    else:
        console = Console(stderr=output == STDOUT, highlight=False)
        rejected = ", ".join(f"{name} {n:,}" for name, n in total.rejected.items()) or "none"
        console.print(
            f"{len(dumps)} partitions: {total.messages:,} messages, {total.readings:,} readings "
            f"and ticks, {total.alerts:,} alerts; rejected: {rejected}",
            soft_wrap=True,
        )
    if missing:
        named = ", ".join(map(str, missing[:MOST_NAMED])) + ", …" * (len(missing) > MOST_NAMED)
        Console(stderr=True, highlight=False).print(
            f"[bold]note[/bold]: {len(missing)} of the catalog's {plans.catalog.n_partitions} "
            f"partitions are not here: {named}",
            soft_wrap=True,
        )
    return 0


def prepared(job: Job, stderr: Console) -> Replay:
    """Open what the job needs and compile the kernels, saying so if it takes a while."""
    replay = prepare(job)
    warmed(replay.warm_up, stderr)
    return replay


def warmed(warm_up: Callable[[], float], stderr: Console) -> None:
    """Compile kernels, or load them from their cache, saying so if it takes a while.

    `warm_up` returns the seconds that it took.
    """
    with stderr.status("loading kernels…") if stderr.is_terminal else nullcontext() as status:

        def say() -> None:
            # from the cache they come faster than this
            if status is None:
                stderr.print(_COMPILING)
            else:
                status.update(_COMPILING)

        timer = threading.Timer(_WORTH_SAYING_S, say)
        timer.daemon = True
        timer.start()
        seconds = warm_up()
        timer.cancel()
    if seconds > _WORTH_SAYING_S:
        stderr.print(f"compiled the kernels in {seconds:.1f} s")


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the replay after the batch it is at; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shown(stderr: Console) -> Iterator[Any]:
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
        TextColumn("{task.fields[readings]} readings, {task.fields[rate]}/s"),
        TextColumn("{task.fields[alerts]} alerts"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
    ) as bar:
        task = bar.add_task("replay", total=1.0, readings="0", rate="0", alerts="0")
        last_s = -_REFRESH_S

        def show(progress: Progress) -> None:
            nonlocal last_s
            if progress.elapsed_s - last_s < _REFRESH_S:
                return
            last_s = progress.elapsed_s
            bar.update(
                task,
                completed=progress.share,
                readings=short(progress.readings),
                rate=short(progress.readings / max(progress.elapsed_s, 1e-9)),
                alerts=f"{progress.alerts:,}",
            )

        yield show


def report(summary: Summary) -> RenderableType:
    """Return the closing table."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(summary):
        facts.add_row(name, text)
    return Group(facts, "", _alerts(summary)) if summary.alerts.n else facts


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    alerts = summary.alerts
    speed = f"{summary.wall_s:,.2f} s, {short(summary.readings_per_s)} readings/s"
    yield "readings", f"{summary.readings:,} in {speed}"
    if summary.first_ms is not None and summary.last_ms is not None:
        yield "history", f"{moment(summary.first_ms)} to {moment(summary.last_ms)}"
    state = f"{summary.state_bytes / 1e6:,.1f} MB of state"
    per_sensor = summary.per_sensor()
    if per_sensor is not None:
        state += f", {per_sensor:,.0f} B a sensor beside its source"
    unprofiled = f", {summary.n_unprofiled:,} of them without a profile"
    yield (
        "sensors",
        f"{summary.n_sensors:,}{unprofiled if summary.n_unprofiled else ''}; {state}",
    )
    rejects = [f"{name.replace('_', ' ')} {n:,}" for name, n in summary.rejects.items()]
    yield "rejects", ", ".join(rejects) or "none"
    moved = [f"{name} {n:,}" for name in ("late", "backward") if (n := summary.counts.get(name))]
    if moved:
        yield "out of order", ", ".join(moved)
    median_ms = alerts.median_ms()
    lasting = "" if median_ms is None else f" (median {duration(median_ms / 1000)})"
    running = f"{summary.n_active:,} running at the end"
    yield (
        "episodes",
        f"{alerts.n_episodes:,} began, {alerts.n_ended:,} ended{lasting}, {running}",
    )
    detectors = [f"{name} {n:,}" for name, n in alerts.by_detector().items()]
    if detectors:
        yield "raised by", ", ".join(detectors)
    if summary.top_sources:
        top = ", ".join(f"{escape(source)} {n:,}" for source, n in summary.top_sources)
        yield "top sources", top
    if summary.output is not None and summary.output != str(STDOUT):
        yield "alert log", escape(summary.output)
    if summary.snapshot is not None:
        yield "snapshot", escape(summary.snapshot)


def _alerts(summary: Summary) -> Table:
    """Return alerts by transition and by the level they led to."""
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("alerts", style="bold")
    shown_levels = LEVEL_NAMES[1:]
    for level in shown_levels:
        table.add_column(level, justify="right", header_style=LEVEL_STYLES[level])
    table.add_column("all", justify="right")
    for transition in TRANSITION_NAMES:
        by_level = summary.alerts.by_level(transition)
        row = [f"{by_level[level]:,}" if level in by_level else "" for level in shown_levels]
        table.add_row(transition, *row, f"{sum(by_level.values()):,}")
    return table


def short(n: float) -> str:
    """Return a number in a few characters: 15.0 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if n >= size:
            return f"{n / size:.1f}{letter}"
    return f"{n:.0f}"


def moment(event_ms: int) -> str:
    """Return an event time in UTC, or the number where no calendar has it."""
    try:
        return datetime.fromtimestamp(event_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{event_ms} ms"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = round(seconds)
    parts = []
    for size, letter in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if whole >= size:
            parts.append(f"{whole // size} {letter}")
            whole %= size
    return " ".join(parts[:2]) or "0 s"

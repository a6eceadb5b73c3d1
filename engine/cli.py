"""The `tocsin` command: options and exit codes here, the work in modules imported when needed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar, ParamSpec

import typer
from typer.core import TyperGroup

from engine.errors import TocsinError

P = ParamSpec("P")


class ExitCode(IntEnum):
    """What the exit status of `tocsin` says."""

    FINE = 0
    UNEXPECTED = 1
    USAGE = 2
    BAD_INPUT = 3
    INTERRUPTED = 130


EPILOG = (
    "Exit codes: 0 fine; 1 unexpected error (a bug: TOCSIN_DEBUG=1 shows the traceback), or, of "
    "diff and test, that what was asked for is not so; "
    "2 wrong usage; 3 bad input or output (catalog, rules, adapter, readings, a file that can't be "
    "read or written); 130 interrupted."
)


class InReadingOrder(TyperGroup):
    """Lists the commands in the order in which someone new needs them."""

    order: ClassVar[tuple[str, ...]] = (
        "demo-replay",
        "catalog",
        "rules",
        "replay",
        "report",
        "tune",
        "diff",
        "explain",
        "test",
        "version",
    )

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=self.order.index)


app = typer.Typer(
    name="tocsin",
    cls=InReadingOrder,
    help="Watch city sensors, fuse the signals of each risk source, raise scored alerts.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
catalog_app = typer.Typer(
    help="Compile and inspect the registry of sources, sensors and couplings.",
    epilog=EPILOG,
    no_args_is_help=True,
)
rules_app = typer.Typer(
    help="Check the rules that turn readings into alerts.", epilog=EPILOG, no_args_is_help=True
)
app.add_typer(catalog_app, name="catalog")
app.add_typer(rules_app, name="rules")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main(args: Sequence[str] | None = None, of: typer.Typer = app) -> None:
    """Run the command line on `args`, by default the process's own, and exit with an `ExitCode`."""
    try:
        of(args=None if args is None else list(args), prog_name="tocsin")
    except KeyboardInterrupt:
        sys.exit(_report("interrupted", code=ExitCode.INTERRUPTED))


def exits(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn what a command returns or raises into an exit code and lines on stderr."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(int(_outcome(lambda: command(*args, **kwargs))))

    return run


def _outcome(work: Callable[[], int | None]) -> int:
    debug = os.environ.get("TOCSIN_DEBUG") == "1"
    try:
        code = work() or ExitCode.FINE
        sys.stdout.flush()
        return code
    except SystemExit as error:
        # Rich leaves like this when the reader of a pipe has gone away
        if isinstance(error.__context__, BrokenPipeError):
            return ExitCode.FINE
        raise
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        return _report("interrupted", code=ExitCode.INTERRUPTED)
    except TocsinError as error:
        if debug:
            raise
        return _report(*(f"error: {line}" for line in error.lines()), code=ExitCode.BAD_INPUT)
    except OSError as error:
        if error.errno == errno.EPIPE:
            # the reader of a pipe went away; keep the interpreter from failing on its last flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.FINE
        if debug:
            raise
        if error.filename is not None and error.strerror:
            line = f"error: {error.filename}: {error.strerror}"
            return _report(line, code=ExitCode.BAD_INPUT)
        return _report_unexpected(error)
    except Exception as error:
        if debug:
            raise
        return _report_unexpected(error)


def _report(*lines: str, code: ExitCode) -> ExitCode:
    for line in lines:
        print(f"tocsin: {line}", file=sys.stderr)
    return code


def _report_unexpected(error: Exception) -> ExitCode:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    line = f"unexpected error: {text} (TOCSIN_DEBUG=1 shows where)"
    return _report(line, code=ExitCode.UNEXPECTED)


@app.command()
@exits
def version() -> None:
    """Print the version."""
    from engine import __version__

    print(__version__)


@catalog_app.command("build")
@exits
def catalog_build(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder with sources, sensors and optional couplings (Parquet or CSV), and the "
            "site's own quantities.toml.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The compiled catalog.")
    ],
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_536,
            metavar="N",
            help="Partitions to pack clusters into. By default 8, or those of --like.",
        ),
    ] = None,
    max_cluster: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Sensors above which a cluster is cut at its weakest couplings. "
            "By default 50,000, or half a partition's share where that is more.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A catalog of the same city: its sources stay in their partitions, and keep their "
            "state.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compile a folder into one catalog file, or report every fault of it."""
    from engine import catalog_cli

    return catalog_cli.build(folder, output, partitions, max_cluster, as_json, like)


@catalog_app.command("show")
@exits
def catalog_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A compiled catalog.")],
    as_json: AsJson = False,
) -> int:
    """Print what a compiled catalog holds."""
    from engine import catalog_cli

    return catalog_cli.show(file, as_json)


@catalog_app.command("verify")
@exits
def catalog_verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A compiled catalog.")],
) -> int:
    """Read a compiled catalog whole and compare it with its digest."""
    from engine import catalog_cli

    return catalog_cli.verify(file)


@rules_app.command("check")
@exits
def rules_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A rules file (TOML).")],
    as_json: AsJson = False,
) -> int:
    """Print every fault of a rules file, or what the rules will do."""
    from engine import rules_cli

    return rules_cli.check(file, as_json)


@app.command()
@exits
def replay(
    readings: Annotated[
        list[Path],
        typer.Argument(
            metavar="READINGS",
            help="Files or folders of readings: Parquet, Arrow IPC, CSV, NDJSON; gz and zst too.",
        ),
    ],
    catalog: Annotated[
        Path, typer.Option("--catalog", metavar="FILE", help="The compiled catalog.")
    ],
    rules: Annotated[Path, typer.Option("--rules", metavar="FILE", help="The rules (TOML).")],
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", metavar="FILE", help="How the readings are laid out (TOML)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The alert log: .jsonl or .parquet."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="First event time: ISO 8601 or epoch ms."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Event time to stop before: ISO 8601 or ms."),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=1024, metavar="N", help="Threads to run on.")
    ] = 1,
    snapshot: Annotated[
        str | None,
        typer.Option(
            "--snapshot",
            metavar="PLACE",
            help="Write the state here at the end: a path, or s3://, gs://, hdfs://.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="PLACE", help="Begin with the state of this snapshot."),
    ] = None,
    as_json: AsJson = False,
    sort: Annotated[
        bool,
        typer.Option("--sort", help="Sort by event time first (through temporary files)."),
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            metavar="N",
            help="Readings per batch; the alert log is the same for every N.",
        ),
    ] = None,
) -> int:
    """Run history through the whole line: readings in, alert log and summary out."""
    from engine import replay_cli

    return replay_cli.run(
        readings=readings,
        catalog=catalog,
        rules=rules,
        adapter=adapter,
        output=output,
        since=since,
        until=until,
        threads=threads,
        snapshot=snapshot,
        resume=resume,
        as_json=as_json,
        sort=sort,
        batch=batch,
    )


@app.command("demo-replay")
@exits
def demo_replay(
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="X",
            help="Event time per wall time; by default a day in 20 s on a terminal, and as fast as "
            "it reads in a pipe.",
        ),
    ] = None,
    as_json: AsJson = False,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the demo writes its files.")
    ] = Path("out/demo"),
) -> int:
    """Replay a small generated day of a city and compare the alerts with what really happened."""
    from engine import demo as city_demo

    return city_demo.run(speed, as_json, out)


def commands(of: typer.Typer = app) -> dict[str, Any]:
    """Return every command by its full name, `catalog build` among them."""
    root: Any = typer.main.get_command(of)
    found: dict[str, Any] = {}
    for name, command in root.commands.items():
        nested = getattr(command, "commands", None)
        if nested is None:
            found[name] = command
        else:
            found.update({f"{name} {inner}": leaf for inner, leaf in nested.items()})
    return found


import engine.analysis.cli  # noqa: E402, F401  its commands join these

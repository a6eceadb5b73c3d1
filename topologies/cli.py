"""The `tocsin` command with the live commands; those of replay come from `engine.cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from copy import copy
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from engine import cli as engine_cli
from engine.cli import EPILOG, AsJson
from topologies.cli_settings import LiveGroup, LiveSubgroup, needing, whole, with_settings


def _extended(of: typer.Typer, group: type[LiveGroup]) -> typer.Typer:
    """Return a copy to which commands can be added: the engine's own stays as it is."""
    app = copy(of)
    app.info = copy(of.info)
    app.info.cls = group
    app.registered_commands = list(of.registered_commands)
    app.registered_groups = list(of.registered_groups)
    return app


app = _extended(engine_cli.app, LiveGroup)
rules_app = _extended(engine_cli.rules_app, LiveSubgroup)
rules_app.info.help = "Check the rules that turn readings into alerts, and push them to workers."
app.registered_groups = [each for each in app.registered_groups if each.name != "rules"]
app.add_typer(rules_app, name="rules")
snapshot_app = typer.Typer(
    cls=LiveSubgroup,
    help="Look at the snapshots that workers keep.",
    epilog=EPILOG,
    no_args_is_help=True,
)
app.add_typer(snapshot_app, name="snapshot")

LIVE_EPILOG = EPILOG.replace("; 130", "; 4 a worker that is not ready (health); 130")
app.info.epilog = LIVE_EPILOG

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="The id of a risk source.")]
By = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who says so; by default the user.")
]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why.")]
For = Annotated[
    str | None, typer.Option("--for", metavar="TIME", help="How long: 90s, 45m, 2h, 1d.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Its end: ISO 8601 or epoch ms.")
]

OfSource = Annotated[
    str | None, typer.Option("--source", metavar="SOURCE", help="One risk source.")
]
OfDistrict = Annotated[
    str | None, typer.Option("--district", metavar="NAME", help="All sources of a district.")
]
OfCategory = Annotated[
    str | None, typer.Option("--category", metavar="NAME", help="All sources of a category.")
]


def _module(name: str) -> Any:
    """Import a module of this package only now: the help needs none of them."""
    return import_module(f"topologies.{name}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line on `args`, by default the process's own, and exit with its code."""
    engine_cli.main(args, app)


def commands() -> dict[str, Any]:
    """Return every command by its full name, as it is when called: with all of its options."""
    return {name: whole(command) for name, command in engine_cli.commands(app).items()}


@app.command()
@engine_cli.exits
def demo(
    speed: Annotated[
        float | None,
        typer.Option(
            "--speed", min=1, metavar="X", help="Event time per wall time; 300 by default."
        ),
    ] = None,
    for_: Annotated[
        float | None,
        typer.Option(
            "--for",
            min=1,
            metavar="SECONDS",
            help="Stop after so long; by default at the end of the day, in a pipe after 60 s.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where its logs go, in a folder `live`.")
    ] = Path("out/demo"),
) -> int:
    """Watch alerts arrive live: a broker, Redis, a worker and a feed, all on this machine."""
    with needing("demo", "live,embedded"):
        return int(_module("demo").run(speed, for_, out))


@with_settings(app, "dump", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def dump(
    *,
    settings: Any,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files go.")],
) -> int:
    """Write the readings topic, message by message, to files that a replay takes."""
    return int(_module("dump").run_cli(settings, folder))


@with_settings(app, "worker", "Line", "Kafka", "State", "Redis", "Security", "Seen", epilog=EPILOG)
def worker(
    *,
    settings: Any,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded", help="Start a broker and a Redis of its own, in memory: for trying out."
        ),
    ] = False,
    show_settings: Annotated[
        bool,
        typer.Option("--show-settings", help="Print what would run, secrets masked, and stop."),
    ] = False,
) -> int:
    """Take readings from Kafka, raise alerts, keep Redis up to date, until it is told to stop."""
    if show_settings:
        from topologies.settings_text import shown

        settings.readable("catalog", "rules", "shadow", "feeds")
        for name, value in shown(settings).items():
            print(f"{name} = {value}")
        return 0
    settings.required("catalog", "rules")
    if not embedded:
        return _module("serve").run(settings)
    with ExitStack() as stack:
        return _module("serve").run(_embedded(settings, stack))


def _embedded(settings: Any, stack: ExitStack) -> Any:
    """Start a broker and a Redis that end with the stack; return settings that lead to them."""
    servers = _module("embedded")
    broker = stack.enter_context(servers.EmbeddedBroker())
    redis = stack.enter_context(servers.EmbeddedRedis())
    print(broker.says, redis.says, sep="\n", file=sys.stderr)
    there = {"kafka_brokers": (broker.bootstrap,), "redis_url": redis.url}
    if "snapshots" not in settings.model_fields_set:
        # the log is gone at the end: a snapshot of it would mislead the next run
        there["snapshots"] = stack.enter_context(TemporaryDirectory(prefix="tocsin-"))
    return settings.embedded(**there)


@with_settings(app, "feed", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def feed(
    *,
    settings: Any,
    readings: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="READINGS",
            help="Files or folders of readings: Parquet, Arrow IPC, CSV, NDJSON; none with --city.",
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", metavar="FILE", help="How the readings are laid out (TOML)."),
    ] = None,
    city: Annotated[
        bool,
        typer.Option(
            "--city",
            help="The generated day of replay_data/day, whose catalog it must be; from now on, "
            "unless with --ticks.",
        ),
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option("--speed", min=0.001, metavar="X", help="Event time per wall time."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, metavar="N", help="Readings a second."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=1 << 20, metavar="N", help="Readings a message.")
    ] = 4096,
    layout: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="arrow, json or ndjson.")
    ] = "arrow",
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Move event times so that the first is now.")
    ] = False,
    ticks: Annotated[
        bool, typer.Option("--ticks", help="Write ticks too, where no worker does (tick_s 0).")
    ] = False,
    loop: Annotated[
        bool, typer.Option("--loop", help="Begin again at the end, event times moved on.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="Stop after N readings, exactly."),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option("--topic", metavar="TOPIC", help="By default the readings' own."),
    ] = None,
) -> int:
    """Publish a history, or the generated day of a city, to Kafka at a given speed."""
    if speed is not None and rate is not None:
        raise typer.BadParameter("give --speed or --rate, not both")
    if bool(readings) == city:
        raise typer.BadParameter("give READINGS or --city, one of them")
    if layout not in ("arrow", "json", "ndjson"):
        raise typer.BadParameter(
            f"must be arrow, json or ndjson, got {layout!r}", param_hint="--format"
        )
    settings.required("catalog")
    return _module("feed").run(
        settings,
        readings=readings or [],
        adapter=adapter,
        city=city,
        speed=speed,
        rate=rate,
        batch=batch,
        layout=layout,
        shift_to_now=shift_to_now,
        ticks=ticks,
        loop=loop,
        limit=limit,
        topic=topic,
    )


@with_settings(app, "alerts", "Redis", "allow_plaintext", epilog=EPILOG)
def alerts(
    *,
    settings: Any,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep on printing alerts as they come.")
    ] = False,
    level: Annotated[
        str | None,
        typer.Option(
            "--level", metavar="LEVEL", help="From this level on: blue, yellow, orange or red."
        ),
    ] = None,
    district: Annotated[
        str | None, typer.Option("--district", metavar="NAME", help="Only of this district.")
    ] = None,
    route: Annotated[
        str | None, typer.Option("--route", metavar="NAME", help="Only what this route took.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, metavar="N", help="The newest N.")
    ] = 20,
    as_json: AsJson = False,
) -> int:
    """Print what stands now and the newest alerts, from Redis.

    In a pipe or with --json, the newest alerts alone, one record (JSON) a line, the oldest first.
    """
    if level not in (None, "blue", "yellow", "orange", "red"):
        raise typer.BadParameter(
            f"must be blue, yellow, orange or red, got {level!r}", param_hint="--level"
        )
    return _module("alerts_cli").run(
        settings,
        follow=follow,
        level=level,
        district=district,
        route=route,
        limit=limit,
        as_json=as_json,
    )


@with_settings(app, "health", "Security", epilog=LIVE_EPILOG)
def health(
    *,
    settings: Any,
    live: Annotated[
        bool, typer.Option("--live", help="Ask only whether it is alive (/healthz).")
    ] = False,
) -> int:
    """Ask the worker on this machine whether it is ready: 0 if so, 4 if not, 3 if none answers."""
    return _module("probe").run(settings, "/healthz" if live else "/readyz")


@with_settings(rules_app, "push", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def rules_push(
    *,
    settings: Any,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A rules file (TOML).")],
    by: By = None,
    note: Note = None,
    as_json: AsJson = False,
) -> int:
    """Check a rules file and hand it to the workers, which take it up as they run."""
    return _module("commands").push_rules(settings, file, by=by, note=note, as_json=as_json)


@with_settings(app, "ack", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def ack(*, settings: Any, source: Source, by: By = None, note: Note = None) -> int:
    """Acknowledge what stands at a source: somebody has seen it."""
    return _send(settings, "acknowledge", by, note, source=source)


@with_settings(app, "shelve", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def shelve(
    *,
    settings: Any,
    source: Source,
    for_: For = None,
    until: Until = None,
    by: By = None,
    note: Note = None,
) -> int:
    """Keep a source quiet for at most 24 hours; a rise to red is told all the same."""
    from engine.commands import MAX_SHELVE_MS
    from topologies.durations import now_ms

    begin = now_ms()
    end = _end(for_, until, begin)
    _at_most(MAX_SHELVE_MS, "24 h at a time: shelve again to go on", end - begin, for_)
    return _send(settings, "shelve", by, note, source=source, until_ms=end)


@with_settings(app, "unshelve", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def unshelve(*, settings: Any, source: Source, by: By = None, note: Note = None) -> int:
    """End the shelving of a source."""
    return _send(settings, "unshelve", by, note, source=source)


@with_settings(app, "suppress", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def suppress(
    *,
    settings: Any,
    source: OfSource = None,
    district: OfDistrict = None,
    category: OfCategory = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Its begin, ISO 8601 or epoch ms; or now."),
    ] = None,
    for_: For = None,
    until: Until = None,
    by: By = None,
    note: Note = None,
) -> int:
    """Declare a maintenance window of at most 31 days, for a source, a district or a category."""
    from engine.commands import MAX_SUPPRESS_MS
    from topologies.durations import moment_ms, now_ms

    whom = _whom(source, district, category)
    begin = now_ms() if since is None else moment_ms(since, "--from")
    end = _end(for_, until, begin)
    _at_most(MAX_SUPPRESS_MS, "31 days long", end - begin, for_)
    return _send(settings, "suppress", by, note, from_ms=begin, until_ms=end, **whom)


@with_settings(app, "unsuppress", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def unsuppress(
    *,
    settings: Any,
    source: OfSource = None,
    district: OfDistrict = None,
    category: OfCategory = None,
    by: By = None,
    note: Note = None,
) -> int:
    """End every maintenance window, begun or planned, of exactly this source, district or category.

    A window of a district is none of its sources' own: it ends with --district.
    """
    return _send(settings, "unsuppress", by, note, **_whom(source, district, category))


@with_settings(app, "out-of-service", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def out_of_service(*, settings: Any, source: Source, by: By = None, note: Note = None) -> int:
    """Take a source out of service: it raises nothing until it is back."""
    return _send(settings, "out_of_service", by, note, source=source)


@with_settings(app, "in-service", "catalog", "Kafka", "allow_plaintext", epilog=EPILOG)
def in_service(*, settings: Any, source: Source, by: By = None, note: Note = None) -> int:
    """Put a source back into service."""
    return _send(settings, "in_service", by, note, source=source)


def _send(settings: Any, command: str, by: str | None, note: str | None, **fields: Any) -> int:
    return _module("commands").send(settings, command, by=by, note=note, **fields)


def _whom(source: str | None, district: str | None, category: str | None) -> dict[str, str]:
    """Return what a window is of."""
    named = {"source": source, "district": district, "category": category}
    whom = {kind: name for kind, name in named.items() if name is not None}
    if len(whom) != 1:
        raise typer.BadParameter("give one of --source, --district and --category")
    return whom


def _at_most(bound_ms: int, words: str, span_ms: int, for_: str | None) -> None:
    """Refuse a span that a worker would refuse, in the words of whoever asked for it."""
    if span_ms > bound_ms:
        hint = "--until" if for_ is None else "--for"
        raise typer.BadParameter(f"may be at most {words}", param_hint=hint)


def _end(for_: str | None, until: str | None, begin_ms: int) -> int:
    """Return the end of a shelving or a window in epoch ms."""
    from topologies.durations import duration_ms, moment_ms

    if (for_ is None) == (until is None):
        raise typer.BadParameter("give --for or --until, one of them")
    end = begin_ms + duration_ms(for_) if for_ is not None else moment_ms(str(until), "--until")
    if end <= begin_ms:
        raise typer.BadParameter("must lie after the begin", param_hint="--until")
    return end


@with_settings(snapshot_app, "ls", "State", epilog=EPILOG)
def snapshot_ls(*, settings: Any, as_json: AsJson = False) -> int:
    """List the snapshots of every partition, the newest first."""
    return _module("snapshot_cli").ls(settings, as_json=as_json)


Snapshot = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="A snapshot's file, as `snapshot ls` names it.")
]


@with_settings(snapshot_app, "show", "State", epilog=EPILOG)
def snapshot_show(*, settings: Any, snapshot: Snapshot, as_json: AsJson = False) -> int:
    """Print what a snapshot holds: catalog, rules, partition, offset, arrays."""
    return _module("snapshot_cli").show(settings, snapshot, as_json=as_json)


@with_settings(snapshot_app, "verify", "State", epilog=EPILOG)
def snapshot_verify(
    *,
    settings: Any,
    snapshot: Annotated[
        str | None, typer.Argument(metavar="[SNAPSHOT]", help="One of them; by default all.")
    ] = None,
) -> int:
    """Read snapshots whole and compare them with their checksums."""
    return _module("snapshot_cli").verify(settings, snapshot)


if __name__ == "__main__":
    main()

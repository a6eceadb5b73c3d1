"""Commands that take settings as flags: a light stub for the help, the whole only when called.

The flags come from the model of the settings, whose import costs more than all of `tocsin --help`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from engine.cli import InReadingOrder, exits
from engine.errors import TocsinError

LIVE_MODULES = ("aiohttp", "aiokafka", "faust", "mode", "prometheus_client", "redis", "structlog")
CONFIG_HELP = "Settings (TOML); flags and TOCSIN_* variables go before it."
_MARK = "__tocsin_settings__"

Command = Callable[..., int | None]


class LiveGroup(InReadingOrder):
    """Gives a command that takes settings its flags once it is really called."""

    order = (
        "demo",
        "demo-replay",
        "catalog",
        "rules",
        "replay",
        "report",
        "tune",
        "diff",
        "explain",
        "test",
        "worker",
        "feed",
        "alerts",
        "dump",
        "health",
        "ack",
        "shelve",
        "unshelve",
        "suppress",
        "unsuppress",
        "out-of-service",
        "in-service",
        "snapshot",
        "version",
    )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, whole(command), rest


class LiveSubgroup(LiveGroup):
    """The same below a group, in the order in which the commands were declared."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


@contextmanager
def needing(name: str, extras: str) -> Iterator[None]:
    """Say which extras a command needs where a library of theirs is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in LIVE_MODULES:
            raise
        problem = f"{name} needs {missing}: pip install 'tocsin[{extras}]'"
        raise TocsinError(problem) from error


def whole(command: Any) -> Any:
    """Return a command as it is when called: with the flags of its settings."""
    make = getattr(getattr(command, "callback", None), _MARK, None)
    return command if make is None else make()


def with_settings(
    app: typer.Typer, name: str, *wanted: str, epilog: str | None = None
) -> Callable[[Command], Command]:
    """Declare a command with flags for settings: whole sections (`Kafka`) or one (`catalog`).

    The function takes `settings` and its own options, all by keyword. Settings without a flag here
    still come from the environment and the file.
    """

    def declare(function: Command) -> Command:
        own = inspect.signature(function).parameters
        hints = get_type_hints(function, include_extras=True)
        mine = [each.replace(annotation=hints[each.name]) for each in own.values()]
        mine = [each for each in mine if each.name != "settings"]

        def whole() -> Any:
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            taken = {each.name for each in mine}
            options = [each for each in _options(wanted) if each.name not in taken]
            alone.command(name, epilog=epilog)(_called(function, name, mine, options))
            return typer.main.get_command(alone)

        stub = _function(function, mine, exits(function))
        setattr(stub, _MARK, whole)
        app.command(name, epilog=epilog)(stub)
        return function

    return declare


def _called(
    function: Command,
    name: str,
    mine: list[inspect.Parameter],
    options: list[inspect.Parameter],
) -> Callable[..., None]:
    """Return what loads the settings from the flags and calls the command with them."""
    names = {each.name for each in options}

    def run(**given: Any) -> int | None:
        from topologies.settings import load

        config: Path | None = given.pop("config")
        flags = {each: given.pop(each) for each in names - {"config"}}
        with needing(name, "live"):
            return function(settings=load(flags, config=config), **given)

    return _function(function, [*mine, *options], exits(run))


def _function(
    like: Command, parameters: Iterable[inspect.Parameter], run: Callable[..., None]
) -> Callable[..., None]:
    """Return `run` with the documentation of one function and the parameters given."""

    def made(*args: Any, **options: Any) -> None:
        run(*args, **options)

    made.__name__, made.__doc__ = like.__name__, like.__doc__
    made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    made.__annotations__ = {each.name: each.annotation for each in parameters}
    return made


def _options(wanted: tuple[str, ...]) -> list[inspect.Parameter]:
    """Return `--config` and a flag for each setting that is wanted, values unchecked."""
    from topologies.settings import CONFIG, Settings, flag
    from topologies.settings_text import has_flag, is_switch, section, written

    config = typer.Option(
        "--config", metavar="FILE", envvar=CONFIG, help=CONFIG_HELP, show_envvar=False
    )
    found = [_parameter("config", Annotated[Path | None, config])]
    for name, field in Settings.model_fields.items():
        if not has_flag(name) or not {section(field), name} & set(wanted):
            continue
        text = field.description or ""
        default = written(field.default)
        option = typer.Option(
            f"{flag(name)}/--no-{flag(name)[2:]}" if is_switch(field) else flag(name),
            metavar=None if is_switch(field) else _metavar(name),
            help=f"{text} Default: {default}" if default else text,
            show_default=False,
            rich_help_panel=f"{section(field)} settings",
        )
        kind = bool | None if is_switch(field) else str | None
        found.append(_parameter(name, Annotated[kind, option]))
    return found


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=annotation)


def _metavar(name: str) -> str:
    if name.endswith("_file") or name in ("catalog", "rules", "shadow", "feeds"):
        return "FILE"
    for end, metavar in (("_s", "S"), ("_ms", "MS"), ("_bytes", "BYTES"), ("_port", "PORT")):
        if name.endswith(end):
            return metavar
    return name.rpartition("_")[2].upper()

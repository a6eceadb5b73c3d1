"""What `tocsin rules check` prints: every fault, or what the rules will do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from engine.errors import RulesError
from engine.rules import Rules
from engine.rules_base import LEVELS
from engine.rules_summary import summary
from engine.units import display_unit

BAD_INPUT = 3
_STYLES = {"blue": "bold blue", "yellow": "bold yellow", "orange": "bold dark_orange3"}
_STYLES["red"] = "bold red"
_PIPE_WIDTH = 160
"""Columns where there is no terminal that would say."""


def check(path: Path, as_json: bool) -> int:
    """Print what the rules of a file will do. Raises `RulesError` with every fault.

    With `as_json` faults are printed as JSON too, and the exit code says so.
    """
    try:
        rules = Rules.load(path)
    except RulesError as error:
        if not as_json:
            raise
        faults = [fault.as_dict() for fault in error.faults]
        _print_json({"file": str(path), "ok": False, "problem": error.problem, "faults": faults})
        return BAD_INPUT
    found = summary(rules)
    if as_json:
        _print_json({"file": str(path), "ok": True, **found})
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(f"[bold]{escape(found['name'])}[/bold]  {escape(str(path))}")
    console.print(f"digest {found['digest']}")
    console.print(f"Readings: {escape(found['time'])}.")
    for profile in found["profiles"]:
        console.print(_profile(profile))
    console.print(f"\nAny other quantity: {found['unwatched']}.")
    console.print(_fusion(found))
    for block in (*_rules(found), *_contexts(found), _routes(found)):
        console.print(block)
    return 0


def _print_json(content: dict[str, Any]) -> None:
    print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _level(name: str) -> str:
    return f"[{_STYLES[name]}]{name}[/]"


def _where(categories: list[str] | None) -> str:
    return f" at {', '.join(categories)}" if categories else ""


def _profile(profile: dict[str, Any]) -> RenderableType:
    low, high = profile["range"]
    title = f"\n[bold]{escape(profile['name'])}[/bold]"
    if profile["quantity"] != profile["name"]:
        title += f" ({escape(profile['quantity'])})"
    unit = display_unit(profile["unit"])
    title += escape(_where(profile["categories"])) + (f", in {escape(unit)}" if unit else "")
    if (low, high) != ("-inf", "inf"):
        title += f"; a reading outside {low} to {high} is bad"
    table = _table("signal", "level", "raised when", "cleared when", "counts")
    notes: dict[str, None] = {}
    for line in profile["signals"]:
        percent = " to ".join(map(str, line["percent"])) + " %"
        kind = line["kind"]
        if kind == "window":
            kind = line["note"].removeprefix("window ").strip("'")
        elif line["note"]:
            notes[f"{kind} limits are floors: {line['note']}"] = None
        table.add_row(
            escape(kind),
            _level(line["level"]),
            escape(line["raises"]),
            escape(line["clears"]),
            percent,
        )
    anomalies = any(line["kind"] in ("deviation", "drift", "spike") for line in profile["signals"])
    if anomalies and profile["refractory"]:
        again = f"deviation, drift and spike rise at most once in {profile['refractory']}"
        notes[again] = None
    return Group(title, table, *(f"  {escape(note)}" for note in notes))


def _fusion(found: dict[str, Any]) -> RenderableType:
    table = _table("score", *LEVELS, "deadband", "held", "half-life", "weights")
    for entry in found["fusion"]:
        raise_at = entry["raise_at"]
        weights = ", ".join(f"{name} {weight:g}" for name, weight in entry["weights"].items())
        table.add_row(
            escape(entry["category"] or "any category"),
            *(f"[{_STYLES[k]}]≥ {raise_at[k]:g}[/]" if k in raise_at else "–" for k in LEVELS),
            f"{entry['deadband']:g}",
            entry["hold"],
            entry["half_life"],
            escape(weights),
        )
    influence = ", ".join(f"{kind} {share:g}" for kind, share in found["influence"].items())
    return Group("", table, f"Neighbours count by kind of coupling: {escape(influence)}.")


def _rules(found: dict[str, Any]) -> list[RenderableType]:
    blocks: list[RenderableType] = []
    for rule in found["rules"]:
        where = escape(_where(rule["categories"]))
        blocks.append(
            f"\nRule [bold]{escape(rule['name'])}[/bold]: at least {_level(rule['level'])}{where} "
            f"while {escape(rule['while'])}."
        )
    return blocks


def _contexts(found: dict[str, Any]) -> list[RenderableType]:
    blocks: list[RenderableType] = []
    for context in found["contexts"]:
        where = escape(_where(context["categories"]))
        if context["districts"]:
            where += f" in {escape(', '.join(context['districts']))}"
        blocks.append(
            f"\nContext [bold]{escape(context['name'])}[/bold]: from {context['from']} to "
            f"{context['to']} scores{where} count × {context['factor']:g}."
        )
    return blocks


def _routes(found: dict[str, Any]) -> RenderableType:
    table = _table("route", "takes alerts of")
    for route in found["routes"]:
        takes = "; ".join(f"{key} {', '.join(names)}" for key, names in route["takes"].items())
        rest = "what no other route takes"
        table.add_row(f"[bold]{escape(route['name'])}[/bold]", escape(takes or rest))
    return Group("", table)

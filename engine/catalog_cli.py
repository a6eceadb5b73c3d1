"""What `tocsin catalog build`, `show` and `verify` print."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.catalog import Catalog
from engine.errors import CatalogError

if TYPE_CHECKING:
    from engine.catalog_build import Likeness

_MAX_SHOWN = 20


def build(
    folder: Path,
    output: Path,
    partitions: int | None,
    max_cluster: int | None,
    as_json: bool,
    like: Path | None = None,
) -> int:
    """Compile a folder and print the report. Raises `CatalogError` with every fault."""
    from engine.catalog_build import build_catalog

    report = build_catalog(folder, output, partitions, max_cluster, like)
    if as_json:
        _print_json(report.as_dict())
        return 0
    console = _console()
    console.print(
        f"[bold]{escape(report.path)}[/bold]: {_count(report.sources, 'source')}, "
        f"{_count(report.sensors, 'sensor')}, {_count(report.couplings, 'coupling')}, "
        f"{report.file_bytes / 1e6:,.1f} MB in {sum(report.seconds.values()):.1f} s"
    )
    console.print(f"digest {report.digest}")
    console.print(
        f"{_count(report.clusters, 'cluster')} "
        f"(largest {_count(report.largest_cluster, 'sensor')}, bound {report.max_cluster:,}) "
        f"in {_count(len(report.partition_sensors), 'partition')}, "
        f"skew {report.skew:.3f} (most sensors over mean)"
    )
    for file, names in report.ignored_columns.items():
        console.print(f"{escape(file)}: ignored columns: {escape(', '.join(names))}")
    if report.like is not None:
        _print_likeness(console, report.like)
    _print_cuts(console, report.cut_couplings)
    return 0


def show(path: Path, as_json: bool) -> int:
    """Print what a compiled catalog holds."""
    begin = time.perf_counter()
    catalog = Catalog.open(path)
    open_s = time.perf_counter() - begin
    summary = catalog.summary()
    if as_json:
        cuts = [list(cut) for cut in _cuts_by_id(catalog)]
        _print_json({**summary, "cut": cuts})
        return 0
    console = _console()
    console.print(f"[bold]{escape(str(path))}[/bold]  digest {catalog.digest}")
    console.print(
        f"{_count(summary['sources'], 'source')}, {_count(summary['sensors'], 'sensor')} "
        f"({summary['overrides']:,} with limits or delays of their own), "
        f"{_count(summary['couplings'], 'coupling')}, {_count(summary['districts'], 'district')}; "
        f"opened in {open_s * 1000:.1f} ms"
    )
    loads = summary["partition_sensors"]
    console.print(
        f"{_count(summary['partitions'], 'partition')}, "
        f"{min(loads):,} to {max(loads):,} sensors each, "
        f"skew {summary['skew']:.3f}"
    )
    console.print(
        _counts(
            "quantity",
            ("unit", "sensors"),
            {
                name: (entry["unit"], f"{entry['sensors']:,}")
                for name, entry in summary["quantities"].items()
            },
        )
    )
    for title, counts in (
        ("category", summary["categories"]),
        ("static class", summary["static_classes"]),
    ):
        rows: dict[str, tuple[str, ...]] = {name: (f"{n:,}",) for name, n in counts.items()}
        console.print(_counts(title, ("sources",), rows))
    _print_cuts(console, _cuts_by_id(catalog))
    return 0


def verify(path: Path) -> int:
    """Compare a compiled catalog with its digest. Raises `CatalogError` when they differ."""
    catalog = Catalog.open(path)
    try:
        catalog.verify()
    except CatalogError as error:
        raise CatalogError(f"{path}: {error.problem}") from error
    print(f"{path}: whole, digest {catalog.digest}")
    return 0


def _console() -> Console:
    # a pipe gets whole lines, a terminal wraps them itself
    return Console(highlight=False, soft_wrap=True)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _print_json(content: dict[str, Any]) -> None:
    print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _counts(title: str, columns: tuple[str, ...], rows: dict[str, tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    for column in columns:
        table.add_column(column, justify="left" if column == "unit" else "right")
    for name, cells in rows.items():
        table.add_row(escape(name), *map(escape, cells))
    return table


def _print_likeness(console: Console, like: Likeness) -> None:
    console.print(
        f"like {like.digest}: {_count(like.kept, 'source')} in their partitions, "
        f"{like.new:,} new, {like.gone:,} gone, {len(like.moved):,} moved"
    )
    for source, before, now in like.moved[:_MAX_SHOWN]:
        console.print(f"  {escape(source)}: from partition {before} to {now}")
    if len(like.moved) > _MAX_SHOWN:
        console.print(f"  and {len(like.moved) - _MAX_SHOWN:,} more (all of them with --json)")


def _cuts_by_id(catalog: Catalog) -> list[tuple[str, str, str, float]]:
    names = catalog.source_id
    return [
        (names[origin].as_py(), names[target].as_py(), kind, round(weight, 6))
        for origin, target, kind, weight in catalog.cut_couplings
    ]


def _print_cuts(console: Console, cuts: list[tuple[str, str, str, float]]) -> None:
    if not cuts:
        return
    console.print(
        f"[yellow]{_count(len(cuts), 'coupling')} cut[/yellow]: "
        "the sources would form a cluster above the bound (all of them with --json)"
    )
    for origin, target, kind, weight in cuts[:_MAX_SHOWN]:
        console.print(f"  {escape(origin)} -> {escape(target)}  {escape(kind)}  {weight:g}")
    if len(cuts) > _MAX_SHOWN:
        console.print(f"  and {len(cuts) - _MAX_SHOWN:,} more")

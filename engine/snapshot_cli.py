"""What `tocsin snapshot ls`, `show` and `verify` print, and the rows behind it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape

from engine import snapshot
from engine.errors import SnapshotError
from engine.snapshots import FOLDER, SUFFIX, Candidate, SnapshotStore
from kernels.layout import COUNT_NAMES

FAULTY = 3
"""Exit code where a snapshot is no good."""
DIGITS = 8
"""Of a digest, on a terminal."""


def rows(uri: str) -> list[dict[str, Any]]:
    """Return a row for each snapshot of a store; their records are not read."""
    return [_row(each) for each in _candidates(uri)]


def facts(uri: str) -> dict[str, Any]:
    """Return what a snapshot holds; of a store or a partition's folder, of the newest in it.

    Raises SnapshotError if it is missing or damaged.
    """
    found = snapshot.read(_newest(uri))
    meta, clock = found.meta, found.clock[0]
    return {
        "uri": found.uri,
        **{key: meta[key] for key in ("partition", "offset", "position", "catalog", "rules")},
        "watermark_ms": int(clock["watermark_ms"]),
        "tick_ms": int(clock["tick_ms"]),
        "counts": dict(zip(COUNT_NAMES, clock["counts"].tolist(), strict=True)),
        "bytes": {name: len(array) for name, array in found.arrays.items()},
        "extra": meta["extra"],
        "rules_text": meta["rules_text"],
    }


def checked(uri: str) -> list[dict[str, Any]]:
    """Read snapshots whole, of a store all; return their rows with what is wrong with each."""
    if _split(uri)[0].endswith(SUFFIX):
        return [{"uri": uri, "problem": _problem(uri)}]
    return [{**_row(each), "problem": _problem(each.place)} for each in _candidates(uri)]


def ls(uri: str, as_json: bool) -> int:
    """List the snapshots of a store."""
    found = rows(uri)
    if as_json:
        _print_json(found)
        return 0
    if not found:
        raise SnapshotError(f"{uri}: no snapshots here")
    console = _console()
    for line in _lines(found, DIGITS if console.is_terminal else None):
        print(line)
    for row in found:
        if row["problem"]:
            console.print(escape(row["problem"]), style="red")
    return 0


def show(uri: str, as_json: bool) -> int:
    """Print what a snapshot holds."""
    found = facts(uri)
    if as_json:
        _print_json(found)
        return 0
    console = _console()
    of = snapshot.named(found["partition"])
    console.print(f"[bold]{escape(found['uri'])}[/bold]: {of}")
    if found["offset"] is not None:
        console.print(f"covers the log before offset {found['offset']:,}")
    console.print(
        f"{found['position']:,} records taken, event time {_time(found['watermark_ms'])}, "
        f"newest tick {_time(found['tick_ms'])}"
    )
    console.print(f"catalog {found['catalog']}, rules {found['rules']}")
    counts = {name: n for name, n in found["counts"].items() if n}
    console.print(", ".join(f"{name} {n:,}" for name, n in counts.items()) or "no readings yet")
    n_bytes = sum(found["bytes"].values())
    console.print(f"{n_bytes / 1e6:,.1f} MB of records; --json shows the rules, too")
    return 0


def verify(uri: str, as_json: bool) -> int:
    """Read snapshots whole and say which are no good."""
    found = checked(uri)
    bad = [row for row in found if row["problem"]]
    if as_json:
        _print_json(found)
    else:
        if not found:
            raise SnapshotError(f"{uri}: no snapshots here")
        for row in found:
            print(row["problem"] or f"{row['uri']}: whole")
    return FAULTY if bad else 0


def in_store(uri: str, store: str) -> str:
    """Return a URI with the options of the store that it lies in: listings leave them out."""
    base, options = _split(store)
    below = uri.rstrip("/") == base.rstrip("/") or uri.startswith(base.rstrip("/") + "/")
    return uri + options if below and not _split(uri)[1] else uri


def _split(uri: str) -> tuple[str, str]:
    """Return a URI without its options, and these with their question mark."""
    path, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return path, mark + options


def _candidates(uri: str) -> list[Candidate]:
    store = SnapshotStore(uri)
    return [each for number in store.partitions() for each in store.latest(number)]


def _problem(where: str | snapshot.Place) -> str | None:
    try:
        snapshot.read(where)
    except SnapshotError as error:
        return error.problem
    return None


def _row(candidate: Candidate) -> dict[str, Any]:
    written = candidate.written
    row: dict[str, Any] = {
        "partition": candidate.partition,
        "offset": candidate.offset,
        "bytes": candidate.n_bytes,
        "written": None if written is None else written.isoformat(timespec="seconds"),
        "position": None,
        "catalog": None,
        "rules": None,
        "uri": candidate.uri,
        "problem": None,
    }
    try:
        meta = snapshot.read_meta(candidate.place)
        row.update({key: meta[key] for key in ("position", "catalog", "rules")})
    except SnapshotError as error:
        row["problem"] = error.problem
    return row


def _newest(uri: str) -> snapshot.Place:
    """Return the snapshot that a URI names, or the newest in a store or a partition's folder."""
    where = snapshot.place(uri)
    path, options = _split(uri)
    if path.endswith(SUFFIX) or where.filesystem.get_file_info(where.path).is_file:
        return where  # a replay's snapshot has the name that its user gave it
    match = FOLDER.fullmatch(PurePosixPath(path).name)
    if match:
        store = SnapshotStore(path.rstrip("/")[: -len(match[0]) - 1] + options)
        found = store.latest(int(match[1]))
    else:
        found = _candidates(uri)
    if found:
        beginning = datetime.fromtimestamp(0, UTC)
        return max(found, key=lambda each: (each.written or beginning, each.offset)).place
    raise SnapshotError(f"{uri}: no snapshots here")


def _lines(found: list[dict[str, Any]], digits: int | None) -> Iterator[str]:
    """Yield a heading and a line for each row; nothing is cut but digests, to their first digits.

    Columns are as wide as what they hold, which is 80 at most up to nine digits of a number.
    """
    table = [("partition", "offset", "size", "written", "records", "rules", "catalog")]
    for row in found:
        table.append(
            (
                str(row["partition"]),
                f"{row['offset']:,}",
                _size(row["bytes"]),
                (row["written"] or "")[:19].replace("T", " "),
                "" if row["position"] is None else f"{row['position']:,}",
                (row["rules"] or "")[:digits],
                (row["catalog"] or "")[:digits],
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        aligned = [
            f"{cell:{'<' if name in ('written', 'rules', 'catalog') else '>'}{width}}"
            for name, cell, width in zip(table[0], cells, widths, strict=True)
        ]
        yield " ".join(aligned).rstrip()


def _size(n_bytes: int) -> str:
    """Return a number of bytes in a few characters, of 1,000 each: 1.2 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes} B"


def _time(event_ms: int) -> str:
    if event_ms < 0:
        return "none"
    return datetime.fromtimestamp(event_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _console() -> Console:
    # a pipe gets whole lines, a terminal wraps them itself
    return Console(highlight=False, soft_wrap=True)


def _print_json(content: Any) -> None:
    print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())

"""A store of snapshots: those of every partition, newest first, and the catalogs they speak of.

    URI/partition-0003/00000000000012345678.snapshot   covers the log before offset 12345678
    URI/catalog-<digest>.catalog                       what the indices in its snapshots mean

An old snapshot goes only once a newer one was read back and found whole; the copy of a catalog goes
once no snapshot speaks of it any more.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from engine import snapshot
from engine.catalog import Catalog
from engine.catalog_file import write_columns
from engine.errors import CatalogError, ForeignSnapshotError, OutputError, SnapshotError
from engine.snapshot import PART, Frozen, Place, Snapshot, make_durable, place

KEEP = 2
SUFFIX = ".snapshot"
FOLDER = re.compile(r"partition-(\d{4,})")
_NAME = re.compile(r"(\d{20})\.snapshot")
_COPY = re.compile(r"catalog-(\w+)\.catalog(\.aside)?")
_ASIDE = ".aside"
_PROBE = b"whether snapshots can be kept here"


class Candidate(NamedTuple):
    """A file that should be a snapshot; nothing was read of it yet."""

    partition: int
    offset: int
    """Position in the partition's log of the first message that it does not cover."""
    place: Place
    n_bytes: int
    written: datetime | None

    @property
    def uri(self) -> str:
        """Return where it is, as people know it."""
        return self.place.shown


class Skipped(NamedTuple):
    """A snapshot that is no good, and why."""

    candidate: Candidate
    why: str


class Found(NamedTuple):
    """The newest whole snapshot of a partition, and the newer ones that were passed over."""

    candidate: Candidate
    snapshot: Snapshot
    skipped: list[Skipped]


class SnapshotStore:
    """The snapshots below one URI (a local folder, s3://, gs://, hdfs://).

    Each partition has one writer at a time; different partitions may be written from different
    threads and processes.
    """

    def __init__(self, uri: str, keep: int = KEEP) -> None:
        if keep < 1:
            raise SnapshotError(f"{uri}: at least 1 snapshot of a partition must stay, got {keep}")
        self.keep = keep
        self.root = place(uri if "?" in uri else uri.rstrip("/"))
        self._speaks: dict[Any, str] = {}
        self._no_good: set[str] = set()

    @property
    def uri(self) -> str:
        """Return where the store is, as people know it."""
        return self.root.shown

    def check_writable(self) -> None:
        """Write a small file, read it back and delete it; SnapshotError if that can't be done."""
        where = self.root.below(f"probe-{uuid.uuid4().hex}")
        self._make_folder(self.root)
        try:
            with where.filesystem.open_output_stream(where.path) as sink:
                sink.write(_PROBE)
            with where.filesystem.open_input_stream(where.path) as source:
                found = source.read()
        except (OSError, pa.ArrowException) as error:
            raise SnapshotError(f"{self.uri}: no snapshots can be kept here: {error}") from error
        finally:
            _delete(where)
        if found != _PROBE:
            raise SnapshotError(f"{self.uri}: no snapshots can be kept here: one reads otherwise")

    def write(self, frozen: Frozen, offset: int) -> Candidate:
        """Write a partition's snapshot, read it back, and let the oldest ones go.

        `offset` is the position in the log of the first message that it does not cover. Raises
        SnapshotError if it can't be written or is not whole then; what was there before stays.
        """
        partition = frozen.meta["partition"]
        if partition is None:
            raise SnapshotError(f"{self.uri}: holds snapshots of partitions, not of whole catalogs")
        self.keep_catalog(frozen.plan.catalog)
        folder = self._folder(partition)
        self._make_folder(folder)
        self._sweep(folder)
        where = folder.below(f"{offset:020}{SUFFIX}")
        frozen.write(where, offset=offset)
        try:
            snapshot.read(where)
        except SnapshotError:
            _delete(where)
            raise
        self._no_good.discard(where.path)
        self.keep_catalog(frozen.plan.catalog)  # it may just have been pruned, see there
        if self._prune(partition, offset):
            self._prune_catalogs()
        entry = where.filesystem.get_file_info(where.path)
        return Candidate(partition, offset, where, entry.size or 0, entry.mtime)

    def latest(self, partition: int) -> list[Candidate]:
        """Return what should be snapshots of a partition, the newest first."""
        found = []
        folder = self._folder(partition)
        for entry in self._entries(folder):
            match = _NAME.fullmatch(entry.base_name)
            if match and entry.is_file:
                where = folder.below(entry.base_name)
                size = entry.size or 0
                found.append(Candidate(partition, int(match[1]), where, size, entry.mtime))
        return sorted(found, key=lambda candidate: -candidate.offset)

    def find(self, partition: int) -> Found | None:
        """Return the newest whole snapshot of a partition; None where there never was one.

        Raises SnapshotError where there are snapshots but none is any good.
        """
        skipped: list[Skipped] = []
        for candidate in self.latest(partition):
            try:
                return Found(candidate, snapshot.read(candidate.place), skipped)
            except SnapshotError as error:
                skipped.append(Skipped(candidate, error.problem))
                self._no_good.add(candidate.place.path)
        if not skipped:
            return None
        reasons = "; ".join(skip.why for skip in skipped)
        raise SnapshotError(
            f"{self.uri}: no snapshot of partition {partition} is any good; "
            f"move its folder away to begin its log anew ({reasons})"
        )

    def partitions(self) -> list[int]:
        """Return the partitions that have a folder."""
        names = [FOLDER.fullmatch(entry.base_name) for entry in self._entries(self.root)]
        return sorted(int(match[1]) for match in names if match)

    def keep_catalog(self, catalog: Any) -> None:
        """Keep a copy of a catalog, so that snapshots that speak of it can be read without it."""
        digest = catalog.digest
        if not isinstance(catalog, Catalog):
            return
        where = self._catalog(digest)
        try:
            if where.filesystem.get_file_info(where.path).type == fs.FileType.NotFound:
                self._make_folder(self.root)
                with tempfile.TemporaryDirectory() as folder:
                    local = Path(folder) / "catalog"
                    write_columns(local, catalog.columns, catalog.meta)
                    _upload(local, where)
        except (OSError, OutputError, pa.ArrowException) as error:
            raise SnapshotError(f"{where.shown}: the catalog can't be kept: {error}") from error

    def open_catalog(self, digest: str) -> Catalog:
        """Open the copy of a catalog. Raises SnapshotError if there is none, or not whole."""
        where = self._catalog(digest)
        try:
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / "catalog"
                fs.copy_files(
                    where.path,
                    str(local),
                    source_filesystem=where.filesystem,
                    destination_filesystem=fs.LocalFileSystem(),
                )
                catalog = Catalog.open(local)  # mapped: it stays when the folder goes
            catalog.verify()
        except (OSError, pa.ArrowException, CatalogError) as error:
            problem = f"{where.shown}: no whole copy of the catalog: {error}"
            raise SnapshotError(problem) from error
        return catalog

    def _prune(self, partition: int, newest: int) -> bool:
        """Delete what is no good, and of what is older than the newest all but the ones to keep.

        Return whether there was anything to delete.
        """
        listed = self.latest(partition)
        no_good = [c for c in listed if c.place.path in self._no_good]
        older = [c for c in listed if c.offset < newest and c not in no_good]
        leaving = [*no_good, *older[self.keep - 1 :]]
        for candidate in leaving:
            _delete(candidate.place)
        return bool(leaving)

    def _prune_catalogs(self) -> None:
        """Delete the copies of catalogs that no snapshot speaks of; what fails is left for later.

        Safe while another worker writes its first snapshot of a catalog: a copy is put aside before
        the snapshots are looked through for the last time, and who writes a snapshot looks for the
        copy after that can be seen. So either the snapshot is found here, and the copy put back, or
        it came after the copy was gone, and then its writer misses the copy and writes it again.
        """
        with suppress(SnapshotError, OSError, pa.ArrowException):
            copies, aside = self._copies()
            if len(copies) < 2 and not aside:
                return  # that of the snapshot just written
            unused = copies - self._catalogs_in_use()
            for digest in unused:
                where = self._catalog(digest)
                where.filesystem.move(where.path, where.path + _ASIDE)
            aside |= unused
            try:
                used = self._catalogs_in_use() if aside else set()
            except SnapshotError:
                used = aside  # that can't be told now
            for digest in aside:
                where = self._catalog(digest)
                there = where.filesystem.get_file_info(where.path).is_file
                if digest in used and not there:
                    where.filesystem.move(where.path + _ASIDE, where.path)
                else:
                    _delete(where._replace(path=where.path + _ASIDE))

    def _copies(self) -> tuple[set[str], set[str]]:
        """Return the catalogs that have a copy, and those whose copy was put aside."""
        found = [_COPY.fullmatch(entry.base_name) for entry in self._entries(self.root)]
        copies = {match[1] for match in found if match and not match[2]}
        return copies, {match[1] for match in found if match and match[2]}

    def _catalogs_in_use(self) -> set[str]:
        """Return the catalogs that snapshots speak of; SnapshotError if one does not tell."""
        found = {}
        for candidate in (each for number in self.partitions() for each in self.latest(number)):
            key = candidate.uri, candidate.n_bytes, candidate.written
            digest = self._speaks.get(key)
            if digest is None:
                try:
                    digest = snapshot.read_meta(candidate.place)["catalog"]
                except SnapshotError as error:
                    if isinstance(error.__cause__, FileNotFoundError):
                        continue  # its owner pruned it meanwhile
                    raise
            found[key] = digest
        self._speaks = found
        return set(found.values())

    def _sweep(self, folder: Place) -> None:
        """Delete what a writer that was killed left behind."""
        for entry in self._entries(folder):
            if entry.base_name.endswith(PART):
                _delete(folder.below(entry.base_name))

    def _entries(self, folder: Place) -> list[fs.FileInfo]:
        selector = fs.FileSelector(folder.path, allow_not_found=True)
        try:
            return list(folder.filesystem.get_file_info(selector))
        except (OSError, pa.ArrowException) as error:
            raise SnapshotError(f"{folder.shown}: can't be listed: {error}") from error

    def _make_folder(self, folder: Place) -> None:
        try:
            folder.filesystem.create_dir(folder.path, recursive=True)
        except (OSError, pa.ArrowException) as error:
            raise SnapshotError(f"{folder.shown}: the folder can't be made: {error}") from error

    def _folder(self, partition: int) -> Place:
        return self.root.below(f"partition-{partition:04}")

    def _catalog(self, digest: str) -> Place:
        return self.root.below(f"catalog-{digest}.catalog")


def refuse_other_catalog(found: Found, digest: str) -> None:
    """Raise ForeignSnapshotError, which says what to do, unless a snapshot is of a catalog."""
    theirs = found.snapshot.meta["catalog"]
    if theirs != digest:
        raise ForeignSnapshotError(
            f"{found.candidate.uri}: the state of catalog {theirs}, but this is catalog {digest}: "
            "go back to that catalog, or adopt this one (adopt_catalog) to keep the state of the "
            "sensors that are in both"
        )


def _delete(where: Place) -> None:
    with suppress(OSError, pa.ArrowException):  # whoever comes next tries again
        where.filesystem.delete_file(where.path)


def _upload(local: Path, where: Place) -> None:
    part = where._replace(path=f"{where.path}{PART}")
    try:
        fs.copy_files(
            str(local),
            part.path,
            source_filesystem=fs.LocalFileSystem(),
            destination_filesystem=where.filesystem,
        )
        make_durable(where.filesystem, part.path)
        where.filesystem.move(part.path, where.path)
    except (OSError, pa.ArrowException):
        _delete(part)
        raise

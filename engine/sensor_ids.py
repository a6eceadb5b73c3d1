"""Ids of files to dense indices of the catalog, and a tally of those that it does not know."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.arrow_views import mask, nulls, texts, view
from engine.columns import is_text, numbers
from kernels.layout import ACKNOWLEDGE, UNKNOWN

CATALOG_KEY = b"tocsin.catalog"
"""Key of the schema metadata under which dense readings carry the digest of their catalog."""
MAX_NAMED = 10_000
"""Unknown ids told apart; beyond it only readings are counted."""


class Tally:
    """What reading the files came across that the log does not hold."""

    def __init__(self) -> None:
        self.no_time = 0
        self.unknown_readings = 0
        self.unknown_ids: dict[str, int] = {}
        self.unknown_overflow = False

    def note_unknown(self, ids: pa.Array) -> None:
        """Count readings of sensors that the catalog does not have, by id."""
        import pyarrow.compute as pc  # 80 ms that only strangers cost

        self.unknown_readings += len(ids)
        for entry in pc.value_counts(ids):
            name = str(entry["values"].as_py())
            if name in self.unknown_ids or len(self.unknown_ids) < MAX_NAMED:
                self.unknown_ids[name] = self.unknown_ids.get(name, 0) + entry["counts"].as_py()
            else:
                self.unknown_overflow = True


class SensorIds:
    """Resolves ids to dense indices; a dictionary that comes again is looked up once."""

    def __init__(self, catalog: Any, tally: Tally) -> None:
        self._catalog = catalog
        self._resolver = catalog.resolver()
        self._tally = tally
        self._dictionary: pa.Array | None = None
        self._known = np.empty(0, np.int32)

    def dense(self, array: pa.Array, value: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return indices that are dense already; what is out of bounds is unknown."""
        index = numbers(array, np.int32)
        if array.null_count:
            index = np.where(nulls(array), np.int32(UNKNOWN), index)
        wrong = outside(index, value, self._catalog.n_sensors, self._catalog.n_sources)
        if wrong is not None:
            self._tally.note_unknown(array.filter(mask(wrong)).cast(pa.string()))
            index = np.where(wrong, np.int32(UNKNOWN), index)
        return index

    def resolve(self, array: pa.Array, template: Template) -> NDArray[np.int32]:
        """Return the dense index of each id of a column, UNKNOWN where there is none."""
        if pa.types.is_dictionary(array.type):
            dictionary = array.dictionary
            if self._dictionary is None or not dictionary.equals(self._dictionary):
                found = self._lookup(template.ids(_as_text(dictionary)))
                self._known = np.append(found, np.int32(UNKNOWN))
                self._dictionary = dictionary
            codes = view(array.indices)
            if array.indices.null_count:
                codes = np.where(nulls(array.indices), len(dictionary), codes)
            index = self._known.take(codes)
        else:
            index = self._lookup(template.ids(_as_text(array)))
        unknown = index == UNKNOWN
        if unknown.any():
            named = array.filter(mask(unknown))
            if pa.types.is_dictionary(named.type):
                named = named.dictionary_decode()
            self._tally.note_unknown(template.ids(_as_text(named)))
        return index

    def all(self, names: list[str]) -> NDArray[np.int32]:
        """Return the dense index of each id, UNKNOWN where there is none."""
        return self._lookup(texts(names))

    def _lookup(self, ids: pa.Array) -> NDArray[np.int32]:
        found = self._resolver.resolve(ids)
        # -1 is a tick in the log
        return np.where(found < 0, np.int32(UNKNOWN), found)


def outside(
    index: NDArray[np.int32], value: NDArray[np.float64], n_sensors: int, n_sources: int
) -> NDArray[np.bool_] | None:
    """Tell which dense indices are neither a sensor nor a tick nor the acknowledge of a source."""
    wrong = (index >= n_sensors) | (index < ACKNOWLEDGE)
    acknowledge = index == ACKNOWLEDGE
    if acknowledge.any():
        named = (value >= 0) & (value < n_sources) & (value == np.floor(value))
        wrong |= acknowledge & ~named
    return wrong if wrong.any() else None


def _as_text(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if is_text(kind) or pa.types.is_integer(kind):
        # one kind of text, or the kernel compiles again for another
        return array.cast(pa.string())
    raise ValueError(f"must hold ids, text or whole numbers, not {kind}")


class Template:
    """The template of an id with all but the sensor or the column filled in."""

    def __init__(self, template: str, path: Path) -> None:
        fixed = {"file": stem(path), "folder": path.resolve().parent.name}
        self.parts: list[str | None] = []
        for literal, field, _, _ in Formatter().parse(template):
            self.parts.append(literal)
            if field is not None:
                self.parts.append(fixed.get(field))
        self.plain = [part for part in self.parts if part != ""] == [None]

    @property
    def constant(self) -> bool:
        """Whether all ids are the same."""
        return None not in self.parts

    def id_of(self, name: str) -> str:
        """Return the id with one name in its place."""
        return "".join(name if part is None else part for part in self.parts)

    def ids(self, names: pa.Array) -> pa.Array:
        """Return ids with each name in its place."""
        if self.plain:
            return names
        import pyarrow.compute as pc

        parts = [names if part is None else texts([part])[0] for part in self.parts]
        return pc.binary_join_element_wise(*parts, texts([""])[0])


def stem(path: Path) -> str:
    """Return the name of a file without its endings: `a` of `a.csv.gz`."""
    name = path.name
    for ending in (".gz", ".zst"):
        name = name.removesuffix(ending)
    return Path(name).stem

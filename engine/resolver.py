"""Turn arrays of string ids into dense indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from engine.arrow_views import nulls, view
from engine.catalog_file import text_buffers
from engine.readings import read_only
from kernels.resolve import BLOCK, MAX_PROBE, build_table, resolve_ids, table_words

_SEEDS = 8


def enter_ids(ids: Any) -> tuple[np.ndarray, int, int, np.ndarray]:
    """Build the hash table of an array of ids: `(slots, seed, max_probe, first)`.

    `first[i]` is the index of the first id equal to id i: i itself unless the id is a duplicate.
    """
    offset, octets = text_buffers(ids)
    first = np.empty(len(ids), np.int32)
    words = table_words(len(ids))
    for seed in range(_SEEDS):
        slots = np.zeros(words, np.uint64)
        max_probe = int(build_table(offset, octets, np.uint64(seed), slots, first))
        if max_probe <= MAX_PROBE:
            break
    return slots, seed, max_probe, first


class Resolver:
    """Looks ids up in the table of a catalog.

    `slots`, `seed` and `max_probe` come from `enter_ids` over the array `ids`.
    """

    def __init__(self, ids: Any, slots: np.ndarray, seed: int, max_probe: int) -> None:
        self._octets = text_buffers(ids)[1]
        self._slots = slots
        self._seed = np.uint64(seed)
        self._max_probe = max_probe

    @classmethod
    def of(cls, ids: Any) -> Resolver:
        """Return a resolver of any array of distinct ids, building its table now."""
        slots, seed, max_probe, _ = enter_ids(ids)
        return cls(ids, slots, seed, max_probe)

    def resolve(self, ids: Any) -> np.ndarray:
        """Return the dense index of each id as int32, −1 where it is null or unknown.

        Takes a string, large_string, string_view, binary or dictionary array, chunked or not.
        Raises `TypeError` for any other.
        """
        if isinstance(ids, pa.ChunkedArray):
            parts = [self.resolve(chunk) for chunk in ids.chunks]
            return np.concatenate(parts) if parts else np.empty(0, np.int32)
        kind = ids.type
        if pa.types.is_dictionary(kind):
            return self._resolve_dictionary(ids)
        if pa.types.is_string_view(kind):
            ids = ids.cast(pa.large_string())
        elif pa.types.is_null(kind):
            return np.full(len(ids), -1, np.int32)
        elif not _is_text(kind):
            raise TypeError(f"ids must be text, got {kind}")
        offset, octets = text_buffers(ids)
        index = self.resolve_spans(octets, offset[:-1], offset[1:])
        if ids.null_count:
            index[nulls(ids)] = -1
        return index

    def resolve_spans(self, octets: Any, begins: Any, ends: Any) -> np.ndarray:
        """Return the dense index of each id that lies in `octets`, −1 where it is unknown.

        octets (B,) uint8; begins, ends (R,) int64.
        """
        index = np.empty(len(begins), np.int32)
        # scratch of this call alone: a resolver serves any number of threads
        tags, where = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
        resolve_ids(
            read_only(begins),
            read_only(ends),
            read_only(octets),
            self._slots,
            self._octets,
            self._seed,
            self._max_probe,
            tags,
            where,
            index,
        )
        return index

    def _resolve_dictionary(self, ids: Any) -> np.ndarray:
        # one more entry, for an index outside the dictionary
        known = np.append(self.resolve(ids.dictionary), np.int32(-1))
        codes = ids.indices
        at = view(codes)
        outside = (at < 0) | (at >= len(ids.dictionary))
        if codes.null_count:
            outside |= nulls(codes)
        return known[np.where(outside, len(known) - 1, at)]


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )

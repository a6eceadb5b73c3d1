"""Resolve string ids to dense indices: a hash table over the bytes of Arrow string arrays.

The table is open addressing with linear probing, a power of two of slots, at most half of them
full. A slot is two words in one cache line: the upper half of the id's hash beside its index plus
one, and where the id's bytes lie beside their number. Most misses end without touching an id; a hit
is confirmed on the bytes, always. How far a probe may go is known when the table is built, and no
later query can lengthen it.

A lookup runs in blocks of three passes, each asking for the cache lines that the next one reads:
hash the ids, read the slots, compare the bytes. At a million ids in random order, 14 bytes each,
slots of one word and a fourth pass for the place of the id took 70 ns instead of 34.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from kernels.jit import COMPILED, kernel, prefetch, step

BLOCK = 64
MAX_PROBE = 128
"""A table that needs longer probes is built again with another seed."""

_MASK_64 = 0xFFFF_FFFF_FFFF_FFFF
_K1 = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2^64 / golden ratio
_K2 = np.uint64(0xD6E8_FEB8_6659_FD93)
_32 = np.uint64(32)
_29 = np.uint64(29)
_LOW = np.uint64(0xFFFF_FFFF)
_EMPTY = np.uint64(0)
# a slot can describe an id of less than 2^24 bytes, and 2^40 bytes of all ids together
_SIZE_BITS = np.uint64(24)
_SIZE_MASK = np.uint64((1 << 24) - 1)

if not COMPILED:

    def _load(octets: Any, index: int, width: int) -> Any:
        return np.uint64(int.from_bytes(octets[index : index + width].tobytes(), "little"))

    def load_u64(octets: Any, index: int) -> Any:
        """Return eight bytes from `index` as one little-endian word."""
        return _load(octets, index, 8)

    def load_u32(octets: Any, index: int) -> Any:
        """Return four bytes from `index` as one little-endian word, widened to 64 bits."""
        return _load(octets, index, 4)

    def times(a: Any, b: Any) -> Any:
        """Return the product modulo 2^64, without NumPy's warning about the overflow."""
        return np.uint64((int(a) * int(b)) & _MASK_64)

else:  # pragma: no cover - only compiled code comes here

    def _loader(bits: int) -> Any:
        def load(typingctx: Any, octets: Any, index: Any) -> Any:
            if not isinstance(octets, types.Array) or not isinstance(index, types.Integer):
                return None

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                array_type, index_type = signature.args
                view = context.make_array(array_type)(context, builder, args[0])
                at = context.cast(builder, args[1], index_type, types.intp)
                word = ir.IntType(bits)
                address = builder.bitcast(builder.gep(view.data, [at]), word.as_pointer())
                loaded = builder.load(address)
                loaded.align = 1
                return builder.zext(loaded, ir.IntType(64)) if bits < 64 else loaded

            return types.uint64(octets, index), codegen

        return intrinsic(load)

    # one unaligned load each; the caller has checked that the bytes are there
    load_u64 = _loader(64)
    load_u32 = _loader(32)

    @step
    def times(a: Any, b: Any) -> Any:  # type: ignore[misc]
        """Return the product modulo 2^64."""
        return a * b


@step
def hash_id(octets, begin, size, seed):
    """Return a 64-bit hash of `size` bytes from `begin`; every byte and the size count."""
    h = times(np.uint64(size) ^ seed, _K1)
    if size >= 8:
        end = begin + size - 8
        at = begin
        while at < end:
            h = times(h ^ load_u64(octets, at), _K2)
            h ^= h >> _32
            at += 8
        # the last eight bytes, overlapping what was read: no loop over a tail
        h = times(h ^ load_u64(octets, end), _K2)
    elif size >= 4:
        word = load_u32(octets, begin) | (load_u32(octets, begin + size - 4) << _32)
        h = times(h ^ word, _K2)
    elif size > 0:
        word = np.uint64(octets[begin]) << _32
        word |= np.uint64(octets[begin + size // 2]) << np.uint64(8)
        word |= np.uint64(octets[begin + size - 1])
        h = times(h ^ word, _K2)
    h ^= h >> _32
    h = times(h, _K1)
    return h ^ (h >> _29)


@step
def same_id(a, a_begin, b, b_begin, size):
    """Tell whether `size` bytes of `a` and `b` are equal."""
    differ = _EMPTY
    if size >= 8:
        last = size - 8
        differ = load_u64(a, a_begin) ^ load_u64(b, b_begin)
        differ |= load_u64(a, a_begin + last) ^ load_u64(b, b_begin + last)
        at = 8
        # ends at the first difference, which also keeps the compiler from vectorising two rounds
        while at < last and differ == _EMPTY:
            differ |= load_u64(a, a_begin + at) ^ load_u64(b, b_begin + at)
            at += 8
    elif size >= 4:
        last = size - 4
        differ = load_u32(a, a_begin) ^ load_u32(b, b_begin)
        differ |= load_u32(a, a_begin + last) ^ load_u32(b, b_begin + last)
    else:
        for at in range(size):
            differ |= np.uint64(a[a_begin + at] ^ b[b_begin + at])
    return differ == _EMPTY


def table_words(n_ids: int) -> int:
    """Return the words of a table for `n_ids`: two a slot, a power of two, at most half full."""
    n_slots = 16
    while n_slots < 2 * n_ids:
        n_slots *= 2
    return 2 * n_slots


@kernel
def build_table(offset, octets, seed, slots, first):
    """Enter every id into an empty table, the first of equal ids only.

    Shapes   N ids, T slots, T a power of two ≥ 2 N
    In       offset  (N + 1,) int64   where each id begins in `octets`; the last is the end
             octets  (B,) uint8       the bytes of all ids
             seed    uint64           of the hash
    In/out   slots   (2 T,) uint64    zeros; hash's upper half << 32 | index + 1, begin << 24 | size
    Out      first   (N,) int32       the index of the first equal id; its own when there is none
    Returns  the longest probe, in slots
    Cost     O(N), allocates nothing
    Oracle   a dict, in tests/kernels/test_resolve.py
    """
    mask = np.int64(slots.size // 2 - 1)
    longest = 0
    for i in range(offset.size - 1):
        begin = offset[i]
        size = offset[i + 1] - begin
        h = hash_id(octets, begin, size, seed)
        tag = h >> _32
        at = np.int64(h & np.uint64(mask))
        first[i] = i
        probe = 1
        while slots[2 * at] != _EMPTY:
            j = np.int64(slots[2 * at] & _LOW) - 1
            if (
                slots[2 * at] >> _32 == tag
                and offset[j + 1] - offset[j] == size
                and same_id(octets, offset[j], octets, begin, size)
            ):
                first[i] = j
                break
            at = (at + 1) & mask
            probe += 1
        if first[i] == i:
            slots[2 * at] = (tag << _32) | np.uint64(i + 1)
            slots[2 * at + 1] = (np.uint64(begin) << _SIZE_BITS) | np.uint64(size)
            longest = max(longest, probe)
    return longest


@step
def find_slot(slots, at, tag, size, max_probe):
    """Return the first slot from `at` on with this tag and size, −1 when there is none."""
    mask = np.int64(slots.size // 2 - 1)
    for _ in range(max_probe):
        slot = slots[2 * at]
        if slot == _EMPTY:
            return np.int64(-1)
        if slot >> _32 == tag and slots[2 * at + 1] & _SIZE_MASK == np.uint64(size):
            return at
        at = (at + 1) & mask
    return np.int64(-1)


@kernel
def resolve_ids(begins, ends, octets, slots, known, seed, max_probe, tags, where, index):
    """Look up every id of a batch.

    Shapes   R ids asked, T slots, BLOCK ids a block
    In       begins     (R,) int64       where each id begins and ends in `octets`; an id that lies
             ends       (R,) int64       outside or backwards is unknown, never a wild read
             octets     (B,) uint8
             slots      (2 T,) uint64    from `build_table`
             known      (C,) uint8       the bytes the table was built over
             seed       uint64           the table's
             max_probe  int64            the longest probe of the build
    Scratch  tags       (BLOCK,) uint64  any length does; BLOCK is the fastest here
             where      (BLOCK,) int64
    Out      index      (R,) int32       −1 where the id is unknown
    Cost     O(R + B), allocates nothing
    Oracle   a dict, in tests/kernels/test_resolve.py
    """
    mask = np.int64(slots.size // 2 - 1)
    n = begins.size
    block = where.size
    for start in range(0, n, block):
        count = min(block, n - start)
        for k in range(count):
            begin = begins[start + k]
            end = ends[start + k]
            where[k] = -1
            if 0 <= begin <= end <= octets.size:
                h = hash_id(octets, begin, end - begin, seed)
                tags[k] = h >> _32
                where[k] = np.int64(h & np.uint64(mask))
                prefetch(slots, 2 * where[k], 0)
        for k in range(count):
            if where[k] < 0:
                continue
            size = ends[start + k] - begins[start + k]
            where[k] = find_slot(slots, where[k], tags[k], size, max_probe)
            if where[k] >= 0:
                place = np.int64(slots[2 * where[k] + 1] >> _SIZE_BITS)
                prefetch(known, place, 0)
                prefetch(known, place, size - 1)
        for k in range(count):
            found = np.int64(-1)
            at = where[k]
            while at >= 0 and found < 0:
                begin = begins[start + k]
                size = ends[start + k] - begin
                place = np.int64(slots[2 * at + 1] >> _SIZE_BITS)
                if same_id(known, place, octets, begin, size):
                    found = np.int64(slots[2 * at] & _LOW) - 1
                else:
                    # another id with this tag and size: too rare to be worth a pass
                    at = find_slot(slots, (at + 1) & mask, tags[k], size, max_probe)
            index[start + k] = found

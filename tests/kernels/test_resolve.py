from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog_file import text_buffers
from engine.resolver import Resolver, enter_ids
from kernels.resolve import (
    BLOCK,
    MAX_PROBE,
    build_table,
    hash_id,
    resolve_ids,
    same_id,
    table_words,
    times,
)

_K1, _K2 = 0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93
_MASK = 2**64 - 1


def hash_oracle(content: bytes, seed: int) -> int:
    """The hash of the module's docstring, in Python integers."""
    size = len(content)
    h = ((size ^ seed) * _K1) & _MASK
    if size >= 8:
        for at in range(0, size - 8, 8):
            h = ((h ^ int.from_bytes(content[at : at + 8], "little")) * _K2) & _MASK
            h ^= h >> 32
        h = ((h ^ int.from_bytes(content[-8:], "little")) * _K2) & _MASK
    elif size >= 4:
        word = int.from_bytes(content[:4], "little") | int.from_bytes(content[-4:], "little") << 32
        h = ((h ^ word) * _K2) & _MASK
    elif size:
        word = content[0] << 32 | content[size // 2] << 8 | content[-1]
        h = ((h ^ word) * _K2) & _MASK
    h ^= h >> 32
    h = (h * _K1) & _MASK
    return h ^ (h >> 29)


def colliding(n: int, seed: int = 0) -> list[bytes]:
    """Return ids of sixteen bytes with one and the same 64-bit hash under `seed`."""

    def state(word: int) -> int:
        h = ((16 ^ seed) * _K1) & _MASK
        h = ((h ^ word) * _K2) & _MASK
        return h ^ (h >> 32)

    return [
        word.to_bytes(8, "little") + (state(word) ^ 0x1234).to_bytes(8, "little")
        for word in range(1, n + 1)
    ]


def resolved(known: list[bytes], asked: list[bytes]) -> list[int]:
    resolver = Resolver.of(pa.array(known, pa.large_binary()))
    return resolver.resolve(pa.array(asked, pa.large_binary())).tolist()


def truth(known: list[bytes], asked: list[bytes]) -> list[int]:
    index = {name: position for position, name in enumerate(known)}
    return [index.get(name, -1) for name in asked]


# few letters, so that ids are often equal, prefixes of one another, or one byte apart
near_ids = st.text("ab\x00é日", max_size=20).map(str.encode)
long_ids = st.builds(lambda a, n, b: a + b"x" * n + b, near_ids, st.integers(0, 300), near_ids)


@given(st.lists(near_ids | long_ids, unique=True, max_size=60), st.data())
def test_lookup_equals_a_dict(known: list[bytes], data: st.DataObject) -> None:
    asked = data.draw(
        st.lists((st.sampled_from(known) if known else near_ids) | near_ids | long_ids, max_size=90)
    )
    assert resolved(known, asked) == truth(known, asked)


def test_every_byte_of_an_id_tells() -> None:
    for size in [*range(1, 34), 100]:
        known = [bytes(size)]
        near = [bytes(at) + b"\x01" + bytes(size - at - 1) for at in range(size)]
        others = [*near, bytes(size + 1), bytes(size - 1), bytes(size) + b"\x01"]
        assert resolved(known, [*others, known[0]]) == [-1] * len(others) + [0]
        assert resolved(near, near) == list(range(size))


@pytest.mark.parametrize("n_asked", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks_end_where_they_should(n_asked: int) -> None:
    known = [b"id-%d" % i for i in range(500)]
    asked = [b"id-%d" % (i * 7 % 600) for i in range(n_asked)]
    assert resolved(known, asked) == truth(known, asked)


@given(st.binary(max_size=40), st.integers(0, 7))
def test_the_hash_is_that_of_the_oracle(content: bytes, seed: int) -> None:
    octets = np.frombuffer(b"\xff" * 3 + content + b"\xff" * 3, np.uint8)
    found = hash_id(octets, 3, len(content), np.uint64(seed))
    assert int(found) == hash_oracle(content, seed)


@given(st.integers(0, _MASK), st.integers(0, _MASK))
def test_products_wrap_at_64_bits(a: int, b: int) -> None:
    assert int(times(np.uint64(a), np.uint64(b))) == (a * b) & _MASK


@given(st.binary(max_size=40), st.data())
def test_ids_are_the_same_when_all_bytes_are(content: bytes, data: st.DataObject) -> None:
    a = np.frombuffer(b"?" + content, np.uint8)
    b = np.frombuffer(content + b"?", np.uint8)
    assert same_id(a, 1, b, 0, len(content))
    if content:
        at = data.draw(st.integers(0, len(content) - 1))
        other = b.copy()
        other[at] ^= data.draw(st.integers(1, 255))
        assert not same_id(a, 1, other, 0, len(content))


def test_ids_with_one_hash_are_told_apart_by_their_bytes() -> None:
    ids = colliding(60)
    assert len({hash_oracle(name, 0) for name in ids}) == 1
    known, strangers = ids[:40], ids[40:]
    offset, octets = text_buffers(pa.array(known, pa.large_binary()))
    slots = np.zeros(table_words(len(known)), np.uint64)
    first = np.empty(len(known), np.int32)
    max_probe = build_table(offset, octets, np.uint64(0), slots, first)
    assert max_probe == 40 and first.tolist() == list(range(40))
    assert resolved(known, [*reversed(known), *strangers]) == [*range(39, -1, -1), *[-1] * 20]


def test_a_table_with_long_probes_is_built_with_another_seed() -> None:
    ids = colliding(MAX_PROBE + 20)
    _, seed, max_probe, _ = enter_ids(pa.array(ids, pa.large_binary()))
    assert seed > 0 and max_probe <= MAX_PROBE
    assert resolved(ids, ids) == list(range(len(ids)))


def test_duplicates_name_the_first_and_take_no_slot() -> None:
    ids = pa.array(["a", "b", "a", "a", "c", "b"], pa.large_string())
    slots, _, _, first = enter_ids(ids)
    assert first.tolist() == [0, 1, 0, 0, 4, 1]
    assert np.count_nonzero(slots[::2]) == 3


def test_a_probe_wraps_round_the_end_of_the_table() -> None:
    n_slots = table_words(1) // 2
    last = [b"%d" % i for i in range(4000) if hash_oracle(b"%d" % i, 0) % n_slots == n_slots - 1]
    assert resolved(last[:3], last[:6]) == [0, 1, 2, -1, -1, -1]


def test_a_table_is_a_power_of_two_and_at_most_half_full() -> None:
    for n_ids in [0, 1, 8, 9, 1000, 1024, 1025]:
        n_slots = table_words(n_ids) // 2
        assert n_slots >= 2 * n_ids and n_slots & (n_slots - 1) == 0


def test_offsets_outside_the_bytes_or_backwards_are_unknown() -> None:
    known = pa.array([b"a"], pa.large_binary())
    slots, seed, max_probe, _ = enter_ids(known)
    octets = np.frombuffer(b"a", np.uint8)
    offset = np.array([0, 1, 2**62, -(2**63), 1, 0, 1], np.int64)
    index = np.full(6, 9, np.int32)
    tags, where = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
    seed = np.uint64(seed)
    resolve_ids(offset[:-1], offset[1:], octets, slots, octets, seed, max_probe, tags, where, index)
    assert index.tolist() == [0, -1, -1, -1, -1, 0]

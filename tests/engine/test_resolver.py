from __future__ import annotations

import pyarrow as pa
import pytest

from engine.resolver import Resolver

IDS = ["a", "bb", "", "日本", "a-very-long-identifier-of-a-sensor"]
ASKED = ["bb", None, "x", "日本", "", "a-very-long-identifier-of-a-sensor", "A"]
FOUND = [1, -1, -1, 3, 2, 4, -1]


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    return Resolver.of(pa.array(IDS, pa.large_string()))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]
)
def test_every_text_layout_resolves(resolver: Resolver, kind: pa.DataType) -> None:
    asked = pa.array(ASKED, pa.string()).cast(kind)
    index = resolver.resolve(asked)
    assert index.dtype == "int32" and index.tolist() == FOUND
    assert resolver.resolve(asked.slice(3, 3)).tolist() == FOUND[3:6]
    assert resolver.resolve(asked.slice(0, 0)).tolist() == []


def test_chunks_resolve_one_after_the_other(resolver: Resolver) -> None:
    chunked = pa.chunked_array([["a", "b"], [], ["bb", None]], pa.string())
    assert resolver.resolve(chunked).tolist() == [0, -1, 1, -1]
    assert resolver.resolve(pa.chunked_array([], pa.string())).tolist() == []


@pytest.mark.parametrize("codes", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64()])
def test_a_dictionary_is_resolved_once_and_taken(resolver: Resolver, codes: pa.DataType) -> None:
    asked = pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0, 2, 1, 3], codes), pa.array(["bb", "a", "nobody", None])
    )
    assert resolver.resolve(asked).tolist() == [0, -1, 1, -1, 0, -1]
    assert resolver.resolve(asked.slice(2, 2)).tolist() == [1, -1]


def test_a_dictionary_index_outside_it_is_unknown(resolver: Resolver) -> None:
    asked = pa.DictionaryArray.from_arrays(
        pa.array([0, 7, -1, None], pa.int32()), pa.array(["a"]), safe=False
    )
    assert resolver.resolve(asked).tolist() == [0, -1, -1, -1]


def test_nulls_alone_and_an_empty_dictionary_are_unknown(resolver: Resolver) -> None:
    assert resolver.resolve(pa.nulls(2)).tolist() == [-1, -1]
    asked = pa.DictionaryArray.from_arrays(pa.array([None], pa.int32()), pa.array([], pa.string()))
    assert resolver.resolve(asked).tolist() == [-1]


def test_an_array_that_is_no_text_is_refused(resolver: Resolver) -> None:
    with pytest.raises(TypeError, match="ids must be text, got int64"):
        resolver.resolve(pa.array([1, 2]))


def test_offsets_that_point_outside_are_unknown_and_read_nothing(resolver: Resolver) -> None:
    offsets = pa.py_buffer(
        b"".join(v.to_bytes(4, "little", signed=True) for v in [0, 1, 2**31 - 1, -5, 1, 0, 1])
    )
    asked = pa.Array.from_buffers(pa.string(), 6, [None, offsets, pa.py_buffer(b"a")])
    assert resolver.resolve(asked).tolist() == [0, -1, -1, -1, -1, 0]


def test_no_ids_at_all_know_nothing() -> None:
    empty = Resolver.of(pa.array([], pa.large_string()))
    assert empty.resolve(pa.array(["a", ""])).tolist() == [-1, -1]

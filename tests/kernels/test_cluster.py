from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels.cluster import join_clusters

Edge = tuple[int, int]


def joined(edges: list[Edge], load: list[int], bound: int) -> tuple[list[int], list[bool]]:
    n = len(load)
    parent = np.arange(n, dtype=np.int32)
    loads = np.array(load, np.int64)
    cut = np.zeros(len(edges), bool)
    ends = np.array(edges, np.int32).reshape(-1, 2)
    origin, target = np.ascontiguousarray(ends[:, 0]), np.ascontiguousarray(ends[:, 1])
    join_clusters(origin, target, bound, parent, loads, cut)
    for root in set(parent.tolist()):
        assert parent[root] == root
        assert loads[root] == sum(load[i] for i in range(n) if parent[i] == root)
    return parent.tolist(), cut.tolist()


def oracle(edges: list[Edge], load: list[int], bound: int) -> tuple[list[set[int]], list[bool]]:
    """Sets of nodes, joined edge by edge while the sum of their loads stays within the bound."""
    clusters = [{i} for i in range(len(load))]
    cut = []
    for a, b in edges:
        one = next(c for c in clusters if a in c)
        other = next(c for c in clusters if b in c)
        too_much = one is not other and sum(load[i] for i in one | other) > bound
        cut.append(too_much)
        if one is not other and not too_much:
            clusters.remove(other)
            one |= other
    return clusters, cut


@st.composite
def graphs(draw: Any) -> tuple[list[Edge], list[int], int]:
    n = draw(st.integers(1, 12))
    node = st.integers(0, n - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=25))
    load = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    return edges, load, draw(st.integers(0, 40))


@given(graphs())
def test_clusters_are_those_of_the_oracle(graph: tuple[list[Edge], list[int], int]) -> None:
    edges, load, bound = graph
    parent, cut = joined(edges, load, bound)
    clusters, expected_cut = oracle(edges, load, bound)
    assert cut == expected_cut
    assert {frozenset(c) for c in clusters} == {
        frozenset(i for i in range(len(load)) if parent[i] == root) for root in set(parent)
    }


@given(graphs())
def test_no_cluster_that_was_joined_exceeds_the_bound(
    graph: tuple[list[Edge], list[int], int],
) -> None:
    edges, load, bound = graph
    parent, cut = joined(edges, load, bound)
    for root in set(parent):
        members = [i for i in range(len(load)) if parent[i] == root]
        assert len(members) == 1 or sum(load[i] for i in members) <= bound
    for (a, b), is_cut in zip(edges, cut, strict=True):
        assert is_cut == (parent[a] != parent[b])


@given(graphs(), st.randoms(use_true_random=False))
def test_what_fits_whole_is_never_cut_whatever_the_order(graph: Any, random: Any) -> None:
    edges, load, _ = graph
    random.shuffle(edges)
    _, cut = joined(edges, load, sum(load))
    assert not any(cut)


def test_a_long_chain_is_one_cluster() -> None:
    n = 3000
    parent, cut = joined([(i, i + 1) for i in range(n - 1)], [1] * n, n)
    assert set(parent) == {parent[0]} and not any(cut)

"""Join coupled sources into clusters that stay below a bound, strongest couplings first."""

from kernels.jit import kernel, step


@step
def find_root(parent, node):
    """Return the root of a node, halving the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def join_clusters(origin, target, bound, parent, load, cut):
    """Join the two ends of each edge in turn unless the cluster would then exceed the bound.

    A cluster that fits whole is never cut, whatever the order of its edges. In one that does not,
    an edge is cut only when its ends could not be joined by stronger ones either, so with edges in
    descending weight the strongest couplings stay.

    Shapes   E edges, N nodes
    In       origin  (E,) int32    index < N
             target  (E,) int32    index < N
             bound   int64         the greatest load of a cluster that is joined from others
    In/out   parent  (N,) int32    arange at first; at the end each node's root
             load    (N,) int64    of each node; at the end a root's is its cluster's
    Out      cut     (E,) bool     whether the ends of the edge lie in different clusters
    Cost     O((E + N) α(N)), allocates nothing
    Oracle   tests/kernels/test_cluster.py
    """
    for e in range(origin.size):
        a = find_root(parent, origin[e])
        b = find_root(parent, target[e])
        cut[e] = False
        if a == b:
            continue
        if load[a] + load[b] > bound:
            # clusters only grow: what does not fit now will not fit later
            cut[e] = True
            continue
        if load[a] < load[b] or (load[a] == load[b] and b < a):
            a, b = b, a
        parent[b] = a
        load[a] += load[b]
    for node in range(parent.size):
        parent[node] = find_root(parent, node)

"""Turn a ring of eight panes in one vector operation.

Written with LLVM vectors because the plain loop below, which defines it, compiles to some 150
scalar instructions: 25 ns where this takes 5.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from kernels.jit import COMPILED
from kernels.layout import N_PANES, PANES

MAX_PANE_N = 1 << 27
"""A pane that holds as many readings takes no more: eight of them fit 31 bits."""

_OFFSETS = {name: place[1] for name, place in (PANES.fields or {}).items()}


def turn_ring_plainly(panes: Any, place: int, turn: int, n_panes: int) -> tuple[int, int, float]:
    """Turn the ring by ``turn`` (0 to 8) panes, to ``place`` as the newest, and count a reading in.

    Panes that fall out, or are older than the window's ``n_panes``, are emptied. Returns (readings
    in the other panes, readings in the newest before this one, Σ count × first over the others,
    summed pairwise: lanes 4 apart, then 2, then 1).
    """
    products = [0.0] * N_PANES
    n_others = n_own = 0
    for lane in range(N_PANES):
        age = (place - lane) & (N_PANES - 1)
        kept = int(panes.count[lane]) if turn <= age < n_panes else 0
        if age == 0:
            n_own = kept
        else:
            n_others += kept
            products[lane] = kept * float(panes.first[lane])
        panes.count[lane] = min(kept + (age == 0), MAX_PANE_N)
    half = N_PANES // 2
    while half:
        products = [products[lane] + products[lane + half] for lane in range(half)]
        half //= 2
    return n_others, n_own, products[0]


def _lanes(builder: ir.IRBuilder, scalar: Any) -> Any:
    """Spread one i32 over eight lanes."""
    vector = ir.VectorType(scalar.type, N_PANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), N_PANES), [0] * N_PANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _fold(builder: ir.IRBuilder, vector: Any, add: Any) -> Any:
    """Sum eight lanes pairwise: those 4 apart, then 2, then 1."""
    half = N_PANES // 2
    while half:
        mask = ir.VectorType(ir.IntType(32), half)
        undefined = ir.Constant(vector.type, ir.Undefined)
        low = builder.shuffle_vector(vector, undefined, ir.Constant(mask, list(range(half))))
        high = builder.shuffle_vector(
            vector, undefined, ir.Constant(mask, list(range(half, 2 * half)))
        )
        vector = add(low, high)
        half //= 2
    return builder.extract_element(vector, ir.IntType(32)(0))


@intrinsic
def turn_ring_compiled(typingctx: Any, panes: Any, place: Any, turn: Any, n_panes: Any) -> Any:
    """Emit ``turn_ring_plainly`` as vector instructions."""
    returned = types.Tuple((types.int64, types.int64, types.float64))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i8, i32, i64, f64 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()
        ints = ir.VectorType(i32, N_PANES)
        doubles = ir.VectorType(f64, N_PANES)

        def field(name: str, element: Any) -> Any:
            offset = _OFFSETS[name]
            start = builder.bitcast(args[0], i8.as_pointer())
            address = builder.gep(start, [i64(offset)])
            return builder.bitcast(address, ir.VectorType(element, N_PANES).as_pointer())

        place, turn, n_panes = (
            _lanes(builder, context.cast(builder, value, kind, types.int32))
            for value, kind in zip(args[1:], signature.args[1:], strict=True)
        )
        zero = ir.Constant(ints, [0] * N_PANES)
        one = ir.Constant(ints, [1] * N_PANES)
        most = ir.Constant(ints, [MAX_PANE_N] * N_PANES)
        age = builder.and_(
            builder.sub(place, ir.Constant(ints, list(range(N_PANES)))),
            ir.Constant(ints, [N_PANES - 1] * N_PANES),
        )
        keep = builder.and_(
            builder.icmp_signed(">=", age, turn), builder.icmp_signed("<", age, n_panes)
        )
        counts = field("count", i32)
        count = builder.load(counts)
        count.align = 4
        means = builder.load(field("first", ir.FloatType()))
        means.align = 4
        kept = builder.select(keep, count, zero)
        own = builder.icmp_signed("==", age, zero)
        others = builder.select(own, zero, kept)
        counted = builder.add(kept, builder.select(own, one, zero))
        counted = builder.select(builder.icmp_signed("<", counted, most), counted, most)
        builder.store(counted, counts).align = 4
        products = builder.fmul(builder.sitofp(others, doubles), builder.fpext(means, doubles))
        n_others = _fold(builder, others, builder.add)
        n_all = _fold(builder, kept, builder.add)
        return context.make_tuple(
            builder,
            returned,
            [
                builder.sext(n_others, i64),
                builder.sext(builder.sub(n_all, n_others), i64),
                _fold(builder, products, builder.fadd),
            ],
        )

    return returned(panes, place, turn, n_panes), codegen


turn_ring = turn_ring_compiled if COMPILED else turn_ring_plainly

"""The one compile policy of the project, a registry of what it compiled, and prefetching.

Kernels run without the GIL, are cached on disk, and never use fast-math: NaN means "no reading" and
a reordered sum would make the alert log depend on the machine.
"""

import contextlib
import glob
import hashlib
import os
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic

COMPILED = not getattr(config, "DISABLE_JIT", False)
"""False under NUMBA_DISABLE_JIT=1, where kernels run as plain Python."""

KERNELS: dict[str, Any] = {}
"""Every compiled function by ``module.name``."""


_POLICY: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,  # nothing can be allocated, and arrays are not reference-counted
}


def _sources_stamp() -> str:
    """Return a digest of all kernels' sources.

    Numba looks at the file of a function alone: a kernel that was cached with an older version of a
    step in another file would go on running the old step.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(glob.glob(os.path.join(os.path.dirname(__file__), "*.py"))):
        with open(path, "rb") as source:
            digest.update(source.read())
    return digest.hexdigest()


_STAMP = _sources_stamp()


class _KernelCache(FunctionCache):
    """Numba's cache on disk, kept for as long as no kernel changes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, _STAMP)


def _compile(
    function: Callable[..., Any], signature: str | None = None, **options: Any
) -> Callable[..., Any]:
    compiled: Any = numba.njit(**_POLICY, **options)(function)
    if COMPILED:
        with contextlib.suppress(RuntimeError):  # nowhere to write: compiled anew in each process
            compiled._cache = _KernelCache(function)
        if signature is not None:
            compiled.compile(signature)
            compiled.disable_compile()
    KERNELS[f"{function.__module__}.{function.__name__}"] = compiled
    return compiled


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop that the engine calls."""
    return _compile(function)


def step(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a step that kernels call now and then."""
    return _compile(function)


def typed_step(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a step for one signature: numbers of any kind, literals too, are converted to it."""
    return lambda function: _compile(function, signature)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a step into its caller's loop, where a call would cost as much as the step."""
    return _compile(function, forceinline=True)


if not COMPILED:

    def prefetch(array: Any, index: int, byte: int) -> None:
        """Do nothing: there is no cache to warm without compiled code."""

else:

    @intrinsic
    def prefetch(typingctx: Any, array: Any, index: Any, byte: Any) -> Any:
        """Ask for the cache line ``byte`` bytes into ``array[index]``, for writing, and go on.

        The index is not checked against the array: a prefetch of a wrong address is harmless.
        """
        if not isinstance(array, types.Array) or not isinstance(index, types.Integer):
            return None
        if not isinstance(byte, types.Integer):
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array_type, index_type, byte_type = signature.args
            view = context.make_array(array_type)(context, builder, args[0])
            size = context.get_abi_sizeof(context.get_data_type(array_type.dtype))
            if isinstance(array_type.dtype, types.Record):
                size = array_type.dtype.size
            item = builder.mul(
                context.cast(builder, args[1], index_type, types.intp),
                context.get_constant(types.intp, size),
            )
            item = builder.add(item, context.cast(builder, args[2], byte_type, types.intp))
            byte_pointer = ir.IntType(8).as_pointer()
            address = builder.gep(builder.bitcast(view.data, byte_pointer), [item])
            i32 = ir.IntType(32)
            prefetch_type = ir.FunctionType(ir.VoidType(), [byte_pointer, i32, i32, i32])
            function = cgutils.get_or_insert_function(
                builder.module, prefetch_type, "llvm.prefetch.p0"
            )
            builder.call(function, [address, i32(1), i32(3), i32(1)])
            return context.get_dummy_value()

        return types.void(array, index, byte), codegen

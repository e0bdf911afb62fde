"""The decorator of the compiled kernels: Numba, with a cache where there is a place for one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, cast

import numba


class _ForgivingCache:
    """A Numba function cache whose disk may be full or vanish: then the function is compiled again, not refused."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the compiled function from the cache, or None if it cannot be read."""
        try:
            return self._cache.load_overload(signature, context)
        except OSError:
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep the compiled function if the disk lets us."""
        try:
            self._cache.save_overload(signature, result)
        except OSError:
            pass


class _Vectorising:
    """A Numba compiler that turns straight-line code into vector instructions, which Numba leaves off by default.

    The flag holds for the whole process, so it is set only while a kernel of ours is compiled.
    """

    def __init__(self, compiler: Any) -> None:
        self._compiler = compiler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiler, name)

    def compile(self, *arguments: Any, **keywords: Any) -> Any:
        """Compile with the SLP vectoriser."""
        config: Any = numba.config
        before = config.SLP_VECTORIZE
        config.SLP_VECTORIZE = 1
        try:
            return self._compiler.compile(*arguments, **keywords)
        finally:
            config.SLP_VECTORIZE = before


def compiled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel with Numba at its first call and keep the machine code on disk for the next run.

    The code is kept beside the source, or in the user's cache folder if that is not writable, or in the folder that
    NUMBA_CACHE_DIR names. Where none of them can be written the kernel is compiled anew in each process; plain
    `numba.njit(cache=True)` would raise there. A kernel that calls another must stand in the same file: the cache
    is renewed when its own file changes, not when a callee's does.

    Args:
        function: plain loops over NumPy arrays, in the subset of Python that Numba compiles.

    Returns:
        The compiled function (a Numba dispatcher; `.py_func` is the original).
    """
    # IEEE arithmetic as written: fastmath would let the compiler reorder sums and drop NaN checks, and the emulated
    # hardware errors must not depend on the compiler. Division by zero gives inf or nan as in NumPy.
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", fastmath=False)(function)
    if hasattr(dispatcher, "_compiler") and hasattr(numba.config, "SLP_VECTORIZE"):  # Numba's private names
        dispatcher._compiler = _Vectorising(dispatcher._compiler)
    try:
        dispatcher.enable_caching()
    except (RuntimeError, OSError) as error:
        if os.environ.get("NUMBA_DEBUG_CACHE"):
            print(f"analogpde: {function.__qualname__} is compiled without a cache: {error}", file=sys.stderr)
    else:
        if hasattr(dispatcher, "_cache"):  # another; without it we lose forgiveness, nothing else
            dispatcher._cache = _ForgivingCache(dispatcher._cache)
    return cast("Callable[P, R]", dispatcher)

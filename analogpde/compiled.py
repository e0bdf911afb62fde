"""The decorator of the compiled kernels: Numba, with a cache where there is a place for one."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
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


@cache
def _tell_a_person() -> None:
    """Say once what the wait is for, if somebody sits at the terminal."""
    if sys.stderr.isatty():
        print("analogpde: compiling tile kernels, once; they are kept for the next runs", file=sys.stderr, flush=True)


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
        _tell_a_person()
        config: Any = numba.config
        before = config.SLP_VECTORIZE
        config.SLP_VECTORIZE = 1
        try:
            return self._compiler.compile(*arguments, **keywords)
        finally:
            config.SLP_VECTORIZE = before


@cache
def _digest(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()


def _watch_callees(dispatcher: Any, function: Callable[..., Any]) -> None:
    """Let the kept code grow stale with the files of the kernels that a kernel's file imports, not only with its own.

    Numba looks at one file only; see `compiled`.
    """
    index: Any = getattr(dispatcher._cache, "_cache_file", None)
    if not hasattr(index, "_source_stamp"):  # another version of Numba: clear the cache by hand after such a change
        return
    files = set()
    for name in function.__globals__.values():
        code = getattr(getattr(name, "py_func", None) or getattr(name, "_defn", None), "__code__", None)
        if code is not None and code.co_filename != function.__code__.co_filename and os.path.exists(code.co_filename):
            files.add(code.co_filename)
    if files:
        index._source_stamp = index._source_stamp, tuple(_digest(file) for file in sorted(files))


def compiled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel with Numba at its first call and keep the machine code on disk for the next run.

    The code is kept beside the source, or in the user's cache folder if that is not writable, or in the folder that
    NUMBA_CACHE_DIR names. Where none of them can be written the kernel is compiled anew in each process; plain
    `numba.njit(cache=True)` would raise there. The code is renewed when the kernel's own file changes, or one that its
    file imports kernels from at the top.

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
            _watch_callees(dispatcher, function)
            dispatcher._cache = _ForgivingCache(dispatcher._cache)
    return cast("Callable[P, R]", dispatcher)

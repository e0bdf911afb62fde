"""Errors under MPI: a failure on one rank ends on all of them, and nothing hangs."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from analogpde.errors import AnalogError
from analogpde.petsc.stack import MPI, PETSc


class RankError(AnalogError):
    """What another rank failed with."""


def together[T](comm: MPI.Comm, body: Callable[[], T]) -> T:
    """Run a rank-local body; if it fails anywhere, raise on every rank. Collective.

    Args:
        comm: the communicator.
        body: must not communicate.

    Raises:
        RankError: on the ranks whose own body did not fail; names the first rank that failed.
    """
    failure: Exception | None = None
    result: T | None = None
    try:
        result = body()
    except Exception as error:
        failure = error
    if comm.size == 1:
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]
    first = comm.allreduce(comm.rank if failure is not None else comm.size, op=MPI.MIN)
    if first == comm.size:
        return result  # type: ignore[return-value]
    text = comm.bcast(f"{type(failure).__name__}: {failure}" if comm.rank == first else None, root=first)
    if failure is not None:
        raise failure
    raise RankError(f"rank {first}: {text}")


def say(comm: MPI.Comm, text: str) -> None:
    """Print one line to standard error, from rank 0 of `comm`."""
    if comm.rank == 0:
        sys.stdout.flush()
        sys.stderr.write(text + "\n")  # in one piece: other ranks write there too
        sys.stderr.flush()


def report(error: Exception) -> None:
    """Print what went wrong on this rank, where no exception may tell it."""
    sys.stderr.write(f"analogpde: rank {MPI.COMM_WORLD.rank}: {type(error).__name__}: {error}\n")


def carried[**P, R](hook: Callable[P, R]) -> Callable[P, R]:
    """Wrap a hook whose exception has to cross PETSc's C code to reach Python again.

    On its way it is pending in the interpreter, and a garbage collection that meets a PETSc object there drops it. So
    the collector's count begins anew.
    """

    @functools.wraps(hook)
    def guarded(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return hook(*arguments, **keywords)
        except Exception:
            gc.collect(0)
            raise

    return guarded


def soft(apply: Callable[..., None]) -> Callable[..., None]:
    """Wrap a PC's `apply`, which may fail on one rank while the others go on: no exception leaves it.

    The failure travels with the data instead, as NaN, and every rank ends the solve with DIVERGED_PC_FAILED.
    An exception would leave vectors locked here and the other ranks waiting for ever.
    """

    @functools.wraps(apply)
    def guarded(self: Any, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        if pc.getFailedReason() != PETSc.PC.FailedReason.NOERROR:
            pc.setFailedReason(PETSc.PC.FailedReason.NOERROR)  # of an earlier application: PETSc never clears it
        try:
            apply(self, pc, x, y)
        except Exception as error:
            report(error)
            pc.setFailedReason(PETSc.PC.FailedReason.SUBPC_ERROR)
            y.array[:] = np.nan  # a local write; y.set() would cache a norm on this rank alone
        y.stateIncrease()  # the same state on every rank

    return guarded

"""Reference solves of -verify: FP64, direct where it fits, and native FP32."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from numpy.typing import NDArray
from petsc4py import PETSc

FP64_DIRECT_LIMIT = {1: 10**7, 2: 600_000, 3: 120_000}
"""Unknowns by dimension up to which the FP64 reference is a direct solve; above, its factor would not fit a PC."""

FP32_LIMIT = {1: 10**7, 2: 300_000, 3: 75_000}
"""The same for the native FP32 solve, which runs on rank 0 alone."""

ITERATIVE_RTOL = 1e-13
"""Relative residual of the iterative FP64 reference: three digits above FP64's unit roundoff, as far as CG goes."""


class Verifier:
    """Measures solutions of one matrix. Everything is factorised at the first use. Collective.

    A singular matrix must have the constants as its null space. Both references then fix one unknown at zero (the
    well-posed way to solve it directly; in FP32 it does no worse than a bordered system), and all solutions are
    compared without their means.

    Args:
        matrix: A.
        dimension: of the mesh, which decides how expensive a direct solve is.
        say: prints a line (on rank 0).
    """

    def __init__(self, matrix: PETSc.Mat, dimension: int, say: Callable[[str], None]) -> None:
        self.matrix, self.dimension, self.say = matrix, dimension, say
        self.singular = bool(matrix.getNullSpace().handle)
        self.reference = ""
        self._ksp: PETSc.KSP | None = None
        self._pinned: PETSc.Mat | None = None
        self._factor32: sparse_linalg.SuperLU | None = None
        self._native32 = False

    def errors(self, b: PETSc.Vec, x: PETSc.Vec) -> tuple[float, float | None]:
        """Return ‖x − x₆₄‖₂/‖x₆₄‖₂ of `x` and of the native FP32 solution (None if that was not computed).

        Args:
            b: right-hand side; it has no component in the null space.
            x: the solution to measure.
        """
        if self._ksp is None:
            self._set_up()
        exact = self._solve64(b)
        difference = x.copy()
        if self.singular:
            mean = x.sum() / x.size
            difference.shift(-mean)
        difference.axpy(-1.0, exact)
        norm = exact.norm()
        error = difference.norm() / norm if norm > 0 else difference.norm()
        error32 = self._error32(b, exact) if self._native32 else None
        difference.destroy()
        exact.destroy()
        return error, error32

    def destroy(self) -> None:
        """Free the factors. Collective."""
        if self._ksp is not None:
            self._ksp.destroy()
        if self._pinned is not None:
            self._pinned.destroy()
        self._factor32 = None

    def _set_up(self) -> None:
        unknowns = self.matrix.size[0]
        where = f"{self.dimension}-D with {unknowns} unknowns"
        direct = unknowns <= FP64_DIRECT_LIMIT[self.dimension]
        matrix = self.matrix
        if self.singular and direct:
            matrix = self._pinned = self.matrix.copy()  # the copy has no null space attached
            matrix.zeroRowsColumns([0] if matrix.comm.rank == 0 else [], diag=1.0)
        ksp = PETSc.KSP().create(matrix.comm)
        ksp.setOperators(matrix)
        # No prefix of the user's: the reference must not follow the options of the solver it judges.
        ksp.setOptionsPrefix("analogpde_reference_")
        if direct:
            ksp.setType("preonly")
            ksp.getPC().setType("lu")
            ksp.getPC().setFactorSolverType("mumps")
            self.reference = "FP64 direct (MUMPS)"
        else:
            ksp.setType("cg")
            ksp.getPC().setType("gamg")
            ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
            ksp.setTolerances(rtol=ITERATIVE_RTOL, max_it=2000)
            self.reference = f"FP64 CG+GAMG to {ITERATIVE_RTOL:g}"
            self.say(f"verify: {where} is too large for a direct FP64 solve; the reference is {self.reference[5:]}")
        ksp.setFromOptions()
        ksp.setUp()
        self._ksp = ksp
        self._native32 = unknowns <= FP32_LIMIT[self.dimension]
        if self._native32:
            self._factorise32()
        else:
            self.say(f"verify: no native FP32 solve: {where} is above the limit of {FP32_LIMIT[self.dimension]}")

    def _solve64(self, b: PETSc.Vec) -> PETSc.Vec:
        """Return the reference solution, without its mean if the matrix is singular."""
        assert self._ksp is not None
        exact, right = b.duplicate(), b
        if self._pinned is not None:
            right = b.copy()
            if right.comm.rank == 0:
                right.setValue(0, 0.0)
            right.assemble()
        exact.set(0.0)
        self._ksp.solve(right, exact)
        if self._ksp.getConvergedReason() <= 0 and b.norm() > 0:
            self.say(f"verify: the reference solve stopped early ({self._ksp.getConvergedReason()}); "
                     "its errors below are upper bounds of nothing")
        if self.singular:
            exact.shift(-exact.sum() / exact.size)
        return exact

    def _factorise32(self) -> None:
        """Factorise the matrix, gathered and cast to float32, on rank 0."""
        comm = self.matrix.comm.tompi4py()
        parts = comm.gather(self.matrix.getValuesCSR())
        if comm.rank != 0:
            return
        columns = self.matrix.size[1]
        rows = [sparse.csr_matrix((v, j, i), shape=(len(i) - 1, columns)) for i, j, v in parts]
        whole = sparse.vstack(rows).tocsc().astype(np.float32)
        if self.singular:
            whole = whole[1:, 1:]
        symmetric = self.matrix.isSymmetricKnown() == (True, True)  # then SuperLU need not pivot
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sparse_linalg.MatrixRankWarning)
            try:
                self._factor32 = sparse_linalg.splu(
                    whole,
                    permc_spec="MMD_AT_PLUS_A",
                    diag_pivot_thresh=0.0 if symmetric else 1.0,
                    options={"SymmetricMode": symmetric},
                )
            except RuntimeError:  # exactly singular in FP32: the native solve has no answer
                self._factor32 = None

    def _error32(self, b: PETSc.Vec, exact: PETSc.Vec) -> float | None:
        """Return the error of the native FP32 solution on every rank."""
        comm = b.comm.tompi4py()
        all_b, all_exact = _gather(b), _gather(exact)
        error: float | None = None
        if comm.rank == 0 and self._factor32 is not None and all_b is not None and all_exact is not None:
            right = all_b.astype(np.float32)
            if self.singular:
                x32 = np.concatenate([[0.0], self._factor32.solve(right[1:])]).astype(np.float64)
                x32 -= x32.mean()
            else:
                x32 = self._factor32.solve(right).astype(np.float64)
            norm = float(np.linalg.norm(all_exact))
            error = float(np.linalg.norm(x32 - all_exact)) / (norm if norm > 0 else 1.0)
        return comm.bcast(error)


def _gather(vector: PETSc.Vec) -> NDArray | None:
    """Return the whole vector on rank 0, None elsewhere. Collective."""
    comm = vector.comm.tompi4py()
    parts = comm.gather(vector.array_r.copy())
    return np.concatenate(parts) if parts is not None else None

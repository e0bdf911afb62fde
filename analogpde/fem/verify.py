"""Reference solves of -verify: FP64, direct where it fits, and native FP32."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from numpy.typing import NDArray

from analogpde.petsc.stack import MPI, PETSc

FP64_DIRECT_LIMIT = {1: 10**7, 2: 1_000_000, 3: 120_000}
"""Unknowns by dimension up to which the FP64 reference is a direct solve; above, its factor would not fit a PC."""

FP32_LIMIT = {1: 10**7, 2: 300_000, 3: 75_000}
"""The same for the native FP32 solve, which runs on rank 0 alone."""

ITERATIVE_RTOL = 1e-13
"""Relative residual of the iterative FP64 reference: three digits above FP64's unit roundoff, as far as CG goes."""

POLISHING_ROUNDS, POLISHING_RTOL = 2, 1e-4
"""Rounds of refinement of the iterative reference, after which its residual is FP64's rounding of b − A x."""


class _Factors:
    """FP64 and FP32 factors of one matrix. Collective.

    Args:
        matrix: A. dimension: of the mesh. say: prints a line (on rank 0).
    """

    def __init__(self, matrix: PETSc.Mat, dimension: int, say: Callable[[str], None]) -> None:
        self.singular = bool(matrix.getNullSpace().handle)
        self.pinned: PETSc.Mat | None = None
        self.factor32: sparse_linalg.SuperLU | None = None
        self._latest: tuple[PETSc.Vec, PETSc.Vec] | None = None
        unknowns = matrix.size[0]
        where = f"{dimension}-D with {unknowns} unknowns"
        direct = unknowns <= FP64_DIRECT_LIMIT[dimension]
        used = matrix
        if self.singular and direct:
            used = self.pinned = matrix.copy()  # the copy has no null space attached
            used.zeroRowsColumns([0] if matrix.comm.rank == 0 else [], diag=1.0)
        ksp = PETSc.KSP().create(matrix.comm)
        ksp.setOperators(used)
        # No prefix of the user's: the reference must not follow the options of the solver it judges.
        ksp.setOptionsPrefix("analogpde_reference_")
        if direct:
            ksp.setType("preonly")
            ksp.getPC().setType("lu")
            ksp.getPC().setFactorSolverType("mumps")
        else:
            ksp.setType("cg")
            ksp.getPC().setType("gamg")
            ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
            ksp.setTolerances(rtol=ITERATIVE_RTOL, max_it=2000)
            say(f"verify: {where} is too large for a direct FP64 solve; the reference is FP64 CG+GAMG to "
                f"{ITERATIVE_RTOL:g}")
        ksp.setFromOptions()
        ksp.setUp()
        self.ksp = ksp
        self.reference = "FP64 direct (MUMPS)" if direct else f"FP64 CG+GAMG to {ITERATIVE_RTOL:g}"
        self.native32 = unknowns <= FP32_LIMIT[dimension]
        if self.native32:
            self._factorise32(matrix)
        else:
            say(f"verify: no native FP32 solve: {where} is above the limit of {FP32_LIMIT[dimension]}")

    def _factorise32(self, matrix: PETSc.Mat) -> None:
        """Factorise the matrix, gathered and cast to float32, on rank 0."""
        parts = matrix.comm.tompi4py().gather(matrix.getValuesCSR())
        if parts is None:
            return
        columns = matrix.size[1]
        rows = [sparse.csr_matrix((v, j, i), shape=(len(i) - 1, columns)) for i, j, v in parts]
        whole = sparse.vstack(rows).tocsr()
        if self.singular:
            whole = whole[1:, 1:]
        symmetric = matrix.isSymmetricKnown() == (True, True)  # then SuperLU need not pivot
        self.order = _fill_reducing(whole) if symmetric else np.arange(whole.shape[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sparse_linalg.MatrixRankWarning)
            try:
                self.factor32 = sparse_linalg.splu(
                    whole[self.order][:, self.order].tocsc().astype(np.float32),
                    permc_spec="NATURAL" if symmetric else "COLAMD",
                    diag_pivot_thresh=0.0 if symmetric else 1.0,
                    options={"SymmetricMode": symmetric},
                )
            except RuntimeError:  # exactly singular in FP32: the native solve has no answer
                self.factor32 = None

    def solve64(self, b: PETSc.Vec, say: Callable[[str], None]) -> PETSc.Vec:
        """Return the reference solution, without its mean if the matrix is singular. Collective.

        The latest is remembered: a study asks for the same one for every chip.
        """
        if self._latest is not None and b.equal(self._latest[0]):
            return self._latest[1].copy()
        exact, right = b.duplicate(), b
        if self.pinned is not None:
            right = b.copy()
            if right.comm.rank == 0:
                right.setValue(0, 0.0)
            right.assemble()
        exact.set(0.0)
        self.ksp.solve(right, exact)
        if self.ksp.getType() != "preonly":
            self._polish(right, exact)
        if self.ksp.getConvergedReason() <= 0 and b.norm() > 0:
            say(f"verify: the reference solve stopped early ({self.ksp.getConvergedReason()}); "
                "its errors below are upper bounds of nothing")
        if self.singular:
            exact.shift(-exact.sum() / exact.size)
        self._forget()
        self._latest = (b.copy(), exact.copy())
        return exact

    def _polish(self, right: PETSc.Vec, exact: PETSc.Vec) -> None:
        """Solve for what the true residual still holds: the recursive one of CG strays from it. Collective."""
        residual, step = right.duplicate(), right.duplicate()
        matrix = self.ksp.getOperators()[0]
        for _ in range(POLISHING_ROUNDS):
            matrix.mult(exact, residual)
            residual.aypx(-1.0, right)
            if residual.norm() == 0.0:
                break
            step.set(0.0)
            self.ksp.setTolerances(rtol=POLISHING_RTOL)
            self.ksp.solve(residual, step)
            self.ksp.setTolerances(rtol=ITERATIVE_RTOL)
            exact.axpy(1.0, step)
        residual.destroy()
        step.destroy()

    def _forget(self) -> None:
        for vector in self._latest or ():
            vector.destroy()
        self._latest = None

    def error32(self, b: PETSc.Vec, exact: PETSc.Vec) -> float | None:
        """Return the error of the native FP32 solution on every rank. Collective."""
        comm = b.comm.tompi4py()
        all_b, all_exact = _gather(b), _gather(exact)
        error: float | None = None
        if comm.rank == 0 and self.factor32 is not None and all_b is not None and all_exact is not None:
            first = 1 if self.singular else 0  # the unknown that is held at zero
            x32 = np.zeros(len(all_b), np.float32)
            x32[first:][self.order] = self.factor32.solve(all_b[first:][self.order].astype(np.float32))
            x = x32.astype(np.float64)
            if self.singular:
                x -= x.mean()
            norm = float(np.linalg.norm(all_exact))
            error = float(np.linalg.norm(x - all_exact)) / (norm if norm > 0 else 1.0)
        return comm.bcast(error)

    def destroy(self) -> None:
        """Free the factors. Collective."""
        self._forget()
        self.ksp.destroy()
        if self.pinned is not None:
            self.pinned.destroy()
        self.factor32 = None


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

    kept: ClassVar[list[tuple[PETSc.Mat, _Factors]]] = []
    keep: ClassVar[int] = 0
    """How many matrices' factors outlive their verifier: a study solves the same matrix on many chips."""

    def __init__(self, matrix: PETSc.Mat, dimension: int, say: Callable[[str], None]) -> None:
        self.matrix, self.dimension, self.say = matrix, dimension, say
        self.reference = ""
        self._factors: _Factors | None = None

    def errors(self, b: PETSc.Vec, x: PETSc.Vec) -> tuple[float, float | None]:
        """Return ‖x − x₆₄‖₂/‖x₆₄‖₂ of `x` and of the native FP32 solution (None if that was not computed).

        Args:
            b: right-hand side; it has no component in the null space.
            x: the solution to measure.
        """
        factors = self._ready()
        exact = factors.solve64(b, self.say)
        difference = x.copy()
        if factors.singular:
            mean = x.sum() / x.size
            difference.shift(-mean)
        difference.axpy(-1.0, exact)
        norm = exact.norm()
        error = difference.norm() / norm if norm > 0 else difference.norm()
        error32 = factors.error32(b, exact) if factors.native32 else None
        difference.destroy()
        exact.destroy()
        return error, error32

    def solve(self, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Put the FP64 reference solution of A x = b into x. Collective."""
        exact = self._ready().solve64(b, self.say)
        exact.copy(x)
        exact.destroy()

    def _ready(self) -> _Factors:
        """Return the factors, made now if need be. Collective."""
        if self._factors is None:
            self._factors = self._known() or _Factors(self.matrix, self.dimension, self.say)
        self.reference = self._factors.reference
        return self._factors

    def _known(self) -> _Factors | None:
        """Return factors that an earlier verifier left of the very same matrix. Collective."""
        comm = self.matrix.comm.tompi4py()
        for place, (matrix, factors) in enumerate(self.kept):
            if comm.allreduce(matrix.sizes == self.matrix.sizes, MPI.LAND) and matrix.equal(self.matrix):
                del self.kept[place]
                matrix.destroy()
                return factors
        return None

    def destroy(self) -> None:
        """Free the factors, or leave them to a later verifier if `keep` says so. Collective."""
        if self._factors is None:
            return
        if self.keep:
            self.kept.append((self.matrix.copy(), self._factors))
        else:
            self._factors.destroy()
        self._factors = None
        while len(self.kept) > self.keep:
            matrix, factors = self.kept.pop(0)
            matrix.destroy()
            factors.destroy()


def _fill_reducing(matrix: sparse.csr_matrix) -> NDArray[np.int32]:
    """Return a nested-dissection order of the rows: a third of the fill of SuperLU's own minimum degree in 3-D."""
    n = matrix.shape[0]
    whole = PETSc.Mat().createAIJ((n, n), csr=(matrix.indptr, matrix.indices, matrix.data), comm=PETSc.COMM_SELF)
    try:
        rows, columns = whole.getOrdering("metisnd")
    except PETSc.Error:  # a PETSc without METIS
        rows, columns = whole.getOrdering("nd")
    order = rows.getIndices().copy()
    for thing in (whole, rows, columns):
        thing.destroy()
    return order


def _gather(vector: PETSc.Vec) -> NDArray | None:
    """Return the whole vector on rank 0, None elsewhere. Collective."""
    comm = vector.comm.tompi4py()
    parts = comm.gather(vector.array_r.copy())
    return np.concatenate(parts) if parts is not None else None

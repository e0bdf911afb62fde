"""Lowest eigenpairs of K u = E M u by solves with S = K − σM: SLEPc's shift-and-invert, or block inverse iteration.

Both need σ below the lowest eigenvalue: S is then positive definite, which is what INV tiles hold. Both end with a
Rayleigh–Ritz step in FP64, whose energies are of second order in the error of the vectors, so that inexact solves
cost steps and not digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from mpi4py import MPI
from numpy.typing import NDArray
from petsc4py import PETSc

from analogpde.errors import InvalidInput, cause
from analogpde.fem.system import LinearSystem, NotConverged

Solve = Callable[[PETSc.Vec, PETSc.Vec], None]

KRYLOV_TOLERANCE = 1e-7
"""Relative residual to which SLEPc takes an eigenpair, unless -eps_tol is given; energies are good to its square."""

ENERGY_TOLERANCE = 1e-8
"""Estimated relative error of the energies at which inverse iteration takes its last step."""

DEPENDENT = 1e-12
"""Directions of a basis whose Gram matrix has an eigenvalue smaller than this, of the largest, are left out."""

FOREIGN_OPTIONS = ("st_type", "st_shift", "st_matmode", "eps_target", "eps_nev", *(f"eps_{which}" for which in (
    "largest_magnitude", "smallest_magnitude", "largest_real", "smallest_real", "largest_imaginary",
    "smallest_imaginary", "target_magnitude", "target_real", "target_imaginary", "all", "interval", "hermitian",
    "gen_hermitian", "gen_indefinite", "gen_non_hermitian", "pos_gen_non_hermitian", "non_hermitian", "two_sided")))
"""Options of SLEPc that would solve another problem than the script's."""

METHODS = ("krylovschur", "arnoldi", "subspace", "power")
"""Types of SLEPc's EPS that work by products with S⁻¹ M alone."""


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues E − σ of (S, M) in ascending order and M-orthonormal eigenvectors.

    Args:
        values: E − σ.
        vectors: this rank's rows, one column an eigenvector.
        residuals: ‖S x − (E − σ) M x‖₂ / ((E − σ) ‖M x‖₂).
        steps: outer steps of the eigensolver.
    """

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    residuals: NDArray[np.float64]
    steps: int


class _Pencil:
    """Products and small projected problems of S and M on blocks of columns. Collective."""

    def __init__(self, S: PETSc.Mat, M: PETSc.Mat) -> None:
        self.S, self.M = S, M
        self.comm = S.comm.tompi4py()
        self._in, self._out = S.createVecs()

    def product(self, A: PETSc.Mat, X: NDArray) -> NDArray:
        """Return A X. Collective."""
        images = np.empty_like(X)
        for column in range(X.shape[1]):
            self._in.array[:] = X[:, column]
            A.mult(self._in, self._out)
            images[:, column] = self._out.array_r
        return images

    def gram(self, X: NDArray, Y: NDArray) -> NDArray:
        """Return Xᵀ Y, the same on every rank. Collective."""
        return np.asarray(self.comm.allreduce(X.T @ Y, MPI.SUM))

    def norms(self, X: NDArray) -> NDArray:
        """Return the 2-norms of the columns. Collective."""
        return np.sqrt(self.comm.allreduce((X * X).sum(axis=0), MPI.SUM))

    def ritz(self, X: NDArray, count: int) -> tuple[NDArray, NDArray]:
        """Return the lowest `count` Ritz values in the span of X, and M-orthonormal Ritz vectors. Collective."""
        MX = self.product(self.M, X)
        scale = 1 / np.sqrt(np.maximum(np.diagonal(self.gram(X, MX)), 1e-300))
        X, MX = X * scale, MX * scale
        weights, basis = scipy.linalg.eigh(self.gram(X, MX))
        # Near convergence corrections are small and nearly dependent: what the Gram matrix cannot tell apart is noise.
        kept = weights > DEPENDENT * weights[-1]
        basis = basis[:, kept] / np.sqrt(weights[kept])
        A = basis.T @ self.gram(X, self.product(self.S, X)) @ basis
        values, rotation = scipy.linalg.eigh((A + A.T) / 2)
        turned = self.comm.bcast((values[:count], basis @ rotation[:, :count]))  # one rounding for all ranks
        return turned[0], X @ turned[1]

    def residual(self, values: NDArray, X: NDArray) -> tuple[NDArray, NDArray]:
        """Return S X − M X Λ and its norms relative to M X Λ. Collective."""
        MX = self.product(self.M, X) * values
        R = self.product(self.S, X) - MX
        return R, self.norms(R) / np.maximum(self.norms(MX), 1e-300)

    def destroy(self) -> None:
        """Free the work vectors."""
        self._in.destroy()
        self._out.destroy()


def start_block(points: NDArray, free: NDArray, columns: int) -> NDArray:
    """Return waves without structure to begin with: functions of position alone, so the same on any number of ranks.

    Args:
        points: coordinates (count, 3) of this rank's unknowns.
        free: which of them are not held at zero.
        columns: how many.
    """
    spread = np.maximum(np.abs(points).max(initial=1e-300), 1e-300)
    waves = np.random.default_rng(1).normal(size=(columns, 3)) * (3.0 / spread)
    phases = np.linspace(0.4, 2.4, columns)
    return np.where(free[:, None], np.cos(points @ waves.T + phases), 0.0)


def _require_positive(values: NDArray, shift: float) -> None:
    """Raise if a level lies at or below the shift: levels still lower could have been missed."""
    if values[0] <= 0:
        raise InvalidInput("-shift", shift, f"below the lowest level, which is at most {values[0] + shift:.6g}",
                           "K - shift M must be positive definite: tiles hold nothing else.")


def inverse_iteration(solve: Solve, S: PETSc.Mat, M: PETSc.Mat, start: NDArray, count: int, shift: float, *,
                      tolerance: float = ENERGY_TOLERANCE, max_steps: int = 60,
                      say: Callable[[str], None] = lambda _: None) -> Eigenpairs:
    """Return the lowest eigenpairs by block inverse iteration in residual form. Collective.

    X − S⁻¹(S X − M X Θ) = S⁻¹ M X Θ, so that a step of inverse iteration is a correction whose size falls with the
    residual, and its solve need only be good relative to that. Rayleigh–Ritz in the span of X, the corrections and the
    last change of X, which makes it LOBPCG (Knyazev, SIAM J. Sci. Comput. 23, 2001) with S as preconditioner.

    Args:
        solve: solves S x = b.
        S: K − σM, positive definite.
        M: mass matrix; rows of unknowns held at zero may be zero.
        start: first guess, this rank's rows (rows, columns); more columns than `count` make it faster.
        count: number of eigenpairs wanted.
        shift: σ, to which relative errors of energies are related.
        tolerance: estimated relative error of the energies at which the last step is taken.
        max_steps: where to give up.
        say: prints a line.

    Raises:
        InvalidInput: σ is not below the lowest eigenvalue.
        NotConverged: not within `max_steps`.
    """
    pencil = _Pencil(S, M)
    b, x = S.createVecs()
    values, X = pencil.ritz(start, start.shape[1])
    _require_positive(values, shift)
    change: list[NDArray] = []
    for step in range(1, max_steps + 1):
        R, _ = pencil.residual(values, X)
        W = np.empty_like(R)
        for column in range(R.shape[1]):
            b.array[:] = R[:, column]
            x.set(0.0)
            solve(b, x)
            W[:, column] = x.array_r
        # rᵀS⁻¹r is by how much this step lowers the energy, up to the distance of the next level.
        gain = np.abs(np.diagonal(pencil.gram(R, W)))[:count]
        estimate = float(np.max(gain / np.maximum(np.abs(values[:count] + shift), 1e-300)))
        before = X
        values, X = pencil.ritz(np.concatenate([X, W, *change], axis=1), start.shape[1])
        _require_positive(values, shift)
        change = [X - before @ pencil.gram(before, pencil.product(M, X))]
        say(f"step {step:3d}  lowest {values[0] + shift:.10g}  change of the energies {estimate:.1e}")
        if estimate <= tolerance:
            break
    else:
        raise NotConverged(f"inverse iteration: relative change {estimate:.1e} of the energies after {max_steps} "
                           f"steps, allowed: {tolerance:g}. Ask for another number of -states (a group of equal "
                           "levels may be cut in two), or move -shift nearer to the lowest level.")
    _, residuals = pencil.residual(values[:count], X[:, :count])
    for thing in (pencil, b, x):
        thing.destroy()
    return Eigenpairs(values[:count], X[:, :count], residuals, step)


def shift_invert(system: LinearSystem, M: PETSc.Mat, start: NDArray, count: int, shift: float) -> Eigenpairs:
    """Return the lowest eigenpairs by SLEPc's Krylov–Schur method with shift-and-invert. Collective.

    The pencil is handed over already shifted, (S, M), so that SLEPc makes no second copy of the matrix.

    Args:
        system: solves with S = K − σM, under the prefix `st_`.
        M: mass matrix.
        start: first guess, this rank's rows (rows, columns); only their sum is used.
        count: number of eigenpairs wanted.
        shift: σ, for messages.

    Raises:
        InvalidInput: slepc4py is missing, an option of SLEPc would solve another problem, or σ is too large.
        NotConverged: SLEPc or one of its solves gave up.
    """
    try:
        from slepc4py import SLEPc
    except ImportError as problem:
        raise InvalidInput("-method", "shift_invert", "inverse_iteration where slepc4py cannot be imported",
                           f"({problem})") from None
    for name in FOREIGN_OPTIONS:
        if PETSc.Options().hasName(name):
            raise InvalidInput(f"-{name}", PETSc.Options().getString(name, ""), "no such option here",
                               "Use -shift and -states.")
    S = system.matrix
    eps = SLEPc.EPS().create(S.comm)
    eps.setOperators(S, M)
    eps.setProblemType(SLEPc.EPS.ProblemType.GHEP)
    eps.setDimensions(count)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
    eps.setTarget(0.0)
    eps.setTolerances(KRYLOV_TOLERANCE)
    transform = eps.getST()
    transform.setType(SLEPc.ST.Type.SINVERT)
    transform.setMatMode(SLEPc.ST.MatMode.INPLACE)
    transform.setKSP(system.watched())
    first = S.createVecLeft()
    first.array[:] = start.sum(axis=1)
    eps.setInitialSpace([first])
    given = {name: text for name, text in PETSc.Options().getAll().items() if name.startswith("eps_")}
    if given.get("eps_type", METHODS[0]) not in METHODS:
        raise InvalidInput("-eps_type", given["eps_type"], " | ".join(METHODS),
                           "Others need more of S than solves with it.")
    try:
        eps.setFromOptions()
        eps.solve()
    except (PETSc.Error, SystemError) as error:  # the latter: an exception from below that slepc4py does not expect
        known = system.failure or cause(error)
        if known is None and given:
            known = InvalidInput("SLEPc's options", " ".join(f"-{name} {text}".strip() for name, text in given.items()),
                                 "what SLEPc's EPS takes (its own words are above)")
        if known is None:
            raise
        raise known from None
    if system.failure is not None:  # PETSc let it pass, as it does in nested solves
        raise system.failure
    found, steps = eps.getConverged(), eps.getIterationNumber()
    if found < count:
        raise NotConverged(f"SLEPc's {eps.getType()} found {found} of {count} eigenpairs in {steps} steps. Raise "
                           "-eps_max_it or -eps_ncv.")
    X = np.empty((S.getLocalSize()[0], found))
    for column in range(found):
        eps.getEigenvector(column, first)
        X[:, column] = first.array_r
    pencil = _Pencil(S, M)
    values, X = pencil.ritz(X, count)
    _require_positive(values, shift)
    _, residuals = pencil.residual(values, X)
    for thing in (pencil, eps, first):
        thing.destroy()
    return Eigenpairs(values, X, residuals, steps)

"""Iterative refinement: x ← x + (correction of the true residual b − A x), accelerated or not.

The loop is written on NumPy arrays (one rank's part of a vector) and three functions, so that it runs
the same under PETSc, under MPI and in a notebook. Inner products are the only communication.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dstebz

from analogpde.errors import InvalidInput
from analogpde.refine.status import Status

Vector = NDArray[np.float64]


class LinearSystem(Protocol):
    """What the loop needs of A x = b."""

    def multiply(self, x: Vector) -> Vector:
        """Return A x as the machine forms products (bit-sliced if the residual is)."""

    def residual(self, x: Vector) -> Vector:
        """Return b − A x in FP64: the truth, used to judge."""

    def machine_residual(self, x: Vector, true: Vector) -> Vector:
        """Return b − A x as the machine forms it (`true` itself if it is digital)."""

    def correct(self, residual: Vector) -> Vector:
        """Return d ≈ A⁻¹ residual, from the tiles; null-space components removed."""

    def slow_error(self, residual: Vector) -> float:
        """Return the norm of the error that this residual tells of in the modes known to be slow; 0 if none is."""

    def determined(self, x: Vector) -> Vector:
        """Return x without what A x tells nothing of (null vectors): what errors are measured by."""

    def sum(self, values: Vector) -> Vector:
        """Return the sum of `values` over ranks."""


class Accelerator(Protocol):
    """Chooses what the tiles see, and turns their corrections into better ones."""

    @property
    def energies(self) -> Sequence[float]:
        """What each step so far took off the error's energy ‖e‖²_A; empty where that is not known."""

    @property
    def exact_projection(self) -> bool:
        """Whether what it knows of slow modes is free of the tiles' noise."""

    @property
    def slow_error(self) -> float:
        """Estimate of ‖e‖ before the latest step where a slow mode was seen; 0 where none is known."""

    def target(self, system: LinearSystem, residual: Vector) -> Vector:
        """Return the vector that the tiles shall correct."""

    def update(self, system: LinearSystem, residual: Vector, correction: Vector) -> Vector | Status:
        """Return the step to add to x, or why there is none."""


class PlainRefinement:
    """No acceleration: the published HP-INV loop."""

    energies = ()
    slow_error = 0.0
    exact_projection = False

    def target(self, system: LinearSystem, residual: Vector) -> Vector:
        """Return the residual itself."""
        return residual

    def update(self, system: LinearSystem, residual: Vector, correction: Vector) -> Vector | Status:
        """Return the correction itself."""
        return correction


class _Directions:
    """The latest search directions p_j and their images A p_j, oldest overwritten first."""

    def __init__(self, size: int, restart: int) -> None:
        self._p = np.empty((0, size))
        self._image = np.empty((0, size))
        self._norms = np.empty(0)
        self._used, self._restart, self._next = 0, restart, 0

    def used(self) -> tuple[Vector, Vector, Vector]:
        """Return views on directions, images and the squared norms that belong to them."""
        return self._p[: self._used], self._image[: self._used], self._norms[: self._used]

    def add(self, p: Vector, image: Vector, norm: float) -> None:
        """Keep one more direction."""
        if self._next == len(self._p) < self._restart:
            grown = min(self._restart, max(32, 2 * len(self._p)))  # what is not used takes no memory
            for name in ("_p", "_image"):
                bigger = np.empty((grown, p.size))
                bigger[: self._used] = getattr(self, name)[: self._used]
                setattr(self, name, bigger)
            self._norms = np.concatenate((self._norms, np.empty(grown - len(self._norms))))
        self._p[self._next], self._image[self._next], self._norms[self._next] = p, image, norm
        self._used = max(self._used, self._next + 1)
        self._next = (self._next + 1) % self._restart


# Ritz and singular values of A M below this are slow modes: the error may be as much larger than the correction M r.
SLOW = 0.1


class FlexibleGmres:
    """FGMRES(m) (Saad 1993): minimises ‖W (b − A x)‖ over the corrections of one cycle.

    W, one number a row, is for equations of different size: of those of a large size a small error of x leaves more
    than ‖b‖, and as long as it does, no correction lowers a norm that takes all rows alike.

    The tiles see the orthonormal basis vectors, not the residual. GCR, which shows them the residual, was tried
    and dropped: where a noisy correction cannot lower the residual norm at once, the residual does not
    change, the next correction is the same again, and the loop stagnates (degree 2 on 3-bit cells).
    """

    energies = ()
    exact_projection = True  # A Z = V H holds for whatever Z the tiles gave

    def __init__(self, size: int, restart: int, weight: Vector | None = None) -> None:
        self._gain, self._smallest, self._norm = 0.0, math.inf, 0.0
        self._weight = weight
        self._restart = restart
        self._v = np.empty((0, size))
        self._z = np.empty((0, size))
        self._hessenberg = np.zeros((0, 0))
        self._used = 0
        self._beta = 0.0
        self._added = np.zeros(size)

    @property
    def slow_error(self) -> float:
        """‖M‖‖r‖/σ before the latest step, σ the smallest singular value of A M seen in any cycle, if it is small.

        A restart throws away the slow modes' directions with the others, and for a while the residual falls as if
        these modes were not there.
        """
        return self._gain * self._norm / self._smallest if 0.0 < self._smallest < SLOW else 0.0

    def target(self, system: LinearSystem, residual: Vector) -> Vector:
        """Return the next basis vector; a new cycle begins with the residual."""
        if self._used == 0:
            residual = self._weighted(residual)
            self._beta = math.sqrt(float(system.sum(np.array([residual @ residual]))[0]))
            self._reserve(1, residual.size)
            self._v[0] = residual / self._beta if self._beta > 0 else 0.0
            self._hessenberg = np.zeros((self._restart + 1, self._restart))
            self._added = np.zeros(residual.size)
        wanted = self._v[self._used] * self._beta
        return np.asarray(wanted if self._weight is None else wanted / self._weight)

    def _weighted(self, residual: Vector) -> Vector:
        return residual if self._weight is None else self._weight * residual

    def update(self, system: LinearSystem, residual: Vector, correction: Vector) -> Vector | Status:
        """Return the difference between the new and the last minimiser of this cycle."""
        if self._beta == 0.0:  # nothing left to correct
            return np.zeros(correction.size)
        j = self._used
        self._reserve(j + 2, correction.size)
        z = correction / self._beta
        w, residual = self._weighted(system.multiply(z)), self._weighted(residual)
        before = 0.0
        for sweep in range(2):  # classical Gram–Schmidt twice is as orthogonal as modified (Giraud et al. 2005)
            sums = system.sum(np.concatenate((self._v[: j + 1] @ w, [w @ w])))
            if not np.isfinite(sums).all():
                return Status.DIVERGED_PC_FAILED
            before = float(sums[-1]) if sweep == 0 else before
            self._hessenberg[: j + 1, j] += sums[:-1]
            w -= sums[:-1] @ self._v[: j + 1]
        sums = np.sqrt(system.sum(np.array([w @ w, z @ z, residual @ residual])))
        norm, self._norm = float(sums[0]), float(sums[2])
        self._gain = max(self._gain, float(sums[1]))
        self._z[j] = z
        self._hessenberg[j + 1, j] = norm
        singular = np.linalg.svd(self._hessenberg[: j + 2, : j + 1], compute_uv=False)
        self._smallest = min(self._smallest, float(singular[-1]))
        first = np.zeros(j + 2)
        first[0] = self._beta
        weights = np.linalg.lstsq(self._hessenberg[: j + 2, : j + 1], first, rcond=None)[0]
        minimiser = weights @ self._z[: j + 1]
        step = minimiser - self._added
        self._added = minimiser
        self._used = j + 1
        # a full cycle, or no new direction left (happy breakdown): start from the true residual
        if self._used == self._restart or norm <= 1e-14 * math.sqrt(before):
            self._used = 0
        else:
            self._v[j + 1] = w / norm
        return np.asarray(step)

    def _reserve(self, vectors: int, size: int) -> None:
        if vectors > len(self._v):
            rows = min(self._restart + 1, max(8, 2 * len(self._v), vectors))
            for name in ("_v", "_z"):
                bigger = np.empty((rows, size))
                bigger[: len(getattr(self, name))] = getattr(self, name)
                setattr(self, name, bigger)


GAINING, PATIENCE = 2.0**-46, 4
"""Of the energy that all steps took off the error: conjugate gradients that gain more in their latest steps are given
`PATIENCE` times as many steps before they count as stagnated. What they lower is the energy; the residual may rise to
hundreds of times its first value before it falls, or wait for some 80 steps, where elasticity is nearly incompressible,
has one level only or lacks its rigid-body modes. 2⁻⁴⁶: FP32's accuracy, squared."""

DRIFT = 1e-3  # energy to be gained along old directions, over that along the new one, from which on they matter


class FlexibleConjugateGradients:
    """Flexible CG (Notay 2000): directions A-orthogonalised explicitly, because the tiles' noise varies.

    The residual should be orthogonal to all kept directions. What rounding puts back along them is taken away as soon
    as it matters: with stiff islands (contrast 10⁶) it grew otherwise until the solve broke down.

    Its coefficients are those of a Lanczos process for M A, whose smallest Ritz value θ tells how much larger than the
    correction z = M r the error can be: e = (M A)⁻¹ z, ‖e‖ ≤ ‖z‖/θ. While a slow mode waits for its turn the residuals
    fall as if it were not there, and only θ shows it.
    """

    exact_projection = False

    def __init__(self, size: int, restart: int) -> None:
        self._kept = _Directions(size, restart)
        self._sign = 0.0
        self.energies: list[float] = []
        self._diagonal: list[float] = []
        self._beside: list[float] = []
        self._last: tuple[float, float] | None = None
        self._size = 0.0

    @property
    def slow_error(self) -> float:
        """‖z‖/θ of the latest step, if θ is small."""
        if not self._diagonal:
            return 0.0
        smallest = self._diagonal[0]
        if len(self._diagonal) > 1:  # the first eigenvalue; SciPy's function around LAPACK's takes ten times as long
            smallest = float(dstebz(self._diagonal, self._beside, 2, 0.0, 1.0, 1, 1, 0.0, "E")[1][0])
        return self._size / smallest if 0.0 < smallest < SLOW else 0.0

    def _lanczos(self, step: float, product: float) -> None:
        """Note the coefficients of one more step: its length and zᵀr. Noise may spoil them: then there are none."""
        beta = product / self._last[1] if self._last is not None and self._last[1] else 0.0
        if step <= 0.0 or beta < 0.0 or not math.isfinite(step + beta):
            self._diagonal, self._beside, self._last = [], [], None
            return
        self._diagonal.append(1.0 / step)
        if self._last is not None:
            self._diagonal[-1] += beta / self._last[0]
            self._beside.append(math.sqrt(beta) / self._last[0])
        self._last = (step, product)

    def target(self, system: LinearSystem, residual: Vector) -> Vector:
        """Return the residual itself."""
        return residual

    def update(self, system: LinearSystem, residual: Vector, correction: Vector) -> Vector | Status:
        """Return the step that minimises the energy norm of the error along the new direction."""
        p, weights, drift_gain = correction.copy(), np.zeros(0), 0.0
        directions, images, norms = self._kept.used()
        if len(norms):
            sums = system.sum(np.concatenate((images @ correction, directions @ residual))).reshape(2, -1)
            p -= (sums[0] / norms) @ directions
            weights = sums[1] / norms
            drift_gain = float(sums[1] @ weights)
        image = system.multiply(p)
        curvature, product, square, overlap, length = (float(v) for v in system.sum(np.array(
            [p @ image, p @ residual, p @ p, correction @ residual, correction @ correction])))
        if not math.isfinite(curvature):
            return Status.DIVERGED_PC_FAILED
        if square == 0.0:  # nothing left to correct, or the tiles say so
            return p
        self._sign = self._sign or math.copysign(1.0, curvature)
        if curvature * self._sign <= 0.0:  # a negative definite matrix is as good as a positive one
            return Status.DIVERGED_INDEFINITE
        drift, factor = np.zeros(0), 0.0
        if abs(drift_gain) > DRIFT * product**2 / abs(curvature):
            drift = weights @ directions
            along = float(system.sum(np.array([drift @ (weights @ images)]))[0])
            # drift_gain/along is 1 as far as the directions are A-orthogonal; at FP64's floor they are not
            factor = drift_gain / along if along * self._sign > 0.0 else 0.0
        self._kept.add(p, image, curvature)
        self.energies.append(product**2 / abs(curvature))
        self._lanczos(product / curvature, overlap * self._sign)
        self._size = math.sqrt(length)
        p *= product / curvature
        if factor:
            p += factor * drift
        return p


class ConjugateGradientsFirst:
    """Flexible CG, and FGMRES from the step on where a symmetric matrix turns out to be indefinite."""

    def __init__(self, size: int, restart: int, weight: Vector | None = None) -> None:
        self._inner: Accelerator = FlexibleConjugateGradients(size, restart)
        self._size, self._restart, self._weight = size, restart, weight

    @property
    def exact_projection(self) -> bool:
        """That of the method in charge."""
        return self._inner.exact_projection

    @property
    def energies(self) -> Sequence[float]:
        """Those of the method in charge."""
        return self._inner.energies

    @property
    def slow_error(self) -> float:
        """That of the method in charge."""
        return self._inner.slow_error

    def target(self, system: LinearSystem, residual: Vector) -> Vector:
        """Return what the method in charge wants."""
        return self._inner.target(system, residual)

    def update(self, system: LinearSystem, residual: Vector, correction: Vector) -> Vector | Status:
        """Return the step of the method in charge."""
        step = self._inner.update(system, residual, correction)
        if step is Status.DIVERGED_INDEFINITE:
            self._inner = FlexibleGmres(self._size, self._restart, self._weight)
            self._inner.target(system, residual)  # the same vector that the correction was made for
            step = self._inner.update(system, residual, correction)
        return step


def make_accelerator(name: str, size: int, restart: int, weight: Vector | None = None) -> Accelerator:
    """Return the accelerator of an option value; `auto` is for a symmetric matrix.

    Args:
        size: unknowns of this rank. restart: directions kept. weight: of the residual's rows, for FGMRES; None: all
            alike.
    """
    if name == "auto":
        return ConjugateGradientsFirst(size, restart, weight)
    if name == "none":
        return PlainRefinement()
    if name == "fgmres":
        return FlexibleGmres(size, restart, weight)
    if name == "fcg":
        return FlexibleConjugateGradients(size, restart)
    raise InvalidInput("accelerator", name, "auto | none | fgmres | fcg")


@dataclass
class Progress:
    """Where the loop stands after an outer step, for tests, monitors and the report.

    Args:
        iteration: steps done. residual_norm: true ‖b − A x‖₂. correction: ‖x_k − x_{k−1}‖₂/‖x_k‖₂.
        solution_norm: ‖x_k‖₂, of the part that is determined. forward_estimate: estimate of ‖x_k − x‖₂/‖x‖₂ (infinite
            before two steps).
        slow_estimate: that part of it which comes from slow modes and is free of noise; 0 if none was seen.
    """

    iteration: int
    residual_norm: float
    correction: float
    solution_norm: float
    forward_estimate: float
    slow_estimate: float = 0.0


class _ForwardEstimate:
    """Estimate the forward error from the corrections and the rate at which they and the residuals fall.

    If ‖e_k‖ ≤ ρ ‖e_{k−1}‖ then ‖e_k‖ ≤ ρ/(1−ρ) ‖x_k − x_{k−1}‖. ρ is taken as the slowest of the two observed rates,
    over up to three steps, and of the residual's mean rate since the start: conjugate gradients that wait for one slow
    mode let residual and steps fall for a while as if it were not there. In the fraction it is at least 0.1, so that
    one lucky step does not end a solve. A step that is small by itself proves nothing (the first of an FGMRES cycle
    often is): each of the last four steps gives a bound that has shrunk by ρ per step since, and the largest counts.
    With the last step alone noisy FGMRES stopped with forward errors up to a thousand times the target.
    """

    def __init__(self) -> None:
        self._residuals: list[float] = []
        self._steps: list[float] = []

    def add(self, residual_norm: float, step_norm: float) -> float:
        """Return the estimate of ‖e_k‖ after one more step (infinite if nothing can be said)."""
        self._residuals.append(residual_norm)
        self._steps.append(step_norm)
        if step_norm == 0.0:
            return 0.0 if residual_norm == 0.0 else math.inf
        rates: list[float] = []
        for norms in (self._residuals, self._steps[1:]):
            back = min(3, len(norms) - 1)
            if back > 0 and norms[-1 - back] > 0:
                rates.append((norms[-1] / norms[-1 - back]) ** (1.0 / back))
        if len(self._residuals) < 2:
            return math.inf
        if self._residuals[0] > 0:
            rates.append((residual_norm / self._residuals[0]) ** (1.0 / (len(self._residuals) - 1)))
        observed = max(rates)
        if observed >= 0.98:
            return math.inf
        bounds = (norm * observed**age for age, norm in enumerate(self._steps[:0:-1][:4]))
        rate = max(0.1, observed)
        return max(bounds) * rate / (1.0 - rate)


def refine(
    system: LinearSystem, x: Vector, accelerator: Accelerator, *, test: Callable[[Progress], Status | None],
    stagnation: int = 30, max_iterations: int = 10000, confirm: float | None = None,
) -> Status:
    """Refine x in place until `test` says stop or nothing more can be gained.

    Args:
        system: the system.
        x: initial guess on entry, the solution on return (this rank's part).
        accelerator: fresh for each solve.
        test: called with the true residual of every iterate, the initial guess included; None goes on.
        stagnation: steps without a residual below 0.9 × the smallest so far after which to give up, four times as
            many while conjugate gradients lower the energy of the error (`GAINING`).
        max_iterations: steps at most.
        confirm: believe CONVERGED_FP32 only if a plain correction of the last iterate, without any accelerator, is
            at most this fraction of it: for matrices whose rows are so different in size that an accelerator's scalar
            products are all rounding, and its small steps say nothing. None: believe it.

    Returns:
        How it ended.
    """
    estimate = _ForwardEstimate()
    best, since_best, digital = math.inf, 0, True
    step_norm, before, iteration = 0.0, 0.0, 0
    forward, slow = math.inf, 0.0
    while True:
        true = system.residual(x)
        part = system.determined(x)
        sums = system.sum(np.array([true @ true, part @ part]))
        if not np.isfinite(sums).all():
            return Status.DIVERGED_NANORINF
        norm, size = math.sqrt(float(sums[0])), math.sqrt(float(sums[1]))
        if iteration:
            seen, known = accelerator.slow_error * norm / before if before > 0 else 0.0, system.slow_error(true)
            forward = max(estimate.add(norm, step_norm), seen, known) / size if size > 0 else math.inf
            # the Ritz values of CG are too noisy to be asked at FP64's floor
            slow = max(seen if accelerator.exact_projection else 0.0, known) / size if size > 0 else 0.0
        else:
            estimate.add(norm, 0.0)
        status = test(Progress(iteration, norm, step_norm / size if size > 0 else 0.0, size, forward, slow))
        if status is Status.CONVERGED_FP32 and confirm is not None:
            check = system.correct(true)
            if not math.sqrt(float(system.sum(np.array([check @ check]))[0])) <= confirm * size:
                status = None
        if status is not None:
            return status
        if iteration >= max_iterations:
            return Status.DIVERGED_ITS
        if norm < 0.9 * best:
            best, since_best = norm, 0
        else:
            since_best += 1
            energies = accelerator.energies if digital else ()
            gaining = sum(energies[-stagnation:]) > GAINING * sum(energies)
            if since_best >= stagnation * (PATIENCE if gaining else 1):
                return Status.DIVERGED_STAGNATED
        before = norm
        residual = system.machine_residual(x, true)
        digital = residual is true  # or else what conjugate gradients take for energy is the machine's error, too
        correction = system.correct(accelerator.target(system, residual))
        step = accelerator.update(system, residual, correction)
        if isinstance(step, Status):
            return step
        square = float(system.sum(np.array([step @ step]))[0])
        if not math.isfinite(square):
            return Status.DIVERGED_PC_FAILED
        x += step
        step_norm = math.sqrt(square)
        iteration += 1

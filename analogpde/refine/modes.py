"""Slow modes, known beforehand or looked for: what a matrix all but annihilates, asked for its share of the error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analogpde.refine.loop import LinearSystem, Progress, make_accelerator, refine
from analogpde.refine.status import Status
from analogpde.refine.target import FORWARD_ERROR

# Below this softness of the coarsest operator, or of A as `nearly_singular` measures it, a nearly singular mode is
# looked for. On 2-D Poisson, 256 to 2304 unknowns, the coarsest has 0.5 to 2; shifted to a relative lowest eigenvalue
# of 1e-4 and less 0.25 to 0.5 all the same, which is what the coarse space leaves of it. A itself has 1e-4 to 0.2 then.
SOFT = 0.25
# The search ends at this residual, or after so many steps.
SEARCH_RTOL, SEARCH_STEPS = 1e-6, 1000
# Two corrections of a vector without structure, and then relaxation of A v = 0 from there. Of usual matrices a step
# leaves 0.02 to 0.4 (Poisson, degree 1 to 3, rough and anisotropic coefficients, convection; 64 to 22500 unknowns,
# five chips; 0.6 with 64 unknowns and the poorest tiles), of nearly singular ones 0.7 to 1.1, since nothing tells the
# tiles of the mode, and 0.5 where offsets and swing stir it.
RELAXED, REMAINS, RELAXATIONS = 0.45, 0.1, 6
KNOWN = 0.01  # what may be left of a vector, squared, that others are said to span
SINGULAR = 2.0**-46  # |vᵀAv| below this fraction of ‖A‖ is rounding: nothing is known of the error along v
# The same where the search for v itself ended at a floor: rounding of b − A x, 2^-53 ‖A‖ ‖x‖ at most, may then leave an
# error along v above 2^-23.
BLURRED = 2.0**-30


@dataclass(frozen=True)
class Found:
    """What a search for a nearly singular mode found: this rank's part of A's vector, of Aᵀ's if A is unsymmetric.

    `end` tells how the search for the first ended.
    """

    right: NDArray[np.float64]
    end: Status
    left: NDArray[np.float64] | None = None

    @property
    def failed(self) -> bool:
        """Whether the search ended with nothing that could be called an answer."""
        return self.end is not Status.CONVERGED_RTOL


class _Side:
    """Vectors on one side of A, their lengths, and their scalar products once scaled to unit length."""

    def __init__(
        self, vectors: NDArray[np.float64], add: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> None:
        gram = add(vectors.T @ vectors)
        self.vectors, self.lengths = vectors, np.sqrt(np.diag(gram))
        self.gram = gram / np.outer(self.lengths, self.lengths)


def without(
    null: NDArray[np.float64], x: NDArray[np.float64], add: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return x without its part in the space of some orthonormal vectors, shape (rows, j). Collective."""
    return np.asarray(x - null @ add(null.T @ x)) if null.shape[1] else x


class SlowModes:
    """The error along the near-null vectors V of A, from one small system: V c with UᵀAV c = Uᵀr.

    A Krylov method may overlook a mode that the right-hand side has almost nothing of, and that dominates the
    solution all the same (closed flow with a weak reaction: the constant). What A all but annihilates is known
    beforehand, so that the residual can be asked for it at the price of k scalar products.

    Args:
        vectors, images: V and A V, this rank's rows, shape (rows, k).
        norm: an estimate of ‖A‖₂.
        add: sums an array over ranks.
        left: U, near-null vectors of Aᵀ, shape (rows, k), where they differ; without them V (Galerkin).
        declared: how many of the vectors, the first ones, are declared near-null and not found; None: all.

    Attributes:
        doubtful: whether what A leaves of the last vector may be rounding: `lost` can tell.
        lost: what A leaves of a mode found that is only rounding, relative; nothing can be known of the error along it.
            Zero if there is none.
        null: what A annihilates of the declared vectors, an orthonormal basis, shape (rows, j).
        gain: ‖v‖/‖A v‖ of a mode found where A is unsymmetric and the mode of Aᵀ unknown: any part of the residual may
            have been multiplied by it.
    """

    def __init__(
        self, vectors: NDArray[np.float64], images: NDArray[np.float64], norm: float,
        add: Callable[[NDArray[np.float64]], NDArray[np.float64]], left: NDArray[np.float64] | None = None,
        declared: int | None = None,
    ) -> None:
        left = vectors if left is None else left
        self._add, self._sides = add, [_Side(side, add) for side in (vectors, left)]
        products = add(left.T @ images)
        if not np.isfinite(products).all():
            products = np.zeros_like(products)
        lengths = self._sides[0].lengths
        sizes = np.sqrt(add(np.einsum("ij,ij->j", images, images)))
        self.doubtful = bool(len(sizes) and sizes[-1] <= BLURRED * norm * lengths[-1])
        if left is not vectors:  # of a declared vector that is annihilated nothing is known, by whatever dual
            gone = np.flatnonzero(sizes <= SINGULAR * norm * lengths)
            products[:, gone if declared is None else gone[gone < declared]] = 0.0
        self.lost = self.gain = 0.0
        self.declared, self._norm = vectors[:, :declared], norm
        self.null = self.null_of(images[:, :declared])
        u, singular, v = np.linalg.svd(products / np.outer(self._sides[1].lengths, lengths))
        # a left and a right vector that meet in no place make a small product of sizes that are none
        floor = SINGULAR * norm * (1.0 if left is vectors else 2.0**-53)
        inverse = np.divide(1.0, singular, where=singular > floor, out=np.zeros_like(singular))
        self._inverse = (v.T * inverse) @ u.T
        self._rounding = 0.0
        if declared is not None and declared < vectors.shape[1]:
            self._rounding = 2.0**-53 * norm * float(inverse.max(initial=0.0))

    @property
    def unproven(self) -> bool:
        """Whether a residual of zero proves nothing: what rounding hides of it may be an error above 2^-23."""
        return bool(self.lost or self._rounding > FORWARD_ERROR)

    def null_of(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return an orthonormal basis of the declared vectors of whose images nothing is left but rounding. Collective.

        What such an operator says of x is nothing along them, and right-hand sides that no x can reach, if only by
        rounding, drive iterates there without end. Measured by the size of such an iterate any error is small: that
        part of x must not count.

        Args:
            images: A V, or Aᵀ V, of the declared vectors, this rank's rows.
        """
        sizes, lengths = np.sqrt(self._add(np.array([np.sum(images**2, axis=0), np.sum(self.declared**2, axis=0)])))
        null = self.declared[:, sizes <= SINGULAR * self._norm * lengths]
        if not null.shape[1]:
            return null
        values, rotation = np.linalg.eigh(self._add(null.T @ null))
        held = values > 1e-12 * values[-1]
        return np.asarray(null @ (rotation[:, held] / np.sqrt(values[held])))

    def error(self, residual: NDArray[np.float64], transposed: bool = False) -> float:
        """Return ‖V c‖₂ for this residual of A x = b (of Aᵀ x = b); infinite if a mode is lost. Collective."""
        if self.lost:
            return math.inf
        inverse = self._inverse.T if transposed else self._inverse
        least = 0.0
        if self.gain:
            least = self.gain * math.sqrt(float(self._add(np.array([residual @ residual]))[0]))
        into, out = self._sides if transposed else self._sides[::-1]
        c = inverse @ (self._add(residual @ into.vectors) / into.lengths)
        largest = float(np.abs(c).max(initial=0.0))
        if not 0.0 < largest < math.inf:
            return max(largest, least)
        c = c / largest  # so that no square over- or underflows
        return max(largest * math.sqrt(max(float(c @ out.gram @ c), 0.0)), least)


def lost(
    vectors: NDArray[np.float64], images: NDArray[np.float64], sizes: NDArray[np.float64],
    add: Callable[[NDArray[np.float64]], NDArray[np.float64]], search: Found,
) -> float:
    """Return ‖A v‖/‖|A| |v|‖ of the last vector if rounding hides it and the others do not span it, else 0.

    Where a vector that was declared near-null is annihilated, too, the program knows of it: a solution up to constants
    is what a consistent Neumann problem without MatSetNullSpace asks for.

    Args:
        vectors, images, sizes: V, A V and |A| |V|, this rank's rows, shape (rows, k).
        add: sums an array over ranks.
        search: what found the last vector.
    """
    left = np.sqrt(add(np.einsum("ij,ij->j", images, images)) / add(np.einsum("ij,ij->j", sizes, sizes)))
    known = np.flatnonzero(left[:-1] <= SINGULAR)
    if not left[-1] <= (SINGULAR if search.end is Status.CONVERGED_RTOL else BLURRED):
        # no floor of FP64 is so high that a search ends there with a vector that A leaves so much of
        return float(left[-1]) if search.failed and not len(known) else 0.0
    gram = add(vectors.T @ vectors)
    share = gram[-1, known] @ np.linalg.lstsq(gram[np.ix_(known, known)], gram[known, -1])[0] / gram[-1, -1]
    return float(max(left[-1], 2.0**-53)) if share <= 1.0 - KNOWN else 0.0


def softness(matrix: NDArray[np.float64]) -> float:
    """Return how soft a dense operator is: its smallest singular value over that of the 2-D Laplacian of its size.

    Both are scaled to a unit diagonal; the Laplacian's is 1 − cos(π/(√n + 1)). Infinite without rows.
    """
    if not len(matrix):
        return math.inf
    scale = 1.0 / np.sqrt(np.abs(np.diag(matrix)))
    scaled = matrix * np.outer(scale, scale)
    if not np.isfinite(scaled).all():
        return 0.0
    usual = 1.0 - math.cos(math.pi / (math.sqrt(len(matrix)) + 1.0))
    return float(np.linalg.svd(scaled, compute_uv=False)[-1]) / usual


def without_structure(first: int, size: int) -> NDArray[np.float64]:
    """Return a vector with something of every mode, the same on any number of ranks: this rank's `size` rows of it."""
    return np.modf(43758.5453 * np.sin(12.9898 * np.arange(first + 1, first + size + 1)))[0]  # digits of a large sine


def nearly_singular(system: LinearSystem, diagonal: NDArray[np.float64], first: int) -> bool:
    """Tell by a few corrections whether A may be nearly singular, so that `hidden_mode` is worth its price. Collective.

    What the tiles leave of A v = 0, v − M A v, is mostly modes that A all but annihilates, if there are any, and of
    those it leaves all: no such mode was a tenth of v if v falls to that, and there may be one if a step leaves most of
    it. So there may if ‖D^(-1/2) A v‖ falls below `SOFT` times what the smallest singular value of a 2-D Laplacian with
    as many unknowns is, scaled to a unit diagonal, of ‖D^(1/2) v‖: it is never below the smallest one of A.

    Args:
        system: whose A and corrections M these are. diagonal: of A, this rank's rows. first: the first of them.
    """
    size = np.sqrt(np.where(diagonal == 0.0, 1.0, np.abs(diagonal)))
    unknowns = float(system.sum(np.array([float(len(size))]))[0])
    usual = 1.0 - math.cos(math.pi / (math.sqrt(unknowns) + 1.0))
    v = system.correct(system.correct(without_structure(first, len(size))))
    at_first = before = math.inf
    for step in range(RELAXATIONS + 1):
        image = system.multiply(v)
        left, whole = np.sqrt(system.sum(np.array([np.sum((image / size) ** 2), np.sum((v * size) ** 2)])))
        if not left > SOFT * usual * whole:  # nor where it is no number
            return True
        if step == 0:
            at_first = whole
        elif whole <= REMAINS * at_first:
            return False
        elif whole > RELAXED * before:
            return True
        before = whole
        v = v - system.correct(image)
    return True


class _Search:
    """A y = w on the tiles of A x = b, w without structure, if equations of different size have a weight."""

    def __init__(self, system: LinearSystem, first: int, size: int, weight: NDArray[np.float64] | None) -> None:
        self._system = system
        self._b = system.residual(np.zeros(size)).copy()
        w = without_structure(first, size)
        if weight is not None:
            w /= weight
        b_norm, w_norm = np.sqrt(system.sum(np.array([self._b @ self._b, w @ w])))
        self._w = w * (b_norm / w_norm if w_norm > 0 else 0.0)  # of b's size, so that b − A y loses nothing
        self.size = float(b_norm)

    def multiply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A x."""
        return self._system.multiply(x)

    def residual(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return w − A x."""
        return np.asarray(self._w - (self._b - self._system.residual(x)))

    def machine_residual(self, x: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `true`: no slices are needed to find a direction."""
        return true

    def correct(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the tiles' correction."""
        return self._system.correct(residual)

    def slow_error(self, residual: NDArray[np.float64]) -> float:
        """Return 0: it is what is looked for."""
        return 0.0

    def determined(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x: what A all but annihilates is looked for."""
        return x

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over ranks."""
        return self._system.sum(values)


def hidden_mode(
    system: LinearSystem, accelerator: str, restart: int, first: int, size: int,
    weight: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], Status]:
    """Return y with A y ≈ w for a w that has something of every mode: where A is nearly singular, mostly its slow mode.

    And how that ended.

    One step of inverse iteration. A right-hand side, or a Krylov space, that has nothing of a nearly singular mode
    does not tell of the error along it, which the tiles' noise brings in all the same. Collective.

    Args:
        system: A x = b with b not zero.
        accelerator, restart: as the solve itself takes them.
        first, size: this rank's rows of A. weight: what equations of different size are multiplied by; None: alike.
    """
    search = _Search(system, first, size, weight)
    y = np.zeros(size)

    def test(progress: Progress) -> Status | None:
        return Status.CONVERGED_RTOL if progress.residual_norm <= SEARCH_RTOL * search.size else None

    chosen = make_accelerator(accelerator, size, restart, weight)
    end = refine(search, y, chosen, test=test, max_iterations=SEARCH_STEPS)
    return y, end

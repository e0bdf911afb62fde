"""Slow modes, known beforehand or looked for: what a matrix all but annihilates, asked for its share of the error."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analogpde.refine.loop import LinearSystem, Progress, make_accelerator, refine
from analogpde.refine.status import Status

# Below this softness of the coarsest operator a nearly singular mode is looked for. On 2-D Poisson, 256 to 2304
# unknowns, it is 0.6 to 2; shifted to a relative lowest eigenvalue of 1e-2 0.03 to 0.22, of 1e-4 and less 0.004 to
# 0.16, which is what the coarse space leaves of it.
SOFT = 0.25
# The search ends at this residual, or after so many steps.
SEARCH_RTOL, SEARCH_STEPS = 1e-6, 100
KNOWN = 0.01  # what may be left of a vector, squared, that others are said to span
SINGULAR = 2.0**-46  # |vᵀAv| below this fraction of ‖A‖ is rounding: nothing is known of the error along v
# The same where the search for v itself ended at a floor: rounding of b − A x, 2^-53 ‖A‖ ‖x‖ at most, may then leave an
# error along v above 2^-23.
BLURRED = 2.0**-30


class SlowModes:
    """The error along the near-null vectors V of A, from one small Galerkin system: V c with VᵀAV c = Vᵀr.

    A Krylov method may overlook a mode that the right-hand side has almost nothing of, and that dominates the
    solution all the same (closed flow with a weak reaction: the constant). What A all but annihilates is known
    beforehand, so that the residual can be asked for it at the price of k scalar products.

    Args:
        vectors, images: V and A V, this rank's rows, shape (rows, k).
        norm: an estimate of ‖A‖₂.
        add: sums an array over ranks.

    Attributes:
        doubtful: whether what A leaves of the last vector may be rounding: `lost` can tell.
        lost: what A leaves of a mode found that is only rounding, relative; nothing can be known of the error along it.
            Zero if there is none.
    """

    def __init__(
        self, vectors: NDArray[np.float64], images: NDArray[np.float64], norm: float,
        add: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> None:
        self._vectors, self._add = vectors, add
        gram, products = add(vectors.T @ vectors), add(vectors.T @ images)
        if not (np.isfinite(products).all() and np.isfinite(gram).all()):
            products = np.zeros_like(gram)
        lengths = np.sqrt(np.diag(gram))
        self._lengths, self._gram = lengths, gram / np.outer(lengths, lengths)
        with np.errstate(over="ignore"):
            sizes = np.sqrt(add(np.einsum("ij,ij->j", images, images)))
        self.doubtful = bool(len(sizes) and sizes[-1] <= BLURRED * norm * lengths[-1])
        self.lost = 0.0
        left, singular, right = np.linalg.svd(products / np.outer(lengths, lengths))
        inverse = np.divide(1.0, singular, where=singular > SINGULAR * norm, out=np.zeros_like(singular))
        self._inverse = (right.T * inverse) @ left.T

    def error(self, residual: NDArray[np.float64], transposed: bool = False) -> float:
        """Return ‖V c‖₂ for this residual of A x = b (of Aᵀ x = b); infinite if a mode is lost. Collective."""
        if self.lost:
            return math.inf
        inverse = self._inverse.T if transposed else self._inverse
        c = inverse @ (self._add(residual @ self._vectors) / self._lengths)
        largest = float(np.abs(c).max(initial=0.0))
        if not 0.0 < largest < math.inf:
            return largest
        c = c / largest  # so that no square over- or underflows
        return largest * math.sqrt(max(float(c @ self._gram @ c), 0.0))


def lost(
    vectors: NDArray[np.float64], images: NDArray[np.float64], sizes: NDArray[np.float64],
    add: Callable[[NDArray[np.float64]], NDArray[np.float64]], sharp: bool,
) -> float:
    """Return ‖A v‖/‖|A| |v|‖ of the last vector if rounding hides it and the others do not span it, else 0.

    Where a vector that was declared near-null is annihilated, too, the program knows of it: a solution up to constants
    is what a consistent Neumann problem without MatSetNullSpace asks for.

    Args:
        vectors, images, sizes: V, A V and |A| |V|, this rank's rows, shape (rows, k).
        add: sums an array over ranks.
        sharp: whether the search for the last vector came to its end, so that its image is what it should be.
    """
    left = np.sqrt(add(np.einsum("ij,ij->j", images, images)) / add(np.einsum("ij,ij->j", sizes, sizes)))
    if not left[-1] <= (SINGULAR if sharp else BLURRED):
        return 0.0
    gram = add(vectors.T @ vectors)
    known = np.flatnonzero(left[:-1] <= SINGULAR)
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


class _Search:
    """A y = w on the tiles of A x = b, w without structure."""

    def __init__(self, system: LinearSystem, first: int, size: int) -> None:
        self._system = system
        self._b = system.residual(np.zeros(size)).copy()
        # the fractional part of a large sine: the same numbers on any number of ranks, with something of every mode
        w = np.modf(43758.5453 * np.sin(12.9898 * np.arange(first + 1, first + size + 1)))[0]
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

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over ranks."""
        return self._system.sum(values)


def hidden_mode(
    system: LinearSystem, accelerator: str, restart: int, first: int, size: int,
) -> tuple[NDArray[np.float64], bool]:
    """Return y with A y ≈ w for a w that has something of every mode: where A is nearly singular, mostly its slow mode.

    And whether that went as far as it should, not to a floor of FP64 above it.

    One step of inverse iteration. A right-hand side, or a Krylov space, that has nothing of a nearly singular mode
    does not tell of the error along it, which the tiles' noise brings in all the same. Collective.

    Args:
        system: A x = b with b not zero.
        accelerator, restart: as the solve itself takes them.
        first, size: this rank's rows of A.
    """
    search = _Search(system, first, size)
    y = np.zeros(size)

    def test(progress: Progress) -> Status | None:
        return Status.CONVERGED_RTOL if progress.residual_norm <= SEARCH_RTOL * search.size else None

    end = refine(search, y, make_accelerator(accelerator, size, restart), test=test, max_iterations=SEARCH_STEPS)
    return y, end is Status.CONVERGED_RTOL

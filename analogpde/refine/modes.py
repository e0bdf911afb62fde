"""Slow modes known beforehand: what a matrix all but annihilates, asked for its share of the error."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SINGULAR = 2.0**-46  # |vᵀAv| below this fraction of ‖A‖ is rounding: nothing is known of the error along v


class SlowModes:
    """The error along the near-null vectors V of A, from one small Galerkin system: V c with VᵀAV c = Vᵀr.

    A Krylov method may overlook a mode that the right-hand side has almost nothing of, and that dominates the
    solution all the same (closed flow with a weak reaction: the constant). What A all but annihilates is known
    beforehand, so that the residual can be asked for it at the price of k scalar products.

    Args:
        vectors, images: V and A V, this rank's rows, shape (rows, k).
        norm: an estimate of ‖A‖₂.
        add: sums an array over ranks.
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
        left, singular, right = np.linalg.svd(products / np.outer(lengths, lengths))
        inverse = np.divide(1.0, singular, where=singular > SINGULAR * norm, out=np.zeros_like(singular))
        self._inverse = (right.T * inverse) @ left.T

    def error(self, residual: NDArray[np.float64], transposed: bool = False) -> float:
        """Return ‖V c‖₂ for this residual of A x = b (of Aᵀ x = b). Collective."""
        inverse = self._inverse.T if transposed else self._inverse
        c = inverse @ (self._add(residual @ self._vectors) / self._lengths)
        return math.sqrt(max(float(c @ self._gram @ c), 0.0))

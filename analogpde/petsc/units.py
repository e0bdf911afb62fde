"""Units that a solve works in, so that no square of a norm over- or underflows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analogpde.petsc.stack import PETSc
from analogpde.refine.loop import Progress

# Sizes within 2^±200, 1e±60, are left alone: squares of residuals twelve digits below, and sums of them, stay normal.
USUAL = 200
# What must be held in the user's own units: x, the residual, the conductances' scale. Beyond, FP64 has no room left.
LARGEST = 1020


@dataclass(frozen=True)
class Units:
    """A = 2^matrix A', b = 2^right b', x = 2^(right − matrix) x'; powers of two, so that nothing is rounded."""

    matrix: int = 0
    right: int = 0

    @staticmethod
    def of(norm: float, b: PETSc.Vec) -> Units:
        """Choose units for a matrix of this norm and a right-hand side. Collective."""
        largest = float(b.norm(PETSc.NormType.NORM_INFINITY))  # a 2-norm of it may over- or underflow
        return Units(_exponent(norm), _exponent(largest))

    @property
    def solution(self) -> int:
        """The exponent of x."""
        return self.right - self.matrix

    @property
    def unusual(self) -> bool:
        """Whether they are not the user's own."""
        return bool(self.matrix or self.right)

    @property
    def held(self) -> bool:
        """Whether FP64 has room for everything."""
        return max(abs(self.matrix), abs(self.right), abs(self.solution)) <= LARGEST

    def norm(self, b: PETSc.Vec) -> float:
        """Return ‖b‖₂ in the user's units. Collective."""
        if not self.right or not self.held:
            return float(b.norm())
        scaled = b.copy()
        scaled.scale(2.0**-self.right)
        size = float(scaled.norm())
        scaled.destroy()
        return _ldexp(size, self.right)

    def solutions(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x for x'."""
        if not self.solution:
            return values
        with np.errstate(over="ignore"):
            return np.asarray(np.ldexp(values, self.solution))

    def users(self, progress: Progress) -> Progress:
        """Return where the loop stands in the user's units."""
        if not self.unusual:
            return progress
        return replace(progress, residual_norm=_ldexp(progress.residual_norm, self.right),
                       solution_norm=_ldexp(progress.solution_norm, self.solution))


def _exponent(size: float) -> int:
    """Return the power of two next above an unusual size, 0 for a usual one."""
    if not 0.0 < size < math.inf:
        return 0
    exponent = math.frexp(size)[1]
    return exponent if abs(exponent) > USUAL else 0


def _ldexp(size: float, exponent: int) -> float:
    """Return size · 2^exponent, infinite if that is too large."""
    with np.errstate(over="ignore"):
        return float(np.ldexp(size, exponent))

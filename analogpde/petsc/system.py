"""A x = b as the refinement loop sees it: this rank's arrays, PETSc's products, the tiles' corrections."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from analogpde.cost import Ledger
from analogpde.petsc import log
from analogpde.petsc.sliced import SlicedOperator
from analogpde.petsc.stack import PETSc


class System:
    """A x = b on this rank's arrays, for the refinement loop; with `transposed`, Aᵀ x = b."""

    def __init__(
        self, ksp: PETSc.KSP, b: PETSc.Vec, sliced: SlicedOperator | None, host: Ledger, transposed: bool = False,
        progressive: bool = False,
    ) -> None:
        self._matrix, _ = ksp.getOperators()
        self._transposed = transposed
        self._pc = ksp.getPC()
        self._b = b
        self._in, self._out = self._matrix.createVecs()
        self._comm = ksp.getComm().tompi4py()
        self._sliced = sliced
        self._progressive = progressive
        if sliced is not None:
            sliced.restart()
        self._host = host
        space = self._matrix.getTransposeNullSpace() if transposed else self._matrix.getNullSpace()
        self._space = space if space.handle else None
        self.difference = 0.0

    def _apply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        self._in.array[:] = x
        (self._matrix.multTranspose if self._transposed else self._matrix.mult)(self._in, self._out)
        log.machine.add(self._host)
        return np.asarray(self._out.array_r)

    def multiply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A x as the machine forms products. Collective."""
        return (self._sliced.multiply(x) if self._sliced else self._apply(x)).copy()

    def residual(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return b − A x in FP64. Collective."""
        return np.asarray(self._b.array_r - self._apply(x))

    def machine_residual(self, x: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the residual as the machine forms it, and note its distance from the true one. Collective."""
        if self._sliced is None:
            return true
        if self._progressive:
            formed = self._sliced.residual(self._b.array_r, x)
        else:
            formed = self._b.array_r - self._sliced.multiply(x)
        gap = formed - true
        self.difference = math.sqrt(float(self.sum(np.array([gap @ gap]))[0]))
        return np.asarray(formed)

    def correct(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the PC's answer without null-space components. Collective."""
        self._in.array[:] = residual
        (self._pc.applyTranspose if self._transposed else self._pc.apply)(self._in, self._out)
        if self._space is not None:
            self._space.remove(self._out)
        return np.asarray(self._out.array_r).copy()

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over ranks. Collective."""
        if self._comm.size == 1:
            return values
        total = np.empty_like(values)
        self._comm.Allreduce(values, total)
        return total

    def symmetric(self) -> bool:
        """Tell whether uᵀAv = vᵀAu for two fixed vectors without structure. Collective."""
        begin, end = self._in.getOwnershipRange()
        index = np.arange(begin, end, dtype=np.float64)
        u, v = np.cos(12.9898 * index + 0.3), np.sin(78.233 * index + 1.1)
        image = self._apply(u).copy()
        sums = self.sum(np.array([v @ image, u @ self._apply(v), np.abs(v) @ np.abs(image)]))
        # rounding is below 1e-13 of Σ|v||Au|; an unsymmetric matrix of practical interest is far above
        return bool(abs(sums[0] - sums[1]) <= 1e-11 * sums[2])

    def destroy(self) -> None:
        """Free PETSc objects."""
        self._in.destroy()
        self._out.destroy()

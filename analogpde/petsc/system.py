"""A x = b as the refinement loop sees it: this rank's arrays, PETSc's products, the tiles' corrections."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from analogpde.cost import Ledger
from analogpde.petsc import log
from analogpde.petsc.matrix import as_aij, near_null_vectors, unit_columns
from analogpde.petsc.sliced import SlicedOperator
from analogpde.petsc.stack import MPI, PETSc
from analogpde.petsc.units import Units
from analogpde.refine.modes import Found, SlowModes, lost, without, without_structure

USERS = Units()
_APART = 7_654_321  # of two vectors without structure


def slow_modes(
    matrix: PETSc.Mat, norm: float, units: Units, found: Found | None = None,
    weight: NDArray[np.float64] | None = None,
) -> SlowModes:
    """Return what tells of the error along the near-null vectors of a matrix, and along a mode found. Collective.

    Args:
        matrix: A. norm: an estimate of ‖A‖₂. units: of the system that the residuals will be of.
        found: what a search has found. weight: of the rows, where they differ in size: what D A of a symmetric A all
            but annihilates from the left is D⁻¹ V.
    """
    comm = matrix.getComm().tompi4py()

    def unit(vector: NDArray[np.float64]) -> NDArray[np.float64] | None:
        largest = comm.allreduce(float(np.abs(vector).max(initial=0.0)), op=MPI.MAX)
        return vector / largest if 0.0 < largest < math.inf else None

    def add(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.empty_like(values)
        comm.Allreduce(np.ascontiguousarray(values), total)
        return total

    declared = near_null_vectors(matrix)
    right = unit(found.right) if found else None
    vectors = declared if right is None else np.column_stack((declared, right))
    other = unit(found.left) if found and right is not None and found.left is not None else None
    dual = declared if weight is None else weight[:, None] * declared
    if weight is not None:
        dual = unit_columns(comm, dual)
    left = None if other is None else np.column_stack((dual, other))
    if left is None and weight is not None:
        left = dual if right is None else np.column_stack((dual, weight * right))
    images = np.ldexp(_products(matrix, vectors), -units.matrix)
    modes = SlowModes(vectors, images, math.ldexp(norm, -units.matrix), add, left, declared.shape[1])
    if found and right is not None and (modes.doubtful or found.failed):
        modes.lost = lost(vectors, images, np.ldexp(_magnitudes(matrix, vectors), -units.matrix), add, found)
    return modes


def _products(matrix: PETSc.Mat, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return A V, this rank's rows. Collective."""
    out = np.empty_like(vectors)
    v, image = matrix.createVecs()
    for k in range(vectors.shape[1]):
        v.array[:] = vectors[:, k]
        matrix.mult(v, image)
        out[:, k] = image.array_r
    v.destroy()
    image.destroy()
    return out


def _magnitudes(matrix: PETSc.Mat, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |A| |V|, this rank's rows. Collective."""
    aij, converted = as_aij(matrix, "matrix type", "")
    indptr, indices, values = aij.getValuesCSR()
    sizes = PETSc.Mat().createAIJ(aij.getSizes(), csr=(indptr, indices, np.abs(values)), comm=aij.getComm())
    out = _products(sizes, np.abs(vectors))
    for thing in (sizes, *((aij,) if converted else ())):
        thing.destroy()
    return out


class System:
    """A x = b on this rank's arrays, for the refinement loop, in its units; with `transposed`, Aᵀ x = b."""

    def __init__(
        self, ksp: PETSc.KSP, b: PETSc.Vec, sliced: SlicedOperator | None, host: Ledger, transposed: bool = False,
        modes: SlowModes | None = None, progressive: bool = False, units: Units = USERS,
    ) -> None:
        self._matrix, _ = ksp.getOperators()
        self.transposed = transposed
        self._pc = ksp.getPC()
        self._b, self._units = b, units
        self._right = b.array_r if not units.right else np.ldexp(b.array_r, -units.right)
        self._in, self._out = self._matrix.createVecs()
        self._comm = ksp.getComm().tompi4py()
        self._sliced = sliced
        self._progressive = progressive
        if sliced is not None:
            sliced.restart()
        self._host = host
        self._modes = modes
        self._null = np.empty((len(self._right), 0))
        if modes is not None:
            self._null = modes.null_of(self._images(modes.declared)) if transposed else modes.null
        space = self._matrix.getTransposeNullSpace() if transposed else self._matrix.getNullSpace()
        self._space = space if space.handle else None
        self.difference = 0.0

    def _images(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the operator's products with some vectors, this rank's rows. Collective."""
        return np.stack([self._apply(vector).copy() for vector in vectors.T], axis=1)

    def determined(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x without its part along near-null vectors that the operator annihilates. Collective."""
        return without(self._null, x, self.sum)

    def _apply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        self._in.array[:] = x
        (self._matrix.multTranspose if self.transposed else self._matrix.mult)(self._in, self._out)
        log.machine.add(self._host)
        return self._scaled(self._out.array_r)

    def _scaled(self, image: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A' x for A x."""
        return np.ldexp(image, -self._units.matrix) if self._units.matrix else np.asarray(image)

    def multiply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A x as the machine forms products. Collective."""
        return (self._scaled(self._sliced.multiply(x)) if self._sliced else self._apply(x)).copy()

    def residual(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return b − A x in FP64. Collective."""
        return np.asarray(self._right - self._apply(x))

    def machine_residual(self, x: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the residual as the machine forms it, and note its distance from the true one. Collective."""
        if self._sliced is None:
            return true
        if self._progressive and self._units == USERS:
            formed = self._sliced.residual(self._right, x)
        else:
            formed = self._right - self._scaled(self._sliced.multiply(x))
        gap = formed - true
        self.difference = math.sqrt(float(self.sum(np.array([gap @ gap]))[0]))
        return np.asarray(formed)

    def correct(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the PC's answer without null-space components, those that nobody attached included. Collective."""
        self._in.array[:] = residual
        (self._pc.applyTranspose if self.transposed else self._pc.apply)(self._in, self._out)
        if self._space is not None:
            self._space.remove(self._out)
        if self._units.matrix:
            return self.determined(np.ldexp(self._out.array_r, self._units.matrix))
        return self.determined(np.asarray(self._out.array_r).copy())

    def slow_error(self, residual: NDArray[np.float64]) -> float:
        """Return the norm of the error along near-null vectors. Collective."""
        return self._modes.error(residual, self.transposed) if self._modes is not None else 0.0

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over ranks. Collective."""
        if self._comm.size == 1:
            return values
        total = np.empty_like(values)
        self._comm.Allreduce(values, total)
        log.machine.add(Ledger(rank_bytes=values.nbytes))
        return total

    def symmetric(self) -> bool:
        """Tell whether uᵀAv = vᵀAu for two random vectors. Collective.

        Waves would not do: what a coefficient that varies smoothly does to them adds up to nothing.
        """
        begin, end = self._in.getOwnershipRange()
        u, v = (without_structure(first, end - begin) for first in (begin, begin + _APART))
        image = self._apply(u).copy()
        sums = self.sum(np.array([v @ image, u @ self._apply(v), np.abs(v) @ np.abs(image)]))
        # rounding is below 1e-13 of Σ|v||Au|; an unsymmetric matrix of practical interest is far above
        return bool(abs(sums[0] - sums[1]) <= 1e-11 * sums[2])

    def outside_range(self) -> float:
        """Return which part of ‖b‖ lies in the null space of a symmetric A, beyond rounding. Collective."""
        size = self._b.norm()
        if self._space is None or not size or not self.symmetric():
            return 0.0
        self._b.copy(self._out)
        self._space.remove(self._out)
        self._out.aypx(-1.0, self._b)
        part = float(self._out.norm()) / size
        return part if part > 1e-13 else 0.0

    def destroy(self) -> None:
        """Free PETSc objects."""
        self._in.destroy()
        self._out.destroy()

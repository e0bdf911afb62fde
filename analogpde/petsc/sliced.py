"""The bit-sliced residual under PETSc: a fixed-point copy of the operator, and fixed-point vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.cost import Ledger
from analogpde.petsc import log
from analogpde.petsc.matrix import as_aij, version
from analogpde.petsc.options import read_chip
from analogpde.petsc.stack import MPI, PETSc
from analogpde.tile.mvm import slices, to_fixed_point


class SlicedOperator:
    """A x by the HP-MVM: matrix and vector in fixed point, scaled by the diagonal first. Collective.

    The host scales A to D A D with D = |diag A|^(−1/2), so that one exponent serves rows of every size; vectors
    get a fresh exponent at each product.

    Args:
        matrix: a matrix with entries.
        bits: magnitude bits of matrix and vector.
        prefix: options prefix of the solver, for the size of a tile.

    Raises:
        InvalidInput: the matrix has no entries to slice.
    """

    def __init__(self, matrix: PETSc.Mat, bits: int, prefix: str = "") -> None:
        self.bits, self.made_from = bits, (version(matrix), bits)
        self._comm = matrix.getComm().tompi4py()
        scaled, converted = as_aij(matrix, "-ksp_analog_residual sliced with a matrix of type",
                                   "Only -ksp_analog_residual digital works with a matrix without entries.")
        if not converted:
            scaled = matrix.duplicate(copy=True)
        diagonal = scaled.getDiagonal()
        magnitude = np.abs(diagonal.array_r)
        self._scale = np.where(magnitude > 0, 1.0 / np.sqrt(np.where(magnitude > 0, magnitude, 1.0)), 1.0)
        diagonal.array[:] = self._scale
        scaled.diagonalScale(diagonal, diagonal)
        indptr, indices, values = scaled.getValuesCSR()
        largest = float(self._comm.allreduce(float(np.abs(values).max(initial=0.0)), op=MPI.MAX))
        fixed = to_fixed_point(values, bits, largest)
        csr = (indptr, indices, fixed)
        self._matrix = PETSc.Mat().createAIJ(size=matrix.getSizes(), csr=csr, comm=matrix.getComm())
        self._matrix.assemble()
        self._in, self._out = self._matrix.createVecs()
        tile = read_chip(prefix)[0].tile_size
        self._blocks = self._occupied_blocks(indptr, indices, matrix.getOwnershipRange()[0], tile)
        for thing in (scaled, diagonal):
            thing.destroy()
        parts = slices(bits)
        lines = self._blocks * tile * parts * parts
        self._cost = Ledger(mvm_slices=self._blocks * parts * parts, dac_conversions=lines, adc_conversions=lines)
        log.machine.add(Ledger(cells_written=int(np.count_nonzero(fixed)) * parts))

    @staticmethod
    def _occupied_blocks(indptr: NDArray[np.int32], indices: NDArray[np.int32], first_row: int, tile: int) -> int:
        """Return how many tile-sized blocks of this rank's rows hold anything: empty ones are not programmed."""
        rows = (first_row + np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))) // tile
        return len(np.unique(rows.astype(np.int64) << 32 | (indices // tile).astype(np.int64)))

    def multiply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A x in fixed point (a view, valid until the next call)."""
        scaled = x / self._scale
        largest = float(self._comm.allreduce(float(np.abs(scaled).max(initial=0.0)), op=MPI.MAX))
        self._in.array[:] = to_fixed_point(scaled, self.bits, largest)
        self._matrix.mult(self._in, self._out)
        log.machine.add(self._cost)
        return np.asarray(self._out.array_r / self._scale)

    def destroy(self) -> None:
        """Free PETSc objects."""
        for thing in (self._matrix, self._in, self._out):
            thing.destroy()

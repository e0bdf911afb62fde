"""The bit-sliced residual under PETSc: a fixed-point copy of the operator, and fixed-point vectors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.cost import Ledger
from analogpde.petsc import log
from analogpde.petsc.matrix import as_aij, version
from analogpde.petsc.options import read_chip
from analogpde.petsc.stack import MPI, PETSc
from analogpde.tile.mvm import (
    UNRESOLVED,
    SlicedBank,
    keep_top,
    left_out,
    program_sliced,
    rounds_of,
    slices,
    step_of,
    to_fixed_point,
    write_sliced,
)


class SlicedOperator:
    """A x by the HP-MVM: matrix and vector in fixed point, scaled by the diagonal first. Collective.

    The host scales A to D A D with D = |diag A|^(−1/2), so that one exponent serves rows of every size; vectors
    get a fresh exponent at each product. Where the chip's multiplier reads every digit right, the product is formed in
    FP64 from fixed-point numbers; else cells, noise and ADCs are emulated.

    Args:
        matrix: a matrix with entries.
        bits: magnitude bits of matrix and vector.
        prefix: options prefix of the solver, for the chip.

    Raises:
        InvalidInput: the matrix has no entries to slice.
    """

    def __init__(self, matrix: PETSc.Mat, bits: int, prefix: str = "") -> None:
        self.bits, self.made_from = bits, (version(matrix), bits)
        self._comm = comm = matrix.getComm().tompi4py()
        chip, seed = read_chip(prefix)
        self._multiplier = m = chip.multiplier
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
        largest = float(comm.allreduce(float(np.abs(values).max(initial=0.0)), op=MPI.MAX))
        fixed = to_fixed_point(values, bits, largest)
        self._step = step_of(bits, largest)
        self._csr = (indptr, indices, fixed)
        self._matrix = PETSc.Mat().createAIJ(size=matrix.getSizes(), csr=self._csr, comm=matrix.getComm())
        self._matrix.assemble()
        self._in, self._out = self._matrix.createVecs()
        tile = chip.tile_size
        self._blocks = self._occupied_blocks(indptr, indices, matrix.getOwnershipRange()[0], tile)
        sums = np.add.reduceat(np.append(np.abs(fixed), 0.0), indptr[:-1]) * (np.diff(indptr) > 0)
        fullest, rowsum = int(np.diff(indptr).max(initial=0)), float(sums.max(initial=0.0))
        self._fullest = int(comm.allreduce(fullest, op=MPI.MAX))
        self._rowsum = float(comm.allreduce(rowsum, op=MPI.MAX))
        self._held, self._kept, self._events = self.most, 1, 0
        self._bank: SlicedBank | None = None
        self._scatter = self._seen = None
        if not (m.exact and chip.wire.ideal):
            self._program(matrix, chip, seed, prefix)
        for thing in (scaled, diagonal):
            thing.destroy()
        codes = np.rint(fixed / self._step).astype(np.int64)
        log.machine.add(write_sliced(codes, bits, chip, first=matrix.getOwnershipRange()[0], seed=seed, name=prefix))
        self._lines = self._blocks * tile

    @property
    def exact(self) -> bool:
        """Whether every slice product is read to its last digit."""
        return self._multiplier.exact

    @property
    def most(self) -> int:
        """Slices of the matrix or of the input, whichever are more."""
        return slices(self.bits, min(self._multiplier.cell_bits, self._multiplier.input_bits))

    def _program(self, matrix: PETSc.Mat, chip: Chip, seed: int, prefix: str) -> None:
        """Program the arrays of a multiplier that is not exact; find out which entries of x they need. Collective."""
        tile = chip.tile_size
        indptr, indices, fixed = self._csr
        needed, local = np.unique(indices, return_inverse=True)
        rows = PETSc.IS().createGeneral(needed.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
        self._seen = PETSc.Vec().createSeq(len(needed), comm=PETSc.COMM_SELF)
        self._scatter = PETSc.Scatter().create(self._in, rows, self._seen, None)
        rows.destroy()
        first = sum(self._comm.allgather(self._blocks)[: self._comm.rank])
        codes = np.rint(fixed / self._step).astype(np.int64)
        self._bank = program_sliced(indptr, local, codes, self.bits, self._multiplier, tile, blocks=indices // tile,
                                    place=indices.astype(np.int64) % tile, first=first, wire=chip.wire,
                                    conductance=chip.cell.conductance_max, seed=seed, name=prefix)

    @staticmethod
    def _occupied_blocks(indptr: NDArray[np.int32], indices: NDArray[np.int32], first_row: int, tile: int) -> int:
        """Return how many tile-sized blocks of this rank's rows hold anything: empty ones are not programmed."""
        rows = (first_row + np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))) // tile
        return len(np.unique(rows.astype(np.int64) << 32 | (indices // tile).astype(np.int64)))

    def multiply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A x in fixed point (a view, valid until the next call). Collective."""
        product = self._multiply(x, self.most)
        self._count(self.most)
        return product

    def residual(self, b: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return b − A x from no more slices than it needs: the products of those left out are below a tenth of it.

        Slices are added, from the top, until the bound of what is left out (`left_out`) is small enough against the
        residual formed so far; the next residual begins with as many. Collective.
        """
        m = self._multiplier
        sums = np.array([float((x / self._scale) @ (x / self._scale)), float(len(x))])
        self._comm.Allreduce(MPI.IN_PLACE, sums)
        formed = b
        if sums[0] == 0.0:
            return np.asarray(b.copy())
        while True:
            formed = b - self._multiply(x, self._kept)
            inside = formed * self._scale
            norm = math.sqrt(float(self._comm.allreduce(float(inside @ inside))))
            bound = left_out(m, self.bits, self._kept, (self._step, self._input_step),
                             (math.sqrt(sums[0]), math.sqrt(sums[1])), (self._fullest, self._rowsum))
            if self._kept >= self.most or bound <= UNRESOLVED * norm:
                break
            self._kept += 1
        self._count(self._kept)
        return np.asarray(formed)

    def restart(self) -> None:
        """Begin a new solve: its first residual needs few slices."""
        self._kept = 1

    def _multiply(self, x: NDArray[np.float64], kept: int) -> NDArray[np.float64]:
        """Return A x from the `kept` top slices (a view, valid until the next call). Collective."""
        m = self._multiplier
        scaled = x / self._scale
        largest = float(self._comm.allreduce(float(np.abs(scaled).max(initial=0.0)), op=MPI.MAX))
        self._input_step = step_of(self.bits, largest)
        fixed = to_fixed_point(scaled, self.bits, largest)
        if self._bank is not None and self._scatter is not None and self._seen is not None:
            self._in.array[:] = fixed
            self._scatter.scatter(self._in, self._seen, mode=PETSc.ScatterMode.FORWARD)
            codes = np.rint(self._seen.array_r / self._input_step).astype(np.int64)
            product = self._bank.multiply(codes, len(x), self._events, kept=kept)
            self._events += 1
            return np.asarray(product * (self._step * self._input_step) / self._scale)
        self._in.array[:] = keep_top(fixed, self._input_step, self.bits, m.input_bits, kept)
        if kept != self._held:
            indptr, indices, values = self._csr
            self._matrix.setValuesCSR(indptr, indices, keep_top(values, self._step, self.bits, m.cell_bits, kept))
            self._matrix.assemble()
            self._held = kept
        self._matrix.mult(self._in, self._out)
        return np.asarray(self._out.array_r / self._scale)

    def _count(self, kept: int) -> None:
        """Add a product of so many slices to the ledger; slices that were added one by one are made once."""
        m = self._multiplier
        rows, inputs = slices(self.bits, m.cell_bits), slices(self.bits, m.input_bits)
        used = min(kept, rows) * min(kept, inputs)
        lines = self._lines * used
        log.machine.add(Ledger(mvm_slices=self._blocks * used, mvm_slices_saved=self._blocks * (rows * inputs - used),
                               dac_conversions=lines, adc_conversions=lines,
                               mvm_rounds=rounds_of(m, self.bits, kept)))

    def destroy(self) -> None:
        """Free PETSc objects."""
        for thing in (self._matrix, self._in, self._out, self._scatter, self._seen):
            if thing is not None:
                thing.destroy()

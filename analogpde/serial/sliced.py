"""The bit-sliced product in one process: a fixed-point copy of the matrix, and fixed-point vectors."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.cost import Ledger
from analogpde.tile.mvm import (
    UNRESOLVED,
    keep_top,
    left_out,
    program_sliced,
    rounds_of,
    slices,
    step_of,
    to_fixed_point,
    write_sliced,
)


class SlicedProduct:
    """A x by the HP-MVM: matrix and vector in fixed point, scaled by the diagonal first.

    The host scales A to D A D with D = |diag A|^(−1/2), so that one exponent serves rows of every size; vectors
    get a fresh exponent at each product. Where the chip's multiplier does not read every digit right, its cells, noise
    and ADCs are emulated.

    Args:
        matrix: real, CSR, columns sorted.
        bits: magnitude bits of matrix and vector.
        chip: whose arrays and multiplier. seed: of their errors.
    """

    def __init__(self, matrix: sp.csr_matrix, bits: int, chip: Chip, seed: int = 0) -> None:
        self.bits, tile, m = bits, chip.tile_size, chip.multiplier
        diagonal = np.abs(matrix.diagonal())
        self._scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        values = matrix.data * self._scale[rows] * self._scale[matrix.indices]
        largest = float(np.abs(values).max())
        fixed = to_fixed_point(values, bits, largest)
        self._bank, self._step, self._events = None, step_of(bits, largest), 0
        codes = np.rint(fixed / self._step).astype(np.int64)
        if not (m.exact and chip.wire.ideal):
            self._bank = program_sliced(matrix.indptr, matrix.indices, codes, bits, m, tile, seed=seed, wire=chip.wire,
                                        conductance=chip.cell.conductance_max)
        self._matrix, self._multiplier, self._lines = (
            sp.csr_matrix((fixed, matrix.indices, matrix.indptr), shape=matrix.shape), m, tile)
        self._blocks = len(np.unique(rows // tile << 32 | matrix.indices.astype(np.int64) // tile))
        self._most = slices(bits, min(m.cell_bits, m.input_bits))
        self._kept = 1
        sums = np.bincount(rows, np.abs(fixed), matrix.shape[0])
        self._size = int(np.diff(matrix.indptr).max(initial=0)), float(sums.max(initial=0.0))
        self.programmed = write_sliced(codes, bits, chip, seed=seed)

    def multiply(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return A x in fixed point, and what it took."""
        return self._multiply(x, self._most)[0], self._spent(self._most)

    def residual(self, b: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return b − A x from no more slices than it needs, as the operator under PETSc does, and what it took.

        Slices are added, from the top, until the bound of what is left out is below a tenth of the residual formed so
        far; the next residual begins with as many.
        """
        size = float(np.linalg.norm(x / self._scale))
        if size == 0.0:
            return b.copy(), Ledger()
        while True:
            product, step = self._multiply(x, self._kept)
            formed = b - product
            bound = left_out(self._multiplier, self.bits, self._kept, (self._step, step),
                             (size, math.sqrt(len(x))), self._size)
            if self._kept >= self._most or bound <= UNRESOLVED * float(np.linalg.norm(formed * self._scale)):
                return formed, self._spent(self._kept)
            self._kept += 1

    def restart(self) -> None:
        """Begin a new solve: its first residual needs few slices."""
        self._kept = 1

    def _spent(self, kept: int) -> Ledger:
        """Return what a product of so many slices takes."""
        m = self._multiplier
        matrix, inputs = slices(self.bits, m.cell_bits), slices(self.bits, m.input_bits)
        used = min(kept, matrix) * min(kept, inputs)
        lines = self._blocks * used * self._lines
        return Ledger(mvm_slices=self._blocks * used, mvm_slices_saved=self._blocks * (matrix * inputs - used),
                      dac_conversions=lines, adc_conversions=lines, mvm_rounds=rounds_of(m, self.bits, kept))

    def _multiply(self, x: NDArray[np.float64], kept: int) -> tuple[NDArray[np.float64], float]:
        """Return A x from the `kept` top slices, and the step of the input."""
        m = self._multiplier
        scaled = x / self._scale
        largest = float(np.abs(scaled).max(initial=0.0))
        step = step_of(self.bits, largest)
        fixed = to_fixed_point(scaled, self.bits, largest)
        if self._bank is not None:
            product = self._bank.multiply(np.rint(fixed / step).astype(np.int64), len(x), self._events, kept=kept)
            self._events += 1
            return np.asarray(product * (self._step * step) / self._scale), step
        matrix = self._matrix
        if kept < self._most:
            matrix = matrix.copy()
            matrix.data = keep_top(matrix.data, self._step, self.bits, m.cell_bits, kept)
            fixed = keep_top(fixed, step, self.bits, m.input_bits, kept)
        return np.asarray((matrix @ fixed) / self._scale), step

"""The bit-sliced product in one process: a fixed-point copy of the matrix, and fixed-point vectors."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.cost import Ledger
from analogpde.tile.mvm import program_sliced, rounds_of, slices, step_of, to_fixed_point, write_sliced


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
        self._matrix = sp.csr_matrix((fixed, matrix.indices, matrix.indptr), shape=matrix.shape)
        rows_cut, inputs_cut = slices(bits, m.cell_bits), slices(bits, m.input_bits)
        blocks = len(np.unique(rows // tile << 32 | matrix.indices.astype(np.int64) // tile))
        products = blocks * rows_cut * inputs_cut
        self._cost = Ledger(mvm_slices=products, dac_conversions=products * tile, adc_conversions=products * tile,
                            mvm_rounds=rounds_of(m, bits))
        self.programmed = write_sliced(codes, bits, chip, seed=seed)

    def multiply(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return A x in fixed point, and what it took."""
        scaled = x / self._scale
        largest = float(np.abs(scaled).max(initial=0.0))
        fixed = to_fixed_point(scaled, self.bits, largest)
        if self._bank is not None:
            step = step_of(self.bits, largest)
            product = self._bank.multiply(np.rint(fixed / step).astype(np.int64), len(x), self._events)
            self._events += 1
            return np.asarray(product * (self._step * step) / self._scale), self._cost
        return np.asarray((self._matrix @ fixed) / self._scale), self._cost

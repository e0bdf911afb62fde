"""The bit-sliced product in one process: a fixed-point copy of the matrix, and fixed-point vectors."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from analogpde.cost import Ledger
from analogpde.tile.mvm import slices, to_fixed_point


class SlicedProduct:
    """A x by the HP-MVM: matrix and vector in fixed point, scaled by the diagonal first.

    The host scales A to D A D with D = |diag A|^(−1/2), so that one exponent serves rows of every size; vectors
    get a fresh exponent at each product.

    Args:
        matrix: real, CSR.
        bits: magnitude bits of matrix and vector.
        tile: rows of an array.
    """

    def __init__(self, matrix: sp.csr_matrix, bits: int, tile: int) -> None:
        self.bits = bits
        diagonal = np.abs(matrix.diagonal())
        self._scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        values = matrix.data * self._scale[rows] * self._scale[matrix.indices]
        fixed = to_fixed_point(values, bits, float(np.abs(values).max()))
        self._matrix = sp.csr_matrix((fixed, matrix.indices, matrix.indptr), shape=matrix.shape)
        parts = slices(bits)
        blocks = len(np.unique(rows // tile << 32 | matrix.indices.astype(np.int64) // tile))
        lines = blocks * tile * parts * parts
        self._cost = Ledger(mvm_slices=blocks * parts * parts, dac_conversions=lines, adc_conversions=lines)
        self.programmed = Ledger(cells_written=int(np.count_nonzero(fixed)) * parts)

    def multiply(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return A x in fixed point, and what it took."""
        scaled = x / self._scale
        fixed = to_fixed_point(scaled, self.bits, float(np.abs(scaled).max(initial=0.0)))
        return np.asarray((self._matrix @ fixed) / self._scale), self._cost

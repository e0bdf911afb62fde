"""What INV tiles hold, arranged for shots: factors of quiet tiles, cells with their read noise of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analogpde.tile.factors import Groups
from analogpde.tile.lanes import LANES
from analogpde.tile.listing import list_cells, sort_by_diagonals
from analogpde.tile.shots import shoot

BEYOND = 0.01  # of the smallest singular value: what entries of a row beyond the band of the cells may add up to


@dataclass(frozen=True)
class Held:
    """Tiles in the groups of their factors, and their cells.

    Args:
        factors: of the programmed matrices.
        offsets: where a tile's cells with read noise begin, as `InvBank` has them.
        row, col, variance: these cells, by diagonals; empty if all tiles are exact.
        exact: tiles that are eliminated with this shot's noise, shape (K,).
        near, first, value, spread, place, draw, far_first, far_value, far_place, stride: what these hold, see
            `analogpde.tile.listing.list_cells`.
    """

    factors: Groups
    offsets: NDArray[np.int64]
    row: NDArray[np.int16]
    col: NDArray[np.int16]
    variance: NDArray[np.float32]
    exact: NDArray[np.bool_]
    near: NDArray[np.int64]
    first: NDArray[np.int64]
    value: NDArray[np.float32]
    spread: NDArray[np.float32]
    place: NDArray[np.uint16]
    draw: NDArray[np.uint32]
    far_first: NDArray[np.int64]
    far_value: NDArray[np.float32]
    far_place: NDArray[np.uint32]
    stride: int

    @staticmethod
    def of(
        factors: Groups, offsets: NDArray[np.int64], row: NDArray[np.int16], col: NDArray[np.int16],
        deviation: NDArray[np.float32], drawn: NDArray[np.bool_],
        smallest: float,
    ) -> Held:
        """Arrange tiles; arguments as of `InvBank`."""
        lengths = np.diff(offsets)
        exact = drawn & (lengths > 0)
        stride = -(-int(lengths[exact].max(initial=0)) // LANES) * LANES
        near = np.zeros(len(factors.base), np.int64)
        first, far_first = np.zeros((2, len(factors.base), factors.rows.shape[1] + 1), np.int64)
        # lanes without such a tile hold the identity; more is needed only where others than noisy cells hold something
        found, room = (int(lengths[exact].sum() + LANES * factors.size.sum()), 0), (-1, 0)
        while found[0] > room[0] or found[1] > room[1]:
            room = found
            value, spread = np.empty(room[0], np.float32), np.empty(room[0], np.float32)
            place, draw = np.empty(room[0], np.uint16), np.empty(room[0], np.uint32)
            far_value, far_place = np.empty(room[1], np.float32), np.empty(room[1], np.uint32)
            found = list_cells(factors.data, factors.members, factors.base, factors.width, factors.size, offsets, row,
                               col, deviation, exact, stride, np.float32(BEYOND * smallest), near, first, value, spread,
                               place, draw, far_first, far_value, far_place)
        # room that is never written takes no memory: there is no need to copy what was found out of it
        kept = slice(0 if exact.all() else len(row))
        sorted_row, sorted_col, variance = row[kept].copy(), col[kept].copy(), deviation[kept].copy()
        if not exact.all():
            sort_by_diagonals(offsets, row, col, deviation, sorted_row, sorted_col, variance)
        return Held(factors, offsets, sorted_row, sorted_col, variance, exact, near, first, value[: found[0]],
                    spread[: found[0]], place[: found[0]], draw[: found[0]], far_first,
                    far_value[: found[1]].copy(), far_place[: found[1]].copy(), stride)

    @property
    def nbytes(self) -> int:
        """Memory held beside the factors and the cells of the bank, in bytes."""
        return sum(array.nbytes for array in (
            self.row, self.col, self.variance, self.near, self.first, self.value, self.spread, self.place,
            self.draw, self.far_first, self.far_value, self.far_place))

    def _of_tiles(self, which: NDArray[np.bool_]) -> Held:
        """Return the same without the groups that hold none of some tiles, and without the others of their members."""
        f = self.factors
        members = np.where((f.members >= 0) & which[f.members], f.members, -1)
        some = (members >= 0).any(axis=1)
        factors = replace(f, members=members[some], base=f.base[some], width=f.width[some], size=f.size[some])
        return replace(self, near=self.near[some], first=self.first[some], far_first=self.far_first[some],
                       factors=factors)

    def shoot(
        self, x: NDArray[np.float64], read: NDArray[np.int32], scale: NDArray[np.float64], sign: NDArray[np.float64],
        codes: tuple[int, int], key: tuple[int, int, NDArray[np.int64], int], transposed: bool,
        bias: NDArray[np.float32], which: NDArray[np.bool_] | None = None,
    ) -> int:
        """Let tiles settle once, in place; see `InvBank.shoot`. Return how many were solved with row exchanges.

        Args:
            codes: of the converters. key: seed, stream word, tile ids and event of the read noise.
            bias: read noise of the bias cells, by row, shape (K, n); no rows without. which: tiles, None for all.
        """
        if which is not None and not which.all():
            return self._of_tiles(which).shoot(x, read, scale, sign, codes, key, transposed, bias)
        seed, word, tiles, event = key
        f = self.factors
        rows, cols, row, col = f.rows, f.cols, self.row, self.col
        if transposed:
            rows, cols, row, col = cols, rows, col, row
        solved: int = shoot(
            f.data, f.members, f.base, f.width, f.size, rows, cols, f.sizes, read, self.offsets, row, col,
            self.variance, self.exact, self.near, self.first, self.value, self.spread, self.place, self.draw,
            self.far_first, self.far_value, self.far_place, self.stride, bias, scale, sign, *codes,
            np.uint64(seed), np.uint64(word), tiles, np.uint64(event & 0xFFFFFFFF), x, transposed)
        return solved

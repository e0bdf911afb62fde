"""What INV tiles hold, arranged for shots: factors of quiet tiles, cells with their read noise of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analogpde.tile.factors import Groups
from analogpde.tile.lanes import LANES
from analogpde.tile.shots import list_cells, shoot, sort_by_diagonals


@dataclass(frozen=True)
class Held:
    """Tiles in the groups of their factors, and their cells.

    Args:
        factors: of the programmed matrices.
        offsets: where a tile's cells with read noise begin, as `InvBank` has them.
        row, col, variance: these cells, by diagonals; empty if all tiles are exact.
        exact: tiles that are eliminated with this shot's noise, shape (K,).
        first, value, spread, place, draw, stride: what these hold, see `analogpde.tile.shots.list_cells`.
    """

    factors: Groups
    offsets: NDArray[np.int64]
    row: NDArray[np.int16]
    col: NDArray[np.int16]
    variance: NDArray[np.float32]
    exact: NDArray[np.bool_]
    first: NDArray[np.int64]
    value: NDArray[np.float32]
    spread: NDArray[np.float32]
    place: NDArray[np.uint16]
    draw: NDArray[np.uint32]
    stride: int

    @staticmethod
    def of(
        factors: Groups, offsets: NDArray[np.int64], row: NDArray[np.int16], col: NDArray[np.int16],
        deviation: NDArray[np.float32], drawn: NDArray[np.bool_],
    ) -> Held:
        """Arrange tiles; arguments as of `InvBank`."""
        lengths = np.diff(offsets)
        exact = drawn & (lengths > 0)
        stride = -(-int(lengths[exact].max(initial=0)) // LANES) * LANES
        first = np.zeros((len(factors.base), factors.rows.shape[1] + 1), np.int64)
        # lanes without such a tile hold the identity; more is needed only where others than noisy cells hold something
        found, room = int(lengths[exact].sum() + LANES * factors.size.sum()), -1
        while found > room:
            room = found
            value, spread = np.empty(room, np.float32), np.empty(room, np.float32)
            place, draw = np.empty(room, np.uint16), np.empty(room, np.uint32)
            found = list_cells(factors.data, factors.members, factors.base, factors.width, factors.size, offsets, row,
                               col, deviation, exact, stride, first, value, spread, place, draw)
        kept = slice(0 if exact.all() else len(row))
        sorted_row, sorted_col, variance = row[kept].copy(), col[kept].copy(), deviation[kept].copy()
        if not exact.all():
            sort_by_diagonals(offsets, row, col, deviation, sorted_row, sorted_col, variance)
        return Held(factors, offsets, sorted_row, sorted_col, variance, exact, first,
                    value[:found].copy(), spread[:found].copy(), place[:found].copy(), draw[:found].copy(), stride)

    @property
    def nbytes(self) -> int:
        """Memory held beside the factors and the cells of the bank, in bytes."""
        return sum(array.nbytes for array in (
            self.row, self.col, self.variance, self.first, self.value, self.spread, self.place, self.draw))

    def _of_tiles(self, which: NDArray[np.bool_]) -> Held:
        """Return the same without the groups that hold none of some tiles, and without the others of their members."""
        f = self.factors
        members = np.where((f.members >= 0) & which[f.members], f.members, -1)
        some = (members >= 0).any(axis=1)
        return replace(self, first=self.first[some], factors=replace(
            f, members=members[some], base=f.base[some], width=f.width[some], size=f.size[some]))

    def shoot(
        self, x: NDArray[np.float64], read: NDArray[np.int32], scale: NDArray[np.float64], sign: NDArray[np.float64],
        codes: tuple[int, int], key: tuple[int, int, NDArray[np.int64], int], transposed: bool,
        which: NDArray[np.bool_] | None = None,
    ) -> int:
        """Let tiles settle once, in place; see `InvBank.shoot`. Return how many were solved with row exchanges.

        Args:
            codes: of the converters. key: seed, stream word, tile ids and event of the read noise.
            which: tiles, None for all.
        """
        if which is not None and not which.all():
            return self._of_tiles(which).shoot(x, read, scale, sign, codes, key, transposed)
        seed, word, tiles, event = key
        f = self.factors
        rows, cols, row, col = f.rows, f.cols, self.row, self.col
        if transposed:
            rows, cols, row, col = cols, rows, col, row
        solved: int = shoot(
            f.data, f.members, f.base, f.width, f.size, rows, cols, f.sizes, read, self.offsets, row, col,
            self.variance, self.exact, self.first, self.value, self.spread, self.place, self.draw, self.stride, scale,
            sign, *codes, np.uint64(seed), np.uint64(word), tiles, np.uint64(event & 0xFFFFFFFF), x, transposed)
        return solved

"""Many square blocks in sparse form: what is to be programmed, one block a tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Blocks:
    """K square blocks, entries sorted by block.

    Args:
        sizes: rows of each block, shape (K,).
        offsets: entries of block k are offsets[k]…offsets[k+1]−1, shape (K+1,).
        row, col: local indices of the entries, shape (E,).
        value: the entries, shape (E,). Diagonal entries are all present; entries are not repeated.
        tiles: global tile ids, shape (K,): they key the noise.
        size: rows of the largest block, or more: the width of arrays over all blocks.
    """

    sizes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    value: NDArray[np.float64]
    tiles: NDArray[np.int64]
    size: int

    @property
    def count(self) -> int:
        """Number of blocks K."""
        return len(self.sizes)

    @property
    def owner(self) -> NDArray[np.int64]:
        """Block index of each entry, shape (E,)."""
        return np.repeat(np.arange(self.count), np.diff(self.offsets))

    def entries(self, which: NDArray[np.int64]) -> slice | NDArray[np.int64]:
        """Return where the entries of the named blocks are, in the given order; a slice where these are a range."""
        if len(which) and which[-1] - which[0] + 1 == len(which) and (np.diff(which) == 1).all():
            return slice(int(self.offsets[which[0]]), int(self.offsets[which[-1] + 1]))
        lengths = np.diff(self.offsets)[which]
        starts = np.cumsum(lengths) - lengths
        return np.asarray(np.repeat(self.offsets[which] - starts, lengths) + np.arange(lengths.sum()))

    def select(self, which: NDArray[np.int64]) -> Blocks:
        """Return the named blocks alone, in the given order and of the same width; a range shares the memory."""
        entries = self.entries(which)
        offsets = np.concatenate(([0], np.cumsum(np.diff(self.offsets)[which]))).astype(np.int64)
        return Blocks(self.sizes[which], offsets, self.row[entries], self.col[entries], self.value[entries],
                      self.tiles[which], self.size)

    def full(self) -> tuple[Blocks, NDArray[np.int64]]:
        """Return the blocks with all their entries, zeros too, by rows, and where the entries given are in them."""
        sizes = self.sizes.astype(np.int64)
        offsets = np.concatenate(([0], np.cumsum(sizes**2))).astype(np.int64)
        owner = np.repeat(np.arange(self.count), sizes**2)
        place = np.arange(offsets[-1], dtype=np.int64) - offsets[owner]
        row, col = place // sizes[owner], place % sizes[owner]
        where = (offsets[self.owner] + self.row * sizes[self.owner] + self.col).astype(np.int64)
        value = np.zeros(len(owner))
        value[where] = self.value
        return Blocks(self.sizes, offsets, row.astype(np.int32), col.astype(np.int32), value, self.tiles,
                      self.size), where

    def dense(self, value: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """Return the blocks as an array of shape (K, size, size), identity where a block is smaller."""
        out = np.zeros((self.count, self.size, self.size))
        diagonal = np.arange(self.size)
        out[:, diagonal, diagonal] = diagonal[None, :] >= self.sizes[:, None]
        out[self.owner, self.row, self.col] = self.value if value is None else value
        return out

    @staticmethod
    def joined(parts: list[Blocks]) -> Blocks:
        """Return the blocks of several batches one after the other, as wide as the widest."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return Blocks(np.concatenate([part.sizes for part in parts]),
                      np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
                      np.concatenate([part.row for part in parts]), np.concatenate([part.col for part in parts]),
                      np.concatenate([part.value for part in parts]), np.concatenate([part.tiles for part in parts]),
                      max(part.size for part in parts))

    @staticmethod
    def from_dense(matrices: NDArray[np.float64], first_tile: int = 0) -> Blocks:
        """Make blocks of dense matrices, shape (K, n, n); zeros off the diagonal are not programmed."""
        count, n, _ = matrices.shape
        keep = matrices != 0
        keep[:, np.arange(n), np.arange(n)] = True
        tile, row, col = np.nonzero(keep)
        offsets = np.concatenate(([0], np.cumsum(np.bincount(tile, minlength=count)))).astype(np.int64)
        return Blocks(np.full(count, n, np.int32), offsets, row.astype(np.int32), col.astype(np.int32),
                      matrices[keep].astype(np.float64), np.arange(first_tile, first_tile + count), n)

"""LU factors of a batch of sparse blocks: what a programmed tile settles to, computed digitally.

A patch of a mesh has a narrow band once its rows are ordered: its factors take a fifth of the memory of its inverse
(tile 128, five-point stencil: 25 entries a column in place of 128). Substitution is a chain of short dependent steps,
so eight tiles are solved side by side, one in each float of a vector register.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from analogpde.tile.blocks import Blocks
from analogpde.tile.elimination import band_order, eliminate, eliminate_pivoting
from analogpde.tile.kernels import pack, solve_groups
from analogpde.tile.lanes import LANES

# Elimination without pivoting may lose this factor against partial pivoting before it is done again with pivoting:
# two of the seven digits of FP32.
LARGEST_GROWTH = 100.0


@dataclass(frozen=True)
class Groups:
    """Factors of K blocks, interleaved in groups of `LANES` for the substitutions.

    Args:
        data: factors, group after group, shape (entries, LANES).
        members: blocks of each group, −1 where there is none, shape (G, LANES).
        base, width, size: where a group begins, its half bandwidth and rows, shape (G,).
        rows, cols, sizes: as of `Factors`.
    """

    data: NDArray[np.floating]
    members: NDArray[np.int64]
    base: NDArray[np.int64]
    width: NDArray[np.int64]
    size: NDArray[np.int64]
    rows: NDArray[np.int16]
    cols: NDArray[np.int16]
    sizes: NDArray[np.int32]

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What the kernels take, in their order."""
        return (self.data, self.members, self.base, self.width, self.size, self.rows, self.cols, self.sizes)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(a.nbytes for a in self.arrays)

    def solve(self, right: NDArray[np.floating], *, transposed: bool = False) -> None:
        """Solve for one right-hand side a block, in place.

        Args:
            right: shape (K, n); what lies beyond a block's rows is left alone.
            transposed: solve with the transposed blocks.
        """
        count = len(self.sizes)
        starts = np.arange(count, dtype=np.int64) * right.shape[1]
        self.solve_many(starts, np.ones(count, np.int64), right.reshape(-1), transposed=transposed)

    def solve_many(
        self, starts: NDArray[np.int64], columns: NDArray[np.int64], right: NDArray[np.floating], *,
        transposed: bool = False,
    ) -> None:
        """Solve for several right-hand sides a block, in place.

        Args:
            starts, columns: block k's `columns[k]` right-hand sides follow each other from right[starts[k]].
            right: flat and contiguous.
            transposed: solve with the transposed blocks.
        """
        data, members, base, width, size, rows, cols, sizes = self.arrays
        solve_groups(data, members, base, width, size, rows, cols, sizes, starts, columns, right, transposed)

    def inverse(self) -> NDArray[np.floating]:
        """Return the inverses as an array of shape (K, n, n), zero beyond a block's rows."""
        count, n = self.rows.shape
        columns = np.zeros((count, n, n), self.data.dtype)
        columns[:, np.arange(n), np.arange(n)] = np.arange(n) < self.sizes[:, None]
        starts = np.arange(count, dtype=np.int64) * n * n
        for j in range(n):
            self.solve_many(starts + j * n, (self.sizes > j).astype(np.int64), columns.reshape(-1))
        return np.swapaxes(columns, 1, 2)

    def places(
        self, offsets: NDArray[np.int64], row: NDArray[np.int32], col: NDArray[np.int32],
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Return at which places of the elimination entries of the blocks are, shape (E,) each."""
        count, n = self.rows.shape
        owner = np.repeat(np.arange(count), np.diff(offsets))
        found = []
        for order, index in ((self.rows, row), (self.cols, col)):
            place = np.zeros((count, n), np.int16)
            inside = np.arange(n) < self.sizes[:, None]
            block, at = np.nonzero(inside)
            place[block, order[block, at]] = at
            found.append(place[owner, index])
        return found[0], found[1]


@dataclass
class Factors:
    """Triangular factors of K blocks of at most n rows.

    Args:
        data: columns of L (unit diagonal) and U (diagonal inverted) within the band, block after block.
        base: where a block begins in `data`, shape (K,).
        width: half bandwidth of each block, shape (K,).
        rows, cols: row and column of the block at each place of the elimination, shape (K, n).
        sizes: rows of each block, shape (K,).
        regular: whether the block could be factorised, shape (K,); the others must not be solved with.
        definite: whether all pivots are positive and none was exchanged, shape (K,): of a symmetric block this tells
            that it is positive definite.
    """

    data: NDArray[np.floating]
    base: NDArray[np.int64]
    width: NDArray[np.int64]
    rows: NDArray[np.int16]
    cols: NDArray[np.int16]
    sizes: NDArray[np.int32]
    regular: NDArray[np.bool_]
    definite: NDArray[np.bool_]

    @cached_property
    def groups(self) -> Groups:
        """The same factors, interleaved. Blocks of like width go together: a group is as wide as its widest."""
        count = len(self.sizes)
        order = np.lexsort((self.sizes, self.width))
        members = np.full((-(-count // LANES), LANES), -1, np.int64)
        members.reshape(-1)[:count] = order
        there = members >= 0
        width = np.where(there, self.width[members], 0).max(axis=1, initial=0)
        size = np.where(there, self.sizes[members], 0).max(axis=1, initial=0).astype(np.int64)
        ends = np.cumsum((2 * width + 1) * size)
        base = np.concatenate(([0], ends))[: len(members)].astype(np.int64)
        data = np.empty((int(ends[-1]) if len(ends) else 0, LANES), self.data.dtype)
        pack(self.data, self.base, self.width, self.sizes, members, base, width, size, data)
        return Groups(data, members, base, width, size, self.rows, self.cols, self.sizes)

    def select(self, chosen: NDArray[np.bool_]) -> Factors:
        """Return the factors of some blocks, with nothing of the others' memory."""
        if chosen.all():
            return self
        width, sizes = self.width[chosen], self.sizes[chosen]
        base, total = _layout(width, sizes)
        # blocks need not follow each other in `data`
        entries = np.repeat(self.base[chosen] - base, sizes * (2 * width + 1)) + np.arange(total)
        return Factors(self.data[entries], base, width, self.rows[chosen], self.cols[chosen], sizes,
                       self.regular[chosen], self.definite[chosen])

    @staticmethod
    def gather(parts: list[tuple[NDArray[np.int64], Factors]], sizes: NDArray[np.int32], n: int) -> Factors:
        """Put factors of parts of a batch together.

        Args:
            parts: which blocks of the batch each part holds, and their factors; together all, each once.
            sizes: rows of each block of the batch, shape (K,). n: width of the batch.
        """
        count = len(sizes)
        rows, cols = np.zeros((count, n), np.int16), np.zeros((count, n), np.int16)
        data = np.concatenate([part.data for _, part in parts] or [np.empty(0, np.float32)])
        out = Factors(data, np.zeros(count, np.int64), np.zeros(count, np.int64), rows, cols, sizes,
                      np.ones(count, bool), np.ones(count, bool))
        start = 0
        for which, part in parts:
            out.base[which] = part.base + start
            for name in ("width", "rows", "cols", "regular", "definite"):
                getattr(out, name)[which] = getattr(part, name)
            start += len(part.data)
        return out


def factorise(blocks: Blocks, dtype: DTypeLike = np.float32) -> Factors:
    """Factorise a batch of blocks, in FP64, and keep the factors in `dtype`.

    Args:
        blocks: their entries must be sorted by row.
        dtype: float32 for what emulates a tile, float64 for exact local solves.
    """
    count, n = blocks.count, blocks.size
    order, width = np.zeros((count, n), np.int16), np.zeros(count, np.int64)
    band_order(blocks.offsets, blocks.row, blocks.col, blocks.sizes, order, width)
    base, total = _layout(width, blocks.sizes)
    data = np.empty(total, dtype)
    growth, smallest = np.zeros(count), np.zeros(count)
    eliminate(blocks.offsets, blocks.row, blocks.col, blocks.value, blocks.sizes, order, width, base, data, growth,
              smallest)
    regular = ~(growth > LARGEST_GROWTH)
    factors = Factors(data, base, width, order, order, blocks.sizes, regular, regular & (smallest > 0))
    if regular.all():
        return factors
    again = np.flatnonzero(~regular)
    parts = [(again, _factorise_pivoting(blocks.select(again), dtype))]
    if regular.any():
        parts.append((np.flatnonzero(regular), factors.select(regular)))
    return Factors.gather(parts, blocks.sizes, n)


def _layout(width: NDArray[np.int64], sizes: NDArray[np.int32]) -> tuple[NDArray[np.int64], int]:
    """Return where each block's factors begin, and the room for all."""
    ends = np.cumsum(sizes * (2 * width + 1))
    return np.concatenate(([0], ends))[: len(sizes)].astype(np.int64), int(ends[-1]) if len(ends) else 0


def _factorise_pivoting(blocks: Blocks, dtype: DTypeLike) -> Factors:
    """Factorise a batch of blocks as full matrices with row exchanges."""
    count, n = blocks.count, blocks.size
    width = np.maximum(blocks.sizes.astype(np.int64) - 1, 0)
    base, total = _layout(width, blocks.sizes)
    data = np.empty(total, dtype)
    cols = np.broadcast_to(np.arange(n, dtype=np.int16), (count, n)).copy()
    rows, regular = cols.copy(), np.ones(count, bool)
    eliminate_pivoting(blocks.offsets, blocks.row, blocks.col, blocks.value, blocks.sizes, rows, width, base, data,
                       regular)
    return Factors(data, base, width, rows, cols, blocks.sizes, regular, np.zeros(count, bool))

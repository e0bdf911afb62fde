"""LU factors of a batch of sparse blocks: what a programmed tile settles to, computed digitally.

A patch of a mesh has a narrow band once its rows are ordered: its factors take a fifth of the memory of its inverse
(tile 128, five-point stencil: 25 entries a column in place of 128). Substitution is a chain of short dependent steps,
so eight tiles are solved side by side, one in each float of a vector register.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from analogpde.tile.blocks import Blocks
from analogpde.tile.elimination import band_order, eliminate, eliminate_pivoting, find_places, find_widths, repack
from analogpde.tile.kernels import solve_groups
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
        rows, cols: row and column of the block at each place of the elimination, shape (K, n).
        sizes: rows of each block, shape (K,).
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
        found = []
        for order, index in ((self.rows, row), (self.cols, col)):
            places = np.empty(len(index), np.int16)
            find_places(offsets, index, self.sizes, order, places)
            found.append(places)
        return found[0], found[1]


@dataclass
class Factors:
    """Triangular factors of K blocks of at most n rows.

    Args:
        groups: the factors, columns of L (unit diagonal) and U (diagonal inverted) within the band.
        width: half bandwidth of each block, shape (K,); its group may be wider.
        regular: whether the block could be factorised, shape (K,); the others must not be solved with.
        definite: whether all pivots are positive and none was exchanged, shape (K,): of a symmetric block this tells
            that it is positive definite.
    """

    groups: Groups
    width: NDArray[np.int64]
    regular: NDArray[np.bool_]
    definite: NDArray[np.bool_]

    @property
    def rows(self) -> NDArray[np.int16]:
        """Row of the block at each place of the elimination, shape (K, n)."""
        return self.groups.rows

    @property
    def cols(self) -> NDArray[np.int16]:
        """Column of the block at each place of the elimination, shape (K, n)."""
        return self.groups.cols

    @property
    def sizes(self) -> NDArray[np.int32]:
        """Rows of each block, shape (K,)."""
        return self.groups.sizes

    @property
    def data(self) -> NDArray[np.floating]:
        """The numbers of all factors."""
        return self.groups.data

    def select(self, chosen: NDArray[np.bool_]) -> Factors:
        """Return the factors of some blocks, with nothing of the others' memory."""
        if chosen.all():
            return self
        old, which = self.groups, np.flatnonzero(chosen)
        group, lane = np.zeros(len(old.sizes), np.int64), np.zeros(len(old.sizes), np.int64)
        at = np.nonzero(old.members >= 0)
        group[old.members[at]], lane[old.members[at]] = at
        width, sizes = self.width[which], old.sizes[which]
        members, base, widths, heights, data = _layout(width, sizes, old.data.dtype)
        repack(old.data, old.base, old.width, old.size, group, lane, which, width, sizes, members, base, widths,
               heights, data)
        groups = Groups(data, members, base, widths, heights, old.rows[which], old.cols[which], sizes)
        return Factors(groups, width, self.regular[which], self.definite[which])

    @staticmethod
    def gather(parts: list[tuple[NDArray[np.int64], Factors]], sizes: NDArray[np.int32], n: int) -> Factors:
        """Put factors of parts of a batch together; their groups stay as they are.

        Args:
            parts: which blocks of the batch each part holds, and their factors; together all, each once.
            sizes: rows of each block of the batch, shape (K,). n: width of the batch.
        """
        gathering = Gathering(sizes, n)
        for which, part in parts:
            gathering.add(which, part)
        return gathering.factors()


class Gathering:
    """Puts factors of parts of a batch together as they come; their groups stay as they are.

    What is copied while a part is at hand needs no second memory for all of them.

    Args:
        sizes: rows of each block of the batch, shape (K,). n: width of the batch.
    """

    def __init__(self, sizes: NDArray[np.int32], n: int) -> None:
        self._sizes, count = sizes, len(sizes)
        self._data: NDArray[np.floating] = np.empty((0, LANES), np.float32)
        self._end = 0
        nothing = np.empty(0, np.int64)
        self._members, self._base = [np.empty((0, LANES), np.int64)], [nothing]
        self._widths, self._heights = [nothing], [nothing]
        self._rows, self._cols = np.zeros((count, n), np.int16), np.zeros((count, n), np.int16)
        self._width = np.zeros(count, np.int64)
        self._regular, self._definite = np.ones(count, bool), np.ones(count, bool)

    def add(self, which: NDArray[np.int64], part: Factors) -> None:
        """Take in the factors of some blocks, which no other part holds."""
        groups = part.groups
        end = self._end + len(groups.data)
        if end > len(self._data):  # what is never written takes no memory
            share = max(1, len(which)) / max(1, len(self._sizes))
            room = np.empty((max(end, int(1.1 * end / min(1.0, share)) if not self._end else 2 * end), LANES),
                            groups.data.dtype)
            room[: self._end] = self._data[: self._end]
            self._data = room
        self._data[self._end : end] = groups.data
        self._members.append(np.where(groups.members >= 0, which[groups.members] if len(which) else -1, -1))
        self._base.append(groups.base + self._end)
        self._widths.append(groups.width)
        self._heights.append(groups.size)
        self._rows[which], self._cols[which] = part.rows, part.cols
        self._width[which], self._regular[which], self._definite[which] = part.width, part.regular, part.definite
        self._end = end

    def factors(self) -> Factors:
        """Return the factors of the batch."""
        groups = Groups(self._data[: self._end], np.concatenate(self._members), np.concatenate(self._base),
                        np.concatenate(self._widths), np.concatenate(self._heights), self._rows, self._cols,
                        self._sizes)
        return Factors(groups, self._width, self._regular, self._definite)


def factorise(blocks: Blocks, dtype: DTypeLike = np.float32, cells: Blocks | None = None) -> Factors:
    """Factorise a batch of blocks, in FP64, and keep the factors in `dtype`.

    Args:
        blocks: their entries must be sorted by row, but where `cells` gives the order.
        dtype: float32 for what emulates a tile, float64 for exact local solves.
        cells: blocks whose pattern the rows are ordered by; None: these. What wires add to it leaves the band of the
            cells alone.
    """
    count, n = blocks.count, blocks.size
    order, width = np.zeros((count, n), np.int16), np.zeros(count, np.int64)
    pattern = blocks if cells is None else cells
    band_order(pattern.offsets, pattern.row, pattern.col, pattern.sizes, order, width)
    if len(pattern.value) != len(blocks.value):
        find_widths(blocks.offsets, blocks.row, blocks.col, blocks.sizes, order, width)
    members, base, widths, heights, data = _layout(width, blocks.sizes, dtype)
    growth, smallest = np.zeros(count), np.zeros(count)
    eliminate(blocks.offsets, blocks.row, blocks.col, blocks.value, blocks.sizes, order, members, base, widths, heights,
              data, growth, smallest)
    regular = ~(growth > LARGEST_GROWTH)
    groups = Groups(data, members, base, widths, heights, order, order, blocks.sizes)
    factors = Factors(groups, width, regular, regular & (smallest > 0))
    if regular.all():
        return factors
    again = np.flatnonzero(~regular)
    parts = [(again, _factorise_pivoting(blocks.select(again), dtype))]
    if regular.any():
        parts.append((np.flatnonzero(regular), factors.select(regular)))
    return Factors.gather(parts, blocks.sizes, n)


def arrange(
    width: NDArray[np.int64], sizes: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Group blocks of like width, for a group is as wide as its widest: members, half bandwidth and rows of each."""
    members = np.full((-(-len(sizes) // LANES), LANES), -1, np.int64)
    members.reshape(-1)[: len(sizes)] = np.lexsort((sizes, width))
    there = members >= 0
    widths = np.where(there, width[members], 0).max(axis=1, initial=0) if len(sizes) else np.empty(0, np.int64)
    heights = np.where(there, sizes[members], 0).max(axis=1, initial=0) if len(sizes) else np.empty(0, np.int64)
    return members, widths, heights.astype(np.int64)


def _layout(
    width: NDArray[np.int64], sizes: NDArray[np.int32], dtype: DTypeLike,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]:
    """Group blocks: members, begin, half bandwidth and rows of each group, room for all."""
    members, widths, heights = arrange(width, sizes)
    ends = np.concatenate(([0], np.cumsum((2 * widths + 1) * heights))).astype(np.int64)
    return members, ends[:-1], widths, heights, np.empty((int(ends[-1]), LANES), dtype)


def _factorise_pivoting(blocks: Blocks, dtype: DTypeLike) -> Factors:
    """Factorise a batch of blocks as full matrices with row exchanges."""
    count, n = blocks.count, blocks.size
    width = np.maximum(blocks.sizes.astype(np.int64) - 1, 0)
    members, base, widths, heights, data = _layout(width, blocks.sizes, dtype)
    cols = np.broadcast_to(np.arange(n, dtype=np.int16), (count, n)).copy()
    rows, regular = cols.copy(), np.ones(count, bool)
    eliminate_pivoting(blocks.offsets, blocks.row, blocks.col, blocks.value, blocks.sizes, members, base, widths,
                       heights, rows, data, regular)
    groups = Groups(data, members, base, widths, heights, rows, cols, blocks.sizes)
    return Factors(groups, width, regular, np.zeros(count, bool))

"""Cut the patches' blocks out of a rank's rows, and move vectors between unknowns and patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.grow import LocalMatrix, Patches
from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import factorise


@compiled
def _cut(indptr, indices, values, index, size, place, row, col, value, offsets, fill):
    """Count (fill False) or write the nonzero entries of every patch's block; diagonals always."""
    total = 0
    for k in range(size.size):
        for t in range(size[k]):
            place[index[k, t]] = t
        for t in range(size[k]):
            i = index[k, t]
            for e in range(indptr[i], indptr[i + 1]):
                c = place[indices[e]]
                if c >= 0 and (values[e] != 0.0 or c == t):
                    if fill:
                        row[total], col[total], value[total] = t, c, values[e]
                    total += 1
        for t in range(size[k]):
            place[index[k, t]] = -1
        offsets[k + 1] = total
    return total


def cut_blocks(matrix: LocalMatrix, patches: Patches, first_tile: int) -> Blocks:
    """Return the block of every patch; tile ids count up from `first_tile`."""
    place = np.full(matrix.rows, -1, np.int64)
    offsets = np.zeros(patches.count + 1, np.int64)
    nothing = np.empty(0, np.int32)
    total = _cut(matrix.indptr, matrix.indices, matrix.values, patches.index, patches.size, place, nothing, nothing,
                 np.empty(0), offsets, False)
    row, col, value = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total)
    _cut(matrix.indptr, matrix.indices, matrix.values, patches.index, patches.size, place, row, col, value, offsets,
         True)
    tiles = np.arange(first_tile, first_tile + patches.count)
    return Blocks(patches.size, offsets, row, col, value, tiles, patches.index.shape[1])


@compiled
def gather(index, size, vector, out):
    """Copy a vector's entries to the patches: out[k, t] = vector[index[k, t]]."""
    for k in range(size.size):
        for t in range(size[k]):
            out[k, t] = vector[index[k, t]]


@compiled
def gather_cores(index, core, first, vector, out):
    """Copy a vector's entries to the cores, zero to the rest of each patch; vector in owned numbering."""
    for k in range(core.size):
        out[k] = 0.0
        for t in range(core[k]):
            out[k, t] = vector[index[k, t] - first]


@compiled
def add_patches(index, size, values, out):
    """Add every patch's entries to a vector in local numbering: the transpose of `gather`."""
    for k in range(size.size):
        for t in range(size[k]):
            out[index[k, t]] += values[k, t]


@compiled
def scatter_cores(index, core, first, values, out):
    """Write what restriction keeps: each core's part of the patch solutions, out in owned numbering."""
    for k in range(core.size):
        for t in range(core[k]):
            out[index[k, t] - first] = values[k, t]


@compiled
def _live_columns(index, size, indptr, indices, values, mark, live):
    """Count the coarse columns alive in each patch."""
    for k in range(size.size):
        count = 0
        for t in range(size[k]):
            i = index[k, t]
            for e in range(indptr[i], indptr[i + 1]):
                c = indices[e]
                if values[e] != 0.0 and mark[c] != k:
                    mark[c] = k
                    count += 1
        live[k] = count


@compiled
def _fill_right(index, size, indptr, indices, values, mark, starts, right, columns, column_starts):
    """Write the right-hand sides of each patch, one coarse column after another, and which columns they are."""
    for k in range(size.size):
        m = size[k]
        count = 0
        for t in range(m):
            i = index[k, t]
            for e in range(indptr[i], indptr[i + 1]):
                c = indices[e]
                if values[e] == 0.0:
                    continue
                if mark[c] < 0:
                    mark[c] = count
                    columns[column_starts[k] + count] = c
                    count += 1
                right[starts[k] + mark[c] * m + t] += values[e]
        for c in range(count):
            mark[columns[column_starts[k] + c]] = -1


@compiled
def _take_cores(index, core, size, first, starts, right, columns, column_starts, out_indptr, out_indices, out_values):
    """Copy the rows of the cores from the patches' solutions."""
    for k in range(size.size):
        live = column_starts[k + 1] - column_starts[k]
        for t in range(core[k]):
            begin = out_indptr[index[k, t] - first]
            for c in range(live):
                out_indices[begin + c] = columns[column_starts[k] + c]
                out_values[begin + c] = right[starts[k] + c * size[k] + t]


_CHUNK = 512  # patches solved at a time; all their factors in FP64 would need more memory than the tiles


def local_solves(
    matrix: LocalMatrix, patches: Patches, blocks: Blocks, indptr: NDArray[np.int64],
    indices: NDArray[np.int64], values: NDArray[np.float64], shift: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Apply the exact restricted additive Schwarz operator to the sparse matrix A P, digitally, at set-up.

    Args:
        matrix, patches: of this rank.
        blocks: of the patches, from `cut_blocks`. A part without any border is singular; its diagonal is enlarged by
            1e-12, for A P is zero there and so must the solution be.
        indptr, indices, values: rows of A P seen by this rank (local rows, compressed coarse columns), CSR.
        shift: what to enlarge the diagonals by, relative, beyond that: as much as the tiles' are.

    Returns:
        Rows of M_RAS A P for the owned unknowns, CSR in the same columns.
    """
    live = np.zeros(patches.count, np.int64)
    total = int(indices.max(initial=-1)) + 1
    _live_columns(patches.index, patches.size, indptr, indices, values, np.full(total, -1, np.int64), live)
    out_indptr = np.zeros(matrix.owned + 1, np.int64)
    np.cumsum(live[patches.label], out=out_indptr[1:])
    out_indices, out_values = np.empty(out_indptr[-1], np.int64), np.empty(out_indptr[-1])
    mark = np.full(total, -1, np.int64)
    value = np.where(blocks.row == blocks.col, (1.0 + shift + 1e-12) * blocks.value, blocks.value)
    regular = replace(blocks, value=value)
    for begin in range(0, patches.count, _CHUNK):
        part = slice(begin, min(begin + _CHUNK, patches.count))
        groups = factorise(regular.select(np.arange(part.start, part.stop)), np.float64).groups
        index, core, size, alive = patches.index[part], patches.core[part], patches.size[part], live[part]
        starts, column_starts = _offsets(size * alive), _offsets(alive)
        right, columns = np.zeros(starts[-1]), np.empty(column_starts[-1], np.int64)
        _fill_right(index, size, indptr, indices, values, mark, starts, right, columns, column_starts)
        groups.solve_many(starts, alive, right)
        _take_cores(index, core, size, matrix.first, starts, right, columns, column_starts, out_indptr, out_indices,
                    out_values)
    return out_indptr, out_indices, out_values


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)

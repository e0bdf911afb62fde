"""Cut the patches' blocks out of a rank's rows, and move vectors between unknowns and patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.grow import LocalMatrix, Patches
from analogpde.tile.blocks import Blocks


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
def scatter_cores(index, core, first, values, out):
    """Write what restriction keeps: each core's part of the patch solutions, out in owned numbering."""
    for k in range(core.size):
        for t in range(core[k]):
            out[index[k, t] - first] = values[k, t]


@compiled
def _smooth(indptr, indices, values, index, core, size, ap_indptr, ap_indices, ap_values, first, out_indptr,
            out_indices, out_values, place, mark, columns, fill):
    """Rows of M_RAS (A P) for every core: an exact local solve with the few coarse columns alive in a patch."""
    for k in range(size.size):
        m = size[k]
        live = 0
        for t in range(m):
            i = index[k, t]
            for e in range(ap_indptr[i], ap_indptr[i + 1]):
                c = ap_indices[e]
                if mark[c] < 0 and ap_values[e] != 0.0:
                    mark[c] = live
                    columns[live] = c
                    live += 1
        if fill:
            rhs = np.zeros((m, live))
            block = np.zeros((m, m))
            for t in range(m):
                place[index[k, t]] = t
            for t in range(m):
                i = index[k, t]
                for e in range(ap_indptr[i], ap_indptr[i + 1]):
                    if ap_values[e] != 0.0:
                        rhs[t, mark[ap_indices[e]]] += ap_values[e]
                for e in range(indptr[i], indptr[i + 1]):
                    c = place[indices[e]]
                    if c >= 0:
                        block[t, c] += values[e]
            for t in range(m):
                place[index[k, t]] = -1
                block[t, t] *= 1.0 + 1e-12  # a part without any border is singular; A P is zero there and so is x
            if live > 0:
                solution = np.linalg.solve(block, rhs)
                for t in range(core[k]):
                    start = out_indptr[index[k, t] - first]
                    for c in range(live):
                        out_indices[start + c] = columns[c]
                        out_values[start + c] = solution[t, c]
        else:
            for t in range(core[k]):
                out_indptr[index[k, t] - first + 1] = live
        for c in range(live):
            mark[columns[c]] = -1


def local_solves(
    matrix: LocalMatrix, patches: Patches, indptr: NDArray[np.int64], indices: NDArray[np.int64],
    values: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Apply the exact restricted additive Schwarz operator to the sparse matrix A P, digitally, at set-up.

    Args:
        matrix, patches: of this rank.
        indptr, indices, values: rows of A P seen by this rank (local rows, compressed coarse columns), CSR.

    Returns:
        Rows of M_RAS A P for the owned unknowns, CSR in the same columns.
    """
    columns = int(indices.max(initial=-1)) + 1
    out_indptr = np.zeros(matrix.owned + 1, np.int64)
    place, mark = np.full(matrix.rows, -1, np.int64), np.full(columns, -1, np.int64)
    buffer = np.empty(columns, np.int64)
    arguments = (matrix.indptr, matrix.indices, matrix.values, patches.index, patches.core, patches.size, indptr,
                 indices, values, matrix.first)
    _smooth(*arguments, out_indptr, np.empty(0, np.int64), np.empty(0), place, mark, buffer, False)
    out_indptr = np.cumsum(out_indptr)
    out_indices, out_values = np.empty(out_indptr[-1], np.int64), np.empty(out_indptr[-1])
    _smooth(*arguments, out_indptr, out_indices, out_values, place, mark, buffer, True)
    return out_indptr, out_indices, out_values

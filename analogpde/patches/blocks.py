"""Cut the patches' blocks out of a rank's rows, and move vectors between unknowns and patches."""

from __future__ import annotations

import numpy as np

from analogpde.compiled import compiled
from analogpde.patches.grow import LocalMatrix, Patches
from analogpde.tile.blocks import Blocks


@compiled
def _most(indptr, index, size):
    """Return how many entries the rows of all patches have."""
    total = 0
    for k in range(size.size):
        for t in range(size[k]):
            total += indptr[index[k, t] + 1] - indptr[index[k, t]]
    return total


@compiled
def _cut(indptr, indices, values, index, size, place, row, col, value, offsets):
    """Write the nonzero entries of every patch's block; diagonals always."""
    total = 0
    for k in range(size.size):
        for t in range(size[k]):
            place[index[k, t]] = t
        for t in range(size[k]):
            i = index[k, t]
            for e in range(indptr[i], indptr[i + 1]):
                c = place[indices[e]]
                if c >= 0 and (values[e] != 0.0 or c == t):
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
    most = _most(matrix.indptr, patches.index, patches.size)  # what is never written takes no memory
    row, col, value = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most)
    total = _cut(matrix.indptr, matrix.indices, matrix.values, patches.index, patches.size, place, row, col, value,
                 offsets)
    tiles = np.arange(first_tile, first_tile + patches.count)
    return Blocks(patches.size, offsets, row[:total], col[:total], value[:total], tiles, patches.index.shape[1])


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

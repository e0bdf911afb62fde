"""The prolongation before it is smoothed: near-null vectors cut to the cores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.grow import Patches


@compiled
def _orthonormalise(index, core, first, near, out, factors):
    """Gram–Schmidt, twice, of the near-null vectors on each core; a dependent one becomes zero."""
    count = near.shape[1]
    for k in range(core.size):
        n = core[k]
        q = np.empty((count, n))
        for c in range(count):
            before = 0.0
            for t in range(n):
                q[c, t] = near[index[k, t] - first, c]
                before += q[c, t] ** 2
            for _ in range(2):
                for d in range(c):
                    r = 0.0
                    for t in range(n):
                        r += q[d, t] * q[c, t]
                    factors[k, d, c] += r
                    for t in range(n):
                        q[c, t] -= r * q[d, t]
            after = 0.0
            for t in range(n):
                after += q[c, t] ** 2
            if after > 1e-16 * before:
                factors[k, c, c] = np.sqrt(after)
                for t in range(n):
                    q[c, t] /= factors[k, c, c]
            else:
                q[c] = 0.0
            for t in range(n):
                out[index[k, t] - first, c] = q[c, t]


def tentative(
    patches: Patches, first: int, near: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut the near-null vectors to the cores.

    Args:
        patches: of this rank.
        first: local number of the first owned unknown.
        near: near-null vectors on the owned unknowns, shape (owned, k).

    Returns:
        The values of each unknown in the k coarse unknowns of its core, shape (owned, k), and the near-null vectors
        in the coarse unknowns, shape (cores, k, k): out[i] @ coarse[core of i] = near[i]. One vector is taken as it is,
        several are made orthonormal on each core.
    """
    count = near.shape[1]
    if count == 1:
        return near.copy(), np.ones((patches.count, 1, 1))
    out, factors = np.zeros(near.shape), np.zeros((patches.count, count, count))
    _orthonormalise(patches.index, patches.core, first, np.ascontiguousarray(near), out, factors)
    return out, factors


def tentative_rows(
    values: NDArray[np.float64], node: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return the sparse rows of the near-null vectors cut to the cores: offsets, columns, values.

    Args:
        values: from `tentative`. node: coarse node of each owned unknown, −1 for none.
    """
    width = values.shape[1]
    there = (values != 0.0) & (node >= 0)[:, None]
    indptr = np.concatenate(([0], np.cumsum(there.sum(axis=1)))).astype(np.int64)
    column = node[:, None] * width + np.arange(width)
    return indptr, column[there].astype(np.int32), values[there]

"""The prolongation before it is smoothed: near-null vectors cut to the cores, and cores that share a coarse unknown."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from analogpde.compiled import compiled
from analogpde.patches.grow import Patches
from analogpde.patches.smooth import Rows

# Couplings between cores below this fraction of a core's largest do not make them one island.
BOUND = 0.02
# So many cores at most are one stiff island, if no more than `LEFT` of the smallest one's energy (its diagonal in the
# unsmoothed Galerkin matrix) is left to their sum: tiles of the coarser level could not tell that from their shift.
LARGEST_ISLAND = 4
LEFT = 0.05
NOTHING_LEFT = 1e-13  # of the energy: their sum is in the null space


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


@compiled
def _find_bonds(index, core, number, indptr, indices, values, first, p_indptr, p_values, by_column, columns_of,
                values_of, total, energy, one, other, size):
    """Write the energy of each own coarse node, and which others it is bound to; return how many bonds there are."""
    coupling, stamp, met = np.empty(total), np.full(total, -1, np.int64), np.empty(total, np.int64)
    bonds = nodes = 0
    for k in range(core.size):
        own = number[k]
        if own < 0:
            continue
        found = 0
        for t in range(core[k]):
            i = index[k, t]
            if p_indptr[i - first] == p_indptr[i - first + 1]:  # the near-null vector is zero there
                continue
            weight = p_values[p_indptr[i - first]]
            for e in range(indptr[i], indptr[i + 1]):
                for f in range(by_column[indices[e]], by_column[indices[e] + 1]):
                    node = columns_of[f]
                    if stamp[node] != own:
                        stamp[node], coupling[node] = own, 0.0
                        if node != own:
                            met[found] = node
                            found += 1
                    coupling[node] += weight * values[e] * values_of[f]
        diagonal = coupling[own] if stamp[own] == own else 0.0
        energy[nodes] = abs(diagonal)
        nodes += 1
        sign, largest, before = -1.0 if diagonal > 0.0 else 1.0, 0.0, bonds
        for t in range(found):
            largest = max(largest, sign * coupling[met[t]])
        for t in range(found):
            strength = sign * coupling[met[t]]
            if strength > 0.0 and strength >= BOUND * largest:
                if bonds - before == LARGEST_ISLAND - 1:  # of more it is no island
                    bonds = before
                    break
                one[bonds], other[bonds], size[bonds] = own, met[t], strength
                bonds += 1
    return bonds


Bonds = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Energies of coarse nodes; bonds: the node, the one it is bound to, how strong."""


def find_bonds(
    patches: Patches, number: NDArray[np.int64], rows: Rows, first: int, p: Rows, needed: Rows, total: int,
) -> Bonds:
    """Find which cores are bound to which, in the unsmoothed Galerkin matrix.

    Args:
        patches: of this rank. number: coarse node of each, −1 for none.
        rows: of the matrix, CSR, by the numbers of unknowns in the patches; `first` is the first owned one.
        p: unsmoothed rows of P of the owned unknowns, one near-null vector. needed: those of the columns of `rows`.
        total: coarse nodes of all ranks.
    """
    count = int(np.count_nonzero(number >= 0))
    energy, most = np.empty(count), count * (LARGEST_ISLAND - 1)
    one, other, size = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
    bonds = _find_bonds(patches.index, patches.core, number, *rows, first, p[0], p[2], *needed, total, energy, one,
                        other, size)
    return energy, one[:bonds], other[:bonds], size[:bonds]


def islands(bonds: Bonds) -> NDArray[np.int64]:
    """Return the coarse node that each of all ranks' nodes takes: the first of a stiff island of a few cores.

    A stiff island that is cut into a few cores, by their size or by the border of ranks, has hardly any energy when
    they move together. With one coarse unknown each, tiles of the coarser level would lose that in the noise and the
    shift of much larger entries.

    Args:
        bonds: from `find_bonds`, of all ranks.
    """
    energy, one, other, size = bonds
    n = len(energy)
    bond = sp.csr_array((size, (one, other)), shape=(n, n))
    mutual = bond.minimum(bond.T)
    count, label = connected_components(mutual, directed=False)
    left = np.bincount(label, energy, count) - np.bincount(label, mutual.sum(axis=1), count)
    smallest, first = np.full(count, np.inf), np.full(count, n)
    np.minimum.at(smallest, label, energy)
    np.minimum.at(first, label, np.arange(n))
    members = np.bincount(label, minlength=count)
    island = (members > 1) & (members <= LARGEST_ISLAND) & (left <= LEFT * smallest)
    island &= left > NOTHING_LEFT * np.bincount(label, energy, count)
    return np.where(island[label], first[label], np.arange(n))

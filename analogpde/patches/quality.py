"""How well cores fit the couplings: whether a partition may stay when the values of its matrix change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.grow import LocalMatrix, Patches, coupling_strength, nodes_of

# A partition is given up when either share below has fallen by more than this.
LARGEST_FALL = 0.1


@compiled
def _count(indptr, indices, strength, largest, threshold, first, label, coupled, out):
    for i in range(label.size):
        row = first + i
        if not coupled[label[i]] and largest[row] > 1e-10:
            out[3] += 1
        for e in range(indptr[row], indptr[row + 1]):
            j = indices[e]
            if j == row:
                continue
            u = j - first
            inside = 0 <= u < label.size and label[u] == label[i]
            strong = strength[e] > 0.0 and strength[e] >= threshold * min(largest[row], largest[j])
            out[0] += inside and strong
            out[1] += inside
            out[2] += strong


def cohesion(matrix: LocalMatrix, patches: Patches, threshold: float, block: int = 1) -> NDArray[np.int64]:
    """Count a rank's couplings by what its cores make of them; counts of several ranks add up.

    Args:
        matrix, patches, threshold, block: as in `make_patches`, the matrix with values of any age.

    Returns:
        Strong couplings inside a core; all couplings inside one; all strong couplings; unknowns that were partitioned
        as coupled to nothing and are coupled.
    """
    label, coupled = patches.label, patches.coupled
    if 1 < block <= patches.index.shape[1]:
        matrix, label = nodes_of(matrix, block), label[::block]
    strength, largest = coupling_strength(matrix.indptr, matrix.indices, matrix.values)
    out = np.zeros(4, np.int64)
    _count(matrix.indptr, matrix.indices, strength, largest, threshold, matrix.first, label, coupled, out)
    return out


def still_fits(before: NDArray[np.int64], now: NDArray[np.int64]) -> bool:
    """Tell whether cores made for the old values suit the new ones.

    Two shares measure a partition: of the strong couplings, those inside a core (the others are cut); of the couplings
    inside a core, those that are strong (the others hold together what has little to do with each other, and get one
    coarse unknown for it). Lines turned by 90° lose the first, isotropic cores of a problem that turned anisotropic the
    second. Unknowns that no core was grown for must not have become coupled.

    Args:
        before, now: from `cohesion`, summed over ranks.
    """
    def shares(count: NDArray[np.int64]) -> NDArray[np.float64]:
        return count[0] / np.maximum(1, count[[2, 1]])

    return bool(now[3] == 0 and (shares(now) >= shares(before) - LARGEST_FALL).all())

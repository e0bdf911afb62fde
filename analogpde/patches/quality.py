"""How well cores fit the couplings: whether a partition may stay when the values of its matrix change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.blocks import cut_blocks
from analogpde.patches.grow import SMALL_CORE, LocalMatrix, Patches, coupling_strength, nodes_of
from analogpde.patches.rules import mostly_border

# A partition is given up when either share below has fallen by more than this.
LARGEST_FALL = 0.1
# A core of so many unknowns whose second eigenvalue is below SLOW is slow inside, below FALLS_APART nearly two cores:
# see `slow_cores`. Limits for other cores fall with their size, as eigenvalues of a plane's Laplacian do.
TYPICAL, SLOW, FALLS_APART = 70, 0.01, 0.003
ZERO = 1e-9
SAMPLE = 32


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


def cohesion(
    matrix: LocalMatrix, patches: Patches, threshold: float, block: int = 1, signed: bool = False,
) -> NDArray[np.int64]:
    """Count a rank's couplings by what its cores make of them; counts of several ranks add up.

    Args:
        matrix, patches, threshold, block, signed: as in `make_patches`, the matrix with values of any age.

    Returns:
        Strong couplings inside a core; all couplings inside one; all strong couplings; unknowns that were partitioned
        as coupled to nothing and are coupled.
    """
    label, coupled = patches.label, patches.coupled
    if 1 < block <= patches.index.shape[1]:
        matrix, label = nodes_of(matrix, block), label[::block]
    strength, largest = coupling_strength(matrix.indptr, matrix.indices, matrix.values, signed and block == 1)
    out = np.zeros(4, np.int64)
    _count(matrix.indptr, matrix.indices, strength, largest, threshold, matrix.first, label, coupled, out)
    return out


def slow_cores(matrix: LocalMatrix, patches: Patches) -> NDArray[np.int64]:
    """Count, of a sample of a rank's cores, those that are slow inside; counts of several ranks add up.

    One coarse unknown can only shift a core as a whole. Whatever else relaxes slowly in it, the patch's neighbours
    and the coarse level have to remove, badly. Without its surroundings (symmetric part, rows summing to zero, scaled
    to a unit diagonal of A) a core has the eigenvalue 0 of the constant (once more for an unknown that hangs on others
    outside only); the smallest of the rest, plus what a reaction adds, tells how fast that goes. Cores of 70: 0.02 for
    Poisson, 0.015 for degrees 2 and 3, 0.002 (nine of ten below 0.007) for an anisotropy of 1 : 1000 at 30°, which no
    look at the entries shows, or below 0; with coefficients that jump from node to node, a few strongly coupled groups
    in each, 0.001. Only cores that can be made smaller count.

    Returns:
        Cores that nearly fall apart, slow cores (those and others), cores looked at, their unknowns, and those of their
        patches.
    """
    large = np.flatnonzero(patches.coupled & (patches.core >= 2 * SMALL_CORE))
    chosen = np.unique(large[np.linspace(0, len(large) - 1, SAMPLE).astype(np.int64)]) if len(large) else large
    blocks = cut_blocks(matrix, replace(patches, index=patches.index[chosen], core=patches.core[chosen],
                                        size=patches.core[chosen]), 0)
    found = np.array([0, 0, blocks.count, patches.core[chosen].sum(), patches.size[chosen].sum()], np.int64)
    for k in range(blocks.count):
        entries, n = slice(blocks.offsets[k], blocks.offsets[k + 1]), int(blocks.sizes[k])
        core = np.zeros((n, n))
        core[blocks.row[entries], blocks.col[entries]] = blocks.value[entries]
        scale, sign = 1.0 / np.sqrt(np.abs(np.diag(core))), np.sign(core[0, 0])
        rows = patches.index[chosen[k], :n]
        sums = np.array([matrix.values[matrix.indptr[i] : matrix.indptr[i + 1]].sum() for i in rows])
        core = 0.5 * sign * (core + core.T)
        np.fill_diagonal(core, 0.0)
        reaction = np.median(np.maximum(sign * sums * scale**2, 0.0))  # not at a Dirichlet border alone
        np.fill_diagonal(core, -core.sum(axis=1))
        eigenvalues = np.linalg.eigvalsh(scale[:, None] * core * scale)
        slowest = eigenvalues[np.abs(eigenvalues) > ZERO].min(initial=1.0) + reaction
        found[:2] += slowest < FALLS_APART * TYPICAL / n, slowest < SLOW * TYPICAL / n
    return found


def want_small_cores(count: NDArray[np.int64], positive: bool) -> bool:
    """Tell by the cores of `slow_cores`, summed over ranks, whether cores should be small.

    Where couplings have both signs (`positive`) seven eighths have to be slow: nearly all are where the anisotropy is
    the matrix's; of degree 2 up to 0.55 are, of a heat sink's tetrahedra 0.65, for couplings that cancel within some
    cores. Else nothing cancels, and one in eight that falls apart is enough: from there on, by measurement
    (docs/method.md), the iterations saved outweigh the arrays, but where patches are mostly border (3-D).
    """
    apart, slow, seen, core, size = (int(number) for number in count)
    if positive:
        return 8 * slow > 7 * seen
    return 8 * apart > seen and not mostly_border(core, size, 1, False)


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

"""Equilibration of rows and columns of different scale: two diagonals that make a matrix as symmetric as scaling can.

Equations divided by cell volumes, or unknowns in units of their own, make D A or A D of a symmetric A. Galerkin's
product PᵀDAP then mixes equations of all sizes in a core, and a coarse level is no stable circuit. The host can take
such scales off: S = R M C on the tiles, y = C S⁻¹ R x.

Of a pair of entries α = ln |m_ij/m_ji| is the asymmetry, and x = ln |m_ii/m_jj| what a scale would make of it: α = x
of D A with an even A, α = −x of A D, 0 of a symmetric matrix however uneven. With t the slope of α over x,
R = |diag|^(−(1+t)/2) and C = |diag|^(−(1−t)/2) leave α − t x, and a unit diagonal.

Singleton rows, of one entry (MatZeroRows leaves such: 1 on the diagonal, whatever the others' size), are given the size
of the couplings that others have to them: beside a diagonal of 1 a coupling of 1e4 fills the cells, and leaves no room.
And they are solved by the host, x_i = b_i/m_ii: a per cent off would be 1e4 per cent of the others' residual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analogpde.patches.smooth import Rows

Array = NDArray[np.float64]

SPREAD = 4.0  # of the diagonal, largest over smallest, below which scales do no harm
EXPLAINED = 0.75  # of the asymmetry that scales must explain; convection has another reason
UNEVEN = 1e-4  # mean α² that is worth it
ROUNDING = 1e-10  # of a row that annihilates


@dataclass(frozen=True)
class Scales:
    """What is known of some rows.

    Args:
        size: magnitude of the diagonal, that of singleton rows as others see it. singleton: by how much that is more
            than it is; 1 of all others. sums: Σα², Σαx, Σx² and the number of pairs.
    """

    size: Array
    singleton: Array
    sums: Array

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest size."""
        return float(self.size.min(initial=math.inf)), float(self.size.max(initial=0.0))

    @property
    def odd(self) -> bool:
        """Whether a singleton row is of another size than its surroundings."""
        return bool((np.abs(np.log(self.singleton)) > math.log(SPREAD)).any())

    def diagonals(self, t: float | None) -> tuple[Array, Array]:
        """Return R and C."""
        if t is None:
            return self.singleton, np.ones_like(self.size)
        return self.singleton * self.size ** (-0.5 * (1.0 + t)), self.size ** (-0.5 * (1.0 - t))


def uneven(rows: Rows, diagonal: Array, first: int) -> tuple[float, float, bool]:
    """Return the smallest and largest size on the diagonal of some rows, and whether one has no other entry.

    Args:
        rows: offsets, columns, values. first: number of the first of them.
    """
    size, row = np.abs(diagonal), np.repeat(np.arange(len(diagonal)), np.diff(rows[0]))
    others = np.bincount(row[(row + first != rows[1]) & (rows[2] != 0)], minlength=len(diagonal))
    return float(size.min(initial=math.inf)), float(size.max(initial=0.0)), bool((others == 0).any())


def scan(rows: Rows, transposed: Rows, moved: Array, first: int) -> Scales:
    """Look at some rows.

    Args:
        rows, transposed: of M and Mᵀ, the same ones: offsets, columns, values. first: number of the first of them.
        moved: values of diag⁻¹ M diag in the pattern of M.
    """
    stride = np.int64(1) << 32
    count = len(rows[0]) - 1
    row, other = (np.repeat(np.arange(count), np.diff(part[0])) for part in (rows, transposed))
    beside, above = row + first != rows[1], other + first != transposed[1]
    size, outward, inward = np.ones(count), np.zeros(count), np.zeros(count)
    size[row[~beside]] = np.abs(rows[2][~beside])
    np.maximum.at(outward, row[beside], np.abs(rows[2][beside]))
    np.maximum.at(inward, other[above], np.abs(transposed[2][above]))
    singleton = np.where((outward == 0) & (inward > 0), inward / size, 1.0)
    _, here, there = np.intersect1d(
        row[beside] * stride + rows[1][beside], other[above] * stride + transposed[1][above], assume_unique=True,
        return_indices=True)
    forth, back = np.abs(rows[2][beside][here]), np.abs(transposed[2][above][there])
    like = np.abs(moved[beside][here])
    good = (forth > 0) & (back > 0) & (like > 0) & np.isfinite(like)
    alpha, x = np.log(forth[good] / back[good]), np.log(forth[good] / like[good])
    return Scales(size * singleton, singleton, np.array([alpha @ alpha, alpha @ x, x @ x, len(x)]))


def slope(sums: Array, ends: tuple[float, float]) -> float | None:
    """Return t of the module's head, or None where scales explain nothing or do no harm.

    Args:
        sums, ends: of `Scales`, over all rows.
    """
    before, mixed, along, pairs = (float(v) for v in sums)
    low, high = ends
    if not (pairs > 0 and before > UNEVEN * pairs and along > 0.0 and 0.0 < SPREAD * low < high < math.inf):
        return None
    return mixed / along if mixed**2 > EXPLAINED * before * along else None


def left(product: Array, vectors: Array) -> Array:
    """Return what a matrix of unit diagonal leaves of some vectors, of their own size in each row.

    Args:
        product: S times the vectors, shape (rows, k).
    """
    size = np.linalg.norm(vectors, axis=1)
    return np.asarray(np.linalg.norm(product, axis=1) / np.where(size > 0, size, 1.0))


def votes(theirs: Array, ones: Array) -> int:
    """Return how many rows more S annihilates better as the second of two sets of vectors has it (`left` of each).

    Near-null vectors that nobody gave are those of M, n/C, or, where C is the unknowns' own units, of S itself.
    """
    return int(np.count_nonzero(theirs - ones > ROUNDING)) - int(np.count_nonzero(ones - theirs > ROUNDING))


def words(t: float | None, odd: bool) -> str:
    """Return what was done, for -ksp_view."""
    said = []
    if t is not None:
        rows, columns = (round(-0.5 * (1.0 + sign * t), 2) + 0.0 for sign in (1, -1))
        said = [f"rows scaled by |diagonal|^{rows:g}, columns by |diagonal|^{columns:g}, which make it more symmetric"]
    return "; ".join(said + (["singleton rows of another size are solved by the host"] if odd else []))

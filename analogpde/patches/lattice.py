"""Cores that are boxes of a lattice, so that patches in the inside of a uniform mesh are equal.

Greedy growth cuts a uniform mesh into patches of any shape, hardly two of them alike. Where coordinates are known and
lie on the lines of a lattice (graded or not), boxes of so many lines each way make patches that are translations of
each other; sorted by coordinate, their matrices are equal entry by entry.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from analogpde.compiled import compiled
from analogpde.patches.grow import LocalMatrix, Patches, _extend, _merge_small, _number

# Coordinates closer than this part of the domain lie on one line of the lattice.
SAME_LINE = 1e-7
# A lattice may have so many more sites than there are unknowns (an L-shape, one rank's part); scattered points have
# as many lines as points, and so the number of points to the power of the dimension.
EMPTIEST = 8.0
# Cores that a rank's border cuts to less than this part of a box join a neighbour.
SMALLEST = 0.12
# More parts than boxes by this factor: boxes cut along weak couplings, and growth does better.
MOST_PARTS = 1.2
# A coupling across the lattice that is stronger than one along it by this factor (anisotropy at an angle) makes slanted
# cores better than boxes: 15 iterations against 87 at 1 : 10 turned by 30°.
MOST_ACROSS = 2.0


def lines_of(values: NDArray[np.float64], extent: float) -> NDArray[np.float64]:
    """Return the distinct coordinates in ascending order; those closer than `SAME_LINE` of the extent are one."""
    values = np.sort(values)
    if len(values) == 0:
        return values
    return values[np.concatenate(([True], np.diff(values) > SAME_LINE * extent))]


@dataclass(frozen=True)
class Lattice:
    """Unknowns on the lines of a lattice.

    Args:
        place: number of the line in each direction of every seen unknown, shape (n, dim).
        low, high: of the coupled unknowns on all ranks, shape (dim,).
        density: coupled unknowns per site, on all ranks; above 1 where several share one.
    """

    place: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    density: float


def nearest(axis: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the line nearest to each value."""
    right = np.clip(np.searchsorted(axis, values), 1, max(1, len(axis) - 1))
    if len(axis) < 2:
        return np.zeros(len(values), np.int64)
    return np.where(values - axis[right - 1] <= axis[right] - values, right - 1, right).astype(np.int64)


@compiled
def _step_strengths(indptr, indices, strength, place, total, count):
    """Add up the couplings for each step to a neighbouring site: digit d of its number is −1, 0 or 1 lines, plus 1."""
    for i in range(indptr.size - 1):
        for e in range(indptr[i], indptr[i + 1]):
            code, factor, far = 0, 1, False
            for d in range(place.shape[1]):
                step = place[indices[e], d] - place[i, d]
                far = far or abs(step) > 1
                code += factor * (step + 1)
                factor *= 3
            if not far:
                total[code] += strength[e]
                count[code] += 1


def step_strengths(
    matrix: LocalMatrix, strength: NDArray[np.float32], place: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return sum and number of the couplings for each step to a neighbouring site, shape (2, 3^dim)."""
    sums = np.zeros((2, 3 ** place.shape[1]))
    _step_strengths(matrix.indptr, matrix.indices, strength, place, sums[0], sums[1])
    return sums


def strong_axes(sums: NDArray[np.float64], dim: int, threshold: float) -> list[bool] | None:
    """Return along which directions boxes extend, or None where the strongest couplings run across the lattice.

    Args:
        sums: from `step_strengths`, over all ranks.
        dim: directions of the lattice.
        threshold: a direction is weak below this part of the strongest one.
    """
    mean = sums[0] / np.maximum(1.0, sums[1])
    middle = (3**dim - 1) // 2
    axes = np.array([max(mean[middle - 3**d], mean[middle + 3**d]) for d in range(dim)])
    across = np.ones(3**dim, bool)
    across[[middle, *(middle + sign * 3**d for d in range(dim) for sign in (-1, 1))]] = False
    if mean[across].max(initial=0.0) > MOST_ACROSS * axes.min():
        return None
    return [bool(value > 0 and value >= threshold * axes.max()) for value in axes]


def rounded(strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return strengths to eleven bits: sums are then exact, and ties are ties in every patch."""
    mantissa, exponent = np.frexp(strength)
    return np.ldexp(np.rint(mantissa * 2048.0) / 2048.0, exponent).astype(np.float32)


def _tail(extent: int, width: int) -> int:
    """Return how many lines are left over behind the last full box."""
    return extent % width if width < extent else 0


def choose_widths(extents: list[int], strong: list[bool], wanted: float, most: float) -> list[int]:
    """Choose the lines of a box in each direction.

    Boxes are as near to cubes of `wanted` sites as the extents allow; widths that divide the extent, or leave half a
    box at the end, make fewer kinds of patches.

    Args:
        extents: lines in each direction.
        strong: directions along which boxes extend; in the others they are one line thick.
        wanted: sites of a box. most: no more than this.
    """
    side = max(1.0, wanted) ** (1.0 / max(1, sum(strong)))
    choices = []
    for extent, extends in zip(extents, strong, strict=True):
        top = int(np.ceil(1.5 * side)) if sum(strong) > 1 else int(max(1, most))
        low = max(1, int(0.6 * side))
        choices.append([1] if not extends else sorted({min(extent, w) for w in range(low, max(low, top) + 1)}))
    best, best_cost = [1] * len(extents), np.inf
    for widths in itertools.product(*choices):
        sites = float(np.prod(widths))
        if sites > most:
            continue
        cost = abs(np.log(sites / wanted))
        long = [w for w, extends, extent in zip(widths, strong, extents, strict=True) if extends and w < extent]
        cost += 0.4 * np.log(max(long) / min(long)) if long else 0.0
        for extent, w in zip(extents, widths, strict=True):
            left = _tail(extent, w)
            cost += 0.05 if 2 * left >= w else 0.15 if left else 0.0
        if cost < best_cost - 1e-12:
            best, best_cost = list(widths), cost
    return best


def box_of_line(extent: int, width: int) -> NDArray[np.int64]:
    """Return the box of each line; less than half a box at the end shares evenly with the one before."""
    box = np.arange(extent) // width
    left = _tail(extent, width)
    if 0 < 2 * left < width:
        pair = np.arange(width + left)
        box[extent - len(pair):] = box[extent - len(pair)] + (pair >= (len(pair) + 1) // 2)
    return box


def boxes(lattice: Lattice, widths: list[int], first: int, owned: int) -> NDArray[np.int64]:
    """Return the box of each owned unknown in each direction, shape (owned, dim); −1 outside the coupled ones."""
    place = lattice.place[first: first + owned] - lattice.low
    extents = lattice.high - lattice.low + 1
    inside = ((place >= 0) & (place < extents)).all(axis=1)
    out = np.full(place.shape, -1, np.int64)
    for d, width in enumerate(widths):
        out[inside, d] = box_of_line(int(extents[d]), width)[place[inside, d]]
    return out


def parts_of(matrix: LocalMatrix, strong: NDArray[np.bool_], label: NDArray[np.int64]) -> tuple[int, int]:
    """Return into how many parts, connected by strong couplings, cores fall, and how many cores there are.

    Args:
        strong: entries that are followed. label: core of each owned unknown, −1 for none.
    """
    row = np.repeat(np.arange(matrix.rows), np.diff(matrix.indptr)) - matrix.first
    col = matrix.indices - matrix.first
    inside = strong & (row >= 0) & (row < matrix.owned) & (col >= 0) & (col < matrix.owned)
    row, col = row[inside], col[inside]
    same = (label[row] == label[col]) & (label[row] >= 0)
    graph = sp.coo_matrix((np.ones(int(same.sum()), np.int8), (row[same], col[same])), (matrix.owned, matrix.owned))
    _, part = connected_components(graph, directed=False)
    there = label >= 0
    return len(np.unique(part[there])), len(np.unique(label[there]))


def box_patches(
    matrix: LocalMatrix, strength: NDArray[np.float32], largest: NDArray[np.float32], place: NDArray[np.int64],
    box: NDArray[np.int64], *, tile: int, overlap: int, threshold: float, wanted: int,
) -> tuple[Patches, NDArray[np.int64]]:
    """Grow a patch around each box, unknowns in the order of the lattice.

    Args:
        matrix: rows of this rank and its neighbours'.
        strength, largest: from `coupling_strength`, rounded.
        place: line of each seen unknown in each direction, shape (n, dim).
        box: of each owned unknown, shape (owned, dim).
        tile, overlap, threshold: as of `make_patches`.
        wanted: unknowns of a core.

    Returns:
        The patches, and the box of each, shape (K, dim); −1 for cores of decoupled unknowns.
    """
    n, own = matrix.rows, np.arange(matrix.first, matrix.first + matrix.owned)
    order = np.lexsort(place.T[::-1])  # stable: unknowns of one site keep the matrix's order
    back = np.empty(n, np.int64)
    back[order] = np.arange(n)
    graph = sp.csr_matrix((strength, back[matrix.indices], matrix.indptr), shape=(n, n))[order]
    graph.sort_indices()
    indptr, indices, values = graph.indptr.astype(np.int64), graph.indices.astype(np.int64), graph.data
    largest = largest[order]
    mine = np.sort(back[own])  # the owned unknowns, in the order of the lattice; neighbours' lie between them
    box = box[order[mine] - matrix.first]
    coupled = (largest[mine] > 1e-10) & (box >= 0).all(axis=1)
    cells, inverse = np.unique(box[coupled], axis=0, return_inverse=True)
    label = np.full(n, -2, np.int64)
    label[mine[coupled]] = inverse.reshape(-1)
    if len(cells):
        _merge_small(indptr, indices, values, largest, 0.0, 0, label, len(cells),
                     max(2, int(SMALLEST * wanted)), tile)
    before = label[mine]
    numbered = before.copy()
    total, count = _number(numbered, len(cells), max(1, min(tile, wanted)))
    of_core = np.full((total, box.shape[1]), -1, np.int64)
    of_core[numbered[before >= 0]] = cells[before[before >= 0]]
    label[:] = -1
    label[mine] = numbered
    index, core, size = _extend(indptr, indices, values, largest, threshold, 0, label, total, tile, overlap, tile)
    index = index[:, : int(size.max(initial=1))]
    index = np.where(index >= 0, order[index], -1)
    return Patches(np.ascontiguousarray(index), core, size, label[back[own]], np.arange(total) < count), of_core

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
def axis_strengths(indptr, indices, strength, place, total, count):
    """Add up the couplings between neighbouring lines that run along one direction, for each direction."""
    for i in range(indptr.size - 1):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            axis, moves, far = -1, 0, False
            for d in range(place.shape[1]):
                if place[i, d] != place[j, d]:
                    axis = d
                    moves += 1
                    far = far or abs(place[i, d] - place[j, d]) > 1
            if moves == 1 and not far:
                total[axis] += strength[e]
                count[axis] += 1


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
    first, owned = matrix.first, matrix.owned
    order = np.arange(matrix.rows)
    # ties by the matrix's own numbering: unknowns of one site keep their order
    order[first: first + owned] = first + np.lexsort(place[first: first + owned].T[::-1])
    back = np.empty(matrix.rows, np.int64)
    back[order] = np.arange(matrix.rows)
    graph = sp.csr_matrix((strength, back[matrix.indices], matrix.indptr), shape=(matrix.rows, matrix.rows))[order]
    # explicit zeros stay: they are the diagonal, and weak couplings that nothing follows
    graph.sort_indices()
    indptr, indices, values = graph.indptr.astype(np.int64), graph.indices.astype(np.int64), graph.data
    largest = largest[order]
    box = box[order[first: first + owned] - first]
    coupled = (largest[first: first + owned] > 1e-10) & (box >= 0).all(axis=1)
    label = np.full(owned, -2, np.int64)
    cells, inverse = np.unique(box[coupled], axis=0, return_inverse=True)
    label[coupled] = inverse.reshape(-1)
    if len(cells):
        _merge_small(indptr, indices, values, first, label, len(cells), max(2, int(SMALLEST * wanted)), tile)
    before = label.copy()
    total, count = _number(label, len(cells), max(1, min(tile, wanted)))
    of_core = np.full((total, box.shape[1]), -1, np.int64)
    there = before >= 0
    of_core[label[there]] = cells[before[there]]
    index, core, size = _extend(indptr, indices, values, largest, threshold, first, label, total, tile, overlap, tile)
    width = int(size.max(initial=1))
    index = index[:, :width]
    index = np.where(index >= 0, order[index], -1)
    unsorted = np.empty(owned, np.int64)
    unsorted[order[first: first + owned] - first] = label
    return Patches(np.ascontiguousarray(index), core, size, unsorted, np.arange(total) < count), of_core

"""Coordinates of a matrix's unknowns, and the patches that follow from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.errors import InvalidInput
from analogpde.patches.grow import (
    SMALL_TILE,
    LocalMatrix,
    Patches,
    choose_core,
    coupling_strength,
    nodes_of,
    unknowns_of,
)
from analogpde.patches.lattice import (
    EMPTIEST,
    MOST_PARTS,
    Lattice,
    box_patches,
    boxes,
    choose_widths,
    lines_of,
    nearest,
    parts_of,
    rounded,
    step_strengths,
    strong_axes,
)
from analogpde.petsc.guard import together
from analogpde.petsc.matrix import COORDINATES
from analogpde.petsc.stack import MPI, PETSc


def attach(matrix: PETSc.Mat, points: NDArray[np.float64]) -> None:
    """Attach coordinates to a matrix, where PC analog finds them. Collective.

    Args:
        points: of the owned nodes, shape (nodes, dim); a node is a row, or as many rows as the matrix's block size.
    """
    vector = PETSc.Vec().createMPI((points.size, PETSc.DETERMINE), bsize=points.shape[1], comm=matrix.getComm())
    vector.array[:] = np.asarray(points, np.float64).ravel()
    matrix.compose(COORDINATES, vector)
    vector.destroy()  # the matrix holds it


def attached(matrix: PETSc.Mat) -> NDArray[np.float64] | None:
    """Return the coordinates of the owned rows, shape (owned, dim), or None if there are none. Collective.

    Looked for in this order: a Vec composed with the matrix under the name "coordinates", block size the dimension;
    the coordinates of the DM that made the matrix.

    Raises:
        InvalidInput: the Vec does not fit the matrix.
    """
    vector: Any = matrix.query(COORDINATES)
    if vector is None:
        dm = matrix.getDM()
        vector = dm.getCoordinates() if dm.handle else None
        if vector is None or not vector.handle:
            return None
    dim, block = vector.getBlockSize(), matrix.getBlockSize()
    owned, mine = matrix.getLocalSize()[0], vector.getLocalSize()
    repeat = next((b for b in (1, block) if mine * b == owned * dim), 0)
    comm = matrix.getComm().tompi4py()
    bad = comm.allgather(not repeat or not np.isfinite(vector.array_r).all())
    if any(bad):
        rank = bad.index(True)
        got = comm.bcast(f"{mine} numbers of block size {dim} for {owned} rows on rank {rank}", root=rank)
        raise InvalidInput("coordinates of the matrix", got, "finite, dim numbers for each owned node and the block "
                           "size dim", "Lay the Vec out as the matrix's rows: dim entries for each of them, or for "
                           "each block of rows.")
    return np.repeat(vector.array_r.reshape(-1, dim), repeat, axis=0)


def _axes(comm: MPI.Comm, points: NDArray[np.float64]) -> list[NDArray[np.float64]] | None:
    """Return the lines of the lattice in each direction, None if the points have none. Collective."""
    total = comm.allreduce(len(points))
    axes = []
    sites = 1.0
    for d in range(points.shape[1]):
        values = points[:, d]
        low = comm.allreduce(float(values.min(initial=np.inf)), op=MPI.MIN)
        high = comm.allreduce(float(values.max(initial=-np.inf)), op=MPI.MAX)
        lines = lines_of(values, high - low)
        # scattered points have a line each: no need to tell everybody
        longest = comm.allreduce(len(lines), op=MPI.MAX)
        if longest * sites > EMPTIEST * total:
            return None
        axes.append(lines_of(np.concatenate(comm.allgather(lines)), high - low))
        sites *= len(axes[-1])
    return axes if 0 < sites <= EMPTIEST * total else None


def make_box_patches(
    comm: MPI.Comm, matrix: LocalMatrix, points: NDArray[np.float64], tile: int, *, core: int | None, overlap: int,
    threshold: float, block: int = 1, small: bool = False,
) -> tuple[Patches, NDArray[np.int64]] | None:
    """Cut the unknowns into boxes of a lattice and grow a patch around each. Collective.

    Args:
        matrix: rows that this rank sees.
        points: of the seen unknowns, shape (n, dim).
        tile, core, overlap, threshold, block, small: as of `make_patches`.

    Returns:
        Patches, and the box of each core, shape (K, dim); None, on all ranks, where the points have no lattice or boxes
        would cut along weak couplings.
    """
    if 1 < block <= tile:
        found = make_box_patches(comm, together(comm, lambda: nodes_of(matrix, block)), points[::block], tile // block,
                                 core=max(1, core // block) if core else None, overlap=overlap, threshold=threshold,
                                 small=small)
        return None if found is None else (unknowns_of(found[0], block), found[1])
    own = slice(matrix.first, matrix.first + matrix.owned)
    axes = _axes(comm, points[own])
    if axes is None:
        return None
    dim = len(axes)
    place = np.stack([nearest(axis, points[:, d]) for d, axis in enumerate(axes)], axis=1)
    strength, largest = together(comm, lambda: coupling_strength(matrix.indptr, matrix.indices, matrix.values))
    strength, largest = rounded(strength), rounded(largest)
    coupled = largest[own] > 1e-10
    count = comm.allreduce(int(coupled.sum()))
    if count == 0:
        return None
    low, high = np.empty(dim, np.int64), np.empty(dim, np.int64)
    comm.Allreduce(place[own][coupled].min(axis=0, initial=np.iinfo(np.int64).max), low, MPI.MIN)
    comm.Allreduce(place[own][coupled].max(axis=0, initial=-1), high, MPI.MAX)
    lattice = Lattice(place, low, high, count / float(np.prod(high - low + 1)))
    sums = np.empty((2, 3**dim))
    comm.Allreduce(step_strengths(matrix, strength, place), sums)
    strong = strong_axes(sums, dim, threshold)
    if strong is None:
        return None
    half = max(1, tile // 2) if tile <= SMALL_TILE else None

    def local_core() -> int:
        chosen = core or half
        return chosen or (choose_core(matrix, strength, largest, threshold, tile, small) if coupled.any() else tile)

    wanted = min(tile, comm.allreduce(together(comm, local_core), op=MPI.MIN))
    crowd = max(1.0, lattice.density)  # unknowns on a site
    widths = choose_widths([int(e) for e in high - low + 1], strong, wanted / crowd, min(tile, 1.1 * wanted) / crowd)
    box = boxes(lattice, widths, matrix.first, matrix.owned)

    def cut() -> tuple[Patches, NDArray[np.int64], int, int]:
        patches, of_core = box_patches(matrix, strength, largest, place, box, tile=tile, overlap=overlap,
                                       threshold=threshold, wanted=wanted)
        row = np.repeat(np.arange(matrix.rows), np.diff(matrix.indptr))
        follows = (strength > 0) & (strength >= threshold * np.minimum(largest[row], largest[matrix.indices]))
        label = np.where(patches.coupled[patches.label], patches.label, -1)
        return patches, of_core, *parts_of(matrix, follows, label)

    patches, of_core, parts, cores = together(comm, cut)
    parts, cores = comm.allreduce(parts), comm.allreduce(cores)
    return None if parts > MOST_PARTS * cores else (patches, of_core)

"""A level's partition: the rows that a rank sees, the patches in them, and whether new values may keep them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.patches.grow import LocalMatrix, Patches, make_patches, unsymmetry
from analogpde.patches.quality import cohesion, still_fits
from analogpde.patches.rules import choose_strength
from analogpde.petsc import lattice, log
from analogpde.petsc.guard import together
from analogpde.petsc.stack import PETSc


def agglomerated(counts: NDArray[np.int64], fewest: int) -> NDArray[np.int64]:
    """Return how many unknowns each rank shall own so that the owners are few; the numbering stays.

    Args:
        counts: unknowns on each rank as they arise.
        fewest: unknowns a rank must have on average, or neighbouring ranks are put together and the first of them owns
            what all have. 0 leaves everything where it is.

    Returns:
        Counts of the same sum, most of them 0 on a small level.
    """
    total, owners = int(counts.sum()), int(np.count_nonzero(counts))
    groups = max(1, total // max(1, fewest))
    if groups >= owners:
        return counts
    middle = np.cumsum(counts) - 0.5 * counts
    group = np.minimum((middle * groups / total).astype(np.int64), groups - 1)
    out = np.zeros_like(counts)
    for g in range(groups):
        ranks = np.flatnonzero((group == g) & (counts > 0))
        if len(ranks):
            out[ranks[0]] = counts[ranks].sum()
    return out


class Seen:
    """The rows that this rank's patches may reach, and the scatter that fetches a vector's entries for them.

    Collective. Rows are fetched at once, as one ghosted submatrix a rank.
    """

    def __init__(self, matrix: PETSc.Mat, overlap: int, block: int = 1) -> None:
        comm = matrix.getComm()
        begin, end = matrix.getOwnershipRange()
        self._scatter = None
        if comm.size == 1:
            self.rows = np.arange(end, dtype=PETSc.IntType)
        else:
            reach = PETSc.IS().createStride(end - begin, begin, 1, comm=PETSc.COMM_SELF)
            if overlap:
                matrix.increaseOverlap(reach, overlap)
            nodes = np.unique(reach.getIndices() // block)
            self.rows = (nodes[:, None] * block + np.arange(block)).ravel().astype(PETSc.IntType)  # whole nodes
            reach.destroy()
            reach = PETSc.IS().createGeneral(self.rows, comm=PETSc.COMM_SELF)
            self._ghosted = PETSc.Vec().createSeq(len(self.rows), comm=PETSc.COMM_SELF)
            template = matrix.createVecRight()
            self._scatter = PETSc.Scatter().create(template, reach, self._ghosted, None)
            template.destroy()
            reach.destroy()
        self.sent = 8 * (len(self.rows) - (end - begin))  # bytes of a vector that come from other ranks
        self.read(matrix)

    def read(self, matrix: PETSc.Mat) -> None:
        """Fetch the rows of a matrix with the same layout: the first one's, or new values. Collective."""
        begin, end = matrix.getOwnershipRange()
        if self._scatter is None:
            indptr, indices, values = matrix.getValuesCSR()
        else:
            reach = PETSc.IS().createGeneral(self.rows, comm=PETSc.COMM_SELF)
            part = matrix.createSubMatrices([reach], [reach])[0]
            indptr, indices, values = part.getValuesCSR()
            part.destroy()
            reach.destroy()
        first = int(np.searchsorted(self.rows, begin))
        self.matrix = LocalMatrix(indptr.astype(np.int64), indices.astype(np.int64), values, first, end - begin)

    def fetch(self, vector: PETSc.Vec) -> NDArray[np.float64]:
        """Return the entries of a vector that this rank sees. Collective."""
        if self._scatter is None:
            return np.asarray(vector.array_r)
        self._scatter.scatter(vector, self._ghosted, addv=PETSc.InsertMode.INSERT_VALUES,
                              mode=PETSc.ScatterMode.FORWARD)
        return np.asarray(self._ghosted.array_r)

    def add(self, values: NDArray[np.float64], out: PETSc.Vec) -> None:
        """Set a vector to the sum of what all ranks have for its entries, in local numbering. Collective."""
        if self._scatter is None:
            out.array[:] = values
            return
        self._ghosted.array[:] = values
        out.set(0.0)
        self._scatter.scatter(self._ghosted, out, addv=PETSc.InsertMode.ADD_VALUES, mode=PETSc.ScatterMode.REVERSE)

    def rows_of(self, matrix: PETSc.Mat) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Return the seen rows of another matrix with the same row layout, CSR in global columns. Collective."""
        if self._scatter is None:
            indptr, indices, values = matrix.getValuesCSR()
        else:
            rows = PETSc.IS().createGeneral(self.rows, comm=PETSc.COMM_SELF)
            columns = PETSc.IS().createStride(matrix.getSize()[1], 0, 1, comm=PETSc.COMM_SELF)
            part = matrix.createSubMatrices([rows], [columns])[0]
            indptr, indices, values = part.getValuesCSR()
            for thing in (part, rows, columns):
                thing.destroy()
        return indptr, indices, values

    def free(self) -> None:
        """Free PETSc objects."""
        if self._scatter is not None:
            self._scatter.destroy()
            self._ghosted.destroy()
            self._scatter = None


class Partition:
    """What a level keeps while only values change: rows seen, patches, what names the columns of P. Collective.

    Args:
        matrix: the level's operator (AIJ).
        tile: rows of a tile.
        core, overlap: options, as in `make_patches`.
        strength: below which fraction of the largest couplings are not followed; None chooses by the matrix.
        boxes: cut the boxes of a lattice, if the matrix has coordinates that allow it: equal ones can share a tile.
    """

    def __init__(
        self, matrix: PETSc.Mat, tile: int, *, core: int | None, overlap: int, strength: float | None,
        boxes: bool = False,
    ) -> None:
        comm = matrix.getComm().tompi4py()
        self._strength, self._block = strength, matrix.getBlockSize()
        self.patches: Patches
        self.boxes: NDArray[np.int64] | None = None
        with log.EVENTS["Partition"]:
            self.seen = Seen(matrix, overlap, self._block)
            local = self.seen.matrix
            self._threshold = self._choose_threshold(matrix)
            found = self._box_patches(matrix, tile, core, overlap) if boxes else None
            if found is not None:
                self.patches, self.boxes = found
            else:
                self.patches = together(comm, lambda: make_patches(
                    local, tile, core=core, overlap=overlap, threshold=self._threshold, block=self._block))
        self.columns: NDArray[np.int64] | None = None
        self._cohesion = self._measure(matrix)

    def _box_patches(
        self, matrix: PETSc.Mat, tile: int, core: int | None, overlap: int,
    ) -> tuple[Patches, NDArray[np.int64]] | None:
        """Return patches around boxes, if the matrix has coordinates that allow it. Collective."""
        own = lattice.attached(matrix)
        if own is None:
            return None
        vector = matrix.createVecRight()
        points = np.empty((self.seen.matrix.rows, own.shape[1]))
        for d in range(own.shape[1]):
            vector.array[:] = own[:, d]
            points[:, d] = self.seen.fetch(vector)
        vector.destroy()
        return lattice.make_box_patches(
            matrix.getComm().tompi4py(), self.seen.matrix, points, tile, core=core, overlap=overlap,
            threshold=self._threshold, block=self._block)

    def keeps(self, matrix: PETSc.Mat) -> bool:
        """Take in new values of a matrix with the same layout; answer whether the cores still fit them. Collective."""
        self.seen.read(matrix)
        return self._choose_threshold(matrix) == self._threshold and still_fits(self._cohesion, self._measure(matrix))

    def _choose_threshold(self, matrix: PETSc.Mat) -> float:
        if self._strength is not None:
            return self._strength
        one_way, total = matrix.getComm().tompi4py().allreduce(np.array(unsymmetry(self.seen.matrix)))
        return choose_strength(one_way, total)

    def _measure(self, matrix: PETSc.Mat) -> NDArray[np.int64]:
        comm = matrix.getComm().tompi4py()
        own = together(comm, lambda: cohesion(self.seen.matrix, self.patches, self._threshold, self._block))
        total = np.empty_like(own)
        comm.Allreduce(own, total)
        return total

    def free(self) -> None:
        """Free PETSc objects."""
        self.seen.free()

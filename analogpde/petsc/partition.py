"""A level's partition: the rows that a rank sees, the patches in them, and whether new values may keep them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.patches.grow import SMALL_TILE, LocalMatrix, Patches, make_patches, measure_couplings, restrict
from analogpde.patches.quality import cohesion, slow_cores, still_fits, want_small_cores
from analogpde.patches.rules import STRENGTH, judge_couplings
from analogpde.patches.smooth import Rows
from analogpde.petsc import lattice, log
from analogpde.petsc.exchange import Exchange, between, beyond, number
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

    Collective. `whole` are the rows with all their columns, `matrix` with those that are seen; `ghosts` is how many
    columns of this rank's own rows are other ranks'.
    """

    def __init__(self, matrix: PETSc.Mat, overlap: int, block: int = 1, own: Rows | None = None) -> None:
        comm = matrix.getComm()
        own = matrix.getValuesCSR() if own is None else own
        self.ghosts = 0
        begin, end = matrix.getOwnershipRange()
        self._scatter = None
        if comm.size == 1:
            self.rows = np.arange(end, dtype=PETSc.IntType)
        else:
            outside, found = np.empty(0, np.int64), beyond(own[1], begin, end)
            first, self.ghosts = found, len(found)
            for _ in range(overlap):  # a layer after another
                outside = np.union1d(outside, found)
                found = beyond(Exchange(comm.tompi4py(), begin, outside).fetch(own)[1], begin, end)
            nodes = np.unique(outside // block)[:, None] * block + np.arange(block)  # whole nodes
            outside = beyond(nodes.ravel(), begin, end)
            low = int(np.searchsorted(outside, begin))
            self.rows = np.concatenate((outside[:low], np.arange(begin, end), outside[low:])).astype(PETSc.IntType)
            self._layers = Exchange(comm.tompi4py(), begin, outside)
            others = self._layers.fetch(own)
            self._outside, self._low = outside, low
            self._beyond = np.unique(np.concatenate((outside, first, beyond(others[1], begin, end))))
            self._needed = Exchange(comm.tompi4py(), begin, self._beyond)
            reach = PETSc.IS().createGeneral(self.rows, comm=PETSc.COMM_SELF)
            self._ghosted = PETSc.Vec().createSeq(len(self.rows), comm=PETSc.COMM_SELF)
            template = matrix.createVecRight()
            self._scatter = PETSc.Scatter().create(template, reach, self._ghosted, None)
            template.destroy()
            reach.destroy()
        self.sent = 8 * (len(self.rows) - (end - begin))  # bytes of a vector that come from other ranks
        self.read(matrix, own)

    def read(self, matrix: PETSc.Mat, own: Rows | None = None) -> None:
        """Fetch the rows of a matrix with the same layout: the first one's, or new values. Collective.

        Args:
            own: its `getValuesCSR`, where the caller has it.
        """
        begin, end = matrix.getOwnershipRange()
        own = matrix.getValuesCSR() if own is None else own
        if self._scatter is None:
            indptr, indices, values = own
            self.matrix = LocalMatrix(indptr.astype(np.int64), indices.astype(np.int64), values, 0, end)
            self.whole = self.matrix.indptr, self.matrix.indices, self.matrix.values
            return
        indptr, columns, values = between(own, self._layers.fetch(own), self._low)
        low, indices = int(np.searchsorted(self._beyond, begin)), np.empty(len(columns), np.int64)
        number(columns, begin, end, self._beyond, low, indices)
        self.whole = indptr, indices, values
        seen = np.full(len(self._beyond) + end - begin, -1, np.int64)
        place = np.searchsorted(self._beyond, self._outside)
        seen[place + np.where(place < low, 0, end - begin)] = np.arange(len(self._outside)) + np.where(
            self._outside < begin, 0, end - begin)
        seen[low : low + end - begin] = self._low + np.arange(end - begin)
        indptr, indices, values = restrict(*self.whole, seen)
        self.matrix = LocalMatrix(indptr, indices, values, self._low, end - begin)

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

    def needed(self, p: Rows, begin: int) -> Rows:
        """Return the rows of P that `whole` is to be multiplied with. Collective.

        Args:
            p: its owned rows, CSR in global columns. begin: the first of them.
        """
        if self._scatter is None:
            return p
        return between(p, self._needed.fetch(p), int(np.searchsorted(self._beyond, begin)))

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
        strength: below which fraction of the largest couplings are not followed; None: `STRENGTH`.
        slow: whether large cores of the finest level are slow inside (`slow_cores`); None finds out, on that level.
        alone: there is no coarse level, and no reason for small cores.
        boxes: cut the boxes of a lattice, if the matrix has coordinates that allow it: equal ones can share a tile.
        own: the matrix's `getValuesCSR`, where the caller has it.
    """

    def __init__(
        self, matrix: PETSc.Mat, tile: int, *, core: int | None, overlap: int, strength: float | None,
        slow: bool | None = False, alone: bool = False, boxes: bool = False, own: Rows | None = None,
    ) -> None:
        comm = matrix.getComm().tompi4py()
        self._threshold, self._block = STRENGTH if strength is None else strength, matrix.getBlockSize()
        self.patches: Patches
        self.boxes: NDArray[np.int64] | None = None
        with log.EVENTS["Partition"]:
            self.seen = Seen(matrix, overlap, self._block, own)
            self._convective, positive, self._rough = self._look(matrix)
            self.slow = bool(slow)
            self.small = not alone and core is None and (self._convective or self.slow)
            self._cut(matrix, tile, core, overlap, boxes)
            # small tiles have small cores; of nodes of several unknowns one coarse unknown is not asked for everything
            wanted = slow is None and not alone and core is None and tile > SMALL_TILE and self._block == 1
            if wanted and (positive or self._rough):
                count = together(comm, lambda: slow_cores(self.seen.matrix, self.patches))
                total = np.empty_like(count)
                comm.Allreduce(count, total)
                self.slow = want_small_cores(total, positive)
                if self.slow and not self.small:
                    self.small = True
                    self._cut(matrix, tile, core, overlap, boxes)
        self.columns: NDArray[np.int64] | None = None
        self._cohesion: NDArray[np.int64] | None = None  # of the first values, measured when others come

    def _cut(self, matrix: PETSc.Mat, tile: int, core: int | None, overlap: int, boxes: bool) -> None:
        """Cut the level into patches. Collective."""
        found = self._box_patches(matrix, tile, core, overlap) if boxes else None
        if found is not None:
            self.patches, self.boxes = found
            return
        self.patches = together(matrix.getComm().tompi4py(), lambda: make_patches(
            self.seen.matrix, tile, core=core, overlap=overlap, threshold=self._threshold, block=self._block,
            signed=self._convective, small=self.small))
        self.boxes = None

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
            threshold=self._threshold, block=self._block, small=self.small)

    def keeps(self, matrix: PETSc.Mat, own: Rows | None = None) -> bool:
        """Take in new values of a matrix with the same layout; answer whether the cores still fit them. Collective."""
        if self._cohesion is None:
            self._cohesion = self._measure(matrix)
        self.seen.read(matrix, own)
        convective, _, rough = self._look(matrix)
        same = convective == self._convective and rough == self._rough
        return same and still_fits(self._cohesion, self._measure(matrix))

    def _look(self, matrix: PETSc.Mat) -> tuple[bool, bool, bool]:
        """Return what `judge_couplings` makes of the matrix. Collective."""
        own = measure_couplings(self.seen.matrix)
        total = np.empty_like(own)
        matrix.getComm().tompi4py().Allreduce(own, total)
        return judge_couplings(total)

    def _measure(self, matrix: PETSc.Mat) -> NDArray[np.int64]:
        comm = matrix.getComm().tompi4py()
        own = together(comm, lambda: cohesion(self.seen.matrix, self.patches, self._threshold, self._block,
                                             self._convective))
        total = np.empty_like(own)
        comm.Allreduce(own, total)
        return total

    def free(self) -> None:
        """Free PETSc objects."""
        self.seen.free()

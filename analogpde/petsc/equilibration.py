"""A matrix whose rows and columns have different scales, equilibrated (`analogpde.patches.equilibration`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.cost import Ledger
from analogpde.patches.equilibration import SPREAD, Scales, left, scan, slope, uneven, votes, words
from analogpde.petsc.guard import together
from analogpde.petsc.lattice import COORDINATES
from analogpde.petsc.matrix import unit_columns
from analogpde.petsc.stack import MPI, PETSc
from analogpde.refine.modes import without_structure

SYMMETRIC = 1e-10  # ‖(M − Mᵀ)z‖/‖Mz‖ for a random z that is rounding


class Equilibration:
    """S = R M C. Singleton rows, if of another size than the others, are solved by the host.

    Args:
        whole: M. scales: of its rows on this rank. t, odd: of all ranks' (`analogpde.patches.equilibration`).

    Attributes:
        matrix: S. near: what S all but annihilates, on the owned rows, shape (owned, k). words: what was scaled.
        answer: of S, a work vector. host: operations of an application, on this rank.
    """

    def __init__(self, whole: PETSc.Mat, scales: Scales, t: float | None, *, odd: bool) -> None:
        self._whole = whole
        self._columns, self._rows = whole.createVecs()
        self._rows.array[:], self._columns.array[:] = scales.diagonals(t)
        self.matrix = whole.copy()
        self.matrix.diagonalScale(self._rows, self._columns)
        self._given, self.answer = self._rows.duplicate(), self._columns.duplicate()
        self._singleton = self._alone = None
        self.words, self.host = words(t, odd), Ledger()
        if odd:
            diagonal = whole.getDiagonal()
            self._singleton, self._alone = self._rows.duplicate(), self._rows.duplicate()
            self._singleton.array[:] = np.where(scales.singleton != 1.0, 1.0 / diagonal.array_r, 0.0)
            diagonal.destroy()
            entries = int(whole.getInfo(PETSc.Mat.InfoType.LOCAL)["nz_used"])  # of the product that takes them off
            self.host = Ledger(host_flops=2 * entries, host_bytes=12 * entries)

    def choose_near(self, near: NDArray[np.float64], *, attached: bool) -> None:
        """Set `near`. Arguments as of `equilibrated`. Collective."""
        comm = self.matrix.getComm().tompi4py()
        self.near = near / self._columns.array_r[:, None]
        if not attached and comm.allreduce(votes(left(_times(self.matrix, self.near), self.near),
                                                 left(_times(self.matrix, near), near))) > 0:
            self.near = near
        self.near = unit_columns(comm, self.near)

    def weight(self, transposed: bool) -> NDArray[np.float64]:
        """Return R, or C, on this rank."""
        return np.array((self._columns if transposed else self._rows).array_r)

    def into(self, x: PETSc.Vec, *, transposed: bool) -> PETSc.Vec:
        """Return what S is given for x: R x, or C x, singleton rows apart. Collective."""
        given = self._given
        if self._singleton is None or self._alone is None:
            given.pointwiseMult(self._columns if transposed else self._rows, x)
        elif transposed:
            given.pointwiseMult(self._columns, x)
            given.array[self._singleton.array_r != 0] = 0.0
        else:
            self._alone.pointwiseMult(self._singleton, x)
            self._whole.mult(self._alone, given)
            given.aypx(-1.0, x)
            given.pointwiseMult(self._rows, given)
        return given

    def out_of(self, x: PETSc.Vec, y: PETSc.Vec, *, transposed: bool) -> None:
        """Turn the answer of S into one of M, y = C `answer`, or R `answer`. Collective."""
        y.pointwiseMult(self._rows if transposed else self._columns, self.answer)
        if self._singleton is None or self._alone is None:
            return
        if transposed:
            y.array[self._singleton.array_r != 0] = 0.0
            self._whole.multTranspose(y, self._alone)
            self._alone.aypx(-1.0, x)
            self._alone.pointwiseMult(self._singleton, self._alone)
        y.axpy(1.0, self._alone)

    def free(self) -> None:
        """Free matrix and vectors."""
        for thing in (self.matrix, self._rows, self._columns, self._given, self.answer, self._singleton, self._alone):
            if thing is not None:
                thing.destroy()


def equilibrated(matrix: PETSc.Mat, near: NDArray[np.float64], *, attached: bool) -> Equilibration | None:
    """Return the matrix equilibrated, or None where that changes little. Collective.

    Args:
        matrix: AIJ, its diagonal without zeros.
        near: near-null vectors of M, shape (owned, k). attached: whether the program said so; if not, they may as well
            be those of S: those are taken that S annihilates better in more rows.
    """
    if _symmetric(matrix):
        return None
    comm = matrix.getComm().tompi4py()
    diagonal, rows, first = matrix.getDiagonal(), matrix.getValuesCSR(), matrix.getOwnershipRange()[0]
    low, high, singleton = together(comm, lambda: uneven(rows, diagonal.array_r, first))
    low, high = comm.allreduce(low, op=MPI.MIN), comm.allreduce(high, op=MPI.MAX)
    if not comm.allreduce(singleton, op=MPI.LOR) and high <= SPREAD * low:
        diagonal.destroy()
        return None
    diagonal.abs()
    backward, moved, inverse = matrix.transpose(PETSc.Mat()), matrix.copy(), diagonal.copy()
    inverse.reciprocal()
    moved.diagonalScale(inverse, diagonal)
    mine = together(comm, lambda: scan(rows, backward.getValuesCSR(), moved.getValuesCSR()[2], first))
    low, high = mine.ends
    ends = comm.allreduce(low, op=MPI.MIN), comm.allreduce(high, op=MPI.MAX)
    t, odd = slope(np.asarray(comm.allreduce(mine.sums)), ends), comm.allreduce(mine.odd, op=MPI.LOR)
    for thing in (backward, moved, inverse, diagonal):
        thing.destroy()
    if t is None and not odd:
        return None
    found = Equilibration(matrix, mine, t, odd=odd)
    if (points := matrix.query(COORDINATES)) is not None:
        found.matrix.compose(COORDINATES, points)
    found.choose_near(near, attached=attached)
    return found


def _symmetric(matrix: PETSc.Mat) -> bool:
    """Tell whether the matrix is symmetric, most likely. Collective."""
    known, symmetric = matrix.isSymmetricKnown()
    if known:
        return bool(symmetric)
    z, forth = matrix.createVecs()
    begin, end = matrix.getOwnershipRange()
    z.array[:] = without_structure(begin, end - begin)
    back = forth.duplicate()
    matrix.mult(z, forth)
    matrix.multTranspose(z, back)
    size = forth.norm()
    back.axpy(-1.0, forth)
    same = back.norm() <= SYMMETRIC * size
    for vector in (z, forth, back):
        vector.destroy()
    return bool(same)


def _times(matrix: PETSc.Mat, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the product with each column. Collective."""
    x, y = matrix.createVecs()
    out = np.empty_like(vectors)
    for k, column in enumerate(vectors.T):
        x.array[:] = column
        matrix.mult(x, y)
        out[:, k] = y.array_r
    x.destroy()
    y.destroy()
    return out

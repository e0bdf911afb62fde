"""What tiles and slices need to know of a PETSc matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.errors import InvalidInput, ProgrammingFailed
from analogpde.petsc.stack import MPI, PETSc

COORDINATES = "coordinates"
"""Name of the Vec with the coordinates of the unknowns that a program composes with its matrix."""

_SHELLS = ("shell", "python", "mffd", "scatter", "composite", "transpose", "normal")


def version(matrix: PETSc.Mat) -> tuple[int, int]:
    """Return what changes with the matrix and with its values: two matrices may have the same object state."""
    return matrix.getId(), matrix.stateGet()


def nullity(matrix: PETSc.Mat) -> int:
    """Return how many vectors the attached null space has, 0 if there is none."""
    space = matrix.getNullSpace()
    return int(space.hasConstant()) + len(space.getVecs()) if space.handle else 0


def has_near_null(matrix: PETSc.Mat) -> bool:
    """Tell whether the program attached a near-null space or a null space."""
    return bool(matrix.getNearNullSpace().handle or matrix.getNullSpace().handle)


def near_null_vectors(matrix: PETSc.Mat) -> NDArray[np.float64]:
    """Return what the matrix all but annihilates, on the owned rows, shape (owned, k). Collective.

    In this order: the near-null space that the user attached, the vectors of the null space, one constant for each
    component of a block. Each vector is scaled to a largest entry of 1.

    Raises:
        InvalidInput: on every rank: a vector is not finite.
    """
    block = matrix.getBlockSize()
    begin, end = matrix.getOwnershipRange()
    near, null = matrix.getNearNullSpace(), matrix.getNullSpace()
    space = near if near.handle else null
    vectors = [vector.array_r.copy() for vector in space.getVecs()] if space.handle else []
    if space.handle and space.hasConstant() and (block == 1 or vectors):
        vectors.insert(0, np.ones(end - begin))
    if not vectors:
        return (np.arange(begin, end)[:, None] % block == np.arange(block)).astype(float)
    comm, columns = matrix.getComm().tompi4py(), np.stack(vectors, axis=1)
    if not comm.allreduce(bool(np.isfinite(columns).all()), MPI.LAND):
        raise InvalidInput("near-null space", "a vector with NaN or infinity", "finite numbers",
                           "See MatSetNearNullSpace, or MatSetNullSpace.")
    return unit_columns(comm, columns)


def unit_columns(comm: MPI.Comm, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the columns that are not zero, each over its largest magnitude. Collective."""
    largest = np.zeros(vectors.shape[1])
    comm.Allreduce(np.abs(vectors).max(axis=0, initial=0.0), largest, MPI.MAX)
    return vectors[:, largest > 0] / largest[largest > 0]


def as_aij(matrix: PETSc.Mat, what: str, remedy: str) -> tuple[PETSc.Mat, bool]:
    """Return the matrix as AIJ, and whether that is a copy, to be destroyed by the caller. Collective.

    Args:
        matrix: of any type.
        what: what has got this matrix, for the message.
        remedy: what to do instead with a matrix that has no entries.

    Raises:
        InvalidInput: the matrix has no entries to program, is not square, or is empty.
    """
    kind = matrix.getType()
    if kind in _SHELLS:
        raise InvalidInput(what, kind, "an assembled matrix (aij, baij, sbaij, dense, nest)", remedy)
    if kind is None:
        raise InvalidInput(what, "no matrix", "an assembled one", "Call KSPSetOperators first; KSPReset takes it away.")
    rows, columns = matrix.getSize()
    if rows != columns:
        raise InvalidInput("matrix", f"{rows} × {columns}", "a square matrix")
    if rows == 0:
        raise InvalidInput("matrix", "0 × 0", "at least one row")
    if kind in ("aij", "seqaij", "mpiaij"):
        return matrix, False
    try:
        converted = matrix.convert("aij", PETSc.Mat())
    except PETSc.Error as error:
        raise InvalidInput(what, kind, "a matrix that PETSc can convert to aij", str(error)) from None
    points = matrix.query(COORDINATES)
    if points is not None:
        converted.compose(COORDINATES, points)
    return converted, True


def refuse_zero_diagonal(matrix: PETSc.Mat) -> None:
    """Refuse a matrix with zeros on its diagonal, which no closed-loop tile holds as a stable circuit. Collective.

    Raises:
        ProgrammingFailed: on every rank; names the first such row.
    """
    comm = matrix.getComm().tompi4py()
    begin, _ = matrix.getOwnershipRange()
    diagonal = matrix.getDiagonal()
    zeros = begin + np.flatnonzero(diagonal.array_r == 0.0)
    diagonal.destroy()
    mine = int(zeros[0]) if len(zeros) else matrix.getSize()[0]
    count, row = comm.allreduce(len(zeros)), comm.allreduce(mine, op=MPI.MIN)
    if not count:
        return
    empty = comm.allreduce(bool(row == mine and not np.any(matrix.getRow(row)[1])))
    others = f" and {count - 1} more" if count > 1 else ""
    why = ("Are the rows in the order of their unknowns? Saddle-point systems need a block preconditioner "
           "(-pc_type fieldsplit) with tiles inside.")
    if empty:
        why = ("Nothing else is in that row either: is it an unknown that no equation was assembled for, or a "
               "prescribed one without its 1?")
    raise ProgrammingFailed(f"zero diagonal in row {row} of the matrix{others}, which no INV tile holds as a stable "
                            f"circuit. {why}")


def galerkin(matrix: PETSc.Mat, prolongation: PETSc.Mat) -> PETSc.Mat:
    """Return PᵀAP, the same to the last bit in every run on as many ranks. Collective.

    PETSc's PtAP adds what several other ranks contribute in the order of arrival, and a rounding error can turn into
    another analog-to-digital code. In the product of Pᵀ with AP each rank adds up its own rows. It is faster, too: 0.8
    against 1.35 s for 400 000 unknowns and 11 entries in a row of P.
    """
    transposed = prolongation.transpose(PETSc.Mat())
    product = matrix.matMult(prolongation)
    coarse = transposed.matMult(product)
    transposed.destroy()
    product.destroy()
    return coarse

"""What tiles and slices need to know of a PETSc matrix."""

from __future__ import annotations

from analogpde.errors import InvalidInput
from analogpde.petsc.stack import PETSc

_SHELLS = ("shell", "python", "mffd", "scatter", "composite", "transpose", "normal")


def version(matrix: PETSc.Mat) -> tuple[int, int]:
    """Return what changes with the matrix and with its values: two matrices may have the same object state."""
    return matrix.getId(), matrix.stateGet()


def is_singular(matrix: PETSc.Mat) -> bool:
    """Tell whether a null space is attached."""
    space = matrix.getNullSpace()
    return bool(space.handle) and (space.hasConstant() or len(space.getVecs()) > 0)


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
    rows, columns = matrix.getSize()
    if rows != columns:
        raise InvalidInput("matrix", f"{rows} × {columns}", "a square matrix")
    if rows == 0:
        raise InvalidInput("matrix", "0 × 0", "at least one row")
    if kind in ("aij", "seqaij", "mpiaij"):
        return matrix, False
    try:
        return matrix.convert("aij", PETSc.Mat()), True
    except PETSc.Error as error:
        raise InvalidInput(what, kind, "a matrix that PETSc can convert to aij", str(error)) from None


def galerkin(matrix: PETSc.Mat, prolongation: PETSc.Mat) -> PETSc.Mat:
    """Return PᵀAP, the same to the last bit in every run on as many ranks. Collective.

    PETSc's PtAP adds what several other ranks contribute in the order of arrival, and a rounding error can turn into
    another analog-to-digital code. In the product of Pᵀ with AP each rank adds up its own rows.
    """
    if matrix.getComm().size <= 2:  # at most one other rank: nothing can change places
        return matrix.ptap(prolongation)
    transposed = prolongation.transpose(PETSc.Mat())
    product = matrix.matMult(prolongation)
    coarse = transposed.matMult(product)
    transposed.destroy()
    product.destroy()
    return coarse

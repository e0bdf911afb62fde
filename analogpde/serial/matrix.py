"""What the user gives: a dense or sparse matrix, real or complex, and right-hand sides, checked and made real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from analogpde.errors import InvalidInput, ProgrammingFailed

_MATRIX = "a square NumPy array or SciPy sparse matrix of numbers"
# A matrix with more of its entries than this is dense: patches of it have no border, and a tile wants all of it.
DENSE = 0.25


def _numbers(values: NDArray[Any], what: str, allowed: str) -> NDArray[Any]:
    """Return numbers in FP64, real or complex.

    Raises:
        InvalidInput: they are no numbers, or not finite ones.
    """
    kind = values.dtype.kind
    if kind not in "biufc":
        raise InvalidInput(what, f"dtype {values.dtype}", allowed)
    with np.errstate(over="ignore"):  # a long double beyond FP64 becomes infinite, and is refused as that
        out = values.astype(np.complex128 if kind == "c" else np.float64)
    if not np.isfinite(out).all():
        raise InvalidInput(what, "NaN or infinity", "finite numbers (FP64)")
    return out


def _embed(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Return a complex matrix as a real one of twice the size: a + ib becomes [[a, −b], [b, a]], entry by entry."""
    real, imaginary = matrix.real, matrix.imag
    return sp.csr_matrix(sp.kron(real, np.eye(2)) + sp.kron(imaginary, np.array([[0.0, -1.0], [1.0, 0.0]])))


def real_vectors(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return complex columns as real ones of twice the length: real and imaginary part of an entry side by side."""
    out = np.empty((2 * values.shape[0], values.shape[1]))
    out[0::2], out[1::2] = values.real, values.imag
    return out


def complex_vectors(values: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Undo `real_vectors`."""
    return np.asarray(values[0::2] + 1j * values[1::2])


@dataclass(frozen=True)
class System:
    """A matrix ready to be cut and programmed.

    Args:
        matrix: real, FP64, CSR, sorted, entries not repeated; its largest entry is between 1/2 and 1.
        exponent: the user's matrix is 2^exponent times this one, so that no norm over- or underflows.
        complex: whether it is a complex matrix made real: unknowns 2i and 2i + 1 are one.
        near: what the matrix all but annihilates, shape (rows, k).
        dense: whether a good part of the entries is nonzero.
        norm: largest 2-norm of a row, a lower bound of ‖A‖₂.
        spread: by how much the norms of rows differ, ≥ 1.
        symmetric: to rounding.
    """

    matrix: sp.csr_matrix
    exponent: int
    complex: bool
    near: NDArray[np.float64]
    dense: bool
    norm: float
    spread: float
    symmetric: bool

    @property
    def rows(self) -> int:
        """Rows of the real matrix."""
        return int(self.matrix.shape[0])


def read_matrix(given: Any, near: Any = None) -> System:
    """Check a matrix and bring it into the one form that the rest works with.

    Args:
        given: dense or SciPy-sparse, real or complex, shape (n, n).
        near: near-null vectors, shape (n,) or (n, k); None: the constant.

    Raises:
        InvalidInput: no such matrix, or numbers that are not finite.
        ProgrammingFailed: a zero on the diagonal.
    """
    if sp.issparse(given):
        shape, values = given.shape, given
    else:
        if hasattr(given, "matvec") and not hasattr(given, "__array__"):
            raise InvalidInput("A", type(given).__name__, _MATRIX, "Tiles hold entries, which an operator that only "
                               "multiplies does not have.")
        values = np.asarray(given)
        shape = values.shape
        if np.ma.is_masked(given):
            raise InvalidInput("A", "a masked array", _MATRIX)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise InvalidInput("A", f"shape {tuple(shape)}" if shape else type(given).__name__, _MATRIX)
    if not sp.issparse(given) and values.dtype.kind in "biufc":
        csr = sp.csr_matrix(_numbers(values, "A", _MATRIX))  # first: SciPy has no half precision
    else:
        csr = values
    if not sp.issparse(csr):
        raise InvalidInput("A", f"dtype {values.dtype}", _MATRIX)
    csr = sp.csr_matrix(csr, copy=True)
    csr.data = _numbers(csr.data, "A", _MATRIX)
    csr.sum_duplicates()
    csr.sort_indices()
    if not csr.data.any():
        raise InvalidInput("A", "all entries zero", "a nonsingular matrix")
    is_complex = csr.dtype.kind == "c"
    if is_complex and not csr.imag.data.any():
        csr, is_complex = csr.real.tocsr(), False
    _refuse_zero_diagonal(csr, is_complex)
    vectors = _near_null(near, shape[0], is_complex)
    if is_complex:
        csr = _embed(csr)
        csr.sort_indices()
    exponent = exponent_of(csr.data)
    csr.data = np.ldexp(csr.data, -exponent)
    rows = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    norms = np.sqrt(np.bincount(rows, csr.data**2, csr.shape[0]))
    difference = abs(csr - csr.T)
    return System(
        csr, exponent, is_complex, vectors, csr.nnz > DENSE * csr.shape[0] ** 2, float(norms.max()),
        float(norms.max() / norms[norms > 0].min()), bool(difference.max() <= 1e-11) if difference.nnz else True)


def exponent_of(values: NDArray[np.float64]) -> int:
    """Return the power of two that brings the largest magnitude between 1/2 and 1; 0 of nothing."""
    return int(np.frexp(np.abs(values).max(initial=0.0))[1])


def _refuse_zero_diagonal(csr: sp.csr_matrix, is_complex: bool) -> None:
    diagonal = csr.diagonal()
    zeros = np.flatnonzero(diagonal.real == 0)
    if len(zeros):
        part = "real part of the diagonal" if is_complex else "diagonal"
        raise ProgrammingFailed(
            f"zero {part} in row {zeros[0]} of A{f' and {len(zeros) - 1} more' if len(zeros) > 1 else ''}, which no "
            "INV tile holds as a stable circuit. Are the rows in the order of their unknowns?"
            + (" A complex matrix may be multiplied by a phase that makes its diagonal real." if is_complex else ""))


def _near_null(near: Any, rows: int, is_complex: bool) -> NDArray[np.float64]:
    if near is None:
        return np.tile(np.eye(2), (rows, 1)) if is_complex else np.ones((rows, 1))
    vectors = _numbers(np.atleast_1d(np.asarray(near)), "near_null", "vectors of numbers")
    vectors = vectors[:, None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or vectors.shape[0] != rows or vectors.shape[1] == 0 or not vectors.any(axis=0).all():
        raise InvalidInput("near_null", f"shape {np.shape(near)}", f"nonzero vectors, shape ({rows},) or ({rows}, k)")
    if is_complex:
        vectors = np.concatenate([real_vectors(vectors), real_vectors(1j * vectors)], axis=1)
    elif vectors.dtype.kind == "c":
        raise InvalidInput("near_null", "complex numbers", "real numbers for a real matrix")
    return np.asarray(vectors / np.abs(vectors).max(axis=0))


def read_vectors(given: Any, what: str, rows: int) -> tuple[NDArray[Any], bool]:
    """Check right-hand sides or initial guesses.

    Args:
        given: shape (rows,) or (rows, k); sparse ones are welcome.
        what: their name, for messages.
        rows: of the user's matrix.

    Returns:
        Columns in FP64, real or complex, shape (rows, k), and whether one vector was given as such.

    Raises:
        InvalidInput: the shape or the numbers are wrong.
    """
    allowed = f"numbers, shape ({rows},) or ({rows}, k)"
    array = given.toarray() if sp.issparse(given) else np.asarray(given)
    if array.ndim not in (1, 2) or array.shape[0] != rows or 0 in array.shape:
        raise InvalidInput(what, f"shape {array.shape}", allowed)
    values = _numbers(array, what, allowed)
    return (values[:, None], True) if array.ndim == 1 else (values, False)

"""Diagonals that take the scales of rows and columns off."""

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.patches.equilibration import left, scan, slope, uneven, votes, words


def grid(n):
    line = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return sp.csr_matrix(sp.kron(line, sp.eye_array(n)) + sp.kron(sp.eye_array(n), line))


def found(matrix, first=0, end=None):
    """Look at rows `first` … `end` of a matrix, as one rank does."""
    matrix = sp.csr_matrix(matrix)
    matrix.sort_indices()
    transposed = sp.csr_matrix(matrix.T)
    transposed.sort_indices()
    moved = matrix.copy()
    diagonal = np.abs(matrix.diagonal())
    moved.data = matrix.data * diagonal[matrix.indices] / np.repeat(diagonal, np.diff(matrix.indptr))
    own, other, like = (m[first:end] for m in (matrix, transposed, moved))
    return scan((own.indptr, own.indices, own.data), (other.indptr, other.indices, other.data), like.data, first)


A = grid(12)
N = A.shape[0]
D = sp.diags_array(10.0 ** np.random.default_rng(0).uniform(-3, 3, N))


@pytest.mark.parametrize(("given", "t"), [(D @ A, 1.0), (A @ D, -1.0), (D @ A @ D, None), (A, None)])
def test_scales_of_rows_and_columns_are_told_apart(given, t):
    scales = found(given)
    got = slope(scales.sums, scales.ends)
    if t is None:
        assert got is None
        return
    assert got == pytest.approx(t, abs=1e-12)  # the diagonal of A is constant: rounding alone
    rows, columns = scales.diagonals(got)
    balanced = sp.diags_array(rows) @ given @ sp.diags_array(columns)
    np.testing.assert_allclose(balanced.toarray(), A.toarray() / 4.0, rtol=1e-12, atol=0)


def test_both_an_uneven_diagonal_and_scaled_rows():
    """K of 3-D cells of size h goes like h, divided by volumes like h⁻²: t = 3/2, between two random sizes."""
    rng = np.random.default_rng(2)
    h = 10.0 ** rng.uniform(-1, 1, N)
    k = sp.diags_array(np.sqrt(h)) @ A @ sp.diags_array(np.sqrt(h))
    scales = found(sp.diags_array(h**-3.0) @ k)
    t = slope(scales.sums, scales.ends)
    assert t == pytest.approx(1.5, abs=1e-10)
    rows, columns = scales.diagonals(t)
    balanced = (sp.diags_array(rows * h**-3.0) @ k @ sp.diags_array(columns)).toarray()
    np.testing.assert_allclose(balanced, balanced.T, rtol=1e-10, atol=0)


def test_convection_is_no_scale():
    upwind = sp.kron(sp.diags_array([-np.ones(11), np.ones(12)], offsets=[-1, 0]), sp.eye_array(12))
    for peclet in (0.1, 10.0, 1000.0):
        flow = sp.diags_array(np.random.default_rng(3).uniform(0.1, 10.0, N)) @ upwind  # of uneven speed
        scales = found(A + peclet * flow)
        assert slope(scales.sums, scales.ends) is None
        assert not scales.odd


def test_rows_of_several_ranks_add_up():
    whole = found(D @ A)
    parts = [found(D @ A, first, end) for first, end in ((0, 50), (50, 51), (51, N))]
    np.testing.assert_allclose(sum(part.sums for part in parts), whole.sums, rtol=1e-12)
    np.testing.assert_array_equal(np.concatenate([part.size for part in parts]), whole.size)


def test_singleton_rows_get_the_size_of_what_others_have_of_them():
    inside = np.ones(N)
    inside[:12] = 0.0  # the first line of the grid is set by u = b
    matrix = sp.csr_matrix(1e4 * sp.diags_array(inside) @ A + sp.diags_array(1.0 - inside))
    assert uneven((matrix.indptr, matrix.indices, matrix.data), matrix.diagonal(), 0) == (1.0, 4e4, True)
    scales = found(matrix)
    assert scales.odd
    assert slope(scales.sums, scales.ends) is None
    rows, columns = scales.diagonals(None)
    np.testing.assert_array_equal(columns, 1.0)
    np.testing.assert_array_equal(rows[:12], 1e4)
    np.testing.assert_array_equal(rows[12:], 1.0)
    assert not found(sp.csr_matrix(sp.diags_array(inside) @ A + sp.diags_array(1.0 - inside))).odd  # of like size
    assert "singleton rows" in words(None, True)


def test_near_null_vectors_go_with_the_rows_that_annihilate():
    """A of pure diffusion and units of the unknowns' own: S = A, whose constants are 1, not 1/C."""
    scales = found(A @ D)
    t = slope(scales.sums, scales.ends)
    rows, columns = scales.diagonals(t)
    s = sp.diags_array(rows) @ A @ D @ sp.diags_array(columns)
    ones, theirs = np.ones((N, 1)), 1.0 / columns[:, None]
    assert votes(left(s @ theirs, theirs), left(s @ ones, ones)) > 0.5 * N
    assert votes(left(s @ ones, ones), left(s @ ones, ones)) == 0

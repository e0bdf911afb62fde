"""Smoothed and truncated rows of the prolongation against dense arithmetic."""

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.patches.blocks import cut_blocks
from analogpde.patches.grow import LocalMatrix, Patches
from analogpde.patches.smooth import find_orders, smooth


def smoothed(p, s, weight, threshold):
    """P − weight S, truncated: of the identity every local solve returns its right-hand side, S in place of A P."""
    n = p.shape[0]
    each, ones = np.arange(n), np.ones(n, np.int32)
    local = LocalMatrix(np.arange(n + 1), each, np.ones(n), 0, n)
    patches = Patches(each[:, None], ones, ones, each, ones > 0)
    blocks = cut_blocks(local, patches, 0)
    rows = smooth(local, patches, blocks, find_orders(blocks), (np.arange(n + 1), each, np.ones(n)),
                  (s.indptr, s.indices, s.data), (p.indptr, p.indices, p.data), weight=weight, threshold=threshold,
                  near=np.ones((p.shape[1], 1)))
    return sp.csr_matrix(rows[::-1], shape=p.shape)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.9])
def test_against_dense(threshold):
    rng = np.random.default_rng(0)
    p = sp.random(60, 25, density=0.15, random_state=1, format="csr", data_rvs=rng.standard_normal)
    s = sp.random(60, 25, density=0.2, random_state=2, format="csr", data_rvs=rng.standard_normal)
    got = smoothed(p, s, 0.9, threshold)
    whole = (p - 0.9 / (1.0 + 1e-12) * s).toarray()  # the local solves add 1e-12 to the diagonal
    largest = np.abs(whole).max(axis=1, keepdims=True)
    kept = np.where(np.abs(whole) >= threshold * largest, whole, 0.0)
    sums = kept.sum(axis=1, keepdims=True)
    safe = np.abs(sums) > 1e-3 * largest
    expected = kept * np.where(safe, whole.sum(axis=1, keepdims=True) / np.where(safe, sums, 1.0), 1.0)
    np.testing.assert_allclose(got.toarray(), expected, rtol=1e-12, atol=1e-12)
    assert got.has_sorted_indices and not (got.data == 0).any()
    if threshold == 0.5:
        assert got.nnz < np.count_nonzero(whole)


def test_row_sums_are_kept():
    rng = np.random.default_rng(3)
    p = sp.random(200, 40, density=0.2, random_state=4, format="csr", data_rvs=lambda n: rng.uniform(0.1, 1.0, n))
    got = smoothed(p, sp.csr_matrix(p.shape), 0.9, 0.3)
    # sums of at most 40 positive numbers: 40 rounding errors
    np.testing.assert_allclose(got.sum(axis=1), p.sum(axis=1), rtol=40 * 2.0**-53)


def test_empty_rows_and_columns_of_any_order():
    p = sp.csr_matrix((3, 4))
    s = sp.csr_matrix((np.array([1.0, 2.0, -3.0]), np.array([3, 0, 2]), np.array([0, 0, 3, 3])), shape=(3, 4))
    got = smoothed(p, s, 2.0, 0.0)
    expected = [[0, 0, 0, 0], [-4, 0, 6, -2], [0, 0, 0, 0]]
    np.testing.assert_allclose(got.toarray(), expected, rtol=2e-12)  # 1e-12 is added to the diagonal
    assert got.has_sorted_indices
    assert smoothed(sp.csr_matrix((0, 4)), sp.csr_matrix((0, 4)), 1.0, 0.1).shape == (0, 4)

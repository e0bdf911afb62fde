"""Cores that are one stiff island, found in the unsmoothed Galerkin matrix."""

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.patches.grow import Patches
from analogpde.patches.prolong import find_bonds, islands

EACH = 5  # unknowns of a core


def line(couplings, ground):
    """A chain of cores of unknowns along a line: couplings between one core and the next, and to the ground."""
    n = EACH * (len(couplings) + 1)
    strength = np.ones(n - 1)
    strength[EACH - 1::EACH] = couplings
    stiffness = sp.diags_array([-strength, -strength], offsets=[-1, 1]).tocsr()
    return sp.csr_array(stiffness - sp.diags_array(np.asarray(stiffness.sum(axis=1)).ravel() - ground / EACH))


def nodes(matrix, near=None):
    """The coarse node that each core takes, and their unsmoothed Galerkin matrix."""
    n = matrix.shape[0]
    near = np.ones(n) if near is None else near
    p = sp.csr_array((near, np.repeat(np.arange(n // EACH), EACH), np.arange(n + 1)))
    rows = tuple((m.indptr.astype(np.int64), m.indices, m.data) for m in (matrix, p))
    index = np.arange(n).reshape(-1, EACH)
    cores = np.full(len(index), EACH, np.int32)
    patches = Patches(index, cores, cores, np.repeat(np.arange(len(index)), EACH), cores > 0)
    bonds = find_bonds(patches, np.arange(len(index)), rows[0], 0, rows[1], rows[1], len(index))
    return islands(bonds), (p.T @ matrix @ p).toarray(), bonds


def test_bonds_are_the_galerkin_matrix():
    near = np.random.default_rng(0).uniform(0.5, 1.5, 4 * EACH)
    _, galerkin, (energy, one, other, size) = nodes(line([2.0, 1.0, 3.0], 0.1), near)
    # sums of 15 products of three numbers, each at most 1.5² · 6: 17 roundings, here and in the product
    off = 2 * 17 * 2.0**-53 * 15 * 1.5**2 * 6
    np.testing.assert_allclose(energy, galerkin.diagonal(), rtol=0, atol=off)
    np.testing.assert_allclose(size, -galerkin[one, other], rtol=0, atol=off)
    assert set(zip(one.tolist(), other.tolist(), strict=True)) == {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)}


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("couplings", "expected"), [
    ([1.0, 1.0, 1.0, 1.0], [0, 1, 2, 3, 4]),  # nothing is stiff
    ([1.0, 1e6, 1.0, 1.0], [0, 1, 1, 3, 4]),
    ([1e6, 1.0, 1e6, 1e6], [0, 0, 2, 2, 2]),
    ([1.0, 1e6, 1e6, 1e6], [0, 1, 1, 1, 1]),
    ([1e6, 1e6, 1e6, 1e6], [0, 1, 2, 3, 4]),  # as large an island has cores of its own on the coarser level
    ([1.0, 10.0, 1.0, 1.0], [0, 1, 2, 3, 4]),  # 2.2 are left to the sum of 11.1 and 11.1: tiles can tell
])
def test_few_cores_of_a_stiff_island_share_a_node(couplings, expected, sign):
    assert nodes(sign * line(couplings, 0.1))[0].tolist() == expected


def test_what_is_in_the_null_space_stays_apart():
    assert nodes(line([1.0], 0.0))[0].tolist() == [0, 1]
    assert nodes(line([1e6, 1.0], 0.0))[0].tolist() == [0, 0, 2]


def test_one_way_couplings_are_no_bond():
    matrix = line([1e6, 1.0], 0.1).tolil()
    matrix[EACH, EACH - 1] = 0.0
    assert nodes(sp.csr_array(matrix))[0].tolist() == [0, 1, 2]

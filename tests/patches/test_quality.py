"""Cores that are slow inside: anisotropy that the entries of a matrix do not show."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.patches.grow import Patches, make_patches
from analogpde.patches.quality import SAMPLE, SLOW, mostly_slow, slow_cores


def turned(n: int, ratio: float, degrees: float) -> sp.csr_matrix:
    """−∇·K∇u by bilinear elements on n × n nodes, K with the eigenvalues 1 and `ratio`, the strong axis turned."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    k = np.array([[c, -s], [s, c]]) @ np.diag([1.0, ratio]) @ np.array([[c, s], [-s, c]])
    stiff, mass, slope = (sp.diags(w, (-1, 0, 1), shape=(n, n)) for w in (
        [-1.0, 2.0, -1.0], [1 / 6, 4 / 6, 1 / 6], [-0.5, 0.0, 0.5]))
    return sp.csr_matrix(k[0, 0] * sp.kron(mass, stiff) + k[1, 1] * sp.kron(stiff, mass)
                         - 2 * k[0, 1] * sp.kron(slope, slope))


def patches_of(tools, matrix, tile=128):
    local, _ = tools.seen(matrix)
    return local, make_patches(local, tile, core=None, overlap=2, threshold=0.25)


def second(block: np.ndarray, diagonal: np.ndarray) -> float:
    """The second eigenvalue of a core without its surroundings, from the definition."""
    off = 0.5 * (block + block.T)
    off -= np.diag(np.diag(off))
    scale = np.diag(1 / np.sqrt(diagonal))
    return float(np.linalg.eigvalsh(scale @ (off - np.diag(off.sum(axis=1))) @ scale)[1])


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("ratio", "degrees", "hidden"), [
    (1e-3, 30.0, True), (1e-3, 45.0, True), (1e-2, 22.5, True), (0.3, 30.0, False), (1.0, 0.0, False)])
def test_slow_cores_of_turned_anisotropy(tools, ratio, degrees, hidden, sign):
    local, patches = patches_of(tools, sp.csr_matrix(sign * turned(48, ratio, degrees)))
    count = slow_cores(local, patches)
    assert count[1] == SAMPLE
    assert mostly_slow(count) == hidden


def test_slow_cores_by_definition(tools):
    matrix = turned(30, 0.03, 30.0)  # with cores on both sides of the limit
    local, patches = patches_of(tools, matrix)
    large = np.flatnonzero(patches.core >= 40)
    assert 4 < len(large) <= SAMPLE  # all of them are looked at
    expected = 0
    for k in large:
        core = patches.index[k, : patches.core[k]]
        expected += second(matrix[core][:, core].toarray(), matrix.diagonal()[core]) < SLOW
    assert slow_cores(local, patches).tolist() == [expected, len(large)]


def test_slow_cores_do_not_depend_on_units(tools):
    matrix = turned(48, 0.03, 30.0)
    local, patches = patches_of(tools, matrix)
    big, _ = tools.seen((2.0**40 * matrix).tocsr())
    np.testing.assert_array_equal(slow_cores(big, patches), slow_cores(local, patches))


def test_cores_that_cannot_be_smaller_are_not_looked_at(tools):
    local, patches = patches_of(tools, turned(30, 1e-3, 30.0), tile=32)
    assert slow_cores(local, patches).tolist() == [0, 0]
    assert not mostly_slow(np.zeros(2, np.int64))


def test_an_unknown_that_hangs_on_others_outside_is_not_slow(tools):
    # the 65th unknown of the core has no coupling inside it: the eigenvalue 0 twice, and nothing else below the limit
    matrix = sp.block_diag([tools.plane(8, 8), tools.plane(8, 8)]).tolil()
    core = np.append(np.arange(64), 100)
    local, _ = tools.seen(matrix.tocsr())
    whole = np.setdiff1d(np.arange(128), core)
    label = np.ones(128, np.int64)
    label[core] = 0
    index = np.full((2, 65), -1, np.int64)
    index[0], index[1, :63] = core, whole
    sizes = np.array([65, 63], np.int32)
    patches = Patches(index, sizes, sizes, label, np.ones(2, bool))
    assert second(matrix.toarray()[np.ix_(core, core)], matrix.diagonal()[core]) == pytest.approx(0.0, abs=1e-12)
    assert slow_cores(local, patches).tolist() == [0, 2]

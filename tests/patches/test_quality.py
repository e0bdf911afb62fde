"""Cores that are slow inside: anisotropy that the entries of a matrix do not show."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.ndimage import gaussian_filter

from analogpde.patches.grow import Patches, make_patches, measure_couplings
from analogpde.patches.quality import FALLS_APART, SAMPLE, SLOW, TYPICAL, slow_cores, want_small_cores
from analogpde.patches.rules import judge_couplings


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
    local, patches = patches_of(tools, sp.csr_matrix(sign * turned(56, ratio, degrees)))
    count = slow_cores(local, patches)
    assert count[2] == SAMPLE
    assert want_small_cores(count, positive=True) == hidden


def rough(n: int, sigma: float, length: int) -> sp.csr_matrix:
    """−∇·k∇u on n × n nodes, five points, k = exp(σ g) harmonically averaged, g smoothed over so many nodes."""
    g = gaussian_filter(np.random.default_rng(3).standard_normal((n + 2, n + 2)), length, mode="wrap")
    k = np.exp(sigma * g / g.std())
    middle = k[1:-1, 1:-1]
    west, east, south, north = (2 / (1 / middle + 1 / k[rows, columns]) for rows, columns in (
        (slice(1, -1), slice(0, -2)), (slice(1, -1), slice(2, None)), (slice(0, -2), slice(1, -1)),
        (slice(2, None), slice(1, -1))))
    east[:, -1], north[-1] = -east[:, -1], -north[-1]  # coupled to the border: counted in the diagonal only
    right, up = np.where(east > 0, east, 0).ravel()[:-1], north[:-1].ravel()
    diagonal = (west + np.abs(east) + south + np.abs(north)).ravel()
    return sp.csr_matrix(sp.diags([diagonal, -right, -right, -up, -up], [0, 1, -1, n, -n]))


@pytest.mark.parametrize(("sigma", "length", "small"), [
    (3.0, 0, True), (3.0, 1, True), (1.0, 0, False), (3.0, 8, False), (0.0, 0, False)])
def test_coefficients_that_jump_from_node_to_node_want_small_cores(tools, sigma, length, small):
    matrix = rough(64, sigma, length) if sigma else tools.plane(64, 64)
    local, patches = patches_of(tools, matrix)
    uneven = judge_couplings(measure_couplings(local))[2]
    assert (uneven and want_small_cores(slow_cores(local, patches), positive=False)) == small


def test_small_cores_do_not_pay_where_patches_are_mostly_border():
    apart = np.array([SAMPLE, SAMPLE, SAMPLE, 43 * SAMPLE, 127 * SAMPLE])  # a cube's cores of 43 in patches of 127
    assert not want_small_cores(apart, positive=False)
    apart[3] = 77 * SAMPLE  # a square's
    assert want_small_cores(apart, positive=False)


def test_a_reaction_is_no_slowness(tools):
    # M + h S: the constant has a small eigenvalue, and a coarse unknown of its own
    matrix = sp.csr_matrix(tools.plane(48, 48) + 0.004 * sp.eye(48 * 48))
    local, patches = patches_of(tools, matrix)
    assert 8 * slow_cores(local, patches)[1] < SAMPLE


def test_slow_cores_by_definition(tools):
    matrix = turned(30, 0.03, 30.0)  # with cores on both sides of the limit
    local, patches = patches_of(tools, matrix)
    large = np.flatnonzero(patches.core >= 40)
    assert 4 < len(large) <= SAMPLE  # all of them are looked at
    apart = slow = 0
    for k in large:
        core = patches.index[k, : patches.core[k]]
        value = second(matrix[core][:, core].toarray(), matrix.diagonal()[core]) * len(core) / TYPICAL
        apart, slow = apart + (value < FALLS_APART), slow + (value < SLOW)
    assert slow_cores(local, patches).tolist() == [
        apart, slow, len(large), patches.core[large].sum(), patches.size[large].sum()]


def test_slow_cores_do_not_depend_on_units(tools):
    matrix = turned(48, 0.03, 30.0)
    local, patches = patches_of(tools, matrix)
    big, _ = tools.seen((2.0**40 * matrix).tocsr())
    np.testing.assert_array_equal(slow_cores(big, patches), slow_cores(local, patches))


def test_cores_that_cannot_be_smaller_are_not_looked_at(tools):
    local, patches = patches_of(tools, turned(30, 1e-3, 30.0), tile=32)
    assert slow_cores(local, patches).tolist() == [0, 0, 0, 0, 0]
    assert not any(want_small_cores(np.zeros(5, np.int64), positive) for positive in (True, False))


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
    assert slow_cores(local, patches)[:3].tolist() == [0, 0, 2]

"""Blocks cut from the matrix, vectors moved to patches and back, and the exact local solves of set-up."""

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.patches.blocks import cut_blocks, gather, scatter_cores
from analogpde.patches.grow import make_patches
from analogpde.patches.smooth import find_orders, smooth


def setting(tools, matrix, begin=0, end=None, tile=16):
    local, rows = tools.seen(matrix, begin, end)
    return local, rows, make_patches(local, tile, core=6, overlap=2, threshold=0.1)


def windows(matrix):
    n = matrix.shape[0]
    return [(0, n), (n // 3, 2 * n // 3), (n, n)]


def test_blocks_are_the_dense_submatrices(tools, matrix):
    for begin, end in windows(matrix):
        local, rows, patches = setting(tools, matrix, begin, end)
        blocks = cut_blocks(local, patches, first_tile=50)
        np.testing.assert_array_equal(blocks.sizes, patches.size)
        np.testing.assert_array_equal(blocks.tiles, 50 + np.arange(patches.count))
        assert blocks.size == patches.index.shape[1]
        for k, got in enumerate(blocks.dense()):
            n = patches.size[k]
            index = rows[patches.index[k, :n]]
            np.testing.assert_array_equal(got[:n, :n], matrix[index][:, index].toarray())
            np.testing.assert_array_equal(got[n:, n:], np.eye(len(got) - n))


def test_zeros_of_the_pattern_are_not_programmed_but_diagonals_are(tools):
    matrix = tools.dirichlet(8)
    matrix.data[np.flatnonzero(matrix.data)[0]] = 0.0  # a zero diagonal, kept for the message that names its row
    assert (matrix.data == 0).sum() > 30
    local, _, patches = setting(tools, matrix)
    blocks = cut_blocks(local, patches, 0)
    diagonal = blocks.row == blocks.col
    assert (blocks.value[~diagonal] != 0).all()
    assert np.count_nonzero(diagonal) == blocks.sizes.sum()
    assert np.count_nonzero(blocks.value[diagonal] == 0) == np.count_nonzero(patches.index == 0)


def test_selected_blocks_keep_their_entries_and_tiles(tools):
    local, _, patches = setting(tools, tools.plane(12, 12))
    blocks = cut_blocks(local, patches, 7)
    which = np.array([3, 0, 5])
    some = blocks.select(which)
    np.testing.assert_array_equal(some.dense(), blocks.dense()[which])
    np.testing.assert_array_equal(some.tiles, 7 + which)
    np.testing.assert_array_equal(some.owner, np.repeat(np.arange(3), np.diff(blocks.offsets)[which]))


@pytest.mark.parametrize("tile", [1, 6, 16])
def test_gather_and_scatter(tools, matrix, tile):
    for begin, end in windows(matrix):
        local, rows = tools.seen(matrix, begin, end)
        patches = make_patches(local, tile, core=None, overlap=2, threshold=0.1)
        vector = np.random.default_rng(0).normal(size=matrix.shape[0])
        work = np.full(patches.index.shape, np.nan)
        gather(patches.index, patches.size, vector[rows], work)
        inside = patches.index >= 0
        np.testing.assert_array_equal(work[inside], vector[rows][patches.index[inside]])
        assert np.isnan(work[~inside]).all()
        out = np.full(local.owned, np.nan)
        scatter_cores(patches.index, patches.core, local.first, work, out)
        np.testing.assert_array_equal(out, vector[begin:end])


def reference(matrix, rows, patches, right):
    """M_RAS R by dense solves: for each core the rows of the patch solution; global numbering, zero rows elsewhere."""
    out = np.zeros(right.shape)
    for k in range(patches.count):
        index = rows[patches.index[k, : patches.size[k]]]
        solution = np.linalg.solve(matrix[index][:, index].toarray(), right[index])
        out[index[: patches.core[k]]] = solution[: patches.core[k]]
    return out


def as_dense(solved, rows, columns):
    indptr, indices, values = solved
    return sp.csr_matrix((values, indices, indptr), shape=(rows, columns)).toarray()


def solves(local, patches, product, shift=0.0):
    """M_RAS A P: what smoothing adds to P = 0 with the weight −1."""
    nothing = np.zeros(local.owned + 1, np.int32), np.empty(0, np.int32), np.empty(0)
    each = np.arange(product.shape[0])
    identity = np.arange(product.shape[0] + 1), each, np.ones(len(each))
    blocks = cut_blocks(local, patches, 0)
    return smooth(local, patches, blocks, find_orders(blocks), identity,
                  (product.indptr, product.indices, product.data), nothing, weight=-1.0, threshold=0.0,
                  near=np.ones((product.shape[1], 1)), shift=shift)


def test_local_solves(tools, matrix):
    n = matrix.shape[0]
    _, _, coarse = setting(tools, matrix)
    p = sp.csr_matrix((np.ones(n), (np.arange(n), coarse.label)), shape=(n, coarse.count))
    product = (matrix @ p).tocsr()
    for begin, end in windows(matrix):
        local, rows, patches = setting(tools, matrix, begin, end)
        part = product[rows].tocsr()
        solved = solves(local, patches, part)
        assert len(solved[0]) == local.owned + 1
        expected = reference(matrix, rows, patches, product.toarray())[begin:end]
        # the regularisation of floating parts, 1e-12 of the diagonal, times κ ≤ 1e3 of these blocks
        np.testing.assert_allclose(as_dense(solved, local.owned, coarse.count), expected,
                                   rtol=0, atol=1e-9 * max(1.0, np.abs(expected).max(initial=0)))


def test_local_solves_of_any_columns(tools):
    # several entries of a row, explicit zeros, rows without entries, columns of every sign
    matrix = tools.upwind(9)
    local, rows, patches = setting(tools, matrix)
    right = sp.random(81, 11, density=0.15, random_state=3, format="csr")
    right.data[::5] = 0.0
    solved = solves(local, patches, right)
    expected = reference(matrix, rows, patches, right.toarray())
    np.testing.assert_allclose(as_dense(solved, 81, 11), expected, rtol=0, atol=1e-9)


def test_local_solves_with_the_tiles_shift(tools):
    matrix = tools.upwind(9)
    local, rows, patches = setting(tools, matrix)
    right = sp.random(81, 11, density=0.15, random_state=3, format="csr")
    solved = solves(local, patches, right, shift=0.3)
    shifted = (matrix + 0.3 * sp.diags(matrix.diagonal())).tocsr()
    expected = reference(shifted, rows, patches, right.toarray())
    # regularised by 1e-12 of the diagonal, times κ ≤ 1e3 of these blocks
    np.testing.assert_allclose(as_dense(solved, 81, 11), expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_local_solves_in_chunks(tools, monkeypatch):
    matrix = tools.plane(15, 15)
    local, _, patches = setting(tools, matrix)
    right = sp.random(225, 30, density=0.1, random_state=1, format="csr")
    at_once = as_dense(solves(local, patches, right), 225, 30)
    monkeypatch.setattr("analogpde.patches.smooth._CHUNK", 3)
    assert patches.count > 6
    # the same factors in other groups: the padding of a wider group adds zeros to sums
    np.testing.assert_array_equal(as_dense(solves(local, patches, right), 225, 30), at_once)


@pytest.mark.parametrize("core", [4, 9])
def test_local_solves_of_floating_parts(tools, core):
    # Pieces without any border, smaller than a tile: every patch holds a whole piece, and its block is singular.
    piece = tools.line(9)
    piece[0, 0] = piece[-1, -1] = 1.0
    matrix = sp.block_diag([piece] * 6).tocsr()
    local, patches = tools.patches(matrix, 32, core=core, overlap=9)
    assert (patches.size == 9).all()
    p = sp.csr_matrix((np.ones(54), (np.arange(54), patches.label)))
    product = (matrix @ p).tocsr()
    indptr, indices, values = solves(local, patches, product)
    # A P is in the range of the block: its solutions are the column of P up to a constant, the one that is
    # orthogonal to the diagonal, since a little of that is what makes the block regular (1e-12, rounding 1e-16)
    got = as_dense((indptr, indices, values), 54, p.shape[1])
    for k in range(patches.count):
        index, added = tools.members(patches, k)
        column = p[index + added].toarray()
        weight = matrix.diagonal()[index + added] / matrix.diagonal()[index + added].sum()
        np.testing.assert_allclose(got[index], (column - weight @ column)[: len(index)], rtol=0, atol=1e-3)


def test_local_solves_of_nothing(tools):
    matrix = tools.plane(5, 5)
    local, _, patches = setting(tools, matrix)
    indptr, indices, values = solves(local, patches, sp.csr_matrix((25, 0)))
    assert (indptr == 0).all()
    assert (len(indptr), len(indices), len(values)) == (26, 0, 0)


def test_local_solves_with_row_exchanges(tools):
    # a first pivot of 1e-9 of the entries beside it: without exchanges nine of sixteen digits would be lost
    matrix = sp.csr_matrix(np.array([[1e-9, 1.0, 0.0], [1.0, 1e-9, 1.0], [0.0, 1.0, 2.0]]))
    local, patches = tools.patches(matrix, 3, core=3)
    right = sp.csr_matrix(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    solved = as_dense(solves(local, patches, right), 3, 2)
    np.testing.assert_allclose(solved, np.linalg.solve(matrix.toarray(), right.toarray()), rtol=1e-11)  # κ < 10

"""Batched band factors against dense linear algebra."""

import numpy as np
import pytest

from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import LARGEST_GROWTH, Factors, factorise
from analogpde.tile.lanes import LANES


def assert_solves(matrices, blocks, dtype):
    factors = factorise(blocks, dtype)
    assert factors.regular.all()
    groups = factors.groups
    n = blocks.size
    rng = np.random.default_rng(1)
    right = rng.normal(size=(blocks.count, n))
    for transposed in (False, True):
        x = right.astype(dtype)
        groups.solve(x, transposed=transposed)
        for k, matrix in enumerate(matrices):
            m = len(matrix)
            a = matrix.T if transposed else matrix
            rest = a @ x[k, :m].astype(float) - right[k, :m]
            # backward error of elimination: rows of the band times growth times the unit roundoff of what is kept
            scale = np.abs(a).sum(axis=1).max() * np.abs(x[k, :m]).max() + np.abs(right[k, :m]).max()
            assert np.abs(rest).max() <= 3 * m * LARGEST_GROWTH * np.finfo(dtype).eps * scale
            np.testing.assert_array_equal(x[k, m:], right[k, m:].astype(dtype))  # beyond the block: left alone
    return factors


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_families(tools, family, dtype):
    matrix = tools.scaled(family)
    assert_solves([matrix], tools.pack([matrix]), dtype)


@pytest.mark.parametrize("count", [1, LANES - 1, LANES, LANES + 1, 3 * LANES + 2])
def test_blocks_of_all_sizes_in_one_batch(tools, count):
    kinds = [tools.grid(5, 6), tools.chain(17), np.array([[3.0]]), tools.random_spd(9, 20.0, 0), tools.grid(2, 3)]
    matrices = [kinds[k % len(kinds)] for k in range(count)]
    assert_solves(matrices, tools.pack(matrices), np.float64)


def test_a_block_that_falls_apart(tools):
    # two grids and a lone unknown that do not touch: the order starts again in each
    matrix = np.zeros((26, 26))
    matrix[:9, :9], matrix[9, 9], matrix[10:, 10:] = tools.grid(3, 3), 5.0, tools.grid(4, 4)
    shuffle = np.random.default_rng(0).permutation(26)
    matrix = matrix[shuffle][:, shuffle]
    factors = assert_solves([matrix], tools.pack([matrix]), np.float64)
    assert factors.width[0] <= 7  # two neighbouring diagonals of the larger grid have at most 7 unknowns


def test_the_band_of_a_grid_is_narrow(tools):
    # numbered along diagonals from a corner, the longest of which has 8 unknowns and its neighbours as many
    shuffle = np.random.default_rng(0).permutation(8 * 16)
    matrix = tools.grid(8, 16)[shuffle][:, shuffle]
    factors = factorise(tools.pack([matrix]))
    assert factors.width[0] <= 9


def test_pivots_are_exchanged_where_elimination_would_grow():
    rng = np.random.default_rng(2)
    hard = rng.normal(size=(12, 12))
    np.fill_diagonal(hard, 1e-9)  # Gauss without pivoting loses nine digits, wherever it starts
    zero = np.array([[0.0, 1.0], [1.0, 0.0]])
    easy = np.eye(12) + 0.1 * hard
    blocks = Blocks.from_dense(np.array([easy, hard, easy.T]))
    factors = assert_solves([easy, hard, easy.T], blocks, np.float64)
    np.testing.assert_array_equal(factors.width, [11, 11, 11])
    assert not factors.definite[1]
    assert (np.sort(factors.rows[1]) == np.arange(12)).all() and (factors.rows[1] != factors.cols[1]).any()
    pair = factorise(Blocks.from_dense(zero[None]), np.float64)
    x = np.array([[3.0, 4.0]])
    pair.groups.solve(x)
    np.testing.assert_array_equal(x, [[4.0, 3.0]])


def test_singular_blocks_are_told_and_do_not_disturb_the_others(tools):
    matrices = [tools.grid(3, 3), np.ones((4, 4)), tools.chain(5), np.zeros((2, 2)), tools.grid(2, 2)]
    factors = factorise(tools.pack(matrices), np.float64)
    np.testing.assert_array_equal(factors.regular, [True, False, True, False, True])
    whole = factors.groups.inverse()
    for k in (0, 2, 4):
        m = len(matrices[k])
        np.testing.assert_allclose(whole[k, :m, :m], np.linalg.inv(matrices[k]), rtol=0, atol=1e-13)
        assert not whole[k, m:].any() and not whole[k, :, m:].any()


def test_definite_means_positive_definite(tools):
    good = [tools.random_spd(15, 1e4, seed) for seed in range(6)]
    bad = [m - 1.01 * np.linalg.eigvalsh(m)[0] * np.eye(15) for m in good]
    factors = factorise(Blocks.from_dense(np.array(good + bad)), np.float64)
    assert factors.definite[:6].all() and not factors.definite[6:].any()


def test_selected_and_gathered_factors_are_the_same(tools):
    kinds = [tools.grid(3, 3), tools.chain(7), tools.random_spd(8, 9.0, 1), tools.grid(2, 4), tools.grid(3, 2)]
    matrices = kinds * 3
    whole = factorise(tools.pack(matrices))
    chosen = np.array([True, False, True, True, False] * 2 + [False] * 5)
    parts = [(np.flatnonzero(~chosen), whole.select(~chosen)), (np.flatnonzero(chosen), whole.select(chosen))]
    again = Factors.gather(parts, whole.sizes, 9)
    np.testing.assert_array_equal(again.groups.inverse(), whole.groups.inverse())
    assert whole.select(chosen).data.nbytes < whole.data.nbytes
    inverse = whole.groups.inverse()[chosen]
    np.testing.assert_array_equal(again.select(chosen).groups.inverse(), inverse)  # wherever the parts lie


def test_several_right_hand_sides(tools):
    matrices = [tools.grid(3, 3), tools.chain(4), tools.grid(2, 2)]
    groups = factorise(tools.pack(matrices), np.float64).groups
    columns = np.array([2, 0, 3])
    starts = np.array([0, 18, 18])
    right = np.random.default_rng(0).normal(size=18 + 12)
    x = right.copy()
    groups.solve_many(starts, columns, x)
    for k in (0, 2):
        m = len(matrices[k])
        part = slice(starts[k], starts[k] + columns[k] * m)
        expected = np.linalg.solve(matrices[k], right[part].reshape(-1, m).T).T
        np.testing.assert_allclose(x[part].reshape(-1, m), expected, rtol=1e-12)


def test_places_are_where_the_rows_went(tools):
    matrices = [tools.grid(3, 4), tools.chain(6)]
    blocks = tools.pack(matrices)
    groups = factorise(blocks).groups
    row, col = groups.places(blocks.offsets, blocks.row, blocks.col)
    owner = blocks.owner
    np.testing.assert_array_equal(groups.rows[owner, row], blocks.row)
    np.testing.assert_array_equal(groups.cols[owner, col], blocks.col)


def test_infinite_right_hand_sides_stay_in_their_tile(tools):
    groups = factorise(tools.pack([tools.grid(3, 3)] * 3)).groups
    x = np.ones((3, 9), np.float32)
    x[1, 4] = np.inf
    for _ in range(2):  # what is left in the workspace must not reach the next
        y = x.copy()
        groups.solve(y)
        groups.solve(y, transposed=True)
        assert np.isfinite(y[[0, 2]]).all() and not np.isfinite(y[1]).any()

"""Cores and patches: a partition that fits the tiles, grown along what is strong."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.patches.grow import SMALL_CORE, LocalMatrix, coupling_strength, make_patches, measure_couplings

TILES = [1, 2, 5, 16, 64]


def check(local, patches, tile, core=None):
    """Every owned unknown in exactly one core; patches hold their core first, no unknown twice, and fit the tile."""
    owned = np.arange(local.first, local.first + local.owned)
    width = patches.index.shape[1]
    inside = np.arange(width) < patches.size[:, None]
    assert ((patches.index >= 0) == inside).all()
    assert (patches.index[~inside] == -1).all()
    assert patches.index.max(initial=-1) < local.rows
    assert (patches.core >= 1).all()
    assert (patches.core <= patches.size).all()
    assert (patches.size <= tile).all()
    assert width == patches.size.max(initial=1)
    cores = patches.index[np.arange(width) < patches.core[:, None]]
    np.testing.assert_array_equal(np.sort(cores), owned)
    np.testing.assert_array_equal(patches.label[cores - local.first], np.repeat(np.arange(patches.count), patches.core))
    for k in range(patches.count):
        index = patches.index[k, : patches.size[k]]
        assert len(set(index.tolist())) == len(index)
        assert (np.diff(index[: patches.core[k]]) > 0).all()
    if patches.count:
        first = patches.index[:, 0]  # numbered in order of the first unknown, coupled cores before decoupled ones
        for which in (patches.coupled, ~patches.coupled):
            assert (np.diff(first[which]) > 0).all()
        assert (np.diff(patches.coupled.astype(int)) <= 0).all()


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("overlap", [0, 1, 2, 5])
def test_partition(tools, matrix, tile, overlap):
    local, patches = tools.patches(matrix, tile, overlap=overlap)
    check(local, patches, tile)


@pytest.mark.parametrize("core", [1, 3, 10, 64, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.9, 1.0])
def test_partition_with_given_cores(tools, matrix, core, threshold):
    local, patches = tools.patches(matrix, 64, core=core, threshold=threshold)
    check(local, patches, 64)
    # what merging may add to a core of the size asked for
    assert patches.core.max() <= min(64, max(core + 1, 1.3 * core))


@pytest.mark.parametrize("tile", [16, 64, 128])
def test_cores_are_filled(tools, tile):
    # the mean core is what the number of tiles costs: at least 0.8 of the size asked for on a regular mesh
    for matrix in (tools.plane(60, 60), tools.space(14)):
        _, patches = tools.patches(matrix, tile, core=tile // 2)
        assert patches.core.mean() > 0.8 * (tile // 2)


def test_small_leftovers_join_their_neighbours(tools):
    # greedy growth leaves gaps between full cores; fewer than one core in twenty stays below 0.4 of the size asked for
    for matrix in (tools.plane(60, 60), tools.plane(57, 83), tools.space(15)):
        _, patches = tools.patches(matrix, 64, core=30)
        assert np.mean(patches.core < 0.4 * 30) < 0.05


def test_automatic_core_leaves_room_for_a_layer(tools):
    # the share of the patch that is core: above a third in 2-D, less in 3-D where borders are larger
    _, flat = tools.patches(tools.plane(60, 60), 64)
    _, solid = tools.patches(tools.space(16), 64)
    assert 0.35 < flat.core.sum() / flat.size.sum() < 0.75
    assert solid.core.mean() < flat.core.mean()
    assert flat.size.mean() > 0.75 * 64


def test_no_overlap_is_cores_alone(tools, matrix):
    _, patches = tools.patches(matrix, 32, overlap=0)
    np.testing.assert_array_equal(patches.core, patches.size)


def test_an_added_layer_holds_all_strong_neighbours_that_fit(tools):
    matrix = tools.plane(30, 30)
    _, patches = tools.patches(matrix, 100, core=20, overlap=1)
    for k in range(patches.count):
        core, added = tools.members(patches, k)
        around = set(matrix[core].indices.tolist()) - set(core)
        assert set(added) == around  # 20 unknowns have fewer than 80 neighbours


def test_what_does_not_fit_is_the_weakest(tools):
    # a star: the hub's core takes the strongest arms first
    n = 30
    weights = np.linspace(0.2, 1.0, n - 1)
    matrix = sp.lil_matrix(np.diag(np.full(n, 10.0)))
    matrix[0, 1:], matrix[1:, 0] = -weights, -weights[:, None]
    _, patches = tools.patches(matrix.tocsr(), 8, core=1, overlap=1)
    hub = patches.label[0]
    _, added = tools.members(patches, hub)
    assert len(added) == 8 - patches.core[hub]
    assert min(added) >= n - len(added) - (patches.core[hub] - 1)


# ---- strength -------------------------------------------------------------------------------------------------------


def test_strength_by_definition(tools, matrix):
    local, _ = tools.seen(matrix)
    strength, largest = coupling_strength(local.indptr, local.indices, local.values)
    dense = np.abs(matrix.toarray())
    expected = np.maximum(dense, dense.T) / np.sqrt(np.outer(np.diag(dense), np.diag(dense)))
    expected[dense == 0] = 0.0  # not stored
    np.fill_diagonal(expected, 0.0)
    row = np.repeat(np.arange(local.rows), np.diff(local.indptr))
    np.testing.assert_allclose(strength, expected[row, local.indices], rtol=1e-6)  # kept in float32
    np.testing.assert_allclose(largest, expected.max(axis=1), rtol=1e-6)


def test_strength_does_not_depend_on_units(tools):
    matrix = tools.plane(15, 15)
    units = sp.diags(np.logspace(-9, 9, 225))
    _, plain = tools.patches(matrix, 32)
    _, scaled = tools.patches((units @ matrix @ units).tocsr(), 32)
    np.testing.assert_array_equal(plain.index, scaled.index)


@pytest.mark.parametrize(("x", "y"), [(1.0, 0.001), (0.001, 1.0), (1.0, 0.05)])
def test_patches_follow_the_strong_direction(tools, x, y):
    n = 40
    _, patches = tools.patches(tools.plane(n, n, x, y), 64, core=20, overlap=2)
    lengths = []
    for k in range(patches.count):
        core, added = tools.members(patches, k)
        i, j = np.divmod(core + added, n)
        across, along = (i, j) if x > y else (j, i)
        assert np.ptp(across) == 0 or len(core) < 20  # one line; leftovers of lines may be joined
        lengths.append(np.ptp(along) + 1)
    assert np.mean(lengths) > 15


def test_isotropic_patches_are_round(tools):
    n = 40
    _, patches = tools.patches(tools.plane(n, n), 64, core=25, overlap=0)
    boxes = [[np.ptp(part) + 1 for part in np.divmod(tools.members(patches, k)[0], n)] for k in range(patches.count)]
    assert np.median(np.max(boxes, axis=1)) <= 8  # a square would be 5, a line 25


# ---- decoupled unknowns ---------------------------------------------------------------------------------------------


def test_dirichlet_rows_are_packed_and_have_no_coarse_unknown(tools):
    n, tile = 16, 32
    local, patches = tools.patches(tools.dirichlet(n), tile, core=10)
    border = np.zeros((n, n), bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    np.testing.assert_array_equal(~patches.coupled[patches.label], border.ravel())
    packed = patches.core[~patches.coupled]
    assert len(packed) == -(-border.sum() // 10)  # as few as possible
    np.testing.assert_array_equal(patches.size[~patches.coupled], packed)  # nothing to reach out for
    for k in np.flatnonzero(patches.coupled):
        assert not border.ravel()[patches.index[k, : patches.size[k]]].any()
    check(local, patches, tile)


def test_only_decoupled_unknowns(tools):
    _, patches = tools.patches(sp.eye(70).tocsr(), 16)
    assert not patches.coupled.any()
    assert patches.count == -(-70 // int(patches.core.max()))


@pytest.mark.parametrize(("coupling", "coupled"), [(1e-11, False), (1e-9, True)])
def test_border_of_decoupled(tools, coupling, coupled):
    matrix = sp.csr_matrix([[1.0, -coupling], [-coupling, 1.0]])
    _, patches = tools.patches(matrix, 4)
    assert patches.coupled.tolist() == [coupled] * patches.count


# ---- ranks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_ranks_together_cover_every_unknown_once(tools, matrix, ranks, layers):
    n = matrix.shape[0]
    borders = np.linspace(0, n, ranks + 1).astype(int)  # the 1×1 matrix leaves ranks empty
    covered = np.zeros(n, int)
    for begin, end in pairwise(borders):
        local, rows = tools.seen(matrix, begin, end, layers)
        patches = make_patches(local, 16, core=None, overlap=layers, threshold=0.1)
        check(local, patches, 16)
        for k in range(patches.count):
            core, _ = tools.members(patches, k)
            covered[rows[core]] += 1
    np.testing.assert_array_equal(covered, 1)


def test_patches_reach_into_the_rows_of_other_ranks(tools):
    matrix = tools.plane(20, 20)
    local, rows = tools.seen(matrix, 100, 200, 2)
    patches = make_patches(local, 64, core=20, overlap=2, threshold=0.1)
    reached = rows[patches.index[patches.index >= 0]]
    assert (reached < 100).any()
    assert (reached >= 200).any()
    np.testing.assert_array_equal(rows[local.first:local.first + local.owned], np.arange(100, 200))


def test_empty_rank(tools):
    for matrix in (tools.plane(6, 6), sp.csr_matrix([[1.0]])):
        local, _ = tools.seen(matrix, 1, 1)
        assert local.owned == 0
        patches = make_patches(local, 16, core=None, overlap=2, threshold=0.1)
        assert (patches.count, patches.label.size, patches.coupled.size) == (0, 0, 0)
        assert patches.index.shape[0] == 0
    nothing = LocalMatrix(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0), 0, 0)
    assert make_patches(nothing, 16, core=5, overlap=2, threshold=0.1).count == 0


def test_growth_is_repeatable(tools, matrix):
    _, first = tools.patches(matrix, 24)
    _, again = tools.patches(matrix, 24)
    np.testing.assert_array_equal(first.index, again.index)
    np.testing.assert_array_equal(first.label, again.label)


def test_couplings_are_measured(tools):
    n = 5
    for left, right, expected in ((-1.0, -1.0, 0.0), (-2.0, 0.0, 2.0), (-1.5, -0.5, 1.0)):
        matrix = sp.diags([left, 2.0, right], [-1, 0, 1], shape=(n, n)).tocsr()
        matrix.eliminate_zeros()
        difference, total, positive, unlike, count = measure_couplings(tools.seen(matrix)[0])
        assert (positive, unlike, count) == (0.0, 0.0, matrix.nnz - n)
        # every pair of neighbours has the difference |left − right| seen from the ends that hold an entry
        ends = sum(value != 0.0 for value in (left, right))
        assert difference == pytest.approx(ends * (n - 1) * abs(left - right))
        assert difference / total == pytest.approx(expected * ends / 2)
        negative = measure_couplings(tools.seen((-matrix).tocsr())[0])  # signs count against the diagonal's
        assert negative.tolist() == [difference, total, 0.0, 0.0, count]
    central = sp.diags([-3.0, 2.0, 1.0], [-1, 0, 1], shape=(n, n)).tocsr()  # Péclet 2, central differences
    assert measure_couplings(tools.seen(central)[0])[1:3].tolist() == [4 * (n - 1), n - 1]
    # 1.4 and 1.43 times the one before are alike, 2.1 times and a third are not
    jumps = sp.diags([1.0, 1.4, 2.0, 4.2, 1.4]) + sp.diags([-0.1, -0.1], [-1, 1], shape=(n, n))
    assert measure_couplings(tools.seen(sp.csr_matrix(jumps))[0])[3:].tolist() == [4, 8]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_couplings_of_the_diagonals_sign_count_a_thousandth(tools, sign):
    matrix = sign * sp.csr_matrix(np.array([[4.0, -2.0, 3.0, 0.0], [-1.0, 4.0, 0.0, 1.0], [3.0, 0.0, 4.0, 0.0],
                                            [0.0, 1.0, 0.0, 4.0]]))
    matrix.eliminate_zeros()
    local, _ = tools.seen(matrix)
    plain, _ = coupling_strength(local.indptr, local.indices, local.values)
    signed, largest = coupling_strength(local.indptr, local.indices, local.values, True)
    both = [sp.csr_matrix((values, local.indices, local.indptr)).toarray() for values in (plain, signed)]
    expected = np.zeros((2, 4, 4))
    expected[:, [0, 1], [1, 0]] = 2 / 4
    expected[:, [0, 2], [2, 0]] = [[3 / 4], [3 / 4000]]
    expected[:, [1, 3], [3, 1]] = [[1 / 4], [1 / 4000]]
    np.testing.assert_allclose(both, expected, rtol=1e-6)  # kept in float32
    # unknowns that have no other couplings are still coupled, and follow those
    np.testing.assert_allclose(largest, [2 / 4, 2 / 4, 3 / 4000, 1 / 4000], rtol=1e-6)


def test_small_cores(tools):
    matrix = tools.plane(40, 40)
    local, _ = tools.seen(matrix)
    for tile, largest in ((128, SMALL_CORE), (32, 16), (64, SMALL_CORE), (100, 15)):
        given = {"core": 15 if tile == 100 else None, "overlap": 2, "threshold": 0.25}
        patches = make_patches(local, tile, small=True, **given)
        # 1.3 times the size asked for, when small neighbours are merged
        assert patches.core.max() <= max(largest + 1, int(1.3 * largest))
        assert patches.core.mean() >= 0.5 * largest
    assert make_patches(local, 128, core=None, overlap=2, threshold=0.25).core.mean() > 2 * SMALL_CORE


def test_left_overs_do_not_join_along_negligible_couplings(tools):
    # a checkerboard 1 : 10⁶ of 8 × 8 unknowns a cell, cells of 2 × 8 at two sides: too small for cores of 70
    n = 26
    number = np.arange(n) // 8
    k = np.where(np.add.outer(number, number) % 2 == 0, 1.0, 1e6).ravel()
    links = sp.triu(tools.plane(n, n), 1).tocoo()
    weight = 2 / (1 / k[links.row] + 1 / k[links.col])
    off = sp.coo_matrix((weight, (links.row, links.col)), shape=(n * n, n * n))
    off = off + off.T
    local, _ = tools.seen((sp.diags(np.asarray(off.sum(axis=1)).ravel() + 1e-3 * k) - off).tocsr())
    patches = make_patches(local, 128, core=None, overlap=2, threshold=0.25)
    for label in range(patches.count):
        assert len(np.unique(k[patches.label == label])) == 1
    # with couplings of one size they do
    local, _ = tools.seen(tools.plane(n, n))
    assert make_patches(local, 128, core=None, overlap=2, threshold=0.25).core.min() >= int(0.4 * 70)

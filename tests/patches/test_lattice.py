"""Boxes of a lattice as cores: which boxes, and that patches around them are translations of each other."""

import numpy as np
import pytest

from analogpde.patches.grow import coupling_strength
from analogpde.patches.lattice import (
    Lattice,
    box_of_line,
    box_patches,
    boxes,
    choose_widths,
    lines_of,
    nearest,
    parts_of,
    rounded,
    step_strengths,
    strong_axes,
)


def places(n, m):
    """Line of each unknown of an n × m grid in either direction."""
    return np.stack(np.divmod(np.arange(n * m), m), axis=1)


def cut(tools, matrix, place, widths, begin=0, end=None, tile=128):
    """Patches around boxes, in the numbering of the whole matrix."""
    local, rows = tools.seen(matrix, begin, end)
    strength, largest = coupling_strength(local.indptr, local.indices, local.values)
    here = place[rows]
    lattice = Lattice(here, place.min(axis=0), place.max(axis=0), 1.0)
    box = boxes(lattice, widths, local.first, local.owned)
    patches, of_core = box_patches(local, rounded(strength), rounded(largest), here, box, tile=tile, overlap=2,
                                   threshold=0.25, wanted=int(np.prod(widths)))
    return local, np.asarray(rows), patches, of_core


def test_coordinates_that_differ_by_rounding_are_one_line():
    exact = np.arange(11) / 10.0
    noisy = np.concatenate((exact, exact + 1e-15, exact - 1e-15))
    axis = lines_of(noisy, 1.0)
    assert len(axis) == 11
    np.testing.assert_array_equal(nearest(axis, noisy), np.tile(np.arange(11), 3))
    assert len(lines_of(np.empty(0), 1.0)) == 0
    np.testing.assert_array_equal(nearest(np.array([2.0]), np.array([2.0, 2.0])), [0, 0])


@pytest.mark.parametrize(("extents", "strong", "wanted", "most", "expected"), [
    ([64, 64], [True, True], 64, 70, [8, 8]),
    ([63, 63], [True, True], 70, 77, [9, 8]),  # 9 divides 63, 8 leaves more than half a box; 8 × 8 is further from 70
    ([64, 64], [True, False], 16, 20, [16, 1]),  # along strong couplings only
    ([4, 4], [True, True], 64, 70, [4, 4]),  # all of a small lattice
    ([32, 32, 32], [True] * 3, 64, 70, [4, 4, 4]),
    ([10], [True], 5, 5, [5]),
])
def test_widths(extents, strong, wanted, most, expected):
    widths = choose_widths(extents, strong, wanted, most)
    assert sorted(widths) == sorted(expected)
    assert np.prod(widths) <= most


@pytest.mark.parametrize(("extent", "width", "sizes"), [
    (24, 8, [8, 8, 8]), (22, 8, [8, 8, 6]), (20, 8, [8, 8, 4]), (19, 8, [8, 6, 5]), (5, 8, [5]), (9, 8, [5, 4])])
def test_the_end_of_a_line(extent, width, sizes):
    np.testing.assert_array_equal(box_of_line(extent, width), np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_every_unknown_is_in_one_core_and_inside_patches_are_translations(tools, rank):
    n = 32
    begin, end = (0, n * n) if rank is None else (rank * n * n // 2, (rank + 1) * n * n // 2)
    rng = np.random.default_rng(3)
    shuffle = rng.permutation(n * n)
    if rank is not None:  # a rank's unknowns stay its own
        shuffle = np.concatenate((rng.permutation(n * n // 2), n * n // 2 + rng.permutation(n * n // 2)))
    matrix, place = tools.plane(n, n).tocsr()[shuffle][:, shuffle], places(n, n)[shuffle]
    matrix.sort_indices()
    _, rows, patches, of_core = cut(tools, matrix, place, [8, 8], begin, end)
    cores = [rows[patches.index[k, : patches.core[k]]] for k in range(patches.count)]
    np.testing.assert_array_equal(np.sort(np.concatenate(cores)), np.arange(begin, end))
    for k, core in enumerate(cores):
        np.testing.assert_array_equal(place[core] // 8, np.tile(of_core[k], (64, 1)))
    # boxes of 8 lines: first, inside and last ones differ in either direction; seen from a rank one end is missing
    offsets = {tuple((place[rows[patches.index[k, : patches.size[k]]]] - 8 * of_core[k]).ravel())
               for k in range(patches.count)}
    assert patches.count == (16 if rank is None else 8)
    assert len(offsets) == (9 if rank is None else 6)


def test_decoupled_unknowns_have_cores_of_their_own(tools):
    matrix = tools.dirichlet(12)  # rows of a border that are coupled to nothing
    n = int(np.sqrt(matrix.shape[0]))
    _, _, patches, of_core = cut(tools, matrix, places(n, n), [6, 6])
    np.testing.assert_array_equal(patches.coupled, (of_core >= 0).all(axis=1))
    assert not patches.coupled.all()


def test_boxes_extend_along_strong_couplings(tools):
    n = 12
    for x, y, expected in ((1.0, 1.0, [True, True]), (1.0, 0.01, [True, False]), (0.01, 1.0, [False, True])):
        matrix, place = tools.plane(n, n, x, y), places(n, n)
        local, _ = tools.seen(matrix)
        strength, _ = coupling_strength(local.indptr, local.indices, local.values)
        found = strong_axes(step_strengths(local, rounded(strength), place), 2, 0.25)
        assert sorted(found) == sorted(expected)
        assert found.index(True) == next(d for d in range(2) if abs(matrix[0, [n, 1][d]]) == max(x, y))


def test_no_boxes_where_the_strongest_couplings_run_across(tools):
    n = 12
    matrix = tools.plane(n, n).tolil()
    for i in range(n - 1):
        for j in range(n - 1):
            a, b = i * n + j, (i + 1) * n + j + 1
            matrix[a, b] = matrix[b, a] = -3.0
    local, _ = tools.seen(matrix.tocsr())
    strength, _ = coupling_strength(local.indptr, local.indices, local.values)
    assert strong_axes(step_strengths(local, rounded(strength), places(n, n)), 2, 0.25) is None


def test_parts_count_what_weak_couplings_cut(tools):
    n = 8
    local, _ = tools.seen(tools.plane(n, n))
    label = places(n, n)[:, 0] // 4
    row = np.repeat(np.arange(n * n), np.diff(local.indptr))
    assert parts_of(local, np.ones(len(row), bool), label) == (2, 2)
    along = places(n, n)[row, 0] == places(n, n)[local.indices, 0]
    assert parts_of(local, along, label) == (n, 2)  # each line by itself
    assert parts_of(local, along, np.full(n * n, -1)) == (0, 0)


def test_rounded_strengths_make_ties():
    strength = np.array([0.25, 0.25 * (1 + 1e-7), 0.3, 0.0], np.float32)
    got = rounded(strength)
    assert got[0] == got[1] != got[2]
    np.testing.assert_allclose(got, strength, rtol=2.0**-11)

"""Rounding to levels: on the grid, within the cell's range, and never below the matrix that was wanted."""

import re
from itertools import pairwise

import numpy as np
import pytest

from analogpde.errors import InvalidInput, ProgrammingFailed
from analogpde.tile.programming import LARGEST_SHIFT, program, rounding_cost, scale_blocks

BITS = range(1, 9)
SLICES = (1, 2)
EPS = 2.0**-52


def digits(level, base, slices):
    """Digits of a level, top slice first."""
    return [level // base**s % base for s in reversed(range(slices))]


def check_levels(scaled, held, base, slices, k=0):
    """Assert that block k is held by levels that its cells have; return its levels, diagonal ones with the trim."""
    mine = scaled.owner == k
    diagonal = (scaled.row == scaled.col)[mine]
    levels = np.abs(held.intended[mine]) / held.unit[k]
    codes = np.where(diagonal, levels * base, levels)  # the trim cell of the diagonal counts in 1/base
    # a level times the unit is one rounding of FP64 away, and so is the division: 2 ulp of the largest code
    assert np.abs(codes - np.rint(codes)).max() <= 4 * EPS * codes.max()
    top = base**slices - 1
    assert np.rint(codes[~diagonal]).max(initial=0) <= top
    assert np.rint(codes[diagonal]).max() <= top * base + base - 1
    assert held.largest[k] == pytest.approx(held.unit[k] * base ** (slices - 1) * (base - 1), rel=1e-14)
    return np.rint(codes).astype(int), diagonal


@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("bits", BITS)
def test_levels_exist_and_signs_are_kept(tools, family, bits, slices):
    scaled, held = tools.programmed(tools.pack([family]), tools.chip(bits=bits, programming=0.02), slices=slices)
    check_levels(scaled, held, 2**bits, slices)
    on = held.intended != 0
    np.testing.assert_array_equal(np.sign(held.intended[on]), np.sign(scaled.value[on]))


@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("bits", BITS)
def test_entries_larger_than_the_diagonal_set_the_window(tools, bits, slices):
    matrix = np.eye(12) - 5 * np.eye(12, k=-1) + 0.1 * np.eye(12, k=3)
    scaled, held = tools.programmed(tools.pack([matrix]), tools.chip(bits=bits), slices=slices)
    check_levels(scaled, held, 2**bits, slices)
    assert held.intended.min() == pytest.approx(-5, abs=held.unit[0] / 2)


@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_no_smaller_than_the_block(tools, spd_family, bits, slices, shift):
    scaled, held = tools.programmed(tools.pack([spd_family]), tools.chip(bits=bits, programming=0.02), slices=slices,
                                    shift=shift)
    wanted, got = scaled.dense()[0], scaled.dense(held.intended)[0]
    np.testing.assert_array_equal(got, got.T)
    # Exactly: got − wanted − shift is diagonally dominant. In FP64: the diagonal is rounded up except for 1e-9 of a
    # trim step (2^−bits units); sums of n rounding errors and the eigenvalue solver are within 4 n eps ‖got‖.
    slack = 1e-9 * held.unit[0] / 2**bits + 4 * len(got) * EPS * np.linalg.norm(got, 2)
    assert np.linalg.eigvalsh(got - wanted).min() >= held.shift[0] - slack
    assert (held.shift[0] > 0) == (shift > 0)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_row_dominance_is_kept(tools, family, bits):
    # every family, unsymmetric ones too: what is dropped or added off the diagonal is added on it
    scaled, held = tools.programmed(tools.pack([family]), tools.chip(bits=bits))
    wanted, got = scaled.dense()[0], scaled.dense(held.intended)[0]

    def dominance(matrix):
        return 2 * np.diag(matrix) - np.abs(matrix).sum(axis=1)

    slack = 1e-9 * held.unit[0] / 2**bits + 4 * len(got) * EPS * np.abs(got).sum(axis=1).max()
    assert (dominance(got) - dominance(wanted)).min() >= -slack


@pytest.mark.parametrize("bits", BITS)
def test_nothing_is_wasted_on_the_diagonal(tools, family, bits):
    # The converse bound: no more than the row's errors, the shift, and one step of the trim cell.
    scaled, held = tools.programmed(tools.pack([family]), tools.chip(bits=bits, programming=0.01))
    wanted, got = scaled.dense()[0], scaled.dense(held.intended)[0]
    added = np.diag(got) - np.diag(wanted)
    off = np.abs(got - wanted) - np.diag(np.abs(added))
    assert (added - off.sum(axis=1) - held.shift[0]).max() <= held.unit[0] / 2**bits * (1 + 1e-9)


@pytest.mark.parametrize("chip_errors", [{}, {"programming": 0.02, "read": 0.01}])
def test_five_point_stencil_is_exact_at_three_bits(tools, chip_errors):
    scaled, held = tools.programmed(tools.pack([tools.grid(10, 10)]), tools.chip(bits=3, **chip_errors), shift=0.0)
    np.testing.assert_allclose(held.intended, scaled.value, rtol=0, atol=4 * EPS)  # 1, −1/4: four levels and one
    assert held.unit[0] == pytest.approx(0.25, rel=4 * EPS)


@pytest.mark.parametrize("chip_errors", [{}, {"programming": 0.02}])
def test_seven_point_stencil_is_exact_at_three_bits(tools, chip_errors):
    layer, n = tools.grid(3, 3), 9
    matrix = np.kron(np.eye(3), layer + 2 * np.eye(n)) - np.kron(np.eye(3, k=1) + np.eye(3, k=-1), np.eye(n))
    scaled, held = tools.programmed(tools.pack([matrix]), tools.chip(bits=3, **chip_errors), shift=0.0)
    np.testing.assert_allclose(held.intended, scaled.value, rtol=0, atol=4 * EPS)


# Cells of one entry, and how far an entry is from its level at most, as fractions of the largest off-diagonal entry.
FINENESS = [(1, 8), (2, 4), (4, 2), (3, 3), (8, 1), (4, 3), (3, 5), (4, 4), (8, 2), (8, 3), (16, 1), (16, 2), (6, 7)]


@pytest.mark.parametrize(("bits", "slices"), FINENESS)
def test_error_shrinks_with_the_number_of_levels(tools, spd_family, bits, slices):
    scaled, held = tools.programmed(tools.pack([spd_family]), tools.chip(bits=bits), slices=slices)
    check_levels(scaled, held, 2**bits, slices)
    off = scaled.row != scaled.col
    # At most half a unit. The window reaches the largest of the diagonal (1 and the errors of at most n entries) with
    # 2^(bits·slices) − 1 levels, and the unit search takes at most 2.5 times the smallest that fits (a factor 4 here).
    unit = 4.0 / (2 ** (bits * slices) - 1)
    rows = len(spd_family)
    if rows * unit < 1:
        assert np.abs(held.intended - scaled.value)[off].max(initial=0.0) <= unit / 2 + 4 * EPS


@pytest.mark.parametrize("errors", [{"programming": 0.02}, {"read": 0.02}, {"programming": 0.02, "read": 0.01}])
@pytest.mark.parametrize(("bits", "slices"), [(8, 1), (3, 3), (8, 2)])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_window_is_no_wider_than_needed(tools, errors, bits, slices, shift):
    # Errors are fractions of the largest conductance. One level for each entry of a stencil would round exactly, and
    # with 255 levels multiply the errors by 60; the diagonal must come near the top instead.
    _, held = tools.programmed(tools.pack([tools.grid(8, 8)]), tools.chip(bits=bits, **errors), slices=slices,
                               shift=shift)
    assert held.largest[0] < 1.3 * held.intended.max()


def test_ideal_cells_are_exact(tools, family):
    scaled, held = tools.programmed(tools.pack([family]), tools.chip(), shift=0.5)
    np.testing.assert_array_equal(held.intended, scaled.value)
    np.testing.assert_array_equal(held.blocks.value, scaled.value)
    assert held.shift[0] == 0
    assert not held.read_deviation.any()
    assert held.cells == np.count_nonzero(scaled.value)


def test_scaling_is_symmetric_and_gives_a_unit_diagonal(tools, family):
    scaled, scale, sign = scale_blocks(tools.pack([family]))
    dense = scaled.dense()[0]
    np.testing.assert_allclose(dense, tools.scaled(family), rtol=1e-14, atol=0)
    np.testing.assert_allclose(np.diag(dense), 1.0, rtol=4 * EPS)
    np.testing.assert_array_equal(scale[0], 1 / np.sqrt(np.abs(np.diag(family))))
    assert sign[0] == np.sign(family[0, 0])
    if (family == family.T).all():  # to the last bit: entries halfway between levels must fall the same way twice
        np.testing.assert_array_equal(dense, dense.T)


def test_negative_definite_blocks_are_held_negated(tools, spd_family):
    chip = tools.chip(bits=4, programming=0.01, read=0.01)
    _, plus = tools.programmed(tools.pack([spd_family]), chip)
    _, minus = tools.programmed(tools.pack([-spd_family]), chip)
    np.testing.assert_array_equal(plus.blocks.value, minus.blocks.value)
    assert (plus.sign[0], minus.sign[0]) == (1, -1)


def test_a_block_is_programmed_the_same_in_any_company(tools):
    chip = tools.chip(bits=3, programming=0.02, read=0.01)
    matrices = [tools.grid(4, 4), -tools.lognormal(5, 1.0), tools.random_spd(12, 9.0, 1), np.array([[3.0]])]
    together, held = tools.programmed(tools.pack(matrices, first_tile=40), chip, seed=3, name="heat_", event=2)
    for k, matrix in enumerate(matrices):
        _, alone = tools.programmed(tools.pack([matrix], first_tile=40 + k), chip, seed=3, name="heat_", event=2)
        mine = together.owner == k
        np.testing.assert_array_equal(held.blocks.value[mine], alone.blocks.value)
        np.testing.assert_array_equal(held.read_deviation[mine], alone.read_deviation)
        assert (held.unit[k], held.shift[k], held.largest[k]) == (alone.unit[0], alone.shift[0], alone.largest[0])


@pytest.mark.parametrize("bits", [1, 3, 4])
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_cells_that_are_on(tools, family, bits, slices):
    scaled, held = tools.programmed(tools.pack([family]), tools.chip(bits=bits, programming=0.02), slices=slices)
    base = 2**bits
    codes, diagonal = check_levels(scaled, held, base, slices)
    expected = sum(
        np.count_nonzero(digits(code // base if d else code, base, slices)) + (1 if d and code % base else 0)
        for code, d in zip(codes.tolist(), diagonal.tolist(), strict=True))
    assert held.cells == expected


# ---- the shift ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [None, 3, 8])
def test_shift_is_the_documented_one_and_grows_with_the_error(tools, family, bits):
    shifts = []
    for error in (None, 0.005, 0.01, 0.02, 0.05):
        scaled, held = tools.programmed(tools.pack([family]), tools.chip(bits=bits, programming=error), shift=0.7)
        cells_per_row = len(scaled.value) / len(family)
        rule = 0.7 * (error or 0.0) * held.largest[0] * np.sqrt(cells_per_row)
        assert held.shift[0] == pytest.approx(rule, rel=1e-12)
        shifts.append(held.shift[0])
    assert shifts[0] == 0
    assert all(after > before for before, after in pairwise(shifts))


@pytest.mark.parametrize("bits", [None, 1, 3, 4, 8])
@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("extra", [0.01, 0.3, 1.0, 2.5, 20.0])
def test_extra_shift_is_held_within_the_range_of_the_cells(tools, spd_family, bits, slices, extra):
    chip = tools.chip(bits=bits, programming=0.02)
    scaled, held = tools.programmed(tools.pack([spd_family]), chip, slices=slices, extra_shift=np.array([extra]))
    if bits is not None:
        check_levels(scaled, held, 2**bits, slices)
    got, wanted = scaled.dense(held.intended)[0], scaled.dense()[0]
    assert np.abs(got).max() <= held.largest[0] * 2 ** (bits or 0) / (2 ** (bits or 1) - 1) * (1 + 1e-12)
    slack = 1e-9 * held.unit[0] + 4 * len(got) * EPS * np.linalg.norm(got, 2)
    assert np.linalg.eigvalsh(got - wanted).min() >= extra + 0.5 * 0.02 * held.largest[0] - slack


@pytest.mark.parametrize("bits", [None, 3])
def test_a_shift_without_room_is_refused(tools, bits):
    blocks = tools.pack([np.eye(2), tools.grid(6, 6)], first_tile=30)
    per_row = np.sqrt(len(tools.pack([tools.grid(6, 6)]).value) / 36)
    chip = tools.chip(bits=bits, programming=0.1)
    fits, too_much = (part / (0.1 * per_row) for part in (LARGEST_SHIFT - 0.01, LARGEST_SHIFT + 0.01))
    _, held = tools.programmed(blocks, chip, shift=fits)
    assert np.isfinite(held.blocks.value).all()
    with pytest.raises(ProgrammingFailed, match=r"tile 31: the stability shift.*91%.*-pc_analog_shift"):
        tools.programmed(blocks, chip, shift=too_much)


@pytest.mark.parametrize(("bits", "slices"), [(16, 3), (8, 6), (12, 4)])
def test_more_bits_than_fp64_holds_are_refused(tools, bits, slices):
    with pytest.raises(InvalidInput, match=re.escape(f"slices: got {slices}; allowed: {53 // bits - 1} or fewer")):
        tools.programmed(tools.pack([tools.grid(3, 3)]), tools.chip(bits=bits), slices=slices)
    tools.programmed(tools.pack([tools.grid(3, 3)]), tools.chip(bits=bits), slices=53 // bits - 1)


# ---- what no tile can hold ------------------------------------------------------------------------------------------


def with_entry(tools, i, j, value):
    matrix = tools.grid(3, 3)
    matrix[i, j] = value
    return matrix


@pytest.mark.parametrize(("i", "j", "value", "said"), [
    (4, 4, 0.0, "tile 12: row 4 of the block has a zero diagonal"),
    (4, 4, -4.0, "tile 12: the diagonal of the block has both signs"),
    (0, 0, -4.0, "tile 12: the diagonal of the block has both signs"),
    (4, 4, np.nan, "tile 12: the block holds NaN or infinity"),
    (1, 0, np.nan, "tile 12: the block holds NaN or infinity"),
    (1, 0, -np.inf, "tile 12: the block holds NaN or infinity"),
])
def test_unusable_blocks_name_their_tile(tools, i, j, value, said):
    matrices = [tools.grid(2, 2), -tools.grid(3, 3), with_entry(tools, i, j, value), tools.grid(3, 3)]
    with pytest.raises(ProgrammingFailed, match=re.escape(said)):
        scale_blocks(tools.pack(matrices, first_tile=10))


def test_no_blocks_at_all(tools):
    blocks = tools.pack([tools.grid(3, 3)]).select(np.empty(0, np.int64))
    scaled, scale, sign = scale_blocks(blocks)
    held = program(scaled, scale, sign, tools.chip(bits=3, programming=0.02))
    assert (held.cells, held.blocks.count, len(held.blocks.value)) == (0, 0, 0)


def test_rounding_cost_is_what_rounding_adds_to_the_diagonals(tools, family):
    chip = tools.chip(bits=3, programming=0.02)
    scaled, held = tools.programmed(tools.pack([family]), chip)
    diagonal = scaled.row == scaled.col
    unit = held.unit[0]
    error = np.abs(np.abs(scaled.value) - unit * np.rint(np.abs(scaled.value) / unit))[~diagonal].sum()
    added, rows = rounding_cost(tools.pack([family]), chip)
    assert rows == len(family)
    # rounding the diagonal up adds at most a step of the trim cell, an eighth of a level; FP64 rounds the sum
    assert error - 1e-12 <= added <= error + rows * unit / 8 + 1e-12
    assert rounding_cost(tools.pack([family]), tools.chip()) == (0.0, rows)  # continuous cells


def test_a_stencil_on_the_levels_costs_a_trim_step_at_most(tools):
    # −1/4 of the diagonal is a level of 3-bit cells: unit 1/8 or 1/4 of it
    added, rows = rounding_cost(tools.pack([tools.grid(6, 6)]), tools.chip(bits=3, programming=0.0))
    assert added <= rows / 8 / 4

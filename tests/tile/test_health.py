"""Which tiles settle, and how strongly they amplify: against eigenvalues and singular values by brute force."""

import numpy as np
import pytest

from analogpde.errors import ProgrammingFailed
from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import factorise
from analogpde.tile.health import (
    POWER_ITERATION_MARGIN,
    _symmetric_part_definite,
    smallest_singular_value,
    stable,
)
from analogpde.tile.inv import ATTEMPTS, LARGEST_DELTA, program_bank


def verdicts(matrices):
    """What `stable` says of dense matrices, and the smallest real part of the eigenvalues of D⁻¹G."""
    blocks = Blocks.from_dense(matrices)
    total = np.abs(matrices).sum(axis=2, keepdims=True)
    truth = np.array([np.linalg.eigvals(m).real.min() for m in matrices / total])
    return stable(blocks, factorise(blocks)), truth


def assert_right(said, truth):
    # The verdict is reached in FP64 on float32 entries: within n u of the border (n ≤ 40) it may fall either way.
    clear = np.abs(truth) > 40 * 2.0**-24
    np.testing.assert_array_equal(said[clear], truth[clear] > 0)
    assert clear.mean() > 0.9


@pytest.mark.parametrize("n", [1, 2, 3, 8, 25])
def test_random_matrices(n):
    rng = np.random.default_rng(n)
    # the circle law puts eigenvalues within sqrt(n) of the centre: centres on both sides of that border
    centre = np.linspace(-0.5, 2.0, 120)[:, None, None] * np.sqrt(n)
    said, truth = verdicts(rng.normal(size=(120, n, n)) + centre * np.eye(n))
    assert_right(said, truth)
    assert 10 < np.count_nonzero(said) < 110


@pytest.mark.parametrize("n", [2, 3, 8, 25])
def test_matrices_of_one_off_diagonal_sign(n):
    # the border between M-matrices and unstable circuits: diagonal about the spectral radius of the rest
    rng = np.random.default_rng(n)
    rest = rng.uniform(size=(120, n, n)) * (1 - np.eye(n))
    radius = np.abs(np.linalg.eigvals(rest)).max(axis=1)
    factor = np.linspace(0.5, 1.5, 120)
    matrices = (factor * radius)[:, None, None] * np.eye(n) - rest
    said, truth = verdicts(matrices)
    assert_right(said, truth)
    np.testing.assert_array_equal(said[np.abs(factor - 1) > 1e-3], factor[np.abs(factor - 1) > 1e-3] > 1)


def test_symmetric_matrices_about_the_border(tools):
    base = np.array([tools.random_spd(20, 50.0, seed) for seed in range(60)])
    lowest = np.linspace(-2.0, 1.0, 60)
    said, truth = verdicts(base - (1 + lowest)[:, None, None] * np.eye(20))
    assert_right(said, truth)
    np.testing.assert_array_equal(said, lowest < 0)  # by inertia, D or no D


def test_row_conductance_decides_not_the_matrix_alone():
    # All eigenvalues of G in the right half plane, one of D⁻¹G in the left: rows of very different total conductance.
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(20000, 3, 3)) * np.exp(rng.normal(size=(20000, 3, 1)))
    good = np.linalg.eigvals(candidates).real.min(axis=1) > 0.05
    scaled = candidates / np.abs(candidates).sum(axis=2, keepdims=True)
    traps = candidates[good & (np.linalg.eigvals(scaled).real.min(axis=1) < -0.02)]
    assert len(traps) > 10
    said, _ = verdicts(traps)
    assert not said.any()


def test_pde_blocks_are_stable_and_their_shifted_images_are_judged_right(tools, family):
    matrix = tools.scaled(family)
    n = len(matrix)
    lowest = np.linalg.eigvals(matrix).real.min()
    shifts = lowest * np.array([0.0, 0.5, 0.9, 1.1, 1.5, 3.0])
    said, truth = verdicts(matrix - shifts[:, None, None] * np.eye(n))
    assert said[0]
    assert_right(said, truth)


def test_rounding_to_nearest_alone_is_unstable_and_seen(tools):
    # numerics: the chain 2, −1 rounded so that the diagonal loses: λ_min = 2·0.99 − 2 cos(π/(n+1)) < 0 for n = 40
    matrix = tools.chain(40)
    np.fill_diagonal(matrix, 2 * 0.99)
    said, truth = verdicts(matrix[None])
    assert truth[0] < 0
    assert not said[0]


def test_padding_does_not_hide_or_make_an_unstable_tile(tools):
    bad = tools.grid(3, 3) - 2.5 * np.eye(9)
    assert np.linalg.eigvalsh(bad)[0] < 0
    blocks = tools.pack([tools.grid(5, 5), bad, tools.grid(2, 2), -np.eye(1), np.eye(1)])
    np.testing.assert_array_equal(stable(blocks, factorise(blocks)), [True, False, True, False, True])


def test_the_certificate_of_an_m_matrix_is_checked_not_believed(tools):
    # whatever is handed over as the factors: an unstable matrix with entries of one sign is not accepted for them
    bad = (tools.chain(20) - 0.5 * np.eye(20))[None]
    others = factorise(Blocks.from_dense(tools.chain(20)[None]))  # their solution for ones is positive
    assert not stable(Blocks.from_dense(bad), others)[0]


@pytest.mark.parametrize("bad", [[], [0], [12], [5, 6, 7], list(range(13))])
@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_definite_symmetric_parts(tools, bad, skew):
    matrices = np.array([tools.random_spd(7, 10.0, seed) for seed in range(13)])
    matrices[bad] -= 1.5 * np.eye(7)
    turn = np.triu(np.full((7, 7), skew), 1)
    blocks = Blocks.from_dense(matrices + turn - turn.T)
    np.testing.assert_array_equal(np.flatnonzero(~_symmetric_part_definite(blocks)), bad)


# ---- amplification --------------------------------------------------------------------------------------------------


def ratios(matrices):
    estimate = smallest_singular_value(factorise(Blocks.from_dense(matrices)))
    return estimate * np.linalg.norm(np.linalg.inv(matrices), 2, axis=(1, 2))


def assert_within_margin(ratio):
    # from above, up to the float32 of the factors: κ√n u < 1000 · 10 u
    assert ratio.min() > 1 - 1e4 * 2.0**-24
    assert ratio.max() <= POWER_ITERATION_MARGIN


def test_smallest_singular_value_of_pde_blocks(tools, family):
    assert_within_margin(ratios(tools.scaled(family)[None]))


@pytest.mark.parametrize("n", [3, 16, 64, 100])
@pytest.mark.parametrize("condition", [10.0, 100.0, 1000.0])
def test_smallest_singular_value_of_random_blocks(tools, n, condition):
    # scaled to a unit diagonal, as every tile is
    seeds = range(max(4, 400 // n))
    assert_within_margin(ratios(np.array([tools.scaled(tools.random_spd(n, condition, seed)) for seed in seeds])))


def test_smallest_singular_value_where_one_start_fails():
    # the slow mode is orthogonal to a constant, or sits on one line, or on half of the lines
    modes = {"alternating": (-1.0) ** np.arange(64), "one line": np.eye(64)[20], "half": np.repeat([1.0, -1.0], 32)}
    for mode in modes.values():
        q = mode / np.linalg.norm(mode)
        assert_within_margin(ratios((np.eye(64) - 0.9 * np.outer(q, q))[None]))


def test_no_tiles_and_empty_tiles():
    assert smallest_singular_value(factorise(Blocks.from_dense(np.empty((0, 4, 4))))).shape == (0,)
    np.testing.assert_array_equal(smallest_singular_value(factorise(Blocks.from_dense(np.empty((2, 0, 0))))), [1, 1])


# ---- programming again ----------------------------------------------------------------------------------------------


def held_matrices(bank):
    return np.linalg.inv(bank.factors.inverse().astype(np.float64))


def test_unstable_tiles_are_programmed_again_with_a_shift_and_counted(tools):
    # 1 % error without any shift on a block with λ_min = 0.001: some draws are indefinite, most are not
    chip = tools.chip(bits=8, programming=0.01)
    matrix, count = tools.chain(64), 60
    bank = program_bank(tools.pack([matrix] * count), chip, shift=0.0)
    ledger = bank.programmed
    assert 0 < ledger.tiles_reprogrammed < 3 * count
    assert ledger.tiles_programmed == count + ledger.tiles_reprogrammed
    once = program_bank(tools.pack([matrix]), tools.chip(bits=8), shift=0.0).programmed.cells_written
    # a trim cell more or less a row, from one shift to another
    assert abs(ledger.cells_written - ledger.tiles_programmed * once) <= 64 * ledger.tiles_programmed
    assert bank.shift > 0
    for matrix in held_matrices(bank):
        assert np.linalg.eigvals(matrix / np.abs(matrix).sum(axis=1, keepdims=True)).real.min() > 0


def test_only_the_unstable_tiles_change(tools):
    chip = tools.chip(bits=8, programming=0.01)
    blocks = tools.pack([tools.chain(64)] * 60)
    bank = program_bank(blocks, chip, shift=0.0)
    _, held = tools.programmed(blocks, chip, shift=0.0)
    dense = held.blocks.dense()
    low = np.array([np.linalg.eigvals(m / np.abs(m).sum(axis=1, keepdims=True)).real.min() for m in dense])
    changed = np.abs(held_matrices(bank) - dense).max(axis=(1, 2)) > 1e-3
    np.testing.assert_array_equal(changed, low < 0)
    # the second time with new errors and a shift of 0.01 (tiles that needed a third time are further off)
    extra = np.full(60, 0.01)
    _, second = tools.programmed(blocks, chip, shift=0.0, extra_shift=extra, event=1)
    close = np.abs(held_matrices(bank) - second.blocks.dense()).max(axis=(1, 2)) < 1e-3
    assert 0.3 * changed.sum() < np.count_nonzero(close & changed) <= bank.programmed.tiles_reprogrammed
    assert not close[~changed].any()


def test_the_shift_of_the_rule_spares_the_second_programming(tools):
    blocks = tools.pack([tools.chain(64)] * 60)
    chip = tools.chip(bits=8, programming=0.01)
    again = [program_bank(blocks, chip, shift=shift).programmed.tiles_reprogrammed for shift in (0.0, 0.25, 1.0)]
    assert again[0] > again[1] >= again[2] == 0


@pytest.mark.parametrize("chip_errors", [{}, {"bits": 8}, {"bits": 4, "programming": 0.01}, {"read": 0.01}])
def test_indefinite_blocks_are_refused_on_every_chip(tools, chip_errors):
    # λ_min = −1 of the scaled block is beyond every shift that is tried
    bad = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    blocks = tools.pack([tools.grid(3, 3), bad, tools.grid(2, 2), bad], first_tile=70)
    with pytest.raises(ProgrammingFailed, match=rf"tile 71: 2 tile\(s\) stay unstable after {ATTEMPTS} programmings"):
        program_bank(blocks, tools.chip(**chip_errors))


def test_exactly_singular_blocks_are_shifted(tools):
    matrix = tools.chain(9)
    matrix[0, 0] = matrix[-1, -1] = 1.0  # no border: constants are in the kernel
    bank = program_bank(tools.pack([matrix]), tools.chip())
    assert bank.programmed.tiles_reprogrammed >= 1
    assert np.linalg.eigvalsh(held_matrices(bank)[0])[0] > 0


def test_read_noise_that_could_upset_a_tile_asks_for_a_shift(tools):
    bank = program_bank(tools.pack([tools.chain(60)]), tools.chip(read=0.01))
    assert bank.programmed.tiles_reprogrammed >= 1
    assert bank.delta <= LARGEST_DELTA
    fullest = 3  # cells of an inner row
    held = held_matrices(bank)[0]
    true_delta = 2 * bank.deviation.max() * np.sqrt(fullest) * np.linalg.norm(np.linalg.inv(held), 2)
    # δ as tested is no smaller than the true one (the margin of the estimate is on the safe side), nor above by more
    assert true_delta * (1 - 1e-4) <= bank.delta <= true_delta * POWER_ITERATION_MARGIN * (1 + 1e-4)


def test_too_much_read_noise_is_refused(tools):
    with pytest.raises(ProgrammingFailed, match="tile 0"):
        program_bank(tools.pack([tools.grid(8, 8)]), tools.chip(bits=3, read=0.5))


def test_a_block_larger_than_a_tile_is_refused(tools):
    with pytest.raises(ProgrammingFailed, match="a block of 16 rows does not fit a tile of 15"):
        program_bank(tools.pack([tools.grid(4, 4)]), tools.chip(tile_size=15))

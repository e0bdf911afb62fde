"""The shot of a closed-loop tile: scaling, solving, converters, what it leaves alone and what it counts."""

import numpy as np
import pytest

from analogpde.cost import Ledger
from analogpde.tile.blocks import Blocks
from analogpde.tile.inv import program_bank


def right_hand_sides(bank, seed=0):
    return np.random.default_rng(seed).normal(size=(bank.count, bank.scale.shape[1]))


def shoot(bank, b, event=0):
    x = b.copy()
    bank.shoot(x, event)
    return x


def float32_bound(tools, matrix, b):
    """Bound of the error of D⁻¹x in 2-norm: Ĝ in float32, inverted (κ√n u), b in float32 and the product (√n u).

    Factors n of the worst case are taken as √n (rounding errors of random sign, Higham & Mary 2019), times 4.
    """
    scaled = tools.scaled(matrix)
    root = np.sqrt(np.abs(np.diag(matrix)))
    inverse = np.linalg.norm(np.linalg.inv(scaled), 2)
    kappa = inverse * np.linalg.norm(scaled, 2)
    return 4 * (kappa + 2) * np.sqrt(len(matrix)) * tools.unit_roundoff * inverse * np.linalg.norm(b / root)


def test_ideal_shot_solves(tools, family):
    bank = program_bank(tools.pack([family]), tools.chip())
    b = np.random.default_rng(1).normal(size=len(family)) * np.sqrt(np.abs(np.diag(family)))
    x = shoot(bank, b[None])[0]
    error = np.linalg.norm((x - np.linalg.solve(family, b)) * np.sqrt(np.abs(np.diag(family))))
    assert error <= float32_bound(tools, family, b)
    assert error > 0 or len(family) == 1  # in float32, not in FP64


def test_shot_solves_with_the_conductances_that_were_programmed(tools, family):
    chip = tools.chip(bits=4, programming=0.01)
    blocks = tools.pack([family], first_tile=3)
    bank = program_bank(blocks, chip, seed=2)
    _, held = tools.programmed(blocks, chip, seed=2)
    if bank.programmed.tiles_reprogrammed:
        pytest.skip("programmed again: other draws")
    root = np.sqrt(np.abs(np.diag(family)))
    matrix = held.blocks.dense()[0] * np.outer(root, root) * np.sign(family[0, 0])
    b = np.random.default_rng(1).normal(size=len(family)) * root
    error = np.linalg.norm((shoot(bank, b[None])[0] - np.linalg.solve(matrix, b)) * root)
    # Ĝ has a diagonal of a few units instead of one: the bound scales with it
    assert error <= float32_bound(tools, matrix, b) * np.diag(held.blocks.dense()[0]).max()


@pytest.mark.parametrize("errors", [{}, {"dac": 4, "adc": 4}, {"read": 0.01}, {"read": 0.01, "dac": 4, "adc": 6}])
@pytest.mark.parametrize("power", [-1000, -600, -200, -3, 5, 200, 900])
def test_size_of_the_right_hand_side_does_not_matter(tools, errors, power):
    bank = program_bank(tools.pack([tools.grid(5, 5), tools.chain(40)]), tools.chip(bits=4, programming=0.01, **errors))
    b = right_hand_sides(bank)
    np.testing.assert_array_equal(shoot(bank, np.ldexp(b, power)), np.ldexp(shoot(bank, b), power))


def test_a_zero_right_hand_side_gives_zero(tools):
    bank = program_bank(tools.pack([tools.grid(5, 5)]), tools.chip(bits=3, programming=0.02, read=0.01, dac=4, adc=4))
    np.testing.assert_array_equal(shoot(bank, np.zeros((1, 25))), np.zeros((1, 25)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("drawn", [False, True])
def test_not_a_number_comes_out_as_one_and_stays_on_its_tile(tools, bad, drawn):
    bank = program_bank(tools.pack([tools.grid(4, 4)] * 3), tools.chip(read=0.005, dac=6, adc=8))
    bank.drawn[:] = drawn
    b = right_hand_sides(bank)
    good = shoot(bank, b)
    b[1, 3] = bad
    x = shoot(bank, b)
    assert not np.isfinite(x[1]).any()
    np.testing.assert_array_equal(x[[0, 2]], good[[0, 2]])


# ---- converters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12])
def test_dac_rounds_to_its_own_largest_input(tools, bits):
    bank = program_bank(tools.pack([np.eye(50)] * 3), tools.chip(dac=bits))  # an identity shows its input
    b = right_hand_sides(bank)
    largest = np.abs(b).max(axis=1, keepdims=True)
    codes = 2 ** (bits - 1) - 1
    got = shoot(bank, b) / largest * codes
    # float32: half an ulp of b, which may turn a tie, and of the code
    np.testing.assert_allclose(got, np.rint(got), rtol=0, atol=4 * tools.unit_roundoff * codes)
    assert np.abs(got - b / largest * codes).max() <= 0.5 + 4 * tools.unit_roundoff * codes
    assert np.abs(got).max() == pytest.approx(codes, rel=4 * tools.unit_roundoff)


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
def test_adc_output_lies_on_the_grid_of_its_own_largest(tools, bits):
    family = [tools.grid(6, 6), tools.lognormal(6, 1.0), -tools.chain(20)]
    bank = program_bank(tools.pack(family), tools.chip(adc=bits))
    exact = program_bank(tools.pack(family), tools.chip())
    b = right_hand_sides(bank)
    codes = 2 ** (bits - 1) - 1
    for k, matrix in enumerate(family):
        n = len(matrix)
        volts = shoot(bank, b)[k, :n] / bank.scale[k, :n]
        truth = shoot(exact, b)[k, :n] / bank.scale[k, :n]
        step = np.abs(truth).max() / codes
        grid = volts / step
        np.testing.assert_allclose(grid, np.rint(grid), rtol=0, atol=4 * tools.unit_roundoff * codes)
        assert np.abs(grid).max() == pytest.approx(codes, rel=4 * tools.unit_roundoff)
        assert np.abs(volts - truth).max() <= step * (0.5 + 4 * tools.unit_roundoff * codes)


def test_adc_range_follows_the_lines_that_are_read(tools):
    matrix = tools.chain(30)
    kept = np.array([4], np.int32)
    bank = program_bank(tools.pack([matrix]), tools.chip(adc=4), kept=kept)
    exact = program_bank(tools.pack([matrix]), tools.chip())
    b = np.zeros((1, 30))
    b[0, -3] = 1.0  # large answers far from the lines that are read
    volts = shoot(bank, b)[0, :4] / bank.scale[0, :4]
    truth = shoot(exact, b)[0, :4] / bank.scale[0, :4]
    assert np.abs(volts - truth).max() <= np.abs(truth).max() / 7 * 0.5 * (1 + 1e-5)
    assert np.abs(volts).max() == pytest.approx(np.abs(truth).max(), rel=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_lines_that_are_not_read_keep_the_right_hand_side(tools, sign):
    matrices = [sign * tools.grid(4, 4), sign * tools.grid(3, 3)]
    bank = program_bank(tools.pack(matrices), tools.chip(), kept=np.array([5, 0], np.int32))
    full = program_bank(tools.pack(matrices), tools.chip())
    b = right_hand_sides(bank)
    x = shoot(bank, b)
    np.testing.assert_array_equal(x[0, :5], shoot(full, b)[0, :5])
    np.testing.assert_array_equal(x[0, 5:], b[0, 5:])
    np.testing.assert_array_equal(x[1], b[1])


# ---- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("errors", [{}, {"bits": 4, "programming": 0.01, "read": 0.002, "dac": 6, "adc": 8}])
def test_tiles_of_different_sizes_do_not_disturb_each_other(tools, errors):
    matrices = [tools.grid(5, 5), np.array([[3.0]]), -tools.lognormal(4, 1.0), tools.random_spd(30, 9.0, 1),
                tools.grid(2, 3)]
    bank = program_bank(tools.pack(matrices, first_tile=5), tools.chip(**errors), seed=4)
    b = right_hand_sides(bank)
    x = shoot(bank, b, event=3)
    for k, matrix in enumerate(matrices):
        n = len(matrix)
        alone = program_bank(tools.pack([matrix], first_tile=5 + k), tools.chip(**errors), seed=4)
        # the same circuit to the last bit, inverted in float32 in a batch of another width; at most one ADC code
        x_alone = shoot(alone, b[k:k + 1, :n], event=3)[0]
        bound = float32_bound(tools, matrix, b[k, :n]) * bank.scale[k, :n].max()
        step = np.abs(x_alone / alone.scale[0]).max() / 127 * alone.scale[0].max() if errors else 0.0
        assert np.abs(x[k, :n] - x_alone).max() <= 4 * bound + step
        np.testing.assert_array_equal(x[k, n:], b[k, n:])


@pytest.mark.parametrize("n", [0, 1, 4])
def test_empty_bank(tools, n):
    blocks = Blocks.from_dense(np.zeros((0, n, n)), first_tile=9)
    bank = program_bank(blocks, tools.chip(bits=3, programming=0.02, read=0.01, dac=4, adc=4))
    x = np.zeros((0, n))
    assert bank.shoot(x, 0) == Ledger()
    assert (bank.count, bank.lines, bank.programmed, bank.shift, bank.delta) == (0, 0, Ledger(), 0.0, 0.0)


@pytest.mark.parametrize("value", [4.0, -0.25, 1e-300, -1e300])
def test_one_by_one_tile(tools, value):
    bank = program_bank(tools.pack([np.array([[value]])]), tools.chip(bits=3))
    x = shoot(bank, np.array([[3.0]]))
    # the unit is chosen so that all seven levels and the trim cell hold the one entry exactly
    assert x[0, 0] == pytest.approx(3.0 / value, rel=4 * tools.unit_roundoff)


def test_chunks_of_a_large_bank(tools, monkeypatch):
    chip = tools.chip(bits=8, programming=0.01, read=0.0005)
    blocks = tools.pack([tools.chain(20)] * 11 + [tools.grid(3, 3)] * 6)
    at_once = program_bank(blocks, chip, shift=0.0)
    monkeypatch.setattr("analogpde.tile.inv._CHUNK_ENTRIES", 4 * 20 * 20)
    in_chunks = program_bank(blocks, chip, shift=0.0)
    np.testing.assert_array_equal(in_chunks.factors.inverse(), at_once.factors.inverse())
    for name in ("deviation", "drawn", "offsets", "shift", "delta", "programmed"):
        np.testing.assert_array_equal(getattr(in_chunks, name), getattr(at_once, name))


# ---- counts ---------------------------------------------------------------------------------------------------------


def test_counts_of_a_shot(tools):
    matrices = [tools.grid(4, 4), tools.grid(2, 3), np.eye(1)]
    bank = program_bank(tools.pack(matrices), tools.chip(), kept=np.array([7, 6, 0], np.int32))
    x = right_hand_sides(bank)
    ledger = bank.shoot(x, 0)
    assert tools.counts(ledger) == Ledger(inv_shots=3, dac_conversions=16 + 6 + 1, adc_conversions=7 + 6)
    assert (ledger.rounds, ledger.inv_products) == (1, 16 * 7 + 6 * 6)
    assert (bank.count, bank.lines) == (3, 23)


@pytest.mark.parametrize("driven", [None, 0.5, 3.0])
def test_the_load_of_the_amplifiers_follows_the_slowest_mode(tools, driven):
    """Row conductances D are |G| added up, and the input's, as large as the diagonal if the chip does not say. The
    estimate is 1/λ_min(D⁻¹G) from above: by the margin of the power iteration, 1.1, and by what rows at the border have
    less of D, 1.5 : 2.5 at most."""
    matrices = [tools.grid(8, 8), tools.grid(4, 4), np.eye(3)]
    chip = tools.chip()
    if driven:  # times a diagonal, which takes the largest conductance
        chip = chip.replace(input_conductance=driven * chip.cell.conductance_max * chip.cell.window)
    bank = program_bank(tools.pack(matrices), chip, shift=0.0)
    slow = []
    for matrix in matrices:
        g = tools.scaled(matrix)
        d = np.abs(g).sum(axis=1) + (driven or 1.0)
        slow.append(1.0 / np.linalg.eigvals(g / d[:, None]).real.min())
    assert (bank.slowness >= np.array(slow) * (1 - 1e-6)).all()
    assert (bank.slowness <= np.array(slow) * 1.1 * 2.5 / 1.5).all()
    ledger = bank.shoot(right_hand_sides(bank), 0)
    assert ledger.amplifier_settlings == pytest.approx(bank.slowness @ [64, 16, 3])
    assert ledger.round_settlings == bank.slowness[0]


def test_counts_of_programming(tools):
    # a 5-point stencil on exact levels: one cell an entry, diagonals (4 levels) too
    matrix = tools.grid(4, 4)
    bank = program_bank(tools.pack([matrix] * 3), tools.chip(bits=3))
    assert bank.programmed == Ledger(
        cells_written=3 * np.count_nonzero(matrix), tiles_programmed=3, write_pulses=3 * np.count_nonzero(matrix),
        pulses_in_turn=3 * 16)


def test_memory_is_counted(tools):
    bank = program_bank(tools.pack([tools.grid(4, 4)] * 3), tools.chip(read=0.001))
    entries = np.count_nonzero(tools.grid(4, 4)) * 3
    assert bank.nbytes == bank.factors.nbytes + entries * 8 + 3 * 16 * 8  # places of 16 bits, deviations of 32
    # a group of eight 4 × 4 grids; breadth first, two neighbouring diagonals have at most 7 unknowns
    assert bank.factors.data.nbytes <= 8 * 16 * (2 * 7 + 1) * 4


@pytest.mark.parametrize("drawn", [False, True])
def test_memory_of_a_first_shot_is_counted(tools, drawn):
    bank = program_bank(tools.pack([tools.grid(4, 4)] * 3), tools.chip(read=0.001))
    bank.drawn[:] = drawn
    entries, before = np.count_nonzero(tools.grid(4, 4)) * 3, bank.nbytes
    bank.shoot(right_hand_sides(bank), 0)
    # drawn: value, deviation, place, draw of each cell, and the diagonals of five lanes without a tile; else where
    # cells are and their variances
    cells = (entries + 5 * 16) * (4 + 4 + 2 + 4) if drawn else entries * (2 + 2 + 4)
    assert cells <= bank.nbytes - before <= cells + 2 * 8 * (16 + 2)  # where each row's begin


def test_memory_of_stored_inverses_is_counted(tools):
    bank = program_bank(tools.pack([tools.random_spd(16, 3.0, 0)] * 3), tools.chip(read=0.001))
    before = bank.nbytes
    for transposed, held in ((False, 1), (False, 1), (True, 2)):
        bank.shoot(right_hand_sides(bank), 0, transposed=transposed)
        assert bank.nbytes == before + held * 2 * 3 * 16 * 16 * 4  # inverses and variances

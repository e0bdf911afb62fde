"""What cells hold: errors by level, windows, leaks, bias columns, age and faults, each against its own formula."""

from dataclasses import replace

import numpy as np
import pytest

from analogpde.chip import Cell, Chip, Drift, Faults
from analogpde.errors import InvalidInput, ProgrammingFailed
from analogpde.tile.blocks import Blocks
from analogpde.tile.cells import digits_of
from analogpde.tile.inv import program_bank
from analogpde.tile.mvm_bank import Entries, program_mvm
from analogpde.tile.programming import program, scale_blocks

TILES = 150


def matrix(n=12, seed=2, largest=None):
    """A dense M-matrix; or, with large entries, no such thing, but cells at every level."""
    a = -np.random.default_rng(seed).random((n, n)) * (largest or 1 / n)
    a = 0.5 * (a + a.T)
    np.fill_diagonal(a, 1.0)
    return a


def hold(chip, a=None, count=TILES, **how):
    """Scaled blocks, `count` times the same one, and what programming made of them."""
    a = matrix() if a is None else a
    blocks = Blocks.from_dense(np.repeat(a[None], count, 0))
    scaled, scale, sign = scale_blocks(blocks)
    if chip.cell.crowded:
        scaled, _ = scaled.full()
    return scaled, program(scaled, scale, sign, chip, shift=0.0, **how)


def assert_variance(sample, expected):
    """Squares of normal numbers over their variance have the mean 1, with the standard error sqrt(2/N)."""
    assert np.mean(sample**2 / expected) == pytest.approx(1.0, abs=5 * np.sqrt(2 / len(sample)))


def parts(scaled, held):
    """Error and level of the off-diagonal entries that are on; the diagonal has a trim cell beside."""
    chosen = (scaled.row != scaled.col) & (held.intended != 0)
    unit = held.unit[scaled.owner]
    level = np.rint(np.abs(held.intended) / unit).astype(np.int64)
    return (held.blocks.value - held.intended)[chosen], level[chosen], unit[chosen]


@pytest.mark.parametrize(("model", "window"), [("wan2022", 40e-6), ("joshi2020", 25e-6), ("cmo_hfox", 80e-6)])
def test_errors_follow_the_level(model, window):
    scaled, held = hold(Chip("x", cell=Cell(bits=3, programming_model=model, conductance_max=window)),
                        matrix(4, largest=2.0))
    error, level, unit = parts(scaled, held)
    assert len(np.unique(level)) >= 3
    microsiemens = window * 1e6
    sigma = {
        "wan2022": lambda g: 1.053 + 0.2374 * g - 1.167e-2 * g**2 + 1.536e-4 * g**3,
        "joshi2020": lambda g: 0.263 + 1.965 * (g / 25) - 1.173 * (g / 25) ** 2,
        "cmo_hfox": lambda g: 0.0112185391 + 0.01129027418 * g,
    }[model]
    for one in np.unique(level):
        here = level == one
        # a level is `unit`, and microsiemens/7 of conductance
        assert_variance(error[here], (sigma(one / 7 * microsiemens) * 7 / microsiemens * unit[here]) ** 2)


def test_slices_add_up():
    scaled, held = hold(Chip("x", cell=Cell(bits=2, slices=2, programming_error=0.01)), matrix(4, largest=2.0))
    error, level, unit = parts(scaled, held)
    digits = digits_of(level, 4, 2)
    top = 12.0 * unit  # a fully-on cell of the top slice: digit 3, weight 4
    assert_variance(error, 0.01**2 * top**2 * ((digits[:, 0] > 0) + (digits[:, 1] > 0) / 16))


def test_own_polynomial_and_window():
    cell = Cell(bits=2, programming_model="polynomial", programming_polynomial=(0.01, 0.02), conductance_max=20e-6,
                conductance_min=5e-6, read_noise=0.01)
    scaled, held = hold(Chip("x", cell=cell), matrix(4, largest=2.0))
    error, level, unit = parts(scaled, held)
    # levels at 5, 10, 15 and 20 µS; the other cell of the pair stays at 5; 5 µS a level, a quarter of the largest
    sigma, lowest = 0.01 + 0.02 * (0.25 + 0.25 * level), 0.01 + 0.02 * 0.25
    assert_variance(error, (sigma**2 + lowest**2) * (4 * unit) ** 2)
    chosen = (scaled.row != scaled.col) & (held.intended != 0)
    np.testing.assert_allclose(held.read_deviation[chosen], np.sqrt(2) * 0.01 * 4 * unit)


def test_leaks_cancel_and_their_spread_does_not():
    plain = Chip("x", cell=Cell(bits=4, programming_error=0.01))
    leaky = replace(plain, cell=replace(plain.cell, off_conductance=1e-6))
    np.testing.assert_array_equal(hold(leaky)[1].blocks.value, hold(plain)[1].blocks.value)
    noisy = Chip("x", cell=Cell(bits=4, off_conductance=1e-6, off_error=0.02, off_read_noise=0.005))
    diagonal = np.diag(np.arange(1.0, 9.0))
    scaled, held = hold(noisy, diagonal)
    zero = scaled.row != scaled.col
    assert len(scaled.value) == TILES * 64
    assert (held.intended[zero] == 0).all()
    largest = held.largest[scaled.owner[zero]]
    assert_variance(held.blocks.value[zero], 2 * 0.02**2 * largest**2)
    np.testing.assert_allclose(held.read_deviation[zero], np.sqrt(2) * 0.005 * largest)


def test_bias_column():
    exact = Chip("x", cell=Cell(bits=5, sign_mapping="bias"))
    scaled, held = hold(exact, count=2)
    np.testing.assert_array_equal(held.blocks.value, held.intended)
    levels = np.rint(held.intended / held.unit[scaled.owner])
    assert levels.max() - levels.min() <= 31  # all of it in the window
    assert held.cells >= 2 * (144 + 12)
    # of a row, the bias column's error is shared: that of one cell, the deviation of any other
    scaled, held = hold(Chip("x", cell=Cell(bits=5, sign_mapping="bias", programming_error=0.01)), np.eye(12))
    off = scaled.row != scaled.col
    error = (held.blocks.value / held.largest[scaled.owner])[off].reshape(TILES * 12, 11)
    # variance of a row's mean: of the shared error, and an eleventh of the others' own
    assert_variance(error.mean(axis=1), (0.01**2 * (1 + 1 / 11)) * np.ones(len(error)))


def test_a_bias_column_needs_two_bits():
    with pytest.raises(InvalidInput, match="use two slices"):
        hold(Chip("x", cell=Cell(bits=1, sign_mapping="bias")))
    hold(Chip("x", cell=Cell(bits=1, sign_mapping="bias")), slices=2)


@pytest.mark.parametrize("bits", [None, 4])
def test_phase_change_memory_drifts(bits):
    drift = Drift(start=20.0, exponent=0.05, spread=0.01, time=86400.0)
    scaled, held = hold(Chip("x", cell=Cell(bits=bits), drift=drift))
    on = (scaled.row != scaled.col) & (held.intended != 0)
    factor = (held.blocks.value / np.where(on, held.intended, 1.0))[on]
    folds = np.log(1 + 86400 / 20)
    # log-normal of unit mean: ln of it is normal with the mean −s²/2
    logarithm, spread = np.log(factor), 0.01 * folds
    assert logarithm.std() == pytest.approx(spread, rel=5 / np.sqrt(2 * len(factor)))
    assert logarithm.mean() == pytest.approx(-(spread**2) / 2, abs=5 * spread / np.sqrt(len(factor)))
    assert drift.decay == pytest.approx(np.exp(-0.05 * folds), rel=0.01)


def test_filaments_relax():
    drift = Drift(relaxation=0.002, relaxation_mean=-0.001, time=1e4)
    scaled, held = hold(Chip("x", cell=Cell(), drift=drift), matrix(4))
    on = scaled.row != scaled.col
    change = (np.abs(held.blocks.value) - np.abs(held.intended))[on] / held.largest[scaled.owner[on]]
    folds = np.log(1 + 1e4)
    assert change.mean() == pytest.approx(-0.001 * folds, abs=5 * 0.002 * folds / np.sqrt(len(change)))
    assert_variance(change + 0.001 * folds, np.full(len(change), (0.002 * folds) ** 2))


@pytest.mark.parametrize("time", [None, 0.0])
def test_without_time_nothing_drifts(time):
    fresh = hold(Chip("x", cell=Cell(bits=4, programming_error=0.01)))[1]
    same = hold(Chip("x", cell=Cell(bits=4, programming_error=0.01), drift=Drift(relaxation=0.01, time=time)))[1]
    np.testing.assert_array_equal(same.blocks.value, fresh.blocks.value)


def test_a_cell_stuck_at_its_largest_conductance_is_made_up_for():
    fine = hold(Chip("x", cell=Cell(bits=4)))[1]
    stuck = hold(Chip("x", cell=Cell(bits=4), faults=Faults(stuck_high=0.05)))[1]
    changed = np.count_nonzero(stuck.blocks.value != fine.blocks.value) / len(fine.blocks.value)
    assert 0 < changed < 4 * 0.05**2  # only where both cells of a pair are stuck, and on the diagonals that pay
    assert stuck.cells > fine.cells  # the other cell is on


@pytest.mark.parametrize("bits", [None, 3])
def test_what_stuck_cells_lose_goes_to_the_diagonal(bits):
    a = matrix()
    scaled, held = hold(Chip("x", cell=Cell(bits=bits), faults=Faults(stuck_low=0.04)), a)
    lost = (scaled.row != scaled.col) & (held.intended == 0) & (np.abs(scaled.value) > 0.08)
    count = np.count_nonzero((scaled.row != scaled.col) & (np.abs(scaled.value) > 0.08))  # above half a level
    assert np.count_nonzero(lost) == pytest.approx(0.04 * count, abs=5 * np.sqrt(0.04 * count))
    dense = scaled.dense(held.intended)
    difference = dense - a
    # Gershgorin: the symmetric part of what was changed is not negative, so that no tile loses stability
    smallest = np.linalg.eigvalsh(difference + difference.transpose(0, 2, 1))[:, 0]
    assert smallest.min() > -1e-12


def test_faults_stay_and_errors_do_not():
    chip = Chip("x", cell=Cell(bits=4, programming_error=0.01), faults=Faults(stuck_low=0.05))
    first, again = (hold(chip, event=event)[1] for event in (0, 1))
    np.testing.assert_array_equal(first.intended, again.intended)
    assert (first.blocks.value != again.blocks.value)[first.intended != 0].all()
    np.testing.assert_array_equal(hold(chip)[1].blocks.value, first.blocks.value)
    for other in (hold(chip, spare=np.ones(TILES, int))[1], hold(chip, seed=1)[1], hold(chip, name="b_")[1]):
        assert (first.intended != other.intended).any()


def test_dead_tiles_are_found_and_replaced():
    chip = Chip("x", cell=Cell(), faults=Faults(dead_tiles=0.2))
    a = matrix()
    blocks = Blocks.from_dense(np.repeat(a[None], TILES, 0))
    bank = program_bank(blocks, chip)
    # each try is dead with 0.2: 1.25 tries a tile, of variance 0.3125
    tries = bank.programmed.tiles_programmed
    assert tries == pytest.approx(1.25 * TILES, abs=5 * np.sqrt(0.3125 * TILES))
    assert bank.programmed.tiles_replaced == tries - TILES == bank.programmed.tiles_reprogrammed
    x = np.random.default_rng(0).normal(size=(TILES, 12))
    y = x @ a.T
    bank.shoot(y, 0)
    np.testing.assert_allclose(y, x, atol=12 * 2.0**-24 * np.linalg.cond(a) * np.abs(x).max())


def test_no_more_spares_than_there_are():
    blocks = Blocks.from_dense(np.repeat(matrix()[None], TILES, 0))
    rare = Faults(dead_tiles=0.02, spares=0)  # 3 of 150 on average; none with a chance of 0.98^150 = 0.05
    with pytest.raises(ProgrammingFailed, match="up to 0 spare tiles"):
        program_bank(blocks, Chip("x", cell=Cell(), faults=rare))
    one = program_bank(blocks, Chip("x", cell=Cell(), faults=replace(rare, spares=1))).programmed
    assert one.tiles_replaced == one.tiles_programmed - TILES > 0
    with pytest.raises(ProgrammingFailed, match="so are 0 spare ones"):
        arrays(Chip("x", cell=Cell(), faults=Faults(dead_tiles=0.3, spares=0)))


def test_blocks_are_placed_on_lines_that_work():
    chip = Chip("x", tile_size=32, cell=Cell(), faults=Faults(dead_rows=0.03, dead_columns=0.03))
    assert chip.lines == 26  # 32 − 1.89 − 3·1.33
    small, exact = matrix(26), matrix(32)
    assert program_bank(Blocks.from_dense(np.repeat(small[None], 50, 0)), chip).programmed.tiles_replaced == 0
    # 14 % of the tiles have all 32 lines: nor will 8 tries do
    with pytest.raises(ProgrammingFailed, match="up to 7 spare tiles in the place of each"):
        program_bank(Blocks.from_dense(np.repeat(exact[None], 50, 0)), chip)


def test_planned_lines_hold_on_nearly_every_tile():
    chip = Chip("x", tile_size=128, cell=Cell(), faults=Faults(dead_rows=0.02, stuck_low=0.01))
    bank = program_bank(Blocks.from_dense(np.repeat(np.eye(chip.lines)[None], 400, 0)), chip)
    assert bank.programmed.tiles_replaced <= 4  # one in a thousand is meant


def test_noise_of_leaks_counts_for_the_choice_of_draws():
    cell = Cell(bits=4, off_conductance=1e-6, off_read_noise=0.002)
    blocks = Blocks.from_dense(matrix()[None])
    bank = program_bank(blocks, Chip("x", cell=cell))
    assert bank.delta > 0
    assert len(bank.deviation) == 144
    y = np.ones((1, 12))
    bank.shoot(y, 0)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("cell", [
    Cell(bits=4, sign_mapping="bias"), Cell(bits=4, off_conductance=1e-6, off_error=1e-9)])
def test_intended_entries_come_back_in_the_order_given(cell):
    a = np.where(np.abs(np.subtract.outer(np.arange(12), np.arange(12))) <= 1, matrix(), 0.0)
    blocks = Blocks.from_dense(np.repeat(a[None], 3, 0))
    aims = np.empty(len(blocks.value))
    program_bank(blocks, Chip("x", cell=cell), intended=aims)
    off = blocks.row != blocks.col
    assert np.abs(aims - blocks.value)[off].max() <= 0.5 * 2 / 15  # half a level
    assert (aims[~off] >= blocks.value[~off] - 1e-12).all()


@pytest.mark.parametrize(("cell", "row"), [
    # first row of the five-point stencil on 3 × 3 points, entries 1, −1/4, −1/4 and six zeros
    (Cell(sign_mapping="bias"), [1.25, 0, 0, *6 * [0.25], 0.25]),  # all shifted by 1/4, and the bias cell
    # a window from 0.1 to 1, so that 1 of the window's 0.9 stands for 1: the lowest level is 1/9
    (Cell(conductance_max=10e-6, conductance_min=1e-6), [1.0, 0.25, 0.25, *6 * [1 / 9]]),
    (Cell(conductance_max=10e-6, off_conductance=1e-6), [1.0, 0.25, 0.25, *18 * [0.1]]),
])
def test_the_row_nodes_see_all_that_conducts(cell, row, tools):
    _, held = hold(Chip("x", cell=cell), tools.grid(3, 3), count=1)
    seen = np.abs(held.blocks.value[: int(np.flatnonzero(held.blocks.row > 0)[0])]).sum() + held.common[0, 0]
    assert seen == pytest.approx(sum(row))


def arrays(chip, count=60, **how):
    """Open-loop arrays of one matrix with zeros, its entries, and one product with each."""
    a = np.round(np.random.default_rng(3).normal(size=(10, 8)), 1)
    a[np.random.default_rng(4).random(a.shape) > 0.5] = 0
    row, col = (np.tile(part, count) for part in np.nonzero(a))
    owner = np.repeat(np.arange(count), np.count_nonzero(a))
    entries = Entries(owner, row, col, np.tile(a[a != 0], count))
    bank, aimed = program_mvm(entries, np.arange(count), chip, **how)
    x = np.random.default_rng(5).normal(size=(count, 8))
    y = np.zeros((count, 10))
    bank.subtract(x, y, 0)
    return a, entries, bank, aimed, x, -y


def test_dead_arrays_are_replaced():
    a, entries, bank, aimed, x, y = arrays(Chip("x", cell=Cell(), faults=Faults(dead_tiles=0.3)))
    np.testing.assert_array_equal(aimed, entries.value)
    np.testing.assert_allclose(y, x @ a.T, atol=8 * 2.0**-22)
    assert bank.programmed.cells_written > 1.1 * len(aimed)
    assert bank.programmed.tiles_replaced == bank.programmed.tiles_programmed - 60 > 5
    with pytest.raises(ProgrammingFailed, match="spare ones in the place of each"):
        arrays(Chip("x", cell=Cell(), faults=Faults(dead_tiles=0.5)), count=3000)  # 1 in 256 has none


@pytest.mark.parametrize("cell", [
    Cell(sign_mapping="bias"), Cell(off_conductance=1e-6), Cell(conductance_min=1e-6),
    Cell(off_conductance=1e-6, off_read_noise=1e-12)])
def test_arrays_whose_cells_have_no_errors_are_exact(cell):
    a, _, _, _, x, y = arrays(Chip("x", cell=cell))
    np.testing.assert_allclose(y, x @ a.T, atol=8 * 2.0**-20)


def test_leaks_of_arrays_make_noise_on_every_crossing():
    a, _, bank, _, x, y = arrays(Chip("x", cell=Cell(off_conductance=1e-6, off_error=0.01)), count=300)
    rows, columns = np.count_nonzero(a.any(axis=1)), np.count_nonzero(a.any(axis=0))
    assert len(bank.value) == 300 * rows * columns  # of lines in use
    error = ((y - x @ a.T) / np.abs(a).max())[:, a.any(axis=1)]
    # of a pair: one cell of an entry, two of a zero
    variance = 0.01**2 * (x**2 @ np.where(a != 0, 1.0, 2.0).T)[:, a.any(axis=1)]
    assert_variance((error / np.sqrt(variance)).ravel(), np.ones(error.size))


def test_stuck_and_aged_arrays():
    fine = arrays(Chip("x", cell=Cell(bits=6)))
    high = arrays(Chip("x", cell=Cell(bits=6), faults=Faults(stuck_high=0.05)))
    assert 0 < np.count_nonzero(high[3] != fine[3]) < 4 * 0.05**2 * len(fine[3])
    low = arrays(Chip("x", cell=Cell(bits=6), faults=Faults(stuck_low=0.05)))
    lost = np.count_nonzero((low[3] == 0) & (fine[3] != 0))
    assert lost == pytest.approx(0.05 * len(fine[3]), abs=5 * np.sqrt(0.05 * len(fine[3])))
    old = arrays(Chip("x", cell=Cell(bits=6), drift=Drift(relaxation=0.001, time=1e5)))
    change = ((old[2].value - fine[2].value) / np.abs(fine[0]).max())[fine[2].value != 0]
    assert_variance(change, np.full(len(change), (0.001 * np.log(1 + 1e5)) ** 2))

"""The write–verify loop: pulses against closed forms, keyed by tile, counted by the ledger."""

import numpy as np
import pytest
from scipy.stats import norm

from analogpde.chip import Cell, Chip, Faults, Multiplier, Writing, load
from analogpde.errors import InvalidInput
from analogpde.tile.blocks import Blocks
from analogpde.tile.inv import program_bank
from analogpde.tile.mvm import write_sliced
from analogpde.tile.writing import STUCK, write


def chip(**writing):
    return Chip("x", cell=Cell(bits=4, programming_error=0.01), writing=Writing(**writing))


def pulses(on, target, tiles=None, name="", tolerance=None):
    """Pulses of equal tiles with one cell each."""
    target = np.asarray(target, float)
    tiles = np.arange(len(target)) if tiles is None else tiles
    return write(on, target, np.arange(len(target)), np.arange(len(target) + 1), tiles, seed=3, name=name, event=0,
                 tolerance=tolerance)


def test_exact_pulses_are_a_staircase():
    """Without spread a cell at distance d takes as many steps as leave less than the tolerance, and one at least."""
    for distance, expected in ((0.01, 1), (0.1, 1), (0.55, 6), (0.515, 5), (1.0, 10)):
        assert pulses(chip(step=0.1, tolerance=0.02), [distance]).pulses == expected, distance


def test_near_its_target_a_cell_tries_again_until_it_hits():
    """Far fewer than a step away every pulse aims at the target: a geometric number with p = 2 Φ(τ/s) − 1."""
    count, p = 40_000, 2 * norm.cdf(0.5) - 1
    mean = pulses(chip(step=1.0, spread=0.02, tolerance=0.01), np.full(count, 0.3)).pulses / count
    assert mean == pytest.approx(1 / p, abs=5 * np.sqrt((1 - p) / p**2 / count))


def test_sixteen_levels_take_the_published_number_of_pulses():
    """8.52 a cell (NeuRRAM); a cell's deviation is below 5 pulses, and 0.2 is what the step was rounded to."""
    writing = load("rram128").writing
    cells = np.tile(np.arange(1, 16) / 15, 2000)
    mean = pulses(chip(step=writing.step, spread=writing.spread, tolerance=0.025), cells).pulses / len(cells)
    assert mean == pytest.approx(8.52, abs=0.2 + 5 * 5 / np.sqrt(len(cells)))


def test_a_cell_that_does_not_move_is_given_up():
    assert pulses(chip(step=0.1, spread=0.03, limit=37), [STUCK, STUCK]).pulses == 74


def test_without_a_loop_or_an_error_each_cell_is_written_once():
    assert pulses(chip(), [0.1, 0.7, 1.0]).pulses == 3
    exact = Chip("x", cell=Cell(bits=4), writing=Writing(step=0.1, spread=0.05))
    assert pulses(exact, [0.1, 0.7, 1.0]).pulses == 3


def test_draws_belong_to_the_tile():
    on, cells = chip(step=0.1, spread=0.05), np.linspace(0.1, 1.0, 50)
    each = [pulses(on, cells[k : k + 1], tiles=np.array([k])).pulses for k in range(50)]
    assert sum(each) == pulses(on, cells).pulses
    assert sum(each) != pulses(on, cells, name="other").pulses


def test_a_row_waits_for_its_slowest_cell():
    on = chip(step=0.1, tolerance=0.02)
    target = np.array([0.3, 0.9, 0.5, 0.2])  # 3 and 9 pulses in one row, 5 in another; 2 on the second tile
    written = write(on, target, np.array([0, 0, 1, 2]), np.array([0, 3, 4]), np.array([0, 1]), seed=0, name="", event=0)
    assert (written.cells, written.pulses, written.in_turn) == (4, 19, 16)


def test_tighter_cells_take_more_pulses():
    a = np.eye(6) - 0.1 * (np.ones((6, 6)) - np.eye(6))
    blocks = Blocks.from_dense(np.repeat(a[None], 40, 0))
    counts = []
    for error in (0.03, 0.01, 0.003):
        done = program_bank(blocks, chip(step=0.1, spread=0.04).replace(programming_error=error), shift=0.0).programmed
        assert done.pulses_in_turn < done.write_pulses
        counts.append(done.write_pulses / done.cells_written)
    assert counts[0] < counts[1] < counts[2]


def test_stuck_cells_cost_pulses():
    a = np.eye(6) - 0.1 * (np.ones((6, 6)) - np.eye(6))
    blocks = Blocks.from_dense(np.repeat(a[None], 40, 0))
    sound = chip(step=0.1, spread=0.04)
    faulty = Chip("x", cell=sound.cell, writing=sound.writing, faults=Faults(stuck_low=0.05))
    whole, some = (program_bank(blocks, on, shift=0.0).programmed for on in (sound, faulty))
    # each row has five cells off the diagonal: about 60 of 1200 are given up after 100 pulses
    missing = some.write_pulses - whole.write_pulses * some.cells_written / whole.cells_written
    assert 30 * 95 < missing < 100 * 100


def test_slices_of_the_multiplier():
    """Codes 9 = 1·8 + 1 and −3 in slices of three bits: three cells that are on, in each of two copies."""
    on = Chip("x", multiplier=Multiplier(cell_bits=3, input_bits=3, order="parallel"), writing=Writing(step=0.1))
    done = write_sliced(np.array([9, 0, -3]), 6, on)
    # verified to half a level, 1/14: one pulse for 1/7, four for 3/7
    assert (done.cells_written, done.write_pulses) == (6, 2 * (1 + 1 + 4))


def test_a_spread_without_a_step_is_refused():
    with pytest.raises(InvalidInput, match="Without a step"):
        Writing(spread=0.1)
    assert load("rram128").replace(pulse_step=None).writing.spread is None

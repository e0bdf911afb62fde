"""Levels that are not evenly spaced: what is held is made of them, is nearest, and keeps the guarantee."""

import json
import re

import numpy as np
import pytest

from analogpde.chip import Cell, Chip, Faults
from analogpde.errors import InvalidInput
from analogpde.tile.blocks import Blocks
from analogpde.tile.inv import program_bank
from analogpde.tile.mvm_bank import Entries, program_mvm
from analogpde.tile.programming import program, scale_blocks
from analogpde.tile.uneven import nearest, sums

GEOMETRIC = Cell(bits=3, conductance_max=35e-6, conductance_min=0.5e-6, level_spacing="geometric")
LISTED = Cell(bits=2, conductance_max=20e-6, level_list=(0.0, 3e-6, 8e-6, 20e-6))


def spd(n=10, seed=0):
    g = np.random.default_rng(seed).normal(size=(3 * n, n))
    return g.T @ g / (3 * n)


def hold(cell, a, count=1, **how):
    scaled, scale, sign = scale_blocks(Blocks.from_dense(np.repeat(a[None], count, 0)))
    return scaled, program(scaled, scale, sign, Chip("x", cell=cell), shift=0.0, **how)


def test_the_eight_levels_of_a_window_in_equal_ratios():
    """0.5 µS · 70^(k/7); places in the window from 0.5 to 35."""
    conductance = 0.5 * 70.0 ** (np.arange(8) / 7)
    np.testing.assert_allclose(GEOMETRIC.places, (conductance - 0.5) / 34.5, atol=1e-15)
    np.testing.assert_allclose(LISTED.places, [0, 0.15, 0.4, 1])


@pytest.mark.parametrize("cell", [GEOMETRIC, LISTED], ids=["geometric", "listed"])
@pytest.mark.parametrize("slices", [1, 2])
def test_entries_are_the_nearest_sums_and_diagonals_make_up_for_them(cell, slices):
    a = spd()
    scaled, held = hold(cell, a, slices=slices)
    base = 2**cell.bits
    table = cell.places
    for s in range(1, slices):
        table = (table[:, None] + cell.places * float(base) ** -s).ravel()
    fine = (table[:, None] + cell.places * float(base) ** -slices).ravel()
    off = scaled.row != scaled.col
    share, wanted = np.abs(held.intended) / held.largest[0], np.abs(scaled.value) / held.largest[0]
    best = table[np.abs(wanted[off][:, None] - table).argmin(axis=1)]
    np.testing.assert_allclose(share[off], best, atol=1e-12)
    errors = np.bincount(scaled.row[off], np.abs(wanted - share)[off])
    needed = wanted[~off] + errors
    smallest = np.array([fine[fine >= x - 1e-12].min() for x in needed])
    np.testing.assert_allclose(share[~off], smallest, atol=1e-12)
    # the guarantee: held − given is positive semi-definite (Gershgorin: each row's errors are on its diagonal)
    difference = held.blocks.dense(held.intended)[0] - scaled.dense()[0]
    assert np.linalg.eigvalsh(difference).min() > -1e-12


def test_even_levels_as_a_list_are_even_levels():
    a = spd(seed=3)
    plain = Cell(bits=4, conductance_max=30e-6)
    listed = Cell(bits=4, conductance_max=30e-6, level_list=tuple(np.linspace(0, 30e-6, 16)))
    for slices in (1, 2):
        one, other = (hold(cell, a, slices=slices)[1] for cell in (plain, listed))
        np.testing.assert_allclose(other.intended, one.intended, rtol=1e-9, atol=1e-12)
        assert (other.cells, other.written) == (one.cells, one.written)


def test_errors_of_each_cell_at_its_level():
    """σ = 0.02 of the cell's own conductance; the levels of the list are 3, 8 and 20 µS."""
    cell = Cell(bits=2, conductance_max=20e-6, level_list=(0.0, 3e-6, 8e-6, 20e-6), programming_model="polynomial",
                programming_polynomial=(0.0, 0.02))
    scaled, held = hold(cell, spd(6), count=4000)
    off = (scaled.row != scaled.col) & (held.intended != 0)
    error = (held.blocks.value - held.intended)[off] / np.abs(held.intended[off])
    assert np.mean(error**2) == pytest.approx(0.02**2, rel=5 * np.sqrt(2 / off.sum()))


def test_arrays_and_solves(tools):
    a = np.random.default_rng(2).normal(size=(6, 7))
    row, col = np.nonzero(a)
    chip = Chip("x", cell=LISTED)
    bank, aimed = program_mvm(Entries(np.zeros(42, int), row, col, a.ravel()), np.zeros(1, int), chip, slices=2)
    table, _ = sums(LISTED.places, 2)
    share = np.abs(aimed) / np.abs(a).max() * table[-1]
    np.testing.assert_allclose(share, table[nearest(table, np.abs(a.ravel()) / np.abs(a).max() * table[-1])])
    y = np.zeros((1, 6))
    bank.subtract(np.ones((1, 7)), y, 0)
    np.testing.assert_allclose(-y[0], aimed.reshape(6, 7).sum(axis=1), atol=42 * 2.0**-22 * np.abs(a).max())
    matrix = tools.grid(4, 4)
    inverse = program_bank(tools.pack([matrix]), Chip("x", cell=GEOMETRIC), slices=2)
    x = (matrix @ np.ones(16))[None]
    inverse.shoot(x, 0)
    # the cells hold Â ⪰ A (above): answers are smaller, and not by half
    assert 0.5 * 16 < x.sum() < 16 * (1 + 1e-5)


def test_json_and_words():
    chip = Chip("x", cell=LISTED)
    assert Chip.from_dict(json.loads(chip.to_json())).cell == LISTED


@pytest.mark.parametrize(("fields", "said"), [
    ({"level_spacing": "geometrc"}, "Did you mean geometric?"),
    ({"level_spacing": "geometric"}, "linear without bits and a conductance_min"),
    ({"level_list": (0.0, 1e-6)}, "2^bits ascending conductances from 0 to 3.5e-05 S"),
    ({"bits": 1, "level_list": (1e-6, 35e-6)}, "They begin at conductance_min"),
    ({"bits": 1, "level_list": "steps"}, "1 to 256 numbers"),
    ({"bits": 2, "conductance_min": 1e-6, "level_spacing": "geometric", "sign_mapping": "bias"}, "pair for levels"),
])
def test_refused(fields, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        Cell(**fields)


def test_what_uneven_levels_cannot_do():
    with pytest.raises(InvalidInput, match="linear where cells are stuck"):
        Chip("x", cell=GEOMETRIC, faults=Faults(stuck_low=0.01))
    with pytest.raises(InvalidInput, match="level_list: got 'given'; allowed: null where cells are stuck"):
        Chip("x", cell=LISTED, faults=Faults(stuck_low=0.01))
    with pytest.raises(InvalidInput, match="5 or fewer of 8 levels"):
        hold(GEOMETRIC, spd(), slices=6)

"""Shots of tiles in which wires couple every line to every other, against dense algebra."""

from dataclasses import replace

import numpy as np
import pytest

from analogpde.tile.inv import program_bank
from analogpde.tile.noise import read_normal


@pytest.mark.parametrize("noise", [0.0, 0.0005])
@pytest.mark.parametrize("offset", [None, 1e-3])
@pytest.mark.parametrize("transposed", [False, True])
def test_stored_inverses_of_wired_tiles_give_what_factors_give(tools, monkeypatch, noise, offset, transposed):
    """Same draws, FP32 both: the sums differ by rounding, 2^-24 times the terms of a line and the amplification of the
    slowest mode, 20 · 10 here."""
    chip = tools.chip(read=noise or None)
    chip = replace(chip, wire=replace(chip.wire, row=1.0, column=1.0),
                   amplifier=replace(chip.amplifier, gain=1e5, offset=offset))
    blocks = tools.pack([tools.grid(4, 5), tools.grid(3, 3), tools.grid(4, 4)])
    kept = np.array([20, 4, 16], np.int32)
    right = np.random.default_rng(0).standard_normal((3, 20)) * (np.arange(20) < (kept[:, None] if transposed else 20))
    got = {}
    for stored in (True, False):
        if not stored:
            monkeypatch.setattr("analogpde.tile.inv.worth_it", lambda factors: False)
        bank = program_bank(blocks, chip, kept=kept, shift=0.0)
        assert (bank._inverses is not None) is stored
        got[stored] = right.copy()
        bank.shoot(got[stored], 3, transposed=transposed)
        assert not bank.drawn.any()
    np.testing.assert_allclose(got[True], got[False], rtol=0, atol=np.abs(got[False]).max() * 2.0**-24 * 200)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ohms", [10.0, 50.0, 300.0])
def test_wired_tiles_with_much_read_noise_are_solved_exactly(tools, transposed, ohms):
    """Every line is coupled to every other, few of these couplings are cells that make noise."""
    chip = tools.chip(read=0.015)
    chip = replace(chip, wire=replace(chip.wire, row=ohms, column=ohms), amplifier=replace(chip.amplifier, gain=1e5))
    bank = program_bank(tools.pack([tools.grid(4, 5)] * 3), chip, shift=0.0)
    assert bank.drawn.all() and bank._inverses is None
    x = np.random.default_rng(0).standard_normal((3, 20))
    right = x * bank.scale
    bank.shoot(x, 3, transposed=transposed)
    # couplings beyond the band of the cells are left to a correction
    assert len(bank._held.far_value) > 0 and bank._held.near.max() < bank.factors.width.min()
    exact, noisy, quiet = wired_answers(bank, right, 3, transposed)
    # errors of 2^-24 κ in the inverse are κ times as large in its inverse, and again in the answer
    kappa = np.linalg.cond(noisy).max()
    np.testing.assert_allclose(x, exact, rtol=0, atol=2.0**-24 * kappa**2 * 4 * np.abs(exact).max())
    assert np.abs(quiet - exact).max() > 0.01 * np.abs(exact).max()
    # without the couplings beyond the band the answer would be another
    bank._held.far_value[:] = 0.0
    alone = right / bank.scale
    bank.shoot(alone, 3, transposed=transposed)
    assert np.abs(alone - exact).max() > 4 * np.abs(x - exact).max()


def wired_answers(bank, right, event, transposed):
    """What the tiles of a bank answer, by dense algebra; their noisy and quiet matrices' too."""
    draws = read_normal(bank.offsets, seed=0, word=bank.word, tiles=bank.tiles, event=event)
    exact, matrices, quiet = [], [], []
    for k, inverse in enumerate(bank.factors.inverse().astype(float)):
        here = slice(bank.offsets[k], bank.offsets[k + 1])
        noisy = np.linalg.inv(inverse)
        noisy[bank.factors.rows[k, bank.row[here]], bank.factors.cols[k, bank.col[here]]] += (
            draws[here] * bank.deviation[here])
        matrices.append(noisy)
        exact.append(np.linalg.solve(noisy.T if transposed else noisy, right[k]) * bank.scale[k] * bank.sign[k])
        quiet.append((inverse.T if transposed else inverse) @ right[k] * bank.scale[k] * bank.sign[k])
    return np.array(exact), np.array(matrices), np.array(quiet)


def test_what_no_correction_finds_is_solved_with_row_exchanges(tools):
    """Couplings beyond the band as large as the cells: steps with the band alone do not end."""
    chip = tools.chip(read=0.015)
    chip = replace(chip, wire=replace(chip.wire, row=30.0, column=30.0))
    bank = program_bank(tools.pack([tools.grid(4, 5)] * 3), chip, shift=0.0)
    bank.drawn[:] = True
    held = bank._held
    right = np.random.default_rng(0).standard_normal((3, 20)) * bank.scale
    _, matrices, _ = wired_answers(bank, right, 3, False)
    for e in range(len(held.far_value)):
        i = np.searchsorted(held.far_first[0], e, side="right") - 1
        j, k = divmod(int(held.far_place[e]), 8)
        k = int(held.factors.members[0, k])
        matrices[k, bank.factors.rows[k, i], bank.factors.cols[k, j]] += 0.2 - held.far_value[e]
    held.far_value[:] = 0.2
    x = right / bank.scale
    bank.shoot(x, 3)
    assert bank.dense_solves == 3
    exact = np.array([np.linalg.solve(a, b) for a, b in zip(matrices, right, strict=True)]) * bank.scale
    # the band's entries are known to 2^-22, see above
    np.testing.assert_allclose(x, exact, rtol=0, atol=2.0**-22 * 20 * np.linalg.cond(matrices).max() * np.abs(
        exact).max())

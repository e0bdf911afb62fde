"""The lines of a tile: converters with ranges, offsets and noise; transposed shots; noise of cells behind wires."""

from dataclasses import replace

import numpy as np
import pytest

from analogpde.chip import PRESETS
from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import factorise
from analogpde.tile.inv import program_bank
from analogpde.tile.lines import largest_gain
from analogpde.tile.loop import Spread, close, thinned
from analogpde.tile.noise import read_normal
from analogpde.tile.programming import program, scale_blocks
from analogpde.tile.wires import eliminate

IDEAL = PRESETS["ideal"]
ROWS = 100
EVENTS = 40


def unit_bank(**effects):
    """Four tiles that hold the identity: what comes out is what the lines do."""
    blocks = Blocks.from_dense(np.repeat(np.eye(ROWS)[None], 4, axis=0))
    return program_bank(blocks, IDEAL.replace(**effects), seed=5)


def shots(bank, events=EVENTS):
    x = np.random.default_rng(0).uniform(-1, 1, (4, ROWS))
    x[:, 0] = 1.0  # the block exponent
    answers = []
    for event in range(events):
        y = x.copy()
        bank.shoot(y, event)
        answers.append(y - x)
    return x, np.array(answers)


@pytest.mark.parametrize("which", ["dac", "adc"])
def test_noise_of_converters_is_new_at_every_conversion(which):
    _, errors = shots(unit_bank(**{f"{which}_noise": 0.01}))
    # of the full scale, 1: relative error of the deviation of 16 000 draws 0.6 %, five times that allowed; the ADC's
    # full scale is the largest output, 1 to float32
    assert errors.std() == pytest.approx(0.01, rel=0.03)
    assert abs(errors.mean()) < 5 * 0.01 / np.sqrt(errors.size)
    assert np.abs(np.corrcoef(errors.reshape(EVENTS, -1))[0, 1:]).max() < 0.3  # 5/sqrt(400)


@pytest.mark.parametrize("which", ["dac", "adc"])
def test_offsets_of_converters_stay(which):
    _, errors = shots(unit_bank(**{f"{which}_offset": 0.01}), 3)
    assert np.ptp(errors, axis=0).max() < 1e-6
    assert errors[0].std() == pytest.approx(0.01, rel=0.2)  # 400 draws: 3.5 %
    assert np.abs(np.diff(errors[0], axis=0)).min() > 0  # each tile its own


def test_no_input_no_output():
    bank = unit_bank(dac_offset=0.1, adc_offset=0.1, adc_noise=0.1, amplifier_offset=0.01)
    x = np.zeros((4, ROWS))
    x[1, 3] = 1e-200
    ledger = bank.shoot(x, 0)
    assert (x[[0, 2, 3]] == 0).all()
    assert np.isfinite(x).all()
    assert ledger.inv_shots == 4


def test_infinite_inputs_come_out_as_no_number():
    bank = unit_bank(adc_offset=0.01)
    x = np.ones((4, ROWS))
    x[0, 1], x[2, 5] = np.inf, np.nan
    bank.shoot(x, 0)
    assert np.isnan(x[[0, 2]]).all()
    assert np.isfinite(x[[1, 3]]).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_fixed_range_wastes_codes(bits):
    # outputs up to 0.25 V: an ADC that follows them has four times the resolution of one of 1 V
    errors = []
    for extra in ({}, {"adc_range": 1.0}):
        bank = unit_bank(adc_bits=bits, dac_range=0.25, **extra)
        x, found = shots(bank, 1)
        errors.append(np.abs(found).max())
        step = (1.0 if not extra else 4.0) / (2 ** (bits - 1) - 1)
        assert 0.4 * step < errors[-1] <= 0.5 * step + 1e-6
        assert np.abs(x).max() == 1.0


def test_what_clips_for_good_is_clipped():
    bank = unit_bank(dac_range=1.0, adc_range=0.25, bound_repeats=0)
    x, errors = shots(bank, 1)
    np.testing.assert_allclose(x + errors[0], np.clip(x, -0.25, 0.25), atol=1e-6)
    bank = unit_bank(dac_range=1.0, adc_range=0.25, bound_repeats=1)
    x, errors = shots(bank, 1)
    np.testing.assert_allclose(x + errors[0], np.clip(x, -0.5, 0.5), atol=1e-6)


@pytest.mark.parametrize(("bits", "halvings"), [(4, 0), (6, 2), (8, 4), (None, 10)])
def test_bound_management_keeps_four_codes(bits, halvings):
    """2^(bits−1) − 1 codes, halved while four are left."""
    bank = unit_bank(dac_range=1.0, adc_range=1e-6, **({} if bits is None else {"dac_bits": bits}))
    ledger = bank.shoot(np.ones((4, ROWS)), 0)
    assert ledger.inv_repeats == 4 * halvings
    assert ledger.inv_shots == 4 * (1 + halvings)


def test_kept_lines_alone_are_read(tools):
    blocks = tools.pack([tools.grid(4, 4)])
    bank = program_bank(blocks, IDEAL.replace(adc_offset=0.01), kept=np.array([5], np.int32))
    x = np.ones((1, 16))
    ledger = bank.shoot(x, 0)
    assert (x[0, 5:] == 1.0).all()
    assert (x[0, :5] != 1.0).all()
    assert (ledger.dac_conversions, ledger.adc_conversions) == (16, 5)


def test_transposed_shots_are_the_adjoint(tools):
    chip = IDEAL.replace(amplifier_gain=1e3, inverter_mismatch=0.02, wire_resistance=5.0, gain_bandwidth=1e6,
                         settle_time=1e-6, dac_range=0.1)
    bank = program_bank(tools.pack([tools.wind(4, 3.0, upwind=True), tools.grid(4, 4)]), chip)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 16)), rng.normal(size=(2, 16))
    forth, back = x.copy(), y.copy()
    bank.shoot(forth, 0)
    bank.shoot(back, 0, transposed=True)
    left, right = (y * forth).sum(axis=1), (back * x).sum(axis=1)
    size = np.linalg.norm(y, axis=1) * np.linalg.norm(forth, axis=1)
    assert (np.abs(left - right) < 1e-4 * size).all()  # float32, and sampling in float32
    assert (np.abs(forth - np.linalg.solve(tools.pack([tools.wind(4, 3.0, upwind=True), tools.grid(4, 4)]).dense(),
                                           x[:, :, None])[:, :, 0]).max(axis=1) > 0.05).all()


def test_largest_gain(tools):
    matrices = [tools.grid(4, 4), tools.random_spd(16, 30.0, 1), tools.wind(4, 1.5, upwind=False),
                tools.random_spd(16, 5.0, 2)]
    found = largest_gain(factorise(tools.pack(matrices)))
    exact = np.array([np.abs(np.linalg.inv(m)).sum(axis=1).max() for m in matrices])
    np.testing.assert_allclose(found, exact, rtol=1e-5)  # factors in float32


def test_noise_of_cells_behind_wires(tools):
    # one shot's draws put into the cells before the wires are eliminated, against the bank's: scaled by what they leave
    chip = PRESETS["sram64"].replace(read_noise=0.01, dac_bits=None, adc_bits=None, wire_resistance=5.0)
    matrix, event = tools.grid(4, 4), 3
    bank = program_bank(tools.pack([matrix]), chip)
    bank.drawn[:] = True
    scaled, scale, sign = scale_blocks(tools.pack([matrix]))
    held = program(scaled, scale, sign, chip)
    draws = read_normal(bank.offsets, seed=0, word=bank.word, tiles=bank.tiles, event=event)
    unit = np.array([chip.cell.conductance_max / held.largest[0]])

    def behind(values):
        g = held.blocks.dense(values)
        return (eliminate(np.maximum(g, 0), 5 * unit, 5 * unit)[0]
                - eliminate(np.maximum(-g, 0), 5 * unit, 5 * unit)[0])[0]

    b = np.random.default_rng(1).uniform(-1, 1, 16)
    quiet = np.linalg.solve(behind(held.blocks.value), b)
    noisy = np.linalg.solve(behind(held.blocks.value + draws * held.read_deviation), b)
    x = (b / held.scale[0])[None].copy()
    bank.shoot(x, event)
    # the scaling is off by 1e-3 to 3e-2 of the noise (circuit page), the fixed point by 2^-13 of the answer
    bound = 0.03 * np.linalg.norm(noisy - quiet) + 2.0**-12 * np.linalg.norm(quiet)
    assert np.linalg.norm(x[0] / held.scale[0] - noisy) < bound < 0.2 * np.linalg.norm(noisy - quiet)


def test_dropped_couplings_are_below_float32(tools):
    chip = PRESETS["rram128"].replace(wire_resistance=5.0)
    scaled, scale, sign = scale_blocks(tools.pack([tools.grid(8, 8), tools.wind(8, 3.0, upwind=True)]))
    held = program(scaled, scale, sign, chip)
    loop = close(held, chip, Spread.draw(scaled, chip, seed=0, name=""))
    thin = thinned(loop.blocks, held.blocks)
    assert len(thin.value) < 0.5 * len(loop.blocks.value)
    dropped = np.abs(thin.dense() - loop.blocks.dense()).sum(axis=2).max()
    assert 0 < dropped < 64 * 2.0**-30 * np.abs(thin.dense()).max()
    # a cell stays, whatever it holds: its noise needs its place in the band
    empty = replace(held.blocks, value=np.zeros(len(held.blocks.value)))
    none = replace(loop.blocks, value=np.where(loop.blocks.row == loop.blocks.col, 1.0, 0.0))
    places = {(int(k), int(i), int(j)) for k, i, j in zip(empty.owner, empty.row, empty.col, strict=True)}
    left = thinned(none, empty)
    assert {(int(k), int(i), int(j)) for k, i, j in zip(left.owner, left.row, left.col, strict=True)} == places

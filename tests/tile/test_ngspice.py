"""The emulated tile against the circuit itself: op-amps, inverters and a pair of resistor arrays in ngspice.

Row node i is the inverting input of op-amp i, whose output drives column i; inverter j drives column j of the array
of negative entries. With open-loop gain A and D the total conductance at each row node Kirchhoff's law gives
(G + D/A) v = b for input currents −b (the inverters are ideal).
"""

import numpy as np
import pytest

from analogpde.chip import PRESETS
from analogpde.tile.circuit import Parts, have_ngspice, inv_tile, ngspice
from analogpde.tile.factors import factorise
from analogpde.tile.health import stable
from analogpde.tile.inv import program_bank
from analogpde.tile.noise import read_normal
from analogpde.tile.programming import program, scale_blocks

pytestmark = pytest.mark.skipif(not have_ngspice(), reason="ngspice is not installed")

GAIN_BANDWIDTH = 1e6  # Hz


def volts_of(conductance, current, gain, *, analysis="op", **parts):
    """Column voltages of one tile in ngspice, shape (points, n): conductances of both signs, S; input currents, A."""
    tile = inv_tile(np.maximum(conductance, 0), np.maximum(-conductance, 0), current, Parts(gain=gain, **parts))
    return ngspice(tile, [f"c{k}" for k in range(len(current))], analysis)[1]


# Block, preset, slices. Blocks of both signs off the diagonal, symmetric and not, 4 … 16 lines.
CASES = {
    "2x2 grid": (lambda t: t.grid(2, 2), "pku2025", 1),
    "chain": (lambda t: t.chain(9), "rram128", 1),
    "4x4 grid": (lambda t: t.grid(4, 4), "pku2025", 1),
    "4x4 grid, two slices": (lambda t: t.grid(4, 4), "pku2025", 2),
    "lognormal": (lambda t: t.lognormal(4, 1.0), "sram64", 1),
    "upwind": (lambda t: t.wind(3, 5.0, upwind=True), "rram128", 1),
    "central": (lambda t: t.wind(3, 1.0, upwind=False), "sram64", 1),
    "both signs": (lambda t: t.random_spd(16, 5.0, 1), "sram64", 2),
    "negative": (lambda t: -t.grid(3, 3), "sram64", 1),
}
BLOCKS = pytest.mark.parametrize(("block", "preset", "slices"), CASES.values(), ids=CASES)


def circuit(tools, matrix, chip, slices, **how):
    """The conductances that `program` gives one tile, in siemens, and the factor from scaled units to siemens."""
    scaled, scale, sign = scale_blocks(tools.pack([matrix]))
    held = program(scaled, scale, sign, chip, slices=slices, **how)
    siemens = chip.cell.conductance_max / held.largest[0]
    return held.blocks.dense()[0] * siemens, siemens, held


@BLOCKS
@pytest.mark.parametrize("gain", [1e3, 1e5])
def test_operating_point_with_finite_gain(tools, block, preset, slices, gain):
    matrix = block(tools)
    n = len(matrix)
    g, siemens, _ = circuit(tools, matrix, PRESETS[preset], slices)
    b = np.random.default_rng(1).uniform(-0.1, 0.1, n) * siemens
    (volts,) = volts_of(g, b, gain)
    loaded = g + np.diag(np.abs(g).sum(axis=1)) / gain
    # two LU factorisations in FP64: κ n eps < 1e-12 for these blocks (κ < 200)
    np.testing.assert_allclose(volts, np.linalg.solve(loaded, b), rtol=0, atol=1e-10 * np.abs(volts).max())
    if gain == 1e3:  # the term is there: without it the two differ by about D/(A s_min), a per mille and more
        assert np.abs(volts - np.linalg.solve(g, b)).max() > 1e-4 * np.abs(volts).max()


@BLOCKS
def test_emulator_at_large_gain(tools, block, preset, slices):
    matrix = block(tools)
    n = len(matrix)
    chip = PRESETS[preset].replace(read_noise=None, dac_bits=None, adc_bits=None)
    g, siemens, held = circuit(tools, matrix, chip, slices)
    bank = program_bank(tools.pack([matrix]), chip, slices=slices)
    assert bank.programmed.tiles_reprogrammed == 0
    b = np.random.default_rng(1).uniform(-0.1, 0.1, n)
    x = (b / held.scale[0] * held.sign[0])[None].copy()  # so that the scaled input is b
    bank.shoot(x, 0)
    gain = 1e10
    (volts,) = volts_of(g, b * siemens, gain)
    inverse = np.linalg.norm(np.linalg.inv(g), 2)
    # D/(A s_min) of the finite gain and κ√n u·4 of the emulator's float32
    kappa = inverse * np.linalg.norm(g, 2)
    bound = np.abs(g).sum(axis=1).max() / gain * inverse + 4 * (kappa + 2) * np.sqrt(n) * tools.unit_roundoff
    assert bound < 2e-4
    got = x[0] / held.scale[0]
    assert np.linalg.norm(got - volts) <= bound * inverse * np.linalg.norm(b * siemens)
    exact = np.linalg.solve(g, b * siemens)
    np.testing.assert_allclose(volts, exact, rtol=0, atol=1e-7 * np.abs(exact).max())


def test_a_noisy_shot(tools):
    # one shot's read noise as the emulator draws it, put into the resistors
    matrix, event, n = tools.grid(3, 3), 4, 9
    chip = PRESETS["sram64"].replace(read_noise=0.01, dac_bits=None, adc_bits=None)
    _, siemens, held = circuit(tools, matrix, chip, 1)
    bank = program_bank(tools.pack([matrix]), chip)
    bank.drawn[:] = True
    draws = read_normal(bank.offsets, seed=0, word=bank.word, tiles=bank.tiles, event=event)
    noisy = held.blocks.value + draws * bank.deviation
    b = np.random.default_rng(1).uniform(-0.1, 0.1, n)
    (volts,) = volts_of(held.blocks.dense(noisy)[0] * siemens, b * siemens, 1e10)
    x = (b / held.scale[0])[None].copy()
    bank.shoot(x, event)
    got = x[0] / held.scale[0]
    # the emulator's fixed point stops below 2^-13 of the largest voltage, its contraction δ/2 being below a third
    assert np.abs(got - volts).max() < 0.5 * 2.0**-12 * np.abs(volts).max()
    quiet = np.linalg.solve(held.blocks.dense()[0], b)
    assert np.abs(quiet - volts).max() > 20 * 2.0**-12 * np.abs(volts).max()


@pytest.mark.parametrize("lowest", [0.05, -0.05])
def test_settling_is_what_health_says(tools, lowest):
    # the same tile with its lowest eigenvalue moved to either side of zero, op-amps with one pole, from rest
    matrix, n = tools.scaled(tools.grid(2, 3)), 6
    matrix = matrix + (lowest - np.linalg.eigvalsh(matrix)[0]) * np.eye(n)
    total = np.abs(matrix).sum(axis=1)
    b = np.full(n, 0.01)
    rate = 2 * np.pi * GAIN_BANDWIDTH * np.abs(np.linalg.eigvals(matrix / total[:, None]).real).min()
    time = 8 / rate  # e-folds of the slow mode: e^-8 = 3e-4 settled, e^8 = 3000 run away
    volts = volts_of(matrix * 1e-5, b * 1e-5, 1e6, gain_bandwidth=GAIN_BANDWIDTH,
                     analysis=f"tran {time / 200:.6g} {time:.6g} uic")
    rest = np.linalg.solve(matrix, b)
    distance = np.abs(volts[-1] - rest).max() / np.abs(rest).max()
    verdict = stable(tools.pack([matrix]), factorise(tools.pack([matrix])))[0]
    assert verdict == (lowest > 0) == (distance < 1e-2)
    assert distance < 1e-2 or distance > 100

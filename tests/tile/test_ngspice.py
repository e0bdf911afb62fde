"""The emulated tile against the circuit itself: op-amps, inverters and a pair of resistor arrays in ngspice.

Row node i is the inverting input of op-amp i, whose output drives column i; inverter j drives column j of the array
of negative entries. With open-loop gain A and D the total conductance at each row node Kirchhoff's law gives
(G + D/A) v = b for input currents −b (the inverters are ideal).
"""

import re
import shutil
import subprocess

import numpy as np
import pytest

from analogpde.chip import PRESETS
from analogpde.tile.factors import factorise
from analogpde.tile.health import stable
from analogpde.tile.inv import program_bank
from analogpde.tile.noise import read_normal
from analogpde.tile.programming import program, scale_blocks

pytestmark = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")

GAIN_BANDWIDTH = 1e6  # Hz


def op_amp(k, gain, pole):
    """Output c<k>, inverting input r<k>, other input grounded; with one pole at GBW/gain if `pole`."""
    if not pole:
        return [f"Ea{k} c{k} 0 0 r{k} {gain:.17g}"]
    return [f"Ga{k} 0 p{k} 0 r{k} {gain * 1e-6:.17g}", f"Rp{k} p{k} 0 1e6",
            f"Cp{k} p{k} 0 {gain / (2 * np.pi * GAIN_BANDWIDTH) * 1e-6:.17g}", f"Ea{k} c{k} 0 p{k} 0 1"]


def deck(conductance, current, gain, pole=False):
    """The closed loop of one tile: conductances of both signs, in siemens; input currents in amperes."""
    lines = []
    for i, j in zip(*np.nonzero(conductance), strict=True):
        value = conductance[i, j]
        lines.append(f"R{i}_{j} {'c' if value > 0 else 'w'}{j} r{i} {1 / abs(value):.17g}")
    for k in range(len(current)):
        lines += op_amp(k, gain, pole)
        lines.append(f"Ei{k} w{k} 0 0 c{k} 1")
        lines.append(f"I{k} 0 r{k} {-current[k]:.17g}")
    return lines


def ngspice(tmp_path, lines, n, analysis="op"):
    """Run a deck; return the column voltages, shape (points, n)."""
    raw = tmp_path / "out.raw"
    text = ["* closed-loop INV tile", ".options reltol=1e-10 abstol=1e-20 vntol=1e-14 gmin=1e-20", *lines,
            ".save " + " ".join(f"v(c{k})" for k in range(n)), ".control", "set filetype=ascii", "set numdgt=16",
            analysis, "write out.raw", ".endc", ".end", ""]
    (tmp_path / "tile.cir").write_text("\n".join(text))
    run = subprocess.run(["ngspice", "-b", "tile.cir"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert raw.exists(), run.stdout[-1000:] + run.stderr[-1000:]
    head, body = raw.read_text().split("Values:")
    count = int(re.search(r"No\. Variables:\s*(\d+)", head)[1])
    names = [line.split()[1] for line in head.split("Variables:")[-1].strip().splitlines()[:count]]
    table = np.array(body.split()).reshape(-1, count + 1)[:, 1:].astype(float)
    return table[:, [names.index(f"v(c{k})") for k in range(n)]]


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
def test_operating_point_with_finite_gain(tools, tmp_path, block, preset, slices, gain):
    matrix = block(tools)
    n = len(matrix)
    g, siemens, _ = circuit(tools, matrix, PRESETS[preset], slices)
    b = np.random.default_rng(1).uniform(-0.1, 0.1, n) * siemens
    (volts,) = ngspice(tmp_path, deck(g, b, gain), n)
    loaded = g + np.diag(np.abs(g).sum(axis=1)) / gain
    # two LU factorisations in FP64: κ n eps < 1e-12 for these blocks (κ < 200)
    np.testing.assert_allclose(volts, np.linalg.solve(loaded, b), rtol=0, atol=1e-10 * np.abs(volts).max())
    if gain == 1e3:  # the term is there: without it the two differ by about D/(A s_min), a per mille and more
        assert np.abs(volts - np.linalg.solve(g, b)).max() > 1e-4 * np.abs(volts).max()


@BLOCKS
def test_emulator_at_large_gain(tools, tmp_path, block, preset, slices):
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
    (volts,) = ngspice(tmp_path, deck(g, b * siemens, gain), n)
    inverse = np.linalg.norm(np.linalg.inv(g), 2)
    # D/(A s_min) of the finite gain and κ√n u·4 of the emulator's float32
    kappa = inverse * np.linalg.norm(g, 2)
    bound = np.abs(g).sum(axis=1).max() / gain * inverse + 4 * (kappa + 2) * np.sqrt(n) * tools.unit_roundoff
    assert bound < 2e-4
    got = x[0] / held.scale[0]
    assert np.linalg.norm(got - volts) <= bound * inverse * np.linalg.norm(b * siemens)
    exact = np.linalg.solve(g, b * siemens)
    np.testing.assert_allclose(volts, exact, rtol=0, atol=1e-7 * np.abs(exact).max())


def test_a_noisy_shot(tools, tmp_path):
    # one shot's read noise as the emulator draws it, put into the resistors
    matrix, event, n = tools.grid(3, 3), 4, 9
    chip = PRESETS["sram64"].replace(read_noise=0.01, dac_bits=None, adc_bits=None)
    _, siemens, held = circuit(tools, matrix, chip, 1)
    bank = program_bank(tools.pack([matrix]), chip)
    bank.drawn[:] = True
    draws = read_normal(bank.offsets, seed=0, word=bank.word, tiles=bank.tiles, event=event)
    noisy = held.blocks.value + draws * bank.deviation
    b = np.random.default_rng(1).uniform(-0.1, 0.1, n)
    (volts,) = ngspice(tmp_path, deck(held.blocks.dense(noisy)[0] * siemens, b * siemens, 1e10), n)
    x = (b / held.scale[0])[None].copy()
    bank.shoot(x, event)
    got = x[0] / held.scale[0]
    # the emulator's fixed point stops below 2^-13 of the largest voltage, its contraction δ/2 being below a third
    assert np.abs(got - volts).max() < 0.5 * 2.0**-12 * np.abs(volts).max()
    quiet = np.linalg.solve(held.blocks.dense()[0], b)
    assert np.abs(quiet - volts).max() > 20 * 2.0**-12 * np.abs(volts).max()


@pytest.mark.parametrize("lowest", [0.05, -0.05])
def test_settling_is_what_health_says(tools, tmp_path, lowest):
    # the same tile with its lowest eigenvalue moved to either side of zero, op-amps with one pole, from rest
    matrix, n = tools.scaled(tools.grid(2, 3)), 6
    matrix = matrix + (lowest - np.linalg.eigvalsh(matrix)[0]) * np.eye(n)
    total = np.abs(matrix).sum(axis=1)
    b = np.full(n, 0.01)
    rate = 2 * np.pi * GAIN_BANDWIDTH * np.abs(np.linalg.eigvals(matrix / total[:, None]).real).min()
    time = 8 / rate  # e-folds of the slow mode: e^-8 = 3e-4 settled, e^8 = 3000 run away
    lines = deck(matrix * 1e-5, b * 1e-5, 1e6, pole=True)
    volts = ngspice(tmp_path, lines, n, analysis=f"tran {time / 200:.6g} {time:.6g} uic")
    rest = np.linalg.solve(matrix, b)
    distance = np.abs(volts[-1] - rest).max() / np.abs(rest).max()
    verdict = stable(tools.pack([matrix]), factorise(tools.pack([matrix])))[0]
    assert verdict == (lowest > 0) == (distance < 1e-2)
    assert distance < 1e-2 or distance > 100

"""Every effect of the circuit, alone and all together, against Kirchhoff's laws: the nodal solver and ngspice.

The nodal solver (analogpde.tile.circuit) knows resistors and amplifiers and none of the formulas. Both solve well
conditioned systems in FP64 by LU: κ n eps is below 1e-10 for these blocks.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm

from analogpde.chip import PRESETS
from analogpde.tile.blocks import Blocks
from analogpde.tile.circuit import Parts, have_ngspice, inv_tile, mvm_tile, ngspice
from analogpde.tile.factors import factorise
from analogpde.tile.health import stable
from analogpde.tile.inv import program_bank
from analogpde.tile.loop import Spread, close, siemens
from analogpde.tile.mvm_bank import Entries, program_mvm
from analogpde.tile.open_loop import OpenLines, read_out
from analogpde.tile.programming import program, scale_blocks
from analogpde.tile.saturation import saturate
from analogpde.tile.settling import dynamics, fastest_growth, sampling, settling_time, slowest_rate
from analogpde.tile.wires import approximate, eliminate, error_estimate

NEEDS_NGSPICE = pytest.mark.skipif(not have_ngspice(), reason="ngspice is not installed")
BANDWIDTH = 1e6  # Hz
QUIET = PRESETS["sram64"].replace(read_noise=None, dac_bits=None, adc_bits=None)
ALL = {"amplifier_gain": 1e3, "amplifier_offset": 1e-3, "input_conductance": 5e-5, "inverter_gain": 1e3,
       "inverter_offset": 1e-3, "inverter_mismatch": 0.01, "wire_resistance": 5.0}
EFFECTS = {
    "gain": {"amplifier_gain": 1e3},
    "offset": {"amplifier_offset": 1e-3, "amplifier_gain": 1e4},
    "input": {"input_conductance": 5e-5, "amplifier_gain": 1e3},
    "inverter gain": {"inverter_gain": 1e3},
    "inverter offset": {"inverter_offset": 1e-3},
    "inverter mismatch": {"inverter_mismatch": 0.01},
    "wires": {"wire_resistance": 5.0},
    "leaks": {"off_conductance": 2e-6, "amplifier_gain": 1e3, "amplifier_offset": 1e-3},
    "all": ALL,
}
BLOCKS = {
    "2x2 grid": lambda t: t.grid(2, 2),
    "chain of 9": lambda t: t.chain(9),
    "4x4 grid": lambda t: t.grid(4, 4),
    "upwind 9": lambda t: t.wind(3, 5.0, upwind=True),
    "both signs 16": lambda t: t.random_spd(16, 5.0, 1),
    "4x8 grid": lambda t: t.grid(4, 8),
}


class Tile:
    """One programmed tile: its loop, and the same circuit as a netlist."""

    def __init__(self, tools, matrix, chip):
        scaled, scale, sign = scale_blocks(tools.pack([matrix]))
        self.chip, self.n = chip, len(matrix)
        held = program(scaled, scale, sign, chip)
        self.unit = siemens(held, chip)[0]
        self.spread = Spread.draw(scaled, chip, seed=3, name="proof")
        self.loop = close(held, chip, self.spread)
        self.matrix = self.loop.blocks.dense()[0]
        self.factors = factorise(self.loop.blocks)
        self.ideal = held.blocks.dense()[0]
        self.input = np.random.default_rng(1).uniform(-0.1, 0.1, self.n)

    def netlist(self, swing=np.inf, gain=1e12):
        """The circuit; where the chip's amplifiers are ideal their gain is `gain`."""
        chip, g = self.chip, self.ideal * self.unit
        pole = chip.inverter.gain_bandwidth
        leak = chip.cell.off_conductance or 0.0  # of all cells, also below what a pair holds
        return inv_tile(np.maximum(g, 0) + leak, np.maximum(-g, 0) + leak, self.input * self.unit, Parts(
            gain=chip.amplifier.gain or gain, gain_bandwidth=chip.amplifier.gain_bandwidth or np.inf, swing=swing,
            second_pole=chip.amplifier.second_pole or np.inf,
            offset=self.spread.offset[0], input_conductance=chip.amplifier.input_conductance or 0.0,
            inverter_gain=chip.inverter.gain or (gain if pole else None), inverter_bandwidth=pole or np.inf,
            inverter_offset=self.spread.inverter_offset[0], ratio=self.spread.ratio[0], row=chip.wire.row or 0.0,
            column=chip.wire.column or 0.0))

    def nodal(self, **how):
        volts = self.netlist(**how).solve()
        return np.array([volts[f"c{k}"] for k in range(self.n)])

    def settled(self):
        return np.linalg.solve(self.matrix, self.input + self.loop.offset[0])


def far(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_loop_against_nodal_solver(tools, block, effect):
    tile = Tile(tools, block(tools), QUIET.replace(**effect))
    volts = tile.nodal()
    assert far(tile.settled(), volts) < 1e-9
    # the effect is there: ideal amplifiers would be off by far more
    assert far(np.linalg.solve(tile.ideal, tile.input), volts) > 1e-5


@NEEDS_NGSPICE
@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize("block", [BLOCKS[k] for k in ("2x2 grid", "both signs 16", "4x8 grid")], ids=["4", "16", "32"])
def test_loop_against_ngspice(tools, block, effect):
    tile = Tile(tools, block(tools), QUIET.replace(**effect))
    # ideal amplifiers are given a gain of 1e8 there: D/(A s_min) below 1e-6 for these blocks
    _, volts = ngspice(tile.netlist(gain=1e8), [f"c{k}" for k in range(tile.n)])
    assert far(tile.settled(), volts[0]) < 1e-6


@pytest.mark.parametrize("effect", ["gain", "wires", "all"])
@pytest.mark.parametrize("block", [BLOCKS[k] for k in ("upwind 9", "4x4 grid", "4x8 grid")], ids=["9", "16", "32"])
def test_saturation_is_a_box_and_no_clipping(tools, block, effect):
    tile = Tile(tools, block(tools), QUIET.replace(**EFFECTS[effect]))
    free = tile.settled()
    swing = 0.4 * np.abs(free).max()
    wanted = tile.nodal(swing=swing)
    volts, ended = saturate(tile.matrix[None], tile.loop.load, free[None], swing)
    # an amplifier at the end of its swing is a source; the ideal ones' gain of 1e12 bounds the difference elsewhere
    assert ended[0]
    assert far(volts[0], wanted) < 1e-9
    assert far(np.clip(free, -swing, swing), wanted) > 1e-2


@NEEDS_NGSPICE
def test_saturation_against_ngspice(tools):
    # the steady state of a transient: .op has no sense of stability, and clipped sources defeat its Newton steps
    tile = Tile(tools, tools.grid(3, 3), QUIET.replace(amplifier_gain=1e4, gain_bandwidth=BANDWIDTH))
    free = tile.settled()
    swing = 0.4 * np.abs(free).max()
    time = 40 / (2 * np.pi * BANDWIDTH * slowest_rate(tile.loop, tile.factors, tile.chip)[0])
    _, volts = ngspice(tile.netlist(swing=swing), [f"c{k}" for k in range(tile.n)],
                       f"tran {time / 400:.6g} {time:.6g} uic")
    got, _ = saturate(tile.matrix[None], tile.loop.load, free[None], swing)
    assert far(got[0], volts[-1]) < 1e-6


POLES = {
    "amplifiers": {},
    "finite gain": {"amplifier_gain": 1e3},
    "slow inverters": {"inverter_gain_bandwidth": BANDWIDTH},
    "fast inverters": {"inverter_gain_bandwidth": 10 * BANDWIDTH},
    "wires": {"wire_resistance": 5.0, "inverter_gain_bandwidth": BANDWIDTH, "amplifier_gain": 1e4},
    "second pole": {"second_pole": 2 * BANDWIDTH},
    "second pole below the first's bandwidth": {"second_pole": 0.05 * BANDWIDTH, "amplifier_gain": 1e3},
    "second pole, wires": {"second_pole": BANDWIDTH, "wire_resistance": 5.0, "amplifier_gain": 1e4},
    "all poles": {"second_pole": 3 * BANDWIDTH, "inverter_gain_bandwidth": 5 * BANDWIDTH, "amplifier_gain": 1e3},
}


@pytest.mark.parametrize("poles", POLES.values(), ids=POLES)
@pytest.mark.parametrize("block", [BLOCKS[k] for k in ("upwind 9", "both signs 16", "4x8 grid")], ids=["9", "16", "32"])
def test_settling_and_early_reading_against_nodal_dynamics(tools, block, poles):
    chip = QUIET.replace(gain_bandwidth=BANDWIDTH, **poles)
    tile = Tile(tools, block(tools), chip)
    motion, push = tile.netlist(gain=1e10).dynamics()
    slowest = -np.linalg.eigvals(motion).real.max() / (2 * np.pi * BANDWIDTH)
    assert slowest_rate(tile.loop, tile.factors, chip)[0] == pytest.approx(slowest, rel=1e-5)  # factors in float32
    time = 1.0 / (2 * np.pi * BANDWIDTH * slowest)  # one e-fold: a third is missing
    rest = -np.linalg.solve(motion, push)
    outputs = [k for k, amp in enumerate(tile.netlist(gain=1e10).amplifiers) if amp.out.startswith("c")]
    wanted = (rest - expm(time * motion) @ rest)[outputs]
    early = sampling(tile.loop, chip.replace(settle_time=time))[0] @ tile.settled()
    assert far(early, wanted) < 1e-6  # the amplifiers' gain of 1e10, and of their dynamics' eigenvalues
    assert far(tile.settled(), wanted) > 0.1


@NEEDS_NGSPICE
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("poles", [{}, {"inverter_gain_bandwidth": BANDWIDTH}, {"second_pole": 0.3 * BANDWIDTH},
                                   {"second_pole": 0.05 * BANDWIDTH}],
                         ids=["ideal inverters", "same op-amp", "second pole", "ringing"])
def test_settling_time_against_ngspice(tools, poles, bits):
    chip = QUIET.replace(gain_bandwidth=BANDWIDTH, amplifier_gain=1e5, adc_bits=bits, **poles)
    tile = Tile(tools, tools.grid(3, 4), chip)
    # the slowest mode alone, so that its time is that of the answer: others settle earlier
    values, modes = np.linalg.eig(tile.matrix / tile.loop.load[0][:, None])
    mode = modes[:, np.argmin(values.real)].real
    tile.input = tile.matrix @ mode / np.abs(mode).max() * 0.05
    time = settling_time(tile.loop, tile.factors, chip)[0]
    when, volts = ngspice(tile.netlist(gain=1e9), [f"c{k}" for k in range(tile.n)],
                          f"tran {time / 800:.6g} {1.3 * time:.6g} uic")
    rest = tile.settled()
    missing = np.abs(volts - rest).max(axis=1) / np.abs(rest).max()
    late = np.flatnonzero(missing > 2.0 ** -(bits + 1))[-1]
    # the last point that is not settled; between two points the logarithm is a line
    a, b = np.log(missing[late: late + 2])
    measured = when[late] + (when[late + 1] - when[late]) * (a + (bits + 1) * np.log(2)) / (a - b)
    assert measured == pytest.approx(time, rel=0.02)


@NEEDS_NGSPICE
@pytest.mark.parametrize("lowest", [0.05, -0.05])
def test_instability_is_seen_by_both(tools, lowest):
    chip = QUIET.replace(gain_bandwidth=BANDWIDTH, amplifier_gain=1e5, inverter_gain_bandwidth=BANDWIDTH,
                         wire_resistance=2.0, programming_error=None, cell_bits=None)
    matrix = tools.scaled(tools.grid(2, 3))
    matrix += (lowest - np.linalg.eigvalsh(matrix)[0]) * np.eye(6)
    tile = Tile(tools, matrix, chip)
    rate = np.linalg.eigvals(dynamics(tile.loop, chip)).real.max()[()]
    time = 8 / (2 * np.pi * BANDWIDTH * abs(rate))  # e-folds: 3e-4 left, or grown 3000 times
    _, volts = ngspice(tile.netlist(), [f"c{k}" for k in range(6)], f"tran {time / 200:.6g} {time:.6g} uic")
    distance = far(volts[-1], tile.settled())
    assert stable(tile.loop.blocks, tile.factors, tile.loop, chip)[0] == (lowest > 0) == (distance < 1e-2)
    assert distance < 1e-2 or distance > 100


@NEEDS_NGSPICE
@pytest.mark.parametrize("second", [0.5, 2.0])
def test_a_second_pole_unsettles_a_swirl(tools, second):
    """μ = 0.5 ± 0.7i of D⁻¹K: unstable where 0.5 < 0.7²/q, that is below q = 0.98 bandwidths."""
    swirl = np.array([[0.5, -0.7], [0.7, 0.5]])
    chip = QUIET.replace(cell_bits=None, programming_error=None, gain_bandwidth=BANDWIDTH, amplifier_gain=1e6,
                         second_pole=second * BANDWIDTH)
    tile = Tile(tools, swirl / 0.5, chip)  # the diagonal becomes 1; the rows load their nodes with 2.4
    load = 1.0 + 0.7 / 0.5
    mu = np.linalg.eigvals(tile.matrix / tile.loop.load[0][:, None])
    np.testing.assert_allclose(sorted(mu.imag), np.array([-1.4, 1.4]) / load, rtol=1e-5)
    edge = mu.imag[0] ** 2 / mu.real[0]
    rate = fastest_growth(tile.loop, chip)[0]
    time = 8 / (2 * np.pi * BANDWIDTH * abs(rate))  # e-folds: 3e-4 left, or grown 3000 times
    _, volts = ngspice(tile.netlist(), ["c0", "c1"], f"tran {time / 2000:.6g} {time:.6g} uic")
    distance = far(volts[-50:], tile.settled()[None])
    assert stable(tile.loop.blocks, tile.factors, tile.loop, chip)[0] == (second > edge) == (distance < 1e-2)
    assert stable(tile.loop.blocks, tile.factors)[0]  # one pole holds it
    assert distance < 1e-2 or distance > 100


def test_slow_inverters_unsettle_what_ideal_ones_hold():
    # G⁺ with a negative eigenvalue, which only the inverters' array makes up for: w' + w p > 0 fails for slow ones
    plus = np.array([[0.2, 1.0], [1.0, 0.2]])
    minus = np.array([[0.0, 0.9], [0.9, 0.0]])
    loaded = np.diag((plus + minus).sum(axis=1))
    chip = QUIET.replace(cell_bits=None, programming_error=None, gain_bandwidth=BANDWIDTH,
                         inverter_gain_bandwidth=0.1 * BANDWIDTH)
    blocks = Blocks.from_dense((plus - minus)[None])
    held = program(*scale_blocks(blocks), chip)
    loop = close(held, chip, Spread.draw(blocks, chip, seed=0, name=""))
    # the netlist's own arrays: both cells of the pair on, which programming never does
    loop = type(loop)(blocks, np.diag(loaded)[None], loop.starts, loop.passed, loop.offset, minus[None],
                      loop.wire_error)
    tile = inv_tile(plus * 1e-5, minus * 1e-5, np.zeros(2), Parts(
        gain=1e10, gain_bandwidth=BANDWIDTH, inverter_gain=1e10, inverter_bandwidth=0.1 * BANDWIDTH))
    motion, _ = tile.dynamics()
    assert np.linalg.eigvals(motion).real.max() > 0
    factors = factorise(blocks)
    assert not stable(blocks, factors, loop, chip)[0]
    assert stable(blocks, factors)[0]


@pytest.mark.parametrize(("m", "n", "filled"), [(4, 7, 1.0), (8, 8, 0.2), (16, 16, 1.0), (32, 24, 0.6)])
@pytest.mark.parametrize(("row", "column"), [(0.5, 5.0), (5.0, 0.0), (0.0, 5.0)])
def test_wires_of_arrays_against_nodal_solver(m, n, filled, row, column):
    # the two ways of exact elimination, and the readout with the amplifiers' own errors
    rng = np.random.default_rng(m)
    a = rng.uniform(-1, 1, (m, n)) * (rng.random((m, n)) < filled)
    chip = QUIET.replace(amplifier_gain=200.0, amplifier_offset=1e-3)
    chip = chip.from_dict({**chip.as_dict(), "wire": {"row": row, "column": column, "elimination": "exact"}})
    i, j = np.nonzero(a)
    offset = rng.normal(size=(1, m)) * 1e-3
    seen = read_out(np.array([0, len(i)]), i, j, a[i, j], np.ones(1), np.array([m]), np.array([n]), chip, offset)
    volts = rng.uniform(-0.2, 0.2, n)
    unit = chip.cell.conductance_max
    answer = mvm_tile(np.maximum(a, 0) * unit, np.maximum(-a, 0) * unit, volts, unit, Parts(
        gain=200.0, offset=offset[0], row=row, column=column)).solve()
    wanted = -np.array([answer[f"o{k}"] for k in range(m)])
    matrix = np.zeros((m, n))
    matrix[seen.row, seen.col] = seen.value
    assert far(matrix @ volts + seen.offset[0], wanted) < 1e-9
    assert far(a @ volts, wanted) > 1e-4


@NEEDS_NGSPICE
@pytest.mark.parametrize("n", [4, 16, 32])
@pytest.mark.parametrize("effect", ["gain", "offset", "wires", "all"])
def test_open_loop_against_ngspice(n, effect):
    rng = np.random.default_rng(n)
    a = rng.uniform(-1, 1, (n, n)) * (rng.random((n, n)) < 0.5)
    ohm, gain = 5.0 if effect in ("wires", "all") else 0.0, 200.0 if effect in ("gain", "all") else 1e8
    offset = np.zeros((1, n)) if effect in ("gain", "wires") else rng.normal(size=(1, n)) * 1e-3
    chip = QUIET.replace(amplifier_gain=gain, wire_resistance=ohm)
    i, j = np.nonzero(a)
    seen = read_out(np.array([0, len(i)]), i, j, a[i, j], np.ones(1), np.array([n]), np.array([n]), chip, offset)
    matrix = np.zeros((n, n))
    matrix[seen.row, seen.col] = seen.value
    volts, unit = rng.uniform(-0.2, 0.2, n), chip.cell.conductance_max
    _, answer = ngspice(mvm_tile(np.maximum(a, 0) * unit, np.maximum(-a, 0) * unit, volts, unit, Parts(
        gain=gain, offset=offset[0], row=ohm, column=ohm)), [f"o{k}" for k in range(n)])
    assert far(matrix @ volts + seen.offset[0], -answer[0]) < 1e-6


def test_both_eliminations_agree_and_balance():
    wires = importlib.import_module("analogpde.tile.wires")
    g = np.random.default_rng(0).uniform(0, 35e-6, (3, 12, 12))
    g[1] *= np.random.default_rng(1).random((12, 12)) < 0.2
    g[2] = 0.0
    row, column = np.array([5.0, 0.5, 1.0]), np.array([2.0, 7.0, 1.0])
    for one, other in zip(wires._by_cells(g, row, column), wires._march(g, row, column), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * 35e-6 * 12)
    through, across = eliminate(g, row, column)
    # equal voltages at both ends drive nothing
    np.testing.assert_allclose(through.sum(axis=2), across.sum(axis=2), rtol=0, atol=1e-12 * 35e-6 * 12)


@pytest.mark.parametrize(("n", "ohm"), [(16, 5.0), (32, 2.0), (64, 0.5)])
@pytest.mark.parametrize("band", [1, 2, 1000])
def test_estimate_bounds_the_approximation(n, ohm, band):
    g = np.random.default_rng(n).uniform(0.5e-6, 35e-6, (1, n, n))
    g = np.where(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) < band, g, 0.0)
    exact, _ = eliminate(g, np.array([ohm]), np.array([ohm]))
    got, change = approximate(g, np.array([ohm]), np.array([ohm]))
    error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    ignored = np.linalg.norm(g - exact) / np.linalg.norm(exact)
    estimate = error_estimate(change)[0]
    assert error < 0.3 * ignored
    # the factor is that of a diagonal of uniformly distributed cells in the limit of many
    assert 0.3 * estimate < error < 1.1 * estimate


RECORDED = json.loads((Path(__file__).parent / "data" / "badcrossbar.json").read_text())["cases"]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["name"])
def test_badcrossbar_agrees_on_wires(case):
    """A program of others; recorded, since it asks for a graphics library (scripts/record_badcrossbar.py)."""
    g, volts = np.array(case["conductance"]), np.array(case["volts"])
    row, column = np.array([case["row"]]), np.array([case["column"]])
    through, _ = eliminate(g[None], row, column)
    wanted = np.array(case["current"])
    np.testing.assert_allclose(through[0] @ volts, wanted, rtol=1e-9)
    assert np.abs(g @ volts - wanted).max() > 1e-4 * np.abs(wanted).max()  # the wires are there
    approximated, change = approximate(g[None], row, column)
    error = np.abs(approximated[0] @ volts - wanted).max() / np.abs(g @ np.abs(volts)).max()
    assert error < error_estimate(change).max()


def test_the_record_is_badcrossbars():
    pytest.importorskip("badcrossbar", reason="badcrossbar is not installed: its record was compared above")
    sys.path.append(str(Path(__file__).parents[2] / "scripts"))
    record_badcrossbar = importlib.import_module("record_badcrossbar")
    for case in RECORDED:
        again = record_badcrossbar.currents(*(np.array(case[key]) for key in ("conductance", "volts")), case["row"],
                                            case["column"])
        np.testing.assert_allclose(again, case["current"], rtol=1e-12)


@pytest.mark.parametrize("effect", [{}, EFFECTS["gain"], EFFECTS["wires"], ALL,
                                    {**ALL, "output_swing": 0.3, "dac_range": 0.5, "bound_repeats": 0}],
                         ids=["none", "gain", "wires", "all", "saturated"])
def test_bank_answers_as_the_circuit(tools, effect):
    # the emulator's shot from the host's numbers to the host's numbers, in float32 inside
    matrix = tools.grid(4, 4)
    chip = QUIET.replace(programming_error=None, **effect)
    bank = program_bank(tools.pack([matrix]), chip, seed=3, name="proof")
    tile = Tile(tools, matrix, chip)
    x = np.random.default_rng(7).normal(size=(1, 16))
    tile.input = x[0] * bank.scale[0]
    full = np.abs(tile.input).max()
    volt = bank.circuit.full_scale[0] if bank.circuit else 1.0
    tile.input *= volt / full
    swing = chip.amplifier.swing or np.inf
    wanted = tile.nodal(swing=swing) * full / volt * bank.scale[0]
    ledger = bank.shoot(x, 0)
    assert ledger.inv_shots == 1
    kappa = np.linalg.cond(tile.matrix)
    assert far(x[0], wanted) < 4 * kappa * np.sqrt(16) * tools.unit_roundoff
    if "output_swing" in effect:
        assert np.abs(tile.nodal()).max() > swing


def test_bound_management_repeats_what_clips(tools):
    matrix = tools.grid(4, 4)
    x = np.ones((2, 16))
    x[1] = 0.0
    x[1, 3] = 1.0
    plain = x.copy()
    program_bank(tools.pack([matrix, matrix]), QUIET).shoot(plain, 0)
    for limits in ({"output_swing": 0.5, "dac_range": 1.0}, {"adc_range": 0.5, "dac_range": 1.0}):
        chip = QUIET.replace(**limits)
        bank = program_bank(tools.pack([matrix, matrix]), chip)
        got = x.copy()
        ledger = bank.shoot(got, 0)
        np.testing.assert_allclose(got, plain, rtol=0, atol=1e-4 * np.abs(plain).max())
        # the largest output of a full-scale input is that of all ones: halved until it is below the limit
        wanted = np.ceil(np.log2(np.abs(plain[0] * 4).max() / 4 / 0.5 * 4 / bank.scale[0, 0] ** 2 / 4))
        assert ledger.inv_repeats >= wanted > 0
        assert ledger.inv_shots == 2 + ledger.inv_repeats
        # ranges found at programming clip nothing
        free = program_bank(tools.pack([matrix, matrix]), chip.replace(dac_range=None))
        assert free.shoot(x.copy(), 0).inv_repeats == 0


def test_compensated_gain(tools):
    matrix = tools.grid(4, 4)
    chip = QUIET.replace(cell_bits=None, programming_error=None, amplifier_gain=1e3)
    x = np.random.default_rng(7).normal(size=(1, 16))
    exact = np.linalg.solve(matrix, x[0])
    errors = []
    for flag in (False, True):
        y = x.copy()
        program_bank(tools.pack([matrix]), chip.replace(compensate_gain=flag)).shoot(y, 0)
        errors.append(far(y[0], exact))
    # D/A of the compensation itself is all that is left: second order in 1/A
    assert errors[1] < 2e-2 * errors[0]
    assert errors[0] > 1e-3


def test_open_loop_lines(tools):
    # converters of a product: offsets and ranges as the circuit has them
    rng = np.random.default_rng(5)
    m, n = 6, 9
    a = rng.uniform(-1, 1, (m, n))
    entries = Entries(np.zeros(m * n, int), np.repeat(np.arange(m), n), np.tile(np.arange(n), m), a.ravel())
    chip = QUIET.replace(amplifier_offset=1e-3, amplifier_gain=1e3, wire_resistance=5.0, programming_error=None,
                         cell_bits=None)
    bank, _ = program_mvm(entries, np.zeros(1, np.int64), chip, name="z", seed=4)
    x, y = rng.uniform(-1, 1, (1, n)), np.zeros((1, m))
    bank.subtract(x, y, 0)
    full, unit, most = bank.circuit.full_scale[0], chip.cell.conductance_max / np.abs(a).max(), np.abs(x).max()
    offset = OpenLines.draw(bank.tiles, n, chip, seed=4, name="z")[0][0, :m]
    volts = mvm_tile(np.maximum(a, 0) * unit, np.maximum(-a, 0) * unit, x[0] / most * full,
                     np.abs(a).max() * unit, Parts(gain=1e3, row=5.0, column=5.0, offset=offset)).solve()
    wanted = -np.array([volts[f"o{i}"] for i in range(m)]) * np.abs(a).max() / full * most
    assert far(-y[0], wanted) < 16 * tools.unit_roundoff * np.sqrt(n)
    # a range below the outputs is met by halving the input
    tight, _ = program_mvm(entries, np.zeros(1, np.int64), chip.replace(adc_range=0.05, dac_range=0.1), name="z")
    z = np.zeros((1, m))
    assert tight.subtract(x, z, 0).mvm_shots > 1


def test_arrays_in_parts_are_as_one(monkeypatch):
    # wires need full matrices: arrays are read out a few at a time
    rng = np.random.default_rng(8)
    a = rng.uniform(-1, 1, (5, 6, 4)) * (rng.random((5, 6, 4)) < 0.6)
    a[:, :, 0] = 1.0
    tile, i, j = np.nonzero(a)
    offsets = np.searchsorted(tile, np.arange(6))
    chip = QUIET.replace(wire_resistance=5.0, amplifier_gain=200.0)
    how = (offsets, i, j, a[tile, i, j], np.ones(5), np.full(5, 6), np.full(5, 4), chip, rng.normal(size=(5, 6)))
    whole = read_out(*how)
    monkeypatch.setattr(importlib.import_module("analogpde.tile.open_loop"), "_ROOM", 48)
    parts = read_out(*how)
    for name in ("offsets", "row", "col", "value", "passed", "source", "offset"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))

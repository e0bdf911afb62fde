"""PDEs on tiles with circuit effects: FP32-equivalence is reached, or the solve says that it is not."""

from __future__ import annotations

import numpy as np
import pytest

mpi = pytest.mark.mpi
# A plausible circuit: two-stage op-amps of 80 dB and 10 MHz, 1 mV of offset, 1 V of swing, wires of 1 Ω a cell.
REAL = {
    "analog_amplifier_gain": 1e4, "analog_amplifier_offset": 1e-3, "analog_gain_bandwidth": 1e7,
    "analog_output_swing": 1.0, "analog_inverter_gain": 1e4, "analog_inverter_offset": 1e-3,
    "analog_inverter_mismatch": 2e-3, "analog_inverter_gain_bandwidth": 1e7, "analog_wire_resistance": 1.0,
    "analog_adc_offset": 2e-3, "analog_dac_offset": 2e-3, "analog_adc_noise": 1e-3, "analog_dac_noise": 1e-3,
    "analog_input_conductance": 1e-5,
}
SYSTEMS = {
    "2-D": lambda gallery: gallery.poisson(16, 15),
    "3-D": lambda gallery: gallery.poisson(6, 6, 5),
    "mass": lambda gallery: gallery.mass(12),
    "convection": lambda gallery: gallery.convection(16, 1.0),
}


@mpi
@pytest.mark.parametrize(("name", "chip"), [*((name, "rram128") for name in SYSTEMS), ("2-D", "sram64")])
def test_all_effects_together_reach_fp32(solve, gallery, name, chip):
    done = solve(SYSTEMS[name](gallery), analog_chip=chip, analog_tile_size=64, **REAL)
    done.assert_fp32()
    assert done.iterations <= 60


@pytest.mark.parametrize("given", [
    {"analog_settle_time": 1e-6}, {"analog_wires": "approximate"}, {"analog_compensate_gain": "true"},
    {"analog_dac_range": 0.3, "analog_bound_repeats": 8}, {"analog_adc_range": 1.0, "analog_dac_range": 0.05},
    {"analog_tiles_per_rank": 4}, {"analog_blockamc": 1, "analog_tile_size": 32, "pc_analog_coarse": "blockamc"},
], ids=str)
def test_all_effects_with_each_option_reach_fp32(solve, gallery, given):
    solve(gallery.poisson(16, 15), **{"analog_tile_size": 64, **REAL, **given}).assert_fp32()


@mpi
@pytest.mark.parametrize("given", [
    {"analog_amplifier_gain": 10.0}, {"analog_amplifier_offset": 0.1}, {"analog_inverter_mismatch": 0.2},
    {"analog_wire_resistance": 1e3},
    {"analog_output_swing": 1e-3, "analog_dac_range": 100.0, "analog_bound_repeats": 0},
    {"analog_gain_bandwidth": 1e6, "analog_settle_time": 1e-9}, {"analog_adc_range": 1e-6, "analog_dac_range": 1.0},
    {"analog_adc_offset": 0.5, "analog_dac_offset": 0.5}, {"analog_adc_noise": 0.5, "analog_dac_noise": 0.5},
    {"analog_gain_bandwidth": 1e9, "analog_inverter_gain_bandwidth": 1e3},
], ids=str)
def test_what_no_tile_survives_is_fp32_or_refused(solve, gallery, PETSc, given):
    from analogpde.errors import AnalogError, cause

    try:
        done = solve(gallery.poisson(12, 11), analog_tile_size=64, ksp_max_it=60, **given)
    except (PETSc.Error, AnalogError) as error:  # a tile that is no stable circuit
        assert "unstable" in str(cause(error))
        return
    if done.reason > 0:
        done.assert_fp32()
    else:
        assert np.isfinite(done.x).all()


@mpi
def test_settling_time_and_repeats_are_counted(solve, gallery):
    from analogpde.petsc import log

    slow = {"analog_gain_bandwidth": 1e6, "analog_output_swing": 0.2, "analog_dac_range": 1.0}
    done = solve(gallery.poisson(16, 15), analog_tile_size=64, **slow)
    once = log.session().totals
    assert once.inv_repeats > 0
    assert once.inv_shots > once.inv_repeats
    assert "the slowest tile settles to 8 bits in" in done.analog.describe()
    # ln(2^9)/(2π 1 MHz λ) with λ = λ_min(D⁻¹G) below 1/2, D twice the diagonal of a row inside
    assert once.settling_seconds > once.inv_shots * np.log(2**9) / (2 * np.pi * 1e6 * 0.5)
    solve(gallery.poisson(16, 15), analog_tile_size=64, analog_settle_time=2e-6, **slow)
    both = log.session().totals
    seconds = (both - once).settling_seconds
    assert seconds == pytest.approx(2e-6 * (both - once).inv_shots)
    # the longest shot of a round, and the lines of every shot, in units of ln(2^9)/(2π 1 MHz)
    unit = np.log(2**9) / (2 * np.pi * 1e6)
    early = both - once
    assert early.round_settlings * unit == pytest.approx(2e-6 * early.rounds)
    # not more lines drive amplifiers than DACs drive, repeats included
    assert early.amplifier_settlings * unit == pytest.approx(2e-6 * early.dac_conversions)


@mpi
def test_the_same_seed_gives_the_same_answer(solve, gallery):
    matrix = gallery.poisson(12, 11)
    first, second, other = (solve(matrix, analog_seed=seed, **REAL) for seed in (3, 3, 4))
    assert (first.x == second.x).all()
    assert (first.x != other.x).any()

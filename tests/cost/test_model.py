"""The cost model: each part from its formula, ratios that move the right way, no number without a source."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from analogpde.cost import CONSTANTS, Ledger, Run, estimate
from analogpde.cost.model import (
    NOMINAL,
    adc_energy,
    analog_energy,
    analog_time,
    break_even,
    gpu,
    programming_energy,
    programming_time,
    ratios,
    sensitivity,
    sram,
)
from analogpde.errors import InvalidInput

# ten iterations on a thousand tiles of 64, programmed once, one solve, five-point stencil of 32 000 unknowns
RUN = Run(
    operations=Ledger(
        inv_shots=20_000, dac_conversions=1_280_000, adc_conversions=640_000, cells_written=400_000,
        write_pulses=3_400_000, pulses_in_turn=1000 * 64 * 12, tiles_programmed=1000, host_flops=20_000_000,
        host_bytes=120_000_000, inv_products=40_960_000,
        amplifier_settlings=20_000 * 64 * 50.0, rounds=30, round_settlings=30 * 60.0),
    programmings=1, right_hand_sides=1, iterations=10, unknowns=32_000, entries=160_000, ranks=1, tile=64, adc_bits=4)


@pytest.mark.parametrize(("name", "value"), [
    ("right_hand_sides", -1), ("iterations", -1), ("unknowns", 0), ("ranks", 0), ("tile", 0), ("bandwidth", 0.0),
    ("bandwidth", math.nan), ("gamg_flops", -1.0), ("gamg_bytes", math.nan), ("gamg_kernels", math.inf)])
def test_numbers_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(InvalidInput, match=f"^{name}: got"):
        dataclasses.replace(RUN, **{name: value})


WRITTEN = ("cells_written", "tiles_programmed", "write_pulses", "pulses_in_turn")


def many(run, count):
    """The same matrix with more right-hand sides."""
    o = run.operations
    scaled = Ledger(**{name: value * count if name not in WRITTEN else value
                       for name, value in o.as_dict().items()})
    return dataclasses.replace(run, operations=scaled, right_hand_sides=count, iterations=run.iterations * count)


def test_every_constant_has_its_papers():
    for name, constant in CONSTANTS.items():
        assert constant.low <= constant.value <= constant.high, name
        assert constant.low < constant.high, name
        assert constant.unit, name
        assert constant.meaning, name
        assert constant.source, name
        assert constant.confidence in ("published", "second-hand", "derived", "measured", "assumed"), name


def test_amplifiers_follow_the_slowest_mode():
    """E = V C ln 2^(b+1)/(2π merit λ) for each of two amplifiers of a line: 1 pJ/λ at 1 pF and 4 bits."""
    one = analog_energy(RUN, "sram", {**NOMINAL, "amplifier_load": 1e-12})["amplifiers"]
    assert one == pytest.approx(2 * RUN.operations.amplifier_settlings * 1.01e-12, rel=0.01)
    slower = dataclasses.replace(RUN, operations=RUN.operations + Ledger(amplifier_settlings=6.4e7))
    assert analog_energy(slower, "sram", NOMINAL)["amplifiers"] == pytest.approx(
        2 * analog_energy(RUN, "sram", NOMINAL)["amplifiers"])
    # the bandwidth buys time, not energy
    fast = {**NOMINAL, "bandwidth": 10 * NOMINAL["bandwidth"]}
    assert analog_energy(RUN, "sram", fast)["amplifiers"] == analog_energy(RUN, "sram", NOMINAL)["amplifiers"]
    assert analog_time(RUN, "sram", fast)["settling"] == pytest.approx(
        analog_time(RUN, "sram", NOMINAL)["settling"] / 10)


def test_a_chips_own_amplifiers_set_the_time():
    """Half of the time, and the same energy, if the chip is twice as fast as the constant has it.

    What a multiplier converts beside does not count as settling.
    """
    own = dataclasses.replace(RUN, bandwidth=2 * NOMINAL["bandwidth"])
    sliced = dataclasses.replace(own, operations=RUN.operations + Ledger(
        mvm_slices=10**7, mvm_rounds=80, dac_conversions=10**8, adc_conversions=10**8))
    for run in (own, sliced):
        assert analog_time(run, "sram", NOMINAL)["settling"] == pytest.approx(
            0.5 * analog_time(RUN, "sram", NOMINAL)["settling"])
        assert analog_energy(run, "sram", NOMINAL)["amplifiers"] == analog_energy(RUN, "sram", NOMINAL)["amplifiers"]


def test_input_slices_follow_each_other():
    """Eight slices of each of ten residuals: 60 ns to settle and eight lines at an ADC of 1 ns."""
    sliced = dataclasses.replace(RUN, operations=RUN.operations + Ledger(mvm_rounds=80))
    assert analog_time(RUN, "sram", NOMINAL)["multiplier"] == 0.0
    assert analog_time(sliced, "sram", NOMINAL)["multiplier"] == pytest.approx(80 * (60e-9 + 8e-9))


def test_converters_by_their_bits():
    assert adc_energy(8, NOMINAL) == pytest.approx(1.67e-12)
    assert adc_energy(4, NOMINAL) == pytest.approx(0.79e-12, rel=0.02)  # ISAAC's
    assert adc_energy(None, NOMINAL) == adc_energy(12, NOMINAL) > 10 * adc_energy(8, NOMINAL)


def test_writing_is_what_was_pulsed():
    assert programming_energy(RUN, NOMINAL) == pytest.approx(3_400_000 * 140e-12)
    assert programming_time(RUN, NOMINAL) == pytest.approx(64 * 12 * 1.1e-6)
    assert estimate(RUN)["programming"]["pulses"] == 3_400_000


def test_measured_gamg_replaces_the_model():
    modelled, seconds, *_ = gpu(RUN, NOMINAL)
    twice = dataclasses.replace(RUN, gamg_flops=1e9, gamg_bytes=1e10, gamg_kernels=1000)
    energy, slow, *_ = gpu(twice, NOMINAL)
    assert energy == pytest.approx(1e10 * 210e-12 + 1e9 * 15e-12 + 1000 * 4e-6 * 150)
    assert slow == pytest.approx(1e10 / (0.8 * 3.35e12) + 1000 * 4e-6)
    assert modelled > 0
    assert seconds > 0


def test_modelled_gamg_is_what_was_measured():
    """The model's counts against those that `scripts/study_cost.py` measured, within its constants' ranges."""
    cases = json.loads((Path(__file__).parents[2] / "docs" / "cost.json").read_text(encoding="utf-8"))
    for name, case in cases.items():
        run = dataclasses.replace(RUN, unknowns=case["unknowns"], entries=case["entries"])
        real = dataclasses.replace(run, gamg_flops=case["gamg_flops"], gamg_bytes=case["gamg_bytes"],
                                   gamg_kernels=case["gamg_kernels"])
        # 12 iterations stand for 10 to 14, 10 products for 9.5 to 11.3
        for modelled, measured in zip(gpu(run, NOMINAL), gpu(real, NOMINAL), strict=True):
            assert modelled == pytest.approx(measured, rel=0.25), name


def test_a_dense_matrix_is_factorised_once():
    n = 2000
    dense = dataclasses.replace(RUN, unknowns=n, entries=n * n, right_hand_sides=5)
    rival = gpu(dense, NOMINAL)
    flops, moved = 2 / 3 * n**3, 16 * n**2  # read and written once, at least
    assert rival.made == pytest.approx(flops * 15e-12 + moved * 210e-12 + 3 * 32 * 4e-6 * 150)
    assert rival.making == pytest.approx(flops / 34e12 + 3 * 32 * 4e-6)
    assert rival.seconds == pytest.approx(5 * (8 * n**2 / (0.8 * 3.35e12) + 2 * 4e-6))
    assert estimate(dense)["dense"]
    assert not estimate(RUN)["dense"]


def test_break_even_is_where_both_have_spent_the_same():
    values = {**NOMINAL, "mac": 3.7e-12, "inversion_flop": 0.3e-12}
    count = break_even(RUN, "sram", values)
    assert 2 < count < 50
    for sides in (math.floor(count), math.ceil(count)):
        assert (ratios(many(RUN, sides), values)["energy_sram"] > 1.0) is (sides > count)
    # a chip that loses each solve never earns its programming back
    assert break_even(RUN, "sram", {**values, "amplifier_load": 1e-10}) == math.inf
    # what is cheaper to write than to invert is ahead at once, as long as it wins a solve
    assert break_even(RUN, "sram", {**values, "inversion_flop": 1e-11}) == 0.0
    assert estimate(RUN)["break_even"]["hbm"] == break_even(RUN, "hbm", NOMINAL) < 1.0


def test_sensitivity_runs_over_every_range_and_starts_with_the_weightiest():
    bars = sensitivity(RUN)
    assert {bar["constant"] for bar in bars} == set(CONSTANTS)
    nominal = ratios(RUN, NOMINAL)
    for bar in bars:
        for memory in ("hbm", "sram"):
            low, high = sorted(bar[memory])
            assert low * (1 - 1e-12) <= nominal[f"energy_{memory}"] <= high * (1 + 1e-12), bar
    spans = [max(abs(math.log(bar[m][1] / bar[m][0])) for m in ("hbm", "sram")) for bar in bars]
    assert spans == sorted(spans, reverse=True)
    for memory in ("hbm", "sram"):
        worst, best = estimate(RUN)["ranges"][memory]
        assert worst < min(min(bar[memory]) for bar in bars)
        assert best > max(max(bar[memory]) for bar in bars)


def test_stored_inverses_cost_their_multiplications():
    energy, _, made, _ = sram(RUN, NOMINAL)
    none = RUN.operations - Ledger(inv_products=40_960_000)
    host_only, *_ = sram(dataclasses.replace(RUN, operations=none), NOMINAL)
    assert energy - host_only == pytest.approx(40_960_000 * 0.5e-12)
    assert made == pytest.approx(1000 * (2 * 64**3 * 1e-12 + 64**2 * 0.64e-12))

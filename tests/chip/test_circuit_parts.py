"""Amplifiers, inverters, wires, volts of the converters: data, checked, written and read back, off by default."""

import dataclasses
import json
import math
import re

import pytest

from analogpde.chip import PRESETS, Amplifier, Chip, Converter, Inverter, Wire
from analogpde.chip.chip import OVERRIDES, PARTS
from analogpde.errors import InvalidInput
from analogpde.options import TABLE

# Field, a constructor by value, lowest and highest value, unit.
FIELDS = [
    ("amplifier.gain", lambda v: Amplifier(gain=v), 10, 1e9, ""),
    ("amplifier.gain_bandwidth", lambda v: Amplifier(gain_bandwidth=v), 1e3, 1e12, "Hz"),
    ("amplifier.offset", lambda v: Amplifier(offset=v), 0.0, 0.1, "V"),
    ("amplifier.swing", lambda v: Amplifier(swing=v), 1e-3, 100.0, "V"),
    ("amplifier.input_conductance", lambda v: Amplifier(input_conductance=v), 1e-9, 1.0, "S"),
    ("amplifier.second_pole", lambda v: Amplifier(gain_bandwidth=1e6, second_pole=v), 1e3, 1e13, "Hz"),
    ("amplifier.settle_time", lambda v: Amplifier(gain_bandwidth=1e6, settle_time=v), 1e-12, 1.0, "s"),
    ("inverter.gain", lambda v: Inverter(gain=v), 10, 1e9, ""),
    ("inverter.gain_bandwidth", lambda v: Inverter(gain_bandwidth=v), 1e3, 1e12, "Hz"),
    ("inverter.offset", lambda v: Inverter(offset=v), 0.0, 0.1, "V"),
    ("inverter.mismatch", lambda v: Inverter(mismatch=v), 0.0, 0.2, ""),
    ("wire.row", lambda v: Wire(row=v), 0.0, 1e4, "Ω"),
    ("wire.column", lambda v: Wire(column=v), 0.0, 1e4, "Ω"),
    ("converter.range", lambda v: Converter(range=v), 1e-6, 100.0, "V"),
    ("converter.offset", lambda v: Converter(offset=v), 0.0, 0.5, ""),
    ("converter.noise", lambda v: Converter(noise=v), 0.0, 0.5, ""),
]
# Every override, with a value that no preset has.
VALUES = {
    "dac_range": 0.2, "dac_offset": 0.01, "dac_noise": 0.02, "adc_range": 0.7, "adc_offset": 0.03, "adc_noise": 0.04,
    "bound_repeats": 3, "amplifier_gain": 1e4, "gain_bandwidth": 1e7, "amplifier_offset": 1e-3, "output_swing": 1.5,
    "second_pole": 3e6, "input_conductance": 1e-5, "settle_time": 1e-6, "compensate_gain": True, "inverter_gain": 1e5,
    "inverter_gain_bandwidth": 2e7, "inverter_offset": 2e-3, "inverter_mismatch": 0.01, "wire_resistance": 2.0,
    "wires": "approximate",
}


@pytest.mark.parametrize(("name", "make", "low", "high", "unit"), FIELDS, ids=[f[0] for f in FIELDS])
def test_ranges(name, make, low, high, unit):
    part = make(low)
    field = next(f for f in dataclasses.fields(part) if f.name == name.rpartition(".")[2])
    assert (field.metadata["unit"], field.metadata["meaning"][-1]) == (unit, ".")
    make(high)
    make(None)
    for value in (low - 1, high * 1.01, math.nan, math.inf, "3", True):
        with pytest.raises(InvalidInput, match=re.escape(f"{name}: got {value!r}; allowed: a number from")):
            make(value)


def test_presets_are_ideal_circuits():
    for chip in PRESETS.values():
        assert chip.ideal_loop
        assert chip.ideal_lines
        assert (chip.amplifier, chip.inverter, chip.wire) == (Amplifier(), Inverter(), Wire())


@pytest.mark.parametrize(("name", "value"), VALUES.items(), ids=VALUES)
def test_override_sets_its_fields_and_survives_json(name, value):
    with_poles = PRESETS["rram128"].replace(gain_bandwidth=1e6, amplifier_gain=1e5)
    chip = with_poles.replace(**{name: value})
    for target in OVERRIDES[name]:
        part, _, attribute = target.rpartition(".")
        assert getattr(getattr(chip, part) if part else chip, attribute) == value
        assert f"-analog_{name}" in chip.sources[target].text
    assert Chip.from_dict(json.loads(chip.to_json())) == chip != with_poles


def test_all_overrides_at_once_in_any_order():
    chip = PRESETS["rram128"].replace(**dict(reversed(VALUES.items())))
    assert chip == PRESETS["rram128"].replace(**VALUES)
    assert not chip.ideal_loop
    assert not chip.ideal_lines
    words = chip.summary()
    for said in ("amplifier gain 1e+04", "amplifier compensated", "wire row 2 Ω", "adc range 0.7 V"):
        assert said in words


def test_every_override_is_an_option():
    assert {f"analog_{name}" for name in OVERRIDES} <= set(TABLE)
    assert set(VALUES) <= set(OVERRIDES)


def test_a_file_without_the_circuit_has_an_ideal_one():
    data = PRESETS["rram128"].as_dict()
    for part in ("amplifier", "inverter", "wire"):
        del data[part]
    assert Chip.from_dict(data) == PRESETS["rram128"]
    assert set(PARTS) >= {"amplifier", "inverter", "wire"}


@pytest.mark.parametrize(("part", "values", "said"), [
    ("amplifier", {"settle_time": 1e-6}, "give it a gain_bandwidth"),
    ("amplifier", {"compensated": 1}, "amplifier.compensated: got 1; allowed: true | false"),
    ("amplifier", {"gian": 3}, "Did you mean gain?"),
    ("wire", {"elimination": "exactly"}, "wire.elimination: got 'exactly'; allowed: auto | exact | approximate"),
    ("wire", {"resistance": 1.0}, "the fields row, column, elimination"),
    ("inverter", 3, "inverter: got 3"),
])
def test_bad_parts(part, values, said):
    data = {**PRESETS["rram128"].as_dict(), part: values}
    with pytest.raises(InvalidInput, match=re.escape(said)):
        Chip.from_dict(data)


@pytest.mark.parametrize(("name", "linear"), [
    ("amplifier_gain", True), ("wire_resistance", True), ("inverter_mismatch", True), ("gain_bandwidth", True),
    ("amplifier_offset", False), ("inverter_offset", False), ("output_swing", False), ("dac_offset", False),
    ("adc_noise", False), ("adc_range", False),
])
def test_what_leaves_a_shot_a_fixed_linear_map(name, linear):
    assert PRESETS["ideal"].replace(**{name: VALUES[name]}).deterministic == linear

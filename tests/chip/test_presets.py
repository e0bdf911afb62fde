"""Named chips: complete, sourced, and the same after a trip through JSON."""

import json
import re

import numpy as np
import pytest

from analogpde.chip import PRESETS, Cell, Chip, Converter, load
from analogpde.chip.chip import fields_of_chips
from analogpde.errors import InvalidInput

ALL = pytest.mark.parametrize("chip", PRESETS.values(), ids=PRESETS)
# What the presets must hold, from the texts that define them: tile, cell bits, programming error, read noise, DAC, ADC.
EXPECTED = {
    "ideal": (128, None, None, None, None, None),
    "pku2019": (3, None, 0.01, None, None, None),
    "pku2025": (128, 3, 0.02, 0.01, 4, 4),
    "pku2025-16": (16, 3, 0.02, 0.01, 4, 4),
    "rram128": (128, 4, 0.01, 0.005, 6, 8),
    "rram512": (512, 6, 0.005, 0.005, 8, 10),
    "sram64": (64, 4, 0.005, 0.002, 8, 8),
    "pcm": (256, 4, None, 0.0088, 8, 8),
    "mram": (128, 1, None, 0.002, 6, 8),
    "fefet": (128, 3, 0.03, 0.005, 6, 8),
}
# What one override of each kind must reach.
OVERRIDES = [
    ("tile_size", 32, lambda chip: chip.tile_size, "tile_size"),
    ("cell_bits", 5, lambda chip: chip.cell.bits, "cell.bits"),
    ("programming_error", 0.25, lambda chip: chip.cell.programming_error, "cell.programming_error"),
    ("read_noise", 0.125, lambda chip: chip.cell.read_noise, "cell.read_noise"),
    ("dac_bits", 10, lambda chip: chip.dac.bits, "dac.bits"),
    ("adc_bits", 12, lambda chip: chip.adc.bits, "adc.bits"),
    ("off_conductance", 1e-7, lambda chip: chip.cell.off_conductance, "cell.off_conductance"),
    ("sign_mapping", "bias", lambda chip: chip.cell.sign_mapping, "cell.sign_mapping"),
    ("time", 3600.0, lambda chip: chip.drift.time, "drift.time"),
    ("stuck_low", 0.01, lambda chip: chip.faults.stuck_low, "faults.stuck_low"),
    ("dead_tiles", 0.02, lambda chip: chip.faults.dead_tiles, "faults.dead_tiles"),
    ("mvm_cell_bits", 2, lambda chip: chip.multiplier.cell_bits, "multiplier.cell_bits"),
    ("mvm_adc_bits", 9, lambda chip: chip.multiplier.adc_bits, "multiplier.adc_bits"),
]


def values(chip):
    """Every number that the chip holds, by dotted name; None is left out."""
    return {name: value for name, value in chip.values().items() if value is not None}


def test_names():
    assert list(PRESETS) == list(EXPECTED)
    assert all(chip.name == name for name, chip in PRESETS.items())


@ALL
def test_values(chip):
    held = (chip.tile_size, chip.cell.bits, chip.cell.programming_error, chip.cell.read_noise, chip.dac.bits,
            chip.adc.bits)
    assert held == EXPECTED[chip.name]


@ALL
def test_every_value_has_a_source_and_no_source_is_without_a_value(chip):
    assert set(chip.sources) == set(values(chip))
    for name, source in chip.sources.items():
        assert len(source.text) > 20, name
        assert source.confidence in ("published", "second-hand", "assumed")


@ALL
def test_json_round_trip(chip, tmp_path):
    assert Chip.from_dict(json.loads(chip.to_json())) == chip
    path = tmp_path / "mine.json"
    path.write_text(chip.to_json(), encoding="utf-8")
    assert load(str(path)) == chip
    assert load(chip.name) is chip


@ALL
@pytest.mark.parametrize(("name", "value", "get", "key"), OVERRIDES, ids=[o[0] for o in OVERRIDES])
def test_override_changes_one_value_and_its_source(chip, name, value, get, key):
    changed = chip.replace(**{name: value})
    assert get(changed) == value
    assert f"-analog_{name}" in changed.sources[key].text
    before, after = values(chip), values(changed)
    # a constant programming error takes the place of one that depends on the conductance
    gone = {"cell.programming_model", "cell.programming_polynomial"} if name == "programming_error" else set()
    assert {k for k in before | after if before.get(k) != after.get(k)} == {key} | gone & before.keys()
    others = {k: s for k, s in chip.sources.items() if k != key and k not in gone}
    assert {k: s for k, s in changed.sources.items() if k != key} == others
    assert get(PRESETS[chip.name]) == get(chip) != value  # the preset itself is untouched


def test_every_error_can_be_made_ideal():
    chip = PRESETS["pku2025"].replace(cell_bits=None, programming_error=None, read_noise=None, dac_bits=None,
                                      adc_bits=None)
    assert chip.cell == Cell(conductance_max=35e-6)
    assert chip.dac == chip.adc == Converter()
    assert chip.deterministic
    assert Chip.from_dict(json.loads(chip.to_json())) == chip


@pytest.mark.parametrize(("name", "value"), [("read_noise", 0.01), ("dac_bits", 4), ("adc_bits", 4)])
def test_one_error_per_shot_is_not_deterministic(name, value):
    assert PRESETS["ideal"].deterministic
    assert not PRESETS["ideal"].replace(**{name: value}).deterministic


def test_static_errors_leave_a_chip_deterministic():
    assert PRESETS["ideal"].replace(cell_bits=3, programming_error=0.02).deterministic


def test_unknown_override():
    with pytest.raises(InvalidInput, match=re.escape("Did you mean tile_size?")):
        PRESETS["ideal"].replace(tile=3)


def test_bad_override_names_its_option():
    with pytest.raises(InvalidInput, match=re.escape("-analog_dac_bits: got 1; allowed: an integer from 2 to 24")):
        PRESETS["ideal"].replace(dac_bits=1)


@pytest.mark.parametrize(("bits", "levels", "codes"), [(2, 3, 1), (3, 7, 3), (4, 15, 7), (8, 255, 127)])
def test_levels_of_cells_and_codes_of_converters(bits, levels, codes):
    assert Cell(bits=bits).levels == levels
    assert Converter(bits=bits).codes == codes


def test_ideal_has_no_levels_and_no_codes():
    assert Cell().levels is None
    assert Converter().codes == 0


@ALL
def test_texts_for_people(chip):
    line = chip.summary()
    assert "\n" not in line
    assert chip.name in line
    described = chip.describe()
    assert line in described
    assert all(f"  {name}: " in described for name in chip.sources)
    assert all(name in described for name in chip.values())  # what is ideal is listed too
    for meaning, _, allowed in fields_of_chips().values():
        assert len(meaning) > 15 and meaning.endswith(".") and allowed
    assert described.count("[") >= len(chip.sources)


def test_a_model_and_a_constant_take_each_others_place():
    chip = PRESETS["rram128"].replace(programming_model="wan2022")
    assert (chip.cell.programming_model, chip.cell.programming_error) == ("wan2022", None)
    assert "cell.programming_error" not in chip.sources
    assert chip.replace(programming_error=0.01).cell == PRESETS["rram128"].cell


@pytest.mark.parametrize(("name", "window", "points"), [
    # literature values, µS: conductance and standard deviation
    ("wan2022", 40e-6, {5: 1.97, 10: 2.41, 20: 2.36, 35: 1.65}),
    ("milo2021", 225e-6, {50: 0.087 * 50, 225: 0.012 * 225}),
    ("joshi2020", 25e-6, {25: 1.055, 0: 0.263}),
    ("cmo_hfox", 90e-6, {88.2: 1.007}),
])
def test_published_error_models(name, window, points):
    cell = Cell(programming_model=name, conductance_max=window)
    for conductance, sigma in points.items():
        error = float(cell.programming_deviation(np.array(conductance * 1e-6 / window))) * window * 1e6
        assert error == pytest.approx(sigma, rel=0.02)  # the printed figures have two or three digits


def test_level_step():
    assert Cell(bits=3, conductance_max=35e-6, conductance_min=0.7e-6).level_step == pytest.approx(34.3e-6 / 7)
    assert Cell().level_step is None


def test_planned_lines():
    assert PRESETS["rram128"].lines == 128
    faulty = PRESETS["rram128"].replace(dead_rows=0.01, dead_columns=0.01)
    # 128 pairs, each dead with probability 0.0199: 2.5 ± 1.6, of which three deviations
    assert faulty.lines == int(128 - 2.5472 - 3 * 1.5801)


@pytest.mark.parametrize(("name", "given", "said"), [
    ("rram128", {"programming_error": 0.02, "programming_model": "wan2022"}, "beside -analog_programming_model"),
    ("rram128", {"programming_model": "milo2021"}, "with cell.conductance_max of the chip 'rram128': got 4e-05"),
    ("rram128", {"compensate_gain": True}, "-analog_compensate_gain: got True; allowed: false, while the gain"),
])
def test_overrides_that_contradict(name, given, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        PRESETS[name].replace(**given)


def test_an_override_takes_off_what_depends_on_it():
    assert PRESETS["mram"].replace(programming_model=None).cell.programming_polynomial is None
    gained = PRESETS["rram128"].replace(amplifier_gain=1e4, compensate_gain=True)
    assert gained.amplifier.compensated
    assert not gained.replace(amplifier_gain=None).amplifier.compensated


def test_age_without_drift_is_said_to_be_idle():
    assert "cells that age does not change" in PRESETS["ideal"].replace(time=1e6).summary()
    assert "cells that age does not change" not in PRESETS["pcm"].replace(time=1e6).summary()

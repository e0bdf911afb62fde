"""Bad chips: each refused with what was got, what is allowed, and what to try."""

import json
import math
import re

import numpy as np
import pytest

from analogpde.chip import PRESETS, Cell, Chip, Converter, Drift, Faults, Multiplier, Source, load
from analogpde.errors import AnalogError, InvalidInput

# Field, dotted name in messages, a constructor by value, lowest and highest value, integer, may be ideal.
FIELDS = [
    ("tile_size", lambda v: Chip("x", tile_size=v), 1, 4096, True, False),
    ("cell.bits", lambda v: Cell(bits=v), 1, 16, True, True),
    ("cell.programming_error", lambda v: Cell(programming_error=v), 0.0, 0.5, False, True),
    ("cell.read_noise", lambda v: Cell(read_noise=v), 0.0, 0.5, False, True),
    ("cell.conductance_max", lambda v: Cell(conductance_max=v), 1e-9, 1e-2, False, False),
    ("cell.slices", lambda v: Cell(slices=v), 1, 8, True, False),
    ("drift.spread", lambda v: Drift(spread=v), 0.0, 0.5, False, True),
    ("drift.relaxation_mean", lambda v: Drift(relaxation_mean=v), -0.1, 0.1, False, True),
    ("faults.stuck_low", lambda v: Faults(stuck_low=v), 0.0, 0.2, False, True),
    ("faults.dead_tiles", lambda v: Faults(dead_tiles=v), 0.0, 0.5, False, True),
    ("multiplier.adc_bits", lambda v: Multiplier(adc_bits=v), 2, 24, True, True),
    ("converter.bits", lambda v: Converter(bits=v), 2, 24, True, True),
]
NAMED = pytest.mark.parametrize(("name", "make", "low", "high", "integer", "ideal"), FIELDS, ids=[f[0] for f in FIELDS])
NEVER = [math.nan, math.inf, -math.inf, True, False, "3", "none", "", [3], {"bits": 3}, 1j]


@NAMED
def test_bounds_are_inclusive(name, make, low, high, integer, ideal):
    attribute = name.rpartition(".")[2]
    for value in (low, high):
        assert getattr(make(value), attribute) == value
    step = 1 if integer else 1e-12
    for value in (low - step, high + step, -7):
        with pytest.raises(InvalidInput, match=re.escape(f"{name}: got {value!r}; allowed: a")):
            make(value)


@NAMED
@pytest.mark.parametrize("value", NEVER, ids=repr)
def test_no_number(name, make, low, high, integer, ideal, value):
    with pytest.raises(InvalidInput, match=re.escape(f"{name}: got {value!r}")):
        make(value)


@NAMED
def test_none_is_ideal_or_refused(name, make, low, high, integer, ideal):
    if ideal:
        make(None)
    else:
        with pytest.raises(InvalidInput, match=re.escape(name)):
            make(None)


@NAMED
def test_zero_is_never_the_word_for_ideal(name, make, low, high, integer, ideal):
    if ideal and integer:
        with pytest.raises(InvalidInput, match=re.escape("Write null (or `none`) for an ideal one.")):
            make(0)


@NAMED
def test_numbers_of_other_types_are_stored_as_python_numbers(name, make, low, high, integer, ideal):
    attribute = name.rpartition(".")[2]
    kinds = (int, float, np.int64, np.float64) if integer else (float, np.float64)
    for kind in kinds:
        assert type(getattr(make(kind(high)), attribute)) is (int if integer else float)


@pytest.mark.parametrize("value", [2.5, 1.0000001, np.float64(3.5)])
def test_fractions_of_a_bit(value):
    with pytest.raises(InvalidInput, match="an integer"):
        Cell(bits=value)


# A chip as JSON data, and what the message must say.
DATA = [
    ([], "chip: got []"),
    (None, "chip: got None"),
    ("pku2025", "chip: got 'pku2025'"),
    ({}, "Give the chip a name."),
    ({"name": ""}, "name: got ''"),
    ({"name": 3}, "name: got 3"),
    ({"name": "x", "title": None}, "title: got None"),
    ({"name": "x", "tilesize": 64}, "Did you mean tile_size?"),
    ({"name": "x", "cell": {"bit": 3}}, "cell.bit: got 3"),
    ({"name": "x", "cell": {"bit": 3}}, "Did you mean bits?"),
    ({"name": "x", "cell": {"read_nois": 0.1}}, "Did you mean read_noise?"),
    ({"name": "x", "cell": {"zzz": 0.1}}, "the fields bits, programming_error"),
    ({"name": "x", "cell": 3}, "cell: got 3"),
    ({"name": "x", "cell": None}, "cell: got None"),
    ({"name": "x", "dac": [4]}, "dac: got [4]"),
    ({"name": "x", "dac": {"bits": 99}}, "dac.bits: got 99"),
    ({"name": "x", "adc": {"bits": 0}}, "adc.bits: got 0"),
    ({"name": "x", "cell": {"bits": 17}}, "cell.bits: got 17"),
    ({"name": "x", "tile_size": 0}, "tile_size: got 0"),
    ({"name": "x", "tile_size": -4}, "tile_size: got -4"),
    ({"name": "x", "tile_size": "64"}, "tile_size: got '64'"),
    ({"name": "x", "cell": {"sign_mapping": "bais"}}, "Did you mean bias?"),
    ({"name": "x", "cell": {"programming_model": "wan2020"}}, "Did you mean wan2022?"),
    ({"name": "x", "cell": {"programming_model": 7}}, "cell.programming_model: got 7; allowed: wan2022 |"),
    ({"name": "x", "cell": {"programming_model": "wan2022", "programming_error": 0.1}}, "null beside a"),
    ({"name": "x", "cell": {"programming_model": "wan2022", "conductance_max": 1e-4}}, "The fit says nothing"),
    ({"name": "x", "cell": {"programming_model": "polynomial"}}, "Give both or neither."),
    ({"name": "x", "cell": {"programming_polynomial": [0.1]}}, "Give both or neither."),
    ({"name": "x", "cell": {"programming_model": "polynomial", "programming_polynomial": []}}, "1 to 9 numbers"),
    ({"name": "x", "cell": {"programming_model": "polynomial", "programming_polynomial": ["a"]}}, "1 to 9 numbers"),
    ({"name": "x", "cell": {"programming_model": "polynomial", "programming_polynomial": [0.01, -0.1]}},
     "It is -0.09 at 1.00 of the largest conductance."),
    ({"name": "x", "amplifier": {"compensated": True}}, "false, while the gain is ideal"),
    ({"name": "x", "dac": {"calibrated": 1.0}}, "dac.calibrated: got 1.0; allowed: null"),
    ({"name": "x", "sources": {"cell.bitz": {"text": "a", "confidence": "assumed"}}}, "Did you mean cell.bits?"),
    ({"name": "x", "cell": {"off_error": 0.1}}, "cell.off_conductance: got None"),
    ({"name": "x", "cell": {"conductance_min": 3.4e-5}}, "below 0.9 of conductance_max"),
    ({"name": "x", "faults": {"stuck": 0.1}}, "Did you mean stuck_low?"),
    ({"name": "x", "drift": {"exponnt": 0.1}}, "Did you mean exponent?"),
    ({"name": "x", "multiplier": {"order": "both"}}, "serial | parallel"),
    ({"name": "x", "sources": []}, "sources: got []"),
    ({"name": "x", "sources": {"cell.bits": "a paper"}}, "sources.cell.bits: got 'a paper'"),
    ({"name": "x", "sources": {"cell.bits": {"text": "a"}}}, "sources.cell.bits.confidence: got 'nothing'"),
    ({"name": "x", "sources": {"cell.bits": {"text": "a", "confidence": "sure"}}}, "sources.cell.bits.confidence"),
]


@pytest.mark.parametrize(("data", "said"), DATA, ids=[json.dumps(d) + s[:12] for d, s in DATA])
def test_json_data(data, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        Chip.from_dict(data)


# Texts of a file: not JSON, or JSON that no chip is made of.
TEXTS = [
    ("", "is not JSON: Expecting value at line 1, column 1"),
    ('{"name": "x",}', "is not JSON"),
    ('{"name": "x"\n "tile_size": 3}', "at line 2, column 2"),
    ('{"name": "x", "tile_size": 64, "tile_size": 16}', "tile_size: got '2 values in one object'"),
    ('{"name": "x", "tile_size": NaN}', "tile_size: got nan"),
    ('{"name": "x", "tile_size": 1e999}', "tile_size: got inf"),
    ('{"name": "x", "tile_size": ' + "9" * 5000 + "}", "cannot be read"),
    ("[" * 100_000, "cannot be read"),
]


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=[t[0][:30] for t in TEXTS])
def test_file(tmp_path, text, said):
    path = tmp_path / "chip.json"
    path.write_text(text)
    with pytest.raises(AnalogError, match=re.escape(said)):
        load(str(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # with and without a byte order mark
def test_a_file_needs_no_suffix(tmp_path, encoding):
    path = tmp_path / "mine"
    path.write_text(PRESETS["sram64"].to_json(), encoding=encoding)
    assert load(str(path)) == PRESETS["sram64"]


def test_whole_numbers_may_be_written_with_a_point(tmp_path):
    path = tmp_path / "chip.json"
    data = PRESETS["sram64"].as_dict()
    data["tile_size"], data["cell"]["bits"], data["cell"]["read_noise"] = 64.0, 3.0, 0
    path.write_text(json.dumps(data))
    chip = load(str(path))
    assert (type(chip.tile_size), chip.tile_size) == (int, 64)
    assert (type(chip.cell.levels), chip.cell.levels) == (int, 7)


def test_missing_file_directory_and_bytes(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"missing\.json'; allowed: a file that exists, or ideal \| pku2019"):
        load(str(tmp_path / "missing.json"))
    for name in ("folder.json", "binary.json"):
        with pytest.raises(AnalogError, match=re.escape(name) + ".*cannot be read"):
            load(str(tmp_path / name))
    with pytest.raises(AnalogError, match=r"cannot be read.*[Dd]irectory"):
        load(str(tmp_path))


@pytest.mark.parametrize("lacking", ["tile_size", "cell", "dac", "adc", "cell.bits", "cell.programming_error",
                                     "cell.read_noise", "dac.bits", "adc.bits"])
def test_what_is_left_out_is_not_taken_for_ideal(tmp_path, lacking):
    data = PRESETS["rram128"].as_dict()
    part, _, field = lacking.rpartition(".")
    del (data[part] if part else data)[field]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InvalidInput, match=re.escape(f"mine.json': {lacking}: got 'nothing'") + ".*--json"):
        load(str(path))


@pytest.mark.parametrize(("word", "said"), [
    ("pku2052", "Did you mean pku2025?"), ("PKU2025", "Did you mean pku2025?"), ("Ideal", "Did you mean ideal?"),
    ("rram", "Did you mean rram128?"), ("", "FILE.json"), ("zzz", "FILE.json"), ('{"name": "x"}' * 400, "FILE.json"),
])
def test_unknown_preset(word, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        load(word)


def test_parts_of_another_kind():
    for part in ("cell", "dac", "adc"):
        with pytest.raises(InvalidInput, match=part):
            Chip("x", **{part: 3})


@pytest.mark.parametrize("confidence", ["", "sure", None, 3, ["assumed"]])
def test_confidence_is_one_of_three_words(confidence):
    with pytest.raises(InvalidInput, match=re.escape("published | second-hand | assumed")):
        Source("text", confidence)

"""The option table: every entry reads its own default and refuses what it says it refuses."""

import re
import runpy
from pathlib import Path

import pytest

from analogpde.errors import InvalidInput
from analogpde.manual import as_markdown, as_text, default_text
from analogpde.options import GROUPS, TABLE, Option, check_names, check_residual

ROOT = Path(__file__).parents[1]
NUMERIC = [option for option in TABLE.values() if option.kind in ("int", "real")]
BOUNDED_BELOW = [option for option in NUMERIC if option.low is not None]
BOUNDED_ABOVE = [option for option in NUMERIC if option.high is not None]
CHOICES = [option for option in TABLE.values() if option.kind == "choice"]


def ids(option: Option) -> str:
    return option.name


@pytest.mark.parametrize("option", TABLE.values(), ids=ids)
def test_default_is_a_value_that_the_option_reads_back(option):
    if option.default is not None:
        value = option.parse(str(option.default))
        assert value == option.default
        assert type(value) is type(option.default)


@pytest.mark.parametrize("option", TABLE.values(), ids=ids)
def test_name_help_and_kind_are_complete(option):
    assert re.fullmatch(r"(ksp_|pc_)?analog_[a-z_]+", option.name)
    assert option.help.endswith(".")
    assert option.allowed
    assert (option.kind == "choice") == bool(option.choices)


def test_no_name_is_used_twice():
    names = [option.name for _, group in GROUPS for option in group]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("option", BOUNDED_BELOW, ids=ids)
def test_lower_bound(option):
    step = 1 if option.kind == "int" else 1e-3
    if option.open_low:
        with pytest.raises(InvalidInput):
            option.parse(f"{option.low:g}")
    else:
        assert option.parse(f"{option.low:g}") == option.low
    with pytest.raises(InvalidInput, match=re.escape(option.allowed)):
        option.parse(f"{option.low - step:g}")


@pytest.mark.parametrize("option", BOUNDED_ABOVE, ids=ids)
def test_upper_bound(option):
    assert option.parse(str(option.high)) == option.high
    above = option.high + 1 if option.kind == "int" else option.high * 1.001 + 1e-3
    with pytest.raises(InvalidInput, match=re.escape(option.allowed)):
        option.parse(str(above))


@pytest.mark.parametrize("option", NUMERIC, ids=ids)
@pytest.mark.parametrize("word", ["", "two", "1e", "nan", "0x10", "1,5"])
def test_a_word_that_is_no_number(option, word):
    with pytest.raises(InvalidInput) as caught:
        option.parse(word)
    assert str(caught.value).startswith(f"-{option.name}: got {word!r}; allowed: {option.allowed}")


@pytest.mark.parametrize("option", [option for option in NUMERIC if option.kind == "int"], ids=ids)
def test_an_integer_has_no_fraction(option):
    with pytest.raises(InvalidInput):
        option.parse("4.5")


@pytest.mark.parametrize("option", TABLE.values(), ids=ids)
def test_none_is_the_ideal_where_there_is_one_and_else_a_wrong_value(option):
    if option.ideal:
        assert option.parse("none") is None
        assert option.parse(" NONE ") is None
        assert "none" in option.allowed
    elif option.kind == "choice" and "none" in option.choices:
        assert option.parse("none") == "none"
    elif option.kind != "text":
        with pytest.raises(InvalidInput):
            option.parse("none")


def test_zero_bits_are_refused_with_the_word_for_ideal():
    with pytest.raises(InvalidInput, match="Write `none` for an ideal one"):
        TABLE["analog_adc_bits"].parse("0")


@pytest.mark.parametrize("option", CHOICES, ids=ids)
def test_choices(option):
    for word in option.choices:
        assert option.parse(word) == word
    near = option.choices[-1] + "x"
    with pytest.raises(InvalidInput, match=f"Did you mean {option.choices[-1]}"):
        option.parse(near)


def test_of_words_that_are_equally_near_none_is_meant():
    option = Option("case", "choice", "tc2", "A case.", choices=("tc2", "tc5", "tc6", "galewsky"))
    with pytest.raises(InvalidInput, match=r"tc2 \| tc5 \| tc6 \| galewsky\.$"):
        option.parse("tc3")
    with pytest.raises(InvalidInput, match="Did you mean galewsky"):
        option.parse("galewski")


@pytest.mark.parametrize(("word", "value"), [("", True), ("1", True), ("Yes", True), ("off", False), ("false", False)])
def test_flags(word, value):
    assert Option("analog_test", "flag", False, "A flag.").parse(word) is value


def test_a_flag_is_yes_or_no():
    with pytest.raises(InvalidInput, match=r"true \| false"):
        Option("analog_test", "flag", False, "A flag.").parse("maybe")


def test_an_open_bound_is_outside():
    option = Option("analog_test", "real", 1.0, "Positive.", low=0.0, open_low=True)
    assert option.parse("1e-300") == 1e-300
    with pytest.raises(InvalidInput, match="greater than 0"):
        option.parse("0")


def test_empty_text_is_refused():
    with pytest.raises(InvalidInput, match="non-empty"):
        TABLE["analog_chip"].parse("  ")


def test_the_message_names_the_option_as_it_was_typed():
    with pytest.raises(InvalidInput, match=r"^-flow_ksp_analog_residual_bits: got '99'"):
        TABLE["ksp_analog_residual_bits"].parse("99", written="flow_ksp_analog_residual_bits")


@pytest.mark.parametrize("prefix", ["analog_", "my_analog_", "ksp_analog_", "analog_1_", "analog_heat_"])
@pytest.mark.parametrize("name", ["ksp_type", "ksp_max_it", "pc_mg_levels", "pc_asm_overlap", "mat_type", "st_pc_type"])
def test_petscs_names_pass_with_prefixes_like_ours(prefix, name):
    check_names([prefix + name])


def test_names_like_petscs_with_prefixes_like_ours_are_still_looked_at():
    for name, meant in (("analog_pc_levels", "-pc_analog_levels"), ("analog_ksp_stagnation", "-ksp_analog_stagnation"),
                        ("my_analog_ksp_analog_stagnaton", "-ksp_analog_stagnation")):
        with pytest.raises(InvalidInput, match=meant):
            check_names([name])


@pytest.mark.parametrize("name", sorted(TABLE))
@pytest.mark.parametrize("prefix", ["", "flow_", "sub_1_", "analog_", "my_analog_"])
def test_known_names_pass_with_any_prefix(prefix, name):
    check_names([prefix + name])


@pytest.mark.parametrize("name", ["ksp_rtol", "pc_type", "log_view", "my_analogue", "ksp_type", "n", "dt"])
def test_names_of_others_are_left_alone(name):
    check_names([name])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ksp_analog_residul", "-ksp_analog_residual"),
        ("pc_analog_overlapp", "-pc_analog_overlap"),
        ("analog_adcbits", "-analog_adc_bits"),
        ("flow_ksp_analog_acelerator", "-flow_ksp_analog_accelerator"),
    ],
)
def test_a_mistyped_name_is_refused_with_the_nearest_one(typed, meant):
    with pytest.raises(InvalidInput) as caught:
        check_names(["ksp_rtol", typed])
    assert f"-{typed}" in str(caught.value)
    assert f"Did you mean {meant}?" in str(caught.value)


@pytest.mark.parametrize("render", [as_text, as_markdown])
def test_the_manual_has_every_option(render):
    manual = render()
    for title, group in GROUPS:
        assert title in manual
        for option in group:
            assert f"-{option.name}" in manual
            assert default_text(option, title) in manual


def test_the_terminal_page_is_narrow():
    wide = [line for line in as_text(80).splitlines() if len(line) > 80 and not line.startswith("  -")]
    assert not wide


def test_markdown_rows_have_four_cells():
    rows = [line for line in as_markdown().splitlines() if line.startswith("| `-")]
    assert len(rows) == len(TABLE)
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 5


def test_the_committed_page_is_up_to_date():
    pages = runpy.run_path(str(ROOT / "scripts" / "make_docs.py"))["PAGES"]
    assert (ROOT / "docs" / "options.md") in [path for path, _ in pages]
    for path, render in pages:
        assert path.read_text(encoding="utf-8") == render(), f"run: python scripts/make_docs.py ({path.name} is old)"


def test_a_field_of_chip_files_is_no_option():
    with pytest.raises(InvalidInput, match=re.escape("cell.conductance_max: only in a chip file")):
        check_names(["analog_conductance_max"])
    # one that there is an option for, under another name
    with pytest.raises(InvalidInput, match="Did you mean -analog_adc_calibrated"):
        check_names(["analog_calibrated"])


@pytest.mark.parametrize(("values", "given", "said"), [
    ({"ksp_analog_residual": "digital", "ksp_analog_residual_bits": 24, "ksp_analog_residual_progressive": False}, True,
     "-ksp_analog_residual_bits: got 24; allowed: nothing without -ksp_analog_residual sliced"),
    ({"ksp_analog_residual": "digital", "ksp_analog_residual_bits": 24, "ksp_analog_residual_progressive": True}, False,
     "-ksp_analog_residual_progressive: got True"),
])
def test_settings_of_a_residual_that_is_not_formed(values, given, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        check_residual(values, given)
    check_residual({**values, "ksp_analog_residual": "sliced"}, given)

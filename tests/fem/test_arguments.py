from pathlib import Path

import pytest

pytest.importorskip("analogpde.petsc.stack", exc_type=ImportError)

from analogpde.errors import AnalogError, InvalidInput
from analogpde.fem import _for_petsc
from analogpde.fem.arguments import check_prefixes, help_text, on_root, parse, prepare_folder, table
from analogpde.options import Option

KNOWN = table((Option("shift", "real", 0.0, "A number of either sign."),), {"degree": 2})


def test_values_defaults_and_what_is_left_for_petsc():
    values, rest, given = parse(
        "-n 7 -verify -ksp_type cg -ksp_monitor -shift -1e-3 -dim 3 -x_view -2".split(), KNOWN
    )
    assert values["n"] == 7 and values["verify"] is True and values["shift"] == -1e-3
    assert values["dim"] == 3 and values["degree"] == 2 and values["dt"] is None
    assert rest == {"ksp_type": "cg", "ksp_monitor": None, "x_view": "-2"}
    assert given == {"n", "verify", "shift", "dim"}


def test_a_flag_takes_a_value_only_if_one_follows():
    assert parse(["-verify", "false"], KNOWN)[0]["verify"] is False
    assert parse(["-verify", "-n", "3"], KNOWN)[0]["n"] == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-n", "0"], "'0'"),
        (["-n", "1.5"], "an integer"),
        (["-n"], "no value"),
        (["-dim", "4"], "2 | 3"),
        (["-dt", "0"], "greater than 0"),
        (["-dt", "nan"], "'nan'"),
        (["-degree", "4"], "1 to 3"),
        (["-degre", "2"], "Did you mean -degree?"),
        (["-verfy"], "Did you mean -verify?"),
        (["-nn", "5"], "Did you mean -n?"),
        (["-N", "5"], "Did you mean -n?"),
        (["-dtt", "1"], "Did you mean -dt?"),
        (["--n", "3"], "Write -n."),
        (["32"], "'32'"),
        (["-verify", "perhaps"], "'perhaps'"),
    ],
)
def test_bad_words_are_named_with_what_is_allowed(argv, said):
    with pytest.raises(InvalidInput) as caught:
        parse(argv, KNOWN)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["h", "v", "info", "log_view", "ksp_rtol", "ksp_view", "mat_type"])
def test_what_is_petscs_is_left_to_petsc(name):
    assert name in parse([f"-{name}"], KNOWN)[1]


@pytest.mark.parametrize("name", ["poisson_ksp_type", "mg_levels_ksp_type", "sub_pc_type", "mass_mg_levels_ksp_type",
                                  "esteig_ksp_max_it", "ksp_analog_restart", "mat_mumps_icntl_14", "eps_tol"])
def test_prefixes_of_petsc_and_of_the_script_pass(name):
    check_prefixes([name], ("poisson_", "mass_", "st_"))


def test_help_lists_every_option_once_with_its_default():
    text = help_text("heat", "Heat.", KNOWN)
    for name in KNOWN:
        assert text.count(f"\n  -{name} ") + text.count(f"\n  -{name}\n") == 1
    assert "-degree <an integer from 1 to 3> [2]" in text
    assert "-ksp_analog_residual" in text


def test_petsc_starts_without_help_and_without_our_options():
    words = ["heat.py", "-help", "-n", "3", "-analog_chip", "nochip", "-log_view", "-poisson_pc_analog_core", "-1"]
    assert _for_petsc(words) == ["heat.py", "-n", "3", "-log_view"]


@pytest.mark.mpi
@pytest.mark.parametrize("error", [InvalidInput("-x", 3, "4", "Try."), AnalogError("no room"), ValueError("odd")])
def test_an_error_of_rank_0_is_raised_on_every_rank(comm, error):
    def action():
        raise error

    with pytest.raises(Exception) as caught:
        on_root(comm, action)
    assert str(error) in str(caught.value)
    assert isinstance(caught.value, InvalidInput) == isinstance(error, InvalidInput)
    assert on_root(comm, lambda: comm.rank) == 0


@pytest.mark.mpi
def test_a_folder_that_cannot_be_made_is_refused_on_every_rank(comm, shared_tmp_path):
    file = shared_tmp_path / "file"
    if comm.rank == 0:
        file.write_text("in the way")
    comm.barrier()
    with pytest.raises(InvalidInput, match="-out"):
        prepare_folder(comm, file / "folder")
    folder = shared_tmp_path / "a folder" / "below"
    assert prepare_folder(comm, folder) == Path(folder)
    assert folder.is_dir()

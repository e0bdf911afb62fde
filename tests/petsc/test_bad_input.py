"""Bad input: a clear error on all ranks or the right answer; never a hang, a crash or a wrong 'converged'."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse as sp

pytestmark = pytest.mark.mpi

NAN = float("nan")


def same_end(PETSc, text):
    """Assert that every rank has got the same message, apart from which rank it names; return it."""
    texts = PETSc.COMM_WORLD.tompi4py().allgather(text)
    core = min(texts, key=len)
    assert all(other.endswith(core) for other in texts), texts
    return core


def usable_again(solve, gallery):
    """Assert that an error has not harmed the process."""
    solve(gallery.poisson(12, 12)).assert_fp32()


OPTIONS = {
    "analog_tile_size": [("0", "from 1 to 4096"), ("-3", "from 1 to 4096"), ("5000", "to 4096"), ("12.5", "an integer"),
                         ("", "an integer")],
    "analog_cell_bits": [("0", "Write `none` for an ideal one"), ("17", "from 1 to 16"), ("three", "an integer")],
    "analog_dac_bits": [("1", "from 2 to 24"), ("25", "from 2 to 24")],
    "analog_adc_bits": [("0", "Write `none` for an ideal one"), ("25", "from 2 to 24")],
    "analog_programming_error": [("-0.1", "from 0 to 0.5"), ("nan", "from 0 to 0.5"), ("2 %", "a number")],
    "analog_read_noise": [("0.6", "from 0 to 0.5")],
    "analog_tiles_per_rank": [("0", "from 1 up"), ("-2", "from 1 up"), ("many", "an integer")],
    "pc_analog_share_tolerance": [("1", "from 0 to 0.1"), ("nan", "from 0 to 0.1")],
    "analog_seed": [("-1", "from 0"), ("1e3", "an integer")],
    "analog_chip": [("rram12", "Did you mean rram128?"), ("nosuch.json", "nosuch.json")],
    "ksp_analog_residual": [("sliecd", "Did you mean sliced?")],
    "ksp_analog_residual_bits": [("2", "from 3 to 54"), ("55", "from 3 to 54")],
    "ksp_analog_accelerator": [("gmres", "Did you mean fgmres?")],
    "ksp_analog_restart": [("0", "from 1 up")],
    "ksp_analog_stagnation": [("1", "from 2 up")],
    "pc_analog_levels": [("0", "from 1 up")],
    "pc_analog_core": [("0", "from 1 up")],
    "pc_analog_overlap": [("-1", "from 0 up")],
    "pc_analog_strength": [("1.5", "from 0 to 1")],
    "pc_analog_truncation": [("1", "from 0 to 0.9")],
    "pc_analog_shift": [("-1", "from 0 up"), ("inf", "")],
    "pc_analog_slices": [("9", "from 1 to 8")],
    "pc_analog_reprogram": [("sometimes", "on_change | always | never")],
}


@pytest.mark.parametrize("prefix", ["", "heat_"])
@pytest.mark.parametrize(("name", "value", "said"), [(n, v, s) for n, cases in OPTIONS.items() for v, s in cases])
def test_values_out_of_range(PETSc, solve, gallery, cause, options, name, value, said, prefix):
    text = same_end(PETSc, cause(solve, gallery.poisson(6, 6), prefix=prefix, **{name: value}))
    assert said in text
    if not name.endswith("chip") and value != "inf":
        assert f"-{prefix}{name}: got '{value}'" in text


@pytest.mark.parametrize(("name", "value", "said"), [
    ("pc_analog_pc_mg_levels", "9", "Number of levels requested 9"),
    ("pc_analog_pc_mg_cycle_type", "q", 'Unknown option "q"'),
    ("pc_analog_mg_levels_ksp_type", "nonsens", "Unable to find requested KSP type nonsens"),
])
def test_values_that_the_multigrid_refuses(PETSc, solve, gallery, cause, options, name, value, said):
    text = same_end(PETSc, cause(solve, gallery.poisson(16, 15), analog_tile_size=64, **{name: value}))
    assert f"got '-{name} {value}'" in text
    assert said in text
    assert "-pc_analog_pc_mg_cycle_type v | w" in text
    options.delValue(name)
    usable_again(solve, gallery)


def test_options_of_the_multigrid_that_nobody_reads(PETSc, solve, gallery, options, capfd):
    given = {"analog_tile_size": 64, "pc_analog_mg_levels_ksp_max_it": 2, "pc_analog_mg_levels_ksp_max_itt": 3}
    solve(gallery.poisson(16, 15), **given).assert_fp32()
    told = capfd.readouterr().err
    if PETSc.COMM_WORLD.rank == 0:
        assert "-pc_analog_mg_levels_ksp_max_itt: read by nobody. This multigrid has" in told
        assert "max_it," not in told


def test_a_core_that_no_tile_holds(PETSc, solve, gallery, cause):
    text = same_end(PETSc, cause(solve, gallery.poisson(16, 15), analog_tile_size=64, pc_analog_core=65))
    assert "-pc_analog_core: got 65; allowed: an integer from 1 to 64" in text
    solve(gallery.poisson(16, 15), analog_tile_size=64, pc_analog_core=65, analog_blockamc=1).assert_fp32()


def test_a_guess_that_is_far_off(solve, gallery):
    from analogpde.petsc import session

    done = solve(gallery.poisson(6, 6), start=np.full(36, 1e30))
    assert (done.reason, done.iterations) == (-4, 0)
    assert "start from zero" in session().solves[""].worst.advice


@pytest.mark.parametrize(("typed", "meant"), [
    ("pc_analog_cor", "-pc_analog_core"), ("ksp_analog_acelerator", "-ksp_analog_accelerator"),
    ("analog_chpi", "-analog_chip"), ("heat_pc_analog_level", "-heat_pc_analog_levels"),
    ("ksp_analog_chip", "-analog_chip")])
def test_a_mistyped_option_of_any_solver(PETSc, solve, gallery, cause, options, typed, meant):
    options[typed] = "1"
    text = same_end(PETSc, cause(solve, gallery.poisson(6, 6)))
    assert f"unknown option: got '-{typed}'" in text
    assert f"Did you mean {meant}?" in text
    options.delValue(typed)
    options.delValue("ksp_type")
    usable_again(solve, gallery)


@pytest.mark.parametrize(("name", "said"), [
    ("rates.csv", "'rates.csv': got '.csv'; allowed: .json | .html | .txt"),
    ("/dev/null/report.json", "'/dev/null' is not a folder")])
def test_a_report_is_checked_before_the_solves(PETSc, solve, gallery, cause, options, name, said):
    try:
        options["analog_report"] = name
        text = same_end(PETSc, cause(solve, gallery.poisson(6, 6)))
        assert said in text
    finally:
        options.delValue("analog_report")  # or the end of this process would try it again
    options.delValue("ksp_type")
    usable_again(solve, gallery)


CHIP = {"schema": "analogpde-chip/1", "name": "mine"}


@pytest.mark.parametrize(("content", "said"), [
    ("{", "JSON"), ("[1, 2]", ""), ("", "JSON"), ('{"name": "x", "tile_size": 0}', "tile_size"),
    ('{"name": "x", "tile_sise": 64}', "tile_sise"), ('{"name": "x", "cell": {"bits": 99}}', "bits"),
    ('{"name": "x", "tile_size": NaN}', ""), ('{"tile_size": 64}', "name"), ("\udcff\x00", "")])
def test_a_malformed_chip_file(PETSc, solve, gallery, cause, shared_tmp_path, content, said):
    path = shared_tmp_path / "chip.json"
    comm = PETSc.COMM_WORLD.tompi4py()
    if comm.rank == 0:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    comm.Barrier()
    text = same_end(PETSc, cause(solve, gallery.poisson(6, 6), analog_chip=str(path)))
    assert said in text


def test_a_chip_file_that_is_right(PETSc, solve, gallery, shared_tmp_path):
    path = shared_tmp_path / "chip.json"
    comm = PETSc.COMM_WORLD.tompi4py()
    if comm.rank == 0:
        from analogpde.chip import load

        path.write_text(json.dumps({**load("pku2025").as_dict(), "name": "mine", "tile_size": 48}))
    comm.Barrier()
    done = solve(gallery.poisson(12, 12), analog_chip=str(path))
    done.assert_fp32()
    assert (done.analog.settings.chip.name, done.analog.settings.chip.tile_size) == ("mine", 48)


# ---- matrices ---------------------------------------------------------------------------------------------------

def with_entry(whole, i, j, value):
    whole = whole.tolil()
    whole[i, j] = value
    return whole.tocsr()


@pytest.mark.parametrize("value", [NAN, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, -1])
@pytest.mark.parametrize("size", [5, 20])
def test_not_a_number_in_the_matrix_on_one_rank_only(PETSc, solve, gallery, cause, value, row, size):
    whole = with_entry(gallery.poisson(size, size), row, row, value)
    text = same_end(PETSc, cause(solve, whole))
    assert "matrix entries: got 'NaN or infinity'; allowed: finite numbers" in text
    PETSc.Options().delValue("ksp_type")
    usable_again(solve, gallery)


@pytest.mark.parametrize("value", [NAN, np.inf])
@pytest.mark.parametrize("entry", [0, -1])
def test_not_a_number_in_the_right_hand_side_on_one_rank_only(solve, gallery, value, entry):
    b = np.ones(400)
    b[entry] = value
    done = solve(gallery.poisson(20, 20), b)
    assert (done.reason, done.iterations) == (-9, 0)
    assert not done.x.any()
    done.rhs.set(1.0)
    done.ksp.solve(done.rhs, done.solution)  # the solver is none the worse for it
    assert done.reason > 0


@pytest.mark.parametrize("entry", [0, -1])
def test_not_a_number_in_the_initial_guess(solve, gallery, entry):
    start = np.zeros(400)
    start[entry] = NAN
    assert solve(gallery.poisson(20, 20), start=start).reason == -9


@pytest.mark.parametrize("pc", [{}, {"pc_type": "jacobi"}, {"pc_type": "none"}])
def test_a_matrix_of_zeros(PETSc, solve, gallery, pc, capsys):
    whole = 0.0 * gallery.poisson(12, 12)
    try:
        done = solve(whole, **pc)
    except PETSc.Error as error:
        assert not pc
        assert "all entries zero" in same_end(PETSc, str(error.__cause__))
    else:
        assert pc
        assert done.reason < 0


def test_a_right_hand_side_of_zeros(solve, gallery):
    done = solve(gallery.poisson(20, 20), np.zeros(400))
    assert (done.reason, done.iterations) == (3, 0)
    assert not done.x.any()
    done = solve(gallery.poisson(20, 20), np.zeros(400), start=np.ones(400))
    assert done.reason > 0
    assert not done.x.any()


def test_a_matrix_that_is_not_square(PETSc, distribute, cause):
    matrix = distribute(sp.csr_matrix(np.ones((9, 6))))
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setType("analog")
    ksp.setOperators(matrix)
    x, b = matrix.createVecs()
    assert "matrix: got '9 × 6'; allowed: a square matrix" in same_end(PETSc, cause(ksp.solve, b, x))


def test_a_matrix_without_rows(PETSc, distribute, cause):
    matrix = distribute(sp.csr_matrix((0, 0)))
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setType("analog")
    ksp.setOperators(matrix)
    x, b = matrix.createVecs()
    assert "matrix: got '0 × 0'" in same_end(PETSc, cause(ksp.solve, b, x))


def test_no_matrix_at_all(PETSc):
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setType("analog")
    with pytest.raises(PETSc.Error):  # PETSc's own
        ksp.setUp()


@pytest.mark.parametrize("cells", [5, 14])
def test_a_zero_diagonal_is_refused_and_names_a_way_out(PETSc, solve, gallery, cause, cells):
    whole = gallery.saddle(cells)
    text = same_end(PETSc, cause(solve, whole))
    assert "zero diagonal" in text
    assert "-pc_type fieldsplit" in text
    assert f"row {cells**2} of the matrix" in text


@pytest.mark.parametrize(("rows", "words"), [
    ([17], "row 17 of the matrix, which"), ([390, 3], "row 3 of the matrix and 1 more")])
def test_an_empty_row_is_named_as_the_program_numbers_it(PETSc, solve, gallery, cause, rows, words):
    whole = gallery.poisson(20, 20).tolil()
    whole[rows, :] = 0.0
    text = same_end(PETSc, cause(solve, sp.csr_matrix(whole)))
    assert words in text
    assert "no equation was assembled" in text
    assert "fieldsplit" not in text


@pytest.mark.parametrize("sign", ["one tile", "tiles of both signs", "shifted"])
@pytest.mark.parametrize("chip", ["ideal", "rram128"])
def test_an_indefinite_matrix_is_refused_or_answered_rightly(PETSc, solve, gallery, sign, chip):
    whole = {
        "one tile": gallery.poisson(6, 6) - 2.0 * sp.eye_array(36),
        "tiles of both signs": gallery.poisson(20, 20) - 1.0 * sp.eye_array(400),
        "shifted": gallery.poisson(20, 20) - 0.07 * sp.eye_array(400),
    }[sign]
    try:
        done = solve(sp.csr_matrix(whole), analog_chip=chip, ksp_max_it=300)
    except PETSc.Error as error:
        text = same_end(PETSc, str(error.__cause__))
        assert "stay unstable" in text or "both signs" in text
        assert "indefinite" in text
    else:
        assert done.reason < 0 or done.forward_error() <= 2.0**-23


def test_a_matrix_of_both_signs_on_its_diagonal(PETSc, solve, gallery, cause):
    signs = np.where(np.arange(100) % 3 == 0, -1.0, 1.0)
    text = same_end(PETSc, cause(solve, sp.csr_matrix(gallery.poisson(10, 10) @ sp.diags_array(signs))))
    assert "both signs" in text
    assert "indefinite" in text


def test_an_unstable_matrix_without_a_zero_on_its_diagonal(PETSc, solve, cause):
    # a rotation with a weak diagonal is stable, its mirror is not: eigenvalues 0.1 ± 1
    mirror = sp.kron(sp.eye_array(60), np.array([[0.1, 1.0], [1.0, 0.1]]))
    text = same_end(PETSc, cause(solve, sp.csr_matrix(mirror)))
    assert "stay unstable" in text


@pytest.mark.parametrize("bad", [NAN, 0.0])
@pytest.mark.parametrize("set_operators", [True, False])
def test_a_set_up_that_failed_can_be_mended(PETSc, solve, gallery, cause, bad, set_operators):
    done = solve(gallery.poisson(20, 20))

    def again(value):
        if value is not None:
            done.matrix.setValue(0, 0, value)
            done.matrix.assemble()
        if set_operators:
            done.ksp.setOperators(done.matrix)
        done.ksp.solve(done.rhs, done.solution)

    text = same_end(PETSc, cause(again, bad))
    assert ("NaN" if np.isnan(bad) else "zero diagonal") in text
    done.rhs.scale(1.0)  # nothing is left locked
    done.solution.set(0.0)
    again(None)  # PETSc does not set up again without a change: no tiles, or those of another matrix
    assert done.reason < 0
    again(4.0)
    done.__dict__.pop("x", None)
    done.__dict__.pop("residual", None)
    done.assert_fp32()

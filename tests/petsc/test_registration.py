"""`analog` is a type of KSP and PC like PETSc's own: chosen by name, by options, with prefixes."""

from __future__ import annotations

import pytest

from analogpde.options import KSP_OPTIONS, PC_OPTIONS, TABLE

FP32_RTOL = 2.0**-24


@pytest.fixture
def ksp(PETSc, distribute, gallery):
    """A KSP with operators and nothing else."""
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setOperators(distribute(gallery.poisson(6, 6)))
    return ksp


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["KSP", "PC"])
def test_set_type_and_get_type(PETSc, kind):
    thing = getattr(PETSc, kind)().create(PETSc.COMM_WORLD)
    thing.setType("analog")
    assert thing.getType() == "analog"
    assert type(thing.getPythonContext()).__name__ == f"Analog{kind}"
    thing.setType("none" if kind == "PC" else "cg")  # and away from it again
    assert thing.getType() != "analog"


@pytest.mark.mpi
@pytest.mark.parametrize("prefix", ["", "heat_", "a_b_"])
def test_options_choose_the_types_under_a_prefix(ksp, options, prefix):
    options[prefix + "ksp_type"] = "analog"
    options[prefix + "pc_analog_overlap"] = 1
    options[prefix + "analog_chip"] = "sram64"
    ksp.setOptionsPrefix(prefix)
    ksp.setFromOptions()
    assert (ksp.getType(), ksp.getPC().getType()) == ("analog", "analog")
    settings = ksp.getPC().getPythonContext().settings
    assert (settings.overlap, settings.chip.name, settings.prefix) == (1, "sram64", prefix)


@pytest.mark.mpi
def test_chip_options_without_a_prefix_hold_for_every_solver_and_its_own_come_first(ksp, options):
    options["heat_ksp_type"] = "analog"
    options["analog_chip"] = "pku2025"
    options["analog_dac_bits"] = 5
    options["heat_analog_dac_bits"] = 7
    ksp.setOptionsPrefix("heat_")
    ksp.setFromOptions()
    chip = ksp.getPC().getPythonContext().settings.chip
    assert (chip.cell.bits, chip.dac.bits) == (3, 7)


def _from_options(ksp, options):
    options["ksp_type"] = "analog"
    ksp.setFromOptions()


def _type_then_options(ksp, options):
    ksp.setType("analog")
    ksp.setFromOptions()


def _options_then_type(ksp, options):
    ksp.setFromOptions()  # PETSc has chosen gmres with its default PC by now
    ksp.setType("analog")


def _type_alone(ksp, options):
    ksp.setType("analog")


def _operators_later(ksp, options):
    operators = ksp.getOperators()
    ksp.reset()
    ksp.setType("analog")
    ksp.setFromOptions()
    ksp.setOperators(*operators)


def _twice(ksp, options):
    _from_options(ksp, options)
    ksp.setFromOptions()
    ksp.setType("analog")


@pytest.mark.mpi
@pytest.mark.parametrize("order", [_from_options, _type_then_options, _options_then_type, _type_alone, _operators_later,
                                   _twice])
def test_ksp_analog_alone_brings_pc_analog_and_the_default_target(ksp, options, order):
    order(ksp, options)
    assert (ksp.getType(), ksp.getPC().getType()) == ("analog", "analog")
    assert ksp.getTolerances()[0] == FP32_RTOL


def _lu_before(ksp, options):
    ksp.getPC().setType("lu")
    options["ksp_type"] = "analog"
    ksp.setFromOptions()


def _lu_after(ksp, options):
    options["ksp_type"] = "analog"
    ksp.setFromOptions()
    ksp.getPC().setType("lu")


def _lu_by_option(ksp, options):
    options["ksp_type"] = "analog"
    options["pc_type"] = "lu"
    ksp.setFromOptions()


def _lu_by_option_and_type(ksp, options):
    options["pc_type"] = "lu"
    ksp.setType("analog")
    ksp.setFromOptions()


@pytest.mark.parametrize("order", [_lu_before, _lu_after, _lu_by_option, _lu_by_option_and_type])
def test_a_program_that_wants_lu_keeps_lu_and_is_told_so(PETSc, ksp, options, order, capsys):
    order(ksp, options)
    assert (ksp.getType(), ksp.getPC().getType()) == ("analog", "lu")
    x, b = ksp.getOperators()[0].createVecs()
    b.set(1.0)
    ksp.solve(b, x)
    ksp.solve(b, x)
    said = capsys.readouterr().err
    assert ksp.getConvergedReason() > 0
    assert said.count("corrections come from the digital preconditioner 'lu', not from analog tiles") == 1  # once only


def test_pc_analog_says_nothing_of_digital(ksp, capsys):
    ksp.setType("analog")
    x, b = ksp.getOperators()[0].createVecs()
    b.set(1.0)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    assert "digital" not in capsys.readouterr().err


def test_a_program_that_has_set_a_tolerance_keeps_it(ksp, options):
    ksp.setTolerances(rtol=1e-3)
    ksp.setType("analog")
    assert ksp.getTolerances()[0] == 1e-3
    options["ksp_rtol"] = 1e-5  # PETSc's own default, but asked for
    ksp.setFromOptions()
    assert ksp.getTolerances()[0] == 1e-5


# ---- in processes of their own ----------------------------------------------------------------------------------

SYSTEM = """
import {first}
import petsc4py, sys
petsc4py.init(sys.argv)
from petsc4py import PETSc
A = PETSc.Mat().createAIJ([300, 300], nnz=3)
for i in range(*A.getOwnershipRange()):
    for j in (i - 1, i, i + 1):
        if 0 <= j < 300:
            A[i, j] = 2.0 if i == j else -1.0
A.assemble()
x, b = A.createVecs()
b.set(1.0)
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setFromOptions()
ksp.solve(b, x)
if A.getComm().rank == 0:
    print("TYPES", ksp.getType(), ksp.getPC().getType(), ksp.getConvergedReason(), flush=True)
"""
KNOWS_NOTHING = SYSTEM.format(first="dolfinx_solver" if __import__("importlib.util").util.find_spec("dolfinx_solver")
                              else "mpi4py.MPI")


def test_importing_analogpde_imports_neither_petsc_nor_mpi(PETSc, python):
    done = python("import sys, analogpde\nanalogpde.load_chip('ideal')\n"
                  "print([m for m in sys.modules if m.startswith(('petsc4py', 'mpi4py', 'dolfinx'))])")
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_script_that_knows_nothing_of_us(PETSc, python, ranks):
    done = python(KNOWS_NOTHING, "-ksp_type", "analog", "-ksp_converged_reason", "-ksp_monitor", "-ksp_view",
                  ranks=ranks, module=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TYPES analog analog 2\n" in done.stdout
    assert "0 KSP Residual norm 1.732050807569e+01" in done.stdout  # ‖b‖ = √300
    assert "Linear solve converged due to CONVERGED_RTOL iterations" in done.stdout
    assert "iterative refinement, residual digital, accelerator auto" in done.stdout
    assert "chip rram128: tile 128" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_same_script_without_us_has_no_such_type(PETSc, python):
    done = python(KNOWS_NOTHING, "-ksp_type", "analog")
    assert done.returncode != 0
    assert "TYPES" not in done.stdout


def test_help_lists_the_type_and_all_options_once(PETSc, python):
    done = python(KNOWS_NOTHING, "-ksp_type", "analog", "-help", module=True)
    assert done.returncode == 0, done.stderr
    for name in TABLE:
        if name == "analog_report":  # of the process, not of a solver
            continue
        assert done.stdout.count(f"-{name}: <now ") == 1, name
    for option in KSP_OPTIONS + PC_OPTIONS:
        assert f"{option.help} ({option.allowed})" in done.stdout
    kinds = [line for line in done.stdout.splitlines() if "-ksp_type" in line or "-pc_type" in line]
    assert len(kinds) >= 2
    assert all(" analog" in line for line in kinds), kinds


def test_a_failed_solve_is_said_on_the_terminal_with_advice(PETSc, python):
    done = python(KNOWS_NOTHING, "-ksp_type", "analog", "-ksp_max_it", "2", module=True)
    assert "analogpde: KSP (no prefix): DIVERGED_ITS after 2 iterations" in done.stderr
    assert "Raise -ksp_max_it" in done.stderr


REPORT = """
import analogpde.petsc
from petsc4py import PETSc
print("STARTED", flush=True)
"""


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("target", "said"), [
    ("script.py/report.json", "is not a folder"), ("report.pdf", ".json | .html | .txt"), ("", "")])
def test_a_report_that_cannot_be_written_is_refused_before_the_run(PETSc, python, ranks, target, said):
    done = python(REPORT, *(["-analog_report", target] if target else ["-analog_report"]), ranks=ranks, module=True)
    assert done.returncode != 0
    assert "STARTED" not in done.stdout
    assert said in done.stderr
    assert "analogpde" in done.stderr


def test_a_report_whose_folder_is_lost_during_the_run_is_missed_in_one_line(PETSc, python, tmp_path):
    folder = tmp_path / "lost"
    folder.mkdir()
    script = REPORT + f"import shutil; shutil.rmtree({str(folder)!r}); open({str(folder)!r}, 'w').close()\n"
    done = python(script, "-analog_report", str(folder / "report.json"), module=True)
    assert "STARTED" in done.stdout
    assert "analogpde: no report: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_after_an_error_of_ours_petsc_does_not_complain_of_options_that_nothing_came_to_read(python):
    start = "from mpi4py import MPI\nimport petsc4py, sys\npetsc4py.init(sys.argv)\nimport analogpde.petsc\n"
    done = python(start, "-pc_analog_cores", "3", "-ksp_rtol", "1e-3")
    assert done.returncode != 0
    assert "Did you mean -pc_analog_core?" in done.stderr
    assert "not used" not in done.stdout + done.stderr
    assert "ksp_rtol" in python(start, "-ksp_rtol", "1e-3").stdout  # without an error it does

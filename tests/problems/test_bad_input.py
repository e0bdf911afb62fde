"""Bad input: one clear message on all ranks, an exit code, no traceback, no hang."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BAD = [
    ("poisson", "-n 0", "-n"),
    ("poisson", "-degree 0", "-degree"),
    ("poisson", "-case nonsense", "manufactured"),
    ("poisson", "-mesh absent.xdmf", "exists"),
    ("poisson", "-mesh problems/poisson.py", "*.xdmf"),
    ("poisson", "-case lshape -n 3", "even"),
    ("poisson", "-case lshape -dim 3", "two-dimensional"),
    ("poisson", "-case lognormal -mesh meshes/heat_sink.xdmf", "-mesh"),
    ("poisson", "-mesh meshes/heat_sink.xdmf -refine 2", "-refine"),
    ("poisson", "-ksp_type nonsense", "nonsense"),
    ("poisson", "-ksp_analog_resdual sliced", "-ksp_analog_residual"),
    ("poisson", "-analog_chip nonsense", "rram128"),
    ("poisson", "-analog_report report.pdf", ".html"),
    ("poisson", "-poison_ksp_type cg -ksp_type nonsense", "nonsense"),  # no prefixes, so the first is PETSc's affair
    ("vorticity", "-possion_ksp_type cg", "Did you mean -poisson_ksp_type?"),
    ("schrodinger", "-sst_pc_type lu", "Did you mean -st_pc_type?"),
    ("density_current", "-vortcity_ksp_rtol 1e-3", "Did you mean -vorticity_ksp_rtol?"),
    ("density_current", "-case bubble -resolution 100", "Take 125 or 62.5."),
    ("density_current", "-resolution 1e5", "Take 1600."),
    ("heat", "-n 8", "own mesh"),
    ("heat", "-dt -1", "-dt"),
    ("heat", "-t_end 0", "-t_end"),
    ("heat", "-theta 0.4", "0.5 to 1"),
    ("heat", "-case nafems_t3 -mesh meshes/heat_sink.xdmf", "-mesh"),
    ("heat", "-ambient -300", "-273.15"),
    ("heat", "-out /dev/null/folder", "-out"),
    ("density_current", "-restart", "another problem's script"),
    ("schrodinger", "-mode time -n 8 -level 2", "another problem's script"),
]


def test_options_of_other_scripts_are_known(problem):
    from analogpde.fem.arguments import COMMON, ELSEWHERE

    scripts = [problem(path.stem) for path in (ROOT / "problems").glob("*.py")]
    assert {option.name for script in scripts for option in script.OPTIONS} - set(COMMON) == ELSEWHERE


@pytest.mark.mpi
@pytest.mark.parametrize(("name", "argv", "said"), BAD)
def test_bad_input_is_refused_with_a_reason(problem, monkeypatch, capsys, comm, name, argv, said):
    monkeypatch.chdir(ROOT)
    words = argv.split()
    outcome = problem(name).SCRIPT.execute([*words, *([] if "-out" in words else ["-out", "none"])])
    assert outcome.code == 2 and said in outcome.message
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert printed.err.count(outcome.message) == (1 if comm.rank == 0 else 0)


@pytest.mark.mpi
def test_a_solve_that_does_not_converge_fails_the_run_and_is_reported(problem, solver, capsys, comm):
    outcome = problem("poisson").SCRIPT.execute([*solver, "-n", "16", "-ksp_max_it", "1", "-out", "none"])
    assert outcome.code == 1 and "did not converge" in outcome.message
    assert outcome.log.solves[""].failures == 1
    if comm.rank == 0:
        assert "FAILED" in capsys.readouterr().out


@pytest.mark.mpi
def test_an_error_if_not_converged_still_leaves_a_report(problem, tmp_path, comm):
    folder = comm.bcast(str(tmp_path))
    outcome = problem("poisson").SCRIPT.execute(
        ["-ksp_type", "analog", "-n", "8", "-ksp_max_it", "1", "-ksp_error_if_not_converged", "-out", folder])
    assert outcome.code == 1
    assert "did not converge" in outcome.message
    comm.Barrier()
    assert (Path(folder) / "report.json").exists()


def run(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=120, check=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [("-n 0", 2), ("-analog_tile_size 0 -out none", 2), ("-n 4 -ksp_max_it 1 -out none", 1), ("-help", 0)],
)
def test_exit_codes_of_the_program(words, code):
    done = run("problems/poisson.py", *words.split())
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "unused database option" not in done.stderr + done.stdout

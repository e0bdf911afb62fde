"""The command line and the launcher, as a user meets them."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import analogpde
from analogpde.cli import COMMANDS, main
from analogpde.doctor import Finding, doctor, examine
from analogpde.options import TABLE
from analogpde.report import build

ROOT = Path(__file__).parents[1]
HEAVY = ("petsc4py", "mpi4py", "dolfinx", "dolfinx_solver", "matplotlib", "numba", "scipy", "jinja2")


def python(*arguments, folder=ROOT, ranks=0, seconds=120, **environment):
    """Run this interpreter in a process of its own, or under mpirun."""
    command = [sys.executable, *map(str, arguments)]
    if ranks:
        command = [launcher(), "-n", str(ranks), *command]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=seconds, check=False)


def launcher():
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        pytest.skip("needs mpirun")
    return found


@pytest.fixture
def script(tmp_path):
    """Write a script into a folder with a space in its name and return its path."""
    folder = tmp_path / "my programs"
    folder.mkdir()

    def write(text):
        path = folder / "program.py"
        path.write_text(textwrap.dedent(text))
        return path

    return write


# The package


def test_import_analogpde_loads_nothing_heavy():
    code = f"import sys, analogpde, analogpde.errors, analogpde.options, analogpde.cli; " \
           f"print([name for name in {HEAVY!r} if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_import_analogpde_petsc_loads_petsc():
    pytest.importorskip("analogpde.petsc.stack", exc_type=ImportError)
    done = python("-c", "import sys, analogpde.petsc.stack; print('petsc4py.PETSc' in sys.modules)")
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("name", analogpde.__all__)
def test_public_names_exist(name):
    assert getattr(analogpde, name) is not None
    assert name in dir(analogpde)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Chips'"):
        _ = analogpde.Chips


# Commands


def test_no_words_print_the_help_and_fail(capsys):
    assert main([]) == 2
    said = capsys.readouterr().out
    assert all(command in said for command in COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"analogpde {analogpde.__version__}\n"


def test_a_wrong_command_names_the_right_one(capsys):
    assert main(["doctr"]) == 2
    assert "Did you mean doctor?" in capsys.readouterr().err


def test_a_missing_script_is_named(capsys):
    assert main(["no/such/script.py", "-ksp_type", "analog"]) == 2
    assert "'no/such/script.py' is neither a file nor a command" in capsys.readouterr().err


def test_run_without_a_script(capsys):
    assert main(["run"]) == 2
    assert "usage" in capsys.readouterr().out


def test_options_prints_the_table(capsys):
    assert main(["options"]) == 0
    said = capsys.readouterr().out
    assert all(f"-{name} " in said for name in TABLE)


def test_a_reader_that_stops_early_is_no_error():
    done = subprocess.run(f"'{sys.executable}' -m analogpde options | head -n 1; exit ${{PIPESTATUS[0]}}", shell=True,
                          executable=shutil.which("bash"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_chips_lists_all_presets(capsys):
    assert main(["chips"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}:" in said for name in analogpde.PRESETS)


def test_chips_describes_one_with_its_sources(capsys):
    assert main(["chips", "pku2025"]) == 0
    assert "Nature Electronics" in capsys.readouterr().out


def test_a_chip_as_json_reads_back_as_the_same_chip(capsys, tmp_path):
    assert main(["chips", "sram64", "--json"]) == 0
    path = tmp_path / "mine.json"
    path.write_text(capsys.readouterr().out)
    assert analogpde.load_chip(str(path)) == analogpde.load_chip("sram64")


def test_an_unknown_chip_is_refused_without_a_traceback(capsys):
    assert main(["chips", "rram182"]) == 1
    assert "Did you mean rram128?" in capsys.readouterr().err


def test_json_of_no_chip(capsys):
    assert main(["chips", "--json"]) == 2


@pytest.fixture
def report_file(tmp_path):
    from analogpde.refine.record import SolveLog, SolveRecord, Step

    record = SolveRecord("", 9, 1, "CONVERGED_RTOL", "Fine.", 1e-9, 1e-10, "analog",
                         history=[Step(0, 1.0, 0.0, 0.0, 0), Step(1, 1e-9, 1.0, 29.9, 4)])
    log = SolveLog()
    log.add(record)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(build(log).as_dict()))
    return path


def test_report_is_shown_as_text(report_file, capsys):
    assert main(["report", str(report_file)]) == 0
    assert "CONVERGED_RTOL" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".html", ".txt", ".json"])
def test_report_is_written_in_the_format_of_its_name(report_file, tmp_path, suffix, capsys):
    target = tmp_path / f"again{suffix}"
    assert main(["report", str(report_file), "-o", str(target)]) == 0
    assert "CONVERGED_RTOL" in target.read_text()
    assert ("<html" in target.read_text()) == (suffix == ".html")


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("{", "JSON"), ("{}", "schema"), ("[1]", "allowed")]
)
def test_a_report_that_is_none(tmp_path, content, said, capsys):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    assert main(["report", str(path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_report_in_a_format_that_there_is_not(report_file, tmp_path, capsys):
    assert main(["report", str(report_file), "-o", str(tmp_path / "run.pdf")]) == 1
    assert ".html" in capsys.readouterr().err


# The doctor


def test_the_doctor_finds_the_required_in_this_environment(comm):
    findings = {finding.subject: finding for finding in examine()}
    for subject in ("Python", "numpy", "scipy", "numba", "PETSc", "MPI", "kernel cache"):
        assert findings[subject].status == "ok", findings[subject]


def test_the_doctor_fails_if_something_required_is_missing(monkeypatch, capsys):
    findings = [Finding("A", "ok", "here"), Finding("B", "missing", "not here", "Install B.")]
    monkeypatch.setattr("analogpde.doctor.examine", lambda: findings)
    assert doctor() == 1
    said = capsys.readouterr().out
    assert "-> Install B." in said
    assert said.endswith("Missing: B.\n")
    findings.pop()
    assert doctor() == 0


def test_the_doctor_survives_a_check_that_fails(monkeypatch):
    monkeypatch.setattr("analogpde.doctor.platform.python_version", lambda: 1 / 0)
    assert any(finding.subject == "python" and "ZeroDivision" in finding.detail for finding in examine())


def test_the_doctor_misses_a_compiler(monkeypatch):
    from analogpde.doctor import compiler

    monkeypatch.setenv("CC", "no-such-compiler -O2")
    first = next(iter(compiler()))
    assert first.status == "missing"
    assert "apt-get install gcc" in first.remedy


# PETSc and MPI of the right kind


def hide(tmp_path, *names):
    """Return a folder that makes `import name` fail as if it were not installed."""
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')")
    return f"{tmp_path}{os.pathsep}{ROOT}"


@pytest.mark.parametrize("missing", ["petsc4py", "mpi4py"])
def test_a_missing_stack_is_one_message_that_says_what_to_install(tmp_path, missing, script):
    path = hide(tmp_path, missing, "dolfinx_solver")
    program = script("print('never')")
    done = python("-m", "analogpde", program, PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert missing in done.stderr
    assert "pip install dolfinx-solver-real" in done.stderr


def test_the_missing_stack_is_an_import_error_for_programs_that_can_do_without(tmp_path):
    code = "try:\n    import analogpde.petsc.stack\nexcept ImportError as error:\n    print(type(error).__name__)"
    assert python("-c", code, PYTHONPATH=hide(tmp_path, "petsc4py", "dolfinx_solver")).stdout.strip() == "StackError"


def test_complex_and_single_precision_petsc_are_refused(comm):
    from analogpde.petsc.stack import StackError, check_scalars

    check_scalars(np.float64, np.float64)
    with pytest.raises(StackError, match="complex numbers"):
        check_scalars(np.complex128, np.float64)
    with pytest.raises(StackError, match="float32 numbers"):
        check_scalars(np.float32, np.float32)


# The launcher


OPTIONS = """
    import sys
    from petsc4py import PETSc
    import beside
    database = PETSc.Options()
    print(__name__, sys.argv[1:], database.getReal("ksp_rtol", 0), beside.value)
"""


def test_a_script_gets_its_arguments_and_petsc_its_options(script, comm):
    program = script(OPTIONS)
    (program.parent / "beside.py").write_text("value = 'a module beside the script'")
    for words in (("-m", "analogpde"), ("-m", "analogpde", "run")):
        done = python(*words, program, "mesh.xdmf", "-ksp_rtol", "1e-3")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "__main__ ['mesh.xdmf', '-ksp_rtol', '1e-3'] 0.001 a module beside the script\n"


def test_a_module_runs_too(script, comm):
    program = script(OPTIONS)
    (program.parent / "beside.py").write_text("value = 1")
    done = python("-m", "analogpde", "-m", "program", "-ksp_rtol", "0.5", folder=program.parent)
    assert done.stdout == "__main__ ['-ksp_rtol', '0.5'] 0.5 1\n", done.stderr


def test_a_command_runs_too(comm):
    done = python("-m", "analogpde", "-c", "import sys; print(sys.argv)", "-ksp_rtol", "1")
    assert done.stdout.startswith("['-c', '-ksp_rtol', '1']\n"), done.stderr


def test_the_types_are_registered_for_a_script_that_does_not_know_us(script, comm):
    program = script("""
        from petsc4py import PETSc
        ksp = PETSc.KSP().create()
        ksp.setFromOptions()
        print(ksp.getType(), ksp.getPC().getType())
    """)
    done = python("-m", "analogpde", program, "-ksp_type", "analog", "-pc_type", "analog")
    assert done.stdout.split() == ["analog", "analog"], done.stderr


@pytest.mark.parametrize(("ending", "code"), [("3", 3), ("0", 0), ("None", 0), ("'no mesh'", 1)])
@pytest.mark.parametrize("ranks", [0, 2])
def test_exit_codes_are_kept(script, comm, ending, code, ranks):
    program = script(f"""
        import sys, time
        from mpi4py import MPI
        if MPI.COMM_WORLD.rank == 0:
            time.sleep(1)  # a report is written
            print("written", flush=True)
        sys.exit({ending})
    """)
    done = python("-m", "analogpde", program, ranks=ranks)
    assert done.returncode == code
    assert "written" in done.stdout
    assert ("no mesh" in done.stderr) == (code == 1)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ranks", [0, 2])
def test_what_petsc_carries_for_us_is_told_in_one_line(script, comm, ranks):
    program = script("""
        from petsc4py import PETSc
        matrix = PETSc.Mat().createAIJ((4, 4), nnz=1)
        matrix.setUp()
        matrix.assemble()
        ksp = PETSc.KSP().create()
        ksp.setOperators(matrix)
        ksp.setFromOptions()
        ksp.setUp()
    """)
    done = python("-m", "analogpde", program, "-ksp_type", "analog", "-never_read", "1", ranks=ranks)
    assert done.returncode == 1
    assert "analogpde: matrix: got 'all entries zero'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "not used" not in done.stdout + done.stderr


def test_a_mistyped_solver_type_is_told_in_one_line(script, comm):
    done = python("-m", "analogpde", script("""
        from petsc4py import PETSc
        PETSc.KSP().create().setFromOptions()
    """), "-ksp_type", "anlog")
    assert done.returncode == 1
    assert "got '-ksp_type anlog'" in done.stderr
    assert "Did you mean analog?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusal_that_the_program_turned_into_its_own_error_keeps_its_traceback(script, comm):
    program = script("""
        from petsc4py import PETSc
        ksp = PETSc.KSP().create()
        PETSc.Options()["analog_chip"] = "nothing"
        try:
            ksp.getPC().setType("analog")
            ksp.setFromOptions()
        except PETSc.Error as error:
            raise KeyError("mine") from error
    """)
    done = python("-m", "analogpde", program)
    assert "Traceback" in done.stderr
    assert "KeyError: 'mine'" in done.stderr


def test_an_exception_on_one_rank_ends_all(script, comm):
    program = script("""
        from mpi4py import MPI
        if MPI.COMM_WORLD.rank == 1:
            raise ValueError("a bad tile")
        MPI.COMM_WORLD.Barrier()
    """)
    begin = time.monotonic()
    done = python("-m", "analogpde", program, ranks=2, seconds=60)
    assert done.returncode != 0
    assert "error on rank 1 of 2" in done.stderr
    assert "ValueError: a bad tile" in done.stderr
    assert "program.py" in done.stderr
    assert time.monotonic() - begin < 40  # 2 s of grace and two starts of Python on a busy machine


def test_an_early_exit_on_one_rank_ends_all(script, comm):
    program = script("""
        import sys
        from mpi4py import MPI
        if MPI.COMM_WORLD.rank == 0:
            sys.exit(7)
        MPI.COMM_WORLD.Barrier()
    """)
    code = f"import sys, analogpde.launch as l; l.EXIT_GRACE_SECONDS = 1.0; l.launch([{str(program)!r}])"
    done = python("-c", code, ranks=2, seconds=60)
    assert done.returncode == 7
    assert "rank 0 of 2 exits with code 7 while others go on" in done.stderr


def test_an_exception_on_one_process_is_pythons_own(script, comm):
    done = python("-m", "analogpde", script("raise ValueError('plain')"))
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: plain")


def test_the_doctor_installs_extras_from_the_source_tree_it_runs_from(monkeypatch, tmp_path):
    from analogpde import doctor as module

    root = Path(module.__file__).parents[1]
    assert (root / "pyproject.toml").exists()
    assert module.group("test") == f"-e '{root}[test]'"
    monkeypatch.setattr(module, "__file__", str(tmp_path / "analogpde" / "doctor.py"))
    assert module.group("test") == "'analogpde[test]'"

"""The suite on several ranks: the ranks stay together, and a failure on any of them fails the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.mpi
def test_every_rank_runs_this(comm):
    assert sorted(comm.allgather(comm.rank)) == list(range(comm.size))


@pytest.mark.mpi
def test_the_shared_folder_is_rank_zeros(comm, shared_tmp_path, tmp_path):
    if comm.rank == 0:
        (shared_tmp_path / "word").write_text("from rank 0")
    comm.Barrier()
    assert (shared_tmp_path / "word").read_text() == "from rank 0"
    assert (shared_tmp_path == tmp_path) == (comm.rank == 0)


def pytest_on_ranks(folder, text, ranks=2):
    """Run pytest on a file with `text` under mpirun with the suite's conftest; return the finished process."""
    mpirun = Path(sys.executable).parent / "mpirun"
    command = str(mpirun) if mpirun.exists() else shutil.which("mpirun")
    if command is None:
        pytest.skip("needs mpirun")
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    mpi: on several ranks\n")
    (folder / "test_inner.py").write_text("import pytest\n" + text)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    inner = [sys.executable, "-m", "pytest", "-m", "mpi", "-p", "no:cacheprovider"]
    return subprocess.run([command, "-n", str(ranks), *inner], cwd=folder, env=env, capture_output=True, text=True,
                          timeout=120, check=False)


def test_a_failure_on_one_rank_is_reported_by_rank_zero_and_the_others_go_on(comm, tmp_path):
    done = pytest_on_ranks(tmp_path, """
@pytest.mark.mpi
def test_one(comm):
    assert comm.rank != 1, "wrong on the second rank"

@pytest.mark.mpi
def test_two(comm):
    assert comm.allreduce(1) == comm.size

def test_serial_only():
    raise RuntimeError("not for several ranks")
""")
    assert done.returncode != 0
    assert "1 failed, 1 passed, 1 deselected" in done.stdout
    assert "rank 1: failed" in done.stdout
    assert "wrong on the second rank" in done.stdout
    assert done.stdout.count("test session starts") == 1


def test_a_skip_on_one_rank_only_is_a_failure(comm, tmp_path):
    done = pytest_on_ranks(tmp_path, """
@pytest.mark.mpi
def test_one(comm):
    if comm.rank == 1:
        pytest.skip("not here")
""")
    assert done.returncode != 0
    assert "1 failed" in done.stdout


def test_a_rank_that_leaves_the_others_in_a_collective_ends_the_run(comm, tmp_path):
    done = pytest_on_ranks(tmp_path, """
import sys
sys.modules["conftest"].FAILURE_GRACE_SECONDS = 1.0

@pytest.mark.mpi
def test_one(comm):
    assert comm.rank != 1, "left early"
    comm.Barrier()
""")
    assert done.returncode != 0
    assert "left early" in done.stderr
    assert "rank 1 of 2 has waited 1 s for the others after call of test_inner.py::test_one" in done.stderr


def test_different_tests_on_different_ranks_are_refused(comm, tmp_path):
    done = pytest_on_ranks(tmp_path, """
import os
@pytest.mark.mpi
@pytest.mark.parametrize("rank", [os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK"))])
def test_one(comm, rank):
    pass
""")
    assert done.returncode != 0
    assert "has collected other tests" in done.stdout


def test_all_pass(comm, tmp_path):
    done = pytest_on_ranks(tmp_path, "@pytest.mark.mpi\ndef test_one(comm):\n    assert comm.size == 3\n", ranks=3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout

"""What all tests share: MPI under pytest, the kernel cache, fixtures.

Serial: `python -m pytest`. On several ranks: `mpirun -n 3 python -m pytest -m mpi`; then every rank runs every test
marked `mpi`, rank 0 reports, a test that fails on any rank fails on all of them with that rank's traceback, and a
test that a rank leaves early while others wait inside it ends the run instead of hanging it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# After a failure the other ranks should be at the end of the test in no time, unless they wait for the failed one.
FAILURE_GRACE_SECONDS = 30.0
# Ranks finish a test together up to their own work (compiling, a direct solve on rank 0).
GRACE_SECONDS = 240.0


def launched(*names: str, default: int) -> int:
    """Return what the MPI launcher says of this process, without loading MPI."""
    return next((int(os.environ[name]) for name in names if name in os.environ), default)


SEVERAL_RANKS = launched("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", default=1) > 1
if SEVERAL_RANKS:
    # Temporary folders of its own for every rank: pytest removes old ones, and ranks would race.
    temporary = Path(tempfile.gettempdir()) / f"pytest-ranks-of-{os.getuid()}"
    temporary /= str(launched("PMI_RANK", "OMPI_COMM_WORLD_RANK", default=0))
    temporary.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(temporary))


def fresh_kernel_cache() -> None:
    """Name a Numba cache that belongs to the present sources.

    Numba renews the machine code of a file when that file changes, not when something it calls does; a test must
    never run yesterday's kernel.
    """
    sources = sorted((ROOT / "analogpde").rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources if b"compiled" in path.read_bytes()))
    caches = ROOT / ".numba_cache"
    mine = caches / digest.hexdigest()[:12]
    os.environ.setdefault("NUMBA_CACHE_DIR", str(mine))
    if not SEVERAL_RANKS and caches.is_dir():
        for folder in caches.iterdir():
            if folder != mine:
                shutil.rmtree(folder, ignore_errors=True)


fresh_kernel_cache()  # now: Numba takes the variable once, at its import


@pytest.hookimpl(trylast=True)  # after the terminal reporter is there
def pytest_configure(config: pytest.Config) -> None:
    # PETSc reads sys.argv; pytest has read its own options from there and PETSc must not take them for its own.
    del sys.argv[1:]
    if SEVERAL_RANKS:
        config.pluginmanager.register(Together(config), "analogpde-together")


class Together:
    """Keeps the ranks of one pytest run together."""

    def __init__(self, config: pytest.Config) -> None:
        from analogpde.petsc.stack import MPI

        self.MPI = MPI
        self.comm = MPI.COMM_WORLD.Dup()  # its own: a failing test may leave COMM_WORLD in the middle of anything
        self.terminal = os.dup(2)  # while a test runs pytest keeps file 2 for itself
        if self.comm.rank:
            # The reporter prints nothing on the other ranks; their failures travel to rank 0.
            reporter = config.pluginmanager.unregister(name="terminalreporter")
            assert reporter is not None

    def wait(self, seconds: float, where: str) -> None:
        """Wait until all ranks are here; end the run if they do not come."""
        request = self.comm.Ibarrier()
        deadline = time.monotonic() + seconds
        while not request.Test():
            if time.monotonic() > deadline:
                self.say(f"\nrank {self.comm.rank} of {self.comm.size} has waited {seconds:g} s for the others after "
                         f"{where}: they are not at the same place. Ending all ranks.\n")
                time.sleep(1.0)  # mpirun may drop what it has not passed on when it ends the ranks
                self.MPI.COMM_WORLD.Abort(1)
            time.sleep(0.001)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.wait(GRACE_SECONDS, "collection")
        mine = (session.testsfailed, [item.nodeid for item in session.items])
        for rank, theirs in enumerate(self.comm.allgather(mine)):
            if theirs != mine:
                pytest.exit(f"rank {rank} has collected other tests than rank {self.comm.rank}: {theirs}", 3)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        failed = report.failed
        if failed:
            # Said at once, in case the others never come.
            said = f"\n--- rank {self.comm.rank}: {report.when} of {item.nodeid} failed ---\n{report.longreprtext}\n"
            self.say(said if self.comm.rank else said.split("\n", 2)[1] + "\n")
        self.wait(FAILURE_GRACE_SECONDS if failed else GRACE_SECONDS, f"{report.when} of {item.nodeid}")
        outcomes = self.comm.allgather((report.outcome, report.longreprtext))
        others = [(rank, said) for rank, (outcome, said) in enumerate(outcomes) if outcome != report.outcome]
        if others and not failed:
            # Skipped or passed here, something else there: a collective test cannot do that.
            report.outcome = "failed"
            report.longrepr = "\n".join(f"rank {rank}: {outcomes[rank][0]}\n{said}" for rank, said in others)
            report.__dict__.pop("wasxfail", None)
        return report

    def say(self, text: str) -> None:
        """Print on the terminal, from any rank and from inside a test."""
        os.write(self.terminal, text.encode())


@pytest.fixture(scope="session")
def comm() -> Any:
    """MPI.COMM_WORLD; the test is skipped where there is no MPI."""
    stack = pytest.importorskip("analogpde.petsc.stack", reason="needs PETSc and MPI", exc_type=ImportError)
    return stack.MPI.COMM_WORLD


@pytest.fixture
def shared_tmp_path(comm: Any, tmp_path: Path) -> Path:
    """Rank 0's temporary folder, on every rank."""
    return Path(comm.bcast(str(tmp_path), root=0))

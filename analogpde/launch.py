"""Run a script that knows nothing of analogpde with PETSc's options, our solver types, and a safe end under MPI."""

from __future__ import annotations

import runpy
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from analogpde.errors import AnalogError, cause

if TYPE_CHECKING:
    from mpi4py import MPI

# How long a rank that ends early waits for the others before it ends them too. After sys.exit(1) rank 0 may still be
# writing the report that explains it; after an exception the others only need to say what they know.
EXIT_GRACE_SECONDS = 10.0
ERROR_GRACE_SECONDS = 2.0


def launch(arguments: list[str]) -> None:
    """Run `[-m module | -c command | script] [arguments, PETSc options]` as Python would, with our types registered.

    Collective: every rank runs the script. An exception on any rank ends all of them; exit codes are kept.

    Args:
        arguments: the command line from the script's name on, not empty.

    Raises:
        SystemExit: the script's own exit, or one that says why it cannot be started.
    """
    flag = arguments[0] if arguments[0] in ("-m", "-c") else ""
    if flag and len(arguments) < 2:
        raise SystemExit(f"analogpde: {flag} wants a {'module' if flag == '-m' else 'command'} after it")
    target, rest = (arguments[1], arguments[2:]) if flag else (arguments[0], arguments[1:])
    sys.argv[:] = ["-c" if flag == "-c" else target, *rest]  # PETSc reads it when analogpde.petsc is imported
    try:
        import analogpde.petsc  # noqa: F401 - registers the types
        from analogpde.petsc.stack import MPI, PETSc
    except AnalogError as error:
        raise SystemExit(f"analogpde: {error}") from None
    if MPI.COMM_WORLD.size == 1:
        try:
            run_target(flag, target)
        except Exception as error:
            if (ours := said_by_us(error)) is None:
                raise
            PETSc.Options().setValue("options_left", "no")  # the options of solvers that were never reached
            raise SystemExit(f"analogpde: {ours}") from None
        remind()
        return
    # A communicator of its own: the others may be inside a collective of COMM_WORLD when one rank fails.
    comm = MPI.COMM_WORLD.Dup()
    try:
        run_target(flag, target)
        remind()
    except SystemExit as ending:
        code = exit_code(ending)
        if code == 0 or all_arrive(comm, EXIT_GRACE_SECONDS):
            raise
        said = "" if ending.code == code else f": {ending.code}"
        report(f"analogpde: rank {comm.rank} of {comm.size} exits with code {code} while others go on{said}\n")
        MPI.COMM_WORLD.Abort(code)
    except BaseException as error:
        ours = cause(error)
        last = f"analogpde: {ours}\n" if ours is not None else ""  # behind PETSc's lines, where it is seen
        where = f"analogpde: error on rank {comm.rank} of {comm.size}\n"
        report(where + ("" if said_by_us(error) is not None else traceback.format_exc()) + last)
        all_arrive(comm, ERROR_GRACE_SECONDS)
        # Anything gentler would hang in MPI_Finalize, or in the collective that the others wait in.
        MPI.COMM_WORLD.Abort(130 if isinstance(error, KeyboardInterrupt) else 1)


def said_by_us(error: BaseException) -> AnalogError | None:
    """Return the error of ours whose message says all: raised as it is, or carried by PETSc; None for all others."""
    from analogpde.petsc.options import UNKNOWN_TYPE, unknown_type
    from analogpde.petsc.stack import PETSc

    if isinstance(error, PETSc.Error) and error.ierr == UNKNOWN_TYPE and cause(error) is None:
        return unknown_type(PETSc.Options().getAll())
    return cause(error) if isinstance(error, AnalogError | PETSc.Error) else None


def remind() -> None:
    """Say so if the options ask for our types and nothing was solved by them: a forgotten prefix, most often."""
    from analogpde.petsc import log
    from analogpde.petsc.stack import MPI, PETSc

    wanted = [name for name, value in PETSc.Options().getAll().items()
              if name.endswith(("ksp_type", "pc_type")) and value == "analog"]
    idle = not log.session().solves and log.machine.tiles_programmed == 0
    if wanted and idle and MPI.COMM_WORLD.rank == 0:
        report(f"analogpde: nothing was solved by -ksp_type analog or -pc_type analog (options given: "
               f"{', '.join('-' + name for name in wanted)}). A solver with an options prefix wants it in front, "
               "-flow_ksp_type for the prefix flow_; a DOLFINx LinearProblem also wants petsc_options={}.\n")


def report(text: str) -> None:
    """Print to standard error in one piece, after everything that was printed before, and let mpirun pass it on."""
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
    time.sleep(0.5)  # MPI_Abort follows: what mpirun has not read by then is lost


def run_target(flag: str, target: str) -> None:
    """Run the target under the name `__main__`, with `sys.path` as `python` itself would set it.

    Args:
        flag: '' for a script, '-m' or '-c'.
        target: path, module or Python source.
    """
    if flag == "-c":
        sys.path[0] = ""
        exec(compile(target, "<string>", "exec"), {"__name__": "__main__"})
    elif flag == "-m":
        sys.path[0] = str(Path.cwd())
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(target).resolve().parent)
        runpy.run_path(target, run_name="__main__")


def exit_code(ending: SystemExit) -> int:
    """Return the code that Python would exit with for `ending`."""
    if ending.code is None:
        return 0
    return ending.code if isinstance(ending.code, int) else 1


def all_arrive(comm: MPI.Intracomm, seconds: float) -> bool:
    """Wait for all ranks to come here, but not for ever. Collective if the program ends in good order.

    Args:
        comm: a communicator that nothing else uses.
        seconds: how long to wait.

    Returns:
        Whether they all came.
    """
    request = comm.Ibarrier()
    deadline = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

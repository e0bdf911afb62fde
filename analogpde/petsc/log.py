"""The session: what all solves of this process did, and the report that is written at its end."""

from __future__ import annotations

import atexit
import time

import numpy as np

from analogpde.cost import Ledger
from analogpde.errors import AnalogError
from analogpde.options import REPORT_OPTIONS
from analogpde.petsc.options import guard_names, read
from analogpde.petsc.stack import MPI, PETSc
from analogpde.refine.record import SolveLog

EVENTS = {name: PETSc.Log.Event(f"Analog{name}") for name in ("Partition", "Program", "Apply", "Coarse")}

_session = SolveLog(ranks=MPI.COMM_WORLD.size)
# This rank's operations since the start: whatever preconditioner applies tiles adds to it, also deep inside
# another one, and each solve takes the difference.
machine = Ledger()


def session() -> SolveLog:
    """Return the log of every solve by KSP analog in this process."""
    return _session


def reduce(comm: MPI.Comm, ledger: Ledger) -> Ledger:
    """Return the sum of a ledger over ranks. Collective."""
    if comm.size == 1:
        return ledger
    total = np.empty(len(ledger.as_dict()), np.int64)
    comm.Allreduce(np.array(list(ledger.as_dict().values()), np.int64), total)
    return Ledger(*(int(count) for count in total))


def write_report(path: str | None = None) -> None:
    """Write the convergence report of this process; rank 0 writes, nobody communicates.

    Args:
        path: FILE.json, .html or .txt, or several separated by commas; None takes -analog_report.

    Raises:
        AnalogError: the file cannot be written.
    """
    from analogpde.report import build, targets, write  # the report layer is loaded only when a report is wanted

    target = path or read(REPORT_OPTIONS, "")["analog_report"]
    if target and MPI.COMM_WORLD.rank == 0:
        report = build(_session)
        for name in targets(target):
            write(report, name)


def _at_exit() -> None:
    if MPI.Is_finalized() or MPI.COMM_WORLD.rank != 0:
        return
    try:
        if PETSc.Options().hasName("analog_report"):
            write_report()
    except AnalogError as error:
        print(f"analogpde: no report: {error}", flush=True)


def start() -> None:
    """Check the option names given on the command line and arrange for the report at the end."""
    guard_names()
    target = read(REPORT_OPTIONS, "")["analog_report"]
    if target:
        from analogpde.report import targets

        targets(target)
    _session.options.update({name: str(value) for name, value in PETSc.Options().getAll().items()})
    atexit.register(_at_exit)  # runs before petsc4py's own, which was registered earlier


def clock() -> float:
    """Return wall time in seconds."""
    return time.perf_counter()

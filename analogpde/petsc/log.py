"""The session: what all solves of this process did, and the report that is written at its end."""

from __future__ import annotations

import atexit
import sys
import time
from types import TracebackType
from typing import Any

import numpy as np

from analogpde.cost import Ledger
from analogpde.errors import AnalogError, cause
from analogpde.options import REPORT_OPTIONS
from analogpde.petsc.options import guard_names, read
from analogpde.petsc.stack import MPI, PETSc
from analogpde.refine.record import SolveLog, SolveRecord

EVENTS = {name: PETSc.Log.Event(f"Analog{name}") for name in ("Partition", "Program", "Apply", "Coarse")}

_excepthook = sys.excepthook
_session = SolveLog(ranks=MPI.COMM_WORLD.size)
# This rank's operations since the start: whatever preconditioner applies tiles adds to it, also deep inside
# another one, and each solve takes the difference.
machine = Ledger()
_checked: str | None = None  # the -analog_report that has been found writable
_anchors: list[PETSc.IS] = []
# Set-ups that no solve has taken into its record yet: options prefix of the PC, seconds, operations.
_setups: list[tuple[str, float, Ledger]] = []
# What PETSc puts behind a solver's prefix for the solvers inside its preconditioner.
_NESTED = ("mg_", "sub_", "fieldsplit_", "pc_", "ksp_", "inner_", "redundant_", "telescope_", "esteig_")


def add_setup(prefix: str, seconds: float, operations: Ledger) -> None:
    """Remember a set-up of PC analog until a solve takes it into its record."""
    _setups.append((prefix, seconds, operations))


def take_setups(prefix: str) -> tuple[float, Ledger]:
    """Return the seconds and operations of the set-ups under a solver's prefix, its own PC's or one's inside it."""
    seconds, operations = 0.0, Ledger()
    for setup in list(_setups):
        name = setup[0]
        if name == prefix or (name.startswith(prefix) and name[len(prefix):].startswith(_NESTED)):
            _setups.remove(setup)
            seconds += setup[1]
            operations.add(setup[2])
    return seconds, operations


def anchor(comm: PETSc.Comm) -> None:
    """Keep PETSc's own duplicate of COMM_WORLD alive from the first solver of ours on. Collective.

    PETSc frees the duplicate with the last object on it. If that object dies on one rank and lives on another, held
    by the traceback of a failure there, the next object is created with a collective call here and without one there,
    and both ranks wait for ever.
    """
    if comm.size == MPI.COMM_WORLD.size > 1 and not _anchors:
        _anchors.append(PETSc.IS().createStride(0, 0, 1, comm=comm))


def session() -> SolveLog:
    """Return the log of every solve by KSP analog in this process."""
    return _session


def add(record: SolveRecord, *, inside_another: bool) -> None:
    """Add a solve to the session; the operations of one inside another are in the other's already."""
    _session.add(record)
    if inside_another:
        _session.totals = _session.totals - record.operations


def reduce(comm: MPI.Comm, ledger: Ledger) -> Ledger:
    """Return the sum of a ledger over ranks. Collective."""
    if comm.size == 1:
        return ledger
    totals: dict[str, Any] = {}
    for kind, dtype in ((int, np.int64), (float, np.float64)):
        # by the type of the default: a sum that happens to be whole must not be of another kind on one rank
        names = [name for name, value in Ledger().as_dict().items() if type(value) is kind]
        total = np.empty(len(names), dtype)
        comm.Allreduce(np.array([getattr(ledger, name) for name in names], dtype), total)
        totals |= dict(zip(names, total.tolist(), strict=True))
    return Ledger(**totals)


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
            if not _session.solves:  # refused before, or digital: nothing to put in place of an earlier report
                raise AnalogError("no solve was recorded. Was there one with -ksp_type analog?")
            write_report()
    except AnalogError as error:
        print(f"analogpde: no report: {error}", flush=True)


def _last_word(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception as always, and behind all of PETSc's lines what analogpde had to say."""
    _excepthook(kind, error, trace)
    ours = cause(error)
    if ours is not None and not PETSc.Options().hasName("options_left"):
        PETSc.Options().setValue("options_left", "no")  # what a program did not come to read is no mistake of its user
    if ours is not None and ours is not error:
        sys.stderr.write(f"analogpde: {ours}\n")


def check_report() -> None:
    """Check that the report can be written that -analog_report asks for; again only if that has changed.

    Raises:
        AnalogError: it cannot.
    """
    global _checked
    target = read(REPORT_OPTIONS, "")["analog_report"]
    if target and target != _checked:
        from analogpde.report import targets

        targets(target)
    _checked = target


def start() -> None:
    """Check the option names given on the command line and arrange for the report at the end."""
    sys.excepthook = _last_word
    guard_names()
    check_report()
    _session.options.update({name: str(value) for name, value in PETSc.Options().getAll().items()})
    atexit.register(_at_exit)  # runs before petsc4py's own, which was registered earlier


def clock() -> float:
    """Return wall time in seconds."""
    return time.perf_counter()

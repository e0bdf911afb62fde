"""The life of a problem script: command line, systems, report, picture, exit code."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dolfinx import fem
from mpi4py import MPI
from petsc4py import PETSc

from analogpde.cost.ledger import Ledger
from analogpde.errors import AnalogError, InvalidInput
from analogpde.fem import picture
from analogpde.fem.arguments import check_prefixes, help_text, on_root, parse, prepare_folder, table
from analogpde.fem.output import FieldWriter, NoWriter
from analogpde.fem.progress import Progress
from analogpde.fem.stepping import count_steps
from analogpde.fem.system import LinearSystem
from analogpde.fem.verify import Verifier
from analogpde.options import Option, check_names
from analogpde.petsc.lattice import attach
from analogpde.petsc.log import session
from analogpde.petsc.options import UNKNOWN_TYPE, unknown_type
from analogpde.refine.record import SolveLog
from analogpde.report import build, targets, to_text, write

OK, FAILED, BAD_INPUT = 0, 1, 2
"""Exit codes: done; a solve did not converge; the input cannot be used."""

NOT_CONVERGED = 91
"""PETSC_ERR_NOT_CONVERGED of petscerror.h."""


@dataclass
class Run:
    """What a problem's `solve` function works with.

    Args:
        name: of the script.
        comm: all its ranks.
        values: the script's options by name.
        given: names of those that were on the command line.
        log: the solves.
        folder: where files go; None: nowhere.
        problem: what the report says about the problem.
    """

    name: str
    comm: MPI.Comm
    values: dict[str, Any]
    given: set[str]
    log: SolveLog
    folder: Path | None
    problem: dict[str, Any] = field(default_factory=dict)
    """In the form of the report's schema."""
    seconds_assemble: float = 0.0
    _systems: list[LinearSystem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.problem |= {"name": self.name, "title": self.name, "parameters": {}, "results": [], "files": [],
                         "pictures": []}

    def __getitem__(self, option: str) -> Any:
        return self.values[option]

    def say(self, text: str) -> None:
        """Print a line on rank 0."""
        if self.comm.rank == 0:
            print(text, flush=True)

    def describe(self, title: str, **parameters: Any) -> None:
        """Set the report's title and add parameters of the run to it."""
        self.problem["title"] = title
        self.problem["parameters"] |= parameters

    def answer(self, name: str, value: float, unit: str = "", *, expected: float | None = None,
               tolerance: float | None = None, source: str = "") -> None:
        """Add a physical answer to the report.

        Args:
            name: what was computed.
            value: the answer.
            unit: its unit.
            expected: the exact or published answer.
            tolerance: largest accepted |value − expected|.
            source: where the expected one comes from.
        """
        entry = {"name": name, "value": value, "unit": unit, "expected": expected, "tolerance": tolerance,
                 "source": source}
        self.problem["results"].append({key: item for key, item in entry.items() if item not in (None, "")})

    @contextmanager
    def assembling(self) -> Iterator[None]:
        """Count the time spent inside as assembly."""
        started = time.perf_counter()
        yield
        self.seconds_assemble += time.perf_counter() - started

    def system(self, matrix: PETSc.Mat, space: fem.FunctionSpace, prefix: str = "", *,
               symmetric: bool = True, local: bool = False) -> LinearSystem:
        """Return the solver of a constant matrix, verified if the user asked for it. Collective.

        Args:
            matrix: on the unknowns of `space`, whose coordinates it gets.
            space: a Lagrange space.
            prefix: options prefix.
            symmetric: whether the matrix is.
            local: whether one level of tiles is enough; see `LinearSystem`.
        """
        dimension = space.mesh.topology.dim
        owned = space.dofmap.index_map.size_local
        attach(matrix, space.tabulate_dof_coordinates()[:owned, : space.mesh.geometry.dim])
        matrix.setOption(PETSc.Mat.Option.SYMMETRIC, symmetric)
        verifier = Verifier(matrix, dimension, self.say) if self["verify"] else None
        self._systems.append(LinearSystem(matrix, prefix=prefix, log=self.log, verifier=verifier,
                                          local=local))
        return self._systems[-1]

    def count_steps(self, t_end: float, dt: float, unit: str = "s") -> int:
        """Return how many equal steps of at most `dt` reach `t_end`, and say so if they are not the user's -dt.

        Raises:
            InvalidInput: they are too many.
        """
        steps = count_steps(t_end, dt)
        if "dt" in self.given and not math.isclose(steps * dt, t_end, rel_tol=1e-9):
            self.say(f"{self.name}: -dt {dt:g} is no whole part of {t_end:g} {unit}: {steps} steps of "
                     f"{t_end / steps:.9g} {unit} are taken.")
        return steps

    def progress(self, total: int, label: str) -> Progress:
        """Return a progress bar."""
        return Progress(self.comm, total, label)

    def writer(self, functions: Sequence[fem.Function], stem: str = "fields") -> FieldWriter | NoWriter:
        """Return a writer of fields, or one that writes nothing if the user wants no files. Collective.

        Args:
            functions: of one mesh.
            stem: name of the file, without suffix.
        """
        if self.folder is None or self["snapshots"] == 0:
            return NoWriter()
        writer = FieldWriter(self.folder / stem, functions)
        self.problem["files"] += [str(path) for path in writer.files]
        return writer

    def draw(self, draw: Callable[[Path], None], caption: str) -> None:
        """Let `draw` make the picture, unless the user wants none. Collective."""
        if self.folder is None or not self["picture"]:
            return
        if not picture.available():
            self.say(f"{self.name}: no picture, because matplotlib is missing: pip install matplotlib")
            return
        path = self.folder / f"{self.name}.png"
        draw(path)
        self.problem["files"].append(str(path))
        self.problem["pictures"].append({"path": str(path), "caption": caption})

    def snapshot_steps(self, steps: int) -> set[int]:
        """Return the numbers of the steps after which fields are written; the last is one of them."""
        count = min(int(self["snapshots"]), steps)
        return {round(steps * (i + 1) / count) for i in range(count)}

    def close(self) -> None:
        """Note what solutions were verified against, and free the solvers. Collective."""
        references = {system.verifier.reference for system in self._systems if system.verifier is not None} - {""}
        if references:
            self.problem["parameters"]["verified against"] = ", ".join(sorted(references))
        for system in self._systems:
            system.destroy()
        self._systems.clear()
        PETSc.garbage_cleanup(self.comm)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        code: exit code.
        message: why it failed; empty if it did not.
        problem: what the report says about the problem: parameters, results, files.
        log: the solves.
    """

    code: int
    message: str
    problem: dict[str, Any]
    log: SolveLog

    def result(self, name: str) -> float:
        """Return the value of the answer called `name`."""
        return float(next(entry["value"] for entry in self.problem["results"] if entry["name"] == name))


@dataclass(frozen=True)
class Script:
    """A problem script.

    Args:
        name: of the file, without suffix.
        purpose: what -help says first.
        options: its own options.
        solve: solves the problem and fills in the report. Collective.
        defaults: defaults of common options that differ here.
        prefixes: of the options of its systems, where it has several.
        refused: common options that have no meaning here, and why.
    """

    name: str
    purpose: str
    options: tuple[Option, ...]
    solve: Callable[[Run], None]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    prefixes: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run as a program and return the exit code. Collective.

        Args:
            argv: the words after the script's name; None: those of this process.
        """
        comm = MPI.COMM_WORLD
        try:
            code = self.execute(sys.argv[1:] if argv is None else argv, comm).code
        except Exception:
            if comm.size == 1:
                raise
            # The other ranks may wait for this one for ever.
            print(f"{self.name}: error on rank {comm.rank} of {comm.size}", file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            comm.Abort(FAILED)
            raise
        if code == BAD_INPUT:
            # Of course options are left unused then: PETSc need not say so.
            PETSc.Options().setValue("options_left", "false")
        return code

    def execute(self, argv: Sequence[str], comm: MPI.Comm = MPI.COMM_WORLD) -> Outcome:
        """Run and return everything; print what a user would see. Collective.

        Args:
            argv: the words after the script's name.
            comm: all ranks of PETSc's world.
        """
        known = table(self.options, self.defaults)
        run: Run | None = None
        message, code = "", OK
        log = session()
        reports: list[Path] = []
        rest: dict[str, str | None] = {}
        try:
            values, rest, given = parse(argv, known)
            if values["help"]:
                if comm.rank == 0:
                    shown = {name: option for name, option in known.items() if name not in self.refused}
                    print(help_text(self.name, self.purpose, shown))
                return Outcome(OK, "", {}, log)
            for name in self.refused:
                if name in given:
                    raise InvalidInput(f"-{name}", values[name], f"no {name}: {self.refused[name]}")
            check_names(rest)
            check_prefixes(rest, self.prefixes)
            with _database(rest, known) as wanted:
                reports = on_root(comm, lambda: targets(wanted)) if wanted else []
                folder = values["out"] or f"results/{self.name}"
                run = Run(self.name, comm, values, given, log, None if folder == "none" else Path(folder))
                if run.folder is not None:
                    prepare_folder(comm, run.folder)
                    reports += [run.folder / "report.json", run.folder / "report.html"]
                _restart(log, comm)
                try:
                    self.solve(run)
                except Exception as problem:
                    # One of another kind may be this rank's alone: to close, which is collective, would be to wait.
                    if comm.size == 1 or isinstance(problem, (AnalogError, PETSc.Error)):
                        run.close()
                    raise
                run.close()
        except AnalogError as problem:
            message, code = str(problem), BAD_INPUT if isinstance(problem, InvalidInput) else FAILED
        except PETSc.Error as problem:
            message, code = _explained(problem, rest)
        failed = [(prefix, solve) for prefix, solve in log.solves.items() if solve.failures]
        if failed and code == OK:  # whoever swallowed the error of the solve
            prefix, first = failed[0]
            message, code = f"{first.failures} of {first.count} solves -{prefix}ksp_type did not converge", FAILED
        if run is not None and log.solves and comm.rank == 0:
            run.problem["files"] += [str(path) for path in reports]
            report = build(log, run.problem, run.seconds_assemble)
            print(to_text(report), flush=True)
            try:
                for path in reports:
                    write(report, path)
            except AnalogError as problem:
                message, code = message or str(problem), code or FAILED
        if message and comm.rank == 0:
            sys.stdout.flush()
            print(f"{self.name}: {'' if code == BAD_INPUT else 'FAILED: '}{message}", file=sys.stderr, flush=True)
        return Outcome(code, message, run.problem if run is not None else {}, log)


def _explained(problem: PETSc.Error, options: Mapping[str, str | None]) -> tuple[str, int]:
    """Return message and exit code for an error out of PETSc whose cause is known, or raise it again.

    Args:
        problem: the error.
        options: PETSc's options of the run.
    """
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, AnalogError):
            return str(cause), BAD_INPUT if isinstance(cause, InvalidInput) else FAILED
        cause = cause.__cause__ or cause.__context__
    if problem.ierr == UNKNOWN_TYPE:
        return str(unknown_type(options)), BAD_INPUT
    if problem.ierr == NOT_CONVERGED:  # its message was printed
        return "a solve did not converge (-ksp_error_if_not_converged)", FAILED
    raise problem


@contextmanager
def _database(rest: Mapping[str, str | None], known: Mapping[str, Option]) -> Iterator[str]:
    """Put PETSc's options of one run into the database and take them out afterwards.

    Those of the script leave it for good, and so does -analog_report, whose files (the value of this context) the
    script writes itself, because it knows more than the plugin does.
    """
    options = PETSc.Options()
    wanted = rest.get("analog_report") or options.getString("analog_report", "")
    rest = {name: text for name, text in rest.items() if name != "analog_report"}
    for name in (*known, "analog_report"):
        if options.hasName(name):
            options.delValue(name)
    before = options.getAll()
    for name, text in rest.items():
        # What PETSc read itself stays untouched, or it would be reported as unused.
        if before.get(name) != (text or ""):
            options.setValue(name, text or "")
    try:
        yield wanted
    finally:
        for name, text in options.getAll().items():
            if name not in before:
                options.delValue(name)
            elif before[name] != text:
                options.setValue(name, before[name])


def _restart(log: SolveLog, comm: MPI.Comm) -> None:
    """Empty the session's log: a report is about one run, also where a process makes several."""
    log.solves.clear()
    log.totals = Ledger()
    log.chip.clear()
    log.ranks = comm.size
    log.options.clear()
    log.options.update({name: text or "" for name, text in PETSc.Options().getAll().items()})

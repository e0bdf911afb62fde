"""Linear systems whose matrix is assembled once and whose solver is set up once."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace

import numpy as np
from petsc4py import PETSc

from analogpde.cost import Ledger
from analogpde.errors import AnalogError
from analogpde.fem.verify import Verifier
from analogpde.petsc import log as plugin
from analogpde.petsc.describe import told_of
from analogpde.petsc.ksp import REASONS
from analogpde.refine.record import SolveLog, SolveRecord, Step

DIGITAL_RTOL = 1e-10
"""Relative tolerance of a digital KSP if the user gives none: PETSc's own 1e-5 would hide discretisation errors."""

_SOLVER_OPTION = re.compile(r"^(ksp|pc|mg|sub|mat_mumps|mat_superlu_dist)_")
# Without it a KSP measures the preconditioned residual, which is not the one that reports are about.
_TRUE_NORM = ("cg", "fcg", "fgmres", "gcr", "richardson", "bcgs", "cr", "minres")


class NotConverged(AnalogError):
    """A solve ended without the accuracy that was asked for."""


def inherit_options(prefix: str) -> None:
    """Give the options `-ksp_…`, `-pc_…` and the like to `prefix` too, unless they are given for it already.

    So `-ksp_type analog` speaks to every system of a program, and `-poisson_ksp_type cg` overrules it for one.
    """
    if not prefix:
        return
    options = PETSc.Options()
    for name in options.getAll():
        if _SOLVER_OPTION.match(name) and not options.hasName(prefix + name):
            # Reading marks the unprefixed option as used for -options_left.
            options.setValue(prefix + name, options.getString(name))


class LinearSystem:
    """A x = b with a constant A, solved for one b after another. Collective.

    Args:
        matrix: A, complete. If it is singular, its null space is attached to it; solutions then have no
            component in it.
        prefix: options prefix of the KSP.
        log: where solves by PETSc's own KSPs are recorded; those by KSP analog record themselves, in the session's log.
        verifier: measures every solution against reference solves; None: no verification.
        local: A⁻¹ hardly reaches beyond a patch of the tiles, as that of a mass matrix: unless the user says how many
            levels, one is taken. It needs half as many iterations more, each of a fifth of the shots one after the
            other.
    """

    def __init__(self, matrix: PETSc.Mat, *, prefix: str = "", log: SolveLog, verifier: Verifier | None = None,
                 local: bool = False) -> None:
        self.matrix, self.prefix, self.log, self.verifier = matrix, prefix, log, verifier
        self.failure: NotConverged | None = None
        null_space = matrix.getNullSpace()
        self.null_space = null_space if null_space.handle else None
        inherit_options(prefix)
        options = PETSc.Options(prefix)
        ksp = PETSc.KSP().create(matrix.comm)
        ksp.setOptionsPrefix(prefix)
        ksp.setOperators(matrix)
        # Set before setFromOptions, so that a digital KSP never inherits the preconditioner of the analog one.
        kind = options.getString("ksp_type", "analog")
        ksp.setType(kind)
        self.analog = kind == "analog"
        if self.analog and local and options.getString("pc_type", "analog") == "analog" and not options.hasName(
                "pc_analog_levels"):
            options.setValue("pc_analog_levels", "1")
        if not self.analog:
            ksp.setTolerances(rtol=DIGITAL_RTOL, max_it=1000)
            if kind in _TRUE_NORM:
                ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
            ksp.setConvergenceHistory(length=1000, reset=True)
        # Time steps begin from the last solution; a direct solver has no use for one.
        ksp.setInitialGuessNonzero(kind != "preonly")
        ksp.setFromOptions()
        self.ksp = ksp
        self._seconds_setup = 0.0
        if not self.analog:
            started = time.perf_counter()
            ksp.setUp()
            self._seconds_setup = time.perf_counter() - started
        self._before = Ledger()  # of the solve under way, the set-up it has to account for taken off
        self._matrix_norm = matrix.norm(PETSc.NormType.NORM_INFINITY) if not self.analog else 0.0

    def solve(self, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Solve A x = b; x holds the initial guess and then the solution. Collective.

        If A is singular, b loses its component in the null space (in place).

        Raises:
            NotConverged: the solve failed; it is in the log.
            PETSc.Error: the plugin refuses the system; its cause says why.
        """
        if self.null_space is not None:
            self.null_space.remove(b)
        started = self._begin()
        self.ksp.solve(b, x)
        seconds = time.perf_counter() - started
        if self.null_space is not None:
            self.null_space.remove(x)
        self._finish(b, x, seconds)

    @property
    def shots(self) -> list[int]:
        """Shots of each level's tiles so far, which a checkpoint has to hold; empty where no PC analog is used."""
        pc = self.ksp.getPC()
        return pc.getPythonContext().shots if pc.getType() == "analog" else []

    @shots.setter
    def shots(self, counts: list[int]) -> None:
        pc = self.ksp.getPC()
        if pc.getType() != "analog":
            return
        pc.setUp()  # the levels are made now
        pc.getPythonContext().shots = counts

    def watched(self) -> PETSc.KSP:
        """Return the KSP for a library that calls it by itself; its solves are recorded, checked and verified too.

        They begin from zero: what a library leaves in x need not be a guess. A solve that fails ends the library's
        work by an error of PETSc; what it was is in `failure`.
        """
        started = 0.0

        def before(*_: object) -> None:
            nonlocal started
            started = self._begin()

        def after(_: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
            try:
                self._finish(b, x, time.perf_counter() - started)
            except NotConverged as problem:  # an exception that leaves a callback is lost in a foreign library
                self.failure = problem

        self.ksp.setInitialGuessNonzero(False)
        self.ksp.setErrorIfNotConverged(True)
        self.ksp.setPreSolve(before)
        self.ksp.setPostSolve(after)
        return self.ksp

    def _begin(self) -> float:
        """Note what the tiles have done until now, and return the time, s."""
        if not self.analog:
            self._before = plugin.machine - plugin.take_setups(self.prefix)[1]
        return time.perf_counter()

    def _finish(self, b: PETSc.Vec, x: PETSc.Vec, seconds: float) -> None:
        """Record a solve just done, raise if it failed, verify it. Collective."""
        reason = self.ksp.getConvergedReason()
        if not self.analog:
            self._record(b, x, seconds)
        if reason <= 0:
            name = REASONS.get(reason, str(reason))
            worst = self.log.solves[self.prefix].worst if self.prefix in self.log.solves else None
            advice = f" {worst.advice}" if worst is not None and worst.advice else ""
            raise NotConverged(f"solve -{self.prefix}ksp_type {self.ksp.getType()} did not converge: {name} after "
                               f"{self.ksp.getIterationNumber()} iterations.{advice}")
        if self.verifier is not None:
            self.log.solves[self.prefix].verified(*self.verifier.errors(b, x))

    def destroy(self) -> None:
        """Free solver and matrix. Collective."""
        if self.verifier is not None:
            self.verifier.destroy()  # before the matrix, which it may have to copy
        self.ksp.destroy()
        self.matrix.destroy()

    def _record(self, b: PETSc.Vec, x: PETSc.Vec, seconds: float) -> None:
        """Put a solve by a KSP of PETSc's into the log, as KSP analog does with its own; tiles may be in its PC."""
        comm, pc = self.matrix.comm.tompi4py(), self.ksp.getPC()
        plugin.take_setups(self.prefix)  # during the solve: the difference has their operations
        operations = plugin.reduce(comm, plugin.machine - self._before)
        how = f"Digital: PETSc's {self.ksp.getType()} with {pc.getType()} on the host; no tile took part. "
        if operations.inv_shots:
            how = f"PETSc's {self.ksp.getType()}, not KSP analog: no target of FP32, to its own tolerance. "
        residual = b.duplicate()
        self.matrix.mult(x, residual)
        residual.aypx(-1.0, b)
        norm_r, norm_b, norm_x = residual.norm(), b.norm(), x.norm()
        residual.destroy()
        relative = norm_r / norm_b if norm_b > 0 else norm_r
        scale = self._matrix_norm * norm_x + norm_b
        history = self._history(norm_b) or [Step(0, relative, math.nan, 0.0, 0)]
        if operations.inv_shots:  # PETSc's history has no counts by iteration
            history[-1] = replace(history[-1], inv_shots=operations.inv_shots)
        self.log.ranks = self.matrix.comm.size
        self.log.add(
            SolveRecord(
                prefix=self.prefix,
                unknowns=self.matrix.size[0],
                iterations=self.ksp.getIterationNumber(),
                converged_reason=REASONS.get(self.ksp.getConvergedReason(), "UNKNOWN"),
                advice=how + "Leave -ksp_type away for an analog solve.",
                relative_residual=relative,
                backward_error=norm_r / scale if scale > 0 else 0.0,
                preconditioner=pc.getType(),
                history=history,
                operations=operations,
                entries=int(self.matrix.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"]),
                **told_of(pc, operations),
                seconds_setup=self._seconds_setup,
                seconds_solve=seconds,
            )
        )
        self._seconds_setup = 0.0

    def _history(self, norm_b: float) -> list[Step]:
        """Return the KSP's residual history if it is one of true residuals; NaN: PETSc does not tell corrections."""
        if self.ksp.getNormType() != PETSc.KSP.NormType.UNPRECONDITIONED or norm_b == 0:
            return []
        values = np.asarray(self.ksp.getConvergenceHistory(), dtype=float) / norm_b
        gains = np.zeros(len(values))
        usable = (values[1:] > 0) & (values[:-1] > 0)
        gains[1:][usable] = np.log2(values[:-1][usable] / values[1:][usable])
        return [Step(i, float(values[i]), math.nan, float(gains[i]), 0) for i in range(len(values))]

"""The judge of a solve: history, monitors, PETSc's convergence test and the FP32-equivalent target."""

from __future__ import annotations

import ctypes
import dataclasses
import math

from analogpde.petsc import log
from analogpde.petsc.register import check, function
from analogpde.petsc.stack import PETSc
from analogpde.petsc.units import Units
from analogpde.refine.loop import Progress
from analogpde.refine.record import Step
from analogpde.refine.status import Status
from analogpde.refine.target import FP32_RTOL, fp32_equivalent

_STATUS = {status.code: status for status in (
    Status.CONVERGED_RTOL, Status.CONVERGED_ATOL, Status.CONVERGED_ITS, Status.DIVERGED_ITS, Status.DIVERGED_DTOL,
    Status.DIVERGED_NANORINF)}


_PETSC_ATOL = 1e-50  # PETSc's default: nobody asked for it, and a right-hand side below it has an answer, too


class Judge:
    """Reports each iterate to PETSc and decides, with PETSc's convergence test and with the FP32 target.

    While it is at work the relative tolerance of an FP32-equivalent solve is zero, so that PETSc's own test keeps
    only its other duties: absolute tolerance, divergence, NaN. A program's own test decides alone.
    """

    def __init__(self, ksp: PETSc.KSP, b_norm: float, matrix_norm: float, units: Units) -> None:
        self._ksp, self.b_norm, self._matrix_norm, self._shots = ksp, b_norm, matrix_norm, 0
        self._units = units
        self._rtol, self._atol = ksp.getTolerances()[:2]
        skipped = PETSc.Options().getString(f"{ksp.getOptionsPrefix() or ''}ksp_convergence_test", "") == "skip"
        own_test = skipped or ksp.getConvergenceTest() is not None
        self._own_test = own_test
        self.fp32 = self._rtol == FP32_RTOL and not own_test
        if self.fp32:
            ksp.setTolerances(rtol=0.0, atol=0.0 if self._atol == _PETSC_ATOL and b_norm > 0 else self._atol)
        least = ctypes.c_int()
        check(function("KSPGetMinimumIterations", ctypes.c_void_p, ctypes.c_void_p)(ksp.handle, ctypes.byref(least)))
        self._least = least.value
        self.history: list[Step] = []
        self.residual_norm, self._solution_norm = math.nan, 0.0
        self.petsc_reason = 0
        self._unproven = False

    def begin(self, unproven: bool = False) -> None:
        """Count shots from here on: the loop begins.

        Args:
            unproven: whether not even a residual of zero proves an answer (`SlowModes.unproven`).
        """
        self._unproven = unproven
        self._shots = log.machine.inv_shots

    def restore(self) -> None:
        """Give the KSP its tolerance back."""
        if self.fp32:
            self._ksp.setTolerances(rtol=self._rtol, atol=self._atol)

    def backward_error(self, residual_norm: float) -> float:
        """Return ‖r‖/(‖A‖ ‖x‖ + ‖b‖) for the latest x."""
        size = self._matrix_norm * self._solution_norm + self.b_norm
        return residual_norm / size if size > 0 else 0.0

    def test(self, progress: Progress) -> Status | None:
        """Judge one iterate. Collective."""
        progress = self._units.users(progress)
        bits = 0.0
        if self.history and progress.residual_norm > 0 and self.residual_norm > 0:
            bits = math.log2(self.residual_norm / progress.residual_norm)
        self.residual_norm, self._solution_norm = progress.residual_norm, progress.solution_norm
        relative = progress.residual_norm / self.b_norm if self.b_norm > 0 else progress.residual_norm
        self.history.append(
            Step(progress.iteration, relative, progress.correction, bits, log.machine.inv_shots - self._shots))
        ksp = self._ksp
        ksp.setIterationNumber(progress.iteration)
        ksp.setResidualNorm(progress.residual_norm)
        ksp.logConvergenceHistory(progress.residual_norm)
        ksp.monitor(progress.iteration, progress.residual_norm)
        if not math.isfinite(progress.solution_norm):  # within the loop's units, but not the user's
            return Status.DIVERGED_NANORINF
        if progress.residual_norm == 0.0 and self.fp32 and self._unproven:
            return Status.DIVERGED_STAGNATED
        if self._own_test or not self._units.unusual:
            self.petsc_reason = int(ksp.callConvergenceTest(progress.iteration, progress.residual_norm) or 0)
        else:
            self.petsc_reason = self._default_test(progress.iteration, progress.residual_norm)
        if self.petsc_reason:
            return _STATUS.get(self.petsc_reason, Status.DIVERGED_USER)
        if progress.residual_norm == 0.0:  # whatever a program's test wants: nothing is left to correct
            return Status.CONVERGED_ATOL
        backward = self.backward_error(progress.residual_norm)
        if self.fp32 and progress.iteration >= self._least and fp32_equivalent(backward, relative, progress):
            return Status.CONVERGED_FP32
        return None

    def _default_test(self, iteration: int, residual_norm: float) -> int:
        """Decide as KSPConvergedDefault does, whose own norm of b over- or underflows where a guess is given."""
        rtol, atol, divtol, _ = self._ksp.getTolerances()
        if not math.isfinite(residual_norm):
            return Status.DIVERGED_NANORINF.code
        if iteration < self._least:
            return 0
        if residual_norm <= max(rtol * self.b_norm, atol):
            return (Status.CONVERGED_ATOL if residual_norm <= atol else Status.CONVERGED_RTOL).code
        if residual_norm >= divtol * self.b_norm:
            return Status.DIVERGED_DTOL.code
        return 0

    def all_ranks(self, shots: int) -> list[Step]:
        """Return the history with INV shots of all ranks; `shots` is their exact sum over the solve.

        Every cycle shoots the same tiles, so this rank's share is the same in every step.
        """
        own = self.history[-1].inv_shots
        factor = shots / own if own else 0.0
        if not own and shots:  # this rank drives no tile at all: spread the sum evenly over the steps
            last = max(1, self.history[-1].iteration)
            return [dataclasses.replace(s, inv_shots=round(shots * s.iteration / last)) for s in self.history]
        return [dataclasses.replace(s, inv_shots=round(s.inv_shots * factor)) for s in self.history]

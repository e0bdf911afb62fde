"""KSP analog: iterative refinement in FP64 around whatever preconditioner makes the corrections."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.cost import Ledger
from analogpde.errors import InvalidInput
from analogpde.options import KSP_OPTIONS, check_residual
from analogpde.petsc import log
from analogpde.petsc.describe import told_of
from analogpde.petsc.exchange import ghost_bytes
from analogpde.petsc.guard import carried, say
from analogpde.petsc.judge import Judge
from analogpde.petsc.matrix import as_aij, nullity, version
from analogpde.petsc.options import given, guard_names, help_text, read, wants_help
from analogpde.petsc.register import check, function
from analogpde.petsc.sliced import SlicedOperator
from analogpde.petsc.stack import MPI, PETSc
from analogpde.petsc.system import System, slow_modes
from analogpde.petsc.units import Units
from analogpde.refine.loop import Progress, make_accelerator, refine
from analogpde.refine.modes import BLURRED, SOFT, Found, SlowModes, hidden_mode, nearly_singular
from analogpde.refine.record import SolveRecord, Step
from analogpde.refine.status import AT_THE_FLOOR, FAR_GUESS, FLOOR, Status, clipping, sliced_floor
from analogpde.refine.target import CONFIRMED, FP32_RTOL, WELL_SCALED

_PETSC_RTOL = 1e-5
_DEFAULT_PCS = (None, "", "none", "ilu", "icc", "bjacobi")
REASONS = {code: name for name, code in vars(PETSc.KSP.ConvergedReason).items()
            if isinstance(code, int) and name.startswith(("CONVERGED", "DIVERGED"))}
REASONS.update({2: "CONVERGED_RTOL", 3: "CONVERGED_ATOL", 4: "CONVERGED_ITS", -5: "DIVERGED_BREAKDOWN",
                 -3: "DIVERGED_ITS", -11: "DIVERGED_PC_FAILED", -9: "DIVERGED_NANORINF"})
_SEARCH_FAILED = (
    "With these corrections it could not be found out whether the matrix is nearly singular: without that no error can "
    "be told. An indefinite matrix does this (-ksp_analog_accelerator fcg says so of a symmetric one). ")
_STALE = (
    "The tiles hold older values of the matrix (KSPSetReusePreconditioner, -pc_analog_reprogram never): let them be "
    "programmed anew. ")
_SINGULAR = (
    "The matrix is singular: nothing is left of the constant, or of a vector declared near-null. Attach the null space "
    "(MatSetNullSpace), and remove from the right-hand side what no x reaches (MatNullSpaceRemove with the null space "
    "of the transpose): that is what the residual stops at.")
_MESSAGES_PER_PREFIX = 3


def _weight(ksp: PETSc.KSP, transposed: bool = False) -> NDArray[np.float64] | None:
    """Return what equations of different size are to be multiplied by; None if they are alike, or nobody knows."""
    pc = ksp.getPC()
    return pc.getPythonContext().weight(transposed) if pc.getType() == "analog" else None


class AnalogKSP:
    """The petsc4py context behind `-ksp_type analog`. Every hook is collective."""

    under_way = 0  # solves of this rank, one inside the other

    def __init__(self) -> None:
        self.values: dict[str, Any] = {option.name: option.default for option in KSP_OPTIONS}
        self._sliced: SlicedOperator | None = None
        self._norm: tuple[Any, float, Ledger] = (None, 0.0, Ledger())  # of which matrix, norm, cost of a product
        self._spread, self._entries = 1.0, 0  # of the rows' norms; nonzeros on all ranks
        self._modes: tuple[Any, SlowModes] | None = None
        self._symmetric: tuple[Any, bool] = (None, False)
        self._messages = 0
        self._told_digital = False

    # ---- petsc4py hooks -------------------------------------------------------------------------------

    def create(self, ksp: PETSc.KSP) -> None:
        """Set the default target, and bring PC analog along unless the program chose another."""
        log.anchor(ksp.getComm())
        rtol, atol, divtol, max_it = ksp.getTolerances()
        if rtol == _PETSC_RTOL:
            ksp.setTolerances(rtol=FP32_RTOL, atol=atol, divtol=divtol, max_it=max_it)
        pc = ksp.getPC()
        prefix = ksp.getOptionsPrefix() or ""
        if pc.getType() in _DEFAULT_PCS and not PETSc.Options().hasName(prefix + "pc_type"):
            pc.setType("analog")

    @carried
    def setFromOptions(self, ksp: PETSc.KSP) -> None:
        """Read the options of this prefix."""
        guard_names()
        log.check_report()
        prefix = ksp.getOptionsPrefix() or ""
        self.values = read(KSP_OPTIONS, prefix)
        check_residual(self.values, given(("ksp_analog_residual_bits",), prefix))
        if wants_help() and ksp.getComm().rank == 0:
            print(help_text("KSP analog", KSP_OPTIONS, prefix, self.values), end="")

    def view(self, ksp: PETSc.KSP, viewer: PETSc.Viewer) -> None:
        """Print what -ksp_view shows."""
        if viewer.getType() != PETSc.Viewer.Type.ASCII:
            return
        v = self.values
        residual = str(v["ksp_analog_residual"])
        if residual == "sliced":
            progressive = ", no more slices than needed" if v["ksp_analog_residual_progressive"] else ""
            residual += f" in {v['ksp_analog_residual_bits']} bits{progressive}"
        accelerator = v["ksp_analog_accelerator"]
        viewer.printfASCII(f"    iterative refinement, residual {residual}, accelerator {accelerator}\n")
        if ksp.getTolerances()[0] == FP32_RTOL:
            viewer.printfASCII("    target: FP32-equivalent (forward error 2^-23, backward error 2^-24), in place of "
                               "the relative tolerance below\n")
        kind = ksp.getPC().getType()
        if kind != "analog":
            viewer.printfASCII(f"    corrections by PC '{kind}', not by PC analog\n")

    @carried
    def solveTranspose(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Refine Aᵀx = b on the tiles of A, rows and columns exchanged."""
        if self.values["ksp_analog_residual"] == "sliced":
            raise InvalidInput("-ksp_analog_residual", "sliced", "digital for KSPSolveTranspose",
                               "The multiplier's slices hold A by rows.")
        self._begin(ksp, b, x, transposed=True)

    def reset(self, ksp: PETSc.KSP) -> None:
        """Free the sliced copy of the operator."""
        if self._sliced is not None:
            self._sliced.destroy()
            self._sliced = None
        self._norm, self._modes = (None, 0.0, Ledger()), None

    def destroy(self, ksp: PETSc.KSP) -> None:
        """Free everything."""
        self.reset(ksp)

    @carried
    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Refine until converged or refused, and record it."""
        self._begin(ksp, b, x, transposed=False)

    # ---- what they do -----------------------------------------------------------------------------------

    def _begin(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, *, transposed: bool) -> None:
        AnalogKSP.under_way += 1
        try:
            # after values have changed without KSPSetOperators, PETSc would do it inside the first application only
            ksp.getPC().setUp()
            if ksp.getNormType() == PETSc.KSP.NormType.NONE:
                self._smooth(ksp, b, x, transposed)
            else:
                self._solve(ksp, b, x, transposed)
        except BaseException:  # PETSc, which has locked b during the solve, does not unlock it after an error
            check(function("VecLockReadPop", ctypes.c_void_p)(b.handle))
            raise
        finally:
            AnalogKSP.under_way -= 1

    def _solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> None:
        comm = ksp.getComm().tompi4py()
        setup_seconds, programmed = log.take_setups(ksp.getOptionsPrefix() or "")
        before = log.machine - programmed
        start = log.clock()
        matrix, _ = ksp.getOperators()
        norm, host = self._matrix_norm(matrix)
        sliced = self._sliced_operator(ksp, matrix)
        units = Units.of(norm, b)
        judge = Judge(ksp, units.norm(b), norm, units)
        try:
            wanted = judge.fp32 and 0.0 < judge.b_norm < math.inf
            modes, searched = self._slow_modes(ksp, b, norm, host, units) if wanted else (None, 0)
            system = System(ksp, b, sliced, host, transposed, modes,
                            self.values["ksp_analog_residual_progressive"], units)
            judge.begin(modes is not None and modes.unproven)
            status = self._refine(ksp, system, judge, x, units)
        finally:
            judge.restore()
        reason = judge.petsc_reason if status is Status.DIVERGED_USER else status.code
        ksp.setConvergedReason(reason)
        # solvers inside the PC may have been set up during the solve: the difference below holds their operations
        late_seconds, _ = log.take_setups(ksp.getOptionsPrefix() or "")
        operations = log.reduce(comm, log.machine - before)
        advice = status.advice
        if sliced is not None:
            advice = sliced_floor(status, sliced.bits, judge.backward_error(system.difference),
                                  exact=sliced.exact) + advice
        if status is Status.DIVERGED_STAGNATED and (outside := system.outside_range()) > 0:
            advice = (f"The right-hand side has {outside:.1e} of itself in the null space, where no x reaches it: "
                      "remove that part (MatNullSpaceRemove). ") + advice
        history = judge.all_ranks(operations.inv_shots - programmed.inv_shots - searched)
        if status is Status.DIVERGED_STAGNATED and modes is not None and modes.lost:
            advice = (f"A is too near to singular for FP64: of a vector that the tiles found it leaves "
                      f"{modes.lost:.0e} of what it adds up, so that rounding hides the error along it. Attach the "
                      "null space (MatSetNullSpace), or set -ksp_rtol to be content with a small residual.")
            if modes.lost > BLURRED:  # the search found nothing
                advice = _SEARCH_FAILED + status.advice
        elif status is Status.DIVERGED_STAGNATED and modes is not None and modes.null.shape[1] and not nullity(matrix):
            advice = _SINGULAR
        elif status is Status.DIVERGED_STAGNATED and history[-1].relative_residual < FLOOR:
            advice = AT_THE_FLOOR
        elif status is Status.DIVERGED_DTOL and history[-1].iteration == 0:
            advice = FAR_GUESS
        if status.code < 0:
            pc = ksp.getPC()
            stale = pc.getType() == "analog" and not pc.getPythonContext().holds(ksp.getOperators()[1])
            advice = (_STALE if stale else "") + clipping(operations) + advice
        record = SolveRecord(
            prefix=ksp.getOptionsPrefix() or "", unknowns=b.getSize(), iterations=history[-1].iteration,
            converged_reason=REASONS.get(reason, str(reason)), advice=advice,
            relative_residual=history[-1].relative_residual,
            backward_error=judge.backward_error(judge.residual_norm), preconditioner=ksp.getPC().getType() or "none",
            history=history, operations=operations, seconds_setup=setup_seconds + late_seconds,
            seconds_solve=log.clock() - start - late_seconds, entries=self._entries,
            **told_of(ksp.getPC(), operations))
        system.destroy()
        if comm.size == MPI.COMM_WORLD.size:  # a solver on part of the ranks is somebody's inner solver
            log.add(record, inside_another=AnalogKSP.under_way > 1)
        self._tell(comm, record)

    def _slow_modes(
        self, ksp: PETSc.KSP, b: PETSc.Vec, norm: float, host: Ledger, units: Units,
    ) -> tuple[SlowModes, int]:
        """Return the slow modes of the operator, found once, and the INV shots of all ranks that it took. Collective.

        If A may be nearly singular, or nothing tells, the tiles are asked for a nearly singular mode, too.
        """
        matrix, _ = ksp.getOperators()
        if self._modes is not None and self._modes[0] == version(matrix):
            return self._modes[1], 0
        found, shots = None, log.machine.inv_shots
        if ksp.getPC().getType() == "analog" and not nullity(matrix) and self._soft(ksp, b, host, units):
            found = self._search(ksp, b, host, units)
        modes = slow_modes(matrix, norm, units, found, _weight(ksp))
        self._modes = (version(matrix), modes)
        return modes, int(ksp.getComm().tompi4py().allreduce(log.machine.inv_shots - shots))

    def _soft(self, ksp: PETSc.KSP, b: PETSc.Vec, host: Ledger, units: Units) -> bool:
        """Tell whether A may be nearly singular, by its coarsest operator or the tiles' corrections. Collective."""
        on_tiles, context = ksp.getOperators()[1], ksp.getPC().getPythonContext()
        if context.softness < SOFT:
            return True
        counts, diagonal = context.shots, on_tiles.getDiagonal()
        system = System(ksp, b, None, host, units=units)
        soft = nearly_singular(system, np.ldexp(diagonal.array_r, -units.matrix), on_tiles.getOwnershipRange()[0])
        system.destroy()
        diagonal.destroy()
        context.shots = counts  # the solve draws the same noise, whether this was asked for or not
        return soft

    def _search(self, ksp: PETSc.KSP, b: PETSc.Vec, host: Ledger, units: Units) -> Found:
        """Return the nearly singular mode that the tiles find, and if A is unsymmetric that of Aᵀ, too. Collective."""
        matrix, context = ksp.getOperators()[0], ksp.getPC().getPythonContext()
        begin, end = matrix.getOwnershipRange()
        counts, sides = context.shots, []
        for transposed in (False, True):
            system = System(ksp, b, None, host, transposed, units=units)
            symmetric = system.symmetric()
            sides.append(hidden_mode(system, self._accelerator(ksp, system), self.values["ksp_analog_restart"], begin,
                                     end - begin, _weight(ksp, transposed)))
            system.destroy()
            if symmetric:
                break
        context.shots = counts  # the solve draws the same noise, whether a restarted program has searched or not
        return Found(*sides[0], sides[1][0] if len(sides) > 1 else None)

    def _refine(self, ksp: PETSc.KSP, system: System, judge: Judge, x: PETSc.Vec, units: Units) -> Status:
        """Run the loop on this rank's part of x. Collective."""
        if not math.isfinite(judge.b_norm) or not units.held:
            judge.history.append(Step(0, math.nan, 0.0, 0.0, 0))
            return Status.DIVERGED_NANORINF
        # a zero right-hand side has a zero answer; relative to it no other guess would ever be good enough
        values = np.ldexp(x.array_r, -units.solution) if judge.b_norm > 0 else np.zeros(x.getLocalSize())
        accelerator = make_accelerator(self._accelerator(ksp, system), values.size, self.values["ksp_analog_restart"],
                                       _weight(ksp, system.transposed))

        def test(progress: Progress) -> Status | None:
            # a monitor or a program's test may ask the KSP for its solution
            x.array[:] = units.solutions(values)
            return judge.test(progress)

        status = refine(system, values, accelerator, test=test, max_iterations=ksp.getTolerances()[3],
                        stagnation=self.values["ksp_analog_stagnation"],
                        confirm=CONFIRMED if self._spread > WELL_SCALED else None)
        x.array[:] = units.solutions(values)
        x.stateIncrease()
        if not judge.history:  # the initial guess itself is not finite
            judge.history.append(Step(0, math.nan, 0.0, 0.0, 0))
        return status

    def _smooth(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> None:
        """Do max_it steps without a test, as a smoother inside another solver; of many, none that changes nothing.

        A solver that PETSc tells not to test, GAMG's coarse one for instance, may come with the default 10 000 steps.
        """
        system = System(ksp, b, None, Ledger(), transposed)
        values = np.array(x.array_r)
        accelerator = make_accelerator(self._accelerator(ksp, system), values.size, self.values["ksp_analog_restart"])
        reason = Status.CONVERGED_ITS.code
        limit, patience = ksp.getTolerances()[3], self.values["ksp_analog_stagnation"]
        best, since_best = math.inf, 0
        for iteration in range(limit):
            residual = system.residual(values)
            if limit > patience:
                norm = math.sqrt(float(system.sum(np.array([residual @ residual]))[0]))
                best, since_best = (norm, 0) if norm < 0.9 * best else (best, since_best + 1)
                if norm == 0.0 or since_best >= patience:
                    break
            step = accelerator.update(system, residual, system.correct(accelerator.target(system, residual)))
            if isinstance(step, Status):
                if step is Status.DIVERGED_PC_FAILED:
                    reason = step.code
                break
            values += step
            ksp.setIterationNumber(iteration + 1)
        x.array[:] = values
        x.stateIncrease()
        system.destroy()
        ksp.setConvergedReason(reason)

    def _accelerator(self, ksp: PETSc.KSP, system: System) -> str:
        """Return the accelerator to use; `auto` asks whether A is symmetric. Collective.

        Measured on degree 1 and 2 Poisson with every preset chip, fcg needs 0.4 to 1 times the iterations of
        fgmres (docs/accuracy.md): it minimises the energy norm, in which a noisy correction is a small one.
        """
        name = str(self.values["ksp_analog_accelerator"])
        if self.values["ksp_analog_residual"] == "sliced" and self.values["ksp_analog_residual_progressive"]:
            # conjugate gradients take step lengths from the residual: with a tenth of it wrong they lose their way
            if name == "fcg":
                raise InvalidInput("-ksp_analog_accelerator", "fcg", "none | fgmres with a progressive residual")
            return "fgmres" if name == "auto" else name
        if name != "auto":
            return name
        matrix, _ = ksp.getOperators()
        if self._symmetric[0] != version(matrix):
            known, symmetric = matrix.isSymmetricKnown()
            self._symmetric = (version(matrix), symmetric if known else system.symmetric())
        return "auto" if self._symmetric[1] else "fgmres"

    def _matrix_norm(self, matrix: PETSc.Mat) -> tuple[float, Ledger]:
        """Return the largest row 2-norm, a lower bound of ‖A‖₂, and what one product costs the host. Collective."""
        if self._norm[0] == version(matrix):
            return self._norm[1], self._norm[2]
        comm = matrix.getComm().tompi4py()
        largest, smallest, entries, sent = 0.0, math.inf, 0, 0
        try:
            aij, converted = as_aij(matrix, "matrix type", "")
            indptr, indices, values = aij.getValuesCSR()
            sent = ghost_bytes(indices, *aij.getOwnershipRangeColumn())
            if converted:
                aij.destroy()
            entries = len(values)
            unit = float(np.abs(values).max(initial=0.0)) or 1.0  # so that no square over- or underflows
            squares = values / unit
            squares *= squares
            norms = unit * np.sqrt(np.add.reduceat(squares, indptr[:-1][np.diff(indptr) > 0]))  # of rows that have any
            largest = float(norms.max(initial=0.0))
            smallest = float(np.min(norms, initial=math.inf, where=norms > 0))
        except InvalidInput:  # no entries: a product with a fixed vector bounds the norm from below
            probe, image = matrix.createVecs()
            begin, end = probe.getOwnershipRange()
            probe.array[:] = np.cos(12.9898 * np.arange(begin, end))
            matrix.mult(probe, image)
            largest = image.norm() / max(probe.norm(), 1e-300)
            probe.destroy()
            image.destroy()
        norm = float(comm.allreduce(largest, op=MPI.MAX))
        least = float(comm.allreduce(smallest, op=MPI.MIN))
        self._spread = norm / least if least > 0 else math.inf
        self._entries = int(comm.allreduce(entries))
        self._norm = (version(matrix), norm, Ledger(host_flops=2 * entries, host_bytes=12 * entries, rank_bytes=sent))
        return norm, self._norm[2]

    def _sliced_operator(self, ksp: PETSc.KSP, matrix: PETSc.Mat) -> SlicedOperator | None:
        if self.values["ksp_analog_residual"] != "sliced":
            return None
        bits = self.values["ksp_analog_residual_bits"]
        if self._sliced is None or self._sliced.made_from != (version(matrix), bits):
            if self._sliced is not None:
                self._sliced.destroy()
            self._sliced = SlicedOperator(matrix, bits, ksp.getOptionsPrefix() or "")
        return self._sliced

    def _tell(self, comm: MPI.Comm, record: SolveRecord) -> None:
        """Say on the terminal what must not be missed: a digital preconditioner, a refusal."""
        name = f"KSP {record.prefix or '(no prefix)'}"
        if record.operations.inv_shots == 0 and record.iterations and not self._told_digital:
            self._told_digital = True
            say(comm, f"analogpde: {name}: corrections come from the digital preconditioner '{record.preconditioner}', "
                "not from analog tiles.")
        elif record.digital_parts and record.preconditioner != "analog" and not self._told_digital:
            self._told_digital = True
            say(comm, f"analogpde: {name}: partly digital: {record.digital_parts}.")
        if not record.converged and self._messages < _MESSAGES_PER_PREFIX:
            self._messages += 1
            say(comm, f"analogpde: {name}: {record.converged_reason} after {record.iterations} iterations, relative "
                f"residual {record.relative_residual:.2e}. {record.advice}")

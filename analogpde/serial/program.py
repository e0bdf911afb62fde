"""`solve` and its two stages: put a matrix on tiles, then refine for right-hand sides."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip, load
from analogpde.cost import Ledger
from analogpde.errors import InvalidInput, ProgrammingFailed, did_you_mean
from analogpde.options import TABLE, check_residual
from analogpde.refine.loop import Progress, make_accelerator, refine
from analogpde.refine.modes import SOFT, Found, SlowModes, hidden_mode, lost, nearly_singular, without
from analogpde.refine.record import SolveRecord, Step
from analogpde.refine.status import Status, clipping, sliced_floor
from analogpde.refine.target import CONFIRMED, WELL_SCALED, fp32_equivalent
from analogpde.serial.cycle import Cycle, Settings
from analogpde.serial.matrix import System, complex_vectors, exponent_of, read_matrix, read_vectors, real_vectors
from analogpde.serial.result import NotConverged, Result, Statistics, in_python
from analogpde.serial.sliced import SlicedProduct
from analogpde.tile.blockamc import DEEPEST, depth_needed

_PLACING = {name: f"pc_analog_{name}" for name in (
    "levels", "core", "overlap", "strength", "truncation", "shift", "slices", "coarse_slices", "coarse")}
_REFINING = {name: f"ksp_analog_{name}" for name in (
    "accelerator", "residual", "residual_bits", "residual_progressive", "restart", "stagnation")}
# A residual so much larger than the right-hand side is the end, as PETSc's divergence tolerance has it.
DIVERGED = 1e4


def _in_python(error: InvalidInput) -> InvalidInput:
    """Return an error about an option as one about the argument that stands for it."""
    return InvalidInput(in_python(error.what).removesuffix("="), error.got, in_python(error.allowed),
                        in_python(error.remedy))


def _value(name: str, option: str, given: Any) -> Any:
    """Return an argument's value, checked by the table of options; None takes the default."""
    entry = TABLE[option]
    if given is None:
        return entry.default
    try:
        return entry.parse(str(given))
    except InvalidInput as error:
        raise InvalidInput(name, given, error.allowed, in_python(error.remedy)) from None


def _chip(given: Any) -> Chip:
    if isinstance(given, Chip):
        return given
    if not isinstance(given, str):
        raise InvalidInput("chip", given, "a preset's name, the path of a JSON file, or an analogpde.Chip")
    try:
        return load(given)
    except InvalidInput as error:
        if error.what == "-analog_chip":
            raise InvalidInput("chip", error.got, error.allowed, error.remedy) from None
        raise


class ProgrammedMatrix:
    """A matrix on emulated tiles, ready for right-hand sides; made by `program`.

    Args:
        system: the matrix.
        cycle: its tiles.
        settings: how it was put there.
        seconds: wall time that took.
    """

    def __init__(self, system: System, cycle: Cycle, settings: Settings, seconds: float) -> None:
        self._system, self._cycle, self.settings = system, cycle, settings
        self._seconds, self._unpaid = seconds, cycle.programmed
        self._sliced: SlicedProduct | None = None
        self._modes: SlowModes | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix that was given."""
        n = self._system.rows // (2 if self._system.complex else 1)
        return n, n

    def correct(self, residual: Any) -> NDArray[Any]:
        """Return one answer of the tiles to a vector, d ≈ A⁻¹ residual, without any refinement: a single shot."""
        columns, flat = read_vectors(residual, "residual", self.shape[0])
        real, join = self._real(columns)
        shots = [np.ldexp(self._cycle.correct(real[:, j].copy())[0], -self._system.exponent)
                 for j in range(real.shape[1])]
        out = join(np.stack(shots, axis=1))
        return out[:, 0] if flat else out

    def solve(
        self, b: Any, *, rtol: float | None = None, x0: Any = None, max_iterations: int = 10000,
        accelerator: str | None = None, residual: str | None = None, residual_bits: int | None = None,
        residual_progressive: bool | None = None, restart: int | None = None, stagnation: int | None = None,
        throw: bool = False,
    ) -> Result:
        """Refine A x = b on the tiles as they are programmed; see `solve`.

        Raises:
            InvalidInput: an argument is wrong.
            NotConverged: the tolerance was not reached, and `throw` is true.
        """
        given = {"accelerator": accelerator, "residual": residual, "residual_bits": residual_bits,
                 "residual_progressive": residual_progressive, "restart": restart, "stagnation": stagnation}
        how = {name: _value(name, option, given[name]) for name, option in _REFINING.items()}
        try:
            check_residual({f"ksp_analog_{name}": value for name, value in how.items()}, residual_bits is not None)
        except InvalidInput as error:
            raise _in_python(error) from None
        if rtol is not None and not (isinstance(rtol, (int, float, np.number)) and 0.0 < rtol < 1.0):
            raise InvalidInput("rtol", rtol, "a number between 0 and 1, or None for the FP32-equivalent target")
        if isinstance(max_iterations, bool) or not isinstance(max_iterations, (int, np.integer)) or max_iterations < 0:
            raise InvalidInput("max_iterations", max_iterations, "an integer from 0 up")
        if how["residual"] == "sliced" and how["residual_progressive"] and how["accelerator"] == "fcg":
            # conjugate gradients take step lengths from the residual: with a tenth of it wrong they lose their way
            raise InvalidInput("accelerator", "fcg", "none | fgmres with a progressive residual")
        rows = self.shape[0]
        columns, flat = read_vectors(b, "b", rows)
        start = np.zeros(columns.shape) if x0 is None else read_vectors(x0, "x0", rows)[0]
        if start.shape != columns.shape:
            raise InvalidInput("x0", f"shape {np.shape(x0)}", f"the shape of b, {np.shape(b)}")
        if start.dtype.kind == "c" and columns.dtype.kind != "c":
            columns = columns.astype(np.complex128)
        right, join = self._real(columns)
        x = self._real(start.astype(columns.dtype))[0].copy()
        if how["residual"] == "sliced":
            self.sliced(how["residual_bits"])
        unpaid, self._unpaid = self._unpaid, Ledger()
        seconds, self._seconds = self._seconds, 0.0
        records, ends, forward = [], [], 0.0
        for j in range(right.shape[1]):
            exponent = exponent_of(right[:, j])
            solve = _Refinement(self, np.ldexp(right[:, j], -exponent), rtol, how)
            values = np.ldexp(x[:, j], self._system.exponent - exponent)
            ends.append(solve.run(values, int(max_iterations)))
            with np.errstate(over="ignore", under="ignore"):
                x[:, j] = np.ldexp(values, exponent - self._system.exponent)
            largest = float(np.abs(x[:, j]).max())
            if ends[-1].code > 0 and not (np.finfo(float).tiny <= largest < math.inf or not values.any()):
                ends[-1] = Status.DIVERGED_NANORINF  # FP64 has no room for x
            records.append(solve.record(ends[-1], unpaid if j == 0 else Ledger(), seconds if j == 0 else 0.0))
            forward = max(forward, solve.forward)
        status = next((end for end in ends if end.code <= 0), None)
        if status is None:
            status = ends[int(np.argmax([record.iterations for record in records]))]
        operations = sum((record.operations for record in records), Ledger())
        statistics = Statistics(records, operations, forward, seconds, sum(r.seconds_solve for r in records),
                                self.describe(), self._cycle.digital_parts)
        values = join(x)
        result = Result(values[:, 0] if flat else values, status, statistics, self.settings.chip.as_dict())
        if not result.converged:
            if throw:
                raise NotConverged(result)
            warnings.warn(f"analogpde.solve: {NotConverged(result)}", RuntimeWarning, stacklevel=3)
        return result

    def describe(self) -> str:
        """Return chip, levels and tiles in a few lines."""
        return f"chip {self.settings.chip.summary()}, seed {self.settings.seed}\n{self._cycle.describe()}"

    __repr__ = describe

    def _real(self, columns: NDArray[Any]) -> tuple[NDArray[np.float64], Any]:
        """Return columns for the real matrix, and what turns its answers into those of the user's."""
        if self._system.complex:
            return real_vectors(columns.astype(np.complex128)), complex_vectors
        if columns.dtype.kind == "c":  # a real matrix: real and imaginary parts are right-hand sides of their own
            count = columns.shape[1]
            return (np.concatenate([columns.real, columns.imag], axis=1),
                    lambda x: x[:, :count] + 1j * x[:, count:])
        return columns, lambda x: x

    def slow_modes(self, solve: _Refinement, accelerator: str) -> SlowModes:
        """Return what tells of the error along slow modes, looked for with the tiles by the first solve that asks."""
        if self._modes is None:
            near, found = self._system.near, None
            diagonal = self._system.matrix.diagonal()
            if self._cycle.softness < SOFT or nearly_singular(solve, diagonal, 0):
                found = Found(*hidden_mode(
                    solve, accelerator, TABLE["ksp_analog_restart"].default, 0, self._system.rows,
                    self._cycle.weight))
                largest = float(np.abs(found.right).max())
                if 0.0 < largest < math.inf:
                    near = np.column_stack((near, found.right / largest))
            images, weight = self._system.matrix @ near, self._cycle.weight
            left = None if weight is None else weight[:, None] * near / np.abs(weight[:, None] * near).max(axis=0)
            self._modes = modes = SlowModes(near, images, self._system.norm, lambda values: values, left,
                                            declared=self._system.near.shape[1])
            if found and near.shape[1] > self._system.near.shape[1]:
                if modes.doubtful or found.failed:
                    sizes = abs(self._system.matrix) @ np.abs(near)
                    modes.lost = lost(near, images, sizes, lambda values: values, found)
                if not self._system.symmetric:  # nothing drives the columns here to find the mode of Aᵀ
                    modes.gain = float(np.linalg.norm(near[:, -1]) / np.linalg.norm(images[:, -1]))
        return self._modes

    def sliced(self, bits: int) -> SlicedProduct:
        """Return the bit-sliced product with so many bits, made when it is first wanted."""
        if self._sliced is None or self._sliced.bits != bits:
            self._sliced = SlicedProduct(self._system.matrix, bits, self.settings.chip, self.settings.seed)
            self._unpaid.add(self._sliced.programmed)
        return self._sliced


class _Refinement:
    """One right-hand side under refinement: the linear system that the loop works with, and its judge."""

    def __init__(self, programmed: ProgrammedMatrix, b: NDArray[np.float64], rtol: float | None, how: dict[str, Any],
                 ) -> None:
        self._system, self._cycle = programmed._system, programmed._cycle
        self._b, self._rtol, self._how = b, rtol, how
        self._programmed = programmed
        self._modes: SlowModes | None = None
        self._b_norm = float(np.linalg.norm(b))
        self._sliced = programmed.sliced(how["residual_bits"]) if how["residual"] == "sliced" else None
        self._progressive = self._sliced is not None and bool(how["residual_progressive"])
        if self._sliced is not None:
            self._sliced.restart()
        entries = self._system.matrix.nnz
        self._host = Ledger(host_flops=2 * entries, host_bytes=12 * entries)
        self.operations, self._searched = Ledger(), Ledger()
        self.history: list[Step] = []
        self.forward = self._norm = math.inf
        self._size = self._gap = self._seconds = 0.0

    # ---- the linear system, as `refine` wants it ----------------------------------------------------------

    def multiply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A x as the machine forms products."""
        if self._sliced is not None:
            product, ledger = self._sliced.multiply(x)
            self.operations.add(ledger)
            return product
        self.operations.add(self._host)
        return np.asarray(self._system.matrix @ x)

    def residual(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return b − A x in FP64."""
        self.operations.add(self._host)
        return np.asarray(self._b - self._system.matrix @ x)

    def machine_residual(self, x: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the residual as the machine forms it."""
        if self._sliced is None:
            return true
        if self._progressive:
            formed, ledger = self._sliced.residual(self._b, x)
            self.operations.add(ledger)
        else:
            formed = self._b - self.multiply(x)
        self._gap = float(np.linalg.norm(formed - true))
        return np.asarray(formed)

    def correct(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the tiles' answer, without what A says nothing of."""
        x, ledger = self._cycle.correct(residual)
        self.operations.add(ledger)
        return self.determined(x)

    def determined(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x without its part along near-null vectors that A annihilates."""
        return x if self._modes is None else without(self._modes.null, x, self.sum)

    def slow_error(self, residual: NDArray[np.float64]) -> float:
        """Return the norm of the error along slow modes."""
        return self._modes.error(residual) if self._modes is not None else 0.0

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over one process."""
        return values

    # ---- the solve -------------------------------------------------------------------------------------------

    def run(self, x: NDArray[np.float64], max_iterations: int) -> Status:
        """Refine x in place."""
        start = time.perf_counter()
        if self._b_norm == 0.0:
            x[:] = 0.0  # a zero right-hand side has a zero answer
        name = self._how["accelerator"]
        if name == "auto" and (self._progressive or not self._system.symmetric):
            name = "fgmres"
        with np.errstate(over="ignore", invalid="ignore"):  # a diverging solve is a status, not a warning
            if self._rtol is None and self._b_norm > 0.0:
                self._modes = self._programmed.slow_modes(self, name)
                self._searched, self.operations = self.operations, Ledger()
            accelerator = make_accelerator(name, x.size, self._how["restart"], self._cycle.weight)
            status = refine(self, x, accelerator, test=self._test,
                            max_iterations=max_iterations, stagnation=self._how["stagnation"],
                            confirm=CONFIRMED if self._system.spread > WELL_SCALED else None)
        if not self.history:
            self.history.append(Step(0, math.nan, 0.0, 0.0, 0))
        self._seconds = time.perf_counter() - start
        return status

    def _backward_error(self, norm: float) -> float:
        size = self._system.norm * self._size + self._b_norm
        return norm / size if size > 0 else 0.0

    def _test(self, progress: Progress) -> Status | None:
        """Judge one iterate by its true residual, as PETSc's convergence test and KSP analog's do."""
        bits = 0.0
        if self.history and progress.residual_norm > 0 and self._norm > 0:
            bits = math.log2(self._norm / progress.residual_norm)
        self._norm, self._size = progress.residual_norm, progress.solution_norm
        self.forward = progress.forward_estimate if progress.residual_norm > 0 else 0.0
        relative = self._norm / self._b_norm if self._b_norm > 0 else self._norm
        self.history.append(
            Step(progress.iteration, relative, progress.correction, bits, self.operations.inv_shots))
        if self._norm == 0.0:
            unproven = self._rtol is None and self._modes is not None and self._modes.unproven
            return Status.DIVERGED_STAGNATED if unproven else Status.CONVERGED_ATOL
        if self._rtol is not None and relative <= self._rtol:
            return Status.CONVERGED_RTOL
        if relative >= DIVERGED * max(1.0, self.history[0].relative_residual):
            return Status.DIVERGED_DTOL
        if self._rtol is None and fp32_equivalent(self._backward_error(self._norm), relative, progress):
            return Status.CONVERGED_FP32
        return None

    def record(self, status: Status, programmed: Ledger, seconds: float) -> SolveRecord:
        """Return what the convergence report is made of."""
        advice = status.advice
        if self._sliced is not None:
            exact = self._programmed.settings.chip.multiplier.exact
            advice = sliced_floor(status, self._sliced.bits, self._backward_error(self._gap), exact=exact) + advice
        if status.code < 0:
            advice = clipping(self.operations) + advice
        last = self.history[-1]
        return SolveRecord(
            prefix="", unknowns=self._system.rows, iterations=last.iteration, converged_reason=status.name,
            advice=advice, relative_residual=last.relative_residual, backward_error=self._backward_error(self._norm),
            preconditioner="analog", history=self.history, operations=self.operations + self._searched + programmed,
            seconds_setup=seconds, seconds_solve=self._seconds, description=self._programmed.describe(),
            digital_parts=self._cycle.digital_parts, entries=self._system.matrix.nnz)


def program(
    A: Any, *, chip: str | Chip = "rram128", seed: int = 0, blockamc: int | None = None, near_null: Any = None,
    **settings: Any,
) -> ProgrammedMatrix:
    """Put a matrix on emulated tiles: one tile if it fits, else BlockAMC, Schwarz or the tile multigrid.

    Args:
        A: dense or SciPy-sparse, real or complex, shape (n, n). A complex matrix is held as a real one of 2n rows.
        chip: a preset's name, the path of a JSON file, or a chip.
        seed: of every random draw.
        blockamc: how often a block may be halved (0, 1, 2). None: a dense matrix of up to four tiles as often as it
            must be, any other never.
        near_null: what A all but annihilates, shape (n,) or (n, k), for the coarse levels; None: the constant.
        settings: levels, core, overlap, strength, truncation, shift, slices, coarse_slices, coarse: as the options
            of PC analog with these names.

    Raises:
        InvalidInput: an argument is wrong.
        ProgrammingFailed: the tiles cannot hold the matrix as a stable circuit.
    """
    for name in settings:
        if name not in _PLACING:
            known = [*_PLACING, *_REFINING, "chip", "seed", "blockamc", "near_null", "rtol", "max_iterations"]
            raise InvalidInput("argument", name, ", ".join(known), did_you_mean(name, known))
    machine = _chip(chip)
    values = {name: _value(name, option, settings.get(name)) for name, option in _PLACING.items()}
    key = _value("seed", "analog_seed", seed)
    depth = None if blockamc is None else _value("blockamc", "analog_blockamc", blockamc)
    start = time.perf_counter()
    system = read_matrix(A, near_null)
    if depth is None:
        needed = depth_needed(system.rows, machine.lines)
        depth = needed if system.dense and needed <= DEEPEST else 0
    try:
        how = Settings(chip=machine, seed=key, blockamc=depth, **values)
        cycle = Cycle(system.matrix, how, system.near, 2 if system.complex else 1,
                      symmetric=system.symmetric, attached=near_null is not None)
    except ProgrammingFailed as error:
        raise ProgrammingFailed(in_python(str(error))) from None
    except InvalidInput as error:
        raise _in_python(error) from None
    return ProgrammedMatrix(system, cycle, how, time.perf_counter() - start)


def solve(
    A: Any, b: Any, *, chip: str | Chip = "rram128", rtol: float | None = None, x0: Any = None,
    max_iterations: int = 10000, accelerator: str | None = None, residual: str | None = None,
    residual_bits: int | None = None, residual_progressive: bool | None = None, restart: int | None = None,
    stagnation: int | None = None, throw: bool = False, **programming: Any,
) -> Result:
    """Solve A x = b on an emulated analog chip, without PETSc and MPI.

    Args:
        A: dense or SciPy-sparse, real or complex, shape (n, n).
        b: right-hand sides, shape (n,) or (n, k); the tiles are programmed once for all.
        chip: a preset's name, the path of a JSON file, or a chip.
        rtol: stop when the true ‖b − A x‖₂ is at most this times ‖b‖₂. None: when x is FP32-equivalent.
        x0: initial guess, shape of b.
        max_iterations: corrections at most.
        accelerator: auto (default), none (the published HP-INV loop), fcg or fgmres.
        residual, residual_bits: digital (default) or sliced, and the bits of the sliced one.
        residual_progressive: whether each sliced residual is made of no more slices than it needs.
        restart, stagnation: see the options of KSP analog with these names.
        throw: raise `NotConverged` in place of a warning.
        programming: seed, blockamc, levels, …: see `program`.

    Returns:
        The answer, how it ended and what it took. `status` says CONVERGED only of what the true residual in FP64
        confirms.

    Raises:
        InvalidInput: an argument is wrong.
        ProgrammingFailed: the tiles cannot hold the matrix as a stable circuit.
        NotConverged: the tolerance was not reached, and `throw` is true.
    """
    return program(A, chip=chip, **programming).solve(
        b, rtol=rtol, x0=x0, max_iterations=max_iterations, accelerator=accelerator, residual=residual,
        residual_bits=residual_bits, residual_progressive=residual_progressive, restart=restart,
        stagnation=stagnation, throw=throw)

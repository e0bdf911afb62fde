"""What is remembered of a solve: the data that the convergence report is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from analogpde.cost.ledger import Ledger
from analogpde.cost.tiles import TileUse


def larger(a: float, b: float) -> float:
    """Return the larger of two errors; not a number is the worst of all."""
    return a if math.isnan(a) or a > b else b


@dataclass(frozen=True)
class Step:
    """One outer iteration.

    Args:
        iteration: 0 is the initial guess.
        relative_residual: true ‖b − A x‖₂/‖b‖₂, computed in FP64.
        correction: ‖x_k − x_{k−1}‖₂/‖x_k‖₂ (0 at iteration 0).
        bits_gained: −log₂ of the residual's reduction in this step (0 at iteration 0).
        inv_shots: INV shots since the solve began, on all ranks.
    """

    iteration: int
    relative_residual: float
    correction: float
    bits_gained: float
    inv_shots: int


@dataclass
class SolveRecord:
    """One linear solve, complete: every rank holds the same record.

    Args:
        prefix: options prefix of the KSP ('' if none).
        unknowns: global number of unknowns.
        iterations: outer iterations.
        converged_reason: PETSc's name, e.g. 'CONVERGED_RTOL'.
        advice: what the reason means here and what to try; one paragraph.
        relative_residual: true final ‖b − A x‖₂/‖b‖₂.
        backward_error: final ‖b − A x‖₂/(‖A‖ ‖x‖₂ + ‖b‖₂), ‖A‖ as `backward_error` documents it.
        preconditioner: PETSc's type name of the PC that made the corrections.
        history: the steps.
        operations: counts of this solve, summed over ranks; set-up included when it happened here.
        seconds_setup: wall time of partition and programming in this solve (0 if reused).
        seconds_solve: wall time of the refinement loop.
        forward_error: ‖x − x₆₄‖₂/‖x₆₄‖₂ against an FP64 reference solve, None if not verified.
        forward_error_fp32: the same for a native float32 solve, None if not verified.
        description: lines that describe the preconditioner (levels, tiles), as -ksp_view prints.
        digital_parts: what of the corrections is digital though tiles take part, in words; '' if nothing.
        tile_use: how a chip of few tiles is used, None if it has no limit.
        entries: nonzeros of the matrix, over all ranks; 0 if it has none to count.
    """

    prefix: str
    unknowns: int
    iterations: int
    converged_reason: str
    advice: str
    relative_residual: float
    backward_error: float
    preconditioner: str
    history: list[Step] = field(default_factory=list)
    operations: Ledger = field(default_factory=Ledger)
    seconds_setup: float = 0.0
    seconds_solve: float = 0.0
    forward_error: float | None = None
    forward_error_fp32: float | None = None
    description: str = ""
    digital_parts: str = ""
    tile_use: TileUse | None = None
    entries: int = 0

    @property
    def converged(self) -> bool:
        """True if PETSc's reason is a positive one."""
        return self.converged_reason.startswith("CONVERGED")


@dataclass
class SolveSummary:
    """All solves of one prefix.

    The single figures are those of the worst solve: the first that failed, else the one with the most iterations;
    errors and residuals are the largest seen.
    """

    worst: SolveRecord
    count: int = 0
    failures: int = 0
    iterations_total: int = 0
    iterations_min: int = 0
    iterations_max: int = 0
    relative_residual: float = 0.0
    backward_error: float = 0.0
    forward_error: float | None = None
    forward_error_fp32: float | None = None
    seconds_setup: float = 0.0
    seconds_solve: float = 0.0
    operations: Ledger = field(default_factory=Ledger)
    programmings: int = 0
    inv_shots: int = 0
    """Of the iterations alone: without those of programming and of the search for slow modes, once for each matrix."""

    def add(self, record: SolveRecord) -> None:
        """Count one more solve; the record itself is kept only if it is the new worst."""
        first = self.count == 0
        self.count += 1
        self.iterations_total += record.iterations
        self.iterations_min = record.iterations if first else min(self.iterations_min, record.iterations)
        self.iterations_max = max(self.iterations_max, record.iterations)
        self.relative_residual = larger(record.relative_residual, self.relative_residual)
        self.backward_error = larger(record.backward_error, self.backward_error)
        self.seconds_setup += record.seconds_setup
        self.seconds_solve += record.seconds_solve
        self.operations.add(record.operations)
        self.inv_shots += record.history[-1].inv_shots if record.history else 0
        self.programmings += record.operations.tiles_programmed > record.operations.tiles_multiplexed
        if record.converged:
            worse = self.worst.converged and record.iterations > self.worst.iterations
        else:
            self.failures += 1
            worse = self.worst.converged
        if worse:
            self.worst = record

    def verified(self, forward_error: float, forward_error_fp32: float | None) -> None:
        """Add the errors measured by an FP64 and (where it could run) a native FP32 solve."""
        self.forward_error = larger(forward_error, self.forward_error or 0.0)
        if forward_error_fp32 is not None:
            self.forward_error_fp32 = larger(forward_error_fp32, self.forward_error_fp32 or 0.0)


@dataclass
class SolveLog:
    """The solves of a run, summarised by prefix, and the chip they ran on."""

    solves: dict[str, SolveSummary] = field(default_factory=dict)
    totals: Ledger = field(default_factory=Ledger)
    chip: dict[str, object] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    ranks: int = 1

    def add(self, record: SolveRecord) -> None:
        """Count one solve."""
        self.totals.add(record.operations)
        summary = self.solves.get(record.prefix)
        if summary is None:
            summary = self.solves[record.prefix] = SolveSummary(worst=record)
        summary.add(record)

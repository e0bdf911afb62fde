"""From what the solvers remembered to a report."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analogpde.cost import Run, estimate
from analogpde.refine.record import SolveLog, SolveSummary
from analogpde.refine.target import BACKWARD_ERROR
from analogpde.report.model import HistoryRow, Report, Solve, Totals, finite, plain
from analogpde.report.schema import check


def build(log: SolveLog, problem: Mapping[str, Any] | None = None, seconds_assemble: float = 0.0) -> Report:
    """Build the report of a run.

    Not collective: every rank holds the same log, so any one rank can build and write.

    Args:
        log: the solves of the run.
        problem: what the program says of itself: name, title, parameters, results (each a dictionary of name, value,
            unit, expected, tolerance, source), files, pictures. NumPy values and paths are welcome.
        seconds_assemble: wall time of assembly, s, as the program measured it.

    Raises:
        InvalidInput: `problem` does not have the form that the report's schema describes.
    """
    solves = [_solve(prefix, summary) for prefix, summary in log.solves.items()]
    totals = Totals(
        operations=log.totals,
        seconds_assemble=finite(seconds_assemble) or 0.0,
        seconds_program=sum(solve.seconds_setup for solve in solves),
        seconds_solve=sum(solve.seconds_solve for solve in solves),
    )
    report = Report(
        problem=plain(problem or {}),
        options={str(name): str(value) for name, value in log.options.items()},
        chip=plain(log.chip),
        ranks=log.ranks,
        unknowns=max((solve.unknowns for solve in solves), default=0),
        solves=solves,
        totals=totals,
        environment=environment(),
        cost=_cost(log),
    )
    check(report.as_dict())
    return report


def _cost(log: SolveLog) -> dict[str, Any] | None:
    """Return the estimated cost of the solves of one prefix, that with the most INV shots.

    None without tiles, and where a solve failed: there is no digital run to the same accuracy then.
    """
    prefix, summary = max(log.solves.items(), key=lambda item: item[1].operations.inv_shots, default=("", None))
    if summary is None or not summary.operations.inv_shots or summary.failures:
        return None
    chip: Mapping[str, Any] = log.chip
    if not isinstance(chip.get("tile_size"), int) or not isinstance(chip.get("adc"), Mapping):
        return None  # a chip of another version: no estimate, but a report
    run = Run(
        operations=summary.operations, programmings=summary.programmings, right_hand_sides=summary.count,
        iterations=summary.iterations_total, unknowns=summary.worst.unknowns, entries=summary.worst.entries,
        ranks=log.ranks, tile=chip["tile_size"], adc_bits=chip["adc"].get("bits"),
        bandwidth=chip.get("amplifier", {}).get("gain_bandwidth"))
    data: dict[str, Any] = plain({"prefix": prefix, **estimate(run)})
    return data


def _solve(prefix: str, summary: SolveSummary) -> Solve:
    """Return the report's entry for the solves of one prefix."""
    worst = summary.worst
    residual = _largest(summary.relative_residual, worst.relative_residual)
    forward_error = _largest(summary.forward_error, worst.forward_error)
    return Solve(
        prefix=prefix,
        count=summary.count,
        failures=summary.failures,
        iterations=summary.iterations_max,
        iterations_min=summary.iterations_min,
        iterations_max=summary.iterations_max,
        iterations_total=summary.iterations_total,
        converged_reason=worst.converged_reason,
        advice=worst.advice,
        relative_residual=_number(residual),
        relative_residual_fp32=_residual_fp32(worst.relative_residual, worst.backward_error),
        backward_error=_number(_largest(summary.backward_error, worst.backward_error)),
        verified=forward_error is not None,
        forward_error=_number(forward_error),
        forward_error_fp32=_number(_largest(summary.forward_error_fp32, worst.forward_error_fp32)),
        history=[
            HistoryRow(int(step.iteration), _number(step.relative_residual), _number(step.correction),
                       _number(step.bits_gained), int(step.inv_shots))
            for step in worst.history
        ],
        seconds_setup=_number(summary.seconds_setup) or 0.0,
        seconds_solve=_number(summary.seconds_solve) or 0.0,
        unknowns=worst.unknowns,
        preconditioner=worst.preconditioner,
        # Another PC may hold PC analog inside (multigrid levels, sub-blocks): then tiles did take part.
        digital=worst.preconditioner != "analog" and summary.operations.inv_shots == 0,
        digital_parts=worst.digital_parts,
        description=worst.description,
        operations=summary.operations,
        tile_use=worst.tile_use.as_dict() if worst.tile_use is not None else None,
    )


def _number(value: float | None) -> float | None:
    """Return a Python float, or None where there is no finite number."""
    return finite(None if value is None else float(value))


def _largest(*values: float | None) -> float | None:
    """Return the largest value; one that is not finite counts as the largest, for it is the worst. None is no value."""
    present = [value for value in values if value is not None]
    return max(present, key=lambda value: value if math.isfinite(value) else math.inf, default=None)


def _residual_fp32(residual: float, backward_error: float) -> float | None:
    """Return the relative residual at which the backward error is 2⁻²⁴, ‖A‖ and the final ‖x‖ given by their ratio."""
    if not (math.isfinite(residual) and math.isfinite(backward_error) and residual > 0 and backward_error > 0):
        return None
    return finite(BACKWARD_ERROR * float(residual) / float(backward_error))


def environment() -> dict[str, Any]:
    """Return versions, machine, date and command line of this process; nothing is imported for it."""
    return {
        "versions": {
            "analogpde": _attribute("analogpde", "__version__") or _distribution("analogpde"),
            "python": platform.python_version(),
            "numpy": _attribute("numpy", "__version__") or _distribution("numpy"),
            "petsc": _petsc(),
            "dolfinx": _attribute("dolfinx", "__version__"),
        },
        "machine": _machine(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]) if sys.orig_argv else "",
    }


def _attribute(module: str, name: str) -> str | None:
    """Return an attribute of a module that is already loaded, as text."""
    value = getattr(sys.modules.get(module), name, None)
    return None if value is None else str(value)


def _distribution(name: str) -> str | None:
    """Return the version of an installed distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _petsc() -> str | None:
    """Return PETSc's version if the program uses PETSc."""
    module = sys.modules.get("petsc4py.PETSc")
    return None if module is None else ".".join(str(part) for part in module.Sys.getVersion())


def _machine() -> str:
    """Return operating system, processor and number of processors; no host name: reports are passed on."""
    processor = platform.machine()
    try:
        # platform.processor() starts a child process, which some MPI fabrics forbid.
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                processor = f"{processor} ({line.partition(':')[2].strip()})"
                break
    except OSError:
        pass
    return f"{platform.system()} {platform.release()}, {processor}, {os.cpu_count()} processors"
